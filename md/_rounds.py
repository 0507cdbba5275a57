"""The rounds of an alignment: liquids are run, a model is corrected, and they are run anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ase import Atoms

from scikd._progress import Progress
from scikd.parallel import fan_out, one_by_one

from ._aligning import (
    AlignmentError,
    Measured,
    calculator_of,
    density_of_target,
    folder_of,
    measure,
    settle,
    start_of,
)
from ._changes import Changes, changes_of
from ._correcting import correct
from ._run import PICOSECOND
from .densities import DensityTarget
from .dynamics import DynamicsOptions
from .estimates import Estimate
from .frames import AtomicBatch
from .model import ForceField

if TYPE_CHECKING:
    from .alignment import AlignmentOptions

    # A liquid, its model, how and where it is run, and the frame from which.
    Task = tuple[DensityTarget, ForceField, AlignmentOptions, Path, AtomicBatch | None]

__all__ = ["Rounds", "Work"]

logger = logging.getLogger("scikd.md.alignment")

Result = TypeVar("Result")

ROUND, DENSITY, SETTLED = "iteration", "density", "settled"
SIGMAS = 2.0  # standard errors within which a pressure agrees
LEAST_REACH = 0.25  # of the shift that was asked for, on frames that were held out
USELESS = 0.05  # of a density; an error worth more agrees with anything
SLOWEST = 0.9  # of the largest shift two rounds ago, or the rounds lead nowhere


@dataclass(frozen=True)
class Rounds:
    """What the rounds came to.

    Attributes
    ----------
    model : ForceField
        The one that is kept: the last if its pressures agree, or else that of the round in which
        the largest shift was smallest.
    corrections : int
        How many it has had.
    converged : bool
        Whether its pressures agree.
    measured : tuple of dict of str to Measured
        In each round, by name of the target, with the model of so many corrections.
    moved : tuple of dict of str to float
        By how much each training moved pressures, in bar.
    """

    model: ForceField
    corrections: int
    converged: bool
    measured: tuple[dict[str, Measured], ...]
    moved: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Work:
    """Targets, and how and where they are run."""

    options: AlignmentOptions
    targets: tuple[DensityTarget, ...]
    boxes: Mapping[str, Atoms | AtomicBatch]  # by name of the target, where its runs start
    anchor: Any
    output: Path
    n_jobs: int | None
    progress: Progress

    def settled(self, model: ForceField) -> Work:
        """Return the same work from boxes that have forgotten how they were packed."""
        if DynamicsOptions(time=self.options.settling).n_steps == 0:
            return self
        new = [target for target in self.targets if target.name not in self.boxes]
        folder = self.output / SETTLED
        tasks = [(target, model, self.options, folder / folder_of(target), None) for target in new]
        found = zip(new, self._fan_out(settle, tasks), strict=True)
        return replace(self, boxes={**self.boxes, **{target.name: box for target, box in found}})

    def iterate(self, model: ForceField) -> Rounds:
        """Measure and correct, until pressures agree or nothing more comes of it."""
        options = self.options
        models, largest = [model], []
        measured: list[dict[str, Measured]] = []
        moved: list[dict[str, float]] = []
        farthest: list[float] = []
        for number in range(options.iterations + 1):
            folder = self.output / f"{ROUND}-{number}"
            measured.append(self._measure(models[-1], folder, measured[-1] if measured else {}))
            shifts = {name: found.shift for name, found in measured[-1].items()}
            largest.append(max(abs(shift.value) for shift in shifts.values()))
            lacking = {
                name: shift.value
                for name, shift in shifts.items()
                if abs(shift.value) > max(options.tolerance_bar, SIGMAS * shift.error)
            }
            if not lacking:
                return Rounds(models[-1], number, True, tuple(measured), tuple(moved))
            farthest.append(max(abs(shift) for shift in lacking.values()))
            stuck = len(farthest) > 2 and farthest[-1] > SLOWEST * farthest[-3]
            if number == options.iterations or stuck:
                break
            self._check_reach(lacking)
            corrected, found = correct(
                models[-1], measured[-1], options, self.anchor, folder / "training", self.progress
            )
            models.append(corrected)
            moved.append(found)
            self._check_moved(lacking, found)
        best = largest.index(min(largest))
        logger.warning(
            "pressures lack up to %.0f bar after %d corrections; the model of %d, which lacked up "
            "to %.0f bar, is kept", farthest[-1], number, best, largest[best],
        )  # fmt: skip
        return Rounds(models[best], best, False, tuple(measured), tuple(moved))

    def _measure(
        self, model: ForceField, folder: Path, before: Mapping[str, Measured]
    ) -> dict[str, Measured]:
        targets = [target for target in self.targets if not target.held_out]
        options = self._options(corrected=bool(before))
        tasks = []
        for target in targets:
            last = before[target.name].last if target.name in before else None
            tasks.append((target, model, options, folder / folder_of(target), last))
        found = {}
        for target, measured in zip(targets, self._fan_out(measure, tasks), strict=True):
            logger.info("%s: %s to add", target.liquid, measured.shift)
            found[target.name] = measured
        self._check_errors({name: measured.shift.error for name, measured in found.items()})
        return found

    def _options(self, *, corrected: bool) -> AlignmentOptions:
        """Return the options of runs: of a corrected model, they start in the box of another."""
        options = self.options
        settling, equilibration = (
            DynamicsOptions(time=time, timestep=options.timestep).n_steps
            for time in (options.settling, options.equilibration)
        )
        longer = corrected and settling > equilibration
        return replace(options, equilibration=options.settling) if longer else options

    def _fan_out(
        self,
        run: Callable[..., Result],
        tasks: Sequence[Task],
    ) -> Iterator[Result]:
        """Run tasks, each from its frame, or from where its target starts at first."""
        alone = one_by_one(self.n_jobs)
        runs = [
            (target, model, options, folder,
             start_of(self.boxes.get(target.name) if last is None else last),
             self.progress if alone else False)
            for target, model, options, folder, last in tasks
        ]  # fmt: skip
        shown = False if alone else self.progress
        return fan_out(run, runs, n_jobs=self.n_jobs, description="liquids", progress=shown)

    def _check_errors(self, errors: Mapping[str, float]) -> None:
        """Refuse pressures of which so little is known that any would agree."""
        options = self.options
        enough = max(options.tolerance_bar, USELESS / options.compressibility)
        useless = {name: error for name, error in errors.items() if error > enough}
        if useless:
            listed = "; ".join(
                f"{name}: ± {error:.0f} bar, {error * options.compressibility:.0%} of the density"
                for name, error in useless.items()
            )
            run = DynamicsOptions(time=options.time, timestep=options.timestep)
            fs = run.n_steps * run.timestep * (max(useless.values()) / enough) ** 2
            message = (
                f"Expected pressures that are known to {enough:.0f} bar; got, in a time of "
                f"{options.time}, standard errors that tell nothing ({listed}). They fall as the "
                f"root of time: take a time of {fs / PICOSECOND:.1f}ps or more, in another folder."
            )
            raise AlignmentError(message)

    def _check_reach(self, lacking: Mapping[str, float]) -> None:
        most = self.options.max_shift_bar
        far = {name: shift for name, shift in lacking.items() if abs(shift) > most}
        if far:
            listed = "; ".join(f"{name}: {shift:+.0f} bar" for name, shift in far.items())
            message = (
                f"The measured densities are out of reach: at these the model's pressures have to "
                f"change by more than {most:g} bar ({listed}), which is no small correction. Look "
                "at densities, temperatures and compositions, train a better model, or raise "
                "max_shift_bar."
            )
            raise AlignmentError(message)

    def _check_moved(self, lacking: Mapping[str, float], moved: Mapping[str, float]) -> None:
        short = {
            name: shift for name, shift in lacking.items() if moved[name] / shift < LEAST_REACH
        }
        if short:
            listed = "; ".join(
                f"{name}: {moved[name]:+.0f} of {shift:+.0f} bar" for name, shift in short.items()
            )
            message = (
                "The measured densities are out of reach: on frames that were held out the "
                f"training moved pressures by less than a quarter of what it should ({listed}). "
                "Liquids may pull against each other, or what is held is too stiff: in another "
                f"folder, train for more epochs, raise hold (now {self.options.hold:g}), or take "
                "parameters='all'."
            )
            raise AlignmentError(message)

    def densities(self, models: Mapping[int, ForceField]) -> dict[int, dict[str, Estimate]]:
        """Return, by the corrections of a model, the density of each liquid at its pressure."""
        if DynamicsOptions(time=self.options.density_time).n_steps == 0:
            return {number: {} for number in models}
        tasks = [
            (
                target,
                model,
                self._options(corrected=number > 0),
                self.output / f"{DENSITY}-{number}" / folder_of(target),
                None,
            )
            for number, model in models.items()
            for target in self.targets
        ]
        found = self._fan_out(density_of_target, tasks)
        return {number: {target.name: next(found) for target in self.targets} for number in models}

    def changes(self, first: ForceField, rounds: Rounds) -> dict[str, Changes]:
        """Return what else has changed, of liquids that were run before and after in one state."""
        if not rounds.corrections:
            return {}
        before, after = (calculator_of(model, self.options) for model in (first, rounds.model))
        found = {}
        for target in self.targets:
            kind = DENSITY if target.held_out else ROUND
            runs = [
                self.output / f"{kind}-{number}" / folder_of(target)
                for number in (0, rounds.corrections)
            ]
            if all(run.is_dir() for run in runs):
                found[target.name] = changes_of(before, after, (runs[0], runs[1]))
        return found
