"""Molecular dynamics of a liquid: packed, equilibrated, run, logged; killed and resumed.

One call does it all; what it writes lies in one folder, and the same call goes on from there.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from scikd._atomic import atomic_write_bytes, new_folder
from scikd._options import check_choices
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError, MissingExtraError, ScikdError

from ._process import StopRequest
from ._run import PICOSECOND, Run
from ._trajectory import Recorder
from .dynamics_report import energy_drift, plot_dynamics, read_log
from .estimates import Estimate, block_average

__all__ = ["DynamicsError", "DynamicsOptions", "DynamicsResult", "run_dynamics"]

logger = logging.getLogger(__name__)

Ensemble = Literal["nve", "nvt", "npt"]

FEMTOSECONDS = {"fs": 1.0, "ps": PICOSECOND, "ns": 1e3 * PICOSECOND}
FIGURE = "dynamics.png"
POSITIVE = frozenset(
    {
        "n_atoms",
        "temperature",
        "timestep",
        "compressibility",
        "max_force",
        "max_displacement",
        "log_interval",
        "trajectory_interval",
        "checkpoint_interval",
    }
)
AVERAGED = ("temperature_K", "density_g_cm3", "pressure_bar", "potential_eV")


class DynamicsError(ScikdError, RuntimeError):
    """A run has blown up; the last good frame was written, and the message says where."""


@dataclass(frozen=True)
class DynamicsOptions:
    """Settings of a run.

    Parameters
    ----------
    liquid : str
        A mixture such as "EC:DMC 1:1", or the path of a structure in any format that ASE reads.
    n_atoms : int
        About how many atoms to pack.
    density : float or None
        In g/cm³. At constant volume the box is brought to it while equilibrating; at constant
        pressure packing aims at it. None is the mixture's own guess, or the box of the file.
    model : str
        Folder of a force field, or "default".
    ensemble : {"nve", "nvt", "npt"}
        What is constant: energy, temperature, or temperature and pressure.
    temperature : float
        In K. At constant energy that of the equilibration.
    pressure : float
        In bar.
    timestep : float
        In fs.
    time : str
        How long to run, such as "20ps".
    equilibration : str
        How long to equilibrate before, at constant temperature (and pressure); "0ps" for not.
    minimise_steps : int
        Most steps of minimisation at the start.
    thermostat_time : float
        Time constant of the temperature in fs.
    barostat_time : float
        Time constant of the pressure in fs, for a liquid of the given compressibility.
    compressibility : float
        Of about the liquid, in 1/bar.
    hydrogen_mass : float or None
        Mass of hydrogen in u, taken from what it is bonded to, for longer time steps.
    seed : int
        Of the packing, the velocities and the noise.
    output : str
        Folder for all that is written.
    log_interval : int
        Steps between two rows of the log.
    trajectory_interval : int
        Steps between two frames.
    checkpoint_interval : int
        Steps between two checkpoints.
    pressure_interval : int
        Steps between two records of the pressure tensor, which the viscosity needs every few fs; 0
        for none.
    acceleration : float
        Amplitude in Å/ps² of a cosine along z that drives a flow along x, for the viscosity; 0 for
        none.
    engine : {"auto", "torch", "numba"}
        What computes forces.
    device : str
        For torch.
    dtype : str
        Precision of the network: "auto", "float32" or "float64".
    skin : float
        Of the neighbour lists in Å.
    threads : int or None
        Threads of the force field; None is all.
    max_temperature : float or None
        In K, above which the run has blown up; None is ten times the temperature.
    max_force : float
        In eV/Å, on one atom, likewise.
    max_displacement : float
        In Å, of one atom in one step, likewise.
    min_density : float
        Over the density at the start, likewise.
    """

    liquid: str = "EC:DMC 1:1"
    n_atoms: int = 500
    density: float | None = None
    model: str = "default"
    ensemble: Ensemble = "npt"
    temperature: float = 300.0
    pressure: float = 1.0
    timestep: float = 1.0
    time: str = "20ps"
    equilibration: str = "2ps"
    minimise_steps: int = 200
    thermostat_time: float = 100.0
    barostat_time: float = 1000.0
    compressibility: float = 5e-5
    hydrogen_mass: float | None = None
    seed: int = 0
    output: str = "md-run"
    log_interval: int = 20
    trajectory_interval: int = 200
    checkpoint_interval: int = 1000
    pressure_interval: int = 5
    acceleration: float = 0.0
    engine: Literal["auto", "torch", "numba"] = "auto"
    device: str = "auto"
    dtype: str = "auto"
    skin: float = 1.0
    threads: int | None = None
    max_temperature: float | None = None
    max_force: float = 200.0
    max_displacement: float = 0.5
    min_density: float = 0.5

    def __post_init__(self) -> None:
        check_choices(self)
        names = [field.name for field in fields(self)]
        numbers = [n for n in names if n.endswith("_time") or n in POSITIVE]
        problems = [
            f"{name} > 0, got {value!r}"
            for name in numbers
            if not (value := getattr(self, name)) > 0
        ]
        optional = ("density", "hydrogen_mass", "max_temperature", "threads")
        given = {name: v for name in optional if (v := getattr(self, name)) is not None}
        problems += [f"{name} > 0 or None, got {v!r}" for name, v in given.items() if not v > 0]
        for name in ("minimise_steps", "seed", "pressure_interval", "acceleration"):
            if (value := getattr(self, name)) < 0:
                problems.append(f"{name} >= 0, got {value!r}")
        if self.acceleration and self.ensemble != "nvt":
            problems.append(f"ensemble 'nvt' with an acceleration, got {self.ensemble!r}")
        if not 0 <= self.min_density < 1:
            problems.append(f"min_density from 0 to below 1, got {self.min_density!r}")
        if problems:
            raise InvalidInputError(f"Expected {'; '.join(problems)}.")
        _ = self.n_steps, self.n_equilibration

    @property
    def n_steps(self) -> int:
        """How many steps to run after the equilibration."""
        return round(_parse_duration(self.time) / self.timestep)

    @property
    def n_equilibration(self) -> int:
        """How many steps to equilibrate."""
        return round(_parse_duration(self.equilibration) / self.timestep)


@dataclass(frozen=True)
class DynamicsResult:
    """What a run ended with.

    Attributes
    ----------
    atoms : ase.Atoms
        The last frame, with momenta, not wrapped into the cell.
    folder : pathlib.Path
        Where all files lie.
    log, trajectory : pathlib.Path
        CSV and extended XYZ.
    figure : pathlib.Path or None
        Temperature, density, pressure and conserved energy over time; None without matplotlib.
    n_steps : int
        Steps after the equilibration.
    averages : dict of str to (float, float)
        Mean and standard error (by blocks) of the columns of the log, without the equilibration.
    drift : tuple of float
        Slope of the conserved energy in meV/atom/ns, and its standard error.
    ns_per_day : float
        Speed of this call, NaN if it made no step.
    """

    atoms: Atoms
    folder: Path
    log: Path
    trajectory: Path
    figure: Path | None
    n_steps: int
    averages: dict[str, tuple[float, float]]
    drift: tuple[float, float]
    ns_per_day: float

    def summary(self) -> str:
        """Say in two lines what came out, and where it lies."""
        units_of = {"temperature_K": "K", "density_g_cm3": "g/cm³", "pressure_bar": "bar"}
        parts = [
            str(Estimate(*average, units_of[name]))
            for name, average in self.averages.items()
            if name in units_of
        ]
        parts.append(f"drift {Estimate(*self.drift, 'meV/atom/ns')}")
        if np.isfinite(self.ns_per_day):
            parts.append(f"{self.ns_per_day:.3g} ns/day")
        paths = [str(path) for path in (self.log, self.trajectory, self.figure) if path]
        return f"{len(self.atoms)} atoms, {self.n_steps} steps: {', '.join(parts)}\n" + ", ".join(
            paths
        )


def _parse_duration(text: str) -> float:
    """Return a duration such as "20ps" in fs.

    Raises
    ------
    InvalidInputError
        If it is no number with a unit fs, ps or ns.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(fs|ps|ns)\s*", str(text))
    if match is None:
        message = f"Expected a time with its unit, such as '20ps', '500 fs' or '1ns'; got {text!r}."
        raise InvalidInputError(message)
    return float(match[1]) * FEMTOSECONDS[match[2]]


def run_dynamics(
    options: DynamicsOptions,
    *,
    atoms: Atoms | None = None,
    calculator: Calculator | None = None,
    progress: Progress = "auto",
) -> DynamicsResult:
    """Run molecular dynamics, or go on with a run that was cut short.

    Parameters
    ----------
    options : DynamicsOptions
        The settings. If its folder holds a run with the same settings, that is continued (a longer
        ``time`` extends it); a run that is complete is only summed up.
    atoms : ase.Atoms or None, default=None
        Where to start, in place of ``liquid``; it is not changed. New velocities are drawn. A run
        that is continued goes on from its checkpoint, and the elements must be the same.
    calculator : ase.calculators.calculator.Calculator or None, default=None
        Forces, in place of ``model``.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress. Every ten seconds a log line (level INFO) tells state and speed.

    Returns
    -------
    DynamicsResult
        Averages, and the paths of all that was written.

    Raises
    ------
    DynamicsError
        If the run blows up.
    InvalidInputError
        If the folder holds a run with other settings or of other atoms, or the settings do not fit
        the structure, or the atoms have constraints.
    StorageError
        If the disk is full, ...: the same call goes on from the last checkpoint.
    KeyboardInterrupt
        On Ctrl-C, after a checkpoint: the same call goes on where it stopped.
    Exception
        Whatever else a calculator raises (no memory, a bug, ...) is passed on, and what was written
        is kept: the same call goes on from the last checkpoint.

    Notes
    -----
    A run that was killed and resumed gives the same numbers and the same files, to the last bit, as
    one that was not: with a `ForceFieldCalculator` on the CPU; with others, and on a GPU, to
    rounding.
    """
    calculator = calculator if calculator is not None else _calculator(options)
    folder = Path(options.output)
    with new_folder(folder), Recorder(folder) as recorder:
        run = Run(options, recorder, calculator)
        found = recorder.load()
        if found is None:
            run.begin(atoms, progress)
        else:
            run.resume(atoms, *found)
        with StopRequest() as stop:
            speed = run.advance(stop, progress)
    return _result(recorder, run, speed)


def _calculator(options: DynamicsOptions) -> Calculator:
    from .calculators import ForceFieldCalculator  # noqa: PLC0415 - heavier than all the rest

    return ForceFieldCalculator(
        options.model,
        engine=options.engine,
        dtype=options.dtype,
        skin=options.skin,
        threads=options.threads,
        device=options.device,
    )


def _result(recorder: Recorder, run: Run, speed: float) -> DynamicsResult:
    atoms = run.atoms
    log = read_log(recorder.log)
    kept = log[log["time_ps"] >= 0]
    averages = {
        name: block_average(kept[name])
        for name in AVERAGED
        if len(kept) and kept[name].notna().all()
    }
    slope, error = energy_drift(kept["time_ps"], kept["conserved_eV"] / len(atoms))
    to_drift = 1e3 * PICOSECOND  # eV/ps to meV/ns
    figure: Path | None = recorder.folder / FIGURE
    try:
        atomic_write_bytes(recorder.folder / FIGURE, plot_dynamics(log, len(atoms)))
    except MissingExtraError as missing:
        figure = None
        logger.info("no figure: %s", missing)
    atoms.calc = None
    return DynamicsResult(
        atoms=atoms,
        folder=recorder.folder,
        log=recorder.log,
        trajectory=recorder.frames,
        figure=figure,
        n_steps=max(run.step - run.options.n_equilibration, 0),
        averages=averages,
        drift=(slope * to_drift, error * to_drift),
        ns_per_day=speed,
    )
