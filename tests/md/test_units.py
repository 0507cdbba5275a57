"""Units and signs, and labels in a wrong unit, which are found without a false alarm."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.stress import full_3x3_to_voigt_6_stress
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md import units
from scikd.md.frames import from_ase, select
from scikd.md.readers import LabelKeys, read_frames
from scikd.md.units import check_magnitudes, convert, stress_from_virial, virial_from_stress


# CODATA 2018 to seven digits, but for what is exact.
@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1, "Ha", "eV", 27.211386),
        (1, "Ha", "kcal/mol", 627.5095),
        (1, "eV", "kJ/mol", 96.48533),
        (1, "kcal/mol", "eV", 0.04336410),
        (1, "kcal/mol", "kJ/mol", 4.184),
        (2, "Ry", "Hartree", 1),
        (1, "Ha/bohr", "eV/Å", 51.42207),
        (1, "kcal/mol/Å", "eV/Å", 0.04336410),
        (1, "kJ/mol/nm", "eV/Å", 1.0364270e-3),
        (1, "eV/Å^3", "GPa", 160.21766),
        (1, "Ha/bohr³", "GPa", 29421.02),
        (1, "kcal/mol/Å^3", "atm", 68568.4),
        (1, "kbar", "MPa", 100),
        (1, "atm", "Pa", 101325),
        (1, "D", "e*Å", 0.20819434),
        (1, "e bohr", "Debye", 2.541746),
        (1, "u/Å^3", "g/cm^3", 1.6605391),
        (1000, "kg/m³", "g cm⁻³", 1),
        (300, "K", "K", 300),
        (1, "ps", "fs", 1000),
        (1, "Å/fs", "m/s", 1e5),
        (1, "Å", "nm", 0.1),
    ],
)
def test_conversions_equal_published_factors(value, source, target, expected):
    assert convert(value, source, target) == pytest.approx(expected, rel=2e-6)


def test_constants_are_consistent():
    assert pytest.approx(14.399645, rel=1e-7) == units.COULOMB
    assert pytest.approx(332.0637, rel=1e-6) == units.COULOMB / units.KCAL_PER_MOL
    assert pytest.approx(27.211386, rel=1e-7) == units.HARTREE
    assert pytest.approx(0.5291772, rel=1e-7) == units.BOHR
    assert pytest.approx(0.2081943, rel=1e-6) == units.DEBYE
    assert pytest.approx(1.01325, rel=1e-12) == units.ATM / units.BAR
    assert pytest.approx(8.617333e-5, rel=1e-6) == units.KB
    assert pytest.approx(convert(1, "kJ/mol", "eV")) == units.KJ_PER_MOL
    assert pytest.approx(convert(1, "g/cm³", "u/Å³"), rel=1e-8) == units.GRAM_PER_CM3
    assert pytest.approx(convert(1, "mol/cm³", "1/Å³"), rel=1e-8) == units.GRAM_PER_CM3


def test_units_need_no_torch():
    code = "import sys, scikd.md.units; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


NAMES = st.sampled_from(["eV/Å", "Ha/bohr", "kcal/mol/Å", "kJ mol^-1 nm^-1", "Ry/a0", "meV/pm"])


@given(NAMES, NAMES, NAMES)
def test_conversions_go_back_and_through_a_third_unit(one, other, third):
    assert convert(convert(1.0, one, other), other, one) == pytest.approx(1)
    through = convert(convert(1.0, one, other), other, third)
    assert through == pytest.approx(convert(1.0, one, third))


def test_arrays_and_tensors_keep_their_kind():
    assert convert(np.ones(3, dtype=np.float32), "nm", "Å").dtype == np.float32
    assert convert(torch.ones(3), "nm", "Å").tolist() == [10.0] * 3


@pytest.mark.parametrize("text", ["eV/parsec", "", "/", "eV//Å", "eV^", "3 eV", "eV Å^x"])
def test_units_that_are_none_are_refused(text):
    with pytest.raises(InvalidInputError, match="Expected a unit made of .*; got"):
        convert(1.0, text, "eV")


def test_what_measures_something_else_is_refused():
    with pytest.raises(InvalidInputError, match="units of one quantity; got 'eV' and 'eV/Å'"):
        convert(1.0, "eV", "eV/Å")
    with pytest.raises(InvalidInputError, match="units of one quantity"):
        convert(1.0, "D", "e")


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_six_numbers_are_in_ases_order(kind):
    tensor = kind([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    six = full_3x3_to_voigt_6_stress(np.asarray(tensor)).tolist()
    assert tensor[..., *units.TO_VOIGT].tolist() == six
    assert kind(six)[..., units.FROM_VOIGT].tolist() == tensor.tolist()


@given(st.integers(0, 2**32 - 1))
def test_stress_and_virial_are_each_other_turned_round(seed):
    rng = np.random.default_rng(seed)
    stress, volume = rng.normal(size=(4, 6)), rng.uniform(1, 1e4, 4)
    np.testing.assert_allclose(
        stress_from_virial(virial_from_stress(stress, volume), volume), stress
    )


def test_the_virial_of_a_stretched_crystal_is_negative_and_its_stress_ases():
    atoms = bulk("Cu", a=3.9, cubic=True)  # 3.6 Å at rest, so this one pulls together
    atoms.calc = EMT()
    volume = atoms.get_volume()
    virial = virial_from_stress(atoms.get_stress(), volume)
    assert np.diag(virial).max() < -1.0
    np.testing.assert_allclose(stress_from_virial(virial, volume), atoms.get_stress(), atol=1e-15)
    np.testing.assert_allclose(from_ase(atoms).virial[0], virial, atol=1e-12)


# ------------------------------------------------------------------------------- wrong units

XTB = LabelKeys(energy="energy_xtb", forces="forces_xtb")
CARBONATES = "md/carbonate_xtb_clusters/"
REAL = {
    "md/ecemc_dft_periodic/ECEMC.xyz": None,
    CARBONATES + "solvent_xtb_train_200.xyz": XTB,
    CARBONATES + "solvent_xtb_test.xyz": XTB,
    CARBONATES + "solvent_train_molcrop.xyz": None,
    CARBONATES + "solvent_test_molcrop.xyz": None,
    CARBONATES + "volumeScan.xyz": None,
    "md/water_dft_pbe0_ts/data/data_0": None,
    "md/water_dft_pbe0_ts/data/data_1": None,
    "md/water_dft_pbe0_ts/data/data_2": None,
    "md/water_dft_pbe0_ts/data/data_3": None,
    "md/water_dft_pbe0_ts/dplr/train/data": None,
}


@pytest.mark.parametrize("name", REAL)
def test_there_is_no_false_alarm_on_real_data(scikd_data, name):
    batch = read_frames(scikd_data(name), keys=REAL[name], check=False)
    check_magnitudes(batch)
    # Nor on parts of it, down to single structures.
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 20) * 5:
        check_magnitudes(select(batch, rng.integers(0, batch.n_structures, size)))


@pytest.fixture(scope="module")
def clusters(scikd_data):
    return read_frames(scikd_data(CARBONATES + "solvent_xtb_train_200.xyz"), keys=XTB)


@pytest.fixture(scope="module")
def liquid(scikd_data):
    return read_frames(scikd_data("md/ecemc_dft_periodic/ECEMC.xyz"))


@pytest.mark.parametrize(
    ("label", "unit", "expected"),
    [
        ("positions", "nm", "positions: hydrogen is 0.11 .* as if positions were in nm"),
        ("positions", "bohr", "as if positions were in bohr"),
        ("forces", "kcal/mol/Å", "forces: .* as if they were in kcal/mol/Å"),
        ("forces", "Ha/bohr", "forces: .* as if they were in Ha/bohr"),
        ("forces", "kJ/mol/Å", "forces: .* as if they were in kJ/mol/Å"),
        ("forces", "kJ/mol/nm", "forces: .* as if they were in kJ/mol/nm"),
        ("forces", "Ry/bohr", "forces: .* as if they were in Ry/bohr or Ha/Å"),
        ("energy", "Ha", "energy: .* what GFN2-xTB gives in Hartree; expected eV"),
        ("energy", "kcal/mol", "energy: .* what GFN2-xTB gives in kcal/mol; expected eV"),
        ("energy", "kJ/mol", "energy: .* what GFN2-xTB gives in kJ/mol; expected eV"),
    ],
)
def test_labels_of_clusters_in_a_wrong_unit_are_found(clusters, label, unit, expected):
    ours = {"positions": "Å", "forces": "eV/Å", "energy": "eV"}[label]
    wrong = replace(clusters, **{label: convert(getattr(clusters, label), ours, unit)})
    with pytest.raises(InvalidInputError, match=expected):
        check_magnitudes(wrong)


def test_gradients_instead_of_forces_are_found(clusters):
    with pytest.raises(InvalidInputError, match="as if gradients were given, .* opposite sign"):
        check_magnitudes(replace(clusters, forces=-clusters.forces))


def test_every_fault_is_named_at_once(clusters):
    wrong = replace(clusters, forces=clusters.forces * 23, energy=clusters.energy / 27.2114)
    with pytest.raises(InvalidInputError, match=r"(?s)energy: .*forces: .*Name the units"):
        check_magnitudes(wrong)


@pytest.mark.parametrize("unit", ["GPa", "kbar", "bar", "Ha/bohr^3", "kcal/mol/Å^3"])
def test_a_stress_in_a_wrong_unit_is_found(liquid, unit):
    wrong = replace(liquid, stress=convert(liquid.stress, "eV/Å^3", unit))
    shown = unit.replace("^3", "³")
    with pytest.raises(InvalidInputError, match=f"stress: .* as if it were in {shown}"):
        check_magnitudes(wrong)


def test_a_virial_with_the_wrong_sign_or_given_as_a_stress_is_found(liquid):
    with pytest.raises(InvalidInputError, match="of the wrong sign"):
        check_magnitudes(replace(liquid, stress=-liquid.stress))
    virial = liquid.stress * liquid.volume[:, None]
    with pytest.raises(InvalidInputError, match=r"in eV, not divided by the volume\."):
        check_magnitudes(replace(liquid, stress=virial))
    with pytest.raises(InvalidInputError, match="not divided by the volume and of the wrong sign"):
        check_magnitudes(replace(liquid, stress=-virial))


def test_energies_of_dft_in_hartree_are_found(scikd_data):
    folder = scikd_data("md/b3lyp_clusters_byteff2")
    for path in sorted(folder.glob("byteff2_cluster-*.xyz")):
        batch = read_frames(path)
        lines = path.read_text(encoding="utf-8").splitlines()
        hartree = [float(line.split()[-1]) for line in lines if line.startswith("Iteration")]
        energy = torch.tensor(hartree, dtype=torch.float64)
        check_magnitudes(replace(batch, energy=energy * units.HARTREE))
        with pytest.raises(InvalidInputError, match="all-electron DFT gives in Hartree"):
            check_magnitudes(replace(batch, energy=energy))


def test_nothing_is_said_where_nothing_can_be_told():
    alone = Atoms("H", cell=[9] * 3)
    alone.info["energy"] = -0.5
    check_magnitudes(from_ase(alone))
    relaxed = [molecule("C2H6") for _ in range(10)]
    for atoms in relaxed:
        atoms.arrays["forces"] = np.zeros((8, 3))
    check_magnitudes(from_ase(relaxed))
    check_magnitudes(from_ase([molecule("CO2"), molecule("H2O")]))
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=0)
    crystal.calc = EMT()
    crystal.get_stress()
    check_magnitudes(from_ase(crystal))
