"""Trees of several collections as one: equal ones are found by exact comparison."""

from __future__ import annotations

import numpy as np
from numba import njit

from .refinement import Table, empty_table, first_rows, number_tree

__all__ = ["distinct_trees"]


@njit(cache=True, nogil=True)
def distinct_trees(
    own: np.ndarray, ptr: np.ndarray, keys: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, Table]:
    """Give equal trees equal numbers.

    Parameters
    ----------
    own, ptr, keys, counts : numpy.ndarray
        Rows as in `scikd.graphs.kernels.refinement.Table`, of which some are equal.

    Returns
    -------
    numbers : numpy.ndarray of shape (n_rows,), int32
        From 0, in the order of first sight.
    table : Table
        What each number stands for.
    """
    numbers = np.empty(own.shape[0], np.int32)
    table = empty_table(own.shape[0], keys.shape[0])
    known = 0
    for row in range(own.shape[0]):
        below = slice(ptr[row], ptr[row + 1])
        numbers[row] = number_tree(own[row], keys[below], counts[below], table, known)
        known = max(known, numbers[row] + 1)
    return numbers, first_rows(table, known)
