"""Devices of torch by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scikd.exceptions import InvalidInputError

if TYPE_CHECKING:
    import torch

__all__ = ["choose_device", "find_device"]


def find_device(name: str) -> torch.device:
    """Return a device of torch, or raise an error if there is none of this name here."""
    import torch  # noqa: PLC0415 - the core does without it

    try:
        return torch.empty(0, device=torch.device(name)).device  # "cuda" is some "cuda:0"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        message = (
            f"Expected a device that torch can use here, such as 'cpu'; got {name!r}: {reason}"
        )
        raise InvalidInputError(message) from error


def choose_device(name: str) -> torch.device:
    """Return a device as `find_device`; "auto" is a GPU where there is one, that of this process.

    Of several processes on a machine, ``torchrun`` tells each its own by LOCAL_RANK.
    """
    import torch  # noqa: PLC0415 - as above

    if name != "auto":
        return find_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
