"""What ensemble distillation is worth: single models, students of three, and a small student.

Teachers are trained from three seeds on clusters labelled by GFN2-xTB, and distilled on four
liquids (`benchmarks._md_electrolytes`); a student starts as a copy of each. Then, for every model:

* density of each liquid at 300 K and 1 bar, two runs of other seeds from boxes of the ensemble's
  runs: how far runs of one model differ, and how far models differ beyond that;
* pressure on the same frames of each liquid, which all runs gave: the difference between models
  without the noise of dynamics;
* errors of forces on the clusters of the test part, bootstrapped over structures;
* drift of the energy of 16 molecules at constant energy;
* time until a run of the salts at 400 K blows up;
* cost per atom and step of a large and of the small network, of the processor's time.

Intervals hold 95 %. Runs lie in the folder that SCIKD_RUNS names (default: build/md-distill), side
by side on all cores, and go on where they stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
import torch
from ase import Atoms
from scipy import stats

from benchmarks._md_electrolytes import Scale, clusters, everything
from benchmarks._md_errors import Errors, interval, of_atoms
from benchmarks.harness import Row, alternate, row
from scikd._atomic import atomic_write_bytes
from scikd.md._aligning import with_molecules
from scikd.md.calculators import CalculatorTeacher, ForceFieldCalculator
from scikd.md.dynamics import DynamicsError, DynamicsOptions, run_dynamics
from scikd.md.dynamics_report import read_log
from scikd.md.evaluation import evaluate
from scikd.md.frames import AtomicBatch, from_ase
from scikd.md.liquids import run_name
from scikd.md.packing import pack_box
from scikd.md.pressure import molecular_pressure
from scikd.md.storage import load_force_field
from scikd.parallel import fan_out

__all__ = ["Scatter", "run", "scatter"]

Models = Mapping[str, list[Path]]  # folders by kind: "single", "distilled", ...
Runs = Mapping[tuple[Path, str, str, int], dict[str, Any]]  # by model, liquid, kind and number

COLD, HOT = 300.0, 400.0  # K
PICOSECONDS = {"npt": 10.0, "hot": 6.0, "nve": 3.0}
EQUILIBRATION_PS = 3.0
RUNS_EACH = 2
FRAMES_EACH = 4  # of each run at constant pressure, for pressures on the same frames
DRAWS = 20_000


@dataclass(frozen=True)
class Scatter:
    """Standard deviations, with their intervals.

    Attributes
    ----------
    runs : dict of str to float
        Between runs of one model: value, low, high.
    models : dict of str to float
        Between models, beyond that of their runs: value, low, high.
    draws : ndarray of shape (n_draws,)
        Of the latter, to compare it with another.
    """

    runs: dict[str, float]
    models: dict[str, float]
    draws: np.ndarray


def scatter(values: np.ndarray) -> Scatter:
    """Split the scatter of densities into that of runs and that of models.

    Parameters
    ----------
    values : ndarray of shape (n_liquids, n_models, n_runs)
        Liquids have means of their own.

    Returns
    -------
    Scatter
        Intervals are those of generalized pivots (Weerahandi 1993): the sums of squares over draws
        of their chi-squared distributions.
    """
    n_liquids, n_models, n_runs = values.shape
    means = values.mean(2)
    between, within = n_liquids * (n_models - 1), n_liquids * n_models * (n_runs - 1)
    of_models = n_runs * np.square(means - means.mean(1, keepdims=True)).sum()
    of_runs = np.square(values - means[..., None]).sum()
    random = np.random.default_rng(0)
    drawn = of_runs / random.chisquare(within, DRAWS)
    beyond = (of_models / random.chisquare(between, DRAWS) - drawn) / n_runs
    drawn_models = np.sqrt(np.clip(beyond, 0.0, None))
    best = (of_models / between - of_runs / within) / n_runs
    runs, models = float(np.sqrt(of_runs / within)), float(np.sqrt(max(best, 0.0)))
    return Scatter(
        {"value": runs, **interval(np.sqrt(drawn))},
        {"value": models, **interval(drawn_models)},
        drawn_models,
    )


# ------------------------------------------------------------------------------------- dynamics


def _start(scale: Scale, liquid: str, number: int) -> Atoms:
    """Return a box of the ensemble's run at 300 K: its last frame, or that in the middle."""
    folder = scale.folder / f"liquids-{COLD:g}K" / run_name(liquid)
    frames = list(ase.io.iread(folder / "trajectory.extxyz"))
    return with_molecules(frames[(-1, len(frames) // 2)[number]])


def _folder(scale: Scale, model: Path, liquid: str, kind: str, number: int) -> Path:
    return scale.folder / "runs" / model.parent.name / f"{kind}-{run_name(liquid)}-{number}"


def _dynamics(scale: Scale, model: Path, liquid: str, kind: str, number: int) -> Path:
    """Run a model, unless it was, and return the file with what came out."""
    folder = _folder(scale, model, liquid, kind, number)
    found = folder / "found.json"
    if found.exists():
        return found
    share = 1.0 if scale.initial is None else 0.01
    quiet = kind == "nve"  # at constant energy: short steps, all digits, true masses
    options = DynamicsOptions(
        liquid=liquid,
        n_atoms=176,
        ensemble="nvt" if kind == "hot" else kind,  # type: ignore[arg-type]
        temperature=HOT if kind == "hot" else COLD,
        time=f"{PICOSECONDS[kind] * share}ps",
        equilibration=f"{(1.0 if quiet else EQUILIBRATION_PS) * share}ps",
        timestep=0.5 if quiet else 1.5,
        hydrogen_mass=None if quiet else 3.0,
        minimise_steps=200 if quiet else 0,
        seed=number,
        log_interval=10,
        trajectory_interval=100 if scale.initial is None else 10,
        pressure_interval=0,
        threads=1,
        output=str(folder),
    )
    start = None if quiet else _start(scale, liquid, number)
    dtype: Literal["auto", "float64"] = "float64" if quiet else "auto"
    calculator = ForceFieldCalculator(model, dtype=dtype, guard="ignore", threads=1)
    result: dict[str, Any] = {"averages": {}, "drift": (np.nan, np.nan), "blown_up": None}
    try:
        done = run_dynamics(options, atoms=start, calculator=calculator, progress=False)
        result |= {"averages": done.averages, "drift": done.drift}
    except DynamicsError as error:
        result["blown_up"] = str(error)
    result["picoseconds"] = float(read_log(folder / "log.csv")["time_ps"].iloc[-1])
    atomic_write_bytes(found, json.dumps(result).encode())
    return found


def _all_runs(scale: Scale, models: Models) -> Runs:
    """Run all models side by side, and return what came out of each run."""
    chosen = [path for paths in models.values() for path in paths]
    salts = [liquid for liquid in scale.liquids if "LiPF6" in liquid] or scale.liquids
    of_kind = (
        ("npt", scale.liquids, RUNS_EACH),
        ("hot", salts, 1),
        ("nve", scale.liquids[:1], 1),
    )
    tasks = [
        (scale, model, liquid, kind, number)
        for kind, liquids, n in of_kind
        for number in range(n)
        for liquid in liquids
        for model in chosen
    ]
    files = fan_out(_dynamics, tasks, n_jobs=-1, description="runs of the models")
    return {task[1:]: json.loads(path.read_text()) for task, path in zip(tasks, files, strict=True)}


# ----------------------------------------------------------------------------------------- rows


def _densities(scale: Scale, models: Models, runs: Runs) -> Iterator[Row]:
    def density(path: Path, liquid: str, number: int) -> float:
        averages = runs[path, liquid, "npt", number]["averages"]
        return float(averages["density_g_cm3"][0]) if averages else float("nan")

    found: dict[str, Scatter] = {}
    for kind, paths in models.items():
        values = np.array(
            [[[density(p, q, n) for n in range(RUNS_EACH)] for p in paths] for q in scale.liquids]
        )
        for liquid, (number, of_liquid) in zip(scale.liquids, enumerate(values), strict=True):
            of = f"{liquid}: density, {kind}, of {values[number].size} runs"
            yield row(of, float(of_liquid.mean()), "g/cm³", spread=float(of_liquid.std()))
        if len(paths) > 1 and np.isfinite(values).all():
            found[kind] = scatter(values)
            for name in ("runs", "models"):
                of = f"density, between {name}, {kind}"
                yield row(of, unit="g/cm³", **getattr(found[kind], name))
    if {"single", "distilled"} <= found.keys():
        single, distilled = found["single"], found["distilled"]
        bounds = interval(distilled.draws / np.clip(single.draws, 1e-9, None))
        share = distilled.models["value"] / max(single.models["value"], 1e-9)
        yield row("density, between models, distilled over single", share, "", **bounds)


def _same_frames(scale: Scale, models: Models) -> Iterator[Row]:
    """Yield how far models' mean pressures on the same frames are from each other."""
    everyone = [path for paths in models.values() for path in paths]
    table = np.array(list(fan_out(_pressures, [(scale, p, everyone) for p in everyone], n_jobs=-1)))
    found = {}
    for kind, paths in models.items():
        values = table[[everyone.index(path) for path in paths]]
        degrees = values.shape[1] * (len(paths) - 1)
        if degrees:
            mean_square = np.square(values - values.mean(0)).sum() / degrees
            found[kind] = mean_square, degrees
            low, high = np.sqrt(
                mean_square * degrees / stats.chi2.ppf([0.975, 0.025], degrees)
            ).tolist()
            of = f"pressure on the same frames, between models, {kind}"
            yield row(of, float(np.sqrt(mean_square)), "bar", low=low, high=high)
    (a, n), (b, m) = found["distilled"], found["single"]
    low, high = np.sqrt(a / b / stats.f.ppf([0.975, 0.025], n, m)).tolist()
    of = "pressure on the same frames, between models, distilled over single"
    yield row(of, float(np.sqrt(a / b)), "", low=low, high=high)


def _pressures(scale: Scale, model: Path, everyone: Sequence[Path]) -> list[float]:
    """Return the mean pressure of a model on frames of all models' runs, of each liquid, in bar."""
    teacher = CalculatorTeacher(
        ForceFieldCalculator(model, threads=1), properties=("forces", "stress")
    )
    means = []
    for liquid in scale.liquids:
        frames = [
            with_molecules(frame)
            for path in everyone
            for number in range(RUNS_EACH)
            for frame in _few(_folder(scale, path, liquid, "npt", number))
        ]
        found = teacher.predict(frames)
        forces, stress = (torch.from_numpy(found[name]) for name in ("forces", "stress"))
        means.append(float(molecular_pressure(from_ase(frames), forces, stress, COLD).mean()))
    return means


def _few(folder: Path) -> list[Atoms]:
    frames = [f for f in ase.io.iread(folder / "trajectory.extxyz") if f.info["time_ps"] > 0]
    return [frames[i] for i in np.linspace(0, len(frames) - 1, FRAMES_EACH).astype(int)]


def _errors(models: Models, test: AtomicBatch) -> Iterator[Row]:
    """Yield root mean square errors of forces, the mean over models of a kind."""
    found: dict[str, Errors] = {}
    for kind, paths in models.items():
        of_models = []
        for path in paths:
            metrics = evaluate(load_force_field(path), test, progress=False)
            error = metrics.predictions["forces"] - metrics.labels["forces"]
            of_models.append(of_atoms(test, 1e3 * error))
        rmse = float(np.mean([errors.rmse for errors in of_models]))
        found[kind] = Errors(rmse, np.mean([errors.drawn for errors in of_models], axis=0))
        bounds = interval(found[kind].drawn)
        yield row(f"forces on test clusters, {kind}", rmse, "meV/Å", **bounds)
    for kind in ("distilled", "small distilled"):
        plain = kind.replace("distilled", "single")
        bounds = interval(found[kind].drawn / found[plain].drawn)
        ratio = found[kind].rmse / found[plain].rmse
        yield row(f"forces on test clusters, {kind} over {plain}", ratio, "", **bounds)


def _stability(models: Models, runs: Runs) -> Iterator[Row]:
    for kind, paths in models.items():
        for (path, liquid, what, _), found in runs.items():
            if path not in paths or what == "npt":
                continue
            of = f"{kind}, {path.parent.name}, {liquid}"
            if what == "nve":
                slope, error = found["drift"]
                yield row(f"drift, {of}", slope, "meV/atom/ns", error=error)
            else:
                note = found["blown_up"] or "did not blow up"
                yield row(f"at {HOT:g} K for, {of}", found["picoseconds"], "ps", note=note)


def _costs(scale: Scale, models: Models, quick: bool) -> Iterator[Row]:
    for n_atoms in (scale.n_atoms,) if quick else (scale.n_atoms, 1_500):
        box = pack_box("EC:DMC 1:1", n_atoms=n_atoms, density=1.1, seed=0)
        steps = {
            kind: _step(ForceFieldCalculator(paths[0], threads=1), box.copy())
            for kind, paths in models.items()
            if kind in ("distilled", "small distilled")
        }
        seconds = alternate(list(steps.values()), 2 if quick else 15, clock=time.process_time)
        large, small = (1e6 * s / len(box) for s in seconds)
        yield row(f"{len(box):,} atoms, small distilled", small, "us/atom", "distilled", large)


def _step(calculator: ForceFieldCalculator, box: Atoms) -> Callable[[], object]:
    random = np.random.default_rng(0)

    def step() -> object:
        box.positions += random.normal(0, 1e-3, box.positions.shape)
        calculator.calculate(box, ["energy", "forces", "stress"])
        return calculator.results

    return step


def run(quick: bool = False) -> list[Row]:
    """Make the models, run them, and compare."""
    scale = Scale.of("md-distill", quick=quick)
    models = everything(scale)
    runs = _all_runs(scale, models)
    test = clusters("test", 16 if quick else None)
    return [
        *_densities(scale, models, runs),
        *_same_frames(scale, models),
        *_errors(models, test),
        *_stability(models, runs),
        *_costs(scale, models, quick),
    ]
