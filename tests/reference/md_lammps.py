"""Stand-ins for LAMMPS, and for what it hands to a model of ML-IAP."""

from __future__ import annotations

import numpy as np


class PairData:
    """LAMMPS' own atoms, ghosts and pairs within a cutoff, and what a model writes.

    As in LAMMPS, a force on a pair acts on both atoms, ghosts among them, but is left out if the
    first atom is a ghost; energies can be written and not read.
    """

    def __init__(self, n_own, elems, x, pair_i, pair_j):
        self.nlistatoms, self.ntotal = n_own, len(x)
        self.elems = np.asarray(elems, dtype=np.int32)
        self.pair_i = np.asarray(pair_i, dtype=np.int32)
        self.pair_j = np.asarray(pair_j, dtype=np.int32)
        self.rij = x[self.pair_j] - x[self.pair_i]
        self.npairs = len(self.rij)
        self.x, self.f = x, np.zeros((self.ntotal, 3))
        self.written = {}

    def _write_energies(self, values):
        assert values.shape == (self.nlistatoms,)
        assert values.dtype == np.float64
        self.written["eatoms"] = values.copy()

    def _write_energy(self, value):
        self.written["energy"] = float(value)

    eatoms, energy = property(fset=_write_energies), property(fset=_write_energy)

    def update_pair_forces(self, forces):
        assert forces.shape == (self.npairs, 3)
        assert forces.dtype == np.float64
        assert forces.flags.c_contiguous
        own = self.pair_i < self.nlistatoms
        np.add.at(self.f, self.pair_i[own], forces[own])
        np.subtract.at(self.f, self.pair_j[own], forces[own])

    @property
    def virial(self):
        """What LAMMPS sums up of the forces on own atoms and ghosts, (3, 3) in eV."""
        return self.x.T @ self.f

    def forces_at_home(self, tags, n_atoms):
        """Give forces on ghosts to the atoms that they are images of, by number."""
        forces = np.zeros((n_atoms, 3))
        np.add.at(forces, tags - 1, self.f)
        return forces


def pairs_within(x, n_first, cutoff):
    """Return all pairs, in both directions, of the first atoms with any, by brute force."""
    apart = np.linalg.norm(x[None, :] - x[:n_first, None], axis=-1)
    apart[np.arange(n_first), np.arange(n_first)] = np.inf
    return np.nonzero(apart < cutoff)
