"""The published pipeline: the numbers of a literal twin, stage by stage."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from scikd.exceptions import InvalidInputError
from scikd.persistence import load_estimator, save_estimator
from scikd.stacking._predictions import Predictions
from scikd.stacking.published import PublishedStack
from tests.reference import stacking_published as reference


def pool(seed, n=90, n_models=6, spread=1.0):
    """Models with errors in common, two of them almost the same."""
    rng = np.random.default_rng(seed)
    y = rng.normal(20.0, 5.0, size=n)
    shared = rng.normal(size=(n, 1))
    P = y[:, None] + spread * (shared + rng.normal(size=(n, n_models)) * rng.uniform(0.2, 2))
    P[:, -1] = P[:, 0] + 0.01 * rng.normal(size=n)
    return P, y


def assert_same(model, twin, P_test):
    """Columns, penalties, held-out predictions, weights and predictions agree."""
    np.testing.assert_array_equal(model.filter_.get_support(indices=True), twin.kept)
    assert list(model.members_) == list(twin.members)
    for name, member in model.members_.items():
        alpha, *l1_ratio = twin.penalties[name][-1]
        assert member.alpha == alpha
        assert member.l1_ratio == (l1_ratio or [float(name == "lasso")])[0]
        scaler, line = twin.members[name]
        expected = line.predict(scaler.transform(reference.features(P_test[:, twin.kept])))
        X = model._columns(Predictions.of(P_test))
        np.testing.assert_allclose(member.predict(X), expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.oof_, twin.oof, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.rmse_, twin.rmse, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.weights_, twin.weights, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.predict(P_test), twin.predict(P_test), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_it_is_the_recipe(seed):
    P, y = pool(seed)
    model = PublishedStack(n_folds=3).fit(P[:60], y[:60])
    assert len(model.coef_) == 5 + 6
    assert_same(model, reference.fit(P[:60], y[:60], n_folds=3), P[60:])


def test_it_is_the_recipe_where_models_are_accurate():
    P, y = pool(7, spread=0.01)
    P[:, 2] = y + 0.5 * np.cos(y)
    model = PublishedStack(n_folds=3).fit(P[:60], y[:60])
    assert model.filter_.kept_.sum() == 2
    assert_same(model, reference.fit(P[:60], y[:60], n_folds=3), P[60:])


@pytest.mark.slow
def test_it_is_the_recipe_on_real_predictions_with_all_its_settings(scikd_data):
    table = pd.read_csv(scikd_data("tabular/oof_cooling_load_18models.csv.gz"), nrows=500)
    P, y = table[["CatBoost", "KNN", "MLP", "Ridge"]].to_numpy(), table["y_true"].to_numpy()
    model = PublishedStack().fit(P[:300], y[:300])
    assert_same(model, reference.fit(P[:300], y[:300]), P[300:])


@pytest.fixture(scope="module")
def fitted():
    """A fitted stack, and its predictions."""
    P, y = pool(0, n=40, n_models=3)
    return PublishedStack(n_folds=2, inner_folds=2).fit(P, y), P


def test_the_weights_are_those_of_one_linear_model(fitted):
    model, P = fitted
    X = model._columns(Predictions.of(P))
    blend = np.column_stack([member.predict(X) for member in model.members_.values()])
    np.testing.assert_allclose(model.predict(P), blend @ model.weights_)


def test_it_can_be_saved(fitted, tmp_path):
    model, P = fitted
    again = load_estimator(save_estimator(model, tmp_path / "stack"))
    np.testing.assert_array_equal(again.predict(P), model.predict(P))


def test_a_mapping_of_models_may_come_in_another_order():
    P, y = pool(0, n=40, n_models=3)
    columns = {"a": P[:, 0], "b": P[:, 1], "c": P[:, 2]}
    model = PublishedStack(n_folds=2, inner_folds=2).fit(columns, y)
    turned = dict(reversed(columns.items()))
    np.testing.assert_array_equal(model.predict(turned), model.predict(columns))
    assert len(model.filter_.reasons_) == 1


def test_a_missing_prediction_counts_as_the_mean_of_the_others():
    P, y = pool(0, n=40, n_models=3)
    P[5, 1] = np.delete(P[5], 1).mean()
    gaps = P.copy()
    gaps[5, 1] = np.nan
    model = PublishedStack(n_folds=2, inner_folds=2).fit(gaps, y)
    np.testing.assert_allclose(model.predict(gaps), model.predict(P))
    gaps[7] = np.nan
    with pytest.raises(InvalidInputError, match="1 rows have none, the first is row 7"):
        model.predict(gaps)
    with pytest.raises(InvalidInputError, match="1 rows have none"):
        clone(model).fit(gaps, y)


def test_members_without_error_share_the_weight():
    P, _ = pool(0, n=30)
    model = PublishedStack(n_folds=2).fit(P, np.zeros(30))
    np.testing.assert_array_equal(model.weights_, np.full(3, 1 / 3))
    np.testing.assert_array_equal(model.predict(P), np.zeros(30))
