"""Combiners of other packages in their own environment: they read a pool, and write predictions.

Run by the interpreter of that environment, which has neither scikd nor this package:
``python _stacking_worker.py POOL.npz ANSWERS.npz NAME...``. POOL holds P, y and P_test, as in
`benchmarks._stacking_pools.Pool`. ANSWERS holds for each name its predictions of the test rows, how
many models it uses, the seconds of the fit (nothing is imported meanwhile), and, for the selections
of AutoGluon, weights and training loss.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error

Answer = dict[str, Any]


class Column(RegressorMixin, BaseEstimator):
    """A base model that has already predicted: its column is among the features."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: np.ndarray, y: np.ndarray) -> Column:
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X[:, self.number]


class Columns(ClassifierMixin, BaseEstimator):
    """The same for probabilities, a column for each class."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: np.ndarray, y: np.ndarray) -> Columns:
        self.n_features_in_, self.classes_ = X.shape[1], np.unique(y)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        width = len(self.classes_)
        return X[:, self.number * width : (self.number + 1) * width]

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def autogluon(P: np.ndarray, y: np.ndarray, P_test: np.ndarray, *, steps: int) -> Answer:
    """Select greedily with `EnsembleSelection`, as AutoGluon's weighted ensembles do."""
    from autogluon.core import metrics
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    task, metric, columns = "regression", metrics.root_mean_squared_error, P
    if P.ndim == 3:
        binary = P.shape[2] == 2
        task, metric = "binary" if binary else "multiclass", metrics.log_loss
        columns = P[:, :, 1] if binary else P
    members = [np.ascontiguousarray(columns[:, number]) for number in range(P.shape[1])]
    selection = EnsembleSelection(steps, task, metric)
    start = time.perf_counter()
    selection.fit(members, y)
    seconds = time.perf_counter() - start
    weights = selection.weights_
    return {
        "prediction": np.tensordot(P_test, weights, ([1], [0])),
        "used": np.count_nonzero(weights),
        "seconds": seconds,
        "weights": weights,
        "loss": selection.train_score_,
    }


def mlxtend(P: np.ndarray, y: np.ndarray, P_test: np.ndarray) -> Answer:
    """Fit `StackingCVRegressor` or `StackingCVClassifier` on the out-of-fold predictions.

    Its base models hand over their columns, so that its own cross-validation finds these. The last
    step has no default there; it is ridge, or logistic regression, as they come.
    """
    from mlxtend.classifier import StackingCVClassifier
    from mlxtend.regressor import StackingCVRegressor

    numbers = range(P.shape[1])
    X, X_test = P.reshape(len(P), -1), P_test.reshape(len(P_test), -1)
    if P.ndim == 3:
        members = [Columns(number) for number in numbers]
        model = StackingCVClassifier(members, LogisticRegression(), use_probas=True)
    else:
        model = StackingCVRegressor([Column(number) for number in numbers], Ridge())
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    prediction = model.predict_proba(X_test) if P.ndim == 3 else model.predict(X_test)
    return {"prediction": prediction, "used": P.shape[1], "seconds": seconds}


def hillclimbers(P: np.ndarray, y: np.ndarray, P_test: np.ndarray) -> Answer:
    """Climb with `climb_hill` as it comes; it knows one column a model, so two classes at most."""
    from hillclimbers import climb_hill
    from hillclimbers import partial as metric

    classes = P.ndim == 3
    columns, tested = (P[:, :, 1], P_test[:, :, 1]) if classes else (P, P_test)
    n_models = P.shape[1]
    names = [f"model {number}" for number in range(n_models)]
    # Rows of the identity matrix come back as the weights.
    asked = pd.DataFrame(np.vstack([tested, np.eye(n_models)]), columns=names)
    start = time.perf_counter()
    found = climb_hill(
        train=pd.DataFrame({"y": y}),
        oof_pred_df=pd.DataFrame(columns, columns=names),
        test_pred_df=asked,
        target="y",
        objective="minimize",
        eval_metric=metric(log_loss if classes else root_mean_squared_error),
        plot_hill=False,
    )
    seconds = time.perf_counter() - start
    prediction, weights = found[:-n_models], found[-n_models:]
    if classes:
        prediction = np.stack([1.0 - prediction, prediction], axis=1)
    return {"prediction": prediction, "used": np.count_nonzero(weights), "seconds": seconds}


COMBINERS = {
    "AutoGluon 25": partial(autogluon, steps=25),
    "AutoGluon 100": partial(autogluon, steps=100),
    "mlxtend": mlxtend,
    "hillclimbers": hillclimbers,
}


def main(source: str, target: str, *names: str) -> None:
    """Answer for every combiner named; each is called on a few rows first, which imports."""
    with np.load(source) as pool:
        P, y, P_test = (pool[key] for key in ("P", "y", "P_test"))
    few = np.arange(min(200, len(y)))
    if P.ndim == 3:
        few = np.concatenate([np.flatnonzero(y == label)[:50] for label in range(P.shape[2])])
    answers = {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of a logistic regression that does not converge
        for name in names:
            COMBINERS[name](P[few], y[few], P_test[:200])
            answers |= {f"{name}|{k}": v for k, v in COMBINERS[name](P, y, P_test).items()}
    np.savez(target, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
