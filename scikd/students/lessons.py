"""What a student is taught, and how well it would do on rows that it was not taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scikd.ensemble import TeacherEnsemble
from scikd.out_of_fold import Fold, OutOfFold, take
from scikd.parallel import fan_out
from scikd.teachers import count_samples

if TYPE_CHECKING:
    from scikd.students._distilled import Distilled

__all__ = [
    "Extra",
    "HeldOut",
    "Lesson",
    "combined",
    "consensus_labels",
    "label_rows",
    "with_extra_rows",
]

Extra = tuple[tuple[Any, np.ndarray], ...]


@dataclass(frozen=True, eq=False)
class Lesson:
    """One training set of the student: labelled rows, and rows that only the teacher labels.

    Attributes
    ----------
    X : array-like of n_samples
        Labelled rows.
    truth : ndarray of shape (n_samples, n_outputs)
        Truth (one-hot for classes).
    labels : ndarray of shape (n_samples, n_outputs)
        Teacher labels; NaN where no teacher covers the row.
    weight : ndarray of shape (n_samples,) or None
        Sample weights.
    extra : tuple of (X, labels)
        Further rows, with the teacher's labels.
    """

    X: Any
    truth: np.ndarray
    labels: np.ndarray
    weight: np.ndarray | None
    extra: Extra = ()

    def mixed(self, teacher_weight: float) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Return inputs, targets and weights for one weight of the teacher.

        A row that no teacher covers keeps its truth. Further rows count as much as the teacher
        does: not at all for weight 0, as one labelled row each for weight 1 and above.
        """
        targets = self.truth
        if teacher_weight != 0.0:
            mixture = (1.0 - teacher_weight) * self.truth + teacher_weight * self.labels
            targets = np.where(np.isnan(self.labels), self.truth, mixture)
        share = float(np.clip(teacher_weight, 0.0, 1.0))
        if not self.extra or share == 0.0:
            return self.X, targets, self.weight
        own = np.ones(len(targets)) if self.weight is None else self.weight
        inputs, weights = [self.X], [own]
        for X, labels in self.extra:
            inputs.append(X)
            targets = np.concatenate([targets, labels])
            weights.append(np.full(len(labels), share * own.mean()))
        return _stack_rows(inputs), targets, np.concatenate(weights)

    def without_zero_weight(self) -> Lesson:
        """Return the lesson without rows of weight zero, which are no rows."""
        if self.weight is None or self.weight.all():
            return self
        rows = np.flatnonzero(self.weight)
        X, truth, labels = take(self.X, rows), self.truth[rows], self.labels[rows]
        return Lesson(X, truth, labels, self.weight[rows], self.extra)


class HeldOut:
    """Held-out predictions of the student for any weight of the teacher."""

    def __init__(
        self,
        owner: Distilled,
        student: Any,
        X: Any,
        truth: np.ndarray,
        labels: Sequence[np.ndarray],
        weight: np.ndarray | None,
        student_weight: np.ndarray | None,
        oof: OutOfFold,
        extra: Sequence[Extra],
    ) -> None:
        self.owner, self.student, self.X = owner, student, X
        self.truth, self.folds, self.counts = truth, oof.folds, oof.counts
        self.labels, self.extra = labels, extra  # fold by fold
        self.weight = np.ones(len(truth)) if weight is None else weight
        self.student_weight = student_weight
        self.rows = oof.covered
        self._known: dict[float, np.ndarray] = {}

    def raw(self, teacher_weight: float) -> np.ndarray:
        """Return raw held-out predictions of the covered rows."""
        if teacher_weight not in self._known:
            tasks = [
                (self.owner, self.student, self._lesson(k), teacher_weight, self.X, fold)
                for k, fold in enumerate(self.folds)
            ]
            results = fan_out(
                _taught_on_fold,
                tasks,
                n_jobs=self.owner.n_jobs,
                description=f"student, teacher weight {teacher_weight:.2g}",
                progress=self.owner.progress,
            )
            total = np.zeros_like(self.truth)
            for (_, test), values in zip(self.folds, results, strict=True):
                total[test] += values / self.counts[test, None]
            self._known[teacher_weight] = total[self.rows]
        return self._known[teacher_weight]

    def predictions(self, teacher_weight: float) -> np.ndarray:
        """Return held-out predictions of the covered rows, shape (n_covered, n_outputs)."""
        rows = self.rows
        return self.owner._settled(self.raw(teacher_weight), self.truth[rows], self.weight[rows])

    def _lesson(self, number: int) -> Lesson:
        train, _ = self.folds[number]
        weight = None if self.student_weight is None else self.student_weight[train]
        X, truth, labels = take(self.X, train), self.truth[train], self.labels[number][train]
        return Lesson(X, truth, labels, weight, self.extra[number]).without_zero_weight()


def _taught_on_fold(
    owner: Distilled, student: Any, lesson: Lesson, teacher_weight: float, X: Any, fold: Fold
) -> np.ndarray:
    model = owner._learnt(student, lesson, teacher_weight)
    return owner._answer(model, take(X, fold[1]))


def _stack_rows(tables: Sequence[Any]) -> Any:
    """Return tables of one kind (arrays, sparse matrices or frames) on top of each other."""
    first = tables[0]
    if hasattr(first, "tocsr"):
        from scipy.sparse import vstack  # noqa: PLC0415 - only sparse tables need it

        return vstack(tables, format="csr")
    if isinstance(first, np.ndarray):
        return np.concatenate([np.asarray(table) for table in tables])
    import narwhals as nw  # noqa: PLC0415 - scikit-learn brings it; only frames need it

    frames = [nw.from_native(table, eager_only=True) for table in tables]
    stacked = nw.concat(frames, how="vertical").to_native()
    return stacked.reset_index(drop=True) if hasattr(stacked, "iloc") else stacked


def with_extra_rows(X: Any, extra: list[tuple[Any, ...]]) -> tuple[Any, list[np.ndarray]]:
    """Put all extra rows behind X; return the table, and the row numbers of every fold's."""
    start, blocks = count_samples(X), []
    for tables in extra:
        n_rows = sum(count_samples(table) for table in tables)
        blocks.append(np.arange(start, start + n_rows))
        start += n_rows
    flat = [table for tables in extra for table in tables]
    return (_stack_rows([X, *flat]) if flat else X), blocks


def consensus_labels(
    ensemble: TeacherEnsemble, oof: OutOfFold, X: Any, groups: Any, truth: np.ndarray
) -> np.ndarray:
    """Return the consensus of out-of-fold predictions, shape (n_samples, n_outputs)."""
    if not oof.covered.any():
        return np.full(truth.shape, np.nan)
    consensus = ensemble.combine(oof, X=X, groups=groups).mean[oof.quantity]
    return consensus.reshape(truth.shape)


def label_rows(ensemble: TeacherEnsemble, tables: tuple[Any, ...], members: np.ndarray) -> Extra:
    """Give tables of extra rows the consensus of the members' predictions for them."""
    if not tables:
        return ()
    stacked = _stack_rows(tables)
    return ((stacked, combined(ensemble, members, stacked)),)


def combined(ensemble: TeacherEnsemble, members: np.ndarray, X: Any) -> np.ndarray:
    """Return the consensus of given predictions, shape (n_samples, n_outputs)."""
    (quantity,) = ensemble.quantities
    counts = np.ones(members.shape[1], dtype=np.intp)
    whole = OutOfFold(ensemble.names, quantity.name, members, counts)
    values = ensemble.combine(whole, X=X).mean[quantity.name]
    return values.reshape(len(values), -1)
