"""What a stage of a comparison costs."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, TypeVar

import numpy as np

from scikd._memory import PeakMemory

__all__ = ["Cost", "measured"]

Result = TypeVar("Result")


class Cost(NamedTuple):
    """Time and memory."""

    seconds: float = 0.0
    mib: float = 0.0
    """By how much memory grows at its peak, as `PeakMemory` measures it."""

    def then(self, other: Cost) -> Cost:
        """Return what both cost, one after the other."""
        return Cost(self.seconds + other.seconds, float(np.maximum(self.mib, other.mib)))


def measured(work: Callable[[], Result]) -> tuple[Result, Cost]:
    """Return what a function returns, and what that costs."""
    with PeakMemory() as memory:
        start = perf_counter()
        result = work()
        seconds = perf_counter() - start
    return result, Cost(seconds, memory.n_bytes / 2**20)
