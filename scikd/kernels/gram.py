"""Gram and correlation matrices of teachers, some of whose predictions are missing.

Predictions are a matrix P of n samples by M teachers with NaN where a teacher has none, and a pair
of teachers is compared on the samples that both cover ("pairwise complete"). The matrix is read in
blocks of rows, so memory does not grow with n. Per block:

* nothing missing: one product (BLAS);
* few missing: the same product with zeros in the gaps, and the sums over the samples that *both*
  cover as the sum over all samples minus the few where the other teacher is missing;
* many missing: further products with the mask of present entries.

Sums are taken of centred and scaled columns. Where a pair's variance is still a small difference
of large sums (the common samples all lie far from the teacher's mean, or are all alike), that
pair is computed again by a running update, which has no such loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from scikd.exceptions import InvalidInputError
from scikd.kernels._checks import checked_array, checked_weights

__all__ = ["correlation", "residual_correlation", "weighted_gram"]

_BLOCK = 1 << 18  # entries of a block: 2 MiB of float64 stay in the second-level cache
# OpenBLAS computes products of up to 64 x 64 x 64 on the calling thread. Larger ones it spreads
# over threads that wait for each other by spinning, and on a machine with other work to do each
# such call was seen to take 100 ms instead of 0.5 ms; in bricks, one thread is as fast as two.
_BRICK = 64
_FEW = 0.25  # up to this share of missing weight, subtracting the gaps is faster than a product
_LOSS = 1e-3  # a variance below this share of the sums it comes from has lost three digits


# -- kernels -------------------------------------------------------------------------------------


# The loops over a row below choose by value instead of branching, and each does one thing, so that
# the compiler makes vector instructions of them.


@njit(cache=True, nogil=True)
def _scan(block, w, sums, totals, low, high):  # type: ignore[no-untyped-def]
    """Update weighted sums, weights and range of each column."""
    for r in range(block.shape[0]):
        weight = w[r]
        if weight == 0.0:
            continue
        row = block[r]
        for j in range(len(row)):
            sums[j] += weight * row[j] if row[j] == row[j] else 0.0
        for j in range(len(row)):
            totals[j] += weight if row[j] == row[j] else 0.0
        for j in range(len(row)):
            low[j] = min(low[j], row[j])
        for j in range(len(row)):
            high[j] = max(high[j], row[j])


@njit(cache=True, nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    block, w, root, centre, scale, filled, mask, missing, linear
):
    """Write ``sqrt(w) * (x - centre) * scale``, 0 where missing, and the mask of present entries.

    Returns the weight of the rows; `missing` gets the missing weight of each column, and `linear`
    the sum of ``w * (x - centre) * scale``.
    """
    missing[:] = 0.0
    linear[:] = 0.0
    total = 0.0
    for r in range(block.shape[0]):
        if w[r] == 0.0:
            filled[r, :] = 0.0
            mask[r, :] = 0.0
            continue
        total += w[r]
        root_w, row, z, present = root[r], block[r], filled[r], mask[r]
        for j in range(len(row)):
            value = root_w * ((row[j] - centre[j]) * scale[j])
            z[j] = value if row[j] == row[j] else 0.0
        for j in range(len(row)):
            present[j] = 1.0 if row[j] == row[j] else 0.0
        for j in range(len(row)):
            linear[j] += root_w * z[j]
        for j in range(len(row)):
            missing[j] += w[r] * (1.0 - present[j])
    return total


@njit(cache=True, nogil=True)
def _add_product(left, right, out):  # type: ignore[no-untyped-def]
    """Add ``left.T @ right`` to `out`, in bricks."""
    n, m = left.shape
    for s in range(0, n, _BRICK):
        rows = slice(s, min(s + _BRICK, n))
        for c in range(0, m, _BRICK):
            a = left[rows, c : min(c + _BRICK, m)].copy()
            for d in range(0, m, _BRICK):
                b = right[rows, d : min(d + _BRICK, m)].copy()
                brick = np.dot(a.T, b)
                for i in range(brick.shape[0]):
                    for j in range(brick.shape[1]):
                        out[c + i, d + j] += brick[i, j]


@njit(cache=True, nogil=True)
def _subtract_gaps(filled, mask, w, root, first, second, weight):  # type: ignore[no-untyped-def]
    """Take the rows where teacher i is missing out of row i of three sums over all rows.

    first[i, j] sums ``w x_j``, second[i, j] sums ``w x_j**2``; of the weight only those with both
    missing are given back here, the caller takes out the rest.
    """
    n_teachers = filled.shape[1]
    gaps = np.empty(n_teachers, dtype=np.int64)
    for r in range(filled.shape[0]):
        n_gaps = 0
        for j in range(n_teachers):
            if mask[r, j] == 0.0:
                gaps[n_gaps] = j
                n_gaps += 1
        for g in range(n_gaps):
            i = gaps[g]
            for j in range(n_teachers):
                z = filled[r, j]
                first[i, j] -= root[r] * z
                second[i, j] -= z * z
            for h in range(n_gaps):
                weight[i, gaps[h]] += w[r]


@njit(cache=True, nogil=True)
def _update_pairs(block, w, scale, pairs, state):  # type: ignore[no-untyped-def]
    """Update (sum w, first x, first y, mean x, mean y, Sxx, Syy, Sxy) of pairs, as West does.

    The means are relative to the first common sample: if that is like all others, the squares are
    exactly 0, and if it is close to them, no digit of their differences is lost.
    """
    for p in range(pairs.shape[0]):
        i, j = pairs[p, 0], pairs[p, 1]
        total, first_x, first_y = state[p, 0], state[p, 1], state[p, 2]
        mean_x, mean_y = state[p, 3], state[p, 4]
        sxx, syy, sxy = state[p, 5], state[p, 6], state[p, 7]
        for r in range(block.shape[0]):
            x, y = block[r, i], block[r, j]
            if not (math.isnan(x) or math.isnan(y)) and w[r] > 0.0:
                if total == 0.0:
                    first_x, first_y = x, y
                total += w[r]
                share = w[r] / total
                dx = (x - first_x) * scale[i] - mean_x
                dy = (y - first_y) * scale[j] - mean_y
                gain = w[r] * (1.0 - share)
                mean_x += share * dx
                mean_y += share * dy
                sxx += gain * dx * dx
                syy += gain * dy * dy
                sxy += gain * dx * dy
        state[p, :] = np.array([total, first_x, first_y, mean_x, mean_y, sxx, syy, sxy])


# -- sums over blocks ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Predictions (minus a target), read block by block."""

    P: np.ndarray
    w: np.ndarray
    y: np.ndarray | None = None

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield contiguous float64 blocks of rows and their weights."""
        step = max(64, _BLOCK // max(1, self.P.shape[1]))
        for start in range(0, len(self.P), step):
            here = slice(start, start + step)
            block = np.ascontiguousarray(self.P[here], dtype=np.float64)
            if self.y is not None:
                block = block - self.y[here, None]
            yield block, self.w[here]


@dataclass(frozen=True)
class _Sums:
    """Sums over the samples that both teachers i and j cover, each of shape (M, M).

    gram: ``w z_i z_j``; first: ``w z_j`` in row i, column j; second: ``w z_j**2``; weight: ``w``;
    size: the sum of squares that `second` was computed from, a measure of its rounding error.
    """

    gram: np.ndarray
    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray
    size: np.ndarray


def _sums(
    table: _Table, centre: np.ndarray, scale: np.ndarray, *, exact: bool, only: bool
) -> _Sums:
    """Sum over all blocks.

    `exact` allows no subtraction in the weights, whatever the cost; `only` leaves out all but
    `gram` and `weight`.
    """
    n_teachers = table.P.shape[1]
    sums = _Sums(*(np.zeros((n_teachers, n_teachers)) for _ in range(5)))
    missing, linear = np.empty(n_teachers), np.empty(n_teachers)
    buffers: tuple[np.ndarray, np.ndarray] | None = None
    for block, w in table.blocks():
        if buffers is None:
            buffers = np.empty_like(block), np.empty_like(block)
        z, mask = buffers[0][: len(block)], buffers[1][: len(block)]
        root = np.sqrt(w)
        total = _fill(block, w, root, centre, scale, z, mask, missing, linear)
        gram = np.zeros_like(sums.gram)
        _add_product(z, z, gram)
        np.add(sums.gram, gram, out=sums.gram)
        second = gram.diagonal()
        if not missing.any() or (missing.max() <= _FEW * total and not exact):
            np.add(sums.first, linear, out=sums.first)
            np.add(sums.second, second, out=sums.second)
            np.add(sums.size, second, out=sums.size)
            np.add(sums.weight, total, out=sums.weight)
            if missing.any():
                np.subtract(sums.weight, missing[:, None] + missing, out=sums.weight)
                _subtract_gaps(z, mask, w, root, sums.first, sums.second, sums.weight)
            continue
        _add_product(mask, mask * w[:, None], sums.weight)
        if only:
            continue
        _add_product(mask, z * root[:, None], sums.first)
        np.multiply(z, z, out=z)
        share = np.zeros_like(gram)
        _add_product(mask, z, share)
        np.add(sums.second, share, out=sums.second)
        np.add(sums.size, share, out=sums.size)
    for symmetric in (sums.gram, sums.weight):  # to the last bit, whatever the order of summation
        symmetric[:] = 0.5 * (symmetric + symmetric.T)
    return sums


def _ranges(table: _Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centre, scale (a power of two) and whether it varies, of each column."""
    n_teachers = table.P.shape[1]
    sums, totals = np.zeros(n_teachers), np.zeros(n_teachers)
    low, high = np.full(n_teachers, np.inf), np.full(n_teachers, -np.inf)
    for block, w in table.blocks():
        _scan(block, w, sums, totals, low, high)
    infinite = np.flatnonzero((totals > 0) & (np.isinf(low) | np.isinf(high)))
    if len(infinite):
        msg = f"P must be finite or NaN (missing), got an infinity in column {infinite[0]}"
        raise InvalidInputError(msg)
    varies = high > low
    centre = np.divide(sums, totals, out=np.zeros(n_teachers), where=varies)
    width = np.subtract(high, low, out=np.ones(n_teachers), where=varies)
    return centre, np.ldexp(1.0, -np.clip(np.frexp(width)[1], -1000, 1000)), varies


def _checked_table(P: Any, w: Any, y: Any = None) -> _Table:
    """Check shapes and weights."""
    array = checked_array(P, "P")
    if array.ndim != 2 or array.shape[1] == 0:
        msg = f"P must have shape (n_samples, n_teachers) with n_teachers >= 1, got {array.shape}"
        raise InvalidInputError(msg)
    loads = checked_weights(w, len(array), what="w", unit="sample")
    if y is None:
        return _Table(array, loads)
    target = checked_array(y, "y").astype(np.float64)
    if target.shape != (len(array),) or not np.isfinite(target).all():
        msg = (
            f"y must be finite and of shape ({len(array)},), one number per sample, got shape "
            f"{target.shape} with {np.count_nonzero(~np.isfinite(target))} NaN or infinite"
        )
        raise InvalidInputError(msg)
    return _Table(array, loads, target)


# -- public --------------------------------------------------------------------------------------


def weighted_gram(P: Any, w: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Sum products of predictions over the samples that both teachers cover.

    Parameters
    ----------
    P : array_like of shape (n_samples, n_teachers)
        Predictions, NaN where missing.
    w : array_like of shape (n_samples,), default=None
        Sample weights >= 0; None weights all by 1.

    Returns
    -------
    G : ndarray of shape (n_teachers, n_teachers)
        ``G[i, j] = sum_r w[r] * P[r, i] * P[r, j]``, in the square of the predictions' unit.
    W : ndarray of shape (n_teachers, n_teachers)
        ``W[i, j] = sum_r w[r]``, over the same samples; ``G / W`` is the matrix of mean products.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit, P holds an infinity, or the weights are negative or all zero.
    """
    table = _checked_table(P, w)
    n_teachers = table.P.shape[1]
    # Weights of 1 are summed and subtracted without rounding; others are not, and a pair without
    # a common sample must have the weight 0.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _sums(
            table, np.zeros(n_teachers), np.ones(n_teachers), exact=w is not None, only=True
        )
    if not np.isfinite(sums.gram).all():
        _ranges(table)  # names the column with an infinity
        msg = "P holds numbers too large to be squared in float64; divide P by a constant"
        raise InvalidInputError(msg)
    return sums.gram, sums.weight


def _correlate(table: _Table) -> np.ndarray:
    """Correlate the columns of a table."""
    centre, scale, varies = _ranges(table)
    sums = _sums(table, centre, scale, exact=False, only=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = sums.second - sums.first**2 / sums.weight
        products = sums.gram - sums.first * sums.first.T / sums.weight
        result: np.ndarray = products / np.sqrt(squares * squares.T)
        lossy = ~(squares > _LOSS * sums.size) & (sums.weight > 0)
    pairs = np.argwhere(np.triu((lossy | lossy.T) & varies & varies[:, None], k=1))
    if len(pairs):
        state = np.zeros((len(pairs), 8))
        for block, w in table.blocks():
            _update_pairs(block, w, scale, pairs, state)
        sxx, syy, sxy = state[:, 5:].T
        alike = (sxx <= 0) | (syy <= 0)
        again = sxy / np.where(alike, np.nan, np.sqrt(sxx) * np.sqrt(syy))
        result[pairs[:, 0], pairs[:, 1]] = again
        result[pairs[:, 1], pairs[:, 0]] = again
    np.clip(result, -1.0, 1.0, out=result)
    np.fill_diagonal(result, 1.0)
    result[~varies] = np.nan
    result[:, ~varies] = np.nan
    return result


def correlation(P: Any, w: Any = None) -> np.ndarray:
    """Correlate teachers on the samples that both cover.

    Parameters
    ----------
    P : array_like of shape (n_samples, n_teachers)
        Predictions, NaN where missing; in memory or memory-mapped, never copied as a whole.
    w : array_like of shape (n_samples,), default=None
        Sample weights >= 0; None weights all alike. A sample of weight 0 counts as missing.

    Returns
    -------
    ndarray of shape (n_teachers, n_teachers)
        Weighted Pearson correlations within [-1, 1], with a diagonal of exactly 1; NaN for a pair
        with fewer than two common samples, or with one of the two constant on them. For equal
        weights these are the numbers of `pandas.DataFrame.corr`.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit, P holds an infinity, or the weights are negative or all zero.
    """
    return _correlate(_checked_table(P, w))


def residual_correlation(P: Any, y: Any, w: Any = None) -> np.ndarray:
    """Correlate the teachers' errors on the samples that both cover.

    Teachers with uncorrelated errors complete each other; those near 1 repeat each other.

    Parameters
    ----------
    P : array_like of shape (n_samples, n_teachers)
        Predictions, NaN where missing.
    y : array_like of shape (n_samples,)
        Target, in the unit of the predictions.
    w : array_like of shape (n_samples,), default=None
        Sample weights >= 0; None weights all alike.

    Returns
    -------
    ndarray of shape (n_teachers, n_teachers)
        As of `correlation`, of ``P - y[:, None]``.

    Raises
    ------
    InvalidInputError
        As `correlation`, or if y is not finite.
    """
    return _correlate(_checked_table(P, w, y))
