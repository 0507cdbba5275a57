"""Consecutive runs of entries: where each begins, which are meant, and the entries of those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["chosen", "pointers", "take_runs"]

MOST_SHOWN = 10  # numbers in one message


def pointers(counts: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return where each run of these lengths begins, and where the last one ends, int64."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def chosen(indices: Any, n: int, what: str) -> np.ndarray:
    """Return which of n things are meant, int64.

    Parameters
    ----------
    indices : array-like of int, or of bool
        Numbers from 0, where negative ones count from the end; or True for each, shape (n,).
    n : int
        How many there are.
    what : str
        What they are called in messages.

    Raises
    ------
    InvalidInputError
        If there is none of a number.
    """
    rows = np.asarray(indices)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if not rows.size:
        return np.empty(0, dtype=np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or rows.min() < -n or rows.max() >= n:
        shown = np.array2string(rows, threshold=MOST_SHOWN)
        message = f"Expected numbers of {what} from 0 to {n - 1}, or {n} times bool; got {shown}."
        raise InvalidInputError(message)
    return np.where(rows < 0, rows + n, rows).astype(np.int64)


def take_runs(ptr: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries of some runs, in the order asked for, and where each of them begins."""
    counts = np.diff(ptr)[runs]
    taken = pointers(counts)
    return np.arange(taken[-1]) + np.repeat(ptr[runs] - taken[:-1], counts), taken
