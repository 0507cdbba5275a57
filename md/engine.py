"""A force field with a GET network on the processor, compiled: the engine of molecular dynamics.

From positions to forces in one call: neighbour lists that last for many steps
(`scikd.md.neighbors.VerletList`), the network (`scikd.md.kernels.network`), pairs and the
reciprocal sum (`scikd.md.kernels.pairs`, `scikd.md.kernels.pme`), and back through the network with
what the charges are worth. It gives what `scikd.md.model.ForceField` gives, which is its oracle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scikd.exceptions import InvalidInputError

from ._half_list import complete_box
from ._placed import Placed, wholly_periodic
from .dispersion import D3BJ
from .get import GET
from .kernels.network import Network
from .kernels.pairs import Contributions, PairTables
from .kernels.pme import ParticleMesh
from .model import ForceField
from .neighbors import VerletList
from .units import TO_VOIGT

__all__ = ["NumbaEngine"]

_BOX = 5.0  # Å: atoms of one such box are computed one after the other


class NumbaEngine:
    """A force field for one moving structure, on the CPU.

    Parameters
    ----------
    force_field : ForceField
        With a `GET` network. Its weights are copied: later training does not reach the engine.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the network and of pair distances. Sums over atoms, positions, charges and the
        reciprocal sum are float64 always.
    skin : float, default=1.0
        Of the neighbour lists, in Å.
    threads : int or None, default=None
        Threads to use; None takes the processors there are. Results are the same to the bit for any
        number of threads.

    Attributes
    ----------
    verlet : VerletList
        The neighbour lists.
    network : Network
        The compiled network.

    Raises
    ------
    InvalidInputError
        If the force field has another network, or the options make no sense.

    Notes
    -----
    The reciprocal sum runs on a mesh, whether the force field asks for Ewald or for a mesh; both
    are right to the accuracy that it asks for.

    Not to be used by two threads at once: buffers belong to the object.
    """

    def __init__(
        self,
        force_field: ForceField,
        *,
        dtype: Any = "float32",
        skin: float = 1.0,
        threads: int | None = None,
    ) -> None:
        get = force_field.architecture
        if not isinstance(get, GET):
            message = (
                f"Expected a force field with a GET network; got {type(get).__name__}. Use the "
                "force field in PyTorch."
            )
            raise InvalidInputError(message)
        weights = {name: w.detach().cpu().numpy() for name, w in get.state_dict().items()}
        s = get.settings
        self.network = Network(
            weights,
            n_heads=s.n_heads,
            cutoff=s.cutoff,
            envelope=s.envelope,
            max_charge=s.max_charge,
            dtype=dtype,
            threads=threads,
        )
        self.verlet = VerletList(force_field.near_cutoff, force_field.far_cutoff, skin)
        self._force_field = force_field
        self._numbers = np.zeros(0, np.int64)
        self._rebuilds = -1
        self._tables: dict[bool, PairTables] = {}
        electrostatics = force_field.electrostatics
        self._mesh = None
        if electrostatics is not None and electrostatics.reciprocal is not None:
            self._mesh = ParticleMesh(electrostatics)

    def compute(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        total_charge: float = 0.0,
    ) -> dict[str, Any]:
        """Compute one structure.

        Parameters
        ----------
        positions : ndarray of shape (N, 3)
            In Å.
        numbers : ndarray of shape (N,)
            Atomic numbers.
        cell : ndarray of shape (3, 3)
            Lattice vectors as rows, in Å.
        pbc : ndarray of bool of shape (3,)
            Periodic directions.
        total_charge : float, default=0.0
            In e.

        Returns
        -------
        dict of str to float or ndarray
            What `ForceField.forward` returns, for one structure and in float64: ``"energy"`` eV;
            ``"energies"`` (N,) eV, without references; ``"forces"`` (N, 3) eV/Å; ``"charges"`` (N,)
            e; ``"dipole"`` (3,) e·Å; ``"virial"`` (3, 3) eV; ``"stress"`` (6,) eV/Å³, NaN unless
            the structure is periodic in three directions.

        Raises
        ------
        InvalidInputError
            If there is no atom, a position is not finite, an element is not known to the model, or
            there is electrostatics and the structure is periodic in one or two directions.
        """
        positions = np.ascontiguousarray(positions, dtype=np.float64)
        numbers, pbc = np.asarray(numbers, dtype=np.int64), np.asarray(pbc, dtype=bool)
        cell = np.asarray(cell, dtype=np.float64)
        self._check(positions, numbers, pbc)
        near, _ = self.verlet.update(positions, numbers, cell, pbc)
        if self.verlet.rebuilds != self._rebuilds:
            self.network.set_pairs(near.i, near.j, _by_place(positions, cell, pbc))
            self._rebuilds = self.verlet.rebuilds
        sites = self.network.forward(positions, numbers, near.offsets)
        charges = sites.charges + (total_charge - sites.charges.sum()) / len(numbers)
        rest = self._rest(positions, numbers, charges, cell, pbc)

        chi = self.network.weights.electronegativity[numbers]
        eta = self.network.weights.hardness[numbers]
        seeds = None
        if self._force_field.force_rule == "conservative":
            seeds = rest.potentials + chi + 2.0 * eta * charges
            seeds -= seeds.mean()  # the shift of all charges takes a share from every atom
        forces, virial = self.network.backward(seeds)
        energies = sites.energies + charges * (chi + eta * charges) + rest.energies
        virial += rest.virial
        volume = abs(float(np.linalg.det(cell))) if pbc.all() else np.nan
        references = self._force_field.references.numpy()[numbers]
        return {
            "energy": float(energies.sum() + references.sum()),
            "energies": energies,
            "forces": forces + rest.forces,
            "charges": charges,
            "dipole": charges @ positions,
            "virial": virial,
            "stress": -virial[..., *TO_VOIGT] / volume,
        }

    def _check(self, positions: np.ndarray, numbers: np.ndarray, pbc: np.ndarray) -> None:
        """Refuse what would give numbers without meaning."""
        if not len(positions):
            message = "Expected at least one atom; got a structure without any."
            raise InvalidInputError(message)
        if not np.array_equal(numbers, self._numbers):
            self._force_field.check_elements(
                torch.as_tensor(numbers, device=self._force_field.device)
            )
            self._numbers = numbers.copy()
        if self._force_field.electrostatics is not None:
            wholly_periodic(torch.as_tensor(pbc)[None])

    def _rest(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        charges: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
    ) -> Contributions:
        """Return all but the network, at fixed charges."""
        field, far, pool = self._force_field, self.verlet.far, self.network.pool
        n_atoms, periodic = len(numbers), bool(pbc.all())
        parts: list[Any] = []
        compiled = None if isinstance(field.dispersion, D3BJ) else field.dispersion
        if any(term is not None for term in (field.electrostatics, compiled, field.repulsion)):
            if periodic not in self._tables:
                self._tables[periodic] = PairTables(
                    field.elements,
                    electrostatics=field.electrostatics,
                    dispersion=compiled,
                    repulsion=field.repulsion,
                    periodic=periodic,
                    dtype=self.network.dtype,
                )
            where = (numbers, positions, charges, far.i, far.j, far.offsets)
            volume = abs(float(np.linalg.det(cell))) if periodic else np.inf
            parts.append(self._tables[periodic].compute(*where, volume=volume, pool=pool))
        if self._mesh is not None and periodic:
            parts.append(self._mesh.compute(positions, charges, cell, pool=pool))
        if isinstance(field.dispersion, D3BJ):
            parts.append(_by_torch(field.dispersion, positions, numbers, cell, pbc))
        shapes = ((n_atoms,), (n_atoms, 3), (3, 3), (n_atoms,))
        total = Contributions(*(np.zeros(shape) for shape in shapes))
        for part in parts:
            for name, values in total._asdict().items():
                np.add(values, getattr(part, name), out=values)
        return total


def _by_place(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Return the atoms box by small box, so that neighbours are found in the processor's cache."""
    box = complete_box(cell, pbc)
    places = np.linalg.solve(box.T, positions.T).T
    places -= np.floor(places) * pbc
    boxes = np.floor(places * np.linalg.norm(box, axis=1) / _BOX)
    return np.lexsort(boxes.T)


def _by_torch(
    term: D3BJ, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> Contributions:
    """Return what a term without charges adds that is not compiled."""
    x = torch.tensor(positions, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=x.dtype, requires_grad=True)
    symmetric = 0.5 * (strain + strain.T)
    box = torch.tensor(cell)
    placed = Placed(
        numbers=torch.tensor(numbers),
        positions=x + x @ symmetric,
        cell=(box + box @ symmetric)[None],
        pbc=torch.tensor(pbc)[None],
        batch=torch.zeros(len(numbers), dtype=torch.int64),
        index=torch.zeros(2, 0, dtype=torch.int64),
        vectors=torch.zeros(0, 3, dtype=x.dtype),
    )
    energies = term.site_energies(placed)
    by_position, by_strain = torch.autograd.grad(energies.sum(), [x, strain])
    return Contributions(
        energies.detach().numpy(),
        -by_position.numpy(),
        -by_strain.numpy(),
        np.zeros(len(numbers)),
    )
