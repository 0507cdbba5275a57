"""Teachers: anything that predicts named quantities, behind one contract.

A `Teacher` maps inputs to ``{quantity name: array}``. Adapters make one of a scikit-learn estimator
(`EstimatorTeacher`), of a callable (`CallableTeacher`) and of labels on disk (`StoredTeacher`);
`as_teacher` picks the right one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, final

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.metadata_routing import _routing_enabled
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from scikd.exceptions import InvalidInputError, MismatchedLabelsError, ScikdError, TeacherError
from scikd.fingerprints import fingerprint_estimator, fingerprint_fitted, fingerprint_inputs
from scikd.labels import StoredLabels
from scikd.quantities import PROBA, SCORE, VALUE, Quantity

__all__ = [
    "CallableTeacher",
    "EstimatorTeacher",
    "StoredTeacher",
    "Teacher",
    "as_teacher",
    "count_samples",
    "fit_weighted",
    "name_teachers",
    "takes_weights",
]


def count_samples(X: Any) -> int:
    """Return how many samples ``X`` holds: its first axis, or its length."""
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) > 0:
        return int(shape[0])
    try:
        return len(X)
    except TypeError:
        message = f"Expected inputs with a first axis or a length; got {type(X).__name__}."
        raise InvalidInputError(message) from None


class Teacher(ABC):
    """Something that predicts named quantities.

    A subclass writes `quantities`, `fingerprint` and `_predict`; `predict` validates what comes
    out, so that whoever uses a teacher meets clean arrays only.

    Parameters
    ----------
    name : str
        Name of the teacher; every error about it says which one it was.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,) or None
        Labels of the columns of ``"proba"``; None where there are no classes.
    trainable : bool
        Whether `fit` makes a new teacher from training data. A teacher that is not trainable is
        asked for its predictions as it is.
    weighted : bool
        Whether training data come with their sample weights, where there are any.
    """

    name: str
    classes: np.ndarray | None = None
    trainable: bool = False
    weighted: bool = True

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def quantities(self) -> tuple[Quantity, ...]:
        """What the teacher predicts, with units and shapes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes when the teacher's predictions may change."""

    @abstractmethod
    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        """Predict; `predict` checks the result."""

    @final
    def predict(self, X: Any) -> dict[str, np.ndarray]:
        """Predict every quantity.

        Parameters
        ----------
        X : array-like, frame or sequence of n_samples
            The inputs.

        Returns
        -------
        dict of str to ndarray of shape (n_samples, ...)
            One array per quantity, in double precision (single stays single).

        Raises
        ------
        TeacherError
            If the teacher raises, or returns a wrong shape, length or type, or NaN or infinite
            numbers. All problems are listed at once; the cause is kept.
        """
        try:
            raw = self._predict(X)
        except ScikdError:
            raise
        except Exception as error:
            message = f"Teacher {self.name!r} raised {type(error).__name__}: {error}"
            raise TeacherError(message) from error
        if not isinstance(raw, Mapping):
            message = (
                f"Teacher {self.name!r} returned {type(raw).__name__}, expected a mapping of "
                f"{[quantity.name for quantity in self.quantities]} to arrays."
            )
            raise TeacherError(message)
        return self._checked(raw, count_samples(X))

    def _checked(self, raw: Mapping[str, Any], n_samples: int) -> dict[str, np.ndarray]:
        clean: dict[str, np.ndarray] = {}
        problems = []
        for quantity in self.quantities:
            if quantity.name not in raw:
                problems.append(f"{quantity.name!r} is missing (got {sorted(raw)})")
                continue
            array = np.asarray(raw[quantity.name])
            if array.dtype.kind in "biu":
                array = array.astype(np.float64)
            problem = quantity.problem(array, n_samples)
            if problem is not None:
                problems.append(problem)
            clean[quantity.name] = array
        if problems:
            message = (
                f"Teacher {self.name!r} returned something unusable: {'; '.join(problems)}. "
                "Correct the teacher, or leave it out of the ensemble."
            )
            raise TeacherError(message)
        return clean

    @final
    def fit(self, X: Any, y: Any, sample_weight: np.ndarray | None = None) -> Self:
        """Train a new teacher of this specification; this one stays as it is.

        Parameters
        ----------
        X : array-like, frame or sequence of n_samples
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Training targets.
        sample_weight : ndarray of shape (n_samples,) or None, default=None
            Weights of the samples.

        Returns
        -------
        Teacher
            The trained teacher; the teacher itself if it is not trainable.

        Raises
        ------
        TeacherError
            If training fails; the message names the teacher, the cause is kept.
        """
        if not self.trainable:
            return self
        try:
            return self._fit(X, y, sample_weight)
        except ScikdError:
            raise
        except Exception as error:
            message = f"Teacher {self.name!r} failed to train: {type(error).__name__}: {error}"
            raise TeacherError(message) from error

    def _fit(self, X: Any, y: Any, sample_weight: np.ndarray | None) -> Self:
        message = f"Teacher {self.name!r} says that it is trainable but has no way to train."
        raise TeacherError(message)


class EstimatorTeacher(Teacher):
    """A scikit-learn-compatible estimator as a teacher.

    Parameters
    ----------
    estimator : object
        A regressor (quantity ``"value"``) or a classifier (``"proba"`` if it has `predict_proba`,
        otherwise ``"score"`` from `decision_function`). Fitted or not; a
        `sklearn.frozen.FrozenEstimator` is never trained again.
    name : str or None, default=None
        Name of the teacher; the class name of the estimator if None.
    weighted : bool, default=True
        Whether sample weights are passed to the estimator, which must then take them. Without,
        rows of weight zero are still kept from it.
    """

    def __init__(self, estimator: Any, name: str | None = None, *, weighted: bool = True) -> None:
        super().__init__(name or type(estimator).__name__)
        self.estimator = estimator
        self.weighted = weighted
        self.trainable = type(estimator).__name__ != "FrozenEstimator"

    @property
    def classes(self) -> np.ndarray | None:  # type: ignore[override]
        """Labels of the columns of ``"proba"``; None before fitting and for regressors."""
        return getattr(self.estimator, "classes_", None)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """``"value"`` of a regressor, ``"proba"`` or ``"score"`` of a classifier."""
        if not is_classifier(self.estimator):
            return (VALUE,)
        return (PROBA,) if hasattr(self.estimator, "predict_proba") else (SCORE,)

    @property
    def fingerprint(self) -> str:
        """Digest of the fitted state, or of the specification before fitting."""
        try:
            check_is_fitted(self.estimator)
        except NotFittedError:
            return fingerprint_estimator(self.estimator)
        return fingerprint_fitted(self.estimator)

    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        (quantity,) = self.quantities
        method = {"value": "predict", "proba": "predict_proba", "score": "decision_function"}
        return {quantity.name: getattr(self.estimator, method[quantity.name])(X)}

    def _fit(self, X: Any, y: Any, sample_weight: np.ndarray | None) -> Self:
        estimator = fit_weighted(clone(self.estimator), X, y, sample_weight)
        return type(self)(estimator, self.name, weighted=self.weighted)

    def __repr__(self) -> str:
        return f"EstimatorTeacher({self.estimator!r}, name={self.name!r})"


class CallableTeacher(Teacher):
    """A function as a teacher: a model behind a service, a formula, a wrapped simulator.

    Parameters
    ----------
    function : callable
        Takes the inputs; returns an array (when there is one quantity) or a mapping.
    name : str or None, default=None
        Name of the teacher; the function's own if None.
    quantities : sequence of Quantity, default=(VALUE,)
        What the function returns.
    fingerprint : str or None, default=None
        A version of the function that the caller vouches for. Needed by a `LabelStore`, since the
        text of a function does not tell what it depends on.
    classes : array-like of shape (n_classes,) or None, default=None
        Labels of the columns of ``"proba"``.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        name: str | None = None,
        *,
        quantities: Sequence[Quantity] = (VALUE,),
        fingerprint: str | None = None,
        classes: Any = None,
    ) -> None:
        super().__init__(name or str(getattr(function, "__name__", type(function).__name__)))
        self.function = function
        self._quantities = tuple(quantities)
        self._fingerprint = fingerprint
        self.classes = None if classes is None else np.asarray(classes)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What the function returns."""
        return self._quantities

    @property
    def fingerprint(self) -> str:
        """The version that the caller gave.

        Raises
        ------
        InvalidInputError
            If none was given.
        """
        if self._fingerprint is None:
            message = (
                f"Teacher {self.name!r} is a plain function without a fingerprint, so its labels "
                "could not be told from those of another version. "
                "Pass fingerprint='<version of the model>'."
            )
            raise InvalidInputError(message)
        return self._fingerprint

    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        result = self.function(X)
        if not isinstance(result, Mapping) and len(self._quantities) == 1:
            return {self._quantities[0].name: np.asarray(result)}
        return result


class StoredTeacher(Teacher):
    """Labels that a teacher wrote earlier, perhaps in another environment.

    Parameters
    ----------
    labels : StoredLabels
        What `LabelStore.read` returned.
    classes : array-like of shape (n_classes,) or None, default=None
        Labels of the columns of ``"proba"``.
    """

    def __init__(self, labels: StoredLabels, *, classes: Any = None) -> None:
        super().__init__(labels.name)
        self.labels = labels
        self.classes = None if classes is None else np.asarray(classes)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What was stored."""
        return self.labels.quantities

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the teacher that wrote the labels."""
        return self.labels.fingerprint

    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        inputs = fingerprint_inputs(X)
        if inputs != self.labels.inputs:
            message = (
                f"Teacher {self.name!r} has stored labels for the inputs {self.labels.inputs[:12]}…"
                f" ({self.labels.n_samples} samples); asked for the inputs {inputs[:12]}… "
                f"({count_samples(X)} samples). Label those first with LabelStore.label."
            )
            raise MismatchedLabelsError(message)
        return {quantity.name: self.labels[quantity.name] for quantity in self.quantities}


def as_teacher(teacher: Any, name: str | None = None) -> Teacher:
    """Make a teacher of whatever the user has.

    Parameters
    ----------
    teacher : Teacher, estimator, StoredLabels, or callable
        An object with `fit` and `predict` becomes an `EstimatorTeacher`, stored labels a
        `StoredTeacher`, any other callable a `CallableTeacher` of ``"value"``.
    name : str or None, default=None
        Name of the teacher; its own if None.

    Returns
    -------
    Teacher
        The same object if it is a teacher already and keeps its name.

    Raises
    ------
    InvalidInputError
        If there is no way to make a teacher of it.
    """
    if isinstance(teacher, Teacher):
        if name is not None and name != teacher.name:
            message = (
                f"The teacher named {teacher.name!r} was listed as {name!r}. "
                "Give the teacher that name, or list it without one."
            )
            raise InvalidInputError(message)
        return teacher
    if isinstance(teacher, StoredLabels):
        return StoredTeacher(teacher)
    if isinstance(teacher, type):
        message = f"Expected an instance as a teacher; got the class {teacher.__name__}. Call it."
        raise InvalidInputError(message)
    # What has no fit (a wrapper of a served model) must say that it is an estimator.
    if hasattr(teacher, "predict") and (
        hasattr(teacher, "fit") or is_classifier(teacher) or is_regressor(teacher)
    ):
        return EstimatorTeacher(teacher, name)
    if callable(teacher):
        return CallableTeacher(teacher, name)
    message = (
        "Expected a teacher: a scikit-learn estimator, a callable, stored labels or a Teacher; "
        f"got {type(teacher).__name__}."
    )
    raise InvalidInputError(message)


def name_teachers(teachers: Mapping[str, Any] | Sequence[Any]) -> list[Teacher]:
    """Make teachers of what the user has, with unique names.

    Parameters
    ----------
    teachers : mapping of str to teacher, or iterable of teachers or (name, teacher) pairs
        Anything that `as_teacher` takes. Unnamed estimators of one class are numbered.

    Returns
    -------
    list of Teacher
        The teachers, in order.

    Raises
    ------
    InvalidInputError
        If there are none, or a name comes twice.
    """
    if isinstance(teachers, Mapping):
        pairs: list[tuple[str | None, Any]] = list(teachers.items())
    elif isinstance(teachers, Iterable) and not isinstance(teachers, str):
        pairs = [t if isinstance(t, tuple) else (None, t) for t in teachers]
    else:
        message = (
            "Expected a mapping of names to teachers or a sequence of teachers; "
            f"got {type(teachers).__name__}."
        )
        raise InvalidInputError(message)
    named = [as_teacher(teacher, name) for name, teacher in pairs]
    names = [teacher.name for teacher in named]
    for index, (given, teacher) in enumerate(pairs):
        # Unnamed estimators of one class would clash; a Teacher's own name is never changed.
        if given is None and names.count(names[index]) > 1 and not isinstance(teacher, Teacher):
            named[index].name = f"{names[index]}-{names[: index + 1].count(names[index])}"
    names = [teacher.name for teacher in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"Expected teachers with unique names; {twice} came more than once."
        raise InvalidInputError(message)
    if not named:
        message = "Expected at least one teacher; got none."
        raise InvalidInputError(message)
    return named


def takes_weights(estimator: Any) -> bool:
    """Say whether an estimator, or the last step of a pipeline, can be fitted with weights."""
    steps = getattr(estimator, "steps", None)
    return bool(has_fit_parameter(steps[-1][1] if steps else estimator, "sample_weight"))


def fit_weighted(estimator: Any, X: Any, y: Any, sample_weight: np.ndarray | None) -> Any:
    """Fit an estimator in place, with weights if there are any.

    A `sklearn.pipeline.Pipeline` gets the weights at its last step, or routes them itself where
    scikit-learn's metadata routing is on.

    Raises
    ------
    InvalidInputError
        If there are weights that the estimator cannot take.
    """
    if sample_weight is None:
        return estimator.fit(X, y)
    steps = getattr(estimator, "steps", None)
    if has_fit_parameter(estimator, "sample_weight") or (steps and _routing_enabled()):
        return estimator.fit(X, y, sample_weight=sample_weight)
    if steps and has_fit_parameter(steps[-1][1], "sample_weight"):
        return estimator.fit(X, y, **{f"{steps[-1][0]}__sample_weight": sample_weight})
    message = (
        f"{type(estimator).__name__} cannot take sample_weight. "
        "Use a learner that can, or leave the weights out."
    )
    raise InvalidInputError(message)
