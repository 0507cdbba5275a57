"""What is distilled shard by shard is what is distilled at once."""

from __future__ import annotations

from dataclasses import replace

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.graphs._union import merge, reorder
from scikd.graphs.mirage import Mirage
from scikd.graphs.preparation import Preparation
from scikd.graphs.refinement import ColorRefinement
from tests.reference.graph_trees import canonical, canonical_of, random_graphs

seeds = st.integers(0, 2**32 - 1)


class Part:
    """A shard that reads some of the graphs, and counts how often it is asked."""

    def __init__(self, graphs, chosen):
        self.graphs, self.chosen, self.reads = graphs, chosen, 0

    def __call__(self):
        self.reads += 1
        return self.graphs.select(self.chosen)


def labelled(seed, n_graphs=60, **options):
    graphs = random_graphs(seed, n_graphs=n_graphs, **options)
    y = np.random.default_rng(seed).permutation(np.arange(n_graphs) % 2)
    return replace(graphs, y=np.array(["no", "yes"])[y], name="random")


def split(graphs, seed):
    """Return up to five shards of random sizes."""
    random = np.random.default_rng(seed)
    cuts = random.choice(np.arange(1, len(graphs)), random.integers(0, 5), replace=False)
    return [Part(graphs, part) for part in np.split(np.arange(len(graphs)), np.sort(cuts))]


def assert_same(found, expected):
    """Every array is equal, numbers of trees and order of sets included."""
    for name in ("classes_", "min_support_", "coverage_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    one, other = found.distilled_, expected.distilled_
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in other.arrays.items():
        np.testing.assert_array_equal(one.arrays[name], values, err_msg=name)
    assert one.trees.labels.dtype == other.trees.labels.dtype
    assert one.trees.self_loops == other.trees.self_loops
    assert one.preparation.describe() == other.preparation.describe()
    origins = [dict(part.provenance) for part in (one, other)]
    assert origins[0].pop("shards") >= 1
    assert origins[0].pop("sha256") != origins[1].pop("sha256")
    assert origins[0] == origins[1]


def assert_same_or_both_refused(mirage, graphs, shards, **how):
    try:
        expected = Mirage(**mirage).fit(graphs)
    except InvalidInputError as error:
        expected = error
    if isinstance(expected, InvalidInputError):
        # The words before what only a fit on all graphs can say.
        with pytest.raises(InvalidInputError, match=str(expected)[:30].split("(")[0]):
            Mirage(**mirage).fit_shards(shards, **how)
    else:
        assert_same(Mirage(**mirage).fit_shards(shards, **how), expected)


options = st.fixed_dictionaries(
    {
        "n_hops": st.integers(0, 3),
        "itemsets": st.sampled_from(["closed", "maximal", "all"]),
        "multiplicity": st.booleans(),
        "degrees": st.booleans(),
        "min_support": st.sampled_from([None, 6, 0.15, 0.3]),
        "budget": st.sampled_from([None, 150, 300, 600]),
        "contrast": st.sampled_from([None, None, 1.1]),
    }
)


@settings(max_examples=100)
@given(seeds, options, st.integers(1, 3), st.floats(0.5, 1.5))
def test_the_result_is_that_of_all_graphs_at_once(seed, mirage, n_labels, density):
    graphs = labelled(seed, n_labels=n_labels, n_edge_labels=n_labels, largest=4, density=density)
    assert_same_or_both_refused(mirage, graphs, split(graphs, seed))


@settings(max_examples=25)
@given(seeds, st.integers(0, 2))
def test_so_it_is_in_published_mode(seed, n_hops):
    graphs = labelled(seed, n_labels=1, n_edge_labels=2, largest=3)
    mirage = {"n_hops": n_hops, "mode": "published", "min_support": 7}
    assert_same_or_both_refused(mirage, graphs, split(graphs, seed))


@given(seeds, st.integers(0, 2), st.booleans())
def test_equal_trees_of_several_collections_become_one(seed, n_hops, degrees):
    parts = [random_graphs(seed + shift, n_graphs=3, n_labels=1) for shift in range(3)]
    found = []
    for graphs in parts:
        refinement = ColorRefinement(n_hops, degrees=degrees)
        refinement.fit(graphs)
        found.append(refinement.trees_)
    trees = merge(found)
    expected = {
        canonical(graphs, node, n_hops, degrees=degrees)
        for graphs in parts
        for node in range(graphs.n_nodes)
    }
    written = [canonical_of(trees, trees.unfold(tree)) for tree in range(trees.n_trees(n_hops))]
    assert len(written) == len(expected)
    assert set(written) == expected
    random = np.random.default_rng(seed)
    orders = [random.permutation(trees.n_trees(depth)) for depth in range(n_hops + 1)]
    shuffled, numbers = reorder(trees, orders, random.permutation(len(trees.edge_labels)))
    again = [canonical_of(shuffled, shuffled.unfold(int(tree))) for tree in numbers]
    assert again == written
    assert numbers[orders[-1]].tolist() == list(range(len(written)))
    for level in shuffled.levels:  # rows ascend
        keys = level.edge.astype(np.int64) << 32 | level.child
        within = np.diff(level.parent) == 0
        assert (np.diff(keys)[within] > 0).all()


@pytest.fixture(scope="module")
def graphs():
    return labelled(3, n_graphs=120, n_labels=2, n_edge_labels=2, density=1.5)


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize("budget", [None, "1kB"])
def test_workers_give_the_same(graphs, backend, budget):
    expected = Mirage(2, budget=budget).fit(graphs)
    shards = split(graphs, 8)
    assert len(shards) > 2
    assert_same(Mirage(2, budget=budget).fit_shards(shards, n_jobs=2), expected)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert_same(Mirage(2, budget=budget).fit_shards(shards), expected)


def test_a_shard_is_read_as_often_as_said_and_by_itself(graphs):
    shards = split(graphs, 8)
    Mirage(2, min_support=0.1).fit_shards(shards)
    assert [shard.reads for shard in shards] == [3] * len(shards)
    Mirage(2, budget="3kB").fit_shards(shards)
    assert {shard.reads for shard in shards} <= {3 + 1 + 2 * rounds for rounds in range(1, 4)}


def test_classes_that_a_shard_lacks_are_found_in_others(graphs):
    order = np.argsort(graphs.y, kind="stable")
    shards = [Part(graphs, part) for part in np.split(order, [30, 60])]
    mirage = Mirage(1, min_support={"no": 6, "yes": 0.2})
    assert_same(mirage.fit_shards(shards), Mirage(**mirage.get_params()).fit(graphs.select(order)))


def test_bins_are_learnt_on_a_sample_and_passed(graphs):
    random = np.random.default_rng(0)
    features = np.column_stack([graphs.node_features[:, 0], random.normal(size=graphs.n_nodes)])
    measured = replace(graphs, node_features=features)
    shards = split(measured, 8)
    with pytest.raises(InvalidInputError, match=r"\['node feature 1'\] are none.*preparation="):
        Mirage(1, min_support=3).fit_shards(shards)
    bins = Preparation.of(measured, 2)
    found = Mirage(1, min_support=3, bins=2).fit_shards(shards, preparation=bins)
    assert_same(found, Mirage(1, min_support=3, bins=2).fit(measured))


def test_nodes_without_features_are_labelled_by_their_degree(graphs):
    same = replace(graphs, node_features=np.full((graphs.n_nodes, 1), 7))
    found = Mirage(2, min_support=0.1).fit_shards(split(same, 8))
    assert found.distilled_.preparation.degree_label
    assert_same(found, Mirage(2, min_support=0.1).fit(same))
    # the same within each shard is not the same in all
    shards = [Part(same, np.arange(60)), Part(same, np.arange(60, 120))]
    shards[1].graphs = replace(same, node_features=same.node_features + 1)
    assert not Mirage(2).fit_shards(shards).distilled_.preparation.degree_label


def test_data_sets_of_torch_geometric_are_taken(graphs):
    pytest.importorskip("torch_geometric")
    numbers = replace(graphs, y=(graphs.y == "yes").astype(np.int64), name="")
    shards = [numbers.select(np.arange(50)).to_pyg, numbers.select(np.arange(50, 120)).to_pyg]
    assert_same(Mirage(1).fit_shards(shards), Mirage(1).fit(numbers))


def test_what_shards_cannot_do_is_refused(graphs):
    shards = split(graphs, 8)
    for options, message in (
        ({"n_hops": "auto"}, "a number of hops.*got n_hops='auto'"),
        ({"mode": "lossless"}, "other than 'lossless'"),
        ({"n_hops": -1}, "n_hops to be an integer"),
        ({"min_support": 0}, "min_support of class 'no' from 1 to 60"),
        ({"n_hops": 20, "min_support": 1.0}, "a tree of 20 hops in at least 60 of the 60 graphs"),
        ({"budget": 10}, "budget of at least [0-9]+ bytes.*got 10"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Mirage(**options).fit_shards(shards)


def test_shards_that_do_not_go_together_are_refused(graphs):
    half = [Part(graphs, np.arange(60)), Part(graphs, np.arange(60, 120))]

    def with_second(**changes):
        return [half[0], Part(replace(graphs, **changes), np.arange(60, 120))]

    narrow = graphs.node_features[:, :1]
    lame = np.where(np.arange(120) == 64, np.nan, 1.0)
    for shards, message in (
        ([], "Expected shards as functions"),
        ([graphs], "Expected shards as functions"),
        ([half[0], Part(graphs, [])], "graphs in shard 1, counted from 0; got none"),
        (with_second(node_features=narrow), r"Expected \(2, 1\).*shard 1.*\(1, 1\)"),
        (with_second(y=lame), "Shard 1, counted from 0: .* the first is graph 4"),
        (with_second(y=np.arange(120)), "classes of type <U3.*shard 1.*int64"),
        ([Part(graphs, graphs.y == "no")], r"two classes; all 60 graphs are of \['no'\]"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Mirage(1).fit_shards(shards)


def test_shards_that_change_are_refused(graphs):
    class Fickle(Part):
        def __call__(self):
            chosen = super().__call__()
            return self.change(chosen) if self.reads == self.when else chosen

    shard = Fickle(graphs, np.arange(120))
    for when, change, message in (
        (2, lambda graphs: graphs.select(np.arange(119)), "shard 0 to give the same graphs"),
        (3, lambda graphs: replace(graphs, y=graphs.y[::-1][:1].repeat(120)), "shard 0 to give"),
        (3, lambda graphs: replace(graphs, node_features=graphs.node_features + 1), "same graphs"),
    ):
        shard.reads, shard.when, shard.change = 0, when, change
        with pytest.raises(InvalidInputError, match=message):
            Mirage(1).fit_shards([shard])
