r"""What lies between molecules: the virial under a strain that leaves each molecule rigid.

A strain of positions changes bonds too, and the virial that it costs is mostly that of bonds, which
fluctuates by thousands of bar. A strain that moves the centres of molecules alone gives

.. math:: W_{mol} = W - \sum_i (x_i - X_{m(i)}) \otimes F_i ,

the virial of the forces between molecules, whatever they are made of: pairs, a network, Ewald
sums. The pressure is that of an ideal gas of molecules, and a third of this virial's trace over the
volume. In equilibrium its mean is that of the atoms' pressure; its fluctuations are smaller; and no
change of a bond, which the molecule would relax at once, can feign it.

References
----------
G. Ciccotti and J. P. Ryckaert, Comput. Phys. Rep. 4, 346 (1986): the two forms of the pressure.
"""

from __future__ import annotations

import torch
from ase import units
from ase.data import atomic_masses
from torch import Tensor

from scikd.exceptions import InvalidInputError

from .frames import AtomicBatch
from .units import BAR, FROM_VOIGT

__all__ = ["arms_of", "molecular_pressure", "molecular_virial"]


def arms_of(batch: AtomicBatch) -> Tensor:
    """Return where each atom is, seen from the centre of mass of its molecule.

    Parameters
    ----------
    batch : AtomicBatch
        Structures with molecules, each shorter than half the least height of its box.

    Returns
    -------
    Tensor of shape (n_atoms, 3)
        In Å, through periodic boundaries.

    Raises
    ------
    InvalidInputError
        If the molecule of an atom is not known.
    """
    which, structures = _molecules(batch)
    return _arms(batch, which, len(structures))


def _molecules(batch: AtomicBatch) -> tuple[Tensor, Tensor]:
    """Return the molecule of each atom, counted over all structures, and the structure of each."""
    if bool((batch.molecules < 0).any()):
        message = (
            "Expected structures whose molecules are known; some atoms have none. Set "
            "atoms.arrays['molecules'], for example to scikd.md.frames.find_molecules(atoms)."
        )
        raise InvalidInputError(message)
    most = int(batch.molecules.max()) + 1
    keys, which = torch.unique(batch.batch * most + batch.molecules, return_inverse=True)
    return which, keys // most


def _arms(batch: AtomicBatch, which: Tensor, n_molecules: int) -> Tensor:
    rows = torch.arange(batch.n_atoms, device=which.device)
    first = rows.new_full((n_molecules,), batch.n_atoms).scatter_reduce(0, which, rows, "amin")
    arms = batch.positions - batch.positions[first[which]]
    # Without a cell there are no images; a box of any kind of lattice vectors has the identity's.
    periodic = batch.pbc.all(-1)[:, None, None]
    cell = torch.where(periodic, batch.cell, torch.eye(3).to(batch.cell))
    inverse = torch.linalg.inv(cell)
    images = torch.einsum("na,nab->nb", arms, inverse[batch.batch]).round()
    images = images * periodic[batch.batch, 0]
    arms = arms - torch.einsum("na,nab->nb", images, cell[batch.batch])
    mass = torch.as_tensor(atomic_masses, device=arms.device)[batch.numbers][:, None].to(arms)
    moment = arms.new_zeros(n_molecules, 4).index_add(
        0, which, torch.cat([mass * arms, mass], dim=1)
    )
    return arms - (moment[:, :3] / moment[:, 3:])[which]


def molecular_virial(batch: AtomicBatch, forces: Tensor, virial: Tensor) -> Tensor:
    """Return the virial of the forces between molecules; gradients flow through it.

    Parameters
    ----------
    batch : AtomicBatch
        Structures with molecules.
    forces : Tensor of shape (n_atoms, 3)
        In eV/Å.
    virial : Tensor of shape (n_structures, 3, 3)
        Under a strain of all positions, in eV.

    Returns
    -------
    Tensor of shape (n_structures, 3, 3)
        Under a strain of the molecules' centres, in eV, symmetric.

    Raises
    ------
    InvalidInputError
        If the molecule of an atom is not known.
    """
    return _between(batch, arms_of(batch), forces, virial)


def _between(batch: AtomicBatch, arms: Tensor, forces: Tensor, virial: Tensor) -> Tensor:
    moments = torch.einsum("na,nb->nab", arms.to(forces.dtype), forces)
    within = torch.zeros_like(virial).index_add(0, batch.batch, moments.to(virial.dtype))
    return virial - 0.5 * (within + within.transpose(1, 2))


def molecular_pressure(
    batch: AtomicBatch, forces: Tensor, stress: Tensor, temperature: float
) -> Tensor:
    """Return the pressure of boxes, as an ideal gas of molecules and what is between them.

    Parameters
    ----------
    batch : AtomicBatch
        Boxes with molecules.
    forces : Tensor of shape (n_atoms, 3)
        In eV/Å.
    stress : Tensor of shape (n_structures, 6)
        In eV/Å³, of forces alone, as ASE's.
    temperature : float
        In K, that the centres of the molecules have.

    Returns
    -------
    Tensor of shape (n_structures,)
        In bar.
    """
    volume = batch.volume
    atomic = -volume[:, None, None] * stress[..., FROM_VOIGT]
    which, structures = _molecules(batch)
    virial = _between(batch, _arms(batch, which, len(structures)), forces, atomic)
    counts = torch.bincount(structures, minlength=batch.n_structures).to(virial)
    ideal = counts * units.kB * temperature
    trace = virial.diagonal(dim1=1, dim2=2).sum(1)
    return (ideal + trace / 3.0) / volume / BAR
