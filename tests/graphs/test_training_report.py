"""Pages about classifiers: what is drawn is what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scikd.graphs.dag import MergedGraphs
from scikd.graphs.evaluation import SCORES, Evaluation, Score
from scikd.graphs.models import ClassifierSettings
from scikd.graphs.training import ClassifierTraining, TrainedClassifier, train_classifier
from scikd.graphs.training_report import (
    best_step,
    evaluation_report,
    plot_learning_curve,
    plot_scores,
    score_table,
    training_report,
)
from tests.reference.graph_trees import random_graphs

figures = pytest.importorskip("matplotlib.figure")


def score(method, budget, readout, seed, auc):
    """Return a score whose numbers all differ."""
    scores = {name: auc + 0.01 * k for k, name in enumerate(SCORES)}
    sizes = {"n_bytes": budget or 9000, "n_items": 7}
    seconds = {"seconds_to_distil": 0.5, "seconds_to_train": 1.5}
    memory = {"mib_to_distil": 2.0, "mib_to_train": 3.0}
    return Score(method, budget, readout, seed, **sizes, **scores, **seconds, **memory)


FOUND = Evaluation(
    "stars",
    [
        score("size", None, "none", 0, 0.6),
        score("trees", None, "none", 0, 0.7),
        *(
            score("mirage", b, "sum", k, 0.5 + 0.1 * k + b / 1e5)
            for b in (2000, 500)
            for k in (0, 1)
        ),
        *(score("mirage", 500, "mean", k, 0.2) for k in (0, 1)),
        *(score("random", 2000, "sum", k, 0.3 + 0.2 * k) for k in (0, 1)),
        *(score("full", None, "sum", k, 0.8) for k in (0, 1)),
    ],
)


@pytest.mark.parametrize(("name", "more"), [("auc_last", 0.0), ("accuracy_best", 0.03)])
def test_scores_are_drawn_where_they_are(name, more):
    axes = figures.Figure().subplots()
    plot_scores(axes, FOUND, name, "sum")
    across = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    for label, mean in (("size only", 0.6), ("tree histogram", 0.7), ("all graphs", 0.8)):
        assert list(across[label]) == pytest.approx([mean + more] * 2)
    drawn = {bar.get_label(): bar for bar in axes.containers}
    assert set(drawn) == {"mirage", "random"}
    line, caps, _ = drawn["mirage"]
    assert list(line.get_ydata()) == pytest.approx([0.555 + more, 0.57 + more])
    x = line.get_xdata()
    assert x[0] < x[1]
    assert np.abs(np.log(x / np.array([500, 2000]))).max() < 0.2  # beside its budget
    spread = np.std([0.0, 0.1], ddof=1)
    low, high = (cap.get_ydata() for cap in caps)
    np.testing.assert_allclose(high - low, 2 * spread)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["500 B", "2 kB"]


def test_scores_of_another_readout_are_not_mixed_in():
    axes = figures.Figure().subplots()
    plot_scores(axes, FOUND, "auc_last", "mean")
    (bar,) = axes.containers
    assert list(bar[0].get_ydata()) == pytest.approx([0.2])


def test_the_page_of_a_comparison_has_figures_and_table():
    report = evaluation_report(FOUND, options={"seeds": 2})
    text = report.to_text()
    assert "stars: test scores, mean ± sd over 2 seeds" in text
    assert "Options: seeds=2." in text
    assert "2 seeds" in text
    page = report.to_html()
    assert page.count("data:image/png;base64") == 6  # three scores, light and dark
    one = Evaluation("one", [score("full", None, "mean", 0, 0.8)])
    assert "1 seed." in " ".join(evaluation_report(one).to_text().split())


@pytest.fixture(scope="module")
def trained():
    graphs = random_graphs(0, n_graphs=30)
    graphs = replace(graphs, y=np.arange(30) % 2)
    data = MergedGraphs.of(graphs, 1)
    settings = ClassifierSettings(n_layers=1, hidden_channels=4)
    options = ClassifierTraining(steps=12, evaluate_every=3)
    return data, train_classifier(data, settings, options, validation=data, progress=False)


def test_the_table_has_a_row_for_each_classifier(trained):
    data, result = trained
    table = score_table(result, {"validation": data, "test": data})
    assert list(table.columns)[2:] == [
        "validation AUC", "validation bal. acc.", "test AUC", "test bal. acc.",
    ]  # fmt: skip
    last, best = table.rows
    assert list(last[:2]) == ["last step", 12]
    assert last[2:4] == last[4:6] == [result.history[-1][k] for k in ("auc", "balanced_accuracy")]
    assert best[2] == max(entry["auc"] for entry in result.history)
    assert best[1] == best_step(result)
    alone = TrainedClassifier(result.model, result.model, result.history, 1.0)
    assert len(score_table(alone, {"test": data}).rows) == 1


@pytest.mark.parametrize(
    ("aucs", "expected"),
    [([0.5, 0.7, 0.7], 2), ([np.nan, 0.4, 0.3], 2), ([np.nan] * 3, 3), (None, 3)],
)
def test_the_best_step_is_the_first_with_the_best_auc(trained, aucs, expected):
    history = [{"step": float(k), "loss": 1.0} for k in (1, 2, 3)]
    for entry, auc in zip(history, aucs or [], strict=False):
        entry["auc"] = auc
    _, result = trained
    assert best_step(TrainedClassifier(result.model, result.best, history, 1.0)) == expected


def test_the_page_of_a_training_has_a_curve(trained):
    data, result = trained
    report = training_report(result, {"test": data}, source="30 graphs", options={"steps": 12})
    text = report.to_text()
    assert "GIN, 1 layers" not in text
    assert "GIN, 1 layer, sum over nodes" in text
    assert "trained on 30 graphs" in text
    assert "12 steps in" in text
    assert report.to_html().count("data:image/png;base64") == 2
    bare = TrainedClassifier(result.model, result.model, [{"step": 1.0, "loss": 0.5}], 1.0)
    page = training_report(bare, {})
    assert "Scores" not in page.to_text()
    assert page.to_html().count("data:image/png;base64") == 2


def test_a_curve_of_one_point_is_seen():
    axes = figures.Figure().subplots()
    plot_learning_curve(axes, [{"step": 5.0, "loss": 0.5}], {"loss": "training"})
    (line,) = axes.get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([5.0], [0.5])
    assert line.get_marker() == "o"
