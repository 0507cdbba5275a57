"""Estimators as skops bytes: what may be written, and what may be read."""

from __future__ import annotations

import contextlib
import io
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scikd.exceptions import CorruptFileError, InvalidInputError

__all__ = ["dump_estimator", "load_dumped", "trusted_types"]

# Public classes defined in these modules of scikd may be rebuilt from a file without being asked
# for. Nothing in them acts on construction. Functions are never trusted this way.
_TRUSTED_MODULES = tuple(
    f"scikd.{name}"
    for name in [
        "aggregation",
        "consensus",
        "ensemble",
        "harmonise",
        "labels",
        "objectives",
        "out_of_fold",
        "quantities",
        "stacking",
        "students",
        "teachers",
    ]
)


def _named(name: str, *, may_import: bool = False) -> Any:
    """Return the object of a dotted name, or None."""
    module_name, _, attribute = name.rpartition(".")
    module = sys.modules.get(module_name)
    if module is None and may_import:
        with contextlib.suppress(ImportError):
            module = import_module(module_name)
    return getattr(module, attribute, None)


def trusted_types(names: Sequence[str]) -> list[str]:
    """Return those of the names that are scikd's own classes, safe to rebuild from a file.

    Parameters
    ----------
    names : sequence of str
        Dotted names of types found in a file.

    Returns
    -------
    list of str
        Names of public classes that the installed scikd really defines, in modules whose classes
        do nothing but hold data when they are built. Functions are never among them.
    """
    accepted = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        known = any(f"{module}.".startswith(f"{ours}.") for ours in _TRUSTED_MODULES)
        if not known or attribute.startswith("_"):
            continue
        found = _named(name, may_import=True)
        if isinstance(found, type) and found.__module__ == module:
            accepted.append(name)
    return accepted


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is made of, each with the text that reaches it."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            yield from ((f"[{i}]", item) for i, item in enumerate(value.ravel().tolist()))
    elif not isinstance(value, (type, types.FunctionType, types.ModuleType)):
        state = getattr(value, "__dict__", None) or {}
        yield from ((f".{key}", item) for key, item in state.items())


def _failing(value: Any, path: str, fails: Callable[[Any], bool], seen: dict[int, Any]) -> str:
    """Follow the parts that fail down to one whose own parts do not, and return its path."""
    seen[id(value)] = value
    for label, child in _children(value):
        if id(child) not in seen and fails(child):
            return _failing(child, path + label, fails, seen)
    return path


def _search(
    value: Any, path: str, wanted: Callable[[Any], bool], seen: dict[int, Any]
) -> str | None:
    """Return the path of the first part that is wanted, or None."""
    if id(value) in seen:
        return None
    seen[id(value)] = value
    if wanted(value):
        return path
    found = (_search(child, path + label, wanted, seen) for label, child in _children(value))
    return next(filter(None, found), None)


def _name_of(value: Any) -> str:
    """Return the dotted name under which skops stores a function, a class or an object's class."""
    kind = value if isinstance(value, (type, types.FunctionType)) else type(value)
    return f"{kind.__module__}.{kind.__name__}"


def dump_estimator(estimator: Any) -> bytes:
    """Return the skops form of an estimator, or name the part of it that has none."""
    from skops import io as skops_io  # noqa: PLC0415 - imports all of scikit-learn

    def fails(value: Any) -> bool:
        try:
            skops_io.dumps(value)
        except Exception:  # noqa: BLE001 - skops lets through whatever an object raises
            return True
        return False

    root, cause = type(estimator).__name__, None
    try:
        data: bytes = skops_io.dumps(estimator)
    except Exception as error:  # noqa: BLE001
        cause, lost = error, _failing(estimator, root, fails, {})
    else:
        # skops writes functions and classes by name, without looking whether the name leads back.
        absent = [n for n in skops_io.get_untrusted_types(data=data) if _named(n) is None]

        def is_lost(value: Any) -> bool:
            if isinstance(value, types.FunctionType):
                return _named(_name_of(value)) is not value
            return _name_of(value) in absent

        found = _search(estimator, root, is_lost, {})
        if found is None and not absent:
            return data
        lost = found or f"{root} (its {absent[0]})"
    reason = f": {type(cause).__name__}: {cause}" if cause else ", and no module holds it by name"
    message = (
        f"{root} cannot be saved without pickle: {lost} has no safe form{reason}. Replace it (a "
        "lambda or inner function by a function of a module, a frame by an array) or delete it."
    )
    raise InvalidInputError(message) from cause


def _check_unpacked(data: bytes, path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # `save_estimator` never compresses, so a small file cannot unpack to a huge one.
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > len(data):
        message = f"{path} would unpack to {unpacked:,} bytes; it holds {len(data):,}."
        raise CorruptFileError(message)


def _allowed(found: Sequence[str], path: Path, trusted: Sequence[str]) -> list[str]:
    allowed = {*trusted, *trusted_types(found)}
    refused = [name for name in found if name not in allowed]
    if refused:
        message = (
            f"{path} would build objects of types that are not trusted: {refused}. If the file "
            f"comes from a source that you trust, pass trusted={refused!r}."
        )
        raise InvalidInputError(message)
    return sorted(allowed)


def load_dumped(data: bytes, path: Path, trusted: Sequence[str]) -> Any:
    """Rebuild an estimator from skops bytes whose checksum was compared before."""
    from skops import io as skops_io  # noqa: PLC0415
    from skops.io.exceptions import UntrustedTypesFoundException  # noqa: PLC0415

    try:
        _check_unpacked(data, path)
        allowed = _allowed(skops_io.get_untrusted_types(data=data), path, trusted)
        return skops_io.loads(data, trusted=allowed)
    except (CorruptFileError, InvalidInputError):
        raise
    except UntrustedTypesFoundException as error:  # skops audits once more; it should agree
        message = f"{path} was refused by skops: {error}"
        raise InvalidInputError(message) from error
    except Exception as error:
        message = (
            f"{path} could not be rebuilt ({type(error).__name__}: {error}). It is no skops file, "
            "or it needs another version of a library; its manifest says which were used."
        )
        raise CorruptFileError(message) from error
