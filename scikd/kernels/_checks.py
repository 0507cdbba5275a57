"""Input checks that the kernels share."""

from __future__ import annotations

from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["checked_array", "checked_members", "checked_weights"]


def checked_array(values: Any, what: str) -> np.ndarray:
    """Return an array of real numbers, neither copied nor converted, or raise.

    Parameters
    ----------
    values : array_like
        The array; a memory map stays one.
    what : str
        How to call it in the error message.

    Raises
    ------
    InvalidInputError
        If it holds anything but booleans, integers or floating-point numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        msg = f"{what} must hold real numbers, got dtype {array.dtype}; convert it to float"
        raise InvalidInputError(msg)
    return array


def checked_members(members: Any) -> np.ndarray:
    """Return predictions stacked over teachers, of shape (n_teachers, n, *k), or raise.

    Raises
    ------
    InvalidInputError
        If there is no teacher, or no axis of samples.
    """
    array = checked_array(members, "members")
    if array.ndim < 2:
        msg = (
            "members must have shape (n_teachers, n_samples, ...), got shape "
            f"{array.shape}; stack the teachers along the first axis"
        )
        raise InvalidInputError(msg)
    if len(array) == 0:
        msg = f"members must hold at least one teacher, got shape {array.shape}"
        raise InvalidInputError(msg)
    return array


def checked_weights(
    weights: Any, n: int, *, what: str = "weights", unit: str = "teacher"
) -> np.ndarray:
    """Return n finite weights >= 0, at least one of them > 0, or raise.

    Parameters
    ----------
    weights : array_like of shape (n,) or None
        The weights; None gives each the weight 1.
    n : int
        How many are needed.
    what, unit : str
        How to call them, and what each belongs to, in the error message.

    Returns
    -------
    ndarray of shape (n,), float64
    """
    if weights is None:
        return np.ones(n)
    array = checked_array(weights, what).astype(np.float64)
    if array.shape != (n,):
        msg = f"{what} must have shape ({n},), one per {unit}, got shape {array.shape}"
        raise InvalidInputError(msg)
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        msg = (
            f"{what} must be finite and >= 0, got {array[bad[0]]} for {unit} {bad[0]}"
            f" ({len(bad)} such); give a {unit} that should not count the weight 0"
        )
        raise InvalidInputError(msg)
    total = array.sum()
    if n > 0 and not (total > 0 and np.isfinite(total)):
        msg = f"{what} must have a finite sum > 0, got {total}; give some {unit} a weight > 0"
        raise InvalidInputError(msg)
    return array
