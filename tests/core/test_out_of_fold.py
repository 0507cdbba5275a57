"""Out-of-fold predictions: honest, for any splitter."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import LinearSVC

from scikd.exceptions import InvalidInputError, MissingPredictionsWarning, TeacherError
from scikd.labels import LabelStore
from scikd.nested import nested_predict
from scikd.out_of_fold import OutOfFold, align_classes, cross_predict, make_folds
from scikd.parallel import fan_out
from scikd.teachers import CallableTeacher, as_teacher

X, y = load_diabetes(return_X_y=True)
iris, species = load_iris(return_X_y=True)
OLS = as_teacher(LinearRegression(), "ols")


def out_of_fold(teachers, X, y, cv, **options):
    """Split and predict quietly."""
    classes = options.get("classes")
    folds = make_folds(X, y, cv, groups=options.pop("groups", None), classifier=classes is not None)
    return cross_predict(teachers, X, y, folds, progress=False, **options)


def test_a_partition_matches_cross_val_predict():
    """Where scikit-learn can do it, the numbers are the same."""
    oof = out_of_fold([OLS], X, y, 5)
    np.testing.assert_allclose(oof.members[0], cross_val_predict(LinearRegression(), X, y, cv=5))
    model = LogisticRegression(max_iter=1000)
    classes = np.unique(species)
    ours = out_of_fold([as_teacher(model)], iris, species, 5, classes=classes).members[0]
    theirs = cross_val_predict(model, iris, species, cv=5, method="predict_proba")
    np.testing.assert_allclose(ours, theirs)


@given(
    st.integers(10, 60),
    st.sampled_from(
        [
            KFold(3),
            KFold(4, shuffle=True, random_state=0),
            TimeSeriesSplit(3),
            ShuffleSplit(2, test_size=0.3, random_state=0),
            RepeatedKFold(n_splits=2, n_repeats=2, random_state=0),
        ]
    ),
)
def test_no_row_is_ever_predicted_by_a_teacher_that_saw_it(n_samples, splitter):
    """A nearest-neighbour teacher would give itself away: it repeats the target of a row it saw."""
    inputs = np.arange(n_samples, dtype=float)[:, None]
    targets = np.arange(n_samples, dtype=float)
    oof = out_of_fold([as_teacher(KNeighborsRegressor(1))], inputs, targets, splitter)
    covered = np.zeros(n_samples, dtype=int)
    for _, test in splitter.split(inputs):
        covered[test] += 1
    np.testing.assert_array_equal(oof.counts, covered)
    np.testing.assert_array_equal(np.isnan(oof.members[0]), covered == 0)
    once = covered == 1
    assert (np.abs(oof.members[0] - targets)[once] >= 1).all()


def test_uncovered_rows_are_marked_and_never_filled():
    """A time-series split leaves its first block without a prediction."""
    oof = out_of_fold([OLS], X, y, TimeSeriesSplit(4))
    first = len(X) - 4 * (len(X) // 5)
    assert not oof.covered[:first].any()
    assert oof.covered[first:].all()
    assert np.isnan(oof.members[0, :first]).all()


def test_repeats_are_averaged():
    """Ten repeats are ten runs of one."""
    splitter = RepeatedKFold(n_splits=3, n_repeats=4, random_state=1)
    oof = out_of_fold([OLS], X, y, splitter)
    total = np.zeros(len(X))
    for train, test in splitter.split(X):
        total[test] += LinearRegression().fit(X[train], y[train]).predict(X[test]) / 4
    np.testing.assert_allclose(oof.members[0], total)
    assert (oof.counts == 4).all()


def test_groups_stay_together():
    """A group splitter gets its groups."""
    groups = np.arange(len(X)) % 7
    oof = out_of_fold([OLS], X, y, GroupKFold(7), groups=groups)
    for train, test in oof.folds:
        assert not set(groups[train]) & set(groups[test])


def test_weights_train_and_zero_weight_trains_nobody():
    """A row of weight zero is predicted, but has no say."""
    weight = np.ones(len(X))
    weight[::3] = 0.0
    noisy = y.copy()
    noisy[::3] = 1e9
    oof = out_of_fold([OLS], X, noisy, 5, sample_weight=weight)
    assert oof.covered.all()
    assert np.abs(oof.members).max() < 1e4


def test_a_class_missing_from_a_fold_gets_probability_zero():
    """The columns stay those of all classes."""
    splitter = [(np.flatnonzero(species < 2), np.flatnonzero(species == 2))]
    model = as_teacher(LogisticRegression(max_iter=1000))
    oof = out_of_fold([model], iris, species, splitter, classes=np.unique(species))
    proba = oof.members[0][species == 2]
    assert (proba[:, 2] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)


@pytest.mark.parametrize(
    "container", [pd.DataFrame, csr_matrix, pl.DataFrame, lambda X: X.tolist()]
)
def test_containers_give_the_same_numbers(container):
    """Frames, sparse matrices and lists are cut by rows."""
    expected = out_of_fold([OLS], X, y, 3).members
    np.testing.assert_allclose(out_of_fold([OLS], container(X), y, 3).members, expected, rtol=1e-6)


def test_a_teacher_that_cannot_be_trained_predicts_once():
    """A function is asked for all rows as it is."""
    calls = []

    def count(X):
        calls.append(len(X))
        return X[:, 0]

    oof = out_of_fold([CallableTeacher(count), OLS], X, y, 4)
    assert calls == [len(X)]
    np.testing.assert_array_equal(oof.members[0], X[:, 0])


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_backends_agree(backend):
    """Work that fans out gives the numbers of work that does not."""
    from joblib import parallel_config

    teachers = [OLS, as_teacher(KNeighborsRegressor(3), "knn")]
    expected = out_of_fold(teachers, X, y, 3).members
    with parallel_config(backend=backend, n_jobs=2):
        np.testing.assert_array_equal(out_of_fold(teachers, X, y, 3).members, expected)


def test_nested_labels_know_nothing_of_the_rows_that_judge_them():
    """Each training row of a fold is predicted without itself and without the fold's test rows."""
    folds = make_folds(X, y, KFold(4, shuffle=True, random_state=0))
    nested = nested_predict([OLS], X, y, folds, progress=False)
    assert len(nested) == 4
    for (train, test), part in zip(folds, nested, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(part.covered), train)
        for other_train, other_test in folds:
            rows = np.setdiff1d(other_test, test)
            if rows.size:
                seen = np.setdiff1d(other_train, test)
                expected = LinearRegression().fit(X[seen], y[seen]).predict(X[rows])
                np.testing.assert_allclose(part.members[0, rows], expected)


def test_truth_of_the_judging_rows_cannot_reach_nested_labels():
    """Changing the targets of a fold's test rows changes none of its nested labels."""
    folds = make_folds(X, y, 3)
    before = nested_predict([OLS], X, y, folds, progress=False)
    for number, (_, test) in enumerate(folds):
        lied = y.copy()
        lied[test] = 1e6
        after = nested_predict([OLS], X, lied, folds, progress=False)
        np.testing.assert_array_equal(after[number].members, before[number].members)


def test_nested_labels_of_partial_and_repeated_splitters():
    """Time series never look ahead; repeats cover all; two folds have nothing in common."""
    for number, part in enumerate(
        nested_predict([OLS], X, y, make_folds(X, y, TimeSeriesSplit(4)), progress=False)
    ):
        assert part.covered.any() == (number > 0)
    repeated = make_folds(X, y, RepeatedKFold(n_splits=3, n_repeats=2, random_state=0))
    for (train, _), part in zip(
        repeated, nested_predict([OLS], X, y, repeated, progress=False), strict=True
    ):
        np.testing.assert_array_equal(np.flatnonzero(part.covered), train)
    assert nested_predict([OLS], X, y, make_folds(X, y, 2), progress=False) == ()


def test_an_interrupted_run_resumes_from_its_store(tmp_path):
    """What was labelled before Ctrl-C is not trained again."""
    trained = []

    class Counting(KNeighborsRegressor):
        def fit(self, X, y):
            trained.append(len(X))
            if len(trained) == 3 and not (tmp_path / "again").exists():
                raise KeyboardInterrupt
            return super().fit(X, y)

    teacher = as_teacher(Counting(3), "knn")
    store = LabelStore(tmp_path / "labels")
    with pytest.raises(KeyboardInterrupt):
        out_of_fold([teacher], X, y, 4, store=store)
    (tmp_path / "again").touch()
    trained.clear()
    oof = out_of_fold([teacher], X, y, 4, store=store)
    assert len(trained) == 2, "two of four folds were done before the interruption"
    expected = cross_val_predict(KNeighborsRegressor(3), X, y, cv=4)
    np.testing.assert_array_equal(oof.members[0], expected)
    trained.clear()
    out_of_fold([teacher], X, y + 1, 4, store=store)
    assert len(trained) == 4, "other targets are other teachers"


def test_saving_and_loading(tmp_path):
    """What comes back is what was saved, folds and labels included."""
    names = np.array(["setosa", "versicolor", "virginica"])[species]
    model = as_teacher(LogisticRegression(max_iter=1000))
    oof = out_of_fold([model], iris, names, 3, classes=np.unique(names))
    back = OutOfFold.load(oof.save(tmp_path / "oof"))
    np.testing.assert_array_equal(back.members, oof.members)
    np.testing.assert_array_equal(back.counts, oof.counts)
    np.testing.assert_array_equal(back.classes, oof.classes)
    assert back.names == oof.names
    for ours, theirs in zip(back.folds, oof.folds, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    ("cv", "text"),
    [
        ([], "at least one fold"),
        ([(np.arange(10), np.arange(5, 15))], "5 rows in both its training and its test part"),
        ([(np.arange(10), np.array([], dtype=int))], "0 test rows"),
        ([(np.arange(10), np.array([999]))], "row numbers from 0 to 441"),
        ([(np.arange(10), np.array([-1]))], "row numbers from 0 to 441"),
    ],
)
def test_unusable_splitters_are_refused(cv, text):
    """Overlap, emptiness and rows that do not exist."""
    with pytest.raises(InvalidInputError, match=text):
        make_folds(X, y, cv)


def test_teachers_of_different_kinds_are_refused():
    """A classifier without probabilities does not go with one that has them."""
    with pytest.raises(InvalidInputError, match="CalibratedClassifierCV"):
        out_of_fold(
            [as_teacher(LogisticRegression()), as_teacher(LinearSVC())],
            iris,
            species,
            3,
            classes=np.unique(species),
        )


def test_teachers_of_different_classes_are_refused():
    """The message lists the classes that nobody else knows."""
    with pytest.raises(TeacherError, match=r"knows the classes \[3\]"):
        align_classes(np.ones((2, 2)) / 2, np.array([0, 3]), np.array([0, 1]), "t")
    with pytest.raises(TeacherError, match="probabilities of shape"):
        align_classes(np.ones((2, 3)) / 3, None, np.array([0, 1]), "t")


def test_work_is_not_shared_among_no_jobs():
    with pytest.raises(InvalidInputError, match=r"at least 1 job, or -1 .*; got 0\.$"):
        list(fan_out(len, [("ab",)], n_jobs=0, progress=False))
    assert list(fan_out(len, [("ab",)], n_jobs=1, progress=False)) == [2]


class Picky(LinearRegression):
    """Fails where the first row is among the training rows."""

    def fit(self, X, y, sample_weight=None):
        """Refuse a row."""
        if (X == FIRST).all(axis=1).any():
            raise ValueError("not this row")
        return super().fit(X, y, sample_weight)


FIRST = X[0]


def test_a_failure_is_an_error_or_missing():
    """It costs the rows of its folds; where a row has other folds, the mean is over these."""
    picky = as_teacher(Picky(), "picky")
    with pytest.raises(TeacherError, match="'picky' failed to train: ValueError: not this row"):
        out_of_fold([OLS, picky], X, y, 5)
    cv = RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)
    with pytest.warns(MissingPredictionsWarning, match="missing in fold") as warned:
        oof = out_of_fold([picky, OLS], X, y, cv, errors="missing")
    assert len(warned) == 4
    np.testing.assert_array_equal(oof.members[1], out_of_fold([OLS], X, y, cv).members[0])
    total, count = np.zeros(len(X)), np.zeros(len(X))
    for train, test in oof.folds:
        if 0 in test:
            total[test] += LinearRegression().fit(X[train], y[train]).predict(X[test])
            count[test] += 1
    assert set(count) == {0, 1, 2}
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(oof.members[0], total / count)


@pytest.mark.filterwarnings("ignore::scikd.exceptions.MissingPredictionsWarning")
def test_failures_of_nested_and_of_frozen_teachers_are_missing_too():
    """Pairs of folds without a prediction stay empty, and so does a function that fails."""
    picky, broken = as_teacher(Picky(), "picky"), CallableTeacher(lambda _: 1 / 0, "broken")
    folds = make_folds(X, y, KFold(3))
    options = {"progress": False, "errors": "missing"}
    nested = nested_predict([picky, OLS], X, y, folds, **options)
    plain = nested_predict([OLS], X, y, folds, progress=False)
    for number, (part, alone) in enumerate(zip(nested, plain, strict=True)):
        np.testing.assert_array_equal(part.members[1], alone.members[0])
        # The first row is of fold 0, and so trains whom folds 1 and 2 leave out.
        expected = alone.members[0].copy()
        expected[folds[{0: 0, 1: 2, 2: 1}[number]][1]] = np.nan
        np.testing.assert_array_equal(part.members[0], expected)
    oof = cross_predict([broken, OLS], X, y, folds, **options)
    assert np.isnan(oof.members[0]).all()
    with pytest.raises(TeacherError, match="All of 1 teachers failed in every fold"):
        cross_predict([broken], X, y, folds, **options)
    with pytest.raises(InvalidInputError, match="'raise' or 'missing'; got 'ignore'"):
        cross_predict([OLS], X, y, folds, progress=False, errors="ignore")
