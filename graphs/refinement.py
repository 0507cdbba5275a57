"""Colour refinement: which nodes have equal trees around them.

By the Weisfeiler-Leman rule a colour of depth t + 1 stands for a colour of depth t and the multiset
of what its arcs bring: pairs of arc label and colour of depth t. Two nodes have the same colour of
depth L exactly if their trees of depth L are the same, so no tree is ever written out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from scikd.exceptions import InvalidInputError

from .graphset import GraphSet
from .kernels import refinement as kernels
from .kernels.dag import sort_by_column
from .trees import TreeLevel, Trees

__all__ = ["ColorRefinement", "find_labels", "number_labels", "supports"]

MOST_HOPS = 64  # "auto" stops here at the latest


class ColorRefinement:
    """Number the distinct trees around the nodes of graphs.

    Parameters
    ----------
    n_hops : int or "auto", default=3
        Depth of the trees. ``"auto"`` needs ``min_support``, and goes on until some class has no
        frequent tree, or a further level tells no more nodes apart.
    degrees : bool, default=False
        Whether the number of arcs into a node is part of its label. Then a graph convolution with
        symmetric normalisation (GCN) is exact on the trees.

    Attributes
    ----------
    trees_ : Trees
        The distinct trees of the graphs that were fitted, numbered in the order of first sight.

    Notes
    -----
    The trees are those that message passing sees: the way back to the parent is part of them; an
    arc from a node to itself makes the node its own child once; parallel arcs count as often as
    they are there; a node without arcs is a tree of one node.
    """

    trees_: Trees

    def __init__(self, n_hops: int | Literal["auto"] = 3, *, degrees: bool = False) -> None:
        whole = isinstance(n_hops, int) and not isinstance(n_hops, bool)
        if n_hops != "auto" and not (whole and n_hops >= 0):
            message = f"Expected n_hops to be an integer of at least 0, or 'auto'; got {n_hops!r}."
            raise InvalidInputError(message)
        self.n_hops = n_hops
        self.degrees = degrees

    def fit(
        self,
        graphs: GraphSet,
        classes: np.ndarray | None = None,
        min_support: np.ndarray | None = None,
    ) -> np.ndarray:
        """Find the distinct trees of graphs, and number them.

        Parameters
        ----------
        graphs : GraphSet
            The graphs.
        classes : numpy.ndarray of shape (n_graphs,) or None, default=None
            Class of each graph, from 0; needed with ``min_support``.
        min_support : numpy.ndarray of shape (n_classes,) or None, default=None
            Number of graphs of a class that must hold a tree. A tree that is rarer in every class
            gets no number, nor does what is built on it: a tree cannot be frequent when one that
            it is made of is not. One that is frequent in some class is numbered wherever it is.

        Returns
        -------
        numpy.ndarray of shape (n_hops + 1, n_nodes), int32
            Number of the tree of each depth around each node; -1 where it was dropped.
        """
        if self.n_hops == "auto" and min_support is None:
            message = "n_hops='auto' stops where no tree is frequent, and so needs min_support."
            raise InvalidInputError(message)
        degrees = graphs.degrees if self.degrees else None
        labels, first = number_labels(graphs.node_features, degrees)
        edges, first_edge = number_labels(graphs.edge_features)
        arcs = _arcs(graphs, edges)
        colors: list[np.ndarray] = [labels]
        levels: list[TreeLevel] = []
        n_colors = len(first)
        for _ in range(MOST_HOPS if self.n_hops == "auto" else self.n_hops):
            start = colors[-1]
            if min_support is not None:
                frequent = _frequent(start, n_colors, graphs, classes, min_support)
                start = np.where(np.logical_or.reduce(frequent)[start], start, np.int32(-1))
                if self.n_hops == "auto" and not frequent.any(axis=1).all():
                    if levels:  # a class has nothing frequent of the deepest level
                        del colors[-1], levels[-1]
                    break
            found, level = kernels.distinct_trees(start, start, *arcs)
            stable = np.array_equal(found < 0, colors[-1] < 0) and len(level.own) == n_colors
            if self.n_hops == "auto" and levels and stable:
                break
            n_colors = len(level.own)
            colors.append(found)
            levels.append(TreeLevel(*level))
        self.trees_ = Trees(
            labels=graphs.node_features[first],
            edge_labels=graphs.edge_features[first_edge],
            levels=tuple(levels),
            degrees=None if degrees is None else degrees[first],
            self_loops=bool((graphs.sources == graphs.targets).any()),
        )
        return np.stack(colors)

    def transform(self, graphs: GraphSet) -> np.ndarray:
        """Find the trees of further graphs among the known ones.

        Parameters
        ----------
        graphs : GraphSet
            Graphs with as many features of nodes and arcs as the fitted ones.

        Returns
        -------
        numpy.ndarray of shape (n_hops + 1, n_nodes), int32
            Number of the tree of each depth around each node; -1 if it is not known.

        Raises
        ------
        InvalidInputError
            If the number of features differs.
        """
        trees = self.trees_
        for what, values, known in (
            ("nodes", graphs.node_features, trees.labels),
            ("arcs", graphs.edge_features, trees.edge_labels),
        ):
            if values.shape[1] != known.shape[1]:
                message = (
                    f"Expected {known.shape[1]} features of {what}, as in the graphs that were "
                    f"fitted; got {values.shape[1]}."
                )
                raise InvalidInputError(message)
        degrees = graphs.degrees if self.degrees else None
        colors = [find_labels(graphs.node_features, trees.labels, degrees, trees.degrees)]
        arcs = _arcs(graphs, find_labels(graphs.edge_features, trees.edge_labels))
        for depth, level in enumerate(trees.levels):
            colors.append(_among(level, trees.n_trees(depth), colors[-1], *arcs))
        return np.stack(colors)


def supports(
    colors: np.ndarray, graphs: GraphSet, classes: np.ndarray, n_colors: int, n_classes: int
) -> np.ndarray:
    """Count the graphs of each class that hold each tree.

    Parameters
    ----------
    colors : numpy.ndarray of shape (n_nodes,), int32
        The tree of one depth around each node; -1 is not counted.
    graphs : GraphSet
        The graphs.
    classes : numpy.ndarray of shape (n_graphs,)
        Class of each graph, from 0.
    n_colors, n_classes : int
        How many trees and classes there are.

    Returns
    -------
    numpy.ndarray of shape (n_classes, n_colors), int64
        The supports.
    """
    return kernels.count_graphs(
        colors, graphs.node_ptr, np.asarray(classes, dtype=np.int64), n_colors, n_classes
    )


def _frequent(
    colors: np.ndarray,
    n_colors: int,
    graphs: GraphSet,
    classes: np.ndarray | None,
    min_support: np.ndarray,
) -> np.ndarray:
    """Say which trees are frequent in which class; a last column is of colour -1, which is not."""
    codes = np.zeros(len(graphs), dtype=np.int64) if classes is None else classes
    counts = supports(colors, graphs, codes, n_colors, len(min_support))
    enough = counts >= np.asarray(min_support)[:, None]
    return np.pad(enough, ((0, 0), (0, 1)))


def _among(
    level: TreeLevel,
    n_below: int,
    colors: np.ndarray,
    ptr: np.ndarray,
    sources: np.ndarray,
    edges: np.ndarray,
) -> np.ndarray:
    """Return the number of the tree around each node among those of a level, or -1."""
    known_ptr, child, edge = level.one_by_one()
    found, _ = kernels.distinct_trees(
        np.concatenate([level.own, colors]),
        np.concatenate([np.arange(n_below, dtype=np.int32), colors]),
        np.concatenate([known_ptr, known_ptr[-1] + ptr[1:]]),
        np.concatenate([child, n_below + sources]),
        np.concatenate([edge, edges]),
    )
    found = found[len(level) :]
    return np.where(found < len(level), found, np.int32(-1))


def _arcs(graphs: GraphSet, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the arcs to each node begin, and sources and labels of arcs in that order."""
    ptr, arcs = sort_by_column(graphs.targets, graphs.n_nodes)
    return ptr, graphs.sources[arcs], edges[arcs]


def number_labels(
    features: np.ndarray, degrees: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Give equal rows of features, with equal degrees, equal numbers.

    Parameters
    ----------
    features : numpy.ndarray of shape (n, k)
        As in `GraphSet`.
    degrees : numpy.ndarray of shape (n,), int64, or None, default=None
        Numbers of arcs, where they are part of the label.

    Returns
    -------
    numbers : numpy.ndarray of shape (n,), int32
        From 0, in the order of first sight.
    first : numpy.ndarray of shape (n_distinct,), int64
        Where each number was seen first.

    Raises
    ------
    InvalidInputError
        If integers are too large for `find_labels`.
    """
    if features.dtype != np.int64:
        return kernels.number_rows(_bit_rows(features, degrees))
    rows = np.ascontiguousarray(features).view(np.uint64)
    numbers, first = kernels.number_rows(_with_degrees(rows, degrees))
    _bit_rows(features[first])
    return numbers, first


def find_labels(
    features: np.ndarray,
    known: np.ndarray,
    degrees: np.ndarray | None = None,
    known_degrees: np.ndarray | None = None,
) -> np.ndarray:
    """Return the number of each row of features among known, distinct ones, or -1; int32.

    Integers are equal to floating-point numbers of the same value.
    """
    return kernels.find_rows(_bit_rows(features, degrees), _bit_rows(known, known_degrees))


def _bit_rows(features: np.ndarray, degrees: np.ndarray | None = None) -> np.ndarray:
    """Return features as rows of bits, uint64, that are equal exactly if the numbers are."""
    numbers = features.astype(np.float64)
    if features.dtype != np.float64 and not np.array_equal(
        numbers.astype(features.dtype), features
    ):
        message = "Expected integer features below 2^53, which floating-point numbers tell apart."
        raise InvalidInputError(message)
    numbers += 0.0  # turns -0.0 into 0.0
    return _with_degrees(np.ascontiguousarray(numbers).view(np.uint64), degrees)


def _with_degrees(rows: np.ndarray, degrees: np.ndarray | None) -> np.ndarray:
    if degrees is None:
        return rows
    return np.concatenate([rows, degrees.astype(np.uint64)[:, None]], axis=1)
