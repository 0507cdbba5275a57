"""The core's kernels: consensus, correlation with missing predictions, ranks in groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import make_friedman1
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from benchmarks.harness import Row, peak_rss, row, timed_row
from scikd.ensemble import TeacherEnsemble
from scikd.kernels.gram import correlation, weighted_gram
from scikd.kernels.moments import Moments, stacked_moments
from scikd.kernels.ranks import group_ranks

__all__ = ["run"]


def run(quick: bool) -> list[Row]:
    """Run all; about two minutes, or less than 20 s with `quick`."""
    parts = [consensus, consensus_memory, gram, ranks, out_of_fold]
    return [one for part in parts for one in part(quick=quick)]


# -- consensus of many teachers ------------------------------------------------------------------


def _members(n_teachers: int, n_samples: int) -> np.ndarray:
    """Make predictions of shape (n_teachers, n_samples)."""
    return np.random.default_rng(0).standard_normal((n_teachers, n_samples))


def _stream(members: np.ndarray) -> object:
    """Mean and spread, one teacher after the other."""
    moments = Moments(members.shape[1:])
    for member in members:
        moments.add(member, 1.0)
    return moments.finish()


def _numpy(members: np.ndarray) -> object:
    """Mean and spread by NumPy."""
    return np.mean(members, axis=0), np.std(members, axis=0)


CONSENSUS: dict[str, Callable[[np.ndarray], object]] = {
    "stacked_moments": stacked_moments,
    "Moments": _stream,
    "numpy": _numpy,
}


def consensus(*, quick: bool) -> list[Row]:
    """Time mean and spread of 64 teachers."""
    members = _members(64, 100_000 if quick else 1_000_000)
    size = f"{members.shape[0]} x {members.shape[1]:,}"
    return [
        timed_row(
            f"consensus of {size}, {name}",
            lambda ours=CONSENSUS[name]: ours(members),  # type: ignore[misc]
            "numpy mean + std",
            lambda: _numpy(members),
        )
        for name in ("stacked_moments", "Moments")
    ]


def prepare_consensus(name: str, n_teachers: int, n_samples: int) -> Callable[[], object]:
    """Make the data and warm up, in the fresh process whose memory is measured."""
    CONSENSUS[name](_members(n_teachers, 10))
    members = _members(n_teachers, n_samples)
    return lambda: CONSENSUS[name](members)


def consensus_memory(*, quick: bool) -> list[Row]:
    """Measure the peak memory on top of the members, the result included."""
    n_teachers, n_samples = 64, 200_000 if quick else 1_000_000
    peaks = {
        name: peak_rss("benchmarks.core:prepare_consensus", name, n_teachers, n_samples)
        / (8 * n_samples)
        for name in CONSENSUS
    }
    return [
        row(
            f"consensus of {n_teachers} x {n_samples:,}, {name}, peak extra memory",
            peaks[name],
            "teachers",
            "numpy mean + std",
            peaks["numpy"],
        )
        for name in ("stacked_moments", "Moments")
    ]


# -- gram and correlation with missing predictions -----------------------------------------------


def _predictions(n_samples: int, n_teachers: int, missing: float) -> np.ndarray:
    """Make correlated predictions of shape (n_samples, n_teachers) with gaps."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((n_samples, 1))
    predictions = common + rng.standard_normal((n_samples, n_teachers))
    predictions[rng.random(predictions.shape) < missing] = np.nan
    return predictions


def _numpy_gram(predictions: np.ndarray) -> object:
    """Gram matrix and common counts by NumPy."""
    present = ~np.isnan(predictions)
    filled, mask = np.where(present, predictions, 0.0), present.astype(float)
    return filled.T @ filled, mask.T @ mask


def gram(*, quick: bool) -> list[Row]:
    """Time correlation and Gram matrices of 64 teachers."""
    n_samples, n_teachers = 20_000 if quick else 200_000, 64
    rows = []
    for missing in (0.05, 0.5):
        predictions = _predictions(n_samples, n_teachers, missing)
        frame = pd.DataFrame(predictions)
        size = f"{n_samples:,} x {n_teachers}, {missing:.0%} missing"
        difference = np.abs(correlation(predictions) - frame.corr().to_numpy()).max()
        timed = timed_row(
            f"correlation of {size}",
            lambda P=predictions: correlation(P),  # type: ignore[misc]
            "pandas corr",
            lambda frame=frame: frame.corr(),  # type: ignore[misc]
        )
        timed["note"] = f"largest difference {difference:.0e}"
        rows.append(timed)
        rows.append(
            timed_row(
                f"Gram matrix of {size}",
                lambda P=predictions: weighted_gram(P),  # type: ignore[misc]
                "numpy products",
                lambda P=predictions: _numpy_gram(P),  # type: ignore[misc]
            )
        )
    return rows


# -- ranks in groups -----------------------------------------------------------------------------


def _scipy_ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank within groups, by a call of SciPy for each."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    ranks = np.empty(len(values))
    for rows in np.split(order, starts):
        ranks[rows] = rankdata(values[rows])
    return ranks


def ranks(*, quick: bool) -> list[Row]:
    """Time ranks of values within many groups."""
    n, n_groups = (100_000, 500) if quick else (1_000_000, 5_000)
    rng = np.random.default_rng(0)
    values, groups = rng.standard_normal(n), rng.integers(0, n_groups, n)
    series = pd.Series(values)
    name = f"ranks of {n:,} values in {n_groups:,} groups"
    return [
        timed_row(
            name,
            lambda: group_ranks(values, groups),
            "pandas groupby rank",
            lambda: series.groupby(groups).rank(),
        ),
        timed_row(
            name,
            lambda: group_ranks(values, groups),
            "scipy rankdata per group",
            lambda: _scipy_ranks(values, groups),
        ),
    ]


# -- out-of-fold predictions ---------------------------------------------------------------------

OWN_SECONDS = [0.0]
"""Time that teachers spent in their own fit and predict."""


class Clocked(RegressorMixin, BaseEstimator):
    """A regressor that notes the time that it takes itself."""

    def __init__(self, model: Any = None) -> None:
        self.model = model

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit the model."""
        start = time.perf_counter()
        self.model.fit(X, y)
        OWN_SECONDS[0] += time.perf_counter() - start
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Ask the model."""
        start = time.perf_counter()
        prediction = self.model.predict(X)
        OWN_SECONDS[0] += time.perf_counter() - start
        return np.asarray(prediction)


def out_of_fold(*, quick: bool) -> list[Row]:
    """Time all that out-of-fold prediction and consensus add to the teachers' own work.

    The teachers note their own seconds in the very run that is timed, so that neither another
    process nor the weather on the machine is mistaken for overhead.
    """
    X, y = make_friedman1(2_000 if quick else 20_000, random_state=0)
    models = {
        "ridge": Ridge(),
        "neighbours": KNeighborsRegressor(),
        "extra trees": ExtraTreesRegressor(30, random_state=0),
        "boosting": HistGradientBoostingRegressor(random_state=0),
    }
    ensemble = TeacherEnsemble(
        {name: Clocked(model) for name, model in models.items()}, progress=False
    )
    totals, own = [], []
    for _ in range(2 if quick else 4):
        OWN_SECONDS[0] = 0.0
        start = time.perf_counter()
        ensemble.combine(ensemble.cross_predict(X, y, cv=5))
        totals.append(time.perf_counter() - start)
        own.append(OWN_SECONDS[0])
    extra = median(total / alone - 1.0 for total, alone in zip(totals[1:], own[1:], strict=True))
    one = row(
        f"out-of-fold and consensus, 4 teachers x 5 folds x {len(X):,} rows",
        median(totals[1:]),
        "s",
        "the teachers' own fit and predict",
        median(own[1:]),
        repeats=len(totals) - 1,
    )
    one["note"] = f"overhead {extra:.2%} (median)"
    return [one]
