"""DeePMD's folders: ``type.raw``, ``type_map.raw`` and ``set.*/coord.npy`` and so on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from scikd.exceptions import CorruptFileError, InvalidInputError

from .frames import AtomicBatch
from .units import stress_from_virial

__all__ = ["read_deepmd"]


def read_deepmd(
    path: Path, factor: Callable[[str], float], total_charge: float = 0.0
) -> AtomicBatch:
    """Return the structures of a folder, each array multiplied by the factor for its name."""
    sets = sorted(path.glob("set.*"))
    if not sets or not (path / "type.raw").exists() or not (path / "type_map.raw").exists():
        message = (
            "Expected a DeePMD folder with type.raw, type_map.raw (symbols of elements) and "
            f"set.*; {path} holds {sorted(entry.name for entry in path.iterdir())}."
        )
        raise InvalidInputError(message)
    words = (path / "type.raw").read_text(encoding="utf-8").split()
    if not all(word.isdecimal() for word in words):
        message = f"Expected whole numbers from 0 in {path / 'type.raw'}; got {words[:10]}."
        raise CorruptFileError(message)
    types = np.array(words, dtype=np.int64)
    symbols = (path / "type_map.raw").read_text(encoding="utf-8").split()
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown or types.max(initial=-1) >= len(symbols):
        message = (
            f"Expected symbols of elements in {path / 'type_map.raw'}, one for each number in "
            f"type.raw; got {symbols} for numbers up to {types.max(initial=-1)}."
        )
        raise InvalidInputError(message)
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])[types]
    periodic = not (path / "nopbc").exists()
    parts = [_deepmd_set(folder, len(numbers), periodic) for folder in sets]
    shapes = {name: value.shape[1:] for part in parts for name, value in part.items()}
    arrays = {  # a label that only some sets have is NaN in the others
        name: np.concatenate(
            [p.get(name, np.full((len(p["positions"]), *shape), np.nan)) for p in parts]
        )
        for name, shape in shapes.items()
    }
    arrays = {name: value * factor(name) for name, value in arrays.items()}
    cell = arrays.get("cell", np.zeros((len(arrays["positions"]), 3, 3)))
    if "virial" in arrays:
        virial = arrays.pop("virial")
        if periodic:
            arrays["stress"] = stress_from_virial(virial, np.abs(np.linalg.det(cell)))
    n_structures, n_atoms = arrays["positions"].shape[:2]
    for name in ("positions", "forces"):
        if name in arrays:
            arrays[name] = arrays[name].reshape(-1, 3)
    arrays |= {
        "cell": cell,
        "numbers": np.tile(numbers, n_structures),
        "batch": np.repeat(np.arange(n_structures), n_atoms),
        "pbc": np.full((n_structures, 3), periodic),
        "molecules": np.full(n_structures * n_atoms, -1),
        "total_charge": np.full(n_structures, float(total_charge)),
    }
    return AtomicBatch(**{name: torch.from_numpy(value) for name, value in arrays.items()})


def _deepmd_set(folder: Path, n_atoms: int, periodic: bool) -> dict[str, np.ndarray]:
    """Return the arrays of one ``set.*`` folder, by our names."""
    if (folder / "real_atom_types.npy").exists():
        message = (
            f"Expected one composition in each DeePMD folder; {folder} is of the mixed type. "
            'Convert it by dpdata: MultiSystems.load_systems_from_file(fmt="deepmd/npy/mixed").'
        )
        raise InvalidInputError(message)
    shapes = {
        "coord": ("positions", (n_atoms, 3)),
        "box": ("cell", (3, 3)),
        "energy": ("energy", ()),
        "force": ("forces", (n_atoms, 3)),
        "virial": ("virial", (3, 3)),
    }
    arrays: dict[str, np.ndarray] = {}
    for file, (name, shape) in shapes.items():
        path = folder / f"{file}.npy"
        if not path.exists() or (name == "cell" and not periodic):
            continue
        try:
            value = np.load(path, allow_pickle=False).astype(np.float64)
            arrays[name] = value.reshape(len(value), *shape)
        except (ValueError, EOFError) as error:
            message = f"Could not read {path} for {n_atoms} atoms ({error}): it may be cut short."
            raise CorruptFileError(message) from error
    needed = {"positions", "cell"} if periodic else {"positions"}
    lengths = {name: len(value) for name, value in arrays.items()}
    if needed - set(arrays) or len(set(lengths.values())) != 1:
        message = (
            f"Expected coord.npy, box.npy (or a file nopbc beside type.raw) and labels of equally "
            f"many structures in {folder}; got {lengths}."
        )
        raise CorruptFileError(message)
    return arrays
