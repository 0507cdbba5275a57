"""The switch that takes messages and pair terms to zero with two continuous derivatives."""

from __future__ import annotations

from torch import Tensor

__all__ = ["switch"]


def switch(distances: Tensor, start: float, stop: float) -> Tensor:
    """Return 1 up to `start`, 0 from `stop` on, and the quintic between that is C2 at both ends.

    Parameters
    ----------
    distances : Tensor
        In Å, any shape.
    start, stop : float
        In Å, ``start < stop``.
    """
    t = ((distances - start) / (stop - start)).clamp(0.0, 1.0)
    return 1.0 - t * t * t * (10.0 + t * (6.0 * t - 15.0))
