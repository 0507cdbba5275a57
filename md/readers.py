"""Files of structures and labels: extended XYZ, ASE databases, DeePMD folders, HDF5.

Our HDF5 layout, schema 1. Atoms of all structures stand one after another; labels are there if any
structure has them, with NaN where one has not::

    attributes      format = "scikd.frames", schema = 1, units = JSON of names to units,
                    level = the level of theory, or ""
    /n_atoms        (n_structures,)         int64
    /positions      (all atoms, 3)          float64 or float32
    /numbers        (all atoms,)            int64
    /molecules      (all atoms,)            int64, -1 where unknown
    /cell           (n_structures, 3, 3)
    /pbc            (n_structures, 3)       bool
    /total_charge   (n_structures,)
    /group          (n_structures,)         int64, -1 where unknown; may be absent
    /energy  /forces  /stress  /charges  /dipole
"""

from __future__ import annotations

import io
import itertools
import math
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import torch
from ase import Atoms

from scikd._atomic import atomic_write_bytes, storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError

from ._deepmd import read_deepmd
from ._hdf5 import UNITS, hdf5_bytes, read_hdf5
from ._labels import PER_ATOM, group_of, labels_of, molecules_of, require_keys, total_charge_of
from .frames import AtomicBatch, check_geometry, from_ase, to_ase
from .units import check_magnitudes, convert

__all__ = ["LabelKeys", "LabelUnits", "read_frames", "write_frames"]

SUFFIXES = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".db": "db",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".traj": "traj",
}
# What ASE raises on a file that is cut short or garbled, depending on where.
BROKEN = (ValueError, KeyError, IndexError, EOFError, AttributeError, TypeError, RuntimeError)
FORMATS = ("db", "deepmd", "extxyz", "hdf5", "traj")
TARGETS = UNITS | {"virial": "eV"}


@dataclass(frozen=True)
class LabelKeys:
    """What a file calls its labels, where it is not the usual name.

    Attributes
    ----------
    energy, forces, stress, virial, charges, dipole, total_charge, molecules, group : str, optional
        Names in a comment line or as columns (extended XYZ), or of keys and data (ASE database).
        A virial is looked for only where there is no stress.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    charges: str | None = None
    dipole: str | None = None
    total_charge: str | None = None
    molecules: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class LabelUnits:
    """What a file's numbers are measured in; by default, what `AtomicBatch` wants.

    Attributes
    ----------
    length, energy, forces, stress, virial, charges, dipole : str
        As for `convert`: ``"bohr"``, ``"kcal/mol"``, ``"Ha/bohr"``, ``"GPa"``, ``"D"``.
    stress_sign : {1, -1}
        1 if the stress is positive under tension, as ASE's; -1 under compression, as a pressure.
    virial_sign : {1, -1}
        1 if the virial is -dE/dε, positive under compression, as in DeePMD; -1 if it is dE/dε.
    """

    length: str = "Å"
    energy: str = "eV"
    forces: str = "eV/Å"
    stress: str = "eV/Å^3"
    virial: str = "eV"
    charges: str = "e"
    dipole: str = "e*Å"
    stress_sign: int = 1
    virial_sign: int = 1

    def __post_init__(self) -> None:
        for name in ("stress_sign", "virial_sign"):
            if getattr(self, name) not in {1, -1}:
                message = f"Expected {name} to be 1 or -1; got {getattr(self, name)!r}."
                raise InvalidInputError(message)
        for name in TARGETS:
            self.factor(name)

    def factor(self, name: str) -> float:
        """Return what the values of this name are multiplied by, sign included.

        Parameters
        ----------
        name : str
            ``"positions"``, ``"cell"``, or the name of a label or of its spread.
        """
        source = {"positions": self.length, "cell": self.length, "total_charge": "e"}
        sign = {"stress": self.stress_sign, "virial": self.virial_sign}.get(name, 1)
        unit = source.get(name) or getattr(self, name.removesuffix("_std"))
        return sign * float(convert(1.0, unit, TARGETS[name]))


def read_frames(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the name that ase.io.read has for it
    keys: LabelKeys | None = None,
    units: LabelUnits | None = None,
    total_charge: float = 0.0,
    dtype: torch.dtype = torch.float64,
    check: bool = True,
) -> AtomicBatch:
    """Read structures and labels from a file or folder.

    Parameters
    ----------
    path : str or pathlib.Path
        A file, or a DeePMD folder (with ``type.raw``, ``type_map.raw`` and ``set.*``).
    format : {"extxyz", "db", "deepmd", "hdf5", "traj"}, optional
        By default told from the name. Anything else that ASE reads: ``from_ase(ase.io.read(...))``.
    keys : LabelKeys, optional
        Where labels have other names than usual. Not for DeePMD and HDF5, whose names are fixed.
    units : LabelUnits, optional
        Where numbers are in other units than those of `AtomicBatch`. Not for HDF5, which says so
        itself.
    total_charge : float, default=0.0
        In e, of every structure of a DeePMD folder, which does not say it. Other formats do.
    dtype : torch.dtype, default=torch.float64
        Of everything that is not a whole number.
    check : bool, default=True
        Whether to look for impossible structures (`check_geometry`) and for labels in a wrong unit
        (`check_magnitudes`).

    Returns
    -------
    AtomicBatch
        All structures of the file.

    Raises
    ------
    StorageError
        If the file is not there or cannot be read.
    CorruptFileError
        If it is cut short or garbled; the message names the structure.
    InvalidInputError
        If the format is not known, a total charge is given for one that says it, or the checks find
        fault.
    """
    path, keys, units = Path(path), keys or LabelKeys(), units or LabelUnits()
    if not path.exists():
        raise storage_error(FileNotFoundError(2, "No such file or folder"), "read", path)
    kind = format or ("deepmd" if path.is_dir() else SUFFIXES.get(path.suffix.lower()))
    if not math.isfinite(total_charge) or (total_charge and kind != "deepmd"):
        message = (
            f"Expected a total charge in e, for DeePMD folders alone; got {total_charge!r} for "
            f"{path}. Other files say it themselves: info['total_charge']."
        )
        raise InvalidInputError(message)
    if kind == "hdf5":
        batch = read_hdf5(path)
    elif kind == "deepmd":
        batch = read_deepmd(path, units.factor, total_charge)
    elif kind in _FRAMES_OF:
        batch = _read_with_ase(path, kind, keys, units)
    else:
        message = (
            f"Expected one of the formats {', '.join(FORMATS)}; got {format or path.name!r}. Give "
            "format=, or read it by ASE: from_ase(ase.io.read(path, ':'))."
        )
        raise InvalidInputError(message)
    if check:
        check_geometry(batch)
        check_magnitudes(batch)
    return batch.to(dtype=dtype)


def write_frames(
    path: str | Path,
    batch: AtomicBatch,
    *,
    format: str | None = None,  # noqa: A002 - as in read_frames
    level: str = "",
) -> None:
    """Write structures and labels to a file, which appears as a whole or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; one that is there is replaced.
    batch : AtomicBatch
        What to write.
    format : {"extxyz", "hdf5"}, optional
        By default told from the name. HDF5 keeps every digit; extended XYZ eight decimals.
    level : str, default=""
        The level of theory of the labels, noted in HDF5 and in each comment line.

    Raises
    ------
    InvalidInputError
        If the format is not one of the two.
    StorageError
        If writing fails.
    """
    path = Path(path)
    kind = format or SUFFIXES.get(path.suffix.lower())
    if kind == "hdf5":
        content = hdf5_bytes(batch, level)
    elif kind == "extxyz":
        frames = to_ase(batch)
        for frame in frames if level else ():
            frame.info["level"] = level
        text = io.StringIO()
        ase.io.write(text, frames, format="extxyz")
        content = text.getvalue().encode()
    else:
        message = f"Expected the format extxyz or hdf5; got {format or path.name!r}: give format=."
        raise InvalidInputError(message)
    atomic_write_bytes(path, content)


# --------------------------------------------------------------------------------- through ASE


def _extxyz(path: Path) -> Iterator[Atoms]:
    with path.open(encoding="utf-8") as file:
        yield from ase.io.iread(file, ":", format="extxyz")


def _last_number_is_cut(path: Path) -> bool:
    """Say whether the last line seems to have lost its end, so that its last number is another."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line.rstrip() for line in file.read().split(b"\n")]
    if not lines[-1] or len(lines) < 3:
        return False
    last, before = lines[-1], lines[-2]
    return len(last) < len(before) and len(last.split()) == len(before.split())


def _database(path: Path) -> Iterator[Atoms]:
    with ase.db.connect(path, type="db") as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            atoms.info.update({name: np.asarray(value) for name, value in row.data.items()})
            yield atoms


def _trajectory(path: Path) -> Iterator[Atoms]:
    yield from ase.io.iread(path, ":", format="traj")


_FRAMES_OF: dict[str, Callable[[Path], Iterator[Atoms]]] = {
    "extxyz": _extxyz,
    "db": _database,
    "traj": _trajectory,
}


def _read_with_ase(path: Path, kind: str, keys: LabelKeys, units: LabelUnits) -> AtomicBatch:
    frames: list[Atoms] = []
    try:
        frames.extend(_FRAMES_OF[kind](path))
    except OSError as error:
        if error.errno:
            raise storage_error(error, "read", path) from error
        raise _cut_short(path, len(frames), error) from error
    except (*BROKEN, sqlite3.DatabaseError) as error:
        raise _cut_short(path, len(frames), error) from error
    if not frames:
        message = f"Expected at least one structure in {path}; there is none."
        raise CorruptFileError(message)
    if kind == "extxyz" and _last_number_is_cut(path):
        raise _cut_short(path, len(frames) - 1, "its last line is shorter than the one before")
    require_keys(frames, asdict(keys))
    where = (f"structure {k} of {path}" for k in itertools.count())
    plain = [_in_our_units(f, keys, units, w) for f, w in zip(frames, where, strict=False)]
    return from_ase(plain, check=False)


def _cut_short(path: Path, number: int, error: Exception | str) -> CorruptFileError:
    return CorruptFileError(
        f"Could not read structure {number} (counted from 0) of {path}: {error}. The file seems "
        "to be cut short or garbled: copy it again, or remove what comes from there on."
    )


def _in_our_units(atoms: Atoms, keys: LabelKeys, units: LabelUnits, where: str) -> Atoms:
    """Return a structure with nothing but labels, under their usual names and in our units."""
    labels = labels_of(atoms, asdict(keys), where)
    length = units.factor("positions")
    plain = Atoms(
        atoms.numbers, atoms.positions * length, cell=atoms.cell[:] * length, pbc=atoms.pbc
    )
    plain.info["total_charge"] = total_charge_of(atoms, keys.total_charge)
    plain.info["group"] = group_of(atoms, keys.group)
    plain.arrays["molecules"] = molecules_of(atoms, keys.molecules)
    for name, value in labels.items():
        place = plain.arrays if name in PER_ATOM else plain.info
        place[name] = value * units.factor(name)
    return plain
