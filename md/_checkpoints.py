"""Where a training stands, on disk: a bundle from which it goes on to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import load_bundle, save_bundle

__all__ = ["Standing", "load_checkpoint", "save_checkpoint"]

KIND = "scikd.md.Training"


@dataclass
class Standing:
    """How far a training has come.

    Attributes
    ----------
    epoch : int
        Epochs that are complete.
    batch : int
        Batches of the present epoch that are done.
    step : int
        Steps of the optimiser.
    sums : dict of str to float
        What the present epoch has summed up for its line of the log.
    history : list of dict
        A line of the log for each complete epoch.
    best_epoch : int
        The epoch with the lowest validation loss, from 1; 0 is none yet.
    best_loss : float
        That loss.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = float("inf")


def save_checkpoint(
    path: Path,
    standing: Standing,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> None:
    """Write everything that the next step depends on, as a whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the bundle.
    standing : Standing
        How far the training has come.
    modules : mapping of str to Module
        The weights: trained, averaged, best.
    optimizer : Optimizer
        Its running means.
    settings : mapping
        What a training that goes on from here must have been given; JSON values.
    """
    arrays = {
        f"{name}/{key}": _array(value)
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    state = optimizer.state_dict()
    for number, values in state["state"].items():
        arrays |= {f"optimizer/{number}/{key}": _array(v) for key, v in values.items()}
    arrays["random/cpu"] = torch.get_rng_state().numpy()
    if torch.cuda.is_available():
        arrays["random/cuda"] = torch.cuda.get_rng_state().numpy()
    parameters = {"standing": vars(standing), "settings": settings}
    save_bundle(path, kind=KIND, parameters=parameters, arrays=arrays)


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> Standing:
    """Put everything back as `save_checkpoint` found it.

    Raises
    ------
    InvalidInputError
        If the training that was stopped had other settings; the message lists them.
    StorageError, CorruptFileError, SchemaError
        If it cannot be read, was cut short or edited, or was written by a newer scikd.
    """
    bundle = load_bundle(path, kind=KIND)
    _refuse_other_settings(path, bundle.parameters["settings"], settings)
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for name, values in bundle.arrays.items():
        owner, _, key = name.partition("/")
        tensors.setdefault(owner, {})[key] = torch.from_numpy(values)
    try:
        for name, module in modules.items():
            module.load_state_dict(tensors[name])
        state = optimizer.state_dict()
        running: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.get("optimizer", {}).items():
            number, _, key = name.partition("/")
            running.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({**state, "state": running})
        standing = Standing(**bundle.parameters["standing"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        message = f"{path} does not fit this model: {error}. Delete it, or choose another output."
        raise CorruptFileError(message) from error
    torch.set_rng_state(tensors["random"]["cpu"])
    if "cuda" in tensors["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random"]["cuda"])
    return standing


def _refuse_other_settings(path: Path, old: Any, new: Mapping[str, Any]) -> None:
    flat_old, flat_new = dict(_flat(old)), dict(_flat(new))
    names = [*flat_new, *(name for name in flat_old if name not in flat_new)]
    changed = [
        f"{name} was {flat_old.get(name)!r} and is {flat_new.get(name)!r}"
        for name in names
        if flat_old.get(name) != flat_new.get(name)
    ]
    if changed:
        message = (
            f"The training that was begun in {path.parent} had other settings: "
            f"{'; '.join(changed)}. Take those, choose another output, or start anew "
            "with resume=False."
        )
        raise InvalidInputError(message)


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested mappings as pairs of a dotted name and a value; a tuple is a list."""
    if isinstance(value, Mapping):
        parts = [_flat(item, f"{prefix}{key}.") for key, item in value.items()]
        return [pair for part in parts for pair in part]
    return [(prefix.rstrip("."), list(value) if isinstance(value, tuple) else value)]


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
