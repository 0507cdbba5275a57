"""A data set by its path or name, and which of its graphs are for training."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from scikd.exceptions import InvalidInputError

from .graphset import GraphSet
from .molecules import load_molecules, load_molecules_split
from .readers import random_split, read_graphs, read_ogb, read_ogb_split, read_smiles

__all__ = ["SHIPPED", "Dataset", "open_dataset"]

logger = logging.getLogger(__name__)

SHIPPED = "small-molecules"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Graphs with labels, in parts.

    Attributes
    ----------
    graphs : GraphSet
        All of them.
    parts : dict of str to numpy.ndarray
        Numbers of graphs that have a label: of ``"train"``, and of ``"valid"`` and ``"test"`` where
        there is a split.
    split : str
        Which split it is, in words; empty where there is none.
    """

    graphs: GraphSet
    parts: dict[str, np.ndarray]
    split: str

    def part(self, name: str) -> GraphSet:
        """Return the graphs of a part."""
        part = self.graphs.select(self.parts[name])
        y = part.y
        if y is not None and y.dtype.kind == "f" and (np.rint(y) == y).all():
            return replace(part, y=y.astype(np.int64))  # they were floats for want of a NaN
        return part

    def describe(self, name: str) -> str:
        """Return in words which graphs are in a part."""
        number = len(self.parts[name])
        graphs = f"{number:,} graph{'s' * (number != 1)}"
        return (
            f"the {graphs} of the part {name!r} of {self.split}" if self.split else f"all {graphs}"
        )


def open_dataset(
    dataset: str,
    *,
    split: str = "auto",
    seed: int = 0,
    label: str | None = None,
    smiles: str | None = None,
) -> Dataset:
    """Read graphs, and split them.

    Parameters
    ----------
    dataset : str
        A path, as for `scikd.graphs.readers.read_graphs`, or "small-molecules".
    split : str, default="auto"
        "auto" takes the split that comes with the data, and none where none does; "all" takes
        none; "random" takes 80, 10 and 10 percent of each class; or the name of a split of OGB.
    seed : int, default=0
        Of a random split.
    label : str or None, default=None
        Which labels, where there are several: the column of a table, or the number of a task of
        OGB.
    smiles : str or None, default=None
        The column of SMILES of a table, where it is not called so.

    Raises
    ------
    StorageError, CorruptFileError
        If the data cannot be read.
    InvalidInputError
        If they have no such split, labels or classes.
    """
    table = dataset.lower().endswith((".csv", ".csv.gz"))
    if smiles is not None and not table:
        message = f"Expected --smiles with a table of SMILES; got {smiles!r} with {dataset}."
        raise InvalidInputError(message)
    if dataset == SHIPPED:
        graphs = load_molecules()
    elif table:
        graphs = _read_table(Path(dataset), smiles, label)
    else:
        graphs = _read(Path(dataset), label)
    if graphs.y is None:
        raise InvalidInputError(f"Expected labels of classes in {dataset}; there are none.")
    known = np.flatnonzero(~pd.isna(graphs.y))
    if len(known) < len(graphs):
        left_out = len(graphs) - len(known)
        logger.warning("%d of %d graphs have no label and are left out", left_out, len(graphs))
    if split == "random":
        parts = random_split(graphs.y[known], seed)
        parts = {name: known[members] for name, members in parts.items()}
        return Dataset(graphs, parts, f"a random split with seed {seed}")
    parts, name = ({}, "") if split == "all" else _own_split(dataset, split)
    if not parts:
        return Dataset(graphs, {"train": known}, "")
    parts = {part: members[np.isin(members, known)] for part, members in parts.items()}
    return Dataset(graphs, parts, name)


def _own_split(dataset: str, split: str) -> tuple[dict[str, np.ndarray], str]:
    if dataset == SHIPPED and split == "auto":
        return load_molecules_split(), "the split that comes with it"
    folder = Path(dataset) / "split"
    found = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if split == "auto":
        if not found:
            return {}, ""
        split = found[0] if len(found) == 1 else split
    if split not in found:
        names = ", ".join(["auto", "all", "random", *found])
        raise InvalidInputError(f"Expected --split to be one of {names}; got {split!r}.")
    return read_ogb_split(dataset, split), f"the split {split!r}"


def _read_table(path: Path, smiles: str | None, label: str | None) -> GraphSet:
    try:
        return read_smiles(path, smiles="auto" if smiles is None else smiles, label=label)
    except InvalidInputError as error:
        if "smiles=" in str(error):
            raise InvalidInputError(f"{error} Say which by --smiles and --label.") from error
        raise


def _read(path: Path, label: str | None) -> GraphSet:
    if label is None:
        try:
            return read_graphs(path)
        except InvalidInputError as error:
            if "task=" in str(error):
                raise InvalidInputError(f"{error} Say which by --label.") from error
            raise
    if not (path / "raw" / "num-node-list.csv.gz").is_file() or not label.isdecimal():
        message = (
            "Expected --label with a table of SMILES (a name of a column) or a folder of OGB (the "
            f"number of a task, from 0); got {label!r} with {path}."
        )
        raise InvalidInputError(message)
    return read_ogb(path, task=int(label))
