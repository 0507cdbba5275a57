"""The section of the demonstration on finance: what it shows is what was traded."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("arch")
pytest.importorskip("skfolio")
pytest.importorskip("torch")

from scikd.demo import Options
from scikd.finance import demo, make_panel
from scikd.report import Report, Table

OPTIONS = Options(n_jobs=1, progress=False)


@pytest.fixture
def quick(monkeypatch):
    """A made-up market instead of thirty years of twenty stocks, and a TIPS of one epoch."""
    market = make_panel(700, 12, seed=0)
    monkeypatch.setattr("scikd._plots.DPI", 20)
    monkeypatch.setattr(demo, "RESAMPLES", 20)
    monkeypatch.setattr(demo, "_panel", lambda: market.panel)
    monkeypatch.setattr(demo, "TEST", market.panel.dates[500])
    epochs = {"teacher_epochs": 1, "student_epochs": 1, "swa_epochs": 1}
    monkeypatch.setattr(demo, "TIPS", demo.TIPS | epochs)
    return market.panel


def test_a_section_of_all_signals(quick):
    """Each has its row, and the page says what the numbers do not."""
    section = demo.section(OPTIONS)
    tables = [item for item in section.items if isinstance(item, Table)]
    names = ["reversal", "momentum", "low risk", "TIPS, small"]
    assert [row[0] for row in tables[0].rows] == [*names, "equal weight"]
    text = " ".join(Report("test", [section]).to_text().split())
    assert "every asset still has a price at the end" in text
    assert "No parameter was chosen by these results" in text
    Report("test", [section]).to_html()


def test_only_days_of_the_test_are_traded(quick):
    for analysis in demo.compared(OPTIONS).values():
        assert analysis.facts["first_score"] == str(demo.TEST)
        assert analysis.strategy.lag == 1
        assert analysis.strategy.cost_bps > 0


def test_no_signal_knows_what_comes(quick, monkeypatch):
    """Other prices after a day, the same scores up to it; TIPS is trained before the test."""
    whole = demo._signals(quick, OPTIONS)
    cut = 600
    fields = {name: values.copy() for name, values in quick.fields.items()}
    for values in fields.values():
        values[cut + 1 :] *= np.linspace(0.5, 2.0, quick.n_assets)
    from scikd.finance import Panel

    other = Panel(quick.dates, quick.assets, fields)
    for name, scores in demo._signals(other, OPTIONS).items():
        np.testing.assert_array_equal(scores[: cut + 1], whole[name][: cut + 1], err_msg=name)
        assert not np.array_equal(scores[cut + 1 :], whole[name][cut + 1 :]), name


def test_the_prices_of_skfolio_are_taken():
    panel = demo._panel()
    assert panel.n_assets == 20
    assert panel.dates[0] < demo.TEST < panel.dates[-1]
