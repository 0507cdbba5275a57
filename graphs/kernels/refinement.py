"""Colour refinement: equal rows and equal rooted trees get equal numbers, by exact comparison.

A hash only proposes; what it finds is compared in full before it counts as equal. Numbers are
given in the order in which things are first seen, so they are the same in every process and on
every platform.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

__all__ = [
    "Table",
    "arcs_by_target",
    "count_graphs",
    "empty_table",
    "find_rows",
    "find_trees",
    "first_rows",
    "number_rows",
    "number_tree",
    "number_trees",
    "tabulate",
]

_FEW = 24  # below so many children, sorting by insertion is fastest
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_STIR = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Table(NamedTuple):
    """What trees of one depth are made of, and an open-addressing table of their hashes.

    Row ``c`` says that tree ``c`` has the root and upper part of ``own[c]``, and below its root
    ``counts[k]`` times the subtree and edge in ``keys[k]``, for k from ``ptr[c]`` to
    ``ptr[c + 1]``. A key is ``edge << 32 | subtree``; keys ascend within a row.
    """

    own: np.ndarray
    ptr: np.ndarray
    keys: np.ndarray
    counts: np.ndarray
    slots: np.ndarray
    """``hash << 32 | number + 1`` or 0, shape (a power of two,), uint64."""


@njit(cache=True, nogil=True, inline="always")
def _mixed(state: Any, value: Any) -> Any:
    state = (state ^ value) * _MIX
    return (state ^ (state >> np.uint64(29))) * _STIR


@njit(cache=True, nogil=True)
def _n_slots(n_entries: int) -> int:
    n_slots = 16
    while n_slots < 2 * n_entries:
        n_slots *= 2
    return n_slots


@njit(cache=True, nogil=True)
def number_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give equal rows equal numbers.

    Parameters
    ----------
    rows : numpy.ndarray of shape (n, k), uint64
        Bit patterns.

    Returns
    -------
    numbers : numpy.ndarray of shape (n,), int32
        From 0, in the order of first sight.
    first : numpy.ndarray of shape (n_distinct,), int64
        Where each number was seen first.
    """
    n_rows = rows.shape[0]
    numbers, first = np.empty(n_rows, np.int32), np.empty(n_rows, np.int64)
    slots = np.zeros(_n_slots(n_rows), np.uint64)
    known = 0
    for row in range(n_rows):
        slot, found = _find_row(rows, row, rows, first, slots)
        if found < 0:
            first[known] = row
            slots[slot] = (_row_hash(rows, row) & ~_LOW) | np.uint64(known + 1)
            found = known
            known += 1
        numbers[row] = found
    return numbers, first[:known].copy()


@njit(cache=True, nogil=True)
def find_rows(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the number of each row among known, distinct rows, or -1; shape (n,), int32."""
    every = np.arange(known.shape[0])
    slots = np.zeros(_n_slots(known.shape[0]), np.uint64)
    for number in range(known.shape[0]):
        slot, _ = _find_row(known, number, known, every, slots)
        slots[slot] = (_row_hash(known, number) & ~_LOW) | np.uint64(number + 1)
    numbers = np.empty(rows.shape[0], np.int32)
    for row in range(rows.shape[0]):
        numbers[row] = _find_row(rows, row, known, every, slots)[1]
    return numbers


@njit(cache=True, nogil=True)
def _row_hash(rows: np.ndarray, row: int) -> Any:
    state = np.uint64(rows.shape[1])
    for column in range(rows.shape[1]):
        state = _mixed(state, rows[row, column])
    return state


@njit(cache=True, nogil=True)
def _find_row(
    rows: np.ndarray, row: int, known: np.ndarray, first: np.ndarray, slots: np.ndarray
) -> tuple[Any, Any]:
    state = _row_hash(rows, row)
    mask = slots.shape[0] - 1
    slot = np.int64(state >> _HALF) & mask
    while slots[slot] != 0:
        if (slots[slot] ^ state) & ~_LOW == 0:
            number = np.int64(slots[slot] & _LOW) - 1
            other = first[number]
            column = 0
            while column < rows.shape[1] and rows[row, column] == known[other, column]:
                column += 1
            if column == rows.shape[1]:
                return slot, number
        slot = (slot + 1) & mask
    return slot, -1


@njit(cache=True, nogil=True)
def arcs_by_target(n_nodes: int, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``ptr`` (n_nodes + 1,) and the numbers of the arcs (m,) into each node, in order."""
    ptr = np.zeros(n_nodes + 1, np.int64)
    for target in targets:
        ptr[target + 1] += 1
    for node in range(n_nodes):
        ptr[node + 1] += ptr[node]
    place, arcs = ptr[:-1].copy(), np.empty(targets.shape[0], np.int64)
    for arc in range(targets.shape[0]):
        arcs[place[targets[arc]]] = arc
        place[targets[arc]] += 1
    return ptr, arcs


@njit(cache=True, nogil=True)
def _gather(
    colors: np.ndarray,
    sources: np.ndarray,
    edges: np.ndarray,
    arcs: np.ndarray,
    keys: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Write the distinct, ascending keys of a node's children and return how many; -1 if unseen."""
    for place in range(arcs.shape[0]):
        child, edge = np.int64(colors[sources[arcs[place]]]), np.int64(edges[arcs[place]])
        if child < 0 or edge < 0:
            return -1
        keys[place] = edge << 32 | child
    if arcs.shape[0] > _FEW:
        keys[: arcs.shape[0]].sort()
    else:
        for place in range(1, arcs.shape[0]):
            key = keys[place]
            before = place - 1
            while before >= 0 and keys[before] > key:
                keys[before + 1] = keys[before]
                before -= 1
            keys[before + 1] = key
    distinct = 0
    for place in range(arcs.shape[0]):
        if distinct > 0 and keys[distinct - 1] == keys[place]:
            counts[distinct - 1] += 1
        else:
            keys[distinct] = keys[place]
            counts[distinct] = 1
            distinct += 1
    return distinct


@njit(cache=True, nogil=True)
def _tree_hash(own: int, keys: np.ndarray, counts: np.ndarray) -> Any:
    state = _mixed(np.uint64(keys.shape[0]), np.uint64(own))
    for place in range(keys.shape[0]):
        state = _mixed(state, np.uint64(keys[place]))
        state = _mixed(state, np.uint64(counts[place]))
    return state


@njit(cache=True, nogil=True)
def _find_tree(
    state: Any, own: int, keys: np.ndarray, counts: np.ndarray, table: Table
) -> tuple[Any, Any]:
    mask = table.slots.shape[0] - 1
    slot = np.int64(state >> _HALF) & mask
    while table.slots[slot] != 0:
        if (table.slots[slot] ^ state) & ~_LOW == 0:
            number = np.int64(table.slots[slot] & _LOW) - 1
            start = table.ptr[number]
            if table.own[number] == own and table.ptr[number + 1] - start == keys.shape[0]:
                place = 0
                while (
                    place < keys.shape[0]
                    and table.keys[start + place] == keys[place]
                    and table.counts[start + place] == counts[place]
                ):
                    place += 1
                if place == keys.shape[0]:
                    return slot, number
        slot = (slot + 1) & mask
    return slot, -1


@njit(cache=True, nogil=True)
def number_trees(
    colors: np.ndarray, sources: np.ndarray, edges: np.ndarray, ptr: np.ndarray, arcs: np.ndarray
) -> tuple[np.ndarray, Table]:
    """Give nodes with equal trees, one level deeper than their colours, equal numbers.

    Parameters
    ----------
    colors : numpy.ndarray of shape (n,), int32
        Of the nodes; -1 where unknown, and then all that depends on it is unknown.
    sources : numpy.ndarray of shape (m,), int64
        Where each arc comes from.
    edges : numpy.ndarray of shape (m,), int32
        Number of each arc's label; -1 where unknown.
    ptr, arcs : numpy.ndarray
        Of `arcs_by_target`.

    Returns
    -------
    numbers : numpy.ndarray of shape (n,), int32
        From 0, in the order of first sight.
    table : Table
        What each number stands for.
    """
    n_nodes = colors.shape[0]
    numbers = np.empty(n_nodes, np.int32)
    table = empty_table(n_nodes, arcs.shape[0])
    keys, counts = _scratch(ptr)
    known = 0
    for node in range(n_nodes):
        own = colors[node]
        below = arcs[ptr[node] : ptr[node + 1]]
        size = _gather(colors, sources, edges, below, keys, counts) if own >= 0 else -1
        if size < 0:
            numbers[node] = -1
        else:
            numbers[node] = number_tree(own, keys[:size], counts[:size], table, known)
            known = max(known, numbers[node] + 1)
    return numbers, first_rows(table, known)


@njit(cache=True, nogil=True)
def empty_table(n_trees: int, n_keys: int) -> Table:
    """Return a table with room for so many trees and keys."""
    return Table(
        np.empty(n_trees, np.int32),
        np.zeros(n_trees + 1, np.int64),
        np.empty(n_keys, np.int64),
        np.empty(n_keys, np.int32),
        np.zeros(_n_slots(n_trees), np.uint64),
    )


@njit(cache=True, nogil=True, inline="always")
def number_tree(own: int, keys: np.ndarray, counts: np.ndarray, table: Table, known: int) -> int:
    """Return the number of a tree; if it is not in the table, add it as number ``known``."""
    state = _tree_hash(own, keys, counts)
    slot, number = _find_tree(state, own, keys, counts, table)
    if number < 0:
        number = known
        start = table.ptr[number]
        stop = start + keys.shape[0]
        table.own[number] = own
        table.keys[start:stop] = keys
        table.counts[start:stop] = counts
        table.ptr[number + 1] = stop
        table.slots[slot] = (state & ~_LOW) | np.uint64(number + 1)
    return number


@njit(cache=True, nogil=True)
def first_rows(table: Table, known: int) -> Table:
    """Return a table without the room that it did not need."""
    filled = table.ptr[known]
    return Table(
        table.own[:known].copy(),
        table.ptr[: known + 1].copy(),
        table.keys[:filled].copy(),
        table.counts[:filled].copy(),
        table.slots,
    )


@njit(cache=True, nogil=True)
def _scratch(ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = 0
    for node in range(ptr.shape[0] - 1):
        largest = max(largest, ptr[node + 1] - ptr[node])
    return np.empty(largest, np.int64), np.empty(largest, np.int32)


@njit(cache=True, nogil=True)
def tabulate(own: np.ndarray, ptr: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> Table:
    """Return the table in which trees of known make-up are found."""
    table = Table(own, ptr, keys, counts, np.zeros(_n_slots(own.shape[0]), np.uint64))
    for number in range(own.shape[0]):
        start, stop = ptr[number], ptr[number + 1]
        state = _tree_hash(own[number], keys[start:stop], counts[start:stop])
        slot, _ = _find_tree(state, own[number], keys[start:stop], counts[start:stop], table)
        table.slots[slot] = (state & ~_LOW) | np.uint64(number + 1)
    return table


@njit(cache=True, nogil=True)
def find_trees(
    colors: np.ndarray,
    sources: np.ndarray,
    edges: np.ndarray,
    ptr: np.ndarray,
    arcs: np.ndarray,
    table: Table,
) -> np.ndarray:
    """Return the known number of each node's tree, or -1; arguments as in `number_trees`."""
    numbers = np.empty(colors.shape[0], np.int32)
    keys, counts = _scratch(ptr)
    for node in range(colors.shape[0]):
        numbers[node] = -1
        own = colors[node]
        if own >= 0:
            below = arcs[ptr[node] : ptr[node + 1]]
            size = _gather(colors, sources, edges, below, keys, counts)
            if size >= 0:
                state = _tree_hash(own, keys[:size], counts[:size])
                numbers[node] = _find_tree(state, own, keys[:size], counts[:size], table)[1]
    return numbers


@njit(cache=True, nogil=True)
def count_graphs(
    colors: np.ndarray, node_ptr: np.ndarray, classes: np.ndarray, n_colors: int, n_classes: int
) -> np.ndarray:
    """Count the graphs of each class that hold each colour.

    Parameters
    ----------
    colors : numpy.ndarray of shape (n,), int32
        Of the nodes; -1 is not counted.
    node_ptr : numpy.ndarray of shape (n_graphs + 1,), int64
        Nodes of graph g are ``node_ptr[g]`` to ``node_ptr[g + 1]``.
    classes : numpy.ndarray of shape (n_graphs,), int64
        From 0 to ``n_classes`` - 1.
    n_colors, n_classes : int
        How many there are.

    Returns
    -------
    numpy.ndarray of shape (n_classes, n_colors), int64
        The supports.
    """
    supports = np.zeros((n_classes, n_colors), np.int64)
    seen = np.full(n_colors, -1, np.int64)
    for graph in range(node_ptr.shape[0] - 1):
        for node in range(node_ptr[graph], node_ptr[graph + 1]):
            color = colors[node]
            if color >= 0 and seen[color] != graph:
                seen[color] = graph
                supports[classes[graph], color] += 1
    return supports
