"""Structures per second in training: ours against a plain restatement of the published step.

Both take the same batches of clusters, the same weights, the published loss (energy, forces,
charges, dipole, and the penalty on neglected forces) and the same optimiser, in single precision on
one thread; before the clock starts, loss and gradients are compared. The clusters are those that
come with scikd.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks._plain_get import predict
from benchmarks.harness import Row, alternate, peak_rss, row
from scikd.md.electrostatics import Electrostatics
from scikd.md.frames import AtomicBatch, select
from scikd.md.get import GET
from scikd.md.losses import Loss, LossOptions
from scikd.md.model import ForceField
from scikd.md.neighbors import Neighbors
from scikd.md.readers import read_frames

__all__ = ["run"]

Step = Callable[[], torch.Tensor]
DATA = Path(__file__).resolve().parent.parent / "data" / "md"
TERMS = LossOptions(preset="published", virial=0.0)
SIZES = (16, 64)


def _batch(n_structures: int) -> AtomicBatch:
    frames = read_frames(min(DATA.glob("clusters*.h5")))
    chosen = np.random.default_rng(0).choice(frames.n_structures, n_structures, replace=False)
    return select(frames, np.sort(chosen)).to(dtype=torch.float32)


def _force_field(batch: AtomicBatch) -> ForceField:
    torch.manual_seed(0)
    elements = torch.unique(batch.numbers).tolist()
    return ForceField(GET(), elements=elements, electrostatics=Electrostatics(), forces="published")


def _update(loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def ours(n_structures: int) -> Step:
    """Return a training step of ours."""
    torch.set_num_threads(1)
    batch = _batch(n_structures)
    model, loss = _force_field(batch), Loss(TERMS)
    neighbors = model.neighbors(batch)
    optimiser = torch.optim.Adamax(model.parameters(), lr=1e-5)

    def step() -> torch.Tensor:
        found = model(batch, neighbors, training=True, **loss.needs)
        total, _ = loss(found, batch)
        _update(total, optimiser)
        return total.detach()

    return step


def plain(n_structures: int) -> Step:
    """Return the plain step."""
    torch.set_num_threads(1)
    batch = _batch(n_structures)
    model, loss = _force_field(batch), Loss(TERMS)
    neighbors: Neighbors = model.neighbors(batch)
    near, far = (
        torch.cat([pairs.index, pairs.index.flip(0)], dim=1)
        for pairs in (neighbors.near, neighbors.far)
    )
    optimiser = torch.optim.Adamax(model.parameters(), lr=1e-5)
    terms = model.electrostatics
    assert terms is not None
    constants = (terms.constant, terms.r0, terms.beta)

    def step() -> torch.Tensor:
        net = model.architecture
        assert isinstance(net, GET)
        where = batch.numbers, batch.positions, near, far, batch.batch, batch.total_charge
        found = predict(net, *where, constants)
        total, _ = loss({**found, "qeq_force": found["qeq"]}, batch)
        _update(total, optimiser)
        return total.detach()

    return step


def run(quick: bool = False) -> list[Row]:
    """Measure speed and peak memory of both."""
    rows = []
    for n_structures in SIZES[: 1 if quick else None]:
        steps = [ours(n_structures), plain(n_structures)]
        first, second = (step().item() for step in steps)
        assert abs(first - second) < 1e-3 * abs(second), f"the losses differ: {first}, {second}"
        seconds = alternate(steps, repeats=3 if quick else 7)
        rates = [n_structures / time for time in seconds]
        what = f"{n_structures} clusters a step"
        made = row(f"training, {what}", rates[0], "structures/s", "plain step", rates[1])
        made["ratio"] = rates[0] / rates[1]
        rows.append(made)
        mine, theirs = (
            peak_rss(f"benchmarks.md_train:{name}", n_structures) / 2**20
            for name in ("ours", "plain")
        )
        rows.append(row(f"peak memory, {what}", mine, "MiB", "plain step", theirs))
    return rows
