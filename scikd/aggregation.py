"""Rules that turn the predictions of several teachers into one.

An `Aggregator` is handed one teacher after the other through a `Combination`, so that rules which
can run in one pass (means, pools, votes) never hold more than a few arrays of one teacher's size.
Rules that need all members at once (median, trimmed mean, harmonised) say so by stacking them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from scikd._aggregator import (
    PROBABILITY_FLOOR,
    Aggregate,
    Aggregator,
    Combination,
    Missing,
    OnePass,
    Stack,
    check_weights,
    per_sample,
)
from scikd.exceptions import InvalidInputError
from scikd.harmonise import Harmoniser
from scikd.kernels.moments import stacked_moments
from scikd.kernels.robust import stacked_median, stacked_trimmed_mean

__all__ = [
    "Aggregate",
    "Aggregator",
    "Combination",
    "Harmonised",
    "InverseVariance",
    "LogOpinionPool",
    "Mean",
    "Median",
    "Routed",
    "SoftmaxMean",
    "TrimmedMean",
    "Vote",
    "as_aggregator",
    "check_weights",
]


@dataclass(frozen=True)
class Mean(Aggregator):
    """Weighted arithmetic mean."""

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        return OnePass(weights, missing)


@dataclass(frozen=True)
class InverseVariance(Aggregator):
    """Mean weighted by the inverse of each teacher's error variance.

    It is the best linear unbiased combination when the errors are independent; teachers of one
    target seldom have independent errors, so expect a mean that leans to the better ones.

    Parameters
    ----------
    variances : tuple of float or None, default=None
        Error variance of every teacher, in squared units of the quantity; `fit` estimates them
        as mean squared errors. The ensemble's weights multiply the inverse variances.
    """

    variances: tuple[float, ...] | None = None

    def fit(
        self, members: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> InverseVariance:
        """Estimate the variances as weighted mean squared errors on out-of-fold rows."""
        squared = np.square(members - y).reshape(len(members), len(y), -1).mean(axis=2)
        errors = np.average(squared, axis=1, weights=sample_weight)
        # A teacher that is right to the last bit would get all the weight through a zero division.
        floor = max(float(np.max(errors)) * 1e-12, np.finfo(np.float64).tiny)
        return replace(self, variances=tuple(np.maximum(errors, floor).tolist()))

    def keep(self, teachers: Sequence[int]) -> InverseVariance:
        """Return the rule with the variances of some of the teachers."""
        if self.variances is None:
            return self
        return replace(self, variances=tuple(self.variances[index] for index in teachers))

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        if self.variances is None:
            message = (
                "InverseVariance does not know the variances of the teachers. Pass variances=…, "
                "or calibrate it on out-of-fold predictions with fit or TeacherEnsemble.calibrate."
            )
            raise InvalidInputError(message)
        variances = np.asarray(self.variances)
        if variances.shape != weights.shape or not (variances > 0).all():
            message = (
                f"Expected {len(weights)} positive variances, one per teacher; "
                f"got {list(self.variances)}."
            )
            raise InvalidInputError(message)
        return OnePass(check_weights(weights / variances, len(weights)), missing)


def _about_mean(mean: np.ndarray, members: np.ndarray, weights: np.ndarray) -> Aggregate:
    _, std, _ = stacked_moments(members, weights, skip_missing=True)
    return Aggregate(mean, std, {"variance": per_sample(std)})


@dataclass(frozen=True)
class Median(Aggregator):
    """Weighted median, entry by entry."""

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        return Stack(weights, missing, lambda m, w: _about_mean(stacked_median(m, w), m, w))


@dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """Mean after a fraction of the weight is cut off at either end, entry by entry.

    Parameters
    ----------
    fraction : float, default=0.1
        Share of the total weight cut at each end, in [0, 0.5).
    """

    fraction: float = 0.1

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        if not 0.0 <= self.fraction < 0.5:
            message = f"Expected fraction in [0, 0.5); got {self.fraction}. 0.5 is the median."
            raise InvalidInputError(message)
        return Stack(
            weights,
            missing,
            lambda m, w: _about_mean(stacked_trimmed_mean(m, w, self.fraction), m, w),
        )


def _tempered(proba: np.ndarray, temperature: float) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a class of probability zero stays at zero
        return softmax(np.log(proba) / temperature, axis=1)


@dataclass(frozen=True)
class SoftmaxMean(Aggregator):
    """Mean of class probabilities (linear opinion pool), each tempered first.

    Parameters
    ----------
    temperature : float, default=1.0
        Probabilities become ``p ** (1 / temperature)``, renormalised: above 1 softer.
    """

    proba: ClassVar[bool] = True
    temperature: float = 1.0

    @staticmethod
    def from_scores(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Return probabilities of shape (n_samples, n_classes) from raw scores (logits)."""
        return softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=-1)

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        temperature = _positive(self.temperature, "temperature")
        temper = None if temperature == 1.0 else lambda p: _tempered(p, temperature)
        return OnePass(weights, missing, pool=lambda s: s.mean, temper=temper)


@dataclass(frozen=True)
class LogOpinionPool(Aggregator):
    """Normalised weighted geometric mean of class probabilities, with a temperature.

    Parameters
    ----------
    temperature : float or "fit", default=1.0
        Divides the pooled log-probabilities: above 1 softer. "fit" is learnt by `fit`, as the
        one number that minimises the log-loss of out-of-fold rows.
    """

    proba: ClassVar[bool] = True
    temperature: float | Literal["fit"] = 1.0

    def fit(
        self, members: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> LogOpinionPool:
        """Learn the temperature, if it is to be learnt, for equally weighted teachers."""
        if self.temperature != "fit":
            return self
        logits = np.log(np.maximum(members, PROBABILITY_FLOOR)).mean(axis=0)

        def log_loss(log_temperature: float) -> float:
            scores = log_softmax(logits / np.exp(log_temperature), axis=1)
            return -float(np.average((y * scores).sum(axis=1), weights=sample_weight))

        best = minimize_scalar(log_loss, bounds=(-4.0, 4.0), method="bounded")
        return replace(self, temperature=float(np.exp(best.x)))

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        if self.temperature == "fit":
            message = (
                "LogOpinionPool(temperature='fit') has not learnt its temperature. Pass a number, "
                "or calibrate it on out-of-fold predictions with fit or TeacherEnsemble.calibrate."
            )
            raise InvalidInputError(message)
        temperature = _positive(self.temperature, "temperature")
        return OnePass(
            weights, missing, pool=lambda s: softmax(s.log_pool_logits / temperature, axis=1)
        )


@dataclass(frozen=True)
class Vote(Aggregator):
    """Share of the (weighted) votes that every class gets; ties go to the first class."""

    proba: ClassVar[bool] = True

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        return OnePass(weights, missing, pool=lambda s: s.votes)


@dataclass(frozen=True)
class Routed(Aggregator):
    """Mean with weights of its own for every sample.

    Parameters
    ----------
    router : callable
        Takes the inputs; returns non-negative weights of shape (n_samples, n_teachers), of which
        each row has at least one positive entry. The ensemble's weights multiply them.
    """

    router: Callable[[Any], np.ndarray]

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del groups
        if X is None:
            message = "Routed weighs teachers by instance and needs the inputs: pass X."
            raise InvalidInputError(message)
        routes = np.asarray(self.router(X), dtype=np.float64)
        good = routes.ndim == 2 and routes.shape[1] == len(weights)
        if not good or not np.isfinite(routes).all() or (routes < 0).any():
            message = (
                f"Expected the router to give finite, non-negative weights of shape (n_samples, "
                f"{len(weights)}); got shape {routes.shape}."
            )
            raise InvalidInputError(message)
        routes = routes * weights
        return Stack(weights, missing, lambda members, _: _routed_mean(members, routes))


def _routed_mean(members: np.ndarray, routes: np.ndarray) -> Aggregate:
    shape = (*routes.T.shape, *([1] * (members.ndim - 2)))
    share = np.broadcast_to(routes.T.reshape(shape), members.shape)
    share = np.where(np.isnan(members), 0.0, share)
    total = share.sum(axis=0)
    if (total == 0).any():
        message = "Expected every sample to have a teacher with a positive weight; some have none."
        raise InvalidInputError(message)
    values = np.nan_to_num(members, nan=0.0)
    mean = (share * values).sum(axis=0) / total
    std = np.sqrt((share * np.square(values - mean)).sum(axis=0) / total)
    return Aggregate(mean, std, {"variance": per_sample(std)})


@dataclass(frozen=True)
class Harmonised(Aggregator):
    """Teachers of different scale or kind, brought to one scale before they are combined.

    Parameters
    ----------
    harmoniser : Harmoniser
        How they are brought to one scale; the consensus is in that scale.
    aggregator : Aggregator, default=Mean()
        How they are combined then.
    """

    harmoniser: Harmoniser
    aggregator: Aggregator = field(default_factory=Mean)

    @property
    def by_group(self) -> bool:
        """Whether members are harmonised within groups."""
        return self.harmoniser.per == "group" or self.aggregator.by_group

    def fit(
        self, members: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> Harmonised:
        """Learn the reference statistics of every teacher from out-of-fold predictions.

        Within groups there is nothing to learn: each group is its own reference.
        """
        if self.harmoniser.per == "group":
            return self
        harmoniser = self.harmoniser.fit(members, sample_weight=sample_weight)
        aggregator = self.aggregator.fit(harmoniser.transform(members), y, sample_weight)
        return Harmonised(harmoniser, aggregator)

    def keep(self, teachers: Sequence[int]) -> Harmonised:
        """Return the rule with the statistics of some of the teachers."""
        statistics = self.harmoniser.statistics
        if statistics is not None:
            statistics = {name: values[list(teachers)] for name, values in statistics.items()}
        harmoniser = replace(self.harmoniser, statistics=statistics)
        return Harmonised(harmoniser, self.aggregator.keep(teachers))

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        def combine(members: np.ndarray, weights: np.ndarray) -> Aggregate:
            scaled = self.harmoniser.transform(members, groups=groups)
            return self.aggregator.combine(scaled, weights, X=X, groups=groups, missing="skip")

        return Stack(weights, missing, combine)


def _positive(value: Any, name: str) -> float:
    if not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
        message = f"Expected {name} to be a positive number; got {value!r}."
        raise InvalidInputError(message)
    return float(value)


_BY_NAME: dict[str, Callable[[], Aggregator]] = {
    "inverse_variance": InverseVariance,
    "log_opinion_pool": LogOpinionPool,
    "mean": Mean,
    "median": Median,
    "softmax_mean": SoftmaxMean,
    "trimmed_mean": TrimmedMean,
    "vote": Vote,
}


def as_aggregator(rule: str | Aggregator) -> Aggregator:
    """Return the aggregator that a name stands for, or the aggregator itself.

    Raises
    ------
    InvalidInputError
        If the name is unknown; the message lists the known ones.
    """
    if isinstance(rule, Aggregator):
        return rule
    if isinstance(rule, str) and rule in _BY_NAME:
        return _BY_NAME[rule]()
    message = f"Expected an Aggregator or one of {sorted(_BY_NAME)}; got {rule!r}."
    raise InvalidInputError(message)
