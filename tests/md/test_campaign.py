"""Campaigns: a table of mixtures is run stage by stage, resumed, and judged by experiment."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write

from scikd.exceptions import InvalidInputError
from scikd.md import _mixture_run, dynamics
from scikd.md._integrators import density_of
from scikd.md._process import alone_in
from scikd.md.campaign import CampaignOptions, run_campaign
from scikd.md.campaign_report import CampaignResult, MixtureResult, campaign_report
from scikd.md.dynamics_report import read_log
from scikd.md.estimates import Estimate
from scikd.md.measurements import MeasuredLiquid
from scikd.md.molecules import get_species
from scikd.md.properties import LiquidProperties
from scikd.md.repulsion import ZBL
from scikd.md.storage import save_force_field
from scikd.md.trajectories import Trajectory
from tests.reference.md_lennard_jones import LennardJones
from tests.reference.md_models import force_field, structure

pytest.importorskip("stacie")
pytest.importorskip("freud")

EPSILON, SIGMA = 0.0103, 3.405


class Argon(LennardJones):
    """Lennard-Jones argon, which cannot be run where an atom is missing."""

    fingerprint = "argon"

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if len(atoms) == 31:
            message = "this one is broken"
            raise RuntimeError(message)
        super().calculate(atoms, properties, system_changes)


def argon(kind=Argon):
    return kind(EPSILON, SIGMA, 5.4, shifted=True)


def liquids(folder):
    """Write a box that cannot be run and one that can, and say what is known of the second."""
    atoms = bulk("Ar", "fcc", a=5.9, cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=0)
    first, broken = folder / "argon.xyz", folder / "broken.xyz"
    write(first, atoms)
    write(broken, atoms[1:])
    known = {
        "density": Estimate(1.2, math.nan, "g/cm³"),
        "diffusion of Ar": Estimate(3e-5, 1e-6, "cm²/s"),
    }
    return [
        MeasuredLiquid(str(broken), 85.0, measured={"density": known["density"]}),
        MeasuredLiquid(str(first), 85.0, 600.0, measured=known, source="here"),
    ]


def options(folder, **changes):
    given = {
        "output": str(folder / "out"), "npt_time": "2ps", "nvt_time": "10ps",
        "equilibration": "1ps", "timestep": 8.0, "log_interval": 5, "trajectory_interval": 5,
        "checkpoint_interval": 50, "pressure_interval": 2, "minimise_steps": 0,
        "compressibility": 2e-4, "largest_error": 1.0, "at_density": "measured",
    }  # fmt: skip
    return CampaignOptions(**{**given, **changes})


def campaign(folder, mixtures=None, calculator=None, **changes):
    return run_campaign(
        liquids(folder) if mixtures is None else mixtures,
        options(folder, **changes),
        calculator=calculator or argon(),
        progress=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Give a campaign with a mixture that failed and one that is done."""
    folder = tmp_path_factory.mktemp("campaign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
        return folder, campaign(folder)


def test_a_failed_mixture_stops_no_other_and_is_in_the_table(finished):
    folder, result = finished
    broken, done = result.mixtures
    assert broken.failure == "at constant pressure: this one is broken"
    assert done.failure is None
    assert result.failed == (broken,)
    with result.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert rows[0]["reason"] == broken.failure
    assert rows[0]["viscosity_cp"] == ""
    found = done.estimates["viscosity"]
    assert float(rows[1]["viscosity_cp"]) == found.value
    assert float(rows[1]["viscosity_cp_error"]) == found.error
    assert float(rows[1]["measured_diffusion_Ar_cm2_s"]) == 3e-5
    assert rows[1]["measured_density_g_cm3_error"] == ""  # not known
    assert rows[1]["source"] == "here"
    assert [row["molecules"] for row in rows] == ["", "32 Ar"]
    assert "density" in done.refusals  # so short a run tells none, and the table says so
    assert done.refusals["density"] in rows[1]["missing"]
    numbers = json.loads((folder / "out" / "campaign.json").read_text())["mixtures"]
    assert numbers[1]["estimates"]["viscosity"]["value"] == found.value
    assert numbers[0]["failure"] == broken.failure


def test_the_page_leads_to_that_of_each_run(finished):
    folder, result = finished
    html = result.page.read_text()
    done = result.mixtures[1]
    assert set(done.pages) == {"npt", "nvt"}
    for page in done.pages.values():
        assert f'href="{page}"' in html
        assert (folder / "out" / page).is_file()
    assert "this one is broken" in html
    assert result.summary().startswith("1 of 2 mixtures done")
    assert result.summary().endswith("at constant pressure: this one is broken")


def test_what_is_finished_is_not_done_again(finished, monkeypatch):
    folder, result = finished

    def refuse(*_, **__):
        pytest.fail("this was finished")

    done = [result.mixtures[1].liquid]
    monkeypatch.setattr(_mixture_run, "run_dynamics", refuse)
    again = campaign(folder, done)
    assert again.mixtures[0].as_dict() == result.mixtures[1].as_dict()
    with pytest.raises(InvalidInputError, match="holds a mixture of other options"):
        campaign(folder, done, seed=1)


def test_a_longer_time_goes_on_with_the_run(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    place = tmp_path / "out" / "argon.xyz-85K-600bar"
    npt, nvt = ((place / name / "log.csv").read_bytes() for name in ("npt", "nvt-1.2000"))
    longer = campaign(tmp_path, [result.mixtures[1].liquid], nvt_time="11ps")
    assert (place / "npt" / "log.csv").read_bytes() == npt
    after = (place / "nvt-1.2000" / "log.csv").read_bytes()
    assert after.startswith(nvt)
    assert len(after) > len(nvt)
    assert longer.mixtures[0].estimates != result.mixtures[1].estimates


def test_a_shorter_time_keeps_the_run_that_is_finished(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(_mixture_run, "run_dynamics", never)
    shorter = campaign(
        folder, [result.mixtures[1].liquid], npt_time="1ps", nvt_time="5000fs", largest_error=1.0
    )
    assert shorter.mixtures[0].as_dict() == result.mixtures[1].as_dict()


def test_what_is_finished_is_shown_before_the_rest_is_run(finished, tmp_path):
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    write(tmp_path / "new.xyz", bulk("Ar", "fcc", a=5.9, cubic=True) * (3, 2, 2))
    broken, done = (row.liquid for row in result.mixtures)
    mixtures = [replace(broken, liquid=str(tmp_path / "new.xyz")), done]
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path, mixtures, calculator=argon(StoppedAtOnce))
    with (tmp_path / "out" / "campaign.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["waiting", "done"]


def test_side_by_side_the_numbers_are_the_same(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
    with joblib.parallel_config(backend="threading", n_jobs=2):
        other = campaign(tmp_path)
    for one, two in zip(other.mixtures, finished[1].mixtures, strict=True):
        assert one.estimates == two.estimates
        assert one.failure == two.failure


class Interrupted(Argon):
    """Sends the signal of Ctrl-C in the middle of the run at constant volume."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.count = getattr(self, "count", 0) + 1
        if self.count == 1000:
            os.kill(os.getpid(), signal.SIGINT)


class StoppedAtOnce(Argon):
    """Is stopped before anything was run."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        raise KeyboardInterrupt


class Stopped(Argon):
    """Is stopped as soon as the box that can be run is begun."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if len(atoms) == 32:
            raise KeyboardInterrupt
        super().calculate(atoms, properties, system_changes)


def test_a_campaign_that_was_interrupted_shows_what_it_has(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path, calculator=argon(Stopped))
    with (tmp_path / "out" / "campaign.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "waiting"]
    assert "0 of 2 mixtures done" in (tmp_path / "out" / "report.html").read_text()


def test_a_campaign_that_is_stopped_in_its_first_mixture_shows_that_all_wait(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path, liquids(tmp_path)[1:], calculator=argon(StoppedAtOnce))
    with (tmp_path / "out" / "campaign.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["waiting"]
    assert (tmp_path / "out" / "campaign.json").is_file()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "0 of 1 mixtures done" in page
    assert "waiting" in page


def test_a_time_that_has_been_passed_names_the_least(finished, tmp_path):
    """As of a run that was interrupted, and so is not known to be finished."""
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    place = tmp_path / "out" / "argon.xyz-85K-600bar" / "nvt-1.2000"
    (place / "finished.json").unlink()
    (row,) = campaign(tmp_path, [result.mixtures[1].liquid], nvt_time="0.1ps").mixtures
    assert re.search(r"a time of at least 10 ps, .* got 0.1ps. Raise the time", row.failure)
    assert "another folder" not in row.failure
    again = campaign(tmp_path, [result.mixtures[1].liquid], nvt_time="10ps")
    assert again.mixtures[0].estimates == result.mixtures[1].estimates


def test_two_processes_do_not_share_a_campaign(tmp_path):
    pytest.importorskip("fcntl")
    (tmp_path / "out").mkdir()
    with (
        alone_in(tmp_path / "out"),
        pytest.raises(InvalidInputError, match="Another process is running in .*out"),
    ):
        campaign(tmp_path)


def test_a_campaign_that_was_interrupted_loses_no_finished_stage(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path, liquids(tmp_path)[1:], calculator=argon(Interrupted))
    place = tmp_path / "out" / "argon.xyz-85K-600bar"
    log = place / "nvt-1.2000" / "log.csv"
    assert not (place / "nvt-1.2000" / "finished.json").exists()
    noted = (place / "npt" / "finished.json").stat().st_mtime_ns
    before = log.read_bytes()
    resumed = campaign(tmp_path, liquids(tmp_path)[1:])
    assert (place / "npt" / "finished.json").stat().st_mtime_ns == noted
    assert log.read_bytes().startswith(before)
    assert resumed.mixtures[0].estimates == finished[1].mixtures[1].estimates


def test_a_run_that_left_no_checkpoint_begins_where_the_one_before_ended(finished, tmp_path):
    """As of a disk that was full when the first one was to be written."""
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    place = tmp_path / "out" / "argon.xyz-85K-600bar" / "nvt-1.2000"
    whole = (place / "trajectory.extxyz").read_bytes()
    for path in place.iterdir():
        if path.name not in ("log.csv", "trajectory.extxyz"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    campaign(tmp_path, [result.mixtures[1].liquid])
    assert (place / "trajectory.extxyz").read_bytes() == whole


def test_a_density_that_was_found_is_not_missing_where_it_is_held(tmp_path, monkeypatch):
    def ran(options, **_):
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(atoms=None, summary=lambda: "")

    def told(options):
        held = Path(options.trajectory).name.startswith("nvt")
        known = {} if held else {"density": Estimate(1.2, 0.01, "g/cm³")}
        short = {"density": "too short", "viscosity": "too short"} if held else {}
        return LiquidProperties(still_argon(), known, short)

    monkeypatch.setattr(_mixture_run, "run_dynamics", ran)
    monkeypatch.setattr(_mixture_run, "compute_properties", told)
    (row,) = campaign(tmp_path, liquids(tmp_path)[1:], at_density="found").mixtures
    assert row.estimates["density"].value == 1.2
    assert row.refusals == {"viscosity": "too short"}


def still_argon():
    boxes = np.tile(9.0 * np.eye(3), (2, 1, 1))
    one = np.zeros(1)
    return Trajectory(
        np.zeros((2, 1, 3)), boxes, np.arange(2.0), np.array([18]), one.astype(int), one, ("Ar",)
    )


def test_a_note_that_was_cut_short_is_told(finished, tmp_path):
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    note = tmp_path / "out" / "argon.xyz-85K-600bar" / "npt" / "finished.json"
    note.write_bytes(note.read_bytes()[:50])
    (row,) = campaign(tmp_path, [result.mixtures[1].liquid]).mixtures
    assert "finished.json is cut short or garbled" in row.failure


@pytest.mark.parametrize("stage", ["npt", "nvt-1.2000"])
@pytest.mark.parametrize(
    "garble",
    [
        lambda note: {"made": note["made"]},
        lambda note: {**note, "made": {}},
        lambda note: {**note, "estimates": {"density": 1.2}},
        lambda note: {**note, "estimates": {}, "refusals": {}},
        lambda note: [note],
    ],
)
def test_a_note_that_is_json_and_nothing_more_is_told_as_garbled(finished, tmp_path, stage, garble):
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    note = tmp_path / "out" / "argon.xyz-85K-600bar" / stage / "finished.json"
    note.write_text(json.dumps(garble(json.loads(note.read_text()))))
    (row,) = campaign(tmp_path, [result.mixtures[1].liquid]).mixtures
    assert "finished.json is garbled: remove it" in row.failure


def test_a_density_that_was_not_found_says_what_to_do(finished, tmp_path):
    folder, result = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    found = campaign(tmp_path, [result.mixtures[1].liquid], at_density="found")
    assert (
        "4 ps would do, or frames that were stored more often. Raise npt_time"
        in found.mixtures[0].failure
    )
    assert set(found.mixtures[0].pages) == {"npt"}


@pytest.mark.slow
def test_density_is_found_and_held(tmp_path):
    liquid = liquids(tmp_path)[1:]
    times = {"npt_time": "200ps", "nvt_time": "100ps", "trajectory_interval": 20}
    (row,) = campaign(tmp_path, liquid, at_density="found", **times).mixtures
    assert row.failure is None
    density = row.estimates["density"]
    assert 0.9 < density.value < 1.4
    assert density.error < 0.03
    assert (tmp_path / "out" / row.pages["nvt"]).parent.name == f"nvt-{density.value:.4f}"
    assert row.estimates["viscosity"].value > 0
    log = read_log(tmp_path / "out" / Path(row.pages["nvt"]).parent)
    late = log["density_g_cm3"][log["time_ps"] > 0]
    assert late.to_numpy() == pytest.approx(round(density.value, 4), rel=1e-6)


def never(*_, **__):
    pytest.fail("something was run")


@pytest.fixture
def _nothing_runs(monkeypatch):
    monkeypatch.setattr(_mixture_run, "run_dynamics", never)


@pytest.mark.usefixtures("_nothing_runs")
def test_mixtures_that_cannot_be_run_are_refused_at_once(tmp_path):
    _, good = liquids(tmp_path)
    with pytest.raises(InvalidInputError, match="Expected a mixture at least; got none"):
        campaign(tmp_path, ())
    twice = [MeasuredLiquid("EC:DMC 1:1"), MeasuredLiquid("DMC:EC 2:2"), good]
    with pytest.raises(InvalidInputError) as caught:
        campaign(tmp_path, twice)
    text = str(caught.value)
    assert "DMC:EC 2:2, 298.15 K, 1 bar comes twice, first as 'EC:DMC 1:1'" in text
    assert "EC:DMC 1:1, 298.15 K, 1 bar has no measured density to hold" in text
    with pytest.raises(InvalidInputError, match="There is no file .*missing.xyz"):
        campaign(tmp_path, [MeasuredLiquid("missing.xyz")], at_density="found")
    molecule = tmp_path / "molecule.xyz"
    write(molecule, get_species("EC").conformers[0])
    with pytest.raises(InvalidInputError, match="periodic in three .* and so has a density"):
        campaign(tmp_path, [MeasuredLiquid(str(molecule))], at_density="found")
    with pytest.raises(InvalidInputError, match="at least one molecule of each"):
        campaign(tmp_path, [MeasuredLiquid("EC:DMC 1:1")], at_density="found", n_atoms=10)
    unlike = MeasuredLiquid(good.liquid, measured={"diffusion of EC": Estimate(1e-5, 0, "cm²/s")})
    with pytest.raises(InvalidInputError, match="Expected the diffusion of Ar, got that of EC"):
        campaign(tmp_path, [unlike], at_density="found")
    (tmp_path / "other").mkdir()
    (copy,) = liquids(tmp_path / "other")[1:]
    with pytest.raises(InvalidInputError, match="would share a folder: rename a file"):
        campaign(tmp_path, [good, copy])
    assert not (tmp_path / "out").exists()


def test_options_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="at_density 'found' or 'measured', got 'both'"):
        options(tmp_path, at_density="both")
    with pytest.raises(InvalidInputError, match="a time with its unit"):
        options(tmp_path, nvt_time="100")
    with pytest.raises(InvalidInputError, match="a time of equilibration"):
        options(tmp_path, equilibration="0ps")
    with pytest.raises(InvalidInputError, match="largest_error"):
        options(tmp_path, largest_error=3.0)


def test_deviations_are_means_over_mixtures(tmp_path):
    def row(name, ours, theirs):
        known = {"viscosity": Estimate(theirs, math.nan, "cP")}
        found = {"viscosity": Estimate(ours, 0.3, "cP")}
        return MixtureResult(MeasuredLiquid(name, measured=known), found)

    rows = (row("EC", 2.0, 1.0), row("DMC", 0.5, 2.0), MixtureResult(MeasuredLiquid("PC")))
    result = CampaignResult(tmp_path, rows)
    (found,) = result.deviations()
    assert (found.kind, found.count) == ("viscosity", 2)
    assert found.mean.value == pytest.approx((1.0 - 1.5) / 2)
    assert found.mean.error == pytest.approx(0.3 / np.sqrt(2))
    assert found.absolute == pytest.approx(1.25)
    assert found.relative == pytest.approx((1.0 + 0.75) / 2)
    off = "viscosity off by -0.25 ± 0.21 cP on average, 87.50% in size, over 2 values"
    assert result.summary() == f"3 of 3 mixtures done; {off}"
    report = campaign_report(result)
    assert "[figure: Computed and measured]" in report.to_text()
    pytest.importorskip("matplotlib")
    assert len(report.write_pngs(tmp_path)) == 1
    result.write_tables()
    with result.table.open() as file:
        assert [line["viscosity_cp"] for line in csv.DictReader(file)] == ["2.0", "0.5", ""]


def test_the_page_tells_of_neighbours_and_ions(tmp_path):
    found = {"SSIP": Estimate(0.25, 0.03), "ionicity": Estimate(0.6, 0.1)}
    found |= {"conductivity, Nernst-Einstein": Estimate(9.0, 1.0, "mS/cm")}
    salt, neat = MeasuredLiquid("EC:LiPF6 10:1"), MeasuredLiquid("EC")
    result = CampaignResult(tmp_path, (MixtureResult(salt, found), MixtureResult(neat)))
    text = campaign_report(result).to_text()
    (line,) = (line for line in text.splitlines() if "0.250 ± 0.030" in line)
    assert "0.60 ± 0.10" in line
    assert "9.0 ± 1.0" in line
    assert "conductivity, Nernst-Einstein (mS/cm)" in text


def test_diffusion_is_compared_as_corrected_for_the_box(tmp_path):
    known = {"diffusion of EC": Estimate(1e-5, 0.0, "cm²/s")}
    raw, corrected = (Estimate(v, 0.0, "cm²/s") for v in (0.8e-5, 1.1e-5))
    found = {"diffusion of EC": raw, "diffusion of EC, large box": corrected}
    row = MixtureResult(MeasuredLiquid("EC", measured=known), found)
    (deviation,) = CampaignResult(tmp_path, (row,)).deviations()
    assert deviation.mean.value == pytest.approx(0.1e-5)


def test_the_command(run, tmp_path):
    model = force_field(repulsion=ZBL(), dtype=torch.float32, scale=0.05)
    save_force_field(model, tmp_path / "model")
    write(tmp_path / "box.xyz", structure(40, width=9.0))
    table = tmp_path / "mixtures.csv"
    density = density_of(structure(40, width=9.0))
    table.write_text(f"liquid,density_g_cm3\n{tmp_path / 'box.xyz'},{density}\n")
    flags = ["--npt-time", "20fs", "--nvt-time", "20fs", "--equilibration", "20fs"]
    flags += ["--model", tmp_path / "model", "--output", tmp_path / "out"]
    flags += [
        "--trajectory-interval",
        "2",
        "--log-interval",
        "2",
        "--at-density",
        "measured",
        "--engine",
        "torch",
    ]
    code, out, err = run("md", "campaign", table, *flags)
    assert "1 of 1 mixtures done" in out, (out, err)
    assert code == 0
    assert f"The table lies in {tmp_path / 'out' / 'campaign.csv'}" in out
    table.write_text("liquid,density_g_cm3\nEC:XY,1.2\nEC,1200\n")
    code, _, err = run("md", "campaign", table, *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert "Line 2: Unknown species 'XY'" in err
    assert "Line 3: " in err
