"""Ways to combine predictions of classes: pools of probabilities, fitted to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from scikd.stacking._cubes import blocks
from scikd.stacking._levels import Candidates, Level
from scikd.stacking._pool import ClassPool
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem
from scikd.stacking.comparison import choose
from scikd.stacking.log_pool import LogPool
from scikd.stacking.pools import BestPool, GreedyPool, LinearPool, MeanPool
from scikd.stacking.redundancy import RedundancyFilter

__all__ = ["ClassCandidates", "PooledClasses", "standard_pools"]

_CLIP = 1e-15


def standard_pools(random_state: int) -> dict[str, ClassPool]:
    """Return the pools that have names, unfitted, the simplest first."""
    return {
        "mean": MeanPool(),
        "best_single": BestPool(),
        "linear": LinearPool(),
        "greedy": GreedyPool(random_state=random_state),
        "log": LogPool(random_state=random_state),
    }


@dataclass(frozen=True, eq=False)
class PooledClasses:
    """A fitted pool, and the models that it knows.

    Attributes
    ----------
    pool : ClassPool
        Learnt from the models in `columns`.
    columns : ndarray of int
        The models that stay; sorted by error where a filter chose them.
    n_models : int
        Of how many.
    redundancy : RedundancyFilter or None
        The filter, fitted to the same rows.
    """

    pool: ClassPool
    columns: np.ndarray
    n_models: int
    redundancy: RedundancyFilter | None

    def predict_proba(self, cube: Predictions) -> np.ndarray:
        """Return probabilities of shape (n_samples, n_classes), NaN where no model has any."""
        result = np.empty((cube.n_samples, cube.values.shape[2]))
        for rows, block in blocks(cube):
            kept = np.ascontiguousarray(block[:, self.columns])  # which the pool may fill
            result[rows] = self.pool._pool(kept)
        return result

    @property
    def weights(self) -> np.ndarray:
        """Weights of all models, shape (n_models,)."""
        weights = np.zeros(self.n_models)
        weights[self.columns] = self.pool.weights_
        return weights

    @property
    def needed(self) -> np.ndarray:
        """True for the models that have any say, shape (n_models,)."""
        needed = self.weights != 0
        needed[self.columns] |= getattr(self.pool, "centre_weights_", np.zeros(1)) != 0
        return needed


class ClassCandidates(Candidates):
    """Pools of class probabilities, and ``"auto"``, which chooses among them.

    Parameters
    ----------
    pools : mapping of str to ClassPool
        The simplest first.
    redundancy : RedundancyFilter or None
        Drops models, anew at every level.
    random_state : int
        Deals groups of rows to bins.
    """

    def __init__(
        self, pools: Mapping[str, ClassPool], redundancy: RedundancyFilter | None, random_state: int
    ) -> None:
        self.names = tuple(pools)
        self.random_state = random_state
        self._pools = pools
        self._redundancy = redundancy

    def fit(self, name: str, level: Level) -> PooledClasses:
        """Learn from a level."""
        if name == "auto":
            found: PooledClasses = level.fitted(choose(level)).model
            return found
        problem = level.problem.take(level.rows)
        redundancy, columns = level.once("kept", lambda: self._kept(problem))
        P = problem.P.select(columns)
        pool = clone(self._pools[name]).fit(
            P,
            np.asarray(P.classes)[problem.y],
            problem.weight,
            fold=level.fold,
            groups=problem.groups,
        )
        return PooledClasses(pool, columns, problem.P.n_models, redundancy)

    def used(self, model: PooledClasses) -> int:
        """Return how many models have a say."""
        return int(np.count_nonzero(model.needed))

    def losses(self, problem: Problem, rows: np.ndarray, models: Sequence[Any]) -> np.ndarray:
        """Return log-losses."""
        return -np.log(np.maximum(_truth_given(problem, rows, models), _CLIP))

    def _kept(self, problem: Problem) -> tuple[RedundancyFilter | None, np.ndarray]:
        if self._redundancy is None:
            return None, np.arange(problem.P.n_models)
        fitted = clone(self._redundancy).solve(problem)
        return fitted, fitted.order_[fitted.kept_[fitted.order_]]


def _truth_given(problem: Problem, rows: np.ndarray, models: Sequence[Any]) -> np.ndarray:
    """Return what pools give to the true class, shape (n_rows, n_pools)."""
    cube, truth = problem.P.take(rows), problem.y[rows, None]
    columns = [
        np.take_along_axis(model.predict_proba(cube), truth, axis=1)[:, 0] for model in models
    ]
    return np.stack(columns, axis=1)
