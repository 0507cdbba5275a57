"""Writing files so that they are there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from scikd.exceptions import StorageError

__all__ = [
    "atomic_write",
    "atomic_write_bytes",
    "file_sha256",
    "make_folder",
    "new_folder",
    "room_for",
    "storage_error",
    "sweep",
    "sync_folder",
    "try_place",
]

STALE_SECONDS = 3600.0  # a temporary file that nobody has written to for so long has no owner

# What to do about an error, by its errno name.
_ADVICE = {
    "ENOSPC": "Free some space, or choose a folder on another disk.",
    "EDQUOT": "Your quota is used up: delete something, or choose a folder on another disk.",
    "EFBIG": "The file is larger than the system allows (ulimit -f, or the file system's limit).",
    "EACCES": "Check the permissions of the folder.",
    "EPERM": "Check the permissions of the folder.",
    "EROFS": "The disk is mounted read-only: choose another folder.",
    "ENOENT": "Create the folder that should hold it first.",
    "ENOTDIR": "A part of the path is a file: choose another path.",
    "EEXIST": "There is a file of that name: choose another path.",
    "EISDIR": "There is a folder of that name: choose another path.",
}


class _Hashing(io.RawIOBase):
    """A write-only, forward-only file that hashes what passes through."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.file.write(data)
        self.sha256.update(data)
        return memoryview(data).nbytes


def storage_error(error: OSError, action: str, path: Path) -> StorageError:
    """Say which file it was, what the system objected to, and what to do about it."""
    code = errno.errorcode.get(error.errno or 0, "")
    advice = _ADVICE.get(code, "Check the disk and the path.")
    if code == "ENOENT" and action.startswith("read"):
        advice = "Check the path."
    wrapped = StorageError(f"Could not {action} {path}: {error.strerror or error}. {advice}")
    wrapped.errno = error.errno
    return wrapped


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, where they are missing.

    Raises
    ------
    StorageError
        If the system refuses, or a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, "make the folder", folder) from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder for what follows; if that fails before it has written there, take it away.

    Raises
    ------
    StorageError
        As `make_folder` does.
    """
    places = (folder, *folder.parents)
    missing = [p for p in places if not os.path.exists(p)]  # noqa: PTH110 - this one never raises
    make_folder(folder)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for place in missing:
                place.rmdir()
        raise


def try_place(path: Path) -> None:
    """See that the folder which a file or folder is to lie in lets us write.

    Raises
    ------
    StorageError
        If it does not.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise storage_error(error, "write", path) from error


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """See that a file can be written before the long work that makes it, as `new_folder` does.

    Raises
    ------
    StorageError
        If its folder cannot be made or written to, or it is itself a folder.
    """
    with new_folder(path.parent):
        if path.is_dir():
            error = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            raise storage_error(error, "write", path) from error
        try_place(path)
        yield


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, where the system lets us."""
    with contextlib.suppress(OSError):  # Windows and some network disks cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path, prefix: str = ".") -> None:
    """Delete temporary files and folders here that a killed process left an hour ago or more."""
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are all it takes
    for path in (folder / n for n in names if n.startswith(prefix) and n.endswith(".tmp")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object]) -> str:
    """Write a file so that it is there as a whole, or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write; one that is there already is replaced at the end, in one step.
    write : callable
        Gets a binary file that can only be written forward, and writes the content.

    Returns
    -------
    str
        SHA-256 of what was written, as hexadecimal digits.

    Raises
    ------
    StorageError
        If the disk is full, the folder is missing or read-only, ...; no partial file is left, and
        an older file at ``path`` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "xb") as file:  # noqa: PTH123 - the tests patch what this calls
            hashing = _Hashing(file)
            write(hashing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(error, "write", path) from error
        raise
    sync_folder(path.parent)
    return hashing.sha256.hexdigest()


def atomic_write_bytes(path: str | Path, content: bytes) -> str:
    """Write bytes as `atomic_write` does, and return their SHA-256."""
    return atomic_write(path, lambda file: file.write(content))


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits, reading it in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
