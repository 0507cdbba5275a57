"""Convolutions of torch_geometric, with their own parameters, on merged trees.

On trees an arc stands for as many arcs as there are copies of its subtree. A sum takes it so many
times, a mean divides by the number of all copies, a maximum needs it once, and attention multiplies
its share before normalising. Each rule here does for one class of torch_geometric what the class
does on graphs; other classes run on arcs that are repeated, where a trial shows that this is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, GINConv, GINEConv, SAGEConv, aggr

from scikd.exceptions import InvalidInputError

from .dag import MergedLevel
from .sparse import SparseMatrix

__all__ = ["convolve", "register"]

Rule = Callable[[Any, Tensor, MergedLevel, Tensor | None], Tensor]

_RULES: dict[type, Rule] = {}
_TRIED: WeakSet[torch.nn.Module] = WeakSet()
_TOLERANCE = 1e-4  # of a trial in float32; what is not exact misses by far more


def convolve(
    convolution: torch.nn.Module,
    states: Tensor,
    level: MergedLevel,
    edge_features: Tensor | None = None,
) -> Tensor:
    """Run a convolution on trees of one depth.

    Parameters
    ----------
    convolution : torch_geometric.nn.MessagePassing
        Any that can be exact on trees. ``GINConv``, ``GINEConv``, ``SAGEConv``, ``GATConv``,
        ``GATv2Conv`` and ``GCNConv`` are fast; `register` adds others.
    states : torch.Tensor of shape (n_below, n_channels)
        Of the trees that are one level less deep.
    level : MergedLevel
        The trees.
    edge_features : torch.Tensor of shape (n_edge_labels, n_edge_channels) or None, default=None
        Of each label of arcs, where the convolution takes them.

    Returns
    -------
    torch.Tensor of shape (n_trees, n_out_channels)
        What the convolution gives on graphs to each node with that tree, but for rounding. Dropout
        within it treats all copies of a tree alike.

    Raises
    ------
    InvalidInputError
        If the convolution needs what trees do not show; the message says what.
    """
    flow = getattr(convolution, "flow", None)
    if flow != "source_to_target":
        message = (
            "Expected a convolution of torch_geometric with flow 'source_to_target'; got "
            f"{type(convolution).__name__} with {flow!r}."
        )
        raise InvalidInputError(message)
    return _RULES.get(type(convolution), _repeated)(convolution, states, level, edge_features)


def register(kind: type) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of a class of convolutions.

    Parameters
    ----------
    kind : type
        The class; its subclasses, which may differ, need rules of their own.

    Returns
    -------
    callable
        It takes and returns a function of ``(convolution, states, level, edge_features)``, as
        `convolve`.
    """

    def keep(rule: Rule) -> Rule:
        _RULES[kind] = rule
        return rule

    return keep


# ----------------------------------------------------------------------------------------- sums


@register(GINConv)
def _gin(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    _without_edges(conv, edges, "GINEConv")
    reduced = _reduced(conv, level.subtrees, states)
    if reduced is None:
        return _repeated(conv, states, level, None)
    return conv.nn(reduced + (1 + conv.eps) * (level.own @ states))


@register(GINEConv)
def _gine(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    if edges is None:
        message = "GINEConv needs features of edges; got None. Use GINConv where there are none."
        raise InvalidInputError(message)
    shown = edges if conv.lin is None else conv.lin(edges)
    messages = (level.subtree @ states + level.label @ shown).relu()
    reduced = _reduced(conv, level.pairs, messages)
    if reduced is None:
        return _repeated(conv, states, level, edges)
    return conv.nn(reduced + (1 + conv.eps) * (level.own @ states))


@register(SAGEConv)
def _sage(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    _without_edges(conv, edges, "GINEConv")
    sent = conv.lin(states).relu() if conv.project else states
    reduced = _reduced(conv, level.subtrees, sent)
    if reduced is None:
        return _repeated(conv, states, level, None)
    out = conv.lin_l(reduced)
    if conv.root_weight:
        out = out + level.own @ conv.lin_r(states)
    return F.normalize(out, p=2.0, dim=-1) if conv.normalize else out


@register(GCNConv)
def _gcn(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    _without_edges(conv, edges, "GATConv")
    if type(conv.aggr_module) is not aggr.SumAggregation:
        message = f"Expected GCNConv with aggr='add'; got {conv.aggr!r}."
        raise InvalidInputError(message)
    sent = conv.lin(states)
    if conv.normalize:
        if level.degrees_below is None:
            message = (
                "GCNConv divides by the degrees of neighbours, which trees of this depth do not "
                "show: merge the graphs with degrees=True, or with one hop more than layers and "
                "with_degrees()."
            )
            raise InvalidInputError(message)
        # torch_geometric heeds `improved` only where arcs have weights, and here they have none.
        loop = float(conv.add_self_loops)
        if loop:
            _without_self_loops(conv, level)
        below, above = (
            _inverse_root(degrees.to(states.dtype) + loop)[:, None]
            for degrees in (level.degrees_below, level.degrees)
        )
        out = above * (level.subtrees @ (below * sent))
        if loop:
            out = out + above.square() * (level.own @ sent)
    else:
        out = level.subtrees @ sent
    return out if conv.bias is None else out + conv.bias


def _inverse_root(degrees: Tensor) -> Tensor:
    return torch.where(degrees > 0, degrees.clamp(min=1).rsqrt(), 0.0)


def _reduced(conv: Any, matrix: SparseMatrix, messages: Tensor) -> Tensor | None:
    """Aggregate messages with multiplicities; None where there is no rule for the aggregation."""
    kind = type(conv.aggr_module)
    if kind is aggr.SumAggregation:
        return matrix @ messages
    if kind is aggr.MeanAggregation:
        return _mean(matrix, messages)
    if kind is aggr.MaxAggregation:
        return matrix.maximum(messages)
    return None


def _mean(matrix: SparseMatrix, messages: Tensor) -> Tensor:
    return (matrix @ messages) / matrix.sums.clamp(min=1).to(messages.dtype)[:, None]


# ------------------------------------------------------------------------------------ attention


@register(GATConv)
def _gat(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    heads = (-1, conv.heads, conv.out_channels)
    sent = (conv.lin if conv.lin is not None else conv.lin_src)(states).view(heads)
    told = sent if conv.lin is not None else conv.lin_dst(states).view(heads)
    from_subtree = (sent * conv.att_src).sum(-1)
    of_root = level.own @ (told * conv.att_dst).sum(-1)
    loop = level.own @ from_subtree + of_root
    if edges is None or conv.lin_edge is None:
        arcs = level.subtrees
        score = arcs.by_column @ from_subtree
    else:
        arcs = level.pairs
        from_label = (conv.lin_edge(edges).view(heads) * conv.att_edge).sum(-1)
        score = arcs.by_column @ (level.subtree @ from_subtree + level.label @ from_label)
        if conv.add_self_loops:
            of_loop = conv.lin_edge(_loop_features(conv, level, edges)).view(heads)
            loop = loop + (of_loop * conv.att_edge).sum(-1)
    score = F.leaky_relu(score + arcs.by_row @ of_root, conv.negative_slope)
    loop = F.leaky_relu(loop, conv.negative_slope)
    return _attended(conv, states, level, sent, score, loop)


@register(GATv2Conv)
def _gatv2(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    heads = (-1, conv.heads, conv.out_channels)
    sent = conv.lin_l(states).view(heads)
    told = level.own @ conv.lin_r(states).view(heads)
    loop = level.own @ sent + told
    if edges is None or conv.lin_edge is None:
        arcs = level.subtrees
        mixed = arcs.by_column @ sent
    else:
        arcs = level.pairs
        shown = conv.lin_edge(edges).view(heads)
        mixed = arcs.by_column @ (level.subtree @ sent + level.label @ shown)
        if conv.add_self_loops:
            loop = loop + conv.lin_edge(_loop_features(conv, level, edges)).view(heads)
    score, loop = (
        (F.leaky_relu(values, conv.negative_slope) * conv.att).sum(-1)
        for values in (mixed + arcs.by_row @ told, loop)
    )
    return _attended(conv, states, level, sent, score, loop)


def _attended(
    conv: Any, states: Tensor, level: MergedLevel, sent: Tensor, score: Tensor, loop: Tensor
) -> Tensor:
    """Add up what is sent, weighted by the softmax of scores with multiplicities.

    ``score`` has a row for each distinct arc, ``loop`` one for each tree: of the loop that the
    convolution adds.
    """
    if conv.add_self_loops:
        _without_self_loops(conv, level)
    counts = level.pairs.counts_as(score.dtype)
    by_tree = level.pairs.by_row
    with torch.no_grad():
        largest = by_tree.transposed.maximum(score)
        if conv.add_self_loops:
            largest = torch.where(level.degrees[:, None] > 0, largest.maximum(loop), loop)
    share = (score - by_tree @ largest).exp()
    if counts is not None:
        share = share * counts[:, None]
    total = by_tree.transposed @ share
    share = F.dropout(share, conv.dropout, conv.training)
    out = by_tree.transposed @ (share[:, :, None] * (level.subtrees.by_column @ sent))
    if conv.add_self_loops:
        kept = (loop - largest).exp()
        total = total + kept
        kept = F.dropout(kept, conv.dropout, conv.training)
        out = out + kept[:, :, None] * (level.own @ sent)
    out = out / torch.where(total > 0, total, 1.0)[:, :, None]
    out = out.flatten(1) if conv.concat else out.mean(1)
    if getattr(conv, "res", None) is not None:
        out = out + level.own @ conv.res(states)
    return out if conv.bias is None else out + conv.bias


def _loop_features(conv: Any, level: MergedLevel, edges: Tensor) -> Tensor:
    """Return the features of the loops that a convolution adds, as ``fill_value`` says."""
    fill, n_trees = conv.fill_value, level.own.n_rows
    if isinstance(fill, Tensor):
        return fill.to(edges).view(1, -1).expand(n_trees, -1)
    if not isinstance(fill, str):
        return edges.new_full((n_trees, edges.shape[1]), float(fill))
    if fill == "mean":
        return _mean(level.labels, edges)
    if fill in {"add", "sum"}:
        return level.labels @ edges
    if fill == "max":
        return level.labels.maximum(edges)
    if fill == "min":
        return -level.labels.maximum(-edges)
    message = (
        f"Expected fill_value 'mean', 'add', 'max', 'min', a number or a tensor; got {fill!r}."
    )
    raise InvalidInputError(message)


# -------------------------------------------------------------------------------- everything else


def _repeated(conv: Any, states: Tensor, level: MergedLevel, edges: Tensor | None) -> Tensor:
    """Run a convolution as one between subtrees and trees, with arcs repeated by their counts."""
    if getattr(conv, "add_self_loops", False):
        _without_self_loops(conv, level)
    if conv not in _TRIED:
        _try_out(conv, states, edges)
        _TRIED.add(conv)
    pairs = level.pairs
    arcs = torch.arange(len(pairs.columns), device=pairs.columns.device)
    if pairs.counts is not None:
        arcs = arcs.repeat_interleave(pairs.counts)
    sources = level.subtree.columns[pairs.columns[arcs]]
    features = None if edges is None else edges[level.label.columns[pairs.columns[arcs]]]
    return _as_pair(conv, states, level.own @ states, sources, pairs.rows[arcs], features)


def _as_pair(
    conv: Any,
    states: Tensor,
    own: Tensor,
    sources: Tensor,
    targets: Tensor,
    features: Tensor | None,
) -> Tensor:
    # What comes first among the sources is what torch_geometric takes for the targets themselves,
    # when it adds an arc from each node to itself.
    both = torch.cat([own, states]), own
    arcs = torch.stack([sources + len(own), targets])
    return conv(both, arcs) if features is None else conv(both, arcs, features)


def _try_out(conv: Any, states: Tensor, edges: Tensor | None) -> None:
    """Raise unless a convolution gives the same on a small graph and on its trees."""
    random = torch.Generator().manual_seed(0)
    n, m = 9, 20
    ends = torch.randint(n, (2, m), generator=random)
    ends[1] = torch.where(ends[0] == ends[1], (ends[1] + 1) % n, ends[1])
    ends = torch.cat([ends, ends[:, :4]], dim=1)  # some of them twice
    x = torch.randn(n, states.shape[1], generator=random)
    names = [] if edges is None else [torch.randn(len(ends[0]), edges.shape[1], generator=random)]
    ends, x, *names = (values.to(states.device) for values in (ends, x, *names))
    x, *names = (values.to(states.dtype) for values in (x, *names))
    trial = copy.deepcopy(conv).eval()
    with torch.no_grad():
        expected = trial(x, ends, *names)
        try:
            # Each arc has a source of its own, as in trees.
            each = torch.arange(ends.shape[1], device=x.device)
            found = _as_pair(trial, x[ends[0]], x, each, ends[1], names[0] if names else None)
            problem = None if torch.allclose(found, expected, _TOLERANCE, _TOLERANCE) else (
                "gives something else there than on graphs"
            )  # fmt: skip
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            problem = f"takes no pair of source and target states ({error})"
    if problem:
        message = (
            f"{type(conv).__name__} cannot run on merged trees: without a rule it must treat the "
            f"states of sources and targets as two things, and it {problem}. Train it on graphs, "
            "or write a rule with scikd.graphs.convolutions.register."
        )
        raise InvalidInputError(message)


def _without_edges(conv: Any, edges: Tensor | None, other: str) -> None:
    if edges is not None:
        message = (
            f"{type(conv).__name__} takes no features of edges; use one that does, as {other}."
        )
        raise InvalidInputError(message)


def _without_self_loops(conv: Any, level: MergedLevel) -> None:
    if level.self_loops:
        message = (
            f"{type(conv).__name__} replaces arcs from a node to itself, and the graphs have such "
            "arcs: in a tree they look like arcs from an equal neighbour. Remove them from the "
            "graphs first, or build the convolution with add_self_loops=False."
        )
        raise InvalidInputError(message)
