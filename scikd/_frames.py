"""Bytes of arrays, and columns of frames, in a form that does not depend on the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["MISSING", "array_blocks", "frame_columns", "is_from", "sparse_parts", "torch_array"]

BLOCK = 2**18  # numbers hashed at a time, so that a memory-mapped array is never held as a whole


class _Missing:
    """Stands for None, NaN and pandas.NA in a column of objects; which one depends on versions."""


MISSING = _Missing()


def is_from(value: Any, module: str, *names: str) -> bool:
    """Tell whether the value is an instance of a class of a module, without importing it."""
    loaded = sys.modules.get(module)
    return loaded is not None and any(
        isinstance(value, kind) for kind in (getattr(loaded, n, None) for n in names) if kind
    )


def array_blocks(array: np.ndarray) -> Iterator[memoryview]:
    """Yield the numbers of an array in C order, little-endian, as blocks of bytes.

    All NaNs come out with the same bits; processors differ in the sign of the NaN of 0/0.
    """
    little = array.dtype.newbyteorder("<")
    if array.dtype.itemsize == 0 or array.size == 0:
        return
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        blocks: Any = (flat[i : i + BLOCK] for i in range(0, flat.size, BLOCK))
    else:
        flags = ["external_loop", "buffered", "zerosize_ok"]
        blocks = np.nditer(array, flags=flags, order="C", buffersize=BLOCK)  # type: ignore[call-overload]
    for block in blocks:
        same = np.ascontiguousarray(block, dtype=little)
        if little.kind in "fc":
            parts = same.view(same.real.dtype)
            missing = np.isnan(parts)
            if missing.any():
                same = np.where(missing, parts.dtype.type(np.nan), parts).astype(parts.dtype)
        yield same.view(np.uint8).data


def torch_array(tensor: Any) -> np.ndarray:
    """Return the numbers of a tensor as an array; as bytes where NumPy lacks the type."""
    import torch  # noqa: PLC0415 - a tensor is here, so it is loaded already

    dense = tensor.detach().cpu()
    dense = dense.to_dense() if dense.layout != torch.strided else dense
    dense = dense.resolve_conj().resolve_neg().contiguous()
    try:
        return np.asarray(dense.numpy())
    except TypeError:  # NumPy has no bfloat16, nor any of the 8-bit floats
        return np.asarray(dense.reshape(-1).view(torch.uint8).numpy())


def sparse_parts(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row ends, columns and numbers, without duplicates or stored zeros."""
    rows = matrix.tocsr(copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    rows.sort_indices()
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int64), rows.data


def frame_columns(frame: Any) -> Iterator[tuple[Any, str, Any]] | None:
    """Return (label, type, content) of every column of a frame or series; None if it is neither.

    The content is an array, a list (with `MISSING` in it), or a tuple of these. A pandas index
    counts as columns: a teacher might use it.
    """
    if is_from(frame, "polars", "DataFrame", "Series"):
        columns = frame.get_columns() if hasattr(frame, "get_columns") else [frame]
        return ((column.name, *_polars_column(column)) for column in columns)
    if is_from(frame, "pandas", "Index"):
        return _levels(frame)
    if is_from(frame, "pandas", "Series"):
        return _chain(_levels(frame.index), lambda: iter([(frame.name, *_pandas_column(frame))]))
    if is_from(frame, "pandas", "DataFrame"):
        return _chain(
            _levels(frame.index),
            lambda: (
                (label, *_pandas_column(frame.iloc[:, i])) for i, label in enumerate(frame.columns)
            ),
        )
    return None


def _chain(
    first: Iterator[tuple[Any, str, Any]], then: Callable[[], Iterator[tuple[Any, str, Any]]]
) -> Iterator[tuple[Any, str, Any]]:
    yield from first
    yield from then()


def _levels(index: Any) -> Iterator[tuple[Any, str, Any]]:
    for i, name in enumerate(index.names):
        kind, content = _pandas_column(index.get_level_values(i))
        yield name, f"index {kind}", content


def _objects(values: Any) -> list[Any]:
    import pandas as pd  # noqa: PLC0415 - a frame is here, so it is loaded already

    return [
        MISSING if v is None or v is pd.NA or (isinstance(v, float) and v != v) else v  # noqa: PLR0124
        for v in values
    ]


def _pandas_column(column: Any) -> tuple[str, Any]:
    import pandas as pd  # noqa: PLC0415

    dtype = column.dtype
    plain = isinstance(dtype, np.dtype)
    if (plain and dtype.kind == "O") or isinstance(dtype, pd.StringDtype):
        return "objects", _objects(column.astype(object))  # text is "str" or "object" by version
    if plain:
        return dtype.name, column.to_numpy()
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.asarray(getattr(column, "cat", column).codes, dtype=np.int64)
        return f"categorical {dtype.ordered}", (_pandas_column(dtype.categories), codes)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return str(dtype), np.asarray(column.array.tz_convert("UTC").tz_localize(None))
    if getattr(dtype, "kind", "O") in "biuf" and hasattr(dtype, "numpy_dtype"):
        numbers = column.array.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
        return str(dtype), (numbers, np.asarray(column.isna()))
    return str(dtype), _objects(column.astype(object))


def _polars_column(column: Any) -> tuple[str, Any]:
    import polars as pl  # noqa: PLC0415 - a frame is here, so it is loaded already

    dtype = column.dtype
    name = str(dtype)
    if dtype.is_temporal():
        return name, _polars_column(column.to_physical())
    if dtype in (pl.Categorical, pl.Enum):
        return name, [MISSING if v is None else v for v in column.cast(pl.String).to_list()]
    if dtype.is_float() or dtype == pl.Boolean or (dtype.is_integer() and dtype != pl.Int128):
        fill = False if dtype == pl.Boolean else 0
        return name, (column.fill_null(fill).to_numpy(), column.is_null().to_numpy())
    return name, [MISSING if v is None else v for v in column.to_list()]
