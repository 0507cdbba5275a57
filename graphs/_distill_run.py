"""One distillation of files: of one at once, of several each by itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from scikd.exceptions import InvalidInputError

from ._datasets import open_dataset
from ._warm_up import warm_up
from .baselines import stored_bytes
from .distilled import DistilledGraphs
from .graphset import GraphSet
from .mirage import Mirage

__all__ = ["distill_from"]

logger = logging.getLogger(__name__)


def distill_from(
    mirage: Mirage,
    sources: Sequence[str],
    *,
    n_jobs: int | None = None,
    reading: Mapping[str, Any] | None = None,
) -> tuple[DistilledGraphs, float]:
    """Distil the training parts of data sets.

    Parameters
    ----------
    mirage : Mirage
        How.
    sources : sequence of str
        Data sets, as for `open_dataset`. Several are the shards of one, and never in memory all at
        once.
    n_jobs : int or None, default=None
        On how many of several to work at once.
    reading : mapping or None, default=None
        Further arguments of `open_dataset`.

    Returns
    -------
    distilled : DistilledGraphs
        The result; its provenance says of what.
    seconds : float
        That it took, without preparing kernels; of several with reading them.

    Raises
    ------
    StorageError, CorruptFileError
        If something cannot be read.
    InvalidInputError
        As `Mirage.fit`, and if a single data set is to be worked on by several.
    """
    reading, facts = reading or {}, dict[str, Any]()
    if len(sources) == 1:
        if n_jobs is not None:
            message = "Expected several data sets with --n-jobs; one is distilled as a whole."
            raise InvalidInputError(message)
        logger.info("Reading %s", sources[0])
        data = open_dataset(sources[0], **reading)
        graphs, what = data.part("train"), data.describe("train")
        facts["graphs_bytes"] = stored_bytes(graphs)
        warm_up(mirage)
        logger.info("Distilling %s", what)
        start = perf_counter()
        mirage.fit(graphs)
    else:
        warm_up(mirage, shards=True)
        logger.info("Distilling %d data sets, each read several times", len(sources))
        start = perf_counter()
        mirage.fit_shards([partial(_read, source, reading) for source in sources], n_jobs=n_jobs)
        n_graphs = sum(mirage.distilled_.provenance["graphs"])
        what = f"the {n_graphs:,} graphs for training of {len(sources)} data sets"
    seconds = perf_counter() - start
    distilled = mirage.distilled_
    facts["part"] = what
    return replace(distilled, provenance=distilled.provenance | facts), seconds


def _read(source: str, reading: Mapping[str, Any]) -> GraphSet:
    return open_dataset(source, **reading).part("train")
