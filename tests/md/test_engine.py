"""The compiled engine against the force field in PyTorch, and against its own energy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from scikd.exceptions import InvalidInputError
from scikd.md.bamboo import from_bamboo
from scikd.md.dispersion import D3BJ, D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.engine import NumbaEngine
from scikd.md.frames import from_ase
from scikd.md.get import GET
from scikd.md.model import Architecture, ForceField
from scikd.md.neighbors import find_neighbors
from scikd.md.repulsion import ZBL

ELEMENTS = (1, 3, 6, 8)
COULOMB = Electrostatics(cutoff=6.0, accuracy=1e-7)
FULL = {"electrostatics": COULOMB, "dispersion": D3CSO(cutoff=7.0), "repulsion": ZBL()}


def force_field(**terms):
    torch.manual_seed(1)
    get = GET().double()  # of the size that other tests have compiled already
    with torch.no_grad():
        for name, values in get.named_parameters():
            if "radial" not in name:
                values.add_(0.1 * torch.randn_like(values))
    references = {1: -13.6, 3: -203.0, 6: -1030.0, 8: -2040.0}
    return ForceField(get, elements=ELEMENTS, references=references, **terms).eval()


def structure(periodic, n_atoms=40, seed=0, cell=None):
    """Return atoms no two of which are close; the cell is smaller than twice the cutoffs."""
    rng = np.random.default_rng(seed)
    cell = np.array([[8.0, 0.0, 0.0], [1.5, 8.0, 0.0], [-1.0, 2.0, 9.0]]) if cell is None else cell
    steps = int(np.ceil(n_atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(steps)] * 3), -1).reshape(-1, 3) / steps
    places = rng.permutation(grid)[:n_atoms] + rng.uniform(-0.15, 0.15, (n_atoms, 3)) / steps
    numbers = rng.choice(ELEMENTS, n_atoms)
    return Atoms(numbers, places @ cell, cell=cell if periodic else None, pbc=periodic)


def run(engine, atoms, total_charge=0.0):
    return engine.compute(atoms.positions, atoms.numbers, atoms.cell[:], atoms.pbc, total_charge)


def by_torch(field, atoms, total_charge=0.0):
    atoms = atoms.copy()
    atoms.info["total_charge"] = total_charge
    batch = from_ase(atoms, dtype=torch.float64)
    near = field.near_cutoff
    found = field(batch, find_neighbors(batch, near, field.far_cutoff or near), stress=True)
    plain = {name: values.numpy() for name, values in found.items()}
    one = ("energy", "dipole", "virial", "stress")
    return {name: values[0] if name in one else values for name, values in plain.items()}


def assert_same(ours, theirs, tolerance):
    assert set(theirs) <= set(ours)
    for name, values in theirs.items():
        # An energy is a sum over atoms, and so is its error.
        of = theirs["energies"].sum() if name == "energy" else values
        scale = max(np.nanmax(np.abs(of), initial=0.0), 1e-3)
        np.testing.assert_allclose(
            ours[name], values, rtol=0, atol=tolerance * scale, err_msg=name, equal_nan=True
        )


@pytest.mark.parametrize("rule", ["conservative", "published"])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(
    "terms",
    [FULL, {}, {"electrostatics": COULOMB}, {"dispersion": D3CSO(smooth=False, tail=False)}],
    ids=["full", "network", "coulomb", "dispersion"],
)
def test_agrees_with_the_force_field(terms, periodic, rule):
    field, atoms = force_field(forces=rule, **terms), structure(periodic)
    engine = NumbaEngine(field, dtype="float64", threads=1)
    # The mesh and the Ewald sum differ by what they leave out, as the accuracy says.
    tolerance = 1e-5 if periodic and "electrostatics" in terms else 1e-9
    assert_same(run(engine, atoms, 1.0), by_torch(field, atoms, 1.0), tolerance)


@pytest.mark.parametrize("periodic", [True, False])
def test_single_precision_is_close(periodic):
    field, atoms = force_field(**FULL), structure(periodic)
    found = run(NumbaEngine(field, threads=1), atoms)
    expected = by_torch(field, atoms)
    assert_same(found, expected, 1e-4)


def test_agrees_with_a_mesh_of_the_same_kind():
    field = force_field(electrostatics=Electrostatics(cutoff=6.0, reciprocal="pme"))
    atoms = structure(periodic=True)
    engine = NumbaEngine(field, dtype="float64", threads=1)
    assert_same(run(engine, atoms), by_torch(field, atoms), 1e-9)


def test_without_a_reciprocal_sum():
    field = force_field(electrostatics=Electrostatics(cutoff=6.0, reciprocal=None))
    atoms = structure(periodic=True)
    engine = NumbaEngine(field, dtype="float64", threads=1)
    assert_same(run(engine, atoms), by_torch(field, atoms), 1e-9)


def test_dispersion_that_is_not_compiled():
    pytest.importorskip("dftd3")
    field, atoms = force_field(dispersion=D3BJ("b3lyp")), structure(periodic=True)
    engine = NumbaEngine(field, dtype="float64", threads=1)
    assert_same(run(engine, atoms), by_torch(field, atoms), 1e-9)


@pytest.mark.parametrize("rule", ["published", "conservative"])
def test_released_weights(scikd_data, rule):
    with np.load(scikd_data("md/bamboo_released/weights.npz")) as archive:
        field = from_bamboo(dict(archive))
    with np.load(scikd_data("md/bamboo_released/reference_outputs.npz")) as archive:
        atoms = Atoms(archive["crop/numbers"], archive["crop/positions"])
    field.force_rule = rule
    found = run(NumbaEngine(field, threads=1), atoms)
    assert_same(found, by_torch(field.double(), atoms), 1e-5)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, True)])
def test_partly_periodic_structures(pbc):
    atoms = structure(periodic=True, cell=9.0 * np.eye(3))
    atoms.pbc = pbc
    field = force_field(dispersion=D3CSO(cutoff=7.0))
    engine = NumbaEngine(field, dtype="float64", threads=1)
    assert_same(run(engine, atoms), by_torch(field, atoms), 1e-9)
    charged = NumbaEngine(force_field(**FULL), dtype="float64", threads=1)
    with pytest.raises(InvalidInputError, match="periodic in three directions or in none"):
        run(charged, atoms)


@pytest.mark.parametrize("periodic", [True, False])
def test_forces_and_stress_are_derivatives_of_the_energy(periodic):
    atoms = structure(periodic)
    engine = NumbaEngine(force_field(**FULL), dtype="float64", threads=1)
    found, step = run(engine, atoms), 1e-4

    def slope(change):
        ends = []
        for sign in (1, -1):
            changed = atoms.copy()
            change(changed, sign * step)
            ends.append(run(engine, changed)["energy"])
        return (ends[0] - ends[1]) / (2 * step)

    for atom, axis in ((0, 0), (7, 1), (21, 2)):

        def move(changed, by, atom=atom, axis=axis):
            changed.positions[atom, axis] += by

        assert found["forces"][atom, axis] == pytest.approx(-slope(move), abs=2e-6)
    if periodic:
        for voigt, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):

            def deform(changed, by, a=a, b=b):
                strain = np.eye(3)
                strain[a, b] += 0.5 * by
                strain[b, a] += 0.5 * by
                changed.set_cell(changed.cell[:] @ strain, scale_atoms=True)

            expected = slope(deform) / atoms.get_volume()
            assert found["stress"][voigt] == pytest.approx(expected, abs=2e-8)


def test_lists_are_kept_along_a_trajectory_and_results_do_not_depend_on_them():
    field, atoms = force_field(**FULL), structure(periodic=True)
    engine, rng = NumbaEngine(field, dtype="float64", threads=1), np.random.default_rng(0)
    for _ in range(20):
        atoms.positions += rng.normal(scale=0.04, size=(len(atoms), 3))
        atoms.set_cell(atoms.cell[:] * (1 + rng.normal(scale=1e-3)), scale_atoms=True)
        kept = run(engine, atoms)
    fresh = run(NumbaEngine(field, dtype="float64", threads=1), atoms)
    assert 1 < engine.verlet.rebuilds < 20
    assert_same(kept, fresh, 1e-11)


def test_one_engine_for_structures_of_any_kind():
    engine = NumbaEngine(force_field(**FULL), dtype="float64", threads=1)
    field = force_field(**FULL)
    for periodic, n_atoms in ((True, 40), (False, 7), (False, 1), (True, 20)):
        atoms = structure(periodic, n_atoms)
        assert_same(run(engine, atoms), by_torch(field, atoms), 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_are_the_same_bits_for_any_number_of_threads(dtype):
    atoms = structure(periodic=True, n_atoms=150, cell=12.0 * np.eye(3))
    field = force_field(**FULL)
    one, two = (run(NumbaEngine(field, dtype=dtype, threads=n), atoms) for n in (1, 2))
    for name, values in one.items():
        assert np.asarray(values).tobytes() == np.asarray(two[name]).tobytes(), name


def test_what_it_refuses():
    field, atoms = force_field(), structure(periodic=True)
    engine = NumbaEngine(field, dtype="float64", threads=1)
    atoms.positions[3, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"Expected finite positions; atom 3 is at \["):
        run(engine, atoms)
    with pytest.raises(InvalidInputError, match="Expected at least one atom"):
        run(engine, Atoms())
    with pytest.raises(InvalidInputError, match=r"The model knows .* the structure holds \['F'\]"):
        run(engine, Atoms("F"))

    class Other(Architecture):
        def forward(self, numbers, index, vectors):
            raise NotImplementedError

        def describe(self):
            return {}

    with pytest.raises(InvalidInputError, match="Expected a force field with a GET network; got O"):
        NumbaEngine(ForceField(Other(), elements=ELEMENTS))
