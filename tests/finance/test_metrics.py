"""Metrics against other libraries, by hand, and where they are not defined."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scikd.exceptions import InvalidInputError
from scikd.finance import metrics
from tests.reference.finance_luck import naive_newey_west


def daily(seed, n=500):
    return 0.0004 + 0.01 * np.random.default_rng(seed).standard_t(4, n)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_empyrical(seed):
    empyrical = pytest.importorskip("empyrical", reason="the oracle is empyrical-reloaded")
    returns = daily(seed)
    assert metrics.cagr(returns) == pytest.approx(empyrical.annual_return(returns))
    assert metrics.volatility(returns) == pytest.approx(empyrical.annual_volatility(returns))
    assert metrics.sharpe_ratio(returns) == pytest.approx(empyrical.sharpe_ratio(returns))
    safe = empyrical.sharpe_ratio(returns, risk_free=0.03 / 252)
    assert metrics.sharpe_ratio(returns, risk_free=0.03) == pytest.approx(safe)
    assert metrics.sortino_ratio(returns) == pytest.approx(empyrical.sortino_ratio(returns))
    target = empyrical.sortino_ratio(returns, required_return=0.05 / 252)
    assert metrics.sortino_ratio(returns, target=0.05) == pytest.approx(target)
    assert metrics.max_drawdown(returns) == pytest.approx(-empyrical.max_drawdown(returns))
    assert metrics.calmar_ratio(returns) == pytest.approx(empyrical.calmar_ratio(returns))
    other = daily(seed + 100)
    excess = empyrical.excess_sharpe(returns, other) * math.sqrt(252)
    assert metrics.information_ratio(returns, other) == pytest.approx(excess)


@pytest.mark.parametrize("lags", [0, 1, 4, 20])
def test_newey_west_is_that_of_statsmodels_and_of_loops(lags):
    api = pytest.importorskip("statsmodels.api", reason="the oracle is statsmodels")
    values = np.convolve(daily(1, 120), np.ones(5), mode="valid")
    fit = api.OLS(values, np.ones(len(values))).fit(cov_type="HAC", cov_kwds={"maxlags": lags})
    assert metrics.newey_west_t(values, lags=lags) == pytest.approx(fit.tvalues[0])
    assert metrics.newey_west_t(values, lags=lags) == pytest.approx(
        naive_newey_west(values.tolist(), lags)
    )
    assert metrics.newey_west_t(values) == metrics.newey_west_t(values, lags=4)


def test_newey_west_leaves_out_what_is_missing():
    values = daily(2, 50)
    holes = np.insert(values, [3, 10], np.nan)
    assert metrics.newey_west_t(holes) == metrics.newey_west_t(values)
    assert metrics.icir(holes) == pytest.approx(values.mean() / values.std(ddof=1))


@given(
    seed=st.integers(0, 1000),
    digits=st.integers(0, 3),
    missing=st.sampled_from([0.0, 0.3, 0.9]),
    rank=st.booleans(),
)
def test_information_coefficients_are_those_of_pandas(seed, digits, missing, rank):
    rng = np.random.default_rng(seed)
    scores, returns = np.round(rng.standard_normal((2, 12, 15)), digits)
    scores[rng.random(scores.shape) < missing] = np.nan
    returns[rng.random(returns.shape) < missing / 2] = np.nan
    scores[0] = 1.7
    found = metrics.information_coefficient(scores, returns, rank=rank)
    for t in range(12):
        pair = pd.DataFrame({"x": scores[t], "y": returns[t]}).dropna()
        if len(pair) < 3 or np.ptp(pair.to_numpy(), axis=0).min() == 0:
            assert np.isnan(found[t])
        else:
            expected = pair["x"].corr(pair["y"], method="spearman" if rank else "pearson")
            assert found[t] == pytest.approx(expected, abs=1e-10)


def test_by_hand():
    returns = [0.1, -0.5, 0.2, 0.0]
    assert metrics.annual_return(returns) == pytest.approx(-0.05 * 252)
    assert metrics.max_drawdown(returns) == pytest.approx(0.5)
    assert metrics.max_drawdown(returns, kind="additive") == pytest.approx(0.5)
    assert metrics.max_drawdown([-0.1, -0.1], kind="additive") == pytest.approx(0.2)
    assert metrics.max_drawdown([-0.1, -0.1]) == pytest.approx(0.19)
    assert metrics.hit_rate(returns) == 0.5
    assert metrics.calmar_ratio(returns, kind="additive") == pytest.approx(-0.05 * 252 / 0.5)
    assert metrics.break_even_cost([0.001, 0.002], [1.0, 0.5]) == pytest.approx(20.0)
    assert metrics.cagr([-1.0, 0.5]) == -1.0
    assert metrics.volatility([0.1, 0.3], ddof=0) == pytest.approx(0.1 * math.sqrt(252))


def test_what_is_not_defined_is_nan():
    level = np.full(10, 0.001)
    undefined = [
        metrics.sharpe_ratio(level),
        metrics.sharpe_ratio([0.1]),
        metrics.volatility([0.1]),
        metrics.sortino_ratio(level),
        metrics.calmar_ratio(level),
        metrics.break_even_cost(level, np.zeros(10)),
        metrics.newey_west_t(level),
        metrics.newey_west_t([np.nan]),
        metrics.icir([0.1, np.nan]),
    ]
    assert np.isnan(undefined).all()
    assert metrics.max_drawdown(level) == 0.0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.sharpe_ratio([]), "at least one"),
        (lambda: metrics.cagr([0.1, np.nan]), "1 values that are not finite"),
        (lambda: metrics.cagr([[0.1]]), r"shape \(1, 1\)"),
        (lambda: metrics.max_drawdown([0.1], kind="relative"), "'relative'"),
        (lambda: metrics.information_ratio([0.1], [0.1, 0.2]), "1 returns.*got 2"),
        (lambda: metrics.information_coefficient([[1.0]], [[1.0, 2.0]]), "of one shape"),
        (lambda: metrics.newey_west_t([np.inf, 1.0]), "Expected finite values or NaN"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(InvalidInputError, match=match):
        call()


def test_the_information_coefficient_of_ranks_is_spearmans():
    x, y = np.random.default_rng(0).standard_normal((2, 1, 40))
    found = metrics.information_coefficient(x, y, rank=True)[0]
    assert found == pytest.approx(stats.spearmanr(x[0], y[0]).statistic)
