"""Densities of liquids that were measured."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scikd._atomic import storage_error
from scikd.exceptions import InvalidInputError

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
        """Refuse what is no density."""
        wrong = [
            f"{name} > 0, got {value!r}"
            for name in ("density_g_cm3", "temperature_k")
            if not 0 < (value := getattr(self, name)) < math.inf
        ]
        if not math.isfinite(self.pressure_bar):
            wrong.append(f"a finite pressure_bar, got {self.pressure_bar!r}")
        if wrong:
            raise InvalidInputError(f"Expected of {self.liquid!r} {'; '.join(wrong)}.")

    @property
    def name(self) -> str:
        """The liquid and its state."""
        return f"{self.liquid}, {self.temperature_k:g} K, {self.pressure_bar:g} bar"


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
        If a column is missing or unknown, or an entry is not what it should be.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, "read", path) from error
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = set(rows.fieldnames or ())
    if not {"liquid", "density_g_cm3"} <= columns <= set(COLUMNS):
        message = (
            f"Expected {path} to have the columns liquid and density_g_cm3, and none but "
            f"{', '.join(COLUMNS)}; got {sorted(columns)}."
        )
        raise InvalidInputError(message)
    targets = []
    for number, row in enumerate(rows, start=2):
        given: dict[str, Any] = {name: value for name, value in row.items() if value}
        try:
            for name in COLUMNS[1:4]:
                if name in given:
                    given[name] = float(given[name])
            given["held_out"] = {"yes": True, "no": False}[given.get("held_out", "no").lower()]
            targets.append(DensityTarget(**given))
        except (KeyError, TypeError, ValueError) as error:
            message = (
                f"Expected numbers, and yes or no in held_out, in line {number} of {path}; got "
                f"{row}: {error}."
            )
            raise InvalidInputError(message) from error
    return targets
