"""Graphs of edges that are numbered within each graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._pointers import pointers
from .graphset import GraphSet

__all__ = ["from_edges"]


def from_edges(
    sizes: np.ndarray,
    counts: np.ndarray,
    edges: np.ndarray,
    node_features: np.ndarray,
    edge_features: np.ndarray,
    *,
    both_ways: bool = True,
    **more: Any,
) -> GraphSet:
    """Return graphs made of edges that are numbered within each graph.

    Parameters
    ----------
    sizes, counts : numpy.ndarray of shape (n_graphs,)
        How many nodes and edges each graph has.
    edges : numpy.ndarray of shape (n_edges, 2)
        Source and target, counted from 0 in each graph.
    node_features : numpy.ndarray of shape (n_nodes, n_node_features)
        As in `GraphSet`.
    edge_features : numpy.ndarray of shape (n_edges, n_edge_features)
        Of each edge, and so of both its arcs.
    both_ways : bool, default=True
        Whether each edge becomes two arcs, one after the other, or is an arc.
    **more
        Further fields of the `GraphSet`.
    """
    node_ptr = pointers(sizes)
    arcs = edges + np.repeat(node_ptr[:-1], counts)[:, None]
    if both_ways:
        arcs = np.stack([arcs, arcs[:, ::-1]], axis=1).reshape(-1, 2)
        edge_features, counts = np.repeat(edge_features, 2, axis=0), 2 * counts
    return GraphSet(
        node_ptr,
        pointers(counts),
        arcs[:, 0],
        arcs[:, 1],
        node_features,
        edge_features,
        **more,
    )
