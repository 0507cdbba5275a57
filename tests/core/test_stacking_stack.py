"""Stacks of base models: out of fold, resumable, honest, and no larger than they need be."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RepeatedKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd.exceptions import InvalidInputError, MissingPredictionsWarning, TeacherError
from scikd.stacking import (
    BestSingle,
    LeastSquares,
    MeanPool,
    MetaClassifier,
    MetaRegressor,
    RegularizedStackingClassifier,
    RegularizedStackingRegressor,
    ShrunkRidge,
)

X, y = load_diabetes(return_X_y=True)
iris, species = load_iris(return_X_y=True)
MODELS = [
    ("ridge", Ridge(0.1)),
    ("tree", DecisionTreeRegressor(max_depth=3, random_state=0)),
    ("constant", DummyRegressor()),
]
CLASSIFIERS = [
    ("bayes", GaussianNB()),
    ("tree", DecisionTreeClassifier(max_depth=3, random_state=0)),
]
QUIET = {"progress": False, "random_state": 0}
ALONE = int(np.flatnonzero([(y == value).sum() == 1 for value in y])[0])


def regressor(estimators=MODELS, meta=None, **options):
    """A quick stack."""
    meta = LeastSquares() if meta is None else meta
    return RegularizedStackingRegressor(estimators, meta, **{**QUIET, **options})


def classifier(estimators=CLASSIFIERS, meta=None, **options):
    """A quick stack of classifiers."""
    meta = MeanPool() if meta is None else meta
    return RegularizedStackingClassifier(estimators, meta, **{**QUIET, **options})


# Check to the reason why it fails.
EXPECTED_FAILURES: dict[str, str] = {}

SMALL = [("ridge", Ridge(0.1)), ("tree", DecisionTreeRegressor(max_depth=3, random_state=0))]
CHECKED = [
    regressor(SMALL, cv=3),
    regressor(SMALL, MetaRegressor(n_resamples=10), cv=3),
    classifier([("logistic", LogisticRegression()), CLASSIFIERS[1]], cv=3),
    classifier([("logistic", LogisticRegression())], MetaClassifier(n_resamples=10), cv=3),
]


@pytest.mark.filterwarnings("ignore::scikd.exceptions.StackingWarning")
@parametrize_with_checks(CHECKED, expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_conformance(estimator, check):
    """All of scikit-learn's own checks."""
    check(estimator)


class Counting(Ridge):
    """Counts how often it is fitted, in this process."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        """Count."""
        Counting.fits += 1
        return super().fit(X, y, sample_weight)


class Dying(Ridge):
    """Is killed on its third fit."""

    lives = 2

    def fit(self, X, y, sample_weight=None):
        """Die."""
        if Dying.lives == 0:
            raise KeyboardInterrupt
        Dying.lives -= 1
        return super().fit(X, y, sample_weight)


class Picky(LinearRegression):
    """Fails where a certain row is among the training rows."""

    def __init__(self, row=0.0):
        super().__init__()
        self.row = row

    def fit(self, X, y, sample_weight=None):
        """Refuse."""
        if (y == self.row).any():
            raise ValueError("not this row")
        return super().fit(X, y, sample_weight)


class TestOutOfFold:
    """The matrix that everything starts from."""

    def test_it_is_that_of_cross_val_predict(self):
        """For a partition, and the meta-model is fitted to it."""
        stack = regressor(cv=KFold(4)).fit(X, y)
        for (_, model), member in zip(MODELS, stack.oof_.members, strict=True):
            np.testing.assert_allclose(member, cross_val_predict(model, X, y, cv=KFold(4)))
        expected = LeastSquares().fit(stack.oof_, y)
        np.testing.assert_array_equal(stack.meta_.weights_, expected.weights_)

    def test_predict_combines_models_fitted_to_all_rows(self):
        """And only those with a weight are fitted and asked."""
        stack = regressor().fit(X, y)
        assert stack.required_estimators_ == ("ridge", "tree", "constant")
        refitted = np.column_stack([clone(m).fit(X, y).predict(X) for _, m in MODELS])
        expected = refitted @ stack.meta_.weights_ + stack.meta_.intercept_
        np.testing.assert_allclose(stack.predict(X), expected)
        best = regressor(meta=BestSingle()).fit(X, y)
        assert best.required_estimators_ == ("ridge",)
        assert [type(model) for model in best.estimators_] == [Ridge]
        np.testing.assert_allclose(best.predict(X), Ridge(0.1).fit(X, y).predict(X))

    def test_time_series_cover_some_rows(self):
        """The meta-model learns from these; nobody is judged by what comes later."""
        cv = TimeSeriesSplit(4)
        stack = regressor(cv=cv).fit(X, y)
        covered = stack.oof_.covered
        assert 0 < covered.sum() < len(y)
        expected = LeastSquares().fit(stack.oof_.members[:, covered].T, y[covered])
        np.testing.assert_allclose(stack.meta_.weights_, expected.weights_)
        honest = stack.predict_out_of_fold()
        tests = [test for _, test in cv.split(X)]
        assert np.isnan(honest[: tests[1][0]]).all()
        learnt = np.concatenate(tests[:3])
        last = LeastSquares().fit(stack.oof_.members[:, learnt].T, y[learnt])
        expected = last.predict(stack.oof_.members[:, tests[3]].T)
        np.testing.assert_allclose(honest[tests[3]], expected)
        meta = regressor(meta=MetaRegressor(n_resamples=10), cv=cv).fit(X, y).meta_
        first = np.flatnonzero(covered)[0]
        for train, test in meta.cv:
            assert train.max() < test.min()
            assert first + test.max() < len(y)

    def test_repeats_are_averaged(self):
        """Of a row that several folds test the mean prediction counts."""
        cv = RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)
        stack = regressor([MODELS[0]], cv=cv).fit(X, y)
        total = np.zeros(len(y))
        for train, test in cv.split(X):
            total[test] += Ridge(0.1).fit(X[train], y[train]).predict(X[test])
        np.testing.assert_allclose(stack.oof_.members[0], total / 2)

    def test_copies_of_a_row_and_groups_stay_together(self):
        """An int deals out distinct rows, or groups."""
        twice = np.r_[np.arange(60), np.arange(60)]
        stack = regressor().fit(X[twice], y[twice])
        for train, test in stack.oof_.folds:
            assert not set(twice[train]) & set(twice[test])
        groups = np.arange(120) % 10
        stack = regressor(cv=GroupKFold(5)).fit(X[:120], y[:120], groups=groups)
        for train, test in stack.oof_.folds:
            assert not set(groups[train]) & set(groups[test])

    def test_weights_go_to_those_who_take_them(self):
        """Neighbours take none; rows of weight zero train nobody."""
        weight = np.where(np.arange(len(y)) % 3, 2.0, 0.0)
        models = [("ridge", Ridge(0.1)), ("neighbours", KNeighborsRegressor(5))]
        stack = regressor(models).fit(X, y, sample_weight=weight)
        heard = weight > 0
        without = regressor(models).fit(X[heard], y[heard])
        np.testing.assert_allclose(
            stack.named_estimators_["neighbours"].predict(X),
            without.named_estimators_["neighbours"].predict(X),
        )
        ridge = Ridge(0.1).fit(X[heard], y[heard], weight[heard])
        np.testing.assert_allclose(stack.named_estimators_["ridge"].coef_, ridge.coef_)

    def test_given_predictions_and_fitted_models(self):
        """Nothing is trained that is fitted; what is not fitted is trained on all rows."""
        oof = cross_val_predict(Ridge(0.1), X, y), cross_val_predict(MODELS[1][1], X, y)
        fitted = Ridge(0.1).fit(X[:100], y[:100])
        frozen = FrozenEstimator(DecisionTreeRegressor(max_depth=3).fit(X[:100], y[:100]))
        stack = regressor([("a", fitted), ("b", frozen)], cv=None).fit(X, y, oof=np.stack(oof, 1))
        assert stack.estimators_ == [fitted, frozen]
        weights = LeastSquares().fit(np.stack(oof, 1), y).weights_
        np.testing.assert_allclose(stack.meta_.weights_, weights)
        named = {"b": oof[1], "a": oof[0], "other": oof[0]}
        again = regressor([("a", Ridge(0.1)), ("b", frozen)], cv=None).fit(X, y, oof=named)
        np.testing.assert_allclose(again.meta_.weights_, weights)
        np.testing.assert_allclose(again.estimators_[0].coef_, Ridge(0.1).fit(X, y).coef_)
        assert np.isfinite(stack.predict_out_of_fold()).all()
        with pytest.raises(InvalidInputError, match=r"for all 442 rows; got 442 rows, and none of"):
            regressor([("a", fitted), ("c", fitted)]).fit(X, y, oof=named)
        with pytest.raises(InvalidInputError, match=r"all 442 rows; got 10 rows\."):
            regressor([("a", fitted)]).fit(X, y, oof=oof[0][:10, None])

    def test_given_probabilities_of_two_classes(self):
        """Those of the second alone, or of both: the same, as for a meta-model."""
        two = species < 2
        Z, z = iris[two], np.array(["no", "yes"])[species[two]]
        second = np.column_stack(
            [cross_val_predict(m, Z, z, method="predict_proba")[:, 1] for _, m in CLASSIFIERS]
        )
        both = np.stack([1 - second, second], axis=2)
        names = [name for name, _ in CLASSIFIERS]
        swapped = {
            name: pd.DataFrame(both[:, j, ::-1], columns=["yes", "no"])
            for j, name in enumerate(names)
        }
        for oof in (second, both, dict(zip(names, second.T, strict=True)), swapped):
            stack = classifier().fit(Z, z, oof=oof)
            np.testing.assert_allclose(stack.oof_.members, np.moveaxis(both, 1, 0))
        other = classifier().fit(Z, z == "yes").oof_
        with pytest.raises(InvalidInputError, match="Expected probabilities of"):
            classifier().fit(Z, z, oof=other)

    @pytest.mark.parametrize("meta", [Ridge(), MeanPool()], ids=["foreign", "of classes"])
    def test_a_meta_model_of_another_kind_is_refused_before_anything_is_trained(self, meta):
        """With what would do."""
        with pytest.raises(InvalidInputError, match="Expected meta to be .* MetaRegressor, Shrunk"):
            regressor(meta=meta).fit(X, y)

    def test_a_frozen_model_without_predictions_is_taken_at_its_word(self):
        """Its predictions of all rows are its column."""
        frozen = FrozenEstimator(Ridge(0.1).fit(X[:100], y[:100]))
        stack = regressor([("frozen", frozen), MODELS[1]]).fit(X[100:], y[100:])
        np.testing.assert_allclose(stack.oof_.members[0], frozen.predict(X[100:]))


class TestFailures:
    """One model of many fails in one fold."""

    def test_is_an_error(self):
        """Which names it."""
        with pytest.raises(TeacherError, match="'picky' failed to train: ValueError: not this row"):
            regressor([("picky", Picky(y[ALONE])), *MODELS]).fit(X, y)

    def test_or_missing(self):
        """The stack goes on without it there."""
        models = [("picky", Picky(y[ALONE])), *MODELS]
        with (
            pytest.warns(MissingPredictionsWarning, match="'picky' .* missing in fold"),
            pytest.raises(TeacherError, match="'picky' failed to train"),
        ):
            regressor(models, errors="missing").fit(X, y)  # it is needed, and fails on all rows
        alone = BestSingle()
        with pytest.warns(MissingPredictionsWarning):
            stack = regressor(models, alone, errors="missing").fit(X, y)
        assert "picky" not in stack.required_estimators_
        gaps = np.isnan(stack.oof_.members[0])
        fold = next(test for _, test in stack.oof_.folds if ALONE in test)
        assert gaps.sum() == len(y) - len(fold)


class TestResuming:
    """A fit that was stopped goes on from the store."""

    def test_finished_folds_are_not_fitted_again(self, tmp_path):
        """Neither after a kill, nor for another meta-model."""
        models = [("counting", Counting(0.1)), ("dying", Dying(0.2))]
        Counting.fits, Dying.lives = 0, 2
        stack = regressor(models, cv=3, store=tmp_path / "labels")
        with pytest.raises(KeyboardInterrupt):
            stack.fit(X, y)
        assert Counting.fits == 3
        Dying.lives = 100
        stack.fit(X, y)
        assert Counting.fits == 3 + 1  # on all rows
        assert Dying.lives == 100 - 1 - 1  # the third fold, and all rows
        fresh = regressor(models, cv=3).fit(X, y)
        np.testing.assert_array_equal(stack.oof_.members, fresh.oof_.members)


class TestScores:
    """What a stack says of itself."""

    def test_outer_predictions_leave_out_the_fold(self):
        """Each row is predicted by a meta-model that has not seen it."""
        stack = regressor(cv=KFold(4)).fit(X, y)
        P = stack.oof_.members.T
        expected = np.empty(len(y))
        for train, test in KFold(4).split(X):
            expected[test] = LeastSquares().fit(P[train], y[train]).predict(P[test])
        np.testing.assert_allclose(stack.predict_out_of_fold(), expected)

    def test_nested_trains_base_models_without_the_fold(self):
        """As refitting the whole stack for every fold would, by the same folds inside."""
        cv = KFold(4)
        stack = regressor(cv=cv, evaluate="nested").fit(X, y)
        predicted = stack.predict_out_of_fold()
        folds = list(cv.split(X))
        train, test = folds[1]
        inner = np.empty((len(y), len(MODELS)))
        for k in (0, 2, 3):
            rows = np.intersect1d(train, folds[k][0])
            for j, (_, model) in enumerate(MODELS):
                inner[folds[k][1], j] = clone(model).fit(X[rows], y[rows]).predict(X[folds[k][1]])
        meta = LeastSquares().fit(inner[train], y[train])
        outer = np.column_stack(
            [clone(m).fit(X[train], y[train]).predict(X[test]) for _, m in MODELS]
        )
        np.testing.assert_allclose(predicted[test], meta.predict(outer))
        value, low, high, kind = stack.score_
        assert kind == "nested"
        assert stack.score_.value == value
        assert low < value < high
        assert value == pytest.approx(np.sqrt(np.mean((predicted - y) ** 2)))
        assert stack.comparison_.names == ("mean", "best_single", "stack")

    def test_nested_needs_three_folds(self):
        """With two there is nobody left to train."""
        with pytest.raises(InvalidInputError, match="at least 3 folds .* got 2 folds"):
            regressor(cv=2, evaluate="nested").fit(X, y)
        with pytest.raises(InvalidInputError, match="'outer' or 'nested'; got 'inner'"):
            regressor(evaluate="inner").fit(X, y)

    def test_nested_of_classes(self):
        """By log-loss."""
        stack = classifier(cv=3, evaluate="nested").fit(iris, species)
        proba = stack.predict_out_of_fold()
        given = proba[np.arange(len(species)), species]
        assert stack.score_[0] == pytest.approx(-np.log(np.maximum(given, 1e-12)).mean())

    def test_memorisers_of_noise_look_good_in_sample_only(self):
        """A target of noise cannot be predicted, whatever base models learn by heart."""
        random = np.random.default_rng(0)
        noise = random.normal(size=200)
        models = [(f"tree{k}", DecisionTreeRegressor(random_state=k)) for k in range(4)]
        stack = regressor(models, evaluate="nested").fit(random.normal(size=(200, 5)), noise)
        assert stack.score_[0] > 0.95 * noise.std()


class TestParts:
    """What comes out of a stack besides predictions."""

    def test_refit_subset_drops_the_rest(self):
        """Nothing is trained, and predictions of a stack without weight elsewhere stay."""
        stack = regressor(meta=BestSingle()).fit(X, y)
        small = stack.refit_subset()
        assert [name for name, _ in small.estimators] == ["ridge"]
        assert small.estimators_[0] is stack.estimators_[0]
        assert small.oof_.names == ("ridge",)
        np.testing.assert_array_equal(small.predict(X), stack.predict(X))
        assert len(stack.oof_.names) == 3

    def test_the_frozen_meta_model_predicts_the_same(self):
        """From predictions of the required models."""
        stack = regressor(meta=ShrunkRidge(random_state=0)).fit(X, y)
        np.testing.assert_allclose(stack.freeze().predict(stack.predictions(X)), stack.predict(X))
        probable = classifier().fit(iris, species)
        frozen = probable.freeze()
        np.testing.assert_allclose(
            frozen.predict_proba(probable.predictions(iris)), probable.predict_proba(iris)
        )

    def test_frames_names_and_text_labels(self):
        """Frames go to the learners as they are; labels come back."""
        frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(10)])
        stack = regressor().fit(frame, y)
        assert list(stack.feature_names_in_) == list(frame.columns)
        np.testing.assert_allclose(stack.predict(frame), regressor().fit(X, y).predict(X))
        np.testing.assert_allclose(
            regressor().fit(pl.from_pandas(frame), y).predict(pl.from_pandas(frame)),
            stack.predict(frame),
        )
        names = np.array(["setosa", "versicolor", "virginica"])[species]
        found = classifier().fit(iris, names)
        assert set(found.predict(iris)) == set(names)
        np.testing.assert_allclose(
            found.predict_proba(iris), classifier().fit(iris, species).predict_proba(iris)
        )

    def test_missing_values_go_to_those_who_take_them(self):
        """A pipeline with an imputer, or trees."""
        gaps = X.copy()
        gaps[::7, 0] = np.nan
        trees = [("tree", DecisionTreeRegressor(max_depth=3, random_state=0))]
        assert np.isfinite(regressor(trees).fit(gaps, y).predict(gaps)).all()

    def test_names_and_parameters(self):
        """Parameters of base models can be searched, and one can be dropped."""
        search = GridSearchCV(regressor(), {"ridge__alpha": [0.1, 10.0]}, cv=2).fit(X, y)
        assert search.best_params_["ridge__alpha"] == 0.1
        stack = regressor().set_params(tree="drop").fit(X, y)
        assert stack.oof_.names == ("ridge", "constant")
        assert "ridge" in stack._repr_html_()
        assert "LeastSquares" in stack._repr_html_()

    def test_in_a_pipeline_and_in_parallel(self):
        """The same numbers in two processes."""
        piped = make_pipeline(StandardScaler(), regressor())
        assert cross_val_score(piped, X, y, cv=3).mean() > 0.3
        np.testing.assert_array_equal(
            regressor(n_jobs=2).fit(X, y).predict(X), regressor().fit(X, y).predict(X)
        )

    def test_routing(self):
        """Weights go where they are requested; groups to the splitter."""
        groups = np.arange(len(y)) % 20
        weight = np.random.default_rng(0).random(len(y))
        with sklearn.config_context(enable_metadata_routing=True):
            models = [
                ("weighted", Ridge(0.1).set_fit_request(sample_weight=True)),
                ("plain", Ridge(0.1).set_fit_request(sample_weight=False)),
            ]
            stack = regressor(models, cv=GroupKFold(4)).fit(
                X, y, sample_weight=weight, groups=groups
            )
            weighted, plain = (model.coef_ for model in stack.estimators_)
            np.testing.assert_allclose(weighted, Ridge(0.1).fit(X, y, weight).coef_)
            np.testing.assert_allclose(plain, Ridge(0.1).fit(X, y).coef_)
            with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError):
                regressor().fit(X, y, sample_weight=weight)
        for train, test in stack.oof_.folds:
            assert not set(groups[train]) & set(groups[test])

    def test_pipelines_route_weights_to_the_steps_that_ask(self):
        """To both here; without routing to the last one."""
        weight = np.random.default_rng(0).random(len(y))
        plain = regressor([("piped", make_pipeline(StandardScaler(), Ridge(0.1)))])
        plain.fit(X, y, sample_weight=weight)
        expected = make_pipeline(StandardScaler(), Ridge(0.1)).fit(
            X, y, ridge__sample_weight=weight
        )
        np.testing.assert_allclose(plain.estimators_[0][-1].coef_, expected[-1].coef_)
        with sklearn.config_context(enable_metadata_routing=True):
            piped = make_pipeline(
                StandardScaler().set_fit_request(sample_weight=True),
                Ridge(0.1).set_fit_request(sample_weight=True),
            )
            stack = regressor([("piped", piped)]).fit(X, y, sample_weight=weight)
            scaled = StandardScaler().fit(X, sample_weight=weight)
            model = Ridge(0.1).fit(scaled.transform(X), y, weight)
        np.testing.assert_allclose(stack.estimators_[0][-1].coef_, model.coef_)

    def test_classes_without_weight_are_refused(self):
        """Nobody could learn them."""
        weight = (species != 2).astype(float)
        with pytest.raises(InvalidInputError, match=r"every class to have weight; \[2\]"):
            classifier().fit(iris, species, sample_weight=weight)

    def test_there_is_no_warning(self):
        """On ordinary data, with the defaults."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stack = RegularizedStackingRegressor(MODELS, **QUIET).fit(X, y)
        assert isinstance(stack.meta_, MetaRegressor)
        assert stack.score_[0] < y.std()
        assert "blend" in str(stack.comparison_)
