"""How weights vary with the rows that happened to be there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.stacking._levels import Level, level_of, level_of_moments
from scikd.stacking._linear import LinearCandidates
from scikd.stacking._problem import Problem
from scikd.stacking.comparison import deal_bins
from scikd.stacking.gram import Gram

__all__ = ["bootstrap_weights"]

_MOST_BINS = 1000


def bootstrap_weights(
    problem: Problem,
    candidates: LinearCandidates,
    name: str,
    *,
    cv: Any = None,
    n_resamples: int = 200,
    random_state: int = 0,
) -> np.ndarray:
    """Fit a candidate to groups of rows that are drawn anew.

    The moments of every group are summed once; a resample adds up those that it drew.

    Parameters
    ----------
    problem : Problem
        All rows.
    candidates : LinearCandidates
        What could be fitted.
    name : str
        What is.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Folds; five are dealt out where these are no partition of the rows, or fewer than four.
    n_resamples : int, default=200
        How often.
    random_state : int, default=0
        Seed.

    Returns
    -------
    ndarray of shape (n_resamples, n_columns)
        The weights; NaN with fewer than two groups.

    Raises
    ------
    InvalidInputError
        If the candidate reads rows, and cannot be fitted to moments.
    """
    if candidates.reads_rows(name):
        message = f"Expected a combiner that needs no rows for intervals of weights; got {name!r}."
        raise InvalidInputError(message)
    drawn = np.full((n_resamples, problem.P.n_models), np.nan)
    bins = deal_bins(problem, random_state, _MOST_BINS)
    if bins.max() < 1:
        return drawn
    folds = _folds(level_of(problem, candidates, cv, random_state))
    if folds is None:
        options = (5, random_state)
        level = level_of(replace(problem, fold=None), candidates, *options)
        folds = _folds(level) or (level.rows,)
    pairs = [(k, part) for k, rows in enumerate(folds) for part in _by_bin(rows, bins[rows])]
    given, groups = (problem.P, problem.y, problem.weight), problem.groups
    grams = [Gram.of(*given, rows=rows, groups=groups) for _, rows in pairs]
    place = np.array([k for k, _ in pairs])
    random = np.random.default_rng(random_state)
    for one in drawn:
        times = np.bincount(random.integers(len(pairs), size=len(pairs)), minlength=len(pairs))
        merged = [_merged(grams, np.where(place == k, times, 0)) for k in range(len(folds))]
        kept = [k for k, gram in enumerate(merged) if gram is not None]
        level = level_of_moments(
            problem,
            candidates,
            [folds[k] for k in kept],
            [gram for gram in merged if gram is not None],
        )
        one[:] = level.fitted(name).model.weights
    return drawn


def _folds(level: Level) -> tuple[np.ndarray, ...] | None:
    """Return the folds of a level if every row is in one of them."""
    if len(level.folds) < 2:
        return None
    held = np.sort(np.concatenate(level.folds))
    return level.folds if np.array_equal(held, level.rows) else None


def _by_bin(rows: np.ndarray, bins: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(bins, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(bins[order])) + 1)


def _merged(grams: list[Gram], times: np.ndarray) -> Gram | None:
    """Return the moments of parts that count several times; None if none does."""
    there = np.flatnonzero(times)
    if not len(there):
        return None
    weight = np.array([times[i] * grams[i].weight for i in there])
    means = np.stack([grams[i].mean for i in there])
    mean = weight @ means / weight.sum()
    away = means - mean
    scatter = sum(times[i] * grams[i].scatter for i in there) + (away.T * weight) @ away
    n, squares = (sum(times[i] * getattr(grams[i], key) for i in there) for key in ("n", "squares"))
    return Gram(int(n), float(weight.sum()), mean, scatter, float(squares))
