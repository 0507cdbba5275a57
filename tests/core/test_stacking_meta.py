"""Meta-regressors and meta-classifiers: honest scores, algebra, and what users hold."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import TimeSeriesSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from scikd.exceptions import InvalidInputError, StackingWarning
from scikd.stacking import (
    GreedySelection,
    HeldOutCheck,
    LeastSquares,
    LogPool,
    MetaClassifier,
    MetaRegressor,
    PublishedStack,
    RedundancyFilter,
    ShrunkRidge,
)

QUICK = {"n_resamples": 50, "detector": False}
NAMES = ("north", "east", "south", "west", "centre")


def pool(n=300, seed=0, errors=(1.0, 1.2, 1.5, 2.0, 3.0)):
    """Return predictions of models that err together in part, and the truth."""
    random = np.random.default_rng(seed)
    y = random.normal(size=n)
    shared = random.normal(size=(n, 1))
    P = y[:, None] + 0.5 * shared + random.normal(size=(n, len(errors))) * errors
    return P, y


def class_pool(n=300, n_classes=3, seed=0, errors=(1.0, 1.5, 2.0, 3.0)):
    """Return class probabilities of models of different worth, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(n_classes, size=n)
    scores = 2.0 * np.eye(n_classes)[labels][:, None] + (
        random.normal(size=(n, len(errors), n_classes)) * np.array(errors)[:, None]
    )
    proba = np.exp(scores)
    return proba / proba.sum(axis=2, keepdims=True), labels


def rmse(model, P, y):
    """Return the error of a fitted model."""
    return float(np.sqrt(np.mean((model.predict(P) - y) ** 2)))


class TestHonesty:
    """The score wraps every stage; test_stacking_leakage.py tells what that is worth on noise."""

    @staticmethod
    def noise(seed, n, n_models):
        """Return noise, and what models that learnt other noise by heart say of it."""
        random = np.random.default_rng(seed)
        X, y = random.normal(size=(2 * n, 3)), random.normal(size=2 * n)
        P = np.empty((n, n_models))
        for j in range(n_models):
            X_j = X @ random.normal(size=(3, 3))
            model = KNeighborsRegressor(1).fit(X_j[:n], y[:n])
            P[:, j] = model.predict(X_j[n:])
        return P, y[n:]

    def test_the_detector_falls_back_and_says_so(self):
        """On noise, least squares on half as many models as rows."""
        fired = 0
        for seed in range(3):
            P, y = self.noise(seed, n=180, n_models=90)
            model = MetaRegressor("least_squares", redundancy=None, cv=4, n_resamples=10)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(P, y)
            assert model.overfit_.found == any(one.category is StackingWarning for one in caught)
            if model.overfit_.found:
                fired += 1
                np.testing.assert_allclose(model.weights_, 1 / P.shape[1])
                seen = model.overfit_
                assert seen.fold_loss > seen.fold_plain_loss + seen.fold_error
                assert np.sqrt(seen.fold_plain_loss) == pytest.approx(model.score_.value)
                assert model.score_.value == model.comparison_.losses["mean"]
                assert str(model.overfit_).endswith("worse by more than one standard error")
        assert fired == 3

    def test_equal_models_are_left_to_the_mean(self):
        """Few rows, and no model better than another: a blend has nothing to learn but noise."""
        lost = {True: [], False: []}
        for seed in range(12):
            P, y = pool(60, seed=seed, errors=(1.0,) * 5)
            P_new, y_new = pool(2000, seed=1000 + seed, errors=(1.0,) * 5)
            plain = np.mean((P_new.mean(axis=1) - y_new) ** 2)
            for detector, values in lost.items():
                model = MetaRegressor("blend", detector=detector, evaluate=None)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", StackingWarning)
                    model.fit(P + 9 * y[:, None], 10 * y)
                error = model.predict(P_new + 9 * y_new[:, None]) - 10 * y_new
                values.append(np.mean(error**2) / plain - 1)
        assert np.mean(lost[True]) < 0.8 * np.mean(lost[False])
        assert np.mean(np.isclose(lost[True], 0)) >= 0.7

    @pytest.mark.parametrize(
        ("on_folds", "on_ninth", "found"),
        [
            (0.05, 0.0, False),  # worse, but within the noise
            (0.15, -1.0, True),
            (0.0, 0.3, True),
            (0.0, 0.1, False),
            (-0.15, 0.3, False),  # the folds, eight times as many rows, know better
        ],
    )
    def test_the_detector_needs_evidence(self, on_folds, on_ninth, found):
        """Being worse counts from one standard error on; and a blend must gain as much."""
        for name in ("ridge", "blend"):
            check = HeldOutCheck(name, 1 + on_folds, 1.0, 0.1, 1 + on_ninth, 1.0, 0.2, 50)
            assert check.found == found
            assert check.declined == (found or (name == "blend" and on_folds > -0.1))
            assert bool(check.reason) == check.declined

    def test_the_detector_keeps_a_combiner_that_helps(self):
        """A pool with poor models, where the mean is no match."""
        P, y = pool()
        model = MetaRegressor(n_resamples=20).fit(P, y)
        assert not model.overfit_.found
        assert model.overfit_.combiner == "ridge"
        assert str(model.overfit_).endswith(": better by more than one standard error")
        assert MetaRegressor("mean", n_resamples=20).fit(P, y).overfit_ is None

    def test_the_outer_loss_is_that_of_refitting_without_each_fold(self):
        """Filter, combiner and its penalty know nothing of the fold."""
        P, y = pool()
        P = np.c_[P, P[:, 0] + 1e-4]
        fold = np.arange(len(y)) % 5
        for name in ("ridge", "blend", "auto", "greedy"):
            model = MetaRegressor(name, limits=(-3, 3), **QUICK).fit(P, y, fold=fold)
            errors = np.empty(len(y))
            for k in range(5):
                rest = fold != k
                part = clone(model).set_params(evaluate=None)
                part.fit(P[rest], y[rest], fold=fold[rest])
                errors[~rest] = part.predict(P[~rest]) - y[~rest]
            assert model.comparison_.losses[name] == pytest.approx(np.sqrt(np.mean(errors**2)))

    def test_the_classes_outer_loss_is_that_of_refitting_without_each_fold(self):
        """As for numbers."""
        P, y = class_pool(n=120)
        fold = np.arange(len(y)) % 4
        model = MetaClassifier(**QUICK).fit(P, y, fold=fold)
        given = np.empty(len(y))
        for k in range(4):
            rest = fold != k
            part = MetaClassifier(evaluate=None, **QUICK).fit(P[rest], y[rest], fold=fold[rest])
            given[~rest] = part.predict_proba(P[~rest])[np.arange(np.sum(~rest)), y[~rest]]
        assert model.score_.value == pytest.approx(-np.mean(np.log(given)), rel=1e-6)

    def test_folds_that_are_no_partition(self):
        """Time: what is learnt from never lies behind what is tested."""
        P, y = pool()
        P[:60] = np.nan
        options = {"limits": None, **QUICK}
        model = MetaRegressor(cv=TimeSeriesSplit(4), **options).fit(P[60:], y[60:])
        again = MetaRegressor(cv=list(TimeSeriesSplit(4).split(y[60:])), **options)
        again.fit(P[60:], y[60:])
        assert model.comparison_.losses["mean"] == pytest.approx(again.comparison_.losses["mean"])
        first = np.concatenate([test for _, test in TimeSeriesSplit(4).split(y[60:])]) + 60
        mean = np.sqrt(np.mean((P[first].mean(axis=1) - y[first]) ** 2))
        assert model.comparison_.losses["mean"] == pytest.approx(mean)

    def test_one_group_has_no_score(self):
        """Nothing can be held out, so that the plain mean is all there is."""
        P, y = pool()
        model = MetaRegressor().fit(P, y, groups=np.zeros(len(y)))
        assert model.comparison_ is model.score_ is model.overfit_ is None
        np.testing.assert_allclose(model.weights_, 0.2)


class TestComparison:
    """Losses of all combiners on held-out rows, and the choice among them."""

    def test_losses_and_differences(self):
        """Values fit together, intervals hold them, a frame and a table tell them."""
        P, y = pool()
        comparison = MetaRegressor(limits=None, n_resamples=200).fit(P, y).comparison_
        assert comparison.losses["mean"] == pytest.approx(rmse_of_mean(P, y))
        for name, loss in comparison.losses.items():
            interval = comparison.loss(name)
            assert interval.low < interval.value == loss < interval.high
            gap = comparison.difference(name, "mean")
            assert gap.value == pytest.approx(loss - comparison.losses["mean"])
            assert gap.low <= gap.value <= gap.high
        frame = comparison.to_frame()
        assert list(frame.index) == list(comparison.names)
        assert frame.loc["ridge", "vs_default"] == 0.0
        assert "* asked for" in str(comparison)
        assert all(name in str(comparison) for name in comparison.names)

    def test_intervals_cover(self):
        """The interval of a loss holds what it is on many new rows, about as often as it says."""
        P_new, y_new = pool(20_000, seed=999)
        truth = rmse_of_mean(P_new, y_new)
        held = 0
        for seed in range(60):
            P, y = pool(100, seed=seed)
            model = MetaRegressor("mean", limits=None, n_resamples=200, cv=4).fit(P, y)
            interval = model.comparison_.loss("mean")
            held += interval.low <= truth <= interval.high
        assert 50 <= held <= 60

    def test_auto_takes_the_simplest_within_one_standard_error(self):
        """With equal models that is the mean; with one good model, no average of all."""
        P, y = pool(errors=(1.0,) * 5)
        model = MetaRegressor("auto", **QUICK).fit(P + 9 * y[:, None], 10 * y)
        assert list(model.shares_) == ["mean"] == [model.comparison_.simplest]
        P, y = pool(errors=(0.1, 3.0, 3.0, 3.0))
        model = MetaRegressor("auto", **QUICK).fit(P, y)
        assert model.comparison_.simplest not in {"mean", "inverse_error", "blend"}
        assert model.comparison_.losses["auto"] < 0.5 * model.comparison_.losses["mean"]
        best, simplest = model.comparison_.best, model.comparison_.simplest
        gap = model.comparison_.losses[simplest] ** 2 - model.comparison_.losses[best] ** 2
        assert gap <= model.comparison_.standard_error(simplest, best) or best == simplest

    def test_rows_that_recur_do_not_sharpen_intervals(self):
        """Ten copies of each row, and ten noisy repeats of it, are still one row each."""
        P, y = pool(150)
        options = {"n_resamples": 400, "detector": False}
        once = MetaRegressor("mean", **options).fit(P, y).comparison_.loss("mean")
        row = np.repeat(np.arange(150), 10)
        copied = MetaRegressor("mean", **options).fit(P[row], y[row]).comparison_.loss("mean")
        noise = 1e-3 * np.random.default_rng(0).normal(size=(1500, 5))
        model = MetaRegressor("mean", **options).fit(P[row] + noise, y[row], row_id=row)
        repeated = model.comparison_.loss("mean")
        unknown = MetaRegressor("mean", **options).fit(P[row] + noise, y[row])
        for interval in (copied, repeated):
            assert interval.value == pytest.approx(once.value, rel=1e-3)
            assert interval.high - interval.low == pytest.approx(once.high - once.low, rel=0.2)
        narrow = unknown.comparison_.loss("mean")
        assert narrow.high - narrow.low < 0.5 * (once.high - once.low)

    def test_many_groups_are_dealt_to_bins(self):
        """Whose interval is that of the rows."""
        P, y = pool(12_000)
        model = MetaRegressor("mean", n_resamples=400).fit(P, y)
        assert len(model.comparison_.weight) == 2000
        assert "over 2,000 bins of 12,000 groups of rows." in str(model.comparison_)
        squared = (P.mean(axis=1) - y) ** 2
        error = squared.std() / np.sqrt(len(y)) / (2 * np.sqrt(squared.mean()))
        interval = model.comparison_.loss("mean")
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.15)

    def test_groups_are_counted_where_bins_are_not(self):
        """Of the rows that were held out, those of weight zero apart."""
        P, y = pool(120)
        weight = np.r_[np.ones(100), np.zeros(20)]
        later = [(np.arange(a), np.arange(a, a + 24)) for a in (24, 48, 72, 96)]
        model = MetaRegressor("mean", cv=later, n_resamples=10)
        model.fit(P, y, weight, groups=np.arange(120) // 4)
        assert model.comparison_.n_groups == (100 - 24) / 4
        assert "over 19 groups of rows." in str(model.comparison_)
        P, y = pool(30_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StackingWarning)
            held = MetaRegressor("ridge", n_resamples=1).fit(P, y).overfit_
        assert held.n_groups == pytest.approx(30_000 / 9, abs=1)


def rmse_of_mean(P, y):
    """Return the error of the plain mean."""
    return float(np.sqrt(np.mean((P.mean(axis=1) - y) ** 2)))


class TestAlgebra:
    """What must not change an answer."""

    @settings(max_examples=8, deadline=None)
    @given(order=st.permutations(range(5)), slope=st.floats(0.01, 100), shift=st.floats(-50, 50))
    def test_order_of_models_and_unit_of_the_target(self, order, slope, shift):
        """Weights follow their models; predictions follow the unit."""
        P, y = pool()
        model = MetaRegressor(**QUICK).fit(P, y)
        moved = MetaRegressor(**QUICK).fit(P[:, order] * slope + shift, y * slope + shift)
        np.testing.assert_allclose(moved.weights_, model.weights_[list(order)], atol=1e-5)
        expected = model.predict(P) * slope + shift
        answer = moved.predict(P[:, order] * slope + shift)
        np.testing.assert_allclose(answer, expected, atol=1e-4 * slope)
        assert moved.score_.value == pytest.approx(model.score_.value * slope, rel=1e-5)

    def test_a_weight_is_a_repetition(self):
        """Also for the score, and rows of weight 0 are none."""
        P, y = pool()
        weight = np.random.default_rng(1).integers(0, 4, size=len(y))
        folds = np.arange(len(y)) % 5
        often = np.repeat(np.arange(len(y)), weight)
        model = MetaRegressor(**QUICK).fit(P, y, weight, fold=folds)
        repeated = MetaRegressor(**QUICK).fit(P[often], y[often], fold=folds[often])
        np.testing.assert_allclose(repeated.weights_, model.weights_, atol=1e-7)
        assert repeated.score_.value == pytest.approx(model.score_.value)
        assert repeated.score_.high == pytest.approx(model.score_.high, rel=1e-6)

    def test_models_of_classes_in_another_order(self):
        """Weights follow their models."""
        P, y = class_pool(150)
        order = [2, 0, 3, 1]
        model = MetaClassifier(evaluate=None, **QUICK).fit(P, y)
        moved = MetaClassifier(evaluate=None, **QUICK).fit(P[:, order], y)
        np.testing.assert_allclose(moved.weights_, model.weights_[order], atol=1e-5)

    def test_a_second_fit_is_the_same(self):
        """Nothing depends on an unseeded draw."""
        P, y = pool()
        one, two = (MetaRegressor(**QUICK).fit(P, y) for _ in range(2))
        np.testing.assert_array_equal(one.weights_, two.weights_)
        assert one.score_ == two.score_


class TestModels:
    """Which models stay, are needed, and how they are told."""

    def test_blend_beats_what_it_is_made_of_in_mean_rank(self):
        """Over pools with different worth of the models; and uses held-out loss for it."""
        ranks = []
        for seed in range(12):
            errors = np.random.default_rng(seed).uniform(0.5, 4, size=12)
            P, y = pool(200, seed=seed, errors=errors)
            P_new, y_new = pool(4000, seed=1000 + seed, errors=errors)
            names = ("blend", "mean", "best_single", "least_squares", "greedy")
            models = [MetaRegressor(name, evaluate=None, **QUICK).fit(P, y) for name in names]
            losses = [rmse(model, P_new, y_new) for model in models]
            ranks.append(np.argsort(np.argsort(losses)))
        mean = np.mean(ranks, axis=0)
        assert mean[0] == mean.min()

    def test_shares_make_the_weights(self):
        """A blend is the average of its parts."""
        P, y = pool()
        model = MetaRegressor("blend", limits=None, **QUICK).fit(P, y)
        assert sum(model.shares_.values()) == pytest.approx(1)
        assert model.combiner_ is None
        total = np.zeros(5)
        for name, share in model.shares_.items():
            part = MetaRegressor(name, limits=None, evaluate=None, **QUICK).fit(P, y)
            total += share * part.weights_
        np.testing.assert_allclose(model.weights_, total, atol=1e-10)
        assert model.predict(P) == pytest.approx(P @ model.weights_ + model.intercept_)

    def test_single_rows_of_nonsense_decide_nothing(self):
        """A good model that explodes on one row keeps its weight; predictions are cut too."""
        P, y = pool()
        sane = MetaRegressor(**QUICK).fit(P, y)
        low, high = y.min() - np.ptp(y) / 2, y.max() + np.ptp(y) / 2
        assert sane.limits_ == pytest.approx((low, high))
        wild = P.copy()
        wild[7, 0] = 1e6
        cut = MetaRegressor(**QUICK).fit(wild, y)
        raw = MetaRegressor(limits=None, **QUICK).fit(wild, y)
        np.testing.assert_allclose(cut.weights_, sane.weights_, atol=0.1)
        assert abs(raw.weights_[0]) < 0.01
        assert cut.weights_[0] > 0.2
        np.testing.assert_array_equal(cut.predict(wild), cut.predict(np.clip(wild, low, high)))
        given = MetaRegressor(limits=np.array([low, high]), **QUICK).fit(wild, y)
        np.testing.assert_array_equal(given.weights_, cut.weights_)
        assert MetaRegressor(**QUICK).fit(P, np.ones(len(y))).limits_ is None

    def test_models_in_another_unit_are_named(self):
        """Nearly all that they predict is beyond what y can be."""
        P, y = pool()
        P[:, 3] *= 1000
        with pytest.warns(StackingWarning, match=r"of model3 \(\d+%\) are beyond .* unit of y"):
            model = MetaRegressor(**QUICK).fit(P, y)
        low, high = model.limits_
        np.testing.assert_allclose(
            model.cut_, (np.abs(P - (low + high) / 2) > (high - low) / 2).mean(axis=0)
        )

    @pytest.mark.parametrize("limits", [(1, 0), (0, np.nan), (0,), ["a", "b"]])
    def test_unusable_limits(self, limits):
        with pytest.raises(InvalidInputError, match="Expected limits"):
            MetaRegressor(limits=limits).fit(*pool())

    def test_redundant_models_have_no_weight(self):
        """A copy is dropped; diagnostics say what that brings."""
        P, y = pool()
        P = np.c_[P, P[:, 2] + 1e-6]
        model = MetaRegressor(**QUICK).fit(P, y)
        assert np.count_nonzero(model.redundancy_.kept_) == 5
        assert np.count_nonzero(model.weights_[[2, 5]]) == 1
        assert model.diagnostics_["after"].condition < 1e-3 * model.diagnostics_["before"].condition
        model = MetaRegressor(redundancy=None, **QUICK).fit(P, y)
        assert model.redundancy_ is None
        model = MetaRegressor(redundancy=RedundancyFilter(eps=0.9), **QUICK).fit(P, y)
        assert np.count_nonzero(model.redundancy_.kept_) < 5

    @pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, dict])
    def test_models_are_found_by_name(self, kind):
        """In any order, and only those that are required."""
        P, y = pool()
        P[:, 3:] = P[:, :2] + np.random.default_rng(1).normal(size=(len(y), 2))  # of no use
        table = dict(zip(NAMES, P.T, strict=True))
        model = MetaRegressor("simplex", **QUICK).fit(kind(table), y)
        assert model.names_ == NAMES
        assert set(model.required_models_) < set(NAMES)
        expected = MetaRegressor("simplex", **QUICK).fit(P, y).predict(P)
        backwards = kind(dict(reversed(table.items())))
        np.testing.assert_allclose(model.predict(backwards), expected)
        few = kind({name: table[name] for name in model.required_models_})
        np.testing.assert_allclose(model.predict(few), expected)
        lacking = kind({name: table[name] for name in model.required_models_[1:]})
        with pytest.raises(InvalidInputError, match=model.required_models_[0]):
            model.predict(lacking)
        with pytest.raises(InvalidInputError, match=r"unknown \['stranger'\]. Leave those out"):
            model.predict(kind(table | {"stranger": y}))

    def test_missing_predictions(self):
        """They are the mean of the others; a row needs one; names of rows are told."""
        P, y = pool(errors=(1.0, 1.0, 1.0))
        gaps = P.copy()
        gaps[::7, 1] = np.nan
        model = MetaRegressor(**QUICK).fit(gaps, y)
        filled = np.where(np.isnan(gaps), np.nanmean(gaps, axis=1, keepdims=True), gaps)
        np.testing.assert_allclose(model.predict(gaps), model.predict(filled))
        np.testing.assert_allclose(
            model.weights_, MetaRegressor(**QUICK).fit(filled, y).weights_, atol=1e-6
        )
        gaps[4] = np.nan
        MetaRegressor(**QUICK).fit(gaps, y)
        with pytest.raises(InvalidInputError, match=r"1 rows have none, the first \[4\]"):
            model.predict(gaps)

    def test_single_precision_is_enough(self):
        """And is not copied to double."""
        P, y = pool()
        model = MetaRegressor(**QUICK).fit(P, y)
        single = MetaRegressor(**QUICK).fit(P.astype(np.float32), y)
        np.testing.assert_allclose(single.weights_, model.weights_, atol=1e-3)

    def test_a_combiner_of_ones_own(self):
        """It is compared with the others, and may need the rows."""
        P, y = pool(100)
        penalty = ShrunkRidge(alphas=[0.5], cv="fold")
        model = MetaRegressor(penalty, **QUICK).fit(P, y)
        assert model.combiner_.alpha_ == 0.5
        assert model.comparison_.default == "ShrunkRidge" in model.comparison_.names
        absolute = GreedySelection(5, metric=lambda truth, p: np.mean(np.abs(truth - p)))
        model = MetaRegressor(absolute, **QUICK).fit(P, y)
        assert model.comparison_.losses["GreedySelection"] > 0
        with pytest.raises(InvalidInputError, match="needs no rows"):
            model.weight_intervals(P, y)

    def test_features(self):
        """A spread that tells the bias of the models is used; weights are those of the columns."""
        random = np.random.default_rng(0)
        y, spread = random.normal(size=800), random.exponential(size=(800, 1))
        P = y[:, None] + spread + spread * random.normal(size=(800, 6))
        without = MetaRegressor(limits=None, **QUICK).fit(P, y)
        model = MetaRegressor(features=["std", "range"], limits=None, **QUICK).fit(P, y)
        assert model.score_.value < 0.9 * without.score_.value
        features = np.column_stack([P.std(axis=1), np.ptp(P, axis=1)])
        expected = P @ model.weights_ + features @ model.feature_weights_ + model.intercept_
        np.testing.assert_allclose(model.predict(P), expected)
        assert len(model.required_models_) == 6
        assert model.comparison_.losses["mean"] == pytest.approx(rmse_of_mean(P, y))

    def test_the_published_recipe(self):
        """The same predictions as the recipe by itself, and an honest score for it."""
        P, y = pool(150)
        model = MetaRegressor(recipe="published", **QUICK).fit(P, y)
        alone = PublishedStack().fit(P, y)
        np.testing.assert_allclose(model.predict(P), alone.predict(P))
        assert model.comparison_.default == "published"
        assert model.score_.value == model.comparison_.losses["published"]
        features = model.features_.transform(P[:, model.redundancy_.kept_])
        linear = P @ model.weights_ + features @ model.feature_weights_ + model.intercept_
        np.testing.assert_allclose(linear, alone.predict(P))
        with pytest.raises(InvalidInputError, match="knows no weights"):
            model.fit(P, y, np.arange(150))

    def test_intervals_of_weights(self):
        """They hold the weights, and are as wide as theory says for least squares."""
        P, y = pool(2000, errors=(1.0, 1.5, 2.0))
        model = MetaRegressor(LeastSquares(), **QUICK).fit(P, y)
        low, high = model.weight_intervals(P, y, n_resamples=200)
        assert ((low < model.weights_) & (model.weights_ < high)).all()
        X = np.c_[P, np.ones(len(y))]
        residual = y - X @ np.r_[model.weights_, model.intercept_]
        error = np.sqrt(np.linalg.inv(X.T @ X).diagonal()[:3] * residual.var())
        np.testing.assert_allclose(high - low, 2 * 1.96 * error, rtol=0.25)
        low, high = MetaRegressor(**QUICK).fit(P, y).weight_intervals(P, y, n_resamples=10)
        assert (low < high).all()


class TestClasses:
    """Pools of class probabilities."""

    @pytest.mark.parametrize("name", ["mean", "best_single", "linear", "greedy", "log", "auto"])
    def test_named_pools(self, name):
        """Each is compared, and better than the worst model."""
        P, y = class_pool()
        model = MetaClassifier(name, **QUICK).fit(P, y)
        proba = model.predict_proba(P)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        worst = -np.mean(np.log(P[np.arange(len(y)), 3, y]))
        assert model.score_.value < worst
        assert model.comparison_.default == name

    def test_a_log_pool_is_that_of_its_models(self):
        """Alone it gives the same as by itself."""
        P, y = class_pool()
        model = MetaClassifier("log", redundancy=None, evaluate=None, **QUICK).fit(P, y)
        alone = LogPool().fit(P, y)
        np.testing.assert_allclose(model.predict_proba(P), alone.predict_proba(P), atol=1e-6)

    def test_frames_of_classes_by_name(self):
        """Models and classes may come in another order; only required models are needed."""
        P, codes = class_pool(errors=(0.7, 0.8, 6.0))
        labels = np.array(["low", "mid", "top"])
        tables = {name: pd.DataFrame(P[:, j], columns=labels) for j, name in enumerate(NAMES[:3])}
        model = MetaClassifier("linear", **QUICK).fit(tables, labels[codes])
        assert model.classes_.tolist() == labels.tolist()
        expected = model.predict_proba(P)
        moved = {name: table[labels[::-1]] for name, table in reversed(tables.items())}
        np.testing.assert_allclose(model.predict_proba(moved), expected)
        few = {name: tables[name] for name in model.required_models_}
        np.testing.assert_allclose(model.predict_proba(few), expected)
        assert len(few) < 3
        assert set(model.predict(few)) <= set(labels)

    def test_two_classes_in_a_matrix(self):
        """The probabilities of the second."""
        P, y = class_pool(n_classes=2)
        model = MetaClassifier("log", evaluate=None, **QUICK).fit(P, y)
        matrix = MetaClassifier("log", evaluate=None, **QUICK).fit(P[:, :, 1], y)
        np.testing.assert_allclose(
            matrix.predict_proba(P[:, :, 1]), model.predict_proba(P), atol=1e-6
        )

    def test_missing_models(self):
        """A row needs one."""
        P, y = class_pool()
        P[3, 1:] = np.nan
        model = MetaClassifier("linear", evaluate=None, **QUICK).fit(P, y)
        P[5] = np.nan
        with pytest.raises(InvalidInputError, match=r"first \[5\]"):
            model.predict_proba(P)

    def test_the_apparent_score_lies(self):
        """Labels of pure noise, and models that learn by heart."""
        gaps = []
        for seed in range(3):
            random = np.random.default_rng(seed)
            X, y = random.normal(size=(60, 4)), random.integers(2, size=60)
            P = np.stack(
                [
                    cross_val_predict(
                        KNeighborsClassifier(1 + j % 3),
                        X[:, random.permutation(4)[:2]],
                        y,
                        cv=5,
                        method="predict_proba",
                    )
                    for j in range(12)
                ],
                axis=1,
            )
            scores = [
                MetaClassifier("linear", evaluate=kind, **QUICK).fit(P, y).score_
                for kind in ("apparent", "outer")
            ]
            gaps.append(scores[1].value - scores[0].value)
        assert min(gaps) > 0


class TestConventions:
    """What scikit-learn's checks do not look at."""

    def test_metadata_is_routed(self):
        """Weights, groups, folds and row ids reach a step of a pipeline."""
        P, y = pool()
        fold, weight = np.arange(len(y)) % 5, np.linspace(0, 1, len(y))
        with sklearn.config_context(enable_metadata_routing=True):
            meta = MetaRegressor("ridge", **QUICK).set_fit_request(
                sample_weight=True, groups=True, fold=True, row_id=True
            )
            pipeline = make_pipeline(FunctionTransformer(), meta)
            pipeline.fit(P, y, sample_weight=weight, fold=fold)
        expected = MetaRegressor("ridge", **QUICK).fit(P, y, weight, fold=fold)
        np.testing.assert_array_equal(pipeline[-1].weights_, expected.weights_)

    def test_parameters_and_picture(self):
        """Nested parameters are reached; the picture names the parts."""
        model = MetaRegressor(ShrunkRidge(), redundancy=RedundancyFilter())
        model.set_params(combiner__alphas=[1.0], redundancy__eps=0.01)
        copy = clone(model)
        assert copy.get_params()["combiner__alphas"] == [1.0]
        assert "ShrunkRidge" in copy._repr_html_()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"combiner": "median"}, "Expected combiner to be 'mean'"),
            ({"evaluate": "nested"}, "evaluate"),
            ({"cv": 1}, "at least 2 folds"),
            ({"features": ["entropy"]}, "Expected features among"),
        ],
    )
    def test_what_cannot_be(self, options, message):
        """Messages say what was expected."""
        P, y = pool(60)
        with pytest.raises(ValueError, match=message):
            MetaRegressor(**options).fit(P, y)

    def test_folds_of_repeats_are_merged(self):
        """Fifty folds cost as much as five."""
        P, y = pool()
        row = np.tile(np.arange(300), 3)
        fold = np.concatenate([np.random.default_rng(k).integers(10, size=300) for k in range(3)])
        model = MetaRegressor(**QUICK).fit(P[row], y[row], fold=fold, row_id=row)
        assert model.score_.value == pytest.approx(
            MetaRegressor(**QUICK).fit(P, y).score_.value, rel=0.05
        )
