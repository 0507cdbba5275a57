"""Windows of features as samples for training and scoring, gathered when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

from ._days import as_day
from .features import Features
from .panel import Panel

__all__ = ["Samples"]


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Stocks on days: where all features of the last days are known.

    The windows are not held: a sample is a row and a column of the features, and `windows` copies
    what is asked for. Samples are sorted by date, then by asset.

    Parameters
    ----------
    features : numpy.ndarray of float32 and shape (n_dates, n_assets, n_features)
        Of each date and asset.
    look_back : int
        Number of days in a window.
    rows, columns : numpy.ndarray of int64 and shape (n_samples,)
        Last date and asset of each sample, as places in ``features``.
    label : numpy.ndarray of float64 and shape (n_samples,) or None
        What to learn.
    dates : numpy.ndarray of datetime64[D] and shape (n_dates,)
        The calendar of the panel.

    See Also
    --------
    Samples.of : Makes them from a panel.
    """

    features: np.ndarray
    look_back: int
    rows: np.ndarray
    columns: np.ndarray
    label: np.ndarray | None
    dates: np.ndarray

    def __post_init__(self) -> None:
        rows, columns = self.rows, self.columns
        labels = rows if self.label is None else self.label
        if not rows.shape == columns.shape == labels.shape == (len(rows),):
            message = (
                "Expected rows, columns and labels of one length; got shapes "
                f"{rows.shape}, {columns.shape} and {labels.shape}."
            )
            raise InvalidInputError(message)
        n_dates, n_assets = self.features.shape[:2]
        # The gathering loop reads where these point, without asking again.
        inside = (rows >= self.look_back - 1) & (rows < n_dates) & (columns >= 0)
        if not (inside & (columns < n_assets)).all() or len(self.dates) != n_dates:
            message = (
                f"Expected samples within {n_dates} dates and {n_assets} assets, with "
                f"{self.look_back - 1} dates before the first, and {n_dates} dates in the calendar."
            )
            raise InvalidInputError(message)
        if ((np.diff(rows) < 0) | ((np.diff(rows) == 0) & (np.diff(columns) <= 0))).any():
            raise InvalidInputError("Expected samples sorted by date, then by asset, each once.")

    @classmethod
    def of(
        cls,
        panel: Panel,
        features: Features,
        label: np.ndarray | None = None,
        *,
        look_back: int = 20,
        rows: slice | None = None,
    ) -> Samples:
        """Find the samples of a panel.

        Parameters
        ----------
        panel : Panel
            Says who is in the universe when: others are no samples.
        features : Features
            Of this panel.
        label : numpy.ndarray of shape (n_dates, n_assets) or None, default=None
            What to learn, such as `forward_returns`; where it is not finite there is no sample.
            None is for scoring.
        look_back : int, default=20
            Number of days in a window.
        rows : slice or None, default=None
            Dates of the panel to take samples of; their windows may begin before.

        Raises
        ------
        InvalidInputError
            If shapes do not fit, or there is no sample at all.
        """
        values = features.values
        shape = panel.n_dates, panel.n_assets
        given = {"features": values.shape[:2]} | ({} if label is None else {"label": label.shape})
        for what, got in given.items():
            if got != shape:
                message = f"Expected {what} of {shape} dates and assets; got {got}."
                raise InvalidInputError(message)
        if isinstance(look_back, bool) or not isinstance(look_back, int) or look_back < 1:
            raise InvalidInputError(f"Expected a look_back of at least 1 day; got {look_back!r}.")
        # A window is whole where its first row comes after the last row with anything missing.
        number = np.arange(panel.n_dates)[:, None]
        whole = np.isfinite(values).all(axis=2)
        gap = np.maximum.accumulate(np.where(whole, -1, number), axis=0)
        chosen = (number - gap >= look_back) & panel.member
        if label is not None:
            chosen &= np.isfinite(label)
        if rows is not None:
            outside = np.ones(panel.n_dates, dtype=bool)
            outside[rows] = False
            chosen[outside] = False
        t, n = np.nonzero(chosen)
        if not len(t):
            also = "" if label is None else " and a label"
            message = (
                f"No member of the universe has {look_back} days of all features{also}: the panel "
                f"has {panel.n_dates} dates, and all features in {int(whole.sum())} cells. Take "
                "more dates, a shorter look_back, or fewer fields."
            )
            raise InvalidInputError(message)
        taken = None if label is None else np.asarray(label, dtype=np.float64)[t, n]
        return cls(values, look_back, t, n, taken, panel.dates)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_features(self) -> int:
        """Number of features of a day."""
        return int(self.features.shape[2])

    @cached_property
    def days(self) -> np.ndarray:
        """Rows of the panel that have samples, in order, of shape (n_days,)."""
        return self.rows[self.day_ptr[:-1]]

    @cached_property
    def day_ptr(self) -> np.ndarray:
        """Where days begin: samples of day d are ``day_ptr[d]`` up to ``day_ptr[d + 1]``."""
        begins = np.flatnonzero(np.diff(self.rows, prepend=-1))
        return np.append(begins, len(self.rows)).astype(np.int64)

    @property
    def groups(self) -> np.ndarray:
        """Date of each sample, as datetime64[D]: the groups of the splitters."""
        return self.dates[self.rows]

    def day(self, row: int) -> slice:
        """Return the samples of a row of the panel; an empty slice if it has none."""
        start, stop = np.searchsorted(self.rows, [row, row + 1])
        return slice(int(start), int(stop))

    def windows(self, which: Any = slice(None), out: np.ndarray | None = None) -> np.ndarray:
        """Copy the windows of some samples.

        Parameters
        ----------
        which : slice or numpy.ndarray, default=slice(None)
            Numbers of samples, in any order, or a mask.
        out : numpy.ndarray or None, default=None
            Where to write; None takes new memory.

        Returns
        -------
        numpy.ndarray of float32 and shape (n, look_back, n_features)
            The oldest day first.
        """
        from .kernels.windows import gather_windows  # noqa: PLC0415 - numba is for use

        rows, columns = self.rows[which], self.columns[which]
        shape = len(rows), self.look_back, self.n_features
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            message = f"Expected out as float32 of shape {shape}; got {out.dtype} of {out.shape}."
            raise InvalidInputError(message)
        gather_windows(self.features, rows, columns, out)
        return out

    def take(self, which: Any) -> Samples:
        """Return some samples, given as a slice, a mask, or numbers in increasing order."""
        label = None if self.label is None else self.label[which]
        return replace(self, rows=self.rows[which], columns=self.columns[which], label=label)

    def select_days(self, every: int = 1, first: Any = None, last: Any = None) -> Samples:
        """Return the samples of some days.

        Parameters
        ----------
        every : int, default=1
            Takes each so-manieth day that has samples: labels of nearby days overlap, and little is
            lost.
        first, last : date or None, default=None
            Only days from the first to the last, both included.

        Raises
        ------
        InvalidInputError
            If ``every`` is below 1.
        """
        if every < 1:
            raise InvalidInputError(f"Expected every >= 1; got {every!r}.")
        start = 0 if first is None else np.searchsorted(self.dates, as_day(first))
        stop = len(self.dates)
        if last is not None:
            stop = int(np.searchsorted(self.dates, as_day(last), side="right"))
        days = self.days
        days = days[(days >= start) & (days < stop)][::every]
        return self.take(np.isin(self.rows, days))

    def as_arrays(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return what scikit-learn takes: windows, labels, and dates as groups.

        Returns
        -------
        X : numpy.ndarray of float32 and shape (n_samples, look_back, n_features)
            All windows at once: ``look_back`` times the memory of the features.
        y : numpy.ndarray of float64 and shape (n_samples,) or None
            Labels.
        groups : numpy.ndarray of datetime64[D] and shape (n_samples,)
            Dates.
        """
        return self.windows(), self.label, self.groups

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Lay one value for each sample out over dates x assets, NaN where there is no sample.

        Parameters
        ----------
        values : numpy.ndarray of shape (n_samples,)
            Such as scores.

        Returns
        -------
        numpy.ndarray of float64 and shape (n_dates, n_assets)
            As a backtest takes it.
        """
        values = np.asarray(values)
        if values.shape != self.rows.shape:
            message = f"Expected {len(self)} values, one for each sample; got {values.shape}."
            raise InvalidInputError(message)
        wide = np.full(self.features.shape[:2], np.nan)
        wide[self.rows, self.columns] = values
        return wide

    def __repr__(self) -> str:
        days = self.days
        span = f" from {self.dates[days[0]]} to {self.dates[days[-1]]}" if len(days) else ""
        return (
            f"Samples({len(self)} of {len(days)} days{span}, {self.look_back} days x "
            f"{self.n_features} features{', labelled' if self.label is not None else ''})"
        )
