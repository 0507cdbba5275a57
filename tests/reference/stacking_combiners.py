"""Naive twins of the combiners of `scikd.stacking`: row by row, refit by refit."""

from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_t


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


def ridge_columns(P, whole, w, power, sum_to_one):
    """The columns whose weights are penalised alike, and what they are added to.

    Predictions, centred, and a constant as large as their sum; or, if the weights must add up to
    one, their differences. Directions in which predictions differ are evened out by a power.
    """
    n_models, scale = P.shape[1], scale_of(whole, w)
    differences = whole - whole.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh((differences.T * w) @ differences / w.sum())
    there = values > 1e-12 * values.max()
    factors = np.zeros(n_models)
    factors[there] = (values[there] / scale) ** (-power / 2)
    mean = P.mean(axis=1)
    even = (P - mean[:, None]) @ (vectors * factors) @ vectors.T
    if sum_to_one:
        return even, mean
    centre = np.average(whole.mean(axis=1), weights=w)
    spread = np.average((whole.mean(axis=1) - centre) ** 2, weights=w)
    constant = np.full(len(P), np.sqrt(scale + n_models * spread))
    return np.column_stack([even + (mean - centre)[:, None], constant]), mean


def shrunk_ridge(P, y, w, alpha, whole, w_whole, **shape):
    """Return what predicts, at one penalty, by least squares on rows and penalties."""
    X, mean = ridge_columns(P, whole, w_whole, **shape)
    penalty = alpha * scale_of(whole, w_whole) * w_whole.sum()
    root = np.sqrt(w)
    rows = np.vstack([root[:, None] * X, np.sqrt(penalty) * np.eye(X.shape[1])])
    target = np.concatenate([root * (y - mean), np.zeros(X.shape[1])])
    v = np.linalg.lstsq(rows, target, rcond=None)[0]

    def predict(P):
        X, mean = ridge_columns(P, whole, w_whole, **shape)
        return mean + X @ v

    return predict


def left_out_losses(P, y, w, alphas, parts, **shape):
    """Mean squared error of every penalty on parts that are left out, by explicit refits."""
    losses = []
    for alpha in alphas:
        loss = 0.0
        for part in parts:
            rest = np.setdiff1d(np.arange(len(y)), part)
            predict = shrunk_ridge(P[rest], y[rest], w[rest], alpha, P, w, **shape)
            loss += (w[part] * (predict(P[part]) - y[part]) ** 2).sum()
        losses.append(loss / w.sum())
    return np.array(losses)


def surprises(P, y, alphas, **shape):
    """Minus the log density of the targets per row, of every penalty.

    Noise of unknown variance, with one row's worth of belief in the error of the mean, makes the
    normal distribution one of Student, with one degree of freedom.
    """
    ones = np.ones(len(y))
    X, mean = ridge_columns(P, P, ones, **shape)
    found = []
    for alpha in alphas:
        matrix = np.eye(len(y)) + X @ X.T / (alpha * scale_of(P, ones) * len(y))
        target = multivariate_t(mean, np.mean((y - mean) ** 2) * matrix, df=1)
        found.append(-target.logpdf(y) / len(y))
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
