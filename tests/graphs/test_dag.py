"""Merged graphs hold the trees of graphs, and of batches of them, with their numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.refinement import ColorRefinement
from scikd.graphs.sparse import SparseMatrix
from tests.reference.graph_trees import canonical, random_graphs

seeds = st.integers(0, 2**32 - 1)


def written_out(merged, depth, tree):
    """Return a tree as nested tuples, as `canonical` does."""
    label = tree
    for level in reversed(merged.levels[:depth]):
        label = int(level.own.columns[label])
    features = tuple(merged.node_features[label].tolist())
    if merged.degrees is not None:
        features += (int(merged.degrees[label]),)
    if not depth:
        return (features,)
    level = merged.levels[depth - 1]
    children = []
    for entry in range(int(level.pairs.ptr[tree]), int(level.pairs.ptr[tree + 1])):
        pair = level.pairs.columns[entry]
        edge = tuple(merged.edge_features[level.label.columns[pair]].tolist())
        child = written_out(merged, depth - 1, int(level.subtree.columns[pair]))
        children += [(edge, child)] * int(level.pairs.counts[entry])
    return (features, tuple(sorted(children)))


def sets_of(merged):
    """Return the trees of each row of the readout, counted."""
    trees = [written_out(merged, merged.n_hops, t) for t in range(merged.readout.n_columns)]
    assert len(set(trees)) == len(trees)  # each is there once
    found = [Counter() for _ in range(len(merged))]
    for entry, row in enumerate(merged.readout.rows.tolist()):
        found[row][trees[merged.readout.columns[entry]]] += int(merged.readout.counts[entry])
    return found


def expected_sets(graphs, n_hops, *, degrees=False):
    found = [Counter() for _ in range(len(graphs))]
    for node, graph in enumerate(graphs.graph_of_node):
        found[graph][canonical(graphs, node, n_hops, degrees=degrees)] += 1
    return found


def assert_nothing_spare(merged):
    """Check that every row is needed by the layer above, and occurrences add up to the nodes."""
    needed = torch.unique(merged.readout.columns)
    assert len(needed) == merged.readout.n_columns
    for level in reversed(merged.levels):
        assert level.own.n_rows == len(needed)
        assert len(torch.unique(level.pairs.columns)) == level.pairs.n_columns
        needed = torch.unique(torch.cat([level.own.columns, level.subtree.columns]))
        assert len(needed) == level.own.n_columns == level.subtree.n_columns
        keys = torch.stack([level.subtree.columns, level.label.columns])
        assert torch.unique(keys, dim=1).shape == keys.shape
    assert len(needed) == len(merged.node_features)


@given(seeds, st.integers(0, 3), st.booleans())
def test_every_graph_holds_the_trees_around_its_nodes(seed, n_hops, degrees):
    graphs = random_graphs(seed, density=1.5)
    merged = MergedGraphs.of(graphs, n_hops, degrees=degrees)
    assert sets_of(merged) == expected_sets(graphs, n_hops, degrees=degrees)
    assert_nothing_spare(merged)
    assert merged.classes[merged.y.numpy()].tolist() == graphs.y.tolist()
    assert merged.weights.tolist() == [1.0] * len(graphs)
    assert merged.self_loops == bool((graphs.sources == graphs.targets).any())
    trees = ColorRefinement(n_hops, degrees=degrees)
    trees.fit(graphs)
    assert (merged.n_nodes, merged.n_arcs) == (trees.trees_.n_nodes, trees.trees_.n_arcs)


@given(seeds, st.integers(0, 3), st.lists(st.integers(-6, 5), max_size=8))
def test_a_batch_is_some_of_the_graphs(seed, n_hops, rows):
    graphs = random_graphs(seed, n_graphs=6, density=1.5)
    batch = MergedGraphs.of(graphs, n_hops).batch(rows)
    expected = expected_sets(graphs, n_hops)
    assert sets_of(batch) == [expected[row] for row in rows]
    assert batch.classes[batch.y.numpy()].tolist() == graphs.y[rows].tolist()
    assert_nothing_spare(batch)


@given(seeds, st.integers(0, 3))
def test_cut_trees_are_those_of_fewer_hops(seed, n_hops):
    graphs = random_graphs(seed, density=1.5)
    merged = MergedGraphs.of(graphs, 3).truncate(n_hops)
    assert sets_of(merged) == expected_sets(graphs, n_hops)
    assert_nothing_spare(merged)


@given(seeds)
def test_a_hop_is_worth_the_degrees(seed):
    graphs = random_graphs(seed, density=1.5)
    merged = MergedGraphs.of(graphs, 3).with_degrees()
    known = MergedGraphs.of(graphs, 2, degrees=True)
    assert merged.with_degrees() is merged
    degrees = [m.degrees for m in (merged, known)]
    assert all(d is not None for d in degrees)
    for level in merged.levels:
        below = level.degrees_below
        torch.testing.assert_close(below[level.own.columns], level.degrees)
    # as sets of trees whose label holds the degree, though more trees may be told apart
    expected = expected_sets(graphs, 2, degrees=True)
    for row, counted in zip(range(len(merged)), expected, strict=True):
        found = Counter()
        for entry in range(int(merged.readout.ptr[row]), int(merged.readout.ptr[row + 1])):
            tree = written_out(merged, 2, int(merged.readout.columns[entry]))
            found[tree] += int(merged.readout.counts[entry])
        assert found == counted


@given(seeds)
def test_occurrences_count_nodes(seed):
    graphs = random_graphs(seed)
    refinement = ColorRefinement(2)
    colors = refinement.fit(graphs)
    merged = MergedGraphs.of(graphs, 2)
    for depth, found in enumerate(merged.occurrences):
        expected = np.bincount(colors[depth], minlength=refinement.trees_.n_trees(depth))
        assert found.tolist() == expected.tolist()
    rows = [1, 1]
    assert merged.batch(rows).occurrences[1].sum() == 2 * np.diff(graphs.node_ptr)[1]


def test_sets_keep_their_weights():
    graphs = random_graphs(0)
    refinement = ColorRefinement(1)
    refinement.fit(graphs)
    merged = MergedGraphs.from_trees(
        refinement.trees_,
        set_ptr=np.array([0, 2, 3]),
        roots=np.array([0, 1, 1]),
        counts=np.array([1, 5, 2]),
        y=np.array([1, 0]),
        weights=np.array([0.25, 4.0]),
    )
    batch = merged.batch(np.array([1, 0]))
    assert batch.weights.tolist() == [4.0, 0.25]
    assert batch.y.tolist() == [0, 1]
    assert sorted(sets_of(batch)[1].values()) == [1, 5]
    assert sets_of(batch)[0].total() == 2


def test_a_batch_can_be_asked_for_by_a_mask():
    merged = MergedGraphs.of(random_graphs(0), 1)
    wanted = np.array([False, True, False, True])
    assert sets_of(merged.batch(wanted)) == sets_of(merged.batch(torch.tensor([1, 3])))


def test_classes_can_be_given():
    graphs = replace(random_graphs(0), y=np.array(["b", "a", "b", "b"]))
    assert MergedGraphs.of(graphs, 1).y.tolist() == [1, 0, 1, 1]
    merged = MergedGraphs.of(graphs, 1, classes=["z", "b", "a"])
    assert merged.y.tolist() == [1, 2, 1, 1]
    assert MergedGraphs.of(replace(graphs, y=None), 1).y is None


def test_faulty_input_is_refused():
    graphs = random_graphs(0)
    merged = MergedGraphs.of(graphs, 1)
    for rows in ([0, 4], [-5], [0.5], [[0]], [True]):
        with pytest.raises(InvalidInputError, match="graphs from 0 to 3, or 4 times bool; got"):
            merged.batch(rows)
    with pytest.raises(InvalidInputError, match="from 0 to 1, the depth"):
        merged.truncate(2)
    with pytest.raises(InvalidInputError, match="depth 1 or more"):
        merged.truncate(0).with_degrees()
    with pytest.raises(InvalidInputError, match="1 of 4 have none"):
        MergedGraphs.of(replace(graphs, y=np.array([0.0, 1.0, np.nan, 1.0])), 1)
    with pytest.raises(InvalidInputError, match=r"among \['b'\]; got \['a'\] too"):
        MergedGraphs.of(replace(graphs, y=np.array(["b", "a", "b", "b"])), 1, classes=["b"])
    with pytest.raises(InvalidInputError, match="on meta"):
        merged.to("meta").batch([0])
    refinement = ColorRefinement(1)
    refinement.fit(graphs)
    with pytest.raises(InvalidInputError) as raised:
        MergedGraphs.from_trees(
            refinement.trees_, [0, 1, 3], [0, 999], [1], y=[1], weights=[1.0, 2.0, 3.0]
        )
    for part in ("y of length 1", "weights of length 3", "counts of length 1", "999", "to 3 inst"):
        assert part in str(raised.value)


@given(seeds, st.booleans(), st.booleans())
def test_a_sparse_matrix_is_a_matrix(seed, one_each, counted):
    random = np.random.default_rng(seed)
    n_rows, n_columns = random.integers(0, 6), random.integers(1, 7)
    many = np.ones(n_rows, int) if one_each else random.integers(0, 4, n_rows)
    columns = torch.tensor(random.integers(0, n_columns, many.sum()))
    counts = torch.tensor(random.integers(1, 4, many.sum())) if counted else None
    ptr = None if one_each and not counted else torch.tensor(np.concatenate([[0], np.cumsum(many)]))
    sparse = SparseMatrix(columns, int(n_columns), ptr, counts)
    dense = torch.zeros(int(n_rows), int(n_columns), dtype=torch.float64)
    for entry, row in enumerate(np.repeat(np.arange(n_rows), many)):
        dense[row, columns[entry]] += 1 if counts is None else counts[entry]
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(random.normal(size=(n_columns, 2, 3)), dtype=dtype)
        torch.testing.assert_close(sparse @ x, torch.einsum("rc,cab->rab", dense.to(dtype), x))
    z = torch.tensor(random.normal(size=(n_rows, 2)))
    torch.testing.assert_close(sparse.transposed @ z, dense.T @ z)
    torch.testing.assert_close(sparse.transposed.transposed @ x.double(), sparse @ x.double())
    assert sparse.sums.tolist() == dense.sum(1).tolist()
    flat = x[:, 0]
    found = sparse.maximum(flat)
    for row in range(n_rows):
        held = flat[dense[row] > 0]
        assert found[row].tolist() == (held.amax(0) if len(held) else flat[0] * 0).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_all_is_the_same():
    merged = MergedGraphs.of(random_graphs(0, n_graphs=40), 2)
    there = merged.to("cuda")
    for here, away in zip(merged.levels, there.levels, strict=True):
        for name in ("own", "pairs", "subtree", "label", "subtrees", "labels"):
            one, other = getattr(here, name), getattr(away, name)
            x, z = torch.randn(one.n_columns, 4), torch.randn(one.n_rows, 4)
            torch.testing.assert_close((other @ x.cuda()).cpu(), one @ x)
            torch.testing.assert_close((other.transposed @ z.cuda()).cpu(), one.transposed @ z)
    for one, other in zip(merged.occurrences, there.occurrences, strict=True):
        torch.testing.assert_close(one, other.cpu())
