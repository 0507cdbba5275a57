"""How a run of dynamics begins: a structure, its masses, a short minimisation, velocities."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import FIRE

from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError, StorageError

from ._integrators import degrees_of_freedom, temperature_of
from .frames import from_ase
from .molecules import Mixture, parse_mixture
from .packing import pack_box

__all__ = [
    "content_of",
    "draw_velocities",
    "file_or_mixture",
    "load_or_pack",
    "mixture_of",
    "move_mass_to_hydrogen",
    "relax",
]

logger = logging.getLogger(__name__)

LOOSE = 0.9  # density of a freshly packed box over that which was asked for
UNLIKE = 0.25  # how far mole fractions may be from those asked for, relative, without a warning
LARGEST_FORCE = 0.2  # eV/Å, where minimisation ends
LARGEST_MOVE = 0.05  # Å per step of minimisation
SUFFIXES = (".xyz", ".extxyz", ".pdb", ".cif", ".vasp", ".traj", ".db", ".json", ".gro", ".data")


def load_or_pack(
    liquid: str, n_atoms: int, density: float | None, seed: int, *, loosely: bool
) -> tuple[Atoms, float | None]:
    """Return the last structure of a file, or a freshly packed box of a mixture.

    Parameters
    ----------
    liquid : str
        Path, or text that `scikd.md.molecules.parse_mixture` reads.
    n_atoms : int
        About how many atoms to pack.
    density : float or None
        Of the box in the end, in g/cm³; None is the mixture's own guess.
    seed : int
        Seed of places and orientations.
    loosely : bool
        Whether to pack at a lower density, since the box will be equilibrated.

    Returns
    -------
    ase.Atoms
        The structure.
    float or None
        The density to go to, in g/cm³; None is to stay.

    Raises
    ------
    InvalidInputError
        If the mixture cannot be read.
    StorageError
        If the file is missing or cannot be read.
    """
    mixture = file_or_mixture(liquid)
    if isinstance(mixture, Path):
        return _read(mixture), density
    density = mixture.density if density is None else density
    packed = LOOSE * density if loosely else density
    counts = mixture.counts(n_atoms=n_atoms)
    share = {name: count / sum(counts.values()) for name, count in counts.items()}
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    if any(abs(share[name] / part - 1.0) > UNLIKE for name, part in mixture.items()):
        logger.warning("packing %s: far from %s; take more atoms", text, liquid)
    else:
        logger.info("packing %s", text)
    return pack_box(mixture, n_atoms=n_atoms, density=packed, seed=seed), density


def file_or_mixture(liquid: str) -> Path | Mixture:
    """Return the file of a box, if there is one, or else the mixture.

    Raises
    ------
    InvalidInputError
        If the mixture cannot be read.
    StorageError
        If it looks like a path, and there is no file.
    """
    mixture = mixture_of(liquid)
    if mixture is not None:
        return mixture
    path = Path(liquid)
    if not path.is_file():
        message = (
            f"There is no file {path}. Check the path, or give a mixture: 'EC:DMC 1:1', or "
            "'EC:EMC 3:7 by mass'."
        )
        raise StorageError(message)
    return path


def mixture_of(liquid: str) -> Mixture | None:
    """Return a mixture; None for a path, of which the run says whether there is a file.

    Raises
    ------
    InvalidInputError
        If the mixture cannot be read.
    """
    path = Path(liquid)
    is_path = path.is_file() or path.parent != Path() or path.suffix.lower() in SUFFIXES
    return None if is_path else parse_mixture(liquid)


def content_of(liquid: str) -> object:
    """Return what liquids that are the same share, in whatever order their parts are named.

    Raises
    ------
    InvalidInputError
        If the mixture cannot be read.
    """
    mixture = mixture_of(liquid)
    if mixture is None:
        return str(Path(liquid).resolve())
    return tuple(sorted((name, round(part, 9)) for name, part in mixture.items()))


def _read(path: Path) -> Atoms:
    try:
        (found,) = read(path, index="-1:")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError) and re.fullmatch("[A-Z][a-z]{0,2}", str(error.args[0])):
            reason = f"{error.args[0]!r} is not the symbol of an element"
        message = (
            f"Could not read a structure from {path}: {reason}. Expected a file that ASE reads; "
            "correct it."
        )
        raise StorageError(message) from error
    batch = from_ase(found)  # which looks for what cannot be a structure
    atoms = Atoms(found.numbers, found.positions, cell=found.cell, pbc=found.pbc)
    atoms.info["total_charge"] = float(batch.total_charge[0])
    if (batch.molecules >= 0).all():
        atoms.set_array("molecules", batch.molecules.numpy())
    return atoms


def move_mass_to_hydrogen(atoms: Atoms, mass: float) -> None:
    """Make hydrogen heavier, at the expense of what it is bonded to.

    Averages over positions do not depend on masses; slower hydrogen allows a longer time step.

    Parameters
    ----------
    atoms : ase.Atoms
        Changed in place.
    mass : float
        Of hydrogen, in u.

    Raises
    ------
    InvalidInputError
        If hydrogen would weigh more than what it is bonded to.
    """
    masses = atoms.get_masses()
    cutoffs = natural_cutoffs(atoms, mult=1.25)
    i, j, distances = neighbor_list("ijd", atoms, cutoffs)
    heavy = (atoms.numbers[i] == 1) & (atoms.numbers[j] != 1)
    order = np.argsort(distances[heavy], kind="stable")
    hydrogens, first = np.unique(i[heavy][order], return_index=True)
    carriers = j[heavy][order][first]
    np.subtract.at(masses, carriers, mass - masses[hydrogens])
    masses[hydrogens] = mass
    if masses[carriers].min(initial=np.inf) < mass:
        message = (
            f"Expected a mass of hydrogen that leaves its neighbours heavier; got {mass} u, with "
            f"which an atom would weigh {masses[carriers].min():.2f} u. 2 to 3 u is usual."
        )
        raise InvalidInputError(message)
    atoms.set_masses(masses)


def relax(atoms: Atoms, steps: int, progress: Progress = "auto") -> None:
    """Minimise for a while, in place, so that no strong force is left from packing."""
    if not steps:
        return
    logger.info("minimising %d atoms, at most %d steps", len(atoms), steps)
    optimizer = FIRE(atoms, logfile=None, maxstep=LARGEST_MOVE)
    going = optimizer.irun(fmax=LARGEST_FORCE, steps=steps)
    for _ in track(going, total=steps, description="minimisation", progress=progress):
        pass
    largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
    logger.info("minimised in %d steps to %.2f eV/Å on an atom", optimizer.nsteps, largest)


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> int:
    """Draw velocities at exactly this temperature (K), and return the degrees of freedom."""
    dof = degrees_of_freedom(atoms)
    masses = atoms.get_masses()[:, None]
    velocities = rng.standard_normal((len(atoms), 3)) * np.sqrt(temperature * units.kB / masses)
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    if not atoms.pbc.any():
        arms = atoms.positions - atoms.get_center_of_mass()
        momentum = np.cross(arms, masses * velocities).sum(axis=0)
        inertia = np.einsum("na,na->", arms, masses * arms) * np.eye(3) - arms.T @ (masses * arms)
        # The pseudo-inverse, as a line of atoms cannot turn about itself.
        velocities -= np.cross(np.linalg.pinv(inertia, rcond=1e-6) @ momentum, arms)
    atoms.set_momenta(masses * velocities)
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(temperature / temperature_of(atoms, dof)))
    return dof
