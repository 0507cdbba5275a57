"""One mixture of a campaign, stage by stage; what is finished is read."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from scikd._atomic import atomic_write_bytes
from scikd.exceptions import CorruptFileError, InvalidInputError, ScikdError

from ._aligning import folder_of
from ._stages import read_json
from ._trajectory import CHECKPOINT
from .campaign_report import MixtureResult
from .dynamics import DynamicsOptions, run_dynamics
from .estimates import Estimate
from .measurements import MeasuredLiquid
from .properties import PropertiesOptions, compute_properties
from .properties_report import properties_report

if TYPE_CHECKING:
    from .campaign import CampaignOptions

__all__ = ["is_finished", "run_mixture"]

logger = logging.getLogger("scikd.md.campaign")

FINISHED, PAGE = "finished.json", "report.html"


def run_mixture(
    liquid: MeasuredLiquid, options: CampaignOptions, calculator: Calculator
) -> MixtureResult:
    """Run a mixture at constant pressure, then at constant volume, and compute its properties.

    Whatever fails is told in the result, so that other mixtures go on.
    """
    result = MixtureResult(liquid)
    work = _Work(liquid, options, copy.deepcopy(calculator), result)
    stage = "at constant pressure"
    try:
        npt, density = work.constant_pressure()
        stage = "at constant volume"
        work.constant_volume(npt, density)
    except Exception as error:
        unforeseen = not isinstance(error, ScikdError)
        logger.warning("%s failed %s: %s", liquid.name, stage, error, exc_info=unforeseen)
        reason = str(error) or type(error).__name__
        result.failure = f"{stage}: {reason}"
    return result


def is_finished(liquid: MeasuredLiquid, folder: Path) -> bool:
    """Tell whether a mixture has a finished run at constant volume in the folder of a campaign."""
    return any((folder / folder_of(liquid)).glob(f"nvt-*/{FINISHED}"))


@dataclass(frozen=True)
class _Work:
    liquid: MeasuredLiquid
    options: CampaignOptions
    calculator: Calculator
    result: MixtureResult

    def constant_pressure(self) -> tuple[DynamicsOptions, float]:
        """Return how the run was made, and the density to go on at."""
        run = self._run("npt", "npt", self.options.npt_time)
        found = self._stage(run, "constant pressure", lambda: None)
        if "density" in found["estimates"]:
            self.result.estimates["density"] = Estimate(**found["estimates"]["density"])
        else:
            self.result.refusals["density"] = found["refusals"]["density"]
        if self.options.at_density == "measured":
            return run, self.liquid.measured["density"].value
        if "density" not in self.result.estimates:
            message = (
                f"{self.result.refusals['density']} Raise npt_time: the run goes on; or go on at "
                "the measured density."
            )
            raise InvalidInputError(message)
        return run, self.result.estimates["density"].value

    def constant_volume(self, before: DynamicsOptions, density: float) -> None:
        """Run at a density, from the last frame of the run before."""
        # Another density, as of a longer run before, is another run.
        run = self._run("nvt", f"nvt-{density:.4f}", self.options.nvt_time, round(density, 4))

        def start() -> Atoms:
            done = run_dynamics(before, calculator=self.calculator, progress=False)
            return done.atoms

        found = self._stage(run, f"{density:.4f} g/cm³", start)
        numbers = {n: e for n, e in found["estimates"].items() if n != "density"}
        self.result.estimates.update({name: Estimate(**e) for name, e in numbers.items()})
        # The density is held here: that it cannot be had from so short a run is no news.
        missing = {n: why for n, why in found["refusals"].items() if n != "density"}
        self.result.refusals.update(missing)

    def _stage(
        self, run: DynamicsOptions, title: str, start: Callable[[], Atoms | None]
    ) -> dict[str, Any]:
        """Return the numbers of a run, which is made, or made longer, if need be."""
        folder = Path(run.output)
        found = _noted(folder)
        made: dict[str, Any] = {"time": run.time, "largest_error": self.options.largest_error}
        if found.get("made") != made:
            # Without a checkpoint nothing was begun, whatever a full disk has left there.
            atoms = None if (folder / CHECKPOINT).exists() else start()
            done = run_dynamics(run, atoms=atoms, calculator=self.calculator, progress=False)
            logger.info("%s, %s: %s", self.liquid.name, title, done.summary())
            properties = compute_properties(
                PropertiesOptions(trajectory=run.output, largest_error=made["largest_error"])
            )
            page = properties_report(properties, title=f"{self.liquid.name}: {title}")
            page.write_html(folder / PAGE)
            found = {"made": made, **properties.as_dict()}
            atomic_write_bytes(folder / FINISHED, json.dumps(found, indent=1).encode())
        self.result.composition = found["composition"]
        self.result.pages[run.ensemble] = f"{folder.parent.name}/{folder.name}/{PAGE}"
        return found

    def _run(
        self, ensemble: str, name: str, time: str, density: float | None = None
    ) -> DynamicsOptions:
        options = self.options
        constant_volume = ensemble == "nvt"
        run = DynamicsOptions(
            liquid=self.liquid.liquid,
            n_atoms=options.n_atoms,
            density=density,
            ensemble=ensemble,  # type: ignore[arg-type]
            temperature=self.liquid.temperature_k,
            pressure=self.liquid.pressure_bar,
            timestep=options.timestep,
            time=time,
            equilibration=options.equilibration,
            minimise_steps=0 if constant_volume else options.minimise_steps,
            compressibility=options.compressibility,
            hydrogen_mass=options.hydrogen_mass,
            seed=options.seed,
            output=str(Path(options.output) / folder_of(self.liquid) / name),
            log_interval=options.log_interval,
            trajectory_interval=options.trajectory_interval,
            checkpoint_interval=options.checkpoint_interval,
            pressure_interval=options.pressure_interval if constant_volume else 0,
            engine=options.engine,
            device=options.device,
            threads=options.threads,
        )
        if made := _noted(Path(run.output)).get("made"):  # a run that is longer is kept
            run = max(run, replace(run, time=made["time"]), key=lambda other: other.n_steps)
        return run


def _noted(folder: Path) -> dict[str, Any]:
    """Return what a finished run has found; nothing if there is none.

    Raises
    ------
    StorageError, CorruptFileError
        As `read_json` does; the latter also if it is not such a note.
    """
    path = folder / FINISHED
    if not path.exists():
        return {}
    noted = read_json(path)
    try:
        numbers = {name: Estimate(**found) for name, found in noted["estimates"].items()}
        whole = (
            {"time", "largest_error"} <= noted["made"].keys()
            and all(isinstance(noted[name], dict) for name in ("composition", "refusals"))
            and all(isinstance(found.value, (int, float)) for found in numbers.values())
            and "density" in {**numbers, **noted["refusals"]}
        )
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole:
        message = f"{path} is garbled: remove it, and what it tells is done again."
        raise CorruptFileError(message)
    return noted
