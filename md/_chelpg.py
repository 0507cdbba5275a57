"""Charges that reproduce the electrostatic potential around a molecule (ChElPG).

C. M. Breneman and K. B. Wiberg, J. Comput. Chem. 11, 361 (1990), on a cubic grid of 0.3 Å that
reaches 2.8 Å beyond the atoms and leaves out the inside of their van-der-Waals spheres (Bondi's
radii, with 1.1 Å for hydrogen, instead of the paper's).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scikd._extras import require

from .units import BOHR

__all__ = ["SPACING", "fit_charges", "grid_around", "potential_of"]

SPACING = 0.3  # Å
_MARGIN = 2.8  # Å
_BLOCK = 4000  # grid points at a time, so that the integrals fit into memory


def grid_around(
    positions: np.ndarray, radii: np.ndarray, *, spacing: float = SPACING, margin: float = _MARGIN
) -> np.ndarray:
    """Return the points (n_points, 3) in Å outside all spheres and near at least one atom.

    "Near" means within ``margin`` of a nucleus beyond nothing: every point lies between the radius
    of its nearest sphere and ``margin`` from the nearest nucleus.
    """
    low, high = positions.min(axis=0) - margin, positions.max(axis=0) + margin
    counts = np.floor((high - low) / spacing).astype(int) + 1
    start = (low + high - (counts - 1) * spacing) / 2  # centred, so that a symmetric molecule
    axes = [start[k] + spacing * np.arange(counts[k]) for k in range(3)]  # has a symmetric grid
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    outside = np.ones(len(points), dtype=bool)
    near = np.zeros(len(points), dtype=bool)
    for centre, radius in zip(positions, radii, strict=True):
        squares = ((points - centre) ** 2).sum(axis=1)
        outside &= squares > radius**2
        near |= squares < margin**2
    kept: np.ndarray = points[outside & near]
    return kept


def fit_charges(
    positions: np.ndarray, points: np.ndarray, potential: np.ndarray, total: float
) -> np.ndarray:
    """Return the charges (N,) in e, summing to ``total``, whose potential fits best.

    Parameters
    ----------
    positions, points : ndarray of shape (N, 3), (n_points, 3)
        Nuclei and grid in Å.
    potential : ndarray of shape (n_points,)
        Electrostatic potential in Hartree/e.
    total : float
        Total charge in e.
    """
    inverse = BOHR / np.linalg.norm(points[:, None] - positions[None], axis=2)
    n_atoms = len(positions)
    system = np.ones((n_atoms + 1, n_atoms + 1))
    system[:-1, :-1] = inverse.T @ inverse
    system[-1, -1] = 0.0
    # A buried atom is hardly determined: the minimum-norm solution keeps its charge small.
    solved = np.linalg.lstsq(system, np.append(inverse.T @ potential, total), rcond=1e-12)[0]
    charges: np.ndarray = solved[:-1]
    return charges


def potential_of(molecule: Any, density: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the potential (n_points,) in Hartree/e of nuclei and electrons of a PySCF molecule."""
    gto = require("pyscf.gto", extra="dft", feature="DFT labels")
    df = require("pyscf.df", extra="dft", feature="DFT labels")
    nuclei, charges = molecule.atom_coords(), molecule.atom_charges()
    potential = np.empty(len(points))
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK] / BOHR
        distances = np.linalg.norm(block[:, None] - nuclei[None], axis=2)
        electrons = df.incore.aux_e2(
            molecule, gto.fakemol_for_charges(block), "int3c2e", aosym="s2ij"
        )
        # In packed form an off-diagonal element stands for two.
        packed = 2.0 * density[np.tril_indices(len(density))]
        diagonal = np.arange(len(density))
        packed[diagonal * (diagonal + 3) // 2] /= 2.0
        potential[start : start + _BLOCK] = (charges / distances).sum(axis=1) - packed @ electrons
    return potential
