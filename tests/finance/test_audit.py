"""The audit catches planted leaks, and passes what is honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from scikd.exceptions import InvalidInputError
from scikd.finance import Panel, WalkForward, forward_returns, make_panel, tips_features
from scikd.finance._futures import FUTURES, other_future
from scikd.finance.auditing import audit, audit_execution, audit_splits
from scikd.finance.signals import SignalStack

SPLITS = {"n_splits": 2, "test_size": 40}


@pytest.fixture(scope="module")
def market():
    return make_panel(180, 12, signal=0.3, gaps=0.01, delistings=2, seed=3)


def check(result, name):
    (found,) = (one for one in result.checks if one.name == name)
    return found


def quickly(make_scores, panel, **options):
    return audit(make_scores, panel, **({"n_seeds": 1, "cuts": 2, "progress": False} | options))


def loudness(panel):
    """Score by how loud today was, against the last days: honest."""
    return tips_features(panel).values[:, :, 4].astype(float)


def walk_forward(purge):
    """Train a model before each test on 5-day labels, and score the test."""

    def make_scores(panel):
        features, labels = tips_features(panel).values, forward_returns(panel, 5)
        scores = np.full(labels.shape, np.nan)
        rows = np.arange(panel.n_dates)[:, None]
        splitter = WalkForward(purge=purge, **SPLITS)
        known = np.isfinite(features).all(axis=2)
        for train, test in splitter.split(rows, groups=panel.dates):
            learnt = known & np.isfinite(labels) & np.isin(rows, train)
            asked = known & np.isin(rows, test)
            model = Ridge().fit(features[learnt], labels[learnt])
            scores[asked] = model.predict(features[asked])
        return scores

    return make_scores, WalkForward(purge=purge, **SPLITS)


def test_a_honest_score_passes(market):
    result = quickly(loudness, market.panel)
    assert result.passed
    assert (
        check(result, "future").finding == "no score moved in any of 6 other futures, after 6 dates"
    )
    assert str(result).endswith("No leak was found in future and execution; splits not checked.")
    assert "splits: not checked" in str(result)


def test_a_pipeline_that_trains_walking_forward_passes(market):
    make_scores, splitter = walk_forward(purge=6)
    result = quickly(make_scores, market.panel, splitter=splitter)
    assert result.passed, result
    assert {one.name for one in result.checks} == {"future", "execution", "splits"}


def test_the_stack_of_signals_passes(market):
    splitter = WalkForward.for_label(2, calendar=market.panel.dates, n_splits=3)

    def make_scores(panel):
        models = [("ridge", Ridge(1e3)), ("other", Ridge(1.0))]
        options = {"horizon": 2, "look_back": 2, "progress": False}
        return SignalStack(models, splitter, **options).fit(panel).predict_out_of_fold()

    result = quickly(make_scores, market.panel, cuts=3)
    assert result.passed, result


def test_scaling_over_all_dates_is_caught(market):
    def make_scores(panel):
        close = panel.close
        return (close - np.nanmean(close, axis=0)) / np.nanstd(close, axis=0)

    result = quickly(make_scores, market.panel)
    found = check(result, "future")
    assert not result.passed
    assert {one.future for one in found.moved} == set(FUTURES)
    first = found.moved[0]
    assert first.first == market.panel.dates[0]
    assert first.date <= first.cut
    assert first.asset in market.panel.assets
    assert first.size > 0.01
    assert "LEAK  future: scores moved" in str(result)
    assert f"most {first.asset} on {first.date}" in str(result)


def test_scaling_by_the_largest_price_is_caught(market):
    result = quickly(lambda panel: panel.close / np.nanmax(panel.close, axis=0), market.panel)
    assert not check(result, "future").passed


def test_choosing_assets_that_survive_is_caught(market):
    def make_scores(panel):
        there = np.isfinite(panel.close[-1])
        return np.where(there, loudness(panel), np.nan)

    moved = check(quickly(make_scores, market.panel), "future").moved
    assert {one.future for one in moved} == {"delisted"}
    assert all(np.isinf(one.size) for one in moved)
    assert "appeared or vanished" in str(moved[0])


def test_scores_of_the_next_day_are_caught(market):
    def make_scores(panel):
        scores = np.full(panel.close.shape, np.nan)
        scores[:-1] = loudness(panel)[1:]
        return scores

    moved = check(quickly(make_scores, market.panel), "future").moved
    assert {one.date for one in moved} == {one.cut for one in moved}


@pytest.mark.parametrize("first", range(5))
def test_weekly_scores_of_the_next_day_are_caught(market, first):
    def make_scores(panel):
        scores = np.full(panel.close.shape, np.nan)
        scores[first:-1:5] = loudness(panel)[1 + first :: 5][: len(scores[first:-1:5])]
        return scores

    assert not check(quickly(make_scores, market.panel), "future").passed


@pytest.mark.parametrize("leak", [1, 5])
@pytest.mark.parametrize("field", ["close", "volume"])
def test_a_look_at_the_next_day_is_caught_in_panels_of_any_length(field, leak):
    """All scores look ahead, or those of one day of the week: which it is does not matter."""
    for n_dates in (*range(12, 40), 61, 127, 250, 251, 252, 253, 254):
        panel = make_panel(n_dates, 6, seed=n_dates).panel

        def make_scores(panel, last=n_dates % leak):
            values = panel.fields[field]
            scores = np.full(values.shape, np.nan)
            scores[1:] = values[1:] / values[:-1]
            scores[last:-1:leak] = values[last + 1 :: leak] / values[last:-1:leak]
            return scores

        found = audit(make_scores, panel, progress=False)
        assert not check(found, "future").passed, n_dates


def bouncing(n_dates=250, n_assets=30, seed=0):
    """Closes that jump between bid and ask: what fell today rises tomorrow, and no later."""
    market = make_panel(n_dates, n_assets, seed=seed, fields=("close",))
    sides = np.random.default_rng(seed).choice([-1.0, 1.0], (n_dates, n_assets))
    panel = market.panel
    return Panel(panel.dates, panel.assets, {"close": panel.close * np.exp(0.01 * sides)})


def test_execution_at_the_close_of_the_score_is_caught():
    panel = bouncing()
    result = quickly(lambda panel: -panel.returns(), panel)
    assert check(result, "future").passed
    assert not check(result, "execution").passed
    assert not result.passed
    assert "can only be had at the close that made the score" in str(result)


def test_execution_of_scores_alone_can_be_checked():
    panel = bouncing(seed=1)
    result = audit(-panel.returns(), panel)
    assert [one.name for one in result.checks] == ["execution"]
    assert not result.passed
    assert "future: not checked" in str(result)


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_that_lasts_to_the_next_close_passes(seed):
    market = make_panel(250, 30, signal=0.1, seed=seed)
    assert audit_execution(market.scores, market.panel).passed


def test_chance_is_hardly_ever_taken_for_execution_at_the_close():
    caught = [
        not audit_execution(np.random.default_rng(seed).standard_normal((120, 15)), panel).passed
        for seed in range(60)
        for panel in [make_panel(120, 15, seed=seed, fields=("close",)).panel]
    ]
    assert sum(caught) <= 2


def test_labels_that_overlap_the_test_are_caught(market):
    make_scores, splitter = walk_forward(purge=0)
    result = quickly(make_scores, market.panel, splitter=splitter)
    splits = check(result, "splits")
    assert not splits.passed
    assert "10 dates of training have labels that reach into a test" in splits.finding
    # The first scores of a test move with the prices after them, too.
    moved = check(result, "future").moved
    folds = splitter.split(None, groups=market.panel.dates)
    assert {one.cut for one in moved} <= {market.panel.dates[test[0]] for _, test in folds}
    assert moved


@pytest.mark.parametrize(("purge", "passed"), [(0, False), (4, False), (5, True), (6, True)])
def test_splits_pass_where_labels_are_known_before_the_test(market, purge, passed):
    found = audit_splits(WalkForward(purge=purge, **SPLITS), market.panel)
    assert found.passed == passed


def test_training_after_the_test_is_said(market):
    rows = np.arange(market.panel.n_dates)
    folds = [(np.r_[rows[:40], rows[120:]], rows[60:100])]
    found = audit_splits(folds, market.panel)
    assert found.passed
    assert "some train on days after their test" in found.finding


@settings(max_examples=20, deadline=None)
@given(
    row=st.integers(0, 58),
    kind=st.sampled_from(sorted(FUTURES)),
    seed=st.integers(0, 1000),
)
def test_another_future_leaves_the_past_and_changes_what_follows(row, kind, seed):
    panel = make_panel(60, 8, gaps=0.1, seed=1).panel
    other = other_future(panel, row, kind, seed)
    for name, values in panel.fields.items():
        np.testing.assert_array_equal(other.fields[name][: row + 1], values[: row + 1])
    np.testing.assert_array_equal(other.member[: row + 1], panel.member[: row + 1])
    if np.isfinite(panel.close[row + 1 :, :]).sum(axis=0).min() > 0:
        assert not np.array_equal(other.close[row + 1 :], panel.close[row + 1 :], equal_nan=True)
    if kind == "delisted":
        assert np.isnan(other.close[-1]).sum() >= 4
        assert not other.member[np.isnan(other.close) & ~np.isnan(panel.close)].any()
    else:
        np.testing.assert_array_equal(np.isnan(other.close), np.isnan(panel.close))
        high, low = other.fields["high"], other.fields["low"]
        assert (high >= low)[np.isfinite(high)].all()


def test_what_cannot_be_audited_is_refused(market):
    panel = market.panel
    random = np.random.default_rng(0)
    with pytest.raises(InvalidInputError, match="a second run moved .* Fix the seeds"):
        quickly(lambda panel: random.standard_normal(panel.close.shape), panel)
    with pytest.raises(InvalidInputError, match="There is no score at all"):
        quickly(lambda panel: np.full(panel.close.shape, np.nan), panel)
    with pytest.raises(InvalidInputError, match=r"Expected futures out of .*got \['war'\]"):
        quickly(loudness, panel, futures=["war"])
    with pytest.raises(InvalidInputError, match="Expected at least one cut"):
        quickly(loudness, panel, cuts=0)
    with pytest.raises(InvalidInputError, match="Expected cuts from 2000-01-03"):
        quickly(loudness, panel, cuts=["1999-01-01"])


def test_cuts_may_be_dates(market):
    day = market.panel.dates[100]
    result = quickly(lambda panel: panel.close / np.nanmax(panel.close), market.panel, cuts=[day])
    assert {one.cut for one in check(result, "future").moved} == {day}


def test_scores_that_are_the_return_of_the_next_day_are_caught(market):
    scores = forward_returns(market.panel, 1, "same_close")
    found = audit_execution(scores, market.panel)
    assert not found.passed
    assert "rank IC with the next day's return 1.0000 (t inf)" in found.finding


def test_an_outlier_hides_no_leak(market):
    def make_scores(panel):
        scores = loudness(panel)
        scores[:-1] += 0.01 * np.nan_to_num(scores[1:])
        scores[25, 0] = 1e12
        return scores

    assert not check(quickly(make_scores, market.panel), "future").passed


def test_a_day_or_two_cannot_tell_of_execution():
    panel = make_panel(3, 4, seed=0).panel
    assert "too few dates" in audit_execution(panel.close, panel).finding
