"""The stages of an alignment: liquids are measured, and a model trained on shifted labels."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from scikd._atomic import atomic_write_bytes
from scikd._devices import choose_device
from scikd._distributed import joined_processes
from scikd._progress import Progress
from scikd.exceptions import ScikdError

from ._bulk import frame_sets, hold_out_tails, mixtures_of
from ._stages import read_json
from ._trainer import Course, Trainer
from ._training_data import groups_of, plan_batches, split
from .calculators import CalculatorTeacher, ForceFieldCalculator
from .dynamics import DynamicsError, DynamicsOptions, DynamicsResult, run_dynamics
from .estimates import Estimate, block_average
from .frames import AtomicBatch, collate, find_molecules, from_ase, select, to_ase
from .liquids import choose_frames, run_name
from .losses import Loss, LossOptions
from .model import ForceField
from .pressure import molecular_pressure
from .readers import read_frames, write_frames
from .training import TrainingOptions, result_of, settings_of
from .units import BAR

if TYPE_CHECKING:
    from .alignment import AlignmentOptions
    from .densities import DensityTarget
    from .measurements import MeasuredLiquid

__all__ = [
    "AlignmentError",
    "Measured",
    "calculator_of",
    "correct",
    "density_of_target",
    "folder_of",
    "measure",
    "start_of",
]

logger = logging.getLogger("scikd.md.alignment")

FRAMES, FOUND, LAST = "frames.h5", "measured.json", "last.h5"
REFERENCE = "reference"


class AlignmentError(ScikdError, ArithmeticError):
    """A density is out of reach of a model; the message says why."""


@dataclass(frozen=True)
class Measured:
    """A liquid as a model has it.

    Attributes
    ----------
    shift : Estimate
        What has to be added to the pressure at the wanted density, in bar.
    density : Estimate
        In g/cm³; that of the target where it was held.
    frames : AtomicBatch
        To learn from.
    last : AtomicBatch
        The last frame, where another run may start.
    """

    shift: Estimate
    density: Estimate
    frames: AtomicBatch
    last: AtomicBatch


def dynamics_of(
    target: DensityTarget, options: AlignmentOptions, ensemble: str, time: str, folder: Path
) -> DynamicsOptions:
    """Return the options of a run of a liquid."""
    return DynamicsOptions(
        liquid=target.liquid,
        n_atoms=options.n_atoms,
        density=target.density_g_cm3,
        ensemble=ensemble,  # type: ignore[arg-type]
        temperature=target.temperature_k,
        pressure=target.pressure_bar,
        timestep=options.timestep,
        time=time,
        equilibration=options.equilibration,
        compressibility=options.compressibility,
        hydrogen_mass=options.hydrogen_mass,
        seed=options.seed,
        output=str(folder),
        log_interval=options.interval,
        trajectory_interval=options.interval,
        engine=options.engine,
        device=options.device,
        threads=options.threads,
    )


def calculator_of(model: ForceField, options: AlignmentOptions) -> ForceFieldCalculator:
    """Return a calculator of a model."""
    return ForceFieldCalculator(
        model, engine=options.engine, threads=options.threads, device=options.device
    )


def start_of(given: Atoms | AtomicBatch | None) -> Atoms | None:
    """Return where a run starts, with its molecules, or None for a box that is to be packed."""
    atoms = to_ase(given)[0] if isinstance(given, AtomicBatch) else given
    return None if atoms is None else with_molecules(atoms)


def with_molecules(atoms: Atoms) -> Atoms:
    """Return a structure whose molecules are known."""
    if "molecules" in atoms.arrays:
        return atoms
    found = atoms.copy()
    found.set_array("molecules", find_molecules(atoms))
    return found


def measure(
    target: DensityTarget,
    model: ForceField,
    options: AlignmentOptions,
    folder: Path,
    start: Atoms | None,
    progress: Progress,
) -> Measured:
    """Run a liquid, and say what its pressure lacks at the wanted density.

    What is done is kept in the folder, and read from there.

    Raises
    ------
    AlignmentError
        If the run blows up.
    """
    if not (folder / FOUND).exists():
        calculator = calculator_of(model, options)
        done = _run_at_density(target, calculator, options, options.time, folder, start, progress)
        kept = [f for f in read(done.trajectory, ":") if f.info["time_ps"] > 0]
        frames = from_ase([with_molecules(frame) for frame in kept])
        pressures = _pressures(frames, calculator, target.temperature_k)
        held = (target.density_g_cm3, 0.0)
        found: dict[str, Any] = {
            "pressure_bar": block_average(pressures),
            "density_g_cm3": done.averages["density_g_cm3"] if options.route == "npt" else held,
        }
        chosen = choose_frames(np.zeros(len(kept)), min(options.n_frames, len(kept)), 0)
        write_frames(folder / FRAMES, select(frames, chosen))
        write_frames(folder / LAST, select(frames, [-1]))
        atomic_write_bytes(folder / FOUND, json.dumps(found).encode())
    found = read_json(folder / FOUND)
    shift = _shift(target, options, found)
    density, error = found["density_g_cm3"]
    frames, last = (read_frames(folder / name) for name in (FRAMES, LAST))
    return Measured(shift, Estimate(density, error, "g/cm³"), frames, last)


def settle(
    target: DensityTarget,
    model: ForceField,
    options: AlignmentOptions,
    folder: Path,
    start: Atoms | None,
    progress: Progress,
) -> AtomicBatch:
    """Run a liquid until it has forgotten how it was packed, and return its box.

    Raises
    ------
    AlignmentError
        If the run blows up.
    """
    if not (folder / LAST).exists():
        calculator, time = calculator_of(model, options), options.settling
        done = _run_at_density(target, calculator, options, time, folder, start, progress)
        write_frames(folder / LAST, from_ase([with_molecules(done.atoms)]))
    return read_frames(folder / LAST)


def _run_at_density(
    target: DensityTarget,
    calculator: ForceFieldCalculator,
    options: AlignmentOptions,
    time: str,
    folder: Path,
    start: Atoms | None,
    progress: Progress,
) -> DynamicsResult:
    run = dynamics_of(target, options, options.route, time, folder)
    at = f"{target.liquid} at {target.density_g_cm3:g} g/cm³ and {target.temperature_k:g} K"
    verdict = f"{at}; it cannot, so this density is out of its reach"
    return _run(run, calculator, start, progress, verdict)


def _run(
    run: DynamicsOptions,
    calculator: ForceFieldCalculator,
    start: Atoms | None,
    progress: Progress,
    verdict: str,
) -> DynamicsResult:
    try:
        return run_dynamics(run, atoms=start, calculator=calculator, progress=progress)
    except DynamicsError as reason:
        message = f"Expected the model to run {verdict}. {reason}"
        raise AlignmentError(message) from reason


def _shift(target: DensityTarget, options: AlignmentOptions, found: Mapping[str, Any]) -> Estimate:
    """Return what to add to the pressure at the target's density."""
    if options.route == "nvt":
        pressure, error = found["pressure_bar"]
        return Estimate(target.pressure_bar - pressure, error, "bar")
    density, error = found["density_g_cm3"]
    slope = 1.0 / (target.density_g_cm3 * options.compressibility)
    return Estimate(density - target.density_g_cm3, error).scaled(slope, "bar")


def _pressures(
    frames: AtomicBatch, calculator: ForceFieldCalculator, temperature: float
) -> np.ndarray:
    """Return the pressure of each frame in bar, from what is between molecules."""
    logger.info("computing the pressures of %d frames", frames.n_structures)
    teacher = CalculatorTeacher(calculator, properties=("forces", "stress"))
    found = teacher.predict(to_ase(frames))
    forces, stress = (torch.from_numpy(found[name]) for name in ("forces", "stress"))
    return molecular_pressure(frames, forces, stress, temperature).numpy()


def density_of_target(
    target: DensityTarget,
    model: ForceField,
    options: AlignmentOptions,
    folder: Path,
    start: Atoms | None,
    progress: Progress,
) -> Estimate:
    """Return the density of a liquid at its pressure, in g/cm³.

    Raises
    ------
    AlignmentError
        If the run blows up.
    """
    if not (folder / FOUND).exists():
        run = dynamics_of(target, options, "npt", options.density_time, folder)
        # A box comes to its density more slowly than to its temperature.
        left_out = max(run.n_equilibration, run.n_steps // 3) * run.timestep
        run = replace(run, equilibration=f"{left_out}fs")
        at = f"{target.liquid} at {target.pressure_bar:g} bar and {target.temperature_k:g} K"
        calculator = calculator_of(model, options)
        done = _run(run, calculator, start, progress, f"{at}; it cannot")
        found = {"density_g_cm3": done.averages["density_g_cm3"]}
        atomic_write_bytes(folder / FOUND, json.dumps(found).encode())
    density, error = read_json(folder / FOUND)["density_g_cm3"]
    return Estimate(density, error, "g/cm³")


# ------------------------------------------------------------------------------------- correction


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
    training = _training(options, folder)
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


def _training(options: AlignmentOptions, folder: Path) -> TrainingOptions:
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


def folder_of(target: DensityTarget | MeasuredLiquid) -> str:
    """Return the name of the folder of a liquid in a state."""
    state = f"{target.temperature_k:g}K-{target.pressure_bar:g}bar"
    return f"{run_name(target.liquid)}-{state}"
