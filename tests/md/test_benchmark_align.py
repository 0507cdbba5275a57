"""The benchmark of alignment: densities of the compositions that boxes have, and a quick run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import scikd.md
from benchmarks import md_align
from benchmarks.__main__ import main
from scikd.md.molecules import get_species, parse_mixture
from scikd.md.structure import RadialDistribution


def law(ec, salt):
    """Return a density that a quadratic fit can have."""
    return 1.0 + 0.25 * ec + 0.8 * salt + 0.06 * ec**2 - 0.1 * ec * salt


@pytest.fixture
def tables(tmp_path, monkeypatch):
    lines = ["ec,Temp,xLiPF6,xEC,xEMC,d,v,k"]
    for ec in (0.0, 0.3, 0.5, 0.7):
        for salt in (0.0, 0.06, 0.12, 0.2):
            lines.append(f"{ec},25,{salt},0,0,{law(ec, salt)},1,1")
            lines.append(f"{ec},40,{salt},0,0,9,1,1")
    (tmp_path / "mixtures.csv").write_text("\n".join(lines))
    columns = '"Mass density, kg/m3","Pressure, kPa","Temperature, K",components\n'
    rows = ["1000,101,298.15", "1010,101.3,298.2", "1100,101,298.15", "5,101,310", ",101,298.15"]
    neat = "".join(f"{row},dimethyl carbonate\n" for row in rows) + "7,101,298.15,water\n"
    (tmp_path / "neat.csv").write_text(columns + neat)
    monkeypatch.setattr(md_align, "MIXTURES", tmp_path / "mixtures.csv")
    monkeypatch.setattr(md_align, "NEAT", tmp_path / "neat.csv")


def test_densities_are_those_of_the_compositions_of_the_boxes(tables):
    liquids = ("EC:EMC:LiPF6 0.264:0.616:0.12 by mass", "EC:EMC 5:5 by mass", "DMC")
    found = md_align.measured_densities(liquids, 300)
    assert found["DMC"] == pytest.approx(1.010)
    for liquid in liquids[:2]:
        counts = parse_mixture(liquid).counts(n_atoms=300)
        masses = {name: n * get_species(name).molar_mass for name, n in counts.items()}
        solvent = masses["EC"] + masses["EMC"]
        salt = 1.0 - solvent / sum(masses.values())
        assert found[liquid] == pytest.approx(law(masses["EC"] / solvent, salt), abs=1e-6)


def test_without_data_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(md_align, "NEAT", tmp_path / "none.csv")
    assert md_align.run() == []
    assert "set SCIKD_DATA" in capsys.readouterr().err


def test_curves_of_boxes_of_other_sizes_are_compared_where_both_reach():
    def known(reach, n_bins, level):
        middle = (np.arange(n_bins) + 0.5) * reach / n_bins
        values = 1.0 + np.sin(middle) + level
        curve = RadialDistribution(
            ("Li", "O"), middle, values, 0.1 + 0 * middle, middle, None, None
        )
        return SimpleNamespace(distributions=[curve])

    changes = SimpleNamespace(
        forces=1.0, of_forces=100.0, before=known(7.3, 146, 0.0), after=known(7.2, 144, 0.25)
    )
    liquid = SimpleNamespace(target=SimpleNamespace(liquid="salt"), changes=changes)
    _, found = md_align._changes(SimpleNamespace(liquids=[liquid]))
    assert found["value"] == pytest.approx(0.25, abs=1e-3)
    assert found["name"] == "salt: change of g(r), Li-O"


def test_the_quick_benchmark_runs(tmp_path, monkeypatch):
    quick = replace(md_align.QUICK, output=tmp_path / "out", threads=1)
    monkeypatch.setattr(md_align, "QUICK", quick)
    monkeypatch.setattr(md_align, "everything", lambda scale: {})
    default = Path(scikd.md.__file__).parent / "models" / "default"
    monkeypatch.setattr(md_align, "student", lambda scale, seed: default)
    assert not main(["md-align", "--quick", "--json", str(tmp_path / "rows.json")])
    rows = {one["name"]: one for one in json.loads((tmp_path / "rows.json").read_text())}
    # Nothing was corrected, so nothing has changed.
    assert rows["corrections"]["value"] == 0
    assert rows["forces on test clusters, after over before"]["value"] == 1.0
    assert rows["DMC (held out): density before"]["value"] > 0.5
    assert (tmp_path / "out" / "report.html").exists()
