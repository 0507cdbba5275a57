"""Where the training of a classifier stands, on disk: it goes on from there bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scikd import _checkpoints as core
from scikd.fingerprints import fingerprint_inputs

from .models import GraphClassifier

__all__ = ["Standing", "digest", "load_checkpoint", "save_checkpoint"]

KIND = "scikd.graphs.Training"
DIGESTS = ("training graphs", "validation graphs", "soft labels", "first weights")
"""Settings that are digests, which say nothing to a reader."""
PLAIN = ("step", "history", "best_auc", "seconds")
"""Fields of a standing that are JSON values."""


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
    modules = {"model": standing.model, "best": standing.best}
    core.save_checkpoint(
        path,
        kind=KIND,
        standing={
            "random": standing.random.bit_generator.state,
            "has_best": standing.best is not None,
            **{name: getattr(standing, name) for name in PLAIN},
        },
        modules={name: module for name, module in modules.items() if module is not None},
        optimizer=standing.optimiser,
        settings=settings,
    )


def load_checkpoint(path: Path, standing: Standing, settings: Mapping[str, Any]) -> None:
    """Bring a standing to where `save_checkpoint` found it.

    Raises
    ------
    InvalidInputError, StorageError, CorruptFileError, SchemaError
        As `scikd._checkpoints.load_checkpoint` does.
    """
    modules = {"model": standing.model}
    best = copy.deepcopy(standing.model)
    found = core.load_checkpoint(
        path,
        kind=KIND,
        modules=modules,
        optional={"best": best},
        optimizer=standing.optimiser,
        settings=settings,
        digests=DIGESTS,
        advice="Choose another folder, or delete that one to start anew.",
    )
    standing.best = best if found["has_best"] else None
    standing.random.bit_generator.state = found["random"]
    for name in PLAIN:
        setattr(standing, name, found[name])


def _contents(value: Any) -> Any:
    if is_dataclass(value):
        return [_contents(getattr(value, part.name)) for part in fields(value)]
    return [_contents(part) for part in value] if isinstance(value, tuple) else value
