"""Alignment of a force field with measured densities.

At the density that was measured, a model has a mean pressure P. What it lacks is ΔP, the measured
pressure less P. The model is trained to have that much more pressure on frames of those runs, from
forces between molecules (`scikd.md.pressure`), while forces, energies, shear, and errors on
reference labels are held. Then the liquids are run anew, until the pressures agree.

References
----------
S. Gong et al., "BAMBOO: a predictive and transferable machine learning force field framework for
liquid electrolyte development", arXiv:2404.07181: alignment of the readout by pressures. There the
whole virial is held while its trace shall change, and the wanted change is given.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ase import Atoms

from scikd._atomic import atomic_write_bytes
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError, ScikdError
from scikd.parallel import fan_out, one_by_one

from ._aligning import (
    AlignmentError,
    Measured,
    calculator_of,
    correct,
    density_of_target,
    folder_of,
    measure,
    settle,
    start_of,
)
from ._changes import Changes, changes_of
from ._engines import fingerprint_of
from ._process import torch_threads
from ._stages import claim_folder
from ._start import file_or_mixture
from ._training_data import as_batch
from .alignment_report import AlignmentResult, LiquidResult
from .densities import DensityTarget, read_targets
from .dynamics import DynamicsOptions
from .estimates import Estimate
from .frames import AtomicBatch
from .losses import LossOptions
from .model import ForceField, Trained
from .molecules import Mixture
from .storage import load_force_field, save_force_field

__all__ = [
    "AlignmentOptions",
    "align",
]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MODEL, RESULT, ROUND, DENSITY = "model", "alignment.json", "iteration", "density"
SETTLED = "settled"
SIGMAS = 2.0  # standard errors within which a pressure agrees
LEAST_REACH = 0.25  # of the shift that was asked for, on frames that were held out
SLOWEST = 0.9  # of the largest shift two rounds ago, or the rounds lead nowhere
FREE = frozenset({"device", "output", "reference", "targets", "threads", "initial", "iterations"})


@dataclass(frozen=True)
class AlignmentOptions:
    """What an alignment does; the same names are keys in YAML and flags of ``scikd md align``.

    Parameters
    ----------
    targets : Path or None, default=None
        CSV file of liquids, see `read_targets`.
    initial : str, default="default"
        Folder of the force field to align, or "default".
    output : Path, default="alignment"
        Folder for all that is written, and from which a stopped alignment goes on.
    reference : tuple of str, default=()
        Files of structures with labels of the level of theory, on which errors are held.
    reference_loss : LossOptions
        Weights of the terms on those.
    parameters : {"readout", "all"}, default="readout"
        What is trained: the map from the features of an atom to its energy, or everything.
    route : {"nvt", "npt"}, default="nvt"
        What is measured: the pressure at the wanted density, or the density at the wanted pressure,
        of which the compressibility makes a pressure.
    iterations : int, default=6
        Most rounds of runs and trainings.
    tolerance_bar : float, default=50.0
        Pressures agree within this, or within two standard errors if these are larger.
    max_shift_bar : float, default=5000.0
        Farther from its density no liquid is taken.
    hold : float, default=0.05
        Share of their own fluctuations by which forces, energies and shear may change at the same
        cost as missing all pressures.
    n_frames : int, default=30
        Frames of each liquid to learn from.
    n_atoms : int, default=500
        About how many atoms to pack.
    time : str, default="50ps"
        Length of a run that measures, after its equilibration.
    settling : str, default="50ps"
        How long each liquid is run at first, once, before anything is measured: the pressure of a
        box that was just packed falls by hundreds of bar, for tens of ps.
    equilibration : str, default="10ps"
        Of each run.
    density_time : str, default="100ps"
        Length of the runs that give densities before and after, "0ps" for none. They equilibrate
        for a third of it, if that is longer.
    timestep : float, default=1.0
        In fs.
    interval : int, default=50
        Steps between two frames, each of which gives a pressure.
    hydrogen_mass : float or None, default=None
        Mass of hydrogen in u, taken from what it is bonded to, for longer time steps.
    compressibility : float, default=5e-5
        Of about the liquids, in 1/bar.
    epochs : int, default=20
        Passes over the frames in a training.
    batch_size : int, default=2
        Frames in a step, of one liquid.
    learning_rate : float, default=0.001
        At the beginning; it falls to a hundredth.
    validation_fraction : float, default=0.25
        Of the frames of each liquid, its last, that tell by how much the pressure has moved.
    precision : {"float32", "float64"}, default="float32"
        Of the network in training.
    engine : {"auto", "torch", "numba"}, default="auto"
        What computes forces in dynamics.
    device : str, default="auto"
        "cpu", "cuda", ...
    threads : int or None, default=None
        Threads of a training and of each run; None is all, shared between runs side by side.
    seed : int, default=0
        Of packing, velocities, order and held-out part.
    """

    targets: Path | None = None
    initial: str = "default"
    output: Path = Path("alignment")
    reference: tuple[str, ...] = ()
    reference_loss: LossOptions = field(default_factory=lambda: LossOptions("relative"))
    parameters: Trained = "readout"
    route: Literal["nvt", "npt"] = "nvt"
    iterations: int = 6
    tolerance_bar: float = 50.0
    max_shift_bar: float = 5000.0
    hold: float = 0.05
    n_frames: int = 30
    n_atoms: int = 500
    time: str = "50ps"
    settling: str = "50ps"
    equilibration: str = "10ps"
    density_time: str = "100ps"
    timestep: float = 1.0
    interval: int = 50
    hydrogen_mass: float | None = None
    compressibility: float = 5e-5
    epochs: int = 20
    batch_size: int = 2
    learning_rate: float = 1e-3
    validation_fraction: float = 0.25
    precision: Literal["float32", "float64"] = "float32"
    engine: Literal["auto", "torch", "numba"] = "auto"
    device: str = "auto"
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be, all at once."""
        positive = ("iterations", "tolerance_bar", "max_shift_bar", "hold", "compressibility")
        wrong = [
            f"{name} > 0, got {value!r}"
            for name in positive
            if not (value := getattr(self, name)) > 0
        ]
        if self.n_frames < 4:
            wrong.append(f"n_frames >= 4, got {self.n_frames!r}")
        if wrong:
            raise InvalidInputError(f"Expected {'; '.join(wrong)}.")
        for time in (self.time, self.density_time, self.equilibration, self.settling):
            _ = DynamicsOptions(time=time)


def align(
    model: ForceField | str | Path | None = None,
    targets: Sequence[DensityTarget] | None = None,
    *,
    options: AlignmentOptions,
    reference: Any = None,
    starts: Mapping[str, Atoms] | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
) -> AlignmentResult:
    """Align a force field with measured densities.

    A call that was stopped goes on when it is made again: within a run, within a training, and
    between them. All lies in ``options.output``: ``iteration-0`` and so on with a folder for each
    liquid and the ``training``, ``settled`` boxes, the runs that gave densities, ``model`` and
    ``alignment.json``.

    Parameters
    ----------
    model : ForceField, str, pathlib.Path or None, default=None
        What is aligned, which stays as it is; None takes that of the options.
    targets : sequence of DensityTarget or None, default=None
        The liquids; None takes the file of the options.
    options : AlignmentOptions
        What to do.
    reference : AtomicBatch, ase.Atoms, path, sequence of those, or None, default=None
        Structures with labels on which errors are held; None takes the files of the options.
    starts : mapping of str to ase.Atoms or None, default=None
        By liquid, where its runs start, as they are; others are packed, or read, and settled.
    n_jobs : int or None, default=None
        Runs side by side, see `scikd.parallel.fan_out`.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Returns
    -------
    AlignmentResult
        The model, and densities before and after.

    Raises
    ------
    AlignmentError
        If a density is out of reach: farther than ``max_shift_bar``, a run at it blows up, or the
        training moves a pressure by less than a quarter of what it should.
    InvalidInputError
        If there is nothing to align, or targets contradict each other, or the output holds an
        alignment with other options.
    StorageError, CorruptFileError
        If a file cannot be read or written.
    """
    given = options.initial if model is None else model
    first = given if isinstance(given, ForceField) else load_force_field(given)
    if targets is None:
        targets = [] if options.targets is None else read_targets(options.targets)
    _check(targets)
    starts = starts or {}
    _check_content([t.liquid for t in targets if t.liquid not in starts], options.n_atoms)
    known = options.reference if reference is None else reference
    anchor = None if isinstance(known, tuple) and not known else as_batch(known)
    settings = {k: v for k, v in asdict(options).items() if k not in FREE}
    settings["targets"] = [asdict(target) for target in targets]
    output = Path(options.output)
    claim_folder(output, {**settings, "model": fingerprint_of(first)}, "an alignment")
    boxes = {t.name: starts[t.liquid] for t in targets if t.liquid in starts}
    work = _Work(options, tuple(targets), boxes, anchor, output, n_jobs, progress)
    with torch_threads(options.threads):
        work = work.settled(first)
        last, converged, rounds, moved = work.iterate(first)
        last.metadata = {**first.metadata, "alignment": _note(targets, converged)}
        path = save_force_field(last, output / MODEL)
        before, after = work.densities({"before": first, "after": last})
        changes = work.changes(first, last, len(rounds) - 1)
    liquids = tuple(
        LiquidResult(
            target,
            tuple(found[target.name].shift for found in rounds if target.name in found),
            tuple(found[target.name] for found in moved if target.name in found),
            before.get(target.name),
            after.get(target.name),
            changes.get(target.name),
        )
        for target in targets
    )
    result = AlignmentResult(last, converged, liquids, path)
    content = {"converged": converged, "liquids": [liquid.as_dict() for liquid in liquids]}
    atomic_write_bytes(output / RESULT, json.dumps(content, indent=1).encode())
    return result


def _note(targets: Sequence[DensityTarget], converged: bool) -> dict[str, Any]:
    used = [asdict(target) for target in targets if not target.held_out]
    return {"densities": used, "converged": converged}


def _check(targets: Sequence[DensityTarget]) -> None:
    """Refuse targets that cannot all be met."""
    if not any(not target.held_out for target in targets):
        message = f"Expected liquids to align with, that are not held out; got {len(targets)}."
        raise InvalidInputError(message)
    densities: dict[str, float] = {}
    for target in targets:
        known = densities.setdefault(target.name, target.density_g_cm3)
        if known != target.density_g_cm3:
            message = (
                f"Expected one density of {target.name}; got {known:g} and "
                f"{target.density_g_cm3:g} g/cm³, which no model can have at once."
            )
            raise InvalidInputError(message)
    if len(densities) < len(targets):
        message = "Expected each liquid at one temperature and pressure once; one came twice."
        raise InvalidInputError(message)


def _check_content(liquids: Sequence[str], n_atoms: int) -> None:
    """Refuse liquids that cannot be packed, or whose box is missing, before any is run."""
    problems = []
    for liquid in liquids:
        try:
            found = file_or_mixture(liquid)
            if isinstance(found, Mixture):
                found.counts(n_atoms=n_atoms)
        except ScikdError as error:
            problems.append(f"{liquid}: {error}")
    if problems:
        raise InvalidInputError(f"Cannot align with these liquids. {' '.join(problems)}")


@dataclass(frozen=True)
class _Work:
    options: AlignmentOptions
    targets: tuple[DensityTarget, ...]
    boxes: Mapping[str, Atoms | AtomicBatch]  # by name of the target, where its runs start
    anchor: Any
    output: Path
    n_jobs: int | None
    progress: Progress

    def settled(self, model: ForceField) -> _Work:
        """Return the same work from boxes that have forgotten how they were packed."""
        if DynamicsOptions(time=self.options.settling).n_steps == 0:
            return self
        new = [target for target in self.targets if target.name not in self.boxes]
        folder = self.output / SETTLED
        tasks = [(target, model, folder / folder_of(target), None) for target in new]
        found = zip(new, self._fan_out(settle, tasks), strict=True)
        return replace(self, boxes={**self.boxes, **{target.name: box for target, box in found}})

    def iterate(
        self, model: ForceField
    ) -> tuple[ForceField, bool, list[dict[str, Measured]], list[dict[str, float]]]:
        """Return the last model, whether it agrees, and what was measured and moved."""
        options = self.options
        rounds: list[dict[str, Measured]] = []
        moved: list[dict[str, float]] = []
        farthest: list[float] = []
        for number in range(options.iterations + 1):
            folder = self.output / f"{ROUND}-{number}"
            rounds.append(self._measure(model, folder, rounds[-1] if rounds else {}))
            lacking = {
                name: found.shift.value
                for name, found in rounds[-1].items()
                if abs(found.shift.value) > self._slack(found)
            }
            if not lacking:
                return model, True, rounds, moved
            farthest.append(max(abs(shift) for shift in lacking.values()))
            stuck = len(farthest) > 2 and farthest[-1] > SLOWEST * farthest[-3]
            if number == options.iterations or stuck:
                break
            self._check_reach(lacking)
            model, found = correct(
                model, rounds[-1], options, self.anchor, folder / "training", self.progress
            )
            moved.append(found)
            self._check_moved(lacking, found)
        logger.warning("pressures lack up to %.0f bar after %d corrections", farthest[-1], number)
        return model, False, rounds, moved

    def _slack(self, found: Measured) -> float:
        return max(self.options.tolerance_bar, SIGMAS * found.shift.error)

    def _measure(
        self, model: ForceField, folder: Path, before: Mapping[str, Measured]
    ) -> dict[str, Measured]:
        targets = [target for target in self.targets if not target.held_out]
        tasks = []
        for target in targets:
            last = before[target.name].last if target.name in before else None
            tasks.append((target, model, folder / folder_of(target), last))
        found = {}
        for target, measured in zip(targets, self._fan_out(measure, tasks), strict=True):
            if not math.isfinite(measured.shift.error):
                message = (
                    f"Expected runs with at least eight frames, to know an error; that of "
                    f"{target.name} has fewer. Take a longer time, or a smaller interval."
                )
                raise InvalidInputError(message)
            logger.info("%s: %s to add", target.liquid, measured.shift)
            found[target.name] = measured
        return found

    def _fan_out(
        self,
        run: Callable[..., Result],
        tasks: Sequence[tuple[DensityTarget, ForceField, Path, AtomicBatch | None]],
    ) -> Iterator[Result]:
        """Run targets with models in folders, from a frame or from where they start at first."""
        alone = one_by_one(self.n_jobs)
        runs = [
            (target, model, self.options, folder,
             start_of(self.boxes.get(target.name) if last is None else last),
             self.progress if alone else False)
            for target, model, folder, last in tasks
        ]  # fmt: skip
        shown = False if alone else self.progress
        return fan_out(run, runs, n_jobs=self.n_jobs, description="liquids", progress=shown)

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
                "Liquids may pull against each other, or what is held is too stiff: train for "
                f"more epochs, raise hold (now {self.options.hold:g}), or take parameters='all'."
            )
            raise AlignmentError(message)

    def densities(self, models: Mapping[str, ForceField]) -> list[dict[str, Estimate]]:
        """Return, for each model, the density of each liquid at its pressure."""
        if DynamicsOptions(time=self.options.density_time).n_steps == 0:
            return [{} for _ in models]
        tasks = [
            (target, model, self.output / f"{DENSITY}-{when}" / folder_of(target), None)
            for when, model in models.items()
            for target in self.targets
        ]
        found = self._fan_out(density_of_target, tasks)
        return [{target.name: next(found) for target in self.targets} for _ in models]

    def changes(self, first: ForceField, last: ForceField, n_rounds: int) -> dict[str, Changes]:
        """Return what else has changed, of liquids that were run before and after in one state."""
        names = {
            target.name: (f"{DENSITY}-before", f"{DENSITY}-after")
            if target.held_out
            else (f"{ROUND}-0", f"{ROUND}-{n_rounds}")
            for target in self.targets
        }
        before, after = (calculator_of(model, self.options) for model in (first, last))
        found = {}
        for target in self.targets:
            runs = [self.output / name / folder_of(target) for name in names[target.name]]
            if n_rounds > 0 and all(run.is_dir() for run in runs):
                found[target.name] = changes_of(before, after, (runs[0], runs[1]))
        return found
