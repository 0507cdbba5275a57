"""Sets of items that many transactions hold: frequent itemsets, exactly.

A transaction is a set of items; here, the distinct trees of a graph. The support of a set of items
is the number of transactions that hold all of them. Among the frequent sets, whose support is not
below a threshold,

* a *closed* one has no strict superset of the same support. The closed sets determine the support
  of every frequent set, and where items occur together they are far fewer;
* a *maximal* one has no frequent strict superset.

Every maximal set is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import numpy as np

from scikd.exceptions import InvalidInputError

from ._limits import TooManySetsError
from ._pointers import take_runs
from .kernels import itemsets as kernels

__all__ = ["Itemsets", "Kind", "mine", "pack", "tidsets", "weights"]

Kind = Literal["closed", "maximal", "all"]

_WORD = 64
_NO_LIMIT = np.iinfo(np.int64).max - 1


@dataclass(frozen=True, eq=False)
class Itemsets:
    """Sets of items, each with its support.

    The order is that of falling support, then of size, then of the items.

    Attributes
    ----------
    ptr : numpy.ndarray of shape (n_sets + 1,)
        Set s is ``items[ptr[s]:ptr[s + 1]]``; int64.
    items : numpy.ndarray of shape (ptr[-1],)
        Ascending within each set, none of which is empty; int32.
    supports : numpy.ndarray of shape (n_sets,)
        In how many transactions all items of the set are; int64.
    """

    ptr: np.ndarray
    items: np.ndarray
    supports: np.ndarray

    def __post_init__(self) -> None:
        ptr, n_items, n_sets = self.ptr, len(self.items), len(self.supports)
        if (
            len(ptr) != n_sets + 1
            or (ptr[0], ptr[-1]) != (0, n_items)
            or np.any(np.diff(ptr) < 1)
            or np.any(self.items < 0)
        ):
            message = (
                f"expected ptr to divide {n_items} items, numbered from 0, into {n_sets} sets, "
                f"none of which is empty; got {ptr!r} and {self.items!r}: pass what mine found"
            )
            raise InvalidInputError(message)

    def __len__(self) -> int:
        return len(self.supports)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for start, stop in zip(self.ptr[:-1], self.ptr[1:], strict=True):
            yield tuple(self.items[start:stop].tolist())


def pack(transactions_ptr: np.ndarray, transactions_items: np.ndarray, n_items: int) -> np.ndarray:
    """Turn transactions into one row of bits for each item.

    Rows of rare items cost as much as others: leave such items out first where there are many.

    Parameters
    ----------
    transactions_ptr : numpy.ndarray of shape (n_transactions + 1,)
        Transaction t holds ``transactions_items[transactions_ptr[t]:transactions_ptr[t + 1]]``.
    transactions_items : numpy.ndarray of shape (transactions_ptr[-1],)
        Integers from 0 to `n_items` - 1, in any order; one that a transaction repeats counts once.
    n_items : int
        Number of items.

    Returns
    -------
    numpy.ndarray of shape (n_items, ceil(n_transactions / 64))
        Bit ``t % 64`` of word ``t // 64`` of row i says whether transaction t holds item i; uint64.

    Raises
    ------
    InvalidInputError
        If `transactions_ptr` does not divide the items into transactions, or an item is not among
        the `n_items`.
    """
    ptr, items = np.asarray(transactions_ptr), np.asarray(transactions_items)
    if (
        not (ptr.ndim == items.ndim == 1 and len(ptr) and np.issubdtype(ptr.dtype, np.integer))
        or ptr[0] != 0
        or ptr[-1] != len(items)
        or np.any(ptr[1:] < ptr[:-1])
    ):
        message = (
            f"expected transactions_ptr to rise from 0 to the number of items, {items.size}; got "
            f"{ptr!r}: pass the start of each transaction, and the end of the last"
        )
        raise InvalidInputError(message)
    if len(items) and not (
        np.issubdtype(items.dtype, np.integer) and items.min() >= 0 and items.max() < n_items
    ):
        message = (
            f"expected items to be integers from 0 to {n_items - 1}, got {items.dtype} from "
            f"{items.min()} to {items.max()}: pass the n_items that they are numbered by"
        )
        raise InvalidInputError(message)
    bits = np.zeros((n_items, -(-(len(ptr) - 1) // _WORD)), np.uint64)
    kernels.pack_bits(ptr.astype(np.int64), items.astype(np.int64), bits)
    return bits


def mine(
    bits: np.ndarray,
    n_transactions: int,
    min_support: int,
    kind: Kind = "closed",
    max_sets: int | None = None,
) -> Itemsets:
    """Find all frequent sets of items of a kind.

    Parameters
    ----------
    bits : numpy.ndarray of shape (n_items, ceil(n_transactions / 64))
        Of :func:`pack`: bit ``t % 64`` of word ``t // 64`` of row i says whether transaction t
        holds item i; uint64.
    n_transactions : int
        Number of transactions.
    min_support : int
        In how many transactions a set is frequent; at least 1.
    kind : {"closed", "maximal", "all"}, default="closed"
        Which frequent sets to find; the empty set is never among them.
    max_sets : int, optional
        More sets than these are an error, which is raised as soon as one too many is found. Pass it
        where their number is not known: it can be exponential in the number of items.

    Returns
    -------
    Itemsets
        The sets, in falling order of support. The result does not depend on how items are numbered
        or transactions ordered, but for the numbers of the items themselves.

    Raises
    ------
    TooManySetsError
        If there are more than `max_sets`; an `InvalidInputError`.
    InvalidInputError
        If the arguments do not fit.

    Notes
    -----
    Time is proportional to the number of closed sets that are visited (for ``kind="all"``, of
    sets), times the number of items, times the number of words of a row; memory beyond the result
    to the rows of bits. Maximal sets are looked for among the closed, of which there may be far
    more.

    Examples
    --------
    Three transactions, {0, 1}, {0, 1, 2} and {2}:

    >>> import numpy as np
    >>> from scikd.graphs.itemsets import mine, pack
    >>> bits = pack(np.array([0, 2, 5, 6]), np.array([0, 1, 0, 1, 2, 2]), 3)
    >>> found = mine(bits, 3, min_support=1)
    >>> dict(zip(found, found.supports.tolist()))
    {(2,): 2, (0, 1): 2, (0, 1, 2): 1}
    """
    numbers = {"n_transactions": (n_transactions, 0), "min_support": (min_support, 1)}
    if max_sets is not None:
        numbers["max_sets"] = (max_sets, 1)
    for name, (value, least) in numbers.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            message = f"expected {name} to be an integer of {least} or more, got {value!r}"
            raise InvalidInputError(message)
    bits = _checked_bits(bits, n_transactions)
    if kind not in get_args(Kind):
        message = f"expected kind to be one of {', '.join(get_args(Kind))}, got {kind!r}"
        raise InvalidInputError(message)
    frequent = np.flatnonzero(kernels.count_bits(bits) >= min_support)
    ptr, items, supports = kernels.search(
        bits[frequent],
        _all_transactions(n_transactions),
        int(min_support),
        kind != "all",
        kind == "maximal",
        _NO_LIMIT if max_sets is None else int(max_sets),
    )
    if max_sets is not None and len(supports) > max_sets:
        fewer = {"all": "closed", "closed": "maximal"}.get(kind)
        message = (
            f"expected at most max_sets={max_sets} {kind} sets, and found more, at min_support="
            f"{min_support}: raise min_support or max_sets"
            + (f", or look for the {fewer} sets only" if fewer else "")
        )
        raise TooManySetsError(message)
    sizes = np.diff(ptr)
    order = kernels.sort_sets(ptr, items, supports, np.lexsort((sizes, -supports)))
    places, sorted_ptr = take_runs(ptr, order)
    return Itemsets(sorted_ptr, frequent.astype(np.int32)[items[places]], supports[order])


def tidsets(itemsets: Itemsets, bits: np.ndarray) -> np.ndarray:
    """Say which transactions hold each set.

    Parameters
    ----------
    itemsets : Itemsets
        The sets.
    bits : numpy.ndarray of shape (n_items, n_words)
        A row of bits for each item, of :func:`pack`; of the transactions that the sets were found
        in or of others.

    Returns
    -------
    numpy.ndarray of shape (n_sets, n_words)
        A row of bits for each set; uint64.

    Raises
    ------
    InvalidInputError
        If `bits` are not bits, or do not have all the items.
    """
    bits = _checked_bits(bits)
    if len(itemsets) and itemsets.items.max() >= len(bits):
        message = (
            f"expected a row of bits for each item up to {itemsets.items.max()}, got {len(bits)} "
            "rows: pass the bits of all items, in the numbers of the sets"
        )
        raise InvalidInputError(message)
    tids = np.empty((len(itemsets), bits.shape[1]), np.uint64)
    kernels.intersect_rows(itemsets.ptr, itemsets.items, bits, tids)
    return tids


def weights(itemsets: Itemsets, tids: np.ndarray) -> np.ndarray:
    """Give each set the share of the transactions that it stands for.

    Each transaction shares one unit equally between the most specific sets that it holds: those of
    which it holds no strict superset among the given sets. So the weights add up to the number of
    transactions that hold any set, and no transaction counts more than once, however many of its
    subsets are frequent.

    Parameters
    ----------
    itemsets : Itemsets
        The sets.
    tids : numpy.ndarray of shape (n_sets, n_words)
        Which transactions hold each set, of :func:`tidsets`.

    Returns
    -------
    numpy.ndarray of shape (n_sets,)
        In transactions; 0 for a set that is never among the most specific.

    Raises
    ------
    InvalidInputError
        If `tids` do not have one row of bits for each set.

    Notes
    -----
    Time grows with the number of pairs of a set and a superset, and with the square of the number
    of sets divided by 64.
    """
    tids = _checked_bits(tids)
    if len(tids) != len(itemsets):
        message = (
            f"expected tids of one row for each of {len(itemsets)} sets, got {len(tids)} rows: "
            "pass what tidsets returns for these sets"
        )
        raise InvalidInputError(message)
    return kernels.share(kernels.most_specific(itemsets.ptr, itemsets.items, tids))


def _all_transactions(n_transactions: int) -> np.ndarray:
    """Return a row with the bits of all transactions."""
    row = np.full(-(-n_transactions // _WORD), ~np.uint64(0))
    if n_transactions % _WORD:
        row[-1] >>= np.uint64(_WORD - n_transactions % _WORD)
    return row


def _checked_bits(bits: np.ndarray, n_transactions: int | None = None) -> np.ndarray:
    """Return rows of bits as the kernels take them, or say what is wrong with them."""
    bits = np.asarray(bits)
    if bits.ndim != 2 or bits.dtype != np.uint64:
        message = (
            f"expected bits as a matrix of uint64, got shape {bits.shape} of {bits.dtype}: make "
            "them with pack"
        )
        raise InvalidInputError(message)
    if n_transactions is not None:
        everything = _all_transactions(n_transactions)
        if bits.shape[1] != len(everything) or np.any(bits[:, -1:] & ~everything[-1:]):
            message = (
                f"expected bits of {n_transactions} transactions in {len(everything)} words, got "
                f"{bits.shape[1]} words, or bits of more: pass the number of those packed"
            )
            raise InvalidInputError(message)
    return np.ascontiguousarray(bits)
