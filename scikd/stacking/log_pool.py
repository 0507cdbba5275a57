"""The log pool: a product of powers of the models' probabilities, learnt by maximum likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_random_state

from scikd.exceptions import InvalidInputError
from scikd.stacking._cubes import Inputs, blocks, linear_pool
from scikd.stacking._likelihood import Likelihood, linear_weights
from scikd.stacking._pool import ClassPool, truth_given
from scikd.stacking._problem import Problem, splits
from scikd.stacking._threads import one_thread
from scikd.stacking.kernels import fill_rows

__all__ = ["CENTRE_FLOOR", "LogPool", "floored", "floored_logs"]

_ALPHAS = (np.inf, *np.logspace(4, -3, 15))
_SURE = 16.0  # rows' worth of belief that the centre's exponent is one: a deviation of 1/4
CENTRE_FLOOR = 1e-6  # floor of the centre: linear pools of several models seldom say zero
_ENOUGH = 50_000  # rows to choose a penalty on: with more it hardly matters
_PATH, _FINAL = 1e-8, 1e-13  # how exactly losses are minimised, in nats


class LogPool(ClassPool):
    r"""A log-opinion pool that leaves the best linear pool only as far as held-out rows reward.

    The probability of a class is proportional to

    .. math:: \bar p^{\,b} \prod_m p_m^{w_m}

    with one exponent per model, and one for the centre :math:`\bar p`, a pool of few degrees of
    freedom. The exponents minimise the log-loss plus a penalty on :math:`\sum_m w_m^2`, which is
    chosen by cross-validation, and a slight one on :math:`8 (b - 1)^2` (sample weights count
    rows). With an infinite penalty the pool is the centre at a temperature of its own. Exponents
    need not be positive or sum to one, so that a temperature is always learnt. The problem is
    convex.

    Parameters
    ----------
    centre : {"linear", "mean", "geometric"}, default="linear"
        What an infinite penalty leads to: the weighted mean with the smallest log-loss (see
        `LinearPool`), the plain mean, or the geometric mean.
    alphas : "auto" or sequence of float, default="auto"
        Penalties to try, in units of the mean curvature of the loss along an exponent; `inf` is
        allowed. One alone is taken as it is.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Where the penalty is chosen: None takes the folds given to `fit`, or deals out five. Of
        more than 50,000 rows, so many are drawn for that; groups stay whole.
    floor : float, default=0.1
        Before logarithms are taken, every model is mixed with this share of the uniform
        distribution: a zero from a forest or a nearest neighbour would otherwise veto a class.
        An average needs no such care: the centre has a floor of 1e-6, and keeps small
        probabilities apart. Exponents above one make up for the softening.
    positive : bool, default=False
        Whether exponents may not be negative.
    inputs : {"proba", "logit"}, default="proba"
        What the predictions are: probabilities, or log-odds whose softmax they are.
    random_state : int, RandomState or None, default=0
        Order in which rows are dealt to folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    weights_ : ndarray of shape (n_models,)
        Exponents of the models.
    centre_exponent_ : float
        Exponent of the centre.
    centre_weights_ : ndarray of shape (n_models,)
        Weights of the models in the centre.
    temperature_ : float
        One over the sum of all exponents: above one the pool is softer than its models.
    alpha_ : float
        The chosen penalty.
    path_ : tuple of ndarray
        Penalties tried, from large to small, and the held-out log-loss of each, in nats; NaN if
        there was nothing to choose or no fold to choose on.

    See Also
    --------
    GreedyPool : Greedy selection.
    scikd.aggregation.LogOpinionPool : The pool with equal exponents, for teachers of any number.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_predict
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from scikd.stacking import LogPool
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> models = [LogisticRegression(max_iter=5000), RandomForestClassifier(50), GaussianNB()]
    >>> P = np.stack([cross_val_predict(m, X, y, method="predict_proba") for m in models], axis=1)
    >>> pool = LogPool().fit(P, y)
    >>> pool.predict_proba(P[:2]).shape
    (2, 2)
    """

    def __init__(
        self,
        *,
        centre: Literal["linear", "mean", "geometric"] = "linear",
        alphas: Literal["auto"] | Sequence[float] = "auto",
        cv: Any = None,
        floor: float = 0.1,
        positive: bool = False,
        inputs: Inputs = "proba",
        random_state: Any = 0,
    ) -> None:
        self.centre = centre
        self.alphas = alphas
        self.cv = cv
        self.floor = floor
        self.positive = positive
        self.inputs = inputs
        self.random_state = random_state

    def _learn(self, problem: Problem) -> None:
        alphas = self._checked_alphas()
        with one_thread():
            losses = np.full(len(alphas), np.nan)
            judged = self._judged(problem) if len(alphas) > 1 else problem
            fitting = _Fitting(self, judged)
            if len(alphas) > 1:
                folds = splits(judged, self.cv, self.random_state)
                losses = fitting.held_out(alphas, folds)
            best = 0 if np.isnan(losses).any() else int(np.argmin(losses))
            if judged is not problem:
                fitting = _Fitting(self, problem)
            exponents = fitting.path(alphas[[best]], fitting.weight, _FINAL)[0]
        self.path_ = (alphas, losses)
        self.alpha_ = float(alphas[best])
        self.centre_weights_ = fitting.centre_weights
        self.centre_exponent_ = float(exponents[0])
        self.weights_ = exponents[1:]
        self.temperature_ = float(1.0 / exponents.sum())

    def _judged(self, problem: Problem) -> Problem:
        """Return the rows on which the penalty is chosen: enough of them, groups whole."""
        if len(problem.y) <= _ENOUGH or not (self.cv is None or isinstance(self.cv, int)):
            return problem
        sizes = np.bincount(problem.groups)
        order = check_random_state(self.random_state).permutation(len(sizes))
        kept = order[np.cumsum(sizes[order]) <= _ENOUGH]
        rows = np.flatnonzero(np.isin(problem.groups, kept) & (problem.weight > 0))
        if len(rows) < _ENOUGH // 2:  # groups so large that few fit
            return problem
        return problem.take(rows)

    def _pool(self, block: np.ndarray) -> np.ndarray:
        logs = floored_logs(block, self.floor)
        scores = self.centre_exponent_ * self._centre(block, logs, self.centre_weights_)
        pooled: np.ndarray = softmax(scores + self.weights_ @ logs, axis=1)
        return pooled

    def _centre(self, block: np.ndarray, logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return log-probabilities of the centre, shape (n_rows, n_classes)."""
        if self.centre == "geometric":
            mean: np.ndarray = weights @ logs
            return mean
        return np.log(floored(linear_pool(block, weights), CENTRE_FLOOR))

    def _checked_alphas(self) -> np.ndarray:
        """Return the penalties from large to small."""
        given = _ALPHAS if isinstance(self.alphas, str) else self.alphas
        alphas = np.unique(np.asarray(given, dtype=np.float64))[::-1]
        wrong = []
        if (isinstance(self.alphas, str) and self.alphas != "auto") or not (alphas >= 0).all():
            wrong.append(f"alphas 'auto' or numbers >= 0, got {self.alphas!r}")
        if not len(alphas):
            wrong.append("alphas to try, got none")
        if self.centre not in {"linear", "mean", "geometric"}:
            wrong.append(f"centre 'linear', 'mean' or 'geometric', got {self.centre!r}")
        if not 0 < self.floor < 1:
            wrong.append(f"floor in (0, 1), got {self.floor}")
        if wrong:
            message = f"Expected {'; '.join(wrong)}."
            raise InvalidInputError(message)
        return alphas


class _Fitting:
    """The rows of a problem as a likelihood, whose centre can be fitted to some of them."""

    def __init__(self, pool: LogPool, problem: Problem) -> None:
        self._heard = np.flatnonzero(problem.weight)
        self._pool = pool
        self._cube = problem.P.take(self._heard)
        self.weight = problem.weight[self._heard]
        self._y = problem.y[self._heard].astype(np.int64)
        self._given = truth_given(problem)[self._heard] if pool.centre == "linear" else None
        n, n_models, n_classes = self._cube.values.shape
        self._features = np.empty((n, n_classes - 1, n_models + 1))
        for rows, block in blocks(self._cube):
            logs = floored_logs(block, pool.floor)
            free = (logs[:, :, :-1] - logs[:, :, -1:]).transpose(0, 2, 1)
            self._features[rows, :, 1:] = free
        self._at = np.r_[1.0, np.zeros(n_models)]

    def held_out(self, alphas: np.ndarray, folds: Any) -> np.ndarray:
        """Return the held-out loss of every penalty; NaN without folds."""
        place = np.empty(self._heard[-1] + 1, dtype=np.intp)
        place[self._heard] = np.arange(len(self._heard))
        totals, weight = np.zeros(len(alphas)), 0.0
        for train, test in folds:
            learnt = np.zeros(len(self.weight))
            learnt[place[train]] = self.weight[place[train]]
            tested = self.weight[place[test]]
            weight += tested.sum()
            for k, exponents in enumerate(self.path(alphas, learnt, _PATH)):
                totals[k] += tested @ self._likelihood(learnt).losses(exponents)[place[test]]
        return totals / weight if weight else np.full(len(alphas), np.nan)

    def path(self, alphas: np.ndarray, weight: np.ndarray, tolerance: float) -> list[np.ndarray]:
        """Return the exponents for every penalty, learnt with the given weights of rows."""
        self._centre(weight)
        likelihood = self._likelihood(weight)
        curvature = likelihood.hessian(self._at).diagonal()
        # Models that give every class the same have no curvature; any penalty will do.
        unit = curvature[1:].mean() or 1.0
        penalties = [np.r_[_SURE, np.full(len(self._at) - 1, a * unit)] for a in alphas]
        return likelihood.path(penalties, tolerance)

    def _likelihood(self, weight: np.ndarray) -> Likelihood:
        return Likelihood(self._features, self._y, weight, self._at, self._pool.positive)

    def _centre(self, weight: np.ndarray) -> None:
        """Fit the centre to the rows of positive weight, and compute it for all."""
        n_models = self._cube.n_models
        self.centre_weights = np.full(n_models, 1.0 / n_models)
        if self._given is not None:
            used = weight > 0
            self.centre_weights = linear_weights(self._given[used], weight[used])
        for rows, block in blocks(self._cube):
            logs = floored_logs(block, self._pool.floor)
            centre = self._pool._centre(block, logs, self.centre_weights)
            self._features[rows, :, 0] = centre[:, :-1] - centre[:, -1:]


def floored(proba: np.ndarray, floor: float) -> np.ndarray:
    """Mix probabilities with the uniform distribution."""
    return (1.0 - floor) * proba + floor / proba.shape[-1]


def floored_logs(block: np.ndarray, floor: float) -> np.ndarray:
    """Return logarithms of floored probabilities; missing models are the mean of the others."""
    logs = np.log(floored(block, floor))
    fill_rows(logs)
    return logs
