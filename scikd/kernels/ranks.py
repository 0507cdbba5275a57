"""Average ranks within groups, from one sort."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from scikd.exceptions import InvalidInputError
from scikd.kernels._checks import checked_array

__all__ = ["group_ranks", "group_sizes"]


@njit(cache=True, nogil=True)
def _count(values, codes, sizes):  # type: ignore[no-untyped-def]
    """Count the present values of each group."""
    for i in range(len(values)):
        if values[i] == values[i]:
            sizes[codes[i]] += 1


@njit(cache=True, nogil=True)
def _scatter(values, codes, order, ends, grouped, origin):  # type: ignore[no-untyped-def]
    """Deal the present values out to their groups, in the order given; a counting sort.

    `ends` holds where each group starts, and afterwards where it ends.
    """
    for k in range(len(order)):
        i = order[k]
        if values[i] == values[i]:
            code = codes[i]
            place = ends[code]
            grouped[place] = values[i]
            origin[place] = i
            ends[code] = place + 1


@njit(cache=True, nogil=True)
def _write_ranks(grouped, origin, ends, ranks):  # type: ignore[no-untyped-def]
    """Write the average rank of each value; `grouped` is sorted within each group."""
    start = 0
    for g in range(len(ends)):
        stop = ends[g]
        i = start
        while i < stop:
            j = i + 1
            while j < stop and grouped[j] == grouped[i]:
                j += 1
            rank = 0.5 * ((i - start + 1) + (j - start))
            for k in range(i, j):
                ranks[origin[k]] = rank
            i = j
        start = stop


def _checked(values: Any, groups: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Return values, codes from 0 on, and the number of codes."""
    array = checked_array(values, "values")
    if array.ndim != 1:
        msg = f"values must have one dimension, got shape {array.shape}; pass one teacher at a time"
        raise InvalidInputError(msg)
    array = np.ascontiguousarray(array, dtype=np.float64)
    if groups is None:
        return array, np.zeros(len(array), dtype=np.int64), 1
    codes = np.asarray(groups)
    if codes.shape != array.shape or codes.dtype.kind not in "iu":
        msg = (
            f"groups must be integer codes of shape {array.shape}, one per value, got dtype "
            f"{codes.dtype} and shape {codes.shape}; numpy.unique(labels, return_inverse=True)[1] "
            "makes codes of labels"
        )
        raise InvalidInputError(msg)
    if len(codes) == 0:
        return array, codes.astype(np.int64), 0
    if codes.min() < 0 or codes.max() > 4 * len(codes) + 1024:
        codes = np.unique(codes, return_inverse=True)[1]
    return array, np.ascontiguousarray(codes, dtype=np.int64), int(codes.max()) + 1


def group_ranks(values: Any, groups: Any = None) -> np.ndarray:
    """Rank values within their group, from 1 on; ties share the average of their ranks.

    Parameters
    ----------
    values : array_like of shape (n,)
        Any unit; NaN is missing, infinities are ranked like other numbers.
    groups : array_like of int of shape (n,), default=None
        Group of each value, any integers in any order; None puts all in one group.

    Returns
    -------
    ndarray of shape (n,), float64
        The ranks; NaN where the value is NaN, which is not counted either.

    Raises
    ------
    InvalidInputError
        If there is more than one dimension, or the groups are not integers or of another length.

    Examples
    --------
    >>> group_ranks([3.0, 1.0, 3.0, 7.0], groups=[0, 0, 0, 1])
    array([2.5, 1. , 2.5, 1. ])
    """
    array, codes, n_groups = _checked(values, groups)
    ranks = np.full(len(array), np.nan)
    sizes = np.zeros(n_groups, dtype=np.int64)
    _count(array, codes, sizes)
    ends = np.cumsum(sizes) - sizes
    grouped = np.empty(int(sizes.sum()))
    origin = np.empty(len(grouped), dtype=np.int64)
    # Which of two equal values comes first does not matter: they get the same rank.
    _scatter(array, codes, np.argsort(array), ends, grouped, origin)
    _write_ranks(grouped, origin, ends, ranks)
    return ranks


def group_sizes(values: Any, groups: Any = None) -> np.ndarray:
    """Count, for each value, the values in its group that are not NaN.

    Parameters
    ----------
    values, groups
        As of `group_ranks`.

    Returns
    -------
    ndarray of int of shape (n,)
        Largest possible rank of each value: ``group_ranks(v, g) / group_sizes(v, g)`` is within
        (0, 1] wherever the value is not NaN.

    Raises
    ------
    InvalidInputError
        As `group_ranks`.
    """
    array, codes, n_groups = _checked(values, groups)
    sizes = np.zeros(n_groups, dtype=np.int64)
    _count(array, codes, sizes)
    return np.asarray(sizes[codes])
