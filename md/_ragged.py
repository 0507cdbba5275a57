"""Rows of many structures end to end: where each structure's begin, and how some are taken."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["starts_of", "take_rows"]


def starts_of(sizes: Tensor) -> Tensor:
    """Return the number of the first row of each block, from the numbers of rows."""
    return sizes.cumsum(0) - sizes


def take_rows(sizes: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of some blocks, in the order asked for.

    Parameters
    ----------
    sizes : Tensor of shape (n_blocks,)
        How many rows each block has, int64.
    chosen : Tensor of shape (n_chosen,)
        Numbers of blocks, int64; one may be asked for twice.

    Returns
    -------
    rows : Tensor of shape (n_rows,)
        Their rows.
    places : Tensor of shape (n_rows,)
        To which of the chosen each row belongs, counted from 0.
    """
    lengths = sizes[chosen]
    places = torch.repeat_interleave(torch.arange(len(chosen), device=chosen.device), lengths)
    # Row k of a chosen block stands k rows after the block's first.
    rows = torch.arange(len(places), device=chosen.device)
    rows += (starts_of(sizes)[chosen] - starts_of(lengths))[places]
    return rows, places
