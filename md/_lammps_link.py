"""What a force field asks of a running LAMMPS, and gives it, beside forces of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["FIX", "Link", "box_of", "check_lammps", "set_virial"]

FIX = "scikd"
_VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])  # xx, yy, zz, xy, xz, yz


def box_of(lmp: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the low corner of LAMMPS' box and its lattice vectors as rows, in Å."""
    low, high, xy, yz, xz, *_ = lmp.extract_box()
    cell = np.diag(np.subtract(high, low))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return np.asarray(low), cell


def check_lammps(lmp: Any, elements: Sequence[str]) -> None:
    """Refuse a LAMMPS with other units, other types, or a box that is not periodic."""
    problems = []
    if (units := lmp.extract_global("units")) != "metal":
        problems.append(f"units metal, got {units}")
    if (types := lmp.extract_setting("ntypes")) != len(elements):
        problems.append(f"the elements of {types} atom types, got {list(elements)}")
    if not all(periodic := lmp.extract_box()[5]):
        problems.append(f"a box that is periodic in three directions, got {periodic}")
    if problems:
        raise InvalidInputError(f"Expected of LAMMPS {'; '.join(problems)}.")


def set_virial(lmp: Any, virial: np.ndarray) -> None:
    """Give the fix a virial (3, 3) in eV."""
    lmp.fix_external_set_virial_global(FIX, np.asarray(virial)[_VOIGT])


class Link:
    """One LAMMPS, on one process or several.

    Parameters
    ----------
    lmp : lammps.lammps
        See `scikd.md.mliap.MLIAPModel`.
    elements : sequence of str
        Symbols of its atom types.

    Attributes
    ----------
    ranks : int
        How many processes it has.
    """

    def __init__(self, lmp: Any, elements: Sequence[str]) -> None:
        check_lammps(lmp, elements)
        self._lmp = lmp
        self.ranks = int(lmp.extract_setting("world_size"))
        self._world = lmp.get_mpi_comm() if self.ranks > 1 else None
        if self.ranks > 1 and self._world is None:
            message = (
                f"LAMMPS has {self.ranks} processes, and charges are summed over them by mpi4py, "
                "which is missing. Install it, made for the MPI of LAMMPS, or use one process."
            )
            raise InvalidInputError(message)
        self._forces = np.zeros((0, 3))

    def attach(self) -> None:
        """Make the fix that hands over what is not made of pairs."""
        lmp = self._lmp
        lmp.command(f"fix {FIX} all external pf/callback 1 1")
        lmp.command(f"fix_modify {FIX} energy yes virial yes")
        lmp.set_fix_external_callback(FIX, self._callback)

    def _callback(
        self, caller: object, step: int, n_atoms: int, tags: Any, x: Any, forces: Any
    ) -> None:
        forces[:] = self._forces[tags.reshape(-1) - 1]  # found when LAMMPS asked for those of pairs

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the low corner and the lattice vectors as rows, in Å."""
        return box_of(self._lmp)

    def step(self) -> int:
        """Return the number of the time step."""
        return int(self._lmp.extract_global("ntimestep"))

    def tags(self, n_atoms: int) -> np.ndarray:
        """Return the numbers of own atoms and ghosts, from 1 on."""
        return np.array(self._lmp.numpy.extract_atom("id")[:n_atoms]).reshape(-1)

    def positions(self, n_own: int) -> np.ndarray:
        """Return where the own atoms are, in Å, shape (n_own, 3)."""
        return np.array(self._lmp.numpy.extract_atom("x")[:n_own])

    def charges(self) -> np.ndarray:
        """Return the charges of own atoms that LAMMPS has, in e."""
        return np.array(self._lmp.numpy.extract_atom("q")[: self._lmp.extract_setting("nlocal")])

    def sum(self, value: float) -> float:
        """Add up a number over all processes."""
        return float(value if self._world is None else self._world.allreduce(float(value)))

    def gather(self, tags: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all atoms of all processes, by number of the atom."""
        parts = [(tags, rows)] if self._world is None else self._world.allgather((tags, rows))
        found = np.full((sum(len(part) for part, _ in parts), rows.shape[1]), np.nan)
        for part, values in parts:
            found[part - 1] = values
        return found

    def hand_over(
        self,
        tags: np.ndarray,
        charges: np.ndarray,
        energy: float,
        forces: np.ndarray,
        virial: np.ndarray,
    ) -> None:
        """Give LAMMPS the charges of all its atoms and ghosts, and what is not made of pairs."""
        self._lmp.numpy.extract_atom("q")[: len(tags)] = charges[tags - 1]
        self._lmp.fix_external_set_energy_global(FIX, energy)
        set_virial(self._lmp, virial)
        self._forces = forces
