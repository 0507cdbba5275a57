"""Kernels are compiled, or read from the cache, before the work that is timed."""

from __future__ import annotations

import logging
from time import perf_counter

import numpy as np
from sklearn.base import clone

from .graphset import GraphSet
from .mirage import Mirage

__all__ = ["warm_up"]

logger = logging.getLogger(__name__)


def warm_up(mirage: Mirage, *, shards: bool = False) -> None:
    """Distil pairs of nodes by the kernels that a distillation will need, and say so.

    Parameters
    ----------
    mirage : Mirage
        How graphs will be distilled; it is not fitted.
    shards : bool, default=False
        Whether they are in several shards.

    Raises
    ------
    InvalidInputError
        If options do not go together.
    """
    # Options stay as far as they decide what is called; nothing shall be rare or too large.
    small = clone(mirage).set_params(contrast=None, max_sets=1000)
    if mirage.budget is not None:
        small.set_params(budget="1MB")
    if mirage.min_support is not None:
        small.set_params(min_support=1)
    logger.info("Preparing compiled kernels: some seconds the first time, from a cache later.")
    start = perf_counter()
    if shards:
        small.fit_shards([_pairs])
    else:
        small.fit(_pairs())
    logger.info("Ready after %.1f s.", perf_counter() - start)


def _pairs() -> GraphSet:
    """Return two graphs of each of two classes, of two nodes each."""
    start = 2 * np.arange(5)
    sources = np.arange(8)
    y = np.repeat([0, 1], 2)
    label = np.repeat(y, 2)[:, None]
    return GraphSet(start, start, sources, sources ^ 1, label, np.zeros((8, 1), dtype=np.int64), y)
