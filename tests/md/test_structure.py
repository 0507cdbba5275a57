"""Structure of liquids that are known: an ideal gas, a crystal, ions placed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from scikd.exceptions import InvalidInputError
from scikd.md.estimates import TooShortError
from scikd.md.properties import LiquidProperties, PropertiesOptions, _add_structure
from scikd.md.structure import density_of_liquid, radial_distribution, solvation_shells
from tests.reference.md_synthetic import liquid, ornstein_uhlenbeck

pytest.importorskip("stacie")
pytest.importorskip("freud")


def gas(n_frames=100, n_atoms=60, edge=12.0):
    rng = np.random.default_rng(0)
    return liquid(rng.uniform(0.0, edge, (n_frames, n_atoms, 3)), edge=edge)


def test_an_ideal_gas_has_no_structure():
    found = radial_distribution(gas(), "Ar", "Ar")
    far = found.distances > 1.0
    z = (found.values - 1.0)[far] / found.errors[far]
    assert abs(z.mean()) < 0.5
    assert np.mean(np.abs(z) < 2.26) > 0.85  # Student's t of ten blocks
    # Atoms within a ball: density times volume.
    inside = 59 / 12.0**3 * 4 / 3 * np.pi * 5.0**3
    assert np.interp(4.975, found.distances, found.numbers) == pytest.approx(inside, rel=0.03)
    assert found.distances[-1] < 6.0


def test_a_crystal_has_twelve_neighbours_in_a_box_of_any_shape():
    for cubic in (True, False):
        atoms = bulk("Ar", "fcc", a=5.3, cubic=cubic) * ((3, 3, 3) if cubic else (5, 5, 5))
        rng = np.random.default_rng(1)
        paths = atoms.positions + 0.1 * rng.standard_normal((120, len(atoms), 3))
        crystal = replace(liquid(paths), cells=np.tile(atoms.cell[:], (120, 1, 1)))
        found = radial_distribution(crystal, "Ar", "Ar")
        assert found.distances[found.values.argmax()] == pytest.approx(5.3 / np.sqrt(2), abs=0.1)
        assert 4.0 < found.first_minimum < 5.1
        assert found.coordination.value == pytest.approx(12.0)


def test_a_coordination_number_that_is_not_to_be_had_says_why():
    """A slow swing of a crystal's size moves neighbours in and out of the shell."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (3, 3, 3)
    rng = np.random.default_rng(1)
    paths = atoms.positions + 0.35 * rng.standard_normal((40, len(atoms), 3))
    swing = 1.0 + 0.05 * np.sin(np.linspace(0.0, 3.0, 40))
    crystal = replace(
        liquid(paths * swing[:, None, None]), cells=atoms.cell[:] * swing[:, None, None]
    )
    found = radial_distribution(crystal, "Ar", "Ar")
    assert found.first_minimum is not None
    assert found.coordination is None
    assert "The coordination number" in found.refusal
    told = LiquidProperties(crystal)
    _add_structure(told, PropertiesOptions(pairs=("Ar-Ar",)))
    assert told.refusals["Ar around Ar"] == found.refusal


def test_atoms_of_one_molecule_are_not_neighbours():
    rng = np.random.default_rng(2)
    centres = rng.uniform(0, 15, (20, 30, 1, 3))
    paths = (centres + np.array([[0.0, 0, 0], [1.0, 0, 0]])).reshape(20, 60, 3)
    pairs = replace(
        liquid(paths, edge=15.0),
        molecules=np.repeat(np.arange(30), 2),
        charges=np.zeros(30),
        names=("Ar2",) * 30,
    )
    found = radial_distribution(pairs, "Ar2:Ar", "Ar")
    assert found.values[np.abs(found.distances - 1.0) < 0.06].max() < 5.0  # else some hundred


def test_kinds_that_are_not_there_and_few_frames_are_refused():
    with pytest.raises(InvalidInputError, match="no 'O' in this liquid of Ar"):
        radial_distribution(gas(), "O", "Ar")
    with pytest.raises(InvalidInputError, match="Expected an element"):
        radial_distribution(gas(), "oxygen", "Ar")
    with pytest.raises(TooShortError, match="at least 10 frames; got 9. About 10 ps would do"):
        radial_distribution(gas(9), "Ar", "Ar")


@pytest.mark.parametrize("between", [0.0, 0.3, 1.0, 1.7])
def test_a_first_shell_ends_before_the_second_however_low_the_curve_is_between(between):
    """One cation amid atoms that are drawn from a curve with peaks at 2 and 4 Å."""

    def curve(r):
        peaks = 8.0 * np.exp(-0.5 * ((r - 2.0) / 0.12) ** 2) + 3.0 * np.exp(
            -0.5 * (r - 4.0) ** 2 / 0.04
        )
        return peaks + np.select([r < 2.0, r < 4.0], [0.0, between], 1.0)

    rng = np.random.default_rng(6)
    drawn = rng.uniform(-7.0, 7.0, (1_500_000, 3))
    chosen = drawn[rng.uniform(0.0, 10.0, len(drawn)) < curve(np.linalg.norm(drawn, axis=1))]
    paths = chosen[: 1200 * 100].reshape(1200, 100, 3)
    paths = np.concatenate([np.zeros((1200, 1, 3)), paths], axis=1)
    gas = liquid(paths, ("O",), (8,), edge=14.0)
    gas = replace(gas, numbers=np.array([3] + [8] * 100), names=("Li+",) + ("O",) * 100)
    found = radial_distribution(gas, "Li", "O")
    assert 2.3 < found.first_minimum < 3.6
    end = np.flatnonzero(found.distances > found.first_minimum)[0]
    assert found.coordination.value == pytest.approx(found.numbers[end - 1])


# Cations sit 20 Å apart; the states of three of them are set by the anions 2 Å away.
def electrolyte(n_frames=120):
    ions = Atoms("Li4", [[0, 0, 0], [20, 0, 0], [0, 20, 0], [0, 24, 0]])
    anions = Atoms("F4", [[10, 10, 10], [20, 2, 0], [0, 22, 0], [10, 10, 30]])
    positions = np.concatenate([ions.positions, anions.positions])
    rng = np.random.default_rng(3)
    paths = positions + 0.05 * rng.standard_normal((n_frames, 8, 3))
    return liquid(paths, ("Li+", "PF6-"), (3, 9), (1, -1), edge=40.0)


def test_cations_are_free_paired_or_in_aggregates():
    found = solvation_shells(electrolyte(), cutoff=3.0)
    shares = {name: estimate.value for name, estimate in found.fractions.items()}
    assert shares == {"SSIP": 0.25, "CIP": 0.25, "AGG": 0.5}
    assert found.anions.value == pytest.approx(0.75)
    # Nothing changed: the error is that of four ions seen once, and not zero.
    assert 0.1 < found.fractions["CIP"].error < 0.3


def test_contact_is_that_of_the_nearest_atom_of_an_anion():
    """Three atoms of an anion at 2, 3 and 4 Å of a cation: two more peaks, that end no shell."""
    rng = np.random.default_rng(7)
    at = [[0, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0], [8, 0, 0], [9, 0, 0], [10, 0, 0]]
    paths = np.array(at, dtype=float) + 0.1 * rng.standard_normal((500, 7, 3))
    pair = replace(
        liquid(paths, ("F",), (9,), edge=24.0),
        numbers=np.array([3] + [9] * 6),
        molecules=np.repeat([0, 1, 2], [1, 3, 3]),
        charges=np.array([1.0, -1.0, -1.0]),
        names=("Li+", "PF6-", "PF6-"),
    )
    assert radial_distribution(pair, "Li", "F").first_minimum < 3.0
    found = solvation_shells(pair)
    assert 4.5 < found.cutoff < 7.5
    assert found.anions.value == 1.0
    with pytest.raises(TooShortError, match="at least 10 frames; got 5"):
        solvation_shells(
            replace(
                pair, positions=pair.positions[:5], cells=pair.cells[:5], times_ps=pair.times_ps[:5]
            )
        )


def test_the_error_of_a_share_that_changes_is_that_of_its_series():
    trajectory = electrolyte(4000)
    beat = ornstein_uhlenbeck(np.random.default_rng(4), 1, 4000, 5.0)[0] > 0
    positions = trajectory.positions.copy()
    positions[beat, 4] = positions[beat, 0] + [2.0, 0, 0]
    found = solvation_shells(replace(trajectory, positions=positions), cutoff=3.0)
    assert found.fractions["CIP"].value == pytest.approx(0.25 + 0.25 * beat.mean())
    assert 0.002 < found.fractions["CIP"].error < 0.02


def test_the_density_has_the_error_of_its_series_and_none_at_constant_volume():
    assert density_of_liquid(gas(200)).error == 0.0
    trajectory = gas(3000, n_atoms=10)
    swing = ornstein_uhlenbeck(np.random.default_rng(5), 1, 3000, 4.0, variance=1e-4)[0]
    breathing = replace(trajectory, cells=trajectory.cells * np.exp(swing)[:, None, None])
    found = density_of_liquid(breathing)
    truth = 10 * 39.95 / 12.0**3 / 0.602214
    assert found.unit == "g/cm³"
    assert found.value == pytest.approx(truth, abs=4 * found.error + 1e-3 * truth)
    assert found.error == pytest.approx(3 * truth * 1e-2 * np.sqrt(8 / 3000), rel=0.5)
