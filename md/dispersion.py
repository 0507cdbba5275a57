"""Dispersion between atoms: a pairwise form for dynamics, and D3(BJ) for reference.

References
----------
H. Schröder, A. Creon and T. Schwabe, "Reformulation of the D3(Becke-Johnson) dispersion correction
without resorting to higher than C6 dispersion coefficients", J. Chem. Theory Comput. 11, 3163
(2015) (CSO).
S. Grimme, J. Antony, S. Ehrlich and H. Krieg, J. Chem. Phys. 132, 154104 (2010) (D3).
M. P. Tosi and F. G. Fumi, J. Phys. Chem. Solids 25, 45 (1964), after J. E. Mayer, J. Chem. Phys. 1,
270 (1933) (coefficients of Li+ and Na+).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._geometry import LARGEST_NUMBER
from ._placed import Placed
from ._switch import switch
from .units import BOHR, HARTREE, KCAL_PER_MOL

__all__ = ["D3BJ", "D3CSO"]

# Element: homonuclear C6 in kcal/mol Å^6, and D3's cutoff radius in Å. The C6 are means over the
# reference coordination numbers of D3.
_ELEMENTS = {
    "H": (69.2, 2.1823),
    "Li": (6246.0, 3.4956),
    "C": (440.7, 2.9103),
    "N": (282.2, 2.6225),
    "O": (176.2, 2.4817),
    "F": (115.0, 2.2996),
    "Na": (9662.0, 3.7082),
    "P": (2405.0, 3.5017),
    "S": (1795.0, 3.3107),
}
# The cations' C6 in eV Å^6: 0.073 and 1.68 of 1e-60 erg cm^6. London's formula with the
# polarisability 0.192 a0^3 of Li+ and its ionisation energy, 75.6 eV, gives 0.046 as well.
_CATIONS = {"Li": 0.0456, "Na": 1.049}

_A1, _A2 = 0.85, 0.82
_A3, _A4 = 2.5, 4.5  # no unit, Å
_SWITCH_WIDTH = 2.0  # Å


@dataclass(frozen=True)
class D3CSO:
    r"""Pairwise dispersion with constant coefficients, after BAMBOO's simplified D3-CSO.

    .. math:: E_{ij} = - \frac{C_6^{ij}}{r^6 + (4.5\,\text{Å})^6}
        [ 0.85 + \frac{0.82}{1 + e^{(r - 2.5 R_{ij}) / \text{Å}}} ]

    with :math:`C_6^{ij}` the geometric and :math:`R_{ij}` the arithmetic mean of the elements'.

    Parameters
    ----------
    cutoff : float, default=10.0
        In Å.
    smooth : bool, default=True
        Whether the energy is switched to zero, with two continuous derivatives, over the last 2 Å.
        If not, it is shifted by :math:`C_6 / r_c^6` and cut, as published: the energy jumps by a
        sixth of the shift at the cutoff, and so does the force.
    tail : bool, default=True
        Whether periodic structures get what the switch and the cutoff removed, for a homogeneous
        liquid: an energy inversely proportional to the volume, which adds to the pressure. The
        shift, which exerts no force, stays as it is.
    ionic : bool, default=True
        Whether Li and Na have the coefficients of their cations. As published they have those of
        the neutral atoms, 6000 and 400 times too much for an electrolyte.

    Notes
    -----
    ``D3CSO(smooth=False, tail=False, ionic=False)`` is the published form.
    """

    cutoff: float = 10.0
    smooth: bool = True
    tail: bool = True
    ionic: bool = True

    def __post_init__(self) -> None:
        """Refuse a cutoff that leaves no room for the switch."""
        if not self.cutoff > _SWITCH_WIDTH:
            message = f"Expected a cutoff of more than {_SWITCH_WIDTH} Å; got {self.cutoff!r}."
            raise InvalidInputError(message)

    @property
    def switch_start(self) -> float:
        """Distance in Å from which on the energy fades out."""
        return self.cutoff - _SWITCH_WIDTH if self.smooth else self.cutoff

    def pair_energy(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the energy in eV of pairs of atoms.

        Parameters
        ----------
        distances : Tensor
            In Å, any shape.
        first, second : Tensor of int64 of the same shape
            Atomic numbers.

        Raises
        ------
        InvalidInputError
            If an element has no coefficients.
        """
        root, radii = _coefficients(self.ionic, distances)
        self._check(torch.cat([first.reshape(-1), second.reshape(-1)]), radii)
        c6 = root[first] * root[second]
        energies = _full(distances, c6, 0.5 * (radii[first] + radii[second]))
        if self.smooth:
            return energies * switch(distances, self.switch_start, self.cutoff)
        return torch.where(distances < self.cutoff, energies + c6 / self.cutoff**6, 0.0)

    def site_energies(self, placed: Placed) -> Tensor:
        """Return half of each pair's energy for each atom, and its part of the tail.

        Parameters
        ----------
        placed : Placed
            Atoms and pairs.

        Returns
        -------
        Tensor of shape (N,)
            In eV, differentiable twice by vectors and cell.

        Raises
        ------
        InvalidInputError
            If an element has no coefficients.
        """
        numbers, batch, cell = placed.numbers, placed.batch, placed.cell
        self._check(numbers, _coefficients(self.ionic, placed.positions)[1])
        i, j = placed.index
        energies = placed.shared(self.pair_energy(placed.distances, numbers[i], numbers[j]))
        periodic = placed.pbc.all(-1)
        if not self.tail or not bool(periodic.any()):
            return energies
        volume = torch.linalg.det(cell).abs()
        inverse = torch.where(periodic, 1.0 / torch.where(periodic, volume, 1.0), 0.0)
        integrals = torch.as_tensor(self.tail_integrals()).to(energies)
        counts = energies.new_zeros(len(cell), len(integrals))
        ones = energies.new_ones(len(numbers))
        counts = counts.index_put((batch, numbers), ones, accumulate=True)
        per_atom = (counts @ integrals)[batch, numbers]
        return energies + per_atom * inverse[batch]

    def tail_integrals(self) -> np.ndarray:
        """Return what cutoff and switch remove, integrated over space, by atomic number.

        Returns
        -------
        ndarray of shape (87, 87)
            Half the integral of the missing pair energy, in eV Å³: an atom's tail energy is the
            sum of this over all atoms of the box, divided by its volume. 0 where an element has
            no coefficients.
        """
        return _tail_integrals(self).copy()

    @staticmethod
    def _check(numbers: Tensor, radii: Tensor) -> None:
        missing = torch.isnan(radii[numbers])
        if bool(missing.any()):
            symbols = [chemical_symbols[z] for z in torch.unique(numbers[missing]).tolist()]
            message = (
                f"D3CSO has coefficients for {', '.join(_ELEMENTS)}; the structure also holds "
                f"{', '.join(symbols)}. Use D3BJ, which knows every element, or no dispersion."
            )
            raise InvalidInputError(message)


def _full(distances: Tensor, c6: Tensor, radii: Tensor) -> Tensor:
    """Return the energy of pairs without any cutoff."""
    near = torch.sigmoid(_A3 * radii - distances)
    return -c6 / (distances**6 + _A4**6) * (_A1 + _A2 * near)


def _coefficients(ionic: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the roots of C6 and the radii by atomic number, NaN where there are none."""
    table = torch.as_tensor(_table(ionic), dtype=like.dtype, device=like.device)
    return table[:, 0], table[:, 1]


@lru_cache
def _table(ionic: bool) -> np.ndarray:
    """Return square roots of C6 (eV^1/2 Å^3) and radii (Å) by atomic number, (87, 2)."""
    table = np.full((LARGEST_NUMBER + 1, 2), np.nan)
    for symbol, (c6, radius) in _ELEMENTS.items():
        coefficient = c6 * KCAL_PER_MOL
        if ionic:
            coefficient = _CATIONS.get(symbol, coefficient)
        table[atomic_numbers[symbol]] = math.sqrt(coefficient), radius
    return table


@lru_cache
def _tail_integrals(settings: D3CSO) -> np.ndarray:
    """Integrate what is missing: over the switch, and from the cutoff to infinity in 1/r."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(200))
    unit, weights = 0.5 * (nodes + 1.0), 0.5 * weights
    root, radii = _coefficients(settings.ionic, unit)
    c6 = (root[:, None] * root)[..., None]
    mean = 0.5 * (radii[:, None] + radii)[..., None]
    cutoff, start = settings.cutoff, settings.switch_start

    far = cutoff / unit
    integrals = (_full(far, c6, mean) * far**4 / cutoff * weights).sum(-1)
    if settings.smooth:
        near = start + (cutoff - start) * unit
        missing = _full(near, c6, mean) * (1.0 - switch(near, start, cutoff))
        integrals += (missing * near**2 * weights).sum(-1) * (cutoff - start)
    return np.nan_to_num((2 * math.pi * integrals).numpy())


@dataclass(frozen=True)
class D3BJ:
    """Grimme's D3 with Becke-Johnson damping, two-body, through the package ``dftd3``.

    Its coefficients depend on the coordination of the atoms. It gives energies, forces and stress,
    but no second derivatives: no model can be trained through it.

    Parameters
    ----------
    functional : str
        The density functional whose damping parameters are used, as ``dftd3`` spells it: "b3lyp",
        "pbe", ...
    reach : float, default=25.0
        Distance in Å where the pair energies have gone to zero, smoothly over the last 2 Å.
    """

    functional: str
    reach: float = 25.0

    def __post_init__(self) -> None:
        """Refuse a reach that leaves no room for the switch."""
        if not self.reach > _SWITCH_WIDTH:
            message = f"Expected a reach of more than {_SWITCH_WIDTH} Å; got {self.reach!r}."
            raise InvalidInputError(message)

    @property
    def cutoff(self) -> float:
        """Cutoff in Å of the pairs that are needed from outside: 0, it finds its own."""
        return 0.0

    def site_energies(self, placed: Placed) -> Tensor:
        """Return each structure's dispersion energy, shared out evenly among its atoms.

        Parameters
        ----------
        placed : Placed
            Atoms; the pairs are not used.

        Returns
        -------
        Tensor of shape (N,)
            In eV, differentiable once by positions and cell.

        Raises
        ------
        MissingExtraError
            If ``dftd3`` is not installed.
        InvalidInputError
            If it does not know the functional.
        """
        interface = require("dftd3.interface", extra="md", feature="D3(BJ) dispersion")
        try:
            damping = interface.RationalDampingParam(method=self.functional, atm=False)
        except RuntimeError as error:
            message = (
                f"Expected a functional that dftd3 has D3(BJ) parameters for; got "
                f"{self.functional!r} ({error})."
            )
            raise InvalidInputError(message) from error

        def evaluate(
            atoms: np.ndarray, where: np.ndarray, lattice: np.ndarray, axes: np.ndarray
        ) -> Any:
            model = interface.DispersionModel(atoms, where / BOHR, lattice / BOHR, axes)
            reach, width = self.reach / BOHR, _SWITCH_WIDTH / BOHR
            model.set_realspace_cutoff(reach, reach, min(reach, 40.0), width, width)
            return model.get_dispersion(damping, grad=True)

        function: Any = _D3Energies.apply
        cell, batch = placed.cell, placed.batch
        energies = function(placed.positions, cell, placed.numbers, placed.pbc, batch, evaluate)
        counts = torch.bincount(batch, minlength=len(cell))
        shared: Tensor = (energies / counts)[batch]
        return shared


class _D3Energies(torch.autograd.Function):
    """Energies of B structures; their derivatives come with them and wait for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        positions: Tensor,
        cell: Tensor,
        numbers: Tensor,
        pbc: Tensor,
        batch: Tensor,
        evaluate: Any,
    ) -> Tensor:
        energies = np.empty(len(cell))
        by_position = np.empty((len(numbers), 3))
        by_cell = np.zeros((len(cell), 3, 3))
        where, lattice, atoms, axes, structure = (
            values.detach().cpu().double().numpy()
            if values.is_floating_point()
            else values.cpu().numpy()
            for values in (positions, cell, numbers, pbc, batch)
        )
        for b in range(len(cell)):
            here = structure == b
            found = evaluate(atoms[here], where[here], lattice[b], axes[b])
            gradient = found["gradient"] * (HARTREE / BOHR)
            energies[b] = float(found["energy"]) * HARTREE
            by_position[here] = gradient
            if axes[b].all():
                # Under a strain both positions and lattice move: what the positions do not
                # account for is the lattice's.
                strain = found["virial"] * HARTREE - where[here].T @ gradient
                by_cell[b] = np.linalg.solve(lattice[b].T, strain)
        ctx.save_for_backward(
            torch.as_tensor(by_position).to(positions), torch.as_tensor(by_cell).to(cell), batch
        )
        return torch.as_tensor(energies).to(positions)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        by_position, by_cell, batch = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            raise InvalidInputError(
                "D3BJ has no second derivatives, which training on forces needs. Train without it "
                "(labels without dispersion, or D3CSO) and add it afterwards."
            )
        return (
            upstream[batch, None] * by_position,
            upstream[:, None, None] * by_cell,
            None,
            None,
            None,
            None,
        )
