"""The guard: what lies beyond training is told, once, or refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from scikd.exceptions import InvalidInputError
from scikd.md.calculators import EnsembleCalculator, ForceFieldCalculator
from scikd.md.frames import from_ase
from scikd.md.guard import (
    ExtrapolationWarning,
    Guard,
    charge_limits,
    distance_limits,
    training_range,
)
from scikd.md.neighbors import VerletList
from tests.reference.md_models import force_field, structure


def near_list(atoms):
    return VerletList(3.0, 3.0, 0.5).update(
        atoms.positions, atoms.numbers, atoms.cell[:], atoms.pbc
    )[0]


def check(guard, atoms, limits):
    guard.check_distances(limits, atoms.positions, atoms.numbers, near_list(atoms))


def test_the_range_holds_the_smallest_distance_of_every_pair_of_elements():
    frames = [molecule("CH3OH"), molecule("H2O"), structure(20, 3)]
    ranges = training_range(from_ase(frames))
    expected = {}
    for atoms in frames:
        # All images by hand: the smallest distance of two atoms, through the boundary too.
        shifts = [(0, 0, 0)]
        if atoms.pbc.any():
            shifts = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
        for i in range(len(atoms)):
            for j in range(len(atoms)):
                for shift in shifts:
                    d = atoms.positions[j] + np.array(shift) @ atoms.cell[:] - atoms.positions[i]
                    distance = np.linalg.norm(d)
                    if distance > 1e-9:
                        key = tuple(sorted((atoms.numbers[i], atoms.numbers[j])))
                        expected[key] = min(expected.get(key, 3.0), distance)
    names = {1: "H", 6: "C", 8: "O"}
    expected = {f"{names[a]}-{names[b]}": d for (a, b), d in expected.items()}
    assert ranges.keys() == expected.keys()
    for pair, distance in expected.items():
        assert ranges[pair] == pytest.approx(distance)


def test_elements_that_never_met_have_the_full_range():
    far = Atoms("LiP", [[0, 0, 0], [0, 0, 8.0]])
    assert training_range(from_ase(far)) == {"Li-Li": 3.0, "Li-P": 3.0, "P-P": 3.0}


def test_a_structure_of_the_training_data_is_never_beyond_them():
    for seed in range(5):
        atoms = structure(16, seed)
        limits = distance_limits(training_range(from_ase(atoms)))
        guard = Guard("raise")
        # The last digit may differ between the two lists.
        check(guard, atoms, limits * (1 - 1e-12))
        assert not any(guard.counts.values())


@pytest.mark.parametrize("periodic", [True, False])
def test_a_pair_that_is_too_close_is_named(periodic):
    atoms = Atoms("OHHO", [[0, 0, 0], [0, 0, 0.95], [0, 0, 2.9], [0, 4.6, 0]])
    if periodic:
        atoms.set_cell([5.0, 5.0, 5.0])
        atoms.pbc = True
    limits = distance_limits({"H-O": 0.9, "O-O": 2.0, "H-H": 1.2})
    if not periodic:
        check(Guard("raise"), atoms, limits)
        atoms.positions[3] = [0, 0.4, 0]
    with pytest.raises(
        InvalidInputError,
        match=r"Atoms 0 \(O\) and 3 \(O\) are 0.400 Å apart, .* none closer than 2.000 Å \(1 such",
    ):
        check(Guard("raise"), atoms, limits)


def test_a_warning_comes_once_until_reset():
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.8]])
    limits, guard = distance_limits({"H-O": 0.9}), Guard()
    with pytest.warns(ExtrapolationWarning, match="0.800 Å apart.*said once"):
        check(guard, atoms, limits)
    for _ in range(2):
        check(guard, atoms, limits)  # a second warning would be an error here
    assert guard.counts["distance"] == 3
    guard.reset()
    with pytest.warns(ExtrapolationWarning):
        check(guard, atoms, limits)


def test_all_pairs_of_elements_share_one_count_and_one_warning():
    limits = distance_limits({"H-O": 0.9, "H-H": 1.2})
    first = Atoms("OH", [[0, 0, 0], [0, 0, 0.8]])
    several = Atoms("OHH", [[0, 0, 0], [0, 0, 0.8], [0, 0.7, 0.8]])
    other = Atoms("OO", [[0, 0, 0], [0, 0, 0.5]])  # of which the range says nothing
    guard = Guard()
    with pytest.warns(ExtrapolationWarning, match="1 such"):
        check(guard, first, limits)
    check(guard, several, limits)  # a second warning would be an error here
    check(guard, other, limits)
    assert guard.counts == {"distance": 2, "charge": 0, "spread": 0}


def test_members_of_an_ensemble_share_a_guard():
    atoms = structure(10, 1, periodic=False)
    closest = training_range(from_ase(atoms))
    beyond = {"training_range": {pair: 1.01 * distance for pair, distance in closest.items()}}
    members = [force_field(seed, metadata=beyond) for seed in range(3)]
    atoms.calc = EnsembleCalculator(members, engine="torch")
    with pytest.warns(ExtrapolationWarning) as told:
        atoms.get_forces()
    assert len(told) == 1
    assert atoms.calc.guard.counts["distance"] == 3


def test_ignoring_says_nothing():
    atoms, limits = Atoms("OH", [[0, 0, 0], [0, 0, 0.8]]), distance_limits({"H-O": 0.9})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(Guard("ignore"), atoms, limits)
        check(Guard("raise"), atoms, None)
        Guard(max_spread=1.0, spread="ignore").check_spread(np.array([5.0]))
        Guard("raise", "raise").check_spread(np.array([5.0]))
        Guard("raise", "raise", 1.0).check_spread(np.array([0.9, 0.1]))


def test_a_spread_above_the_threshold_is_told():
    with pytest.raises(
        InvalidInputError, match="force on atom 1: their spread is 2 eV/Å, and 1 eV/Å"
    ):
        Guard(spread="raise", max_spread=1.0).check_spread(np.array([0.1, 2.0]))
    with pytest.warns(ExtrapolationWarning, match="models disagree"):
        Guard(max_spread=1.0).check_spread(np.array([0.1, 2.0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"distance": "stop"}, "distance to be 'warn', 'raise' or 'ignore'; got 'stop'"),
        ({"spread": True}, "spread to be"),
        ({"max_spread": 0.0}, "max_spread > 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(arguments, words):
    with pytest.raises(InvalidInputError, match=words):
        Guard(**arguments)


@pytest.mark.parametrize("ranges", [{"H": 1.0}, {"H-Xy": 1.0}, {"H-O": -1.0}, {"H-O": "1"}])
def test_a_range_that_is_none_is_refused(ranges):
    with pytest.raises(InvalidInputError, match="Expected a training range"):
        distance_limits(ranges)


def test_a_total_charge_beyond_training_is_told():
    guard = Guard()
    for charge in (-1.0, 0.5, 2.0, 2.0 + 1e-6):
        guard.check_charge((-1.0, 2.0), charge)  # a warning would be an error here
    with pytest.warns(ExtrapolationWarning, match=r"is \+3 e, .* seen -1 to \+2 e. Check"):
        guard.check_charge((-1.0, 2.0), 3.0)
    guard.check_charge((-1.0, 2.0), -2.0)
    assert guard.counts["charge"] == 2
    with pytest.raises(InvalidInputError, match="total charge is -2 e"):
        Guard(charge="raise").check_charge((-1.0, 2.0), -2.0)
    Guard(charge="ignore").check_charge((-1.0, 2.0), 9.0)
    Guard(charge="raise").check_charge(charge_limits(None), 9.0)


@pytest.mark.parametrize("seen", [[1.0], [1.0, -1.0], ["a", "b"], 3.0, [0.0, float("nan")]])
def test_charges_that_are_no_range_are_refused(seen):
    assert charge_limits([-1, 2]) == (-1.0, 2.0)
    with pytest.raises(InvalidInputError, match="least and the greatest total charge"):
        charge_limits(seen)


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_the_calculator_asks_the_guard_about_charges(engine):
    atoms = structure(5, 1, periodic=False)
    model = force_field(metadata={"total_charges": [-1.0, 0.0]})
    atoms.info["total_charge"] = 1.0
    atoms.calc = ForceFieldCalculator(model, engine=engine, guard="raise")
    with pytest.raises(InvalidInputError, match=r"is \+1 e, and the model has seen -1 to \+0 e"):
        atoms.get_forces()
    atoms.info["total_charge"] = -1.0
    atoms.get_forces()
    for old in (force_field(), model):
        guard = None if old is model else "raise"
        atoms.info["total_charge"] = 5.0
        atoms.calc = ForceFieldCalculator(old, engine=engine, guard=guard)
        atoms.get_forces()


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_the_calculator_asks_the_guard(engine):
    atoms = structure(10, 1)
    model = force_field(metadata={"training_range": training_range(from_ase(atoms))})
    closer = atoms.copy()
    i, j = 0, int(np.argsort(atoms.get_distances(0, range(len(atoms)), mic=True))[1])
    closer.set_distance(i, j, 0.7, fix=0, mic=True)
    for frame in (atoms, closer):
        frame.calc = ForceFieldCalculator(model, engine=engine, guard="raise")
    atoms.get_forces()
    with pytest.raises(InvalidInputError, match="0.700 Å apart"):
        closer.get_forces()
    closer.calc = ForceFieldCalculator(model, engine=engine, guard=None)
    assert np.isfinite(closer.get_forces()).all()


def test_the_ensemble_asks_the_guard():
    atoms = structure(10, 1)
    atoms.calc = EnsembleCalculator([force_field(0), force_field(1)], engine="torch")
    atoms.get_forces()
    spread = atoms.calc.results["forces_spread"].max()
    assert spread > 0
    guard = Guard(spread="raise", max_spread=0.5 * spread)
    atoms.calc = EnsembleCalculator([force_field(0), force_field(1)], engine="torch", guard=guard)
    with pytest.raises(InvalidInputError, match="models disagree"):
        atoms.get_forces()
