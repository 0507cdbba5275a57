"""Eight diverse teachers for any table of numbers, and a student that is fast to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

__all__ = ["make_student", "make_teachers"]

Task = Literal["regression", "classification"]


def make_teachers(task: Task, seed: int) -> dict[str, Any]:
    """Return eight unfitted teachers with different inductive biases.

    Parameters
    ----------
    task : {"regression", "classification"}
        What they predict.
    seed : int
        Their random seed.

    Returns
    -------
    dict of str to estimator
        Linear, neighbours, kernel, network, and three kinds of trees; each fills in missing values
        with medians where it cannot take them.
    """
    return _regressors(seed) if task == "regression" else _classifiers(seed)


def _scaled(model: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), model)


def _filled(model: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="median"), model)


def _classifiers(seed: int) -> dict[str, Any]:
    support = SVC(C=5.0, random_state=seed)
    network = MLPClassifier(
        hidden_layer_sizes=(64,), alpha=0.1, max_iter=500, early_stopping=True, random_state=seed
    )
    return {
        "logistic": _scaled(LogisticRegression(C=0.1, max_iter=2000)),
        "discriminant": _scaled(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        "neighbours": _scaled(KNeighborsClassifier(10, weights="distance")),
        "support vectors": _scaled(CalibratedClassifierCV(support, cv=3, ensemble=False)),
        "network": _scaled(network),
        "forest": _filled(RandomForestClassifier(200, random_state=seed)),
        "extra trees": _filled(ExtraTreesClassifier(200, random_state=seed)),
        "boosting": HistGradientBoostingClassifier(random_state=seed),
    }


def _regressors(seed: int) -> dict[str, Any]:
    network = MLPRegressor(
        hidden_layer_sizes=(64,), alpha=0.1, max_iter=500, early_stopping=True, random_state=seed
    )
    nystroem = make_pipeline(Nystroem(gamma=0.02, random_state=seed), Ridge(1e-3))

    def on_scale(model: Any) -> Any:
        # The imputer comes first, so that the whole says that it takes missing values.
        scaled = make_pipeline(StandardScaler(), model)
        return _filled(TransformedTargetRegressor(scaled, transformer=StandardScaler()))

    return {
        "ridge": _scaled(Ridge(1.0)),
        "kernel ridge": on_scale(nystroem),
        "neighbours": _scaled(KNeighborsRegressor(10, weights="distance")),
        "support vectors": on_scale(SVR(C=5.0)),
        "network": on_scale(network),
        "forest": _filled(RandomForestRegressor(200, random_state=seed)),
        "extra trees": _filled(ExtraTreesRegressor(200, random_state=seed)),
        "boosting": HistGradientBoostingRegressor(random_state=seed),
    }


def make_student(table: str, task: Task, seed: int) -> Any:
    """Return the unfitted student of a table: linear for pixels, small boosted trees otherwise."""
    linear: dict[str, Callable[[], Any]] = {
        "digits": lambda: _scaled(LogisticRegression(C=0.1, max_iter=2000))
    }
    if table in linear:
        return linear[table]()
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return kind(max_leaf_nodes=15, random_state=seed)
