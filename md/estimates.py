"""Numbers with error bars from correlated series, and a refusal where a series is too short.

A mean has its error from blocks of the series. A transport coefficient is the integral of an
autocorrelation, which is the power spectrum of a series at frequency zero. STACIE fits the spectrum
there by maximum likelihood and chooses by cross-validation how far the fit reaches [1]_. Its
logarithm is taken as a + b f², of a memory that ends, and as a + b f, of one with the long tail of
hydrodynamics; the result is the mean of the two, and what they disagree about is part of its error.

References
----------
.. [1] G. Toraman, D. Fauconnier and T. Verstraelen, J. Chem. Inf. Model. 65, 10445 (2025).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from scipy.stats import t as student

from scikd._extras import require
from scikd.exceptions import InvalidInputError

__all__ = [
    "Estimate",
    "TooShortError",
    "block_average",
    "fit_spectrum",
    "integrate_correlation",
    "mean_of_series",
]

FEWEST_POINTS = 100  # of a series; with fewer, no cutoff leaves enough frequencies to judge a fit
# Powers of the frequency in the logarithm of a spectrum: a smooth one is even, and in a liquid the
# flow around a molecule, which it has set going, makes a cusp.
SHAPES = ((0, 2), (0, 1))
CUTOFFS = 1.0  # spacing of the cutoffs tried: half as many as STACIE would, to the same numbers
LOWEST = 10  # frequencies that every fit includes
# In THz: molecules rattle in their cages at 1 to 3 THz. Where the lowest frequencies are no lower,
# none tells of what comes after that, and a fit cannot know.
RATTLING = 1.0
STEEPEST = 0.5  # most that the logarithm of a spectrum may change over the lowest ones
WORST_FIT = 6.0  # standard deviations of the misfit from what chance allows
# A slow memory of small weight is half seen. As tests with two memories found it; others then have
# errors that are up to twice too wide.
WIDENING = 1.15
FEWEST_BLOCKS = 4  # whose scatter tells the error of a mean
FEWEST_VALUES = 2 * FEWEST_BLOCKS  # of which `block_average` knows an error
# Independent ones, in a series whose mean is asked for, by its widened error; in truth some ten.
# Asking for more would favour those whose error is too small by chance: fewer would be right.
FEWEST_STRETCHES = 5.0
# Errors of their own between the means of two halves: once in 500 stationary series.
FARTHEST_HALVES = 4.5


class TooShortError(InvalidInputError):
    """A trajectory is too short for what was asked; the message says which length would do.

    Attributes
    ----------
    needed_ps : float
        About how long it should be, in ps.
    """

    def __init__(self, message: str, needed_ps: float) -> None:
        super().__init__(message)
        self.needed_ps = needed_ps


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes
    ----------
    value : float
        In ``unit``.
    error : float
        Standard error in ``unit``: the true value lies within 1.96 of it in 95 of 100 cases.
    unit : str
        Such as "g/cm³"; empty for a plain number.
    """

    value: float
    error: float
    unit: str = ""

    def __str__(self) -> str:
        if not (math.isfinite(self.error) and self.error > 0 and math.isfinite(self.value)):
            return f"{self.value:.4g} {self.unit}".strip()
        place = math.floor(math.log10(self.error)) - 1  # of the second digit of the error
        largest = math.floor(math.log10(max(abs(self.value), self.error)))
        if place >= -4 and largest < 6:
            digits = max(-place, 0)
            text = f"{self.value:.{digits}f} ± {self.error:.{digits}f}"
        else:
            scale, digits = 10.0**largest, max(largest - place, 0)
            text = f"({self.value / scale:.{digits}f} ± {self.error / scale:.{digits}f})e{largest}"
        return f"{text} {self.unit}".strip()

    @property
    def relative(self) -> float:
        """Error over the size of the value."""
        return self.error / abs(self.value) if self.value else math.inf

    def scaled(self, factor: float, unit: str) -> Estimate:
        """Return the estimate times an exact factor, in another unit."""
        return Estimate(self.value * factor, self.error * abs(factor), unit)

    def over(self, other: Estimate, unit: str = "") -> Estimate:
        """Return the quotient with another, independent estimate."""
        value = self.value / other.value
        return Estimate(value, abs(value) * math.hypot(self.relative, other.relative), unit)


def integrate_correlation(
    series: np.ndarray,
    interval_ps: float,
    *,
    what: str = "This property",
    largest_error: float = 0.3,
) -> Estimate:
    """Return the integral of the autocorrelation of a series, from time zero to infinity.

    Parameters
    ----------
    series : ndarray of shape (n_series, n_points) or (n_points,)
        Independent series of one kind, at equal steps. Their means do not matter.
    interval_ps : float
        Time between two points, in ps.
    what : str, default="This property"
        For messages, as the subject of a sentence.
    largest_error : float, default=0.3
        Most that the error may be, over the value.

    Returns
    -------
    Estimate
        In the square of the unit of the series, times ps. For the increments of a random walk over
        the interval it is the diffusion coefficient.

    Raises
    ------
    TooShortError
        If there are too few points, they cover less than 10 ps, the memory of the series is too
        long for its length, or the error is too large.
    InvalidInputError
        If a number is not finite, or the series do not change.
    """
    estimate, _ = fit_spectrum(series, interval_ps, what=what, largest_error=largest_error)
    return estimate


def fit_spectrum(
    series: np.ndarray,
    interval_ps: float,
    *,
    what: str = "This property",
    largest_error: float = math.inf,
) -> tuple[Estimate, int]:
    """Return what `integrate_correlation` does, and on how many frequencies it rests.

    Parameters
    ----------
    series, interval_ps, what, largest_error
        As there.

    Returns
    -------
    Estimate
        The integral.
    int
        How many of the lowest frequencies, without zero, the fit includes.
    """
    least = LOWEST / RATTLING
    values = _checked(series, interval_ps, what, least)
    duration = values.shape[1] * interval_ps
    if duration < least * (1.0 - 1e-9):
        message = (
            f"{what} needs a longer trajectory: {duration:.4g} ps tell of molecules that rattle "
            f"in their cages, and of nothing slower. {least:.4g} ps is the least, and most "
            "liquids need a hundred times that."
        )
        raise TooShortError(message, least)
    scale = float(values.std())
    if scale <= 1e-12 * float(np.abs(values).max(initial=0.0)):
        message = f"{what} needs a series that changes; got a constant one."
        raise InvalidInputError(message)
    stacie = require("stacie", extra="liquids", feature=what)
    spectrum = stacie.compute_spectrum(
        values / scale, timestep=interval_ps, include_zero_freq=False
    )
    logs, variances = [], []
    for degrees in SHAPES:
        result = _fit(stacie, spectrum, degrees, what, duration)
        logs.append(math.log(result.acint))
        variances.append((result.acint_std / result.acint) ** 2)
        if degrees == SHAPES[0]:
            count = int(min(max(result.neff, LOWEST), len(spectrum.freqs)))
    weights = 1.0 / np.asarray(variances)
    weights /= weights.sum()
    middle = float(weights @ logs)
    # What the shapes disagree about is not known either.
    spread = math.sqrt(float(weights @ (np.asarray(variances) + (np.asarray(logs) - middle) ** 2)))
    # The logarithm is what scatters evenly: the error is that of the longer, upper side.
    value = math.exp(middle) * scale**2
    estimate = Estimate(value, value * math.expm1(1.96 * WIDENING * spread) / 1.96)
    if estimate.relative > largest_error:
        needed = duration * (estimate.relative / largest_error) ** 2
        message = (
            f"{what} is known to {estimate.relative:.0%} from {duration:.4g} ps; at most "
            f"{largest_error:.0%} was asked for. About {1.1 * needed:.2g} ps would do."
        )
        raise TooShortError(message, 1.1 * needed)
    return estimate, count


def _fit(
    stacie: ModuleType, spectrum: Any, degrees: tuple[int, int], what: str, duration: float
) -> Any:
    """Return STACIE's result for one shape of the spectrum, if it is sound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of cutoffs that are then left out
        try:
            result = stacie.estimate_acint(
                spectrum, stacie.ExpPolyModel(list(degrees)), fcut_spacing=CUTOFFS
            )
        except ValueError as error:
            message = (
                f"{what} could not be had from {duration:.4g} ps: no fit of the lowest frequencies "
                f"is sound ({error}). About {4 * duration:.2g} ps would do."
            )
            raise TooShortError(message, 4 * duration) from error
    slope = abs(math.log(result.props["amplitudes_model"][0][LOWEST - 1] / result.acint))
    # A cusp is steep where an even curve has just begun to bend.
    steepest = STEEPEST if degrees == SHAPES[0] else 2.0 * STEEPEST
    if slope > steepest or result.props["cost_zscore"] > WORST_FIT:
        needed = duration * max(math.sqrt(slope / steepest), 2.0)
        message = (
            f"{what} needs a longer trajectory: in {duration:.4g} ps the memory of the series has "
            f"not ended. About {1.1 * needed:.2g} ps would do."
        )
        raise TooShortError(message, 1.1 * needed)
    return result


def block_average(values: Any) -> tuple[float, float]:
    """Return the mean of a series and its standard error, correlations included.

    Parameters
    ----------
    values : array-like of shape (n,)
        In order of time, at equal steps.

    Returns
    -------
    mean, error : float
        The error is NaN for less than eight values, and zero for a series that does not change.

    Notes
    -----
    Neighbours are averaged in pairs, again and again; the error estimated from the blocks grows
    until they are longer than the memory of the series [1]_. The largest estimate is taken, of all
    that rest on four blocks or more; each is widened, as in Student's t, by how little its blocks
    know of their scatter. Two errors around the mean hold the true one in 92 of 100 cases or more
    if the series has ten independent stretches, and in 85 if it has five.

    References
    ----------
    .. [1] H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    blocks = np.asarray(values, dtype=np.float64).ravel()
    if not len(blocks):
        raise InvalidInputError("Expected at least one value to average; got none.")
    mean = float(blocks.mean())
    if len(blocks) < FEWEST_VALUES:
        return mean, math.nan
    if np.ptp(blocks) <= 1e-12 * abs(mean):  # rounding is no fluctuation
        return mean, 0.0
    errors = []
    while (n := len(blocks)) >= FEWEST_BLOCKS:
        widening = float(student.ppf(0.975, n - 1)) / 1.96
        errors.append(widening * float(blocks.std(ddof=1)) / math.sqrt(n))
        blocks = blocks[: n // 2 * 2].reshape(-1, 2).mean(axis=1)
    return mean, max(errors)


def mean_of_series(
    series: np.ndarray, interval_ps: float, *, what: str = "This mean", unit: str = ""
) -> Estimate:
    """Return what `block_average` does, of a series that is long and stationary enough for it.

    Parameters
    ----------
    series : ndarray of shape (n_points,)
        At equal steps.
    interval_ps : float
        Time between two points, in ps.
    what : str, default="This mean"
        For messages, as the subject of a sentence.
    unit : str, default=""
        Of the series.

    Returns
    -------
    Estimate
        The error is zero for a series that does not change.

    Raises
    ------
    TooShortError
        If there are too few points, or fewer than five independent stretches.
    InvalidInputError
        If a number is not finite, or the two halves differ by far more than chance allows: the
        series is not stationary.
    """
    values = _checked(np.asarray(series, dtype=np.float64).reshape(1, -1), interval_ps, what)[0]
    found = Estimate(*block_average(values), unit)
    if not found.error:
        return found
    half = len(values) // 2
    (first, one), (second, other) = (block_average(v) for v in (values[:half], values[half:]))
    if abs(first - second) > FARTHEST_HALVES * math.hypot(one, other):
        message = (
            f"{what} is not stationary: its mean is {first:.5g} {unit} in the first half of the "
            f"trajectory and {second:.5g} {unit} in the second. Leave out more of the beginning "
            "(start), or equilibrate for longer."
        )
        raise InvalidInputError(message)
    duration = len(values) * interval_ps
    stretches = float(values.var()) / found.error**2
    if stretches < FEWEST_STRETCHES:
        needed = 1.1 * duration * FEWEST_STRETCHES / stretches
        message = (
            f"{what} needs {FEWEST_STRETCHES:g} independent stretches of the trajectory; one takes "
            f"about {duration / stretches:.2g} ps, and there are {duration:.4g} ps. About "
            f"{needed:.2g} ps would do."
        )
        raise TooShortError(message, needed)
    return found


def _checked(
    series: np.ndarray, interval_ps: float, what: str, least_ps: float = 0.0
) -> np.ndarray:
    """Return a row for each series; too few points are told with the least that may be had."""
    values = np.atleast_2d(np.asarray(series, dtype=np.float64))
    if not (interval_ps > 0 and math.isfinite(interval_ps)):
        message = f"{what} needs a positive time between two points; got {interval_ps} ps."
        raise InvalidInputError(message)
    if values.ndim != 2 or not np.isfinite(values).all():
        message = f"{what} needs finite numbers, in one row for each series; got {values.shape}."
        raise InvalidInputError(message)
    if values.shape[1] < FEWEST_POINTS:
        n_points = values.shape[1]
        needed = max(FEWEST_POINTS * interval_ps, least_ps)
        # Frames that are closer in time are of use only where they cover enough of it.
        or_else = ", or frames that were stored more often"
        enough = n_points * interval_ps >= least_ps
        message = (
            f"{what} needs at least {FEWEST_POINTS} points in time; got {n_points}, every "
            f"{interval_ps:.4g} ps. {needed:.4g} ps would do{or_else if enough else ''}."
        )
        raise TooShortError(message, needed)
    return values
