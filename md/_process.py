"""What a running process is given: threads, a folder of its own, and requests to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch

from scikd._atomic import storage_error
from scikd.exceptions import InvalidInputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["StopRequest", "alone_in", "torch_threads"]

logger = logging.getLogger(__name__)


class StopRequest:
    """Ctrl-C and the system's polite request to end, held back until a step is complete.

    A context manager. A second Ctrl-C is not held back. Elsewhere than in the main thread, where
    Python handles no signals, it does nothing.

    Attributes
    ----------
    received : int or None
        The signal that came first.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._receive) for s in self.SIGNALS}
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *error: object) -> None:
        self._restore()

    def obey(self) -> None:
        """Do now what the signal asks for."""
        if self.received is not None:
            self._restore()
            signal.raise_signal(self.received)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while; None leaves the number as it is.

    The setting belongs to the whole process.
    """
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a folder to this process, where the system has such locks; a kill gives it back.

    Raises
    ------
    InvalidInputError
        If another process has it.
    StorageError
        If it cannot be opened.
    """
    if fcntl is None:
        yield
        return
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error(error, "open", folder) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = (
                f"Another process is running in {folder}. Wait for it, stop it, or choose another "
                "output."
            )
            raise InvalidInputError(message) from error
        except OSError:  # a disk without locks
            logger.debug("no lock on %s", folder)
        yield
    finally:
        os.close(lock)
