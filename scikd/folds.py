"""Folds that keep together what belongs together: duplicated rows, and the user's groups."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.utils import check_random_state

from scikd.exceptions import InvalidInputError
from scikd.out_of_fold import Fold, make_folds, take

__all__ = ["distinct_rows", "grouped_folds"]


def distinct_rows(X: Any) -> np.ndarray:
    """Give equal rows of a table one number, in order of first appearance.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), frame, or sparse matrix
        The rows. Two NaN count as equal.

    Returns
    -------
    ndarray of shape (n_samples,)
        The same number for equal rows.
    """
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in _row_keys(X)], dtype=np.intp)


def _row_keys(X: Any) -> list[bytes]:
    if hasattr(X, "tocsr"):
        X = X.tocsr().sorted_indices()
        X.eliminate_zeros()
        spans = zip(X.indptr[:-1], X.indptr[1:], strict=True)
        return [X.indices[a:b].tobytes() + X.data[a:b].tobytes() for a, b in spans]
    values = X.to_numpy() if hasattr(X, "to_numpy") else np.asarray(X)
    if values.dtype.kind in "iu":
        return [row.tobytes() for row in np.ascontiguousarray(values)]
    if values.dtype.kind in "bf":
        values = np.ascontiguousarray(values, dtype=np.float64) + 0.0  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan  # one bit pattern for every NaN
        return [row.tobytes() for row in values]
    return [hashlib.sha256(repr(row.tolist()).encode()).digest() for row in values]


def grouped_folds(
    X: Any,
    y: np.ndarray,
    cv: Any,
    *,
    groups: Any = None,
    sample_weight: np.ndarray | None = None,
    classifier: bool = False,
    random_state: Any = None,
) -> tuple[Fold, ...]:
    """Return the folds on which models are trained and judged.

    An integer ``cv`` deals out the distinct rows, so that all copies of a row land in one fold and
    a row of weight two is dealt like two copies of it; with groups it deals out the groups, joined
    where two groups hold copies of one row. Any other ``cv`` is taken as it is.

    Parameters
    ----------
    X : array-like, frame or sparse matrix of shape (n_samples, n_features)
        The inputs.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The targets.
    cv : int, splitter or iterable of (train, test)
        Number of folds, or how to split.
    groups : array-like of shape (n_samples,) or None, default=None
        Rows of one group stay in one fold.
    sample_weight : ndarray of shape (n_samples,) or None, default=None
        A row of weight zero is no row: an integer ``cv`` deals it to no fold.
    classifier : bool, default=False
        Whether to stratify by class.
    random_state : int, RandomState or None, default=None
        Order in which rows are dealt out.

    Returns
    -------
    tuple of (ndarray, ndarray)
        Row numbers (train, test) of every fold.

    Raises
    ------
    InvalidInputError
        If there are fewer distinct rows or groups than folds, or a fold is unusable.
    """
    if not isinstance(cv, (int, np.integer)):
        return make_folds(X, y, cv, groups=groups, classifier=classifier)
    if sample_weight is not None and not sample_weight.all():
        rows = np.flatnonzero(sample_weight)
        groups = None if groups is None else np.asarray(groups)[rows]
        dealt = _dealt(take(X, rows), y[rows], int(cv), groups, classifier, random_state)
        return tuple((rows[train], rows[test]) for train, test in dealt)
    return _dealt(X, y, int(cv), groups, classifier, random_state)


def _dealt(
    X: Any, y: np.ndarray, cv: int, groups: Any, classifier: bool, random_state: Any
) -> tuple[Fold, ...]:
    """Deal out distinct rows, or groups."""
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    if groups is not None:
        merged = _merged(np.asarray(groups), distinct_rows(X))
        _enough(len(np.unique(merged)), cv, "groups")
        kind = StratifiedGroupKFold if classifier else GroupKFold
        splitter = kind(cv, shuffle=True, random_state=seed)
        return make_folds(X, y, splitter, groups=merged, classifier=classifier)
    row = distinct_rows(X)
    _, first = np.unique(row, return_index=True)
    _enough(len(first), cv, "distinct samples")
    # Dealt like cards, class by class in random order: as even as it can be, however rare a class.
    label = np.unique(y[first], return_inverse=True)[1] if classifier else np.zeros(len(first))
    chance = np.random.RandomState(seed).permutation(len(first))
    fold_of_row = np.empty(len(first), dtype=np.intp)
    fold_of_row[np.lexsort((chance, label))] = np.arange(len(first)) % cv
    fold = fold_of_row[row]
    return tuple((np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(cv))


def _enough(found: int, cv: int, what: str) -> None:
    if cv < 2 or found < cv:
        message = (
            f"Expected at least 2 folds and as many {what} as folds (cv={cv}); got "
            f"n_samples={found} {what}. Pass fewer folds or more data."
        )
        raise InvalidInputError(message)


def _merged(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Join groups that share a copy of a row: connected components by union of labels."""
    from scipy.sparse import coo_matrix  # noqa: PLC0415 - only grouped folds need it
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    _, group = np.unique(groups, return_inverse=True)
    n_groups = group.max() + 1
    size = n_groups + rows.max() + 1
    links = coo_matrix((np.ones(len(group)), (group, n_groups + rows)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    return np.asarray(component[group])
