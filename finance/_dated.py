"""Samples in the form in which the core splits, trains and keys: rows that know their dates."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from scikd.fingerprints import fingerprint_inputs
from scikd.harmonise import Harmoniser

from .samples import Samples

__all__ = ["DatedModel", "DatedWindows", "daily_ranks"]

BLOCK = 1 << 16  # windows that are gathered at a time to be scored


def daily_ranks(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return ranks within each day, evenly spaced from -0.5 to 0.5, the mean of a day being 0.

    Parameters
    ----------
    values : numpy.ndarray of shape (n_samples,) or (n_models, n_samples)
        Scores or labels; NaN stays NaN, and equal ones share their mean rank.
    rows : numpy.ndarray of int and shape (n_samples,)
        Day of each sample.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    ranks = Harmoniser("rank", per="group").transform(table, groups=rows) - 0.5
    return ranks.reshape(np.shape(values))


class DatedWindows:
    """Samples as inputs of models: counted, taken and told apart like the rows of an array.

    Parameters
    ----------
    samples : Samples
        The samples.
    digest : str or None, default=None
        Fingerprint of the features, where it is known already.
    """

    def __init__(self, samples: Samples, digest: str | None = None) -> None:
        self.samples = samples
        self.digest = digest or fingerprint_inputs([samples.features, samples.look_back])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_samples, look_back, n_features)."""
        return len(self.samples), self.samples.look_back, self.samples.n_features

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Any) -> DatedWindows:
        rows = key[0] if isinstance(key, tuple) else key  # scikit-learn asks for X[rows, ...]
        return DatedWindows(self.samples.take(rows), self.digest)

    @property
    def fingerprint(self) -> str:
        """Digest of all that a model sees."""
        samples = self.samples
        return fingerprint_inputs([self.digest, samples.rows, samples.columns, samples.groups])


class DatedModel(RegressorMixin, BaseEstimator):
    """Hand dated windows to an estimator as it wants them.

    Parameters
    ----------
    estimator : object
        It gets windows of shape (n_samples, look_back, n_features) if its tags say that it takes
        arrays of three dimensions, and flat rows otherwise; and the dates, if its `fit` takes
        ``groups``.

    Attributes
    ----------
    estimator_ : object
        Fitted.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: DatedWindows, y: np.ndarray) -> DatedModel:
        """Fit the estimator."""
        dates = {}
        if has_fit_parameter(self.estimator, "groups"):
            dates["groups"] = X.samples.groups
        self.estimator_ = clone(self.estimator).fit(self._inputs(X.samples.windows()), y, **dates)
        return self

    def predict(self, X: DatedWindows) -> np.ndarray:
        """Return scores of shape (n_samples,)."""
        scores = np.empty(len(X))
        for start in range(0, len(X), BLOCK):
            part = slice(start, start + BLOCK)
            scores[part] = self.estimator_.predict(self._inputs(X.samples.windows(part)))
        return scores

    def _inputs(self, windows: np.ndarray) -> np.ndarray:
        deep = get_tags(self.estimator).input_tags.three_d_array
        return windows if deep else windows.reshape(len(windows), -1)
