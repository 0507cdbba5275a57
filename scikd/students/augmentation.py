"""Rows that nobody labelled, made from rows at hand, for the teacher to label.

`NeighbourSwap` follows MUNGE (Bucila, Caruana and Niculescu-Mizil 2006, Algorithm 1);
`ColumnResample` redraws single cells from their column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from sklearn.neighbors import NearestNeighbors

from scikd.exceptions import InvalidInputError

__all__ = ["Augmenter", "ColumnResample", "NeighbourSwap", "as_augmenter"]

# Which rows a column's cells are taken from, and what is added to them.
Cells = tuple[np.ndarray, np.ndarray | None]


class Augmenter(ABC):
    """Makes new rows from a table, column by column, so that every cell is of its column's kind."""

    @final
    def rows(self, X: Any, n_rows: int, random_state: np.random.RandomState) -> Any:
        """Make new rows.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), or pandas or polars frame
            The rows at hand; numbers, or any type in a frame.
        n_rows : int
            How many rows to make.
        random_state : RandomState
            Source of randomness.

        Returns
        -------
        ndarray of shape (n_rows, n_features) or frame
            New rows, of the container, the dtypes and the column names of ``X``.

        Raises
        ------
        InvalidInputError
            If ``X`` is sparse, or has fewer than two rows.
        """
        if hasattr(X, "tocsr"):
            message = "Expected a dense table or a frame to augment; got a sparse matrix."
            raise InvalidInputError(message)
        if len(X) < 2:
            message = f"Expected at least 2 samples to augment; got {len(X)}."
            raise InvalidInputError(message)
        columns = _columns(X)
        source = random_state.randint(len(X), size=n_rows)
        cells = self._cells(columns, source, random_state)
        return _gathered(X, cells)

    @abstractmethod
    def _cells(
        self, columns: list[np.ndarray], source: np.ndarray, random_state: np.random.RandomState
    ) -> list[Cells]:
        """Return what every new column is made of, row i from row ``source[i]``.

        Floating-point columns come as they are; any other as its codes, which say which cells are
        equal.
        """


@dataclass(frozen=True)
class ColumnResample(Augmenter):
    """Redraw some cells of a row from the same column of other rows.

    Parameters
    ----------
    fraction : float, default=0.1
        Share of the cells that are redrawn, in (0, 1].
    noise : float, default=0.0
        Standard deviation of the noise added to redrawn floating-point cells, in units of the
        column's own standard deviation.
    """

    fraction: float = 0.1
    noise: float = 0.0

    def _cells(
        self, columns: list[np.ndarray], source: np.ndarray, random_state: np.random.RandomState
    ) -> list[Cells]:
        _share(self.fraction, "fraction")
        new: list[Cells] = []
        for column in columns:
            redrawn = random_state.random_sample(len(source)) < self.fraction
            rows = np.where(redrawn, random_state.randint(len(column), size=len(source)), source)
            shift = None
            if self.noise and column.dtype.kind == "f":
                width = self.noise * np.nanstd(column)
                shift = redrawn * width * random_state.standard_normal(len(source))
            new.append((rows, shift))
        return new


@dataclass(frozen=True)
class NeighbourSwap(Augmenter):
    """Swap cells of a row with those of its nearest neighbour; blur continuous ones.

    Parameters
    ----------
    probability : float, default=0.5
        Chance that a cell is swapped, in (0, 1].
    spread : float, default=1.0
        A swapped continuous cell is drawn from a normal law about the neighbour's value with
        standard deviation ``|own - neighbour's| / spread``, in the unit of the column.
    """

    probability: float = 0.5
    spread: float = 1.0

    def _cells(
        self, columns: list[np.ndarray], source: np.ndarray, random_state: np.random.RandomState
    ) -> list[Cells]:
        _share(self.probability, "probability")
        if self.spread <= 0:
            message = f"Expected spread to be positive; got {self.spread}."
            raise InvalidInputError(message)
        space = np.column_stack([_coordinate(column) for column in columns])
        neighbours = NearestNeighbors(n_neighbors=1).fit(space).kneighbors(return_distance=False)
        other = neighbours[source, 0]
        new: list[Cells] = []
        for column in columns:
            swapped = random_state.random_sample(len(source)) < self.probability
            shift = None
            if column.dtype.kind == "f":
                width = np.abs(column[source] - column[other]) / self.spread
                shift = swapped * width * random_state.standard_normal(len(source))
            new.append((np.where(swapped, other, source), shift))
        return new


def as_augmenter(augment: Any) -> Augmenter | None:
    """Return the augmenter that ``"neighbour"``, ``"column"``, None or an instance stands for."""
    if augment is None or isinstance(augment, Augmenter):
        return augment
    known = {"neighbour": NeighbourSwap, "column": ColumnResample}
    if augment in known:
        return known[augment]()
    message = (
        f"Expected augment to be None, an Augmenter or one of {sorted(known)}; got {augment!r}."
    )
    raise InvalidInputError(message)


def _share(value: float, name: str) -> None:
    if not 0.0 < value <= 1.0:
        message = f"Expected {name} in (0, 1]; got {value}."
        raise InvalidInputError(message)


def _columns(X: Any) -> list[np.ndarray]:
    """Return the columns: numbers with a fraction as they are, anything else as codes."""
    if isinstance(X, np.ndarray):
        return [_numbers_or_codes(X[:, index]) for index in range(X.shape[1])]
    if hasattr(X, "iloc"):
        native = [X.iloc[:, index] for index in range(X.shape[1])]
        is_float = [str(column.dtype).lower().startswith("float") for column in native]
        return [
            column.to_numpy(dtype=float, na_value=np.nan) if fractional else _codes(column.tolist())
            for column, fractional in zip(native, is_float, strict=True)
        ]
    if type(X).__module__.startswith("polars"):
        return [
            column.to_numpy().astype(float) if column.dtype.is_float() else _codes(column.to_list())
            for column in X.get_columns()
        ]
    message = f"Expected an array, or a pandas or polars frame, to augment; got {type(X).__name__}."
    raise InvalidInputError(message)


def _numbers_or_codes(column: np.ndarray) -> np.ndarray:
    return column if column.dtype.kind == "f" else _codes(column.tolist())


def _codes(cells: list[Any]) -> np.ndarray:
    """Give equal cells one number; numbers keep their order, so that near ones are near."""
    numbers = all(isinstance(cell, (int, float, np.number)) for cell in cells)
    keys = np.array(cells, dtype=float) if numbers else np.array([str(cell) for cell in cells])
    return np.unique(keys, return_inverse=True)[1].astype(np.intp)


def _coordinate(column: np.ndarray) -> np.ndarray:
    """Place a column on an axis of unit spread; missing numbers lie at the mean.

    Unequal labels get unequal codes, spread over one unit: an axis cannot say that all are equally
    far from each other, and no label shall outweigh a standardised number.
    """
    if column.dtype.kind == "f":
        known = column[~np.isnan(column)]
        centre, scale = (known.mean(), known.std()) if known.size else (0.0, 1.0)
        return np.nan_to_num((column - centre) / (scale or 1.0))
    return column / max(int(column.max()), 1)


def _gathered(X: Any, cells: list[Cells]) -> Any:
    """Gather every column's cells natively, so that each keeps its type, and shift the numbers."""
    if isinstance(X, np.ndarray):
        new = np.empty((len(cells[0][0]), X.shape[1]), dtype=X.dtype)
        for index, (rows, shift) in enumerate(cells):
            new[:, index] = X[rows, index] if shift is None else X[rows, index] + shift
        return new
    if hasattr(X, "iloc"):
        import pandas as pd  # noqa: PLC0415 - only its frames need it

        columns = []
        for index, (rows, shift) in enumerate(cells):
            column = X.iloc[:, index].take(rows).reset_index(drop=True)
            columns.append(column if shift is None else (column + shift).astype(column.dtype))
        frame = pd.concat(columns, axis="columns")
        frame.columns = X.columns
        return frame
    series = []
    for column, (rows, shift) in zip(X.get_columns(), cells, strict=True):
        taken = column.gather(rows)
        series.append(taken if shift is None else (taken + shift).cast(column.dtype))
    return type(X)(series)
