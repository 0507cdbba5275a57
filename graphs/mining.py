"""From the trees of graphs to the sets of trees that many graphs of a class hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from ._limits import TooManySetsError
from ._pointers import pointers, take_runs
from .itemsets import Itemsets, Kind, mine, tidsets, weights
from .kernels import transactions as kernels
from .kernels.itemsets import count_bits

__all__ = ["ClassTransactions", "MinedSets", "TreeSets", "sets_within"]


@dataclass(frozen=True, eq=False)
class TreeSets:
    """Frequent sets of trees of one class, in falling order of support.

    Attributes
    ----------
    ptr : numpy.ndarray of shape (n_sets + 1,)
        The trees of set s are those from ``ptr[s]`` to ``ptr[s + 1]``.
    trees, counts : numpy.ndarray of shape (n_entries,)
        Distinct trees of a set, and at least how often each is in every graph that holds the set.
    supports : numpy.ndarray of shape (n_sets,)
        How many graphs of the class hold the set.
    weights : numpy.ndarray of shape (n_sets,)
        How many graphs the set stands for: `scikd.graphs.itemsets.weights`.
    covered : int
        How many graphs of the class hold any of the sets.
    shares : numpy.ndarray of shape (n_sets, n_classes) or None
        The share of the graphs of each class that hold the set, where it was counted.
    """

    ptr: np.ndarray
    trees: np.ndarray
    counts: np.ndarray
    supports: np.ndarray
    weights: np.ndarray
    covered: int
    shares: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.supports)


class ClassTransactions:
    """What the graphs of one class hold.

    Parameters
    ----------
    entries : tuple of numpy.ndarray
        Of `scikd.graphs.kernels.transactions.count_trees`, for all graphs.
    graphs : numpy.ndarray of shape (n_graphs,)
        Numbers of the graphs of this class.
    n_trees : int
        How many distinct trees there are.
    multiplicity : bool
        Whether "at least 2, 4, 8, ... times" are items too, or "at least once" alone.
    """

    def __init__(
        self,
        entries: tuple[np.ndarray, np.ndarray, np.ndarray],
        graphs: np.ndarray,
        n_trees: int,
        *,
        multiplicity: bool,
    ) -> None:
        self.entries, self.graphs = entries, graphs
        largest = int(entries[2].max(initial=1)) if multiplicity else 1
        self.thresholds = 2 ** np.arange(int(largest).bit_length(), dtype=np.int32)
        self.supports = kernels.item_supports(*entries, graphs, n_trees, self.thresholds)

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def most(self) -> int:
        """The largest support of a tree."""
        return int(self.supports.max(initial=0))

    def frequent(self, min_support: int, kind: Kind, max_sets: int | None = None) -> MinedSets:
        """Find the frequent sets.

        Parameters
        ----------
        min_support : int
            In how many graphs of the class a set is frequent.
        kind : {"closed", "maximal", "all"}
            Which sets.
        max_sets : int or None, default=None
            More are an error.

        Returns
        -------
        MinedSets
            The sets.

        Raises
        ------
        TooManySetsError
            If there are more than ``max_sets``.
        """
        tree, step = np.nonzero(self.supports >= min_support)
        numbers = np.full(self.supports.shape, -1, dtype=np.int32)
        numbers[tree, step] = np.arange(len(tree))
        bits = self.bits(numbers, len(tree))
        found = mine(bits, len(self), min_support, kind, max_sets)
        return MinedSets(found, bits, tree, self.thresholds[step], len(self))

    def bits(self, items: np.ndarray, n_items: int) -> np.ndarray:
        """Say which graphs hold items: `scikd.graphs.kernels.transactions.item_bits`."""
        return kernels.item_bits(
            *self.entries, self.graphs, items, self.thresholds[: items.shape[1]], n_items
        )


@dataclass(frozen=True, eq=False)
class MinedSets:
    """Frequent sets as the miner gives them, of items "this tree, at least so often"."""

    itemsets: Itemsets
    bits: np.ndarray
    trees: np.ndarray
    thresholds: np.ndarray
    n_graphs: int
    shares: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.itemsets)

    @cached_property
    def holders(self) -> np.ndarray:
        """Which graphs hold each set, as bits."""
        return tidsets(self.itemsets, self.bits)

    def compared(self, transactions: Sequence[ClassTransactions]) -> Self:
        """Count in what share of each class the sets are held, into `shares`."""
        shares = np.empty((len(self), len(transactions)))
        steps = np.log2(self.thresholds).astype(np.int64)
        for label, other in enumerate(transactions):
            n_trees, n_steps = other.supports.shape
            numbers = np.full((n_trees, n_steps), -1, dtype=np.int32)
            known = steps < n_steps
            numbers[self.trees[known], steps[known]] = np.flatnonzero(known)
            holders = tidsets(self.itemsets, other.bits(numbers, len(self.trees)))
            shares[:, label] = count_bits(holders) / len(other)
        return replace(self, shares=shares)

    def contrasted(self, label: int, factor: float) -> Self:
        """Keep sets that are so many times more frequent in one class than in any other."""
        assert self.shares is not None  # noqa: S101 - `compared` comes first
        others = np.delete(self.shares, label, axis=1).max(axis=1)
        kept = np.flatnonzero(self.shares[:, label] >= factor * others)
        return replace(self, itemsets=_some(self.itemsets, kept), shares=self.shares[kept])

    def first(self, n_sets: int, *, weighted: bool = True) -> TreeSets:
        """Return the most frequent sets as trees and counts.

        Parameters
        ----------
        n_sets : int
            How many to look at.
        weighted : bool, default=True
            Whether to weigh them, and to leave out those of weight 0; else all weigh 1.

        Returns
        -------
        TreeSets
            The sets.
        """
        head, holders = _some(self.itemsets, np.arange(n_sets)), self.holders[:n_sets]
        weight = weights(head, holders) if weighted else np.ones(n_sets)
        kept = np.flatnonzero(weight)
        head = _some(head, kept)
        owner = np.repeat(np.arange(len(head)), np.diff(head.ptr))
        # Of the items of one tree in a set the one that asks for most says it all.
        order = np.lexsort((self.thresholds[head.items], self.trees[head.items], owner))
        owner, items = owner[order], head.items[order]
        last = np.ones(len(items), dtype=bool)
        last[:-1] = (np.diff(owner) != 0) | (np.diff(self.trees[items]) != 0)
        sizes = np.bincount(owner[last], minlength=len(head))
        return TreeSets(
            ptr=pointers(sizes),
            trees=self.trees[items[last]].astype(np.int32),
            counts=self.thresholds[items[last]].astype(np.int32),
            supports=head.supports,
            weights=weight[weight > 0],
            covered=int(count_bits(np.bitwise_or.reduce(holders, axis=0)[None])[0]),
            shares=None if self.shares is None else self.shares[kept],
        )


def sets_within(
    transactions: ClassTransactions,
    kind: Kind,
    max_sets: int,
    least: int,
    limit: int | None = None,
) -> MinedSets:
    """Find the most frequent sets, by the lowest support that gives no more than so many.

    Parameters
    ----------
    transactions : ClassTransactions
        What the graphs of a class hold.
    kind : {"closed", "maximal", "all"}
        Which sets.
    max_sets : int
        The most that may be found.
    least : int
        The lowest support to try.
    limit : int or None, default=None
        How many the highest support may give.

    Returns
    -------
    MinedSets
        The sets; more than ``max_sets`` only if the highest support gives them.

    Raises
    ------
    TooManySetsError
        If the highest support gives more than ``limit``.
    """
    # Down by halves until there are too many, then by bisection: a support far below what is
    # needed would have items and sets without end.
    high = max(least, transactions.most)
    best, low = transactions.frequent(high, kind, limit), high
    while low > least:
        low = max(least, low // 2)
        try:
            best, high = transactions.frequent(low, kind, max_sets), low
        except TooManySetsError:
            break
    while high - low > 1:
        middle = (low + high) // 2
        try:
            best, high = transactions.frequent(middle, kind, max_sets), middle
        except TooManySetsError:
            low = middle
    return best


def _some(itemsets: Itemsets, chosen: np.ndarray) -> Itemsets:
    places, ptr = take_runs(itemsets.ptr, chosen)
    return Itemsets(ptr, itemsets.items[places], itemsets.supports[chosen])
