"""Features of the rows of a prediction matrix."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy

from scikd.exceptions import InvalidInputError
from scikd.stacking.features import MetaFeatures
from tests.reference import rows as reference
from tests.reference import stacking_published

rng = np.random.default_rng(0)
P = rng.normal(size=(40, 7))
proba = rng.dirichlet(np.ones(3), size=(40, 5))


def by_name(model, given):
    """Columns of the features by their names."""
    table = model.fit_transform(given)
    return dict(zip(model.get_feature_names_out(), table.T, strict=True))


def test_features_of_numbers_are_those_of_the_definitions():
    found = by_name(MetaFeatures(), P)
    expected = reference.row_statistics(P)
    np.testing.assert_allclose(np.transpose(list(found.values())[:6]), expected)
    np.testing.assert_allclose(found["mean_x_std"], P.mean(axis=1) * P.std(axis=1))
    np.testing.assert_allclose(found["range_x_std"], np.ptp(P, axis=1) * P.std(axis=1))


def test_the_published_six_are_those_of_the_table():
    found = MetaFeatures("published").fit_transform(P)
    np.testing.assert_allclose(found, stacking_published.features(P)[:, -6:])


def test_features_of_classes_are_those_of_the_definitions():
    found = by_name(MetaFeatures(), proba)
    mean = proba.mean(axis=1)
    votes = np.array([np.bincount(row, minlength=3) / 5 for row in proba.argmax(axis=2)])
    own = entropy(proba, axis=2).mean(axis=1)
    np.testing.assert_allclose(found["entropy"], entropy(mean, axis=1))
    np.testing.assert_allclose(found["expected_entropy"], own)
    np.testing.assert_allclose(found["mutual_information"], entropy(mean, axis=1) - own)
    for name, shares in (("top2_gap", mean), ("vote_margin", votes)):
        ordered = np.sort(shares, axis=1)
        np.testing.assert_allclose(found[name], ordered[:, -1] - ordered[:, -2])


@pytest.mark.parametrize("given", [P, proba])
def test_missing_models_are_left_out_and_empty_rows_stay_missing(given):
    gaps = given.copy()
    gaps[0, 2:4] = np.nan
    gaps[1] = np.nan
    found = MetaFeatures().fit(gaps).transform(gaps)
    without = np.delete(given, [2, 3], axis=1)
    np.testing.assert_allclose(found[0], MetaFeatures().fit_transform(without)[0])
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[2:], MetaFeatures().fit_transform(given)[2:])


def test_lists_choose_and_order_the_columns_and_frames_keep_names():
    model = MetaFeatures(["range", "mean"]).set_output(transform="pandas")
    found = model.fit_transform(pd.DataFrame(P))
    assert list(found.columns) == ["range", "mean"]
    np.testing.assert_allclose(found["mean"], P.mean(axis=1))


@pytest.mark.parametrize("features", [["mean", "entropy"], "classification", []])
def test_features_of_another_kind_are_refused(features):
    with pytest.raises(InvalidInputError, match="Expected features among mean, std"):
        MetaFeatures(features).fit(P)


def test_predictions_of_another_kind_are_refused():
    with pytest.raises(InvalidInputError, match="with 2 axes, as in fit"):
        MetaFeatures().fit(P[:, :5]).transform(proba)
