"""Sums over edges for PyTorch, differentiable as often as one likes.

Each sum is the derivative of a multilinear form by one of its operands (`scikd.md.kernels.messages`
lists the forms), and so is each derivative of it. One autograd function therefore covers the
message, its backward pass, and the second backward pass that training on forces needs. On the CPU
the kernels are compiled by Numba and never hold an array of edges times channels times directions;
elsewhere the same sums are einsums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .kernels import messages as kernels

__all__ = ["attention", "scalar_messages", "vector_messages"]

EDGE, SENDER, RECEIVER = "edge", "sender", "receiver"


@dataclass(frozen=True)
class _Form:
    """A multilinear form: for each operand where it lives, its letters, and the kernel by it."""

    places: tuple[str, ...]
    letters: tuple[str, ...]
    kernels: tuple[Callable[..., None], ...]


_ATTENTION = _Form(
    (EDGE, RECEIVER, SENDER),
    ("eh", "ewh", "ewh"),
    (kernels.attention_by_gate, kernels.attention_by_query, kernels.attention_by_query),
)
_SCALARS = _Form(
    (EDGE, SENDER, EDGE, RECEIVER),
    ("eh", "ewh", "ewh", "ewh"),
    (
        kernels.scalars_by_gate,
        kernels.scalars_by_value,
        kernels.scalars_by_filter,
        kernels.scalars_by_sum,
    ),
)
_VECTORS = _Form(
    (EDGE, SENDER, EDGE, RECEIVER),
    ("ex", "ewh", "ewh", "exwh"),
    (
        kernels.vectors_by_unit,
        kernels.vectors_by_value,
        kernels.vectors_by_filter,
        kernels.vectors_by_sum,
    ),
)


class _Derivative(torch.autograd.Function):
    """Derivative of a form by the operand number ``which``, whose value is not read."""

    @staticmethod
    def forward(
        ctx: Any,
        form: _Form,
        which: int,
        edges: tuple[Tensor, Tensor],
        shape: torch.Size,
        *others: Tensor,
    ) -> Tensor:
        ctx.form, ctx.which, ctx.edges = form, which, edges
        ctx.save_for_backward(*others)
        if others[0].device.type == "cpu":
            return _by_kernel(form, which, edges, shape, others)
        return _by_einsum(form, which, edges, shape, others)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        operands = list(ctx.saved_tensors)
        operands.insert(ctx.which, gradient)
        found: list[Tensor | None] = []
        for k in range(len(operands)):
            if k == ctx.which:
                continue
            needed = ctx.needs_input_grad[4 + len(found)]
            found.append(_derivative(ctx.form, k, ctx.edges, operands) if needed else None)
        return None, None, None, None, *found


def _derivative(
    form: _Form, which: int, edges: tuple[Tensor, Tensor], operands: Sequence[Tensor]
) -> Tensor:
    others = [x for k, x in enumerate(operands) if k != which]
    return _Derivative.apply(form, which, edges, operands[which].shape, *others)  # type: ignore[no-untyped-call]


def _by_kernel(
    form: _Form,
    which: int,
    edges: tuple[Tensor, Tensor],
    shape: torch.Size,
    others: Sequence[Tensor],
) -> Tensor:
    receivers, senders = edges
    if form is _ATTENTION and which == 2:  # query and key are the same with the ends exchanged
        receivers, senders = senders, receivers
    make = torch.empty if form.places[which] == EDGE else torch.zeros
    out = make(shape, dtype=others[0].dtype)
    arrays = (x.detach().contiguous().numpy() for x in others)
    form.kernels[which](receivers.numpy(), senders.numpy(), *arrays, out.numpy())
    return out


def _by_einsum(
    form: _Form,
    which: int,
    edges: tuple[Tensor, Tensor],
    shape: torch.Size,
    others: Sequence[Tensor],
) -> Tensor:
    rows = {RECEIVER: edges[0], SENDER: edges[1]}
    heads = next((x.shape[1] for x, y in _given(form, which, others) if y == "eh"), 1)
    heads = shape[1] if form.letters[which] == "eh" else heads
    letters, parts = [], []
    places = [place for k, place in enumerate(form.places) if k != which]
    for (x, y), place in zip(_given(form, which, others), places, strict=True):
        part = x if place == EDGE else x.index_select(0, rows[place])
        split = y.endswith("wh")
        parts.append(part.reshape(*part.shape[:-1], -1, heads) if split else part)
        letters.append(y)
    by_edge = torch.einsum(f"{','.join(letters)}->{form.letters[which]}", *parts)
    place = form.places[which]
    by_edge = by_edge.reshape(len(by_edge), *shape[1:])
    if place == EDGE:
        return by_edge
    return by_edge.new_zeros(shape).index_add(0, rows[place], by_edge)


def _given(form: _Form, which: int, others: Sequence[Tensor]) -> list[tuple[Tensor, str]]:
    letters = [y for k, y in enumerate(form.letters) if k != which]
    return list(zip(others, letters, strict=True))


def attention(receivers: Tensor, senders: Tensor, q: Tensor, k: Tensor, n_heads: int) -> Tensor:
    """Return ``sum_c q_rc k_sc`` over the channels of each head.

    Parameters
    ----------
    receivers, senders : Tensor of shape (E,)
        Atoms at the ends of each edge.
    q, k : Tensor of shape (N, dim)
        Queries and keys.
    n_heads : int
        Heads; channel ``c`` belongs to head ``c % n_heads``.

    Returns
    -------
    Tensor of shape (E, n_heads)
    """
    shape = torch.Size((len(receivers), n_heads))
    return _Derivative.apply(_ATTENTION, 0, (receivers, senders), shape, q, k)  # type: ignore[no-untyped-call]


def scalar_messages(
    receivers: Tensor, senders: Tensor, gate: Tensor, v: Tensor, w: Tensor
) -> Tensor:
    """Return ``sum_e g_eh v_sc w_ec`` over the edges that each atom receives.

    Parameters
    ----------
    receivers, senders : Tensor of shape (E,)
        Atoms at the ends of each edge.
    gate : Tensor of shape (E, n_heads)
        Gate of each head.
    v : Tensor of shape (N, dim)
        Values of the atoms.
    w : Tensor of shape (E, dim)
        Filters of the edges.

    Returns
    -------
    Tensor of shape (N, dim)
    """
    return _Derivative.apply(_SCALARS, 3, (receivers, senders), v.shape, gate, v, w)  # type: ignore[no-untyped-call]


def vector_messages(receivers: Tensor, senders: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Return ``sum_e u_ex v_sc w_ec`` over the edges that each atom receives.

    Parameters
    ----------
    receivers, senders : Tensor of shape (E,)
        Atoms at the ends of each edge.
    u : Tensor of shape (E, 3)
        Unit vectors of the edges.
    v : Tensor of shape (N, dim)
        Values of the atoms.
    w : Tensor of shape (E, dim)
        Filters of the edges.

    Returns
    -------
    Tensor of shape (N, 3, dim)
    """
    shape = torch.Size((v.shape[0], 3, v.shape[1]))
    return _Derivative.apply(_VECTORS, 3, (receivers, senders), shape, u, v, w)  # type: ignore[no-untyped-call]
