"""Predictions of training rows by meta-models that were fitted without them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier

from scikd.exceptions import InvalidInputError, ScikdWarning
from scikd.out_of_fold import Fold, OutOfFold
from scikd.stacking._cubes import as_cube
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import check_problem, splits

__all__ = ["Lesson", "by_fold", "held_out_predictions", "meta_folds", "outer_predictions"]

_MOST_FOLDS = 10


@dataclass(frozen=True, eq=False)
class Lesson:
    """Truth, weights and groups of all training rows."""

    y: np.ndarray
    weight: np.ndarray | None
    groups: np.ndarray | None

    def teach(
        self, meta: Any, P: Predictions, rows: np.ndarray, fold: np.ndarray | list[Fold] | None
    ) -> Any:
        """Fit a meta-model to predictions of some rows, in place."""
        if isinstance(fold, list):  # rows of later folds must not judge earlier ones
            if "cv" in meta.get_params() and meta.cv is None:
                meta.set_params(cv=fold)
            fold = None
        weight, groups = (None if a is None else a[rows] for a in (self.weight, self.groups))
        return meta.fit(P.take(rows), self.y[rows], sample_weight=weight, groups=groups, fold=fold)


def meta_folds(oof: OutOfFold, rows: np.ndarray) -> np.ndarray | list[Fold] | None:
    """Return how a meta-model on some rows is to be judged.

    Parameters
    ----------
    oof : OutOfFold
        Predictions, and the folds that they come from.
    rows : ndarray
        The rows, sorted.

    Returns
    -------
    ndarray of shape (n_rows,), list of (ndarray, ndarray), or None
        The fold of every row, where each is in one, and all others train it. Where a fold trains
        on fewer (time series), pairs of numbers within `rows`. None where rows are in several
        folds, or in unknown ones.
    """
    if not oof.folds:
        return None
    tests = [np.intersect1d(rows, test) for _, test in oof.folds]
    trains = [np.intersect1d(rows, train) for train, _ in oof.folds]
    pairs = list(zip(trains, tests, strict=True))
    if any(len(train) + len(test) < len(rows) for train, test in pairs):
        place = [(np.searchsorted(rows, a), np.searchsorted(rows, b)) for a, b in pairs]
        return [(train, test) for train, test in place if len(train) and len(test)] or None
    if oof.counts[rows].max() > 1:
        return None
    fold = np.empty(len(rows), dtype=np.intp)
    for number, test in enumerate(tests):
        fold[np.searchsorted(rows, test)] = number
    return fold


def outer_predictions(lesson: Lesson, oof: OutOfFold, meta: Any) -> np.ndarray:
    """Predict every row by a meta-model fitted to the rows that its fold trains on.

    Parameters
    ----------
    lesson : Lesson
        All rows.
    oof : OutOfFold
        Their predictions.
    meta : estimator
        Not changed.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_classes)
        The mean over folds that test a row; NaN where there is none to learn from.
    """
    P = Predictions.of(oof)
    fold = meta_folds(oof, np.flatnonzero(P.covered))
    if not oof.folds or isinstance(fold, np.ndarray):
        codes = np.full(P.n_samples, -1)
        codes[P.covered] = 0 if fold is None else fold
        options = {"sample_weight": lesson.weight, "groups": lesson.groups}
        return held_out_predictions(meta, P, lesson.y, **options, fold=codes if oof.folds else None)
    return by_fold(lesson, P, oof.folds, [P] * len(oof.folds), meta)


def held_out_predictions(
    meta: Any,
    P: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    groups: Any = None,
    fold: Any = None,
    row_id: Any = None,
) -> np.ndarray:
    """Predict every row by a meta-model that is fitted without its fold.

    What a stack says of rows that it has not seen, for plots of calibration and for distilling.
    More than ten given folds are merged into ten.

    Parameters
    ----------
    meta : MetaRegressor, MetaClassifier, LinearCombiner or pool
        What to fit; it is not changed.
    P, y, sample_weight, groups, fold, row_id
        As in its `fit`.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_classes)
        Predictions in the unit of y, or probabilities in the order of the sorted labels or of the
        classes of P; NaN in rows that no model predicts.

    Raises
    ------
    InvalidInputError
        If the arguments do not fit, or nothing can be held out.
    """
    given = Predictions.of(P)
    classifier = is_classifier(meta)
    if classifier:
        given = as_cube(given, getattr(meta, "inputs", "proba"))
        meta = clone(meta).set_params(inputs="proba") if "inputs" in meta.get_params() else meta
    options = {"groups": groups, "fold": fold, "row_id": row_id}
    problem = check_problem(given, y, sample_weight, **options, classifier=classifier)
    if problem.fold is not None:
        merged = np.unique(problem.fold, return_inverse=True)[1] % _MOST_FOLDS
        problem = replace(problem, fold=merged)
    folds = splits(problem)
    if not folds:
        message = "Expected rows of at least two groups, so that a meta-model can leave some out."
        raise InvalidInputError(message)
    y = np.asarray(problem.P.classes)[problem.y] if classifier else problem.y
    lesson = Lesson(y, problem.weight, problem.groups)
    return by_fold(lesson, problem.P, folds, [problem.P] * len(folds), meta)


def by_fold(
    lesson: Lesson,
    P: Predictions,
    folds: Sequence[Fold],
    taught: Sequence[Predictions],
    meta: Any,
) -> np.ndarray:
    """Predict the test rows of every fold by a meta-model taught for it.

    Parameters
    ----------
    lesson : Lesson
        All rows.
    P : Predictions
        What the meta-models are asked with.
    folds : sequence of (ndarray, ndarray)
        Row numbers.
    taught : sequence of Predictions
        What each is taught with.
    meta : estimator
        Unfitted.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_classes)
        The mean over folds that test a row; NaN where there is none, or nothing to learn from.
    """
    numbers = P.values.ndim == 2
    total = np.zeros(P.n_samples if numbers else (P.n_samples, P.values.shape[2]))
    count = np.zeros((P.n_samples, *([1] * (total.ndim - 1))))
    meta = _unjudged(meta)
    for (train, test), part in zip(folds, taught, strict=True):
        heard = part.covered if lesson.weight is None else part.covered & (lesson.weight > 0)
        rows, asked = np.intersect1d(train, np.flatnonzero(heard)), test[P.covered[test]]
        if not len(rows) or not len(asked) or not (numbers or len(np.unique(lesson.y[rows])) > 1):
            continue
        with warnings.catch_warnings():  # the meta-model of all rows has warned already
            warnings.simplefilter("ignore", ScikdWarning)
            fitted = lesson.teach(clone(meta), part, rows, None)
        ask = fitted.predict if numbers else fitted.predict_proba
        total[asked] += ask(P.take(asked))
        count[asked] += 1
    return np.where(count > 0, total, np.nan) / np.maximum(count, 1)


def _unjudged(meta: Any) -> Any:
    """Return a copy that makes no score of its own, and whose folds are not those of all rows."""
    meta = clone(meta)
    if "evaluate" in meta.get_params():
        meta.set_params(evaluate=None)
    if isinstance(getattr(meta, "cv", None), list):
        meta.set_params(cv=None)
    return meta
