"""The long-range part of Ewald sums on a mesh: smooth particle mesh Ewald, compiled.

Charges are spread on a mesh with B-splines of order 6, convolved with the potential of a Gaussian
by fast Fourier transforms, and potential and field are gathered with the same splines. Splitting,
accuracy and mesh are those of `scikd.md.electrostatics.Electrostatics`; the pairs of
`scikd.md.kernels.pairs` are the rest of the sum.

References
----------
U. Essmann, L. Perera, M. L. Berkowitz, T. Darden, H. Lee and L. G. Pedersen, "A smooth particle
mesh Ewald method", J. Chem. Phys. 103, 8577 (1995).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from scipy import fft

from scikd.exceptions import InvalidInputError
from scikd.md._ewald import ORDER, mesh_shape, spline_response
from scikd.md.electrostatics import Electrostatics
from scikd.md.units import FROM_VOIGT

from .pairs import Contributions

__all__ = ["ParticleMesh"]

_BLOCK = 256  # atoms that a thread gathers for at a time
# Products may be fused with sums: what is left out is a rounding.
_COMPILED: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


# -- kernels -------------------------------------------------------------------------------------


@njit(**_COMPILED)
def _splines(scaled, shape, points, weights, slopes):  # type: ignore[no-untyped-def]
    """Find the mesh points around each atom, (N, 3, 6), the splines there and their slopes."""
    for n in range(len(scaled)):
        for d in range(3):
            below = math.floor(scaled[n, d])
            x = scaled[n, d] - below
            w = weights[n, d]
            w[0] = 1.0
            for order in range(2, ORDER + 1):
                if order == ORDER:
                    slopes[n, d, 0] = -w[0]
                    for k in range(1, ORDER - 1):
                        slopes[n, d, k] = w[k - 1] - w[k]
                    slopes[n, d, ORDER - 1] = w[ORDER - 2]
                share = 1.0 / (order - 1)
                w[order - 1] = x * w[order - 2] * share
                for k in range(order - 2, 0, -1):
                    w[k] = ((x + (order - 1 - k)) * w[k - 1] + ((1 + k) - x) * w[k]) * share
                w[0] = (1.0 - x) * w[0] * share
            for k in range(ORDER):
                points[n, d, k] = (int(below) + k + 1 - ORDER) % shape[d]


@njit(**_COMPILED)
def _spread(charges, points, weights, mesh):  # type: ignore[no-untyped-def]
    """Add every atom's charge to the mesh points around it."""
    for n in range(len(charges)):
        for a in range(ORDER):
            x = charges[n] * weights[n, 0, a]
            for b in range(ORDER):
                y = x * weights[n, 1, b]
                line = mesh[points[n, 0, a], points[n, 1, b]]
                for c in range(ORDER):
                    line[points[n, 2, c]] += y * weights[n, 2, c]


@njit(**_COMPILED)
def _convolve(waves, kernel, reciprocal, splitting, totals):  # type: ignore[no-untyped-def]
    """Turn waves of charge into waves of potential; add up energy and virial (7,), for unit K.

    ``waves`` holds half of the waves, as rfftn leaves them: the others count through ``twice``,
    which is 1 only where a wave is its own opposite.
    """
    nx, ny, nz = waves.shape[0], waves.shape[1], kernel.shape[2]
    even = totals[6] > 0  # says whether the last dimension of the mesh is
    totals[:] = 0.0
    for a in range(nx):
        p = a if 2 * a <= nx else a - nx
        for b in range(ny):
            q = b if 2 * b <= ny else b - ny
            for c in range(nz):
                wave = waves[a, b, c]
                twice = 1.0 if c == 0 or (even and c == nz - 1) else 2.0
                power = wave.real * wave.real + wave.imag * wave.imag
                energy = 0.5 * twice * kernel[a, b, c] * power
                kx = p * reciprocal[0, 0] + q * reciprocal[1, 0] + c * reciprocal[2, 0]
                ky = p * reciprocal[0, 1] + q * reciprocal[1, 1] + c * reciprocal[2, 1]
                kz = p * reciprocal[0, 2] + q * reciprocal[1, 2] + c * reciprocal[2, 2]
                square = kx * kx + ky * ky + kz * kz
                if square > 0.0:
                    part = 2.0 * energy * (1.0 / square + 0.25 / (splitting * splitting))
                    totals[0] += energy - part * kx * kx
                    totals[1] += energy - part * ky * ky
                    totals[2] += energy - part * kz * kz
                    totals[3] -= part * ky * kz
                    totals[4] -= part * kx * kz
                    totals[5] -= part * kx * ky
                waves[a, b, c] = wave * kernel[a, b, c]


@njit(**_COMPILED)
def _gather(start, stop, points, weights, slopes, mesh, potentials, fields):  # type: ignore[no-untyped-def]
    """Read potentials, and their slopes by scaled position, at the atoms from start to stop."""
    for n in range(start, stop):
        value, gx, gy, gz = 0.0, 0.0, 0.0, 0.0
        for a in range(ORDER):
            for b in range(ORDER):
                line = mesh[points[n, 0, a], points[n, 1, b]]
                here, slope = 0.0, 0.0
                for c in range(ORDER):
                    at = line[points[n, 2, c]]
                    here += weights[n, 2, c] * at
                    slope += slopes[n, 2, c] * at
                both = weights[n, 0, a] * weights[n, 1, b]
                value += both * here
                gx += slopes[n, 0, a] * weights[n, 1, b] * here
                gy += weights[n, 0, a] * slopes[n, 1, b] * here
                gz += both * slope
        potentials[n] = value
        fields[n, 0], fields[n, 1], fields[n, 2] = gx, gy, gz


# -- the sum -------------------------------------------------------------------------------------


class ParticleMesh:
    """The reciprocal sum of an `Electrostatics`, for one periodic structure at a time.

    What depends on the cell alone is kept from one call to the next.

    Parameters
    ----------
    electrostatics : Electrostatics
        Its splitting, accuracy and constant are used; whether its own reciprocal sum runs over
        vectors or over a mesh makes no difference here.

    Raises
    ------
    InvalidInputError
        If it has no splitting, and so nothing to sum over reciprocal vectors.

    Notes
    -----
    Energies, forces and virial are exact derivatives of one another, so the sum of the forces is
    not exactly zero, but of the size of the accuracy.
    """

    def __init__(self, electrostatics: Electrostatics) -> None:
        if not electrostatics.g > 0:
            message = (
                "Expected electrostatics with a reciprocal sum; got reciprocal="
                f"{electrostatics.reciprocal!r} with splitting={electrostatics.splitting!r}."
            )
            raise InvalidInputError(message)
        self.splitting = electrostatics.g
        self.accuracy = electrostatics.accuracy
        self.constant = electrostatics.constant
        self._cell = np.zeros((3, 3))
        self._n_atoms = -1

    def _set_cell(self, cell: np.ndarray) -> None:
        """Choose the mesh, and tabulate what it does to each wave."""
        if np.array_equal(cell, self._cell):
            return
        self._cell = np.full((3, 3), np.nan)  # until all that follows has been done
        self.shape = mesh_shape(cell, self.splitting, self.accuracy)
        self._inverse = np.linalg.inv(cell)
        self._volume = float(abs(np.linalg.det(cell)))
        self._reciprocal = 2 * np.pi * self._inverse.T
        nx, ny, nz = self.shape
        p, q, r = np.fft.fftfreq(nx, 1 / nx), np.fft.fftfreq(ny, 1 / ny), np.arange(nz // 2 + 1)
        # The sign of the highest waves of an even mesh is free: positive, as in the kernel.
        p, q = np.where(2 * p == -nx, -p, p), np.where(2 * q == -ny, -q, q)
        lines = [n[:, None] * axis for n, axis in zip((p, q, r), self._reciprocal, strict=True)]
        square = np.zeros((nx, ny, nz // 2 + 1))
        for c in range(3):
            square += (lines[0][:, None, None, c] + lines[1][:, None, c] + lines[2][:, c]) ** 2
        square[0, 0, 0] = 1.0
        response = [spline_response(n) for n in self.shape]
        kernel = 4 * np.pi / self._volume * np.exp(-square / (4 * self.splitting**2)) / square
        kernel /= response[0][:, None, None] * response[1][:, None] * response[2][: nz // 2 + 1]
        kernel[0, 0, 0] = 0.0
        self._kernel = kernel
        self._cell = cell.copy()

    def _allocate(self, n_atoms: int) -> None:
        if n_atoms != self._n_atoms:
            self._points = np.empty((n_atoms, 3, ORDER), np.int64)
            self._weights, self._slopes = np.empty((2, n_atoms, 3, ORDER))
            self._n_atoms = n_atoms

    def compute(
        self,
        positions: np.ndarray,
        charges: np.ndarray,
        cell: np.ndarray,
        *,
        pool: ThreadPoolExecutor | None = None,
    ) -> Contributions:
        """Sum over reciprocal vectors, with what each charge does to itself and the background.

        Parameters
        ----------
        positions : ndarray of shape (N, 3)
            In Å; may lie outside the cell.
        charges : ndarray of shape (N,)
            In e.
        cell : ndarray of shape (3, 3)
            Lattice vectors as rows, in Å.
        pool : ThreadPoolExecutor or None, default=None
            Threads to share the gathering with. No result depends on how many they are.
        """
        positions = np.ascontiguousarray(positions, dtype=np.float64)
        charges = np.ascontiguousarray(charges, dtype=np.float64)
        cell = np.asarray(cell, dtype=np.float64)
        self._set_cell(cell)
        n_atoms, shape = len(charges), np.array(self.shape)
        self._allocate(n_atoms)

        scaled = positions @ self._inverse * shape
        _splines(scaled, shape, self._points, self._weights, self._slopes)
        mesh = np.zeros(self.shape)
        _spread(charges, self._points, self._weights, mesh)
        waves = fft.rfftn(mesh, workers=1, overwrite_x=True)
        totals = np.zeros(7)
        totals[6] = self.shape[2] % 2 == 0
        _convolve(waves, self._kernel, self._reciprocal, self.splitting, totals)
        mesh = fft.irfftn(waves, s=self.shape, workers=1, norm="forward", overwrite_x=True)

        potentials, fields = np.empty(n_atoms), np.empty((n_atoms, 3))
        splines = (self._points, self._weights, self._slopes, mesh, potentials, fields)
        run = map if pool is None else pool.map
        spans = [(a, min(a + _BLOCK, n_atoms)) for a in range(0, n_atoms, _BLOCK)]
        list(run(lambda span: _gather(*span, *splines), spans))
        forces = -charges[:, None] * (fields * shape @ self._inverse.T)

        g, total = self.splitting, charges.sum()
        background = math.pi * total / (g * g * self._volume)
        potentials -= 2 * g / math.sqrt(math.pi) * charges + background
        virial = totals[..., FROM_VOIGT]
        np.einsum("aa->a", virial)[:] -= 0.5 * total * background
        return Contributions(
            energies=0.5 * self.constant * charges * potentials,
            forces=self.constant * forces,
            virial=self.constant * virial,
            potentials=self.constant * potentials,
        )
