"""One model gives the same on graphs, on forests of trees and on merged trees."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.features import FeatureColumns, FeatureEncoder
from scikd.graphs.graphset import GraphSet
from scikd.graphs.models import ClassifierSettings, GraphClassifier, WeightedBatchNorm
from scikd.graphs.refinement import ColorRefinement
from scikd.graphs.storage import load_classifier, save_classifier
from scikd.persistence import load_bundle, save_bundle
from tests.reference.graph_changes import without_self_loops
from tests.reference.graph_trees import random_graphs

seeds = st.integers(0, 2**32 - 1)
SMALL = ClassifierSettings(n_classes=3, n_layers=2, hidden_channels=6)
KINDS = [
    replace(SMALL, conv="gin", norm="batch"),
    replace(SMALL, conv="gin", n_layers=1, jumping_knowledge="sum", readout="mean"),
    replace(SMALL, conv="gine", jumping_knowledge="sum"),
    replace(SMALL, conv="sage", aggr="max", norm="layer"),
    replace(SMALL, conv="sage", norm="batch", jumping_knowledge="sum"),
    replace(SMALL, conv="gat", heads=2, readout="mean"),
    replace(SMALL, conv="gatv2", heads=3, norm="batch"),
    replace(SMALL, conv="gcn"),
]


def name(kind):
    return "-".join(str(v) for v in (kind.conv, kind.norm, kind.jumping_knowledge, kind.readout))


def made(data, kind, dtype=torch.float64):
    model = GraphClassifier.for_data(data, kind)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # biases start at zero, where a wrong one hides
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def assert_same(model, graphs, merged, tolerance=1e-10):
    """Compare logits, gradients and what normalisation keeps, relative to the largest."""
    results = []
    start = {name: values.clone() for name, values in model.state_dict().items()}
    for data in (graphs, merged):
        model.load_state_dict(start)
        logits = model(data)
        generator = torch.Generator().manual_seed(3)
        direction = torch.randn(logits.shape, generator=generator).to(logits)
        parameters = [*model.parameters()]
        gradients = torch.autograd.grad((logits * direction).sum(), parameters)
        kept = [v.clone().double() for v in model.buffers()]
        results.append((logits.detach(), gradients, kept))
    (logits, gradients, kept), (found, found_gradients, found_kept) = results
    assert (found - logits).abs().max() <= tolerance * logits.abs().max()
    largest = max(float(g.abs().max()) for g in gradients)
    for one, other in zip(found_gradients, gradients, strict=True):
        assert (one - other).abs().max() <= tolerance * largest
    for one, other in zip(found_kept, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)


def as_forest(trees, set_ptr, roots, counts):
    """Write sets of trees out as graphs of torch_geometric whose arcs go from child to parent."""
    forests = []
    for first, last in pairwise(set_ptr):
        x, ends, edges, is_root = [], [], [], []
        for root, count in zip(roots[first:last], counts[first:last], strict=True):
            tree = trees.unfold(int(root))
            below = np.flatnonzero(tree.parents >= 0)
            for _ in range(count):
                ends += [(len(x) + v, len(x) + tree.parents[v]) for v in below]
                edges += trees.edge_labels[tree.edges[below]].tolist()
                is_root += (tree.parents < 0).tolist()
                x += trees.labels[tree.labels].tolist()
        forests.append(
            Data(
                x=torch.tensor(x),
                edge_index=torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).T,
                edge_attr=torch.tensor(edges, dtype=torch.int64).reshape(
                    -1, trees.edge_labels.shape[1]
                ),
                root_mask=torch.tensor(is_root),
            )
        )
    return Batch.from_data_list(forests)


def loop_free(seed, **options):
    return without_self_loops(random_graphs(seed, density=1.5, **options))


@pytest.mark.parametrize("kind", KINDS, ids=name)
@given(seed=seeds)
@settings(max_examples=8)
def test_logits_and_gradients_on_graphs_and_on_merged_trees_are_the_same(kind, seed):
    graphs = loop_free(seed, n_graphs=6)
    merged = MergedGraphs.of(graphs, kind.n_layers, degrees=kind.conv == "gcn")
    model = made(graphs, kind)
    batch = Batch.from_data_list(graphs.to_pyg())
    assert_same(model, batch, merged)
    assert_same(made(merged, kind, torch.float32), batch, merged, 1e-4)
    rows = [4, 1, 1]
    some = Batch.from_data_list([graphs.to_pyg()[row] for row in rows])
    assert_same(model, some, merged.batch(rows))
    assert_same(model.eval(), batch, merged)
    deeper = MergedGraphs.of(graphs, kind.n_layers + 2)
    assert_same(model, batch, deeper)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.conv != "gcn"], ids=name)
@given(seed=seeds)
@settings(max_examples=4)
def test_forests_are_read_out_at_their_roots(kind, seed):
    graphs = loop_free(seed)
    refinement = ColorRefinement(2)
    refinement.fit(graphs)
    random = np.random.default_rng(seed)
    trees = refinement.trees_
    sets = (
        np.array([0, 2, 5]),
        random.integers(0, trees.n_trees(2), 5),
        random.integers(1, 4, 5),
    )
    kind = replace(kind, n_layers=2)
    merged = MergedGraphs.from_trees(trees, *sets)
    assert_same(made(graphs, kind), as_forest(trees, *sets), merged)


def test_a_graph_alone_and_a_loader_work():
    graphs = loop_free(0)
    model = made(graphs, SMALL).eval()
    expected = model(MergedGraphs.of(graphs, 2))
    data = graphs.to_pyg()
    torch.testing.assert_close(torch.cat([model(one) for one in data]), expected)
    batches = [model(batch) for batch in DataLoader(data, batch_size=3)]
    torch.testing.assert_close(torch.cat(batches), expected)


def test_graphs_without_features_have_one_vector():
    graphs = loop_free(1)
    empty = np.empty((graphs.n_nodes, 0), np.int64), np.empty((graphs.n_arcs, 0), np.int64)
    bare = replace(graphs, node_features=empty[0], edge_features=empty[1])
    model = made(bare, replace(SMALL, conv="gat"))
    assert_same(model, Batch.from_data_list(bare.to_pyg()), MergedGraphs.of(bare, 2))


def test_graphs_with_numbers_for_features():
    graphs = loop_free(2)
    numbers = replace(
        graphs,
        node_features=graphs.node_features / 3,
        edge_features=graphs.edge_features * 0.7,
    )
    model = made(numbers, replace(SMALL, conv="gine"))
    assert_same(model, Batch.from_data_list(numbers.to_pyg()), MergedGraphs.of(numbers, 2))


def test_dropout_keeps_the_expectation_on_merged_trees():
    graphs = loop_free(3, n_graphs=8)
    merged = MergedGraphs.of(graphs, 1)
    model = made(graphs, replace(SMALL, n_layers=1, dropout=0.3))
    torch.manual_seed(0)
    with torch.no_grad():  # one layer, which is linear in what is dropped
        mean = sum(model(merged) for _ in range(3000)) / 3000
        exact = model.eval()(merged)
    assert (mean - exact).abs().max() < 0.05 * exact.abs().max()
    assert not torch.equal(model.train()(merged), exact)


# ------------------------------------------------------------------------------------- features


def test_categories_add_up_and_unseen_ones_add_nothing():
    seen = torch.tensor([[5, -3], [7, 0], [5, 2**40]])
    encoder = FeatureEncoder(FeatureColumns.of(seen), 4)
    rows = encoder.table.weight
    found = encoder(torch.tensor([[5, 0], [7, 6], [-3, 5], [2**62, 2**40]]))
    torch.testing.assert_close(found, torch.stack([rows[1] + rows[4], rows[2], rows[0], rows[5]]))
    assert not rows[0].any()
    encoder(torch.tensor([[6, 0]])).sum().backward()
    assert not encoder.table.weight.grad[0].any()
    with pytest.raises(InvalidInputError, match=r"shape \(n, 2\).*got \(1, 3\)"):
        encoder(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(InvalidInputError, match="whole numbers"):
        encoder(torch.zeros(1, 2))


def test_without_any_value_all_are_unseen():
    encoder = FeatureEncoder(FeatureColumns.of(np.empty((0, 2), np.int64)), 3)
    assert encoder(torch.ones(5, 2, dtype=torch.int64)).tolist() == [[0.0] * 3] * 5


@pytest.mark.parametrize("momentum", [0.1, None])
def test_weights_of_rows_are_repetitions(momentum):
    rows = torch.randn(4, 3, dtype=torch.float64)
    many = torch.tensor([1, 5, 0, 2])
    norms = [WeightedBatchNorm(3, momentum=momentum).double() for _ in range(2)]
    for _ in range(2):
        found = norms[0](rows, many.double())
        expected = norms[1](rows.repeat_interleave(many, 0))
    torch.testing.assert_close(found.repeat_interleave(many, 0), expected)
    for one, other in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)
    untracked = WeightedBatchNorm(3, track_running_stats=False).double()
    torch.testing.assert_close(untracked(rows, many.double()), found)


# ----------------------------------------------------------------------------- what is refused


def test_settings_that_make_no_network_are_refused():
    with pytest.raises(InvalidInputError) as raised:
        ClassifierSettings(conv="mlp", norm="none", n_layers=0, dropout=1.0, heads=5)
    for part in ("conv is 'mlp'", "norm is 'none'", "n_layers is 0", "dropout is 1.0", "heads 5"):
        assert part in str(raised.value)


def test_faulty_input_is_refused():
    graphs = loop_free(0)
    with pytest.raises(InvalidInputError, match="depth 2, one for each layer; got depth 1"):
        made(graphs, SMALL)(MergedGraphs.of(graphs, 1))
    with pytest.raises(InvalidInputError, match="one hop more"):
        made(graphs, replace(SMALL, conv="gcn"))(MergedGraphs.of(graphs, 2))
    bare = replace(graphs, edge_features=np.empty((graphs.n_arcs, 0), np.int64))
    with pytest.raises(InvalidInputError, match="edge_attr"):
        made(graphs, replace(SMALL, conv="gine"))(bare.to_pyg()[0])
    with pytest.raises(InvalidInputError, match="use 'gin'"):
        GraphClassifier.for_data(bare, replace(SMALL, conv="gine"))


# -------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_what_is_loaded_is_what_was_saved(kind, tmp_path):
    graphs = loop_free(0)
    merged = MergedGraphs.of(graphs, kind.n_layers + 1)
    model = made(graphs, kind)
    model(merged)
    model.metadata["classes"] = ["a", "b"]
    loaded = load_classifier(save_classifier(model, tmp_path / "model"))
    assert torch.equal(loaded(merged), model.eval()(merged))
    assert loaded.describe() == model.describe()
    assert not loaded.training


def test_a_bundle_of_another_network_is_refused(tmp_path):
    path = save_classifier(made(loop_free(0), SMALL), tmp_path / "model")
    bundle = load_bundle(path, kind="scikd.graphs.GraphClassifier")
    settings = {**bundle.parameters["settings"], "hidden_channels": 5}
    save_bundle(
        path,
        kind=bundle.kind,
        parameters={**bundle.parameters, "settings": settings},
        arrays=bundle.arrays,
    )
    with pytest.raises(CorruptFileError, match="no classifier that this version can build"):
        load_classifier(path)


# ------------------------------------------------------------------------------------ real data


def molecules(folder, n_graphs):
    """Read the first molecules of a data set of OGB."""

    def table(stem):
        with gzip.open(folder / "raw" / f"{stem}.csv.gz", "rt") as file:
            return np.array(list(csv.reader(file)), dtype=np.int64)

    sizes, bonds = table("num-node-list")[:n_graphs, 0], table("num-edge-list")[:n_graphs, 0]
    node_ptr = np.concatenate([[0], np.cumsum(sizes)])
    n_bonds = bonds.sum()
    ends = table("edge")[:n_bonds] + np.repeat(node_ptr[:-1], bonds)[:, None]
    return GraphSet(
        node_ptr=node_ptr,
        arc_ptr=2 * np.concatenate([[0], np.cumsum(bonds)]),
        sources=ends.ravel(),
        targets=ends[:, ::-1].ravel(),
        node_features=table("node-feat")[: node_ptr[-1]],
        edge_features=np.repeat(table("edge-feat")[:n_bonds], 2, axis=0),
        y=table("graph-label")[:n_graphs, 0],
    )


@pytest.mark.parametrize(
    "kind", [replace(k, n_layers=3, hidden_channels=12) for k in KINDS], ids=name
)
def test_on_molecules_all_is_the_same(kind, scikd_data):
    graphs = molecules(scikd_data("graphs/ogb/ogbg_molbace"), 150)
    merged = MergedGraphs.of(graphs, 3, degrees=kind.conv == "gcn")
    assert merged.n_nodes < graphs.n_nodes  # of all depths, against one
    batch = Batch.from_data_list(graphs.to_pyg())
    assert_same(made(graphs, kind), batch, merged)
    rows = np.arange(40, 72)
    assert_same(
        made(graphs, kind), Batch.from_data_list(graphs.select(rows).to_pyg()), merged.batch(rows)
    )
