"""Single networks are estimators of scikit-learn, learn what is planted, and can be stacked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd.exceptions import InvalidInputError
from scikd.finance import (
    NetworkRanker,
    SignalStack,
    TIPSRanker,
    WalkForward,
    make_panel,
    reference_models,
)
from scikd.finance.network import NETWORKS
from scikd.finance.recurrent import RecurrentRanker, RecurrentSettings
from scikd.finance.signals import NETWORKS as NAMED
from scikd.finance.training import _Run
from tests.reference import finance_recurrent as reference

SIZES = {"dim": 8, "n_layers": 2, "ffn": 8, "n_heads": 2}
TRAINING = {"learning_rate": 0.01, "batch_size": 1, "device": "cpu"}
QUICK = {**SIZES, **TRAINING, "look_back": 4, "epochs": 8}


@parametrize_with_checks(
    [NetworkRanker(one, **{**QUICK, "look_back": 1}) for one in ("gru", "tcn")]
)
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


def planted(n_days=40, n_stocks=12, seed=0, noise=0.5):
    """Return windows, labels that the last but one day's first feature orders, and dates."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n_days * n_stocks, 4, 3)).astype(np.float32)
    y = X[:, -2, 0] + noise * random.normal(size=len(X)) + 3.0
    dates = np.datetime64("2020-01-01") + np.repeat(np.arange(n_days), n_stocks)
    return X, 0.01 * y, dates


@pytest.mark.parametrize("network", ["gru", "tcn", "vanilla", "past"])
def test_it_finds_what_is_planted(network):
    ranker = NetworkRanker(network, **{**QUICK, "epochs": 15}).fit(*planted())
    assert ranker.score(*planted(seed=1)) > 0.4
    assert ranker.history_[-1]["loss"] < ranker.history_[0]["loss"]
    X, _, _ = planted(seed=2)
    np.testing.assert_allclose(ranker.predict(X), ranker.predict(X.reshape(len(X), -1)), rtol=1e-6)


def test_it_takes_the_order_of_days_only():
    X, y, dates = planted()
    one = NetworkRanker("gru", **QUICK).fit(X, y, dates)
    other = NetworkRanker("gru", **QUICK).fit(X, 100 * y - 7, dates)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))


@pytest.mark.parametrize("network", ["gru", "tcn"])
def test_a_training_that_was_stopped_resumes_to_the_same_numbers(network, tmp_path, monkeypatch):
    data = planted(10)
    ranker = NetworkRanker(network, **QUICK, swa_epochs=3)
    expected = clone(ranker).fit(*data).predict(data[0])
    advance = _Run.advance

    def stop(run, *arguments, **options):
        if run.epoch == 5:
            raise KeyboardInterrupt
        advance(run, *arguments, **options)

    ranker.set_params(folder=tmp_path)
    monkeypatch.setattr(_Run, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        ranker.fit(*data)
    monkeypatch.setattr(_Run, "advance", advance)
    np.testing.assert_array_equal(ranker.fit(*data).predict(data[0]), expected)
    with pytest.raises(InvalidInputError, match="n_layers was 2 and is 1"):
        ranker.set_params(n_layers=1).fit(*data)


def test_a_panel_gives_scores_of_dates_and_assets():
    panel = make_panel(90, 10, signal=0.2, seed=0).panel
    ranker = NetworkRanker("tcn", **QUICK, every=3).fit(panel)
    scores = ranker.predict(panel)
    assert scores.shape == panel.close.shape
    assert np.isfinite(scores[30:]).all()
    assert -1 <= ranker.score(panel) <= 1
    closes = type(panel)(panel.dates, panel.assets, {"close": panel.close})
    with pytest.raises(InvalidInputError, match="Expected a panel with the features of training"):
        ranker.predict(closes)
    with pytest.raises(InvalidInputError, match="Expected a Panel, as in training; got an array"):
        ranker.predict(np.zeros((5, 4, 8)))


def test_a_tcn_is_that_of_the_slow_version():
    torch.manual_seed(0)
    model = RecurrentRanker(RecurrentSettings("tcn", 3, 9, 4, 2)).eval()
    windows = torch.randn(2, 9, 3)
    with torch.inference_mode():
        embedded = model.embed(windows)
        read = model.reader(embedded).numpy()
    for i in range(2):
        x = embedded[i].numpy()
        for number, part in enumerate(model.reader):
            kernels = [
                [p.detach().numpy() for p in (one.weight, one.bias)]
                for one in (part.first, part.second)
            ]
            x = reference.block(x, *kernels, 2**number)
        np.testing.assert_allclose(read[i], x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gru", "tcn"])
def test_what_is_read_on_a_day_comes_from_that_day_and_before(kind):
    torch.manual_seed(0)
    model = RecurrentRanker(RecurrentSettings(kind, 3, 12, 8, 2)).eval()
    windows = torch.randn(1, 12, 3)
    changed = windows.clone()
    changed[:, 7] += 1.0
    with torch.inference_mode():
        before, after = (model.reader(model.embed(one)) for one in (windows, changed))
    moved = (before != after).any(dim=2)[0].numpy()
    assert not moved[:7].any()
    assert moved[7:].all()


def test_what_makes_no_network_is_refused():
    with pytest.raises(InvalidInputError, match=r"dim is 0, .*; kind is 'lstm', expected 'gru'"):
        RecurrentSettings("lstm", dim=0)
    with pytest.raises(InvalidInputError, match=r"windows of shape \(n, 20, 8\).*got \(1, 4, 8\)"):
        RecurrentRanker(RecurrentSettings("gru"))(torch.zeros(1, 4, 8))
    with pytest.raises(InvalidInputError, match="Expected a network out of .*got 'lstm'"):
        NetworkRanker("lstm", **QUICK).fit(*planted(3))


def test_references_are_networks_that_there_are():
    assert set(NAMED) == set(NETWORKS)
    models = dict(reference_models(["vanilla", "gru"], seed=3, epochs=2))
    assert models["gru"].get_params()["random_state"] == 3
    assert models["vanilla"].epochs == 2


def test_networks_and_tips_are_stacked_with_plain_models():
    market = make_panel(140, 12, signal=0.4, seed=0)
    tips = {"teachers": ["past", "vanilla"], "teacher_epochs": 4, "student_epochs": 4}
    models = [
        *reference_models(["gru"], **{**QUICK, "look_back": 2, "epochs": 4}),
        ("tips", TIPSRanker(**SIZES, **TRAINING, **tips, look_back=2, swa_epochs=2)),
        ("ridge", Ridge(1e3)),
    ]
    splitter = WalkForward.for_label(1, n_splits=2)
    options = {"horizon": 1, "look_back": 2, "progress": False, "splitter": splitter, "every": 3}
    stack = SignalStack(models, **options).fit(market.panel)
    assert set(stack.weights_) == {"gru", "tips", "ridge"}
    assert stack.score(make_panel(80, 12, signal=0.4, seed=1).panel) > 0.2
    for scores in stack.models_out_of_fold().values():
        assert np.isfinite(scores[-1]).all()
