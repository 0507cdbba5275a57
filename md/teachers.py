"""What every teacher of atomic structures shares: see `scikd.md.labelling` for those there are."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast, overload

import numpy as np
from ase import Atoms

from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.quantities import Quantity
from scikd.teachers import Teacher

from ._labels import QUANTITIES, total_charge_of

__all__ = ["CONVERGED", "PROPERTIES", "StructureTeacher", "Structures"]

logger = logging.getLogger(__name__)

CONVERGED = Quantity("converged", "", ())
PROPERTIES = ("energy", "forces", "charges", "dipole")


class Structures(Sequence[Atoms]):
    """Structures with a fingerprint, as a `LabelStore` needs it.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        What counts is numbers, positions, cell, pbc and total charge.
    """

    def __init__(self, frames: Sequence[Atoms]) -> None:
        self._frames = list(frames)
        for number, atoms in enumerate(self._frames):
            if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
                problem = "no atoms" if len(atoms) == 0 else "positions that are not finite"
                message = f"Structure {number} has {problem}; leave it out."
                raise InvalidInputError(message)

    @overload
    def __getitem__(self, index: int) -> Atoms: ...
    @overload
    def __getitem__(self, index: slice) -> Structures: ...
    def __getitem__(self, index: int | slice) -> Atoms | Structures:
        if isinstance(index, slice):
            return Structures(self._frames[index])
        return self._frames[index]

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def fingerprint(self) -> str:
        """Digest of what the labels depend on."""
        return fingerprint_inputs(
            [
                [
                    np.asarray(atoms.numbers, dtype=np.int64),
                    atoms.positions,
                    atoms.cell[:],
                    atoms.pbc,
                    total_charge_of(atoms, None),
                ]
                for atoms in self._frames
            ]
        )


class StructureTeacher(Teacher):
    """A teacher that computes one structure at a time.

    A subclass writes `fingerprint` and `_label`, which computes one structure.

    Parameters
    ----------
    name : str
        Name of the teacher.
    properties : sequence of str, default=("energy", "forces", "charges", "dipole")
        What to compute: of these, and ``"stress"``. Only periodic structures have a stress, and
        only others a dipole.

    Notes
    -----
    Besides, every structure gets ``"converged"``: 1, or 0 where the self-consistent field did not
    converge (its other labels are 0 then; `label_structures` raises, or drops it).
    Dipoles are about the origin of the coordinates, which matters for charged structures.
    """

    periodic: bool = False  # whether periodic structures can be computed

    def __init__(self, name: str, properties: Sequence[str] = PROPERTIES) -> None:
        super().__init__(name)
        unknown = sorted(set(properties) - set(QUANTITIES))
        if unknown or not properties or ("stress" in properties and not self.periodic):
            allowed = [p for p in QUANTITIES if p != "stress" or self.periodic]
            message = f"Expected properties among {allowed} for {name!r}; got {list(properties)}."
            raise InvalidInputError(message)
        self.properties = tuple(properties)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The properties, with units, and ``"converged"``."""
        return (*(QUANTITIES[name] for name in self.properties), CONVERGED)

    @abstractmethod
    def _label(self, atoms: Atoms, charge: int) -> Mapping[str, np.ndarray | float]:
        """Compute one structure; raise `ArithmeticError` if the field does not converge."""

    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        rows: dict[str, list[np.ndarray]] = {quantity.name: [] for quantity in self.quantities}
        for number, atoms in enumerate(X):
            charge = self.check_structure(atoms, number)
            try:
                labels = {**self._label(atoms, charge), "converged": 1.0}
            except ArithmeticError as error:
                logger.warning("%s did not converge for %s: %s", self.name, atoms.symbols, error)
                labels = {"converged": 0.0}
            for quantity in self.quantities:
                shape = (len(atoms),) if quantity.per == "atom" else (1,)
                empty = np.zeros((*shape, *cast("tuple[int, ...]", quantity.shape)))
                value = labels.get(quantity.name)
                rows[quantity.name].append(
                    empty if value is None else np.reshape(value, empty.shape)
                )
        return {name: np.concatenate(parts) for name, parts in rows.items()}

    def check_structure(self, atoms: Atoms, number: int = 0) -> int:
        """Say whether this teacher can label a structure.

        Parameters
        ----------
        atoms : ase.Atoms
            The structure.
        number : int, default=0
            Its number, for the error.

        Returns
        -------
        int
            Its total charge in e.

        Raises
        ------
        InvalidInputError
            If it is periodic and must not be (or the other way round), or has an odd number of
            electrons or a broken charge.
        """
        charge = total_charge_of(atoms, None)
        what = f"Structure {number} ({atoms.symbols})"
        if atoms.pbc.any() and not self.periodic:
            message = f"{what} is periodic; the teacher {self.name!r} takes free clusters only."
            raise InvalidInputError(message)
        if atoms.pbc.any() and not atoms.pbc.all():
            message = f"{what} has mixed pbc {atoms.pbc.tolist()}; expected all or none."
            raise InvalidInputError(message)
        without = "dipole" if atoms.pbc.all() else "stress"
        if without in self.properties:
            message = (
                f"{what} has pbc={atoms.pbc.tolist()} and no {without}; leave that out of "
                f"properties={self.properties}, and label clusters and boxes apart."
            )
            raise InvalidInputError(message)
        if charge != round(charge) or (int(atoms.numbers.sum()) - round(charge)) % 2:
            message = (
                f"{what} with a total charge of {charge:g} has no even whole number of electrons; "
                "all shells must be closed. Set atoms.info['total_charge']."
            )
            raise InvalidInputError(message)
        return round(charge)
