"""Cost of energy, forces and stress per atom and step: compiled kernels, torch, and peers.

Systems: carbonate boxes of about 400, 1,500 and 20,000 atoms, packed here, and, where the data is
there, the box of the public BAMBOO release. The model has the default sizes, with Ewald or PME
electrostatics and dispersion, and the released weights or, without the data, random ones, in single
precision. Atoms move a little before every step. "lists kept" is a step between two neighbour
searches, "lists anew" one that searches; a simulation searches about every twentieth step.

Peers run in their own environments, in the same rounds, lists anew, with random weights: set
SCIKD_PEERS to a folder with the environments ``graph`` (graph-pes) and ``mace`` (mace-torch);
without it they are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import ase.io
import numpy as np
import torch
from ase import Atoms
from threadpoolctl import threadpool_limits

from benchmarks.harness import DATA, Row, alternate, row
from scikd.md.bamboo import from_bamboo
from scikd.md.calculators import ForceFieldCalculator
from scikd.md.dispersion import D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.get import GET
from scikd.md.kernels.network import Network
from scikd.md.kernels.pairs import PairTables
from scikd.md.kernels.pme import ParticleMesh
from scikd.md.model import ForceField
from scikd.md.neighbors import VerletList
from scikd.md.packing import pack_box

__all__ = ["peer", "run"]

PEERS = (("graph", "SchNet"), ("graph", "PaiNN"), ("mace", "MACE"))
LARGEST_FOR_TORCH, LARGEST_FOR_PEERS = 5_000, 2_000
SWING = 0.05  # Å
PARTS = (
    ("lists", VerletList, "update"),
    ("network forward", Network, "forward"),
    ("pairs", PairTables, "compute"),
    ("mesh", ParticleMesh, "compute"),
    ("network backward", Network, "backward"),
)
# Multiplications and additions of GET at its default sizes, per atom with 46 neighbours: forward
# with a tabulated filter (node updates 258,000, edges 155,000), and as much again backward by the
# nodes and twice that by the edges.
FLOP_PER_ATOM = 2 * 258_000 + 3 * 155_000


def _model() -> ForceField:
    terms = {"electrostatics": Electrostatics(reciprocal="pme"), "dispersion": D3CSO()}
    weights = DATA / "md" / "bamboo_released" / "weights.npz"
    if weights.is_file():
        with np.load(weights) as archive:
            model = from_bamboo(dict(archive), **terms)
    else:
        torch.manual_seed(0)
        model = ForceField(GET(), elements=[1, 3, 6, 8, 9, 15], **terms)
    model.force_rule = "conservative"
    return model


def _boxes(quick: bool) -> Iterator[tuple[str, Atoms]]:
    for n_atoms in (400, 1_500):
        box = pack_box("EC:DMC 1:1", n_atoms=n_atoms, density=1.2, seed=0)
        yield f"{len(box):,} atoms", box
        if quick:
            return
    release = DATA / "md" / "bamboo_released" / "reference_outputs.npz"
    if release.is_file():
        with np.load(release) as arrays:
            numbers, positions, cell = (
                arrays[f"box/{n}"] for n in ("numbers", "positions", "cell")
            )
        yield f"release, {len(numbers):,} atoms", Atoms(numbers, positions, cell=cell, pbc=True)
    large = pack_box("EC:DMC 1:1", n_atoms=2_500, density=1.2, seed=0).repeat(2)
    yield f"{len(large):,} atoms", large


class _Mover:
    """Steps of one calculator on a box whose atoms jitter around where they were."""

    def __init__(self, atoms: Atoms, anew: bool, **settings: Any) -> None:
        self.start, self.atoms, self.anew = atoms.positions.copy(), atoms.copy(), anew
        # An atom that swings farther than the skin makes every list useless for the next step.
        skin = 0.8 * SWING if anew else 1.0
        self.calculator = ForceFieldCalculator(_model(), guard="ignore", skin=skin, **settings)
        self.random = np.random.default_rng(0)
        self.threads, self.swing = settings.get("threads") or 1, SWING
        self.calculator.calculate(self.atoms)

    def __call__(self) -> None:
        self.atoms.positions = self.start + self.random.normal(scale=1e-3, size=self.start.shape)
        if self.anew:
            self.swing = -self.swing
            self.atoms.positions[0, 0] += self.swing
        torch.set_num_threads(self.threads)
        self.calculator.calculate(self.atoms, system_changes=["positions"])


@contextmanager
def peer(environment: str, model: str, atoms: Atoms) -> Iterator[Callable[[], None] | None]:
    """Give a step of a peer's calculator, or None where its environment is not there."""
    python = Path(os.environ.get("SCIKD_PEERS", "")) / environment / "bin" / "python"
    if not os.environ.get("SCIKD_PEERS") or not python.is_file():
        yield None
        return
    script = str(Path(__file__).with_name("_md_peer.py"))
    with (
        tempfile.NamedTemporaryFile("w", suffix=".xyz") as file,
        subprocess.Popen(  # noqa: S603 - the environment that the user named
            [str(python), script, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process,
    ):
        ase.io.write(file.name, Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))

        def ask(**request: Any) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            if not process.stdout.readline():
                message = f"{model} stopped: run {script} with {python} to see why"
                raise RuntimeError(message)

        ask(load=file.name)
        yield lambda: ask(step=True)
        process.stdin.close()  # type: ignore[union-attr]


def _rows(name: str, atoms: Atoms, quick: bool) -> Iterator[Row]:
    n_atoms = len(atoms)
    steps: dict[str, Callable[[], None]] = {
        "numba, lists kept": _Mover(atoms, anew=False, engine="numba", threads=1),
        "numba, lists anew": _Mover(atoms, anew=True, engine="numba", threads=1),
        "numba, two threads": _Mover(atoms, anew=False, engine="numba", threads=2),
    }
    if n_atoms <= LARGEST_FOR_TORCH:
        steps["torch, lists kept"] = _Mover(atoms, anew=False, engine="torch", threads=1)
    with ExitStack() as stack:
        for environment, model in PEERS if n_atoms <= LARGEST_FOR_PEERS else ():
            step = stack.enter_context(peer(environment, model, atoms))
            if step is not None:
                steps[model] = step
        seconds = alternate(list(steps.values()), repeats=3 if quick else 5)
    cost = dict(zip(steps, (1e6 * s / n_atoms for s in seconds), strict=True))
    ours, anew = cost["numba, lists kept"], cost["numba, lists anew"]
    unit = "us/atom"
    yield row(f"{name}, lists kept", ours, unit)
    yield row(f"{name}, lists anew", anew, unit)
    yield row(f"{name}, lists kept", cost["numba, two threads"], unit, "one thread", ours)
    if "torch, lists kept" in cost:
        yield row(f"{name}, lists kept", ours, unit, "our torch", cost["torch, lists kept"])
    for _, model in PEERS:
        if model in cost:
            yield row(f"{name}, lists anew", anew, unit, model, cost[model])
    yield from _parts(name, atoms)
    if not quick:
        yield _of_peak(name, ours)


def _parts(name: str, atoms: Atoms) -> Iterator[Row]:
    """Yield where a step between two searches spends its time, the rest being Python."""
    spent: dict[str, list[float]] = {}

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent.setdefault(part, []).append(time.perf_counter() - start)
            return result

        return measured

    step = _Mover(atoms, anew=False, engine="numba", threads=1)
    step()
    with ExitStack() as stack:
        for part, owner, method in PARTS:
            wrapped = timed(part, getattr(owner, method))
            stack.enter_context(patch.object(owner, method, wrapped))
        for _ in range(5):
            step()
    for part, seconds in spent.items():
        yield row(f"{name}, of it {part}", 1e6 * median(seconds) / len(atoms), "us/atom")


def _of_peak(name: str, microseconds: float) -> Row:
    """Compare the arithmetic of the network with what BLAS does on one thread."""
    random = np.random.default_rng(0)
    a, b = (random.random((1024, 1024), dtype=np.float32) for _ in range(2))
    with threadpool_limits(1):
        (seconds,) = alternate([lambda: a @ b], repeats=5)
    peak = 2 * 1024**3 / seconds / 1e9
    rate = FLOP_PER_ATOM / microseconds / 1e3
    return row(f"{name}, network's GFLOP/s", rate, "GFLOP/s", "sgemm", peak)


def run(quick: bool = False) -> list[Row]:
    """Measure every system."""
    return [one for name, atoms in _boxes(quick) for one in _rows(name, atoms, quick)]
