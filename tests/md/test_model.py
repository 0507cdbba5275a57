"""The force field: what is derived from site energies and charges is what physics says it is."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from e3nn.o3 import rand_matrix
from e3nn.util.test import assert_equivariant
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md.dispersion import D3BJ
from scikd.md.frames import collate, from_ase
from scikd.md.get import GET, GETSettings
from scikd.md.model import ForceField
from tests.reference import md_models
from tests.reference.md_models import structure

force_field = partial(md_models.force_field, scale=0.15)  # whose charges are not small


def predict(model, atoms, **wanted):
    batch = from_ase(atoms)
    found = model(batch, model.neighbors(batch), **wanted)
    return {name: values.numpy() for name, values in found.items()}


def energy(model, atoms):
    return predict(model, atoms, forces=False)["energy"][0]


@pytest.mark.parametrize("periodic", [True, False])
def test_forces_are_the_gradient_of_the_energy(periodic):
    model, atoms, step = force_field(), structure(periodic=periodic), 1e-4
    forces = predict(model, atoms)["forces"]
    numeric = np.zeros_like(forces)
    for where in np.ndindex(forces.shape):
        values = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[where] += sign * step
            values.append(energy(model, moved))
        numeric[where] = -(values[0] - values[1]) / (2 * step)
    assert np.abs(forces - numeric).max() < 1e-5 * np.abs(forces).max()


def test_stress_is_the_gradient_of_the_energy_by_a_strain():
    model, atoms, step = force_field(), structure(), 1e-5
    found = predict(model, atoms, stress=True)
    numeric = np.zeros(6)
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        values = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            values.append(energy(model, strained))
        numeric[k] = (values[0] - values[1]) / (2 * step) / atoms.get_volume()
    assert np.abs(found["stress"][0] - numeric).max() < 1e-5 * np.abs(numeric).max()
    virial = -found["stress"][0] * atoms.get_volume()
    np.testing.assert_allclose(found["virial"][0].diagonal(), virial[:3])


def test_the_virial_of_a_free_cluster_is_the_sum_of_positions_times_forces():
    atoms = structure(periodic=False)
    found = predict(force_field(), atoms, stress=True)
    expected = np.einsum("ni,nj->ij", atoms.positions, found["forces"])
    np.testing.assert_allclose(found["virial"][0], expected, atol=1e-9 * np.abs(expected).max())
    assert np.isnan(found["stress"]).all(), "a free cluster has no volume"


@given(seed=st.integers(0, 2**31 - 1), periodic=st.booleans(), charge=st.integers(-1, 1))
@settings(max_examples=10)
def test_everything_turns_with_the_structure(seed, periodic, charge):
    model, atoms = force_field(), structure(8, seed % 1000, periodic=periodic)
    atoms.info["total_charge"] = float(charge)
    torch.manual_seed(seed)
    turn = rand_matrix(dtype=torch.float64).numpy()
    order = np.random.default_rng(seed).permutation(len(atoms))
    turned = atoms[order]
    turned.info["total_charge"] = float(charge)
    turned.set_cell(atoms.cell @ turn.T)
    turned.positions = turned.positions @ turn.T
    if not periodic:
        turned.positions += [3.0, -2.0, 1.0]
    before, after = predict(model, atoms, stress=True), predict(model, turned, stress=True)
    np.testing.assert_allclose(after["energy"], before["energy"], rtol=1e-9)
    scale = np.abs(before["forces"]).max()
    np.testing.assert_allclose(after["forces"], before["forces"][order] @ turn.T, atol=1e-7 * scale)
    np.testing.assert_allclose(after["charges"], before["charges"][order], atol=1e-9)
    virial = turn @ before["virial"][0] @ turn.T
    np.testing.assert_allclose(after["virial"][0], virial, atol=1e-6 * np.abs(virial).max())
    np.testing.assert_allclose(before["charges"].sum(), charge, atol=1e-9)
    np.testing.assert_allclose(before["forces"].sum(0), 0.0, atol=1e-7 * scale)


def test_e3nn_finds_forces_equivariant_and_charges_invariant():
    model, atoms = force_field(), structure(8, 4, periodic=False)

    def derived(positions):
        moved = atoms.copy()
        moved.positions = positions.numpy()
        batch = from_ase(moved)
        found = model(batch, model.neighbors(batch))
        return found["forces"], found["charges"][:, None]

    assert_equivariant(
        derived,
        args_in=[torch.from_numpy(atoms.positions)],
        irreps_in=["cartesian_points"],
        irreps_out=["1x1o", "1x0e"],
        tolerance=1e-6,  # e3nn draws its rotations in single precision
    )


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 2, 2)])
def test_a_repeated_box_has_repeated_energy_forces_and_the_same_stress(repeat):
    model, atoms = force_field(), structure(10)
    one = predict(model, atoms, stress=True)
    many = predict(model, make_supercell(atoms, np.diag(repeat)), stress=True)
    times = int(np.prod(repeat))
    np.testing.assert_allclose(many["energy"][0], times * one["energy"][0], rtol=1e-7)
    np.testing.assert_allclose(many["stress"], one["stress"], rtol=1e-4, atol=1e-8)
    order = np.argsort(many["charges"])
    np.testing.assert_allclose(
        many["charges"][order], np.repeat(np.sort(one["charges"]), times), atol=1e-9
    )


def test_a_batch_gives_what_its_structures_give_alone():
    model = force_field()
    frames = [structure(9, 1), structure(5, 2, periodic=False), Atoms("C"), structure(7, 3)]
    frames[2].info["total_charge"] = 1.0
    batch = collate([from_ase(atoms) for atoms in frames])
    together = model(batch, model.neighbors(batch), stress=True)
    alone = [predict(model, atoms, stress=True) for atoms in frames]
    for name in ("energy", "forces", "virial", "stress", "charges", "dipole"):
        expected = np.concatenate([one[name] for one in alone])
        np.testing.assert_allclose(together[name].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_published_forces_leave_out_just_what_qeq_force_says():
    atoms = structure()
    conservative = predict(force_field(), atoms, qeq=True, stress=True)
    published = predict(force_field(forces="published"), atoms, qeq=True, stress=True)
    assert np.abs(published["qeq_force"]).max() > 0.01
    np.testing.assert_allclose(
        published["forces"], conservative["forces"] + conservative["qeq_force"], atol=1e-9
    )
    np.testing.assert_allclose(published["qeq_force"], conservative["qeq_force"], atol=1e-9)
    np.testing.assert_allclose(published["energy"], conservative["energy"])
    assert np.abs(published["virial"] - conservative["virial"]).max() > 1e-3


def test_training_reaches_every_parameter_through_forces():
    model, batch = force_field(), from_ase(structure(6))
    out = model(batch, model.neighbors(batch), stress=True, qeq=True, training=True)
    loss = out["forces"].square().sum() + out["virial"].square().sum()
    (loss + out["qeq_force"].square().sum()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant in the energy has no force.
    assert without == ["architecture.energy_head.4.bias"]


@pytest.mark.parametrize("contained", [True, False])
def test_dispersion_is_never_counted_twice(contained):
    atoms = structure(periodic=False)
    model = force_field(dispersion_in_labels=contained)
    bare = force_field(dispersion=None)
    in_use, learnt, none = (
        energy(model, atoms),
        predict(model, atoms, as_labelled=True)["energy"][0],
        energy(bare, atoms),
    )
    assert in_use < none - 1e-3
    assert learnt == pytest.approx(in_use if contained else none)


@pytest.mark.parametrize("periodic", [True, False])
def test_dispersion_that_finds_its_own_pairs_may_be_the_only_term(periodic):
    pytest.importorskip("dftd3")
    alone = force_field(electrostatics=None, dispersion=D3BJ("b3lyp"))
    assert alone.far_cutoff == alone.near_cutoff
    none = force_field(electrostatics=None, dispersion=None)
    atoms = structure(6, periodic=periodic)
    assert energy(alone, atoms) < energy(none, atoms) - 1e-3


def test_energies_add_up_and_references_are_kept_in_double_precision():
    atoms = structure(9)
    model = force_field().float()
    batch = from_ase(atoms, dtype=torch.float32)
    found = model(batch, model.neighbors(batch))
    references = np.array([{1: -10.0, 6: -1000.0, 8: -2000.0}[z] for z in atoms.numbers]).sum()
    assert found["energy"].dtype == torch.float64
    total = found["energies"].double().sum().item() + references
    assert found["energy"].item() == pytest.approx(total, abs=1e-9)


def test_an_element_that_the_model_does_not_know_is_an_error():
    with pytest.raises(InvalidInputError, match=r"knows \['H', 'C', 'O'\].*holds \['Li'\]"):
        predict(force_field(), Atoms("LiH", positions=[[0, 0, 0], [0, 0, 1.6]]))
    with pytest.raises(InvalidInputError, match="Expected atomic numbers 1 to 86"):
        ForceField(GET(GETSettings(dim=8, n_heads=2)), elements=[])
    with pytest.raises(InvalidInputError, match=r"atomic numbers 1 to 86; got \[1, 6, 8, 100\]"):
        force_field(references={100: 1.0})
    with pytest.raises(InvalidInputError, match="'conservative' or 'published'; got 'none'"):
        force_field(forces="none")


@pytest.mark.parametrize("distance", [3.5, 6.0])
def test_the_energy_is_smooth_to_second_order_where_atoms_leave_a_cutoff(distance):
    """Compare one-sided second derivatives on both sides of the cutoffs of network and pairs."""
    model = force_field(electrostatics=None)
    h = 2e-3

    def at(r):
        # A third atom makes the environment of the first two depend on the pair's distance.
        positions = [[0, 0, 0], [0, 1.1, 0], [r, 0.0, 0.0]]
        return energy(model, Atoms("CHO", positions, cell=[30] * 3, pbc=True))

    one_sided = np.array([2, -5, 4, -1]) / h**2
    before = one_sided @ [at(distance - h * k) for k in range(4)]
    after = one_sided @ [at(distance + h * k) for k in range(4)]
    assert abs(before - after) < 0.05
