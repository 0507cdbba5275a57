"""What the distilled regressor and the distilled classifier share: the whole of the training.

The order of things: folds, out-of-fold labels of the teachers, the mixture of teacher and truth
chosen on held-out rows, the teachers refitted on everything, the student.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_consistent_length, check_random_state, get_tags
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from scikd._progress import Progress
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import DistillationWarning, InvalidInputError
from scikd.labels import LabelStore
from scikd.out_of_fold import OutOfFold, cross_predict, take
from scikd.students.augmentation import as_augmenter
from scikd.students.folds import distinct_rows, student_folds
from scikd.students.lessons import Extra, HeldOut, Lesson
from scikd.students.measurement import DistillationReport, measure
from scikd.students.mixing import MixtureChoice, choose_mixture, mean_and_error
from scikd.teachers import EstimatorTeacher, Teacher, count_samples

__all__ = ["Distilled"]


class Distilled(TransformerMixin, BaseEstimator, ABC):
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
    def _student(self) -> Any:
        """Return the unfitted student, checked for what it must be able to do."""

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
    ) -> Any:
        if weight is not None and not weight.all():  # a row of weight zero is no row
            rows = np.flatnonzero(weight)
            if isinstance(self.cv, (int, np.integer)):
                X, y, weight = take(X, rows), y[rows], weight[rows]
                groups = None if groups is None else take(groups, rows)
        teacher_weight, student_weight, cv_groups = self._routed(weight, groups)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        truth = self._truth(y)
        student = self._student()
        ensemble = self._ensemble()
        folds = student_folds(
            X, y, self.cv, groups=cv_groups, classifier=self._classifier, random_state=seed
        )
        extra = self.augment is not None or X_unlabelled is not None
        oof = cross_predict(
            ensemble.teachers,
            X,
            y,
            folds,
            sample_weight=teacher_weight,
            classes=getattr(self, "classes_", None),
            keep_fitted=extra,
            store=None if self.store is None else _as_store(self.store),
            n_jobs=self.n_jobs,
            progress=self.progress,
        )
        _matching_outputs(oof, truth)
        ensemble = ensemble.calibrate(oof, y, weight)
        labels = ensemble.combine(oof, X=X, groups=groups).mean[oof.quantity]
        labels = labels.reshape(len(truth), -1)
        judge = HeldOut(self, student, X, truth, labels, weight, student_weight, oof)
        if extra:
            judge.extra = [
                self._extra_rows(
                    _with_teachers(ensemble, trained), take(X, train), X_unlabelled, [seed, k]
                )
                for k, ((train, _), trained) in enumerate(zip(folds, oof.fitted, strict=True))
            ]
        self._choose(judge, groups)
        self.teacher_ = ensemble.fit(X, y, teacher_weight)
        lesson = Lesson(X, truth, labels, student_weight)
        if extra:
            labelled = self._extra_rows(self.teacher_, X, X_unlabelled, [seed, len(folds)])
            lesson = replace(lesson, extra=labelled)
        lesson = lesson.without_zero_weight()
        self.student_ = self._teach(student, *lesson.mixed(self.teacher_weight_))
        self._settle_final(judge)
        self.oof_ = replace(oof, fitted=())
        self.labels_ = labels
        return self

    def _choose(self, judge: HeldOut, groups: Any) -> None:
        """Choose the teacher's weight, and warn where distilling is expected to hurt."""
        rows = judge.rows
        cluster = distinct_rows(judge.X) if groups is None else np.asarray(groups)
        cluster = cluster[rows]
        alone = self._loss(judge.truth[rows], judge.predictions(0.0))
        taught = self._loss(judge.truth[rows], judge.labels[rows])
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

    def _extra_rows(
        self, ensemble: TeacherEnsemble, X: Any, X_unlabelled: Any, seed: list[int]
    ) -> Extra:
        """Return rows without truth, labelled by teachers that were trained on ``X``."""
        tables = [] if X_unlabelled is None else [X_unlabelled]
        augmenter = as_augmenter(self.augment)
        if augmenter is not None:
            n_rows = int(np.ceil(self.n_augment * count_samples(X)))
            if n_rows < 1:
                message = f"Expected n_augment to be positive; got {self.n_augment}."
                raise InvalidInputError(message)
            random = np.random.RandomState(np.random.SeedSequence(seed).generate_state(1)[0])
            tables.append(augmenter.rows(X, n_rows, random))
        (quantity,) = ensemble.quantities
        labelled = []
        for table in tables:
            values = ensemble.consensus(table).mean[quantity.name]
            labelled.append((table, values.reshape(count_samples(table), -1)))
        return tuple(labelled)

    def _ensemble(self) -> TeacherEnsemble:
        teacher = self._default_teachers() if self.teacher is None else self.teacher
        if not isinstance(teacher, TeacherEnsemble):
            listed = teacher if isinstance(teacher, (dict, list, tuple)) else [teacher]
            teacher = TeacherEnsemble(listed)
        ensemble: TeacherEnsemble = teacher.replace(n_jobs=self.n_jobs, progress=self.progress)
        return ensemble

    # --- metadata, tags, representation -------------------------------------------------------

    def _routed(
        self, weight: np.ndarray | None, groups: Any
    ) -> tuple[np.ndarray | None, np.ndarray | None, Any]:
        if not _routing_enabled():
            return weight, weight, groups
        given = {"sample_weight": weight, "groups": groups}
        given = {name: value for name, value in given.items() if value is not None}
        routed = process_routing(self, "fit", **given)
        teacher = routed.teacher.fit if "teacher" in routed else {"sample_weight": weight}
        student = routed.student.fit if "student" in routed else {"sample_weight": weight}
        splitter = routed.splitter.split if "splitter" in routed else {"groups": groups}
        return teacher.get("sample_weight"), student.get("sample_weight"), splitter.get("groups")

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the routing of `sample_weight` and `groups` to teacher, student and splitter."""
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        fit = MethodMapping().add(caller="fit", callee="fit")
        for name in ("teacher", "student"):
            child = getattr(self, name)
            if hasattr(child, "get_metadata_routing"):
                router.add(**{name: child}, method_mapping=fit)
        if hasattr(self.cv, "get_metadata_routing"):
            split = MethodMapping().add(caller="fit", callee="split")
            router.add(splitter=self.cv, method_mapping=split)
        return router

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        learners = [member.estimator for member in self._members()] + [self.student]
        inputs = [get_tags(learner).input_tags for learner in learners if learner is not None]
        tags.input_tags.allow_nan = bool(inputs) and all(tag.allow_nan for tag in inputs)
        tags.input_tags.sparse = bool(inputs) and all(tag.sparse for tag in inputs)
        return tags

    def _members(self) -> list[EstimatorTeacher]:
        if self.teacher is None:
            return []
        return [t for t in self._ensemble().teachers if isinstance(t, EstimatorTeacher)]

    def _sk_visual_block_(self) -> _VisualBlock:
        ensemble = getattr(self, "teacher_", None) or self._ensemble()
        shown = [getattr(teacher, "estimator", teacher) for teacher in ensemble.teachers]
        names = [f"teacher: {name}" for name in ensemble.names]
        student = getattr(self, "student_", None) or self._student()
        return _VisualBlock(
            "parallel", [*shown, student], names=[*names, "student"], dash_wrapped=False
        )

    # --- using --------------------------------------------------------------------------------

    def _checked_training(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Check the inputs of `fit`; return inputs and weights."""
        if y is None:
            message = f"{type(self).__name__} requires y to be passed, but the target y is None."
            raise InvalidInputError(message)
        X = self._checked_inputs(X, reset=True)
        check_consistent_length(X, y)
        return X, _checked_weight(sample_weight, X)

    def _checked_inputs(self, X: Any, *, reset: bool) -> Any:
        """Check inputs; frames go through as they are, since learners choose their columns."""
        if reset:  # asking every learner for its tags takes longer than a small prediction
            tags = get_tags(self).input_tags
            self._accepts_sparse = ["csr", "csc"] if tags.sparse else False
            self._accepts_nan = True
        if hasattr(X, "columns") and hasattr(X, "to_numpy"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if count_samples(X) == 0:
                message = "Expected at least one sample; got an empty frame (n_samples=0)."
                raise InvalidInputError(message)
            return X
        checked = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse=self._accepts_sparse,
            # In training the learners say themselves whether they take NaN: no pipeline with an
            # imputer tells beforehand. Later NaN is welcome where it was in training.
            ensure_all_finite="allow-nan" if self._accepts_nan else True,
            ensure_min_samples=2 if reset else 1,
        )
        if reset:
            values = checked.data if hasattr(checked, "tocsr") else checked
            self._accepts_nan = bool(tags.allow_nan or np.isnan(values).any())
        return checked

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
        return self._loss(truth, np.asarray(prediction).reshape(len(truth), -1))

    def transform(self, X: Any) -> np.ndarray:
        """Return the predictions of every teacher, one column (per output) each.

        Parameters
        ----------
        X : array-like or frame of shape (n_samples, n_features)
            The inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_teachers * n_outputs), or frame after `set_output`
            The columns are named by `get_feature_names_out`.

        Notes
        -----
        .. warning:: The teachers were refitted on the training rows, so for those rows these
           columns are in-sample. `oof_` holds honest ones.
        """
        check_is_fitted(self)
        X = self._checked_inputs(X, reset=False)
        (quantity,) = self.teacher_.quantities
        members = self.teacher_.consensus(X, members=True).members[quantity.name]
        columns = members.reshape(*members.shape[:2], -1)
        return np.concatenate(list(columns), axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of `transform`."""
        check_is_fitted(self)
        del input_features
        outputs = self.labels_.shape[1]
        suffixes = getattr(self, "classes_", range(outputs))
        names = [
            name if outputs == 1 else f"{name}_{suffix}"
            for name in self.teacher_.names
            for suffix in suffixes
        ]
        return np.asarray(names, dtype=object)

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
        weight = _checked_weight(sample_weight, X)
        return measure(self, X, np.asarray(y), weight=weight, groups=groups, **options)


def _with_teachers(ensemble: TeacherEnsemble, teachers: tuple[Teacher, ...]) -> TeacherEnsemble:
    return ensemble.replace(teachers=list(teachers), progress=False)


def _as_store(store: Any) -> LabelStore:
    return store if isinstance(store, LabelStore) else LabelStore(store)


def _number(value: Any) -> float:
    if isinstance(value, (int, float, np.number)) and np.isfinite(value):
        return float(value)
    message = f"Expected teacher_weight to be 'auto' or a finite number; got {value!r}."
    raise InvalidInputError(message)


def _checked_weight(sample_weight: Any, X: Any) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weight: np.ndarray = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True, allow_all_zero_weights=False
    )
    return weight


def _matching_outputs(oof: OutOfFold, truth: np.ndarray) -> None:
    width = int(np.prod(oof.members.shape[2:], dtype=int))
    if width != truth.shape[1]:
        message = (
            f"The teachers predict {width} numbers per sample ({oof.quantity!r}); the targets have "
            f"{truth.shape[1]}. For classes the columns must be the classes of y."
        )
        raise InvalidInputError(message)
