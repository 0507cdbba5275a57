"""The benchmark of stacking: honest pools, peers that are themselves, errors that are right."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from benchmarks import _stacking_peers as peers
from benchmarks import _stacking_pools as pools
from benchmarks import _stacking_scores as scores
from benchmarks import _stacking_worker as worker
from benchmarks import stacking
from benchmarks.__main__ import main
from scikd.demo.tables import load_table


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "RUNS", tmp_path)


def _pool(models, X, y, X_test, cv, method="predict"):
    """What a stacker makes of these models: out of fold, and refitted for the test rows."""
    P = np.stack([cross_val_predict(clone(one), X, y, cv=cv, method=method) for one in models], 1)
    tested = [getattr(clone(one).fit(X, y), method)(X_test) for one in models]
    none = np.zeros(len(y), dtype=int)
    names = tuple(f"model {number}" for number in range(len(models)))
    return pools.Pool(P, y, none, none, np.stack(tested, 1), y[:0], none[:0], names)


def test_predictions_of_a_pool_come_from_models_that_did_not_see_the_row():
    """Refitting the model on the other folds gives the same numbers; test rows are in none."""
    pool = pools.load_pool("diabetes", 1, ["ols"])
    table = load_table("diabetes")
    assert not np.intersect1d(pool.row_id, pool.row_id_test).size
    tested = []
    for fold in range(5):
        kept = pool.row_id[pool.fold != fold]
        model = LinearRegression().fit(table.X[kept], table.y[kept])
        held_out = pool.fold == fold
        expected = model.predict(table.X[pool.row_id[held_out]])
        np.testing.assert_allclose(pool.P[held_out, 0], expected, rtol=1e-8)
        tested.append(model.predict(table.X[pool.row_id_test]))
    np.testing.assert_allclose(pool.P_test[:, 0], np.mean(tested, axis=0), rtol=1e-8)
    np.testing.assert_array_equal(table.y[pool.row_id_test], pool.y_test)


def test_a_pool_that_is_kept_is_not_trained_again(monkeypatch):
    """Only models whose file is not there are trained."""
    first = pools.load_pool("wine", 0, ["lda"])
    models = {"lda": "never fitted", "bayes": GaussianNB()}
    monkeypatch.setattr(pools, "base_models", lambda *_: models)
    second = pools.load_pool("wine", 0)
    np.testing.assert_array_equal(second.P[:, 0], first.P[:, 0])
    np.testing.assert_allclose(second.P.sum(axis=2), 1.0)


def test_our_stand_in_for_scikit_learns_regressor_is_that_regressor():
    """Fitted on the out-of-fold matrix it predicts what the stacker does that made the matrix."""
    X, y = load_diabetes(return_X_y=True)
    models = [LinearRegression(), Ridge(1.0), KNeighborsRegressor(7)]
    cv = KFold(5, shuffle=True, random_state=0)
    pool = _pool(models, X[:300], y[:300], X[300:], cv)
    real = StackingRegressor([(str(k), one) for k, one in enumerate(models)], cv=cv)
    real.fit(X[:300], y[:300])
    answer = peers.peers(classes=False)["StackingRegressor"](pool)
    np.testing.assert_allclose(answer.prediction, real.predict(X[300:]), rtol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_our_stand_in_for_scikit_learns_classifier_is_that_classifier(n_classes):
    """With two classes, of which it keeps one column, and with three."""
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes, :2], y[y < n_classes]
    train, test = np.arange(len(y)) % 3 > 0, np.arange(len(y)) % 3 == 0
    models = [GaussianNB(), KNeighborsClassifier(7)]
    cv = StratifiedKFold(4, shuffle=True, random_state=0)
    pool = _pool(models, X[train], y[train], X[test], cv, "predict_proba")
    members = [(str(k), one) for k, one in enumerate(models)]
    real = StackingClassifier(members, cv=cv).fit(X[train], y[train])
    answer = peers.peers(classes=True)["StackingClassifier"](pool)
    np.testing.assert_allclose(answer.prediction, real.predict_proba(X[test]), rtol=1e-6)


def test_mlxtend_finds_the_given_out_of_fold_predictions():
    """Its last step is fitted on exactly these, whatever folds it draws."""
    pool = pools.load_pool("diabetes", 0, ["ols", "knn-5", "tree"])
    answer = worker.mlxtend(pool.P, pool.y, pool.P_test)
    expected = Ridge().fit(pool.P, pool.y).predict(pool.P_test)
    np.testing.assert_allclose(answer["prediction"], expected, rtol=1e-10)
    pool = pools.load_pool("wine", 0, ["lda", "bayes"])
    flat, flat_test = (P.reshape(len(P), -1) for P in (pool.P, pool.P_test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these are not what is tested
        answer = worker.mlxtend(pool.P, pool.y, pool.P_test)
        expected = LogisticRegression().fit(flat, pool.y).predict_proba(flat_test)
    np.testing.assert_allclose(answer["prediction"], expected, rtol=1e-6)


def test_averages_use_what_they_say():
    """The best single model needs one; weights by inverse loss are ordered as the losses."""
    pool = pools.load_pool("diabetes", 0, ["ols", "knn-5", "tree"])
    combiners = peers.peers(classes=False)
    best, inverse = combiners["best single"](pool), combiners["inverse RMSE"](pool)
    losses = np.sqrt(((pool.P - pool.y[:, None]) ** 2).mean(axis=0))
    assert best.used == 1
    np.testing.assert_array_equal(best.prediction, pool.P_test[:, np.argmin(losses)])
    np.testing.assert_allclose(inverse.weights * losses, (inverse.weights * losses)[0])


def test_losses_are_those_of_scikit_learn():
    """The logarithmic one with probabilities of zero too."""
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), 50)
    y = random.integers(3, size=50)
    p[0] = np.eye(3)[(y[0] + 1) % 3]
    assert scores.row_losses(y, p).mean() == pytest.approx(log_loss(y, p))


def test_calibration_error_tells_honest_probabilities_from_sharpened_ones():
    """Drawn from the probabilities it is noise; sharpened to certainty it is the error rate."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1.0, 30_000)
    p = np.stack([confidence, 1.0 - confidence], axis=1)
    y = (random.uniform(size=len(p)) > confidence).astype(int)
    assert scores.calibration_error(y, p) < 0.01
    sure = np.tile([1.0, 0.0], (len(y), 1))
    assert scores.calibration_error(y, sure) == pytest.approx(y.mean())


def test_errors_of_differences_are_paired_and_keep_rows_together():
    """A constant gap has no error; rows that recur ten times tell no more than once."""
    random = np.random.default_rng(0)
    loss, ids = random.exponential(size=400), np.arange(400)
    gap = random.normal(size=400)
    split = {"mean": loss, "worse": loss + 1.0, "noisy": loss + gap}
    one = scores.score([split], [ids], root=False)
    assert one.difference("worse", "mean") == pytest.approx((1.0, 0.0, 1.0, 1.0), abs=1e-9)
    _, error, low, high = one.difference("noisy", "mean")
    assert error == pytest.approx(gap.std() / 20, rel=0.1)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    repeated = {name: np.repeat(values, 10) for name, values in split.items()}
    again = scores.score([repeated], [np.repeat(ids, 10)], root=False)
    np.testing.assert_allclose(again.drawn, one.drawn)


def test_ranks_are_of_those_who_took_part_everywhere():
    """Ties share their rank."""
    ids = np.arange(40)
    a = scores.score([{"x": ids + 1.0, "y": ids + 2.0, "z": ids + 0.0}], [ids], root=True)
    b = scores.score([{"x": ids + 1.0, "y": ids + 1.0}], [ids], root=True)
    assert scores.mean_ranks([a, b]) == {"x": 1.25, "y": 1.75}


def test_our_combiners_stand_beside_the_peers(monkeypatch):
    """They get folds and row ids; what they use is counted by their weights."""

    class Picky(LinearRegression):
        def fit(self, P, y, fold, row_id):
            assert fold.shape == row_id.shape == y.shape
            self.weights_ = np.array([0.0, 1.0])
            return super().fit(P, y)

    ours = {"regression": {"picky": Picky}, "classification": {}}
    monkeypatch.setattr(stacking, "OURS", ours)
    monkeypatch.setattr(stacking, "answers_of_others", lambda pool, folder, slow: {})
    held = stacking.contest("diabetes", 2, ["ols", "knn-5"], slow=True)
    number = held.scores.names.index("picky")
    assert held.used[:, number].tolist() == [1.0, 1.0]
    ols = held.scores.names.index("OLS")
    np.testing.assert_allclose(held.scores.losses[:, number], held.scores.losses[:, ols])


@pytest.mark.slow
def test_quick_benchmark_of_stacking_runs(capsys):
    """The quick form, as a user would call it."""
    assert not main(["stacking", "--quick"])
    assert "diabetes: OLS" in capsys.readouterr().out
