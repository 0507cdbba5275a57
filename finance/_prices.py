"""Checks of prices, their adjustment, and an index from returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scikd.exceptions import DoubtfulInputWarning, InvalidInputError

__all__ = [
    "adjust",
    "check_returns",
    "check_values",
    "total_return_index",
    "warn_of_contradictions",
]

BASE = 100.0  # of an index made from returns
UNITS = {"percent": 0.01, "fraction": 1.0}
MOST_SHOWN = 3
ROUNDING = 1e-4  # of returns that are given in per cent with two decimals, and of prices
SUBTRACTED = (
    "Prices that change their sign were adjusted by subtraction and say nothing of returns: name "
    "the column of daily returns (returns=..., in a command --returns), or use prices that were "
    "adjusted by a factor."
)
ZERO = (
    "A price of 0 often stands for a missing one: pass missing_zero=True (in a command "
    "--missing-zero) to take it as such."
)

Place = Callable[[int, int], str]


def check_values(fields: Mapping[str, np.ndarray], place: Place) -> None:
    """Raise unless all prices are above 0 or NaN, and volumes at least 0; name all faults."""
    faults: list[str] = []
    advice: dict[str, None] = {}  # in the order of the faults, each once
    for field, values in fields.items():
        for what, wrong, hint in _faults_of(field, values):
            if wrong.any():
                faults.append(f"{field} {what} in {_places(wrong, place)}")
                advice[hint] = None
    if faults:
        message = f"Cannot use these prices: {'; '.join(faults)}. {' '.join(advice)}"
        raise InvalidInputError(message)


def warn_of_contradictions(fields: Mapping[str, np.ndarray], place: Place) -> None:
    """Warn of days whose prices cannot all be right; real files have such days."""
    low, high = (fields.get(name) for name in ("low", "high"))
    found = {}
    if low is not None and high is not None:
        found["high below low"] = high < low * (1 - ROUNDING)
    for name in fields.keys() & {"open", "close"}:
        if low is not None:
            found[f"{name} below low"] = fields[name] < low * (1 - ROUNDING)
        if high is not None:
            found[f"{name} above high"] = fields[name] > high * (1 + ROUNDING)
    faults = [
        f"{what} in {_places(found[what], place)}" for what in sorted(found) if found[what].any()
    ]
    if faults:
        message = (
            f"Prices contradict each other: {'; '.join(faults)}. They are kept as they are. Look "
            "at these days in another source, or put NaN there."
        )
        warnings.warn(message, DoubtfulInputWarning, stacklevel=4)


def _faults_of(field: str, values: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """Return what may be wrong, where it is, and what to do."""
    faults = [("is infinite", np.isinf(values), "Put NaN where a value is not known.")]
    negative = values < 0
    if field == "volume":
        return [*faults, ("is negative", negative, "Expected volumes of at least 0.")]
    both = negative.any(axis=0) & (values > 0).any(axis=0)
    turning = negative & both
    return [
        *faults,
        ("is negative", negative & ~both, "Expected prices above 0."),
        (f"changes its sign within {both.sum()} assets, being negative", turning, SUBTRACTED),
        ("is 0", values == 0, ZERO),
    ]


def _places(where: np.ndarray, place: Place) -> str:
    cells = np.argwhere(where)
    shown = [place(int(t), int(n)) for t, n in cells[:MOST_SHOWN]]
    more = "; ..." if len(cells) > MOST_SHOWN else ""
    return f"{len(cells)} cells ({'; '.join(shown)}{more})"


def adjust(
    values: dict[str, np.ndarray], adjusted: Any, place: Place, assets: Sequence[str]
) -> dict[str, np.ndarray]:
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
    lacking = np.isnan(by) & ~np.isnan(values["close"])
    if lacking.any():
        columns = np.flatnonzero(lacking.any(axis=0))
        names = ", ".join(repr(assets[n]) for n in columns[:MOST_SHOWN])
        more = ", ..." if len(columns) > MOST_SHOWN else ""
        message = (
            f"Expected an adjusted close beside each close; there is none in "
            f"{_places(lacking, place)}, of {len(columns)} assets ({names}{more}). They would lose "
            "their prices there, and count as not listed. Fill adj_close (with the close, where "
            "nothing is to be adjusted), drop the column, or pass adjusted=False to keep the "
            "prices as traded."
        )
        raise InvalidInputError(message)
    factor = by / values["close"]
    return {
        name: array if name == "volume" else by if name == "close" else array * factor
        for name, array in values.items()
    }


def check_returns(returns: np.ndarray, close: np.ndarray, unit: Any) -> None:
    """Raise where returns were computed from closes that were adjusted by subtraction.

    Some vendors do so, with the size of the close before as the base: near 0 these returns are of
    any size, and everywhere too large.
    """
    before = close[:-1]
    given = returns[1:] * UNITS.get(unit, np.nan)
    cells = (before < 0) & (given != 0) & np.isfinite(given) & np.isfinite(close[1:])
    if not cells.any():
        return
    computed = (close[1:][cells] - before[cells]) / -before[cells]
    same = np.abs(computed - given[cells]) < ROUNDING
    if same.mean() > 0.5:
        message = (
            f"These returns were computed from prices that were adjusted by subtraction: where the "
            f"close before is negative, {same.sum()} of {same.size} are the change of the close "
            "over its size. They are no returns that anybody could earn. Take another source, or "
            "only the dates from which on the adjusted prices are close to those traded."
        )
        raise InvalidInputError(message)


def total_return_index(
    returns: np.ndarray, present: np.ndarray, unit: Any, place: Place
) -> np.ndarray:
    """Return an index that starts at 100 where an asset has its first row."""
    if unit not in UNITS:
        message = (
            "Expected returns_unit='percent' (2.5 is a gain of 2.5 %) or 'fraction' (0.025 is), in "
            f"a command --returns-unit; got {unit!r}."
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
