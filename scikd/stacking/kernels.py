"""Compiled loops of stacking, each over the rows of a prediction matrix."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "add_left_out",
    "combine_rows",
    "deal_groups",
    "elastic_net_path",
    "error_columns",
    "fill_rows",
    "greedy_steps",
    "hash_rows",
]


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


# Where a fit goes through a row, 0 / 0 is NaN and no error.
@njit(cache=True, nogil=True, error_model="numpy")
def add_left_out(target, fits, leverage, share, w, losses):  # type: ignore[no-untyped-def]
    """Add the squared errors of rows that are left out of linear fits.

    Parameters
    ----------
    target : ndarray of shape (n_rows,)
        What was fitted.
    fits : ndarray of shape (n_rows, n_fits)
        By fits to all rows.
    leverage : ndarray of shape (n_rows, n_fits)
        Pull of a row of weight 1 on its own fit.
    share, w : ndarray of shape (n_rows,)
        Weight that pulls and is left out, and weight of the loss.
    losses : ndarray of shape (n_fits,)
        To add to.
    """
    for r in range(len(target)):
        for k in range(len(losses)):
            rest = (target[r] - fits[r, k]) / (1.0 - share[r] * leverage[r, k])
            losses[k] += w[r] * (rest * rest)


@njit(cache=True, nogil=True)
def greedy_steps(errors, n_steps, tie):  # type: ignore[no-untyped-def]
    """Add models to an average, each time that which lessens the squared error most.

    Parameters
    ----------
    errors : ndarray of shape (n_models, n_models)
        Mean products of the errors of two models.
    n_steps : int
        How many to add.
    tie : float
        Losses closer than this share of the best are alike: a model already taken goes first,
        then the better alone, then the first.

    Returns
    -------
    order : ndarray of shape (n_steps,)
        The models.
    losses : ndarray of shape (n_steps,)
        Mean squared error of the average after every step.
    """
    n_models = errors.shape[0]
    with_total = np.zeros(n_models)  # mean products with the sum of those taken
    own = 0.0  # mean square of that sum
    used = np.zeros(n_models, dtype=np.bool_)
    order, losses = np.empty(n_steps, dtype=np.intp), np.empty(n_steps)
    loss = np.empty(n_models)
    for step in range(n_steps):
        best = np.inf
        for j in range(n_models):
            loss[j] = (own + 2.0 * with_total[j] + errors[j, j]) / ((step + 1) * (step + 1))
            best = min(best, loss[j])
        limit = best + tie * abs(best)
        chosen = -1
        for j in range(n_models):
            if loss[j] > limit:
                continue
            better = chosen < 0 or (used[j] and not used[chosen])
            if not better and used[j] == used[chosen]:
                better = errors[j, j] < errors[chosen, chosen]
            if better:
                chosen = j
        order[step], losses[step] = chosen, loss[chosen]
        used[chosen] = True
        own += 2.0 * with_total[chosen] + errors[chosen, chosen]
        for j in range(n_models):
            with_total[j] += errors[chosen, j]
    return order, losses


@njit(cache=True, nogil=True)
def _advance(products, target, ridge, w, sign):  # type: ignore[no-untyped-def]
    """Go towards the minimum within the signs; return the weight that became zero, or -1."""
    active = np.flatnonzero(sign)
    equations = products[active][:, active]
    for i in range(len(active)):
        equations[i, i] += ridge
    best = np.linalg.solve(equations, target[active])
    share, leaving = 1.0, -1
    for i in range(len(active)):
        j = active[i]
        if best[i] * sign[j] <= 0.0:
            reach = w[j] / (w[j] - best[i]) if w[j] != best[i] else 0.0
            if reach < share:
                share, leaving = reach, j
    for i in range(len(active)):
        w[active[i]] += share * (best[i] - w[active[i]])
    if leaving >= 0:
        w[leaving] = sign[leaving] = 0.0
    return leaving, share


@njit(cache=True, nogil=True)
def elastic_net_path(products, slopes, l1, l2):  # type: ignore[no-untyped-def]
    """Minimise ``w @ products @ w / 2 - slopes @ w + l1 * sum(abs(w)) + l2 * sum(w**2) / 2``.

    By active sets: within known signs the minimum is that of linear equations. A step towards it
    ends where the first weight becomes zero, which leaves the set; at the minimum that weight joins
    whose gradient is steepest. Exact after finitely many steps, however alike the columns are.

    Parameters
    ----------
    products : ndarray of shape (n_models, n_models)
        Mean products of the centred predictions.
    slopes : ndarray of shape (n_models,)
        Mean products of centred predictions and target.
    l1, l2 : ndarray of shape (n_penalties,)
        Penalties, best in falling order: each starts from the solution of the one before.

    Returns
    -------
    ndarray of shape (n_models, n_penalties)
    """
    n = len(slopes)
    # Below this a gradient is rounding; equal columns need the jitter for their equations.
    tolerance = 1e-11 * np.abs(slopes).max()
    jitter = 4e-16 * n * np.diag(products).max()
    w, sign = np.zeros(n), np.zeros(n)
    path = np.empty((n, len(l1)))
    for step in range(len(l1)):
        barred = np.zeros(n, dtype=np.bool_)
        for _ in range(20 * n + 20):
            if sign.any():
                target = slopes - l1[step] * sign
                leaving, share = _advance(products, target, l2[step] + jitter, w, sign)
                if leaving >= 0:
                    barred[leaving] |= share == 0.0  # it had joined by rounding alone
                    continue
            gradient = slopes - products @ w
            steepness = np.where((sign != 0.0) | barred, 0.0, np.abs(gradient))
            joining = np.argmax(steepness)
            if steepness[joining] <= l1[step] + tolerance:
                break
            sign[joining] = np.sign(gradient[joining])
        path[:, step] = w
    return path
