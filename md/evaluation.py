"""Errors of a force field on labelled structures, also by element, and of whole molecules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses, chemical_symbols
from ase.geometry.geometry import general_find_mic
from torch import Tensor

from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError
from scikd.report import Table

from ._half_list import complete_box
from ._training_data import FrameSet, as_batch, plan_batches
from .frames import AtomicBatch
from .losses import labels
from .model import ForceField

__all__ = ["ErrorSummary", "Metrics", "evaluate", "split_forces"]

# Rows of the table: name, unit, and that unit in ours.
QUANTITIES = {
    "energy": ("energy per atom", "meV", 1e3),
    "forces": ("forces", "meV/Å", 1e3),
    "within": ("forces within molecules", "meV/Å", 1e3),
    "between": ("forces between molecules", "meV/Å", 1e3),
    "net_forces": ("net forces on molecules", "meV/Å", 1e3),
    "torques": ("torques on molecules", "meV", 1e3),
    "charges": ("charges", "me", 1e3),
    "dipole": ("dipole", "me·Å", 1e3),
    "stress": ("stress", "meV/Å³", 1e3),
}
SHIFTED = 0.05  # eV/atom: a common error of all energies that is not the model's fault


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one quantity.

    Attributes
    ----------
    rmse, mae : float
        Root mean square and mean absolute error, over atoms (or the like) and components.
    spread : float
        Standard deviation of the labels: the error of a constant.
    n : int
        How many numbers were compared.
    unit : str
        Of the other three.
    """

    rmse: float
    mae: float
    spread: float
    n: int
    unit: str


@dataclass(frozen=True)
class Metrics:
    """What `evaluate` returns.

    Attributes
    ----------
    errors : dict of str to ErrorSummary
        By quantity: those of "energy" (per atom), "forces", "within" and "between" molecules,
        "net_forces" and "torques" on molecules, "charges", "dipole" and "stress" that have labels.
        Of molecules only where a structure has several.
    by_element : dict of str to dict of str to ErrorSummary
        "forces" and "charges", by symbol of the element.
    predictions, labels : dict of str to ndarray
        The numbers that were compared, in eV, eV/Å, e, e·Å and eV/Å³; energies per atom, relative
        to the references of the force field.
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers, in the order of forces and charges.
    hint : str
        What the errors betray, such as energies with another zero; empty if nothing does.
    """

    errors: dict[str, ErrorSummary]
    by_element: dict[str, dict[str, ErrorSummary]]
    predictions: dict[str, np.ndarray] = field(repr=False)
    labels: dict[str, np.ndarray] = field(repr=False)
    numbers: np.ndarray = field(repr=False)
    hint: str = ""

    def table(self) -> Table:
        """Return the errors by quantity, for a report or a terminal."""
        rows = [
            (QUANTITIES[name][0], e.rmse, e.mae, e.spread, e.unit, e.n)
            for name, e in self.errors.items()
        ]
        columns = ("quantity", "RMSE", "MAE", "spread of labels", "unit", "n")
        split = "Between molecules: what moves or turns a molecule as a whole. Within: the rest."
        notes = [split if "within" in self.errors else "", self.hint]
        return Table("Errors", columns, rows, note=" ".join(filter(None, notes)))

    def element_table(self) -> Table:
        """Return the errors by element."""
        rows = [
            (symbol, QUANTITIES[name][0], e.rmse, e.mae, e.spread, e.unit, e.n)
            for name, by_symbol in self.by_element.items()
            for symbol, e in by_symbol.items()
        ]
        columns = ("element", "quantity", "RMSE", "MAE", "spread of labels", "unit", "n")
        return Table("Errors by element", columns, rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the errors as JSON values."""
        return {
            "errors": {name: vars(error) for name, error in self.errors.items()},
            "by_element": {
                name: {symbol: vars(error) for symbol, error in found.items()}
                for name, found in self.by_element.items()
            },
        }


def evaluate(
    force_field: ForceField,
    frames: Any,
    *,
    batch_size: int = 32,
    centred: bool = False,
    progress: Progress = "auto",
) -> Metrics:
    """Compare a force field with labels.

    Parameters
    ----------
    force_field : ForceField
        What is judged, in its own precision and on its device. What labels do not contain
        (``dispersion_in_labels``) is left out.
    frames : AtomicBatch, ase.Atoms, path, or sequence of those
        Structures with labels; whatever labels there are, are compared.
    batch_size : int, default=32
        Structures at a time.
    centred : bool, default=False
        Whether the mean error of the total energy is taken off first, for a model or a level of
        theory with another zero.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Returns
    -------
    Metrics
        The errors, and the numbers they are of.

    Raises
    ------
    InvalidInputError
        If an element is unknown to the force field, or no structure has a label.
    """
    batch = as_batch(frames)
    force_field.check_elements(batch.numbers.to(force_field.device))
    found = _predict(force_field, batch, batch_size, progress)
    pairs = _pairs(force_field, batch, found, centred)
    if not pairs:
        message = "Expected structures with labels; got none with energy, forces, charges, ..."
        raise InvalidInputError(message)
    numbers = batch.numbers.cpu().numpy()
    by_element: dict[str, dict[str, ErrorSummary]] = {
        name: {
            chemical_symbols[z]: summary
            for z in np.unique(numbers)
            if (summary := _summary(name, *(side[numbers == z] for side in pairs[name])))
        }
        for name in ("forces", "charges")
        if name in pairs
    }
    summaries = {name: _summary(name, *pairs[name]) for name in QUANTITIES if name in pairs}
    return Metrics(
        {name: summary for name, summary in summaries.items() if summary is not None},
        by_element,
        {name: predicted for name, (predicted, _) in pairs.items()},
        {name: label for name, (_, label) in pairs.items()},
        numbers,
        "" if centred else _hint(pairs, force_field.metadata.get("level")),
    )


def split_forces(batch: AtomicBatch, forces: Tensor) -> dict[str, Tensor]:
    """Split forces into what moves molecules as rigid bodies, and the rest.

    Parameters
    ----------
    batch : AtomicBatch
        The structures. Atoms of an unknown molecule (-1) are left out, as NaN. In periodic
        directions an atom counts by its image that is nearest to the molecule's first atom: no atom
        must be farther from that than half the shortest lattice vector.
    forces : Tensor of shape (n_atoms, 3)
        In eV/Å.

    Returns
    -------
    dict of str to Tensor
        ``"between"`` and ``"within"``, shape (n_atoms, 3), in eV/Å, which sum to the forces: the
        first gives each molecule the acceleration and the angular acceleration that it has.
        ``"net_forces"`` in eV/Å and ``"torques"`` in eV about the centre of mass, shape
        (n_molecules, 3).
    """
    known = batch.molecules >= 0
    keys = torch.stack([batch.batch, batch.molecules], dim=1)[known]
    _, which = torch.unique(keys, dim=0, return_inverse=True)
    n = int(which.max()) + 1 if len(which) else 0
    force = forces[known].double()
    mass = torch.as_tensor(atomic_masses, device=forces.device)[batch.numbers[known]][:, None]

    def per_molecule(values: Tensor) -> Tensor:
        return values.new_zeros(n, *values.shape[1:]).index_add(0, which, values)

    arms = _unwrapped(batch, known, which, n)
    total_mass = per_molecule(mass)
    arms = arms - (per_molecule(mass * arms) / total_mass)[which]
    net, torque = per_molecule(force), per_molecule(torch.linalg.cross(arms, force))
    squares = (arms**2).sum(1)[:, None, None] * torch.eye(3, dtype=arms.dtype, device=arms.device)
    inertia = per_molecule(mass[:, :, None] * (squares - arms[:, :, None] * arms[:, None, :]))
    # An atom alone cannot be turned, and a straight molecule not about its axis: hence the pseudo-
    # inverse, which leaves out moments that are zero but for rounding.
    spin = (torch.linalg.pinv(inertia, rtol=1e-9, hermitian=True) @ torque[:, :, None])[:, :, 0]
    rigid = mass * (net / total_mass)[which] + mass * torch.linalg.cross(spin[which], arms)
    between = torch.full_like(forces, torch.nan)
    between[known] = rigid.to(forces.dtype)
    return {
        "between": between,
        "within": forces - between,
        "net_forces": net.to(forces.dtype),
        "torques": torque.to(forces.dtype),
    }


def _unwrapped(batch: AtomicBatch, known: Tensor, which: Tensor, n: int) -> Tensor:
    """Return positions relative to the first atom of the molecule, by the nearest image."""
    positions = batch.positions[known].double()
    order = torch.arange(len(which), device=which.device)
    first = torch.full((n,), len(which), device=which.device).scatter_reduce(
        0, which, order, "amin"
    )
    arms = (positions - positions[first[which]]).cpu().numpy()
    cell, pbc = batch.cell.double().cpu().numpy(), batch.pbc.cpu().numpy()
    ends = np.cumsum(np.bincount(batch.batch[known].cpu().numpy(), minlength=len(pbc)))
    for k in np.flatnonzero(pbc.any(axis=1)):
        rows = slice(ends[k - 1] if k else 0, ends[k])
        if ends[k] > rows.start:
            # Not find_mic, whose short cut misses the nearest image in some very skewed cells.
            arms[rows], _ = general_find_mic(arms[rows], complete_box(cell[k], pbc[k]), pbc[k])
    return torch.from_numpy(arms).to(positions.device)


def _predict(
    force_field: ForceField, batch: AtomicBatch, batch_size: int, progress: Progress
) -> dict[str, Tensor]:
    """Return predictions for all structures, on the CPU, in the order of the structures."""
    frames = FrameSet(
        batch,
        force_field.neighbors,
        device=force_field.device,
        dtype=force_field.dtype,
        progress=False,
    )
    stress = batch.stress is not None
    parts = []
    plan = plan_batches(frames.counts, batch_size, sort=False)
    for indices in track(plan, total=len(plan), description="predictions", progress=progress):
        out = force_field(*frames.take(indices), stress=stress, as_labelled=True)
        parts.append({name: values.cpu() for name, values in out.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _pairs(
    force_field: ForceField, batch: AtomicBatch, found: Mapping[str, Tensor], centred: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return predictions and labels that can be compared, by quantity."""
    batch = batch.to(device="cpu")
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    if batch.energy is not None:
        sums = batch.energy.new_zeros(batch.n_structures, dtype=torch.float64)
        baseline = sums.index_add(0, batch.batch, force_field.references[batch.numbers])
        energy, label = found["energy"] - baseline, batch.energy.double() - baseline
        if centred:
            energy = energy - torch.nanmean(energy - label)
        pairs["energy"] = (energy / batch.counts, label / batch.counts)
    for name in ("forces", "charges", "dipole", "stress"):
        known = labels(name, batch)
        if known is not None:
            pairs[name] = (found[name].double(), known.double())
    if batch.forces is not None and _several_molecules(batch):
        predicted, right = (split_forces(batch, forces) for forces in pairs["forces"])
        pairs |= {name: (predicted[name], right[name]) for name in predicted}
    return {
        name: (predicted.numpy(), known.numpy())
        for name, (predicted, known) in pairs.items()
        if not bool(known.isnan().all())
    }


def _several_molecules(batch: AtomicBatch) -> bool:
    """Say whether a structure has more than one molecule that is known."""
    known = batch.molecules >= 0
    keys = torch.stack([batch.batch, batch.molecules], dim=1)[known]
    structures = torch.unique(keys, dim=0)[:, 0]
    return bool((structures[1:] == structures[:-1]).any())


def _hint(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], level: Any) -> str:
    """Say so if energies are off by something that most structures have in common."""
    if "energy" not in pairs:
        return ""
    predicted, known = pairs["energy"]
    errors = (predicted - known)[~np.isnan(known)]
    mean = errors.mean()
    if len(errors) < 2 or abs(mean) < max(SHIFTED, errors.std()):
        return ""
    learnt = f" ({level})" if level else ""
    return (
        f"The energies are off by {mean:+.3g} eV per atom on average, more than they scatter: the "
        f"labels may be of another level of theory than the model's{learnt}, which has another "
        "zero. For structures of one composition centred=True (--centred) takes the mean off; "
        "forces can be compared as they are."
    )


def _summary(name: str, predicted: np.ndarray, known: np.ndarray) -> ErrorSummary | None:
    there = ~np.isnan(known)
    if not there.any():
        return None
    _, unit, factor = QUANTITIES[name]
    error, label = factor * (predicted[there] - known[there]), factor * known[there]
    return ErrorSummary(
        rmse=float(np.sqrt((error**2).mean())),
        mae=float(np.abs(error).mean()),
        spread=float(label.std()),
        n=int(there.sum()),
        unit=unit,
    )
