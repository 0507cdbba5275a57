"""What scores say of pure noise, beside what fresh rows say.

Models that learn noise by heart, and least squares on top of them: nothing can be predicted, and
what a score promises beyond that is a lie. A score is right if it equals, on average over fifty
samples, the loss of the *same* fitted predictors on fresh rows. Of both losses the mean square of
the noise is taken away, which is one on average and by chance more or less in a sample.
"""

import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import KFold

from scikd.exceptions import StackingWarning
from scikd.stacking import LeastSquares, MetaRegressor, RegularizedStackingRegressor

N, N_FRESH, N_MODELS = 60, 1000, 12
FOLDS = list(KFold(5).split(np.zeros(N)))
FOLD = np.repeat(np.arange(5), N // 5)
PLAIN = {"redundancy": None, "n_resamples": 1}


class ByHeart(RegressorMixin, BaseEstimator):
    """Predicts what the nearest training row had, by one feature: knows its own rows by heart."""

    def __init__(self, column=0):
        self.column = column

    def fit(self, X, y):
        """Remember."""
        self.x_, self.y_ = X[:, self.column], y
        return self

    def predict(self, X):
        """Look up."""
        return self.y_[np.abs(X[:, self.column, None] - self.x_).argmin(axis=1)]


def models(n_models=N_MODELS):
    """Return models of one feature each."""
    return [(f"feature {j}", ByHeart(j)) for j in range(n_models)]


def noise(random, n, n_models=N_MODELS):
    """Return features and a target that have nothing to do with each other."""
    return random.normal(size=(n, n_models)), random.normal(size=n)


def excess(predicted, y):
    """Return the mean squared error beyond that of predicting the mean of the noise, which is 0."""
    return float(np.mean((predicted - y) ** 2) - np.mean(y**2))


def bias(score, fresh):
    """Return how far scores are from the truth on average, and the standard error of that."""
    gap = np.subtract(score, fresh)
    return gap.mean(), gap.std(ddof=1) / np.sqrt(len(gap))


def apparent_and_outer(P, y):
    """Return the apparent and the outer score of least squares, and what the detector found."""
    combiner = MetaRegressor("least_squares", evaluate="apparent", detector=False, **PLAIN)
    apparent = combiner.fit(P, y).score_
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        meta = MetaRegressor("least_squares", **PLAIN).fit(P, y, fold=FOLD)
    assert (apparent.kind, meta.score_.kind) == ("apparent", "outer")
    assert meta.overfit_.found == any(one.category is StackingWarning for one in caught)
    level = np.mean(y**2)
    outer = meta.comparison_.losses["least_squares"]
    return apparent.value**2 - level, outer**2 - level, meta.overfit_.found


def independent(seed, n_models=N_MODELS):
    """Score predictions by models that were trained on other rows, once and for all."""
    random = np.random.default_rng(seed)
    X, y = noise(random, N, n_models)
    trained = [model.fit(X, y) for _, model in models(n_models)]

    def predictions(n):
        X, y = noise(random, n, n_models)
        return np.column_stack([model.predict(X) for model in trained]), y

    P, y = predictions(N)
    P_new, y_new = predictions(N_FRESH)
    # The outer score is about fits to four fifths of the rows.
    fits = [LeastSquares().fit(P[train], y[train]) for train, _ in FOLDS]
    fresh = np.mean([excess(fit.predict(P_new), y_new) for fit in fits])
    plain = excess(P_new.mean(axis=1), y_new)
    return *apparent_and_outer(P, y), fresh, plain


def cross_validated(seed):
    """Score the predictions of cross-validation, and the whole stack by refitting its models."""
    random = np.random.default_rng(seed)
    X, y = noise(random, N)
    X_new, y_new = noise(random, N_FRESH)
    options = {"progress": False, "random_state": 0}
    stack = RegularizedStackingRegressor(
        models(), LeastSquares(), cv=FOLDS, evaluate="nested", **options
    ).fit(X, y)
    assert stack.score_.kind == "nested"
    P = stack.oof_.members.T
    of_outer, of_nested = [], []
    for train, _ in FOLDS:
        asked = [clone(model).fit(X[train], y[train]).predict(X_new) for _, model in models()]
        outer = LeastSquares().fit(P[train], y[train]).predict(np.column_stack(asked))
        of_outer.append(excess(outer, y_new))
        # Folds are blocks of equal size: four of them make the folds that are left.
        whole = RegularizedStackingRegressor(models(), LeastSquares(), cv=KFold(4), **options)
        of_nested.append(excess(whole.fit(X[train], y[train]).predict(X_new), y_new))
    apparent, outer, _ = apparent_and_outer(stack.oof_, y)
    nested = stack.score_.value**2 - np.mean(y**2)
    return apparent, outer, nested, np.mean(of_outer), np.mean(of_nested)


@pytest.mark.parametrize("n_seeds", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_outer_is_right_for_models_of_other_rows(n_seeds):
    """The apparent score lies, the outer one does not, and the detector says that it overfits."""
    scores = zip(*(independent(seed, n_models=25) for seed in range(n_seeds)), strict=True)
    apparent, outer, found, fresh, plain = map(np.array, scores)
    gap, error = bias(outer, fresh)
    assert abs(gap) < 2 * error
    lie, error = bias(apparent, fresh)
    assert lie < -10 * error
    assert apparent.max() < 0 < fresh.min()
    assert (fresh > plain).all()
    assert found.mean() >= 0.9


@pytest.mark.parametrize("n_seeds", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_only_nested_is_right_for_cross_validated_models(n_seeds):
    """Models of other folds have seen the targets that the outer score is computed on."""
    scores = zip(*(cross_validated(seed) for seed in range(n_seeds)), strict=True)
    apparent, outer, nested, of_outer, of_nested = map(np.array, scores)
    gap, error = bias(nested, of_nested)
    assert abs(gap) < 2 * error
    half_lie, error = bias(outer, of_outer)
    assert half_lie < -2 * error
    lie, error = bias(apparent, of_outer)
    assert lie < -10 * error
    assert lie < 2 * half_lie
    assert apparent.mean() < 0 < outer.mean() < nested.mean()
