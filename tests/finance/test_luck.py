"""Tests of luck: against published numbers, loops, and markets whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from scikd.exceptions import DoubtfulInputWarning, InvalidInputError
from scikd.finance import (
    Strategy,
    backtest,
    backtest_many,
    backtest_overfitting,
    confidence_set,
    deflated_sharpe_ratio,
    judge,
    make_panel,
    probabilistic_sharpe_ratio,
    sharpe_difference,
    sharpe_interval,
    superior_ability,
)
from scikd.finance.luck import expected_best_sharpe, sharpe_probability
from scikd.finance.metrics import newey_west_t, sharpe_ratio
from tests.reference.finance_luck import naive_deflated, naive_overfitting


def daily(seed, shape=750, mean=0.0, deviation=0.01):
    return mean + deviation * np.random.default_rng(seed).standard_normal(shape)


# -- the deflated Sharpe ratio -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_trials", "skewness", "kurtosis", "published"),
    [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)],
)
def test_the_example_of_the_paper(n_trials, skewness, kurtosis, published):
    # Bailey and Lopez de Prado (2014): an annual ratio of 2.5 over five years of 250 days, found by
    # trials whose annual ratios have a variance of 1/2.
    best = expected_best_sharpe(n_trials, 0.5 / 250)
    found = sharpe_probability(2.5 / math.sqrt(250), best, 1250, skewness, kurtosis)
    assert found == pytest.approx(published, abs=5e-5)
    if n_trials == 100:
        assert best == pytest.approx(0.1132, abs=5e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_deflated_ratio_is_that_of_loops(seed):
    returns = daily(seed, mean=0.0008) ** 3 * 1e3 + 0.001
    trials = np.random.default_rng(seed).normal(0.3, 0.8, 20)
    expected = naive_deflated(returns.tolist(), trials.tolist())
    assert deflated_sharpe_ratio(returns, trials) == pytest.approx(expected, rel=1e-9)


def test_more_trials_leave_less_of_a_ratio():
    returns = daily(0, mean=0.0007)
    trials = np.random.default_rng(0).normal(0.0, 0.5, 50)
    values = [deflated_sharpe_ratio(returns, trials, n_trials=n) for n in (1, 2, 10, 50, 1000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == probabilistic_sharpe_ratio(returns)
    assert values[3] == deflated_sharpe_ratio(returns, trials)


def test_the_expected_best_of_trials_is_what_simulation_gives():
    best = np.random.default_rng(0).standard_normal((20_000, 50)).max(axis=1)
    # The formula is an approximation for many trials.
    assert expected_best_sharpe(50, 1.0) == pytest.approx(best.mean(), rel=0.02)


def test_a_probability_of_a_ratio_has_its_size():
    # Of returns without a mean, the probability is below 5 % in 5 % of the samples.
    found = np.array([probabilistic_sharpe_ratio(daily(seed, 300)) for seed in range(400)])
    assert stats.kstest(found, "uniform").pvalue > 0.01


# -- overfitting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_rows", "n_blocks"), [(60, 6), (101, 4)])
def test_overfitting_is_that_of_loops(n_rows, n_blocks):
    returns = daily(3, (n_rows, 7))
    returns[:, 6] = returns[:, 5]  # equal ones share their rank
    expected, logits = naive_overfitting(returns.T.tolist(), n_blocks)
    found = backtest_overfitting(returns, n_blocks=n_blocks)
    assert found.probability == expected
    np.testing.assert_allclose(found.logits, logits)


def test_overfitting_tells_luck_from_merit():
    luck = [backtest_overfitting(daily(seed, (500, 20)), n_blocks=8) for seed in range(30)]
    assert np.mean([one.probability for one in luck]) == pytest.approx(0.5, abs=0.12)
    merit = daily(0, (500, 20))
    merit[:, 4] += 0.002
    found = backtest_overfitting(merit, n_blocks=8)
    assert found.probability < 0.02
    assert found.probability_of_loss < 0.05
    assert found.in_sample.mean() > 0


# -- resampling ----------------------------------------------------------------------------------


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    truth = 0.001 / 0.01 * math.sqrt(252)
    hits = 0
    for seed in range(100):
        found = sharpe_interval(daily(seed, 400, mean=0.001), level=0.9, n_resamples=300)
        assert found.low < found.estimate < found.high
        hits += found.low <= truth <= found.high
    assert 80 <= hits <= 99


def test_the_difference_of_alike_strategies_is_small_and_of_unlike_ones_is_found():
    common = daily(0)
    same = sharpe_difference(common, common)
    assert same.estimate == same.low == same.high == 0.0
    assert same.p_value == 1.0
    better = sharpe_difference(common + 0.002, common + daily(1, deviation=0.001))
    assert better.low > 0
    assert better.p_value < 0.01


def test_serial_dependence_asks_for_longer_blocks_and_wider_intervals():
    smooth = np.convolve(daily(0, 1000), np.ones(10) / 10, mode="valid")
    chosen, short = sharpe_interval(smooth), sharpe_interval(smooth, block=1)
    assert chosen.high - chosen.low > 1.5 * (short.high - short.low)


def test_the_same_seed_gives_the_same_interval():
    returns = daily(0)
    assert sharpe_interval(returns, n_resamples=50) == sharpe_interval(returns, n_resamples=50)
    other = sharpe_interval(returns, n_resamples=50, seed=1)
    assert other != sharpe_interval(returns, n_resamples=50)


def test_superior_ability_is_found_where_it_is_and_not_where_it_is_not():
    benchmark = daily(99, 500)
    none = [
        superior_ability(daily(seed, (500, 10)), benchmark, n_resamples=200)["consistent"]
        for seed in range(10)
    ]
    assert np.mean(np.array(none) < 0.05) <= 0.3
    models = daily(0, (500, 10))
    models[:, 3] += 0.003
    found = superior_ability({f"m{i}": models[:, i] for i in range(10)}, benchmark)
    assert found["consistent"] < 0.01
    assert found["lower"] <= found["consistent"] <= found["upper"]


def test_the_confidence_set_holds_the_best_and_drops_the_worst():
    models = daily(0, (600, 5))
    models[:, 2] += 0.003
    names = ["a", "b", "c", "d", "e"]
    found = confidence_set(dict(zip(names, models.T, strict=True)), n_resamples=300)
    assert found.included == ("c",)
    assert found.p_values["c"] == 1.0
    assert max(found.p_values[name] for name in "abde") < 0.05
    alike = confidence_set(daily(5, (600, 4)), n_resamples=300)
    assert set(alike.included) == {"0", "1", "2", "3"}


def test_equal_configurations_are_in_the_confidence_set_together_or_not_at_all():
    models = daily(0, (600, 3))
    models[:, 2] += 0.003
    again = models[:, [2, 0, 2, 1, 0]]
    found, plain = (confidence_set(one, n_resamples=300) for one in (again, models[:, [2, 0, 1]]))
    assert found.included == ("0", "2")
    assert list(found.p_values.values()) == [plain.p_values[name] for name in "01021"]
    same = confidence_set(models[:, [1, 1]])
    assert same.included == ("0", "1")


def test_what_is_the_benchmark_is_not_superior_to_it():
    benchmark = daily(0, 200)
    nothing = superior_ability(np.column_stack([benchmark, benchmark]), benchmark)
    assert set(nothing.values()) == {1.0}
    models = daily(1, (200, 3))
    plain = superior_ability(models, benchmark, n_resamples=100)
    assert superior_ability(np.c_[models, benchmark], benchmark, n_resamples=100) == plain


# -- the engine on markets whose truth is known --------------------------------------------------


def mean_of_best(n_assets, k):
    """Mean of the k largest of n standard normal numbers: each counts if it is among them."""

    def among(z):
        return stats.binom.cdf(k - 1, n_assets - 1, stats.norm.sf(z))

    value, _ = integrate.quad(lambda z: z * stats.norm.pdf(z) * among(z), -9, 9, limit=200)
    return value * n_assets / k


@pytest.mark.parametrize("cost_bps", [0.0, 10.0])
def test_a_planted_signal_earns_its_closed_form(cost_bps):
    n_dates, n_assets, k, signal, volatility = 4000, 100, 20, 0.08, 0.02
    market = make_panel(
        n_dates, n_assets, seed=1, signal=signal, volatility=volatility, fields=("close",)
    )
    result = backtest(market.scores, market.panel, Strategy(k=k, cost_bps=cost_bps))
    mean = volatility * signal * mean_of_best(n_assets, k)
    # Of those held, k / n are chosen again; what these have moved by is traded back, which is
    # little: sqrt(2 / pi) of a volatility.
    kept = k / n_assets
    traded = 2 * (1 - kept) + kept * volatility * math.sqrt(2 / math.pi)
    deviation = volatility * math.sqrt((1 - signal**2) / k)
    expected = (mean - cost_bps * 1e-4 * traded) / deviation * math.sqrt(252)
    error = math.sqrt(252 / n_dates * (1 + expected**2 / 252 / 2))
    assert abs(sharpe_ratio(result.returns) - expected) < 2.5 * error
    assert expected > 8 * error  # so that the test could fail
    assert result.turnover[1:].mean() == pytest.approx(traded, rel=0.01)
    assert result.ic.mean() == pytest.approx(signal, abs=3 / math.sqrt(n_dates * n_assets))


def test_shuffled_scores_earn_nothing_that_can_be_told_from_zero():
    # Without costs: with them, shuffled scores lose, and significantly so.
    market = make_panel(400, 30, seed=3, signal=0.2, fields=("close",))
    rejected, t_values = 0, []
    for seed in range(100):
        shuffled = np.random.default_rng(seed).permuted(market.scores, axis=1)
        result = backtest(
            shuffled,
            market.panel,
            Strategy(select="long_short", k=5, hold=2, cost_bps=0, borrow_bps_per_year=0),
        )
        t_values.append(newey_west_t(result.returns))
        rejected += probabilistic_sharpe_ratio(result.returns) > 0.95
    # 5 % of 100 tests reject; more than 12 do with a probability of 0.1 %.
    assert rejected <= 12
    assert stats.kstest(t_values, "norm").pvalue > 0.01
    true = backtest(market.scores, market.panel, Strategy(select="long_short", k=5, cost_bps=10))
    assert probabilistic_sharpe_ratio(true.returns) > 0.999


def test_all_that_was_tried_is_judged_at_once():
    market = make_panel(800, 30, seed=3, signal=0.2, fields=("close",))
    luck = np.random.default_rng(0).standard_normal(market.scores.shape)
    configurations = [Strategy(k=k, hold=hold) for k in (3, 6) for hold in (1, 2)]
    lucky = judge(backtest_many(luck, market.panel, configurations), n_resamples=200)
    assert lucky.n_tried == 4
    assert lucky.deflated_sharpe < 0.9
    assert min(lucky.superior.values()) > 0.05

    able = backtest_many(market.scores, market.panel, configurations)
    named = {f"k={one.strategy.k}, hold={one.strategy.hold}": one for one in able}
    found = judge(named, n_resamples=200)
    assert set(found.confidence_set) < set(named)
    # The set is of mean returns, which are higher with fewer names, as is their spread.
    assert max(named, key=lambda name: named[name].returns.mean()) in found.confidence_set
    assert found.deflated_sharpe > 0.95
    assert found.superior["equal_weight"] < 0.05
    assert found.differences["buy_and_hold"].low > 0
    assert found.first == str(max(one.dates[0] for one in able))
    with pytest.raises(InvalidInputError, match="two at least; got 1"):
        judge(able[:1])
    short = backtest_many(luck[:30], market.panel.select(slice(0, 30)), configurations)
    with pytest.raises(InvalidInputError, match="32 rows in common; got 29"):
        judge(short)
    later = backtest_many(luck[5:], market.panel.select(slice(5, None)), configurations)
    with pytest.raises(InvalidInputError, match="panels with the same dates"):
        judge([*able, *later])


def test_equal_backtests_are_one_trial():
    market = make_panel(300, 12, seed=3, signal=0.2, fields=("close",))
    one, two, again = backtest_many(market.scores, market.panel, [Strategy(k=k) for k in (3, 6, 3)])
    expected = judge({"a": one, "b": two}, n_resamples=50)
    with pytest.warns(DoubtfulInputWarning, match="as one trial: 'a' = 'c'"):
        assert judge({"a": one, "b": two, "c": again}, n_resamples=50) == expected
    with pytest.raises(InvalidInputError, match="that differ, .* same returns: '0' = '1'"):
        judge([one, again])


@pytest.mark.parametrize("n_equal", [2, 3, 7])
def test_the_best_of_equals_is_overfitted_or_not_by_even_chances(n_equal):
    returns = np.repeat(daily(5, (160, 1)), n_equal, axis=1)
    assert backtest_overfitting(returns, n_blocks=8).probability == 0.5


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: sharpe_interval([]), r"returns of shape \(n,\), not empty"),
        (lambda: sharpe_interval([0.1, np.nan]), "got 1 of them"),
        (lambda: sharpe_interval([0.1, 0.2], level=1.0), "level between 0 and 1"),
        (lambda: sharpe_interval(daily(0, 7)), "at least 8 rows .* got 7"),
        (lambda: sharpe_interval(daily(0, 50), block=0), "block of at least one row"),
        (lambda: sharpe_interval(daily(0, 50), n_resamples=0), "n_resamples of at least 1"),
        (lambda: sharpe_difference([0.1, 0.2], [0.1]), "same rows; got 2 and 1"),
        (lambda: backtest_overfitting(daily(0, (50, 3)), n_blocks=5), "even number of blocks"),
        (lambda: backtest_overfitting(daily(0, (20, 3))), "at least two rows each"),
        (lambda: backtest_overfitting(daily(0, 50)), "at least two configurations"),
        (lambda: backtest_overfitting({"a": [0.1], "b": [0.1, 0.2]}), "numbers differ"),
        (lambda: superior_ability(daily(0, (50, 3)), daily(0, 49)), "50 returns of the benchmark"),
        (lambda: confidence_set(daily(0, (50, 3)), level=0), "level between 0 and 1"),
        (lambda: expected_best_sharpe(0.5, 1.0), "at least 1 trial"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(InvalidInputError, match=match):
        call()


def test_what_is_not_defined_is_nan():
    level = np.full(30, 0.001)
    assert math.isnan(probabilistic_sharpe_ratio(level))
    assert math.isnan(sharpe_probability(1.0, 0.0, 1))
    found = sharpe_interval(level, n_resamples=20)
    assert all(math.isnan(value) for value in found)
