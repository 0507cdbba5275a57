"""Consecutive runs of entries: where each begins, and the entries of some of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pointers", "take_runs"]


def pointers(counts: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return where each run of these lengths begins, and where the last one ends, int64."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def take_runs(ptr: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries of the chosen runs, in the order asked for, and where each run begins."""
    counts = np.diff(ptr)[chosen]
    taken = pointers(counts)
    return np.arange(taken[-1]) + np.repeat(ptr[chosen] - taken[:-1], counts), taken
