"""The protocol that compares distilled graphs with graphs of the same number of bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.graphs import _arena
from scikd.graphs._arena import Arena, published_within
from scikd.graphs._cost import Cost
from scikd.graphs.baselines import fill_budget, herding, k_center, stored_bytes
from scikd.graphs.distilled import DistilledGraphs
from scikd.graphs.evaluation import (
    COSTS,
    METHODS,
    SCORES,
    Evaluation,
    EvaluationOptions,
    evaluate,
)
from scikd.graphs.mirage import Mirage
from scikd.graphs.readers import random_split
from scikd.graphs.training import ClassifierTraining
from tests.reference.graph_trees import random_graphs

FEW = ClassifierTraining(steps=3, evaluate_every=1)
OPTIONS = EvaluationOptions(
    budgets=(150, 400),
    n_hops=1,
    seeds=2,
    readouts=("sum",),
    hidden_channels=4,
    training=FEW,
    full_training=FEW,
    n_teachers=2,
)


def labelled(seed=0, n_graphs=60):
    graphs = random_graphs(seed, n_graphs=n_graphs)
    y = np.random.default_rng(seed).permutation(np.arange(n_graphs) % 2)
    return replace(graphs, y=y, name="random")


GRAPHS = labelled()
SPLIT = random_split(GRAPHS.y, 0, (0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def found():
    return evaluate(GRAPHS, SPLIT, OPTIONS, progress=False)


@pytest.fixture
def n_trained(monkeypatch):
    """Count the trainings."""
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return train_classifier(*args, **options)

    train_classifier = _arena.train_classifier
    monkeypatch.setattr(Arena, "_warm_up", lambda _: None)
    monkeypatch.setattr(_arena, "train_classifier", counted)
    return calls


def without_times(scores):
    return [replace(score, **dict.fromkeys(COSTS, 0.0)) for score in scores]


def test_every_method_gives_rows(found):
    cells = [(s.method, s.budget, s.readout, s.seed) for s in found.scores]
    small = [(method, budget) for budget in (150, 400) for method in METHODS]
    expected = [("size", None, "none", 0), ("trees", None, "none", 0)]
    expected += [
        (method, budget, "sum", seed)
        for method, budget in [*small, ("full", None)]
        for seed in (0, 1)
    ]
    assert cells == expected
    for score in found.scores:
        for name in SCORES:
            assert 0 <= getattr(score, name) <= 1
        assert score.seconds_to_train > 0


def test_budgets_are_kept(found):
    train = Arena(GRAPHS, SPLIT, OPTIONS).train
    for score in found.scores:
        if score.budget is None:
            assert score.n_bytes == stored_bytes(train)
            assert score.n_items == len(train)
        else:
            assert 0 < score.n_bytes <= score.budget
            assert score.n_items > 0


def test_thresholds_are_those_of_the_validation_graphs():
    arena = Arena(GRAPHS, SPLIT, OPTIONS)
    y = {name: GRAPHS.y[SPLIT[name]] for name in ("valid", "test")}
    logits = {name: 3.0 * np.eye(2)[labels] + [20.0, 0.0] for name, labels in y.items()}
    found = arena._judged("last", logits["valid"], logits["test"])
    assert found == {"auc_last": 1.0, "accuracy_last": 0.5, "calibrated_last": 1.0}
    # Thresholds that would suit the test graphs do not matter.
    moved = arena._judged("last", logits["valid"], logits["test"] + [20.0, 0.0])
    assert moved == {"auc_last": 1.0, "accuracy_last": 0.5, "calibrated_last": 0.5}


def test_only_random_subsets_differ_by_seed():
    arena = Arena(GRAPHS, SPLIT, OPTIONS)
    subsets = [arena._subset("random", seed, 400).tolist() for seed in range(3)]
    assert len({tuple(subset) for subset in subsets}) == 3
    for rule in ("herding", "k-center"):
        assert arena._subset(rule, 0, 400).tolist() == arena._subset(rule, 1, 400).tolist()


@pytest.mark.parametrize(("method", "rule"), [("herding", herding), ("k-center", k_center)])
def test_subsets_are_as_large_as_of_the_whole_order(method, rule):
    arena = Arena(GRAPHS, SPLIT, OPTIONS)
    order = rule(arena._histogram[0], np.asarray(arena.train.y), len(arena.train))
    for budget in (100, 200, 300, 10_000):
        expected = fill_budget(arena.train, order, budget)
        np.testing.assert_array_equal(arena._subset(method, 0, budget), expected)
    assert len(expected) == len(arena.train) > 2 * 8


def test_distillation_sees_the_training_part_alone(monkeypatch):
    seen = []
    fit = Mirage.fit

    def spy(self, graphs, *args, **options):
        seen.append(graphs)
        return fit(self, graphs, *args, **options)

    monkeypatch.setattr(Mirage, "fit", spy)
    monkeypatch.setattr(Arena, "_warm_up", lambda _: None)
    options = replace(OPTIONS, methods=("mirage", "published"), budgets=(400,), seeds=1)
    evaluate(GRAPHS, SPLIT, options, progress=False)
    assert seen
    for graphs in seen:
        np.testing.assert_array_equal(
            graphs.node_features, GRAPHS.select(SPLIT["train"]).node_features
        )


def test_networks_learn_the_labels_that_distilled_sets_have(n_trained):
    options = replace(OPTIONS, methods=("mirage", "committee", "published"), budgets=(400,))
    evaluate(GRAPHS, SPLIT, replace(options, seeds=1), progress=False)
    sets = [args[0] for args in n_trained if isinstance(args[0], DistilledGraphs)]
    shares, consensus, published = (distilled.soft_labels for distilled in sets)
    assert published is None
    assert len(shares) == len(sets[0])
    assert len(consensus) == len(sets[1])
    assert not np.array_equal(shares, consensus)


def test_the_published_algorithm_has_the_lowest_support_that_fits():
    graphs = GRAPHS.select(SPLIT["train"])
    found = published_within(graphs, 1, 400)
    assert found.n_bytes <= 400
    least = min(found.provenance["min_support"])
    for support in range(1, least):  # one that is lower gives more than fits
        more = Mirage(1, min_support=support, mode="published", max_sets=100_000).fit(graphs)
        assert more.distilled_.n_bytes > 400
    assert published_within(graphs, 1, 5) is None


def test_only_a_budget_that_is_too_small_is_taken_as_nothing_fits(tmp_path, monkeypatch):
    def broken(*_):
        raise InvalidInputError("Expected at most max_sets=7 sets; something is wrong.")

    options = replace(OPTIONS, methods=("mirage", "published", "random"), budgets=(5,), seeds=1)
    found = evaluate(GRAPHS, SPLIT, options, progress=False)
    assert {score.budget for score in found.scores} == {None}

    for method in ("mirage", "published", "committee"):
        with monkeypatch.context() as patch:
            patch.setattr(Arena, "_warm_up", lambda _: None)
            patch.setattr(Mirage, "fit", broken)
            with pytest.raises(InvalidInputError, match="something is wrong"):
                Arena(GRAPHS, SPLIT, OPTIONS).score(method, 400, "sum", 0)
    with monkeypatch.context() as patch:
        patch.setattr(_arena, "fill_budget", broken)
        with pytest.raises(InvalidInputError, match="something is wrong"):
            evaluate(GRAPHS, SPLIT, replace(options, methods=("random",)), folder=tmp_path)
    kept = evaluate(GRAPHS, SPLIT, replace(options, methods=("random",)), folder=tmp_path)
    assert len(kept.scores) == 3
    assert len(list(tmp_path.glob("*/random-*"))) == 1


def test_what_methods_share_costs_each_of_them_as_much(monkeypatch):
    arena = Arena(GRAPHS, SPLIT, OPTIONS)
    stages = []

    def measured(work):
        stages.append(work)
        return work(), Cost(10.0 ** -len(stages), 100.0 / len(stages))

    monkeypatch.setattr(_arena, "measured", measured)
    herded, centred = (arena.training_set(rule, 400, 0)[2] for rule in ("herding", "k-center"))
    assert len(stages) == 3  # the histogram once
    assert herded == Cost(0.1 + 0.01, 100.0)
    assert centred == Cost(0.1 + 0.001, 100.0)
    stages.clear()
    small, large = (arena.training_set("committee", budget, 0)[2] for budget in (250, 400))
    assert len(stages) == 3  # the teachers once
    assert small == Cost(0.1 + 0.01, 100.0)
    assert large == Cost(0.1 + 0.001, 100.0)


def test_one_stage_after_the_other_takes_the_memory_of_the_larger():
    assert Cost(1.0, 5.0).then(Cost(2.0, 3.0)) == Cost(3.0, 5.0)
    assert np.isnan(Cost(1.0, np.nan).then(Cost(2.0, 3.0)).mib)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no memory is told")
def test_the_memory_of_stages_is_that_of_what_is_done(monkeypatch):
    train_classifier = _arena.train_classifier

    def wasteful(*args, **options):
        np.ones(8 * 2**20).sum()  # 64 MiB
        return train_classifier(*args, **options)

    monkeypatch.setattr(_arena, "train_classifier", wasteful)
    found = Arena(GRAPHS, SPLIT, OPTIONS).score("random", 400, "sum", 0)
    assert 60 < found["mib_to_train"] < 90
    assert found["mib_to_distil"] < 30


def test_what_comes_first_does_not_pay_for_compiling(monkeypatch):
    calls = []
    monkeypatch.setattr(Arena, "_warm_up", lambda _: calls.append("warm"))
    monkeypatch.setattr(_arena, "measured", lambda work: calls.append("work") or (work(), Cost()))
    Arena(GRAPHS, SPLIT, OPTIONS).score("size", None, "none", 0)
    assert calls == ["warm", "work"]


# ---------------------------------------------------------------------------------- going on


def test_a_second_call_trains_nothing(found, n_trained, tmp_path):
    first = evaluate(GRAPHS, SPLIT, OPTIONS, folder=tmp_path, progress=False)
    assert without_times(first.scores) == without_times(found.scores)
    n_trained.clear()
    second = evaluate(GRAPHS, SPLIT, OPTIONS, folder=tmp_path, progress=False)
    assert second == first
    assert not n_trained


def test_what_was_interrupted_goes_on(found, monkeypatch, n_trained, tmp_path):
    score, done = Arena.score, []

    def interrupted(self, *cell):
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append(cell)
        return score(self, *cell)

    monkeypatch.setattr(Arena, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(GRAPHS, SPLIT, OPTIONS, folder=tmp_path, progress=False)
    monkeypatch.setattr(Arena, "score", score)
    cells = []
    monkeypatch.setattr(
        Arena, "score", lambda self, *cell: cells.append(cell) or score(self, *cell)
    )
    result = evaluate(GRAPHS, SPLIT, OPTIONS, folder=tmp_path, progress=False)
    assert not set(cells) & set(done)
    assert len(cells) + len(done) == len(result.scores)
    assert without_times(result.scores) == without_times(found.scores)


def test_more_may_be_asked_later(n_trained, tmp_path):
    options = replace(OPTIONS, methods=("random",), budgets=(400,), seeds=1)
    evaluate(GRAPHS, SPLIT, options, folder=tmp_path, progress=False)
    n_trained.clear()
    more = replace(options, seeds=2, budgets=(150, 400))
    evaluate(GRAPHS, SPLIT, more, folder=tmp_path, progress=False)
    assert len(n_trained) == 4  # 150 twice, 400 and all once more


@pytest.mark.parametrize("what", ["options", "graphs", "split"])
def test_scores_of_something_else_are_not_taken(n_trained, tmp_path, what):
    options = replace(OPTIONS, methods=("random",), budgets=(400,), seeds=1)
    evaluate(GRAPHS, SPLIT, options, folder=tmp_path, progress=False)
    n_trained.clear()
    if what == "options":
        evaluate(GRAPHS, SPLIT, replace(options, dropout=0.1), folder=tmp_path, progress=False)
    elif what == "graphs":
        evaluate(labelled(5), SPLIT, options, folder=tmp_path, progress=False)
    else:
        split = random_split(GRAPHS.y, 1, (0.6, 0.2, 0.2))
        evaluate(GRAPHS, split, options, folder=tmp_path, progress=False)
    assert len(n_trained) == 2


def test_what_does_not_fit_is_left_out_and_not_tried_again(monkeypatch, tmp_path):
    options = replace(OPTIONS, budgets=(8, 400), seeds=1)
    found = evaluate(GRAPHS, SPLIT, options, folder=tmp_path, progress=False)
    budgets = {score.budget for score in found.scores}
    assert budgets == {None, 400}
    monkeypatch.setattr(Arena, "score", lambda *_: pytest.fail("tried again"))
    assert evaluate(GRAPHS, SPLIT, options, folder=tmp_path, progress=False) == found


def test_a_damaged_score_is_refused(tmp_path):
    options = replace(OPTIONS, methods=("random",), budgets=(400,), seeds=1)
    evaluate(GRAPHS, SPLIT, options, folder=tmp_path, progress=False)
    (file,) = tmp_path.glob("*/random-400-sum-0.json")
    whole = file.read_text()
    for content in (whole[:20], '{"method": "random"}', "3"):
        file.write_text(content)
        with pytest.raises(CorruptFileError, match="does not hold a score"):
            evaluate(GRAPHS, SPLIT, options, folder=tmp_path, progress=False)


# -------------------------------------------------------------------------------------- table


def test_the_table_has_means_and_deviations(found):
    table = found.table()
    text = table.to_text()
    assert "random: test scores, mean ± sd over 2 seeds" in text
    assert len(table.rows) == 2 + 2 * len(METHODS) + 1
    (row,) = (row for row in found.summary() if (row["method"], row["budget"]) == ("random", 400))
    scores = [s.auc_last for s in found.scores if (s.method, s.budget) == ("random", 400)]
    assert row["seeds"] == 2
    assert row["auc_last"] == pytest.approx((np.mean(scores), np.std(scores, ddof=1)))
    shown = f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}"
    (line,) = (line for line in table.rows if line[:2] == ("400", "random"))
    assert line[5] == shown
    (line,) = (line for line in table.rows if line[1] == "size")
    assert line[0] == "none"
    assert "±" not in line[5]
    one = Evaluation("one", [score for score in found.scores if score.seed == 0])
    assert "±" not in "".join(str(cell) for row in one.table().rows for cell in row)


# ------------------------------------------------------------------------------------ refusals


def test_bad_splits_are_refused():
    whole = SPLIT
    with pytest.raises(InvalidInputError, match="it has no valid, test"):
        evaluate(GRAPHS, {"train": whole["train"], "test": []}, OPTIONS)
    twice = {**whole, "test": np.append(whole["test"], whole["train"][:2])}
    with pytest.raises(InvalidInputError, match="do not overlap; 2 graphs are in two"):
        evaluate(GRAPHS, twice, OPTIONS)
    one = whole["valid"][GRAPHS.y[whole["valid"]] == 0]
    with pytest.raises(InvalidInputError, match=r"graphs of each .*; valid has none of \[1\]"):
        evaluate(GRAPHS, {**whole, "valid": one}, OPTIONS)
    with pytest.raises(InvalidInputError, match=r"two classes or more.*; all are of \[0\]"):
        evaluate(replace(GRAPHS, y=np.zeros(60, int)), whole, OPTIONS)
    with pytest.raises(InvalidInputError, match="Expected a class for each graph"):
        evaluate(replace(GRAPHS, y=None), whole, OPTIONS)


def test_graphs_outside_the_split_do_not_count():
    y = GRAPHS.y.astype(float)
    rest = {name: members[2:] for name, members in SPLIT.items()}
    used = np.concatenate(list(rest.values()))
    y[np.setdiff1d(np.arange(60), used)] = np.nan
    options = replace(OPTIONS, methods=("random",), budgets=(400,), seeds=1)
    found = evaluate(replace(GRAPHS, y=y), rest, options, progress=False)
    assert without_times(found.scores) == without_times(
        evaluate(GRAPHS, rest, options, progress=False).scores
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("random", "magic")}, r"Expected methods among .*; got \['magic'\]"),
        ({"readouts": ("max", "sum")}, r"Expected readouts among .*; got \['max'\]"),
        ({"seeds": 0}, "Expected seeds to be at least 1; got 0"),
        ({"n_teachers": 0}, "Expected n_teachers to be at least 1; got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        EvaluationOptions(**options)


def test_bad_budgets_are_refused():
    with pytest.raises(InvalidInputError, match="Expected a size such as"):
        evaluate(GRAPHS, SPLIT, replace(OPTIONS, budgets=("much",)), progress=False)
