"""How time and memory of distillation in shards grow with the number of molecules.

The molecules are those of ogbg-molbace, or the embedded ones where it is not in SCIKD_DATA, over
and over, with one atom in a hundred replaced by another at random, so that new trees keep coming.
They are made as they are read, ten thousand at a time. One worker; each size in a fresh process.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.harness import DATA, Row, peak_rss, row
from scikd.graphs import load_molecules
from scikd.graphs._union import merge
from scikd.graphs.graphset import GraphSet
from scikd.graphs.mirage import Mirage
from scikd.graphs.readers import read_ogb
from scikd.graphs.refinement import ColorRefinement

__all__ = ["run"]

SIZES = {True: (1_000, 10_000), False: (10_000, 100_000, 1_000_000)}
AT_ONCE = 100_000  # the most that are also distilled all at once
IN_A_SHARD = 10_000
CHANGED = 0.01
N_HOPS = 3


def run(quick: bool) -> list[Row]:
    """Distil so many molecules in shards, and at once; 15 minutes, or a few seconds if quick."""
    rows, sizes = [], SIZES[quick]
    ways: dict[str, list[dict[str, float]]] = {"shards": [], "at once": []}
    for size in sizes:
        for way, found in ways.items():
            if way == "shards" or size <= AT_ONCE:
                found.append(measure(way, size))
        ours = ways["shards"][-1]
        peer = ways["at once"][-1] if size <= AT_ONCE else {}
        name = f"{size:,} molecules"
        note = f"{ours['nodes']:,.0f} nodes; reading takes {ours['reading']:.2g} s of it"
        for key, unit in (("seconds", "s"), ("MiB", "MiB")):
            what = f"{name}, {'time' if key == 'seconds' else 'peak memory'}"
            made = row(what, ours[key], unit, "at once" if peer else None, peer.get(key))
            rows.append({**made, "note": note} if key == "seconds" else made)
        rate = 1e6 * ours["seconds"] / ours["nodes"]
        rows.append(row(f"{name}, time per 10^6 nodes", rate, "s"))
        rows.append(row(f"{name}, distinct trees", ours["trees"], "trees"))
    for key in ("seconds", "MiB", "trees"):
        values = [found[key] for found in ways["shards"]]
        slope = float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
        rows.append(row(f"growth of {key}, exponent of the number of molecules", slope, ""))
    return rows


def measure(way: str, size: int) -> dict[str, float]:
    """Distil in a fresh process, and return seconds, peak memory and counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "measured.json")
        n_bytes = peak_rss("benchmarks.graphs_scale:prepare", way, size, str(path))
        measured: dict[str, float] = json.loads(path.read_text())
    measured["MiB"] = n_bytes / 2**20
    if way == "shards":
        measured["trees"] = distinct_trees(size)
    return measured


def prepare(way: str, size: int, path: str) -> Callable[[], object]:
    """Load and compile, and return what is to be measured."""
    Mirage(N_HOPS).fit_shards([partial(shard, 0, 500)])
    distil = {"shards": _in_shards, "at once": _at_once}[way]
    return lambda: Path(path).write_text(json.dumps(distil(size)))


def _in_shards(size: int) -> dict[str, float]:
    start = time.perf_counter()
    mirage = Mirage(N_HOPS).fit_shards(shards(size))
    stop = time.perf_counter()
    shard(0, min(size, IN_A_SHARD))
    n_reads = 3 * len(shards(size))
    return {
        "seconds": stop - start,
        "reading": n_reads * (time.perf_counter() - stop),
        "nodes": mirage.distilled_.provenance["nodes"],
    }


def _at_once(size: int) -> dict[str, float]:
    start = time.perf_counter()
    mirage = Mirage(N_HOPS).fit(shard(0, size))
    return {
        "seconds": time.perf_counter() - start,
        "nodes": mirage.distilled_.provenance["nodes"],
    }


def distinct_trees(size: int) -> int:
    """Count the distinct trees of all molecules, frequent or not."""
    known, refinement = [], ColorRefinement(N_HOPS)
    for part in shards(size):
        refinement.fit(part())
        known.append(refinement.trees_)
        # Merged when there is as much of the new as of the old, so that work stays linear.
        if sum(trees.n_trees(N_HOPS) for trees in known[1:]) > known[0].n_trees(N_HOPS):
            known = [merge(known)]
    return merge(known).n_trees(N_HOPS)


def shards(size: int) -> list[Callable[[], GraphSet]]:
    """Return functions that each make ten thousand molecules."""
    starts = range(0, size, IN_A_SHARD)
    return [partial(shard, start, min(IN_A_SHARD, size - start)) for start in starts]


@cache
def molecules() -> GraphSet:
    """Return the molecules that are repeated."""
    folder = DATA / "graphs" / "ogb" / "ogbg_molbace"
    return read_ogb(folder) if folder.exists() else load_molecules()


def shard(start: int, size: int) -> GraphSet:
    """Make molecules ``start`` to ``start + size`` of an endless row."""
    base = molecules()
    graphs = base.select(np.arange(start, start + size) % len(base))
    random = np.random.default_rng(start)
    changed = np.flatnonzero(random.random(graphs.n_nodes) < CHANGED)
    features = graphs.node_features.copy()
    features[changed] = base.node_features[random.integers(base.n_nodes, size=len(changed))]
    return replace(graphs, node_features=features, smiles=None)
