"""Coulomb energy of charged atoms: damped at short distance, Ewald-summed in periodic boxes.

Two atoms further apart than about 3.5 Å interact as point charges; closer ones less, and the
energy stays finite (see `Electrostatics`). Nothing here is trained.

References
----------
S. Gong et al., "BAMBOO", arXiv:2404.07181 (the damping).
J. Kolafa and J. W. Perram, "Cutoff errors in the Ewald summation formulae for point charge
systems", Molecular Simulation 9, 351-368 (1992) (the estimates behind splitting and cutoffs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scikd.exceptions import InvalidInputError

from ._ewald import ewald_potentials, spme_potentials
from ._placed import Placed, wholly_periodic
from ._switch import switch
from .units import COULOMB

__all__ = ["Electrostatics", "Reciprocal"]

Reciprocal = Literal["auto", "ewald", "pme"]

_SWITCH_WIDTH = 1.0  # Å
_MOST_BY_WAVES = 300  # atoms up to which the direct sum was measured to be faster than a mesh
# The error estimates depend on the density of the charges; that of a dense liquid, in 1/Å³, stands
# for all, so that a model's splitting does not change with the structure.
_DENSITY = 0.1


@dataclass(frozen=True)
class Electrostatics:
    r"""Damped Coulomb interaction of all pairs, by Ewald summation where the structure is periodic.

    Two charges at distance :math:`r` have the energy :math:`K q_i q_j D(r)`,

    .. math:: D(r) = \frac{1}{r_0 [1 + s(x)]}, \quad x = \frac{r - r_0}{r_0}, \quad
        s(x) = \frac{\ln(1 + e^{\beta x})}{\beta},

    which is :math:`1/r` beyond :math:`r_0` and constant below. In a periodic structure the pairs
    within the cutoff have :math:`D(r) - \mathrm{erf}(g r)/r`; the smooth rest is summed over
    reciprocal lattice vectors. A charged cell gets a homogeneous neutralising background.

    Parameters
    ----------
    r0 : float, default=2.2
        Distance in Å below which the interaction is damped.
    beta : float, default=18.7
        Sharpness of the damping, no unit.
    constant : float, default=scikd.md.units.COULOMB
        :math:`K = e^2 / 4 \pi \epsilon_0` in eV Å/e².
    cutoff : float, default=10.0
        Cutoff in Å of the pairs of periodic structures.
    splitting : float or None, default=None
        :math:`g` in 1/Å. None chooses it from `cutoff` and `accuracy`; without a reciprocal sum,
        None is 0.
    reciprocal : {"auto", "ewald", "pme"} or None, default="auto"
        The sum over reciprocal lattice vectors: directly ("ewald"), in a time that grows with the
        square of the number of atoms; on a mesh ("pme"); whichever is faster, the mesh from 300
        atoms on; or not at all, where somebody else computes it.
    accuracy : float, default=1e-6
        Wanted rms error of the forces, relative to that between two charges of the structure's
        rms charge, 1 Å apart. See Notes.
    smooth : bool, default=True
        Whether the pair term of periodic structures is switched to zero, with two continuous
        derivatives, over the last Å; otherwise it is cut, as published.
    free_cutoff : float or None, default=None
        Cutoff in Å of the pairs of structures that are not periodic; None counts all pairs.

    Notes
    -----
    For N charges of mean square :math:`q^2` at number density :math:`\rho`, the estimates of
    Kolafa and Perram for the rms force error of the two sums read

    .. math:: \Delta F_\mathrm{real} = 2 K q^2 \sqrt{\rho / r_c} \, e^{-g^2 r_c^2}, \quad
        \Delta F_\mathrm{rec} = 2 K q^2 g \sqrt{2 \rho / k_c} \, e^{-k_c^2 / 4 g^2}.

    Each is set to ``accuracy`` times :math:`K q^2` per Å² at a density of 0.1/Å³, which gives
    :math:`g` and then the cutoff :math:`k_c`, both the same for every structure. With `smooth`,
    :math:`r_c` is taken in the middle of the switch.

    All sums over reciprocal vectors run in double precision, whatever the precision of the
    positions.
    """

    r0: float = 2.2
    beta: float = 18.7
    constant: float = COULOMB
    cutoff: float = 10.0
    splitting: float | None = None
    reciprocal: Reciprocal | None = "auto"
    accuracy: float = 1e-6
    smooth: bool = True
    free_cutoff: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, all at once."""
        positive = ("r0", "beta", "constant", "cutoff")
        problems = [
            f"{name} is {getattr(self, name)!r}, expected a positive number"
            for name in positive
            if not getattr(self, name) > 0
        ]
        if self.smooth and 0 < self.cutoff <= _SWITCH_WIDTH:
            problems.append(f"cutoff is {self.cutoff!r}, expected more than {_SWITCH_WIDTH} Å")
        if self.splitting is not None and not self.splitting >= 0:
            problems.append(f"splitting is {self.splitting!r}, expected >= 0 or None")
        if self.splitting == 0 and self.reciprocal is not None:
            problems.append("splitting is 0, which goes with reciprocal=None only")
        if not 0 < self.accuracy < 0.01:
            problems.append(f"accuracy is {self.accuracy!r}, expected between 0 and 0.01")
        if self.reciprocal not in ("auto", "ewald", "pme", None):
            expected = "'auto', 'ewald', 'pme' or None"
            problems.append(f"reciprocal is {self.reciprocal!r}, expected {expected}")
        if self.free_cutoff is not None and not self.free_cutoff > 0:
            problems.append(f"free_cutoff is {self.free_cutoff!r}, expected positive or None")
        if problems:
            raise InvalidInputError(f"Cannot set up electrostatics: {'; '.join(problems)}.")

    @property
    def switch_start(self) -> float:
        """Distance in Å from which on the pair term of periodic structures fades out."""
        return self.cutoff - _SWITCH_WIDTH if self.smooth else self.cutoff

    @property
    def g(self) -> float:
        """The splitting in 1/Å: as given, or chosen from cutoff and accuracy; 0 without Ewald."""
        if self.splitting is not None:
            return self.splitting
        if self.reciprocal is None:
            return 0.0
        middle = 0.5 * (self.switch_start + self.cutoff)
        return math.sqrt(math.log(2 * math.sqrt(_DENSITY / middle) / self.accuracy)) / middle

    @property
    def reciprocal_cutoff(self) -> float:
        """Length in 1/Å of the longest reciprocal vector that is summed over."""
        g = self.g
        k = 2 * g
        for _ in range(50):  # a fixed point: k stands in the estimate under a root as well
            excess = 2 * g * math.sqrt(2 * _DENSITY / k) / self.accuracy
            k = 2 * g * math.sqrt(math.log(max(excess, math.e)))
        return k

    def damped(self, distances: Tensor) -> Tensor:
        """Return the energy in eV of two unit charges at distances in Å, in free space."""
        x = (distances / self.r0 - 1.0) * self.beta
        softplus = torch.logaddexp(x, torch.zeros_like(x)) / self.beta
        return self.constant / (self.r0 * (1.0 + softplus))

    def pair_energy(self, distances: Tensor, *, periodic: bool) -> Tensor:
        """Return what a pair of unit charges adds to the energy, in eV.

        Parameters
        ----------
        distances : Tensor
            In Å, any shape, positive.
        periodic : bool
            Whether the pair belongs to a periodic structure: then the term is short-ranged, the
            rest is the reciprocal sum's.

        Returns
        -------
        Tensor
            Of the shape of the distances; 0 beyond the cutoff.
        """
        energies = self.damped(distances)
        if not periodic:
            if self.free_cutoff is None:
                return energies
            return torch.where(distances < self.free_cutoff, energies, 0.0)
        if self.g > 0:
            energies = energies - self.constant * torch.erf(self.g * distances) / distances
        if self.smooth:
            return energies * switch(distances, self.switch_start, self.cutoff)
        return torch.where(distances < self.cutoff, energies, 0.0)

    def site_energies(self, placed: Placed, charges: Tensor) -> Tensor:
        """Return the Coulomb energy of each atom: half of each pair, and its part of the rest.

        Parameters
        ----------
        placed : Placed
            Atoms and pairs; each structure is periodic in all three directions or in none.
        charges : Tensor of shape (N,)
            In e.

        Returns
        -------
        Tensor of shape (N,)
            In eV, differentiable twice by positions, vectors, cell and charges.

        Raises
        ------
        InvalidInputError
            If a structure is periodic in one or two directions.
        """
        periodic, distances = wholly_periodic(placed.pbc), placed.distances
        i, j = placed.index
        if bool(periodic.all()) or not bool(periodic.any()):
            kernel = self.pair_energy(distances, periodic=bool(periodic.any()))
        else:
            kernel = torch.where(
                periodic[placed.batch[i]],
                self.pair_energy(distances, periodic=True),
                self.pair_energy(distances, periodic=False),
            )
        energies = placed.shared(charges[i] * charges[j] * kernel)
        if self.reciprocal is None or not bool(periodic.any()):
            return energies
        potentials = self._reciprocal_potentials(placed, charges, periodic)
        return energies + (0.5 * charges * potentials).to(energies.dtype)

    def _reciprocal_potentials(self, placed: Placed, charges: Tensor, periodic: Tensor) -> Tensor:
        """Return the potential in V that is not in the pairs, (N,), 0 in structures without."""
        cell, batch = placed.cell, placed.batch
        limit = {"auto": _MOST_BY_WAVES, "pme": 0, "ewald": len(batch)}[str(self.reciprocal)]
        large = torch.bincount(batch, minlength=len(cell)) > limit
        potentials = torch.zeros(len(charges), dtype=torch.float64, device=charges.device)
        for on_mesh, structures in ((True, periodic & large), (False, periodic & ~large)):
            atoms = torch.nonzero(structures[batch]).flatten()
            if not len(atoms):
                continue
            where = (
                placed.positions[atoms].double(),
                charges[atoms].double(),
                cell[structures].double(),
                (torch.cumsum(structures, 0) - 1)[batch[atoms]],
            )
            if on_mesh:
                found = spme_potentials(*where, splitting=self.g, accuracy=self.accuracy)
            else:
                found = ewald_potentials(*where, splitting=self.g, cutoff=self.reciprocal_cutoff)
            potentials = potentials.index_add(0, atoms, found)
        return self.constant * potentials
