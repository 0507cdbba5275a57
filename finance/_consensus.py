"""What the teachers of a day agree on, by the rules of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

from scikd.aggregation import Aggregator, Harmonised, InverseVariance, Mean, Median
from scikd.exceptions import InvalidInputError
from scikd.harmonise import Harmoniser

__all__ = ["NEEDS_CALIBRATION", "calibrated_rule", "combine", "rule_of"]

NEEDS_CALIBRATION = "inverse_variance"
_BY_DAY = {"rank": Mean(), "zscore": Mean(), NEEDS_CALIBRATION: InverseVariance()}


def rule_of(consensus: str | Aggregator) -> Aggregator:
    """Return the aggregator that a name stands for, or the aggregator itself.

    ``"mean"`` and ``"median"`` are of raw scores; ``"rank"`` and ``"zscore"`` bring each teacher to
    one scale within each day first; ``"inverse_variance"`` weighs z-scores by how well they did on
    days held out.

    Raises
    ------
    InvalidInputError
        If there is no such rule.
    """
    if isinstance(consensus, Aggregator):
        return consensus
    plain = {"mean": Mean(), "median": Median()}
    if consensus in plain:
        return plain[consensus]
    if consensus in _BY_DAY:
        how: Any = "rank" if consensus == "rank" else "zscore"
        return Harmonised(Harmoniser(how, per="group"), _BY_DAY[consensus])
    message = (
        f"Expected consensus to be an Aggregator or one of {sorted([*plain, *_BY_DAY])}; got "
        f"{consensus!r}."
    )
    raise InvalidInputError(message)


def calibrated_rule(
    members: np.ndarray, y: np.ndarray, days: np.ndarray
) -> tuple[Aggregator, tuple[float, ...]]:
    """Return the rule for ``"inverse_variance"``, and the error variances that it found.

    Parameters
    ----------
    members : numpy.ndarray of shape (n_teachers, n_samples)
        Scores on days that no teacher was trained on.
    y : numpy.ndarray of shape (n_samples,)
        Labels; scores are compared with their z-scores within each day.
    days : numpy.ndarray of int and shape (n_samples,)
        Day of each sample.
    """
    harmoniser = Harmoniser("zscore", per="group")
    truth = harmoniser.transform(y[None], groups=days)[0]
    fitted = InverseVariance().fit(harmoniser.transform(members, groups=days), truth)
    return Harmonised(harmoniser, fitted), fitted.variances or ()


def combine(rule: Aggregator, members: np.ndarray, X: Any, day_ptr: np.ndarray) -> np.ndarray:
    """Return the consensus of scores, shape (n_samples,)."""
    days = np.repeat(np.arange(len(day_ptr) - 1), np.diff(day_ptr))
    return rule.combine(members, X=X, groups=days).mean
