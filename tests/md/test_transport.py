"""Diffusion, conductivity and transference of walkers, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import constants

from scikd.exceptions import InvalidInputError
from scikd.md.estimates import Estimate, TooShortError
from scikd.md.transport import (
    conductivity_of_liquid,
    nernst_einstein_conductivity,
    self_diffusion,
    transference_number,
    yeh_hummer_correction,
)
from tests.reference.md_synthetic import liquid, walks

pytest.importorskip("stacie")
pytest.importorskip("freud")

# Without a solvent the momentum of the whole alone would tell the transference number.
SALT = {"species": ("Li+", "PF6-", "EC"), "numbers": (3, 9, 18), "charges": (1, -1, 0)}
SEEDS, FEWEST = 120, 107  # as in test_estimates


def salt(seed, n_pairs=12, n_frames=400, together=0.0):
    """Return ions that walk alone, or partly in pairs, and the truth about them."""
    rng = np.random.default_rng(seed)
    alone = np.repeat([0.04, 0.08, 0.1], n_pairs)
    paths = walks(rng, n_frames, alone)
    paths[:, : 2 * n_pairs] += np.tile(walks(rng, n_frames, np.full(n_pairs, together)), (1, 2, 1))
    trajectory = liquid(paths, **SALT)
    masses = trajectory.masses
    seen = np.eye(3 * n_pairs) - masses[None, :] / masses.sum()  # from the centre of mass
    covariance = np.diag(alone)
    covariance[: 2 * n_pairs, : 2 * n_pairs] += together * np.tile(np.eye(n_pairs), (2, 2))
    covariance = seen @ covariance @ seen.T
    charges = trajectory.charges
    cations = np.where(charges > 0, 1.0, 0.0)
    current = charges @ covariance @ charges
    return trajectory, {
        "diffusion": np.diag(covariance)[:n_pairs].mean() * 1e-4,
        "conductivity": current * siemens(trajectory),
        "ideal": (np.diag(covariance) * charges**2).sum() * siemens(trajectory),
        "transference": (cations @ covariance @ charges) / current,
    }


def siemens(trajectory):
    """Return what turns e² Å²/ps into mS/cm."""
    volume = trajectory.volumes[0] * 1e-30
    return constants.e**2 * 1e-8 / (volume * constants.k * trajectory.temperature) * 10.0


def test_walkers_diffuse_as_they_were_told_to():
    trajectory, truth = salt(0)
    found = self_diffusion(trajectory, "Li+")
    assert found.coefficient.unit == "cm²/s"
    assert found.coefficient.value == pytest.approx(
        truth["diffusion"], abs=3.5 * found.coefficient.error
    )
    assert found.coefficient.relative < 0.15
    # The curve is the textbook's: the mean over all starting times.
    paths = trajectory.centres[:, :12]
    expected = [((paths[lag:] - paths[: len(paths) - lag]) ** 2).sum(-1).mean() for lag in (1, 7)]
    np.testing.assert_allclose(found.displacements[[1, 7]], expected, rtol=1e-3)
    assert found.times_ps[7] == pytest.approx(7.0)


def test_a_drift_of_the_whole_is_no_diffusion():
    trajectory, _ = salt(1)
    drift = np.arange(400)[:, None, None] * np.array([0.5, -0.2, 0.1])
    moved = replace(trajectory, positions=trajectory.positions + drift)
    still, drifting = (self_diffusion(t, "PF6-").coefficient for t in (trajectory, moved))
    assert drifting.value == pytest.approx(still.value, rel=1e-6)


def test_a_standing_crystal_is_refused():
    rng = np.random.default_rng(0)
    paths = rng.uniform(0, 30, (1, 30, 3)) + 0.1 * rng.standard_normal((500, 30, 3))
    with pytest.raises(TooShortError, match="would do"):
        self_diffusion(liquid(paths), "Ar")


def test_the_finite_box_correction_is_that_of_yeh_and_hummer():
    trajectory, _ = salt(0)
    shift = yeh_hummer_correction(trajectory, Estimate(0.85, 0.085, "cP"))
    # 2.837297 kT / (6 π η L) for 300 K, 0.85 mPa s and 3 nm, in SI.
    expected = 2.837297 * 1.380649e-23 * 300 / (6 * math.pi * 0.85e-3 * 3e-9) * 1e4
    assert shift.value == pytest.approx(expected, rel=1e-9)
    assert shift.relative == pytest.approx(0.1)
    plain = self_diffusion(trajectory, "Li+")
    found = self_diffusion(trajectory, "Li+", viscosity=Estimate(0.85, 0.085, "cP"))
    assert plain.corrected is None
    assert found.corrected.value == pytest.approx(found.coefficient.value + expected)
    assert found.corrected.error == pytest.approx(math.hypot(plain.coefficient.error, shift.error))


def test_the_correction_needs_a_cube_and_a_viscosity():
    trajectory, _ = salt(0)
    cells = trajectory.cells * [1.0, 1.0, 1.1]
    with pytest.raises(InvalidInputError, match="holds for cubes"):
        yeh_hummer_correction(replace(trajectory, cells=cells), Estimate(1.0, 0.1, "cP"))
    long = replace(trajectory, cells=cells)
    found = self_diffusion(long, "Li+", viscosity=Estimate(1.0, 0.1, "cP"))
    assert found.coefficient == self_diffusion(long, "Li+").coefficient
    assert found.corrected is None
    assert "holds for cubes" in found.refusal
    with pytest.raises(InvalidInputError, match="positive viscosity in cP; got 1"):
        yeh_hummer_correction(trajectory, Estimate(1.0, 0.1, "Pa s"))


@pytest.mark.parametrize("together", [0.0, 0.05])
def test_ions_conduct_by_how_they_move_together(together):
    trajectory, truth = salt(2, n_frames=2000, together=together)
    found = {
        "conductivity": conductivity_of_liquid(trajectory),
        "ideal": nernst_einstein_conductivity(trajectory),
    }
    for name, estimate in found.items():
        assert estimate.unit == "mS/cm"
        assert estimate.value == pytest.approx(truth[name], abs=3.5 * estimate.error)
    number = transference_number(trajectory)
    assert number.value == pytest.approx(truth["transference"], abs=3.5 * number.error)


def test_the_transference_number_is_that_of_onsagers_coefficients():
    trajectory, _ = salt(3, n_frames=3000)
    currents = np.diff(trajectory.centres, axis=0)
    plus, minus = currents[:, :12].sum(axis=1), currents[:, 12:24].sum(axis=1)
    # Walkers have no memory: products at equal times are all there is to sum.
    pp, mm, pm = (plus**2).sum(), (minus**2).sum(), (plus * minus).sum()
    found = transference_number(trajectory)
    assert found.value == pytest.approx((pp - pm) / (pp + mm - 2 * pm), abs=3.5 * found.error)


def test_transport_has_no_meaning_in_a_box_that_breathes_or_flows():
    trajectory, _ = salt(0)
    growth = np.linspace(1.0, 1.01, 400)[:, None, None]
    breathing = replace(trajectory, cells=trajectory.cells * growth)
    for compute in (
        lambda t: self_diffusion(t, "Li+"),
        conductivity_of_liquid,
        nernst_einstein_conductivity,
        transference_number,
    ):
        with pytest.raises(InvalidInputError, match="needs a constant volume"):
            compute(breathing)
        with pytest.raises(InvalidInputError, match="an acceleration of 2 Å/ps² drives a flow"):
            compute(replace(trajectory, acceleration=2.0))
        with pytest.raises(InvalidInputError, match="needs the temperature"):
            compute(replace(trajectory, temperature=None))


def test_conduction_needs_ions_and_diffusion_a_species_that_is_there():
    neutral = liquid(walks(np.random.default_rng(0), 200, np.full(10, 0.1)))
    with pytest.raises(InvalidInputError, match="conductivity needs ions; this liquid is Ar"):
        conductivity_of_liquid(neutral)
    with pytest.raises(InvalidInputError, match="no 'Li\\+' in this liquid of Ar"):
        self_diffusion(neutral, "Li+")


def test_a_short_trajectory_names_the_length_that_gives_the_error_asked_for():
    trajectory, _ = salt(4, n_pairs=2, n_frames=150)
    with pytest.raises(TooShortError, match=r"transference number is .* at most 0.01") as caught:
        transference_number(trajectory, largest_error=0.01)
    assert caught.value.needed_ps > 150
    with pytest.raises(TooShortError, match="needs at least 100 points") as caught:
        self_diffusion(trajectory.after(100.0), "Li+")
    assert caught.value.needed_ps == pytest.approx(100.0)


@pytest.mark.slow
def test_intervals_of_conduction_cover_the_truth_in_95_of_100_cases():
    hits = dict.fromkeys(("conductivity", "ideal", "transference", "diffusion"), 0)
    for seed in range(SEEDS):
        trajectory, truth = salt(seed, n_frames=300, together=0.03)
        estimates = {
            "conductivity": conductivity_of_liquid(trajectory, largest_error=1.0),
            "ideal": nernst_einstein_conductivity(trajectory, largest_error=1.0),
            "transference": transference_number(trajectory, largest_error=1.0),
            "diffusion": self_diffusion(trajectory, "Li+").coefficient,
        }
        for name, estimate in estimates.items():
            hits[name] += abs(estimate.value - truth[name]) < 1.96 * estimate.error
    assert min(hits.values()) >= FEWEST, hits
