"""Checks of prices, their adjustment, and an index from returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["adjust", "check_values", "total_return_index"]

BASE = 100.0  # of an index made from returns
UNITS = {"percent": 0.01, "fraction": 1.0}
MOST_SHOWN = 3

Place = Callable[[int, int], str]


def check_values(fields: Mapping[str, np.ndarray], place: Place) -> None:
    """Raise unless all prices are above 0 or NaN, and volumes at least 0; name all faults."""
    faults = []
    for field, values in fields.items():
        faults += _faults_of(field, values, place)
    if faults:
        raise InvalidInputError(f"Cannot use these prices: {' '.join(faults)}")


def _faults_of(field: str, values: np.ndarray, place: Place) -> list[str]:
    faults = []
    infinite = np.isinf(values)
    if infinite.any():
        faults.append(
            f"{field} is infinite in {_places(infinite, place)}; put NaN where it is not known."
        )
    negative = values < 0
    if field == "volume":
        if negative.any():
            faults.append(f"volume is negative in {_places(negative, place)}; expected >= 0.")
        return faults
    if negative.any():
        faults.append(f"{field} is negative in {_places(negative, place)}.")
        both = int((negative.any(axis=0) & (values > 0).any(axis=0)).sum())
        if both:
            faults.append(
                f"In {both} assets {field} changes its sign: such prices were adjusted by "
                "subtraction, and say nothing of returns. Name the column of the daily returns "
                "(returns=...), or use prices adjusted by a factor."
            )
    zero = values == 0
    if zero.any():
        faults.append(
            f"{field} is 0 in {_places(zero, place)}: 0 often stands for a missing price. "
            "Pass missing_zero=True to take it as one."
        )
    return faults


def _places(where: np.ndarray, place: Place) -> str:
    cells = np.argwhere(where)
    shown = [place(int(t), int(n)) for t, n in cells[:MOST_SHOWN]]
    more = "; ..." if len(cells) > MOST_SHOWN else ""
    return f"{len(cells)} cells ({'; '.join(shown)}{more})"


def adjust(values: dict[str, np.ndarray], adjusted: Any) -> dict[str, np.ndarray]:
    """Scale prices by adj_close / close, as `Panel.from_long` describes."""
    if adjusted not in ("auto", True, False):
        message = f"Expected adjusted to be 'auto', True or False; got {adjusted!r}."
        raise InvalidInputError(message)
    values = dict(values)
    by = values.pop("adj_close", None)
    if by is None:
        if adjusted is True:
            raise InvalidInputError("adjusted=True needs an adjusted close; the table has none.")
        return values
    if "close" not in values:
        # The other prices cannot be brought to its scale.
        return {name: values[name] for name in values.keys() & {"volume"}} | {"close": by}
    if adjusted is False:
        return values
    factor = by / values["close"]
    return {
        name: array if name == "volume" else by if name == "close" else array * factor
        for name, array in values.items()
    }


def total_return_index(
    returns: np.ndarray, present: np.ndarray, unit: Any, place: Place
) -> np.ndarray:
    """Return an index that starts at 100 where an asset has its first row."""
    if unit not in UNITS:
        message = (
            "Expected returns_unit='percent' (2.5 is a gain of 2.5 %) or 'fraction' (0.025 is); "
            f"got {unit!r}."
        )
        raise InvalidInputError(message)
    growth = 1 + returns * UNITS[unit]
    first = present & (np.cumsum(present, axis=0) == 1)
    unknown = present & ~first & ~np.isfinite(growth)
    if unknown.any():
        message = (
            f"Expected a return in each row but the first of an asset; there is none in "
            f"{_places(unknown, place)}. Leave these rows out if the next return spans them."
        )
        raise InvalidInputError(message)
    lost = present & ~first & (growth <= 0)
    if lost.any():
        message = (
            f"A return is -100 % or less in {_places(lost, place)}. Is the unit right? "
            f"It is taken as {unit!r}."
        )
        raise InvalidInputError(message)
    steps = np.where(present & ~first, growth, 1.0)  # the first return is from a price not here
    return np.where(present, BASE * np.cumprod(steps, axis=0), np.nan)
