"""Error bars that cover, and refusals that say which length would do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scikd.exceptions import InvalidInputError
from scikd.md.estimates import (
    Estimate,
    TooShortError,
    block_average,
    integrate_correlation,
    mean_of_series,
)
from tests.reference.md_synthetic import integral_of, ornstein_uhlenbeck

pytest.importorskip("stacie")

SEEDS = 120
# Of 120 intervals of 95 % that cover as they should, fewer than 107 do once in 500 such tests.
FEWEST = 107


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(1.23456, 0.0123, "g/cm³"), "1.235 ± 0.012 g/cm³"),
        (Estimate(1.83e-5, 0.021e-5, "cm²/s"), "(1.830 ± 0.021)e-5 cm²/s"),
        (Estimate(153.2, 25.0, "cP"), "153 ± 25 cP"),
        (Estimate(0.9999, 0.0, "g/cm³"), "0.9999 g/cm³"),
        (Estimate(2.0, math.nan), "2"),
    ],
)
def test_an_estimate_shows_two_digits_of_its_error(estimate, text):
    assert str(estimate) == text


def test_a_quotient_adds_relative_errors_in_quadrature():
    found = Estimate(6.0, 0.3).over(Estimate(2.0, 0.24), "x")
    assert (found.value, found.unit) == (3.0, "x")
    assert found.relative == pytest.approx(math.hypot(0.05, 0.12))
    assert Estimate(2.0, 0.5).scaled(-2.0, "y") == Estimate(-4.0, 1.0, "y")


def test_the_integral_scales_with_the_series_and_its_time():
    series = ornstein_uhlenbeck(np.random.default_rng(0), 6, 1000, 2.0)
    one = integrate_correlation(series, 1.0)
    assert one.value == pytest.approx(integral_of(2.0), abs=4.0 * one.error)
    other = integrate_correlation(3.0 * series + 1e3, 0.5)
    assert other.value == pytest.approx(4.5 * one.value, rel=1e-6)
    assert other.error == pytest.approx(4.5 * one.error, rel=1e-5)


def test_the_mean_has_the_error_of_its_correlated_points():
    series = ornstein_uhlenbeck(np.random.default_rng(1), 1, 4000, 5.0)[0] + 7.0
    found = mean_of_series(series, 2.0, unit="bar")
    assert found.unit == "bar"
    assert found.value == series.mean()
    assert found.error == pytest.approx(math.sqrt(2.0 * integral_of(5.0) / 4000), rel=0.5)


def test_a_constant_series_has_a_mean_without_error():
    assert mean_of_series(np.full(200, 1.1), 1.0) == Estimate(pytest.approx(1.1), 0.0)


def test_a_few_values_have_a_mean_whose_error_nobody_knows():
    mean, error = block_average([1.0, 2.0] * 3 + [3.0])
    assert mean == pytest.approx(12.0 / 7.0)
    assert math.isnan(error)
    assert block_average([1.0, 2.0] * 4)[1] > 0.0
    assert block_average(np.full(100, 0.1) * 3)[1] == 0.0
    with pytest.raises(InvalidInputError, match="at least one value"):
        block_average([])


# ----------------------------------------------------------------------------------------- refusals


def test_too_few_points_are_refused_with_the_length_that_would_do():
    with pytest.raises(
        TooShortError, match=r"D needs at least 100 .* got 99, .* 50 ps would do"
    ) as e:
        integrate_correlation(np.random.default_rng(0).normal(size=99), 0.5, what="D")
    assert e.value.needed_ps == pytest.approx(50.0)


def test_what_only_tells_of_rattling_is_refused():
    """White noise hides no memory, but a stress may, which nobody can see in a picosecond."""
    series = np.random.default_rng(6).normal(size=(5, 1000))
    with pytest.raises(TooShortError, match=r"The viscosity .*: 5 ps .* 10 ps is the least") as e:
        integrate_correlation(series, 0.005, what="The viscosity")
    assert e.value.needed_ps == 10.0
    assert integrate_correlation(series, 0.01).error > 0


@pytest.mark.parametrize(
    ("interval", "needed", "more_often"),
    [(0.005, 10.0, False), (0.15, 15.0, False), (0.5, 50.0, True)],
)
def test_a_series_of_that_length_is_not_refused_for_its_length_again(interval, needed, more_often):
    rng = np.random.default_rng(9)
    with pytest.raises(TooShortError, match="at least 100 points") as caught:
        integrate_correlation(rng.normal(size=50), interval)
    assert caught.value.needed_ps == pytest.approx(needed)
    assert f"{needed:g} ps would do" in str(caught.value)
    assert ("stored more often" in str(caught.value)) is more_often
    n_points = round(needed / interval)
    assert integrate_correlation(rng.normal(size=(6, n_points)), interval).error > 0


def test_a_memory_that_has_not_ended_is_refused_and_the_named_length_does():
    rng = np.random.default_rng(2)
    with pytest.raises(TooShortError, match=r"memory of the series has not ended. About") as caught:
        integrate_correlation(ornstein_uhlenbeck(rng, 60, 600, 20.0), 1.0)
    needed = math.ceil(caught.value.needed_ps)
    assert 600 < needed < 6000
    longer = ornstein_uhlenbeck(rng, 60, 2 * needed, 20.0)
    found = integrate_correlation(longer, 1.0)
    assert found.value == pytest.approx(integral_of(20.0), abs=4.0 * found.error)


def test_an_error_beyond_the_largest_is_refused_and_the_named_length_does():
    rng = np.random.default_rng(3)
    with pytest.raises(TooShortError, match=r"known to \d+% from 200 ps; at most 10%") as caught:
        integrate_correlation(rng.normal(size=(3, 200)), 1.0, largest_error=0.1)
    n_points = math.ceil(2 * caught.value.needed_ps)
    assert integrate_correlation(rng.normal(size=(3, n_points)), 1.0, largest_error=0.1).error > 0


def test_a_mean_of_few_memories_is_refused():
    series = ornstein_uhlenbeck(np.random.default_rng(4), 1, 3000, 300.0)[0]
    with pytest.raises(TooShortError, match="would do"):
        mean_of_series(series, 1.0)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("size", [2.0, 9.0])
def test_a_drifting_series_is_refused(power, size):
    drift = size * np.linspace(0.0, 1.0, 2000) ** power
    series = np.random.default_rng(5).normal(size=2000) + drift
    with pytest.raises(InvalidInputError, match="The density is not stationary: its mean is"):
        mean_of_series(series, 1.0, what="The density")


def test_a_series_of_few_stretches_is_not_taken_for_a_drift():
    drifts = 0
    for seed in range(200):
        series = ornstein_uhlenbeck(np.random.default_rng(seed), 1, 1000, 50.0)[0]
        try:
            mean_of_series(series, 1.0)
        except TooShortError:
            continue
        except InvalidInputError:
            drifts += 1
    assert drifts <= 4


@pytest.mark.parametrize(
    ("series", "interval", "text"),
    [
        (np.zeros(200), 1.0, "a constant one"),
        (np.full(200, np.nan), 1.0, "finite numbers"),
        (np.arange(200.0), 0.0, "positive time between two points"),
    ],
)
def test_series_that_make_no_sense_are_refused(series, interval, text):
    with pytest.raises(InvalidInputError, match=text):
        integrate_correlation(series, interval)


# ----------------------------------------------------------------------------------------- coverage


def covered(estimates, truth):
    """Return in how many cases the true value lies within 1.96 errors."""
    return sum(abs(found.value - truth) < 1.96 * found.error for found in estimates)


def caged(rng, n_series, n_points):
    """Return velocities of walkers that rattle in moving cages: their spectrum rises from zero."""
    rattle = ornstein_uhlenbeck(rng, n_series, n_points + 1, 5.0, variance=15.0)
    walk = rng.standard_normal((n_series, n_points)) * math.sqrt(2.0)
    return walk + np.diff(rattle, axis=1)


def two_memories(rng):
    fast, slow = ((2.0, 1.0), (20.0, 0.1))
    parts = (ornstein_uhlenbeck(rng, 5, 4000, m, variance=v) for m, v in (fast, slow))
    return sum(parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.standard_normal((3, 400)) * math.sqrt(2.0), 1.0),
        (lambda rng: rng.standard_normal((300, 150)) * math.sqrt(2.0), 1.0),
        (lambda rng: ornstein_uhlenbeck(rng, 5, 2000, 5.0), integral_of(5.0)),
        (lambda rng: ornstein_uhlenbeck(rng, 150, 1000, 5.0), integral_of(5.0)),
        (lambda rng: caged(rng, 3, 2000), 1.0),
        (lambda rng: caged(rng, 150, 2000), 1.0),
        (two_memories, integral_of(2.0) + integral_of(20.0, variance=0.1)),
    ],
    ids=["walk", "many-walks", "memory", "many-memories", "cage", "many-cages", "two-memories"],
)
def test_intervals_of_integrals_cover_the_truth_in_95_of_100_cases(draw, truth):
    found = [
        integrate_correlation(draw(np.random.default_rng(seed)), 1.0, largest_error=math.inf)
        for seed in range(SEEDS)
    ]
    assert covered(found, truth) >= FEWEST
    # Nor are they so wide that they say nothing.
    scatter = np.std([f.value for f in found])
    assert np.median([f.error for f in found]) < 2.5 * scatter


def slow_under_fast(rng, n_points):
    """Return what changes sign at every step, over a slow memory of small weight."""
    fast, slow = (
        ornstein_uhlenbeck(rng, 1, n_points, memory)[0] for memory in (3.0, n_points / 80)
    )
    return fast * (-1.0) ** np.arange(n_points) + 0.3 * slow


@pytest.mark.parametrize(
    ("draw", "least"),
    [
        (lambda rng: rng.standard_normal(20), 93),
        (lambda rng: ornstein_uhlenbeck(rng, 1, 20, 1.0)[0], 93),
        (lambda rng: ornstein_uhlenbeck(rng, 1, 100, 3.0)[0], 93),
        (lambda rng: ornstein_uhlenbeck(rng, 1, 200, 10.0)[0], 90),
        (lambda rng: ornstein_uhlenbeck(rng, 1, 200, 20.0)[0], 80),
        (lambda rng: ornstein_uhlenbeck(rng, 1, 1000, 20.0)[0], 93),
        (lambda rng: slow_under_fast(rng, 1000), 93),
    ],
    ids=["noise", "10-stretches", "17", "10-of-200", "5", "25", "slow-under-fast"],
)
def test_two_block_errors_around_a_mean_hold_the_truth(draw, least):
    series = [draw(np.random.default_rng(seed)) for seed in range(300)]
    found = np.array([block_average(one) for one in series])
    assert np.mean(abs(found[:, 0]) < 2.0 * found[:, 1]) >= least / 100
    # Nor are they so wide that they say nothing.
    assert np.median(found[:, 1]) < 1.5 * found[:, 0].std()


@pytest.mark.slow
@pytest.mark.parametrize(("n_points", "memory"), [(400, 1.0), (2000, 10.0), (1000, 40.0)])
def test_intervals_of_means_cover_the_truth_in_95_of_100_cases(n_points, memory):
    found = []
    for seed in range(SEEDS):
        series = ornstein_uhlenbeck(np.random.default_rng(seed), 1, n_points, memory)[0]
        try:
            found.append(mean_of_series(series, 1.0))
        except TooShortError:
            continue
    # The longest memory is near what is refused.
    assert len(found) >= 0.5 * SEEDS
    assert covered(found, 0.0) >= FEWEST / SEEDS * len(found)
