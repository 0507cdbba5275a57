"""What rankers are given, as samples by day: a panel, windows, or windows as flat rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, validate_data

from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError

from ._days import as_days
from .features import forward_returns, tips_features
from .panel import Panel
from .samples import Samples
from .training import WindowArrays

if TYPE_CHECKING:
    from ._ranking import BaseRanker

__all__ = ["panel_samples", "training_samples", "window_samples"]


def training_samples(
    ranker: BaseRanker, X: Any, y: Any, groups: Any
) -> tuple[Samples | WindowArrays, tuple[str, ...] | None]:
    """Return labelled samples by day, and the names of their features where they are known."""
    samples: Samples | WindowArrays
    if isinstance(X, Panel):
        if y is not None or groups is not None:
            message = "Expected a panel alone: its labels and days come from it. Leave y out."
            raise InvalidInputError(message)
        labelled, names = panel_samples(ranker, X, labelled=True)
        samples = labelled.select_days(ranker.every)
    else:
        require_target(ranker, y)
        samples, names = window_samples(ranker, X, y, groups, reset=True), None
    if np.diff(samples.day_ptr).max() < 2:
        message = (
            f"Expected days of several stocks to rank; each of the {len(samples)} samples is alone "
            "on its day. Look at groups, which are the dates."
        )
        raise InvalidInputError(message)
    return samples, names


def panel_samples(
    ranker: BaseRanker, panel: Panel, *, labelled: bool
) -> tuple[Samples, tuple[str, ...]]:
    """Return the samples of a panel, and the names of the features."""
    features = tips_features(panel, ranker.look_back)
    label = forward_returns(panel, ranker.horizon, ranker.convention) if labelled else None
    return Samples.of(panel, features, label, look_back=ranker.look_back), features.names


def window_samples(
    ranker: BaseRanker, X: Any, y: Any = None, groups: Any = None, *, reset: bool
) -> WindowArrays:
    """Return windows of shape (n, look_back, n_features), or as flat rows, by day."""
    look_back = ranker.look_back
    if getattr(X, "ndim", 0) == 3:
        X = np.asarray(X)
        if X.shape[1] != look_back:
            message = (
                f"Expected windows of shape (n_samples, {look_back}, n_features); got {X.shape}. "
                f"Set look_back={X.shape[1]} if the windows have so many days."
            )
            raise InvalidInputError(message)
        X = X.reshape(len(X), X.shape[1] * X.shape[2])
    given = {"y": y, "y_numeric": True} if reset or y is not None else {}
    checked = validate_data(
        ranker,
        X,
        **given,
        reset=reset,
        dtype=np.float32,
        ensure_min_samples=2 if reset else 1,
    )
    rows, target = checked if given else (checked, None)
    if rows.shape[1] % look_back:
        message = (
            f"Expected rows of look_back x n_features numbers, the oldest day first; got "
            f"{rows.shape[1]}, which is no multiple of look_back={look_back}."
        )
        raise InvalidInputError(message)
    windows = rows.reshape(len(rows), look_back, -1)
    return WindowArrays.of(windows, target, _checked_groups(groups, rows))


def _checked_groups(groups: Any, X: np.ndarray) -> np.ndarray | None:
    if groups is None:
        return None
    check_consistent_length(X, groups)
    days = as_days(groups, "groups")
    absent = np.asarray([day is None or day != day for day in days.ravel().tolist()])  # noqa: PLR0124 - NaN, NaT
    if days.ndim != 1 or absent.any():
        message = (
            f"Expected groups, the date of each sample, as one dimension without missing ones; got "
            f"shape {days.shape} with {int(absent.sum())} missing."
        )
        raise InvalidInputError(message)
    return days
