"""Distinct rooted trees, each stored once: what a message-passing network can tell apart.

A network of L layers computes the state of a node from the tree of depth L that is rooted there:
the node, its neighbours, theirs, and so on, the way back included. Equal trees mean equal states.
`Trees` holds every distinct tree of a data set once, as a root on top of distinct trees that are
one level less deep: a directed acyclic graph in which subtrees are shared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from scikd.exceptions import InvalidInputError

from ._pointers import pointers

__all__ = ["TreeLevel", "Trees", "Unfolded", "truncate"]

MOST_NODES = 50_000_000  # of trees written out in full


@dataclass(frozen=True, slots=True, eq=False)
class TreeLevel:
    """The distinct trees of one depth.

    Attributes
    ----------
    own : numpy.ndarray of shape (n_trees,), int32
        Each tree without its deepest nodes: a tree of the level above the leaves, one less deep.
    ptr : numpy.ndarray of shape (n_trees + 1,), int64
        The children of tree ``c`` are those from ``ptr[c]`` to ``ptr[c + 1]``.
    child : numpy.ndarray of shape (n_children,), int32
        Subtrees below the root, each one level less deep.
    edge : numpy.ndarray of shape (n_children,), int32
        The label of the arc to the root; rows of `Trees.edge_labels`.
    count : numpy.ndarray of shape (n_children,), int32
        How often this subtree hangs on this label. Pairs of label and subtree are distinct within
        a tree, and ascend.
    """

    own: np.ndarray
    ptr: np.ndarray
    child: np.ndarray
    edge: np.ndarray
    count: np.ndarray

    def __len__(self) -> int:
        return len(self.own)

    @property
    def parent(self) -> np.ndarray:
        """The tree that each child hangs on, shape (n_children,), int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.ptr))

    def one_by_one(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``ptr``, ``child`` and ``edge``, with each child as often as it hangs there."""
        child, edge = np.repeat(self.child, self.count), np.repeat(self.edge, self.count)
        return pointers(self.count)[self.ptr], child, edge


class Unfolded(NamedTuple):
    """A tree written out node by node, breadth first; node 0 is the root."""

    labels: np.ndarray
    """Shape (n_nodes,); rows of `Trees.labels`."""
    parents: np.ndarray
    """Shape (n_nodes,); the parent of each node, -1 for the root."""
    edges: np.ndarray
    """Shape (n_nodes,); the label of the arc to the parent, -1 for the root."""
    depths: np.ndarray
    """Shape (n_nodes,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """Distinct rooted trees of every depth up to ``n_hops``.

    Attributes
    ----------
    labels : numpy.ndarray of shape (n_labels, n_features)
        Features of a node: the trees of depth 0.
    edge_labels : numpy.ndarray of shape (n_edge_labels, n_edge_features)
        Features of an arc.
    levels : tuple of TreeLevel
        The trees of depth 1, 2, ...
    degrees : numpy.ndarray of shape (n_labels,) or None
        The number of arcs into a node, where it is part of the label.
    self_loops : bool
        Whether a graph that the trees came from has arcs from a node to itself.
    """

    labels: np.ndarray
    edge_labels: np.ndarray
    levels: tuple[TreeLevel, ...]
    degrees: np.ndarray | None = None
    self_loops: bool = False

    @property
    def n_hops(self) -> int:
        """Depth of the deepest trees."""
        return len(self.levels)

    def n_trees(self, depth: int) -> int:
        """Return the number of distinct trees of a depth."""
        return len(self.levels[depth - 1]) if depth else len(self.labels)

    @property
    def n_nodes(self) -> int:
        """Number of trees of all depths: nodes of the merged graph."""
        return sum(self.n_trees(depth) for depth in range(self.n_hops + 1))

    @property
    def n_arcs(self) -> int:
        """Number of children of all trees: arcs of the merged graph."""
        return sum(len(level.child) for level in self.levels)

    def ancestors(self, depth: int, trees: np.ndarray) -> list[np.ndarray]:
        """Cut trees back level by level.

        Parameters
        ----------
        depth : int
            Of the trees.
        trees : numpy.ndarray of shape (n,)
            Their numbers.

        Returns
        -------
        list of numpy.ndarray of shape (n,)
            Their numbers at depth 0, 1, ... ``depth``.
        """
        found = [np.asarray(trees)]
        for level in reversed(self.levels[:depth]):
            found.append(level.own[found[-1]])
        return found[::-1]

    def sizes(self) -> list[np.ndarray]:
        """Return how many nodes each tree has when written out, for every depth; as floats.

        Sizes grow exponentially with depth, beyond what an integer holds.
        """
        found = [np.ones(len(self.labels))]
        for level in self.levels:
            below = np.zeros(len(level))
            np.add.at(below, level.parent, level.count * found[-1][level.child])
            found.append(1.0 + below)
        return found

    def restrict(self, roots: np.ndarray) -> tuple[Trees, np.ndarray]:
        """Keep some of the deepest trees, and what they are made of.

        Parameters
        ----------
        roots : numpy.ndarray of shape (n,)
            Numbers of trees of depth ``n_hops``.

        Returns
        -------
        trees : Trees
            The smaller collection, in the same order. Labels of arcs are reduced too.
        roots : numpy.ndarray of shape (n,)
            Numbers of the same trees in it.
        """
        kept = [np.zeros(self.n_trees(depth), dtype=bool) for depth in range(self.n_hops + 1)]
        kept[-1][roots] = True
        for depth in range(self.n_hops, 0, -1):
            level = self.levels[depth - 1]
            kept[depth - 1][level.own[kept[depth]]] = True
            kept[depth - 1][level.child[np.repeat(kept[depth], np.diff(level.ptr))]] = True
        used = np.zeros(len(self.edge_labels), dtype=bool)
        for level, wanted in zip(self.levels, kept[1:], strict=True):
            used[level.edge[np.repeat(wanted, np.diff(level.ptr))]] = True
        new, new_edge = [_renumber(mask) for mask in kept], _renumber(used)
        levels = []
        for depth, level in enumerate(self.levels, 1):
            rows = np.repeat(kept[depth], np.diff(level.ptr))
            sizes = np.diff(level.ptr)[kept[depth]]
            levels.append(
                TreeLevel(
                    own=new[depth - 1][level.own[kept[depth]]],
                    ptr=pointers(sizes),
                    child=new[depth - 1][level.child[rows]],
                    edge=new_edge[level.edge[rows]],
                    count=level.count[rows],
                )
            )
        degrees = None if self.degrees is None else self.degrees[kept[0]]
        smaller = replace(
            self,
            labels=self.labels[kept[0]],
            edge_labels=self.edge_labels[used],
            levels=tuple(levels),
            degrees=degrees,
        )
        return smaller, new[-1][roots]

    def unfold(self, tree: int) -> Unfolded:
        """Write out one of the deepest trees.

        Parameters
        ----------
        tree : int
            Number of a tree of depth ``n_hops``.

        Returns
        -------
        Unfolded
            Its nodes; a subtree that hangs on the root n times is there n times.

        Raises
        ------
        InvalidInputError
            If it has more than 50 million nodes.
        """
        size = self.sizes()[-1][tree]
        if size > MOST_NODES:
            message = (
                f"Tree {tree} has {size:.3g} nodes when written out, more than {MOST_NODES:,}: "
                "train on the merged trees instead, or take fewer hops."
            )
            raise InvalidInputError(message)
        now = np.array([tree])
        nodes = [(now, np.array([-1]), np.array([-1]))]
        start = 0
        for level in reversed(self.levels):
            many = np.diff(level.ptr)[now]
            first = np.repeat(level.ptr[now] - np.cumsum(many) + many, many)
            arcs = first + np.arange(many.sum())
            arcs, parents = (np.repeat(values, level.count[arcs]) for values in (
                arcs, np.repeat(start + np.arange(len(now)), many)
            ))  # fmt: skip
            start += len(now)
            now = level.child[arcs]
            nodes.append((now, parents, level.edge[arcs]))
        labels = [
            self.ancestors(self.n_hops - depth, numbers)[0]
            for depth, (numbers, _, _) in enumerate(nodes)
        ]
        return Unfolded(
            np.concatenate(labels),
            np.concatenate([parents for _, parents, _ in nodes]),
            np.concatenate([edges for _, _, edges in nodes]),
            np.repeat(np.arange(len(nodes)), [len(numbers) for numbers, _, _ in nodes]),
        )


def truncate(trees: Trees, roots: np.ndarray, n_hops: int) -> tuple[Trees, np.ndarray]:
    """Cut all trees to a smaller depth.

    Parameters
    ----------
    trees : Trees
        The trees.
    roots : numpy.ndarray of shape (n,)
        Numbers of some of the deepest.
    n_hops : int
        The new depth.

    Returns
    -------
    trees : Trees
        Those of the roots alone, no deeper than ``n_hops``.
    roots : numpy.ndarray of shape (n,)
        Numbers of the roots' trees in it.

    Raises
    ------
    InvalidInputError
        If the trees are less deep.
    """
    if not 0 <= n_hops <= trees.n_hops:
        message = f"Expected n_hops from 0 to {trees.n_hops}, the depth of the trees; got {n_hops}."
        raise InvalidInputError(message)
    cut = trees.ancestors(trees.n_hops, roots)[n_hops]
    return replace(trees, levels=trees.levels[:n_hops]).restrict(cut)


def _renumber(kept: np.ndarray) -> np.ndarray:
    return np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
