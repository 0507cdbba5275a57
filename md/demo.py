"""The section of the demonstration on force fields: labels, parity, and a liquid that moves."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase import Atoms

from scikd.report import PALETTE, Figure, Section, Table, Text

from .calculators import ForceFieldCalculator
from .dynamics import DynamicsOptions, DynamicsResult, run_dynamics
from .dynamics_report import read_log
from .evaluation import Metrics, evaluate
from .frames import from_ase
from .labelling import XTBTeacher, label_structures
from .packing import pack_cluster
from .sampling import explore
from .storage import load_force_field
from .training_report import plot_parity

if TYPE_CHECKING:
    from scikd.demo import Options

__all__ = ["Liquid", "hold_parity", "run_liquid", "section"]

logger = logging.getLogger(__name__)

COMPOSITIONS = (
    {"EC": 3},
    {"DMC": 2, "EC": 1},
    {"EMC": 2},
    {"DME": 2},
    {"Li+": 1, "EC": 2, "DMC": 1},
    {"PF6-": 1, "EC": 2},
)
FRAMES_EACH = 4
LIQUID, N_ATOMS, TIME = "EC:DMC 1:1", 176, "1ps"


@dataclass(frozen=True, eq=False)
class Liquid:
    """A short run: its result, and its log."""

    result: DynamicsResult
    log: pd.DataFrame


def section(options: Options) -> Section:
    """Label clusters, compare, run a liquid; called by `scikd.demo.run_demo`."""
    metrics = hold_parity(options)
    liquid = run_liquid(options)
    forces = metrics.labels["forces"], metrics.predictions["forces"]
    return Section(
        "Molecular dynamics: carbonates and ions",
        [
            metrics.table(),
            Figure(
                "Forces: labels and predictions",
                lambda ax: plot_parity(ax, *forces, numbers=metrics.numbers, unit="eV/Å"),
                note="Each dot is one component of the force on one atom.",
                size=(4.6, 4.6),
            ),
            _run_table(liquid),
            Figure(
                "Temperature of the liquid",
                lambda ax: _draw_temperature(ax, liquid.log),
                note="Before time zero: equilibration. The line is what the thermostat wants.",
            ),
            Text(
                "Clusters are packed, moved at 400 K by the model that comes with scikd, and then "
                "labelled by GFN2-xTB, the method that it learnt from; none of them was in its "
                "training. The liquid is packed anew and runs at constant volume."
            ),
        ],
        summary=_summary(metrics, liquid),
    )


def hold_parity(options: Options) -> Metrics:
    """Make clusters that the default model has never seen, label them, and compare.

    Parameters
    ----------
    options : Options
        Seed, jobs and progress.

    Returns
    -------
    Metrics
        Errors of the default model.
    """
    model = load_force_field("default")
    frames: list[Atoms] = []
    for number, composition in enumerate(COMPOSITIONS):
        start = pack_cluster(composition, seed=1000 * options.seed + number, density_scale=0.9)
        # Engines that compile are for long runs: these clusters move a few hundred steps.
        moved = explore(
            start,
            ForceFieldCalculator(model, engine="torch", guard="ignore"),
            temperature=400.0,
            n_frames=FRAMES_EACH,
            interval=30.0,
            warmup=60.0,
            seed=options.seed + number,
        )
        frames += moved
    logger.info("labelling %d clusters by GFN2-xTB", len(frames))
    with tempfile.TemporaryDirectory() as folder:
        labelled = label_structures(
            frames,
            XTBTeacher(),
            Path(folder) / "labels",
            n_jobs=options.n_jobs,
            failures="drop",
            progress=options.progress,
        )
        return evaluate(model, from_ase(labelled.frames), progress=options.progress)


def run_liquid(options: Options) -> Liquid:
    """Run a small liquid at constant volume with the default model.

    Parameters
    ----------
    options : Options
        Seed and progress.

    Returns
    -------
    Liquid
        The run; its files are gone.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = DynamicsOptions(
            liquid=LIQUID,
            n_atoms=N_ATOMS,
            ensemble="nvt",
            time=TIME,
            equilibration="0.5ps",
            seed=options.seed,
            output=folder,
        )
        result = run_dynamics(settings, progress=options.progress)
        return Liquid(result, read_log(result.log))


def _run_table(liquid: Liquid) -> Table:
    result = liquid.result
    temperature, error = result.averages["temperature_K"]
    pressure, spread = result.averages["pressure_bar"]
    rows: Sequence[Sequence[Any]] = [
        ("atoms", len(result.atoms), ""),
        ("steps of 1 fs", result.n_steps, ""),
        ("temperature", temperature, f"± {error:.1f} K"),
        ("pressure", pressure, f"± {spread:.0f} bar"),
        ("speed", result.ns_per_day, "ns/day"),
    ]
    title = f"{LIQUID}, molar, at 300 K and constant volume"
    return Table(title, ("what", "value", "unit"), rows)


def _draw_temperature(axes: Any, log: pd.DataFrame) -> None:
    axes.plot(log["time_ps"], log["temperature_K"], color=PALETTE[0])
    axes.axhline(300.0, color=PALETTE[1], linewidth=1.0)
    axes.axvline(0.0, color="0.5", linewidth=0.8)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("temperature (K)")


def _summary(metrics: Metrics, liquid: Liquid) -> str:
    energy, forces = metrics.errors["energy"], metrics.errors["forces"]
    temperature = np.round(liquid.result.averages["temperature_K"][0])
    return (
        f"On {energy.n} new clusters the default model is off by {energy.rmse:.1f} meV per atom "
        f"and {forces.rmse:.0f} meV/Å (RMSE; the forces themselves: {forces.spread:.0f}). "
        f"A liquid of {len(liquid.result.atoms)} atoms held {temperature:.0f} K for "
        f"{liquid.result.n_steps} steps, at {liquid.result.ns_per_day:.2g} ns/day."
    )
