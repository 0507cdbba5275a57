"""Statistics of the last days, exact: each window is summed on its own.

Running sums would be faster for long windows, but lose digits wherever a large number has passed.
Differences to the last value are taken first, so that a constant window gives exactly 0. The inner
loops run over assets, which lie next to one another.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["mean_gap", "trailing_score"]


@njit(cache=True, nogil=True, error_model="numpy")
def trailing_score(values: np.ndarray, window: int, out: np.ndarray) -> None:
    """Write how many standard deviations the last value of each window lies above its mean.

    Parameters
    ----------
    values : ndarray of float64 and shape (n_dates, n_assets)
        C-contiguous.
    window : int
        Number of rows, at least 1.
    out : ndarray of shape (n_dates, n_assets)
        (x - mean) / std over rows t - window + 1 to t, std over n rather than n - 1; 0 where all
        values are equal, and NaN where one is missing or the window begins before row 0.
    """
    n_dates, n_assets = values.shape
    mean = np.empty(n_assets)
    square = np.empty(n_assets)
    out[: window - 1] = np.nan
    for t in range(window - 1, n_dates):
        last = values[t]
        mean[:] = 0.0
        square[:] = 0.0
        for row in range(t - window + 1, t):
            for n in range(n_assets):
                mean[n] += values[row, n] - last[n]
        for n in range(n_assets):
            mean[n] /= window
        for row in range(t - window + 1, t + 1):
            for n in range(n_assets):
                step = values[row, n] - last[n] - mean[n]
                square[n] += step * step
        for n in range(n_assets):
            if square[n] == 0.0:
                out[t, n] = 0.0
            else:
                out[t, n] = -mean[n] / np.sqrt(square[n] / window)


@njit(cache=True, nogil=True, error_model="numpy")
def mean_gap(values: np.ndarray, window: int, out: np.ndarray) -> None:
    """Write how far the mean of each window lies above its last value, as a fraction of that.

    Parameters
    ----------
    values : ndarray of float64 and shape (n_dates, n_assets)
        Above 0; C-contiguous.
    window : int
        Number of rows, at least 1.
    out : ndarray of shape (n_dates, n_assets)
        mean / x - 1 over rows t - window + 1 to t; NaN as for `trailing_score`.
    """
    n_dates, n_assets = values.shape
    gap = np.empty(n_assets)
    out[: window - 1] = np.nan
    for t in range(window - 1, n_dates):
        last = values[t]
        for n in range(n_assets):
            gap[n] = last[n] - last[n]  # NaN where it is missing, also in a window of one row
        for row in range(t - window + 1, t):
            for n in range(n_assets):
                gap[n] += values[row, n] - last[n]
        for n in range(n_assets):
            out[t, n] = gap[n] / window / last[n]
