"""Tables that users give, as CSV files: read as a whole, or refused with what is wrong."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from scikd._atomic import storage_error
from scikd.exceptions import InvalidInputError

__all__ = ["COLDEST", "DENSITIES", "check_length", "number_in", "read_rows"]

COLDEST = 60.0  # K; what is colder is most likely in °C
DENSITIES = (0.05, 25.0)  # g/cm³, of liquids; what lies beyond is most likely in another unit


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines that are not empty, with their numbers: that of the names, and one at least.

    Raises
    ------
    StorageError
        If the file cannot be read.
    InvalidInputError
        If it is no CSV file in UTF-8, is cut short within quotes, or has no such lines.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except UnicodeDecodeError as error:
        message = f"Expected a CSV file in UTF-8; {path} is none: {error}."
        raise InvalidInputError(message) from error
    try:
        lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if any(row)]
    except csv.Error as error:
        message = f"{path} is no CSV file, or is cut short: {error}."
        raise InvalidInputError(message) from error
    if len(rows) < 2:
        message = f"Expected {path} to hold a line of names and a liquid at least; got {text!r}."
        raise InvalidInputError(message)
    return rows


def check_length(cells: Sequence[str], columns: Sequence[object]) -> None:
    """Refuse a line with more or fewer cells than there are names."""
    if len(cells) != len(columns):
        message = f"Expected {len(columns)} cells, as there are names; got {len(cells)}. Cut short?"
        raise InvalidInputError(message)


def number_in(cell: str, name: str) -> float:
    """Return the finite number in a cell of the column of that name."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"Expected a number as {name}; got {cell!r}."
        raise InvalidInputError(message)
    return value
