"""Loss, gradient and Hessian of log pools and linear pools, and the steps of greedy selection."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["candidate_losses", "first_unusable", "linear_pass", "log_pass", "normalise"]

_ROWS = 128  # samples at a time: their features stay in the first cache
_LANES = 32  # products that grow side by side, by vector instructions
_FACTORS = 16  # probabilities >= 1e-15 that a product of at least _SMALL may grow by
_SMALL = 1e-60


@njit(cache=True, nogil=True)
def first_unusable(block, tolerance):  # type: ignore[no-untyped-def]
    """Return row and model of the first probabilities that are none, or (-1, -1).

    Those of a model and row, shape (n_classes,), must be non-negative and sum to one; NaN passes.
    """
    for r in range(block.shape[0]):
        for m in range(block.shape[1]):
            total, low = 0.0, 0.0
            for c in range(block.shape[2]):
                total += block[r, m, c]
                low = min(low, block[r, m, c])
            if low < 0.0 or abs(total - 1.0) > tolerance:
                return r, m
    return -1, -1


@njit(cache=True, nogil=True)
def normalise(block):  # type: ignore[no-untyped-def]
    """Divide probabilities by their sum, in place; one that is NaN makes those of its row so."""
    for r in range(block.shape[0]):
        for m in range(block.shape[1]):
            total = 0.0
            for c in range(block.shape[2]):
                total += block[r, m, c]
            for c in range(block.shape[2]):
                block[r, m, c] /= total


@njit(cache=True, nogil=True)
def _softmax(scores, true, p):  # type: ignore[no-untyped-def]
    """Write the probabilities of all classes but the last, whose score is 0; return the loss."""
    top = 0.0
    for c in range(len(scores)):
        top = max(top, scores[c])
    norm = np.exp(-top)
    for c in range(len(scores)):
        p[c] = np.exp(scores[c] - top)
        norm += p[c]
    for c in range(len(scores)):
        p[c] /= norm
    return np.log(norm) + top - (scores[true] if true < len(scores) else 0.0)


@njit(cache=True, nogil=True)
def _scale(rows, p, load, scaled, mean):  # type: ignore[no-untyped-def]
    """Write what the Hessian is made of: ``sqrt(load p) rows``, and their mean under p."""
    root = np.sqrt(load)
    mean[:] = 0.0
    for c in range(rows.shape[0]):
        share = np.sqrt(p[c])
        for k in range(rows.shape[1]):
            scaled[c, k] = root * share * rows[c, k]
            mean[k] += share * scaled[c, k]


@njit(cache=True, nogil=True)
def log_pass(features, y, w, theta, hessian):  # type: ignore[no-untyped-def]
    """Return loss, gradient, Hessian and row losses of ``softmax(features @ theta)``.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_classes - 1, n_features)
        Log-probabilities of each class minus those of the last one.
    y : ndarray of int64 of shape (n_samples,)
        Number of the true class.
    w : ndarray of shape (n_samples,)
        Weights of the samples.
    theta : ndarray of shape (n_features,)
        Coefficients.
    hessian : bool
        Whether the Hessian is wanted; it is zero otherwise.

    Returns
    -------
    loss : float
        Weighted sum of log-losses, in nats.
    gradient : ndarray of shape (n_features,)
    hessian : ndarray of shape (n_features, n_features)
    losses : ndarray of shape (n_samples,)
        Log-loss of every sample.
    """
    n, n_free, n_features = features.shape
    gradient = np.zeros(n_features)
    second = np.zeros((n_features, n_features))
    losses = np.empty(n)
    total = 0.0
    p = np.empty(n_free)
    pull = np.empty((_ROWS, n_free))
    scaled = np.empty((_ROWS * n_free, n_features))
    means = np.empty((_ROWS, n_features))
    for start in range(0, n, _ROWS):
        size = min(_ROWS, n - start)
        block = features[start : start + size].reshape(size * n_free, n_features)
        scores = np.dot(block, theta).reshape(size, n_free)
        for r in range(size):
            row = start + r
            true, load = y[row], w[row]
            losses[row] = _softmax(scores[r], true, p)
            total += load * losses[row]
            for c in range(n_free):
                pull[r, c] = load * (p[c] - (1.0 if true == c else 0.0))
            if hessian:
                _scale(
                    block[r * n_free : (r + 1) * n_free], p, load, scaled[r * n_free :], means[r]
                )
        gradient += np.dot(pull[:size].reshape(size * n_free), block)
        if hessian:
            z, mu = scaled[: size * n_free], means[:size]
            second += np.dot(z.T, z) - np.dot(mu.T, mu)
    return total, gradient, second, losses


@njit(cache=True, nogil=True)
def linear_pass(q, w, weights):  # type: ignore[no-untyped-def]
    """Return loss, gradient and Hessian of ``-sum w log(q @ weights)``.

    `q`, of shape (n_samples, n_models), holds what each model gave to the true class, > 0.
    """
    n, n_models = q.shape
    gradient = np.zeros(n_models)
    second = np.zeros((n_models, n_models))
    scaled = np.empty((_ROWS, n_models))
    total = 0.0
    for start in range(0, n, _ROWS):
        size = min(_ROWS, n - start)
        mixed = np.dot(q[start : start + size], weights)
        for r in range(size):
            load = w[start + r]
            total -= load * np.log(mixed[r])
            root = np.sqrt(load)
            for m in range(n_models):
                scaled[r, m] = root * q[start + r, m] / mixed[r]
                gradient[m] -= root * scaled[r, m]
        second += np.dot(scaled[:size].T, scaled[:size])
    return total, gradient, second


@njit(cache=True, nogil=True)
def _sum_of_logs(q, pooled, old, new, floor):  # type: ignore[no-untyped-def]
    """Return the sum of the logarithms of a mixture, by few logarithms of long products."""
    n = len(q)
    products = np.ones(_LANES)
    total = 0.0
    whole = n - n % _LANES
    factors = 0
    for start in range(0, whole, _LANES):
        here, there = pooled[start : start + _LANES], q[start : start + _LANES]
        for k in range(_LANES):
            products[k] *= max(old * here[k] + new * there[k], floor)
        factors += 1
        if factors == _FACTORS:
            factors = 0
            for k in range(_LANES):
                if products[k] < _SMALL:
                    total += np.log(products[k])
                    products[k] = 1.0
    for i in range(whole, n):
        total += np.log(max(old * pooled[i] + new * q[i], floor))
    for k in range(_LANES):
        total += np.log(products[k])
    return total


@njit(cache=True, nogil=True)
def candidate_losses(q, w, pooled, step, floor, alike):  # type: ignore[no-untyped-def]
    """Return the weighted mean log-loss of a linear pool of `step` models and each further one.

    Parameters
    ----------
    q : ndarray of shape (n_models, n_samples)
        What each model gave to the true class.
    w : ndarray of shape (n_samples,)
        Weights of the samples.
    pooled : ndarray of shape (n_samples,)
        What the pool of the models chosen so far gives to it.
    step : int
        How many they are.
    floor : float
        Smallest probability; smaller ones count as this.
    alike : bool
        Whether all weights are the same: then one logarithm serves many samples.
    """
    n_models, n = q.shape
    result = np.empty(n_models)
    old, new = step / (step + 1.0), 1.0 / (step + 1.0)
    total = w.sum()
    for m in range(n_models):
        if alike:
            result[m] = _sum_of_logs(q[m], pooled, old, new, floor) / -n
            continue
        loss = 0.0
        for i in range(n):
            loss -= w[i] * np.log(max(old * pooled[i] + new * q[m, i], floor))
        result[m] = loss / total
    return result
