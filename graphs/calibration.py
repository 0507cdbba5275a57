"""Thresholds of a classifier, set on graphs of the kind that it shall judge.

A network that learnt on small forests has seen small sums over nodes. On whole graphs its logits
may rank well and yet lie on one side of zero, so that the largest one names the same class for all.
"""

from __future__ import annotations

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["class_offsets"]

LEAST_GAIN = 1e-9  # of the sum of shares, which is above what rounding makes of them


def class_offsets(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what to add to logits so that the largest one is right in most of each class.

    Of all changes of one logit that leave its class to some graphs and not to all, the one is made
    that raises balanced accuracy most, and the smallest of those; then the next, until none raises
    it. Of two classes that is the best threshold there is. Nothing is random.

    Parameters
    ----------
    logits : numpy.ndarray of shape (n_graphs, n_classes)
        Of validation graphs. Those of test graphs would give a score that is too good, and those of
        distilled sets say nothing of whole graphs.
    y : numpy.ndarray of shape (n_graphs,)
        Their classes, from 0. One that none has is left as it is.

    Returns
    -------
    numpy.ndarray of shape (n_classes,)
        Offsets that add up to 0; all 0 where the logits as they are cannot be bettered so.

    Raises
    ------
    InvalidInputError
        If there is no graph, shapes do not fit, or a logit is not finite.
    """
    logits, y = np.asarray(logits, dtype=np.float64), np.asarray(y)
    if logits.ndim != 2 or not len(logits) or y.shape != (len(logits),):
        message = (
            "Expected logits of shape (n_graphs, n_classes) of at least one graph, and as many "
            f"classes; got shapes {logits.shape} and {y.shape}."
        )
        raise InvalidInputError(message)
    if not np.isfinite(logits).all():
        raise InvalidInputError("Expected finite logits; some are infinite or NaN.")
    # What a graph that is right adds to the sum of the shares of the classes.
    worth = 1.0 / np.bincount(y, minlength=logits.shape[1])[y]
    offsets = np.zeros(logits.shape[1])
    while True:
        shifted = logits + offsets
        changes = [_best_change(shifted, y, worth, label) for label in range(len(offsets))]
        best = int(np.argmax([gain for gain, _ in changes]))
        changed = offsets.copy()
        changed[best] += changes[best][1]
        # Looked at anew, as between neighbouring numbers there is no room for a threshold.
        if _total(logits + changed, y, worth) <= _total(shifted, y, worth) + LEAST_GAIN:
            return offsets - offsets.mean()
        offsets = changed


def _total(logits: np.ndarray, y: np.ndarray, worth: np.ndarray) -> float:
    return float(worth[logits.argmax(axis=1) == y].sum())


def _best_change(
    logits: np.ndarray, y: np.ndarray, worth: np.ndarray, label: int
) -> tuple[float, float]:
    """Return what the best change of one logit gains, and the change."""
    rest = logits.copy()
    rest[:, label] = -np.inf
    other = rest.argmax(axis=1)
    # A graph gets the label where the change is above its place; that is right or wrong of it.
    place = rest.max(axis=1) - logits[:, label]
    order = np.argsort(place, kind="stable")
    place = place[order]
    right = (np.where(y == label, worth, 0.0) - np.where(y == other, worth, 0.0))[order]
    ends = np.flatnonzero(np.diff(place) > 0)
    if not len(ends):
        return 0.0, 0.0
    steps = (place[ends] + place[ends + 1]) / 2
    chosen = logits.argmax(axis=1)[order] == label
    gains = np.cumsum(right)[ends] - right[chosen].sum()
    good = np.flatnonzero(gains >= gains.max() - LEAST_GAIN)
    best = good[np.argmin(np.abs(steps[good]))]
    return float(gains[best]), float(steps[best])
