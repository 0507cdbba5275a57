"""The log of a training: a line for people, a CSV file, and TensorBoard's events."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scikd._atomic import atomic_write_bytes
from scikd._extras import require

__all__ = ["ERRORS", "LOG", "UNITS", "TrainingLog", "root_mean_squares"]

logger = logging.getLogger("scikd.md.training")

LOG, EVENTS = "log.csv", "tensorboard"
# Of the lines of the log: name of the column, and its unit in ours.
ERRORS = {
    "energy": ("energy_meV_per_atom", 1e3),
    "forces": ("forces_meV_per_A", 1e3),
    "virial": ("virial_meV_per_atom", 1e3),
    "charges": ("charges_me", 1e3),
    "dipole": ("dipole_me_A", 1e3),
    "qeq": ("qeq_meV_per_A", 1e3),
    "pressure": ("pressure_meV_per_atom", 1e3),
    "shear": ("shear_meV_per_atom", 1e3),
}
UNITS = ("meV/atom", "meV/Å", "meV/atom", "me", "me·Å", "meV/Å", "meV/atom", "meV/atom")


class TrainingLog:
    """Where the lines of a training go.

    Parameters
    ----------
    folder : pathlib.Path or None
        Folder for the files; None writes only to the logger.
    epochs : int
        How many epochs there will be.
    tensorboard : bool
        Whether to write events too.
    """

    def __init__(self, folder: Path | None, epochs: int, *, tensorboard: bool) -> None:
        self.folder, self.epochs = folder, epochs
        self.events: Any = None
        if tensorboard and folder is not None:
            board = require("torch.utils.tensorboard", extra="md", feature="TensorBoard's log")
            self.events = board.SummaryWriter(str(folder / EVENTS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.events is not None:
            self.events.close()

    def write(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the last line, and the CSV file anew: after a restart it may be shorter."""
        row = history[-1]
        logger.info("%s", _line(row, self.epochs))
        if self.events is not None:
            for name, value in row.items():
                self.events.add_scalar(name, value, int(row["epoch"]))
            self.events.flush()
        if self.folder is not None:
            text = io.StringIO()
            columns = list(dict.fromkeys(name for line in history for name in line))
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
            atomic_write_bytes(self.folder / LOG, text.getvalue().encode())


def root_mean_squares(which: str, squares: Mapping[str, float]) -> dict[str, float]:
    """Return root mean squares in the units of the log.

    Parameters
    ----------
    which : str
        What the names of the columns begin with.
    squares : mapping of str to float
        Mean squares by name of the term.
    """
    return {
        f"{which}_{column}": factor * math.sqrt(squares[name])
        for name, (column, factor) in ERRORS.items()
        if name in squares
    }


def _line(row: Mapping[str, float], epochs: int) -> str:
    """Return an epoch as a line for people."""
    errors = [
        f"{column.split('_')[0]} {row[f'validation_{column}']:.3g} {unit}"
        for (column, _), unit in zip(ERRORS.values(), UNITS, strict=True)
        if f"validation_{column}" in row
    ]
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4g}, validation "
        f"{row['validation_loss']:.4g} ({', '.join(errors)}); "
        f"{row['structures_per_second']:.3g} structures/s"
    )
