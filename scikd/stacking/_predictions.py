"""The prediction matrix, in any of the forms in which people hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import issparse

from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import OutOfFold
from scikd.stacking.kernels import fill_rows

__all__ = ["Predictions", "numbers"]

_BLOCK = 1 << 18  # entries of a block: 2 MiB of float64 stay in the second-level cache


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of several models for the same rows.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_models) or (n_samples, n_models, n_classes)
        Predictions in the unit of the target, or probabilities; float32 or float64, NaN where a
        model has none. Not a copy of what was given, where that can be.
    names : tuple of str
        The models.
    classes : ndarray of shape (n_classes,) or None
        Labels of the last axis.
    """

    values: np.ndarray
    names: tuple[str, ...]
    classes: np.ndarray | None = None

    @classmethod
    def of(cls, P: Any, *, classes: Any = None, names: Any = None) -> Predictions:
        """Take predictions in any of the forms in which people hold them.

        Parameters
        ----------
        P : array-like, frame, mapping, OutOfFold or Predictions
            An array of shape (n_samples, n_models) or (n_samples, n_models, n_classes); a pandas
            or polars frame with a column per model; a mapping from the name of a model to its
            array of shape (n_samples,) or its array or frame of shape (n_samples, n_classes);
            or the out-of-fold predictions of `scikd.out_of_fold.cross_predict`.
        classes : array-like of shape (n_classes,) or None, default=None
            Labels of the last axis. A frame per model brings its own, as names of its columns;
            columns are then put in the order of `classes`.
        names : sequence of str or None, default=None
            Names of the models; None takes those that P has, or ``"model0"``, ``"model1"``...

        Raises
        ------
        InvalidInputError
            If P holds no numbers or an infinity, has another shape, or the names do not fit.
        """
        if isinstance(P, Predictions):
            return P
        found: Any = None
        if isinstance(P, OutOfFold):
            values, found = _from_out_of_fold(P), P.names
            classes = P.classes if classes is None else classes
        elif isinstance(P, Mapping) and not issparse(P):  # a sparse matrix may be a dict
            values, classes = _stacked(P, classes)
            found = list(P)
        elif hasattr(P, "columns"):
            values, found = numbers(P, "P"), list(P.columns)
        else:
            values = numbers(P, "P")
        if values.ndim not in {2, 3} or 0 in values.shape[1:]:
            message = (
                "Expected predictions of shape (n_samples, n_models), or (n_samples, n_models, "
                f"n_classes) for classes; got shape {values.shape}."
            )
            raise InvalidInputError(message)
        names = found if names is None else names
        names = [f"model{j}" for j in range(values.shape[1])] if names is None else names
        names = tuple(str(name) for name in names)
        if len(names) != values.shape[1] or len(set(names)) != len(names):
            message = f"Expected {values.shape[1]} different names of models; got {names}."
            raise InvalidInputError(message)
        found = cls(values, names, None if classes is None else np.asarray(classes))
        found.check()
        return found

    def check(self) -> None:
        """Raise InvalidInputError unless classes fit and no prediction is infinite."""
        n_classes = self.values.shape[2] if self.values.ndim == 3 else None
        if self.classes is not None and self.classes.shape != (n_classes,):
            message = (
                f"Expected one class per entry of the last axis of predictions of shape "
                f"{self.values.shape}; got classes {self.classes.tolist()}."
            )
            raise InvalidInputError(message)
        for rows, block in self.raw_blocks():
            if not np.isfinite(block.sum()) and np.isinf(block).any():
                row, model = np.argwhere(np.isinf(block))[0][:2]
                message = (
                    f"Expected finite predictions, or NaN where a model has none; "
                    f"{self.names[model]!r} predicts infinity in row {rows.start + row}."
                )
                raise InvalidInputError(message)

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return len(self.values)

    @property
    def n_models(self) -> int:
        """Number of models."""
        return self.values.shape[1]

    @property
    def present(self) -> np.ndarray:
        """True where a model has a prediction (of every class), shape (n_samples, n_models)."""
        there = ~np.isnan(self.values)
        return there if there.ndim == 2 else there.all(axis=2)

    @property
    def covered(self) -> np.ndarray:
        """True for rows that at least one model predicts, shape (n_samples,)."""
        found = np.empty(self.n_samples, dtype=bool)
        for rows, block in self.raw_blocks():
            gaps = np.isnan(block)
            found[rows] = ~(gaps if gaps.ndim == 2 else gaps.any(axis=2)).all(axis=1)
        return found

    def filled(self) -> np.ndarray:
        """Return the values, missing ones replaced by the mean of the models present in the row.

        Weights that add up to one thus stay an average. Rows without any model stay NaN. Nothing
        is copied where nothing is missing.
        """
        if not any(np.isnan(block).any() for _, block in self.raw_blocks()):
            return self.values
        values = self.values.copy()
        for rows, block in self.raw_blocks():
            values[rows] = _filled(block)
        return values

    def beyond(self, limits: tuple[float, float] | None) -> np.ndarray:
        """Return the share of every model's predictions that limits cut, shape (n_models,)."""
        low, high = (-np.inf, np.inf) if limits is None else limits
        cut, given = np.zeros(self.n_models), np.zeros(self.n_models)
        for _, block in self.raw_blocks():
            cut += ((block < low) | (block > high)).sum(axis=0)
            given += (~np.isnan(block)).sum(axis=0)
        share: np.ndarray = cut / np.maximum(given, 1.0)
        return share

    def clipped(self, limits: tuple[float, float] | None) -> Predictions:
        """Return predictions that are cut to limits; the same if none is beyond them."""
        if limits is None or not any(
            np.nanmin(block, initial=np.inf) < limits[0]
            or np.nanmax(block, initial=-np.inf) > limits[1]
            for _, block in self.raw_blocks()
        ):
            return self
        return replace(self, values=np.clip(self.values, *limits))

    def raw_blocks(self, width: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of rows with the predictions there, as they are.

        `width` is how many numbers the caller makes of a row, if that is more than there are.
        """
        step = max(64, _BLOCK // max(width, int(np.prod(self.values.shape[1:]))))
        for start in range(0, self.n_samples, step):
            rows = slice(start, min(start + step, self.n_samples))
            yield rows, self.values[rows]

    def blocks(self, width: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of rows with their filled predictions, contiguous float64."""
        for rows, block in self.raw_blocks(width):
            yield rows, _filled(block)

    def select(self, models: Sequence[int] | np.ndarray) -> Predictions:
        """Return the predictions of some models, by number, in this order."""
        names = tuple(self.names[j] for j in models)
        return replace(self, values=self.values[:, models], names=names)

    def take(self, rows: np.ndarray) -> Predictions:
        """Return the predictions of some rows."""
        return replace(self, values=self.values[rows])


def _filled(block: np.ndarray) -> np.ndarray:
    """Return a filled contiguous float64 copy of a block."""
    copy = np.array(block, dtype=np.float64, order="C")
    if np.isnan(copy.sum()):
        if copy.ndim == 3:
            copy[np.isnan(copy).any(axis=2)] = np.nan  # half a distribution is none
        fill_rows(copy)
    return copy


def numbers(values: Any, what: str) -> np.ndarray:
    """Return an array of float32 or float64, copied only where it is something else."""
    if issparse(values):
        message = (
            f"Expected {what} as a dense array or frame; got a sparse {type(values).__name__}."
        )
        raise InvalidInputError(message)
    try:
        if hasattr(values, "columns") and hasattr(values, "iloc"):
            kinds = {str(kind) for kind in values.dtypes}
            plain = kinds <= {"float32", "float64"}
            array = values.to_numpy() if plain else values.to_numpy(dtype=float, na_value=np.nan)
        else:
            array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
        if array.dtype.kind not in "biufO" or array.dtype.hasobject:
            array = array.astype(
                np.float64, casting="same_kind" if array.dtype.kind == "c" else "unsafe"
            )
    except (TypeError, ValueError) as error:
        message = f"Expected {what} to hold numbers; {error}."
        raise InvalidInputError(message) from error
    if array.dtype.kind == "f" and array.dtype.itemsize in {4, 8} and array.dtype.isnative:
        return array
    return array.astype(np.float64)


def _from_out_of_fold(oof: OutOfFold) -> np.ndarray:
    """Put models second; a single output is no axis of its own."""
    members = np.moveaxis(oof.members, 0, 1)
    if oof.classes is None and members.ndim == 3 and members.shape[2] == 1:
        return members[:, :, 0]
    return members


def _stacked(P: Mapping[Any, Any], classes: Any) -> tuple[np.ndarray, Any]:
    """Stack the predictions of every model along the second axis."""
    columns, problems = [], []
    classes = None if classes is None else list(classes)
    for name, given in P.items():
        table = given
        if hasattr(given, "columns") and len(given.columns) > 1:
            labels = list(given.columns)
            classes = labels if classes is None else classes
            if set(labels) == {str(label) for label in classes} - set(classes):
                labels = [next(c for c in classes if str(c) == label) for label in labels]
            if sorted(map(str, labels)) != sorted(map(str, classes)):
                problems.append(f"{name!r} has columns {labels}, the classes are {classes}")
                continue
            order = [labels.index(label) for label in classes]
            table = numbers(given, repr(name))[:, order]
        array = numbers(table, repr(name))
        columns.append(array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array)
    shapes = {array.shape for array in columns}
    if len(shapes) > 1 or not P:
        problems.append(f"shapes are {sorted(shapes)}")
    if problems:
        message = f"Expected predictions of one shape from every model; {'; '.join(problems)}."
        raise InvalidInputError(message)
    return np.stack(columns, axis=1), classes
