"""Half lists of pairs for one structure: each pair of atoms, with its periodic images, once.

vesin makes them. Beside it (one core of a shared machine, EC/EMC boxes of 0.105 atoms/Å³, 11 Å, ms;
vesin sorted / matscipy / ASE): 320 atoms 7 / 21 / 380, 1,440 atoms 31 / 95 / 3960, 20,480 atoms
600 / 1530 / not tried. The other two make full lists, of which half would have to be dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import vesin
from ase.data import covalent_radii
from ase.geometry import complete_cell
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from scikd.exceptions import InvalidInputError

__all__ = [
    "FEW_ATOMS",
    "HalfList",
    "all_pairs",
    "bonds",
    "centres_of",
    "check_positions",
    "complete_box",
    "fault_of_box",
    "fault_of_positions",
    "pairs_within",
    "unfold",
]

FEW_ATOMS = 300  # of which all pairs cost no more than a search
SPARSE = 3.0  # Å, between more atoms than these; one that flew off must not make all pairs near
FARTHEST = 1e6  # Å: 0.1 mm, where a double still tells 1e-10 Å and shifts are small integers
MOST_NEIGHBORS = 1e6  # of one atom; a liquid has a thousand
MOST_CELLS = 5e4  # vesin takes fewer in every direction beyond 1e5, and dies where none is left

# Of the sum of covalent radii. Tried on hot and stretched carbonates and on hot water: hydrogen
# strays farther from its atom than a hydrogen bond is long, and so belongs to its nearest alone.
BOND_FACTOR = 1.4
HYDROGEN_FACTOR = 1.6
IONS = (3, 4, 11, 12, 19, 20, 37, 38, 55, 56)  # alkali and alkaline-earth metals


@dataclass(frozen=True)
class HalfList:
    """Unordered pairs of atoms of one structure, periodic images included, each once.

    Attributes
    ----------
    i, j : numpy.ndarray of shape (n_pairs,)
        The atoms, int64, sorted by `i`.
    shifts : numpy.ndarray of shape (n_pairs, 3)
        Lattice vectors from the atom `j` to its image, int32: the pair's vector is
        ``positions[j] + shifts @ cell - positions[i]``.
    offsets : numpy.ndarray of shape (n_pairs, 3)
        ``shifts @ cell`` in Å, float64.
    """

    i: np.ndarray
    j: np.ndarray
    shifts: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.i)

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Return the vectors from `i` to the image of `j`, shape (n_pairs, 3), in Å."""
        return positions[self.j] - positions[self.i] + self.offsets

    def within(self, positions: np.ndarray, cutoff: float) -> HalfList:
        """Return the pairs that are not farther apart than a cutoff in Å."""
        vectors = self.vectors(positions)
        return self.only(np.flatnonzero(np.einsum("pc,pc->p", vectors, vectors) < cutoff**2))

    def only(self, which: np.ndarray) -> HalfList:
        """Return the pairs of these numbers."""
        return HalfList(self.i[which], self.j[which], self.shifts[which], self.offsets[which])


def all_pairs(n_atoms: int) -> HalfList:
    """Return every pair of atoms of a structure that is not periodic."""
    i, j = np.triu_indices(n_atoms, k=1)
    return HalfList(i, j, np.zeros((len(i), 3), np.int32), np.zeros((len(i), 3)))


def fault_of_positions(positions: np.ndarray) -> str | None:
    """Say which atom is at no place, or too far away to be computed; None if there is none."""
    lost = ~(np.abs(positions) <= FARTHEST).all(axis=1)
    if not lost.any():
        return None
    atom = int(np.flatnonzero(lost)[0])
    where = positions[atom].tolist()
    if not np.isfinite(where).all():
        return f"expected finite positions; atom {atom} is at {where} Å"
    return f"expected positions up to {FARTHEST:g} Å from the origin; atom {atom} is at {where} Å"


def fault_of_box(n_atoms: int, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> str | None:
    """Say that a box is too small for its atoms: a search would find pairs without end."""
    heights = _heights(complete_box(cell, pbc))
    if n_atoms * np.prod((2.0 * cutoff / heights)[np.asarray(pbc, dtype=bool)]) <= MOST_NEIGHBORS:
        return None
    lengths = ", ".join(f"{length:.3g}" for length in np.linalg.norm(cell, axis=1))
    return (
        f"expected a cell with room for its atoms; got {n_atoms} and lattice vectors of {lengths} Å"
    )


def check_positions(positions: np.ndarray) -> None:
    """Raise an error that names the first atom that is nowhere, or too far away."""
    _raise(fault_of_positions(positions))


def _raise(fault: str | None) -> None:
    if fault is not None:
        message = (
            f"{fault[0].upper()}{fault[1:]}. In dynamics the run has blown up: use a shorter time "
            "step, or start from a relaxed box."
        )
        raise InvalidInputError(message)


def _heights(box: np.ndarray) -> np.ndarray:
    """Return the distances between opposite faces."""
    return 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)


def complete_box(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Replace lattice vectors that are not periodic, so that the three span space."""
    periodic = np.asarray(pbc, dtype=bool)[:, None]
    return complete_cell(np.where(periodic, np.asarray(cell, dtype=np.float64), 0.0))


def pairs_within(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, *cutoffs: float
) -> tuple[HalfList, ...]:
    """Return the pairs of one structure that are closer than each of several cutoffs.

    Parameters
    ----------
    positions : numpy.ndarray of shape (n_atoms, 3)
        In Å; atoms may lie outside the cell.
    cell : numpy.ndarray of shape (3, 3)
        Rows are lattice vectors, in Å; those of directions that are not periodic are not used.
    pbc : numpy.ndarray of shape (3,)
        Which directions are periodic.
    *cutoffs : float
        In Å; may be larger than the cell. There is one search, for the largest.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    check_positions(positions)
    _raise(fault_of_box(len(positions), cell, pbc, max(cutoffs)))
    box = complete_box(cell, pbc)
    # A search makes cells as wide as the cutoff; far more cells than atoms are a waste.
    lengths, heights = np.linalg.norm(box, axis=1), _heights(box)
    free = ~np.asarray(pbc, dtype=bool)
    if len(positions) and free.any():
        extent = np.ptp((positions @ np.linalg.inv(box))[:, free], axis=0)
        lengths[free] += extent
        heights[free] += extent
    spacing = (np.prod(lengths) / max(len(positions), 1)) ** (1 / 3)
    widest = max(*cutoffs, spacing if len(positions) <= FEW_ATOMS else min(spacing, SPARSE))
    while np.prod(cells := np.maximum(heights // widest, 1.0)) > MOST_CELLS * cells.min() ** 3:
        widest *= 2.0  # a thread of atoms, or one that flew off
    # One thread, sorted: the order of pairs, and with it every sum, is the same in each run.
    search = vesin.NeighborList(cutoff=widest, full_list=False, sorted=True, n_threads=1)
    i, j, shifts, distances = search.compute(positions, box, pbc, "ijSd")
    shifts = shifts.astype(np.int32, copy=False)
    found = HalfList(i.astype(np.int64), j.astype(np.int64), shifts, shifts @ box)
    return tuple(
        found if cutoff == widest else found.only(np.flatnonzero(distances < cutoff))
        for cutoff in cutoffs
    )


def bonds(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> HalfList:
    """Return the pairs that are bonded, by their distance over the sum of covalent radii.

    Hydrogen is bonded to its nearest atom, up to 1.6; others up to 1.4; alkalis to nobody.
    """
    hydrogen = numbers == 1
    radii = np.where(np.isin(numbers, IONS), np.nan, covalent_radii[numbers])
    if np.isnan(radii).all():
        return all_pairs(0)
    largest = np.nanmax(radii) + max(np.nanmax(radii), covalent_radii[1])
    (pairs,) = pairs_within(positions, cell, pbc, HYDROGEN_FACTOR * largest)
    i, j = pairs.i, pairs.j
    ratios = np.linalg.norm(pairs.vectors(positions), axis=1) / (radii[i] + radii[j])
    nearest = np.full(len(numbers), np.inf)
    for end in (i, j):
        np.fmin.at(nearest, end, ratios)
    # Two hydrogens are a molecule if each is nearest to the other.
    settled = (~hydrogen[i] | (ratios <= nearest[i])) & (~hydrogen[j] | (ratios <= nearest[j]))
    reach = np.where(hydrogen[i] | hydrogen[j], HYDROGEN_FACTOR, BOND_FACTOR)
    return pairs.only(np.flatnonzero((ratios < reach) & settled))


def unfold(bonded: HalfList, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put bonded atoms beside each other, where a periodic boundary cuts their molecule.

    Parameters
    ----------
    bonded : HalfList
        The bonds.
    positions : numpy.ndarray of shape (n_atoms, 3)
        In Å.

    Returns
    -------
    positions : numpy.ndarray of shape (n_atoms, 3)
        In Å; the first atom of each molecule is where it was.
    molecules : numpy.ndarray of shape (n_atoms,)
        The molecule of each atom, counted from 0 in the order of first atoms.
    """
    steps = {}
    for i, j, step in zip(bonded.i, bonded.j, bonded.vectors(positions), strict=True):
        steps[i, j], steps[j, i] = step, -step
    n = len(positions)
    graph = coo_array((np.ones(len(bonded)), (bonded.i, bonded.j)), shape=(n, n)).tocsr()
    placed, molecules, count = positions.copy(), np.full(n, -1), 0
    for first in range(n):
        if molecules[first] < 0:
            order, before = breadth_first_order(graph, first, directed=False)
            for atom in order[1:]:
                placed[atom] = placed[before[atom]] + steps[before[atom], atom]
            molecules[order] = count
            count += 1
    return placed, molecules


def centres_of(positions: np.ndarray, molecules: np.ndarray) -> np.ndarray:
    """Return the mean position of each molecule's atoms; molecules are counted from 0."""
    sums = np.zeros((molecules.max() + 1, 3))
    np.add.at(sums, molecules, positions)
    centres: np.ndarray = sums / np.bincount(molecules)[:, None]
    return centres
