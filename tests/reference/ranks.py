"""Naive twins of `scikd.kernels.ranks`, by counting."""

from __future__ import annotations

import numpy as np


def group_ranks(values, groups=None):
    """Rank by counting smaller and equal values: (smaller + 1 + smaller + equal) / 2."""
    values = np.asarray(values, dtype=float)
    groups = np.zeros(len(values), dtype=int) if groups is None else np.asarray(groups)
    ranks = np.full(len(values), np.nan)
    for i, x in enumerate(values):
        if not np.isnan(x):
            others = values[groups == groups[i]]
            ranks[i] = ((others < x).sum() + 1 + (others <= x).sum()) / 2
    return ranks


def group_sizes(values, groups=None):
    """Count the values of the same group that are not NaN."""
    values = np.asarray(values, dtype=float)
    groups = np.zeros(len(values), dtype=int) if groups is None else np.asarray(groups)
    return np.array([(~np.isnan(values[groups == g])).sum() for g in groups], dtype=int)
