"""Frames of liquids to distil on: dynamics with an ensemble, and a choice of where it disagrees."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.io import read

from scikd._progress import Progress, track
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError
from scikd.parallel import fan_out, one_by_one

from ._boxes import check_liquids, fingerprints_of_boxes
from ._stages import claim_folder
from .calculators import EnsembleCalculator
from .dynamics import DynamicsOptions, run_dynamics
from .frames import AtomicBatch, collate, from_ase
from .readers import read_frames, write_frames

__all__ = ["LiquidsOptions", "choose_frames", "frames_of", "run_name", "sample_liquids"]

logger = logging.getLogger(__name__)

FRAMES = "frames.h5"
FREE = frozenset({"liquid", "model", "models", "output", "threads", "device"})


@dataclass(frozen=True)
class LiquidsOptions(DynamicsOptions):
    """What to sample: the options of dynamics, for each of several liquids, and these.

    Parameters
    ----------
    liquids : tuple of str
        The mixtures, as ``liquid`` of one run.
    models : tuple of str
        Folders of the force fields of the ensemble.
    n_frames : int
        Frames of each liquid that are kept, of those that its run writes after equilibration.
    selection : {"spread", "even"}
        Which: those on which the ensemble disagrees most, or at equal distances in time.
    apart : int
        Of frames that are chosen by spread, the least difference of their numbers in the
        trajectory, as neighbours are alike. Where there are too few for that, some are closer.
    output : str
        Folder for all that is written.
    """

    liquids: tuple[str, ...] = ("EC:DMC 1:1",)
    models: tuple[str, ...] = ()
    n_frames: int = 50
    selection: Literal["spread", "even"] = "spread"
    apart: int = 2
    output: str = "liquids"

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = [
            f"{name} >= 1, got {getattr(self, name)}"
            for name in ("n_frames", "apart")
            if getattr(self, name) < 1
        ]
        if (found := frames_of(self)) < self.n_frames:
            problems.append(
                f"a run with {self.n_frames} frames after equilibration, got {found}: run longer, "
                "or take a smaller trajectory_interval or n_frames"
            )
        if len(set(self.liquids)) < len(self.liquids) or not self.liquids:
            problems.append(f"different liquids, at least one, got {list(self.liquids)}")
        if problems:
            raise InvalidInputError(f"Expected {'; '.join(problems)}.")

    def run_of(self, liquid: str) -> DynamicsOptions:
        """Return the options of the run of one liquid."""
        plain = {field.name: getattr(self, field.name) for field in fields(DynamicsOptions)}
        folder = str(Path(self.output) / run_name(liquid))
        return DynamicsOptions(**{**plain, "liquid": liquid, "output": folder})


def frames_of(run: DynamicsOptions) -> int:
    """Return how many frames a run writes after its equilibration."""
    last = run.n_equilibration + run.n_steps
    return last // run.trajectory_interval - run.n_equilibration // run.trajectory_interval


def run_name(liquid: str) -> str:
    """Return a name for the folder of a liquid."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", Path(liquid).name).strip("-")


def sample_liquids(
    options: LiquidsOptions,
    models: TeacherEnsemble | Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    starts: Mapping[str, Atoms] | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
) -> AtomicBatch:
    """Run each liquid with an ensemble, and keep the frames on which it disagrees most.

    A run that was stopped goes on when this is called again; liquids that are finished are read.
    The frames of all of them also lie in ``frames.h5`` in the output.

    Parameters
    ----------
    options : LiquidsOptions
        What to run, and how many frames to keep.
    models : TeacherEnsemble, sequence or mapping of models, or None, default=None
        What `EnsembleCalculator` takes; None takes those of the options.
    starts : mapping of str to ase.Atoms or None, default=None
        By liquid, where its run starts; others are packed.
    n_jobs : int or None, default=None
        Liquids side by side, see `scikd.parallel.fan_out`. Each then gets a copy of the models.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Returns
    -------
    AtomicBatch
        The frames. Its groups are the liquids.

    Raises
    ------
    InvalidInputError
        If there are no models, a liquid cannot be run, two would share a folder, or the folder
        holds liquids of other options.
    DynamicsError
        If a run blows up; see `scikd.md.dynamics.run_dynamics`, also for what else may be raised.
    """
    given = models if models is not None else options.models
    if not isinstance(given, TeacherEnsemble) and not given:
        message = "Expected models to run the liquids with; got none."
        raise InvalidInputError(message)
    starts = starts or {}
    folders = [(liquid, run_name(liquid)) for liquid in options.liquids]
    check_liquids(folders, starts, options.n_atoms, "sample")
    calculator = _calculator(given, options)
    output = Path(options.output)
    settings = {name: v for name, v in asdict(options).items() if name not in FREE}
    settings["liquids"] = list(options.liquids)
    own = fingerprints_of_boxes(options.liquids, starts)
    settings |= {"ensemble": calculator.fingerprint} | ({"boxes": own} if own else {})
    claim_folder(output, settings, "liquids")
    alone = one_by_one(n_jobs)
    tasks = [
        (
            options.run_of(liquid),
            options,
            calculator if alone else copy.deepcopy(calculator),
            starts.get(liquid),
            progress if alone else False,
        )
        for liquid in options.liquids
    ]
    shown = False if alone else progress
    kept = list(fan_out(_sampled, tasks, n_jobs=n_jobs, description="liquids", progress=shown))
    batch = collate(kept)
    write_frames(output / FRAMES, batch)
    return batch


def _sampled(
    run: DynamicsOptions,
    options: LiquidsOptions,
    calculator: EnsembleCalculator,
    start: Atoms | None,
    progress: Progress,
) -> AtomicBatch:
    """Return the frames of one liquid, which is run if it is not there."""
    path = Path(run.output) / FRAMES
    if not path.exists():
        done = run_dynamics(run, atoms=start, calculator=calculator, progress=progress)
        logger.info("%s: %s", run.liquid, done.summary())
        frames = _chosen(done.trajectory, calculator, options, progress)
        for frame in frames:
            frame.info["group"] = run.liquid
        write_frames(path, from_ase(frames))
    return read_frames(path)


def _calculator(models: Any, options: LiquidsOptions) -> EnsembleCalculator:
    if isinstance(models, TeacherEnsemble):
        return EnsembleCalculator(models)
    members = list(models.values()) if isinstance(models, Mapping) else list(models)
    if all(hasattr(member, "implemented_properties") for member in members):
        return EnsembleCalculator(models)
    return EnsembleCalculator(
        models,
        engine=options.engine,
        dtype=options.dtype,
        skin=options.skin,
        threads=options.threads,
        device=options.device,
    )


def _chosen(
    trajectory: Path, calculator: EnsembleCalculator, options: LiquidsOptions, progress: Progress
) -> list[Atoms]:
    """Return frames of a run after its equilibration."""
    frames = [f for f in read(trajectory, ":") if f.info["time_ps"] > 0]
    spread = np.zeros(len(frames))
    if options.selection == "spread":
        shown = track(
            frames, total=len(frames), description="spread of the forces", progress=progress
        )
        for number, frame in enumerate(shown):
            calculator.calculate(frame)
            spread[number] = np.sqrt(np.square(calculator.results["forces_spread"]).mean())
        logger.info("forces spread by %.3g to %.3g eV/Å (rms)", spread.min(), spread.max())
    apart = options.apart if options.selection == "spread" else 0
    chosen = choose_frames(spread, options.n_frames, apart)
    plain = []
    for number in chosen:
        frame = frames[number].copy()
        frame.info["forces_spread_rms"] = float(spread[number])
        plain.append(frame)
    return plain


def choose_frames(spread: np.ndarray, n: int, apart: int) -> np.ndarray:
    """Choose frames of a trajectory: those of the largest spread, some way apart from each other.

    Parameters
    ----------
    spread : ndarray of shape (n_frames,)
        How far models disagree on each.
    n : int
        How many to choose, at most all.
    apart : int
        Least difference of the numbers of two that are chosen; 0 chooses at equal distances,
        whatever the spread. Where that leaves too few, it is halved until there are enough.

    Returns
    -------
    ndarray of shape (n,)
        Their numbers, ascending.
    """
    if apart == 0:
        return np.linspace(0, len(spread) - 1, n).round().astype(int)
    chosen: list[int] = []
    free = np.ones(len(spread), dtype=bool)
    while len(chosen) < n:
        for number in np.argsort(-spread, kind="stable"):
            if len(chosen) < n and free[number]:
                chosen.append(int(number))
                free[max(number - apart + 1, 0) : number + apart] = False
        free[:] = True
        free[chosen] = False
        apart = max(apart // 2, 1)
        for number in chosen:
            free[max(number - apart + 1, 0) : number + apart] = False
    return np.sort(np.array(chosen))
