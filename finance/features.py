"""Features of the last days, and the returns after them that a score shall rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from scikd.exceptions import InvalidInputError

from .panel import FIELDS, Panel

__all__ = ["Convention", "Features", "forward_returns", "last_known", "tips_features"]

Convention = Literal["next_close", "next_open", "same_close", "tips"]
AVERAGES = (5, 10, 20)
# Which price a label takes, and the rows at which it enters and leaves (added to the horizon).
CONVENTIONS: dict[str, tuple[str, int, int]] = {
    "next_close": ("close", 1, 1),
    "next_open": ("open", 1, 1),
    "same_close": ("close", 0, 0),
    "tips": ("close", 0, -1),
}


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Features of each date and asset.

    Parameters
    ----------
    values : numpy.ndarray of float32 and shape (n_dates, n_assets, n_features)
        What row t holds depends on rows up to t only. NaN where it is not known.
    names : tuple of str
        One for each feature.
    absent : tuple of str, default=()
        Features that there would be if the panel had more fields.
    """

    values: np.ndarray
    names: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        if values.ndim != 3 or values.shape[2] != len(self.names):
            message = (
                f"Expected features of shape (n_dates, n_assets, {len(self.names)}), one of the "
                f"last for each name; got {values.shape}."
            )
            raise InvalidInputError(message)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        absent = f", absent: {' '.join(self.absent)}" if self.absent else ""
        known = np.isfinite(self.values).all(axis=2).mean()
        return f"Features({' '.join(self.names)}{absent}; known in {known:.1%} of the cells)"


def tips_features(
    panel: Panel, look_back: int = 20, averages: Sequence[int] = AVERAGES
) -> Features:
    """Return the features of TIPS, as far as the fields of the panel allow.

    Parameters
    ----------
    panel : Panel
        Daily prices.
    look_back : int, default=20
        Number of days that open, high, low, close and volume are standardised over.
    averages : sequence of int, default=(5, 10, 20)
        Number of days of each moving average of the close.

    Returns
    -------
    Features
        ``open_z`` ... ``volume_z``: the value less its mean over the last ``look_back`` days, over
        their standard deviation (that of the population; where all days are equal the feature is
        0). ``ma5``, ``ma10``, ``ma20``: mean of the last closes over the last one, less 1. Fields
        that the panel does not have give no feature, and are named in ``absent``.

    Raises
    ------
    InvalidInputError
        If a number of days is not at least 2.

    Notes
    -----
    A feature is NaN where a value in its window is missing, and in the first rows. Nothing is
    filled in, and nothing is fitted: a window knows only its own past. Each window is summed on its
    own, so that a data error spoils the windows that hold it and none after them.
    """
    from .kernels.trailing import mean_gap, trailing_score  # noqa: PLC0415 - numba is for use

    for days in (look_back, *averages):
        _check_days(days, "windows of features", 2)
    present = [field for field in FIELDS if field in panel.fields]
    names = (*(f"{field}_z" for field in present), *(f"ma{days}" for days in averages))
    values = np.empty((panel.n_dates, panel.n_assets, len(names)), dtype=np.float32)
    for f, field in enumerate(present):
        trailing_score(panel.fields[field], look_back, values[:, :, f])
    for f, days in enumerate(averages, start=len(present)):
        mean_gap(panel.close, days, values[:, :, f])
    absent = tuple(f"{field}_z" for field in FIELDS if field not in panel.fields)
    return Features(values, names, absent)


def forward_returns(
    panel: Panel,
    horizon: int = 5,
    convention: Convention = "next_close",
    *,
    largest: float | None = None,
) -> np.ndarray:
    """Return what an asset earns after each date: the label of a score made on that date.

    Parameters
    ----------
    panel : Panel
        Daily prices.
    horizon : int, default=5
        Number of days q that it is held.
    convention : {"next_close", "next_open", "same_close", "tips"}, default="next_close"
        When it is bought and sold: ``close[t + 1 + q] / close[t + 1] - 1``, the same of the open,
        ``close[t + q] / close[t] - 1``, or ``close[t + q - 1] / close[t] - 1``. The first two can
        be traded on a score that is known at the close of t. The last two cannot: they buy at the
        close that made the score, and are for comparison with publications, which use either.
    largest : float or None, default=None
        Returns that are larger in size are taken for errors of data, and become NaN.

    Returns
    -------
    numpy.ndarray of float64 and shape (n_dates, n_assets)
        NaN where a price is missing, and in the last `last_known` rows.

    Raises
    ------
    InvalidInputError
        If the convention is unknown, the horizon too short, or the panel has no open for it.

    Notes
    -----
    .. warning::
       Labels of nearby dates overlap, and a label looks `last_known` rows ahead: splits have to
       purge as many dates (`scikd.finance.splits`). An asset that is delisted before it would be
       sold has no label, so that what was lost on it is not learnt from.
    """
    field, entry, leave = _convention(horizon, convention)
    if field not in panel.fields:
        message = f"The labels {convention!r} need the field {field!r}; the panel has none."
        raise InvalidInputError(message)
    prices = panel.fields[field]
    labels = np.full(prices.shape, np.nan)
    n_known = panel.n_dates - leave
    if n_known > 0:
        np.divide(prices[leave:], prices[entry : entry + n_known], out=labels[:n_known])
        labels -= 1
    if largest is not None:
        labels[np.abs(labels) > largest] = np.nan
    return labels


def last_known(horizon: int = 5, convention: Convention = "next_close") -> int:
    """Return how many rows after its own a label looks; splits purge as many dates."""
    return _convention(horizon, convention)[2]


def _convention(horizon: int, convention: Any) -> tuple[str, int, int]:
    """Return the field, and the rows at which a label enters and leaves."""
    if convention not in CONVENTIONS:
        message = (
            f"Expected a convention among {', '.join(get_args(Convention))}; got {convention!r}."
        )
        raise InvalidInputError(message)
    field, entry, leave = CONVENTIONS[convention]
    _check_days(horizon, "the horizon", 1 + entry - leave)
    return field, entry, horizon + leave


def _check_days(days: Any, what: str, fewest: int) -> None:
    whole = isinstance(days, int | np.integer) and not isinstance(days, bool)
    if not whole or days < fewest:
        message = f"Expected {what} of at least {fewest} days, as a whole number; got {days!r}."
        raise InvalidInputError(message)
