"""Viscosity: of synthetic pressures and flows in closed form, and of the Lennard-Jones fluid."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from scipy import constants

from scikd.exceptions import InvalidInputError
from scikd.md import dynamics
from scikd.md.dynamics import DynamicsOptions, run_dynamics
from scikd.md.estimates import TooShortError
from scikd.md.records import PressureRecord
from scikd.md.trajectories import read_trajectory
from scikd.md.viscosity import running_integral, viscosity_of_flow, viscosity_of_fluctuations
from tests.reference.md_lennard_jones import LennardJones
from tests.reference.md_synthetic import integral_of, liquid, ornstein_uhlenbeck, walks

pytest.importorskip("stacie")


def maxwell_liquid(n_points=4000, memory=0.2, interval=0.01, spread=200.0):
    """Return a liquid whose shear stress forgets exponentially, and its viscosity in cP."""
    rng = np.random.default_rng(0)
    five = ornstein_uhlenbeck(rng, 5, n_points, memory, interval, spread**2)  # bar
    yz, xz, xy, first, second = five
    # A traceless diagonal of variance 4/3, with the right correlations, on a mean pressure.
    xx, zz = first + second / math.sqrt(3.0), -2.0 * second / math.sqrt(3.0)
    diagonal = np.stack([xx, xx - 2.0 * first, zz]) + 50.0
    pressures = np.stack([*diagonal, yz, xz, xy], axis=1)
    record = PressureRecord(interval, interval, pressures, np.zeros(n_points))
    trajectory = liquid(walks(rng, 3, np.full(4, 0.1)), pressures=record)
    volume = trajectory.volumes[0] * 1e-30
    integral = integral_of(memory, interval, spread**2) * 1e10 * 1e-12  # Pa² s
    return trajectory, volume / (constants.k * 300.0) * integral * 1e3


def test_the_viscosity_is_the_integral_of_the_stress():
    trajectory, truth = maxwell_liquid()
    found = viscosity_of_fluctuations(trajectory)
    assert found.coefficient.unit == "cP"
    assert found.coefficient.value == pytest.approx(truth, abs=3.5 * found.coefficient.error)
    assert found.coefficient.relative < 0.25
    # After four memories the running integral is there too.
    assert found.running[79] == pytest.approx(truth, rel=0.3)
    assert found.times_ps[79] == pytest.approx(0.79)


def test_the_running_integral_is_the_sum_of_products():
    series = np.random.default_rng(1).normal(size=(2, 500))
    times, found = running_integral(series, 0.5)
    centred = series - series.mean(axis=1, keepdims=True)
    products = [(centred[:, : 500 - lag] * centred[:, lag:]).mean() for lag in range(10)]
    expected = [0.5 * (sum(products[:k]) + sum(products[1 : k + 1])) * 0.5 for k in range(10)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(times, np.arange(10) * 0.5)


def test_a_record_is_needed_and_must_be_long_enough():
    trajectory, _ = maxwell_liquid()
    with pytest.raises(InvalidInputError, match="Run with a pressure_interval of about 5 fs"):
        viscosity_of_fluctuations(replace(trajectory, pressures=None))
    for n_points, text in ((500, "10 ps is the least"), (1500, "would do")):
        short = replace(trajectory, pressures=maxwell_liquid(n_points)[0].pressures)
        with pytest.raises(TooShortError, match=text):
            viscosity_of_fluctuations(short, largest_error=0.1)
    with pytest.raises(InvalidInputError, match="drives a flow"):
        viscosity_of_fluctuations(replace(trajectory, acceleration=1.0))


def flowing(speed, acceleration=0.5, n_points=3000):
    rng = np.random.default_rng(2)
    flow = speed + ornstein_uhlenbeck(rng, 1, n_points, 0.1, 0.01, 0.05**2)[0]
    record = PressureRecord(0.01, 0.01, np.zeros((n_points, 6)), flow)
    return liquid(walks(rng, 3, np.full(500, 0.1)), pressures=record, acceleration=acceleration)


def test_the_viscosity_of_a_flow_is_what_stokes_says():
    trajectory = flowing(0.2)
    found = viscosity_of_flow(trajectory)
    density = 500 * 39.95 * constants.atomic_mass / (30e-10) ** 3
    wave = 2 * math.pi / 30e-10
    expected = density * 0.5e14 / (20.0 * wave**2) * 1e3  # 0.2 Å/ps is 20 m/s
    assert found.coefficient.value == pytest.approx(expected, abs=4 * found.coefficient.error)
    assert 0.001 < found.coefficient.relative < 0.1


def test_a_flow_too_weak_or_too_fast_is_refused():
    with pytest.raises(TooShortError, match="or .* times the acceleration"):
        viscosity_of_flow(flowing(0.005), largest_error=0.05)
    with pytest.raises(InvalidInputError, match="flow is too fast"):
        viscosity_of_flow(flowing(2.0))
    with pytest.raises(InvalidInputError, match="needs a run with an acceleration"):
        viscosity_of_flow(flowing(0.2, acceleration=0.0))


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", [0.0, 0.15])
def test_the_lennard_jones_liquid_has_its_viscosity(tmp_path, monkeypatch, acceleration):
    """Near the triple point, at 0.8442 and 0.722 in reduced units, many have found 3.2 to 3.3."""
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
    epsilon, sigma, mass = 119.8 * units.kB, 3.405, 39.948
    atoms = bulk("Ar", "fcc", a=(4 / 0.8442) ** (1 / 3) * sigma, cubic=True) * (4, 4, 4)
    atoms.rattle(0.1, seed=0)
    options = DynamicsOptions(
        output=str(tmp_path),
        ensemble="nvt",
        temperature=0.722 * 119.8,
        timestep=5.0,
        time="400ps",
        equilibration="20ps",
        minimise_steps=0,
        thermostat_time=1000.0,
        log_interval=1000,
        trajectory_interval=5000,
        checkpoint_interval=20000,
        pressure_interval=2,
        acceleration=acceleration,
    )
    run_dynamics(options, atoms=atoms, calculator=LennardJones(epsilon, sigma, 3 * sigma))
    method = viscosity_of_flow if acceleration else viscosity_of_fluctuations
    found = method(read_trajectory(tmp_path)).coefficient
    seconds = 1e-15 / units.fs  # ASE's unit of time
    unit = math.sqrt(mass * epsilon) / sigma**2 * seconds * constants.e * 1e30 * 1e3  # cP
    assert found.value / unit == pytest.approx(3.25, abs=3.0 * found.error / unit)
    assert found.relative < 0.25
