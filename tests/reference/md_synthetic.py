"""Series and liquids whose averages and transport coefficients are known in closed form."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from scikd.md.trajectories import Trajectory


def ornstein_uhlenbeck(rng, n_series, n_points, memory, interval=1.0, variance=1.0):
    """Return stationary series whose correlation decays with a time constant."""
    keep = np.exp(-interval / memory)
    noise = rng.standard_normal((n_series, n_points)) * np.sqrt(variance * (1.0 - keep**2))
    noise[:, 0] /= np.sqrt(1.0 - keep**2)
    return lfilter([1.0], [1.0, -keep], noise, axis=1)


def integral_of(memory, interval=1.0, variance=1.0):
    """Return the integral of the correlation of such a series, as its points tell it."""
    keep = np.exp(-interval / memory)
    return variance * interval * (0.5 + keep / (1.0 - keep))


def liquid(paths, species=("Ar",), numbers=(18,), charges=(0,), *, edge=30.0, interval=1.0, **more):
    """Return a trajectory of atoms: paths (n_frames, n_atoms, 3), equal shares of each species."""
    n_frames, n_atoms, _ = paths.shape
    kinds = np.repeat(np.arange(len(species)), n_atoms // len(species))
    return Trajectory(
        positions=paths,
        cells=np.broadcast_to(np.eye(3) * edge, (n_frames, 3, 3)).copy(),
        times_ps=np.arange(n_frames) * interval,
        numbers=np.asarray(numbers)[kinds],
        molecules=np.arange(n_atoms),
        charges=np.asarray(charges, dtype=float)[kinds],
        names=tuple(species[k] for k in kinds),
        **{"temperature": 300.0, **more},
    )


def walks(rng, n_frames, diffusion, interval=1.0, edge=30.0):
    """Return random walks of atoms (n_frames, n_atoms, 3) with a diffusion in Å²/ps of each."""
    diffusion = np.asarray(diffusion, dtype=float)
    steps = rng.standard_normal((n_frames, len(diffusion), 3))
    steps *= np.sqrt(2.0 * diffusion * interval)[:, None]
    steps[0] = rng.uniform(0.0, edge, steps[0].shape)
    return np.cumsum(steps, axis=0)
