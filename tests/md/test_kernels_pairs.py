from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scikd.exceptions import InvalidInputError
from scikd.md._half_list import HalfList, all_pairs, pairs_within
from scikd.md._placed import Placed
from scikd.md.dispersion import D3BJ, D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.kernels.pairs import PairTables
from scikd.md.repulsion import ZBL

ELEMENTS = (1, 3, 6, 8, 15)
PERIODIC = np.array([True] * 3)


def liquid(n_atoms=60, seed=0, density=0.0888):
    """Atoms of several elements near a lattice in a triclinic box, charges that do not cancel."""
    rng = np.random.default_rng(seed)
    length = (n_atoms / density) ** (1 / 3)
    side = int(np.ceil(n_atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = sites[rng.permutation(len(sites))[:n_atoms]] / side
    cell = length * np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
    positions = (sites + rng.normal(size=(n_atoms, 3)) * 0.15 / side) @ cell
    return rng.choice(ELEMENTS, n_atoms), positions, rng.normal(size=n_atoms) * 0.5, cell


def tables(terms, *, periodic=True, dtype="float64"):
    electrostatics, dispersion, repulsion = terms
    return PairTables(
        ELEMENTS,
        electrostatics=electrostatics,
        dispersion=dispersion,
        repulsion=repulsion,
        periodic=periodic,
        dtype=dtype,
    )


def in_torch(terms, numbers, positions, charges, cell, pairs, *, periodic):
    """Energies, forces, virial and potentials of the same terms by PyTorch."""
    electrostatics, dispersion, repulsion = terms
    if electrostatics is not None:
        electrostatics = dataclasses.replace(
            electrostatics, reciprocal=None, splitting=electrostatics.g
        )
    leaves = [torch.tensor(part).requires_grad_() for part in (positions, charges)]
    strain = torch.zeros(3, 3, dtype=torch.float64).requires_grad_()
    moved = leaves[0] + leaves[0] @ strain
    box = torch.tensor(cell) + torch.tensor(cell) @ strain
    placed = Placed(
        numbers=torch.tensor(numbers),
        positions=moved,
        cell=box[None],
        pbc=torch.full((1, 3), periodic),
        batch=torch.zeros(len(positions), dtype=torch.int64),
        index=torch.tensor(np.stack([pairs.i, pairs.j])),
        vectors=moved[pairs.j] - moved[pairs.i] + torch.tensor(pairs.shifts).to(box) @ box,
    )
    energies = 0.0 * leaves[1] + 0.0 * moved.sum()
    if electrostatics is not None:
        energies = energies + electrostatics.site_energies(placed, leaves[1])
    for term in (dispersion, repulsion):
        if term is not None:
            energies = energies + term.site_energies(placed)
    slopes = torch.autograd.grad(energies.sum(), [*leaves, strain])
    forces, potentials, virial = -slopes[0], slopes[1], -slopes[2]
    return [part.detach().numpy() for part in (energies, forces, virial, potentials)]


ALL_TERMS = (Electrostatics(), D3CSO(), ZBL())
PUBLISHED = (
    Electrostatics(cutoff=5.0, splitting=0.3, reciprocal=None, smooth=False, free_cutoff=5.0),
    D3CSO(smooth=False, tail=False, ionic=False),
    None,
)
CASES = {
    "all": ALL_TERMS,
    "published": PUBLISHED,
    "coulomb": (Electrostatics(splitting=0.25), None, None),
    "dispersion": (None, D3CSO(cutoff=7.0), None),
    "repulsion": (None, None, ZBL(inner=0.5, outer=1.0)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("periodic", [True, False])
def test_pairs_are_those_of_pytorch(name, periodic):
    terms = CASES[name]
    numbers, positions, charges, cell = liquid()  # the box is smaller than the cutoff
    if periodic:
        (pairs,) = pairs_within(positions, cell, PERIODIC, 11.0)
    else:
        pairs = all_pairs(len(numbers))
    expected = in_torch(terms, numbers, positions, charges, cell, pairs, periodic=periodic)
    where = (numbers, positions, charges, pairs.i, pairs.j, pairs.offsets)
    volume = abs(np.linalg.det(cell))
    for dtype, tolerance in (("float64", 1e-10), ("float32", 5e-6)):
        found = tables(terms, periodic=periodic, dtype=dtype).compute(*where, volume=volume)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.dtype == np.float64
            scale = max(1.0, abs(theirs).max())
            np.testing.assert_allclose(mine, theirs, atol=tolerance * scale)


def errors_by_distance(terms, dtype, first, second):
    """Errors of energies and forces of two unit charges from 0.5 Å on, over 1 eV or the value."""
    r = np.linspace(0.5, 9.999, 20_011)
    numbers = np.tile([first, second], len(r))
    positions = np.zeros((2 * len(r), 3))
    positions[1::2, 2] = r
    i = np.arange(0, 2 * len(r), 2)
    pairs = HalfList(i, i + 1, np.zeros((len(r), 3), np.int32), np.zeros((len(r), 3)))
    where = (numbers, positions, np.ones(2 * len(r)))
    found = tables(terms, dtype=dtype).compute(*where, pairs.i, pairs.j, pairs.offsets)
    expected = in_torch(terms, *where, np.eye(3), pairs, periodic=True)
    return [
        (abs(found[k] - expected[k]) / np.maximum(1.0, abs(expected[k]))).max() for k in range(2)
    ]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 3), (6, 8), (15, 15)])
def test_errors_of_the_tables_are_as_stated(first, second):
    smooth = (Electrostatics(), D3CSO(tail=False), None)
    closing_in = (*smooth[:2], ZBL())
    stated = [
        (smooth, "float64", 1e-14, 2e-11),
        (smooth, "float32", 5e-7, 2e-6),
        (closing_in, "float64", 1e-7, 1e-3),
        (closing_in, "float32", 2e-4, 2e-2),
    ]
    for terms, dtype, value, slope in stated:
        errors = errors_by_distance(terms, dtype, first, second)
        assert errors[0] < value
        assert errors[1] < slope


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_bit_depends_on_the_number_of_threads(dtype):
    numbers, positions, charges, cell = liquid(300)
    (pairs,) = pairs_within(positions, cell, PERIODIC, 11.0)
    where = (numbers, positions, charges, pairs.i, pairs.j, pairs.offsets)
    here = tables(ALL_TERMS, dtype=dtype)
    alone = here.compute(*where)
    for threads in (1, 2, 5):
        with ThreadPoolExecutor(threads) as pool:
            together = here.compute(*where, pool=pool)
        for mine, theirs in zip(alone, together, strict=True):
            assert np.array_equal(mine, theirs)


def test_pairs_beyond_the_cutoff_and_the_order_of_pairs_make_no_difference():
    numbers, positions, charges, cell = liquid()
    here, rng = tables(ALL_TERMS), np.random.default_rng(0)
    tight, wide = pairs_within(positions, cell, PERIODIC, 10.0, 12.0)
    shuffled = wide.only(rng.permutation(len(wide)))
    found = [
        here.compute(numbers, positions, charges, pairs.i, pairs.j, pairs.offsets)
        for pairs in (tight, wide, shuffled)
    ]
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-11)


def test_forces_are_the_slope_of_the_energy_in_single_precision_too():
    numbers, positions, charges, cell = liquid(30)
    (pairs,) = pairs_within(positions, cell, PERIODIC, 12.0)
    here = tables(ALL_TERMS, dtype="float32")

    def compute(moved):
        return here.compute(numbers, moved, charges, pairs.i, pairs.j, pairs.offsets)

    found = compute(positions)
    direction = np.random.default_rng(1).normal(size=positions.shape)
    ends = [compute(positions + step * direction).energies.sum() for step in (1e-2, -1e-2)]
    slope = (ends[0] - ends[1]) / 2e-2
    assert -(found.forces * direction).sum() == pytest.approx(slope, rel=1e-3)
    np.testing.assert_allclose(found.forces.sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(found.virial, found.virial.T)


def test_far_apart_charges_of_a_cluster_are_points():
    here = tables((Electrostatics(), None, None), periodic=False, dtype="float32")
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 30.0, 40.0]])
    pairs = all_pairs(2)
    found = here.compute(
        np.array([1, 8]), positions, np.array([0.5, -1.0]), pairs.i, pairs.j, pairs.offsets
    )
    energy = -0.5 * Electrostatics().constant / 50.0
    assert found.energies.sum() == pytest.approx(energy, rel=1e-6)
    np.testing.assert_allclose(found.forces[0], -energy / 50.0 * np.array([0, 0.6, 0.8]), rtol=1e-6)


def test_a_structure_without_pairs_has_no_energy():
    empty = all_pairs(1)
    found = tables(ALL_TERMS, periodic=False).compute(
        np.array([3]), np.zeros((1, 3)), np.ones(1), empty.i, empty.j, empty.offsets
    )
    assert all((part == 0.0).all() for part in found)
    assert found.forces.shape == (1, 3)


def test_unknown_elements_dispersion_and_precision_are_refused():
    empty = all_pairs(1)
    with pytest.raises(InvalidInputError, match=r"\(1, 3, 6, 8, 15\).*got \[54\] as well"):
        tables(ALL_TERMS).compute(
            np.array([54]), np.zeros((1, 3)), np.ones(1), empty.i, empty.j, empty.offsets
        )
    with pytest.raises(InvalidInputError, match="know the dispersion D3CSO; got D3BJ"):
        tables((None, D3BJ("pbe"), None))
    with pytest.raises(InvalidInputError, match="float32' or 'float64'; got 'float16'"):
        tables(ALL_TERMS, dtype="float16")
    with pytest.raises(InvalidInputError, match="also holds Xe"):
        PairTables((1, 54), electrostatics=None, dispersion=D3CSO(), periodic=True)
