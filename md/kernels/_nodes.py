"""What GET does on atoms between two rounds of messages, and back, compiled.

Atoms are worked on in blocks of `BLOCK`, so that each matrix of weights is read from the cache
once for a block. Matrices are stored (inputs, outputs), and a second time transposed for the way
back; vectors have three rows for each atom. What the sums over x, y, z and the products of the
update of a layer are is written in `update`; see `scikd.md.get` for the equations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ._edges import COMPILED, messages, return_messages
from ._lanes import load, sigmoid, store, total, width_of, zeros

__all__ = [
    "BLOCK",
    "Head",
    "Layer",
    "State",
    "backward_first",
    "backward_heads",
    "backward_layer",
    "forward_heads",
    "forward_layer",
]

BLOCK = 32
_EPSILON = 1e-5  # of the layer norm


class Layer(NamedTuple):
    """Weights of one layer, with n blocks of outputs: 1 in the first, 2 in the last, else 3."""

    norm: np.ndarray  # (2, dim): scale, then bias
    qkv: np.ndarray  # (dim, 3 dim)
    qkv_bias: np.ndarray  # (1, 3 dim)
    qkv_back: np.ndarray  # (3 dim, dim)
    out: np.ndarray  # (dim, n dim)
    out_bias: np.ndarray  # (1, n dim)
    out_back: np.ndarray  # (n dim, dim)
    vec: np.ndarray  # (dim, n dim); (0, 0) in the first layer
    vec_back: np.ndarray  # (n dim, dim)
    zero: np.ndarray  # (1, n dim)


class Head(NamedTuple):
    """Weights of one head with `hid` units in each of n hidden layers."""

    first: np.ndarray  # (dim, hid)
    first_back: np.ndarray  # (hid, dim)
    deep: np.ndarray  # (n - 1, hid, hid)
    deep_back: np.ndarray  # (n - 1, hid, hid)
    bias: np.ndarray  # (n, 1, hid)
    last: np.ndarray  # (1, hid)
    last_bias: float


class State(NamedTuple):
    """What a layer leaves behind for the way back."""

    h: np.ndarray  # (N, dim): what it was given
    rows: np.ndarray  # (N,) int32: the row of `qkv` that belongs to an atom
    qkv: np.ndarray  # (N, 3 dim), in the first layer by atomic number
    o: np.ndarray  # (N, n dim)
    p: np.ndarray  # (3 N, n dim)
    gs: np.ndarray  # (N, dim): gradient by s
    gm: np.ndarray  # (3 N, dim): gradient by m, and by the vectors after the layer


# -- dense layers --------------------------------------------------------------------------------


@njit(**COMPILED)
def _multiply(  # type: ignore[no-untyped-def]
    lanes, x, at, n, weights, base, base_at, step, y, to
):
    """Set ``y[to + r] = base[base_at + r * step] + x[at + r] @ weights`` for r < n."""
    width = width_of(lanes)
    inner = weights.shape[0]
    for c in range(0, weights.shape[1], width):
        for r in range(0, n - 3, 4):
            i, b = at + r, base_at + r * step
            y0 = load(lanes, base, b, c)
            y1 = load(lanes, base, b + step, c)
            y2 = load(lanes, base, b + 2 * step, c)
            y3 = load(lanes, base, b + 3 * step, c)
            for k in range(inner):
                w = load(lanes, weights, k, c)
                y0 = y0 + w * x[i, k]
                y1 = y1 + w * x[i + 1, k]
                y2 = y2 + w * x[i + 2, k]
                y3 = y3 + w * x[i + 3, k]
            store(y0, y, to + r, c)
            store(y1, y, to + r + 1, c)
            store(y2, y, to + r + 2, c)
            store(y3, y, to + r + 3, c)
        for r in range(n - n % 4, n):
            y0 = load(lanes, base, base_at + r * step, c)
            for k in range(inner):
                y0 = y0 + load(lanes, weights, k, c) * x[at + r, k]
            store(y0, y, to + r, c)


@njit(**COMPILED)
def _normalise(wide, h, at, n, norm, x):  # type: ignore[no-untyped-def]
    """Write the layer norm of rows of h to the first rows of x."""
    dim = width_of(wide)
    for r in range(n):
        values = load(wide, h, at + r, 0)
        centred = values - total(values) / dim
        scale = 1.0 / np.sqrt(total(centred * centred) / dim + _EPSILON)
        store(centred * scale * load(wide, norm, 0, 0) + load(wide, norm, 1, 0), x, r, 0)


@njit(**COMPILED)
def _return_norm(wide, h, at, n, norm, gx, gh):  # type: ignore[no-untyped-def]
    """Add the gradient by what went into a layer norm, given that by what came out."""
    dim = width_of(wide)
    for r in range(n):
        values = load(wide, h, at + r, 0)
        centred = values - total(values) / dim
        scale = 1.0 / np.sqrt(total(centred * centred) / dim + _EPSILON)
        hat = centred * scale
        g = load(wide, gx, r, 0) * load(wide, norm, 0, 0)
        g = g - total(g) / dim - hat * (total(g * hat) / dim)
        store(load(wide, gh, at + r, 0) + g * scale, gh, at + r, 0)


# -- layers --------------------------------------------------------------------------------------


@njit(**COMPILED)
def _update(wide, at, n, now, layer, m, vectors, after):  # type: ignore[no-untyped-def]
    """Update scalars and vectors: ``h += <p1, p2> o2 + o3`` and ``V += p3 o1 + m``."""
    dim = width_of(wide)
    if layer.vec.shape[0] > 0:
        _multiply(wide, vectors, 3 * at, 3 * n, layer.vec, layer.zero, 0, 0, now.p, 3 * at)
    last = layer.out.shape[1] == 2 * dim
    column = 0 if last else dim  # of o2
    for r in range(n):
        i = at + r
        h = load(wide, now.h, i, 0)
        if layer.vec.shape[0] == 0:
            store(h + load(wide, now.o, i, 0), after, i, 0)
            for a in range(3):
                store(load(wide, m, 3 * r + a, 0), vectors, 3 * i + a, 0)
            continue
        dot = zeros(wide)
        for a in range(3 * i, 3 * i + 3):
            dot = dot + load(wide, now.p, a, 0) * load(wide, now.p, a, dim)
        h = h + dot * load(wide, now.o, i, column) + load(wide, now.o, i, column + dim)
        store(h, after, i, 0)
        if not last:
            o1 = load(wide, now.o, i, 0)
            for a in range(3):
                V = load(wide, vectors, 3 * i + a, 0) + load(wide, m, 3 * r + a, 0)
                store(V + load(wide, now.p, 3 * i + a, 2 * dim) * o1, vectors, 3 * i + a, 0)


@njit(**COMPILED)
def forward_layer(  # type: ignore[no-untyped-def]
    start, stop, wide, narrow, edges, table, now, layer, receive, vectors, after, following, qkv
):
    """Run one layer on atoms from start to stop, then make the next one's queries, keys, values.

    ``receive`` and ``following`` are None in the last layer: it gathers no vectors, and none comes
    after it.
    """
    dim = now.h.shape[1]
    s, m = np.empty((BLOCK, dim), now.h.dtype), np.empty((3 * BLOCK, dim), now.h.dtype)
    for at in range(start, stop, BLOCK):
        n = min(BLOCK, stop - at)
        for r in range(n):
            if receive is None:
                messages(at + r, wide, narrow, edges, table, now.rows, now.qkv, s, None, r)
            else:
                messages(at + r, wide, narrow, edges, table, now.rows, now.qkv, s, m, r)
        _multiply(wide, s, 0, n, layer.out, layer.out_bias, 0, 0, now.o, at)
        _update(wide, at, n, now, layer, m, vectors, after)
        if following is not None:
            _normalise(wide, after, at, n, following.norm, s)
            _multiply(wide, s, 0, n, following.qkv, following.qkv_bias, 0, 0, qkv, at)


@njit(**COMPILED)
def _return_update(wide, at, n, now, layer, gh, go, gp, before):  # type: ignore[no-untyped-def]
    """Take gradients from after an update to s (in `now`) and to the vectors before (`before`)."""
    dim = width_of(wide)
    if layer.vec.shape[0] == 0:
        _multiply(wide, gh, at, n, layer.out_back, layer.zero, 0, 0, now.gs, at)
        return
    last = layer.out.shape[1] == 2 * dim
    column = 0 if last else dim
    for r in range(n):
        i = at + r
        g, o2 = load(wide, gh, i, 0), load(wide, now.o, i, column)
        dot, g1 = zeros(wide), zeros(wide)
        for a in range(3):
            p1, p2 = load(wide, now.p, 3 * i + a, 0), load(wide, now.p, 3 * i + a, dim)
            dot = dot + p1 * p2
            store(g * o2 * p2, gp, 3 * r + a, 0)
            store(g * o2 * p1, gp, 3 * r + a, dim)
            if not last:
                gm = load(wide, now.gm, 3 * i + a, 0)
                g1 = g1 + gm * load(wide, now.p, 3 * i + a, 2 * dim)
                store(gm * load(wide, now.o, i, 0), gp, 3 * r + a, 2 * dim)
        store(g * dot, go, r, column)
        store(g, go, r, column + dim)
        if not last:
            store(g1, go, r, 0)
    _multiply(wide, go, 0, n, layer.out_back, layer.zero, 0, 0, now.gs, at)
    base, base_at, step = (layer.zero, 0, 0) if last else (now.gm, 3 * at, 1)
    _multiply(wide, gp, 0, 3 * n, layer.vec_back, base, base_at, step, before, 3 * at)


@njit(**COMPILED)
def backward_layer(  # type: ignore[no-untyped-def]
    start, stop, wide, narrow, edges, table, per_length, gm, now, layer, gh, below, lower, before
):
    """Take gradients back along the edges of a layer, then through the update of the one below.

    ``now`` and ``layer`` are those of the layer, ``below`` and ``lower`` of the one below it, which
    got its vectors from yet another, whose gradients go to ``before``. ``gm`` is None in the last
    layer, which sent no vectors; ``per_length`` is intervals of the table per Å.
    """
    dim, wider = gh.shape[1], lower.out.shape[1]
    gqkv, gx = np.empty((BLOCK, 3 * dim), gh.dtype), np.empty((BLOCK, dim), gh.dtype)
    go, gp = np.empty((BLOCK, wider), gh.dtype), np.empty((3 * BLOCK, wider), gh.dtype)
    for at in range(start, stop, BLOCK):
        n = min(BLOCK, stop - at)
        for r in range(n):
            return_messages(
                at + r,
                wide,
                narrow,
                edges,
                table,
                per_length,
                now.rows,
                now.qkv,
                now.gs,
                gm,
                gqkv,
                r,
            )
        _multiply(wide, gqkv, 0, n, layer.qkv_back, layer.zero, 0, 0, gx, 0)
        _return_norm(wide, now.h, at, n, layer.norm, gx, gh)
        _return_update(wide, at, n, below, lower, gh, go, gp, before)


@njit(**COMPILED)
def backward_first(  # type: ignore[no-untyped-def]
    start, stop, wide, narrow, edges, table, per_length, now
):
    """Take gradients to the edges of the first layer; what its atoms sent are constants."""
    for i in range(start, stop):
        return_messages(
            i, wide, narrow, edges, table, per_length, now.rows, now.qkv, now.gs, now.gm, None, 0
        )


# -- heads ---------------------------------------------------------------------------------------


@njit(**COMPILED)
def forward_heads(start, stop, hidden, heads, h, z, out):  # type: ignore[no-untyped-def]
    """Write what each head says of each atom to ``out`` (heads, N), and what its layers saw to z.

    ``z`` has shape (heads, layers, N, hid).
    """
    x = np.empty((BLOCK, z.shape[3]), h.dtype)
    for at in range(start, stop, BLOCK):
        n = min(BLOCK, stop - at)
        for k in range(len(heads)):
            head, last = heads[k], z.shape[1] - 1
            _multiply(hidden, h, at, n, head.first, head.bias[0], 0, 0, z[k, 0], at)
            for depth in range(last):
                for r in range(n):
                    y = load(hidden, z[k, depth], at + r, 0)
                    store(y * sigmoid(y), x, r, 0)
                _multiply(
                    hidden,
                    x,
                    0,
                    n,
                    head.deep[depth],
                    head.bias[depth + 1],
                    0,
                    0,
                    z[k, depth + 1],
                    at,
                )
            for r in range(n):
                y = load(hidden, z[k, last], at + r, 0)
                out[k, at + r] = (
                    total(y * sigmoid(y) * load(hidden, head.last, 0, 0)) + head.last_bias
                )


@njit(**COMPILED)
def backward_heads(  # type: ignore[no-untyped-def]
    start, stop, wide, hidden, heads, z, seeds, zero, gh, now, layer, before
):
    """Take gradients ``seeds`` (heads, N) by what the heads said to h, and through the last update.

    ``zero`` has shape (1, dim).
    """
    hid, wider = z.shape[3], layer.out.shape[1]
    x, y = np.empty((BLOCK, hid), gh.dtype), np.empty((BLOCK, hid), gh.dtype)
    go, gp = np.empty((BLOCK, wider), gh.dtype), np.empty((3 * BLOCK, wider), gh.dtype)
    for at in range(start, stop, BLOCK):
        n = min(BLOCK, stop - at)
        for k in range(len(heads)):
            head = heads[k]
            for r in range(n):
                store(load(hidden, head.last, 0, 0) * seeds[k, at + r], x, r, 0)
            for depth in range(z.shape[1] - 1, -1, -1):
                for r in range(n):
                    value = load(hidden, z[k, depth], at + r, 0)
                    g = sigmoid(value)
                    store(load(hidden, x, r, 0) * (g * (value * (1.0 - g) + 1.0)), x, r, 0)
                if depth > 0:
                    _multiply(hidden, x, 0, n, head.deep_back[depth - 1], zero, 0, 0, y, 0)
                    x, y = y, x
            base, base_at, step = (zero, 0, 0) if k == 0 else (gh, at, 1)
            _multiply(wide, x, 0, n, head.first_back, base, base_at, step, gh, at)
        _return_update(wide, at, n, now, layer, gh, go, gp, before)
