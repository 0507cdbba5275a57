"""What a teacher predicts: named arrays, each with a unit and a shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["PROBA", "SCORE", "VALUE", "Quantity"]


@dataclass(frozen=True)
class Quantity:
    """One kind of prediction.

    Parameters
    ----------
    name : str
        Key of the quantity in the mapping that a teacher returns, e.g. ``"value"`` (a regression
        target), ``"proba"`` (class probabilities), ``"score"``, ``"energy"``, ``"forces"``.
    unit : str, default=""
        Unit of the numbers; empty for dimensionless ones.
    shape : tuple of int or None, default=None
        Shape of one entry: ``()`` for a number, ``(3,)`` for a force. None leaves it open.
    per : str, default="sample"
        What the first axis counts. Only quantities per ``"sample"`` must have as many entries as
        there are samples; forces are per ``"atom"``.
    """

    name: str
    unit: str = ""
    shape: tuple[int, ...] | None = None
    per: str = "sample"

    def problem(self, array: np.ndarray, n_samples: int | None) -> str | None:
        """Say what is wrong with an array of this quantity, or return None.

        Parameters
        ----------
        array : ndarray of shape (n, *shape)
            The array that should hold this quantity.
        n_samples : int or None
            How many samples were asked for; None if that is not known.

        Returns
        -------
        str or None
            A clause such as "'value' has 3 rows for 5 samples", or None if all is well.
        """
        if not np.issubdtype(array.dtype, np.floating):
            return f"{self.name!r} has dtype {array.dtype}, expected floating-point numbers"
        if array.ndim == 0:
            return f"{self.name!r} is a single number, expected one entry per {self.per}"
        if self.per == "sample" and n_samples is not None and len(array) != n_samples:
            return f"{self.name!r} has {len(array)} rows for {n_samples} samples"
        if self.shape is not None and array.shape[1:] != self.shape:
            return f"{self.name!r} has entries of shape {array.shape[1:]}, expected {self.shape}"
        if not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1)))
            return f"{self.name!r} is NaN or infinite in {bad} of {len(array)} rows"
        return None

    def check(self, array: np.ndarray, n_samples: int | None = None) -> np.ndarray:
        """Return the array, or raise an error that says what is wrong with it.

        Raises
        ------
        InvalidInputError
            If the array has the wrong dtype, length or shape, or is not finite.
        """
        problem = self.problem(array, n_samples)
        if problem is not None:
            raise InvalidInputError(problem)
        return array


VALUE = Quantity("value", shape=None)
PROBA = Quantity("proba", shape=None)
SCORE = Quantity("score", shape=None)
