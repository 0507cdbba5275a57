"""What the distilled regressor and the distilled classifier share: the whole of the training.

The order of things: folds, out-of-fold labels of the teachers, the mixture of teacher and truth
chosen on held-out rows (with labels that know nothing of these rows), the teachers refitted on
everything, the student.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from scikd._progress import Progress
from scikd._table_inputs import checked_weight, require_target
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import DistillationWarning, InvalidInputError
from scikd.folds import distinct_rows, grouped_folds
from scikd.labels import LabelStore
from scikd.nested import nested_predict
from scikd.out_of_fold import OutOfFold, cross_predict, take
from scikd.students._conventions import Conventions
from scikd.students.augmentation import as_augmenter
from scikd.students.lessons import (
    HeldOut,
    Lesson,
    combined,
    consensus_labels,
    label_rows,
    with_extra_rows,
)
from scikd.students.measurement import DistillationReport, measure
from scikd.students.mixing import MixtureChoice, choose_mixture, mean_and_error
from scikd.teachers import count_samples, takes_weights

__all__ = ["Distilled"]


class Distilled(Conventions):
    """Base of the distilled estimators; not for users."""

    def __init__(
        self,
        teacher: Any = None,
        student: Any = None,
        *,
        cv: Any = 5,
        teacher_weight: float | str = "auto",
        teacher_weight_bounds: tuple[float, float] = (-1.0, 2.0),
        augment: Any = None,
        n_augment: float = 1.0,
        store: Any = None,
        n_jobs: int | None = None,
        progress: Progress = "auto",
        random_state: Any = None,
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.cv = cv
        self.teacher_weight = teacher_weight
        self.teacher_weight_bounds = teacher_weight_bounds
        self.augment = augment
        self.n_augment = n_augment
        self.store = store
        self.n_jobs = n_jobs
        self.progress = progress
        self.random_state = random_state

    # --- what regression and classification do differently -----------------------------------

    @abstractmethod
    def _default_teachers(self) -> dict[str, Any]:
        """Return the teachers of ``teacher=None``."""

    @abstractmethod
    def _truth(self, y: np.ndarray) -> np.ndarray:
        """Return the targets as numbers of shape (n_samples, n_outputs)."""

    @abstractmethod
    def _teach(self, student: Any, X: Any, targets: np.ndarray, weight: np.ndarray | None) -> Any:
        """Fit a clone of the student on the targets."""

    @abstractmethod
    def _answer(self, model: Any, X: Any) -> np.ndarray:
        """Return raw predictions of a taught student, shape (n_samples, n_outputs)."""

    @abstractmethod
    def _settled(self, raw: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Turn held-out raw predictions into predictions (calibrates probabilities)."""

    @abstractmethod
    def _loss(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return the loss of every sample, shape (n_samples,)."""

    # --- fitting ------------------------------------------------------------------------------

    def _fit(
        self, X: Any, y: np.ndarray, weight: np.ndarray | None, groups: Any, X_unlabelled: Any
    ) -> None:
        teacher_weight, student_weight, cv_groups = self._routed(weight, groups)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        truth, student, ensemble = self._truth(y), self._student(), self._ensemble()
        heard = np.arange(len(truth)) if weight is None else np.flatnonzero(weight)
        dealing: dict[str, Any] = {"classifier": self._classifier, "random_state": seed}
        dealing |= {"groups": cv_groups, "sample_weight": weight}
        folds = grouped_folds(X, y, self.cv, **dealing)
        training: dict[str, Any] = {
            "sample_weight": teacher_weight,
            "classes": getattr(self, "classes_", None),
            "store": _as_store(self.store),
            "n_jobs": self.n_jobs,
            "progress": self.progress,
        }
        extra = [
            self._extra_rows(take(X, np.intersect1d(train, heard)), X_unlabelled, [seed, number])
            for number, (train, _) in enumerate(folds)
        ]
        # Rows without truth are put behind the others; each fold tests its own.
        table, blocks = with_extra_rows(X, extra)
        tested = [
            (train, np.append(test, rows))
            for (train, test), rows in zip(folds, blocks, strict=True)
        ]
        everything = cross_predict(ensemble.teachers, table, y, tested, **training)
        oof = everything.first_rows(len(truth), folds)
        _matching_outputs(oof, truth)
        calibrated = ensemble.calibrate(oof, y, weight)
        labels = consensus_labels(calibrated, oof, X, groups, truth)
        nested = nested_predict(ensemble.teachers, X, y, folds, **training) if self._judges else ()
        experts, taught = [calibrated] * len(folds), [labels] * len(folds)
        for number, part in enumerate(nested):
            if part.covered.any():
                experts[number] = ensemble.calibrate(part, y, weight)
            taught[number] = consensus_labels(experts[number], part, X, groups, truth)
        further = [
            label_rows(expert, tables, everything.members[:, rows])
            for expert, tables, rows in zip(experts, extra, blocks, strict=True)
        ]
        judge = HeldOut(self, student, X, truth, taught, weight, student_weight, oof, further)
        # The rule has learnt from the truth of all rows, its own included; each fold's has not.
        honest = self._honest_labels(experts, oof, X, labels) if nested else labels
        self._choose(judge, honest, groups, judged=bool(nested))
        X_heard = take(X, heard)
        weights = [None if w is None else w[heard] for w in (teacher_weight, student_weight)]
        self.teacher_ = calibrated.fit(X_heard, y[heard], weights[0])
        rows_to_label = self._extra_rows(X_heard, X_unlabelled, [seed, len(folds)])
        labelled = tuple(
            (rows, self.teacher_.predict(rows)[oof.quantity].reshape(count_samples(rows), -1))
            for rows in rows_to_label
        )
        lesson = Lesson(X_heard, truth[heard], labels[heard], weights[1], labelled)
        self.student_ = self._learnt(student, lesson, self.teacher_weight_)
        self._settle_final(judge)
        self.oof_, self.labels_ = oof, labels

    def _learnt(self, student: Any, lesson: Lesson, teacher_weight: float) -> Any:
        """Teach one lesson. Weights that no user gave are dropped where a learner takes none."""
        X, targets, weight = lesson.mixed(teacher_weight)
        if lesson.weight is None and not takes_weights(student) and self._plain_targets:
            weight = None
        return self._teach(student, X, targets, weight)

    def _honest_labels(
        self, experts: list[TeacherEnsemble], oof: OutOfFold, X: Any, labels: np.ndarray
    ) -> np.ndarray:
        """Return out-of-fold labels by rules that were calibrated without the row's fold."""
        total = np.where(oof.covered[:, None], np.zeros_like(labels), np.nan)
        for expert, (_, test) in zip(experts, oof.folds, strict=True):
            part = combined(expert, oof.members[:, test], take(X, test))
            total[test] += part / oof.counts[test, None]
        return total

    def _choose(self, judge: HeldOut, labels: np.ndarray, groups: Any, *, judged: bool) -> None:
        """Choose the teacher's weight, and warn where distilling is expected to hurt."""
        rows = judge.rows
        cluster = distinct_rows(judge.X) if groups is None else np.asarray(groups)
        cluster = cluster[rows]
        alone = self._loss(judge.truth[rows], judge.predictions(0.0))
        taught = self._loss(judge.truth[rows], labels[rows])
        self.student_loss_, _ = mean_and_error(alone, judge.weight[rows])
        self.teacher_loss_, _ = mean_and_error(taught, judge.weight[rows])
        if self.teacher_loss_ >= self.student_loss_:
            message = (
                f"The teacher's out-of-fold loss ({self.teacher_loss_:.4g}) is not below the "
                f"student's own ({self.student_loss_:.4g}): distillation is expected to hurt. "
                "Use a better teacher, or the student alone."
            )
            warnings.warn(message, DistillationWarning, stacklevel=4)
        self.mixture_: MixtureChoice | None = None
        if self.teacher_weight != "auto":
            self.teacher_weight_ = _number(self.teacher_weight)
            return
        if not judged:
            message = (
                "No mixture of teacher and truth could be judged: labels that leave out two folds "
                f"at a time need at least 3 folds that share training rows; got "
                f"{len(judge.folds)}. The student learns from the one with the smaller loss alone."
            )
            warnings.warn(message, DistillationWarning, stacklevel=4)
            self.teacher_weight_ = float(self.teacher_loss_ < self.student_loss_)
            return
        choice = choose_mixture(
            judge.predictions,
            lambda prediction: self._loss(judge.truth[rows], prediction),
            judge.truth[rows],
            judge.weight[rows],
            cluster=cluster,
            bounds=self.teacher_weight_bounds,
        )
        self.mixture_, self.teacher_weight_ = choice, choice.weight

    def _settle_final(self, judge: HeldOut) -> None:
        """Carry over to the final student what was learnt on held-out rows; nothing by default."""

    @property
    def _judges(self) -> bool:
        """Whether mixtures are judged on held-out rows, which takes honest labels there."""
        return self.teacher_weight == "auto"

    def _extra_rows(self, X: Any, X_unlabelled: Any, seed: list[int]) -> tuple[Any, ...]:
        """Return tables of rows without truth: those that were given, and those made from X."""
        tables = () if X_unlabelled is None else (X_unlabelled,)
        augmenter = as_augmenter(self.augment)
        if augmenter is None:
            return tables
        n_rows = int(np.ceil(self.n_augment * count_samples(X)))
        if n_rows < 1:
            message = f"Expected n_augment to be positive; got {self.n_augment}."
            raise InvalidInputError(message)
        random = np.random.RandomState(np.random.SeedSequence(seed).generate_state(1)[0])
        return (*tables, augmenter.rows(X, n_rows, random))

    @property
    def _plain_targets(self) -> bool:
        """Whether targets are taught as they are, so that weights only stress some rows."""
        return True

    def _ensemble(self) -> TeacherEnsemble:
        teacher = self._default_teachers() if self.teacher is None else self.teacher
        if not isinstance(teacher, TeacherEnsemble):
            listed = teacher if isinstance(teacher, (dict, list, tuple)) else [teacher]
            teacher = TeacherEnsemble(listed)
        by_group = [rule for rule in teacher.rules.values() if rule.by_group]
        if by_group:
            message = (
                f"{by_group[0]!r} needs groups to predict, and a student's predict has none. "
                "Harmonise globally, or combine the teachers beforehand."
            )
            raise InvalidInputError(message)
        # What was set on the ensemble stays, unless it was set on the student.
        changes: dict[str, Any] = {} if self.n_jobs is None else {"n_jobs": self.n_jobs}
        if self.progress != "auto":
            changes["progress"] = self.progress
        return teacher.replace(**changes)

    # --- using --------------------------------------------------------------------------------

    def _checked_training(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, X_unlabelled: Any
    ) -> tuple[Any, Any, Any]:
        """Check the inputs of `fit`; return inputs, weights and unlabelled inputs."""
        require_target(self, y)
        X = self._checked_inputs(X, reset=True)
        check_consistent_length(X, y, groups)
        weight = checked_weight(sample_weight, X)
        if X_unlabelled is not None:
            if type(X_unlabelled) is not type(X) and not isinstance(
                X_unlabelled, (list, np.ndarray)
            ):
                message = (
                    f"Expected X_unlabelled as the {type(X).__name__} that X is; got "
                    f"{type(X_unlabelled).__name__}."
                )
                raise InvalidInputError(message)
            X_unlabelled = self._checked_inputs(X_unlabelled, reset=False)
        return X, weight, X_unlabelled

    def row_losses(self, y: Any, prediction: Any) -> np.ndarray:
        """Return the loss of every row, as it is used to choose and to report.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Truth.
        prediction : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Predictions of any model: values, or probabilities in the order of `classes_`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Squared errors (mean over the outputs) in squared units of y, or log-losses in nats.
        """
        truth = self._truth(np.asarray(y))
        prediction = np.asarray(prediction, dtype=np.float64)
        prediction = prediction.reshape(len(prediction), -1)
        expected = (len(prediction), self.labels_.shape[1])
        if truth.shape != expected or prediction.shape != expected:
            message = (
                f"Expected truth and predictions of {expected[1]} outputs; got shapes "
                f"{truth.shape} and {prediction.shape}."
            )
            raise InvalidInputError(message)
        if not np.isfinite(truth).all():
            message = "Expected finite targets; got NaN or infinite ones."
            raise InvalidInputError(message)
        return self._loss(truth, prediction)

    def report(
        self, X: Any, y: Any, *, sample_weight: Any = None, groups: Any = None, **options: Any
    ) -> DistillationReport:
        """Measure teacher and student side by side on rows that neither was trained on.

        Parameters
        ----------
        X : array-like or frame of shape (n_samples, n_features)
            Test inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Test targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights.
        groups : array-like of shape (n_samples,) or None, default=None
            Groups that are resampled together.
        **options
            Passed to `scikd.students.measurement.measure`.

        Returns
        -------
        DistillationReport
            Fidelity, losses, their gap with an interval, latency and bytes on disk.
        """
        check_is_fitted(self)
        X = self._checked_inputs(X, reset=False)
        check_consistent_length(X, y)
        weight = checked_weight(sample_weight, X)
        return measure(self, X, np.asarray(y), weight=weight, groups=groups, **options)


def _as_store(store: Any) -> LabelStore | None:
    return store if store is None or isinstance(store, LabelStore) else LabelStore(store)


def _number(value: Any) -> float:
    if isinstance(value, (int, float, np.number)) and np.isfinite(value):
        return float(value)
    message = f"Expected teacher_weight to be 'auto' or a finite number; got {value!r}."
    raise InvalidInputError(message)


def _matching_outputs(oof: OutOfFold, truth: np.ndarray) -> None:
    width = int(np.prod(oof.members.shape[2:], dtype=int))
    if width != truth.shape[1]:
        message = (
            f"The teachers predict {width} numbers per sample ({oof.quantity!r}); the targets have "
            f"{truth.shape[1]}. For classes the columns must be the classes of y."
        )
        raise InvalidInputError(message)
