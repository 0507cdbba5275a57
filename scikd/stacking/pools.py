"""Pools: classifiers that combine the class probabilities of several models.

A linear pool is a weighted mean of probabilities, a log pool a weighted geometric mean. A linear
pool hedges: it is never sharper than its sharpest member. A log pool adds up evidence, so it can be
sharper, and one model that is sure and wrong can spoil it. `LogPool` starts at the best linear pool
and leaves it only as far as held-out rows reward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state

from scikd.exceptions import InvalidInputError
from scikd.stacking._cubes import Inputs, blocks, linear_pool
from scikd.stacking._likelihood import linear_weights
from scikd.stacking._pool import ClassPool, truth_given
from scikd.stacking._problem import Problem
from scikd.stacking.greedy import draw_bags
from scikd.stacking.kernels import fill_rows
from scikd.stacking.pool_kernels import candidate_losses

__all__ = ["BestPool", "GreedyPool", "LinearPool", "MeanPool"]

CLIP = 1e-15  # what AutoGluon's log-loss clips to
_TIE = 1e-12  # relative difference of losses that count as equal there
_DECIMALS = 6  # to which AutoGluon rounds losses before it looks for ties
_ROUNDED_ABOVE = 1e-4  # unless the first is smaller than this


class _LinearCombination(ClassPool):
    """A weighted mean of probabilities; subclasses find the weights."""

    def _pool(self, block: np.ndarray) -> np.ndarray:
        return linear_pool(block, self.weights_)


class MeanPool(_LinearCombination):
    """The plain mean of the models' probabilities.

    Parameters
    ----------
    inputs : {"proba", "logit"}, default="proba"
        What the predictions are: probabilities, or log-odds whose softmax they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    weights_ : ndarray of shape (n_models,)
        Equal weights.
    """

    def __init__(self, *, inputs: Inputs = "proba") -> None:
        self.inputs = inputs

    def _learn(self, problem: Problem) -> None:
        n_models = problem.P.n_models
        self.weights_ = np.full(n_models, 1.0 / n_models)


class BestPool(_LinearCombination):
    """The model with the smallest log-loss; the first of several.

    Parameters
    ----------
    inputs : {"proba", "logit"}, default="proba"
        What the predictions are: probabilities, or log-odds whose softmax they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    weights_ : ndarray of shape (n_models,)
        One for the best, zero for the others.
    losses_ : ndarray of shape (n_models,)
        Weighted mean log-loss of every model, in nats; probabilities are clipped to 1e-15.
    """

    def __init__(self, *, inputs: Inputs = "proba") -> None:
        self.inputs = inputs

    def _learn(self, problem: Problem) -> None:
        heard = problem.weight > 0
        given = np.maximum(truth_given(problem)[heard], CLIP)
        self.losses_ = -np.average(np.log(given), axis=0, weights=problem.weight[heard])
        self.weights_ = np.zeros(problem.P.n_models)
        self.weights_[self.losses_.argmin()] = 1.0


class LinearPool(_LinearCombination):
    """The weighted mean with the smallest log-loss: weights >= 0 that sum to one.

    What greedy selection approaches in steps; the problem is convex, and equal models get equal
    weights.

    Parameters
    ----------
    inputs : {"proba", "logit"}, default="proba"
        What the predictions are: probabilities, or log-odds whose softmax they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    weights_ : ndarray of shape (n_models,)
        Weights of the models.
    """

    def __init__(self, *, inputs: Inputs = "proba") -> None:
        self.inputs = inputs

    def _learn(self, problem: Problem) -> None:
        heard = problem.weight > 0
        self.weights_ = linear_weights(truth_given(problem)[heard], problem.weight[heard])


class GreedyPool(_LinearCombination):
    """Greedy selection with replacement: the mean of models chosen one at a time.

    Each step adds the model that most improves the mean of those chosen so far, and the best
    prefix is kept (Caruana et al., 2004). Steps, ties and rounding are those of AutoGluon's
    ``EnsembleSelection``, so the answer is the same.

    Parameters
    ----------
    n_steps : int, default=100
        How many steps.
    metric : "log_loss" or callable, default="log_loss"
        What to make small: ``metric(y, proba, sample_weight=...)``. Log-loss needs what each model
        gave to the true class alone, and is fast.
    n_bags : int, default=0
        Over how many random subsets of the models to repeat the selection and average the
        weights, which tames it when there are many models and few rows. 0 is once over all.
    bag_fraction : float, default=0.5
        Share of the models in each subset.
    inputs : {"proba", "logit"}, default="proba"
        What the predictions are: probabilities, or log-odds whose softmax they are.
    random_state : int, RandomState or None, default=0
        Decides between models of equal loss of which none was chosen before, and draws subsets.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    weights_ : ndarray of shape (n_models,)
        Shares of the steps that chose the model.
    order_ : list of ndarray
        The models chosen by each selection, in order.
    losses_ : list of ndarray
        The loss after each of these steps.
    """

    def __init__(
        self,
        *,
        n_steps: int = 100,
        metric: Literal["log_loss"] | Callable[..., float] = "log_loss",
        n_bags: int = 0,
        bag_fraction: float = 0.5,
        inputs: Inputs = "proba",
        random_state: Any = 0,
    ) -> None:
        self.n_steps = n_steps
        self.metric = metric
        self.n_bags = n_bags
        self.bag_fraction = bag_fraction
        self.inputs = inputs
        self.random_state = random_state

    def _learn(self, problem: Problem) -> None:
        self._check_options()
        random = check_random_state(self.random_state)
        n_models = problem.P.n_models
        fast = self.metric == "log_loss"
        steps = _LogLossSteps(problem) if fast else _MetricSteps(problem, self.metric)
        bags = draw_bags(n_models, self.n_bags, self.bag_fraction, random)
        self.order_, self.losses_, weights = [], [], np.zeros(n_models)
        for models in bags:
            order, losses = _select(steps, models, self.n_steps, random)
            self.order_.append(order)
            self.losses_.append(losses)
            weights += np.bincount(order, minlength=n_models) / len(order)
        self.weights_ = weights / len(bags)

    def _check_options(self) -> None:
        wrong = []
        if self.n_steps < 1:
            wrong.append(f"n_steps >= 1, got {self.n_steps}")
        if self.n_bags < 0:
            wrong.append(f"n_bags >= 0, got {self.n_bags}")
        if not 0 < self.bag_fraction <= 1:
            wrong.append(f"bag_fraction in (0, 1], got {self.bag_fraction}")
        if self.metric != "log_loss" and not callable(self.metric):
            wrong.append(f"metric 'log_loss' or a callable, got {self.metric!r}")
        if wrong:
            message = f"Expected {'; '.join(wrong)}."
            raise InvalidInputError(message)


class _LogLossSteps:
    """Losses of the next step, from what each model gave to the true class."""

    def __init__(self, problem: Problem) -> None:
        heard = problem.weight > 0
        self._given = np.ascontiguousarray(truth_given(problem)[heard].T)
        self._weight = problem.weight[heard]
        self._alike = bool((self._weight == self._weight[0]).all())

    def start(self) -> np.ndarray:
        return np.zeros(len(self._weight))

    def losses(self, models: np.ndarray, pooled: np.ndarray, step: int) -> np.ndarray:
        # Of all models, the rows are read where they lie; of some, there is no need to hurry.
        given = self._given if len(models) == len(self._given) else self._given[models]
        losses: np.ndarray = candidate_losses(given, self._weight, pooled, step, CLIP, self._alike)
        return losses

    def add(self, pooled: np.ndarray, model: int, step: int) -> np.ndarray:
        return (pooled * step + self._given[model]) / (step + 1)


class _MetricSteps:
    """Losses of the next step by a function of labels and probabilities."""

    def __init__(self, problem: Problem, metric: Any) -> None:
        heard = problem.weight > 0
        cube = problem.P.take(heard)
        self._members = np.empty((cube.n_models, cube.n_samples, cube.values.shape[2]))
        for rows, block in blocks(cube):
            fill_rows(block)
            self._members[:, rows] = block.transpose(1, 0, 2)
        self._weight = problem.weight[heard]
        self._truth = np.asarray(cube.classes)[problem.y[heard]]
        self._metric = metric

    def start(self) -> np.ndarray:
        return np.zeros(self._members.shape[1:])

    def losses(self, models: np.ndarray, pooled: np.ndarray, step: int) -> np.ndarray:
        tried = (self.add(pooled, model, step) for model in models)
        losses = [self._metric(self._truth, p, sample_weight=self._weight) for p in tried]
        return np.array(losses, dtype=np.float64)

    def add(self, pooled: np.ndarray, model: int, step: int) -> np.ndarray:
        mixed: np.ndarray = (pooled * step + self._members[model]) / (step + 1)
        return mixed


def _select(
    steps: _LogLossSteps | _MetricSteps,
    models: np.ndarray,
    n_steps: int,
    random: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose models one at a time; return those of the best prefix, and their losses."""
    pooled, rounded = steps.start(), False
    used = np.zeros(len(models), dtype=bool)
    order: list[int] = []
    trajectory: list[float] = []
    for step in range(n_steps):
        losses = steps.losses(models, pooled, step)
        losses[~np.isfinite(losses)] = np.inf
        losses = losses.round(_DECIMALS) if rounded else losses
        low = losses.min()
        if not low < np.inf:
            message = "Expected the metric to be finite for some model; it is for none."
            raise InvalidInputError(message)
        best = losses <= low + _TIE * abs(low)
        best = np.flatnonzero(best & used if (best & used).any() else best)
        chosen = best[0] if len(best) == 1 else random.choice(best)
        loss = float(losses[chosen])
        if step == 0 and abs(loss) > _ROUNDED_ABOVE:
            # From here on: equal models then tie, and are not both taken for a digit of noise.
            rounded, loss = True, round(loss, _DECIMALS)
        used[chosen] = True
        order.append(int(models[chosen]))
        trajectory.append(loss)
        pooled = steps.add(pooled, order[-1], step)
        if len(models) == 1:
            break
    kept = int(np.argmin(trajectory)) + 1
    return np.array(order[:kept]), np.array(trajectory[:kept])
