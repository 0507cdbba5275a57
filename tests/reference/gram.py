"""Naive twins of `scikd.kernels.gram`, one pair of teachers at a time."""

from __future__ import annotations

import numpy as np


def _common(P, w, i, j):
    """Return the two columns and the weights, on the samples of positive weight both cover."""
    P = np.asarray(P, dtype=float)
    w = np.ones(len(P)) if w is None else np.asarray(w, dtype=float)
    both = ~np.isnan(P[:, i]) & ~np.isnan(P[:, j]) & (w > 0)
    return P[both, i], P[both, j], w[both]


def weighted_gram(P, w=None):
    """Sum products and weights over the samples both teachers cover."""
    m = P.shape[1]
    G, W = np.zeros((m, m)), np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            x, y, load = _common(P, w, i, j)
            G[i, j] = (load * x * y).sum()
            W[i, j] = load.sum()
    return G, W


def correlation(P, w=None):
    """Weighted Pearson correlation from its definition."""
    m = P.shape[1]
    result = np.full((m, m), np.nan)
    for i in range(m):
        for j in range(m):
            x, y, load = _common(P, w, i, j)
            if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
                continue
            dx = x - np.average(x, weights=load)
            dy = y - np.average(y, weights=load)
            cov = (load * dx * dy).sum()
            result[i, j] = cov / np.sqrt((load * dx**2).sum() * (load * dy**2).sum())
    return result


def residual_correlation(P, y, w=None):
    """Correlate the columns of P - y."""
    return correlation(np.asarray(P, dtype=float) - np.asarray(y, dtype=float)[:, None], w)
