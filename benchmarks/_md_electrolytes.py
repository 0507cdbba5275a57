"""Teachers at the level of GFN2-xTB, of several seeds, and their students: what benchmarks share.

A teacher is trained as the model that comes with scikd was (``data/md/default.yaml``), on the same
clusters, from another seed, for fewer epochs. The students are distilled from all of them on four
liquids, which the ensemble has run at 300 and at 400 K.

All lies in the folder that SCIKD_RUNS names (default: build/md-liquids), and goes on where it
stopped. ``python -m benchmarks._md_electrolytes`` makes all of it, a log in the same folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from benchmarks.harness import ROOT
from scikd._options import load_options
from scikd.md.distillation import DistillationOptions, distill_ensemble
from scikd.md.frames import AtomicBatch, collate, select
from scikd.md.get import GETSettings
from scikd.md.liquids import LiquidsOptions, sample_liquids
from scikd.md.losses import LossOptions
from scikd.md.readers import read_frames
from scikd.md.training import TrainingOptions, fit
from scikd.parallel import fan_out

__all__ = ["LIQUIDS", "SEEDS", "Scale", "clusters", "everything", "frames", "student", "teacher"]

DATA = ROOT / "data" / "md"
PARTS = ("train", "validation", "test")
SEEDS = (0, 1, 2)
LIQUIDS = (
    "EC:DMC 1:1",
    "EC:EMC 3:7 by mass",
    "EC:DMC:LiPF6 5:5:1",
    "EC:EMC:LiPF6 26.34:61.46:12.2 by mass",
)
TEMPERATURES = (300.0, 400.0)
# Of forces a smaller share is unexplained than of anything else, and they make the dynamics.
LOSS = LossOptions("relative", forces=20.0, charges=0.1, dipole=0.1)
SMALL = GETSettings(dim=32, n_layers=2, cutoff=4.0)


@dataclass(frozen=True)
class Scale:
    """How much is done: how long is trained, and run."""

    folder: Path
    n_clusters: int | None = None  # of those to learn from; None is all
    epochs: int = 50
    initial: str | None = None  # what teachers start as; None is anew
    n_atoms: int = 240
    sampling_ps: float = 6.0
    n_frames: int = 24  # of each liquid at each temperature
    distillation_epochs: int = 10
    seeds: tuple[int, ...] = SEEDS
    liquids: tuple[str, ...] = LIQUIDS

    @classmethod
    def of(cls, name: str, *, quick: bool) -> Scale:
        """Return the whole scale, or one of seconds, in the folder of benchmarks of that name."""
        folder = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / name)
        if not quick:
            return cls(folder)
        return cls(
            folder / "quick",
            n_clusters=32,
            epochs=1,
            initial="default",
            n_atoms=60,
            sampling_ps=0.06,
            n_frames=4,
            distillation_epochs=1,
            seeds=SEEDS[:2],
            liquids=LIQUIDS[:1],
        )


def clusters(part: str, n: int | None = None) -> AtomicBatch:
    """Return the clusters of one part, "train", "validation" or "test"; n of them, or all."""
    found = []
    for path in sorted(DATA.glob("clusters-*.h5")):
        with h5py.File(path) as file:
            split = file["split"][:]
        found.append(select(read_frames(path), np.flatnonzero(split == PARTS.index(part))))
    batch = collate(found)
    chosen = np.linspace(0, batch.n_structures - 1, n or batch.n_structures).astype(int)
    return batch if n is None else select(batch, chosen)


def teacher(scale: Scale, seed: int, model: GETSettings | None = None) -> Path:
    """Train a teacher, or a small network likewise, if it is not there, and return its folder."""
    folder = scale.folder / f"{'teacher' if model is None else 'small'}-{seed}"
    if not (folder / "model").exists() or not _finished(folder, scale.epochs):
        changes: dict[str, Any] = {"output": folder, "seed": seed, "epochs": scale.epochs}
        options = load_options(TrainingOptions, DATA / "default.yaml", changes)
        if model is not None:
            options = replace(options, model=model)
        elif scale.initial is not None:
            options = replace(options, initial=Path(scale.initial))
        torch.set_num_threads(1)
        n = scale.n_clusters
        fit(options, train=clusters("train", n), validation=clusters("validation", n))
    return folder / "model"


def _finished(folder: Path, epochs: int) -> bool:
    log = folder / "log.csv"
    return log.exists() and len(log.read_text().splitlines()) > epochs


def frames(scale: Scale, temperature: float) -> Path:
    """Run the liquids with the ensemble, and return the file of the frames it disagrees on most."""
    options = LiquidsOptions(
        liquids=scale.liquids,
        models=tuple(str(teacher(scale, seed)) for seed in scale.seeds),
        n_atoms=scale.n_atoms,
        n_frames=scale.n_frames,
        temperature=temperature,
        timestep=1.5,
        hydrogen_mass=3.0,
        time=f"{scale.sampling_ps}ps",
        equilibration=f"{scale.sampling_ps / 2}ps",
        trajectory_interval=max(round(scale.sampling_ps * 1e3 / 1.5 / 80), 4),
        pressure_interval=0,
        threads=1,
        output=str(scale.folder / f"liquids-{temperature:g}K"),
    )
    path = Path(options.output) / "frames.h5"
    if not path.exists():
        sample_liquids(options)
    return path


def student(scale: Scale, seed: int, *, small: bool = False) -> Path:
    """Distil the teachers into a copy of one of them, or into a small network; return its folder.

    The small one was trained on clusters before, as the teachers were.
    """
    folder = scale.folder / f"{'small-student' if small else 'student'}-{seed}"
    initial = teacher(scale, seed, SMALL) if small else teacher(scale, seed)
    options = DistillationOptions(
        teachers=tuple(str(teacher(scale, other)) for other in scale.seeds),
        train=tuple(str(frames(scale, temperature)) for temperature in TEMPERATURES),
        initial=initial,
        loss=LOSS,
        reference_loss=LOSS,
        epochs=scale.distillation_epochs,
        batch_size=4,
        learning_rate=1e-3 if small else 3e-4,  # a copy of a teacher has little to learn
        seed=seed,
        precision="float32",
        device="cpu",
        threads=1,
        output=folder,
    )
    if not _finished(folder, options.epochs):
        distill_ensemble(options=options, reference=clusters("train", scale.n_clusters))
    return folder / "model"


def everything(scale: Scale, n_jobs: int = -1) -> dict[str, list[Path]]:
    """Make all models, side by side, and return their folders by kind."""
    jobs: list[tuple[Callable[..., Path], Iterable[tuple[Any, ...]]]] = [
        (teacher, [(scale, s) for s in scale.seeds] + [(scale, scale.seeds[0], SMALL)]),
        (frames, [(scale, temperature) for temperature in TEMPERATURES]),
        (student, [(scale, s) for s in scale.seeds]),
    ]
    made = [
        list(fan_out(_job, [(scale, f, *t) for t in tasks], n_jobs=n_jobs)) for f, tasks in jobs
    ]
    return {
        "single": made[0][:-1],
        "distilled": made[2],
        "small single": made[0][-1:],
        "small distilled": [student(scale, scale.seeds[0], small=True)],
    }


def _job(scale: Scale, function: Callable[..., Path], *arguments: Any) -> Path:
    scale.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=scale.folder / "made.log",
        level=logging.INFO,
        format="%(asctime)s %(process)d %(message)s",
    )
    return function(*arguments)


if __name__ == "__main__":
    everything(Scale.of("md-liquids", quick=False))
