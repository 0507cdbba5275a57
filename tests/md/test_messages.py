"""Sums over edges: the kernels against einsums, and every derivative against finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.md.messages import attention, scalar_messages, vector_messages


def graph(n_atoms, n_edges, n_heads, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    dim = n_heads * width
    ends = torch.randint(n_atoms, (2, n_edges), generator=generator)
    return {
        "ends": (ends[0], ends[1]),
        "q": normal(n_atoms, dim),
        "k": normal(n_atoms, dim),
        "v": normal(n_atoms, dim),
        "w": normal(n_edges, dim),
        "gate": normal(n_edges, n_heads),
        "u": normal(n_edges, 3),
    }


def plain_attention(receivers, senders, q, k, n_heads):
    return (q[receivers] * k[senders]).unflatten(-1, (-1, n_heads)).sum(1)


def plain_scalars(receivers, senders, gate, v, w):
    sent = v[senders] * w * gate.repeat(1, v.shape[1] // gate.shape[1])
    return torch.zeros_like(v).index_add(0, receivers, sent)


def plain_vectors(receivers, senders, u, v, w):
    sent = u[:, :, None] * (v[senders] * w)[:, None, :]
    return v.new_zeros(v.shape[0], 3, v.shape[1]).index_add(0, receivers, sent)


@given(
    n_atoms=st.integers(1, 9),
    n_edges=st.integers(0, 30),
    n_heads=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_sums_equal_the_plain_ones(n_atoms, n_edges, n_heads, width, seed):
    g = graph(n_atoms, n_edges, n_heads, width, seed)
    compare = torch.testing.assert_close
    compare(
        attention(*g["ends"], g["q"], g["k"], n_heads),
        plain_attention(*g["ends"], g["q"], g["k"], n_heads),
    )
    compare(
        scalar_messages(*g["ends"], g["gate"], g["v"], g["w"]),
        plain_scalars(*g["ends"], g["gate"], g["v"], g["w"]),
    )
    compare(
        vector_messages(*g["ends"], g["u"], g["v"], g["w"]),
        plain_vectors(*g["ends"], g["u"], g["v"], g["w"]),
    )


SUMS = [
    (lambda g, a, b: attention(*g["ends"], a, b, 2), ("q", "k")),
    (lambda g, a, b, c: scalar_messages(*g["ends"], a, b, c), ("gate", "v", "w")),
    (lambda g, a, b, c: vector_messages(*g["ends"], a, b, c), ("u", "v", "w")),
]


@pytest.mark.parametrize(("function", "names"), SUMS, ids=["attention", "scalars", "vectors"])
def test_first_and_second_derivatives_by_every_operand(function, names):
    g = graph(4, 7, 2, 3)
    operands = [g[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(lambda *x: function(g, *x), operands)
    assert torch.autograd.gradgradcheck(lambda *x: function(g, *x), operands)


@pytest.mark.parametrize(("function", "names"), SUMS, ids=["attention", "scalars", "vectors"])
def test_einsums_for_other_devices_equal_the_kernels(function, names, monkeypatch):
    from scikd.md import messages

    def by_both():
        g = graph(5, 11, 2, 3)
        operands = [g[name].requires_grad_() for name in names]
        value = function(g, *operands)
        first = torch.autograd.grad(value.square().sum(), operands, create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), operands)
        return [value, *first, *second]

    expected = by_both()
    monkeypatch.setattr(messages, "_by_kernel", messages._by_einsum)
    for one, other in zip(expected, by_both(), strict=True):
        torch.testing.assert_close(one, other)


def test_single_precision_keeps_its_digits():
    g, h = (graph(50, 4000, 2, 8, dtype=dtype) for dtype in (torch.float64, torch.float32))
    for name in ("q", "k", "v", "w", "gate", "u"):
        h[name] = g[name].float()
    for function, names in SUMS:
        exact, single = (function(x, *(x[name] for name in names)) for x in (g, h))
        assert (exact - single).abs().max() < 1e-5 * exact.abs().max()
