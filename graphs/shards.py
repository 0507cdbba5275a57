"""Graphs in shards: the trees of data sets that do not fit into memory, exactly.

A tree that is frequent among all graphs is as frequent, by share, in at least one shard. So the
trees that are frequent in some shard are all that can be frequent; they are compared in full and
numbered once, and counted in all shards. In memory are one shard for each worker, these trees, and
which graphs hold them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.parallel import fan_out

from ._classes import labels_of
from ._limits import TooManySetsError
from ._pointers import pointers
from ._union import merge, reorder
from .graphset import GraphSet
from .itemsets import Kind
from .kernels.transactions import count_trees
from .mining import ClassTransactions
from .preparation import Preparation
from .refinement import ColorRefinement, find_labels, supports
from .trees import Trees

__all__ = ["Shard", "ShardedGraphs", "fingerprint"]

Shard = Callable[[], GraphSet | Iterable[Any]]

_NEVER = np.iinfo(np.int64).max


class _Look(NamedTuple):
    """What has to be known of a shard before its trees are looked for."""

    name: str
    classes: np.ndarray
    sizes: np.ndarray
    n_nodes: int
    n_arcs: int
    widths: tuple[int, int]
    measured: tuple[str, ...]
    """Features that are not whole numbers."""
    constant: tuple[float, ...] | None
    """The features of the nodes, where all have the same."""
    self_loops: bool
    sha256: str


class _Recipe(NamedTuple):
    """What is done to each shard."""

    preparation: Preparation
    classes: np.ndarray
    n_hops: int
    degrees: bool


class _Counts(NamedTuple):
    """The known trees in the graphs of a shard."""

    sizes: np.ndarray
    trees: np.ndarray
    counts: np.ndarray
    codes: np.ndarray
    first: list[np.ndarray]
    """Of the trees of each depth, and of the labels of arcs: where they are seen first."""


@dataclass(frozen=True, eq=False)
class ShardedGraphs:
    """Graphs that are read shard by shard, each as often as needed.

    Attributes
    ----------
    shards : sequence of callable
        Each returns a `GraphSet` with classes, or a torch_geometric data set; the same whenever it
        is called.
    looks : list
        What was found in them.
    recipe : tuple
        What is done to them.
    sizes : numpy.ndarray of shape (n_classes,)
        How many graphs of each class there are.
    n_jobs : int or None
        As in joblib.
    """

    shards: Sequence[Shard]
    looks: list[_Look]
    recipe: _Recipe
    sizes: np.ndarray
    n_jobs: int | None = None

    @classmethod
    def read(
        cls,
        shards: Sequence[Shard],
        n_hops: int,
        *,
        degrees: bool = False,
        preparation: Preparation | None = None,
        n_jobs: int | None = None,
    ) -> ShardedGraphs:
        """Look through all shards once.

        Parameters
        ----------
        shards : sequence of callable
            See above.
        n_hops : int
            Depth of the trees.
        degrees : bool, default=False
            Whether the number of arcs into a node is part of its label.
        preparation : Preparation or None, default=None
            What to do to features that are not whole numbers.
        n_jobs : int or None, default=None
            As in joblib.

        Raises
        ------
        InvalidInputError
            If graphs of a shard cannot be used, or shards do not go together.
        """
        ColorRefinement(n_hops, degrees=degrees)  # refuses what is no depth
        if not shards or not all(map(callable, shards)):
            message = (
                "Expected shards as functions that each return a GraphSet, such as "
                f"functools.partial(read_graphs, path); got {shards!r}."
            )
            raise InvalidInputError(message)
        looks = list(
            fan_out(_look, list(enumerate(shards)), n_jobs=n_jobs, description="Reading shards")
        )
        _check_together(looks)
        classes = np.unique(np.concatenate([look.classes for look in looks]))
        sizes = np.zeros(len(classes), dtype=np.int64)
        for look in looks:
            sizes[np.searchsorted(classes, look.classes)] += look.sizes
        if len(classes) < 2:
            message = f"Expected two classes; all {sizes.sum()} graphs are of {classes.tolist()}."
            raise InvalidInputError(message)
        done = _preparation(looks) if preparation is None else preparation
        return cls(shards, looks, _Recipe(done, classes, n_hops, degrees), sizes, n_jobs)

    @property
    def origin(self) -> dict[str, Any]:
        """Where the graphs come from: JSON values."""
        digest = hashlib.sha256("".join(look.sha256 for look in self.looks).encode())
        return {
            "data": self.looks[0].name,
            "shards": len(self.shards),
            "graphs": self.sizes.tolist(),
            "nodes": sum(look.n_nodes for look in self.looks),
            "arcs": sum(look.n_arcs for look in self.looks),
            "sha256": digest.hexdigest(),
        }

    def transactions(
        self, min_support: np.ndarray, *, multiplicity: bool, single_nodes: bool = True
    ) -> tuple[Trees, list[ClassTransactions]]:
        """Find all trees that are frequent, and which graphs hold them.

        Parameters
        ----------
        min_support : numpy.ndarray of shape (n_classes,)
            Number of graphs of a class that must hold a tree.
        multiplicity : bool
            Whether "at least 2, 4, 8, ... times" are items too.
        single_nodes : bool, default=True
            Whether a node without arcs is a tree.

        Returns
        -------
        trees : Trees
            All trees that are frequent in a class, numbered in the order of first sight, and some
            others.
        transactions : list of ClassTransactions
            Of each class.
        """
        found = self._run(_candidates, "Finding trees", min_support, self.sizes)
        trees = merge(list(found))
        if not single_nodes and trees.levels:
            trees, _ = trees.restrict(np.flatnonzero(np.diff(trees.levels[-1].ptr)))
        numbers = [trees.n_trees(depth) for depth in range(trees.n_hops + 1)]
        first = [np.full(n, _NEVER) for n in (*numbers, len(trees.edge_labels))]
        parts, nodes, arcs = [], 0, 0
        counted = self._run(_count, "Counting trees", trees)
        for look, part in zip(self.looks, counted, strict=True):
            starts = [*[nodes] * len(numbers), arcs]
            for known, seen, start in zip(first, part.first, starts, strict=True):
                np.minimum(known, seen + start, out=known, where=seen != _NEVER)
            parts.append(part._replace(first=[]))
            nodes, arcs = nodes + look.n_nodes, arcs + look.n_arcs
        if any((seen == _NEVER).any() for seen in first):
            raise InvalidInputError("Expected shards to give the same graphs whenever called.")
        *orders, edge_order = map(np.argsort, first)
        trees, rank = reorder(trees, orders, edge_order)
        entries = (
            pointers(np.concatenate([part.sizes for part in parts])),
            rank[np.concatenate([part.trees for part in parts])],
            np.concatenate([part.counts for part in parts]),
        )
        codes = np.concatenate([part.codes for part in parts])
        return replace(trees, self_loops=any(look.self_loops for look in self.looks)), [
            ClassTransactions(
                entries, np.flatnonzero(codes == k), numbers[-1], multiplicity=multiplicity
            )
            for k in range(len(self.sizes))
        ]

    def transactions_beyond(
        self, max_sets: int, kind: Kind, *, multiplicity: bool
    ) -> tuple[Trees, list[ClassTransactions]]:
        """Find trees down to supports at which there are more sets than so many.

        Parameters
        ----------
        max_sets : int
            How many sets of each class to go beyond; or down to a support of 2 graphs.
        kind : {"closed", "maximal", "all"}
            Which sets.
        multiplicity : bool
            As in `transactions`.

        Returns
        -------
        tuple
            As `transactions`.
        """
        # Each round reads all shards twice, so they are few; a support far below what is needed
        # would have trees without end.
        support = np.maximum(self.sizes // 8, 2)
        while True:
            trees, transactions = self.transactions(support, multiplicity=multiplicity)
            more = [
                least > 2 and _has_at_most(max_sets, part, kind, int(least))
                for part, least in zip(transactions, support, strict=True)
            ]
            if not any(more):
                return trees, transactions
            support = np.where(more, np.maximum(support // 4, 2), support)

    def _run(self, function: Callable[..., Any], description: str, *rest: Any) -> Iterator[Any]:
        tasks = [
            (number, shard, look, self.recipe, *rest)
            for number, (shard, look) in enumerate(zip(self.shards, self.looks, strict=True))
        ]
        return fan_out(function, tasks, n_jobs=self.n_jobs, description=description)


def fingerprint(graphs: GraphSet, codes: np.ndarray) -> str:
    """Return the SHA-256 of graphs and their classes."""
    digest = hashlib.sha256()
    for values in (graphs.node_ptr, graphs.sources, graphs.targets, codes):
        digest.update(np.ascontiguousarray(values).tobytes())
    for values in (graphs.node_features, graphs.edge_features):
        digest.update(values.astype("<f8").tobytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------- what workers do


def _load(number: int, shard: Shard) -> tuple[GraphSet, np.ndarray]:
    """Return the graphs of a shard and their labels."""
    try:
        loaded = shard()
        graphs = loaded if isinstance(loaded, GraphSet) else GraphSet.from_pyg(loaded)
        labels = labels_of(graphs)
    except InvalidInputError as error:
        message = f"Shard {number}, counted from 0: {error}"
        raise InvalidInputError(message) from error
    if not len(graphs):
        raise InvalidInputError(f"Expected graphs in shard {number}, counted from 0; got none.")
    return graphs, labels


def _look(number: int, shard: Shard) -> _Look:
    graphs, labels = _load(number, shard)
    classes, codes = np.unique(labels, return_inverse=True)
    features = graphs.node_features
    measured = tuple(
        f"{what} {column}"
        for what, values in (("node feature", features), ("edge feature", graphs.edge_features))
        for column in range(values.shape[1])
        if (values[:, column] != np.round(values[:, column])).any()
    )
    same = bool((features == features[:1]).all())
    return _Look(
        name=graphs.name,
        classes=classes,
        sizes=np.bincount(codes, minlength=len(classes)),
        n_nodes=graphs.n_nodes,
        n_arcs=graphs.n_arcs,
        widths=(features.shape[1], graphs.edge_features.shape[1]),
        measured=measured,
        constant=tuple(features[0].tolist()) if same else None,
        self_loops=bool((graphs.sources == graphs.targets).any()),
        sha256=fingerprint(graphs, codes),
    )


def _prepared(
    number: int, shard: Shard, look: _Look, recipe: _Recipe
) -> tuple[GraphSet, np.ndarray]:
    """Return the graphs of a shard with discrete features, and the numbers of their classes."""
    graphs, labels = _load(number, shard)
    classes, sizes = np.unique(labels, return_counts=True)
    before = (look.n_nodes, look.n_arcs, dict(zip(look.classes, look.sizes, strict=True)))
    now = (graphs.n_nodes, graphs.n_arcs, dict(zip(classes, sizes, strict=True)))
    if before != now:
        message = (
            f"Expected shard {number} to give the same graphs whenever it is called; it had "
            f"{before[0]} nodes and {before[1]} arcs before, and now has {now[0]} and {now[1]}, or "
            "other classes."
        )
        raise InvalidInputError(message)
    return recipe.preparation.apply(graphs), np.searchsorted(recipe.classes, labels)


def _candidates(
    number: int,
    shard: Shard,
    look: _Look,
    recipe: _Recipe,
    min_support: np.ndarray,
    sizes: np.ndarray,
) -> Trees:
    """Return the trees that are as frequent in a shard as they must be in all, by share."""
    graphs, codes = _prepared(number, shard, look, recipe)
    here = np.bincount(codes, minlength=len(sizes))
    least = np.maximum(-(-min_support * here // sizes), 1)
    refinement = ColorRefinement(recipe.n_hops, degrees=recipe.degrees)
    colors = refinement.fit(graphs, codes, least)[-1]
    trees = refinement.trees_
    counts = supports(colors, graphs, codes, trees.n_trees(recipe.n_hops), len(sizes))
    return trees.restrict(np.flatnonzero((counts >= least[:, None]).any(axis=0)))[0]


def _count(number: int, shard: Shard, look: _Look, recipe: _Recipe, trees: Trees) -> _Counts:
    """Count known trees in the graphs of a shard."""
    graphs, codes = _prepared(number, shard, look, recipe)
    refinement = ColorRefinement(recipe.n_hops, degrees=recipe.degrees)
    refinement.trees_ = trees
    colors = refinement.transform(graphs)
    edges = find_labels(graphs.edge_features, trees.edge_labels)
    first = [_first(seen, trees.n_trees(depth)) for depth, seen in enumerate(colors)]
    ptr, held, counts = count_trees(colors[-1], graphs.node_ptr, trees.n_trees(recipe.n_hops))
    return _Counts(
        sizes=np.diff(ptr),
        trees=held,
        counts=counts,
        codes=codes.astype(np.int32),
        first=[*first, _first(edges, len(trees.edge_labels))],
    )


def _first(numbers: np.ndarray, n_known: int) -> np.ndarray:
    """Say where each number stands first; -1 is none."""
    first = np.full(n_known, _NEVER)
    places = np.flatnonzero(numbers >= 0)
    np.minimum.at(first, numbers[places], places)
    return first


# ------------------------------------------------------------------------------------ checks


def _check_together(looks: list[_Look]) -> None:
    """Raise an error if shards have other features or labels than the first."""
    for number, look in enumerate(looks):
        if look.widths != looks[0].widths:
            message = (
                f"Expected {looks[0].widths} features of nodes and arcs, as in the first shard; "
                f"shard {number}, counted from 0, has {look.widths}."
            )
            raise InvalidInputError(message)
        if _kind(look.classes) != _kind(looks[0].classes):
            message = (
                f"Expected classes of type {looks[0].classes.dtype}, as in the first shard; shard "
                f"{number}, counted from 0, has {look.classes.dtype}."
            )
            raise InvalidInputError(message)


def _kind(labels: np.ndarray) -> str:
    return "number" if labels.dtype.kind in "biuf" else labels.dtype.kind


def _preparation(looks: list[_Look]) -> Preparation:
    """Return what has to be done where all features are whole numbers."""
    measured = sorted({name for look in looks for name in look.measured})
    if measured:
        message = (
            f"Expected whole numbers, whose trees can be counted shard by shard; {measured} are "
            "none. Learn their bins on graphs that fit into memory, and pass them: "
            "preparation=Preparation.of(sample)."
        )
        raise InvalidInputError(message)
    constants = {look.constant for look in looks}
    n_node_features, n_edge_features = looks[0].widths
    return Preparation(
        (None,) * n_node_features,
        (None,) * n_edge_features,
        degree_label=len(constants) == 1
        and None not in constants
        and any(look.n_arcs for look in looks),
    )


def _has_at_most(n_sets: int, part: ClassTransactions, kind: Kind, min_support: int) -> bool:
    try:
        part.frequent(min_support, kind, n_sets)
    except TooManySetsError:
        return False
    return True
