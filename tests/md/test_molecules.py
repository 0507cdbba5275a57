"""Species and mixtures: shapes are what their names say, and ratios mean what they say."""

import math

import numpy as np
import pytest
from ase.data import atomic_masses
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md.frames import find_molecules
from scikd.md.molecules import SALTS, SPECIES, Mixture, get_species, parse_mixture

FORMULAS = {
    "DEC": "C5H10O3",
    "DMC": "C3H6O3",
    "DME": "C4H10O2",
    "EC": "C3H4O3",
    "EMC": "C4H8O3",
    "Li+": "Li",
    "PC": "C4H6O3",
    "PF6-": "F6P",
    "VC": "C3H2O3",
}


def test_every_species_has_its_formula():
    formulas = {name: get_species(name).conformers[0].get_chemical_formula() for name in SPECIES}
    assert formulas == FORMULAS


@pytest.mark.parametrize("name", SPECIES)
def test_shapes_are_whole_molecules_around_their_centre_of_mass(name):
    species = get_species(name)
    for shape in species.conformers:
        assert find_molecules(shape).max() == 0
        assert np.abs(shape.get_center_of_mass()).max() < 1e-4
        assert shape.numbers.tolist() == species.conformers[0].numbers.tolist()
        electrons = shape.numbers.sum() - species.charge
        assert electrons % 2 == 0
    assert species.molar_mass == pytest.approx(atomic_masses[species.conformers[0].numbers].sum())


def test_the_ester_comes_in_its_two_conformers_and_the_ion_is_an_octahedron():
    assert len(get_species("DMC").conformers) == 2
    shape = get_species("PF6-").conformers[0]
    distances = shape.get_distances(int(np.flatnonzero(shape.numbers == 15)[0]), shape.numbers == 9)
    assert np.ptp(distances) < 1e-2
    assert distances.mean() == pytest.approx(1.64, abs=0.04)


def test_densities_are_those_of_measured_liquids(scikd_data):
    rows = scikd_data("md/thermoml_liquids/full_filtered_data.csv")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(rows)
    for name, component in (
        ("DMC", "dimethyl carbonate"),
        ("DEC", "diethyl carbonate"),
        ("DME", "1,2-dimethoxyethane"),
    ):
        near = table[
            (table["components"] == component) & (abs(table["Temperature, K"] - 298.15) < 0.5)
        ]["Mass density, kg/m3"].dropna()
        assert len(near) > 0
        assert get_species(name).density == pytest.approx(near.median() / 1000, rel=0.01)


def test_the_caller_may_change_what_he_gets():
    get_species("EC").conformers[0].positions[:] = 0.0
    assert np.ptp(get_species("EC").conformers[0].positions) > 1.0


def test_moles_and_masses():
    masses = {name: get_species(name).molar_mass for name in ("EC", "EMC")}
    by_mass = parse_mixture("EC:EMC 3:7 by mass")
    expected = (3 / masses["EC"]) / (3 / masses["EC"] + 7 / masses["EMC"])
    assert by_mass["EC"] == pytest.approx(expected, rel=1e-12)
    assert dict(by_mass) == pytest.approx(dict(parse_mixture("EC:EMC 3:7", basis="mass")))
    assert dict(by_mass) == pytest.approx(dict(parse_mixture("EC:EMC 3:7 (weight)")))
    assert dict(parse_mixture("EC:DMC 1:1")) == {"EC": 0.5, "DMC": 0.5}
    assert dict(parse_mixture(" EC ")) == {"EC": 1.0}


def test_a_salt_is_its_ions():
    mixture = parse_mixture("EC:DMC:LiPF6 5:7:1")
    assert dict(mixture) == pytest.approx({"EC": 5 / 14, "DMC": 0.5, "Li+": 1 / 14, "PF6-": 1 / 14})
    same = parse_mixture("EC:DMC:Li+:PF6- 5:7:1:1")
    assert dict(same) == pytest.approx(dict(mixture))
    mass = sum(get_species(ion).molar_mass * n for ion, n in SALTS["LiPF6"].items())
    by_mass = parse_mixture("EC:LiPF6 9:1 by mass")
    ratio = (9 / get_species("EC").molar_mass) / (1 / mass)
    assert by_mass["EC"] / by_mass["Li+"] == pytest.approx(ratio)


def test_the_density_of_a_mixture_has_additive_volumes():
    half = parse_mixture("EC:DMC 1:1 by mass").density
    expected = 2 / (1 / get_species("EC").density + 1 / get_species("DMC").density)
    assert half == pytest.approx(expected, rel=1e-12)
    assert parse_mixture("DME").density == get_species("DME").density


def test_a_molar_solution_of_salt_has_its_measured_density(scikd_data):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(scikd_data("md/electrolyte_expt/SolventSeg_LiPF6_EC_EMC.csv"))
    row = table[(table["Temp"] == 30) & (abs(table["xLiPF6"] - 0.12) < 0.03)].iloc[0]
    ratio = {"EC": row["xEC"], "EMC": row["xEMC"], "LiPF6": row["xLiPF6"]}
    mixture = Mixture.from_ratio({k: v for k, v in ratio.items() if v > 0}, "mass")
    assert mixture.density == pytest.approx(row["d"], rel=0.02)


@given(
    st.lists(st.sampled_from(["EC", "DMC", "DME", "LiPF6"]), min_size=1, max_size=4, unique=True),
    st.data(),
    st.integers(20, 400),
)
def test_counts_are_neutral_and_close_to_the_fractions(names, data, n_molecules):
    parts = [data.draw(st.floats(0.2, 5.0)) for _ in names]
    mixture = Mixture.from_ratio(dict(zip(names, parts, strict=True)))
    counts = mixture.counts(n_molecules=n_molecules)
    assert sum(get_species(name).charge * count for name, count in counts.items()) == 0
    assert min(counts.values()) >= 1
    assert all(abs(counts[name] - mixture[name] * n_molecules) <= 2 for name in mixture)
    assert math.isclose(sum(mixture.values()), 1.0)


def test_counts_by_atoms():
    counts = parse_mixture("EC:DMC 1:1").counts(n_atoms=220)
    assert counts == {"EC": 10, "DMC": 10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EC:XX 1:1", "Unknown species 'XX'. Known are DEC, DMC"),
        ("EC:DMC 1:2:3", "as many numbers as different names"),
        ("EC:EC 1:2", "as many numbers as different names"),
        ("EC:DMC 1:x", "Cannot read the mixture"),
        ("EC:DMC 1:", "as many numbers as different names"),
        ("EC:DMC 1:1 by volume", "Cannot read the mixture"),
        ("", "Cannot read the mixture"),
        ("EC:Li+ 9:1", "Expected a neutral mixture"),
        ("EC:DMC 0:1", "positive parts of a mixture; got 0.0 of 'EC'"),
    ],
)
def test_bad_mixtures(text, message):
    with pytest.raises(InvalidInputError, match=message.replace("+", r"\+")):
        parse_mixture(text)


def test_bad_arguments():
    with pytest.raises(InvalidInputError, match="counts by mass, but basis='molar'"):
        parse_mixture("EC:DMC 1:1 by mass", basis="molar")
    with pytest.raises(InvalidInputError, match="Expected basis 'molar' or 'mass'; got 'volume'"):
        Mixture.from_ratio({"EC": 1.0}, "volume")
    with pytest.raises(InvalidInputError, match="Give n_molecules or n_atoms"):
        parse_mixture("EC").counts()
    with pytest.raises(InvalidInputError, match="at least one molecule of each"):
        parse_mixture("EC:DMC").counts(n_molecules=1)
    with pytest.raises(InvalidInputError, match="Unknown species 'ec'"):
        get_species("ec")
