"""The numbers of a tear sheet are those of the backtest, and the page holds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("arch")

from scipy import stats

from scikd.exceptions import InvalidInputError
from scikd.finance import (
    Analysis,
    BacktestResult,
    Panel,
    Strategy,
    analyse,
    backtest,
    comparison_report,
    deflated_sharpe_ratio,
    make_panel,
    market_regimes,
    regime_alignment,
    tear_sheet,
    write_backtest,
)
from scikd.finance._choices import warnings_of
from scikd.finance._figures import _cell, monthly
from scikd.finance._report_tables import drawdown_table, drawdowns, metric_table
from scikd.finance.experiments import by_regime, decay, group_returns, probe_luck
from scikd.finance.luck import Interval
from scikd.finance.report import verdict
from scikd.report import Figure, Table

STRATEGY = Strategy(k=5, hold=3, cost_bps=7)


@pytest.fixture(scope="module")
def market():
    return make_panel(400, 30, seed=2, signal=0.15, gaps=0.01, delistings=3)


@pytest.fixture(scope="module")
def result(market):
    return backtest(market.scores, market.panel, STRATEGY, benchmark="equal_weight")


@pytest.fixture(scope="module")
def analysis(result):
    return analyse(result, name="planted", trials=5, n_resamples=50)


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Draw small pictures, which takes less time."""
    monkeypatch.setattr("scikd._plots.DPI", 20)


def section(report, title):
    return next(section for section in report.sections if section.title == title)


# ------------------------------------------------------------------------------------- numbers


def test_decay_is_the_mean_correlation_of_ranks(result, market):
    """By SciPy, day by day, from the price of execution on."""
    panel = market.panel
    price = panel.open  # of the day after the score
    for entry in decay(result)[::2]:
        found = []
        for t in range(panel.n_dates - 1 - entry.at):
            later = price[t + 1 + entry.at] / price[t + 1] - 1
            known = panel.member[t] & np.isfinite(market.scores[t]) & np.isfinite(later)
            if known.sum() >= 3:
                found.append(stats.spearmanr(market.scores[t][known], later[known])[0])
        assert entry.value == pytest.approx(np.mean(found), rel=1e-9)
        assert entry.low < entry.value < entry.high


def test_the_interval_of_a_coefficient_is_that_of_its_t(result):
    (own,) = [entry for entry in decay(result) if entry.at == STRATEGY.hold]
    metrics = result.metrics()
    assert own.value == pytest.approx(metrics["rank_ic"].value)
    width = (own.high - own.low) / 2
    assert own.value / width == pytest.approx(metrics["rank_ic_t"].value / 1.96)


def test_groups_are_those_of_a_sort_in_python(result, market):
    panel, price, hold = market.panel, market.panel.open, STRATEGY.hold
    groups = group_returns(result)
    assert len(groups) == 5
    means = [[] for _ in groups]
    for t in range(panel.n_dates - 1 - hold):
        later = price[t + 1 + hold] / price[t + 1] - 1
        known = panel.member[t] & np.isfinite(market.scores[t]) & np.isfinite(later)
        order = np.flatnonzero(known)[np.argsort(market.scores[t][known])]
        place = ((np.arange(len(order)) + 0.5) / len(order) * 5).astype(int)
        for g in range(5):
            means[g].append((later[order[place == g]].mean() - later[known].mean()) * 252 / hold)
    for entry, values in zip(groups, means, strict=True):
        assert entry.value == pytest.approx(np.mean(values), rel=1e-9)
    assert groups[-1].value > 0 > groups[0].value


def test_other_terms_are_other_backtests(result, market, analysis):
    """Each number is what `backtest` says of the strategy with that one thing changed."""

    def sharpe(**changes):
        strategy = replace(STRATEGY, **changes)
        return backtest(market.scores, market.panel, strategy).metrics()["sharpe_ratio"].value

    for variant in analysis.costs:
        assert variant.sharpe_ratio == pytest.approx(sharpe(cost_bps=variant.at))
    for variant in analysis.lags[1:]:
        assert variant.sharpe_ratio == pytest.approx(sharpe(lag=int(variant.at)))
    for variants in (analysis.costs, analysis.lags, analysis.bill):
        (own,) = [variant for variant in variants if variant.as_run]
        assert own.sharpe_ratio == pytest.approx(sharpe())
    ratios = [variant.sharpe_ratio for variant in analysis.costs]
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.filterwarnings("ignore::scikd.exceptions.LookAheadWarning")
def test_the_bill_begins_with_the_published_numbers(market, analysis):
    published = replace(STRATEGY, lag=0, price="close", cost_bps=0.0, conventions="published")
    run = backtest(market.scores, market.panel, published)
    first, second, third, last = analysis.bill
    assert first.sharpe_ratio == pytest.approx(run.metrics()["sharpe_ratio"].value)
    assert first.calmar_ratio == pytest.approx(run.metrics()["calmar_ratio"].value)
    usual = replace(published, conventions="standard")
    ratio = backtest(market.scores, market.panel, usual).metrics()["sharpe_ratio"].value
    assert second.sharpe_ratio == pytest.approx(ratio)
    assert third.annual_return > last.annual_return
    # A strategy that was run like that is marked at the top, and its bill says what is honest.
    marked = analyse(run, n_resamples=10).bill
    assert [step.as_run for step in marked] == [True, False, False, False]
    honest = replace(STRATEGY, cost_bps=10.0)
    ratio = backtest(market.scores, market.panel, honest).metrics()["sharpe_ratio"].value
    assert marked[-1].sharpe_ratio == pytest.approx(ratio)


def test_regimes_are_those_of_the_day_before(result, market):
    bar = result.benchmark
    codes = market_regimes(market.panel).codes
    found = by_regime(result, bar)
    assert found
    first = result.rows.start
    for regime in found:
        days = [
            t
            for t in range(len(result.dates))
            if codes[first + t - 1] == market_regimes(market.panel).names.index(regime.name)
        ]
        assert regime.n_days == len(days)
        assert regime.annual_return == pytest.approx(result.returns[days].mean() * 252)
        gap = (result.returns - bar)[days].mean() * 252
        assert regime.excess == pytest.approx(gap)
        assert regime.low < gap < regime.high


def test_trials_are_counted(result):
    """As ratios they deflate as the library does; as a number they spread by luck alone."""
    settings = {"n_resamples": 10, "seed": 0}
    ratios = [0.1, -0.4, 0.9, 0.3]
    luck = probe_luck(result.returns, {}, trials=ratios, **settings)
    assert luck.n_trials == 4
    assert luck.deflated_sharpe == pytest.approx(deflated_sharpe_ratio(result.returns, ratios))
    one = probe_luck(result.returns, {}, trials=1, **settings)
    assert one.expected_best == 0.0
    many = [probe_luck(result.returns, {}, trials=n, **settings) for n in (2, 10, 100)]
    bars = [found.expected_best for found in many]
    assert bars == sorted(bars)
    assert many[-1].deflated_sharpe < one.deflated_sharpe
    # The best of ten such ratios, drawn by luck alone.
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((4000, 10)) * np.sqrt(252 / len(result.returns))
    assert many[1].expected_best == pytest.approx(drawn.max(axis=1).mean(), rel=0.05)
    with pytest.raises(InvalidInputError, match="at least one configuration"):
        probe_luck(result.returns, {}, trials=0, **settings)


def test_months_and_drawdowns_by_hand():
    dates = np.array(["2020-11-30", "2020-12-01", "2020-12-31", "2021-02-01"], dtype="M8[D]")
    years, table = monthly(dates, np.array([0.1, 0.1, -0.5, 1.0]))
    assert years.tolist() == [2020, 2021]
    assert table[0, 10] == pytest.approx(0.1)
    assert table[0, 11] == pytest.approx(1.1 * 0.5 - 1)
    assert np.isnan(table[1, 0])
    assert table[1, 1] == pytest.approx(1.0)
    # 1, .9, .99, 1.188, .594, .8: two drawdowns, one from the start, the other not over.
    returns = np.array([-0.1, 0.1, 0.2, -0.5, 0.8 / 0.594 - 1])
    deepest, other = drawdowns(returns)
    assert deepest[0] == pytest.approx(0.5)
    assert deepest[1:] == (2, 3, 5)
    assert other[0] == pytest.approx(0.1)
    assert other[1:] == (-1, 0, 2)
    assert drawdowns(np.array([0.1, 0.2])) == []


def test_drawdowns_are_counted_in_trading_days(analysis):
    assert drawdown_table(analysis).columns[-1] == "trading days from peak to recovery"


# ---------------------------------------------------------------------------------------- page


def test_the_page_holds_every_part(analysis, market):
    report = tear_sheet(analysis)
    titles = [part.title for part in report.sections]
    assert titles == [
        "What it earned",
        "Is it luck?",
        "The bill",
        "Do the scores rank?",
        "What it trades",
        "Over time",
        "In which market?",
        "All metrics, with their conventions",
        "What was done",
    ]
    figures = {i.title for s in report.sections for i in s.items if isinstance(i, Figure)}
    assert {"Equity and drawdown", "Rolling Sharpe ratio", "Returns of months (%)"} <= figures
    assert {"Rank information coefficient", "Returns by score", "Costs and delay"} <= figures
    text = report.to_text()
    assert "5 configurations are counted" in text
    html = report.to_html()
    assert html.count("data:image/png;base64,") == 2 * len(figures)
    assert "<script" not in html


def test_regimes_without_a_row_are_named_below():
    """On so few days, some regime hardly occurs."""
    market = make_panel(400, 12, seed=3)
    result = backtest(market.scores, market.panel, Strategy(k=3))
    analysis = analyse(result, n_resamples=10)
    known = market_regimes(market.panel)
    shown = [regime.name for regime in analysis.regimes]
    few = [name for name in known.names if name not in shown]
    assert shown
    assert few
    note = section(tear_sheet(analysis), "In which market?").items[0].note
    assert note.endswith(f"Without a row, for less than 60 days: {'; '.join(few)}.")


def test_the_verdict_says_once_what_is_found_alike(analysis):
    def gap(low, high):
        return Interval((low + high) / 2, low, high, 0.5)

    def said(sharpe, equal, bought):
        gaps = {"equal_weight": equal, "buy_and_hold": bought}
        luck = analysis.luck._replace(sharpe=sharpe, differences=gaps)
        return verdict(replace(analysis, luck=luck))

    unsure, better = gap(-1.0, 1.0), gap(0.5, 1.5)
    assert (
        "It is not told apart from zero or equal weight (difference +0.00, 95 % interval -1.00 to "
        "+1.00) or buy and hold (difference" in said(unsure, unsure, unsure)
    )
    text = said(better, better, better)
    assert "It is above zero; better than equal weight (difference" in text
    assert ") and buy and hold (difference" in text
    text = said(better, better, unsure)
    assert "It is above zero; better than equal weight (difference" in text
    assert "; not told apart from buy and hold (difference" in text


def test_no_zero_of_a_map_has_a_sign():
    assert [_cell(value) for value in (-0.04, 0.04, -0.06, -120.4)] == [
        "0.0",
        "0.0",
        "-0.1",
        "-120",
    ]


def test_the_table_of_metrics_says_all_conventions(result, analysis):
    table = metric_table(analysis)
    conventions = {row[-1] for row in table.rows}
    shown = {name: metric for name, metric in result.metrics().items() if name != "n_rows"}
    del shown["benchmark_sharpe_ratio"]  # it has a column
    assert {metric.convention for metric in shown.values()} == conventions
    assert len(table.rows) == len(shown)
    by_name = {row[0]: row for row in table.rows}
    assert by_name["Sharpe ratio"][1] == f"{result.metrics()['sharpe_ratio'].value:.2f}"
    bar = result.metrics()["benchmark_sharpe_ratio"].value
    assert by_name["Sharpe ratio"][2] == f"{bar:.2f}"


def test_an_alignment_joins_the_page(analysis, market):
    others = {"noise": np.random.default_rng(0).standard_normal(market.scores.shape)}
    aligned = regime_alignment(market.scores, others, market_regimes(market.panel), n_resamples=20)
    items = section(tear_sheet(analysis, alignment=aligned), "In which market?").items
    assert items[-1].title == aligned.figure().title


def test_an_alignment_is_there_when_the_page_is_drawn_again(result, analysis, market, tmp_path):
    others = {"noise": np.random.default_rng(0).standard_normal(market.scores.shape)}
    aligned = regime_alignment(market.scores, others, market_regimes(market.panel), n_resamples=20)
    folder = write_backtest(result, tmp_path / "out", analysis=analysis, alignment=aligned)
    loaded = Analysis.load(folder)
    for name, values in vars(aligned).items():
        np.testing.assert_array_equal(getattr(loaded.alignment, name), values)
    items = section(tear_sheet(loaded), "In which market?").items
    assert items[-1].title == aligned.figure().title
    written = (folder / "report.html").read_text().partition("<footer>")[0]
    assert tear_sheet(loaded).to_html().partition("<footer>")[0] == written
    assert (
        Analysis.load(write_backtest(result, tmp_path / "no", analysis=analysis)).alignment is None
    )


def test_what_was_done_is_said(market):
    strategy = Strategy(
        select="long_short", quantile=0.2, hold=2, max_weight=0.1, lag=2, price="close",
        borrow_bps_per_year=30, delisting_return=-0.3,
    )  # fmt: skip
    result = backtest(market.scores, market.panel, strategy)
    text = " ".join(tear_sheet(analyse(result, n_resamples=10)).to_text().split())
    for words in (
        "The best 20% of the members with a score are bought and the worst 20% sold short",
        "held for 2 days, in 2 sleeves",
        "No weight is above 10.0%",
        "At the close of 2 days after the score",
        "30 basis points a year on what is sold short",
        "3 assets have no price at the end any more",
        "paid out at the last price less 30%",
    ):
        assert words in text, words


def test_cautions_are_said(market):
    panel = market.panel
    close = panel.close.copy()
    close[200:, 4] *= 3.0
    jumpy = Panel(panel.dates, panel.assets, {"close": close}, name="jumpy")
    result = backtest(market.scores, jumpy, Strategy(k=5, cost_bps=0.0))
    text = " ".join(tear_sheet(analyse(result, n_resamples=10)).to_text().split())
    assert f"jump by more than 50 % in a day: {panel.assets[4]}" in text
    assert "Caution: without costs." in text
    survivors = make_panel(120, 12, seed=0)
    result = backtest(survivors.scores, survivors.panel, Strategy(k=3))
    text = " ".join(tear_sheet(analyse(result, n_resamples=10)).to_text().split())
    assert "every asset still has a price at the end" in text


def test_a_short_backtest_has_no_intervals():
    market = make_panel(12, 12, seed=0)
    analysis = analyse(backtest(market.scores, market.panel, Strategy(k=3)))
    assert analysis.luck is None
    assert "too little to say" in verdict(analysis)
    titles = [part.title for part in tear_sheet(analysis).sections]
    assert "Is it luck?" not in titles
    tear_sheet(analysis).to_html()


def test_a_folder_says_what_loads_it(result, analysis, tmp_path):
    folder = write_backtest(result, tmp_path / "out", analysis=analysis)
    with pytest.raises(InvalidInputError, match=r"write_backtest, which Analysis\.load loads"):
        BacktestResult.load(folder)
    with pytest.raises(InvalidInputError, match="overwrite=True.*--overwrite"):
        write_backtest(result, folder, analysis=analysis)
    saved = result.save(tmp_path / "result")
    with pytest.raises(InvalidInputError, match=r"and BacktestResult\.load loads it"):
        Analysis.load(saved)


def test_the_shortest_backtest_has_a_page(tmp_path):
    """Two rows, one asset: numbers that are not defined are not shown, and nothing fails."""
    dates = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[D]")
    panel = Panel(dates, ["A"], {"close": [[1.0], [1.1], [1.2]]})
    result = backtest(np.array([[1.0], [np.nan], [np.nan]]), panel, Strategy(k=1))
    write_backtest(result, tmp_path / "out")
    flat = Panel(dates, ["A"], {"close": np.ones((3, 1))})
    still = backtest(np.array([[1.0], [np.nan], [np.nan]]), flat, Strategy(k=1, cost_bps=0))
    assert "Returns do not vary" in tear_sheet(still).to_text()
    assert Analysis.load(tmp_path / "out").strategy == Strategy(k=1)


def test_weights_have_no_ranks(market):
    weights = np.where(np.isfinite(market.scores), np.sign(market.scores) / 30, np.nan)
    result = backtest(weights, market.panel, Strategy(select="weights"))
    analysis = analyse(result, n_resamples=10)
    assert analysis.decay == analysis.groups == []
    assert "Do the scores rank?" not in [part.title for part in tear_sheet(analysis).sections]
    assert analysis.facts["short"]


def test_without_matplotlib_the_page_says_so(analysis, monkeypatch):
    from scikd.exceptions import MissingExtraError

    def missing(*_, **__):
        raise MissingExtraError("A plot needs matplotlib")

    monkeypatch.setattr("scikd.report.render", missing)
    assert "A plot needs matplotlib" in tear_sheet(analysis).to_html()


# --------------------------------------------------------------------------------------- files


def test_an_analysis_comes_back_whole(result, analysis, tmp_path):
    own = result.against(np.linspace(-0.01, 0.012, len(result.dates)))
    analysis = analyse(own, benchmark="another", n_resamples=20)
    write_backtest(own, tmp_path / "out", analysis=analysis)
    again = Analysis.load(tmp_path / "out")
    assert list(again.benchmarks) == ["equal_weight", "buy_and_hold", "another"]
    for name, values in analysis.benchmarks.items():
        np.testing.assert_array_equal(again.benchmarks[name], values)
    for name, values in analysis.series.items():
        np.testing.assert_array_equal(again.series[name], values)
    for name in ("strategy", "costs", "lags", "bill", "decay", "groups", "regimes"):
        assert str(getattr(again, name)) == str(getattr(analysis, name)), name
    assert again.luck == analysis.luck
    assert set(map(str, again.metrics.items())) == set(map(str, analysis.metrics.items()))
    np.testing.assert_array_equal(again.dates, analysis.dates)
    np.testing.assert_array_equal(again.ic_dates, analysis.ic_dates)
    assert tear_sheet(again).to_text() == tear_sheet(analysis).to_text()


def test_a_comparison_counts_all(market):
    analyses = {
        f"runs/k{k}": analyse(
            backtest(market.scores, market.panel, Strategy(k=k, cost_bps=5)), n_resamples=10
        )
        for k in (3, 6, 12)
    }
    report = comparison_report(analyses, n_resamples=20)
    tables = [item for item in report.sections[0].items if isinstance(item, Table)]
    assert [row[0] for row in tables[1].rows] == ["k3", "k6", "k12"]
    ratios = [one.metrics["sharpe_ratio"].value for one in analyses.values()]
    assert tables[0].highlight_row == int(np.argmax(ratios))
    returns = list(analyses.values())[int(np.argmax(ratios))].series["returns"]
    assert f"{deflated_sharpe_ratio(returns, ratios):.3f}" in report.to_text()
    with pytest.raises(InvalidInputError, match="at least two backtests"):
        comparison_report(dict([next(iter(analyses.items()))]))
    short = make_panel(30, 12, seed=0)
    analyses["short"] = analyse(backtest(short.scores, short.panel, Strategy(k=3)))
    with pytest.raises(InvalidInputError, match="days in common"):
        comparison_report(analyses)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (Strategy(k=5), 0),
        (Strategy(), 50),
        (Strategy(select="long_short", k=20), 40),
        (Strategy(select="quantile", quantile=0.5), 0),
    ],
)
def test_money_that_lies_in_cash_for_want_of_scores_is_warned_of(market, strategy, wanted):
    found = warnings_of(analyse(backtest(market.scores, market.panel, strategy), n_resamples=20))
    said = [text for text in found if "lies in cash" in text]
    assert len(said) == (wanted > 0)
    assert not wanted or f"{wanted} assets are asked for, and 29 members" in said[0]
