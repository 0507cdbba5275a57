"""Distilled graphs: weighted sets of trees by class, which train a network in place of the graphs.

Each set is a small forest. All forests share their subtrees, and are stored so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scikd._extras import require
from scikd._manifest import decode_labels, encode_labels
from scikd.exceptions import CorruptFileError
from scikd.persistence import load_bundle, save_bundle

from ._pointers import chosen, pointers, take_runs
from .graphset import GraphSet
from .preparation import Preparation
from .trees import TreeLevel, Trees, truncate

if TYPE_CHECKING:
    from .dag import MergedGraphs

__all__ = ["DistilledGraphs", "compact", "in_single_precision", "rounded_labels"]

KIND = "scikd.graphs.DistilledGraphs"
LABEL_STEPS = 255  # probabilities are stored in a byte each


@dataclass(frozen=True, slots=True, eq=False)
class DistilledGraphs:
    """Sets of trees, each with a class and a weight.

    Attributes
    ----------
    trees : Trees
        The distinct trees that the sets are made of, and nothing else.
    ptr : numpy.ndarray of shape (n_sets + 1,), int64
        The trees of set s are those from ``ptr[s]`` to ``ptr[s + 1]``.
    roots : numpy.ndarray of shape (n_entries,), int32
        Numbers of trees of depth ``trees.n_hops``.
    counts : numpy.ndarray of shape (n_entries,), int32
        How often the tree is in the set.
    y : numpy.ndarray of shape (n_sets,), int32
        Class of each set; places in ``classes``.
    weights : numpy.ndarray of shape (n_sets,), float64
        How many graphs the set stands for.
    classes : numpy.ndarray of shape (n_classes,)
        Labels, as they were in the data.
    preparation : Preparation
        What was done to the features of the graphs.
    provenance : dict
        Where it comes from: JSON values.
    soft_labels : numpy.ndarray of shape (n_sets, n_classes) or None
        Probabilities of the classes, multiples of 1/255: of how many graphs of each class hold the
        set, or of what teachers say (`scikd.graphs.committee`).
    supports : numpy.ndarray of shape (n_sets,), int64, or None
        How many graphs of its class hold each set, where known. Training does not need it, and it
        does not count as size.
    """

    trees: Trees
    ptr: np.ndarray
    roots: np.ndarray
    counts: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    classes: np.ndarray
    preparation: Preparation
    provenance: dict[str, Any] = field(default_factory=dict)
    soft_labels: np.ndarray | None = None
    supports: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return (
            f"DistilledGraphs({len(self)} sets of {self.trees.n_trees(self.n_hops)} trees, "
            f"{len(self.classes)} classes, {self.n_hops} hops, {self.n_bytes:,} bytes)"
        )

    @property
    def n_hops(self) -> int:
        """Depth of the trees: the most layers of a network that may be trained on them."""
        return self.trees.n_hops

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that training needs, each array in the smallest type that holds its values."""
        arrays = {
            "labels": self.trees.labels,
            "edge_labels": self.trees.edge_labels,
            "set_sizes": np.diff(self.ptr),
            "roots": self.roots,
            "counts": self.counts,
            "y": self.y,
            "weights": self.weights,
        }
        if self.trees.degrees is not None:
            arrays["degrees"] = self.trees.degrees
        if self.soft_labels is not None:
            arrays["soft_labels"] = np.rint(LABEL_STEPS * self.soft_labels)
        for depth, level in enumerate(self.trees.levels, 1):
            arrays |= {
                f"own.{depth}": level.own,
                f"sizes.{depth}": np.diff(level.ptr),
                f"child.{depth}": level.child,
                f"edge.{depth}": level.edge,
                f"count.{depth}": level.count,
            }
        return {name: compact(values) for name, values in arrays.items()}

    @property
    def n_bytes(self) -> int:
        """Size: the bytes of the `arrays`, without names, provenance and checksums."""
        return sum(values.nbytes for values in self.arrays.values())

    @property
    def n_elements(self) -> int:
        """Size as the paper counts it, with every tree of every set written out.

        One number per feature of a node, per feature of an arc, and for each end of an arc.
        """
        nodes = float((self.counts * self.trees.sizes()[-1][self.roots]).sum())
        arcs = nodes - float(self.counts.sum())
        return round(
            nodes * self.trees.labels.shape[1] + arcs * (2 + self.trees.edge_labels.shape[1])
        )

    def select(self, sets: Sequence[int] | np.ndarray) -> DistilledGraphs:
        """Return some of the sets, in the order asked for, with no tree that they do not need.

        Parameters
        ----------
        sets : array-like of int, or of bool
            Which, counted from 0, where negative ones count from the end; or True for each that is
            wanted, shape (n_sets,).

        Raises
        ------
        InvalidInputError
            If there is no set of that number.
        """
        rows = chosen(sets, len(self), "sets")
        entries, ptr = take_runs(self.ptr, rows)
        trees, roots = self.trees.restrict(self.roots[entries])
        return replace(
            self,
            trees=trees,
            ptr=ptr,
            roots=roots,
            counts=self.counts[entries],
            y=self.y[rows],
            weights=self.weights[rows],
            soft_labels=None if self.soft_labels is None else self.soft_labels[rows],
            supports=None if self.supports is None else self.supports[rows],
        )

    def truncate(self, n_hops: int) -> DistilledGraphs:
        """Return the same sets with trees of a smaller depth, for networks of fewer layers."""
        trees, roots = truncate(self.trees, self.roots, n_hops)
        return replace(self, trees=trees, roots=roots)

    def prepare(self, dataset: GraphSet | Iterable[Any]) -> GraphSet:
        """Do to other graphs what was done to those that were distilled.

        Parameters
        ----------
        dataset : GraphSet or torch_geometric data set
            Graphs to validate or test on.

        Returns
        -------
        GraphSet
            With the features that the trees have.
        """
        graphs = dataset if isinstance(dataset, GraphSet) else GraphSet.from_pyg(dataset)
        return self.preparation.apply(graphs)

    def merged(self) -> MergedGraphs:
        """Return the sets as one graph of their distinct trees, to train on."""
        from .dag import MergedGraphs  # noqa: PLC0415 - brings torch, which distilling does not need

        return MergedGraphs.from_trees(
            self.trees,
            self.ptr,
            self.roots,
            self.counts,
            self.y,
            self.weights,
            classes=self.classes,
        )

    def to_pyg(self) -> list[Any]:
        """Write out each set as a forest for torch_geometric.

        Returns
        -------
        list of torch_geometric.data.Data
            With ``x`` and, where arcs have features, ``edge_attr``; ``edge_index``, whose arcs go
            from child to parent; ``root_mask``, True for roots: pool these and no other nodes;
            ``y``, the place of the class in ``classes``; ``weight`` of the set in the loss;
            ``soft_label`` of shape (1, n_classes) where there are any.

        Raises
        ------
        MissingExtraError
            If torch_geometric is not installed.
        InvalidInputError
            If a tree is too large to be written out.
        """
        pyg = require("torch_geometric.data", extra="graphs", feature="Forests for PyG")
        torch = require("torch", extra="graphs", feature="Forests for PyG")
        unfolded = [self.trees.unfold(tree) for tree in range(self.trees.n_trees(self.n_hops))]
        forests = []
        for number in range(len(self)):
            entries = slice(self.ptr[number], self.ptr[number + 1])
            members = np.repeat(self.roots[entries], self.counts[entries])
            parts = [unfolded[tree] for tree in members]
            sizes = [len(part.labels) for part in parts]
            start = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
            parents = np.concatenate([part.parents for part in parts])
            below = np.flatnonzero(parents >= 0)
            data = pyg.Data(
                x=torch.tensor(self.trees.labels[np.concatenate([p.labels for p in parts])]),
                edge_index=torch.tensor(np.stack([below, (parents + start)[below]])),
                root_mask=torch.tensor(parents < 0),
                y=torch.tensor([int(self.y[number])]),
                weight=torch.tensor([self.weights[number]], dtype=torch.get_default_dtype()),
            )
            if self.trees.edge_labels.shape[1]:
                edges = np.concatenate([part.edges for part in parts])[below]
                data.edge_attr = torch.tensor(self.trees.edge_labels[edges])
            if self.soft_labels is not None:
                data.soft_label = torch.tensor(self.soft_labels[number : number + 1])
            forests.append(data)
        return forests

    def save(self, path: str | Path) -> Path:
        """Save as a bundle: a folder of a manifest and arrays, without pickle.

        Parameters
        ----------
        path : str or pathlib.Path
            Folder to make; an older bundle there is replaced as a whole.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        StorageError
            If it cannot be written; an older bundle stays as it was.
        """
        parameters = {
            "classes": encode_labels(self.classes),
            "self_loops": self.trees.self_loops,
            "n_hops": self.n_hops,
            "preparation": self.preparation.describe(),
            "provenance": self.provenance,
            "dtypes": [str(self.trees.labels.dtype), str(self.trees.edge_labels.dtype)],
        }
        arrays = self.arrays
        if self.supports is not None:
            arrays["supports"] = compact(self.supports)
        return save_bundle(path, kind=KIND, parameters=parameters, arrays=arrays)

    @classmethod
    def load(cls, path: str | Path) -> DistilledGraphs:
        """Load what `save` wrote.

        Parameters
        ----------
        path : str or pathlib.Path
            The folder.

        Returns
        -------
        DistilledGraphs
            Equal to what was saved.

        Raises
        ------
        StorageError, CorruptFileError, SchemaError
            If it is not there, was damaged, or a newer scikd wrote it.
        """
        bundle = load_bundle(path, kind=KIND)
        try:
            return _from_arrays(bundle.parameters, bundle.arrays)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            message = f"{path} does not hold distilled graphs: {error!r}. Distil them again."
            raise CorruptFileError(message) from error


def in_single_precision(values: np.ndarray) -> np.ndarray:
    """Return float64 values that four bytes hold without loss."""
    return values.astype(np.float32).astype(np.float64)


def rounded_labels(proba: np.ndarray) -> np.ndarray:
    """Round probabilities to multiples of 1/255 that add up to 1, so that a byte holds each.

    Parameters
    ----------
    proba : numpy.ndarray of shape (n, n_classes)
        Probabilities that add up to 1.

    Returns
    -------
    numpy.ndarray of shape (n, n_classes)
        What is left after rounding down goes to those with the largest remainders.
    """
    scaled = LABEL_STEPS * proba
    whole = np.floor(scaled + 1e-9)
    left = LABEL_STEPS - whole.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(whole - scaled, axis=1, kind="stable"), axis=1)
    return (whole + (rank < left)) / LABEL_STEPS


def compact(values: np.ndarray) -> np.ndarray:
    """Return an array in the smallest type that holds its values exactly."""
    if values.dtype.kind == "f":
        if not ((values == np.round(values)) & (np.abs(values) < 2.0**63)).all():
            with np.errstate(over="ignore"):  # what is too large for it is not equal
                single = values.astype(np.float32)
            return single if (single == values).all() else values
        values = values.astype(np.int64)
    if values.size == 0:
        return values.astype(np.uint8)
    low, high = int(values.min()), int(values.max())
    # Signed types reach from -high - 1 to high.
    return values.astype(np.min_scalar_type(high if low >= 0 else min(low, -high - 1)))


def _from_arrays(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> DistilledGraphs:
    def numbers(name: str) -> np.ndarray:
        return arrays[name].astype(np.int32)

    levels = tuple(
        TreeLevel(
            own=numbers(f"own.{depth}"),
            ptr=pointers(arrays[f"sizes.{depth}"]),
            child=numbers(f"child.{depth}"),
            edge=numbers(f"edge.{depth}"),
            count=numbers(f"count.{depth}"),
        )
        for depth in range(1, parameters["n_hops"] + 1)
    )
    label_type, edge_type = parameters["dtypes"]
    trees = Trees(
        labels=arrays["labels"].astype(label_type),
        edge_labels=arrays["edge_labels"].astype(edge_type),
        levels=levels,
        degrees=arrays["degrees"].astype(np.int64) if "degrees" in arrays else None,
        self_loops=parameters["self_loops"],
    )
    return DistilledGraphs(
        trees=trees,
        ptr=pointers(arrays["set_sizes"]),
        roots=numbers("roots"),
        counts=numbers("counts"),
        y=numbers("y"),
        weights=arrays["weights"].astype(np.float64),
        classes=decode_labels(parameters["classes"]),
        preparation=Preparation.rebuild(parameters["preparation"]),
        provenance=parameters["provenance"],
        soft_labels=arrays["soft_labels"] / LABEL_STEPS if "soft_labels" in arrays else None,
        supports=arrays["supports"].astype(np.int64) if "supports" in arrays else None,
    )
