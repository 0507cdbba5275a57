"""A repulsive floor: what keeps two nuclei apart where a network was never taught.

Reference
---------
J. F. Ziegler, J. P. Biersack and U. Littmark, "The Stopping and Range of Ions in Matter",
Pergamon (1985): the universal screening function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase.data import covalent_radii
from torch import Tensor

from scikd.exceptions import InvalidInputError

from ._geometry import LARGEST_NUMBER
from ._placed import Placed
from ._switch import switch
from .units import BOHR, COULOMB

__all__ = ["ZBL"]

_SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


@dataclass(frozen=True)
class ZBL:
    r"""Screened repulsion of nuclei, switched off well inside any bond.

    .. math:: E = K \frac{Z_i Z_j}{r} \phi(\frac{r}{a}), \quad
        a = \frac{0.8854 \, a_0}{Z_i^{0.23} + Z_j^{0.23}},

    with the universal screening function :math:`\phi`, multiplied by a switch with two continuous
    derivatives that goes from 1 to 0 between two fractions of the sum of the covalent radii.

    Parameters
    ----------
    inner, outer : float, default=0.4, 0.65
        Fractions of the sum of the covalent radii where the switch begins and ends. The shortest
        bonds (N≡N, C≡O) are 0.78 of that sum long, and hardly shorter than 0.7 when hot.
    """

    inner: float = 0.4
    outer: float = 0.65

    def __post_init__(self) -> None:
        """Refuse a switch that goes nowhere, or reaches into bonds."""
        if not 0 < self.inner < self.outer <= 1:
            message = (
                "Expected fractions 0 < inner < outer <= 1 of the sum of covalent radii; got "
                f"inner={self.inner!r}, outer={self.outer!r}."
            )
            raise InvalidInputError(message)

    @property
    def cutoff(self) -> float:
        """Distance in Å beyond which no two atoms of any elements repel each other."""
        return float(2 * self.outer * covalent_radii[1 : LARGEST_NUMBER + 1].max())

    def pair_energy(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the energy in eV of pairs of nuclei.

        Parameters
        ----------
        distances : Tensor
            In Å, any shape, positive.
        first, second : Tensor of int64 of the same shape
            Atomic numbers.
        """
        radii = torch.as_tensor(covalent_radii, dtype=distances.dtype, device=distances.device)
        z_i, z_j = first.to(distances.dtype), second.to(distances.dtype)
        length = 0.8854 * BOHR / (z_i**0.23 + z_j**0.23)
        x = distances / length
        screening = sum(amplitude * torch.exp(-rate * x) for amplitude, rate in _SCREENING)
        bond = radii[first] + radii[second]
        # In units of the bond, so that one switch serves all pairs.
        fade = switch(distances / bond, self.inner, self.outer)
        return COULOMB * z_i * z_j / distances * screening * fade

    def site_energies(self, placed: Placed) -> Tensor:
        """Return half of each pair's energy for each atom, shape (N,), in eV."""
        i, j = placed.index
        numbers = placed.numbers
        return placed.shared(self.pair_energy(placed.distances, numbers[i], numbers[j]))
