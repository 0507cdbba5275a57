"""How much memory a piece of work takes at its peak, whoever allocates it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PeakMemory"]

PROCESS = Path("/proc/self")


class PeakMemory:
    """The bytes by which this process grows at the peak of a ``with`` block.

    Memory is what is resident, so that arrays of compiled code and of torch count as those of NumPy
    do. What was freed before is given back to the system first, or it would be used again unseen;
    pieces that cannot be given back make the number too small by as much. One block cannot stand
    within another.

    Attributes
    ----------
    n_bytes : float
        The growth, results included; NaN where the system does not tell it. Linux does.
    """

    def __init__(self) -> None:
        self.n_bytes = float("nan")
        self._before: int | None = None

    def __enter__(self) -> Self:
        gc.collect(1)  # not what is older: a look at all objects of torch takes long
        with contextlib.suppress(OSError, AttributeError):  # of the C library of GNU
            ctypes.CDLL(None).malloc_trim(0)
        try:
            (PROCESS / "clear_refs").write_text("5")  # the high-water mark starts again from here
            self._before = _resident("VmRSS")
        except OSError:
            self._before = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            self.n_bytes = float(max(_resident("VmHWM") - self._before, 0))


def _resident(key: str) -> int:
    """Read a figure of this process from Linux, in bytes."""
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{PROCESS / 'status'} has no {key}.")
