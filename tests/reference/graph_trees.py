"""Trees around nodes, written out by the definition."""

from __future__ import annotations

import numpy as np

from scikd.graphs.graphset import GraphSet


def canonical(graphs, node, depth, *, degrees=False):
    """Return the tree around a node as nested tuples; equal tuples are equal trees."""
    label = tuple(graphs.node_features[node].tolist())
    if degrees:
        label += (int((graphs.targets == node).sum()),)
    if depth == 0:
        return (label,)
    children = [
        (
            tuple(graphs.edge_features[arc].tolist()),
            canonical(graphs, graphs.sources[arc], depth - 1, degrees=degrees),
        )
        for arc in np.flatnonzero(graphs.targets == node)
    ]
    return (label, tuple(sorted(children)))


def n_tree_nodes(tree):
    """Count the nodes of a canonical tree."""
    return 1 + sum(n_tree_nodes(child) for _, child in (tree[1] if len(tree) > 1 else ()))


def canonical_of(trees, unfolded):
    """Return the nested tuples of a tree that was written out from its number."""
    children = [[] for _ in unfolded.labels]
    for node in range(len(unfolded.labels) - 1, -1, -1):
        label = tuple(trees.labels[unfolded.labels[node]].tolist())
        if trees.degrees is not None:
            label += (int(trees.degrees[unfolded.labels[node]]),)
        deepest = unfolded.depths[node] == trees.n_hops
        tree = (label,) if deepest else (label, tuple(sorted(children[node])))
        if unfolded.parents[node] < 0:
            return tree
        edge = tuple(trees.edge_labels[unfolded.edges[node]].tolist())
        children[unfolded.parents[node]].append((edge, tree))
    raise AssertionError("no root")


def random_graphs(seed, n_graphs=4, n_labels=2, n_edge_labels=2, largest=6, density=1.0):
    """Return graphs with directions, self-loops, parallel arcs and nodes without arcs."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, largest + 1, n_graphs)
    many = random.poisson(density * sizes)
    node_ptr = np.concatenate([[0], np.cumsum(sizes)])
    arc_ptr = np.concatenate([[0], np.cumsum(many)])
    starts, widths = np.repeat(node_ptr[:-1], many), np.repeat(sizes, many)
    ends = [starts + (random.random(len(starts)) * widths).astype(np.int64) for _ in range(2)]
    return GraphSet(
        node_ptr=node_ptr,
        arc_ptr=arc_ptr,
        sources=ends[0],
        targets=ends[1],
        node_features=random.integers(0, n_labels, (node_ptr[-1], 2)),
        edge_features=random.integers(0, n_edge_labels, (arc_ptr[-1], 1)),
        y=random.integers(0, 2, n_graphs),
    )
