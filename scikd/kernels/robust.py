"""Weighted median and trimmed mean over teachers; public through `scikd.kernels.moments`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from scikd.exceptions import InvalidInputError
from scikd.kernels._blocks import blocks
from scikd.kernels._checks import checked_members, checked_weights

__all__ = ["stacked_median", "stacked_trimmed_mean"]

_SMALL = 64  # up to this many teachers an insertion sort beats a call of argsort


@njit(cache=True, nogil=True)
def _gather(members, i, weights, values, loads):  # type: ignore[no-untyped-def]
    """Sort the present predictions of entry i, with their weights; return how many there are."""
    m = 0
    for t in range(members.shape[0]):
        value = members[t, i]
        if not math.isnan(value) and weights[t] > 0.0:
            j = m
            if members.shape[0] <= _SMALL:
                while j > 0 and values[j - 1] > value:
                    values[j] = values[j - 1]
                    loads[j] = loads[j - 1]
                    j -= 1
            values[j] = value
            loads[j] = weights[t]
            m += 1
    if members.shape[0] > _SMALL:
        order = np.argsort(values[:m])
        values[:m] = values[:m][order]
        loads[:m] = loads[:m][order]
    return m


@njit(cache=True, nogil=True)
def _median(members, weights, fraction, out):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Write the weighted median of each entry; `fraction` is there to match `_trimmed_mean`."""
    n_teachers = members.shape[0]
    values, loads = np.empty(n_teachers), np.empty(n_teachers)
    for i in range(members.shape[1]):
        m = _gather(members, i, weights, values, loads)
        total = 0.0
        for j in range(m):
            total += loads[j]
        # Sums of weights such as 0.1 miss the half by rounding, and a miss would turn the
        # midpoint of two values into one of them.
        slack = 1e-15 * n_teachers * total
        below = 0.0
        out[i] = np.nan
        for j in range(m):
            below += loads[j]
            if below >= 0.5 * total - slack:
                out[i] = values[j]
                if below <= 0.5 * total + slack and j + 1 < m:
                    out[i] = 0.5 * (values[j] + values[j + 1])
                break


@njit(cache=True, nogil=True)
def _trimmed_mean(members, weights, fraction, out):  # type: ignore[no-untyped-def]
    """Write the mean of each entry without `fraction` of the weight at either end."""
    n_teachers = members.shape[0]
    values, loads = np.empty(n_teachers), np.empty(n_teachers)
    for i in range(members.shape[1]):
        m = _gather(members, i, weights, values, loads)
        total = 0.0
        for j in range(m):
            total += loads[j]
        low, high, slack = fraction * total, (1.0 - fraction) * total, 1e-15 * n_teachers * total
        below, kept, weighted = 0.0, 0.0, 0.0
        for j in range(m):
            part = min(below + loads[j], high) - max(below, low)
            below += loads[j]
            if part > slack:  # less is rounding, and times infinity it would not be harmless
                kept += part
                weighted += part * values[j]
        out[i] = weighted / kept if kept > 0.0 else np.nan


def _robust(kernel: Callable[..., None], members: Any, weights: Any, fraction: float) -> np.ndarray:
    """Run a kernel that needs all predictions of an entry at once, block by block."""
    array = checked_members(members)
    loads = checked_weights(weights, len(array))
    out = np.empty(array.shape[1:])
    for rows, block in blocks(array):
        kernel(block, loads, fraction, out[rows].reshape(-1))
    return out


def stacked_median(members: Any, weights: Any = None) -> np.ndarray:
    """Weighted median over the first axis.

    The smallest prediction that has at least half of the weight at or below it; where exactly
    half lies there, the midpoint of it and the next one. So equal weights give `numpy.median`,
    and a teacher of weight N counts like N copies of it.

    Parameters
    ----------
    members : array_like of shape (n_teachers, n_samples, *k)
        Predictions; NaN entries are left out. Never copied as a whole.
    weights : array_like of shape (n_teachers,), default=None
        Weights >= 0, in any scale; None weights all alike.

    Returns
    -------
    ndarray of shape (n_samples, *k), float64
        The medians, in the unit of the predictions; NaN where no teacher covers the entry.

    Raises
    ------
    InvalidInputError
        If there is no teacher, or the weights are negative, all zero or of another number.
    """
    return _robust(_median, members, weights, 0.5)


def stacked_trimmed_mean(members: Any, weights: Any = None, fraction: float = 0.1) -> np.ndarray:
    """Weighted mean over the first axis without the lowest and the highest predictions.

    Parameters
    ----------
    members : array_like of shape (n_teachers, n_samples, *k)
        Predictions; NaN entries are left out. Never copied as a whole.
    weights : array_like of shape (n_teachers,), default=None
        Weights >= 0, in any scale; None weights all alike.
    fraction : float, default=0.1
        Share of the total weight to cut off at each end, at least 0 and below 0.5. A teacher at
        the edge counts with the part of its weight that is left, so that the result is
        continuous in `fraction`, and equals `scipy.stats.trim_mean` where a whole number of
        equally weighted teachers is cut off.

    Returns
    -------
    ndarray of shape (n_samples, *k), float64
        The trimmed means, in the unit of the predictions; NaN where no teacher covers the entry.

    Raises
    ------
    InvalidInputError
        If there is no teacher, the weights are negative, all zero or of another number, or
        `fraction` is out of range.
    """
    if not 0 <= fraction < 0.5 - 1e-9:
        msg = (
            f"fraction must be at least 0 and below 0.5, got {fraction}; use stacked_median at 0.5"
        )
        raise InvalidInputError(msg)
    return _robust(_trimmed_mean, members, weights, float(fraction))
