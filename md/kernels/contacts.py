"""The closest contact in a list of pairs, measured against what a model has seen."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["worst_contact"]


@njit(cache=True, nogil=True)
def worst_contact(
    positions: np.ndarray,
    kinds: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    offsets: np.ndarray,
    limits: np.ndarray,
) -> tuple[int, int]:
    """Return the pair that lies farthest below its limit, and how many lie below.

    Parameters
    ----------
    positions : ndarray of shape (n_atoms, 3), float64
        In Å.
    kinds : ndarray of shape (n_atoms,), int64
        Row of each atom in ``limits``.
    i, j : ndarray of shape (n_pairs,), int64
        The pairs.
    offsets : ndarray of shape (n_pairs, 3), float64
        From j to its image, in Å.
    limits : ndarray of shape (n_kinds, n_kinds), float64
        Smallest distances in Å; 0 where any will do.

    Returns
    -------
    tuple of (int, int)
        Index of the pair, -1 if none lies below its limit; and the number of those that do.
    """
    worst, count, least = -1, 0, 1.0
    for p in range(len(i)):
        limit = limits[kinds[i[p]], kinds[j[p]]]
        square = 0.0
        for c in range(3):
            d = positions[j[p], c] - positions[i[p], c] + offsets[p, c]
            square += d * d
        if square < limit * limit:
            count += 1
            ratio = square / (limit * limit)
            if ratio < least:
                worst, least = p, ratio
    return worst, count
