"""Meta-features as columns that any combiner of predictions can take.

A combiner averages predictions of y, and a feature is none. But the plain mean plus the feature is
one, and so is the plain mean minus the feature. With both as columns, the mean of all columns is
still the plain mean, weights may add up to one, and a combiner that shrinks shrinks to the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem
from scikd.stacking.features import MetaFeatures

__all__ = ["FeatureColumns"]


@dataclass(frozen=True, eq=False)
class FeatureColumns:
    """Centred and scaled features, added to the plain mean and taken from it.

    Attributes
    ----------
    features : MetaFeatures
        Fitted.
    center, scale : ndarray of shape (n_features,)
        What is taken from a feature, and by what the rest is multiplied: it then varies as much as
        the models do about their mean, whatever its unit. 0 for constant features.
    """

    features: MetaFeatures
    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, problem: Problem, features: MetaFeatures) -> FeatureColumns:
        """Fit to the rows of a problem, without a look at its target."""
        heard = problem.weight > 0
        P, weight = problem.P.take(heard), problem.weight[heard]
        features.fit(P.values)
        columns = features.transform(P.values)
        center = np.average(columns, axis=0, weights=weight)
        spread = np.sqrt(np.average(np.square(columns - center), axis=0, weights=weight))
        unit = np.sqrt(np.average(np.square(_statistic(P, "std")), weights=weight))
        rounding = 1e-12 * np.abs(columns).max(axis=0)
        varying = spread > rounding
        scale = np.where(varying, unit / np.where(varying, spread, 1.0), 0.0)
        return cls(features, center, scale)

    def appended(self, P: Predictions) -> Predictions:
        """Return the predictions with two more columns per feature."""
        mean = _statistic(P, "mean")[:, None]
        moved = (self.features.transform(P.values) - self.center) * self.scale
        names = self.features.get_feature_names_out()
        more = [f"{sign}{name}" for sign in "+-" for name in names]
        columns = [P.values, mean + moved, mean - moved]
        values = np.concatenate(columns, axis=1, dtype=P.values.dtype)
        return replace(P, values=values, names=(*P.names, *more))

    def collapsed(self, weights: np.ndarray, n_models: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return weights of models, weights of features, and what to add to the intercept."""
        plus, minus = weights[n_models:].reshape(2, -1)
        slopes = (plus - minus) * self.scale
        models = weights[:n_models] + (plus + minus).sum() / n_models
        return models, slopes, -float(slopes @ self.center)


def _statistic(P: Predictions, name: str) -> np.ndarray:
    column: np.ndarray = MetaFeatures([name]).fit_transform(P.values)[:, 0]
    return column
