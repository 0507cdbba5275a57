"""The optimiser of a training: its kind, its learning rate at any time, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .training import TrainingOptions

__all__ = ["average", "learning_rate", "make_optimizer"]


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return AdamW, which decays matrices only, or Adamax with an L2 penalty on all, as published.

    A bias, a norm or the width of a radial function has no reason to be near zero.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adamax":
        return torch.optim.Adamax(trained, lr=rate, weight_decay=decay)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate)


def learning_rate(options: TrainingOptions, epoch: float) -> float:
    """Return the learning rate at a time.

    Parameters
    ----------
    options : TrainingOptions
        Of the training.
    epoch : float
        Epochs that have passed, fractions of one included.
    """
    rate, warmup = options.learning_rate, options.warmup_epochs
    if options.schedule == "exponential":
        rate *= options.decay ** int(epoch)
    elif options.schedule == "cosine":
        passed = (epoch - warmup) / max(options.epochs - warmup, 1e-9)
        passed = min(max(passed, 0.0), 1.0)
        floor = options.final_learning_rate
        rate *= floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * passed))
    return rate * min(epoch / warmup, 1.0) if warmup > 0.0 else rate


@torch.no_grad()
def average(averaged: Sequence[Tensor], weights: Sequence[Tensor], decay: float, step: int) -> None:
    """Move an exponential average of the weights on by one step, in place.

    In the first steps, where there is little to average over, it forgets faster.
    """
    keep = min(decay, (1.0 + step) / (10.0 + step))
    torch._foreach_lerp_(list(averaged), list(weights), 1.0 - keep)
