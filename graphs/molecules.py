"""Molecules as graphs: the features of the Open Graph Benchmark, and the molecules that ship here.

Atoms and bonds are described by whole numbers, each an index into a list of values; what is on no
list has the last index. The order is that of OGB, so that graphs made here and its own files agree
in every entry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._edges import from_edges
from .graphset import GraphSet

__all__ = [
    "ATOM_FEATURES",
    "BOND_FEATURES",
    "SPLITS",
    "load_molecules",
    "load_molecules_split",
    "molecule_graph",
    "molecule_graphs",
]

logger = logging.getLogger(__name__)

SMALL_MOLECULES = Path(__file__).with_name("small_molecules.npz")
SPLITS = ("train", "valid", "test")
MISC = "misc"

ATOM_FEATURES: dict[str, tuple[Any, ...]] = {
    "atomic_number": (*range(1, 119), MISC),
    "chirality": (
        *("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER"),
        MISC,
    ),
    "degree": (*range(11), MISC),
    "formal_charge": (*range(-5, 6), MISC),
    "n_hydrogens": (*range(9), MISC),
    "n_radical_electrons": (*range(5), MISC),
    "hybridization": ("SP", "SP2", "SP3", "SP3D", "SP3D2", MISC),
    "is_aromatic": (False, True),
    "is_in_ring": (False, True),
}
"""The nine columns of ``node_features`` and the values that their indices stand for."""

BOND_FEATURES: dict[str, tuple[Any, ...]] = {
    "bond_type": ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC", MISC),
    "stereo": (
        *("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS"),
        "STEREOANY",
    ),
    "is_conjugated": (False, True),
}
"""The three columns of ``edge_features`` and the values that their indices stand for."""

_ATOM_VALUES: tuple[Callable[[Any], Any], ...] = (
    lambda atom: atom.GetAtomicNum(),
    lambda atom: atom.GetChiralTag().name,
    lambda atom: atom.GetTotalDegree(),
    lambda atom: atom.GetFormalCharge(),
    lambda atom: atom.GetTotalNumHs(),
    lambda atom: atom.GetNumRadicalElectrons(),
    lambda atom: atom.GetHybridization().name,
    lambda atom: atom.GetIsAromatic(),
    lambda atom: atom.IsInRing(),
)
_BOND_VALUES: tuple[Callable[[Any], Any], ...] = (
    lambda bond: bond.GetBondType().name,
    lambda bond: bond.GetStereo().name,
    lambda bond: bond.GetIsConjugated(),
)
_Columns = tuple[tuple[Callable[[Any], Any], dict[Any, int], int], ...]


def _columns(values: Sequence[Callable[[Any], Any]], lists: dict[str, tuple[Any, ...]]) -> _Columns:
    """Return, of each feature, how to ask for it, the index of each value, and that of others."""
    return tuple(
        (value, {entry: k for k, entry in enumerate(entries)}, len(entries) - 1)
        for value, entries in zip(values, lists.values(), strict=True)
    )


_ATOM_COLUMNS = _columns(_ATOM_VALUES, ATOM_FEATURES)
_BOND_COLUMNS = _columns(_BOND_VALUES, BOND_FEATURES)


def molecule_graph(smiles: str) -> GraphSet:
    """Return a molecule as a graph with OGB's features; hydrogens are not nodes.

    Parameters
    ----------
    smiles : str
        The molecule.

    Returns
    -------
    GraphSet
        One graph. Its nodes are the atoms in the order of the SMILES, ``node_features`` has the
        columns of `ATOM_FEATURES`; each bond is two arcs, ``edge_features`` has the columns of
        `BOND_FEATURES`.

    Raises
    ------
    InvalidInputError
        If RDKit finds no molecule in it.
    MissingExtraError
        If RDKit is not installed.
    """
    return molecule_graphs([smiles])


def molecule_graphs(
    smiles: Sequence[str],
    y: np.ndarray | None = None,
    *,
    name: str = "",
    unreadable: Literal["raise", "drop"] = "raise",
) -> GraphSet:
    """Return molecules as graphs: see `molecule_graph`.

    Parameters
    ----------
    smiles : sequence of str
        The molecules.
    y : array-like of shape (n_molecules,), optional
        Their labels.
    name : str, default=""
        What to call the data.
    unreadable : {"raise", "drop"}, default="raise"
        Whether SMILES in which RDKit finds no molecule are an error, or are left out with a log
        line that says how many.

    Raises
    ------
    InvalidInputError
        If there are none, one cannot be read, or none of them can.
    MissingExtraError
        If RDKit is not installed.
    """
    if not len(smiles):
        raise InvalidInputError("Expected at least one SMILES; got none.")
    chem = require("rdkit.Chem", extra="molecules", feature="Reading SMILES")
    base = require("rdkit.rdBase", extra="molecules", feature="Reading SMILES")
    sizes: list[int] = []
    counts: list[int] = []
    atoms: list[list[int]] = []
    bonds: list[list[int]] = []
    ends: list[tuple[int, int]] = []
    kept: list[int] = []
    lost: list[int] = []
    with base.BlockLogs():  # RDKit would write about each to standard error
        for number, text in enumerate(smiles):
            molecule = chem.MolFromSmiles(text) if isinstance(text, str) else None
            if molecule is None or not molecule.GetNumAtoms():
                lost.append(number)
                continue
            kept.append(number)
            sizes.append(molecule.GetNumAtoms())
            counts.append(molecule.GetNumBonds())
            atoms.extend(_rows(molecule.GetAtoms(), _ATOM_COLUMNS))
            bonds.extend(_rows(molecule.GetBonds(), _BOND_COLUMNS))
            ends.extend((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds())
    if lost:
        first = f"the first is number {lost[0]}, {smiles[lost[0]]!r}"
        message = f"{len(lost)} of {len(smiles)} SMILES cannot be read as molecules: {first}."
        if unreadable == "raise" or not kept:
            raise InvalidInputError(message)
        logger.warning("%s They are left out.", message)
    return from_edges(
        np.array(sizes),
        np.array(counts),
        np.array(ends, dtype=np.int64).reshape(-1, 2),
        np.array(atoms),
        np.array(bonds, dtype=np.int64).reshape(-1, len(_BOND_COLUMNS)),
        y=None if y is None else np.asarray(y)[kept],
        name=name,
        smiles=tuple(smiles[number] for number in kept),
    )


def _rows(parts: Any, columns: _Columns) -> list[list[int]]:
    return [[index.get(value(part), misc) for value, index, misc in columns] for part in parts]


# ------------------------------------------------------------------------ the molecules that ship


def load_molecules() -> GraphSet:
    """Return 4,000 small organic molecules, labelled by the gap of their orbitals.

    They have up to nine atoms of C, N, O, F and S, hydrogens not counted. ``y`` says in which third
    the gap between the highest occupied and the lowest unoccupied orbital lies, in GFN2-xTB: 0 for
    the smallest gaps, 2 for the largest. They are part of the package and need neither RDKit nor a
    download; ``data/graphs/README.md`` in the sources says how they were made.

    Returns
    -------
    GraphSet
        Features as those of `molecule_graph`, with ``smiles``.
    """
    arrays = _shipped()
    return GraphSet(
        **{field: arrays[field] for field in _SHIPPED_FIELDS},
        y=arrays["y"].astype(np.int64),
        name="small molecules",
        smiles=tuple(text.decode() for text in arrays["smiles"].tolist()),
    )


def load_molecules_split() -> dict[str, np.ndarray]:
    """Return the split of `load_molecules` that results on it are to be reported for.

    Returns
    -------
    dict of str to numpy.ndarray
        Numbers of the graphs of ``"train"`` (80 %), ``"valid"`` and ``"test"`` (10 % each), int64.
    """
    split = _shipped()["split"]
    return {name: np.flatnonzero(split == code) for code, name in enumerate(SPLITS)}


_SHIPPED_FIELDS = (
    *("node_ptr", "arc_ptr", "sources", "targets"),
    *("node_features", "edge_features"),
)


def _shipped() -> dict[str, np.ndarray]:
    with np.load(SMALL_MOLECULES, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
