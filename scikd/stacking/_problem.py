"""A prediction matrix with truth, weights, and what belongs together; and its folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.validation import column_or_1d

from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import Fold, make_folds
from scikd.stacking._predictions import Predictions, numbers
from scikd.stacking.kernels import deal_groups, hash_rows

__all__ = ["Problem", "check_problem", "deal_folds", "fold_numbers", "splits"]

_N_FOLDS = 5


class Ties:
    """Which rows are the same, or belong together; found when first asked for.

    Most combiners hold nothing out, and looking for equal rows takes longer than their whole fit.
    """

    def __init__(self, find: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        self._find = find

    @cached_property
    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of equal rows, and of groups of rows."""
        return self._find()

    def take(self, rows: np.ndarray) -> Ties:
        """Return those of some rows."""
        return Ties(lambda: (self.numbers[0][rows], self.numbers[1][rows]))


@dataclass(frozen=True, eq=False)
class Problem:
    """Predictions with all that a combiner learns from.

    Attributes
    ----------
    P : Predictions
        The predictions.
    y : ndarray of shape (n_samples,)
        Targets, float64; for classes their numbers in ``P.classes``.
    weight : ndarray of shape (n_samples,)
        Sample weights; 0 for rows that no model predicts.
    ties : Ties
        What `copies` and `groups` are found by.
    grouped : bool
        Whether groups or recurring rows were given.
    fold : ndarray of shape (n_samples,) or None
        Number of the given fold; all of a group have that in which most of its weight lies.
    """

    P: Predictions
    y: np.ndarray
    weight: np.ndarray
    ties: Ties
    grouped: bool = False
    fold: np.ndarray | None = None

    @property
    def copies(self) -> np.ndarray:
        """The same number for rows that are equal in predictions and target."""
        return self.ties.numbers[0]

    @property
    def groups(self) -> np.ndarray:
        """The same number for rows that are held out together.

        Those of one group, of one `row_id` or equal in all, and those so linked by others.
        """
        return self.ties.numbers[1]

    def take(self, rows: np.ndarray) -> Problem:
        """Return some of the rows."""
        return replace(
            self,
            P=self.P.take(rows),
            y=self.y[rows],
            weight=self.weight[rows],
            ties=self.ties.take(rows),
            fold=None if self.fold is None else self.fold[rows],
        )


def check_problem(
    P: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    groups: Any = None,
    fold: Any = None,
    row_id: Any = None,
    classes: Any = None,
    classifier: bool = False,
) -> Problem:
    """Check all that a combiner learns from.

    Parameters
    ----------
    P : array-like, frame, mapping, OutOfFold or Predictions
        As in `Predictions.of`.
    y : array-like of shape (n_samples,)
        Targets, or labels.
    sample_weight : array-like of shape (n_samples,) or None, default=None
        Weights >= 0.
    groups : array-like of shape (n_samples,) or None, default=None
        Rows of one group are held out together.
    fold : array-like of shape (n_samples,) or None, default=None
        The fold in which the base models did not see the row.
    row_id : array-like of shape (n_samples,) or None, default=None
        Rows that recur (repeated cross-validation) share it.
    classes : array-like of shape (n_classes,) or None, default=None
        Labels of the last axis of P; None takes those of P, or the sorted labels in y.
    classifier : bool, default=False
        Whether y holds labels.

    Raises
    ------
    InvalidInputError
        Naming all that does not fit.
    """
    predictions = Predictions.of(P, classes=classes)
    n, wrong = predictions.n_samples, list[str]()
    columns: dict[str, Any] = {}
    given = {"y": y, "sample_weight": sample_weight, "groups": groups, "fold": fold}
    for name, values in {**given, "row_id": row_id}.items():
        if values is None:
            continue
        column = columns[name] = _column(values, name, wrong)
        if column is not None and len(column) != n:
            wrong.append(f"{name} has {len(column)} entries for {n} rows of predictions")
    if y is None:
        wrong.append("y is None")
    if (predictions.values.ndim == 3) != classifier:
        what = "labels" if classifier else "numbers"
        wrong.append(f"y holds {what} but predictions have shape {predictions.values.shape}")
    weight = _weight(columns.get("sample_weight"), n, wrong)
    if not wrong:
        target, predictions = _target(columns["y"], predictions, wrong, classifier=classifier)
    if wrong:
        message = f"Expected predictions and truth that fit together; {'; '.join(wrong)}."
        raise InvalidInputError(message)
    links = [_numbered(columns[name]) for name in ("groups", "row_id") if name in columns]
    ties = Ties(lambda: _tied(predictions, target, links))
    problem = Problem(predictions, target, _heard(predictions, weight), ties, bool(links))
    if fold is None:
        return problem
    settled = _settled(_numbered(columns["fold"]), problem.groups, problem.weight)
    return replace(problem, fold=settled)


def _heard(predictions: Predictions, weight: np.ndarray) -> np.ndarray:
    """Return weights that are 0 where no model predicts."""
    covered = predictions.covered
    weight = np.where(covered, weight, 0.0)
    if not weight.any():
        message = (
            f"Expected a row with a weight > 0 that some model predicts; got none among "
            f"{len(weight)} sample(s), of which {int(covered.sum())} are predicted."
        )
        raise InvalidInputError(message)
    return weight


def _tied(
    predictions: Predictions, y: np.ndarray, links: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    copies = _numbered(_row_hashes(predictions, y))
    return copies, _joined([copies, *links])


def _column(values: Any, name: str, wrong: list[str]) -> np.ndarray | None:
    try:
        column = np.asarray(column_or_1d(values, warn=name == "y"))
    except ValueError as error:
        wrong.append(f"{name}: {error}")
        return None
    gaps = _gaps(column) if name in {"groups", "fold", "row_id"} else 0
    if gaps:
        wrong.append(f"{name} is missing (None or NaN) in {gaps} rows")
    return column


def _gaps(labels: np.ndarray) -> int:
    """Count missing labels."""
    if labels.dtype.kind == "f":
        return int(np.isnan(labels).sum())
    if labels.dtype.kind != "O":
        return 0
    return sum(one is None or is_scalar_nan(one) or is_pandas_na(one) for one in labels)


def _weight(weight: np.ndarray | None, n: int, wrong: list[str]) -> np.ndarray:
    if weight is None:
        return np.ones(n)
    weight = numbers(weight, "sample_weight").astype(np.float64)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        wrong.append(f"{int(bad.sum())} sample weights are negative, NaN or infinite")
    elif not weight.any():
        wrong.append("all sample weights are zero")
    return weight


def _target(
    y: np.ndarray, predictions: Predictions, wrong: list[str], *, classifier: bool
) -> tuple[np.ndarray, Predictions]:
    """Return numbers, or the numbers of the labels and predictions that know their classes."""
    if not classifier:
        target = numbers(y, "y").astype(np.float64)
        bad = int(np.count_nonzero(~np.isfinite(target)))
        if bad:
            wrong.append(f"y contains {bad} NaN or infinity")
        return target, predictions
    labels = np.unique(y)
    classes = labels if predictions.classes is None else predictions.classes
    if len(classes) != predictions.values.shape[2]:
        n_classes = predictions.values.shape[2]
        wrong.append(f"{n_classes} probabilities per model, but y holds {len(classes)} classes")
        return y, predictions
    order = np.argsort(classes, kind="stable")
    place = np.minimum(np.searchsorted(classes[order], y), len(classes) - 1)
    code = order[place]
    unknown = np.unique(y[classes[code] != y])
    if len(unknown):
        wrong.append(f"y holds {unknown.tolist()}, the classes are {classes.tolist()}")
    return code, replace(predictions, classes=classes)


def _row_hashes(P: Predictions, y: np.ndarray) -> np.ndarray:
    """Hash every row of predictions and target."""
    hashes = np.empty(len(y), dtype=np.uint64)
    target = np.ascontiguousarray(y, dtype=np.float64)[:, None]
    for rows, block in P.raw_blocks():
        flat = np.ascontiguousarray(block, dtype=np.float64).reshape(len(block), -1)
        part = hashes[rows]
        part[:] = 1
        for table in (target[rows], flat):
            hash_rows(table, table.view(np.uint64), part)
    return hashes


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Give equal labels one number, in order of first appearance."""
    _, first, code = np.unique(labels, return_index=True, return_inverse=True)
    if len(first) == len(labels):
        return np.arange(len(labels))
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    result: np.ndarray = rank[code]
    return result


def _joined(codes: list[np.ndarray]) -> np.ndarray:
    """Give one number to rows that share a number anywhere, directly or by links."""
    from scipy.sparse import coo_matrix  # noqa: PLC0415 - few problems are grouped
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    joined = codes[0]
    for code in codes[1:]:
        n_left, n_right = joined.max() + 1, code.max() + 1
        ones = np.ones(len(code), dtype=np.int8)
        shape = (n_left + n_right, n_left + n_right)
        links = coo_matrix((ones, (joined, n_left + code)), shape=shape)
        joined = _numbered(connected_components(links, directed=False)[1][joined])
    return joined


def _settled(fold: np.ndarray, groups: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Give all of a group the fold in which most of its weight lies; the first of several."""
    n_folds = fold.max() + 1
    pairs, place = np.unique(groups * n_folds + fold, return_inverse=True)
    load = np.bincount(place, weights=weight)
    best = np.lexsort((pairs, -load, pairs // n_folds))
    group, first = np.unique(pairs[best] // n_folds, return_index=True)
    chosen = np.empty(len(group), dtype=np.intp)
    chosen[group] = pairs[best][first] % n_folds
    settled: np.ndarray = chosen[groups]
    return settled


# --- folds ----------------------------------------------------------------------------------------


def deal_folds(problem: Problem, n_folds: int, random_state: Any = None) -> np.ndarray:
    """Deal the groups of rows to folds of about equal weight, class by class.

    Parameters
    ----------
    problem : Problem
        The rows.
    n_folds : int
        How many folds; as many as there are groups if these are fewer.
    random_state : int, RandomState or None, default=None
        Decides between groups of equal weight.

    Returns
    -------
    ndarray of shape (n_samples,)
        The fold of every row; -1 for rows of weight 0, which are no rows.
    """
    heard = np.flatnonzero(problem.weight)
    group = _numbered(problem.groups[heard])
    load = np.bincount(group, weights=problem.weight[heard])
    n_groups = len(load)
    label = np.zeros(n_groups, dtype=np.intp)
    if problem.P.values.ndim == 3:
        label = _settled(problem.y[heard], group, problem.weight[heard])[
            np.unique(group, return_index=True)[1]
        ]
    chance = check_random_state(random_state).permutation(n_groups)
    order = np.lexsort((chance, -load, label))
    dealt = deal_groups(order, load, label, int(label.max()) + 1, min(n_folds, n_groups))
    fold = np.full(len(problem.y), -1, dtype=np.intp)
    fold[heard] = dealt[group]
    return fold


def fold_numbers(problem: Problem, cv: Any, random_state: Any = None) -> np.ndarray | None:
    """Return the fold of every row, -1 for rows of weight 0; None if `cv` is a splitter."""
    if cv is None and problem.fold is not None:
        return np.where(problem.weight > 0, problem.fold, -1)
    if cv is None or isinstance(cv, (int, np.integer)):
        n_folds = _N_FOLDS if cv is None else int(cv)
        if n_folds < 2:
            message = f"Expected cv to be at least 2 folds; got {n_folds}."
            raise InvalidInputError(message)
        return deal_folds(problem, n_folds, random_state)
    return None


def splits(problem: Problem, cv: Any = None, random_state: Any = None) -> tuple[Fold, ...]:
    """Return the folds on which combiners are judged; none of them splits a group.

    Parameters
    ----------
    problem : Problem
        The rows.
    cv : int, splitter, iterable of (train, test) or None, default=None
        None takes the folds that were given, or else deals out five. An int deals out that many.
        What a splitter or an iterable gives is kept, but for training rows whose given group, or
        `row_id`, is tested.
    random_state : int, RandomState or None, default=None
        Order in which groups are dealt out.

    Returns
    -------
    tuple of (ndarray, ndarray)
        Row numbers (train, test), without rows of weight 0. Empty if all rows are of one group,
        or in one given fold.

    Raises
    ------
    InvalidInputError
        If a fold of a splitter is unusable.
    """
    fold = fold_numbers(problem, cv, random_state)
    if fold is not None:
        found = np.unique(fold[fold >= 0])
        if len(found) < 2:
            return ()
        return tuple(
            (np.flatnonzero((fold >= 0) & (fold != k)), np.flatnonzero(fold == k)) for k in found
        )
    groups = problem.groups if problem.grouped else None
    classifier = problem.P.values.ndim == 3
    given = make_folds(problem.P.values, problem.y, cv, groups=groups, classifier=classifier)
    kept, heard = [], problem.weight > 0
    for number, (train, test) in enumerate(given):
        tested = test[heard[test]]
        learnt = train[heard[train]]
        if groups is not None:
            learnt = learnt[~np.isin(groups[learnt], groups[tested])]
        if not len(learnt) or not len(tested):
            message = (
                f"Fold {number} has {len(learnt)} training and {len(tested)} test rows of weight "
                "> 0 that share no group; both must hold at least one."
            )
            raise InvalidInputError(message)
        kept.append((learnt, tested))
    return tuple(kept)
