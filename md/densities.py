"""Densities of liquids that were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scikd.exceptions import InvalidInputError

from ._start import content_of
from ._tables import COLDEST, DENSITIES, check_length, number_in, read_rows

__all__ = ["DensityTarget", "read_targets"]

COLUMNS = ("liquid", "density_g_cm3", "temperature_k", "pressure_bar", "held_out")


@dataclass(frozen=True)
class DensityTarget:
    """A liquid whose density was measured.

    Parameters
    ----------
    liquid : str
        A mixture such as "EC:DMC 1:1", or the path of a box, as in `DynamicsOptions`.
    density_g_cm3 : float
        The density.
    temperature_k : float, default=298.15
        At this temperature.
    pressure_bar : float, default=1.0
        And this pressure.
    held_out : bool, default=False
        Whether the liquid is only looked at in the end.
    """

    liquid: str
    density_g_cm3: float
    temperature_k: float = 298.15
    pressure_bar: float = 1.0
    held_out: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no density, or one in another unit."""
        wrong = []
        low, high = DENSITIES
        if not low <= self.density_g_cm3 <= high:
            wrong.append(f"a density in g/cm³ from {low:g} to {high:g}, got {self.density_g_cm3:g}")
        if not COLDEST < self.temperature_k < math.inf:
            wrong.append(f"a temperature in K above {COLDEST:g}, got {self.temperature_k:g}")
        if not math.isfinite(self.pressure_bar):
            wrong.append(f"a finite pressure_bar, got {self.pressure_bar!r}")
        if wrong:
            raise InvalidInputError(f"Expected of {self.liquid!r} {'; '.join(wrong)}.")

    @property
    def name(self) -> str:
        """The liquid and its state."""
        return f"{self.liquid}, {self.temperature_k:g} K, {self.pressure_bar:g} bar"

    @property
    def key(self) -> tuple[object, ...]:
        """What targets of one liquid in one state share, in whatever order its parts are named."""
        try:
            content = content_of(self.liquid)
        except InvalidInputError:  # the name of a box that is given
            content = self.liquid
        return content, self.temperature_k, self.pressure_bar


def read_targets(path: str | Path) -> list[DensityTarget]:
    """Read liquids and their densities from a CSV file.

    Parameters
    ----------
    path : str or pathlib.Path
        With the columns ``liquid`` and ``density_g_cm3``, and, if others than 298.15, 1 and no are
        wanted, ``temperature_k``, ``pressure_bar`` and ``held_out`` (yes or no).

    Raises
    ------
    StorageError
        If it cannot be read.
    InvalidInputError
        If a column is missing or unknown, or an entry is not what it should be. The message lists
        all lines that are wrong.
    """
    path = Path(path)
    rows = read_rows(path)
    columns = [name.lower() for name in rows[0][1]]
    known = {"liquid", "density_g_cm3"} <= set(columns) <= set(COLUMNS)
    if not known or len(set(columns)) < len(columns):
        message = (
            f"Expected {path} to have the columns liquid and density_g_cm3, and none but "
            f"{', '.join(COLUMNS)}, each once; got {', '.join(columns)}."
        )
        raise InvalidInputError(message)
    targets, problems = [], []
    for line, cells in rows[1:]:
        try:
            targets.append(_target(cells, columns))
        except InvalidInputError as error:
            problems.append(f"Line {line}: {error}")
    if problems:
        raise InvalidInputError(f"Cannot use {path}: {' '.join(problems)}")
    return targets


def _target(cells: Sequence[str], columns: Sequence[str]) -> DensityTarget:
    check_length(cells, columns)
    given: dict[str, Any] = {n: c for n, c in zip(columns, cells, strict=True) if c}
    missing = [name for name in COLUMNS[:2] if name not in given]
    if missing:
        raise InvalidInputError(f"Expected a {' and a '.join(missing)}; got none.")
    for name in COLUMNS[1:4]:
        if name in given:
            given[name] = number_in(given[name], name)
    held_out = given.get("held_out", "no").lower()
    if held_out not in ("yes", "no"):
        raise InvalidInputError(f"Expected yes or no as held_out; got {held_out!r}.")
    given["held_out"] = held_out == "yes"
    return DensityTarget(**given)
