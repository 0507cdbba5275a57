"""Tensor products summed over pairs of atoms, or taken on each atom, and their derivatives.

Each is a multilinear form ``T`` (c: channel; i, j, k: components of a spherical tensor, numbered
over all degrees; p: path, which is a degree of each of the three, with coupling coefficients C):

* pairs  ``T = sum over pairs (a, b),  C_ijq w_pc (x_bic y_j z_aqc + s_p x_aic y_j z_bqc)``
* atoms  ``T = sum over a,  C_ijk w_apc x_aic y_ajc z_akc``

A pair is visited once for both directions: seen from the other end its harmonics y have the sign s,
which depends on the path alone. What a network computes forward and backward, once or twice, are
derivatives of T by an operand; no kernel makes an array of pairs times components times channels.
The result is added to ``out``.

Of pairs the coefficients are already summed with the harmonics: a link is a triple (i, q, p) with
the sign of its path, and has a strength ``sum_j C_ijq y_j`` in each pair.

Every innermost loop has one result: with two, which might be the same memory, nothing vectorises.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "atoms_by_any",
    "pairs_by_input",
    "pairs_by_output",
    "pairs_by_strengths",
    "pairs_by_weights",
]

_jit = njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})


@_jit
def pairs_by_output(index, links, signs, w, x, strengths, out):  # type: ignore[no-untyped-def]
    for e in range(index.shape[1]):
        a, b = index[0, e], index[1, e]
        for n in range(len(links)):
            i, q, p = links[n]
            forth = strengths[e, n]
            back = forth * signs[n]
            w_e, x_a, x_b, z_a, z_b = w[e, p], x[a, i], x[b, i], out[a, q], out[b, q]
            for c in range(len(w_e)):
                z_a[c] += forth * w_e[c] * x_b[c]
            for c in range(len(w_e)):
                z_b[c] += back * w_e[c] * x_a[c]


@_jit
def pairs_by_input(index, links, signs, w, strengths, z, out):  # type: ignore[no-untyped-def]
    """Send back what came: the same sums, with the ends of each pair and of each link swapped."""
    back = np.empty_like(links)
    back[:, 0], back[:, 1], back[:, 2] = links[:, 1], links[:, 0], links[:, 2]
    pairs_by_output(np.ascontiguousarray(index[::-1]), back, signs, w, z, strengths, out)


@_jit
def pairs_by_weights(index, links, signs, x, strengths, z, out):  # type: ignore[no-untyped-def]
    for e in range(index.shape[1]):
        a, b = index[0, e], index[1, e]
        for n in range(len(links)):
            i, q, p = links[n]
            forth = strengths[e, n]
            back = forth * signs[n]
            w_e, x_a, x_b, z_a, z_b = out[e, p], x[a, i], x[b, i], z[a, q], z[b, q]
            for c in range(len(w_e)):
                w_e[c] += forth * x_b[c] * z_a[c] + back * x_a[c] * z_b[c]


@_jit
def pairs_by_strengths(index, links, signs, w, x, z, out):  # type: ignore[no-untyped-def]
    for e in range(index.shape[1]):
        a, b = index[0, e], index[1, e]
        for n in range(len(links)):
            i, q, p = links[n]
            w_e, x_a, x_b, z_a, z_b = w[e, p], x[a, i], x[b, i], z[a, q], z[b, q]
            sign, total = signs[n], out.dtype.type(0)
            for c in range(len(w_e)):
                total += w_e[c] * (x_b[c] * z_a[c] + sign * x_a[c] * z_b[c])
            out[e, n] = total


@_jit
def atoms_by_any(rows, coefficients, first, second, third, out):  # type: ignore[no-untyped-def]
    """Add products of three; rows say which components, the last that of the result."""
    for a in range(len(out)):
        for n in range(len(rows)):
            i, j, k, m = rows[n]
            coefficient = coefficients[n]
            one, two, three, to = first[a, i], second[a, j], third[a, k], out[a, m]
            for c in range(len(to)):
                to[c] += coefficient * one[c] * two[c] * three[c]
