"""Force fields as models of torch-sim, which runs many systems at once on one device.

torch-sim is a package of its own, and is imported when a model is made.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._engines import choose_engine, frozen_copy
from .frames import AtomicBatch
from .model import ForceField
from .storage import load_force_field

__all__ = ["TorchSimModel"]

_FULL = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # a matrix, flattened, from the order of Voigt


class TorchSimModel(nn.Module):
    """A force field as torch-sim's ``ModelInterface``.

    Systems of one state are computed as one batch, with neighbour lists that are made anew in every
    call, on the CPU: for many small systems, not for one that is large.

    Parameters
    ----------
    model : ForceField, str or pathlib.Path, default="default"
        The force field (a copy is taken), the folder of one, or "default". The network keeps its
        precision.
    device : str, default="auto"
        "cpu", "cuda", ...; "auto" is a GPU if there is one.
    dtype : torch.dtype, default=torch.float64
        Precision of the states that torch-sim makes for the model. Total energies are large: in
        single precision they have an error of about 1e-7 of their size.
    compute_forces, compute_stress : bool, default=True
        Whether results hold them.
    total_charge : float, default=0.0
        Of every system, in e.

    Attributes
    ----------
    force_field : ForceField
        The model.
    memory_scales_with : str
        How torch-sim shall guess what fits into memory.

    Raises
    ------
    MissingExtraError
        If torch-sim is not installed.
    InvalidInputError
        If the device is not there, or the total charge is not finite. On use, if a system holds an
        element that the model does not know, or is periodic in some directions only and the model
        has electrostatics.

    Notes
    -----
    Nothing looks for extrapolation here: see `scikd.md.guard.Guard`, of which calculators ask.

    Examples
    --------
    >>> import torch_sim as ts  # doctest: +SKIP
    >>> from scikd.md.torchsim import TorchSimModel
    >>> model = TorchSimModel("default", device="cuda")  # doctest: +SKIP
    >>> ts.integrate(
    ...     system=list_of_atoms,
    ...     model=model,
    ...     integrator=ts.nvt_langevin,
    ...     n_steps=1000,
    ...     temperature=300,
    ...     timestep=0.001,
    ... )  # doctest: +SKIP
    """

    memory_scales_with = "n_atoms_x_density"

    def __init__(
        self,
        model: ForceField | str | Path = "default",
        *,
        device: str = "auto",
        dtype: torch.dtype = torch.float64,
        compute_forces: bool = True,
        compute_stress: bool = True,
        total_charge: float = 0.0,
    ) -> None:
        super().__init__()
        if not math.isfinite(total_charge):
            raise InvalidInputError(f"Expected a finite total charge in e, got {total_charge!r}.")
        interface = require(
            "torch_sim.models.interface", extra="torch-sim", feature="A model of torch-sim"
        )
        # As good as inheriting from it, which would need the package whenever this is imported.
        interface.ModelInterface.register(type(self))
        model = model if isinstance(model, ForceField) else load_force_field(model)
        _, place = choose_engine("torch", device, model)
        self.force_field = frozen_copy(model, place, model.dtype)
        self.dtype, self.total_charge = dtype, total_charge
        self.compute_forces, self.compute_stress = compute_forces, compute_stress

    @property
    def device(self) -> torch.device:
        """Where states have to lie."""
        return self.force_field.device

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Compute all systems of a state.

        Parameters
        ----------
        state : torch_sim.SimState or mapping
            The systems, in Å, on the device of the model; or what makes a state.

        Returns
        -------
        dict of str to Tensor
            ``"energy"`` (n_systems,) eV, and as asked for ``"forces"`` (n_atoms, 3) eV/Å and
            ``"stress"`` (n_systems, 3, 3) eV/Å³, positive under tension and NaN without a box; in
            the precision of the state.
        """
        if isinstance(state, dict):
            torch_sim = require("torch_sim", extra="torch-sim", feature="A state of torch-sim")
            state = torch_sim.SimState(**state)
        positions, cell = state.positions, state.row_vector_cell
        batch = AtomicBatch(
            positions=positions,
            numbers=state.atomic_numbers.long(),
            batch=state.system_idx,
            cell=cell,
            pbc=torch.as_tensor(state.pbc, device=cell.device).expand(len(cell), 3),
            molecules=torch.full_like(state.system_idx, -1),
            total_charge=cell.new_full((len(cell),), self.total_charge),
        )
        found = self.force_field(
            batch,
            self.force_field.neighbors(batch),
            forces=self.compute_forces,
            stress=self.compute_stress,
        )
        results = {"energy": found["energy"]}
        if self.compute_forces:
            results["forces"] = found["forces"]
        if self.compute_stress:
            results["stress"] = found["stress"][:, _FULL].reshape(-1, 3, 3)
        return {name: values.to(positions.dtype) for name, values in results.items()}
