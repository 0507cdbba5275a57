from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.data import covalent_radii

from scikd.exceptions import InvalidInputError
from scikd.md._placed import Placed
from scikd.md.repulsion import ZBL
from tests.reference import md_pairs as naive


def energy(terms, r, first, second):
    """Pair energies at distances (array or leaf) for one pair of elements."""
    r = torch.as_tensor(r, dtype=torch.float64)
    return terms.pair_energy(r, torch.full(r.shape, first), torch.full(r.shape, second))


def site_energies(terms, numbers, positions):
    i, j = np.triu_indices(len(numbers), k=1)
    placed = Placed(
        numbers=torch.tensor(numbers),
        positions=positions,
        cell=positions.new_zeros(1, 3, 3),
        pbc=torch.zeros(1, 3, dtype=torch.bool),
        batch=torch.zeros(len(numbers), dtype=torch.int64),
        index=torch.tensor(np.stack([i, j])),
        vectors=positions[j] - positions[i],
    )
    return terms.site_energies(placed)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (6, 8), (3, 15), (53, 6)])
def test_it_is_the_universal_repulsion_inside_and_nothing_outside(first, second):
    bond = covalent_radii[first] + covalent_radii[second]
    inside = np.array([0.05, 0.2, 0.3999]) * bond
    found = energy(ZBL(), inside, first, second)
    expected = [naive.zbl(r, first, second) for r in inside]
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert (energy(ZBL(), np.array([0.65, 0.8, 2.0]) * bond, first, second) == 0.0).all()
    between = energy(ZBL(), np.linspace(0.4, 0.65, 50) * bond, first, second)
    assert (np.diff(between) < 0).all()


def test_it_leaves_smoothly():
    bond = 2 * covalent_radii[6]
    ends = [0.4 * bond, 0.65 * bond]
    r = torch.tensor([x + s * 1e-8 for x in ends for s in (-1, 1)], dtype=torch.float64)
    r.requires_grad_()
    value = energy(ZBL(), r, 6, 6)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    for part in (value, slope, bend):
        assert (part[1] - part[0]).abs() < 1e-4 * (1 + part[0].abs())
        assert (part[3] - part[2]).abs() < 1e-3


@pytest.mark.parametrize("name", ["N2", "CO", "H2", "H2O", "C2H2", "HCN", "LiF", "SO2", "P2", "F2"])
def test_no_molecule_at_rest_or_hot_feels_it(name):
    atoms = molecule(name)
    positions = 0.92 * torch.tensor(atoms.positions)
    assert (site_energies(ZBL(), atoms.numbers, positions) == 0.0).all()


def test_its_derivatives_are_those_of_its_energy():
    numbers = [1, 6, 8, 3]
    positions = torch.tensor(
        [[0.0, 0, 0], [0.5, 0, 0], [0.1, 0.7, 0], [0.3, 0.2, 0.8]], dtype=torch.float64
    ).requires_grad_()
    terms = ZBL()

    def total(moved):
        return site_energies(terms, numbers, moved)

    assert (total(positions) > 0).all()
    assert torch.autograd.gradcheck(total, positions, rtol=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(total, positions, rtol=1e-5, atol=1e-4)


def test_its_cutoff_covers_all_elements():
    largest = covalent_radii[1:87].max()
    assert ZBL(outer=0.7).cutoff == pytest.approx(1.4 * largest)


def test_bad_fractions_are_refused_and_settings_survive_json():
    with pytest.raises(InvalidInputError, match=r"0 < inner < outer <= 1.*inner=0.7, outer=0.6"):
        ZBL(inner=0.7, outer=0.6)
    terms = ZBL(inner=0.3, outer=0.5)
    assert ZBL(**json.loads(json.dumps(dataclasses.asdict(terms)))) == terms
