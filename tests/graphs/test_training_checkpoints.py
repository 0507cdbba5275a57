"""A training that was stopped goes on to the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.graphs import training as module
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.models import ClassifierSettings, GraphClassifier
from scikd.graphs.training import ClassifierTraining, train_classifier
from tests.reference.graph_trees import random_graphs

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ClassifierSettings(n_layers=2, hidden_channels=8, dropout=0.3, norm="batch")
OPTIONS = ClassifierTraining(
    steps=23, batch_size=9, evaluate_every=5, learning_rate=0.02, device="cpu"
)


def labelled(seed):
    graphs = random_graphs(seed, n_graphs=24)
    return replace(graphs, y=np.random.default_rng(seed).permutation(np.arange(24) % 2))


def merged(seed):
    return MergedGraphs.of(labelled(seed), 2)


def train(folder=None, options=OPTIONS, **changes):
    given = {"train": merged(0), "settings": SETTINGS, "validation": merged(1), **changes}
    return train_classifier(options=options, folder=folder, progress=False, **given)


def stop_after(monkeypatch, n_steps):
    """Let a training be interrupted in a step."""
    step, done = module._step, []

    def interrupted(*arguments):
        if len(done) == n_steps:
            raise KeyboardInterrupt
        done.append(1)
        return step(*arguments)

    monkeypatch.setattr(module, "_step", interrupted)
    return done


def assert_same(found, expected):
    """Compare models and history, to the last bit."""
    assert found.history == expected.history
    for name in ("model", "best"):
        ours, theirs = getattr(found, name).state_dict(), getattr(expected, name).state_dict()
        assert ours.keys() == theirs.keys()
        for key, values in theirs.items():
            assert torch.equal(ours[key], values), key
        assert not getattr(found, name).training


@pytest.mark.parametrize("batch_size", [None, 9])
@pytest.mark.parametrize("stops", [(1,), (5,), (12, 6, 3), (22,)])
def test_it_goes_on_to_the_same_numbers(monkeypatch, tmp_path, stops, batch_size):
    options = replace(OPTIONS, batch_size=batch_size)
    expected = train(options=options)
    at = 0
    for n_steps in stops:
        with monkeypatch.context() as patch:
            stop_after(patch, n_steps)
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, options)
        at = (at + n_steps) // 5 * 5
        torch.manual_seed(99)  # another process begins with other random numbers
    done = stop_after(monkeypatch, OPTIONS.steps)
    assert_same(train(tmp_path, options), expected)
    assert len(done) == OPTIONS.steps - at


def test_a_folder_changes_no_number(tmp_path):
    assert_same(train(tmp_path / "new" / "folder"), train())


def test_without_validation_and_with_soft_labels(monkeypatch, tmp_path):
    soft = np.random.default_rng(0).dirichlet([1, 1], 24)
    given = {"validation": None, "soft_labels": soft}
    expected = train(**given)
    with monkeypatch.context() as patch:
        stop_after(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, **given)
    found = train(tmp_path, **given)
    assert_same(found, expected)
    assert found.best is found.model


def test_what_is_done_is_not_done_again(monkeypatch, tmp_path):
    first = train(tmp_path)
    done = stop_after(monkeypatch, 0)
    second = train(tmp_path)
    assert not done
    assert_same(second, first)
    assert second.seconds == first.seconds


def test_a_killed_training_goes_on(tmp_path):
    long = replace(OPTIONS, steps=400)
    program = (
        "from tests.graphs.test_training_checkpoints import OPTIONS, replace, train\n"
        f"train({str(tmp_path)!r}, replace(OPTIONS, steps=400))"
    )
    manifest = tmp_path / "checkpoint" / "manifest.json"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not manifest.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert 0 < json.loads(manifest.read_text())["parameters"]["standing"]["step"] < 400
    assert_same(train(tmp_path, long), train(options=long))


# -------------------------------------------------------------------------------------- refusals


OTHER = {
    "the training graphs were others": {"train": merged(2)},
    "the validation graphs were others": {"validation": None},
    "the soft labels were others": {"soft_labels": np.full((24, 2), 0.5)},
    "the first weights were others": {"model": GraphClassifier.for_data(merged(0), SETTINGS)},
    "hidden_channels was 8 and is 4": {"settings": replace(SETTINGS, hidden_channels=4)},
    "readout was 'sum' and is 'mean'": {"settings": replace(SETTINGS, readout="mean")},
    "learning_rate was 0.02 and is 0.01": {"options": replace(OPTIONS, learning_rate=0.01)},
    "steps was 23 and is 24": {"options": replace(OPTIONS, steps=24)},
}


@pytest.mark.parametrize("message", OTHER)
def test_another_training_is_refused(tmp_path, message):
    train(tmp_path)
    with pytest.raises(InvalidInputError, match=f"is not this one: .*{message}") as caught:
        train(tmp_path, **OTHER[message])
    assert "Choose another folder, or delete that one" in str(caught.value)


def test_weights_are_part_of_the_data(tmp_path):
    train(tmp_path)
    data = merged(0)
    heavy = replace(data, weights=2 * data.weights)
    with pytest.raises(InvalidInputError, match="the training graphs were others"):
        train(tmp_path, train=heavy)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    train(tmp_path)
    file = tmp_path / "checkpoint" / "arrays.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFileError, match="cut short or edited"):
        train(tmp_path)
