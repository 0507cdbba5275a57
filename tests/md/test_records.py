"""The pressure tensor of a run: written as it is, and as often as was asked."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError
from scikd.md import _run, dynamics
from scikd.md._integrators import degrees_of_freedom, pressure_of
from scikd.md._recording import RECORD, measure
from scikd.md.dynamics import DynamicsOptions, run_dynamics
from scikd.md.dynamics_report import read_log
from scikd.md.perturbation import CosineAcceleration
from scikd.md.records import PressureRecord, read_pressures
from scikd.md.units import BAR
from tests.reference.md_lennard_jones import LennardJones

EPSILON, SIGMA = 119.8 * units.kB, 3.405  # argon


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch):
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")


def argon():
    atoms = bulk("Ar", "fcc", a=(4 / 0.82) ** (1 / 3) * SIGMA, cubic=True) * (3, 3, 3)
    atoms.rattle(0.1, seed=0)
    return atoms


def lennard_jones():
    return LennardJones(EPSILON, SIGMA, 0.49 * argon().cell[0, 0], shifted=True)


def options(folder, **changes):
    settings = {
        "ensemble": "nvt",
        "temperature": 100.0,
        "timestep": 5.0,
        "time": "0.5ps",
        "equilibration": "0.1ps",
        "minimise_steps": 0,
        "log_interval": 4,
        "trajectory_interval": 50,
        "checkpoint_interval": 30,
        "pressure_interval": 4,
    }
    return DynamicsOptions(output=str(folder), **(settings | changes))


def test_a_run_records_the_pressures_that_its_log_averages(tmp_path):
    run_dynamics(options(tmp_path), atoms=argon(), calculator=lennard_jones())
    record, log = read_pressures(tmp_path), read_log(tmp_path)
    logged = log[log["time_ps"] >= 0]
    assert record.interval_ps == pytest.approx(0.02)
    assert record.start_ps == pytest.approx(logged["time_ps"].iloc[0])
    assert record.duration_ps == pytest.approx(len(logged) * 0.02)
    # The log spreads the heat over the free momenta, the tensor over what the atoms have.
    volume, n = logged["volume_A3"].iloc[0], 108
    shift = n * units.kB * logged["temperature_K"] / volume / BAR * (1.0 - (3 * n - 3) / (3 * n))
    expected = logged["pressure_bar"] - shift
    np.testing.assert_allclose(
        record.pressures_bar[:, :3].mean(axis=1), expected, rtol=1e-4, atol=0.1
    )


def test_the_tensor_is_that_of_ase():
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    atoms.set_momenta(np.random.default_rng(0).normal(size=(32, 3)))
    row = measure(atoms)
    expected = -atoms.get_stress(include_ideal_gas=True) / BAR
    np.testing.assert_allclose(row[:6], expected, rtol=1e-10)
    assert np.mean(row[:3]) == pytest.approx(
        pressure_of(atoms, degrees_of_freedom(atoms) + 3), rel=1e-10
    )


def test_the_flow_is_the_cosine_part_of_the_velocities():
    rng = np.random.default_rng(0)
    atoms = Atoms("Ar4000", rng.uniform(0, 20, (4000, 3)), cell=[20, 20, 20], pbc=True)
    velocities = np.zeros((4000, 3))
    velocities[:, 0] = 0.3 * np.cos(2 * np.pi * atoms.positions[:, 2] / 20)  # Å/ps
    atoms.set_velocities(velocities / (1e3 * units.fs))
    atoms.calc = LennardJones(0.0, 1.0, 2.0)
    assert measure(atoms)[6] == pytest.approx(0.3, rel=0.05)


def test_a_run_that_was_stopped_and_resumed_has_the_same_record(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_dynamics(options(whole), atoms=argon(), calculator=lennard_jones())
    measured = _run.measure

    def stop(atoms, calls=[]):  # noqa: B006 - counts
        calls.append(1)
        if len(calls) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return measured(atoms)

    monkeypatch.setattr(_run, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        run_dynamics(options(parts), atoms=argon(), calculator=lennard_jones())
    monkeypatch.setattr(_run, "measure", measured)
    with (parts / RECORD).open("ab") as file:
        file.write(b"torn")  # what a kill may leave
    run_dynamics(options(parts), calculator=lennard_jones())
    assert (whole / RECORD).read_bytes() == (parts / RECORD).read_bytes()


def test_without_an_interval_or_a_box_nothing_is_recorded(tmp_path):
    run_dynamics(
        options(tmp_path / "a", pressure_interval=0, time="0.05ps"),
        atoms=argon(),
        calculator=lennard_jones(),
    )
    assert not (tmp_path / "a" / RECORD).exists()
    free = bulk("Cu", cubic=True) * (2, 2, 2)
    free.pbc = False
    run_dynamics(options(tmp_path / "b", time="0.05ps"), atoms=free, calculator=EMT())
    assert not (tmp_path / "b" / RECORD).exists()
    with pytest.raises(StorageError, match="records them if its pressure_interval is not 0"):
        read_pressures(tmp_path / "b")


def test_a_run_from_before_there_were_records_goes_on(tmp_path):
    settings = options(tmp_path, pressure_interval=0)
    run_dynamics(settings, atoms=argon(), calculator=lennard_jones())
    run = _run.Run(settings, None, lennard_jones())
    old = {k: v for k, v in run.settings.items() if k not in ("pressure_interval", "acceleration")}
    run._check_settings(old)
    driven = _run.Run(replace(settings, acceleration=1.0), type("R", (), {"folder": "x"}), EMT())
    with pytest.raises(InvalidInputError, match="acceleration was 0.0, now 1.0"):
        driven._check_settings(old)


def test_files_that_are_no_record_are_refused(tmp_path):
    path = tmp_path / RECORD
    for content in (b"", b"step,time\n1,2\n", b'{"format": "other"}\n', b"\xff\xfe\n"):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match="no record of pressures"):
            read_pressures(path)
    about = {
        "format": "scikd.pressures",
        "schema": 2,
        "columns": [],
        "interval_ps": 1,
        "start_ps": 0,
    }
    path.write_text(json.dumps(about) + "\n")
    with pytest.raises(CorruptFileError, match="that this scikd reads"):
        read_pressures(path)


def test_a_record_is_cut_where_it_is_asked_to_begin():
    record = PressureRecord(0.5, 0.5, np.arange(24.0).reshape(4, 6), np.arange(4.0))
    later = record.after(1.2)
    assert (later.start_ps, len(later.flow)) == (1.5, 2)
    assert later.pressures_bar[0, 0] == 12.0
    with pytest.raises(InvalidInputError, match=r"shape \(n, 6\)"):
        PressureRecord(0.5, 0.5, np.zeros((3, 6)), np.zeros(4))


# ------------------------------------------------------------------------------ the driving force


def test_the_driving_force_is_a_cosine_of_given_amplitude():
    atoms = argon()
    quiet = lennard_jones()
    atoms.calc = quiet
    forces, stress = atoms.get_forces(), atoms.get_stress()
    atoms.calc = CosineAcceleration(lennard_jones(), 2.0)
    extra = atoms.get_forces() - forces
    np.testing.assert_array_equal(atoms.get_stress(), stress)
    np.testing.assert_array_equal(extra[:, 1:], 0.0)
    # One step of 1 fs at 2 Å/ps² makes 2e-3 Å/ps.
    gained = extra[:, 0] / atoms.get_masses() * units.fs * (1e3 * units.fs)
    wave = np.cos(2 * np.pi * atoms.positions[:, 2] / atoms.cell[2, 2])
    np.testing.assert_allclose(gained, 2e-3 * wave, rtol=1e-9, atol=1e-12)


def test_the_driving_force_needs_a_box_across_z():
    atoms = bulk("Cu")
    atoms.calc = CosineAcceleration(EMT(), 1.0)
    with pytest.raises(InvalidInputError, match="third edge lies along z"):
        atoms.get_forces()


def test_the_driving_force_passes_on_what_the_calculator_knows():
    calculator = lennard_jones()
    calculator.fingerprint = "abc"
    driven = CosineAcceleration(calculator, 1.0)
    assert driven.fingerprint == "abc"
    assert not hasattr(driven, "restore_neighbors")


def test_only_a_thermostat_takes_the_heat_of_a_flow_away(tmp_path):
    with pytest.raises(InvalidInputError, match="ensemble 'nvt' with an acceleration, got 'npt'"):
        options(tmp_path, acceleration=1.0, ensemble="npt")
    with pytest.raises(InvalidInputError, match="acceleration >= 0, got -1.0"):
        options(tmp_path, acceleration=-1.0)
