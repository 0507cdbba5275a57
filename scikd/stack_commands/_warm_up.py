"""Kernels are compiled, or read from the cache, before the work that is timed."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from time import perf_counter

import numpy as np

from scikd.exceptions import StackingWarning
from scikd.stack_commands.options import StackOptions

__all__ = ["warm_up"]

logger = logging.getLogger(__name__)

N_ROWS = 60


def warm_up(options: StackOptions) -> None:
    """Stack a few rows by the kernels that a table will need, and say so.

    Parameters
    ----------
    options : StackOptions
        How tables will be stacked. The published recipe is slow whatever the number of rows, and
        has no kernels of its own.

    Raises
    ------
    InvalidInputError
        If options do not go together.
    """
    random = np.random.default_rng(0)
    y = random.normal(size=N_ROWS)
    P = y[:, None] + random.normal(size=(N_ROWS, 3))
    meta = replace(options, recipe="none", n_resamples=1).meta()
    logger.info("Preparing compiled kernels: some seconds the first time, from a cache later.")
    start = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StackingWarning)
        if options.classes:
            second = 1.0 / (1.0 + np.exp(-P))
            meta.fit(np.stack([1.0 - second, second], axis=2), y > 0)
        else:
            meta.fit(P, y)
    meta.freeze()
    logger.info("Ready after %.1f s.", perf_counter() - start)
