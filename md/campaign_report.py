"""What a campaign came to: a row for each mixture, and how far from experiment they are."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scikd._atomic import atomic_write_bytes
from scikd.report import PALETTE, Figure, Item, Link, Report, Section, Table

from .estimates import Estimate
from .measurements import UNITS, MeasuredLiquid

__all__ = ["CampaignResult", "Deviation", "MixtureResult", "campaign_report"]

UNIT_NAMES = {"g/cm³": "_g_cm3", "cP": "_cp", "mS/cm": "_ms_cm", "cm²/s": "_cm2_s", "": ""}
TABLE, NUMBERS, PAGE = "campaign.csv", "campaign.json", "report.html"
PANEL = (3.2, 3.0)  # inches


@dataclass
class MixtureResult:
    """A row of the table.

    Attributes
    ----------
    liquid : MeasuredLiquid
        The mixture, and what was measured of it.
    estimates : dict of str to Estimate
        What was computed, by the names of `LiquidProperties`; the density is that at constant
        pressure, all else is at constant volume.
    refusals : dict of str to str
        What could not be had, and why.
    pages : dict of str to str
        Report of each run, "npt" and "nvt", from the folder of the campaign.
    failure : str or None
        Why the mixture was not finished.
    composition : dict of str to int
        How many molecules of each species there are, which comes close to the mixture.
    reached : bool
        Whether its turn has come.
    """

    liquid: MeasuredLiquid
    estimates: dict[str, Estimate] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    composition: dict[str, int] = field(default_factory=dict)
    reached: bool = True

    @property
    def state(self) -> str:
        """Tell where the mixture stands: "done", "failed" or "waiting"."""
        if not self.reached:
            return "waiting"
        return "done" if self.failure is None else "failed"

    @property
    def content(self) -> str:
        """The molecules, such as "3 EC, 3 DMC"."""
        return ", ".join(f"{count} {name}" for name, count in self.composition.items())

    def found(self, name: str) -> Estimate | None:
        """Return what compares with a measurement: diffusion corrected for the box, if it is."""
        return self.estimates.get(f"{name}, large box", self.estimates.get(name))

    def as_dict(self) -> dict[str, Any]:
        """Return the row, as JSON knows it."""
        return {
            "liquid": self.liquid.liquid,
            "temperature_k": self.liquid.temperature_k,
            "pressure_bar": self.liquid.pressure_bar,
            "source": self.liquid.source,
            "state": self.state,
            "failure": self.failure,
            "composition": self.composition,
            "estimates": _plain(self.estimates),
            "measured": _plain(self.liquid.measured),
            "refusals": self.refusals,
            "pages": self.pages,
        }


@dataclass(frozen=True)
class Deviation:
    """How far one property of all mixtures is from experiment.

    Attributes
    ----------
    kind : str
        "density", "viscosity", "conductivity" or "diffusion".
    unit : str
        Of the two means.
    count : int
        Of the values compared.
    mean : Estimate
        Mean of computed less measured, with the error that the error bars make.
    absolute : float
        Mean of its size.
    relative : float
        Mean of its size over the measured value.
    """

    kind: str
    unit: str
    count: int
    mean: Estimate
    absolute: float
    relative: float

    def __str__(self) -> str:
        values = "value" if self.count == 1 else "values"
        return (
            f"{self.kind} off by {self.mean} on average, {self.relative:.2%} in size, over "
            f"{self.count} {values}"
        )


@dataclass(frozen=True)
class CampaignResult:
    """What `run_campaign` returns.

    Attributes
    ----------
    folder : pathlib.Path
        Where all lies.
    mixtures : tuple of MixtureResult
        In the order of the table.
    """

    folder: Path
    mixtures: tuple[MixtureResult, ...]

    @property
    def failed(self) -> tuple[MixtureResult, ...]:
        """Those that were not finished."""
        return tuple(row for row in self.mixtures if row.failure is not None)

    @property
    def table(self) -> Path:
        """The CSV file."""
        return self.folder / TABLE

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / PAGE

    @property
    def units(self) -> dict[str, str]:
        """Units of all that was computed or measured of some mixture, by name, in a fixed order."""
        rows = self.mixtures
        known = [
            pair for row in rows for pair in (*row.liquid.measured.items(), *row.estimates.items())
        ]
        units = {name: value.unit for name, value in known}
        order = [*UNITS, ""]
        kinds = {name: _kind(name) if _kind(name) in UNITS else "" for name in units}
        return {n: units[n] for n in sorted(units, key=lambda n: (order.index(kinds[n]), n))}

    def pairs(self, kind: str) -> list[tuple[MixtureResult, Estimate, Estimate]]:
        """Return mixtures with what was computed and measured of a property."""
        return [
            (row, found, measured)
            for row in self.mixtures
            for name, measured in row.liquid.measured.items()
            if _kind(name) == kind and (found := row.found(name)) is not None
        ]

    def deviations(self) -> list[Deviation]:
        """Return how far the properties are from experiment."""
        found = []
        for kind, (unit, *_) in UNITS.items():
            pairs = self.pairs(kind)
            if not pairs:
                continue
            errors = np.array([ours.value - theirs.value for _, ours, theirs in pairs])
            bars = [
                math.hypot(o.error, 0.0 if math.isnan(t.error) else t.error) for _, o, t in pairs
            ]
            mean = Estimate(float(errors.mean()), math.hypot(*bars) / len(bars), unit)
            sizes = np.array([theirs.value for *_, theirs in pairs])
            relative = float(np.abs(errors / sizes).mean())
            size = float(np.abs(errors).mean())
            found.append(Deviation(kind, unit, len(pairs), mean, size, relative))
        return found

    def summary(self) -> str:
        """Say in a line what came out, and in one each what failed."""
        done = sum(row.state == "done" for row in self.mixtures)
        parts = [f"{done} of {len(self.mixtures)} mixtures done"]
        parts += [str(deviation) for deviation in self.deviations()]
        lines = ["; ".join(parts)]
        lines += [f"failed: {row.liquid.name}, {row.failure}" for row in self.failed]
        return "\n".join(lines)

    def write_tables(self) -> None:
        """Write ``campaign.csv``, a row for each mixture, and ``campaign.json``.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        rows = [_flat(row, self.units) for row in self.mixtures]
        text = io.StringIO(newline="")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write_bytes(self.table, text.getvalue().encode())
        content = {
            "mixtures": [row.as_dict() for row in self.mixtures],
            "deviations": [asdict(deviation) for deviation in self.deviations()],
        }
        raw = json.dumps(content, indent=1, allow_nan=False).encode()
        atomic_write_bytes(self.folder / NUMBERS, raw)

    def report(self) -> Report:
        """Return the page, see `campaign_report`."""
        return campaign_report(self)


def _kind(name: str) -> str:
    """Return which property a name such as "diffusion of EC" tells."""
    return name.partition(" of ")[0]


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"value": e.value, "error": _known(e.error), "unit": e.unit}
        for name, e in estimates.items()
    }


def _known(error: float) -> float | None:
    return error if math.isfinite(error) else None


def _flat(row: MixtureResult, units: Mapping[str, str]) -> dict[str, object]:
    """Return a row of the CSV file."""
    flat: dict[str, object] = {
        "liquid": row.liquid.liquid,
        "temperature_k": row.liquid.temperature_k,
        "pressure_bar": row.liquid.pressure_bar,
        "molecules": row.content,
        "state": row.state,
        "reason": row.failure or "",
        "missing": " ".join(f"{name}: {reason}" for name, reason in row.refusals.items()),
        "source": row.liquid.source,
    }
    for name, unit in units.items():
        ours, theirs = row.estimates.get(name), row.liquid.measured.get(name)
        column = re.sub(r"[ ,/]+", "_", name.replace(" of ", "_")) + UNIT_NAMES[unit]
        flat[column] = None if ours is None else ours.value
        flat[f"{column}_error"] = None if ours is None else _known(ours.error)
        if theirs is not None:
            flat[f"measured_{column}"] = theirs.value
            flat[f"measured_{column}_error"] = _known(theirs.error)
    return flat


def campaign_report(result: CampaignResult) -> Report:
    """Return a page with a row for each mixture, and a comparison with experiment.

    Parameters
    ----------
    result : CampaignResult
        From `run_campaign`.
    """
    items = [_rows(result), *_others(result), *_missing(result)]
    sections = [Section("Mixtures", items, summary=result.summary())]
    deviations = result.deviations()
    if deviations:
        sections.append(Section("Against experiment", _comparison(result, deviations)))
    return Report("A campaign", sections, subtitle=f"{len(result.mixtures)} mixtures")


def _rows(result: CampaignResult) -> Table:
    main = {n: u for n, u in result.units.items() if _kind(n) in UNITS and "," not in n}
    columns = ["mixture", "molecules", "state"]
    shown: list[tuple[str, bool]] = []
    for name, unit in main.items():
        shown.append((name, False))
        columns.append(f"{name} ({unit})")
        if any(name in row.liquid.measured for row in result.mixtures):
            shown.append((name, True))
            columns.append("measured")
    rows: list[list[object]] = []
    for row in result.mixtures:
        cells = [_cell(row.liquid.measured.get(n) if m else row.found(n)) for n, m in shown]
        state = row.state if row.failure is None else f"{row.state} {row.failure}"
        links = [Link(e.upper(), row.pages[e]) if e in row.pages else None for e in ("npt", "nvt")]
        rows.append([row.liquid.name, row.content or None, state, *cells, *links])
    note = (
        "Values with standard errors, which tell of the length of the runs, not of the force "
        "field. Diffusion is corrected for the size of the box where the viscosity is known and "
        "the box a cube. The last two columns lead to the pages of the runs."
    )
    return Table(
        "All mixtures", [*columns, "constant pressure", "constant volume"], rows, note=note
    )


def _others(result: CampaignResult) -> list[Item]:
    """Return a table of what has no measured counterpart: neighbours, ionicity and the like."""
    others = [n for n in result.units if _kind(n) not in UNITS]
    others += [n for n in result.units if n == "conductivity, Nernst-Einstein"]
    rows = [
        [row.liquid.name, *(_cell(row.estimates.get(name)) for name in others)]
        for row in result.mixtures
        if any(name in row.estimates for name in others)
    ]
    columns = ["mixture", *(f"{n} ({u})" if (u := result.units[n]) else n for n in others)]
    return [Table("Neighbours and ions", columns, rows)] if rows else []


def _cell(value: Estimate | None) -> str | None:
    return None if value is None else str(Estimate(value.value, value.error))


def _missing(result: CampaignResult) -> list[Item]:
    rows = [(r.liquid.name, name, why) for r in result.mixtures for name, why in r.refusals.items()]
    return [Table("Not to be had", ["mixture", "property", "reason"], rows)] if rows else []


def _comparison(result: CampaignResult, deviations: Sequence[Deviation]) -> list[Item]:
    rows = [
        (f"{d.kind} ({d.unit})", d.count, _cell(d.mean), f"{d.absolute:.3g}", f"{d.relative:.1%}")
        for d in deviations
    ]
    columns = ["property", "values", "mean error", "mean size of it", "over the measured"]
    kinds = [deviation.kind for deviation in deviations]

    def draw(grid: Any) -> None:
        for axes, kind in zip(grid, kinds, strict=True):
            _draw(axes, result, kind)

    figure = Figure(
        "Computed and measured",
        draw,
        note="With standard errors, where they are known; on the line they agree.",
        size=(PANEL[0] * len(kinds), PANEL[1]),
        panels=(1, len(kinds)),
    )
    return [Table("Errors", columns, rows, note="Computed less measured."), figure]


def _draw(axes: Any, result: CampaignResult, kind: str) -> None:
    pairs = result.pairs(kind)
    ours = np.array([(e.value, e.error) for _, e, _ in pairs])
    theirs = np.array([(e.value, np.nan_to_num(e.error)) for *_, e in pairs])
    axes.errorbar(
        theirs[:, 0], ours[:, 0], xerr=theirs[:, 1], yerr=ours[:, 1], fmt="o", markersize=5,
        color=PALETTE[0], capsize=3,
    )  # fmt: skip
    values = np.concatenate([ours[:, 0], theirs[:, 0]])
    ends = np.concatenate([np.nan_to_num(both) @ [[1, 1], [-1, 1]] for both in (ours, theirs)])
    low, high = ends.min(), ends.max()
    if low > 0 and values.max() > 10.0 * values.min():
        axes.set_xscale("log")
        axes.set_yscale("log")
        limits = low / 1.1, high * 1.1
    else:
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        limits = low - margin, high + margin
    axes.set(xlim=limits, ylim=limits, box_aspect=1.0)
    axes.plot(limits, limits, color="black", linewidth=0.8)
    unit = UNITS[kind][0]
    axes.set_title(kind)
    axes.set_xlabel(f"measured ({unit})")
    axes.set_ylabel(f"computed ({unit})")
