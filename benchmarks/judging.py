"""Why mixtures are judged on nested labels: three estimates of what teachers bring a student.

A student is fitted on the teachers' out-of-fold labels, and its RMSE is compared with that of the
same student fitted on the truth: on held-out rows with plain out-of-fold labels, on held-out rows
with nested labels (which know nothing of these rows), and on test rows.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone

from benchmarks.harness import Row, row
from benchmarks.students import make_students
from scikd.demo.suites import make_teachers
from scikd.demo.tables import Table, load_table
from scikd.demo.tabular import split_table
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import StorageError
from scikd.folds import grouped_folds
from scikd.nested import nested_predict
from scikd.out_of_fold import OutOfFold

__all__ = ["run"]

logger = logging.getLogger("scikd.benchmarks.judging")

TABLES = ("california", "kin8nm", "abalone", "white_wine")
TEACHERS = ("boosting", "network", "kernel ridge")
N_SPLITS = 5
LARGEST = 2000


def run(quick: bool) -> list[Row]:
    """Run all tables; about five minutes, or half a minute with `quick`."""
    rows: list[Row] = []
    for name in ("concrete",) if quick else TABLES:
        try:
            table = load_table(name)
        except StorageError as error:
            logger.warning("left out %s: %s", name, error)
            continue
        splits = Parallel(n_jobs=-1)(
            delayed(_one_split)(table, seed) for seed in range(2 if quick else N_SPLITS)
        )
        rows += [
            _row(name, student, np.array([split[student] for split in splits]))
            for student in splits[0]
        ]
    return rows


def _row(table: str, student: str, gains: np.ndarray) -> Row:
    """Make a row of shape (n_splits, 3) gains: plain, nested, test."""
    plain, nested, test = gains.T
    one = row(
        f"{table}, {student}: error of the gain judged on nested labels",
        float(np.abs(nested - test).mean()),
        "share of the RMSE",
        "judged on plain out-of-fold labels",
        float(np.abs(plain - test).mean()),
        repeats=len(gains),
    )
    means = "; ".join(
        f"{name} {values.mean():+.1%} ± {values.std(ddof=1) / np.sqrt(len(values)):.1%}"
        for name, values in {"plain": plain, "nested": nested, "test": test}.items()
    )
    one["note"] = f"gain of teacher labels over truth, mean ± one standard error: {means}"
    return one


def _one_split(table: Table, seed: int) -> dict[str, tuple[float, float, float]]:
    """Return the gain (share of the RMSE) by student: plain, nested and on test rows."""
    train, test = split_table(table, seed, largest=LARGEST)
    X, y, X_test, y_test = table.X[train], table.y[train], table.X[test], table.y[test]
    suite = make_teachers(table.task, seed)
    ensemble = TeacherEnsemble(
        {name: suite[name] for name in TEACHERS}, weights="fit", progress=False
    )
    folds = grouped_folds(X, y, 5, random_state=seed)

    def labels(oof: OutOfFold) -> np.ndarray:
        return ensemble.calibrate(oof, y).combine(oof).mean["value"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # networks that do not converge
        plain = labels(ensemble.cross_predict(X, y, folds))
        parts = nested_predict(ensemble.teachers, X, y, folds, progress=False)
    nested = [labels(part) for part in parts]

    def guesses(
        student: Any, targets: np.ndarray, rows: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict rows by the student that learnt the truth, and by that which learnt targets."""
        alone = clone(student).fit(X[seen], y[seen]).predict(rows)
        return alone, clone(student).fit(X[seen], targets[seen]).predict(rows)

    gains = {}
    for name, student in make_students(table, seed).items():
        errors = np.zeros((3, 2))  # plain, nested, test; truth, teacher
        for (seen, held), part in zip(folds, nested, strict=True):
            for kind, targets in enumerate((plain, part)):
                for column, guess in enumerate(guesses(student, targets, X[held], seen)):
                    errors[kind, column] += np.square(guess - y[held]).sum()
        for column, guess in enumerate(guesses(student, plain, X_test, np.arange(len(X)))):
            errors[2, column] = np.square(guess - y_test).sum()
        gains[name] = tuple(1.0 - np.sqrt(errors[:, 1] / errors[:, 0]))
    return gains
