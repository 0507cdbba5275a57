"""Teacher labels on disk: the contract between teachers that cannot share one environment.

A `LabelStore` is a folder with one sub-folder per teacher and inputs: one plain ``.npy`` per
quantity, and ``manifest.json``, which names the teacher, the inputs, quantities with units and
shapes, and the SHA-256 of every file. NumPy alone can read them; no pickle is read or written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from scikd._atomic import atomic_write, atomic_write_bytes, make_folder, storage_error, sweep
from scikd._chunks import array_file, assemble, cover, find_chunks, gaps, write_chunk
from scikd._manifest import read_manifest, seal_manifest
from scikd._progress import Progress, track
from scikd._stored import (
    CHUNKS,
    FORMAT,
    MANIFEST,
    STARTED,
    LabelEntry,
    StoredLabels,
    about_labels,
    complete,
    entry_of,
    open_labels,
    tidy,
)
from scikd.exceptions import (
    CorruptFileError,
    InvalidInputError,
    MismatchedLabelsError,
    SchemaError,
    ScikdError,
    StorageError,
    TeacherError,
)
from scikd.fingerprints import fingerprint_inputs
from scikd.quantities import Quantity

__all__ = ["LabelEntry", "LabelStore", "StoredLabels"]

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # at filling in what another process, or a failing disk, takes away meanwhile

Take = Callable[[Any, slice], Any]


class _Teacher(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def quantities(self) -> tuple[Quantity, ...]: ...
    def predict(self, X: Any, /) -> Mapping[str, np.ndarray]: ...


def _count(X: Any) -> int:
    if isinstance(X, Mapping):
        counts = {_count(values) for values in X.values()}
        if len(counts) == 1:
            return counts.pop()
        message = f"Expected a mapping of equally long columns; got lengths {sorted(counts)}."
        raise InvalidInputError(message)
    shape = getattr(X, "shape", None)
    try:
        return int(shape[0]) if shape else len(X)
    except TypeError:
        message = f"Expected inputs with a first axis or a length; got {type(X).__name__}."
        raise InvalidInputError(message) from None


def _take(X: Any, rows: slice) -> Any:
    """Slice arrays, frames, sparse matrices, lists and mappings of these."""
    if isinstance(X, Mapping):
        return {key: _take(values, rows) for key, values in X.items()}
    try:
        return X.iloc[rows] if hasattr(X, "iloc") else X[rows]
    except (TypeError, NotImplementedError) as error:
        message = (
            f"Cannot slice inputs of type {type(X).__name__} ({error}). Pass take=, a function of "
            "the inputs and a slice of samples."
        )
        raise InvalidInputError(message) from error


def _write_array(array: np.ndarray, file: BinaryIO) -> None:
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)


class LabelStore:
    """Teacher labels in a folder, found by the teacher's fingerprint and the inputs' digest.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder; made when the first labels are written.

    Notes
    -----
    Several processes may use one store at once: every file appears in one step, under a name that
    depends on its content, and the manifest comes last. Two that label the same inputs with the
    same teacher do the work twice.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = os.fspath(path)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self._path)

    def __repr__(self) -> str:
        return f"LabelStore({self._path!r})"

    def label(
        self,
        teacher: _Teacher,
        X: Any,
        *,
        batch_size: int = 1024,
        progress: Progress = "auto",
        take: Take | None = None,
    ) -> StoredLabels:
        """Ask a teacher for its labels, batch by batch, and keep every finished batch.

        Whatever ends the process, at most the batch in flight is lost; calling again goes on from
        there (also with another ``batch_size``: finished batches keep their ranges). Damaged
        batches are noticed and labelled again. Labels that are complete are only read.

        Parameters
        ----------
        teacher : Teacher
            Its ``name``, ``fingerprint``, ``quantities`` and ``predict``.
        X : array, frame, sparse matrix, list, or mapping of these
            The inputs, of n_samples.
        batch_size : int, default=1024
            Samples per call of ``predict``.
        progress : {"auto", True, False}, default="auto"
            Whether to show progress.
        take : callable or None, default=None
            ``take(X, slice)`` returns a batch; None slices along the first axis.

        Returns
        -------
        StoredLabels
            The labels, memory-mapped; ``batches_reused`` says how many batches were there already.

        Raises
        ------
        TeacherError
            If the teacher raises, or returns something unusable. Finished batches stay.
        StorageError
            If writing fails (a full disk). Finished batches stay.
        InvalidInputError
            If there are no samples, or the inputs cannot be fingerprinted or sliced.
        """
        n_samples = _count(X)
        if n_samples == 0 or batch_size < 1:
            message = f"Expected samples and batch_size >= 1; got {n_samples} and {batch_size}."
            raise InvalidInputError(message)
        inputs = fingerprint_inputs(X)
        about = about_labels(
            teacher.name, teacher.fingerprint, inputs, n_samples, teacher.quantities
        )
        folder = self._folder(teacher.fingerprint, inputs)
        predict = partial(_predict, teacher, X, take or _take)
        reused = None
        for attempt in range(1, ATTEMPTS + 1):
            if (folder / MANIFEST).exists():
                break
            try:
                found = _fill(folder, about, predict, batch_size, progress)
                reused = found if reused is None else reused
                _finish(folder, about)
            except StorageError as error:
                # Another process may have completed the same labels, and tidied its chunks away.
                if error.errno != errno.ENOENT or attempt == ATTEMPTS:
                    raise
        labels = open_labels(folder, verify=True)
        tidy(folder)
        if labels.name != teacher.name:
            logger.warning(
                "labels of teacher %r exist under the name %r", teacher.name, labels.name
            )
        return replace(labels, batches_reused=reused or 0)

    def write(
        self,
        *,
        name: str,
        fingerprint: str,
        inputs: Any,
        quantities: Sequence[Quantity],
        arrays: Mapping[str, Any],
        n_samples: int | None = None,
    ) -> StoredLabels:
        """Write complete labels in one go, e.g. from a foreign environment.

        Parameters
        ----------
        name, fingerprint : str
            The teacher.
        inputs : str or object
            Digest of the inputs, or the inputs themselves.
        quantities : sequence of Quantity
            What is written.
        arrays : mapping of str to array
            One floating-point array per quantity.
        n_samples : int or None, default=None
            Number of samples; None takes it from a quantity per ``"sample"``, or from the inputs.

        Returns
        -------
        StoredLabels
            The labels as stored. Older labels of the same teacher and inputs are replaced.

        Raises
        ------
        InvalidInputError
            If arrays and quantities do not fit; all problems are listed.
        StorageError
            If writing fails; older labels stay as they were.
        """
        given = {key: np.asarray(array) for key, array in arrays.items()}
        if n_samples is None:
            rows = [len(given[q.name]) for q in quantities if q.per == "sample" and q.name in given]
            n_samples = rows[0] if rows else None if isinstance(inputs, str) else _count(inputs)
        problems = _problems(quantities, given, n_samples)
        problems += ["n_samples is unknown: pass it"] if n_samples is None else []
        if problems or n_samples is None:
            message = f"Cannot store labels of teacher {name!r}: {'; '.join(problems)}."
            raise InvalidInputError(message)
        digest = inputs if isinstance(inputs, str) else fingerprint_inputs(inputs)
        folder = self._folder(fingerprint, digest)
        make_folder(folder)
        files = []
        for quantity in quantities:
            array = given[quantity.name]
            array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            file = array_file(quantity.name, fingerprint_inputs(array))
            sha256 = atomic_write(folder / file, partial(_write_array, array))
            files.append((file, sha256, array.dtype, array.shape))
        complete(
            folder, about_labels(name, fingerprint, digest, n_samples, tuple(quantities)), files
        )
        tidy(folder)
        return open_labels(folder, verify=False)

    def read(self, teacher: Any, inputs: Any, *, verify: bool = True) -> StoredLabels:
        """Read the labels of one teacher for one set of inputs.

        Parameters
        ----------
        teacher : str or Teacher
            Fingerprint or name.
        inputs : str or object
            Digest of the inputs, or the inputs themselves.
        verify : bool, default=True
            Whether to compare the checksums of the arrays, which reads them once. Without it only
            the manifest's own checksum, and sizes, types and shapes, are checked.

        Returns
        -------
        StoredLabels
            The labels, memory-mapped and read-only.

        Raises
        ------
        MismatchedLabelsError
            If the store has no complete labels of this teacher for these inputs, or several under
            this name; the message lists what it does have.
        CorruptFileError
            If a file was cut short, edited, removed, or is foreign.
        SchemaError
            If a newer scikd wrote them.
        """
        wanted = teacher if isinstance(teacher, str) else teacher.fingerprint
        digest = inputs if isinstance(inputs, str) else fingerprint_inputs(inputs)
        folder = self._folder(wanted, digest)
        if (folder / MANIFEST).exists():
            labels = open_labels(folder, verify=verify)
            if (labels.fingerprint, labels.inputs) != (wanted, digest):
                message = f"{folder} holds labels of {labels.name!r} under another key; delete it."
                raise CorruptFileError(message)
            return labels
        entries, damaged = self._scan()
        fits = [e for e in entries if e.complete and (e.name, e.inputs) == (wanted, digest)]
        if len(fits) == 1:
            return open_labels(fits[0].path, verify=verify)
        if not fits and damaged and not re.fullmatch(r"[0-9a-f]{64}", wanted):
            raise damaged[0]  # it may be the one, and its name cannot be read
        problem = f"several labels of {wanted!r}" if fits else f"no complete labels of {wanted!r}"
        listing = "".join(f"\n  {entry}" for entry in (fits or entries)[:20]) or " nothing"
        advice = "Ask for one fingerprint" if fits else "Write them with label or write first"
        message = (
            f"The store {self.path} holds {problem} for the inputs {digest:.16}. {advice}. "
            f"{'They are' if fits else 'It holds'}:{listing}"
        )
        raise MismatchedLabelsError(message)

    def entries(self) -> list[LabelEntry]:
        """Return what the store holds, complete or not, by name; damaged entries are logged."""
        entries, damaged = self._scan()
        for error in damaged:
            logger.warning("%s", error)
        return entries

    def _folder(self, fingerprint: str, inputs: str) -> Path:
        key = json.dumps([fingerprint, inputs]).encode()
        return self.path / hashlib.sha256(key).hexdigest()[:40]

    def _scan(self) -> tuple[list[LabelEntry], list[StorageError]]:
        entries: list[LabelEntry] = []
        damaged: list[StorageError] = []
        if self.path.exists() and not self.path.is_dir():
            message = f"{self.path} is a file; a label store is a folder."
            raise StorageError(message)
        for folder in sorted(self.path.iterdir()) if self.path.is_dir() else []:
            for file, is_manifest in ((MANIFEST, True), (STARTED, False)):
                if not (folder / file).exists():
                    continue
                try:
                    entries.append(entry_of(folder, read_manifest(folder / file, format=FORMAT)))
                except (CorruptFileError, SchemaError) as error:
                    if is_manifest:
                        damaged.append(error)
                except StorageError:  # another process has just tidied it away
                    continue
                break
        return sorted(entries, key=lambda e: (e.name, e.fingerprint, e.inputs)), damaged


def _problems(
    quantities: Sequence[Quantity], arrays: Mapping[str, np.ndarray], n_samples: int | None
) -> list[str]:
    problems = []
    for quantity in quantities:
        array = arrays.get(quantity.name)
        if array is None:
            problems.append(f"{quantity.name!r} is missing (got {sorted(arrays)})")
        elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
            problems.append(f"{quantity.name!r} has dtype {array.dtype}, expected at most float64")
        else:
            problems.append(quantity.problem(array, n_samples) or "")
    return [problem for problem in problems if problem]


def _predict(teacher: _Teacher, X: Any, take: Take, start: int, stop: int) -> dict[str, np.ndarray]:
    where = f"Teacher {teacher.name!r}, samples {start} to {stop},"
    batch = take(X, slice(start, stop))
    try:
        raw = teacher.predict(batch)
        arrays = {key: np.asarray(array) for key, array in raw.items()}
    except ScikdError:
        raise
    except Exception as error:
        message = f"{where} raised {type(error).__name__}: {error}"
        raise TeacherError(message) from error
    problems = _problems(teacher.quantities, arrays, stop - start)
    if problems:
        message = f"{where} returned something unusable: {'; '.join(problems)}. Correct it."
        raise TeacherError(message)
    return {quantity.name: arrays[quantity.name] for quantity in teacher.quantities}


def _fill(
    folder: Path,
    about: dict[str, Any],
    predict: Callable[[int, int], dict[str, np.ndarray]],
    batch_size: int,
    progress: Progress,
) -> int:
    """Label what no intact chunk holds; return how many chunks were there before."""
    make_folder(folder / CHUNKS)
    sweep(folder)
    sweep(folder / CHUNKS)
    started = seal_manifest(about)
    if not (folder / STARTED).exists() or (folder / STARTED).read_bytes() != started:
        atomic_write_bytes(folder / STARTED, started)
    n_samples = about["n_samples"]
    names = [quantity["name"] for quantity in about["quantities"]]
    chosen = cover(find_chunks(folder / CHUNKS, names, n_samples))
    todo = list(gaps(chosen, n_samples, batch_size))
    logger.info(
        "labelling with %r: %d finished batches (%d of %d samples) were already there, %d to go",
        about["name"],
        len(chosen),
        sum(chunk.stop - chunk.start for chunk in chosen),
        n_samples,
        len(todo),
    )
    description = f"labelling with {about['name']}"
    for start, stop in track(todo, total=len(todo), description=description, progress=progress):
        write_chunk(folder / CHUNKS, start, stop, predict(start, stop))
    return len(chosen)


def _finish(folder: Path, about: dict[str, Any]) -> None:
    """Assemble the chunks and write the manifest, unless another process was faster."""
    names = [quantity["name"] for quantity in about["quantities"]]
    chunks = cover(find_chunks(folder / CHUNKS, names, about["n_samples"]))
    if list(gaps(chunks, about["n_samples"], about["n_samples"])):
        return  # a chunk was damaged or taken away meanwhile: fill again
    try:
        files = [assemble(folder, name, chunks, about["name"]) for name in names]
    except StorageError:
        raise
    except OSError as error:  # such as a chunk that was taken away since
        raise storage_error(error, "read the batches in", folder) from error
    if not (folder / MANIFEST).exists():
        complete(folder, about, files)
