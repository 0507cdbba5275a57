"""Several processes that train one model, as ``torchrun`` starts them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Processes", "joined_processes"]


@dataclass(frozen=True)
class Processes:
    """The processes that train together, seen from one of them.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    count : int
        How many there are.
    """

    rank: int = 0
    count: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in place."""
        if self.count > 1:
            from torch import distributed  # noqa: PLC0415 - the core does without it

            distributed.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[Tensor], values: Tensor) -> Tensor:
        """Sum the gradients over all processes, and these values with them in one message.

        Parameters
        ----------
        parameters : sequence of torch.Tensor
            Their gradients are replaced; one without a gradient counts as zero.
        values : torch.Tensor of shape (n,)
            What else to sum.

        Returns
        -------
        torch.Tensor of shape (n,)
            The sums of the values.
        """
        if self.count == 1:
            return values
        import torch  # noqa: PLC0415 - as above

        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([*(g.reshape(-1) for g in gradients), values]))
        *parts, values = torch.split(flat, [*(g.numel() for g in gradients), len(values)])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return values


def joined_processes() -> Processes:
    """Join the other processes if ``torchrun`` started this one, and stay joined to the end."""
    from torch import cuda, distributed  # noqa: PLC0415 - as above

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)
    return Processes(distributed.get_rank(), distributed.get_world_size())
