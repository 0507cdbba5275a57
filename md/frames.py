"""Batches of structures with their labels: one immutable type, made from and to `ase.Atoms`.

Units are Å, eV, eV/Å, e, e·Å and eV/Å³. Stress has ASE's sign and Voigt order (xx, yy, zz, yz, xz,
xy): it is positive under tension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Batch, Data

from scikd.exceptions import InvalidInputError

from ._geometry import fault_of_structure
from ._half_list import bonds
from ._labels import (
    LABELS,
    PER_ATOM,
    SPREADS,
    group_of,
    labels_of,
    molecules_of,
    require_keys,
    total_charge_of,
)
from ._ragged import starts_of, take_rows
from .units import FROM_VOIGT, stress_from_virial

__all__ = [
    "AtomicBatch",
    "check_geometry",
    "collate",
    "find_molecules",
    "from_ase",
    "select",
    "to_ase",
]

SMALLEST_DISTANCE = 0.3  # Å
MOST_SHOWN = 10  # faulty structures in one message


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
    energy_std, forces_std, stress_std : torch.Tensor or None
        Of labels that are a consensus: how far those who made it disagree, in the unit and the
        shape of the label.
    group : torch.Tensor of shape (n_structures,) or None
        Number of what a structure comes from, int64; -1 if unknown. Structures that are alike, as
        frames of one trajectory or scan are, share it, and `fit` holds them out together.
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
    energy_std: torch.Tensor | None = None
    forces_std: torch.Tensor | None = None
    stress_std: torch.Tensor | None = None
    group: torch.Tensor | None = None

    def __post_init__(self) -> None:
        n, b = len(self.numbers), len(self.cell)
        expected = {
            "positions": (n, 3),
            "batch": (n,),
            "cell": (b, 3, 3),
            "pbc": (b, 3),
            "molecules": (n,),
            "total_charge": (b,),
            "group": (b,),
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
    def first_atoms(self) -> torch.Tensor:
        """Number of each structure's first atom, shape (n_structures,), int64."""
        return starts_of(self.counts)

    @property
    def volume(self) -> torch.Tensor:
        """Volume of each cell in Å³, shape (n_structures,); zero where there is no cell."""
        return torch.linalg.det(self.cell).abs()

    @property
    def virial(self) -> torch.Tensor | None:
        """Virial -dE/dε = -V·stress in eV, shape (n_structures, 3, 3), or None without stress."""
        if self.stress is None:
            return None
        return -self.volume[:, None, None] * self.stress[..., FROM_VOIGT]

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

    def arrays(self, *names: str) -> dict[str, np.ndarray]:
        """Return the tensors that are there, or those of these names, as NumPy arrays."""
        there = self.tensors()
        return {name: there[name].detach().cpu().numpy() for name in names or there}

    def structures(self, *names: str) -> Iterator[dict[str, np.ndarray]]:
        """Yield the arrays of each structure, all but ``batch`` or those of these names."""
        arrays = self.arrays(*names)
        arrays.pop("batch", None)
        starts, counts = self.first_atoms.tolist(), self.counts.tolist()
        for number, (start, count) in enumerate(zip(starts, counts, strict=True)):
            rows = slice(start, start + count)
            yield {n: v[rows] if n in PER_ATOM else v[number] for n, v in arrays.items()}


class _Joined(Data):
    """A batch as torch_geometric sees it: joining shifts the structures' numbers."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return len(self["cell"]) if key == "structure" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> int:
        return 0


def collate(batches: Sequence[AtomicBatch]) -> AtomicBatch:
    """Join batches into one, through torch_geometric's ``Batch``.

    A label that only some of them have becomes NaN for the others, and a group -1. Groups of the
    same number are one group.

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
    grouped = any(batch.group is not None for batch in batches)
    parts = []
    for batch in batches:
        tensors = batch.tensors()
        for name in labels - set(tensors):
            rows = batch.n_atoms if name in PER_ATOM else batch.n_structures
            tensors[name] = batch.positions.new_full((rows, *LABELS[name]), torch.nan)
        if grouped and batch.group is None:
            tensors["group"] = batch.batch.new_full((batch.n_structures,), -1)
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
    indices : sequence of int, or of bool
        Which, counted from 0; negative ones count from the end. Or True for each that is wanted.

    Raises
    ------
    InvalidInputError
        If there is no structure of that number, or there are not as many bools as structures.
    """
    device, n = batch.positions.device, batch.n_structures
    chosen = torch.as_tensor(indices, device=device).reshape(-1)
    if chosen.dtype == torch.bool and len(chosen) == n:
        chosen = chosen.nonzero().reshape(-1)
    if len(chosen) and (chosen.dtype == torch.bool or chosen.is_floating_point()):
        kind = str(chosen.dtype).removeprefix("torch.")
        message = (
            f"Expected numbers of structures, or a bool for each of the {n}; got {len(chosen)} of "
            f"type {kind}."
        )
        raise InvalidInputError(message)
    chosen = chosen.to(torch.int64)
    if len(chosen) and (int(chosen.min()) < -n or int(chosen.max()) >= n):
        message = f"Expected numbers of structures from 0 to {n - 1}; got {chosen.tolist()}."
        raise InvalidInputError(message)
    chosen = torch.where(chosen < 0, chosen + n, chosen)
    atoms, structure = take_rows(batch.counts, chosen)
    taken = {
        name: value[atoms if name in PER_ATOM else chosen]
        for name, value in batch.tensors().items()
        if name != "batch"
    }
    return AtomicBatch(batch=structure, **taken)


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
    group_key: str | None = None,
    dtype: torch.dtype = torch.float64,
    check: bool = True,
) -> AtomicBatch:
    """Make a batch of ASE's structures.

    Labels are taken from the calculator's results if it holds any for these positions, else from
    ``atoms.info`` and ``atoms.arrays``, under their own names or those given here. Without a
    stress, one is made of a virial, where there is a cell: ``stress = -virial / volume``. The total
    charge is ``info["total_charge"]``, or ``info["charge"]``, or the sum of ASE's initial charges.
    Molecules are ``arrays["molecules"]``, or ``arrays["molID"]``. The group is ``info["group"]``, a
    whole number from 0, or text, which is turned into a number, the same one every time.

    Parameters
    ----------
    atoms : ase.Atoms or sequence of ase.Atoms
        The structures, labels in eV, eV/Å, eV/Å³, e and e·Å.
    energy_key, forces_key, stress_key, virial_key, charges_key, dipole_key : str, optional
        Names of labels in ``info``, ``arrays`` or the results, where they are not the usual ones.
    total_charge_key, molecules_key, group_key : str, optional
        As above, of the total charge, of the molecules' numbers and of the group.
    dtype : torch.dtype, default=torch.float64
        Of everything that is not a whole number.
    check : bool, default=True
        Whether to look for overlapping atoms and the like: see `check_geometry`.

    Raises
    ------
    InvalidInputError
        If a label has a wrong shape, no structure has a key that is asked for, or `check_geometry`
        finds fault.
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
    others = {"total_charge": total_charge_key, "molecules": molecules_key, "group": group_key}
    require_keys(frames, keys | others)
    found = [labels_of(frame, keys, f"structure {k}") for k, frame in enumerate(frames)]
    for frame, labels in zip(frames, found, strict=True):
        virial = labels.pop("virial", None)
        if virial is not None and frame.cell.rank == 3:
            labels["stress"] = stress_from_virial(virial, frame.cell.volume)
    counts = np.array([len(frame) for frame in frames])
    groups = torch.tensor([group_of(frame, group_key) for frame in frames])
    arrays = {
        "positions": np.concatenate([frame.positions for frame in frames]),
        "cell": np.stack([frame.cell[:] for frame in frames]),
        "total_charge": np.array([total_charge_of(frame, total_charge_key) for frame in frames]),
    }
    arrays |= _joined_labels(found, counts)
    batch = AtomicBatch(
        numbers=torch.from_numpy(np.concatenate([f.numbers for f in frames]).astype(np.int64)),
        batch=torch.from_numpy(np.repeat(np.arange(len(frames)), counts)),
        pbc=torch.from_numpy(np.stack([frame.pbc for frame in frames])),
        molecules=torch.from_numpy(
            np.concatenate([molecules_of(f, molecules_key) for f in frames])
        ),
        group=groups if (groups >= 0).any() else None,
        **{name: torch.from_numpy(value).to(dtype) for name, value in arrays.items()},
    )
    if check:
        check_geometry(batch)
    return batch


def _joined_labels(
    found: Sequence[dict[str, np.ndarray]], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Return one array of each label that any structure has, NaN where one has not."""
    arrays = {}
    for name in {name for labels in found for name in labels}:
        rows = [(n, *LABELS[name]) if name in PER_ATOM else LABELS[name] for n in counts]
        values = [
            labels[name] if name in labels else np.full(row, np.nan)
            for labels, row in zip(found, rows, strict=True)
        ]
        arrays[name] = np.concatenate(values) if name in PER_ATOM else np.stack(values)
    return arrays


def to_ase(batch: AtomicBatch) -> list[Atoms]:
    """Make ASE's structures of a batch.

    Labels go into a ``SinglePointCalculator``, their spread into ``arrays["forces_std"]``,
    ``info["energy_std"]`` and ``info["stress_std"]``, molecules into ``arrays["molecules"]`` where
    known, the total charge into ``info["total_charge"]``, a group into ``info["group"]``.
    """
    frames = []
    for one in batch.structures():
        atoms = Atoms(one["numbers"], one["positions"], cell=one["cell"], pbc=one["pbc"])
        atoms.info["total_charge"] = float(one["total_charge"])
        if one.get("group", -1) >= 0:
            atoms.info["group"] = int(one["group"])
        if (one["molecules"] >= 0).any():
            atoms.set_array("molecules", one["molecules"])
        known = (name for name in LABELS if name in one and not np.isnan(one[name]).any())
        labels: dict[str, Any] = {name: one[name].astype(float) for name in known}
        if "energy" in labels:
            labels["energy"] = float(labels["energy"])
        for name in set(SPREADS) & set(labels):  # which ASE has no name for
            place = atoms.arrays if name in PER_ATOM else atoms.info
            place[name] = labels.pop(name)
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
        If a structure is empty, or has positions that are not finite or beyond 0.1 mm, elements
        outside 1 to 86, a cell that is singular although it is periodic, or atoms that overlap.
    """
    problems = []
    for k, one in enumerate(batch.structures("positions", "numbers", "cell", "pbc")):
        problem = fault_of_structure(**one, smallest=smallest_distance)
        if problem:
            problems.append(f"structure {k}: {problem}")
    if problems:
        shown = "\n".join(problems[:MOST_SHOWN])
        message = f"{len(problems)} of {batch.n_structures} structures cannot be used:\n{shown}"
        raise InvalidInputError(message)


def find_molecules(atoms: Atoms) -> np.ndarray:
    """Find the molecules of a structure, through periodic boundaries too.

    Two atoms are bonded if they are closer than 1.4 times the sum of their covalent radii; hydrogen
    to its nearest atom alone, up to 1.6 times. Alkali and alkaline-earth metals are ions in an
    electrolyte, and stand alone.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.

    Returns
    -------
    numpy.ndarray of shape (n_atoms,)
        The molecule of each atom, int64, counted from 0 in the order of first atoms.
    """
    n = len(atoms)
    bonded = bonds(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc)
    graph = coo_array((np.ones(len(bonded)), (bonded.i, bonded.j)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
