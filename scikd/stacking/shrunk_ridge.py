"""Ridge regression that shrinks to the plain mean instead of to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.stacking._problem import Problem
from scikd.stacking._threads import one_thread
from scikd.stacking.combiners import LinearCombiner
from scikd.stacking.gram import Gram, GramSplit
from scikd.stacking.kernels import add_left_out

__all__ = ["Path", "ShrunkRidge"]

ALPHAS = (*np.logspace(-8, 4, 49), np.inf)


class Path(NamedTuple):
    """Penalties, and the held-out mean squared error of each; both of shape (n_alphas,)."""

    alphas: np.ndarray
    losses: np.ndarray


class ShrunkRidge(LinearCombiner):
    """Ridge regression of ``y - mean(P)`` on ``p_j - mean(P)``: shrunk to the plain mean.

    Weights add up to one, and may be negative. A large penalty gives the plain mean exactly, and a
    small one the least squares among such weights. The intercept is shrunk with them, as the weight
    of one more column, as large as the others are on average.

    Parameters
    ----------
    alphas : array-like or None, default=None
        Penalties to choose from, as multiples of the mean variance of ``p_j - mean(P)``, per unit
        of sample weight: they do not depend on the unit of y, nor on the number of rows. May hold
        infinity, which is the plain mean. None is 49 from 1e-8 to 1e4, and infinity.
    cv : {"auto", "loo", "fold"}, int, splitter or iterable of (train, test), default="auto"
        How a penalty is judged. "loo" leaves out one row after another, with all its copies, in
        closed form. "fold" leaves out the given folds, or five that are dealt out. "auto" is
        "fold" where folds, groups or recurring rows are given, and "loo" otherwise.
    random_state : int, RandomState or None, default=None
        How rows are dealt out.

    Attributes
    ----------
    alpha_ : float
        The penalty that was chosen: the largest of the best. Infinity where nothing can be held
        out, and where no two models differ.
    path_ : Path
        The penalties, and the held-out mean squared error of each in the square of the unit of y;
        NaN where nothing was held out.

    Notes
    -----
    The penalty of the whole is kept for the fits to parts of the rows, as in scikit-learn.
    """

    alpha_: float
    path_: Path

    def __init__(self, alphas: Any = None, *, cv: Any = "auto", random_state: Any = None) -> None:
        self.alphas = alphas
        self.cv = cv
        self.random_state = random_state

    @property
    def needs_rows(self) -> bool:
        """Whether rows are left out one by one."""
        return self._cv_name() == "loo"

    @property
    def needs_folds(self) -> bool:
        """Whether a penalty is chosen on folds."""
        return self._cv_name() != "loo"

    def _cv_name(self) -> str:
        """Return "auto", "loo" or "fold"."""
        if isinstance(self.cv, str):
            if self.cv not in {"auto", "loo", "fold"}:
                message = (
                    "Expected cv to be 'auto', 'loo', 'fold', a number of folds, a splitter or "
                    f"an iterable of (train, test); got {self.cv!r}."
                )
                raise InvalidInputError(message)
            return self.cv
        return "fold"

    def _fit(self, problem: Problem) -> None:
        name = self._cv_name()
        given = problem.grouped or problem.fold is not None
        if name == "loo" and problem.grouped:
            message = (
                "Expected cv='fold' or 'auto' where groups or recurring rows are given; got "
                "cv='loo', which leaves out single rows."
            )
            raise InvalidInputError(message)
        if name == "fold" or (name == "auto" and given):
            super()._fit(problem)
            return
        alphas = self._alphas()
        gram = Gram.of(problem.P, problem.y, problem.weight)
        with one_thread():
            ridge = _Ridge.of(gram)
            judged = len(alphas) > 1 and len(np.unique(problem.copies[problem.weight > 0])) > 1
            losses = _leave_one_out(ridge, problem, alphas) if judged and ridge.scale else None
            self._set(*self._chosen(ridge, alphas, losses))

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        alphas, ridge = self._alphas(), _Ridge.of(gram)
        losses = None
        if len(alphas) > 1 and splits and ridge.scale:
            total = np.zeros(len(alphas))
            for train, test in splits:
                part = _Ridge.of(train, whole=gram, scale=ridge.scale)
                total += test.weight * test.risk(*part.weights(alphas))
            losses = total / sum(test.weight for _, test in splits)
        return self._chosen(ridge, alphas, losses)

    def _alphas(self) -> np.ndarray:
        alphas = np.sort(np.atleast_1d(ALPHAS if self.alphas is None else self.alphas))
        if alphas.ndim != 1 or not len(alphas) or not (alphas > 0).all():
            message = f"Expected alphas to be positive numbers; got {self.alphas}."
            raise InvalidInputError(message)
        return alphas.astype(np.float64)

    def _chosen(
        self, ridge: _Ridge, alphas: np.ndarray, losses: np.ndarray | None
    ) -> tuple[np.ndarray, float]:
        """Take the largest of the best penalties."""
        if losses is None:
            self.alpha_ = float(alphas[0]) if len(alphas) == 1 and ridge.scale else np.inf
            losses = np.full(len(alphas), np.nan)
        else:
            losses = np.where(np.isfinite(losses), losses, np.inf)
            self.alpha_ = float(alphas[losses <= losses.min() * (1 + 1e-12)][-1])
        self.path_ = Path(alphas, losses)
        weights, intercept = ridge.weights(np.array([self.alpha_]))
        return weights[:, 0], intercept[0]


@dataclass(frozen=True, eq=False)
class _Ridge:
    """The path of all penalties, from one decomposition.

    The columns are ``p_j - mean(P)`` and a constant; their mean products are
    ``vectors @ diag(values) @ vectors.T``, and ``slopes`` are those with ``y - mean(P)``, in the
    basis of the vectors. ``scale`` is the mean variance of the columns.
    """

    values: np.ndarray
    vectors: np.ndarray
    slopes: np.ndarray
    scale: float

    @classmethod
    def of(cls, gram: Gram, whole: Gram | None = None, scale: float | None = None) -> _Ridge:
        """Decompose moments; those of a part count by its share in the weight of the whole."""
        n_models = gram.n_models
        errors, bias = gram.errors, gram.mean[:-1]
        rows = errors.mean(axis=0)
        products = np.zeros((n_models + 1, n_models + 1))
        products[:-1, :-1] = errors - rows - rows[:, None] + rows.mean()
        # Below this, differences of predictions are made of the rounding of their errors.
        noise = np.finfo(np.float64).eps * (n_models + 1) * errors.diagonal().max()
        if scale is None:
            scale = float(np.trace(products) / max(1, n_models - 1))
            scale = scale if scale > noise else 0.0
        constant = np.sqrt(scale)
        products[:-1, -1] = products[-1, :-1] = constant * (bias - bias.mean())
        products[-1, -1] = scale
        with_target = np.append(rows.mean() - rows, -constant * bias.mean())
        values, vectors = np.linalg.eigh(products)
        values = np.where(values > noise, values, 0.0)
        slopes = np.where(values > 0, vectors.T @ with_target, 0.0)
        share = 1.0 if whole is None else gram.weight / whole.weight
        return cls(values * share, vectors, slopes * share, scale)

    def inverse(self, alphas: np.ndarray) -> np.ndarray:
        """Return ``1 / (values + penalty)``, shape (n_columns, n_alphas); 0 along no column."""
        with np.errstate(over="ignore", invalid="ignore"):
            penalised = self.values[:, None] + alphas * self.scale
        there = (self.values[:, None] > 0) & np.isfinite(penalised)
        return np.divide(1.0, penalised, out=np.zeros_like(penalised), where=there)

    def weights(self, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of shape (n_models, n_alphas), and intercepts of shape (n_alphas,)."""
        columns = self.vectors @ (self.slopes[:, None] * self.inverse(alphas))
        deviations = columns[:-1] - columns[:-1].mean(axis=0)
        return deviations + 1.0 / len(deviations), np.sqrt(self.scale) * columns[-1]


def _leave_one_out(ridge: _Ridge, problem: Problem, alphas: np.ndarray) -> np.ndarray:
    """Return the mean squared error of every penalty for rows left out with all their copies."""
    inverse = ridge.inverse(alphas)
    fits = ridge.slopes[:, None] * inverse
    total = problem.weight.sum()
    # A row and its copies are left out together, so they pull as one row of all their weight.
    share = np.bincount(problem.copies, weights=problem.weight)[problem.copies] / total
    losses = np.zeros(len(alphas))
    for rows, block in problem.P.blocks(4 * len(alphas)):
        heard = problem.weight[rows] > 0  # others may hold no prediction at all
        predictions = block if heard.all() else block[heard]
        mean = predictions.mean(axis=1)
        columns = (predictions - mean[:, None]) @ ridge.vectors[:-1]
        columns += np.sqrt(ridge.scale) * ridge.vectors[-1]
        target = problem.y[rows][heard] - mean
        leverage = np.square(columns) @ inverse
        w = problem.weight[rows][heard]
        add_left_out(target, columns @ fits, leverage, share[rows][heard], w, losses)
    return losses / total
