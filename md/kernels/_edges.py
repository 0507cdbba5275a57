"""What GET does along the edges of one atom: messages and their derivatives, compiled.

Every loop runs over the edges at which one atom receives, and writes to that atom alone, so that
atoms can be worked on in any order and by any number of threads with the same result to the bit.
What an atom gets back as a sender is found at the reverse edges: the list holds both directions of
each pair, with the same distance and the opposite unit vector.

Channels stand component by component, the heads of one component side by side, so that a product
of queries and keys is a sum of parts of a vector. With r the distance, u the unit vector from
sender j to receiver i, f the envelope and W the filter::

    y = v_j W(r)     a = SiLU(q_i . k_j) f(r) by head
    s_i = sum a y    m_i = sum y (x) u
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ._lanes import fold, load, sigmoid, store, tile, total, zeros
from .filters import N_TERMS

__all__ = [
    "COMPILED",
    "Edges",
    "finish_edges",
    "gather_forces",
    "link_pairs",
    "measure_edges",
    "messages",
    "return_messages",
]

# Columns of `Edges.geometry`.
UX, UY, UZ, RADIUS, FADE, SLOPE, PLACE = range(7)
N_COLUMNS = 8
COMPILED: Any = {"cache": True, "nogil": True, "error_model": "numpy"}


class Edges(NamedTuple):
    """Edges of all atoms; those of atom i stand from ``first[i]`` to ``end[i]``."""

    first: np.ndarray  # (N + 1,) int64
    end: np.ndarray  # (N,) int64
    sender: np.ndarray  # (E,) int32
    interval: np.ndarray  # (E,) int32: of the filter's table
    reverse: np.ndarray  # (E,) int32: where the other direction stands
    geometry: np.ndarray  # (E, 8)
    gradient: np.ndarray  # (E, 4): of the energy, by the vector from sender to receiver, eV/Å


# -- geometry ------------------------------------------------------------------------------------


@njit(**COMPILED)
def link_pairs(i, j, n_atoms):  # type: ignore[no-untyped-def]
    """Make candidates for edges, both ways, from a half list.

    Return where those of each atom start, and for each candidate its links: sender, row of the half
    list, sign of the offset there, and the candidate that is its reverse.
    """
    first = np.zeros(n_atoms + 1, np.int64)
    for p in range(len(i)):
        first[i[p] + 1] += 1
        first[j[p] + 1] += 1
    for a in range(n_atoms):
        first[a + 1] += first[a]
    free = first[:-1].copy()
    links = np.empty((2 * len(i), 4), np.int32)
    for p in range(len(i)):
        at = free[i[p]]
        free[i[p]] += 1
        back = free[j[p]]
        free[j[p]] += 1
        # The vector points from sender to receiver, the half list's from i to j.
        links[at, 0], links[at, 1], links[at, 2], links[at, 3] = j[p], p, -1, back
        links[back, 0], links[back, 1], links[back, 2], links[back, 3] = i[p], p, 1, at
    return first, links


@njit(**COMPILED)
def measure_edges(  # type: ignore[no-untyped-def]
    start, stop, positions, links, offsets, edges, n_intervals, cutoff, cosine, slots
):
    """Keep the pairs of a longer list that are within the cutoff, and measure them.

    ``links`` holds for each candidate: sender, row of `offsets` and its sign, the reverse
    candidate; ``slots`` (E, 2) remembers where a candidate went, and where an edge came from.
    """
    at, scale = edges.geometry, n_intervals / cutoff
    longest = 0
    for i in range(start, stop):
        longest = max(longest, edges.first[i + 1] - edges.first[i])
    squares = np.empty(longest + 1)
    for i in range(start, stop):
        first = kept = edges.first[i]
        for c in range(first, edges.first[i + 1]):
            j, p, sign = links[c, 0], links[c, 1], links[c, 2]
            # x_i - x_j first: then both directions agree to the bit, and on who is within.
            x = positions[i, 0] - positions[j, 0] + sign * offsets[p, 0]
            y = positions[i, 1] - positions[j, 1] + sign * offsets[p, 1]
            z = positions[i, 2] - positions[j, 2] + sign * offsets[p, 2]
            square = x * x + y * y + z * z
            # Written in any case, and overwritten by the next: whether it stays is hard to guess.
            within = square < cutoff * cutoff
            at[kept, UX], at[kept, UY], at[kept, UZ] = x, y, z
            squares[kept - first], edges.sender[kept], slots[kept, 1] = square, j, c
            slots[c, 0] = kept if within else -1
            kept += within
        edges.end[i] = kept
        for e in range(first, kept):
            r = np.sqrt(squares[e - first])
            inverse = 1.0 / r
            at[e, UX] *= inverse
            at[e, UY] *= inverse
            at[e, UZ] *= inverse
            at[e, RADIUS] = r
            m = min(int(r * scale), n_intervals - 1)
            edges.interval[e] = m
            at[e, PLACE] = r * scale - m
            t = r / cutoff
            if cosine:
                at[e, FADE] = 0.5 * (np.cos(np.pi * t) + 1.0)
                at[e, SLOPE] = -0.5 * np.pi / cutoff * np.sin(np.pi * t)
            else:
                at[e, FADE] = 1.0 + t * t * t * (t * (15.0 - 6.0 * t) - 10.0)
                at[e, SLOPE] = -30.0 / cutoff * (t * (1.0 - t)) ** 2


@njit(**COMPILED)
def finish_edges(start, stop, edges, links, slots):  # type: ignore[no-untyped-def]
    """Find the reverse of each edge that was kept."""
    for i in range(start, stop):
        for e in range(edges.first[i], edges.end[i]):
            edges.reverse[e] = slots[links[slots[e, 1], 3], 0]


@njit(**COMPILED)
def gather_forces(start, stop, edges, forces, virials, block):  # type: ignore[no-untyped-def]
    """Add up the forces on atoms, and the virial ``-sum d (x) dE/dd`` of each block of atoms."""
    for i in range(start, stop):
        virial = virials[i // block]
        for e in range(edges.first[i], edges.end[i]):
            back, r = edges.reverse[e], edges.geometry[e, RADIUS]
            for a in range(3):
                g = np.float64(edges.gradient[e, a])
                forces[i, a] += edges.gradient[back, a] - g
                for b in range(3):
                    virial[3 * b + a] -= edges.geometry[e, b] * r * g


# -- loops ---------------------------------------------------------------------------------------


@njit(inline="always")
def _filter(wide, table, m, t):  # type: ignore[no-untyped-def]
    """Return the filter in interval m at t."""
    row = N_TERMS * m
    value = load(wide, table, row + 5, 0)
    value = value * t + load(wide, table, row + 4, 0)
    value = value * t + load(wide, table, row + 3, 0)
    value = value * t + load(wide, table, row + 2, 0)
    value = value * t + load(wide, table, row + 1, 0)
    return value * t + load(wide, table, row, 0)


@njit(inline="always")
def _filter_and_slope(wide, table, m, t):  # type: ignore[no-untyped-def]
    """Return the filter in interval m at t, and its derivative by t."""
    row = N_TERMS * m
    slope = load(wide, table, row + 5, 0)
    value = slope * t + load(wide, table, row + 4, 0)
    slope = slope * t + value
    value = value * t + load(wide, table, row + 3, 0)
    slope = slope * t + value
    value = value * t + load(wide, table, row + 2, 0)
    slope = slope * t + value
    value = value * t + load(wide, table, row + 1, 0)
    slope = slope * t + value
    return value * t + load(wide, table, row, 0), slope


@njit(inline="always")
def _attention(narrow, q, k):  # type: ignore[no-untyped-def]
    """Return SiLU(q . k) by head, and its derivative."""
    x = fold(narrow, q * k)
    g = sigmoid(x)
    return x * g, g * (x * (1.0 - g) + 1.0)


@njit(**COMPILED)
def messages(i, wide, narrow, edges, table, rows, qkv, s, m, to):  # type: ignore[no-untyped-def]
    """Gather what atom i receives: s into row `to`, m (unless None) into rows 3 to and on."""
    dim = s.shape[1]
    q = load(wide, qkv, rows[i], 0)
    scalars = zeros(wide)
    mx, my, mz = zeros(wide), zeros(wide), zeros(wide)
    for e in range(edges.first[i], edges.end[i]):
        j = rows[edges.sender[e]]
        at = edges.geometry
        gate, _ = _attention(narrow, q, load(wide, qkv, j, dim))
        y = load(wide, qkv, j, 2 * dim) * _filter(wide, table, edges.interval[e], at[e, PLACE])
        scalars = scalars + tile(wide, gate * at[e, FADE]) * y
        if m is not None:
            mx = mx + y * at[e, UX]
            my = my + y * at[e, UY]
            mz = mz + y * at[e, UZ]
    store(scalars, s, to, 0)
    if m is not None:
        store(mx, m, 3 * to, 0)
        store(my, m, 3 * to + 1, 0)
        store(mz, m, 3 * to + 2, 0)


@njit(inline="always")
def _three(wide, array, row):  # type: ignore[no-untyped-def]
    """Return the rows of one atom's x, y and z."""
    x, y = load(wide, array, row, 0), load(wide, array, row + 1, 0)
    return x, y, load(wide, array, row + 2, 0)


@njit(**COMPILED)
def return_messages(  # type: ignore[no-untyped-def]
    i, wide, narrow, edges, table, per_length, rows, qkv, gs, gm, gqkv, to
):
    """Take the gradients by s and m back to q, k, v of atom i (row `to`) and to its edges.

    ``gs`` (N, dim) and ``gm`` (3 N, dim, or None where no vectors were sent) belong to the
    receivers: atom i receives along an edge, and sends along its reverse. With ``gqkv`` None, q, k
    and v are constants of the elements, and only the edges are of interest. ``per_length`` is
    intervals of the table per Å.
    """
    dim = gs.shape[1]
    row, at = rows[i], edges.geometry
    q, k, v = load(wide, qkv, row, 0), load(wide, qkv, row, dim), load(wide, qkv, row, 2 * dim)
    si = load(wide, gs, i, 0)
    if gm is not None:
        ix, iy, iz = _three(wide, gm, 3 * i)
    gq, gk, gv = zeros(wide), zeros(wide), zeros(wide)
    for e in range(edges.first[i], edges.end[i]):
        j, sender = edges.sender[e], rows[edges.sender[e]]
        ux, uy, uz, fade = at[e, UX], at[e, UY], at[e, UZ], at[e, FADE]
        w, dw = _filter_and_slope(wide, table, edges.interval[e], at[e, PLACE])
        # As receiver: gs_i, gm_i to q_i, and to distance and direction.
        kj, vj = load(wide, qkv, sender, dim), load(wide, qkv, sender, 2 * dim)
        gate, slope = _attention(narrow, q, kj)
        y = vj * w
        ga = fold(narrow, si * y)
        gy = tile(wide, gate * fade) * si
        if gm is not None:
            gy = gy + (ix * ux + iy * uy + iz * uz)
        radial = total(fold(narrow, gy * vj * dw) * per_length + ga * gate * at[e, SLOPE])
        if gm is None:  # the last layer, which the way back begins with
            tx = ty = tz = radial * 0
        else:
            r = at[e, RADIUS]
            tx, ty = total(fold(narrow, ix * y)), total(fold(narrow, iy * y))
            tz = total(fold(narrow, iz * y))
            radial = radial - (ux * tx + uy * ty + uz * tz) / r
            tx = edges.gradient[e, 0] + tx / r
            ty = edges.gradient[e, 1] + ty / r
            tz = edges.gradient[e, 2] + tz / r
        edges.gradient[e, 0] = tx + radial * ux
        edges.gradient[e, 1] = ty + radial * uy
        edges.gradient[e, 2] = tz + radial * uz
        if gqkv is not None:
            gq = gq + tile(wide, ga * slope * fade) * kj
            # As sender, along the reverse edge: gs_j, gm_j to k_i and v_i.
            qj, sj = load(wide, qkv, sender, 0), load(wide, gs, j, 0)
            gate, slope = _attention(narrow, qj, k)
            gy = tile(wide, gate * fade) * sj
            if gm is not None:
                jx, jy, jz = _three(wide, gm, 3 * j)
                gy = gy - (jx * ux + jy * uy + jz * uz)
            gv = gv + gy * w
            gk = gk + tile(wide, fold(narrow, sj * (v * w)) * slope * fade) * qj
    if gqkv is not None:
        store(gq, gqkv, to, 0)
        store(gk, gqkv, to, dim)
        store(gv, gqkv, to, 2 * dim)
