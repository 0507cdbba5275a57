"""A student that learns numbers from teachers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin, clone, is_classifier
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.utils.validation import _check_y, check_is_fitted, column_or_1d

from scikd.exceptions import InvalidInputError
from scikd.students._distilled import Distilled
from scikd.teachers import fit_weighted

__all__ = ["DistilledRegressor"]


class DistilledRegressor(RegressorMixin, Distilled):
    """Distil one or several regressors into one fast student.

    The teachers label the training rows out of fold, since their in-sample labels leak. The student
    learns a mixture of these labels and the truth, whose weight is chosen on held-out rows.

    Parameters
    ----------
    teacher : estimator, TeacherEnsemble, mapping or list of these, stored labels, callable or None
        Who teaches. Estimators are cloned and trained, whether they are fitted or not; one in a
        `sklearn.frozen.FrozenEstimator`, a callable, or stored labels are taken as they are. None
        is a random forest, extremely randomised trees and gradient boosting.
    student : estimator or None, default=None
        Any scikit-learn-compatible regressor; None is a `HistGradientBoostingRegressor`. A search
        (`GridSearchCV`) tunes it anew for every set of targets.
    cv : int, splitter or iterable of (train, test), default=5
        Folds of the out-of-fold labels. With an int, copies of a row stay in one fold. Rows that a
        partial splitter leaves uncovered are taught their truth.
    teacher_weight : "auto" or float, default="auto"
        Weight of the teacher in the student's targets: 0 is the truth alone, 1 the teacher alone,
        beyond 1 away from the truth. "auto" takes the teacher alone if it gains more than one
        standard error over the truth alone on held-out rows, and the closed form of the best
        mixture if that gains more than one over the chosen one; for honest labels there, every
        teacher is also trained once per pair of folds.
    teacher_weight_bounds : (float, float), default=(-1, 2)
        The closed form is clipped to these.
    augment : None, "neighbour", "column" or Augmenter, default=None
        How to make further rows for the teacher to label.
    n_augment : float, default=1.0
        How many of them, as a multiple of the training rows.
    store : LabelStore, path or None, default=None
        Where to keep finished out-of-fold labels, so that an interrupted fit resumes.
    n_jobs : int or None, default=None
        As in joblib, over teachers and folds.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.
    random_state : int, RandomState or None, default=None
        Seed of folds and augmentation. Teachers and student have seeds of their own.

    Attributes
    ----------
    student_ : estimator
        The fitted student: all that `predict` uses.
    teacher_ : TeacherEnsemble
        The teachers, refitted on all rows.
    oof_ : OutOfFold
        Out-of-fold predictions of every teacher.
    labels_ : ndarray of shape (n_samples, n_outputs)
        Out-of-fold consensus, in units of y; NaN where not covered.
    teacher_weight_ : float
        Weight of the teacher that the student was taught with.
    mixture_ : MixtureChoice or None
        What was tried on held-out rows; None if `teacher_weight` was given.
    teacher_loss_, student_loss_ : float
        Held-out mean squared error of the consensus, and of the student taught by truth alone.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had names.

    Warns
    -----
    DistillationWarning
        If the teacher's out-of-fold loss is not below the student's own.

    See Also
    --------
    DistilledClassifier : The same for class probabilities.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import RidgeCV
    >>> from sklearn.tree import DecisionTreeRegressor
    >>> from scikd import DistilledRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> student = DecisionTreeRegressor(max_depth=4, random_state=0)
    >>> distilled = DistilledRegressor(RidgeCV(), student, random_state=0, progress=False)
    >>> distilled.fit(X, y).teacher_loss_ < distilled.student_loss_
    True
    """

    _classifier = False

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        X_unlabelled: Any = None,
    ) -> DistilledRegressor:
        """Train the teachers, and distil them into the student.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Training targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative weights; a weight of two is the same as the row twice.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group stay in one fold and are not independent in standard errors.
        X_unlabelled : like X, of shape (n_unlabelled, n_features), or None, default=None
            Further rows without truth, which the teachers label.

        Returns
        -------
        DistilledRegressor
            Itself, fitted.

        Raises
        ------
        TeacherError
            If a teacher fails or predicts something unusable; the message names it.
        InvalidInputError, ValueError
            If the inputs cannot be used.
        """
        X, weight, X_unlabelled = self._checked_training(X, y, sample_weight, groups, X_unlabelled)
        y = _check_y(y, multi_output=True, y_numeric=True, estimator=self).astype(np.float64)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._flat = y.ndim == 1
        self._fit(X, y, weight, groups, X_unlabelled)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict with the student alone.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            The inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions, in units of y.
        """
        check_is_fitted(self)
        return np.asarray(self.student_.predict(self._checked_inputs(X, reset=False)))

    def _default_teachers(self) -> dict[str, Any]:
        return {
            "random forest": RandomForestRegressor(200, random_state=0),
            "extra trees": ExtraTreesRegressor(200, random_state=0),
            "boosting": HistGradientBoostingRegressor(random_state=0),
        }

    def _student(self) -> Any:
        student = HistGradientBoostingRegressor(random_state=0)
        student = student if self.student is None else self.student
        if not hasattr(student, "predict") or is_classifier(student):
            message = f"Expected a regressor as the student; got {student!r}."
            raise InvalidInputError(message)
        return student

    def _truth(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(y, dtype=np.float64).reshape(len(y), -1)

    def _teach(self, student: Any, X: Any, targets: np.ndarray, weight: np.ndarray | None) -> Any:
        return fit_weighted(clone(student), X, targets[:, 0] if self._flat else targets, weight)

    def _answer(self, model: Any, X: Any) -> np.ndarray:
        prediction = np.asarray(model.predict(X), dtype=np.float64)
        return prediction.reshape(len(prediction), -1)

    def _settled(self, raw: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
        del truth, weight
        return raw

    def _loss(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        return np.square(truth - prediction).mean(axis=1)
