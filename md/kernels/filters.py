"""The filter of GET as a table: 64 functions of one distance, for the price of one polynomial.

``W(r) = SiLU(A e(r))`` costs a hundred exponentials for every pair of atoms. Here it is a quintic
in each of n equal intervals of [0, cutoff], which has the value and the first two derivatives of W
at both ends: the table is twice continuously differentiable, and the forces that a kernel derives
from it are exactly those of the energy that it computes. The error falls with the sixth power of
the interval; n is doubled until the error is below what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["FilterTable", "envelope", "filters"]

N_TERMS = 6  # of a quintic
_FEWEST, _MOST = 32, 1 << 14  # intervals
_BETWEEN = (0.15, 0.35, 0.5, 0.65, 0.85)  # where in an interval the error is measured
# Coefficients of the quintic in t, 0 to 1, from (W, W', W'') at t = 0, then at t = 1.
_HERMITE = np.array(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.5, 0.0, 0.0, 0.0],
        [-10.0, -6.0, -1.5, 10.0, -4.0, 0.5],
        [15.0, 8.0, 1.5, -15.0, 7.0, -1.0],
        [-6.0, -3.0, -0.5, 6.0, -3.0, 0.5],
    ]
)


def envelope(r: np.ndarray, cutoff: float, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the envelope of GET and its first two derivatives.

    Parameters
    ----------
    r : numpy.ndarray
        Distances in Å, not beyond the cutoff.
    cutoff : float
        In Å.
    kind : {"polynomial", "cosine"}
        See `scikd.md.get.RadialBasis`.

    Returns
    -------
    value, slope, curvature : numpy.ndarray
        In 1, 1/Å and 1/Å².
    """
    x = r / cutoff
    if kind == "cosine":
        w = math.pi / cutoff
        sine, cosine = np.sin(math.pi * x), np.cos(math.pi * x)
        return 0.5 * (cosine + 1.0), -0.5 * w * sine, -0.5 * w * w * cosine
    slope = -30.0 * (x * (1.0 - x)) ** 2 / cutoff
    curvature = -60.0 * x * (1.0 - x) * (1.0 - 2.0 * x) / cutoff**2
    return 1.0 + x**3 * (x * (15.0 - 6.0 * x) - 10.0), slope, curvature


def filters(weights: Mapping[str, Any], r: np.ndarray, cutoff: float, kind: str) -> np.ndarray:
    """Evaluate the filter of GET and its first two derivatives, without a table.

    Parameters
    ----------
    weights : mapping of str to array_like
        ``radial.means`` and ``radial.betas``, shape (n_radial,), and ``filter.weight``, shape
        (dim, n_radial).
    r : numpy.ndarray of shape (n,)
        Distances in Å, not beyond the cutoff.
    cutoff : float
        In Å.
    kind : {"polynomial", "cosine"}
        The envelope.

    Returns
    -------
    numpy.ndarray of shape (3, n, dim)
        Values, slopes in 1/Å, curvatures in 1/Å², float64.
    """
    means, betas, mix = (
        np.asarray(weights[name], dtype=np.float64)
        for name in ("radial.means", "radial.betas", "filter.weight")
    )
    rate = 5.0 / cutoff
    y = np.exp(-rate * r)[:, None]
    fade, slope, curvature = (part[:, None] for part in envelope(r, cutoff, kind))
    bell = np.exp(-betas * (y - means) ** 2)
    log1 = 2.0 * betas * rate * y * (y - means)  # derivatives of the bell's logarithm
    log2 = -2.0 * betas * rate**2 * y * (2.0 * y - means)
    bell1, bell2 = bell * log1, bell * (log1**2 + log2)
    x = (fade * bell) @ mix.T
    x1 = (slope * bell + fade * bell1) @ mix.T
    x2 = (curvature * bell + 2.0 * slope * bell1 + fade * bell2) @ mix.T
    # SiLU(x) = x s(x), with s' = s (1 - s)
    s = 0.5 * (1.0 + np.tanh(0.5 * x))
    s1 = s * (1.0 - s)
    silu1 = s + x * s1
    silu2 = s1 * (2.0 + x * (1.0 - 2.0 * s))
    return np.stack([x * s, silu1 * x1, silu2 * x1**2 + silu1 * x2])


@dataclass(frozen=True, eq=False)
class FilterTable:
    """The filter as quintics.

    Attributes
    ----------
    coefficients : numpy.ndarray of shape (6 n, dim)
        Row ``6 m + k`` holds the coefficients of ``t**k`` in interval m, where t runs from 0 to 1.
    cutoff : float
        In Å; the end of the last interval.
    errors : tuple of float
        Largest error of the values and of the slopes that was found, relative to the largest value
        and the largest slope of the filter.
    """

    coefficients: np.ndarray
    cutoff: float
    errors: tuple[float, float]

    @property
    def n_intervals(self) -> int:
        """Number of intervals."""
        return len(self.coefficients) // N_TERMS

    @classmethod
    def build(
        cls, weights: Mapping[str, Any], cutoff: float, kind: str, tolerance: float
    ) -> FilterTable:
        """Tabulate a filter.

        Parameters
        ----------
        weights, cutoff, kind
            As for `filters`.
        tolerance : float
            The largest error of the values, and of the slopes, relative to their largest.

        Raises
        ------
        InvalidInputError
            If the filter is so rough that no table of reasonable size reaches the tolerance.
        """
        n = _FEWEST
        while n <= _MOST:
            table = cls._with_intervals(weights, cutoff, kind, n)
            if max(table.errors) <= tolerance:
                return table
            n *= 2
        message = (
            f"Expected a filter that {_MOST} intervals represent to {tolerance:g} of its largest "
            f"value and slope; got errors of {table.errors}. Are the weights finite?"
        )
        raise InvalidInputError(message)

    @classmethod
    def _with_intervals(
        cls, weights: Mapping[str, Any], cutoff: float, kind: str, n: int
    ) -> FilterTable:
        step = cutoff / n
        scale = step ** np.arange(3)[:, None, None]
        at = filters(weights, np.linspace(0.0, cutoff, n + 1), cutoff, kind) * scale
        ends = np.concatenate([at[:, :-1], at[:, 1:]])
        coefficients = np.einsum("ke,emc->mkc", _HERMITE, ends)
        t = np.asarray(_BETWEEN)
        r = (np.arange(n)[:, None] + t) * step
        true = filters(weights, r.ravel(), cutoff, kind)[:2].reshape(2, n, len(t), -1)
        powers = t[:, None] ** np.arange(N_TERMS)
        slopes = np.arange(N_TERMS) * t[:, None] ** np.maximum(np.arange(N_TERMS) - 1, 0) / step
        ours = np.stack([np.einsum("tk,mkc->mtc", p, coefficients) for p in (powers, slopes)])
        off, size = (np.abs(a).max(axis=(1, 2, 3)) for a in (ours - true, true))
        errors = np.divide(off, size, out=np.zeros(2), where=size > 0)
        return cls(
            coefficients.reshape(N_TERMS * n, -1), cutoff, (float(errors[0]), float(errors[1]))
        )

    def evaluate(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values and slopes, shape (n, dim), at distances r of shape (n,) in Å."""
        place = np.asarray(r, dtype=np.float64) * (self.n_intervals / self.cutoff)
        m = np.minimum(place.astype(np.int64), self.n_intervals - 1)
        t = (place - m)[:, None]
        value = slope = np.zeros((len(m), self.coefficients.shape[1]))
        for k in range(N_TERMS - 1, -1, -1):
            slope = slope * t + value
            value = value * t + self.coefficients[N_TERMS * m + k]
        return value, slope * (self.n_intervals / self.cutoff)
