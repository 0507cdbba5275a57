"""How much of the teacher and how much of the truth a student should learn from.

A student learns the targets ``u = (1 - w) · truth + w · teacher``. For a learner that is linear in
its targets, its prediction is the same mixture of two fits, so the best ``w`` has a closed form
(Borup and Andersen 2021, arXiv:2102.13088); it may leave [0, 1] (arXiv:2602.17565). For any other
learner the closed form is a good guess, which is then tried: the student is fitted on the mixture,
and the guess is used only if held-out rows say that it gains more than one standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["Candidate", "MixtureChoice", "best_weight", "choose_mixture", "mean_and_error"]

HeldOut = Callable[[float], np.ndarray]
Loss = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """One weight that was tried on held-out rows.

    Attributes
    ----------
    weight : float
        Weight of the teacher: 0 is the truth alone, 1 the teacher alone.
    loss : float
        Weighted mean held-out loss of the student.
    gain : float
        Mean held-out gain over the student that learnt from the truth alone (positive is better).
    gain_error : float
        Standard error of that gain, paired by row, clustered by group.
    """

    weight: float
    loss: float
    gain: float
    gain_error: float


@dataclass(frozen=True)
class MixtureChoice:
    """What was tried, and what was chosen.

    Attributes
    ----------
    weight : float
        The chosen weight of the teacher.
    candidates : tuple of Candidate
        Truth alone, teacher alone, and the mixture of the closed form.
    closed_form : float
        The closed form before clipping; NaN if teacher and truth taught the same student.
    """

    weight: float
    candidates: tuple[Candidate, ...]
    closed_form: float


def best_weight(
    truth: np.ndarray, from_truth: np.ndarray, from_teacher: np.ndarray, weight: np.ndarray
) -> float:
    """Return the teacher's weight that minimises the squared loss of a mixture of two fits.

    Parameters
    ----------
    truth : ndarray of shape (n_samples, n_outputs)
        Held-out truth (one-hot for classes).
    from_truth : ndarray of shape (n_samples, n_outputs)
        Held-out predictions of the student that learnt from the truth.
    from_teacher : ndarray of shape (n_samples, n_outputs)
        Held-out predictions of the student that learnt from the teacher.
    weight : ndarray of shape (n_samples,)
        Sample weights.

    Returns
    -------
    float
        ``<truth - from_truth, from_teacher - from_truth> / |from_teacher - from_truth|²``; NaN if
        the two fits are the same.
    """
    step = from_teacher - from_truth
    power = float(weight @ np.square(step).sum(axis=1))
    scale = float(weight @ np.square(from_truth).sum(axis=1))
    if power <= np.finfo(np.float64).eps ** 2 * scale or power == 0.0:
        return float("nan")
    return float(weight @ ((truth - from_truth) * step).sum(axis=1)) / power


def mean_and_error(
    values: np.ndarray, weight: np.ndarray, cluster: np.ndarray | None = None
) -> tuple[float, float]:
    """Return a weighted mean and its standard error.

    Parameters
    ----------
    values : ndarray of shape (n_samples,)
        The values.
    weight : ndarray of shape (n_samples,)
        Non-negative weights; only their ratios and the number of clusters matter.
    cluster : ndarray of shape (n_samples,) or None, default=None
        Rows of one cluster are not independent; None takes every row as its own cluster.

    Returns
    -------
    float
        The mean.
    float
        The cluster-robust standard error of a ratio mean; infinite with fewer than two clusters.
    """
    heard = weight > 0
    share = weight[heard] / weight[heard].sum()
    mean = float(share @ values[heard])
    parts = share * (values[heard] - mean)
    if cluster is not None:
        parts = np.bincount(np.unique(cluster[heard], return_inverse=True)[1], weights=parts)
    if len(parts) < 2:
        return mean, float("inf")
    correction = len(parts) / (len(parts) - 1)
    return mean, float(np.sqrt(correction * np.square(parts).sum()))


def choose_mixture(
    held_out: HeldOut,
    loss: Loss,
    truth: np.ndarray,
    weight: np.ndarray,
    *,
    cluster: np.ndarray | None = None,
    bounds: tuple[float, float] = (-1.0, 2.0),
) -> MixtureChoice:
    """Choose the teacher's weight on held-out rows.

    Parameters
    ----------
    held_out : callable
        Takes a teacher's weight; returns held-out predictions, shape (n_samples, n_outputs), of
        the student fitted on that mixture.
    loss : callable
        Takes such predictions; returns the loss of every row, shape (n_samples,).
    truth : ndarray of shape (n_samples, n_outputs)
        Truth (one-hot for classes).
    weight : ndarray of shape (n_samples,)
        Sample weights.
    cluster : ndarray of shape (n_samples,) or None, default=None
        Groups of rows that are not independent.
    bounds : (float, float), default=(-1, 2)
        The closed form is clipped to these.

    Returns
    -------
    MixtureChoice
        The truth alone, unless the teacher alone gains more than one standard error over it; and
        that choice, unless the mixture of the closed form gains more than one standard error over
        it.

    Raises
    ------
    InvalidInputError
        If the bounds are not in order.
    """
    low, high = bounds
    if not (np.isfinite([low, high]).all() and low < high):
        message = f"Expected teacher_weight_bounds as (low, high) with low < high; got {bounds}."
        raise InvalidInputError(message)
    from_truth, from_teacher = held_out(0.0), held_out(1.0)
    losses = {0.0: loss(from_truth), 1.0: loss(from_teacher)}
    closed_form = best_weight(truth, from_truth, from_teacher, weight)
    clipped = float(np.clip(closed_form, low, high))
    if np.isfinite(clipped) and clipped not in losses:
        losses[clipped] = loss(held_out(clipped))
    candidates = []
    for tried, values in losses.items():
        gain, error = mean_and_error(losses[0.0] - values, weight, cluster)
        mean, _ = mean_and_error(values, weight)
        candidates.append(Candidate(tried, mean, gain, error))
    # No teacher is the simplest student: each step away from it must gain more than the noise.
    chosen = 0.0
    for tried in list(losses)[1:]:
        gain, error = mean_and_error(losses[chosen] - losses[tried], weight, cluster)
        chosen = tried if gain > error else chosen
    return MixtureChoice(chosen, tuple(candidates), closed_form)
