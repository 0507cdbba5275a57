"""Liquids whose properties were measured: a table with units in the names of its columns."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scikd.exceptions import InvalidInputError

from ._start import content_of, mixture_of
from ._tables import COLDEST, DENSITIES, check_length, number_in, read_rows
from .estimates import Estimate
from .molecules import Mixture

__all__ = ["MeasuredLiquid", "read_measurements", "strangers"]

STATE = ("liquid", "temperature_k", "pressure_bar", "source")
# Of each property the unit it is told in, the units of columns with their factors, and how small
# and large it may be in a liquid: what lies beyond is most likely in another unit.
UNITS: Mapping[str, tuple[str, Mapping[str, float], float, float]] = {
    "density": ("g/cm³", {"g_cm3": 1.0, "kg_m3": 1e-3}, *DENSITIES),
    "viscosity": ("cP", {"cp": 1.0, "mpa_s": 1.0, "pa_s": 1e3}, 1e-2, 1e6),
    "conductivity": ("mS/cm", {"ms_cm": 1.0, "s_m": 10.0}, 1e-6, 2e3),
    "diffusion": ("cm²/s", {"cm2_s": 1.0, "m2_s": 1e4}, 1e-9, 1e-2),
}
HOTTEST = 3000.0  # K
COLUMN = re.compile(
    r"(?P<kind>density|viscosity|conductivity|diffusion)(?:_(?P<rest>.*?))?(?P<error>_error)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class MeasuredLiquid:
    """A liquid in a state, and what is known of it.

    Parameters
    ----------
    liquid : str
        A mixture such as "EC:DMC 1:1", or the path of a box, as in `DynamicsOptions`.
    temperature_k : float, default=298.15
        Its temperature.
    pressure_bar : float, default=1.0
        Its pressure.
    measured : dict of str to Estimate
        By name: "density" (g/cm³), "viscosity" (cP), "conductivity" (mS/cm), "diffusion of EC"
        (cm²/s). An error of NaN is one that is not known.
    source : str, default=""
        Where that is from.
    """

    liquid: str
    temperature_k: float = 298.15
    pressure_bar: float = 1.0
    measured: Mapping[str, Estimate] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no liquid, all at once."""
        wrong = []
        if not COLDEST < self.temperature_k < HOTTEST:
            wrong.append(
                f"a temperature in K from {COLDEST:g} to {HOTTEST:g}, got {self.temperature_k:g}"
            )
        if not math.isfinite(self.pressure_bar):
            wrong.append(f"a finite pressure in bar, got {self.pressure_bar}")
        wrong += [text for name, known in self.measured.items() if (text := _misfit(name, known))]
        if self.mixture is not None:
            wrong += strangers(self.measured, self.mixture)
        if wrong:
            raise InvalidInputError(f"Expected of {self.liquid!r} {'; '.join(wrong)}.")

    @property
    def name(self) -> str:
        """The liquid and its state."""
        return f"{self.liquid}, {self.temperature_k:g} K, {self.pressure_bar:g} bar"

    @property
    def mixture(self) -> Mixture | None:
        """What the liquid is made of; None where a file says it."""
        return mixture_of(self.liquid)

    @property
    def key(self) -> tuple[object, ...]:
        """What liquids that are the same share, in whatever order their parts are named."""
        return content_of(self.liquid), self.temperature_k, self.pressure_bar


def _misfit(name: str, known: Estimate) -> str:
    """Say what is wrong with a number, if anything is."""
    kind = name.partition(" of ")[0]
    if kind not in UNITS:
        return f"one of {', '.join(UNITS)} as measured, got {name!r}"
    unit, _, low, high = UNITS[kind]
    if known.unit != unit:
        return f"its {name} in {unit}, got {known}"
    if not low <= known.value <= high:
        return (
            f"its {name} from {low:g} to {high:g} {unit}, got {known.value:g} {unit}: look at the "
            "unit in the name of the column"
        )
    if known.error < 0 or math.isinf(known.error):
        return f"an error of its {name} that is not negative, got {known.error:g} {unit}"
    return ""


def strangers(measured: Iterable[str], present: Collection[str]) -> list[str]:
    """Say of which species diffusion was measured that the liquid does not have."""
    species = [name.partition(" of ")[2] for name in measured if " of " in name]
    return [
        f"the diffusion of {', '.join(present)}, got that of {name}"
        for name in species
        if name not in present
    ]


def read_measurements(path: str | Path) -> list[MeasuredLiquid]:
    """Read liquids, and what was measured of them, from a CSV file.

    Parameters
    ----------
    path : str or pathlib.Path
        With the column ``liquid`` and, as far as they are wanted, ``temperature_k`` (298.15 if it
        is not there), ``pressure_bar`` (1), ``source``, and of what was measured
        ``density_g_cm3`` or ``density_kg_m3``; ``viscosity_cp``, ``viscosity_mpa_s`` or
        ``viscosity_pa_s``; ``conductivity_ms_cm`` or ``conductivity_s_m``; ``diffusion_EC_cm2_s``
        or ``diffusion_EC_m2_s``, for any species in place of EC. ``_error`` after such a name is a
        column of standard errors. A cell that is empty was not measured.

    Returns
    -------
    list of MeasuredLiquid
        Row by row.

    Raises
    ------
    StorageError
        If it cannot be read.
    InvalidInputError
        If a column is unknown or has no unit, a row is cut short or comes twice, a molecule is
        unknown, or a number is none. The message lists all rows that are wrong.
    """
    path = Path(path)
    rows = read_rows(path)
    columns = _columns(rows[0][1], path)
    problems: list[str] = []
    liquids = list(_liquids(rows[1:], columns, problems))
    if problems:
        raise InvalidInputError(f"Cannot use {path}: {' '.join(problems)}")
    return liquids


@dataclass(frozen=True)
class _Column:
    """What a column holds: a part of the state, or a property or its error, in some unit."""

    name: str
    factor: float = 1.0
    error: bool = False


def _columns(names: Sequence[str], path: Path) -> list[_Column]:
    columns, problems = [], []
    for name in names:
        if name.lower() in STATE:
            columns.append(_Column(name.lower()))
            continue
        try:
            columns.append(_property_column(name))
        except InvalidInputError as error:
            problems.append(str(error))
    seen = [(column.name, column.error) for column in columns]
    twice = sorted({name for name, error in seen if seen.count((name, error)) > 1})
    if twice:
        problems.append(f"Expected one column of each; got several of {', '.join(twice)}.")
    if not problems:
        missing = [name for name, error in seen if error and (name, False) not in seen]
        problems += [f"Got errors of the {name}, and not the {name} itself." for name in missing]
        if ("liquid", False) not in seen:
            problems.append(f"Expected a column liquid; got {', '.join(names)}.")
    if problems:
        raise InvalidInputError(f"Cannot use {path}: {' '.join(problems)}")
    return columns


def _property_column(name: str) -> _Column:
    match = COLUMN.fullmatch(name)
    if match is None:
        message = (
            f"The column {name!r} is not known; known are {', '.join(STATE)}, and "
            f"{', '.join(UNITS)} with a unit, such as density_g_cm3."
        )
        raise InvalidInputError(message)
    kind, rest = match["kind"].lower(), match["rest"] or ""
    units = UNITS[kind][1]
    unit = next((u for u in units if f"_{rest.lower()}".endswith(f"_{u}")), None)
    species = "" if unit is None else rest[: -len(unit)].rstrip("_")
    if unit is None or bool(species) != (kind == "diffusion"):
        middle = "_EC" if kind == "diffusion" else ""
        known = " or ".join(f"{kind}{middle}_{u}" for u in units)
        message = f"The column {name!r} does not tell a unit that is known; expected {known}."
        raise InvalidInputError(message)
    found = f"diffusion of {species}" if species else kind
    return _Column(found, units[unit], match["error"] is not None)


def _liquids(
    rows: Sequence[tuple[int, list[str]]], columns: Sequence[_Column], problems: list[str]
) -> Iterator[MeasuredLiquid]:
    seen: dict[object, int] = {}
    for line, cells in rows:
        try:
            liquid = _liquid(cells, columns)
            first = seen.setdefault(liquid.key, line)
            if first != line:
                message = f"{liquid.name} is in line {first} already."
                raise InvalidInputError(message)  # noqa: TRY301 - told with those of its kind
        except InvalidInputError as error:
            problems.append(f"Line {line}: {error}")
        else:
            yield liquid


def _liquid(cells: Sequence[str], columns: Sequence[_Column]) -> MeasuredLiquid:
    check_length(cells, columns)
    state: dict[str, str] = {}
    values: dict[tuple[str, bool], float] = {}
    for column, cell in zip(columns, cells, strict=True):
        if column.name in ("liquid", "source"):
            state[column.name] = cell
        elif cell:
            values[column.name, column.error] = number_in(cell, column.name) * column.factor
    if not state["liquid"]:
        raise InvalidInputError("Expected a liquid; got none.")
    numbers = {name: values.pop((name, False)) for name in STATE[1:3] if (name, False) in values}
    measured = {
        name: Estimate(value, values.get((name, True), math.nan), UNITS[name.split(" ")[0]][0])
        for (name, error), value in values.items()
        if not error
    }
    return MeasuredLiquid(**state, **numbers, measured=measured)  # type: ignore[arg-type]
