"""Which samples of training know what a test is about to ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scikd.out_of_fold import Fold

from .features import Convention, last_known

__all__ = ["overlapping", "trains_later"]


def overlapping(
    train: np.ndarray, test: np.ndarray, horizon: int = 5, convention: Convention = "next_close"
) -> np.ndarray:
    """Return the dates of training whose labels reach into a test.

    Before a date of the test, a label must be known by then. After it, no day may be earned by
    both labels.

    Parameters
    ----------
    train, test : numpy.ndarray of int
        Rows of the panel, in any order, repeated or not.
    horizon, convention
        Of the label, see `scikd.finance.forward_returns`.

    Returns
    -------
    numpy.ndarray of int
        Distinct rows of training.
    """
    days, tested = np.unique(train), np.unique(test)
    if not len(tested):
        return days[:0]
    place = np.searchsorted(tested, days)
    following = tested[np.minimum(place, len(tested) - 1)]
    preceding = tested[np.maximum(place - 1, 0)]
    ahead = (following >= days) & (following - days < last_known(horizon, convention))
    behind = (preceding < days) & (days - preceding < horizon)
    return days[ahead | behind | np.isin(days, tested)]


def trains_later(folds: Sequence[Fold], rows: np.ndarray) -> int | None:
    """Return the first fold that trains on dates after the beginning of its test, or None."""
    for number, (train, test) in enumerate(folds):
        if rows[train].max() > rows[test].min():
            return number
    return None
