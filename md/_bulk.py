"""Liquids as teachers see them: mixtures, labels by consensus, and what is held out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
# Between the teachers' sizes of one thing. Stiff bonds make most of the forces, on which models of
# the same liquids agree within tenths, and those per bohr are 1.89 times as large. Of energies and
# stresses there is the spread within a mixture, in which much cancels, so that models may differ by
# more; but so do units: by 13.6 (Ry), 23 (kcal/mol), 96 (kJ/mol) and 160 (GPa).
LARGEST_RATIOS = {"forces": 1.5, "energy": 5.0, "stress": 5.0}
SIZES = {
    "forces": ("forces", "their root mean squares", "eV/Å"),
    "energy": ("energies", "their spreads within mixtures", "eV"),
    "stress": ("stresses", "their spreads within mixtures", "eV/Å³"),
}
CONVERSIONS = {
    "forces": "1 kcal/mol/Å is 0.0434 eV/Å, 1 eV/bohr is 1.89 eV/Å",
    "energy": "1 kcal/mol is 0.0434 eV, 1 Hartree is 27.2 eV",
    "stress": "1 GPa is 0.00624 eV/Å³; a virial is not divided by the volume",
}
FEWEST_FRAMES = 4  # of a mixture, to tell how energies spread, and to hold out two of them


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

    Raises
    ------
    InvalidInputError
        If two of them are the same, by their fingerprints.
    """
    ensemble = models if isinstance(models, TeacherEnsemble) else _joined(models, atoms, settings)
    names: dict[str, str] = {}
    twins = []
    for teacher in ensemble.teachers:
        with suppress(InvalidInputError):  # not every calculator knows what it depends on
            first = names.setdefault(teacher.fingerprint, teacher.name)
            if first != teacher.name:
                twins.append(f"{teacher.name!r} is the same as {first!r}")
    if twins:
        message = (
            f"Expected different teachers; {', '.join(twins)}. It would count twice, and its "
            "agreement with itself tells nothing: give it once."
        )
        raise InvalidInputError(message)
    return ensemble


def _joined(models: Any, atoms: Atoms, settings: Mapping[str, Any]) -> TeacherEnsemble:
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
        If forces of a member are zero, or forces, energies or stresses of members differ in size
        as those in different units do.
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
    _check_sizes(found.members, mixtures, ensemble.names)
    return replace(found, members={})


def _check_sizes(
    members: Mapping[str, np.ndarray], mixtures: np.ndarray, names: Sequence[str]
) -> None:
    """Refuse teachers that say nothing, or that differ as units do."""
    kinds, counts = np.unique(mixtures, return_counts=True)
    many = [np.flatnonzero(mixtures == kind) for kind in kinds[counts >= FEWEST_FRAMES]]
    problems = []
    for name in (name for name in SIZES if name in members):
        values = members[name].reshape(len(names), len(members[name][0]), -1)
        if name == "forces":
            parts = [values]
        else:
            parts = [values[:, rows] - values[:, rows].mean(1, keepdims=True) for rows in many]
        if not parts:
            continue
        sizes = np.sqrt(np.square(np.concatenate(parts, axis=1)).mean(axis=(1, 2)))
        if name == "forces" and (silent := [n for n, s in zip(names, sizes, strict=True) if not s]):
            problems.append(
                f"all forces of {', '.join(silent)} are zero, so that it says nothing of these "
                "liquids: check it, or leave it out."
            )
        elif sizes.max() > LARGEST_RATIOS[name] * sizes.min():
            what, measure, unit = SIZES[name]
            told = ", ".join(f"{n} {size:.3g}" for n, size in zip(names, sizes, strict=True))
            problems.append(
                f"{what} in {unit} differ by more than a factor of {LARGEST_RATIOS[name]:g}: "
                f"{measure} are {told} {unit}. Is one of them in another unit "
                f"({CONVERSIONS[name]}), or not made for these liquids? Convert it, or leave it "
                "out."
            )
    if problems:
        raise InvalidInputError(f"Expected teachers that are alike; {' And '.join(problems)}")


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
        Of the structures of each mixture, but not all of them. Two at least of a mixture that has
        four or more, as an energy is judged by another one; of a smaller one at least one, and of
        one that has one structure, none.

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
            fewest = 2 if len(rows) >= FEWEST_FRAMES else 1
            count = min(max(round(fraction * len(rows)), fewest), len(rows) - 1)
            held_out += rows[-count:].tolist()
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
