"""What a table of predictions seems to be that nobody has said it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scikd.stack_commands.options import StackOptions
from scikd.stack_commands.tables import OofTable
from scikd.stacking._predictions import Predictions

__all__ = ["hints", "times_repeated"]

FEWEST = 10  # different rows; fewer are repeated by chance, or by design
MANY = 20  # different truths; by chance all come an even number of times once in 2**20 tables
MOST_REPEATS = 100
ALIKE = 0.5  # correlation of the errors of what is taken for the same row
COPIED = 1e-20  # share of variance that rounding leaves


def hints(table: OofTable, options: StackOptions) -> list[str]:
    """Return what may have been forgotten, a message each.

    Parameters
    ----------
    table : OofTable
        As read.
    options : StackOptions
        What was said of it.
    """
    found = []
    values = np.unique(table.y)
    if not options.classes and len(values) == 2:
        found.append(
            f"{options.target!r} holds two values only, {values[0]:g} and {values[1]:g}: it is "
            "taken for a number, and judged by its RMSE. For classes and their log-loss pass "
            "--classes auto."
        )
    if not {"row_id", "groups"} & table.columns.keys():
        times, n = times_repeated(table.P, table.y), len(table.y)
        if times > 1:
            found.append(
                f"The {n:,} rows look like {n // times:,} rows, {times} times each. If they are, "
                "intervals are too narrow: name the column that tells which are the same "
                "(--row-id)."
            )
    return found


def times_repeated(P: Predictions, y: np.ndarray) -> int:
    """Return how often each row seems to be there, as in repeated cross-validation.

    Rows are taken for the same where truths are equal, in blocks of the same order or because each
    comes equally often, and the errors of the models' mean correlate, too. Of numbers that come
    more or less often, it tells if all do so by multiples of some number. Exact copies in blocks
    are not meant: fits know them for what they are.

    Parameters
    ----------
    P : Predictions
        Of the models.
    y : ndarray of shape (n_samples,)
        Truth.

    Returns
    -------
    int
        1 if nothing seems to recur.
    """
    for same in _numberings(y):
        times = len(y) // (int(same.max()) + 1)
        if _alike(_errors(P, y), same, times) > ALIKE:
            return times
    counts = np.unique(y, return_counts=True)[1]
    varied = P.values.ndim == 2 and len(counts) >= MANY and np.ptp(counts) > 0
    return int(np.gcd.reduce(counts)) if varied else 1


def _numberings(y: np.ndarray) -> Iterator[np.ndarray]:
    """Yield numbers that equal rows would share, each as often as the others."""
    n = len(y)
    for times in range(min(n // FEWEST, MOST_REPEATS), 1, -1):
        size = n // times
        if size * times == n and y[0] == y[size] and (y[size:] == y[:-size]).all():
            yield np.arange(n) % size
            break
    _, number, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(counts) >= FEWEST and counts[0] > 1 and (counts == counts[0]).all():
        yield number


def _errors(P: Predictions, y: np.ndarray) -> np.ndarray:
    """Return errors of the mean of the models, but for what the truth alone says of them."""
    mean = P.filled().mean(axis=1)
    if mean.ndim == 1:
        known = np.isfinite(mean)
        if known.sum() < FEWEST:
            return np.zeros(len(y))
        degree = int(np.ptp(y[known]) > 0)  # a target that does not vary has no slope
        error = mean - np.polyval(np.polyfit(y[known], mean[known], degree), y)
    else:
        classes = np.asarray(P.classes)  # in any order
        order = np.argsort(classes)
        label = order[np.searchsorted(classes, y, sorter=order)]
        error = np.take_along_axis(mean, label[:, None], axis=1)[:, 0]
        known = np.isfinite(error)
        total = np.bincount(label[known], weights=error[known], minlength=label.max() + 1)
        error -= (total / np.maximum(np.bincount(label[known], minlength=len(total)), 1))[label]
    return np.where(known, error, 0.0)


def _alike(error: np.ndarray, same: np.ndarray, times: int) -> float:
    """Return the correlation of errors within what is taken for the same row; 0 of copies."""
    mean = np.bincount(same, weights=error) / times
    within = np.square(error - mean[same]).sum() / (len(error) - len(mean))
    between = times * np.square(mean - mean.mean()).sum() / (len(mean) - 1)
    if within <= COPIED * between:
        return 0.0
    return float((between - within) / (between + (times - 1) * within))
