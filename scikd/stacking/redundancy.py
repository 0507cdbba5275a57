"""Which models of a pool say nothing that the better ones do not say already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cmp_to_key
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError
from scikd.stacking._inputs import is_table, take_predictions
from scikd.stacking._problem import Problem, check_problem
from scikd.stacking._threads import one_thread
from scikd.stacking.gram import Gram

__all__ = ["RedundancyFilter", "RedundantModel"]

_TIE = 1e-12  # relative difference of two risks that is rounding
_LEAST = 1e-12  # a smaller remainder, relative to the risk, is rounding
_SMALL_WEIGHT = 1e-3  # of the largest: a smaller weight explains nothing


@dataclass(frozen=True)
class RedundantModel:
    """Why a model was dropped.

    Attributes
    ----------
    reason : str
        ``"duplicate"``, ``"combination"`` or ``"variance"``.
    kept : tuple of str
        The models that stay in its place.
    weights : tuple of float
        Their weights in the combination that comes closest, the largest first.
    measures : dict of str to float
        What was compared with the thresholds.
    """

    reason: str
    kept: tuple[str, ...]
    weights: tuple[float, ...]
    measures: dict[str, float]

    def __str__(self) -> str:
        measures = ", ".join(f"{name} {value:.3g}" for name, value in self.measures.items())
        if not self.kept:
            return f"{self.reason}: {measures}"
        parts = [f"{w:.3g} {name}" for w, name in zip(self.weights, self.kept, strict=True)]
        named = self.kept[0] if self.weights == (1.0,) else " + ".join(parts)
        return f"{self.reason} of {named}: {measures}"


class RedundancyFilter(SelectorMixin, BaseEstimator):
    """Drop models that repeat better ones.

    Models are visited by their mean squared error, the best first, and each is compared with those
    that stay so far. What counts is the *error* ``p_j - y``: good models of one target are all
    alike in their predictions, also when they err in different ways and complete each other.

    ``rule="residual"`` drops model j

    * as a *duplicate* of model i, if their disagreement ``E (p_i - p_j)**2``, divided by ``E (p_i -
      y)**2 + E (p_j - y)**2``, is at most `eps`. It is 0 for copies, and 1 for models with
      independent errors;
    * as a *combination* of models, if R² of its error on weighted averages of theirs is at least
      `r2`, that is if ``min E (p_j - sum_i c_i p_i)**2 <= (1 - r2) * E (p_j - y)**2`` over all
      weights that add up to one. All R² come from one Cholesky decomposition.

    Without that constraint on the weights, R² would be 1 also for a model that errs exactly half
    as much as another in every row; and two such models are no repetition: together they give y.

    The defaults drop what is redundant up to rounding and chance. That makes the combination of
    the rest well conditioned and costs no accuracy. Looser ones soon do: every model whose
    *correlation* with a better one is above 0.95 is most of any pool.

    ``rule="published"`` drops model j if ``corr(p_i, p_j) >= correlation`` and ``E (p_i - p_j)**2
    <= mse`` for one i that stays, and afterwards every model whose predictions have a variance
    below `variance` (arXiv:2602.12469). The last two are in the square of the unit of y: what is
    dropped depends on that unit.

    Parameters
    ----------
    rule : {"residual", "published"}, default="residual"
        Which rule.
    eps : float, default=1e-4
        Largest standardised disagreement of a duplicate, in [0, 1).
    r2 : float, default=0.999999
        Smallest R² of a combination, in [0, 1].
    correlation : float, default=0.95
        Of the published rule.
    mse, variance : float, default=0.01
        Of the published rule, in the square of the unit of y.

    Attributes
    ----------
    kept_ : ndarray of bool, shape (n_models,)
        The models that stay. The same models stay whatever the order of the columns; of those
        equal in every row, the one with the shorter name or the first by the alphabet, and without
        names the first. For ``rule="residual"`` the same ones stay for ``a * P + b`` and
        ``a * y + b``.
    order_ : ndarray of int, shape (n_models,)
        The models by mean squared error.
    risks_ : ndarray of shape (n_models,)
        Mean squared errors, in the square of the unit of y; for classes, Brier scores.
    reasons_ : dict of str to RedundantModel
        Why each of the others was dropped, by name.
    n_features_in_ : int
        Number of models.
    feature_names_in_ : ndarray of str, shape (n_models,)
        Their names, if they have any.

    Notes
    -----
    Where a model has no prediction for a row, it counts as the mean of the others there.

    A copy with another offset or slope is no duplicate: it has other errors, and a plain mean
    knows the difference.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=200)
    >>> a, b = y + rng.normal(size=200), y + 1.1 * rng.normal(size=200)
    >>> P = {"a": a, "b": b, "again": b + 1e-4, "mean": (a + b) / 2}
    >>> model = RedundancyFilter().fit(P, y)
    >>> model.kept_
    array([ True, False, False,  True])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "rule": [StrOptions({"residual", "published"})],
        "eps": [Interval(Real, 0, 1, closed="left")],
        "r2": [Interval(Real, 0, 1, closed="both")],
        "correlation": [Interval(Real, -1, 1, closed="both")],
        "mse": [Interval(Real, 0, None, closed="both")],
        "variance": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        rule: str = "residual",
        eps: float = 1e-4,
        r2: float = 1 - 1e-6,
        correlation: float = 0.95,
        mse: float = 0.01,
        variance: float = 0.01,
    ) -> None:
        self.rule = rule
        self.eps = eps
        self.r2 = r2
        self.correlation = correlation
        self.mse = mse
        self.variance = variance

    def fit(self, P: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the models that stay.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models[, n_classes])
            Predictions of rows that the models have not seen in training, in the unit of y, or
            class probabilities; NaN where a model has none.
        y : array-like of shape (n_samples,)
            Targets, or labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0.

        Returns
        -------
        RedundancyFilter
            Itself.

        Raises
        ------
        InvalidInputError
            If the arguments do not fit, or no model would stay.
        """
        require_target(self, y)
        predictions = take_predictions(self, P, reset=True)
        classifier = predictions.values.ndim == 3
        return self.solve(check_problem(predictions, y, sample_weight, classifier=classifier))

    def solve(self, problem: Problem, gram: Gram | None = None) -> Self:
        """Do the work of `fit` for what has been checked, on moments if there are any already.

        Parameters
        ----------
        problem : Problem
            Predictions and truth.
        gram : Gram or None, default=None
            Moments of its rows; None sums over the rows.
        """
        self._validate_params()
        names = problem.P.names
        self.n_features_in_ = len(names)
        if self.rule == "published" and problem.P.values.ndim == 3:
            message = "Expected numbers for rule='published', which knows no classes; got 3 axes."
            raise InvalidInputError(message)
        if gram is None and problem.P.values.ndim == 2:
            gram = Gram.of(problem.P, problem.y, problem.weight)
        errors = _class_errors(problem) if gram is None else gram.errors
        self.risks_ = errors.diagonal().copy()
        self.order_ = _by_risk(self.risks_, problem)
        sorted_names = [names[j] for j in self.order_]
        placed = np.ix_(self.order_, self.order_)
        if self.rule == "residual" or gram is None:
            slack = max(1.0 - self.r2, _LEAST)
            dropped = _repetitions(errors[placed], sorted_names, self.eps, slack)
        else:
            scatter = gram.prediction_scatter[:-1, :-1] / gram.weight
            dropped = self._published(errors[placed], scatter[placed], sorted_names)
        self.reasons_ = {sorted_names[j]: reason for j, reason in sorted(dropped.items())}
        self.kept_ = np.asarray([name not in self.reasons_ for name in names])
        return self

    def _published(
        self, errors: np.ndarray, covariance: np.ndarray, names: list[str]
    ) -> dict[int, RedundantModel]:
        """Compare pairs by correlation and difference, then variances with the floor."""
        power, variance = errors.diagonal(), covariance.diagonal()
        apart = power[:, None] + power - 2.0 * errors
        spread = np.sqrt(np.outer(variance, variance))
        alike = np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)
        dropped: dict[int, RedundantModel] = {}
        kept: list[int] = []
        for j in range(len(names)):
            near = [i for i in kept if alike[i, j] >= self.correlation and apart[i, j] <= self.mse]
            if not near:
                kept.append(j)
                continue
            i = near[0]
            measures = {"correlation": float(alike[i, j]), "mse": float(apart[i, j])}
            dropped[j] = RedundantModel("duplicate", (names[i],), (1.0,), measures)
        for j in kept:
            if variance[j] < self.variance:
                measures = {"variance": float(variance[j])}
                dropped[j] = RedundantModel("variance", (), (), measures)
        if len(dropped) == len(names):
            message = (
                f"Expected a model whose predictions have a variance of at least {self.variance} "
                f"in the square of the unit of y; the largest is {variance.max():.3g}. Lower "
                "`variance`, or use rule='residual', which knows no unit."
            )
            raise InvalidInputError(message)
        return dropped

    def transform(self, P: Any) -> Any:
        """Return the predictions of the models that stay.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models[, n_classes])
            Predictions of all models.

        Returns
        -------
        ndarray of shape (n_samples, n_kept[, n_classes]), or a frame after `set_output`
        """
        check_is_fitted(self)
        if is_table(P):
            return super().transform(P)
        return take_predictions(self, P, reset=False).values[:, self.kept_]

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return self.kept_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


# -- the residual rule -----------------------------------------------------------------------------


def _class_errors(problem: Problem) -> np.ndarray:
    """Return mean products of the errors of class probabilities, shape (n_models, n_models)."""
    n_models = problem.P.n_models
    total = np.zeros((n_models, n_models))
    weight = problem.weight / problem.weight.sum()
    with one_thread():
        for rows, block in problem.P.blocks():
            heard = np.flatnonzero(weight[rows])
            errors = block[heard]
            errors[np.arange(len(heard)), :, problem.y[rows][heard]] -= 1.0
            errors *= np.sqrt(weight[rows][heard])[:, None, None]
            columns = np.swapaxes(errors, 1, 2).reshape(-1, n_models)
            total += columns.T @ columns
    return total


def _repetitions(
    errors: np.ndarray, names: list[str], eps: float, slack: float
) -> dict[int, RedundantModel]:
    """Find the models that repeat others.

    Weights that add up to one combine differences to the best model, ``p_j - p_0``, whatever their
    sum. So the matrix that is decomposed is that of products of these differences.
    """
    power = errors.diagonal()
    apart = power[:, None] + power - 2.0 * errors
    scale = np.maximum(power[:, None] + power, np.finfo(np.float64).tiny)
    disagreement = np.maximum(apart, 0.0) / scale
    products = errors - errors[0] - errors[:, [0]] + errors[0, 0]
    factor = np.zeros_like(errors)
    kept = [0]
    dropped: dict[int, RedundantModel] = {}
    for j in range(1, len(errors)):
        i = kept[int(np.argmin(disagreement[kept, j]))]
        if disagreement[i, j] <= eps:
            measures = {"disagreement": float(disagreement[i, j])}
            dropped[j] = RedundantModel("duplicate", (names[i],), (1.0,), measures)
            continue
        k = len(kept) - 1
        root = factor[:k, :k]
        row = solve_triangular(root, products[kept[1:], j], lower=True)
        rest = products[j, j] - row @ row
        if rest <= slack * power[j]:
            weights = solve_triangular(root, row, lower=True, trans="T")
            r2 = 1.0 - max(rest, 0.0) / power[j]
            weights = np.append(1.0 - weights.sum(), weights)
            dropped[j] = _combination([names[i] for i in kept], weights, r2)
            continue
        factor[k, :k] = row
        factor[k, k] = np.sqrt(rest)
        kept.append(j)
    return dropped


def _combination(names: list[str], weights: np.ndarray, r2: float) -> RedundantModel:
    size = np.abs(weights)
    found = [i for i in np.argsort(-size, kind="stable") if size[i] > _SMALL_WEIGHT * size.max()]
    parts = tuple(names[i] for i in found), tuple(float(weights[i]) for i in found)
    return RedundantModel("combination", *parts, {"r2": float(r2)})


# -- the order of visits ---------------------------------------------------------------------------


def _by_risk(risks: np.ndarray, problem: Problem) -> np.ndarray:
    """Sort models by risk; those of equal risk by what they predict, not by where they stand."""
    order = list(np.argsort(risks, kind="stable"))
    compare = cmp_to_key(_comparison(risks, problem))
    start = 0
    for stop in range(1, len(order) + 1):
        tied = stop < len(order) and risks[order[stop]] - risks[order[stop - 1]] <= (
            _TIE * risks[order[stop]]
        )
        if not tied:
            if stop - start > 1:
                order[start:stop] = sorted(order[start:stop], key=compare)
            start = stop
    return np.asarray(order)


def _comparison(risks: np.ndarray, problem: Problem) -> Callable[[int, int], int]:
    """Return a comparison of two models by the first row in which their errors differ.

    Errors are compared by size first, and in units of the risk, so that the comparison survives
    a change of unit, of sign and of rounding.
    """
    P, heard = problem.P, np.flatnonzero(problem.weight)

    def errors(j: int) -> np.ndarray:
        column = np.concatenate([block[:, j] for _, block in P.blocks()])[heard]
        if P.values.ndim == 3:
            column[np.arange(len(heard)), problem.y[heard]] -= 1.0
        else:
            column -= problem.y[heard]
        size = np.sqrt(risks[j])
        rounded: np.ndarray = np.round(column.ravel() / (size if size > 0 else 1.0), 9)
        return rounded

    def compare(i: int, j: int) -> int:
        left, right = errors(i), errors(j)
        for a, b in ((np.abs(left), np.abs(right)), (left, right)):
            differ = np.flatnonzero(a != b)
            if len(differ):
                return -1 if a[differ[0]] < b[differ[0]] else 1
        # By length first, so that model2 comes before model10.
        names = [(len(P.names[k]), P.names[k]) for k in (i, j)]
        return -1 if names[0] < names[1] else 1

    return compare
