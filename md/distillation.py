"""Distillation of an ensemble of force fields into one, on liquids that all of them label.

The labels are a consensus (`scikd.ensemble.TeacherEnsemble`): of forces, virials and charges, and
of energies relative to their mean over the frames of each mixture, since models agree on no
absolute one. The student takes turns: a step on frames of liquids, a step on reference labels
(those of the level of theory), so that it does not forget what the members were trained on.

References
----------
S. Gong et al., "BAMBOO: a predictive and transferable machine learning force field framework for
liquid electrolyte development", arXiv:2404.07181: ensembles distilled on bulk frames, with turns on
reference clusters. There labels are plain means of total energies, forces and virials.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from scikd._atomic import new_folder
from scikd._devices import choose_device
from scikd._distributed import joined_processes
from scikd._progress import Progress
from scikd.aggregation import as_aggregator
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.labels import LabelStore

from ._bulk import (
    as_ensemble,
    consensus_of,
    first_force_field,
    force_variances,
    frame_sets,
    hold_out_tails,
    label_by_consensus,
    mixtures_of,
    noise_of,
)
from ._process import torch_threads
from ._trainer import Course, Trainer
from ._training_data import as_batch, groups_of, split
from .frames import AtomicBatch, collate, select, to_ase
from .losses import Loss, LossOptions, fit_references
from .model import ForceField, Trained
from .readers import write_frames
from .storage import load_force_field
from .training import (
    TrainingOptions,
    TrainingResult,
    build_force_field,
    measure_untrained,
    note_range,
    result_of,
    settings_of,
)

__all__ = ["DistillationOptions", "DistillationResult", "distill_ensemble", "stored_teachers"]

logger = logging.getLogger(__name__)

LABELS, CONSENSUS = "labels", "consensus.h5"
REFERENCE = "reference"


@dataclass(frozen=True)
class DistillationOptions(TrainingOptions):
    """What a distillation does: the options of a training, and these.

    Parameters
    ----------
    train : tuple of str, default=()
        Files of frames of liquids; labels in them are not looked at. Frames of one ``group`` and
        one composition are one mixture.
    validation : tuple of str, default=()
        Files of such frames that are held out; without any, the last frames of each mixture are.
    initial : Path or None, default=None
        Force field that the student starts as, "default" or a folder; None takes ``student``.
    teachers : tuple of str, default=()
        Folders of force fields, or "default".
    labels : tuple of str, default=()
        Folders of stored labels (`scikd.labels.LabelStore`): what they hold for these very frames
        is a teacher each.
    reference : tuple of str, default=()
        Files of structures with labels of the level of theory. Without any there are no turns.
    reference_loss : LossOptions
        Weights of the terms on those.
    student : {"member", "new"}, default="member"
        What the student starts as: a copy of the first teacher that is a force field, or a new
        network after ``model`` with the first teacher's other terms.
    parameters : {"readout", "all"}, default="all"
        What is trained: the map from the features of an atom to its energy, or everything.
    aggregator : str, default="mean"
        How teachers are combined: "mean", "median", "trimmed_mean" or "inverse_variance" (by force
        errors on the reference).
    weigh_by_spread : bool, default=True
        Whether labels on which the teachers disagree count less.
    learning_rate : float, default=0.0003
        At the beginning. A copy of a teacher has little to learn and much to forget; a new network
        wants ten times as much.
    """

    teachers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    reference_loss: LossOptions = field(default_factory=lambda: LossOptions("relative"))
    student: Literal["member", "new"] = "member"
    parameters: Trained = "all"
    aggregator: Literal["mean", "median", "trimmed_mean", "inverse_variance"] = "mean"
    weigh_by_spread: bool = True
    loss: LossOptions = field(default_factory=lambda: LossOptions("relative"))
    epochs: int = 30
    batch_size: int = 4
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what cannot be, all at once."""
        super().__post_init__()
        if self.student == "new" and self.initial is None and self.parameters == "readout":
            message = (
                "Cannot distil with these options: the readout alone of a new network, whose "
                "features are random, learns little. Take parameters='all' or student='member'."
            )
            raise InvalidInputError(message)


@dataclass(frozen=True)
class DistillationResult(TrainingResult):
    """What `distill_ensemble` returns: the result of the training, and what it was made of.

    Attributes
    ----------
    consensus : AtomicBatch
        The frames, with the consensus and its spread as labels; energies are relative to the mean
        of each mixture.
    before : dict of str to float
        Errors of the student on what is held out before the first step, by columns of the log;
        that of energies only if two frames of some mixture are, as they have no common zero.
    spread : dict of str to float
        Typical spread of the teachers, of the terms "energy" (eV/atom), "forces" (eV/Å) and
        "virial" (eV/atom). Of one teacher there is none.
    teachers : tuple of str
        Their names.
    """

    consensus: AtomicBatch = field(repr=False, kw_only=True)
    before: dict[str, float] = field(kw_only=True)
    spread: dict[str, float] = field(kw_only=True)
    teachers: tuple[str, ...] = field(kw_only=True)

    @property
    def after(self) -> dict[str, float]:
        """The same errors in the best epoch."""
        row = self.history[self.best_epoch - 1]
        return {name: row[name] for name in self.before}

    def summary(self) -> str:
        """Say in a few lines what came out."""
        lines = [
            f"{name.replace('_', ' ')}: {self.before[name]:.3g} before, {value:.3g} after"
            for name, value in self.after.items()
        ]
        if len(self.teachers) == 1:
            lines.append(f"one teacher, {self.teachers[0]}: no disagreement to tell of")
        else:
            spread = self.spread.get("forces", 0.0) * 1e3
            lines.append(f"teachers disagree on forces by {spread:.3g} meV/Å")
        return "\n".join(lines)


def distill_ensemble(
    teachers: Any = None,
    frames: Any = None,
    *,
    options: DistillationOptions,
    student: ForceField | None = None,
    reference: Any = None,
    progress: Progress = "auto",
) -> DistillationResult:
    """Distil several models into one force field, on frames of liquids.

    Everything goes on where it was stopped when it is called again with the same options: labels
    batch by batch, the training step by step. What is written lies in ``options.output``: the
    teachers' ``labels``, ``consensus.h5``, and what `fit` writes.

    Parameters
    ----------
    teachers : TeacherEnsemble, sequence or mapping of models, or None, default=None
        Force fields, folders of them, calculators of ASE, teachers of structures, stored labels;
        None takes those of the options. An ensemble brings its own weights.
    frames : AtomicBatch, ase.Atoms, path, sequence of those, or None, default=None
        Boxes, or free clusters; not both. None takes the files of the options.
    options : DistillationOptions
        What to do.
    student : ForceField or None, default=None
        What is trained, in place; None takes what the options say.
    reference : AtomicBatch, ase.Atoms, path, sequence of those, or None, default=None
        Structures with labels of the level of theory; None takes the files of the options.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Returns
    -------
    DistillationResult
        The student of the best epoch, the log, and the consensus.

    Raises
    ------
    InvalidInputError
        If there are no teachers or no frames, two teachers are the same one, or they do not fit
        each other or the options, as where their units differ; or the output holds a distillation
        with others.
    TeacherError
        If a teacher fails. Labels that are finished stay.
    DivergedError, StorageError, CorruptFileError
        As of `scikd.md.training.fit`.

    Notes
    -----
    Errors are measured by the labels' own variance (``LossOptions(preset="relative")``), that of
    energies and virials within mixtures, so that the weights need not know a unit. A label on which
    teachers disagree by s counts as 1 / (1 + (s / n)²), where n is what they typically do.
    """
    processes = joined_processes()
    with torch_threads(options.threads):
        bulk, train, held_out = _frames(options, frames)
        known = options.reference if reference is None else reference
        empty = isinstance(known, tuple) and not known
        anchor = None if empty else as_batch(known, total_charge=options.total_charge)
        settings = {"threads": options.threads, "device": options.device}
        first = to_ase(select(bulk, [0]))[0]
        models = teachers if teachers is not None else _teachers_of(options, bulk)
        ensemble = as_ensemble(models, first, **settings)
        rule = as_aggregator(options.aggregator)
        if options.aggregator == "inverse_variance":
            rule = force_variances(models, _needed(anchor), **settings)
        output = options.output
        shown: Progress = progress if processes.rank == 0 else False
        with nullcontext() if output is None else new_folder(output):
            store = None if output is None else LabelStore(output / LABELS)
            mixtures = mixtures_of(bulk)
            found = consensus_of(ensemble, to_ase(bulk), mixtures, rule, store, shown)
            bulk = label_by_consensus(replace(bulk, group=torch.from_numpy(mixtures)), found)
        model = student or _student(options, ensemble, bulk, anchor)
        model.train_only(options.parameters)
        trainer, before, noise = _prepare(
            options, model, select(bulk, train), select(bulk, held_out), anchor, shown
        )
        keep = None
        if output is not None and processes.rank == 0:
            level = f"consensus of {len(ensemble.names)}"
            keep = partial(write_frames, output / CONSENSUS, bulk, level=level)
        trainer.run(begin=keep)
    done = result_of(trainer)
    names = tuple(ensemble.names)
    return DistillationResult(
        **vars(done), consensus=bulk, before=before, spread=noise, teachers=names
    )


def stored_teachers(folders: Any, frames: AtomicBatch) -> dict[str, Any]:
    """Return all labels that stores hold for these very frames, by name of the teacher.

    Parameters
    ----------
    folders : sequence of path
        Folders of `scikd.labels.LabelStore`.
    frames : AtomicBatch
        The frames.

    Raises
    ------
    InvalidInputError
        If a store has none.
    """
    from .teachers import Structures  # noqa: PLC0415

    inputs = fingerprint_inputs(Structures(to_ase(frames)))
    found: dict[str, Any] = {}
    for folder in folders:
        store = LabelStore(folder)
        entries = [e for e in store.entries() if e.complete and e.inputs == inputs]
        if not entries:
            message = f"Expected labels of these frames in {folder}; there are none. Label them."
            raise InvalidInputError(message)
        for entry in entries:
            name = f"{entry.name} ({entry.fingerprint[:8]})"
            _add(found, name, store.read(entry.fingerprint, inputs))
    return found


def _add(models: dict[str, Any], name: str, model: Any) -> None:
    """Add a model under a name of its own: one that comes twice is for `as_ensemble` to refuse."""
    while name in models:
        name = f"{name}, again"
    models[name] = model


def _teachers_of(options: DistillationOptions, bulk: AtomicBatch) -> Mapping[str, Any]:
    models: dict[str, Any] = {}
    for path in options.teachers:
        _add(models, str(path), path)
    models |= stored_teachers(options.labels, bulk)
    if not models:
        message = "Expected teachers: folders of force fields, or of stored labels; got none."
        raise InvalidInputError(message)
    return models


def _needed(anchor: AtomicBatch | None) -> AtomicBatch:
    if anchor is None:
        message = (
            "Expected reference structures, which say how good each teacher is, for the aggregator "
            "'inverse_variance'; got none. Give reference=..., or take another aggregator."
        )
        raise InvalidInputError(message)
    return anchor


def _frames(
    options: DistillationOptions, frames: Any
) -> tuple[AtomicBatch, np.ndarray, np.ndarray]:
    """Return all frames, and the numbers of those to train on and of those held out."""
    given = options.train if frames is None else frames
    if isinstance(given, tuple) and not given:
        message = "Expected frames of liquids: files in the option train, or frames=...; got none."
        raise InvalidInputError(message)
    bulk = as_batch(given, total_charge=options.total_charge)
    n = bulk.n_structures
    train = np.arange(n)
    if options.validation:
        others = as_batch(options.validation, total_charge=options.total_charge)
        bulk = collate([bulk, others])
        held_out = np.arange(n, bulk.n_structures)
    else:
        train, held_out = hold_out_tails(mixtures_of(bulk), options.validation_fraction)
    periodic = bulk.pbc.all(-1)
    if bool(bulk.pbc.any(-1).logical_xor(periodic).any()) or len(torch.unique(periodic)) > 1:
        message = (
            "Expected boxes that are periodic in three directions, or free clusters; got both, or "
            "mixed boundaries. Distil on one kind; the other can be the reference."
        )
        raise InvalidInputError(message)
    return bulk, train, held_out


def _student(
    options: DistillationOptions, ensemble: Any, bulk: AtomicBatch, anchor: AtomicBatch | None
) -> ForceField:
    """Return what the options say that the student starts as."""
    if options.initial is not None:
        name = str(options.initial)
        return load_force_field(name if name == "default" else options.initial)
    member = first_force_field(ensemble)
    if options.student == "member" and member is None:
        message = (
            "Expected a force field among the teachers, for the student to start as; got "
            f"{', '.join(ensemble.names)}. Take student='new', or give one."
        )
        raise InvalidInputError(message)
    if options.student == "member" and member is not None:
        return copy.deepcopy(member)
    elements = set(torch.unique(bulk.numbers).tolist())
    references = None
    if anchor is not None:
        elements |= set(torch.unique(anchor.numbers).tolist())
        references = None if anchor.energy is None else fit_references(anchor)
    built = build_force_field(options, elements, references)
    if member is not None:
        built.electrostatics, built.repulsion = member.electrostatics, member.repulsion
        built.dispersion, built.force_rule = member.dispersion, member.force_rule
        built.dispersion_in_labels = member.dispersion_in_labels
        if references is None:
            built.references = member.references.clone()
    return built


def _prepare(
    options: DistillationOptions,
    model: ForceField,
    train: AtomicBatch,
    held_out: AtomicBatch,
    anchor: AtomicBatch | None,
    progress: Progress,
) -> tuple[Trainer, dict[str, float], dict[str, float]]:
    """Return the training, the errors before it, and the noise of the labels."""
    device = choose_device(options.device)
    model.to(device=device, dtype=options.dtype).train()
    structures = {"": (train, held_out)}
    if anchor is not None:
        rest, others = split(groups_of(anchor), options.validation_fraction, options.seed)
        structures[REFERENCE] = select(anchor, rest), select(anchor, others)
    noise = noise_of(train)
    courses = []
    for name, (chosen, validation) in structures.items():
        frames, unseen = frame_sets(
            model, chosen, validation, dtype=options.dtype, progress=progress
        )
        measure_untrained(model, frames)
        note_range(model, chosen)
        if name == REFERENCE:
            loss = Loss(options.reference_loss.scaled(chosen))
            courses.append(Course(frames, unseen, loss, name))
        else:
            terms = replace(options.loss, offset="group").scaled(chosen)
            loss = Loss(terms, noise if options.weigh_by_spread else None)
            courses.append(Course(frames, unseen, loss, name, as_labelled=False, by_group=True))
    settings = settings_of(options, model, *(b for pair in structures.values() for b in pair))
    trainer = Trainer(options, model, courses, settings, progress, joined_processes())
    found = [trainer.validate(course) for course in courses]
    before = {name: value for errors in found for name, value in errors.items()}
    before["validation_loss"] = trainer.total_loss(found)
    logger.info("before: %s", ", ".join(f"{k} {v:.3g}" for k, v in before.items()))
    return trainer, before, noise
