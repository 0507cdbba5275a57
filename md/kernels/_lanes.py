"""Vectors of a fixed number of lanes for compiled kernels, on the processor's vector registers.

A compiler vectorises a loop when it can prove that nothing aliases and no order of a sum changes,
which in a kernel of many short loops it rarely can. Here a kernel says what it means: ``load``
gives a value of, say, 64 lanes, with arithmetic, and LLVM maps it to the registers that there are
(4 of AVX-512, 8 of AVX2, 16 of NEON). Nothing is reordered but what a function below says.

The number of lanes is part of the type, so it is passed as a `Lanes` object, of which the compiler
sees the type alone.
"""

from __future__ import annotations

import hashlib
import math
import operator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils
from numba.np.numpy_support import from_dtype

__all__ = [
    "Lanes",
    "fold",
    "load",
    "sigmoid",
    "store",
    "tile",
    "total",
    "width_of",
    "zeros",
]


_COMPILED = ("_lanes", "_edges", "_nodes", "filters")  # modules of the kernels that use lanes


@cache
def _sources() -> str:
    """Return a digest of the files that kernels are compiled from.

    Numba notices a change of the file that holds a kernel, but not of another that it calls into.
    As a part of the type of an argument the digest makes the cache right.
    """
    files = (Path(__file__).with_name(f"{name}.py") for name in _COMPILED)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


# Numba's own annotations do not fit: an intrinsic is called from compiled code, with one argument
# less than it is written with.
_numba: Any = extending
_code: Any = cgutils
intrinsic = _numba.intrinsic


class _VectorType(types.Type):
    """A value of `width` floats."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(name=f"Vector({dtype}, {width})")


class _LanesType(types.Type):
    """The type of a `Lanes` object: everything about it, so that it has no value at run time."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(name=f"Lanes({dtype}, {width}, {_sources()})")

    @property
    def vector(self) -> _VectorType:
        """Type of the vectors that are loaded with it."""
        return _VectorType(self.dtype, self.width)


class Lanes:
    """A kind of vector: how many lanes, of which floating-point type.

    Parameters
    ----------
    dtype : dtype-like
        float32 or float64.
    width : int
        Number of lanes; best a multiple of 16.
    """

    def __init__(self, dtype: Any, width: int) -> None:
        self._numba_type_ = _LanesType(from_dtype(np.dtype(dtype)), int(width))


@_numba.register_model(_LanesType)
class _LanesModel(extending.models.OpaqueModel):
    """Nothing to hold."""


@_numba.register_model(_VectorType)
class _VectorModel(extending.models.PrimitiveModel):
    """LLVM's own vector type."""

    def __init__(self, manager: Any, kind: _VectorType) -> None:
        lane = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(lane, kind.width))  # type: ignore[no-untyped-call]


@_numba.unbox(_LanesType)
def _unbox_lanes(_kind: Any, _obj: Any, c: Any) -> Any:
    return _numba.NativeValue(c.context.get_dummy_value())


# -- arithmetic ----------------------------------------------------------------------------------

# A product may be fused with the sum that it goes into; no other rule of arithmetic is loosened.
_FUSE = ("contract",)


def _splat(builder: Any, scalar: Any, kind: ir.VectorType) -> Any:
    """Put one scalar into every lane."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _code.int32_t(0))
    everywhere = ir.Constant(ir.VectorType(_code.int32_t, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), everywhere)


def _register(function: Any, instruction: str) -> None:
    """Give two vectors, or a vector and a scalar, an operator."""

    @_numba.type_callable(function)
    def _type(_context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            kinds = [kind for kind in (a, b) if isinstance(kind, _VectorType)]
            if len(kinds) == 2 and a != b:
                return None
            fine = all(isinstance(kind, _VectorType | types.Number) for kind in (a, b))
            return kinds[0] if kinds and fine else None

        return typer

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result = signature.return_type
        kind = context.get_value_type(result)
        sides = [
            arg
            if isinstance(of, _VectorType)
            else _splat(builder, context.cast(builder, arg, of, result.dtype), kind)
            for arg, of in zip(args, signature.args, strict=True)
        ]
        return getattr(builder, instruction)(*sides, flags=_FUSE)

    for sides in (
        (_VectorType, _VectorType),
        (_VectorType, types.Number),
        (types.Number, _VectorType),
    ):
        _numba.lower_builtin(function, *sides)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register(_function, _instruction)


def _lane_call(builder: Any, name: str, *args: Any) -> Any:
    """Call one of LLVM's intrinsics that work lane by lane."""
    kind = args[0].type
    lane = "f32" if kind.element == ir.FloatType() else "f64"
    signature = ir.FunctionType(kind, [kind] * len(args))
    function = _code.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{kind.count}{lane}"
    )
    return builder.call(function, args)


@intrinsic
def zeros(_context: Any, lanes: Any) -> Any:
    """Return a vector of zeros."""

    def lower(context: Any, _builder: Any, signature: Any, _args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return lanes.vector(lanes), lower


@intrinsic
def width_of(_context: Any, lanes: Any) -> Any:
    """Return the number of lanes."""

    def lower(context: Any, _builder: Any, signature: Any, _args: Any) -> Any:
        return context.get_constant(signature.return_type, lanes.width)

    return types.intp(lanes), lower


# -- memory --------------------------------------------------------------------------------------


def _pointer(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: Any) -> Any:
    """Return where entry (row, column) of a two-dimensional array in C order is, for a vector."""
    held = context.make_array(kind)(context, builder, array)
    _, width = _code.unpack_tuple(builder, held.shape, 2)
    entry = builder.add(builder.mul(place[0], width), place[1])
    where = builder.gep(held.data, [entry])
    return builder.bitcast(where, context.get_value_type(vector).as_pointer())


def _checked(array: Any, dtype: Any) -> None:
    fine = isinstance(array, types.Array) and array.layout == "C" and array.ndim == 2
    if not fine or array.dtype != dtype:
        msg = f"expected a two-dimensional array in C order of {dtype}, got {array}"
        raise TypeError(msg)


@intrinsic
def load(_context: Any, lanes: Any, array: Any, _row: Any, _column: Any) -> Any:
    """Return the lanes from entry (row, column) of a two-dimensional C-ordered array; no checks."""
    _checked(array, lanes.dtype)

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _pointer(context, builder, array, args[1], args[2:], signature.return_type)
        return builder.load(where, align=lanes.dtype.bitwidth // 8)

    return lanes.vector(lanes, array, types.intp, types.intp), lower


@intrinsic
def store(_context: Any, vector: Any, array: Any, _row: Any, _column: Any) -> Any:
    """Write the lanes to a two-dimensional C-ordered array from entry (row, column) on."""
    _checked(array, vector.dtype)

    def lower(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        where = _pointer(context, builder, array, args[1], args[2:], vector)
        builder.store(args[0], where, align=vector.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(vector, array, types.intp, types.intp), lower


# -- between lanes -------------------------------------------------------------------------------


def _part(builder: Any, vector: Any, start: int, width: int) -> Any:
    """Return consecutive lanes of a vector."""
    which = ir.Constant(ir.VectorType(_code.int32_t, width), list(range(start, start + width)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), which)


def _sum_parts(builder: Any, vector: Any, n_parts: int) -> Any:
    """Return the sum of equal parts of a vector, first to last."""
    width = vector.type.count // n_parts
    result = _part(builder, vector, 0, width)
    for part in range(1, n_parts):
        result = builder.fadd(result, _part(builder, vector, part * width, width), flags=_FUSE)
    return result


@intrinsic
def fold(_context: Any, lanes: Any, vector: Any) -> Any:
    """Cut a vector in pieces as wide as `lanes` and return their sum."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _sum_parts(builder, args[1], vector.width // lanes.width)

    return lanes.vector(lanes, vector), lower


@intrinsic
def tile(_context: Any, lanes: Any, vector: Any) -> Any:
    """Repeat a vector until it is as wide as `lanes`."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        which = [lane % vector.width for lane in range(lanes.width)]
        order = ir.Constant(ir.VectorType(_code.int32_t, lanes.width), which)
        return builder.shuffle_vector(args[1], ir.Constant(args[1].type, ir.Undefined), order)

    return lanes.vector(lanes, vector), lower


@intrinsic
def total(_context: Any, vector: Any) -> Any:
    """Return the sum of all lanes, halves first."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        value = args[0]
        while value.type.count % 2 == 0:
            value = _sum_parts(builder, value, 2)
        rest = [builder.extract_element(value, _code.int32_t(k)) for k in range(value.type.count)]
        result = rest[0]
        for lane in rest[1:]:
            result = builder.fadd(result, lane)
        return result

    return vector.dtype(vector), lower


# -- functions -----------------------------------------------------------------------------------

# Degree of the Taylor polynomial of exp within half of ln 2, the largest argument, and the upper
# part of ln 2 in so few bits that a whole number times it is exact.
_EXP = {types.float32: (7, 87.0, 0.693359375), types.float64: (13, 707.0, 0.6931471803691238)}
_LOG_2_LOW = {types.float32: -2.1219444005469057e-4, types.float64: 1.9082149292705877e-10}


def _exponential(builder: Any, x: Any, dtype: Any) -> Any:
    """Build exp in every lane: 2^n times a Taylor polynomial, n by writing exponents of floats."""
    degree, limit, high = _EXP[dtype]
    bits, mantissa, bias = (32, 23, 127) if dtype == types.float32 else (64, 52, 1023)
    lanes, whole = x.type, ir.VectorType(ir.IntType(bits), x.type.count)

    def same(number: float, kind: ir.VectorType = lanes) -> ir.Constant:
        return ir.Constant(kind, [number] * kind.count)

    x = _lane_call(builder, "maxnum", _lane_call(builder, "minnum", x, same(limit)), same(-limit))
    n = _lane_call(builder, "rint", builder.fmul(x, same(1.0 / math.log(2.0))))
    t = builder.fsub(x, builder.fmul(n, same(high)), flags=_FUSE)
    t = builder.fsub(t, builder.fmul(n, same(_LOG_2_LOW[dtype])), flags=_FUSE)
    result = same(1.0 / math.factorial(degree))
    for k in range(degree - 1, -1, -1):
        result = builder.fmul(result, t, flags=_FUSE)
        result = builder.fadd(result, same(1.0 / math.factorial(k)), flags=_FUSE)
    power = builder.add(builder.fptosi(n, whole), same(bias, whole))
    power = builder.bitcast(builder.shl(power, same(mantissa, whole)), lanes)
    return builder.fmul(result, power, flags=_FUSE)


@intrinsic
def sigmoid(_context: Any, vector: Any) -> Any:
    """Return 1 / (1 + exp(-x)) in every lane, to some units in the last place."""

    def lower(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        one = ir.Constant(args[0].type, [1.0] * vector.width)
        power = _exponential(builder, builder.fneg(args[0]), vector.dtype)
        return builder.fdiv(one, builder.fadd(one, power))

    return vector(vector), lower
