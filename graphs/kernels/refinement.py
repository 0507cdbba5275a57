"""Colour refinement: equal rows and equal rooted trees get equal numbers, by exact comparison.

A hash only proposes; what it finds is compared in full before it counts as equal. Numbers are
given in the order in which things are first seen, so they are the same in every process and on
every platform.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

__all__ = ["Level", "count_graphs", "distinct_trees", "find_rows", "number_rows"]

_FEW = 16  # up to so many children, sorting by insertion is fastest
_FEWEST_SLOTS = 512
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_STIR = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

# Tables are of open addressing. A slot is 0 where it is free; else its upper half is that of the
# hash, and its lower half says, plus 1, what has it. They grow with what is in them, because what
# lies close together is found fast, but not within the loop over rows: a loop that exchanges an
# array, or hands arrays to another function, takes several times as long as the work in it.


class Level(NamedTuple):
    """Distinct trees of one depth, as `scikd.graphs.trees.TreeLevel` describes them."""

    own: np.ndarray
    ptr: np.ndarray
    child: np.ndarray
    edge: np.ndarray
    counts: np.ndarray


@njit(cache=True, nogil=True, inline="always")
def _mixed(value: Any) -> Any:
    value = value * _MIX
    return (value ^ (value >> np.uint64(29))) * _STIR


@njit(cache=True, nogil=True)
def _doubled(slots: np.ndarray) -> np.ndarray:
    """Return a table with twice the slots, and the same in them."""
    wider = np.zeros(2 * slots.shape[0], np.uint64)
    mask = np.uint64(wider.shape[0] - 1)
    for entry in slots:
        if entry != 0:
            slot = (entry >> _HALF) & mask
            while wider[slot] != 0:
                slot = (slot + np.uint64(1)) & mask
            wider[slot] = entry
    return wider


@njit(cache=True, nogil=True, inline="always")
def _same_rows(rows: np.ndarray, one: Any, other: Any) -> Any:
    column = 0
    while column < rows.shape[1] and rows[one, column] == rows[other, column]:
        column += 1
    return column == rows.shape[1]


@njit(cache=True, nogil=True, inline="always")
def _same_runs(values: np.ndarray, one: Any, other: Any, size: Any) -> Any:
    place = 0
    while place < size and values[one + place] == values[other + place]:
        place += 1
    return place == size


@njit(cache=True, nogil=True)
def _weights(n_columns: int) -> np.ndarray:
    weights = np.empty(n_columns, np.uint64)
    for column in range(n_columns):
        weights[column] = _mixed(np.uint64(column + 1)) | np.uint64(1)
    return weights


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
    n_rows, width = rows.shape
    if width == 0:
        return np.zeros(n_rows, np.int32), np.arange(min(n_rows, 1))
    numbers, first = np.empty(n_rows, np.int32), np.empty(n_rows, np.int64)
    weights = _weights(width)
    slots, done, known = np.zeros(_FEWEST_SLOTS, np.uint64), 0, 0
    while done < n_rows:
        slots = _doubled(slots)
        mask, room = np.uint64(slots.shape[0] - 1), slots.shape[0] // 2
        for row in range(done, n_rows):
            if known == room:
                break
            done = row + 1
            state = np.uint64(0)
            for column in range(width):
                bits = rows[row, column]
                state += (bits ^ (bits >> _HALF)) * weights[column]
            state = _mixed(state)
            slot, number = (state >> _HALF) & mask, np.int64(-1)
            while slots[slot] != 0:
                if (slots[slot] ^ state) & ~_LOW == 0:
                    other = np.int64(slots[slot] & _LOW) - 1
                    if _same_rows(rows, first[other], row):
                        number = other
                        break
                slot = (slot + np.uint64(1)) & mask
            if number < 0:
                number = np.int64(known)
                first[known] = row
                known += 1
                slots[slot] = (state & ~_LOW) | np.uint64(known)
            numbers[row] = number
    return numbers, first[:known].copy()


def find_rows(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the number of each row among known, distinct rows, or -1; shape (n,), int32."""
    found = number_rows(np.concatenate([known, rows]))[0][len(known) :]
    return np.where(found < len(known), found, np.int32(-1))


@njit(cache=True, nogil=True)
def _sort(keys: np.ndarray, start: int, stop: int) -> None:
    keys[start:stop].sort()


@njit(cache=True, nogil=True)
def distinct_trees(  # noqa: C901 - why it is one function is said above
    own: np.ndarray, below: np.ndarray, ptr: np.ndarray, sources: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, Level]:
    """Give equal trees equal numbers.

    Parameters
    ----------
    own : numpy.ndarray of shape (n_rows,), int32
        Each tree without its deepest nodes; -1 where unknown, and then all that depends on it is.
    below : numpy.ndarray of shape (n,), int32
        The tree, one level less deep, of all that a child may be; -1 where unknown.
    ptr : numpy.ndarray of shape (n_rows + 1,), int64
        Arcs to the root of tree r are those from ``ptr[r]`` to ``ptr[r + 1]``, in any order.
    sources : numpy.ndarray of shape (n_arcs,), int64
        The child that each arc comes from: where it stands in ``below``.
    edges : numpy.ndarray of shape (n_arcs,), int32
        Number of each arc's label; -1 where unknown.

    Returns
    -------
    numbers : numpy.ndarray of shape (n_rows,), int32
        From 0, in the order of first sight; -1 where unknown.
    level : Level
        What each number stands for.
    """
    # Known trees are records, one after another: number, ``own << 32 | n_children``, and for each
    # child ``edge << 32 | tree``, ascending. A tree is written as the next record, and overwritten
    # by the one after it if there is such a record already. Slots hold places of records.
    n_rows = own.shape[0]
    numbers = np.full(n_rows, -1, np.int32)
    records = np.empty(2 * n_rows + sources.shape[0], np.int64)
    slots, done, known, filled = np.zeros(_FEWEST_SLOTS, np.uint64), 0, 0, 0
    while done < n_rows:
        slots = _doubled(slots)
        mask, room = np.uint64(slots.shape[0] - 1), slots.shape[0] // 2
        for row in range(done, n_rows):
            if known == room:
                break
            done = row + 1
            root, start, size = np.int64(own[row]), ptr[row], ptr[row + 1] - ptr[row]
            head, keys = root << 32 | size, filled + 2
            # The hash is the same in any order, so that it need not wait for the sorting.
            sign, state = root, np.uint64(0)
            for arc in range(start, start + size):
                child, edge = np.int64(below[sources[arc]]), np.int64(edges[arc])
                sign |= child | edge
                key = edge << 32 | child
                state += _mixed(np.uint64(key))
                last = keys + arc - start
                if size <= _FEW:  # compares all that are there, so that no branch is mispredicted
                    for place in range(keys, last):
                        before = records[place]
                        records[place] = min(before, key)
                        key = max(before, key)
                records[last] = key
            if sign < 0:
                continue
            if size > _FEW:
                _sort(records, keys, keys + size)
            records[filled], records[filled + 1] = known, head
            state = _mixed(state ^ np.uint64(head))
            slot, number = (state >> _HALF) & mask, np.int64(-1)
            while slots[slot] != 0:
                if (slots[slot] ^ state) & ~_LOW == 0:
                    record = np.int64(slots[slot] & _LOW) - 1
                    if _same_runs(records, record + 1, filled + 1, size + 1):
                        number = records[record]
                        break
                slot = (slot + np.uint64(1)) & mask
            if number < 0:
                number = np.int64(known)
                slots[slot] = (state & ~_LOW) | np.uint64(filled + 1)
                known, filled = known + 1, keys + size
            numbers[row] = number
    return numbers, _level_of(records, known, filled)


@njit(cache=True, nogil=True)
def _level_of(records: np.ndarray, known: int, filled: int) -> Level:
    n_keys = filled - 2 * known
    own, ptr = np.empty(known, np.int32), np.zeros(known + 1, np.int64)
    child, edge = np.empty(n_keys, np.int32), np.empty(n_keys, np.int32)
    count = np.empty(n_keys, np.int32)
    record, written = 0, 0
    for tree in range(known):
        head, last = records[record + 1], np.int64(-1)
        own[tree] = head >> 32
        record += 2
        for place in range(record, record + (head & 0xFFFFFFFF)):
            key = records[place]
            if key == last:
                count[written - 1] += 1
                continue
            child[written], edge[written], count[written] = key & 0xFFFFFFFF, key >> 32, 1
            last = key
            written += 1
        ptr[tree + 1] = written
        record += head & 0xFFFFFFFF
    return Level(own, ptr, child[:written].copy(), edge[:written].copy(), count[:written].copy())


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
