"""Graphs as transactions: which trees each of them holds, and how often."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["count_trees", "item_bits", "item_supports"]


@njit(cache=True, nogil=True)
def count_trees(
    colors: np.ndarray, node_ptr: np.ndarray, n_colors: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the trees of each graph.

    Parameters
    ----------
    colors : numpy.ndarray of shape (n_nodes,), int32
        Number of the tree around each node; -1 is left out.
    node_ptr : numpy.ndarray of shape (n_graphs + 1,), int64
        Nodes of graph g are ``node_ptr[g]`` to ``node_ptr[g + 1]``.
    n_colors : int
        How many trees there are.

    Returns
    -------
    ptr : numpy.ndarray of shape (n_graphs + 1,), int64
        Where the trees of each graph begin in the other two.
    trees : numpy.ndarray of shape (n_entries,), int32
        Distinct trees of each graph, ascending.
    counts : numpy.ndarray of shape (n_entries,), int32
        How many nodes have them.
    """
    ptr = np.zeros(node_ptr.shape[0], np.int64)
    trees, counts = np.empty(colors.shape[0], np.int32), np.empty(colors.shape[0], np.int32)
    place = np.full(n_colors, -1, np.int64)
    filled = 0
    for graph in range(node_ptr.shape[0] - 1):
        start = filled
        for node in range(node_ptr[graph], node_ptr[graph + 1]):
            color = colors[node]
            if color >= 0:
                if place[color] < start:
                    place[color] = filled
                    trees[filled] = color
                    counts[filled] = 0
                    filled += 1
                counts[place[color]] += 1
        order = np.argsort(trees[start:filled])
        trees[start:filled] = trees[start:filled][order]
        counts[start:filled] = counts[start:filled][order]
        ptr[graph + 1] = filled
    return ptr, trees[:filled].copy(), counts[:filled].copy()


@njit(cache=True, nogil=True)
def item_supports(
    ptr: np.ndarray,
    trees: np.ndarray,
    counts: np.ndarray,
    graphs: np.ndarray,
    n_colors: int,
    thresholds: np.ndarray,
) -> np.ndarray:
    """Count the graphs that hold a tree at least so often.

    Parameters
    ----------
    ptr, trees, counts : numpy.ndarray
        Of `count_trees`.
    graphs : numpy.ndarray of shape (n,), int64
        The graphs to look at.
    n_colors : int
        How many trees there are.
    thresholds : numpy.ndarray of shape (n_thresholds,), int32
        Ascending, from 1.

    Returns
    -------
    numpy.ndarray of shape (n_colors, n_thresholds), int64
        The supports.
    """
    supports = np.zeros((n_colors, thresholds.shape[0]), np.int64)
    for graph in graphs:
        for entry in range(ptr[graph], ptr[graph + 1]):
            for step in range(thresholds.shape[0]):
                if counts[entry] < thresholds[step]:
                    break
                supports[trees[entry], step] += 1
    return supports


@njit(cache=True, nogil=True)
def item_bits(
    ptr: np.ndarray,
    trees: np.ndarray,
    counts: np.ndarray,
    graphs: np.ndarray,
    items: np.ndarray,
    thresholds: np.ndarray,
    n_items: int,
) -> np.ndarray:
    """Return one row of bits for each item: which graphs hold it.

    Parameters
    ----------
    ptr, trees, counts, graphs, thresholds : numpy.ndarray
        As in `item_supports`.
    items : numpy.ndarray of shape (n_colors, n_thresholds), int32
        Number of the item "this tree, at least so often", or -1.
    n_items : int
        How many items there are.

    Returns
    -------
    numpy.ndarray of shape (n_items, ceil(n / 64)), uint64
        Bit t % 64 of word t // 64 is the t-th of ``graphs``.
    """
    bits = np.zeros((n_items, (graphs.shape[0] + 63) // 64), np.uint64)
    for place in range(graphs.shape[0]):
        graph = graphs[place]
        bit = np.uint64(1) << np.uint64(place % 64)
        for entry in range(ptr[graph], ptr[graph + 1]):
            for step in range(thresholds.shape[0]):
                if counts[entry] < thresholds[step]:
                    break
                item = items[trees[entry], step]
                if item >= 0:
                    bits[item, place // 64] |= bit
    return bits
