"""Stacked overfitting: a combiner that did worse than the plain pool where nobody had looked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from scikd.exceptions import StackingWarning
from scikd.stacking._levels import Candidates, level_of
from scikd.stacking._problem import Problem, deal_folds
from scikd.stacking.comparison import add_losses, deal_bins, paired

__all__ = ["HeldOutCheck", "check_held_out"]

_SHARE = 9  # one part in nine is held out


@dataclass(frozen=True)
class HeldOutCheck:
    """A combiner and the plain mean on a ninth of the groups, which neither was fitted to.

    Attributes
    ----------
    combiner : str
        Its name.
    n_groups : int
        How many groups of rows were held out; more than 2,000 count as 2,000.
    loss, plain_loss : float
        Mean squared error, in the square of the unit of y, or log-loss, in nats; of the combiner
        fitted to the other eight ninths, and of the plain mean of all models.
    error : float
        Standard error of their paired difference.
    """

    combiner: str
    n_groups: int
    loss: float
    plain_loss: float
    error: float

    @property
    def found(self) -> bool:
        """Whether the combiner is worse by more than one standard error."""
        return self.loss - self.plain_loss > self.error

    def __str__(self) -> str:
        verdict = "overfits: fell back to the mean" if self.found else "no overfitting found"
        return (
            f"{self.combiner} {self.loss:.6g}, mean {self.plain_loss:.6g}, difference "
            f"{self.loss - self.plain_loss:+.3g} +- {self.error:.2g} on {self.n_groups} held-out "
            f"groups: {verdict}"
        )


def check_held_out(
    problem: Problem, candidates: Candidates, name: str, cv: Any, random_state: int
) -> HeldOutCheck | None:
    """Hold out a ninth of the groups, and compare a candidate with the mean there.

    Parameters
    ----------
    problem : Problem
        All rows.
    candidates : Candidates
        With one called ``"mean"``.
    name : str
        The one to check.
    cv : int, splitter, iterable of (train, test) or None
        Folds of the rest; what is listed by row numbers is not used.
    random_state : int
        Deals out the groups.

    Returns
    -------
    HeldOutCheck or None
        None with fewer than two groups on either side.

    Warns
    -----
    StackingWarning
        If the candidate is worse.
    """
    ninth = deal_folds(problem, _SHARE, random_state)
    held, rest = np.flatnonzero(ninth == 0), np.flatnonzero(ninth > 0)
    bins = deal_bins(problem, random_state)
    held_bins = np.unique(bins[held])
    if len(held_bins) < 2:
        return None
    cv = cv if cv is None or isinstance(cv, (int, np.integer)) or hasattr(cv, "split") else None
    level = level_of(problem, candidates, cv, random_state, rows=rest)
    models = [level.fitted(one).model for one in (name, "mean")]
    sums, weight = np.zeros((int(bins.max()) + 1, 2)), np.zeros(int(bins.max()) + 1)
    add_losses(level, held, models, bins, sums, weight)
    sums, weight = sums[held_bins], weight[held_bins]
    _, error = paired(sums[:, 0], sums[:, 1], weight)
    loss, plain = (sums.sum(axis=0) / weight.sum()).tolist()
    check = HeldOutCheck(name, len(held_bins), loss, plain, error)
    if check.found:
        message = (
            f"{name!r} did worse than the plain mean on the ninth of the groups that was held out: "
            f"{loss:.6g} against {plain:.6g}, standard error {error:.2g}. The mean takes its "
            "place. detector=False keeps it."
        )
        warnings.warn(message, StackingWarning, stacklevel=4)
    return check
