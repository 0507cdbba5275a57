"""Classifiers as teachers, and the labels that a committee of them gives to sets of trees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError
from scikd.graphs.committee import ClassifierTeacher, label_by_committee
from scikd.graphs.dag import MergedGraphs
from scikd.graphs.distilled import DistilledGraphs
from scikd.graphs.mirage import Mirage
from scikd.graphs.models import ClassifierSettings, GraphClassifier
from scikd.graphs.training import ClassifierTraining, predict_logits, train_classifier
from scikd.testing import check_teacher
from tests.reference.graph_trees import random_graphs

SETTINGS = ClassifierSettings(n_layers=2, hidden_channels=8)
LETTERS = np.array(["a", "b"])


@pytest.fixture(scope="module")
def graphs():
    found = random_graphs(0, n_graphs=30)
    return replace(found, y=LETTERS[np.random.default_rng(0).permutation(np.arange(30) % 2)])


@pytest.fixture(scope="module")
def distilled(graphs):
    return Mirage(2, min_support=2, labels="class").fit(graphs).distilled_


@pytest.fixture(scope="module")
def teachers(graphs):
    data = MergedGraphs.of(graphs, 2)
    teachers = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = GraphClassifier.for_data(data, SETTINGS)
        teachers.append(ClassifierTeacher(model, f"seed {seed}", classes=LETTERS))
    return teachers


def test_a_classifier_is_a_teacher(graphs, distilled, teachers):
    check_teacher(teachers[0], MergedGraphs.of(graphs, 2), rowwise=False)
    check_teacher(teachers[0], distilled, rowwise=False)
    default = ClassifierTeacher(teachers[0].model, "default")
    assert default.classes.tolist() == [0, 1]


def test_a_teacher_says_what_its_network_says_of_each_forest(distilled, teachers):
    proba = teachers[0].predict(distilled)["proba"]
    with torch.no_grad():
        expected = [
            teachers[0].model.eval()(forest).double().softmax(dim=1).numpy()[0]
            for forest in distilled.to_pyg()
        ]
    np.testing.assert_allclose(proba, expected, atol=1e-5)


def test_fingerprints_tell_models_apart(teachers):
    same = ClassifierTeacher(teachers[0].model, "another name", classes=LETTERS)
    assert same.fingerprint == teachers[0].fingerprint
    assert len({teacher.fingerprint for teacher in teachers}) == 3
    other = ClassifierTeacher(teachers[0].model, "seed 0", classes=["b", "a"])
    assert other.fingerprint != teachers[0].fingerprint


def test_soft_labels_are_the_mean_of_the_committee(distilled, teachers):
    labelled = label_by_committee(distilled, teachers)
    proba = [
        torch.from_numpy(predict_logits(teacher.model, distilled.merged())).softmax(1).numpy()
        for teacher in teachers
    ]
    np.testing.assert_allclose(labelled.soft_labels, np.mean(proba, axis=0), atol=1 / 255)
    assert distilled.soft_labels is None
    np.testing.assert_allclose(labelled.soft_labels.sum(axis=1), 1.0, rtol=1e-12)
    assert labelled.n_bytes == distilled.n_bytes + 2 * len(distilled)  # a byte for each class
    weighted = TeacherEnsemble(teachers, weights=[1.0, 0.0, 0.0], progress=False)
    np.testing.assert_allclose(
        label_by_committee(distilled, weighted).soft_labels, proba[0], atol=1 / 255
    )


def test_soft_labels_are_kept(distilled, teachers, tmp_path):
    labelled = label_by_committee(distilled, teachers)
    loaded = DistilledGraphs.load(labelled.save(tmp_path / "labelled"))
    np.testing.assert_array_equal(loaded.soft_labels, labelled.soft_labels)
    assert loaded.n_bytes == labelled.n_bytes
    order = np.arange(len(labelled))[::-2]
    np.testing.assert_array_equal(labelled.select(order).soft_labels, labelled.soft_labels[order])
    np.testing.assert_array_equal(labelled.truncate(1).soft_labels, labelled.soft_labels)
    forests = labelled.to_pyg()
    assert all(forest.soft_label.shape == (1, 2) for forest in forests)
    found = torch.cat([forest.soft_label for forest in forests]).numpy()
    np.testing.assert_array_equal(found, labelled.soft_labels)
    assert not hasattr(distilled.to_pyg()[0], "soft_label")


def test_a_student_learns_what_the_committee_says(graphs, distilled):
    data = MergedGraphs.of(graphs, 2)
    options = ClassifierTraining(steps=100, learning_rate=0.01)
    model = train_classifier(data, SETTINGS, options, progress=False).model
    labelled = label_by_committee(distilled, [ClassifierTeacher(model, "one", classes=LETTERS)])
    student = train_classifier(
        labelled.merged(), SETTINGS, options, soft_labels=labelled.soft_labels, progress=False
    )
    said = torch.from_numpy(predict_logits(student.model, labelled.merged())).softmax(1).numpy()
    misses = np.abs(said - labelled.soft_labels).mean()
    assert misses < 0.5 * np.abs(labelled.soft_labels.mean(axis=0) - labelled.soft_labels).mean()


def test_classes_in_another_order_are_put_in_order(distilled, teachers):
    turned = ClassifierTeacher(teachers[0].model, "turned", classes=["b", "a"])
    found = label_by_committee(distilled, [turned]).soft_labels
    expected = label_by_committee(distilled, teachers[:1]).soft_labels
    np.testing.assert_array_equal(found, expected[:, ::-1])


@pytest.mark.parametrize("classes", [["a", "c"], [0, 1], None])
def test_teachers_of_other_classes_are_refused(distilled, teachers, classes):
    wrong = [
        ClassifierTeacher(teacher.model, teacher.name, classes=classes) for teacher in teachers
    ]
    with pytest.raises(InvalidInputError, match=r"Expected teachers of the classes \['a', 'b'\]"):
        label_by_committee(distilled, wrong)


def test_a_class_for_each_logit(teachers):
    with pytest.raises(InvalidInputError, match="Expected 2 classes, one a logit"):
        ClassifierTeacher(teachers[0].model, "three", classes=["a", "b", "c"])


def test_networks_that_are_too_deep_are_refused(graphs, distilled):
    deep = GraphClassifier.for_data(MergedGraphs.of(graphs, 3), replace(SETTINGS, n_layers=3))
    with pytest.raises(InvalidInputError, match="Expected trees of depth 3"):
        label_by_committee(distilled, [ClassifierTeacher(deep, "deep", classes=LETTERS)])
