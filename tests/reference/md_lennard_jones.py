"""Lennard-Jones in an orthorhombic box, pair by pair, with corrections for the missing tail."""

from __future__ import annotations

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from numba import njit


@njit(cache=True)
def pair_sums(positions, edges, epsilon, sigma, cutoff, shifted):
    """Return energy, forces and virial over all pairs by the minimum image."""
    n = len(positions)
    forces = np.zeros((n, 3))
    virial = np.zeros((3, 3))
    d = np.zeros(3)
    energy = 0.0
    at_cutoff = (sigma / cutoff) ** 6
    # With `shifted`, a line is subtracted: energy and force vanish at the cutoff.
    slope = -24.0 * epsilon * (2.0 * at_cutoff**2 - at_cutoff) / cutoff if shifted else 0.0
    height = 4.0 * epsilon * (at_cutoff**2 - at_cutoff) if shifted else 0.0
    for i in range(n):
        for j in range(i + 1, n):
            square = 0.0
            for a in range(3):
                d[a] = positions[j, a] - positions[i, a]
                d[a] -= edges[a] * np.rint(d[a] / edges[a])
                square += d[a] ** 2
            if square < cutoff**2:
                r = np.sqrt(square)
                s = (sigma / r) ** 6
                energy += 4.0 * epsilon * (s**2 - s) - height - slope * (r - cutoff)
                pull = (-24.0 * epsilon * (2.0 * s**2 - s) / r - slope) / r
                for a in range(3):
                    forces[i, a] += pull * d[a]
                    forces[j, a] -= pull * d[a]
                    for b in range(3):
                        virial[a, b] -= pull * d[a] * d[b]
    return energy, forces, virial


class LennardJones(Calculator):
    """The fluid of the textbooks; `shifted` is smooth at the cutoff and has no tail."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, epsilon, sigma, cutoff, shifted=False):
        super().__init__()
        self.epsilon, self.sigma, self.cutoff, self.shifted = epsilon, sigma, cutoff, shifted

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        edges, volume, n = self.atoms.cell.diagonal(), self.atoms.get_volume(), len(self.atoms)
        assert edges.min() >= 2 * self.cutoff, "the minimum image needs a wide box"
        energy, forces, virial = pair_sums(
            self.atoms.positions, edges, self.epsilon, self.sigma, self.cutoff, self.shifted
        )
        pressure_tail = 0.0
        if not self.shifted:
            x = (self.sigma / self.cutoff) ** 3
            scale = np.pi * (n / volume) * self.sigma**3 * self.epsilon
            energy += n * scale * (8 / 9 * x**3 - 8 / 3 * x)
            pressure_tail = (n / volume) * scale * (32 / 9 * x**3 - 16 / 3 * x)
        stress = -(virial / volume + pressure_tail * np.eye(3))
        voigt = stress.ravel()[[0, 4, 8, 5, 2, 1]]
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces,
            "stress": voigt,
        }
