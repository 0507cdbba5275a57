"""Atoms and pairs in space, as every pair term of a force field is given them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scikd.exceptions import InvalidInputError

__all__ = ["Placed", "wholly_periodic"]


@dataclass(frozen=True)
class Placed:
    """N atoms of B structures, and P pairs of them.

    Parameters
    ----------
    numbers : Tensor of int64 of shape (N,)
        Atomic numbers.
    positions : Tensor of shape (N, 3)
        In Å.
    cell : Tensor of shape (B, 3, 3)
        Lattice vectors as rows, in Å; of no meaning where a structure is not periodic.
    pbc : Tensor of bool of shape (B, 3)
        Periodic directions.
    batch : Tensor of int64 of shape (N,)
        Structure of each atom, ascending.
    index : Tensor of int64 of shape (2, P)
        Both atoms of each pair, each unordered pair once: all pairs of structures that are not
        periodic, those within the cutoff (or more), with images, of those that are.
    vectors : Tensor of shape (P, 3)
        From the first to the second atom, in Å.
    """

    numbers: Tensor
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    batch: Tensor
    index: Tensor
    vectors: Tensor

    @cached_property
    def distances(self) -> Tensor:
        """Lengths of the pairs in Å, shape (P,): computed once for all terms."""
        return torch.linalg.vector_norm(self.vectors, dim=-1)

    def shared(self, pair_energies: Tensor) -> Tensor:
        """Give half of each pair's energy to each of its atoms, and return those, shape (N,)."""
        half = 0.5 * pair_energies
        energies = half.new_zeros(len(self.numbers))
        return energies.index_add(0, self.index[0], half).index_add(0, self.index[1], half)


def wholly_periodic(pbc: Tensor) -> Tensor:
    """Return which structures are periodic, shape (B,), or raise if one is so in part."""
    periodic = pbc.all(-1)
    partly = pbc.any(-1) & ~periodic
    if bool(partly.any()):
        where = torch.nonzero(partly).flatten().tolist()
        message = (
            "Electrostatics needs structures that are periodic in three directions or in none; "
            f"got pbc={pbc[where[0]].tolist()} in structure {where[0]}. Use a box that is "
            "large in the direction without periodicity, and pbc=True."
        )
        raise InvalidInputError(message)
    return periodic
