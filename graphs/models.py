"""A classifier of graphs that runs on graphs, on forests of trees, and on merged trees alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.utils import scatter

from scikd.exceptions import InvalidInputError

from .convolutions import convolve
from .dag import MergedGraphs
from .features import FeatureColumns, FeatureEncoder
from .graphset import GraphSet

__all__ = [
    "ClassifierSettings",
    "GraphClassifier",
    "WeightedBatchNorm",
]


@dataclass(frozen=True)
class ClassifierSettings:
    """Kind and sizes of a `GraphClassifier`.

    Parameters
    ----------
    n_classes : int, default=2
        Number of logits.
    conv : {"gin", "gine", "sage", "gat", "gatv2", "gcn"}, default="gin"
        The convolution. GINE needs features of edges; GAT and GATv2 take them where there are any.
    n_layers : int, default=3
        Number of convolutions.
    hidden_channels : int, default=32
        Width of all layers.
    heads : int, default=1
        Attention heads of GAT and GATv2; must divide ``hidden_channels``.
    aggr : {"mean", "max", "sum"}, default="mean"
        What SAGE does with messages.
    norm : {"layer", "batch"} or None, default=None
        Normalisation after each convolution. On merged trees that of a batch weighs each tree by
        the number of nodes that have it, so the statistics are those of the graphs; on forests
        only roots count.
    dropout : float, default=0.0
        After each convolution. On merged trees it strikes all copies of a tree alike.
    jumping_knowledge : {"last", "sum"}, default="last"
        What is read out: the last layer, or the sum of the encoded features and all layers.
    readout : {"sum", "mean"}, default="sum"
        Over the nodes of a graph, or the roots of a forest.
    """

    n_classes: int = 2
    conv: Literal["gin", "gine", "sage", "gat", "gatv2", "gcn"] = "gin"
    n_layers: int = 3
    hidden_channels: int = 32
    heads: int = 1
    aggr: Literal["mean", "max", "sum"] = "mean"
    norm: Literal["layer", "batch"] | None = None
    dropout: float = 0.0
    jumping_knowledge: Literal["last", "sum"] = "last"
    readout: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        """Refuse settings that make no network, all at once."""
        problems = [
            f"{name} is {getattr(self, name)!r}, expected one of {list(allowed)}"
            for name, allowed in _ALLOWED.items()
            if getattr(self, name) not in allowed
        ]
        problems += [
            f"{f.name} is {getattr(self, f.name)!r}, expected at least 1"
            for f in fields(self)
            if f.type == "int" and not getattr(self, f.name) >= 1
        ]
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout!r}, expected 0 up to below 1")
        if self.heads >= 1 and self.hidden_channels % self.heads:
            problems.append(
                f"hidden_channels {self.hidden_channels} is no multiple of heads {self.heads}"
            )
        if problems:
            message = f"Cannot build a GraphClassifier: {'; '.join(problems)}."
            raise InvalidInputError(message)


_ALLOWED: dict[str, tuple[str | None, ...]] = {
    "conv": ("gin", "gine", "sage", "gat", "gatv2", "gcn"),
    "aggr": ("mean", "max", "sum"),
    "norm": (None, "layer", "batch"),
    "jumping_knowledge": ("last", "sum"),
    "readout": ("sum", "mean"),
}
_WITH_EDGES = {"gine", "gat", "gatv2"}


def _convolution(settings: ClassifierSettings, edge_dim: int | None) -> nn.Module:
    width = settings.hidden_channels
    if settings.conv in {"gin", "gine"}:
        mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        return pyg.GINConv(mlp) if edge_dim is None else pyg.GINEConv(mlp, edge_dim=edge_dim)
    if settings.conv == "sage":
        return pyg.SAGEConv(width, width, aggr=settings.aggr)
    if settings.conv == "gcn":
        return pyg.GCNConv(width, width)
    attention = pyg.GATConv if settings.conv == "gat" else pyg.GATv2Conv
    return attention(width, width // settings.heads, heads=settings.heads, edge_dim=edge_dim)


def _edge_features(batch: Any) -> Tensor:
    if batch.edge_attr is None:
        message = (
            "Expected edge_attr in the graphs, as in the data the model was made for; got none."
        )
        raise InvalidInputError(message)
    features: Tensor = batch.edge_attr
    return features


class WeightedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation in which a row can count as often as a weight says."""

    def forward(self, input: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: A002
        """Normalise rows.

        Parameters
        ----------
        input : torch.Tensor of shape (n, n_features)
            The rows.
        weights : torch.Tensor of shape (n,) or None, default=None
            How often each row counts; once by default.

        Returns
        -------
        torch.Tensor of shape (n, n_features)
            What `torch.nn.BatchNorm1d` gives for rows repeated so often.
        """
        if weights is None or not self.training:
            return super().forward(input)
        total = weights.sum()
        shares = (weights / total).to(input.dtype)
        mean = shares @ input
        centred = input - mean
        variance = shares @ centred.square()
        self._track(mean, variance * (total / (total - 1).clamp(min=1)).to(variance.dtype))
        return centred * ((variance + self.eps).rsqrt() * self.weight) + self.bias

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        n_seen, mean_so_far, variance_so_far = (
            self.num_batches_tracked,
            self.running_mean,
            self.running_var,
        )
        if n_seen is None or mean_so_far is None or variance_so_far is None:
            return
        n_seen.add_(1)
        share = 1 / float(n_seen) if self.momentum is None else self.momentum
        mean_so_far.lerp_(mean, share)
        variance_so_far.lerp_(unbiased_variance, share)


# ---------------------------------------------------------------------------------------- model


class GraphClassifier(nn.Module):
    """A message-passing network with a readout and a linear head.

    Parameters
    ----------
    settings : ClassifierSettings
        Kind and sizes.
    node_features : FeatureColumns
        Features of nodes.
    edge_features : FeatureColumns or None, default=None
        Features of arcs. Only GINE, GAT and GATv2 take them.
    metadata : mapping of str to JSON values, or None, default=None
        Anything to keep with the model.

    Raises
    ------
    InvalidInputError
        If the convolution needs features of edges and there are none.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        node_features: FeatureColumns,
        edge_features: FeatureColumns | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.metadata = dict(metadata or {})
        channels = settings.hidden_channels
        taken = edge_features if settings.conv in _WITH_EDGES else None
        if settings.conv == "gine" and taken is None:
            message = "conv 'gine' needs features of edges, and there are none: use 'gin'."
            raise InvalidInputError(message)
        self.encode_nodes = FeatureEncoder(node_features, channels)
        self.encode_edges = None if taken is None else FeatureEncoder(taken, channels)
        edge_dim = None if taken is None else channels
        self.convs = nn.ModuleList(
            _convolution(settings, edge_dim) for _ in range(settings.n_layers)
        )
        norms: dict[str | None, Callable[[int], nn.Module]] = {
            "layer": nn.LayerNorm,
            "batch": WeightedBatchNorm,
            None: nn.Identity,
        }
        self.norms = nn.ModuleList(norms[settings.norm](channels) for _ in self.convs)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(channels, settings.n_classes)

    @classmethod
    def for_data(
        cls,
        data: GraphSet | MergedGraphs,
        settings: ClassifierSettings,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> GraphClassifier:
        """Make an untrained model whose vocabularies are the values in some data.

        Parameters
        ----------
        data : GraphSet or MergedGraphs
            The data to train on.
        settings : ClassifierSettings
            Kind and sizes.
        metadata : mapping of str to JSON values, or None, default=None
            Anything to keep with the model.
        """
        edges = FeatureColumns.of(data.edge_features) if data.edge_features.shape[1] else None
        return cls(settings, FeatureColumns.of(data.node_features), edges, metadata=metadata)

    def describe(self) -> dict[str, Any]:
        """Return all but the weights as JSON values, for `scikd.graphs.storage`."""
        edges = self.encode_edges
        return {
            "settings": asdict(self.settings),
            "node_features": asdict(self.encode_nodes.columns),
            "edge_features": None if edges is None else asdict(edges.columns),
            "metadata": self.metadata,
        }

    def forward(self, graphs: Any) -> Tensor:
        """Return the logits of graphs.

        Parameters
        ----------
        graphs : MergedGraphs, or torch_geometric.data.Batch or Data
            Merged graphs of as many hops as there are layers; deeper trees are cut, at each call.
            For GCN they have degrees, or one hop more. Whole graphs otherwise, or forests, whose
            ``root_mask`` says which nodes are read out.

        Returns
        -------
        torch.Tensor of shape (n_graphs, n_classes)
            The logits, which are the same either way but for rounding.

        Raises
        ------
        InvalidInputError
            If the trees are less deep than the network, or features do not fit.
        """
        merged = isinstance(graphs, MergedGraphs)
        pooled = self._pool_merged(graphs) if merged else self._pool_graphs(graphs)
        logits: Tensor = self.head(pooled)
        return logits

    def _pool_merged(self, merged: MergedGraphs) -> Tensor:
        merged = self._cut(merged)
        weights = merged.occurrences if self.settings.norm == "batch" else None
        states = total = self.encode_nodes(merged.node_features)
        edges = None if self.encode_edges is None else self.encode_edges(merged.edge_features)
        for depth, (conv, level) in enumerate(zip(self.convs, merged.levels, strict=True), 1):
            states = convolve(conv, states, level, edges)
            states = self._after(depth, states, None if weights is None else weights[depth])
            if self.settings.jumping_knowledge == "sum":
                total = states + level.own @ total
        pooled = merged.readout @ (total if self.settings.jumping_knowledge == "sum" else states)
        if self.settings.readout == "mean":
            pooled = pooled / merged.readout.sums.clamp(min=1).to(pooled.dtype)[:, None]
        return pooled

    def _cut(self, merged: MergedGraphs) -> MergedGraphs:
        n_layers = self.settings.n_layers
        lacks_degrees = self.settings.conv == "gcn" and merged.degrees is None
        if merged.n_hops < n_layers:
            message = (
                f"Expected trees of depth {n_layers}, one for each layer; got depth "
                f"{merged.n_hops}. Merge the graphs with n_hops={n_layers}, or take fewer layers."
            )
            raise InvalidInputError(message)
        if lacks_degrees and merged.n_hops > n_layers:
            return merged.truncate(n_layers + 1).with_degrees()
        return merged.truncate(n_layers)

    def _pool_graphs(self, batch: Any) -> Tensor:
        arcs, owners = batch.edge_index, getattr(batch, "batch", None)
        roots = getattr(batch, "root_mask", None)
        features = batch.x
        if features is None:
            features = arcs.new_empty(batch.num_nodes, 0)
        if owners is None:
            owners = arcs.new_zeros(len(features))
        states = total = self.encode_nodes(features)
        edges = () if self.encode_edges is None else (self.encode_edges(_edge_features(batch)),)
        weights = None if roots is None else roots.to(states.dtype)
        for depth, conv in enumerate(self.convs, 1):
            states = self._after(depth, conv(states, arcs, *edges), weights)
            total = total + states if self.settings.jumping_knowledge == "sum" else states
        if roots is not None:
            total, owners = total[roots], owners[roots]
        n_graphs = getattr(batch, "num_graphs", 1)
        pooled: Tensor = scatter(total, owners, 0, n_graphs, self.settings.readout)
        return pooled

    def _after(self, depth: int, states: Tensor, weights: Tensor | None) -> Tensor:
        norm = self.norms[depth - 1]
        states = norm(states, weights) if isinstance(norm, WeightedBatchNorm) else norm(states)
        if depth < self.settings.n_layers:
            states = states.relu()
        dropped: Tensor = self.dropout(states)
        return dropped
