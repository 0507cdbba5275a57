from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md import electrostatics
from scikd.md._ewald import ORDER, mesh_shape, spline_response, spline_weights
from scikd.md._placed import Placed
from scikd.md.electrostatics import Electrostatics
from scikd.md.units import COULOMB
from tests.reference import md_pairs as naive

TRICLINIC = np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
ALL, NONE = (True,) * 3, (False,) * 3


def tensor(values):
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def random_box(n_atoms, length, seed=0):
    """Atoms near a cubic lattice in a triclinic box, with charges that do not sum to zero."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n_atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = sites[:n_atoms] / side + rng.normal(size=(n_atoms, 3)) * 0.15 / side
    cell = TRICLINIC * length
    return sites @ cell, rng.normal(size=n_atoms), cell


def energies(terms, positions, charges, cell, pbc=ALL, pairs=None, cutoff=None):
    """Site energies of one structure, from tensors."""
    where = [part.detach().numpy() for part in (positions, cell)]
    if pairs is None:
        pairs = naive.half_list(*where, pbc, (cutoff or terms.cutoff) if all(pbc) else 1e9)
    i, j, shifts = pairs
    placed = Placed(
        numbers=torch.zeros(len(positions), dtype=torch.int64),
        positions=positions,
        cell=cell[None],
        pbc=torch.tensor(pbc)[None],
        batch=torch.zeros(len(positions), dtype=torch.int64),
        index=torch.tensor(np.stack([i, j])),
        vectors=positions[j] - positions[i] + torch.tensor(shifts).to(cell) @ cell,
    )
    return terms.site_energies(placed, charges)


def forces_of(terms, positions, charges, cell, **options):
    positions = positions.clone().requires_grad_()
    total = energies(terms, positions, charges, cell, **options).sum()
    return -torch.autograd.grad(total, positions)[0]


# -- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
@pytest.mark.parametrize(
    ("structure", "nearest", "madelung"),
    [
        ("rocksalt", 0.5, 1.747564594633),
        ("cesiumchloride", 3**0.5 / 2, 1.762674773071),
        ("zincblende", 3**0.5 / 4, 1.638055053389),
    ],
)
def test_crystals_have_their_madelung_constants(structure, nearest, madelung, reciprocal):
    name = {"rocksalt": "NaCl", "cesiumchloride": "CsCl", "zincblende": "ZnS"}[structure]
    crystal = bulk(name, structure, a=5.0)
    terms = Electrostatics(r0=1e-3, cutoff=9.0, accuracy=1e-9, reciprocal=reciprocal)
    total = energies(
        terms, tensor(crystal.positions), tensor([1.0, -1.0]), tensor(crystal.cell[:])
    ).sum()
    assert -total * 5.0 * nearest / COULOMB == pytest.approx(madelung, rel=2e-9)


@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
def test_a_charge_in_a_neutralising_background_is_the_wigner_lattice(reciprocal):
    terms = Electrostatics(r0=1e-3, cutoff=9.0, accuracy=1e-9, reciprocal=reciprocal)
    found = energies(terms, torch.zeros(1, 3).double(), tensor([1.0]), tensor(np.eye(3) * 7.0))
    assert found.item() * 7.0 / COULOMB == pytest.approx(-2.837297479 / 2, rel=1e-8)


def test_far_charges_are_points_and_close_ones_have_a_finite_energy():
    terms = Electrostatics()
    distances = tensor([0.01, 1.0, 2.2, 4.0, 30.0]).requires_grad_()
    found = terms.pair_energy(distances, periodic=False)
    expected = [COULOMB * naive.damped(float(r)) for r in distances.detach()]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-13)
    assert found[-1].detach().item() == pytest.approx(COULOMB / 30.0, rel=1e-14)
    assert found[0].detach().item() == pytest.approx(COULOMB / 2.2, rel=1e-8)
    (slope,) = torch.autograd.grad(found.sum(), distances)
    x = 18.7 * (distances.detach() / 2.2 - 1.0)
    closed = -torch.sigmoid(x) / (2.2**2 * (1 + torch.log1p(torch.exp(x)) / 18.7) ** 2)
    np.testing.assert_allclose(slope, COULOMB * closed, rtol=1e-10)


def test_sums_agree_with_loops_over_images_and_waves_in_a_box_smaller_than_the_cutoff():
    positions, charges, cell = random_box(5, 4.5)
    expected = COULOMB * naive.coulomb_energy(positions, charges, cell, 2.2, 18.7)
    for reciprocal in ("ewald", "pme"):
        terms = Electrostatics(accuracy=1e-9, reciprocal=reciprocal)
        found = energies(terms, tensor(positions), tensor(charges), tensor(cell)).sum()
        assert found.item() == pytest.approx(expected, abs=2e-7)


# -- laws ----------------------------------------------------------------------------------------


def test_the_splitting_is_free():
    positions, charges, cell = (tensor(part) for part in random_box(16, 6.0))
    found = [
        energies(Electrostatics(splitting=g, accuracy=1e-9), positions, charges, cell)
        for g in (0.5, 0.6, 0.8)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.sum(), found[0].sum(), rtol=1e-8)


@pytest.mark.parametrize("accuracy", [1e-4, 1e-6])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
def test_forces_are_as_accurate_as_asked_for(accuracy, smooth, reciprocal):
    positions, charges, cell = (tensor(part) for part in random_box(216, 12.9))
    pairs = naive_pairs(positions, cell, 12.0)
    exact = forces_of(
        Electrostatics(cutoff=12.0, accuracy=1e-11), positions, charges, cell, pairs=pairs
    )
    terms = Electrostatics(accuracy=accuracy, smooth=smooth, reciprocal=reciprocal)
    error = forces_of(terms, positions, charges, cell, pairs=pairs) - exact
    rms = (error**2).sum(1).mean().sqrt() / (COULOMB * (charges**2).mean())
    # The estimate is for each of two sums; much smaller would be a waste of time.
    assert 0.2 * accuracy < rms < 2.0 * accuracy


def naive_pairs(positions, cell, cutoff):
    """What `naive.half_list` returns, found faster: by ASE."""
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    where = (positions.numpy(), cell.numpy())
    atoms = Atoms(f"H{len(positions)}", positions=where[0], cell=where[1], pbc=True)
    i, j, shifts = neighbor_list("ijS", atoms, cutoff)
    keep = (i < j) | ((i == j) & (shifts @ [100, 10, 1] > 0))
    return i[keep], j[keep], shifts[keep]


@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
def test_first_and_second_derivatives_are_those_of_the_energy(reciprocal):
    terms = Electrostatics(cutoff=5.0, accuracy=1e-4, reciprocal=reciprocal)
    positions, charges, cell = (tensor(part) for part in random_box(4, 4.0))
    pairs = naive.half_list(positions.numpy(), cell.numpy(), ALL, 5.5)

    def energy(moved, loaded, strain):
        deform = torch.eye(3) + strain
        return energies(terms, moved @ deform, loaded, cell @ deform, pairs=pairs)

    start = (positions, charges, torch.zeros(3, 3).double())
    inputs = tuple(part.clone().requires_grad_() for part in start)
    assert torch.autograd.gradcheck(energy, inputs, rtol=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(energy, inputs, rtol=1e-5, atol=1e-5)


def test_derivatives_in_free_space_are_those_of_the_energy():
    positions, charges, cell = (tensor(part) for part in random_box(5, 5.0))

    def energy(moved, loaded):
        return energies(Electrostatics(), moved, loaded, cell, pbc=NONE)

    inputs = tuple(part.clone().requires_grad_() for part in (positions, charges))
    assert torch.autograd.gradcheck(energy, inputs, rtol=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(energy, inputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
def test_energy_is_extensive(reciprocal):
    positions, charges, cell = random_box(8, 5.0)
    terms = Electrostatics(accuracy=1e-8, reciprocal=reciprocal)
    one = energies(terms, tensor(positions), tensor(charges), tensor(cell))
    doubled = np.concatenate([positions, positions + cell[1]])
    stretched = cell * np.array([[1], [2], [1]])
    two = energies(terms, tensor(doubled), tensor(np.tile(charges, 2)), tensor(stretched))
    np.testing.assert_allclose(two, np.tile(one, 2), atol=3e-7)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), reciprocal=st.sampled_from(["ewald", "pme"]))
def test_energy_does_not_depend_on_place_turn_or_choice_of_images(seed, reciprocal):
    positions, charges, cell = random_box(6, 5.0, seed)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    images = rng.integers(-2, 3, size=positions.shape) @ cell
    terms = Electrostatics(accuracy=1e-7, cutoff=6.0, reciprocal=reciprocal)
    before = energies(terms, tensor(positions), tensor(charges), tensor(cell))
    moved = (positions + images + rng.normal(size=3)) @ turn
    after = energies(terms, tensor(moved), tensor(charges), tensor(cell @ turn))
    # A mesh stays where it is, so it is as invariant as it is accurate.
    np.testing.assert_allclose(after, before, atol=1e-10 if reciprocal == "ewald" else 3e-5)


def test_structures_of_a_batch_do_not_see_each_other(monkeypatch):
    monkeypatch.setattr(electrostatics, "_MOST_BY_WAVES", 7)  # one each way
    terms = Electrostatics(cutoff=5.0, accuracy=1e-5)
    boxes = [random_box(n, length, n) for n, length in ((7, 5.0), (4, 6.0), (9, 5.5))]
    kinds = [ALL, NONE, ALL]
    lists = [
        naive.half_list(x, cell, pbc, 5.0 if all(pbc) else 1e9)
        for (x, _, cell), pbc in zip(boxes, kinds, strict=True)
    ]
    for reciprocal in ("ewald", "pme", "auto"):
        terms = dataclasses.replace(terms, reciprocal=reciprocal)
        alone = [
            energies(terms, *(tensor(part) for part in box), pbc=pbc, pairs=pairs)
            for box, pbc, pairs in zip(boxes, kinds, lists, strict=True)
        ]
        first = np.cumsum([0, 7, 4])
        placed = Placed(
            numbers=torch.zeros(20, dtype=torch.int64),
            positions=tensor(np.concatenate([x for x, _, _ in boxes])),
            cell=tensor([cell for _, _, cell in boxes]),
            pbc=torch.tensor(kinds),
            batch=torch.tensor(np.repeat([0, 1, 2], [7, 4, 9])),
            index=torch.tensor(
                np.concatenate([np.stack(p[:2]) + f for p, f in zip(lists, first, strict=True)], 1)
            ),
            vectors=tensor(
                np.concatenate(
                    [
                        x[j] - x[i] + s @ cell
                        for (x, _, cell), (i, j, s) in zip(boxes, lists, strict=True)
                    ]
                )
            ),
        )
        charges = tensor(np.concatenate([q for _, q, _ in boxes]))
        together = terms.site_energies(placed, charges)
        np.testing.assert_allclose(together, torch.cat(alone), atol=1e-10)


def test_large_structures_go_to_the_mesh():
    for n_atoms, method in ((300, "ewald"), (301, "pme")):
        positions, charges, cell = (tensor(part) for part in random_box(n_atoms, 15.0))
        pairs = [part[:0] for part in naive_pairs(positions, cell, 2.0)]
        found, expected = (
            energies(Electrostatics(reciprocal=r), positions, charges, cell, pairs=pairs)
            for r in ("auto", method)
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
def test_single_precision_is_good_to_six_digits(reciprocal):
    parts = [tensor(part) for part in random_box(64, 8.6)]
    pairs = naive_pairs(parts[0], parts[2], 10.0)
    terms = Electrostatics(reciprocal=reciprocal)
    exact = forces_of(terms, *parts, pairs=pairs)
    found = forces_of(terms, *(part.float() for part in parts), pairs=pairs)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 2e-6 * exact.abs().max()


def test_the_pair_term_leaves_smoothly():
    terms = Electrostatics(accuracy=1e-3)
    r = tensor([9.0 - 1e-7, 9.0 + 1e-7, 10.0 - 1e-7, 10.0 + 1e-7]).requires_grad_()
    value = terms.pair_energy(r, periodic=True)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    for part in (value, slope, bend):
        inner, outer = part[1] - part[0], part[3] - part[2]
        assert max(abs(inner), abs(outer)) < 1e-5
    assert float(value[3].detach()) == 0.0


# -- the published form --------------------------------------------------------------------------


def test_published_pairs_are_cut_and_nothing_else_is_added():
    terms = Electrostatics(cutoff=5.0, splitting=0.3, reciprocal=None, smooth=False)
    r = np.array([1.0, 3.0, 4.999, 5.001])
    found = terms.pair_energy(tensor(r), periodic=True)
    from scipy.special import erfc

    expected = [COULOMB * (naive.damped(x) + (erfc(0.3 * x) - 1.0) / x) * (x < 5.0) for x in r]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    positions, charges, cell = random_box(6, 5.0)
    pairs = naive.half_list(positions, cell, ALL, 6.0)
    i, j, shifts = pairs
    lengths = np.linalg.norm(positions[j] - positions[i] + shifts @ cell, axis=1)
    expected = (charges[i] * charges[j]) @ terms.pair_energy(tensor(lengths), periodic=True).numpy()
    parts = (tensor(part) for part in (positions, charges, cell))
    assert energies(terms, *parts, pairs=pairs).sum().item() == pytest.approx(expected, rel=1e-12)


def test_without_a_reciprocal_sum_the_splitting_is_zero():
    terms = Electrostatics(cutoff=5.0, reciprocal=None, smooth=False)
    assert terms.g == 0.0
    r = tensor([3.0, 6.0])
    assert torch.equal(terms.pair_energy(r, periodic=True), terms.damped(r) * tensor([1.0, 0.0]))


def test_free_cutoff_restricts_free_structures_only():
    terms = Electrostatics(free_cutoff=5.0)
    r = tensor([4.9, 5.1])
    assert terms.pair_energy(r, periodic=False)[1] == 0.0
    assert torch.equal(
        terms.pair_energy(r, periodic=True), Electrostatics().pair_energy(r, periodic=True)
    )


# -- what is refused -----------------------------------------------------------------------------


def test_slabs_are_refused():
    positions, charges, cell = (tensor(part) for part in random_box(3, 5.0))
    pairs = (np.array([0]), np.array([1]), np.zeros((1, 3)))
    with pytest.raises(InvalidInputError, match=r"three directions or in none.*True, True, False"):
        energies(Electrostatics(), positions, charges, cell, pbc=(True, True, False), pairs=pairs)


@pytest.mark.parametrize("edge", [3e3, 1e30])
@pytest.mark.parametrize("reciprocal", ["ewald", "pme"])
def test_cells_whose_waves_would_fill_the_memory_are_refused(edge, reciprocal):
    positions, charges, _ = (tensor(part) for part in random_box(3, 5.0))
    pairs = (np.array([0]), np.array([1]), np.zeros((1, 3)))
    term, cell = Electrostatics(reciprocal=reciprocal), edge * tensor(np.eye(3))
    with pytest.raises(InvalidInputError, match="lattice vectors of .* points. Use a smaller cell"):
        energies(term, positions, charges, cell, pairs=pairs)


def test_bad_settings_are_all_named():
    with pytest.raises(InvalidInputError, match=r"r0 is -1.*accuracy is 0.5.*reciprocal is 'fft'"):
        Electrostatics(r0=-1, accuracy=0.5, reciprocal="fft")
    with pytest.raises(InvalidInputError, match="splitting is 0"):
        Electrostatics(splitting=0.0)
    with pytest.raises(InvalidInputError, match="cutoff is 0.5"):
        Electrostatics(cutoff=0.5)
    with pytest.raises(InvalidInputError, match="free_cutoff is -2"):
        Electrostatics(free_cutoff=-2)


def test_settings_survive_json():
    terms = Electrostatics(cutoff=8.0, reciprocal="pme", free_cutoff=7.0)
    assert Electrostatics(**json.loads(json.dumps(dataclasses.asdict(terms)))) == terms


# -- the mesh ------------------------------------------------------------------------------------


def test_spline_weights_are_those_of_the_cardinal_spline():
    for fraction in (0.0, 0.3, 0.99):
        found = [float(w) for w in spline_weights(np.float64(fraction))]
        expected = [naive.spline(ORDER, fraction + ORDER - 1 - k) for k in range(ORDER)]
        np.testing.assert_allclose(found, expected, atol=1e-15)
        assert sum(found) == pytest.approx(1.0)


def test_spline_response_is_one_for_constants_and_falls_towards_short_waves():
    response = spline_response(16)
    assert response[0] == pytest.approx(1.0)
    assert (np.diff(response[:9]) < 0).all()


def test_meshes_are_finer_for_higher_accuracy_and_wide_enough_for_the_splines():
    cell = np.diag([2.0, 20.0, 40.0])
    coarse, fine = (mesh_shape(cell, 0.37, accuracy) for accuracy in (1e-4, 1e-8))
    assert coarse[0] == 2 * ORDER
    assert all(a <= b for a, b in zip(coarse, fine, strict=True))
    assert fine[2] > 2 * coarse[2]
