"""When does a student score like whom: similarity of scores by the regime of the market.

A regime of a date is made of what was known at its close, so that it could have been acted on. The
similarity itself looks back on a test that is over; nothing is trained by it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.report import PALETTE, Figure

from .luck import _arch, _length
from .metrics import information_coefficient
from .panel import Panel

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RegimeAlignment", "Regimes", "market_regimes", "regime_alignment"]

UNKNOWN = -1
NAMES = ("calm, falling", "calm, rising", "volatile, falling", "volatile, rising")


@dataclass(frozen=True, eq=False, repr=False)
class Regimes:
    """A regime for each date.

    Parameters
    ----------
    names : sequence of str
        The regimes.
    codes : numpy.ndarray of int and shape (n_dates,)
        Place of each date's regime in the names; -1 where it is not known.
    dates : numpy.ndarray of datetime64[D] and shape (n_dates,)
        The calendar of the panel.

    Raises
    ------
    InvalidInputError
        If shapes do not fit, or a code has no name.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    dates: np.ndarray

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes)
        if codes.shape != np.shape(self.dates) or codes.ndim != 1 or codes.dtype.kind not in "iu":
            message = (
                "Expected a code for each date, as whole numbers; got codes of "
                f"{codes.dtype} and shape {codes.shape} for {np.shape(self.dates)} dates."
            )
            raise InvalidInputError(message)
        if len(codes) and not UNKNOWN <= codes.min() <= codes.max() < len(self.names):
            message = (
                f"Expected codes from -1 to {len(self.names) - 1}, for the regimes {self.names}; "
                f"got {codes.min()} to {codes.max()}."
            )
            raise InvalidInputError(message)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "codes", codes)

    @property
    def n_dates(self) -> dict[str, int]:
        """Number of dates of each regime."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def __repr__(self) -> str:
        counts = "; ".join(f"{name}: {count}" for name, count in self.n_dates.items())
        return f"Regimes({counts}; not known: {int((self.codes < 0).sum())})"


def market_regimes(
    panel: Panel,
    *,
    volatility_days: int = 20,
    trend_days: int = 60,
    quantile: float = 0.5,
    history: int = 120,
) -> Regimes:
    """Tell calm from volatile and rising from falling days, by what was known on the day.

    The market is the mean return of the members of each date, equally weighted. Volatility is the
    standard deviation of its last returns (ddof 1), trend their sum. A date is volatile, or rising,
    where this is above a quantile of all values up to that date.

    Parameters
    ----------
    panel : Panel
        Prices, and who is a member when.
    volatility_days, trend_days : int, default=20 and 60
        Returns that volatility and trend are made of.
    quantile : float, default=0.5
        Of the values so far.
    history : int, default=120
        Dates with volatility and trend that there must have been, before a date has a regime.

    Returns
    -------
    Regimes
        "calm, falling", "calm, rising", "volatile, falling" and "volatile, rising". What follows a
        date changes nothing about it.

    Raises
    ------
    InvalidInputError
        If a number cannot be what it is for.
    """
    whole = {"volatility_days": (volatility_days, 2), "trend_days": (trend_days, 1)}
    whole["history"] = (history, 1)
    faults = [
        f"{name} >= {least}, not {got!r}" for name, (got, least) in whole.items() if got < least
    ]
    if not 0 < quantile < 1:
        faults.append(f"quantile between 0 and 1, not {quantile!r}")
    if faults:
        raise InvalidInputError(f"Expected {'; '.join(faults)}.")
    market = _market(panel)
    volatility = _trailing(market, volatility_days).std(axis=1, ddof=1)
    trend = _trailing(market, trend_days).sum(axis=1)
    known = np.isfinite(volatility) & np.isfinite(trend)
    high = [_above(np.where(known, one, np.nan), quantile, history) for one in (volatility, trend)]
    codes = np.where((high[0] < 0) | (high[1] < 0), UNKNOWN, 2 * high[0] + high[1])
    return Regimes(NAMES, codes, panel.dates)


def _market(panel: Panel) -> np.ndarray:
    """Return the mean return of the members of each date; NaN where none has one."""
    returns = np.where(panel.member, panel.returns(), np.nan)
    there = ~np.isnan(returns)
    count = there.sum(axis=1)
    total = np.where(there, returns, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _trailing(values: np.ndarray, days: int) -> np.ndarray:
    """Return the last values of each row, NaN before the first: shape (n_dates, days)."""
    padded = np.concatenate([np.full(days - 1, np.nan), values])
    return np.lib.stride_tricks.sliding_window_view(padded, days)


def _above(values: np.ndarray, quantile: float, history: int) -> np.ndarray:
    """Tell whether each value is above a quantile of those so far: 1, 0, or -1 for unknown."""
    result = np.full(len(values), UNKNOWN)
    past: list[float] = []
    for t, value in enumerate(values.tolist()):
        if value != value:  # noqa: PLR0124 - NaN
            continue
        insort(past, value)
        if len(past) > history:
            place = quantile * (len(past) - 1)
            low = int(place)
            high = min(low + 1, len(past) - 1)
            border = past[low] + (place - low) * (past[high] - past[low])
            result[t] = value > border
    return result


@dataclass(frozen=True, eq=False, repr=False)
class RegimeAlignment:
    """How much a student's scores resemble those of others, by regime.

    Attributes
    ----------
    others : tuple of str
        Whom it is compared with.
    regimes : tuple of str
        The regimes.
    n_dates : numpy.ndarray of int and shape (n_others, n_regimes)
        Dates that both have scores for.
    similarity : numpy.ndarray of shape (n_others, n_regimes, 3)
        Mean daily rank correlation of scores, and the ends of its interval.
    contrast : numpy.ndarray of shape (n_others, n_regimes, 3)
        The same less the mean of all other regimes, with its interval.
    daily : numpy.ndarray of shape (n_others, n_dates)
        Rank correlation of each date.
    level : float
        Of the intervals.
    block : float
        Mean length of the blocks of dates that were resampled.
    """

    others: tuple[str, ...]
    regimes: tuple[str, ...]
    n_dates: np.ndarray
    similarity: np.ndarray
    contrast: np.ndarray
    daily: np.ndarray
    level: float
    block: float

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each other and regime."""
        import pandas as pd  # noqa: PLC0415 - the arrays do without it

        ends = ("", "_low", "_high")
        columns = {
            "other": np.repeat(self.others, len(self.regimes)),
            "regime": np.tile(self.regimes, len(self.others)),
            "n_dates": self.n_dates.ravel(),
        }
        for name in ("similarity", "contrast"):
            values = getattr(self, name)
            columns |= {f"{name}{end}": values[:, :, i].ravel() for i, end in enumerate(ends)}
        return pd.DataFrame(columns)

    def figure(self, title: str = "Whom the student scores like, by regime") -> Figure:
        """Return a figure of the similarities with their intervals, for a report."""
        n_regimes = len(self.regimes)
        step = 0.7 / n_regimes
        rows = np.arange(len(self.others))

        def draw(axes: Any) -> None:
            for r, name in enumerate(self.regimes):
                places = rows + step * (r - (n_regimes - 1) / 2)
                value, low, high = self.similarity[:, r].T
                colour = PALETTE[r % len(PALETTE)]
                axes.hlines(places, low, high, color=colour, linewidth=1.8, alpha=0.85)
                axes.plot(value, places, "o", color=colour, markersize=4.5, label=name)
            axes.axvline(0.0, color="black", linewidth=1.0, linestyle=(0, (4, 3)), alpha=0.7)
            axes.set_yticks(rows, self.others)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
            axes.set_xlabel("rank correlation of scores, mean over days")
            outside = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
            axes.legend(fontsize=8.0, frameon=False, ncols=2, **outside)

        note = (
            f"Dot: mean; whisker: {self.level:.0%} interval by resampling blocks of "
            f"{self.block:.0f} days on average."
        )
        height = 1.5 + 0.16 * len(self.others) * (n_regimes + 1)
        return Figure(title, draw, note=note, size=(6.4, height))


def regime_alignment(
    student: Any,
    others: Mapping[str, Any],
    regimes: Regimes,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    block: float | None = None,
    seed: int = 0,
) -> RegimeAlignment:
    """Compare a student's scores with those of its teachers and of others, by regime.

    Parameters
    ----------
    student : array-like of shape (n_dates, n_assets)
        Scores, NaN where there are none.
    others : mapping of str to array-like of shape (n_dates, n_assets)
        Scores of teachers and references.
    regimes : Regimes
        Of the same dates.
    level : float, default=0.95
        Of the intervals.
    n_resamples : int, default=2000
        How often dates are resampled, in blocks (stationary bootstrap), all others together.
    block : float or None, default=None
        Mean length of a block, in dates; None chooses it from the similarities.
    seed : int, default=0
        Of the resampling.

    Returns
    -------
    RegimeAlignment
        NaN for regimes that do not occur, and for ends of intervals that cannot be had.

    Raises
    ------
    InvalidInputError
        If there is nobody to compare with, no date in a regime has scores of both, or shapes or
        numbers do not fit.
    MissingExtraError
        If arch is not installed.

    Notes
    -----
    .. warning::
       Many similarities are compared here. That one of forty contrasts has an interval without 0
       says nothing.
    """
    student, others = _checked(student, others, regimes)
    if not (isinstance(level, Real) and 0 < level < 1):
        raise InvalidInputError(f"Expected a level between 0 and 1; got {level!r}.")
    if not isinstance(n_resamples, Integral) or not (block is None or isinstance(block, Real)):
        message = (
            "Expected n_resamples as a whole number, and a block as a number of dates or None; got "
            f"{n_resamples!r} and {block!r}."
        )
        raise InvalidInputError(message)
    daily = np.stack([information_coefficient(student, one, rank=True) for one in others.values()])
    both = (regimes.codes >= 0) & np.isfinite(daily)
    alone = [name for name, dates in zip(others, both, strict=True) if not dates.any()]
    if alone:
        message = (
            f"No date has a regime, and scores of the student and of {', '.join(alone)} for three "
            "assets."
        )
        raise InvalidInputError(message)
    rows = np.flatnonzero(both.any(axis=0))
    heard, there, codes = daily[:, rows], both[:, rows], regimes.codes[rows]
    inside = (codes == np.arange(len(regimes.names))[:, None])[None] & there[:, None]
    filled = np.where(there, heard, np.nanmean(heard, axis=1, keepdims=True))
    block = _length(filled.T, block, n_resamples)
    counts = _resampled(len(rows), block, n_resamples, seed)
    values = np.where(there, heard, 0.0)
    found = _means(values, inside, np.ones((1, len(rows))))
    drawn = _means(values, inside, counts)
    similarity, contrast = (
        np.concatenate([one, _ends(many, level)]).transpose(1, 2, 0)
        for one, many in zip(found, drawn, strict=True)
    )
    return RegimeAlignment(
        tuple(others),
        regimes.names,
        inside.sum(axis=2),
        similarity,
        contrast,
        daily,
        level,
        float(block),
    )


def _checked(
    student: Any, others: Any, regimes: Any
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Return scores as arrays, or say which cannot be compared."""
    if not isinstance(regimes, Regimes):
        message = (
            f"Expected Regimes, which market_regimes makes; got a {type(regimes).__name__}. "
            "Regimes(names, codes, dates) makes some of codes of your own."
        )
        raise InvalidInputError(message)
    if not isinstance(others, Mapping) or not others:
        message = (
            "Expected at least one other to compare with, as a mapping of name to scores; got "
        )
        raise InvalidInputError(f"{message}{others!r:.80}.")
    given = {"of the student": student} | {f"of {name!r}": one for name, one in others.items()}
    scores = {name: _numbers(values) for name, values in given.items()}
    shape, n_dates = scores["of the student"].shape, len(regimes.codes)
    faults = [
        f"those {name} are a {type(given[name]).__name__} of shape {values.shape}"
        for name, values in scores.items()
        if values.ndim != 2 or len(values) != n_dates or values.shape != shape
    ]
    if faults:
        message = (
            f"Expected scores of the {n_dates} dates of the regimes, as numbers of one shape "
            f"(n_dates, n_assets); {'; '.join(faults)}."
        )
        raise InvalidInputError(message)
    found, *rest = scores.values()
    return found, dict(zip(others, rest, strict=True))


def _numbers(values: Any) -> np.ndarray:
    """Return an array of numbers, which is empty where there are none to be had."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _resampled(n: int, block: float, n_resamples: int, seed: int) -> np.ndarray:
    """Return how often each date was drawn, shape (n_resamples, n)."""
    random = np.random.default_rng(seed)
    bootstrap = _arch().StationaryBootstrap(block, np.arange(n), seed=random)
    drawn = (positions for (positions,), _ in bootstrap.bootstrap(n_resamples))
    return np.stack([np.bincount(one, minlength=n) for one in drawn]).astype(np.float64)


def _means(values: np.ndarray, inside: np.ndarray, counts: np.ndarray) -> Sequence[np.ndarray]:
    """Return means by regime, and less those of the other regimes.

    Both are of shape (n_resamples, n_others, n_regimes), and NaN where a regime was not drawn.
    """
    sums = np.einsum("bt,mrt->bmr", counts, inside * values[:, None], optimize=True)
    sizes = np.einsum("bt,mrt->bmr", counts, inside.astype(float), optimize=True)
    all_sums, all_sizes = sums.sum(axis=2, keepdims=True), sizes.sum(axis=2, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / sizes
        return means, means - (all_sums - sums) / (all_sizes - sizes)


def _ends(drawn: np.ndarray, level: float) -> np.ndarray:
    """Return the quantiles that hold a share of what was drawn: shape (2, ...)."""
    ends = np.full((2, *drawn.shape[1:]), np.nan)
    some = np.isfinite(drawn).any(axis=0)
    ends[:, some] = np.nanquantile(drawn[:, some], [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return ends
