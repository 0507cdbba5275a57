"""Pools of class probabilities, written out slowly and literally."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

EPS = 1e-15


def log_loss(p, y, w=None):
    """Weighted mean log-loss of probabilities clipped as AutoGluon clips those of two classes."""
    given = np.clip(p[np.arange(len(y)), y], EPS, 1 - EPS)
    return float(np.average(-np.log(given), weights=w))


def ensemble_selection(P, y, n_steps, loss=log_loss):
    """Caruana's selection with the ties, rounding and best prefix of AutoGluon's.

    P has shape (n_samples, n_models, n_classes). Returns weights, the chosen models and losses.
    """
    members = [P[:, m] for m in range(P.shape[1])]
    random = np.random.RandomState(0)
    chosen, losses, rounding = [], [], False
    for _ in range(n_steps):
        scores = []
        for member in members:
            mixed = sum([members[m] for m in chosen], start=member) / (len(chosen) + 1)
            mixed = mixed / mixed.sum(axis=1, keepdims=True)
            score = loss(mixed, y)
            scores.append(round(score, 6) if rounding else score)
        ties = [m for m, s in enumerate(scores) if np.isclose(s, min(scores), rtol=1e-12, atol=0)]
        known = [m for m in ties if m in chosen]
        best = random.choice(known or ties)
        score = scores[best]
        if not chosen and abs(score) > 1e-4:
            rounding, score = True, round(score, 6)
        chosen.append(int(best))
        losses.append(score)
        if len(members) == 1:
            break
    kept = losses.index(min(losses)) + 1
    weights = np.bincount(chosen[:kept], minlength=len(members)) / kept
    return weights, chosen[:kept], losses[:kept]


def best_linear_weights(P, y, w):
    """Weights on the simplex with the smallest log-loss, by a general optimiser."""
    q = np.maximum(P[np.arange(len(y)), :, y], 1e-6)
    m = q.shape[1]
    found = minimize(
        lambda v: -np.average(np.log(q @ v), weights=w),
        np.full(m, 1 / m),
        jac=lambda v: -np.average(q / (q @ v)[:, None], axis=0, weights=w),
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1, "jac": lambda v: np.ones(m)},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    return found.x


def log_pool(P, exponents, centre_weights, centre_exponent, floors, base):
    """The log pool's probabilities, one row at a time."""
    floor, centre_floor = floors
    out = np.empty((P.shape[0], P.shape[2]))
    for i, row in enumerate(P):
        centre = sum(v * p for v, p in zip(centre_weights, row, strict=True))
        score = centre_exponent * np.log((1 - centre_floor) * centre + centre_floor * base)
        for exponent, p in zip(exponents, row, strict=True):
            score = score + exponent * np.log((1 - floor) * p + floor * base)
        weight = np.exp(score - score.max())
        out[i] = weight / weight.sum()
    return out
