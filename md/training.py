"""Training of a force field: one call from Python, one command, the same options."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from scikd._devices import choose_device
from scikd._distributed import joined_processes
from scikd._options import check_choices, plain_options
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError

from ._architectures import NetworkSettings, build_architecture
from ._process import torch_threads
from ._trainer import Course, Trainer
from ._training_data import FrameSet, as_batch, groups_of, plan_batches, split
from .dispersion import D3CSO
from .electrostatics import Electrostatics
from .frames import AtomicBatch, select
from .get import GETSettings
from .guard import training_range
from .losses import Loss, LossOptions, fit_references, labels
from .model import ForceField, ForceRule
from .repulsion import ZBL
from .storage import describe, load_force_field

__all__ = [
    "TrainingOptions",
    "TrainingResult",
    "build_force_field",
    "fit",
    "measure_untrained",
    "note_range",
    "result_of",
    "settings_of",
]

logger = logging.getLogger(__name__)

# Options that do not change the numbers, or only say how the training goes on.
FREE = frozenset(
    {
        "checkpoint_seconds",
        "device",
        "labels",
        "output",
        "patience",
        "reference",
        "resume",
        "teachers",
        "tensorboard",
        "threads",
        "total_charge",
        "train",  # what the files hold is compared instead
        "validation",
    }
)
POSITIVE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "max_atoms",
    "clip_norm",
    "patience",
    "threads",
)
NOT_NEGATIVE = ("weight_decay", "warmup_epochs", "checkpoint_seconds", "seed")
MEASURED = 256  # structures that tell how many neighbours there are
FRACTIONS = ("validation_fraction", "final_learning_rate", "decay", "ema_decay")


@dataclass(frozen=True)
class TrainingOptions:
    """What a training does; the same names are keys in YAML and flags of ``scikd md train``.

    Parameters
    ----------
    train : tuple of str, default=()
        Files of structures with labels; see `scikd.md.readers.read_frames`.
    validation : tuple of str, default=()
        Files of structures that are held out; without any, a part of the others is: whole groups
        where the structures have groups, at random otherwise.
    validation_fraction : float, default=0.1
        That part.
    total_charge : float, default=0.0
        In e, of structures in DeePMD folders, which do not say it. Other files do.
    output : Path or None, default=None
        Folder for the model, the log, and the checkpoint from which a stopped training goes on;
        None writes nothing.
    resume : bool, default=True
        Whether to go on from a checkpoint in the output.
    initial : Path or None, default=None
        Force field to start from, "default" or a folder; its settings replace those below.
        Its references of the elements are fitted anew: to what it leaves of the labels.
    model : GETSettings or EquivariantSettings
        Kind and sizes of the network; in YAML ``family: equivariant`` chooses the second kind.
    electrostatics : bool, default=True
        Whether charges interact.
    dispersion : {"none", "d3-cso"}, default="none"
        Dispersion added to the network's energy.
    dispersion_in_labels : bool or None, default=None
        Whether the labels contain dispersion: if so, the model's own is part of the comparison. Has
        to be said if there is a dispersion.
    repulsion : bool, default=False
        Whether to add a repulsive floor at distances shorter than any bond.
    forces : {"conservative", "published"}, default="conservative"
        The gradient of the energy, or the published rule that holds the charges fixed.
    loss : LossOptions
        Weights of the terms.
    fit_references : bool, default=True
        Whether energies of the elements are fitted to the labels and subtracted.
    epochs : int, default=100
        Passes over the structures.
    batch_size : int, default=16
        Structures in a step.
    max_atoms : int or None, default=None
        Most atoms in a step.
    optimizer : {"adamw", "adamax"}, default="adamw"
        Kind of optimiser; adamax is the published one.
    learning_rate : float, default=0.003
        After the warm-up.
    weight_decay : float, default=0.0001
        Of the optimiser.
    warmup_epochs : float, default=1.0
        Epochs over which the learning rate rises from zero.
    schedule : {"cosine", "exponential", "constant"}, default="cosine"
        How the learning rate falls.
    final_learning_rate : float, default=0.01
        What the cosine falls to, as a fraction of the learning rate.
    decay : float, default=0.99
        Factor of the exponential schedule, each epoch.
    ema_decay : float, default=0.999
        How much of the averaged weights, which are what is validated and saved, a step keeps; 0
        takes the weights themselves.
    clip_norm : float or None, default=1.0
        Longest gradient of a step.
    patience : int or None, default=None
        Epochs without a better validation loss after which the training ends.
    precision : {"float32", "float64"}, default="float32"
        Of the network.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
    threads : int or None, default=None
        Threads of each process on the CPU; None leaves it to torch.
    seed : int, default=0
        Of first weights, held-out part and order.
    checkpoint_seconds : float, default=300.0
        Longest time between two checkpoints; there is one at the end of each epoch.
    tensorboard : bool, default=False
        Whether to log for TensorBoard too.
    """

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_fraction: float = 0.1
    total_charge: float = 0.0
    output: Path | None = None
    resume: bool = True
    initial: Path | None = None
    model: NetworkSettings = field(default_factory=GETSettings)
    electrostatics: bool = True
    dispersion: Literal["none", "d3-cso"] = "none"
    dispersion_in_labels: bool | None = None
    repulsion: bool = False
    forces: ForceRule = "conservative"
    loss: LossOptions = field(default_factory=LossOptions)
    fit_references: bool = True
    epochs: int = 100
    batch_size: int = 16
    max_atoms: int | None = None
    optimizer: Literal["adamw", "adamax"] = "adamw"
    learning_rate: float = 0.003
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    final_learning_rate: float = 0.01
    decay: float = 0.99
    ema_decay: float = 0.999
    clip_norm: float | None = 1.0
    patience: int | None = None
    precision: Literal["float32", "float64"] = "float32"
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    checkpoint_seconds: float = 300.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be, all at once."""
        check_choices(self)
        given = {name: getattr(self, name) for name in (*POSITIVE, *NOT_NEGATIVE, *FRACTIONS)}
        problems = [
            f"{name} is {given[name]!r}, expected more than 0"
            for name in POSITIVE
            if given[name] is not None and not given[name] > 0
        ]
        problems += [
            f"{name} is {given[name]!r}, expected at least 0"
            for name in NOT_NEGATIVE
            if not given[name] >= 0
        ]
        problems += [
            f"{name} is {given[name]!r}, expected 0 to 1"
            for name in FRACTIONS
            if not 0 <= given[name] <= 1
        ]
        if self.dispersion != "none" and self.dispersion_in_labels is None:
            problems.append(
                "dispersion_in_labels is not given: say true for labels with dispersion (GFN2-xTB, "
                "any -D3 or -D4) and false for those without (B3LYP), or it is counted twice"
            )
        if self.loss.weights["qeq"] > 0 and not self.electrostatics:
            problems.append("loss.qeq is more than 0, which needs electrostatics")
        if problems:
            message = f"Cannot train with these options: {'; '.join(problems)}."
            raise InvalidInputError(message)

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch knows it."""
        return torch.float32 if self.precision == "float32" else torch.float64


@dataclass(frozen=True)
class TrainingResult:
    """What `fit` returns.

    Attributes
    ----------
    force_field : ForceField
        The averaged weights of the epoch with the lowest validation loss.
    history : list of dict of str to float
        A line of the log for each epoch.
    best_epoch : int
        That epoch, from 1.
    path : Path or None
        Folder of the saved model.
    rank : int
        Of this process among those that trained together.
    """

    force_field: ForceField = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int
    path: Path | None
    rank: int = 0


def fit(
    options: TrainingOptions,
    *,
    train: Any = None,
    validation: Any = None,
    model: ForceField | None = None,
    progress: Progress = "auto",
) -> TrainingResult:
    """Train a force field.

    A training that was killed goes on from its last checkpoint when it is called again with the
    same options, to the same numbers as if it had never been stopped (on a CPU bit by bit, with
    the same number of threads). Ctrl-C finishes the step, writes a checkpoint and raises
    KeyboardInterrupt. Under ``torchrun`` each step is shared between the processes.

    Parameters
    ----------
    options : TrainingOptions
        What to do.
    train, validation : AtomicBatch, ase.Atoms, path, sequence of those, or None, default=None
        Structures; None takes the files of the options.
    model : ForceField or None, default=None
        What to train, in place; None builds one after the options. A network that no training here
        has seen is normalised by the structures first, see `scikd.md.model.Architecture.measure`.
    progress : {"auto", True, False}, default="auto"
        Of each epoch; see `scikd._progress.track`.

    Returns
    -------
    TrainingResult
        The best force field and the log.

    Raises
    ------
    InvalidInputError
        If there is nothing to train on, labels are missing that the loss was told to use, or the
        output holds a training with other options.
    DivergedError
        If the loss becomes NaN or infinite.
    StorageError, CorruptFileError
        If a file cannot be read or written.
    """
    processes = joined_processes()
    rank = processes.rank
    with torch_threads(options.threads):
        device = choose_device(options.device)
        chosen, held_out = _structures(options, train, validation)
        _check_labels(options.loss, chosen)
        force_field = model or _first_model(options, chosen)
        force_field.to(device=device, dtype=options.dtype).train()
        for batch in (chosen, held_out):
            force_field.check_elements(batch.numbers.to(device))
        shown: Progress = progress if rank == 0 else False
        frames, others = (
            FrameSet(
                batch, force_field.neighbors, device=device, dtype=options.dtype, progress=shown
            )
            for batch in (chosen, held_out)
        )
        measure_untrained(force_field, frames)
        note_range(force_field, chosen)
        if model is None and options.initial is not None and options.fit_references:
            _refit_references(force_field, frames, options)
        settings = settings_of(options, force_field, chosen, held_out)
        course = Course(frames, others, Loss(options.loss.scaled(chosen)))
        trainer = Trainer(options, force_field, [course], settings, shown, processes)
        trainer.run()
    return result_of(trainer)


def result_of(trainer: Trainer) -> TrainingResult:
    """Return the result of a training that has run."""
    best = trainer.best.cpu().eval()
    path, standing = trainer.save_best(), trainer.standing
    return TrainingResult(best, standing.history, standing.best_epoch, path, trainer.rank)


def build_force_field(
    options: TrainingOptions, elements: set[int], references: dict[int, float] | None = None
) -> ForceField:
    """Return the untrained force field that the options describe.

    Parameters
    ----------
    options : TrainingOptions
        What to build, and the seed of the first weights.
    elements : set of int
        Atomic numbers that it shall know.
    references : dict of int to float or None, default=None
        Energies of the elements in eV.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        architecture = build_architecture(options.model)
    return ForceField(
        architecture,
        elements=sorted(elements),
        references=references,
        electrostatics=Electrostatics() if options.electrostatics else None,
        dispersion=D3CSO() if options.dispersion == "d3-cso" else None,
        repulsion=ZBL() if options.repulsion else None,
        forces=options.forces,
        dispersion_in_labels=bool(options.dispersion_in_labels),
    )


def _first_model(options: TrainingOptions, train: AtomicBatch) -> ForceField:
    if options.initial is not None:
        name = str(options.initial)
        return load_force_field(name if name == "default" else options.initial)
    elements = set(torch.unique(train.numbers).tolist())
    has_energy = train.energy is not None and options.fit_references
    return build_force_field(options, elements, fit_references(train) if has_energy else None)


def measure_untrained(force_field: ForceField, frames: FrameSet) -> None:
    """Let a new network see a sample of the structures, whose average it is normalised by.

    One that was trained, as `note_range` has noted, stays what it is.
    """
    if "training_range" in force_field.metadata:
        return
    n_structures = len(frames)
    some = np.unique(np.linspace(0, n_structures - 1, min(n_structures, MEASURED), dtype=np.intp))
    batch, neighbors = frames.take(some)
    vectors = neighbors.near.vectors(batch.positions, batch.cell)
    force_field.architecture.measure(batch.numbers, neighbors.near.index, vectors)


def _refit_references(force_field: ForceField, frames: FrameSet, options: TrainingOptions) -> None:
    """Add to the references what one energy for each element explains of the errors.

    Levels of theory differ in the energies of atoms far more than in what a network learns.
    """
    batch = frames.batch
    if batch.energy is None:
        return
    errors = torch.empty_like(batch.energy)
    for indices in plan_batches(frames.counts, options.batch_size, max_atoms=options.max_atoms):
        part, neighbors = frames.take(indices)
        predicted = force_field(part, neighbors, forces=False, as_labelled=True)["energy"]
        errors[torch.from_numpy(indices)] = part.energy - predicted
    for number, energy in fit_references(replace(batch, energy=errors)).items():
        force_field.references[number] += energy


def note_range(force_field: ForceField, train: AtomicBatch) -> None:
    """Add to the metadata how close two elements come in training, and which charges it holds.

    What was known stays. Of a model from before charges were noted, nobody knows which it has seen.
    """
    about = force_field.metadata
    charges = train.total_charge.tolist()
    if "total_charges" in about or "training_range" not in about:
        seen = [*charges, *about.get("total_charges", [])]
        about["total_charges"] = [min(seen), max(seen)]
    old = about.get("training_range", {})
    new = training_range(train)
    about["training_range"] = old | {
        pair: min(distance, old.get(pair, distance)) for pair, distance in new.items()
    }


def _structures(
    options: TrainingOptions, train: Any, validation: Any
) -> tuple[AtomicBatch, AtomicBatch]:
    """Return the structures to train on and those held out."""
    train = options.train if train is None else train
    validation = options.validation if validation is None else validation
    if isinstance(train, tuple) and not train:
        message = "Expected structures to train on: files in the option train, or fit(train=...)."
        raise InvalidInputError(message)
    chosen = as_batch(train, total_charge=options.total_charge)
    if not (isinstance(validation, tuple) and not validation):
        return chosen, as_batch(validation, total_charge=options.total_charge)
    groups = groups_of(chosen)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        of = "structures" if chosen.group is None else "groups of structures"
        message = (
            f"Expected at least 2 {of}, to hold some out; got {n_groups}. Give validation "
            "structures."
        )
        raise InvalidInputError(message)
    rest, held_out = split(groups, options.validation_fraction, options.seed)
    how = "at random"
    if chosen.group is not None:
        n_held_out = len(np.unique(groups[held_out]))
        how = f"by group ({n_held_out} of {n_groups}): no trajectory is on both sides"
    logger.info("holds out %d of %d structures %s", len(held_out), len(groups), how)
    return select(chosen, rest), select(chosen, held_out)


def _check_labels(options: LossOptions, train: AtomicBatch) -> None:
    """Refuse a loss that was told to use labels that no structure has."""
    found = {name: labels(name, train) for name, weight in options.weights.items() if weight > 0}
    there = {n for n, label in found.items() if label is not None and not label.isnan().all()}
    missing = [n for n in found if n not in there and getattr(options, n) is not None]
    if missing or not there - {"qeq"}:
        message = (
            f"Expected labels for {', '.join(missing or found)}, and no structure has any. "
            "Check the names of the labels in the files, or set the weight to 0."
        )
        raise InvalidInputError(message)


def settings_of(
    options: TrainingOptions, force_field: ForceField, *structures: AtomicBatch
) -> dict[str, Any]:
    """Return what a training must have in common with the checkpoint that it goes on from."""
    plain = {k: v for k, v in plain_options(options).items() if k not in FREE}
    if options.schedule != "cosine":
        plain.pop("epochs")  # a training may be prolonged, where that changes nothing before
    digest = hashlib.sha256()
    for batch in structures:
        for name, array in sorted(batch.arrays().items()):
            if name != "group":  # which says no more than who is in which of the two
                digest.update(name.encode() + array.tobytes())
    return {"options": plain, "model": describe(force_field), "structures": digest.hexdigest()}
