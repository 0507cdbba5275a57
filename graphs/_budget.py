"""The sets of all classes as one result, and as many of them as a number of bytes holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ._limits import BudgetTooSmallError
from .distilled import DistilledGraphs, in_single_precision, rounded_labels
from .mining import MinedSets, TreeSets
from .preparation import Preparation
from .trees import Trees

__all__ = ["Joiner", "largest", "within_budget"]


@dataclass(frozen=True)
class Joiner:
    """Makes one result of the sets of all classes."""

    trees: Trees
    classes: np.ndarray
    preparation: Preparation

    def __call__(
        self, sets: Sequence[TreeSets], provenance: dict[str, Any] | None = None
    ) -> DistilledGraphs:
        starts = np.cumsum([0, *(part.ptr[-1] for part in sets[:-1])])
        ptrs = [part.ptr[1:] + start for part, start in zip(sets, starts, strict=True)]
        trees, roots = self.trees.restrict(np.concatenate([part.trees for part in sets]))
        weights = np.concatenate([part.weights for part in sets])
        joined = DistilledGraphs(
            trees=trees,
            ptr=np.concatenate([[0], *ptrs]),
            roots=roots,
            counts=np.concatenate([part.counts for part in sets]),
            y=np.repeat(np.arange(len(sets), dtype=np.int32), [len(part) for part in sets]),
            weights=in_single_precision(weights),
            classes=self.classes,
            preparation=self.preparation,
            provenance=provenance or {},
            supports=np.concatenate([part.supports for part in sets]).astype(np.int64),
        )
        shares = [part.shares for part in sets if part.shares is not None]
        return _labelled(joined, np.concatenate(shares)) if shares else joined

    def restrict(self, mined: Sequence[MinedSets]) -> tuple[Joiner, list[MinedSets]]:
        """Keep only trees that some set may need, so that sizes are found quickly."""
        trees, roots = self.trees.restrict(np.concatenate([part.trees for part in mined]))
        parts = np.split(roots, np.cumsum([len(part.trees) for part in mined[:-1]]))
        smaller = [replace(m, trees=part) for m, part in zip(mined, parts, strict=True)]
        return replace(self, trees=trees), smaller


def _labelled(distilled: DistilledGraphs, shares: np.ndarray) -> DistilledGraphs:
    """Label sets by the shares of the classes that hold them, and join those that are the same."""
    first: dict[tuple[bytes, bytes], int] = {}
    same = np.empty(len(distilled), dtype=np.int64)
    for number in range(len(distilled)):
        entries = slice(distilled.ptr[number], distilled.ptr[number + 1])
        key = distilled.roots[entries].tobytes(), distilled.counts[entries].tobytes()
        same[number] = first.setdefault(key, number)
    kept = np.flatnonzero(same == np.arange(len(same)))
    weights = np.bincount(same, distilled.weights, minlength=len(same))[kept]
    supports = np.bincount(same, distilled.supports, minlength=len(same))[kept]
    proba = rounded_labels(shares[kept] / shares[kept].sum(axis=1, keepdims=True))
    return replace(
        distilled.select(kept),
        y=proba.argmax(axis=1).astype(np.int32),
        weights=in_single_precision(weights),
        supports=supports.astype(np.int64),
        soft_labels=proba,
    )


def within_budget(
    mined: list[MinedSets], budget: int, join: Joiner
) -> tuple[Joiner, list[TreeSets]]:
    """Keep the sets that are most frequent in their class, as many as a number of bytes holds.

    Parameters
    ----------
    mined : list of MinedSets
        Of each class.
    budget : int
        Bytes that the result may take.
    join : Joiner
        Makes one result of the sets.

    Returns
    -------
    join : Joiner
        For the sets below.
    sets : list of TreeSets
        Of each class one set at least.

    Raises
    ------
    BudgetTooSmallError
        If the budget is too small for one set of each class; the message says what it takes.
    """
    join, mined = join.restrict(mined)
    # One threshold for all classes, as a share of the class. Among equals classes take turns.
    shares = np.concatenate([part.itemsets.supports / part.n_graphs for part in mined])
    place = np.concatenate([np.arange(len(part)) for part in mined])
    owner = np.repeat(np.arange(len(mined)), [len(part) for part in mined])
    owner = owner[np.lexsort((owner, place, -shares))]

    def sets_of(n_sets: int, *, weighted: bool = True) -> list[TreeSets]:
        numbers = np.maximum(np.bincount(owner[:n_sets], minlength=len(mined)), 1)
        return [
            part.first(int(n), weighted=weighted) for part, n in zip(mined, numbers, strict=True)
        ]

    @cache
    def joined(n_sets: int) -> tuple[DistilledGraphs, list[TreeSets]]:
        sets = sets_of(n_sets)
        return join(sets), sets

    def fits(n_sets: int) -> bool:
        return joined(n_sets)[0].n_bytes <= budget

    def nearly_fits(n_sets: int) -> bool:
        return join(sets_of(n_sets, weighted=False)).n_bytes <= budget

    least = joined(0)[0].n_bytes
    if least > budget:
        message = (
            f"Expected a budget of at least {least} bytes, which the most frequent set of trees of "
            f"each class takes; got {budget}. Fewer hops take fewer bytes."
        )
        raise BudgetTooSmallError(message)
    # Weights take time, and drop sets. Without them the place to search around is soon found.
    low = largest(0, len(owner), nearly_fits)
    high, step = len(owner), max(low // 16, 1)
    while low > 0 and not fits(low):
        low, high, step = max(low - step, 0), low - 1, 2 * step
    while low + step < high:
        if not fits(low + step):
            high = low + step - 1
            break
        low, step = low + step, 2 * step
    return join, joined(largest(low, high, fits))[1]


def largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number that fits, where ``low`` counts as fitting."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
