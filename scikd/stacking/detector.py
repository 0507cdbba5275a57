"""Stacked overfitting: a combiner that did worse than the plain pool where nobody had looked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from scikd.exceptions import StackingWarning
from scikd.stacking._levels import Level, level_of
from scikd.stacking._problem import deal_folds
from scikd.stacking.comparison import (
    Comparison,
    add_losses,
    count_groups,
    deal_bins,
    held_out_sums,
    paired,
)

__all__ = ["HeldOutCheck", "check_held_out"]

_SHARE = 9  # one part in nine is held out


@dataclass(frozen=True)
class HeldOutCheck:
    """A combiner and the plain mean of the models on rows that neither was fitted to.

    Once on all folds, each left out in turn; and once on a ninth of the groups that is left out of
    everything. Losses are mean squared errors, in the square of the unit of y, or log-losses, in
    nats.

    Attributes
    ----------
    combiner : str
        Its name.
    fold_loss, fold_plain_loss : float
        On the folds; of the combiner and of the mean.
    fold_error : float
        Standard error of the paired difference of these.
    loss, plain_loss : float
        On the ninth; NaN if there are too few groups to hold out two of them.
    error : float
        Standard error of the paired difference of these.
    n_groups : int
        How many groups of rows the ninth has.
    """

    combiner: str
    fold_loss: float
    fold_plain_loss: float
    fold_error: float
    loss: float
    plain_loss: float
    error: float
    n_groups: int

    @property
    def found(self) -> bool:
        """Whether the combiner is worse by more than one standard error.

        On the folds; or on the ninth, unless it `gains` on the folds, which are all rows.
        """
        on_folds = self.fold_loss - self.fold_plain_loss > self.fold_error
        on_ninth = self.loss - self.plain_loss > self.error
        return on_folds or (on_ninth and not self.gains)

    @property
    def gains(self) -> bool:
        """Whether the combiner is better on the folds by more than one standard error."""
        return self.fold_plain_loss - self.fold_loss > self.fold_error

    @property
    def declined(self) -> bool:
        """Whether the plain mean is used instead: of a blend also unless it `gains`."""
        return self.found or (self.combiner == "blend" and not self.gains)

    @property
    def reason(self) -> str:
        """Why the plain mean is used instead, in a sentence; empty if it is not."""
        if not self.declined:
            return ""
        what = "lost more than" if self.found else "gained no more than"
        return (
            f"{self.combiner} {what} one standard error against the plain mean on held-out rows: "
            "the mean is used instead."
        )

    def __str__(self) -> str:
        verdict = "worse" if self.found else "better" if self.gains else "not told apart"
        verdict += " by more than one standard error" if self.found or self.gains else ""
        return (
            f"{self.combiner} {self.fold_loss:.5g}, mean {self.fold_plain_loss:.5g}, standard "
            f"error {self.fold_error:.2g} on held-out folds; {self.loss:.5g}, "
            f"{self.plain_loss:.5g}, {self.error:.2g} on {self.n_groups} groups held out of "
            f"everything: {verdict}"
        )


def check_held_out(
    level: Level, name: str, cv: Any, random_state: int, comparison: Comparison | None = None
) -> HeldOutCheck | None:
    """Compare a candidate with the mean where neither was fitted.

    Parameters
    ----------
    level : Level
        All rows; one of its candidates is called ``"mean"``.
    name : str
        The one to check.
    cv : int, splitter, iterable of (train, test) or None
        Folds of the rows without the ninth; what is listed by row numbers is not used.
    random_state : int
        Deals out the groups.
    comparison : Comparison or None, default=None
        Losses on the folds, if there are any already.

    Returns
    -------
    HeldOutCheck or None
        None if nothing can be held out.

    Warns
    -----
    StackingWarning
        If the candidate is worse.
    """
    if not level.folds:
        return None
    bins, names = deal_bins(level.problem, random_state), (name, "mean")
    if comparison is None:
        sums, weight = held_out_sums(level, names, bins)
    else:
        columns = [comparison.names.index(one) for one in names]
        sums, weight = comparison.sums[:, columns], comparison.weight
    loss, plain = (sums.sum(axis=0) / weight.sum()).tolist()
    error = paired(sums[:, 0], sums[:, 1], weight)[1]
    on_a_ninth = _on_a_ninth(level, names, bins, cv, random_state)
    check = HeldOutCheck(name, loss, plain, error, *on_a_ninth)
    if check.found:
        message = (
            f"The plain mean takes the place of {name!r}, which did worse on rows that it was not "
            f"fitted to ({check}). detector=False keeps it."
        )
        warnings.warn(message, StackingWarning, stacklevel=4)
    return check


def _on_a_ninth(
    level: Level, names: tuple[str, ...], bins: np.ndarray, cv: Any, random_state: int
) -> tuple[float, float, float, int]:
    """Return both losses, the standard error of their difference, and the number of groups."""
    problem = level.problem
    ninth = deal_folds(problem, _SHARE, random_state)
    held, rest = np.flatnonzero(ninth == 0), np.flatnonzero(ninth > 0)
    found = np.unique(bins[held])
    if len(found) < 2:
        return np.nan, np.nan, np.nan, 0
    cv = cv if cv is None or isinstance(cv, (int, np.integer)) or hasattr(cv, "split") else None
    below = level_of(problem, level.candidates, cv, random_state, rows=rest)
    models = [below.fitted(one).model for one in names]
    sums, weight = np.zeros((int(bins.max()) + 1, 2)), np.zeros(int(bins.max()) + 1)
    add_losses(below, held, models, bins, sums, weight)
    sums, weight = sums[found], weight[found]
    loss, plain = (sums.sum(axis=0) / weight.sum()).tolist()
    error = paired(sums[:, 0], sums[:, 1], weight)[1]
    return loss, plain, error, count_groups(problem, held)
