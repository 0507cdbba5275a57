"""Sets of graphs: what goes in comes out, and what cannot be a graph is refused by its number."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.graphs import GraphSet

ARRAYS = ("node_ptr", "arc_ptr", "sources", "targets", "node_features", "edge_features")
seeds = st.integers(0, 2**32 - 1)


def random_graphs(rng, n_graphs=None):
    """Return graphs of random sizes, features, labels; parallel arcs and self-loops too."""
    n_graphs = n_graphs or int(rng.integers(1, 7))
    sizes = rng.integers(1, 6, n_graphs)
    counts = rng.integers(0, 9, n_graphs)
    node_ptr, arc_ptr = (np.concatenate([[0], np.cumsum(c)]) for c in (sizes, counts))
    first, width = np.repeat(node_ptr[:-1], counts), np.repeat(sizes, counts)

    def features(rows):
        shape = (rows, int(rng.integers(0, 4)))
        return (
            rng.normal(size=shape)
            if shape[1] and rng.random() < 0.5
            else rng.integers(9, size=shape)
        )

    labels = [
        None,
        rng.integers(3, size=n_graphs),
        rng.random(n_graphs),
        rng.permutation(list("abcdefg"))[:n_graphs],
    ]
    return GraphSet(
        node_ptr,
        arc_ptr,
        first + (rng.random(len(first)) * width).astype(int),
        first + (rng.random(len(first)) * width).astype(int),
        features(node_ptr[-1]),
        features(arc_ptr[-1]),
        y=labels[rng.integers(len(labels))],
        name="random",
        smiles=tuple(f"C{g}" for g in range(n_graphs)) if rng.random() < 0.3 else None,
    )


def assert_equal(a, b):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    assert (a.y is None) == (b.y is None)
    if a.y is not None:
        np.testing.assert_array_equal(a.y, b.y)
        assert a.y.dtype.kind == b.y.dtype.kind
    assert a.smiles == b.smiles


@pytest.fixture
def two():
    """Return a path of three nodes and a single node with a self-loop."""
    return GraphSet(
        node_ptr=np.array([0, 3, 4]),
        arc_ptr=np.array([0, 4, 5]),
        sources=np.array([0, 1, 1, 2, 3]),
        targets=np.array([1, 0, 2, 1, 3]),
        node_features=np.array([[6], [7], [8], [9]]),
        edge_features=np.array([[0.5], [0.5], [1.0], [1.0], [2.0]]),
        y=np.array([1, 0]),
    )


def test_sizes_owners_and_degrees(two):
    assert (len(two), two.n_nodes, two.n_arcs) == (2, 4, 5)
    assert two.graph_of_node.tolist() == [0, 0, 0, 1]
    assert two.degrees.tolist() == [1, 2, 1, 1]
    assert two.degrees.dtype == two.graph_of_node.dtype == np.int64
    assert "n_graphs=2, n_nodes=4, n_arcs=5" in repr(two)


@given(seeds)
def test_degrees_are_the_arcs_that_end_at_a_node(seed):
    graphs = random_graphs(np.random.default_rng(seed))
    expected = [int((graphs.targets == v).sum()) for v in range(graphs.n_nodes)]
    assert graphs.degrees.tolist() == expected


def test_kinds_of_numbers_are_kept(two):
    ints = replace(
        two, node_features=two.node_features.astype(np.int8), edge_features=two.y[[0] * 5, None] > 0
    )
    assert ints.node_features.dtype == ints.edge_features.dtype == np.int64
    floats = replace(two, node_features=two.node_features.astype(np.float32))
    assert floats.node_features.dtype == np.float64, "whole numbers given as floats stay floats"


def test_it_is_immutable(two):
    with pytest.raises(FrozenInstanceError):
        two.y = None


def test_graphs_may_have_no_features_arcs_or_labels():
    bare = GraphSet([0, 2], [0, 0], [], [], np.empty((2, 0)), np.empty((0, 0)))
    assert bare.n_arcs == 0
    assert bare.degrees.tolist() == [0, 0]
    assert bare.y is None


# ----------------------------------------------------------------------------------- selection


@given(seeds)
def test_select_takes_each_graph_as_it_is(seed):
    rng = np.random.default_rng(seed)
    graphs = random_graphs(rng)
    chosen = rng.integers(-len(graphs), len(graphs), rng.integers(1, 8))
    taken = graphs.select(chosen)
    assert len(taken) == len(chosen)
    for position, g in enumerate(chosen % len(graphs)):
        nodes = slice(graphs.node_ptr[g], graphs.node_ptr[g + 1])
        arcs = slice(graphs.arc_ptr[g], graphs.arc_ptr[g + 1])
        alone = GraphSet(
            [0, nodes.stop - nodes.start],
            [0, arcs.stop - arcs.start],
            graphs.sources[arcs] - nodes.start,
            graphs.targets[arcs] - nodes.start,
            graphs.node_features[nodes],
            graphs.edge_features[arcs],
            y=None if graphs.y is None else graphs.y[[g]],
            smiles=None if graphs.smiles is None else [graphs.smiles[g]],
        )
        assert_equal(taken.select([position]), alone)


@given(seeds)
def test_select_all_is_the_same_and_selections_compose(seed):
    rng = np.random.default_rng(seed)
    graphs = random_graphs(rng)
    assert_equal(graphs.select(np.arange(len(graphs))), graphs)
    a = rng.integers(len(graphs), size=5)
    b = rng.integers(5, size=3)
    assert_equal(graphs.select(a).select(b), graphs.select(a[b]))
    mask = rng.random(len(graphs)) < 0.5
    assert_equal(graphs.select(mask), graphs.select(np.flatnonzero(mask)))


def test_nothing_may_be_selected(two):
    none = two.select([])
    assert (len(none), none.n_nodes, none.n_arcs) == (0, 0, 0)
    assert none.node_features.shape == (0, 1)


@pytest.mark.parametrize("indices", [[2], [-3], [0.5], [[0]], [True]])
def test_a_graph_that_is_not_there_is_refused(two, indices):
    with pytest.raises(InvalidInputError, match="numbers of graphs from 0 to 1"):
        two.select(indices)


# -------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"node_ptr": [0, 4, 4]}, "graph 1: expected at least one node; it has 0"),
        ({"node_ptr": [0, 5, 4]}, "graph 1: expected at least one node; it has -1"),
        ({"arc_ptr": [0, 6, 5]}, "graph 1: expected arcs of its own; arc_ptr descends by 1"),
        ({"sources": [0, 1, 1, 3, 3]}, "graph 0: .* nodes 0 to 2; its arc 3 goes from 3 to 1"),
        ({"targets": [1, 0, 2, 1, 4]}, "graph 1: .* nodes 0 to 0; its arc 0 goes from 0 to 1"),
        ({"targets": [-1, 0, 2, 1, 3]}, "graph 0: .* its arc 0 goes from 0 to -1"),
        ({"node_features": [[1.0], [2.0], [3.0], [np.nan]]}, r"graph 1: .* its row 0 is \[nan\]"),
        ({"edge_features": [[1.0]] * 3 + [[np.inf]] * 2}, "graph 0: .* edge_features; its row 3"),
        ({"node_ptr": [0, 3, 5]}, r"node_ptr from \[0, 5\] instead of \[0, 4\]"),
        ({"node_ptr": [1, 3, 4]}, r"node_ptr from \[1, 4\] instead of \[0, 4\]"),
        ({"node_ptr": []}, "node_ptr of length 0"),
        ({"arc_ptr": [0, 5]}, "arc_ptr of length 2 instead of 3"),
        ({"targets": [0, 1]}, "targets of length 2 instead of 5"),
        ({"edge_features": np.ones((4, 1))}, "edge_features of length 4 instead of 5"),
        ({"y": [1]}, "y of length 1 instead of 2"),
        ({"y": [[1], [0]]}, r"y \(2, 1\) instead of 1 dimension"),
        ({"smiles": ["C"]}, "smiles of length 1 instead of 2"),
        ({"node_features": np.ones(4)}, r"node_features \(4,\) instead of 2 dimension"),
        ({"sources": [0.0] * 5}, "sources of type int64; got float64"),
        ({"node_ptr": np.array([0, 3, 2**63], np.uint64)}, "node_ptr of type int64; got uint64"),
        ({"node_features": [["C"]] * 4}, "node_features of numbers; got <U1"),
        ({"node_features": np.full((4, 1), 2**63, np.uint64)}, "fit into int64; got 9223372"),
    ],
)
def test_what_cannot_be_is_refused(two, changed, says):
    with pytest.raises(InvalidInputError, match=says):
        replace(two, **changed)


def test_all_faulty_graphs_are_named_up_to_ten():
    n = 12
    with pytest.raises(InvalidInputError, match="12 of 12 graphs") as error:
        GraphSet(
            np.arange(n + 1),
            np.zeros(n + 1, int),
            [],
            [],
            np.full((n, 1), np.nan),
            np.empty((0, 0)),
        )
    assert [f"graph {g}:" in str(error.value) for g in range(n)] == [True] * 10 + [False] * 2


# ----------------------------------------------------------------------------- torch_geometric


@given(seeds)
def test_through_pyg_and_back(seed):
    pytest.importorskip("torch_geometric")
    graphs = random_graphs(np.random.default_rng(seed))
    back = GraphSet.from_pyg(graphs.to_pyg(), name="random")
    if not graphs.node_features.shape[1]:
        graphs = replace(graphs, node_features=graphs.node_features.astype(np.int64))
    assert_equal(back, graphs)
    assert back.name == graphs.name


@pytest.fixture
def pyg():
    return pytest.importorskip("torch_geometric.data")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def path(pyg, torch, **more):
    """Return a path of two nodes."""
    return pyg.Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2, **more)


def test_pyg_batches_what_it_is_given(pyg, two):
    batch = pyg.Batch.from_data_list(two.to_pyg())
    np.testing.assert_array_equal(batch.edge_index, [two.sources, two.targets])
    np.testing.assert_array_equal(batch.x, two.node_features)
    np.testing.assert_array_equal(batch.y, two.y)
    np.testing.assert_array_equal(batch.ptr, two.node_ptr)


def test_data_does_not_share_memory(pyg, two):
    data = two.to_pyg()[0]
    data.x[:] = 0
    assert two.node_features[0] == 6


def test_an_in_memory_dataset_is_taken(pyg, torch, tmp_path, two):
    class Small(pyg.InMemoryDataset):
        def __init__(self):
            super().__init__()
            self.data, self.slices = self.collate(two.to_pyg())

    assert_equal(GraphSet.from_pyg(Small()), two)
    assert_equal(GraphSet.from_pyg(Small()[1:]), two.select([1]))
    assert_equal(GraphSet.from_pyg(torch.utils.data.Subset(Small(), [1])), two.select([1]))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_labels_of_any_shape_are_taken(pyg, torch, shape):
    graphs = [path(pyg, torch, y=torch.full(shape, k)) for k in (4, 7)]
    assert GraphSet.from_pyg(graphs).y.tolist() == [4, 7]


def test_labels_may_be_missing_text_or_plain_numbers(pyg, torch):
    assert GraphSet.from_pyg([path(pyg, torch)]).y is None
    assert GraphSet.from_pyg([path(pyg, torch, y="a"), path(pyg, torch, y="b")]).y.tolist() == [
        "a",
        "b",
    ]
    assert GraphSet.from_pyg([path(pyg, torch, y=2)]).y.tolist() == [2]


def test_features_in_one_column_may_be_flat(pyg, torch):
    graphs = GraphSet.from_pyg([path(pyg, torch, x=torch.ones(2), edge_attr=torch.tensor([3, 4]))])
    assert graphs.node_features.tolist() == [[1.0], [1.0]]
    assert graphs.edge_features.tolist() == [[3], [4]]
    assert graphs.edge_features.dtype == np.int64


def test_what_pyg_cannot_mean_is_refused(pyg, torch):
    with pytest.raises(InvalidInputError, match="at least one graph; got none"):
        GraphSet.from_pyg([])
    with pytest.raises(InvalidInputError, match="edge_index in each graph; graph 1 has none"):
        GraphSet.from_pyg([path(pyg, torch), pyg.Data(x=torch.ones(2, 1))])
    with pytest.raises(InvalidInputError, match=r"graph 0 has \(3, 2\)"):
        GraphSet.from_pyg([pyg.Data(edge_index=torch.zeros(3, 2, dtype=torch.int64), num_nodes=1)])
    for one in (path(pyg, torch), "molecules"):
        with pytest.raises(InvalidInputError, match="of type .*; put a single graph into a list"):
            GraphSet.from_pyg(one)
    with pytest.raises(InvalidInputError, match="a data set, or a list, .*; got None"):
        GraphSet.from_pyg(None)
    with pytest.raises(InvalidInputError, match="edge_index of integers; graph 0 has float32"):
        GraphSet.from_pyg([pyg.Data(edge_index=torch.tensor([[0.0], [0.5]]), num_nodes=2)])
    with pytest.raises(InvalidInputError, match="x in each graph or in none; graph 0 has none"):
        GraphSet.from_pyg([path(pyg, torch), path(pyg, torch, x=torch.ones(2, 1))])
    with pytest.raises(InvalidInputError, match="y in each graph or in none; graph 1 has none"):
        GraphSet.from_pyg([path(pyg, torch, y=1), path(pyg, torch)])
    with pytest.raises(InvalidInputError, match=r"shape \(1, 12\). Choose one"):
        GraphSet.from_pyg([path(pyg, torch, y=torch.ones(1, 12))])
    widths = [path(pyg, torch, x=torch.ones(2, k)) for k in (3, 2)]
    with pytest.raises(InvalidInputError, match=r"\(2, 3\) in graph 1; got \(2, 2\)"):
        GraphSet.from_pyg(widths)
    with pytest.raises(InvalidInputError, match=r"edge_attr of shape \(2, 1\) in graph 0; got \(3"):
        GraphSet.from_pyg([path(pyg, torch, edge_attr=torch.ones(3, 1))])
