"""Our HDF5 layout, which `scikd.md.readers` describes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scikd._extras import require
from scikd.exceptions import CorruptFileError, SchemaError

from ._labels import LABELS, PER_ATOM
from .frames import AtomicBatch

__all__ = ["hdf5_bytes", "read_hdf5"]

FORMAT = "scikd.frames"
SCHEMA = 1
ALWAYS = ("positions", "numbers", "molecules", "cell", "pbc", "total_charge")
UNITS = {
    "positions": "Å",
    "cell": "Å",
    "total_charge": "e",
    "energy": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å^3",
    "charges": "e",
    "dipole": "e*Å",
    "energy_std": "eV",
    "forces_std": "eV/Å",
    "stress_std": "eV/Å^3",
}


def _h5py() -> Any:
    return require("h5py", extra="md", feature="Reading and writing HDF5")


def hdf5_bytes(batch: AtomicBatch, level: str) -> bytes:
    """Return the content of a file."""
    arrays = batch.arrays()
    del arrays["batch"]
    arrays["n_atoms"] = batch.counts.cpu().numpy()
    buffer = io.BytesIO()
    with _h5py().File(buffer, "w") as file:
        file.attrs.update(format=FORMAT, schema=SCHEMA, level=level)
        file.attrs["units"] = json.dumps({k: v for k, v in UNITS.items() if k in arrays})
        for name, values in arrays.items():
            packing = {"compression": "gzip", "shuffle": True} if values.size else {}
            # Checksums tell a file that was damaged from one that was not.
            file.create_dataset(name, data=values, fletcher32=bool(values.size), **packing)
    return buffer.getvalue()


def read_hdf5(path: Path) -> AtomicBatch:
    """Return the structures of a file."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            about = dict(file.attrs)
            if about.get("format") != FORMAT:
                message = (
                    f"Expected an HDF5 file of scikd (format {FORMAT!r}); {path} has the format "
                    f"{about.get('format')!r} and holds {sorted(file)}."
                )
                raise CorruptFileError(message)
            if about["schema"] > SCHEMA:
                message = (
                    f"{path} was written by a newer scikd (schema {about['schema']}; this one "
                    f"reads up to {SCHEMA}): update scikd."
                )
                raise SchemaError(message)
            arrays = {name: file[name][()] for name in file}
            units = json.loads(about["units"])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, CorruptFileError | SchemaError):
            raise
        message = f"Could not read {path}: {error}. It seems to be cut short or damaged."
        raise CorruptFileError(message) from error
    return _batch_of(arrays, units, path)


def _batch_of(arrays: dict[str, np.ndarray], units: dict[str, str], path: Path) -> AtomicBatch:
    missing = {"n_atoms", *ALWAYS} - set(arrays)
    other = {name: unit for name, unit in units.items() if UNITS.get(name) != unit}
    if missing or other:
        message = (
            f"Expected {path} to hold {', '.join(ALWAYS)} and n_atoms, in the units of scikd; "
            f"missing: {sorted(missing)}; in other units: {other}."
        )
        raise CorruptFileError(message)
    counts = arrays.pop("n_atoms")
    rows = {name: counts.sum() if name in PER_ATOM else len(counts) for name in arrays}
    wrong = {
        name: len(arrays[name]) for name, expected in rows.items() if len(arrays[name]) != expected
    }
    if wrong:
        message = (
            f"Expected rows for {len(counts)} structures of {counts.sum()} atoms in {path}; got "
            f"{wrong}."
        )
        raise CorruptFileError(message)
    names = {*ALWAYS, *LABELS, "group"} & set(arrays)
    values = {name: torch.from_numpy(arrays[name]) for name in names}
    if "group" in values:
        values["group"] = values["group"].to(torch.int64)  # others may have saved some space
    batch = np.repeat(np.arange(len(counts)), counts)
    return AtomicBatch(batch=torch.from_numpy(batch), **values)
