"""The kernels against their naive twins in tests/reference, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scikd.exceptions import InvalidInputError
from scikd.kernels import gram, moments, ranks, robust
from tests.reference import gram as slow_gram
from tests.reference import moments as slow_moments
from tests.reference import ranks as slow_ranks

# The first call of a kernel compiles it, which no deadline for one example allows for.
PROFILE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.floats(-100, 100, width=32)
MAYBE = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.just(np.nan))


@st.composite
def stacks(draw, elements=NUMBERS):
    """Draw members of shape (T, n, *k) in any dtype and layout, and weights, some of them 0."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    members = draw(hnp.arrays(dtype, shape, elements=elements))
    layout = draw(st.sampled_from("CFRS"))
    if layout == "F":
        members = np.asfortranarray(members)
    elif layout == "R":
        members = members[:, ::-1]
    elif layout == "S":
        members = np.repeat(members, 2, axis=-1)[..., ::2]
    weights = draw(hnp.arrays(np.float64, shape[0], elements=st.integers(0, 4)))
    if weights.sum() == 0 or draw(st.booleans()):
        return members, None
    return members, weights


@st.composite
def tables(draw):
    """Draw predictions of shape (n, M) with gaps, and sample weights, some of them 0."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    P = draw(hnp.arrays(np.float64, shape, elements=MAYBE))
    if draw(st.booleans()):
        P = np.asfortranarray(P).astype(np.float32)
    w = draw(hnp.arrays(np.float64, shape[0], elements=st.sampled_from([0.0, 0.5, 1.0, 3.7])))
    return P, (w if w.sum() > 0 and draw(st.booleans()) else None)


def assert_same(ours, theirs, rtol=1e-9, atol=1e-9):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


# -- moments -------------------------------------------------------------------------------------


class TestMoments:
    @PROFILE
    @given(stacks())
    def test_stacked_is_the_definition(self, drawn):
        members, weights = drawn
        mean, std, count = moments.stacked_moments(members, weights)
        expected = slow_moments.moments(members, weights)
        assert_same(mean, expected[0])
        assert_same(std, expected[1], atol=1e-6)
        assert (expected[2] == count).all()
        assert isinstance(count, int)

    @PROFILE
    @given(stacks(MAYBE))
    def test_stacked_skips_missing(self, drawn):
        members, weights = drawn
        mean, std, count = moments.stacked_moments(members, weights, skip_missing=True)
        expected = slow_moments.moments(members, weights, skip_missing=True)
        assert_same(mean, expected[0])
        assert_same(std, expected[1], atol=1e-6)
        np.testing.assert_array_equal(count, expected[2])

    @PROFILE
    @given(stacks(MAYBE), st.booleans())
    def test_streaming_equals_stacked(self, drawn, skip_missing):
        members, weights = drawn
        stream = moments.Moments(members.shape[1:], skip_missing=skip_missing)
        for member, weight in zip(
            members, np.ones(len(members)) if weights is None else weights, strict=True
        ):
            stream.add(member, weight)
        expected = moments.stacked_moments(members, weights, skip_missing=skip_missing)
        for ours, theirs in zip(stream.finish(), expected, strict=True):
            assert_same(ours, theirs, atol=1e-6)

    def test_several_chunks_of_a_strided_float32_array(self):
        rng = np.random.default_rng(0)
        members = rng.normal(size=(5, 3, 50_000)).astype(np.float32).transpose(0, 2, 1)
        stream = moments.Moments(members.shape[1:])
        for member in members:
            stream.add(member)
        for mean, std, _ in (stream.finish(), moments.stacked_moments(members)):
            assert_same(mean, members.mean(axis=0, dtype=float))
            assert_same(std, members.astype(float).std(axis=0))

    def test_memory_map_and_foreign_byte_order(self, tmp_path):
        values = np.random.default_rng(0).normal(size=(4, 1000))
        np.save(tmp_path / "members.npy", values)
        mapped = np.load(tmp_path / "members.npy", mmap_mode="r")
        for members in (mapped, values.astype(">f8")):
            mean, std, _ = moments.stacked_moments(members)
            assert_same(mean, values.mean(axis=0))
            assert_same(std, values.std(axis=0))
            assert_same(robust.stacked_median(members), np.median(values, axis=0))

    def test_no_spread_is_exactly_zero(self):
        members = np.full((10, 3), 0.1)
        mean, std, _ = moments.stacked_moments(members, np.linspace(0.1, 1, 10))
        np.testing.assert_array_equal(mean, 0.1)
        np.testing.assert_array_equal(std, 0.0)

    def test_large_offset_keeps_the_spread(self):
        members = 1e9 + np.array([[1.0], [2.0], [3.0]])
        assert_same(moments.stacked_moments(members)[1], np.sqrt(2 / 3), rtol=1e-7)

    def test_nan_of_a_teacher_of_weight_zero_does_no_harm(self):
        members = np.array([[np.nan, np.nan], [1.0, 2.0]])
        mean, std, count = moments.stacked_moments(members, [0, 3])
        assert_same(mean, [1, 2])
        assert_same(std, 0)
        assert count == 1
        assert np.isnan(moments.stacked_moments(members)[0]).all()

    def test_no_samples(self):
        mean, std, count = moments.stacked_moments(np.empty((3, 0, 2)))
        assert mean.shape == std.shape == (0, 2)
        assert count == 3
        assert robust.stacked_median(np.empty((3, 0))).shape == (0,)

    def test_finish_hands_over_its_buffers(self):
        stream = moments.Moments(3)
        with pytest.raises(InvalidInputError, match="at least one teacher of positive weight"):
            stream.finish()
        stream.add([1, 2, 3], 0.0)
        with pytest.raises(InvalidInputError, match="got 0 teachers"):
            stream.finish()
        stream.add([1, 2, 3], 2.0)
        stream.finish()
        with pytest.raises(InvalidInputError, match="make a new object"):
            stream.add([1, 2, 3])
        with pytest.raises(InvalidInputError, match="once only"):
            stream.finish()

    @pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
    def test_weight_must_be_finite_and_not_negative(self, weight):
        with pytest.raises(InvalidInputError, match="weight must be finite and >= 0"):
            moments.Moments(1).add([1.0], weight)
        with pytest.raises(InvalidInputError, match="weight must be finite and >= 0"):
            moments.ClassStatistics(1, 2).add([[0.5, 0.5]], weight)

    def test_shape_must_fit(self):
        with pytest.raises(InvalidInputError, match=r"shape \(2, 3\), got \(3, 2\)"):
            moments.Moments((2, 3)).add(np.ones((3, 2)))


STACKED = [
    moments.stacked_moments,
    robust.stacked_median,
    lambda m, w=None: robust.stacked_trimmed_mean(m, w, 0.2),
]


@pytest.mark.parametrize("function", STACKED)
class TestRefused:
    def test_no_teacher(self, function):
        with pytest.raises(InvalidInputError, match=r"at least one teacher, got shape \(0, 5\)"):
            function(np.empty((0, 5)))

    def test_no_samples_axis(self, function):
        with pytest.raises(InvalidInputError, match=r"\(n_teachers, n_samples, \.\.\.\)"):
            function(np.ones(3))

    def test_not_numbers(self, function):
        with pytest.raises(InvalidInputError, match="must hold real numbers, got dtype complex"):
            function(np.ones((2, 3), dtype=complex))

    @pytest.mark.parametrize(
        ("weights", "match"),
        [
            ([1.0, -2.0], "got -2.0 for teacher 1"),
            ([1.0, np.nan], "got nan for teacher 1"),
            ([0.0, 0.0], "finite sum > 0, got 0.0"),
            ([1e308, 1e308], "finite sum > 0, got inf"),
            ([1.0], r"shape \(2,\), one per teacher, got shape \(1,\)"),
        ],
    )
    def test_weights(self, function, weights, match):
        with np.errstate(over="ignore"), pytest.raises(InvalidInputError, match=match):
            function(np.ones((2, 3)), weights)


class TestClassStatistics:
    @PROFILE
    @given(st.data())
    def test_is_the_definition(self, data):
        shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5))
        raw = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1, width=16)))
        probas = (raw + 1e-3 * (raw.sum(axis=-1, keepdims=True) == 0)) / np.maximum(
            raw.sum(axis=-1, keepdims=True), 1e-3
        )
        probas[data.draw(hnp.arrays(np.bool_, shape[:2]))] = np.nan
        if data.draw(st.booleans()):
            probas = np.asfortranarray(probas).astype(np.float32)
        weights = data.draw(st.lists(st.integers(0, 3), min_size=shape[0], max_size=shape[0]))
        weights[0] += sum(weights) == 0
        statistics = moments.ClassStatistics(*shape[1:], floor=1e-9)
        for proba, weight in zip(probas, weights, strict=True):
            statistics.add(proba, weight)
        found = statistics.finish()
        ours = (
            found.mean,
            found.log_pool_logits,
            found.votes,
            found.expected_entropy,
            found.n_members,
        )
        expected = slow_moments.class_statistics(probas, weights, floor=1e-9)
        for a, b in zip(ours, expected, strict=True):
            assert_same(a, b)

    def test_known_values(self):
        statistics = moments.ClassStatistics(1, 2)
        statistics.add([[0.5, 0.5]], 1.0)
        statistics.add([[0.0, 1.0]], 3.0)
        found = statistics.finish()
        assert_same(found.mean, [[0.125, 0.875]])
        assert_same(found.votes, [[0.25, 0.75]])  # the tie goes to class 0
        assert_same(found.expected_entropy, [np.log(2) / 4])
        assert_same(
            found.log_pool_logits, [[(np.log(0.5) + 3 * np.log(1e-12)) / 4, np.log(0.5) / 4]]
        )

    def test_refused(self):
        with pytest.raises(InvalidInputError, match="n_classes >= 1"):
            moments.ClassStatistics(3, 0)
        statistics = moments.ClassStatistics(3, 2)
        with pytest.raises(InvalidInputError, match=r"shape \(3, 2\), got \(2, 3\)"):
            statistics.add(np.ones((2, 3)))
        with pytest.raises(InvalidInputError, match="none was added"):
            statistics.finish()
        statistics.add(np.full((3, 2), 0.5))
        statistics.finish()
        with pytest.raises(InvalidInputError, match="make a new object"):
            statistics.add(np.full((3, 2), 0.5))


class TestRobust:
    @PROFILE
    @given(stacks(MAYBE))
    def test_median_is_that_of_copies(self, drawn):
        members, weights = drawn
        assert_same(robust.stacked_median(members, weights), slow_moments.median(members, weights))

    @PROFILE
    @given(stacks(MAYBE), st.sampled_from([0.0, 0.1, 0.25, 0.333, 0.499]))
    def test_trimmed_mean_is_that_of_copies(self, drawn, fraction):
        members, weights = drawn
        ours = robust.stacked_trimmed_mean(members, weights, fraction)
        assert_same(ours, slow_moments.trimmed_mean(members, weights, fraction))

    @pytest.mark.parametrize("n_teachers", [1, 2, 5, 10, 64, 65, 130])
    def test_equal_weights_agree_with_numpy_and_scipy(self, n_teachers):
        members = np.random.default_rng(n_teachers).normal(size=(n_teachers, 300)).round(1)
        weights = np.full(n_teachers, 1 / n_teachers)  # such weights do not sum to 1 exactly
        median = robust.stacked_median(members, weights)
        np.testing.assert_array_equal(median, np.median(members, axis=0))
        cut = n_teachers // 5
        ours = robust.stacked_trimmed_mean(members, weights, cut / n_teachers)
        assert_same(ours, scipy.stats.trim_mean(members, (cut + 1e-6) / n_teachers, axis=0))

    def test_trimming_removes_infinite_outliers(self):
        members = np.array([[-np.inf], [1.0], [2.0], [3.0], [np.inf]])
        assert_same(robust.stacked_trimmed_mean(members, None, 0.2), [2.0])
        assert_same(robust.stacked_median(members), [2.0])

    @pytest.mark.parametrize("fraction", [-0.1, 0.5, 0.7, np.nan])
    def test_fraction(self, fraction):
        with pytest.raises(InvalidInputError, match="at least 0 and below 0.5"):
            robust.stacked_trimmed_mean(np.ones((2, 3)), None, fraction)


# -- gram ----------------------------------------------------------------------------------------


class TestGram:
    @PROFILE
    @given(tables())
    def test_gram_is_the_definition(self, drawn):
        P, w = drawn
        for ours, theirs in zip(
            gram.weighted_gram(P, w), slow_gram.weighted_gram(P, w), strict=True
        ):
            assert_same(ours, theirs)
            np.testing.assert_array_equal(ours == 0, theirs == 0)

    @PROFILE
    @given(tables())
    def test_correlation_is_the_definition(self, drawn):
        P, w = drawn
        with np.errstate(invalid="ignore"):
            assert_same(gram.correlation(P, w), slow_gram.correlation(P, w), atol=1e-8)

    @PROFILE
    @given(tables(), st.integers(0, 100))
    def test_residual_correlation_is_the_definition(self, drawn, seed):
        P, w = drawn
        y = np.random.default_rng(seed).normal(size=len(P)).round(2)
        expected = slow_gram.residual_correlation(P, y, w)
        assert_same(gram.residual_correlation(P, y, w), expected, atol=1e-8)

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
    @pytest.mark.parametrize("offset", [0.0, 1e8])
    def test_correlation_agrees_with_pandas(self, share, offset):
        rng = np.random.default_rng(0)
        P = rng.normal(size=(20_000, 1)) + rng.normal(size=(20_000, 24))
        P[rng.random(P.shape) < share] = np.nan
        P[:, 5] = np.nan  # one teacher covers four samples only
        P[:4, 5] = [3.0, 1.0, 4.0, 1.0]
        P[:, 6] = 7.0  # and one is constant
        P = P + offset
        expected = pd.DataFrame(P - offset).corr().to_numpy()
        if offset == 0:
            expected = pd.DataFrame(P).corr().to_numpy()
        ours = gram.correlation(P)
        assert_same(ours, expected, rtol=0, atol=1e-12 if offset == 0 else 1e-7)
        varies = np.arange(24) != 6
        np.testing.assert_array_equal(ours.diagonal()[varies], 1.0)
        np.testing.assert_array_equal(ours, ours.T)

    @pytest.mark.parametrize("share", [0.05, 0.6])
    def test_several_blocks(self, share, monkeypatch):
        monkeypatch.setattr(gram, "_BLOCK", 64 * 8)
        rng = np.random.default_rng(0)
        P = rng.normal(size=(1000, 8)) * np.logspace(-150, 150, 8)
        P[rng.random(P.shape) < share] = np.nan
        P[:300, 2:] = rng.normal(size=(300, 6))  # blocks of each kind
        w = rng.random(1000)
        assert_same(gram.correlation(P, w), slow_gram.correlation(P / np.nanmax(P, axis=0), w))
        for ours, theirs in zip(
            gram.weighted_gram(P[:, 2:6], w), slow_gram.weighted_gram(P[:, 2:6], w), strict=True
        ):
            assert_same(ours, theirs, atol=0)

    def test_common_samples_far_from_the_rest(self):
        # The outliers of column 0 are where column 1 is missing: subtracting them from the sum
        # over all samples would leave no digit.
        rng = np.random.default_rng(0)
        P = rng.normal(size=(5000, 2))
        P[:50, 0] = 1e10
        P[:50, 1] = np.nan
        assert_same(gram.correlation(P), pd.DataFrame(P).corr().to_numpy(), atol=1e-7)
        assert_same(gram.correlation(P), slow_gram.correlation(P), atol=1e-5)

    def test_constant_on_the_common_samples(self):
        P = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0], [9.0, np.nan]])
        np.testing.assert_array_equal(gram.correlation(P), [[1, np.nan], [np.nan, 1]])

    def test_copies_are_within_one(self):
        x = np.random.default_rng(0).normal(size=999)
        ours = gram.correlation(np.column_stack([x, 3 * x + 1, -x]))
        assert (np.abs(ours) <= 1).all()
        assert_same(ours, np.sign(ours), atol=1e-14)

    def test_refused(self):
        P = np.ones((3, 2))
        bad = np.array([[1.0, 2.0], [1.0, np.inf]])
        for function in (gram.correlation, gram.weighted_gram):
            with pytest.raises(InvalidInputError, match="infinity in column 1"):
                function(bad)
            with pytest.raises(InvalidInputError, match=r"n_teachers >= 1, got \(3, 0\)"):
                function(P[:, :0])
            with pytest.raises(InvalidInputError, match="got -1.0 for sample 0"):
                function(P, [-1, 1, 1])
            with pytest.raises(InvalidInputError, match="finite sum > 0"):
                function(P, [0, 0, 0])
        with pytest.raises(InvalidInputError, match="y must be finite"):
            gram.residual_correlation(P, [1, 2, np.nan])
        with pytest.raises(InvalidInputError, match="too large to be squared"):
            gram.weighted_gram(P * 1e200)


# -- ranks ---------------------------------------------------------------------------------------


class TestRanks:
    @PROFILE
    @given(st.data())
    def test_is_the_definition(self, data):
        n = data.draw(st.integers(0, 20))
        values = data.draw(
            hnp.arrays(
                data.draw(st.sampled_from([np.float64, np.float32])),
                n,
                elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 1.0, 2.0, np.inf, np.nan]),
            )
        )
        groups = data.draw(hnp.arrays(np.int64, n, elements=st.sampled_from([-5, 0, 1, 10**15])))
        for codes in (groups, np.abs(groups) % 3, None):
            ours = ranks.group_ranks(values, codes)
            np.testing.assert_array_equal(ours, slow_ranks.group_ranks(values, codes))
            sizes = ranks.group_sizes(values, codes)
            np.testing.assert_array_equal(sizes, slow_ranks.group_sizes(values, codes))

    def test_agrees_with_scipy(self):
        rng = np.random.default_rng(0)
        values, groups = rng.normal(size=5000).round(2), rng.integers(0, 20, 5000)
        ours = ranks.group_ranks(values[::-1], groups[::-1])[::-1]
        for group in range(20):
            here = groups == group
            np.testing.assert_array_equal(ours[here], scipy.stats.rankdata(values[here]))

    def test_refused(self):
        with pytest.raises(InvalidInputError, match="one dimension"):
            ranks.group_ranks(np.ones((2, 2)))
        with pytest.raises(InvalidInputError, match="integer codes of shape"):
            ranks.group_ranks([1.0, 2.0], [0.0, 1.0])
        with pytest.raises(InvalidInputError, match="integer codes of shape"):
            ranks.group_sizes([1.0, 2.0], [0])


# -- the same bodies as plain Python -------------------------------------------------------------


class TestPythonBodies:
    """Without compilation: indexing errors raise here, where compiled code would read on."""

    @pytest.fixture(autouse=True)
    def _uncompiled(self, monkeypatch):
        for module in (moments, robust, gram, ranks):
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    monkeypatch.setattr(module, name, value.py_func)

    def test_moments(self):
        members = np.random.default_rng(0).normal(size=(6, 9))
        members[0, :4] = np.nan
        weights = np.array([1.0, 2, 0, 1, 3, 1])
        for skip_missing in (False, True):
            stream = moments.Moments(9, skip_missing=skip_missing)
            for member, weight in zip(members, weights, strict=True):
                stream.add(member, weight)
            expected = slow_moments.moments(members, weights, skip_missing=skip_missing)
            for found in (
                stream.finish(),
                moments.stacked_moments(members, weights, skip_missing=skip_missing),
            ):
                assert_same(found[0], expected[0])
                assert_same(found[1], expected[1])

    @pytest.mark.parametrize("n_teachers", [6, 70])
    def test_robust(self, n_teachers):
        members = np.random.default_rng(0).normal(size=(n_teachers, 5))
        members[0, :2] = np.nan
        members[:, 4] = np.nan
        assert_same(robust.stacked_median(members), slow_moments.median(members))
        ours = robust.stacked_trimmed_mean(members, None, 0.1)
        assert_same(ours, slow_moments.trimmed_mean(members, None, 0.1))

    def test_class_statistics(self):
        probas = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 5))
        probas[1, 2, 0] = np.nan
        statistics = moments.ClassStatistics(5, 3)
        for proba in probas:
            statistics.add(proba, 2.0)
        expected = slow_moments.class_statistics(probas, [2.0] * 4)
        assert_same(statistics.finish().expected_entropy, expected[3])

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
    def test_gram(self, share):
        rng = np.random.default_rng(1)
        P = rng.normal(size=(60, 5))
        P[rng.random(P.shape) < share] = np.nan
        P[:20, 0] += 1e6
        P[:20, 1] = np.nan  # so that pairs are computed again
        w = rng.random(60)
        assert_same(gram.correlation(P, w), slow_gram.correlation(P, w), atol=1e-7)
        assert_same(gram.weighted_gram(P)[1], slow_gram.weighted_gram(P)[1])

    def test_ranks(self):
        values, groups = [3.0, 1.0, np.nan, 3.0, 2.0], [0, 0, 0, 0, 1]
        ours = ranks.group_ranks(values, groups)
        np.testing.assert_array_equal(ours, slow_ranks.group_ranks(values, groups))


def test_importing_the_package_of_kernels_does_not_import_numba():
    code = (
        "import sys, scikd.kernels, scikd.harmonise; "
        "sys.exit('numba' in sys.modules or 'scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
