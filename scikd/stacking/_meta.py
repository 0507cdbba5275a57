"""What stacking of numbers and of classes share: what is compared, chosen, checked and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval as Range
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import OutOfFold
from scikd.stacking._inputs import labels_of_tables, take_predictions
from scikd.stacking._levels import Candidates, Level, level_of
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem
from scikd.stacking.comparison import Comparison, apparent_loss, compare
from scikd.stacking.detector import HeldOutCheck, check_held_out
from scikd.stacking.diagnostics import Conditioning
from scikd.stacking.gram import Gram
from scikd.stacking.redundancy import RedundancyFilter

if TYPE_CHECKING:
    from scikd.stacking.frozen import FrozenPool, FrozenStack

__all__ = ["BaseMeta", "Score", "redundancy_of"]


class Score(NamedTuple):
    """A loss with its 95 % bootstrap interval, and of what kind it is.

    ``"outer"``: on rows that the combiner was not fitted to. ``"apparent"``: on those that it was
    fitted to, which flatters it. ``"nested"``: on rows that the base models have not seen either.
    """

    value: float
    low: float
    high: float
    kind: str


class BaseMeta(BaseEstimator, ABC):
    """Base of `MetaRegressor` and `MetaClassifier`; not for users."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "redundancy": [StrOptions({"residual", "published"}), RedundancyFilter, None],
        "evaluate": [StrOptions({"outer", "apparent"}), None],
        "cv": "no_validation",
        "detector": ["boolean"],
        "n_resamples": [Range(Integral, 1, None, closed="left")],
        "random_state": [Range(Integral, 0, None, closed="left")],
    }
    _loss_name: ClassVar[str]

    # scikit-learn knows its inputs by the name X, and would take P for something to be routed.
    __metadata_request__fit = {"P": UNUSED}  # noqa: RUF012 - how scikit-learn wants it
    __metadata_request__predict = {"P": UNUSED}  # noqa: RUF012 - as above
    __metadata_request__predict_proba = {"P": UNUSED}  # noqa: RUF012 - as above

    combiner: Any
    redundancy: Any
    evaluate: str | None
    cv: Any
    detector: bool
    n_resamples: int
    random_state: int
    names_: tuple[str, ...]
    redundancy_: RedundancyFilter | None
    required_models_: tuple[str, ...]
    comparison_: Comparison | None
    overfit_: HeldOutCheck | None
    score_: Score | None
    n_features_in_: int

    @abstractmethod
    def _default(self) -> str:
        """Return the name of the combiner that was asked for."""

    def freeze(self, P: Any = None) -> FrozenStack | FrozenPool:
        """Return the few numbers that this predicts by, verified to predict the same.

        Parameters
        ----------
        P : as in `fit`, or None, default=None
            Predictions to compare on; None makes some up at random.

        Returns
        -------
        FrozenStack or FrozenPool
            See `scikd.stacking.freezing.freeze`.

        Raises
        ------
        InvalidInputError
            If the two differ.
        """
        from scikd.stacking.freezing import freeze  # noqa: PLC0415 - it imports this module

        return freeze(self, P)

    def _learn(self, problem: Problem, candidates: Candidates) -> tuple[Any, Level]:
        """Compare, check and score; return what is to be used, and the level of all rows."""
        name, options = self._default(), (self.cv, self.random_state)
        level = level_of(problem, candidates, *options)
        self.comparison_ = self.overfit_ = self.score_ = None
        if self.evaluate == "outer":
            self.comparison_ = compare(level, name, self._loss_name, self.n_resamples)
        if self.detector and name != "mean":
            self.overfit_ = check_held_out(level, name, *options, self.comparison_)
        if self.overfit_ is not None and self.overfit_.declined:
            name = "mean"
        model = level.fitted(name).model
        if self.comparison_ is not None:
            self.score_ = Score(*self.comparison_.loss(name), "outer")
        elif self.evaluate == "apparent":
            self.score_ = Score(
                *apparent_loss(level, model, self._loss_name, self.n_resamples), "apparent"
            )
        return model, level

    def _condition(self, gram: Gram) -> None:
        before = after = Conditioning.of_gram(gram)
        if self.redundancy_ is not None:
            after = Conditioning.of_gram(gram.take(self.redundancy_.kept_))
        self.diagnostics_ = {"before": before, "after": after}

    def _taken(self, P: Any, *, reset: bool) -> Predictions:
        """Check predictions; of named ones, find those that are needed, in whatever order.

        In `fit` these are all. Later they are the `required_models_`, or all if there are as many
        columns without names as in `fit`; the others become NaN.
        """
        if reset:
            return take_predictions(self, P, reset=True)
        check_is_fitted(self, "required_models_")
        named = isinstance(P, Mapping | OutOfFold | Predictions) and not issparse(P)
        if not named and not (hasattr(P, "columns") and hasattr(self, "feature_names_in_")):
            return take_predictions(self, P, reset=False)
        given = Predictions.of(P, classes=labels_of_tables(P, getattr(self, "classes_", None)))
        missing = [name for name in self.required_models_ if name not in given.names]
        unknown = [name for name in given.names if name not in self.names_]
        if missing or unknown:
            message = (
                f"Expected predictions of the models {list(self.required_models_)}, and of no "
                f"others than {list(self.names_)}; missing are {missing}, unknown {unknown}."
            )
            if unknown and not missing:
                message += " Leave those out; of a frame P[list(model.required_models_)] is enough."
            raise InvalidInputError(message)
        if given.names == self.names_:
            return given
        places = [given.names.index(name) for name in self.required_models_]
        shape = (given.n_samples, len(self.names_), *given.values.shape[2:])
        values = np.full(shape, np.nan, dtype=given.values.dtype)
        targets = [self.names_.index(name) for name in self.required_models_]
        values[:, targets] = given.values[:, places]
        return replace(given, values=values, names=self.names_)

    @property
    def _required(self) -> np.ndarray:
        """True for the models that predictions need, shape (n_models,)."""
        return np.isin(self.names_, self.required_models_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        if tags.regressor_tags is not None:
            tags.regressor_tags.poor_score = True  # columns are taken for predictions of y
        return tags


def redundancy_of(given: Any) -> RedundancyFilter | None:
    """Return the filter that was asked for."""
    return RedundancyFilter(rule=given) if isinstance(given, str) else given
