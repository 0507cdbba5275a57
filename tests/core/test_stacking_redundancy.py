"""Which models repeat others: against naive twins, on real predictions, and whatever the order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from scikd.exceptions import InvalidInputError
from scikd.persistence import load_estimator, save_estimator
from scikd.stacking._problem import check_problem
from scikd.stacking.gram import Gram
from scikd.stacking.redundancy import RedundancyFilter
from tests.reference import stacking_published, stacking_redundancy


def pool(seed, n=120):
    """Models of several qualities, some of which repeat others more or less closely."""
    rng = np.random.default_rng(seed)
    y = rng.normal(10.0, 3.0, size=n)
    own = y[:, None] + rng.normal(size=(n, 5)) * rng.uniform(0.5, 2.0, size=5)
    weights = rng.dirichlet(np.ones(5), size=4).T + rng.normal(size=(5, 4)) * [
        [0],
        [0],
        [0],
        [1],
        [-1],
    ]
    weights /= weights.sum(axis=0)
    noise = rng.normal(size=(n, 9)) * rng.choice([0.0, 1e-6, 0.02, 0.3], size=9)
    P = np.c_[own, np.c_[own[:, :5], own @ weights] + noise]
    return P[:, rng.permutation(P.shape[1])], y


@given(st.integers(0, 10**6))
@settings(max_examples=60)
def test_the_residual_rule_is_that_of_its_definition(seed):
    P, y = pool(seed)
    w = np.random.default_rng(seed).integers(0, 4, size=len(y))
    # Copies have the same risk; which of them stays is the subject of other tests.
    kept = RedundancyFilter().fit(P, y, w).get_support(indices=True)
    expected = stacking_redundancy.keep(P, y, w)
    np.testing.assert_array_equal(np.unique(P[0, kept]), np.unique(P[0, expected]))


@given(st.integers(0, 10**6), st.sampled_from(["residual", "published"]))
@settings(max_examples=60)
def test_the_order_of_the_columns_does_not_matter(seed, rule):
    P, y = pool(seed)
    mirrored = 2 * y - P[:, 0]  # the same risk as the first, and other predictions
    P = np.c_[P, mirrored, P[:, 1]]
    order = np.random.default_rng(seed).permutation(P.shape[1])
    model = RedundancyFilter(rule=rule, mse=0.1).fit(P, y)
    moved = RedundancyFilter(rule=rule, mse=0.1).fit(P[:, order], y)
    assert 0 < model.kept_.sum() < P.shape[1]
    kept, moved_kept = model.transform(P), moved.transform(P[:, order])
    by_value = [table[:, np.lexsort(table)] for table in (kept, moved_kept)]
    np.testing.assert_array_equal(*by_value)


@given(
    st.integers(0, 10**6),
    st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3),
    st.floats(-1e3, 1e3),
)
@settings(max_examples=60)
def test_the_unit_of_the_target_does_not_matter(seed, scale, shift):
    P, y = pool(seed)
    model = RedundancyFilter().fit(P, y)
    moved = RedundancyFilter().fit(scale * P + shift, scale * y + shift)
    np.testing.assert_array_equal(moved.kept_, model.kept_)
    np.testing.assert_allclose(moved.risks_, scale**2 * model.risks_, rtol=1e-6)


def test_models_of_equal_risk_are_told_apart_by_what_they_predict():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    error = rng.normal(size=50)
    P = y[:, None] + np.c_[error, error[::-1], rng.permutation(error), -error]
    visited = [P[:, RedundancyFilter().fit(P, y).order_]]
    for order in ([3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]):
        Q = P[:, order]
        visited.append(Q[:, RedundancyFilter().fit(Q, y).order_])
    for table in visited[1:]:
        np.testing.assert_array_equal(table, visited[0])


def test_of_equal_columns_that_with_the_first_name_stays():
    y = np.arange(10.0)
    p = y + np.cos(y)
    for P in ({"b": p, "a": p}, {"a": p, "b": p}):
        assert RedundancyFilter().fit(P, y).reasons_.keys() == {"b"}
    unnamed = RedundancyFilter().fit(np.tile(p[:, None], 12), y)
    assert unnamed.get_support(indices=True) == [0]


def test_the_published_rule_is_that_of_the_table():
    kept = []
    for seed in range(20):
        P, y = pool(seed)
        P = P / 4 + 3.0 * (np.arange(P.shape[1]) == 2)
        P[:, 3] = 0.01 * y
        model = RedundancyFilter(rule="published").fit(P, y)
        kept.append(len(model.get_support(indices=True)))
        expected = stacking_published.keep(P, y)
        # Exact copies have one risk, and either may stay.
        np.testing.assert_array_equal(np.unique(P[0, model.kept_]), np.unique(P[0, expected]))
        assert model.reasons_["x3" if "x3" in model.reasons_ else "model3"].reason == "variance"
    assert min(kept) < max(kept)


def test_a_model_of_half_the_error_is_no_combination():
    """R² of errors alone would call the second a copy, and the two together give y exactly."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    error = rng.normal(size=100)
    P = np.c_[y + 0.5 * error, y + error]
    assert RedundancyFilter(eps=0.05).fit(P, y).kept_.all()
    np.testing.assert_allclose(2 * P[:, 0] - P[:, 1], y)


def test_accurate_models_with_errors_of_their_own_all_stay():
    """Their predictions correlate by 1 - 1e-8, and their mean has a fifth of their risk."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=1000)
    P = y[:, None] + 1e-4 * rng.normal(size=(1000, 5))
    assert RedundancyFilter().fit(P, y).kept_.all()
    assert RedundancyFilter(rule="published").fit(P, y).kept_.sum() == 1


def test_the_threshold_is_where_the_definition_puts_it():
    rng = np.random.default_rng(0)
    y, error, other = rng.normal(size=(3, 500))
    P = np.c_[y + error, y + error + 0.1 * other]
    risks = np.square(P - y[:, None]).mean(axis=0)
    disagreement = np.square(P[:, 0] - P[:, 1]).mean() / risks.sum()
    assert RedundancyFilter(eps=disagreement * 0.999, r2=1.0).fit(P, y).kept_.all()
    (reason,) = RedundancyFilter(eps=disagreement * 1.001).fit(P, y).reasons_.values()
    assert reason.measures["disagreement"] == pytest.approx(disagreement)
    rest = np.square(P[:, 0] - P[:, 1]).mean() / risks.max()
    assert RedundancyFilter(eps=0.0, r2=1 - rest * 0.999).fit(P, y).kept_.all()
    (reason,) = RedundancyFilter(eps=0.0, r2=1 - rest * 1.001).fit(P, y).reasons_.values()
    assert reason.measures["r2"] == pytest.approx(1 - rest)


def test_reasons_name_the_models_that_stay_instead():
    rng = np.random.default_rng(1)
    y = rng.normal(size=200)
    P = pd.DataFrame(y[:, None] + rng.normal(size=(200, 3)) * [1, 1.1, 1.2], columns=[*"abc"])
    P["twin"] = P["b"] + 1e-3
    P["sum"] = 3 * P["c"] - 2 * P["a"]
    model = RedundancyFilter().fit(P, y)
    assert list(model.get_feature_names_out()) == ["a", "b", "c"]
    twin, total = model.reasons_["twin"], model.reasons_["sum"]
    assert (twin.reason, twin.kept, twin.weights) == ("duplicate", ("b",), (1.0,))
    assert (total.reason, total.kept) == ("combination", ("c", "a"))
    assert total.weights == pytest.approx((3.0, -2.0))
    assert str(twin).startswith("duplicate of b: disagreement")
    assert str(total) == "combination of 3 c + -2 a: r2 1"


class TestClasses:
    """Class probabilities, whose errors are those of all classes."""

    def probabilities(self, seed=0, n=150):
        rng = np.random.default_rng(seed)
        y = np.array(["x", "y", "z"])[rng.integers(0, 3, size=n)]
        own = rng.dirichlet(np.ones(3), size=(n, 4)) + 1.5 * (y[:, None, None] == [*"xyz"])
        own /= own.sum(axis=2, keepdims=True)
        mean = own.mean(axis=1, keepdims=True)
        return np.concatenate([own, own[:, [1]], mean], axis=1), y

    def test_repetitions_are_dropped(self):
        P, y = self.probabilities()
        model = RedundancyFilter().fit(P, y)
        assert model.transform(P).shape == (150, 4, 3)
        assert model.kept_.sum() == 4
        brier = np.square(P - (y[:, None] == [*"xyz"])[:, None]).sum(axis=2).mean(axis=0)
        np.testing.assert_allclose(model.risks_, brier)

    def test_it_is_the_rule_for_numbers_on_all_classes(self):
        P, y = self.probabilities(1)
        w = np.random.default_rng(0).integers(0, 3, size=len(y))
        flat, truth = np.swapaxes(P, 1, 2).reshape(-1, 6), (y[:, None] == [*"xyz"]).ravel()
        flat = flat + 1e-9 * np.arange(6)  # no two risks are equal
        expected = stacking_redundancy.keep(flat, truth.astype(float), np.repeat(w, 3))
        kept = RedundancyFilter().fit(P, y, w).get_support(indices=True)
        assert len(kept) == len(expected) == 4

    def test_frames_by_name_may_come_in_another_order(self):
        P, y = self.probabilities()
        frames = {f"m{j}": pd.DataFrame(P[:, j], columns=[*"xyz"]) for j in range(6)}
        model = RedundancyFilter().fit(frames, y)
        turned = dict(reversed(frames.items()))
        np.testing.assert_array_equal(model.transform(turned), model.transform(frames))
        with pytest.raises(InvalidInputError, match="as in fit; got those of"):
            model.transform({**dict(list(frames.items())[:5]), "other": frames["m5"]})

    def test_the_published_rule_knows_no_classes(self):
        with pytest.raises(InvalidInputError, match="knows no classes"):
            RedundancyFilter(rule="published").fit(*self.probabilities())


def test_missing_predictions_count_as_the_mean_of_the_others():
    P, y = pool(3)
    P[np.random.default_rng(0).random(P.shape) < 0.2] = np.nan
    model = RedundancyFilter().fit(P, y)
    np.testing.assert_array_equal(model.get_support(indices=True), stacking_redundancy.keep(P, y))
    assert np.isnan(model.transform(P)).any()
    gap = np.full((1, P.shape[1]), np.nan)
    again = RedundancyFilter().fit(np.r_[P, gap], np.r_[y, 0.0])
    np.testing.assert_array_equal(again.kept_, model.kept_)


def test_moments_that_are_there_already_do_instead_of_the_rows():
    P, y = pool(5)
    problem = check_problem(P, y)
    model = RedundancyFilter().solve(problem, Gram.of(P, y))
    np.testing.assert_array_equal(model.kept_, RedundancyFilter().fit(P, y).kept_)


def test_no_model_above_the_floor_is_an_error_that_says_what_to_do():
    y = np.linspace(0, 0.1, 20)
    with pytest.raises(InvalidInputError, match="Lower `variance`, or use rule='residual'"):
        RedundancyFilter(rule="published").fit(np.c_[y, y**2], y)


def test_a_fitted_filter_can_be_saved(tmp_path):
    P, y = pool(0)
    model = RedundancyFilter().fit(P, y)
    again = load_estimator(save_estimator(model, tmp_path / "filter"))
    assert again.reasons_ == model.reasons_
    np.testing.assert_array_equal(again.transform(P), model.transform(P))


def test_it_works_in_a_pipeline():
    P, y = pool(0)
    line = make_pipeline(RedundancyFilter(), LinearRegression()).fit(P, y)
    assert line.score(P, y) > 0.9


@pytest.fixture(scope="module")
def cooling(scikd_data):
    """Out-of-fold predictions of 18 models for four folds of one repeat, and of the fifth."""
    table = pd.read_csv(scikd_data("tabular/oof_cooling_load_18models.csv.gz"))
    table = table[table["fold"] < 5]
    P, y = table.drop(columns=["fold", "y_true"]), table["y_true"].to_numpy()
    held_out = (table["fold"] == 4).to_numpy()
    return P[~held_out], y[~held_out], P[held_out], y[held_out]


def linear_error(model, cooling):
    """Error on the fifth fold of least squares on the models that stay."""
    P, y, P_test, y_test = cooling
    fit = LinearRegression().fit(model.transform(P), y)
    return np.sqrt(np.mean((fit.predict(model.transform(P_test)) - y_test) ** 2))


def test_on_real_predictions_the_published_rule_depends_on_the_unit(cooling):
    P, y, *_ = cooling
    kept = {
        scale: RedundancyFilter(rule="published").fit(scale * P, scale * y).kept_.sum()
        for scale in (0.05, 1.0, 100.0)
    }
    assert kept[1.0] == 14
    assert kept[100.0] >= 17
    assert kept[0.05] == 2
    assert RedundancyFilter(rule="published", mse=np.inf).fit(P, y).kept_.sum() == 2


def test_on_real_predictions_the_default_drops_what_is_numerically_redundant(cooling):
    P, y, *_ = cooling
    model = RedundancyFilter().fit(P, y)
    condition = [np.linalg.cond(np.corrcoef(Q.T)) for Q in (P.to_numpy(), model.transform(P))]
    assert condition[0] > 1e9
    assert condition[1] < 1e6
    assert set(model.reasons_) == {"ElasticNet", "HuberRegressor", "LinearRegression"}
    everything = RedundancyFilter(eps=0.0, r2=1.0).fit(P, y)
    assert everything.kept_.all()
    assert linear_error(model, cooling) <= linear_error(everything, cooling)
    by_correlation = RedundancyFilter(rule="published", mse=np.inf).fit(P, y)
    assert linear_error(by_correlation, cooling) > linear_error(model, cooling)
