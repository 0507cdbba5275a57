"""Tables of what was measured: units in the names of columns, and all errors told at once."""

from __future__ import annotations

import math

import pytest

from scikd.exceptions import InvalidInputError, StorageError
from scikd.md.estimates import Estimate
from scikd.md.measurements import MeasuredLiquid, read_measurements


def table(tmp_path, text):
    path = tmp_path / "mixtures.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path, text):
    with pytest.raises(InvalidInputError) as caught:
        read_measurements(table(tmp_path, text))
    return str(caught.value)


def test_columns_in_the_units_of_their_names(tmp_path):
    text = (
        "liquid, temperature_K, density_kg_m3, density_kg_m3_error, viscosity_mPa_s, "
        "conductivity_S_m, diffusion_PF6-_m2_s, source\n"
        'EC:DMC:LiPF6 5:7:1, 313.15, 1250, 2, 3.5, 1.1, 2e-10, "Someone, 2001"\n'
        "EC:DMC 1:1,,,,,,,\n"
    )
    first, second = read_measurements(table(tmp_path, text))
    assert first.temperature_k == 313.15
    assert first.source == "Someone, 2001"
    density = first.measured["density"]
    assert (density.value, density.error, density.unit) == pytest.approx((1.25, 0.002, "g/cm³"))
    assert str(first.measured["viscosity"]) == "3.5 cP"
    assert math.isnan(first.measured["viscosity"].error)
    assert first.measured["conductivity"].value == pytest.approx(11.0)
    assert first.measured["diffusion of PF6-"].value == pytest.approx(2e-6)
    assert second == MeasuredLiquid("EC:DMC 1:1")
    assert second.name == "EC:DMC 1:1, 298.15 K, 1 bar"


def test_the_same_liquid_in_another_order_is_the_same():
    one, other = MeasuredLiquid("EC:DMC 1:1"), MeasuredLiquid("DMC:EC 2:2")
    assert one.key == other.key
    assert MeasuredLiquid("EC:DMC 1:1", 310.0).key != one.key
    assert MeasuredLiquid("EC:DMC 1:2").key != one.key


def test_all_rows_that_are_wrong_are_told_at_once(tmp_path):
    text = refused(
        tmp_path,
        "liquid,temperature_k,density_g_cm3,diffusion_PC_cm2_s\n"
        "EC:XX,300,1.2,\n"
        "EC,25,1.2,\n"
        "EC,300,1250,\n"
        "EC:DMC 1:1,300,1.2,1e-5\n"
        "EC:DMC 1:1,300,dense,\n"
        "DMC,300,1.06,\n"
        "DMC 1,300,1.06,\n"
        ",300,1.06,\n"
        "EMC,300\n",
    )
    for told in (
        "Line 2: Unknown species 'XX'",
        "Line 3: Expected of 'EC' a temperature in K from 60 to 3000, got 25",
        "Line 4: Expected of 'EC' its density from 0.05 to 25 g/cm³, got 1250 g/cm³",
        "Line 5: Expected of 'EC:DMC 1:1' the diffusion of EC, DMC, got that of PC",
        "Line 6: Expected a number as density; got 'dense'",
        "Line 8: DMC 1, 300 K, 1 bar is in line 7 already",
        "Line 9: Expected a liquid; got none",
        "Line 10: Expected 4 cells, as there are names; got 2. Cut short?",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("liquid,density", "'density' does not tell a unit .* density_g_cm3 or density_kg_m3"),
        ("liquid,density_lb_ft3", "'density_lb_ft3' does not tell a unit that is known"),
        ("liquid,diffusion_cm2_s", "expected diffusion_EC_cm2_s or diffusion_EC_m2_s"),
        ("liquid,density_EC_g_cm3", "does not tell a unit that is known"),
        ("liquid,temperature_c", "'temperature_c' is not known; known are liquid, temperature_k"),
        ("density_g_cm3", "Expected a column liquid; got density_g_cm3"),
        ("liquid,density_g_cm3,density_kg_m3", "one column of each; got several of density"),
        ("liquid,viscosity_cp_error", "Got errors of the viscosity, and not the viscosity"),
    ],
)
def test_columns_that_are_wrong(tmp_path, header, told):
    path = table(tmp_path, f"{header}\nEC{',1' * header.count(',')}\n")
    with pytest.raises(InvalidInputError, match=told):
        read_measurements(path)


def test_files_that_are_no_table(tmp_path):
    assert "to hold a line of names and a liquid" in refused(tmp_path, "liquid,density_g_cm3\n")
    assert "to hold a line of names and a liquid" in refused(tmp_path, "")
    assert "cut short" in refused(tmp_path, 'liquid,source\nEC,"Some')
    with pytest.raises(StorageError, match="Check the path"):
        read_measurements(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"liquid,source\nEC,\xe9\n")
    with pytest.raises(InvalidInputError, match="in UTF-8"):
        read_measurements(tmp_path / "latin.csv")


def test_numbers_in_other_units_are_refused():
    with pytest.raises(InvalidInputError, match=r"its density in g/cm³, got 1200 kg/m³"):
        MeasuredLiquid("EC", measured={"density": Estimate(1200.0, 0.0, "kg/m³")})
    with pytest.raises(InvalidInputError, match="one of density, .* got 'colour'"):
        MeasuredLiquid("EC", measured={"colour": Estimate(1.0, 0.0)})
    with pytest.raises(InvalidInputError, match="an error of its density that is not negative"):
        MeasuredLiquid("EC", measured={"density": Estimate(1.2, -1.0, "g/cm³")})
