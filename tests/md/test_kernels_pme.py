from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase.build import bulk

from scikd.exceptions import InvalidInputError
from scikd.md._half_list import pairs_within
from scikd.md._placed import Placed
from scikd.md.electrostatics import Electrostatics
from scikd.md.kernels.pairs import PairTables
from scikd.md.kernels.pme import ParticleMesh

PERIODIC = np.array([True] * 3)


def box(n_atoms=200, seed=0, density=0.0888):
    """Charges near a lattice in a triclinic box; they do not sum to zero."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n_atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    scaled = sites[:n_atoms] / side + rng.normal(size=(n_atoms, 3)) * 0.15 / side
    cell = np.array([[1.0, 0.0, 0.0], [0.2, 1.1, 0.0], [-0.1, 0.15, 0.9]])
    cell = cell * (n_atoms / density) ** (1 / 3)
    return scaled @ cell, rng.normal(size=n_atoms) * 0.5, cell


def in_torch(terms, positions, charges, cell, *, with_pairs):
    """Energies, forces, virial and potentials by PyTorch, with or without the pairs."""
    (pairs,) = pairs_within(positions, cell, PERIODIC, terms.cutoff if with_pairs else 0.1)
    leaves = [torch.tensor(part).requires_grad_() for part in (positions, charges)]
    strain = torch.zeros(3, 3, dtype=torch.float64).requires_grad_()
    moved = leaves[0] + leaves[0] @ strain
    lattice = torch.tensor(cell) + torch.tensor(cell) @ strain
    shifts = torch.tensor(pairs.shifts).to(lattice)
    placed = Placed(
        numbers=torch.zeros(len(positions), dtype=torch.int64),
        positions=moved,
        cell=lattice[None],
        pbc=torch.ones(1, 3, dtype=torch.bool),
        batch=torch.zeros(len(positions), dtype=torch.int64),
        index=torch.tensor(np.stack([pairs.i, pairs.j])),
        vectors=moved[pairs.j] - moved[pairs.i] + shifts @ lattice,
    )
    energies = terms.site_energies(placed, leaves[1])
    slopes = torch.autograd.grad(energies.sum(), [*leaves, strain])
    forces, potentials, virial = -slopes[0], slopes[1], -slopes[2]
    return [part.detach().numpy() for part in (energies, forces, virial, potentials)]


def test_the_mesh_is_that_of_pytorch():
    where = box()
    terms = Electrostatics(reciprocal="pme")
    expected = in_torch(terms, *where, with_pairs=False)
    found = ParticleMesh(terms).compute(*where)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-11)


def test_pairs_and_mesh_are_the_exact_sum_to_the_accuracy_asked_for():
    positions, charges, cell = box()
    exact = in_torch(
        Electrostatics(cutoff=13.0, accuracy=1e-11), positions, charges, cell, with_pairs=True
    )
    (pairs,) = pairs_within(positions, cell, PERIODIC, 10.0)
    for accuracy in (1e-4, 1e-6):
        terms = Electrostatics(accuracy=accuracy)
        short = PairTables((1,), electrostatics=terms, periodic=True, dtype="float64").compute(
            np.ones(len(charges), int), positions, charges, pairs.i, pairs.j, pairs.offsets
        )
        long = ParticleMesh(terms).compute(positions, charges, cell)
        error = short.forces + long.forces - exact[1]
        rms = np.sqrt((error**2).sum(1).mean())
        assert rms < 2.0 * accuracy * terms.constant * (charges**2).mean()
        assert rms < 3.0 * accuracy * np.sqrt((exact[1] ** 2).sum(1).mean())
        virial = short.virial + long.virial
        assert abs(virial - exact[2]).max() < 30 * accuracy * len(charges)


@pytest.mark.parametrize(
    ("structure", "nearest", "madelung"),
    [("rocksalt", 0.5, 1.747564594633), ("cesiumchloride", 3**0.5 / 2, 1.762674773071)],
)
def test_crystals_have_their_madelung_constants(structure, nearest, madelung):
    crystal = bulk("NaCl", structure, a=5.0).repeat(2)
    charges = np.where(crystal.numbers == 11, 1.0, -1.0)
    terms = Electrostatics(r0=1e-3, cutoff=9.0, accuracy=1e-8)
    where = (crystal.positions, crystal.cell[:])
    (pairs,) = pairs_within(*where, PERIODIC, 9.0)
    short = PairTables((11, 17), electrostatics=terms, periodic=True, dtype="float64").compute(
        crystal.numbers, where[0], charges, pairs.i, pairs.j, pairs.offsets
    )
    long = ParticleMesh(terms).compute(where[0], charges, where[1])
    total = short.energies.sum() + long.energies.sum()
    found = -total / (len(charges) / 2) * 5.0 * nearest / terms.constant
    assert found == pytest.approx(madelung, rel=1e-7)
    # A Coulomb crystal's energy goes with the inverse of its size: trace of the virial = energy.
    trace = np.trace(short.virial) + np.trace(long.virial)
    assert trace == pytest.approx(total, rel=1e-6)


def test_forces_virial_and_potentials_are_slopes_of_the_energy():
    positions, charges, cell = box(40)
    mesh = ParticleMesh(Electrostatics())
    found = mesh.compute(positions, charges, cell)

    def slope(change):
        ends = [mesh.compute(*change(step)).energies.sum() for step in (1e-4, -1e-4)]
        return (ends[0] - ends[1]) / 2e-4

    rng = np.random.default_rng(1)
    moves = rng.normal(size=positions.shape)
    by_position = slope(lambda s: (positions + s * moves, charges, cell))
    assert by_position == pytest.approx(-(found.forces * moves).sum(), abs=1e-6)
    loads = rng.normal(size=charges.shape)
    by_charge = slope(lambda s: (positions, charges + s * loads, cell))
    assert by_charge == pytest.approx((found.potentials * loads).sum(), abs=1e-6)
    strain = rng.normal(size=(3, 3)) * 0.1
    strain = strain + strain.T
    deformed = [np.eye(3) + s * strain for s in (1e-4, -1e-4)]
    shapes = set()
    ends = []
    for f in deformed:
        ends.append(mesh.compute(positions @ f, charges, cell @ f).energies.sum())
        shapes.add(mesh.shape)
    assert len(shapes) == 1  # else the energy jumps, by the accuracy
    by_strain = (ends[0] - ends[1]) / 2e-4
    assert by_strain == pytest.approx(-(found.virial * strain).sum(), abs=1e-6)


def test_no_bit_depends_on_the_number_of_threads_or_on_what_came_before():
    where, other = box(700), box(30, seed=3)
    terms = Electrostatics()
    alone = ParticleMesh(terms).compute(*where)
    used = ParticleMesh(terms)
    for threads in (1, 3):
        used.compute(*other)
        with ThreadPoolExecutor(threads) as pool:
            together = used.compute(*where, pool=pool)
        for mine, theirs in zip(alone, together, strict=True):
            assert np.array_equal(mine, theirs)


def test_atoms_outside_the_cell_are_their_images():
    positions, charges, cell = box(30)
    mesh = ParticleMesh(Electrostatics())
    images = np.random.default_rng(0).integers(-3, 4, size=positions.shape) @ cell
    for mine, theirs in zip(
        mesh.compute(positions, charges, cell),
        mesh.compute(positions + images, charges, cell),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-10)


def test_energy_is_that_of_the_potentials_and_net_force_is_small():
    positions, charges, cell = box()
    terms = Electrostatics()
    found = ParticleMesh(terms).compute(positions, charges, cell)
    np.testing.assert_allclose(found.energies, 0.5 * charges * found.potentials, rtol=1e-12)
    bound = 10 * terms.accuracy * terms.constant * (charges**2).mean() * np.sqrt(len(charges))
    assert abs(found.forces.sum(axis=0)).max() < bound
    np.testing.assert_array_equal(found.virial, found.virial.T)


def test_electrostatics_without_a_reciprocal_sum_are_refused():
    terms = Electrostatics(reciprocal=None)
    with pytest.raises(InvalidInputError, match="reciprocal=None with splitting=None"):
        ParticleMesh(terms)
    assert ParticleMesh(dataclasses.replace(terms, splitting=0.3)).splitting == 0.3
