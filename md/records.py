"""The pressure tensor of a run every few steps, which the viscosity needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError

from ._recording import COLUMNS, FORMAT, RECORD, ROW

__all__ = ["PressureRecord", "read_pressures"]

LONGEST_HEADER = 4096  # bytes


@dataclass(frozen=True)
class PressureRecord:
    """Pressure tensor and flow over time, at equal steps, without the equilibration.

    Attributes
    ----------
    interval_ps : float
        Time between two rows in ps.
    start_ps : float
        Time of the first row in ps.
    pressures_bar : ndarray of shape (n, 6)
        In bar, in the order xx, yy, zz, yz, xz, xy; positive under compression, kinetic part
        included.
    flow : ndarray of shape (n,)
        Amplitude in Å/ps of the velocity along x that goes as the cosine of z, once over the box.
    """

    interval_ps: float
    start_ps: float
    pressures_bar: np.ndarray
    flow: np.ndarray

    def __post_init__(self) -> None:
        if self.pressures_bar.shape != (len(self.flow), 6) or not self.interval_ps > 0:
            message = (
                "Expected pressures of shape (n, 6), a flow of shape (n,) and a positive interval; "
                f"got {self.pressures_bar.shape}, {self.flow.shape} and {self.interval_ps} ps."
            )
            raise InvalidInputError(message)

    @property
    def duration_ps(self) -> float:
        """Length in ps."""
        return len(self.flow) * self.interval_ps

    def after(self, time_ps: float) -> PressureRecord:
        """Return the part from a time in ps on."""
        first = max(int(np.ceil((time_ps - self.start_ps) / self.interval_ps - 1e-6)), 0)
        start = self.start_ps + first * self.interval_ps
        return PressureRecord(
            self.interval_ps, start, self.pressures_bar[first:], self.flow[first:]
        )


def read_pressures(path: str | Path) -> PressureRecord:
    """Read the record that a run of dynamics wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The file, or the folder of the run.

    Raises
    ------
    StorageError
        If it cannot be read.
    CorruptFileError
        If it is no such record.
    """
    path = Path(path)
    path = path / RECORD if path.is_dir() else path
    try:
        with path.open("rb") as file:
            first, rest = file.readline(LONGEST_HEADER), file.read()
    except OSError as error:
        message = (
            f"Could not read the pressures {path}: {error.strerror}. A run of a periodic box "
            "records them if its pressure_interval is not 0."
        )
        raise StorageError(message) from error
    try:
        about = json.loads(first)
        interval, start = float(about["interval_ps"]), float(about["start_ps"])
        known = about["format"] == FORMAT and about["schema"] == 1
        known = known and tuple(about["columns"]) == COLUMNS
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is no record of pressures of scikd."
        raise CorruptFileError(message) from error
    if not known:
        message = f"{path} is no record of pressures that this scikd reads: {about}."
        raise CorruptFileError(message)
    whole = len(rest) // ROW.itemsize * ROW.itemsize
    rows = np.frombuffer(rest[:whole], dtype=ROW).astype(np.float64)
    return PressureRecord(interval, start, rows[:, :6], rows[:, 6])
