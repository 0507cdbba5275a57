"""Where each of consecutive runs begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pointers"]


def pointers(counts: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return where each run of these lengths begins, and where the last one ends, int64."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
