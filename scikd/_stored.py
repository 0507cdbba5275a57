"""One set of stored labels: its folder, its manifest, and its arrays."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scikd._atomic import STALE_SECONDS, atomic_write_bytes, file_sha256, storage_error, sweep
from scikd._manifest import SCHEMA, library_versions, read_manifest, seal_manifest
from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError
from scikd.quantities import Quantity

__all__ = [
    "CHUNKS",
    "FORMAT",
    "MANIFEST",
    "STARTED",
    "LabelEntry",
    "StoredLabels",
    "about_labels",
    "complete",
    "entry_of",
    "open_labels",
    "tidy",
]

MANIFEST = "manifest.json"  # written last: where it is, the labels are complete
STARTED = "started.json"  # whose labels the chunks will be
CHUNKS = "chunks"
FORMAT = "scikd.labels"


@dataclass(frozen=True)
class LabelEntry:
    """What a store says about one set of labels.

    Parameters
    ----------
    name, fingerprint : str
        The teacher.
    inputs : str
        Digest of the inputs, see `scikd.fingerprints.fingerprint_inputs`.
    n_samples : int
        Number of samples of the inputs.
    quantities : tuple of Quantity
        What was, or will be, stored.
    path : pathlib.Path
        The folder.
    complete : bool
        Whether all samples are labelled.
    """

    name: str
    fingerprint: str
    inputs: str
    n_samples: int
    quantities: tuple[Quantity, ...]
    path: Path
    complete: bool

    def __str__(self) -> str:
        """Return one line for an error message."""
        state = "" if self.complete else ", incomplete"
        return (
            f"teacher {self.name!r} (fingerprint {self.fingerprint:.16}) for the inputs "
            f"{self.inputs:.16} ({self.n_samples} samples{state})"
        )


@dataclass(frozen=True, eq=False)
class StoredLabels(Mapping[str, np.ndarray]):
    """Labels of one teacher for one set of inputs: a read-only mapping of quantity to array.

    Parameters
    ----------
    name, fingerprint : str
        The teacher.
    inputs : str
        Digest of the inputs.
    n_samples : int
        Number of samples of the inputs.
    quantities : tuple of Quantity
        What is stored, with units. Quantities per ``"sample"`` have ``n_samples`` rows.
    arrays : dict of str to ndarray
        Read-only memory maps; use the object itself as the mapping.
    batches_reused : int, default=0
        How many batches `LabelStore.label` found finished when it began.
    """

    name: str
    fingerprint: str
    inputs: str
    n_samples: int
    quantities: tuple[Quantity, ...]
    arrays: dict[str, np.ndarray] = field(repr=False)
    batches_reused: int = 0

    def __getitem__(self, quantity: str) -> np.ndarray:
        return self.arrays[quantity]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def _describe(quantity: Quantity) -> dict[str, Any]:
    shape = None if quantity.shape is None else list(quantity.shape)
    return {"name": quantity.name, "unit": quantity.unit, "shape": shape, "per": quantity.per}


def about_labels(
    name: str, fingerprint: str, inputs: str, n_samples: int, quantities: tuple[Quantity, ...]
) -> dict[str, Any]:
    wrong = [text for text in (name, fingerprint, inputs) if not isinstance(text, str) or not text]
    names = [quantity.name for quantity in quantities]
    if wrong or not names or len(set(names)) < len(names):
        message = (
            "Expected text for name, fingerprint and inputs, and quantities of different names; "
            f"got {name!r}, {fingerprint!r:.80}, {inputs!r:.80} and {names}."
        )
        raise InvalidInputError(message)
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": name,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "n_samples": n_samples,
        "quantities": [_describe(quantity) for quantity in quantities],
    }


def complete(
    folder: Path,
    about: dict[str, Any],
    files: Sequence[tuple[str, str, np.dtype, tuple[int, ...]]],
) -> None:
    listed = [
        {
            **quantity,
            "file": file,
            "sha256": sha256,
            "bytes": (folder / file).stat().st_size,
            "dtype": dtype.str,
            "array_shape": list(shape),
        }
        for quantity, (file, sha256, dtype, shape) in zip(about["quantities"], files, strict=True)
    ]
    manifest = {**about, "quantities": listed, "versions": library_versions()}
    atomic_write_bytes(folder / MANIFEST, seal_manifest(manifest))


def tidy(folder: Path) -> None:
    """Delete what complete labels no longer need; what may be in another process's hands stays."""
    with contextlib.suppress(OSError, StorageError):
        listed = read_manifest(folder / MANIFEST, format=FORMAT)["quantities"]
        shutil.rmtree(folder / CHUNKS, ignore_errors=True)
        (folder / STARTED).unlink(missing_ok=True)
        sweep(folder)
        for path in folder.glob("*.npy"):
            old = time.time() - path.stat().st_mtime >= STALE_SECONDS
            if old and path.name not in [entry["file"] for entry in listed]:
                path.unlink()


def entry_of(folder: Path, manifest: dict[str, Any]) -> LabelEntry:
    try:
        quantities = tuple(
            Quantity(
                q["name"], q["unit"], None if q["shape"] is None else tuple(q["shape"]), q["per"]
            )
            for q in manifest["quantities"]
        )
        return LabelEntry(
            manifest["name"],
            manifest["fingerprint"],
            manifest["inputs"],
            manifest["n_samples"],
            quantities,
            folder,
            complete="versions" in manifest,
        )
    except (KeyError, TypeError) as error:
        message = f"{folder} is not a set of labels: its manifest lacks {error}. Delete it."
        raise CorruptFileError(message) from error


def _map_array(folder: Path, listed: dict[str, Any], verify: bool) -> np.ndarray:
    """Map one .npy, after checking that it is the one that the manifest lists."""
    hint = f"Delete the folder {folder}, and label again."
    try:
        name, size, sha256 = str(listed["file"]), listed["bytes"], listed["sha256"]
        path = folder / Path(name).name
        if name != path.name or not path.is_file():
            message = f"{folder} lists {name!r:.200}, which is not there. {hint}"
            raise CorruptFileError(message)
        if path.stat().st_size != size or (verify and file_sha256(path) != sha256):
            message = f"{path} was cut short or edited: expected {size} bytes of SHA-256 {sha256}, "
            message += f"got {path.stat().st_size} bytes of SHA-256 {file_sha256(path)}. {hint}"
            raise CorruptFileError(message)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape = tuple(listed["array_shape"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"{folder}: {error}. It is damaged, or no set of labels. {hint}"
        raise CorruptFileError(message) from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(error, "read", folder) from error
    if (array.dtype.str, array.shape) != (listed.get("dtype"), shape):
        message = f"{path} holds {array.dtype.str} of shape {array.shape}, expected "
        message += f"{listed.get('dtype')} of shape {shape}. {hint}"
        raise CorruptFileError(message)
    return np.asarray(array) if array.size == 0 else array


def open_labels(folder: Path, *, verify: bool) -> StoredLabels:
    """Map complete labels; see `LabelStore.read`."""
    manifest = read_manifest(folder / MANIFEST, format=FORMAT)
    entry = entry_of(folder, manifest)
    arrays = {
        quantity.name: _map_array(folder, listed, verify)
        for quantity, listed in zip(entry.quantities, manifest["quantities"], strict=True)
    }
    return StoredLabels(
        entry.name, entry.fingerprint, entry.inputs, entry.n_samples, entry.quantities, arrays
    )
