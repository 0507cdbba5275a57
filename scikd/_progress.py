"""Progress of long work: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

__all__ = ["Progress", "track"]

Item = TypeVar("Item")
Progress = bool | Literal["auto"]

logger = logging.getLogger("scikd.progress")

LOG_EVERY_SECONDS = 10.0


def track(
    items: Iterable[Item], *, total: int, description: str, progress: Progress = "auto"
) -> Iterator[Item]:
    """Yield the items, and show how far along they are.

    Parameters
    ----------
    items : iterable
        What to go through.
    total : int
        How many items there will be.
    description : str
        What is being done, in a few words.
    progress : {"auto", True, False}, default="auto"
        "auto" draws a bar when standard error is a terminal, and otherwise writes a log line (level
        INFO) every ten seconds; True always draws the bar; False says nothing.

    Yields
    ------
    object
        The items, unchanged and in order.
    """
    if progress is False:
        yield from items
        return
    if progress is True or sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415 - only a run that shows a bar pays for the import

        yield from tqdm(items, total=total, desc=description, leave=False, file=sys.stderr)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= LOG_EVERY_SECONDS:
            last = time.monotonic()
            logger.info("%s: %d of %d", description, done, total)
