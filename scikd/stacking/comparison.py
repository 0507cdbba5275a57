"""How good combiners are on rows that they were not fitted on, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from scikd.stacking._levels import Level
from scikd.stacking._problem import Problem

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Comparison",
    "Interval",
    "add_losses",
    "apparent_loss",
    "choose",
    "compare",
    "count_groups",
    "deal_bins",
    "held_out_sums",
    "paired",
]

_MOST_BINS = 2000
_BLOCK = 1 << 16


class Interval(NamedTuple):
    """A value with the ends of its 95 % bootstrap interval; NaN with fewer than two groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Losses of several combiners on the same held-out rows.

    Everything a combiner does, it has done again without each fold, and is judged on that fold.
    Intervals say how the losses vary with the rows that happened to be there: groups of rows are
    drawn anew, the same for every combiner, so that differences are paired. They do not say how the
    losses vary with the rows that combiners, and models before them, were fitted to.

    Attributes
    ----------
    names : tuple of str
        The combiners, the simplest first.
    default : str
        The one that was asked for.
    loss_name : str
        ``"RMSE"``, in the unit of y, or ``"log-loss"``, in nats.
    sums : ndarray of shape (n_bins, n_combiners)
        Weighted losses (squared errors under ``"RMSE"``), summed over the rows of a bin. Each group
        is a bin, unless there are more than 2,000: these are dealt out to 2,000 bins at random.
        An interval needs no more.
    weight : ndarray of shape (n_bins,)
        Weights, summed over the rows of a bin.
    models : tuple of int
        How many models each combiner uses when fitted to all rows.
    seconds : tuple of float
        What fitting it to all rows took, once the moments of all folds were there.
    n_resamples : int
        Bootstrap resamples.
    random_state : int
        Their seed.
    n_groups : int or None
        How many groups of rows there are in the bins; None if each bin is one.
    """

    names: tuple[str, ...]
    default: str
    loss_name: str
    sums: np.ndarray
    weight: np.ndarray
    models: tuple[int, ...]
    seconds: tuple[float, ...]
    n_resamples: int = 1000
    random_state: int = 0
    n_groups: int | None = None

    @property
    def losses(self) -> dict[str, float]:
        """The held-out loss of every combiner."""
        return dict(zip(self.names, self._ended(self._means).tolist(), strict=True))

    def loss(self, name: str) -> Interval:
        """Return the loss of a combiner with its interval."""
        j = self.names.index(name)
        return self._interval(float(self._ended(self._means)[j]), self._drawn[:, j])

    def difference(self, name: str, other: str) -> Interval:
        """Return the loss of a combiner minus that of another, with the paired interval."""
        i, j = self.names.index(name), self.names.index(other)
        values = self._ended(self._means)
        return self._interval(float(values[i] - values[j]), self._drawn[:, i] - self._drawn[:, j])

    def standard_error(self, name: str, other: str) -> float:
        """Return the standard error of the paired difference of *mean* losses.

        Of squared errors under ``"RMSE"``, since a mean has a standard error without resampling;
        infinite with fewer than two groups.
        """
        i, j = self.names.index(name), self.names.index(other)
        return paired(self.sums[:, i], self.sums[:, j], self.weight)[1]

    @property
    def resampled(self) -> str:
        """What the bootstrap draws, in words."""
        n_bins = len(self.weight)
        if self.n_groups is None or self.n_groups == n_bins:
            return f"{n_bins:,} groups of rows"
        return f"{n_bins:,} bins of {self.n_groups:,} groups of rows"

    @property
    def best(self) -> str:
        """The combiner with the smallest loss; the simplest of several."""
        candidates = self._candidates
        return candidates[int(np.argmin(self._means[: len(candidates)]))]

    @property
    def simplest(self) -> str:
        """The simplest combiner that is no more than one standard error worse than the best."""
        candidates = self._candidates
        return candidates[_simplest(self.sums[:, : len(candidates)], self.weight)]

    @property
    def _candidates(self) -> tuple[str, ...]:
        """All but the choice among them, which comes last."""
        return tuple(name for name in self.names if name != "auto")

    def to_frame(self) -> pd.DataFrame:
        """Return a row per combiner; a column for every number, and for the ends of its interval.

        Returns
        -------
        pandas.DataFrame
            Indexed by name: ``loss``, ``vs_mean``, ``vs_best_single`` and ``vs_default``, each
            followed by ``_low`` and ``_high``; ``models`` and ``seconds``.
        """
        import pandas as pd  # noqa: PLC0415 - only a frame needs it

        return pd.DataFrame(self._table(), index=pd.Index(self.names, name="combiner"))

    def _table(self) -> dict[str, list[Any]]:
        table: dict[str, list[Any]] = {}
        columns = {"loss": [self.loss(name) for name in self.names]}
        others = {"mean": "mean", "best_single": "best_single", "default": self.default}
        for title, other in others.items():
            if other in self.names:
                columns[f"vs_{title}"] = [self.difference(name, other) for name in self.names]
        for title, intervals in columns.items():
            table[title] = [entry.value for entry in intervals]
            table[f"{title}_low"] = [entry.low for entry in intervals]
            table[f"{title}_high"] = [entry.high for entry in intervals]
        return table | {"models": list(self.models), "seconds": list(self.seconds)}

    def __str__(self) -> str:
        gaps = [title for title in ("mean", "best_single") if title in self.names]
        heads = [f"{self.loss_name:>10} {'95 % interval':>22}"]
        heads += [f"{'minus ' + title:>36}" for title in gaps]
        lines = [f"{'combiner':16}{''.join(heads)} {'models':>7} {'seconds':>8}"]
        for j, name in enumerate(self.names):
            cells = [_cell(self.loss(name), width=10)]
            cells += [f" {_cell(self.difference(name, title), width=12)}" for title in gaps]
            mark = "*" if name == self.default else " "
            lines.append(
                f"{mark}{name:15}{''.join(cells)} {self.models[j]:>7} {self.seconds[j]:>8.2g}"
            )
        lines.append(
            f"* asked for. Best: {self.best}; simplest within one standard error of it: "
            f"{self.simplest}. Intervals by bootstrap over {self.resampled}."
        )
        return "\n".join(lines)

    @property
    def _means(self) -> np.ndarray:
        means: np.ndarray = self.sums.sum(axis=0) / self.weight.sum()
        return means

    @cached_property
    def _drawn(self) -> np.ndarray:
        """Losses of shape (n_resamples, n_combiners), of groups that are drawn anew."""
        n_bins, random = len(self.weight), np.random.default_rng(self.random_state)
        drawn = np.full((self.n_resamples, len(self.names)), np.nan)
        if n_bins > 1:
            for one in drawn:
                times = np.bincount(random.integers(n_bins, size=n_bins), minlength=n_bins)
                total = times @ self.weight
                one[:] = times @ self.sums / total if total else np.nan
        return self._ended(drawn)

    def _ended(self, means: np.ndarray) -> np.ndarray:
        return np.sqrt(means) if self.loss_name == "RMSE" else means

    def _interval(self, value: float, drawn: np.ndarray) -> Interval:
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return Interval(value, np.nan, np.nan)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Interval(value, float(low), float(high))


def paired(left: np.ndarray, right: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the difference of two mean losses, and its standard error.

    Parameters
    ----------
    left, right : ndarray of shape (n_bins,)
        Weighted losses, summed over bins.
    weight : ndarray of shape (n_bins,)
        Weights, summed over bins.
    """
    total, n_bins = weight.sum(), len(weight)
    gap = float((left - right).sum() / total)
    if n_bins < 2:
        return gap, np.inf
    spread = np.square(left - right - gap * weight).sum() * (n_bins / (n_bins - 1))
    return gap, float(np.sqrt(spread) / total)


def deal_bins(problem: Problem, random_state: Any = 0, most: int = _MOST_BINS) -> np.ndarray:
    """Return the bin of every row; groups of rows are not split.

    Rows of weight 0 get the number -1.
    """
    heard = np.flatnonzero(problem.weight)
    group = np.unique(problem.groups[heard], return_inverse=True)[1]
    n_groups = int(group.max()) + 1
    if n_groups > most:
        chance = check_random_state(random_state).permutation(n_groups) % most
        group = chance[group]
    bins = np.full(len(problem.y), -1, dtype=np.intp)
    bins[heard] = group
    return bins


def count_groups(problem: Problem, rows: np.ndarray) -> int:
    """Return how many groups some rows belong to, those of weight 0 apart."""
    return len(np.unique(problem.groups[rows[problem.weight[rows] > 0]]))


def held_out_sums(
    level: Level, names: tuple[str, ...], bins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted losses and weights of all held-out rows, summed over bins.

    Parameters
    ----------
    level : Level
        With folds to leave out.
    names : tuple of str
        The candidates.
    bins : ndarray of shape (n_samples,)
        As from `deal_bins`.

    Returns
    -------
    ndarray of shape (n_bins, n_candidates)
    ndarray of shape (n_bins,)
        Bins without a held-out row are left out.
    """
    n_bins = int(bins.max()) + 1
    sums, weight = np.zeros((n_bins, len(names))), np.zeros(n_bins)
    for k, rows in enumerate(level.folds):
        below = level.without(k)
        models = [below.fitted(name).model for name in names]
        add_losses(level, rows, models, bins, sums, weight)
    tested = weight > 0
    return sums[tested], weight[tested]


def add_losses(
    level: Level,
    rows: np.ndarray,
    models: list[Any],
    bins: np.ndarray,
    sums: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Add the weighted losses of some rows to the sums of their bins, in place."""
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        w, there = level.problem.weight[part], bins[part]
        weight += np.bincount(there, weights=w, minlength=len(weight))
        for j, losses in enumerate(level.candidates.losses(level.problem, part, models).T):
            sums[:, j] += np.bincount(there, weights=w * losses, minlength=len(weight))


def compare(
    level: Level, default: str, loss_name: str, n_resamples: int = 1000
) -> Comparison | None:
    """Compare candidates on the rows that folds hold out; None if no fold can be held out.

    Parameters
    ----------
    level : Level
        All rows.
    default : str
        Which candidate was asked for, or ``"auto"``.
    loss_name : {"RMSE", "log-loss"}
        What losses are.
    n_resamples : int
        Of the bootstrap.
    """
    if not level.folds:
        return None
    names, random_state = level.candidates.names, level.candidates.random_state
    names = (*names, "auto") if default == "auto" else names
    sums, weight = held_out_sums(level, names, deal_bins(level.problem, random_state))
    fits = [level.fitted(name) for name in names]
    models = tuple(level.candidates.used(fit.model) for fit in fits)
    seconds = tuple(fit.seconds for fit in fits)
    return Comparison(
        names, default, loss_name, sums, weight, models, seconds, n_resamples, random_state,
        count_groups(level.problem, np.concatenate(level.folds)),
    )  # fmt: skip


def choose(level: Level) -> str:
    """Return the simplest candidate within one standard error of the best on held-out rows."""
    names = level.candidates.names
    if not level.folds:
        return names[0]
    bins = deal_bins(level.problem, level.candidates.random_state)
    return names[_simplest(*held_out_sums(level, names, bins))]


def _simplest(sums: np.ndarray, weight: np.ndarray) -> int:
    """Return the first column within one standard error of the best."""
    best = int(np.argmin(sums.sum(axis=0)))
    for j in range(best):
        gap, error = paired(sums[:, j], sums[:, best], weight)
        if gap <= error:
            return j
    return best


def apparent_loss(level: Level, model: Any, loss_name: str, n_resamples: int) -> Interval:
    """Return the loss of a fitted one on the rows that it was fitted to."""
    bins = deal_bins(level.problem, level.candidates.random_state)
    sums, weight = np.zeros((int(bins.max()) + 1, 1)), np.zeros(int(bins.max()) + 1)
    add_losses(level, level.rows, [model], bins, sums, weight)
    options = {"n_resamples": n_resamples, "random_state": level.candidates.random_state}
    return Comparison(("it",), "it", loss_name, sums, weight, (0,), (0.0,), **options).loss("it")


def _cell(interval: Interval, width: int) -> str:
    ends = f"[{interval.low:.5g}, {interval.high:.5g}]"
    return f"{interval.value:>{width}.5g} {ends:>22}"
