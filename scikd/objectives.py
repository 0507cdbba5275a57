"""Distillation losses: one class each, for NumPy, for torch, and for gradient boosting.

Every objective is ``objective(prediction, target, sample_weight=None)``, a weighted mean over
samples. The target is what the teachers said. Predictions of the classification objectives are raw
scores (logits): that is what a booster and a network produce, and only there are the gradients
simple and the numbers safe from overflow.

========================  ===========================  ===================  =======
objective                 prediction                   target               Hessian
========================  ===========================  ===================  =======
`SquaredError`            values                       values               yes
`AbsoluteError`           values                       values               no
`Huber`                   values                       values               yes
`BinaryCrossEntropy`      logits, each on its own      probabilities        yes
`SoftCrossEntropy`        logits (n, C), or (n,)       probabilities        yes
`KullbackLeibler`         logits (n, C), or (n,)       probabilities        yes
`LogOddsError`            logits (n, C), or (n,)       probabilities        yes
`PairwiseMargin`          scores (n,)                  scores               yes
`Total`                   whatever all its parts take  one, or one a part   if all
========================  ===========================  ===================  =======

Each formula is written once, for a namespace ``xp`` that is numpy or torch, so that the two cannot
drift apart; gradients are written by hand and tested against torch's and finite differences.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from scikd._objective import Array, BoostingObjective, Objective, size
from scikd.exceptions import InvalidInputError

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "BoostingObjective",
    "Huber",
    "KullbackLeibler",
    "LogOddsError",
    "Objective",
    "PairwiseMargin",
    "SoftCrossEntropy",
    "SquaredError",
    "Total",
]

# Rows of probabilities computed in half precision sum to one only to about three digits.
SUM_TOLERANCE = 1e-3


class _Elementwise(Objective):
    """A loss of each entry on its own; several outputs count by their mean, as in scikit-learn."""

    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        loss = self._loss(xp, p, t)
        return loss if loss.ndim == 1 else loss.reshape(len(loss), -1).mean(-1)

    def _gradient(self, p: Array, t: Any, w: Array) -> Array:
        return _per_output(w, p) * self._slope(p, t)

    def _hessian(self, p: Array, t: Any, w: Array) -> Array:
        return _per_output(w, p) * self._second(p, t)

    @abstractmethod
    def _loss(self, xp: Any, p: Any, t: Any) -> Any:
        """Return the loss of every entry."""

    @abstractmethod
    def _slope(self, p: Array, t: Array) -> Array:
        """Return its first derivative."""

    def _second(self, p: Array, t: Array) -> Array:
        raise NotImplementedError  # pragma: no cover - _no_hessian speaks first


@dataclass(frozen=True)
class SquaredError(_Elementwise):
    """Squared difference, (p - t)^2, in the target's unit squared.

    Examples
    --------
    >>> from scikd.objectives import SquaredError
    >>> SquaredError()([1.0, 3.0], [1.0, 1.0])
    2.0
    """

    def _loss(self, xp: Any, p: Any, t: Any) -> Any:
        return (p - t) ** 2

    def _slope(self, p: Array, t: Array) -> Array:
        return 2.0 * (p - t)

    def _second(self, p: Array, t: Array) -> Array:
        return np.full_like(p, 2.0)


@dataclass(frozen=True)
class AbsoluteError(_Elementwise):
    """Absolute difference, abs(p - t), in the target's unit."""

    def _loss(self, xp: Any, p: Any, t: Any) -> Any:
        return xp.abs(p - t)

    def _slope(self, p: Array, t: Array) -> Array:
        return np.sign(p - t)

    def _no_hessian(self) -> str:
        return (
            "its second derivative is zero wherever it exists. Use Huber(delta) with a small delta"
        )


@dataclass(frozen=True)
class Huber(_Elementwise):
    """Squared error near zero, absolute error beyond ``delta`` (Huber 1964, eq. 2.2).

    ``d^2 / 2`` for ``abs(d) <= delta``, else ``delta (abs(d) - delta / 2)``.

    Parameters
    ----------
    delta : float, default=1.0
        Where the two meet, in the target's unit; positive.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("delta", self.delta)

    def _loss(self, xp: Any, p: Any, t: Any) -> Any:
        size = xp.abs(p - t)
        near = 0.5 * size**2
        return xp.where(size <= self.delta, near, self.delta * (size - 0.5 * self.delta))

    def _slope(self, p: Array, t: Array) -> Array:
        return np.clip(p - t, -self.delta, self.delta)

    def _second(self, p: Array, t: Array) -> Array:
        return np.where(np.abs(p - t) <= self.delta, 1.0, 0.0)

    def _curvature(self, p: Array, t: Any, w: Array) -> Array:
        # A zero Hessian would forbid every split among far samples; slope(d) / d is the tightest
        # parabola above the loss, and never zero.
        return np.asarray(_per_output(w, p) * self.delta / np.maximum(np.abs(p - t), self.delta))


class _Classification(Objective):
    """A loss whose targets are probabilities; rows of several classes must sum to one."""

    def _problems(self, xp: Any, p: Any, t: Any, *, values: bool) -> list[str]:
        problems = super()._problems(xp, p, t, values=values)
        if p.ndim > 2:
            problems.append(f"prediction has shape {tuple(p.shape)}, expected (n,) or (n, C)")
        if p.ndim == 2 and p.shape[1] == 1:
            problems.append("prediction has one column; ravel it to (n,) for two classes")
        return problems or (_probability_problems(xp, t, sums=t.ndim == 2) if values else [])


@dataclass(frozen=True)
class BinaryCrossEntropy(_Elementwise):
    """Cross-entropy of a logit with a soft label: -t log s - (1 - t) log(1 - s), s = expit(p).

    In nats. Columns, if there are several, are labels of their own and need not sum to one.
    """

    def _loss(self, xp: Any, p: Any, t: Any) -> Any:
        zero = xp.zeros_like(p)
        return t * xp.logaddexp(zero, -p) + (1.0 - t) * xp.logaddexp(zero, p)

    def _slope(self, p: Array, t: Array) -> Array:
        return np.asarray(expit(p) - t)

    def _second(self, p: Array, t: Array) -> Array:
        return np.asarray(expit(p) * expit(-p))

    def _problems(self, xp: Any, p: Any, t: Any, *, values: bool) -> list[str]:
        problems = super()._problems(xp, p, t, values=values)
        return problems or (_probability_problems(xp, t, sums=False) if values else [])


@dataclass(frozen=True)
class SoftCrossEntropy(_Classification):
    """Cross-entropy of softened student and teacher (Hinton, Vinyals and Dean 2015, section 2).

    ``-T^2 sum_c q_c log softmax(z / T)_c`` in nats, where ``z`` are the student's logits and ``q``
    the teacher's probabilities raised to ``1 / T`` and normalised (a softmax at temperature ``T``
    of the logits they came from). The factor ``T^2`` keeps the gradient from shrinking with the
    temperature. A target of shape (n,) is the probability of the second of two classes, and the
    prediction the logit of it.

    Parameters
    ----------
    temperature : float, default=1.0
        T; positive. Above one, the classes that the teacher thinks unlikely count for more.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)

    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        log_student = _log_softmax(xp, _two_columns(xp, p) / self.temperature)
        return -(self.temperature**2) * (self._soften(xp, t) * log_student).sum(-1)

    def _gradient(self, p: Array, t: Any, w: Array) -> Array:
        residual = self._student(p) - self._soften(np, t)
        pull = residual[:, 1] if p.ndim == 1 else residual
        return np.asarray(_per_row(w, p) * self.temperature * pull)

    def _hessian(self, p: Array, t: Any, w: Array) -> Array:
        student = self._student(p)
        bend = student * (1.0 - student)
        return _per_row(w, p) * (bend[:, 1] if p.ndim == 1 else bend)

    def _curvature(self, p: Array, t: Any, w: Array) -> Array:
        # All classes are stepped at once, and off the diagonal there is as much again as on it.
        return (1.0 if p.ndim == 1 else 2.0) * self._hessian(p, t, w)

    def _student(self, p: Array) -> Array:
        return np.asarray(np.exp(_log_softmax(np, _two_columns(np, p) / self.temperature)))

    def _soften(self, xp: Any, t: Any) -> Any:
        if t.ndim == 1:
            t = xp.stack([1.0 - t, t], -1)
        with np.errstate(divide="ignore"):  # log 0 = -inf, and its exponential is 0 again
            return xp.exp(_log_softmax(xp, xp.log(t) / self.temperature))


@dataclass(frozen=True)
class KullbackLeibler(SoftCrossEntropy):
    """Divergence of the softened student from the softened teacher, T^2 KL(q || softmax(z / T)).

    `SoftCrossEntropy` less the teacher's own entropy: the same gradient, and zero if and only if
    the two agree, so that its value says how much is left to learn.

    Parameters
    ----------
    temperature : float, default=1.0
        T; positive.
    """

    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        teacher = self._soften(xp, t)
        # A class of probability zero adds nothing; log(1) = 0 stands in for its -inf.
        entropy = -(teacher * xp.log(xp.where(teacher > 0, teacher, xp.ones_like(teacher)))).sum(-1)
        return super()._value(xp, p, t) - self.temperature**2 * entropy


@dataclass(frozen=True)
class LogOddsError(_Classification):
    """Mean squared error between logits and the log-odds of probabilities (Ba and Caruana 2014).

    For (n,), the square of ``p - log(t / (1 - t))``. For (n, C), where logits mean something only
    up to a constant in each row, logits and log-probabilities are both centred in their row, and
    the square is averaged over the classes.

    Parameters
    ----------
    clip : float, default=1e-4
        Probabilities are moved into [clip, 1 - clip] first, as log-odds of 0 and 1 are infinite.
        The smaller, the more the samples decide of which a teacher is certain.
    """

    clip: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 < self.clip < 0.5:
            raise InvalidInputError(f"clip must lie between 0 and 0.5, got {self.clip!r}")

    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        square = self._residual(xp, p, t) ** 2
        return square if p.ndim == 1 else square.mean(-1)

    def _gradient(self, p: Array, t: Any, w: Array) -> Array:
        return np.asarray(2.0 * _per_output(w, p) * self._residual(np, p, t))

    def _hessian(self, p: Array, t: Any, w: Array) -> Array:
        centring = 1.0 if p.ndim == 1 else 1.0 - 1.0 / p.shape[1]
        return 2.0 * centring * _per_output(w, p) * np.ones_like(p)

    def _curvature(self, p: Array, t: Any, w: Array) -> Array:
        # The Hessian's largest eigenvalue, which centring leaves as it is.
        return 2.0 * _per_output(w, p) * np.ones_like(p)

    def _residual(self, xp: Any, p: Any, t: Any) -> Any:
        t = xp.clip(t, self.clip, 1.0 - self.clip)
        if p.ndim == 1:
            return p - xp.log(t / (1.0 - t))
        distance = p - xp.log(t)
        return distance - distance.mean(-1)[:, None]


@dataclass(frozen=True, eq=False)
class PairwiseMargin(Objective):
    """Squared error of the differences within a group (MarginMSE, Hofstaetter et al. 2020, eq. 5).

    The loss of sample i is the mean over the other members j of its group of
    ``((p_i - p_j) - (t_i - t_j))^2``, so the mean over a group is the mean over its pairs. Only
    differences count: a constant added to all scores of a group changes nothing. No loop goes over
    pairs: with d = p - t, ``sum over pairs of (d_i - d_j)^2 = n sum d^2 - (sum d)^2``. A group of
    one has loss zero. Weights are the samples', so a pair weighs as the sum of its two.

    Parameters
    ----------
    groups : array-like of shape (n,) or None, default=None
        Group (query, date) of every sample, in the order of the predictions; None is one group.
    """

    groups: Any = None

    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        code, sizes = self._codes(len(p))
        if xp is not np:
            code, sizes = (xp.as_tensor(a, device=p.device) for a in (code, sizes))
            sizes = sizes.to(p.dtype)
        d = p - t
        d = d - (_sums(xp, d, code, sizes) / sizes)[code]
        spread = _sums(xp, d**2, code, sizes)
        return (sizes[code] * d**2 + spread[code]) / _others(xp, sizes)[code]

    def _gradient(self, p: Array, t: Any, w: Array) -> Array:
        # d/dd_k of the sum over pairs is 2 / (n - 1) sum_j (w_k + w_j)(d_k - d_j); d is centred.
        code, sizes = self._codes(len(p))
        d = p - t
        d = d - (_sums(np, d, code, sizes) / sizes)[code]
        total, moment = _sums(np, w, code, sizes)[code], _sums(np, w * d, code, sizes)[code]
        pull = sizes[code] * w * d + total * d - moment
        return np.asarray(2.0 * pull / _others(np, sizes)[code])

    def _hessian(self, p: Array, t: Any, w: Array) -> Array:
        code, sizes = self._codes(len(p))
        total, n = _sums(np, w, code, sizes)[code], sizes[code]
        return np.asarray(2.0 * ((n - 2.0) * w + total) / _others(np, sizes)[code])

    def _problems(self, xp: Any, p: Any, t: Any, *, values: bool) -> list[str]:
        problems = super()._problems(xp, p, t, values=values)
        if p.ndim != 1:
            problems.append(f"prediction has shape {tuple(p.shape)}, expected scores (n,)")
        elif self.groups is not None and np.shape(self.groups) != (len(p),):
            problems.append(f"groups has shape {np.shape(self.groups)}, expected ({len(p)},)")
        return problems

    def _codes(self, n: int) -> tuple[NDArray[np.intp], Array]:
        groups = np.zeros(n, dtype=np.intp) if self.groups is None else np.asarray(self.groups)
        _, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        return code, sizes.astype(np.float64)


@dataclass(frozen=True, init=False)
class Total(Objective):
    """Weighted sum of objectives.

    Parameters
    ----------
    parts : sequence of (weight, Objective), or mapping of name to (weight, Objective)
        Weights are finite and not negative. Parts of a sequence are named by their class
        ("SquaredError", "SquaredError-2" if that comes again).

    Examples
    --------
    The classical mixture of true labels and softened teacher, each part with its own target:

    >>> import numpy as np
    >>> from scikd.objectives import KullbackLeibler, SoftCrossEntropy, Total
    >>> loss = Total({"labels": (0.3, SoftCrossEntropy()), "teacher": (0.7, KullbackLeibler(4.0))})
    >>> labels, teacher = np.array([[0.0, 1.0]]), np.array([[0.2, 0.8]])
    >>> parts = loss.parts(np.array([[0.0, 0.0]]), {"labels": labels, "teacher": teacher})
    >>> {name: round(value, 3) for name, value in parts.items()}
    {'labels': 0.693, 'teacher': 0.237}
    """

    terms: tuple[tuple[str, float, Objective], ...]

    def __init__(
        self,
        parts: Sequence[tuple[float, Objective]] | Mapping[str, tuple[float, Objective]],
    ) -> None:
        terms: list[tuple[str, float, Objective]] = []
        named = isinstance(parts, Mapping)
        pairs = parts.items() if isinstance(parts, Mapping) else [("", part) for part in parts]
        for name, (weight, objective) in pairs:
            label = name if named else type(objective).__name__
            if not isinstance(objective, Objective):
                message = f"part {label!r} of Total is no Objective but {objective!r}"
                raise InvalidInputError(message)
            if not (np.isfinite(weight) and weight >= 0.0):
                message = f"weight of {label!r} must be finite and not negative, got {weight!r}"
                raise InvalidInputError(message)
            same = sum(other.partition("-")[0] == label for other, _, _ in terms)
            terms.append(
                (f"{label}-{same + 1}" if same and not named else label, weight, objective)
            )
        if not terms:
            raise InvalidInputError("Total needs at least one (weight, objective), got none")
        object.__setattr__(self, "terms", tuple(terms))

    def parts(
        self,
        prediction: ArrayLike,
        target: ArrayLike | Mapping[str, ArrayLike],
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, float]:
        """Return the value of each part by its name, before its weight is applied."""
        p, t, w = self._arrays(prediction, target, sample_weight)
        return {
            name: float(np.average(objective._value(np, p, own), weights=w))  # noqa: SLF001
            for (name, _, objective), own in zip(self.terms, t, strict=True)
        }

    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        return self._sum("_value", t, xp, p)

    def _gradient(self, p: Array, t: Any, w: Array) -> Array:
        return np.asarray(self._sum("_gradient", t, p, after=(w,)))

    def _hessian(self, p: Array, t: Any, w: Array) -> Array:
        return np.asarray(self._sum("_hessian", t, p, after=(w,)))

    def _curvature(self, p: Array, t: Any, w: Array) -> Array:
        return np.asarray(self._sum("_curvature", t, p, after=(w,)))

    def _sum(self, method: str, t: Any, *before: Any, after: tuple[Any, ...] = ()) -> Any:
        terms = zip(self.terms, t, strict=True)
        return sum(a * getattr(part, method)(*before, own, *after) for (_, a, part), own in terms)

    def _no_hessian(self) -> str | None:
        reasons = ((name, part._no_hessian()) for name, _, part in self.terms)  # noqa: SLF001
        return next((f"of {name}, {why}" for name, why in reasons if why is not None), None)

    def _problems(self, xp: Any, p: Any, t: Any, *, values: bool) -> list[str]:
        return [
            f"{name}: {problem}"
            for (name, _, objective), own in zip(self.terms, t, strict=True)
            for problem in objective._problems(xp, p, own, values=values)  # noqa: SLF001
        ]

    def _convert(self, target: Any, convert: Callable[[Any], Any]) -> tuple[Any, ...]:
        names = [name for name, _, _ in self.terms]
        if not isinstance(target, Mapping):
            return (convert(target),) * len(names)
        if set(target) != set(names):
            message = f"Total needs a target for each of {names}, got targets for {list(target)}"
            raise InvalidInputError(message)
        return tuple(convert(target[name]) for name in names)


def _probability_problems(xp: Any, t: Any, *, sums: bool) -> list[str]:
    outside = int(((t < 0.0) | (t > 1.0)).sum())
    if outside:
        inside = f"{outside} of {size(t)} entries lie outside [0, 1] (were logits passed?)"
        return [f"target must hold probabilities, {inside}"]
    off = int((xp.abs(t.sum(-1) - 1.0) > SUM_TOLERANCE).sum()) if sums else 0
    return [f"target's rows must sum to one, {off} of {len(t)} do not"] if off else []


def _require_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0.0):
        raise InvalidInputError(f"{name} must be a positive number, got {value!r}")


def _per_row(w: Array, p: Array) -> Array:
    """Shape weights (n,) so that they multiply an array of the prediction's shape."""
    return w.reshape(-1, *(1,) * (p.ndim - 1))


def _per_output(w: Array, p: Array) -> Array:
    """Weights for a loss that is the mean over each sample's outputs."""
    return _per_row(w, p) * (len(p) / p.size)


def _two_columns(xp: Any, p: Any) -> Any:
    return xp.stack([xp.zeros_like(p), p], -1) if p.ndim == 1 else p


def _log_softmax(xp: Any, z: Any) -> Any:
    if xp is not np:
        return xp.log_softmax(z, -1)
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _sums(xp: Any, values: Any, code: Any, sizes: Any) -> Any:
    """Sum the values of each group."""
    if xp is np:
        return np.bincount(code, weights=values, minlength=len(sizes))
    return xp.zeros_like(sizes).index_add(0, code, values)


def _others(xp: Any, sizes: Any) -> Any:
    """How many other members a group has; one for a group of one, whose sums are zero anyway."""
    return xp.where(sizes > 1, sizes - 1.0, xp.ones_like(sizes))
