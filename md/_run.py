"""One run of dynamics between its first and its last step."""

from __future__ import annotations

import logging
import math
import time as clock
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError

from ._integrators import (
    conserved_energy,
    density_of,
    make_integrator,
    pressure_of,
    temperature_of,
)
from ._process import StopRequest
from ._recording import header_line, measure
from ._start import draw_velocities, load_or_pack, move_mass_to_hydrogen, relax
from ._trajectory import Recorder, Snapshot, write_frame
from ._watch import Watch, is_blow_up
from .perturbation import CosineAcceleration

if TYPE_CHECKING:
    from .dynamics import DynamicsOptions

__all__ = ["PICOSECOND", "Run", "speed_of"]

logger = logging.getLogger("scikd.md.dynamics")

PICOSECOND = 1000.0  # fs
REPORT_SECONDS = 10.0
RAMP_STEPS = 10  # between two changes of a box on its way to another density
LAST_GOOD = "last_good.extxyz"
# What may differ between a run and its continuation: none of it changes a number of the run.
FREE = frozenset({"time", "output", "threads"})


class Run:
    """A run between two steps: everything that the next step depends on, and who is told."""

    def __init__(
        self, options: DynamicsOptions, recorder: Recorder, calculator: Calculator
    ) -> None:
        if options.acceleration:
            calculator = CosineAcceleration(calculator, options.acceleration)
        self.options, self.recorder, self.calculator = options, recorder, calculator
        self.settings = self._settings()
        self.rng = np.random.default_rng(options.seed)
        self.step = 0
        self.forces: np.ndarray | None = None  # at the present positions, if known
        self.spent = 0.0  # by thermostat and barostat of the stages before, eV

    def begin(self, atoms: Atoms | None, progress: Progress) -> None:
        """Build, relax, heat; write the first row, frame and checkpoint."""
        options = self.options
        if atoms is None:
            atoms, density = load_or_pack(
                options.liquid,
                options.n_atoms,
                options.density,
                options.seed,
                loosely=self.equilibrating,
            )
        else:
            atoms, density = atoms.copy(), options.density
        self._check_box(atoms, density)
        if atoms.constraints:
            names = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
            message = f"Expected atoms without constraints; got {names}. Remove them first."
            raise InvalidInputError(message)
        self.recorder.check_free()
        if options.hydrogen_mass is not None:
            move_mass_to_hydrogen(atoms, options.hydrogen_mass)
        atoms.calc = self.calculator
        self.atoms = atoms
        if getattr(self.calculator, "engine", None) == "numba":
            logger.info("computing the first forces; once, the kernels are compiled for it")
        atoms.get_forces()
        relax(atoms, options.minimise_steps, progress)
        self.dof = draw_velocities(atoms, options.temperature, self.rng)
        self.reference = density_of(atoms)
        # At constant volume, what the edges grow by every few steps of the equilibration.
        self.growth = 1.0
        if density is not None and options.ensemble != "npt":
            moves = max(math.ceil(options.n_equilibration / RAMP_STEPS), 1)
            self.growth = (self.reference / density) ** (1.0 / (3.0 * moves))
        self._enter_stage()
        self.recorder.open(header=self._header())
        logger.info(
            "equilibrating for %s, then %s of %s dynamics in steps of %g fs",
            options.equilibration,
            options.time,
            options.ensemble,
            options.timestep,
        )
        self._log()
        self.recorder.add_frame(atoms, self.time)
        self._save()

    def _check_box(self, atoms: Atoms, density: float | None) -> None:
        periodic = bool(atoms.pbc.all())
        if self.options.ensemble == "npt" and not periodic:
            message = (
                "Constant pressure needs a structure that is periodic in three directions; got "
                f"pbc={atoms.pbc.tolist()}. Use ensemble 'nvt' or 'nve', or give it a cell."
            )
            raise InvalidInputError(message)
        if density is None or self.options.ensemble == "npt":
            return
        if not periodic:
            message = f"Expected no density for a structure without a box; got {density} g/cm³."
            raise InvalidInputError(message)
        if self.options.n_equilibration == 0 and abs(density / density_of(atoms) - 1.0) > 1e-6:
            message = (
                f"The box has {density_of(atoms):.4f} g/cm³ and shall have {density:.4f} g/cm³: "
                "give a time of equilibration, in which it is brought there."
            )
            raise InvalidInputError(message)

    def resume(self, atoms: Atoms | None, snapshot: Snapshot, lengths: dict[str, int]) -> None:
        """Take up a run at its last checkpoint; ``atoms``, if given, must be those of the run."""
        state = snapshot.state
        self._check_settings(state["settings"])
        if atoms is not None and not np.array_equal(atoms.numbers, snapshot.atoms.numbers):
            message = (
                f"{self.recorder.folder} holds a run of {snapshot.atoms.symbols}; got "
                f"{atoms.symbols}. Choose another output."
            )
            raise InvalidInputError(message)
        self.atoms, self.step = snapshot.atoms, state["step"]
        self.dof, self.reference = state["dof"], state["reference"]
        self.growth, self.spent = state["growth"], state["spent"]
        self.atoms.calc = self.calculator
        if snapshot.neighbors is not None and hasattr(self.calculator, "restore_neighbors"):
            self.calculator.restore_neighbors(self.atoms, *snapshot.neighbors)
        self._enter_stage()
        for name, value in state["integrator"].items():
            setattr(self.integrator, name, value)
        self.rng.bit_generator.state = state["rng"]
        self.recorder.open(lengths, header=self._header())
        logger.info("going on with %s at step %d", self.recorder.folder, self.step)

    def _header(self) -> str:
        """Return the first line of the pressures, empty if there are none to record."""
        every = self.options.pressure_interval
        if not every or not self.atoms.pbc.all():
            return ""
        # Those of the equilibration are left out, and so is the step that a run begins with.
        done = max(self.step, self.options.n_equilibration - 1)
        first = (done // every + 1) * every
        in_ps = self.options.timestep / PICOSECOND
        return header_line(every * in_ps, (first - self.options.n_equilibration) * in_ps)

    def _check_settings(self, before: dict[str, Any]) -> None:
        now = self.settings
        # A run from before these options began: its pressures are recorded from here on.
        before = {"acceleration": 0.0, "pressure_interval": now["pressure_interval"], **before}
        changed = [
            f"{name} was {before.get(name)!r}, now {value!r}"
            for name, value in now.items()
            if before.get(name) != value
        ]
        if changed:
            message = (
                f"{self.recorder.folder} holds a run with other settings: {'; '.join(changed)}. "
                "Go on with the same settings, or choose another output."
            )
            raise InvalidInputError(message)

    def _settings(self) -> dict[str, Any]:
        """Return what a continuation must share; a model goes by its content, not by its path."""
        kept = {name: v for name, v in asdict(self.options).items() if name not in FREE}
        fingerprint = getattr(self.calculator, "fingerprint", None)
        return kept if fingerprint is None else {**kept, "model": fingerprint}

    @property
    def time(self) -> float:
        """Time in ps, negative while equilibrating."""
        steps = self.step - self.options.n_equilibration
        return float(steps * self.options.timestep / PICOSECOND)

    @property
    def equilibrating(self) -> bool:
        return self.step < self.options.n_equilibration

    def _enter_stage(self) -> None:
        ensemble: str = self.options.ensemble
        if self.equilibrating and ensemble == "nve":
            ensemble = "nvt"
        self.integrator = make_integrator(self.atoms, self.options, ensemble, self.rng, self.dof)
        self.forces = None

    def _sums(self) -> dict[str, float]:
        names = ("transferred_energy", "barostat_work")
        return {n: float(getattr(self.integrator, n)) for n in names if hasattr(self.integrator, n)}

    def _log(self) -> None:
        atoms = self.atoms
        row = (
            self.step,
            self.time,
            temperature_of(atoms, self.dof),
            density_of(atoms),
            pressure_of(atoms, self.dof),
            atoms.get_volume() if atoms.pbc.all() else math.nan,
            atoms.get_potential_energy(),
            atoms.get_total_energy(),
            conserved_energy(atoms, self.integrator) - self.spent,
        )
        self.recorder.add_row(row)

    def _save(self) -> None:
        reference = getattr(self.calculator, "neighbor_reference", None)
        state = {
            "step": self.step,
            "dof": self.dof,
            "reference": self.reference,
            "growth": self.growth,
            "spent": self.spent,
            "integrator": self._sums(),
            "rng": self.rng.bit_generator.state,
            "settings": self.settings,
        }
        self.recorder.save(Snapshot(self.atoms, state, reference))

    def advance(self, stop: StopRequest, progress: Progress) -> float:
        """Run to the end, and return the speed in ns/day."""
        options = self.options
        last = options.n_equilibration + options.n_steps
        if self.step > last:
            message = (
                f"Expected a time of at least {self.time:.10g} ps, as the run in {options.output} "
                f"has come so far; got {options.time}. Raise the time to that or more."
            )
            raise InvalidInputError(message)
        watch = Watch(options, self.dof, self.reference)
        watch.keep(self.atoms)
        first, started = self.step, clock.perf_counter()
        for _ in track(
            self._steps(watch, last),
            total=max(last - first, 0),
            description=f"{options.ensemble} dynamics",
            progress=progress,
        ):
            if stop.received is not None:
                self._save()
                logger.info("stopped at step %d; the same call goes on from there", self.step)
                stop.obey()
        steps = self.step - first
        elapsed = clock.perf_counter() - started
        return speed_of(steps, options.timestep, elapsed) if steps else math.nan

    def _steps(self, watch: Watch, last: int) -> Iterator[int]:
        options = self.options
        recording = options.pressure_interval > 0 and self.atoms.pbc.all()
        reported, since = clock.perf_counter(), self.step
        while self.step < last:
            self._one_step(watch)
            if self.step % options.log_interval == 0:
                self._log()
            if recording and not self.equilibrating and self.step % options.pressure_interval == 0:
                self.recorder.add_pressures(measure(self.atoms))
            if self.step % options.trajectory_interval == 0:
                self.recorder.add_frame(self.atoms, self.time)
            if self.step % options.checkpoint_interval == 0 or self.step == last:
                self._save()
            passed = clock.perf_counter() - reported
            if passed > REPORT_SECONDS:
                self._report(speed_of(self.step - since, options.timestep, passed))
                reported, since = clock.perf_counter(), self.step
            yield self.step

    def _one_step(self, watch: Watch) -> None:
        try:
            if self.equilibrating and self.growth != 1.0 and self.step % RAMP_STEPS == 0:
                self.atoms.set_cell(self.atoms.cell * self.growth, scale_atoms=True)
                self.forces = None
            self.forces = self.integrator.step(self.forces)
            self._stand_still()
            problem = watch.check(self.atoms, self.forces)
        except Exception as error:
            if not is_blow_up(error, self.atoms):
                raise
            raise self._blown_up(watch, f"{type(error).__name__}: {error}") from error
        if problem is not None:
            raise self._blown_up(watch, problem)
        self.step += 1
        if self.step == self.options.n_equilibration:
            self.spent += sum(self._sums().values())
            self._enter_stage()

    def _stand_still(self) -> None:
        """Take off the momentum of the whole, which a mesh in the forces does not conserve."""
        if self.atoms.pbc.any():
            momenta, masses = self.atoms.get_momenta(), self.atoms.get_masses()
            velocity = momenta.sum(axis=0) / masses.sum()
            self.atoms.set_momenta(momenta - masses[:, None] * velocity)

    def _blown_up(self, watch: Watch, problem: str) -> Exception:
        """Write the last good frame, and return the error that tells where it lies."""
        from .dynamics import DynamicsError  # noqa: PLC0415 - which imports this module

        path = self.recorder.folder / LAST_GOOD
        if watch.good is not None:
            write_frame(path, watch.good)
        when = f"step {self.step + 1} ({self.time + self.options.timestep / PICOSECOND:.4f} ps)"
        return DynamicsError(
            f"The run blew up at {when}: {problem.rstrip('.')}. The last good frame is {path}. "
            "Try a shorter timestep, more minimise_steps, a start at lower density, or a model "
            "that has seen such structures."
        )

    def _report(self, speed: float) -> None:
        logger.info(
            "%s: %.2f of %.2f ps, %.0f K, %.3f g/cm³, %.3g ns/day",
            self.options.ensemble,
            self.time,
            self.options.n_steps * self.options.timestep / PICOSECOND,
            temperature_of(self.atoms, self.dof),
            density_of(self.atoms),
            speed,
        )


def speed_of(steps: int, timestep: float, seconds: float) -> float:
    """Return a speed in ns/day, of steps of so many fs."""
    return steps * timestep * 1e-6 * 86400.0 / seconds
