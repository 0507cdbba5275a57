"""Fingerprints: SHA-256 digests of inputs, specifications and trained models.

The same content gives the same digest in every process, on every platform and in every environment,
so that labels written in one environment are found in another.
"""

from __future__ import annotations

import copyreg
import datetime as dt
import decimal
import hashlib
import inspect
import struct
import sys
import sysconfig
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any, Literal

import numpy as np

from scikd._frames import (
    MISSING,
    array_blocks,
    frame_columns,
    is_from,
    sparse_parts,
    torch_array,
)
from scikd.exceptions import InvalidInputError

__all__ = [
    "fingerprint_estimator",
    "fingerprint_fitted",
    "fingerprint_inputs",
    "fingerprint_trained",
]

# What an object that is no data stands for: an error, its parameters, or all that it holds.
_Mode = Literal["inputs", "specification", "state"]

_SUPPORTED = (
    "NumPy arrays, pandas and polars frames, SciPy sparse matrices, torch tensors, lists, tuples, "
    "mappings, text, numbers, dates, None, and objects with a `fingerprint` of their own"
)
# Attributes that hold a memory address: scikit-learn's vectorizers remember id(stop_words).
_ADDRESSES = frozenset({"_stop_words_id"})

_INSTALLED = ("<frozen", *(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")))


class _Encoder:
    """Feeds values to SHA-256, each with its kind and length, so that no two run together."""

    def __init__(self, mode: _Mode, *, packages: set[str] | None = None) -> None:
        self.mode: _Mode = mode
        self.sha256 = hashlib.sha256()
        self.packages = set() if packages is None else packages  # that classes come from
        self.open: list[int] = []  # ids of the containers that we are inside of

    def hexdigest(self) -> str:
        return self.sha256.hexdigest()

    def put(self, kind: str, content: bytes | str = b"") -> None:
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        self.sha256.update(f"{kind}:{len(raw)}:".encode() + raw)

    def add(self, value: Any, path: str) -> None:
        """Feed any value; ``path`` says where it was found, for errors."""
        if isinstance(value, np.generic) and value.dtype.kind in "biufcUS":
            if value.dtype.kind in "fc" and value.dtype.char in "gG":
                self.array(np.asarray(value), path)
                return
            value = value.item()
        if self.scalar(value):
            return
        if isinstance(value, (np.ndarray, np.generic)):
            self.array(np.asanyarray(value), path)
        elif not self.table(value, path) and not self.named(value):
            self.nested(value, path)

    def scalar(self, value: Any) -> bool:
        """Feed text, a number, a date or None; return False if it is none of these."""
        if value is None or value is MISSING:
            self.put("none" if value is None else "missing")
        elif isinstance(value, bool):
            self.put("bool", b"1" if value else b"0")
        elif isinstance(value, str):
            self.put("str", str.__str__(value))
        elif isinstance(value, int):
            self.put("int", int.__format__(value, "x"))
        elif isinstance(value, (float, complex)):
            parts = [value] if isinstance(value, float) else [value.real, value.imag]
            clean = [float("nan") if part != part else part for part in parts]  # noqa: PLR0124
            self.put(
                "real" if len(parts) == 1 else "complex", struct.pack(f"<{len(parts)}d", *clean)
            )
        elif isinstance(value, (bytes, bytearray, memoryview)):
            self.put("bytes", bytes(value))
        elif isinstance(value, (dt.date, dt.time)):
            self.put("date", value.isoformat())
        elif isinstance(value, (dt.timedelta, decimal.Decimal)):
            self.put("number", str(value))
        else:
            return False
        return True

    def array(self, array: np.ndarray, path: str) -> None:
        if isinstance(array, np.ma.MaskedArray):
            self.put("masked")
            self.array(np.ma.getmaskarray(array), path)
            array = array.filled(np.zeros(1, array.dtype)[0])  # what lies under a mask is noise
        array = np.asarray(array)
        dtype = array.dtype
        shape = ",".join(map(str, array.shape))
        if dtype.char in "gG":
            message = (
                f"{path} has dtype {dtype}, whose bytes differ between platforms. "
                "Convert it with .astype('float64') (or 'complex128')."
            )
            raise InvalidInputError(message)
        if dtype.kind in "OT":
            self.put("objects", shape)
            for i, item in enumerate(array.ravel().tolist()):
                self.add(item, f"{path}[{i}]")
        elif dtype.names is not None:  # field by field: the padding between fields is noise
            self.put("record", shape)
            for name in dtype.names:
                self.put("field", name)
                self.array(array[name], f"{path}[{name!r}]")
        else:
            self.put("array", f"{dtype.newbyteorder('<').str} {shape}")
            for block in array_blocks(array):
                self.sha256.update(block)

    def table(self, value: Any, path: str) -> bool:
        """Feed a frame, a sparse matrix or a tensor; return False if it is none of these."""
        columns = frame_columns(value)
        if columns is not None:
            shape = value.shape
            self.put("frame", ",".join(map(str, shape)))
            for label, kind, content in columns:
                self.add(label, f"a column label of {path}")
                self.put("column", kind)
                self.add(content, f"{path}[{label!r}]")
        elif is_from(value, "scipy.sparse", "spmatrix", "sparray"):
            self.put("sparse", ",".join(map(str, value.shape)))
            for part in sparse_parts(value):
                self.array(part, path)
        elif is_from(value, "torch", "Tensor"):
            self.put("tensor", f"{value.dtype} {tuple(value.shape)}")
            self.array(torch_array(value), path)
        else:
            return False
        return True

    def named(self, value: Any) -> bool:
        """Feed the fingerprint that an object gives itself; return False if it has none."""
        if isinstance(value, (type, Mapping, Sequence)) and type(value).__module__ == "builtins":
            return False
        given = None if isinstance(value, type) else getattr(value, "fingerprint", None)
        given = given() if callable(given) else given
        if not isinstance(given, str):
            return False
        self.put("fingerprint", f"{_path_of(type(value))} {given}")
        return True

    def nested(self, value: Any, path: str) -> None:
        """Feed a container, or an object that is no data."""
        if id(value) in self.open:
            if self.mode == "inputs":
                raise InvalidInputError(f"{path} contains itself; expected {_SUPPORTED}.")
            self.put("cycle", str(len(self.open) - self.open.index(id(value))))
            return
        self.open.append(id(value))
        if isinstance(value, (list, tuple)):
            self.put("list" if isinstance(value, list) else "tuple", str(len(value)))
            for i, item in enumerate(value):
                self.add(item, f"{path}[{i}]")
        elif isinstance(value, Mapping) and (self.mode == "inputs" or isinstance(value, dict)):
            kept = value if self.mode == "inputs" else [k for k in value if k not in _ADDRESSES]
            self.unordered("mapping", [[key, value[key]] for key in kept], path)
        elif isinstance(value, (set, frozenset)):
            self.unordered("set", list(value), path)
        elif isinstance(value, (range, slice)):
            self.put("range", f"{value.start} {value.stop} {value.step}")
        elif self.mode == "inputs":
            message = f"{path} is a {_path_of(type(value))}; expected {_SUPPORTED}."
            raise InvalidInputError(message)
        else:
            self.thing(value, path)
        self.open.pop()

    def unordered(self, kind: str, items: list[Any], path: str) -> None:
        """Feed items whose order does not count, by the order of their digests."""
        outer, digests = self.sha256, []
        for item in items:
            self.sha256 = hashlib.sha256()
            where = f"{path}[{item[0]!r:.40}]" if kind == "mapping" else path
            for part in item if kind == "mapping" else [item]:
                self.add(part, where)
            digests.append(self.sha256.digest())
        self.sha256 = outer
        self.put(kind, b"".join(sorted(digests)))

    def thing(self, value: Any, path: str) -> None:
        """Feed an object that is no data: a class, a function, an estimator, anything else."""
        if isinstance(value, type):
            self.put("class", _path_of(value))
        elif isinstance(value, np.dtype):
            self.put("dtype", repr(value.newbyteorder("<")))
        elif isinstance(value, types.ModuleType):
            self.put("module", value.__name__)
        elif isinstance(value, types.FunctionType):
            self.function(value, path)
        elif isinstance(value, types.MethodType):
            self.put("method", value.__name__)
            self.add(value.__self__, f"{path}.__self__")
        elif isinstance(value, np.ufunc) or type(value).__name__.endswith(
            ("builtin_function_or_method", "cython_function_or_method", "fused_cython_function")
        ):
            self.put("function", f"{getattr(value, '__module__', None)}.{value.__name__}")
        elif isinstance(value, np.random.RandomState):  # not the seed that it once came from
            self.add(value.get_state(legacy=False), path)
        elif isinstance(value, np.random.Generator):
            self.add(value.bit_generator.state, path)
        elif self.mode == "specification" and callable(getattr(value, "get_params", None)):
            self.specification(value, path)
        else:
            self.state(value, path)

    def specification(self, estimator: Any, path: str) -> None:
        """Feed the class and the parameters of an estimator; fitted ones if they stay fitted."""
        kind = type(estimator)
        self.packages.add(kind.__module__.partition(".")[0])
        self.put("estimator", _path_of(kind))
        params = estimator.get_params(deep=False)
        cloned = getattr(getattr(kind, "__sklearn_clone__", None), "__qualname__", None)
        keeps = cloned not in (None, "BaseEstimator.__sklearn_clone__")  # as FrozenEstimator does
        outer = self.mode
        if keeps or params.get("cv") == "prefit":
            self.mode = "state"
        for name in sorted(params):
            self.put("parameter", name)
            self.add(params[name], f"{path}.{name}")
        self.mode = outer

    def state(self, value: Any, path: str) -> None:
        """Feed what `copy.copy` would copy: what makes the object, and what it holds."""
        self.packages.add(type(value).__module__.partition(".")[0])
        self.put("object", _path_of(type(value)))
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:
            message = (
                f"{path} (a {_path_of(type(value))}) does not say what it holds: {error}. "
                "Give its owner a `fingerprint` of its own, or remove it."
            )
            raise InvalidInputError(message) from error
        if isinstance(reduced, str):
            self.put("global", reduced)
            return
        make, arguments, content, items, pairs = (*reduced, None, None, None)[:5]
        self.add(make, f"{path} (what makes it)")
        self.add(arguments, path)
        self.add(content, path)
        self.add(None if items is None else list(items), path)
        self.add(None if pairs is None else dict(pairs), path)

    def function(self, function: types.FunctionType, path: str) -> None:
        """Feed the name of an installed function; also the text of one of the user's own."""
        self.put("function", _path_of(function))
        code = function.__code__
        if not code.co_filename.startswith(_INSTALLED) and not function.__module__.startswith(
            "scikd."
        ):
            source = None
            if function.__name__ != "<lambda>":  # its source is the whole line around it
                with suppress(OSError, TypeError):
                    source = inspect.cleandoc(inspect.getsource(function))
            self.add(_bytecode(code) if source is None else source, path)
            self.add([function.__defaults__, function.__kwdefaults__], path)
            cells = function.__closure__ or ()
            self.add([cell.cell_contents for cell in cells], f"{path} (what it closes over)")


def _bytecode(code: types.CodeType) -> list[Any]:
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _path_of(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _digest(mode: _Mode, value: Any, path: str, packages: set[str] | None = None) -> str:
    encoder = _Encoder(mode, packages=packages)
    encoder.put("scikd fingerprint", f"{mode} 1")
    try:
        encoder.add(value, path)
    except RecursionError as error:
        message = f"{path} is nested too deeply to be fingerprinted; give it a `fingerprint`."
        raise InvalidInputError(message) from error
    return encoder.hexdigest()


def fingerprint_inputs(X: Any) -> str:
    """Return a digest of inputs: of their types, shapes and content.

    Parameters
    ----------
    X : array, frame, sparse matrix, tensor, or nesting of lists, mappings, text and numbers
        The inputs. The byte order and the memory layout of arrays, the order of mappings and sets,
        the format of sparse matrices, and the bits of NaN do not count. The index of a pandas
        object does. An object with a method or attribute ``fingerprint`` that gives text is taken
        at its word.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    InvalidInputError
        If X, or something in it, is of another type, or of a precision that differs between
        platforms (``longdouble``).
    """
    return _digest("inputs", X, "X")


def fingerprint_estimator(estimator: Any) -> str:
    """Return a digest of an estimator's specification: its class and its parameters.

    Nested estimators count by their specification; whether they are fitted does not count, except
    inside a `sklearn.frozen.FrozenEstimator` or with ``cv="prefit"``, where they stay as they are.

    Parameters
    ----------
    estimator : object with `get_params`
        Fitted or not.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    InvalidInputError
        If it has no `get_params`, or a parameter cannot be fingerprinted.

    Notes
    -----
    Functions count by name if they are installed, else by their source as well; lambdas by their
    bytecode, which differs between versions of Python.
    """
    return _digest("specification", _checked(estimator), "estimator")


def _checked(estimator: Any) -> Any:
    if isinstance(estimator, type) or not callable(getattr(estimator, "get_params", None)):
        message = (
            "Expected an estimator, an object with get_params; got "
            f"{'the class ' if isinstance(estimator, type) else 'a '}"
            f"{_path_of(estimator if isinstance(estimator, type) else type(estimator))}."
        )
        raise InvalidInputError(message)
    return estimator


def fingerprint_trained(estimator: Any, *data: Any) -> str:
    """Return a digest of what training gives: specification, training data, library versions.

    It is known before training. With ``random_state=None`` two trainings share it all the same.

    Parameters
    ----------
    estimator : object with `get_params`
        The specification.
    *data : object
        Everything that `fit` gets: X, y, weights (or None), ...; see `fingerprint_inputs`.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    InvalidInputError
        As `fingerprint_estimator` and `fingerprint_inputs` do.
    """
    packages = {"numpy", "sklearn"}
    parts = [_digest("specification", _checked(estimator), "estimator", packages)]
    parts += [_digest("inputs", part, f"data[{i}]") for i, part in enumerate(data)]
    versions = {package: _version(package) for package in packages - {"__main__", "builtins"}}
    return _digest("inputs", [parts, versions], "training")


def _version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version({"sklearn": "scikit-learn"}.get(package, package))
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def fingerprint_fitted(estimator: Any) -> str:
    """Return a digest of a fitted estimator: its class and all that it holds.

    Parameters
    ----------
    estimator : object
        The estimator. Nothing is executed but what copying it would.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    InvalidInputError
        If a part of it does not say what it holds (open files, locks, generators, ...).

    Notes
    -----
    `joblib.hash` is not used: it depends on which equal parts are one object, on the process's hash
    seed for mixed keys, and on the padding bytes within the nodes of trees.
    """
    return _digest("state", estimator, type(estimator).__name__)
