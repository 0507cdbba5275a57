"""What is done to features before trees are compared: numbers that vary freely are put into bins.

A feature that is a measured number makes every tree unique. Bins are learnt from the graphs that
are distilled, and applied to all others, so nothing of a test set leaks into them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

from .graphset import GraphSet

__all__ = ["Preparation"]


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """How features of nodes and arcs are made discrete.

    Attributes
    ----------
    node_bins, edge_bins : tuple of (tuple of float, tuple of float) or None
        For each column None, where it is taken as it is, or the inner edges of its bins in
        ascending order and the value that stands for each bin.
    degree_label : bool
        Whether nodes are labelled by the number of arcs into them, in place of their features:
        where these are the same for all nodes.
    """

    node_bins: tuple[_Bins, ...]
    edge_bins: tuple[_Bins, ...]
    degree_label: bool = False

    @classmethod
    def of(cls, graphs: GraphSet, bins: int = 8) -> Preparation:
        """Learn from graphs what has to be done.

        Parameters
        ----------
        graphs : GraphSet
            The graphs that are distilled.
        bins : int, default=8
            Bins of a column that holds other than whole numbers. Their edges are quantiles, and
            the median of a bin stands for it.

        Returns
        -------
        Preparation
            The recipe.

        Raises
        ------
        InvalidInputError
            If there are fewer than two bins.
        """
        if not (isinstance(bins, int) and bins >= 2):
            message = f"Expected bins to be an integer of at least 2; got {bins!r}."
            raise InvalidInputError(message)
        features = graphs.node_features
        return cls(
            tuple(_bins_of(column, bins) for column in features.T),
            tuple(_bins_of(column, bins) for column in graphs.edge_features.T),
            degree_label=bool(graphs.n_arcs) and bool((features == features[:1]).all()),
        )

    def apply(self, graphs: GraphSet) -> GraphSet:
        """Return graphs with discrete features.

        Parameters
        ----------
        graphs : GraphSet
            Graphs with as many features as those that were learnt from.

        Returns
        -------
        GraphSet
            The same graphs.

        Raises
        ------
        InvalidInputError
            If the number of features differs.
        """
        for what, features, bins in (
            ("node", graphs.node_features, self.node_bins),
            ("edge", graphs.edge_features, self.edge_bins),
        ):
            if features.shape[1] != len(bins):
                message = (
                    f"Expected {len(bins)} {what} features, as in the graphs that were distilled; "
                    f"got {features.shape[1]}."
                )
                raise InvalidInputError(message)
        nodes = _binned(graphs.node_features, self.node_bins)
        if self.degree_label:
            nodes = graphs.degrees[:, None]
        edges = _binned(graphs.edge_features, self.edge_bins)
        return replace(graphs, node_features=nodes, edge_features=edges)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "node_bins": list(self.node_bins),
            "edge_bins": list(self.edge_bins),
            "degree_label": self.degree_label,
        }

    @classmethod
    def rebuild(cls, described: dict[str, Any]) -> Preparation:
        """Return what `describe` described."""
        nodes, edges = (
            tuple(None if bins is None else (tuple(bins[0]), tuple(bins[1])) for bins in columns)
            for columns in (described["node_bins"], described["edge_bins"])
        )
        return cls(nodes, edges, described["degree_label"])


_Bins = tuple[tuple[float, ...], tuple[float, ...]] | None


def _bins_of(column: np.ndarray, bins: int) -> _Bins:
    if (column == np.round(column)).all():
        return None
    edges = np.unique(np.quantile(column, np.arange(1, bins) / bins))
    place = np.searchsorted(edges, column, side="right")
    # Equal quantiles can leave a bin empty; its edge then stands for it.
    values = [
        np.median(column[place == k]) if (place == k).any() else edges[max(k - 1, 0)]
        for k in range(len(edges) + 1)
    ]
    # In single precision, so that they are stored in four bytes without loss.
    return tuple(edges.tolist()), tuple(np.array(values, dtype=np.float32).tolist())


def _binned(features: np.ndarray, columns: tuple[_Bins, ...]) -> np.ndarray:
    if all(bins is None for bins in columns):
        return features
    binned = features.astype(np.float64)
    for number, bins in enumerate(columns):
        if bins is not None:
            edges, values = bins
            place = np.searchsorted(np.array(edges), binned[:, number], side="right")
            binned[:, number] = np.array(values)[place]
    return binned
