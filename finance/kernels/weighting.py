"""Weights of the chosen assets: equal or by softmax, with a cap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["weigh"]


@njit(cache=True, nogil=True)
def _cap(weights: np.ndarray, cap: Any) -> None:
    """Cut weights to the cap, and give the others in proportion what is cut."""
    total, n_capped = weights.sum(), 0
    capped = np.zeros(weights.shape[0], np.bool_)
    while True:
        free = 0.0
        for i in range(weights.shape[0]):
            free += 0.0 if capped[i] else weights[i]
        stretch = (total - cap * n_capped) / free if free > 0.0 else 0.0
        found = 0
        for i in range(weights.shape[0]):
            if not capped[i] and weights[i] * stretch > cap:
                capped[i] = True
                found += 1
        n_capped += found
        if found == 0:
            for i in range(weights.shape[0]):
                weights[i] = cap if capped[i] else weights[i] * stretch
            return


@njit(cache=True, nogil=True)
def weigh(
    scores: np.ndarray,
    rows: np.ndarray,
    chosen: np.ndarray,
    sizes: np.ndarray,
    wanted: np.ndarray,
    share: Any,
    temperature: Any,
    cap: Any,
) -> np.ndarray:
    """Weigh the chosen assets of one leg.

    Parameters
    ----------
    scores : numpy.ndarray of shape (n_dates, n_assets), float64
        Scores, with a changed sign for a short leg.
    rows : numpy.ndarray of shape (n_rows,), int64
        Which rows.
    chosen : numpy.ndarray of shape (n_rows, width), int32
        As `scikd.finance.kernels.selection.select_rows` returns them.
    sizes, wanted : numpy.ndarray of shape (n_rows,), int64
        How many were chosen, and how many would have been if there were enough.
    share : float
        Weight of the leg when there are enough.
    temperature : float
        Of the softmax of the scores; infinite for equal weights.
    cap : float
        No weight is above it.

    Returns
    -------
    numpy.ndarray of shape (n_rows, width), float64
        Weights, at least 0.
    """
    weights = np.zeros(chosen.shape)
    for i in range(rows.shape[0]):
        n = sizes[i]
        if temperature == np.inf:
            equal = share / wanted[i]
            for place in range(n):
                weights[i, place] = min(equal, cap)  # equal ones leave nobody to take the rest
            continue
        best, total = -np.inf, 0.0
        for place in range(n):
            best = max(best, scores[rows[i], chosen[i, place]])
        for place in range(n):
            weights[i, place] = np.exp((scores[rows[i], chosen[i, place]] - best) / temperature)
            total += weights[i, place]
        for place in range(n):
            weights[i, place] *= share * n / wanted[i] / total
        if cap < np.inf:
            _cap(weights[i, :n], cap)
    return weights
