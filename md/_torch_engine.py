"""Any force field, by torch, for one moving structure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ._half_list import HalfList
from .frames import AtomicBatch
from .model import ForceField
from .neighbors import Neighbors, Pairs, VerletList

__all__ = ["TorchEngine"]


class TorchEngine:
    """A force field with neighbour lists that last for many steps.

    Parameters
    ----------
    model : ForceField
        The force field, where and in the precision that it shall compute.
    skin : float
        Of the neighbour lists in Å.
    threads : int or None
        Threads of torch; None leaves them as they are.

    Attributes
    ----------
    verlet : VerletList
        The lists.
    """

    def __init__(self, model: ForceField, skin: float, threads: int | None) -> None:
        self.model, self.threads = model, threads
        near = model.near_cutoff
        self.verlet = VerletList(near, model.far_cutoff or near, skin)

    def compute(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        total_charge: float = 0.0,
    ) -> dict[str, np.ndarray]:
        """Return what `ForceField.forward` does, as arrays."""
        near, far = self.verlet.update(positions, numbers, cell, pbc)
        near = near.within(positions, self.verlet.near_cutoff)
        if pbc.any():
            far = far.within(positions, self.verlet.far_cutoff)
        dtype, n_atoms = self.model.dtype, len(numbers)
        batch = AtomicBatch(
            positions=torch.as_tensor(positions, dtype=dtype),
            numbers=torch.as_tensor(numbers, dtype=torch.int64),
            batch=torch.zeros(n_atoms, dtype=torch.int64),
            cell=torch.as_tensor(cell, dtype=dtype)[None],
            pbc=torch.as_tensor(pbc)[None],
            molecules=torch.full((n_atoms,), -1),
            total_charge=torch.tensor([total_charge], dtype=dtype),
        ).to(device=self.model.device)
        lists = Neighbors(self._pairs(near), self._pairs(far))
        with _threads(self.threads):
            found = self.model(batch, lists, stress=bool(pbc.all()))
        return {name: values.cpu().numpy() for name, values in found.items()}

    def _pairs(self, pairs: HalfList) -> Pairs:
        return Pairs(
            torch.from_numpy(np.stack([pairs.i, pairs.j]).astype(np.int64)),
            torch.from_numpy(pairs.shifts),
            torch.zeros(len(pairs), dtype=torch.int64),
        ).to(device=self.model.device, dtype=self.model.dtype)


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while; the setting belongs to the whole process."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
