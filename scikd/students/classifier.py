"""A student that learns class probabilities from teachers."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.utils.validation import check_is_fitted

from scikd._progress import Progress
from scikd._table_inputs import checked_labels
from scikd.exceptions import InvalidInputError
from scikd.students._distilled import Distilled
from scikd.students.soft_labels import (
    SoftClassifier,
    SoftLabels,
    resolve_soft_labels,
    simplex_projection,
)

__all__ = ["DistilledClassifier"]

# A certain and wrong prediction costs 16 nats, not infinity: trees do say zero.
LOSS_FLOOR = 1e-7


class DistilledClassifier(ClassifierMixin, Distilled):
    """Distil one or several classifiers into one fast student.

    The teachers label the training rows with out-of-fold probabilities, since their in-sample
    labels leak. The student learns a mixture of these and the truth, whose weight is chosen on
    held-out rows by log-loss.

    Parameters
    ----------
    teacher : estimator, TeacherEnsemble, mapping or list of these, stored labels, callable or None
        Who teaches: anything with `predict_proba`. Estimators are cloned and trained, whether they
        are fitted or not; one in a `sklearn.frozen.FrozenEstimator`, a callable, or stored labels
        are taken as they are. None is a random forest, extremely randomised trees and gradient
        boosting.
    student : estimator or None, default=None
        A classifier that takes `sample_weight` (taught by weighted copies of every row) or any
        regressor (taught log-odds, or its custom objective); None is a
        `HistGradientBoostingClassifier`.
    soft_labels : {"auto", "replicate", "log_odds", "objective"}, default="auto"
        How the student is taught probabilities: see `scikd.students.soft_labels`.
    cv : int, splitter or iterable of (train, test), default=5
        Folds of the out-of-fold labels; an int is stratified, and keeps copies of a row in one
        fold. Rows that a partial splitter leaves uncovered are taught their truth.
    teacher_weight : "auto" or float, default="auto"
        Weight of the teacher in the student's targets: 0 is the truth alone, 1 the teacher alone.
        "auto" takes the teacher alone if it gains more than one standard error of log-loss over the
        truth alone on held-out rows, and the closed form of the best mixture (squared loss) if that
        gains more than one over the chosen one; for honest labels there, every teacher is also
        trained once per pair of folds.
    teacher_weight_bounds : (float, float), default=(-1, 2)
        The closed form is clipped to these. Targets that leave the simplex are projected back.
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
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    student_ : SoftClassifier
        The taught student: all that `predict` uses. Its `learners_` are the fitted learners.
    teacher_ : TeacherEnsemble
        The teachers, refitted on all rows.
    oof_ : OutOfFold
        Out-of-fold probabilities of every teacher.
    labels_ : ndarray of shape (n_samples, n_classes)
        Out-of-fold consensus; NaN where not covered.
    teacher_weight_ : float
        Weight of the teacher that the student was taught with.
    mixture_ : MixtureChoice or None
        What was tried on held-out rows; None if `teacher_weight` was given.
    teacher_loss_, student_loss_ : float
        Held-out log-loss (nats) of the consensus, and of the student taught by truth alone.
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
    DistilledRegressor : The same for numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import ExtraTreesClassifier
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from scikd import DistilledClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> teacher = ExtraTreesClassifier(50, random_state=0)
    >>> student = DecisionTreeClassifier(max_depth=4, random_state=0)
    >>> distilled = DistilledClassifier(teacher, student, random_state=0, progress=False).fit(X, y)
    >>> distilled.predict_proba(X[:2]).shape
    (2, 2)
    >>> distilled.teacher_loss_ < distilled.student_loss_
    True
    """

    _classifier = True

    def __init__(
        self,
        teacher: Any = None,
        student: Any = None,
        *,
        soft_labels: SoftLabels = "auto",
        cv: Any = 5,
        teacher_weight: float | str = "auto",
        teacher_weight_bounds: tuple[float, float] = (-1.0, 2.0),
        augment: Any = None,
        n_augment: float = 1.0,
        store: Any = None,
        n_jobs: int | None = None,
        progress: Progress = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(
            teacher,
            student,
            cv=cv,
            teacher_weight=teacher_weight,
            teacher_weight_bounds=teacher_weight_bounds,
            augment=augment,
            n_augment=n_augment,
            store=store,
            n_jobs=n_jobs,
            progress=progress,
            random_state=random_state,
        )
        self.soft_labels = soft_labels

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        X_unlabelled: Any = None,
    ) -> DistilledClassifier:
        """Train the teachers, and distil them into the student.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,)
            Class labels: numbers, strings or booleans.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative weights; a weight of two is the same as the row twice.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group stay in one fold and are not independent in standard errors.
        X_unlabelled : like X, of shape (n_unlabelled, n_features), or None, default=None
            Further rows without truth, which the teachers label.

        Returns
        -------
        DistilledClassifier
            Itself, fitted.

        Raises
        ------
        TeacherError
            If a teacher fails or predicts something unusable; the message names it.
        InvalidInputError, ValueError
            If the inputs cannot be used, or there is only one class.
        """
        X, weight, X_unlabelled = self._checked_training(X, y, sample_weight, groups, X_unlabelled)
        y, self.classes_ = checked_labels(self, y, weight)
        self._fit(X, y, weight, groups, X_unlabelled)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities with the student alone.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            The inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.student_.predict_proba(self._checked_inputs(X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        """Predict classes with the student alone.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            The inputs.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def row_losses(self, y: Any, prediction: Any) -> np.ndarray:
        """Return the log-loss of every row, in nats; see `DistilledRegressor.row_losses`.

        Raises
        ------
        InvalidInputError
            If y holds labels that were not there in training.
        """
        unknown = np.setdiff1d(np.asarray(y), self.classes_)
        if unknown.size:
            message = f"Expected labels among {self.classes_.tolist()}; got {unknown.tolist()} too."
            raise InvalidInputError(message)
        return super().row_losses(y, prediction)

    def _default_teachers(self) -> dict[str, Any]:
        return {
            "random forest": RandomForestClassifier(200, random_state=0),
            "extra trees": ExtraTreesClassifier(200, random_state=0),
            "boosting": HistGradientBoostingClassifier(random_state=0),
        }

    def _student(self) -> Any:
        student = HistGradientBoostingClassifier(random_state=0)
        student = student if self.student is None else self.student
        resolve_soft_labels(student, self.soft_labels)
        return student

    @property
    def _how(self) -> SoftLabels:
        return resolve_soft_labels(self._student(), self.soft_labels)

    @property
    def _plain_targets(self) -> bool:
        return self._how != "replicate"

    @property
    def _judges(self) -> bool:
        # The temperature of log-odds is fitted on held-out rows, whatever the mixture.
        return super()._judges or self._how == "log_odds"

    def _truth(self, y: np.ndarray) -> np.ndarray:
        return (y[:, None] == self.classes_[None, :]).astype(np.float64)

    def _teach(self, student: Any, X: Any, targets: np.ndarray, weight: np.ndarray | None) -> Any:
        taught = SoftClassifier(student, self.classes_, self._how)
        return taught.fit(X, simplex_projection(targets), weight)

    def _answer(self, model: Any, X: Any) -> np.ndarray:
        if self._how == "replicate":
            return model.predict_proba(X)
        return model.log_odds(X)

    def _settled(self, raw: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
        if self._how == "replicate":
            return raw
        judge = SoftClassifier(None, self.classes_, self._how)
        return softmax(raw / judge.calibrate(raw, truth, weight), axis=1)

    def _settle_final(self, judge: Any) -> None:
        rows = judge.rows
        if self._how == "log_odds":
            raw = judge.raw(self.teacher_weight_)
            self.student_.calibrate(raw, judge.truth[rows], judge.weight[rows])

    def _loss(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        likelihood = (truth * prediction).sum(axis=1)
        return -np.log(np.clip(likelihood, LOSS_FLOOR, 1.0))
