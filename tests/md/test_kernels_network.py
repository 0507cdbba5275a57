"""The compiled GET against its naive twin and the torch model; its filter table; its lanes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import njit

from scikd.exceptions import InvalidInputError
from scikd.md.get import GET, GETSettings
from scikd.md.kernels import _lanes as lanes
from scikd.md.kernels.filters import FilterTable, envelope, filters
from scikd.md.kernels.network import Network
from tests.reference import md_get as slow

PROFILE = settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# Three shapes of network, so that few are compiled: the default, and two that differ in all.
SIZES = {
    "default": {},
    "two": {"dim": 32, "n_heads": 8, "n_layers": 2, "envelope": "cosine", "n_hidden": 1},
    "four": {"dim": 12, "n_heads": 3, "n_layers": 4, "n_radial": 5, "n_hidden": 3, "cutoff": 4.0},
}
KINDS = [("default", "float32"), ("default", "float64"), ("two", "float64"), ("four", "float64")]
CELLS = {
    "cubic": 6.0 * np.eye(3),
    "triclinic": np.array([[7.0, 0.0, 0.0], [2.5, 6.0, 0.0], [-2.0, 3.0, 6.5]]),
    "tiny": 3.5 * np.eye(3),
}


def model(name, seed=0):
    """Return a GET whose weights, biases and priors are all random, in double precision."""
    torch.manual_seed(seed)
    get = GET(GETSettings(**SIZES[name]), charge_prior=torch.randn(87)).double()
    with torch.no_grad():
        for parameter_name, values in get.named_parameters():
            if "radial" not in parameter_name:
                values.add_(0.1 * torch.randn_like(values))
    return get


def weights_of(get):
    return {name: values.detach().numpy() for name, values in get.state_dict().items()}


def compiled(get, **kwargs):
    s = get.settings
    return Network(
        weights_of(get),
        n_heads=s.n_heads,
        cutoff=s.cutoff,
        envelope=s.envelope,
        max_charge=s.max_charge,
        **kwargs,
    )


def liquid(n_atoms, seed, cell):
    """Return positions no two of which are close, and the half list (i, j, offsets) with images."""
    rng = np.random.default_rng(seed)
    steps = max(2, int(np.ceil(n_atoms ** (1 / 3))))
    grid = np.stack(np.meshgrid(*[np.arange(steps)] * 3), -1).reshape(-1, 3) / steps
    fractional = rng.permutation(grid)[:n_atoms] + rng.uniform(-0.2, 0.2, (n_atoms, 3)) / steps
    positions = fractional @ cell
    return positions, rng.choice([1, 3, 6, 8, 15], n_atoms), half_list(positions, cell, 6.0)


def half_list(positions, cell, cutoff):
    reach = np.arange(-3, 4)
    i, j = np.triu_indices(len(positions))
    kept = []
    for shift in np.stack(np.meshgrid(reach, reach, reach), -1).reshape(-1, 3):
        near = np.linalg.norm(positions[j] + shift @ cell - positions[i], axis=1) < cutoff
        if tuple(shift) <= (0, 0, 0):
            near &= i != j  # the other half, and the atom itself
        kept.append((i[near], j[near], np.tile(shift @ cell, (near.sum(), 1))))
    return tuple(np.concatenate(part) for part in zip(*kept, strict=True))


def by_torch(get, positions, numbers, pairs, seeds):
    """Return energies, charges, forces, virial of the torch model."""
    i, j, offsets = pairs
    x = torch.tensor(positions, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    strained, shift = x + x @ strain, torch.tensor(offsets)
    index = torch.tensor(np.stack([i, j]))
    d = strained[index[1]] + shift + shift @ strain - strained[index[0]]
    near = d.detach().norm(dim=1) < get.cutoff
    sites = get(torch.tensor(numbers), index[:, near], d[near])
    energy = sites.energies.sum() + (sites.charges * torch.tensor(seeds)).sum()
    if not near.any():
        gradients = (torch.zeros_like(x), torch.zeros_like(strain))
    else:
        gradients = torch.autograd.grad(energy, [x, strain])
    sites_out = (sites.energies.detach().numpy(), sites.charges.detach().numpy())
    return *sites_out, *(-g.numpy() for g in gradients)


def by_kernel(network, positions, numbers, pairs, seeds, order=None):
    i, j, offsets = pairs
    network.set_pairs(i, j, np.arange(len(positions)) if order is None else order)
    out = network.forward(positions, numbers, offsets)
    return *out, *network.backward(seeds)


def assert_close(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for name, a, b in zip(("energies", "charges", "forces", "virial"), ours, theirs, strict=False):
        assert a.shape == b.shape
        np.testing.assert_allclose(
            a, b, rtol=0, atol=tolerance * max(1e-3, np.abs(b).max()), err_msg=name
        )


@pytest.fixture(scope="module")
def networks():
    """Return (torch model, compiled) by name and dtype."""
    made = {}
    for name, dtype in KINDS:
        get = model(name)
        made[name, dtype] = (get, compiled(get, dtype=dtype, threads=1))
    return made


# -- the network ---------------------------------------------------------------------------------


class TestNetwork:
    @pytest.mark.parametrize(("name", "dtype"), KINDS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_agrees_with_torch(self, networks, name, dtype, cell):
        get, network = networks[name, dtype]
        positions, numbers, pairs = liquid(9 if cell == "tiny" else 37, 3, CELLS[cell])
        seeds = np.random.default_rng(0).normal(size=len(positions))
        expected = by_torch(get, positions, numbers, pairs, seeds)
        found = by_kernel(network, positions, numbers, pairs, seeds)
        assert_close(found, expected, 1e-9 if dtype == "float64" else 1e-5)
        published = by_torch(get, positions, numbers, pairs, 0 * seeds)
        assert_close(
            (*found[:2], *network.backward()), published, 1e-9 if dtype == "float64" else 1e-5
        )

    @PROFILE
    @given(st.integers(1, 70), st.integers(0, 10**6), st.floats(2.0, 4.0))
    def test_agrees_with_torch_at_any_size_and_density(self, networks, n_atoms, seed, spacing):
        get, network = networks["default", "float64"]
        cell = np.diag([1.0, 1.3, 0.9]) * spacing * max(2, np.ceil(n_atoms ** (1 / 3)))
        positions, numbers, pairs = liquid(n_atoms, seed, cell)
        seeds = np.random.default_rng(seed).normal(size=n_atoms)
        expected = by_torch(get, positions, numbers, pairs, seeds)
        assert_close(by_kernel(network, positions, numbers, pairs, seeds), expected, 1e-9)

    @pytest.mark.parametrize("name", SIZES)
    def test_agrees_with_the_naive_twin(self, networks, name):
        get, network = networks[name, "float64"]
        positions, numbers, (i, j, offsets) = liquid(3, 1, CELLS["cubic"])
        seeds = np.array([0.3, -1.0, 0.5])
        s, weights = get.settings, weights_of(get)

        def sites(x, pairs):
            return slow.network(
                *(weights, numbers, x, pairs),
                n_heads=s.n_heads,
                cutoff=s.cutoff,
                envelope_kind=s.envelope,
                max_charge=s.max_charge,
            )

        def energy(x, pairs):
            energies, charges = sites(x, pairs)
            return energies.sum() + seeds @ charges

        pairs = list(zip(i, j, offsets, strict=True))
        forces, virial = slow.forces_and_virial(energy, positions, pairs)
        found = by_kernel(network, positions, numbers, (i, j, offsets), seeds)
        assert_close(found[:2], sites(positions, pairs), 1e-10)
        np.testing.assert_allclose(found[2], forces, atol=1e-6 * np.abs(forces).max() + 1e-7)
        np.testing.assert_allclose(found[3], virial, atol=1e-6 * np.abs(virial).max() + 1e-7)

    def test_an_atom_without_neighbours_feels_nothing(self, networks):
        get, network = networks["default", "float64"]
        positions = np.array([[0.0, 0, 0], [1.2, 0, 0], [50.0, 0, 0]])
        numbers = np.array([6, 8, 3])
        pairs = (np.array([0, 0]), np.array([1, 2]), np.zeros((2, 3)))  # one beyond the cutoff
        found = by_kernel(network, positions, numbers, pairs, np.ones(3))
        assert_close(found, by_torch(get, positions, numbers, pairs, np.ones(3)), 1e-9)
        assert (found[2][2] == 0).all()

    def test_one_atom_alone(self, networks):
        get, network = networks["four", "float64"]
        none = (np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3)))
        found = by_kernel(network, np.zeros((1, 3)), np.array([3]), none, np.ones(1))
        assert_close(found, by_torch(get, np.zeros((1, 3)), np.array([3]), none, np.ones(1)), 1e-9)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_results_are_the_same_bits_for_any_number_of_threads(self, networks, dtype):
        get, network = networks["default", dtype]
        positions, numbers, pairs = liquid(150, 5, 12.0 * np.eye(3))
        seeds = np.random.default_rng(0).normal(size=150)
        one = by_kernel(network, positions, numbers, pairs, seeds)
        for threads in (2, 5):
            many = by_kernel(
                compiled(get, dtype=dtype, threads=threads), positions, numbers, pairs, seeds
            )
            for a, b in zip(one, many, strict=True):
                assert a.tobytes() == b.tobytes()

    def test_networks_in_two_threads_at_once_do_not_disturb_each_other(self, networks):
        get, network = networks["default", "float32"]
        positions, numbers, pairs = liquid(100, 5, 11.0 * np.eye(3))
        expected = by_kernel(network, positions, numbers, pairs, None)
        found = {}

        def work(key):
            own = compiled(get, dtype="float32", threads=2)
            for _ in range(20):
                found[key] = by_kernel(own, positions, numbers, pairs, None)

        threads = [threading.Thread(target=work, args=(key,)) for key in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for key in range(2):
            for a, b in zip(found[key], expected, strict=True):
                assert a.tobytes() == b.tobytes()

    def test_forces_add_up_to_nothing_and_turn_with_the_atoms(self, networks):
        _, network = networks["two", "float64"]
        positions, numbers, pairs = liquid(20, 2, CELLS["triclinic"])
        energies, _, forces, virial = by_kernel(network, positions, numbers, pairs, None)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        turned = by_kernel(network, positions @ turn, numbers, (*pairs[:2], pairs[2] @ turn), None)
        np.testing.assert_allclose(forces.sum(0), 0, atol=1e-12)
        np.testing.assert_allclose(virial, virial.T, atol=1e-12)
        np.testing.assert_allclose(turned[0], energies, rtol=1e-10)
        np.testing.assert_allclose(turned[2], forces @ turn, atol=1e-10)
        np.testing.assert_allclose(turned[3], turn.T @ virial @ turn, atol=1e-10)

    def test_pairs_beyond_the_cutoff_and_their_order_change_nothing_much(self, networks):
        _, network = networks["default", "float64"]
        positions, numbers, pairs = liquid(20, 2, CELLS["cubic"])
        far = half_list(positions, CELLS["cubic"], 7.5)
        mixed = tuple(part[np.random.default_rng(0).permutation(len(far[0]))] for part in far)
        one = by_kernel(network, positions, numbers, pairs, None)
        assert_close(by_kernel(network, positions, numbers, mixed, None), one, 1e-12)

    def test_results_do_not_depend_on_the_order_in_which_atoms_are_stored(self, networks):
        _, network = networks["default", "float64"]
        positions, numbers, pairs = liquid(45, 2, CELLS["triclinic"])
        seeds = np.random.default_rng(0).normal(size=45)
        one = by_kernel(network, positions, numbers, pairs, seeds)
        order = np.random.default_rng(1).permutation(45)
        other = by_kernel(network, positions, numbers, pairs, seeds, order)
        for a, b in zip(one[:3], other[:3], strict=True):
            assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(other[3], one[3], rtol=1e-13)

    def test_what_it_refuses(self):
        get = model("four")
        with pytest.raises(InvalidInputError, match="Expected dtype 'float32' or 'float64'; got"):
            compiled(get, dtype="float16")
        with pytest.raises(InvalidInputError, match="Expected threads to be at least 1"):
            compiled(get, threads=0)

    def test_all_processors_is_the_default(self):
        assert compiled(model("four")).threads == joblib.cpu_count() >= 1

    def test_says_once_that_it_compiles(self, caplog, monkeypatch):
        monkeypatch.setattr("scikd.md.kernels.network._PREPARED", set())
        network = compiled(model("four"), dtype="float64", threads=1)
        positions, numbers, pairs = liquid(5, 0, CELLS["cubic"])
        with caplog.at_level(logging.INFO, "scikd.md.kernels.network"):
            by_kernel(network, positions, numbers, pairs, None)
            by_kernel(network, positions, numbers, pairs, None)
        assert [r.message.split(":")[0] for r in caplog.records[:1]] == [
            "Preparing compiled GET for float64, 12 channels, 3 heads"
        ]
        assert len(caplog.records) == 2
        assert caplog.records[1].message.startswith("Ready after")


# -- the table -----------------------------------------------------------------------------------


class TestFilterTable:
    @pytest.mark.parametrize("kind", ["polynomial", "cosine"])
    @pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-9])
    def test_is_as_exact_as_asked(self, kind, tolerance):
        weights = weights_of(model("default"))
        table = FilterTable.build(weights, 5.0, kind, tolerance)
        r = np.random.default_rng(0).uniform(0, 5.0, 20000)
        value, slope = table.evaluate(r)
        expected = filters(weights, r, 5.0, kind)
        # Measured at five points of each interval; between them it may be a little larger.
        assert np.abs(value - expected[0]).max() <= 1.05 * tolerance * np.abs(expected[0]).max()
        assert np.abs(slope - expected[1]).max() <= 1.05 * tolerance * np.abs(expected[1]).max()
        assert table.n_intervals & (table.n_intervals - 1) == 0
        assert max(table.errors) <= tolerance

    def test_is_the_filter_of_the_torch_model(self):
        get = model("default")
        r = torch.linspace(0.01, 4.999, 300, dtype=torch.float64)
        basis, fade = get.radial(r)
        expected = torch.nn.functional.silu(get.filter(basis)).detach().numpy()
        weights = weights_of(get)
        np.testing.assert_allclose(
            filters(weights, r.numpy(), 5.0, "polynomial")[0], expected, atol=1e-13
        )
        np.testing.assert_allclose(envelope(r.numpy(), 5.0, "polynomial")[0], fade, atol=1e-14)

    @pytest.mark.parametrize("kind", ["polynomial", "cosine"])
    def test_derivatives_are_those_of_the_values(self, kind):
        weights = weights_of(model("default"))
        r, step = np.linspace(0.1, 4.9, 500), 1e-5
        plus, minus = (filters(weights, r + s, 5.0, kind) for s in (step, -step))
        here = filters(weights, r, 5.0, kind)
        for order in (0, 1):
            slope = (plus[order] - minus[order]) / (2 * step)
            np.testing.assert_allclose(here[order + 1], slope, atol=1e-7 * np.abs(slope).max())
        up, down = (envelope(r + s, 5.0, kind) for s in (step, -step))
        for order in (0, 1):
            slope = (up[order] - down[order]) / (2 * step)
            np.testing.assert_allclose(envelope(r, 5.0, kind)[order + 1], slope, atol=1e-9)

    def test_is_continuous_with_two_derivatives(self):
        table = FilterTable.build(weights_of(model("default")), 5.0, "polynomial", 1e-3)
        c = table.coefficients.reshape(table.n_intervals, 6, -1)
        n = np.arange(6)
        for ends, starts in ((c.sum(1), c[:, 0]), (np.einsum("k,mkc->mc", n, c), c[:, 1]),
                             (np.einsum("k,mkc->mc", n * (n - 1), c), 2 * c[:, 2])):  # fmt: skip
            np.testing.assert_allclose(ends[:-1], starts[1:], atol=1e-11)

    def test_refuses_weights_that_no_table_can_hold(self):
        weights = weights_of(model("default"))
        weights["radial.betas"] = weights["radial.betas"] * 1e4
        with pytest.raises(InvalidInputError, match="Expected a filter that 16384 intervals"):
            FilterTable.build(weights, 5.0, "polynomial", 1e-9)


# -- lanes ---------------------------------------------------------------------------------------


@njit
def _sigmoids(wide, x, out):
    for i in range(len(x)):
        lanes.store(lanes.sigmoid(lanes.load(wide, x, i, 0)), out, i, 0)


@njit
def _arithmetic(wide, narrow, a, b, parts, out):
    for i in range(len(a)):
        x, y = lanes.load(wide, a, i, 0), lanes.load(wide, b, i, 0)
        folded = lanes.fold(narrow, x * y)
        lanes.store(folded, parts, i, 0)
        parts[i, 3] = lanes.total(x)
        lanes.store(2.0 * lanes.tile(wide, folded) / x - (y + 1) * a[i, 0], out, i, 0)


class TestLanes:
    @pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 3), (np.float64, 3)])
    def test_sigmoid_is_right_to_some_units_in_the_last_place(self, dtype, ulps):
        x = np.linspace(-80, 80, 6 * 50000).reshape(-1, 6).astype(dtype)
        out = np.empty_like(x)
        _sigmoids(lanes.Lanes(dtype, 6), x, out)
        expected = 1 / (1 + np.exp(-x.astype(np.longdouble)))
        assert np.abs((out - expected) / expected).max() < ulps * np.finfo(dtype).eps

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_sigmoid_far_out(self, dtype):
        x = np.array([[-np.inf, -1e30, 0.0, 1e30, np.inf, np.nan]], dtype)
        out = np.empty_like(x)
        _sigmoids(lanes.Lanes(dtype, 6), x, out)
        np.testing.assert_allclose(out[0, :5], [0, 0, 0.5, 1, 1], atol=1e-37)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_arithmetic_is_that_of_arrays(self, dtype):
        a, b = np.random.default_rng(0).uniform(1, 2, (2, 7, 6)).astype(dtype)
        parts, out = np.zeros((7, 4), dtype), np.zeros((7, 6), dtype)
        _arithmetic(lanes.Lanes(dtype, 6), lanes.Lanes(dtype, 3), a, b, parts, out)
        folded = (a * b).reshape(7, 2, 3).sum(1)
        np.testing.assert_allclose(parts[:, :3], folded, rtol=1e-6)
        np.testing.assert_allclose(parts[:, 3], a.sum(1), rtol=1e-6)
        np.testing.assert_allclose(out, 2 * np.tile(folded, 2) / a - (b + 1) * a[:, :1], rtol=1e-5)

    def test_the_cache_knows_of_a_change_in_any_file(self, monkeypatch):
        before = str(lanes.Lanes("float32", 8)._numba_type_)
        monkeypatch.setattr(lanes, "_sources", lambda: "other")
        assert str(lanes.Lanes("float32", 8)._numba_type_) != before


RUN = """
import logging, numpy as np
from scikd.md.kernels import _nodes
from scikd.md.kernels.network import Network
arrays = dict(np.load({path!r}))
network = Network(arrays, n_heads=3, cutoff=4.0, envelope="polynomial", max_charge=2.0,
                  dtype="float64", threads=1)
network.set_pairs(np.array([0]), np.array([1]), np.arange(2))
network.forward(np.array([[0.0, 0, 0], [1.5, 0, 0]]), np.array([6, 8]), np.zeros((1, 3)))
network.backward()
kernels = (_nodes.forward_layer, _nodes.backward_layer, _nodes.backward_heads)
print(sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels),
      sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    np.savez(tmp_path / "weights.npz", **weights_of(model("four")))
    code = RUN.format(path=str(tmp_path / "weights.npz"))
    found = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        )
        found.append(tuple(int(word) for word in run.stdout.split()))
    assert found[0][0] > 0
    assert found[0][1] == 0
    assert found[1] == (0, found[0][0])
