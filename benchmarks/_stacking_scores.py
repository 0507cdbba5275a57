"""Losses of combined predictions, and how sure one is of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

__all__ = ["Scores", "calibration_error", "mean_ranks", "row_losses", "score"]

DRAWS = 1000
BLOCK = 50
BINS = 15


def row_losses(y: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return squared errors, or for probabilities minus the logarithm of the true class's.

    Probabilities below the smallest step of a double are raised to it, as scikit-learn does.
    """
    if prediction.ndim == 1:
        return (y - prediction) ** 2
    true = prediction[np.arange(len(y)), y]
    return -np.log(np.clip(true, np.finfo(float).eps, 1.0))


def calibration_error(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected calibration error: of the likeliest class, in 15 bins of as many rows."""
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == y) - confidence
    order = np.argsort(confidence, kind="stable")
    return float(sum(abs(gap[rows].sum()) for rows in np.array_split(order, BINS)) / len(y))


@dataclass(frozen=True, eq=False)
class Scores:
    """Losses of all contestants on the splits of one pool.

    Attributes
    ----------
    names : tuple of str
        The contestants.
    losses : ndarray of shape (n_splits, n_contestants)
        Test RMSE or log-loss.
    drawn : ndarray of shape (n_draws, n_contestants)
        Their mean over the splits, when rows of the table are drawn anew. A row has the same weight
        in each split that tests it, and for each contestant; so differences are paired.
    """

    names: tuple[str, ...]
    losses: np.ndarray
    drawn: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean loss over the splits, for each contestant."""
        return self.losses.mean(axis=0)

    def difference(self, name: str, other: str) -> tuple[float, float, float, float]:
        """Return loss minus the other's, its standard error, and the ends of its 95 % interval."""
        one, two = (self.names.index(key) for key in (name, other))
        drawn = self.drawn[:, one] - self.drawn[:, two]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return float(self.mean[one] - self.mean[two]), float(drawn.std()), float(low), float(high)


def score(
    losses: Sequence[Mapping[str, np.ndarray]], row_ids: Sequence[np.ndarray], *, root: bool
) -> Scores:
    """Score contestants by their losses of the test rows of every split.

    Parameters
    ----------
    losses : sequence of mapping
        For every split the row losses of each contestant; the same contestants everywhere.
    row_ids : sequence of ndarray
        For every split which rows of the table these are. Rows of one id are drawn together.
    root : bool
        Whether the loss is the root of the mean.
    """
    names = tuple(losses[0])
    known = np.unique(np.concatenate(row_ids))
    sums, counts = [], []
    for split, row_id in zip(losses, row_ids, strict=True):
        rows = np.searchsorted(known, row_id)
        columns = [np.bincount(rows, split[name], len(known)) for name in names]
        sums.append(np.stack(columns, axis=1))
        counts.append(np.bincount(rows, minlength=len(known)))

    def weighted(weights: np.ndarray) -> np.ndarray:
        """Return losses of shape (n_splits, n_weights, n_contestants)."""
        parts = zip(sums, counts, strict=True)
        means = np.stack([weights @ total / (weights @ n)[:, None] for total, n in parts])
        return np.sqrt(means) if root else means

    random = np.random.default_rng(0)
    drawn = [
        weighted(random.poisson(1.0, (BLOCK, len(known))).astype(float)).mean(axis=0)
        for _ in range(DRAWS // BLOCK)
    ]
    return Scores(names, weighted(np.ones((1, len(known))))[:, 0], np.concatenate(drawn))


def mean_ranks(pools: Sequence[Scores]) -> dict[str, float]:
    """Return the mean rank over pools of each contestant that is in all of them; 1 is best."""
    names = [name for name in pools[0].names if all(name in one.names for one in pools)]
    ranks = [rankdata([one.mean[one.names.index(name)] for name in names]) for one in pools]
    return dict(zip(names, np.mean(ranks, axis=0).tolist(), strict=True))
