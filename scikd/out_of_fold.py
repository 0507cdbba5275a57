"""Out-of-fold predictions: every row labelled by teachers that were not trained on it.

Works with any splitter, partial ones (time series) included: rows that no test fold holds are
marked as not covered, and stay NaN. Rows that several test folds hold (repeated CV) get the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from scikd._progress import Progress
from scikd._training import Errors, Fold, align_classes, common_quantity, fold_results, take
from scikd.exceptions import InvalidInputError, TeacherError
from scikd.labels import LabelStore
from scikd.persistence import decode_labels, encode_labels, load_bundle, save_bundle
from scikd.teachers import Teacher, count_samples

__all__ = [
    "Fold",
    "OutOfFold",
    "align_classes",
    "cross_predict",
    "make_folds",
    "take",
]


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
    """

    names: tuple[str, ...]
    quantity: str
    members: np.ndarray
    counts: np.ndarray
    classes: np.ndarray | None = None
    folds: tuple[Fold, ...] = ()

    @property
    def covered(self) -> np.ndarray:
        """True for rows that at least one test fold held, shape (n_samples,)."""
        return self.counts > 0

    def first_rows(self, n_samples: int, folds: tuple[Fold, ...]) -> OutOfFold:
        """Return the predictions of the first rows only, said to come from other folds."""
        members, counts = self.members[:, :n_samples], self.counts[:n_samples]
        return replace(self, members=members, counts=counts, folds=folds)

    def save(self, path: str | Path) -> Path:
        """Write the predictions and folds as a bundle.

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


def cross_predict(
    teachers: Sequence[Teacher],
    X: Any,
    y: Any,
    folds: Iterable[Fold],
    *,
    sample_weight: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    store: LabelStore | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
    errors: Errors = "raise",
) -> OutOfFold:
    """Train every teacher on every fold, and predict the rows that it has not seen.

    Parameters
    ----------
    teachers : sequence of Teacher
        Each must predict the same single quantity. Teachers that are not trainable predict once.
    X : array-like, frame or sequence of n_samples
        The inputs. Rows beyond those of y have no truth; folds may only test them.
    y : array-like of shape (n_labelled,) or (n_labelled, n_outputs)
        The targets of the first rows.
    folds : iterable of (ndarray, ndarray)
        From `make_folds`.
    sample_weight : ndarray of shape (n_labelled,) or None, default=None
        Weights. Rows of weight zero train nobody, but are predicted.
    classes : ndarray of shape (n_classes,) or None, default=None
        Sorted classes, for classifiers.
    store : LabelStore or None, default=None
        Where to keep the labels of every (teacher, fold), so that an interrupted run resumes.
    n_jobs : int or None, default=None
        As in joblib, over (teacher, fold).
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.
    errors : {"raise", "missing"}, default="raise"
        What to do where a teacher fails in a fold: stop, or warn and leave its predictions NaN.

    Returns
    -------
    OutOfFold
        The predictions, with uncovered rows marked.

    Warns
    -----
    MissingPredictionsWarning
        For every failure, with ``errors="missing"``.

    Raises
    ------
    TeacherError
        If a teacher fails, or all fail everywhere; the message names it.
    InvalidInputError
        If the teachers predict different quantities.

    Notes
    -----
    .. warning:: A teacher that is not trainable (a frozen estimator, a callable, stored labels) is
       taken at its word: if it was trained on these very rows, its labels leak.
    """
    folds = tuple(folds)
    quantity = common_quantity(teachers, classes)
    counts = np.bincount(np.concatenate([test for _, test in folds]), minlength=count_samples(X))
    members: Any = None  # its shape is known with the first result
    failed: list[tuple[int, int | None]] = []
    for index, number, values in fold_results(
        teachers, X, y, folds, sample_weight, classes, store, n_jobs, progress, errors
    ):
        if values is None:
            failed.append((index, number))
            continue
        if members is None:
            members = np.zeros((len(teachers), len(counts), *values.shape[1:]))
        _same_shape(values, members, teachers[index].name)
        if number is None:
            members[index] = values
            continue
        test = folds[number][1]
        members[index, test] += values / counts[test].reshape(-1, *([1] * (values.ndim - 1)))
    if members is None:
        message = f"All of {len(teachers)} teachers failed in every fold; see the warnings."
        raise TeacherError(message)
    members[:, counts == 0] = np.nan
    _without(members, failed, folds, counts)
    return OutOfFold(
        names=tuple(teacher.name for teacher in teachers),
        quantity=quantity.name,
        members=members,
        counts=counts,
        classes=classes,
        folds=folds,
    )


def _without(
    members: np.ndarray, failed: list[tuple[int, int | None]], folds: tuple[Fold, ...], counts: Any
) -> None:
    """Make means over all folds that test a row means over those in which a teacher succeeded."""
    for index in {index for index, _ in failed}:
        heard = counts.copy()
        for number in (number for one, number in failed if one == index):
            if number is None:
                heard[:] = 0
            else:
                heard[folds[number][1]] -= 1
        heard = heard.reshape(-1, *([1] * (members.ndim - 2)))
        share = counts.reshape(heard.shape) / np.where(heard > 0, heard, 1)
        members[index] = np.where(heard > 0, members[index] * share, np.nan)


def _same_shape(values: np.ndarray, members: np.ndarray, name: str) -> None:
    if values.shape[1:] != members.shape[2:]:
        message = (
            f"Teacher {name!r} predicts entries of shape {values.shape[1:]}, "
            f"the teachers before it {members.shape[2:]}. All must agree."
        )
        raise TeacherError(message)
