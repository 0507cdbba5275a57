"""Subsets of graphs and linear models, against their definitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scikd.exceptions import InvalidInputError
from scikd.graphs.baselines import (
    TreeHistogram,
    fill_budget,
    herding,
    k_center,
    random_order,
    size_model,
    stored_bytes,
    tree_model,
)
from scikd.graphs.distilled import compact
from scikd.graphs.graphset import GraphSet
from tests.reference.graph_trees import canonical, random_graphs

seeds = st.integers(0, 2**32 - 1)


def graphset(arcs, nodes, edges=None, y=None):
    """Return graphs from a list of arcs of each, and features of the nodes of each."""
    sizes = [len(part) for part in nodes]
    starts = np.cumsum([0, *sizes])
    ends = np.array(
        [(a + s, b + s) for part, s in zip(arcs, starts, strict=False) for a, b in part],
        dtype=np.int64,
    ).reshape(-1, 2)
    features = [row for part in edges for row in part] if edges else np.empty((len(ends), 0), int)
    return GraphSet(
        node_ptr=starts,
        arc_ptr=np.cumsum([0, *(len(part) for part in arcs)]),
        sources=ends[:, 0],
        targets=ends[:, 1],
        node_features=np.array([row for part in nodes for row in part]),
        edge_features=np.array(features),
        y=y,
    )


# --------------------------------------------------------------------------------------- bytes


PATH = [(0, 1), (1, 0), (1, 2), (2, 1)]


def test_bytes_of_an_undirected_path_by_hand():
    graphs = graphset([PATH], [[[6], [8], [6]]], [[[1], [1], [2], [2]]], np.array([4]))
    # labels 6 and 8; edge labels 1 and 2; 3 nodes; 2 edges; two ends of each; a label number of
    # each node and of each edge; one class.
    assert stored_bytes(graphs) == 2 + 2 + 1 + 1 + 2 * 2 + 3 + 2 + 1


def test_an_edge_whose_arcs_differ_is_stored_as_two():
    same = graphset([PATH], [[[6], [8], [6]]], [[[1], [1], [2], [2]]])
    other = graphset([PATH], [[[6], [8], [6]]], [[[1], [2], [1], [2]]])
    one_way = graphset([PATH[:1] + PATH[2:3]], [[[6], [8], [6]]], [[[1], [2]]])
    assert stored_bytes(other) == stored_bytes(same) + 2 * (2 + 1)  # two ends and a label
    assert stored_bytes(one_way) == stored_bytes(same)  # two arcs either way


def test_what_is_the_same_everywhere_is_not_numbered():
    bare = graphset([PATH], [[[], [], []]])
    assert stored_bytes(bare) == 1 + 1 + 2 * 2  # nodes, edges, ends
    alike = graphset([PATH], [[[6], [6], [6]]], [[[1], [1], [1], [1]]])
    assert stored_bytes(alike) == stored_bytes(bare) + 1 + 1  # one label of each kind


def test_large_values_take_more_bytes():
    graphs = graphset([[]], [[[0], [0]]])
    for value, width in ((255, 1), (256, 2), (-1, 1), (-129, 2), (2**40, 8), (0.5, 4), (0.1, 8)):
        more = replace(graphs, node_features=np.array([[0], [value]]))
        # two labels in place of one, and their numbers
        assert stored_bytes(more) == stored_bytes(graphs) - 1 + 2 * width + 2


def test_self_loops_and_parallel_arcs_are_kept():
    arcs = [(0, 0), (0, 1), (0, 1), (1, 0), (1, 0)]
    graphs = graphset([arcs], [[[], []]])
    assert stored_bytes(graphs) == 1 + 1 + 3 * 2  # nodes, edges; a loop and two edges


def test_graphs_without_edges_say_that_they_have_none():
    graphs = graphset([PATH, [], []], [[[]] * 3, [[]], [[]]])
    assert stored_bytes(graphs) == 3 + 3 + 2 * 2


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0, 255, "uint8"), (0, 256, "uint16"), (-1, 0, "int8"), (-128, 127, "int8"),
     (-1, 128, "int16"), (-129, 0, "int16"), (0, 2**63 - 1, "uint64"), (-1, 2**63 - 1, "int64")],
)  # fmt: skip
def test_the_smallest_type_that_holds_all_is_taken(low, high, name):
    values = np.array([low, high])
    assert compact(values).dtype == name
    np.testing.assert_array_equal(compact(values), values)


def test_large_floats_are_not_made_integers():
    for large in (1e30, 1e300):
        values = np.array([large, 2.0])
        np.testing.assert_array_equal(compact(values), values)


@given(seeds)
def test_bytes_grow_with_the_graphs(seed):
    graphs = random_graphs(seed, n_graphs=6)
    sizes = [stored_bytes(graphs.select(range(n))) for n in range(1, len(graphs) + 1)]
    assert sizes == sorted(sizes)


@given(seeds, st.integers(1, 120))
def test_a_budget_is_filled_as_far_as_it_goes(seed, budget):
    graphs = random_graphs(seed, n_graphs=8)
    order = np.random.default_rng(seed).permutation(len(graphs))
    least = stored_bytes(graphs.select(order[:1]))
    if budget < least:
        with pytest.raises(InvalidInputError, match=f"at least {least} bytes.*got {budget}"):
            fill_budget(graphs, order, budget)
        return
    taken = fill_budget(graphs, order, budget)
    np.testing.assert_array_equal(taken, order[: len(taken)])
    assert stored_bytes(graphs.select(taken)) <= budget
    if len(taken) < len(order):
        assert stored_bytes(graphs.select(order[: len(taken) + 1])) > budget


def test_nothing_to_take_is_refused():
    with pytest.raises(InvalidInputError, match="Expected graphs to take"):
        fill_budget(random_graphs(0), [], 1000)


# -------------------------------------------------------------------------------------- orders


@given(seeds)
def test_random_order_lets_classes_take_turns(seed):
    y = np.random.default_rng(seed).integers(0, 3, 20)
    order = random_order(y, seed)
    assert sorted(order.tolist()) == list(range(20))
    np.testing.assert_array_equal(order, random_order(y, seed))
    left = Counter(y.tolist())
    place = 0
    while place < 20:
        turn = sorted(label for label, number in left.items() if number)
        assert y[order[place : place + len(turn)]].tolist() == turn
        left.subtract(turn)
        place += len(turn)


def test_random_orders_differ_by_seed():
    y = np.arange(40) % 2
    orders = {tuple(random_order(y, seed).tolist()) for seed in range(5)}
    assert len(orders) == 5


def turns(orders):
    """Let orders take turns."""
    longest = max(map(len, orders))
    return [order[k] for k in range(longest) for order in orders if k < len(order)]


def counted(seed, n=14, width=5):
    random = np.random.default_rng(seed)
    return random.integers(0, 4, (n, width)).astype(float), random.permutation(np.arange(n) % 2)


@given(seeds, st.integers(1, 9))
def test_herding_is_the_greedy_rule(seed, n_graphs):
    features, y = counted(seed)
    found = herding(sparse.csr_array(features), y, n_graphs)
    orders = []
    for label in (0, 1):
        members = np.flatnonzero(y == label).tolist()
        mean = features[members].mean(axis=0)
        taken = []
        for t in range(min(n_graphs, len(members))):
            # Welling 2009: the next is most along (t + 1) means less the sum of those taken.
            wanted = (t + 1) * mean - features[taken].sum(axis=0)
            gains = {g: features[g] @ wanted for g in members if g not in taken}
            best = max(gains.values())
            # rounding may decide between equals, so any of them will do
            equal = [g for g, gain in gains.items() if gain > best - 1e-9]
            own = [g for g in found.tolist() if y[g] == label]
            assert own[t] in equal
            taken.append(own[t])
        orders.append(taken)
    assert found.tolist() == turns(orders)


@given(seeds, st.integers(1, 9))
def test_k_center_takes_what_is_farthest(seed, n_graphs):
    features, y = counted(seed)
    found = k_center(sparse.csr_array(features), y, n_graphs)
    orders = []
    for label in (0, 1):
        members = np.flatnonzero(y == label).tolist()
        own = [g for g in found.tolist() if y[g] == label]
        assert len(own) == len(set(own)) == min(n_graphs, len(members))
        mean = features[members].mean(axis=0)
        distances = {g: ((features[g] - mean) ** 2).sum() for g in members}
        assert distances[own[0]] <= min(distances.values()) + 1e-9
        for t in range(1, len(own)):
            nearest = {
                g: min(((features[g] - features[c]) ** 2).sum() for c in own[:t])
                for g in members
                if g not in own[:t]
            }
            assert nearest[own[t]] == max(nearest.values())
        orders.append(own)
    assert found.tolist() == turns(orders)


# ------------------------------------------------------------------------------- linear models


@settings(max_examples=25)
@given(seeds, st.integers(0, 2))
def test_histogram_counts_trees(seed, n_hops):
    graphs = random_graphs(seed, n_graphs=5)
    others = random_graphs(seed + 1, n_graphs=5)
    histogram = TreeHistogram(n_hops)
    known = histogram.fit_transform(graphs).toarray()
    found = histogram.transform(others).toarray()
    np.testing.assert_array_equal(histogram.transform(graphs).toarray(), known)
    trees = [(depth, *tree) for depth in range(n_hops + 1) for tree in _all(graphs, depth)]
    assert known.shape == found.shape == (5, len(trees))
    assert Counter(map(tuple, np.concatenate([known, found]).T.tolist())) == Counter(
        tuple(map(float, _counts(graphs, depth, tree) + _counts(others, depth, tree)))
        for depth, *tree in trees
    )


def _all(graphs, depth):
    return {canonical(graphs, node, depth) for node in range(graphs.n_nodes)}


def _counts(graphs, depth, tree):
    """Count the nodes of each graph that have a tree."""
    here = [canonical(graphs, node, depth) == tuple(tree) for node in range(graphs.n_nodes)]
    return np.bincount(graphs.graph_of_node[here], minlength=len(graphs)).tolist()


def test_linear_models_learn_what_they_can_see():
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    sizes = np.column_stack([5 + 10 * y + random.integers(0, 3, 60), random.integers(4, 20, 60)])
    assert size_model().fit(sizes, y).score(sizes, y) == 1.0
    counts = sparse.csr_array(np.column_stack([y * 7, random.integers(0, 3, 60)]).astype(float))
    assert tree_model(10.0).fit(counts, y).score(counts, y) == 1.0
