"""The runs of an alignment: liquids settle, and their pressures and densities are measured."""

from __future__ import annotations

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
from scikd._progress import Progress
from scikd.exceptions import ScikdError

from ._stages import read_json
from .calculators import CalculatorTeacher, ForceFieldCalculator
from .dynamics import DynamicsError, DynamicsOptions, DynamicsResult, run_dynamics
from .estimates import Estimate, block_average
from .frames import AtomicBatch, find_molecules, from_ase, select, to_ase
from .liquids import choose_frames, run_name
from .model import ForceField
from .pressure import molecular_pressure
from .readers import read_frames, write_frames

if TYPE_CHECKING:
    from .alignment import AlignmentOptions
    from .densities import DensityTarget
    from .measurements import MeasuredLiquid

__all__ = [
    "AlignmentError",
    "Measured",
    "calculator_of",
    "density_of_target",
    "density_run",
    "dynamics_of",
    "folder_of",
    "measure",
    "settle",
    "start_of",
    "with_molecules",
]

logger = logging.getLogger("scikd.md.alignment")

FRAMES, FOUND, LAST = "frames.h5", "measured.json", "last.h5"


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


def density_run(target: DensityTarget, options: AlignmentOptions, folder: Path) -> DynamicsOptions:
    """Return the options of a run that gives the density of a liquid."""
    run = dynamics_of(target, options, "npt", options.density_time, folder)
    # A box comes to its density more slowly than to its temperature.
    left_out = max(run.n_equilibration, run.n_steps // 3) * run.timestep
    return replace(run, equilibration=f"{left_out}fs")


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
    if start is not None:  # a frame of a liquid: a minimisation would set it back by picoseconds
        run = replace(run, minimise_steps=0)
    try:
        return run_dynamics(run, atoms=start, calculator=calculator, progress=progress)
    except DynamicsError as reason:
        message = f"Expected the model to run {verdict}. {reason} Take another folder then."
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
        run = density_run(target, options, folder)
        at = f"{target.liquid} at {target.pressure_bar:g} bar and {target.temperature_k:g} K"
        calculator = calculator_of(model, options)
        done = _run(run, calculator, start, progress, f"{at}; it cannot")
        found = {"density_g_cm3": done.averages["density_g_cm3"]}
        atomic_write_bytes(folder / FOUND, json.dumps(found).encode())
    density, error = read_json(folder / FOUND)["density_g_cm3"]
    return Estimate(density, error, "g/cm³")


def folder_of(target: DensityTarget | MeasuredLiquid) -> str:
    """Return the name of the folder of a liquid in a state."""
    state = f"{target.temperature_k:g}K-{target.pressure_bar:g}bar"
    return f"{run_name(target.liquid)}-{state}"
