"""A force that drives a flow, from whose speed the viscosity follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from scikd.exceptions import InvalidInputError

from .units import FS

__all__ = ["CosineAcceleration"]


class CosineAcceleration(Calculator):
    """Forces of a calculator, and an acceleration along x that goes as the cosine of z.

    The wave fits once into the box. The acceleration is no gradient: energy and stress are those of
    the calculator alone, and a thermostat has to take away the heat.

    Parameters
    ----------
    calculator : ase.calculators.calculator.Calculator
        Of the liquid.
    acceleration : float
        Amplitude in Å/ps².

    Raises
    ------
    InvalidInputError
        On use, if the box is not periodic with its third edge along z and the others across it.

    Notes
    -----
    Other attributes are those of the calculator.
    """

    def __init__(self, calculator: Calculator, acceleration: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calculator, self.acceleration = calculator, acceleration
        self.implemented_properties = calculator.implemented_properties

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "calculator":
            raise AttributeError(name)
        return getattr(self.calculator, name)

    def reset(self) -> None:
        """Forget results, of the calculator too."""
        super().reset()  # type: ignore[no-untyped-call]
        if "calculator" in self.__dict__:
            self.calculator.reset()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute what the calculator does, and add the force."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        moved: Any = self.atoms
        cell = moved.cell[:]
        across = [cell[0, 2], cell[1, 2], cell[2, 0], cell[2, 1]]
        if not moved.pbc.all() or np.abs(across).max() > 1e-8 * np.abs(cell).max():
            message = (
                "A cosine acceleration needs a periodic box whose third edge lies along z and the "
                f"others across it; got the cell {cell.tolist()} and pbc "
                f"{moved.pbc.tolist()}."
            )
            raise InvalidInputError(message)
        inner = self.calculator
        names = list(properties or ["forces"])
        inner.calculate(moved, [*names, "forces"], list(system_changes))
        self.results = dict(inner.results)
        wave = np.cos(2.0 * np.pi * moved.positions[:, 2] / cell[2, 2])
        per_mass = self.acceleration / (1e3 * FS) ** 2  # Å/ps² in ASE's unit of time
        forces = np.array(self.results["forces"])
        forces[:, 0] += moved.get_masses() * per_mass * wave
        self.results["forces"] = forces
