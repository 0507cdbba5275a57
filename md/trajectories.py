"""A liquid over time, as the property calculators take it: molecules, charges, unwrapped positions.

What is derived from a run needs a few facts beside the frames: which atoms form a molecule, what
charge that carries, the temperature, and whether the volume was constant. `read_trajectory` finds
them in the folder of a run, and takes them as arguments for any other file that ASE reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.formula import Formula
from ase.io import iread

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError

from ._recording import RECORD
from ._trajectory import CHECKPOINT, FRAMES, Recorder
from .dynamics_report import read_log
from .frames import find_molecules
from .molecules import SPECIES, get_species
from .records import PressureRecord, read_pressures
from .units import GRAM_PER_CM3

__all__ = ["Trajectory", "read_trajectory", "species_of"]

FARTHEST = 0.4  # of the box, that an atom may move between two frames to be followed
STEADY = 1e-9  # relative change of a volume that is constant
EQUAL_STEPS = 1e-3


@dataclass(frozen=True)
class Trajectory:
    """Frames of one periodic liquid at equal steps in time.

    Attributes
    ----------
    positions : ndarray of shape (n_frames, n_atoms, 3)
        In Å, not wrapped into the box: an atom that leaves it goes on.
    cells : ndarray of shape (n_frames, 3, 3)
        Lattice vectors in Å, as rows.
    times_ps : ndarray of shape (n_frames,)
        In ps.
    numbers : ndarray of shape (n_atoms,)
        Atomic numbers.
    molecules : ndarray of shape (n_atoms,)
        Molecule of each atom, from 0.
    charges : ndarray of shape (n_molecules,)
        Formal charge of each molecule in e.
    names : tuple of str, of length n_molecules
        Species of each molecule, such as "EC"; the formula of one that has no name.
    temperature : float or None
        In K.
    density : tuple of ndarray, or None
        Times in ps and densities in g/cm³ of a log that was written more often than the frames.
    pressures : PressureRecord or None
        Pressure tensor every few steps.
    acceleration : float
        Amplitude in Å/ps² of a force that drove a flow; 0 in equilibrium.
    """

    positions: np.ndarray
    cells: np.ndarray
    times_ps: np.ndarray
    numbers: np.ndarray
    molecules: np.ndarray
    charges: np.ndarray
    names: tuple[str, ...]
    temperature: float | None = None
    density: tuple[np.ndarray, np.ndarray] | None = None
    pressures: PressureRecord | None = None
    acceleration: float = 0.0

    def __post_init__(self) -> None:
        n_frames, n_atoms = self.positions.shape[:2]
        n_molecules = int(self.molecules.max(initial=-1)) + 1
        shapes = {
            "positions": (self.positions.shape, (n_frames, n_atoms, 3)),
            "cells": (self.cells.shape, (n_frames, 3, 3)),
            "times_ps": (self.times_ps.shape, (n_frames,)),
            "numbers": (self.numbers.shape, (n_atoms,)),
            "molecules": (self.molecules.shape, (n_atoms,)),
            "charges": (self.charges.shape, (n_molecules,)),
            "names": ((len(self.names),), (n_molecules,)),
        }
        problems = [
            f"{name} of shape {wanted}, got {got}"
            for name, (got, wanted) in shapes.items()
            if got != wanted
        ]
        if n_frames < 2 or n_atoms == 0:
            problems.append(f"two frames or more, of atoms, got {n_frames} of {n_atoms}")
        if not np.isfinite(self.positions).all():
            problems.append("finite positions")
        if not (np.abs(np.linalg.det(self.cells)) > 0).all():
            problems.append("boxes with a volume")
        steps = np.diff(self.times_ps)
        if len(steps) and not (steps > 0).all():
            problems.append("times that grow")
        elif len(steps) and np.ptp(steps) > EQUAL_STEPS * steps.mean():
            problems.append(f"frames at equal steps, got steps from {steps.min():.4g} ps to "
                            f"{steps.max():.4g} ps")  # fmt: skip
        if self.temperature is not None and not self.temperature > 0:
            problems.append(f"temperature > 0 K or None, got {self.temperature}")
        if problems:
            raise InvalidInputError(f"Expected {'; '.join(problems)}.")

    @property
    def interval_ps(self) -> float:
        """Time between two frames in ps."""
        return float((self.times_ps[-1] - self.times_ps[0]) / (len(self.times_ps) - 1))

    @property
    def duration_ps(self) -> float:
        """Time from the first frame to the last in ps."""
        return float(self.times_ps[-1] - self.times_ps[0])

    @cached_property
    def masses(self) -> np.ndarray:
        """Atomic masses in u, of shape (n_atoms,)."""
        return np.asarray(atomic_masses[self.numbers], dtype=np.float64)

    @cached_property
    def volumes(self) -> np.ndarray:
        """Volume of each frame in Å³, of shape (n_frames,)."""
        return np.abs(np.linalg.det(self.cells))

    @property
    def densities(self) -> np.ndarray:
        """Density of each frame in g/cm³, of shape (n_frames,)."""
        return self.masses.sum() / self.volumes / GRAM_PER_CM3

    @property
    def constant_volume(self) -> bool:
        """Whether the box keeps its volume."""
        return float(np.ptp(self.volumes)) <= STEADY * float(self.volumes.mean())

    @property
    def species(self) -> tuple[str, ...]:
        """Names that occur, sorted."""
        return tuple(sorted(set(self.names)))

    def members(self, name: str) -> np.ndarray:
        """Return the molecules of a species.

        Raises
        ------
        InvalidInputError
            If there is none.
        """
        found = np.flatnonzero(np.asarray(self.names) == name)
        if not len(found):
            message = f"There is no {name!r} in this liquid of {', '.join(self.species)}."
            raise InvalidInputError(message)
        return found

    @cached_property
    def centres(self) -> np.ndarray:
        """Centres of mass of the molecules in Å, of shape (n_frames, n_molecules, 3).

        In the frame of the centre of mass of all, which a run may let drift.
        """
        n_molecules = len(self.names)
        masses = np.bincount(self.molecules, weights=self.masses, minlength=n_molecules)
        centres = np.zeros((len(self.positions), n_molecules, 3))
        order = np.argsort(self.molecules, kind="stable")
        first = np.searchsorted(self.molecules[order], np.arange(n_molecules))
        weighted = self.positions[:, order] * self.masses[order, None]
        centres = np.add.reduceat(weighted, first, axis=1) / masses[:, None]
        whole = np.einsum("tmc,m->tc", centres, masses) / masses.sum()
        return centres - whole[:, None]

    def require_steady(self, what: str, *, driven: bool = False) -> tuple[float, float]:
        """Return temperature in K and volume in Å³, if a transport coefficient has a meaning.

        Parameters
        ----------
        what : str
            The coefficient, as the subject of a sentence.
        driven : bool, default=False
            Whether a flow may be driven.

        Raises
        ------
        InvalidInputError
            If the temperature is unknown, the volume changes, or a flow is driven.
        """
        if self.temperature is None:
            message = f"{what} needs the temperature. Give it (in K)."
            raise InvalidInputError(message)
        if not self.constant_volume:
            message = (
                f"{what} needs a constant volume: a barostat moves all atoms with the box. Run "
                "'nvt' or 'nve' at the mean density of this run."
            )
            raise InvalidInputError(message)
        if self.acceleration and not driven:
            message = (
                f"{what} needs a liquid in equilibrium; here an acceleration of "
                f"{self.acceleration:g} Å/ps² drives a flow. Run without it."
            )
            raise InvalidInputError(message)
        return self.temperature, float(self.volumes[0])

    def after(self, time_ps: float) -> Trajectory:
        """Return the part from a time in ps on.

        Raises
        ------
        InvalidInputError
            If fewer than two frames are left.
        """
        kept = self.times_ps >= time_ps - 1e-9
        if kept.sum() < 2:
            message = (
                f"The frames go from {self.times_ps[0]:.4g} ps to {self.times_ps[-1]:.4g} ps: "
                f"fewer than two are left from {time_ps:.4g} ps on. Begin earlier."
            )
            raise InvalidInputError(message)
        density = self.density
        if density is not None:
            late = density[0] >= time_ps - 1e-9
            density = density[0][late], density[1][late]
        return replace(
            self,
            positions=self.positions[kept],
            cells=self.cells[kept],
            times_ps=self.times_ps[kept],
            density=density,
            pressures=None if self.pressures is None else self.pressures.after(time_ps),
        )


def read_trajectory(
    path: str | Path,
    *,
    interval_ps: float | None = None,
    temperature: float | None = None,
    charges: Mapping[str, int] | None = None,
    stride: int = 1,
) -> Trajectory:
    """Read the folder of a run of dynamics, or any trajectory that ASE reads.

    Parameters
    ----------
    path : str or pathlib.Path
        Folder of `scikd.md.run_dynamics`, whose equilibration is left out; or a file.
    interval_ps : float or None, default=None
        Time between two frames of the file in ps; None takes the times in the file, as scikd writes
        them.
    temperature : float or None, default=None
        In K; None takes the run's.
    charges : mapping of str to int, or None
        Formal charges in e of ions that `scikd.md.molecules` does not know, by formula in Hill's
        order, such as ``{"NO3": -1}``.
    stride : int, default=1
        Take every so many frames.

    Returns
    -------
    Trajectory
        Positions of a file that were wrapped are followed from frame to frame.

    Raises
    ------
    StorageError
        If the file is missing, or ASE cannot read it.
    CorruptFileError
        If frames differ in their atoms.
    InvalidInputError
        If there are no times, the liquid is not periodic, the charges do not sum to zero, or frames
        lie so far apart that wrapped atoms cannot be followed.
    """
    path = Path(path)
    facts: dict[str, Any] = {}
    if path.is_dir():
        facts = _facts_of_run(path)
        path = path / FRAMES
    if stride < 1:
        message = f"Expected a stride of at least 1; got {stride}."
        raise InvalidInputError(message)
    frames = _read_frames(path, stride)
    times = _times(frames, path, interval_ps, stride)
    kept = times >= 0 if facts else np.ones(len(times), dtype=bool)
    frames = [frame for frame, keep in zip(frames, kept, strict=True) if keep]
    if len(frames) < 2:
        message = f"Expected two frames or more in {path} (after equilibration); got {len(frames)}."
        raise InvalidInputError(message)
    cells = np.array([frame.cell[:] for frame in frames])
    positions = np.array([frame.positions for frame in frames])
    if not facts:  # a run does not wrap, so that its frames may lie far apart
        positions = _unwrapped(positions, cells)
    molecules = _molecules(frames[0])
    names, formal = _name_molecules(frames[0].numbers, molecules, charges or {})
    if temperature is not None:
        facts["temperature"] = temperature
    return Trajectory(
        positions, cells, times[kept], frames[0].numbers, molecules, formal, names, **facts
    )


def _facts_of_run(folder: Path) -> dict[str, Any]:
    found = Recorder(folder).load()
    if found is None:
        message = f"{folder} holds no {CHECKPOINT} of a run. Give the file of a trajectory."
        raise StorageError(message)
    settings = found[0].state["settings"]
    log = read_log(folder)
    log = log[log["time_ps"] >= 0]
    facts: dict[str, Any] = {"acceleration": float(settings.get("acceleration", 0.0))}
    # At constant energy the temperature is what the run made of it.
    held = settings["ensemble"] != "nve" or log.empty
    facts["temperature"] = settings["temperature"] if held else log["temperature_K"].mean()
    if log["density_g_cm3"].notna().all():
        facts["density"] = log["time_ps"].to_numpy(), log["density_g_cm3"].to_numpy()
    if (folder / RECORD).exists():
        facts["pressures"] = read_pressures(folder)
    return facts


def _read_frames(path: Path, stride: int) -> list[Atoms]:
    if not path.is_file():
        message = f"There is no file {path}. Give the folder of a run, or a trajectory."
        raise StorageError(message)
    try:
        reading = itertools.islice(iread(str(path), index=":"), 0, None, stride)
        frames = list(reading)
    except Exception as error:
        message = (
            f"Could not read a trajectory from {path}: {type(error).__name__}: {error}. Expected a "
            "file that ASE reads; correct it."
        )
        raise StorageError(message) from error
    for place, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, frames[0].numbers):
            message = f"Frame {place * stride} of {path} holds other atoms than the first."
            raise CorruptFileError(message)
        if not frame.pbc.all():
            message = (
                f"Expected a liquid that is periodic in three directions; frame {place * stride} "
                f"of {path} has pbc={frame.pbc.tolist()}."
            )
            raise InvalidInputError(message)
    return frames


def _times(
    frames: Sequence[Atoms], path: Path, interval_ps: float | None, stride: int
) -> np.ndarray:
    if interval_ps is not None:
        if not interval_ps > 0:
            message = f"Expected a positive interval between frames; got {interval_ps} ps."
            raise InvalidInputError(message)
        return np.arange(len(frames)) * interval_ps * stride
    if any("time_ps" not in frame.info for frame in frames):
        message = f"{path} does not say the times of its frames. Give interval_ps."
        raise InvalidInputError(message)
    return np.array([float(frame.info["time_ps"]) for frame in frames])


def _unwrapped(positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return positions that are followed across the faces of the box, if they were wrapped."""
    inverse = np.linalg.inv(cells)
    steps = np.einsum("tnc,tcd->tnd", np.diff(positions, axis=0), inverse[1:])
    if np.abs(steps).max(initial=0.0) <= FARTHEST:
        return positions
    jumps = np.rint(steps)
    if not jumps.any() or np.abs(steps - jumps).max() > FARTHEST:
        message = (
            "Frames lie too far apart: between two of them an atom moves by more than "
            f"{FARTHEST:g} of the box, and cannot be followed across its faces. Store frames more "
            "often, or positions that are not wrapped."
        )
        raise InvalidInputError(message)
    # The steps are added up, not the cells, so that a box that changes adds no displacement.
    moves = np.einsum("tnc,tcd->tnd", steps - jumps, cells[1:])
    return np.concatenate([positions[:1], positions[0] + np.cumsum(moves, axis=0)])


def species_of(atoms: Atoms) -> tuple[str, ...]:
    """Return the names of the species in a box, or the formula of those that are not known.

    Parameters
    ----------
    atoms : ase.Atoms
        With an array ``molecules``, or else by its bonds.

    Raises
    ------
    InvalidInputError
        If the formal charges of the ions do not cancel.
    """
    return tuple(sorted(set(_name_molecules(atoms.numbers, _molecules(atoms), {})[0])))


def _molecules(atoms: Atoms) -> np.ndarray:
    given = atoms.arrays.get("molecules")
    ids = given if given is not None and (given >= 0).all() else find_molecules(atoms)
    return np.unique(ids, return_inverse=True)[1]


def _name_molecules(
    numbers: np.ndarray, molecules: np.ndarray, given: Mapping[str, int]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the name and the formal charge of each molecule, by formula."""
    known = {}
    for name in SPECIES:
        species = get_species(name)
        known[_hill(species.conformers[0].symbols.get_chemical_formula())] = name, species.charge
    known |= {_hill(text): (_hill(text), int(charge)) for text, charge in given.items()}
    names, charges = [], []
    for index in range(int(molecules.max()) + 1):
        symbols = Atoms(numbers[molecules == index]).symbols
        formula = _hill(symbols.get_chemical_formula())
        name, charge = known.get(formula, (formula, 0))
        names.append(name)
        charges.append(charge)
    if sum(charges):
        counts = {name: names.count(name) for name in sorted(set(names))}
        message = (
            f"Expected a neutral liquid; the charges of {counts} sum to {sum(charges):+d} e. Give "
            "the charges of ions that are not known, by formula: {'NO3': -1}."
        )
        raise InvalidInputError(message)
    return tuple(names), np.array(charges, dtype=np.float64)


def _hill(formula: str) -> str:
    return Formula(formula).format("hill")
