"""Ways to combine predictions of classes: pools of probabilities, fitted to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from scikd.stacking._cubes import blocks
from scikd.stacking._levels import Candidates, Level
from scikd.stacking._likelihood import linear_weights
from scikd.stacking._pool import ClassPool
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem
from scikd.stacking.comparison import choose
from scikd.stacking.log_pool import LogPool
from scikd.stacking.pools import BestPool, GreedyPool, LinearPool, MeanPool
from scikd.stacking.redundancy import RedundancyFilter

__all__ = ["BLENDED", "ClassCandidates", "PooledClasses", "standard_pools"]

BLENDED = ("mean", "log")
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
    """Fitted pools, and their shares in the mean of what they say.

    Attributes
    ----------
    shares : dict of str to float
        They add up to one.
    pools : dict of str to ClassPool
        Each learnt from the models in `columns`.
    columns : ndarray of int
        The models that stay, sorted by error.
    n_models : int
        Of how many.
    redundancy : RedundancyFilter or None
        The filter, fitted to the same rows.
    """

    shares: dict[str, float]
    pools: dict[str, ClassPool]
    columns: np.ndarray
    n_models: int
    redundancy: RedundancyFilter | None

    def predict_proba(self, cube: Predictions) -> np.ndarray:
        """Return probabilities of shape (n_samples, n_classes), NaN where no model has any."""
        result = np.zeros((cube.n_samples, cube.values.shape[2]))
        for rows, block in blocks(cube):
            for name, pool in self.pools.items():
                kept = np.ascontiguousarray(block[:, self.columns])  # which the pool may fill
                result[rows] += self.shares[name] * pool._pool(kept)
        return result

    @property
    def weights(self) -> np.ndarray:
        """Weights of all models, shape (n_models,): those of the pools, averaged."""
        total = np.zeros(self.n_models)
        for name, pool in self.pools.items():
            total[self.columns] += self.shares[name] * pool.weights_
        return total

    @property
    def needed(self) -> np.ndarray:
        """True for the models that have any say, shape (n_models,)."""
        needed = np.zeros(self.n_models, dtype=bool)
        for pool in self.pools.values():
            parts = [pool.weights_, getattr(pool, "centre_weights_", 0.0) * np.ones(1)]
            needed[self.columns] |= np.logical_or(*[part != 0 for part in parts])
        return needed


class ClassCandidates(Candidates):
    """Pools of class probabilities, and ``"blend"`` and ``"auto"``, which are made of them.

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
        self.names = (*pools, "blend")
        self.random_state = random_state
        self._pools = pools
        self._redundancy = redundancy

    def fit(self, name: str, level: Level) -> PooledClasses:
        """Learn from a level."""
        if name == "auto":
            found: PooledClasses = level.fitted(choose(level)).model
            return found
        return self._blend(level) if name == "blend" else self._single(name, level)

    def used(self, model: PooledClasses) -> int:
        """Return how many models have a say."""
        return int(np.count_nonzero(model.needed))

    def losses(self, problem: Problem, rows: np.ndarray, models: Sequence[Any]) -> np.ndarray:
        """Return log-losses."""
        return -np.log(np.maximum(_truth_given(problem, rows, models), _CLIP))

    def _single(self, name: str, level: Level) -> PooledClasses:
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
        return PooledClasses({name: 1.0}, {name: pool}, columns, problem.P.n_models, redundancy)

    def _kept(self, problem: Problem) -> tuple[RedundancyFilter | None, np.ndarray]:
        if self._redundancy is None:
            return None, np.arange(problem.P.n_models)
        fitted = clone(self._redundancy).solve(problem)
        return fitted, fitted.order_[fitted.kept_[fitted.order_]]

    def _blend(self, level: Level) -> PooledClasses:
        """Average pools by the weights that are best for what they say of held-out rows."""
        names = tuple(name for name in BLENDED if name in self._pools) if level.folds else ("mean",)
        given, weight = [], []
        for k, rows in enumerate(level.folds):
            below = level.without(k)
            models = [below.fitted(name).model for name in names]
            given.append(_truth_given(level.problem, rows, models))
            weight.append(level.problem.weight[rows])
        shares = np.ones(1)
        if given:
            shares = linear_weights(np.concatenate(given), np.concatenate(weight))
        parts = [level.fitted(name).model for name in names]
        pools = {name: part.pools[name] for name, part in zip(names, parts, strict=True)}
        named = dict(zip(names, shares.tolist(), strict=True))
        kept = {name: pool for name, pool in pools.items() if named[name] > 0}
        return replace(parts[0], shares=named, pools=kept)


def _truth_given(problem: Problem, rows: np.ndarray, models: Sequence[Any]) -> np.ndarray:
    """Return what pools give to the true class, shape (n_rows, n_pools)."""
    cube, truth = problem.P.take(rows), problem.y[rows, None]
    columns = [
        np.take_along_axis(model.predict_proba(cube), truth, axis=1)[:, 0] for model in models
    ]
    return np.stack(columns, axis=1)
