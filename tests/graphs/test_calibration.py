"""Offsets of logits: against all thresholds, and what they are for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from scikd.exceptions import InvalidInputError
from scikd.graphs.calibration import class_offsets

seeds = st.integers(0, 2**32 - 1)


def accuracy(logits, y):
    right = logits.argmax(axis=1) == y
    return np.mean([right[y == label].mean() for label in np.unique(y)])


@given(seeds, st.booleans())
def test_of_two_classes_no_threshold_is_better(seed, ties):
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(20) % 4 == 0).astype(int)
    logits = random.integers(-2, 3, (20, 2)).astype(float) if ties else random.normal(size=(20, 2))
    found = accuracy(logits + class_offsets(logits, y), y)
    margins = np.unique(logits[:, 1] - logits[:, 0])
    thresholds = (margins[:-1] + margins[1:]) / 2
    others = [balanced_accuracy_score(y, logits[:, 1] - logits[:, 0] > t) for t in thresholds]
    assert found == pytest.approx(max([*others, accuracy(logits, y)]))


@given(seeds)
def test_of_three_classes_no_change_of_one_logit_is_better(seed):
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(30) % 3)
    logits = random.normal(size=(30, 3)) + 0.5 * np.eye(3)[y]
    offsets = class_offsets(logits, y)
    found = accuracy(logits + offsets, y)
    assert found >= accuracy(logits, y)
    for label, step in itertools.product(range(3), np.linspace(-3, 3, 31)):
        changed = logits + offsets + step * (np.arange(3) == label)
        if 0 < (changed.argmax(axis=1) == label).sum() < len(y):
            assert accuracy(changed, y) <= found + 1e-9


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_logits_that_rank_well_but_lie_on_one_side_are_put_right(n_classes):
    random = np.random.default_rng(0)
    y = np.arange(20 * n_classes) % n_classes
    logits = 4.0 * np.eye(n_classes)[y] + random.normal(size=(len(y), n_classes), scale=0.3)
    shifted = logits + 30.0 * np.arange(n_classes)
    assert accuracy(shifted, y) == pytest.approx(1 / n_classes)
    offsets = class_offsets(shifted, y)
    assert accuracy(shifted + offsets, y) == 1.0
    assert offsets.sum() == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_array_equal(offsets, class_offsets(shifted, y))


def test_nothing_is_added_where_it_gains_nothing():
    y = np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(class_offsets(5.0 * np.eye(3)[y], y), np.zeros(3))
    np.testing.assert_array_equal(class_offsets(np.zeros((6, 3)), y), np.zeros(3))
    np.testing.assert_array_equal(class_offsets(np.eye(3)[[0, 0]], np.array([0, 0])), np.zeros(3))


def test_numbers_without_room_for_a_threshold_end():
    above = np.nextafter(1.0, 2.0)
    logits = np.array([[0.0, 1.0], [0.0, above]])
    offsets = class_offsets(logits, np.array([0, 1]))
    assert accuracy(logits + offsets, np.array([0, 1])) >= 0.5


@pytest.mark.parametrize(
    ("logits", "y", "message"),
    [
        (np.zeros((0, 2)), [], r"at least one graph, .* got shapes \(0, 2\) and \(0,\)"),
        (np.zeros(3), [0, 1, 1], r"got shapes \(3,\) and \(3,\)"),
        (np.zeros((3, 2)), [0, 1], r"got shapes \(3, 2\) and \(2,\)"),
        ([[0.0, np.nan]], [0], "Expected finite logits; some are infinite or NaN"),
    ],
)
def test_bad_logits_are_refused(logits, y, message):
    with pytest.raises(InvalidInputError, match=message):
        class_offsets(logits, np.array(y, int))
