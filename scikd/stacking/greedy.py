"""Greedy selection of models, with replacement (Caruana et al., 2004)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from scikd.exceptions import InvalidInputError
from scikd.stacking._problem import Problem
from scikd.stacking.combiners import LinearCombiner
from scikd.stacking.gram import Gram, GramSplit
from scikd.stacking.kernels import greedy_steps

__all__ = ["GreedySelection", "draw_bags"]

_TIE = 1e-9  # losses closer than this share of the best are alike


class GreedySelection(LinearCombiner):
    """Add to an average, again and again, the model that helps it most; keep the best prefix.

    A model may be added many times, so weights are multiples of one over the number of steps.
    Squared loss is computed from the moments of the models' errors, whatever the number of rows.

    Parameters
    ----------
    n_steps : int, default=100
        How many models to add.
    metric : "squared" or callable, default="squared"
        What to lessen. A callable is called as ``metric(y, prediction)``, and with
        ``sample_weight=`` where weights differ: any loss of `sklearn.metrics` will do.
    n_bags : int, default=0
        In how many random parts of the pool to select, averaging their weights; 0 selects once,
        from all models.
    bag_fraction : float, default=0.5
        Share of the models in such a part.
    random_state : int, RandomState or None, default=None
        Which models are in which part.

    Attributes
    ----------
    orders_ : list of ndarray
        Of every bag (or of the one selection), the numbers of the models in the order in which they
        were added, up to the best prefix.
    losses_ : list of ndarray
        Of the same, the loss after every step, up to the last that was tried.

    Notes
    -----
    Of models that are equally good, those already taken go first, then those that are better
    alone, then the first. Of equally good prefixes the shortest is kept.
    """

    orders_: list[np.ndarray]
    losses_: list[np.ndarray]

    def __init__(
        self,
        n_steps: int = 100,
        *,
        metric: str | Callable[..., float] = "squared",
        n_bags: int = 0,
        bag_fraction: float = 0.5,
        random_state: Any = None,
    ) -> None:
        self.n_steps = n_steps
        self.metric = metric
        self.n_bags = n_bags
        self.bag_fraction = bag_fraction
        self.random_state = random_state

    @property
    def needs_rows(self) -> bool:
        """Whether the metric is another than squared loss."""
        if not callable(self.metric) and self.metric != "squared":
            message = f"Expected metric to be 'squared' or a callable; got {self.metric!r}."
            raise InvalidInputError(message)
        return self.metric != "squared"

    def _fit(self, problem: Problem) -> None:
        if not self.needs_rows:
            super()._fit(problem)
            return
        heard = problem.weight > 0
        predictions = problem.P.filled()[heard].astype(np.float64)
        loss = _Loss(self.metric, problem.y[heard], problem.weight[heard])  # type: ignore[arg-type]

        def select(models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return _any_steps(predictions[:, models], loss, self.n_steps)

        self._set(self._bagged(select, problem.P.n_models), 0.0)

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        errors = gram.errors

        def select(models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            part = np.ascontiguousarray(errors[np.ix_(models, models)])
            return greedy_steps(part, self.n_steps, _TIE)

        return self._bagged(select, gram.n_models), 0.0

    def _bagged(
        self, select: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], n_models: int
    ) -> np.ndarray:
        """Average the weights of all bags."""
        if self.n_steps < 1 or self.n_bags < 0 or not 0 < self.bag_fraction <= 1:
            message = (
                "Expected n_steps >= 1, n_bags >= 0 and 0 < bag_fraction <= 1; got "
                f"{self.n_steps}, {self.n_bags} and {self.bag_fraction}."
            )
            raise InvalidInputError(message)
        chance = check_random_state(self.random_state)
        bags = draw_bags(n_models, self.n_bags, self.bag_fraction, chance)
        self.orders_, self.losses_ = [], []
        weights = np.zeros(n_models)
        for models in bags:
            order, losses = select(models)
            best = losses.min()
            length = int(np.argmax(losses <= best + _TIE * abs(best))) + 1
            self.orders_.append(models[order[:length]])
            self.losses_.append(losses)
            counts = np.bincount(self.orders_[-1], minlength=n_models)
            weights += counts / (length * len(bags))
        return weights


def draw_bags(
    n_models: int, n_bags: int, fraction: float, random: np.random.RandomState
) -> list[np.ndarray]:
    """Return random parts of a pool to select from.

    Parameters
    ----------
    n_models : int
        In the pool.
    n_bags : int
        How many parts; 0 is the whole pool, once.
    fraction : float
        Share of the models in each part, which has at least one.
    random : RandomState
        Draws them.

    Returns
    -------
    list of ndarray of int
        Numbers of models, sorted.
    """
    if not n_bags:
        return [np.arange(n_models)]
    size = max(1, round(fraction * n_models))
    return [np.sort(random.permutation(n_models)[:size]) for _ in range(n_bags)]


class _Loss:
    """A metric, and what it is about."""

    def __init__(self, metric: Callable[..., float], y: np.ndarray, weight: np.ndarray) -> None:
        self.metric = metric
        self.y = y
        self.options = {} if (weight == weight[0]).all() else {"sample_weight": weight}

    def __call__(self, prediction: np.ndarray) -> float:
        loss = float(self.metric(self.y, prediction, **self.options))
        if not np.isfinite(loss):
            message = f"Expected a finite loss from {self.metric!r}; got {loss}."
            raise InvalidInputError(message)
        return loss


def _any_steps(P: np.ndarray, loss: _Loss, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Select by any metric; return the order and the losses."""
    n_models = P.shape[1]
    alone = np.array([loss(P[:, j]) for j in range(n_models)])
    total, used = np.zeros(len(P)), np.zeros(n_models, dtype=bool)
    order, losses = np.empty(n_steps, dtype=np.intp), np.empty(n_steps)
    for step in range(n_steps):
        found = np.array([loss((total + P[:, j]) / (step + 1)) for j in range(n_models)])
        best = found.min()
        tied = np.flatnonzero(found <= best + _TIE * abs(best))
        tied = tied[used[tied]] if used[tied].any() else tied
        chosen = tied[np.argmin(alone[tied])]
        order[step], losses[step] = chosen, found[chosen]
        used[chosen] = True
        total += P[:, chosen]
    return order, losses
