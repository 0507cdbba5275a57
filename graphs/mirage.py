"""Mirage: distil a graph-classification data set into a few frequent sets of trees.

The idea is that of "Mirage: Model-agnostic Graph Distillation for Graph Classification"
(arXiv 2310.09486): to a message-passing network of L layers a graph is the multiset of the trees of
depth L around its nodes; the trees are few and skewed; so sets of trees that many graphs of a class
have in common stand for the class. No network is trained to find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import compress
from typing import Any, Literal, get_args

import numpy as np
from sklearn.base import BaseEstimator

import scikd
from scikd.exceptions import InvalidInputError

from ._budget import Joiner, within_budget
from ._classes import labels_of
from ._limits import NothingFrequentError
from ._pointers import take_runs
from ._supports import Support, min_supports
from .distilled import DistilledGraphs
from .graphset import GraphSet
from .itemsets import Kind
from .kernels.transactions import count_trees
from .mining import ClassTransactions, TreeSets, sets_within
from .preparation import Preparation
from .refinement import ColorRefinement, supports
from .shards import Shard, ShardedGraphs, fingerprint
from .trees import Trees

__all__ = ["Mirage", "parse_bytes"]

LEAST_BYTES_OF_A_SET = 8  # size, root, count and class of 1 byte each, and a weight of 4
UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
UNITS |= {"KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}


class Mirage(BaseEstimator):
    """Distil graphs into weighted sets of frequent trees.

    Parameters
    ----------
    n_hops : int or "auto", default=3
        Depth of the trees: the most layers of a network that is trained on them. ``"auto"`` grows
        until some class has no frequent tree.
    budget : int or str or None, default=None
        Bytes that the result may take (`DistilledGraphs.n_bytes`), such as 20000 or "20kB". The
        sets that are in the largest share of their class are kept. None takes ``min_support``.
    min_support : int, float, sequence or mapping, or None, default=None
        In how many graphs of a class a set is frequent: a number of graphs (int), a share of the
        class (float up to 1), or one of these for each class, in the order of the sorted classes or
        by class. With a budget, the lowest support that is looked at. None takes 0.1 where there is
        no budget, or where ``n_hops="auto"`` has to know.
    itemsets : {"closed", "maximal", "all"}, default="closed"
        Which frequent sets to keep. A set is closed if no larger one is in the same graphs: these
        say as much as all. Maximal ones are in no larger frequent set.
    multiplicity : bool, default=True
        Whether a set says how often a tree is there: at least 1, 2, 4, 8, ... times.
    degrees : bool, default=False
        Whether the number of arcs into a node is part of its label, which makes GCN exact on trees
        that are no deeper than it has layers.
    bins : int, default=8
        Bins for features that are not whole numbers.
    contrast : float or None, default=None
        Drop a set unless it is so many times more frequent in its class than in any other. Not for
        ``mode="lossless"``.
    labels : {"shares", "class"}, default="shares"
        What a set is labelled by. ``"shares"``: probabilities of the classes, in proportion to the
        shares of their graphs that hold the set, so that a set that all classes have says that it
        tells nothing. ``"class"``: the class that it is frequent in, once for each such class.
    mode : {"weighted", "published", "lossless"}, default="weighted"
        ``"published"`` is the algorithm of the paper: all frequent sets, each once and of weight 1,
        without multiplicity or trees of a single node; it ignores ``itemsets``, ``multiplicity``,
        ``labels`` and ``contrast``. ``"lossless"`` keeps every graph as the set of all its trees:
        nothing is lost to a network of up to ``n_hops`` layers, which trains several times faster.
    max_sets : int, default=100000
        More frequent sets than these, of a class, are an error, before memory is full. With a
        budget: more of the largest support.

    Attributes
    ----------
    distilled_ : DistilledGraphs
        The result.
    classes_ : numpy.ndarray of shape (n_classes,)
        Sorted labels.
    min_support_ : numpy.ndarray of shape (n_classes,)
        Number of graphs that the rarest kept set of each class is in.
    coverage_ : numpy.ndarray of shape (n_classes,)
        Share of the graphs of each class that hold a kept set.

    Notes
    -----
    A node whose features are the same for all nodes is labelled by the number of its arcs.

    Examples
    --------
    >>> from scikd.graphs import Mirage
    >>> from torch_geometric.datasets import TUDataset  # doctest: +SKIP
    >>> mirage = Mirage(n_hops=2, budget="20kB").fit(TUDataset("data", "NCI1"))  # doctest: +SKIP
    >>> forests = mirage.distilled_.to_pyg()  # doctest: +SKIP
    """

    distilled_: DistilledGraphs
    classes_: np.ndarray
    min_support_: np.ndarray
    coverage_: np.ndarray

    def __init__(
        self,
        n_hops: int | Literal["auto"] = 3,
        *,
        budget: int | str | None = None,
        min_support: Support | None = None,
        itemsets: Kind = "closed",
        multiplicity: bool = True,
        degrees: bool = False,
        bins: int = 8,
        contrast: float | None = None,
        labels: Literal["shares", "class"] = "shares",
        mode: Literal["weighted", "published", "lossless"] = "weighted",
        max_sets: int = 100_000,
    ) -> None:
        self.n_hops = n_hops
        self.budget = budget
        self.min_support = min_support
        self.itemsets = itemsets
        self.multiplicity = multiplicity
        self.degrees = degrees
        self.bins = bins
        self.contrast = contrast
        self.labels = labels
        self.mode = mode
        self.max_sets = max_sets

    def fit(self, dataset: GraphSet | Iterable[Any], y: Any = None) -> Mirage:
        """Distil graphs.

        Parameters
        ----------
        dataset : GraphSet or torch_geometric data set
            The training graphs, and no others.
        y : array-like of shape (n_graphs,) or None, default=None
            Classes, where they are not those of the data set.

        Returns
        -------
        Mirage
            This object.

        Raises
        ------
        InvalidInputError
            If options, labels or graphs cannot be used, a class has no frequent set, or the budget
            is too small for one set of each class; the message says what would do.
        """
        graphs = dataset if isinstance(dataset, GraphSet) else GraphSet.from_pyg(dataset)
        budget = self._check_options()
        self.classes_, codes = _classes(graphs, y)
        sizes = np.bincount(codes)
        least = min_supports(self.min_support, self.classes_, sizes)
        preparation = Preparation.of(graphs, self.bins)
        refinement = ColorRefinement(self.n_hops, degrees=self.degrees)
        # Trees that are rarer than any set that is wanted need not be told apart.
        prune = self.mode != "lossless" and (self.min_support is not None or budget is None)
        rare = least if prune or self.n_hops == "auto" else None
        colors = refinement.fit(preparation.apply(graphs), codes, rare)[-1]
        trees = refinement.trees_
        if self.mode == "published":
            colors = _without_single_nodes(colors, trees)
        entries = count_trees(colors, graphs.node_ptr, trees.n_trees(trees.n_hops))
        join = Joiner(trees, self.classes_, preparation)
        members = [np.flatnonzero(codes == k) for k in range(len(sizes))]
        if self.mode == "lossless":
            sets = [_whole_graphs(entries, graphs) for graphs in members]
        else:
            multiplicity = self.multiplicity and self.mode == "weighted"
            transactions = [
                ClassTransactions(
                    entries, part, trees.n_trees(trees.n_hops), multiplicity=multiplicity
                )
                for part in members
            ]
            _refuse_rare(self, transactions, least, preparation.apply(graphs), codes)
            join, sets = self._frequent_sets(transactions, least, budget, join)
        origin = {
            "data": graphs.name,
            "graphs": sizes.tolist(),
            "nodes": graphs.n_nodes,
            "arcs": graphs.n_arcs,
            "sha256": fingerprint(graphs, codes),
        }
        return self._finish(join, sets, sizes, origin)

    def fit_shards(
        self,
        shards: Sequence[Shard],
        *,
        n_jobs: int | None = None,
        preparation: Preparation | None = None,
    ) -> Mirage:
        """Distil graphs that do not fit into memory; the result is that of `fit` on all of them.

        Parameters
        ----------
        shards : sequence of callable
            Each returns a `GraphSet` with classes, or a torch_geometric data set, such as
            ``functools.partial(read_graphs, path)``; the same whenever it is called. The order of
            the graphs is that of the shards.
        n_jobs : int or None, default=None
            How many shards to work on at once, as in joblib. Within ``joblib.parallel_config``
            they go where it says, such as to a cluster by Dask.
        preparation : Preparation or None, default=None
            Bins of features that are not whole numbers, learnt on a sample of the graphs
            (`Preparation.of`), as their quantiles would need all graphs at once.

        Returns
        -------
        Mirage
            This object.

        Raises
        ------
        InvalidInputError
            As `fit`; and for ``n_hops="auto"`` and ``mode="lossless"``, which need all graphs, and
            for features that are not whole numbers, without ``preparation``.

        Notes
        -----
        Every shard is read three times: for its classes, for the trees that are frequent in it,
        and to count those of all shards; with a budget and no ``min_support``, twice more each
        time that trees of a quarter of the support are needed to fill it. Time grows as the number
        of nodes and arcs, times the depth, besides that of mining, which `fit` takes too. In
        memory are a shard for each worker, the trees that are frequent in any shard, and 8 bytes
        for each pair of a graph and such a tree in it. In small shards chance makes rare trees
        frequent, so that more have to be counted: take some thousand graphs or more. Nothing is
        written, and no hash stands for a tree: trees are compared in full.
        """
        budget = self._check_options()
        if self.n_hops == "auto" or self.mode == "lossless":
            message = (
                "Expected a number of hops, and a mode other than 'lossless', for shards: these "
                f"need all graphs at once; got n_hops={self.n_hops!r} and mode={self.mode!r}."
            )
            raise InvalidInputError(message)
        data = ShardedGraphs.read(
            shards, self.n_hops, degrees=self.degrees, preparation=preparation, n_jobs=n_jobs
        )
        self.classes_ = data.recipe.classes
        least = min_supports(self.min_support, self.classes_, data.sizes)
        multiplicity = self.multiplicity and self.mode == "weighted"
        if budget is not None and self.min_support is None:
            most = budget // LEAST_BYTES_OF_A_SET + 1
            trees, parts = data.transactions_beyond(most, self.itemsets, multiplicity=multiplicity)
        else:
            trees, parts = data.transactions(
                least, multiplicity=multiplicity, single_nodes=self.mode != "published"
            )
        _refuse_rare(self, parts, least)
        join = Joiner(trees, self.classes_, data.recipe.preparation)
        join, sets = self._frequent_sets(parts, least, budget, join)
        return self._finish(join, sets, data.sizes, data.origin)

    def _check_options(self) -> int | None:
        """Return the budget in bytes, or raise an error if options do not go together."""
        problems = [
            f"{name} {expected}; got {value!r}"
            for name, value, expected in (
                ("mode", self.mode, ("weighted", "published", "lossless")),
                ("itemsets", self.itemsets, get_args(Kind)),
                ("labels", self.labels, ("shares", "class")),
            )
            if value not in expected
        ]
        if self.contrast is not None and not self.contrast > 0:
            problems.append(f"contrast above 0 or None; got {self.contrast!r}")
        if self.mode == "lossless" and (self.budget is not None or self.min_support is not None):
            problems.append("neither budget nor min_support with mode='lossless', which keeps all")
        if self.mode == "published" and self.budget is not None:
            problems.append("min_support and no budget with mode='published', as in the paper")
        if problems:
            raise InvalidInputError(f"Expected {'; '.join(problems)}.")
        return None if self.budget is None else parse_bytes(self.budget)

    def _frequent_sets(
        self,
        transactions: list[ClassTransactions],
        least: np.ndarray,
        budget: int | None,
        join: Joiner,
    ) -> tuple[Joiner, list[TreeSets]]:
        if self.mode == "published":
            mined = [
                part.frequent(int(s), "all", self.max_sets)
                for part, s in zip(transactions, least, strict=True)
            ]
            return join, [part.first(len(part), weighted=False) for part in mined]
        if budget is None:
            mined = [
                part.frequent(int(s), self.itemsets, self.max_sets)
                for part, s in zip(transactions, least, strict=True)
            ]
        else:
            most = budget // LEAST_BYTES_OF_A_SET + 1
            floor = least if self.min_support is not None else np.full(len(least), 2)
            mined = [
                sets_within(part, self.itemsets, most, int(s), self.max_sets)
                for part, s in zip(transactions, floor, strict=True)
            ]
        if self.labels == "shares" or self.contrast is not None:
            mined = [part.compared(transactions) for part in mined]
        if self.contrast is not None:
            mined = [part.contrasted(k, self.contrast) for k, part in enumerate(mined)]
            empty = [
                label
                for label, part in zip(self.classes_.tolist(), mined, strict=True)
                if not len(part)
            ]
            if empty:
                message = (
                    f"Expected sets that are {self.contrast} times more frequent in their class "
                    f"than elsewhere; there are none of {empty}. Lower contrast or min_support."
                )
                raise InvalidInputError(message)
        if self.labels == "class":
            mined = [replace(part, shares=None) for part in mined]
        if budget is None:
            return join, [part.first(len(part)) for part in mined]
        return within_budget(mined, budget, join)

    def _finish(
        self, join: Joiner, sets: list[TreeSets], sizes: np.ndarray, origin: dict[str, Any]
    ) -> Mirage:
        self.min_support_ = np.array([int(part.supports.min()) for part in sets])
        self.coverage_ = np.array([part.covered for part in sets]) / sizes
        provenance = {
            **origin,
            "options": {name: _plain(value) for name, value in self.get_params().items()},
            "min_support": self.min_support_.tolist(),
            "coverage": self.coverage_.tolist(),
            "version": scikd.__version__,
        }
        self.distilled_ = join(sets, provenance)
        return self


def parse_bytes(size: int | str) -> int:
    """Return a number of bytes from a number or from text such as "20kB".

    Parameters
    ----------
    size : int or str
        kB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024; small and large letters are the
        same.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    InvalidInputError
        If it is no size of a byte or more.

    Examples
    --------
    >>> parse_bytes("20kB")
    20000
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", str(size))
    unit = 0 if found is None else UNITS.get(found[2].upper(), 0)
    n_bytes = 0 if found is None else int(Decimal(found[1]) * unit)
    if n_bytes < 1:
        message = (
            "Expected a size such as 20000 or '20kB' (B, kB, MB, GB, KiB, MiB, GiB), of a byte or "
            f"more; got {size!r}."
        )
        raise InvalidInputError(message)
    return n_bytes


def _refuse_rare(
    mirage: Mirage,
    transactions: Sequence[ClassTransactions],
    least: np.ndarray,
    graphs: GraphSet | None = None,
    codes: np.ndarray | None = None,
) -> None:
    """Raise an error if a class has no frequent tree; of graphs, say how frequent trees are."""
    free = mirage.budget is not None and mirage.min_support is None
    needed = np.full_like(least, 2) if free else least
    if all(part.most >= n for part, n in zip(transactions, needed, strict=True)):
        return
    n_hops = 1 if mirage.n_hops == "auto" else mirage.n_hops
    lines = [
        f"{n} of the {len(part)} graphs of class {label!r}"
        for label, part, n in zip(mirage.classes_.tolist(), transactions, needed, strict=True)
    ]
    if graphs is not None and codes is not None:
        whole = ColorRefinement(n_hops, degrees=mirage.degrees)  # nothing is dropped as rare
        colors, n_trees = whole.fit(graphs)[-1], whole.trees_.n_trees(n_hops)
        if mirage.mode == "published":
            colors = _without_single_nodes(colors, whole.trees_)
        most = supports(colors, graphs, codes, n_trees, len(least)).max(axis=1)
        lines = [
            f"{line} (the most frequent is in {best})"
            for line, best in zip(lines, most, strict=True)
        ]
    rare = [part.most < n for part, n in zip(transactions, needed, strict=True)]
    lines = list(compress(lines, rare))
    message = (
        f"Expected a tree of {n_hops} hops in at least {' and in '.join(lines)}. Lower "
        "min_support, or take fewer hops."
    )
    raise NothingFrequentError(message)


def _whole_graphs(
    entries: tuple[np.ndarray, np.ndarray, np.ndarray], graphs: np.ndarray
) -> TreeSets:
    places, ptr = take_runs(entries[0], graphs)
    ones = np.ones(len(graphs))
    return TreeSets(ptr, entries[1][places], entries[2][places], ones, ones, len(graphs))


def _without_single_nodes(colors: np.ndarray, trees: Trees) -> np.ndarray:
    if not trees.levels:
        return colors
    bare = np.append(np.diff(trees.levels[-1].ptr) == 0, False)  # the last for colour -1
    return np.where(bare[colors], np.int32(-1), colors)


def _classes(graphs: GraphSet, y: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = labels_of(graphs, y)
    classes, codes = np.unique(labels, return_inverse=True)
    if not len(labels):
        raise InvalidInputError("Expected at least one graph; got none.")
    if len(classes) < 2:
        message = f"Expected at least two classes; all {len(labels)} are of {classes.tolist()}."
        raise InvalidInputError(message)
    return classes, codes


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
