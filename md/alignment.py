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

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from scikd._atomic import atomic_write_bytes
from scikd._options import check_choices
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError

from ._aligning import density_run, dynamics_of, folder_of
from ._boxes import check_liquids, fingerprints_of_boxes
from ._correcting import training_of
from ._engines import fingerprint_of
from ._process import torch_threads
from ._rounds import Rounds, Work
from ._stages import claim_folder
from ._training_data import as_batch
from .alignment_report import AlignmentResult, LiquidResult
from .densities import DensityTarget, read_targets
from .estimates import FEWEST_VALUES
from .liquids import frames_of
from .losses import LossOptions
from .model import ForceField, Trained
from .storage import load_force_field, save_force_field

__all__ = [
    "AlignmentOptions",
    "align",
]

MODEL, RESULT = "model", "alignment.json"
POSITIVE = (
    "iterations",
    "tolerance_bar",
    "max_shift_bar",
    "hold",
    "n_atoms",
    "timestep",
    "interval",
    "compressibility",
)
FREE = frozenset(
    {
        "device",
        "output",
        "reference",
        "targets",
        "threads",
        "initial",
        "iterations",
        "max_shift_bar",
    }
)


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
        Most rounds of runs and trainings; an alignment goes on if it is raised.
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
        How long each liquid is run at first, and after every correction, before anything is
        measured: the pressure of a box that was just packed, or of which the model has changed,
        falls by hundreds of bar, for tens of ps.
    equilibration : str, default="10ps"
        Of each run, where that is not longer.
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
        """Refuse what cannot be, as the runs and the trainings would hours later."""
        check_choices(self)
        wrong = [
            f"{name} > 0, got {value!r}"
            for name in POSITIVE
            if not (value := getattr(self, name)) > 0
        ]
        if self.n_frames < 4:
            wrong.append(f"n_frames >= 4, got {self.n_frames!r}")
        if not 0 < self.validation_fraction < 1:
            wrong.append(f"validation_fraction between 0 and 1, got {self.validation_fraction!r}")
        if wrong:
            raise InvalidInputError(f"Expected {'; '.join(wrong)}.")
        training_of(self, self.output)
        some = DensityTarget("any", 1.0)
        dynamics_of(some, self, self.route, self.settling, self.output)
        runs = {
            "time": dynamics_of(some, self, self.route, self.time, self.output),
            "density_time": density_run(some, self, self.output),
        }
        for name, run in runs.items():
            found = frames_of(run)
            if found < FEWEST_VALUES and (name == "time" or run.n_steps > 0):
                message = (
                    f"Expected runs with at least eight frames, to know an error; got {found} in a "
                    f"{name} of {run.time} with an interval of {self.interval}. Take a longer "
                    f"{name}, or a smaller interval."
                )
                raise InvalidInputError(message)


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
    liquid and the ``training``, ``settled`` boxes, the runs that gave densities (``density-2`` with
    the model that has had two corrections), ``model`` and ``alignment.json``. It may be made with
    more iterations, or a larger farthest shift, than before.

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
        The model, and densities before and after. If pressures do not come to agree, it is the
        model of the round in which the largest shift was smallest.

    Raises
    ------
    AlignmentError
        If a density is out of reach: farther than ``max_shift_bar``, a run at it blows up, or the
        training moves a pressure by less than a quarter of what it should. Or if runs are so short
        that a pressure is hardly known: its standard error is above the tolerance, and worth more
        than 5 % of the density.
    InvalidInputError
        If there is nothing to align, targets contradict each other, a liquid cannot be run, two
        would share a folder, or the output holds an alignment with other options or boxes.
    StorageError, CorruptFileError
        If a file cannot be read or written.
    """
    given = options.initial if model is None else model
    first = given if isinstance(given, ForceField) else load_force_field(given)
    if targets is None:
        targets = [] if options.targets is None else read_targets(options.targets)
    _check(targets)
    starts = starts or {}
    folders = [(target.liquid, folder_of(target)) for target in targets]
    check_liquids(folders, starts, options.n_atoms, "align with")
    known = options.reference if reference is None else reference
    anchor = None if isinstance(known, tuple) and not known else as_batch(known)
    settings = {k: v for k, v in asdict(options).items() if k not in FREE}
    settings["targets"] = [asdict(target) for target in targets]
    output = Path(options.output)
    own = fingerprints_of_boxes([target.liquid for target in targets], starts)
    settings |= {"model": fingerprint_of(first)} | ({"boxes": own} if own else {})
    claim_folder(output, settings, "an alignment", free=FREE)
    boxes = {t.name: starts[t.liquid] for t in targets if t.liquid in starts}
    work = Work(options, tuple(targets), boxes, anchor, output, n_jobs, progress)
    with torch_threads(options.threads):
        work = work.settled(first)
        rounds = work.iterate(first)
        kept = copy.deepcopy(rounds.model)
        kept.metadata = {**first.metadata, "alignment": _note(targets, rounds)}
        path = save_force_field(kept, output / MODEL)
        densities = work.densities({0: first, rounds.corrections: rounds.model})
        changes = work.changes(first, rounds)
    liquids = tuple(
        LiquidResult(
            target,
            tuple(found[target.name].shift for found in rounds.measured if target.name in found),
            tuple(found[target.name] for found in rounds.moved if target.name in found),
            densities[0].get(target.name),
            densities[rounds.corrections].get(target.name),
            changes.get(target.name),
        )
        for target in targets
    )
    result = AlignmentResult(kept, rounds.converged, rounds.corrections, liquids, path)
    atomic_write_bytes(output / RESULT, json.dumps(result.as_dict(), indent=1).encode())
    return result


def _note(targets: Sequence[DensityTarget], rounds: Rounds) -> dict[str, Any]:
    used = [asdict(target) for target in targets if not target.held_out]
    return {
        "densities": used,
        "converged": rounds.converged,
        "corrections": rounds.corrections,
    }


def _check(targets: Sequence[DensityTarget]) -> None:
    """Refuse targets that cannot all be met."""
    if not any(not target.held_out for target in targets):
        message = (
            f"Expected liquids to align with, that are not held out; got {len(targets)}. Give "
            "targets, or a file of them as the option targets (--targets)."
        )
        raise InvalidInputError(message)
    first: dict[object, DensityTarget] = {}
    for target in targets:
        known = first.setdefault(target.key, target)
        if known.density_g_cm3 != target.density_g_cm3:
            names = " and ".join(dict.fromkeys((known.name, target.name)))
            message = (
                f"Expected one density of {names}; got {known.density_g_cm3:g} and "
                f"{target.density_g_cm3:g} g/cm³, which no model can have at once."
            )
            raise InvalidInputError(message)
    if len(first) < len(targets):
        message = "Expected each liquid at one temperature and pressure once; one came twice."
        raise InvalidInputError(message)
