"""The long-range part of Ewald sums in PyTorch, differentiable any number of times.

Both functions return, for unit ``K``, the potential of charges that are Gaussians of width
``1/(sqrt(2) g)``, without each atom's own: the energy is half the sum of charge times potential.

References
----------
U. Essmann et al., "A smooth particle mesh Ewald method", J. Chem. Phys. 103, 8577 (1995).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from scikd.exceptions import InvalidInputError

from ._ragged import starts_of

__all__ = [
    "ORDER",
    "ewald_potentials",
    "mesh_shape",
    "spline_response",
    "spline_weights",
    "spme_potentials",
]

ORDER = 6  # of the B-splines: each charge goes to 6 x 6 x 6 mesh points
MOST_POINTS = 3e8  # of a mesh, or reciprocal vectors: several gigabytes


def _check_points(cell: np.ndarray, points: np.ndarray) -> None:
    """Refuse a cell whose reciprocal sum would fill the memory: a molecule in a wide one, mostly.

    Raises
    ------
    InvalidInputError
        If there would be too many points along the three lattice vectors.
    """
    if np.prod(points) > MOST_POINTS:
        lengths = ", ".join(f"{length:.4g}" for length in np.linalg.norm(cell, axis=1))
        message = (
            "Expected a cell whose reciprocal sum fits into memory; got lattice vectors of "
            f"{lengths} Å, which need {np.prod(points):.1g} points. Use a smaller cell, or "
            "pbc=False for molecules in free space."
        )
        raise InvalidInputError(message)


def _lattice_sites(cell: Tensor, cutoff: float) -> Tensor:
    """Return half of the reciprocal lattice vectors within a cutoff, as integers (M, 3)."""
    lattice = cell.detach().cpu()
    bounds = torch.floor(cutoff * torch.linalg.vector_norm(lattice, dim=1) / (2 * math.pi))
    _check_points(lattice.numpy(), 2.0 * bounds.double().numpy() + 1.0)
    ranges = [torch.arange(-int(n), int(n) + 1, dtype=lattice.dtype) for n in bounds]
    sites = torch.cartesian_prod(*ranges)
    vectors = 2 * math.pi * sites @ torch.linalg.inv(lattice).T
    # In this order the origin stands in the middle, and each vector's opposite before it.
    keep = torch.arange(len(sites)) > len(sites) // 2
    keep &= (vectors * vectors).sum(1) <= cutoff**2
    return sites[keep].to(cell.device)


def _own_and_background(charges: Tensor, volume: Tensor, batch: Tensor, g: float) -> Tensor:
    """Return the potential of each atom on itself, and of the neutralising background."""
    total = torch.zeros_like(volume).index_add(0, batch, charges)
    return -2 * g / math.sqrt(math.pi) * charges - (math.pi / g**2 * total / volume)[batch]


def ewald_potentials(
    positions: Tensor,
    charges: Tensor,
    cell: Tensor,
    batch: Tensor,
    *,
    splitting: float,
    cutoff: float,
) -> Tensor:
    """Sum over reciprocal lattice vectors, for B periodic structures at once.

    Parameters
    ----------
    positions, charges : Tensor of shape (N, 3) and (N,)
        In Å and e.
    cell : Tensor of shape (B, 3, 3)
        Lattice vectors as rows, in Å.
    batch : Tensor of int64 of shape (N,)
        Structure of each atom, ascending.
    splitting, cutoff : float
        ``g`` and the longest reciprocal vector, in 1/Å.

    Returns
    -------
    Tensor of shape (N,)
        Potentials in e/Å.
    """
    sites = [_lattice_sites(lattice, cutoff) for lattice in cell]
    n = torch.nn.utils.rnn.pad_sequence(sites, batch_first=True)  # (B, M, 3), zeros where none
    k = 2 * math.pi * n @ torch.linalg.inv(cell).transpose(1, 2)
    square = (k * k).sum(-1)
    present = square > 0
    square = torch.where(present, square, 1.0)
    volume = torch.linalg.det(cell).abs()
    weights = torch.where(present, torch.exp(-square / (4 * splitting**2)) / square, 0.0)
    weights = 8 * math.pi / volume[:, None] * weights  # twice 4 pi: half of the vectors

    counts = torch.bincount(batch, minlength=len(cell))
    place = torch.arange(len(batch), device=batch.device) - starts_of(counts)[batch]
    dense = positions.new_zeros(len(cell), int(counts.max()), 3)
    dense = dense.index_put((batch, place), positions)
    q = charges.new_zeros(dense.shape[:2]).index_put((batch, place), charges)
    phases = dense @ k.transpose(1, 2)  # (B, n, M)
    cosine, sine = torch.cos(phases), torch.sin(phases)
    even = weights * (q[:, None] @ cosine).squeeze(1)
    odd = weights * (q[:, None] @ sine).squeeze(1)
    potentials = cosine @ even[..., None] + sine @ odd[..., None]
    return potentials.squeeze(-1)[batch, place] + _own_and_background(
        charges, volume, batch, splitting
    )


# -- on a mesh -----------------------------------------------------------------------------------


def mesh_shape(cell: np.ndarray, splitting: float, accuracy: float) -> tuple[int, int, int]:
    """Return the points of a mesh along each lattice vector that reach an accuracy.

    Parameters
    ----------
    cell : ndarray of shape (3, 3)
        Lattice vectors as rows, in Å.
    splitting, accuracy : float
        As in `scikd.md.electrostatics.Electrostatics`.

    Raises
    ------
    InvalidInputError
        If the mesh would fill the memory.

    Notes
    -----
    Measured on random charges in a triclinic box, at 0.1/Å³: the rms error of the forces is
    ``0.08 K q² g² (g h)**6``, within a factor of 1.5 for accuracies from 1e-4 to 1e-7, with h the
    spacing of the mesh.
    """
    spacing = (accuracy / (0.08 * splitting**2)) ** (1 / ORDER) / splitting
    lengths = np.linalg.norm(np.asarray(cell, dtype=float), axis=1)
    _check_points(cell, lengths / spacing)
    points = [next_fast_len(max(2 * ORDER, math.ceil(a / spacing)), real=True) for a in lengths]
    return points[0], points[1], points[2]


def spline_weights(fraction: Any) -> list[Any]:
    """Return the cardinal B-spline's values at the `ORDER` mesh points around, as a list.

    Parameters
    ----------
    fraction : array or Tensor
        Distance to the mesh point below, in mesh spacings, from 0 to 1.

    Returns
    -------
    list of array or Tensor
        Weights of the points from ``ORDER - 1`` below that one, up to that one itself.
    """
    weights = [fraction * 0 + 1.0]
    for n in range(2, ORDER + 1):
        below, above = [0.0, *weights], [*weights, 0.0]
        weights = [
            ((fraction + (n - 1 - j)) * below[j] + ((1 + j) - fraction) * above[j]) / (n - 1)
            for j in range(n)
        ]
    return weights


def spline_response(points: int) -> np.ndarray:
    """Return what spreading and gathering with splines do to each wave, to be divided out.

    The square of the modulus of the spline's discrete Fourier transform, shape (points,).
    """
    weights = np.zeros(points)
    weights[:ORDER] = [float(w) for w in spline_weights(np.float64(0.0))]
    return np.abs(np.fft.fft(weights)) ** 2


def _mesh_kernel(cell: Tensor, shape: tuple[int, int, int], g: float) -> Tensor:
    """Return the potential of each wave of unit charge on the mesh, half complex as of rfftn."""
    waves = [np.fft.fftfreq(shape[0], 1 / shape[0]), np.fft.fftfreq(shape[1], 1 / shape[1])]
    waves.append(np.arange(shape[2] // 2 + 1.0))
    n = torch.as_tensor(np.stack(np.meshgrid(*waves, indexing="ij"), -1)).to(cell)
    k = 2 * math.pi * n @ torch.linalg.inv(cell).T
    square = (k * k).sum(-1)
    present = square > 0
    square = torch.where(present, square, 1.0)
    x, y, z = (torch.as_tensor(spline_response(points)).to(cell) for points in shape)
    response = x[:, None, None] * y[:, None] * z[: shape[2] // 2 + 1]
    kernel = 4 * math.pi * torch.exp(-square / (4 * g * g)) / (square * response)
    return torch.where(present, kernel, 0.0) / torch.linalg.det(cell).abs()


def _spme(positions: Tensor, charges: Tensor, cell: Tensor, g: float, accuracy: float) -> Tensor:
    """Return the reciprocal potentials of one structure."""
    shape = mesh_shape(cell.detach().cpu().numpy(), g, accuracy)
    points = torch.tensor(shape, device=cell.device)
    scaled = positions @ torch.linalg.inv(cell) * points
    below = torch.floor(scaled.detach())
    weights = torch.stack(spline_weights(scaled - below), -1)  # (N, 3, ORDER)
    reach = torch.arange(1 - ORDER, 1, device=cell.device)
    at = (below.long()[..., None] + reach) % points[:, None]
    where = at[:, 0, :, None, None] * shape[1] + at[:, 1, None, :, None]
    where = (where * shape[2] + at[:, 2, None, None, :]).reshape(-1)
    spread = weights[:, 0, :, None, None] * weights[:, 1, None, :, None]
    spread = (spread * weights[:, 2, None, None, :]).reshape(len(charges), -1)
    mesh = charges.new_zeros(math.prod(shape))
    mesh = mesh.index_add(0, where, (charges[:, None] * spread).reshape(-1))
    waves = torch.fft.rfftn(mesh.reshape(shape)) * _mesh_kernel(cell, shape, g)
    field = torch.fft.irfftn(waves, s=shape, norm="forward").reshape(-1)
    return (field[where].reshape(spread.shape) * spread).sum(1)


def spme_potentials(
    positions: Tensor,
    charges: Tensor,
    cell: Tensor,
    batch: Tensor,
    *,
    splitting: float,
    accuracy: float,
) -> Tensor:
    """Sum on a mesh, for B periodic structures one after the other (smooth particle mesh Ewald).

    The arguments are those of `ewald_potentials`, but that the accuracy decides about the mesh
    (see `mesh_shape`). The total force is not exactly zero, but of the size of the accuracy.

    Returns
    -------
    Tensor of shape (N,)
        Potentials in e/Å.
    """
    counts = torch.bincount(batch, minlength=len(cell)).tolist()
    parts = zip(torch.split(positions, counts), torch.split(charges, counts), cell, strict=True)
    found = [_spme(x, q, lattice, splitting, accuracy) for x, q, lattice in parts]
    volume = torch.linalg.det(cell).abs()
    return torch.cat(found) + _own_and_background(charges, volume, batch, splitting)
