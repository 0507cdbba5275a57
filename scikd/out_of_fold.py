"""Out-of-fold predictions: every row labelled by teachers that were not trained on it.

Works with any splitter, partial ones (time series) included: rows that no test fold holds are
marked as not covered, and stay NaN. Rows that several test folds hold (repeated CV) get the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing

from scikd._progress import Progress
from scikd.exceptions import InvalidInputError, MismatchedLabelsError, TeacherError
from scikd.fingerprints import fingerprint_inputs, fingerprint_trained
from scikd.labels import LabelStore
from scikd.parallel import fan_out
from scikd.persistence import decode_labels, encode_labels, load_bundle, save_bundle
from scikd.quantities import PROBA, Quantity
from scikd.teachers import EstimatorTeacher, Teacher, count_samples

__all__ = ["Fold", "OutOfFold", "align_classes", "cross_predict", "make_folds", "take"]

Fold = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions of several teachers for one quantity.

    Attributes
    ----------
    names : tuple of str
        The teachers, in the order of the first axis of `members`.
    quantity : str
        Name of the quantity.
    members : ndarray of shape (n_teachers, n_samples, ...)
        Predictions; NaN in rows that are not covered.
    counts : ndarray of shape (n_samples,)
        How many test folds held the row; 0 marks a row that is not covered.
    classes : ndarray of shape (n_classes,) or None
        Labels of the last axis of `members` when the quantity is ``"proba"``.
    folds : tuple of (ndarray, ndarray)
        The (train, test) row numbers that were used.
    fitted : tuple of tuple of Teacher
        ``fitted[fold][teacher]``: the teachers trained on each fold, if they were kept.
    """

    names: tuple[str, ...]
    quantity: str
    members: np.ndarray
    counts: np.ndarray
    classes: np.ndarray | None = None
    folds: tuple[Fold, ...] = ()
    fitted: tuple[tuple[Teacher, ...], ...] = field(default=(), repr=False)

    @property
    def covered(self) -> np.ndarray:
        """True for rows that at least one test fold held, shape (n_samples,)."""
        return self.counts > 0

    def save(self, path: str | Path) -> Path:
        """Write the predictions and folds (not the fitted teachers) as a bundle.

        Raises
        ------
        StorageError
            If it cannot be written; nothing is left behind then.
        """
        arrays = {"members": self.members, "counts": self.counts}
        for index, (train, test) in enumerate(self.folds):
            arrays[f"fold/{index}/train"] = train
            arrays[f"fold/{index}/test"] = test
        parameters = {
            "names": list(self.names),
            "quantity": self.quantity,
            "n_folds": len(self.folds),
            "classes": None if self.classes is None else encode_labels(self.classes),
        }
        return save_bundle(path, kind="OutOfFold", parameters=parameters, arrays=arrays)

    @classmethod
    def load(cls, path: str | Path) -> OutOfFold:
        """Read what `save` wrote.

        Raises
        ------
        StorageError
            If the folder is missing, cut short, edited, foreign or from a newer scikd.
        """
        bundle = load_bundle(path, kind="OutOfFold")
        classes = bundle.parameters["classes"]
        return cls(
            names=tuple(bundle.parameters["names"]),
            quantity=bundle.parameters["quantity"],
            members=bundle.arrays["members"],
            counts=bundle.arrays["counts"],
            classes=None if classes is None else decode_labels(classes),
            folds=tuple(
                (bundle.arrays[f"fold/{index}/train"], bundle.arrays[f"fold/{index}/test"])
                for index in range(bundle.parameters["n_folds"])
            ),
        )


def take(X: Any, rows: np.ndarray) -> Any:
    """Return rows of an array, frame, sparse matrix or list."""
    return _safe_indexing(X, rows)


def make_folds(
    X: Any, y: Any, cv: Any, *, groups: Any = None, classifier: bool = False
) -> tuple[Fold, ...]:
    """Return the (train, test) row numbers of a splitter, checked.

    Parameters
    ----------
    X : array-like of n_samples
        The inputs.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The targets.
    cv : int, splitter or iterable of (train, test)
        As in scikit-learn; an int is stratified for classifiers.
    groups : array-like of shape (n_samples,) or None, default=None
        Groups, for splitters that keep them together.
    classifier : bool, default=False
        Whether y holds classes.

    Returns
    -------
    tuple of (ndarray, ndarray)
        Row numbers of every fold.

    Raises
    ------
    InvalidInputError
        If there is no fold, a fold is empty, a row number is out of range, or a row is in both
        parts of a fold (its prediction would not be out of fold).
    """
    n_samples = count_samples(X)
    splitter = check_cv(cv, y, classifier=classifier)
    folds = tuple(
        (_row_numbers(train, n_samples), _row_numbers(test, n_samples))
        for train, test in splitter.split(X, y, groups)
    )
    if not folds:
        message = f"Expected a splitter with at least one fold; {splitter!r} gave none."
        raise InvalidInputError(message)
    for index, (train, test) in enumerate(folds):
        if not len(train) or not len(test):
            message = (
                f"Fold {index} has {len(train)} training and {len(test)} test rows; "
                "both must hold at least one."
            )
            raise InvalidInputError(message)
        if (shared := np.intersect1d(train, test)).size:
            message = (
                f"Fold {index} has {shared.size} rows in both its training and its test part "
                f"(row {shared[0]} first): their predictions would not be out of fold."
            )
            raise InvalidInputError(message)
    return folds


def _row_numbers(rows: Any, n_samples: int) -> np.ndarray:
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)
    if rows.size and (rows.min() < 0 or rows.max() >= n_samples):
        message = (
            f"Expected row numbers from 0 to {n_samples - 1}; the splitter gave "
            f"{int(rows.min())} to {int(rows.max())}."
        )
        raise InvalidInputError(message)
    return rows


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


def cross_predict(
    teachers: Sequence[Teacher],
    X: Any,
    y: Any,
    folds: Iterable[Fold],
    *,
    sample_weight: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    keep_fitted: bool = False,
    store: LabelStore | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
) -> OutOfFold:
    """Train every teacher on every fold, and predict the rows that it has not seen.

    Parameters
    ----------
    teachers : sequence of Teacher
        Each must predict the same single quantity. Teachers that are not trainable predict once.
    X : array-like, frame or sequence of n_samples
        The inputs.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The targets.
    folds : iterable of (ndarray, ndarray)
        From `make_folds`.
    sample_weight : ndarray of shape (n_samples,) or None, default=None
        Weights. Rows of weight zero train nobody, but are predicted.
    classes : ndarray of shape (n_classes,) or None, default=None
        Sorted classes, for classifiers.
    keep_fitted : bool, default=False
        Whether the result keeps the teachers trained on each fold.
    store : LabelStore or None, default=None
        Where to keep the labels of every (teacher, fold), so that an interrupted run resumes.
        Not together with ``keep_fitted``.
    n_jobs : int or None, default=None
        As in joblib, over (teacher, fold).
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Returns
    -------
    OutOfFold
        The predictions, with uncovered rows marked.

    Raises
    ------
    TeacherError
        If a teacher fails; the message names it.
    InvalidInputError
        If the teachers predict different quantities.

    Notes
    -----
    .. warning:: A teacher that is not trainable (a frozen estimator, a callable, stored labels) is
       taken at its word: if it was trained on these very rows, its labels leak.
    """
    folds = tuple(folds)
    if store is not None and keep_fitted:
        message = "Labels from a store come without fitted teachers: drop keep_fitted or store."
        raise InvalidInputError(message)
    quantity = _common_quantity(teachers, classes)
    places = [
        (index, number)
        for index, teacher in enumerate(teachers)
        for number in (range(len(folds)) if teacher.trainable else [None])
    ]
    tasks = [
        (
            *(teachers[index], X, y, sample_weight),
            *(None if number is None else folds[number], keep_fitted, store),
        )
        for index, number in places
    ]
    results = fan_out(
        _fit_predict, tasks, n_jobs=n_jobs, description="out-of-fold", progress=progress
    )
    counts = np.bincount(np.concatenate([test for _, test in folds]), minlength=count_samples(X))
    members: Any = None  # its shape is known with the first result
    fitted: list[list[Teacher]] = [[*teachers] for _ in folds]
    for (index, number), (raw, trained) in zip(places, results, strict=True):
        known = trained.classes
        values = raw if classes is None else align_classes(raw, known, classes, trained.name)
        if members is None:
            members = np.zeros((len(teachers), len(counts), *values.shape[1:]))
        _same_shape(values, members, trained.name)
        if number is None:
            members[index] = values
            continue
        test = folds[number][1]
        members[index, test] += values / counts[test].reshape(-1, *([1] * (values.ndim - 1)))
        if isinstance(trained, Teacher):
            fitted[number][index] = trained
    members[:, counts == 0] = np.nan
    return OutOfFold(
        names=tuple(teacher.name for teacher in teachers),
        quantity=quantity.name,
        members=members,
        counts=counts,
        classes=classes,
        folds=folds,
        fitted=tuple(tuple(row) for row in fitted) if keep_fitted else (),
    )


def _same_shape(values: np.ndarray, members: np.ndarray, name: str) -> None:
    if values.shape[1:] != members.shape[2:]:
        message = (
            f"Teacher {name!r} predicts entries of shape {values.shape[1:]}, "
            f"the teachers before it {members.shape[2:]}. All must agree."
        )
        raise TeacherError(message)


def _common_quantity(teachers: Sequence[Teacher], classes: np.ndarray | None) -> Quantity:
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
    keep_fitted: bool,
    store: LabelStore | None,
) -> tuple[np.ndarray, Teacher | _Known]:
    """Train on one fold and predict its test rows; the trained teacher goes back light if it can.

    Without a fold the teacher predicts all rows as it is.
    """
    name = teacher.quantities[0].name
    if fold is None:
        return teacher.predict(X)[name], teacher
    train, test = fold
    if sample_weight is not None:
        train = train[sample_weight[train] > 0]
    weight = None if sample_weight is None else sample_weight[train]
    X_train, y_train, X_test = take(X, train), take(y, train), take(X, test)
    if store is None or not isinstance(teacher, EstimatorTeacher):
        trained = teacher.fit(X_train, y_train, weight)
        return trained.predict(X_test)[name], trained if keep_fitted else _Known(trained)
    key = fingerprint_trained(teacher.estimator, X_train, y_train, weight)
    classes = np.unique(np.asarray(y_train)) if name == PROBA.name else None
    inputs = fingerprint_inputs(X_test)
    try:
        values = store.read(teacher=key, inputs=inputs)[name]
    except MismatchedLabelsError:
        values = teacher.fit(X_train, y_train, weight).predict(X_test)[name]
        store.write(
            name=teacher.name,
            fingerprint=key,
            inputs=inputs,
            quantities=teacher.quantities,
            arrays={name: values},
        )
    return np.asarray(values), _Known(teacher, classes)


class _Known:
    """Name and classes of a trained teacher whose weights are not needed any more."""

    def __init__(self, teacher: Teacher, classes: np.ndarray | None = None) -> None:
        self.name = teacher.name
        self.classes = teacher.classes if classes is None else classes
