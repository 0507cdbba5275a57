"""Several collections of trees as one, in which equal trees are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ._pointers import pointers, take_runs
from .kernels import refinement as kernels
from .kernels.refinement import distinct_trees
from .refinement import bit_rows, with_degrees
from .trees import TreeLevel, Trees

__all__ = ["merge", "reorder"]

_LOW = 0xFFFFFFFF


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
    below, first = kernels.number_rows(with_degrees(bit_rows(labels), degrees))
    edges, first_edge = kernels.number_rows(bit_rows(edge_labels))
    starts = pointers([len(part.labels) for part in parts])[:-1]
    start_edge = pointers([len(part.edge_labels) for part in parts])[:-1]
    levels = []
    for depth in range(parts[0].n_hops):
        same = [part.levels[depth] for part in parts]
        own, ptr, keys, counts = _rows(
            np.concatenate([np.diff(level.ptr) for level in same]),
            below[_joined([level.own for level in same], starts)],
            below[_joined([level.child for level in same], starts)],
            edges[_joined([level.edge for level in same], start_edge)],
            np.concatenate([level.count for level in same]),
        )
        below, table = distinct_trees(own, ptr, keys, counts)
        starts = pointers([len(level) for level in same])[:-1]
        levels.append(_level(table.own, table.ptr, table.keys, table.counts))
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
        rows, _ = take_runs(level.ptr, order)
        found = _rows(
            sizes,
            below[level.own[order]],
            below[level.child[rows]],
            edges[level.edge[rows]],
            level.count[rows],
        )
        levels.append(_level(*found))
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


def _rows(
    sizes: np.ndarray, own: np.ndarray, child: np.ndarray, edge: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return trees as rows of ascending keys, of `scikd.graphs.kernels.refinement.Table`."""
    keys = edge.astype(np.int64) << 32 | child
    order = np.lexsort((keys, np.repeat(np.arange(len(sizes)), sizes)))
    return own, pointers(sizes), keys[order], count[order]


def _level(own: np.ndarray, ptr: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> TreeLevel:
    return TreeLevel(
        own=own,
        ptr=ptr,
        child=(keys & _LOW).astype(np.int32),
        edge=(keys >> 32).astype(np.int32),
        count=counts,
    )
