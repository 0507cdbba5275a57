"""Several collections of trees as one, in which equal trees are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ._pointers import pointers, take_runs
from .kernels.refinement import distinct_trees
from .refinement import number_labels
from .trees import TreeLevel, Trees

__all__ = ["merge", "reorder"]


def merge(parts: Sequence[Trees]) -> Trees:
    """Make one collection of several, in which equal trees are one.

    Parameters
    ----------
    parts : sequence of Trees
        Trees of the same depth and features.

    Returns
    -------
    Trees
        Numbered in the order of first sight.
    """
    labels = np.concatenate([part.labels for part in parts])
    edge_labels = np.concatenate([part.edge_labels for part in parts])
    degrees = None
    if parts[0].degrees is not None:
        degrees = np.concatenate([part.degrees for part in parts if part.degrees is not None])
    below, first = number_labels(labels, degrees)
    edges, first_edge = number_labels(edge_labels)
    starts = pointers([len(part.labels) for part in parts])[:-1]
    start_edge = pointers([len(part.edge_labels) for part in parts])[:-1]
    levels = []
    for depth in range(parts[0].n_hops):
        same = [part.levels[depth] for part in parts]
        arcs = [level.one_by_one() for level in same]
        below, level = distinct_trees(
            below[_joined([level.own for level in same], starts)],
            below,
            pointers(np.concatenate([np.diff(ptr) for ptr, _, _ in arcs])),
            _joined([child for _, child, _ in arcs], starts),
            edges[_joined([edge for _, _, edge in arcs], start_edge)],
        )
        starts = pointers([len(level) for level in same])[:-1]
        levels.append(TreeLevel(*level))
    return Trees(
        labels=labels[first],
        edge_labels=edge_labels[first_edge],
        levels=tuple(levels),
        degrees=None if degrees is None else degrees[first],
        self_loops=any(part.self_loops for part in parts),
    )


def reorder(
    trees: Trees, orders: Sequence[np.ndarray], edge_order: np.ndarray
) -> tuple[Trees, np.ndarray]:
    """Give trees other numbers.

    Parameters
    ----------
    trees : Trees
        The trees.
    orders : sequence of numpy.ndarray
        The trees of each depth, in the new order.
    edge_order : numpy.ndarray
        The labels of arcs, in the new order.

    Returns
    -------
    trees : Trees
        The same trees.
    numbers : numpy.ndarray, int32
        The new number of each of the deepest trees.
    """
    ranks, edges = [_inverse(order) for order in orders], _inverse(edge_order)
    levels = []
    for level, order, below in zip(trees.levels, orders[1:], ranks[:-1], strict=True):
        sizes = np.diff(level.ptr)[order]
        rows, ptr = take_runs(level.ptr, order)
        child, edge = below[level.child[rows]], edges[level.edge[rows]]
        ranked = np.lexsort((child, edge, np.repeat(np.arange(len(order)), sizes)))
        levels.append(
            TreeLevel(
                own=below[level.own[order]],
                ptr=ptr,
                child=child[ranked],
                edge=edge[ranked],
                count=level.count[rows][ranked],
            )
        )
    ordered = replace(
        trees,
        labels=trees.labels[orders[0]],
        edge_labels=trees.edge_labels[edge_order],
        levels=tuple(levels),
        degrees=None if trees.degrees is None else trees.degrees[orders[0]],
    )
    return ordered, ranks[-1]


def _joined(parts: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """Return numbers that count in each part as numbers that count through all."""
    return np.concatenate([part + start for part, start in zip(parts, starts, strict=True)])


def _inverse(order: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order))
    return ranks
