"""A training of a ranker: what a step is, what is averaged, and that a stop changes nothing."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.finance import Samples, forward_returns, make_panel, tips_features
from scikd.finance import training as module
from scikd.finance.attention import ALiBi, PastOnly
from scikd.finance.backbone import Ranker, RankerSettings
from scikd.finance.storage import load_ranker, save_ranker
from scikd.finance.training import (
    RankerTraining,
    WindowArrays,
    predict_scores,
    train_ranker,
)
from tests.reference.finance_losses import distillation_loss, rank_correlation_loss

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = RankerSettings(n_features=3, look_back=5, dim=8, ffn=8, n_heads=2, dropout=0.2)
OPTIONS = RankerTraining(
    epochs=6, batch_size=12, learning_rate=0.01, swa_epochs=3, device="cpu", seed=4
)


def arrays(seed=0, sizes=(5, 3, 7, 1, 6, 4, 5, 8)):
    random = np.random.default_rng(seed)
    n = sum(sizes)
    X = random.normal(size=(n, 5, 3)).astype(np.float32)
    y = 0.01 * (X[:, -1, 0] + 0.3 * random.normal(size=n))
    return WindowArrays.of(X, y, np.repeat(np.arange(len(sizes)), sizes))


def ranker(settings=SETTINGS, bias=None):
    torch.manual_seed(0)
    return Ranker(settings, bias)


def train(folder=None, options=OPTIONS, model=None, samples=None, **given):
    model = ranker() if model is None else model
    samples = arrays() if samples is None else samples
    return train_ranker(model, samples, options, folder=folder, progress=False, **given)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(found, expected):
    """Compare weights and history, to the last bit."""
    assert found.history == expected.history
    ours, theirs = found.model.state_dict(), expected.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not found.model.training


# ------------------------------------------------------------------------------------- learning


def test_days_are_sorted_and_kept_whole():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(9, 2, 1)).astype(np.float32), np.arange(9.0)
    days = np.array([5, 2, 5, 9, 2, 9, 9, 5, 2])
    samples = WindowArrays.of(X, y, days)
    assert samples.day_ptr.tolist() == [0, 3, 6, 9]
    assert samples.label.tolist() == [1, 4, 8, 0, 2, 7, 3, 5, 6]
    assert np.array_equal(samples.windows(), X[samples.label.astype(int)])
    middle = samples.take(slice(3, 6))
    assert middle.day_ptr.tolist() == [0, 3]
    assert middle.label.tolist() == [0, 2, 7]
    assert np.array_equal(middle.windows([1]), X[[2]])


def test_every_day_is_in_one_batch_and_batches_are_full():
    run = module._Run(ranker(), arrays(), [None, None], OPTIONS, module.Processes())
    sizes = np.diff(run.day_ptr)
    orders = []
    for run.epoch in range(3):
        batches = list(run._batches())
        assert sorted(np.concatenate(batches)) == list(range(8))
        assert all(sizes[days].sum() >= OPTIONS.batch_size for days in batches[:-1])
        assert all((np.diff(days) > 0).all() for days in batches)
        orders.append([days.tolist() for days in batches])
    assert orders[0] != orders[1]


@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("distils", [False, True])
def test_the_loss_of_an_epoch_is_the_mean_over_days(truth, distils):
    settings = replace(SETTINGS, dropout=0.0)
    samples = arrays()
    # So slow that all batches of the epoch see the same weights.
    options = replace(OPTIONS, epochs=1, swa_epochs=0, learning_rate=1e-12, truth_weight=truth)
    options = replace(options, temperature=0.2, smoothing=0.5)
    target = np.random.default_rng(1).normal(size=len(samples))
    model = ranker(settings)
    found = train(options=options, model=model, targets=target if distils else None)
    scores, ptr = predict_scores(model, samples, device="cpu").tolist(), samples.day_ptr.tolist()
    ranks = rank_correlation_loss(scores, samples.label.tolist(), ptr, "pairwise")
    taught = distillation_loss(scores, target.tolist(), ptr, 0.2, 0.5)
    expected = truth * ranks + (1 - truth) * taught if distils else ranks
    assert found.history[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_it_learns_and_leaves_the_first_model_as_it_was():
    model = ranker()
    before = weights(model)
    options = replace(OPTIONS, epochs=30)
    found = train(options=options, model=model, samples=arrays(sizes=(12,) * 20))
    assert found.history[-1]["loss"] < -0.5 < found.history[0]["loss"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert found.seconds > 0


def test_what_is_averaged_are_the_weights_at_the_end_of_the_last_epochs():
    ends = [
        weights(train(options=replace(OPTIONS, epochs=n, swa_epochs=0)).model) for n in (4, 5, 6)
    ]
    found = weights(train().model)
    for name, value in found.items():
        torch.testing.assert_close(value, sum(end[name] for end in ends) / 3)


def test_each_epoch_has_its_line(caplog):
    with caplog.at_level(logging.INFO, "scikd.finance"):
        train(name="past")
    assert len(caplog.messages) == 6
    line = r"past: epoch 2/6: loss -?0\.\d{5}; [\d.e+]+ samples/s"
    assert re.fullmatch(line, caplog.messages[1])


def test_samples_of_a_panel_are_as_good(tmp_path):
    market = make_panel(60, 6, seed=0)
    panel = market.panel
    samples = Samples.of(panel, tips_features(panel), forward_returns(panel))
    settings = RankerSettings(samples.n_features, dim=8, ffn=8, n_heads=2)
    options = replace(OPTIONS, epochs=2, swa_epochs=0)
    found = train(tmp_path, options, ranker(settings), samples)
    X, y, dates = samples.as_arrays()
    expected = train(None, options, ranker(settings), WindowArrays.of(X, y, dates))
    assert_same(found, expected)
    scores = predict_scores(found.model, samples, device="cpu")
    with torch.inference_mode():
        np.testing.assert_allclose(scores, found.model(torch.from_numpy(X)), atol=1e-6)
    blocks = predict_scores(found.model, samples, device="cpu", block=7)
    np.testing.assert_allclose(blocks, scores, atol=1e-6)


# ----------------------------------------------------------------------------- stopping, going on


def stop_after(monkeypatch, n_steps):
    """Let a training be interrupted in a step."""
    step, done = module._Run._step, []

    def interrupted(run, days):
        if len(done) == n_steps:
            raise KeyboardInterrupt
        done.append(1)
        return step(run, days)

    monkeypatch.setattr(module._Run, "_step", interrupted)
    return done


@pytest.mark.parametrize("distils", [False, True])
@pytest.mark.parametrize("stops", [(1,), (4, 1), (9, 7), (17,)])
def test_it_goes_on_to_the_same_numbers(monkeypatch, tmp_path, stops, distils):
    target = np.random.default_rng(1).normal(size=39) if distils else None
    expected = train(targets=target)
    for n_steps in stops:
        with monkeypatch.context() as patch:
            stop_after(patch, n_steps)
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, targets=target)
        torch.manual_seed(99)  # another process begins with other random numbers
    assert_same(train(tmp_path, targets=target), expected)
    done = stop_after(monkeypatch, 0)
    assert_same(train(tmp_path, targets=target), expected)
    assert not done


def test_a_killed_training_goes_on(tmp_path):
    long = replace(OPTIONS, epochs=300)
    program = (
        "from tests.finance.test_ranker_training import OPTIONS, replace, train\n"
        f"train({str(tmp_path)!r}, replace(OPTIONS, epochs=300))"
    )
    manifest = tmp_path / "checkpoint" / "manifest.json"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not manifest.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    epoch = json.loads(manifest.read_text())["parameters"]["standing"]["epoch"]
    assert 0 < epoch < 300
    assert_same(train(tmp_path, long), train(options=long))


# Adam makes steps of one size out of gradients that are rounding alone, so it may take only one.
SHARED = [
    replace(OPTIONS, epochs=2, swa_epochs=0, batch_size=1000),
    replace(OPTIONS, epochs=2, swa_epochs=0, learning_rate=1e-12),
]


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    program = tmp_path / "job.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.finance.test_ranker_training import *\n"
        "for number, options in enumerate(SHARED):\n"
        "    model = ranker(replace(SETTINGS, dropout=0.0))\n"
        f"    train(Path({str(tmp_path)!r}) / str(number), options, model)\n"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(program)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    model = ranker(replace(SETTINGS, dropout=0.0))
    for number, options in enumerate(SHARED):
        found = train(tmp_path / str(number), options, model)
        expected = train(None, options, model)
        losses = [[row["loss"] for row in one.history] for one in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_and_scores_as_the_cpu():
    options = replace(OPTIONS, epochs=2)
    model = ranker(replace(SETTINGS, dropout=0.0), ALiBi(2) + PastOnly())
    found = train(options=replace(options, device="cuda"), model=model)
    expected = train(options=options, model=model)
    assert found.history[-1]["loss"] == pytest.approx(expected.history[-1]["loss"], abs=1e-3)
    scores = [predict_scores(found.model, arrays(), device=device) for device in ("cuda", "cpu")]
    np.testing.assert_allclose(*scores, atol=1e-4)


# -------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("bias", [None, PastOnly() + ALiBi(2)])
def test_a_saved_ranker_scores_as_before(tmp_path, bias):
    model = ranker(bias=bias).eval()
    save_ranker(model, tmp_path / "model", metadata={"market": "made up"})
    loaded = load_ranker(tmp_path / "model")
    assert loaded.settings == model.settings
    samples = arrays()
    expected = predict_scores(model, samples, device="cpu")
    assert np.array_equal(predict_scores(loaded, samples, device="cpu"), expected)
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["parameters"]["metadata"] == {"market": "made up"}


def test_what_is_no_ranker_is_refused(tmp_path):
    from scikd.persistence import save_bundle

    save_bundle(tmp_path / "a", kind="scikd.finance.Ranker", parameters={"settings": {"dim": 3.5}})
    with pytest.raises(CorruptFileError, match="does not hold a Ranker: Cannot build a Ranker"):
        load_ranker(tmp_path / "a")
    save_ranker(ranker(), tmp_path / "b")
    file = tmp_path / "b" / "arrays.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CorruptFileError, match="cut short"):
        load_ranker(tmp_path / "b")


# ------------------------------------------------------------------------------------- refusals


OTHER = {
    "the samples were others": {"samples": arrays(1)},
    "the targets were others": {"targets": np.zeros(39)},
    "the first weights were others": {"model": ranker(bias=PastOnly())},
    "learning_rate was 0.01 and is 0.02": {"options": replace(OPTIONS, learning_rate=0.02)},
    "epochs was 6 and is 7": {"options": replace(OPTIONS, epochs=7)},
}


@pytest.mark.parametrize("message", OTHER)
def test_another_training_is_refused(tmp_path, message):
    train(tmp_path)
    with pytest.raises(InvalidInputError, match=f"is not this one: .*{message}"):
        train(tmp_path, **OTHER[message])


def test_bad_input_is_refused():
    samples = arrays()
    bare = replace(samples, label=None)
    with pytest.raises(InvalidInputError, match="samples with labels to train on; got none"):
        train(samples=bare)
    spoiled = replace(samples, label=np.where(np.arange(39) == 3, np.nan, samples.label))
    with pytest.raises(InvalidInputError, match="39 finite labels, .* 1 that are not finite"):
        train(samples=spoiled)
    with pytest.raises(InvalidInputError, match=r"39 finite targets, .* got shape \(38,\)"):
        train(targets=np.zeros(38))
    X = samples.X.copy()
    X[4] = np.inf
    with pytest.raises(InvalidInputError, match="finite loss; it became nan in epoch 1. Look for"):
        train(samples=replace(samples, X=X))
    wrong = {"epochs": 0, "weight_decay": -1, "smoothing": 2, "method": "exact"}
    with pytest.raises(InvalidInputError, match=r"epochs is 0.*decay is -1.*smoothing is 2.*'exac"):
        RankerTraining(**wrong)
