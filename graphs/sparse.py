"""Sparse matrices of counts, and their products with states: the one sum behind all layers.

A product is one ``embedding_bag``, which adds rows of a table without writing out what it adds, and
its gradient is the product with the transposed matrix: faster on a CPU than a gather followed by
a scatter, and the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import dag as kernels

__all__ = ["SparseMatrix"]

_SUM, _MAX = 0, 2  # modes of torch.embedding_bag


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A matrix that holds small whole numbers, or ones, in few places.

    Attributes
    ----------
    columns : torch.Tensor of shape (n_entries,), int64
        Column of each entry, row by row.
    n_columns : int
        How many columns there are.
    ptr : torch.Tensor of shape (n_rows + 1,), int64, or None
        The entries of row r are those from ``ptr[r]`` to ``ptr[r + 1]``; None where each row has
        one entry.
    counts : torch.Tensor of shape (n_entries,), int64, or None
        The entries; None where all are 1.
    """

    columns: Tensor
    n_columns: int
    ptr: Tensor | None = None
    counts: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.columns) if self.ptr is None else len(self.ptr) - 1

    @cached_property
    def rows(self) -> Tensor:
        """Row of each entry, shape (n_entries,), int64."""
        numbers = torch.arange(self.n_rows, device=self.columns.device)
        if self.ptr is None:
            return numbers
        return numbers.repeat_interleave(self.ptr.diff(), output_size=len(self.columns))

    @cached_property
    def sums(self) -> Tensor:
        """Sum of each row, shape (n_rows,), int64."""
        ones = torch.ones_like(self.columns) if self.counts is None else self.counts
        if self.ptr is None:
            return ones
        ends = torch.cat([ones.new_zeros(1), ones.cumsum(0)])[self.ptr]
        return ends.diff()

    @cached_property
    def transposed(self) -> SparseMatrix:
        """The transposed matrix; entries of a row ascend by column."""
        if self.columns.device.type == "cpu":
            arrays = kernels.sort_by_column(self.columns.numpy(), self.n_columns)
            ptr, order = (torch.from_numpy(array) for array in arrays)
        else:
            order = torch.argsort(self.columns, stable=True)
            many = torch.bincount(self.columns, minlength=self.n_columns)
            ptr = torch.cat([many.new_zeros(1), many.cumsum(0)])
        columns = order if self.ptr is None else self.rows[order]
        counts = None if self.counts is None else self.counts[order]
        matrix = SparseMatrix(columns, self.n_rows, ptr, counts)
        matrix.__dict__["transposed"] = self
        return matrix

    @cached_property
    def by_row(self) -> SparseMatrix:
        """The matrix of shape (n_entries, n_rows) that gives each entry what its row has.

        Its transpose adds up entries by row.
        """
        spread = SparseMatrix(self.rows, self.n_rows)
        if self.ptr is not None:
            numbers = torch.arange(len(self.columns), device=self.columns.device)
            back = SparseMatrix(numbers, len(self.columns), self.ptr)
            back.__dict__["transposed"] = spread
            spread.__dict__["transposed"] = back
        return spread

    @cached_property
    def by_column(self) -> SparseMatrix:
        """The matrix of shape (n_entries, n_columns) that gives each entry what its column has."""
        return SparseMatrix(self.columns, self.n_columns)

    def to(self, device: torch.device | str) -> SparseMatrix:
        """Return the matrix on a device."""
        ptr, counts = (None if t is None else t.to(device) for t in (self.ptr, self.counts))
        return SparseMatrix(self.columns.to(device), self.n_columns, ptr, counts)

    def __matmul__(self, values: Tensor) -> Tensor:
        """Return the product with values of shape (n_columns, ...), of any dtype of numbers."""
        return _product(values, self)

    def maximum(self, values: Tensor) -> Tensor:
        """Return the largest of the values that each row has an entry for, or 0 where it has none.

        Parameters
        ----------
        values : torch.Tensor of shape (n_columns, n_features)
            Where several are largest, they share the gradient by their counts.

        Returns
        -------
        torch.Tensor of shape (n_rows, n_features)
            The maxima.
        """
        return _maximum(values, self)

    @cached_property
    def _converted(self) -> dict[torch.dtype, Tensor]:
        return {}

    def counts_as(self, dtype: torch.dtype) -> Tensor | None:
        """Return the counts as numbers of a type; they are converted once."""
        if self.counts is None:
            return None
        if dtype not in self._converted:
            self._converted[dtype] = self.counts.to(dtype)
        return self._converted[dtype]


def _bags(matrix: SparseMatrix, values: Tensor, mode: int) -> Tensor:
    ptr = (
        torch.arange(matrix.n_rows + 1, device=values.device) if matrix.ptr is None else matrix.ptr
    )
    flat = values.reshape(len(values), values.shape[1:].numel()).contiguous()
    shape = (matrix.n_rows, *values.shape[1:])
    if not matrix.columns.numel() or not flat.shape[1]:
        return values.new_zeros(shape)
    weights = matrix.counts_as(values.dtype) if mode == _SUM else None
    found = torch.embedding_bag(
        flat, matrix.columns, ptr, False, mode, False, weights, include_last_offset=True
    )[0]
    return found.view(shape)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        if matrix.ptr is None:
            return values.index_select(0, matrix.columns)
        return _bags(matrix, values, _SUM)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _product(gradient, ctx.matrix.transposed), None


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: SparseMatrix) -> Tensor:
        largest = _bags(matrix, values, _MAX)
        ctx.matrix = matrix
        ctx.save_for_backward(values, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        values, largest = ctx.saved_tensors
        matrix = ctx.matrix
        by_row, by_column = matrix.by_row, matrix.by_column
        shares = (by_column @ values == by_row @ largest).to(values.dtype)
        if matrix.counts is not None:
            shares *= matrix.counts[:, None]
        parts = gradient / (by_row.transposed @ shares).clamp(min=1)
        return by_column.transposed @ (shares * (by_row @ parts)), None


_product: Callable[[Tensor, SparseMatrix], Tensor] = _Product.apply
_maximum: Callable[[Tensor, SparseMatrix], Tensor] = _Maximum.apply
