"""Pieces of large arrays as contiguous float64, so that no kernel needs a copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["CHUNK", "blocks", "chunks"]

CHUNK = 1 << 14  # entries converted at a time: 128 KiB of float64
_BLOCK = 1 << 18  # entries, over all teachers, copied at a time where a copy is needed


def _usable_as_is(array: np.ndarray) -> bool:
    """Say whether a kernel can read the array where it lies."""
    # A float64 of the other byte order is not equal to np.float64.
    return array.dtype == np.float64 and array.flags.c_contiguous and array.flags.aligned


def chunks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the entries in C order as contiguous float64 pieces, each with its first position."""
    if _usable_as_is(values):
        yield 0, values.reshape(-1)
        return
    # "contig" is missing from NumPy's annotations; without it a piece may keep its strides.
    pieces: Any = np.nditer(  # type: ignore[call-overload]
        values,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly", "contig", "aligned"]],
        op_dtypes=[np.dtype(np.float64)],
        order="C",
        casting="same_kind",
        buffersize=CHUNK,
    )
    start = 0
    for piece in pieces:
        yield start, piece
        start += piece.size


def blocks(members: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield row slices with the members there as contiguous float64 of shape (n_teachers, m)."""
    n_teachers, n = members.shape[:2]
    if _usable_as_is(members):
        yield slice(0, n), members.reshape(n_teachers, -1)
        return
    width = n_teachers * int(np.prod(members.shape[2:]))
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, n, step):
        block = np.ascontiguousarray(members[:, start : start + step], dtype=np.float64)
        yield slice(start, start + step), block.reshape(n_teachers, -1)
