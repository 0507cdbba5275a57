"""Distilled students on real tables: against the student alone, its teachers, naive distillation.

Every table is split five times, with fixed seeds, into at most 3,000 training and 3,000 test rows.
All five are reported; differences carry a standard error over the splits. The naive distillation is
what is often done: the teachers' in-sample labels, no ground truth, no augmentation.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone

from benchmarks.harness import Row, row
from scikd.demo.tables import Table, load_table
from scikd.demo.tabular import make_distilled, split_table
from scikd.exceptions import DistillationWarning, StorageError
from scikd.students.measurement import latencies
from scikd.teachers import CallableTeacher

__all__ = ["run"]

logger = logging.getLogger("scikd.benchmarks.students")

TABLES = (
    "california",
    "kin8nm",
    "bike",
    "power_plant",
    "abalone",
    "white_wine",
    "adult",
    "credit",
    "compas",
    "five_classes",
    "mammography",
)
QUICK_TABLES = ("concrete", "breast_cancer")
N_SPLITS = 5
LARGEST = 3000
BATCH = 10_000


def run(quick: bool) -> list[Row]:
    """Run all tables; about half an hour, or a minute with `quick`."""
    rows: list[Row] = []
    for name in QUICK_TABLES if quick else TABLES:
        try:
            table = load_table(name)
        except StorageError as error:
            logger.warning("left out %s: %s", name, error)
            continue
        rows += _table_rows(table, 2 if quick else N_SPLITS)
    return rows


def _table_rows(table: Table, n_splits: int) -> list[Row]:
    """Run the splits of one table on all cores, then time teacher and student alone."""
    start = time.perf_counter()
    results = Parallel(n_jobs=-1)(delayed(_one_split)(table, seed) for seed in range(n_splits))
    losses = {name: np.array([r[0][name] for r in results]) for name in results[0][0]}
    teacher, student, X_test = results[0][1]
    times = {
        name: latencies(predict, X_test, [BATCH])[0].p50
        for name, predict in {"teachers": teacher.predict, "distilled": student.predict}.items()
    }
    unit = "log-loss" if table.task == "classification" else "RMSE"
    logger.info("%s: %.0f s", table.name, time.perf_counter() - start)
    weights = [round(r[2], 2) for r in results]
    rows = [
        _loss_row(table, losses, peer, unit, weights) for peer in ("alone", "naive", "teachers")
    ]
    speed = row(
        f"{table.name}: distilled, {BATCH:,} rows",
        times["distilled"],
        "s",
        "teacher ensemble",
        times["teachers"],
        repeats=n_splits,
    )
    return [*rows, speed]


def _loss_row(
    table: Table, losses: dict[str, np.ndarray], peer: str, unit: str, weights: list[float]
) -> Row:
    gain = losses[peer] - losses["distilled"]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    one = row(
        f"{table.name}: distilled",
        float(losses["distilled"].mean()),
        unit,
        {"alone": "student alone", "naive": "naive distillation", "teachers": "consensus"}[peer],
        float(losses[peer].mean()),
        repeats=len(gain),
    )
    one["note"] = (
        f"gain {gain.mean():+.4g} ± {error:.2g} (one standard error over splits); by split "
        f"{[float(f'{g:.4g}') for g in gain]}; weight of the teachers {weights}"
    )
    return one


def _one_split(table: Table, seed: int) -> tuple[dict[str, float], tuple[Any, Any, Any], float]:
    """Return losses by contestant; the fitted teacher and student; and the weight chosen."""
    classifier = table.task == "classification"
    train, test = split_table(table, seed, LARGEST)
    X, y, X_test, y_test = table.X[train], table.y[train], table.X[test], table.y[test]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DistillationWarning)
        distilled = make_distilled(table, seed, progress=False).fit(X, y)
        (quantity,) = distilled.teacher_.quantities
        frozen = CallableTeacher(
            lambda rows: distilled.teacher_.predict(rows)[quantity.name],
            quantities=(quantity,),
            classes=distilled.teacher_.classes,
        )
        naive = clone(distilled).set_params(teacher=frozen, augment=None, teacher_weight=1.0)
        naive.fit(X, y)
    alone = clone(distilled.student).fit(X, y)
    models = {"distilled": distilled, "alone": alone, "naive": naive}
    predicted = {
        name: model.predict_proba(X_test) if classifier else model.predict(X_test)
        for name, model in models.items()
    }
    predicted["teachers"] = distilled.teacher_.predict(X_test)[quantity.name]
    means = {
        name: float(distilled.row_losses(y_test, prediction).mean())
        for name, prediction in predicted.items()
    }
    losses = means if classifier else {name: mean**0.5 for name, mean in means.items()}
    return losses, (distilled.teacher_, distilled, X_test), distilled.teacher_weight_
