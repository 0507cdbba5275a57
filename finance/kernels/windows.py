"""Windows of features, gathered when they are asked for."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["gather_windows"]


@njit(cache=True, nogil=True)
def gather_windows(
    features: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray
) -> None:
    """Copy the last days of some samples.

    Parameters
    ----------
    features : ndarray of shape (n_dates, n_assets, n_features)
        C-contiguous.
    rows, columns : ndarray of int64 and shape (n_samples,)
        Last date and asset of each; ``rows >= look_back - 1``.
    out : ndarray of shape (n_samples, look_back, n_features)
        ``features[row - look_back + 1 : row + 1, column]`` of each.
    """
    look_back, n_features = out.shape[1:]
    for i in range(len(rows)):
        first = rows[i] - look_back + 1
        column = columns[i]
        for k in range(look_back):
            for f in range(n_features):
                out[i, k, f] = features[first + k, column, f]
