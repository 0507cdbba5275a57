"""What the spread of the models says about a row: further columns for a combiner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from scikd._aggregator import PROBABILITY_FLOOR, class_doubt
from scikd.exceptions import InvalidInputError
from scikd.kernels.moments import ClassStatistics
from scikd.kernels.rows import ROW_STATISTICS, row_statistics
from scikd.stacking._inputs import take_predictions
from scikd.stacking._predictions import Predictions

__all__ = ["MetaFeatures"]

_PRODUCTS = {"mean_x_std": ("mean", "std"), "range_x_std": ("range", "std")}
_NUMBERS = (*ROW_STATISTICS, *_PRODUCTS)
_CLASSES = ("entropy", "expected_entropy", "mutual_information", "vote_margin", "top2_gap")
_SETS = {
    "regression": _NUMBERS,
    "classification": _CLASSES,
    "published": ("mean", "std", "median", "range", "mean_x_std", "range_x_std"),
}


class MetaFeatures(TransformerMixin, BaseEstimator):
    """Statistics of each row of a prediction matrix, over the models that predict it.

    Every number comes from its own row alone, so that nothing can leak between rows.

    Of numbers, P of shape (n_samples, n_models):

    * ``"mean"``, ``"std"`` (divided by the number of models), ``"median"``, ``"range"``, ``"mad"``
      (median absolute deviation from the median), all in the unit of the predictions;
    * ``"skew"``, without unit, 0 where the models agree;
    * ``"mean_x_std"`` and ``"range_x_std"``, products, in the square of the unit.

    Of class probabilities, P of shape (n_samples, n_models, n_classes):

    * ``"entropy"`` of the mean, ``"expected_entropy"``, which is the mean of the models' own, and
      ``"mutual_information"``, their difference: how much the models disagree; in nats;
    * ``"vote_margin"``, share of the votes for the class with most minus that for the second, and
      ``"top2_gap"``, the same of the mean probabilities; both in [0, 1].

    The mean is a linear combination of the columns of P. Beside these it tells a linear combiner
    nothing new, and makes its problem singular.

    Parameters
    ----------
    features : {"auto", "regression", "classification", "published"} or list of str, default="auto"
        Which, in this order. ``"auto"`` are all for the kind of P; ``"published"`` the six of
        arXiv:2602.12469.

    Attributes
    ----------
    features_ : tuple of str
        The features, in the order of the columns.
    n_features_in_ : int
        Number of models.
    feature_names_in_ : ndarray of str, shape (n_models,)
        Their names, if they have any.

    Examples
    --------
    >>> MetaFeatures(["mean", "range"]).fit_transform([[1.0, 2.0], [5.0, 5.0]])
    array([[1.5, 1. ],
           [5. , 0. ]])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "features": [StrOptions({"auto", *_SETS}), list, tuple],
    }

    def __init__(self, features: str | list[str] = "auto") -> None:
        self.features = features

    def fit(self, P: Any, y: Any = None) -> Self:
        """Remember the models; nothing is learnt.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models[, n_classes])
            Predictions, NaN where a model has none.
        y : None
            Not used.

        Returns
        -------
        MetaFeatures
            Itself.

        Raises
        ------
        InvalidInputError
            If there is no such feature for predictions of this kind.
        """
        self._validate_params()
        del y
        predictions = take_predictions(self, P, reset=True)
        kind = "regression" if predictions.values.ndim == 2 else "classification"
        wanted = kind if self.features == "auto" else self.features
        names = _SETS[wanted] if isinstance(wanted, str) else tuple(wanted)
        unknown = [name for name in names if name not in _SETS[kind]]
        if unknown or not names:
            message = (
                f"Expected features among {', '.join(_SETS[kind])} for {kind}, which predictions "
                f"of shape {predictions.values.shape} are; got {unknown or 'none'}."
            )
            raise InvalidInputError(message)
        self.features_ = names
        self._n_axes = predictions.values.ndim
        return self

    def transform(self, P: Any) -> np.ndarray:
        """Return the features.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models[, n_classes])
            Predictions of the same models.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or a frame after `set_output`
            NaN in rows that no model predicts.
        """
        check_is_fitted(self)
        predictions = take_predictions(self, P, reset=False)
        if predictions.values.ndim != self._n_axes:
            message = (
                f"Expected predictions with {self._n_axes} axes, as in fit; got shape "
                f"{predictions.values.shape}."
            )
            raise InvalidInputError(message)
        found = _of_numbers(predictions) if self._n_axes == 2 else _of_classes(predictions)
        return np.column_stack([found[name] for name in self.features_])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features."""
        check_is_fitted(self)
        del input_features
        return np.asarray(self.features_, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags


def _of_numbers(predictions: Predictions) -> Mapping[str, np.ndarray]:
    found = dict(zip(ROW_STATISTICS, row_statistics(predictions.values).T, strict=True))
    products = {name: found[left] * found[right] for name, (left, right) in _PRODUCTS.items()}
    return found | products


def _of_classes(predictions: Predictions) -> Mapping[str, np.ndarray]:
    n_samples, n_models, n_classes = predictions.values.shape
    statistics = ClassStatistics(n_samples, n_classes, floor=PROBABILITY_FLOOR)
    for j in range(n_models):
        statistics.add(predictions.values[:, j])
    summary = statistics.finish()
    return class_doubt(summary) | {"expected_entropy": summary.expected_entropy}
