"""Integrators of constant energy, temperature and pressure, on those of ASE.

Temperature is held by stochastic velocity rescaling (Bussi, Donadio and Parrinello, J. Chem. Phys.
126, 014101, 2007), pressure by stochastic cell rescaling (Bernetti and Bussi, J. Chem. Phys. 153,
114107, 2020). Both sample their ensembles exactly and relax exponentially, without the oscillations
of extended systems, so that a box that starts far from equilibrium does no harm. All that they
remember is a random generator and two sums, which makes an exact restart simple.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.verlet import VelocityVerlet

from scikd.exceptions import InvalidInputError

from .units import BAR, GRAM_PER_CM3

__all__ = [
    "StochasticCell",
    "conserved_energy",
    "degrees_of_freedom",
    "density_of",
    "make_integrator",
    "pressure_of",
    "temperature_of",
]

LARGEST_STRAIN = 0.01  # of the volume, that pressure alone may cause in one step


def degrees_of_freedom(atoms: Atoms) -> int:
    """Return how many momenta are free: without those of the whole, which are kept at zero.

    Raises
    ------
    InvalidInputError
        If none is.
    """
    count = 3 * len(atoms) - 3
    if not atoms.pbc.any():
        extent = atoms.positions - atoms.positions.mean(axis=0)
        count -= (0, 2, 3, 3)[np.linalg.matrix_rank(extent, tol=1e-3)]
    if count < 1:
        message = f"Expected at least two atoms to move; got {len(atoms)}."
        raise InvalidInputError(message)
    return count


def temperature_of(atoms: Atoms, dof: int) -> float:
    """Return the temperature in K, for this many degrees of freedom."""
    return float(2.0 * atoms.get_kinetic_energy() / (dof * units.kB))


def density_of(atoms: Atoms) -> float:
    """Return the density in g/cm³; NaN where the structure is not periodic in all directions."""
    if not atoms.pbc.all():
        return math.nan
    return float(atoms.get_masses().sum() / atoms.get_volume() / GRAM_PER_CM3)


def pressure_of(atoms: Atoms, dof: int) -> float:
    """Return the pressure in bar, that of the ideal gas included; NaN as for `density_of`."""
    if not atoms.pbc.all():
        return math.nan
    ideal = len(atoms) * units.kB * temperature_of(atoms, dof) / atoms.get_volume()
    return float((ideal - atoms.get_stress()[:3].mean()) / BAR)


class StochasticCell(Bussi):
    r"""Constant temperature and pressure by rescaling velocities and an isotropic cell.

    With the pressure P of the atoms, the logarithm of the volume follows

    .. math:: d \ln V = -\frac{\beta}{\tau} (P_0 - P) dt + \sqrt{\frac{2 k T \beta}{V \tau}} dW

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic in three directions, with momenta.
    timestep : float
        In ASE's unit of time.
    temperature_K : float
        In K.
    taut, taup : float
        Time constants in ASE's unit of time.
    pressure : float
        In eV/Å³.
    compressibility : float
        Of about the liquid, in Å³/eV. It only changes how fast the volume relaxes.
    rng : numpy.random.Generator
        Source of noise.

    Notes
    -----
    The centre of mass has no momentum, but a place in the box: its missing share kT/V is added to
    the pressure, without which an ideal gas would miss its mean volume by 1/N.
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        temperature_K: float,
        taut: float,
        *,
        taup: float,
        pressure: float,
        compressibility: float,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(atoms, timestep, temperature_K, taut, rng=rng)  # type: ignore[no-untyped-call]
        self.pressure = pressure
        self.rate = compressibility * timestep / taup
        self.barostat_work = 0.0
        self._after: float | None = None  # virial at the end of the last step

    def step(self, forces: np.ndarray | None = None) -> np.ndarray:
        """Make one step: velocity Verlet, with the rescaling in its middle.

        ``forces`` are those that the step before returned; None if the atoms have been moved since.
        """
        self.scale_velocities()  # type: ignore[no-untyped-call]
        atoms = self.atoms
        virial = self._after
        if forces is None or virial is None:
            forces, virial = atoms.get_forces(md=True), self._virial()
        strain = self._draw_strain(virial)
        growth = math.exp(strain / 3.0)
        momenta = atoms.get_momenta() + 0.5 * self.dt * forces
        before = self._kinetic(momenta)
        momenta /= growth
        # The copy of the cell keeps what ASE knows of it; positions follow by hand.
        atoms.set_cell(atoms.cell * growth, scale_atoms=False)
        atoms.set_positions(atoms.get_positions() * growth + self.dt * momenta / self._masses)
        atoms.set_momenta(momenta, apply_constraint=False)
        forces = atoms.get_forces(md=True)
        atoms.set_momenta(momenta + 0.5 * self.dt * forces)
        # What the scaling did to the potential energy, by the trapezoid rule: the drift between
        # the two virials does not know of the noise in the strain, so that it averages out.
        self._after = self._virial()
        self.barostat_work += before * (growth**-2 - 1.0) - 0.5 * (virial + self._after) * strain
        return forces

    def _draw_strain(self, virial: float) -> float:
        """Return a change of ln V; ``virial`` is the volume times its part of the pressure."""
        volume = self.atoms.get_volume()
        kinetic = 2.0 * self.atoms.get_kinetic_energy() / 3.0 + self.temp
        drift = self.rate * ((kinetic + virial) / volume - self.pressure)
        noise = math.sqrt(2.0 * self.temp * self.rate / volume) * self.rng.standard_normal()
        # Only a box that is far from equilibrium, such as a freshly packed one, meets the bound.
        return min(max(drift, -LARGEST_STRAIN), LARGEST_STRAIN) + noise

    def _virial(self) -> float:
        return float(-self.atoms.get_stress()[:3].mean() * self.atoms.get_volume())

    def _kinetic(self, momenta: np.ndarray) -> float:
        return float(0.5 * np.sum(momenta**2 / self._masses))


def make_integrator(
    atoms: Atoms, options: Any, ensemble: str, rng: np.random.Generator, dof: int
) -> VelocityVerlet:
    """Return the integrator of an ensemble, with the settings of `DynamicsOptions`."""
    step = options.timestep * units.fs
    if ensemble == "nve":
        return VelocityVerlet(atoms, step)
    taut = options.thermostat_time * units.fs
    if ensemble == "nvt":
        integrator = Bussi(atoms, step, options.temperature, taut, rng=rng)
    else:
        integrator = StochasticCell(
            atoms,
            step,
            options.temperature,
            taut,
            taup=options.barostat_time * units.fs,
            pressure=options.pressure * BAR,
            compressibility=options.compressibility / BAR,
            rng=rng,
        )
    # ASE counts 3N where nothing is constrained.
    integrator.ndof = dof
    integrator.target_kinetic_energy = 0.5 * integrator.temp * dof
    return integrator


def conserved_energy(atoms: Atoms, integrator: VelocityVerlet) -> float:
    """Return the total energy less what thermostat and barostat have put in, in eV."""
    heat = getattr(integrator, "transferred_energy", 0.0)
    work = getattr(integrator, "barostat_work", 0.0)
    return float(atoms.get_potential_energy() + atoms.get_kinetic_energy() - heat - work)
