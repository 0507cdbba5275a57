"""Trees around nodes written out in Python, as the published code does before it compares them."""

from __future__ import annotations

from scikd.graphs.graphset import GraphSet

__all__ = ["count_distinct"]


def count_distinct(graphs: GraphSet, n_hops: int) -> int:
    """Write out the tree of every node, and count those that differ.

    Each neighbour is a child of its own, and no tree is looked up or shared: the tree of depth
    ``n_hops`` is written out anew from every node.
    """
    arcs: list[list[tuple[int, tuple[float, ...]]]] = [[] for _ in range(graphs.n_nodes)]
    for source, target, features in zip(
        graphs.sources.tolist(), graphs.targets.tolist(), graphs.edge_features.tolist(), strict=True
    ):
        arcs[target].append((source, tuple(features)))
    labels = [tuple(row) for row in graphs.node_features.tolist()]

    def unfold(node: int, depth: int) -> tuple[object, ...]:
        if depth == 0:
            return (labels[node],)
        below = [(edge, unfold(source, depth - 1)) for source, edge in arcs[node]]
        return (labels[node], tuple(sorted(below)))

    return len({unfold(node, n_hops) for node in range(graphs.n_nodes)})
