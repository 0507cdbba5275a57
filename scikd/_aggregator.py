"""The contract of an aggregator, and the two ways in which rules run: in one pass, or stacked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import numpy as np
from scipy.optimize import nnls
from scipy.special import xlogy

from scikd.exceptions import InvalidInputError
from scikd.kernels.gram import weighted_gram
from scikd.kernels.moments import ClassStatistics, Moments

__all__ = [
    "PROBABILITY_FLOOR",
    "Aggregate",
    "Aggregator",
    "Combination",
    "Missing",
    "OnePass",
    "Stack",
    "check_sample_weight",
    "check_weights",
    "class_doubt",
    "per_sample",
    "simplex_solution",
    "simplex_weights",
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


def check_sample_weight(sample_weight: Any, n_samples: int) -> np.ndarray | None:
    """Return sample weights as an array of shape (n_samples,), or None."""
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_samples,) or not (weight >= 0).all() or not weight.any():
        message = (
            f"Expected {n_samples} non-negative sample weights, not all zero; got shape "
            f"{weight.shape} with a smallest of {weight.min(initial=np.inf)}."
        )
        raise InvalidInputError(message)
    return weight


def simplex_weights(
    members: np.ndarray, truth: np.ndarray, sample_weight: np.ndarray | None
) -> np.ndarray:
    """Return the weights on the simplex that minimise the weighted squared error of the mean.

    With weights that sum to one the error is linear in the members' own errors, so their Gram
    matrix says all.
    """
    errors = (members - truth).reshape(len(members), -1).T
    entries = errors.shape[0] // truth.shape[0]
    rows = None if sample_weight is None else np.repeat(sample_weight, entries)
    gram, _ = weighted_gram(errors, rows)
    values, vectors = np.linalg.eigh(gram)
    return simplex_solution(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)


def simplex_solution(root: np.ndarray) -> np.ndarray:
    """Return the weights on the simplex that minimise ``norm(root @ weights)``.

    Parameters
    ----------
    root : ndarray of shape (n_equations, n_teachers)
        A root of the Gram matrix of the teachers' errors.

    Returns
    -------
    ndarray of shape (n_teachers,)

    Notes
    -----
    Non-negative least squares of ``[root; 1] u = [0; 1]``. With ``u = s w``, w on the simplex and
    ``q = norm(root @ w)**2``, its loss is ``s**2 q + (s - 1)**2``, whose minimum over s is
    ``q / (1 + q)``: the smaller, the smaller q. So w is exact, whatever the scale of the roots.
    """
    norms = np.sqrt(np.square(root).sum(axis=0))
    size = norms[norms > 0].min(initial=np.inf)
    system = np.vstack([root / size, np.ones(root.shape[1])])
    weights, _ = nnls(system, np.append(np.zeros(len(root)), 1.0), maxiter=100 * root.shape[1])
    return check_weights(weights, root.shape[1])


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
            message = (
                f"Teacher {index} has {int(bad.sum())} NaN or infinite predictions. "
                "Pass missing='skip' if NaN marks rows that it did not cover."
            )
            raise InvalidInputError(message)
        self._seen += 1
        self._add(values, float(self.weights[index]))

    @final
    def skip(self) -> None:
        """Pass over the next teacher, whose weight is zero, without asking it."""
        self._seen += 1
        self._skip()

    def _skip(self) -> None:  # noqa: B027 - a running sum has nothing to note
        """Note that a teacher was passed over."""

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

    @property
    def by_group(self) -> bool:
        """Whether the rule needs the groups of the samples."""
        return False

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

    def keep(self, teachers: Sequence[int]) -> Aggregator:
        """Return the rule for some of the teachers; most rules know none by its number."""
        del teachers
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


class OnePass(Combination):
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
            return Aggregate(mean, std, {"variance": per_sample(std)})
        statistics = self._classes.finish()
        return Aggregate(
            self._pool(statistics), std, {"variance": per_sample(std), **class_doubt(statistics)}
        )


class Stack(Combination):
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


def per_sample(std: np.ndarray) -> np.ndarray:
    """Mean squared std over the entries of each sample."""
    return np.square(std).reshape(len(std), -1).mean(axis=1)


def _check_probabilities(values: np.ndarray, index: int) -> None:
    if values.ndim != 2:
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


def class_doubt(statistics: Any) -> dict[str, np.ndarray]:
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
