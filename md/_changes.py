"""What a model's change did to a liquid, apart from its pressure: forces, structure, diffusion."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import iread

from scikd._extras import require
from scikd.exceptions import MissingExtraError, ScikdError
from scikd.report import Figure, Item, Table

from .calculators import CalculatorTeacher
from .estimates import Estimate
from .properties import LiquidProperties, PropertiesOptions, compute_properties

__all__ = ["Changes", "changes_of"]

logger = logging.getLogger("scikd.md.alignment")

FRAMES = 10
TRAJECTORY = "trajectory.extxyz"


@dataclass(frozen=True)
class Changes:
    """How a liquid differs between a model and another that was made of it.

    Attributes
    ----------
    forces : float
        Root mean square of the difference of forces on the same frames, in meV/Å.
    of_forces : float
        That of the forces before, in meV/Å.
    before, after : LiquidProperties or None
        Of a run of each; None where the extra ``liquids`` is not installed, or a run tells nothing.
    """

    forces: float
    of_forces: float
    before: LiquidProperties | None
    after: LiquidProperties | None

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON knows them."""
        sides = {"before": self.before, "after": self.after}
        found = {
            side: {name: asdict(value) for name, value in known.estimates.items()}
            for side, known in sides.items()
            if known is not None
        }
        return {"forces_meV_A": self.forces, "of_forces_meV_A": self.of_forces, **found}

    def items(self, name: str) -> list[Item]:
        """Return what there is to show of a liquid of that name."""
        share = 100.0 * self.forces / self.of_forces
        change = f"changed by {self.forces:.3g} meV/Å"
        rows = [["forces (rms)", f"{self.of_forces:.0f} meV/Å", change, f"{share:.3g} %"]]
        if self.before is None or self.after is None:
            return [Table(name, ("", "before", "after", ""), rows)]
        for key, value in self.before.estimates.items():
            other = self.after.estimates.get(key)
            if other is not None and key != "density":
                rows.append([key, str(value), str(other), _apart(value, other)])
        note = (
            "From the runs at the measured density."
            if self.after.trajectory.constant_volume
            else ""
        )
        items: list[Item] = [Table(name, ("", "before", "after", ""), rows, note=note)]
        if self.before.distributions and self.after.distributions:
            items.append(Figure(f"{name}: structure", self._draw, note="Dashed: before."))
        return items

    def _draw(self, axes: Any) -> None:
        assert self.before is not None  # noqa: S101 - for the type checker: see `items`
        assert self.after is not None  # noqa: S101
        before = {found.pair: found for found in self.before.distributions}
        for number, found in enumerate(self.after.distributions):
            color = f"C{number}"
            axes.plot(found.distances, found.values, color=color, label="-".join(found.pair))
            if found.pair in before:
                known = before[found.pair]
                axes.plot(known.distances, known.values, color=color, linestyle="--")
        axes.set_xlabel("distance (Å)")
        axes.set_ylabel("radial distribution")
        axes.legend(fontsize=8.0)


def _apart(before: Estimate, after: Estimate) -> str:
    error = math.hypot(before.error, after.error)
    if not error:  # neither run has seen it change
        return ""
    return f"{abs(after.value - before.value) / error:.1f} standard errors apart"


def changes_of(before: Calculator, after: Calculator, runs: tuple[Path, Path]) -> Changes:
    """Compare two models on a liquid that both have run.

    Parameters
    ----------
    before, after : ase.calculators.calculator.Calculator
        The models.
    runs : tuple of pathlib.Path
        Folder of a run of each, in the same state.
    """
    frames = _few(runs[1])
    first, last = (_forces(calculator, frames) for calculator in (before, after))
    return Changes(
        1e3 * float(np.sqrt(np.square(last - first).mean())),
        1e3 * float(np.sqrt(np.square(first).mean())),
        *(_properties(run) for run in runs),
    )


def _few(folder: Path) -> list[Atoms]:
    frames = [f for f in iread(folder / TRAJECTORY) if f.info["time_ps"] > 0]
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).astype(int)
    return [frames[number] for number in chosen]


def _forces(calculator: Calculator, frames: Sequence[Atoms]) -> np.ndarray:
    return np.asarray(
        CalculatorTeacher(calculator, properties=("forces",)).predict(frames)["forces"]
    )


def _properties(folder: Path) -> LiquidProperties | None:
    try:
        for library in ("freud", "stacie"):
            require(library, extra="liquids", feature="Structure and diffusion of a liquid")
        return compute_properties(PropertiesOptions(trajectory=str(folder)))
    except MissingExtraError as missing:
        logger.info("not compared: %s", missing)
    except ScikdError as error:
        logger.warning("%s tells nothing of structure and diffusion: %s", folder, error)
    return None
