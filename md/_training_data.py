"""Structures for training: read once, their pairs found once, cut into batches at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError

from ._ragged import take_rows
from .frames import AtomicBatch, collate, from_ase, select
from .neighbors import Neighbors, Pairs

__all__ = ["FrameSet", "as_batch", "groups_of", "plan_batches", "split"]

AT_ONCE = 64  # structures in one search for pairs, and between two steps of its progress bar
SHUFFLE, SPLIT, MIX = 1, 2, 3  # streams of random numbers of one seed


class FrameSet:
    """Structures with their pair lists, on the device and in the precision of the training.

    Parameters
    ----------
    batch : AtomicBatch
        The structures.
    find : callable
        Finds the pairs of a batch, as `ForceField.neighbors` does.
    device : torch.device
        Where the batches are wanted.
    dtype : torch.dtype
        Of everything but the energies, which stay in double precision: they are large, and what is
        learnt is small differences.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.
    """

    def __init__(
        self,
        batch: AtomicBatch,
        find: Callable[[AtomicBatch], Neighbors],
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress = "auto",
    ) -> None:
        energy = None if batch.energy is None else batch.energy.double().to(device)
        self.batch = replace(batch.to(device=device, dtype=dtype), energy=energy)
        self.counts = batch.counts.cpu().numpy()
        chunks = [
            np.arange(start, min(start + AT_ONCE, batch.n_structures))
            for start in range(0, batch.n_structures, AT_ONCE)
        ]
        parts = [
            find(select(batch, chunk))
            for chunk in track(
                chunks, total=len(chunks), description="pairs of atoms", progress=progress
            )
        ]
        self._near, self._far = (
            _PairStore([getattr(part, which) for part in parts], chunks, batch, device, dtype)
            for which in ("near", "far")
        )

    def __len__(self) -> int:
        return self.batch.n_structures

    @property
    def nbytes(self) -> int:
        """Memory that structures and pairs take."""
        tensors = [*self.batch.tensors().values(), *self._near.tensors, *self._far.tensors]
        return sum(tensor.nbytes for tensor in tensors)

    def take(self, indices: np.ndarray) -> tuple[AtomicBatch, Neighbors]:
        """Return a batch of these structures, in this order, and its pairs."""
        chosen = torch.as_tensor(indices, device=self.batch.positions.device)
        batch = select(self.batch, chosen)
        first = batch.first_atoms
        return batch, Neighbors(self._near.take(chosen, first), self._far.take(chosen, first))


class _PairStore:
    """Pairs of all structures end to end, with atoms counted from the first of their structure."""

    def __init__(
        self,
        parts: Sequence[Pairs],
        chunks: Sequence[np.ndarray],
        batch: AtomicBatch,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        first = batch.first_atoms
        index, sizes = [], []
        for part, chunk in zip(parts, chunks, strict=True):
            begin = first[chunk] - first[chunk[0]]
            index.append((part.index - begin[part.structure]).to(torch.int32))
            sizes.append(torch.bincount(part.structure, minlength=len(chunk)))
        self.sizes = torch.cat(sizes).to(device)
        self.index = torch.cat(index, dim=1).to(device)
        shifts = torch.cat([part.shifts for part in parts])
        # In free space all shifts are zero, and none is kept.
        self.shifts = shifts.to(device=device, dtype=dtype) if bool(shifts.any()) else None
        self.dtype = dtype

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.index, *([] if self.shifts is None else [self.shifts])]

    def take(self, chosen: torch.Tensor, first_atoms: torch.Tensor) -> Pairs:
        rows, structure = take_rows(self.sizes, chosen)
        index = self.index[:, rows] + first_atoms[structure]
        if self.shifts is None:
            shifts = torch.zeros(len(rows), 3, dtype=self.dtype, device=chosen.device)
        else:
            shifts = self.shifts[rows]
        return Pairs(index, shifts, structure)


def as_batch(source: Any, *, total_charge: float = 0.0) -> AtomicBatch:
    """Return structures as one batch: a batch itself, ASE's structures, or paths of files.

    Parameters
    ----------
    source : AtomicBatch, ase.Atoms, str, pathlib.Path, or a sequence of those
        Where the structures are.
    total_charge : float, default=0.0
        Of structures in DeePMD folders; see `scikd.md.readers.read_frames`.
    """
    if isinstance(source, AtomicBatch):
        return source
    if isinstance(source, (str, Path)):
        from .readers import read_frames  # noqa: PLC0415 - HDF5 and ASE's readers, for files only

        return read_frames(source, total_charge=total_charge)
    items = [source] if hasattr(source, "get_positions") else list(source)
    if not items:
        message = "Expected structures: an AtomicBatch, ase.Atoms, or paths of files; got none."
        raise InvalidInputError(message)
    if all(hasattr(item, "get_positions") for item in items):
        return from_ase(items)
    return collate([as_batch(item, total_charge=total_charge) for item in items])


def groups_of(batch: AtomicBatch) -> np.ndarray:
    """Return the group of each structure; one whose group is not known is a group of its own."""
    own = np.arange(batch.n_structures) - batch.n_structures
    if batch.group is None:
        return own
    group = batch.group.cpu().numpy()
    return np.where(group < 0, own, group)


def split(groups: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a random part of the groups, at least one and not all.

    Parameters
    ----------
    groups : ndarray of shape (n_structures,)
        The group of each structure; at least two different ones.
    fraction : float
        Of the structures that are to be held out. Groups are taken in random order as long as they
        fit in; if none does, the smallest one is.
    seed : int
        Of that order.

    Returns
    -------
    rest, held_out : ndarray of shape (n,)
        Numbers of structures, ascending.
    """
    _, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    room = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
    order = np.random.default_rng([seed, SPLIT]).permutation(len(sizes))
    chosen = []
    for group in order:
        if sizes[group] <= room:
            chosen.append(group)
            room -= sizes[group]
    held_out = np.isin(which, chosen or order[[sizes[order].argmin()]])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def plan_batches(
    counts: np.ndarray,
    batch_size: int,
    *,
    max_atoms: int | None = None,
    shuffle: tuple[int, int] | None = None,
    processes: int = 1,
    sort: bool = True,
    groups: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Divide structures into batches.

    Parameters
    ----------
    counts : ndarray of shape (n_structures,)
        Atoms in each.
    batch_size : int
        Most structures in a batch.
    max_atoms : int or None, default=None
        Most atoms in a batch, though it holds one structure at least.
    shuffle : tuple of int or None, default=None
        Seed and epoch, which fix the order; None keeps it.
    processes : int, default=1
        How many share a batch: the last one is not smaller than that.
    sort : bool, default=True
        Whether the largest structures come first in each batch, so that processes that deal them
        out have about as much to do.
    groups : ndarray of shape (n_structures,) or None, default=None
        Batches that shall hold structures of one group only; None does not ask.

    Returns
    -------
    list of ndarray
        Numbers of the structures of each batch.
    """
    order = np.arange(len(counts))
    if shuffle is not None:
        order = np.random.default_rng([shuffle[0], SHUFFLE, shuffle[1]]).permutation(len(counts))
    if groups is None:
        batches = list(_cut(order, counts, batch_size, max_atoms))
    else:
        alike = [order[groups[order] == group] for group in np.unique(groups)]
        batches = [b for part in alike for b in _cut(part, counts, batch_size, max_atoms)]
        if shuffle is not None:
            mixed = np.random.default_rng([shuffle[0], MIX, shuffle[1]]).permutation(len(batches))
            batches = [batches[number] for number in mixed]
    if groups is None and len(batches) > 1 and len(batches[-1]) < processes:
        rest = batches.pop()
        batches[-1] = np.concatenate([batches[-1], rest])
    if not sort:
        return batches
    return [batch[np.argsort(-counts[batch], kind="stable")] for batch in batches]


def _cut(
    order: np.ndarray, counts: np.ndarray, batch_size: int, max_atoms: int | None
) -> Iterator[np.ndarray]:
    most = np.inf if max_atoms is None else max_atoms
    start, atoms = 0, 0
    for place, number in enumerate(order):
        if place > start and (place - start == batch_size or atoms + counts[number] > most):
            yield order[start:place]
            start, atoms = place, 0
        atoms += counts[number]
    yield order[start:]
