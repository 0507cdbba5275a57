"""Labels that a user can make: GFN2-xTB and DFT as teachers, fanned out and kept on disk.

A teacher takes a sequence of `ase.Atoms`. The total charge is ``atoms.info["total_charge"]`` (0 if
it is not there), and all shells are closed::

    frames = label_structures(structures, XTBTeacher(), "labels", n_jobs=2).frames
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from scikd._extras import require
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError, TeacherError
from scikd.fingerprints import fingerprint_inputs
from scikd.labels import LabelStore, StoredLabels
from scikd.parallel import fan_out

from ._chelpg import fit_charges, grid_around, potential_of
from .frames import from_ase
from .readers import write_frames
from .teachers import CONVERGED, PROPERTIES, Structures, StructureTeacher
from .units import BOHR, HARTREE, stress_from_virial

__all__ = [
    "METHODS",
    "DFTTeacher",
    "Failures",
    "LabelledStructures",
    "XTBTeacher",
    "label_structures",
]

Failures = Literal["raise", "drop"]
METHODS = ("GFN2-xTB", "GFN1-xTB", "IPEA1-xTB")
"""The Hamiltonians that tblite knows."""

# Hartree; tblite's own, of CODATA 2018, which differs from ours by 6e-7: labels stay what they are.
KELVIN = 3.166808578545117e-06


class XTBTeacher(StructureTeacher):
    """Extended tight binding through tblite.

    Parameters
    ----------
    method : {"GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"}, default="GFN2-xTB"
        The Hamiltonian.
    properties : sequence of str, default=("energy", "forces", "charges", "dipole")
        What to compute; also ``"stress"``.
    accuracy : float, default=0.1
        tblite's factor on thresholds; 1 is its own default, smaller is tighter.
    electronic_temperature : float, default=300.0
        In K.
    max_iterations : int, default=250
        Of the self-consistent charges.
    name : str or None, default=None
        Name of the teacher; the method's if None.

    Notes
    -----
    Charges are Mulliken charges; the dipole also holds atomic dipoles, so it is not the sum of
    charges times positions. Energies are total electronic and nuclear ones, with dispersion.
    """

    periodic = True

    def __init__(
        self,
        method: Literal["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"] = "GFN2-xTB",
        *,
        properties: Sequence[str] = PROPERTIES,
        accuracy: float = 0.1,
        electronic_temperature: float = 300.0,
        max_iterations: int = 250,
        name: str | None = None,
    ) -> None:
        super().__init__(name or method, properties)
        if method not in METHODS:
            message = f"Expected a method of {', '.join(METHODS)}; got {method!r}."
            raise InvalidInputError(message)
        self.method = method
        self.accuracy = accuracy
        self.electronic_temperature = electronic_temperature
        self.max_iterations = max_iterations

    @property
    def fingerprint(self) -> str:
        """Digest of settings and of the version of tblite."""
        settings = [self.method, list(self.properties), self.accuracy, self.electronic_temperature]
        return fingerprint_inputs([*settings, self.max_iterations, metadata.version("tblite")])

    def _label(self, atoms: Atoms, charge: int) -> Mapping[str, np.ndarray | float]:
        interface = require("tblite.interface", extra="md", feature="Labelling by xTB")
        periodic = bool(atoms.pbc.all())
        lattice = np.asarray(atoms.cell) / BOHR if periodic else None
        calculator = interface.Calculator(
            self.method,
            atoms.numbers,
            atoms.positions / BOHR,
            charge=float(charge),
            lattice=lattice,
            periodic=atoms.pbc if periodic else None,
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", self.accuracy)
        calculator.set("max-iter", self.max_iterations)
        calculator.set("temperature", self.electronic_temperature * KELVIN)
        try:
            result = calculator.singlepoint()
        except interface.TBLiteRuntimeError as error:
            raise ArithmeticError(" ".join(str(error).split())) from error
        labels = {
            "energy": float(result["energy"]) * HARTREE,
            "forces": -result["gradient"] * HARTREE / BOHR,
            "charges": result["charges"],
            "dipole": result["dipole"] * BOHR,
        }
        if periodic:
            # What tblite calls virial is dE/dε.
            labels["stress"] = stress_from_virial(-result["virial"] * HARTREE, atoms.cell.volume)
        return {name: labels[name] for name in self.properties}


class DFTTeacher(StructureTeacher):
    """Density-functional theory through PySCF, for free clusters.

    The defaults are the level of the BAMBOO data: B3LYP/def2-SVPD without dispersion, ChElPG
    charges; here the Coulomb and exchange integrals are density-fitted.

    Parameters
    ----------
    xc : str, default="B3LYP"
        Functional, by PySCF's name.
    basis : str, default="def2-SVPD"
        Basis set, by PySCF's name.
    properties : sequence of str, default=("energy", "forces", "charges", "dipole")
        What to compute.
    density_fit : bool, default=True
        Whether integrals are density-fitted.
    grid_level : int, default=3
        PySCF's level of the integration grid.
    tolerance : float, default=1e-8
        Convergence of the energy in Hartree.
    max_iterations : int, default=100
        Of the self-consistent field.
    name : str or None, default=None
        Name of the teacher; ``"B3LYP/def2-SVPD"`` and the like if None.

    Notes
    -----
    Forces hold the response of the integration grid, so that they are the derivative of the energy.
    """

    def __init__(
        self,
        xc: str = "B3LYP",
        basis: str = "def2-SVPD",
        *,
        properties: Sequence[str] = PROPERTIES,
        density_fit: bool = True,
        grid_level: int = 3,
        tolerance: float = 1e-8,
        max_iterations: int = 100,
        name: str | None = None,
    ) -> None:
        super().__init__(name or f"{xc}/{basis}", properties)
        self.xc = xc
        self.basis = basis
        self.density_fit = density_fit
        self.grid_level = grid_level
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    @property
    def fingerprint(self) -> str:
        """Digest of settings and of the version of PySCF."""
        settings = [self.xc, self.basis, list(self.properties), self.density_fit, self.grid_level]
        settings += [self.tolerance, self.max_iterations, metadata.version("pyscf")]
        return fingerprint_inputs(settings)

    def _label(self, atoms: Atoms, charge: int) -> Mapping[str, np.ndarray | float]:
        gto = require("pyscf.gto", extra="dft", feature="DFT labels")
        dft = require("pyscf.dft", extra="dft", feature="DFT labels")
        molecule = gto.M(
            atom=list(zip(atoms.symbols, atoms.positions, strict=True)),
            basis=self.basis,
            charge=charge,
            unit=f"{BOHR}",  # ASE's Bohr, so that lengths convert as everywhere else
            verbose=0,
        )
        field = dft.RKS(molecule, xc=self.xc)
        field = field.density_fit() if self.density_fit else field
        field.grids.level = self.grid_level
        field.conv_tol = self.tolerance
        field.max_cycle = self.max_iterations
        energy = field.kernel()
        if not field.converged:
            message = f"no convergence in {self.max_iterations} iterations"
            raise ArithmeticError(message)
        labels: dict[str, np.ndarray | float] = {"energy": float(energy) * HARTREE}
        if "forces" in self.properties:
            gradients = field.nuc_grad_method()
            gradients.grid_response = True
            labels["forces"] = -gradients.kernel() * HARTREE / BOHR
        if "charges" in self.properties:
            radii = _bondi_radii(atoms.numbers)
            points = grid_around(atoms.positions, radii)
            potential = potential_of(molecule, field.make_rdm1(), points)
            labels["charges"] = fit_charges(atoms.positions, points, potential, charge)
        if "dipole" in self.properties:
            labels["dipole"] = field.dip_moment(unit="AU", verbose=0) * BOHR
        return {name: labels[name] for name in self.properties}


def _bondi_radii(numbers: np.ndarray) -> np.ndarray:
    radii = require("pyscf.data.radii", extra="dft", feature="DFT labels").VDW * BOHR
    return np.where(numbers == 1, 1.1, radii[numbers])


@dataclass(frozen=True)
class LabelledStructures:
    """Structures with labels.

    Parameters
    ----------
    frames : list of ase.Atoms
        Copies of the structures that converged, with the labels in a `SinglePointCalculator`.
    failures : tuple of int
        Indices of the structures that did not converge.
    labels : StoredLabels
        All labels as stored, those of ``failures`` included (as zeros).
    """

    frames: list[Atoms]
    failures: tuple[int, ...]
    labels: StoredLabels


def label_structures(
    structures: Sequence[Atoms],
    teacher: StructureTeacher,
    store: LabelStore | str | Path,
    *,
    n_jobs: int | None = None,
    batch_size: int = 64,
    failures: Failures = "raise",
    output: str | Path | None = None,
    progress: Progress = "auto",
) -> LabelledStructures:
    """Label structures, in parallel, so that a killed run goes on where it was.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Free clusters or periodic boxes, with ``info["total_charge"]`` where it is not 0.
    teacher : StructureTeacher
        `XTBTeacher`, `DFTTeacher`, or one of your own.
    store : LabelStore, str or pathlib.Path
        Where labels are kept, or the folder of it.
    n_jobs : int or None, default=None
        As in joblib; see `scikd.parallel.fan_out`. A teacher that threads on its own wants 1.
    batch_size : int, default=64
        Structures that are labelled before they are written to disk.
    failures : {"raise", "drop"}, default="raise"
        What to do with structures that do not converge. They are logged in any case.
    output : str, pathlib.Path or None, default=None
        A file (extended XYZ or HDF5, by its name) to write the frames to.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Returns
    -------
    LabelledStructures
        Frames with labels, and what was left out.

    Raises
    ------
    TeacherError
        If structures do not converge and ``failures="raise"``: once all are labelled, so that
        nothing is computed twice when it is called again to drop them.
    InvalidInputError
        If a structure cannot be labelled by this teacher: odd electrons, wrong periodicity.
    StorageError
        If writing fails. Finished batches stay.
    """
    if failures not in {"raise", "drop"}:
        message = f"Expected failures='raise' or 'drop'; got {failures!r}."
        raise InvalidInputError(message)
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    inputs = Structures(structures)
    for number, atoms in enumerate(inputs):  # before hours of work, not after
        teacher.check_structure(atoms, number)
    labels = store.label(
        _FannedOut(teacher, n_jobs), inputs, batch_size=batch_size, progress=progress
    )
    bad = tuple(int(number) for number in np.flatnonzero(labels["converged"] == 0.0))
    if bad and failures == "raise":
        formulas = ", ".join(f"{i} ({inputs[i].symbols})" for i in bad[:5])
        message = (
            f"{teacher.name} did not converge for {len(bad)} of {len(inputs)} structures: "
            f"{formulas}{', ...' if len(bad) > 5 else ''}. Look at them, or pass failures='drop'."
        )
        raise TeacherError(message)
    frames = [
        atoms for number, atoms in enumerate(_with_labels(inputs, labels)) if number not in bad
    ]
    if output is not None:
        write_frames(output, from_ase(frames), level=teacher.name)
    return LabelledStructures(frames, bad, labels)


class _FannedOut:
    """A teacher that labels the structures of a batch side by side; the labels are the same."""

    def __init__(self, teacher: StructureTeacher, n_jobs: int | None) -> None:
        self.name = teacher.name
        self.fingerprint = teacher.fingerprint
        self.quantities = teacher.quantities
        self._teacher = teacher
        self._n_jobs = n_jobs

    def predict(self, X: Structures, /) -> Mapping[str, np.ndarray]:
        tasks = [(self._teacher, [atoms]) for atoms in X]
        parts = list(fan_out(_predict_one, tasks, n_jobs=self._n_jobs, progress=False))
        return {
            quantity.name: np.concatenate([part[quantity.name] for part in parts])
            for quantity in self.quantities
        }


def _predict_one(teacher: StructureTeacher, frames: list[Atoms]) -> dict[str, np.ndarray]:
    return teacher.predict(frames)


def _with_labels(structures: Structures, labels: StoredLabels) -> Iterator[Atoms]:
    """Yield copies of the structures with their labels."""
    stop = 0
    for number, atoms in enumerate(structures):
        start, stop = stop, stop + len(atoms)
        results = {}
        for quantity in labels.quantities:
            if quantity.name != CONVERGED.name:
                rows = labels[quantity.name]
                value = rows[start:stop] if quantity.per == "atom" else rows[number]
                results[quantity.name] = np.array(value) if value.ndim else float(value)
        labelled = atoms.copy()
        labelled.calc = SinglePointCalculator(labelled, **results)
        yield labelled
