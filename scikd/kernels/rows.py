"""Statistics of each row of a prediction matrix, over the models that have a prediction there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from scikd.exceptions import InvalidInputError
from scikd.kernels._checks import checked_array

__all__ = ["ROW_STATISTICS", "row_statistics"]

ROW_STATISTICS = ("mean", "std", "median", "range", "mad", "skew")

_BLOCK = 1 << 16  # entries of a block: 512 KiB of float64 stay in the second-level cache
_ROUNDING = 1e-12  # a spread below this share of the values is rounding, and has no shape


@njit(cache=True, nogil=True)
def _median_distance(values, m, middle):  # type: ignore[no-untyped-def]
    """Return the median distance of m sorted values from their median."""
    left, right = (m - 1) // 2, (m - 1) // 2 + 1
    total = 0.0
    for k in range(m // 2 + 1):  # the distances grow outwards: take the smaller of both sides
        if right >= m or (left >= 0 and middle - values[left] <= values[right] - middle):
            distance = middle - values[left]
            left -= 1
        else:
            distance = values[right] - middle
            right += 1
        if k >= (m - 1) // 2:
            total += distance
    return total / (2 - m % 2)


@njit(cache=True, nogil=True)
def _statistics(block, out):  # type: ignore[no-untyped-def]
    """Write the statistics of rows that are sorted, NaN last."""
    for r in range(block.shape[0]):
        m = 0
        total = 0.0
        while m < block.shape[1] and not math.isnan(block[r, m]):
            total += block[r, m]
            m += 1
        if m == 0:
            out[r, :] = np.nan
            continue
        mean = total / m
        squares = 0.0
        for j in range(m):
            squares += (block[r, j] - mean) ** 2
        std = math.sqrt(squares / m)
        low, high = block[r, 0], block[r, m - 1]
        middle = 0.5 * (block[r, (m - 1) // 2] + block[r, m // 2])
        out[r, 0] = mean
        out[r, 1] = std
        out[r, 2] = middle
        out[r, 3] = high - low
        out[r, 4] = _median_distance(block[r], m, middle)
        out[r, 5] = 0.0
        if std > _ROUNDING * max(abs(low), abs(high)):
            for j in range(m):
                out[r, 5] += ((block[r, j] - mean) / std) ** 3 / m


def row_statistics(P: Any) -> np.ndarray:
    """Summarise each row of a prediction matrix.

    Parameters
    ----------
    P : array_like of shape (n_samples, n_models)
        Predictions, NaN where a model has none; in memory or memory-mapped, never copied as a
        whole.

    Returns
    -------
    ndarray of shape (n_samples, 6)
        In the order of `ROW_STATISTICS`: mean; standard deviation (divided by the number of
        models); median; largest minus smallest; median absolute deviation from the median, not
        rescaled; skewness (third central moment over the cubed standard deviation, 0 where the
        models agree). All but the skewness have the unit of the predictions. NaN in rows that no
        model covers.

    Raises
    ------
    InvalidInputError
        If P has another number of dimensions, or no column.
    """
    array = checked_array(P, "P")
    if array.ndim != 2 or array.shape[1] == 0:
        msg = f"P must have shape (n_samples, n_models) with n_models >= 1, got {array.shape}"
        raise InvalidInputError(msg)
    out = np.empty((len(array), len(ROW_STATISTICS)))
    step = max(1, _BLOCK // array.shape[1])
    for start in range(0, len(array), step):
        here = slice(start, start + step)
        block = np.ascontiguousarray(array[here], dtype=np.float64)
        _statistics(np.sort(block, axis=1), out[here])
    return out
