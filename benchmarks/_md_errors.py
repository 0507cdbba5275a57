"""Root mean square errors with bootstraps over structures, which the benchmarks of md share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scikd.md.frames import AtomicBatch

__all__ = ["Errors", "interval", "of_atoms", "of_structures"]

BOOTSTRAPS = 400


class Errors(NamedTuple):
    """A root mean square error, and what it is when structures are drawn anew.

    Those of two models on the same structures have the same draws: they are paired.
    """

    rmse: float
    drawn: np.ndarray


def of_structures(squares: np.ndarray, entries: np.ndarray) -> Errors:
    """Return the errors, given sums of squares and their numbers of entries by structure."""
    random = np.random.default_rng(0)
    draws = random.integers(len(entries), size=(BOOTSTRAPS, len(entries)))
    drawn = np.sqrt(squares[draws].sum(1) / entries[draws].sum(1))
    return Errors(float(np.sqrt(squares.sum() / entries.sum())), drawn)


def of_atoms(labels: AtomicBatch, error: np.ndarray) -> Errors:
    """Return the errors, given those of vectors by atom (n_atoms, 3)."""
    squares = np.bincount(labels.batch.numpy(), np.square(error).sum(1))
    return of_structures(squares, 3.0 * labels.counts.numpy())


def interval(drawn: np.ndarray) -> dict[str, float]:
    """Return the bounds of 95 % of what was drawn, as keys of a row."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}
