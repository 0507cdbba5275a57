"""The virial between molecules, against what moving rigid molecules costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.lj import LennardJones

from scikd.exceptions import InvalidInputError
from scikd.md.frames import from_ase
from scikd.md.losses import Loss, LossOptions
from scikd.md.moves import make_whole
from scikd.md.pressure import arms_of, molecular_pressure, molecular_virial
from scikd.md.units import BAR
from tests.reference.md_models import force_field


def waters(n=4, seed=0, edge=7.5, wrap=True):
    """Return turned water molecules in a skewed box, some cut by its faces."""
    rng = np.random.default_rng(seed)
    box = Atoms(
        cell=[[edge, 0, 0], [0.2 * edge, edge, 0], [-0.1 * edge, 0.1 * edge, edge]], pbc=True
    )
    centres = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[:n] @ box.cell[:]
    for centre in centres:
        water = molecule("H2O")
        water.rotate(float(rng.uniform(0, 360)), rng.normal(size=3), center="COM")
        water.rattle(0.05, rng=rng)
        water.positions += centre - water.get_center_of_mass() + rng.normal(0, 0.1, 3)
        box += water
    box.arrays["molecules"] = np.repeat(np.arange(n), 3)
    if wrap:
        box.wrap()
    return box


def predict(model, frames):
    batch = from_ase(frames)
    return batch, model(batch, model.neighbors(batch), stress=True)


def test_it_is_the_slope_of_the_energy_as_rigid_molecules_move_apart():
    model, box, step = force_field(), waters(), 1e-5
    batch, found = predict(model, box)
    virial = molecular_virial(batch, found["forces"], found["virial"])[0]
    energies = []
    for sign in (1, -1):
        moved = make_whole(box)
        for m in range(4):
            rows = moved.arrays["molecules"] == m
            moved.positions[rows] += sign * step * moved[rows].get_center_of_mass()
        moved.set_cell(box.cell * (1 + sign * step))
        energies.append(float(predict(model, moved)[1]["energy"]))
    slope = (energies[0] - energies[1]) / (2 * step)
    assert float(virial.trace()) == pytest.approx(-slope, rel=1e-6, abs=1e-6)
    # Bonds are a large part of the whole virial, so it is no test to take that.
    assert abs(float(found["virial"][0].trace()) + slope) > 0.01 * abs(slope)


def test_arms_go_through_the_faces_of_the_box_and_sum_to_nothing():
    whole, cut = waters(wrap=False), waters()
    assert np.abs(whole.positions - cut.positions).max() > 1.0
    ours, theirs = arms_of(from_ase(cut)), arms_of(from_ase(whole))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    mass = torch.as_tensor(cut.get_masses())[:, None]
    sums = (mass * ours).reshape(4, 3, 3).sum(1)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)
    joined = arms_of(from_ase([cut, cut]))
    torch.testing.assert_close(joined, torch.cat([ours, ours]))
    free = whole.copy()
    free.pbc, free.cell = False, None
    torch.testing.assert_close(arms_of(from_ase(free)), ours, rtol=0, atol=1e-12)


def test_of_atoms_alone_it_is_the_pressure_of_atoms():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * 4.0
    atoms = Atoms("Ar27", grid + rng.normal(0, 0.2, (27, 3)), cell=[12.0] * 3, pbc=True)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=5.9)
    atoms.arrays["molecules"] = np.arange(27)
    batch = from_ase(atoms)
    stress = torch.as_tensor(atoms.get_stress())[None]
    ours = molecular_pressure(batch, torch.as_tensor(atoms.get_forces()), stress, 120.0)
    ideal = 27 * units.kB * 120.0 / atoms.get_volume()
    expected = (ideal - atoms.get_stress()[:3].mean()) / BAR
    assert float(ours) == pytest.approx(expected, rel=1e-12)


def test_molecules_without_forces_are_an_ideal_gas():
    batch = from_ase([waters(), waters(n=3)])
    nothing = torch.zeros(batch.n_atoms, 3, dtype=torch.float64)
    found = molecular_pressure(batch, nothing, torch.zeros(2, 6, dtype=torch.float64), 300.0)
    expected = torch.tensor([4.0, 3.0]) * units.kB * 300.0 / batch.volume / BAR
    torch.testing.assert_close(found, expected)


def test_its_mean_is_that_of_the_pressure_of_atoms():
    """Of a molecule whose atoms sit on springs, positions drawn exactly from Boltzmann's weights.

    The forces along the arms then average to -3 kT for each atom but the first: what the kinetic
    energies of atoms and of centres differ by.
    """
    rng, kT, n = np.random.default_rng(0), 0.025, 40000
    bond, pull, length = 5.0, 0.3, 1.1
    # Energy: bond/2 |d|² + pull/2 (|x1|² + |x2|²) about places that scale with the box.
    matrix = np.array([[bond + pull, -bond], [-bond, bond + pull]])
    spread = np.linalg.cholesky(kT * np.linalg.inv(matrix))
    x = np.einsum("ab,nbc->nac", spread, rng.normal(size=(n, 2, 3)))
    forces = -np.einsum("ab,nbc->nac", matrix, x)
    middle = x.mean(axis=1, keepdims=True)  # of equal masses
    within = np.einsum("nac,nac->n", x - middle, forces)
    assert within.mean() == pytest.approx(-3 * kT, rel=0.02)
    atoms = Atoms("N2", x[0] + [length] * 3, cell=[9.0] * 3, pbc=True)
    atoms.arrays["molecules"] = np.zeros(2, int)
    batch = from_ase(atoms, check=False)
    force, virial = torch.as_tensor(forces[0]), torch.zeros(1, 3, 3, dtype=torch.float64)
    found = molecular_virial(batch, force, virial)[0].trace()
    assert float(found) == pytest.approx(-within[0])


def test_the_terms_of_the_loss_are_its_trace_and_the_rest_of_the_virial():
    model, other = force_field(), force_field(seed=1)
    frames = [waters(seed=1), waters(seed=2)]
    batch, found = predict(model, frames)
    _, off = predict(other, frames)
    labelled = replace(batch, forces=found["forces"], stress=found["stress"])
    weights = {"energy": 0.0, "forces": 0.0, "charges": 0.0, "dipole": 0.0}
    _, parts = Loss(LossOptions(pressure=1.0, shear=1.0, **weights))(off, labelled)
    pressures, shears = [], []
    for out in (off, found):
        virial = molecular_virial(batch, out["forces"], out["virial"])
        pressures.append([float(w.trace()) / 3 / 12 for w in virial])
        shears.append([(w - w.trace() / 3 * torch.eye(3)).numpy() / 12 for w in out["virial"]])
    assert float(parts["pressure"]) == pytest.approx(np.square(np.subtract(*pressures)).mean())
    assert float(parts["shear"]) == pytest.approx(np.square(np.subtract(*shears)).mean())
    same, _ = Loss(LossOptions(pressure=1.0, shear=1.0, **weights))(found, labelled)
    assert float(same) < 1e-24


def test_molecules_have_to_be_known():
    batch = from_ase(molecule("H2O"))
    with pytest.raises(InvalidInputError, match="Expected structures whose molecules are known"):
        arms_of(batch)
