"""Tensor products: against e3nn's own, on every device, and by every operand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.md import _couplings
from scikd.md._couplings import Couplings, atom_products, components, pair_messages

L_FIRST = pytest.mark.parametrize("l_first", [0, 1, 2, 3])


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype)


def operands(table, l_first, l_second=2, n_atoms=5, n_pairs=9, channels=3, dtype=torch.float64):
    """Return pairs, and random weights, inputs, harmonics and outputs."""
    index = torch.randint(n_atoms, (2, n_pairs), generator=torch.Generator().manual_seed(1))
    return index, [
        normal(n_pairs, len(table.paths), channels, dtype=dtype),
        normal(n_atoms, (l_first + 1) ** 2, channels, dtype=dtype),
        normal(n_pairs, (l_second + 1) ** 2, dtype=dtype),
        normal(n_atoms, table.size, channels, dtype=dtype),
    ]


def irreps(degrees, channels=1):
    return o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in degrees])


@L_FIRST
@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_messages_are_those_of_the_tensor_product_of_e3nn(l_first):
    table = Couplings(l_first, 2, 2, apart=True)
    index, (w, x, y, _) = operands(table, l_first)
    channels, paths = x.shape[2], table.paths
    product = o3.TensorProduct(
        irreps(range(l_first + 1), channels),
        irreps(range(3)),
        irreps([c for _, _, c in paths], channels),
        [(a, b, p, "uvu", True) for p, (a, b, _) in enumerate(paths)],
        irrep_normalization="component",
        path_normalization="element",
        shared_weights=False,
        internal_weights=False,
    ).double()
    got = pair_messages(table, index, w, x, y)
    theirs = torch.cat([x[:, components(k)].mT.flatten(1) for k in range(l_first + 1)], dim=1)
    expected = torch.zeros(len(x), product.irreps_out.dim, dtype=torch.float64)
    turn = torch.cat([torch.full((2 * k + 1,), (-1.0) ** k) for k in range(3)])
    for receivers, senders, seen in ((index[0], index[1], y), (index[1], index[0], y * turn)):
        sent = product(theirs[senders], seen, w.flatten(1))
        expected = expected.index_add(0, receivers, sent.double())
    for p, where in enumerate(product.irreps_out.slices()):
        part = expected[:, where].view(len(x), channels, -1).mT
        # The coefficients that e3nn compiles in are in single precision.
        torch.testing.assert_close(got[:, table.outputs[p]], part, rtol=1e-5, atol=1e-5)


@L_FIRST
def test_products_of_atoms_are_those_of_a_pair_of_e3nn_s_symbols(l_first):
    table = Couplings(l_first, 2, 2)
    w, x, y = normal(4, len(table.paths), 3), normal(4, (l_first + 1) ** 2, 3), normal(4, 9, 3)
    expected = torch.zeros(4, 9, 3, dtype=torch.float64)
    for p, (a, b, c) in enumerate(table.paths):
        symbols = o3.wigner_3j(a, b, c, dtype=torch.float64) * (2 * c + 1) ** 0.5
        one, other = x[:, components(a)], y[:, components(b)]
        term = torch.einsum("nic,njc,ijk->nkc", one, other, symbols)
        expected[:, components(c)] += w[:, p, None] * term
    torch.testing.assert_close(atom_products(table, w, x, y), expected)


def test_paths_keep_the_parity_of_their_degrees():
    paths = Couplings(2, 2, 2).paths
    assert len(paths) == 11
    assert all((a + b + c) % 2 == 0 and abs(a - b) <= c <= a + b for a, b, c in paths)
    assert Couplings(2, 2, 2).counts == [3, 4, 4]


def test_results_of_unit_variance_come_of_unit_variance():
    table = Couplings(3, 3, 3, apart=True)
    index = torch.tensor([[0], [1]]).repeat(1, 1)
    x, y = normal(2, 16, 20_000), torch.zeros(1, 16, dtype=torch.float64)
    w = torch.ones(1, len(table.paths), 20_000, dtype=torch.float64)
    for p, (_, b, _) in enumerate(table.paths):
        y.zero_()[0, components(b)] = normal(2 * b + 1, seed=p)
        y *= (2 * b + 1) ** 0.5 / y.norm()  # as component-normalised harmonics are
        made = pair_messages(table, index, w, x, y)[0, table.outputs[p]]
        assert made.square().mean().item() == pytest.approx(1.0, abs=0.05)


@L_FIRST
@pytest.mark.parametrize("which", ["messages", "products"])
def test_first_and_second_derivatives_by_every_operand(l_first, which):
    if which == "messages":
        table = Couplings(l_first, 1, 1, apart=True)
        index, given = operands(table, l_first, 1, n_atoms=3, n_pairs=4, channels=2)

        def function(w, x, y):
            return pair_messages(table, index, w, x, y)
    else:
        table = Couplings(l_first, 1, 1)
        given = [normal(2, len(table.paths), 2), normal(2, (l_first + 1) ** 2, 2), normal(2, 4, 2)]

        def function(w, x, y):
            return atom_products(table, w, x, y)

    leaves = [x.requires_grad_() for x in given[:3]]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@given(
    l_first=st.integers(0, 3),
    l_second=st.integers(0, 3),
    n_atoms=st.integers(1, 6),
    n_pairs=st.integers(0, 12),
    channels=st.integers(1, 5),
    which=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_einsums_for_other_devices_equal_the_kernels(
    l_first, l_second, n_atoms, n_pairs, channels, which
):
    table = Couplings(l_first, l_second, 2, apart=True)
    index, given = operands(table, l_first, l_second, n_atoms, n_pairs, channels)
    others = [x for k, x in enumerate(given) if k != which]
    form = _couplings._Messages(table, index)
    shape = given[which].shape
    torch.testing.assert_close(
        form.compute(which, shape, others), form._einsum(which, shape, others)
    )


@pytest.mark.parametrize("which", range(4))
def test_einsums_of_atoms_equal_the_kernel(which):
    table = Couplings(2, 1, 2)
    given = [normal(4, len(table.paths), 3), *(normal(4, n, 3) for n in (9, 4, 9))]
    others = [x for k, x in enumerate(given) if k != which]
    form = _couplings._Products(table)
    torch.testing.assert_close(
        form.compute(which, given[which].shape, others),
        form._einsum(which, given[which].shape, others),
    )


def test_single_precision_keeps_its_digits():
    table = Couplings(2, 2, 2, apart=True)
    size = {"n_atoms": 40, "n_pairs": 3000, "channels": 8}
    index, given = operands(table, 2, **size)
    exact = pair_messages(table, index, *given[:3])
    single = pair_messages(table, index, *(x.float() for x in given[:3]))
    assert single.dtype == torch.float32
    assert (exact - single).abs().max() < 1e-5 * exact.abs().max()


def test_an_atom_may_be_its_own_neighbour_in_the_next_cell():
    table = Couplings(1, 1, 1, apart=True)
    index = torch.tensor([[0], [0]])
    w, x, y = normal(1, len(table.paths), 2), normal(1, 4, 2), normal(1, 4)
    got = pair_messages(table, index, w, x, y)
    apart = torch.tensor([[0], [1]])
    two = pair_messages(table, apart, w, x.repeat(2, 1, 1), y)
    np.testing.assert_allclose(got[0], two.sum(0), atol=1e-12)
