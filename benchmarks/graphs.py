"""How fast trees are told apart, distilled and trained on, one thread.

Telling apart stands beside trees written out in Python, as the published code does, on at most
5,000 graphs and scaled to all, and beside torch_geometric's ``WLConv``, which ignores features of
arcs. A training step (GIN, 32 channels, forward and backward, all graphs at once) stands beside the
same model on the graphs themselves. molbace and NCI1 need outside data (SCIKD_DATA), HIV RDKit too;
with neither, the embedded molecules are used. ``--quick`` takes a part of each.

What distilled graphs are worth is in ``graphs-accuracy``, how it grows in ``graphs-scale``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch
from torch_geometric.nn import WLConv

from benchmarks._plain_trees import count_distinct
from benchmarks.harness import DATA, Row, alternate, row, timed_row
from scikd.graphs import load_molecules
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.graphset import GraphSet
from scikd.graphs.mirage import Mirage
from scikd.graphs.models import ClassifierSettings, GraphClassifier
from scikd.graphs.readers import read_ogb, read_smiles, read_tu_text
from scikd.graphs.refinement import ColorRefinement

__all__ = ["run"]

WRITTEN_OUT = 5_000  # graphs at most whose trees are written out in Python
HIDDEN = 32
REPEATS = 3


def run(quick: bool = False) -> list[Row]:
    """Measure every data set that is there."""
    torch.set_num_threads(1)
    rows = []
    for name, graphs, n_hops in _sets(quick):
        rows += _telling_apart(name, graphs, n_hops)
        rows += _distilling(name, graphs, n_hops)
        rows += _training(name, graphs, n_hops)
    return rows


def _sets(quick: bool) -> Iterator[tuple[str, GraphSet, int]]:
    folder = DATA / "graphs"
    found: list[tuple[str, Callable[[], GraphSet], int]] = []
    if (folder / "ogb" / "ogbg_molbace").is_dir():
        found.append(("molbace", lambda: read_ogb(folder / "ogb" / "ogbg_molbace"), 3))
    if (folder / "tu_text" / "NCI1.txt").is_file():
        found.append(("NCI1", lambda: read_tu_text(folder / "tu_text" / "NCI1.txt"), 2))
    table = folder / "moleculenet" / "hiv.csv"
    if not quick and table.is_file() and find_spec("rdkit") is not None:
        found.append(("HIV", lambda: read_smiles(table, label="HIV_active"), 3))
    for name, read, n_hops in found or [("embedded", load_molecules, 3)]:
        graphs = read()
        # In turns, so that all classes are there.
        part = np.random.default_rng(0).permutation(len(graphs))[: 300 if quick else None]
        yield f"{name} L={n_hops}", graphs.select(part), n_hops


def _telling_apart(name: str, graphs: GraphSet, n_hops: int) -> Iterator[Row]:
    what, refinement = f"{name}, trees told apart", ColorRefinement(n_hops)
    few = graphs.select(range(min(WRITTEN_OUT, len(graphs))))
    assert count_distinct(few, n_hops) == refinement.fit(few)[-1].max() + 1

    def ours() -> None:
        refinement.fit(graphs)

    seconds, written_out = alternate([ours, lambda: count_distinct(few, n_hops)], 5)
    written_out *= graphs.n_nodes / few.n_nodes
    note = f"{len(graphs):,} graphs, {graphs.n_nodes:,} nodes; peer on {len(few):,}"
    yield row(what, seconds, "s", "trees written out", written_out, note=note)
    labels = np.unique(graphs.node_features, axis=0, return_inverse=True)[1].ravel()
    ends = torch.from_numpy(np.stack([graphs.sources, graphs.targets]))

    def peer() -> torch.Tensor:
        states = torch.from_numpy(labels)
        for _ in range(n_hops):
            states = WLConv()(states, ends)
        return states

    if graphs.n_nodes < 200_000:
        n_trees = refinement.trees_.n_trees(n_hops)
        assert graphs.edge_features.shape[1] or len(peer().unique()) == n_trees
        yield timed_row(what, ours, "PyG WLConv", peer, REPEATS)


def _distilling(name: str, graphs: GraphSet, n_hops: int) -> Iterator[Row]:
    for what, options in {
        "Mirage.fit, 20 kB": {"budget": "20kB"},
        "Mirage.fit, support 10 %": {"min_support": 0.1},
        "Mirage.fit, lossless": {"mode": "lossless"},
    }.items():
        mirage = Mirage(n_hops, **options)  # type: ignore[arg-type]
        seconds = alternate([lambda mirage=mirage: mirage.fit(graphs)], REPEATS)[0]  # type: ignore[misc]
        yield row(f"{name}, {what}", seconds, "s", n_bytes=mirage.distilled_.n_bytes)


def _training(name: str, graphs: GraphSet, n_hops: int) -> Iterator[Row]:
    start = time.perf_counter()
    merged = MergedGraphs.of(graphs, n_hops)
    making = time.perf_counter() - start
    batch = Batch.from_data_list(graphs.to_pyg())
    settings = ClassifierSettings(conv="gin", n_layers=n_hops, hidden_channels=HIDDEN)
    torch.manual_seed(0)
    model = GraphClassifier.for_data(graphs, settings)
    assert merged.y is not None
    logits = [model(form).detach() for form in (merged, batch)]
    error = float((logits[0] - logits[1]).abs().max() / logits[1].abs().max())

    def step(form: Any) -> Callable[[], None]:
        def once() -> None:
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(form), merged.y).backward()

        return once

    yield timed_row(
        f"{name}, training step", step(merged), "PyG on graphs", step(batch), REPEATS
    ) | {"note": f"relative difference of logits {error:.1e}; merging took {making:.2g} s"}  # type: ignore[misc]
