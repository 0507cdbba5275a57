"""Whether long runs hold: the drift of the energy, and liquids at constant pressure.

* NVE: 16 carbonate molecules at 300 K, steps of 0.5 fs, 20 ps, by the kernels: slope of the total
  energy, for forces that are its gradient and for the published ones, which hold the charges fixed.
* NPT: more than 500 atoms at 300 K and 1 bar for 100 ps, three seeds: density and its block error,
  whatever it is, beside the measured one. Hydrogen weighs 3 u and steps last 1.5 fs: densities do
  not depend on masses.

Runs lie in the folder that SCIKD_RUNS names (default: build/md-stability), and go on where they
stopped. ``--quick`` runs a fiftieth of the time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from benchmarks.harness import ROOT, Row, row
from scikd.md.calculators import ForceFieldCalculator
from scikd.md.dynamics import DynamicsOptions, DynamicsResult, run_dynamics
from scikd.md.molecules import parse_mixture
from scikd.md.storage import load_force_field

__all__ = ["npt", "nve", "run"]

RUNS = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / "md-stability")
SEEDS = (0, 1, 2)
# Liquid, and how long in ps.
LIQUIDS = {"EC:DMC 1:1": 100.0}
N_ATOMS = 520
NVE: tuple[tuple[str, Literal["float32", "float64"]], ...] = (
    ("conservative", "float64"),
    ("conservative", "float32"),
    ("published", "float64"),
)


def nve(rule: str, dtype: Literal["float32", "float64"], picoseconds: float) -> DynamicsResult:
    """Run 16 molecules at constant energy, or sum up what was run before."""
    model = load_force_field("default")
    model.force_rule = rule  # type: ignore[assignment]
    options = DynamicsOptions(
        liquid="EC:DMC 1:1",
        n_atoms=176,
        ensemble="nve",
        timestep=0.5,
        time=f"{picoseconds}ps",
        equilibration="1ps",
        checkpoint_interval=2000,
        output=str(RUNS / f"nve-{rule}-{dtype}-{picoseconds:g}ps"),
    )
    calculator = ForceFieldCalculator(model, engine="numba", dtype=dtype, guard="ignore", threads=1)
    return run_dynamics(options, calculator=calculator)


def npt(liquid: str, seed: int, picoseconds: float) -> DynamicsResult:
    """Run a liquid at constant pressure, or sum up what was run before."""
    name = liquid.replace(":", "-").replace(" ", "_")
    options = DynamicsOptions(
        liquid=liquid,
        n_atoms=N_ATOMS,
        ensemble="npt",
        timestep=1.5,
        hydrogen_mass=3.0,
        time=f"{picoseconds}ps",
        equilibration=f"{picoseconds / 5}ps",
        seed=seed,
        threads=1,
        output=str(RUNS / f"npt-{name}-{seed}-{picoseconds:g}ps"),
    )
    return run_dynamics(options)


def run(quick: bool = False) -> list[Row]:
    """Run everything, or sum up what was run before."""
    share = 0.02 if quick else 1.0
    rows = []
    for rule, dtype in NVE:
        slope, error = nve(rule, dtype, 20.0 * share).drift
        rows.append(row(f"NVE, {rule} forces, {dtype}", slope, "meV/atom/ns", error=error))
    for liquid, time in LIQUIDS.items():
        for seed in SEEDS[: 1 if quick else None]:
            result = npt(liquid, seed, time * share)
            mean, error = result.averages["density_g_cm3"]
            expected = parse_mixture(liquid).density
            name = f"NPT, {liquid}, {len(result.atoms)} atoms, {time * share:g} ps, seed {seed}"
            rows.append(
                row(name, mean, "g/cm³", "ideal mixture of measured", expected, error=error)
            )
            rows[-1]["ratio"] = expected / mean
    return rows
