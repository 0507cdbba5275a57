"""The engine against plain Python, and what must hold whatever the prices are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError, LookAheadWarning
from scikd.finance import BacktestResult, Panel, Strategy, backtest, backtest_many
from scikd.finance.backtesting import benchmark_returns
from scikd.finance.kernels import selection
from scikd.finance.kernels.selection import narrow_rows, select_rows
from scikd.finance.report import tear_sheet
from tests.reference.finance_backtest import naive_backtest

pytestmark = pytest.mark.filterwarnings("ignore::scikd.exceptions.LookAheadWarning")


def make_panel(seed, n_dates=30, n_assets=8, *, gaps=0.0, delistings=0, opens=False, daily=0.02):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(daily * rng.standard_normal((n_dates, n_assets)), axis=0))
    opened = close * np.exp(0.5 * daily * rng.standard_normal(close.shape))
    lost = rng.random(close.shape) < gaps
    close[lost] = np.nan
    opened[rng.random(close.shape) < gaps] = np.nan
    for n in rng.permutation(n_assets)[:delistings]:
        end = rng.integers(n_dates // 3, n_dates)
        close[end:, n] = opened[end:, n] = np.nan
    member = rng.random(close.shape) < 0.9
    member[:, 0] = True
    fields = {"close": close} | ({"open": opened} if opens else {})
    dates = np.datetime64("2020-01-01") + np.arange(n_dates)
    return Panel(dates, [f"A{n:04}" for n in range(n_assets)], fields, member)


def make_scores(seed, panel, *, missing=0.0, digits=1):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal(panel.close.shape), digits)
    scores[rng.random(scores.shape) < missing] = np.nan
    scores[:, 0] = np.where(np.isnan(scores).all(axis=1), np.nan, rng.random(panel.n_dates))
    return scores


def numbers(result):
    return {name: metric.value for name, metric in result.metrics().items()}


# -- against the oracle --------------------------------------------------------------------------

strategies = st.builds(
    dict,
    select=st.sampled_from(["top_k", "quantile", "long_short", "weights"]),
    k=st.integers(1, 10),
    quantile=st.sampled_from([None, 0.1, 0.29, 0.5, 1.0]),
    weighting=st.sampled_from(["equal", "softmax"]),
    temperature=st.sampled_from([0.1, 1.0]),
    gross=st.sampled_from([0.5, 1.0, 1.6]),
    hold=st.integers(1, 5),
    phases=st.sampled_from(["average", "average", 0, 1, 3]),
    max_weight=st.sampled_from([None, 0.02, 0.2, 0.4]),
    max_turnover=st.sampled_from([None, 0.05, 0.6]),
    lag=st.integers(0, 2),
    price=st.sampled_from(["auto", "auto", "close"]),
    cost_bps=st.sampled_from([0.0, 10.0, 300.0]),
    borrow_bps_per_year=st.sampled_from([0.0, 500.0]),
    delisting_return=st.sampled_from([0.0, -0.3, -1.0]),
)


def made(values):
    if values["select"] == "quantile" and values["quantile"] is None:
        values["quantile"] = 0.3
    if values["phases"] != "average":
        values["phases"] %= values["hold"]
    return Strategy(**values)


@given(
    seed=st.integers(0, 10_000),
    values=strategies,
    gaps=st.sampled_from([0.0, 0.1, 0.4]),
    missing=st.sampled_from([0.0, 0.5]),
    delistings=st.integers(0, 5),
    opens=st.booleans(),
    daily=st.sampled_from([0.02, 0.4]),
)
@settings(max_examples=300)
def test_the_engine_does_what_plain_python_does(
    seed, values, gaps, missing, delistings, opens, daily
):
    panel = make_panel(seed, gaps=gaps, delistings=delistings, opens=opens, daily=daily)
    scores = make_scores(seed + 1, panel, missing=missing)
    strategy = made(values)
    expected = naive_backtest(scores, panel, strategy, initial=3.0)
    found = backtest(scores, panel, strategy, initial=3.0)

    close = {"rtol": 1e-9, "atol": 1e-11}
    before = np.concatenate([[3.0], found.equity[:-1]])
    np.testing.assert_allclose(found.equity, expected["equity"], **close)
    np.testing.assert_allclose(found.equity_of_sleeves, expected["sleeves"], **close)
    np.testing.assert_allclose(found.weights, expected["weights"], **close)
    np.testing.assert_allclose(found.costs * before, expected["cost"], **close)
    np.testing.assert_allclose(found.fees * before, expected["fee"], **close)
    np.testing.assert_allclose(found.turnover * before, expected["traded"], **close)
    assert found.n_held.tolist() == expected["n_held"]


@given(
    seed=st.integers(0, 1000),
    n_assets=st.integers(1, 200),
    digits=st.integers(0, 3),
    lowest=st.booleans(),
    missing=st.sampled_from([0.0, 0.3, 0.95]),
)
def test_the_best_are_chosen_in_a_total_order(seed, n_assets, digits, lowest, missing):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal((7, n_assets)), digits)
    scores[rng.random(scores.shape) < missing] = np.nan
    member = rng.random(scores.shape) < 0.8
    there = member & ~np.isnan(scores)
    rows = np.flatnonzero(there.any(axis=1))
    assume(len(rows))
    larger = np.array([rng.integers(1, there[t].sum() + 1) for t in rows])
    wider = select_rows(scores, member, rows, larger, lowest)
    sizes = rng.integers(1, larger + 1)
    found = select_rows(scores, member, rows, sizes, lowest)
    np.testing.assert_array_equal(narrow_rows(scores, rows, wider, sizes, lowest), found)
    for t, size, chosen in zip(rows, sizes, found, strict=True):
        order = sorted(np.flatnonzero(there[t]), key=lambda n: (-scores[t, n], n))
        wanted = order[-size:] if lowest else order[:size]
        assert chosen[:size].tolist() == sorted(wanted)
        assert (chosen[size:] == -1).all()


# -- what must hold ------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), hold=st.integers(2, 5), opens=st.booleans())
@settings(max_examples=20)
def test_all_sleeves_earn_the_mean_of_each_alone(seed, hold, opens):
    panel = make_panel(seed, 60, gaps=0.05, opens=opens)
    scores = make_scores(seed, panel)
    together = backtest(scores, panel, Strategy(k=3, hold=hold))
    alone = [
        backtest(scores, panel, Strategy(k=3, hold=hold, phases=phase)) for phase in range(hold)
    ]
    for phase, one in enumerate(alone):
        n = min(one.rows.stop, together.rows.stop) - one.rows.start
        own = together.equity_of_sleeves[phase:, phase] * hold
        np.testing.assert_allclose(own[:n], one.equity[:n])
    np.testing.assert_allclose(together.equity, together.equity_of_sleeves.sum(axis=1))


@given(seed=st.integers(0, 1000), cost=st.sampled_from([0.0, 10.0, 500.0]))
@settings(max_examples=30)
def test_a_long_book_never_borrows(seed, cost):
    panel = make_panel(seed, gaps=0.2, delistings=2)
    result = backtest(make_scores(seed, panel), panel, Strategy(k=3, hold=2, cost_bps=cost))
    assert (result.weights >= 0).all()
    assert (result.weights.sum(axis=1) <= 1 + 1e-12).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_nothing_before_a_date_depends_on_what_comes_after(seed):
    panel = make_panel(seed, opens=True)
    scores = make_scores(seed, panel)
    rng = np.random.default_rng(seed)
    t = int(rng.integers(5, 25))
    later = scores.copy()
    later[t:] = rng.standard_normal(later[t:].shape)
    moved = {name: values.copy() for name, values in panel.fields.items()}
    for values in moved.values():
        values[t + 1 :] *= np.exp(rng.standard_normal(values[t + 1 :].shape))
    other = Panel(panel.dates, panel.assets, moved, panel.member)
    strategy = Strategy(k=3, hold=2)
    first, second = backtest(scores, panel, strategy), backtest(later, other, strategy)
    until = t + 1 - first.rows.start  # rows up to t
    np.testing.assert_array_equal(first.equity[:until], second.equity[:until])
    assert not np.allclose(first.equity[until:], second.equity[until:])


@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
@settings(max_examples=20)
def test_returns_do_not_depend_on_currency_or_wealth(seed, factor):
    panel = make_panel(seed, gaps=0.1)
    scores = make_scores(seed, panel)
    scaled = Panel(panel.dates, panel.assets, {"close": panel.close * factor}, panel.member)
    strategy = Strategy(k=3, hold=3)
    one = backtest(scores, panel, strategy)
    np.testing.assert_allclose(one.returns, backtest(scores, scaled, strategy).returns, atol=1e-12)
    rich = backtest(scores, panel, strategy, initial=1e6)
    np.testing.assert_allclose(one.returns, rich.returns, atol=1e-12)


def test_costs_make_the_whole_difference_between_gross_and_net():
    panel = make_panel(0, 200, 20)
    result = backtest(make_scores(0, panel), panel, Strategy(k=5, cost_bps=25))
    np.testing.assert_allclose(result.gross_returns - result.returns, result.costs + result.fees)
    np.testing.assert_allclose(result.costs, 25e-4 * result.turnover, rtol=1e-12)


def test_many_give_what_one_gives_to_the_last_bit():
    panel = make_panel(0, 100, 30, gaps=0.05, delistings=3, opens=True)
    scores = make_scores(0, panel, missing=0.1)
    configurations = [
        Strategy(select=select, k=k, hold=hold, cost_bps=cost, quantile=0.2, weighting=weighting)
        for select in ("top_k", "long_short", "quantile")
        for k in (1, 7)
        for hold in (1, 4)
        for cost in (0, 10)
        for weighting in ("equal", "softmax")
    ]
    many = backtest_many(scores, panel, configurations, n_jobs=2, benchmark="equal_weight")
    assert [one.strategy for one in many] == configurations
    for strategy, one in zip(configurations, many, strict=True):
        alone = backtest(scores, panel, strategy, benchmark="equal_weight")
        np.testing.assert_array_equal(one.equity, alone.equity)
        np.testing.assert_array_equal(one.benchmark, alone.benchmark)
        assert numbers(one) == pytest.approx(numbers(alone), nan_ok=True, abs=0, rel=0)
        assert one.trades is None
    with pytest.raises(InvalidInputError, match="did not keep"):
        _ = many[0].weights


@given(seed=st.integers(0, 1000), n_jobs=st.sampled_from([None, 1, 2, 3]))
@settings(max_examples=15)
def test_choices_of_any_width_share_work_and_change_no_bit(seed, n_jobs):
    panel = make_panel(seed, n_assets=12, gaps=0.1)
    scores = make_scores(seed, panel, missing=0.2)
    configurations = [
        Strategy(select=select, hold=hold, **width)
        for hold in (1, 3)
        for select, width in (
            ("top_k", {"k": 2}),
            ("quantile", {"quantile": 0.4}),
            ("long_short", {"quantile": 0.3, "weighting": "softmax"}),
            ("long_short", {"k": 2}),
            ("top_k", {"k": 7, "weighting": "softmax"}),
        )
    ]
    many = backtest_many(scores, panel, configurations, n_jobs=n_jobs)
    for strategy, one in zip(configurations, many, strict=True):
        alone = backtest(scores, panel, strategy)
        np.testing.assert_array_equal(one.equity_of_sleeves, alone.equity_of_sleeves)
        np.testing.assert_array_equal(one.turnover, alone.turnover)


def test_a_narrow_choice_is_taken_out_of_a_wide_one(monkeypatch):
    panel = make_panel(0)
    calls = []

    def counted(*given):
        calls.append(given)
        return select_rows(*given)

    monkeypatch.setattr(selection, "select_rows", counted)
    backtest_many(make_scores(0, panel), panel, [Strategy(k=k) for k in (1, 3, 5, 2)])
    assert len(calls) == 1


def test_a_series_of_returns_is_laid_over_the_dates():
    panel = make_panel(0, n_dates=40)
    scores = make_scores(0, panel)
    returns = 0.01 * np.random.default_rng(1).normal(size=40)
    days = pd.DatetimeIndex(panel.dates)
    own = pd.Series(returns, index=days)
    longer = pd.concat([pd.Series([9.0], index=days[:1] - pd.Timedelta(days=9)), own])
    strategy = Strategy(k=2)
    expected = backtest(scores, panel, strategy, benchmark=returns)
    for series in (
        own.iloc[::-1],
        longer,
        longer.tz_localize("Asia/Tokyo"),
        own.set_axis(panel.dates.astype(str)),
    ):
        found = backtest(scores, panel, strategy, benchmark=series)
        (many,) = backtest_many(scores, panel, [strategy], benchmark=series)
        for one in (found, many, found.against(series)):
            np.testing.assert_array_equal(one.benchmark, expected.benchmark)
        np.testing.assert_array_equal(benchmark_returns(found, series), expected.benchmark)
    gone = expected.dates[[3, 5]]
    lacking = own.drop(gone)
    lacking.iloc[-1] = np.nan
    message = (
        f"no return on 3 of 39 dates of the result, such as {gone[0]}, {gone[1]}, {panel.dates[-1]}"
    )
    for ask in (expected.against, lambda it: backtest(scores, panel, strategy, benchmark=it)):
        with pytest.raises(InvalidInputError, match=message):
            ask(lacking)
        with pytest.raises(
            InvalidInputError, match="each date of the benchmark once; 1 come again"
        ):
            ask(pd.concat([own, own.iloc[:1]]))
        with pytest.raises(InvalidInputError, match="index of the benchmark; got "):
            ask(own.reset_index(drop=True))
        with pytest.raises(InvalidInputError, match="a pandas Series of returns by date"):
            ask(own.to_frame())


# -- by hand -------------------------------------------------------------------------------------


def small_panel(close, opened=None, member=None):
    close = np.array(close, dtype=float)
    fields = {"close": close} | ({} if opened is None else {"open": np.array(opened, dtype=float)})
    dates = np.datetime64("2020-01-01") + np.arange(len(close))
    return Panel(dates, [f"A{n}" for n in range(close.shape[1])], fields, member)


def test_a_score_earns_from_the_next_close_on():
    panel = small_panel([[10, 10], [20, 10], [30, 10], [60, 5]])
    scores = np.full((4, 2), np.nan)
    scores[0] = [1, 0]
    result = backtest(scores, panel, Strategy(k=1, cost_bps=0))
    assert result.dates[0] == panel.dates[1]
    np.testing.assert_allclose(result.returns, [0, 0.5])


def test_a_score_earns_from_the_next_open_on_if_there_is_one():
    panel = small_panel([[10, 1], [20, 1], [30, 1]], [[10, 1], [16, 1], [40, 1]])
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [np.nan, np.nan]])
    result = backtest(scores, panel, Strategy(k=1, cost_bps=0))
    np.testing.assert_allclose(result.returns, [20 / 16 - 1, 0.5])


def test_costs_are_paid_from_what_is_invested():
    panel = small_panel([[10], [10], [10], [10]])
    scores = np.array([[1.0], [1.0], [0.0], [np.nan]])
    result = backtest(scores, panel, Strategy(select="weights", cost_bps=100))
    money = 1 / 1.01
    np.testing.assert_allclose(result.equity, [money, money, money * 0.99])
    np.testing.assert_allclose(result.turnover, [money, 0, 1])


def test_what_has_no_price_on_the_day_is_left_out_and_not_bought_later():
    panel = small_panel([[10, 10, 10], [10, np.nan, 10], [20, 20, 10]], member=np.ones((3, 3)) > 0)
    scores = np.full((3, 3), np.nan)
    scores[0] = [2, 1, 0]
    result = backtest(scores, panel, Strategy(k=2, cost_bps=0, hold=2))
    np.testing.assert_allclose(result.equity, [1.0, 1.25])  # half of one of two sleeves


def test_what_cannot_be_sold_stays_and_ties_up_its_value():
    nan = np.nan
    panel = small_panel(
        [[10, 10], [10, 10], [nan, 10], [20, 10], [20, 10]], member=np.ones((5, 2)) > 0
    )
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [nan, nan], [nan, nan]])
    result = backtest(scores, panel, Strategy(k=1, cost_bps=0))
    np.testing.assert_allclose(result.weights, [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(result.equity, [1, 1, 2, 2])


def test_what_disappears_is_paid_out():
    nan = np.nan
    panel = small_panel([[10, 10], [10, 10], [20, 10], [nan, 10], [nan, 10]])
    scores = np.array([[1.0, 0.0], *[[nan, nan]] * 4])
    strategy = Strategy(k=1, cost_bps=0, delisting_return=-0.25, hold=4, phases=0)
    result = backtest(scores, panel, strategy)
    np.testing.assert_allclose(result.equity, [1, 2, 1.5, 1.5])
    assert result.n_held.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(result.trades.prices, [10, 15])


def test_a_sleeve_that_has_lost_everything_is_closed():
    panel = small_panel([[10, 10], [10, 10], [35, 10], [5, 10], [5, 10]])
    scores = np.array([[-1.0, 0.0], *[[np.nan, np.nan]] * 4])
    strategy = Strategy(select="weights", cost_bps=0, borrow_bps_per_year=0, hold=4, phases=0)
    result = backtest(scores, panel, strategy)
    np.testing.assert_allclose(result.equity, [1, 0, 0, 0])
    np.testing.assert_allclose(result.returns, [0, -1, 0, 0])
    assert not result.weights[1:].any()


def test_short_sales_pay_their_fee():
    panel = small_panel([[10, 10]] * 4)
    scores = np.array([[1.0, -1.0]] * 3 + [[np.nan] * 2])
    strategy = Strategy(
        select="long_short", k=1, cost_bps=0, borrow_bps_per_year=252, hold=3, phases=0
    )
    result = backtest(scores, panel, strategy)
    np.testing.assert_allclose(result.weights[0], [0.5, -0.5])
    np.testing.assert_allclose(np.diff(result.equity), -0.5 * 1e-4)


def test_equal_scores_are_chosen_by_the_order_of_the_assets():
    panel = make_panel(0, 10, 6)
    panel = Panel(panel.dates, panel.assets, panel.fields, np.ones((10, 6), bool))
    level = np.zeros((10, 6))
    result = backtest(level, panel, Strategy(select="long_short", k=2, cost_bps=0))
    assert (result.weights[:, :2] > 0).all()
    assert (result.weights[:, 2:4] == 0).all()
    assert (result.weights[:, 4:] < 0).all()


def test_a_day_without_scores_changes_nothing_and_few_scores_leave_cash():
    panel = make_panel(0, 6, 6, daily=0.0)
    panel = Panel(panel.dates, panel.assets, panel.fields, np.ones((6, 6), bool))
    scores = np.arange(36.0).reshape(6, 6)
    scores[1] = np.nan
    scores[2, 1:] = np.nan
    result = backtest(scores, panel, Strategy(k=2, cost_bps=0))
    np.testing.assert_allclose(result.weights[0], result.weights[1])
    np.testing.assert_allclose(result.weights[2], [0.5, 0, 0, 0, 0, 0])


def test_benchmarks_are_run_by_the_same_engine():
    panel = make_panel(3, 80, 10, gaps=0.0)
    panel = Panel(panel.dates, panel.assets, panel.fields, np.ones((80, 10), bool))
    scores = make_scores(3, panel)
    result = backtest(scores, panel, Strategy(k=3, price="close"), benchmark="equal_weight")
    moves = panel.close[2:] / panel.close[1:-1] - 1
    np.testing.assert_allclose(result.benchmark[1:], moves.mean(axis=1))
    held = backtest(scores, panel, Strategy(k=3, price="close"), benchmark="buy_and_hold")
    worth = (panel.close[1:] / panel.close[1]).mean(axis=1)
    np.testing.assert_allclose(np.cumprod(1 + held.benchmark), worth)
    given = backtest(scores, panel, Strategy(k=3), benchmark=np.full(80, 0.001))
    assert given.metrics()["benchmark_sharpe_ratio"].convention
    assert np.isnan(given.metrics()["benchmark_sharpe_ratio"].value)


@pytest.mark.parametrize(
    ("benchmark", "seen"),
    [
        (3000.0 * 1.001 ** np.arange(80), "half of them are beyond 3122, up or down"),
        (1.0 + 0.001 * np.arange(80), "half of them are beyond 1.04, up or down"),
        (np.where(np.arange(80) == 40, -1.2, 0.3), "1 are below -1, such as -1.2 on 20"),
    ],
)
def test_levels_and_per_cents_are_no_returns_of_a_benchmark(benchmark, seen):
    panel = make_panel(3, 80, 10)
    scores = make_scores(3, panel)
    result = backtest(scores, panel, Strategy(k=3))
    for one in (benchmark, pd.Series(benchmark, pd.DatetimeIndex(panel.dates))):
        with pytest.raises(InvalidInputError, match=rf"as fractions .*; {seen}.*pct_change\(\)"):
            backtest(scores, panel, Strategy(k=3), benchmark=one)
        with pytest.raises(InvalidInputError, match="as fractions"):
            result.against(one[result.rows])
    levels = pd.Series(3000.0 * 1.001 ** np.arange(80), pd.DatetimeIndex(panel.dates))
    made = backtest(scores, panel, Strategy(k=3), benchmark=levels.pct_change())
    np.testing.assert_allclose(made.benchmark, 0.001)


def test_benchmarks_leave_out_members_without_a_price():
    close = np.array([[10, np.nan], [11, np.nan], [12.1, 50], [13.31, 50], [14.641, 50]])
    panel = small_panel(close, member=np.ones((5, 2), bool))
    scores = np.where([True, False], 1.0, np.full((5, 2), np.nan))
    result = backtest(scores, panel, Strategy(k=1, cost_bps=0), benchmark="equal_weight")
    np.testing.assert_allclose(result.returns, [0, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(result.benchmark, [0, 0.1, 0.1, 0.05])  # the second joins in row 3
    held = backtest(scores, panel, Strategy(k=1, cost_bps=0), benchmark="buy_and_hold")
    np.testing.assert_allclose(held.benchmark, result.returns)


def test_benchmarks_wait_for_the_first_price():
    close = np.array([[np.nan, np.nan], [10, 20], [11, 22], [12.1, 24.2]])
    panel = small_panel(close, member=np.ones((4, 2), bool))
    for name in ("equal_weight", "buy_and_hold"):
        result = backtest(np.ones((4, 2)), panel, Strategy(k=2, cost_bps=0), benchmark=name)
        np.testing.assert_allclose(result.returns, [0, 0.1, 0.1])
        np.testing.assert_allclose(result.benchmark, [0, 0, 0.1])


def test_the_published_protocol_is_optimistic_in_each_of_its_ways():
    panel = make_panel(5, 120, 20, opens=True)
    scores = make_scores(5, panel, digits=6)
    result = backtest(scores, panel, Strategy.published())
    phases = []
    for phase in range(5):
        value, values, held, units = 1.0, [], [0], np.zeros(1)
        for t in range(phase, 120):
            value = units @ panel.close[t, held] if t > phase else 1.0
            if (t - phase) % 5 == 0:
                order = np.argsort(-np.where(panel.member[t], scores[t], np.nan))[:5]
                weights = np.exp(scores[t, order]) / np.exp(scores[t, order]).sum()
                units = value * weights / panel.close[t, order]
                held = order
            values.append(value)
        phases.append(np.diff(np.array([1.0, *values])) / np.array([1.0, *values[:-1]]))
    found = result.metrics()
    sharpe = np.mean([one.mean() / one.std() * np.sqrt(252) for one in phases])
    assert found["sharpe_ratio"].value == pytest.approx(sharpe)
    assert found["annual_return"].value == pytest.approx(np.mean([p.mean() for p in phases]) * 252)
    falls = []
    for one in phases:
        total = np.concatenate([[0.0], np.cumsum(one)])
        falls.append(max(total[: i + 1].max() - total[i] for i in range(len(total))))
    assert found["max_drawdown"].value == pytest.approx(np.mean(falls))
    assert "ddof 0" in found["sharpe_ratio"].convention
    assert result.costs.sum() == 0


# -- results -------------------------------------------------------------------------------------


def test_a_result_that_is_saved_comes_back(tmp_path):
    panel = make_panel(1, 60, 10, delistings=2)
    strategy = Strategy(select="long_short", k=2, hold=3)
    result = backtest(make_scores(1, panel), panel, strategy, benchmark="buy_and_hold")
    back = BacktestResult.load(result.save(tmp_path / "result"))
    assert back.strategy == strategy
    assert numbers(back) == pytest.approx(numbers(result), nan_ok=True, abs=0, rel=0)
    np.testing.assert_array_equal(back.weights, result.weights)
    np.testing.assert_array_equal(back.dates, result.dates)
    assert back.trades_frame().equals(result.trades_frame())
    assert back.to_frame().equals(result.to_frame())


def test_frames_and_trades_tell_the_same_story():
    panel = make_panel(1, 60, 10)
    result = backtest(make_scores(1, panel), panel, Strategy(k=3), initial=100.0)
    frame, trades = result.to_frame(), result.trades_frame()
    traded = trades["value"].abs().groupby(trades["date"]).sum()
    before = frame["equity"].shift(fill_value=100.0)
    np.testing.assert_allclose(traded / before.loc[traded.index], frame["turnover"][traded.index])
    cash = 100.0 - (trades["value"] + 1e-3 * trades["value"].abs()).sum()
    last = dict(zip(panel.assets, panel.close[result.rows][-1], strict=True))
    units = trades.groupby("asset")["units"].sum()
    held = sum(units[asset] * last[asset] for asset in units.index if abs(units[asset]) > 1e-9)
    assert cash + held == pytest.approx(frame["equity"].iloc[-1])
    assert "Sharpe" in repr(result)
    after = trades.groupby("asset")["held"].last()
    np.testing.assert_allclose(after, units[after.index], atol=1e-12)


def test_a_result_does_not_change_with_the_array_of_its_scores():
    panel = make_panel(5)
    scores = make_scores(5, panel)
    again = backtest(scores.copy(), panel, Strategy(k=2)).rank_ic
    result = backtest(scores, panel, Strategy(k=2))
    scores[:] = 0.0
    np.testing.assert_array_equal(result.rank_ic, again)


def test_every_metric_says_its_convention():
    panel = make_panel(1, 60, 10)
    for strategy in (Strategy(k=3), Strategy.published(k=2)):
        found = backtest(make_scores(1, panel), panel, strategy).metrics()
        assert {"sharpe_ratio", "calmar_ratio", "break_even_cost", "rank_ic", "icir"} <= set(found)
        assert all(metric.convention and np.isfinite(metric.value) for metric in found.values())


# -- refusals ------------------------------------------------------------------------------------


def test_execution_at_the_same_close_is_asked_for_and_warned_of():
    panel = make_panel(1)
    with pytest.warns(LookAheadWarning, match="nobody can"):
        backtest(make_scores(1, panel), panel, Strategy(k=2, lag=0))
    assert Strategy().lag == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s[:, :3], r"shape \(30, 8\)"),
        (lambda s: np.full(s.shape, np.nan), "All scores are NaN"),
        (
            lambda s: np.where(np.arange(30)[:, None] == 3, np.inf, s),
            "8 scores are infinite.*01-04",
        ),
        (lambda s: s.astype(str).astype(object) + "x", "as numbers"),
        (lambda s: np.where(np.arange(30)[:, None] < 28, np.nan, s), "at least 2 later ones"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(change, match):
    panel = make_panel(1)
    scores = make_scores(1, panel)
    with pytest.raises(InvalidInputError, match=match):
        backtest(change(scores)[:], panel, Strategy(k=2, lag=1))


def test_a_day_with_an_empty_universe_is_refused_by_date():
    panel = make_panel(1)
    member = panel.member.copy()
    member[4] = False
    with pytest.raises(InvalidInputError, match="on 1 date: 2020-01-05. Check"):
        backtest(make_scores(1, panel), panel.with_members(member), Strategy(k=2))


def test_a_panel_of_one_day_is_refused():
    panel = make_panel(1).select(slice(0, 1))
    with pytest.raises(InvalidInputError, match="panel ends"):
        backtest(np.ones((1, 8)), panel, Strategy(k=2))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"select": "best"}, "select has to be one of"),
        ({"k": 0, "hold": 0}, "k has to be.*; hold has to be"),
        ({"k": 2.5}, "k has to be an integer"),
        ({"select": "quantile"}, "required by select='quantile'"),
        ({"quantile": 1.5}, r"in \(0, 1\]"),
        ({"hold": 3, "phases": 3}, "phases has to be"),
        ({"lag": -1}, "lag has to be"),
        ({"lag": 0, "price": "open"}, "the open is over"),
        ({"cost_bps": -1}, "cost_bps has to be"),
        ({"cost_bps": 10_000}, "below 10000"),
        ({"cost_bps": 6_000, "gross": 2}, "below 5000"),
        ({"max_weight": 0}, "max_weight has to be above 0"),
        ({"max_turnover": float("nan")}, "max_turnover has to be"),
        ({"delisting_return": -1.5}, "delisting_return has to be"),
        ({"temperature": 0}, "temperature has to be"),
        ({"borrow_bps_per_year": -3}, "borrow_bps_per_year has to be"),
    ],
)
def test_strategies_that_make_no_sense_are_refused(values, match):
    with pytest.raises(InvalidInputError, match=match):
        Strategy(**values)


def test_other_bad_input_is_refused():
    panel = make_panel(1)
    scores = make_scores(1, panel)
    with pytest.raises(InvalidInputError, match="has none"):
        backtest(scores, panel, Strategy(k=2, price="open"))
    for initial in (0, "1"):
        with pytest.raises(InvalidInputError, match="initial="):
            backtest(scores, panel, Strategy(k=2), initial=initial)
    with pytest.raises(InvalidInputError, match=r"Strategy\(k=50\); got 'top_k'"):
        backtest(scores, panel, "top_k")
    with pytest.raises(InvalidInputError, match="Strategy"):
        backtest_many(scores, panel, [{"k": 2}])
    with pytest.raises(InvalidInputError, match="a Panel, after the scores; got a ndarray"):
        backtest(panel, scores, Strategy(k=2))
    with pytest.raises(InvalidInputError, match="benchmark as"):
        backtest(scores, panel, Strategy(k=2), benchmark="sp500")
    with pytest.raises(InvalidInputError, match="no return on 29 of 29 dates"):
        backtest(scores, panel, Strategy(k=2), benchmark=np.full(30, np.nan))
    result = backtest(scores, panel, Strategy(k=2))
    with pytest.raises(
        InvalidInputError, match=r"shape \(29,\), one return for each .* the result"
    ):
        result.against(np.zeros(30))
    with pytest.raises(InvalidInputError, match="at least one strategy"):
        backtest_many(scores, panel, [])


def test_metrics_of_scores_that_rank_nothing_are_nan():
    """Equal scores and a single asset have the same keys as others, so that tables line up."""
    panel = make_panel(3, 80, 4)
    usual = backtest(np.random.default_rng(0).random(panel.close.shape), panel, Strategy(k=2))
    for some in (panel, panel.select(assets=panel.assets[:1])):
        result = backtest(np.zeros(some.close.shape), some, Strategy(k=1))
        found = result.metrics()
        assert found.keys() == usual.metrics().keys()
        assert np.isnan([found[key].value for key in ("ic", "rank_ic", "icir", "rank_ic_t")]).all()
        tear_sheet(result)  # and it can be drawn
