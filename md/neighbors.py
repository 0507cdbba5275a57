"""Lists of pairs: of a batch for the torch models, and of one moving structure for dynamics.

All lists are half lists: each unordered pair of atoms once, each periodic image of it once. The
minimum image is not assumed: boxes may be smaller than the cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from scikd.exceptions import InvalidInputError

from ._half_list import FEW_ATOMS, HalfList, all_pairs, check_positions, complete_box, pairs_within
from ._ragged import starts_of
from .frames import AtomicBatch

__all__ = ["Neighbors", "Pairs", "VerletList", "collate_neighbors", "find_neighbors"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """A half list over a batch.

    Attributes
    ----------
    index : torch.Tensor of shape (2, n_pairs)
        The atoms i and j, int64.
    shifts : torch.Tensor of shape (n_pairs, 3)
        Lattice vectors from j to its image, whole numbers as floats.
    structure : torch.Tensor of shape (n_pairs,)
        The structure that each pair belongs to, int64, ascending.
    """

    index: torch.Tensor
    shifts: torch.Tensor
    structure: torch.Tensor

    def __len__(self) -> int:
        return len(self.shifts)

    def vectors(self, positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Return the vectors from i to the image of j, through which gradients flow.

        Parameters
        ----------
        positions : torch.Tensor of shape (n_atoms, 3)
            In Å.
        cell : torch.Tensor of shape (n_structures, 3, 3)
            In Å.

        Returns
        -------
        torch.Tensor of shape (n_pairs, 3)
            In Å: ``x_j + shifts @ cell - x_i``.
        """
        i, j = self.index
        between = positions.index_select(0, j) - positions.index_select(0, i)
        if len(cell) == 1:  # a product of matrices, with no copy of the cell for each pair
            return between + self.shifts.to(cell.dtype) @ cell[0]
        lattice = cell.index_select(0, self.structure)
        return between + torch.einsum("pa,pac->pc", self.shifts.to(cell.dtype), lattice)

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Pairs:
        """Return the pairs on another device, or with shifts of another type."""
        return Pairs(
            self.index.to(device=device),
            self.shifts.to(device=device, dtype=dtype),
            self.structure.to(device=device),
        )


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The two lists that a force field needs.

    Attributes
    ----------
    near : Pairs
        Up to the network's cutoff.
    far : Pairs
        For electrostatics and dispersion, near pairs included: up to the far cutoff where a
        structure is periodic; all pairs where it is not.
    """

    near: Pairs
    far: Pairs

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Neighbors:
        """Return both lists on another device, or with shifts of another type."""
        return Neighbors(
            self.near.to(device=device, dtype=dtype), self.far.to(device=device, dtype=dtype)
        )


def _as_pairs(lists: Sequence[HalfList], starts: np.ndarray, like: torch.Tensor) -> Pairs:
    """Join half lists of structures whose first atoms stand at `starts`."""
    sizes = np.array([len(part) for part in lists])
    offset = np.repeat(starts, sizes)
    index = np.stack([np.concatenate([p.i for p in lists]), np.concatenate([p.j for p in lists])])
    return Pairs(
        torch.from_numpy(index + offset).to(like.device),
        torch.from_numpy(np.concatenate([p.shifts for p in lists])).to(like),
        torch.from_numpy(np.repeat(np.arange(len(lists)), sizes)).to(like.device),
    )


def _check_cutoffs(**lengths: float) -> None:
    for name, length in lengths.items():
        if not 0 < length < np.inf:
            message = f"Expected {name} to be a positive number of Å; got {length!r}."
            raise InvalidInputError(message)


def _near_and_far(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, near: float, far: float
) -> tuple[HalfList, HalfList]:
    if pbc.any():
        close, distant = pairs_within(positions, cell, pbc, near, far)
        return close, distant
    positions = np.asarray(positions, dtype=np.float64)
    check_positions(positions)
    every = all_pairs(len(positions))
    if len(positions) <= FEW_ATOMS:
        return every.within(positions, near), every
    return pairs_within(positions, cell, pbc, near)[0], every


def find_neighbors(batch: AtomicBatch, near_cutoff: float, far_cutoff: float) -> Neighbors:
    """Find the pairs of every structure of a batch.

    Parameters
    ----------
    batch : AtomicBatch
        The structures; each direction may be periodic or not.
    near_cutoff : float
        Of the network, in Å.
    far_cutoff : float
        Of electrostatics and dispersion in periodic structures, in Å. Structures that are periodic
        in no direction get all pairs.

    Raises
    ------
    InvalidInputError
        If a cutoff is not a positive number, a position is not finite or beyond 0.1 mm, or a cell
        is far too small for its atoms.
    """
    _check_cutoffs(near_cutoff=near_cutoff, far_cutoff=far_cutoff)
    found = [
        _near_and_far(**one, near=near_cutoff, far=far_cutoff)
        for one in batch.structures("positions", "cell", "pbc")
    ]
    starts = batch.first_atoms.cpu().numpy()
    near, far = ([pair[part] for pair in found] for part in (0, 1))
    like = batch.cell.detach()
    return Neighbors(_as_pairs(near, starts, like), _as_pairs(far, starts, like))


def _join(parts: Sequence[Pairs], first_atoms: list[int]) -> Pairs:
    return Pairs(
        torch.cat([p.index + first for p, first in zip(parts, first_atoms, strict=True)], 1),
        torch.cat([p.shifts for p in parts]),
        torch.cat([p.structure + k for k, p in enumerate(parts)]),
    )


def collate_neighbors(
    parts: Sequence[Neighbors], counts: Sequence[int] | np.ndarray | torch.Tensor
) -> Neighbors:
    """Join the lists of single structures as `collate` joins those, without a new search.

    Parameters
    ----------
    parts : sequence of Neighbors
        Each found in a batch of one structure.
    counts : sequence of int
        How many atoms each structure has.
    """
    first_atoms = starts_of(torch.as_tensor(counts)).tolist()
    return Neighbors(
        _join([part.near for part in parts], first_atoms),
        _join([part.far for part in parts], first_atoms),
    )


class VerletList:
    r"""Half lists of one structure with a skin, made anew only when they could miss a pair.

    The lists hold every pair within the cutoff, and others that are up to a skin farther apart: who
    uses them leaves those out. A list stays good while atoms move and while the cell is deformed.

    Parameters
    ----------
    near_cutoff, far_cutoff : float
        As for `find_neighbors`, in Å.
    skin : float, default=1.0
        In Å. A larger one means longer lists, and fewer searches.

    Attributes
    ----------
    near, far : HalfList
        The lists; their ``offsets`` belong to the last cell that was given.
    rebuilds : int
        How many times the lists were made.

    Notes
    -----
    Let F be the deformation that takes the lattice of the last search to the present one, and
    :math:`u_i = x_i - x_i^0 F` what atom i has moved beside it. A pair of vector D now had the
    vector :math:`D_0 = (D - u_j + u_i) F^{-1}` then. So a pair within the cutoff r now is on the
    list if :math:`(r + |u_i| + |u_j|) \lVert F^{-1} \rVert_2 \le r + s`, s being the skin. That is
    what is asked of the two atoms that moved most, for both cutoffs. A drift of all atoms together
    changes no pair, and is taken off the u first.
    """

    def __init__(self, near_cutoff: float, far_cutoff: float, skin: float = 1.0) -> None:
        _check_cutoffs(near_cutoff=near_cutoff, far_cutoff=far_cutoff, skin=skin)
        self.near_cutoff, self.far_cutoff, self.skin = near_cutoff, far_cutoff, skin
        self.rebuilds = 0
        self.near = self.far = all_pairs(0)
        self._built: tuple[np.ndarray, ...] | None = None
        self._box = np.eye(3)

    @property
    def reference(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Positions and cell in Å that the lists were made of; None before there are any."""
        return None if self._built is None else (self._built[0].copy(), self._built[2].copy())

    def update(
        self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> tuple[HalfList, HalfList]:
        """Return the near and the far list for where the atoms are now.

        Parameters
        ----------
        positions : numpy.ndarray of shape (n_atoms, 3)
            In Å.
        numbers : numpy.ndarray of shape (n_atoms,)
            Atomic numbers; where they change, the structure is another one.
        cell : numpy.ndarray of shape (3, 3)
            In Å.
        pbc : numpy.ndarray of shape (3,)
            Which directions are periodic.

        Returns
        -------
        near, far : HalfList
            With pairs beyond the cutoff among them. Without periodic directions, `far` holds all
            pairs.

        Raises
        ------
        InvalidInputError
            If a position is not finite or beyond 0.1 mm, or the cell is far too small for its
            atoms.
        """
        positions = np.asarray(positions, dtype=np.float64)
        check_positions(positions)
        pbc = np.asarray(pbc, dtype=bool)
        box = complete_box(cell, pbc)
        if not self._still_good(positions, numbers, box, pbc):
            self._build(positions, numbers, box, pbc)
        elif not np.array_equal(box, self._box):
            self._box = box
            self.near = replace(self.near, offsets=self.near.shifts @ box)
            self.far = replace(self.far, offsets=self.far.shifts @ box)
        return self.near, self.far

    def _build(
        self, positions: np.ndarray, numbers: np.ndarray, box: np.ndarray, pbc: np.ndarray
    ) -> None:
        near, far = self.near_cutoff + self.skin, self.far_cutoff + self.skin
        self.near, self.far = _near_and_far(positions, box, pbc, near, far)
        self._built = (positions.copy(), np.array(numbers), box, pbc.copy())
        self._box = box
        self.rebuilds += 1

    def _still_good(
        self, positions: np.ndarray, numbers: np.ndarray, box: np.ndarray, pbc: np.ndarray
    ) -> bool:
        if self._built is None:
            return False
        old_positions, old_numbers, old_box, old_pbc = self._built
        if not np.array_equal(numbers, old_numbers) or not np.array_equal(pbc, old_pbc):
            return False
        same_box = np.array_equal(box, old_box)
        deformation = np.eye(3) if same_box else np.linalg.solve(old_box, box)
        moved = positions - (old_positions if same_box else old_positions @ deformation)
        moved -= moved.mean(axis=0)
        lengths = np.sqrt(np.einsum("ac,ac->a", moved, moved))
        furthest = np.partition(lengths, -2)[-2:].sum() if len(lengths) > 1 else 0.0
        shrinking = 1.0 if same_box else 1.0 / np.linalg.svd(deformation, compute_uv=False)[-1]
        largest = self.near_cutoff if not pbc.any() else max(self.near_cutoff, self.far_cutoff)
        # With shrinking >= 1 the largest cutoff asks most; below 1 the smaller one does.
        return all(
            (cutoff + furthest) * shrinking <= cutoff + self.skin
            for cutoff in {self.near_cutoff, largest}
        )
