"""Rows of sparse matrices, new numbers and transposition, in time linear in what is taken."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["renumber", "sort_by_column", "take_rows"]


@njit(cache=True, nogil=True)
def sort_by_column(columns: np.ndarray, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort the entries of a matrix by column; those of one column stay in order.

    Parameters
    ----------
    columns : numpy.ndarray of shape (n_entries,), int64
        Column of each entry.
    n_columns : int
        How many columns there are.

    Returns
    -------
    ptr : numpy.ndarray of shape (n_columns + 1,), int64
        Entries of column c are ``order[ptr[c]:ptr[c + 1]]``.
    order : numpy.ndarray of shape (n_entries,), int64
        Numbers of entries.
    """
    ptr = np.zeros(n_columns + 1, np.int64)
    for column in columns:
        ptr[column + 1] += 1
    for column in range(n_columns):
        ptr[column + 1] += ptr[column]
    place, order = ptr[:-1].copy(), np.empty(columns.shape[0], np.int64)
    for entry in range(columns.shape[0]):
        order[place[columns[entry]]] = entry
        place[columns[entry]] += 1
    return ptr, order


@njit(cache=True, nogil=True)
def take_rows(ptr: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select rows of a matrix.

    Parameters
    ----------
    ptr : numpy.ndarray of shape (n_rows + 1,), int64
        Entries of row r are those from ``ptr[r]`` to ``ptr[r + 1]``.
    rows : numpy.ndarray of shape (n_taken,), int64
        Which.

    Returns
    -------
    new_ptr : numpy.ndarray of shape (n_taken + 1,), int64
        As ``ptr``, of the selected rows.
    entries : numpy.ndarray of shape (new_ptr[-1],), int64
        Numbers of their entries.
    """
    new_ptr = np.zeros(rows.shape[0] + 1, np.int64)
    for place in range(rows.shape[0]):
        row = rows[place]
        new_ptr[place + 1] = new_ptr[place] + ptr[row + 1] - ptr[row]
    entries = np.empty(new_ptr[-1], np.int64)
    for place in range(rows.shape[0]):
        start = ptr[rows[place]] - new_ptr[place]
        for entry in range(new_ptr[place], new_ptr[place + 1]):
            entries[entry] = start + entry
    return new_ptr, entries


@njit(cache=True, nogil=True)
def renumber(
    values: np.ndarray, numbers: np.ndarray, kept: np.ndarray, n_kept: int
) -> tuple[np.ndarray, int]:
    """Give values new numbers in the order of first sight.

    Parameters
    ----------
    values : numpy.ndarray of shape (n,), int64
        Old numbers.
    numbers : numpy.ndarray of shape (n_old,), int32
        New number + 1 of each old one, 0 where it has none yet; changed in place.
    kept : numpy.ndarray of shape (>= n_kept + distinct values,), int64
        Old number of each new one; filled in place.
    n_kept : int
        How many there are already.

    Returns
    -------
    new : numpy.ndarray of shape (n,), int64
        New numbers.
    n_kept : int
        How many there are now.
    """
    new = np.empty(values.shape[0], np.int64)
    for place in range(values.shape[0]):
        value = values[place]
        if numbers[value] == 0:
            kept[n_kept] = value
            n_kept += 1
            numbers[value] = n_kept
        new[place] = numbers[value] - 1
    return new, n_kept
