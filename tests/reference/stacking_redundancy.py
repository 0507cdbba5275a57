"""Naive twin of the residual rule of `scikd.stacking.redundancy`, on rows instead of moments."""

from __future__ import annotations

import numpy as np


def keep(P, y, w=None, eps=1e-4, r2=1 - 1e-6):
    """Numbers of the models that stay; no two models may have the same risk."""
    w = np.ones(len(y)) if w is None else np.asarray(w, dtype=float)
    P = np.array(P, dtype=float)
    for row in P:
        row[np.isnan(row)] = np.mean(row[~np.isnan(row)])
    risks = [np.average((P[:, j] - y) ** 2, weights=w) for j in range(P.shape[1])]
    best, *others = np.argsort(risks)
    kept = [best]
    for j in others:
        duplicate = any(
            np.average((P[:, i] - P[:, j]) ** 2, weights=w) <= eps * (risks[i] + risks[j])
            for i in kept
        )
        # Weights that add up to one: that of the best model is what the others leave.
        root = np.sqrt(w / w.sum())
        columns = root[:, None] * (P[:, kept[1:]] - P[:, [best]])
        target = root * (P[:, j] - P[:, best])
        weights = np.linalg.lstsq(columns, target)[0] if len(kept) > 1 else np.zeros(0)
        rest = np.sum((target - columns @ weights) ** 2)
        if not duplicate and rest > (1 - r2) * risks[j]:
            kept.append(j)
    return sorted(kept)
