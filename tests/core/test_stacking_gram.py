"""Moments of predictions and target against sums row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import ShuffleSplit

from scikd.exceptions import InvalidInputError
from scikd.stacking import Gram
from scikd.stacking._problem import check_problem, splits
from scikd.stacking.gram import gram_splits, held_out
from tests.reference import stacking_combiners as naive

seeds = st.integers(0, 2**31 - 1)


def pool(seed, n=50, n_models=4, missing=0.2, offset=0.0):
    """Predictions with gaps, target and weights, some of them 0."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n) + offset
    P = y[:, None] + 0.1 * rng.normal(size=(n, n_models))
    P[rng.random(P.shape) < missing] = np.nan
    w = rng.integers(0, 4, n) * rng.random(n)
    w[0] = 1.0
    P[0, 0] = 0.5
    return P, y, w


def assert_same(one, other, tol=1e-10):
    """The same moments, but for rounding."""
    assert one.n == other.n
    np.testing.assert_allclose(one.weight, other.weight)
    np.testing.assert_allclose(one.mean, other.mean, rtol=tol, atol=tol)
    np.testing.assert_allclose(one.scatter, other.scatter, rtol=tol, atol=tol)
    np.testing.assert_allclose(one.squares, other.squares)


@settings(max_examples=30)
@given(seeds, st.integers(1, 5), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_moments(seed, n_models, dtype, transposed):
    P, y, w = pool(seed, n_models=n_models)
    P = P.astype(dtype)
    gram = Gram.of(np.asfortranarray(P) if transposed else P, y, w)
    weight, mean, scatter = naive.moments(P, y, w)
    np.testing.assert_allclose(gram.weight, weight)
    np.testing.assert_allclose(gram.mean, mean, atol=1e-12)
    np.testing.assert_allclose(gram.scatter, scatter, atol=1e-10)


@settings(max_examples=30)
@given(seeds, st.integers(1, 5))
def test_merged_parts_are_the_whole(seed, n_folds):
    P, y, w = pool(seed)
    fold = np.random.default_rng(seed).integers(-1, n_folds, len(y))
    fold[0] = 0
    parts = Gram.by_fold(P, y, w, fold)
    assert_same(Gram.sum(parts), Gram.of(P, y, w, rows=np.flatnonzero(fold >= 0)))
    for train, test in held_out(parts):
        assert train.n + test.n == Gram.sum(parts).n


@given(seeds)
def test_groups_count_as_many_as_equal_ones_would(seed):
    P, y, w = pool(seed)
    groups = np.random.default_rng(seed).integers(10, size=len(y))
    heard = np.where(np.isnan(P).all(axis=1), 0.0, w)
    loads = [heard[groups == k].sum() for k in range(10)]
    gram = Gram.of(P, y, w, groups=groups)
    assert gram.n_effective == pytest.approx(sum(loads) ** 2 / sum(load**2 for load in loads))
    assert Gram.of(P, y, w).n_effective == pytest.approx(heard.sum() ** 2 / (heard @ heard))
    rows = np.flatnonzero(groups < 5)
    some = Gram.of(P, y, w, rows=rows, groups=groups)
    assert some.squares == pytest.approx(sum(load**2 for load in loads[:5]))


def test_many_blocks_are_one():
    """More rows than a block holds, far from zero."""
    P, y, w = pool(0, n=20_000, n_models=30, offset=1e6)
    gram = Gram.of(P, y, w)
    filled, heard = naive.filled(P), (w > 0) & ~np.isnan(P).all(axis=1)
    Z = np.column_stack([filled - y[:, None], y])[heard]
    assert gram.n == heard.sum()
    scatter = np.cov(Z.T, aweights=w[heard], ddof=0) * w[heard].sum()
    np.testing.assert_allclose(gram.scatter, scatter, rtol=1e-6, atol=1e-6)


def test_factor_stands_for_the_rows():
    P, y, w = pool(1, missing=0.0)
    gram = Gram.of(P, y, w)
    Z = np.column_stack([P, y])
    scatter = np.cov(Z.T, aweights=w, ddof=0) * w.sum()
    root = gram.factor()
    np.testing.assert_allclose(root.T @ root, scatter, atol=1e-12)
    np.testing.assert_allclose(gram.prediction_scatter, scatter, atol=1e-12)
    np.testing.assert_allclose(gram.prediction_mean, np.average(P, axis=0, weights=w))
    assert gram.target_mean == pytest.approx(np.average(y, weights=w))
    assert gram.target_variance == pytest.approx(np.cov(y, aweights=w, ddof=0))
    root = gram.error_root()
    errors = P - y[:, None]
    np.testing.assert_allclose(root.T @ root, gram.errors, atol=1e-12)
    np.testing.assert_allclose(gram.errors, (errors.T * w) @ errors / w.sum(), atol=1e-12)


def test_small_differences_of_models_are_not_lost_in_the_target():
    """Models that differ by 1e-6 of a target that is far from zero."""
    rng = np.random.default_rng(0)
    y = 1e3 + rng.normal(size=1000)
    shared = 0.1 * rng.normal(size=1000)
    P = y[:, None] + shared[:, None] + 1e-6 * rng.normal(size=(1000, 3))
    root = Gram.of(P, y).factor()
    difference = P[:, 0] - P[:, 1]
    expected = np.square(difference - difference.mean()).sum()
    found = np.square(root[:, 0] - root[:, 1]).sum()
    assert found == pytest.approx(expected, rel=1e-4)


@settings(max_examples=30)
@given(seeds, st.integers(1, 4))
def test_risk_of_any_weights(seed, n_combinations):
    P, y, w = pool(seed)
    gram = Gram.of(P, y, w)
    rng = np.random.default_rng(seed)
    weights, intercepts = rng.normal(size=(4, n_combinations)), rng.normal(size=n_combinations)
    filled, heard = naive.filled(P), (w > 0) & ~np.isnan(P).all(axis=1)
    errors = filled[heard] @ weights + intercepts - y[heard, None]
    expected = np.average(errors**2, axis=0, weights=w[heard])
    np.testing.assert_allclose(gram.risk(weights, intercepts), expected)
    assert gram.risk(weights[:, 0], intercepts[0]) == pytest.approx(expected[0])


def test_part_of_the_models():
    P, y, w = pool(2, missing=0.0)
    mask = np.array([True, False, True, True])
    assert_same(Gram.of(P, y, w).take(mask), Gram.of(P[:, mask], y, w))
    assert_same(Gram.of(P, y, w).take([3, 0]), Gram.of(P[:, [3, 0]], y, w))


@pytest.mark.parametrize("cv", [None, 3, ShuffleSplit(2, test_size=0.5, random_state=0)])
def test_folds(cv):
    P, y, w = pool(3)
    problem = check_problem(P, y, w)
    whole, pairs = gram_splits(problem, cv, random_state=1)
    assert_same(whole, Gram.of(P, y, w))
    for (train, test), rows in zip(pairs, splits(problem, cv, random_state=1), strict=True):
        assert_same(train, Gram.of(P, y, w, rows=rows[0]))
        assert_same(test, Gram.of(P, y, w, rows=rows[1]))


def test_nothing_is_held_out_of_one_fold():
    P, y, w = pool(4)
    assert held_out([Gram.of(P, y, w)]) == ()


def test_shapes_are_checked():
    P, y, w = pool(5)
    for args in [(P, y[:3]), (P, y, w[:3]), (P[:, :, None], y)]:
        with pytest.raises(InvalidInputError, match="n_models"):
            Gram.of(*args)
