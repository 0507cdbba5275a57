"""Rankers on disk: safetensors beside a JSON manifest, never pickle.

A bias is kept as its table, so that a saved network needs no class of whoever wrote the bias. It
scores as before; a bias that was learnt does not go on learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scikd.exceptions import CorruptFileError
from scikd.persistence import load_bundle, save_bundle

from .attention import TableBias
from .backbone import Ranker, RankerSettings

__all__ = ["load_ranker", "ranker_arrays", "ranker_of", "save_ranker"]

KIND = "scikd.finance.Ranker"
TABLE = "attention_bias"


def save_ranker(
    model: Ranker, path: str | Path, *, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Save a network as a bundle.

    Parameters
    ----------
    model : Ranker
        The network.
    path : str or pathlib.Path
        Folder to make; a bundle that is there is replaced.
    metadata : mapping of str to JSON values, or None, default=None
        Anything to keep with it, in the manifest.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    parameters = {"settings": asdict(model.settings), "metadata": dict(metadata or {})}
    return save_bundle(path, kind=KIND, parameters=parameters, arrays=ranker_arrays(model))


def load_ranker(path: str | Path) -> Ranker:
    """Load what `save_ranker` wrote, into the CPU's memory.

    Raises
    ------
    StorageError, CorruptFileError, SchemaError
        If it cannot be read, was cut short or edited, or was written by a newer scikd.
    """
    bundle = load_bundle(path, kind=KIND)
    return ranker_of(bundle.parameters.get("settings"), bundle.arrays, path)


def ranker_arrays(model: Ranker) -> dict[str, np.ndarray]:
    """Return the weights of a network, and the table of its bias."""
    state = model.state_dict().items()
    arrays = {k: v.detach().cpu().numpy() for k, v in state if not k.startswith("bias.")}
    if model.bias is not None:
        with torch.no_grad():
            arrays[TABLE] = model.bias(model.settings.n_tokens).cpu().numpy()
    return arrays


def ranker_of(settings: Any, arrays: Mapping[str, np.ndarray], path: str | Path) -> Ranker:
    """Return the network of settings and arrays that were read from a path.

    Raises
    ------
    CorruptFileError
        If they are not those of a network.
    """
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    table = tensors.pop(TABLE, None)
    try:
        model = Ranker(RankerSettings(**settings), None if table is None else TableBias(table))
        model.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"{path} does not hold a Ranker: {error}. Make it again."
        raise CorruptFileError(message) from error
    return model.eval()
