"""Frequent itemsets by depth-first search on vertical bitsets.

A row of bits says which transactions hold an item; the transactions of a set of items are the AND
of its rows, and its support is the number of bits in it. The search extends a set by one item at a
time, in the order of their numbers, on an explicit stack whose rows of bits are as many as it is
deep.

Closed sets are found once each, with nothing remembered of those already found, by the
prefix-preserving closure extension of LCM (Uno, Kiyomi and Arimura, "LCM ver. 2", FIMI 2004): a set
is extended by an item to the closure of both, and the step counts only if the closure adds no item
before that item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = [
    "count_bits",
    "intersect_rows",
    "most_specific",
    "pack_bits",
    "search",
    "share",
    "sort_sets",
]

_PAIRS = np.uint64(0x5555555555555555)
_QUADS = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_SUM = np.uint64(0x0101010101010101)
_ZERO, _ONE, _TWO, _FOUR, _LAST = (np.uint64(n) for n in (0, 1, 2, 4, 56))
_WORD = 64


# -- bits ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _popcount(x: Any) -> Any:
    """Count the bits of a word; LLVM knows this form and makes one instruction of it."""
    x -= (x >> _ONE) & _PAIRS
    x = (x & _QUADS) + ((x >> _TWO) & _QUADS)
    x = (x + (x >> _FOUR)) & _BYTES
    return np.int64((x * _SUM) >> _LAST)


@njit(cache=True, nogil=True)
def _count(a: np.ndarray) -> int:
    n = 0
    for w in range(len(a)):
        n += _popcount(a[w])
    return n


@njit(cache=True, nogil=True)
def _count_common(a: np.ndarray, b: np.ndarray) -> int:
    n = 0
    for w in range(len(a)):
        n += _popcount(a[w] & b[w])
    return n


@njit(cache=True, nogil=True)
def _is_within(a: np.ndarray, b: np.ndarray) -> bool:
    """Say whether every bit of `a` is in `b`."""
    for w in range(len(a)):  # noqa: SIM110 - Numba compiles no generators within all()
        if a[w] & ~b[w]:
            return False
    return True


@njit(cache=True, nogil=True)
def pack_bits(ptr: np.ndarray, items: np.ndarray, bits: np.ndarray) -> None:
    """Set bit t of the row of every item of transaction t."""
    for t in range(len(ptr) - 1):
        bit = _ONE << np.uint64(t % _WORD)
        for k in range(ptr[t], ptr[t + 1]):
            bits[items[k], t // _WORD] |= bit


@njit(cache=True, nogil=True)
def count_bits(bits: np.ndarray) -> np.ndarray:
    """Count the bits of each row."""
    counts = np.empty(len(bits), np.int64)
    for row in range(len(bits)):
        counts[row] = _count(bits[row])
    return counts


@njit(cache=True, nogil=True)
def intersect_rows(ptr: np.ndarray, items: np.ndarray, bits: np.ndarray, out: np.ndarray) -> None:
    """Write the AND of the rows of each set, none of which is empty."""
    for s in range(len(ptr) - 1):
        out[s] = bits[items[ptr[s]]]
        for k in range(ptr[s] + 1, ptr[s + 1]):
            row = bits[items[k]]
            for w in range(len(row)):
                out[s, w] &= row[w]


# -- search --------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _room(a: np.ndarray, needed: int) -> np.ndarray:
    """Return the array, or a copy of twice its length where that is less than needed."""
    return a if needed <= len(a) else np.concatenate((a, np.empty_like(a)))


@njit(cache=True, nogil=True)
def _intersect(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> int:
    """Write the AND of two rows, and count its bits."""
    n = 0
    for w in range(len(out)):
        out[w] = a[w] & b[w]
        n += _popcount(out[w])
    return n


@njit(cache=True, nogil=True)
def _adds_earlier(bits: np.ndarray, tids: np.ndarray, member: np.ndarray, item: int) -> bool:
    """Say whether the closure of a set adds an item before `item`."""
    for j in range(item):  # noqa: SIM110 - Numba compiles no generators
        if not member[j] and _is_within(tids, bits[j]):
            return True
    return False


@njit(cache=True, nogil=True)
def _can_grow(bits: np.ndarray, tids: np.ndarray, member: np.ndarray, min_support: int) -> bool:
    """Say whether a set stays frequent with one more item."""
    for j in range(len(bits)):
        if not member[j] and _count_common(tids, bits[j]) >= min_support:
            return True
    return False


@njit(cache=True, nogil=True)
def _sift(
    bits: np.ndarray,
    tids: np.ndarray,
    support: int,
    min_support: int,
    closed: bool,
    tails: np.ndarray,
    low: int,
    high: int,
    chosen: np.ndarray,
    size: int,
) -> tuple[int, int]:
    """Sort the candidates ``tails[low:high]`` of a set into its closure, its tail, and neither.

    Those of the closure are added to the set, those of the tail written behind the candidates.
    """
    end = high
    for k in range(low, high):
        item = tails[k]
        common = _count_common(tids, bits[item])
        if closed and common == support:
            chosen[size] = item
            size += 1
        elif common >= min_support:
            tails[end] = item
            end += 1
    return size, end


@njit(cache=True, nogil=True)
def _add_tail(
    bits: np.ndarray,
    tids: np.ndarray,
    spare: np.ndarray,
    min_support: int,
    tail: np.ndarray,
    chosen: np.ndarray,
    size: int,
) -> int:
    """Add the whole tail to a set if that is frequent, and return the new size.

    All sets that the search would find from here lie in that one: the only one that can be maximal.
    """
    spare[:] = tids
    for item in tail:
        if _intersect(spare, bits[item], spare) < min_support:
            return size
    tids[:] = spare
    chosen[size : size + len(tail)] = tail
    return size + len(tail)


@njit(cache=True, nogil=True)
def _next(
    bits: np.ndarray,
    tids: np.ndarray,
    closed: bool,
    member: np.ndarray,
    chosen: np.ndarray,
    sizes: np.ndarray,
    tails: np.ndarray,
    turns: np.ndarray,
    ends: np.ndarray,
    depth: int,
) -> tuple[int, int]:
    """Find the next set to be extended, and the item; write the transactions that hold both.

    Returns its depth, -1 where the search is over, and the item.
    """
    while depth >= 0:
        if turns[depth] < ends[depth]:
            item = tails[turns[depth]]
            turns[depth] += 1
            _intersect(tids[depth], bits[item], tids[depth + 1])
            if not (closed and _adds_earlier(bits, tids[depth + 1], member, item)):
                return depth, item
        else:
            for k in range(sizes[depth], sizes[depth + 1]):
                member[chosen[k]] = False
            depth -= 1
    return -1, -1


@njit(cache=True, nogil=True)
def search(
    bits: np.ndarray,
    everything: np.ndarray,
    min_support: int,
    closed: bool,
    maximal: bool,
    limit: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the frequent sets of items, each of which is frequent; stop beyond `limit` sets.

    Parameters
    ----------
    bits : numpy.ndarray of shape (n_items, n_words)
        Bit t of row i: transaction t holds item i; uint64.
    everything : numpy.ndarray of shape (n_words,)
        A bit for each transaction; uint64.
    min_support : int
        In how many transactions a set is frequent; at least 1.
    closed, maximal : bool
        Whether to find only closed sets, and of those only the maximal.
    limit : int
        One set more than these ends the search.

    Returns
    -------
    ptr, items, supports : numpy.ndarray
        Set s is ``items[ptr[s]:ptr[s + 1]]``, ascending. If not `closed`, sets are in the order of
        a dictionary.
    """
    n_items = len(bits)
    ptr, supports, found = np.zeros(1024, np.int64), np.empty(1024, np.int64), 0
    items = np.empty(max(4096, n_items), np.int32)
    # The set at depth d is chosen[:sizes[d + 1]]; its tail, the later items that extend it, ends
    # at tails[ends[d]], and tails[turns[d]] is the next of them. Any item may extend the empty set.
    chosen, member = np.empty(n_items, np.int32), np.zeros(n_items, np.bool_)
    tails = np.arange(2 * n_items + 1).astype(np.int32)
    sizes, turns, ends = (
        np.zeros(n_items + 2, np.int64),
        np.zeros(n_items + 1, np.int64),
        np.zeros(n_items + 1, np.int64),
    )
    tids = np.empty((8, len(everything)), np.uint64)
    tids[0] = everything
    depth, size, low, high = 0, 0, 0, n_items
    while depth >= 0 and found <= limit:
        tails, tids = _room(tails, 2 * high - low), _room(tids, depth + 2)
        here = tids[depth]
        size, end = _sift(
            bits, here, _count(here), min_support, closed, tails, low, high, chosen, size
        )
        if maximal and end > high:
            tail = tails[high:end]
            larger = _add_tail(bits, here, tids[depth + 1], min_support, tail, chosen, size)
            size, end = larger, high if larger > size else end
        for k in range(sizes[depth], size):
            member[chosen[k]] = True
        if size and not (maximal and _can_grow(bits, here, member, min_support)):
            ptr, supports = _room(ptr, found + 2), _room(supports, found + 1)
            items = _room(items, ptr[found] + size)
            ptr[found + 1] = ptr[found] + size
            own = items[ptr[found] : ptr[found + 1]]
            own[:] = chosen[:size]
            if closed:
                own.sort()
            supports[found] = _count(here)
            found += 1
        sizes[depth + 1], turns[depth], ends[depth] = size, high, end
        depth, item = _next(bits, tids, closed, member, chosen, sizes, tails, turns, ends, depth)
        if depth >= 0:
            low, high = turns[depth], ends[depth]
            depth += 1
            chosen[sizes[depth]] = item
            size = sizes[depth] + 1
    return ptr[: found + 1], items[: ptr[found]], supports[:found]


# -- order ---------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _is_before(ptr: np.ndarray, items: np.ndarray, supports: np.ndarray, a: int, b: int) -> bool:
    """Compare by support, the largest first, then size, then items."""
    if supports[a] != supports[b]:
        return supports[a] > supports[b]
    size = ptr[a + 1] - ptr[a]
    if size != ptr[b + 1] - ptr[b]:
        return size < ptr[b + 1] - ptr[b]
    for k in range(size):
        if items[ptr[a] + k] != items[ptr[b] + k]:
            return items[ptr[a] + k] < items[ptr[b] + k]
    return False


@njit(cache=True, nogil=True)
def sort_sets(
    ptr: np.ndarray, items: np.ndarray, supports: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Sort by merging; `order` is where to begin from, and the nearer it is, the better."""
    n = len(order)
    width = 1
    while width < n:
        merged = order.copy()
        for low in range(0, n - width, 2 * width):
            middle, high = low + width, min(low + 2 * width, n)
            if not _is_before(ptr, items, supports, order[middle], order[middle - 1]):
                continue
            i, j = low, middle
            for k in range(low, high):
                if j == high or (
                    i < middle and not _is_before(ptr, items, supports, order[j], order[i])
                ):
                    merged[k] = order[i]
                    i += 1
                else:
                    merged[k] = order[j]
                    j += 1
        order = merged
        width *= 2
    return order


# -- weights -------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def most_specific(ptr: np.ndarray, items: np.ndarray, tids: np.ndarray) -> np.ndarray:
    """Leave to each set the transactions that hold no strict superset of it."""
    n_sets, n_words = tids.shape
    n_items = items.max() + 1 if len(items) else 0
    holders = np.zeros((n_items, (n_sets + _WORD - 1) // _WORD), np.uint64)  # sets with an item
    for s in range(n_sets):
        for k in range(ptr[s], ptr[s + 1]):
            holders[items[k], s // _WORD] |= _ONE << np.uint64(s % _WORD)
    own, over = tids.copy(), np.empty(holders.shape[1], np.uint64)
    for a in range(n_sets):
        over[:] = holders[items[ptr[a]]]
        for k in range(ptr[a] + 1, ptr[a + 1]):
            over &= holders[items[k]]
        for step in range(len(over)):  # from the set on: supersets mostly come after
            block = (a // _WORD + step) % len(over)
            left = _ONE
            while over[block] and left:
                rest = over[block] & (over[block] - _ONE)  # without its lowest bit
                b = block * _WORD + _popcount((over[block] ^ rest) - _ONE)
                over[block] = rest
                if ptr[b + 1] - ptr[b] == ptr[a + 1] - ptr[a]:
                    continue  # the same set
                left = _ZERO
                for w in range(n_words):
                    own[a, w] &= ~tids[b, w]
                    left |= own[a, w]
            if not left:
                break
    return own


@njit(cache=True, nogil=True)
def share(own: np.ndarray) -> np.ndarray:
    """Share one unit of each transaction equally between the rows that hold it."""
    n_sets, n_words = own.shape
    holders = np.zeros(n_words * _WORD, np.int64)
    weights = np.zeros(n_sets)
    for counting in (True, False):
        for s in range(n_sets):
            for w in range(n_words):
                word = own[s, w]
                while word:
                    rest = word & (word - _ONE)  # without its lowest bit
                    t = w * _WORD + _popcount((word ^ rest) - _ONE)
                    if counting:
                        holders[t] += 1
                    else:
                        weights[s] += 1.0 / holders[t]
                    word = rest
    return weights
