"""What scikit-learn asks of an estimator besides fit and predict: routing, tags, a picture."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from scikd._table_inputs import TableInputs
from scikd.teachers import EstimatorTeacher

if TYPE_CHECKING:
    from scikd.ensemble import TeacherEnsemble

__all__ = ["Conventions"]


class Conventions(TransformerMixin, TableInputs):
    """Routing of metadata, tags and representation of an estimator with teachers and a student."""

    teacher: Any
    student: Any
    cv: Any
    teacher_: TeacherEnsemble
    labels_: np.ndarray

    @abstractmethod
    def _ensemble(self) -> TeacherEnsemble:
        """Return the unfitted teachers."""

    @abstractmethod
    def _student(self) -> Any:
        """Return the unfitted student, checked for what it must be able to do."""

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

    def _learners(self) -> list[Any]:
        learners = [*(member.estimator for member in self._members()), self.student]
        return [one for one in learners if one is not None]

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
