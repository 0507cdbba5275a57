"""Shear viscosity: from the fluctuations of the pressure, and from a flow that a force drives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import constants
from scipy.fft import irfft, next_fast_len, rfft

from scikd.exceptions import InvalidInputError

from .estimates import Estimate, TooShortError, integrate_correlation, mean_of_series
from .trajectories import Trajectory

__all__ = ["Viscosity", "running_integral", "viscosity_of_flow", "viscosity_of_fluctuations"]

BAR_PA = 1e5
SHOWN = 0.02  # of the length, up to which the running integral is kept
FASTEST = 0.1  # of the kinetic energy of heat, that of a flow may be


@dataclass(frozen=True)
class Viscosity:
    """A shear viscosity.

    Attributes
    ----------
    coefficient : Estimate
        In cP (mPa s).
    method : {"Green-Kubo", "periodic perturbation"}
        How it was found.
    times_ps, running : ndarray of shape (n,)
        Green-Kubo's integral in cP up to each time in ps; empty for the other method.
    """

    coefficient: Estimate
    method: str
    times_ps: np.ndarray
    running: np.ndarray


def viscosity_of_fluctuations(trajectory: Trajectory, *, largest_error: float = 0.3) -> Viscosity:
    r"""Return the viscosity of a liquid in equilibrium, by Green and Kubo.

    .. math:: \eta = \frac{V}{k T} \int_0^\infty \langle P_{ab}(0) P_{ab}(t) \rangle dt

    Parameters
    ----------
    trajectory : Trajectory
        At constant volume, with a record of pressures.
    largest_error : float, default=0.3
        Most that the error may be, over the value.

    Returns
    -------
    Viscosity
        Mean over the five independent components of the traceless tensor.

    Raises
    ------
    TooShortError
        If the record is too short.
    InvalidInputError
        If there is no record, the volume is not constant, or a force drives a flow.
    """
    record = trajectory.pressures
    if record is None:
        message = (
            "The viscosity by Green-Kubo needs the pressure tensor every few fs, which this "
            "trajectory lacks. Run with a pressure_interval of about 5 fs."
        )
        raise InvalidInputError(message)
    temperature, volume = trajectory.require_steady("The viscosity by Green-Kubo")
    xx, yy, zz, yz, xz, xy = record.pressures_bar.T
    five = np.stack([yz, xz, xy, (xx - yy) / 2.0, (xx + yy - 2.0 * zz) / math.sqrt(12.0)])
    # From bar² ps Å³/J to mPa s.
    factor = BAR_PA**2 * 1e-12 * volume * 1e-30 / (constants.k * temperature) * 1e3
    integral = integrate_correlation(
        five,
        record.interval_ps,
        what="The viscosity by Green-Kubo",
        largest_error=largest_error,
    )
    times, running = running_integral(five, record.interval_ps)
    return Viscosity(integral.scaled(factor, "cP"), "Green-Kubo", times, running * factor)


def viscosity_of_flow(trajectory: Trajectory, *, largest_error: float = 0.3) -> Viscosity:
    r"""Return the viscosity of a liquid in which a cosine acceleration drives a flow.

    .. math:: \eta = \frac{\rho A}{v k^2}, \quad k = \frac{2 \pi}{L_z}

    Parameters
    ----------
    trajectory : Trajectory
        Of a run with an acceleration, at constant volume, with a record of the flow.
    largest_error : float, default=0.3
        Most that the error may be, over the value.

    Returns
    -------
    Viscosity
        At the wavelength of the box and the shear of the flow: compare two accelerations.

    Raises
    ------
    TooShortError
        If the speed of the flow is not known well enough.
    InvalidInputError
        If there is no acceleration or record, the flow is not steady, or it is so fast that the
        thermostat, which takes it for heat, slows it.
    """
    record = trajectory.pressures
    if record is None or not trajectory.acceleration:
        message = (
            "The viscosity of a flow needs a run with an acceleration, and its record. Run with "
            "an acceleration such as 0.2 (Å/ps²)."
        )
        raise InvalidInputError(message)
    temperature, _ = trajectory.require_steady("The viscosity of a flow", driven=True)
    speed = mean_of_series(record.flow, record.interval_ps, what="The speed of the flow")
    if not speed.value > 0 or speed.relative > largest_error:
        wanted = speed.relative / largest_error
        needed = record.duration_ps * wanted**2
        message = (
            f"The speed of the flow is {speed} Å/ps after {record.duration_ps:.4g} ps; at most "
            f"{largest_error:.0%} of error was asked for. About {1.1 * needed:.2g} ps would do, or "
            f"{wanted:.2g} times the acceleration."
        )
        raise TooShortError(message, 1.1 * needed)
    mass = trajectory.masses.mean() * constants.atomic_mass
    heat = mass * (speed.value * 100.0) ** 2 / (constants.k * temperature)
    if heat > FASTEST:
        message = (
            f"The flow is too fast: its kinetic energy is {heat:.0%} of that of heat, and the "
            f"thermostat slows it. Take less than {trajectory.acceleration / 3:.2g} Å/ps²."
        )
        raise InvalidInputError(message)
    density = trajectory.densities.mean() * 1e3  # kg/m³
    wave = 2.0 * math.pi / (trajectory.cells[0, 2, 2] * 1e-10)  # 1/m
    value = density * trajectory.acceleration * 1e14 / (speed.value * 100.0 * wave**2) * 1e3
    found = Estimate(value, value * speed.relative, "cP")
    return Viscosity(found, "periodic perturbation", np.empty(0), np.empty(0))


def running_integral(series: np.ndarray, interval_ps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the integral of the mean autocorrelation of some series, over the time that it covers.

    Parameters
    ----------
    series : ndarray of shape (n_series, n_points)
        At equal steps.
    interval_ps : float
        Between two points, in ps.

    Returns
    -------
    times, integrals : ndarray of shape (n_points // 50,)
        Times in ps, and integrals up to them in the square of the unit of the series, times ps.
    """
    n_points = series.shape[1]
    n_shown = max(int(SHOWN * n_points), 2)
    size = next_fast_len(2 * n_points)
    power = np.abs(rfft(series - series.mean(axis=1, keepdims=True), size, axis=1)) ** 2
    products = irfft(power.mean(axis=0), size)[:n_shown]
    correlation = products / np.arange(n_points, n_points - n_shown, -1)
    integral = np.concatenate([[0.0], np.cumsum(0.5 * (correlation[1:] + correlation[:-1]))])
    return np.arange(n_shown) * interval_ps, integral * interval_ps
