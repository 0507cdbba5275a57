"""Mirage against the definition, by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from scikd.exceptions import InvalidInputError
from scikd.graphs.distilled import DistilledGraphs
from scikd.graphs.graphset import GraphSet
from scikd.graphs.mirage import Mirage, parse_bytes
from scikd.graphs.preparation import Preparation
from tests.reference.graph_trees import canonical, canonical_of, random_graphs

seeds = st.integers(0, 2**32 - 1)


def labelled(seed, n_graphs=12, **options):
    """Return random graphs, half of each of two classes."""
    graphs = random_graphs(seed, n_graphs=n_graphs, **options)
    y = np.random.default_rng(seed).permutation(np.arange(n_graphs) % 2)
    return replace(graphs, y=y, name="random")


def forests_of(distilled):
    """Return each set as a class, a weight and a multiset of trees written out."""
    trees = [
        canonical_of(distilled.trees, distilled.trees.unfold(tree))
        for tree in range(distilled.trees.n_trees(distilled.n_hops))
    ]
    for number in range(len(distilled)):
        entries = range(distilled.ptr[number], distilled.ptr[number + 1])
        members = {trees[distilled.roots[e]]: int(distilled.counts[e]) for e in entries}
        yield int(distilled.y[number]), float(distilled.weights[number]), members


def trees_of(graphs, graph, depth):
    """Count the trees of a graph by brute force."""
    graphs = Preparation.of(graphs).apply(graphs)
    nodes = range(graphs.node_ptr[graph], graphs.node_ptr[graph + 1])
    held = [canonical(graphs, node, depth) for node in nodes]
    return {tree: held.count(tree) for tree in held}


@settings(max_examples=25)
@given(seeds)
def test_published_mode_finds_all_frequent_sets_of_trees(seed):
    graphs = labelled(seed, largest=4)
    least = 3
    holds = [set(trees_of(graphs, g, 1)) for g in range(len(graphs))]
    expected = set()
    for k in (0, 1):
        members = [
            # a tree of a single node has no children
            {tree for tree in held if tree[1]}
            for held, label in zip(holds, graphs.y, strict=True)
            if label == k
        ]
        every = sorted(set(chain.from_iterable(members)))
        every = [tree for tree in every if sum(tree in held for held in members) >= least]
        for size in range(1, len(every) + 1):
            for chosen in combinations(every, size):
                if sum(set(chosen) <= held for held in members) >= least:
                    expected.add((k, frozenset(chosen)))
    if len({k for k, _ in expected}) < 2:
        with pytest.raises(InvalidInputError, match="Lower min_support"):
            Mirage(1, min_support=least, mode="published").fit(graphs)
        return
    found = list(forests_of(Mirage(1, min_support=least, mode="published").fit(graphs).distilled_))
    assert {(k, frozenset(members)) for k, _, members in found} == expected
    assert len(found) == len(expected)
    assert all(weight == 1.0 and set(held.values()) == {1} for _, weight, held in found)


@settings(max_examples=25)
@given(seeds, st.sampled_from(["closed", "maximal", "all"]))
def test_every_set_is_in_as_many_graphs_as_it_says_and_weights_count_each_once(seed, itemsets):
    graphs = labelled(seed, n_graphs=10, n_labels=1, n_edge_labels=1, largest=5)
    mirage = Mirage(1, min_support=2, itemsets=itemsets, labels="class")
    try:
        distilled = mirage.fit(graphs).distilled_
    except InvalidInputError:
        return  # a class without frequent trees; tested elsewhere
    holds = [trees_of(graphs, g, 1) for g in range(len(graphs))]
    total = {0: 0.0, 1: 0.0}
    for k, weight, members in forests_of(distilled):
        inside = [
            all(held.get(tree, 0) >= count for tree, count in members.items()) and label == k
            for held, label in zip(holds, graphs.y, strict=True)
        ]
        assert sum(inside) >= 2
        assert 0 < weight <= sum(inside)
        total[k] += weight
    covered = mirage.coverage_ * np.bincount(graphs.y)
    np.testing.assert_allclose([total[0], total[1]], covered, rtol=1e-6)


@settings(max_examples=25)
@given(seeds)
def test_labels_are_the_shares_of_the_classes_that_hold_a_set(seed):
    graphs = labelled(seed, n_labels=2, n_edge_labels=1, largest=5)
    try:
        mirages = [
            Mirage(1, min_support=2, labels=kind).fit(graphs) for kind in ("shares", "class")
        ]
    except InvalidInputError:
        return  # a class without frequent trees; tested elsewhere
    holds = [trees_of(graphs, g, 1) for g in range(len(graphs))]
    soft, hard = (mirage.distilled_ for mirage in mirages)
    by_class = {}
    for k, weight, members in forests_of(hard):
        by_class.setdefault(frozenset(members.items()), []).append((k, weight))
    assert hard.soft_labels is None
    assert len(soft) == len(by_class)  # a set of both classes is there once
    for number, (k, weight, members) in enumerate(forests_of(soft)):
        inside = np.array([all(h.get(t, 0) >= n for t, n in members.items()) for h in holds])
        shares = np.array([inside[graphs.y == label].mean() for label in (0, 1)])
        np.testing.assert_allclose(soft.soft_labels[number], shares / shares.sum(), atol=1 / 255)
        assert soft.soft_labels[number].sum() == pytest.approx(1.0, abs=1e-12)
        assert k == soft.soft_labels[number].argmax()
        found = by_class[frozenset(members.items())]
        assert weight == pytest.approx(sum(w for _, w in found), rel=1e-6)


@settings(max_examples=25)
@given(seeds, st.integers(0, 2))
def test_lossless_mode_keeps_every_graph(seed, n_hops):
    graphs = labelled(seed, n_graphs=6)
    mirage = Mirage(n_hops, mode="lossless").fit(graphs)
    found = [(k, held) for k, _, held in forests_of(mirage.distilled_)]
    expected = [(int(graphs.y[g]), trees_of(graphs, g, n_hops)) for g in range(len(graphs))]

    def key(pair):
        return pair[0], sorted(pair[1].items())

    assert sorted(found, key=key) == sorted(expected, key=key)
    assert mirage.coverage_.tolist() == [1.0, 1.0]


@settings(max_examples=25)
@given(seeds, st.integers(60, 2000))
def test_a_budget_is_kept_and_a_larger_one_keeps_no_less(seed, budget):
    graphs = labelled(seed, n_graphs=30, n_labels=1, n_edge_labels=1)
    supports = []
    for size in (budget, 2 * budget):
        try:
            mirage = Mirage(2, budget=size).fit(graphs)
        except InvalidInputError as error:
            least = int(str(error).split("at least ")[1].split(" bytes")[0])
            assert least > size
            assert Mirage(2, budget=least).fit(graphs).distilled_.n_bytes <= least
            return
        assert mirage.distilled_.n_bytes <= size
        assert (mirage.distilled_.soft_labels.max(axis=0) > 0).all()
        supports.append(mirage.min_support_)
    assert (supports[1] <= supports[0]).all()


@pytest.fixture(scope="module")
def graphs():
    return labelled(3, n_graphs=60, n_labels=2, n_edge_labels=2, density=1.5)


@pytest.mark.parametrize("mode", ["weighted", "lossless"])
def test_what_is_saved_is_loaded(graphs, tmp_path, mode):
    options = {} if mode == "lossless" else {"min_support": 0.1}
    distilled = Mirage(2, mode=mode, degrees=True, **options).fit(graphs).distilled_
    again = DistilledGraphs.load(distilled.save(tmp_path / "small"))
    assert list(forests_of(again)) == list(forests_of(distilled))
    assert again.provenance == distilled.provenance
    np.testing.assert_array_equal(again.soft_labels, distilled.soft_labels)
    assert again.provenance["data"] == "random"
    assert (again.n_bytes, again.n_elements) == (distilled.n_bytes, distilled.n_elements)
    for name, values in distilled.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], values)
        assert again.arrays[name].dtype == values.dtype
    np.testing.assert_array_equal(again.supports, distilled.supports)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "small").iterdir())
    assert distilled.n_bytes < on_disk  # names, provenance and checksums


def test_supports_are_the_numbers_of_graphs_that_hold_a_set(graphs):
    distilled = Mirage(1, min_support=0.2).fit(graphs).distilled_
    holds = [trees_of(graphs, g, 1) for g in range(len(graphs))]
    expected = [
        sum(
            all(held.get(tree, 0) >= count for tree, count in members.items())
            for held, y in zip(holds, graphs.y, strict=True)
            if y == k
        )
        for k, _, members in forests_of(distilled)
    ]
    assert distilled.supports.tolist() == expected
    some = np.array([1, 0])
    assert distilled.select(some).supports.tolist() == [expected[1], expected[0]]


def test_sets_are_selected_as_graphs_are(graphs, tmp_path):
    distilled = Mirage(1, min_support=0.2).fit(graphs).distilled_
    n = len(distilled)
    mask = np.arange(n) % 2 == 1
    for asked, same in (
        (mask, np.flatnonzero(mask)),
        ([-1, 0], [n - 1, 0]),
        (range(n), np.arange(n)),
    ):
        found, expected = distilled.select(asked).arrays, distilled.select(np.array(same)).arrays
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
    none = distilled.select([])
    assert len(none) == none.trees.n_trees(1) == 0
    assert len(DistilledGraphs.load(none.save(tmp_path / "none"))) == 0
    for wrong in ([n], [-n - 1], [0.5], [[0]], mask[1:]):
        with pytest.raises(InvalidInputError, match=f"numbers of sets from 0 to {n - 1}, or {n} t"):
            distilled.select(wrong)


def test_forests_are_what_the_sets_say(graphs):
    pytest.importorskip("torch_geometric")
    distilled = Mirage(2, min_support=0.1).fit(graphs).distilled_
    forests = distilled.to_pyg()
    elements = 0
    for data, (k, weight, members) in zip(forests, forests_of(distilled), strict=True):
        assert int(data.y) == k
        assert float(data.weight) == pytest.approx(weight)
        assert int(data.root_mask.sum()) == sum(members.values())
        back = GraphSet.from_pyg([data])
        roots = np.flatnonzero(data.root_mask.numpy())
        found = [canonical(back, root, 2) for root in roots]
        assert {tree: found.count(tree) for tree in found} == members
        elements += data.x.numel() + data.edge_index.numel() + data.edge_attr.numel()
    assert elements == distilled.n_elements


def test_truncated_sets_are_those_of_fewer_hops(graphs):
    deep, flat = (Mirage(hops, mode="lossless").fit(graphs).distilled_ for hops in (2, 1))
    cut = deep.truncate(1)
    for one, other in zip(forests_of(cut), forests_of(flat), strict=True):
        assert one[:2] == other[:2]
    # the same tree may now be there several times in a set; together they count the same
    for number in range(len(cut)):
        totals = []
        for part in (cut, flat):
            entries = slice(part.ptr[number], part.ptr[number + 1])
            sums = {}
            for root, count in zip(part.roots[entries], part.counts[entries], strict=True):
                tree = canonical_of(part.trees, part.trees.unfold(int(root)))
                sums[tree] = sums.get(tree, 0) + int(count)
            totals.append(sums)
        assert totals[0] == totals[1]


def test_contrast_drops_what_both_classes_have(graphs):
    plain = Mirage(1, min_support=2, labels="class").fit(graphs)
    try:
        sharp = Mirage(1, min_support=2, contrast=3.0, labels="class").fit(graphs)
    except InvalidInputError:
        pytest.fail("this data set has sets of one class alone")
    assert 0 < len(sharp.distilled_) < len(plain.distilled_)
    holds = [trees_of(graphs, g, 1) for g in range(len(graphs))]
    sizes = np.bincount(graphs.y)
    for k, _, members in forests_of(sharp.distilled_):
        inside = np.array(
            [all(held.get(t, 0) >= count for t, count in members.items()) for held in holds]
        )
        shares = [inside[graphs.y == c].sum() / sizes[c] for c in (0, 1)]
        assert shares[k] >= 3.0 * shares[1 - k]
    with pytest.raises(InvalidInputError, match="Lower contrast"):
        Mirage(0, min_support=0.5, contrast=1e9).fit(graphs)


def test_contrast_counts_the_graphs_of_other_classes_though_the_set_is_rare_there():
    labels = np.repeat([0, 1, 0, 2], [6, 4, 4, 6])  # of graphs of one node each
    graphs = GraphSet(
        node_ptr=np.arange(21),
        arc_ptr=np.zeros(21, np.int64),
        sources=np.empty(0, np.int64),
        targets=np.empty(0, np.int64),
        node_features=labels[:, None],
        edge_features=np.empty((0, 0), np.int64),
        y=np.repeat([0, 1], 10),
    )
    assert len(Mirage(2, min_support=5, contrast=1.4).fit(graphs).distilled_) == 2
    with pytest.raises(InvalidInputError, match=r"2.0 times more frequent.*none of \[0\]"):
        Mirage(2, min_support=5, contrast=2.0).fit(graphs)


def test_nodes_without_features_are_labelled_by_their_degree():
    graphs = labelled(5, n_graphs=40, n_labels=1, n_edge_labels=1, density=2.0)
    mirage = Mirage(1, min_support=2).fit(graphs)
    prepared = mirage.distilled_.prepare(graphs)
    np.testing.assert_array_equal(prepared.node_features[:, 0], graphs.degrees)
    assert mirage.distilled_.preparation.degree_label


def test_measured_features_are_put_into_bins_learnt_on_the_training_graphs():
    graphs = labelled(6, n_graphs=40)
    random = np.random.default_rng(0)
    features = np.column_stack([graphs.node_features[:, 0], random.normal(size=graphs.n_nodes)])
    measured = replace(graphs, node_features=features)
    mirage = Mirage(1, min_support=2, bins=3).fit(measured)
    prepared = mirage.distilled_.prepare(measured)
    np.testing.assert_array_equal(prepared.node_features[:, 0], features[:, 0])
    values, counts = np.unique(prepared.node_features[:, 1], return_counts=True)
    assert len(values) == 3
    assert counts.min() >= 0.3 * graphs.n_nodes
    assert np.corrcoef(features[:, 1], prepared.node_features[:, 1])[0, 1] > 0.85
    part = mirage.distilled_.prepare(measured.select([3]))
    start, stop = measured.node_ptr[3:5]
    np.testing.assert_array_equal(part.node_features, prepared.node_features[start:stop])
    narrow = replace(measured, node_features=features[:, :1])
    with pytest.raises(InvalidInputError, match="Expected 2 node features.*got 1"):
        mirage.distilled_.prepare(narrow)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, r"mode \('weighted', 'published', 'lossless'\); got 'best'"),
        ({"itemsets": "some"}, "itemsets .*; got 'some'"),
        ({"labels": "hard"}, "labels .*; got 'hard'"),
        ({"contrast": 0}, "contrast above 0 or None; got 0"),
        ({"mode": "lossless", "budget": 100}, "neither budget nor min_support"),
        ({"mode": "published", "budget": 100}, "no budget with mode='published'"),
        ({"budget": "20 miles"}, "a size such as 20000 or '20kB'.*got '20 miles'"),
        ({"budget": -3}, "a size such as"),
        ({"min_support": 0}, "min_support of class 0 from 1 to"),
        ({"min_support": 1.5}, "got 1.5"),
        ({"min_support": [1, 2, 3]}, "Expected 2 values of min_support; got 3"),
        ({"min_support": {0: 1}}, r"for every class; \[1\] have none"),
        ({"bins": 1}, "bins to be an integer of at least 2; got 1"),
        ({"n_hops": -1}, "n_hops to be an integer"),
        ({"n_hops": True}, "n_hops to be an integer.*got True"),
        ({"min_support": True}, "min_support of class 0 .*got True"),
        ({"min_support": [5, True]}, "min_support of class 1 .*got True"),
        ({"max_sets": True}, "max_sets to be an integer.*got True"),
        ({"budget": True}, "of a byte or more; got True"),
        ({"budget": 10}, "budget of at least [0-9]+ bytes.*got 10"),
        ({"n_hops": 30, "min_support": 1.0}, "a tree of 30 hops in at least"),
    ],
)
def test_options_that_mean_nothing_are_refused(graphs, options, message):
    with pytest.raises(InvalidInputError, match=message):
        Mirage(**options).fit(graphs)


def test_a_budget_for_graphs_that_have_nothing_in_common_is_refused(graphs):
    numbered = replace(graphs, node_features=np.arange(graphs.n_nodes)[:, None])
    with pytest.raises(InvalidInputError, match=r"in at least 2 of the 30 .* frequent is in 1\)"):
        Mirage(1, budget=1000).fit(numbered)


@pytest.mark.parametrize("support", [{"budget": 1000}, {"min_support": 1}])
def test_sets_without_end_are_refused(support):
    """Equal graphs of 40 different nodes hold 2^40 sets of trees."""
    n, nodes = 4, 40
    alike = GraphSet(
        node_ptr=nodes * np.arange(n + 1),
        arc_ptr=np.zeros(n + 1, int),
        sources=[],
        targets=[],
        node_features=np.tile(np.arange(nodes), n)[:, None],
        edge_features=np.empty((0, 0)),
        y=np.arange(n) % 2,
    )
    with pytest.raises(InvalidInputError, match="at most max_sets=1000 all sets"):
        Mirage(1, itemsets="all", max_sets=1000, **support).fit(alike)
    assert len(Mirage(1, max_sets=1000, **support).fit(alike).distilled_) == 1


def test_labels_that_mean_nothing_are_refused(graphs):
    n_graphs = len(graphs)
    for y, message in (
        (np.zeros(n_graphs), r"at least two classes; all 60 are of \[0.0\]"),
        (np.arange(3), r"Expected y of shape \(60,\).*got \(3,\)"),
        (np.where(np.arange(n_graphs) == 4, np.nan, 1.0), "1 have NaN or None, the first is"),
        (np.array(["a", None] * 30, dtype=object), "30 have NaN or None, the first is graph 1"),
        (np.array(["a", 1] * 30, dtype=object), "classes of one type"),
        (np.arange(n_graphs) / 4, "45 of 60 labels are measured numbers such as 0.25"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Mirage(1).fit(graphs, y)
    bare = replace(graphs, y=None)
    with pytest.raises(InvalidInputError, match="got none"):
        Mirage(1).fit(bare)


def test_classes_may_be_of_any_kind_and_number(graphs):
    names = np.array(["no", "perhaps", "yes"])[np.arange(len(graphs)) % 3]
    mirage = Mirage(1, min_support={"no": 2, "perhaps": 0.1, "yes": 3}).fit(graphs, names)
    assert mirage.classes_.tolist() == ["no", "perhaps", "yes"]
    assert set(mirage.distilled_.y) == {0, 1, 2}
    assert (mirage.min_support_ >= [2, 2, 3]).all()


def test_it_is_an_estimator():
    mirage = Mirage(2, budget="1kB")
    assert clone(mirage).get_params() == mirage.get_params()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (7, 7),
        ("7", 7),
        ("2kB", 2000),
        ("1.001kB", 1001),
        ("1.5 KiB", 1536),
        ("3MB", 3_000_000),
        ("2 GB", 2_000_000_000),
        ("0.5gib", 2**29),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0.5", "0", "0.0009kB", "1TB", "kB", "-1", ""])
def test_what_is_no_byte_is_refused(text):
    with pytest.raises(InvalidInputError, match="of a byte or more; got"):
        parse_bytes(text)


def test_molbace_at_the_published_thresholds(scikd_data):
    readers = pytest.importorskip("scikd.graphs.readers")
    folder = scikd_data("graphs/ogb/ogbg_molbace")
    train = readers.read_ogb(folder).select(readers.read_ogb_split(folder)["train"])
    published = Mirage(3, min_support=[150, 104], mode="published").fit(train).distilled_
    assert len(published) == 13
    assert published.trees.n_trees(3) == 7
    assert published.n_elements == 4287
    closed = Mirage(3, min_support=[150, 104], multiplicity=False).fit(train).distilled_
    assert closed.trees.n_trees(3) == 7
    assert len(closed) <= 13
