"""Naive twins of the combiners of `scikd.stacking`: row by row, refit by refit."""

from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_normal


def filled(P):
    """Replace what is missing by the mean of the models present in the row."""
    P = np.array(P, dtype=float)
    for row in P:
        there = ~np.isnan(row)
        if there.any():
            row[~there] = row[there].mean()
    return P


def moments(P, y, w=None):
    """Weight, mean and scatter of ``[P - y, y]``, over rows that count."""
    P, y = filled(P), np.asarray(y, dtype=float)
    w = np.ones(len(y)) if w is None else np.asarray(w, dtype=float)
    rows = [
        (w[i], np.append(P[i] - y[i], y[i]))
        for i in range(len(y))
        if w[i] > 0 and not np.isnan(P[i]).any()
    ]
    weight = sum(load for load, _ in rows)
    mean = sum(load * z for load, z in rows) / weight
    scatter = sum(load * np.outer(z - mean, z - mean) for load, z in rows)
    return weight, mean, scatter


def scale_of(P, w):
    """Mean over M - 1 directions of the mean square of ``p_j - mean(P)``."""
    D = P - P.mean(axis=1, keepdims=True)
    return sum(np.average(d**2, weights=w) for d in D.T) / (P.shape[1] - 1)


def ridge_columns(P, whole, w, sum_to_one):
    """Predictions, centred, and a constant as large as their sum; and what they are added to.

    Or, if the weights must add up to one, the differences to their mean.
    """
    if sum_to_one:
        return P - P.mean(axis=1, keepdims=True), P.mean(axis=1)
    of_whole = whole.mean(axis=1)
    centre = np.average(of_whole, weights=w)
    spread = np.average((of_whole - centre) ** 2, weights=w)
    constant = np.sqrt(scale_of(whole, w) + P.shape[1] * spread)
    return np.column_stack([P - centre, np.full(len(P), constant)]), P.mean(axis=1)


def shrunk_ridge(P, y, w, alpha, whole, w_whole, *, sum_to_one):
    """Return what predicts, at one penalty, by least squares on rows and penalties."""
    X, mean = ridge_columns(P, whole, w_whole, sum_to_one)
    root = np.sqrt(w)
    penalty = alpha * scale_of(whole, w_whole) * w_whole.sum()
    rows = np.vstack([root[:, None] * X, np.sqrt(penalty) * np.eye(X.shape[1])])
    target = np.concatenate([root * (y - mean), np.zeros(X.shape[1])])
    v = np.linalg.lstsq(rows, target, rcond=None)[0]

    def predict(P):
        X, mean = ridge_columns(P, whole, w_whole, sum_to_one)
        return mean + X @ v

    return predict


def left_out_losses(P, y, w, alphas, parts, *, sum_to_one):
    """Mean squared error of every penalty on parts that are left out, by explicit refits."""
    losses = []
    for alpha in alphas:
        loss = 0.0
        for part in parts:
            rest = np.setdiff1d(np.arange(len(y)), part)
            given = (P[rest], y[rest], w[rest])
            predict = shrunk_ridge(*given, alpha, P, w, sum_to_one=sum_to_one)
            loss += (w[part] * (predict(P[part]) - y[part]) ** 2).sum()
        losses.append(loss / w.sum())
    return np.array(losses)


def surprises(P, y, alphas, *, sum_to_one):
    """Minus the log density of the targets per row, at the likeliest noise; of every penalty."""
    ones = np.ones(len(y))
    X, mean = ridge_columns(P, P, ones, sum_to_one)
    found = []
    for alpha in alphas:
        shape = np.eye(len(y)) + X @ X.T / (alpha * scale_of(P, ones) * len(y))
        noise = (y - mean) @ np.linalg.solve(shape, y - mean) / len(y)
        found.append(-multivariate_normal.logpdf(y, mean, noise * shape) / len(y))
    return np.array(found)


def caruana(P, y, n_steps):
    """Ensemble selection with replacement, its best prefix; losses are root mean squared errors.

    Ties as in AutoGluon: losses are rounded to six decimals, and models already taken go first.
    """
    taken, trajectory = [], []
    for step in range(n_steps):
        losses = np.empty(P.shape[1])
        for j in range(P.shape[1]):
            average = P[:, [*taken, j]].mean(axis=1)
            losses[j] = np.sqrt(np.mean((average - y) ** 2))
        if step:
            losses = losses.round(6)
        tied = [j for j in range(P.shape[1]) if np.isclose(losses[j], losses.min(), 1e-12, 0)]
        tied = [j for j in tied if j in taken] or tied
        taken.append(tied[0])
        trajectory.append(round(losses[tied[0]], 6))
    length = trajectory.index(min(trajectory)) + 1
    return np.bincount(taken[:length], minlength=P.shape[1]) / length, trajectory
