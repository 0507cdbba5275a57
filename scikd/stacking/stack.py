"""Stacks: from base models to one prediction, by way of their out-of-fold predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import _check_y, check_is_fitted

from scikd._table_inputs import checked_labels
from scikd.exceptions import InvalidInputError
from scikd.stacking._stack import Stack
from scikd.stacking.meta import MetaRegressor
from scikd.stacking.meta_classifier import MetaClassifier

__all__ = ["RegularizedStackingClassifier", "RegularizedStackingRegressor"]


class RegularizedStackingRegressor(RegressorMixin, Stack):
    """Stack regressors: train them on folds, combine what they predict for rows not seen.

    The out-of-fold predictions are a result in their own right (`oof_`), from any splitter: a
    `TimeSeriesSplit` covers some rows, and the meta-model learns from these. `predict` asks only
    the models that the meta-model gave a weight, and only these are fitted to all rows.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Base models by name. They are cloned; one in a `sklearn.frozen.FrozenEstimator` stays as it
        is. ``"drop"`` leaves a name out.
    meta : MetaRegressor, LinearCombiner or None, default=None
        What combines them; None is `MetaRegressor` with its defaults.
    cv : int, splitter or iterable of (train, test), default=5
        Folds. With an int, copies of a row stay in one fold. Of rows that several folds test
        (repeated cross-validation) the mean prediction counts.
    evaluate : {"outer", "nested"}, default="outer"
        ``"outer"`` leaves the score to the meta-model: it is fitted again without each fold, on
        predictions whose base models saw that fold, so that it is too good where these learn
        targets by heart. ``"nested"`` also trains base models without
        two folds at a time, ``n_folds * (n_folds - 1) / 2`` further times each, and so knows
        nothing of the rows that it is scored on.
    errors : {"raise", "missing"}, default="raise"
        What to do where a base model fails in a fold: stop, or warn and go on without its
        predictions there. A failure on all rows is always an error.
    store : LabelStore, path or None, default=None
        Where to keep finished predictions of every model and fold: a fit that was stopped goes on.
    n_jobs : int or None, default=None
        As in joblib, over models and folds.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.
    random_state : int, RandomState or None, default=None
        Order in which rows are dealt to folds. Models have seeds of their own.

    Attributes
    ----------
    oof_ : OutOfFold
        Out-of-fold predictions of every base model; NaN in rows that are not covered.
    meta_ : estimator
        The fitted meta-model, with weights and diagnostics.
    required_estimators_ : tuple of str
        The models that `predict` needs.
    estimators_ : list of estimator
        These, fitted to all rows.
    named_estimators_ : Bunch
        The same by name.
    comparison_ : Comparison or None
        Losses of combiners on held-out rows.
    score_ : tuple or None
        Loss on held-out rows in the unit of y (RMSE), the ends of its 95 % interval, and its kind.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had names.

    Warns
    -----
    MissingPredictionsWarning
        If a base model fails in a fold, with ``errors="missing"``.

    See Also
    --------
    RegularizedStackingClassifier : The same for class probabilities.
    MetaRegressor : For those who have the out-of-fold predictions already.

    Notes
    -----
    Base models get `sample_weight` if they take it, of a pipeline the last step. With metadata
    routing those get it that ask for it by ``set_fit_request(sample_weight=True)``. The meta-model
    always does. `groups` go to the splitter and to the meta-model, and nothing else is passed on.
    Rows of weight zero train nobody.

    .. warning:: A frozen estimator is taken at its word: if it was trained on these very rows, its
       predictions are in-sample. Pass `oof` to `fit` instead.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import RidgeCV
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from scikd.stacking import RegularizedStackingRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> models = [("ridge", RidgeCV()), ("neighbours", KNeighborsRegressor(20))]
    >>> stack = RegularizedStackingRegressor(models, random_state=0, progress=False).fit(X, y)
    >>> stack.oof_.members.shape
    (2, 442)
    """

    _classifier = False

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None, oof: Any = None
    ) -> RegularizedStackingRegressor:
        """Train base models on folds, the meta-model on their predictions, and what it needs.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,)
            Training targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0; a weight of two is the same as the row twice.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group stay in one fold, and are one in intervals.
        oof : OutOfFold, array-like, frame, mapping or None, default=None
            Out-of-fold predictions that are there already, as for `MetaRegressor.fit`: columns in
            the order of `estimators`, or named. Nothing is trained on folds then, and estimators
            that are fitted stay as they are.

        Returns
        -------
        RegularizedStackingRegressor
            Itself, fitted.

        Raises
        ------
        TeacherError
            If a base model fails or predicts something unusable; the message names it.
        InvalidInputError, ValueError
            If the inputs cannot be used.
        """
        X, weight = self._checked_training(X, y, sample_weight, groups)
        y = _check_y(y, y_numeric=True, estimator=self)
        self._fit(X, y.astype(np.float64), weight, groups, oof)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Combine the predictions of the required estimators.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            The inputs.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the unit of y.
        """
        check_is_fitted(self)
        return np.asarray(self.meta_.predict(self._combined(X)))

    def _default_meta(self) -> MetaRegressor:
        return MetaRegressor()


class RegularizedStackingClassifier(ClassifierMixin, Stack):
    """Stack classifiers: train them on folds, pool the probabilities of rows not seen.

    As `RegularizedStackingRegressor`, for class probabilities.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Classifiers with `predict_proba`, by name. They are cloned; one in a
        `sklearn.frozen.FrozenEstimator` stays as it is. ``"drop"`` leaves a name out.
    meta : MetaClassifier, pool or None, default=None
        What combines them; None is `MetaClassifier` with its defaults.
    cv : int, splitter or iterable of (train, test), default=5
        Folds; an int is stratified. Of rows that several folds test the mean probability counts.
    evaluate, errors, store, n_jobs, progress, random_state
        As in `RegularizedStackingRegressor`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    oof_ : OutOfFold
        Out-of-fold probabilities of every base model; NaN in rows that are not covered.
    meta_ : estimator
        The fitted meta-model, with weights and diagnostics.
    required_estimators_ : tuple of str
        The models that `predict` needs.
    estimators_ : list of estimator
        These, fitted to all rows.
    named_estimators_ : Bunch
        The same by name.
    comparison_ : Comparison or None
        Losses of pools on held-out rows.
    score_ : tuple or None
        Log-loss on held-out rows in nats, the ends of its 95 % interval, and its kind.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had names.

    See Also
    --------
    RegularizedStackingRegressor : The same for numbers.
    MetaClassifier : For those who have the out-of-fold probabilities already.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from scikd.stacking import RegularizedStackingClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> models = [("bayes", GaussianNB()), ("neighbours", KNeighborsClassifier())]
    >>> stack = RegularizedStackingClassifier(models, random_state=0, progress=False).fit(X, y)
    >>> stack.predict_proba(X[:1]).shape
    (1, 3)
    """

    _classifier = True
    classes_: np.ndarray

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None, oof: Any = None
    ) -> RegularizedStackingClassifier:
        """Train base models on folds, the meta-model on their probabilities, and what it needs.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0; a weight of two is the same as the row twice.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group stay in one fold, and are one in intervals.
        oof : OutOfFold, array-like, mapping or None, default=None
            Out-of-fold probabilities that are there already, as for `MetaClassifier.fit`.

        Returns
        -------
        RegularizedStackingClassifier
            Itself, fitted.

        Raises
        ------
        TeacherError
            If a base model fails or predicts something unusable; the message names it.
        InvalidInputError, ValueError
            If the inputs cannot be used.
        """
        X, weight = self._checked_training(X, y, sample_weight, groups)
        y, self.classes_ = checked_labels(self, y, weight)
        unheard = np.setdiff1d(y, self.classes_)
        if len(unheard):
            message = f"Expected every class to have weight; {unheard.tolist()} have none."
            raise InvalidInputError(message)
        self._fit(X, y, weight, groups, oof)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Pool the probabilities of the required estimators.

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
        return np.asarray(self.meta_.predict_proba(self._combined(X)))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of every row, shape (n_samples,)."""
        proba = self.predict_proba(X)
        labels: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return labels

    def _default_meta(self) -> MetaClassifier:
        return MetaClassifier()
