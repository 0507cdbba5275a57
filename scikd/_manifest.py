"""Manifests: JSON that carries its schema version and the checksum of its own content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from scikd._atomic import storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError, SchemaError, StorageError

__all__ = [
    "SCHEMA",
    "decode_labels",
    "encode_labels",
    "library_versions",
    "plain",
    "read_manifest",
    "seal_manifest",
]

SCHEMA = 1
MAX_MANIFEST_BYTES = 64 * 2**20

_PACKAGES = ("numpy", "scikit-learn", "safetensors", "skops", "scikd")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a saved object depends on."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=True)
    return text.encode("ascii") + b"\n"


def seal_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON, with the checksum of its own content added.

    Parameters
    ----------
    manifest : mapping
        Content; ``"sha256"`` is reserved for the checksum of the rest.

    Returns
    -------
    bytes
        The file's content, the same for the same manifest.
    """
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return _canonical({**body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()})


def read_manifest(path: str | Path, *, format: str) -> dict[str, Any]:  # noqa: A002
    """Read a manifest that `seal_manifest` made, and check it.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    format : str
        What its ``"format"`` must be, e.g. ``"scikd.bundle"``.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    StorageError
        If the file is missing or unreadable.
    CorruptFileError
        If it was cut short or edited, or is not a manifest of this format.
    SchemaError
        If a newer scikd wrote it.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            message = f"{path} is {path.stat().st_size:,} bytes, too large for a manifest of scikd."
            raise CorruptFileError(message)
        raw = path.read_bytes()
    except FileNotFoundError as error:
        message = f"There is no {path}. Check the path; nothing was saved there, or it was deleted."
        raise StorageError(message) from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(error, "read", path) from error
    return _checked_manifest(raw, path, format)


def _checked_manifest(raw: bytes, path: Path, format: str) -> dict[str, Any]:  # noqa: A002
    hint = "Restore it from a backup, or make it again."
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not valid JSON: it was cut short, edited, or is no manifest. {hint}"
        raise CorruptFileError(message) from error
    if not isinstance(manifest, dict) or manifest.get("format") != format:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        message = f"{path}: expected a manifest of format {format!r}, got {found!r:.80}. {hint}"
        raise CorruptFileError(message)
    schema = manifest.get("schema")
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        message = (
            f"{path} has schema {schema}; this scikd reads schemas up to {SCHEMA}. "
            'Update scikd (pip install -U scikd), or check that nobody edited "schema".'
        )
        raise SchemaError(message)
    if schema != SCHEMA or seal_manifest(manifest) != _canonical(manifest):
        message = f"{path} was edited or damaged: its content does not match its checksum. {hint}"
        raise CorruptFileError(message)
    return manifest


def plain(value: Any, where: str) -> Any:
    """Return the value as plain JSON types, or say which part of it is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    message = (
        f"{where} is a {type(value).__name__}; expected text, numbers, True, False, None, lists, "
        "or mappings with text keys. Numeric arrays go in `arrays`, labels through encode_labels."
    )
    raise InvalidInputError(message)


def encode_labels(labels: Any) -> dict[str, Any]:
    """Turn class labels into plain JSON, so that `decode_labels` gives them back exactly.

    Parameters
    ----------
    labels : array-like of int, float, bool, str, or object (mixtures of these and None)
        Labels, of any shape.

    Returns
    -------
    dict
        ``{"dtype": str, "shape": list, "values": list}``.

    Raises
    ------
    InvalidInputError
        If a label is of another type.
    """
    array = np.asarray(labels)
    kind = array.dtype.kind
    if kind not in "biufUO" or (kind == "f" and array.dtype.itemsize > 8):
        message = (
            f"Expected labels that are int, float, bool or str; got dtype {array.dtype}. "
            "Convert them, e.g. with labels.astype(str)."
        )
        raise InvalidInputError(message)
    values = plain(array.ravel().tolist(), "labels")
    if any(isinstance(value, (list, dict)) for value in values):
        message = "Expected labels that are int, float, bool or str; got lists or mappings."
        raise InvalidInputError(message)
    dtype = "object" if kind == "O" else array.dtype.newbyteorder("<").str
    return {"dtype": dtype, "shape": list(array.shape), "values": values}


def decode_labels(encoded: Mapping[str, Any]) -> np.ndarray:
    """Turn what `encode_labels` gave back into an array of the same dtype, shape and values.

    Raises
    ------
    CorruptFileError
        If it is not what `encode_labels` returns.
    """
    try:
        dtype = np.dtype(encoded["dtype"]).newbyteorder("=")
        array = np.empty(len(encoded["values"]), dtype=dtype)
        array[:] = encoded["values"]
        return array.reshape(encoded["shape"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        message = f"Stored class labels are damaged ({error}); expected dtype, shape and values."
        raise CorruptFileError(message) from error
