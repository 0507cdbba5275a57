"""The time of one step of training, on merged trees and on batches of torch_geometric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch_geometric.data import Batch

from .dag import MergedGraphs
from .graphset import GraphSet
from .models import ClassifierSettings, GraphClassifier

__all__ = ["REPEATS", "StepTimes", "time_steps"]

REPEATS = 15  # of everything that is timed


@dataclass(frozen=True)
class StepTimes:
    """Milliseconds of one training step: merged trees beside batches of torch_geometric.

    Attributes
    ----------
    n_graphs : int
        Graphs in the step.
    merged, pyg : float
        A step on a batch that is there: forward, backward and Adam; medians.
    merged_batch, pyg_batch : float
        To make the batch; medians. Merging all graphs is once, before the training.
    difference : float
        Largest difference of the logits of the two.
    """

    n_graphs: int
    merged: float
    pyg: float
    merged_batch: float
    pyg_batch: float
    difference: float


def time_steps(
    train: GraphSet, size: int, settings: ClassifierSettings, seed: int = 0
) -> StepTimes:
    """Time one step of training on merged trees, and on the same graphs in torch_geometric.

    Parameters
    ----------
    train : GraphSet
        Graphs with classes from 0.
    size : int
        Graphs in a step.
    settings : ClassifierSettings
        The network.
    seed : int, default=0
        Which graphs, and the first weights.

    Returns
    -------
    StepTimes
        Of the same network, the same graphs and the same threads.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:size])
    merged, graphs = MergedGraphs.of(train, settings.n_layers), train.to_pyg()
    torch.manual_seed(seed)
    model = GraphClassifier.for_data(merged, settings)
    y = torch.as_tensor(np.asarray(train.y)[rows])
    optimiser = torch.optim.Adam(model.parameters())

    def merge() -> MergedGraphs:
        return merged.batch(rows)

    def collate() -> Any:
        return Batch.from_data_list([graphs[row] for row in rows])

    def step(batch: Any) -> None:
        optimiser.zero_grad()
        F.cross_entropy(model(batch), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    ours, theirs = merge(), collate()
    with torch.no_grad():
        difference = float((model(ours) - model(theirs)).abs().max())
    return StepTimes(
        n_graphs=size,
        merged=_median_ms(lambda: step(ours)),
        pyg=_median_ms(lambda: step(theirs)),
        merged_batch=_median_ms(merge),
        pyg_batch=_median_ms(collate),
        difference=difference,
    )


def _median_ms(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return 1e3 * float(np.median(times))
