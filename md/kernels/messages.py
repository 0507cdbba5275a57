"""The three sums over edges of an equivariant transformer, and their derivatives, by Numba.

Each is a multilinear form ``T`` of edge and atom arrays (e: edge from sender s to receiver r; c:
channel; h: the head of channel c; x: direction):

* attention  ``T = sum_e sum_c  l_eh q_rc k_sc``
* scalars    ``T = sum_e sum_c  g_eh v_sc w_ec S_rc``
* vectors    ``T = sum_e sum_xc u_ex v_sc w_ec M_rxc``

The derivative of ``T`` by one operand is a function of the others; what a network computes forward
and backward, once or twice, are such derivatives and nothing else. No kernel makes an array of the
size of edges times channels times directions. Derivatives by an atom's array are added to ``out``;
those by an edge's array overwrite it.

Channels are ordered with the head running fastest (``c = a * n_heads + h`` has head ``h``), so that
the innermost loops run over memory in a row and vectorise.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "attention_by_gate",
    "attention_by_query",
    "scalars_by_filter",
    "scalars_by_gate",
    "scalars_by_sum",
    "scalars_by_value",
    "vectors_by_filter",
    "vectors_by_sum",
    "vectors_by_unit",
    "vectors_by_value",
]

_jit = njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})


@_jit
def _sum_heads(products, out):  # type: ignore[no-untyped-def]
    """Sum over the channels of every head."""
    n_heads = len(out)
    for h in range(n_heads):
        out[h] = products[h]
    for first in range(n_heads, len(products), n_heads):
        for h in range(n_heads):
            out[h] += products[first + h]


@_jit
def _head_of(n_channels, n_heads):  # type: ignore[no-untyped-def]
    """Return the head of every channel: loops over channels that look it up vectorise."""
    return np.arange(n_channels) % n_heads


@_jit
def attention_by_gate(receivers, senders, q, k, out):  # type: ignore[no-untyped-def]
    products = np.empty(q.shape[1], q.dtype)
    for e in range(len(receivers)):
        q_r, k_s = q[receivers[e]], k[senders[e]]
        for c in range(len(products)):
            products[c] = q_r[c] * k_s[c]
        _sum_heads(products, out[e])


@_jit
def attention_by_query(receivers, senders, gate, k, out):  # type: ignore[no-untyped-def]
    head = _head_of(k.shape[1], gate.shape[1])
    for e in range(len(receivers)):
        to, g, k_s = out[receivers[e]], gate[e], k[senders[e]]
        for c in range(len(head)):
            to[c] += g[head[c]] * k_s[c]


@_jit
def scalars_by_gate(receivers, senders, v, w, S, out):  # type: ignore[no-untyped-def]
    products = np.empty(v.shape[1], v.dtype)
    for e in range(len(receivers)):
        v_s, w_e, S_r = v[senders[e]], w[e], S[receivers[e]]
        for c in range(len(products)):
            products[c] = v_s[c] * w_e[c] * S_r[c]
        _sum_heads(products, out[e])


@_jit
def scalars_by_value(receivers, senders, gate, w, S, out):  # type: ignore[no-untyped-def]
    head = _head_of(w.shape[1], gate.shape[1])
    for e in range(len(receivers)):
        to, g, w_e, S_r = out[senders[e]], gate[e], w[e], S[receivers[e]]
        for c in range(len(head)):
            to[c] += g[head[c]] * w_e[c] * S_r[c]


@_jit
def scalars_by_filter(receivers, senders, gate, v, S, out):  # type: ignore[no-untyped-def]
    head = _head_of(v.shape[1], gate.shape[1])
    for e in range(len(receivers)):
        to, g, v_s, S_r = out[e], gate[e], v[senders[e]], S[receivers[e]]
        for c in range(len(head)):
            to[c] = g[head[c]] * v_s[c] * S_r[c]


@_jit
def scalars_by_sum(receivers, senders, gate, v, w, out):  # type: ignore[no-untyped-def]
    head = _head_of(v.shape[1], gate.shape[1])
    for e in range(len(receivers)):
        to, g, v_s, w_e = out[receivers[e]], gate[e], v[senders[e]], w[e]
        for c in range(len(head)):
            to[c] += g[head[c]] * v_s[c] * w_e[c]


@_jit
def vectors_by_unit(receivers, senders, v, w, M, out):  # type: ignore[no-untyped-def]
    for e in range(len(receivers)):
        v_s, w_e, M_r = v[senders[e]], w[e], M[receivers[e]]
        x = y = z = out.dtype.type(0)
        for c in range(len(w_e)):
            sent = v_s[c] * w_e[c]
            x += sent * M_r[0, c]
            y += sent * M_r[1, c]
            z += sent * M_r[2, c]
        out[e, 0], out[e, 1], out[e, 2] = x, y, z


@_jit
def vectors_by_value(receivers, senders, u, w, M, out):  # type: ignore[no-untyped-def]
    for e in range(len(receivers)):
        to, w_e, M_r = out[senders[e]], w[e], M[receivers[e]]
        x, y, z = u[e, 0], u[e, 1], u[e, 2]
        for c in range(len(w_e)):
            to[c] += w_e[c] * (x * M_r[0, c] + y * M_r[1, c] + z * M_r[2, c])


@_jit
def vectors_by_filter(receivers, senders, u, v, M, out):  # type: ignore[no-untyped-def]
    for e in range(len(receivers)):
        to, v_s, M_r = out[e], v[senders[e]], M[receivers[e]]
        x, y, z = u[e, 0], u[e, 1], u[e, 2]
        for c in range(len(v_s)):
            to[c] = v_s[c] * (x * M_r[0, c] + y * M_r[1, c] + z * M_r[2, c])


@_jit
def vectors_by_sum(receivers, senders, u, v, w, out):  # type: ignore[no-untyped-def]
    for e in range(len(receivers)):
        to, v_s, w_e = out[receivers[e]], v[senders[e]], w[e]
        x, y, z = u[e, 0], u[e, 1], u[e, 2]
        for c in range(len(w_e)):
            sent = v_s[c] * w_e[c]
            to[0, c] += x * sent
            to[1, c] += y * sent
            to[2, c] += z * sent
