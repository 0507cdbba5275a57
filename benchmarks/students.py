"""Distilled students on real tables: against the student alone, its teachers, naive distillation.

Every table is split five times, with fixed seeds, into at most 1,500 training and 3,000 test rows,
and taught to two students: small boosted trees, and a single decision tree. All splits are
reported; differences carry a standard error over them. The naive distillation is what is often
done: the teachers' in-sample labels and no ground truth.
"""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from benchmarks.harness import Row, row
from scikd.demo.suites import make_student
from scikd.demo.tables import Table, load_table
from scikd.demo.tabular import make_distilled, split_table
from scikd.exceptions import StorageError
from scikd.students.measurement import latencies
from scikd.teachers import CallableTeacher

__all__ = ["run"]

logger = logging.getLogger("scikd.benchmarks.students")

TABLES = (
    "california",
    "kin8nm",
    "abalone",
    "white_wine",
    "adult",
    "compas",
    "five_classes",
    "mammography",
)
QUICK_TABLES = ("concrete", "breast_cancer")
N_SPLITS = 5
LARGEST = 1500
LARGEST_TEST = 3000
BATCH = 10_000
PEERS = {"alone": "student alone", "naive": "naive distillation", "teachers": "consensus"}


def run(quick: bool) -> list[Row]:
    """Run all tables; about half an hour, or a minute with `quick`."""
    rows: list[Row] = []
    for name in QUICK_TABLES if quick else TABLES:
        try:
            table = load_table(name)
        except StorageError as error:
            logger.warning("left out %s: %s", name, error)
            continue
        rows += table_rows(table, 2 if quick else N_SPLITS)
    return rows


def table_rows(table: Table, n_splits: int) -> list[Row]:
    """Run the splits of one table on all cores, then time teachers and students alone."""
    start = time.perf_counter()
    splits = Parallel(n_jobs=-1)(delayed(one_split)(table, seed) for seed in range(n_splits))
    logger.info("%s: %.0f s", table.name, time.perf_counter() - start)
    rows = []
    for student in splits[0]:
        outcomes = [split[student] for split in splits]
        rows += [_loss_row(table, student, outcomes, peer) for peer in PEERS]
        distilled, X_test = outcomes[0].distilled, outcomes[0].X_test
        teachers, own = (
            latencies(predict, X_test, [BATCH])[0].p50
            for predict in (distilled.teacher_.predict, distilled.predict)
        )
        name = f"{table.name}, {student}: distilled, {BATCH:,} rows"
        rows.append(row(name, own, "s", "teacher ensemble", teachers))
    return rows


@dataclass(frozen=True, eq=False)
class Outcome:
    """One student on one split: losses by contestant, and the fitted estimator."""

    losses: dict[str, float]
    distilled: Any
    X_test: np.ndarray


def _loss_row(table: Table, student: str, outcomes: list[Outcome], peer: str) -> Row:
    ours = np.array([outcome.losses["distilled"] for outcome in outcomes])
    theirs = np.array([outcome.losses[peer] for outcome in outcomes])
    gain = theirs - ours
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    unit = "log-loss" if table.task == "classification" else "RMSE"
    one = row(
        f"{table.name}, {student}: distilled",
        float(ours.mean()),
        unit,
        PEERS[peer],
        float(theirs.mean()),
        repeats=len(gain),
    )
    weights = [round(outcome.distilled.teacher_weight_, 2) for outcome in outcomes]
    one["note"] = (
        f"gain {gain.mean():+.4g} ± {error:.2g} (one standard error over splits); by split "
        f"{[float(f'{g:.3g}') for g in gain]}; weight of the teachers {weights}"
    )
    return one


def make_students(table: Table, seed: int) -> dict[str, Any]:
    """Return the unfitted students of a table."""
    tree = DecisionTreeClassifier if table.task == "classification" else DecisionTreeRegressor
    return {
        "boosted trees": make_student(table.name, table.task, seed),
        "one tree": tree(min_samples_leaf=5, random_state=seed),
    }


def one_split(table: Table, seed: int) -> dict[str, Outcome]:
    """Train teachers once and every student on one split; return the outcomes by student."""
    classifier = table.task == "classification"
    train, test = split_table(table, seed, largest=max(LARGEST, LARGEST_TEST))
    train, test = train[:LARGEST], test[:LARGEST_TEST]
    X, y, X_test, y_test = table.X[train], table.y[train], table.X[test], table.y[test]
    outcomes = {}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of teachers that are poor, or do not converge
        for name, student in make_students(table, seed).items():
            # The second student finds its teachers' labels in the store.
            distilled = make_distilled(table, student, seed, store=folder, progress=False)
            distilled.fit(X, y)
            alone = clone(student).fit(X, y)
            models = {"distilled": distilled, "alone": alone, "naive": _naive(distilled, X, y)}
            predicted = {
                key: model.predict_proba(X_test) if classifier else model.predict(X_test)
                for key, model in models.items()
            }
            predicted["teachers"] = distilled.teacher_.predict(X_test)[distilled.oof_.quantity]
            means = {
                key: float(distilled.row_losses(y_test, prediction).mean())
                for key, prediction in predicted.items()
            }
            losses = means if classifier else {key: mean**0.5 for key, mean in means.items()}
            outcomes[name] = Outcome(losses, distilled, X_test)
    return outcomes


def _naive(distilled: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """Return the student that learnt the refitted teachers' labels of their own training rows."""
    (quantity,) = distilled.teacher_.quantities
    in_sample = CallableTeacher(
        lambda rows: distilled.teacher_.predict(rows)[quantity.name],
        quantities=(quantity,),
        classes=distilled.teacher_.classes,
    )
    naive = clone(distilled).set_params(teacher=in_sample, teacher_weight=1.0)
    return naive.fit(X, y)
