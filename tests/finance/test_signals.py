"""Stacks of signals learn from the past only, and find what a signal is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from scikd.exceptions import InvalidInputError, MissingExtraError
from scikd.finance import (
    Panel,
    Samples,
    WalkForward,
    forward_returns,
    last_known,
    make_panel,
    tips_features,
)
from scikd.finance._dated import DatedWindows, daily_ranks
from scikd.finance._overlaps import overlapping
from scikd.finance.metrics import information_coefficient, newey_west_t
from scikd.finance.signals import SignalStack, reference_models
from scikd.teachers import EstimatorTeacher

MODELS = [("strong", Ridge(1e4)), ("weak", Ridge(1.0))]


class Dated(RegressorMixin, BaseEstimator):
    """Takes windows and dates, and keeps what it was given; scores by the loudness of today."""

    def __init__(self, noise=0.0):
        self.noise = noise

    def fit(self, X, y, groups=None):
        self.windows_, self.ranks_, self.dates_ = X, y, groups
        return self

    def predict(self, X):
        chance = np.random.default_rng(len(X)).standard_normal(len(X))
        return X[:, -1, 4].astype(float) + self.noise * chance

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class Counted(Ridge):
    """Counts how often any of it was fitted."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        Counted.fits += 1
        return super().fit(X, y, sample_weight)


def stack_of(models=MODELS, **options):
    options = {"horizon": 1, "look_back": 3, "progress": False} | options
    return SignalStack(models, **options)


@pytest.fixture(scope="module")
def market():
    return make_panel(320, 30, signal=0.15, gaps=0.01, delistings=3, seed=4)


@pytest.fixture(scope="module")
def fitted(market):
    return stack_of().fit(market.panel)


def test_ranks_of_a_day_are_spread_evenly_around_zero():
    rows = np.array([0, 0, 0, 0, 3])
    ranks = daily_ranks(np.array([5.0, -2.0, 9.0, 5.0, 1.0]), rows)
    np.testing.assert_allclose(ranks, [0.0, -0.375, 0.375, 0.0, 0.0])


def test_the_planted_signal_is_found_on_days_that_nothing_was_learnt_from(market, fitted):
    returns = forward_returns(market.panel, 1)
    honest = information_coefficient(fitted.predict_out_of_fold(), returns, rank=True)
    assert newey_west_t(honest) > 4
    assert abs(np.nanmean(honest) - 0.15) < 0.08
    later = make_panel(200, 30, signal=0.15, seed=5)
    scores = fitted.predict(later.panel)
    ic = information_coefficient(scores, forward_returns(later.panel, 1), rank=True)
    assert newey_west_t(ic) > 4
    assert fitted.score(later.panel) == pytest.approx(np.nanmean(ic))
    # What is predicted is a rank, not a score: its slope is near 1, or more, since the models that
    # the weights were learnt from had fewer days to learn from than those that score here.
    ranks = daily_ranks(forward_returns(later.panel, 1).ravel(), np.repeat(np.arange(200), 30))
    known = np.isfinite(scores.ravel()) & np.isfinite(ranks)
    x, y = scores.ravel()[known], ranks[known]
    assert 0.5 < (x @ y) / (x @ x) < 2.5


def test_without_a_signal_the_stack_finds_nothing():
    panel = make_panel(320, 30, seed=6).panel
    stack = stack_of().fit(panel)
    ic = information_coefficient(stack.predict_out_of_fold(), forward_returns(panel, 1), rank=True)
    assert abs(newey_west_t(ic)) < 3


def test_scores_lie_where_samples_are(market, fitted):
    scores = fitted.predict(market.panel)
    samples = Samples.of(market.panel, tips_features(market.panel), look_back=3)
    there = np.isfinite(samples.spread(np.zeros(len(samples))))
    np.testing.assert_array_equal(np.isfinite(scores), there)
    np.testing.assert_array_equal(scores, fitted.predict(market.panel))
    assert set(fitted.predict_models(market.panel)) == set(fitted.models_)


@pytest.mark.parametrize("row", [130, 250])
def test_the_future_changes_no_out_of_fold_score(market, row):
    panel = market.panel
    fields = {name: values.copy() for name, values in panel.fields.items()}
    for values in fields.values():
        values[row + 1 :] *= np.random.default_rng(row).uniform(0.5, 2.0, values[row + 1 :].shape)
    later = type(panel)(panel.dates, panel.assets, fields, panel.member)
    one, other = (stack_of(horizon=2).fit(each) for each in (panel, later))
    for name, scores in one.models_out_of_fold().items():
        np.testing.assert_array_equal(
            scores[: row + 1], other.models_out_of_fold()[name][: row + 1]
        )
    first, second = one.predict_out_of_fold(), other.predict_out_of_fold()
    np.testing.assert_allclose(first[: row + 1], second[: row + 1], rtol=0, atol=1e-12)
    assert np.nanmax(np.abs(first[row + 1 :] - second[row + 1 :])) > 1e-6


def test_days_before_the_first_test_have_no_score(fitted):
    first = min(test.min() for _, test in fitted.oof_.folds)
    start = fitted.samples_.rows[first]
    assert (fitted.samples_.rows[fitted.oof_.covered] >= start).all()
    for scores in fitted.models_out_of_fold().values():
        assert np.isnan(scores[:start]).all()
        assert np.isfinite(scores[start]).any()
    second = sorted(test.min() for _, test in fitted.oof_.folds)[1]
    stacked = fitted.predict_out_of_fold()
    assert np.isnan(stacked[: fitted.samples_.rows[second]]).all()
    assert np.isfinite(stacked[fitted.samples_.rows[second]]).any()


def test_models_get_windows_ranks_and_dates_as_they_want_them(market):
    stack = stack_of([("dated", Dated()), ("flat", Ridge(1e4))]).fit(market.panel)
    assert stack.weights_["dated"] > 0
    model = stack.models_["dated"].estimator_
    samples = stack.samples_
    taught = np.isfinite(samples.label)
    assert model.windows_.shape == (taught.sum(), 3, 8)
    np.testing.assert_array_equal(model.dates_, samples.groups[taught])
    ranks = daily_ranks(samples.label, samples.rows)
    np.testing.assert_array_equal(model.ranks_, ranks[taught])


def test_models_are_trained_on_some_days_and_score_all(market):
    sparse = stack_of([("dated", Dated()), ("flat", Ridge(1e4))], every=7).fit(market.panel)
    days = np.unique(sparse.models_["dated"].estimator_.dates_)
    labelled = sparse.samples_.days[::7]
    assert set(days) <= set(sparse.samples_.dates[labelled])
    assert len(days) > 40
    scored = sparse.predict_out_of_fold()
    assert np.isfinite(scored[-1]).any()  # which has no label yet
    assert np.isfinite(scored[200:]).any(axis=1).all()


def test_an_asset_is_scored_up_to_the_day_it_is_delisted():
    panel = make_panel(200, 10, signal=0.2, seed=1).panel
    fields = {name: values.copy() for name, values in panel.fields.items()}
    for values in fields.values():
        values[150:, 4] = np.nan
    stack = stack_of(horizon=5).fit(Panel(panel.dates, panel.assets, fields))
    for scores in (*stack.models_out_of_fold().values(), stack.predict_out_of_fold()):
        assert np.isfinite(scores[140:150, 4]).all()
        assert np.isnan(scores[150:, 4]).all()


def test_the_scale_of_a_model_means_nothing(market):
    class Large(Dated):
        def predict(self, X):
            return 1e6 * super().predict(X) + 5.0

    one, other = (
        stack_of([("loud", kind()), ("ridge", Ridge(1e4))]).fit(market.panel)
        for kind in (Dated, Large)
    )
    assert one.weights_ == other.weights_
    np.testing.assert_array_equal(one.predict(market.panel), other.predict(market.panel))


def test_noise_gets_less_weight_than_signal(market):
    models = [("signal", Dated()), ("noise", Dated(noise=1e3))]
    stack = stack_of(models, combiner="least_squares").fit(market.panel)
    assert stack.weights_["signal"] == 1
    assert abs(stack.weights_["noise"]) < 0.5


def test_samples_of_ones_own_do_as_well_as_a_panel(market, fitted):
    panel = market.panel
    unlabelled = Samples.of(panel, tips_features(panel), look_back=3)
    label = forward_returns(panel, 1)[unlabelled.rows, unlabelled.columns]
    samples = replace(unlabelled, label=label)
    stack = stack_of().fit(samples)
    np.testing.assert_array_equal(stack.oof_.members, fitted.oof_.members)
    np.testing.assert_array_equal(stack.predict(unlabelled), fitted.predict(panel))
    assert stack.score(samples) == fitted.score(panel)
    only = Samples.of(panel, tips_features(panel), forward_returns(panel, 1), look_back=3)
    assert stack_of().fit(only).score(only) == pytest.approx(fitted.score(panel), abs=0.02)


def test_a_fit_that_was_stopped_goes_on(market, tmp_path):
    models = [("counted", Counted(1e4)), ("other", Ridge(1.0))]
    Counted.fits = 0
    first = stack_of(models, store=tmp_path).fit(market.panel)
    again = Counted.fits
    second = stack_of(models, store=tmp_path).fit(market.panel)
    assert again == 5 + 1  # a fold each, and all days
    assert Counted.fits == again + 1
    np.testing.assert_array_equal(first.oof_.members, second.oof_.members)
    stack_of(models, store=tmp_path, look_back=4).fit(market.panel)
    assert Counted.fits == 2 * again + 1


def test_it_is_an_estimator_of_scikit_learn(fitted):
    copy = clone(fitted)
    assert not hasattr(copy, "meta_")
    assert copy.set_params(horizon=3).horizon == 3
    deep = stack_of().get_params()
    assert {"estimators", "splitter", "combiner", "store"} <= set(deep)


def test_splits_that_learn_from_the_future_are_refused(market):
    with pytest.raises(InvalidInputError, match="Fold 0 trains on days after the beginning"):
        stack_of(splitter=list(KFold(3).split(np.zeros(5000)))).fit(market.panel)


@pytest.mark.parametrize("horizon", [1, 5])
def test_labels_that_reach_into_the_test_are_refused(market, horizon):
    reach = last_known(horizon)
    with pytest.raises(InvalidInputError, match=rf"Fold 0 trains on 1 days .*for_label\({horizon}"):
        stack_of(horizon=horizon, splitter=WalkForward(purge=reach - 2)).fit(market.panel)


@pytest.mark.parametrize("convention", ["next_close", "next_open", "same_close", "tips"])
@pytest.mark.parametrize("horizon", [2, 5])
def test_overlap_is_what_a_label_knows(horizon, convention):
    reach, test = last_known(horizon, convention), np.arange(50, 60)
    found = overlapping(np.arange(100), test, horizon, convention)
    # Labels before the test are known when its first score is made; those after share no day.
    expected = [
        t
        for t in range(100)
        if (t < 50 and t + reach > 50) or 50 <= t < 60 or (t >= 60 and t - 59 < horizon)
    ]
    np.testing.assert_array_equal(found, expected)
    assert len(overlapping(np.arange(10), test[:0], horizon, convention)) == 0


def test_what_cannot_be_stacked_is_refused(market, fitted):
    with pytest.raises(InvalidInputError, match="Expected a Panel or Samples; got ndarray"):
        stack_of().fit(np.zeros((10, 3)))
    with pytest.raises(InvalidInputError, match="pairs of distinct names"):
        stack_of([("a", Ridge()), ("a", Ridge())]).fit(market.panel)
    with pytest.raises(InvalidInputError, match="pairs of a name and a model; got .Ridge"):
        stack_of([Ridge()]).fit(market.panel)
    with pytest.raises(InvalidInputError, match="every >= 1; got 0"):
        stack_of(every=0).fit(market.panel)
    with pytest.raises(InvalidInputError, match="Expected samples with labels"):
        stack_of().fit(Samples.of(market.panel, tips_features(market.panel), look_back=3))
    closes = type(market.panel)(
        market.panel.dates, market.panel.assets, {"close": market.panel.close}
    )
    with pytest.raises(InvalidInputError, match="Expected the 8 features of training"):
        fitted.predict(closes)


def test_inputs_are_told_apart_by_what_a_model_sees(market):
    panel = market.panel
    samples = Samples.of(panel, tips_features(panel), look_back=3)
    inputs = DatedWindows(samples)
    part = inputs[np.arange(5), ...]
    assert len(part) == 5
    assert part.shape == (5, 3, 8)
    assert part.fingerprint == DatedWindows(samples.take(np.arange(5))).fingerprint
    assert part.fingerprint != inputs[np.arange(6), ...].fingerprint
    longer = DatedWindows(Samples.of(panel, tips_features(panel), look_back=4))
    assert longer.fingerprint != inputs.fingerprint


def test_references_can_be_stacked(market):
    pytest.importorskip("lightgbm")
    assert [name for name, _ in reference_models()] == ["ridge", "lightgbm", "vanilla"]
    models = reference_models(["ridge", "lightgbm"], seed=1)
    models[1][1].set_params(n_estimators=5, n_jobs=1)
    stack = stack_of(models, splitter=WalkForward.for_label(1, n_splits=2)).fit(market.panel)
    assert max(map(abs, stack.weights_.values())) == 1


def test_references_that_there_are_not_are_refused(monkeypatch):
    with pytest.raises(InvalidInputError, match=r"out of \['ridge', .*got \['forest'\]"):
        reference_models(["ridge", "forest"])
    with pytest.raises(InvalidInputError, match=r"a list of names out of .*got \['ridge'\]"):
        reference_models("ridge")
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"'lightgbm' needs .*scikd\[dev\]"):
        reference_models(["lightgbm"])


def test_models_are_teachers_like_any_other(market):
    samples = Samples.of(
        market.panel, tips_features(market.panel), forward_returns(market.panel, 1), look_back=3
    )
    from scikd.finance._dated import DatedModel

    teacher = EstimatorTeacher(DatedModel(Ridge(1e4)), "ridge")
    trained = teacher.fit(DatedWindows(samples), samples.label)
    scores = trained.predict(DatedWindows(samples))["value"]
    flat = samples.windows().reshape(len(samples), -1)
    np.testing.assert_allclose(scores, Ridge(1e4).fit(flat, samples.label).predict(flat), atol=1e-9)
