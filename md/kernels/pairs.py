"""Coulomb, dispersion and repulsion of all pairs in one pass, from tables of their energies.

The terms of `scikd.md.electrostatics`, `scikd.md.dispersion` and `scikd.md.repulsion` are functions
of one distance. Each is tabulated as a quintic in each of n equal intervals up to its cutoff, with
the value and the first two derivatives of the function at both ends: what the kernel computes is
twice continuously differentiable wherever the function is, and its forces are exactly those of its
energies. There is no exponential, no error function and no logarithm in the loop.

Largest errors of the tables with the default settings, for unit charges and any two elements, over
distances from 0.5 Å (tested): in double precision (8192 intervals) 1e-14 eV and 2e-11 eV/Å; in
single precision (1024 intervals) 5e-7 eV and 2e-6 eV/Å, from the rounding of the numbers. Where two
atoms are so close that the repulsion switches on, its many eV are off by up to 1e-7 and 2e-4 of
them, the force by up to a thousandth and a hundredth. Sums are in double precision always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from scikd.exceptions import InvalidInputError
from scikd.md.dispersion import D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.repulsion import ZBL
from scikd.md.units import FROM_VOIGT

__all__ = ["Contributions", "PairTables"]

_INTERVALS = {"float32": 1024, "float64": 8192}
_N_TERMS, _ROW = 6, 8  # of a quintic, and numbers in its row: a row lies in one line of the cache
_LONGEST = 1024  # pairs of one atom that are worked on at a time
# The list is cut into as many pieces whatever the number of threads, each with sums of its own that
# are added in order: the result is the same to the bit for any number of threads.
_PIECES = 16
_SHORTEST = 0.3  # Å; below, the table goes on as a straight line: repulsion has no value at 0
_UNDAMPED = 40.0  # beyond r0 (1 + 40 / beta) the damped interaction is 1/r to the last bit
# Products may be fused with sums: what is left out is a rounding.
_COMPILED: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


class Contributions(NamedTuple):
    """What a term adds to one structure of N atoms."""

    energies: np.ndarray
    """By atom, shape (N,), in eV; of each pair one half."""
    forces: np.ndarray
    """At fixed charges, shape (N, 3), in eV/Å."""
    virial: np.ndarray
    """Minus the derivative of the energy by a strain, shape (3, 3), in eV."""
    potentials: np.ndarray
    """Derivative of the energy by each charge, shape (N,), in eV/e."""


# -- kernel --------------------------------------------------------------------------------------


@njit(**_COMPILED)
def _measure(  # type: ignore[no-untyped-def]
    start, stop, positions, i, j, offsets, reach2, vectors, distances, others
):
    """Measure a run of pairs of one atom, and keep those within reach; return how many."""
    here = i[start]
    x, y, z = positions[here, 0], positions[here, 1], positions[here, 2]
    kept = 0
    for p in range(start, stop):
        other = j[p]
        dx = positions[other, 0] - x + offsets[p, 0]
        dy = positions[other, 1] - y + offsets[p, 1]
        dz = positions[other, 2] - z + offsets[p, 2]
        square = dx * dx + dy * dy + dz * dz
        vectors[0, kept] = dx
        vectors[1, kept] = dy
        vectors[2, kept] = dz
        distances[kept] = square
        others[kept] = other
        if square < reach2:
            kept += 1
    return kept


@njit(**_COMPILED)
def _run_length(start, stop, i):  # type: ignore[no-untyped-def]
    """Return where the run of pairs with the same first atom ends."""
    end = min(stop, start + _LONGEST)
    p = start + 1
    while p < end and i[p] == i[start]:
        p += 1
    return p


@njit(**_COMPILED)
def _look_up(kept, table, scale, stop, rows, distances, values, slopes):  # type: ignore[no-untyped-def]
    """Evaluate tabulated functions and their slopes; 0 from the end of the table on.

    ``rows`` says at which row of the table each pair's function begins. The loop has no branch and
    nothing in it but arrays of one precision, so that it becomes vector instructions.
    """
    for k in range(kept):
        place = min(distances[k] * scale, stop)
        floor = np.floor(place)
        t = place - floor
        c = np.uint32((rows[k] + np.int32(floor)) * _ROW)
        slope = table[c + 5]
        value = slope * t + table[c + 4]
        slope = slope * t + value
        value = value * t + table[c + 3]
        slope = slope * t + value
        value = value * t + table[c + 2]
        slope = slope * t + value
        value = value * t + table[c + 1]
        slope = slope * t + value
        values[k] = value * t + table[c]
        slopes[k] = slope * scale


@njit(**_COMPILED)
def _combine(kept, charge, charges, tables, work, rows, others):  # type: ignore[no-untyped-def]
    """Turn squared distances into energies, forces by distance, and energies of unit charges.

    On return row 1 of ``work`` (6, n) holds the energies, row 2 the forces on the other atom
    divided by the distance, and row 3 the energies of unit charges.
    """
    coulomb, rest, constants = tables
    to_coulomb, to_rest, stop, beyond, one = constants
    distances, energies, forces, units, slopes, inverse = work
    for k in range(kept):
        distances[k] = np.sqrt(distances[k])
        inverse[k] = one / distances[k]
    _look_up(kept, rest, to_rest, stop, rows, distances, energies, forces)
    rows[:kept] = 0
    _look_up(kept, coulomb, to_coulomb, stop, rows, distances, units, slopes)
    if beyond > 0:
        for k in range(kept):
            if distances[k] * to_coulomb >= stop:
                units[k] = beyond * inverse[k]
                slopes[k] = -units[k] * inverse[k]
    for k in range(kept):
        product = charge * charges[others[k]]
        energies[k] += product * units[k]
        forces[k] = -(forces[k] + product * slopes[k]) * inverse[k]


@njit(**_COMPILED)
def _add_pairs(  # type: ignore[no-untyped-def]
    start, stop, positions, charges, kinds, i, j, offsets, reach2, first_rows, tables, sums, virial
):
    """Add a piece of the list to sums by atom (N, 5): force, energy, potential."""
    precision = tables[0].dtype
    vectors, work = np.empty((3, _LONGEST), precision), np.empty((6, _LONGEST), precision)
    rows, others = np.empty(_LONGEST, np.int32), np.empty(_LONGEST, np.int64)
    xx, yy, zz, yz, xz, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    while start < stop:
        here = i[start]
        end = _run_length(start, stop, i)
        kept = _measure(start, end, positions, i, j, offsets, reach2, vectors, work[0], others)
        for k in range(kept):
            rows[k] = first_rows[kinds[here], kinds[others[k]]]
        _combine(kept, charges[here], charges, tables, work, rows, others)
        fx, fy, fz, energy, potential = 0.0, 0.0, 0.0, 0.0, 0.0
        charge = np.float64(charges[here])
        for k in range(kept):
            other = others[k]
            half, force, unit = 0.5 * work[1, k], np.float64(work[2, k]), np.float64(work[3, k])
            dx, dy, dz = (
                np.float64(vectors[0, k]),
                np.float64(vectors[1, k]),
                np.float64(vectors[2, k]),
            )
            gx, gy, gz = force * dx, force * dy, force * dz
            fx -= gx
            fy -= gy
            fz -= gz
            energy += half
            potential += unit * charges[other]
            sums[other, 0] += gx
            sums[other, 1] += gy
            sums[other, 2] += gz
            sums[other, 3] += half
            sums[other, 4] += unit * charge
            xx += gx * dx
            yy += gy * dy
            zz += gz * dz
            yz += gy * dz
            xz += gx * dz
            xy += gx * dy
        sums[here, 0] += fx
        sums[here, 1] += fy
        sums[here, 2] += fz
        sums[here, 3] += energy
        sums[here, 4] += potential
        start = end
    virial[0], virial[1], virial[2] = xx, yy, zz
    virial[3], virial[4], virial[5] = yz, xz, xy


# -- tables --------------------------------------------------------------------------------------


def _quintics(function: Callable[[Tensor], Tensor], stop: float, n: int) -> np.ndarray:
    """Tabulate a function of distance from 0 to `stop`: coefficients of t**k, (n, 6), float64."""
    nodes = torch.linspace(0.0, stop, n + 1, dtype=torch.float64)
    # The last node from below: a function that is cut there would show its other side.
    first = int(np.ceil(_SHORTEST * n / stop))
    inside = nodes.clamp(float(nodes[first]), stop * (1.0 - 1e-13)).requires_grad_()
    values = function(inside)
    slopes = torch.autograd.grad(values.sum(), inside, create_graph=True)[0]
    bends = torch.autograd.grad(slopes.sum(), inside)[0] if slopes.requires_grad else 0 * slopes
    f, f1, f2 = (part.detach().clone() for part in (values, slopes, bends))
    f[:first] += f1[:first] * (nodes - inside.detach())[:first]
    f2[:first] = 0.0

    h = stop / n
    c0, c1, c2 = f[:-1], h * f1[:-1], 0.5 * h * h * f2[:-1]
    a = f[1:] - c0 - c1 - c2  # what is left of value, slope and curvature at the far end
    b = h * f1[1:] - c1 - 2 * c2
    c = h * h * f2[1:] - 2 * c2
    quintic = (c0, c1, c2, 10 * a - 4 * b + 0.5 * c, -15 * a + 7 * b - c, 6 * a - 3 * b + 0.5 * c)
    return torch.stack(quintic, -1).numpy()


class PairTables:
    """The pair terms of a force field, for structures that are periodic, or that are not.

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers that can occur.
    electrostatics : Electrostatics or None
        Its pairs; the reciprocal sum is `scikd.md.kernels.pme.ParticleMesh`.
    dispersion : D3CSO or None, default=None
        With its tail, if it has one.
    repulsion : ZBL or None, default=None
        A repulsive floor.
    periodic : bool
        Whether the structures are periodic in three directions, or not at all.
    dtype : {"float32", "float64"}, default="float32"
        Precision of distances and tables; sums are float64.

    Raises
    ------
    InvalidInputError
        If the dispersion is no `D3CSO`, or lacks an element.
    """

    def __init__(
        self,
        elements: Sequence[int],
        *,
        electrostatics: Electrostatics | None,
        dispersion: D3CSO | None = None,
        repulsion: ZBL | None = None,
        periodic: bool,
        dtype: Any = "float32",
    ) -> None:
        name = np.dtype(dtype).name
        if name not in _INTERVALS:
            raise InvalidInputError(f"Expected dtype 'float32' or 'float64'; got {dtype!r}.")
        if dispersion is not None and not isinstance(dispersion, D3CSO):
            raise InvalidInputError(
                f"Compiled pairs know the dispersion D3CSO; got {dispersion!r}. Use the force "
                "field in PyTorch, or add this dispersion on its own."
            )
        self.elements = tuple(int(z) for z in elements)
        self.periodic, self.dtype, n = periodic, np.dtype(name), _INTERVALS[name]
        self._kinds = np.full(max(self.elements) + 1, -1, dtype=np.int64)
        self._kinds[list(self.elements)] = np.arange(len(self.elements))
        coulomb, end, beyond = self._tabulate_coulomb(electrostatics, n)
        rest, rest_end = self._tabulate_rest(dispersion, repulsion, n)
        constants = (n / end, n / rest_end, n, beyond, 1.0)
        self._tables = (
            self._packed(coulomb[None]),
            self._packed(rest),
            tuple(self.dtype.type(constant) for constant in constants),
        )
        self._reach2 = np.inf if beyond else max(end, rest_end) ** 2
        self._tail = np.zeros((len(self.elements), len(self.elements)))
        if periodic and dispersion is not None and dispersion.tail:
            self._tail = dispersion.tail_integrals()[np.ix_(self.elements, self.elements)]

    def _packed(self, tables: np.ndarray) -> np.ndarray:
        """Return tables (T, n, 6) one after the other, each with a row of zeros at the end."""
        padding = ((0, 0), (0, 1), (0, _ROW - _N_TERMS))
        return np.pad(tables, padding).astype(self.dtype).reshape(-1)

    def _tabulate_coulomb(
        self, terms: Electrostatics | None, n: int
    ) -> tuple[np.ndarray, float, float]:
        """Return the table, where it ends, and the constant K of what goes on beyond as K/r."""
        if terms is None:
            return np.zeros((n, _N_TERMS)), 1.0, 0.0
        beyond = 0.0
        if self.periodic:
            end = terms.cutoff
        elif terms.free_cutoff is not None:
            end = terms.free_cutoff
        else:
            end, beyond = terms.r0 * (1 + _UNDAMPED / terms.beta), terms.constant
        return (
            _quintics(lambda r: terms.pair_energy(r, periodic=self.periodic), end, n),
            end,
            beyond,
        )

    def _tabulate_rest(
        self, dispersion: D3CSO | None, repulsion: ZBL | None, n: int
    ) -> tuple[np.ndarray, float]:
        """Return a table for each pair of elements, of all but Coulomb, and where they end."""
        terms = [term for term in (dispersion, repulsion) if term is not None]
        size = len(self.elements)
        of_pair = np.empty((size, size), dtype=np.int32)
        tables: list[np.ndarray] = []
        end = max((term.cutoff for term in terms), default=1.0)
        for a, first in enumerate(self.elements):
            for b, second in enumerate(self.elements[: a + 1]):

                def energy(r: Tensor, z: tuple[int, int] = (first, second)) -> Tensor:
                    z_i, z_j = (torch.full(r.shape, number, dtype=torch.int64) for number in z)
                    zero = 0.0 * r
                    return sum((term.pair_energy(r, z_i, z_j) for term in terms), zero)

                of_pair[a, b] = of_pair[b, a] = len(tables) * (n + 1)
                tables.append(_quintics(energy, end, n))
        self._first_rows = of_pair
        return np.stack(tables), end

    def compute(
        self,
        numbers: np.ndarray,
        positions: np.ndarray,
        charges: np.ndarray,
        i: np.ndarray,
        j: np.ndarray,
        offsets: np.ndarray,
        *,
        volume: float = np.inf,
        pool: ThreadPoolExecutor | None = None,
    ) -> Contributions:
        """Compute the pairs of one structure.

        Parameters
        ----------
        numbers : ndarray of shape (N,)
            Atomic numbers.
        positions : ndarray of shape (N, 3)
            In Å.
        charges : ndarray of shape (N,)
            In e.
        i, j : ndarray of int of shape (P,)
            Atoms of each pair, each unordered pair (with each image) once; best sorted by `i`.
            Pairs beyond all cutoffs are skipped. All pairs, where structures are not periodic.
        offsets : ndarray of shape (P, 3)
            Lattice vectors in Å: a pair's vector is ``positions[j] + offsets - positions[i]``.
        volume : float, default=inf
            Of the cell, in Å³, for the dispersion's tail.
        pool : ThreadPoolExecutor or None, default=None
            Threads to share the work with. No result depends on how many they are.

        Raises
        ------
        InvalidInputError
            If an element has no table.
        """
        kinds = self._kinds_of(np.asarray(numbers))
        n_atoms, n_pairs = len(kinds), len(i)
        ends = [n_pairs * piece // _PIECES for piece in range(_PIECES + 1)]
        sums, virials = np.zeros((_PIECES, n_atoms, 5)), np.zeros((_PIECES, 6))
        shared = (
            np.ascontiguousarray(positions, dtype=np.float64),
            np.asarray(charges, dtype=self.dtype),
            kinds,
            *(np.ascontiguousarray(part, dtype=np.int64) for part in (i, j)),
            np.ascontiguousarray(offsets, dtype=np.float64),
            self._reach2,
            self._first_rows,
            self._tables,
        )
        pieces = list(zip(ends[:-1], ends[1:], sums, virials, strict=True))
        run = map if pool is None else pool.map
        list(run(lambda piece: _add_pairs(*piece[:2], *shared, *piece[2:]), pieces))
        total = sums.sum(axis=0)
        virial = virials.sum(axis=0)[..., FROM_VOIGT]
        counts = np.bincount(kinds, minlength=len(self.elements))
        tail = (self._tail @ counts)[kinds] / volume
        np.einsum("aa->a", virial)[:] += tail.sum()  # inversely proportional to the volume
        return Contributions(total[:, 3] + tail, total[:, :3].copy(), virial, total[:, 4].copy())

    def _kinds_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return each atom's row in the tables."""
        known = np.isin(numbers, self.elements)
        if not known.all():
            message = (
                f"Expected the atomic numbers {self.elements}, for which tables were made; got "
                f"{sorted(set(numbers[~known].tolist()))} as well."
            )
            raise InvalidInputError(message)
        return self._kinds[numbers]
