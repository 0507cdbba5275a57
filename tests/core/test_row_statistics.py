"""Statistics of the rows of a prediction matrix: against a naive twin, and their algebra."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scikd.exceptions import InvalidInputError
from scikd.kernels.rows import ROW_STATISTICS, row_statistics
from tests.reference import rows as reference

# Squares of smaller numbers vanish, and the twin then divides by a spread of zero.
numbers = st.floats(-1e6, 1e6).map(lambda value: 0.0 if abs(value) < 1e-100 else value)
tables = st.tuples(st.integers(1, 6), st.integers(1, 70)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=numbers | st.just(np.nan))
)


@given(tables)
def test_statistics_are_those_of_the_definitions(table):
    ours, theirs = row_statistics(table), reference.row_statistics(table)
    std = ROW_STATISTICS.index("std")
    torn = ~(theirs[:, std] <= 1e-9 * np.nanmax(np.abs(table), axis=1, initial=0.0))
    np.testing.assert_allclose(ours[:, :5], theirs[:, :5], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(ours[torn, 5], theirs[torn, 5], rtol=1e-6, atol=1e-6)


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_the_models_does_not_matter(table, chance):
    order = chance.sample(range(table.shape[1]), table.shape[1])
    np.testing.assert_array_equal(row_statistics(table[:, order]), row_statistics(table))


def test_scale_and_shift_move_the_statistics_as_they_should():
    table = np.random.default_rng(0).gamma(2.0, size=(50, 7))
    mean, std, median, width, mad, skew = row_statistics(table).T
    moved = row_statistics(5.0 - 3.0 * table)
    expected = [5 - 3 * mean, 3 * std, 5 - 3 * median, 3 * width, 3 * mad, -skew]
    np.testing.assert_allclose(moved, np.transpose(expected))


def test_models_that_agree_have_no_skewness():
    table = np.full((2, 9), 0.1) * [[1.0], [3.0]]
    table[0, 1:] = np.nan
    np.testing.assert_allclose(row_statistics(table)[:, 1:], [[0, 0.1, 0, 0, 0], [0, 0.3, 0, 0, 0]])


def test_blocks_types_and_strides_do_not_matter(monkeypatch):
    table = np.random.default_rng(0).normal(size=(101, 5)).astype(np.float32)
    expected = reference.row_statistics(table)
    monkeypatch.setattr("scikd.kernels.rows._BLOCK", 64)
    np.testing.assert_allclose(row_statistics(table), expected)
    np.testing.assert_allclose(row_statistics(np.asfortranarray(table)[::-1]), expected[::-1])


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InvalidInputError, match=r"shape \(n_samples, n_models\)"):
        row_statistics(np.zeros(shape))
