"""What all readers share: tables of numbers, and what is said when a file is cut short."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scikd._atomic import storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError

from .graphset import GraphSet

__all__ = [
    "BROKEN",
    "checked",
    "existing",
    "garbled",
    "read_csv",
    "read_table",
    "whole_numbers",
]

# What reading a file that is cut short or garbled raises, depending on where.
BROKEN = (ValueError, EOFError, zlib.error, zipfile.BadZipFile)
LARGEST_WHOLE = 2**53  # beyond it float64 skips some


def existing(path: str | Path) -> Path:
    """Return a path, or raise a `StorageError` where nothing is there."""
    path = Path(path)
    if not path.exists():
        raise storage_error(FileNotFoundError(2, "No such file or folder"), "read", path)
    return path


def garbled(path: Path, what: object) -> CorruptFileError:
    """Return the error that says what is wrong with a file."""
    return CorruptFileError(
        f"Could not read graphs from {path}: {what}. It seems to be cut short or garbled: copy it "
        "again."
    )


def checked(path: Path, make: Callable[..., GraphSet], *arrays: Any, **more: Any) -> GraphSet:
    """Make graphs of what was in a file, and blame the file where they cannot be."""
    try:
        return make(*arrays, **more)
    except InvalidInputError as error:
        raise garbled(path, error) from error


def whole_numbers(values: np.ndarray, path: Path, what: str) -> np.ndarray:
    """Return numbers as int64, or raise where one has a fraction."""
    wrong = values[(np.rint(values) != values) | (np.abs(values) > LARGEST_WHOLE)]
    if len(wrong):
        raise garbled(path, f"the {what} should be whole numbers; there is {wrong[0]}")
    return values.astype(np.int64)


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table by pandas, whose errors become ours."""
    try:
        return pd.read_csv(path, skipinitialspace=True, **options)
    except OSError as error:
        if error.errno:
            raise storage_error(error, "read", path) from error
        raise garbled(path, error) from error
    except BROKEN as error:
        raise garbled(path, error) from error


def read_table(path: Path, *, whole: bool = True) -> np.ndarray:
    """Return numbers of a file without names, shape (n_lines, n_columns), int64 or float64."""
    values = read_csv(path, header=None).to_numpy()
    if values.dtype.kind not in "if":
        raise garbled(path, "it should hold numbers only")
    return whole_numbers(values, path, "entries") if whole and values.dtype.kind == "f" else values
