"""Where a training stands, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scikd import _checkpoints as core

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
    """Write a standing; arguments as of `scikd._checkpoints.save_checkpoint`."""
    core.save_checkpoint(
        path,
        kind=KIND,
        standing=vars(standing),
        modules=modules,
        optimizer=optimizer,
        settings=settings,
    )


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> Standing:
    """Put everything back as `save_checkpoint` found it.

    Raises
    ------
    InvalidInputError, StorageError, CorruptFileError, SchemaError
        As `scikd._checkpoints.load_checkpoint` does.
    """
    found = core.load_checkpoint(
        path,
        kind=KIND,
        modules=modules,
        optimizer=optimizer,
        settings=settings,
        digests=("structures",),
        advice="Take those, choose another output, or start anew with resume=False.",
    )
    return Standing(**found)
