"""The score of a whole stack: base models, too, are trained again without each fold."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from scikd._aggregator import PROBABILITY_FLOOR
from scikd.exceptions import InvalidInputError
from scikd.nested import nested_predict
from scikd.out_of_fold import OutOfFold
from scikd.stacking._outer import Lesson, by_fold
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import check_problem
from scikd.stacking.combiners import BestSingle, MeanCombiner
from scikd.stacking.comparison import Comparison, count_groups, deal_bins
from scikd.stacking.pools import BestPool, MeanPool
from scikd.teachers import EstimatorTeacher

__all__ = ["nested_comparison"]


def nested_comparison(
    lesson: Lesson,
    teachers: list[EstimatorTeacher],
    X: Any,
    oof: OutOfFold,
    meta: Any,
    training: dict[str, Any],
    *,
    n_required: int,
) -> tuple[np.ndarray, Comparison]:
    """Compare the whole stack with the mean and the best single model, base models refitted.

    Parameters
    ----------
    lesson : Lesson
        All rows.
    teachers : list of EstimatorTeacher
        Base models.
    X : array-like, frame or sparse matrix of shape (n_samples, n_features)
        Their inputs.
    oof : OutOfFold
        Their predictions.
    meta : estimator
        Unfitted.
    training : dict
        Passed to `nested_predict`.
    n_required : int
        How many models the stack uses.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_classes)
        Predictions of every row by a stack that has seen nothing of its fold.
    Comparison
        Of ``"mean"``, ``"best_single"`` and ``"stack"``.
    """
    nested = nested_predict(teachers, X, lesson.y, oof.folds, **training)
    if not nested:
        message = (
            "Expected at least 3 folds that share training rows for evaluate='nested': base models "
            f"are trained without two folds at a time; got {len(oof.folds)} folds."
        )
        raise InvalidInputError(message)
    P, taught = Predictions.of(oof), [Predictions.of(part) for part in nested]
    classes = oof.classes is not None
    ways = {
        "mean": MeanPool() if classes else MeanCombiner(),
        "best_single": BestPool() if classes else BestSingle(),
        "stack": meta,
    }
    predicted, seconds = {}, []
    for name, way in ways.items():
        start = time.perf_counter()
        predicted[name] = by_fold(lesson, P, oof.folds, taught, way)
        seconds.append((time.perf_counter() - start) / len(oof.folds))
    problem = check_problem(P, lesson.y, lesson.weight, groups=lesson.groups, classifier=classes)
    bins = deal_bins(problem)
    known = np.isfinite(predicted["stack"].reshape(len(bins), -1)).all(axis=1) & (bins >= 0)
    losses = np.stack([_losses(problem.y, values)[known] for values in predicted.values()])
    w, there = problem.weight[known], np.unique(bins[known], return_inverse=True)[1]
    comparison = Comparison(
        names=tuple(ways),
        default="stack",
        loss_name="log-loss" if classes else "RMSE",
        sums=np.stack([np.bincount(there, weights=w * row) for row in losses], axis=1),
        weight=np.bincount(there, weights=w),
        models=(P.n_models, 1, n_required),
        seconds=tuple(seconds),
        n_groups=count_groups(problem, np.flatnonzero(known)),
    )
    return predicted["stack"], comparison


def _losses(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    if predicted.ndim == 1:
        return np.square(y - predicted)
    true = np.take_along_axis(predicted, y[:, None].astype(np.intp), axis=1)[:, 0]
    return -np.log(np.maximum(true, PROBABILITY_FLOOR))
