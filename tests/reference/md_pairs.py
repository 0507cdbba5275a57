"""Naive twins of the pair terms of `scikd.md`: loops over atoms, images and waves."""

from __future__ import annotations

import itertools
import math

import numpy as np

KCAL = 0.04336410390059322  # eV: 4184 J over Avogadro's number, in eV

# kcal/mol Å^6 and Å, from the table of the method.
C6 = {
    1: 69.2,
    3: 6246.0,
    6: 440.7,
    7: 282.2,
    8: 176.2,
    9: 115.0,
    11: 9662.0,
    15: 2405.0,
    16: 1795.0,
}
RADII = {1: 2.18, 3: 3.50, 6: 2.91, 7: 2.62, 8: 2.48, 9: 2.30, 11: 3.71, 15: 3.50, 16: 3.31}


def half_list(positions, cell, pbc, cutoff):
    """Every pair within the cutoff once, images included: i, j and the lattice shift of j."""
    positions, cell = np.asarray(positions, float), np.asarray(cell, float)
    reach = [0, 0, 0]
    if all(pbc):
        heights = abs(np.linalg.det(cell)) / np.array(
            [np.linalg.norm(np.cross(cell[(a + 1) % 3], cell[(a + 2) % 3])) for a in range(3)]
        )
        spread = np.ptp(positions @ np.linalg.inv(cell), axis=0)
        reach = [math.ceil(cutoff / h + s) for h, s in zip(heights, spread, strict=True)]
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        for i in range(len(positions)):
            for j in range(i, len(positions)):
                if i == j and shift <= (0, 0, 0):  # each image of itself once, and not itself
                    continue
                vector = positions[j] + np.array(shift) @ cell - positions[i]
                if vector @ vector < cutoff**2:
                    found.append((i, j, *shift))
    table = np.array(found, dtype=np.int64).reshape(-1, 5)
    return table[:, 0], table[:, 1], table[:, 2:]


def damped(r, r0=2.2, beta=18.7):
    """1/r beyond r0, constant below; with the constant 1."""
    x = (r - r0) / r0
    return 1.0 / (r0 * (1.0 + math.log1p(math.exp(-abs(beta * x))) / beta + max(x, 0.0)))


def coulomb_energy(positions, charges, cell, r0, beta, splitting=0.5, cutoff=14.0, waves=6.0):
    """Damped Coulomb energy of a periodic structure with the constant 1, summed to convergence."""
    positions, cell = np.asarray(positions, float), np.asarray(cell, float)
    volume, g = abs(np.linalg.det(cell)), splitting
    energy = 0.0
    i, j, shifts = half_list(positions, cell, (True,) * 3, cutoff)
    for a, b, shift in zip(i, j, shifts, strict=True):
        r = np.linalg.norm(positions[b] + shift @ cell - positions[a])
        short = damped(r, r0, beta) - math.erf(g * r) / r
        energy += charges[a] * charges[b] * short
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    reach = [math.ceil(waves * np.linalg.norm(row) / (2 * math.pi)) for row in cell]
    for n in itertools.product(*(range(-m, m + 1) for m in reach)):
        k = np.array(n) @ reciprocal
        if n == (0, 0, 0) or k @ k > waves**2:
            continue
        structure = sum(q * np.exp(1j * (k @ x)) for q, x in zip(charges, positions, strict=True))
        energy += (
            2 * math.pi / volume * math.exp(-k @ k / (4 * g * g)) / (k @ k) * abs(structure) ** 2
        )
    energy -= g / math.sqrt(math.pi) * sum(q * q for q in charges)
    return energy - math.pi * sum(charges) ** 2 / (2 * g * g * volume)


def dispersion(r, first, second, cutoff=10.0):
    """The published pair energy in eV, shifted and cut."""
    if r >= cutoff:
        return 0.0
    c6 = math.sqrt(C6[first] * C6[second])
    radius = 0.5 * (RADII[first] + RADII[second])
    value = -c6 / (r**6 + 4.5**6) * (0.85 + 0.82 / (1.0 + math.exp(min(r - 2.5 * radius, 99.0))))
    return KCAL * (value + c6 / cutoff**6)


def zbl(r, first, second):
    """Ziegler, Biersack and Littmark's universal repulsion in eV, without a cutoff."""
    x = r * (first**0.23 + second**0.23) / (0.8854 * 0.529177210903)
    screening = (
        0.18175 * math.exp(-3.19980 * x)
        + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.40290 * x)
        + 0.02817 * math.exp(-0.20162 * x)
    )
    return 14.399645478 * first * second / r * screening


def spline(order, u):
    """The cardinal B-spline, by its recursion, with support from 0 to `order`."""
    if order == 1:
        return 1.0 if 0.0 <= u < 1.0 else 0.0
    return (u * spline(order - 1, u) + (order - u) * spline(order - 1, u - 1)) / (order - 1)
