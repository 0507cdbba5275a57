"""Distinct trees as tensors: one directed acyclic graph in place of all graphs.

A network of L layers computes the state of a node from its tree of depth L, so equal trees need
one computation. Layer l has a row for each distinct tree of depth l. Its inputs are the trees of
depth l - 1: the tree itself cut by one level (`MergedLevel.own`), and its subtrees, each with the
label of its arc and the number of times that it is there. At the end each graph adds up its trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from scikd.exceptions import InvalidInputError

from ._pointers import chosen
from .graphset import GraphSet
from .kernels import dag as kernels
from .refinement import ColorRefinement
from .sparse import SparseMatrix
from .trees import Trees

__all__ = ["MergedGraphs", "MergedLevel"]


@dataclass(frozen=True, eq=False)
class MergedLevel:
    """One layer: trees of one depth on top of those that are one level less deep.

    What an arc brings depends on its label and the subtree alone, so it is computed once for each
    distinct pair of them.

    Attributes
    ----------
    own : SparseMatrix of shape (n_trees, n_below)
        Each tree without its deepest nodes.
    pairs : SparseMatrix of shape (n_trees, n_pairs)
        How often each pair of subtree and label hangs on the root.
    subtree : SparseMatrix of shape (n_pairs, n_below)
        The subtree of each pair.
    label : SparseMatrix of shape (n_pairs, n_edge_labels)
        The arc's label of each pair; rows of `MergedGraphs.edge_features`.
    degrees_below : torch.Tensor of shape (n_below,), int64, or None
        Arcs into the root of each tree one level less deep; None where it is not known.
    self_loops : bool
        Whether a graph that the trees came from has arcs from a node to itself.
    """

    own: SparseMatrix
    pairs: SparseMatrix
    subtree: SparseMatrix
    label: SparseMatrix
    degrees_below: Tensor | None = None
    self_loops: bool = False

    @property
    def degrees(self) -> Tensor:
        """Arcs into the root of each tree, shape (n_trees,), int64."""
        return self.pairs.sums

    @cached_property
    def subtrees(self) -> SparseMatrix:
        """How often each subtree hangs on the root, whatever the label; (n_trees, n_below)."""
        return self._of_pairs(self.subtree)

    @cached_property
    def labels(self) -> SparseMatrix:
        """How many arcs into the root have each label; (n_trees, n_edge_labels)."""
        return self._of_pairs(self.label)

    def _of_pairs(self, part: SparseMatrix) -> SparseMatrix:
        columns = part.columns[self.pairs.columns]
        return SparseMatrix(columns, part.n_columns, self.pairs.ptr, self.pairs.counts)

    def to(self, device: torch.device | str) -> MergedLevel:
        """Return the level on a device."""
        return replace(
            self,
            own=self.own.to(device),
            pairs=self.pairs.to(device),
            subtree=self.subtree.to(device),
            label=self.label.to(device),
            degrees_below=None if self.degrees_below is None else self.degrees_below.to(device),
        )


@dataclass(frozen=True, eq=False)
class MergedGraphs:
    """Graphs, or sets of trees, in which every distinct tree is there once.

    Make them by `of` or `from_trees`.

    Attributes
    ----------
    node_features : torch.Tensor of shape (n_labels, n_node_features)
        Of the trees of depth 0; int64 or float64.
    edge_features : torch.Tensor of shape (n_edge_labels, n_edge_features)
        Of each distinct label of arcs; int64 or float64.
    levels : tuple of MergedLevel
        Of the trees of depth 1, 2, ...
    readout : SparseMatrix of shape (n_graphs, n_trees)
        How often each graph, or set, holds each of the deepest trees.
    y : torch.Tensor of shape (n_graphs,), int64, or None
        Class of each graph, from 0.
    weights : torch.Tensor of shape (n_graphs,)
        What each graph counts in a loss.
    degrees : torch.Tensor of shape (n_labels,), int64, or None
        Arcs into a node, where they are part of the label.
    classes : numpy.ndarray of shape (n_classes,) or None
        What the classes in ``y`` are called.
    self_loops : bool
        Whether a graph that the trees came from has arcs from a node to itself.
    """

    node_features: Tensor
    edge_features: Tensor
    levels: tuple[MergedLevel, ...]
    readout: SparseMatrix
    y: Tensor | None
    weights: Tensor
    degrees: Tensor | None = None
    classes: np.ndarray | None = None
    self_loops: bool = False

    @classmethod
    def of(
        cls,
        graphs: GraphSet,
        n_hops: int,
        *,
        degrees: bool = False,
        classes: np.ndarray | None = None,
    ) -> MergedGraphs:
        """Merge graphs, without loss for networks of up to ``n_hops`` layers.

        Parameters
        ----------
        graphs : GraphSet
            The graphs.
        n_hops : int
            Depth of the trees.
        degrees : bool, default=False
            Whether the number of arcs into a node is part of its label, for GCN.
        classes : array-like of shape (n_classes,) or None, default=None
            The labels that stand for class 0, 1, ...; by default those that are there, sorted.

        Raises
        ------
        InvalidInputError
            If a graph has no label while others do, or one that is not among ``classes``.
        """
        refinement = ColorRefinement(n_hops, degrees=degrees)
        roots = refinement.fit(graphs)[-1]
        n_trees = refinement.trees_.n_trees(n_hops)
        found, counts = np.unique(graphs.graph_of_node * n_trees + roots, return_counts=True)
        owners, trees = np.divmod(found, n_trees)
        y = None
        if graphs.y is not None:
            classes, y = _codes(graphs.y, classes)
        ptr = np.searchsorted(owners, np.arange(len(graphs) + 1))
        return cls.from_trees(refinement.trees_, ptr, trees, counts, y, classes=classes)

    @classmethod
    def from_trees(
        cls,
        trees: Trees,
        set_ptr: np.ndarray,
        roots: np.ndarray,
        counts: np.ndarray,
        y: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        *,
        classes: np.ndarray | None = None,
    ) -> MergedGraphs:
        """Take distinct trees, and sets of them.

        Parameters
        ----------
        trees : Trees
            The trees.
        set_ptr : numpy.ndarray of shape (n_sets + 1,)
            The trees of set s are those from ``set_ptr[s]`` to ``set_ptr[s + 1]``.
        roots : numpy.ndarray of shape (n_entries,)
            Numbers of trees of depth ``trees.n_hops``.
        counts : numpy.ndarray of shape (n_entries,)
            How often each is there.
        y : numpy.ndarray of shape (n_sets,) or None, default=None
            Class of each set, from 0.
        weights : numpy.ndarray of shape (n_sets,) or None, default=None
            What each set counts in a loss; 1 by default.
        classes : array-like of shape (n_classes,) or None, default=None
            What the classes are called.

        Raises
        ------
        InvalidInputError
            If lengths do not fit, or there is no tree of a number.
        """
        _check_sets(trees, set_ptr, roots, counts, y, weights)
        n_sets = len(set_ptr) - 1
        scale = np.ones(n_sets) if weights is None else np.asarray(weights)
        return cls(
            node_features=torch.tensor(trees.labels),
            edge_features=torch.tensor(trees.edge_labels),
            levels=_levels(trees),
            readout=SparseMatrix(
                _whole(roots), trees.n_trees(trees.n_hops), _whole(set_ptr), _whole(counts)
            ),
            y=None if y is None else _whole(y),
            weights=torch.tensor(scale, dtype=torch.get_default_dtype()),
            degrees=None if trees.degrees is None else _whole(trees.degrees),
            classes=None if classes is None else np.asarray(classes),
            self_loops=trees.self_loops,
        )

    def __len__(self) -> int:
        return self.readout.n_rows

    @property
    def n_hops(self) -> int:
        """Depth of the deepest trees: the most layers of a network that are exact."""
        return len(self.levels)

    @property
    def n_nodes(self) -> int:
        """Number of distinct trees of all depths."""
        return len(self.node_features) + sum(level.own.n_rows for level in self.levels)

    @property
    def n_arcs(self) -> int:
        """Number of distinct children of all trees."""
        return sum(len(level.pairs.columns) for level in self.levels)

    @cached_property
    def occurrences(self) -> tuple[Tensor, ...]:
        """How many nodes of the graphs have each tree of depth 0, 1, ...; each (n_trees,), float64.

        Of sets of trees: how many roots. A tree that is there only as a subtree has none.
        """
        once = torch.ones(len(self), dtype=torch.float64, device=self.readout.columns.device)
        found = [self.readout.transposed @ once]
        for level in reversed(self.levels):
            found.append(level.own.transposed @ found[-1])
        return tuple(reversed(found))

    def batch(self, rows: Sequence[int] | np.ndarray | Tensor) -> MergedGraphs:
        """Return some of the graphs, and only the trees that they are made of.

        Parameters
        ----------
        rows : sequence of int of shape (n,), or of bool of shape (n_graphs,)
            Numbers of graphs, in the order wanted; or True for each that is. The time it takes is
            in proportion to the size of what is returned.

        Raises
        ------
        InvalidInputError
            If there is no graph of a number, or the graphs are not in the CPU's memory.
        """
        self._check_here()
        numbers = chosen(rows, len(self), "graphs")
        taken = torch.from_numpy(numbers)
        return replace(
            _reached(self, _rows(self.readout, numbers)),
            y=None if self.y is None else self.y[taken],
            weights=self.weights[taken],
        )

    def truncate(self, n_hops: int) -> MergedGraphs:
        """Cut all trees to a smaller depth: that of a network with fewer layers.

        Parameters
        ----------
        n_hops : int
            The new depth.

        Raises
        ------
        InvalidInputError
            If the trees are less deep, or the graphs are not in the CPU's memory.
        """
        if not 0 <= n_hops <= self.n_hops:
            message = (
                f"Expected n_hops from 0 to {self.n_hops}, the depth that is there; got {n_hops}."
            )
            raise InvalidInputError(message)
        if n_hops == self.n_hops:
            return self
        self._check_here()
        columns, width = self.readout.columns, self.readout.n_columns
        for level in reversed(self.levels[n_hops:]):
            columns, width = level.own.columns[columns], level.own.n_columns
        keys, places = torch.unique(self.readout.rows * width + columns, return_inverse=True)
        counts = keys.new_zeros(len(keys)).index_add_(0, places, _counts(self.readout))
        rows = torch.div(keys, width, rounding_mode="floor")
        ptr = torch.searchsorted(rows, torch.arange(len(self) + 1, device=rows.device))
        readout = SparseMatrix(keys % width, width, ptr, counts)
        return _reached(replace(self, levels=self.levels[:n_hops]), readout)

    def with_degrees(self) -> MergedGraphs:
        """Make the number of arcs into a node part of its label, at the cost of one hop.

        A tree of depth 1 shows how many arcs end at its root, so it takes the place of the label.

        Raises
        ------
        InvalidInputError
            If the trees have no depth.
        """
        if self.degrees is not None:
            return self
        if not self.levels:
            message = "Expected trees of depth 1 or more, which show degrees; these have depth 0."
            raise InvalidInputError(message)
        first = self.levels[0]
        features = self.node_features[first.own.columns]
        return replace(self, node_features=features, degrees=first.degrees, levels=self.levels[1:])

    def to(self, device: torch.device | str) -> MergedGraphs:
        """Return the graphs on a device."""
        return replace(
            self,
            node_features=self.node_features.to(device),
            edge_features=self.edge_features.to(device),
            levels=tuple(level.to(device) for level in self.levels),
            readout=self.readout.to(device),
            y=None if self.y is None else self.y.to(device),
            weights=self.weights.to(device),
            degrees=None if self.degrees is None else self.degrees.to(device),
        )

    def _check_here(self) -> None:
        device = self.readout.columns.device
        if device.type != "cpu":
            message = (
                f"Expected graphs in the CPU's memory; got them on {device}. Take batches, or cut "
                "trees, before moving them."
            )
            raise InvalidInputError(message)


def _reached(graphs: MergedGraphs, readout: SparseMatrix) -> MergedGraphs:
    """Return what a readout needs of the trees, numbered anew."""
    (columns,), kept = _renumbered(readout.columns, n_old=readout.n_columns)
    cut = replace(readout, columns=columns, n_columns=len(kept))
    levels = []
    for level in reversed(graphs.levels):
        smaller, kept = _taken(level, kept)
        levels.append(smaller)
    return replace(
        graphs,
        node_features=graphs.node_features[kept],
        levels=tuple(reversed(levels)),
        readout=cut,
        degrees=None if graphs.degrees is None else graphs.degrees[kept],
    )


def _taken(level: MergedLevel, trees: Tensor) -> tuple[MergedLevel, Tensor]:
    """Return some trees of a level, and the numbers of those below that they are made of."""
    pairs = _rows(level.pairs, trees.numpy())
    (columns,), kept_pairs = _renumbered(pairs.columns, n_old=pairs.n_columns)
    (own, subtree), kept = _renumbered(
        level.own.columns[trees], level.subtree.columns[kept_pairs], n_old=level.own.n_columns
    )
    smaller = MergedLevel(
        own=SparseMatrix(own, len(kept)),
        pairs=replace(pairs, columns=columns, n_columns=len(kept_pairs)),
        subtree=SparseMatrix(subtree, len(kept)),
        label=SparseMatrix(level.label.columns[kept_pairs], level.label.n_columns),
        degrees_below=None if level.degrees_below is None else level.degrees_below[kept],
        self_loops=level.self_loops,
    )
    return smaller, kept


def _rows(matrix: SparseMatrix, rows: np.ndarray) -> SparseMatrix:
    """Return some rows of a matrix; one that is not a plain selection."""
    ptr, entries = (
        torch.from_numpy(array)
        for array in kernels.take_rows(cast("Tensor", matrix.ptr).numpy(), rows)
    )
    counts = None if matrix.counts is None else matrix.counts[entries]
    return SparseMatrix(matrix.columns[entries], matrix.n_columns, ptr, counts)


def _renumbered(*values: Tensor, n_old: int) -> tuple[list[Tensor], Tensor]:
    """Return values in new numbers, and the old number of each new one."""
    # Fresh pages of zeros cost nothing until they are touched.
    numbers = np.zeros(n_old, dtype=np.int32)
    kept = np.empty(min(n_old, sum(len(part) for part in values)), dtype=np.int64)
    n_kept, found = 0, []
    for part in values:
        new, n_kept = kernels.renumber(part.numpy(), numbers, kept, n_kept)
        found.append(torch.from_numpy(new))
    return found, torch.from_numpy(kept[:n_kept])


def _counts(matrix: SparseMatrix) -> Tensor:
    return torch.ones_like(matrix.columns) if matrix.counts is None else matrix.counts


def _whole(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def _levels(trees: Trees) -> tuple[MergedLevel, ...]:
    levels = []
    degrees = None if trees.degrees is None else _whole(trees.degrees)
    for depth, level in enumerate(trees.levels, 1):
        n_below, n_labels = trees.n_trees(depth - 1), len(trees.edge_labels)
        keys, pair = np.unique(
            level.edge.astype(np.int64) * n_below + level.child, return_inverse=True
        )
        made = MergedLevel(
            own=SparseMatrix(_whole(level.own), n_below),
            pairs=SparseMatrix(_whole(pair), len(keys), _whole(level.ptr), _whole(level.count)),
            subtree=SparseMatrix(_whole(keys % n_below), n_below),
            label=SparseMatrix(_whole(keys // n_below), n_labels),
            degrees_below=degrees,
            self_loops=trees.self_loops,
        )
        levels.append(made)
        degrees = made.degrees
    return tuple(levels)


def _codes(y: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, and the number of each label among them."""
    if y.dtype.kind == "f" and np.isnan(y).any():
        message = (
            f"Expected a label of each graph; {int(np.isnan(y).sum())} of {len(y)} have none. "
            "Select the others, or leave out y."
        )
        raise InvalidInputError(message)
    if classes is None:
        return np.unique(y, return_inverse=True)
    classes = np.asarray(classes)
    same = y[:, None] == classes
    unknown = np.unique(y[~same.any(axis=1)])
    if len(unknown):
        message = f"Expected labels among {classes.tolist()}; got {unknown.tolist()} too."
        raise InvalidInputError(message)
    return classes, same.argmax(axis=1)


def _check_sets(
    trees: Trees,
    set_ptr: np.ndarray,
    roots: np.ndarray,
    counts: np.ndarray,
    y: np.ndarray | None,
    weights: np.ndarray | None,
) -> None:
    n_sets, n_trees = len(set_ptr) - 1, trees.n_trees(trees.n_hops)
    problems = [
        f"{name} of length {len(values)} instead of {n_sets}"
        for name, values in (("y", y), ("weights", weights))
        if values is not None and len(values) != n_sets
    ]
    if len(counts) != len(roots):
        problems.append(f"counts of length {len(counts)} instead of {len(roots)}, as roots")
    if set_ptr[0] != 0 or set_ptr[-1] != len(roots):
        problems.append(f"set_ptr from {set_ptr[0]} to {set_ptr[-1]} instead of 0 to {len(roots)}")
    if len(roots) and not 0 <= np.min(roots) <= np.max(roots) < n_trees:
        problems.append(f"roots {np.min(roots)} to {np.max(roots)} of {n_trees} trees")
    if problems:
        message = f"Expected sets of the trees that are given; got {', '.join(problems)}."
        raise InvalidInputError(message)
