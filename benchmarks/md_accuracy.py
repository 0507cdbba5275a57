"""Errors of energy and forces on structures that nobody trained on.

* ``embedded``: the model that comes with scikd on the test part of the embedded clusters.
* ``solvents``: trained here on 200 clusters of carbonates (GFN2-xTB), tested on 1,000 others.
* ``liquid``: trained here on periodic boxes of EC and EMC (DFT); every fourth by density is held
  out; errors by density.

Forces are also split into those that move or turn a molecule and the rest. Beside ours stands a
MACE (64x0e, 5 Å, two layers) that was given the same training structures and the same time on one
thread, in its own environment (SCIKD_PEERS, see md-speed). Everything but ``embedded`` needs
outside data (SCIKD_DATA). One seed; intervals are bootstraps over test structures.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import ase.io
import h5py
import numpy as np
import torch

from benchmarks._md_errors import interval, of_atoms, of_structures
from benchmarks.harness import DATA, ROOT, Row, row
from scikd.md.evaluation import evaluate, split_forces
from scikd.md.frames import AtomicBatch, collate, find_molecules, select, to_ase
from scikd.md.losses import LossOptions
from scikd.md.readers import LabelKeys, read_frames
from scikd.md.storage import load_force_field
from scikd.md.training import TrainingOptions, fit
from scikd.md.units import GRAM_PER_CM3

__all__ = ["run"]

EMBEDDED = ROOT / "data" / "md"
XTB = LabelKeys(energy="energy_xtb", forces="forces_xtb", molecules="molID")
TEST = 2  # the number of the test part in the embedded files
EPOCHS = {"solvents": 200, "liquid": 40}


def _errors(
    name: str, labels: AtomicBatch, energy: np.ndarray, forces: np.ndarray
) -> Iterator[Row]:
    """Yield RMSE of energy per atom and of forces, whole and split, with 95 % intervals."""
    assert labels.energy is not None
    assert labels.forces is not None
    counts = labels.counts.numpy()
    error = torch.as_tensor(forces) - labels.forces
    parts = {"forces": error}
    if len(labels.molecules) and int(labels.molecules.min()) >= 0:
        parts |= {f"forces {k} molecules": v for k, v in split_forces(labels, error).items()
                  if k in ("within", "between")}  # fmt: skip
    of_energy = 1e3 * (energy - labels.energy.numpy()) / counts
    found = {"energy": (of_structures(of_energy**2, np.ones(len(counts))), "meV/atom")}
    for part, values in parts.items():
        found[part] = (of_atoms(labels, 1e3 * values.numpy()), "meV/Å")
    for part, (errors, unit) in found.items():
        yield row(f"{name}, {part}", errors.rmse, unit, **interval(errors.drawn))


def _ours(name: str, model: object, test: AtomicBatch) -> list[Row]:
    metrics = evaluate(model, test, progress=False)  # type: ignore[arg-type]
    energy = metrics.predictions["energy"] - metrics.labels["energy"]
    absolute = energy * test.counts.numpy() + test.energy.numpy()  # type: ignore[union-attr]
    return list(_errors(name, test, absolute, metrics.predictions["forces"]))


def _embedded() -> list[Row]:
    parts = [
        select(read_frames(path), np.flatnonzero(read_split(path) == TEST))
        for path in sorted(EMBEDDED.glob("clusters*.h5"))
    ]
    return _ours("embedded, default model", load_force_field("default"), collate(parts))


def read_split(path: Path) -> np.ndarray:
    """Return the part of each structure of an embedded file: 0 train, 1 validation, 2 test."""
    with h5py.File(path) as file:
        return np.asarray(file["split"])


def _train(
    name: str, train: AtomicBatch, test: AtomicBatch, quick: bool
) -> tuple[list[Row], float]:
    options = TrainingOptions(
        epochs=2 if quick else EPOCHS[name],
        batch_size=8 if name == "solvents" else 4,
        ema_decay=0.99,
        threads=1,
        dispersion="d3-cso",
        dispersion_in_labels=True,
        loss=LossOptions(energy=10.0, virial=1e-3 if name == "liquid" else 0.0),
    )
    chosen, held_out = _hold_out(train)
    start = time.perf_counter()
    result = fit(options, train=chosen, validation=held_out, progress=False)
    seconds = time.perf_counter() - start
    rows = _ours(f"{name}, scikd", result.force_field, test)
    if name == "liquid":
        for low, part in _by_density(test):
            rows += _ours(f"liquid from {low:.2f} g/cm³, scikd", result.force_field, part)
    return [*rows, row(f"{name}, scikd, training", seconds, "s")], seconds


def _hold_out(train: AtomicBatch) -> tuple[AtomicBatch, AtomicBatch]:
    everything = np.arange(train.n_structures)
    return select(train, everything[everything % 10 != 9]), select(train, everything[9::10])


def _density(batch: AtomicBatch) -> np.ndarray:
    masses = np.array([atoms.get_masses().sum() for atoms in to_ase(batch)])
    return masses / torch.linalg.det(batch.cell).abs().numpy() / GRAM_PER_CM3


def _by_density(batch: AtomicBatch) -> Iterator[tuple[float, AtomicBatch]]:
    densities = _density(batch)
    edges = np.quantile(densities, [0.0, 1 / 3, 2 / 3, 1.0])
    for low, high in pairwise(edges):
        inside = (densities >= low) & (densities <= high)
        yield float(low), select(batch, np.flatnonzero(inside))


def _mace(
    name: str, train: AtomicBatch, test: AtomicBatch, seconds: float, quick: bool
) -> Iterator[Row]:
    """Train a MACE for as long as ours took, and judge it alike."""
    home = Path(os.environ.get("SCIKD_PEERS", "")) / "mace" / "bin"
    if not os.environ.get("SCIKD_PEERS") or not (home / "mace_run_train").is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part, batch in zip(("train", "valid", "test"), (*_hold_out(train), test), strict=True):
            _write_for_mace(place / f"{part}.xyz", batch)
        one, epochs = _mace_epochs(home, place, 1), 1
        if not quick:  # starting up takes a while, and an epoch does not include it
            an_epoch = (_mace_epochs(home, place, 4) - one) / 3
            epochs = max(1, round((seconds - one) / an_epoch) + 1)
        taken = one if epochs == 1 else _mace_epochs(home, place, epochs)
        command = [str(home / "python"), str(Path(__file__).with_name("_md_peer.py"))]
        request = {"predict": str(place / "test.xyz"), "output": str(place / "found.npz")}
        subprocess.run(  # noqa: S603 - the environment that the user named
            [*command, str(place / f"epochs-{epochs}.model")],
            input=json.dumps(request) + "\n", text=True, check=True, capture_output=True,
        )  # fmt: skip
        with np.load(place / "found.npz") as found:
            yield from _errors(f"{name}, MACE", test, found["energies"], found["forces"])
        yield row(f"{name}, MACE, training ({epochs} epochs)", taken, "s")


def _write_for_mace(path: Path, batch: AtomicBatch) -> None:
    frames = to_ase(batch)
    for atoms in frames:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces
    ase.io.write(path, frames)


def _mace_epochs(home: Path, place: Path, epochs: int) -> float:
    """Train for a number of epochs from scratch; return the seconds."""
    options = {
        "name": f"epochs-{epochs}", "train_file": "train.xyz", "valid_file": "valid.xyz",
        "energy_key": "REF_energy", "forces_key": "REF_forces", "E0s": "average",
        "model": "MACE", "hidden_irreps": "64x0e", "r_max": "5.0", "batch_size": "8",
        "max_num_epochs": str(epochs), "eval_interval": str(max(1, epochs // 5)), "seed": "0",
        "device": "cpu", "default_dtype": "float32", "lr": "0.01", "scheduler": "ExponentialLR",
        "lr_scheduler_gamma": f"{0.01 ** (1 / epochs):.5f}", "forces_weight": "100",
        "energy_weight": "10",
    }  # fmt: skip
    arguments = [f"--{key}={value}" for key, value in options.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    start = time.perf_counter()
    subprocess.run(  # noqa: S603 - the environment that the user named
        [str(home / "mace_run_train"), *arguments],
        cwd=place, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - start


def _sets() -> Iterator[tuple[str, AtomicBatch, AtomicBatch]]:
    clusters = DATA / "md" / "carbonate_xtb_clusters"
    if clusters.is_dir():
        train, test = (
            read_frames(clusters / f"solvent_xtb_{part}.xyz", keys=XTB)
            for part in ("train_200", "test")
        )
        yield "solvents", _molecular(train), _molecular(test)
    liquid = DATA / "md" / "ecemc_dft_periodic" / "ECEMC.xyz"
    if liquid.is_file():
        frames = _with_molecules(_molecular(read_frames(liquid)))
        order = np.argsort(_density(frames))
        held_out = np.zeros(len(order), dtype=bool)
        held_out[order[2::4]] = True
        yield "liquid", select(frames, ~held_out), select(frames, held_out)


def _with_molecules(frames: AtomicBatch) -> AtomicBatch:
    found = [find_molecules(atoms) for atoms in to_ase(frames)]
    return replace(frames, molecules=torch.as_tensor(np.concatenate(found)))


def _molecular(frames: AtomicBatch) -> AtomicBatch:
    """Leave out isolated atoms."""
    return select(frames, np.flatnonzero(frames.counts.numpy() > 1))


def run(quick: bool = False) -> list[Row]:
    """Train, and judge everything."""
    rows = _embedded()
    step = 8 if quick else 1
    for name, *parts in _sets():
        train, test = (select(part, np.arange(0, part.n_structures, step)) for part in parts)
        found, seconds = _train(name, train, test, quick)
        rows += [*found, *_mace(name, train, test, seconds, quick)]
    return rows
