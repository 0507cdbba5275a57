"""Combiners against other solvers, explicit refits and their own algebra."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls
from sklearn.base import clone
from sklearn.linear_model import RidgeCV, enet_path
from sklearn.metrics import mean_absolute_error, mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold

from scikd.exceptions import InvalidInputError
from scikd.stacking import (
    BestSingle,
    ElasticNetCombiner,
    Gram,
    GreedySelection,
    InverseErrorCombiner,
    LeastSquares,
    MeanCombiner,
    NonNegativeCombiner,
    ShrunkRidge,
    SimplexCombiner,
)
from scikd.stacking.gram import held_out
from scikd.stacking.greedy import draw_bags
from tests.reference import stacking_combiners as naive

seeds = st.integers(0, 2**31 - 1)
ALL = [
    MeanCombiner(),
    BestSingle(),
    InverseErrorCombiner(),
    LeastSquares(),
    NonNegativeCombiner(),
    SimplexCombiner(),
    ShrunkRidge(),
    ShrunkRidge(cv="loo"),
    ShrunkRidge(cv=4, random_state=0),
    GreedySelection(),
    GreedySelection(n_bags=4, random_state=0),
    ElasticNetCombiner(random_state=0),
]
every = pytest.mark.parametrize("combiner", ALL, ids=str)
# Those with a solution that does not depend on what the models are called, or measured in.
unchanged = pytest.mark.parametrize(
    "combiner", [c for c in ALL if not getattr(c, "n_bags", 0)], ids=str
)


def pool(seed, n=80, n_models=5, noise=0.5):
    """Models of one target, each with its own error and one that all share."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    shared = noise * rng.normal(size=n)
    own = rng.normal(size=(n, n_models)) * rng.uniform(0.2, 1.0, n_models)
    P = y[:, None] + shared[:, None] + noise * own + 0.1 * rng.normal(size=n_models)
    return P, y


def risk(combiner, P, y, w=None):
    """Mean squared error."""
    return np.average((combiner.predict(P) - y) ** 2, weights=w)


# --- each against another solver ------------------------------------------------------------------


def test_simple_ones():
    P, y = pool(0)
    errors = np.mean((P - y[:, None]) ** 2, axis=0)
    np.testing.assert_array_equal(MeanCombiner().fit(P, y).weights_, np.full(5, 0.2))
    np.testing.assert_array_equal(np.flatnonzero(BestSingle().fit(P, y).weights_), errors.argmin())
    inverse = 1 / np.sqrt(errors)
    np.testing.assert_allclose(InverseErrorCombiner().fit(P, y).weights_, inverse / inverse.sum())


def test_a_model_without_error_gets_all_weight():
    P, y = pool(0)
    P[:, 3] = y
    assert InverseErrorCombiner().fit(P, y).weights_.tolist() == [0, 0, 0, 1, 0]


@settings(max_examples=20)
@given(seeds, st.integers(1, 8), st.integers(3, 40))
def test_least_squares(seed, n_models, n):
    """Of minimum norm, too, where there are more models than rows."""
    P, y = pool(seed, n, n_models)
    w = np.random.default_rng(seed).random(n) + 0.1
    centred = np.sqrt(w)[:, None] * (P - np.average(P, axis=0, weights=w))
    expected = np.linalg.lstsq(centred, np.sqrt(w) * (y - np.average(y, weights=w)), rcond=1e-9)[0]
    found = LeastSquares().fit(P, y, w)
    np.testing.assert_allclose(found.weights_, expected, rtol=1e-4, atol=1e-5)
    assert np.average(found.predict(P) - y, weights=w) == pytest.approx(0, abs=1e-9)


@settings(max_examples=20)
@given(seeds, st.integers(1, 8))
def test_non_negative(seed, n_models):
    P, y = pool(seed, n_models=n_models)
    w = np.random.default_rng(seed).random(len(y))
    root = np.sqrt(w)
    # The intercept as the difference of two columns.
    table = np.column_stack([P, np.ones(len(y)), -np.ones(len(y))]) * root[:, None]
    expected, _ = nnls(table, root * y)
    found = NonNegativeCombiner().fit(P, y, w)
    np.testing.assert_allclose(found.weights_, expected[:-2], atol=1e-8)
    assert found.intercept_ == pytest.approx(expected[-2] - expected[-1], abs=1e-8)


@settings(max_examples=20)
@given(seeds, st.integers(2, 6))
def test_simplex(seed, n_models):
    P, y = pool(seed, n_models=n_models)
    w = np.random.default_rng(seed).random(len(y))
    errors = np.sqrt(w)[:, None] * (P - y[:, None])
    gram = errors.T @ errors / w.sum()
    expected = minimize(
        lambda v: v @ gram @ v,
        np.full(n_models, 1 / n_models),
        jac=lambda v: 2 * gram @ v,
        bounds=[(0, 1)] * n_models,
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    found = SimplexCombiner().fit(P, y, w)
    assert (found.weights_ >= 0).all()
    assert found.weights_.sum() == pytest.approx(1)
    assert found.weights_ @ gram @ found.weights_ <= expected.fun * (1 + 1e-12)
    np.testing.assert_allclose(found.weights_, expected.x, atol=1e-4)


both = pytest.mark.parametrize("sum_to_one", [True, False])


class TestShrunkRidge:
    """Closed forms against refits."""

    @both
    def test_leave_one_out_is_that_of_scikit_learn(self, sum_to_one):
        P, y = pool(1)
        alphas = np.logspace(-6, 3, 10)
        X, mean = naive.ridge_columns(P, P, np.ones(len(y)), 0.5, sum_to_one)
        scale = naive.scale_of(P, None)
        theirs = RidgeCV(alphas * scale * len(y), fit_intercept=False, store_cv_results=True)
        theirs.fit(X, y - mean)
        ours = ShrunkRidge(alphas, cv="loo", sum_to_one=sum_to_one).fit(P, y)
        np.testing.assert_allclose(ours.path_.losses, theirs.cv_results_.mean(axis=0), rtol=1e-6)
        assert ours.alpha_ * scale * len(y) == pytest.approx(theirs.alpha_)
        np.testing.assert_allclose(ours.predict(P), theirs.predict(X) + mean, rtol=1e-6)

    @settings(max_examples=15)
    @given(seeds, st.integers(2, 5), st.integers(3, 15), st.booleans())
    def test_leave_one_out_is_refitting_without_a_row_and_its_copies(
        self, seed, n_models, n, sum_to_one
    ):
        P, y = pool(seed, n, n_models)
        rng = np.random.default_rng(seed)
        w = rng.random(n) + 0.1
        rows = np.append(np.arange(n), rng.integers(0, n, 4))
        alphas = np.array([1e-3, 0.1, 10.0])
        parts = [np.flatnonzero(rows == k) for k in range(n)]
        given = (P[rows], y[rows], w[rows])
        shape = {"power": 0.5, "sum_to_one": sum_to_one}
        expected = naive.left_out_losses(*given, alphas, parts, **shape)
        found = ShrunkRidge(alphas, cv="auto", sum_to_one=sum_to_one).fit(*given)
        np.testing.assert_allclose(found.path_.losses, expected, rtol=1e-6)
        assert found.alpha_ == alphas[expected.argmin()]

    @both
    @pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("given", ["fold", "groups", "row_id", "cv"])
    def test_folds_are_refitting_without_them(self, given, power, sum_to_one):
        P, y = pool(2)
        w = np.random.default_rng(2).random(80)
        alphas = np.array([1e-4, 1e-2, 1.0])
        fold = np.arange(80) % 5
        parts = [np.flatnonzero(fold == k) for k in range(5)]
        shape = {"power": power, "sum_to_one": sum_to_one}
        model, options = ShrunkRidge(alphas, cv="auto", **shape), {given: fold}
        if given == "cv":
            splitter = [(np.flatnonzero(fold != k), part) for k, part in enumerate(parts)]
            model, options = ShrunkRidge(alphas, cv=splitter, **shape), {}
        expected = naive.left_out_losses(P, y, w, alphas, parts, **shape)
        found = model.fit(P, y, w, **options)
        np.testing.assert_allclose(found.path_.losses, expected, rtol=1e-8)
        predict = naive.shrunk_ridge(P, y, w, found.alpha_, P, w, **shape)
        np.testing.assert_allclose(found.predict(P), predict(P), atol=1e-8)

    @settings(max_examples=15)
    @given(seeds, st.integers(2, 6), st.integers(3, 20), st.sampled_from([0.0, 0.5, 1.0]))
    def test_evidence_is_the_likelihood_of_the_targets(self, seed, n_models, n, power):
        """Of penalties, and of weights that add up to one or need not."""
        P, y = pool(seed, n, n_models)
        alphas = np.array([1e-4, 1e-2, 1.0, 100.0])
        both = [{"power": power, "sum_to_one": one} for one in (True, False)]
        expected = np.array([naive.surprises(P, y, alphas, **shape) for shape in both])
        found = [ShrunkRidge(alphas, **shape).fit(P, y).path_.losses for shape in both]
        np.testing.assert_allclose(found - found[0][0], expected - expected[0, 0], atol=1e-7)
        chosen = ShrunkRidge(alphas, power=power).fit(P, y)
        kind = 0 if chosen.sum_to_one_ else 1
        assert expected[kind][alphas == chosen.alpha_] == pytest.approx(expected.min(), abs=1e-7)

    def test_evidence_of_rows_that_recur_is_that_of_one_of_each(self):
        P, y = pool(5)
        once = ShrunkRidge().fit(P, y)
        many = np.repeat(np.arange(80), 7)
        for found in (
            ShrunkRidge().fit(P[many], y[many]),
            ShrunkRidge().fit(P[many], y[many], row_id=many),
            ShrunkRidge().fit(P, y, np.full(80, 7.0)),
        ):
            assert found.alpha_ == once.alpha_
            np.testing.assert_allclose(found.path_.losses, once.path_.losses, atol=1e-10)

    def test_infinity_is_the_mean_and_zero_nearly_is_least_squares(self):
        P, y = pool(3)
        mean = ShrunkRidge([np.inf]).fit(P, y)
        np.testing.assert_array_equal(mean.weights_, np.full(5, 0.2))
        assert mean.intercept_ == 0
        np.testing.assert_allclose(ShrunkRidge([1e9]).fit(P, y).weights_, 0.2, atol=1e-6)
        assert ShrunkRidge([1e-12], sum_to_one=True).fit(P, y).weights_.sum() == pytest.approx(1)
        free, expected = ShrunkRidge([1e-12]).fit(P, y), LeastSquares().fit(P, y)
        np.testing.assert_allclose(free.weights_, expected.weights_, atol=1e-6)
        assert free.intercept_ == pytest.approx(expected.intercept_, abs=1e-6)

    def test_predictions_that_are_all_too_large_are_scaled_down(self):
        """The weights need not add up to one: here two thirds are best."""
        rng = np.random.default_rng(1)
        y = rng.normal(size=2000)
        P = 1.5 * y[:, None] + 0.1 * rng.normal(size=(2000, 4))
        assert ShrunkRidge().fit(P, y).weights_.sum() == pytest.approx(1 / 1.5, abs=0.01)

    def test_useless_differences_are_shrunk_away(self):
        """Copies of one model, each with noise of its own: nothing beats their mean."""
        rng = np.random.default_rng(0)
        y = rng.normal(size=60)
        P = (y + rng.normal(size=60))[:, None] + 0.3 * rng.normal(size=(60, 40))
        found = ShrunkRidge().fit(P, y)
        assert np.ptp(found.weights_) < 0.1 * np.ptp(LeastSquares().fit(P, y).weights_)

    def test_nothing_to_choose_on_is_the_mean(self):
        P, y = pool(4)
        for model in (
            ShrunkRidge().fit(P[:1], y[:1]),
            ShrunkRidge().fit(P, y, groups=np.zeros(80)),
            ShrunkRidge(cv="fold").fit(P, y, groups=np.zeros(80)),
            ShrunkRidge(cv="fold").solve(Gram.of(P, y)),
        ):
            assert model.alpha_ == np.inf
            np.testing.assert_array_equal(model.weights_, np.full(5, 0.2))

    def test_single_rows_are_not_left_out_of_groups(self):
        P, y = pool(4)
        with pytest.raises(InvalidInputError, match="leaves out single rows"):
            ShrunkRidge(cv="loo").fit(P, y, groups=np.arange(80) // 2)

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"cv": "all"}, "Expected cv"),
            ({"power": -1}, "Expected power"),
            ({"sum_to_one": "yes"}, "Expected sum_to_one"),
            ({"alphas": []}, "positive"),
            ({"alphas": [0.0, 1.0]}, "positive"),
            ({"alphas": [np.nan]}, "positive"),
            ({"alphas": "auto"}, "positive numbers or None; got 'auto'"),
        ],
    )
    def test_unusable_settings(self, options, text):
        with pytest.raises(InvalidInputError, match=text):
            ShrunkRidge(**options).fit(*pool(0))


class TestGreedy:
    """Against the loop as it is described."""

    @settings(max_examples=15)
    @given(seeds, st.integers(1, 6))
    def test_squared_loss(self, seed, n_models):
        P, y = pool(seed, 40, n_models)
        weights, trajectory = naive.caruana(P, y, 25)
        found = GreedySelection(25).fit(P, y)
        assert np.sqrt(risk(found, P, y)) == pytest.approx(min(trajectory), abs=1e-6)
        assert np.sqrt(found.losses_[0].min()) == pytest.approx(np.sqrt(risk(found, P, y)))
        assert np.count_nonzero(found.weights_) <= np.count_nonzero(weights) + 1

    @pytest.mark.parametrize("weighted", [False, True])
    def test_any_metric(self, weighted):
        P, y = pool(5)
        w = np.random.default_rng(0).random(80) if weighted else None
        by_rows = GreedySelection(30, metric=mean_squared_error).fit(P, y, w)
        by_moments = GreedySelection(30).fit(P, y, w)
        np.testing.assert_allclose(by_rows.weights_, by_moments.weights_)
        np.testing.assert_allclose(by_rows.losses_[0], by_moments.losses_[0])
        absolute = GreedySelection(30, metric=mean_absolute_error).fit(P, y, w)
        loss = mean_absolute_error(y, absolute.predict(P), sample_weight=w)
        assert loss == pytest.approx(absolute.losses_[0].min())
        assert loss <= mean_absolute_error(y, by_moments.predict(P), sample_weight=w)

    def test_of_equal_models_one_is_taken(self):
        P, y = pool(6, n_models=2)
        found = GreedySelection().fit(np.column_stack([P, P, P]), y)
        assert np.count_nonzero(found.weights_) <= 2

    def test_bags_are_drawn_without_replacement(self):
        """As NumPy draws them; of no bags there is one, with all models."""
        drawn = draw_bags(11, 4, 0.4, np.random.RandomState(3))
        chance = np.random.RandomState(3)
        expected = [np.sort(chance.choice(11, 4, replace=False)) for _ in range(4)]
        np.testing.assert_array_equal(drawn, expected)
        assert [len(bag) for bag in draw_bags(11, 2, 0.01, chance)] == [1, 1]
        np.testing.assert_array_equal(draw_bags(3, 0, 0.5, chance), [[0, 1, 2]])

    def test_bags_hold_their_share_of_the_models(self):
        P, y = pool(7, n_models=10)
        found = GreedySelection(n_bags=6, bag_fraction=0.3, random_state=1).fit(P, y)
        assert len(found.orders_) == 6
        assert max(len(set(order.tolist())) for order in found.orders_) <= 3
        assert found.weights_.sum() == pytest.approx(1)

    def test_moments_cannot_tell_another_metric(self):
        P, y = pool(0)
        with pytest.raises(InvalidInputError, match="call fit with the rows"):
            GreedySelection(metric=mean_absolute_error).solve(Gram.of(P, y))

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"metric": "rmse"}, "'squared' or a callable"),
            ({"n_steps": 0}, "n_steps >= 1"),
            ({"bag_fraction": 0.0}, "bag_fraction"),
            ({"metric": lambda y, p: np.nan}, "finite loss"),
        ],
    )
    def test_unusable_settings(self, options, text):
        with pytest.raises(InvalidInputError, match=text):
            GreedySelection(**options).fit(*pool(0))


class TestElasticNet:
    """The exact path."""

    @pytest.mark.parametrize("l1_ratio", [0.1, 0.7, 1.0])
    @pytest.mark.parametrize("seed", range(4))
    def test_is_that_of_scikit_learn(self, l1_ratio, seed):
        P, y = pool(seed, n_models=9)
        centred, target = P - P.mean(axis=0), y - y.mean()
        alphas = np.geomspace(1, 1e-4, 8)
        _, expected, _ = enet_path(
            centred, target, l1_ratio=l1_ratio, alphas=alphas, tol=1e-13, max_iter=100_000
        )
        for number, alpha in enumerate(alphas):
            found = ElasticNetCombiner(l1_ratio, alphas=[alpha]).fit(P, y)
            np.testing.assert_allclose(found.weights_, expected[:, number], atol=1e-8)
            assert np.mean(found.predict(P) - y) == pytest.approx(0, abs=1e-9)

    @settings(max_examples=20)
    @given(seeds, st.integers(1, 30), st.sampled_from([1e-1, 1e-3, 1e-5]), st.booleans())
    def test_no_gradient_is_steeper_than_the_penalty(self, seed, n_models, spread, copied):
        """On pools that correlate to 0.99999999 and hold copies, too."""
        rng = np.random.default_rng(seed)
        y = rng.normal(size=60)
        P = (y + 0.5 * rng.normal(size=60))[:, None] + spread * rng.normal(size=(60, n_models))
        P = np.column_stack([P, P[:, 0]]) if copied else P
        found = ElasticNetCombiner(1.0, cv=5, random_state=0).fit(P, y)
        residual = y - found.predict(P)
        gradient = (P - P.mean(axis=0)).T @ residual / 60
        steepest = found.alphas_.max()
        assert np.abs(gradient).max() <= found.alpha_ + 1e-9 * steepest
        on = found.weights_ != 0
        np.testing.assert_allclose(
            gradient[on], found.alpha_ * np.sign(found.weights_[on]), atol=1e-9 * steepest
        )

    def test_penalty_is_chosen_on_the_folds(self):
        P, y = pool(8)
        fold, alphas = np.arange(80) % 4, np.geomspace(1, 1e-4, 6)
        found = ElasticNetCombiner((0.5, 1.0), alphas=alphas).fit(P, y, fold=fold)
        for row, ratio in enumerate((0.5, 1.0)):
            for column, alpha in enumerate(alphas):
                loss = 0.0
                for k in range(4):
                    one = ElasticNetCombiner(ratio, alphas=[alpha]).fit(P[fold != k], y[fold != k])
                    loss += risk(one, P[fold == k], y[fold == k]) / 4
                assert found.losses_[row, column] == pytest.approx(loss)
        best = np.unravel_index(found.losses_.argmin(), found.losses_.shape)
        assert found.alpha_ == found.alphas_[best]
        assert found.l1_ratio_ == (0.5, 1.0)[best[0]]

    @pytest.mark.parametrize("options", [{"l1_ratio": 0.0}, {"alphas": [-1.0]}, {"alphas": []}])
    def test_unusable_settings(self, options):
        with pytest.raises(InvalidInputError, match="l1_ratio in|positive"):
            ElasticNetCombiner(**options).fit(*pool(0))


# --- all of them ----------------------------------------------------------------------------------


@every
@settings(max_examples=8)
@given(seed=seeds)
def test_a_weight_of_two_is_a_row_twice(combiner, seed):
    P, y = pool(seed, 40)
    w = np.random.default_rng(seed).integers(0, 4, 40)
    w[:5] = 1
    one = clone(combiner).fit(P, y, w)
    other = clone(combiner).fit(np.repeat(P, w, axis=0), np.repeat(y, w))
    np.testing.assert_allclose(one.weights_, other.weights_, atol=1e-6)
    assert one.intercept_ == pytest.approx(other.intercept_, abs=1e-6)


@every
def test_only_the_ratios_of_weights_matter(combiner):
    P, y = pool(12)
    w = np.random.default_rng(0).random(80)
    one, other = clone(combiner).fit(P, y, w), clone(combiner).fit(P, y, 1e-3 * w)
    np.testing.assert_allclose(one.weights_, other.weights_, atol=1e-7)


def test_groups_and_folds_are_routed():
    P, y = pool(13)
    fold = np.arange(80) % 4
    with sklearn.config_context(enable_metadata_routing=True):
        combiner = ShrunkRidge().set_fit_request(fold=True, groups=True)
        searched = GridSearchCV(combiner, {"alphas": [[1e-3, 1.0], [1.0, 10.0]]}, cv=3)
        searched.fit(P, y, fold=fold, groups=np.arange(80) // 2)
    assert searched.best_estimator_.path_.losses.shape == (2,)
    asked = set(ShrunkRidge().get_metadata_routing().fit.requests)
    assert asked == {"sample_weight", "fold", "groups", "row_id"}
    assert not hasattr(ShrunkRidge(), "set_predict_request")


@unchanged
@settings(max_examples=8)
@given(seed=seeds)
def test_the_order_of_models_does_not_matter(combiner, seed):
    P, y = pool(seed)
    order = np.random.default_rng(seed).permutation(5)
    one, other = clone(combiner).fit(P, y), clone(combiner).fit(P[:, order], y)
    np.testing.assert_allclose(one.weights_[order], other.weights_, atol=1e-6)


@unchanged
@settings(max_examples=8)
@given(seed=seeds, factor=st.sampled_from([1e-3, -2.0, 1e3]), offset=st.sampled_from([0.0, 50.0]))
def test_the_unit_of_the_target_does_not_matter(combiner, seed, factor, offset):
    P, y = pool(seed)
    one, other = (
        clone(combiner).fit(P, y),
        clone(combiner).fit(factor * P + offset, factor * y + offset),
    )
    np.testing.assert_allclose(one.weights_, other.weights_, atol=1e-5)
    np.testing.assert_allclose(
        factor * one.predict(P) + offset,
        other.predict(factor * P + offset),
        atol=1e-4 * abs(factor),
    )


@every
def test_missing_predictions_are_the_mean_of_the_others(combiner):
    P, y = pool(9)
    rng = np.random.default_rng(0)
    P[rng.random(P.shape) < 0.3] = np.nan
    P[:, 0] = np.where(np.isnan(P).all(axis=1), 0.0, P[:, 0])
    filled = naive.filled(P)
    one, other = clone(combiner).fit(P, y), clone(combiner).fit(filled, y)
    np.testing.assert_allclose(one.weights_, other.weights_, atol=1e-8)
    np.testing.assert_allclose(one.predict(P), other.predict(filled), atol=1e-8)


@every
def test_rows_without_any_prediction_teach_nothing_and_cannot_be_predicted(combiner):
    P, y = pool(9)
    bare = np.vstack([P, np.full((2, 5), np.nan)])
    one, other = clone(combiner).fit(bare, np.append(y, [9.0, 9.0])), clone(combiner).fit(P, y)
    np.testing.assert_allclose(one.weights_, other.weights_)
    with pytest.raises(InvalidInputError, match=r"2 rows have none, the first \[80, 81\]"):
        one.predict(bare)


@every
@pytest.mark.parametrize(
    "kind", ["alike", "copies", "constant", "wide", "one model", "one row", "perfect", "zeros"]
)
def test_degenerate_pools(combiner, kind):
    """Weights are finite, and the fit is no worse than it can be."""
    rng = np.random.default_rng(0)
    n, n_models = {"wide": (10, 40), "one model": (50, 1), "one row": (1, 5)}.get(kind, (300, 12))
    y = rng.normal(size=n) + 3
    shared = y + 0.5 * rng.normal(size=n)
    P = shared[:, None] + 0.01 * rng.normal(size=(n, n_models)) * (kind != "copies")
    if kind == "alike":
        P[:, 5:] = P[:, :7] + 1e-6 * rng.normal(size=(n, 7))
        assert np.linalg.cond(np.corrcoef(P.T)) > 1e11
    if kind == "constant":
        P[:, [2, 3]] = 1.0, 2.0
    if kind == "perfect":
        P[:, [4, 5]] = y[:, None]
    if kind == "zeros":
        P[:], y[:] = 0.0, 0.0
    found = clone(combiner).fit(P, y)
    assert np.isfinite(found.weights_).all()
    assert np.isfinite(found.predict(P)).all()
    assert np.abs(found.weights_).max() < 1e5
    if not getattr(combiner, "n_bags", 0) and kind not in {"wide", "one row"}:
        worst = np.mean((P - y[:, None]) ** 2, axis=0).max()
        assert risk(found, P, y) <= worst + 1e-12
    if kind == "alike" and isinstance(combiner, LeastSquares):
        table = np.column_stack([P, np.ones(n)])
        best = np.linalg.lstsq(table, y, rcond=None)[0]
        assert risk(found, P, y) <= np.mean((table @ best - y) ** 2) * (1 + 1e-6)


@every
def test_moments_say_all(combiner):
    """Solved from folds' moments as from rows; only leaving out single rows needs these."""
    P, y = pool(10)
    fold = np.arange(80) % 4
    folds = Gram.by_fold(P, y, None, fold)
    combiner = clone(combiner).set_params(
        **({"cv": None} if isinstance(combiner, ElasticNetCombiner) else {})
    )
    if isinstance(combiner, ShrunkRidge) and combiner.cv != "evidence":
        combiner.set_params(cv="auto")
    by_rows = clone(combiner).fit(P, y, fold=fold)
    by_moments = clone(combiner).solve(Gram.sum(folds), held_out(folds))
    np.testing.assert_allclose(by_rows.weights_, by_moments.weights_, atol=1e-10)
    np.testing.assert_allclose(by_rows.predict(P), by_moments.predict(P), atol=1e-10)


def test_leaving_out_rows_needs_rows():
    P, y = pool(0)
    with pytest.raises(InvalidInputError, match="call fit with the rows"):
        ShrunkRidge(cv="loo").solve(Gram.of(P, y))


def test_splitters_are_for_all_that_choose_on_folds():
    P, y = pool(11)
    for combiner in (ShrunkRidge(cv=KFold(3)), ElasticNetCombiner(cv=KFold(3))):
        fold = np.empty(80, dtype=int)
        for number, (_, test) in enumerate(KFold(3).split(P)):
            fold[test] = number
        other = clone(combiner).set_params(
            cv=None if isinstance(combiner, ElasticNetCombiner) else "fold"
        )
        np.testing.assert_allclose(combiner.fit(P, y).weights_, other.fit(P, y, fold=fold).weights_)


class TestNames:
    """Models are known by name, in whatever form they come."""

    def test_mappings_and_frames(self):
        P, y = pool(0, n_models=2)
        mapping = {"a": P[:, 0], "b": P[:, 1]}
        by_mapping = MeanCombiner().fit(mapping, y)
        by_frame = MeanCombiner().fit(pd.DataFrame(mapping), y)
        assert by_mapping.feature_names_in_.tolist() == by_frame.feature_names_in_.tolist()
        np.testing.assert_array_equal(by_mapping.predict(mapping), by_frame.predict(mapping))
        with pytest.raises(InvalidInputError, match=r"predictions of \['a', 'b'\], as in fit"):
            by_frame.predict({"b": P[:, 1], "c": P[:, 0]})
        unnamed = MeanCombiner().fit(P, y)
        with pytest.raises(InvalidInputError, match="predictions of 2 models, as in fit"):
            unnamed.predict({"a": y})

    def test_named_models_may_come_in_any_order(self):
        P, y = pool(0, n_models=2)
        mapping = {"a": P[:, 0], "b": P[:, 1]}
        combiner = LeastSquares().fit(mapping, y)
        assert abs(np.subtract(*combiner.weights_)) > 1e-3
        swapped = {"b": P[:, 1], "a": P[:, 0]}
        np.testing.assert_array_equal(combiner.predict(swapped), combiner.predict(mapping))
        with pytest.raises(InvalidInputError, match=r"got shape \(3, 2, 2\)"):
            combiner.predict(dict.fromkeys("ab", np.ones((3, 2)) / 2))

    def test_classes_are_for_pools(self):
        with pytest.raises(InvalidInputError, match="n_models"):
            MeanCombiner().fit({"a": np.ones((3, 2)) / 2, "b": np.ones((3, 2)) / 2}, np.ones(3))
