"""Dates as days: the clock and the time zone are dropped, as panels do."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_day", "as_days"]


def as_day(date: Any) -> np.datetime64:
    """Return a date as datetime64[D]: the day that it is where it was written down.

    Raises
    ------
    TypeError, ValueError
        If it is no date.
    """
    # NumPy would go over to UTC, where it may be the day before.
    if getattr(date, "tzinfo", None) is not None:
        date = date.replace(tzinfo=None)
    return np.datetime64(date, "D")


def as_days(dates: Any, where: str) -> np.ndarray:
    """Return dates of any usual kind as datetime64[D]; numbers stay what they are.

    Raises
    ------
    InvalidInputError
        If text or objects are no dates, or one is missing among them.
    """
    array = np.asarray(dates)
    if array.dtype.kind == "M":
        return array.astype("datetime64[D]")
    if array.dtype.kind not in "OUS" or array.ndim != 1:
        return array
    from ._tables import day_numbers  # noqa: PLC0415 - arrays of dates need no pandas

    return day_numbers(dates, where)
