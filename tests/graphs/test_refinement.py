"""Numbers of trees are equal exactly where the trees are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.graphs.graphset import GraphSet
from scikd.graphs.refinement import ColorRefinement, supports
from scikd.graphs.trees import truncate
from tests.reference.graph_trees import canonical, canonical_of, n_tree_nodes, random_graphs

seeds = st.integers(0, 2**32 - 1)


def one_to_one(numbers, things):
    """Say whether two namings tell the same things apart."""
    pairs = set(zip(numbers, things, strict=True))
    return len(pairs) == len(set(numbers)) == len(set(things))


def star(n_leaves, label=0):
    """Return a centre with leaves, each of which sends to it and hears from it."""
    leaves, centre = np.arange(1, n_leaves + 1), np.zeros(n_leaves, np.int64)
    return GraphSet(
        node_ptr=np.array([0, n_leaves + 1]),
        arc_ptr=np.array([0, 2 * n_leaves]),
        sources=np.concatenate([leaves, centre]),
        targets=np.concatenate([centre, leaves]),
        node_features=np.full((n_leaves + 1, 1), label),
        edge_features=np.empty((2 * n_leaves, 0), np.int64),
    )


@given(seeds, st.integers(0, 3), st.booleans(), st.sampled_from([0.5, 1.5, 6.0]))
def test_numbers_are_those_of_the_trees_written_out(seed, n_hops, degrees, density):
    graphs = random_graphs(seed, density=density)
    refinement = ColorRefinement(n_hops, degrees=degrees)
    colors = refinement.fit(graphs)
    assert colors.shape == (n_hops + 1, graphs.n_nodes)
    for depth in range(n_hops + 1):
        trees = [canonical(graphs, v, depth, degrees=degrees) for v in range(graphs.n_nodes)]
        assert one_to_one(colors[depth].tolist(), trees)
        # first sight: a number appears only after all smaller ones
        assert (np.maximum.accumulate(colors[depth]) - colors[depth] >= 0).all()
        assert (np.diff(np.maximum.accumulate(colors[depth]), prepend=-1) <= 1).all()


@given(seeds, st.booleans())
def test_what_is_stored_of_a_tree_is_the_tree(seed, degrees):
    graphs = random_graphs(seed, density=2.0)
    refinement = ColorRefinement(2, degrees=degrees)
    colors = refinement.fit(graphs)
    trees = refinement.trees_
    for node in range(graphs.n_nodes):
        expected = canonical(graphs, node, 2, degrees=degrees)
        unfolded = trees.unfold(int(colors[2, node]))
        assert canonical_of(trees, unfolded) == expected
        assert len(unfolded.labels) == n_tree_nodes(expected) == trees.sizes()[2][colors[2, node]]
    above = trees.ancestors(2, colors[2])
    np.testing.assert_array_equal(above, colors)


@given(seeds, seeds)
def test_known_trees_are_found_again_and_others_are_not(seed, other):
    graphs, further = random_graphs(seed, n_graphs=6), random_graphs(other, n_graphs=6)
    refinement = ColorRefinement(2)
    colors = refinement.fit(graphs)
    np.testing.assert_array_equal(refinement.transform(graphs), colors)
    found = refinement.transform(further)
    for depth in range(3):
        names = {canonical(graphs, v, depth): c for v, c in enumerate(colors[depth].tolist())}
        expected = [names.get(canonical(further, v, depth), -1) for v in range(further.n_nodes)]
        assert found[depth].tolist() == expected


@given(seeds, st.integers(0, 2))
def test_numbers_depend_neither_on_the_order_of_arcs_nor_on_names_of_nodes(seed, n_hops):
    graphs = random_graphs(seed, n_graphs=1, largest=8, density=2.0)
    random = np.random.default_rng(seed)
    nodes, arcs = random.permutation(graphs.n_nodes), random.permutation(graphs.n_arcs)
    place = np.argsort(nodes)
    shuffled = GraphSet(
        node_ptr=graphs.node_ptr,
        arc_ptr=graphs.arc_ptr,
        sources=place[graphs.sources[arcs]],
        targets=place[graphs.targets[arcs]],
        node_features=graphs.node_features[nodes],
        edge_features=graphs.edge_features[arcs],
    )
    refinement = ColorRefinement(n_hops)
    colors = refinement.fit(graphs)
    np.testing.assert_array_equal(refinement.transform(shuffled), colors[:, nodes])


@given(seeds, st.integers(1, 3))
def test_dropping_what_is_rare_drops_no_frequent_tree(seed, least):
    graphs = random_graphs(seed, n_graphs=8, n_labels=1, n_edge_labels=1)
    whole, pruned = ColorRefinement(3), ColorRefinement(3)
    colors = whole.fit(graphs)
    fewer = pruned.fit(graphs, graphs.y, np.array([least, least]))
    counts = supports(colors[3], graphs, graphs.y, whole.trees_.n_trees(3), 2)
    frequent = counts.max(axis=0)[colors[3]] >= least  # in either class: it is kept in both
    assert (fewer[3][frequent] >= 0).all()
    assert one_to_one(colors[3][fewer[3] >= 0].tolist(), fewer[3][fewer[3] >= 0].tolist())


@given(seeds)
def test_supports_count_graphs_and_not_nodes(seed):
    graphs = random_graphs(seed, n_graphs=6)
    refinement = ColorRefinement(1)
    colors = refinement.fit(graphs)[1]
    found = supports(colors, graphs, graphs.y, refinement.trees_.n_trees(1), 2)
    for color in range(found.shape[1]):
        holders = np.unique(graphs.graph_of_node[colors == color])
        assert found[:, color].tolist() == [int((graphs.y[holders] == k).sum()) for k in (0, 1)]


@given(seeds, st.integers(0, 3))
def test_some_trees_are_the_same_trees(seed, n_hops):
    graphs = random_graphs(seed, density=1.5)
    refinement = ColorRefinement(2)
    colors = refinement.fit(graphs)
    chosen = np.random.default_rng(seed).choice(graphs.n_nodes, 3)
    fewer, roots = refinement.trees_.restrict(colors[2, chosen])
    cut, cut_roots = truncate(refinement.trees_, colors[2, chosen], min(n_hops, 2))
    assert fewer.n_trees(2) == len(set(colors[2, chosen].tolist()))
    for node, root, cut_root in zip(chosen, roots, cut_roots, strict=True):
        assert canonical_of(fewer, fewer.unfold(int(root))) == canonical(graphs, node, 2)
        depth = min(n_hops, 2)
        assert canonical_of(cut, cut.unfold(int(cut_root))) == canonical(graphs, node, depth)
    used = np.concatenate([level.edge for level in fewer.levels])
    assert set(used.tolist()) == set(range(len(fewer.edge_labels)))


def test_more_trees_than_a_small_table_holds_are_told_apart():
    graphs = random_graphs(0, n_graphs=600, n_labels=60)
    colors = ColorRefinement(1).fit(graphs)
    for depth in range(2):
        trees = [canonical(graphs, node, depth) for node in range(graphs.n_nodes)]
        assert len(set(trees)) > 1024
        assert one_to_one(colors[depth].tolist(), trees)


def test_many_children_are_sorted_and_counted():
    graphs = star(100)
    refinement = ColorRefinement(2)
    refinement.fit(graphs)
    assert [refinement.trees_.n_trees(depth) for depth in range(3)] == [1, 2, 2]
    assert sorted(refinement.trees_.levels[0].count.tolist()) == [1, 100]
    assert max(refinement.trees_.sizes()[2]) == 201


@pytest.mark.parametrize("n_leaves", [3, 16, 17, 40])
def test_different_children_are_the_same_in_any_order(n_leaves):
    plain = star(n_leaves)
    labels = np.arange(n_leaves + 1)[:, None]
    other = np.concatenate([[0], np.random.default_rng(0).permutation(n_leaves) + 1])
    refinement = ColorRefinement(2)
    colors = refinement.fit(replace(plain, node_features=labels))
    found = refinement.transform(replace(plain, node_features=labels[other]))
    np.testing.assert_array_equal(found, colors[:, other])


def test_auto_goes_on_until_nothing_more_is_told_apart_or_frequent():
    path = GraphSet(
        node_ptr=np.array([0, 7]),
        arc_ptr=np.array([0, 12]),
        sources=np.concatenate([np.arange(6), np.arange(1, 7)]),
        targets=np.concatenate([np.arange(1, 7), np.arange(6)]),
        node_features=np.zeros((7, 1), np.int64),
        edge_features=np.empty((12, 0), np.int64),
    )
    refinement = ColorRefinement("auto")
    colors = refinement.fit(path, np.zeros(1, np.int64), np.array([1]))
    assert len(set(colors[-1].tolist())) == 4  # places on a path, counted from its ends
    assert refinement.trees_.n_hops == 3
    refinement.fit(path, np.zeros(1, np.int64), np.array([2]))
    assert refinement.trees_.n_hops == 0
    with pytest.raises(InvalidInputError, match="'auto' stops where no tree is frequent"):
        ColorRefinement("auto").fit(path)


def test_whole_numbers_are_equal_to_floats():
    graphs = star(3)
    floats = GraphSet(
        graphs.node_ptr, graphs.arc_ptr, graphs.sources, graphs.targets,
        graphs.node_features * -0.0, graphs.edge_features.astype(float),
    )  # fmt: skip
    refinement = ColorRefinement(2)
    np.testing.assert_array_equal(refinement.fit(graphs), refinement.transform(floats))


def test_integers_that_floats_do_not_tell_apart_are_refused():
    ColorRefinement(1).fit(star(3, label=-(2**53)))
    with pytest.raises(InvalidInputError, match="Expected integer features below 2"):
        ColorRefinement(1).fit(star(3, label=2**53 + 1))


def test_other_numbers_of_features_are_refused():
    refinement = ColorRefinement(1)
    refinement.fit(random_graphs(0))
    with pytest.raises(InvalidInputError, match="Expected 2 features of nodes.*got 1"):
        refinement.transform(star(2))
    for wrong in (-1, 2.0, "many"):
        with pytest.raises(InvalidInputError, match="n_hops to be an integer of at least 0"):
            ColorRefinement(wrong)


def test_a_tree_too_large_to_write_out_is_refused():
    graphs = star(100)
    refinement = ColorRefinement(9)
    colors = refinement.fit(graphs)
    with pytest.raises(InvalidInputError, match="nodes when written out, more than 50,000,000"):
        refinement.trees_.unfold(int(colors[9, 0]))
    with pytest.raises(InvalidInputError, match="n_hops from 0 to 9"):
        truncate(refinement.trees_, colors[9], 10)


@pytest.mark.parametrize(("folder", "n_trees"), [("ogb/ogbg_molbace", 8015)])
def test_molbace_has_as_many_trees_as_canonical_strings_say(scikd_data, folder, n_trees):
    readers = pytest.importorskip("scikd.graphs.readers")
    graphs = readers.read_ogb(scikd_data(f"graphs/{folder}"))
    train = readers.read_ogb_split(scikd_data(f"graphs/{folder}"))["train"]
    refinement = ColorRefinement(3)
    colors = refinement.fit(graphs.select(train))
    assert refinement.trees_.n_trees(3) == n_trees == colors[3].max() + 1
