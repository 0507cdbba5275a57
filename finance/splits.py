"""Splits in time for scikit-learn, purged so that no label of training overlaps one of a test.

Dates are given as ``groups``: all samples of a date fall on the same side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from sklearn.model_selection import BaseCrossValidator

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._days import as_day, as_days
from .features import Convention, last_known

__all__ = ["Chronological", "CombinatorialPurged", "WalkForward"]

Split = tuple[np.ndarray, np.ndarray]


class _DateSplitter(BaseCrossValidator):
    """Split distinct dates, and all samples of a date with it.

    A subclass is given the place of each distinct date in the calendar, and yields masks over the
    distinct dates.
    """

    __metadata_request__split = {"groups": True}  # noqa: RUF012 - sklearn reads the name so

    purge: int
    calendar: Any

    @classmethod
    def for_label(
        cls, horizon: int = 5, convention: Convention = "next_close", **parameters: Any
    ) -> Self:
        """Make a splitter that purges as many dates as a label looks ahead.

        Parameters
        ----------
        horizon : int, default=5
            As in `scikd.finance.forward_returns`.
        convention : str, default="next_close"
            As there.
        **parameters
            Of the splitter.
        """
        return cls(purge=last_known(horizon, convention), **parameters)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:
        """Yield the samples of training and of test.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or None
            Only its length is used.
        y : object, default=None
            Not used.
        groups : array-like of shape (n_samples,)
            Date of each sample, in any order; the clock and the time zone are dropped.

        Yields
        ------
        train, test : numpy.ndarray of int64
            Numbers of samples, increasing.

        Raises
        ------
        InvalidInputError
            If there are no dates, dates are not in the calendar, or a part would be empty.
        """
        dates, day = _distinct(groups, X)
        for number, (train, test) in enumerate(self._split_days(dates, self._places(dates))):
            for what, mask in (("training", train), ("test", test)):
                if not mask.any():
                    message = (
                        f"Split {number} of {type(self).__name__} has no dates for {what}: there "
                        f"are {len(dates)}, from {dates[0]} to {dates[-1]}, and {self.purge} are "
                        "purged. Use fewer splits or more dates."
                    )
                    raise InvalidInputError(message)
            yield np.flatnonzero(train[day]), np.flatnonzero(test[day])

    @abstractmethod
    def _split_days(self, dates: np.ndarray, places: np.ndarray) -> Iterator[Split]:
        """Yield masks over the distinct dates: training, and test."""

    def _places(self, dates: np.ndarray) -> np.ndarray:
        """Return where the dates stand in the calendar."""
        for name in ("purge", "embargo"):
            _check_count(getattr(self, name, 0), name, 0)
        if self.calendar is None:
            return np.arange(len(dates))
        calendar = np.unique(as_days(self.calendar, "calendar"))
        unknown = dates[~np.isin(dates, calendar)]
        if len(unknown):
            message = (
                f"{len(unknown)} dates of the samples are not in the calendar, such as "
                f"{unknown[0]}. Pass the dates of the panel."
            )
            raise InvalidInputError(message)
        return np.searchsorted(calendar, dates)


class WalkForward(_DateSplitter):
    """Train on the past and test on what follows, again and again.

    Parameters
    ----------
    n_splits : int or None, default=5
        Number of tests; they end with the last date. None takes as many as fit after the first
        ``train_size`` dates; the last may be shorter.
    test_size : int or None, default=None
        Dates in a test. None, with ``n_splits``: so that training begins with as many.
    train_size : int or None, default=None
        Dates of training before the first test, without ``n_splits``; and at most so many before
        each test, if it is ``rolling``.
    rolling : bool, default=False
        Whether training keeps its length and moves on, rather than growing.
    purge : int
        Dates between training and test that neither has: as many as a label looks ahead
        (`scikd.finance.last_known`), which `for_label` works out.
    embargo : int, default=0
        Further such dates.
    calendar : array-like of dates or None, default=None
        All trading days, which purged dates are counted in. None counts the dates of the samples;
        where these skip days, more is purged than need be.

    Notes
    -----
    .. warning::
       Rows are kept apart by date, so pass dates as ``groups``. With fewer purged dates than a
       label looks ahead, the last labels of training hold returns of the test.
    """

    def __init__(
        self,
        n_splits: int | None = 5,
        *,
        purge: int,
        embargo: int = 0,
        test_size: int | None = None,
        train_size: int | None = None,
        rolling: bool = False,
        calendar: Any = None,
    ) -> None:
        self.n_splits = n_splits
        self.purge = purge
        self.embargo = embargo
        self.test_size = test_size
        self.train_size = train_size
        self.rolling = rolling
        self.calendar = calendar

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits; it needs ``groups`` where ``n_splits`` is None."""
        if self.n_splits is not None:
            return self.n_splits
        dates, _ = _distinct(groups, X)
        return len(self._starts(self._places(dates))[0])

    def _split_days(self, dates: np.ndarray, places: np.ndarray) -> Iterator[Split]:
        starts, test_size = self._starts(places)
        number = np.arange(len(places))
        for start in starts:
            past = places < places[start] - self.purge - self.embargo
            if self.rolling:
                past &= number >= past.sum() - _check_count(self.train_size, "train_size", 1)
            yield past, (number >= start) & (number < start + test_size)

    def _starts(self, places: np.ndarray) -> tuple[list[int], int]:
        """Return the first distinct date of each test, and how many a test has."""
        n_days = len(places)
        if self.n_splits is None:
            test_size = _check_count(self.test_size, "test_size (without n_splits)", 1)
            train_size = _check_count(self.train_size, "train_size (without n_splits)", 1)
            if train_size >= n_days:
                message = f"train_size is {train_size}, and the samples have {n_days} dates."
                raise InvalidInputError(message)
            after = places[train_size - 1] + self.purge + self.embargo
            first = int(np.searchsorted(places, after, side="right"))
            return list(range(first, n_days, test_size)), test_size
        n_splits = _check_count(self.n_splits, "n_splits", 1)
        test_size = self.test_size if self.test_size is not None else n_days // (n_splits + 1)
        _check_count(test_size, f"test_size (of {n_days} dates)", 1)
        first = n_days - n_splits * test_size
        if first < 1:
            message = (
                f"{n_splits} tests of {test_size} dates leave none of {n_days} for training. "
                "Use fewer or shorter tests, or more dates."
            )
            raise InvalidInputError(message)
        return list(range(first, n_days, test_size)), test_size


class Chronological(_DateSplitter):
    """Cut at dates: training, then validation, then test.

    As a splitter of scikit-learn it yields training and validation once; `parts` gives all three.

    Parameters
    ----------
    train_end, valid_end : date
        Last date of training, and of validation (None: all that follows is validation).
    purge : int
        Dates left out at the end of training and of validation: as many as a label looks ahead
        (`scikd.finance.last_known`), which `for_label` works out.
    calendar : array-like of dates or None, default=None
        As in `WalkForward`.
    """

    def __init__(
        self, train_end: Any, valid_end: Any = None, *, purge: int, calendar: Any = None
    ) -> None:
        self.train_end = train_end
        self.valid_end = valid_end
        self.purge = purge
        self.calendar = calendar

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return 1."""
        return 1

    def parts(self, groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the samples of training, validation and test, given their dates.

        Raises
        ------
        InvalidInputError
            As `split`; the test may be empty.
        """
        dates, day = _distinct(groups, None)
        ((train, valid),) = self.split(None, groups=groups)
        return train, valid, np.flatnonzero(self._after(dates, self.valid_end)[day])

    def _split_days(self, dates: np.ndarray, places: np.ndarray) -> Iterator[Split]:
        if dates.dtype.kind != "M":
            message = f"Expected dates as groups, to cut at {self.train_end}; got {dates.dtype}."
            raise InvalidInputError(message)
        later, test = (self._after(dates, end) for end in (self.train_end, self.valid_end))
        if (test & ~later).any():
            message = f"valid_end ({self.valid_end}) is before train_end ({self.train_end})."
            raise InvalidInputError(message)
        yield self._purged(~later, later, places), self._purged(later & ~test, test, places)

    def _purged(self, part: np.ndarray, following: np.ndarray, places: np.ndarray) -> np.ndarray:
        if not following.any():
            return part
        return part & (places < places[following][0] - self.purge)

    def _after(self, dates: np.ndarray, end: Any) -> np.ndarray:
        if end is None:
            return np.zeros(len(dates), dtype=bool)
        try:
            return dates > as_day(end)
        except (TypeError, ValueError) as error:
            message = f"Expected train_end and valid_end as dates such as 2018-12-31; got {end!r}."
            raise InvalidInputError(message) from error


class CombinatorialPurged(_DateSplitter):
    """Test on every choice of folds in time, and train on the others, purged (skfolio's).

    The dates are cut into folds of one length, and each choice of ``n_test_folds`` of them is a
    test. Together the tests go through history on several paths, each made of models that did not
    see it: a distribution of backtests instead of one. Training also holds dates after the test;
    what follows a test is purged like what is before it.

    Parameters
    ----------
    n_folds : int, default=10
        Number of folds, at least 3.
    n_test_folds : int, default=2
        Number of these in a test, at least 2.
    purge : int
        Dates of training left out on both sides of a test: as many as a label looks ahead
        (`scikd.finance.last_known`), which `for_label` works out.
    embargo : int, default=0
        Further dates left out after a test.
    calendar : array-like of dates or None, default=None
        As in `WalkForward`; folds are counted in it, too.
    """

    def __init__(
        self,
        n_folds: int = 10,
        n_test_folds: int = 2,
        *,
        purge: int,
        embargo: int = 0,
        calendar: Any = None,
    ) -> None:
        self.n_folds = n_folds
        self.n_test_folds = n_test_folds
        self.purge = purge
        self.embargo = embargo
        self.calendar = calendar

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits."""
        return int(self._folds().n_splits)

    @property
    def n_paths(self) -> int:
        """Number of paths through all dates that the tests make up."""
        return int(self._folds().n_test_paths)

    def path_ids(self) -> np.ndarray:
        """Return the path that each tested fold belongs to.

        Returns
        -------
        numpy.ndarray of int and shape (n_splits, n_test_folds)
            The folds of a test in the order of time.
        """
        return np.asarray(self._folds().get_path_ids())

    def _split_days(self, dates: np.ndarray, places: np.ndarray) -> Iterator[Split]:
        places = places - places[0]
        n_places = int(places[-1]) + 1
        shortest = n_places // self.n_folds
        if self.purge + self.embargo >= shortest - 1:
            message = (
                f"Folds of {shortest} dates are too short to purge {self.purge} and embargo "
                f"{self.embargo}. Use fewer folds or more dates."
            )
            raise InvalidInputError(message)
        for train, tests in self._folds().split(np.zeros((n_places, 1))):
            yield np.isin(places, train), np.isin(places, np.concatenate(tests))

    def _folds(self) -> Any:
        feature = "Combinatorial purged splits"
        selection = require("skfolio.model_selection", extra="finance", feature=feature)
        try:
            return selection.CombinatorialPurgedCV(
                self.n_folds, self.n_test_folds, self.purge, self.embargo
            )
        except ValueError as error:
            raise InvalidInputError(f"Cannot make these splits: {error}") from error


def _distinct(groups: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct dates, and which of them each sample has."""
    if groups is None:
        message = "These splits need the date of each sample: pass groups=dates."
        raise InvalidInputError(message)
    dates = as_days(groups, "groups")
    n_samples = len(dates) if X is None else len(X)
    if dates.ndim != 1 or len(dates) != n_samples or not n_samples:
        message = f"Expected groups with the dates of {n_samples} samples; got {dates.shape}."
        raise InvalidInputError(message)
    if dates.dtype.kind not in "Miu" or np.isnat(dates.astype("datetime64[D]")).any():
        message = f"Expected groups of dates, none of them missing; got {dates.dtype}."
        raise InvalidInputError(message)
    distinct, day = np.unique(dates, return_inverse=True)
    return distinct, day


def _check_count(value: Any, name: str, fewest: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < fewest:
        message = f"Expected {name} as a whole number of at least {fewest}; got {value!r}."
        raise InvalidInputError(message)
    return int(value)
