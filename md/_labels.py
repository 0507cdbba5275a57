"""Labels of structures: their units and shapes, and what `ase.Atoms` say of themselves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from scikd.exceptions import InvalidInputError
from scikd.quantities import Quantity

__all__ = [
    "LABELS",
    "PER_ATOM",
    "QUANTITIES",
    "SPREADS",
    "group_of",
    "labels_of",
    "molecules_of",
    "require_keys",
    "total_charge_of",
]

PER_ATOM = ("positions", "numbers", "molecules", "forces", "charges", "forces_std")
QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("energy", "eV", ()),
        Quantity("forces", "eV/Å", (3,), per="atom"),
        Quantity("stress", "eV/Å³", (6,)),
        Quantity("charges", "e", (), per="atom"),
        Quantity("dipole", "e·Å", (3,)),
    )
}
SPREADS = tuple(f"{name}_std" for name in ("energy", "forces", "stress"))
LABELS = {name: quantity.shape or () for name, quantity in QUANTITIES.items()}
LABELS |= {name: LABELS[name.removesuffix("_std")] for name in SPREADS}
MOLECULE_ARRAYS = ("molecules", "molID", "mol_id")
CHARGE_ENTRIES = ("total_charge", "charge")


def _in_calculator(atoms: Atoms) -> dict[str, Any]:
    """Return the results that a calculator holds for these very positions."""
    calculator = atoms.calc
    results = getattr(calculator, "results", None)
    if not results:
        return {}
    before = getattr(calculator, "atoms", None)
    # Compared by hand: ASE's check_state takes as long as all the rest.
    same = before is not None and (
        len(before) == len(atoms)
        and np.array_equal(before.positions, atoms.positions)
        and np.array_equal(before.numbers, atoms.numbers)
        and np.array_equal(before.cell[:], atoms.cell[:])
        and np.array_equal(before.pbc, atoms.pbc)
    )
    return {k: v for k, v in results.items() if v is not None} if same else {}


def _shaped(value: Any, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if name == "stress" and array.size == 9:
        array = full_3x3_to_voigt_6_stress(array.reshape(3, 3))
    if array.shape != shape:
        message = f"Expected {name} of shape {shape} in {where}; got {array.shape}."
        raise InvalidInputError(message)
    return array


def _find(atoms: Atoms, results: dict[str, Any], name: str, key: str | None) -> Any:
    for place in (atoms.info, atoms.arrays) if key else (results, atoms.info, atoms.arrays):
        value = place.get(key or name)
        if value is not None:
            return value
    return results.get(key) if key else None


def labels_of(atoms: Atoms, keys: Mapping[str, str | None], where: str) -> dict[str, np.ndarray]:
    """Return the labels of one structure that are there; a virial only where no stress is."""
    results = _in_calculator(atoms)
    found = {}
    for name, shape in LABELS.items():
        value = _find(atoms, results, name, keys.get(name))
        if value is not None:
            full = (len(atoms), *shape) if name in PER_ATOM else shape
            found[name] = _shaped(value, name, full, where)
    virial = None if "stress" in found else _find(atoms, results, "virial", keys.get("virial"))
    if virial is not None:
        flat = np.ravel(virial)
        found["virial"] = _shaped(
            flat.reshape(3, 3) if flat.size == 9 else flat, "virial", (3, 3), where
        )
    return found


def require_keys(frames: Sequence[Atoms], keys: Mapping[str, str | None]) -> None:
    """Raise an error if a key was asked for that no structure has."""
    missing = {
        key
        for key in keys.values()
        if key
        and not any(
            key in place
            for frame in frames
            for place in (frame.info, frame.arrays, _in_calculator(frame))
        )
    }
    if missing:
        first = frames[0]
        there = {*first.info, *first.arrays, *_in_calculator(first)} - {"numbers", "positions"}
        message = (
            f"Expected labels named {sorted(missing)}, as asked for; no structure has them. The "
            f"first one has {sorted(there)}."
        )
        raise InvalidInputError(message)


def total_charge_of(atoms: Atoms, key: str | None) -> float:
    """Return the total charge in e; zero where nothing is said of it."""
    for name in (key,) if key else CHARGE_ENTRIES:
        if name in atoms.info:
            given = atoms.info[name]
            try:
                charge = float(given)
            except (TypeError, ValueError):
                charge = math.nan
            if not math.isfinite(charge):
                message = (
                    f"Expected info[{name!r}], the total charge in e, as a number; got {given!r}."
                )
                raise InvalidInputError(message)
            return charge
    # As ASE's calculators do; what is left of the sum after rounding is not a charge.
    charges = atoms.arrays.get("initial_charges")
    return 0.0 if charges is None else float(np.round(charges.sum(), 6))


def molecules_of(atoms: Atoms, key: str | None) -> np.ndarray:
    """Return the number of each atom's molecule, -1 where unknown."""
    for name in (key,) if key else MOLECULE_ARRAYS:
        if name in atoms.arrays:
            return np.asarray(atoms.arrays[name], dtype=np.int64)
    return np.full(len(atoms), -1)


def group_of(atoms: Atoms, key: str | None) -> int:
    """Return the number of a structure's group, -1 where nothing is said of it."""
    given = atoms.info.get(key or "group", -1)
    if isinstance(given, np.generic | np.ndarray) and given.size == 1:
        given = given.item()
    if isinstance(given, str):
        # The same text is the same number in every file.
        return int.from_bytes(hashlib.blake2b(given.encode(), digest_size=7).digest(), "big")
    if isinstance(given, bool) or not isinstance(given, int) or not -1 <= given < 2**63:
        message = (
            f"Expected info[{key or 'group'!r}], which structures of one trajectory share, as text "
            f"or a whole number from 0 to 2**63 - 1; got {given!r}. Give it another name if it is "
            "something else."
        )
        raise InvalidInputError(message)
    return given
