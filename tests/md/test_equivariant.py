"""The network of tensor products: its equations, its symmetries, its scale, where it works."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from e3nn import o3
from e3nn.util.test import assert_equivariant
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.integrate import quad

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.md.calculators import EnsembleCalculator, ForceFieldCalculator
from scikd.md.electrostatics import Electrostatics
from scikd.md.equivariant import (
    SILU_SCALE,
    BesselBasis,
    Equivariant,
    EquivariantSettings,
    Interaction,
)
from scikd.md.frames import from_ase
from scikd.md.model import ForceField
from scikd.md.storage import load_force_field, save_force_field
from tests.reference import md_equivariant
from tests.reference.md_models import force_field as get_force_field
from tests.reference.md_models import structure

SMALL = EquivariantSettings(channels=3, n_radial=4, n_hidden=5, cutoff=4.0)
ALL_KINDS = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"l_max": 0},
        {"l_max": 1, "correlation": 1},
        {"l_max": 2, "correlation": 2, "n_layers": 3},
        {"l_max": 3, "n_layers": 1},
    ],
    ids=str,
)


def network(settings=SMALL, seed=0):
    """Return a network in which no number is where it starts, where a wrong use would not show."""
    torch.manual_seed(seed)
    made = Equivariant(settings).double()
    with torch.no_grad():
        for values in [*made.parameters(), *(layer.neighbors for layer in made.layers)]:
            values.add_(0.2 * torch.rand_like(values))
    return made


def force_field(settings=SMALL, seed=0, **terms):
    terms = {"electrostatics": Electrostatics(cutoff=5.0, accuracy=1e-8)} | terms
    return ForceField(network(settings, seed), elements=[1, 6, 8], **terms).double()


def cloud(n_atoms, seed, width=4.0):
    generator = torch.Generator().manual_seed(seed)
    positions = width * torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
    numbers = torch.tensor([1, 6, 8, 3])[torch.randint(4, (n_atoms,), generator=generator)]
    return numbers, positions


def pairs(net, positions):
    index = torch.triu_indices(len(positions), len(positions), 1)
    vectors = positions[index[1]] - positions[index[0]]
    near = vectors.norm(dim=1) < net.cutoff
    return index[:, near], vectors[near]


def sites(net, numbers, positions):
    return net(numbers, *pairs(net, positions))


def predict(model, atoms, **wanted):
    batch = from_ase(atoms)
    found = model(batch, model.neighbors(batch), **wanted)
    return {name: values.numpy() for name, values in found.items()}


# ---------------------------------------------------------------------------------- its equations


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"l_max": 0, "correlation": 2},
        {"l_max": 1, "correlation": 1},
        {"l_max": 1, "n_layers": 3},
        {"n_layers": 1, "correlation": 2},
    ],
    ids=str,
)
def test_it_is_the_sum_over_paths_components_and_channels(changes):
    settings = replace(SMALL, channels=2, **changes)
    net = network(settings)
    numbers, positions = cloud(5, 1, width=3.0)
    weights = {name: values.numpy() for name, values in net.state_dict().items()}
    expected = md_equivariant.network(weights, numbers.numpy(), positions.numpy(), settings)
    for one, other in zip(sites(net, numbers, positions), expected, strict=True):
        np.testing.assert_allclose(one.detach(), other, rtol=1e-10, atol=1e-12)


def test_neighbours_of_neighbours_are_seen_and_no_others():
    net = network(replace(SMALL, n_layers=2))
    numbers = torch.tensor([6, 8, 6, 8])
    positions = torch.zeros(4, 3, dtype=torch.float64)
    positions[:, 0] = 3.0 * torch.arange(4)
    first = sites(net, numbers, positions).energies
    positions[3, 1] = 1.0
    moved = (first - sites(net, numbers, positions).energies).abs() > 1e-12
    assert moved.tolist() == [False, True, True, True]


def test_correlation_is_the_number_of_bodies():
    """With two factors in a product an interaction knows angles between two neighbours."""
    a, b = torch.eye(3, dtype=torch.float64)[:2]
    third = torch.tensor([0.5, 0.5, 0.5**0.5], dtype=torch.float64)
    # Three neighbours at one distance: its angles with the two others change, or nothing does.
    shapes = [torch.stack([0 * a, a, b, way]) for way in (third, third * a.new_tensor([1, 1, -1]))]
    shapes.append(torch.stack([0 * a, a, b, -third]))
    for correlation in (1, 2):
        net = network(replace(SMALL, correlation=correlation, n_layers=1))
        found = [sites(net, torch.tensor([6, 1, 1, 1]), x).energies[0].item() for x in shapes]
        assert found[0] == pytest.approx(found[1], abs=1e-12)
        assert (abs(found[0] - found[2]) > 1e-9) == (correlation == 2)


# --------------------------------------------------------------------------------- its symmetries


@given(seed=st.integers(0, 2**31 - 1), n_atoms=st.integers(1, 9), l_max=st.integers(0, 3))
@hypothesis_settings(max_examples=25, deadline=None)
def test_sites_do_not_change_under_rotation_reflection_translation_and_permutation(
    seed, n_atoms, l_max
):
    net = network(replace(SMALL, l_max=l_max))
    numbers, positions = cloud(n_atoms, seed)
    torch.manual_seed(seed)
    turned = -positions @ o3.rand_matrix(dtype=torch.float64).T
    turned += torch.randn(3, dtype=torch.float64)
    order = torch.randperm(n_atoms)
    before, after = sites(net, numbers, positions), sites(net, numbers[order], turned[order])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one[order], other, rtol=1e-7, atol=1e-9)


def test_e3nn_finds_an_interaction_equivariant():
    torch.manual_seed(0)
    channels, l_max = SMALL.channels, 2
    layer = Interaction(SMALL, l_max, l_max).double()
    net = network()
    numbers = torch.tensor([6, 1, 8, 1])
    # In e3nn's order the components of a channel are together, in ours the channels of a component.
    irreps = o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(l_max + 1)])

    def ours(h):
        parts = [h[:, s].view(len(h), channels, -1).mT for s in irreps.slices()]
        return torch.cat(parts, dim=1)

    def theirs(h):
        parts = [h[:, k * k : (k + 1) ** 2].mT.flatten(1) for k in range(l_max + 1)]
        return torch.cat(parts, dim=1)

    def step(positions, h):
        index, vectors = pairs(net, positions)
        return theirs(layer(ours(h), numbers, index, net._edges(vectors)))

    positions = torch.tensor([[0, 0, 0], [1.0, 0.2, 0], [-0.5, 1.1, 0.3], [0.4, -0.9, 1.2]])
    h = torch.randn(4, irreps.dim, dtype=torch.float64)
    assert_equivariant(
        step,
        args_in=[positions.double(), h],
        irreps_in=["cartesian_points", irreps],
        irreps_out=[irreps],
        tolerance=1e-5,  # e3nn draws its rotations in single precision
    )


@pytest.mark.parametrize("swap", [False, True])
def test_the_order_of_a_pair_does_not_matter(swap):
    net = network()
    numbers, positions = cloud(5, 3)
    index, vectors = pairs(net, positions)
    expected = net(numbers, index, vectors)
    turned = torch.arange(index.shape[1]) % 2 == swap
    index = torch.where(turned, index.flip(0), index)
    got = net(numbers, index, torch.where(turned[:, None], -vectors, vectors))
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other)


# --------------------------------------------------------------------------------- its derivatives


@pytest.mark.parametrize("periodic", [True, False])
def test_forces_and_stress_are_gradients_of_the_energy(periodic):
    model, atoms, step = force_field(), structure(8, 2, periodic=periodic), 1e-4
    found = predict(model, atoms, stress=periodic)
    random = np.random.default_rng(0)
    for _ in range(6):
        way = random.normal(size=(len(atoms), 3))
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions += sign * step * way
            ends.append(predict(model, moved, forces=False)["energy"][0])
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(-(found["forces"] * way).sum(), rel=1e-5, abs=1e-6)
    if not periodic:
        return
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        ends = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            ends.append(predict(model, strained, forces=False)["energy"][0])
        slope = (ends[0] - ends[1]) / (2 * step) / atoms.get_volume()
        assert slope == pytest.approx(found["stress"][0][k], rel=1e-5, abs=1e-7)


def test_a_loss_on_forces_and_virial_has_the_gradient_of_finite_differences():
    model, atoms = force_field(), structure(6, 1)
    batch = from_ase(atoms)
    neighbors = model.neighbors(batch)

    def loss():
        found = model(batch, neighbors, stress=True, training=True)
        squares = [found[name].square().mean() for name in ("forces", "virial", "charges")]
        return sum(squares) + found["energies"].square().mean()

    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), parameters)
    assert all(g.abs().max() > 0.0 for g in gradients), "every parameter learns"
    torch.manual_seed(0)
    for p, gradient in zip(parameters, gradients, strict=True):
        way = torch.randn_like(p)
        way /= way.norm()
        ends = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                p.add_(way, alpha=step)
            ends.append(loss().item())
        with torch.no_grad():
            p.add_(way, alpha=1e-5)
        expected = (gradient * way).sum().item()
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_energy_fades_at_the_cutoff_with_two_continuous_derivatives():
    net = network(replace(SMALL, n_layers=2))
    numbers = torch.tensor([6, 8, 1])

    def derivatives(r):
        x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
        zero = torch.zeros_like(x)
        rows = [[zero, zero, zero], [zero + 1.2, zero, zero], [zero, x, zero]]
        positions = torch.stack([torch.stack(row) for row in rows])
        index = torch.triu_indices(3, 3, 1)
        vectors = positions[index[1]] - positions[index[0]]
        near = torch.tensor([True, r < net.cutoff, bool(np.hypot(r, 1.2) < net.cutoff)])
        values = [net(numbers, index[:, near], vectors[near]).energies.sum()]
        for _ in range(2):
            (slope,) = torch.autograd.grad(
                values[-1], x, create_graph=True, allow_unused=True, materialize_grads=True
            )
            values.append(slope)
        return np.array([value.item() for value in values])

    for edge in (net.cutoff, np.sqrt(net.cutoff**2 - 1.2**2)):
        below, above = derivatives(edge - 1e-6), derivatives(edge + 1e-6)
        np.testing.assert_allclose(below, above, atol=1e-4)
    assert np.abs(derivatives(2.0) - derivatives(2.1)).max() > 1e-2


# -------------------------------------------------------------------------------------- its scale


def test_the_scale_of_silu_makes_its_second_moment_one():
    def integrand(x):
        return (x / (1 + np.exp(-x))) ** 2 * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)

    assert quad(integrand, -12, 12)[0] ** -0.5 == pytest.approx(SILU_SCALE, abs=1e-4)


def test_radial_functions_are_of_the_order_of_one_and_end_smoothly():
    basis = BesselBasis(8, 5.0)
    values, fade = basis(torch.linspace(1.0, 4.0, 400))
    assert 0.5 < values.square().mean().sqrt() < 1.5
    assert basis(torch.tensor([5.0, 6.0]))[1].tolist() == [0.0, 0.0]
    assert (fade.diff() < 0.0).all()


@pytest.mark.parametrize("n_atoms", [10, 60])
def test_measured_sums_have_unit_variance_in_every_interaction(n_atoms):
    torch.manual_seed(0)
    net = Equivariant(EquivariantSettings(channels=16)).double()
    atoms = structure(n_atoms, width=2.2 * n_atoms ** (1 / 3), periodic=False)
    numbers, positions = torch.from_numpy(atoms.numbers), torch.from_numpy(atoms.positions)
    index, vectors = pairs(net, positions)
    before = sites(net, numbers, positions).energies
    net.measure(numbers, index, vectors)
    net.requires_grad_(requires_grad=False)
    edges, h = net._edges(vectors), net.embedding(numbers)[:, None]
    for layer in net.layers:
        sums = layer._sums(h, index, edges)
        for degree in range(3):
            part = sums[:, degree**2 : (degree + 1) ** 2]
            assert part.square().mean() / layer.neighbors[degree] == pytest.approx(1.0)
        h = layer(h, numbers, index, edges)
    after = sites(net, numbers, positions).energies
    assert not torch.equal(before, after)
    assert 0.003 < after.abs().median() < 0.3


def test_a_number_of_neighbours_that_is_given_stays_as_it_is():
    net = Equivariant(replace(SMALL, average_neighbors=12.5))
    numbers, positions = cloud(9, 0)
    net.measure(numbers, *pairs(net, positions))
    assert all(layer.neighbors.tolist() == [12.5] * 3 for layer in net.layers)


def test_atoms_without_neighbours_measure_nothing_and_have_an_energy():
    net = network()
    before = [layer.neighbors.clone() for layer in net.layers]
    numbers, positions = cloud(3, 0, width=100.0)
    net.measure(numbers, *pairs(net, positions))
    assert all(torch.equal(a, layer.neighbors) for a, layer in zip(before, net.layers, strict=True))
    assert torch.isfinite(sites(net, numbers, positions).energies).all()


def test_single_precision_keeps_its_digits():
    atoms = structure(12, 3)
    model = force_field(replace(SMALL, channels=16))
    exact = predict(model, atoms, stress=True)
    single = predict(model.float(), atoms, stress=True)
    for name in ("forces", "stress", "charges"):
        assert np.abs(single[name] - exact[name]).max() < 2e-5 * np.abs(exact[name]).max()


def test_charges_stay_within_their_bound():
    net = network()
    with torch.no_grad():
        net.charge_head[-1].bias.fill_(1e3)
    np.testing.assert_allclose(sites(net, *cloud(6, 0)).charges.detach(), 2.0)


# ---------------------------------------------------------------------------------- where it works


def test_elsewhere_than_on_the_cpu_nothing_is_left_behind_there():
    net = network().to("meta")  # which refuses to mix its arrays with others, as a GPU does
    numbers, positions = cloud(6, 0)
    index, vectors = pairs(net, positions)
    vectors = vectors.to("meta").requires_grad_()
    found = net(numbers.to("meta"), index.to("meta"), vectors)
    assert all(values.device.type == "meta" and values.shape == (6,) for values in found)
    total = sum(values.sum() for values in found)
    (slope,) = torch.autograd.grad(total, vectors, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), [net.layers[1].mix.weights[1]])
    assert second.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@ALL_KINDS
def test_save_and_load_give_the_same_model_to_the_last_bit(tmp_path, dtype, changes):
    before = force_field(replace(SMALL, **changes)).to(dtype)
    after = load_force_field(save_force_field(before, tmp_path / "model"))
    assert after.dtype == dtype
    assert after.architecture.settings == before.architecture.settings
    atoms = structure(8, 0)
    one, other = (predict(model, atoms, stress=True) for model in (before, after))
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def test_a_file_with_settings_of_the_other_family_is_refused(tmp_path):
    from scikd.persistence import load_bundle, save_bundle

    folder = save_force_field(force_field(), tmp_path / "model")
    bundle = load_bundle(folder, kind="scikd.md.ForceField")
    parameters = {**bundle.parameters, "architecture": "GET"}
    save_bundle(folder, kind=bundle.kind, parameters=parameters, arrays=bundle.arrays)
    with pytest.raises(CorruptFileError, match="got an unexpected keyword argument"):
        load_force_field(folder)


def test_it_is_a_calculator_alone_and_in_an_ensemble_with_the_other_family():
    atoms = molecule("CH3CH2OH")
    model = force_field()
    expected = predict(model, atoms)
    alone = ForceFieldCalculator(model, guard="ignore", dtype="float64")
    alone.calculate(atoms)
    np.testing.assert_allclose(alone.results["forces"], expected["forces"], atol=1e-9)
    other = get_force_field()
    both = EnsembleCalculator([model, other], guard="ignore", dtype="float64", engine="torch")
    both.calculate(atoms)
    mean = (expected["energy"][0] + predict(other, atoms)["energy"][0]) / 2
    assert both.results["energy"] == pytest.approx(mean)
    with pytest.raises(InvalidInputError, match="computes GET networks on the CPU; got Equiv"):
        ForceFieldCalculator(model, engine="numba", device="cpu")


def test_it_runs_under_torch_sim():
    torch_sim = pytest.importorskip("torch_sim")
    from scikd.md.torchsim import TorchSimModel

    model, systems = force_field(), [structure(8, seed) for seed in (0, 1)]
    state = torch_sim.initialize_state(systems, torch.device("cpu"), torch.float64)
    found = TorchSimModel(model, device="cpu")(state)
    for k, atoms in enumerate(systems):
        expected = predict(model, atoms, stress=True)
        assert found["energy"][k].item() == pytest.approx(expected["energy"][0])
        forces = found["forces"][8 * k : 8 * (k + 1)].numpy()
        np.testing.assert_allclose(forces, expected["forces"], atol=1e-8)


def test_impossible_sizes_are_refused_all_at_once():
    with pytest.raises(InvalidInputError, match="channels is 0, .*; l_max is 4, expected 0 to 3"):
        EquivariantSettings(channels=0, l_max=4)
    with pytest.raises(InvalidInputError, match="average_neighbors is -1.0, expected a positive"):
        EquivariantSettings(average_neighbors=-1.0)
    with pytest.raises(InvalidInputError, match="family is 'get', expected 'equivariant'"):
        EquivariantSettings(family="get")


def test_the_readout_can_be_trained_alone():
    model = force_field()
    model.train_only("readout")
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trained
    assert all(name.startswith("architecture.energy_head.") for name in trained)
