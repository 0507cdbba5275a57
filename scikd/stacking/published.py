"""The stacking pipeline of "Regularized Meta-Learning for Improved Generalization", as published.

Four stages: models that repeat a better one are dropped, six statistics of the row are added to
those that stay, ridge, lasso and elastic net are fitted to these columns, and the three are
averaged with weights of one over their error. All settings are those of the authors' code, also
where they are questionable: it is here to compare others with.

References
----------
N. I. S. Mohammad and M. M. Meherab, arXiv:2602.12469 (2026).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Ridge, enet_path
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError
from scikd.parallel import fan_out
from scikd.stacking._inputs import take_predictions
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import check_problem
from scikd.stacking.features import MetaFeatures
from scikd.stacking.redundancy import RedundancyFilter

__all__ = ["PublishedMember", "PublishedStack"]

_RIDGE_ALPHAS = np.logspace(-3, 5, 50)
_ALPHAS = np.logspace(-5, 1, 30)[::-1]  # descending, as a path is followed
_L1_RATIOS = (0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0)
_MAX_ITER = 10_000


@dataclass(frozen=True, eq=False)
class PublishedMember:
    """One of the three linear models of the pipeline, for columns as they are.

    Attributes
    ----------
    alpha : float
        The penalty, for standardised columns, in the meaning of scikit-learn's estimator.
    l1_ratio : float
        Share of the absolute values in the penalty: 0 for ridge, 1 for lasso.
    coef : ndarray of shape (n_columns,)
        Weights of the columns.
    intercept : float
        In the unit of the target.
    """

    alpha: float
    l1_ratio: float
    coef: np.ndarray
    intercept: float

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the predictions for columns of shape (n_samples, n_columns)."""
        prediction: np.ndarray = X @ self.coef + self.intercept
        return prediction


def _path_errors(X: np.ndarray, y: np.ndarray, cv: KFold) -> tuple[np.ndarray, np.ndarray]:
    """Return errors summed over folds: root mean squares of ridge, mean squares of elastic nets.

    Their shapes are (n_ridge_alphas,) and (n_l1_ratios, n_alphas). One product of the columns with
    each other serves every penalty: for ridge through its eigenvectors, for the others in
    coordinate descent, which takes the same steps with it as with the rows.
    """
    ridge, nets = np.zeros(len(_RIDGE_ALPHAS)), np.zeros((len(_L1_RATIOS), len(_ALPHAS)))
    for train, test in cv.split(X):
        shift, centre = X[train].mean(axis=0), y[train].mean()
        columns, target = np.asfortranarray(X[train] - shift), y[train] - centre
        truth = y[test, None] - centre
        gram, product = columns.T @ columns, columns.T @ target
        values, vectors = eigh(gram)
        shrunk = (vectors.T @ product)[:, None] / (np.maximum(values, 0.0)[:, None] + _RIDGE_ALPHAS)
        paths = [vectors @ shrunk]
        for l1_ratio in _L1_RATIOS:
            _, path, _ = enet_path(
                columns,
                target,
                l1_ratio=l1_ratio,
                alphas=_ALPHAS,
                precompute=gram,
                Xy=product,
                max_iter=_MAX_ITER,
                check_input=False,
            )
            paths.append(path)
        moved = X[test] - shift
        errors = [np.square(truth - moved @ path).mean(axis=0) for path in paths]
        ridge += np.sqrt(errors[0])
        nets += errors[1:]
    return ridge, nets


def _fit_member(
    model: Any, X: np.ndarray, y: np.ndarray, scaler: StandardScaler
) -> PublishedMember:
    """Fit a linear model to standardised columns; give its weights of the columns as they are."""
    model.fit(X, y)
    coef = model.coef_ / scaler.scale_
    intercept = float(model.intercept_ - coef @ scaler.mean_)
    return PublishedMember(float(model.alpha), getattr(model, "l1_ratio", 0.0), coef, intercept)


def _fit_members(X: np.ndarray, y: np.ndarray, inner_folds: int) -> tuple[PublishedMember, ...]:
    """Fit ridge, lasso and elastic net, each with the penalty of its least error over the folds."""
    scaler = StandardScaler().fit(X)
    scaled = scaler.transform(X)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # as published: small penalties stop early
        ridge, nets = _path_errors(scaled, y, KFold(inner_folds))
        ratio, at = np.unravel_index(np.argmin(nets), nets.shape)
        options = {"max_iter": _MAX_ITER, "precompute": True}
        models = [
            Ridge(alpha=_RIDGE_ALPHAS[np.argmin(ridge)]),
            ElasticNet(alpha=_ALPHAS[np.argmin(nets[-1])], l1_ratio=1.0, **options),
            ElasticNet(alpha=_ALPHAS[at], l1_ratio=_L1_RATIOS[ratio], **options),
        ]
        return tuple(_fit_member(model, scaled, y, scaler) for model in models)


def _held_out(
    X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, inner_folds: int
) -> np.ndarray:
    """Return what the three members predict for rows that they were not fitted on."""
    members = _fit_members(X[train], y[train], inner_folds)
    return np.column_stack([member.predict(X[test]) for member in members])


class PublishedStack(RegressorMixin, BaseEstimator):
    """Stacking exactly as published in "Regularized Meta-Learning for Improved Generalization".

    1. Models are dropped by `RedundancyFilter` with ``rule="published"``: correlation at least
       0.95 and mean squared difference at most 0.01 with a better one, or variance below 0.01.
    2. Mean, standard deviation, median, range, mean times standard deviation and range times
       standard deviation of the models that stay are added to their columns.
    3. Ridge (50 penalties from 1e-3 to 1e5), lasso (30 from 1e-5 to 10) and elastic net (the same
       30, with seven ratios) are fitted to the standardised columns; each penalty has the least
       error over the inner folds, which are contiguous.
    4. Each member weighs one over its error on the outer folds, which are shuffled.

    .. warning:: The recipe depends on the unit of the target, knows no sample weights and no
       groups, and chooses and weights on the rows that it scores: `rmse_` is optimistic. It is
       here for comparison. Members with little penalty have not converged when they stop, as in
       the original.

    Parameters
    ----------
    n_folds : int, default=10
        Outer folds; at least 2.
    inner_folds : int, default=3
        Inner folds; at least 2.
    random_state : int, default=42
        Shuffles the outer folds.
    n_jobs : int or None, default=None
        Outer folds to fit at a time, as in joblib.

    Attributes
    ----------
    filter_ : RedundancyFilter
        Stage 1.
    features_ : MetaFeatures
        Stage 2.
    members_ : dict of str to PublishedMember
        Stage 3: ``"ridge"``, ``"lasso"`` and ``"elastic_net"``, fitted to all rows.
    oof_ : ndarray of shape (n_samples, 3)
        What the members predict for the rows of outer folds that they were not fitted on.
    rmse_ : ndarray of shape (3,)
        Their errors there, in the unit of y.
    weights_ : ndarray of shape (3,)
        Stage 4.
    coef_ : ndarray of shape (n_kept + 6,)
        The whole as one linear model of the columns of stage 2.
    intercept_ : float
        Its constant, in the unit of y.
    n_features_in_ : int
        Number of models.
    feature_names_in_ : ndarray of str, shape (n_models,)
        Their names, if they have any.

    Notes
    -----
    Coordinate descent takes the products of the columns with each other instead of the rows. These
    are the same steps, and it stops after as many, so that the results differ by rounding only.

    References
    ----------
    N. I. S. Mohammad and M. M. Meherab, arXiv:2602.12469 (2026), and the code published with it.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "inner_folds": [Interval(Integral, 2, None, closed="left")],
        "random_state": [Integral],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        *,
        n_folds: int = 10,
        inner_folds: int = 3,
        random_state: int = 42,
        n_jobs: int | None = None,
    ) -> None:
        self.n_folds = n_folds
        self.inner_folds = inner_folds
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, P: Any, y: Any) -> Self:
        """Run the four stages.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models)
            Predictions of rows that the models have not seen in training, in the unit of y. A
            missing one (NaN) counts as the mean of the others; the original knows none.
        y : array-like of shape (n_samples,)
            Targets.

        Returns
        -------
        PublishedStack
            Itself.

        Raises
        ------
        InvalidInputError
            If the arguments do not fit, a row has no prediction, or no model would stay.
        """
        self._validate_params()
        require_target(self, y)
        problem = check_problem(take_predictions(self, P, reset=True), y)
        predictions, y = problem.P, problem.y
        cv = KFold(self.n_folds, shuffle=True, random_state=self.random_state)
        folds = list(cv.split(y))
        self.filter_ = RedundancyFilter(rule="published").solve(problem)
        self.features_ = MetaFeatures("published")
        self.features_.fit(predictions.values[:, self.filter_.kept_])
        X = self._columns(predictions)
        tasks = [(X, y, train, test, self.inner_folds) for train, test in folds]
        self.oof_ = np.empty((len(y), 3))
        results = fan_out(_held_out, tasks, n_jobs=self.n_jobs, progress=False)
        for (_, test), found in zip(folds, results, strict=True):
            self.oof_[test] = found
        members = _fit_members(X, y, self.inner_folds)
        self.members_ = dict(zip(("ridge", "lasso", "elastic_net"), members, strict=True))
        self.rmse_ = np.sqrt(np.square(self.oof_ - y[:, None]).mean(axis=0))
        # A member without error would weigh infinitely: those without share all of the weight.
        inverse = 1.0 / self.rmse_ if self.rmse_.all() else (self.rmse_ == 0).astype(np.float64)
        self.weights_ = inverse / inverse.sum()
        self.coef_ = self.weights_ @ [member.coef for member in members]
        self.intercept_ = float(self.weights_ @ [member.intercept for member in members])
        return self

    def predict(self, P: Any) -> np.ndarray:
        """Predict the target.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models)
            Predictions of all models, in the unit of the target.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        InvalidInputError
            If a row has no prediction.
        """
        check_is_fitted(self)
        columns = self._columns(take_predictions(self, P, reset=False))
        prediction: np.ndarray = columns @ self.coef_ + self.intercept_
        return prediction

    def _columns(self, predictions: Predictions) -> np.ndarray:
        """Return the predictions that stay, and their features."""
        empty = np.flatnonzero(~predictions.covered)
        if len(empty):
            message = (
                f"Expected a prediction in every row; {len(empty)} rows have none, the first is "
                f"row {empty[0]}."
            )
            raise InvalidInputError(message)
        kept = predictions.filled()[:, self.filter_.kept_]
        return np.hstack([kept, self.features_.transform(kept)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
