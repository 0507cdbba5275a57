"""What stacks of regressors and of classifiers share: the whole of the training.

The order of things: folds, out-of-fold predictions of every base model, the meta-model on these,
and the base models that it needs, refitted on everything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.ensemble._base import _BaseHeterogeneousEnsemble
from sklearn.exceptions import NotFittedError
from sklearn.utils import Bunch, check_consistent_length, check_random_state
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from scikd._progress import Progress
from scikd._table_inputs import TableInputs, checked_weight, require_target
from scikd._training import Errors
from scikd.exceptions import InvalidInputError
from scikd.folds import grouped_folds
from scikd.labels import LabelStore
from scikd.out_of_fold import OutOfFold, align_classes, cross_predict, take
from scikd.parallel import fan_out
from scikd.stacking._inputs import labels_of_tables
from scikd.stacking._meta import Score
from scikd.stacking._outer import Lesson, meta_folds, outer_predictions
from scikd.stacking._predictions import Predictions
from scikd.stacking.combiners import LinearCombiner
from scikd.teachers import EstimatorTeacher, takes_weights

if TYPE_CHECKING:
    from scikd.stacking.comparison import Comparison
    from scikd.stacking.frozen import FrozenPool, FrozenStack

__all__ = ["Stack"]


class Stack(TableInputs, _BaseHeterogeneousEnsemble):
    """Base of the stacks; not for users."""

    estimators_: list[Any]
    named_estimators_: Bunch
    required_estimators_: tuple[str, ...]
    oof_: OutOfFold
    meta_: Any

    def __init__(
        self,
        estimators: Sequence[tuple[str, Any]],
        meta: Any = None,
        *,
        cv: Any = 5,
        evaluate: Literal["outer", "nested"] = "outer",
        errors: Errors = "raise",
        store: Any = None,
        n_jobs: int | None = None,
        progress: Progress = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(estimators)
        self.meta = meta
        self.cv = cv
        self.evaluate = evaluate
        self.errors = errors
        self.store = store
        self.n_jobs = n_jobs
        self.progress = progress
        self.random_state = random_state

    _classifier: bool

    @abstractmethod
    def _default_meta(self) -> Any:
        """Return the meta-model of ``meta=None``."""

    # --- fitting ------------------------------------------------------------------------------

    def _fit(self, X: Any, y: np.ndarray, weight: np.ndarray | None, groups: Any, oof: Any) -> None:
        teachers, cv_groups = self._routed(weight, groups)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        if self.evaluate not in {"outer", "nested"}:
            message = f"Expected evaluate to be 'outer' or 'nested'; got {self.evaluate!r}."
            raise InvalidInputError(message)
        meta = self._checked_meta()
        training: dict[str, Any] = {
            "sample_weight": weight,
            "classes": getattr(self, "classes_", None),
            "store": _as_store(self.store),
            "n_jobs": self.n_jobs,
            "progress": self.progress,
        }
        if oof is None:
            dealing: dict[str, Any] = {"classifier": self._classifier, "random_state": seed}
            dealing |= {"groups": cv_groups, "sample_weight": weight}
            folds = grouped_folds(X, y, self.cv, **dealing)
            self.oof_ = cross_predict(teachers, X, y, folds, **training, errors=self.errors)
        else:
            self.oof_ = self._given(oof, [teacher.name for teacher in teachers], len(y))
        self._lesson = Lesson(y, weight, None if groups is None else np.asarray(groups))
        self._learn(meta)
        self._refit(X, y, weight, teachers, prefit=oof is not None)
        self._outer: np.ndarray | None = None
        self._nested: Comparison | None = None
        if self.evaluate == "nested":
            self._judge(teachers, X, training)

    def _checked_meta(self) -> Any:
        """Return an unfitted meta-model that takes what a stack gives it."""
        meta = clone(self._default_meta() if self.meta is None else self.meta)
        told = all(has_fit_parameter(meta, name) for name in ("sample_weight", "groups", "fold"))
        if not told or is_classifier(meta) != self._classifier:
            kind = "MetaClassifier, LogPool" if self._classifier else "MetaRegressor, ShrunkRidge"
            message = (
                f"Expected meta to be a meta-model of scikd.stacking, as {kind}..., whose fit "
                f"takes sample_weight, groups and fold; got {meta!r}."
            )
            raise InvalidInputError(message)
        return meta

    def _learn(self, meta: Any) -> None:
        """Fit the meta-model to the rows that are covered, and list what it needs."""
        P = Predictions.of(self.oof_)
        rows = np.flatnonzero(P.covered)
        self.meta_ = self._lesson.teach(meta, P, rows, meta_folds(self.oof_, rows))
        names = np.asarray(P.names, dtype=object)
        if isinstance(self.meta_, LinearCombiner):
            required = names[self.meta_.weights_ != 0]
        else:
            required = getattr(self.meta_, "required_models_", names)
        self.required_estimators_ = tuple(str(name) for name in required)

    def _refit(
        self,
        X: Any,
        y: np.ndarray,
        weight: np.ndarray | None,
        teachers: list[EstimatorTeacher],
        *,
        prefit: bool,
    ) -> None:
        """Fit what the meta-model needs to all rows, but for what stays as it is."""
        needed = [one for one in teachers if one.name in self.required_estimators_]
        heard = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
        X, y = (X, y) if len(heard) == len(y) else (take(X, heard), y[heard])
        weight = None if weight is None else weight[heard]
        tasks = [
            (one, X, y, weight if one.weighted else None, prefit and _is_fitted(one.estimator))
            for one in needed
        ]
        options: dict[str, Any] = {"n_jobs": self.n_jobs, "progress": self.progress}
        self.estimators_ = list(fan_out(_fitted, tasks, description="all rows", **options))
        self.required_estimators_ = tuple(one.name for one in needed)
        self.named_estimators_ = Bunch(
            **dict(zip(self.required_estimators_, self.estimators_, strict=True))
        )

    def _judge(self, teachers: list[EstimatorTeacher], X: Any, training: dict[str, Any]) -> None:
        from scikd.stacking._nested_score import nested_comparison  # noqa: PLC0415 - few ask for it

        self._outer, self._nested = nested_comparison(
            self._lesson,
            teachers,
            X,
            self.oof_,
            clone(self.meta_),
            training | {"errors": self.errors},
            n_required=len(self.required_estimators_),
        )

    def _given(self, oof: Any, names: list[str], n_samples: int) -> OutOfFold:
        """Check out-of-fold predictions that the caller made."""
        classes = getattr(self, "classes_", None)
        unnamed = not (hasattr(oof, "names") or hasattr(oof, "columns") or hasattr(oof, "keys"))
        labels = labels_of_tables(oof, classes)
        P = Predictions.of(oof, classes=labels, names=names if unnamed else None)
        if classes is not None and P.classes is not None and list(P.classes) != list(classes):
            message = f"Expected probabilities of {list(classes)}; got those of {list(P.classes)}."
            raise InvalidInputError(message)
        missing = sorted(set(names) - set(P.names))
        if missing or P.n_samples != n_samples:
            message = (
                f"Expected out-of-fold predictions of all {len(names)} estimators for all "
                f"{n_samples} rows; got {P.n_samples} rows"
                f"{f', and none of {missing}' if missing else ''}."
            )
            raise InvalidInputError(message)
        values = P.values
        if classes is not None and values.ndim == 2 and len(classes) == 2:
            values = np.stack([1.0 - values, values], axis=2)
        if values.shape[2:] != (() if classes is None else (len(classes),)):
            wanted = "one number" if classes is None else f"{len(classes)} probabilities"
            message = f"Expected {wanted} per estimator and row; got shape {values.shape}."
            raise InvalidInputError(message)
        members = np.moveaxis(values[:, [P.names.index(name) for name in names]], 1, 0)
        return OutOfFold(
            names=tuple(names),
            quantity="value" if classes is None else "proba",
            members=np.array(members, dtype=np.float64),
            counts=getattr(oof, "counts", P.covered.astype(np.intp)),
            classes=classes,
            folds=getattr(oof, "folds", ()),
        )

    # --- after fitting ------------------------------------------------------------------------

    @property
    def comparison_(self) -> Comparison | None:
        """Losses on held-out rows, of every combiner.

        With ``evaluate="nested"`` of the whole stack. None where the meta-model compares nothing.
        """
        check_is_fitted(self)
        return self._nested or getattr(self.meta_, "comparison_", None)

    @property
    def score_(self) -> Any:
        """Loss of the stack on held-out rows with its interval, and how they were held out."""
        check_is_fitted(self)
        if self._nested is not None:
            return Score(*self._nested.loss("stack"), "nested")
        return getattr(self.meta_, "score_", None)

    def predict_out_of_fold(self) -> np.ndarray:
        """Predict every training row by a meta-model that was fitted without its fold.

        These are the labels to distil from. What `predict` says of training rows is in-sample:
        its base models were fitted to them.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Predictions in the unit of y, or probabilities; NaN in rows that no fold tests, or for
            which no earlier fold is there to learn from (time series).

        Notes
        -----
        .. warning:: The base models behind the *other* rows' predictions were trained on this row.
           With ``evaluate="nested"`` they were not: everything is done again without the fold.
        """
        check_is_fitted(self)
        if self._outer is None:
            self._outer = outer_predictions(self._lesson, self.oof_, clone(self.meta_))
        return self._outer.copy()

    def refit_subset(self) -> Self:
        """Return a stack of the required estimators alone.

        The meta-model is fitted anew to their out-of-fold predictions; no base model is trained.

        Returns
        -------
        RegularizedStackingRegressor or RegularizedStackingClassifier
            Fitted; this one stays as it is.
        """
        check_is_fitted(self)
        kept = [pair for pair in self.estimators if pair[0] in self.required_estimators_]
        new = clone(self).set_params(estimators=kept)
        for name in self.__dict__.keys() - self.get_params(deep=False).keys():
            setattr(new, name, getattr(self, name))
        index = [self.oof_.names.index(name) for name, _ in kept]
        new.oof_ = _subset(self.oof_, index)
        new._outer = new._nested = None
        new._learn(clone(self.meta_))
        new.named_estimators_ = Bunch(
            **{name: self.named_estimators_[name] for name in new.required_estimators_}
        )
        new.estimators_ = list(new.named_estimators_.values())
        return new

    def freeze(self) -> FrozenStack | FrozenPool:
        """Return the meta-model as a few numbers, for predictions of the required estimators.

        Returns
        -------
        FrozenStack or FrozenPool
            Verified to agree with the meta-model on the out-of-fold predictions.

        Raises
        ------
        InvalidInputError
            If the meta-model cannot be collapsed.
        """
        from scikd.stacking.freezing import freeze  # noqa: PLC0415 - few ask for it

        check_is_fitted(self)
        P = Predictions.of(self.oof_)
        return freeze(self.meta_, P.take(np.flatnonzero(P.covered)))

    def predictions(self, X: Any) -> dict[str, np.ndarray]:
        """Return what the required estimators, fitted to all rows, predict.

        There is no `transform`: of training rows these columns are in-sample, and a model that
        learns from them is misled. `oof_` holds the honest ones.

        Parameters
        ----------
        X : array-like, sparse matrix or frame of shape (n_samples, n_features)
            The inputs.

        Returns
        -------
        dict of str to ndarray of shape (n_samples,) or (n_samples, n_classes)
            By name.
        """
        check_is_fitted(self)
        X = self._checked_inputs(X, reset=False)
        found = {}
        for name, model in self.named_estimators_.items():
            teacher = EstimatorTeacher(model, name)
            (values,) = teacher.predict(X).values()
            if self.oof_.classes is not None:
                values = align_classes(values, teacher.classes, self.oof_.classes, name)
            found[name] = values
        return found

    def _combined(self, X: Any) -> Any:
        """Return the predictions that the meta-model takes."""
        found = self.predictions(X)
        if not isinstance(self.meta_, LinearCombiner):
            return found
        rows = len(next(iter(found.values())))
        nothing = np.zeros(rows)  # of weight zero
        return {name: found.get(name, nothing) for name in self.oof_.names}

    # --- conventions --------------------------------------------------------------------------

    def _checked_training(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[Any, np.ndarray | None]:
        require_target(self, y)
        self._validate_estimators()
        X = self._checked_inputs(X, reset=True)
        check_consistent_length(X, y, groups)
        return X, checked_weight(sample_weight, X)

    def _active(self) -> list[tuple[str, Any]]:
        return [(name, one) for name, one in self.estimators if not isinstance(one, str)]

    def _learners(self) -> list[Any]:
        return [one for _, one in self._active()]

    def _routed(self, weight: np.ndarray | None, groups: Any) -> tuple[list[EstimatorTeacher], Any]:
        """Return the base models, each told whether it gets weights; and groups for the folds."""
        active = self._active()
        if not _routing_enabled():
            weighted = {name: takes_weights(one) for name, one in active}
        else:
            given = {"sample_weight": weight, "groups": groups}
            given = {name: value for name, value in given.items() if value is not None}
            routed = process_routing(self, "fit", **given)
            weighted = {name: "sample_weight" in routed[name].fit for name, _ in active}
            if "splitter" in routed:
                groups = routed.splitter.split.get("groups")
        teachers = [EstimatorTeacher(one, name, weighted=weighted[name]) for name, one in active]
        return teachers, groups

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the routing of `sample_weight` to base models, and of `groups` to the splitter.

        The meta-model always gets both.
        """
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        fit = MethodMapping().add(caller="fit", callee="fit")
        for name, one in self._active():
            router.add(**{name: one}, method_mapping=fit)
        if hasattr(self.cv, "get_metadata_routing"):
            split = MethodMapping().add(caller="fit", callee="split")
            router.add(splitter=self.cv, method_mapping=split)
        return router

    def _sk_visual_block_(self) -> _VisualBlock:
        names, models = zip(*self._active(), strict=True)
        base = _VisualBlock("parallel", models, names=names, dash_wrapped=False)
        default = self._default_meta() if self.meta is None else self.meta
        meta = _VisualBlock(
            "parallel", [getattr(self, "meta_", default)], names=["meta"], dash_wrapped=False
        )
        return _VisualBlock("serial", (base, meta), dash_wrapped=False)


def _fitted(
    teacher: EstimatorTeacher, X: Any, y: np.ndarray, weight: np.ndarray | None, keep: bool
) -> Any:
    """Return the fitted estimator of a base model; as it is, if it is to be kept."""
    return teacher.estimator if keep else teacher.fit(X, y, weight).estimator


def _as_store(store: Any) -> LabelStore | None:
    return store if store is None or isinstance(store, LabelStore) else LabelStore(store)


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _subset(oof: OutOfFold, index: list[int]) -> OutOfFold:
    names = tuple(oof.names[i] for i in index)
    return OutOfFold(names, oof.quantity, oof.members[index], oof.counts, oof.classes, oof.folds)
