"""The commands ``scikd graphs train`` and ``evaluate``, through the real program."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields

import numpy as np
import pytest

from scikd._manifest import decode_labels
from scikd.graphs import training
from scikd.graphs._arena import Arena
from scikd.graphs._datasets import open_dataset
from scikd.graphs._train_options import (
    EvaluateOptions,
    TrainOptions,
    evaluation_of,
    settings_of,
    training_of,
)
from scikd.graphs.baselines import stored_bytes
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.distilled import DistilledGraphs
from scikd.graphs.evaluation import METHODS, EvaluationOptions, Score
from scikd.graphs.models import ClassifierSettings
from scikd.graphs.preparation import Preparation
from scikd.graphs.storage import load_classifier
from scikd.graphs.training import ClassifierTraining, evaluate_logits, predict_logits

SMALL = ["--hidden-channels", "8", "--steps", "30", "--learning-rate", "0.01"]


@pytest.fixture
def stars(tmp_path):
    """Give a text file of 80 graphs: stars of class 1, and paths of class 0, some mislabelled."""
    star = "4 {}\n7 3 1 2 3\n5 1 0\n5 1 0\n5 1 0\n"
    path = "4 {}\n5 1 1\n7 2 0 2\n7 2 1 3\n5 1 2\n"
    graphs = [
        part.format(int(k == (i % 10 > 0)))
        for i in range(40)
        for k, part in enumerate((path, star))
    ]
    (tmp_path / "stars.txt").write_text("80\n" + "".join(graphs))
    return tmp_path / "stars.txt"


@pytest.fixture
def distilled(run, stars, tmp_path):
    output = tmp_path / "d.scikd"
    given = ["--split", "random", "--n-hops", "2", "--min-support", "2", "-o", output]
    assert run("graphs", "distill", stars, *given)[0] == 0
    return output


def judged(model, data, part, classes):
    graphs = data.part(part)
    merged = MergedGraphs.of(
        Preparation.rebuild(model.metadata["preparation"]).apply(graphs),
        model.settings.n_layers,
        classes=classes,
    )
    return evaluate_logits(predict_logits(model, merged), merged.y.numpy())


# --------------------------------------------------------------------------------------- flags


def test_defaults_are_those_of_the_library():
    options = TrainOptions()
    assert settings_of(options, 3, 4) == ClassifierSettings(n_classes=3, n_layers=4)
    assert settings_of(TrainOptions(n_layers=1, model="gat"), 2, 4) == ClassifierSettings(
        n_layers=1, conv="gat"
    )
    assert training_of(options) == ClassifierTraining()
    assert evaluation_of(EvaluateOptions()) == EvaluationOptions()
    changed = evaluation_of(EvaluateOptions(budgets="1kB,300", steps=7, full_steps=9, model="gat"))
    assert changed.budgets == ("1kB", "300")
    assert (changed.training.steps, changed.full_training.steps) == (7, 9)
    assert changed.full_training.batch_size == 256
    assert changed.conv == "gat"


def test_values_of_a_list_may_have_spaces_between_them():
    given = {"budgets": "1kB, 300", "methods": "mirage, random ", "readouts": " sum,mean"}
    plain = {name: text.replace(" ", "") for name, text in given.items()}
    assert evaluation_of(EvaluateOptions(**given)) == evaluation_of(EvaluateOptions(**plain))


def test_every_field_has_a_flag_with_help(run):
    for command, options in (("train", TrainOptions), ("evaluate", EvaluateOptions)):
        _, out, _ = run("graphs", command, "--help")
        text = " ".join(out.split())
        for field in fields(options):
            assert re.search(rf"--{field.name.replace('_', '-')} .*? [A-Z]", text), field.name


# --------------------------------------------------------------------------------------- train


def test_train_on_distilled_graphs(run, stars, distilled, tmp_path):
    output = tmp_path / "model.scikd"
    given = [
        "--model",
        "gin",
        "--readout",
        "mean",
        "--seed",
        "1",
        "--data",
        stars,
        "--split",
        "random",
    ]
    code, out, err = run("graphs", "train", distilled, *given, *SMALL, "-o", output)
    assert code == 0, err
    assert "may" not in err
    assert "scores are too high" not in err
    sets = DistilledGraphs.load(distilled)
    assert f"Trained on {len(sets)} sets of trees, {sets.n_bytes} bytes, of the 64 graphs" in out
    model = load_classifier(output)
    assert (model.settings.conv, model.settings.readout) == ("gin", "mean")
    assert model.settings.n_layers == 2
    assert decode_labels(model.metadata["classes"]).tolist() == [0, 1]
    data = open_dataset(str(stars), split="random")
    best = judged(model, data, "test", sets.classes)
    lines = [line.split() for line in out.splitlines()]
    (last_row,) = (line for line in lines if line[:2] == ["last", "step"])
    (best_row,) = (line for line in lines if line[:3] == ["best", "validation", "AUC"])
    assert [float(cell) for cell in best_row[-2:]] == pytest.approx(list(best.values()), abs=1e-3)
    assert last_row[2] == "30"
    assert (
        f"The classifier of step {best_row[3]}, of the best validation AUC, lies in {output}" in out
    )
    page = tmp_path / "model.html"
    assert f"Its learning curve lies in {page}" in out
    source = page.read_text()
    assert source.startswith("<!doctype html>")
    assert "Learning curve" in source
    assert "hidden_channels=8" in source


def test_train_on_graphs_as_they_are(run, stars, tmp_path):
    output, page = tmp_path / "model.scikd", tmp_path / "pages" / "page.html"
    given = ["--split", "random", "--split-seed", "2", "--model", "gcn", "--report", page]
    code, out, err = run("graphs", "train", stars, *given, *SMALL, "-o", output)
    assert code == 0, err
    assert "Trained on the 64 graphs of the part 'train' of a random split with seed 2" in out
    assert page.exists()
    model = load_classifier(output)
    assert model.settings.n_layers == 3
    assert re.search(r"best validation AUC +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+\n", out)


def test_without_a_split_there_are_no_scores(run, stars, distilled, tmp_path):
    for source in (stars, distilled):
        code, out, err = run("graphs", "train", source, *SMALL, "-o", tmp_path / f"{source.stem}.m")
        assert code == 0, err
        assert "AUC" not in out
        assert "The classifier of step 30, the last, lies in" in out


def test_degrees_for_gcn_cost_a_hop(run, stars, distilled, tmp_path):
    given = ["--model", "gcn", "--data", stars, "--split", "random", *SMALL]
    code, _, err = run("graphs", "train", distilled, *given, "-o", tmp_path / "model")
    assert code == 0, err
    assert load_classifier(tmp_path / "model").settings.n_layers == 1


def test_another_split_than_was_distilled_is_warned_of(run, stars, distilled, tmp_path):
    given = ["--data", stars, "--split", "random", "--split-seed", "5", *SMALL]
    code, _, err = run("graphs", "train", distilled, *given, "-o", tmp_path / "model")
    assert code == 0
    assert "scores are too high if test graphs were among it" in err


def test_a_stopped_training_goes_on(run, stars, tmp_path, monkeypatch):
    given = ["--split", "random", *SMALL, "--folder", tmp_path / "kept"]
    step, done = training._step, []

    def interrupted(*arguments):
        if len(done) == 25:
            raise KeyboardInterrupt
        done.append(1)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", interrupted)
        assert run("graphs", "train", stars, *given, "-o", tmp_path / "model")[0] == 130
    assert not (tmp_path / "model").exists()
    assert run("graphs", "train", stars, *given, "-o", tmp_path / "model")[0] == 0
    assert run("graphs", "train", stars, *given[:-2], "-o", tmp_path / "other")[0] == 0
    first, second = (load_classifier(tmp_path / name).state_dict() for name in ("model", "other"))
    for name, values in first.items():
        np.testing.assert_array_equal(values.numpy(), second[name].numpy())
    code, _, err = run("graphs", "train", stars, *given, "--seed", "3", "-o", tmp_path / "third")
    assert code == 2
    assert "seed was 0 and is 3" in err


def test_a_classifier_is_replaced_only_if_asked(run, stars, distilled, tmp_path):
    given = ["graphs", "train", stars, *SMALL, "-o"]
    assert run(*given, tmp_path / "model")[0] == 0
    code, _, err = run(*given, tmp_path / "model")
    assert code == 2
    assert f"There is a classifier in {tmp_path / 'model'} already" in err
    assert run(*given, tmp_path / "model", "--overwrite")[0] == 0
    code, _, err = run(*given, distilled, "--overwrite")
    assert code == 2
    assert "scikd.graphs.DistilledGraphs. Choose another" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "gpt"], "model is 'gpt', expected 'gin' or"),
        (["--steps", "0"], "steps=0"),
        (["--n-layers", "3"], "Expected trees of depth 3"),
        (["--data", "{stars}"], "Expected --data with a split"),
        (["--data", "absent"], "absent"),
        (["--hidden-channels", "7", "--heads", "2"], "no multiple of heads"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    run, stars, distilled, tmp_path, options, message
):
    options = [option.format(stars=stars) for option in options]
    code, _, err = run("graphs", "train", distilled, "-o", tmp_path / "new" / "m", *options)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("scikd: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "new").exists()


def test_graphs_are_judged_by_their_own_split(run, stars, tmp_path):
    code, _, err = run("graphs", "train", stars, "--data", stars, "-o", tmp_path / "m")
    assert code == 2
    assert "--data goes with distilled graphs" in err


# ------------------------------------------------------------------------------------ evaluate


FEW = ["--budgets", "40,200", "--seeds", "2", "--steps", "3", "--full-steps", "3", "--n-hops", "1"]
FEW += ["--hidden-channels", "4", "--n-teachers", "1", "--split", "random"]


def test_evaluate_writes_scores_and_a_page(run, stars, tmp_path, monkeypatch):
    output = tmp_path / "new" / "scores"
    code, out, err = run("graphs", "evaluate", stars, *FEW, "-o", output)
    assert code == 0, err
    assert "stars: test scores, mean ± sd over 2 seeds" in out
    for method in (*METHODS, "full", "size", "trees"):
        assert re.search(rf"^ +(none|40|200) +{method} ", out, re.MULTILINE), method
    with (output / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {field.name for field in fields(Score)}
    assert all(float(row["auc_last"]) <= 1 for row in rows)
    assert all(int(row["n_bytes"]) <= int(row["budget"]) for row in rows if row["budget"])
    graphs = open_dataset(str(stars), split="random").part("train")
    (full,) = {row["n_bytes"] for row in rows if row["method"] == "full"}
    assert int(full) == stored_bytes(graphs)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["name"] == "stars"
    seeds = {(row["method"], row["budget"], row["readout"]) for row in rows}
    assert len(summary["summary"]) == len(seeds)
    source = (output / "report.html").read_text()
    assert "Test AUC" in source
    assert "Test balanced accuracy" in source
    assert "budgets=40,200" in source
    assert str(output / "report.html") in out

    monkeypatch.setattr(Arena, "score", lambda *_: pytest.fail("trained again"))
    code, again, err = run("graphs", "evaluate", stars, *FEW, "-o", output)
    assert code == 0, err
    assert again == out


def test_evaluate_needs_a_split(run, stars, tmp_path):
    code, _, err = run("graphs", "evaluate", stars, "-o", tmp_path / "new" / "scores")
    assert code == 2
    assert "Make one: --split random" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "mirage,magic"], "Expected methods among"),
        (["--budgets", "much"], "Expected a size such as"),
        (["--seeds", "0"], "Expected seeds to be at least 1"),
        (["--readouts", "max"], "Expected readouts among ('sum', 'mean'); got ['max']"),
    ],
)
def test_what_cannot_be_evaluated_is_said(run, stars, tmp_path, options, message):
    code, _, err = run("graphs", "evaluate", stars, *FEW, *options, "-o", tmp_path / "scores")
    assert code == 2
    assert message in err
