"""What distillation has to beat: subsets of the graphs of the same size, and two linear models.

All of it is old and simple, and some of it is hard to beat: on several public data sets the number
of nodes alone ranks the test graphs better than networks do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from scikd.exceptions import InvalidInputError

from ._budget import largest
from ._limits import BudgetTooSmallError
from .distilled import compact
from .graphset import GraphSet
from .refinement import ColorRefinement

__all__ = [
    "TreeHistogram",
    "fill_budget",
    "herding",
    "k_center",
    "random_order",
    "size_model",
    "stored_bytes",
    "tree_model",
]


def stored_bytes(graphs: GraphSet) -> int:
    """Return the bytes that graphs take when stored as tightly as distilled ones are.

    Distinct rows of features are stored once and numbered; an edge whose two arcs have the same
    features is stored once; every array has the smallest integer type that holds it.

    Parameters
    ----------
    graphs : GraphSet
        The graphs.

    Returns
    -------
    int
        The bytes, without names and checksums, as `DistilledGraphs.n_bytes` counts them.
    """
    rows, nodes = _numbered(graphs.node_features)
    edge_rows, arcs = _numbered(graphs.edge_features)
    first = np.repeat(graphs.node_ptr[:-1], np.diff(graphs.arc_ptr))
    sources, targets = graphs.sources, graphs.targets
    order = [
        np.lexsort((arcs, ends[1], ends[0])) for ends in ((sources, targets), (targets, sources))
    ]
    back = [sources[order[0]], targets[order[0]], arcs[order[0]]]
    forth = [targets[order[1]], sources[order[1]], arcs[order[1]]]
    kept = np.arange(graphs.n_arcs)
    if all(np.array_equal(a, b) for a, b in zip(back, forth, strict=True)):
        kept = np.flatnonzero(sources <= targets)
    of_graph = np.repeat(np.arange(len(graphs)), np.diff(graphs.arc_ptr))[kept]
    n_edges = np.bincount(of_graph, minlength=len(graphs))
    arrays = [rows, edge_rows, np.diff(graphs.node_ptr), n_edges]
    arrays += [(ends - first)[kept] for ends in (sources, targets)]
    arrays += [nodes] * (len(rows) > 1) + [arcs[kept]] * (len(edge_rows) > 1)
    labels = np.unique(graphs.y, return_inverse=True)[1] if graphs.y is not None else np.empty(0)
    return sum(compact(values).nbytes for values in [*arrays, labels])


def fill_budget(graphs: GraphSet, order: Iterable[int], budget: int) -> np.ndarray:
    """Take graphs in an order until the next one would not fit into a number of bytes.

    Parameters
    ----------
    graphs : GraphSet
        All graphs.
    order : iterable of int
        Which to take first.
    budget : int
        Bytes, as `stored_bytes` counts them.

    Returns
    -------
    numpy.ndarray of int
        The graphs that were taken, in this order.

    Raises
    ------
    BudgetTooSmallError
        If not even the first fits; an `InvalidInputError`.
    InvalidInputError
        If there is none.
    """
    order = np.asarray(list(order))
    if not len(order):
        raise InvalidInputError("Expected graphs to take; the order is empty.")
    taken = largest(0, len(order), lambda n: stored_bytes(graphs.select(order[:n])) <= budget)
    if taken == 0:
        least = stored_bytes(graphs.select(order[:1]))
        message = (
            f"Expected a budget of at least {least} bytes, which one graph takes; got {budget}."
        )
        raise BudgetTooSmallError(message)
    return order[:taken]


def random_order(y: np.ndarray, seed: int) -> np.ndarray:
    """Return all graphs in random order, classes taking turns.

    Parameters
    ----------
    y : numpy.ndarray of shape (n_graphs,)
        Class of each graph.
    seed : int
        Of the random numbers.

    Returns
    -------
    numpy.ndarray of shape (n_graphs,)
        Numbers of graphs.
    """
    random = np.random.default_rng(seed)
    return _take_turns([random.permutation(np.flatnonzero(y == label)) for label in np.unique(y)])


def herding(features: sparse.csr_array, y: np.ndarray, n_graphs: int) -> np.ndarray:
    """Order graphs so that those taken first have the mean of their class.

    Parameters
    ----------
    features : scipy.sparse.csr_array of shape (n_graphs, n_features)
        Of each graph.
    y : numpy.ndarray of shape (n_graphs,)
        Class of each graph.
    n_graphs : int
        How many of each class to order; the rest is left out.

    Returns
    -------
    numpy.ndarray
        Numbers of graphs, classes taking turns.
    """
    orders = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        own = features[members]
        mean = np.asarray(own.mean(axis=0)).ravel()
        wanted, taken = mean.copy(), []
        free = np.ones(len(members), dtype=bool)
        for _ in range(min(n_graphs, len(members))):
            gain = np.where(free, own @ wanted, -np.inf)
            best = int(np.argmax(gain))
            free[best] = False
            taken.append(members[best])
            wanted += mean - own[[best]].toarray().ravel()
        orders.append(np.array(taken))
    return _take_turns(orders)


def k_center(features: sparse.csr_array, y: np.ndarray, n_graphs: int) -> np.ndarray:
    """Order graphs so that each is as far as can be from those of its class before it.

    Parameters
    ----------
    features, y, n_graphs
        As in `herding`.

    Returns
    -------
    numpy.ndarray
        Numbers of graphs, classes taking turns; each class begins next to its mean.
    """
    orders = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        own = features[members]
        squares = np.asarray(own.multiply(own).sum(axis=1)).ravel()
        mean = np.asarray(own.mean(axis=0)).ravel()
        taken = [int(np.argmin(squares - 2 * (own @ mean)))]
        nearest = np.full(len(members), np.inf)
        while len(taken) < min(n_graphs, len(members)):
            last = own[[taken[-1]]].toarray().ravel()
            nearest = np.minimum(nearest, squares + last @ last - 2 * (own @ last))
            nearest[taken] = -np.inf
            taken.append(int(np.argmax(nearest)))
        orders.append(members[taken])
    return _take_turns(orders)


class TreeHistogram:
    """Features of a graph: how many of its nodes have each tree of each depth.

    These are the features of the Weisfeiler-Leman subtree kernel.

    Parameters
    ----------
    n_hops : int, default=3
        Depth of the deepest trees.
    """

    def __init__(self, n_hops: int = 3) -> None:
        self.refinement = ColorRefinement(n_hops)

    def fit_transform(self, graphs: GraphSet) -> sparse.csr_array:
        """Learn the trees of graphs, and count them; shape (n_graphs, n_trees)."""
        return self._count(self.refinement.fit(graphs), graphs)

    def transform(self, graphs: GraphSet) -> sparse.csr_array:
        """Count the known trees of graphs; others are left out; shape (n_graphs, n_trees)."""
        return self._count(self.refinement.transform(graphs), graphs)

    def _count(self, colors: np.ndarray, graphs: GraphSet) -> sparse.csr_array:
        trees = self.refinement.trees_
        widths = [trees.n_trees(depth) for depth in range(trees.n_hops + 1)]
        parts = []
        for level, width in zip(colors, widths, strict=True):
            known = level >= 0
            place = (graphs.graph_of_node[known], level[known])
            parts.append(sparse.coo_array((np.ones(known.sum()), place), (len(graphs), width)))
        return sparse.csr_array(sparse.hstack(parts))


def size_model() -> Pipeline:
    """Return a classifier of the numbers of nodes and arcs of a graph, and of nothing else."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def tree_model(strength: float = 1.0) -> Pipeline:
    """Return a linear classifier of histograms of trees, with an inverse penalty ``strength``."""
    return make_pipeline(MaxAbsScaler(), LogisticRegression(C=strength, max_iter=2000))


def _numbered(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, numbers = np.unique(features, axis=0, return_inverse=True)
    return rows, numbers.ravel()


def _take_turns(orders: list[np.ndarray]) -> np.ndarray:
    turns = np.concatenate([np.arange(len(order)) for order in orders])
    return np.concatenate(orders)[np.argsort(turns, kind="stable")]
