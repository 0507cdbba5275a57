"""Teacher and student side by side: fidelity, loss, latency, bytes on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import xlogy
from scipy.stats import bootstrap
from threadpoolctl import threadpool_limits

from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import take
from scikd.persistence import size_on_disk
from scikd.teachers import EstimatorTeacher, count_samples

__all__ = [
    "DistillationReport",
    "Latency",
    "Measured",
    "latencies",
    "loss_interval",
    "measure",
    "model_bytes",
    "teacher_bytes",
]

BATCHES = (1, 100, 10_000)
SECONDS_PER_BATCH_SIZE = 2.0
LEAST_CALLS, MOST_CALLS = 5, 200


@dataclass(frozen=True)
class Latency:
    """Time of one call of `predict` (or `predict_proba`) at one batch size.

    Attributes
    ----------
    batch : int
        Rows per call.
    p50, p99 : float
        Median and 99th percentile of the calls, in seconds.
    n_calls : int
        How many calls were timed.
    """

    batch: int
    p50: float
    p99: float
    n_calls: int


@dataclass(frozen=True)
class Measured:
    """One model on the test rows.

    Attributes
    ----------
    name : str
        Name of the model.
    loss : float
        Root mean squared error in units of y, or log-loss in nats.
    low, high : float
        95 % bootstrap interval of the loss.
    latency : tuple of Latency
        One entry per batch size.
    bytes : int or None
        Size of the saved model; None if it cannot be saved (a function).
    """

    name: str
    loss: float
    low: float
    high: float
    latency: tuple[Latency, ...]
    bytes: int | None


@dataclass(frozen=True)
class DistillationReport:
    """Teacher and student on rows that neither was trained on.

    Attributes
    ----------
    loss_name : str
        ``"RMSE"`` (units of y) or ``"log-loss"`` (nats).
    teacher, student : Measured
        The two.
    fidelity : float
        Distance of the student to the teacher: RMSE in units of y, or Kullback-Leibler divergence
        KL(teacher || student) in nats. 0 is a perfect copy.
    gap, gap_low, gap_high : float
        Loss of the student minus loss of the teacher, with its paired 95 % bootstrap interval.
    n_samples : int
        How many rows.
    """

    loss_name: str
    teacher: Measured
    student: Measured
    fidelity: float
    gap: float
    gap_low: float
    gap_high: float
    n_samples: int

    @property
    def speed_up(self) -> dict[int, float]:
        """Median latency of the teacher over that of the student, by batch size."""
        pairs = zip(self.teacher.latency, self.student.latency, strict=True)
        return {theirs.batch: theirs.p50 / ours.p50 for theirs, ours in pairs}

    def __str__(self) -> str:
        lines = [
            f"{'':8} {self.loss_name:>10} {'95 % interval':>22} {'bytes':>12}  p50/p99 ms at batch "
            + ", ".join(str(entry.batch) for entry in self.student.latency)
        ]
        for measured in (self.teacher, self.student):
            interval = f"[{measured.low:.4g}, {measured.high:.4g}]"
            size = "-" if measured.bytes is None else f"{measured.bytes:,}"
            times = ", ".join(f"{1e3 * t.p50:.3g}/{1e3 * t.p99:.3g}" for t in measured.latency)
            lines.append(
                f"{measured.name:8} {measured.loss:>10.4g} {interval:>22} {size:>12}  {times}"
            )
        lines.append(
            f"gap {self.gap:+.4g} [{self.gap_low:+.4g}, {self.gap_high:+.4g}], "
            f"fidelity {self.fidelity:.4g}, {self.n_samples} rows"
        )
        return "\n".join(lines)


def measure(
    distilled: Any,
    X: Any,
    y: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    groups: Any = None,
    batches: Sequence[int] = BATCHES,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> DistillationReport:
    """Measure a distilled estimator against its teachers.

    Parameters
    ----------
    distilled : DistilledRegressor or DistilledClassifier
        A fitted one.
    X : array-like or frame of shape (n_samples, n_features)
        Test inputs.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Test targets.
    weight : ndarray of shape (n_samples,) or None, default=None
        Weights.
    groups : array-like of shape (n_samples,) or None, default=None
        Groups that are resampled together.
    batches : sequence of int, default=(1, 100, 10000)
        Batch sizes of the latencies; short tables are repeated to fill a batch.
    n_resamples : int, default=1000
        Bootstrap resamples.
    random_state : int, default=0
        Seed of the bootstrap.

    Returns
    -------
    DistillationReport
        The measurements.
    """
    (quantity,) = distilled.teacher_.quantities
    teacher = distilled.teacher_.replace(progress=False)

    def ask_teacher(rows: Any) -> np.ndarray:
        return teacher.consensus(rows).mean[quantity.name].reshape(count_samples(rows), -1)

    classifier = distilled._classifier
    ask_student = distilled.predict_proba if classifier else distilled.predict
    theirs, ours = ask_teacher(X), ask_student(X).reshape(len(y), -1)
    losses = {
        "teacher": distilled.row_losses(y, theirs),
        "student": distilled.row_losses(y, ours),
    }
    weight = np.ones(len(y)) if weight is None else weight

    def interval(values: np.ndarray, reference: np.ndarray | None) -> tuple[float, float, float]:
        return loss_interval(
            values,
            reference,
            weight,
            groups,
            root=not classifier,
            n_resamples=n_resamples,
            random_state=random_state,
        )

    measured = {}
    asked = {"teacher": ask_teacher, "student": ask_student}
    sizes = {"teacher": teacher_bytes(teacher), "student": model_bytes(distilled.student_)}
    for name, values in losses.items():
        loss, low, high = interval(values, None)
        timed = latencies(asked[name], X, batches)
        measured[name] = Measured(name, loss, low, high, timed, sizes[name])
    gap = interval(losses["student"], losses["teacher"])
    if classifier:
        divergence = xlogy(theirs, theirs) - theirs * np.log(np.clip(ours, 1e-7, 1.0))
        fidelity = float(np.average(divergence.sum(axis=1), weights=weight))
    else:
        fidelity = float(np.sqrt(np.average(np.square(theirs - ours).mean(axis=1), weights=weight)))
    return DistillationReport(
        loss_name="log-loss" if classifier else "RMSE",
        teacher=measured["teacher"],
        student=measured["student"],
        fidelity=max(fidelity, 0.0),
        gap=gap[0],
        gap_low=gap[1],
        gap_high=gap[2],
        n_samples=len(y),
    )


def loss_interval(
    losses: np.ndarray,
    reference: np.ndarray | None,
    weight: np.ndarray,
    groups: Any = None,
    *,
    root: bool,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> tuple[float, float, float]:
    """Return a mean loss, or its paired difference from a reference, with a bootstrap interval.

    Parameters
    ----------
    losses : ndarray of shape (n_samples,)
        Loss of every row (squared errors under ``root``).
    reference : ndarray of shape (n_samples,) or None
        Losses of another model on the same rows; None gives the interval of the loss itself.
    weight : ndarray of shape (n_samples,)
        Weights.
    groups : array-like of shape (n_samples,) or None, default=None
        Rows that are resampled together.
    root : bool
        Whether to take the square root of every mean (RMSE).
    n_resamples : int, default=1000
        Bootstrap resamples.
    random_state : int, default=0
        Seed.

    Returns
    -------
    float
        The value.
    float
        Lower end of the 95 % percentile interval.
    float
        Upper end; both ends are NaN with fewer than two groups.
    """
    if losses.shape != weight.shape:
        message = f"Expected as many weights as losses; got {weight.shape} and {losses.shape}."
        raise InvalidInputError(message)
    columns = [weight, weight * losses] + ([] if reference is None else [weight * reference])
    if groups is not None:  # sums by group are all that a resample of groups needs
        code = np.unique(np.asarray(groups), return_inverse=True)[1]
        columns = [np.bincount(code, weights=column) for column in columns]

    def statistic(total: np.ndarray, *sums: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [part.sum(axis=axis) / total.sum(axis=axis) for part in sums]
        means = [np.sqrt(mean) for mean in means] if root else means
        return means[0] if len(means) == 1 else means[0] - means[1]

    value = float(statistic(*columns))
    if len(columns[0]) < 2:
        return value, float("nan"), float("nan")
    interval = bootstrap(
        tuple(columns),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, 2_000_000 // len(columns[0])),
        method="percentile",
        rng=np.random.default_rng(random_state),
    ).confidence_interval
    return value, float(interval.low), float(interval.high)


def latencies(
    predict: Callable[[Any], Any], X: Any, batches: Sequence[int] = BATCHES
) -> tuple[Latency, ...]:
    """Time a prediction function at several batch sizes.

    Each size gets one call to warm up, then calls until two seconds or 200 calls have passed, at
    least five. Learners that use several threads are held to one, so that the numbers of different
    learners compare and another process on the machine does not spoil them.

    Parameters
    ----------
    predict : callable
        Takes rows of ``X``.
    X : array-like or frame of shape (n_samples, n_features)
        Rows to draw batches from; repeated where there are too few.
    batches : sequence of int, default=(1, 100, 10000)
        Rows per call.

    Returns
    -------
    tuple of Latency
        In the order of ``batches``.
    """
    results = []
    with threadpool_limits(limits=1):
        for batch in batches:
            rows = take(X, np.arange(batch) % count_samples(X))
            predict(rows)
            times: list[float] = []
            while len(times) < LEAST_CALLS or (
                len(times) < MOST_CALLS and sum(times) < SECONDS_PER_BATCH_SIZE
            ):
                start = time.perf_counter()
                predict(rows)
                times.append(time.perf_counter() - start)
            p50, p99 = np.percentile(times, [50, 99])
            results.append(Latency(batch, float(p50), float(p99), len(times)))
    return tuple(results)


def model_bytes(model: Any) -> int | None:
    """Return the size of a saved model in bytes; None if it cannot be saved (it holds a lambda)."""
    learners = getattr(model, "learners_", None) or [model]
    try:
        return sum(size_on_disk(learner) for learner in learners)
    except InvalidInputError:
        return None


def teacher_bytes(ensemble: Any) -> int | None:
    """Return the size of all saved teachers in bytes; None if one of them cannot be saved."""
    sizes = [
        model_bytes(teacher.estimator) if isinstance(teacher, EstimatorTeacher) else None
        for teacher in ensemble.teachers
    ]
    return None if None in sizes else sum(size for size in sizes if size is not None)
