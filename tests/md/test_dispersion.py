from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.integrate import quad

from scikd.exceptions import InvalidInputError, MissingExtraError
from scikd.md._half_list import all_pairs, pairs_within
from scikd.md._placed import Placed
from scikd.md.dispersion import D3BJ, D3CSO
from scikd.md.units import BOHR, HARTREE
from tests.reference import md_pairs as naive

PUBLISHED = D3CSO(smooth=False, tail=False, ionic=False)


def site_energies(terms, atoms, positions=None, strain=None, dtype=torch.float64):
    """Site energies of ASE atoms; positions and strain may be leaves of a derivative."""
    if positions is None:
        positions = torch.tensor(atoms.positions)
    deform = torch.eye(3, dtype=torch.float64) + (0.0 if strain is None else strain)
    positions = (positions @ deform).to(dtype)
    cell = (torch.tensor(atoms.cell[:]) @ deform).to(dtype)
    pairs = all_pairs(len(atoms))
    if atoms.pbc.any():
        (pairs,) = pairs_within(atoms.positions, atoms.cell[:], atoms.pbc, terms.cutoff + 0.5)
    placed = Placed(
        numbers=torch.tensor(atoms.numbers),
        positions=positions,
        cell=cell[None],
        pbc=torch.tensor(atoms.pbc)[None],
        batch=torch.zeros(len(atoms), dtype=torch.int64),
        index=torch.tensor(np.stack([pairs.i, pairs.j])),
        vectors=positions[pairs.j]
        - positions[pairs.i]
        + torch.tensor(pairs.shifts).to(cell) @ cell,
    )
    return terms.site_energies(placed)


def liquid(n_atoms=20, length=6.0, seed=0):
    """Atoms of several elements near a lattice in a triclinic box."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n_atoms]
    cell = length * np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
    scaled = sites / 3 + rng.normal(size=(n_atoms, 3)) * 0.03
    return Atoms(rng.choice([1, 3, 6, 8], n_atoms), scaled_positions=scaled, cell=cell, pbc=True)


def free(atoms):
    return Atoms(atoms.numbers, positions=atoms.positions)


# -- D3CSO ---------------------------------------------------------------------------------------


def test_published_form_is_the_formula_of_the_method():
    r = np.array([0.5, 2.0, 3.5, 6.0, 9.9, 10.1])
    for first, second in ((1, 1), (6, 8), (3, 9), (11, 16), (7, 15)):
        z = [torch.full((len(r),), number) for number in (first, second)]
        found = PUBLISHED.pair_energy(torch.tensor(r), *z)
        expected = [naive.dispersion(x, first, second) for x in r]
        # The radii of the table above are rounded to two digits.
        np.testing.assert_allclose(found, expected, rtol=3e-3, atol=3e-8)


def test_published_form_jumps_at_the_cutoff_and_the_switched_one_does_not():
    r = torch.tensor([10.0 - 1e-9, 10.0 + 1e-9], dtype=torch.float64)
    carbon = torch.tensor([6, 6])
    cut = PUBLISHED.pair_energy(r, carbon, carbon)
    assert cut[0] > 1e-8
    assert cut[1] == 0.0
    r = torch.tensor([8 - 1e-6, 8 + 1e-6, 10 - 1e-6, 10 + 1e-6], dtype=torch.float64)
    r.requires_grad_()
    value = D3CSO().pair_energy(r, carbon[[0] * 4], carbon[[0] * 4])
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    for part in (value, slope, bend):
        assert abs(part[1] - part[0]) < 1e-7
        assert abs(part[3] - part[2]) < 1e-7


def test_ions_have_the_coefficients_of_ions():
    r, lithium = torch.tensor([6.0]).double(), torch.tensor([3])
    sodium, carbon = torch.tensor([11]), torch.tensor([6])
    atom, ion = D3CSO(ionic=False), D3CSO()
    # By London's formula, with the polarisability and the ionisation energy (eV) of Li+.
    scale = ion.pair_energy(r, lithium, lithium) / atom.pair_energy(r, lithium, lithium)
    london = 0.75 * (0.192 * BOHR**3) ** 2 * 75.64
    assert scale.item() * 6246.0 * naive.KCAL == pytest.approx(london, rel=0.02)
    scale = ion.pair_energy(r, sodium, sodium) / atom.pair_energy(r, sodium, sodium)
    assert 1.0 < scale.item() * 9662.0 * naive.KCAL / (HARTREE * BOHR**6) < 2.0
    assert torch.equal(ion.pair_energy(r, carbon, carbon), atom.pair_energy(r, carbon, carbon))


@pytest.mark.parametrize("smooth", [True, False])
def test_tail_is_the_integral_of_what_was_left_out(smooth):
    terms = D3CSO(smooth=smooth, ionic=False)

    def missing(r):
        full = naive.dispersion(r, 6, 8, cutoff=1e9)
        if not smooth or r > 10.0:
            return full if r > 10.0 else 0.0
        z = [torch.tensor([number]) for number in (6, 8)]
        return full - terms.pair_energy(torch.tensor([r]).double(), *z).item()

    inner = quad(lambda r: missing(r) * r * r, 8.0, 10.0)[0]
    outer = quad(lambda r: missing(r) * r * r, 10.0, np.inf)[0]
    found = terms.tail_integrals()[6, 8]
    assert found == pytest.approx(2 * np.pi * (inner + outer), rel=2e-3)
    assert found == terms.tail_integrals()[8, 6]


def test_tail_makes_up_for_the_cutoff_in_a_crystal():
    crystal = bulk("C", "fcc", a=3.42)
    short = site_energies(D3CSO(), crystal).sum()
    without = site_energies(D3CSO(tail=False), crystal).sum()
    long = site_energies(D3CSO(cutoff=30.0), crystal).sum()
    assert abs(short - long) < 0.05 * abs(without - long)


@pytest.mark.parametrize("terms", [D3CSO(), D3CSO(smooth=False, tail=False), D3CSO(cutoff=7.0)])
@pytest.mark.parametrize("periodic", [True, False])
def test_first_and_second_derivatives_are_those_of_the_energy(terms, periodic):
    atoms = liquid(8, 5.0) if periodic else free(liquid(8, 5.0))
    if periodic and not terms.smooth:
        atoms.set_cell(2.5 * atoms.cell)  # no pair near the cutoff, where the energy jumps

    def energy(positions, strain):
        return site_energies(terms, atoms, positions, strain)

    inputs = (
        torch.tensor(atoms.positions).requires_grad_(),
        torch.zeros(3, 3, dtype=torch.float64).requires_grad_(),
    )
    assert torch.autograd.gradcheck(energy, inputs, eps=1e-5, rtol=1e-5, atol=1e-9)
    assert torch.autograd.gradgradcheck(energy, inputs, eps=1e-5, rtol=1e-4, atol=1e-7)


def test_tail_pulls_a_box_together_and_free_clusters_have_none():
    atoms = liquid()
    strain = torch.zeros(3, 3, dtype=torch.float64).requires_grad_()
    slopes = [
        torch.autograd.grad(site_energies(D3CSO(tail=tail), atoms, strain=strain).sum(), strain)[0]
        for tail in (True, False)
    ]
    extra = slopes[0] - slopes[1]
    energy = (site_energies(D3CSO(), atoms) - site_energies(D3CSO(tail=False), atoms)).sum()
    torch.testing.assert_close(extra, -energy * torch.eye(3, dtype=torch.float64))
    assert energy < 0
    cluster = free(atoms)
    assert torch.equal(site_energies(D3CSO(), cluster), site_energies(D3CSO(tail=False), cluster))


def test_energy_is_extensive():
    one = liquid()
    two = one.repeat((1, 2, 1))
    found = site_energies(D3CSO(), two)
    np.testing.assert_allclose(found, np.tile(site_energies(D3CSO(), one), 2), rtol=1e-10)


def test_single_precision_is_good_to_six_digits():
    exact, found = (
        site_energies(D3CSO(), liquid(), dtype=dtype) for dtype in (torch.float64, torch.float32)
    )
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, exact, rtol=2e-6)


def test_unknown_elements_are_named():
    with pytest.raises(InvalidInputError, match=r"coefficients for H, Li.*also holds Xe"):
        site_energies(D3CSO(), Atoms("HXe", positions=[[0, 0, 0], [0, 0, 3]]))
    with pytest.raises(InvalidInputError, match="also holds Xe"):  # a lone atom has no pairs
        site_energies(D3CSO(), Atoms("Xe"))


def test_bad_settings_are_refused():
    with pytest.raises(InvalidInputError, match=r"more than 2.0 Å; got 1.0"):
        D3CSO(cutoff=1.0)
    with pytest.raises(InvalidInputError, match=r"reach of more than 2.0 Å; got 1.0"):
        D3BJ("pbe", reach=1.0)


@pytest.mark.parametrize("terms", [D3CSO(cutoff=9.0, ionic=False), D3BJ("b3lyp", reach=20.0)])
def test_settings_survive_json(terms):
    assert type(terms)(**json.loads(json.dumps(dataclasses.asdict(terms)))) == terms


# -- D3BJ ----------------------------------------------------------------------------------------


def test_d3bj_is_what_dftd3_says():
    interface = pytest.importorskip("dftd3.interface")
    atoms = molecule("CH3CH2OH")
    found = site_energies(D3BJ("pbe"), atoms).sum().item()
    model = interface.DispersionModel(atoms.numbers, atoms.positions / BOHR)
    damping = interface.RationalDampingParam(method="pbe", atm=False)
    expected = float(model.get_dispersion(damping, grad=False)["energy"]) * HARTREE
    assert found == pytest.approx(expected, rel=1e-10)
    assert found < 0


@pytest.mark.parametrize("periodic", [True, False])
def test_d3bj_forces_and_stress_are_derivatives_of_its_energy(periodic):
    pytest.importorskip("dftd3")
    atoms = liquid(12) if periodic else free(liquid(12))
    positions = torch.tensor(atoms.positions).requires_grad_()
    strain = torch.zeros(3, 3, dtype=torch.float64).requires_grad_()
    terms = D3BJ("b3lyp", reach=15.0)
    total = 2.0 * site_energies(terms, atoms, positions, strain).sum()
    by_position, by_strain = torch.autograd.grad(total, (positions, strain))
    step = 1e-3
    for leaf, slope, where in ((0, by_position, (3, 1)), (1, by_strain, (2, 2))):
        ends = []
        for sign in (1, -1):
            moved = [positions.detach().clone(), strain.detach().clone()]
            moved[leaf][where] += sign * step
            ends.append(2.0 * site_energies(terms, atoms, *moved).sum())
        numeric = (ends[0] - ends[1]) / (2 * step)
        # D3 cuts its coordination numbers at a distance, without smoothing: a strain shows that.
        assert slope[where].item() == pytest.approx(numeric.item(), rel=1e-3, abs=1e-6)


def test_d3bj_refuses_second_derivatives_and_unknown_functionals():
    pytest.importorskip("dftd3")
    atoms = molecule("CH4")
    positions = torch.tensor(atoms.positions).requires_grad_()
    total = site_energies(D3BJ("pbe"), atoms, positions).sum()
    with pytest.raises(InvalidInputError, match="no second derivatives.*add it afterwards"):
        torch.autograd.grad(total, positions, create_graph=True)
    with pytest.raises(InvalidInputError, match="parameters for; got 'nonsense'"):
        site_energies(D3BJ("nonsense"), atoms)


def test_d3bj_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dftd3", None)
    monkeypatch.delitem(sys.modules, "dftd3.interface", raising=False)
    with pytest.raises(MissingExtraError, match=r"needs the package 'dftd3'.*scikd\[md\]"):
        site_energies(D3BJ("pbe"), molecule("CH4"))
