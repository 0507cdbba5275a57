"""Ways to combine predictions of numbers: one vector of weights each, found from moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from scikd._aggregator import simplex_solution
from scikd.stacking._levels import Candidates, Level
from scikd.stacking._problem import Problem
from scikd.stacking._threads import one_thread
from scikd.stacking.combiners import (
    BestSingle,
    InverseErrorCombiner,
    LeastSquares,
    LinearCombiner,
    MeanCombiner,
    NonNegativeCombiner,
    SimplexCombiner,
)
from scikd.stacking.comparison import choose
from scikd.stacking.elastic_net import ElasticNetCombiner
from scikd.stacking.gram import Gram, GramSplit
from scikd.stacking.greedy import GreedySelection
from scikd.stacking.redundancy import RedundancyFilter
from scikd.stacking.shrunk_ridge import ShrunkRidge

__all__ = ["BLENDED", "Combination", "LinearCandidates", "standard_combiners"]

BLENDED = (
    "mean",
    "best_single",
    "simplex",
    "greedy",
    "non_negative",
    "ridge",
    "least_squares",
)


def standard_combiners(random_state: int) -> dict[str, LinearCombiner]:
    """Return the combiners that have names, unfitted, the simplest first."""
    return {
        "mean": MeanCombiner(),
        "inverse_error": InverseErrorCombiner(),
        "best_single": BestSingle(),
        "simplex": SimplexCombiner(),
        "greedy": GreedySelection(n_bags=20, random_state=random_state),
        "non_negative": NonNegativeCombiner(),
        "ridge": ShrunkRidge(),
        "elastic_net": ElasticNetCombiner(random_state=random_state),
        "least_squares": LeastSquares(),
    }


@dataclass(frozen=True, eq=False)
class Combination:
    """Weights of all columns, and where they come from.

    Attributes
    ----------
    weights : ndarray of shape (n_columns,)
        Zero for models that the filter dropped.
    intercept : float
        In the unit of y.
    combiner : LinearCombiner or None
        The combiner; None for a blend.
    redundancy : RedundancyFilter or None
        The filter, fitted to the same rows.
    shares : dict of str to float
        What a blend is made of; of a single combiner, itself.
    """

    weights: np.ndarray
    intercept: float
    combiner: LinearCombiner | None
    redundancy: RedundancyFilter | None
    shares: dict[str, float]


class LinearCandidates(Candidates):
    """Combiners of numbers, and the two that are made of others: ``"blend"`` and ``"auto"``.

    Parameters
    ----------
    combiners : mapping of str to LinearCombiner
        The simplest first.
    n_models : int
        How many of the columns are models; what follows them is never dropped.
    redundancy : RedundancyFilter or None
        Drops models, anew at every level.
    others : mapping of str to regressor
        What is no weighted sum of the columns: it is fitted to rows, and asked for predictions.
    random_state : int
        Deals groups of rows to bins.
    """

    def __init__(
        self,
        combiners: Mapping[str, LinearCombiner],
        n_models: int,
        redundancy: RedundancyFilter | None,
        others: Mapping[str, Any],
        random_state: int,
    ) -> None:
        self.names = (*combiners, "blend", *others)
        self.random_state = random_state
        self._others = others
        self._combiners = combiners
        self.n_models = n_models
        self._redundancy = redundancy

    def fit(self, name: str, level: Level) -> Any:
        """Find the weights; others than combiners are returned as they are, fitted."""
        if name == "auto":
            return level.fitted(choose(level)).model
        if name in self._others:
            problem = level.problem.take(level.rows)
            return clone(self._others[name]).fit(problem.P, problem.y)
        return self._blend(level) if name == "blend" else self._single(name, level)

    def reads_rows(self, name: str) -> bool:
        """Whether moments are not enough for one, or for what it is made of."""
        if name in self._others or name == "auto":
            return True
        return name in self._combiners and self._combiners[name].needs_rows

    def used(self, model: Any) -> int:
        """Return how many models have a weight."""
        if not isinstance(model, Combination):
            return self.n_models
        return int(np.count_nonzero(model.weights[: self.n_models]))

    def losses(self, problem: Problem, rows: np.ndarray, models: Sequence[Any]) -> np.ndarray:
        """Return squared errors: one product of matrices for all that were fitted."""
        linear = [isinstance(model, Combination) for model in models]
        combined = [model for model in models if isinstance(model, Combination)]
        weights = np.stack([model.weights for model in combined], axis=1)
        intercepts = np.array([model.intercept for model in combined])
        predictions, errors = problem.P.take(rows), np.empty((len(rows), len(models)))
        with one_thread():
            for part, block in predictions.blocks():
                errors[part, linear] = block @ weights + intercepts
        for j, model in enumerate(models):
            if not linear[j]:
                errors[:, j] = model.predict(predictions)
        errors -= problem.y[rows, None]
        return np.square(errors, out=errors)

    def _single(self, name: str, level: Level) -> Combination:
        combiner = clone(self._combiners[name])
        gram = level.gram
        redundancy, columns = level.once("kept", lambda: self._kept(level, gram))
        if combiner.needs_rows:
            problem = level.problem.take(level.rows)
            combiner._fit(_with_columns(problem, columns))
        else:
            pairs = level.once("pairs", lambda: _taken(level.gram_splits, columns))
            combiner.solve(level.once("taken", lambda: gram.take(columns)), pairs)
        weights = np.zeros(gram.n_models)
        weights[columns] = combiner.weights_
        combiner._set(weights, combiner.intercept_)
        return Combination(weights, combiner.intercept_, combiner, redundancy, {name: 1.0})

    def _kept(self, level: Level, gram: Gram) -> tuple[RedundancyFilter | None, np.ndarray]:
        """Return the filter and the columns that stay, sorted by error, not as they came."""
        pool = gram.take(np.arange(self.n_models))
        if self._redundancy is None:
            fitted, models = None, np.argsort(pool.errors.diagonal(), kind="stable")
        else:
            problem = _with_columns(level.problem, np.arange(self.n_models))
            fitted = clone(self._redundancy).solve(problem, pool)
            models = fitted.order_[fitted.kept_[fitted.order_]]
        return fitted, np.append(models, np.arange(self.n_models, gram.n_models))

    def _blend(self, level: Level) -> Combination:
        """Average candidates by the weights that are best for what they predict held-out rows."""
        names = tuple(name for name in BLENDED if name in self._combiners) if level.folds else ()
        names = names or ("mean",)
        roots = [
            _error_root(level.gram_splits[k][1], [below.fitted(name).model for name in names])
            for k, below in ((k, level.without(k)) for k in range(len(level.folds)))
        ]
        shares = simplex_solution(np.vstack(roots)) if roots else np.ones(1)
        parts = [level.fitted(name).model for name in names]
        weights = sum(share * part.weights for share, part in zip(shares, parts, strict=True))
        intercept = sum(share * part.intercept for share, part in zip(shares, parts, strict=True))
        named = dict(zip(names, shares.tolist(), strict=True))
        return Combination(np.asarray(weights), float(intercept), None, parts[0].redundancy, named)


def _taken(splits: Sequence[GramSplit], columns: np.ndarray) -> list[GramSplit]:
    return [(train.take(columns), test.take(columns)) for train, test in splits]


def _with_columns(problem: Problem, columns: np.ndarray) -> Problem:
    """Return a problem with some of the columns; the same if these are all, in order."""
    P = problem.P
    if np.array_equal(columns, np.arange(P.n_models)):
        return problem
    names = tuple(P.names[j] for j in columns)
    plain = np.array_equal(columns, np.arange(len(columns)))
    values = P.values[:, : len(columns)] if plain else P.values[:, columns]
    return replace(problem, P=replace(P, values=values, names=names))


def _error_root(gram: Gram, models: Sequence[Combination]) -> np.ndarray:
    """Return R with ``R.T @ R`` the sums of products of the errors of combinations."""
    weights = np.stack([model.weights for model in models], axis=1)
    columns = np.concatenate([weights, weights.sum(axis=0, keepdims=True) - 1.0])
    bias = np.array([model.intercept for model in models]) + gram.mean @ columns
    return np.vstack([gram.error_factor() @ columns, np.sqrt(gram.weight) * bias])
