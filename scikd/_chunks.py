"""Finished batches of teacher labels on disk, and their assembly into one array per quantity.

The name of a chunk holds its range of samples and its SHA-256: one file, put there in one step, is
a batch with its checksum, and two processes can never mix their halves of a batch.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scikd._atomic import atomic_write, atomic_write_bytes, file_sha256
from scikd.exceptions import TeacherError

__all__ = ["Chunk", "array_file", "assemble", "cover", "find_chunks", "gaps", "write_chunk"]

logger = logging.getLogger("scikd.labels")

_NAME = re.compile(r"(\d{12})-(\d{12})-([0-9a-f]{64})\.npz")


@dataclass(frozen=True)
class Chunk:
    """Labels of the samples from ``start`` to ``stop``, in one file of checked content."""

    start: int
    stop: int
    sha256: str
    path: Path


def write_chunk(folder: Path, start: int, stop: int, arrays: Mapping[str, np.ndarray]) -> Chunk:
    """Write a finished batch in one step."""
    names = np.frombuffer(json.dumps(list(arrays)).encode(), dtype=np.uint8)
    numbered = {f"q{i}": array for i, array in enumerate(arrays.values())}
    buffer = io.BytesIO()
    np.savez(buffer, names=names, **numbered)  # type: ignore[arg-type]
    raw = buffer.getvalue()
    digest = hashlib.sha256(raw).hexdigest()
    path = folder / f"{start:012d}-{stop:012d}-{digest}.npz"
    atomic_write_bytes(path, raw)
    return Chunk(start, stop, digest, path)


def _names(held: Any) -> list[str]:
    names: list[str] = json.loads(held["names"].tobytes())
    return names


def _read(chunk: Chunk, name: str) -> np.ndarray:
    """Read one quantity of a chunk whose checksum was compared before."""
    with np.load(chunk.path, allow_pickle=False) as held:
        array: np.ndarray = held[f"q{_names(held).index(name)}"]
        return array


def _is_intact(path: Path, sha256: str, names: Sequence[str]) -> bool:
    try:
        if file_sha256(path) != sha256:
            return False
        with np.load(path, allow_pickle=False) as held:
            return sorted(_names(held)) == sorted(names)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def find_chunks(folder: Path, names: Sequence[str], n_samples: int) -> list[Chunk]:
    """Return the chunks here whose content matches their checksum; delete the others."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        match = _NAME.fullmatch(path.name)
        try:
            intact = match is not None and _is_intact(path, match[3], names)
        except FileNotFoundError:  # another process is done and has tidied up
            continue
        if match is not None and intact and int(match[1]) < int(match[2]) <= n_samples:
            found.append(Chunk(int(match[1]), int(match[2]), match[3], path))
        else:
            logger.warning("%s is damaged; its batch is labelled again", path)
            path.unlink(missing_ok=True)
    return found


def cover(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Choose chunks that do not overlap, from the first sample on, the longest first."""
    chosen: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda c: (c.start, -c.stop, c.sha256)):
        if chunk.start >= (chosen[-1].stop if chosen else 0):
            chosen.append(chunk)
    return chosen


def gaps(chosen: Sequence[Chunk], n_samples: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of samples that no chosen chunk holds, in batches."""
    ends = [0, *(chunk.stop for chunk in chosen)]
    starts = [*(chunk.start for chunk in chosen), n_samples]
    for low, high in zip(ends, starts, strict=True):
        for start in range(low, high, batch_size):
            yield start, min(start + batch_size, high)


def array_file(name: str, digest: str) -> str:
    """Return the name of the file of a quantity; the digest keeps apart what must not mix."""
    readable = re.sub(r"[^A-Za-z0-9_]+", "_", name)[:60]
    whole = hashlib.sha256(f"{name}\n{digest}".encode()).hexdigest()
    return f"{readable}-{whole[:24]}.npy"


def assemble(
    folder: Path, name: str, chunks: Sequence[Chunk], teacher: str
) -> tuple[str, str, np.dtype, tuple[int, ...]]:
    """Copy one quantity of all chunks, in order, into one .npy, holding one chunk at a time.

    Returns
    -------
    tuple
        File name, SHA-256, dtype and shape.
    """
    layouts = [(array.dtype, array.shape) for array in (_read(chunk, name) for chunk in chunks)]
    tails = sorted({shape[1:] for _, shape in layouts})
    if len(tails) > 1:
        message = (
            f"Teacher {teacher!r} returned {name!r} with entries of different shapes in different "
            f"batches: {tails}. It must return the same columns (e.g. classes) for every batch."
        )
        raise TeacherError(message)
    dtype = np.result_type(*(dtype for dtype, _ in layouts)).newbyteorder("<")
    shape = (sum(shape[0] for _, shape in layouts), *tails[0])

    def write(file: BinaryIO) -> None:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:  # noqa: FURB122 - one at a time is the point
            file.write(_read(chunk, name).astype(dtype, copy=False).tobytes())

    # The same chunks give the same name, so a killed assembly is written over, never left behind.
    path = folder / array_file(name, "\n".join(chunk.sha256 for chunk in chunks))
    return path.name, atomic_write(path, write), dtype, shape
