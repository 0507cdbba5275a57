"""Rules that turn the predictions of several teachers into one.

An `Aggregator` is handed one teacher after the other through a `Combination`, so that rules which
can run in one pass (means, pools, votes) never hold more than a few arrays of one teacher's size.
Rules that need all members at once (median, trimmed mean, harmonised) say so by stacking them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, final

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax, xlogy

from scikd.exceptions import InvalidInputError
from scikd.harmonise import Harmoniser
from scikd.kernels.moments import (
    ClassStatistics,
    Moments,
    stacked_median,
    stacked_moments,
    stacked_trimmed_mean,
)

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

Missing = Literal["raise", "skip"]
PROBABILITY_FLOOR = 1e-12
ROW_SUM_TOLERANCE = 1e-3


def check_weights(weights: Any, n_teachers: int) -> np.ndarray:
    """Return weights that sum to one.

    Parameters
    ----------
    weights : array-like of shape (n_teachers,) or None
        Non-negative weights, not all zero; None gives equal weights.
    n_teachers : int
        How many there should be.

    Returns
    -------
    ndarray of shape (n_teachers,)
        The weights, divided by their sum.

    Raises
    ------
    InvalidInputError
        If there are no teachers, or the weights have another length, are negative, not finite or
        all zero.
    """
    if n_teachers < 1:
        message = "Expected at least one teacher; got none."
        raise InvalidInputError(message)
    if weights is None:
        return np.full(n_teachers, 1.0 / n_teachers)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (n_teachers,):
        message = (
            f"Expected one weight per teacher, shape ({n_teachers},); got shape {weights.shape}."
        )
        raise InvalidInputError(message)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        message = (
            "Expected finite, non-negative weights of which at least one is positive; "
            f"got {weights.tolist()}."
        )
        raise InvalidInputError(message)
    return weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The result of one rule for one quantity: see `scikd.Consensus` for the fields."""

    mean: np.ndarray
    std: np.ndarray
    disagreement: dict[str, np.ndarray] = field(default_factory=dict)


class Combination(ABC):
    """A running combination: `add` every teacher in turn, then `finish`."""

    def __init__(self, weights: np.ndarray, missing: Missing) -> None:
        self.weights = weights
        self.missing = missing
        self._seen = 0
        self._shape: tuple[int, ...] | None = None

    @final
    def add(self, values: np.ndarray) -> None:
        """Take the predictions of the next teacher, shape (n_samples, ...).

        Raises
        ------
        InvalidInputError
            If the shape differs from the first teacher's, or a number is not finite (NaN is
            allowed under ``missing="skip"``).
        """
        index = self._seen
        if index >= len(self.weights):
            message = f"Expected {len(self.weights)} teachers; got one more."
            raise InvalidInputError(message)
        values = np.asarray(values)
        self._shape = self._shape or values.shape
        if values.shape != self._shape:
            message = (
                f"Teacher {index} predicts an array of shape {values.shape}, "
                f"the teachers before it {self._shape}. All must agree."
            )
            raise InvalidInputError(message)
        bad = np.isinf(values) if self.missing == "skip" else ~np.isfinite(values)
        if bad.any():
            message = f"Teacher {index} has {int(bad.sum())} NaN or infinite predictions." + (
                " Pass missing='skip' if NaN marks rows that it did not cover."
            )
            raise InvalidInputError(message)
        self._seen += 1
        self._add(values, float(self.weights[index]))

    @final
    def skip(self) -> None:
        """Pass over the next teacher, whose weight is zero, without asking it."""
        self._seen += 1
        self._skip()

    def _skip(self) -> None:
        """Note that a teacher was passed over; a running sum has nothing to note."""

    @final
    def finish(self) -> Aggregate:
        """Return the aggregate of all teachers.

        Raises
        ------
        InvalidInputError
            If fewer teachers were added than there are weights.
        """
        if self._seen != len(self.weights):
            message = f"Expected {len(self.weights)} teachers; got {self._seen}."
            raise InvalidInputError(message)
        return self._finish()

    @abstractmethod
    def _add(self, values: np.ndarray, weight: float) -> None:
        """Fold one teacher in."""

    @abstractmethod
    def _finish(self) -> Aggregate:
        """Return the result."""


class Aggregator(ABC):
    """A rule that combines the predictions of several teachers.

    Attributes
    ----------
    proba : bool
        Whether the rule works on class probabilities, shape (n_samples, n_classes).
    """

    proba: ClassVar[bool] = False

    def fit(
        self, members: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> Aggregator:
        """Return a copy calibrated on out-of-fold predictions; most rules have nothing to learn.

        Parameters
        ----------
        members : ndarray of shape (n_teachers, n_samples, ...)
            Out-of-fold predictions without missing entries.
        y : ndarray of shape (n_samples, ...)
            Truth in the shape of one teacher's predictions (one-hot for probabilities).
        sample_weight : ndarray of shape (n_samples,) or None, default=None
            Weights of the samples.

        Returns
        -------
        Aggregator
            The calibrated rule.
        """
        del members, y, sample_weight
        return self

    @final
    def combine(
        self,
        members: Iterable[np.ndarray],
        weights: Any = None,
        *,
        X: Any = None,
        groups: np.ndarray | None = None,
        missing: Missing = "raise",
    ) -> Aggregate:
        """Combine the predictions of several teachers.

        Parameters
        ----------
        members : ndarray of shape (n_teachers, n_samples, ...) or iterable of such rows
            One array per teacher.
        weights : array-like of shape (n_teachers,) or None, default=None
            Non-negative weights; None is equal weights.
        X : array-like of n_samples or None, default=None
            The inputs, for rules that route by instance.
        groups : ndarray of shape (n_samples,) or None, default=None
            Groups, for rules that harmonise within groups.
        missing : {"raise", "skip"}, default="raise"
            What NaN means: an error, or a row that the teacher did not cover; the weights of the
            other teachers are then renormalised row by row.

        Returns
        -------
        Aggregate
            Mean, standard deviation and disagreement.

        Raises
        ------
        InvalidInputError
            If shapes differ, numbers are not finite, or weights are unusable.
        """
        members = members if hasattr(members, "__len__") else list(members)
        weights = check_weights(weights, len(members))  # type: ignore[arg-type]
        combination = self.begin(weights, X=X, groups=groups, missing=missing)
        for values in members:
            combination.add(values)
        return combination.finish()

    @final
    def begin(
        self,
        weights: np.ndarray,
        *,
        X: Any = None,
        groups: np.ndarray | None = None,
        missing: Missing = "raise",
    ) -> Combination:
        """Start a running combination of ``len(weights)`` teachers; see `combine`."""
        return self._begin(weights, X, groups, missing)

    @abstractmethod
    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        """Return the combination that does the work."""


class _OnePass(Combination):
    """Mean and standard deviation in one pass; class statistics too for probabilities."""

    _moments: Moments
    _classes: ClassStatistics | None = None

    def __init__(
        self,
        weights: np.ndarray,
        missing: Missing,
        pool: Callable[[Any], np.ndarray] | None = None,
        temper: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        super().__init__(weights, missing)
        self._pool = pool
        self._temper = temper

    def _add(self, values: np.ndarray, weight: float) -> None:
        if self._pool is not None:
            _check_probabilities(values, self._seen - 1)
            values = values if self._temper is None else self._temper(values)
        if not hasattr(self, "_moments"):
            self._moments = Moments(values.shape, skip_missing=self.missing == "skip")
            if self._pool is not None:
                self._classes = ClassStatistics(*values.shape, floor=PROBABILITY_FLOOR)
        if weight == 0.0:
            return
        self._moments.add(values, weight)
        if self._classes is not None:
            self._classes.add(values, weight)

    def _finish(self) -> Aggregate:
        mean, std, _ = self._moments.finish()
        if self._classes is None or self._pool is None:
            return Aggregate(mean, std, {"variance": _per_sample(std)})
        statistics = self._classes.finish()
        return Aggregate(
            self._pool(statistics), std, {"variance": _per_sample(std), **_class_doubt(statistics)}
        )


class _Stack(Combination):
    """Keeps all members, then hands them to one function at once."""

    def __init__(
        self,
        weights: np.ndarray,
        missing: Missing,
        function: Callable[[np.ndarray, np.ndarray], Aggregate],
    ) -> None:
        super().__init__(weights, missing)
        self._members: list[np.ndarray | None] = []
        self._function = function

    def _add(self, values: np.ndarray, weight: float) -> None:
        del weight
        self._members.append(values)

    def _skip(self) -> None:
        self._members.append(None)

    def _finish(self) -> Aggregate:
        # A teacher that was passed over is missing everywhere: it keeps its place in rules that
        # know every teacher by its number, and has no say.
        nothing = np.full(self._shape or (), np.nan)
        members = [nothing if values is None else values for values in self._members]
        return self._function(np.stack(members), self.weights)


def _per_sample(std: np.ndarray) -> np.ndarray:
    """Mean squared std over the entries of each sample."""
    return np.square(std).reshape(len(std), -1).mean(axis=1)


def _check_probabilities(values: np.ndarray, index: int) -> None:
    if values.ndim != 2:  # noqa: PLR2004 - a matrix
        message = (
            f"Expected probabilities of shape (n_samples, n_classes); teacher {index} gave "
            f"{values.shape}. A rule for numbers (mean, median…) takes any shape."
        )
        raise InvalidInputError(message)
    sums = values.sum(axis=1)
    sums = sums[~np.isnan(sums)]
    if (values < 0).any() or (np.abs(sums - 1.0) > ROW_SUM_TOLERANCE).any():
        message = (
            f"Expected probabilities, non-negative and summing to one; teacher {index} gave "
            f"numbers in [{np.nanmin(values):.3g}, {np.nanmax(values):.3g}] and rows that sum to "
            f"[{sums.min():.3g}, {sums.max():.3g}]. Scores go through SoftmaxMean.from_scores."
        )
        raise InvalidInputError(message)


def _class_doubt(statistics: Any) -> dict[str, np.ndarray]:
    """Disagreement of classifiers; entropies in nats."""
    mean = statistics.mean
    entropy = -xlogy(mean, mean).sum(axis=1)
    information = np.maximum(entropy - statistics.expected_entropy, 0.0)
    return {
        "entropy": entropy,
        "mutual_information": information,
        "vote_margin": _top2_gap(statistics.votes),
        "top2_gap": _top2_gap(mean),
    }


def _top2_gap(shares: np.ndarray) -> np.ndarray:
    if shares.shape[1] == 1:
        return shares[:, 0].copy()
    top = np.partition(shares, -2, axis=1)
    return top[:, -1] - top[:, -2]


def _tempered(proba: np.ndarray, temperature: float) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a class of probability zero stays at zero
        return softmax(np.log(proba) / temperature, axis=1)


@dataclass(frozen=True)
class Mean(Aggregator):
    """Weighted arithmetic mean."""

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        return _OnePass(weights, missing)


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
        return _OnePass(check_weights(weights / variances, len(weights)), missing)


def _about_mean(mean: np.ndarray, members: np.ndarray, weights: np.ndarray) -> Aggregate:
    _, std, _ = stacked_moments(members, weights, skip_missing=True)
    return Aggregate(mean, std, {"variance": _per_sample(std)})


@dataclass(frozen=True)
class Median(Aggregator):
    """Weighted median, entry by entry."""

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        del X, groups
        return _Stack(weights, missing, lambda m, w: _about_mean(stacked_median(m, w), m, w))


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
        if not 0.0 <= self.fraction < 0.5:  # noqa: PLR2004 - half is the median
            message = f"Expected fraction in [0, 0.5); got {self.fraction}. 0.5 is the median."
            raise InvalidInputError(message)
        return _Stack(
            weights,
            missing,
            lambda m, w: _about_mean(stacked_trimmed_mean(m, w, self.fraction), m, w),
        )


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
        return _OnePass(weights, missing, pool=lambda s: s.mean, temper=temper)


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
        return _OnePass(
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
        return _OnePass(weights, missing, pool=lambda s: s.votes)


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
        good = routes.ndim == 2 and routes.shape[1] == len(weights)  # noqa: PLR2004 - a matrix
        if not good or not np.isfinite(routes).all() or (routes < 0).any():
            message = (
                f"Expected the router to give finite, non-negative weights of shape (n_samples, "
                f"{len(weights)}); got shape {routes.shape}."
            )
            raise InvalidInputError(message)
        routes = routes * weights
        return _Stack(weights, missing, lambda members, _: _routed_mean(members, routes))


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
    return Aggregate(mean, std, {"variance": _per_sample(std)})


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

    def _begin(
        self, weights: np.ndarray, X: Any, groups: np.ndarray | None, missing: Missing
    ) -> Combination:
        def combine(members: np.ndarray, weights: np.ndarray) -> Aggregate:
            scaled = self.harmoniser.transform(members, groups=groups)
            return self.aggregator.combine(scaled, weights, X=X, groups=groups, missing="skip")

        return _Stack(weights, missing, combine)


def _positive(value: Any, name: str) -> float:
    if not np.isscalar(value) or not np.isfinite(value) or value <= 0:
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
