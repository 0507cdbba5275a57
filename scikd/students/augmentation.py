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
from scikd.out_of_fold import take

__all__ = ["Augmenter", "ColumnResample", "NeighbourSwap", "as_augmenter"]


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
        new = self._rows(columns, source, random_state)
        return _rebuild(X, source, new)

    @abstractmethod
    def _rows(
        self, columns: list[np.ndarray], source: np.ndarray, random_state: np.random.RandomState
    ) -> list[np.ndarray]:
        """Return new columns of ``len(source)`` cells, row i made from row ``source[i]``."""


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

    def _rows(
        self, columns: list[np.ndarray], source: np.ndarray, random_state: np.random.RandomState
    ) -> list[np.ndarray]:
        _share(self.fraction, "fraction")
        new = []
        for column in columns:
            cells = column[source]
            redrawn = random_state.random_sample(len(source)) < self.fraction
            cells[redrawn] = column[random_state.randint(len(column), size=int(redrawn.sum()))]
            if self.noise and column.dtype.kind == "f":
                spread = np.nanstd(column)
                cells[redrawn] += self.noise * spread * random_state.standard_normal(redrawn.sum())
            new.append(cells)
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

    def _rows(
        self, columns: list[np.ndarray], source: np.ndarray, random_state: np.random.RandomState
    ) -> list[np.ndarray]:
        _share(self.probability, "probability")
        if self.spread <= 0:
            message = f"Expected spread to be positive; got {self.spread}."
            raise InvalidInputError(message)
        space = np.column_stack([_coordinate(column) for column in columns])
        neighbours = NearestNeighbors(n_neighbors=1).fit(space).kneighbors(return_distance=False)
        other = neighbours[source, 0]
        new = []
        for column in columns:
            cells, theirs = column[source], column[other]
            swapped = random_state.random_sample(len(source)) < self.probability
            if column.dtype.kind == "f":
                width = np.abs(cells - theirs) / self.spread
                theirs = theirs + width * random_state.standard_normal(len(source))
            cells[swapped] = theirs[swapped]
            new.append(cells)
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
    if isinstance(X, np.ndarray):
        return [X[:, index].copy() for index in range(X.shape[1])]
    return [_cells(X[name]) for name in X.columns]


def _cells(column: Any) -> np.ndarray:
    cells = np.array(column.to_numpy())
    # A whole-number column stays whole: only floating-point columns are blurred.
    return cells if cells.dtype.kind in "biuf" else cells.astype(object)


def _coordinate(column: np.ndarray) -> np.ndarray:
    """Place a column on an axis: standardised numbers; codes for anything else.

    Unequal labels are one unit apart whatever their codes, which a single axis cannot say exactly;
    codes spread over one unit keep a label from outweighing a standardised number.
    """
    if column.dtype.kind in "biuf":
        numbers = column.astype(np.float64)
        centre, scale = np.nanmean(numbers), np.nanstd(numbers)
        return np.nan_to_num((numbers - centre) / (scale or 1.0))
    labels, codes = np.unique(column.astype(str), return_inverse=True)
    return codes / max(len(labels) - 1, 1)


def _rebuild(X: Any, source: np.ndarray, columns: list[np.ndarray]) -> Any:
    if isinstance(X, np.ndarray):
        return np.column_stack(columns).astype(X.dtype, copy=False)
    import narwhals as nw  # noqa: PLC0415 - scikit-learn brings it; only frames need it

    frame = nw.from_native(take(X, source), eager_only=True)
    space = nw.get_native_namespace(frame)
    series = [
        nw.new_series(name, cells.tolist(), frame.schema[name], backend=space)
        for name, cells in zip(frame.columns, columns, strict=True)
    ]
    if hasattr(X, "iloc"):  # pandas aligns by index, so new columns must carry the frame's
        native = frame.to_native().reset_index(drop=True)
        return native.assign(**{s.name: s.to_native().to_numpy() for s in series}).astype(X.dtypes)
    return frame.with_columns(*series).to_native()
