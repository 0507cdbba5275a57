"""The network: its size, its symmetries, its envelope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn.o3 import rand_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md.get import GET, GETSettings, RadialBasis

SMALL = GETSettings(dim=8, n_heads=2, n_layers=3, n_radial=6)


def network(settings=SMALL, seed=0):
    torch.manual_seed(seed)
    made = GET(settings).double()
    with torch.no_grad():  # biases start at zero, where a wrong sign would not show
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def cloud(n_atoms, seed, width=4.0):
    """Return numbers, positions, and all pairs closer than the cutoff."""
    generator = torch.Generator().manual_seed(seed)
    positions = width * torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
    numbers = torch.tensor([1, 6, 8, 3])[torch.randint(4, (n_atoms,), generator=generator)]
    return numbers, positions


def sites(net, numbers, positions):
    index = torch.triu_indices(len(numbers), len(numbers), 1)
    vectors = positions[index[1]] - positions[index[0]]
    near = vectors.norm(dim=1) < net.cutoff
    return net(numbers, index[:, near], vectors[near])


def test_the_default_sizes_have_the_published_number_of_parameters():
    assert sum(p.numel() for p in GET().parameters()) == 103_620


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("embedding", 5_568),
        ("radial", 64),
        ("filter", 2_048),
        ("layers.0", 16_768),
        ("layers.1", 37_376),
        ("layers.2", 29_120),
    ],
)
def test_each_part_has_its_published_number_of_parameters(part, count):
    assert sum(p.numel() for p in GET().get_submodule(part).parameters()) == count


@given(seed=st.integers(0, 2**31 - 1), n_atoms=st.integers(1, 12), n_layers=st.integers(2, 4))
@settings(max_examples=25)
def test_sites_do_not_change_under_rotation_reflection_translation_and_permutation(
    seed, n_atoms, n_layers
):
    net = network(GETSettings(dim=8, n_heads=2, n_layers=n_layers, n_radial=6))
    numbers, positions = cloud(n_atoms, seed)
    torch.manual_seed(seed)
    turned = -positions @ rand_matrix(dtype=torch.float64).T + torch.randn(3, dtype=torch.float64)
    order = torch.randperm(n_atoms)
    before, after = sites(net, numbers, positions), sites(net, numbers[order], turned[order])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one[order], other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("envelope", ["polynomial", "cosine"])
@pytest.mark.parametrize("swap", [False, True])
def test_the_order_of_a_pair_does_not_matter(envelope, swap):
    net = network(GETSettings(dim=8, n_heads=2, n_radial=6, envelope=envelope))
    numbers, positions = cloud(5, 3)
    index = torch.triu_indices(5, 5, 1)
    vectors = positions[index[1]] - positions[index[0]]
    expected = net(numbers, index, vectors)
    turned = torch.tensor([swap, not swap] * 5)
    index = torch.where(turned, index.flip(0), index)
    got = net(numbers, index, torch.where(turned[:, None], -vectors, vectors))
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other)


def test_three_layers_pass_messages_over_two_bonds_and_no_further():
    net = network()
    numbers = torch.tensor([6, 8, 6, 8, 6])
    positions = torch.zeros(5, 3, dtype=torch.float64)
    positions[:, 0] = 4.0 * torch.arange(5)
    first = sites(net, numbers, positions).energies
    positions[4, 1] = 1.0  # the far end of the chain
    second = sites(net, numbers, positions).energies
    moved = (first - second).abs() > 1e-12
    assert moved.tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(("envelope", "continuous"), [("polynomial", 2), ("cosine", 1)])
def test_the_envelope_has_the_continuous_derivatives_that_are_promised(envelope, continuous):
    basis = RadialBasis(4, 5.0, envelope).double()
    r = torch.tensor([5.0 - 1e-6], dtype=torch.float64, requires_grad=True)
    values = [basis.envelope(r)]
    for _ in range(continuous + 1):
        values.append(torch.autograd.grad(values[-1].sum(), r, create_graph=True)[0])
    sizes = [abs(value.item()) for value in values]
    assert max(sizes[: continuous + 1]) < 1e-4
    assert sizes[continuous + 1] > 1e-2
    assert basis.envelope(torch.tensor([5.0, 7.0])).tolist() == [0.0, 0.0]
    assert basis.envelope(torch.tensor([0.0])).item() == 1.0


def test_charges_stay_within_their_bound():
    net = network()
    with torch.no_grad():
        net.charge_head[-1].bias.fill_(1e3)
    charges = sites(net, *cloud(6, 0)).charges
    np.testing.assert_allclose(charges.detach(), 2.0)


def test_impossible_sizes_are_refused_all_at_once():
    with pytest.raises(InvalidInputError, match="dim 10 is no multiple of n_heads 4; n_l"):
        GETSettings(dim=10, n_heads=4, n_layers=1)
    with pytest.raises(InvalidInputError, match="cutoff is 0.0, expected a positive number"):
        GETSettings(cutoff=0.0)
    with pytest.raises(InvalidInputError, match="expected 'polynomial' or 'cosine'"):
        GETSettings(envelope="box")
