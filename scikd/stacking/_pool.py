"""What all pools of class probabilities share: checked inputs, labels, tags."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self, final

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import OutOfFold
from scikd.stacking._cubes import (
    Inputs,
    as_cube,
    blocks,
    check_classes,
    class_problem,
    tag_cubes,
)
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem
from scikd.stacking.kernels import fill_rows

__all__ = ["ClassPool", "truth_given"]


class ClassPool(ClassifierMixin, BaseEstimator, ABC):
    """A classifier whose inputs are the class probabilities of several models.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the last axis of the predictions.
    weights_ : ndarray of shape (n_models,)
        Weights of the models.
    n_features_in_ : int
        Number of models.
    feature_names_in_ : ndarray of shape (n_models,)
        Names of the models, if the predictions had names.
    """

    inputs: Inputs
    classes_: np.ndarray
    weights_: np.ndarray

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
        """Learn from out-of-fold predictions.

        Parameters
        ----------
        P : array-like, mapping, frame, OutOfFold or Predictions
            Probabilities of shape (n_samples, n_models, n_classes), NaN where a model has none; a
            mapping from the name of each model to an array or frame of shape (n_samples,
            n_classes); or, for two classes, a matrix or frame of shape (n_samples, n_models) with
            those of the second.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0; a weight of two is the same as the row twice.
        fold : array-like of shape (n_samples,) or None, default=None
            The fold in which the models did not see the row.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group are held out together.
        row_id : array-like of shape (n_samples,) or None, default=None
            Rows that recur (repeated cross-validation) share it.

        Returns
        -------
        Self
            Itself, fitted.

        Raises
        ------
        InvalidInputError
            If predictions, labels and weights do not fit together; the message names all that.
        """
        require_target(self, y)
        predictions = self._predictions(P, reset=True)
        options = {"inputs": self.inputs, "groups": groups, "fold": fold, "row_id": row_id}
        problem = class_problem(self, predictions, y, sample_weight, **options)
        self.classes_ = np.asarray(problem.P.classes)
        self.n_features_in_ = predictions.n_models
        self._names = predictions.names
        self._learn(problem)
        return self

    @final
    def predict_proba(self, P: Any) -> np.ndarray:
        """Pool the predictions of the models.

        Parameters
        ----------
        P : as in `fit`
            Predictions of the same models. Where a model has none, it counts as the mean of the
            others.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.

        Raises
        ------
        InvalidInputError
            If the models or classes differ from those in `fit`, or no model predicts a row.
        """
        check_is_fitted(self)
        cube = self._checked(P)
        pooled = np.empty((cube.n_samples, len(self.classes_)))
        for rows, block in blocks(cube):
            pooled[rows] = self._pool(block)
        bare = np.flatnonzero(np.isnan(pooled).any(axis=1))
        if len(bare):
            message = (
                f"Expected every row to have a prediction of some model; {len(bare)} have none: "
                f"rows {bare[:5].tolist()}{'...' if len(bare) > 5 else ''}."
            )
            raise InvalidInputError(message)
        return pooled

    @final
    def predict(self, P: Any) -> np.ndarray:
        """Return the most probable label of every row, shape (n_samples,)."""
        proba = self.predict_proba(P)
        labels: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return labels

    def _checked(self, P: Any) -> Predictions:
        predictions = self._sorted(self._predictions(P, reset=False))
        cube = as_cube(predictions, self.inputs)
        check_classes(cube, self.classes_)
        return cube

    def _predictions(self, P: Any, *, reset: bool) -> Predictions:
        """Check predictions; those in an array or a frame as scikit-learn checks inputs."""
        # A sparse matrix of keys is a mapping too.
        if isinstance(P, Predictions | Mapping | OutOfFold) and not issparse(P):
            return Predictions.of(P)
        checked = validate_data(
            self,
            P,
            reset=reset,
            dtype=(np.float64, np.float32),
            allow_nd=True,
            ensure_all_finite="allow-nan",
        )
        return Predictions.of(checked, names=getattr(self, "feature_names_in_", None))

    def _sorted(self, predictions: Predictions) -> Predictions:
        """Put named models in the order in which `fit` saw them."""
        if predictions.names == self._names:
            return predictions
        if set(predictions.names) != set(self._names):
            message = (
                f"Expected predictions of the models {list(self._names)}; "
                f"got {list(predictions.names)}."
            )
            raise InvalidInputError(message)
        order = [predictions.names.index(name) for name in self._names]
        return predictions.select(order)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tag_cubes(tags)
        return tags

    @abstractmethod
    def _learn(self, problem: Problem) -> None:
        """Set `weights_` and what else `_pool` needs."""

    @abstractmethod
    def _pool(self, block: np.ndarray) -> np.ndarray:
        """Pool probabilities of shape (n_rows, n_models, n_classes), NaN where missing."""


def truth_given(problem: Problem) -> np.ndarray:
    """Return what each model gave to the true class, shape (n_samples, n_models).

    Missing predictions count as the mean of the others; rows that no model predicts give NaN.
    """
    given = np.empty(problem.P.values.shape[:2])
    for rows, block in blocks(problem.P):
        fill_rows(block)
        given[rows] = block[np.arange(len(block)), :, problem.y[rows]]
    return given
