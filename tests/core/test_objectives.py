"""Objectives: values by hand, derivatives by differences and torch, boosting by its results."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logit, rel_entr, softmax

from scikd.exceptions import InvalidInputError
from scikd.objectives import (
    AbsoluteError,
    BinaryCrossEntropy,
    Huber,
    KullbackLeibler,
    LogOddsError,
    Objective,
    PairwiseMargin,
    SoftCrossEntropy,
    SquaredError,
    Total,
)

N = 7
GROUPS = np.array(["b", "a", "b", "c", "a", "b", "a"])  # "c" is alone


def real(rng, *shape):
    return rng.normal(size=shape) * 2.0, rng.normal(size=shape)


def classes(rng, *shape):
    return rng.normal(size=shape) * 2.0, softmax(rng.normal(size=shape) * 2.0, axis=-1)


def binary(rng, *shape):
    return rng.normal(size=shape) * 2.0, rng.uniform(size=shape)


MIXED = Total([(0.5, SquaredError()), (2.0, Huber(0.7)), (0.3, PairwiseMargin(GROUPS))])
CASES = [
    pytest.param(objective, make, shape, id=f"{name}{list(shape)}")
    for name, objective, make, shape in [
        ("squared", SquaredError(), real, (N,)),
        ("squared", SquaredError(), real, (N, 3)),
        ("absolute", AbsoluteError(), real, (N,)),
        ("absolute", AbsoluteError(), real, (N, 2)),
        ("huber", Huber(0.8), real, (N,)),
        ("huber", Huber(0.8), real, (N, 3)),
        ("bce", BinaryCrossEntropy(), binary, (N,)),
        ("bce", BinaryCrossEntropy(), binary, (N, 3)),
        ("soft", SoftCrossEntropy(), classes, (N, 4)),
        ("soft-T3", SoftCrossEntropy(3.0), classes, (N, 4)),
        ("soft-T3", SoftCrossEntropy(3.0), binary, (N,)),
        ("kl-T2", KullbackLeibler(2.0), classes, (N, 4)),
        ("kl-T.5", KullbackLeibler(0.5), binary, (N,)),
        ("logodds", LogOddsError(1e-3), classes, (N, 4)),
        ("logodds", LogOddsError(1e-3), binary, (N,)),
        ("pairwise-one", PairwiseMargin(), real, (N,)),
        ("pairwise", PairwiseMargin(GROUPS), real, (N,)),
        ("total", MIXED, real, (N,)),
        ("total", Total([(0.3, SoftCrossEntropy()), (0.7, LogOddsError())]), classes, (N, 3)),
    ]
]
SMOOTH = [case for case in CASES if not isinstance(case.values[0], AbsoluteError)]


def differences(function, at, step=1e-5):
    """Central differences of a scalar function with respect to every entry."""
    out = np.empty_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        out[index] = (function(up) - function(down)) / (2.0 * step)
    return out


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("objective", "make", "shape"), CASES)
def test_gradient_is_that_of_the_weighted_sum(objective, make, shape, weighted, rng):
    p, t = make(rng, *shape)
    w = rng.uniform(0.1, 2.0, N) if weighted else None
    scale = np.ones(N) if w is None else w
    expected = differences(lambda q: scale @ objective.per_sample(q, t), p)
    np.testing.assert_allclose(objective.gradient(p, t, w), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("objective", "make", "shape"), SMOOTH)
def test_hessian_is_the_derivative_of_the_gradient(objective, make, shape, weighted, rng):
    p, t = make(rng, *shape)
    w = rng.uniform(0.1, 2.0, N) if weighted else None
    got = objective.hessian(p, t, w)
    assert got.shape == p.shape
    for index in np.ndindex(p.shape):

        def slope(x, index=index):
            moved = p.copy()
            moved[index] = x[0]
            return objective.gradient(moved, t, w)[index]

        expected = differences(slope, np.array([p[index]]))[0]
        np.testing.assert_allclose(got[index], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("objective", "make", "shape"), CASES)
def test_torch_gives_the_same_value_and_gradient(objective, make, shape, weighted, rng):
    torch = pytest.importorskip("torch")
    p, t = make(rng, *shape)
    w = rng.uniform(0.1, 2.0, N) if weighted else None
    q = torch.tensor(p, requires_grad=True)
    teacher = torch.tensor(t, requires_grad=True)
    loss = objective.torch(q, teacher, None if w is None else torch.tensor(w))
    loss.backward()
    assert loss.shape == ()
    assert teacher.grad is None
    np.testing.assert_allclose(loss.item(), objective(p, t, w), rtol=1e-12)
    total = N if w is None else w.sum()
    expected = objective.gradient(p, t, w) / total
    np.testing.assert_allclose(q.grad.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("objective", "make", "shape"), CASES)
def test_value_is_the_weighted_mean_per_sample(objective, make, shape, rng):
    p, t = make(rng, *shape)
    w = rng.integers(0, 3, N).astype(float)
    w[0] = 2.0
    loss = objective.per_sample(p, t)
    assert loss.shape == (N,)
    assert loss.min() >= 0.0
    assert objective(p, t) == pytest.approx(loss.mean(), rel=1e-12)
    assert objective(p, t, w) == pytest.approx((w * loss).sum() / w.sum(), rel=1e-12)


def test_values_by_hand():
    p, t = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    np.testing.assert_allclose(SquaredError().per_sample(p, t), [1.0, 9.0, 0.0])
    np.testing.assert_allclose(AbsoluteError().per_sample(p, t), [1.0, 3.0, 0.0])
    np.testing.assert_allclose(Huber(2.0).per_sample(p, t), [0.5, 2.0 * (3.0 - 1.0), 0.0])
    two = np.array([[1.0, 2.0], [0.0, 4.0]])
    np.testing.assert_allclose(SquaredError().per_sample(two, np.zeros((2, 2))), [2.5, 8.0])
    z, q = np.array([[0.2, -1.0, 0.4]]), np.array([[0.7, 0.1, 0.2]])
    warm = q ** (1 / 3) / (q ** (1 / 3)).sum()
    soft = -9.0 * (warm * log_softmax(z / 3.0, axis=1)).sum()
    assert SoftCrossEntropy(3.0)(z, q) == pytest.approx(soft, rel=1e-12)
    divergence = 9.0 * rel_entr(warm, softmax(z / 3.0, axis=1)).sum()
    assert KullbackLeibler(3.0)(z, q) == pytest.approx(divergence, rel=1e-12)
    assert LogOddsError()([0.3], [0.8]) == pytest.approx((0.3 - logit(0.8)) ** 2)


def test_two_classes_as_one_column_or_as_two(rng):
    z, t = binary(rng, N)
    wide, both = np.column_stack([np.zeros(N), z]), np.column_stack([1.0 - t, t])
    for objective in (SoftCrossEntropy(2.5), KullbackLeibler(2.5)):
        np.testing.assert_allclose(objective.per_sample(z, t), objective.per_sample(wide, both))
        np.testing.assert_allclose(objective.gradient(z, t), objective.gradient(wide, both)[:, 1])
    np.testing.assert_allclose(
        SoftCrossEntropy().per_sample(z, t), BinaryCrossEntropy().per_sample(z, t)
    )


def test_temperature_is_that_of_the_teachers_logits(rng):
    z, teacher = rng.normal(size=(N, 3)), rng.normal(size=(N, 3))
    expected = -16.0 * (softmax(teacher / 4.0, 1) * log_softmax(z / 4.0, 1)).sum(1)
    got = SoftCrossEntropy(4.0).per_sample(z, softmax(teacher, 1))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-4, 4), min_size=2, max_size=6),
    st.integers(0, 5),
    st.floats(1.0, 6.0),
    st.floats(-50, 50),
    st.floats(0.05, 3.0),
)
def test_kl_is_zero_if_and_only_if_student_and_teacher_agree(logits, i, temperature, shift, bump):
    z = np.array([logits])
    teacher = softmax(z, axis=1)
    objective = KullbackLeibler(temperature)
    assert objective(z + shift, teacher) == pytest.approx(0.0, abs=1e-9)
    z[0, i % len(logits)] += bump
    assert objective(z, teacher) > 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.2, 5.0))
def test_kl_differs_from_cross_entropy_by_a_constant(seed, n_classes, temperature):
    rng = np.random.default_rng(seed)
    z, t = classes(rng, N, n_classes)
    soft, divergence = SoftCrossEntropy(temperature), KullbackLeibler(temperature)
    np.testing.assert_array_equal(soft.gradient(z, t), divergence.gradient(z, t))
    gap = soft.per_sample(z, t) - divergence.per_sample(z, t)
    at_zero = soft.per_sample(0 * z, t) - divergence.per_sample(0 * z, t)
    np.testing.assert_allclose(gap, at_zero, rtol=1e-9, atol=1e-12)
    assert divergence.per_sample(z, t).min() > -1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1e3, 1e3))
def test_logits_count_only_up_to_a_constant_in_each_row(seed, shift):
    rng = np.random.default_rng(seed)
    z, t = classes(rng, N, 3)
    moved = z + shift * rng.normal(size=(N, 1))
    for objective in (SoftCrossEntropy(2.0), KullbackLeibler(2.0), LogOddsError()):
        expected = objective.per_sample(z, t)
        np.testing.assert_allclose(objective.per_sample(moved, t), expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(objective.gradient(z, t).sum(1), 0.0, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 4))
def test_pairwise_margin_equals_the_loop_over_pairs(seed, n, n_groups):
    rng = np.random.default_rng(seed)
    p, t = real(rng, n)
    groups = rng.integers(0, n_groups, n)
    expected = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i and groups[j] == groups[i]]
        terms = [((p[i] - p[j]) - (t[i] - t[j])) ** 2 for j in others]
        expected[i] = np.mean(terms) if terms else 0.0
    objective = PairwiseMargin(groups)
    np.testing.assert_allclose(objective.per_sample(p, t), expected, atol=1e-12)
    shifted = p + rng.normal(size=n_groups)[groups]
    np.testing.assert_allclose(objective.per_sample(shifted, t), expected, atol=1e-10)


def test_pairwise_margin_of_one_group_has_the_closed_form(rng):
    p, t = real(rng, N)
    d = p - t
    pairs = N * (N - 1) / 2
    closed = N * (d**2).sum() - d.sum() ** 2
    assert PairwiseMargin()(p, t) * pairs == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize(
    "objective",
    [SoftCrossEntropy(1.0), KullbackLeibler(2.0), BinaryCrossEntropy(), LogOddsError()],
    ids=repr,
)
@pytest.mark.parametrize("size", [40.0, 1e4, 1e8])
def test_large_logits_and_certain_teachers_do_not_overflow(objective, size):
    torch = pytest.importorskip("torch")
    z = np.array([[size, -size], [-size, size]])
    t = np.array([[1.0, 0.0], [1.0, 0.0]])
    with np.errstate(all="raise", under="ignore", divide="ignore"):
        loss = objective.per_sample(z, t)
        assert np.isfinite(objective.gradient(z, t)).all()
        assert np.isfinite(objective.hessian(z, t)).all()
    assert np.isfinite(loss).all()
    assert loss[1] > loss[0]
    if not isinstance(objective, LogOddsError):
        assert loss[0] < 1e-12
        assert loss[1] >= size  # linear in the logit, not saturated
    single = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    objective.torch(single, torch.tensor(t)).backward()
    assert torch.isfinite(single.grad).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 5), st.floats(0, 5), st.integers(0, 10_000))
def test_total_is_linear_in_its_parts(a, b, seed):
    rng = np.random.default_rng(seed)
    p, t = binary(rng, N)
    w = rng.uniform(0.1, 1.0, N)
    first, second = BinaryCrossEntropy(), LogOddsError()
    total = Total([(a, first), (b, second)])
    assert total(p, t, w) == pytest.approx(a * first(p, t, w) + b * second(p, t, w), abs=1e-12)
    for method in ("gradient", "hessian"):
        expected = a * getattr(first, method)(p, t, w) + b * getattr(second, method)(p, t, w)
        np.testing.assert_allclose(getattr(total, method)(p, t, w), expected, atol=1e-12)
    expected = {"BinaryCrossEntropy": first(p, t, w), "LogOddsError": second(p, t, w)}
    assert total.parts(p, t, w) == pytest.approx(expected, rel=1e-12)


def test_total_names_its_parts_and_takes_a_target_for_each(rng):
    torch = pytest.importorskip("torch")
    z, teacher = classes(rng, N, 3)
    labels = np.eye(3)[rng.integers(0, 3, N)]
    hard, soft = SoftCrossEntropy(), KullbackLeibler(4.0)
    total = Total({"labels": (0.3, hard), "teacher": (0.7, soft)})
    target = {"teacher": teacher, "labels": labels}
    value = 0.3 * hard(z, labels) + 0.7 * soft(z, teacher)
    assert total(z, target) == pytest.approx(value, rel=1e-12)
    assert total.parts(z, target) == {"labels": hard(z, labels), "teacher": soft(z, teacher)}
    assert total.torch(torch.tensor(z), target).item() == pytest.approx(value, rel=1e-12)
    grad = 0.3 * hard.gradient(z, labels) + 0.7 * soft.gradient(z, teacher)
    np.testing.assert_allclose(total.gradient(z, target), grad)
    np.testing.assert_allclose(total.as_boosting(target)(np.zeros(N), z)[0], grad)
    twice = Total([(1.0, Huber(1.0)), (1.0, Huber(2.0))])
    assert list(twice.parts([0.0], [0.0])) == ["Huber", "Huber-2"]
    with pytest.raises(InvalidInputError, match=r"target for each of \['labels', 'teacher'\]"):
        total(z, {"labels": labels})
    with pytest.raises(InvalidInputError, match="SoftCrossEntropy takes one target"):
        hard(z, target)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Huber(0.0), "delta must be a positive number, got 0.0"),
        (lambda: SoftCrossEntropy(-1.0), "temperature must be a positive number"),
        (lambda: KullbackLeibler(float("nan")), "temperature must be a positive number, got nan"),
        (lambda: LogOddsError(0.5), "clip must lie between 0 and 0.5, got 0.5"),
        (lambda: Total([]), "at least one"),
        (lambda: Total([(-1.0, SquaredError())]), "'SquaredError' must be finite and not negative"),
        (lambda: Total([(1.0, "mse")]), "no Objective but 'mse'"),
    ],
)
def test_parameters_are_checked(make, match):
    with pytest.raises(InvalidInputError, match=match):
        make()


@pytest.mark.parametrize(
    ("objective", "p", "t", "w", "match"),
    [
        (
            SquaredError(),
            [1.0, 2.0],
            [1.0],
            None,
            r"target has shape \(1,\), prediction has \(2,\)",
        ),
        (SquaredError(), [1.0, 2.0], [[1.0], [2.0]], None, r"shape \(2, 1\), prediction"),
        (SquaredError(), [np.nan, 2.0], [1.0, np.inf], None, "prediction is NaN.*; target is NaN"),
        (SquaredError(), 1.0, 1.0, None, "expected one row per sample"),
        (SquaredError(), [], [], None, "expected one row per sample"),
        (SquaredError(), ["a"], [1.0], None, "must be numbers"),
        (SquaredError(), [1.0], [1.0], [[1.0]], r"sample_weight has shape \(1, 1\), expected"),
        (SquaredError(), [1.0, 2.0], [1.0, 2.0], [-1.0, 1.0], "negative in 1 of 2"),
        (SquaredError(), [1.0, 2.0], [1.0, 2.0], [0.0, 0.0], "zero everywhere"),
        (SquaredError(), [1.0], [1.0], [np.nan], "sample_weight is NaN"),
        (BinaryCrossEntropy(), [1.0], [1.5], None, r"outside \[0, 1\] \(were logits passed"),
        (SoftCrossEntropy(), [[1.0, 2.0]], [[0.5, 0.6]], None, "rows must sum to one, 1 of 1"),
        (SoftCrossEntropy(), [[1.0]], [[1.0]], None, r"ravel it to \(n,\)"),
        (LogOddsError(), np.ones((2, 2, 2)), np.ones((2, 2, 2)), None, r"\(n,\) or \(n, C\)"),
        (PairwiseMargin(), np.ones((2, 2)), np.ones((2, 2)), None, r"expected scores \(n,\)"),
        (PairwiseMargin([1]), [1.0, 2.0], [1.0, 2.0], None, r"groups has shape \(1,\), expected"),
        (Total([(1.0, BinaryCrossEntropy())]), [1.0], [2.0], None, "BinaryCrossEntropy: target"),
    ],
)
def test_inputs_are_checked(objective, p, t, w, match):
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidInputError, match=match):
        objective(p, t, w)
    with pytest.raises(InvalidInputError, match=match):
        objective.gradient(p, t, w)
    if np.asarray(p).dtype.kind == "f":
        weight = None if w is None else torch.tensor(w)
        with pytest.raises(InvalidInputError, match=match):
            objective.torch(torch.tensor(p), torch.tensor(t), weight)


@pytest.mark.parametrize(("objective", "make", "shape"), CASES)
def test_on_an_accelerator_no_value_is_read_back(objective, make, shape, rng):
    torch = pytest.importorskip("torch")
    p, t = (torch.tensor(a, device="meta") for a in make(rng, *shape))  # has no values to read
    loss = objective.torch(p, t, torch.ones(N, device="meta"))
    assert (loss.shape, loss.device.type) == ((), "meta")
    with pytest.raises(InvalidInputError, match="target has shape"):
        objective.torch(p, t[:3])


def test_torch_wants_tensors():
    pytest.importorskip("torch")
    with pytest.raises(InvalidInputError, match=r"must be a torch\.Tensor, got list"):
        SquaredError().torch([1.0], [1.0])


@pytest.mark.parametrize("objective", [AbsoluteError(), Total([(1.0, AbsoluteError())])], ids=repr)
def test_without_a_hessian_the_error_says_what_to_do(objective):
    with pytest.raises(InvalidInputError, match=r"AbsoluteError.* has no Hessian: .*Use Huber"):
        objective.hessian([1.0], [0.0])
    with pytest.raises(InvalidInputError, match="has no Hessian"):
        objective.as_boosting()


def test_weights_of_zero_leave_a_sample_out(rng):
    p, t = real(rng, N)
    w = np.ones(N)
    w[2] = 0.0
    p[2] = 1e6
    for objective in (SquaredError(), Huber(1.0)):
        kept = np.delete(p, 2), np.delete(t, 2)
        assert objective(p, t, w) == pytest.approx(objective(*kept), rel=1e-12)
        assert objective.gradient(p, t, w)[2] == 0.0


# Boosting.


@pytest.fixture(scope="module")
def soft_data():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1200, 4))
    t = expit(1.5 * X[:, 0] - X[:, 1] * X[:, 2])
    return X[:800], t[:800], X[800:], t[800:]


def check_learnt(raw, native, t):
    """Ours must come as near to the best possible loss as the library's own, far from the start."""
    loss = BinaryCrossEntropy()
    floor, start = loss(logit(t), t), loss(np.zeros(len(t)), t)
    ours, theirs = loss(raw, t) - floor, loss(logit(native), t) - floor
    assert ours == pytest.approx(theirs, rel=0.02)
    assert ours < 0.15 * (start - floor)


def test_lightgbm_reaches_its_own_cross_entropy(soft_data):
    lightgbm = pytest.importorskip("lightgbm")
    X, t, X_new, t_new = soft_data
    common = {"n_estimators": 60, "verbosity": -1, "n_jobs": 1, "boost_from_average": False}
    ours = lightgbm.LGBMRegressor(objective=BinaryCrossEntropy().as_boosting(), **common)
    native = lightgbm.LGBMRegressor(objective="cross_entropy", **common)
    raw = ours.fit(X, t).predict(X_new)
    proba = native.fit(X, t).predict(X_new)
    assert np.abs(expit(raw) - proba).mean() < 1e-3  # the same trees, but for a tie in a split
    check_learnt(raw, proba, t_new)


def test_xgboost_reaches_its_own_cross_entropy(soft_data):
    xgboost = pytest.importorskip("xgboost")
    X, t, X_new, t_new = soft_data
    common = {"n_estimators": 60, "max_depth": 4, "learning_rate": 0.15, "n_jobs": 1}
    ours = xgboost.XGBRegressor(
        objective=BinaryCrossEntropy().as_boosting(), base_score=0.0, **common
    )
    native = xgboost.XGBRegressor(objective="binary:logistic", base_score=0.5, **common)
    raw = ours.fit(X, t).predict(X_new)
    proba = native.fit(X, t).predict(X_new)
    assert np.abs(expit(raw) - proba).mean() < 1e-3
    check_learnt(raw, proba, t_new)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosting_on_soft_labels_of_several_classes(library):
    module = pytest.importorskip(library)
    rng = np.random.default_rng(5)
    X = rng.normal(size=(400, 3))
    t = softmax(2.0 * X, axis=1)
    loss = KullbackLeibler(2.0)
    if library == "lightgbm":
        model = module.LGBMClassifier(
            objective=loss.as_boosting(t), n_estimators=30, verbosity=-1, n_jobs=1
        )
        model.fit(X, t.argmax(1))
        raw = model.predict(X, raw_score=True)
    else:
        model = module.XGBRegressor(
            objective=loss.as_boosting(), base_score=0.0, n_estimators=30, n_jobs=1
        )
        raw = model.fit(X, t).predict(X)
    assert raw.shape == t.shape
    assert loss(raw, t) < 0.05 * loss(np.zeros_like(t), t)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosting_weights_count(library):
    module = pytest.importorskip(library)
    side = np.arange(400) % 2
    t = np.where(np.arange(400) < 200, 0.9, 0.1)
    w = np.where((t > 0.5) == (side == 1), 3.0, 1.0)
    common = {"n_estimators": 80, "n_jobs": 1, "learning_rate": 0.3}
    objective = BinaryCrossEntropy().as_boosting()
    if library == "lightgbm":
        model = module.LGBMRegressor(objective=objective, verbosity=-1, **common)
    else:
        model = module.XGBRegressor(objective=objective, base_score=0.0, **common)
    X = side[:, None].astype(float)
    proba = expit(model.fit(X, t, sample_weight=w).predict(X))
    # Three quarters of 0.9 and one of 0.1, or the other way round.
    np.testing.assert_allclose(proba, np.where(side == 1, 0.7, 0.3), atol=0.01)


def test_huber_boosts_from_far_away(soft_data):
    lightgbm = pytest.importorskip("lightgbm")
    X, _, _, _ = soft_data
    y = 500.0 + 100.0 * X[:, 0]
    objective = Huber(1.0)
    assert objective.hessian(np.zeros(len(y)), y).max() == 0.0  # all beyond delta
    model = lightgbm.LGBMRegressor(
        objective=objective.as_boosting(), n_estimators=200, verbosity=-1, n_jobs=1
    )
    residual = np.abs(model.fit(X, y).predict(X) - y)
    assert np.median(residual) < 5.0


@pytest.mark.parametrize(("objective", "make", "shape"), SMOOTH)
def test_curvature_bounds_the_hessian_and_is_positive(objective, make, shape, rng):
    p, t = make(rng, *shape)
    adapter = objective.as_boosting()
    grad, curvature = adapter(t, p)
    np.testing.assert_array_equal(grad, objective.gradient(p, t))
    assert (curvature >= objective.hessian(p, t) - 1e-12).all()
    if p.ndim == 2:  # classes are stepped at once, so the diagonal must bound the whole matrix
        columns = []
        for c in range(p.shape[1]):
            step = np.zeros_like(p)
            step[:, c] = 1e-5
            up, down = objective.gradient(p + step, t), objective.gradient(p - step, t)
            columns.append((up - down) / 2e-5)
        gap = curvature[:, :, None] * np.eye(p.shape[1]) - np.stack(columns, axis=2)
        assert np.linalg.eigvalsh(gap).min() > -1e-6
    alone = isinstance(objective, PairwiseMargin) and objective.groups is not None
    assert (curvature[GROUPS != "c"] > 0.0).all()
    assert alone == (curvature[GROUPS == "c"].max() == 0.0)  # one alone has nothing to learn


def test_adapter_takes_flat_labels_of_several_classes(rng):
    z, t = classes(rng, N, 3)
    flat = SoftCrossEntropy().as_boosting()(t.ravel(), z)
    np.testing.assert_array_equal(flat[0], SoftCrossEntropy().gradient(z, t))
    with pytest.raises(InvalidInputError, match="target has shape"):
        SoftCrossEntropy().as_boosting()(t[:3], z)


def test_adapter_and_objective_can_be_copied_and_pickled(rng):
    p, t = real(rng, N)
    adapter = MIXED.as_boosting(t)
    expected = adapter(np.zeros(N), p)
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        np.testing.assert_array_equal(twin(np.zeros(N), p), expected)


def test_every_objective_is_tested_here():
    def below(cls):
        return {cls} | {c for child in cls.__subclasses__() for c in below(child)}

    concrete = {c for c in below(Objective) if not c.__name__.startswith("_")} - {Objective}
    concrete = {c for c in concrete if c.__module__ == "scikd.objectives"}
    assert concrete == {type(case.values[0]) for case in CASES}


def test_importing_objectives_does_not_import_torch():
    code = "import sys, scikd.objectives; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
