"""The benchmark of growth measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import graphs_scale
from scikd.graphs import GraphSet, load_molecules
from scikd.graphs.refinement import ColorRefinement


@pytest.fixture(autouse=True)
def _embedded_molecules(monkeypatch):
    base = load_molecules()
    monkeypatch.setattr(graphs_scale, "molecules", lambda: base)
    return base


def test_molecules_are_repeated_with_few_atoms_changed():
    parts = [make() for make in graphs_scale.shards(12_000)]
    assert [len(part) for part in parts] == [10_000, 2_000]
    base = load_molecules()
    whole = base.select(np.arange(12_000) % len(base))
    for part, expected in zip(
        parts, (whole.select(np.arange(10_000)), whole.select(np.arange(10_000, 12_000))),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(part.y, expected.y)
        np.testing.assert_array_equal(part.sources, expected.sources)
        differs = (part.node_features != expected.node_features).any(axis=1).mean()
        assert 0 < differs < 1.2 * graphs_scale.CHANGED
    again = graphs_scale.shards(12_000)[1]()
    np.testing.assert_array_equal(again.node_features, parts[1].node_features)


def test_distinct_trees_are_counted_through_all_shards(monkeypatch):
    pytest.importorskip("torch_geometric")
    monkeypatch.setattr(graphs_scale, "IN_A_SHARD", 100)
    parts = [make().to_pyg() for make in graphs_scale.shards(350)]
    refinement = ColorRefinement(graphs_scale.N_HOPS)
    refinement.fit(GraphSet.from_pyg([data for part in parts for data in part]))
    expected = refinement.trees_.n_trees(graphs_scale.N_HOPS)
    assert graphs_scale.distinct_trees(350) == expected


def test_growth_is_the_slope_of_the_logarithms(monkeypatch):
    def measure(way, size):
        found = {"seconds": 2e-4 * size, "MiB": 80.0, "nodes": 30.0 * size, "reading": 1.0}
        return found | {"trees": size**0.5} if way == "shards" else found

    monkeypatch.setattr(graphs_scale, "measure", measure)
    rows = {made["name"]: made for made in graphs_scale.run(quick=False)}
    for key, exponent in (("seconds", 1.0), ("MiB", 0.0), ("trees", 0.5)):
        grown = rows[f"growth of {key}, exponent of the number of molecules"]
        assert grown["value"] == pytest.approx(exponent, abs=1e-9)
    assert rows["10,000 molecules, time"]["ratio"] == 1.0
    assert rows["1,000,000 molecules, time"]["peer"] is None
    assert rows["100,000 molecules, time per 10^6 nodes"]["value"] == pytest.approx(2e2 / 30)


def test_both_ways_are_measured_in_a_process_of_their_own():
    ours, peer = (graphs_scale.measure(way, 300) for way in ("shards", "at once"))
    assert ours["nodes"] == peer["nodes"] > 300
    assert min(ours["seconds"], peer["seconds"], ours["reading"], ours["MiB"]) > 0
    assert ours["trees"] > 1
