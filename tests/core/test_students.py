"""Distilled estimators: scikit-learn's checks, honesty, and what users do with them."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd import DistilledClassifier, DistilledRegressor, LabelStore, TeacherEnsemble
from scikd.aggregation import Harmonised
from scikd.exceptions import DistillationWarning, InvalidInputError, TeacherError
from scikd.harmonise import Harmoniser
from scikd.persistence import load_estimator, save_estimator
from scikd.students.measurement import loss_interval

X, y = load_diabetes(return_X_y=True)
cancer, outcome = load_breast_cancer(return_X_y=True)
iris, species = load_iris(return_X_y=True)
TREE = DecisionTreeRegressor(max_depth=4, random_state=0)
TWIG = DecisionTreeClassifier(max_depth=4, random_state=0)
QUIET = {"progress": False, "random_state": 0}

quiet_about_teachers = pytest.mark.filterwarnings("ignore::scikd.exceptions.DistillationWarning")


def regressor(**options):
    """A quick distilled regressor."""
    return DistilledRegressor(**{"teacher": Ridge(0.1), "student": TREE, **QUIET, **options})


def classifier(**options):
    """A quick distilled classifier."""
    teacher = make_pipeline(StandardScaler(), LogisticRegression())
    return DistilledClassifier(**{"teacher": teacher, "student": TWIG, **QUIET, **options})


def expected_failures(estimator):
    """Return the checks that an estimator is known to fail, each with its reason."""
    if isinstance(estimator.student, HistGradientBoostingRegressor):
        reason = "HistGradientBoosting bins and limits its leaves by rows, not by their weights"
        return {"check_sample_weight_equivalence_on_dense_data": reason}
    return {}


# The checks' data were made for other purposes: a teacher may well be a poor one there.
@quiet_about_teachers
@parametrize_with_checks(
    [
        regressor(cv=3),
        regressor(cv=3, student=HistGradientBoostingRegressor(max_iter=30, random_state=0)),
        classifier(cv=3, teacher=LogisticRegression()),
        classifier(cv=3, teacher=LogisticRegression(), student=Ridge()),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_conformance(estimator, check):
    """All of scikit-learn's own checks."""
    check(estimator)


class TestHonesty:
    """Labels are out of fold, and the mixture is chosen where nobody was trained."""

    @quiet_about_teachers
    def test_labels_are_out_of_fold(self):
        """A teacher that learns its rows by heart has errors on its labels."""
        model = regressor(teacher=KNeighborsRegressor(1)).fit(X, y)
        assert np.mean(model.labels_[:, 0] != y) > 0.9
        assert model.teacher_loss_ == pytest.approx(np.mean((model.labels_[:, 0] - y) ** 2))

    def test_out_of_fold_labels_are_those_of_the_folds(self):
        """Each label comes from a fit without its row."""
        model = regressor(cv=TimeSeriesSplit(4)).fit(X, y)
        expected = np.full(len(X), np.nan)
        for train, test in TimeSeriesSplit(4).split(X):
            expected[test] = Ridge(0.1).fit(X[train], y[train]).predict(X[test])
        np.testing.assert_allclose(model.labels_[:, 0], expected)
        assert np.isnan(model.labels_[:50, 0]).all()

    @quiet_about_teachers
    def test_copies_of_a_row_never_straddle_a_fold(self):
        """A nearest-neighbour teacher gains nothing from a copy."""
        twice = np.r_[np.arange(len(X)), np.arange(len(X))]
        model = regressor(teacher=KNeighborsRegressor(1)).fit(X[twice], y[twice])
        for train, test in model.oof_.folds:
            assert not set(twice[train]) & set(twice[test])

    def test_a_good_teacher_helps_a_weak_student(self):
        """On held-out rows of real data, and the report says so."""
        rows = np.random.default_rng(0).permutation(len(X))
        train, test = rows[:300], rows[300:]
        model = regressor().fit(X[train], y[train])
        alone = clone(TREE).fit(X[train], y[train]).predict(X[test])
        distilled = model.predict(X[test])
        assert np.mean((distilled - y[test]) ** 2) < np.mean((alone - y[test]) ** 2)
        assert model.teacher_weight_ > 0.5

    def test_a_poor_teacher_is_warned_about_and_declined(self):
        """A constant teacher: the student learns the truth alone."""
        with pytest.warns(DistillationWarning, match="expected to hurt"):
            model = regressor(teacher=DummyRegressor(), student=Ridge(0.1)).fit(X, y)
        assert model.mixture_.candidates[0].loss == pytest.approx(model.student_loss_)
        np.testing.assert_allclose(
            cross_val_predict(Ridge(0.1), X, y, cv=model.oof_.folds).mean(), y.mean(), rtol=0.1
        )
        assert abs(model.teacher_weight_) < 0.5

    @quiet_about_teachers
    @pytest.mark.parametrize("weight", [0.0, 0.4, 1.0, 1.7, -0.5])
    def test_a_given_weight_mixes_truth_and_labels(self, weight):
        """For a linear learner the student is the mixture of two fits."""
        teacher = RandomForestRegressor(10, random_state=0)
        model = regressor(teacher=teacher, student=Ridge(1.0), teacher_weight=weight).fit(X, y)
        truth = Ridge(1.0).fit(X, y).predict(X)
        taught = Ridge(1.0).fit(X, model.labels_[:, 0]).predict(X)
        np.testing.assert_allclose(model.predict(X), (1 - weight) * truth + weight * taught)
        assert model.mixture_ is None


class TestUse:
    """What users do with an estimator."""

    def test_many_kinds_of_teacher(self, tmp_path):
        """Estimator, ensemble, list, mapping, frozen, function, stored labels."""
        ridge = Ridge(0.1).fit(X, y)
        stored = LabelStore(tmp_path).write(
            name="ridge",
            fingerprint="1",
            inputs=X,
            quantities=TeacherEnsemble([ridge]).quantities,
            arrays={"value": cross_val_predict(Ridge(0.1), X, y)},
        )
        stored = stored or LabelStore(tmp_path).read(teacher="ridge", inputs=X)
        for teacher in (
            ridge,
            TeacherEnsemble([Ridge(), LinearRegression()]),
            [Ridge(), LinearRegression()],
            {"a": Ridge(), "b": LinearRegression()},
            FrozenEstimator(ridge),
            ridge.predict,
            stored,
        ):
            model = regressor(teacher=teacher, student=DecisionTreeRegressor(max_depth=3)).fit(X, y)
            assert model.predict(X).shape == y.shape

    @pytest.mark.parametrize("augment", ["neighbour", "column"])
    def test_augmentation_gives_the_student_more_rows(self, augment):
        """The student sees twice as many rows, labelled by the teacher."""
        seen = []

        class Counting(DecisionTreeRegressor):
            def fit(self, X, y, sample_weight=None):
                seen.append(len(X))
                return super().fit(X, y, sample_weight=sample_weight)

        regressor(student=Counting(max_depth=4), augment=augment, teacher_weight=1.0).fit(X, y)
        assert seen[-1] == 2 * len(X)

    def test_unlabelled_rows_teach_too(self):
        """Further inputs without truth, labelled by the teacher."""
        few = np.arange(0, 442, 6)
        rest = np.setdiff1d(np.arange(442), few)
        model = regressor(teacher_weight=1.0, student=DecisionTreeRegressor(random_state=0))
        model.fit(X[few], y[few], X_unlabelled=X[rest])
        expected = Ridge(0.1).fit(X[few], y[few]).predict(X[rest])
        np.testing.assert_allclose(model.predict(X[rest]), expected)

    @pytest.mark.parametrize("library", [pd, pl])
    def test_frames_in_and_out(self, library):
        """Names are checked; transform gives a frame of the teachers' predictions."""
        names = [f"f{i}" for i in range(X.shape[1])]
        frame = library.DataFrame(dict(zip(names, X.T, strict=True)))
        model = regressor(teacher={"ridge": Ridge(), "ols": LinearRegression()}).fit(frame, y)
        np.testing.assert_allclose(model.predict(frame), regressor_like(model).predict(X))
        assert list(model.feature_names_in_) == names
        output = "pandas" if library is pd else "polars"
        table = model.set_output(transform=output).transform(frame)
        assert list(table.columns) == ["ridge", "ols"]
        with pytest.raises(ValueError, match="feature names"):
            model.predict(frame[[*names[1:], names[0]]])

    @quiet_about_teachers
    def test_categories_in_frames(self):
        """Learners with an encoder of their own get the frame as it is."""
        rng = np.random.default_rng(0)
        frame = pd.DataFrame(
            {"kind": pd.Categorical(rng.choice(list("abc"), 300)), "x": rng.normal(size=300)}
        )
        target = frame["x"].to_numpy() + (frame["kind"] == "a")
        learner = HistGradientBoostingRegressor(
            categorical_features="from_dtype", max_iter=20, random_state=0
        )
        model = regressor(teacher=learner, student=learner, augment="column").fit(frame, target)
        assert np.mean((model.predict(frame) - target) ** 2) < 0.3 * np.var(target)

    def test_sparse_tables(self):
        """Both learners take sparse input, so the estimator does."""
        dense = regressor(student=Ridge()).fit(X, y)
        sparse = regressor(student=Ridge()).fit(csr_matrix(X), y)
        np.testing.assert_allclose(sparse.predict(csr_matrix(X)), dense.predict(X), rtol=1e-2)

    def test_several_targets(self):
        """Multi-output, where the learners can."""
        both = np.column_stack([y, -2 * y])
        model = regressor().fit(X, both)
        assert model.predict(X).shape == both.shape

    @quiet_about_teachers
    def test_grid_search_reaches_teacher_and_student(self):
        """Nested parameters by their usual names."""
        grid = {"student__max_depth": [2, 4], "teacher__alpha": [0.1, 1.0]}
        search = GridSearchCV(regressor(cv=3), grid, cv=3).fit(X, y)
        assert search.best_params_.keys() == grid.keys()

    def test_a_search_as_the_student_is_tuned(self):
        """A student that tunes itself."""
        search = GridSearchCV(TREE, {"max_depth": [2, 6]}, cv=3)
        model = regressor(student=search).fit(X, y)
        assert model.student_.best_params_["max_depth"] in {2, 6}

    def test_groups_stay_together(self):
        """Given to fit, or to a group splitter."""
        groups = np.arange(len(X)) // 10
        for cv in (4, GroupKFold(4)):
            model = regressor(cv=cv).fit(X, y, groups=groups)
            for train, test in model.oof_.folds:
                assert not set(groups[train]) & set(groups[test])

    def test_metadata_routing(self):
        """Requests of teacher, student and splitter are honoured."""
        weight, groups = 1.0 + np.arange(len(X)) % 3, np.arange(len(X)) // 10
        plain = regressor(cv=GroupKFold(4)).fit(X, y, sample_weight=weight, groups=groups)
        with sklearn.config_context(enable_metadata_routing=True):
            model = regressor(
                teacher=Ridge(0.1).set_fit_request(sample_weight=True),
                student=clone(TREE).set_fit_request(sample_weight=True),
                cv=GroupKFold(4),
            )
            routed = model.fit(X, y, sample_weight=weight, groups=groups)
            np.testing.assert_allclose(routed.predict(X), plain.predict(X))
            unheard = regressor(
                teacher=Ridge(0.1).set_fit_request(sample_weight=False),
                student=clone(TREE).set_fit_request(sample_weight=True),
                cv=GroupKFold(4),
            ).fit(X, y, sample_weight=weight, groups=groups)
            assert not np.allclose(unheard.labels_, plain.labels_)

    def test_text_labels_and_rare_classes(self):
        """Labels come back as they were."""
        names = np.array(["setosa", "versicolor", "virginica"])[species]
        model = classifier().fit(iris, names)
        assert set(model.predict(iris)) <= set(names)
        assert model.score(iris, names) > 0.9

    @quiet_about_teachers
    @pytest.mark.parametrize(
        "student",
        [
            TWIG,
            HistGradientBoostingClassifier(max_iter=20),
            Ridge(),
            DecisionTreeRegressor(max_depth=4),
        ],
        ids=lambda learner: type(learner).__name__,
    )
    def test_probabilities_of_every_kind_of_student(self, student):
        """They sum to one, and beat chance."""
        model = classifier(teacher=ExtraTreesClassifier(50, random_state=0), student=student)
        model.fit(cancer, outcome)
        proba = model.predict_proba(cancer)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0)
        assert (proba >= 0).all()
        assert model.score(cancer, outcome) > 0.9

    @quiet_about_teachers
    @pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
    def test_boosting_libraries(self, library):
        """LightGBM and XGBoost as students of both kinds."""
        module = pytest.importorskip(library, reason=f"{library} is not installed")
        prefix = {"lightgbm": "LGBM", "xgboost": "XGB"}[library]
        options = {"n_estimators": 20, "n_jobs": 1, "random_state": 0}
        options |= {"verbose": -1} if library == "lightgbm" else {}
        make = lambda kind: getattr(module, prefix + kind)(**options)  # noqa: E731
        assert regressor(student=make("Regressor")).fit(X, y).score(X, y) > 0.3
        for kind in ("Regressor", "Classifier"):
            model = classifier(student=make(kind)).fit(iris, species)
            assert model.score(iris, species) > 0.9

    def test_a_page_shows_teacher_and_student(self):
        """The HTML representation names everybody."""
        for model in (classifier(), classifier().fit(cancer, outcome)):
            page = model._repr_html_()
            assert "teacher: Pipeline" in page
            assert "DecisionTreeClassifier" in page

    def test_report_on_held_out_rows(self):
        """Losses, gap, fidelity, latency, bytes."""
        model = classifier().fit(cancer[:400], outcome[:400])
        report = model.report(cancer[400:], outcome[400:], batches=(1, 100), n_resamples=200)
        proba = model.predict_proba(cancer[400:])
        truth = np.eye(2)[outcome[400:]]
        expected = -np.log(np.clip((proba * truth).sum(axis=1), 1e-7, 1)).mean()
        assert report.student.loss == pytest.approx(expected)
        assert report.gap == pytest.approx(report.student.loss - report.teacher.loss)
        assert report.gap_low <= report.gap <= report.gap_high
        assert report.student.low <= report.student.loss <= report.student.high
        assert report.student.bytes > 0
        assert report.fidelity > 0
        assert [entry.batch for entry in report.student.latency] == [1, 100]
        assert "log-loss" in str(report)

    @quiet_about_teachers
    def test_a_perfect_copy_has_perfect_fidelity(self):
        """The student is its teacher."""
        model = regressor(teacher=FrozenEstimator(TREE.fit(X, y)), teacher_weight=1.0)
        model.set_params(student=DecisionTreeRegressor(random_state=0))
        report = model.fit(X, y).report(X, y, batches=(1,), n_resamples=50)
        assert report.fidelity == pytest.approx(0.0, abs=1e-9)
        assert report.gap == pytest.approx(0.0, abs=1e-9)

    @pytest.mark.parametrize("model", [regressor, classifier])
    def test_saving_and_loading(self, model, tmp_path):
        """The loaded estimator predicts the same, bit for bit."""
        table, target = (X, y) if model is regressor else (cancer, outcome)
        fitted = model().fit(table, target)
        save_estimator(fitted, tmp_path / "model")
        with pytest.raises(InvalidInputError, match="pass trusted="):
            load_estimator(tmp_path / "model")
        back = load_estimator(tmp_path / "model", trusted=["sklearn.tree._tree.Tree"])
        np.testing.assert_array_equal(back.predict(table), fitted.predict(table))
        np.testing.assert_array_equal(back.labels_, fitted.labels_)

    def test_defaults_work(self):
        """No teacher, no student: three teachers and gradient boosting."""
        model = DistilledClassifier(**QUIET).fit(iris, species)
        assert model.teacher_.names == ("random forest", "extra trees", "boosting")
        assert model.score(iris, species) > 0.9

    def test_cross_validation_of_the_whole(self):
        """An estimator among estimators."""
        assert cross_val_score(regressor(cv=3), X, y, cv=3).mean() > 0.2


class TestBadInput:
    """Clear errors, and nothing lost."""

    @pytest.mark.parametrize("model", [regressor, classifier])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_none(self, model, value):
        """NaN and infinity, where a learner cannot take them."""
        table, target = (X.copy(), y) if model is regressor else (cancer.copy(), outcome)
        table[3, 1] = value
        with pytest.raises(ValueError, match="NaN|inf"):
            model(teacher=Ridge() if model is regressor else LogisticRegression()).fit(
                table, target
            )

    @quiet_about_teachers
    def test_missing_values_pass_where_learners_take_them(self):
        """Gradient boosting takes NaN."""
        table = X.copy()
        table[::5, 2] = np.nan
        learner = HistGradientBoostingRegressor(max_iter=10, random_state=0)
        model = regressor(teacher=learner, student=learner).fit(table, y)
        assert np.isfinite(model.predict(table)).all()

    @pytest.mark.parametrize("rows", [0, 1])
    def test_no_rows_to_learn_from(self, rows):
        """Empty and single-row tables."""
        with pytest.raises(ValueError, match="sample"):
            regressor().fit(X[:rows], y[:rows])
        with pytest.raises(ValueError, match="sample"):
            regressor().fit(pd.DataFrame(X[:rows]).add_prefix("f"), y[:rows])

    def test_one_class_only(self):
        """Nothing to tell apart."""
        with pytest.raises(InvalidInputError, match="one class"):
            classifier().fit(iris, np.zeros(150))

    @pytest.mark.parametrize("bad", [-1.0, np.nan])
    def test_unusable_weights(self, bad):
        """Negative, NaN and all-zero weights."""
        weight = np.ones(len(X))
        weight[0] = bad
        with pytest.raises(ValueError, match="[Nn]egative|NaN"):
            regressor().fit(X, y, sample_weight=weight)
        with pytest.raises(ValueError, match="zero"):
            regressor().fit(X, y, sample_weight=np.zeros(len(X)))

    def test_weights_that_a_learner_cannot_take(self):
        """The learner is named."""
        with pytest.raises(
            InvalidInputError, match="KNeighborsRegressor cannot take sample_weight"
        ):
            regressor(teacher=KNeighborsRegressor()).fit(X, y, sample_weight=np.ones(len(X)))

    def test_a_teacher_that_fails_is_named(self):
        """In an ensemble of two."""
        teachers = {"fine": Ridge(), "broken": SVR(C=-1.0)}
        with pytest.raises(TeacherError, match="'broken' failed to train: InvalidParameterError"):
            regressor(teacher=teachers).fit(X, y)

    def test_a_teacher_of_other_classes_is_refused(self):
        """A frozen teacher of another problem."""
        teacher = FrozenEstimator(LogisticRegression(max_iter=5000).fit(iris, species + 5))
        with pytest.raises(TeacherError, match=r"knows the classes \[5, 6, 7\]"):
            classifier(teacher=teacher).fit(iris, species)

    def test_a_splitter_that_covers_nothing_useful(self):
        """Gaps are marked; rows outside are taught their truth."""
        rows = np.arange(len(X))
        model = regressor(cv=[(rows[:200], rows[200:300])], teacher_weight=1.0).fit(X, y)
        assert np.isnan(model.labels_).sum() == len(X) - 100
        assert np.isfinite(model.predict(X)).all()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"teacher_weight": "both"}, "'auto' or a finite number"),
            ({"teacher_weight_bounds": (1.0, 0.0)}, "low < high"),
            ({"augment": "gan"}, "'column', 'neighbour'"),
            ({"augment": "column", "n_augment": 0.0}, "n_augment to be positive"),
            ({"student": LogisticRegression()}, "Expected a regressor as the student"),
            ({"teacher": "ridge"}, "got str"),
            ({"cv": 1}, "at least 2 folds"),
        ],
    )
    def test_unusable_settings(self, options, text):
        """Each with what was expected."""
        with pytest.raises(InvalidInputError, match=text):
            regressor(**options).fit(X, y)

    def test_a_classifier_student_without_weights(self):
        """It cannot be taught by weighted copies."""
        with pytest.raises(InvalidInputError, match="takes sample_weight"):
            classifier(student=KNeighborsClassifier()).fit(iris, species)

    def test_ctrl_c_loses_nothing(self, tmp_path):
        """A second fit resumes from the labels of the first."""
        calls = []

        class Slow(Ridge):
            def fit(self, X, y, sample_weight=None):
                calls.append(len(X))
                if len(calls) == 4:
                    raise KeyboardInterrupt
                return super().fit(X, y, sample_weight=sample_weight)

        model = regressor(teacher=Slow(0.1), store=tmp_path / "labels")
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
        calls.clear()
        calls.extend([0] * 10)
        resumed = model.fit(X, y)
        assert len(calls) == 10 + 13, "two folds, ten pairs of folds and the refit were left"
        np.testing.assert_allclose(resumed.predict(X), regressor().fit(X, y).predict(X))


def test_bootstrap_interval_covers_the_truth():
    """The 95 % interval of a mean, over 200 samples, misses about one in twenty."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        losses = rng.exponential(size=200)
        _, low, high = loss_interval(
            losses, None, np.ones(200), root=False, n_resamples=200, random_state=seed
        )
        hits += low <= 1.0 <= high
    assert 180 <= hits <= 199


def test_grouped_intervals_are_wider():
    """Copies of a row bring no certainty."""
    losses = np.repeat(np.random.default_rng(0).exponential(size=50), 10)
    ones, groups = np.ones(500), np.repeat(np.arange(50), 10)
    _, low, high = loss_interval(losses, None, ones, root=False)
    _, wide_low, wide_high = loss_interval(losses, None, ones, groups, root=False)
    assert wide_high - wide_low > 2 * (high - low)


def regressor_like(model):
    """The same estimator, fitted on plain arrays."""
    return clone(model).set_output(transform="default").fit(X, y)


class TestReportRefuses:
    """A report on rows that do not fit says so."""

    def test_labels_that_were_not_there_in_training(self):
        """They are named."""
        model = classifier().fit(iris, species)
        with pytest.raises(InvalidInputError, match=r"among \[0, 1, 2\]; got \[9\] too"):
            model.report(iris, np.where(species == 2, 9, species))

    def test_targets_of_another_length(self):
        """scikit-learn's own words."""
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            regressor().fit(X, y).report(X, y[:5])


def test_a_row_of_weight_zero_is_labelled_by_nobody_and_loses_no_stored_label(tmp_path):
    """The table stays whole, so stored labels still belong to it."""
    weight = np.ones(len(X))
    weight[::5] = 0.0
    labels = cross_val_predict(Ridge(0.1), X, y)
    stored = LabelStore(tmp_path).write(
        name="ridge",
        fingerprint="1",
        inputs=X,
        quantities=TeacherEnsemble([Ridge()]).quantities,
        arrays={"value": labels},
    )
    stored = stored or LabelStore(tmp_path).read(teacher="ridge", inputs=X)
    model = regressor(teacher=stored).fit(X, y, sample_weight=weight)
    assert not model.oof_.covered[::5].any()
    assert np.isfinite(model.predict(X)).all()


class TestReviewed:
    """What a reviewer broke once."""

    @quiet_about_teachers
    def test_rows_of_weight_zero_are_no_rows_anywhere(self):
        """Neither in augmentation, nor in the final teachers, nor as a class."""
        rng = np.random.default_rng(0)
        noise = 10 * rng.normal(size=(200, X.shape[1]))
        table, target = np.vstack([X, noise]), np.r_[y, 1e4 * rng.normal(size=200)]
        weight = np.r_[np.ones(len(X)), np.zeros(200)]
        options = {"augment": "column", "teacher_weight": 1.0}
        with_noise = regressor(**options).fit(table, target, sample_weight=weight)
        without = regressor(**options).fit(X, y, sample_weight=np.ones(len(X)))
        np.testing.assert_allclose(with_noise.predict(X), without.predict(X))
        np.testing.assert_allclose(
            with_noise.teacher_.predict(X)["value"], without.teacher_.predict(X)["value"]
        )
        model = classifier().fit(iris, species, (species < 2).astype(float))
        np.testing.assert_array_equal(model.classes_, [0, 1])
        assert model.transform(iris).shape == (150, 2)

    @pytest.mark.parametrize("augment", ["column", "neighbour"])
    def test_ordinary_frames_can_be_augmented(self, augment):
        """Whole-number names, nullable columns, booleans and text."""
        learner = make_pipeline(
            FunctionTransformer(numbers_only), HistGradientBoostingRegressor(max_iter=5)
        )
        options = {"teacher": learner, "student": learner, "augment": augment, "cv": 3}
        plain = pd.DataFrame(X)
        whole = pd.array(np.arange(len(X)) % 7, dtype="Int64")
        whole[::9] = pd.NA
        rich = pd.DataFrame(
            {
                "x": pd.array(X[:, 2], dtype="Float64"),
                "n": whole,
                "flag": pd.array(X[:, 0] > 0, dtype="boolean"),
                "text": np.where(X[:, 1] > 0, "a", "b"),
            }
        )
        counts = pl.Series([None if i % 9 == 0 else i % 7 for i in range(len(X))])
        polars_frame = pl.DataFrame({"x": X[:, 2], "n": counts})
        for frame in (plain, rich, polars_frame):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DistillationWarning)
                model = regressor(**options, teacher_weight=1.0).fit(frame, y)
            assert np.isfinite(model.predict(frame)).all()

    def test_a_column_of_predictions_calibrates_like_a_row(self):
        """Functions that return (n, 1) do not broadcast against y."""
        flat = {"a": lambda X: X[:, 2] * 900 + 152, "b": lambda X: X[:, 8] * 900 + 152}
        tall = {
            "a": lambda X: X[:, [2]] * 900 + 152,
            "b": lambda X: X[:, [8]] * 900 + 152,
        }
        rules = []
        for teachers in (flat, tall):
            ensemble = TeacherEnsemble(teachers, weights="fit", aggregator="inverse_variance")
            calibrated = ensemble.calibrate(ensemble.cross_predict(X, y), y)
            rules.append([*calibrated.rules["value"].variances, *calibrated.weights])
        np.testing.assert_allclose(rules[0], rules[1])

    def test_teacher_loss_is_held_out_for_learnt_weights_too(self):
        """Two hundred functions of noise cannot beat the variance of the target."""
        rng = np.random.default_rng(0)
        table, target = rng.normal(size=(60, 3)), rng.normal(size=60)
        noise = {
            f"n{k}": lambda X, k=k: np.random.default_rng(k).normal(size=len(X)) for k in range(200)
        }
        model = regressor(teacher=TeacherEnsemble(noise, weights="fit"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DistillationWarning)
            model.fit(table, target)
        assert model.teacher_loss_ > 0.9 * target.var()

    def test_a_learner_without_weights_can_have_further_rows(self):
        """Nobody gave weights, so none are needed."""
        model = regressor(student=KNeighborsRegressor(3), augment="column", teacher_weight=0.5)
        assert model.fit(X, y).predict(X).shape == y.shape

    def test_unlabelled_rows_are_checked(self):
        """Another width, another kind, none at all."""
        with pytest.raises(ValueError, match="features"):
            regressor().fit(X, y, X_unlabelled=X[:, :3])
        with pytest.raises(ValueError, match="0 sample"):
            regressor().fit(X, y, X_unlabelled=X[:0])
        with pytest.raises(InvalidInputError, match="X_unlabelled as the ndarray"):
            regressor().fit(X, y, X_unlabelled=pd.DataFrame(X))

    def test_a_report_on_targets_of_another_shape_is_refused(self):
        """Nothing is broadcast, and NaN is no target."""
        model = regressor().fit(X, y)
        with pytest.raises(InvalidInputError, match="of 1 outputs"):
            model.report(X, np.c_[y, y])
        with pytest.raises(InvalidInputError, match="finite targets"):
            model.report(X, np.where(y > 100, np.nan, y))

    def test_two_folds_cannot_judge_and_a_worse_teacher_is_declined(self):
        """A warning, and the smaller loss decides."""
        with pytest.warns(DistillationWarning) as said:
            worse = regressor(teacher=DummyRegressor(), student=Ridge(0.1), cv=2).fit(X, y)
        assert ["3 folds" in str(entry.message) for entry in said] == [False, True]
        assert worse.teacher_weight_ == 0.0
        with pytest.warns(DistillationWarning, match="need at least 3 folds"):
            better = regressor(cv=2).fit(X, y)
        assert better.teacher_weight_ == 1.0

    def test_harmonising_by_group_does_not_fit_a_student(self):
        """Its predict has no groups."""
        rule = Harmonised(Harmoniser("rank", per="group"))
        with pytest.raises(InvalidInputError, match="needs groups to predict"):
            regressor(teacher=TeacherEnsemble([Ridge()], aggregator=rule)).fit(X, y)

    def test_xgboost_learns_text_labels(self):
        """Its own classifier knows numbers only."""
        xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
        student = xgboost.XGBClassifier(n_estimators=10, n_jobs=1)
        names = np.array(["setosa", "versicolor", "virginica"])[species]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DistillationWarning)
            assert classifier(student=student).fit(iris, names).score(iris, names) > 0.9

    def test_pruning_keeps_what_was_learnt(self):
        """Weights to be fitted stay so; variances follow their teachers."""
        models = {"a": Ridge(1e-3), "b": Ridge(1.1e-3), "c": LinearRegression(positive=True)}
        ensemble = TeacherEnsemble(models, weights="fit", aggregator="inverse_variance")
        oof = ensemble.cross_predict(X, y)
        kept, dropped = ensemble.calibrate(oof, y).prune(oof, y)
        assert len(dropped) == 1
        assert len(kept.rules["value"].variances) == 2
        assert kept.fit(X, y).predict(X)["value"].shape == y.shape
        assert ensemble.prune(oof, y)[0].fit_weights


def numbers_only(frame):
    """Turn any frame into numbers, text into lengths."""
    if isinstance(frame, pl.DataFrame):
        frame = frame.to_pandas()
    columns = [
        frame.iloc[:, k].astype(str).str.len()
        if str(frame.dtypes.iloc[k]) in {"object", "str", "string"}
        else frame.iloc[:, k].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        for k in range(frame.shape[1])
    ]
    return np.column_stack(columns)
