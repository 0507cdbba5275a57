"""Predictions as an argument of an estimator: checked, and remembered by number and name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils.validation import validate_data

from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import OutOfFold
from scikd.stacking._predictions import Predictions

__all__ = ["is_table", "labels_of_tables", "refuse_bare", "take_predictions"]


def is_table(P: Any) -> bool:
    """Say whether P is what scikit-learn calls X: two-dimensional, an array or a frame."""
    if hasattr(P, "toarray"):  # sparse: scikit-learn says why not
        return True
    return not isinstance(P, Mapping | OutOfFold | Predictions) and getattr(P, "ndim", 2) != 3


def labels_of_tables(P: Any, classes: np.ndarray | None) -> np.ndarray | None:
    """Return the labels that put columns in order where P holds a table per model, else None."""
    by_class = isinstance(P, Mapping) and any(np.ndim(one) == 2 for one in P.values())
    return classes if by_class else None


def take_predictions(estimator: Any, P: Any, *, reset: bool) -> Predictions:
    """Return the predictions that an estimator was given.

    Parameters
    ----------
    estimator : object
        Gets ``n_features_in_``, and ``feature_names_in_`` where models have names.
    P : array-like, frame, mapping, OutOfFold or Predictions
        As in `Predictions.of`.
    reset : bool
        Whether to remember the models, or else to compare with those that are remembered. Models
        of a mapping are put in the remembered order.

    Raises
    ------
    InvalidInputError, ValueError
        If P cannot be used, or has other models than those remembered.
    """
    if is_table(P):
        kinds = [np.float64, np.float32]
        table = validate_data(estimator, P, reset=reset, dtype=kinds, ensure_all_finite="allow-nan")
        return Predictions.of(table, names=getattr(estimator, "feature_names_in_", None))
    given = Predictions.of(P)
    if is_regressor(estimator) and given.values.ndim != 2:
        message = (
            f"Expected predictions of shape (n_samples, n_models); got shape {given.values.shape}."
        )
        raise InvalidInputError(message)
    named = isinstance(P, Mapping | OutOfFold | Predictions)
    if reset:
        estimator.n_features_in_ = given.n_models
        if named:
            estimator.feature_names_in_ = np.asarray(given.names, dtype=object)
        return given
    if given.n_models != estimator.n_features_in_:
        message = (
            f"Expected predictions of {estimator.n_features_in_} models, as in fit; got those of "
            f"{given.n_models}."
        )
        raise InvalidInputError(message)
    known = list(getattr(estimator, "feature_names_in_", given.names))
    if not named or known == list(given.names):
        return given
    if set(known) != set(given.names):
        message = f"Expected predictions of {known}, as in fit; got those of {list(given.names)}."
        raise InvalidInputError(message)
    order = [given.names.index(name) for name in known]
    return given.select(order)


def refuse_bare(combined: np.ndarray, what: str = "model") -> None:
    """Raise InvalidInputError if rows of what was combined are NaN, for want of any prediction."""
    bare = np.flatnonzero(np.isnan(combined.reshape(len(combined), -1)).any(axis=1))
    if len(bare):
        message = (
            f"Expected a prediction of at least one {what} in every row; {len(bare)} rows have "
            f"none, the first {bare[:5].tolist()}."
        )
        raise InvalidInputError(message)
