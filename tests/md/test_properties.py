"""All properties at once: what can be had is, the rest says why; a page, numbers, a command."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from scikd.cli import app
from scikd.exceptions import InvalidInputError
from scikd.md import properties
from scikd.md.estimates import TooShortError
from scikd.md.properties import PropertiesOptions, compute_properties
from scikd.md.properties_report import properties_report
from scikd.md.records import PressureRecord
from scikd.md.transport import transference_number
from tests.reference.md_synthetic import liquid, ornstein_uhlenbeck, walks

pytest.importorskip("stacie")
pytest.importorskip("freud")

SALT = {"species": ("Li+", "PF6-", "EC"), "numbers": (3, 9, 8), "charges": (1, -1, 0)}


@pytest.fixture(scope="module")
def electrolyte():
    rng = np.random.default_rng(0)
    paths = walks(rng, 400, np.repeat([0.05, 0.08, 0.1], 10), edge=12.0)
    stress = ornstein_uhlenbeck(rng, 6, 6000, 0.1, 0.01, 200.0**2).T
    record = PressureRecord(0.01, 0.01, stress, np.zeros(6000))
    return liquid(paths, **SALT, edge=12.0, pressures=record)


@pytest.fixture(scope="module")
def found(electrolyte):
    options = PropertiesOptions(pairs=("Li-O", "PF6-:F-Li+:Li"))
    return compute_properties(options, trajectory=electrolyte)


def test_an_electrolyte_has_all_properties_or_a_reason(found):
    names = {"density", "viscosity", "conductivity", "ionicity", "transference number"}
    names |= {f"diffusion of {name}" for name in SALT["species"]}
    names |= {f"diffusion of {name}, large box" for name in SALT["species"]}
    assert names <= set(found.estimates) | set(found.refusals)
    assert {"viscosity", "diffusion of EC", "diffusion of EC, large box"} <= set(found.estimates)
    # Walkers have no shells.
    assert "shows no first shell" in found.refusals["solvation shells"]
    assert [curve.pair for curve in found.distributions] == [("Li", "O"), ("PF6-:F", "Li+:Li")]


def test_the_numbers_are_json(found, tmp_path):
    numbers = json.loads(found.write_json(tmp_path / "a.json").read_text())
    assert numbers["composition"] == {"EC": 10, "Li+": 10, "PF6-": 10}
    viscosity = found.estimates["viscosity"]
    assert numbers["estimates"]["viscosity"] == {
        "value": viscosity.value,
        "error": viscosity.error,
        "unit": "cP",
    }
    assert numbers["refusals"] == found.refusals


def test_the_summary_and_the_page_say_all_of_it(found):
    text = found.summary()
    page = properties_report(found).to_text()
    for name, value in found.estimates.items():
        assert f"{name}: {value}" in text
        assert name in page
    for name in found.refusals:
        assert f"no {name}: " in text
        assert name in page


def test_the_page_has_its_figures(found, tmp_path):
    pytest.importorskip("matplotlib")
    html = properties_report(found).write_html(tmp_path / "a.html").read_text()
    for title in ("Radial distributions", "Diffusion", "Viscosity"):
        assert f">{title}<" in html
    assert html.count("data:image/png") >= 3


def test_a_known_viscosity_corrects_diffusion(electrolyte):
    given = PropertiesOptions(viscosity=2.0, pairs=("Li-O",))
    some = replace(electrolyte, pressures=None)
    result = compute_properties(given, trajectory=some)
    plain, large = (result.estimates[f"diffusion of EC{end}"] for end in ("", ", large box"))
    assert large.value > plain.value
    assert "pressure_interval" in result.refusals["viscosity"]


def test_in_a_box_that_is_no_cube_diffusion_is_told_without_a_correction(electrolyte):
    long = replace(electrolyte, cells=electrolyte.cells * [1.0, 1.0, 1.2])
    result = compute_properties(PropertiesOptions(viscosity=2.0), trajectory=long)
    assert "diffusion of EC" in result.estimates
    assert "diffusion of EC, large box" not in result.estimates
    assert "holds for cubes" in result.refusals["diffusion of EC, large box"]
    assert "holds for cubes" in properties_report(result).to_text()


@pytest.mark.parametrize(
    ("noisy", "refused"),
    [
        ("conductivity_of_liquid", {"conductivity"}),
        ("nernst_einstein_conductivity", {"conductivity, Nernst-Einstein"}),
        (None, set()),
    ],
)
def test_each_conductivity_is_told_on_its_own(electrolyte, monkeypatch, noisy, refused):
    def refuse(*_, **__):
        message = "too noisy"
        raise TooShortError(message, 1e4)

    if noisy is not None:
        monkeypatch.setattr(properties, noisy, refuse)
    result = compute_properties(PropertiesOptions(largest_error=1.0), trajectory=electrolyte)
    both = {"conductivity", "conductivity, Nernst-Einstein"}
    assert {name for name in both if result.refusals.get(name) == "too noisy"} == refused
    known = {name: result.estimates[name] for name in both - refused}
    assert ("ionicity" in result.estimates) is (known.keys() == both)
    if not refused:
        quotient = known["conductivity"].value / known["conductivity, Nernst-Einstein"].value
        assert result.estimates["ionicity"].value == pytest.approx(quotient)


def test_a_short_trajectory_says_which_length_would_do(electrolyte):
    result = compute_properties(PropertiesOptions(start=350.0), trajectory=electrolyte)
    assert "needs at least 100 points in time; got 49" in result.refusals["diffusion of Li+"]
    assert "100 ps would do" in result.refusals["diffusion of Li+"]


def test_the_transference_number_may_be_off_by_a_third_of_the_largest_error(electrolyte):
    name = "transference number"
    error = transference_number(electrolyte, largest_error=1.0).error
    for factor, known in ((2.9, False), (3.1, True)):
        options = PropertiesOptions(largest_error=factor * error)
        assert (name in compute_properties(options, trajectory=electrolyte).estimates) is known


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"largest_error": 0.0}, "largest_error above 0 and up to 1, got 0.0"),
        ({"viscosity": -1.0}, "viscosity > 0 or None, got -1.0"),
        ({"viscosity": math.inf}, "viscosity > 0 or None, got inf"),
        ({"temperature": math.nan}, "temperature > 0 or None, got nan"),
        ({"start": math.nan}, "a finite start in ps, got nan"),
        ({"start": math.inf}, "a finite start in ps, got inf"),
        ({"pairs": ("LiO",)}, "pairs such as 'Li-O', got 'LiO'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, text):
    with pytest.raises(InvalidInputError, match=text):
        PropertiesOptions(**settings)


def test_the_command_writes_page_and_numbers(tmp_path):
    paths = walks(np.random.default_rng(1), 120, np.full(12, 0.1), edge=10.0)
    frames = [Atoms("Ar12", p, cell=[10, 10, 10], pbc=True) for p in paths]
    for frame in frames:
        frame.set_array("molecules", np.arange(12))  # they pass through one another
    write(tmp_path / "a.extxyz", frames)
    flags = ["--trajectory", str(tmp_path / "a.extxyz"), "--output", str(tmp_path / "out")]
    flags += ["--interval", "0.5", "--temperature", "90"]
    result = CliRunner().invoke(app, ["md", "properties", *flags])
    assert result.exit_code == 0, result.output
    assert "12 Ar: 59.5 ps at 90 K" in result.output
    assert (tmp_path / "out" / "report.html").exists()
    numbers = json.loads((tmp_path / "out" / "properties.json").read_text())
    assert numbers["temperature_K"] == 90.0
