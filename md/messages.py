"""Sums over edges for PyTorch, differentiable as often as one likes.

Each sum is the derivative of a multilinear form by one of its operands (`scikd.md.kernels.messages`
lists the forms), and so is each derivative of it. On the CPU the kernels are compiled by Numba and
never hold an array of edges times channels times directions; elsewhere the same sums are einsums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._multilinear import derivative
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


@dataclass(frozen=True)
class _Sum:
    """A form over the edges between these atoms."""

    form: _Form
    edges: tuple[Tensor, Tensor]

    def compute(self, which: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
        by = _by_kernel if others[0].device.type == "cpu" else _by_einsum
        return by(self.form, which, self.edges, shape, others)


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
    return derivative(_Sum(_ATTENTION, (receivers, senders)), 0, shape, (q, k))


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
    return derivative(_Sum(_SCALARS, (receivers, senders)), 3, v.shape, (gate, v, w))


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
    return derivative(_Sum(_VECTORS, (receivers, senders)), 3, shape, (u, v, w))
