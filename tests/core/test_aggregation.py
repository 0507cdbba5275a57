"""Aggregators: the laws, closed forms, and disagreement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from scipy.stats import entropy, rankdata, trim_mean

from scikd.aggregation import (
    Harmonised,
    InverseVariance,
    LogOpinionPool,
    Mean,
    Median,
    Routed,
    SoftmaxMean,
    TrimmedMean,
    Vote,
    as_aggregator,
    check_weights,
)
from scikd.exceptions import InvalidInputError
from scikd.harmonise import Harmoniser

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(arrays(float, (5, 7), elements=numbers), st.floats(0.1, 10), numbers)
def test_real_rules_follow_affine_maps(members, scale, shift):
    """Mean, median and trimmed mean move with their members."""
    for rule in (Mean(), Median(), TrimmedMean(0.2)):
        plain = rule.combine(members).mean
        moved = rule.combine(scale * members + shift).mean
        tolerance = 1e-9 * (1 + abs(shift) + scale * np.abs(members).max())
        np.testing.assert_allclose(moved, scale * plain + shift, atol=tolerance)
        assert (plain >= members.min(axis=0) - tolerance).all()
        assert (plain <= members.max(axis=0) + tolerance).all()


@given(
    arrays(float, (3, 20), elements=numbers, unique=True),
    st.floats(0.01, 100),
    st.floats(-100, 100),
    st.sampled_from(["minmax", "zscore", "rank", "quantile"]),
)
def test_an_affine_map_of_one_teacher_changes_nothing_once_harmonised(members, scale, shift, how):
    """The scale of one teacher is its own affair."""
    # Numbers closer than rounding lose their order under a map, and no rule can bring it back.
    members = np.round(members, 3) + np.arange(20) * 1e-2
    mapped = members.copy()
    mapped[1] = scale * mapped[1] + shift
    y = np.zeros(20)
    results = [
        Harmonised(Harmoniser(how), Mean()).fit(m, y).combine(m).mean for m in (members, mapped)
    ]
    if (rankdata(mapped[1]) == rankdata(members[1])).all():  # no tie came or went by rounding
        np.testing.assert_allclose(results[0], results[1], atol=1e-6)


def test_mean_and_spread_match_numpy():
    """Plain mean and population standard deviation."""
    members = np.random.default_rng(0).normal(size=(6, 30, 3))
    result = Mean().combine(members)
    np.testing.assert_allclose(result.mean, members.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.std, members.std(axis=0), rtol=1e-12)
    expected = members.var(axis=0).mean(axis=1)
    np.testing.assert_allclose(result.disagreement["variance"], expected, rtol=1e-12)


def test_trimmed_mean_matches_scipy():
    """A fifth of ten teachers is two at either end."""
    members = np.random.default_rng(1).normal(size=(10, 40))
    ours = TrimmedMean(0.2).combine(members).mean
    np.testing.assert_allclose(ours, trim_mean(members, 0.2, axis=0), rtol=1e-12)


def test_inverse_variance_is_the_best_linear_unbiased_combination():
    """Closed form, and the estimate of the variances from out-of-fold rows."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=200_000)
    sigma = np.array([1.0, 2.0, 4.0])
    members = y + sigma[:, None] * rng.normal(size=(3, len(y)))
    rule = InverseVariance().fit(members, y)
    np.testing.assert_allclose(rule.variances, sigma**2, rtol=0.02)
    error = rule.combine(members).mean - y
    assert np.mean(error**2) == pytest.approx(1 / np.sum(1 / sigma**2), rel=0.02)


def test_log_opinion_pool_is_the_normalised_geometric_mean():
    """Against the formula, with weights and a temperature."""
    rng = np.random.default_rng(2)
    members = rng.dirichlet(np.ones(4), (3, 25))
    weights = np.array([0.5, 0.3, 0.2])
    expected = softmax(np.tensordot(weights, np.log(members), 1) / 2.0, axis=1)
    ours = LogOpinionPool(temperature=2.0).combine(members, weights).mean
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_fitted_temperature_recovers_the_truth():
    """Teachers that are twice too sure are cooled by two."""
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(50_000, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(scores[:5000], axis=1)])
    members = softmax(2.0 * scores[:5000], axis=1)[None]
    rule = LogOpinionPool("fit").fit(members, np.eye(3)[y])
    assert rule.temperature == pytest.approx(2.0, rel=0.1)
    pooled = rule.combine(members).mean
    before = -np.mean(np.log(members[0][np.arange(5000), y]))
    after = -np.mean(log_softmax(np.log(pooled), axis=1)[np.arange(5000), y])
    assert after < before


def test_disagreement_of_classifiers_matches_its_definitions():
    """Mutual information, entropy, margin and gap against SciPy."""
    members = np.random.default_rng(4).dirichlet(np.ones(3), (5, 30))
    result = SoftmaxMean().combine(members)
    mean = members.mean(axis=0)
    information = entropy(mean, axis=1) - entropy(members, axis=2).mean(axis=0)
    doubt = result.disagreement
    np.testing.assert_allclose(doubt["mutual_information"], information, atol=1e-12)
    np.testing.assert_allclose(doubt["entropy"], entropy(mean, axis=1), atol=1e-12)
    ordered = np.sort(mean, axis=1)
    np.testing.assert_allclose(doubt["top2_gap"], ordered[:, -1] - ordered[:, -2])
    votes = np.stack([(members.argmax(axis=2) == c).mean(axis=0) for c in range(3)], axis=1)
    ordered = np.sort(votes, axis=1)
    np.testing.assert_allclose(doubt["vote_margin"], ordered[:, -1] - ordered[:, -2])
    np.testing.assert_allclose(Vote().combine(members).mean, votes)


def test_missing_rows_are_skipped_only_when_asked():
    """NaN is an error, or a row that a teacher did not cover."""
    members = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    with pytest.raises(InvalidInputError, match="Teacher 0 has 2 NaN or infinite"):
        Mean().combine(members)
    for rule in (Mean(), Median(), TrimmedMean(0.1)):
        mean = rule.combine(members, missing="skip").mean
        np.testing.assert_allclose(mean, [2.0, 5.0, np.nan])


def test_routing_by_instance():
    """Every sample gets its own weights; a sample without any is refused."""
    members = np.array([[1.0, 1.0], [5.0, 5.0]])
    X = np.array([[0.0], [1.0]])
    rule = Routed(lambda X: np.column_stack([1 - X[:, 0], X[:, 0]]))
    np.testing.assert_allclose(rule.combine(members, X=X).mean, [1.0, 5.0])
    with pytest.raises(InvalidInputError, match="pass X"):
        rule.combine(members)
    with pytest.raises(InvalidInputError, match="some have none"):
        Routed(lambda X: np.zeros((2, 2))).combine(members, X=X)
    with pytest.raises(InvalidInputError, match=r"weights of shape \(n_samples, 2\)"):
        Routed(lambda X: np.zeros((2, 3))).combine(members, X=X)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (TrimmedMean(0.5), r"fraction in \[0, 0.5\)"),
        (SoftmaxMean(temperature=0.0), "temperature to be a positive"),
        (LogOpinionPool(temperature=-1.0), "temperature to be a positive"),
        (LogOpinionPool("fit"), "has not learnt its temperature"),
        (InverseVariance(), "does not know the variances"),
        (InverseVariance((1.0, -1.0)), "positive variances"),
    ],
)
def test_unusable_settings_are_refused(rule, text):
    """A rule that cannot work says what it needs."""
    with pytest.raises(InvalidInputError, match=text):
        rule.combine(np.full((2, 3, 2), 0.5))


def test_numbers_are_no_probabilities():
    """Rules for probabilities refuse anything else."""
    with pytest.raises(InvalidInputError, match="non-negative and summing to one"):
        SoftmaxMean().combine(np.ones((2, 3, 2)))
    with pytest.raises(InvalidInputError, match=r"shape \(n_samples, n_classes\)"):
        Vote().combine(np.ones((2, 3)))


def test_running_combination_counts_its_teachers():
    """One teacher too many, or too few, is an error."""
    running = Mean().begin(check_weights(None, 2))
    running.add(np.zeros(3))
    with pytest.raises(InvalidInputError, match="Expected 2 teachers; got 1"):
        running.finish()
    running.add(np.zeros(3))
    with pytest.raises(InvalidInputError, match="got one more"):
        running.add(np.zeros(3))


def test_names_of_rules():
    """Known names resolve; unknown ones list the known."""
    assert as_aggregator("median") == Median()
    with pytest.raises(InvalidInputError, match="'median'.*got 'meen'"):
        as_aggregator("meen")
