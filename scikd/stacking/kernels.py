"""Compiled loops of stacking, each over the rows of a prediction matrix."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["combine_rows", "deal_groups", "error_columns", "fill_rows", "hash_rows"]


@njit(cache=True, nogil=True)
def _row_mean(row):  # type: ignore[no-untyped-def]
    """Mean of the numbers in a row that are there; NaN where there is none."""
    total, count = 0.0, 0
    for j in range(len(row)):
        if row[j] == row[j]:
            total += row[j]
            count += 1
    return total / count if count else np.nan


@njit(cache=True, nogil=True)
def fill_rows(block):  # type: ignore[no-untyped-def]
    """Replace NaN by the mean of the row, in place; rows without any number stay as they are.

    Parameters
    ----------
    block : ndarray of shape (n_rows, n_models) or (n_rows, n_models, n_classes)
        Predictions. Of classes, each is filled by its own mean over the models.
    """
    flat = block.reshape(block.shape[0], block.shape[1], -1)
    for r in range(flat.shape[0]):
        for c in range(flat.shape[2]):
            row = flat[r, :, c]
            whole = True
            for j in range(len(row)):
                whole &= row[j] == row[j]
            if whole:
                continue
            mean = _row_mean(row)
            for j in range(len(row)):
                if row[j] != row[j]:
                    row[j] = mean


@njit(cache=True, nogil=True)
def error_columns(block, y, w, out):  # type: ignore[no-untyped-def]
    """Write ``[P - y, y]``, NaN filled by the mean of the row.

    Parameters
    ----------
    block : ndarray of shape (n_rows, n_models)
        Predictions; NaN where missing.
    y : ndarray of shape (n_rows,)
        Targets.
    w : ndarray of shape (n_rows,)
        Weights; set to 0 for rows without any prediction.
    out : ndarray of shape (n_rows, n_models + 1)
        Where to write; rows of weight 0 become 0.
    """
    n_models = block.shape[1]
    for r in range(block.shape[0]):
        row, truth, z = block[r], y[r], out[r]
        if w[r] == 0.0:
            z[:] = 0.0
            continue
        check = 0.0
        for j in range(n_models):
            z[j] = row[j] - truth
        z[n_models] = truth
        for j in range(n_models):
            check += z[j]
        if not math.isnan(check):
            continue
        mean = _row_mean(row)
        if math.isnan(mean):
            w[r] = 0.0
            z[:] = 0.0
            continue
        for j in range(n_models):
            if row[j] != row[j]:
                z[j] = mean - truth


@njit(cache=True, nogil=True)
def combine_rows(block, weights, intercept, out):  # type: ignore[no-untyped-def]
    """Write ``intercept + P @ weights``, NaN filled by the mean of the row.

    Parameters
    ----------
    block : ndarray of shape (n_rows, n_models)
        Predictions; NaN where missing.
    weights : ndarray of shape (n_models,)
        Weights of the models.
    intercept : float
        Added to every row.
    out : ndarray of shape (n_rows,)
        Where to write; NaN for rows without any prediction.
    """
    for r in range(block.shape[0]):
        row = block[r]
        total = 0.0
        for j in range(len(row)):
            total += weights[j] * row[j]
        if math.isnan(total):
            mean = _row_mean(row)
            total = 0.0
            for j in range(len(row)):
                total += weights[j] * (row[j] if row[j] == row[j] else mean)
        out[r] = intercept + total


@njit(cache=True, nogil=True)
def hash_rows(block, bits, out):  # type: ignore[no-untyped-def]
    """Hash rows so that equal rows get equal numbers; +0 equals -0, and NaN equals NaN.

    Parameters
    ----------
    block : ndarray of shape (n_rows, n_columns), float64
        The rows.
    bits : ndarray of shape (n_rows, n_columns), uint64
        The same numbers, bit by bit.
    out : ndarray of shape (n_rows,), uint64
        Hashes to go on from, and where to write.
    """
    prime, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
    zero, missing = np.uint64(0), np.uint64(0x7FF8000000000000)
    for r in range(block.shape[0]):
        number = out[r]
        for j in range(block.shape[1]):
            x, bit = block[r, j], bits[r, j]
            if x == 0.0:
                bit = zero
            elif math.isnan(x):
                bit = missing
            number = (number ^ bit) * prime
            number ^= number >> shift
        out[r] = number


@njit(cache=True, nogil=True)
def deal_groups(order, load, label, n_labels, n_folds):  # type: ignore[no-untyped-def]
    """Deal groups in turn to the fold with the least load of their label so far, then of all.

    Parameters
    ----------
    order : ndarray of shape (n_groups,)
        In which order to deal.
    load : ndarray of shape (n_groups,)
        Weight of each group.
    label : ndarray of shape (n_groups,)
        Number of the label of each group.
    n_labels, n_folds : int
        How many there are.

    Returns
    -------
    ndarray of shape (n_groups,)
        The fold of each group.
    """
    by_label = np.zeros((n_labels, n_folds))
    total = np.zeros(n_folds)
    fold = np.empty(len(order), dtype=np.intp)
    for g in order:
        mine = by_label[label[g]]
        best = 0
        for k in range(1, n_folds):
            if mine[k] < mine[best] or (mine[k] == mine[best] and total[k] < total[best]):
                best = k
        fold[g] = best
        mine[best] += load[g]
        total[best] += load[g]
    return fold
