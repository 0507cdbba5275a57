"""Saving and loading: safetensors and skops beside a JSON manifest, never pickle.

A *bundle* is a folder: ``manifest.json``, ``arrays.safetensors`` and any named blobs. The manifest
holds the schema version, the kind of object, its parameters, units, library versions, and size and
SHA-256 of every other file; every byte is checked before anything interprets it.

.. warning::
   The checksums find damage and careless edits. They are no signature: whoever can write the folder
   can write matching checksums. `load_estimator` therefore still asks which types to trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scikd._atomic import atomic_write, atomic_write_bytes, storage_error, sweep, sync_folder
from scikd._estimators import dump_estimator, load_dumped, trusted_types
from scikd._manifest import (
    SCHEMA,
    decode_labels,
    encode_labels,
    library_versions,
    plain,
    read_manifest,
    seal_manifest,
)
from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError

__all__ = [
    "SCHEMA",
    "Bundle",
    "atomic_write",
    "decode_labels",
    "encode_labels",
    "load_bundle",
    "load_estimator",
    "save_bundle",
    "save_estimator",
    "size_on_disk",
    "trusted_types",
]

MANIFEST = "manifest.json"
ARRAYS = "arrays.safetensors"
ESTIMATOR = "estimator.skops"

_BLOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_SAFETENSORS_DTYPES = frozenset(
    ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8"]
)  # and bool


@dataclass(frozen=True)
class Bundle:
    """What a bundle held, checked.

    Parameters
    ----------
    kind : str
        What it is, as given to `save_bundle`.
    parameters : dict
        JSON values (tuples come back as lists).
    arrays : dict of str to ndarray
        Arrays by name.
    blobs : dict of str to bytes
        Other content by name.
    manifest : dict
        The whole manifest, with ``"units"`` and ``"versions"``.
    """

    kind: str
    parameters: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(repr=False)
    blobs: dict[str, bytes] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)


def _encode_arrays(arrays: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save  # noqa: PLC0415 - only saving pays for the import

    ready = {}
    for name, values in arrays.items():
        array = np.asarray(values)
        if array.dtype.name != "bool" and array.dtype.str[1:] not in _SAFETENSORS_DTYPES:
            message = (
                f"Array {name!r} has dtype {array.dtype}; expected bool, integers, float16 to "
                "float64, or complex64. Put labels in the parameters, through encode_labels."
            )
            raise InvalidInputError(message)
        # safetensors copies the memory of the array as it lies, whatever its strides.
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        ready[name] = little if little.flags.c_contiguous else little.copy(order="C")
    return save(ready)


def _bundle_files(
    kind: str,
    parameters: Mapping[str, Any],
    arrays: Mapping[str, Any],
    blobs: Mapping[str, bytes],
    units: Mapping[str, str],
) -> dict[str, bytes]:
    """Return the content of every file of a bundle, the manifest last."""
    bad = [name for name in blobs if not _is_blob_name(name) or name in (MANIFEST, ARRAYS)]
    if bad:
        message = (
            f"Cannot name blobs {bad}: expected letters, digits, '.', '_' and '-', beginning with "
            f"a letter or digit, and neither {MANIFEST!r} nor {ARRAYS!r}."
        )
        raise InvalidInputError(message)
    files = {ARRAYS: _encode_arrays(arrays)} if arrays else {}
    files.update({name: bytes(content) for name, content in blobs.items()})
    manifest = {
        "format": "scikd.bundle",
        "schema": SCHEMA,
        "kind": kind,
        "parameters": plain(parameters, "parameters"),
        "units": plain(units, "units"),
        "versions": library_versions(),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    files[MANIFEST] = seal_manifest(manifest)
    return files


def _is_blob_name(name: Any) -> bool:
    return isinstance(name, str) and _BLOB_NAME.fullmatch(name) is not None


def _refuse_foreign(path: Path) -> None:
    """Raise unless the path is free, an empty folder, or a bundle."""
    if not path.is_dir():
        if path.exists() or path.is_symlink():
            message = f"{path} is a file, and a bundle is a folder. Choose another path."
            raise StorageError(message)
        return
    try:
        if json.loads((path / MANIFEST).read_bytes())["format"] == "scikd.bundle":
            return
    except (OSError, ValueError, TypeError, KeyError):
        if not any(path.iterdir()):
            return
    message = (
        f"{path} is a folder with other content; it is never overwritten. "
        "Choose another path, or delete the folder yourself."
    )
    raise StorageError(message)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; return False where the system cannot (it is Linux's)."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes  # noqa: PLC0415 - only replacing a bundle needs it

    at_fdcwd, rename_exchange = -100, 2
    try:
        function = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(function(at_fdcwd, names[0], at_fdcwd, names[1], rename_exchange) == 0)


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _swap_in(new: Path, path: Path) -> None:
    """Put the new folder at the path; at every moment the old or the new one can be loaded."""
    aside = _previous(path)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if not path.is_dir():
        os.rename(new, path)  # noqa: PTH104
    elif not _exchange(new, path):
        # Without an exchange there is a moment without a folder at the path: `load_bundle` knows.
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)  # noqa: PTH104
        os.rename(new, path)  # noqa: PTH104
    shutil.rmtree(aside, ignore_errors=True)


def save_bundle(
    path: str | Path,
    *,
    kind: str,
    parameters: Mapping[str, Any],
    arrays: Mapping[str, Any] | None = None,
    blobs: Mapping[str, bytes] | None = None,
    units: Mapping[str, str] | None = None,
) -> Path:
    """Save parameters, arrays and blobs as one folder, all or nothing.

    Parameters
    ----------
    path : str or pathlib.Path
        Folder to make. A bundle that is there already is replaced as a whole: whenever the process
        is killed, `load_bundle` finds the old one or the new one. Any other folder is refused.
    kind : str
        What it is; `load_bundle` asks for the same.
    parameters : mapping of str to JSON values
        Text, numbers, True, False, None, lists and mappings. NaN and infinity are kept (as Python
        writes them in JSON).
    arrays : mapping of str to ndarray, default=None
        Numeric and boolean arrays of any shape.
    blobs : mapping of str to bytes, default=None
        Other content; the names become file names.
    units : mapping of str to str, default=None
        Unit of each array, by name.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InvalidInputError
        If a parameter is not JSON, an array is not numeric, or a name cannot be a file name.
    StorageError
        If it cannot be written, or another folder is in the way; nothing is left behind.
    """
    path = Path(os.path.realpath(path))  # a link stays a link, its target is replaced
    files = _bundle_files(kind, parameters, arrays or {}, blobs or {}, units or {})
    _refuse_foreign(path)
    sweep(path.parent, f".{path.name}.")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        if not path.exists() and _previous(path).exists():  # a kill came between two renames
            os.rename(_previous(path), path)  # noqa: PTH104
        temporary.mkdir()
        for name, content in files.items():
            atomic_write_bytes(temporary / name, content)
        _swap_in(temporary, path)
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise storage_error(cause, "write", path) from cause
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # by now the old bundle, or a failed one
    sync_folder(path.parent)
    return path


def load_bundle(path: str | Path, *, kind: str) -> Bundle:
    """Load what `save_bundle` wrote, after checking every byte of it.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder.
    kind : str
        What it must be.

    Returns
    -------
    Bundle
        Its content; the arrays are copies that may be written to.

    Raises
    ------
    StorageError
        If there is no such folder, or it cannot be read.
    CorruptFileError
        If a file was cut short, edited, added or removed, or the bundle is of another kind.
    SchemaError
        If a newer scikd wrote it.
    """
    path = Path(os.path.realpath(path))
    while True:
        if not path.exists() and _previous(path).exists():
            path = _previous(path)
        manifest = read_manifest(path / MANIFEST, format="scikd.bundle")
        try:
            return _load_checked(path, manifest, kind)
        except (CorruptFileError, FileNotFoundError) as error:
            # Another process may have put a new bundle there between the manifest and the rest.
            if read_manifest(path / MANIFEST, format="scikd.bundle") == manifest:
                if isinstance(error, CorruptFileError):
                    raise
                raise storage_error(error, "read", path) from error


def _load_checked(path: Path, manifest: dict[str, Any], kind: str) -> Bundle:
    if manifest.get("kind") != kind:
        message = f"{path} holds a {manifest.get('kind')!r}, expected a {kind!r}."
        raise CorruptFileError(message)
    files = _read_files(path, manifest.get("files"))
    arrays = _decode_arrays(files.pop(ARRAYS), path / ARRAYS) if ARRAYS in files else {}
    return Bundle(kind, manifest["parameters"], arrays, files, manifest)


def _read_files(path: Path, listed: Any) -> dict[str, bytes]:
    """Read the listed files of a bundle into memory, and check size and SHA-256 of each."""
    problems = []
    if not isinstance(listed, dict):
        message = f"{path / MANIFEST} lists no files. Make the bundle again."
        raise CorruptFileError(message)
    present = {item.name for item in path.iterdir() if not item.name.startswith(".")}
    problems += [f"{name!r} is not listed" for name in sorted(present - {MANIFEST, *listed})]
    contents = {}
    for name, entry in listed.items():
        if not _is_blob_name(name):
            problems.append(f"{name!r:.80} is no file name of a bundle")
            continue
        if name not in present or not (path / name).is_file():
            problems.append(f"{name!r} is missing")
            continue
        size = (path / name).stat().st_size
        if size != entry.get("bytes"):
            problems.append(f"{name!r} has {size} bytes, expected {entry.get('bytes')}")
            continue
        contents[name] = (path / name).read_bytes()
        if hashlib.sha256(contents[name]).hexdigest() != entry.get("sha256"):
            problems.append(f"the content of {name!r} does not match its checksum")
    if problems:
        message = (
            f"The bundle {path} was cut short or edited: {'; '.join(problems)}. "
            "Restore it from a backup, or make it again."
        )
        raise CorruptFileError(message)
    return contents


def _decode_arrays(raw: bytes, path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    try:
        return {name: np.array(array) for name, array in sorted(load(raw).items())}
    except (SafetensorError, KeyError, ValueError) as error:
        message = f"{path} is not a valid safetensors file: {error}. Make the bundle again."
        raise CorruptFileError(message) from error


def _estimator_files(estimator: Any) -> dict[str, Any]:
    kind = type(estimator)
    get_params = getattr(estimator, "get_params", None)
    simple = (str, bool, int, float, type(None))
    params = get_params(deep=False) if get_params is not None else {}
    return {
        "kind": "estimator",
        "parameters": {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "parameters": {
                name: value if isinstance(value, simple) else f"<{type(value).__name__}>"
                for name, value in params.items()
            },
        },
        "arrays": {},
        "blobs": {ESTIMATOR: dump_estimator(estimator)},
        "units": {},
    }


def save_estimator(estimator: Any, path: str | Path) -> Path:
    """Save a fitted scikit-learn-compatible estimator as a bundle, through skops.

    Parameters
    ----------
    estimator : object
        The estimator.
    path : str or pathlib.Path
        Folder to make; see `save_bundle`.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InvalidInputError
        If a part of it cannot be saved without pickle (lambdas, inner functions, open files, data
        frames, ...); the message says which.
    StorageError
        If it cannot be written.
    """
    return save_bundle(path, **_estimator_files(estimator))


def size_on_disk(estimator: Any) -> int:
    """Return how many bytes `save_estimator` would write, without touching the disk.

    skops names parts by their address in memory, so repeated calls differ by a few bytes.

    Raises
    ------
    InvalidInputError
        If the estimator cannot be saved.
    """
    return sum(len(content) for content in _bundle_files(**_estimator_files(estimator)).values())


def load_estimator(path: str | Path, *, trusted: Sequence[str] = ()) -> Any:
    """Load what `save_estimator` wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder.
    trusted : sequence of str, default=()
        Dotted names of further types that the file may rebuild. scikd's own classes and what skops
        trusts (scikit-learn's estimators, NumPy, SciPy) need not be listed.

    Returns
    -------
    object
        The estimator.

    Raises
    ------
    InvalidInputError
        If the file holds types that are not trusted; the message lists them. Nothing of the file
        has been executed or built then.
    StorageError
        If it is missing, cut short, edited, foreign, or from a newer scikd; nothing of it was
        given to skops then.

    Notes
    -----
    .. warning::
       Trusting a type lets the file build such objects from data that it chooses. Trees
       (``sklearn.tree._tree.Tree``, ``TreePredictor``) are not trusted by skops, because
       scikit-learn follows their node numbers without checking: list them for files from a source
       that you trust.
    """
    if isinstance(trusted, (str, bool)):
        message = f"Expected `trusted` to be a list of dotted type names; got {trusted!r}."
        raise InvalidInputError(message)
    path = Path(path)
    bundle = load_bundle(path, kind="estimator")
    if ESTIMATOR not in bundle.blobs:
        message = f"{path} lists no {ESTIMATOR}. Make the bundle again."
        raise CorruptFileError(message)
    return load_dumped(bundle.blobs[ESTIMATOR], path / ESTIMATOR, trusted)
