"""Whether an alignment brings densities to those that were measured, on mixtures that it never saw.

A student of teachers at the level of GFN2-xTB (the first of md-distill, made if it is not there) is
aligned with three mixtures of EC, EMC and LiPF6 at 25 °C, and judged on three others. Rows tell,
before and after,

* the density of each liquid at 1 bar, beside the measured one, with block errors; and the mean
  absolute error. Its interval tells of the noise of the runs, not of the choice of liquids;
* what the pressure lacked at the measured density, round by round;
* errors of forces on the clusters of the test part, with a bootstrap over structures, paired;
* by how much forces on frames of the liquids, and radial distributions, have changed.

How much of what lacks at first is the model's fault and how much that of the level of theory: on a
few frames of the first runs GFN2-xTB itself is asked for the pressure (with the extra ``xtb``).

Densities of mixtures are those of the SolventSeg set, that of DMC is a median of ThermoML's
(SCIKD_DATA); without these the benchmark has no rows. A box of 300 atoms cannot have any
composition: the measured density is taken to that of the box along a quadratic fit of the table.

Runs lie in the folder that SCIKD_RUNS names (default: build/md-align), side by side on all cores,
and go on where they stopped. ``--quick`` runs fractions of a picosecond, and corrects nothing.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from benchmarks._md_electrolytes import Scale, clusters, everything, student
from benchmarks._md_errors import interval, of_atoms
from benchmarks.harness import DATA, ROOT, Row, row
from scikd.labels import LabelStore
from scikd.md._aligning import AlignmentError, folder_of
from scikd.md.alignment import AlignmentOptions, align
from scikd.md.alignment_report import AlignmentResult, LiquidResult, alignment_report
from scikd.md.calculators import CalculatorTeacher, ForceFieldCalculator
from scikd.md.densities import DensityTarget
from scikd.md.evaluation import evaluate
from scikd.md.frames import AtomicBatch, select, to_ase
from scikd.md.labelling import XTBTeacher
from scikd.md.model import ForceField
from scikd.md.molecules import get_species, parse_mixture
from scikd.md.pressure import molecular_pressure
from scikd.md.readers import read_frames
from scikd.md.storage import load_force_field
from scikd.md.teachers import Structures

__all__ = ["measured_densities", "run"]

RUNS = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / "md-align")
MIXTURES = DATA / "md" / "electrolyte_expt" / "SolventSeg_LiPF6_EC_EMC.csv"
NEAT = DATA / "md" / "thermoml_liquids" / "full_filtered_data.csv"
ALIGNED = (
    "EC:EMC 3:7 by mass",
    "EC:EMC 5:5 by mass",
    "EC:EMC:LiPF6 0.26326:0.61427:0.12247 by mass",
)
HELD_OUT = (
    "DMC",
    "EC:EMC 7:3 by mass",
    "EC:EMC:LiPF6 0.43562:0.43562:0.12876 by mass",
)
AIMS = {"aligned": 0.01, "held out": 0.02}  # g/cm³, mean absolute errors
N_REFERENCE = 240  # clusters on which errors are held
N_LEVEL = 2  # liquids on frames of which GFN2-xTB itself is asked
OPTIONS = AlignmentOptions(
    output=RUNS / "alignment",
    iterations=4,
    n_atoms=300,
    settling="60ps",
    time="60ps",
    equilibration="4ps",
    density_time="60ps",
    timestep=2.0,
    hydrogen_mass=3.0,
    interval=40,
    n_frames=24,
    epochs=15,
    learning_rate=3e-3,
    hold=0.1,
    max_shift_bar=10_000.0,
)
QUICK = replace(
    OPTIONS,
    output=RUNS / "quick",
    n_atoms=60,
    settling="16fs",
    time="0.08ps",
    equilibration="16fs",
    density_time="0.08ps",
    interval=4,
    n_frames=8,
    tolerance_bar=1e6,
)


# ------------------------------------------------------------------------------------ experiment


def composition(amounts: Mapping[str, float]) -> tuple[float, float]:
    """Return the mass fractions of EC in the solvent, and of salt in all, of moles of species."""
    masses = {name: n * get_species(name).molar_mass for name, n in amounts.items()}
    salt = masses.pop("Li+", 0.0) + masses.pop("PF6-", 0.0)
    solvent = sum(masses.values())
    return masses.get("EC", 0.0) / solvent, salt / (solvent + salt)


def measured_densities(liquids: Sequence[str], n_atoms: int) -> dict[str, float]:
    """Return densities at 25 °C in g/cm³, of the compositions that boxes of so many atoms have."""
    with MIXTURES.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if float(row["Temp"]) == 25.0]
    ec, salt, density = np.array([[float(r[k]) for k in ("ec", "xLiPF6", "d")] for r in rows]).T
    terms = _quadratic(ec, salt)
    fit = np.linalg.lstsq(terms, density)[0]
    found = {}
    for liquid in liquids:
        if liquid == "DMC":
            found[liquid] = _dimethyl_carbonate()
            continue
        mixture = parse_mixture(liquid)
        wanted = composition(mixture)
        nearest = int(np.hypot(ec - wanted[0], salt - wanted[1]).argmin())
        of_box = _quadratic(*composition(mixture.counts(n_atoms=n_atoms)))
        found[liquid] = float(density[nearest] + (of_box - terms[nearest]) @ fit)
    return found


def _quadratic(x: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)


def _dimethyl_carbonate() -> float:
    with NEAT.open(encoding="utf-8") as file:
        found = [
            float(row["Mass density, kg/m3"])
            for row in csv.DictReader(file)
            if row["components"] == "dimethyl carbonate"
            and row["Mass density, kg/m3"]
            and abs(float(row["Temperature, K"]) - 298.15) < 0.2
            and abs(float(row["Pressure, kPa"]) - 101.0) < 2.0
        ]
    return float(np.median(found)) / 1000.0


def _targets(options: AlignmentOptions, *, quick: bool) -> list[DensityTarget]:
    liquids = (*ALIGNED[2:], *HELD_OUT[:1]) if quick else ALIGNED + HELD_OUT
    if quick:  # which judges nothing, and needs no data
        densities = {liquid: parse_mixture(liquid).density for liquid in liquids}
    else:
        densities = measured_densities(liquids, options.n_atoms)
    return [
        DensityTarget(liquid, density, held_out=liquid in HELD_OUT)
        for liquid, density in densities.items()
    ]


# ------------------------------------------------------------------------------------------ rows


def _part(liquid: LiquidResult) -> str:
    return "held out" if liquid.target.held_out else "aligned"


def _densities(result: AlignmentResult, peer: str) -> Iterator[Row]:
    """Yield densities, and mean absolute errors with what the noise of the runs makes of them."""
    random = np.random.default_rng(0)
    off: dict[tuple[str, str], list[np.ndarray]] = {}
    for liquid in result.liquids:
        wanted = liquid.target.density_g_cm3
        for when in ("before", "after"):
            found = getattr(liquid, when)
            of = f"{liquid.target.liquid} ({_part(liquid)}): density {when}"
            yield row(of, found.value, "g/cm³", peer, wanted, error=found.error)
            drawn = [found.value, *random.normal(found.value, found.error, 2000)]
            off.setdefault((_part(liquid), when), []).append(np.abs(np.array(drawn) - wanted))
    for (part, when), errors in off.items():
        mean = np.mean(errors, axis=0)
        of = f"{part}: mean absolute error of the density {when}"
        aim = f"aim: {AIMS[part]:g}"
        yield row(of, float(mean[0]), "g/cm³", **interval(mean[1:]), note=aim)


def _rounds(result: AlignmentResult) -> Iterator[Row]:
    for liquid in result.liquids:
        for number, shift in enumerate(liquid.shifts):
            of = f"{liquid.target.liquid}: pressure lacks after {number} corrections"
            moved = liquid.moved_bar[number : number + 1]
            note = f"next training moved it by {moved[0]:+.0f} bar" if moved else ""
            yield row(of, shift.value, "bar", error=shift.error, note=note)
    note = "pressures agree" if result.converged else "pressures do not agree"
    yield row("corrections", result.corrections, "", note=note)


def _forces(before: ForceField, after: ForceField, test: AtomicBatch) -> Iterator[Row]:
    found = []
    for when, model in (("before", before), ("after", after)):
        metrics = evaluate(model, test, progress=False)
        errors = of_atoms(test, 1e3 * (metrics.predictions["forces"] - metrics.labels["forces"]))
        found.append(errors)
        bounds = interval(errors.drawn)
        yield row(f"forces on test clusters {when}", errors.rmse, "meV/Å", **bounds)
    first, last = found
    bounds = interval(last.drawn / first.drawn)
    of = "forces on test clusters, after over before"
    yield row(of, last.rmse / first.rmse, "", **bounds, note="aim: 1.05")


def _changes(result: AlignmentResult) -> Iterator[Row]:
    """Yield what else has changed between the first and the last run of a liquid."""
    for liquid in result.liquids:
        changes = liquid.changes
        if changes is None:
            continue
        of = f"{liquid.target.liquid}: change of forces"
        yield row(of, changes.forces, "meV/Å", "forces", changes.of_forces)
        if changes.before is None or changes.after is None:
            continue
        known = {curve.pair: curve for curve in changes.before.distributions}
        for curve in changes.after.distributions:
            if (first := known.get(curve.pair)) is not None:
                # Boxes of other sizes have other bins, of which the last curve's are taken.
                values, errors = (
                    np.interp(curve.distances, first.distances, of_first)
                    for of_first in (first.values, first.errors)
                )
                noise = np.hypot(errors, curve.errors)
                of = f"{liquid.target.liquid}: change of g(r), {'-'.join(curve.pair)}"
                yield row(of, _rms(curve.values - values), "", noise=_rms(noise))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _level(first: ForceField, result: AlignmentResult, output: Path) -> Iterator[Row]:
    """Yield what GFN2-xTB says of the pressure on frames of the first runs, less the model."""
    if find_spec("tblite") is None:
        sys.stderr.write("GFN2-xTB is not asked: the extra xtb is not installed.\n")
        return
    calculator = ForceFieldCalculator(first, guard="ignore", threads=1)
    model = CalculatorTeacher(calculator, "model", properties=("forces", "stress"))
    teacher = XTBTeacher(properties=("energy", "forces", "stress"))
    for liquid in result.liquids[:N_LEVEL]:
        target = liquid.target
        batch = read_frames(output / "iteration-0" / folder_of(target) / "frames.h5")
        batch = select(batch, [batch.n_structures // 2, batch.n_structures - 1])
        frames = to_ase(batch)
        pressures = []
        stored = LabelStore(output / "xtb").label(teacher, Structures(frames), batch_size=1)
        for labels in (stored, model.predict(frames)):
            forces, stress = (torch.as_tensor(labels[name]) for name in ("forces", "stress"))
            found = molecular_pressure(batch, forces, stress, target.temperature_k)
            pressures.append(found.numpy())
        difference = pressures[0] - pressures[1]
        of = f"{target.liquid}: pressure of GFN2-xTB less the first model's, {len(frames)} frames"
        error = float(difference.std(ddof=1)) / len(frames) ** 0.5
        yield row(of, float(difference.mean()), "bar", error=error)


def _draw(result: AlignmentResult, path: Path) -> None:
    """Draw densities of the model against measured ones."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only a figure pays for the import

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    wanted = [liquid.target.density_g_cm3 for liquid in result.liquids]
    axes.axline((wanted[0], wanted[0]), slope=1.0, color="black", linewidth=0.8)
    for when, colour in (("before", "tab:grey"), ("after", "tab:blue")):
        for part, marker in (("aligned", "o"), ("held out", "s")):
            chosen = [liquid for liquid in result.liquids if _part(liquid) == part]
            axes.errorbar(
                [liquid.target.density_g_cm3 for liquid in chosen],
                [getattr(liquid, when).value for liquid in chosen],
                [1.96 * getattr(liquid, when).error for liquid in chosen],
                fmt=marker, color=colour, capsize=3, label=f"{part}, {when}",
                markerfacecolor="none" if part == "held out" else None,
            )  # fmt: skip
    axes.set_xlabel("measured density, g/cm³")
    axes.set_ylabel("density of the model, g/cm³")
    axes.legend()
    figure.savefig(path)


def aligned(scale: Scale, options: AlignmentOptions) -> tuple[ForceField, AlignmentResult]:
    """Return the first student of a scale, made if it is not there, and its alignment."""
    everything(scale)
    first = load_force_field(student(scale, scale.seeds[0]))
    quick = scale.initial is not None
    targets = _targets(options, quick=quick)
    reference = clusters("train", scale.n_clusters or N_REFERENCE)
    n_jobs = 1 if quick else -1
    return first, align(first, targets, options=options, reference=reference, n_jobs=n_jobs)


def run(quick: bool = False) -> list[Row]:
    """Align, and compare with what was measured."""
    absent = [str(path) for path in (MIXTURES, NEAT) if not path.is_file()]
    if absent and not quick:
        sys.stderr.write(f"No densities to align with: set SCIKD_DATA, {absent} are missing.\n")
        return []
    options = QUICK if quick else OPTIONS
    test = clusters("test", 16 if quick else None)
    try:
        first, result = aligned(Scale.of("md-distill", quick=quick), options)
    except AlignmentError as reason:
        return [row("refused", float("nan"), "", note=str(reason))]
    page = alignment_report(result).write_html(options.output / "report.html")
    picture = options.output / "densities.png"
    sys.stderr.write(f"A report lies in {page}\n")
    if find_spec("matplotlib") is not None:
        _draw(result, picture)
        sys.stderr.write(f"A figure lies in {picture}\n")
    return [
        *_densities(result, "ideal mixture" if quick else "measured"),
        *_rounds(result),
        *_forces(first, result.force_field, test),
        *_changes(result),
        *(() if quick else _level(first, result, options.output)),
    ]
