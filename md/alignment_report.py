"""What an alignment came to: densities before and after, and pressures round by round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from scikd.report import Figure, Report, Section, Table

from ._changes import Changes
from .densities import DensityTarget
from .estimates import Estimate
from .model import ForceField

__all__ = ["AlignmentResult", "LiquidResult", "alignment_report"]


@dataclass(frozen=True)
class LiquidResult:
    """A liquid in the course of an alignment.

    Attributes
    ----------
    target : DensityTarget
        What was measured.
    shifts : tuple of Estimate
        In each round what the pressure lacked, in bar; empty if held out.
    moved_bar : tuple of float
        In each round by how much the training moved it, on frames that were held out.
    before, after : Estimate or None
        Density of the model at first and of the one that is kept, in g/cm³.
    changes : Changes or None
        What else has changed between the two; None if there was nothing to correct, or no run.
    """

    target: DensityTarget
    shifts: tuple[Estimate, ...]
    moved_bar: tuple[float, ...]
    before: Estimate | None
    after: Estimate | None
    changes: Changes | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON knows them."""
        plain = asdict(replace(self, changes=None))
        return plain | {"changes": None if self.changes is None else self.changes.as_dict()}


@dataclass(frozen=True)
class AlignmentResult:
    """What `align` returns.

    Attributes
    ----------
    force_field : ForceField
        The aligned model.
    converged : bool
        Whether all pressures agree within their errors or the tolerance.
    corrections : int
        How many the model has had. Without agreement it is not the last one, but that of the round
        in which the largest shift was smallest.
    liquids : tuple of LiquidResult
        In the order of the targets.
    path : Path
        Folder of the saved model.
    """

    force_field: ForceField = field(repr=False)
    converged: bool
    corrections: int
    liquids: tuple[LiquidResult, ...]
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON knows them."""
        return {
            "converged": self.converged,
            "corrections": self.corrections,
            "liquids": [liquid.as_dict() for liquid in self.liquids],
        }

    def table(self) -> Table:
        """Return the densities before and after."""
        rows = [
            (
                liquid.target.name,
                "held out" if liquid.target.held_out else "aligned",
                liquid.target.density_g_cm3,
                *(
                    None if number is None else str(number)
                    for number in (
                        liquid.before,
                        liquid.after,
                        liquid.shifts[0] if liquid.shifts else None,
                        liquid.shifts[self.corrections] if liquid.shifts else None,
                    )
                ),
            )
            for liquid in self.liquids
        ]
        columns = ("liquid", "", "measured g/cm³", "before", "after", "lacked", "lacks")
        return Table("Densities", columns, rows, note="Errors are standard errors, by blocks.")

    def summary(self) -> str:
        """Say in a few lines what came out."""
        made = max(len(liquid.shifts) for liquid in self.liquids) - 1
        ended = f"pressures agree after {made} corrections"
        if not self.converged:
            ended = (
                f"pressures do not agree yet after {made} corrections; the model of "
                f"{self.corrections}, which lacked least, is kept"
            )
        lines = [ended]
        for liquid in self.liquids:
            if liquid.before is not None and liquid.after is not None:
                aim = liquid.target.density_g_cm3
                kind = " (held out)" if liquid.target.held_out else ""
                lines.append(
                    f"{liquid.target.name}{kind}: {liquid.before} before, "
                    f"{liquid.after} after, {aim:g} g/cm³ measured"
                )
        changes = [liquid.changes.forces for liquid in self.liquids if liquid.changes is not None]
        if changes:
            lines.append(f"forces changed by up to {max(changes):.3g} meV/Å (rms)")
        return "\n".join(lines)


def alignment_report(result: AlignmentResult) -> Report:
    """Return a page with densities before and after, and pressures in each round.

    Parameters
    ----------
    result : AlignmentResult
        From `align`.
    """
    aligned = [liquid for liquid in result.liquids if liquid.shifts]

    def draw(axes: Any) -> None:
        for liquid in aligned:
            shifts = np.array([(shift.value, shift.error) for shift in liquid.shifts])
            axes.errorbar(
                np.arange(len(shifts)), shifts[:, 0], shifts[:, 1], marker="o", capsize=3,
                label=liquid.target.name,
            )  # fmt: skip
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("corrections")
        axes.set_ylabel("pressure to add (bar)")
        axes.legend(fontsize=8.0)

    figure = Figure("Pressures at the measured densities", draw, note="With standard errors.")
    sections = [Section("Alignment", [result.table(), figure], summary=result.summary())]
    changed = [
        item
        for liquid in result.liquids
        if liquid.changes is not None
        for item in liquid.changes.items(liquid.target.name)
    ]
    if changed:
        sections.append(Section("What else has changed", changed))
    return Report("Alignment with densities", sections)
