"""Moments of predictions and target: all that squared loss needs to know of the rows.

They are held for the *errors* of the models, ``p_j - y``, and the target. Models of one target
differ by little, and what they differ by is what combining them is about: it is the difference of
two errors, and would drown in the rounding of the square of the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpstrf

from scikd.exceptions import InvalidInputError
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem, fold_numbers, splits
from scikd.stacking._threads import one_thread
from scikd.stacking.kernels import error_columns

__all__ = ["Gram", "GramSplit", "gram_splits", "held_out"]

_BLOCK = 1 << 18  # entries of a block: 2 MiB of float64 stay in the second-level cache


@dataclass(frozen=True, eq=False)
class Gram:
    """Weighted moments of the columns ``p_1 - y, ..., p_M - y, y``.

    Missing predictions are filled by the mean of the models present in the row; rows without any
    prediction, or of weight 0, do not count.

    Attributes
    ----------
    n : int
        Number of rows of weight > 0.
    weight : float
        Sum of the weights.
    mean : ndarray of shape (n_models + 1,)
        Weighted means, in the unit of y.
    scatter : ndarray of shape (n_models + 1, n_models + 1)
        Weighted sums of products of deviations from the means, in the square of that unit.
    squares : float
        Sum of the squares of the weights of the groups of rows.
    """

    n: int
    weight: float
    mean: np.ndarray
    scatter: np.ndarray
    squares: float

    @classmethod
    def of(
        cls,
        P: Any,
        y: Any,
        w: Any = None,
        *,
        rows: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Gram:
        """Sum over rows, in blocks; memory does not grow with their number.

        Parameters
        ----------
        P : Predictions, or anything that `Predictions.of` takes
            Predictions of shape (n_samples, n_models).
        y : array-like of shape (n_samples,)
            Targets.
        w : array-like of shape (n_samples,) or None, default=None
            Weights >= 0.
        rows : ndarray of int or None, default=None
            Numbers of the rows to sum over; None is all.
        groups : ndarray of int, shape (n_samples,), or None, default=None
            The same number for rows that are one observation; None takes every row for one.
        """
        values = Predictions.of(P).values
        y = np.asarray(y, dtype=np.float64)
        weight = np.ones(len(y)) if w is None else np.asarray(w, dtype=np.float64)
        if values.ndim != 2 or y.shape != (len(values),) or weight.shape != y.shape:
            message = (
                "Expected predictions of shape (n_samples, n_models) with a target and a weight "
                f"per row; got shapes {values.shape}, {y.shape} and {weight.shape}."
            )
            raise InvalidInputError(message)
        n_rows, width = len(y) if rows is None else len(rows), values.shape[1] + 1
        step = max(64, _BLOCK // width)
        buffer = np.empty((min(step, n_rows), width))
        total = _empty(width)
        heard: np.ndarray = np.empty(n_rows)
        with one_thread():
            for start in range(0, n_rows, step):
                here: Any = slice(start, min(start + step, n_rows))
                here = here if rows is None else rows[here]
                w_here = np.array(weight[here])
                block = np.ascontiguousarray(values[here])
                z = buffer[: len(block)]
                error_columns(block, y[here], w_here, z)
                heard[start : start + len(block)] = w_here
                total += cls._of_block(z, w_here)
        if groups is not None:
            number = groups if rows is None else groups[rows]
            if 8 * len(number) < len(groups):  # few of many groups
                number = np.unique(number, return_inverse=True)[1]
            heard = np.bincount(number, weights=heard)
        return replace(total, squares=float(heard @ heard))

    @classmethod
    def _of_block(cls, z: np.ndarray, w: np.ndarray) -> Gram:
        """Sum over a block, which is overwritten, but for the squares of the weights."""
        weight = float(w.sum())
        if weight == 0.0:
            return _empty(z.shape[1])
        mean = (w @ z) / weight
        z -= mean
        z *= np.sqrt(w)[:, None]
        return cls(int(np.count_nonzero(w)), weight, mean, z.T @ z, 0.0)

    @classmethod
    def by_fold(cls, P: Any, y: Any, w: Any, fold: np.ndarray) -> list[Gram]:
        """Sum over the rows of every fold.

        Parameters
        ----------
        P, y, w
            As in `of`.
        fold : ndarray of int, shape (n_samples,)
            Number of the fold; rows of negative ones are left out.

        Returns
        -------
        list of Gram
            In the order of the numbers of the folds.
        """
        P = Predictions.of(P)
        numbers = np.unique(fold[fold >= 0])
        return [cls.of(P, y, w, rows=np.flatnonzero(fold == k)) for k in numbers]

    def __add__(self, other: Gram) -> Gram:
        weight = self.weight + other.weight
        if other.weight == 0.0 or self.weight == 0.0:
            return self if other.weight == 0.0 else other
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.weight / weight)
        between = (self.weight * (other.weight / weight)) * np.outer(shift, shift)
        scatter = self.scatter + other.scatter + between
        return Gram(self.n + other.n, weight, mean, scatter, self.squares + other.squares)

    @staticmethod
    def sum(parts: Iterable[Gram]) -> Gram:
        """Merge the moments of disjoint sets of groups of rows; there must be at least one."""
        return reduce(Gram.__add__, parts)

    def take(self, models: np.ndarray) -> Gram:
        """Return the moments of some of the models, by number or mask."""
        kept = np.append(np.arange(self.n_models)[models], self.n_models)
        return replace(self, mean=self.mean[kept], scatter=self.scatter[np.ix_(kept, kept)])

    @property
    def n_effective(self) -> float:
        """How many groups of equal weight tell as much as these."""
        return self.weight**2 / self.squares if self.squares else 0.0

    @property
    def n_models(self) -> int:
        """Number of models."""
        return len(self.mean) - 1

    @property
    def errors(self) -> np.ndarray:
        """Mean products of the errors of two models, shape (n_models, n_models)."""
        mean = self.mean[:-1]
        products: np.ndarray = self.scatter[:-1, :-1] / self.weight + np.outer(mean, mean)
        return products

    @property
    def target_mean(self) -> float:
        """Weighted mean of y."""
        return float(self.mean[-1])

    @property
    def target_variance(self) -> float:
        """Weighted variance of y."""
        return float(self.scatter[-1, -1] / self.weight)

    @property
    def prediction_mean(self) -> np.ndarray:
        """Weighted mean of every model, shape (n_models,)."""
        means: np.ndarray = self.mean[:-1] + self.mean[-1]
        return means

    @property
    def prediction_scatter(self) -> np.ndarray:
        """Scatter of the columns of ``[P | y]``, shape (n_models + 1, n_models + 1)."""
        root = self.factor()
        products: np.ndarray = root.T @ root
        return products

    def error_factor(self) -> np.ndarray:
        """Return R with ``R.T @ R == scatter``, shape (n_models + 1, n_models + 1)."""
        scale = np.sqrt(self.scatter.diagonal())
        safe = np.where(scale > 0, scale, 1.0)
        with one_thread():
            root, pivot, rank, _ = dpstrf(self.scatter / np.outer(safe, safe), lower=0)
        root = np.triu(root)
        root[rank:] = 0.0
        result = np.empty_like(root)
        result[:, pivot - 1] = root
        return result * scale

    def error_root(self) -> np.ndarray:
        """Return R with ``R.T @ R == errors``, shape (n_models + 2, n_models)."""
        spread = self.error_factor()[:, :-1] / np.sqrt(self.weight)
        return np.vstack([spread, self.mean[:-1]])

    def factor(self) -> np.ndarray:
        """Return R with ``R.T @ R`` the scatter of ``[P | y]``.

        Its M + 1 rows stand for all rows of the centred predictions and target: a solver of least
        squares finds the same in them.

        Returns
        -------
        ndarray of shape (n_models + 1, n_models + 1)
        """
        root = self.error_factor()
        root[:, :-1] += root[:, -1:]
        return root

    def risk(self, weights: Any, intercept: Any = 0.0) -> Any:
        """Return the weighted mean squared error of ``intercept + P @ weights``.

        Parameters
        ----------
        weights : array-like of shape (n_models,) or (n_models, n_combinations)
            One combination per column.
        intercept : float or array-like of shape (n_combinations,), default=0
            In the unit of y.

        Returns
        -------
        float or ndarray of shape (n_combinations,)
            In the square of the unit of y.
        """
        weights = np.asarray(weights, dtype=np.float64)
        # b + P w - y = b + (P - y) w + y (sum(w) - 1)
        columns = np.concatenate([weights, np.sum(weights, axis=0, keepdims=True) - 1.0])
        with one_thread():
            variance = np.sum(columns * (self.scatter @ columns), axis=0) / self.weight
            bias = np.asarray(intercept) + self.mean @ columns
        risk = np.maximum(variance, 0.0) + bias**2
        return float(risk) if weights.ndim == 1 else risk


def _empty(width: int) -> Gram:
    return Gram(0, 0.0, np.zeros(width), np.zeros((width, width)), 0.0)


GramSplit = tuple[Gram, Gram]


def held_out(folds: Sequence[Gram]) -> tuple[GramSplit, ...]:
    """Pair the sum of all other folds with each fold: what to learn from, and what to test on.

    Sums are of the others, never of all minus one: a difference of large sums has few digits.
    """
    if len(folds) < 2:
        return ()
    return tuple((Gram.sum([*folds[:k], *folds[k + 1 :]]), folds[k]) for k in range(len(folds)))


def gram_splits(
    problem: Problem, cv: Any = None, random_state: Any = None
) -> tuple[Gram, tuple[GramSplit, ...]]:
    """Return the moments of all rows, and of the training and test rows of every fold.

    Parameters
    ----------
    problem : Problem
        The rows.
    cv, random_state
        As in `scikd.stacking._problem.splits`.
    """
    P, y, w = problem.P, problem.y, problem.weight
    fold = fold_numbers(problem, cv, random_state)
    if fold is not None:
        parts = Gram.by_fold(P, y, w, fold)
        return Gram.sum(parts), held_out(parts)
    pairs = tuple(
        (Gram.of(P, y, w, rows=train), Gram.of(P, y, w, rows=test))
        for train, test in splits(problem, cv, random_state)
    )
    return Gram.of(P, y, w), pairs
