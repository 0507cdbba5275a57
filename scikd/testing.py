"""Conformance suites: one per contract, for scikd's own classes and for anyone's.

Each function checks one object against its contract and raises AssertionError with what was
expected. They need nothing but the object and some inputs, so a project that writes a teacher, an
aggregator, an objective or a student runs them in its own tests.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_is_fitted

from scikd.aggregation import Aggregator
from scikd.exceptions import InvalidInputError
from scikd.objectives import Objective
from scikd.out_of_fold import take
from scikd.teachers import Teacher, count_samples

__all__ = ["check_aggregator", "check_objective", "check_student", "check_teacher"]


def _same(found: np.ndarray, expected: np.ndarray, message: str) -> None:
    """Compare up to rounding: threads add up in another order each time."""
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=message)


def check_teacher(teacher: Teacher, X: Any, *, rowwise: bool = True) -> None:
    """Check that a teacher keeps its contract.

    Parameters
    ----------
    teacher : Teacher
        A teacher that can predict.
    X : array-like, frame or sequence of n_samples
        At least four samples.
    rowwise : bool, default=True
        Whether any subset of the samples may be asked for (stored labels know one set only).

    Raises
    ------
    AssertionError
        If a quantity is missing, of the wrong shape or not finite; if, by more than rounding, it
        is not repeatable or differs between a subset and the whole; or if the fingerprint is not a
        stable string.
    """
    n_samples = count_samples(X)
    assert isinstance(teacher.name, str), "the name must be a string"
    assert teacher.name, "the name must not be empty"
    assert teacher.quantities, "a teacher must predict at least one quantity"
    first, second = teacher.predict(X), teacher.predict(X)
    expected = {quantity.name for quantity in teacher.quantities}
    assert set(first) == expected, f"expected the quantities {expected}; got {set(first)}"
    for quantity in teacher.quantities:
        values = first[quantity.name]
        problem = quantity.problem(values, n_samples)
        assert problem is None, problem
        _same(second[quantity.name], values, "predict must be repeatable")
        if quantity.name == "proba":
            np.testing.assert_allclose(values.sum(axis=1), 1.0, atol=1e-6)
            if teacher.classes is not None:
                assert len(teacher.classes) == values.shape[1], "one column per class"
        if rowwise and quantity.per == "sample":
            rows = np.arange(n_samples)[::2]
            part = teacher.predict(take(X, rows))[quantity.name]
            _same(part, values[rows], "a sample's prediction must not depend on the others")
    assert isinstance(teacher.fingerprint, str), "the fingerprint must be a string"
    assert teacher.fingerprint == teacher.fingerprint, "the fingerprint must be stable"


def check_aggregator(aggregator: Aggregator, *, seed: int = 0, harmonised: bool = False) -> None:
    """Check the laws that every rule obeys.

    The order of the teachers does not matter; a teacher of weight zero does not matter; a scale of
    the weights does not matter; a teacher given twice is a teacher of twice the weight; teachers
    that agree are agreed with, without spread; batches are independent of each other; inputs stay
    as they are; NaN, wrong shapes and unusable weights are refused.

    Parameters
    ----------
    aggregator : Aggregator
        A calibrated rule for four teachers, if it needs calibration.
    seed : int, default=0
        Seed of the predictions that are combined.
    harmonised : bool, default=False
        Whether the rule changes the scale of its members, knows each of them by its number, or
        weighs them by itself; laws that do not hold then are left out.

    Raises
    ------
    AssertionError
        If a law is broken.
    """
    rng = np.random.default_rng(seed)
    members = (
        rng.normal(size=(4, 12)) if not aggregator.proba else rng.dirichlet(np.ones(3), (4, 12))
    )
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    X = np.arange(12.0)[:, None]
    untouched = members.copy()

    def combine(members: np.ndarray, weights: Any = None, X: Any = X) -> Any:
        return aggregator.combine(members, weights, X=X)

    whole = combine(members, weights)
    np.testing.assert_array_equal(members, untouched, "members must not be changed")
    assert whole.mean.shape == members.shape[1:], "one entry per entry of a teacher"
    assert (whole.std >= 0).all(), "a standard deviation is not negative"
    for measure, values in whole.disagreement.items():
        assert values.shape == (12,), f"{measure} must have one number per sample"
        assert np.isfinite(values).all(), f"{measure} must be finite"
    np.testing.assert_allclose(combine(members, 7 * weights).mean, whole.mean, rtol=1e-12)
    streamed = aggregator.combine(iter(members), weights, X=X) if not harmonised else whole
    np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-12)
    if aggregator.proba:
        np.testing.assert_allclose(whole.mean.sum(axis=1), 1.0, atol=1e-9)
    if not harmonised:
        _check_exchange(combine, members, weights, whole, aggregator.proba)
        half = combine(members[:, :6], weights, X=X[:6]).mean
        np.testing.assert_allclose(half, whole.mean[:6], rtol=1e-12)
    _check_refusals(combine, members)


def _check_exchange(
    combine: Any, members: np.ndarray, weights: np.ndarray, whole: Any, proba: bool
) -> None:
    order = np.array([2, 0, 3, 1])
    moved = combine(members[order], weights[order])
    np.testing.assert_allclose(moved.mean, whole.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moved.std, whole.std, rtol=1e-6, atol=1e-9)
    silent = combine(np.concatenate([members, members[:1]]), np.append(weights, 0.0))
    np.testing.assert_allclose(silent.mean, whole.mean, rtol=1e-9, atol=1e-12)
    twice = combine(np.concatenate([members, members[:1]]), [0.2, 0.3, 0.2, 0.1, 0.2])
    np.testing.assert_allclose(twice.mean, whole.mean, rtol=1e-9, atol=1e-12)
    agreed = members[0] if not proba else np.eye(3)[members[0].argmax(axis=1)]
    same = combine(np.stack([agreed] * 4), weights)
    np.testing.assert_allclose(same.mean, agreed, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(same.std, 0.0, atol=1e-7)


def _check_refusals(combine: Any, members: np.ndarray) -> None:
    broken = members.copy()
    broken[1, 2] = np.nan
    for bad, weights in [
        (broken, None),
        ([members[0], members[1][:-1], members[2], members[3]], None),
        (members, [1.0, -1.0, 1.0, 1.0]),
        (members, [0.0, 0.0, 0.0, 0.0]),
        (members, [1.0, 1.0]),
        (members, [np.nan, 1.0, 1.0, 1.0]),
        (members[:0], None),
    ]:
        try:
            combine(bad, weights)
        except InvalidInputError:
            continue
        message = f"expected InvalidInputError for weights {weights} and such members"
        raise AssertionError(message)


def check_objective(objective: Objective, prediction: np.ndarray, target: np.ndarray) -> None:
    """Check that an objective's value, gradient and Hessian belong together.

    Parameters
    ----------
    objective : Objective
        The loss.
    prediction : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Where to check; no kink of the loss nearby.
    target : ndarray of the same shape
        Targets that the objective accepts.

    Raises
    ------
    AssertionError
        If the gradient is not the slope of the loss (central differences), the Hessian is not the
        slope of the gradient, the loss is not finite, weights do not weigh, or bad input passes.
    """
    prediction = np.asarray(prediction, dtype=np.float64)
    per_sample = objective.per_sample(prediction, target)
    assert per_sample.shape == prediction.shape[:1], "one loss per sample"
    assert np.isfinite(per_sample).all(), "the loss must be finite"
    np.testing.assert_allclose(objective(prediction, target), per_sample.mean(), rtol=1e-9)
    heavy = np.ones(len(prediction))
    heavy[0] = 2.0
    expected = np.average(per_sample, weights=heavy)
    np.testing.assert_allclose(objective(prediction, target, heavy), expected, rtol=1e-9)

    def total(values: np.ndarray) -> float:
        return float(objective.per_sample(values, target).sum())

    slope = _central_differences(total, prediction)
    gradient = objective.gradient(prediction, target)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)
    broken = prediction.copy()
    broken.flat[0] = np.nan
    try:
        objective(broken, target)
    except InvalidInputError:
        return
    message = "expected InvalidInputError for a NaN prediction"
    raise AssertionError(message)


def _central_differences(function: Any, at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    slope = np.empty_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        slope[index] = (function(up) - function(down)) / (2 * step)
    return slope


def check_student(student: Any, X: np.ndarray, y: np.ndarray) -> None:
    """Check that a distilled estimator keeps its contract.

    Parameters
    ----------
    student : estimator
        An unfitted distilled estimator with an integer ``cv``, whose learners are themselves
        repeatable and take a weight of two like a row twice.
    X : ndarray of shape (n_samples, n_features)
        Training rows.
    y : ndarray of shape (n_samples,)
        Training targets.

    Raises
    ------
    AssertionError
        If fitting twice differs, the student is not served alone, a weight of two differs from a
        row twice, or rows of one kind land in several folds.
    """
    fitted = clone(student).fit(X, y)
    check_is_fitted(fitted)
    again = clone(student).fit(X, y)
    ask: Sequence[str] = ["predict_proba", "predict"] if is_classifier(student) else ["predict"]
    for method in ask:
        expected = getattr(fitted, method)(X)
        np.testing.assert_array_equal(getattr(again, method)(X), expected, "fit must be repeatable")
        alone = copy.copy(fitted)
        del alone.teacher_, alone.oof_, alone.labels_
        np.testing.assert_array_equal(getattr(alone, method)(X), expected, "student serves alone")
    oof = fitted.oof_
    assert oof.covered.all(), "an integer cv covers every row"
    for train, test in oof.folds:
        assert not np.intersect1d(train, test).size, "train and test must not overlap"
    rows = np.arange(len(X))
    weight = 1.0 + (rows % 3 == 0)
    twice = np.concatenate([rows, rows[rows % 3 == 0]])
    weighted = clone(student).fit(X, y, sample_weight=weight)
    repeated = clone(student).fit(X[twice], y[twice])
    method = ask[0]
    np.testing.assert_allclose(
        getattr(weighted, method)(X), getattr(repeated, method)(X), rtol=1e-4, atol=1e-6
    )
