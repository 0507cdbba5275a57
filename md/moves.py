"""Moves of whole molecules, from which structures to learn from are made, and a check of them.

All take and return `ase.Atoms` with ``arrays["molecules"]``, the molecule of each atom; see
`scikd.md.frames.find_molecules` where it is not there.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic

from scikd.exceptions import InvalidInputError

from ._half_list import HalfList, bonds, centres_of, pairs_within, unfold

__all__ = [
    "CONTACT",
    "cut_cluster",
    "distort",
    "find_bonds",
    "is_sane",
    "join_at_contact",
    "make_whole",
    "scale_molecules",
]

# Half distances in Å, by atomic number, at which atoms of different molecules touch in liquids
# (H, Li, C, O, F, P; 1.7 Å for all others); a lithium ion sits 2 Å from oxygen.
CONTACT = np.full(119, 1.7)
CONTACT[[1, 3, 6, 8, 9, 15]] = [1.15, 0.5, 1.65, 1.5, 1.45, 1.8]

_STRETCH = (0.70, 1.45)  # of the sum of covalent radii: bonds of hot molecules stay within
_CLOSEST = 0.7  # Å between any two atoms


def _molecules(atoms: Atoms) -> np.ndarray:
    if "molecules" not in atoms.arrays:
        message = (
            "Expected a structure with arrays['molecules'], the molecule of each atom; got "
            f"{atoms.get_chemical_formula()} with {sorted(atoms.arrays)}. "
            "scikd.md.frames.find_molecules finds them."
        )
        raise InvalidInputError(message)
    ids: np.ndarray = np.unique(atoms.arrays["molecules"], return_inverse=True)[1]
    return ids.reshape(-1)


def find_bonds(atoms: Atoms) -> HalfList:
    """Return the bonds within the molecules of a structure, from covalent radii.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure, in which no bond is torn.

    Returns
    -------
    HalfList
        One entry per bond; `is_sane` looks at these bonds later.
    """
    molecules = _molecules(atoms)
    found = bonds(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc)
    return found.only(np.flatnonzero(molecules[found.i] == molecules[found.j]))


def make_whole(atoms: Atoms) -> Atoms:
    """Return a copy in which no molecule is cut by a periodic boundary.

    Parameters
    ----------
    atoms : ase.Atoms
        A box, or a cluster, which stays as it is.

    Returns
    -------
    ase.Atoms
        The first atom of each molecule is where it was.
    """
    joined, bonded = atoms.copy(), find_bonds(atoms)
    if atoms.pbc.any():
        joined.positions, _ = unfold(bonded, atoms.positions)
    return joined


def scale_molecules(atoms: Atoms, factor: float) -> Atoms:
    """Move whole molecules apart or together, each kept rigid: one step of a volume scan.

    Parameters
    ----------
    atoms : ase.Atoms
        A cluster or a box.
    factor : float
        What the distances between the molecules' centres, and a cell, are multiplied with.

    Returns
    -------
    ase.Atoms
        A copy.
    """
    molecules, scaled = _molecules(atoms), make_whole(atoms)
    centres = centres_of(scaled.positions, molecules)
    origin = np.zeros(3) if atoms.pbc.any() else centres.mean(axis=0)
    scaled.positions += ((factor - 1.0) * (centres - origin))[molecules]
    scaled.set_cell(atoms.cell * factor)
    return scaled


def cut_cluster(atoms: Atoms, n_molecules: int, *, centre: int) -> Atoms:
    """Cut a molecule and those next to it out of a box or a larger cluster.

    Parameters
    ----------
    atoms : ase.Atoms
        Where to cut; of a periodic box the nearest images are taken.
    n_molecules : int
        How many molecules, the one in the centre included; the nearest by their nearest atoms.
    centre : int
        Number of the molecule in the centre.

    Returns
    -------
    ase.Atoms
        A free cluster around the origin, with all arrays per atom of those cut out.
    """
    molecules, joined = _molecules(atoms), make_whole(atoms)
    if not 1 <= n_molecules <= molecules.max() + 1 or not 0 <= centre <= molecules.max():
        message = (
            f"Expected n_molecules from 1 to {molecules.max() + 1} and a centre below that; got "
            f"n_molecules={n_molecules}, centre={centre}."
        )
        raise InvalidInputError(message)
    positions = joined.positions
    if atoms.pbc.any():
        centres = centres_of(positions, molecules)
        steps = centres - centres[centre]
        positions = positions + (find_mic(steps, atoms.cell, atoms.pbc)[0] - steps)[molecules]
    own = positions[molecules == centre]
    distances = np.linalg.norm(positions[:, None] - own[None], axis=2).min(axis=1)
    nearest = np.full(molecules.max() + 1, np.inf)
    np.minimum.at(nearest, molecules, distances)
    kept = np.isin(molecules, np.argsort(nearest, kind="stable")[:n_molecules])
    cluster = joined[kept]
    cluster.positions = positions[kept] - positions[kept].mean(axis=0)
    cluster.set_cell(None)
    cluster.pbc = False
    cluster.info.pop("total_charge", None)  # that of the whole
    cluster.set_array("molecules", np.unique(molecules[kept], return_inverse=True)[1].reshape(-1))
    return cluster


def join_at_contact(
    first: Atoms, second: Atoms, *, scale: float, rng: np.random.Generator
) -> Atoms:
    """Put two free clusters side by side, turned (or mirrored) at random.

    Parameters
    ----------
    first, second : ase.Atoms
        The clusters.
    scale : float
        The smallest ratio of a distance between them to the sum of two `CONTACT`: 1 where they
        touch.
    rng : numpy.random.Generator
        Draws the orientation.

    Returns
    -------
    ase.Atoms
        The atoms of the first, then those of the second.
    """
    a = first.positions - first.positions.mean(axis=0)
    b = (second.positions - second.positions.mean(axis=0)) @ _orthogonal(rng)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    reach = scale * (CONTACT[first.numbers][:, None] + CONTACT[second.numbers][None])
    # |b + t u - a| = reach for each pair; the last of these contacts is where to stop.
    gaps = b[None] - a[:, None]
    along = gaps @ direction
    roots = along**2 - (gaps**2).sum(axis=2) + reach**2
    stops = (np.sqrt(np.maximum(roots, 0.0)) - along)[roots > 0]
    b = b + direction * (stops.max() if stops.size else 0.0)
    joined = Atoms(np.append(first.numbers, second.numbers), np.vstack([a, b]))
    ids = _molecules(first)
    joined.set_array("molecules", np.append(ids, _molecules(second) + ids.max() + 1))
    return joined


def _orthogonal(rng: np.random.Generator) -> np.ndarray:
    """Return a rotation or reflection, uniform over all."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    turned: np.ndarray = q * np.sign(np.diag(r))
    return turned


def distort(atoms: Atoms, amplitude: float, rng: np.random.Generator) -> Atoms:
    """Displace every coordinate by a normal deviate.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.
    amplitude : float
        Standard deviation in Å.
    rng : numpy.random.Generator
        Draws the displacements.

    Returns
    -------
    ase.Atoms
        A copy.
    """
    moved = atoms.copy()
    moved.positions += amplitude * rng.normal(size=(len(atoms), 3))
    return moved


def is_sane(atoms: Atoms, bonded: HalfList, *, closest: float = 0.6) -> bool:
    """Say whether bonds hold and no two molecules run into each other.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure, perhaps after a move.
    bonded : HalfList
        Its bonds, from `find_bonds` before the move; of periodic images the nearest count.
    closest : float, default=0.6
        Least distance between atoms of different molecules, over the sum of their `CONTACT`.

    Returns
    -------
    bool
        False also where a position is not finite.
    """
    if not np.isfinite(atoms.positions).all():
        return False
    molecules, numbers = _molecules(atoms), atoms.numbers
    vectors = atoms.positions[bonded.j] - atoms.positions[bonded.i]
    lengths = find_mic(vectors, atoms.cell, atoms.pbc)[1] if len(bonded) else np.zeros(0)
    ratio = lengths / (covalent_radii[numbers[bonded.i]] + covalent_radii[numbers[bonded.j]])
    if ((ratio < _STRETCH[0]) | (ratio > _STRETCH[1])).any():
        return False
    widest = max(2 * closest * CONTACT[numbers].max(), _CLOSEST)
    (near,) = pairs_within(atoms.positions, atoms.cell[:], atoms.pbc, widest)
    distances = np.linalg.norm(near.vectors(atoms.positions), axis=1)
    limit = closest * (CONTACT[numbers[near.i]] + CONTACT[numbers[near.j]])
    between = molecules[near.i] != molecules[near.j]
    return not bool((between & (distances < limit)).any() or (distances < _CLOSEST).any())
