"""How molecules and charges move: self-diffusion, conductivity, transference number.

Einstein's relations ask for the slope of a mean squared displacement at long times. Displacements
at different times overlap, so that a line through them has no honest error; the same slope is the
power spectrum of the velocities (the steps between frames) at frequency zero, whose values at
different frequencies are independent. So it is found there, by `integrate_correlation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import constants
from scipy.fft import rfft
from scipy.stats import t as student

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from .estimates import Estimate, TooShortError, fit_spectrum, integrate_correlation
from .trajectories import Trajectory

__all__ = [
    "Diffusion",
    "conductivity_of_liquid",
    "nernst_einstein_conductivity",
    "self_diffusion",
    "transference_number",
    "yeh_hummer_correction",
]

CUBIC = 2.837297  # of the lattice of images of a cubic box
SQUARE = 0.01  # how far edges and angles may be from those of a cube, relative
CM2_S = 1e-4  # Å²/ps


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion of the molecules of a species.

    Attributes
    ----------
    species : str
        Name.
    coefficient : Estimate
        In cm²/s, in the periodic box.
    corrected : Estimate or None
        In cm²/s, of a box without end; None if the viscosity is not known, or for ``refusal``.
    times_ps, displacements : ndarray of shape (n,)
        Mean squared displacement in Å² after each time in ps.
    refusal : str
        Why the coefficient could not be corrected, though there is a viscosity.
    """

    species: str
    coefficient: Estimate
    corrected: Estimate | None
    times_ps: np.ndarray
    displacements: np.ndarray
    refusal: str = ""


def self_diffusion(
    trajectory: Trajectory,
    species: str,
    *,
    viscosity: Estimate | None = None,
    largest_error: float = 0.3,
) -> Diffusion:
    """Return the self-diffusion of a species, by the motion of its centres of mass.

    Parameters
    ----------
    trajectory : Trajectory
        At constant volume.
    species : str
        Name, such as "EC".
    viscosity : Estimate or None, default=None
        In cP, for the correction of the finite box.
    largest_error : float, default=0.3
        Most that the error may be, over the value.

    Returns
    -------
    Diffusion
        In the frame of the centre of mass of the liquid. What `yeh_hummer_correction` refuses is
        told in its ``refusal``; the coefficient is there all the same.

    Raises
    ------
    TooShortError
        If the trajectory is too short.
    InvalidInputError
        If there is no such species, the volume is not constant, or a flow is driven.
    """
    what = f"The diffusion of {species}"
    trajectory.require_steady(what)
    paths = trajectory.centres[:, trajectory.members(species)]
    velocities = _velocities(paths, trajectory.interval_ps)
    found = integrate_correlation(
        velocities, trajectory.interval_ps, what=what, largest_error=largest_error
    ).scaled(CM2_S, "cm²/s")
    corrected, refusal = None, ""
    if viscosity is not None:
        try:
            shift = yeh_hummer_correction(trajectory, viscosity)
        except InvalidInputError as error:
            refusal = str(error)
        else:
            bar = math.hypot(found.error, shift.error)
            corrected = Estimate(found.value + shift.value, bar, "cm²/s")
    freud = require("freud", extra="liquids", feature="A mean squared displacement")
    curve = freud.msd.MSD(mode="window").compute(paths - paths[0]).msd
    times = np.arange(len(curve)) * trajectory.interval_ps
    displacements = np.asarray(curve, dtype=np.float64)
    return Diffusion(species, found, corrected, times, displacements, refusal)


def yeh_hummer_correction(trajectory: Trajectory, viscosity: Estimate) -> Estimate:
    """Return what a periodic box takes from self-diffusion, in cm²/s (Yeh and Hummer, 2004).

    Parameters
    ----------
    trajectory : Trajectory
        At constant volume.
    viscosity : Estimate
        In cP.

    Returns
    -------
    Estimate
        2.837297 k T / (6 π η L), to be added.

    Raises
    ------
    InvalidInputError
        If the viscosity is not positive and in cP, or the box is not a cube.
    """
    temperature, volume = trajectory.require_steady("The correction of a finite box")
    if viscosity.unit != "cP" or not viscosity.value > 0:
        message = f"Expected a positive viscosity in cP; got {viscosity}."
        raise InvalidInputError(message)
    cell = trajectory.cells[0]
    edge = volume ** (1.0 / 3.0)
    if np.abs(cell @ cell.T / edge**2 - np.eye(3)).max() > 2.0 * SQUARE:
        message = f"The correction of a finite box holds for cubes; got the cell {cell.tolist()} Å."
        raise InvalidInputError(message)
    friction = 6.0 * math.pi * viscosity.value * 1e-3 * edge * 1e-10
    value = CUBIC * constants.k * temperature / friction * 1e4
    return Estimate(value, value * viscosity.relative, "cm²/s")


def conductivity_of_liquid(trajectory: Trajectory, *, largest_error: float = 0.3) -> Estimate:
    """Return the conductivity of an electrolyte, by Einstein and Helfand: of all ions together.

    Parameters
    ----------
    trajectory : Trajectory
        At constant volume, with ions, whose formal charges are on the centres of mass.
    largest_error : float, default=0.3
        Most that the error may be, over the value.

    Returns
    -------
    Estimate
        In mS/cm, in the periodic box, without a correction of its size.

    Raises
    ------
    TooShortError
        If the trajectory is too short.
    InvalidInputError
        If there are no ions, the volume is not constant, or a flow is driven.
    """
    what = "The conductivity"
    factor = _conduction(trajectory, what)
    current = _currents(trajectory, trajectory.charges != 0)
    return integrate_correlation(
        current, trajectory.interval_ps, what=what, largest_error=largest_error
    ).scaled(factor, "mS/cm")


def nernst_einstein_conductivity(trajectory: Trajectory, *, largest_error: float = 0.3) -> Estimate:
    """Return the conductivity of an electrolyte as if each ion moved on its own.

    `conductivity_of_liquid` over it is the ionicity.

    Parameters
    ----------
    trajectory, largest_error
        As for `conductivity_of_liquid`; the error is that of the diffusion of each kind of ion.

    Returns
    -------
    Estimate
        In mS/cm, from the diffusion in the periodic box, without a correction of its size.

    Raises
    ------
    TooShortError, InvalidInputError
        As for `conductivity_of_liquid`.
    """
    factor = _conduction(trajectory, "The conductivity by Nernst-Einstein")
    value, variance = 0.0, 0.0
    names = np.asarray(trajectory.names)
    for name in sorted(set(names[trajectory.charges != 0])):
        diffusion = self_diffusion(trajectory, name, largest_error=largest_error).coefficient
        weight = factor / CM2_S * float((trajectory.charges[names == name] ** 2).sum())
        value += weight * diffusion.value
        variance += (weight * diffusion.error) ** 2
    return Estimate(value, math.sqrt(variance), "mS/cm")


def transference_number(trajectory: Trajectory, *, largest_error: float = 0.1) -> Estimate:
    r"""Return the share of the cations in the current, in the frame of the centre of mass.

    .. math:: t_+ = \frac{L_{++} - L_{+-}}{L_{++} + L_{--} - 2 L_{+-}}

    with Onsager's coefficients. It is the slope of the current of the cations over the current of
    all ions at low frequency, and found as such, by least squares, with a term that goes as the
    square of the frequency.

    Parameters
    ----------
    trajectory : Trajectory
        At constant volume, with ions.
    largest_error : float, default=0.1
        Most that the error may be.

    Returns
    -------
    Estimate
        Without unit. The frame is not that of the solvent, which experiments often take.

    Raises
    ------
    TooShortError
        If the trajectory is too short.
    InvalidInputError
        As for `conductivity_of_liquid`.
    """
    what = "The transference number"
    trajectory.require_steady(what)
    _require_ions(trajectory, what)
    whole = _currents(trajectory, trajectory.charges != 0)
    cations = _currents(trajectory, trajectory.charges > 0)
    _, count = fit_spectrum(whole, trajectory.interval_ps, what=what)
    place = np.arange(1, count + 1)
    x, y = rfft(whole, axis=1)[:, place], rfft(cations, axis=1)[:, place]
    columns = np.stack([x, x * (place / count) ** 2], axis=-1).reshape(-1, 2)
    design = np.concatenate([columns.real, columns.imag])
    target = np.concatenate([y.real.ravel(), y.imag.ravel()])
    slopes, squares, _, _ = np.linalg.lstsq(design, target, rcond=None)
    freedom = len(target) - 2
    covariance = np.linalg.inv(design.T @ design) * float(squares[0]) / freedom
    widening = float(student.ppf(0.975, freedom)) / 1.96
    found = Estimate(float(slopes[0]), widening * math.sqrt(covariance[0, 0]))
    if found.error > largest_error:
        duration = trajectory.duration_ps
        needed = 1.1 * duration * (found.error / largest_error) ** 2
        message = (
            f"{what} is {found} after {duration:.4g} ps; an error of at most {largest_error:g} was "
            f"asked for. About {needed:.2g} ps would do."
        )
        raise TooShortError(message, needed)
    return found


def _velocities(paths: np.ndarray, interval_ps: float) -> np.ndarray:
    """Return mean velocities between frames in Å/ps, of shape (3 n_paths, n_frames - 1)."""
    steps = np.diff(paths, axis=0) / interval_ps
    return steps.reshape(len(steps), -1).T


def _currents(trajectory: Trajectory, chosen: np.ndarray) -> np.ndarray:
    """Return the current of some ions in e Å/ps, of shape (3, n_frames - 1)."""
    moments = np.einsum("tmc,m->tc", trajectory.centres[:, chosen], trajectory.charges[chosen])
    return np.diff(moments, axis=0).T / trajectory.interval_ps


def _conduction(trajectory: Trajectory, what: str) -> float:
    """Return what turns e² Å²/ps into mS/cm, if the liquid conducts."""
    temperature, volume = trajectory.require_steady(what)
    _require_ions(trajectory, what)
    return constants.e**2 * 1e-8 / (volume * 1e-30 * constants.k * temperature) * 10.0


def _require_ions(trajectory: Trajectory, what: str) -> None:
    if not (trajectory.charges > 0).any() or not (trajectory.charges < 0).any():
        message = f"{what} needs ions; this liquid is {', '.join(trajectory.species)}."
        raise InvalidInputError(message)
