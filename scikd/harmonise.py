"""Put teachers of different scales on one scale, so that averaging them makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.kernels._checks import checked_members, checked_weights

__all__ = ["Harmoniser", "How", "Per"]

How = Literal["minmax", "zscore", "rank", "quantile", "logit", "center"]
Per = Literal["global", "group"]


@dataclass(frozen=True)
class Harmoniser:
    """Rescale each teacher by its own statistics.

    ============  =============================================================  =============
    `how`         result                                                         constant gives
    ============  =============================================================  =============
    ``minmax``    ``(x - min) / (max - min)``                                    0.5
    ``zscore``    ``(x - mean) / std``, population standard deviation            0
    ``rank``      ``(rank - 0.5) / n``, within (0, 1), ties averaged             0.5
    ``quantile``  standard-normal quantile of the former                         0
    ``logit``     z-score of the log-odds ``log(p / (1 - p))`` of a probability  0
    ``center``    ``x - mean``, in the unit that it has                          0
    ============  =============================================================  =============

    The last column is what a teacher becomes that says the same about every sample of its
    reference (or of a group); it is never NaN. Missing predictions (NaN) stay missing, and take no
    part in any statistic. With k outputs, each output column has its own statistics.

    Parameters
    ----------
    how : {"minmax", "zscore", "rank", "quantile", "logit", "center"}, default="zscore"
        What to make of the predictions, as above.
    per : {"global", "group"}, default="global"
        ``"global"`` takes the statistics of the reference given to `fit`, so that one sample
        alone can be transformed. ``"group"`` takes those of the group that a sample is in (a
        query, a date, a mixture), needs the groups with every call of `transform`, and no `fit`.
    eps : float, default=1e-6
        For ``"logit"``: probabilities are clipped to [eps, 1 - eps], which bounds log-odds.
    statistics : mapping of str to ndarray, optional
        The fitted statistics, plain arrays whose first axis is the teacher; set by `fit`, or when
        a stored harmoniser is read back.

    Raises
    ------
    InvalidInputError
        If `how`, `per` or `eps` is out of range.

    Warnings
    --------
    ``minmax`` with ``per="global"`` leaves [0, 1] for predictions beyond the reference.
    ``rank`` and ``quantile`` give them the value of the reference's lowest or highest prediction.

    Examples
    --------
    >>> members = np.array([[0.0, 5.0, 10.0], [-1.0, 1.0, 0.0]])
    >>> harmoniser = Harmoniser("minmax").fit(members)
    >>> harmoniser.transform(members)
    array([[0. , 0.5, 1. ],
           [0. , 1. , 0.5]])
    >>> Harmoniser("minmax", per="group").transform(members, groups=[0, 0, 1])
    array([[0. , 1. , 0.5],
           [0. , 1. , 0.5]])
    """

    how: How = "zscore"
    per: Per = "global"
    eps: float = 1e-6
    statistics: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the parameters."""
        problems = [
            f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}"
            for name, value, allowed in (
                ("how", self.how, get_args(How)),
                ("per", self.per, get_args(Per)),
            )
            if value not in allowed
        ]
        if not 0 < self.eps < 0.5:
            problems.append(f"eps must be above 0 and below 0.5, got {self.eps}")
        if problems:
            raise InvalidInputError("; ".join(problems))

    def fit(self, members: Any, *, sample_weight: Any = None) -> Harmoniser:
        """Return a copy that holds the statistics of a reference.

        Parameters
        ----------
        members : array_like of shape (n_teachers, n_samples) or (n_teachers, n_samples, k)
            Predictions on the reference; NaN where missing.
        sample_weight : array_like of shape (n_samples,), default=None
            Weights >= 0; None weights all alike. A sample of weight 0 takes no part.

        Returns
        -------
        Harmoniser
            With `statistics` set; for ``per="group"`` without, as there is nothing to learn.

        Raises
        ------
        InvalidInputError
            If the shapes do not fit, a prediction is infinite, a teacher has no prediction at
            all, or (``"logit"``) is not a probability. The message names the teacher.
        """
        table = self._prepared(members)
        weights = checked_weights(
            sample_weight, table.shape[1], what="sample_weight", unit="sample"
        )
        if self.per == "group":
            return replace(self, statistics=None)
        table[:, weights == 0] = np.nan
        empty = np.argwhere(np.isnan(table).all(axis=1))
        if len(empty):
            msg = (
                f"teacher {empty[0][0]} has no prediction in the reference (output column "
                f"{empty[0][1]}); leave it out, or fit on samples that it covers"
            )
            raise InvalidInputError(msg)
        if self.how in ("rank", "quantile"):
            statistics = _distribution(table, weights)
        else:
            codes = np.zeros(table.shape[1], dtype=np.int64)
            offset, scale = _offset_scale(table, codes, weights, self.how)
            statistics = {"offset": offset[:, 0], "scale": scale[:, 0]}
        return replace(self, statistics=statistics)

    def transform(self, members: Any, *, groups: Any = None) -> np.ndarray:
        """Rescale predictions.

        Parameters
        ----------
        members : array_like of shape (n_teachers, n_samples) or (n_teachers, n_samples, k)
            Predictions; NaN where missing.
        groups : array_like of int of shape (n_samples,), default=None
            Group of each sample, any integers in any order. Needed for ``per="group"``, not
            looked at for ``per="global"``.

        Returns
        -------
        ndarray of the same shape, float64
            Dimensionless, but for ``"center"``.

        Raises
        ------
        InvalidInputError
            If the shapes do not fit each other or the reference, a prediction is infinite, the
            groups are missing, or `fit` was not called. The message names the teacher.
        """
        table = self._prepared(members)
        result = self._by_group(table, groups) if self.per == "group" else self._by_reference(table)
        return result.reshape(np.shape(members))

    def fit_transform(self, members: Any, *, groups: Any = None) -> np.ndarray:
        """Fit on predictions and rescale the same; arguments as of `fit` and `transform`."""
        return self.fit(members).transform(members, groups=groups)

    def _prepared(self, members: Any) -> np.ndarray:
        """Return a fresh float64 copy of shape (n_teachers, n, k), as log-odds for "logit"."""
        array = checked_members(members)
        if array.ndim > 3:
            msg = (
                "members must have shape (n_teachers, n_samples) or (n_teachers, n_samples, k), "
                f"got {array.shape}"
            )
            raise InvalidInputError(msg)
        table = np.array(array, dtype=np.float64).reshape((*array.shape, 1)[:3])
        for t, predictions in enumerate(table):
            n_infinite = int(np.count_nonzero(np.isinf(predictions)))
            if n_infinite:
                msg = (
                    f"teacher {t} has {n_infinite} infinite predictions; expected finite numbers, "
                    "or NaN where missing"
                )
                raise InvalidInputError(msg)
            if self.how == "logit":
                _to_log_odds(predictions, t, self.eps)
        return table

    def _by_reference(self, table: np.ndarray) -> np.ndarray:
        """Rescale by the statistics of the reference."""
        if self.statistics is None:
            msg = f"Harmoniser({self.how!r}) has no reference yet; use what its fit(...) returns"
            raise InvalidInputError(msg)
        shape = next(iter(self.statistics.values())).shape
        if (shape[0], shape[-1]) != (len(table), table.shape[2]):
            msg = (
                f"members must have {shape[0]} teachers of {shape[-1]} output columns as in fit, "
                f"got {len(table)} of {table.shape[2]}"
            )
            raise InvalidInputError(msg)
        if self.how in ("rank", "quantile"):
            for t, k in np.ndindex(len(table), table.shape[2]):
                column = {name: array[t, :, k] for name, array in self.statistics.items()}
                table[t, :, k] = _fractions(table[t, :, k], column)
            return self._finished(table)
        offset, scale = self.statistics["offset"], self.statistics["scale"]
        return self._rescaled(table, offset[:, None], scale[:, None])

    def _by_group(self, table: np.ndarray, groups: Any) -> np.ndarray:
        """Rescale by the statistics of each group."""
        from scikd.kernels.ranks import (  # noqa: PLC0415 - brings Numba, which most rules need not
            group_ranks,
            group_sizes,
        )

        codes = _codes(groups, table.shape[1])
        if self.how in ("rank", "quantile"):
            for t, k in np.ndindex(len(table), table.shape[2]):
                column = table[t, :, k]
                sizes = np.maximum(group_sizes(column, codes), 1)
                table[t, :, k] = (group_ranks(column, codes) - 0.5) / sizes
            return self._finished(table)
        offset, scale = _offset_scale(table, codes, None, self.how)
        return self._rescaled(table, offset[:, codes], scale[:, codes])

    def _rescaled(self, table: np.ndarray, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return (table - offset) / scale in place; an infinite scale marks a constant."""
        table -= offset
        table /= scale
        if self.how == "minmax":
            np.add(table, 0.5, out=table, where=np.isinf(scale))
        return table

    def _finished(self, fractions: np.ndarray) -> np.ndarray:
        """Return ranks as they are, or their standard-normal quantiles."""
        if self.how == "rank":
            return fractions
        from scipy.special import ndtri  # noqa: PLC0415 - brings SciPy, which most rules need not

        return np.asarray(ndtri(fractions, out=fractions))


def _codes(groups: Any, n: int) -> np.ndarray:
    """Return group codes from 0 on, without a gap."""
    codes = None if groups is None else np.asarray(groups)
    if codes is None or codes.shape != (n,) or codes.dtype.kind not in "iu":
        got = "None" if codes is None else f"dtype {codes.dtype}, shape {codes.shape}"
        msg = (
            f"groups must be integer codes of shape ({n},) for per='group', got {got}; "
            "numpy.unique(labels, return_inverse=True)[1] makes codes of labels"
        )
        raise InvalidInputError(msg)
    return np.unique(codes, return_inverse=True)[1].reshape(n)


def _to_log_odds(proba: np.ndarray, teacher: int, eps: float) -> None:
    """Turn one teacher's probabilities into log-odds, in place."""
    bad = proba[(proba < 0) | (proba > 1)]
    if len(bad):
        msg = (
            f"how='logit' needs probabilities within [0, 1], got {bad[0]} from teacher {teacher} "
            f"({len(bad)} such); use how='zscore' for scores"
        )
        raise InvalidInputError(msg)
    np.clip(proba, eps, 1 - eps, out=proba)
    np.subtract(np.log(proba), np.log1p(-proba), out=proba)


def _offset_scale(
    table: np.ndarray, codes: np.ndarray, weights: np.ndarray | None, how: How
) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract and to divide by, both of shape (n_teachers, n_groups, k).

    Where all values of a group are alike the offset is that value and the scale is infinite: then
    the quotient is 0 for any input, where a division by a tiny rounding error would not be.
    """
    if table.shape[1] == 0:
        return np.empty_like(table), np.empty_like(table)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) > 0])
    table = table[:, order]
    low = np.fmin.reduceat(table, starts, axis=1)
    high = np.fmax.reduceat(table, starts, axis=1)
    alike = ~(high > low)
    if how == "minmax":
        return low, np.where(alike, np.inf, high - low)
    present = ~np.isnan(table)
    load = present.astype(np.float64)
    if weights is not None:
        load *= weights[order][:, None]
    total = np.add.reduceat(load, starts, axis=1)
    with np.errstate(invalid="ignore"):  # a group without any value: 0 / 0, and all stay NaN
        np.subtract(table, low[:, codes[order]], out=table)
        np.copyto(table, 0.0, where=~present)
        mean = np.add.reduceat(load * table, starts, axis=1) / total
        table -= mean[:, codes[order]]
        np.square(table, out=table)
        np.copyto(table, 0.0, where=~present)
        std = np.sqrt(np.add.reduceat(load * table, starts, axis=1) / total)
    if how == "center":
        return np.where(alike, low, low + mean), np.ones_like(std)
    alike |= ~(std > 0)  # a range so small that its square is 0
    return np.where(alike, low, low + mean), np.where(alike, np.inf, std)


def _distribution(table: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return sorted values (NaN last), and the share of weight up to and including each.

    Both have shape (n_teachers, n, k). The share is left out if all weights are alike, as it is
    then the position.
    """
    if (weights == weights[:1]).all():
        table.sort(axis=1)
        return {"values": table}
    order = np.argsort(table, axis=1)
    values = np.take_along_axis(table, order, axis=1)
    load = np.where(np.isnan(values), 0.0, weights[order])
    share = np.cumsum(load, axis=1)
    return {"values": values, "share": share / share[:, -1:]}


def _fractions(x: np.ndarray, reference: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the weighted share of the reference below x, plus half of that equal to x."""
    values = reference["values"]
    n = int(np.count_nonzero(~np.isnan(values)))
    values = values[:n]
    x = np.clip(x, values[0], values[-1])
    below, upto = np.searchsorted(values, x, "left"), np.searchsorted(values, x, "right")
    if "share" not in reference:
        result = (below + upto) / (2 * n)
    else:
        share = np.concatenate([[0.0], reference["share"][:n]])
        result = 0.5 * (share[below] + share[upto])
    return np.where(np.isnan(x), np.nan, result)
