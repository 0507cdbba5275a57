"""Batches of structures with their labels: one immutable type, made from and to `ase.Atoms`.

Units are Å, eV, eV/Å, e, e·Å and eV/Å³. Stress has ASE's sign and Voigt order (xx, yy, zz, yz, xz,
xy): it is positive under tension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols, covalent_radii
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Batch, Data

from scikd.exceptions import InvalidInputError

from ._half_list import HalfList, all_pairs, pairs_within

__all__ = [
    "LARGEST_NUMBER",
    "AtomicBatch",
    "check_geometry",
    "collate",
    "find_molecules",
    "from_ase",
    "select",
    "to_ase",
]

LARGEST_NUMBER = 86  # radon: what the network's table of elements ends with

BOND_FACTOR = 1.25  # of the sum of covalent radii; Li+ and its solvent stay apart
IONS = (3, 4, 11, 12, 19, 20, 37, 38, 55, 56)  # alkali and alkaline-earth metals
SMALLEST_DISTANCE = 0.3  # Å
SINGULAR = 1e-6  # of the volume that vectors of this length would span at right angles
FEW_ATOMS = 300  # below, all distances are computed sooner than a neighbour list
MOST_SHOWN = 10  # faulty structures in one message

PER_ATOM = ("positions", "numbers", "molecules", "forces", "charges")
PER_STRUCTURE = ("cell", "pbc", "total_charge", "energy", "stress", "dipole")
LABELS = {"energy": (), "forces": (3,), "stress": (6,), "charges": (), "dipole": (3,)}
MOLECULE_ARRAYS = ("molecules", "molID", "mol_id")
CHARGE_ENTRIES = ("total_charge", "charge")


@dataclass(frozen=True, slots=True, eq=False)
class AtomicBatch:
    """Structures and their labels, as tensors on one device.

    A label that no structure has is None; where only some have it, the others hold NaN.

    Attributes
    ----------
    positions : torch.Tensor of shape (n_atoms, 3)
        In Å.
    numbers : torch.Tensor of shape (n_atoms,)
        Atomic numbers, int64.
    batch : torch.Tensor of shape (n_atoms,)
        The structure that each atom belongs to, int64, ascending.
    cell : torch.Tensor of shape (n_structures, 3, 3)
        Rows are lattice vectors, in Å; zeros where there are none.
    pbc : torch.Tensor of shape (n_structures, 3)
        Which directions are periodic, bool.
    molecules : torch.Tensor of shape (n_atoms,)
        The molecule that each atom belongs to, int64; numbered within a structure, -1 if unknown.
    total_charge : torch.Tensor of shape (n_structures,)
        In e.
    energy : torch.Tensor of shape (n_structures,) or None
        In eV.
    forces : torch.Tensor of shape (n_atoms, 3) or None
        In eV/Å.
    stress : torch.Tensor of shape (n_structures, 6) or None
        In eV/Å³, ASE's sign and Voigt order.
    charges : torch.Tensor of shape (n_atoms,) or None
        In e.
    dipole : torch.Tensor of shape (n_structures, 3) or None
        In e·Å.
    """

    positions: torch.Tensor
    numbers: torch.Tensor
    batch: torch.Tensor
    cell: torch.Tensor
    pbc: torch.Tensor
    molecules: torch.Tensor
    total_charge: torch.Tensor
    energy: torch.Tensor | None = None
    forces: torch.Tensor | None = None
    stress: torch.Tensor | None = None
    charges: torch.Tensor | None = None
    dipole: torch.Tensor | None = None

    def __post_init__(self) -> None:
        n, b = len(self.numbers), len(self.cell)
        expected = {
            "positions": (n, 3),
            "batch": (n,),
            "cell": (b, 3, 3),
            "pbc": (b, 3),
            "molecules": (n,),
            "total_charge": (b,),
        }
        for name, shape in LABELS.items():
            expected[name] = (n if name in PER_ATOM else b, *shape)
        wrong = [
            f"{name} {tuple(value.shape)} instead of {shape}"
            for name, shape in expected.items()
            if (value := getattr(self, name)) is not None and tuple(value.shape) != shape
        ]
        if wrong:
            message = (
                f"Expected tensors for {n} atoms (as in numbers) and {b} structures (as in cell); "
                f"got {', '.join(wrong)}."
            )
            raise InvalidInputError(message)
        # On a GPU, to look would be to wait for it.
        if n and self.batch.device.type == "cpu" and (self.batch.diff() < 0).any():
            message = "Expected the atoms of one structure together: batch must not descend."
            raise InvalidInputError(message)

    @property
    def n_structures(self) -> int:
        """How many structures there are."""
        return len(self.cell)

    @property
    def n_atoms(self) -> int:
        """How many atoms there are in all structures together."""
        return len(self.numbers)

    @property
    def counts(self) -> torch.Tensor:
        """How many atoms each structure has, shape (n_structures,), int64."""
        return torch.bincount(self.batch, minlength=self.n_structures)

    @property
    def volume(self) -> torch.Tensor:
        """Volume of each cell in Å³, shape (n_structures,); zero where there is no cell."""
        return torch.linalg.det(self.cell).abs()

    @property
    def virial(self) -> torch.Tensor | None:
        """Virial -dE/dε = -V·stress in eV, shape (n_structures, 3, 3), or None without stress."""
        if self.stress is None:
            return None
        full = self.stress[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)
        return -self.volume[:, None, None] * full

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> AtomicBatch:
        """Return the batch on another device, or with other floating-point numbers."""
        changed = {}
        for name, value in self.tensors().items():
            kind = dtype if value.is_floating_point() else None
            changed[name] = value.to(device=device, dtype=kind)
        return replace(self, **changed)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that are there, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class _Joined(Data):
    """A batch as torch_geometric sees it: joining shifts the structures' numbers."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return len(self["cell"]) if key == "structure" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> int:
        return 0


def collate(batches: Sequence[AtomicBatch]) -> AtomicBatch:
    """Join batches into one, through torch_geometric's ``Batch``.

    A label that only some of them have becomes NaN for the others.

    Parameters
    ----------
    batches : sequence of AtomicBatch
        At least one, all on one device.

    Raises
    ------
    InvalidInputError
        If there are none.
    """
    if not batches:
        message = "Expected at least one batch to join; got none."
        raise InvalidInputError(message)
    if len(batches) == 1:
        return batches[0]
    labels = {name for name in LABELS if any(getattr(b, name) is not None for b in batches)}
    parts = []
    for batch in batches:
        tensors = batch.tensors()
        for name in labels - set(tensors):
            rows = batch.n_atoms if name in PER_ATOM else batch.n_structures
            tensors[name] = batch.positions.new_full((rows, *LABELS[name]), torch.nan)
        tensors["structure"] = tensors.pop("batch")
        parts.append(_Joined.from_dict(tensors))
    joined = Batch.from_data_list(parts)
    names = [field.name for field in fields(AtomicBatch) if field.name != "batch"]
    values = {name: joined[name] for name in names if name in joined}
    return AtomicBatch(batch=joined["structure"], **values)


def select(batch: AtomicBatch, indices: Sequence[int] | torch.Tensor | np.ndarray) -> AtomicBatch:
    """Return some of the structures, in the order asked for; one may be asked for twice.

    Parameters
    ----------
    batch : AtomicBatch
        The structures.
    indices : sequence of int
        Which, counted from 0; negative ones count from the end.

    Raises
    ------
    InvalidInputError
        If there is no structure of that number.
    """
    device, n = batch.positions.device, batch.n_structures
    chosen = torch.as_tensor(indices, dtype=torch.int64, device=device).reshape(-1)
    if len(chosen) and (int(chosen.min()) < -n or int(chosen.max()) >= n):
        message = f"Expected numbers of structures from 0 to {n - 1}; got {chosen.tolist()}."
        raise InvalidInputError(message)
    chosen = torch.where(chosen < 0, chosen + n, chosen)
    counts = batch.counts
    sizes = counts[chosen]
    structure = torch.repeat_interleave(torch.arange(len(chosen), device=device), sizes)
    # Atom k of a chosen structure stands k places after the structure's first atom.
    first, start = counts.cumsum(0) - counts, sizes.cumsum(0) - sizes
    atoms = torch.arange(len(structure), device=device) + (first[chosen] - start)[structure]
    taken = {
        name: value[atoms if name in PER_ATOM else chosen]
        for name, value in batch.tensors().items()
        if name != "batch"
    }
    return AtomicBatch(batch=structure, **taken)


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


def _labels_of(atoms: Atoms, keys: dict[str, str | None], where: str) -> dict[str, np.ndarray]:
    """Return the labels of one structure that are there."""
    results = _in_calculator(atoms)
    found = {}
    for name, shape in LABELS.items():
        value = _find(atoms, results, name, keys.get(name))
        if value is not None:
            full = (len(atoms), *shape) if name in PER_ATOM else shape
            found[name] = _shaped(value, name, full, where)
    virial = None if "stress" in found else _find(atoms, results, "virial", keys.get("virial"))
    if virial is not None and atoms.cell.rank == 3:
        stress = -np.asarray(virial, dtype=np.float64) / atoms.cell.volume
        found["stress"] = _shaped(stress, "stress", (6,), where)
    return found


def _total_charge(atoms: Atoms, key: str | None) -> float:
    for name in (key,) if key else CHARGE_ENTRIES:
        if name in atoms.info:
            return float(atoms.info[name])
    # As ASE's calculators do; what is left of the sum after rounding is not a charge.
    charges = atoms.arrays.get("initial_charges")
    return 0.0 if charges is None else float(np.round(charges.sum(), 6))


def _molecules(atoms: Atoms, key: str | None) -> np.ndarray:
    for name in (key,) if key else MOLECULE_ARRAYS:
        if name in atoms.arrays:
            return np.asarray(atoms.arrays[name], dtype=np.int64)
    return np.full(len(atoms), -1)


def from_ase(
    atoms: Atoms | Sequence[Atoms],
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    virial_key: str | None = None,
    charges_key: str | None = None,
    dipole_key: str | None = None,
    total_charge_key: str | None = None,
    molecules_key: str | None = None,
    dtype: torch.dtype = torch.float64,
    check: bool = True,
) -> AtomicBatch:
    """Make a batch of ASE's structures.

    Labels are taken from the calculator's results if it holds any for these positions, else from
    ``atoms.info`` and ``atoms.arrays``, under their own names or those given here. Without a
    stress, one is made of a virial, where there is a cell: ``stress = -virial / volume``. The total
    charge is ``info["total_charge"]``, or ``info["charge"]``, or the sum of ASE's initial charges.
    Molecules are ``arrays["molecules"]``, or ``arrays["molID"]``.

    Parameters
    ----------
    atoms : ase.Atoms or sequence of ase.Atoms
        The structures, labels in eV, eV/Å, eV/Å³, e and e·Å.
    energy_key, forces_key, stress_key, virial_key, charges_key, dipole_key : str, optional
        Names of labels in ``info``, ``arrays`` or the results, where they are not the usual ones.
    total_charge_key, molecules_key : str, optional
        As above, of the total charge and of the molecules' numbers.
    dtype : torch.dtype, default=torch.float64
        Of everything that is not a whole number.
    check : bool, default=True
        Whether to look for overlapping atoms and the like: see `check_geometry`.

    Raises
    ------
    InvalidInputError
        If a label has a wrong shape, or `check_geometry` finds fault.
    """
    frames = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    if not frames:
        message = "Expected at least one structure; got none."
        raise InvalidInputError(message)
    keys = {
        "energy": energy_key,
        "forces": forces_key,
        "stress": stress_key,
        "virial": virial_key,
        "charges": charges_key,
        "dipole": dipole_key,
    }
    found = [_labels_of(frame, keys, f"structure {k}") for k, frame in enumerate(frames)]
    counts = np.array([len(frame) for frame in frames])
    arrays = {
        "positions": np.concatenate([frame.positions for frame in frames]),
        "cell": np.stack([frame.cell[:] for frame in frames]),
        "total_charge": np.array([_total_charge(frame, total_charge_key) for frame in frames]),
    }
    for name in {name for labels in found for name in labels}:
        rows = [(n, *LABELS[name]) if name in PER_ATOM else LABELS[name] for n in counts]
        values = [
            labels[name] if name in labels else np.full(row, np.nan)
            for labels, row in zip(found, rows, strict=True)
        ]
        arrays[name] = np.concatenate(values) if name in PER_ATOM else np.stack(values)
    batch = AtomicBatch(
        numbers=torch.from_numpy(np.concatenate([f.numbers for f in frames]).astype(np.int64)),
        batch=torch.from_numpy(np.repeat(np.arange(len(frames)), counts)),
        pbc=torch.from_numpy(np.stack([frame.pbc for frame in frames])),
        molecules=torch.from_numpy(np.concatenate([_molecules(f, molecules_key) for f in frames])),
        **{name: torch.from_numpy(value).to(dtype) for name, value in arrays.items()},
    )
    if check:
        check_geometry(batch)
    return batch


def to_ase(batch: AtomicBatch) -> list[Atoms]:
    """Make ASE's structures of a batch.

    Labels go into a ``SinglePointCalculator``, molecules into ``arrays["molecules"]`` where known,
    the total charge into ``info["total_charge"]``.
    """
    values = {name: tensor.detach().cpu().numpy() for name, tensor in batch.tensors().items()}
    ends = np.cumsum(batch.counts.cpu().numpy())
    frames = []
    for k, end in enumerate(ends):
        rows = slice(ends[k - 1] if k else 0, end)
        one = {n: v[rows] if n in PER_ATOM else v[k] for n, v in values.items() if n != "batch"}
        atoms = Atoms(one["numbers"], one["positions"], cell=one["cell"], pbc=one["pbc"])
        atoms.info["total_charge"] = float(one["total_charge"])
        if (one["molecules"] >= 0).any():
            atoms.set_array("molecules", one["molecules"])
        labels = {name: one[name] for name in LABELS if name in one}
        labels = {n: v.astype(float) for n, v in labels.items() if not np.isnan(v).any()}
        if "energy" in labels:
            labels["energy"] = float(labels["energy"])
        if labels:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def check_geometry(batch: AtomicBatch, *, smallest_distance: float = SMALLEST_DISTANCE) -> None:
    """Raise an error that names every structure that cannot be one.

    Parameters
    ----------
    batch : AtomicBatch
        The structures.
    smallest_distance : float, default=0.3
        Atoms that are closer, in Å, overlap.

    Raises
    ------
    InvalidInputError
        If a structure is empty, or has positions that are not finite, elements outside 1 to 86, a
        cell that is singular although it is periodic, or atoms that overlap.
    """
    values = {name: tensor.detach().cpu().numpy() for name, tensor in batch.tensors().items()}
    ends = np.cumsum(batch.counts.cpu().numpy())
    problems = []
    for k, end in enumerate(ends):
        rows = slice(ends[k - 1] if k else 0, end)
        problem = _problem(
            values["positions"][rows],
            values["numbers"][rows],
            values["cell"][k],
            values["pbc"][k],
            smallest_distance,
        )
        if problem:
            problems.append(f"structure {k}: {problem}")
    if problems:
        shown = "\n".join(problems[:MOST_SHOWN])
        message = f"{len(problems)} of {len(ends)} structures cannot be used:\n{shown}"
        raise InvalidInputError(message)


def _problem(
    positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray, smallest: float
) -> str | None:
    """Say what is wrong with one structure, or None."""
    if not len(numbers):
        return "expected at least one atom; it is empty"
    if not np.isfinite(positions).all():
        atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        return f"expected finite positions; atom {atom} is at {positions[atom].tolist()}"
    unknown = sorted(set(numbers[(numbers < 1) | (numbers > LARGEST_NUMBER)].tolist()))
    if unknown:
        return f"expected atomic numbers from 1 to {LARGEST_NUMBER}; got {unknown}"
    if not np.isfinite(cell).all() or (pbc.any() and _is_flat(cell[pbc])):
        return (
            "expected lattice vectors that span the periodic directions; got "
            f"{cell.tolist()}: give a cell, or set pbc=False"
        )
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


def find_molecules(atoms: Atoms) -> np.ndarray:
    """Find the molecules of a structure, through periodic boundaries too.

    Two atoms are bonded if they are closer than 1.25 times the sum of their covalent radii. Alkali
    and alkaline-earth metals are ions in an electrolyte, and stand alone.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.

    Returns
    -------
    numpy.ndarray of shape (n_atoms,)
        The molecule of each atom, int64, counted from 0 in the order of first atoms.
    """
    radii = np.where(np.isin(atoms.numbers, IONS), 0.0, covalent_radii[atoms.numbers])
    if not len(atoms):
        return np.zeros(0, dtype=np.int64)
    longest = BOND_FACTOR * 2 * max(radii.max(), 0.1)
    (pairs,) = pairs_within(atoms.positions, atoms.cell[:], atoms.pbc, longest)
    distances = np.linalg.norm(pairs.vectors(atoms.positions), axis=1)
    reach = BOND_FACTOR * (radii[pairs.i] + radii[pairs.j])
    bonded = (distances < reach) & (radii[pairs.i] > 0) & (radii[pairs.j] > 0)
    links = (np.ones(bonded.sum()), (pairs.i[bonded], pairs.j[bonded]))
    graph = coo_array(links, shape=(len(atoms), len(atoms)))
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
