"""TIPSRanker is an estimator of scikit-learn, learns what is planted, and keeps what it learnt."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd.aggregation import InverseVariance, Mean, Routed
from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.finance import WalkForward, make_panel
from scikd.finance.attention import AttentionBias
from scikd.finance.backbone import Ranker
from scikd.finance.tips import TIPSRanker

SIZES = {"dim": 8, "n_layers": 2, "ffn": 8, "n_heads": 2}
QUICK = {
    **SIZES, "look_back": 4, "teacher_epochs": 3, "student_epochs": 3, "swa_epochs": 2,
    "learning_rate": 0.01, "batch_size": 1, "device": "cpu",
}  # fmt: skip

# The days of a window are a day here, as checks give any number of columns; then no patch fits.
CHECKED = TIPSRanker(**{**QUICK, "look_back": 1, "teachers": ("past", "vanilla")})


@parametrize_with_checks([CHECKED])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


def planted(n_days=24, n_stocks=12, seed=0, noise=0.5):
    """Return windows, labels that the last day's first feature orders, and dates."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n_days * n_stocks, 4, 3)).astype(np.float32)
    y = X[:, -1, 0] + noise * random.normal(size=len(X)) + 3.0
    dates = np.datetime64("2020-01-01") + np.repeat(np.arange(n_days), n_stocks)
    return X, 0.01 * y, dates


@pytest.fixture(scope="module")
def fitted():
    return TIPSRanker(**QUICK).fit(*planted())


# ------------------------------------------------------------------------------------ learning


def test_there_are_seven_teachers(fitted):
    names = ["past", "future", "patch", "alibi", "periodic", "relative", "vanilla"]
    assert list(fitted.teachers_) == names
    assert list(fitted.histories_) == [*names, "student"]


@pytest.mark.parametrize("consensus", ["mean", "median", "rank", "zscore", "inverse_variance"])
def test_it_finds_what_is_planted(consensus):
    ranker = TIPSRanker(**{**QUICK, "teacher_epochs": 6, "student_epochs": 8}, consensus=consensus)
    ranker.set_params(smoothing=0.2, temperature=0.3, teachers=["past", "patch", "relative"])
    ranker.fit(*planted(40))
    X, y, dates = planted(seed=1)
    assert ranker.score(X, y, dates) > 0.5
    agreed = ranker.predict_consensus(X, dates)
    assert np.corrcoef(agreed, y)[0, 1] > 0.5
    assert len(ranker.variances_) == (3 if consensus == "inverse_variance" else 0)


def test_sharp_ranks_teach_teachers_and_students_otherwise():
    ranker = TIPSRanker(**QUICK, teachers=["vanilla"], truth_weight=1.0)
    soft, sharp = (clone(ranker).set_params(sharpness=x).fit(*planted(6)) for x in (1.0, 50.0))
    for name, history in soft.histories_.items():
        # Ranks hardly differ at first where scores are close: a sharp curve tells them apart.
        assert sharp.histories_[name][0]["loss"] != history[0]["loss"]


def test_labels_that_say_nothing_are_not_learnt_on_new_days():
    random = np.random.default_rng(3)
    X, y, dates = planted(30)
    ranker = TIPSRanker(**QUICK, teachers=["vanilla"]).fit(X, random.permutation(y), dates)
    X, y, dates = planted(60, seed=1)
    # The standard error of the mean of 60 rank correlations of 12 stocks is 0.039.
    assert abs(ranker.score(X, random.permutation(y), dates)) < 0.16


def test_only_the_order_within_a_day_counts(fitted):
    X, y, dates = planted()
    day = np.unique(dates, return_inverse=True)[1]
    same = TIPSRanker(**QUICK).fit(X, (y + day) ** 3, dates)
    assert np.array_equal(same.predict(X), fitted.predict(X))


def test_the_order_of_days_does_not_matter(fitted):
    X, y, dates = planted()
    order = np.random.default_rng(0).permutation(24)[np.tile(np.arange(24), 12)] * 12
    order += np.repeat(np.arange(12), 24)
    same = TIPSRanker(**QUICK).fit(X[order], y[order], dates[order])
    assert np.array_equal(same.predict(X), fitted.predict(X))
    np.testing.assert_allclose(fitted.predict(X[order]), fitted.predict(X)[order], atol=1e-6)


def test_a_day_is_what_it_is_in_its_time_zone(fitted):
    X, y, dates = planted()
    clocks = pd.to_timedelta(
        np.arange(len(dates)) % 12, unit="h"
    )  # another day in UTC, some of them
    days = (pd.DatetimeIndex(dates) + clocks).tz_localize("Asia/Tokyo")
    for groups in (days, pd.Series(days), np.array(list(days), dtype=object)):
        assert fitted.score(X, y, groups) == fitted.score(X, y, dates)
    short = clone(fitted).set_params(teachers=["vanilla"], teacher_epochs=1, student_epochs=2)
    first, second = (clone(short).fit(X, y, groups).predict(X) for groups in (days, dates))
    np.testing.assert_array_equal(first, second)


def test_flat_rows_are_windows(fitted):
    X, y, dates = planted()
    flat = X.reshape(len(X), -1)
    assert np.array_equal(TIPSRanker(**QUICK).fit(flat, y, dates).predict(flat), fitted.predict(X))


def test_several_jobs_give_what_one_gives():
    """With as many threads: training turns other rounding into other numbers."""
    X, y, dates = planted()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = TIPSRanker(**QUICK).fit(X, y, dates)
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            many = TIPSRanker(**QUICK, n_jobs=2).fit(X, y, dates)
        np.testing.assert_allclose(many.predict(X), one.predict(X), atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_seeds_are_further_teachers():
    ranker = TIPSRanker(**QUICK, teachers=["past", "vanilla"], n_seeds=2).fit(*planted(6))
    assert list(ranker.teachers_) == ["past-1", "vanilla-1", "past-2", "vanilla-2"]
    scores = list(ranker.predict_teachers(planted(6)[0]).values())
    assert not np.allclose(scores[0], scores[2])
    expected = np.mean(scores, axis=0)
    np.testing.assert_allclose(ranker.predict_consensus(planted(6)[0]), expected, atol=1e-12)


def test_a_rule_may_route_by_day():
    X, y, dates = planted(8)

    def first_of_early_days(samples):
        days = np.repeat(np.arange(len(samples.day_ptr) - 1), np.diff(samples.day_ptr))
        return np.stack([days < 4, days >= 4], axis=1).astype(float)

    ranker = TIPSRanker(
        **QUICK, teachers=["past", "vanilla"], consensus=Routed(first_of_early_days)
    ).fit(X, y, dates)
    scores = ranker.predict_teachers(X)
    expected = np.where(np.arange(len(X)) < 48, scores["past"], scores["vanilla"])
    np.testing.assert_allclose(ranker.predict_consensus(X, dates), expected, atol=1e-12)


def test_truth_alone_needs_no_teacher():
    X, y, dates = planted(6)
    options = {**QUICK, "truth_weight": 1.0, "teacher_epochs": 1}
    one = TIPSRanker(**options, teachers=["past"]).fit(X, y, dates)
    other = TIPSRanker(**options, teachers=["future"]).fit(X, y, dates)
    assert np.array_equal(one.predict(X), other.predict(X))


class Reversed(AttentionBias):
    def forward(self, n_tokens):
        return -self.offsets(n_tokens).float().clamp(min=0)[None]


def test_a_teacher_of_ones_own(tmp_path):
    X, y, dates = planted(6)
    ranker = TIPSRanker(**QUICK, teachers={"reversed": lambda sizes: Ranker(sizes, Reversed())})
    ranker.fit(X, y, dates).save(tmp_path / "ranker")
    loaded = TIPSRanker.load(tmp_path / "ranker")
    assert loaded.teachers is None
    expected = ranker.predict_teachers(X)["reversed"]
    assert np.array_equal(loaded.predict_teachers(X)["reversed"], expected)


def test_calibration_holds_days_out(monkeypatch):
    X, y, dates = planted(30)
    seen = {}
    from scikd.finance import tips as module

    train, calibrated = module._train, module.calibrated_rule

    def noting(make, settings, samples, options, targets, folder, name, progress):
        seen[name] = samples
        return train(make, settings, samples, options, targets, folder, name, progress)

    def noting_rule(members, labels, days):
        seen["calibration"] = labels
        return calibrated(members, labels, days)

    monkeypatch.setattr(module, "_train", noting)
    monkeypatch.setattr(module, "calibrated_rule", noting_rule)
    TIPSRanker(**QUICK, teachers=["past"], consensus="inverse_variance").fit(X, y, dates)
    # Of 30 days the last 6 are held out; labels of the 6 before them look into those.
    assert np.array_equal(seen["past"].label, y[: 18 * 12])
    assert np.array_equal(seen["calibration"], y[24 * 12 :])
    assert np.array_equal(seen["student"].label, y)


# ------------------------------------------------------------------------- panels and searching


@pytest.fixture(scope="module")
def market():
    return make_panel(80, 8, seed=0)


def test_a_panel_is_enough(market):
    panel = getattr(market, "panel", market)
    ranker = TIPSRanker(**{**QUICK, "look_back": 20}, teachers=["past", "patch"], every=3)
    scores = ranker.fit(panel).predict(panel)
    assert scores.shape == (panel.n_dates, panel.n_assets)
    first = int(np.flatnonzero(np.isfinite(scores).any(axis=1))[0])
    assert np.isnan(scores[:first]).all()
    assert np.isfinite(scores[-1]).all(), "the last day has no label, and is scored"
    assert -1 <= ranker.score(panel) <= 1
    assert set(ranker.predict_teachers(panel)) == {"past", "patch"}
    cut = panel.select(dates=slice(0, panel.n_dates - 10))
    np.testing.assert_allclose(ranker.predict(cut), scores[: cut.n_dates], atol=1e-5)


def test_a_panel_needs_the_features_of_training(market):
    panel = getattr(market, "panel", market)
    ranker = TIPSRanker(**{**QUICK, "look_back": 20}, teachers=["past"]).fit(panel)
    bare = replace(panel, fields={"close": panel.close})
    with pytest.raises(InvalidInputError, match=r"Expected a panel with the features of training"):
        ranker.predict(bare)
    with pytest.raises(InvalidInputError, match=r"Expected a Panel, as in training; got an array"):
        ranker.predict(np.zeros((3, 20, 8)))
    with pytest.raises(InvalidInputError, match=r"Expected a panel alone: its labels and days"):
        TIPSRanker().fit(panel, np.zeros(3))


def test_dates_reach_fit_and_score_in_a_search():
    X, y, dates = planted(20)
    grid = {"readout": ["mean", "last"], "learning_rate": [0.01]}
    ranker = TIPSRanker(**QUICK, teachers=["vanilla"])
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            ranker, grid, cv=WalkForward(n_splits=2, purge=2), error_score="raise"
        )
        search.fit(X, y, groups=dates)
        scores = cross_val_score(
            clone(ranker), X, y, params={"groups": dates}, cv=WalkForward(n_splits=2, purge=2)
        )
    assert search.best_params_["readout"] in {"mean", "last"}
    whole = clone(ranker).set_params(**search.best_params_).fit(X, y, dates)
    assert np.array_equal(search.predict(X), whole.predict(X))
    assert len(scores) == 2


def test_without_groups_all_is_one_day_and_it_is_said(caplog):
    X, y, _ = planted(3)
    with caplog.at_level(logging.WARNING, "scikd.finance"):
        plain = TIPSRanker(**QUICK, teachers=["past"]).fit(X, y)
    (said,) = caplog.messages
    assert "No groups came with these 36 samples" in said
    assert "enable_metadata_routing" in said
    one = TIPSRanker(**QUICK, teachers=["past"]).fit(X, y, np.zeros(36))
    assert np.array_equal(plain.predict(X), one.predict(X))


# --------------------------------------------------------------------------------------- files


def test_what_is_saved_is_loaded(fitted, tmp_path):
    X, _, dates = planted()
    fitted.save(tmp_path / "ranker")
    loaded = TIPSRanker.load(tmp_path / "ranker")
    assert loaded.get_params() == fitted.get_params()
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
    agreed = fitted.predict_consensus(X, dates)
    assert np.array_equal(loaded.predict_consensus(X, dates), agreed)
    assert loaded.histories_ == fitted.histories_
    with pytest.raises(ValueError, match="X has 8 features, but TIPSRanker is expecting 12"):
        loaded.predict(X[:, :, :2])
    assert not list(tmp_path.rglob("*.pkl"))
    assert {f.name for f in (tmp_path / "ranker").iterdir()} == {
        "arrays.safetensors", "manifest.json"
    }  # fmt: skip


def test_a_calibrated_rule_is_kept(tmp_path):
    X, y, dates = planted(30)
    ranker = TIPSRanker(**QUICK, teachers=["past", "vanilla"], consensus="inverse_variance")
    ranker.fit(X, y, dates).save(tmp_path / "a")
    loaded = TIPSRanker.load(tmp_path / "a")
    agreed = ranker.predict_consensus(X, dates)
    assert np.array_equal(loaded.predict_consensus(X, dates), agreed)


def test_a_rule_of_ones_own_is_not_kept(tmp_path):
    X, y, dates = planted(6)
    ranker = TIPSRanker(
        **QUICK, teachers=["past", "vanilla"], consensus=InverseVariance((1.0, 3.0))
    )
    ranker.fit(X, y, dates).save(tmp_path / "a")
    loaded = TIPSRanker.load(tmp_path / "a")
    assert np.array_equal(loaded.predict(X), ranker.predict(X))
    with pytest.raises(InvalidInputError, match="saved with a rule of its own for the consensus"):
        loaded.predict_consensus(X)
    loaded.consensus_ = Mean()
    assert loaded.predict_consensus(X).shape == (len(X),)


def test_a_damaged_file_is_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "a") / "manifest.json"
    content = json.loads(path.read_text())
    content["parameters"]["settings"]["student"]["dim"] = 16
    path.write_text(json.dumps(content))
    with pytest.raises(CorruptFileError):
        TIPSRanker.load(tmp_path / "a")


def test_a_fit_that_was_stopped_goes_on_to_the_same_numbers(monkeypatch, fitted, tmp_path):
    from scikd.finance import training as module

    X, y, dates = planted()
    step, done = module._Run._step, []
    for n_steps in (30, 400):
        with monkeypatch.context() as patch:

            def interrupted(run, days, limit=n_steps):
                if len(done) == limit:
                    raise KeyboardInterrupt
                done.append(1)
                return step(run, days)

            done.clear()
            patch.setattr(module._Run, "_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                TIPSRanker(**QUICK, folder=tmp_path).fit(X, y, dates)
        torch.manual_seed(5)
    found = TIPSRanker(**QUICK, folder=tmp_path).fit(X, y, dates)
    assert np.array_equal(found.predict(X), fitted.predict(X))
    assert found.histories_ == fitted.histories_
    with pytest.raises(InvalidInputError, match="is not this one: the samples were others"):
        TIPSRanker(**QUICK, folder=tmp_path).fit(X[::-1] * 2, y, dates)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teachers": ["past", "presence"]}, r"Expected teachers out of \['past', .*'presence'"),
        ({"teachers": "past"}, "Expected teachers out of .* got 'past'"),
        ({"teachers": []}, "at least one teacher and seed; got 0 and 1"),
        ({"n_seeds": 0}, "at least one teacher and seed; got 7 and 0"),
        (
            {"consensus": "majority"},
            r"consensus to be an Aggregator or one of \['inverse_var.*'maj",
        ),
        ({"readout": "first"}, "readout is 'first', expected 'mean' or 'last'"),
        ({"swa_epochs": 9}, "swa_epochs 9 are more than student_epochs 3"),
        ({"sharpness": 0.0}, "sharpness is 0.0, expected more than 0"),
        ({"truth_weight": -1}, "truth_weight is -1, expected 0 to 1"),
        ({"look_back": 5}, r"windows of shape \(n_samples, 5, n_features\); got .*Set look_back=4"),
        ({"consensus": "inverse_variance", "calibration": 0.01}, "days to train on and to calib"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        TIPSRanker(**{**QUICK, **options}).fit(*planted())


def untrainable(settings):
    raise AssertionError("A teacher was made before the options were checked.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_epochs": 0, "swa_epochs": 0}, "student_epochs is 0, expected more than 0"),
        ({"teacher_epochs": 0}, "teacher_epochs is 0, expected more than 0"),
        ({"swa_epochs": 9}, "swa_epochs 9 are more than student_epochs 3"),
        ({"temperature": -1}, "temperature is -1, expected more than 0"),
        ({"smoothing": 2}, "smoothing is 2, expected 0 to 1"),
        ({"truth_weight": 5}, "truth_weight is 5, expected 0 to 1"),
        ({"calibration": 3.0}, "calibration is 3.0, expected a share between 0 and 1"),
        ({"every": 0}, "every is 0, expected at least 1"),
        ({"horizon": 0}, "horizon"),
        ({"convention": "soon"}, "convention"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_bad_options_are_found_before_teachers_are_trained(options, message):
    ranker = TIPSRanker(**{**QUICK, "teachers": {"own": untrainable}, **options})
    with pytest.raises(InvalidInputError, match=message):
        ranker.fit(*planted())


def test_all_bad_options_are_named_at_once():
    bad = {"temperature": -1, "dim": 7, "consensus": "majority", "n_seeds": 0, "calibration": 0}
    with pytest.raises(InvalidInputError) as caught:
        TIPSRanker(**{**QUICK, **bad}).fit(*planted())
    said = str(caught.value)
    for part in ("temperature is -1", "dim 7 is no", "'majority'", "7 and 0", "calibration is 0"):
        assert said.count(part) == 1


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_training_that_diverged_is_said_to_have_done_so(who):
    # One step, after which no loss is computed that could tell.
    X, y, dates = planted(4)
    quick = {**QUICK, "teacher_epochs": 1, "student_epochs": 1, "swa_epochs": 0, "batch_size": 99}
    ranker = TIPSRanker(**quick | {"learning_rate": 1e30}, teachers=["vanilla"])
    if who == "student":
        ranker.set_params(teachers={"still": Still})
    message = f"training of the {who}.* diverged: 48 of 48 .* Lower learning_rate .now 1e.30"
    with pytest.raises(InvalidInputError, match=message):
        ranker.fit(X, y, dates)


class Still(Ranker):
    """A network whose scores no training changes."""

    def forward(self, windows):
        return windows[:, -1, 0] + 0.0 * self.embed.bias.sum().clamp(-1.0, 1.0)


def test_a_teacher_that_cannot_be_made_says_so_before_others_are_trained(tmp_path):
    X, y, dates = planted()
    ranker = TIPSRanker(**{**QUICK, "look_back": 1}, teachers=["past", "patch"], folder=tmp_path)
    with pytest.raises(InvalidInputError, match="longer than look_back 1"):
        ranker.fit(X[:, -1:], y, dates)
    assert not list(tmp_path.iterdir())


def test_bad_data_are_refused(fitted):
    X, y, dates = planted()
    ranker = TIPSRanker(**QUICK)
    with pytest.raises(InvalidInputError, match="each of the 288 samples is alone on its day"):
        ranker.fit(X, y, np.arange(288))
    with pytest.raises(InvalidInputError, match="without missing ones; got .* with 1 missing"):
        ranker.fit(X, y, np.where(np.arange(288) == 7, np.datetime64("NaT"), dates))
    with pytest.raises(InvalidInputError, match="13, which is no multiple of look_back=4"):
        ranker.fit(np.zeros((288, 13)), y, dates)
    with pytest.raises(ValueError, match="requires y to be passed"):
        ranker.fit(X, None, dates)
    for bad in (np.nan, np.inf):
        spoiled = X.copy()
        spoiled[3, 1, 2] = bad
        with pytest.raises(ValueError, match="contains NaN|contains infinity|Input X contains"):
            ranker.fit(spoiled, y, dates)
        with pytest.raises(ValueError, match="Input X contains"):
            fitted.predict(spoiled)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ranker.fit(X, y, dates[1:])
    with pytest.raises(NotFittedError):
        TIPSRanker().predict(X)
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(X[:0])
