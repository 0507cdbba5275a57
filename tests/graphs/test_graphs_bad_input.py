"""Graphs that lack something, and runs that are stopped: what is refused, and what is done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from scikd import persistence
from scikd.exceptions import InvalidInputError
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.distilled import DistilledGraphs
from scikd.graphs.evaluation import EvaluationOptions, evaluate
from scikd.graphs.graphset import GraphSet
from scikd.graphs.mirage import Mirage
from scikd.graphs.models import ClassifierSettings
from scikd.graphs.readers import random_split
from scikd.graphs.training import ClassifierTraining, predict_logits, train_classifier
from tests.reference.graph_trees import random_graphs

ROOT = Path(__file__).parents[2]
SETTINGS = ClassifierSettings(n_classes=2, n_layers=2, hidden_channels=4)
FEW = ClassifierTraining(steps=3)


def labelled(seed=0, n_classes=2, n_graphs=60):
    return replace(random_graphs(seed, n_graphs=n_graphs), y=np.arange(n_graphs) % n_classes)


def without_edges():
    """Give pairs of nodes that nothing joins, each 0 or 1."""
    random = np.random.default_rng(0)
    return GraphSet(
        node_ptr=2 * np.arange(61),
        arc_ptr=np.zeros(61, int),
        sources=[],
        targets=[],
        node_features=random.integers(0, 2, (120, 1)),
        edge_features=np.empty((0, 0)),
        y=np.arange(60) % 2,
    )


def trained(distilled, **options):
    return train_classifier(distilled, SETTINGS, replace(FEW, **options), progress=False).model


# -------------------------------------------------------------------------------------- graphs


def test_a_data_set_without_graphs_is_refused():
    none = labelled().select([])
    for mode in ("weighted", "published", "lossless"):
        with pytest.raises(InvalidInputError, match="Expected at least one graph; got none"):
            Mirage(2, mode=mode).fit(none)
    with pytest.raises(InvalidInputError, match="Expected at least one graph; got none"):
        Mirage(2).fit([])


def test_a_graph_without_nodes_is_named():
    edges = torch.zeros(2, 0, dtype=torch.int64)
    graphs = [Data(x=torch.ones(n, 1), edge_index=edges, y=n) for n in (1, 0)]
    with pytest.raises(InvalidInputError, match="graph 1: expected at least one node; it has 0"):
        Mirage(2).fit(graphs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_named(value):
    edges = torch.tensor([[0, 1], [1, 0]])
    graphs = [Data(x=torch.ones(2, 1), edge_index=edges, y=k) for k in (0, 1)]
    graphs[1].x[0] = value
    with pytest.raises(InvalidInputError, match=rf"graph 1: .* its row 0 is \[{value}"):
        Mirage(2).fit(graphs)


@pytest.mark.parametrize("mode", ["weighted", "lossless"])
def test_graphs_without_edges_are_sets_of_single_nodes(mode):
    graphs = without_edges()
    distilled = Mirage(2, mode=mode, degrees=True).fit(graphs).distilled_
    assert distilled.trees.n_trees(2) == 2
    np.testing.assert_array_equal(distilled.prepare(graphs).node_features, graphs.node_features)
    for conv in ("gin", "sage", "gat", "gatv2", "gcn"):
        settings = replace(SETTINGS, conv=conv, hidden_channels=32)
        model = train_classifier(distilled, settings, FEW, progress=False).model
        logits = predict_logits(model, MergedGraphs.of(graphs, 2, degrees=True))
        assert np.isfinite(logits).all()
        assert len(np.unique(logits.round(4), axis=0)) == 3  # both 0, both 1, one of each
    with pytest.raises(InvalidInputError, match="needs features of edges, and there are none"):
        train_classifier(distilled, replace(SETTINGS, conv="gine"), FEW, progress=False)


def test_graphs_without_edges_are_compared():
    graphs = without_edges()
    options = EvaluationOptions(
        budgets=(50,), seeds=1, n_hops=2, training=FEW, full_training=FEW, n_teachers=1
    )
    split = random_split(graphs.y, 0, (0.6, 0.2, 0.2))
    found = evaluate(graphs, split, options, progress=False)
    # The published algorithm leaves out single nodes, so nothing is left.
    assert {s.method for s in found.scores} == {
        "size", "trees", "mirage", "committee", "random", "herding", "k-center", "full",
    }  # fmt: skip


def test_the_published_algorithm_says_that_single_nodes_are_no_trees_to_it():
    with pytest.raises(InvalidInputError, match=r"class 0 \(the most frequent is in 0\)"):
        Mirage(2, mode="published").fit(without_edges())


def test_values_that_were_not_distilled_are_one_to_a_network():
    graphs = labelled()
    distilled = Mirage(2, min_support=0.3).fit(graphs).distilled_
    model = trained(distilled)

    def logits(**shift):
        other = {name: getattr(graphs, name) + value for name, value in shift.items()}
        prepared = distilled.prepare(replace(graphs, **other))
        return predict_logits(model, MergedGraphs.of(prepared, 2))

    unseen = logits(node_features=1000)
    assert np.isfinite(unseen).all()
    np.testing.assert_allclose(logits(node_features=2000), unseen, rtol=1e-6)
    assert not np.allclose(unseen, logits())
    edges = logits(edge_features=1000)
    np.testing.assert_allclose(logits(edge_features=2000), edges, rtol=1e-6)


def test_measured_numbers_where_categories_were_distilled_are_refused():
    graphs = labelled()
    distilled = Mirage(2, min_support=0.3).fit(graphs).distilled_
    model = trained(distilled)
    measured = replace(graphs, node_features=graphs.node_features + 0.5)
    with pytest.raises(InvalidInputError, match="Expected whole numbers, as categories; got"):
        predict_logits(model, MergedGraphs.of(distilled.prepare(measured), 2))


def test_graphs_without_the_features_of_edges_that_were_distilled_are_refused():
    graphs = labelled()
    distilled = Mirage(2, min_support=0.3).fit(graphs).distilled_
    bare = replace(graphs, edge_features=np.empty((graphs.n_arcs, 0)))
    with pytest.raises(InvalidInputError, match=r"Expected 1 edge features, .*; got 0"):
        distilled.prepare(bare)
    model = train_classifier(distilled, replace(SETTINGS, conv="gine"), FEW, progress=False).model
    with pytest.raises(InvalidInputError, match=r"shape \(n, 1\), .*; got \(.*, 0\)"):
        predict_logits(model, MergedGraphs.of(bare, 2))
    edges = torch.tensor([[0, 1], [1, 0]])
    some = [Data(edge_index=edges, num_nodes=2, edge_attr=torch.ones(2, 1), y=0)]
    some += [Data(edge_index=edges, num_nodes=2, y=1)]
    with pytest.raises(InvalidInputError, match="edge_attr in each graph or in none; graph 1 has"):
        Mirage(2).fit(some)


def test_one_class_is_refused(run, tmp_path):
    with pytest.raises(InvalidInputError, match=r"at least two classes; all 60 are of \[0\]"):
        Mirage(2).fit(labelled(n_classes=1))
    (tmp_path / "one.txt").write_text("3\n" + 3 * "2 1\n0 1 1\n0 1 0\n")
    for command in ("distill", "train"):
        code, _, err = run("graphs", command, tmp_path / "one.txt", "-o", tmp_path / "made")
        assert code == 2
        assert re.search("Expected (at least )?two classes.* all 3", err)
        assert not (tmp_path / "made").exists()


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(2, 3))
def test_the_least_budget_that_is_named_is_the_least(seed, n_hops, n_classes):
    graphs = labelled(seed, n_classes, n_graphs=24)
    with pytest.raises(InvalidInputError, match="budget of at least [0-9]+ bytes") as error:
        Mirage(n_hops, budget=1).fit(graphs)
    least = int(re.search("at least ([0-9]+) bytes", str(error.value))[1])
    assert Mirage(n_hops, budget=least).fit(graphs).distilled_.n_bytes <= least
    with pytest.raises(InvalidInputError, match=f"at least {least} bytes.*got {least - 1}"):
        Mirage(n_hops, budget=least - 1).fit(graphs)


# ------------------------------------------------------------------------------- stopped runs


@pytest.fixture
def stars(tmp_path):
    """Give a text file of 80 graphs, stars of three leaves and paths."""
    star = "4 1\n7 3 1 2 3\n5 1 0\n5 1 0\n5 1 0\n"
    path = "4 0\n5 1 1\n7 2 0 2\n7 2 1 3\n5 1 2\n"
    (tmp_path / "stars.txt").write_text("80\n" + 40 * (star + path))
    return tmp_path / "stars.txt"


def stop(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", [(Mirage, "fit"), (persistence, "_swap_in")])
def test_a_stopped_distillation_leaves_nothing(run, stars, tmp_path, monkeypatch, where):
    given = ["graphs", "distill", stars, "--budget", "200", "-o", tmp_path / "new" / "d.scikd"]
    with monkeypatch.context() as patch:
        patch.setattr(*where, stop)
        assert run(*given)[0] == 130
    assert not (tmp_path / "new").exists()
    assert run(*given)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(*where, stop)
        assert run(*given, "--overwrite")[0] == 130
    after = {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert after == before
    assert len(DistilledGraphs.load(tmp_path / "new" / "d.scikd"))


EVALUATE = (
    *("--split", "random", "--budgets", "200", "--methods", "mirage,random", "--seeds", "4"),
    *("--readouts", "sum", "--n-hops", "1", "--hidden-channels", "4"),
    *("--steps", "40", "--full-steps", "40"),
)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_evaluation_leaves_whole_files_and_goes_on(run, stars, tmp_path, number):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    command = [sys.executable, "-m", "scikd.cli", "graphs", "evaluate", stars, *EVALUATE]
    with subprocess.Popen(
        [*map(str, command), "-o", str(stopped)], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while len(list(stopped.glob("runs/*/*.json"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode != 0
    kept = {path: json.loads(path.read_text()) for path in stopped.glob("runs/*/*.json")}
    assert 4 <= len(kept) < 2 + 3 * 4
    assert not [path for path in stopped.iterdir() if path.name != "runs"]

    assert run("graphs", "evaluate", stars, *EVALUATE, "-o", stopped)[0] == 0
    assert {path: json.loads(path.read_text()) for path in kept} == kept
    assert run("graphs", "evaluate", stars, *EVALUATE, "-o", whole)[0] == 0
    first, second = (scores(folder) for folder in (stopped, whole))
    assert first == second
    assert len(first) == 2 + 3 * 4


def scores(folder):
    """Return the scores of an evaluation, by what was trained."""
    return {
        path.name: {
            name: v for name, v in json.loads(path.read_text()).items() if "_to_" not in name
        }
        for path in folder.glob("runs/*/*.json")
    }
