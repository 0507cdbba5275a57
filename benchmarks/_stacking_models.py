"""The base models of the pools of `benchmarks.stacking`: fast, of many kinds, good ones and poor.

Real pools hold near-duplicates and weak models, so these do: two ridges, a forest and its pruned
twin, the same boosted trees twice, a tree of three splits.
"""

from __future__ import annotations

from typing import Any

from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
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
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

__all__ = ["base_models"]

LARGEST_FOR_SVR = 4000


def base_models(task: str, n_rows: int, seed: int) -> dict[str, Any]:
    """Return the unfitted models for tables of this task and this many training rows."""
    if task == "classification":
        return {name: _prepared(model) for name, model in _classifiers(seed).items()}
    models = _regressors(seed)
    if n_rows > LARGEST_FOR_SVR:
        del models["svr"]
    return {
        name: TransformedTargetRegressor(_prepared(model), transformer=StandardScaler())
        for name, model in models.items()
    }


def _prepared(model: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), model)


def _boosted(kind: type, seed: int, **options: Any) -> Any:
    return kind(n_jobs=1, verbose=-1, random_state=seed, **{"n_estimators": 60} | options)


def _regressors(seed: int) -> dict[str, Any]:
    forest = {"n_estimators": 50, "max_features": 0.4, "random_state": seed}
    network = {"max_iter": 40, "early_stopping": True}
    return {
        "ols": LinearRegression(),
        "ridge-10": Ridge(10.0),
        "ridge-1000": Ridge(1000.0),
        "lasso": Lasso(0.02),
        "elastic-net": ElasticNet(0.1),
        "poly2": make_pipeline(PolynomialFeatures(2, include_bias=False), Ridge(10.0)),
        "nystroem": make_pipeline(Nystroem(n_components=100, random_state=seed), Ridge(0.1)),
        "knn-5": KNeighborsRegressor(5),
        "knn-20": KNeighborsRegressor(20, weights="distance"),
        "knn-100": KNeighborsRegressor(100),
        "tree-3": DecisionTreeRegressor(max_depth=3, random_state=seed),
        "tree": DecisionTreeRegressor(min_samples_leaf=5, random_state=seed),
        "forest": RandomForestRegressor(min_samples_leaf=2, **forest),
        "forest-10": RandomForestRegressor(min_samples_leaf=10, **forest),
        "extra-trees": ExtraTreesRegressor(min_samples_leaf=2, **forest),
        "lightgbm-stumps": _boosted(LGBMRegressor, seed, num_leaves=2, n_estimators=150),
        "lightgbm-7": _boosted(LGBMRegressor, seed, num_leaves=7, n_estimators=100),
        "lightgbm-31": _boosted(LGBMRegressor, seed),
        "lightgbm-31-again": _boosted(
            LGBMRegressor, seed + 1, subsample=0.8, subsample_freq=1, colsample_bytree=0.8
        ),
        "hist-boosting": HistGradientBoostingRegressor(max_iter=60, random_state=seed),
        "mlp": MLPRegressor(hidden_layer_sizes=(32,), random_state=seed, **network),
        "mlp-again": MLPRegressor(hidden_layer_sizes=(32,), random_state=seed + 1, **network),
        "svr": SVR(),
    }


def _classifiers(seed: int) -> dict[str, Any]:
    forest = {"n_estimators": 50, "random_state": seed}
    network = {"max_iter": 40, "early_stopping": True}
    return {
        "logistic": LogisticRegression(max_iter=200),
        "logistic-0.01": LogisticRegression(C=0.01, max_iter=200),
        "lda": LinearDiscriminantAnalysis(shrinkage=0.01, solver="lsqr"),
        "qda": QuadraticDiscriminantAnalysis(reg_param=0.1),
        "bayes": GaussianNB(var_smoothing=1e-2),
        "nystroem": make_pipeline(
            Nystroem(n_components=100, random_state=seed), LogisticRegression(max_iter=200)
        ),
        "knn-5": KNeighborsClassifier(5),
        "knn-25": KNeighborsClassifier(25, weights="distance"),
        "knn-100": KNeighborsClassifier(100),
        "tree-3": DecisionTreeClassifier(max_depth=3, random_state=seed),
        "tree": DecisionTreeClassifier(min_samples_leaf=5, random_state=seed),
        "forest": RandomForestClassifier(min_samples_leaf=2, **forest),
        "forest-10": RandomForestClassifier(min_samples_leaf=10, **forest),
        "extra-trees": ExtraTreesClassifier(min_samples_leaf=2, **forest),
        "lightgbm-stumps": _boosted(LGBMClassifier, seed, num_leaves=2),
        "lightgbm-7": _boosted(LGBMClassifier, seed, num_leaves=7),
        "lightgbm-31": _boosted(LGBMClassifier, seed, n_estimators=40),
        "hist-boosting": HistGradientBoostingClassifier(max_iter=20, random_state=seed),
        "mlp": MLPClassifier(hidden_layer_sizes=(32,), random_state=seed, **network),
        "mlp-again": MLPClassifier(hidden_layer_sizes=(32,), random_state=seed + 1, **network),
    }
