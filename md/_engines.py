"""What computes a force field for one moving structure: torch, or compiled kernels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import torch

from scikd._devices import find_device
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs

from ._half_list import HalfList
from ._process import torch_threads
from .frames import AtomicBatch
from .get import GET
from .model import ForceField
from .neighbors import Neighbors, Pairs, VerletList
from .storage import describe

__all__ = [
    "DTYPES",
    "Engine",
    "TorchEngine",
    "choose_engine",
    "fingerprint_of",
    "frozen_copy",
    "make_engine",
]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Engine(Protocol):
    """One structure after another, with neighbour lists that outlive a step."""

    verlet: VerletList

    def compute(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        total_charge: float = 0.0,
    ) -> Mapping[str, Any]:
        """Return what `ForceField.forward` does, for one structure, as arrays."""


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
        if threads is not None and threads < 1:
            message = f"Expected threads to be at least 1, or None for all; got {threads!r}."
            raise InvalidInputError(message)
        self.model, self.threads = model, threads
        self.verlet = VerletList(model.near_cutoff, model.far_cutoff, skin)

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
            positions=torch.as_tensor(positions, dtype=torch.float64),  # `forward` says why
            numbers=torch.as_tensor(numbers, dtype=torch.int64),
            batch=torch.zeros(n_atoms, dtype=torch.int64),
            cell=torch.as_tensor(cell, dtype=torch.float64)[None],
            pbc=torch.as_tensor(pbc)[None],
            molecules=torch.full((n_atoms,), -1),
            total_charge=torch.tensor([total_charge], dtype=dtype),
        ).to(device=self.model.device)
        lists = Neighbors(self._pairs(near), self._pairs(far))
        with torch_threads(self.threads):
            found = self.model(batch, lists, stress=bool(pbc.all()))
        return {name: values.cpu().numpy() for name, values in found.items()}

    def _pairs(self, pairs: HalfList) -> Pairs:
        return Pairs(
            torch.from_numpy(np.stack([pairs.i, pairs.j]).astype(np.int64)),
            torch.from_numpy(pairs.shifts),
            torch.zeros(len(pairs), dtype=torch.int64),
        ).to(device=self.model.device)


def make_engine(
    engine: Literal["torch", "numba"], model: ForceField, skin: float, threads: int | None
) -> Engine:
    """Return an engine for a force field, in the precision that the model has."""
    if engine == "torch":
        return TorchEngine(model, skin, threads)
    from .engine import NumbaEngine  # noqa: PLC0415 - compiled only where it is used

    precision = str(model.dtype).removeprefix("torch.")
    compiled: Engine = NumbaEngine(model, dtype=precision, skin=skin, threads=threads)
    return compiled


def choose_engine(
    engine: str, device: str, model: ForceField
) -> tuple[Literal["torch", "numba"], str]:
    """Return the engine and the device, or raise an error if they do not go together."""
    if engine not in ("auto", "torch", "numba"):
        message = f"Expected engine 'auto', 'torch' or 'numba'; got {engine!r}."
        raise InvalidInputError(message)
    if device == "auto":
        device = "cuda" if engine != "numba" and torch.cuda.is_available() else "cpu"
    on_cpu = find_device(device).type == "cpu"
    compiled = isinstance(model.architecture, GET) and on_cpu
    if engine == "numba" and not compiled:
        message = (
            "The engine 'numba' computes GET networks on the CPU; got "
            f"{type(model.architecture).__name__} on {device!r}. Use engine='torch'."
        )
        raise InvalidInputError(message)
    chosen: Literal["torch", "numba"] = "numba" if compiled and engine != "torch" else "torch"
    return chosen, device


def frozen_copy(model: ForceField, device: str, dtype: torch.dtype) -> ForceField:
    """Return a copy that is only good for predictions, elsewhere and in another precision."""
    frozen = copy.deepcopy(model).to(device=device, dtype=dtype).eval()
    # Otherwise every step would record what training needs.
    return frozen.requires_grad_(requires_grad=False)


def fingerprint_of(model: ForceField) -> str:
    """Return a digest of settings and weights: 64 hexadecimal digits."""
    weights = {name: values.cpu() for name, values in model.state_dict().items()}
    settings = {**describe(model), "metadata": None}
    return fingerprint_inputs([settings, weights, model.references])
