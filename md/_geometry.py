"""What is wrong with a structure that cannot be one."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols

from ._half_list import (
    FEW_ATOMS,
    HalfList,
    all_pairs,
    fault_of_box,
    fault_of_positions,
    pairs_within,
)

__all__ = ["LARGEST_NUMBER", "fault_of_structure"]

LARGEST_NUMBER = 86  # radon: what the network's table of elements ends with

SINGULAR = 1e-6  # of the volume that vectors of this length would span at right angles


def fault_of_structure(
    positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray, smallest: float
) -> str | None:
    """Say what is wrong with one structure, or None."""
    if not len(numbers):
        return "expected at least one atom; it is empty"
    misplaced = fault_of_positions(positions)
    if misplaced is not None:
        return misplaced
    unknown = sorted(set(numbers[(numbers < 1) | (numbers > LARGEST_NUMBER)].tolist()))
    if unknown:
        return f"expected atomic numbers from 1 to {LARGEST_NUMBER}; got {unknown}"
    if not np.isfinite(cell).all() or (pbc.any() and _is_flat(cell[pbc])):
        return (
            "expected lattice vectors that span the periodic directions; got "
            f"{cell.tolist()}: give a cell, or set pbc=False"
        )
    crowded = fault_of_box(len(numbers), cell, pbc, smallest)
    if crowded is not None:
        return crowded
    pairs = (
        pairs_within(positions, cell, pbc, smallest)[0]
        if pbc.any() or len(numbers) > FEW_ATOMS
        else all_pairs(len(numbers)).within(positions, smallest)
    )
    return _overlap(pairs, positions, numbers, smallest) if len(pairs) else None


def _is_flat(vectors: np.ndarray) -> bool:
    """Say whether one to three vectors are zero, or in a line or plane."""
    lengths = np.linalg.norm(vectors, axis=1)
    spanned = np.sqrt(abs(np.linalg.det(vectors @ vectors.T)))
    return bool(spanned <= SINGULAR * np.prod(lengths))


def _overlap(pairs: HalfList, positions: np.ndarray, numbers: np.ndarray, smallest: float) -> str:
    distances = np.linalg.norm(pairs.vectors(positions), axis=1)
    k = int(distances.argmin())
    i, j = int(pairs.i[k]), int(pairs.j[k])
    return (
        f"atoms {i} ({chemical_symbols[numbers[i]]}) and {j} ({chemical_symbols[numbers[j]]}) "
        f"overlap: they are {distances[k]:.3f} Å apart, expected at least {smallest:g} Å"
    )
