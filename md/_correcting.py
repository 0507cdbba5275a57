"""The corrections of an alignment: a model is trained on labels with other pressures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scikd._devices import choose_device
from scikd._distributed import joined_processes
from scikd._progress import Progress

from ._bulk import frame_sets, hold_out_tails, mixtures_of
from ._trainer import Course, Trainer
from ._training_data import groups_of, plan_batches, split
from .frames import AtomicBatch, collate, select
from .losses import Loss, LossOptions
from .model import ForceField
from .pressure import molecular_pressure
from .training import TrainingOptions, result_of, settings_of
from .units import BAR

if TYPE_CHECKING:
    from ._aligning import Measured
    from .alignment import AlignmentOptions

__all__ = ["correct", "training_of"]

REFERENCE = "reference"


def correct(
    model: ForceField,
    measured: Mapping[str, Measured],
    options: AlignmentOptions,
    anchor: AtomicBatch | None,
    folder: Path,
    progress: Progress,
) -> tuple[ForceField, dict[str, float]]:
    """Return a model with other pressures, and by how much each has moved, in bar.

    Parameters
    ----------
    model : ForceField
        What was measured; it stays as it is.
    measured : mapping of str to Measured
        By liquid.
    options : AlignmentOptions
        How to train.
    anchor : AtomicBatch or None
        Reference structures with labels.
    folder : pathlib.Path
        Of the training, which goes on from there.
    progress : {"auto", True, False}
        See `scikd._progress.track`.
    """
    training = training_of(options, folder)
    device, dtype = choose_device(options.device), training.dtype
    frames = collate([m.frames for m in measured.values()])
    counts = [m.frames.n_structures for m in measured.values()]
    which = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    frames = replace(frames, group=which)
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    model.train_only(options.parameters)
    known = _labelled(model, frames, dtype)
    wanted = torch.tensor([m.shift.value for m in measured.values()], dtype=known.cell.dtype)[which]
    shifted = _add_pressure(known, wanted)
    rest, held_out = hold_out_tails(mixtures_of(frames), options.validation_fraction)
    terms = _bulk_terms(select(known, rest), wanted[rest], options)
    chosen = [(select(shifted, rest), select(shifted, held_out))]
    if anchor is not None:
        parts = split(groups_of(anchor), options.validation_fraction, options.seed)
        chosen.append((select(anchor, parts[0]), select(anchor, parts[1])))
    train, unseen = frame_sets(model, *chosen[0], dtype=dtype)
    courses = [Course(train, unseen, Loss(terms), as_labelled=False, by_group=True)]
    if anchor is not None:
        relative = options.reference_loss.scaled(chosen[1][0])
        if options.parameters == "readout":  # which changes no charges: they would only dilute
            relative = replace(relative, charges=0.0, dipole=0.0, qeq=0.0)
        train, unseen = frame_sets(model, *chosen[1], dtype=dtype)
        courses.append(Course(train, unseen, Loss(relative), REFERENCE))
    settings = settings_of(training, model, *(batch for pair in chosen for batch in pair))
    trainer = Trainer(training, model.train(), courses, settings, progress, joined_processes())
    if anchor is not None:
        # Measured by what they are now, errors on the reference start at one, as the shifts do.
        cost = trainer.validate(courses[1])[f"{REFERENCE}_validation_loss"]
        loss = Loss(_times(relative, 1.0 / cost) if cost > 0.0 else relative)
        trainer.courses = (courses[0], replace(courses[1], loss=loss))
    trainer.run()
    aligned = result_of(trainer).force_field
    before = select(known, held_out)
    now = _labelled(aligned.to(device=device), before, dtype)
    change = _pressure(now) - _pressure(before)
    moved = {
        name: float(change[which[held_out] == number].mean())
        for number, name in enumerate(measured)
    }
    return aligned.cpu(), moved


def training_of(options: AlignmentOptions, folder: Path) -> TrainingOptions:
    """Return the options of the training."""
    return TrainingOptions(
        output=folder,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=0.0,
        ema_decay=0.98,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        seed=options.seed,
    )


def _labelled(model: ForceField, batch: AtomicBatch, dtype: torch.dtype) -> AtomicBatch:
    """Return frames with what a model in use says of them."""
    (frames,) = frame_sets(model, batch, dtype=dtype)
    parts = []
    for indices in plan_batches(frames.counts, 1, sort=False):
        out = model(*frames.take(indices), stress=True, as_labelled=False)
        parts.append({name: out[name].cpu() for name in ("energy", "forces", "stress")})
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    kinds = {name: values.to(batch.positions.dtype) for name, values in found.items()}
    return replace(batch, **kinds)


def _pressure(batch: AtomicBatch) -> torch.Tensor:
    """Return the pressure of each frame in bar, from its labels, at rest."""
    assert batch.forces is not None  # noqa: S101 - for the type checker: they are labelled
    assert batch.stress is not None  # noqa: S101
    return molecular_pressure(batch, batch.forces, batch.stress, 0.0)


def _add_pressure(batch: AtomicBatch, bars: torch.Tensor) -> AtomicBatch:
    """Return frames whose labels have so much more pressure, with the same forces."""
    assert batch.stress is not None  # noqa: S101 - for the type checker: they are labelled
    stress = batch.stress.clone()
    stress[:, :3] -= bars[:, None] * BAR
    return replace(batch, stress=stress)


def _bulk_terms(batch: AtomicBatch, bars: torch.Tensor, options: AlignmentOptions) -> LossOptions:
    """Return the loss on liquids: missing all shifts costs one, and so does a change of the rest.

    That change is the share ``hold`` of the fluctuations of forces, energies and shear.
    """
    kept = LossOptions(
        "relative", forces=1.0, virial=0.0, charges=0.0, dipole=0.0, shear=1.0, offset="group"
    )
    held = kept.scaled(batch)
    held = _times(held, options.hold**-2)
    size = batch.volume / batch.counts * BAR
    shifts = (size * bars) ** 2 + (size * options.tolerance_bar) ** 2
    return replace(held, pressure=1.0 / float(shifts.mean()))


def _times(options: LossOptions, factor: float) -> LossOptions:
    weights: dict[str, Any] = {name: w * factor for name, w in options.weights.items()}
    return replace(options, **weights)
