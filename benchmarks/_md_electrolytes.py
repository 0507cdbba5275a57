"""Teachers at the level of GFN2-xTB, of several seeds, which the benchmarks of liquids share.

Each is trained as the model that comes with scikd (``data/md/default.yaml``), on the same clusters,
from another seed, for fewer epochs. Runs lie in the folder that SCIKD_RUNS names (default:
build/md-liquids), and go on where they stopped; ``python -m benchmarks._md_electrolytes SEED``
trains one, so that several can be trained side by side.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks.harness import ROOT
from scikd._options import load_options
from scikd.md.frames import AtomicBatch, collate, select
from scikd.md.model import ForceField
from scikd.md.readers import read_frames
from scikd.md.training import TrainingOptions, fit

__all__ = ["RUNS", "SEEDS", "clusters", "teacher"]

DATA = ROOT / "data" / "md"
RUNS = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / "md-liquids")
SEEDS = (0, 1, 2)
EPOCHS = 50
PARTS = ("train", "validation", "test")


def clusters(part: str) -> AtomicBatch:
    """Return the clusters of one part: "train", "validation" or "test"."""
    found = []
    for path in sorted(DATA.glob("clusters-*.h5")):
        with h5py.File(path) as file:
            split = file["split"][:]
        found.append(select(read_frames(path), np.flatnonzero(split == PARTS.index(part))))
    return collate(found)


def teacher(seed: int, *, quick: bool = False) -> ForceField:
    """Train a teacher, or read one that is there."""
    folder = RUNS / ("quick" if quick else "") / f"teacher-{seed}"
    changes: dict[str, object] = {"output": folder, "seed": seed, "epochs": EPOCHS}
    train, validation = clusters("train"), clusters("validation")
    if quick:
        changes["epochs"] = 1
        train, validation = select(train, range(64)), select(validation, range(16))
    options = load_options(TrainingOptions, DATA / "default.yaml", changes)
    torch.set_num_threads(1)
    return fit(options, train=train, validation=validation).force_field


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    teacher(int(sys.argv[1]))
