"""Convolutions give on merged trees what torch_geometric gives on graphs, gradients included."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import nn as pyg

from scikd.exceptions import InvalidInputError
from scikd.graphs.convolutions import convolve, register
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.refinement import ColorRefinement
from tests.reference.graph_changes import without_self_loops
from tests.reference.graph_trees import random_graphs

WIDTH, EDGE_WIDTH = 6, 3
seeds = st.integers(0, 2**32 - 1)


class Attention(pyg.GATConv):
    """A subclass, for which there is no rule."""


def mlp():
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 5), torch.nn.ReLU(), torch.nn.Linear(5, WIDTH)
    )


# Name: how to make it, whether it takes features of edges, whether it bears loops in the graphs.
KINDS = {
    "gin": (lambda: pyg.GINConv(mlp(), eps=0.3, train_eps=True), False, True),
    "gin max": (lambda: pyg.GINConv(mlp(), aggr="max"), False, True),
    "gin softmax": (lambda: pyg.GINConv(mlp(), aggr="softmax"), False, True),
    "gine": (lambda: pyg.GINEConv(mlp(), edge_dim=EDGE_WIDTH), True, True),
    "gine mean": (lambda: pyg.GINEConv(mlp(), aggr="mean", edge_dim=EDGE_WIDTH), True, True),
    "gine softmax": (lambda: pyg.GINEConv(mlp(), aggr="softmax", edge_dim=EDGE_WIDTH), True, True),
    "sage mean": (lambda: pyg.SAGEConv(WIDTH, WIDTH), False, True),
    "sage sum": (lambda: pyg.SAGEConv(WIDTH, WIDTH, aggr="add", normalize=True), False, True),
    "sage max": (lambda: pyg.SAGEConv(WIDTH, WIDTH, aggr="max", project=True), False, True),
    "sage softmax": (lambda: pyg.SAGEConv(WIDTH, WIDTH, aggr="softmax"), False, True),
    "sage alone": (lambda: pyg.SAGEConv(WIDTH, WIDTH, root_weight=False, bias=False), False, True),
    "gat": (lambda: pyg.GATConv(WIDTH, 3, heads=2), False, False),
    "gat pair": (lambda: pyg.GATConv((WIDTH, WIDTH), 3, heads=2), False, False),
    "gat without loops": (
        lambda: pyg.GATConv(WIDTH, 6, heads=2, add_self_loops=False, concat=False, bias=False),
        False,
        True,
    ),
    "gat edges": (
        lambda: pyg.GATConv(WIDTH, 3, heads=2, edge_dim=EDGE_WIDTH, residual=True),
        True,
        False,
    ),
    **{
        f"gat fill {fill}": (
            lambda fill=fill: pyg.GATConv(WIDTH, WIDTH, edge_dim=EDGE_WIDTH, fill_value=fill),
            True,
            False,
        )
        for fill in ("add", "max", "min", 0.5)
    },
    "gatv2": (lambda: pyg.GATv2Conv(WIDTH, 3, heads=2), False, False),
    "gatv2 edges": (
        lambda: pyg.GATv2Conv(
            WIDTH, 3, 2, edge_dim=EDGE_WIDTH, residual=True, fill_value=torch.ones(EDGE_WIDTH)
        ),
        True,
        False,
    ),
    "gatv2 edges without loops": (
        lambda: pyg.GATv2Conv(
            WIDTH,
            WIDTH,
            edge_dim=EDGE_WIDTH,
            add_self_loops=False,
            share_weights=True,
            concat=False,
        ),
        True,
        True,
    ),
    "gcn": (lambda: pyg.GCNConv(WIDTH, WIDTH), False, False),
    "gcn improved": (lambda: pyg.GCNConv(WIDTH, WIDTH, improved=True, bias=False), False, False),
    "gcn without loops": (lambda: pyg.GCNConv(WIDTH, WIDTH, add_self_loops=False), False, True),
    "gcn plain": (lambda: pyg.GCNConv(WIDTH, WIDTH, normalize=False), False, True),
    # without a rule of their own
    "graph": (lambda: pyg.GraphConv(WIDTH, WIDTH), False, True),
    "transformer": (lambda: pyg.TransformerConv(WIDTH, WIDTH, edge_dim=EDGE_WIDTH), True, True),
    "cg": (lambda: pyg.CGConv(WIDTH, EDGE_WIDTH), True, True),
    "mf": (lambda: pyg.MFConv(WIDTH, WIDTH), False, True),
    "attention": (lambda: Attention(WIDTH, 3, heads=2, edge_dim=EDGE_WIDTH), True, False),
    "general": (
        lambda: pyg.GeneralConv(WIDTH, WIDTH, in_edge_channels=EDGE_WIDTH, attention=True),
        True,
        True,
    ),
}  # fmt: skip


class Twice(torch.nn.Module):
    """Two convolutions on features of nodes and arcs that are learned too."""

    def __init__(self, kind, dtype, n_layers=2):
        super().__init__()
        make, self.takes_edges, _ = KINDS[kind]
        self.convs = torch.nn.ModuleList(make() for _ in range(n_layers))
        self.nodes, self.edges = torch.nn.Linear(2, WIDTH), torch.nn.Linear(1, EDGE_WIDTH)
        generator = torch.Generator().manual_seed(5)
        for parameter in self.parameters():  # biases start at zero, where a wrong one hides
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        self.to(dtype)

    def on_graphs(self, graphs):
        dtype = self.nodes.weight.dtype
        x = self.nodes(torch.tensor(graphs.node_features).to(dtype))
        arcs = torch.tensor(np.stack([graphs.sources, graphs.targets]))
        edges = self.edges(torch.tensor(graphs.edge_features).to(dtype))
        for conv in self.convs:
            x = conv(x, arcs, edges) if self.takes_edges else conv(x, arcs)
            x = torch.tanh(x)
        return x

    def on_trees(self, merged):
        dtype = self.nodes.weight.dtype
        x = self.nodes(merged.node_features.to(dtype))
        edges = self.edges(merged.edge_features.to(dtype)) if self.takes_edges else None
        for conv, level in zip(self.convs, merged.levels, strict=True):
            x = torch.tanh(convolve(conv, x, level, edges))
        return merged.readout @ x


def by_node(graphs, n_hops, *, degrees=False):
    """Merge the trees of graphs, each node a set of its own."""
    refinement = ColorRefinement(n_hops, degrees=degrees)
    roots = refinement.fit(graphs)[-1]
    return MergedGraphs.from_trees(
        refinement.trees_, np.arange(graphs.n_nodes + 1), roots, np.ones(graphs.n_nodes)
    )


def assert_same(model, graphs, merged, tolerance):
    """Compare outputs and gradients, relative to the largest."""
    expected = model.on_graphs(graphs)
    found = model.on_trees(merged)
    assert found.shape == expected.shape
    scale = expected.detach().abs().max()
    assert (found - expected).abs().max() <= tolerance * scale
    loss = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).to(expected)
    names, parameters = zip(*model.named_parameters(), strict=True)
    wanted = torch.autograd.grad((expected * loss).sum(), parameters, allow_unused=True)
    given = torch.autograd.grad((found * loss).sum(), parameters, allow_unused=True)
    largest = max(float(g.abs().max()) for g in wanted if g is not None)
    for name, one, other in zip(names, given, wanted, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            assert (one - other).abs().max() <= tolerance * largest, name


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds)
@settings(max_examples=12)
def test_outputs_and_gradients_are_those_on_graphs(kind, seed):
    graphs = random_graphs(seed, density=1.5, largest=7)
    if not KINDS[kind][2]:
        graphs = without_self_loops(graphs)
    merged = by_node(graphs, 2, degrees=kind.startswith("gcn"))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        assert_same(Twice(kind, dtype), graphs, merged, tolerance)


@given(seeds)
@settings(max_examples=20)
def test_gcn_sees_degrees_in_trees_with_one_more_hop(seed):
    graphs = without_self_loops(random_graphs(seed, density=1.5, largest=7))
    merged = by_node(graphs, 3).with_degrees()
    assert merged.n_hops == 2
    assert_same(Twice("gcn", torch.float64), graphs, merged, 1e-10)


def test_a_maximum_shares_its_gradient_among_equals():
    graphs = random_graphs(2, n_graphs=12, n_labels=1, n_edge_labels=2, density=3.0)
    assert_same(Twice("sage max", torch.float64), graphs, by_node(graphs, 2), 1e-10)


def test_gradients_have_gradients():
    graphs = random_graphs(1)
    merged = by_node(graphs, 1)
    level = merged.levels[0]
    x = torch.randn(level.own.n_columns, 3, dtype=torch.float64, requires_grad=True)
    for matrix in (level.own, level.pairs.by_column, level.subtrees, level.subtrees.by_row):
        values = torch.randn(matrix.n_columns, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda v, m=matrix: (m @ v).square(), (values,))
    assert torch.autograd.gradcheck(level.subtrees.maximum, (x,))


def test_dropout_of_attention_keeps_the_expectation():
    torch.manual_seed(0)
    graphs = without_self_loops(random_graphs(4, n_graphs=8, density=2.0))
    merged = by_node(graphs, 1)
    conv = pyg.GATConv(2, 4, heads=2, dropout=0.4)
    x = merged.node_features.float()
    with torch.no_grad():
        mean = sum(convolve(conv, x, merged.levels[0]) for _ in range(4000)) / 4000
        exact = convolve(conv.eval(), x, merged.levels[0])
    assert (mean - exact).abs().max() < 0.05 * exact.abs().max()


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", ["gat", "gatv2 edges", "gcn", "attention"])
def test_loops_that_a_convolution_would_replace_are_refused(kind):
    graphs = random_graphs(0, density=3.0)
    assert (graphs.sources == graphs.targets).any()
    with pytest.raises(InvalidInputError, match="add_self_loops=False"):
        Twice(kind, torch.float64).on_trees(by_node(graphs, 2, degrees=True))


def test_gcn_without_degrees_is_refused():
    graphs = without_self_loops(random_graphs(0))
    with pytest.raises(InvalidInputError, match="degrees=True"):
        Twice("gcn", torch.float64).on_trees(by_node(graphs, 2))


def test_what_cannot_be_exact_is_refused():
    graphs = without_self_loops(random_graphs(0))
    merged = by_node(graphs, 1)
    x, level = merged.node_features.float(), merged.levels[0]
    with pytest.raises(InvalidInputError, match="takes no pair of source and target states"):
        convolve(pyg.ChebConv(2, 4, K=2), x, level)
    with pytest.raises(InvalidInputError, match="source_to_target"):
        convolve(pyg.GINConv(torch.nn.Linear(2, 2), flow="target_to_source"), x, level)
    with pytest.raises(InvalidInputError, match="GINEConv"):
        convolve(pyg.GINConv(torch.nn.Linear(2, 2)), x, level, merged.edge_features.float())
    with pytest.raises(InvalidInputError, match="GINConv where there are none"):
        convolve(pyg.GINEConv(torch.nn.Linear(2, 2), edge_dim=1), x, level)
    fill = pyg.GATConv(2, 2, edge_dim=1, fill_value="mul")
    with pytest.raises(InvalidInputError, match="got 'mul'"):
        convolve(fill, x, level, merged.edge_features.float())
    with pytest.raises(InvalidInputError, match="aggr='add'"):
        convolve(pyg.GCNConv(2, 2, aggr="max"), x, level)


class BySources(pyg.GraphConv):
    """Divides by the number of arcs that leave a node, which a tree does not show."""

    def forward(self, x, edge_index):
        many = torch.bincount(edge_index[0], minlength=1 + int(edge_index.max()))
        weights = 1.0 / many[edge_index[0]].clamp(min=1).to(self.lin_rel.weight.dtype)
        return super().forward(x, edge_index, weights)


def test_a_convolution_that_counts_arcs_out_of_a_node_is_refused_by_trial():
    merged = by_node(without_self_loops(random_graphs(0)), 1)
    with pytest.raises(InvalidInputError, match="something else there than on graphs"):
        convolve(BySources(2, 4), merged.node_features.float(), merged.levels[0])


class Doubled(pyg.GINConv):
    """A subclass that sends something else."""

    def message(self, x_j):
        return 2 * x_j


def test_a_subclass_is_not_taken_for_its_parent():
    merged = by_node(random_graphs(0), 1)
    x, level = merged.node_features.float(), merged.levels[0]
    doubled = Doubled(torch.nn.Linear(2, 2))
    parent = pyg.GINConv(copy.deepcopy(doubled.nn))
    own, below = level.own @ x, level.subtrees @ x
    torch.testing.assert_close(convolve(doubled, x, level), doubled.nn(own + 2 * below))
    torch.testing.assert_close(convolve(parent, x, level), parent.nn(own + below))


def test_a_rule_can_be_given():
    class Own(pyg.MessagePassing):
        pass

    @register(Own)
    def _own(conv, states, level, edges):
        return level.own @ states

    merged = by_node(random_graphs(0), 1)
    x, level = merged.node_features.float(), merged.levels[0]
    torch.testing.assert_close(convolve(Own(), x, level), x[level.own.columns])
