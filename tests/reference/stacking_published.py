"""Naive twin of `scikd.stacking.published`: the four stages, written out with scikit-learn.

The settings are those of the code published with "Regularized Meta-Learning for Improved
Generalization" (arXiv:2602.12469).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, Ridge, enet_path
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

SEED = 42
RIDGE_ALPHAS = np.logspace(-3, 5, 50)
ALPHAS = np.logspace(-5, 1, 30)
L1_RATIOS = [0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0]


def rmse(truth, prediction):
    return np.sqrt(np.mean((truth - prediction) ** 2))


def keep(P, y, correlation=0.95, mse=0.01, variance=0.01):
    """Stage 1: numbers of the columns that stay, best model first visited."""
    risks = [rmse(y, P[:, j]) for j in range(P.shape[1])]
    kept = []
    for j in np.argsort(risks, kind="stable"):
        repeats = False
        for i in kept:
            alike = np.corrcoef(P[:, i], P[:, j])[0, 1] >= correlation
            close = np.mean((P[:, i] - P[:, j]) ** 2) <= mse
            repeats = repeats or (alike and close)
        if not repeats:
            kept.append(j)
    return sorted(j for j in kept if np.var(P[:, j]) >= variance)


def features(P):
    """Stage 2: the columns, and six numbers of each row."""
    rows = []
    for row in P:
        mean, std, spread = np.mean(row), np.std(row), np.max(row) - np.min(row)
        rows.append([*row, mean, std, np.median(row), spread, mean * std, spread * std])
    return np.array(rows)


def fit_ridge(X, y, inner):
    """Ridge, its penalty by the mean over folds of the root of the mean squared error."""
    scores = np.zeros(len(RIDGE_ALPHAS))
    for train, test in inner.split(X):
        for k, alpha in enumerate(RIDGE_ALPHAS):
            model = Ridge(alpha=alpha).fit(X[train], y[train])
            scores[k] -= rmse(y[test], model.predict(X[test]))
    alpha = RIDGE_ALPHAS[np.argmax(scores)]
    return Ridge(alpha=alpha).fit(X, y), (alpha,)


def fit_path(X, y, inner, l1_ratios):
    """Lasso or elastic net, its penalties by the mean over folds of the mean squared error."""
    best = (np.inf,)
    for l1_ratio in l1_ratios:
        errors = np.zeros(len(ALPHAS))
        for train, test in inner.split(X):
            shift, centre = X[train].mean(axis=0), y[train].mean()
            options = {"l1_ratio": l1_ratio, "alphas": ALPHAS, "max_iter": 10_000}
            alphas, coef, _ = enet_path(X[train] - shift, y[train] - centre, **options)
            predictions = (X[test] - shift) @ coef + centre
            errors += np.mean((y[test, None] - predictions) ** 2, axis=0)
        k = np.argmin(errors)
        if errors[k] < best[0]:
            best = (errors[k], alphas[k], l1_ratio)
    _, alpha, l1_ratio = best
    if len(l1_ratios) == 1:
        return Lasso(alpha=alpha, max_iter=10_000).fit(X, y), (alpha,)
    return ElasticNet(alpha=alpha, l1_ratio=l1_ratio, max_iter=10_000).fit(X, y), (alpha, l1_ratio)


def fit_member(name, X, y, inner_folds):
    """Stage 3: one model, its penalties by cross-validation without shuffling."""
    inner = KFold(inner_folds)
    if name == "ridge":
        return fit_ridge(X, y, inner)
    return fit_path(X, y, inner, [1.0] if name == "lasso" else L1_RATIOS)


@dataclass
class Fitted:
    kept: list
    members: dict
    penalties: dict
    oof: np.ndarray
    rmse: np.ndarray
    weights: np.ndarray

    def predict(self, P):
        X = features(P[:, self.kept])
        return sum(
            weight * model.predict(scaler.transform(X))
            for weight, (scaler, model) in zip(self.weights, self.members.values(), strict=True)
        )


def fit(P, y, n_folds=10, inner_folds=3):
    """All stages; stage 4 weights the members by the inverse of their error."""
    kept = keep(P, y)
    X = features(P[:, kept])
    members, penalties = {}, {}
    oof = np.zeros((len(y), 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for m, name in enumerate(["ridge", "lasso", "elastic_net"]):
            chosen = []
            for train, test in KFold(n_folds, shuffle=True, random_state=SEED).split(X):
                scaler = StandardScaler().fit(X[train])
                scaled = scaler.transform(X[train])
                model, found = fit_member(name, scaled, y[train], inner_folds)
                oof[test, m] = model.predict(scaler.transform(X[test]))
                chosen.append(found)
            scaler = StandardScaler().fit(X)
            model, found = fit_member(name, scaler.transform(X), y, inner_folds)
            members[name] = (scaler, model)
            penalties[name] = [*chosen, found]
    errors = np.array([rmse(y, oof[:, m]) for m in range(3)])
    return Fitted(kept, members, penalties, oof, errors, (1 / errors) / np.sum(1 / errors))
