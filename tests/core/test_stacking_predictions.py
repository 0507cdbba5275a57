"""The prediction matrix in all its forms, and the folds of its rows."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold, TimeSeriesSplit

from scikd import TeacherEnsemble
from scikd.exceptions import InvalidInputError
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import check_problem, deal_folds, splits
from tests.reference import stacking_combiners as naive

rng = np.random.default_rng(0)
P = rng.normal(size=(40, 3))
y = P.mean(axis=1) + rng.normal(size=40)


class TestForms:
    """All of them hold the same."""

    @pytest.mark.parametrize(
        "given",
        [
            P,
            P.tolist(),
            pd.DataFrame(P),
            pd.DataFrame(P).astype("Float64"),
            pl.DataFrame(P),
            {"a": P[:, 0], "b": P[:, [1]], "c": pd.Series(P[:, 2])},
        ],
        ids=["array", "list", "pandas", "nullable", "polars", "mapping"],
    )
    def test_numbers(self, given):
        np.testing.assert_array_equal(Predictions.of(given).values, P)

    def test_names_are_those_of_the_columns(self):
        frame = pd.DataFrame(P, columns=["a", "b", "c"])
        assert Predictions.of(frame).names == ("a", "b", "c")
        assert Predictions.of(pl.DataFrame(frame)).names == ("a", "b", "c")
        assert Predictions.of({"x": y, "y": y}).names == ("x", "y")
        assert Predictions.of(P).names == ("model0", "model1", "model2")

    def test_missing_entries_of_frames(self):
        gaps = P.copy()
        gaps[3, 1] = np.nan
        frame = pd.DataFrame(gaps).astype("Float64")
        frame.iloc[3, 1] = pd.NA
        for table in (frame, pl.DataFrame(gaps, nan_to_null=True)):
            np.testing.assert_array_equal(Predictions.of(table).values, gaps)

    def test_single_precision_is_not_copied(self):
        single = P.astype(np.float32)
        assert np.shares_memory(Predictions.of(single).values, single)
        assert Predictions.of(single).filled().dtype == np.float32

    def test_out_of_fold_predictions(self):
        ensemble = TeacherEnsemble({"a": Ridge(1.0), "b": Ridge(9.0)})
        oof = ensemble.cross_predict(P, y, cv=4)
        found = Predictions.of(oof)
        assert found.names == ("a", "b")
        np.testing.assert_array_equal(found.values, oof.members.reshape(2, 40).T)

    def test_frames_of_classes_are_put_in_one_order(self):
        proba = rng.dirichlet(np.ones(3), size=(2, 5))
        first = pd.DataFrame(proba[0], columns=["x", "y", "z"])
        second = pd.DataFrame(proba[1], columns=["x", "y", "z"])[["z", "x", "y"]]
        found = Predictions.of({"a": first, "b": second})
        assert found.classes.tolist() == ["x", "y", "z"]
        np.testing.assert_array_equal(found.values, np.moveaxis(proba, 0, 1))
        again = Predictions.of({"a": first, "b": second}, classes=["z", "y", "x"])
        np.testing.assert_array_equal(again.values, np.flip(np.moveaxis(proba, 0, 1), axis=2))

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (P[:, 0], "n_models"),
            (P[:, :0], "n_models"),
            (csr_array(P), "dense"),
            ([["a"]], "numbers"),
            ({"a": y, "b": y[:3]}, "one shape"),
            ({}, "one shape"),
            (np.where(P[2, 1] == P, np.inf, P), "'model1' predicts infinity in row 2"),
        ],
    )
    def test_unusable_ones(self, given, text):
        with pytest.raises(InvalidInputError, match=text):
            Predictions.of(given)

    def test_names_and_classes_must_fit(self):
        with pytest.raises(InvalidInputError, match="3 different names"):
            Predictions.of(P, names=["a", "a", "b"])
        with pytest.raises(InvalidInputError, match="one class"):
            Predictions.of(P, classes=[0, 1, 2])
        frames = {"a": pd.DataFrame(P, columns=list("xyz")), "b": pd.DataFrame(P)}
        with pytest.raises(InvalidInputError, match="'b' has columns"):
            Predictions.of(frames)


class TestMissing:
    """Missing entries are the mean of those present."""

    def test_filled(self):
        gaps = np.where(rng.random(P.shape) < 0.4, np.nan, P)
        gaps[5] = np.nan
        found = Predictions.of(gaps)
        np.testing.assert_allclose(found.filled(), naive.filled(gaps))
        np.testing.assert_array_equal(found.present, ~np.isnan(gaps))
        np.testing.assert_array_equal(found.covered, ~np.isnan(gaps).all(axis=1))

    def test_nothing_is_copied_where_nothing_is_missing(self):
        assert Predictions.of(P).filled() is P

    def test_half_a_distribution_is_none(self):
        proba = rng.dirichlet(np.ones(3), size=(6, 4))
        gaps = proba.copy()
        gaps[2, 1, 0] = np.nan
        found = Predictions.of(gaps)
        assert not found.present[2, 1]
        np.testing.assert_allclose(found.filled()[2, 1], proba[2, [0, 2, 3]].mean(axis=0))


class TestProblem:
    """All that does not fit is said at once."""

    def test_all_mismatches_are_named(self):
        with pytest.raises(InvalidInputError) as failure:
            check_problem(P, y[:5], -np.ones(40), groups=[1, 2], fold=np.ones((40, 2)))
        for text in ("y has 5", "40 sample weights are negative", "groups has 2", "fold: "):
            assert text in str(failure.value)

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"y": np.where(y == y[0], np.nan, y)}, "1 NaN"),
            ({"sample_weight": np.zeros(40)}, "all sample weights are zero"),
            ({"P": np.full((40, 2), np.nan)}, "0 are predicted"),
            ({"P": rng.random((40, 2, 2))}, "y holds numbers"),
            ({"y": None}, "y is None"),
            ({"fold": [None] * 2 + ["a"] * 38}, "fold is missing .* in 2 rows"),
            ({"groups": np.r_[np.nan, np.zeros(39)]}, "groups is missing .* in 1 rows"),
            ({"row_id": pd.array([pd.NA, *range(39)])}, "row_id is missing .* in 1 rows"),
        ],
    )
    def test_unusable(self, options, text):
        with pytest.raises(InvalidInputError, match=text):
            check_problem(**{"P": P, "y": y, **options})

    def test_labels_become_numbers_of_the_classes_given(self):
        proba = rng.dirichlet(np.ones(3), size=(4, 2))
        labels = np.array(["b", "a", "c", "b"])
        assert check_problem(proba, labels, classifier=True).y.tolist() == [1, 0, 2, 1]
        given = check_problem(proba, labels, classes=["c", "b", "a"], classifier=True)
        assert given.y.tolist() == [1, 2, 0, 1]
        with pytest.raises(InvalidInputError, match=r"y holds \['c'\]"):
            check_problem(proba, labels, classes=["a", "b", "x"], classifier=True)
        with pytest.raises(InvalidInputError, match="3 probabilities per model"):
            check_problem(proba, labels == "a", classifier=True)

    def test_rows_without_a_prediction_do_not_count(self):
        gaps = P.copy()
        gaps[7] = np.nan
        assert np.flatnonzero(check_problem(gaps, y).weight == 0).tolist() == [7]

    def test_copies_are_found_whatever_the_sign_of_zero(self):
        table = np.array([[0.0, 1.0], [-0.0, 1.0], [np.nan, 1.0], [np.nan, 1.0], [0.0, 1.0]])
        problem = check_problem(table, [1.0, 1.0, 1.0, 1.0, 2.0])
        assert problem.copies.tolist() == [0, 0, 1, 1, 2]

    def test_groups_that_share_a_recurring_row_are_one(self):
        groups = np.arange(40) // 10
        row_id = np.arange(40)
        row_id[10] = row_id[9]
        problem = check_problem(P, y, groups=groups, row_id=row_id)
        assert problem.groups.tolist() == (np.array([0, 0, 1, 2])[groups]).tolist()


@settings(max_examples=40)
@given(
    st.integers(2, 6), st.integers(1, 30), st.booleans(), st.booleans(), st.integers(0, 2**31 - 1)
)
def test_folds_partition_the_rows_and_split_no_group(n_folds, n_groups, dealt, proba, seed):
    draw = np.random.default_rng(seed)
    n = 60
    table = draw.dirichlet(np.ones(3), size=(n, 2)) if proba else draw.normal(size=(n, 2))
    truth = draw.permutation(np.arange(n) % 3) if proba else draw.normal(size=n)
    weight = draw.integers(0, 3, n).astype(float)
    groups = draw.integers(0, n_groups, n)
    fold = None if dealt else draw.integers(0, n_folds, n)
    options = {"fold": fold, "groups": groups, "classifier": proba}
    problem = check_problem(table, truth, weight, **options)
    found = splits(problem, n_folds if dealt else None, random_state=seed)
    heard = np.flatnonzero(weight)
    if not found:
        assert len(np.unique(groups[heard])) == 1 or not dealt
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in found])), heard)
    for train, test in found:
        assert not set(groups[train]) & set(groups[test])
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), heard)


def test_rows_are_dealt_evenly_class_by_class():
    table = rng.dirichlet(np.ones(2), size=(103, 2))
    labels = np.arange(103) < 11
    fold = deal_folds(check_problem(table, labels, classifier=True), 5, random_state=0)
    assert np.ptp(np.bincount(fold)) <= 1
    assert np.ptp(np.bincount(fold[labels])) <= 1


def test_a_recurring_row_lies_in_the_fold_of_most_of_its_weight():
    problem = check_problem(
        P[:5], y[:5], [1, 1, 1, 3, 1], fold=[5, 5, 7, 7, 5], row_id=[0, 0, 0, 1, 1]
    )
    assert problem.fold.tolist() == [0, 0, 0, 1, 1]


class TestSplitters:
    """A splitter is taken as it is, but trains on nobody who is tested."""

    def test_partial_ones(self):
        found = splits(check_problem(P, y), TimeSeriesSplit(4))
        for (train, test), (learnt, tested) in zip(TimeSeriesSplit(4).split(P), found, strict=True):
            np.testing.assert_array_equal(train, learnt)
            np.testing.assert_array_equal(test, tested)

    def test_training_rows_whose_group_is_tested_are_left_out(self):
        groups = np.arange(40) // 7
        cv = list(KFold(4).split(P))
        for train, test in splits(check_problem(P, y, groups=groups), cv):
            assert not set(groups[train]) & set(groups[test])
            assert len(train) + len(test) < 40

    def test_group_splitters_get_the_groups(self):
        groups = np.arange(40) % 7
        for train, test in splits(check_problem(P, y, groups=groups), GroupKFold(7)):
            assert len(set(groups[test])) == 1
            assert not set(groups[train]) & set(groups[test])

    def test_unusable_ones(self):
        with pytest.raises(InvalidInputError, match="at least 2 folds"):
            splits(check_problem(P, y), 1)
        groups = np.zeros(40)
        with pytest.raises(InvalidInputError, match="Fold 0 has 0 training"):
            splits(check_problem(P, y, groups=groups), list(KFold(4).split(P)))
