"""Graphs made from graphs, arc by arc."""

from __future__ import annotations

from dataclasses import replace

import numpy as np


def without_self_loops(graphs):
    """Return graphs without the arcs from a node to itself."""
    kept = [a for a in range(graphs.n_arcs) if graphs.sources[a] != graphs.targets[a]]
    owners = graphs.graph_of_node[graphs.sources[kept]]
    return replace(
        graphs,
        arc_ptr=np.array([int((owners < g).sum()) for g in range(len(graphs) + 1)]),
        sources=graphs.sources[kept],
        targets=graphs.targets[kept],
        edge_features=graphs.edge_features[kept],
    )
