"""Lasso and elastic net: weights that are shrunk to nothing, and of which many are zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.stacking.combiners import LinearCombiner
from scikd.stacking.gram import Gram, GramSplit
from scikd.stacking.kernels import elastic_net_path

__all__ = ["ElasticNetCombiner"]

_N_ALPHAS = 60
_SMALLEST = 1e-7  # as a share of the penalty that leaves no weight: models differ by little


class ElasticNetCombiner(LinearCombiner):
    """Least squares with an intercept and the penalty of the elastic net, chosen on folds.

    Parameters
    ----------
    l1_ratio : float or sequence of float, default=(0.5, 0.9, 1.0)
        Share of the penalty on absolute weights, in (0, 1], as in
        `sklearn.linear_model.ElasticNet`; 1 is the lasso. The best of several is taken.
    alphas : array-like or None, default=None
        Penalties to choose from, as in scikit-learn; in the square of the unit of y. None is 60 for
        every `l1_ratio`, from that which leaves no weight down to 1e-7 of it.
    cv : int, splitter, iterable of (train, test) or None, default=None
        None takes the given folds, or five that are dealt out.
    random_state : int, RandomState or None, default=None
        How rows are dealt out.

    Attributes
    ----------
    alpha_, l1_ratio_ : float
        What was chosen: of the best, the largest penalty. Where nothing can be held out, the
        largest of all.
    alphas_ : ndarray of shape (n_l1_ratios, n_alphas)
        The penalties that were tried.
    losses_ : ndarray of shape (n_l1_ratios, n_alphas)
        The held-out mean squared error of each, in the square of the unit of y; NaN where nothing
        was held out.

    Notes
    -----
    Every path is solved exactly, from moments. Coordinate descent does not get there: on pools of
    models of one target, whose predictions correlate at 0.99 and more, it has not converged after
    ten thousand rounds.
    """

    alpha_: float
    l1_ratio_: float
    alphas_: np.ndarray
    losses_: np.ndarray

    def __init__(
        self,
        l1_ratio: Any = (0.5, 0.9, 1.0),
        *,
        alphas: Any = None,
        cv: Any = None,
        random_state: Any = None,
    ) -> None:
        self.l1_ratio = l1_ratio
        self.alphas = alphas
        self.cv = cv
        self.random_state = random_state

    @property
    def needs_folds(self) -> bool:
        """Whether there is more than one penalty to choose from."""
        return True

    def _solve(self, gram: Gram, splits: Sequence[GramSplit]) -> tuple[np.ndarray, float]:
        ratios = np.atleast_1d(np.asarray(self.l1_ratio, dtype=np.float64))
        if ratios.ndim != 1 or not len(ratios) or not ((ratios > 0) & (ratios <= 1)).all():
            message = f"Expected l1_ratio in (0, 1]; got {self.l1_ratio}."
            raise InvalidInputError(message)
        self.alphas_ = self._grid(gram, ratios)
        self.losses_ = np.full(self.alphas_.shape, np.nan)
        best = (0, 0)
        if splits and self.alphas_.size > 1:
            total = sum(test.weight for _, test in splits)
            self.losses_[:] = 0.0
            for row, ratio in enumerate(ratios):
                for train, test in splits:
                    risk = test.risk(*_path(train, ratio, self.alphas_[row]))
                    self.losses_[row] += risk * (test.weight / total)
            alike = self.losses_ <= self.losses_.min() * (1 + 1e-12)
            flat = int(np.argmax(np.where(alike, self.alphas_, 0.0)))
            best = divmod(flat, self.alphas_.shape[1])
        row, column = best
        self.alpha_, self.l1_ratio_ = float(self.alphas_[row, column]), float(ratios[row])
        # All penalties up to the chosen one, each of which starts the next.
        weights, intercepts = _path(gram, self.l1_ratio_, self.alphas_[row, : column + 1])
        return weights[:, -1], intercepts[-1]

    def _grid(self, gram: Gram, ratios: np.ndarray) -> np.ndarray:
        """Return penalties for every ratio, in falling order."""
        if self.alphas is not None:
            alphas = np.sort(np.atleast_1d(np.asarray(self.alphas, dtype=np.float64)))[::-1]
            if (
                alphas.ndim != 1
                or not len(alphas)
                or not (np.isfinite(alphas) & (alphas > 0)).all()
            ):
                message = f"Expected alphas to be positive numbers; got {self.alphas}."
                raise InvalidInputError(message)
            return np.tile(alphas, (len(ratios), 1))
        _, slopes = _moments(gram)
        largest = np.abs(slopes).max() or 1.0
        return largest / ratios[:, None] * np.geomspace(1.0, _SMALLEST, _N_ALPHAS)


def _moments(gram: Gram) -> tuple[np.ndarray, np.ndarray]:
    """Return mean products of centred predictions, and of these with the target."""
    scatter = gram.prediction_scatter / gram.weight
    return scatter[:-1, :-1], scatter[:-1, -1]


def _path(gram: Gram, ratio: float, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of shape (n_models, n_alphas) and intercepts of shape (n_alphas,)."""
    products, slopes = _moments(gram)
    weights = elastic_net_path(
        np.ascontiguousarray(products),
        np.ascontiguousarray(slopes),
        alphas * ratio,
        alphas * (1 - ratio),
    )
    return weights, gram.target_mean - gram.prediction_mean @ weights
