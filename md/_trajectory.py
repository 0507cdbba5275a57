"""What a run of dynamics writes: a log, frames, and checkpoints, so that a kill loses little.

The log (CSV), the frames (extended XYZ) and the pressures (binary) only grow, and a checkpoint
knows how long they were when it was made. To resume is to cut them there, so that a run that was
killed ends with the same files, byte for byte, as one that was not; a torn last line does no harm.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from ase import Atoms
from ase.io import write

from scikd._atomic import atomic_write_bytes, storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import load_bundle, save_bundle

from ._process import alone_in
from ._recording import RECORD, encode_row

__all__ = ["COLUMNS", "Recorder", "Snapshot", "write_frame"]

# Columns of the log, with their units; NaN where a quantity has no meaning.
COLUMNS = (
    "step",
    "time_ps",
    "temperature_K",
    "density_g_cm3",
    "pressure_bar",
    "volume_A3",
    "potential_eV",
    "total_eV",
    "conserved_eV",
)
LOG = "log.csv"
FRAMES = "trajectory.extxyz"
CHECKPOINT = "checkpoint"
KIND = "scikd.md.Checkpoint"
UNITS = {"positions": "Å", "momenta": "sqrt(u eV)", "cell": "Å", "masses": "u"}


@dataclass
class Snapshot:
    """All that the next step depends on.

    Attributes
    ----------
    atoms : ase.Atoms
        With momenta and masses, without a calculator.
    state : dict
        JSON values: the step, sums of the integrator, the random generator, ...
    neighbors : tuple of ndarray or None
        Positions (n_atoms, 3) and cell (3, 3) in Å that the present neighbour lists were made of.
        The order of a sum depends on the list, and its last digit on the order.
    """

    atoms: Atoms
    state: dict[str, Any]
    neighbors: tuple[np.ndarray, np.ndarray] | None = None


def _beginning(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def _scalars(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts and numbers among ASE's notes on a structure, by name: its charge, ..."""
    # ASE's readers give NumPy's numbers.
    kinds = (np.generic, np.ndarray)
    plain = {
        str(name): value.item() if isinstance(value, kinds) and not value.ndim else value
        for name, value in info.items()
    }
    return {k: v for k, v in sorted(plain.items()) if isinstance(v, (str, bool, int, float))}


def write_frame(path: Path, atoms: Atoms) -> None:
    """Write one structure as extended XYZ, with momenta, as a whole or not at all."""
    atomic_write_bytes(path, _as_text(atoms).encode())


def _as_text(atoms: Atoms) -> str:
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    return text.getvalue()


@dataclass
class Recorder:
    """The files of a run, in one folder.

    Use as a context manager; leaving it closes the files.

    Parameters
    ----------
    folder : pathlib.Path
        Exists already.
    """

    folder: Path
    _files: dict[str, BinaryIO] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def log(self) -> Path:
        """Path of the log."""
        return self.folder / LOG

    @property
    def frames(self) -> Path:
        """Path of the trajectory."""
        return self.folder / FRAMES

    @property
    def checkpoint(self) -> Path:
        """Path of the last checkpoint."""
        return self.folder / CHECKPOINT

    def __enter__(self) -> Self:
        """Take the folder for this process alone, where the system has such locks.

        Raises
        ------
        InvalidInputError
            If another process runs there.
        """
        self._stack.enter_context(alone_in(self.folder))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._files.clear()

    def check_free(self) -> None:
        """Raise an error if a new run would overwrite what is not of a run without checkpoint.

        Raises
        ------
        InvalidInputError
            If the files of a run are there, and were not begun by one.
        """
        header = ",".join(COLUMNS).encode()
        there = [path for path in (self.log, self.frames) if path.exists()]
        ours = self.log.exists() and _beginning(self.log, len(header)) in (header, b"")
        if there and not ours:
            message = (
                f"{self.folder} holds {', '.join(path.name for path in there)}, not of a run of "
                "scikd. Choose another output."
            )
            raise InvalidInputError(message)

    def open(self, lengths: Mapping[str, int] | None = None, *, header: str = "") -> None:
        """Open the files: anew, or cut to the lengths that a checkpoint noted.

        ``header`` is the first line of the pressures; without one they are not recorded.

        Raises
        ------
        CorruptFileError
            If a file is shorter than it was.
        StorageError
            If a file cannot be opened.
        """
        for name in (LOG, FRAMES, *([RECORD] if header else [])):
            path, length = self.folder / name, (lengths or {}).get(name, 0)
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                message = (
                    f"{path} has {size} bytes, and had {length} when the checkpoint was made. "
                    "Restore it from a backup, or start the run anew in another folder."
                )
                raise CorruptFileError(message)
            try:
                file = self._stack.enter_context(path.open("ab", buffering=0))
                file.truncate(length)
            except OSError as error:
                raise storage_error(error, "open", path) from error
            self._files[name] = file
        if not lengths:
            self._append(LOG, ",".join(COLUMNS) + "\n")
        if header and not (lengths or {}).get(RECORD):
            self._append(RECORD, header)

    def add_row(self, row: Sequence[float]) -> None:
        """Append one row to the log.

        Raises
        ------
        StorageError
            If the disk is full, ...; the last checkpoint stays good.
        """
        self._append(LOG, ",".join(f"{value:.12g}" for value in row) + "\n")

    def add_pressures(self, row: Sequence[float]) -> None:
        """Append one row to the pressures.

        Raises
        ------
        StorageError
            As `add_row` does.
        """
        self._append(RECORD, encode_row(row))

    def add_frame(self, atoms: Atoms, time: float) -> None:
        """Append positions, not wrapped into the cell, to the trajectory; the time is in ps.

        Raises
        ------
        StorageError
            As `add_row` does.
        """
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        # What a checkpoint does not keep would be missing from the frames of a continuation.
        frame.info = {**_scalars(atoms.info), "time_ps": time}
        if "molecules" in atoms.arrays:
            frame.set_array("molecules", atoms.arrays["molecules"])
        self._append(FRAMES, _as_text(frame))

    def _append(self, name: str, text: str | bytes) -> None:
        content = memoryview(text.encode() if isinstance(text, str) else text)
        try:
            while content:  # a disk that is nearly full takes a part
                content = content[self._files[name].write(content) :]
        except OSError as error:
            raise storage_error(error, "write", self.folder / name) from error

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, in place of the last one.

        Raises
        ------
        StorageError
            If it cannot be written; the last one stays good then.
        """
        lengths = {}
        for name, file in self._files.items():
            try:
                os.fsync(file.fileno())  # or a power cut could leave less than the checkpoint says
            except OSError as error:
                raise storage_error(error, "write", self.folder / name) from error
            lengths[name] = os.fstat(file.fileno()).st_size
        atoms = snapshot.atoms
        arrays = {
            name: values for name, values in atoms.arrays.items() if values.dtype.kind in "bif"
        }
        arrays |= {"masses": atoms.get_masses(), "cell": atoms.cell[:], "pbc": atoms.pbc}
        if snapshot.neighbors is not None:
            positions, cell = snapshot.neighbors
            arrays |= {"neighbors/positions": positions, "neighbors/cell": cell}
        parameters = {"state": snapshot.state, "lengths": lengths, "info": _scalars(atoms.info)}
        save_bundle(self.checkpoint, kind=KIND, parameters=parameters, arrays=arrays, units=UNITS)

    def load(self) -> tuple[Snapshot, dict[str, int]] | None:
        """Return the last checkpoint and the lengths of the files then, or None if there is none.

        Raises
        ------
        StorageError
            If it was cut short or edited, or was written by a newer scikd.
        """
        if not self.checkpoint.exists():
            return None
        bundle = load_bundle(self.checkpoint, kind=KIND)
        arrays = dict(bundle.arrays)
        cell, pbc = arrays.pop("cell"), arrays.pop("pbc")
        neighbors = None
        if "neighbors/cell" in arrays:
            neighbors = arrays.pop("neighbors/positions"), arrays.pop("neighbors/cell")
        atoms = Atoms(arrays.pop("numbers"), arrays.pop("positions"), cell=cell, pbc=pbc)
        for name, values in arrays.items():
            atoms.set_array(name, values)
        atoms.info.update(bundle.parameters["info"])
        return Snapshot(atoms, bundle.parameters["state"], neighbors), bundle.parameters["lengths"]
