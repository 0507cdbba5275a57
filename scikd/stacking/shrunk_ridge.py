"""Ridge regression that shrinks to the plain mean instead of to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import block_diag

from scikd.exceptions import InvalidInputError
from scikd.stacking._problem import Problem
from scikd.stacking._threads import one_thread
from scikd.stacking.combiners import LinearCombiner
from scikd.stacking.gram import Gram, GramSplit
from scikd.stacking.kernels import add_left_out

__all__ = ["Path", "ShrunkRidge"]

ALPHAS = (*np.logspace(-8, 4, 49), np.inf)


class Path(NamedTuple):
    """Penalties, and what was found for each; both of shape (n_alphas,)."""

    alphas: np.ndarray
    losses: np.ndarray


class ShrunkRidge(LinearCombiner):
    r"""Ridge regression that shrinks to the plain mean instead of to nothing.

    The penalty is on ``weights - 1 / n_models``, and on the intercept, whose unit is the spread of
    the sum of all models. A large one gives the plain mean exactly, and a small one ordinary least
    squares; or, with `sum_to_one`, the best average.

    Parameters
    ----------
    alphas : array-like or None, default=None
        Penalties to choose from, as multiples of the mean square of ``p_j - mean(P)``, per unit of
        sample weight: they do not depend on the unit of y, nor on the number of rows. May hold
        infinity, which is the plain mean. None is 49 from 1e-8 to 1e4, and infinity.
    cv : {"evidence", "auto", "loo", "fold"}, int, splitter or iterable, default="evidence"
        How a penalty is judged. "evidence" takes the one under which the targets are likeliest,
        see below, and holds nothing out. "loo" leaves out one row after another, with all its
        copies, in closed form. "fold" leaves out the given folds, or five that are dealt out; an
        int, a splitter or an iterable of (train, test) says which. "auto" is "fold" where folds,
        groups or recurring rows are given, and "loo" otherwise.
    power : float, default=0.5
        0 penalises the sum of squares of ``weights - 1 / n_models``, as ridge regression does: it
        shrinks least in the directions in which models differ most. 1 shrinks all directions
        alike, as a g-prior does. In between, the penalty of a direction in which models differ
        grows as this power of the mean square along it [2]_.
    sum_to_one : bool or "auto", default="auto"
        Whether the weights must add up to one, and there is no intercept. "auto" takes what is
        judged better: this saves two numbers that a few rows cannot tell, but cannot mend models
        that are all too large, or too bold. With one penalty nothing is judged, and they
        need not.
    random_state : int, RandomState or None, default=None
        How rows are dealt out.

    Attributes
    ----------
    alpha_ : float
        The penalty that was chosen: the largest of the best. Infinity where nothing can be held
        out, and where no two models differ.
    sum_to_one_ : bool
        Whether the weights had to add up to one.
    path_ : Path
        The penalties, and for each the held-out mean squared error in the square of the unit of y;
        or minus the logarithm of the evidence, in nats per group of rows, up to a constant. NaN
        where nothing could be judged.

    Notes
    -----
    The evidence [1]_ is the likelihood of the targets when the weights are drawn from a normal
    distribution around those of the plain mean, whose width the penalty stands for, and the
    variance of the noise is known as well as from one row that the mean has predicted. With
    eigenvalues :math:`v_i` of the mean products of the columns, the mean products :math:`q_i` of
    the eigenvectors with :math:`y - \bar p`, the mean square :math:`t` of that, :math:`N` groups
    of rows, and the penalty :math:`\lambda`, it is

    .. math:: \log p(y \mid \lambda) = -\frac12 \sum_i \log\Bigl(1 + \frac{v_i}{\lambda}\Bigr)
              - \frac{N + 1}2 \log\Bigl(N t - N \sum_i \frac{q_i^2}{v_i + \lambda} + t\Bigr)
              + \text{const}.

    Rows of one group, and copies of a row, count as one observation; groups of unequal weight as
    many as ``sum(w) ** 2 / sum(w ** 2)`` of equal ones.

    A penalty that was chosen on folds is kept for the fit to all rows, as in scikit-learn.

    References
    ----------
    .. [1] D. J. C. MacKay, "Bayesian interpolation", Neural Computation 4 (1992), section 4.
    .. [2] M. Goldstein, A. F. M. Smith, "Ridge-type estimators for regression analysis", Journal
       of the Royal Statistical Society B 36 (1974), on powers of the eigenvalues.
    """

    alpha_: float
    sum_to_one_: bool
    path_: Path

    def __init__(
        self,
        alphas: Any = None,
        *,
        cv: Any = "evidence",
        power: float = 0.5,
        sum_to_one: bool | str = "auto",
        random_state: Any = None,
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.power = power
        self.sum_to_one = sum_to_one
        self.random_state = random_state

    @property
    def needs_rows(self) -> bool:
        """Whether rows are left out one by one."""
        return self._cv_name() == "loo"

    @property
    def needs_folds(self) -> bool:
        """Whether a penalty is chosen on folds."""
        return self._cv_name() not in {"loo", "evidence"}

    def _cv_name(self) -> str:
        """Return "evidence", "auto", "loo" or "fold"."""
        if isinstance(self.cv, str):
            if self.cv not in {"evidence", "auto", "loo", "fold"}:
                message = (
                    "Expected cv to be 'evidence', 'auto', 'loo', 'fold', a number of folds, a "
                    f"splitter or an iterable of (train, test); got {self.cv!r}."
                )
                raise InvalidInputError(message)
            return self.cv
        return "fold"

    def _fit(self, problem: Problem) -> None:
        name = self._cv_name()
        given = problem.grouped or problem.fold is not None
        if name == "loo" and problem.grouped:
            message = (
                "Expected cv='evidence', 'fold' or 'auto' where groups or recurring rows are "
                "given; got cv='loo', which leaves out single rows."
            )
            raise InvalidInputError(message)
        if name == "fold" or (name == "auto" and given):
            super()._fit(problem)
            return
        gram = Gram.of(problem.P, problem.y, problem.weight, groups=problem.groups)
        if name == "evidence":
            self.solve(gram)
            return
        alphas = self._alphas()
        with one_thread():
            ridges = self._ridges(gram)
            judged = len(alphas) > 1 and gram.n_effective > 1 and ridges[0].scale
            losses = [_leave_one_out(one, problem, alphas) for one in ridges] if judged else None
            self._set(*self._chosen(ridges, alphas, losses))

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        alphas, ridges, losses = self._alphas(), self._ridges(gram), None
        if len(alphas) > 1 and ridges[0].scale:
            if self._cv_name() == "evidence":
                if gram.n_effective > 1:
                    losses = [one.surprise(alphas, gram.n_effective) for one in ridges]
            elif splits:
                losses = [_on_folds(one, splits, alphas) for one in ridges]
        return self._chosen(ridges, alphas, losses)

    def _ridges(self, gram: Gram) -> list[_Ridge]:
        """Return those to choose from, the simpler first."""
        kinds = {"auto": (True, False), True: (True,), False: (False,)}
        if not isinstance(self.sum_to_one, bool | np.bool_ | str) or self.sum_to_one not in kinds:
            message = f"Expected sum_to_one to be True, False or 'auto'; got {self.sum_to_one!r}."
            raise InvalidInputError(message)
        if not isinstance(self.power, Real) or not 0 <= self.power <= 1:
            message = f"Expected power to be from 0 to 1; got {self.power!r}."
            raise InvalidInputError(message)
        found = [
            _Columns.of(gram, float(self.power), sum_to_one=kind) for kind in kinds[self.sum_to_one]
        ]
        return [_Ridge.of(gram, columns) for columns in found]

    def _alphas(self) -> np.ndarray:
        given = ALPHAS if self.alphas is None else self.alphas
        try:
            alphas = np.sort(np.atleast_1d(np.asarray(given, dtype=np.float64)))
            fit = alphas.ndim == 1 and len(alphas) > 0 and bool((alphas > 0).all())
        except (TypeError, ValueError):
            fit = False
        if not fit:
            message = f"Expected alphas to be positive numbers or None; got {self.alphas!r}."
            raise InvalidInputError(message)
        return alphas

    def _chosen(
        self, ridges: list[_Ridge], alphas: np.ndarray, judged: list[np.ndarray] | None
    ) -> tuple[np.ndarray, float]:
        """Take the simplest of the best, and the largest of its best penalties."""
        ridge, losses = ridges[0], np.full(len(alphas), np.nan)
        if judged is None:
            ridge = ridges[-1]
            self.alpha_ = float(alphas[0]) if len(alphas) == 1 and ridge.scale else np.inf
        else:
            paths = [np.where(np.isfinite(one), one, np.inf) for one in judged]
            least = min(path.min() for path in paths)
            if self._cv_name() != "evidence":
                least += 1e-13 * ridge.target  # a perfect fit leaves rounding, which says nothing
            least += 1e-12 * abs(least)
            best = next(number for number, path in enumerate(paths) if path.min() <= least)
            ridge, losses = ridges[best], paths[best]
            self.alpha_ = float(alphas[losses <= least][-1])
        self.path_, self.sum_to_one_ = Path(alphas, losses), ridge.columns.sum_to_one
        weights, intercept = ridge.weights(np.array([self.alpha_]))
        return weights[:, 0], intercept[0]


class _Columns(NamedTuple):
    """What the columns of a ridge are made with: from all rows, also where a part is fitted.

    They are ``(P - mean(P)) @ even``, ``sqrt(n_models) * (mean(P) - centre)``, so that a sum of
    squares of their weights is that of the models', and ``constant``; the last two are not there if
    the weights must add up to one.
    """

    scale: float
    even: np.ndarray
    centre: float
    constant: float
    weight: float
    sum_to_one: bool

    @classmethod
    def of(cls, gram: Gram, power: float, *, sum_to_one: bool) -> _Columns:
        """Find the scales; `scale` is the mean square of ``p_j - mean(P)``, 0 if it is rounding."""
        differences, mean, variance = _spread(gram)
        noise = _rounding(gram)
        scale = float(np.trace(differences) / max(1, gram.n_models - 1))
        scale = scale if scale > noise else 0.0
        values, vectors = np.linalg.eigh(differences)
        there = (values > noise) & (scale > 0)
        factors = np.zeros(len(values))
        factors[there] = (values[there] / scale) ** (-power / 2) if power else 1.0
        constant = float(np.sqrt(scale + gram.n_models * max(0.0, variance)))
        even = (vectors * factors) @ vectors.T
        return cls(scale, even, mean, constant, gram.weight, sum_to_one)

    def basis(self) -> np.ndarray:
        """Return those columns in terms of ``P - mean(P)``, ``mean(P) - centre`` and 1."""
        n_models = len(self.even)
        ends = np.diag([np.sqrt(n_models), self.constant])[:, : 0 if self.sum_to_one else 2]
        return np.asarray(block_diag(self.even, ends))


def _spread(gram: Gram) -> tuple[np.ndarray, float, float]:
    """Return mean products of ``p_j - mean(P)``, and mean and variance of ``mean(P)``."""
    errors = gram.errors
    rows = errors.mean(axis=0)
    # mean(P) is the mean of the errors, and y.
    column = np.append(np.full(gram.n_models, 1 / gram.n_models), 1.0)
    mean, variance = gram.mean @ column, column @ gram.scatter @ column / gram.weight
    return errors - rows - rows[:, None] + rows.mean(), float(mean), float(variance)


def _rounding(gram: Gram) -> float:
    """Below this, differences of predictions are made of the rounding of their errors."""
    largest = gram.errors.diagonal().max()
    return float(np.finfo(np.float64).eps * (gram.n_models + 2) * largest)


@dataclass(frozen=True, eq=False)
class _Ridge:
    """The path of all penalties, from one decomposition.

    The mean products of the columns are ``U @ diag(values) @ U.T``, and ``slopes`` are those with
    ``y - mean(P)``, in the basis of U; ``vectors`` are these in terms of ``P - mean(P)``,
    ``mean(P) - centre`` and 1. ``target`` is the mean square of ``y - mean(P)``. The moments of a
    part of the rows count by its share in the weight of the whole.
    """

    values: np.ndarray
    vectors: np.ndarray
    slopes: np.ndarray
    target: float
    columns: _Columns

    @classmethod
    def of(cls, gram: Gram, columns: _Columns) -> _Ridge:
        """Decompose moments."""
        differences, mean, variance = _spread(gram)
        bias, rows = gram.mean[:-1], gram.errors.mean(axis=0)
        away, beyond = mean - columns.centre, bias - bias.mean()
        column = np.append(np.full(gram.n_models, 1 / gram.n_models), 1.0)
        with_mean = (gram.scatter @ column / gram.weight)[:-1]
        with_mean_beyond = with_mean - with_mean.mean() + away * beyond
        products = np.block(
            [
                [differences, np.stack([with_mean_beyond, beyond], axis=1)],
                [with_mean_beyond, variance + away**2, away],
                [beyond, away, 1.0],
            ]
        )
        of_mean = -(with_mean.mean() + away * bias.mean())
        with_target = np.append(rows.mean() - rows, [of_mean, -bias.mean()])
        basis = columns.basis()
        products = basis.T @ products @ basis
        values, vectors = np.linalg.eigh(products)
        rounding = np.finfo(np.float64).eps * len(products) * products.diagonal().max()
        values = np.where(values > max(_rounding(gram), rounding), values, 0.0)
        vectors = basis @ vectors
        slopes = np.where(values > 0, vectors.T @ with_target, 0.0)
        share = gram.weight / columns.weight
        return cls(values * share, vectors, slopes * share, float(rows.mean()), columns)

    @property
    def scale(self) -> float:
        """Mean square of ``p_j - mean(P)``, which penalties are multiples of."""
        return self.columns.scale

    def inverse(self, alphas: np.ndarray) -> np.ndarray:
        """Return ``1 / (values + penalty)``, shape (n_columns, n_alphas); 0 along no column."""
        with np.errstate(over="ignore", invalid="ignore"):
            penalised = self.values[:, None] + alphas * self.scale
        there = (self.values[:, None] > 0) & np.isfinite(penalised)
        return np.divide(1.0, penalised, out=np.zeros_like(penalised), where=there)

    def surprise(self, alphas: np.ndarray, n: float) -> np.ndarray:
        """Return minus the log evidence of n observations, per observation, of every penalty."""
        there = self.values > 0
        explained = np.square(self.slopes[there]) / self.values[there]
        least = self.target - explained.sum()  # what least squares leaves, which may be rounding
        least = least if least > 1e-13 * self.target else 0.0
        left = least + explained @ (1.0 - self.values[there, None] * self.inverse(alphas)[there])
        spread = np.log1p(self.values[:, None] / (alphas * self.scale)).sum(axis=0)
        noise = (n * left + self.target) / (n + 1)
        with np.errstate(divide="ignore"):  # where the plain mean is perfect
            surprise: np.ndarray = 0.5 * (spread + (n + 1) * np.log(noise)) / n
        return surprise

    def weights(self, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of shape (n_models, n_alphas), and intercepts of shape (n_alphas,)."""
        found = self.vectors @ (self.slopes[:, None] * self.inverse(alphas))
        deviations, of_mean, constant = found[:-2], found[-2], found[-1]
        weights = deviations - deviations.mean(axis=0) + (1.0 + of_mean) / len(deviations)
        return weights, constant - self.columns.centre * of_mean


def _on_folds(ridge: _Ridge, splits: Sequence[GramSplit], alphas: np.ndarray) -> np.ndarray:
    """Return the mean squared error of every penalty on what the folds hold out."""
    total = np.zeros(len(alphas))
    for train, test in splits:
        part = _Ridge.of(train, ridge.columns)
        total += test.weight * test.risk(*part.weights(alphas))
    losses: np.ndarray = total / sum(test.weight for _, test in splits)
    return losses


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
        columns = (predictions - mean[:, None]) @ ridge.vectors[:-2]
        columns += np.outer(mean - ridge.columns.centre, ridge.vectors[-2]) + ridge.vectors[-1]
        target = problem.y[rows][heard] - mean
        leverage = np.square(columns) @ inverse
        w = problem.weight[rows][heard]
        add_left_out(target, columns @ fits, leverage, share[rows][heard], w, losses)
    return losses / total
