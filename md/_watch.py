"""Watching a run: does it still make sense."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed

from scikd.exceptions import InvalidInputError, TeacherError

from ._integrators import density_of, temperature_of

__all__ = ["Watch", "is_blow_up"]

# What calculators raise of structures that make no sense: overlapping atoms, a guard's refusal,
# numbers that overflow, a self-consistent field that does not converge.
SENSELESS = (InvalidInputError, ArithmeticError, np.linalg.LinAlgError, CalculationFailed)


def is_blow_up(error: Exception, atoms: Atoms) -> bool:
    """Say whether a step failed for where the atoms are, and not for want of memory or by a bug."""
    cause: BaseException = error
    while isinstance(cause, TeacherError) and cause.__cause__ is not None:  # a member's
        cause = cause.__cause__
    # A teacher's error that has no other cause is about numbers that are not finite, or missing.
    return isinstance(cause, (*SENSELESS, TeacherError)) or not _is_finite(atoms)


def _is_finite(atoms: Atoms) -> bool:
    """Say so of positions, momenta and cell, whose sum is finite where all of them are."""
    total = atoms.positions.sum() + atoms.get_momenta().sum() + atoms.cell[:].sum()
    return bool(np.isfinite(total))


class Watch:
    """Limits that no sensible run meets, and the last frame that met none.

    Parameters
    ----------
    options : DynamicsOptions
        With the limits.
    dof : int
        Degrees of freedom.
    reference : float
        Density at the start in g/cm³; NaN without a box.
    """

    def __init__(self, options: Any, dof: int, reference: float) -> None:
        self.options, self.dof = options, dof
        self.hottest = options.max_temperature or 10.0 * options.temperature
        self.thinnest = options.min_density * reference
        self.good: Atoms | None = None

    def check(self, atoms: Atoms, forces: np.ndarray) -> str | None:
        """Say what is wrong after a step, or keep the frame and return None."""
        problem = self._problem(atoms, forces)
        if problem is None:
            self.keep(atoms)
        return problem

    def keep(self, atoms: Atoms) -> None:
        """Remember a frame as good."""
        if self.good is None:
            self.good = atoms.copy()
            return
        self.good.arrays["positions"][:] = atoms.arrays["positions"]
        self.good.arrays["momenta"][:] = atoms.arrays["momenta"]
        self.good.cell[:] = atoms.cell

    def _problem(self, atoms: Atoms, forces: np.ndarray) -> str | None:
        limits = self.options
        momenta = atoms.get_momenta()
        if not _is_finite(atoms) or not np.isfinite(forces.sum()):
            return "positions, momenta or forces are not finite"
        temperature = temperature_of(atoms, self.dof)
        if temperature > self.hottest:
            return f"the temperature is {temperature:.0f} K (limit {self.hottest:.0f} K)"
        force, atom = _longest(forces)
        if force > limits.max_force:
            return f"the force on atom {atom} is {force:.0f} eV/Å (limit {limits.max_force:g} eV/Å)"
        speed, atom = _longest(momenta / atoms.get_masses()[:, None])
        moved = speed * limits.timestep * units.fs
        if moved > limits.max_displacement:
            return (
                f"atom {atom} moves {moved:.2f} Å in one step (limit {limits.max_displacement:g} Å)"
            )
        density = density_of(atoms)
        if density < self.thinnest:
            return (
                f"the density has fallen to {density:.3f} g/cm³ (limit {self.thinnest:.3f} g/cm³, "
                f"{limits.min_density:g} of that at the start)"
            )
        return None


def _longest(vectors: np.ndarray) -> tuple[float, int]:
    squares = np.einsum("nc,nc->n", vectors, vectors)
    atom = int(squares.argmax())
    return float(np.sqrt(squares[atom])), atom
