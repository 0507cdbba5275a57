"""The best assets of every row of scores, without sorting the rows.

The k-th best score of a row is found by quickselect (Hoare, "Algorithm 65: find", 1961) in a form
without branches on the data: such a branch cannot be foretold, and waiting for it would cost more
than all else. Ties are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["count_scores", "narrow_rows", "select_rows"]


@njit(cache=True, nogil=True)
def count_scores(scores: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Count the scores of each row.

    Parameters
    ----------
    scores : numpy.ndarray of shape (n_dates, n_assets), float64
        NaN where there is none.
    member : numpy.ndarray of shape (n_dates, n_assets), bool
        Whether the asset may be chosen.

    Returns
    -------
    eligible : numpy.ndarray of shape (n_dates,), int64
        Scores of members.
    given : numpy.ndarray of shape (n_dates,), int64
        Scores, of members or not.
    n_infinite : int
        Infinite scores in all rows.
    """
    n_dates, n_assets = scores.shape
    eligible, given = np.zeros(n_dates, np.int64), np.zeros(n_dates, np.int64)
    n_infinite = 0
    for t in range(n_dates):
        chosen = here = infinite = 0
        for n in range(n_assets):
            there = scores[t, n] == scores[t, n]
            here += there
            chosen += there & member[t, n]
            infinite += abs(scores[t, n]) == np.inf
        eligible[t], given[t] = chosen, here
        n_infinite += infinite
    return eligible, given, n_infinite


@njit(cache=True, nogil=True)
def _kth_largest(keys: np.ndarray, spare: np.ndarray, n: Any, k: Any) -> Any:
    """Return the k-th largest of the first `n` keys; both arrays are overwritten."""
    while True:
        first, middle, last = keys[0], keys[n // 2], keys[n - 1]
        pivot = max(min(first, middle), min(max(first, middle), last))
        above = equal = below = 0
        for i in range(n):  # every key is written, and the next one over it if it does not count
            key = keys[i]
            spare[above] = key
            above += key > pivot
            equal += key == pivot
        if above < k <= above + equal:
            return pivot
        if k <= above:
            n = above
        else:
            for i in range(n):
                key = keys[i]
                spare[below] = key
                below += key < pivot
            n, k = below, k - above - equal
        keys, spare = spare, keys


@njit(cache=True, nogil=True)
def select_rows(
    scores: np.ndarray, member: np.ndarray, rows: np.ndarray, sizes: np.ndarray, lowest: Any
) -> np.ndarray:
    """Return the best (or the worst) assets of rows, by their number.

    The order is total: by falling score, and for equal scores by the number of the asset. The best
    are the first in it and the worst the last, so they have no asset in common while both fit.

    Parameters
    ----------
    scores : numpy.ndarray of shape (n_dates, n_assets), float64
        NaN where there is none.
    member : numpy.ndarray of shape (n_dates, n_assets), bool
        Whether the asset may be chosen.
    rows : numpy.ndarray of shape (n_rows,), int64
        Which rows.
    sizes : numpy.ndarray of shape (n_rows,), int64
        How many assets of each: from 1 to as many as there are.
    lowest : bool
        Whether the worst are asked for.

    Returns
    -------
    numpy.ndarray of shape (n_rows, max(sizes)), int32
        Numbers of assets, rising; -1 beyond the size of a row.
    """
    n_assets = scores.shape[1]
    chosen = np.full((rows.shape[0], sizes.max()), -1, np.int32)
    keys, spare = np.empty(n_assets + 1), np.empty(n_assets + 1)
    names = np.empty(n_assets + 1, np.int32)
    sign = -1.0 if lowest else 1.0
    for i in range(rows.shape[0]):
        row, mask, size = scores[rows[i]], member[rows[i]], sizes[i]
        n = 0
        for asset in range(n_assets):
            key = sign * row[asset]
            keys[n] = key
            n += (not np.isnan(key)) & mask[asset]
        bar = _kth_largest(keys, spare, n, size)
        n = 0
        for asset in range(n_assets):
            names[n] = asset
            n += (sign * row[asset] >= bar) & mask[asset]
        _drop_ties(names, n, row, sign * bar, size, lowest)
        for place in range(size):
            chosen[i, place] = names[place]
    return chosen


@njit(cache=True, nogil=True)
def narrow_rows(
    scores: np.ndarray, rows: np.ndarray, wider: np.ndarray, sizes: np.ndarray, lowest: Any
) -> np.ndarray:
    """Return what `select_rows` would, out of a choice of at least as many from each row.

    Parameters
    ----------
    scores, rows, sizes, lowest
        As `select_rows` takes them.
    wider : numpy.ndarray of shape (n_rows, width), int32
        What it returned for larger sizes.

    Returns
    -------
    numpy.ndarray of shape (n_rows, max(sizes)), int32
        Numbers of assets, rising; -1 beyond the size of a row.
    """
    width = wider.shape[1]
    chosen = np.full((rows.shape[0], sizes.max()), -1, np.int32)
    keys, spare = np.empty(width), np.empty(width)
    names = np.empty(width, np.int32)
    sign = -1.0 if lowest else 1.0
    for i in range(rows.shape[0]):
        row, size = scores[rows[i]], sizes[i]
        n = 0
        while n < width and wider[i, n] >= 0:
            keys[n] = sign * row[wider[i, n]]
            n += 1
        bar = _kth_largest(keys, spare, n, size)
        there, n = n, 0
        for place in range(there):
            names[n] = wider[i, place]
            n += sign * row[wider[i, place]] >= bar
        _drop_ties(names, n, row, sign * bar, size, lowest)
        for place in range(size):
            chosen[i, place] = names[place]
    return chosen


@njit(cache=True, nogil=True)
def _drop_ties(
    names: np.ndarray, n: Any, row: np.ndarray, bar: Any, size: Any, lowest: Any
) -> None:
    """Keep `size` names, at the expense of those whose score is `bar`: the last, or the first."""
    surplus = n - size
    if surplus == 0:
        return
    equal = 0
    for place in range(n):
        equal += row[names[place]] == bar
    start, stop = (0, surplus) if lowest else (equal - surplus, equal)
    kept = seen = 0
    for place in range(n):
        name = names[place]
        tie = row[name] == bar
        names[kept] = name
        kept += not (tie and start <= seen < stop)
        seen += tie
