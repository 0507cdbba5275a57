"""Naive twins of the combiners of `scikd.stacking`: row by row, refit by refit."""

from __future__ import annotations

import numpy as np


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


def contrasts(P):
    """Predictions less the mean of the row, and that mean."""
    mean = P.mean(axis=1)
    return P - mean[:, None], mean


def scale_of(P, w):
    """Mean over M - 1 directions of the mean square of ``p_j - mean(P)``."""
    D, _ = contrasts(P)
    return sum(np.average(d**2, weights=w) for d in D.T) / (P.shape[1] - 1)


def shrunk_ridge(P, y, w, penalty, scale):
    """Weights and intercept at one absolute penalty, by least squares on rows and penalties."""
    D, mean = contrasts(P)
    X = np.column_stack([D, np.full(len(y), np.sqrt(scale))])
    root = np.sqrt(w)
    rows = np.vstack([root[:, None] * X, np.sqrt(penalty) * np.eye(X.shape[1])])
    target = np.concatenate([root * (y - mean), np.zeros(X.shape[1])])
    v = np.linalg.lstsq(rows, target, rcond=None)[0]
    return 1 / P.shape[1] + v[:-1] - v[:-1].mean(), np.sqrt(scale) * v[-1]


def left_out_losses(P, y, w, alphas, parts):
    """Mean squared error of every penalty on parts that are left out, by explicit refits."""
    scale, total = scale_of(P, w), w.sum()
    losses = []
    for alpha in alphas:
        loss = 0.0
        for part in parts:
            rest = np.setdiff1d(np.arange(len(y)), part)
            weights, b = shrunk_ridge(P[rest], y[rest], w[rest], alpha * scale * total, scale)
            loss += (w[part] * (P[part] @ weights + b - y[part]) ** 2).sum()
        losses.append(loss / total)
    return np.array(losses)


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
