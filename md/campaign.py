"""A table of mixtures, each built, equilibrated, run and judged by what was measured.

Every mixture has a folder, in which it goes on where it was stopped: within a run and between runs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from ase.calculators.calculator import Calculator

from scikd._atomic import new_folder
from scikd._extras import require
from scikd._options import check_choices
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError, ScikdError
from scikd.parallel import fan_out

from ._aligning import folder_of
from ._boxes import shared_folders
from ._mixture_run import is_finished, run_mixture
from ._process import alone_in
from ._stages import claim_folder
from ._start import load_or_pack
from .calculators import ForceFieldCalculator
from .campaign_report import CampaignResult, MixtureResult
from .dynamics import DynamicsOptions
from .measurements import MeasuredLiquid, read_measurements, strangers
from .molecules import get_species
from .properties import PropertiesOptions
from .trajectories import species_of

__all__ = ["CampaignOptions", "run_campaign"]

logger = logging.getLogger(__name__)

# What may differ between a campaign and its continuation.
FREE = frozenset(
    {"model", "output", "threads", "npt_time", "nvt_time", "at_density", "largest_error"}
)


@dataclass(frozen=True)
class CampaignOptions:
    """What is done with each mixture; the same names are keys in YAML, and flags.

    Parameters
    ----------
    model : str
        Folder of a force field, or "default".
    output : str
        Folder for all that is written, and from which a stopped campaign goes on.
    n_atoms : int
        About how many atoms to pack.
    npt_time : str
        Length of the run at constant pressure, which gives the density. A campaign that is finished
        goes on if it is raised, and runs at constant volume anew if the density has moved.
    nvt_time : str
        Length of the run at constant volume, which gives all else. It goes on if this is raised. A
        run that is finished and longer is kept, here as at constant pressure.
    equilibration : str
        Before each of the two.
    at_density : {"found", "measured"}
        At which density the volume is held: that of the run at constant pressure, or the measured.
    timestep : float
        In fs.
    hydrogen_mass : float or None
        Mass of hydrogen in u, taken from what it is bonded to, for longer time steps.
    minimise_steps : int
        Most steps of minimisation of a packed box.
    compressibility : float
        Of about the liquids, in 1/bar.
    seed : int
        Of packing, velocities and noise.
    log_interval : int
        Steps between two rows of the logs.
    trajectory_interval : int
        Steps between two frames.
    checkpoint_interval : int
        Steps between two checkpoints.
    pressure_interval : int
        Steps between two records of the pressure tensor at constant volume, for the viscosity.
    largest_error : float
        Most that the error of a transport coefficient may be, over its value; that of the
        transference number may be a third of this.
    engine : {"auto", "torch", "numba"}
        What computes forces.
    device : str
        For torch.
    threads : int or None
        Threads of each mixture; None is all, shared between those that run side by side.
    """

    model: str = "default"
    output: str = "campaign"
    n_atoms: int = 500
    npt_time: str = "200ps"
    nvt_time: str = "1ns"
    equilibration: str = "20ps"
    at_density: Literal["found", "measured"] = "found"
    timestep: float = 1.0
    hydrogen_mass: float | None = None
    minimise_steps: int = 200
    compressibility: float = 5e-5
    seed: int = 0
    log_interval: int = 20
    trajectory_interval: int = 200
    checkpoint_interval: int = 1000
    pressure_interval: int = 5
    largest_error: float = 0.3
    engine: Literal["auto", "torch", "numba"] = "auto"
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be, as the runs would."""
        check_choices(self)
        settings = {
            name: getattr(self, name)
            for name in asdict(self)
            if name in DynamicsOptions.__dataclass_fields__
        }
        for time in (self.npt_time, self.nvt_time):
            run = DynamicsOptions(**settings, time=time)
        if run.n_equilibration < 1:
            message = (
                f"Expected a time of equilibration, in which boxes come to their density; got "
                f"{self.equilibration!r}."
            )
            raise InvalidInputError(message)
        PropertiesOptions(largest_error=self.largest_error)


def run_campaign(
    mixtures: str | Path | Sequence[MeasuredLiquid],
    options: CampaignOptions | None = None,
    *,
    calculator: Calculator | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
) -> CampaignResult:
    """Run each mixture at constant pressure and at constant volume, and compare with experiment.

    A campaign that was stopped goes on when this is called again: nothing that is finished is done
    again, a run goes on from its checkpoint, and a mixture that failed is tried again. Mixtures may
    be added to the table, and times be raised.

    Parameters
    ----------
    mixtures : str, pathlib.Path or sequence of MeasuredLiquid
        CSV file, see `read_measurements`; or the mixtures.
    options : CampaignOptions or None, default=None
        What to do; the defaults if None.
    calculator : ase.calculators.calculator.Calculator or None, default=None
        Forces, in place of the model of the options. Each mixture gets a copy.
    n_jobs : int or None, default=None
        Mixtures side by side, see `scikd.parallel.fan_out`. On other machines the folder of the
        output must be the same.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Returns
    -------
    CampaignResult
        A row for each mixture; also in ``campaign.csv`` and ``campaign.json`` of the output, which
        are written at the start and anew after every mixture, and ``report.html``, at the end or
        on Ctrl-C.

    Raises
    ------
    InvalidInputError
        Before any run, if the table or a mixture cannot be used, a folder holds a mixture of
        other options, or another process runs a campaign there.
    StorageError
        If the table cannot be read, or the output not be written.
    MissingExtraError
        If a library of the extra ``liquids`` is not installed.
    KeyboardInterrupt
        On Ctrl-C, after a checkpoint.
    """
    options = CampaignOptions() if options is None else options
    for library in ("freud", "stacie"):
        require(library, extra="liquids", feature="A campaign")
    if isinstance(mixtures, (str, Path)):
        mixtures = read_measurements(mixtures)
    if calculator is None:
        calculator = ForceFieldCalculator(
            options.model, engine=options.engine, threads=options.threads, device=options.device
        )
    _check(mixtures, options, calculator)
    folder = Path(options.output)
    with new_folder(folder), alone_in(folder):
        _claim(mixtures, options, calculator)
        places = list(range(len(mixtures)))  # what is finished is in the tables at once
        places.sort(key=lambda place: not is_finished(mixtures[place], folder))
        tasks = [(mixtures[place], options, calculator) for place in places]
        rows = [MixtureResult(liquid, reached=False) for liquid in mixtures]
        campaign = CampaignResult(folder, tuple(rows))
        campaign.write_tables()
        try:
            results = fan_out(
                run_mixture, tasks, n_jobs=n_jobs, description="mixtures", progress=progress
            )
            for place, result in zip(places, results, strict=True):
                rows[place] = result
                campaign = CampaignResult(folder, tuple(rows))
                campaign.write_tables()
        finally:  # a campaign that is stopped shows what it has
            campaign.report().write_html(campaign.page)
    return campaign


def _claim(
    mixtures: Sequence[MeasuredLiquid], options: CampaignOptions, calculator: Calculator
) -> None:
    """Note in the folder of each mixture what it is made with, or see that it was."""
    settings = {name: value for name, value in asdict(options).items() if name not in FREE}
    model = getattr(calculator, "fingerprint", type(calculator).__name__)
    for liquid in mixtures:
        own: dict[str, Any] = {"liquid": liquid.liquid, **settings, "model": model}
        claim_folder(Path(options.output) / folder_of(liquid), own, "a mixture")


def _check(
    mixtures: Sequence[MeasuredLiquid], options: CampaignOptions, calculator: Calculator
) -> None:
    """Refuse mixtures that cannot be run, all at once."""
    if not mixtures:
        raise InvalidInputError("Expected a mixture at least; got none.")
    problems = []
    keys: dict[object, MeasuredLiquid] = {}
    for liquid in mixtures:
        first = keys.setdefault(liquid.key, liquid)
        if first is not liquid:
            problems.append(f"{liquid.name} comes twice, first as {first.liquid!r}.")
        if options.at_density == "measured" and "density" not in liquid.measured:
            problems.append(
                f"{liquid.name} has no measured density to hold: give it, or hold that which is "
                "found."
            )
        try:
            _check_content(liquid, options, calculator)
        except ScikdError as error:
            problems.append(f"{liquid.name}: {error}")
    problems += shared_folders([(one.liquid, folder_of(one)) for one in keys.values()])
    if problems:
        raise InvalidInputError(f"Cannot run these mixtures. {' '.join(problems)}")


def _check_content(
    liquid: MeasuredLiquid, options: CampaignOptions, calculator: Calculator
) -> None:
    """Refuse a liquid that cannot be packed, has no box, or that the model does not know."""
    if (mixture := liquid.mixture) is not None:
        mixture.counts(n_atoms=options.n_atoms)
        content = sum((get_species(name).conformers[0] for name in mixture), start=Atoms())
    else:
        content, _ = load_or_pack(liquid.liquid, options.n_atoms, None, 0, loosely=True)
        if not content.pbc.all():
            message = (
                f"Expected a box that is periodic in three directions, and so has a density; got "
                f"pbc={content.pbc.tolist()}."
            )
            raise InvalidInputError(message)
        if wrong := strangers(liquid.measured, species_of(content)):
            raise InvalidInputError(f"Expected {'; '.join(wrong)}.")
    if isinstance(calculator, ForceFieldCalculator):
        import torch  # noqa: PLC0415 - a calculator of another library may do without

        numbers = torch.as_tensor(content.numbers, device=calculator.force_field.device)
        calculator.force_field.check_elements(numbers)
