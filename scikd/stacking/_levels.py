"""Combiners fitted to all folds, to all but one, to all but two: each once.

An honest score leaves out a fold and does *everything* again without it, also what looks at folds
itself. So there are levels: all rows, the rows without one fold, those without another one beside
it. Which folds are left out counts, not in what order, and nothing is fitted twice.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from scikd.out_of_fold import Fold
from scikd.stacking._problem import Problem, fold_numbers, splits
from scikd.stacking.gram import Gram, GramSplit

__all__ = ["Candidates", "Fitted", "Level", "level_of", "level_of_moments"]

_MOST_FOLDS = 5
_LEAST_FOLDS = 4  # so that two of them are there where two are left out


class Fitted(NamedTuple):
    """What a candidate has learnt, and the seconds that this took."""

    model: Any
    seconds: float


class Candidates(ABC):
    """Ways to combine, by name, the simplest first.

    Attributes
    ----------
    names : tuple of str
        Without ``"auto"``, which chooses among them.
    random_state : int
        Deals groups of rows to bins.
    """

    names: tuple[str, ...]
    random_state: int

    @abstractmethod
    def fit(self, name: str, level: Level) -> Any:
        """Return what one learns from a level."""

    @abstractmethod
    def losses(self, problem: Problem, rows: np.ndarray, models: Sequence[Any]) -> np.ndarray:
        """Return the losses of fitted ones, shape (n_rows, n_fitted)."""

    @abstractmethod
    def used(self, model: Any) -> int:
        """Return how many models of the pool a fitted one needs."""


class Level(ABC):
    """Rows to learn from, and folds of them that can be left out.

    Attributes
    ----------
    problem : Problem
        All rows there are. Numbers of rows are those in this problem.
    candidates : Candidates
        What is fitted.
    folds : tuple of ndarray
        The rows that each fold holds out.
    """

    problem: Problem
    candidates: Candidates
    folds: tuple[np.ndarray, ...]

    @abstractmethod
    def without(self, k: int) -> Level:
        """Return the level that learns from what remains without fold k."""

    @property
    @abstractmethod
    def rows(self) -> np.ndarray:
        """All rows to learn from."""

    @property
    @abstractmethod
    def gram(self) -> Gram:
        """Moments of these rows."""

    @property
    @abstractmethod
    def gram_splits(self) -> tuple[GramSplit, ...]:
        """Moments of the training and test rows of every fold."""

    @property
    @abstractmethod
    def fold(self) -> np.ndarray | None:
        """Folds of `rows`, or None if rows are in several or none."""

    @property
    @abstractmethod
    def _memory(self) -> dict[str, Any]:
        """What has been computed."""

    def fitted(self, name: str) -> Fitted:
        """Return what a candidate learns here."""

        def fit() -> Fitted:
            start = time.perf_counter()
            model = self.candidates.fit(name, self)
            return Fitted(model, time.perf_counter() - start)

        found: Fitted = self.once(f"fitted {name}", fit)
        return found

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return what was computed under this key, or compute it."""
        if key not in self._memory:
            self._memory[key] = compute()
        return self._memory[key]


@dataclass(eq=False)
class _Partition:
    """Rows in folds, each in one; and all that was computed of them."""

    problem: Problem
    candidates: Candidates
    folds: tuple[np.ndarray, ...]
    moments: tuple[Gram, ...] | None = None
    memory: dict[frozenset[int], dict[str, Any]] = field(default_factory=dict)

    @property
    def grams(self) -> tuple[Gram, ...]:
        """Moments of every fold: the only pass over rows that squared loss needs."""
        if self.moments is None:
            self.moments = tuple(_moments(self.problem, rows) for rows in self.folds)
        return self.moments


class _PartitionLevel(Level):
    """All folds of a partition but some."""

    def __init__(self, source: _Partition, out: frozenset[int] = frozenset()) -> None:
        self.problem, self.candidates = source.problem, source.candidates
        self._source, self._out = source, out
        self._left = [k for k in range(len(source.folds)) if k not in out]
        self.folds = tuple(source.folds[k] for k in self._left) if len(self._left) > 1 else ()

    def without(self, k: int) -> Level:
        return _PartitionLevel(self._source, self._out | {self._left[k]})

    @property
    def rows(self) -> np.ndarray:
        return np.sort(np.concatenate([self._source.folds[k] for k in self._left]))

    @property
    def gram(self) -> Gram:
        gram: Gram = self.once("gram", lambda: Gram.sum(self._source.grams[k] for k in self._left))
        return gram

    @property
    def gram_splits(self) -> tuple[GramSplit, ...]:
        if not self.folds:
            return ()
        tests = [self._source.grams[k] for k in self._left]
        return tuple((self.without(k).gram, test) for k, test in enumerate(tests))

    @property
    def fold(self) -> np.ndarray | None:
        number = np.full(len(self.problem.y), -1)
        for k in self._left:
            number[self._source.folds[k]] = k
        return number[self.rows]

    @property
    def _memory(self) -> dict[str, Any]:
        return self._source.memory.setdefault(self._out, {})


class _SplitLevel(Level):
    """Rows with folds that are no partition, or too few to leave out two of them."""

    def __init__(
        self,
        problem: Problem,
        candidates: Candidates,
        rows: np.ndarray,
        pairs: Sequence[Fold],
        options: tuple[Any, Any],
    ) -> None:
        self.problem, self.candidates = problem, candidates
        self.folds = tuple(test for _, test in pairs)
        self._rows, self._pairs, self._options = rows, pairs, options
        self._computed: dict[str, Any] = {}
        self._below: dict[int, Level] = {}

    def without(self, k: int) -> Level:
        if k not in self._below:
            train = np.sort(self._pairs[k][0])
            self._below[k] = level_of(self.problem, self.candidates, *self._options, rows=train)
        return self._below[k]

    @property
    def rows(self) -> np.ndarray:
        return self._rows

    @property
    def gram(self) -> Gram:
        gram: Gram = self.once("gram", lambda: _moments(self.problem, self._rows))
        return gram

    @property
    def gram_splits(self) -> tuple[GramSplit, ...]:
        def pairs() -> tuple[GramSplit, ...]:
            problem = self.problem
            return tuple(
                (_moments(problem, one), _moments(problem, two)) for one, two in self._pairs
            )

        splits: tuple[GramSplit, ...] = self.once("splits", pairs)
        return splits

    @property
    def fold(self) -> np.ndarray | None:
        return None if self.problem.fold is None else self.problem.fold[self._rows]

    @property
    def _memory(self) -> dict[str, Any]:
        return self._computed


def level_of(
    problem: Problem,
    candidates: Candidates,
    cv: Any = None,
    random_state: Any = None,
    *,
    rows: np.ndarray | None = None,
) -> Level:
    """Return the level of all rows, or of some.

    Parameters
    ----------
    problem : Problem
        All rows.
    candidates : Candidates
        What will be fitted.
    cv, random_state
        As in `scikd.stacking._problem.splits`. More than five given folds are merged into five, so
        that there are few sets of folds to leave out.
    rows : ndarray of int or None, default=None
        Some of the rows, of which `cv` then makes folds anew.
    """
    part = problem if rows is None else problem.take(rows)
    number = np.arange(len(problem.y)) if rows is None else rows
    if cv is None and part.fold is not None:
        part = replace(part, fold=_merged(part.fold, part.weight))
    fold = fold_numbers(part, cv, random_state)
    heard = number[part.weight > 0]
    if fold is not None:
        found = tuple(number[fold == k] for k in np.unique(fold[fold >= 0]))
        if len(found) >= _LEAST_FOLDS:
            return _PartitionLevel(_Partition(problem, candidates, found))
    try:
        pairs = splits(part, cv, random_state)
    except ValueError:
        if rows is None:
            raise
        pairs = splits(part, None, random_state)  # part of the rows may be too few for a splitter
    # What is listed by row numbers, and not by a rule, says nothing of a part of the rows.
    below = cv if cv is None or isinstance(cv, (int, np.integer)) or hasattr(cv, "split") else None
    pairs = tuple((number[train], number[test]) for train, test in pairs)
    return _SplitLevel(problem, candidates, heard, pairs, (below, random_state))


def level_of_moments(
    problem: Problem, candidates: Candidates, folds: Sequence[np.ndarray], grams: Sequence[Gram]
) -> Level:
    """Return a level whose folds have moments of their own; for what needs no rows."""
    return _PartitionLevel(_Partition(problem, candidates, tuple(folds), tuple(grams)))


def _moments(problem: Problem, rows: np.ndarray) -> Gram:
    return Gram.of(problem.P, problem.y, problem.weight, rows=rows, groups=problem.groups)


def _merged(fold: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """Merge folds until there are five of about equal weight; one alone is none."""
    found, place = np.unique(fold, return_inverse=True)
    if len(found) < 2:
        return None
    if len(found) <= _MOST_FOLDS:
        return place
    load, target = np.bincount(place, weights=weight), np.zeros(len(found), dtype=np.intp)
    total = np.zeros(_MOST_FOLDS)
    for k in np.argsort(-load, kind="stable"):
        target[k] = int(np.argmin(total))
        total[target[k]] += load[k]
    return target[place]
