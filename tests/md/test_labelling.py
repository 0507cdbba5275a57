"""Labels by xTB and DFT: derivatives, sums, signs, units, and work that survives a kill."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress

from scikd.exceptions import InvalidInputError, TeacherError
from scikd.labels import LabelStore
from scikd.md import labelling
from scikd.md._chelpg import fit_charges, grid_around
from scikd.md.frames import from_ase
from scikd.md.labelling import DFTTeacher, XTBTeacher, label_structures
from scikd.md.molecules import get_species
from scikd.md.packing import pack_box, pack_cluster
from scikd.md.readers import read_frames
from scikd.md.teachers import Structures, StructureTeacher
from scikd.testing import check_teacher


def ion(name):
    atoms = get_species(name).conformers[0]
    atoms.info["total_charge"] = get_species(name).charge
    return atoms


def rattled(atoms, seed=0, amplitude=0.05):
    moved = atoms.copy()
    moved.positions += amplitude * np.random.default_rng(seed).normal(size=(len(atoms), 3))
    return moved


def energies(teacher, frames):
    return teacher.predict(frames)["energy"]


def numerical_forces(teacher, atoms, coordinates, step=1e-3):
    """Return -dE/dx by central differences of fourth order."""
    frames = []
    for i, k in coordinates:
        for n in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[i, k] += n * step
            frames.append(moved)
    values = energies(teacher, frames).reshape(-1, 4)
    return -(values @ np.array([1.0, -8.0, 8.0, -1.0])) / (12 * step)


def test_forces_of_xtb_are_the_derivative_of_its_energy():
    cluster = pack_cluster({"EC": 1, "PF6-": 1}, seed=2)
    teacher = XTBTeacher(accuracy=1e-2)
    coordinates = [(0, 0), (4, 1), (9, 2), (11, 0), (16, 1)]
    forces = teacher.predict([cluster])["forces"]
    assert forces.shape == (17, 3)
    expected = numerical_forces(teacher, cluster, coordinates)
    np.testing.assert_allclose([forces[c] for c in coordinates], expected, atol=2e-5)


def test_stress_of_xtb_is_the_derivative_of_its_energy_in_ases_order():
    box = pack_box("EC", n_molecules=2, density=0.9, seed=1)
    sheared = np.eye(3) + np.array([[0, 0.05, 0.02], [0, 0, -0.03], [0, 0, 0]])
    box.set_cell(box.cell @ sheared, scale_atoms=True)
    teacher = XTBTeacher("GFN1-xTB", properties=("energy", "stress"), accuracy=1e-2)
    stress = teacher.predict([box])["stress"][0]
    step, numerical = 1e-3, []
    for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        frames = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            moved = box.copy()
            moved.set_cell(box.cell @ strain, scale_atoms=True)
            frames.append(moved)
        up, down = energies(teacher, frames)
        numerical.append((up - down) / (2 * step) / box.cell.volume)
    np.testing.assert_allclose(stress, numerical, rtol=2e-4, atol=2e-6)
    assert np.abs(stress).max() > 1e-3
    assert voigt_6_to_full_3x3_stress(stress)[1, 2] == stress[3]


@pytest.mark.parametrize("name", ["Li+", "PF6-", "EC"])
def test_charges_sum_to_the_total(name):
    atoms = ion(name)
    for method in ("GFN2-xTB", "GFN1-xTB"):
        labels = XTBTeacher(method).predict([atoms])
        assert labels["charges"].sum() == pytest.approx(get_species(name).charge, abs=1e-8)
        assert labels["forces"].sum(axis=0) == pytest.approx(0.0, abs=1e-6)


def test_xtb_agrees_with_its_own_ase_calculator():
    tblite = pytest.importorskip("tblite.ase")
    atoms = rattled(ion("PF6-"))
    labels = XTBTeacher(accuracy=1.0).predict([atoms])
    atoms.calc = tblite.TBLite(method="GFN2-xTB", charge=-1, verbosity=0)
    assert labels["energy"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(labels["forces"], atoms.get_forces(), atol=1e-3)


def test_the_dipole_of_a_charged_structure_moves_with_the_origin_and_a_neutral_one_does_not():
    shift = np.array([1.0, -2.0, 0.5])
    for atoms, charge in ((ion("PF6-"), -1), (ion("EC"), 0)):
        moved = atoms.copy()
        moved.positions += shift
        first, second = XTBTeacher().predict([atoms, moved])["dipole"]
        np.testing.assert_allclose(second - first, charge * shift, atol=1e-5)


def test_the_dipole_points_from_minus_to_plus_in_e_angstrom():
    water = molecule("H2O")  # 1.85 D in the gas, 2.1 or so in xTB; hydrogens are positive
    teacher = XTBTeacher()
    labels = teacher.predict([water])
    assert np.linalg.norm(labels["dipole"][0]) == pytest.approx(1.85 * units.Debye, rel=0.3)
    toward_hydrogens = water.positions[1:].mean(axis=0) - water.positions[0]
    assert labels["dipole"][0] @ toward_hydrogens > 0
    assert labels["charges"][0] < 0 < labels["charges"][1]
    # xTB has atomic dipoles beside its charges, so that the sum over charges is another number.
    point = labels["charges"] @ water.positions
    assert np.linalg.norm(point - labels["dipole"][0]) > 0.02


def test_the_teacher_keeps_the_contract():
    frames = [rattled(ion("EC"), k) for k in range(3)] + [ion("Li+"), ion("PF6-")]
    teacher = XTBTeacher()
    check_teacher(teacher, frames)
    assert [q.unit for q in teacher.quantities] == ["eV", "eV/Å", "e", "e·Å", ""]
    others = [XTBTeacher("GFN1-xTB"), XTBTeacher(accuracy=1.0), XTBTeacher(properties=["energy"])]
    assert len({teacher.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert XTBTeacher(name="mine").fingerprint == teacher.fingerprint


# ------------------------------------------------------------------------------------------- DFT

SMALL = {"basis": "sto-3g", "grid_level": 1, "tolerance": 1e-10}


@pytest.fixture(scope="module")
def dft():
    pytest.importorskip("pyscf")
    return DFTTeacher("B3LYP", **SMALL)


def test_forces_of_dft_are_the_derivative_of_its_energy(dft):
    water = rattled(molecule("H2O"))
    forces = dft.predict([water])["forces"]
    teacher = DFTTeacher("B3LYP", properties=["energy"], **SMALL)
    expected = numerical_forces(teacher, water, [(0, 2), (1, 1)], step=5e-3)
    np.testing.assert_allclose([forces[0, 2], forces[1, 1]], expected, atol=2e-4)


def test_chelpg_charges_sum_to_the_total_and_give_the_dipole(dft):
    hydroxide = molecule("OH")
    hydroxide.info["total_charge"] = -1
    fluoride = Atoms("LiF", [[0, 0, 0], [0, 0, 1.56]])
    labels = dft.predict([hydroxide, fluoride])
    assert labels["charges"][:2].sum() == pytest.approx(-1.0, abs=1e-9)
    assert labels["charges"][2:].sum() == pytest.approx(0.0, abs=1e-9)
    assert labels["charges"][2] > 0.3
    # Charges that are fitted to the potential far away have about its dipole.
    point = labels["charges"][2:] @ fluoride.positions
    np.testing.assert_allclose(point, labels["dipole"][1], atol=0.1)
    assert np.linalg.norm(labels["dipole"][1]) > 0.3


def test_the_potential_that_is_fitted_is_that_of_pyscf(dft):
    gto, scf = pytest.importorskip("pyscf.gto"), pytest.importorskip("pyscf.scf")
    from scikd.md._chelpg import potential_of

    mol = gto.M(atom="O 0 0 0; H 0 0.76 0.59; H 0 -0.76 0.59", basis="sto-3g", verbose=0)
    density = scf.RHF(mol).run().make_rdm1()
    points = np.random.default_rng(0).uniform(-4, 4, (5, 3))
    potential = potential_of(mol, density, points)
    for point, value in zip(points / units.Bohr, potential, strict=True):
        with mol.with_rinv_origin(point):
            electrons = np.einsum("ij,ij", density, mol.intor("int1e_rinv"))
        nuclei = (mol.atom_charges() / np.linalg.norm(mol.atom_coords() - point, axis=1)).sum()
        assert value == pytest.approx(nuclei - electrons, abs=1e-10)


def test_a_fit_finds_the_charges_that_made_the_potential():
    rng = np.random.default_rng(3)
    atoms = molecule("CH3CH2OCH3")
    charges = rng.normal(scale=0.3, size=len(atoms))
    points = grid_around(atoms.positions, np.full(len(atoms), 1.5))
    distances = np.linalg.norm(points[:, None] - atoms.positions[None], axis=2)
    assert distances.min() > 1.5
    assert distances.min(axis=1).max() < 2.8
    potential = (charges / (distances / units.Bohr)).sum(axis=1)
    fitted = fit_charges(atoms.positions, points, potential, charges.sum())
    np.testing.assert_allclose(fitted, charges, atol=1e-8)
    elsewhere = fit_charges(atoms.positions, points, potential, charges.sum() + 1.0)
    assert elsewhere.sum() == pytest.approx(charges.sum() + 1.0)


@pytest.mark.slow
def test_the_published_level_labels_a_molecule():
    pytest.importorskip("pyscf")
    formaldehyde = molecule("H2CO")
    teacher = DFTTeacher()
    assert teacher.name == "B3LYP/def2-SVPD"
    labels = teacher.predict([formaldehyde])
    assert np.linalg.norm(labels["dipole"][0]) == pytest.approx(2.33 * units.Debye, rel=0.1)
    oxygen = int(np.flatnonzero(formaldehyde.numbers == 8)[0])
    assert -0.6 < labels["charges"][oxygen] < -0.3
    point = labels["charges"] @ formaldehyde.positions
    np.testing.assert_allclose(point, labels["dipole"][0], atol=0.03)


# --------------------------------------------------------------------------- many structures


def some_structures():
    return [rattled(ion(name), k) for k in range(3) for name in ("EC", "PF6-", "Li+", "DMC")]


def test_structures_are_labelled_in_order_whatever_their_size(tmp_path):
    structures = some_structures()
    for number, atoms in enumerate(structures):
        atoms.info["mine"] = number
        atoms.set_array("molecules", np.zeros(len(atoms), dtype=np.int64))
    done = label_structures(
        structures, XTBTeacher(), tmp_path / "store", batch_size=5, n_jobs=2,
        output=tmp_path / "frames.h5", progress=False,
    )  # fmt: skip
    assert done.failures == ()
    assert len(done.frames) == len(structures)
    for atoms, labelled in zip(structures, done.frames, strict=True):
        direct = XTBTeacher().predict([atoms])
        assert labelled.get_potential_energy() == pytest.approx(direct["energy"][0], abs=1e-9)
        np.testing.assert_allclose(labelled.get_forces(), direct["forces"], atol=1e-8)
        np.testing.assert_allclose(labelled.get_charges(), direct["charges"], atol=1e-8)
        np.testing.assert_allclose(labelled.get_dipole_moment(), direct["dipole"][0], atol=1e-8)
        assert labelled.info["mine"] == atoms.info["mine"]
        assert atoms.calc is None
    batch, stored = from_ase(done.frames), read_frames(tmp_path / "frames.h5")
    for name in ("positions", "energy", "forces", "charges", "dipole", "total_charge"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(stored, name))
    assert stored.total_charge.tolist() == [0.0, -1.0, 1.0, 0.0] * 3


def test_labels_that_are_there_are_only_read(tmp_path, monkeypatch):
    structures = some_structures()[:4]
    first = label_structures(structures, XTBTeacher(), tmp_path, progress=False)
    monkeypatch.setattr(XTBTeacher, "_label", None)
    again = label_structures(structures, XTBTeacher(), LabelStore(tmp_path), progress=False)
    np.testing.assert_array_equal(first.labels["forces"], again.labels["forces"])
    teacher = XTBTeacher()
    stored = LabelStore(tmp_path).read(teacher, Structures(structures))
    np.testing.assert_array_equal(stored["energy"], first.labels["energy"])


def test_what_the_labels_depend_on_is_in_the_fingerprint():
    def fingerprint(change):
        atoms = ion("EC")
        change(atoms)
        return Structures([atoms]).fingerprint

    changes = [
        lambda atoms: None,
        lambda atoms: atoms.positions.__setitem__((0, 0), 0.1),
        lambda atoms: atoms.info.update(total_charge=2),
        lambda atoms: atoms.numbers.__setitem__(0, 16),
        lambda atoms: (atoms.set_cell(np.eye(3) * 9), atoms.set_pbc(True)),
    ]
    assert len({fingerprint(change) for change in changes}) == len(changes)
    same = fingerprint(lambda atoms: atoms.info.update(comment="x"))
    assert same == fingerprint(changes[0])


class Stubborn(StructureTeacher):
    """A teacher that does not converge for one kind of structure."""

    fingerprint = "0" * 64

    def _label(self, atoms, charge):
        if len(atoms) == 1:
            raise ArithmeticError("no convergence in 1 iterations")
        return {"energy": 1.0 * len(atoms)}


def test_structures_that_do_not_converge_are_dropped_or_raised(tmp_path, caplog):
    structures = [ion("EC"), ion("Li+"), ion("PF6-"), ion("Li+")]
    teacher = Stubborn("stubborn", ["energy"])
    with pytest.raises(TeacherError, match=r"stubborn did not converge for 2 of 4 .*: 1 \(Li\), 3"):
        label_structures(structures, teacher, tmp_path, progress=False)
    assert "stubborn did not converge for Li: no convergence" in caplog.text
    done = label_structures(structures, teacher, tmp_path, failures="drop", progress=False)
    assert done.failures == (1, 3)
    assert [atoms.get_potential_energy() for atoms in done.frames] == [10.0, 7.0]
    assert isinstance(done.frames[0].calc, SinglePointCalculator)


def test_xtb_without_convergence_says_so(caplog):
    labels = XTBTeacher(max_iterations=1).predict([ion("EC"), ion("Li+")])
    assert labels["converged"][0] == 0.0
    assert labels["energy"][0] == 0.0
    assert "GFN2-xTB did not converge for" in caplog.text


def test_dft_without_convergence_says_so(dft):
    labels = DFTTeacher(properties=["energy"], max_iterations=1, basis="sto-3g").predict(
        [molecule("H2O")]
    )
    assert labels["converged"].tolist() == [0.0]


KILLED = """
    import sys
    from scikd.md.labelling import label_structures, XTBTeacher
    from ase.io import read
    class Slow(XTBTeacher):
        def _label(self, atoms, charge):
            import time
            time.sleep(0.3)
            return super()._label(atoms, charge)
    structures = read(sys.argv[1], ":")
    label_structures(structures, Slow(), sys.argv[2], batch_size=2, progress=False)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    from ase.io import read, write

    write(tmp_path / "in.extxyz", some_structures())
    structures = read(tmp_path / "in.extxyz", ":")
    command = [
        sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "in.extxyz", tmp_path / "store",
    ]  # fmt: skip
    process = subprocess.Popen([*map(str, command)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("store/*/chunks/*.npz"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = label_structures(structures, XTBTeacher(), tmp_path / "store", progress=False)
    assert 2 <= done.labels.batches_reused < 6
    whole = label_structures(structures, XTBTeacher(), tmp_path / "other", progress=False)
    for name in ("energy", "forces", "charges", "dipole"):
        np.testing.assert_allclose(done.labels[name], whole.labels[name], atol=1e-9)


def boxed(atoms, pbc):
    atoms.set_cell(np.eye(3) * 9)
    atoms.pbc = pbc
    return atoms


@pytest.mark.parametrize(
    ("teacher", "atoms", "message"),
    [
        (XTBTeacher(), lambda: Atoms("Li"), r"total charge of 0 has no even whole number"),
        (XTBTeacher(), lambda: Atoms("H2", info={"total_charge": 0.5}), "no even whole number"),
        (XTBTeacher(), lambda: boxed(ion("EC"), [True, True, False]), "mixed pbc"),
        (XTBTeacher(), lambda: boxed(ion("EC"), True), "no dipole; leave that out"),
        (XTBTeacher(properties=["stress"]), lambda: ion("EC"), "no stress; leave that out"),
        (DFTTeacher(), lambda: boxed(ion("EC"), True), "takes free clusters only"),
        (XTBTeacher(), Atoms, "Structure 1 has no atoms"),
        (XTBTeacher(), lambda: Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "1 has positions that"),
    ],
)
def test_structures_that_cannot_be_labelled_are_named_before_any_work(
    tmp_path, teacher, atoms, message
):
    good = ion("EC") if "stress" not in teacher.properties else boxed(ion("EC"), True)
    with pytest.raises(InvalidInputError, match=message):
        label_structures([good, atoms()], teacher, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: XTBTeacher("GFN0-xTB"), "Expected a method of GFN2-xTB, .*got 'GFN0-xTB'"),
        (lambda: XTBTeacher(properties=["virial"]), "Expected properties among"),
        (lambda: XTBTeacher(properties=[]), "Expected properties among"),
        (lambda: DFTTeacher(properties=["stress"]), "'charges', 'dipole'.* got .'stress'"),
        (
            lambda: label_structures([ion("EC")], XTBTeacher(), "x", failures="ignore"),
            "failures='raise' or 'drop'; got 'ignore'",
        ),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_without_what_computes_the_extra_is_named(monkeypatch):
    from scikd.exceptions import MissingExtraError

    def missing(module, *, extra, feature):
        raise MissingExtraError(f'{feature} needs {module}: pip install "scikd[{extra}]"')

    monkeypatch.setattr(labelling, "require", missing)
    with pytest.raises(MissingExtraError, match=r"Labelling by xTB needs tblite.*scikd\[md\]"):
        XTBTeacher().predict([ion("EC")])
    with pytest.raises(MissingExtraError, match=r"DFT labels needs pyscf.*scikd\[dft\]"):
        DFTTeacher()._label(ion("EC"), 0)
