"""An audit of leaks: scores that know what could not be known, or earn what cannot be earned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np

from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import make_folds

from ._days import as_days
from ._futures import FUTURES, other_future
from ._overlaps import overlapping, trains_later
from .features import Convention, forward_returns
from .metrics import information_coefficient, newey_west_t
from .panel import Panel
from .readers import align_scores

__all__ = ["AuditResult", "Check", "MovedScores", "audit", "audit_execution", "audit_splits"]

MOST_SHOWN = 8
CLEAR = 3.0  # t of what is taken for real
DIFFERENT = 2.0  # t of a difference
LEAST_LEFT = 0.25  # of a correlation, a day later
QUARTILES = 1.349  # standard deviations between those of a normal distribution


@dataclass(frozen=True)
class MovedScores:
    """Scores that changed when the future did.

    Attributes
    ----------
    future : str
        How it was changed: "scrambled", "scaled" or "delisted".
    seed : int
        Of the change.
    cut : numpy.datetime64
        The last date that stayed as it was.
    n_scores : int
        How many scores up to this date moved, appeared or vanished.
    first : numpy.datetime64
        The earliest date of these.
    date, asset : numpy.datetime64, str
        Where it moved most.
    size : float
        By how much there, in standard deviations of all scores; infinite where a score appeared or
        vanished.
    """

    future: str
    seed: int
    cut: np.datetime64
    n_scores: int
    first: np.datetime64
    date: np.datetime64
    asset: str
    size: float

    def __str__(self) -> str:
        how = "appeared or vanished" if np.isinf(self.size) else f"moved by {self.size:.2g} std"
        return (
            f"prices after {self.cut} {self.future} (seed {self.seed}): {self.n_scores} scores "
            f"from {self.first} on, most {self.asset} on {self.date}, which {how}"
        )


@dataclass(frozen=True)
class Check:
    """One question of an audit, and its answer.

    Attributes
    ----------
    name : str
        "future", "execution" or "splits".
    passed : bool
        Whether no leak was found.
    finding : str
        What was found, with numbers.
    moved : tuple of MovedScores
        Of "future": one for each change of the future that moved a score.
    """

    name: str
    passed: bool
    finding: str
    moved: tuple[MovedScores, ...] = ()

    def __str__(self) -> str:
        lines = [f"{'ok  ' if self.passed else 'LEAK'}  {self.name}: {self.finding}"]
        lines += [f"      {one}" for one in self.moved[:MOST_SHOWN]]
        if len(self.moved) > MOST_SHOWN:
            lines.append(f"      and {len(self.moved) - MOST_SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes
    ----------
    checks : tuple of Check
        Those that were made.
    skipped : tuple of str
        What was not checked, and why.
    """

    checks: tuple[Check, ...]
    skipped: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check found a leak."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        leaks = [check.name for check in self.checks if not check.passed]
        verdict = f"Leaks: {', '.join(leaks)}." if leaks else self._all_clear()
        return "\n".join(
            [*map(str, self.checks), *(f"--    {one}" for one in self.skipped), verdict]
        )

    def _all_clear(self) -> str:
        if not self.skipped:
            return "No leak was found."
        checked = " and ".join(check.name for check in self.checks)
        left_out = " and ".join(one.partition(":")[0] for one in self.skipped)
        return f"No leak was found in {checked}; {left_out} not checked."


def audit(
    make_scores: Callable[[Panel], Any] | Any,
    panel: Panel,
    *,
    splitter: Any = None,
    horizon: int = 5,
    convention: Convention = "next_close",
    cuts: int | Sequence[Any] = 3,
    futures: Sequence[str] = tuple(FUTURES),
    n_seeds: int = 2,
    tolerance: float = 1e-6,
    progress: Progress = "auto",
) -> AuditResult:
    """Look for leaks in scores, and in how they were made.

    Three questions are asked. *Future*: with other prices after a date, does a score of that date
    or before it change? It may not. *Execution*: do the scores tell only the return from the very
    close that they are made of? Nobody can buy there. *Splits*: does training know labels that
    reach into the test?

    Parameters
    ----------
    make_scores : callable, or scores
        Takes a panel and returns scores, as `scikd.finance.align_scores` takes them: the whole of
        the work, from prices, with all training in it. It must give the same scores for the same
        panel. Scores that are there already can be audited for execution only.
    panel : Panel
        The prices.
    splitter : splitter, iterable of (train, test) or None, default=None
        How training and test were split, over the dates of the panel.
    horizon, convention
        Of the label, see `scikd.finance.forward_returns`.
    cuts : int or sequence of date, default=3
        Dates after which the future is changed. A number takes as many runs of neighbouring dates
        with scores, a date for each future and seed: the last there are, and others by chance. So a
        look at the next day is seen even if, say, only the scores of one day of the week do so.
        First dates of tests are added: labels that overlap show there.
    futures : sequence of {"scrambled", "scaled", "delisted"}
        How the future is changed: days shuffled, and prices and volumes multiplied one by one; all
        prices of an asset multiplied by one number; half of the assets vanished.
    n_seeds : int, default=2
        Times each is done, with other random numbers.
    tolerance : float, default=1e-6
        Change of a score that is rounding, in standard deviations of all scores.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Returns
    -------
    AuditResult
        Its text says what moved, and ``passed`` whether nothing did.

    Raises
    ------
    InvalidInputError
        If two runs on the same panel differ, there are no scores, or an argument cannot be used.

    Notes
    -----
    .. warning::
       A model that was trained beforehand, on days that are scored here, leaks without being seen:
       its training is not repeated. Hand over a function that trains. A look one day ahead moves
       the score of the last date before a cut only: what looks ahead on fewer dates than one in as
       many as a run has (with defaults, 6) may need more cuts. And no audit sees that the best of
       many tries was kept.
    """
    checks, skipped = [], []
    folds = None if splitter is None else _folds(splitter, panel)
    if callable(make_scores):
        scores = align_scores(make_scores(panel), panel)
        _check_repeats(scores, align_scores(make_scores(panel), panel), tolerance)
        starts = [int(test.min()) for _, test in folds or ()]
        changes = [(kind, seed) for seed in range(n_seeds) for kind in _known(futures)]
        plan = _plan(
            cuts, [row for row in starts if row < panel.n_dates - 1], changes, scores, panel
        )
        moved = []
        for trial in track(plan, total=len(plan), description="futures", progress=progress):
            changed = align_scores(make_scores(other_future(panel, *trial)), panel)
            moved += _moved(scores, changed, trial, panel, tolerance)
        checks.append(_future_check(moved, len(plan), len({row for row, _, _ in plan})))
    else:
        scores = align_scores(make_scores, panel)
        skipped.append("future: not checked, because scores were given and no function")
    checks.append(audit_execution(scores, panel))
    if folds is None:
        skipped.append("splits: not checked, because no splitter was given")
    else:
        checks.append(audit_splits(folds, panel, horizon=horizon, convention=convention))
    return AuditResult(tuple(checks), tuple(skipped))


def audit_execution(scores: Any, panel: Panel) -> Check:
    """Tell whether scores earn anything beyond the close that they are made of.

    Their daily rank correlation with the return from the same close to the next is compared with
    that of a day later. It is a leak if the first is clearly there (t of Newey and West above 3),
    the second is not, and is less than a quarter of the first (with t above 2 for the difference).

    Parameters
    ----------
    scores : scores
        As `scikd.finance.align_scores` takes them.
    panel : Panel
        The prices.
    """
    scores = align_scores(scores, panel)
    series = [
        information_coefficient(scores, forward_returns(panel, 1, convention), rank=True)
        for convention in ("same_close", "next_close")
    ]
    same, later = (_t_of(one) for one in series)
    if np.isnan(same) or np.isnan(later):
        finding = "too few dates with scores and returns to tell"
        return Check("execution", True, finding)
    drop = _t_of(series[0] - series[1])
    first, second = (float(np.nanmean(one)) for one in series)
    lost = second * np.sign(first) < LEAST_LEFT * abs(first) and abs(drop) > DIFFERENT
    passed = not (abs(same) > CLEAR and abs(later) < CLEAR and lost)
    finding = (
        f"rank IC with the next day's return {first:.4f} (t {same:.1f}) from the same close, "
        f"{second:.4f} (t {later:.1f}) from the close after it"
    )
    if not passed:
        finding += "; what there is can only be had at the close that made the score"
    return Check("execution", passed, finding)


def _t_of(series: np.ndarray) -> float:
    """Return the t of a mean; infinite if all values are the same, as those of a perfect leak."""
    known = series[np.isfinite(series)]
    if len(known) > 1 and np.ptp(known) == 0.0 and known[0] != 0.0:
        return math.copysign(math.inf, known[0])
    return newey_west_t(known)


def audit_splits(
    splitter: Any, panel: Panel, *, horizon: int = 5, convention: Convention = "next_close"
) -> Check:
    """Tell whether labels of training reach into tests.

    Parameters
    ----------
    splitter : splitter or iterable of (train, test)
        Of the dates of the panel.
    panel : Panel
        The prices.
    horizon, convention
        Of the label, see `scikd.finance.forward_returns`.
    """
    folds = _folds(splitter, panel)
    found = [overlapping(train, test, horizon, convention) for train, test in folds]
    count = sum(map(len, found))
    finding = f"{len(folds)} splits, {horizon}-day labels ({convention}): "
    if count:
        worst = next(days for days in found if len(days))
        finding += (
            f"{count} dates of training have labels that reach into a test, such as "
            f"{panel.dates[worst[-1]]}"
        )
    else:
        finding += "no label of training reaches into a test"
    later = trains_later(folds, np.arange(panel.n_dates))
    if later is not None:
        finding += "; some train on days after their test, which tells no history of a strategy"
    return Check("splits", not count, finding)


def _folds(splitter: Any, panel: Panel) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return make_folds(np.empty((panel.n_dates, 1)), None, splitter, groups=panel.dates)


def _known(futures: Sequence[str]) -> Sequence[str]:
    unknown = [kind for kind in futures if kind not in FUTURES]
    if unknown or isinstance(futures, str):
        message = f"Expected futures out of {list(FUTURES)}; got {unknown or futures!r}."
        raise InvalidInputError(message)
    return futures


def _plan(
    cuts: Any,
    starts: Sequence[int],
    changes: Sequence[tuple[str, int]],
    scores: np.ndarray,
    panel: Panel,
) -> list[tuple[int, str, int]]:
    """Return what is tried: the last row that stays as it is, how what follows changes, a seed."""
    if isinstance(cuts, Integral):
        runs = _runs(int(cuts), len(changes), scores, panel)
        tried = {
            (int(row), *change) for run in runs for row, change in zip(run, changes, strict=True)
        }
        rows = list(starts)
    else:
        tried, rows = set(), [*_rows_of(cuts, panel), *starts]
    return sorted(tried | {(row, *change) for row in rows for change in changes})


def _runs(cuts: int, length: int, scores: np.ndarray, panel: Panel) -> np.ndarray:
    """Return runs of rows with scores, shape (cuts, length); the last one is at their end."""
    scored = np.flatnonzero(np.isfinite(scores).any(axis=1))
    # Only dates with scores: a look at the next day moves the score of the last date alone.
    possible = scored[scored <= panel.n_dates - 2]
    if cuts < 1 or not len(possible):
        message = (
            f"Expected at least one cut, and dates after the first score; got cuts={cuts} and "
            f"{panel.n_dates} dates, the first score on {panel.dates[scored[0]]}."
        )
        raise InvalidInputError(message)
    last = max(len(possible) - length, 0)  # first place of a run at the end
    borders = np.linspace(0, last, cuts).astype(int)
    random = np.random.default_rng(0)
    chosen = [random.integers(a, max(a, b - length) + 1) for a, b in pairwise(borders)]
    # A run that is longer than all there is begins anew.
    places = (np.array([*chosen, last])[:, None] + np.arange(length)) % len(possible)
    found: np.ndarray = possible[places]
    return found


def _rows_of(cuts: Any, panel: Panel) -> list[int]:
    """Return the rows of dates that were asked for."""
    days = as_days(cuts, "cuts").astype("datetime64[D]")
    rows = np.searchsorted(panel.dates, days, side="right") - 1
    if not len(rows) or rows.min() < 0 or rows.max() > panel.n_dates - 2:
        message = (
            f"Expected cuts from {panel.dates[0]} to the day before {panel.dates[-1]}; got {cuts}."
        )
        raise InvalidInputError(message)
    return [int(row) for row in rows]


def _check_repeats(scores: np.ndarray, again: np.ndarray, tolerance: float) -> None:
    gap = _differences(scores, again)
    if gap.max() > tolerance:
        message = (
            "Expected the same scores for the same panel; a second run moved "
            f"{int((gap > tolerance).sum())} of them. Fix the seeds of make_scores: otherwise "
            "nothing tells a leak from chance."
        )
        raise InvalidInputError(message)


def _differences(scores: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Return how far scores moved, in standard deviations; infinity for gaps of one only."""
    gap = np.abs(scores - changed) / _spread(scores)
    one_only = np.isnan(scores) != np.isnan(changed)
    moved: np.ndarray = np.where(one_only, np.inf, np.nan_to_num(gap, nan=0.0))
    return moved


def _spread(scores: np.ndarray) -> float:
    """Return the standard deviation of scores, by their quartiles: no outlier hides what moves."""
    low, high = np.nanquantile(scores, [0.25, 0.75])
    return float(high - low) / QUARTILES or float(np.nanstd(scores)) or 1.0


def _moved(
    scores: np.ndarray,
    changed: np.ndarray,
    trial: tuple[int, str, int],
    panel: Panel,
    tolerance: float,
) -> list[MovedScores]:
    row, kind, seed = trial
    gap = _differences(scores, changed)[: row + 1]
    places = np.argwhere(gap > tolerance)
    if not len(places):
        return []
    t, n = np.unravel_index(np.argmax(gap), gap.shape)
    return [
        MovedScores(
            kind,
            seed,
            cut=panel.dates[row],
            n_scores=len(places),
            first=panel.dates[places[0, 0]],
            date=panel.dates[t],
            asset=panel.assets[n],
            size=float(gap[t, n]),
        )
    ]


def _future_check(moved: list[MovedScores], n_trials: int, n_cuts: int) -> Check:
    tried = f"of {n_trials} other futures, after {n_cuts} dates"
    if not moved:
        return Check("future", True, f"no score moved in any {tried}")
    worst = max(one.size for one in moved)
    how = "as far as to appear or vanish" if np.isinf(worst) else f"by up to {worst:.2g} std"
    return Check("future", False, f"scores moved {how} in {len(moved)} {tried}", tuple(moved))
