"""Pools of class probabilities: literal twins, general optimisers, and what has to hold always."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd.exceptions import InvalidInputError
from scikd.stacking import BestPool, GreedyPool, LinearPool, LogPool, MeanPool
from scikd.stacking._likelihood import linear_weights
from scikd.stacking.pool_kernels import candidate_losses, linear_pass, log_pass
from tests.reference import stacking_pools as twin

POOLS = [MeanPool(), BestPool(), LinearPool(), GreedyPool(n_steps=30), LogPool()]
FEATURES = "the check's columns are features, and a weighted mean of features is no classifier"
TWICE = "the check's folds hold the same rows, which must not be learnt from and tested on"


def expected_failures(estimator):
    """Return the checks that an estimator is known to fail, each with its reason."""
    if isinstance(estimator, LogPool):
        return {"check_sample_weight_equivalence_on_dense_data": TWICE}
    return {"check_classifiers_train": FEATURES}


# The checks' inputs are any real numbers: log-odds of the second of two classes.
@parametrize_with_checks(
    [clone(pool).set_params(inputs="logit") for pool in POOLS],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_conformance(estimator, check):
    """All of scikit-learn's own checks."""
    check(estimator)


def table(n=300, n_models=5, n_classes=3, seed=0, noise=1.5):
    """Models that see the truth through noise of their own, each with its own sharpness."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    signal = 2.0 * np.eye(n_classes)[y][:, None] + rng.normal(size=(n, 1, n_classes))
    own = signal + noise * rng.normal(size=(n, n_models, n_classes))
    scores = own * np.linspace(0.5, 2.5, n_models)[None, :, None]
    return np.exp(log_softmax(scores, axis=2)), y


P, y = table()
FOLD = np.arange(len(y)) % 5


class TestKernels:
    """Derivatives and losses against slow ones."""

    @pytest.mark.parametrize("n_classes", [2, 4])
    def test_log_pass(self, n_classes):
        """Gradient and Hessian are those of finite differences; the loss is scikit-learn's."""
        rng = np.random.default_rng(0)
        features = rng.normal(size=(300, n_classes - 1, 3))
        truth, w = rng.integers(n_classes, size=300), rng.uniform(size=300)
        theta = rng.normal(size=3)
        loss, slope, hessian, losses = log_pass(features, truth, w, theta, True)
        scores = np.concatenate([features @ theta, np.zeros((300, 1))], axis=1)
        np.testing.assert_allclose(losses, -log_softmax(scores, axis=1)[np.arange(300), truth])
        assert loss == pytest.approx(w @ losses)
        np.testing.assert_allclose(
            slope,
            approx_fprime(theta, lambda t: log_pass(features, truth, w, t, False)[0]),
            rtol=1e-4,
            atol=1e-4,
        )
        np.testing.assert_allclose(
            hessian,
            approx_fprime(theta, lambda t: log_pass(features, truth, w, t, False)[1]),
            rtol=1e-4,
            atol=1e-4,
        )

    def test_linear_pass(self):
        """As above."""
        rng = np.random.default_rng(0)
        q, w = rng.uniform(0.1, 1, size=(300, 4)), rng.uniform(size=300)
        weights = np.array([0.1, 0.2, 0.3, 0.4])
        loss, slope, hessian = linear_pass(q, w, weights)
        assert loss == pytest.approx(-(w @ np.log(q @ weights)))
        np.testing.assert_allclose(
            slope, approx_fprime(weights, lambda v: linear_pass(q, w, v)[0]), rtol=1e-4
        )
        np.testing.assert_allclose(
            hessian, approx_fprime(weights, lambda v: linear_pass(q, w, v)[1]), rtol=1e-4
        )

    @pytest.mark.parametrize("alike", [True, False])
    def test_candidate_losses(self, alike):
        """One logarithm of sixteen probabilities, or sixteen logarithms."""
        rng = np.random.default_rng(0)
        q, pooled = rng.uniform(size=(3, 101)), rng.uniform(size=101)
        q[:, ::7] = pooled[::7] = 0.0
        w = np.full(101, 2.0) if alike else rng.uniform(size=101)
        found = candidate_losses(q, w, pooled, 4, 1e-15, alike)
        mixed = np.clip((4 * pooled + q) / 5, 1e-15, 1 - 1e-15)
        np.testing.assert_allclose(found, -np.average(np.log(mixed), axis=1, weights=w))


class TestGreedy:
    """AutoGluon's answer."""

    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize("n_steps", [1, 25, 100])
    def test_literal_twin(self, n_classes, n_steps):
        """The same models in the same order, with the same losses."""
        cube, truth = table(150, 6, n_classes, seed=n_steps)
        cube[:, 4] = cube[:, 1]  # a tie
        pool = GreedyPool(n_steps=n_steps).fit(cube, truth)
        weights, order, losses = twin.ensemble_selection(cube, truth, n_steps)
        np.testing.assert_array_equal(pool.order_[0], order)
        np.testing.assert_allclose(pool.losses_[0], losses, atol=1e-12)
        np.testing.assert_allclose(pool.weights_, weights)

    def test_any_metric(self):
        """Log-loss as a function gives what the fast one gives; others give what the twin does."""

        def slow(truth, proba, sample_weight):
            return twin.log_loss(proba, truth, sample_weight)

        def brier(truth, proba, sample_weight=None):
            return brier_score_loss(truth, proba, sample_weight=sample_weight)

        fast = GreedyPool(n_steps=15).fit(P, y)
        np.testing.assert_allclose(
            GreedyPool(n_steps=15, metric=slow).fit(P, y).weights_, fast.weights_
        )
        expected, _, _ = twin.ensemble_selection(P, y, 15, lambda p, t: brier(t, p))
        found = GreedyPool(n_steps=15, metric=brier).fit(P, y)
        np.testing.assert_allclose(found.weights_, expected)

    def test_bags(self):
        """Every bag is a selection over its models; weights are their mean."""
        pool = GreedyPool(n_steps=10, n_bags=7, bag_fraction=0.4).fit(P, y)
        assert len(pool.order_) == 7
        assert max(len(set(order)) for order in pool.order_) <= 2
        shares = [np.bincount(order, minlength=5) / len(order) for order in pool.order_]
        np.testing.assert_allclose(pool.weights_, np.mean(shares, axis=0))

    def test_unusable_options(self):
        """All are named at once."""
        with pytest.raises(InvalidInputError, match=r"n_steps >= 1.*bag_fraction.*metric"):
            GreedyPool(n_steps=0, bag_fraction=0.0, metric="accuracy").fit(P, y)
        with pytest.raises(InvalidInputError, match="finite for some model"):
            GreedyPool(metric=lambda *_, sample_weight: np.nan).fit(P, y)


class TestLinear:
    """The best weights on the simplex."""

    def test_general_optimiser(self):
        """No loss is smaller, and the weights agree."""
        w = np.random.default_rng(0).uniform(size=len(y))
        expected = twin.best_linear_weights(P, y, w)
        pool = LinearPool().fit(P, y, w)
        np.testing.assert_allclose(pool.weights_, expected, atol=1e-4)
        assert pool.weights_.sum() == pytest.approx(1.0)
        q = P[np.arange(len(y)), :, y]
        assert w @ np.log(q @ pool.weights_) >= w @ np.log(q @ expected) - 1e-9 * w.sum()

    def test_optimality(self):
        """The slope is alike for all models in use, and no better for the others."""
        q = np.random.default_rng(0).beta(0.3, 0.3, size=(2000, 30))
        weights = linear_weights(q, np.ones(2000))
        slope = (np.maximum(q, 1e-6) / (q @ weights)[:, None]).mean(axis=0)
        np.testing.assert_allclose(slope[weights > 0], 1.0, atol=1e-4)
        assert slope.max() < 1 + 1e-4

    def test_never_worse_than_greedy(self):
        """On the rows that both saw."""
        q = P[np.arange(len(y)), :, y]
        linear, greedy = LinearPool().fit(P, y), GreedyPool().fit(P, y)
        assert np.log(q @ linear.weights_).mean() >= np.log(q @ greedy.weights_).mean() - 1e-9


def log_features(cube, floor=0.1):
    """Logarithms of floored probabilities."""
    return np.log((1 - floor) * cube + floor / cube.shape[2])


class TestLog:
    """The log pool."""

    def test_literal_pool(self):
        """Probabilities are those of the formula, one row at a time."""
        pool = LogPool().fit(P, y, fold=FOLD)
        expected = twin.log_pool(
            P[:40], pool.weights_, pool.centre_weights_, pool.centre_exponent_, (0.1, 1e-6), 1 / 3
        )
        np.testing.assert_allclose(pool.predict_proba(P[:40]), expected)
        total = pool.weights_.sum() + pool.centre_exponent_
        assert pool.temperature_ == pytest.approx(1 / total)

    @pytest.mark.parametrize("centre", ["linear", "mean", "geometric"])
    @pytest.mark.parametrize("positive", [True, False])
    def test_general_optimiser(self, centre, positive):
        """No exponents have a smaller penalised loss."""
        w = np.random.default_rng(1).uniform(size=len(y))
        pool = LogPool(centre=centre, alphas=[0.3], positive=positive).fit(P, y, w)
        mean = np.einsum("nmc,m->nc", P, pool.centre_weights_)
        middle = np.log((1 - 1e-6) * mean + 1e-6 / 3)
        middle = log_features(P).mean(axis=1) if centre == "geometric" else middle
        features = np.concatenate([middle[:, None], log_features(P)], axis=1)

        def curvature(k):
            p = np.exp(log_softmax(middle, axis=1))
            second = (p * features[:, k] ** 2).sum(axis=1)
            return w @ (second - (p * features[:, k]).sum(axis=1) ** 2)

        unit = np.mean([curvature(k) for k in range(1, 6)])

        def objective(t):
            scores = log_softmax(np.einsum("nkc,k->nc", features, t), axis=1)
            loss = -(w @ scores[np.arange(len(y)), y])
            return loss + 8 * (t[0] - 1) ** 2 + 0.15 * unit * (t[1:] ** 2).sum()

        bounds = [(0, None)] * 6 if positive else None
        best = minimize(objective, np.r_[1, np.zeros(5)], bounds=bounds, method="L-BFGS-B")
        found = np.r_[pool.centre_exponent_, pool.weights_]
        assert objective(found) <= best.fun + 1e-6
        np.testing.assert_allclose(found, best.x, atol=2e-3)
        assert not positive or (found >= 0).all()

    def test_one_model_is_temperature_scaling(self):
        """Without a penalty: the exponent of logistic regression on the log-odds."""
        cube, truth = table(400, 1, 2)
        pool = LogPool(centre="geometric", alphas=[0.0], floor=1e-12).fit(cube, truth)
        odds = np.log(cube[:, 0, 1] / cube[:, 0, 0])[:, None]
        plain = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(odds, truth)
        np.testing.assert_allclose(pool.predict_proba(cube), plain.predict_proba(odds), rtol=1e-4)

    @pytest.mark.parametrize("centre", ["linear", "mean"])
    def test_infinite_penalty_is_the_centre_at_a_temperature(self, centre):
        """One exponent is left; where the centre has none of its own, the plain mean."""
        pool = LogPool(centre=centre, alphas=[np.inf]).fit(P, y)
        middle = (LinearPool() if centre == "linear" else MeanPool()).fit(P, y).predict_proba(P)
        np.testing.assert_array_equal(pool.weights_, 0.0)
        hot = (middle + 1e-6 / 3) ** pool.centre_exponent_
        np.testing.assert_allclose(
            pool.predict_proba(P), hot / hot.sum(axis=1, keepdims=True), rtol=1e-4
        )

    def test_large_penalties_lead_there(self):
        """Without a jump."""
        last = LogPool(alphas=[np.inf]).fit(P, y).predict_proba(P)
        gaps = [
            np.abs(LogPool(alphas=[alpha]).fit(P, y).predict_proba(P) - last).max()
            for alpha in (1e0, 1e2, 1e4, 1e6)
        ]
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[-1] < 1e-5

    def test_the_penalty_is_that_of_the_folds(self):
        """Held-out losses are those of fits without the fold, and the smallest is taken."""
        alphas = [100.0, 1.0, 0.01]
        pool = LogPool(alphas=alphas).fit(P, y, fold=FOLD)
        expected = []
        for alpha in alphas:
            loss = 0.0
            for k in range(5):
                part = LogPool(alphas=[alpha]).fit(P[k != FOLD], y[k != FOLD])
                proba = part.predict_proba(P[k == FOLD])
                loss -= np.log(proba[np.arange((k == FOLD).sum()), y[k == FOLD]]).sum()
            expected.append(loss / len(y))
        np.testing.assert_array_equal(pool.path_[0], alphas)
        np.testing.assert_allclose(pool.path_[1], expected, atol=3e-5)
        assert pool.alpha_ == alphas[int(np.argmin(expected))]

    def test_the_penalty_of_many_rows_is_chosen_on_some(self, monkeypatch):
        """Whole groups of them; the exponents are learnt from all."""
        monkeypatch.setattr("scikd.stacking.log_pool._ENOUGH", 200)
        groups = np.arange(len(y)) // 3
        pool = LogPool(alphas=[100.0, 1.0, 0.01]).fit(P, y, groups=groups, fold=FOLD)
        alone = LogPool(alphas=[pool.alpha_]).fit(P, y)
        np.testing.assert_allclose(pool.weights_, alone.weights_)
        monkeypatch.undo()
        whole = LogPool(alphas=[100.0, 1.0, 0.01]).fit(P, y, groups=groups, fold=FOLD)
        assert not np.allclose(pool.path_[1], whole.path_[1])
        np.testing.assert_allclose(pool.path_[1], whole.path_[1], rtol=0.2)

    def test_a_certain_model_does_not_veto(self):
        """Zeros and ones, some of them wrong, leave the pool finite and better than the mean."""
        cube, truth = table(600, 4, 2)
        cube[:, 0] = (cube[:, 0] > 0.5).astype(float)
        learn, test = np.arange(300), np.arange(300, 600)
        losses = [
            twin.log_loss(
                pool.fit(cube[learn], truth[learn]).predict_proba(cube[test]), truth[test]
            )
            for pool in (LogPool(), MeanPool())
        ]
        assert losses[0] < losses[1]

    def test_sharpens_where_models_err_apart(self):
        """A mean of independent evidence is too soft: the log pool learns it, greedy cannot."""
        cube, truth = table(2000, 8, 2, noise=3.0)
        learn, test = np.arange(1000), np.arange(1000, 2000)
        losses = [
            twin.log_loss(
                pool.fit(cube[learn], truth[learn]).predict_proba(cube[test]), truth[test]
            )
            for pool in (LogPool(), GreedyPool())
        ]
        assert losses[0] < losses[1] - 0.01

    def test_unusable_options(self):
        """All are named at once."""
        with pytest.raises(
            InvalidInputError, match=r"numbers >= 0.*'geometric'.*floor in \(0, 1\)"
        ):
            LogPool(alphas=[-1.0], centre="median", floor=0.0).fit(P, y)
        with pytest.raises(InvalidInputError, match="alphas to try, got none"):
            LogPool(alphas=[]).fit(P, y)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: type(pool).__name__)
class TestAlways:
    """What has to hold for every pool."""

    def test_a_weight_of_two_is_the_row_twice(self, pool):
        """And a weight of zero is no row."""
        w = np.random.default_rng(5).integers(0, 3, size=len(y)).astype(float)
        rows = np.repeat(np.arange(len(y)), w.astype(int))
        weighted = clone(pool).fit(P, y, w, fold=FOLD)
        repeated = clone(pool).fit(P[rows], y[rows], fold=FOLD[rows])
        np.testing.assert_allclose(weighted.predict_proba(P), repeated.predict_proba(P), atol=1e-6)

    def test_order_of_models(self, pool):
        """Weights move with their models."""
        order = np.random.default_rng(0).permutation(P.shape[1])
        plain = clone(pool).fit(P, y, fold=FOLD)
        moved = clone(pool).fit(P[:, order], y, fold=FOLD)
        np.testing.assert_allclose(moved.weights_, plain.weights_[order], atol=1e-5)

    def test_order_of_classes(self, pool):
        """Probabilities move with their labels."""
        order = np.array([2, 0, 1])
        plain = clone(pool).fit(P, y, fold=FOLD)
        moved = clone(pool).fit(P[:, :, order], np.argsort(order)[y], fold=FOLD)
        np.testing.assert_allclose(
            moved.predict_proba(P[:, :, order]), plain.predict_proba(P)[:, order], atol=1e-5
        )

    def test_probabilities(self, pool):
        """Non-negative, summing to one, and the labels are those of the largest."""
        proba = clone(pool).fit(P, y).predict_proba(P)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0)
        assert (proba >= 0).all()
        names = np.array(["no", "perhaps", "yes"])
        model = clone(pool).fit(P, names[y])
        np.testing.assert_array_equal(model.predict(P), names[proba.argmax(axis=1)])

    def test_no_worse_than_the_plain_mean(self, pool):
        """On rows that nobody saw; the mean itself included."""
        cube, truth = table(3000, 8, 3, seed=3)
        learn, test = np.arange(1000), np.arange(1000, 3000)
        model = clone(pool).fit(cube[learn], truth[learn])
        mean = MeanPool().fit(cube[learn], truth[learn])
        losses = [
            -np.log(m.predict_proba(cube[test])[np.arange(2000), truth[test]])
            for m in (model, mean)
        ]
        gap = losses[0] - losses[1]
        if not isinstance(pool, BestPool):  # one model, which knows no better
            assert gap.mean() <= gap.std() / np.sqrt(2000)

    def test_two_classes_as_a_matrix(self, pool):
        """Probabilities or log-odds of the second class, or all of them."""
        cube, truth = table(200, 4, 2)
        second = cube[:, :, 1]
        expected = clone(pool).fit(cube, truth, fold=FOLD[:200]).predict_proba(cube)
        for given, inputs in (
            (second, "proba"),
            (np.log(second / cube[:, :, 0]), "logit"),
            (np.log(cube), "logit"),
            (pd.DataFrame(second, columns=list("abcd")), "proba"),
        ):
            model = clone(pool).set_params(inputs=inputs).fit(given, truth, fold=FOLD[:200])
            np.testing.assert_allclose(model.predict_proba(given), expected, atol=1e-6)

    def test_named_models(self, pool):
        """A mapping of arrays or frames; in predict in any order, but with the same names."""
        members = {f"m{k}": P[:, k] for k in range(5)}
        model = clone(pool).fit(members, y, fold=FOLD)
        expected = clone(pool).fit(P, y, fold=FOLD).predict_proba(P)
        turned = dict(reversed(members.items()))
        np.testing.assert_allclose(model.predict_proba(turned), expected, atol=1e-9)
        frames = {name: pd.DataFrame(p, columns=[0, 1, 2]) for name, p in members.items()}
        np.testing.assert_allclose(model.predict_proba(frames), expected, atol=1e-9)
        with pytest.raises(InvalidInputError, match="Expected predictions of the models"):
            model.predict_proba({"other": P[:, 0], **dict(list(members.items())[1:])})
        swapped = {
            name: frame[[1, 0, 2]].set_axis([5, 6, 7], axis=1) for name, frame in frames.items()
        }
        with pytest.raises(InvalidInputError, match="Expected probabilities of the classes"):
            model.predict_proba(swapped)

    def test_missing_predictions(self, pool):
        """They count as the mean of the others; rows without any are dropped, or named."""
        cube = P.copy()
        cube[::7, 2] = np.nan
        cube[3] = np.nan
        model = clone(pool).fit(cube, y, fold=FOLD)
        rest = np.delete(np.arange(len(y)), 3)
        same = clone(pool).fit(cube[rest], y[rest], fold=FOLD[rest])
        np.testing.assert_allclose(model.weights_, same.weights_, atol=1e-6)
        assert np.isfinite(model.predict_proba(cube[rest])).all()
        with pytest.raises(InvalidInputError, match=r"1 have none: rows \[3\]"):
            model.predict_proba(cube)
        if not isinstance(pool, LogPool):  # whose missing logarithms are the mean of logarithms
            filled = cube[rest].copy()
            filled[np.isnan(filled).all(axis=2)] = 0.0
            gaps = np.isnan(cube[rest]).all(axis=2)
            mean = np.nanmean(cube[rest], axis=1)
            filled = np.where(gaps[:, :, None], mean[:, None], filled)
            expected = clone(pool).fit(filled, y[rest]).predict_proba(filled)
            np.testing.assert_allclose(model.predict_proba(cube[rest]), expected, atol=1e-6)

    def test_unusable_predictions(self, pool):
        """The message names model and row."""
        cube = P.copy()
        cube[4, 1] *= 2
        with pytest.raises(InvalidInputError, match=r"'model1' gives .* in row 4"):
            clone(pool).fit(cube, y)
        with pytest.raises(InvalidInputError, match="inputs to be 'proba' or 'logit'"):
            clone(pool).set_params(inputs="scores").fit(P, y)
        with pytest.raises(InvalidInputError, match="Only binary classification"):
            clone(pool).fit(P[:, :, 1], y)


@pytest.mark.parametrize("pool", [LinearPool(), LogPool(alphas=[1.0])], ids=["linear", "log"])
def test_copies_of_a_model_share_its_weight(pool):
    """And the pool stays as it is, where its penalty does."""
    cube = np.concatenate([P, P[:, :1], P[:, :1]], axis=1)
    weights = clone(pool).fit(cube, y).weights_
    np.testing.assert_allclose(weights[[5, 6]], weights[0], atol=1e-6)
