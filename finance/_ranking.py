"""What estimators that rank the stocks of a day share: how they score, and how well."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from scikd.exceptions import InvalidInputError
from scikd.kernels.ranks import group_ranks

from ._tips_inputs import panel_samples, window_samples
from .panel import Panel
from .training import DailyWindows, predict_scores

__all__ = ["BaseRanker", "days_of", "labels_of"]


class BaseRanker(RegressorMixin, BaseEstimator):
    """Base of `TIPSRanker` and `NetworkRanker`; not for users."""

    look_back: int
    horizon: int
    convention: Any
    every: int
    learning_rate: float
    device: str
    features_: tuple[str, ...] | None

    @property
    @abstractmethod
    def _served(self) -> Any:
        """The network that scores."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.regressor_tags.poor_score = True  # scores order stocks; their size means nothing
        tags.non_deterministic = self.device != "cpu"
        return tags

    def score(self, X: Any, y: Any = None, groups: Any = None) -> float:
        """Return the mean rank correlation of scores and labels within days (rank IC).

        Parameters
        ----------
        X, y, groups
            As for `fit`.

        Returns
        -------
        float
            From -1 to 1; a day in which nothing differs counts as 0.
        """
        check_is_fitted(self)
        if isinstance(X, Panel):
            samples: DailyWindows = panel_samples(self, X, labelled=True)[0]
        else:
            samples = window_samples(self, X, y, groups, reset=False)
        scores = self._score_by(self._served, samples)
        return _mean_rank_ic(scores, labels_of(samples), days_of(samples))

    def _score_by(self, model: Any, samples: DailyWindows) -> np.ndarray:
        return predict_scores(model, samples, device=self.device)

    def _refuse_diverged(self, who: str, scores: np.ndarray) -> None:
        """Raise where a network that was just trained gives no finite scores."""
        bad = int(np.sum(~np.isfinite(scores)))
        if bad:
            message = (
                f"The training of the {who} diverged: {bad} of {scores.size} scores that it gives "
                f"are not finite. Lower learning_rate (now {self.learning_rate:g}), or look for "
                "features that are very large."
            )
            raise InvalidInputError(message)

    def _scored(
        self, X: Any, scores_of: Callable[[Any], np.ndarray], groups: Any = None
    ) -> np.ndarray:
        """Return scores of a panel by date and asset, those of windows in their order."""
        if isinstance(X, Panel):
            samples, names = panel_samples(self, X, labelled=False)
            if names != self.features_:
                message = (
                    f"Expected a panel with the features of training, {self.features_}; got "
                    f"{names}. Fields of prices are missing, or there are more."
                )
                raise InvalidInputError(message)
            return samples.spread(scores_of(samples))
        if self.features_ is not None:
            message = "Expected a Panel, as in training; got an array."
            raise InvalidInputError(message)
        windows = window_samples(self, X, None, groups, reset=False)
        scores = np.empty(len(windows))
        scores[windows.order] = scores_of(windows)
        return scores


def labels_of(samples: DailyWindows) -> np.ndarray:
    """Return the labels of samples, which must have some."""
    if samples.label is None:
        raise InvalidInputError("Expected labels to compare scores with; got none.")
    return samples.label


def days_of(samples: DailyWindows) -> np.ndarray:
    """Return the number of the day of every sample."""
    return np.repeat(np.arange(len(samples.day_ptr) - 1), np.diff(samples.day_ptr))


def _mean_rank_ic(scores: np.ndarray, labels: np.ndarray, days: np.ndarray) -> float:
    sizes = np.bincount(days)
    ranks = [group_ranks(values, days) - (sizes[days] + 1) / 2 for values in (scores, labels)]
    product, *squares = (np.bincount(days, a * b) for a, b in (ranks, ranks[:1] * 2, ranks[1:] * 2))
    norms = np.sqrt(squares[0] * squares[1])
    return float(np.mean(np.divide(product, norms, out=np.zeros_like(norms), where=norms > 0)))
