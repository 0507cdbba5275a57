"""The sets of all classes as one result, and as many of them as a number of bytes holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

from .distilled import DistilledGraphs
from .mining import MinedSets, TreeSets
from .preparation import Preparation
from .trees import Trees

__all__ = ["Joiner", "within_budget"]


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
        return DistilledGraphs(
            trees=trees,
            ptr=np.concatenate([[0], *ptrs]),
            roots=roots,
            counts=np.concatenate([part.counts for part in sets]),
            y=np.repeat(np.arange(len(sets), dtype=np.int32), [len(part) for part in sets]),
            # In single precision, so that they are stored in four bytes without loss.
            weights=np.concatenate([p.weights for p in sets]).astype(np.float32).astype(np.float64),
            classes=self.classes,
            preparation=self.preparation,
            provenance=provenance or {},
        )

    def restrict(self, mined: Sequence[MinedSets]) -> tuple[Joiner, list[MinedSets]]:
        """Keep only trees that some set may need, so that sizes are found quickly."""
        trees, roots = self.trees.restrict(np.concatenate([part.trees for part in mined]))
        parts = np.split(roots, np.cumsum([len(part.trees) for part in mined[:-1]]))
        smaller = [replace(m, trees=part) for m, part in zip(mined, parts, strict=True)]
        return replace(self, trees=trees), smaller


def within_budget(
    mined: list[MinedSets], budget: int, join: Joiner
) -> tuple[Joiner, list[TreeSets]]:
    """Give each class as many of its most frequent sets as an even share of the bytes holds."""
    join, mined = join.restrict(mined)
    firsts = [cache(part.first) for part in mined]
    sizes = [cache(partial(_size, join, first)) for first in firsts]

    def share(n_bytes: int) -> list[TreeSets]:
        numbers = [
            _largest(1, len(part), partial(_at_most, n_bytes, size))
            for part, size in zip(mined, sizes, strict=True)
        ]
        return [first(n) for first, n in zip(firsts, numbers, strict=True)]

    def fits(n_bytes: int) -> bool:
        return join(share(n_bytes)).n_bytes <= budget

    if not fits(0):
        message = (
            f"Expected a budget of at least {join(share(0)).n_bytes} bytes, which the most "
            f"frequent set of trees of each class takes; got {budget}. Fewer hops take fewer bytes."
        )
        raise InvalidInputError(message)
    # Classes share subtrees, so an even share of the bytes is more than the budget divided evenly.
    return join, share(_largest(0, budget, fits))


def _size(join: Joiner, first: Callable[[int], TreeSets], n_sets: int) -> int:
    return join([first(n_sets)]).n_bytes


def _at_most(n_bytes: int, size: Callable[[int], int], n_sets: int) -> bool:
    return size(n_sets) <= n_bytes


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number that fits, where ``low`` counts as fitting."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
