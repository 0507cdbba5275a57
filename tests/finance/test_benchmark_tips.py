"""The benchmark of TIPS is honest about time, goes on where it stopped, and adds up."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import _tips_models, tips
from benchmarks._tips_models import Plan, kept_scores, make_scores, wanted
from benchmarks._tips_page import page
from benchmarks._tips_panels import LOOK_BACK, QUICK, load_market
from benchmarks._tips_scores import market_rows
from scikd.finance import forward_returns
from scikd.finance.metrics import information_coefficient


@pytest.fixture(scope="module")
def market():
    """A panel of 300 days and 8 assets."""
    return load_market(QUICK)


def test_parts_follow_one_another(market):
    """Training, validation whose first day has its whole window, and the test."""
    assert market.training.dates[-1] == market.train_end
    later = market.later
    fresh = later.dates > market.train_end
    samples = _tips_models._later(later)
    assert later.dates[samples.days[0]] <= later.dates[fresh][0]
    assert later.dates[market.first_test - 1] == market.valid_end
    assert np.argmax(fresh) == 2 * LOOK_BACK


def test_no_label_of_training_looks_beyond_its_end(market):
    """Samples of training end a holding period and a day before."""
    samples = _tips_models._samples(market)
    assert samples.dates[samples.rows].max() == market.training.dates[-7]


def test_rules_without_training_know_only_the_past(market):
    """Momentum and reversal of a day, from its closes, for who can be scored."""
    scores = _tips_models._simple(market)
    close, last = market.panel.close, market.panel.n_dates - 1
    assert np.allclose(scores["momentum 12-1"][-1], close[last - 21] / close[last - 252] - 1)
    assert np.allclose(scores["reversal 5"][-1], 1 - close[last] / close[last - 5])
    assert (scores["equal weight"][-1] == 0).all()


def test_scores_are_made_once(market, tmp_path, monkeypatch):
    """What is in the folder is not made again."""
    monkeypatch.setattr(_tips_models, "_reference", lambda *given: {"ridge": np.ones(3)})
    tasks = wanted(market, 0, Plan(), tmp_path)
    tasks["ridge"]()
    monkeypatch.setattr(_tips_models, "_reference", None)
    tasks["ridge"]()
    assert kept_scores(tmp_path)["ridge"].tolist() == [1.0, 1.0, 1.0]


def test_panels_without_a_file_are_left_out(tmp_path, monkeypatch, caplog):
    """And named in the log."""
    monkeypatch.setattr("benchmarks._tips_panels.FINANCE", tmp_path)
    make_scores(["cn_sse50", "jp_tse_100"], (0,), Plan(), tmp_path)
    assert "left out cn_sse50" in caplog.text
    assert "left out jp_tse_100" in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_stack_of_all_learns_from_validation_alone(market, tmp_path):
    """Scores and prices of the test do not change what it says before them."""
    rng = np.random.default_rng(0)
    shape = market.later.close.shape
    scores = {f"model {n}": rng.standard_normal(shape) for n in range(3)}
    tmp_path.joinpath("0").mkdir()
    np.savez(tmp_path / "0" / "tips.npz", **scores)
    before = _tips_models._stack_of_all(market, tmp_path / "0")["stack of all"]
    first = market.first_test
    cut = market.panel.n_dates - market.later.n_dates + first
    fields = {name: values.copy() for name, values in market.panel.fields.items()}
    for values in fields.values():
        values[cut:] *= rng.uniform(0.9, 1.1, values[cut:].shape)
    other = replace(market, panel=replace(market.panel, fields=fields))
    for values in scores.values():
        values[first:] = rng.standard_normal(values[first:].shape)
    np.savez(tmp_path / "0" / "tips.npz", **scores)
    after = _tips_models._stack_of_all(other, tmp_path / "0")["stack of all"]
    assert np.array_equal(before[:first], after[:first], equal_nan=True)
    assert not np.array_equal(before[first:], after[first:], equal_nan=True)


def test_rows_are_means_over_seeds(market):
    """Of all seeds, each of which has a row, too; the rank IC is that of returns to be had."""
    rng = np.random.default_rng(1)
    label = forward_returns(market.later)
    noise = rng.standard_normal((2, *label.shape))
    scores = {
        seed: {"one": label + 0.05 * noise[seed], "two": noise[seed], "equal weight": 0 * label}
        for seed in range(2)
    }
    scores = {s: {k: np.nan_to_num(v) for k, v in of.items()} for s, of in scores.items()}
    rows = {row["name"]: row for row in market_rows(market, scores, n_resamples=50)}
    mean, *singles = (rows[f"made up: one{end}"] for end in ("", ", seed 0", ", seed 1"))
    assert mean["seeds"] == 2
    for key in ("value", "net_sharpe", "net_sharpe_low", "net_minus_equal", "net_MDD", "turnover"):
        assert mean[key] == pytest.approx(np.mean([row[key] for row in singles]))
    test = slice(market.first_test, None)
    expected = information_coefficient(scores[0]["one"][test], label[test], rank=True)
    assert singles[0]["value"] == pytest.approx(np.nanmean(expected))
    assert mean["net_sharpe"] < mean["gross_sharpe"]
    assert rows["made up: equal weight"]["turnover"] < 0.5 * mean["turnover"]
    assert "5 tried" in rows["made up: does any earn more than equal weight? Hansen's p"]["note"]


def test_the_student_is_compared_with_others(market):
    """By differences whose signs are right, and which the page shows with their mean."""
    rng = np.random.default_rng(2)
    label = np.nan_to_num(forward_returns(market.later))
    noise = rng.standard_normal(label.shape)
    scores = {0: {"TIPS student": label + 0.05 * noise, "ridge": noise}}
    rows = market_rows(market, scores, n_resamples=50)
    name = "made up: TIPS student minus ridge"
    (found,) = (row for row in rows if row["name"] == name)
    by_name = {row["name"]: row for row in rows}
    ics = [by_name[f"made up: {model}"]["value"] for model in ("TIPS student", "ridge")]
    assert found["value"] == pytest.approx(ics[0] - ics[1])
    assert found["t"] > 5
    assert found["net_difference_low"] < found["net_difference"] < found["net_difference_high"]
    renamed = [
        {**row, "name": row["name"].replace("made up", panel)}
        for panel in ("jp_tse_100", "uk_ftse100")
        for row in rows
    ]
    text = page(renamed)
    (mean,) = (line for line in text.splitlines() if line.startswith("| ridge | **mean**"))
    assert f"{found['value']:+.4f} ({found['t'] * 2**0.5:.1f})" in mean  # half the variance
    assert text.count("\n## ") == 5  # comparisons, means, survivorship, two panels
    assert "Hansen's p" in text
    us = [
        {**row, "name": row["name"].replace("made up", panel), "net_sharpe": sharpe}
        for panel, sharpe in (("us_sp500", 1.0), ("us_sp500_members", 0.75))
        for row in rows
        if "net_sharpe" in row
    ]
    assert "| ridge | 1.00 | 0.75 | +0.25 |" in page(us)


@pytest.mark.slow
def test_the_quick_benchmark_runs():
    """All models, and the rows of speed."""
    rows = {row["name"]: row for row in tips.run(quick=True)}
    for model in ("TIPS student", "teacher ensemble", "teacher: vanilla", "GRU", "lightgbm"):
        assert np.isfinite(rows[f"made up: {model}"]["value"])
    macs = next(row for name, row in rows.items() if name.endswith("multiply-adds"))
    assert 6 < macs["ratio"] < 7  # overlapping patches make a token less
