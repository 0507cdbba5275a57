"""The pairs that LAMMPS hands to a model of ML-IAP, and what is handed back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._lammps_link import Link

__all__ = ["LammpsPairs"]


@dataclass(frozen=True)
class LammpsPairs:
    """A half list of the pairs of one process, in double precision.

    Its atoms are the own ones, and, on several processes, the ghosts. On one process a ghost is
    the atom that it is an image of.

    Attributes
    ----------
    n_own : int
        Own atoms, which come first.
    tags : ndarray of shape (n_own + n_ghosts,)
        Numbers of own atoms and ghosts over all processes, from 1 on.
    numbers : Tensor of shape (n_atoms,)
        Atomic numbers.
    kept : ndarray of shape (n_pairs,)
        Places of the pairs in LAMMPS' list.
    index : Tensor of shape (2, n_pairs)
        Both atoms.
    vectors : Tensor of shape (n_pairs, 3)
        From the first to the second, in Å; what energies are differentiated by.
    near, far : Tensor of bool of shape (n_pairs,)
        Pairs that the network sees; those of which this process has an own atom.
    """

    n_own: int
    tags: np.ndarray
    numbers: Tensor
    kept: np.ndarray
    index: Tensor
    vectors: Tensor
    near: Tensor
    far: Tensor

    @classmethod
    def of(cls, data: Any, link: Link, numbers: Tensor, near_cutoff: float) -> LammpsPairs:
        """Read LAMMPS' list.

        Parameters
        ----------
        data : MLIAPDataPy
            Of LAMMPS.
        link : Link
            To the LAMMPS that it comes from.
        numbers : Tensor
            Atomic numbers of the types.
        near_cutoff : float
            Of the network, in Å.
        """
        n_own, n_atoms = int(data.nlistatoms), int(data.ntotal)
        tags = link.tags(n_atoms)
        i, j = (np.asarray(values, dtype=np.int64) for values in (data.pair_i, data.pair_j))
        rij = np.asarray(data.rij, dtype=np.float64)
        if link.ranks == 1:
            owner = np.empty(n_own + 1, dtype=np.int64)
            owner[tags[:n_own]] = np.arange(n_own)
            j, n_atoms = owner[tags[j]], n_own
        # Of both directions of a pair one is enough: between an atom and its own image the one
        # that points up.
        x, y, z = rij.T
        up = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
        kept = np.flatnonzero((i < j) | ((i == j) & up))
        vectors = torch.tensor(rij[kept], device=numbers.device, requires_grad=True)
        index = torch.as_tensor(np.stack([i[kept], j[kept]]), device=numbers.device)
        types = torch.as_tensor(np.asarray(data.elems[:n_atoms]), device=numbers.device).long()
        lengths = torch.linalg.vector_norm(vectors.detach(), dim=-1)
        return cls(
            n_own=n_own,
            tags=tags,
            numbers=numbers[types],
            kept=kept,
            index=index,
            vectors=vectors,
            near=lengths < near_cutoff,
            far=index[0] < n_own,
        )

    def shared(self, energies: Tensor) -> Tensor:
        """Give half of each far pair's energy to each of its atoms, and return the own ones'."""
        return self._sums(0.5 * energies, 0.5 * energies)

    def potentials(self, kernel: Tensor, charges: Tensor) -> Tensor:
        """Return the potential at own atoms, in V, of the charges of the other of each far pair."""
        i, j = self.index[:, self.far]
        return self._sums(kernel * charges[j], kernel * charges[i])

    def _sums(self, to_first: Tensor, to_second: Tensor) -> Tensor:
        i, j = self.index[:, self.far]
        sums = to_first.new_zeros(len(self.numbers))
        return sums.index_add(0, i, to_first).index_add(0, j, to_second)[: self.n_own]

    def hand_over(self, data: Any, energies: np.ndarray, gradient: np.ndarray) -> None:
        """Give LAMMPS the energies of own atoms (eV) and the gradient by the vectors (eV/Å)."""
        i, j = self.index.cpu().numpy()
        own = i < self.n_own
        forces = np.zeros((int(data.npairs), 3))
        forces[self.kept[own]] = gradient[own]
        data.update_pair_forces(forces)
        # Some releases leave out pairs of ghosts there; LAMMPS brings these home, as all forces on
        # ghosts.
        np.add.at(data.f, i[~own], gradient[~own])
        np.subtract.at(data.f, j[~own], gradient[~own])
        data.eatoms = energies
        data.energy = float(energies.sum())
