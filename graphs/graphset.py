"""Many graphs in one: an immutable type of arrays, made from and to torch_geometric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._pointers import chosen, pointers, take_runs

__all__ = ["GraphSet"]

MOST_SHOWN = 10  # faulty graphs in one message
WHOLE = np.iinfo(np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class GraphSet:
    """Graphs with features of nodes and edges, one after another in the same arrays.

    An arc carries messages from its source to its target, as the columns of torch_geometric's
    ``edge_index`` do; an undirected graph holds both arcs of each edge. Nodes are numbered through
    all graphs, and each arc lies within one graph.

    Parameters
    ----------
    node_ptr : numpy.ndarray of shape (n_graphs + 1,)
        The nodes of graph g are ``node_ptr[g]`` up to ``node_ptr[g + 1]``; kept as int64.
    arc_ptr : numpy.ndarray of shape (n_graphs + 1,)
        The arcs of graph g are ``arc_ptr[g]`` up to ``arc_ptr[g + 1]``; kept as int64.
    sources, targets : numpy.ndarray of shape (n_arcs,)
        Numbers of nodes; kept as int64.
    node_features : numpy.ndarray of shape (n_nodes, n_node_features)
        Whole numbers are kept as int64, others as float64. There may be no columns.
    edge_features : numpy.ndarray of shape (n_arcs, n_edge_features)
        As ``node_features``, of each arc.
    y : numpy.ndarray of shape (n_graphs,) or None, default=None
        Labels of classes, of any type that sorts. NaN stands for a graph without a label.
    name : str, default=""
        What to call the data.
    smiles : sequence of str or None, default=None
        One for each graph, where the graphs are molecules; kept as a tuple.

    Raises
    ------
    InvalidInputError
        If shapes do not fit, a graph has no nodes, an arc leaves its graph, or a feature is not a
        finite number. The message names the graphs, and in each its nodes and arcs, counted from 0.
    """

    node_ptr: np.ndarray
    arc_ptr: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    node_features: np.ndarray
    edge_features: np.ndarray
    y: np.ndarray | None = None
    name: str = ""
    smiles: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # A frozen dataclass has no other way to keep what it has converted.
        for name in ("node_ptr", "arc_ptr", "sources", "targets"):
            object.__setattr__(self, name, _whole_numbers(getattr(self, name), name))
        for name in ("node_features", "edge_features"):
            object.__setattr__(self, name, _features(getattr(self, name), name))
        if self.y is not None:
            object.__setattr__(self, "y", np.asarray(self.y))
        if self.smiles is not None:
            object.__setattr__(self, "smiles", tuple(self.smiles))
        _check_shapes(self)
        _check_graphs(self)

    @classmethod
    def from_pyg(cls, dataset: Iterable[Any], name: str = "") -> GraphSet:
        """Take the graphs of a torch_geometric data set.

        Parameters
        ----------
        dataset : iterable of torch_geometric.data.Data
            An ``InMemoryDataset`` or a list. Each has ``edge_index``, and ``x`` or ``num_nodes``;
            ``edge_attr``, ``y`` (one number) and ``smiles`` where all of them do.
        name : str, default=""
            What to call the data.

        Raises
        ------
        InvalidInputError
            If there are no graphs, only some have one of these, or their widths differ.
        """
        try:
            graphs = list(dataset)  # of what has no __iter__ too, such as torch's Subset
        except TypeError as error:
            message = (
                f"Expected a data set, or a list, of torch_geometric's graphs; got {dataset!r}."
            )
            raise InvalidInputError(message) from error
        if not graphs:
            raise InvalidInputError("Expected at least one graph; got none.")
        bare = [g for g, data in enumerate(graphs) if getattr(data, "edge_index", None) is None]
        if bare:
            message = f"Expected an edge_index in each graph; {_numbers(bare)} has none."
            if len(bare) == len(graphs):  # a single graph gives the names of its tensors
                kind = type(graphs[0]).__name__
                message += f" They are of type {kind}; put a single graph into a list."
            raise InvalidInputError(message)
        n_nodes = np.array([data.num_nodes for data in graphs], dtype=np.int64)
        arcs = [_array(data.edge_index) for data in graphs]
        wrong = [g for g, a in enumerate(arcs) if a.ndim != 2 or len(a) != 2]
        wrong_type = [g for g, a in enumerate(arcs) if a.size and a.dtype.kind not in "iu"]
        if wrong:
            shape = arcs[wrong[0]].shape
            message = f"Expected edge_index of shape (2, n_arcs); {_numbers(wrong)} has {shape}."
            raise InvalidInputError(message)
        if wrong_type:
            dtype = arcs[wrong_type[0]].dtype
            message = f"Expected edge_index of integers; {_numbers(wrong_type)} has {dtype}."
            raise InvalidInputError(message)
        n_arcs = np.array([a.shape[1] for a in arcs], dtype=np.int64)
        node_ptr = pointers(n_nodes)
        union = np.concatenate(arcs, axis=1).astype(np.int64) + np.repeat(node_ptr[:-1], n_arcs)
        smiles = _of_all(graphs, "smiles", str)
        labels = _of_all(graphs, "y", _label)
        return cls(
            node_ptr,
            pointers(n_arcs),
            union[0],
            union[1],
            node_features=_joined(graphs, "x", n_nodes),
            edge_features=_joined(graphs, "edge_attr", n_arcs),
            y=None if labels is None else np.array(labels),
            name=name,
            smiles=None if smiles is None else tuple(smiles),
        )

    def to_pyg(self) -> list[Any]:
        """Return the graphs as torch_geometric's ``Data``; `from_pyg` takes them back.

        ``x`` and ``edge_attr`` are int64 or float64, and left out where they have no columns;
        ``y`` has shape (1,), and is the label itself where it is no number.

        Returns
        -------
        list of torch_geometric.data.Data
            One for each graph, with copies of the arrays.

        Raises
        ------
        MissingExtraError
            If torch_geometric is not installed.
        """
        pyg = require("torch_geometric.data", extra="graphs", feature="Data for torch_geometric")
        torch = require("torch", extra="graphs", feature="Data for torch_geometric")
        result = []
        for g in range(len(self)):
            first = self.node_ptr[g]
            nodes = slice(first, self.node_ptr[g + 1])
            arcs = slice(self.arc_ptr[g], self.arc_ptr[g + 1])
            ends = np.stack([self.sources[arcs], self.targets[arcs]]) - first
            data = pyg.Data(edge_index=torch.tensor(ends), num_nodes=int(nodes.stop - first))
            if self.node_features.shape[1]:
                data.x = torch.tensor(self.node_features[nodes])
            if self.edge_features.shape[1]:
                data.edge_attr = torch.tensor(self.edge_features[arcs])
            if self.y is not None:
                numeric = self.y.dtype.kind in "biuf"
                data.y = torch.tensor(self.y[g : g + 1]) if numeric else self.y[g]
            if self.smiles is not None:
                data.smiles = self.smiles[g]
            result.append(data)
        return result

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    def __repr__(self) -> str:
        return (
            f"GraphSet({self.name!r}, n_graphs={len(self)}, n_nodes={self.n_nodes}, "
            f"n_arcs={self.n_arcs}, n_node_features={self.node_features.shape[1]}, "
            f"n_edge_features={self.edge_features.shape[1]}, "
            f"y={'None' if self.y is None else self.y.dtype})"
        )

    @property
    def n_nodes(self) -> int:
        """How many nodes there are in all graphs together."""
        return len(self.node_features)

    @property
    def n_arcs(self) -> int:
        """How many arcs there are in all graphs together."""
        return len(self.sources)

    @property
    def graph_of_node(self) -> np.ndarray:
        """The graph that each node belongs to, shape (n_nodes,), int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.node_ptr))

    @property
    def degrees(self) -> np.ndarray:
        """How many arcs end at each node, shape (n_nodes,), int64."""
        return np.bincount(self.targets, minlength=self.n_nodes)

    def select(self, indices: Sequence[int] | np.ndarray) -> GraphSet:
        """Return some of the graphs, in the order asked for; one may be asked for twice.

        Parameters
        ----------
        indices : array-like of int, or of bool
            Which, counted from 0, where negative ones count from the end; or True for each that is
            wanted, shape (n_graphs,).

        Raises
        ------
        InvalidInputError
            If there is no graph of that number.
        """
        rows = chosen(indices, len(self), "graphs")
        nodes, node_ptr = take_runs(self.node_ptr, rows)
        arcs, arc_ptr = take_runs(self.arc_ptr, rows)
        shift = np.repeat(node_ptr[:-1] - self.node_ptr[rows], np.diff(arc_ptr))
        return replace(
            self,
            node_ptr=node_ptr,
            arc_ptr=arc_ptr,
            sources=self.sources[arcs] + shift,
            targets=self.targets[arcs] + shift,
            node_features=self.node_features[nodes],
            edge_features=self.edge_features[arcs],
            y=None if self.y is None else self.y[rows],
            smiles=None if self.smiles is None else tuple(self.smiles[g] for g in rows),
        )


# -------------------------------------------------------------------------------------- checks


def _whole_numbers(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.size and (array.dtype.kind not in "iu" or array.max() > WHOLE.max):
        raise InvalidInputError(f"Expected {name} of type int64; got {array.dtype}.")
    return np.ascontiguousarray(array, dtype=np.int64)


def _features(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(f"Expected {name} of numbers; got {array.dtype}.")
    whole = array.dtype.kind != "f"
    if whole and array.size and array.max() > WHOLE.max:
        raise InvalidInputError(f"Expected {name} that fit into int64; got {array.max()}.")
    return np.ascontiguousarray(array, dtype=np.int64 if whole else np.float64)


def _check_shapes(graphs: GraphSet) -> None:
    """Raise unless all arrays are about the same graphs, nodes and arcs."""
    problems = [
        f"{name} {getattr(graphs, name).shape} instead of {ndim} dimension(s)"
        for name, ndim in _DIMENSIONS.items()
        if getattr(graphs, name) is not None and getattr(graphs, name).ndim != ndim
    ]
    if not problems and not len(graphs.node_ptr):
        problems = ["node_ptr of length 0 instead of n_graphs + 1"]
    if not problems:
        n_graphs, n, m = len(graphs), graphs.n_nodes, graphs.n_arcs
        lengths = {"arc_ptr": n_graphs + 1, "targets": m, "edge_features": m}
        lengths |= {name: n_graphs for name in ("y", "smiles") if getattr(graphs, name) is not None}
        problems = [
            f"{name} of length {len(getattr(graphs, name))} instead of {length}"
            for name, length in lengths.items()
            if len(getattr(graphs, name)) != length
        ]
        for name, end in (("node_ptr", n), ("arc_ptr", m)):
            ptr = getattr(graphs, name)
            if not len(ptr) or ptr[0] != 0 or ptr[-1] != end:
                ends = [*ptr[:1].tolist(), *ptr[-1:].tolist()]
                problems.append(f"{name} from {ends} instead of [0, {end}], first and last")
    if problems:
        message = (
            "Expected arrays that are about the same graphs (as in node_ptr), nodes (as in "
            f"node_features) and arcs (as in sources); got {', '.join(problems)}."
        )
        raise InvalidInputError(message)


_DIMENSIONS = {
    "node_ptr": 1,
    "arc_ptr": 1,
    "sources": 1,
    "targets": 1,
    "node_features": 2,
    "edge_features": 2,
    "y": 1,
}


def _check_graphs(graphs: GraphSet) -> None:
    """Raise with a line for each graph that cannot be one."""
    found: dict[int, str] = {}

    def note(bad: np.ndarray, says: Callable[[int], str]) -> None:
        for g in bad.tolist():
            found.setdefault(g, says(g))

    sizes, counts = np.diff(graphs.node_ptr), np.diff(graphs.arc_ptr)
    note(np.flatnonzero(sizes < 1), lambda g: f"expected at least one node; it has {int(sizes[g])}")
    note(
        np.flatnonzero(counts < 0),
        lambda g: f"expected arcs of its own; arc_ptr descends by {-int(counts[g])}",
    )
    if not found:  # else no node or arc belongs to a graph for certain
        _check_arcs(graphs, counts, note)
        for name, ptr in (("node_features", graphs.node_ptr), ("edge_features", graphs.arc_ptr)):
            _check_finite(getattr(graphs, name), ptr, name, note)
    if found:
        lines = [f"graph {g}: {found[g]}" for g in sorted(found)[:MOST_SHOWN]]
        message = f"{len(found)} of {len(graphs)} graphs cannot be used:\n" + "\n".join(lines)
        raise InvalidInputError(message)


_Note = Callable[[np.ndarray, Callable[[int], str]], None]


def _check_arcs(graphs: GraphSet, counts: np.ndarray, note: _Note) -> None:
    owner = np.repeat(np.arange(len(graphs)), counts)
    first, end = graphs.node_ptr[:-1][owner], graphs.node_ptr[1:][owner]
    outside = np.zeros(graphs.n_arcs, dtype=bool)
    for ends in (graphs.sources, graphs.targets):
        outside |= (ends < first) | (ends >= end)
    where = np.flatnonzero(outside)

    def says(g: int) -> str:
        arc, start = where[np.searchsorted(where, graphs.arc_ptr[g])], graphs.node_ptr[g]
        return (
            f"expected arcs between its nodes 0 to {graphs.node_ptr[g + 1] - start - 1}; its arc "
            f"{arc - graphs.arc_ptr[g]} goes from {graphs.sources[arc] - start} to "
            f"{graphs.targets[arc] - start}"
        )

    note(np.unique(owner[where]), says)


def _check_finite(features: np.ndarray, ptr: np.ndarray, name: str, note: _Note) -> None:
    rows = np.flatnonzero(~np.isfinite(features).all(axis=1))

    def says(g: int) -> str:
        row = rows[np.searchsorted(rows, ptr[g])]
        return f"expected finite {name}; its row {row - ptr[g]} is {features[row].tolist()}"

    note(np.unique(np.searchsorted(ptr, rows, side="right") - 1), says)


# ------------------------------------------------------------------------- from torch_geometric


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _numbers(graphs: list[int]) -> str:
    shown = ", ".join(map(str, graphs[:MOST_SHOWN]))
    more = f" and {len(graphs) - MOST_SHOWN} more" if len(graphs) > MOST_SHOWN else ""
    return f"graph {shown}{more}"


def _label(value: Any) -> Any:
    label = _array(value)
    if label.size != 1:
        message = (
            f"Expected one label y for each graph; got shape {label.shape}. Choose one of the "
            "tasks: data.y = data.y[:, k]."
        )
        raise InvalidInputError(message)
    return label.reshape(())[()]


def _of_all(graphs: list[Any], name: str, convert: Callable[[Any], Any]) -> list[Any] | None:
    """Return a value of each graph, or None where no graph has it."""
    values = [getattr(data, name, None) for data in graphs]
    missing = [g for g, value in enumerate(values) if value is None]
    if len(missing) == len(graphs):
        return None
    if missing:
        message = f"Expected {name} in each graph or in none; {_numbers(missing)} has none."
        raise InvalidInputError(message)
    return [convert(value) for value in values]


def _joined(graphs: list[Any], name: str, counts: np.ndarray) -> np.ndarray:
    """Return the features of all graphs in one array, with no columns where there are none."""
    parts = _of_all(graphs, name, _array)
    if parts is None:
        return np.empty((int(counts.sum()), 0), dtype=np.int64)
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    shape = (len(parts[0]), *parts[0].shape[1:])
    wrong = [g for g, part in enumerate(parts) if part.shape != (counts[g], *parts[0].shape[1:])]
    if wrong:
        g = wrong[0]
        expected = (int(counts[g]), *shape[1:])
        message = f"Expected {name} of shape {expected} in graph {g}; got {parts[g].shape}."
        raise InvalidInputError(message)
    return np.concatenate(parts)
