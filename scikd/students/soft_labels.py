"""Teach a learner numbers or class probabilities, whatever it accepts.

A learner of numbers is fitted on the targets as they are. Classifiers take hard labels only, so
`SoftClassifier` offers them three ways to learn probabilities:

``"replicate"``
    every row is repeated once per class, weighted by its probability. For a learner that minimises
    a weighted log-loss this is exactly the soft cross-entropy.
``"log_odds"``
    a *regressor* learns centred log-probabilities; a softmax at one fitted temperature brings them
    back.
``"objective"``
    a boosting *regressor* (LightGBM, XGBoost) minimises the soft cross-entropy itself, one model
    per class, through its custom objective.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils import get_tags

from scikd.exceptions import InvalidInputError
from scikd.objectives import BinaryCrossEntropy
from scikd.out_of_fold import align_classes, take
from scikd.teachers import count_samples, fit_weighted, takes_weights

__all__ = ["SoftClassifier", "SoftLabels", "resolve_soft_labels", "simplex_projection"]

SoftLabels = Literal["auto", "replicate", "log_odds", "objective"]

# Log-odds of a certain label are infinite; this caps them at about ±4.6.
PROBABILITY_FLOOR = 0.01
# Copies of a row below this share change nothing that a learner could see.
SMALLEST_SHARE = 1e-6


def simplex_projection(targets: np.ndarray) -> np.ndarray:
    """Return the nearest probabilities (Euclidean) of every row.

    A mixture of truth and teacher whose weight leaves [0, 1] may leave the simplex.

    Parameters
    ----------
    targets : ndarray of shape (n_samples, n_classes)
        Any numbers.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Non-negative rows that sum to one (Duchi et al. 2008, Figure 1); rows that were
        probabilities already stay as they are.
    """
    ordered = np.sort(targets, axis=1)[:, ::-1]
    excess = np.cumsum(ordered, axis=1) - 1.0
    rank = np.arange(1, targets.shape[1] + 1)
    size = np.count_nonzero(ordered - excess / rank > 0, axis=1)
    threshold = np.take_along_axis(excess, size[:, None] - 1, axis=1) / size[:, None]
    return np.maximum(targets - threshold, 0.0)


def resolve_soft_labels(learner: Any, how: SoftLabels) -> SoftLabels:
    """Choose the way to teach probabilities that fits a learner.

    Parameters
    ----------
    learner : estimator
        The student.
    how : {"auto", "replicate", "log_odds", "objective"}
        "auto" replicates for classifiers, uses the objective of LightGBM and XGBoost regressors,
        and log-odds for any other regressor.

    Returns
    -------
    {"replicate", "log_odds", "objective"}
        The way.

    Raises
    ------
    InvalidInputError
        If the learner cannot be taught that way.
    """
    name = type(learner).__name__
    boosting = type(learner).__module__.partition(".")[0] in {"lightgbm", "xgboost"}
    if how == "auto":
        of_numbers: SoftLabels = "objective" if boosting else "log_odds"
        how = "replicate" if is_classifier(learner) else of_numbers
    wants = {"replicate": is_classifier, "log_odds": is_regressor, "objective": is_regressor}
    if how not in wants:
        message = f"Expected soft_labels to be 'auto' or one of {sorted(wants)}; got {how!r}."
        raise InvalidInputError(message)
    if not wants[how](learner):
        kind = "classifier" if how == "replicate" else "regressor"
        message = f"soft_labels={how!r} teaches a {kind}; the student {name} is none."
        raise InvalidInputError(message)
    if how == "objective" and not boosting:
        message = f"soft_labels='objective' needs a LightGBM or XGBoost regressor; got {name}."
        raise InvalidInputError(message)
    if how == "replicate" and not takes_weights(learner):
        message = (
            f"soft_labels='replicate' needs a classifier that takes sample_weight; {name} does "
            "not. Pass a regressor as the student: it is then taught log-odds."
        )
        raise InvalidInputError(message)
    return how


class SoftClassifier:
    """A learner that was taught class probabilities.

    Parameters
    ----------
    learner : estimator
        A classifier or regressor; it is cloned.
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    how : {"replicate", "log_odds", "objective"}
        The way to teach it.

    Attributes
    ----------
    learners_ : list of estimator
        The fitted learners: one, or one per class.
    temperature_ : float
        Divides the log-odds before the softmax; see `calibrate`.
    """

    def __init__(self, learner: Any, classes: np.ndarray, how: SoftLabels) -> None:
        self.learner = learner
        self.classes = classes
        self.how = how
        self.temperature_ = 1.0

    def fit(
        self, X: Any, proba: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> SoftClassifier:
        """Teach the learner.

        Parameters
        ----------
        X : array-like, frame or sparse matrix of shape (n_samples, n_features)
            Inputs.
        proba : ndarray of shape (n_samples, n_classes)
            Target probabilities.
        sample_weight : ndarray of shape (n_samples,) or None, default=None
            Weights.

        Returns
        -------
        SoftClassifier
            Itself, fitted.
        """
        if self.how == "replicate":
            self.learners_ = [self._fit_replicated(X, proba, sample_weight)]
            return self
        if self.how == "objective":
            targets = proba[:, 1:] if len(self.classes) == 2 else proba
            learner = clone(self.learner).set_params(objective=BinaryCrossEntropy().as_boosting())
            self.learners_ = [
                fit_weighted(clone(learner), X, target, sample_weight) for target in targets.T
            ]
            return self
        floored = np.maximum(proba, PROBABILITY_FLOOR)
        logs = np.log(floored / floored.sum(axis=1, keepdims=True))
        targets = logs - logs.mean(axis=1, keepdims=True)
        if len(self.classes) == 2:
            targets = targets[:, 1:]
        if targets.shape[1] > 1 and get_tags(self.learner).target_tags.multi_output:
            self.learners_ = [fit_weighted(clone(self.learner), X, targets, sample_weight)]
        else:
            self.learners_ = [
                fit_weighted(clone(self.learner), X, target, sample_weight) for target in targets.T
            ]
        return self

    def _fit_replicated(self, X: Any, proba: np.ndarray, sample_weight: np.ndarray | None) -> Any:
        learner = clone(self.learner)
        # XGBoost knows no labels but 0, 1, 2…
        classes = np.arange(len(self.classes)) if _of_xgboost(learner) else self.classes
        if ((proba == 0) | (proba == 1)).all():  # hard labels need no copies
            labels = classes[proba.argmax(axis=1)]
            return fit_weighted(learner, X, labels, sample_weight)
        rows, columns = np.nonzero(proba > SMALLEST_SHARE)
        weight = proba[rows, columns]
        if sample_weight is not None:
            weight = weight * sample_weight[rows]
        return fit_weighted(learner, take(X, rows), classes[columns], weight)

    def log_odds(self, X: Any) -> np.ndarray:
        """Return class scores, shape (n_samples, n_classes), whose softmax is `predict_proba`.

        They are not divided by the temperature.
        """
        if self.how == "replicate":
            with np.errstate(divide="ignore"):
                return np.log(self.predict_proba(X))
        raw = [_raw_scores(learner, X).reshape(count_samples(X), -1) for learner in self.learners_]
        scores = np.concatenate(raw, axis=1)
        if self.how == "objective":
            if scores.shape[1] == 1:
                return np.hstack([log_expit(-scores), log_expit(scores)])
            return np.log(np.maximum(expit(scores), np.finfo(np.float64).tiny))
        return np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores

    def calibrate(self, log_odds: np.ndarray, truth: np.ndarray, weight: Any = None) -> float:
        """Set the temperature that minimises the log-loss of held-out scores.

        Only log-odds need it: they were learnt by least squares, which does not see the loss.

        Parameters
        ----------
        log_odds : ndarray of shape (n_samples, n_classes)
            Held-out scores from `log_odds`.
        truth : ndarray of shape (n_samples, n_classes)
            One-hot truth.
        weight : ndarray of shape (n_samples,) or None, default=None
            Weights.

        Returns
        -------
        float
            The temperature.
        """
        if self.how == "log_odds":

            def log_loss(log_temperature: float) -> float:
                scores = log_softmax(log_odds / np.exp(log_temperature), axis=1)
                return -float(np.average((truth * scores).sum(axis=1), weights=weight))

            best = minimize_scalar(log_loss, bounds=(-4.0, 4.0), method="bounded")
            self.temperature_ = float(np.exp(best.x))
        return self.temperature_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, shape (n_samples, n_classes)."""
        if self.how == "replicate":
            (learner,) = self.learners_
            proba = np.asarray(learner.predict_proba(X), dtype=np.float64)
            known = self.classes[learner.classes_] if _of_xgboost(learner) else learner.classes_
            return align_classes(proba, known, self.classes, type(learner).__name__)
        return softmax(self.log_odds(X) / self.temperature_, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of every sample, shape (n_samples,)."""
        return self.classes[self.predict_proba(X).argmax(axis=1)]


def _of_xgboost(learner: Any) -> bool:
    return type(learner).__module__.partition(".")[0] == "xgboost"


def _raw_scores(learner: Any, X: Any) -> np.ndarray:
    if _of_xgboost(learner):
        return np.asarray(learner.predict(X, output_margin=True), dtype=np.float64)
    return np.asarray(learner.predict(X), dtype=np.float64)
