"""Mean and spread of many teachers, in one pass and at constant memory.

Two ways in: `Moments` and `ClassStatistics` take one teacher at a time, so that memory does not
grow with the number of teachers; the ``stacked_*`` functions take all of them, in memory or
memory-mapped, and work through blocks of rows that stay in the processor's cache.

References
----------
D. H. D. West, "Updating mean and variance estimates: an improved method", Communications of the
ACM 22(9), 532-535 (1979).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from scikd.exceptions import InvalidInputError
from scikd.kernels._blocks import CHUNK, blocks, chunks
from scikd.kernels._checks import checked_array, checked_members, checked_weights

__all__ = [
    "ClassStatistics",
    "ClassSummary",
    "Moments",
    "stacked_moments",
]

_TILE = 1 << 14  # entries per tile: its mean and spread (256 KiB) stay in the second-level cache


# -- kernels -------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _add(values, share, gain, mean, spread):  # type: ignore[no-untyped-def]
    """Add one teacher to a running mean and a running sum of squares; one dimension each."""
    for i in range(len(values)):
        delta = values[i] - mean[i]
        mean[i] += share * delta
        spread[i] += gain * delta * delta


@njit(cache=True, nogil=True)
def _add_present(values, weight, mean, spread, total, count):  # type: ignore[no-untyped-def]
    """Do the same where the teacher is not NaN; total weight and count are per entry."""
    for i in range(len(values)):
        if values[i] == values[i]:
            total[i] += weight
            share = weight / total[i]
            delta = values[i] - mean[i]
            mean[i] += share * delta
            spread[i] += weight * (1.0 - share) * delta * delta
            count[i] += 1


@njit(cache=True, nogil=True)
def _add_all(members, shares, gains, mean, spread):  # type: ignore[no-untyped-def]
    """Add every teacher, tile by tile; members has shape (n_teachers, n)."""
    n = members.shape[1]
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        for t in range(members.shape[0]):
            share, gain = shares[t], gains[t]
            if share == 0.0:  # a teacher of weight 0 may hold NaN
                continue
            _add(members[t, start:stop], share, gain, mean[start:stop], spread[start:stop])


@njit(cache=True, nogil=True)
def _add_all_present(members, weights, mean, spread, total, count):  # type: ignore[no-untyped-def]
    """Add every teacher where it is not NaN, tile by tile."""
    n = members.shape[1]
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        for t in range(members.shape[0]):
            weight = weights[t]
            if weight == 0.0:
                continue
            here = slice(start, stop)
            _add_present(
                members[t, here], weight, mean[here], spread[here], total[here], count[here]
            )


@njit(cache=True, nogil=True)
def _add_classes(  # type: ignore[no-untyped-def]
    proba, weight, floor, mean, logs, votes, entropy, total, count
):
    """Add one teacher's class probabilities, skipping rows with a NaN."""
    n_classes = proba.shape[1]
    for i in range(proba.shape[0]):
        missing = False
        for c in range(n_classes):
            if proba[i, c] != proba[i, c]:
                missing = True
        if missing:
            continue
        best = 0
        row_entropy = 0.0
        for c in range(n_classes):
            p = proba[i, c]
            log_p = np.log(max(p, floor))
            mean[i, c] += weight * p
            logs[i, c] += weight * log_p
            row_entropy -= p * log_p
            if p > proba[i, best]:
                best = c
        votes[i, best] += weight
        entropy[i] += weight * row_entropy
        total[i] += weight
        count[i] += 1


# -- one teacher at a time -----------------------------------------------------------------------


def _checked_weight(weight: float) -> float:
    """Return a finite weight >= 0, or raise."""
    if not (np.isfinite(weight) and weight >= 0):
        msg = f"weight must be finite and >= 0, got {weight}"
        raise InvalidInputError(msg)
    return float(weight)


class Moments:
    """Weighted mean and standard deviation over teachers that arrive one by one.

    Holds two arrays of one teacher's size, four with `skip_missing`, however many teachers come,
    and makes no temporary of that size. Not to be shared between threads.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of one teacher's predictions, ``(n_samples,)`` or ``(n_samples, *k)``.
    skip_missing : bool, default=False
        Leave out NaN entries, each entry with its own total weight. If False, a NaN or an
        infinity makes that entry of the result NaN: check the predictions beforehand.

    Examples
    --------
    >>> moments = Moments(2)
    >>> moments.add(np.array([1.0, 5.0]), weight=1.0)
    >>> moments.add(np.array([3.0, 5.0]), weight=1.0)
    >>> mean, std, n_members = moments.finish()
    >>> mean, std, n_members
    (array([2., 5.]), array([1., 0.]), 2)
    """

    def __init__(self, shape: int | tuple[int, ...], *, skip_missing: bool = False) -> None:
        self._mean = np.zeros(shape)
        self._spread = np.zeros(shape)
        self._weights = np.zeros(shape) if skip_missing else None
        self._counts = np.zeros(shape, dtype=np.int64) if skip_missing else None
        self._total = 0.0
        self._count = 0
        self._finished = False

    def add(self, values: Any, weight: float = 1.0) -> None:
        """Add one teacher.

        Parameters
        ----------
        values : array_like of the shape given at construction
            Its predictions; any strides and any real dtype, converted piece by piece.
        weight : float, default=1.0
            Its weight, >= 0; a teacher of weight 0 leaves everything as it was.

        Raises
        ------
        InvalidInputError
            If the shape differs, the weight is negative, or `finish` was called before.
        """
        array = checked_array(values, "values")
        if array.shape != self._mean.shape:
            msg = f"values must have shape {self._mean.shape}, got {array.shape}"
            raise InvalidInputError(msg)
        if self._finished:
            msg = "finish() was called: it hands its buffers over; make a new object to add more"
            raise InvalidInputError(msg)
        weight = _checked_weight(weight)
        if weight == 0:
            return
        self._total += weight
        self._count += 1
        mean, spread = self._mean.reshape(-1), self._spread.reshape(-1)
        share = weight / self._total
        for start, piece in chunks(array):
            here = slice(start, start + len(piece))
            if self._weights is None or self._counts is None:
                _add(piece, share, weight * (1.0 - share), mean[here], spread[here])
            else:
                weights, counts = self._weights.reshape(-1), self._counts.reshape(-1)
                _add_present(piece, weight, mean[here], spread[here], weights[here], counts[here])

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
        """Return the moments; the object is spent afterwards, its buffers are the result.

        Returns
        -------
        mean : ndarray of the shape given at construction
            Weighted mean, in the unit of the predictions.
        std : ndarray of the same shape
            Weighted population standard deviation, ``sqrt(sum w (x - mean)**2 / sum w)``, same
            unit; 0 for a single teacher.
        n_members : int, or ndarray of int of the same shape with `skip_missing`
            Number of teachers of positive weight that were added (to that entry). Entries that
            none covered have NaN as mean and std.

        Raises
        ------
        InvalidInputError
            If no teacher of positive weight was added, or `finish` was called before.
        """
        if self._finished or self._count == 0 or not np.isfinite(self._total):
            msg = (
                "expected at least one teacher of positive weight, and weights with a finite sum,"
                f" got {self._count} teachers of total weight {self._total}"
                if not self._finished
                else "finish() can be called once only: it hands its buffers over"
            )
            raise InvalidInputError(msg)
        self._finished = True
        mean, spread = self._mean, self._spread
        if self._weights is None or self._counts is None:
            spread /= self._total
            return mean, np.sqrt(spread, out=spread), self._count
        _settle(mean, spread, self._weights)
        return mean, spread, self._counts


def _settle(mean: np.ndarray, spread: np.ndarray, weights: np.ndarray) -> None:
    """Turn running sums of squares into standard deviations, and uncovered entries into NaN."""
    weights[weights == 0] = np.nan
    spread /= weights
    np.sqrt(spread, out=spread)
    mean[np.isnan(weights)] = np.nan


@dataclass(frozen=True)
class ClassSummary:
    """What `ClassStatistics` found; rows that no teacher covered are NaN.

    Attributes
    ----------
    mean : ndarray of shape (n_samples, n_classes)
        Weighted mean of the probabilities (linear opinion pool).
    log_pool_logits : ndarray of shape (n_samples, n_classes)
        Weighted mean of their natural logarithms; its softmax is the logarithmic opinion pool.
    votes : ndarray of shape (n_samples, n_classes)
        Weighted share of the teachers whose most probable class this is; rows sum to 1.
    expected_entropy : ndarray of shape (n_samples,)
        Weighted mean of the teachers' own entropies, in nats (aleatoric part of the uncertainty).
    n_members : ndarray of int of shape (n_samples,)
        Number of teachers that covered the row.
    """

    mean: np.ndarray
    log_pool_logits: np.ndarray
    votes: np.ndarray
    expected_entropy: np.ndarray
    n_members: np.ndarray


class ClassStatistics:
    """Statistics over the class probabilities of teachers that arrive one by one.

    Parameters
    ----------
    n_samples, n_classes : int
        Shape of one teacher's probabilities.
    floor : float, default=1e-12
        Smallest probability that a logarithm is taken of, so that one teacher's zero does not
        veto a class in the logarithmic pool.
    """

    def __init__(self, n_samples: int, n_classes: int, *, floor: float = 1e-12) -> None:
        if n_classes < 1 or n_samples < 0 or not 0 < floor < 1:
            msg = (
                "expected n_samples >= 0, n_classes >= 1 and 0 < floor < 1, got "
                f"n_samples={n_samples}, n_classes={n_classes}, floor={floor}"
            )
            raise InvalidInputError(msg)
        self._floor = float(floor)
        self._tables = [np.zeros((n_samples, n_classes)) for _ in range(3)]
        self._entropy, self._weights = np.zeros(n_samples), np.zeros(n_samples)
        self._counts = np.zeros(n_samples, dtype=np.int64)
        self._n_added = 0
        self._finished = False

    def add(self, proba: Any, weight: float = 1.0) -> None:
        """Add one teacher.

        Parameters
        ----------
        proba : array_like of shape (n_samples, n_classes)
            Class probabilities; a row with a NaN in it is skipped. That rows sum to 1 is not
            checked. Ties for the most probable class go to the lowest class.
        weight : float, default=1.0
            Its weight, >= 0; a teacher of weight 0 leaves everything as it was.

        Raises
        ------
        InvalidInputError
            If the shape differs, the weight is negative, or `finish` was called before.
        """
        array = checked_array(proba, "proba")
        shape = self._tables[0].shape
        if array.shape != shape:
            msg = f"proba must have shape {shape}, got {array.shape}"
            raise InvalidInputError(msg)
        if self._finished:
            msg = "finish() was called: it hands its buffers over; make a new object to add more"
            raise InvalidInputError(msg)
        weight = _checked_weight(weight)
        if weight == 0:
            return
        self._n_added += 1
        step = max(1, CHUNK // shape[1])
        rows = (*self._tables, self._entropy, self._weights, self._counts)
        for start in range(0, shape[0], step):
            here = slice(start, start + step)
            piece = np.ascontiguousarray(array[here], dtype=np.float64)
            _add_classes(piece, weight, self._floor, *(row[here] for row in rows))

    def finish(self) -> ClassSummary:
        """Return the statistics; the object is spent afterwards, its buffers are the result.

        Raises
        ------
        InvalidInputError
            If no teacher of positive weight was added, or `finish` was called before.
        """
        if self._finished or self._n_added == 0:
            msg = (
                "finish() can be called once only: it hands its buffers over"
                if self._finished
                else "expected at least one teacher of positive weight, none was added"
            )
            raise InvalidInputError(msg)
        self._finished = True
        self._weights[self._weights == 0] = np.nan
        mean, logs, votes = (np.divide(t, self._weights[:, None], out=t) for t in self._tables)
        self._entropy /= self._weights
        return ClassSummary(mean, logs, votes, self._entropy, self._counts)


# -- all teachers at once ------------------------------------------------------------------------


def stacked_moments(
    members: Any, weights: Any = None, *, skip_missing: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
    """Weighted mean and standard deviation over the first axis, reading the data once.

    Parameters
    ----------
    members : array_like of shape (n_teachers, n_samples, *k)
        Predictions, in memory or memory-mapped, of any strides and real dtype; never copied as a
        whole.
    weights : array_like of shape (n_teachers,), default=None
        Weights >= 0, in any scale; None weights all alike.
    skip_missing : bool, default=False
        Leave out NaN entries, each entry with its own total weight. If False, a NaN or an
        infinity makes that entry of the result NaN.

    Returns
    -------
    mean, std : ndarray of shape (n_samples, *k)
        As of `Moments.finish`.
    n_members : int, or ndarray of int of shape (n_samples, *k) with `skip_missing`
        Number of teachers of positive weight (that cover the entry).

    Raises
    ------
    InvalidInputError
        If there is no teacher, or the weights are negative, all zero or of another number.
    """
    array = checked_members(members)
    loads = checked_weights(weights, len(array))
    mean, spread = np.zeros(array.shape[1:]), np.zeros(array.shape[1:])
    if not skip_missing:
        used = loads > 0
        shares = np.where(used, loads / np.where(used, np.cumsum(loads), 1.0), 0.0)
        gains = loads * (1.0 - shares) / loads.sum()
        for rows, block in blocks(array):
            _add_all(block, shares, gains, mean[rows].reshape(-1), spread[rows].reshape(-1))
        return mean, np.sqrt(spread, out=spread), int(used.sum())
    totals, counts = np.zeros(mean.shape), np.zeros(mean.shape, dtype=np.int64)
    for rows, block in blocks(array):
        outputs = (out[rows].reshape(-1) for out in (mean, spread, totals, counts))
        _add_all_present(block, loads, *outputs)
    _settle(mean, spread, totals)
    return mean, spread, counts
