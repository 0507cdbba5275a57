"""Calculators keep to the conventions of ASE, whatever computes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.test import gradient_test

from scikd.aggregation import Median
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError
from scikd.labels import LabelStore
from scikd.md.calculators import (
    CalculatorTeacher,
    EnsembleCalculator,
    ForceFieldCalculator,
    ForceFieldTeacher,
)
from scikd.md.frames import from_ase
from scikd.md.labelling import Structures
from scikd.md.storage import save_force_field
from scikd.testing import check_teacher
from tests.reference.md_models import force_field, structure

ENGINES = pytest.mark.parametrize("engine", ["torch", "numba"])


def calculator(engine="torch", **settings):
    return ForceFieldCalculator(force_field(), engine=engine, dtype="float64", **settings)


def close(a, b, tolerance=1e-9):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))


# --------------------------------------------------------------------------------- what it predicts


@ENGINES
@pytest.mark.parametrize("periodic", [True, False])
def test_results_are_those_of_the_force_field(engine, periodic):
    model, atoms = force_field(), structure(periodic=periodic)
    atoms.info["total_charge"] = -1.0
    atoms.calc = calculator(engine)
    batch = from_ase(atoms)
    found = model(batch, model.neighbors(batch), stress=periodic)
    close(atoms.get_potential_energy(), found["energy"][0].item(), 1e-9)
    close(atoms.get_forces(), found["forces"].numpy(), 1e-8)
    close(atoms.get_charges(), found["charges"].numpy(), 1e-8)
    assert atoms.get_charges().sum() == pytest.approx(-1.0)
    close(atoms.get_potential_energies().sum(), atoms.get_potential_energy(), 1e-9)
    close(atoms.get_potential_energy(force_consistent=True), atoms.get_potential_energy(), 0)
    if periodic:
        close(atoms.get_stress(), found["stress"][0].numpy(), 1e-8)
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_dipole_moment()
    else:
        close(atoms.get_dipole_moment(), found["dipole"][0].numpy(), 1e-8)
        close(atoms.get_dipole_moment(), atoms.get_charges() @ atoms.positions, 1e-9)
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


@ENGINES
def test_forces_and_stress_are_finite_differences(engine, capsys):
    atoms = structure(8)
    atoms.calc = calculator(engine)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    close(calculate_numerical_forces(atoms, eps=1e-4), forces, 1e-5)
    close(calculate_numerical_stress(atoms, eps=1e-5), stress, 1e-5 * np.abs(stress).max())
    analytic, numeric = gradient_test(atoms, [0, 3])  # ASE's own, down to too small a step
    assert np.abs(analytic - numeric).max() < 1e-2


def test_a_slab_has_neither_stress_nor_dipole():
    model = force_field(electrostatics=None)
    atoms = structure()
    atoms.pbc = [True, True, False]
    atoms.calc = ForceFieldCalculator(model, engine="torch")
    assert np.isfinite(atoms.get_forces()).all()
    for missing in (atoms.get_stress, atoms.get_dipole_moment):
        with pytest.raises(PropertyNotImplementedError):
            missing()


# --------------------------------------------------------------------------- caches and conventions


@ENGINES
def test_every_change_is_noticed(engine):
    atoms = structure()
    atoms.calc = calculator(engine)

    def fresh():
        other = atoms.copy()
        other.calc = calculator(engine)
        return other.get_forces()

    before = atoms.get_forces()
    changes = [
        lambda: atoms.positions.__iadd__(0.01 * np.arange(36).reshape(12, 3)),
        lambda: atoms.set_cell(atoms.cell * 1.01, scale_atoms=True),
        lambda: atoms.set_atomic_numbers(atoms.numbers[::-1]),
        lambda: atoms.set_pbc(False),
        lambda: atoms.info.update(total_charge=1.0),
        lambda: atoms.set_initial_charges(np.full(12, 0.5)) or atoms.info.clear(),
        lambda: atoms.__delitem__(0),
        lambda: atoms.extend(Atoms("O", [[20.0, 0, 0]])),
    ]
    for number, change in enumerate(changes):
        change()
        after = atoms.get_forces()
        assert after.shape != before.shape or not np.allclose(after, before), number
        close(after, fresh(), 1e-9)
        before = after


def test_nothing_is_computed_twice():
    atoms = structure()
    atoms.calc = calculator()
    calls = []
    compute = atoms.calc._engine().compute
    atoms.calc._made.compute = lambda *a: calls.append(1) or compute(*a)
    for _ in range(2):
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        atoms.get_charges()
    assert len(calls) == 1
    atoms.get_forces()[:] = 0.0
    assert np.abs(atoms.get_forces()).max() > 0, "what is given away is a copy"
    atoms.rattle(0.01)
    atoms.get_forces()
    assert len(calls) == 2


@ENGINES
def test_one_calculator_serves_several_structures(engine):
    shared = calculator(engine)
    frames = [structure(12, 0), structure(7, 1, periodic=False), structure(12, 2), structure(5, 3)]
    alone = []
    for atoms in frames:
        atoms.calc = calculator(engine)
        alone.append(atoms.get_forces())
        atoms.calc = shared
    for _ in range(2):
        for atoms, forces in zip(frames, alone, strict=True):
            close(atoms.get_forces(), forces, 1e-9)


@ENGINES
def test_copies_are_independent(engine):
    atoms = structure()
    atoms.calc = calculator(engine)
    forces = atoms.get_forces()
    twins = [
        copy.deepcopy(atoms.calc),
        pickle.loads(pickle.dumps(atoms.calc)),
        copy.copy(atoms.calc),
    ]
    for twin in twins:
        other = atoms.copy()
        other.calc = twin
        np.testing.assert_array_equal(other.get_forces(), forces)
        other.rattle(0.1)
        assert not np.allclose(other.get_forces(), forces)
        np.testing.assert_array_equal(atoms.get_forces(), forces)


@ENGINES
def test_lists_with_a_skin_miss_nothing(engine):
    rng = np.random.default_rng(0)
    atoms = structure(30, width=9.0)
    atoms.calc = calculator(engine, skin=0.8)
    for _ in range(12):
        atoms.positions += rng.normal(0, 0.03, (30, 3))
        atoms.set_cell(atoms.cell * (1 + 0.003 * rng.normal()), scale_atoms=True)
        other = atoms.copy()
        other.calc = calculator(engine)
        close(atoms.get_forces(), other.get_forces(), 1e-9)
    assert atoms.calc._engine().verlet.rebuilds < 12


@ENGINES
def test_lists_that_are_restored_give_the_same_last_digit(engine):
    rng = np.random.default_rng(0)
    atoms = structure(30, width=9.0)
    atoms.calc = ForceFieldCalculator(force_field(dtype=torch.float32), engine=engine, skin=2.0)
    for _ in range(3):
        atoms.get_forces()
        reference = atoms.calc.neighbor_reference
        atoms.positions += rng.normal(0, 0.05, (30, 3))
        atoms.set_cell(atoms.cell * 1.002, scale_atoms=True)
    forces = atoms.get_forces()
    np.testing.assert_array_equal(atoms.calc.neighbor_reference[0], reference[0])
    assert not np.array_equal(reference[0], atoms.positions)
    other = atoms.copy()
    other.calc = ForceFieldCalculator(force_field(dtype=torch.float32), engine=engine, skin=2.0)
    other.calc.restore_neighbors(other, *reference)
    np.testing.assert_array_equal(other.get_forces(), forces)
    np.testing.assert_array_equal(other.get_stress(), atoms.get_stress())


def test_the_model_of_the_caller_is_left_alone(tmp_path):
    model = force_field()
    made = ForceFieldCalculator(model, engine="torch", dtype="float32")
    assert model.dtype == torch.float64
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert made.force_field.dtype == torch.float32
    save_force_field(model, tmp_path / "model")
    atoms, other = structure(), structure()
    atoms.calc, other.calc = calculator(), ForceFieldCalculator(tmp_path / "model", engine="torch")
    np.testing.assert_array_equal(atoms.get_forces(), other.get_forces())
    assert atoms.calc.fingerprint == other.calc.fingerprint
    assert atoms.calc.fingerprint != ForceFieldCalculator(force_field(1)).fingerprint


def test_threads_of_torch_are_given_back():
    before = torch.get_num_threads()
    atoms = structure()
    atoms.calc = calculator(threads=before + 1)
    forces = atoms.get_forces()
    assert torch.get_num_threads() == before
    atoms.calc = calculator()
    close(atoms.get_forces(), forces, 1e-12)


def test_total_charge_may_be_a_parameter():
    atoms = structure()
    atoms.info["total_charge"] = -1.0
    atoms.calc = calculator(total_charge=2.0)
    assert atoms.get_charges().sum() == pytest.approx(2.0)
    assert len({calculator(total_charge=charge).fingerprint for charge in (None, 1.0, 2.0)}) == 3
    other = structure()
    other.calc = calculator()
    for info, charge in (({}, 0.0), ({"charge": 1}, 1.0), ({"total_charge": -2}, -2.0)):
        other.info = info
        assert other.get_charges().sum() == pytest.approx(charge, abs=1e-9)


# ------------------------------------------------------------------------------------- failures


def ensemble(engine):
    return EnsembleCalculator([force_field(0), force_field(1)], engine=engine, dtype="float64")


@ENGINES
@pytest.mark.parametrize("make", [calculator, ensemble])
@pytest.mark.parametrize("directly", [False, True])
def test_what_failed_once_fails_again_and_what_is_mended_is_computed_anew(engine, make, directly):
    good, mended = structure(), structure()
    good.calc = mended.calc = make(engine)
    before = good.get_forces()
    bad = good.copy()
    bad.positions[1] = bad.positions[0] + [0, 0, 0.1]
    bad.numbers[1] = 8 if bad.numbers[1] != 8 else 1  # so that it is checked
    bad.calc = good.calc
    for _ in range(3):  # or a structure would be checked once, and computed at the second try
        with pytest.raises(InvalidInputError, match="overlap: they are 0.100 Å apart"):
            good.calc.calculate(bad) if directly else bad.get_forces()
        assert good.calc.results == {}
    close(good.get_forces(), before, 1e-12)
    mended.rattle(0.1, seed=1)
    alone = mended.copy()
    alone.calc = make(engine)
    close(mended.get_forces(), alone.get_forces(), 1e-9)


@ENGINES
def test_an_interrupted_calculation_leaves_nothing_behind(engine, monkeypatch):
    atoms = structure(30, width=9.0)
    atoms.calc = calculator(engine, skin=2.0)
    atoms.get_forces()
    made = atoms.calc._engine()
    compute = made.compute

    def interrupted(*arguments):
        compute(*arguments)
        raise KeyboardInterrupt

    atoms.positions += np.linspace(0, 3, 30)[:, None]  # beyond the skin
    with monkeypatch.context() as patch:
        patch.setattr(made, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            atoms.get_forces()
    assert atoms.calc.results == {}
    atoms.rattle(0.01, seed=0)  # within it
    forces, rebuilds = atoms.get_forces(), made.verlet.rebuilds
    assert rebuilds == 2
    # What the lists were made of is where the atoms were then, not where they are now.
    assert not np.array_equal(atoms.calc.neighbor_reference[0], atoms.positions)
    other = atoms.copy()
    other.calc = calculator(engine, skin=2.0)
    other.calc.restore_neighbors(other, *atoms.calc.neighbor_reference)
    np.testing.assert_array_equal(other.get_forces(), forces)


# ------------------------------------------------------------------------------------- bad input


@ENGINES
def test_what_is_no_structure_is_refused(engine):
    def broken(**changes):
        atoms = structure()
        for name, value in changes.items():
            setattr(atoms, name, value)
        atoms.calc = calculator(engine)
        return atoms

    unknown = broken(numbers=np.full(12, 9))
    with pytest.raises(InvalidInputError, match="the structure holds .*'F'"):
        unknown.get_forces()
    not_finite = broken()
    not_finite.positions[3, 1] = np.nan
    with pytest.raises(InvalidInputError, match="finite positions; atom 3"):
        not_finite.get_forces()
    not_finite.positions[3, 1] = 0.0
    not_finite.get_forces()
    not_finite.positions[3, 1] = np.inf
    with pytest.raises(InvalidInputError, match="finite positions; atom 3"):
        not_finite.get_forces()
    overlap = broken()
    overlap.positions[1] = overlap.positions[0] + [0, 0, 0.1]
    with pytest.raises(InvalidInputError, match="overlap: they are 0.100 Å apart"):
        overlap.get_forces()
    flat = broken()
    flat.cell[2] = flat.cell[1]
    with pytest.raises(InvalidInputError, match="span the periodic directions"):
        flat.get_forces()
    flat = broken()
    flat.get_forces()
    flat.set_cell(np.zeros((3, 3)))
    with pytest.raises(InvalidInputError, match="span the periodic directions"):
        flat.get_forces()
    empty = Atoms(calculator=calculator(engine))
    with pytest.raises(InvalidInputError, match="at least one atom"):
        empty.get_potential_energy()


@ENGINES
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n_atoms", [12, 400])
def test_an_atom_at_the_end_of_the_world_is_refused(engine, periodic, n_atoms):
    atoms = structure(n_atoms, width=6.0 * (n_atoms / 12) ** (1 / 3), periodic=periodic)
    before = atoms.copy()
    atoms.calc = calculator(engine)
    lost = atoms.copy()
    lost.positions[3, 1] = 1e30
    lost.calc = calculator(engine)
    with pytest.raises(InvalidInputError, match="up to 1e.06 Å from the origin; atom 3 is at"):
        lost.get_forces()
    forces = atoms.get_forces()
    for positions in (lost.positions, before.positions + 1e30):
        atoms.positions = positions
        with pytest.raises(InvalidInputError, match="up to 1e.06 Å from the origin; atom"):
            atoms.get_forces()
    atoms.positions = before.positions
    close(atoms.get_forces(), forces, 1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "jax"}, "engine 'auto', 'torch' or 'numba'; got 'jax'"),
        ({"engine": "numba", "device": "meta"}, "GET networks on the CPU"),
        ({"device": "abacus"}, "device that torch can use here"),
        ({"dtype": "float16"}, "dtype 'auto', 'float32' or 'float64'"),
        ({"guard": "panic"}, "'warn', 'raise' or 'ignore'; got 'panic'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(InvalidInputError, match=words):
        ForceFieldCalculator(force_field(), **settings)


# --------------------------------------------------------------------------- teachers and ensembles


def frames():
    return [structure(6, k, periodic=False) for k in range(3)]


def test_a_force_field_teaches(tmp_path):
    teacher = ForceFieldTeacher(force_field(), "get", engine="torch")
    structures = Structures(frames())
    found = teacher.predict(structures)
    atoms = structures[1]
    atoms.calc = calculator()
    assert found["energy"].shape == (3,)
    assert found["forces"].shape == (18, 3)
    close(found["forces"][6:12], atoms.get_forces(), 1e-9)
    close(found["energy"][1], atoms.get_potential_energy(), 1e-12)
    stored = LabelStore(tmp_path).label(teacher, structures, progress=False)
    np.testing.assert_array_equal(stored["forces"], found["forces"])
    assert {q.name: q.unit for q in stored.quantities}["forces"] == "eV/Å"
    check_teacher(teacher, structures, rowwise=False)


def test_a_calculator_of_ase_teaches():
    teacher = CalculatorTeacher(EMT(), properties=("energy", "forces"))
    slabs = Structures([molecule("CO"), molecule("H2O")])
    found = teacher.predict(slabs)
    assert found["forces"].shape == (5, 3)
    with pytest.raises(InvalidInputError, match="does not say what its results depend on"):
        _ = teacher.fingerprint
    assert CalculatorTeacher(EMT(), fingerprint="ase 3").fingerprint
    with pytest.raises(InvalidInputError, match="properties of 'EMT' among .*got \\['dipole'\\]"):
        CalculatorTeacher(EMT(), properties=("dipole",))


@pytest.mark.parametrize("periodic", [True, False])
def test_an_ensemble_gives_mean_and_spread(periodic):
    atoms = structure(periodic=periodic)
    members = []
    for seed in range(3):
        other = atoms.copy()
        other.calc = ForceFieldCalculator(force_field(seed), engine="torch")
        members.append(other)
    atoms.calc = EnsembleCalculator([force_field(seed) for seed in range(3)], engine="torch")
    energies = [m.get_potential_energy() for m in members]
    forces = np.array([m.get_forces() for m in members])
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))
    close(atoms.get_forces(), forces.mean(axis=0), 1e-9)
    results = atoms.calc.results
    assert results["energy_std"] == pytest.approx(np.std(energies), rel=1e-6)
    close(results["forces_std"], forces.std(axis=0), 1e-7)
    close(results["forces_spread"], np.sqrt(forces.var(axis=0).sum(axis=1)), 1e-7)
    close(atoms.get_charges(), np.mean([m.get_charges() for m in members], axis=0), 1e-9)
    if periodic:
        close(atoms.get_stress(), np.mean([m.get_stress() for m in members], axis=0), 1e-9)
        close(calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0]), atoms.get_forces()[:1], 1e-5)
    else:
        close(atoms.get_dipole_moment(), np.mean([m.get_dipole_moment() for m in members], 0), 1e-9)
    charged = atoms.copy()
    charged.calc = atoms.calc
    charged.info["total_charge"] = 1.0
    assert charged.get_charges().sum() == pytest.approx(1.0)


def test_an_ensemble_may_hold_anything_that_computes():
    atoms = molecule("CH3OH")
    members = {
        "get": force_field(),
        "emt": EMT(),
        "teacher": ForceFieldTeacher(force_field(1), "teacher", engine="torch"),
    }
    mixed = EnsembleCalculator(members, engine="torch")
    atoms.calc = mixed
    energies = []
    for model in (force_field(0), force_field(1)):
        other = atoms.copy()
        other.calc = ForceFieldCalculator(model, engine="torch")
        energies.append(other.get_potential_energy())
    other.calc = EMT()
    energies.append(other.get_potential_energy())
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))
    assert "charges" not in mixed.results, "EMT has none"
    teachers = [ForceFieldTeacher(force_field(k), f"get-{k}", engine="torch") for k in range(3)]
    ensemble = TeacherEnsemble(teachers, aggregator=Median(), progress=False)
    atoms.calc = EnsembleCalculator(ensemble)
    middle = np.median([t.predict([atoms])["energy"] for t in teachers])
    assert atoms.get_potential_energy() == pytest.approx(middle)


def test_ensembles_that_are_none_are_refused():
    with pytest.raises(InvalidInputError, match="a sequence or mapping of models; got \\[\\]"):
        EnsembleCalculator([])
    with pytest.raises(InvalidInputError, match="sequence or mapping of models; got 'default'"):
        EnsembleCalculator("default")
    with pytest.raises(InvalidInputError, match="as members; got int"):
        EnsembleCalculator([1])
    teacher = CalculatorTeacher(EMT(), "emt")
    with pytest.raises(InvalidInputError, match="unique names"):
        EnsembleCalculator([teacher, teacher])
    for models in ([teacher], [EMT()], TeacherEnsemble([teacher])):
        with pytest.raises(InvalidInputError, match="got total_charge. Give them to the members"):
            EnsembleCalculator(models, total_charge=1.0)
    with pytest.raises(InvalidInputError, match="an ensemble that predicts 'energy'"):
        EnsembleCalculator(TeacherEnsemble([CalculatorTeacher(EMT(), properties=("forces",))]))
