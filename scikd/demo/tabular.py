"""The first job: eight teachers of a real table, their consensus, and one fast student."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from scikd.demo.suites import make_student, make_teachers
from scikd.demo.tables import Table as RealTable
from scikd.demo.tables import load_table
from scikd.ensemble import TeacherEnsemble
from scikd.report import Figure, Section, Table, Text, plot_intervals, plot_tradeoff
from scikd.students import DistilledClassifier, DistilledRegressor
from scikd.students.measurement import latencies, loss_interval, model_bytes, teacher_bytes

if TYPE_CHECKING:
    from scikd.demo import Options

__all__ = ["Contest", "Contestant", "hold_contest", "make_distilled", "section", "split_table"]

logger = logging.getLogger(__name__)

LARGEST_SET = 4000
BATCHES = (1, 100, 10_000)


@dataclass(frozen=True, eq=False)
class Contestant:
    """One model on the test rows: its losses row by row, its speed and its size."""

    losses: np.ndarray
    interval: tuple[float, float, float]
    milliseconds: tuple[float, ...]
    bytes: int | None


@dataclass(frozen=True, eq=False)
class Contest:
    """All models on one real table, and how they came about."""

    table: RealTable
    distilled: Any
    contestants: dict[str, Contestant]
    singles: dict[str, tuple[float, float, float]]
    best_single: str
    n_train: int
    n_test: int
    doubt: np.ndarray

    @property
    def loss_name(self) -> str:
        """Name of the loss, with its unit."""
        return "log-loss (nats)" if self.table.task == "classification" else "RMSE (target units)"


def section(options: Options) -> Section:
    """Run the contest and tell its story; called by `scikd.demo.run_demo`."""
    contest = hold_contest(load_table(options.data), options)
    return Section(
        f"Tabular: {contest.table.name}",
        [
            _result_table(contest),
            _cost_table(contest),
            Figure(
                "Loss of every model on the test rows",
                lambda ax: _draw_losses(ax, contest),
                note="Dot: loss; whisker: 95 % bootstrap interval. Left is better.",
                size=(6.4, 4.4),
            ),
            Figure(
                "Loss against time",
                lambda ax: _draw_tradeoff(ax, contest),
                note="Median time of a batch of 10,000 rows. Lower left is better.",
            ),
            Figure(
                "Does disagreement foretell errors?",
                lambda ax: _draw_doubt(ax, contest),
                note="Test rows in ten bins of growing disagreement among the teachers.",
            ),
            _mixture_table(contest),
            Text(_method(contest)),
        ],
        summary=_summary(contest),
    )


def hold_contest(table: RealTable, options: Options) -> Contest:
    """Train teachers and students on one part of a table, and measure them on the other.

    Parameters
    ----------
    table : Table
        The real table.
    options : Options
        Seed, jobs and progress.

    Returns
    -------
    Contest
        Every model's losses, speed and size.
    """
    classifier = table.task == "classification"
    train, test = split_table(table, options.seed, test_share=0.5)
    X, y, X_test, y_test = table.X[train], table.y[train], table.X[test], table.y[test]
    logger.info("%s: %d training rows, %d test rows", table.name, len(train), len(test))
    distilled = make_distilled(
        table,
        make_student(table.name, table.task, options.seed),
        options.seed,
        augment="neighbour",
        n_augment=2.0,
        n_jobs=options.n_jobs,
        progress=options.progress,
    ).fit(X, y)
    alone = clone(distilled.student).fit(X, y)
    (quantity,) = (entry.name for entry in distilled.teacher_.quantities)
    teachers = distilled.teacher_.replace(progress=False)
    means = [distilled.row_losses(y, member).mean() for member in distilled.oof_.members]
    best = int(np.argmin(means))  # out of fold: the test rows have no say in who is best
    single = teachers.teachers[best]
    models: dict[str, tuple[Any, int | None]] = {
        "best single teacher": (
            lambda rows: single.predict(rows)[quantity],
            model_bytes(single.estimator),
        ),
        "consensus of eight": (
            lambda rows: teachers.predict(rows)[quantity],
            teacher_bytes(teachers),
        ),
        "student alone": (
            alone.predict_proba if classifier else alone.predict,
            model_bytes(alone),
        ),
        "distilled student": (
            distilled.predict_proba if classifier else distilled.predict,
            model_bytes(distilled.student_),
        ),
    }
    contestants = {}
    for name, (predict, size) in models.items():
        losses = distilled.row_losses(y_test, predict(X_test))
        times = tuple(1e3 * entry.p50 for entry in latencies(predict, X_test, BATCHES))
        interval = _interval(losses, classifier, options.seed)
        contestants[name] = Contestant(losses, interval, times, size)
    consensus = teachers.consensus(X_test, members=True)
    singles = {
        name: _interval(distilled.row_losses(y_test, member), classifier, options.seed)
        for name, member in zip(consensus.names, consensus.members[quantity], strict=True)
    }
    return Contest(
        table=table,
        distilled=distilled,
        contestants=contestants,
        singles=singles,
        best_single=single.name,
        n_train=len(train),
        n_test=len(test),
        doubt=_doubt(consensus, quantity),
    )


def split_table(
    table: RealTable, seed: int, *, test_share: float = 0.25, largest: int = LARGEST_SET
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers to train on and to test on, at most ``largest`` of either."""
    train, test = train_test_split(
        np.arange(len(table.y)),
        test_size=test_share,
        random_state=seed,
        stratify=table.y if table.task == "classification" else None,
    )
    return train[:largest], test[:largest]


def make_distilled(table: RealTable, student: Any, seed: int, **options: Any) -> Any:
    """Return the unfitted distilled estimator of a table: eight teachers, one student."""
    classifier = table.task == "classification"
    kind = DistilledClassifier if classifier else DistilledRegressor
    ensemble = TeacherEnsemble(
        make_teachers(table.task, seed),
        weights="fit",
        aggregator="log_opinion_pool" if classifier else "mean",
    )
    return kind(ensemble, student, random_state=seed, **options)


def _interval(
    losses: np.ndarray, classifier: bool, seed: int, reference: np.ndarray | None = None
) -> tuple[float, float, float]:
    ones = np.ones(len(losses))
    return loss_interval(losses, reference, ones, root=not classifier, random_state=seed)


def _doubt(consensus: Any, quantity: str) -> np.ndarray:
    measures = consensus.disagreement[quantity]
    return np.asarray(measures.get("mutual_information", np.sqrt(measures["variance"])))


def _result_table(contest: Contest) -> Table:
    classifier = contest.table.task == "classification"
    ours = contest.contestants["distilled student"].losses
    rows = []
    for name, entry in contest.contestants.items():
        gap = _interval(ours, classifier, contest.distilled.random_state, entry.losses)
        same = name == "distilled student"
        rows.append(
            [
                _label(contest, name),
                entry.interval[0],
                f"[{entry.interval[1]:.4g}, {entry.interval[2]:.4g}]",
                None if same else f"{gap[0]:+.3g} [{gap[1]:+.3g}, {gap[2]:+.3g}]",
            ]
        )
    return Table(
        "Four ways to predict the same test rows",
        ["model", contest.loss_name, "95 % interval", "distilled minus this"],
        rows,
        note=(
            f"{contest.n_test:,} test rows that no model was trained on; the best single teacher "
            "is the best one out of fold, not on these rows. Differences are paired, with 95 % "
            "bootstrap intervals: below zero the distilled student is better."
        ),
        highlight_row=len(rows) - 1,
    )


def _cost_table(contest: Contest) -> Table:
    rows = [
        [_label(contest, name), *entry.milliseconds, entry.bytes]
        for name, entry in contest.contestants.items()
    ]
    return Table(
        "What a prediction costs",
        ["model", *(f"ms, batch of {batch:,}" for batch in BATCHES), "bytes on disk"],
        rows,
        note="Times are medians of one call, on one thread; bytes are those of a saved model.",
        highlight_row=len(rows) - 1,
    )


def _label(contest: Contest, name: str) -> str:
    return f"{name} ({contest.best_single})" if name == "best single teacher" else name


def _mixture_table(contest: Contest) -> Table:
    distilled = contest.distilled
    rows = [
        [entry.weight, entry.loss, f"{entry.gain:+.4g} ± {entry.gain_error:.2g}"]
        for entry in distilled.mixture_.candidates
    ]
    chosen = [entry.weight for entry in distilled.mixture_.candidates]
    return Table(
        "What the student learnt from, chosen on held-out rows",
        ["weight of the teachers", "held-out loss", "gain over truth alone"],
        rows,
        note=(
            "Weight 0 is the truth alone, 1 the teachers alone; the third is the closed form of "
            "the best mixture. Losses are mean squared errors or log-losses; ± is one standard "
            f"error. Teachers' own out-of-fold loss: {distilled.teacher_loss_:.4g}."
        ),
        highlight_row=chosen.index(distilled.teacher_weight_),
    )


def _summary(contest: Contest) -> str:
    entries = contest.contestants
    classifier = contest.table.task == "classification"
    ours, alone = entries["distilled student"], entries["student alone"]
    gap, low, high = _interval(
        ours.losses, classifier, contest.distilled.random_state, alone.losses
    )
    verdict = "better than" if high < 0 else "worse than" if low > 0 else "not told apart from"
    speed = entries["consensus of eight"].milliseconds[-1] / ours.milliseconds[-1]
    if contest.distilled.teacher_weight_ == 0.0:
        finding = (
            "On held-out rows the teachers did not help this student by more than the noise, so "
            "they were kept out: it learnt from the truth alone"
        )
    else:
        finding = (
            f"The distilled student is {verdict} the student that learnt from the truth alone "
            f"({gap:+.3g}, 95 % interval [{low:+.3g}, {high:+.3g}])"
        )
    return (
        f"{finding}. It is {speed:,.0f} times faster than the consensus of its eight teachers at "
        "10,000 rows."
    )


def _method(contest: Contest) -> str:
    table = contest.table
    return (
        f"{table.name} ({table.source}): {len(table.y):,} rows, {len(table.features)} features; "
        f"{contest.n_train:,} rows to train on and {contest.n_test:,} to test on (at most "
        f"{LARGEST_SET:,} each). Every teacher labelled the training rows out of fold, in five "
        "folds. The student learnt the mixture marked above, and twice as many further rows that "
        "were made from training rows and labelled by the teachers."
    )


def _draw_losses(ax: Any, contest: Contest) -> None:
    shown = {f"teacher: {name}": interval for name, interval in contest.singles.items()}
    shown |= {
        name: entry.interval
        for name, entry in contest.contestants.items()
        if name != "best single teacher"
    }
    values, lows, highs = zip(*shown.values(), strict=True)
    reference = contest.contestants["consensus of eight"].interval[0]
    plot_intervals(ax, list(shown), values, lows, highs, reference=reference)
    ax.set_xlabel(contest.loss_name)


def _draw_tradeoff(ax: Any, contest: Contest) -> None:
    entries = contest.contestants
    plot_tradeoff(
        ax,
        [entry.milliseconds[-1] for entry in entries.values()],
        [entry.interval[0] for entry in entries.values()],
        list(entries),
    )
    ax.set_xlabel("milliseconds per 10,000 rows")
    ax.set_ylabel(contest.loss_name)


def _draw_doubt(ax: Any, contest: Contest) -> None:
    losses = contest.contestants["consensus of eight"].losses
    bins = np.array_split(np.argsort(contest.doubt, kind="stable"), 10)
    means = [losses[rows].mean() for rows in bins]
    means = means if contest.table.task == "classification" else list(np.sqrt(means))
    ax.bar(np.arange(1, 11), means)
    ax.set_xticks(np.arange(1, 11))
    ax.set_xlabel("tenth of the test rows, by disagreement")
    ax.set_ylabel(f"{contest.loss_name} of the consensus")
