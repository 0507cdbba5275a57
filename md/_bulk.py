"""Liquids as teachers see them: mixtures, labels by consensus, and what is held out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from scikd._aggregator import Aggregator
from scikd._progress import Progress
from scikd.aggregation import Harmonised, InverseVariance
from scikd.consensus import Consensus
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError, TeacherError
from scikd.harmonise import Harmoniser
from scikd.labels import LabelStore, StoredLabels
from scikd.teachers import StoredTeacher, Teacher

from ._labels import SPREADS
from ._training_data import FrameSet
from .calculators import CalculatorTeacher, EnsembleCalculator, ForceFieldCalculator
from .frames import AtomicBatch, to_ase
from .losses import spreads
from .model import ForceField
from .teachers import CONVERGED, Structures

__all__ = [
    "as_ensemble",
    "consensus_of",
    "first_force_field",
    "force_variances",
    "frame_sets",
    "hold_out_tails",
    "label_by_consensus",
    "mixtures_of",
    "noise_of",
]

logger = logging.getLogger("scikd.md.distillation")

LARGEST_BATCH = 16  # boxes labelled before they are written to disk
LARGEST_RATIO = 3.0  # of a teacher's forces to those of the others; units differ by more


def mixtures_of(batch: AtomicBatch) -> np.ndarray:
    """Return the mixture of each structure, from 0: those of one group and of one composition.

    What energies of one mixture have in common tells nothing about forces, and two models need not
    agree on it.
    """
    groups = np.full(batch.n_structures, -1) if batch.group is None else batch.group.cpu().numpy()
    keys = [
        (int(group), np.bincount(one["numbers"]).tobytes())
        for group, one in zip(groups, batch.structures("numbers"), strict=True)
    ]
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([order[key] for key in keys])


def as_ensemble(models: Any, atoms: Atoms, **settings: Any) -> TeacherEnsemble:
    """Return models as teachers of structures like one: of boxes, or of clusters.

    Parameters
    ----------
    models : TeacherEnsemble, or sequence or mapping of models
        What `EnsembleCalculator` takes, and `StoredLabels`.
    atoms : ase.Atoms
        The structure.
    **settings : object
        Of `ForceFieldCalculator`, for members that become one.
    """
    if isinstance(models, TeacherEnsemble):
        return models
    given: Any
    if isinstance(models, Mapping):
        given = {
            name: StoredTeacher(replace(m, name=name)) if isinstance(m, StoredLabels) else m
            for name, m in models.items()
        }
    else:
        given = [StoredTeacher(m) if isinstance(m, StoredLabels) else m for m in models]
    members = given.values() if isinstance(models, Mapping) else given
    if any(isinstance(model, (ForceField, str, Path)) for model in members):
        return EnsembleCalculator(given, **settings).ensemble(atoms)
    return EnsembleCalculator(given).ensemble(atoms)


def first_force_field(ensemble: TeacherEnsemble) -> ForceField | None:
    """Return the first member that is a force field, if any is."""
    for teacher in ensemble.teachers:
        calculator = teacher.calculator if isinstance(teacher, CalculatorTeacher) else None
        if isinstance(calculator, ForceFieldCalculator):
            return calculator.force_field
    return None


def consensus_of(
    ensemble: TeacherEnsemble,
    frames: Sequence[Atoms],
    mixtures: np.ndarray,
    rule: Aggregator,
    store: LabelStore | None,
    progress: Progress = "auto",
) -> Consensus:
    """Ask all members, and combine the answers; energies without the offset of each mixture.

    Parameters
    ----------
    ensemble : TeacherEnsemble
        The members and their weights.
    frames : sequence of ase.Atoms
        The structures.
    mixtures : ndarray of shape (n_structures,)
        From `mixtures_of`.
    rule : Aggregator
        How answers are combined.
    store : LabelStore or None
        Where the answers of each member are kept; None does not keep them.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Raises
    ------
    TeacherError
        If a member fails, or did not converge for a structure.
    InvalidInputError
        If the forces of members differ in size as those in different units do.
    """
    inputs = Structures(frames)
    asked: list[Teacher] = []
    for teacher in ensemble.teachers:
        if store is not None and not isinstance(teacher, StoredTeacher):
            labels = store.label(teacher, inputs, batch_size=LARGEST_BATCH, progress=progress)
            asked.append(StoredTeacher(replace(labels, name=teacher.name)))
        else:
            asked.append(teacher)
    rules: dict[str, str | Aggregator] = {q.name: rule for q in ensemble.quantities}
    rules["energy"] = Harmonised(Harmoniser("center", per="group"), rule)
    asking = ensemble.replace(teachers=asked, aggregator=rules)
    found = asking.consensus(inputs, groups=mixtures, members=True)
    failed = found.mean.get(CONVERGED.name, np.ones(1)) < 1.0
    if failed.any():
        message = (
            f"Expected labels of all structures; a teacher did not converge for the structures "
            f"{np.flatnonzero(failed).tolist()}. Leave them out."
        )
        raise TeacherError(message)
    if "forces" in found.members:
        _check_scale(found.members["forces"], ensemble.names)
    return replace(found, members={})


def _check_scale(forces: np.ndarray, names: Sequence[str]) -> None:
    """Refuse forces of members that differ as units do."""
    sizes = np.sqrt(np.square(forces).mean(axis=(1, 2)))
    odd = np.abs(np.log(sizes / np.median(sizes))) > math.log(LARGEST_RATIO)
    if odd.any():
        told = ", ".join(f"{name} {size:.3g}" for name, size in zip(names, sizes, strict=True))
        message = (
            f"Expected teachers whose forces are alike, in eV/Å; their root mean squares are "
            f"{told} eV/Å. Is one of them in another unit (1 kcal/mol/Å is 0.0434 eV/Å), or not "
            "made for these liquids? Convert it, or leave it out."
        )
        raise InvalidInputError(message)


def label_by_consensus(batch: AtomicBatch, found: Consensus) -> AtomicBatch:
    """Return structures with the consensus and its spread as their labels, and no others."""
    like = batch.positions
    labels: dict[str, Any] = dict.fromkeys(
        ("energy", "forces", "stress", "charges", "dipole", *SPREADS)
    )
    for name in ("energy", "forces", "stress", "charges", "dipole"):
        if name in found.mean:
            labels[name] = torch.as_tensor(found.mean[name]).to(like)
            if f"{name}_std" in SPREADS:
                labels[f"{name}_std"] = torch.as_tensor(found.std[name]).to(like)
    return replace(batch, **labels)


def noise_of(batch: AtomicBatch) -> dict[str, float]:
    """Return the typical spread of the labels of each term, of energy and virial per atom.

    A term on which all members agree is not there.
    """
    noise = {}
    for name in ("energy", "forces", "virial"):
        spread = spreads(name, batch)
        if spread is not None:
            spread = spread if name == "forces" else spread / batch.counts
            noise[name] = math.sqrt(float((spread[~spread.isnan()] ** 2).double().mean()))
    return {name: value for name, value in noise.items() if value > 0.0}


def frame_sets(
    model: ForceField, *batches: AtomicBatch, dtype: torch.dtype, progress: Progress = False
) -> tuple[FrameSet, ...]:
    """Return structures with their pairs, where a model is; see that it knows their elements."""
    for batch in batches:
        model.check_elements(batch.numbers.to(model.device))
    return tuple(
        FrameSet(batch, model.neighbors, device=model.device, dtype=dtype, progress=progress)
        for batch in batches
    )


def hold_out_tails(mixtures: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the last structures of each mixture, as those of a trajectory are alike.

    Parameters
    ----------
    mixtures : ndarray of shape (n_structures,)
        From `mixtures_of`.
    fraction : float
        Of the structures of each mixture, at least one and not all of them; of a mixture that has
        one structure, none.

    Returns
    -------
    rest, held_out : ndarray of shape (n,)
        Numbers of structures, ascending.

    Raises
    ------
    InvalidInputError
        If no mixture has two.
    """
    held_out: list[int] = []
    for mixture in np.unique(mixtures):
        rows = np.flatnonzero(mixtures == mixture)
        if len(rows) > 1:
            held_out += rows[-min(max(round(fraction * len(rows)), 1), len(rows) - 1) :].tolist()
    if not held_out:
        message = (
            f"Expected at least two frames of a mixture, to hold one out; got {len(mixtures)} "
            "frames of as many mixtures. Give more frames, or others as validation."
        )
        raise InvalidInputError(message)
    rest = np.setdiff1d(np.arange(len(mixtures)), held_out)
    return rest, np.sort(np.array(held_out))


def force_variances(models: Any, reference: AtomicBatch, **settings: Any) -> InverseVariance:
    """Return the rule that weighs members by their force errors on reference labels.

    Parameters
    ----------
    models : sequence or mapping of models
        As for `as_ensemble`; all have to be able to say what the forces are.
    reference : AtomicBatch
        Structures with forces.
    **settings : object
        Of `ForceFieldCalculator`.

    Raises
    ------
    InvalidInputError
        If the reference has no forces, or a member cannot be asked about it.
    """
    listed = models.teachers if isinstance(models, TeacherEnsemble) else models
    items = listed.items() if isinstance(listed, Mapping) else enumerate(listed)
    members: dict[str, Any] = {str(name): member for name, member in items}
    silent = [name for name, m in members.items() if isinstance(m, (StoredLabels, StoredTeacher))]
    if silent or reference.forces is None:
        why = f"the labels of {silent} are stored" if silent else "the reference has no forces"
        message = (
            f"Expected members whose force errors on the reference can be found; {why}. Take "
            "another aggregator, such as 'mean' or 'trimmed_mean'."
        )
        raise InvalidInputError(message)
    frames = to_ase(replace(reference, group=None))
    known = reference.forces.double().cpu().numpy()
    there = np.isfinite(known).all(axis=1)
    parts = []
    for teacher in as_ensemble(members, frames[0], **settings).teachers:
        found = np.concatenate([teacher.predict([atoms])["forces"] for atoms in frames])
        parts.append(found[there])
        error = math.sqrt(float(np.square(found[there] - known[there]).mean()))
        logger.info("forces of %s are off by %.3g eV/Å on the reference", teacher.name, error)
    return InverseVariance().fit(np.stack(parts), known[there])
