"""Make the small organic molecules of ``scikd.graphs.load_molecules``, with their gaps.

Molecules of C, N, O, F and S are grown atom by atom from a few rings and chains, by chance and by
the rules of valence. RDKit embeds one conformer of each (ETKDG, MMFF94), and GFN2-xTB gives the gap
between its highest occupied and lowest unoccupied orbital. From the root of a checkout, on one core
(three minutes)::

    OMP_NUM_THREADS=1 python data/graphs/make_molecules.py work-folder

Labels are appended to a file in the work folder: run it again after a kill and it goes on. The same
seed and versions give the same arrays in ``graphs/small_molecules.npz`` (graphs and labels) and
``data/graphs/geometries.npz`` (the positions that were labelled).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from ase.units import Bohr, Hartree
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem, rdMolDescriptors
from tblite.interface import Calculator, TBLiteRuntimeError

from scikd.graphs.molecules import SPLITS, molecule_graphs
from scikd.graphs.readers import random_split

logger = logging.getLogger("make_molecules")

ROOT = Path(__file__).resolve().parents[2]
SEED = 11
N_MOLECULES = 4000
LARGEST = 9  # heavy atoms
SMALLEST = 4
MOST_STEPS = 50
VALENCE = {6: 4, 7: 3, 8: 2, 9: 1, 16: 2}
ELEMENTS, SHARES = (6, 7, 8, 9, 16), (0.58, 0.15, 0.15, 0.05, 0.07)
STARTS = (
    *("C", "C", "C=C", "C#C", "C#N", "C=O", "C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1"),
    *("C1=CCCC1", "C1=CCCCC1", "C1=CC=CC=C1", "C1=CC=CC=C1", "C1=CNC=C1", "C1=COC=C1", "C1=CSC=C1"),
)
# What growth by chance makes, and a chemist would not find in a bottle.
UNWANTED = tuple(
    Chem.MolFromSmarts(pattern)
    for pattern in (
        "[#8,#9,#16]~[#8,#9,#16]",
        "[#7]~[#9]",
        "[N]~[S]",
        "[!#6;!n]~[!#6;!n]~[!#6;!n]",
        "N=O",
        "*=*=*",
        "*@#*",
        "[r4]@=[r4]@-[r4]@=[r4]",
        "[OX2H,SX2H,NX3]-[CX3]=[CX3]",  # enols and the like, which would rather be something else
        "[OX2H,SX2H]-[CX4]-[OX2,SX2,NX3,F]",
        "[OX2H,SX2H]-[C]=[N]",
        "[#6X3]=[SX1]",
        "[N,O,F,S]-C#C",
        "[NX2;!H0]=[NX2]",
        "[r3]@=*",
        "[a;r3]",
        "[a;r4]",
    )
)
ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


# -------------------------------------------------------------------------------------- growth


def kekulized(smiles: str) -> Chem.RWMol:
    """Return a molecule with single, double and triple bonds, and no hydrogens said of any atom."""
    molecule = Chem.RWMol(Chem.MolFromSmiles(smiles))
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    for atom in molecule.GetAtoms():
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(False)
    return molecule


def free(atom: Chem.Atom) -> int:
    """Return how many more bonds an atom can have."""
    used = sum(int(bond.GetBondTypeAsDouble()) for bond in atom.GetBonds())
    return VALENCE[atom.GetAtomicNum()] - used


def add_atom(molecule: Chem.RWMol, rng: np.random.Generator) -> None:
    """Bind a new atom to one with room for it."""
    places = [atom for atom in molecule.GetAtoms() if free(atom)]
    if not places:
        return
    place = places[rng.integers(len(places))]
    element = int(rng.choice(ELEMENTS, p=SHARES))
    most = min(free(place), VALENCE[element])
    order = min(int(rng.choice((1, 2, 3), p=(0.75, 0.2, 0.05))), most)
    molecule.AddBond(place.GetIdx(), molecule.AddAtom(Chem.Atom(element)), ORDERS[order])


def raise_order(molecule: Chem.RWMol, rng: np.random.Generator) -> None:
    """Make a double bond of a single one, or a triple of a double."""
    bonds = [
        (bond, bond.GetBondTypeAsDouble())
        for bond in molecule.GetBonds()
        if free(bond.GetBeginAtom()) and free(bond.GetEndAtom())
    ]
    bonds = [(bond, order) for bond, order in bonds if order < 3]
    if bonds:
        bond, order = bonds[rng.integers(len(bonds))]
        bond.SetBondType(ORDERS[int(order) + 1])


def close_ring(molecule: Chem.RWMol, rng: np.random.Generator) -> None:
    """Bind two atoms of a chain, into a ring of three to six."""
    distances = Chem.GetDistanceMatrix(molecule, force=True)
    room = np.array([free(atom) > 0 for atom in molecule.GetAtoms()])
    near = (distances >= 2) & (distances <= 5) & room & room[:, None]
    pairs = np.argwhere(np.triu(near))
    if len(pairs):
        a, b = pairs[rng.integers(len(pairs))].tolist()
        molecule.AddBond(a, b, ORDERS[1])


def change_element(molecule: Chem.RWMol, rng: np.random.Generator) -> None:
    """Put another element in the place of an atom, where it can bind as much."""
    atom = molecule.GetAtomWithIdx(int(rng.integers(molecule.GetNumAtoms())))
    used = VALENCE[atom.GetAtomicNum()] - free(atom)
    element = int(rng.choice(ELEMENTS, p=SHARES))
    if VALENCE[element] >= used:
        atom.SetAtomicNum(element)


CHANGES = (add_atom, raise_order, close_ring, change_element)
CHANCES = (0.55, 0.15, 0.1, 0.2)


def grown(rng: np.random.Generator) -> str | None:
    """Grow one molecule; return its canonical SMILES, or None if it is not wanted."""
    n_atoms = int(
        rng.choice(np.arange(SMALLEST, LARGEST + 1), p=(0.02, 0.05, 0.11, 0.2, 0.28, 0.34))
    )
    molecule = kekulized(STARTS[rng.integers(len(STARTS))])
    for _ in range(MOST_STEPS):  # a molecule without a free valence may stay as it is for ever
        if molecule.GetNumAtoms() >= n_atoms:
            break
        CHANGES[rng.choice(len(CHANGES), p=CHANCES)](molecule, rng)
    Chem.SanitizeMol(molecule)
    if molecule.GetNumAtoms() != n_atoms or any(map(molecule.HasSubstructMatch, UNWANTED)):
        return None
    n_rings = rdMolDescriptors.CalcNumRings(molecule)
    n_carbons = sum(atom.GetAtomicNum() == 6 for atom in molecule.GetAtoms())
    bridged = rdMolDescriptors.CalcNumBridgeheadAtoms(molecule)
    if n_rings > 2 or bridged or n_carbons < n_atoms / 2:
        return None
    return Chem.MolToSmiles(molecule)


def molecules() -> Iterator[str]:
    """Yield different molecules without end."""
    rng = np.random.default_rng(SEED)
    seen: set[str] = set()
    while True:
        smiles = grown(rng)
        if smiles and smiles not in seen:
            seen.add(smiles)
            yield smiles


# -------------------------------------------------------------------------------------- labels


def geometry(smiles: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return atomic numbers and positions in thousandths of Å, or None where there are none."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = AllChem.ETKDGv3()
    settings.randomSeed = SEED
    if AllChem.EmbedMolecule(molecule, settings) or AllChem.MMFFOptimizeMolecule(
        molecule, maxIters=2000
    ):
        return None
    positions = molecule.GetConformer().GetPositions()
    positions = np.rint(1000 * (positions - positions.mean(axis=0))).astype(np.int16)
    return np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]), positions


def gap_of(numbers: np.ndarray, positions: np.ndarray) -> float | None:
    """Return the gap in eV at positions in thousandths of Å, or None without convergence."""
    calculator = Calculator("GFN2-xTB", numbers, positions / 1000 / Bohr)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", 0.1)
    try:
        result = calculator.singlepoint()
    except TBLiteRuntimeError:
        return None
    energies, filled = result["orbital-energies"], result["orbital-occupations"] > 1.0
    return float(energies[~filled].min() - energies[filled].max()) * Hartree


def label(smiles: str) -> dict:
    """Return one molecule with its gap in eV, which is None where anything failed."""
    shape = geometry(smiles)
    gap = gap_of(*shape) if shape else None
    if gap is None:
        return {"smiles": smiles, "gap": None}
    numbers, positions = (array.tolist() for array in shape)
    return {"smiles": smiles, "gap": gap, "numbers": numbers, "positions": positions}


def labelled(work: Path) -> Iterator[dict]:
    """Yield labelled molecules without end; the work folder remembers them."""
    path = work / f"labels-{SEED}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    done = [json.loads(line) for line in lines if line.endswith("\n")]
    path.write_text("".join(lines[: len(done)]), encoding="utf-8")
    start = time.monotonic()
    with path.open("a", encoding="utf-8", buffering=1) as file:
        for number, smiles in enumerate(molecules()):
            row = done[number] if number < len(done) else label(smiles)
            if row["smiles"] != smiles:
                raise ValueError(f"{path} was made by other versions: remove it")
            if number >= len(done):
                file.write(json.dumps(row) + "\n")
            if number % 200 == 0:
                logger.info("%d tried, %.0f s", number + 1, time.monotonic() - start)
            if row["gap"] is None:
                logger.info("no label for %s", smiles)
            else:
                yield row


def main() -> None:
    """Write both files."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    RDLogger.DisableLog("rdApp.*")
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    rows = list(islice(labelled(work), N_MOLECULES))
    gap = np.array([row["gap"] for row in rows], dtype=np.float32)
    y = np.digitize(gap, np.quantile(gap, [1 / 3, 2 / 3])).astype(np.uint8)
    split = np.zeros(len(y), dtype=np.uint8)
    for code, name in enumerate(SPLITS):
        split[random_split(y, SEED)[name]] = code
    graphs = molecule_graphs([row["smiles"] for row in rows])
    np.savez_compressed(
        ROOT / "graphs" / "small_molecules.npz",
        node_ptr=graphs.node_ptr.astype(np.int32),
        arc_ptr=graphs.arc_ptr.astype(np.int32),
        sources=graphs.sources.astype(np.int32),
        targets=graphs.targets.astype(np.int32),
        node_features=graphs.node_features.astype(np.uint8),
        edge_features=graphs.edge_features.astype(np.uint8),
        smiles=np.array([smiles.encode() for smiles in graphs.smiles]),
        gap=gap,
        y=y,
        split=split,
    )
    np.savez_compressed(
        ROOT / "data" / "graphs" / "geometries.npz",
        n_atoms=np.array([len(row["numbers"]) for row in rows], dtype=np.uint8),
        numbers=np.concatenate([row["numbers"] for row in rows]).astype(np.uint8),
        positions=np.concatenate([row["positions"] for row in rows]).astype(np.int16),
    )


if __name__ == "__main__":
    main()
