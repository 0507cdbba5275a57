"""The pools of predictions that `benchmarks.stacking` combines; makes and keeps them.

A pool is what many base models predict for the rows of one table, split ten times. The models see
75 % of the rows: their predictions for these are out of fold, five folds; for the other 25 %, which
nothing else touches, they are the mean of the five fold models. One pool is not made here: the
published out-of-fold predictions of 18 tuned models, whose rows recur in ten repeats.

Every model of every split is kept in a file of the folder that SCIKD_RUNS names (default:
build/stacking), so making them can be stopped at any time. It takes about an hour of one core:
``python -m benchmarks._stacking_pools`` does only this. Beside them lies what slow peers answered.
Delete a table's folder after changing its models.
"""

from __future__ import annotations

import gzip
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import GroupShuffleSplit, KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from benchmarks._stacking_models import base_models
from benchmarks.harness import DATA, ROOT
from scikd._atomic import atomic_write
from scikd.demo.tables import Table, load_table
from scikd.demo.tabular import split_table
from scikd.exceptions import StorageError

__all__ = ["LATER", "N_SPLITS", "POOLS", "QUICK_POOLS", "Pool", "load_pool"]

logger = logging.getLogger("scikd.benchmarks.stacking")

RUNS = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / "stacking")
N_SPLITS = 10
N_FOLDS = 5
COOLING = DATA / "tabular" / "oof_cooling_load_18models.csv.gz"
REGRESSION = (
    *("exam", "california", "kin8nm", "bike", "protein", "white_wine", "concrete"),
    *("abalone", "diamonds", "parkinsons", "power_plant", "skillcraft"),
)
LATER = ("airfoil", "energy", "hourly_bike", "red_wine")
"""Tables that nobody had looked at before the default combiner of numbers was chosen."""
CLASSIFICATION = (
    *("adult", "compas", "mammography"),  # two classes: much data, much noise, 2 % positive
    *("five_classes", "digits", "breast_cancer"),  # five, ten classes; 569 rows
)
POOLS = ("cooling", *REGRESSION, *LATER, *CLASSIFICATION)
QUICK_POOLS = {"diabetes": ("ols", "ridge-10", "knn-5", "tree", "lightgbm-7")} | {
    "wine": ("logistic", "lda", "bayes", "knn-5", "tree")
}
LARGEST = {"exam": 10_000}
LARGEST_ELSEWHERE = 3000


@dataclass(frozen=True, eq=False)
class Pool:
    """Predictions of many models for one split of one table.

    Attributes
    ----------
    P, P_test : ndarray of shape (n_samples, n_models[, n_classes])
        Out of fold, and of the untouched rows.
    y, y_test : ndarray of shape (n_samples,)
        Target; for classes their numbers from 0.
    fold : ndarray of shape (n_samples,)
        Fold of the base models.
    row_id, row_id_test : ndarray of shape (n_samples,)
        Which row of the table it is; rows that recur share theirs.
    names : tuple of str
        Names of the models.
    """

    P: np.ndarray
    y: np.ndarray
    fold: np.ndarray
    row_id: np.ndarray
    P_test: np.ndarray
    y_test: np.ndarray
    row_id_test: np.ndarray
    names: tuple[str, ...]

    @property
    def classes(self) -> bool:
        """Whether these are probabilities of classes."""
        return self.P.ndim == 3


def load_pool(name: str, split: int, only: Sequence[str] | None = None) -> Pool:
    """Return one split of a pool, and train what is not in the folder yet.

    Raises
    ------
    StorageError
        If the table is not there.
    """
    if name == "cooling":
        return _cooling(split)
    table = load_table(name)
    largest = LARGEST.get(name, LARGEST_ELSEWHERE)
    train, test = split_table(table, split, largest=largest)
    y = table.y
    if table.task == "classification":
        y = np.unique(y, return_inverse=True)[1]
    models = base_models(table.task, len(train), split)
    names = tuple(only or models)
    fold = _folds(table, y[train], split)
    made = [_made(table, y, train, test, fold, split, key, models[key]) for key in names]
    P, P_test = (np.stack([one[part] for one in made], axis=1) for part in ("oof", "test"))
    return Pool(P, y[train], fold, train, P_test, y[test], test, names)


def _folds(table: Table, y: np.ndarray, split: int) -> np.ndarray:
    kind = StratifiedKFold if table.task == "classification" else KFold
    fold = np.empty(len(y), dtype=int)
    parts = kind(N_FOLDS, shuffle=True, random_state=split).split(y, y)
    for number, (_, held_out) in enumerate(parts):
        fold[held_out] = number
    return fold


def _made(
    table: Table,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    fold: np.ndarray,
    split: int,
    name: str,
    model: Any,
) -> dict[str, np.ndarray]:
    """Read the predictions of one model on one split, or make and write them."""
    path = RUNS / table.name / f"{split}-{name}.npz"
    if not path.is_file():
        start = time.perf_counter()
        X, method = table.X, "predict_proba" if table.task == "classification" else "predict"
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of models that are poor, or do not converge
            parts = [
                _fold_predictions(clone(model), method, X, y, train, test, fold == number)
                for number in range(N_FOLDS)
            ]
        oof = np.empty((len(train), *parts[0][0].shape[1:]))
        for number, (held_out, _) in enumerate(parts):
            oof[fold == number] = held_out
        mean = np.mean([tested for _, tested in parts], axis=0)
        if not (np.isfinite(oof).all() and np.isfinite(mean).all()):
            msg = f"expected finite predictions; {name} gave others on {table.name}, split {split}"
            raise ValueError(msg)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda file: np.savez(file, oof=oof, test=mean))
        logger.info("%s %d %s: %.1f s", table.name, split, name, time.perf_counter() - start)
    with np.load(path) as kept:
        return dict(kept)


def _fold_predictions(
    model: Any,
    method: str,
    X: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    held_out: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    kept = train[~held_out]
    model.fit(X[kept], y[kept])
    predict = getattr(model, method)
    return predict(X[train[held_out]]), predict(X[test])


def _cooling(split: int) -> Pool:
    """Return a split of the published predictions, whose rows recur in ten repeats.

    The file does not say which rows are the same, but these have the same target: so the target
    is the id here, and rows that merely share it stay together too. The base models of training
    rows have seen test rows, as in any out-of-fold matrix that is split afterwards.
    """
    if not COOLING.is_file():
        message = f"The pool 'cooling' needs the file {COOLING}; SCIKD_DATA names its folder."
        raise StorageError(message)
    with gzip.open(COOLING, "rt") as file:
        frame = pd.read_csv(file)
    fold, y = frame.pop("fold").to_numpy(), frame.pop("y_true").to_numpy()
    row_id = np.unique(y, return_inverse=True)[1]
    splitter = GroupShuffleSplit(1, test_size=0.25, random_state=split)
    train, test = next(splitter.split(y, groups=row_id))
    P, names = frame.to_numpy(), tuple(frame.columns)
    return Pool(
        P[train], y[train], fold[train], row_id[train], P[test], y[test], row_id[test], names
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for number in range(N_SPLITS):
        for pool in POOLS:
            load_pool(pool, number)
