"""The file of pressures that a run writes.

It begins with one line of JSON, which says what follows: rows of little-endian float32. It only
grows; a row that was cut short by a kill is not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from .units import BAR, FROM_VOIGT, FS, TO_VOIGT

__all__ = ["COLUMNS", "FORMAT", "RECORD", "ROW", "encode_row", "header_line", "measure"]

RECORD = "pressures.bin"
FORMAT = "scikd.pressures"
COLUMNS = ("xx_bar", "yy_bar", "zz_bar", "yz_bar", "xz_bar", "xy_bar", "flow_A_ps")
ROW = np.dtype(("<f4", (len(COLUMNS),)))


def header_line(interval_ps: float, start_ps: float) -> str:
    """Return the first line of a record."""
    about = {
        "format": FORMAT,
        "schema": 1,
        "dtype": "<f4",
        "columns": COLUMNS,
        "interval_ps": interval_ps,
        "start_ps": start_ps,
    }
    return json.dumps(about) + "\n"


def encode_row(values: Sequence[float]) -> bytes:
    """Return one row as bytes."""
    return np.asarray(values, dtype="<f4").tobytes()


def measure(atoms: Atoms) -> list[float]:
    """Return one row of a structure with momenta, periodic in three directions."""
    momenta, masses = atoms.get_momenta(), atoms.get_masses()
    kinetic = np.einsum("na,nb->ab", momenta / masses[:, None], momenta) / atoms.get_volume()
    pressure = (kinetic - atoms.get_stress()[FROM_VOIGT]) / BAR
    wave = np.cos(2.0 * np.pi * atoms.get_scaled_positions(wrap=False)[:, 2])
    flow = 2.0 * np.sum(momenta[:, 0] * wave) / masses.sum() * (1e3 * FS)
    return [*pressure[TO_VOIGT], float(flow)]
