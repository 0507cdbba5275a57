"""Where the training of a classifier stands, on disk: it goes on from there bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.persistence import load_bundle, save_bundle

from .models import GraphClassifier

__all__ = ["Standing", "digest", "load_checkpoint", "save_checkpoint"]

KIND = "scikd.graphs.Training"
DIGESTS = ("training graphs", "validation graphs", "soft labels", "first weights")
"""Settings that are digests, which say nothing to a reader."""


@dataclass
class Standing:
    """How far a training has come, and everything that the next step depends on.

    The random numbers of torch are those of the process.

    Attributes
    ----------
    model : GraphClassifier
        The network.
    optimiser : torch.optim.Adam
        Its optimiser.
    random : numpy.random.Generator
        Draws the batches.
    step : int
        Steps that are done.
    history : list of dict
        What each look found.
    best : GraphClassifier or None
        The network at the look with the best validation AUC.
    best_auc : float
        That AUC.
    seconds : float
        Of the steps, without the looks.
    """

    model: GraphClassifier
    optimiser: torch.optim.Optimizer
    random: np.random.Generator
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: GraphClassifier | None = None
    best_auc: float = -np.inf
    seconds: float = 0.0


def digest(*parts: Any) -> str:
    """Return a digest of dataclasses of arrays and tensors, such as merged graphs."""
    return fingerprint_inputs([_contents(part) for part in parts])


def save_checkpoint(path: Path, standing: Standing, settings: Mapping[str, Any]) -> None:
    """Write a standing as a whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the bundle.
    standing : Standing
        How far the training has come.
    settings : mapping
        What a training that goes on from here must have been given; JSON values.
    """
    models = {"model": standing.model, "best": standing.best}
    arrays = {
        f"{name}/{key}": values.detach().cpu().numpy()
        for name, model in models.items()
        if model is not None
        for key, values in model.state_dict().items()
    }
    for number, state in standing.optimiser.state_dict()["state"].items():
        arrays |= {f"optimiser/{number}/{key}": v.cpu().numpy() for key, v in state.items()}
    arrays["random/torch"] = torch.get_rng_state().numpy()
    parameters = {
        "settings": settings,
        "random": standing.random.bit_generator.state,
        "step": standing.step,
        "history": standing.history,
        "best_auc": standing.best_auc,
        "seconds": standing.seconds,
    }
    save_bundle(path, kind=KIND, parameters=parameters, arrays=arrays)


def load_checkpoint(path: Path, standing: Standing, settings: Mapping[str, Any]) -> None:
    """Bring a standing to where `save_checkpoint` found it.

    Raises
    ------
    InvalidInputError
        If the training that was stopped had other data or settings; the message lists them.
    StorageError, CorruptFileError, SchemaError
        If it cannot be read, was cut short or edited, or was written by a newer scikd.
    """
    bundle = load_bundle(path, kind=KIND)
    _refuse_other_settings(path, bundle.parameters.get("settings", {}), settings)
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for name, values in bundle.arrays.items():
        owner, _, key = name.partition("/")
        tensors.setdefault(owner, {})[key] = torch.from_numpy(values)
    try:
        standing.model.load_state_dict(tensors["model"])
        if "best" in tensors:
            standing.best = copy.deepcopy(standing.model)
            standing.best.load_state_dict(tensors["best"])
        running: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors["optimiser"].items():
            number, _, key = name.partition("/")
            running.setdefault(int(number), {})[key] = tensor
        state = standing.optimiser.state_dict()
        standing.optimiser.load_state_dict({**state, "state": running})
        standing.random.bit_generator.state = bundle.parameters["random"]
        for name in ("step", "history", "best_auc", "seconds"):
            setattr(standing, name, bundle.parameters[name])
        torch.set_rng_state(tensors["random"]["torch"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        message = f"{path} is no checkpoint of this training: {error!r}. Delete it to start anew."
        raise CorruptFileError(message) from error


def _contents(value: Any) -> Any:
    if is_dataclass(value):
        return [_contents(getattr(value, part.name)) for part in fields(value)]
    return [_contents(part) for part in value] if isinstance(value, tuple) else value


def _refuse_other_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = []
    for name in [*new, *(name for name in old if name not in new)]:
        before, now = old.get(name), new.get(name)
        if before != now and name in DIGESTS:
            changed.append(f"the {name} were others")
        elif before != now:
            changed.append(f"{name} was {before!r} and is {now!r}")
    if changed:
        message = (
            f"The training that was begun in {path.parent} is not this one: {'; '.join(changed)}. "
            "Choose another folder, or delete that one to start anew."
        )
        raise InvalidInputError(message)
