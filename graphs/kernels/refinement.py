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
    "count_graphs",
    "distinct_trees",
    "find_rows",
    "number_rows",
    "tree_rows",
]

_FEW = 24  # below so many children, sorting by insertion is fastest
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_STIR = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Table(NamedTuple):
    """What trees of one depth are made of.

    Row ``c`` says that tree ``c`` has the root and upper part of ``own[c]``, and below its root
    ``counts[k]`` times the subtree and edge in ``keys[k]``, for k from ``ptr[c]`` to
    ``ptr[c + 1]``. A key is ``edge << 32 | subtree``; keys ascend within a row.
    """

    own: np.ndarray
    ptr: np.ndarray
    keys: np.ndarray
    counts: np.ndarray


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
def _sort(keys: np.ndarray, start: int, stop: int) -> None:
    keys[start:stop].sort()


@njit(cache=True, nogil=True)
def tree_rows(colors: np.ndarray, sources: np.ndarray, edges: np.ndarray, ptr: np.ndarray) -> Table:
    """Write out what the tree around each node is made of, one level deeper than its colour.

    Parameters
    ----------
    colors : numpy.ndarray of shape (n,), int32
        Of the nodes; -1 where unknown, and then all that depends on it is unknown.
    sources : numpy.ndarray of shape (m,), int64
        Where each arc comes from, sorted by target.
    edges : numpy.ndarray of shape (m,), int32
        Number of each arc's label, in this order; -1 where unknown.
    ptr : numpy.ndarray of shape (n + 1,), int64
        Arcs into node v are those from ``ptr[v]`` to ``ptr[v + 1]``.

    Returns
    -------
    Table
        A row for each node, in order; ``own`` is -1 where the tree is unknown.
    """
    n_nodes, n_arcs = colors.shape[0], sources.shape[0]
    own, rows = np.empty(n_nodes, np.int32), np.zeros(n_nodes + 1, np.int64)
    keys, counts = np.empty(n_arcs, np.int64), np.empty(n_arcs, np.int32)
    filled = 0
    for node in range(n_nodes):
        start, size = ptr[node], ptr[node + 1] - ptr[node]
        seen = colors[node] >= 0
        for place in range(size):
            child, edge = np.int64(colors[sources[start + place]]), np.int64(edges[start + place])
            seen = seen and child >= 0 and edge >= 0
            key = edge << 32 | child
            before = filled + place - 1
            while size <= _FEW and before >= filled and keys[before] > key:
                keys[before + 1] = keys[before]
                before -= 1
            keys[before + 1] = key
        if size > _FEW:
            _sort(keys, filled, filled + size)
        own[node] = colors[node] if seen else -1
        last = filled - 1
        for place in range(filled, filled + size if seen else filled):
            if last >= filled and keys[last] == keys[place]:
                counts[last] += 1
            else:
                last += 1
                keys[last] = keys[place]
                counts[last] = 1
        filled = last + 1
        rows[node + 1] = filled
    return Table(own, rows, keys[:filled].copy(), counts[:filled].copy())


@njit(cache=True, nogil=True)
def distinct_trees(  # noqa: C901 - why it is one function is said in it
    own: np.ndarray, ptr: np.ndarray, keys: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, Table]:
    """Give equal trees equal numbers.

    Parameters
    ----------
    own, ptr, keys, counts : numpy.ndarray
        Rows as in `Table`, of which some are equal; ``own`` is -1 where a tree is unknown.

    Returns
    -------
    numbers : numpy.ndarray of shape (n_rows,), int32
        From 0, in the order of first sight; -1 where unknown.
    table : Table
        What each number stands for.
    """
    # Known trees are records, one after another: number, ``own << 32 | size``, and for each child
    # key and count. A slot holds ``hash << 32 | place + 1`` of a record, or 0. All is in one
    # function: passing arrays around, once for each node, takes several times as long as the work.
    n_rows = own.shape[0]
    numbers = np.full(n_rows, -1, np.int32)
    slots = np.zeros(_n_slots(n_rows), np.uint64)
    records = np.empty(2 * (n_rows + keys.shape[0]), np.int64)
    mask = np.uint64(slots.shape[0] - 1)
    known, filled = 0, 0
    for row in range(n_rows):
        root, start, size = np.int64(own[row]), ptr[row], ptr[row + 1] - ptr[row]
        if root < 0:
            continue
        head = root << 32 | size
        state = _mixed(_MIX, np.uint64(head))
        for place in range(start, start + size):
            state = _mixed(state, np.uint64(keys[place]) + np.uint64(counts[place]) * _STIR)
        slot, number = (state >> _HALF) & mask, np.int64(-1)
        while slots[slot] != 0:
            if (slots[slot] ^ state) & ~_LOW == 0:
                record = np.int64(slots[slot] & _LOW) - 1
                if records[record + 1] == head:
                    place = 0
                    while (
                        place < size
                        and records[record + 2 + 2 * place] == keys[start + place]
                        and records[record + 3 + 2 * place] == counts[start + place]
                    ):
                        place += 1
                    if place == size:
                        number = records[record]
                        break
            slot = (slot + np.uint64(1)) & mask
        if number < 0:
            number = np.int64(known)
            records[filled], records[filled + 1] = number, head
            for place in range(size):
                records[filled + 2 + 2 * place] = keys[start + place]
                records[filled + 3 + 2 * place] = counts[start + place]
            slots[slot] = (state & ~_LOW) | np.uint64(filled + 1)
            known, filled = known + 1, filled + 2 + 2 * size
        numbers[row] = number
    return numbers, _table_of(records, known, filled)


@njit(cache=True, nogil=True)
def _table_of(records: np.ndarray, known: int, filled: int) -> Table:
    n_keys = filled // 2 - known
    own, ptr = np.empty(known, np.int32), np.zeros(known + 1, np.int64)
    keys, counts = np.empty(n_keys, np.int64), np.empty(n_keys, np.int32)
    record, written = 0, 0
    for tree in range(known):
        own[tree] = records[record + 1] >> 32
        size = records[record + 1] & 0xFFFFFFFF
        for place in range(size):
            keys[written] = records[record + 2 + 2 * place]
            counts[written] = records[record + 3 + 2 * place]
            written += 1
        ptr[tree + 1] = written
        record += 2 + 2 * size
    return Table(own, ptr, keys, counts)


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
