"""Multilinear forms for PyTorch, differentiable as often as one likes.

What a network sums over edges is the derivative of a form, linear in each of several tensors, by
one of them, and so is each derivative of that. One autograd function therefore covers the sum, its
backward pass, and the second backward pass that training on forces needs; it keeps nothing but the
operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Multilinear", "derivative"]


class Multilinear(Protocol):
    """A number that is linear in each of several tensors, the operands."""

    def compute(self, which: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
        """Return its derivative by the operand number `which`, of this shape, at the others."""


def derivative(
    form: Multilinear, which: int, shape: torch.Size, others: Sequence[Tensor]
) -> Tensor:
    """Return the derivative of a form by one operand, as a function of the others.

    Parameters
    ----------
    form : Multilinear
        The form.
    which : int
        Number of the operand, whose value is not needed.
    shape : torch.Size
        Its shape.
    others : sequence of Tensor
        The other operands, in order.
    """
    return _Derivative.apply(form, which, shape, *others)  # type: ignore[no-untyped-call]


class _Derivative(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, form: Multilinear, which: int, shape: torch.Size, *others: Tensor
    ) -> Tensor:
        ctx.form, ctx.which = form, which
        ctx.save_for_backward(*others)
        return form.compute(which, shape, others)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        operands = list(ctx.saved_tensors)
        operands.insert(ctx.which, gradient)
        found: list[Tensor | None] = []
        for k, operand in enumerate(operands):
            if k == ctx.which:
                continue
            needed = ctx.needs_input_grad[3 + len(found)]
            rest = [x for m, x in enumerate(operands) if m != k]
            found.append(derivative(ctx.form, k, operand.shape, rest) if needed else None)
        return None, None, None, *found
