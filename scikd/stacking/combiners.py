"""Combiners: scikit-learn regressors that give every model a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
from scipy.linalg import lstsq
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from scikd._aggregator import simplex_solution
from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError
from scikd.stacking._inputs import refuse_bare, take_predictions
from scikd.stacking._problem import Problem, check_problem
from scikd.stacking._threads import one_thread
from scikd.stacking.gram import Gram, GramSplit, gram_splits
from scikd.stacking.kernels import combine_rows

__all__ = [
    "BestSingle",
    "InverseErrorCombiner",
    "LeastSquares",
    "LinearCombiner",
    "MeanCombiner",
    "NonNegativeCombiner",
    "SimplexCombiner",
]


class LinearCombiner(RegressorMixin, BaseEstimator, ABC):
    """Base of the combiners that predict ``intercept_ + P @ weights_``.

    A subclass implements `_solve`, which finds the weights from moments; all rows are read only to
    sum these, and once more by the few that cannot do without.

    Attributes
    ----------
    weights_ : ndarray of shape (n_models,)
        Weight of every model.
    intercept_ : float
        In the unit of y.
    n_features_in_ : int
        Number of models.
    feature_names_in_ : ndarray of shape (n_models,)
        Their names, if P has any.
    """

    weights_: np.ndarray
    intercept_: float

    # scikit-learn knows its inputs by the name X, and would take P for something to be routed.
    __metadata_request__fit = {"P": UNUSED}  # noqa: RUF012 - how scikit-learn wants it
    __metadata_request__predict = {"P": UNUSED}  # noqa: RUF012 - as above

    @property
    def needs_rows(self) -> bool:
        """Whether `fit` reads the rows beside their moments, so that `solve` cannot replace it."""
        return False

    @property
    def needs_folds(self) -> bool:
        """Whether something is chosen on folds."""
        return False

    @final
    def fit(
        self,
        P: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        fold: Any = None,
        groups: Any = None,
        row_id: Any = None,
    ) -> Self:
        """Find the weights.

        Parameters
        ----------
        P : array-like, frame, mapping or OutOfFold, of shape (n_samples, n_models)
            Out-of-fold predictions in the unit of y, NaN where a model has none: these are filled
            by the mean of the models that have one in that row.
        y : array-like of shape (n_samples,)
            Targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0.
        fold : array-like of shape (n_samples,) or None, default=None
            The fold in which the models did not see the row.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group are held out together.
        row_id : array-like of shape (n_samples,) or None, default=None
            Rows that recur (repeated cross-validation) share it, and are held out together.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            Naming all that does not fit.
        """
        require_target(self, y)
        predictions = take_predictions(self, P, reset=True)
        options = {"fold": fold, "groups": groups, "row_id": row_id}
        self._fit(check_problem(predictions, y, sample_weight, **options))
        return self

    def _fit(self, problem: Problem) -> None:
        """Find the weights of a checked problem."""
        if self.needs_folds:
            self.solve(*gram_splits(problem, self._cv(), getattr(self, "random_state", None)))
        else:
            self.solve(Gram.of(problem.P, problem.y, problem.weight))

    def _cv(self) -> Any:
        """Return what `splits` takes as `cv`."""
        cv = getattr(self, "cv", None)
        return None if isinstance(cv, str) else cv

    @final
    def solve(self, gram: Gram, splits: Sequence[GramSplit] = ()) -> Self:
        """Find the weights from moments, without a look at any row.

        Parameters
        ----------
        gram : Gram
            Of all rows.
        splits : sequence of (Gram, Gram), default=()
            Of the training and test rows of every fold, as from `held_out`; for combiners that
            choose something on folds.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            If this combiner needs the rows.
        """
        if self.needs_rows:
            message = f"{self!r} cannot be solved from moments: call fit with the rows."
            raise InvalidInputError(message)
        with one_thread():
            self._set(*self._solve(gram, splits))
        return self

    def _set(self, weights: np.ndarray, intercept: float) -> None:
        self.weights_, self.intercept_ = weights, float(intercept)
        self.n_features_in_ = len(weights)

    @abstractmethod
    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        """Return weights of shape (n_models,), and the intercept."""

    @final
    def predict(self, P: Any) -> np.ndarray:
        """Combine predictions.

        Parameters
        ----------
        P : array-like, frame, mapping or OutOfFold, of shape (n_samples, n_models)
            Predictions of the models that `fit` has seen; in an array or a frame in that order.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the unit of y.

        Raises
        ------
        InvalidInputError
            If a row holds no prediction at all.
        """
        check_is_fitted(self, "weights_")
        predictions = take_predictions(self, P, reset=False)
        result = np.empty(predictions.n_samples)
        for rows, block in predictions.raw_blocks():
            combine_rows(block, self.weights_, self.intercept_, result[rows])
        refuse_bare(result)
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.regressor_tags.poor_score = True  # columns are taken for predictions of y
        return tags


class MeanCombiner(LinearCombiner):
    """The plain mean of all models: what any other combiner has to beat."""

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        return np.full(gram.n_models, 1.0 / gram.n_models), 0.0


class BestSingle(LinearCombiner):
    """The model with the smallest squared error, alone; the first of several.

    Attributes
    ----------
    best_ : int
        Its number.
    """

    best_: int

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        self.best_ = int(np.argmin(gram.errors.diagonal()))
        return np.eye(gram.n_models)[self.best_], 0.0


class InverseErrorCombiner(LinearCombiner):
    """Weights in proportion to ``1 / RMSE``, as the published pipeline blends its members.

    Models of one target differ little in RMSE, so this is close to the plain mean. If models
    without any error are among them, these share all weight.
    """

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        risk = gram.errors.diagonal()
        weights = np.where(risk == 0, 1.0, 0.0) if (risk == 0).any() else 1.0 / np.sqrt(risk)
        return weights / weights.sum(), 0.0


class LeastSquares(LinearCombiner):
    """Ordinary least squares with an intercept; of several solutions the one of smallest norm."""

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        root = gram.factor()
        cutoff = np.finfo(np.float64).eps * len(root)
        weights = lstsq(root[:, :-1], root[:, -1], cond=cutoff, check_finite=False)[0]
        return weights, gram.target_mean - gram.prediction_mean @ weights


class NonNegativeCombiner(LinearCombiner):
    """Least squares with an intercept and weights >= 0, whatever their sum."""

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        root = gram.factor()
        weights = nnls(root[:, :-1], root[:, -1], maxiter=100 * gram.n_models)[0]
        return weights, gram.target_mean - gram.prediction_mean @ weights


class SimplexCombiner(LinearCombiner):
    """The average, of weights >= 0 that add up to one, with the smallest squared error."""

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        return simplex_solution(gram.error_root()), 0.0
