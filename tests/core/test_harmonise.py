"""Teachers of different scale, put on one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, ndtri

from scikd.exceptions import InvalidInputError
from scikd.harmonise import Harmoniser

# The first example compiles the kernel for ranks, which no deadline allows for.
PROFILE = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
HOW = ["minmax", "zscore", "rank", "quantile", "logit"]
# Whole numbers survive an affine map with their ties, and without rounding.
WHOLE = st.integers(-20, 20).map(float)
CONSTANT = {"minmax": 0.5, "zscore": 0.0, "rank": 0.5, "quantile": 0.0, "logit": 0.0}
how = pytest.mark.parametrize("how", HOW)
per = pytest.mark.parametrize("per", ["global", "group"])


@st.composite
def members(draw):
    """Draw (T, n) or (T, n, k) log-odds or scores, some missing, and groups."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
    values = draw(hnp.arrays(np.float64, shape, elements=WHOLE)) / 4
    missing = draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([False, False, True])))
    missing[:, 0] = False  # or a teacher has nothing to be fitted on
    values[missing] = np.nan
    groups = draw(hnp.arrays(np.int64, shape[1], elements=st.integers(-1, 2)))
    return values, groups


def apply(how, per, values, groups):
    """Harmonise; scores are taken as log-odds where probabilities are needed."""
    if how == "logit":
        values = expit(values)
    return Harmoniser(how, per, eps=1e-9).fit_transform(values, groups=groups)


def assert_same(ours, theirs, atol=1e-6):
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=atol)


@how
@per
class TestLaws:
    @PROFILE
    @given(members(), st.sampled_from([0.25, 1.0, 3.0]), st.sampled_from([-2.0, 0.0, 5.0]))
    def test_positive_affine_map_of_one_teacher_changes_nothing(self, how, per, drawn, a, b):
        values, groups = drawn
        mapped = values.copy()
        mapped[-1] = a * mapped[-1] + b
        if how == "logit":
            # expit rounds, and so may take a constant or a tie apart
            assume(np.nanmax(np.abs(mapped)) < 18)
        assert_same(apply(how, per, values, groups), apply(how, per, mapped, groups))

    @PROFILE
    @given(members())
    def test_negative_scale_flips(self, how, per, drawn):
        values, groups = drawn
        ours = apply(how, per, values, groups)
        flipped = apply(how, per, -values, groups)
        assert_same(flipped, (1 if how in ("minmax", "rank") else 0) - ours)

    @PROFILE
    @given(members())
    def test_shape_and_missing_stay_and_nothing_else_is_missing(self, how, per, drawn):
        values, groups = drawn
        ours = apply(how, per, values, groups)
        assert ours.shape == values.shape
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(values))
        assert np.isfinite(ours[~np.isnan(ours)]).all()

    @PROFILE
    @given(members())
    def test_order_within_a_teacher_stays(self, how, per, drawn):
        values, groups = drawn
        ours = apply(how, per, values, groups)
        x, y = values[0].reshape(len(groups), -1)[:, 0], ours[0].reshape(len(groups), -1)[:, 0]
        for i, j in np.ndindex(len(x), len(x)):
            if x[i] < x[j] and (per == "global" or groups[i] == groups[j]):
                assert y[i] < y[j]

    def test_constant_teacher(self, how, per):
        values = np.full((1, 4), 0.1)
        values[0, 2] = np.nan
        ours = Harmoniser(how, per).fit_transform(values, groups=[0, 0, 0, 1])
        np.testing.assert_array_equal(ours, [[CONSTANT[how], CONSTANT[how], np.nan, CONSTANT[how]]])

    def test_input_is_left_alone_and_float32_is_promoted(self, how, per):
        values = np.random.default_rng(0).random((2, 5)).astype(np.float32)
        before = values.copy()
        ours = Harmoniser(how, per).fit_transform(values, groups=[0, 1, 0, 1, 0])
        np.testing.assert_array_equal(values, before)
        assert ours.dtype == np.float64

    def test_outputs_are_independent(self, how, per):
        rng = np.random.default_rng(0)
        values, groups = rng.random((3, 10, 2)), rng.integers(0, 2, 10)
        together = Harmoniser(how, per).fit_transform(values, groups=groups)
        for k in range(2):
            alone = Harmoniser(how, per).fit_transform(values[..., k], groups=groups)
            np.testing.assert_array_equal(together[..., k], alone)

    def test_no_samples(self, how, per):
        harmoniser = Harmoniser(how, per).fit(np.array([[0.2, 0.4], [0.1, 0.3]]))
        assert harmoniser.transform(np.empty((2, 0)), groups=np.empty(0, int)).shape == (2, 0)


@how
@PROFILE
@given(drawn=members())
def test_by_group_is_each_group_alone(how, drawn):
    values, groups = drawn
    ours = apply(how, "group", values, groups)
    for group in np.unique(groups):
        here = groups == group
        alone = apply(how, "group", values[:, here], np.zeros(here.sum(), dtype=int))
        assert_same(ours[:, here], alone)


@pytest.mark.parametrize("how", ["rank", "quantile"])
@per
@PROFILE
@given(drawn=members())
def test_ranks_know_nothing_but_order(how, per, drawn):
    values, groups = drawn
    ours = apply(how, per, values, groups)
    np.testing.assert_array_equal(ours, apply(how, per, np.exp(values) + values**3, groups))


class TestByReference:
    def test_one_sample_at_a_time_equals_all_at_once(self):
        rng = np.random.default_rng(0)
        reference, new = rng.random((3, 50)), rng.random((3, 7))
        for how in HOW:
            harmoniser = Harmoniser(how).fit(reference)
            together = harmoniser.transform(new)
            for i in range(7):
                np.testing.assert_array_equal(
                    harmoniser.transform(new[:, i : i + 1]), together[:, i : i + 1]
                )

    def test_known_values(self):
        reference = np.array([[1.0, 2.0, 2.0, 5.0]])
        new = np.array([[0.0, 1.0, 1.5, 2.0, 9.0]])
        fractions = np.array([[0.125, 0.125, 0.25, 0.5, 0.875]])
        assert_same(Harmoniser("rank").fit(reference).transform(new), fractions)
        assert_same(Harmoniser("quantile").fit(reference).transform(new), ndtri(fractions))
        assert_same(
            Harmoniser("minmax").fit(reference).transform(new), [[-0.25, 0, 0.125, 0.25, 2]]
        )
        assert_same(Harmoniser("zscore").fit(reference).transform(new), (new - 2.5) / 1.5)

    def test_quantile_agrees_with_scipy(self):
        values = np.random.default_rng(0).normal(size=(1, 100)).round(1)
        ours = Harmoniser("quantile").fit_transform(values)
        assert_same(ours, ndtri((scipy.stats.rankdata(values, axis=1) - 0.5) / 100))

    @how
    def test_weight_is_a_number_of_copies(self, how):
        rng = np.random.default_rng(0)
        reference, new = rng.random((2, 30)).round(1), rng.random((2, 9))
        reference[0, :5] = np.nan
        weights = rng.integers(0, 4, 30)
        ours = Harmoniser(how).fit(reference, sample_weight=weights)
        copies = Harmoniser(how).fit(np.repeat(reference, weights, axis=1))
        assert_same(ours.transform(new), copies.transform(new), atol=1e-12)

    def test_large_offset_and_tiny_range(self):
        values = np.array([[1e9, 1e9 + 1, 1e9 + 2], [0.0, 5e-324, 1e-323]])
        ours = Harmoniser("zscore").fit_transform(values)
        assert_same(ours[0], np.array([-1, 0, 1]) * np.sqrt(1.5))
        assert np.isfinite(ours).all()

    def test_statistics_are_enough_to_restore_it(self):
        values = np.random.default_rng(0).random((2, 9))
        for how in HOW:
            fitted = Harmoniser(how).fit(values, sample_weight=np.arange(9))
            restored = Harmoniser(how, "global", statistics=dict(fitted.statistics))
            np.testing.assert_array_equal(restored.transform(values), fitted.transform(values))

    def test_fit_leaves_the_original_unfitted(self):
        original = Harmoniser("zscore")
        fitted = original.fit(np.ones((2, 3)))
        assert original.statistics is None
        assert fitted == original  # equality is that of the parameters


class TestCentre:
    @per
    @PROFILE
    @given(members(), st.sampled_from([-1e6, 0.0, 5.0]))
    def test_an_offset_goes_and_the_unit_stays(self, per, drawn, offset):
        values, groups = drawn
        ours = Harmoniser("center", per).fit_transform(values + offset, groups=groups)
        parts = [groups == g for g in np.unique(groups)] if per == "group" else [slice(None)]
        for part in parts:
            there = values[:, part]
            with np.errstate(invalid="ignore"):
                mean = np.nansum(there, axis=1) / np.count_nonzero(~np.isnan(there), axis=1)
            assert_same(ours[:, part], there - mean[:, None])

    def test_a_new_sample_is_measured_from_the_mean_of_the_reference(self):
        centred = Harmoniser("center").fit([[1.0, 3.0], [7.0, 7.0]])
        assert_same(centred.transform([[5.0], [9.0]]), [[3.0], [2.0]])


class TestRefused:
    def test_parameters(self):
        with pytest.raises(InvalidInputError, match="how must be one of 'minmax'.*; per must be"):
            Harmoniser("max", "query")
        with pytest.raises(InvalidInputError, match="eps must be above 0 and below 0.5, got 0.5"):
            Harmoniser("logit", eps=0.5)

    @how
    @per
    def test_infinite(self, how, per):
        values = np.full((3, 4), 0.5)
        values[1, 2] = np.inf
        with pytest.raises(InvalidInputError, match="teacher 1 has 1 infinite"):
            Harmoniser(how, per).fit(values)
        with pytest.raises(InvalidInputError, match="teacher 1 has 1 infinite"):
            Harmoniser(how, per).transform(values, groups=[0, 0, 1, 1])

    def test_shape(self):
        with pytest.raises(InvalidInputError, match=r"\(n_teachers, n_samples, \.\.\.\)"):
            Harmoniser().fit(np.ones(3))
        with pytest.raises(InvalidInputError, match=r"\(n_teachers, n_samples, k\), got"):
            Harmoniser().fit(np.ones((2, 3, 4, 5)))
        with pytest.raises(InvalidInputError, match="at least one teacher"):
            Harmoniser().fit(np.ones((0, 3)))

    @how
    def test_other_teachers_than_fitted(self, how):
        fitted = Harmoniser(how).fit(np.full((2, 5), 0.5))
        with pytest.raises(InvalidInputError, match="2 teachers of 1 output columns as in fit"):
            fitted.transform(np.full((3, 5), 0.5))
        with pytest.raises(InvalidInputError, match="got 2 of 4"):
            fitted.transform(np.full((2, 5, 4), 0.5))

    def test_unfitted(self):
        with pytest.raises(InvalidInputError, match="use what its fit"):
            Harmoniser("rank").transform(np.ones((2, 3)))

    def test_nothing_to_fit_on(self):
        values = np.ones((2, 3))
        values[1, 1:] = np.nan
        with pytest.raises(InvalidInputError, match="teacher 1 has no prediction"):
            Harmoniser().fit(values, sample_weight=[0, 1, 1])

    @pytest.mark.parametrize("weights", [[1, -1, 1], [0, 0, 0], [1, 1]])
    @per
    def test_weights(self, per, weights):
        with pytest.raises(InvalidInputError, match="sample_weight must"):
            Harmoniser("zscore", per).fit(np.ones((2, 3)), sample_weight=weights)

    @pytest.mark.parametrize("groups", [None, [0, 1], [0.0, 1.0, 2.0]])
    def test_groups(self, groups):
        with pytest.raises(InvalidInputError, match=r"integer codes of shape \(3,\)"):
            Harmoniser("zscore", "group").transform(np.ones((2, 3)), groups=groups)

    def test_no_probabilities(self):
        with pytest.raises(InvalidInputError, match="got 1.5 from teacher 1"):
            Harmoniser("logit").fit(np.array([[0.5, 0.5], [1.5, 0.5]]))
