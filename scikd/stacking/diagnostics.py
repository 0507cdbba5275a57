"""How far the models of a pool repeat each other: condition and effective rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import svdvals
from scipy.special import xlogy

from scikd.kernels._checks import checked_weights
from scikd.stacking._predictions import Predictions
from scikd.stacking._threads import one_thread
from scikd.stacking.gram import Gram

__all__ = ["Conditioning"]

_CONSTANT = 1e-13  # a spread below this share of the largest error or target is rounding


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Eigenvalues of the correlation matrix of predictions, and what follows from them.

    All decent models of one target correlate strongly, so that a condition number of 1e9 is
    ordinary, and no fault of a pool. It tells by how much rounding and noise grow in *unpenalised*
    weights. What matters to a ridge is `penalised_condition`, which any penalty bounds.

    Attributes
    ----------
    eigenvalues : ndarray of shape (n_models - n_constant,)
        In descending order; their sum is their number.
    n_constant : int
        Models whose predictions do not vary; they correlate with nothing and are left out.
    """

    eigenvalues: np.ndarray
    n_constant: int = 0

    @classmethod
    def of(cls, P: Any, sample_weight: Any = None) -> Conditioning:
        """Sum over rows, in blocks; memory does not grow with their number.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models[, n_classes])
            Predictions; a missing one (NaN) counts as the mean of the others in its row, and rows
            without any are left out. The probabilities of all classes count as one column.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0.

        Raises
        ------
        InvalidInputError
            If P or the weights cannot be used.
        """
        predictions = Predictions.of(P)
        weight = checked_weights(
            sample_weight, predictions.n_samples, what="sample_weight", unit="row"
        )
        covered = predictions.covered
        parts = []
        for rows, block in predictions.blocks():
            heard = np.flatnonzero(covered[rows])
            columns = block[heard].reshape(len(heard), predictions.n_models, -1)
            flat = np.swapaxes(columns, 1, 2).reshape(-1, predictions.n_models)
            w = np.repeat(weight[rows][heard], columns.shape[2])
            # Differences to the mean of the row are small, and keep their digits.
            parts.append(Gram.of(flat, flat.mean(axis=1), w))
        return cls.of_gram(Gram.sum(parts))

    @classmethod
    def of_gram(cls, gram: Gram) -> Conditioning:
        """Compute from moments, without their rows.

        Parameters
        ----------
        gram : Gram
            Moments of all models; ``gram.take(kept)`` are those of some.
        """
        root = gram.factor()
        size = np.sqrt(np.square(root).sum(axis=0))
        varying = size[:-1] > _CONSTANT * max(size.max(), np.finfo(np.float64).tiny)
        columns = root[:, :-1][:, varying] / size[:-1][varying]
        with one_thread():
            eigenvalues = np.square(svdvals(columns)) if varying.any() else np.zeros(0)
        return cls(eigenvalues, int(np.count_nonzero(~varying)))

    @property
    def n_models(self) -> int:
        """Number of models that vary."""
        return len(self.eigenvalues)

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue; infinite where the smallest is rounding."""
        return self.penalised_condition(0.0)

    def penalised_condition(self, penalty: float) -> float:
        """Return the condition of the correlation matrix with a penalty on its diagonal.

        Parameters
        ----------
        penalty : float
            As added to a diagonal of ones.

        Returns
        -------
        float
            At least 1, and at most ``1 + n_models / penalty``.
        """
        if not self.n_models:
            return 1.0
        largest, smallest = self.eigenvalues[0], self.eigenvalues[-1]
        if smallest <= self.n_models * np.finfo(np.float64).eps * largest:
            smallest = 0.0
        return float((largest + penalty) / (smallest + penalty)) if smallest + penalty else np.inf

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the eigenvalues' shares, from 1 to `n_models`."""
        share = self.eigenvalues / max(self.eigenvalues.sum(), 1.0)
        return float(np.exp(-xlogy(share, share).sum()))

    @property
    def participation_ratio(self) -> float:
        """Squared sum over the sum of squares of the eigenvalues, from 1 to `n_models`."""
        return float(self.n_models**2 / max(np.square(self.eigenvalues).sum(), 1.0))
