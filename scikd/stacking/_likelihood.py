"""Maximum likelihood of pools of class probabilities: linear ones, and logarithmic ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from scikd.stacking.pool_kernels import linear_pass, log_pass

__all__ = ["Likelihood", "linear_weights"]

_FLOOR = 1e-6
_STEPS = 100
_DESCENT = 1e-4  # share of the promised gain that a step has to bring
_SHRINKING = 0.1  # a step should gain less than this share of the one before
_JITTER = 1e-10  # share of the mean curvature, so that equal models have one answer: equal weights


def linear_weights(q: np.ndarray, w: np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
    """Return weights >= 0 that sum to one and minimise the log-loss of the weighted mean.

    Parameters
    ----------
    q : ndarray of shape (n_samples, n_models)
        What each model gave to the true class; less than 1e-6 counts as 1e-6.
    w : ndarray of shape (n_samples,)
        Weights of the samples.
    tolerance : float, default=1e-10
        How far from the smallest mean loss, in nats, the answer may be.
    """
    q = np.maximum(q, _FLOOR)
    n_models, total = q.shape[1], w.sum()
    weights = np.full(n_models, 1.0 / n_models)
    loss, gradient, hessian = linear_pass(q, w, weights)
    for _ in range(_STEPS):
        # Adding sum(weights) * total to the loss has the constraint fulfil itself.
        slope = gradient + total
        jitter = 1e-8 * hessian.trace() / n_models
        root = np.linalg.cholesky(hessian + jitter * np.eye(n_models)).T
        aim = root @ weights - np.linalg.solve(root.T, slope)
        step = nnls(root, aim)[0] - weights
        gain = -(slope @ step)
        if gain <= tolerance * total:
            break
        size = 1.0
        while size > 1e-10:
            there = weights + size * step
            there = np.maximum(there, 0.0) / there.sum()
            new, new_gradient, new_hessian = linear_pass(q, w, there)
            if new <= loss - 1e-4 * size * gain:
                break
            size *= 0.5
        else:
            break
        weights, loss, gradient, hessian = there, new, new_gradient, new_hessian
    return weights


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-loss of ``softmax(features @ theta)``, with a quadratic penalty.

    Attributes
    ----------
    features : ndarray of shape (n_samples, n_classes - 1, n_features)
        Log-probabilities of each class minus those of the last one.
    y : ndarray of int64 of shape (n_samples,)
        Numbers of the true classes.
    w : ndarray of shape (n_samples,)
        Weights of the samples.
    centre : ndarray of shape (n_features,)
        Coefficients that the penalty pulls to.
    positive : bool
        Whether coefficients may not be negative.
    """

    features: np.ndarray
    y: np.ndarray
    w: np.ndarray
    centre: np.ndarray
    positive: bool = False

    def losses(self, theta: np.ndarray) -> np.ndarray:
        """Return the log-loss of every row, in nats."""
        losses: np.ndarray = log_pass(self.features, self.y, self.w, theta, False)[3]
        return losses

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """Return the Hessian of the summed loss, without penalty."""
        hessian: np.ndarray = log_pass(self.features, self.y, self.w, theta, True)[2]
        return hessian

    def path(self, penalties: Sequence[np.ndarray], tolerance: float) -> list[np.ndarray]:
        """Return the coefficients for several penalties, each started from the one before."""
        theta, found = self.centre, []
        hessian = self.hessian(theta)
        for penalty in penalties:
            theta, hessian = self._fit(penalty, theta, hessian, tolerance)
            found.append(theta)
        return found

    def _fit(
        self, penalty: np.ndarray, start: np.ndarray, hessian: np.ndarray, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Minimise the loss plus ``penalty @ (theta - centre)**2 / 2`` by Newton's method.

        A Hessian costs as much as many gradients, and changes little along a path of penalties. It
        is computed again only where steps stop shrinking.

        Parameters
        ----------
        penalty : ndarray of shape (n_features,)
            Infinite where a coefficient is to stay at its centre.
        start : ndarray of shape (n_features,)
            Where to start.
        hessian : ndarray of shape (n_features, n_features)
            Hessian of the loss somewhere near.
        tolerance : float
            How far from the smallest mean loss, in nats, the answer may be.
        """
        free = np.isfinite(penalty)
        theta = np.where(free, start, self.centre)
        pull = np.where(free, penalty, 0.0)
        enough, last, fresh = tolerance * self.w.sum(), np.inf, False
        value, slope = self._penalised(theta, pull)
        for _ in range(_STEPS):
            step = np.zeros(len(theta))
            curved = (hessian + np.diag(pull))[np.ix_(free, free)]
            step[free] = self._step(theta[free], slope[free], curved)
            gain = -float(slope @ step)
            if gain <= enough:
                break
            found = self._search(theta, step, value - _DESCENT * gain, pull)
            if not fresh and (found is None or gain > _SHRINKING * last):
                hessian, fresh, last = self.hessian(theta), True, np.inf
                continue
            if found is None:
                break
            theta, value, slope = found
            last, fresh = gain, False
        return theta, hessian

    def _search(
        self, theta: np.ndarray, step: np.ndarray, goal: float, pull: np.ndarray
    ) -> tuple[np.ndarray, float, np.ndarray] | None:
        """Return the first point along a halved step that is low enough, with value and slope."""
        for halvings in range(30):
            there = theta + 0.5**halvings * step
            value, slope = self._penalised(there, pull)
            if value <= goal:
                return there, value, slope
        return None

    def _step(self, theta: np.ndarray, slope: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        if not len(theta):
            return theta
        hessian = hessian + (_JITTER * hessian.trace() / len(theta)) * np.eye(len(theta))
        if not self.positive:
            return np.asarray(-cho_solve(cho_factor(hessian), slope))
        root = np.linalg.cholesky(hessian).T
        return np.asarray(nnls(root, root @ theta - np.linalg.solve(root.T, slope))[0] - theta)

    def _penalised(self, theta: np.ndarray, pull: np.ndarray) -> tuple[float, np.ndarray]:
        away = theta - self.centre
        loss, slope, _, _ = log_pass(self.features, self.y, self.w, theta, False)
        return loss + 0.5 * (pull @ away**2), slope + pull * away
