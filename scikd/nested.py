"""Nested out-of-fold predictions: labels for judging what learns from labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scikd._progress import Progress
from scikd._training import Errors, Fold, common_quantity, fold_results
from scikd.exceptions import TeacherError
from scikd.labels import LabelStore
from scikd.out_of_fold import OutOfFold
from scikd.teachers import Teacher, count_samples

__all__ = ["nested_predict"]


def nested_predict(
    teachers: Sequence[Teacher],
    X: Any,
    y: Any,
    folds: Sequence[Fold],
    *,
    sample_weight: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    store: LabelStore | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
    errors: Errors = "raise",
) -> tuple[OutOfFold, ...]:
    """Predict the training rows of every fold by teachers that saw neither them nor its test rows.

    A student that is judged on the test rows of a fold must be taught labels that know nothing of
    these rows. Plain out-of-fold labels do know: each came from teachers that were trained on the
    other folds, the one at hand among them. Here every pair of folds has teachers of its own,
    trained on what both folds train on: ``n_folds * (n_folds - 1) / 2`` of each for a partition.

    Parameters
    ----------
    teachers, X, y, sample_weight, classes, store, n_jobs, progress, errors
        As in `cross_predict`.
    folds : sequence of (ndarray, ndarray)
        From `make_folds`.

    Returns
    -------
    tuple of OutOfFold
        One for every fold, covering its training rows as far as other folds test them; empty if
        no two folds have training rows in common (two folds, or one).
    """
    quantity = common_quantity(teachers, classes)
    n_samples = count_samples(X)
    label = None if classes is None else np.unique(np.asarray(y), return_inverse=True)[1]
    pairs, wanted = _pairs(folds, n_samples, label)
    if not pairs:
        return ()
    members: list[Any] = [None] * len(folds)
    for index, number, values in fold_results(
        teachers, X, y, pairs, sample_weight, classes, store, n_jobs, progress, errors
    ):
        if values is None:
            continue
        for one, (train, _) in enumerate(folds):
            if members[one] is None:
                members[one] = np.full((len(teachers), n_samples, *values.shape[1:]), np.nan)
            if number is None:
                members[one][index, train] = values[train]
            elif (rows := wanted.get((number, one))) is not None:
                members[one][index, rows] = values[np.searchsorted(pairs[number][1], rows)]
    covered = np.zeros((len(folds), n_samples), dtype=np.intp)
    for (_, one), rows in wanted.items():
        covered[one, rows] = 1
    names = tuple(teacher.name for teacher in teachers)
    if members[0] is None:
        message = f"All of {len(teachers)} teachers failed in every pair of folds."
        raise TeacherError(message)
    return tuple(
        OutOfFold(names, quantity.name, values, counts, classes)
        for values, counts in zip(members, covered, strict=True)
    )


def _pairs(
    folds: Sequence[Fold], n_samples: int, label: np.ndarray | None
) -> tuple[tuple[Fold, ...], dict[tuple[int, int], np.ndarray]]:
    """Return (train, test) of the pairs of folds, and which rows pair p predicts for fold k.

    For each fold the others are gone through from the nearest on, until its training rows are
    covered: repeats of a partition would otherwise make a great many pairs. A pair whose common
    training rows hold one class only is left out.
    """
    numbers: dict[frozenset[int], int] = {}
    trains: list[np.ndarray] = []
    wanted: dict[tuple[int, int], np.ndarray] = {}
    for one, (train, _) in enumerate(folds):
        missing = np.zeros(n_samples, dtype=bool)
        missing[train] = True
        nearest = np.argsort(np.abs(np.arange(len(folds)) - one), kind="stable")
        for other in nearest.tolist():
            rows = folds[other][1]
            rows = np.unique(rows[missing[rows]])
            if other == one or not rows.size:
                continue
            common = np.intersect1d(train, folds[other][0])
            if not common.size or (label is not None and np.ptp(label[common]) == 0):
                continue  # nothing to learn from
            missing[rows] = False
            pair = frozenset({one, other})
            if pair not in numbers:
                numbers[pair] = len(trains)
                trains.append(common)
            wanted[numbers[pair], one] = rows
    tests = [
        np.unique(np.concatenate([rows for (p, _), rows in wanted.items() if p == number]))
        for number in range(len(trains))
    ]
    return tuple(zip(trains, tests, strict=True)), wanted
