"""Trees as they are drawn: equal branches once, and without the way back to the parent.

Message passing returns: among the children of a node is its own parent. Where every arc has one in
the opposite direction with the same features, that child is always there, and to leave it out loses
nothing. What is left of a tree is small, and of a molecule it is the piece around an atom, its
rings cut open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .trees import Trees

__all__ = ["Branch", "Flat", "flatten", "fold"]


@dataclass(frozen=True, slots=True)
class Branch:
    """A node and what hangs on it."""

    label: int
    """Row of `Trees.labels`."""
    edge: int
    """Row of `Trees.edge_labels`, of the arc to the parent; -1 for the root."""
    count: int
    """How often it hangs on its parent."""
    children: tuple[Branch, ...]


class Flat(NamedTuple):
    """Branches node by node, the root first, each parent before its children."""

    branches: list[Branch]
    parents: list[int]
    depths: list[int]


class _TooLargeError(Exception):
    """A tree has more nodes than can be drawn."""


class _OneWayError(Exception):
    """An arc has none that leads back."""


def fold(trees: Trees, tree: int, most: int, *, merged: bool = True) -> tuple[Branch, int]:
    """Return one of the deepest trees, cut to as many hops as can be drawn.

    Parameters
    ----------
    trees : Trees
        All trees.
    tree : int
        Number of a tree of depth ``n_hops``.
    most : int
        How many nodes may be drawn.
    merged : bool, default=True
        Whether equal branches are drawn, and counted, once.

    Returns
    -------
    root : Branch
        The tree.
    n_hops : int
        Its depth.
    """
    cut = [int(numbers[0]) for numbers in trees.ancestors(trees.n_hops, np.array([tree]))]
    for depth in range(trees.n_hops, 0, -1):
        for way_back in (False, True):
            try:
                folding = _Folding(trees, way_back=way_back, merged=merged, left=most)
                return folding.branch(depth, cut[depth]), depth
            except _OneWayError:
                continue
            except _TooLargeError:
                break
    return Branch(cut[0], -1, 1, ()), 0


@dataclass
class _Folding:
    trees: Trees
    way_back: bool
    merged: bool
    left: int
    roots: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.roots = [np.arange(len(self.trees.labels))]
        for level in self.trees.levels:
            self.roots.append(self.roots[-1][level.own])

    def branch(
        self,
        depth: int,
        tree: int,
        edge: int = -1,
        count: int = 1,
        parent: int = -1,
        times: int = 1,
    ) -> Branch:
        """Return a tree of a depth, which hangs on ``parent``, a tree that is one less deep."""
        times *= 1 if self.merged else count
        self.left -= times
        if self.left < 0:
            raise _TooLargeError
        label = int(self.roots[depth][tree])
        if depth == 0:
            return Branch(label, edge, count, ())
        level = self.trees.levels[depth - 1]
        rows = slice(level.ptr[tree], level.ptr[tree + 1])
        found = {
            (int(e), int(c)): int(n)
            for e, c, n in zip(level.edge[rows], level.child[rows], level.count[rows], strict=True)
        }
        if edge >= 0 and not self.way_back:
            if (edge, parent) not in found:
                raise _OneWayError
            found[edge, parent] -= 1
        # What a child would see of this tree: two levels less deep, as the child's own children.
        below = int(self.trees.levels[depth - 2].own[level.own[tree]]) if depth > 1 else -1
        children = tuple(
            self.branch(depth - 1, child, e, n, below, times)
            for (e, child), n in found.items()
            if n
        )
        return Branch(label, edge, count, children)


def flatten(root: Branch, *, merged: bool = True) -> Flat:
    """Return all nodes of a tree; each as often as it is there, or equal ones once.

    Parameters
    ----------
    root : Branch
        The tree.
    merged : bool, default=True
        Whether equal branches are one.
    """
    flat = Flat([], [], [])

    def add(branch: Branch, parent: int, depth: int) -> None:
        for _ in range(1 if merged else branch.count):
            place = len(flat.branches)
            flat.branches.append(branch)
            flat.parents.append(parent)
            flat.depths.append(depth)
            for child in branch.children:
                add(child, place, depth + 1)

    add(root, -1, 0)
    return flat
