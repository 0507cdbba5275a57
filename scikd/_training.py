"""Training on folds: what out-of-fold and nested predictions have in common."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from sklearn.utils import _safe_indexing

from scikd._progress import Progress
from scikd.exceptions import (
    CorruptFileError,
    InvalidInputError,
    MismatchedLabelsError,
    MissingPredictionsWarning,
    TeacherError,
)
from scikd.fingerprints import fingerprint_inputs, fingerprint_trained
from scikd.labels import LabelStore
from scikd.parallel import fan_out
from scikd.quantities import PROBA, Quantity
from scikd.teachers import EstimatorTeacher, Teacher

__all__ = ["Errors", "Fold", "align_classes", "common_quantity", "fold_results", "take"]

logger = logging.getLogger(__name__)

Fold = tuple[np.ndarray, np.ndarray]
Errors = Literal["raise", "missing"]


def take(X: Any, rows: np.ndarray) -> Any:
    """Return rows of an array, frame, sparse matrix or list."""
    return _safe_indexing(X, rows)


def align_classes(
    proba: np.ndarray, known: np.ndarray | None, classes: np.ndarray, name: str
) -> np.ndarray:
    """Put the columns of a teacher that may have seen fewer classes in the common order.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_known)
        Probabilities over the classes that the teacher knows.
    known : ndarray of shape (n_known,) or None
        Those classes; None takes them to be the common ones.
    classes : ndarray of shape (n_classes,)
        The common classes.
    name : str
        Name of the teacher, for the error.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Probabilities; zero for classes that the teacher has never seen.

    Raises
    ------
    TeacherError
        If the teacher knows a class that is not among the common ones, or its columns are not as
        many as its classes.
    """
    known = classes if known is None else np.asarray(known)
    if proba.ndim != 2 or proba.shape[1] != len(known):
        message = (
            f"Teacher {name!r} gave probabilities of shape {proba.shape} for {len(known)} classes "
            f"({known.tolist()})."
        )
        raise TeacherError(message)
    if np.array_equal(known, classes):
        return proba
    foreign = np.setdiff1d(known, classes)
    if foreign.size:
        message = (
            f"Teacher {name!r} knows the classes {foreign.tolist()}, which are not among "
            f"{classes.tolist()}. All teachers must speak of the same classes."
        )
        raise TeacherError(message)
    aligned = np.zeros((len(proba), len(classes)))
    aligned[:, np.searchsorted(classes, known)] = proba
    return aligned


def fold_results(
    teachers: Sequence[Teacher],
    X: Any,
    y: Any,
    folds: Sequence[Fold],
    sample_weight: np.ndarray | None,
    classes: np.ndarray | None,
    store: LabelStore | None,
    n_jobs: int | None,
    progress: Progress,
    errors: Errors = "raise",
) -> Iterator[tuple[int, int | None, np.ndarray | None]]:
    """Yield (teacher, fold, predictions of its test rows), and once all rows with fold None.

    With ``errors="missing"`` the predictions of a teacher that fails are None, and a warning says
    why.
    """
    if errors not in {"raise", "missing"}:
        raise InvalidInputError(f"Expected errors to be 'raise' or 'missing'; got {errors!r}.")
    places = [
        (index, number)
        for index, teacher in enumerate(teachers)
        for number in (range(len(folds)) if teacher.trainable else [None])
    ]
    tasks = [
        (
            teachers[index],
            X,
            y,
            sample_weight,
            None if number is None else folds[number],
            store,
            errors,
        )
        for index, number in places
    ]
    results = fan_out(
        _fit_predict, tasks, n_jobs=n_jobs, description="out-of-fold", progress=progress
    )
    for (index, number), result in zip(places, results, strict=True):
        if isinstance(result, str):
            where = "" if number is None else f" Its predictions are missing in fold {number}."
            warnings.warn(f"{result}{where}", MissingPredictionsWarning, stacklevel=4)
            yield index, number, None
            continue
        values, known = result
        if classes is None:
            yield index, number, values
        else:
            yield index, number, align_classes(values, known, classes, teachers[index].name)


def common_quantity(teachers: Sequence[Teacher], classes: np.ndarray | None) -> Quantity:
    """Return the one quantity that all teachers predict."""
    found = {teacher.name: [q.name for q in teacher.quantities] for teacher in teachers}
    wanted = [PROBA.name] if classes is not None else next(iter(found.values()), [])
    if len(wanted) != 1 or any(names != wanted for names in found.values()):
        listing = "; ".join(f"{name}: {names}" for name, names in found.items())
        message = (
            "Expected teachers that all predict the same one quantity, and probabilities where "
            f"there are classes; got {listing or 'no teacher'}. "
            "A classifier without predict_proba can be wrapped in CalibratedClassifierCV."
        )
        raise InvalidInputError(message)
    return teachers[0].quantities[0]


def _fit_predict(
    teacher: Teacher,
    X: Any,
    y: Any,
    sample_weight: np.ndarray | None,
    fold: Fold | None,
    store: LabelStore | None,
    errors: Errors,
) -> tuple[np.ndarray, np.ndarray | None] | str:
    """Return what `_trained` does; or what it says when it fails, if that is allowed."""
    try:
        return _trained(teacher, X, y, sample_weight, fold, store)
    except TeacherError as error:
        if errors == "raise":
            raise
        return str(error)


def _trained(
    teacher: Teacher,
    X: Any,
    y: Any,
    sample_weight: np.ndarray | None,
    fold: Fold | None,
    store: LabelStore | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Train on one fold; return predictions of its test rows, and the classes that were seen.

    Without a fold the teacher predicts all rows as it is.
    """
    name = teacher.quantities[0].name
    if fold is None:
        return teacher.predict(X)[name], teacher.classes
    train, test = fold
    if sample_weight is not None:
        train = train[sample_weight[train] > 0]
    if not len(train):
        message = (
            f"Teacher {teacher.name!r} has no training row of positive weight in a fold. "
            "Give its rows weight, or split otherwise."
        )
        raise InvalidInputError(message)
    weight = sample_weight[train] if teacher.weighted and sample_weight is not None else None
    X_train, y_train, X_test = take(X, train), take(y, train), take(X, test)
    if store is None or not isinstance(teacher, EstimatorTeacher):
        trained = teacher.fit(X_train, y_train, weight)
        return trained.predict(X_test)[name], trained.classes
    key = fingerprint_trained(teacher.estimator, X_train, y_train, weight)
    classes = np.unique(np.asarray(y_train)) if name == PROBA.name else None
    inputs = fingerprint_inputs(X_test)
    try:
        values = store.read(teacher=key, inputs=inputs)[name]
    except (MismatchedLabelsError, CorruptFileError) as error:
        if isinstance(error, CorruptFileError):
            logger.warning("%s; the teacher is trained again", error)
        values = teacher.fit(X_train, y_train, weight).predict(X_test)[name]
        store.write(
            name=teacher.name,
            fingerprint=key,
            inputs=inputs,
            quantities=teacher.quantities,
            arrays={name: values},
        )
    return np.asarray(values), classes
