"""Features of nodes and arcs as vectors, the same wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scikd.exceptions import InvalidInputError

__all__ = ["FeatureColumns", "FeatureEncoder"]

_PADDING = np.iinfo(np.int64).max


@dataclass(frozen=True)
class FeatureColumns:
    """What is in the columns of features: categories, or numbers.

    Parameters
    ----------
    vocabulary : tuple of tuple of int, or None
        The values of each column, ascending; None where columns are numbers.
    n_columns : int
        How many columns there are.
    """

    vocabulary: tuple[tuple[int, ...], ...] | None
    n_columns: int

    def __post_init__(self) -> None:
        """Turn lists, as read from a file, into tuples."""
        if self.vocabulary is not None:
            columns = tuple(tuple(sorted(values)) for values in self.vocabulary)
            object.__setattr__(self, "vocabulary", columns)

    @classmethod
    def of(cls, features: np.ndarray | Tensor) -> FeatureColumns:
        """Describe features of shape (n, n_columns): whole numbers are categories."""
        values = np.asarray(features)
        if values.dtype.kind == "f":
            return cls(None, values.shape[1])
        return cls(tuple(tuple(np.unique(column).tolist()) for column in values.T), values.shape[1])


class FeatureEncoder(nn.Module):
    """Features of nodes or arcs as vectors.

    Each category of each column has a vector, and those of a row are added up; a value that is not
    in the vocabulary adds nothing. Numbers go through a linear layer. Without columns there is one
    vector for all.

    Parameters
    ----------
    columns : FeatureColumns
        What to encode.
    channels : int
        Size of a vector.
    """

    def __init__(self, columns: FeatureColumns, channels: int) -> None:
        super().__init__()
        self.columns = columns
        self.linear: nn.Linear | None = None
        if columns.vocabulary is None:
            self.linear = nn.Linear(columns.n_columns, channels)
            return
        sizes = [len(values) for values in columns.vocabulary]
        self.table = nn.EmbeddingBag(1 + max(sum(sizes), 1), channels, mode="sum", padding_idx=0)
        with torch.no_grad():  # a row has entries of variance 1, however many columns there are
            self.table.weight /= max(len(sizes), 1) ** 0.5
        known = torch.full((len(sizes), max(sizes, default=0)), _PADDING)
        for row, values in zip(known, columns.vocabulary, strict=True):
            row[: len(values)] = torch.tensor(values)
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("sizes", torch.tensor(sizes)[:, None], persistent=False)
        first = 1 + torch.tensor([0, *sizes]).cumsum(0)[:-1, None]
        self.register_buffer("first", first, persistent=False)

    known: Tensor
    sizes: Tensor
    first: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Encode features of shape (n, n_columns) as vectors of shape (n, channels)."""
        if features.dim() != 2 or features.shape[1] != self.columns.n_columns:
            message = (
                f"Expected features of shape (n, {self.columns.n_columns}), as in the data that "
                f"the model was made for; got {tuple(features.shape)}."
            )
            raise InvalidInputError(message)
        if self.linear is not None:
            encoded: Tensor = self.linear(features.to(self.linear.weight.dtype))
            return encoded
        vectors: Tensor = self.table(self._indices(features))
        return vectors

    def _indices(self, features: Tensor) -> Tensor:
        """Return the row of the table for each entry, shape (n, n_columns), 0 where unseen."""
        if not self.columns.n_columns:
            return torch.ones(len(features), 1, dtype=torch.int64, device=features.device)
        if features.is_floating_point():
            message = f"Expected whole numbers, as categories; got features of {features.dtype}."
            raise InvalidInputError(message)
        if not self.known.shape[1]:
            return torch.zeros_like(features, dtype=torch.int64)
        values = features.to(torch.int64).T.contiguous()
        place = torch.searchsorted(self.known, values).clamp(max=self.known.shape[1] - 1)
        seen = (self.known.gather(1, place) == values) & (place < self.sizes)
        return torch.where(seen, place + self.first, 0).T.contiguous()
