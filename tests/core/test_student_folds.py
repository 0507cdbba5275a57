"""Folds, mixtures, soft labels and augmentation: the parts that a student is made with."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.tree import DecisionTreeRegressor

from scikd.exceptions import InvalidInputError
from scikd.folds import distinct_rows, grouped_folds
from scikd.students.augmentation import ColumnResample, NeighbourSwap, as_augmenter
from scikd.students.mixing import best_weight, choose_mixture, mean_and_error
from scikd.students.soft_labels import SoftClassifier, resolve_soft_labels, simplex_projection

X, y = load_diabetes(return_X_y=True)
iris, species = load_iris(return_X_y=True)


class TestFolds:
    """Copies of a row, and groups, stay together."""

    @given(st.lists(st.integers(0, 8), min_size=12, max_size=60), st.integers(2, 4))
    def test_copies_of_a_row_stay_in_one_fold(self, kinds, cv):
        """Whatever the number of copies."""
        rows = np.array(kinds, dtype=float)[:, None]
        if len(set(kinds)) < cv:
            with pytest.raises(InvalidInputError, match="distinct samples"):
                grouped_folds(rows, rows[:, 0], cv)
            return
        folds = grouped_folds(rows, rows[:, 0], cv, random_state=0)
        held = np.concatenate([test for _, test in folds])
        np.testing.assert_array_equal(np.sort(held), np.arange(len(rows)))
        for train, test in folds:
            assert not set(rows[train, 0]) & set(rows[test, 0])

    def test_classes_are_dealt_evenly(self):
        """Every fold has its share of every class, rare ones included."""
        labels = np.r_[np.zeros(100, int), np.ones(7, int)]
        rows = np.arange(107.0)[:, None]
        folds = grouped_folds(rows, labels, 5, classifier=True, random_state=1)
        counts = np.array([np.bincount(labels[test], minlength=2) for _, test in folds])
        assert np.ptp(counts[:, 0]) <= 1
        assert np.ptp(counts[:, 1]) <= 1

    def test_groups_that_share_a_row_are_joined(self):
        """A copy of a row in another group ties the two groups together."""
        rows = np.arange(12.0)[:, None]
        rows[6] = rows[0]
        groups = np.repeat(np.arange(6), 2)
        for train, test in grouped_folds(rows, rows[:, 0], 3, groups=groups, random_state=0):
            assert not set(groups[train]) & set(groups[test])
            assert not set(rows[train, 0]) & set(rows[test, 0])

    @pytest.mark.parametrize(
        "container",
        [np.asarray, csr_matrix, pd.DataFrame, pl.DataFrame],
    )
    def test_equal_rows_get_equal_numbers(self, container):
        """In every container; -0 is 0 and NaN is NaN."""
        rows = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.0]])
        np.testing.assert_array_equal(distinct_rows(container(rows)), [0, 1, 0, 1])
        nan = np.array([[np.nan], [1.0], [np.float64("nan")]])
        np.testing.assert_array_equal(distinct_rows(nan), [0, 1, 0])
        mixed = pd.DataFrame({"a": ["x", "y", "x"], "b": [1, 2, 1]})
        np.testing.assert_array_equal(distinct_rows(mixed), [0, 1, 0])

    @pytest.mark.parametrize("cv", [0, 1, 500])
    def test_too_many_folds_are_refused(self, cv):
        """The message says how many there are."""
        with pytest.raises(InvalidInputError, match="n_samples=442 distinct samples"):
            grouped_folds(X, y, cv)


class TestMixing:
    """The closed form, and when it is used."""

    @given(st.floats(-2, 3), st.integers(0, 1000))
    def test_closed_form_recovers_the_weight_it_was_made_with(self, weight, seed):
        """If the truth is a mixture of the two fits, the closed form finds it."""
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(2, 40, 2))
        truth = (1 - weight) * a + weight * b
        assert best_weight(truth, a, b, rng.uniform(0.1, 1, 40)) == pytest.approx(weight, abs=1e-9)

    def test_closed_form_is_the_minimum_of_the_held_out_loss(self):
        """Against a grid, for a linear learner, where two fits are one."""
        truth, labels = y, y + np.random.default_rng(0).normal(scale=60, size=len(y))
        train, test = np.arange(300), np.arange(300, 442)

        def held_out(w):
            target = (1 - w) * truth[train] + w * labels[train]
            return Ridge(0.1).fit(X[train], target).predict(X[test])[:, None]

        ones = np.ones(len(test))
        best = best_weight(truth[test, None], held_out(0.0), held_out(1.0), ones)
        grid = np.linspace(best - 1, best + 1, 201)
        losses = [np.mean((held_out(w)[:, 0] - truth[test]) ** 2) for w in grid]
        assert grid[np.argmin(losses)] == pytest.approx(best, abs=0.011)

    def test_equal_fits_have_no_best_weight(self):
        """NaN, and the choice falls on the truth."""
        a = np.ones((5, 1))
        assert np.isnan(best_weight(a, a, a, np.ones(5)))
        choice = choose_mixture(lambda w: a, lambda p: np.zeros(5), a, np.ones(5))
        assert choice.weight == 0.0
        assert len(choice.candidates) == 2

    def test_a_mixture_must_gain_more_than_one_standard_error(self):
        """A gain within the noise is declined, a clear one is taken; bounds clip."""
        rng = np.random.default_rng(0)
        truth = rng.normal(size=(400, 1))
        noise = rng.normal(size=(2, 400, 1))

        def choose(scale, bounds=(-1.0, 2.0)):
            def held_out(w):
                return truth + scale * ((1 - w) * noise[0] + w * noise[1])

            def loss(prediction):
                return np.square(prediction - truth)[:, 0]

            return choose_mixture(held_out, loss, truth, np.ones(400), bounds=bounds)

        clear = choose(1.0)
        assert 0.3 < clear.weight < 0.7
        assert clear.candidates[2].gain > 2 * clear.candidates[2].gain_error
        assert choose(1.0, bounds=(-1.0, 0.2)).weight == 0.2
        flat = choose_mixture(
            lambda w: truth + noise[0] + 1e-9 * w * noise[1],
            lambda p: np.square(p - truth)[:, 0],
            truth,
            np.ones(400),
        )
        assert flat.weight in {0.0, 1.0, flat.candidates[-1].weight}
        with pytest.raises(InvalidInputError, match="low < high"):
            choose(1.0, bounds=(2.0, -1.0))

    def test_standard_error_is_that_of_the_mean(self):
        """Plain rows: the textbook; weight two: the row twice in one cluster."""
        values = np.random.default_rng(0).normal(size=50)
        mean, error = mean_and_error(values, np.ones(50))
        assert mean == pytest.approx(values.mean())
        assert error == pytest.approx(values.std(ddof=1) / np.sqrt(50))
        weight = 1.0 + (np.arange(50) % 2)
        twice = np.repeat(np.arange(50), weight.astype(int))
        weighted = mean_and_error(values, weight, np.arange(50))
        repeated = mean_and_error(values[twice], np.ones(len(twice)), twice)
        assert weighted == pytest.approx(repeated)
        assert mean_and_error(np.ones(1), np.ones(1))[1] == np.inf


class TestSoftLabels:
    """Three ways to teach probabilities."""

    @given(arrays(float, (6, 4), elements=st.floats(-3, 3)))
    def test_projection_is_the_nearest_point_of_the_simplex(self, targets):
        """It is on the simplex, fixes it, and no random point of it is nearer."""
        projected = simplex_projection(targets)
        assert (projected >= 0).all()
        np.testing.assert_allclose(projected.sum(axis=1), 1.0)
        np.testing.assert_allclose(simplex_projection(projected), projected, atol=1e-12)
        others = np.random.default_rng(0).dirichlet(np.ones(4), (50, 6))
        nearest = np.linalg.norm(projected - targets, axis=1)
        assert (np.linalg.norm(others - targets, axis=2) >= nearest - 1e-9).all()

    def test_replicated_rows_minimise_the_soft_cross_entropy(self):
        """Logistic regression on copies has the gradient of the soft loss at its optimum: zero."""
        rng = np.random.default_rng(0)
        proba = rng.dirichlet(np.ones(3), len(iris))
        learner = LogisticRegression(C=1e6, max_iter=20_000, tol=1e-10)
        soft = SoftClassifier(learner, np.arange(3), "replicate").fit(iris, proba)
        design = np.column_stack([np.ones(len(iris)), iris])
        gradient = design.T @ (soft.predict_proba(iris) - proba)
        assert np.abs(gradient).max() < 0.05

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_log_odds_are_learnt_and_brought_back(self, n_classes):
        """A deep tree that can learn any table returns the (floored) probabilities."""
        proba = np.random.default_rng(1).dirichlet(np.full(n_classes, 5.0), 100)
        rows = np.arange(100.0)[:, None]
        tree = DecisionTreeRegressor(random_state=0)
        soft = SoftClassifier(tree, np.arange(n_classes), "log_odds").fit(rows, proba)
        floored = np.maximum(proba, 0.01)
        floored /= floored.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(soft.predict_proba(rows), floored, atol=1e-6)
        np.testing.assert_array_equal(soft.predict(rows), proba.argmax(axis=1))

    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
    def test_boosting_minimises_the_soft_loss_itself(self, library, n_classes):
        """LightGBM and XGBoost reach probabilities that no hard label could teach."""
        module = pytest.importorskip(library, reason=f"{library} is not installed")
        name = {"lightgbm": "LGBMRegressor", "xgboost": "XGBRegressor"}[library]
        options = {"verbose": -1} if library == "lightgbm" else {}
        learner = getattr(module, name)(n_estimators=80, n_jobs=1, **options)
        classes = np.arange(n_classes)
        assert resolve_soft_labels(learner, "auto") == "objective"
        rows = np.random.default_rng(0).uniform(size=(600, 1))
        tilt = np.column_stack([rows[:, 0] * 2 + c for c in classes]) % 2 + 0.2
        proba = tilt / tilt.sum(axis=1, keepdims=True)
        soft = SoftClassifier(learner, classes, "objective").fit(rows, proba)
        assert np.abs(soft.predict_proba(rows) - proba).mean() < 0.03

    def test_the_way_must_fit_the_learner(self):
        """Each mismatch says what to do."""
        assert resolve_soft_labels(LogisticRegression(), "auto") == "replicate"
        assert resolve_soft_labels(Ridge(), "auto") == "log_odds"
        for learner, how, text in [
            (KNeighborsClassifier(), "auto", "takes sample_weight"),
            (Ridge(), "replicate", "teaches a classifier"),
            (LogisticRegression(), "log_odds", "teaches a regressor"),
            (Ridge(), "objective", "LightGBM or XGBoost"),
            (Ridge(), "harden", "one of"),
        ]:
            with pytest.raises(InvalidInputError, match=text):
                resolve_soft_labels(learner, how)


class TestAugmentation:
    """New rows look like old ones."""

    def test_resampled_cells_come_from_their_own_column(self):
        """Every cell occurs in its column; about a fraction differ from the row's own."""
        new = ColumnResample(0.2).rows(X, 2000, np.random.RandomState(0))
        assert new.shape == (2000, X.shape[1])
        for column in range(X.shape[1]):
            assert np.isin(new[:, column], X[:, column]).all()
        random = np.random.RandomState(0)
        source = random.randint(len(X), size=2000)
        assert 0.1 < (new != X[source]).mean() < 0.2

    def test_a_swapped_row_lies_between_a_row_and_its_neighbour(self):
        """Without blur, each cell is the row's or its nearest neighbour's."""
        random = np.random.RandomState(0)
        new = NeighbourSwap(0.5, spread=1e12).rows(X, 300, random)
        source = np.random.RandomState(0).randint(len(X), size=300)
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        other = NearestNeighbors(n_neighbors=1).fit(scaled).kneighbors(return_distance=False)[:, 0]
        own, theirs = X[source], X[other[source]]
        near = np.isclose(new, own, atol=1e-9) | np.isclose(new, theirs, atol=1e-9)
        assert near.all()
        assert (~np.isclose(new, own, atol=1e-9)).mean() > 0.2

    @pytest.mark.parametrize("augmenter", [ColumnResample(0.5, noise=0.1), NeighbourSwap()])
    @pytest.mark.parametrize("library", [pd, pl])
    def test_frames_keep_names_and_kinds(self, augmenter, library):
        """Categories stay categories, whole numbers whole."""
        rng = np.random.default_rng(0)
        frame = library.DataFrame(
            {
                "size": rng.normal(size=60),
                "count": rng.integers(0, 9, 60),
                "colour": rng.choice(["red", "green", "blue"], 60),
            }
        )
        if library is pd:
            frame["colour"] = frame["colour"].astype("category")
            frame.index = rng.permutation(60) + 100
        new = augmenter.rows(frame, 90, np.random.RandomState(0))
        assert list(new.columns) == list(frame.columns)
        assert list(new.dtypes) == list(frame.dtypes)
        assert len(new) == 90
        assert set(new["colour"]) <= {"red", "green", "blue"}
        assert set(np.unique(new["count"].to_numpy())) <= set(range(9))

    def test_what_cannot_be_augmented_is_refused(self):
        """Sparse tables, single rows, unknown names, impossible shares."""
        random = np.random.RandomState(0)
        with pytest.raises(InvalidInputError, match="sparse"):
            ColumnResample().rows(csr_matrix(X), 10, random)
        with pytest.raises(InvalidInputError, match="at least 2 samples"):
            ColumnResample().rows(X[:1], 10, random)
        with pytest.raises(InvalidInputError, match="fraction in"):
            ColumnResample(0.0).rows(X, 10, random)
        with pytest.raises(InvalidInputError, match="probability in"):
            NeighbourSwap(1.5).rows(X, 10, random)
        with pytest.raises(InvalidInputError, match="spread to be positive"):
            NeighbourSwap(spread=0.0).rows(X, 10, random)
        with pytest.raises(InvalidInputError, match="'column', 'neighbour'"):
            as_augmenter("gan")
