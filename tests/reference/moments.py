"""Naive twins of `scikd.kernels.moments`, one entry at a time."""

from __future__ import annotations

import numpy as np


def _entries(members, weights, *, skip_missing):
    """Yield (index, present values, their weights) of each entry of the result."""
    members = np.asarray(members, dtype=float)
    weights = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=float)
    for index in np.ndindex(members.shape[1:]):
        values = members[(slice(None), *index)]
        used = weights > 0
        if skip_missing:
            used = used & ~np.isnan(values)
        yield index, values[used], weights[used]


def moments(members, weights=None, *, skip_missing=False):
    """Mean, population standard deviation and number of members, from their definitions."""
    shape = np.shape(members)[1:]
    mean, std, count = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=int)
    for index, x, w in _entries(members, weights, skip_missing=skip_missing):
        count[index] = len(x)
        if len(x):
            mean[index] = (w * x).sum() / w.sum()
            std[index] = np.sqrt((w * (x - mean[index]) ** 2).sum() / w.sum())
    return mean, std, count


def median(members, weights=None):
    """Median of the predictions with each copied as often as its (whole) weight says."""
    result = np.full(np.shape(members)[1:], np.nan)
    for index, x, w in _entries(members, weights, skip_missing=True):
        if len(x):
            result[index] = np.median(np.repeat(x, w.astype(int)))
    return result


def trimmed_mean(members, weights=None, fraction=0.1, *, fine=1000):
    """Trimmed mean of the predictions with each copied `fine` times its (whole) weight.

    Exact where `fraction` times `fine` is a whole number.
    """
    result = np.full(np.shape(members)[1:], np.nan)
    for index, x, w in _entries(members, weights, skip_missing=True):
        if len(x):
            copies = np.sort(np.repeat(x, w.astype(int) * fine))
            cut = round(fraction * len(copies))
            result[index] = copies[cut : len(copies) - cut].mean()
    return result


def class_statistics(probas, weights, floor=1e-12):
    """Return (mean, log_pool_logits, votes, expected_entropy, n_members), row by row."""
    n_samples, n_classes = probas[0].shape
    mean, logs, votes = (np.full((n_samples, n_classes), np.nan) for _ in range(3))
    entropy, count = np.full(n_samples, np.nan), np.zeros(n_samples, dtype=int)
    for i in range(n_samples):
        rows = [
            (np.asarray(p[i], dtype=float), w)
            for p, w in zip(probas, weights, strict=True)
            if w > 0 and not np.isnan(p[i]).any()
        ]
        count[i] = len(rows)
        if not rows:
            continue
        total = sum(w for _, w in rows)
        mean[i] = sum(w * p for p, w in rows) / total
        logs[i] = sum(w * np.log(np.maximum(p, floor)) for p, w in rows) / total
        votes[i] = sum(w * (np.arange(n_classes) == p.argmax()) for p, w in rows) / total
        entropy[i] = -sum(w * (p * np.log(np.maximum(p, floor))).sum() for p, w in rows) / total
    return mean, logs, votes, entropy, count
