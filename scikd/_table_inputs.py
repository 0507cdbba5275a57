"""Checked inputs of estimators that hand their table on to other learners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, _check_y, validate_data

from scikd.exceptions import InvalidInputError
from scikd.teachers import count_samples

__all__ = ["TableInputs", "checked_labels", "checked_weight", "require_target"]


class TableInputs(BaseEstimator, ABC):
    """An estimator that takes what all of its learners take."""

    _learners_accept: dict[str, bool]
    _accepts_nan: bool

    @abstractmethod
    def _learners(self) -> list[Any]:
        """Return the estimators that get the inputs."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        known = self.__dict__.get("_learners_accept")
        for name in ("allow_nan", "sparse"):
            if known is None:
                asked = [get_tags(one).input_tags for one in self._learners()]
                accepted = bool(asked) and all(getattr(tag, name) for tag in asked)
            else:
                accepted = known[name]
            setattr(tags.input_tags, name, accepted)
        return tags

    def _checked_inputs(self, X: Any, *, reset: bool) -> Any:
        """Check inputs; frames go through as they are, since learners choose their columns."""
        if reset:  # asking every learner for its tags takes longer than a small prediction
            self.__dict__.pop("_learners_accept", None)
            tags = get_tags(self).input_tags
            self._learners_accept = {"allow_nan": tags.allow_nan, "sparse": tags.sparse}
            self._accepts_nan = True
        if hasattr(X, "columns") and hasattr(X, "to_numpy"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if count_samples(X) == 0:
                message = "Expected at least one sample; got an empty frame (n_samples=0)."
                raise InvalidInputError(message)
            return X
        checked = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse=["csr", "csc"] if self._learners_accept["sparse"] else False,
            # In training the learners say themselves whether they take NaN: no pipeline with an
            # imputer tells beforehand. Later NaN is welcome where it was in training.
            ensure_all_finite="allow-nan" if self._accepts_nan else True,
            ensure_min_samples=2 if reset else 1,
        )
        if reset:
            values = checked.data if hasattr(checked, "tocsr") else checked
            self._accepts_nan = bool(tags.allow_nan or np.isnan(values).any())
        return checked


def checked_weight(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Return sample weights as an array of shape (n_samples,), or None."""
    if sample_weight is None:
        return None
    weight: np.ndarray = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True, allow_all_zero_weights=False
    )
    return weight


def require_target(estimator: Any, y: Any) -> None:
    """Raise InvalidInputError if there is no target."""
    if y is None:
        message = f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        raise InvalidInputError(message)


def checked_labels(
    estimator: Any, y: Any, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of shape (n_samples,), and the sorted classes of rows that have weight."""
    y = _check_y(y, estimator=estimator)
    check_classification_targets(y)
    classes = np.unique(y if weight is None else y[weight > 0])
    if len(classes) < 2:
        message = f"Expected at least two classes; got one class: {classes.tolist()}."
        raise InvalidInputError(message)
    return y, classes
