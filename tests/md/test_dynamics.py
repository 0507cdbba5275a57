"""Dynamics: right ensembles, exact restarts, and a good word when a run goes wrong."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.fd import calculate_numerical_forces
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.constraints import FixAtoms
from ase.io import read
from scipy.stats import chi2, gamma, kstest

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError, TeacherError
from scikd.md import _run, dynamics
from scikd.md._integrators import degrees_of_freedom, density_of, temperature_of
from scikd.md._start import load_or_pack, move_mass_to_hydrogen
from scikd.md._trajectory import COLUMNS, Recorder
from scikd.md.calculators import ForceFieldCalculator
from scikd.md.dynamics import DynamicsError, DynamicsOptions, run_dynamics
from scikd.md.dynamics_report import energy_drift, plot_dynamics, read_log
from scikd.md.estimates import block_average
from scikd.md.molecules import parse_mixture
from scikd.md.repulsion import ZBL
from scikd.md.units import BAR
from tests.reference.md_lennard_jones import LennardJones
from tests.reference.md_models import force_field, structure

ROOT = Path(__file__).resolve().parents[2]
EPSILON, SIGMA = 119.8 * units.kB, 3.405  # argon


def argon(repeat=3, density=0.82, seed=0):
    """Return a slightly disordered crystal of a density in units of sigma."""
    edge = (4 / density) ** (1 / 3) * SIGMA
    atoms = bulk("Ar", "fcc", a=edge, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.1, seed=seed)
    return atoms


def lennard_jones(atoms, shifted=True):
    """Return a calculator whose cutoff fits the box."""
    return LennardJones(EPSILON, SIGMA, min(3 * SIGMA, 0.49 * atoms.cell[0, 0]), shifted)


def options(folder, **changes):
    settings = {
        "ensemble": "nvt",
        "temperature": 100.0,
        "timestep": 5.0,
        "time": "1ps",
        "equilibration": "0ps",
        "minimise_steps": 0,
        "log_interval": 10,
        "trajectory_interval": 50,
        "checkpoint_interval": 50,
    }
    return DynamicsOptions(output=str(folder), **(settings | changes))


@pytest.fixture(autouse=True)
def _no_figure(request, monkeypatch):
    """Drawing takes longer than most runs here."""
    if "figure" not in request.node.name:
        monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")


class IdealGas(Calculator):
    """Atoms that do not see each other."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {
            "energy": 0.0,
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": np.zeros(6),
        }


# ------------------------------------------------------------------------------- the oracle itself


def test_the_reference_fluid_has_the_forces_and_pressure_of_its_energy():
    atoms = argon()
    atoms.calc = lennard_jones(atoms)
    numeric = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 5])
    np.testing.assert_allclose(atoms.get_forces()[[0, 5]], numeric, rtol=1e-6)
    energies = []
    for sign in (1, -1):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * (1 + sign * 1e-5), scale_atoms=True)
        scaled.calc = LennardJones(EPSILON, SIGMA, atoms.calc.cutoff, shifted=True)
        energies.append(scaled.get_potential_energy())
    expected = (energies[0] - energies[1]) / 6e-5 / atoms.get_volume()
    assert atoms.get_stress()[:3].mean() == pytest.approx(expected, rel=1e-6)


def test_the_reference_fluid_is_that_of_ase():
    atoms = argon()
    mine = LennardJones(EPSILON, SIGMA, 7.0)
    atoms.calc = mine
    forces = atoms.get_forces()
    atoms.calc = AseLennardJones(epsilon=EPSILON, sigma=SIGMA, rc=7.0)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-12)


# -------------------------------------------------------------------------------------- ensembles


def test_energy_is_conserved_and_the_log_says_so(tmp_path):
    atoms = argon()
    result = run_dynamics(
        options(tmp_path, ensemble="nve", time="2ps", timestep=2.0),
        atoms=atoms,
        calculator=lennard_jones(atoms),
    )
    log = read_log(result.log)
    np.testing.assert_array_equal(log["conserved_eV"], log["total_eV"])
    kinetic = (log["total_eV"] - log["potential_eV"]).std()
    assert log["conserved_eV"].std() < 1e-3 * kinetic
    assert len(log) == 101
    assert log["time_ps"].iloc[-1] == pytest.approx(2.0)
    assert log["density_g_cm3"].iloc[0] == pytest.approx(density_of(atoms))
    momentum = result.atoms.get_momenta().sum(axis=0)
    assert np.abs(momentum).max() < 1e-10


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_what_thermostat_and_barostat_put_in_is_booked(tmp_path, ensemble):
    atoms = argon()
    result = run_dynamics(
        options(tmp_path, ensemble=ensemble, time="2ps", timestep=2.0, barostat_time=500.0),
        atoms=atoms,
        calculator=lennard_jones(atoms),
    )
    log = read_log(result.log)
    exchanged = np.ptp(log["total_eV"])
    assert exchanged > 0.2, "the baths exchange energy"
    assert np.ptp(log["conserved_eV"]) < 0.05 * exchanged
    assert (np.ptp(log["volume_A3"]) > 1.0) == (ensemble == "npt")


@pytest.mark.slow
def test_an_ideal_gas_has_the_volumes_of_the_isobaric_ensemble(tmp_path):
    """V is distributed as V^N exp(-P V / kT): a gamma distribution."""
    atoms, temperature, pressure = argon(2), 300.0, 100.0
    n, scale = len(atoms), 300.0 * units.kB / (pressure * BAR)
    atoms.set_cell(np.eye(3) * ((n + 1) * scale) ** (1 / 3), scale_atoms=True)
    result = run_dynamics(
        options(
            tmp_path,
            ensemble="npt",
            temperature=temperature,
            pressure=pressure,
            compressibility=1.0 / pressure,
            barostat_time=500.0,
            thermostat_time=50.0,
            time="300ps",
            timestep=10.0,
            log_interval=10,
            trajectory_interval=10**6,
            checkpoint_interval=10**6,
            min_density=0.0,
            max_displacement=100.0,
        ),
        atoms=atoms,
        calculator=IdealGas(),
    )
    volumes = read_log(result.log)["volume_A3"].to_numpy()[50:]
    mean, error = block_average(volumes)
    assert abs(mean - (n + 1) * scale) < 4 * error
    assert error < 0.02 * mean, "or the test says nothing"
    thinned = volumes[::30]
    assert kstest(thinned, gamma(n + 1, scale=scale).cdf).pvalue > 1e-3


@pytest.mark.slow
def test_temperatures_have_the_canonical_distribution(tmp_path):
    atoms = argon(2, density=0.7)
    result = run_dynamics(
        options(tmp_path, time="60ps", timestep=10.0, thermostat_time=50.0, log_interval=5),
        atoms=atoms,
        calculator=lennard_jones(atoms),
    )
    dof = degrees_of_freedom(atoms)
    assert dof == 3 * len(atoms) - 3
    temperatures = read_log(result.log)["temperature_K"].to_numpy()[40:]
    mean, error = block_average(temperatures)
    assert abs(mean - 100.0) < 4 * error
    assert error < 2.0
    assert kstest(temperatures[::12] * dof / 100.0, chi2(dof).cdf).pvalue > 1e-3


class Diatomics(Calculator):
    """Stiff molecules that do not see each other: period 11 fs, as of a bond to hydrogen."""

    implemented_properties = ("energy", "forces", "stress")
    stiffness, length = 33.8, 1.1

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions = self.atoms.positions
        bonds = positions[1::2] - positions[::2]
        stretch = np.linalg.norm(bonds, axis=1, keepdims=True) - self.length
        pull = self.stiffness * stretch * bonds / (stretch + self.length)
        stress = bonds.T @ pull / self.atoms.get_volume()
        self.results = {
            "energy": 0.5 * self.stiffness * np.sum(stretch**2),
            "forces": np.stack([pull, -pull], axis=1).reshape(-1, 3),
            "stress": stress.ravel()[[0, 4, 8, 5, 2, 1]],
        }


@pytest.mark.parametrize(("n_atoms", "level"), [(60, "WARNING"), (500, "INFO")])
def test_a_box_too_small_for_its_mixture_is_said(caplog, n_atoms, level):
    caplog.set_level("INFO", "scikd")
    load_or_pack("EC:DMC:LiPF6 10:10:1", n_atoms, None, 0, loosely=True)
    (record,) = [r for r in caplog.records if r.getMessage().startswith("packing ")]
    assert record.levelname == level


@pytest.mark.slow
def test_molecules_are_not_heated_by_the_scaling_of_their_bonds(tmp_path):
    """The cell scales atoms, and so bonds; on average that must put nothing in."""
    n, volume, rng = 64, 40.0, np.random.default_rng(0)
    edge = (n * volume) ** (1 / 3)
    direction = rng.normal(size=(n, 3))
    bonds = 1.1 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    centres = rng.random((n, 3)) * edge
    positions = np.stack([centres - bonds / 2, centres + bonds / 2], axis=1).reshape(-1, 3)
    atoms = Atoms(
        f"H{2 * n}", positions, cell=np.eye(3) * edge, pbc=True, masses=np.full(2 * n, 2.0)
    )
    run = options(
        tmp_path,
        ensemble="npt",
        temperature=300.0,
        pressure=units.kB * 300.0 / volume / BAR,
        timestep=1.0,
        equilibration="5ps",
        time="60ps",
        barostat_time=200.0,
        min_density=0.0,
        trajectory_interval=10**6,
        checkpoint_interval=10**6,
    )
    result = run_dynamics(run, atoms=atoms, calculator=Diatomics())
    temperature, error = result.averages["temperature_K"]
    assert abs(temperature - 300.0) < 4 * error
    assert error < 2.5
    mean, error = (x / (n + 1) for x in block_average(_volumes(result)))
    assert abs(mean - volume) < 4 * error
    assert error < 3.0
    assert abs(result.drift[0]) < 4 * result.drift[1] + 1.0


@pytest.mark.slow
def test_argon_has_the_density_that_the_literature_gives(tmp_path):
    """T* = 0.85, P* = 0.55355: rho* = 0.820 (NIST, Monte Carlo, cutoff 3 sigma and tail)."""
    atoms = argon(4, density=0.75)
    atoms.calc = None
    run = options(
        tmp_path / "hot",
        temperature=3 * EPSILON / units.kB,
        time="8ps",
        trajectory_interval=10**6,
        log_interval=100,
    )
    liquid = run_dynamics(
        run, atoms=atoms, calculator=LennardJones(EPSILON, SIGMA, 3 * SIGMA)
    ).atoms
    result = run_dynamics(
        options(
            tmp_path / "npt",
            ensemble="npt",
            temperature=0.85 * EPSILON / units.kB,
            pressure=0.55355 * EPSILON / SIGMA**3 / BAR,
            timestep=10.0,
            equilibration="40ps",
            time="300ps",
            thermostat_time=500.0,
            barostat_time=1000.0,
            compressibility=2e-4,
            trajectory_interval=10**6,
            checkpoint_interval=5000,
        ),
        atoms=liquid,
        calculator=LennardJones(EPSILON, SIGMA, 3 * SIGMA),
    )
    mean, error = (x * SIGMA**3 * len(atoms) for x in block_average(1 / _volumes(result)))
    assert error < 0.004
    assert abs(mean - 0.820) < 3 * error + 0.002
    pressure, pressure_error = result.averages["pressure_bar"]
    assert abs(pressure * BAR * SIGMA**3 / EPSILON - 0.55355) < 0.1, pressure_error


def _volumes(result):
    log = read_log(result.log)
    return log["volume_A3"][log["time_ps"] >= 0].to_numpy()


def test_a_free_cluster_neither_drifts_nor_turns(tmp_path):
    atoms = molecule("C6H6")
    atoms.positions *= 3.0
    atoms.numbers[:] = 18
    result = run_dynamics(
        options(tmp_path, temperature=10.0, timestep=2.0),
        atoms=atoms,
        calculator=AseLennardJones(epsilon=EPSILON, sigma=SIGMA, rc=100.0),
    )
    assert degrees_of_freedom(atoms) == 3 * 12 - 6
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-9
    assert np.abs(result.atoms.get_angular_momentum()).max() < 1e-6
    log = read_log(result.log)
    assert log["density_g_cm3"].isna().all()
    assert log["temperature_K"].iloc[0] == pytest.approx(10.0)
    assert "density_g_cm3" not in result.averages


# ------------------------------------------------------------------------------------- the stages


def test_at_constant_volume_the_box_is_brought_to_its_density(tmp_path):
    atoms = argon(density=0.7)
    target = density_of(atoms) * 1.1
    result = run_dynamics(
        options(tmp_path, density=target, equilibration="0.495ps", time="0.1ps"),
        atoms=atoms,
        calculator=lennard_jones(argon(density=0.82)),
    )
    log = read_log(result.log)
    assert density_of(result.atoms) == pytest.approx(target, rel=1e-12)
    assert log["time_ps"].iloc[0] == pytest.approx(-0.495)
    assert log["density_g_cm3"].is_monotonic_increasing
    with pytest.raises(InvalidInputError, match="give a time of equilibration"):
        run_dynamics(
            options(tmp_path / "b", density=target), atoms=atoms, calculator=lennard_jones(atoms)
        )


def test_energy_is_constant_after_equilibration_at_constant_temperature(tmp_path):
    atoms = argon()
    result = run_dynamics(
        options(tmp_path, ensemble="nve", equilibration="0.5ps", time="1ps", timestep=2.0),
        atoms=atoms,
        calculator=lennard_jones(atoms),
    )
    log = read_log(result.log)
    before, after = log[log["time_ps"] < 0], log[log["time_ps"] >= 0]
    assert np.ptp(before["total_eV"]) > 10 * np.ptp(after["total_eV"])
    assert np.ptp(log["conserved_eV"]) < 0.1 * np.ptp(before["total_eV"])


def test_minimisation_takes_the_strain_out_of_a_bad_start(tmp_path):
    atoms = argon()
    atoms.positions[0] += [1.2, 1.2, 0.0]
    calculator = lennard_jones(atoms)
    with pytest.raises(DynamicsError, match="eV/Å|K .limit"):
        run_dynamics(options(tmp_path / "a", max_force=1.0), atoms=atoms, calculator=calculator)
    run_dynamics(
        options(tmp_path / "b", max_force=1.0, minimise_steps=50),
        atoms=atoms,
        calculator=calculator,
    )


def test_hydrogen_takes_mass_from_what_it_is_bonded_to():
    water = molecule("H2O")
    box = Atoms(cell=np.eye(3) * 5.0, pbc=True) + water
    box.positions += 4.9  # bonds through the boundary
    box.wrap()
    total = box.get_masses().sum()
    move_mass_to_hydrogen(box, 3.0)
    masses = box.get_masses()
    np.testing.assert_allclose(masses[box.numbers == 1], 3.0)
    assert masses.sum() == pytest.approx(total)
    assert masses[0] == pytest.approx(15.999 - 2 * (3.0 - 1.008))
    with pytest.raises(InvalidInputError, match="leaves its neighbours heavier"):
        move_mass_to_hydrogen(molecule("CH4"), 4.0)


def test_a_structure_is_read_from_a_file_and_a_mixture_is_packed(tmp_path):
    atoms = argon(2, density=0.7)
    atoms.info["total_charge"] = 0
    atoms.write(tmp_path / "start.extxyz")
    run = options(tmp_path / "run", liquid=str(tmp_path / "start.extxyz"), time="50fs")
    result = run_dynamics(run, calculator=lennard_jones(atoms))
    assert len(result.atoms) == len(atoms)
    with pytest.raises(StorageError, match="no file .*lost.xyz"):
        run_dynamics(
            replace(run, liquid="lost.xyz", output=str(tmp_path / "c")), calculator=IdealGas()
        )
    packed = run_dynamics(
        options(
            tmp_path / "packed",
            liquid="EC:DMC 1:1",
            n_atoms=60,
            ensemble="npt",
            timestep=0.1,
            time="1fs",
        ),
        calculator=IdealGas(),
    ).atoms
    assert packed.get_chemical_symbols().count("C") >= 9
    assert density_of(packed) == pytest.approx(parse_mixture("EC:DMC 1:1").density, rel=0.1)
    assert packed.pbc.all()
    assert "molecules" in packed.arrays


# ------------------------------------------------------------------------------ restart and trouble


def contents(folder):
    """Return the bytes that must not depend on interruptions."""
    found = Recorder(Path(folder)).load()
    assert found is not None
    snapshot, _ = found
    arrays = {name: values.tobytes() for name, values in snapshot.atoms.arrays.items()}
    state = {k: v for k, v in snapshot.state.items() if k != "settings"}
    files = [(Path(folder) / name).read_bytes() for name in ("log.csv", "trajectory.extxyz")]
    return arrays, snapshot.atoms.cell[:].tobytes(), state, files


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, ensemble):
    atoms = argon(2, density=0.7)
    whole = options(tmp_path / "whole", ensemble=ensemble, equilibration="0.1ps", time="0.4ps")
    run_dynamics(whole, atoms=atoms, calculator=lennard_jones(atoms))
    for time_, seed in (("0ps", 0), ("0.2ps", 1), ("0.4ps", 2)):
        np.random.seed(seed)  # noqa: NPY002 - nothing may depend on it
        part = replace(whole, output=str(tmp_path / "parts"), time=time_)
        result = run_dynamics(part, atoms=atoms, calculator=lennard_jones(atoms))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    again = run_dynamics(part, atoms=atoms, calculator=lennard_jones(atoms))
    assert math.isnan(again.ns_per_day), "it was complete"
    assert again.averages == result.averages
    before = contents(tmp_path / "parts")
    with pytest.raises(InvalidInputError, match="it has done .* steps; got one of"):
        run_dynamics(replace(part, time="0.3ps"), atoms=atoms, calculator=lennard_jones(atoms))
    assert contents(tmp_path / "parts") == before


LONG = {
    "ensemble": "npt",
    "equilibration": "0.2ps",
    "time": "3ps",
    "minimise_steps": 5,
    "log_interval": 3,
    "trajectory_interval": 7,
    "checkpoint_interval": 20,
}
KILLED = """
import sys
sys.path.insert(0, {root!r})
from tests.md.test_dynamics import LONG, argon, lennard_jones, options, run_dynamics

atoms = argon(2, density=0.7)
run_dynamics(options({folder!r}, **LONG), atoms=atoms, calculator=lennard_jones(atoms))
"""


def start(folder):
    code = KILLED.format(root=str(ROOT), folder=str(folder))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    )


def wait_for(process, folder, size):
    """Wait until the log is so long."""
    for _ in range(3000):
        if (folder / "log.csv").exists() and (folder / "log.csv").stat().st_size > size:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    pytest.fail("the run wrote no log")


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, number):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    wait_for(process, killed, 4000)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
    with (killed / "log.csv").open("a") as log:
        log.write("12,0.3")  # a torn line, as a kill leaves it
    step = Recorder(killed).load()[0].state["step"]
    assert 0 < step < 640
    if number != signal.SIGKILL:
        assert len((killed / "log.csv").read_text().splitlines()) == 2 + 1 + step // 3
    atoms = argon(2, density=0.7)
    for folder in (killed, whole):
        run_dynamics(options(folder, **LONG), atoms=atoms, calculator=lennard_jones(atoms))
    assert contents(killed) == contents(whole)


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_force_fields_go_on_to_the_same_last_digit(tmp_path, engine):
    """In single precision the order of a sum shows, and with it which neighbour list was used."""
    model = force_field(repulsion=ZBL(), dtype=torch.float32, scale=0.05)
    atoms = structure(40, width=9.0)
    run = options(
        tmp_path / "whole",
        ensemble="npt",
        timestep=1.0,
        time="90fs",
        minimise_steps=30,
        checkpoint_interval=7,
        trajectory_interval=15,
        compressibility=1e-4,
        max_temperature=1e5,
    )
    made = ForceFieldCalculator(model, engine=engine, skin=0.7)
    run_dynamics(run, atoms=atoms, calculator=made)
    assert 2 < made._engine().verlet.rebuilds < 60, "or the lists tell nothing"
    for duration in ("0fs", "24fs", "66fs", "90fs"):
        part = replace(run, output=str(tmp_path / "parts"), time=duration)
        other = ForceFieldCalculator(model, engine=engine, skin=0.7)
        run_dynamics(part, atoms=atoms, calculator=other)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_mesh_does_not_make_the_whole_drift(tmp_path):
    class Pushed(IdealGas):
        def calculate(self, *arguments, **keywords):
            super().calculate(*arguments, **keywords)
            self.results["forces"] += [1e-3, 0.0, 0.0]

    result = run_dynamics(options(tmp_path), atoms=argon(2), calculator=Pushed())
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-10


def test_a_run_is_not_continued_with_other_settings(tmp_path):
    atoms, run = argon(2, density=0.7), options(tmp_path, time="0.1ps")
    run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))
    with pytest.raises(
        InvalidInputError, match="temperature was 100.0, now 120.0; seed was 0, now 1"
    ):
        run_dynamics(
            replace(run, temperature=120.0, seed=1), atoms=atoms, calculator=lennard_jones(atoms)
        )


def test_a_run_is_not_continued_with_other_atoms_nor_begun_with_constraints(tmp_path):
    run = options(tmp_path, time="0.01ps")
    run_dynamics(run, atoms=argon(2), calculator=IdealGas())
    other = argon(2)
    other.symbols[-1] = "Ne"
    with pytest.raises(InvalidInputError, match="holds a run of Ar32; got Ar31Ne.* another output"):
        run_dynamics(run, atoms=other, calculator=IdealGas())
    held = argon(2)
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(InvalidInputError, match="without constraints; got FixAtoms"):
        run_dynamics(replace(run, output=str(tmp_path / "held")), atoms=held, calculator=IdealGas())


def test_a_checkpoint_keeps_the_total_charge(tmp_path):
    atoms = argon(2)
    atoms.info = {"charge": np.int64(1), "exact": np.bool_(True), "level": "none"}
    atoms.info["total_charge"] = np.array(-1.0)
    run = options(tmp_path, time="0.01ps")
    run_dynamics(run, atoms=atoms, calculator=IdealGas())
    again = run_dynamics(replace(run, time="0.02ps"), calculator=IdealGas())
    assert again.atoms.info == {"charge": 1, "exact": True, "level": "none", "total_charge": -1.0}


def test_notes_on_a_structure_do_not_tell_a_continuation_from_a_run_in_one(tmp_path):
    atoms = argon(2, density=0.7)
    atoms.info = {"field": np.arange(3.0), "names": ["a", "b"], "small": np.float32(0.1), "n": 2}
    whole = options(tmp_path / "whole", time="0.5ps")
    run_dynamics(whole, atoms=atoms, calculator=lennard_jones(atoms))
    for length in ("0.25ps", "0.5ps"):
        part = replace(whole, output=str(tmp_path / "parts"), time=length)
        run_dynamics(part, atoms=atoms, calculator=lennard_jones(atoms))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert read(tmp_path / "whole" / "trajectory.extxyz").info["n"] == 2


def test_damage_is_told(tmp_path):
    atoms, run = argon(2, density=0.7), options(tmp_path, time="0.1ps")
    run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))
    log = tmp_path / "log.csv"
    log.write_bytes(log.read_bytes()[:-10])
    with pytest.raises(CorruptFileError, match="log.csv has .* bytes, and had"):
        run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))
    array = next((tmp_path / "checkpoint").glob("*.safetensors"))
    array.write_bytes(array.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="cut short or edited"):
        run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))


def test_files_of_somebody_else_are_not_overwritten(tmp_path):
    (tmp_path / "log.csv").write_text("my,own\n1,2\n")
    atoms = argon(2, density=0.7)
    with pytest.raises(InvalidInputError, match="log.csv, not of a run"):
        run_dynamics(options(tmp_path), atoms=atoms, calculator=lennard_jones(atoms))
    assert (tmp_path / "log.csv").read_text() == "my,own\n1,2\n"


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    (tmp_path / "log.csv").write_text("step,time_ps,temperature_K,density_g_cm3,pressure_bar,")
    with pytest.raises(InvalidInputError, match="not of a run"):
        run_dynamics(options(tmp_path), atoms=argon(2), calculator=IdealGas())
    (tmp_path / "log.csv").write_text(",".join(COLUMNS) + "\n0,")
    result = run_dynamics(options(tmp_path, time="0.1ps"), atoms=argon(2), calculator=IdealGas())
    assert len(read_log(result.log)) == 3


def test_two_processes_do_not_share_a_folder(tmp_path):
    pytest.importorskip("fcntl")
    with (
        Recorder(tmp_path),
        pytest.raises(InvalidInputError, match="Another process is running in"),
    ):
        run_dynamics(options(tmp_path), atoms=argon(2), calculator=IdealGas())
    run_dynamics(options(tmp_path, time="0.1ps"), atoms=argon(2), calculator=IdealGas())


def test_a_full_disk_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    atoms, run = argon(2, density=0.7), options(tmp_path / "full", time="1ps")
    written = 0

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            nonlocal written
            written += len(content)
            if written > 6000:
                self.file.write(content[:7])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = Recorder.open

    def open_full(self, lengths=None, *, header=""):
        opened(self, None, header=header)
        self._files = {name: Full(file) for name, file in self._files.items()}

    monkeypatch.setattr(Recorder, "open", open_full)
    with pytest.raises(StorageError, match="No space left on device. Free some space"):
        run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))
    monkeypatch.undo()
    assert (tmp_path / "full" / "checkpoint").exists()
    run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))
    whole = replace(run, output=str(tmp_path / "whole"))
    run_dynamics(whole, atoms=atoms, calculator=lennard_jones(atoms))
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


class Breaking(LennardJones):
    """Goes wrong after some steps, in a way of choice."""

    def __init__(self, *arguments, how, after=30):
        super().__init__(*arguments)
        self.how, self.after, self.calls = how, after, 0

    def calculate(self, *arguments, **keywords):
        super().calculate(*arguments, **keywords)
        self.calls += 1
        if self.calls > self.after:
            self.how(self.results)


def not_finite(results):
    results["forces"] = results["forces"] * np.nan


def strong(results):
    results["forces"] = results["forces"].copy()
    results["forces"][3] = [300.0, 0.0, 0.0]


def repelled(results):
    results["stress"] = -np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def hot(results):
    results["forces"] = results["forces"] * 200.0


def failed(results):
    raise InvalidInputError("Atoms are too close.")


def overflowing(results):
    raise OverflowError("math range error")


def not_converged(results):
    raise CalculationFailed("SCF did not converge")


def of_a_member(results):
    raise TeacherError("Teacher 'a' raised") from ZeroDivisionError("division by zero")


def unusable(results):
    raise TeacherError("Teacher 'a' returned something unusable: forces are NaN")


def lost(results):
    """Spoil the cell by way of the barostat, so that anything may be raised afterwards."""
    results["stress"] = np.full(6, np.nan)


@pytest.mark.parametrize(
    ("how", "limits", "words"),
    [
        (not_finite, {}, "not finite"),
        (strong, {"max_temperature": 1e9}, "force on atom 3 is 300 eV/Å"),
        (repelled, {"max_temperature": 1e9}, "density has fallen to"),
        (hot, {"max_force": 1e9, "max_displacement": 1e9}, "temperature is"),
        (hot, {"max_displacement": 0.05, "max_temperature": 1e9}, "in one step"),
        (failed, {}, "Atoms are too close"),
        (overflowing, {}, "OverflowError: math range"),
        (not_converged, {}, "SCF did not converge"),
        (of_a_member, {}, "Teacher 'a' raised"),
        (unusable, {}, "forces are NaN"),
        (lost, {}, ""),
    ],
)
def test_a_run_that_blows_up_stops_with_its_last_good_frame(tmp_path, how, limits, words):
    atoms = argon(2, density=0.7)
    calculator = Breaking(EPSILON, SIGMA, 5.5, True, how=how)
    with pytest.raises(DynamicsError, match=f"blew up at step .*{words}"):
        run_dynamics(
            options(tmp_path, ensemble="npt", **limits), atoms=atoms, calculator=calculator
        )
    good = read(tmp_path / "last_good.extxyz")
    assert np.isfinite(good.positions).all()
    assert temperature_of(good, degrees_of_freedom(good)) < 1000.0
    assert len(read_log(tmp_path)) >= 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        TypeError("a bug"),
        StorageError("the disk is full"),
        KeyboardInterrupt(),
        TeacherError("Teacher 'a' raised MemoryError"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_blow_up_is_passed_on_and_the_run_can_go_on(tmp_path, error):
    if isinstance(error, TeacherError):
        error.__cause__ = MemoryError("no room")

    def fail(results):
        raise error

    atoms, run = argon(2, density=0.7), options(tmp_path / "cut", time="0.3ps")
    good = LennardJones(EPSILON, SIGMA, 5.5, True)
    broken = Breaking(EPSILON, SIGMA, 5.5, True, how=fail, after=60)
    with pytest.raises(type(error)) as caught:
        run_dynamics(run, atoms=atoms, calculator=broken)
    assert caught.value is error
    assert not (tmp_path / "cut" / "last_good.extxyz").exists()
    assert len(read_log(tmp_path / "cut")) >= 2
    run_dynamics(run, atoms=atoms, calculator=good)
    whole = replace(run, output=str(tmp_path / "whole"))
    run_dynamics(whole, atoms=atoms, calculator=good)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": "20"}, "a time with its unit, such as '20ps'"),
        ({"time": "-1ps"}, "a time with its unit"),
        ({"timestep": 0.0}, "timestep > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature > 0, got nan"),
        ({"ensemble": "nph"}, "ensemble 'nve' or 'nvt' or 'npt', got 'nph'"),
        ({"log_interval": 0, "n_atoms": -3}, "n_atoms > 0, got -3; log_interval > 0"),
        ({"hydrogen_mass": 0.0}, "hydrogen_mass > 0 or None"),
        ({"minimise_steps": -1, "seed": -2}, "minimise_steps >= 0, got -1; seed >= 0, got -2"),
        ({"min_density": 1.0}, "min_density from 0 to below 1, got 1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(InvalidInputError, match=words):
        DynamicsOptions(**changes)


def test_a_run_that_is_refused_leaves_no_folder(tmp_path):
    folder = tmp_path / "outer" / "inner"
    run = options(folder, ensemble="npt")
    with pytest.raises(InvalidInputError, match="periodic in three directions"):
        run_dynamics(run, atoms=molecule("H2O"), calculator=IdealGas())
    with pytest.raises(StorageError, match="There is no file"):
        run_dynamics(replace(run, liquid="absent.xyz"), calculator=IdealGas())
    assert not folder.parent.exists()
    folder.mkdir(parents=True)
    with pytest.raises(StorageError, match="There is no file"):
        run_dynamics(replace(run, liquid="absent.xyz"), calculator=IdealGas())
    assert folder.exists(), "somebody else made it"


def test_a_symbol_that_is_no_element_is_named(tmp_path):
    path = tmp_path / "start.xyz"
    path.write_text("2\n\nXx 0 0 0\nH 0 0 1\n")
    with pytest.raises(StorageError, match=r"start.xyz: 'Xx' is not the symbol of an element\. "):
        run_dynamics(options(tmp_path / "run", liquid=str(path)), calculator=IdealGas())


def test_each_stage_is_said(tmp_path, caplog):
    atoms = argon(2)
    run = options(tmp_path, minimise_steps=3, time="20fs", equilibration="10fs")
    with caplog.at_level(logging.INFO, "scikd.md"):
        run_dynamics(run, atoms=atoms, calculator=lennard_jones(atoms))
    stages = [record.message for record in caplog.records]
    assert stages[0] == "minimising 32 atoms, at most 3 steps"
    assert re.match(r"minimised in [0-3] steps to [\d.]+ eV/Å on an atom", stages[1])
    assert stages[2] == "equilibrating for 10fs, then 20fs of nvt dynamics in steps of 5 fs"


def test_a_structure_that_does_not_fit_the_settings_is_refused(tmp_path):
    cluster = molecule("H2O")
    with pytest.raises(InvalidInputError, match="periodic in three directions"):
        run_dynamics(options(tmp_path, ensemble="npt"), atoms=cluster, calculator=IdealGas())
    with pytest.raises(InvalidInputError, match="no density for a structure without a box"):
        run_dynamics(options(tmp_path, density=1.0), atoms=cluster, calculator=IdealGas())
    with pytest.raises(InvalidInputError, match="at least two atoms"):
        run_dynamics(options(tmp_path), atoms=Atoms("Ar"), calculator=IdealGas())


# ------------------------------------------------------------------------------------- the report


def test_drift_is_a_slope_with_an_error():
    rng = np.random.default_rng(0)
    times = np.arange(1000) * 0.1
    slopes = np.array(
        [energy_drift(times, 0.02 * times + rng.normal(size=1000)) for _ in range(200)]
    )
    assert slopes[:, 0].mean() == pytest.approx(0.02, abs=2e-4)
    assert slopes[:, 0].std() == pytest.approx(slopes[:, 1].mean(), rel=0.2)
    assert math.isnan(energy_drift([0.0, 1.0], [0.0, 1.0])[0])


def test_a_figure_is_drawn(tmp_path):
    atoms = argon(2, density=0.7)
    for ensemble, frame, calculator in (
        ("npt", atoms, lennard_jones(atoms)),
        ("nvt", molecule("H2O"), IdealGas()),
    ):
        run = options(tmp_path / ensemble, ensemble=ensemble, timestep=1.0, time="0.1ps")
        result = run_dynamics(run, atoms=frame, calculator=calculator)
        assert result.figure.read_bytes()[:4] == b"\x89PNG"
        assert result.figure.stat().st_size > 10_000
    assert plot_dynamics(read_log(result.log), 3)[:4] == b"\x89PNG"


def test_the_report_says_where_everything_lies(tmp_path):
    atoms = argon(2, density=0.7)
    result = run_dynamics(
        options(tmp_path, ensemble="npt", time="2ps"), atoms=atoms, calculator=lennard_jones(atoms)
    )
    text = result.summary()
    for part in ("g/cm³", " K,", "bar", "ns/day", "log.csv", "trajectory.extxyz", "dynamics.png"):
        assert part in text
    frames = read(result.trajectory, ":")
    assert [frame.info["time_ps"] for frame in frames] == pytest.approx(np.arange(9) * 0.25)
    with pytest.raises(StorageError, match="Check the path"):
        read_log(tmp_path / "nothing.csv")
    with pytest.raises(CorruptFileError, match="no log of a run"):
        read_log(result.trajectory)


def test_progress_is_told_in_ns_per_day(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(_run, "REPORT_SECONDS", 0.0)
    atoms = argon(2, density=0.7)
    with caplog.at_level("INFO", logger="scikd.md.dynamics"):
        run_dynamics(options(tmp_path, time="0.1ps"), atoms=atoms, calculator=lennard_jones(atoms))
    assert "0.10 of 0.10 ps" in caplog.text
    assert "ns/day" in caplog.text
