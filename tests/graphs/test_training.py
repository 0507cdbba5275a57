"""Training on merged trees: what is learnt, what is the same twice, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from scikd.exceptions import InvalidInputError
from scikd.graphs import training
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.models import ClassifierSettings
from scikd.graphs.training import (
    ClassifierTraining,
    evaluate_logits,
    predict_logits,
    train_classifier,
)
from tests.reference.graph_changes import without_self_loops
from tests.reference.graph_trees import random_graphs

seeds = st.integers(0, 2**32 - 1)
SMALL = ClassifierSettings(n_layers=2, hidden_channels=8)
# GIN adds a node to its neighbours; what it is itself has to be read out besides.
WITH_SELF = replace(SMALL, jumping_knowledge="sum")
FEW = ClassifierTraining(steps=6, evaluate_every=2, learning_rate=0.01, device="cpu")


@pytest.fixture(autouse=True)
def _double():
    """Compute in double precision, so that equal means equal."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def labelled(seed, n_graphs=30, n_classes=2):
    """Return random graphs of classes that no one can know."""
    graphs = random_graphs(seed, n_graphs=n_graphs)
    return replace(
        graphs, y=np.random.default_rng(seed).permutation(np.arange(n_graphs) % n_classes)
    )


def learnable(seed, n_graphs=200):
    """Return random graphs whose class is whether most nodes have a 1 as their first feature."""
    graphs = random_graphs(seed, n_graphs=n_graphs)
    ones = np.bincount(graphs.graph_of_node, 2.0 * graphs.node_features[:, 0] - 1.0)
    return replace(graphs, y=(ones > 0).astype(np.int64))


def merged(graphs, **options):
    return MergedGraphs.of(graphs, 2, **options)


def weights_of(model):
    return {name: values.numpy() for name, values in model.state_dict().items()}


def assert_same_weights(first, second, **tolerance):
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    for name, values in first.items():
        if tolerance:
            np.testing.assert_allclose(second[name], values, err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(second[name], values, err_msg=name)


def differ(first, second):
    first, second = weights_of(first), weights_of(second)
    return any(not np.array_equal(first[name], second[name]) for name in first)


def train(data, options=FEW, settings=SMALL, **more):
    return train_classifier(data, settings, options, progress=False, **more)


# ------------------------------------------------------------------------------- what is learnt


def test_a_problem_that_can_be_learnt_is_learnt():
    data, test = merged(learnable(0)), merged(learnable(1))
    result = train(data, ClassifierTraining(steps=150, learning_rate=0.01), WITH_SELF)
    scores = evaluate_logits(predict_logits(result.model, test), test.y.numpy())
    assert scores["auc"] > 0.95
    assert scores["balanced_accuracy"] > 0.85
    losses = [entry["loss"] for entry in result.history]
    assert losses[-1] < 0.5 * losses[0]
    assert result.seconds > 0


def test_labels_that_cannot_be_known_are_not_learnt():
    data, test = merged(labelled(0)), merged(labelled(1, n_graphs=200))
    result = train(data, ClassifierTraining(steps=50))
    scores = evaluate_logits(predict_logits(result.model, test), test.y.numpy())
    assert abs(scores["auc"] - 0.5) < 0.15


@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_seed_decides(batch_size):
    data = merged(labelled(2))
    settings = replace(SMALL, dropout=0.3)
    options = replace(FEW, batch_size=batch_size)
    first, second = (train(data, options, settings) for _ in range(2))
    assert_same_weights(first.model, second.model)
    assert first.history == second.history
    assert differ(first.model, train(data, replace(options, seed=1), settings).model)


def test_random_numbers_of_others_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(merged(labelled(2)), settings=replace(SMALL, dropout=0.3))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_double_weight_is_a_set_given_twice(balanced):
    graphs = labelled(3, n_graphs=10)
    weights = torch.ones(10)
    weights[[1, 4]] = 2.0
    options = replace(FEW, balanced=balanced)
    heavy = train(replace(merged(graphs), weights=weights), options)
    twice = train(merged(graphs.select([*range(10), 1, 4])), options)
    assert_same_weights(heavy.model, twice.model, rtol=1e-7, atol=1e-9)
    plain = train(merged(graphs), options)
    assert (
        np.abs(
            weights_of(plain.model)["head.weight"] - weights_of(heavy.model)["head.weight"]
        ).max()
        > 1e-5
    )


def test_balanced_classes_count_the_same():
    graphs = labelled(4, n_graphs=12)
    rare = graphs.select([*np.flatnonzero(graphs.y == 0), *np.flatnonzero(graphs.y == 1)[:2]])
    data = merged(rare)
    by_hand = torch.where(data.y == 1, 3.0, 1.0)  # six of one class, two of the other
    expected = train(replace(data, weights=by_hand), replace(FEW, balanced=False))
    found = train(data, replace(FEW, balanced=True))
    assert_same_weights(found.model, expected.model, rtol=1e-7, atol=1e-9)
    assert differ(found.model, train(data, replace(FEW, balanced=False)).model)


def test_sets_of_weight_zero_count_nothing():
    graphs = labelled(5, n_graphs=10)
    data = merged(graphs)
    weights = torch.ones(10)
    weights[[0, 1]] = 0.0
    # the vocabulary of features comes from all, so the model must be the same to begin with
    model = train(data, replace(FEW, steps=1)).model
    found = train(replace(data, weights=weights), model=model)
    expected = train(data.batch(range(2, 10)), model=model)
    assert_same_weights(found.model, expected.model, rtol=1e-7, atol=1e-9)
    alone = train(replace(data, weights=weights), replace(FEW, steps=30, batch_size=1))
    assert all(np.isfinite(values).all() for values in weights_of(alone.model).values())


def test_batches_are_drawn_from_all():
    data = merged(labelled(6))
    whole = train(data)
    assert_same_weights(whole.model, train(data, replace(FEW, batch_size=30)).model)
    assert_same_weights(whole.model, train(data, replace(FEW, batch_size=100)).model)
    assert differ(whole.model, train(data, replace(FEW, batch_size=29)).model)
    learnt = train(
        merged(learnable(0)),
        ClassifierTraining(steps=200, batch_size=8, learning_rate=0.01),
        WITH_SELF,
    )
    test = merged(learnable(1))
    assert evaluate_logits(predict_logits(learnt.model, test), test.y.numpy())["auc"] > 0.9


def test_soft_labels_that_are_certain_are_the_classes():
    data = merged(labelled(7))
    certain = np.eye(2)[data.y.numpy()]
    expected, found = train(data), train(data, soft_labels=certain)
    assert_same_weights(found.model, expected.model, rtol=1e-7, atol=1e-9)
    assert differ(train(data, soft_labels=0.9 * certain + 0.05).model, expected.model)


def test_deeper_trees_are_cut():
    graphs = without_self_loops(labelled(8))
    for conv in ("gin", "gcn"):
        settings = replace(SMALL, conv=conv)
        data = [MergedGraphs.of(graphs, n_hops) for n_hops in (3, 4)]
        first, second = (train(part, settings=settings) for part in data)
        assert_same_weights(first.model, second.model, rtol=1e-7, atol=1e-9)


# ---------------------------------------------------------------------------------- validation


def test_the_best_model_is_that_of_the_best_look():
    data, valid = merged(labelled(9)), merged(labelled(10))
    result = train(
        data, ClassifierTraining(steps=31, evaluate_every=4, learning_rate=0.02), validation=valid
    )
    assert [entry["step"] for entry in result.history] == [*range(4, 31, 4), 31]
    aucs = [entry["auc"] for entry in result.history]
    assert len(set(aucs)) > 2
    best, last = (
        evaluate_logits(predict_logits(model, valid), valid.y.numpy())
        for model in (result.best, result.model)
    )
    assert best["auc"] == max(aucs)
    assert last == {name: result.history[-1][name] for name in ("auc", "balanced_accuracy")}
    early = train(
        data, ClassifierTraining(steps=4 * (1 + int(np.argmax(aucs))), learning_rate=0.02)
    )
    assert_same_weights(early.model, result.best)
    assert not result.best.training
    assert not result.model.training


def test_without_validation_the_last_is_the_best():
    result = train(merged(labelled(9)))
    assert result.best is result.model
    assert [set(entry) for entry in result.history] == 3 * [{"step", "loss"}]


def test_where_no_look_says_anything_the_last_is_the_best():
    one = labelled(10).select([0, 2])
    valid = merged(replace(one, y=np.zeros(2, int)), classes=[0, 1])
    result = train(merged(labelled(9)), validation=valid)
    assert all(np.isnan(entry["auc"]) for entry in result.history)
    assert_same_weights(result.best, result.model)


def test_a_model_goes_on_and_is_not_changed():
    data = merged(labelled(11))
    first = train(data).model
    before = weights_of(first)
    second = train(data, model=first)
    for name, values in weights_of(first).items():
        np.testing.assert_array_equal(values, before[name])
    assert differ(first, second.model)
    assert second.history[-1]["loss"] < train(data).history[0]["loss"]


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"evaluate_every": -1, "weight_decay": -0.1}, "evaluate_every=-1, weight_decay=-0.1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=f"Expected positive numbers.*got {message}"):
        ClassifierTraining(**options)


@pytest.mark.parametrize(
    ("soft_labels", "message"),
    [
        (np.full((30, 3), 1 / 3), r"Expected soft_labels of shape \(30, 2\); got \(30, 3\)"),
        (np.full((29, 2), 0.5), r"got \(29, 2\)"),
        (np.full((30, 2), 0.4), "Expected soft_labels that are probabilities"),
        (np.full((30, 2), np.nan), "Expected soft_labels that are probabilities"),
        (np.tile([1.5, -0.5], (30, 1)), "Expected soft_labels that are probabilities"),
    ],
)
def test_bad_soft_labels_are_refused(soft_labels, message):
    with pytest.raises(InvalidInputError, match=message):
        train(merged(labelled(12)), soft_labels=soft_labels)


def test_bad_data_are_refused():
    data = merged(labelled(12))
    unlabelled = merged(replace(labelled(12), y=None))
    with pytest.raises(InvalidInputError, match="Expected graphs with classes to train on"):
        train(unlabelled)
    with pytest.raises(InvalidInputError, match="Expected graphs with classes to validate on"):
        train(data, validation=unlabelled)
    for raw in (labelled(12), labelled(12).to_pyg()):
        with pytest.raises(InvalidInputError, match="Expected MergedGraphs; got .*distilled.prep"):
            train(data, validation=raw)
    with pytest.raises(InvalidInputError, match="Expected MergedGraphs; got GraphSet"):
        train(labelled(12))
    other = merged(replace(labelled(13), y=labelled(13).y + 1))
    with pytest.raises(InvalidInputError, match=r"classes \[0, 1\], in this order.*got \[1, 2\]"):
        train(data, validation=other)
    with pytest.raises(InvalidInputError, match="below n_classes=2; got 2"):
        train(merged(labelled(12, n_classes=3)))
    with pytest.raises(InvalidInputError, match="Expected trees of depth 2"):
        train(MergedGraphs.of(labelled(12), 1))
    model = train(data).model
    with pytest.raises(InvalidInputError, match="Expected a model with the settings"):
        train(data, settings=replace(SMALL, hidden_channels=4), model=model)


def test_a_loss_that_is_not_finite_is_refused():
    data = merged(labelled(12))
    with pytest.raises(InvalidInputError, match="Expected a finite loss; .* Lower learning_rate"):
        train(data, replace(FEW, learning_rate=1e200))


# --------------------------------------------------------------------------------------- scores


@given(seeds, st.booleans())
def test_scores_of_two_classes_are_those_of_scikit_learn(seed, ties):
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(20) % 2)
    logits = random.integers(-2, 3, (20, 2)).astype(float) if ties else random.normal(size=(20, 2))
    found = evaluate_logits(logits, y)
    difference = logits[:, 1] - logits[:, 0]
    assert found["auc"] == pytest.approx(roc_auc_score(y, difference), abs=1e-12)
    predicted = (difference > 0).astype(int)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))


@given(seeds)
def test_scores_of_three_classes_are_those_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(30) % 3)
    logits = random.normal(size=(30, 3))
    proba = torch.from_numpy(logits).softmax(dim=1).numpy()
    found = evaluate_logits(logits, y)
    assert found["auc"] == pytest.approx(roc_auc_score(y, proba, multi_class="ovr"), abs=1e-12)
    predicted = logits.argmax(axis=1)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))


def test_logits_that_probabilities_cannot_tell_apart_are_told_apart():
    y = np.array([0, 1, 0, 1])
    assert evaluate_logits(np.array([[0.0, 800], [0, 900], [0, 800], [0, 1000]]), y)["auc"] == 1.0
    equal = evaluate_logits(np.zeros((4, 2)), y)
    assert equal == {"auc": 0.5, "balanced_accuracy": 0.5}


@pytest.mark.parametrize("y", [[0, 0, 0], [1, 1, 1], [0, 1, 1], []])
def test_a_class_that_is_missing_gives_nan(y):
    n_classes = 3 if len(set(y)) == 2 else 2
    logits = np.random.default_rng(0).normal(size=(len(y), n_classes))
    assert all(np.isnan(value) for value in evaluate_logits(logits, np.array(y, int)).values())


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(InvalidInputError, match="Expected finite logits"):
        evaluate_logits(np.array([[0.0, np.nan], [1.0, 0.0]]), np.array([0, 1]))


# -------------------------------------------------------------------------------------- devices


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InvalidInputError, match="torch can use here, .*; got 'cuda:99'"):
        train(merged(labelled(12)), replace(FEW, device="cuda:99"))


def test_everything_goes_to_the_device(monkeypatch):
    # Not even the "meta" device computes a loss, so what is moved is looked at before the step.
    seen = []

    def look(model, optimiser, batch, targets, weights):
        held = [batch.weights, batch.node_features, targets, weights, *model.parameters()]
        seen.append({tensor.device.type for tensor in held})
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_step", look)
    for batch_size in (None, 4):
        for device in ("cpu", "meta"):
            options = replace(FEW, device=device, batch_size=batch_size)
            with pytest.raises(KeyboardInterrupt):
                train(merged(labelled(12)), options)
            assert seen.pop() == {device}


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_gpu_learns_what_a_cpu_learns(batch_size):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    data, settings = merged(labelled(12)), replace(SMALL, dropout=0.0)
    options = replace(FEW, batch_size=batch_size)
    ours, theirs = (
        train_classifier(data, settings, replace(options, device=name), progress=False)
        for name in ("cuda", "cpu")
    )
    for name, values in theirs.model.state_dict().items():
        found = ours.model.state_dict()[name]
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, values, rtol=1e-3, atol=1e-4)
