"""The two families of force fields: cost per atom and step, and errors after equal epochs.

Cost is that of energy, forces and stress of a carbonate box in single precision on one thread, by
torch, without electrostatics, with pairs that are there already; of the processor's time, whatever
else the machine does. MACE, in an environment of its own (SCIKD_PEERS, see md-speed), is timed by
the clock, in turn with ours; its time contains its neighbour list.

Errors are root mean squares on test clusters that come with scikd, after each family was trained on
the same training clusters in the same order, with the same loss, at a learning rate that suits it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import h5py
import numpy as np
import torch

from benchmarks.harness import ROOT, Row, alternate, row
from benchmarks.md_speed import peer
from scikd.md import Equivariant, EquivariantSettings, GETSettings
from scikd.md._architectures import NetworkSettings, build_architecture
from scikd.md.frames import AtomicBatch, from_ase, select
from scikd.md.losses import LossOptions
from scikd.md.model import ForceField
from scikd.md.packing import pack_box
from scikd.md.readers import read_frames
from scikd.md.training import TrainingOptions, fit

__all__ = ["run"]

CLUSTERS = ROOT / "data" / "md" / "clusters-0.h5"
TRAINING, TEST = 0, 2  # numbers of parts in that file
SIZES: dict[str, NetworkSettings] = {
    "GET": GETSettings(),
    "equivariant": EquivariantSettings(),
    "equivariant, 32 channels": EquivariantSettings(channels=32),
    "equivariant, 128 channels": EquivariantSettings(channels=128),
    "equivariant, l_max 1": EquivariantSettings(l_max=1),
}
LEARNERS = {  # settings and learning rate
    "GET": (GETSettings(), 0.003),
    "equivariant, 32 channels": (EquivariantSettings(channels=32), 0.01),
}


def _step(settings: NetworkSettings, batch: AtomicBatch) -> Callable[[], object]:
    torch.manual_seed(0)
    model = ForceField(build_architecture(settings), elements=[1, 3, 6, 8, 9, 15])
    model = model.float().eval().requires_grad_(requires_grad=False)
    neighbors = model.neighbors(batch)
    vectors = neighbors.near.vectors(batch.positions, batch.cell).float()
    if isinstance(model.architecture, Equivariant):
        model.architecture.measure(batch.numbers, neighbors.near.index, vectors)
    return lambda: model(batch, neighbors, stress=True)


def _costs(quick: bool) -> Iterator[Row]:
    torch.set_num_threads(1)
    for n_atoms in (400,) if quick else (400, 1_500):
        box = pack_box("EC:DMC 1:1", n_atoms=n_atoms, density=1.2, seed=0)
        batch = from_ase(box)
        steps = {name: _step(settings, batch) for name, settings in SIZES.items()}
        repeats = 2 if quick else 5
        seconds = alternate(list(steps.values()), repeats, clock=time.process_time)
        cost = dict(zip(steps, (1e6 * s / len(box) for s in seconds), strict=True))
        for name, ours in cost.items():
            yield row(f"{len(box):,} atoms, {name}", ours, "us/atom", "GET", cost["GET"])
        with ExitStack() as stack:
            step = stack.enter_context(peer("mace", "MACE", box))
            if step is not None:
                both = alternate([steps["equivariant"], step], repeats)
                ours, theirs = (1e6 * s / len(box) for s in both)
                yield row(f"{len(box):,} atoms, by the clock", ours, "us/atom", "MACE", theirs)


def _parts(n_train: int, n_test: int) -> list[AtomicBatch]:
    frames = read_frames(CLUSTERS)
    with h5py.File(CLUSTERS) as file:
        part = file["split"][:]
    random = np.random.default_rng(0)
    chosen = [
        np.sort(random.choice(np.flatnonzero(part == number), n, replace=False))
        for number, n in ((TRAINING, n_train), (TEST, n_test))
    ]
    return [select(frames, torch.from_numpy(indices)) for indices in chosen]


def _errors(quick: bool) -> Iterator[Row]:
    n_train, n_test, epochs = (24, 8, 1) if quick else (200, 60, 10)
    train, test = _parts(n_train, n_test)
    logs = {}
    for name, (settings, rate) in LEARNERS.items():
        options = TrainingOptions(
            model=settings,
            loss=LossOptions(energy=20.0, forces=1.0, charges=0.2, dipole=0.02),
            epochs=epochs,
            batch_size=8,
            learning_rate=rate,
            clip_norm=10.0,
            ema_decay=0.99,
            threads=1,
            device="cpu",
        )
        result = fit(options, train=train, validation=test, progress=False)
        logs[name] = result.history[-1]
    of = f"{n_train} clusters, {epochs} epochs"
    for key, unit in (
        ("validation_forces_meV_per_A", "meV/A"),
        ("validation_energy_meV_per_atom", "meV/atom"),
        ("seconds", "s/epoch"),
    ):
        for name, log in logs.items():
            yield row(f"{of}, {name}", log[key], unit, "GET", logs["GET"][key])


def run(quick: bool = False) -> list[Row]:
    """Measure cost, then errors."""
    return [*_costs(quick), *_errors(quick)]
