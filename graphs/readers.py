"""Files of labelled graphs: the text and folder layouts of TU Dortmund, OGB's folders, SMILES.

Nothing here downloads anything: give the path of what is there. `read_graphs` tells the layout.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from scikd._atomic import storage_error
from scikd.exceptions import InvalidInputError

from ._edges import from_edges
from ._files import BROKEN, checked, existing, garbled, read_csv, read_table, whole_numbers
from ._pointers import pointers
from .graphset import GraphSet
from .molecules import SPLITS, molecule_graphs

__all__ = [
    "random_split",
    "read_graphs",
    "read_ogb",
    "read_ogb_split",
    "read_smiles",
    "read_tu",
    "read_tu_text",
]

MOST_FIELDS = 8  # of a faulty line, in a message
LAYOUTS = (
    ".txt or .zip (graphs as text), .csv or .csv.gz (SMILES), a folder with *_A.txt (TU Dortmund), "
    "or a folder with raw/ and split/ (OGB)"
)


def read_graphs(path: str | Path) -> GraphSet:
    """Read labelled graphs, in the layout that is found there.

    Parameters
    ----------
    path : str or pathlib.Path
        A text file or a zip holding one (`read_tu_text`), a table of SMILES (`read_smiles`), or a
        folder in the layout of TU Dortmund (`read_tu`) or of OGB (`read_ogb`).

    Raises
    ------
    StorageError
        If there is nothing at the path, or it cannot be read.
    CorruptFileError
        If it is cut short or garbled.
    InvalidInputError
        If it is none of these.
    """
    path = existing(path)
    if path.is_dir():
        for folder in (path, path / "raw"):
            if any(folder.glob("*_A.txt")):
                return read_tu(folder)
        if (path / "raw" / "num-node-list.csv.gz").is_file():
            return read_ogb(path)
    elif path.suffix.lower() in {".txt", ".zip"}:
        return read_tu_text(path)
    elif path.name.lower().endswith((".csv", ".csv.gz")):
        return read_smiles(path)
    raise InvalidInputError(f"Expected {LAYOUTS}; got {path}, which is none of these.")


# ------------------------------------------------------------------------------- graphs as text


def read_tu_text(path: str | Path) -> GraphSet:
    """Read graphs from one text file, the layout of DGCNN and others.

    Its first line is the number of graphs. Each graph is a line ``n label`` and n lines
    ``tag degree neighbour neighbour ...``, neighbours counted from 0; numbers that follow are
    attributes of the node.

    Parameters
    ----------
    path : str or pathlib.Path
        A ``.txt``, or a ``.zip`` of which the first ``.txt`` with graphs is taken.

    Returns
    -------
    GraphSet
        ``node_features`` is the tag, int64; with attributes, tag and attributes, float64. Each line
        gives the arcs from its node to its neighbours.

    Raises
    ------
    StorageError
        If the file is not there or cannot be read.
    CorruptFileError
        If it is cut short or garbled; the message names the line.
    """
    path = existing(path)
    text = _zipped_text(path) if path.suffix.lower() == ".zip" else _text(path)
    rows = [fields for line in text.splitlines() if (fields := line.split())]
    lengths = np.array([len(fields) for fields in rows])
    try:
        values = np.array(list(chain.from_iterable(rows)), dtype=np.float64)
    except ValueError as error:
        raise garbled(path, error) from error
    starts = pointers(lengths)
    sizes, labels, nodes = _headers(path, values, starts, lengths)
    degrees = whole_numbers(values[starts[nodes] + 1], path, "degrees")
    extra = lengths[nodes] - 2 - degrees
    wrong = np.flatnonzero((degrees < 0) | (extra != extra[0]) | (extra < 0))
    if len(wrong):
        row = nodes[wrong[0]]
        message = (
            f"line {row + 1} should hold a tag, a degree, as many neighbours, and as many "
            f"attributes as the first node has; it holds {' '.join(rows[row][:MOST_FIELDS])}"
        )
        raise garbled(path, message)
    node_ptr = pointers(sizes)
    arc_of = np.repeat(np.arange(len(nodes)), degrees)
    within = np.arange(len(arc_of)) - np.repeat(pointers(degrees)[:-1], degrees)
    neighbours = whole_numbers(values[starts[nodes][arc_of] + 2 + within], path, "neighbours")
    first = np.repeat(node_ptr[:-1], sizes)
    tags = whole_numbers(values[starts[nodes]], path, "tags")[:, None]
    attributes = values[(starts[nodes] + 2 + degrees)[:, None] + np.arange(extra[0])]
    return checked(
        path,
        GraphSet,
        node_ptr,
        pointers(degrees)[node_ptr],
        arc_of,
        neighbours + first[arc_of],
        np.hstack([tags, attributes]) if extra[0] else tags,
        np.empty((len(arc_of), 0), dtype=np.int64),
        y=labels,
        name=path.stem,
    )


def _headers(
    path: Path, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sizes of the graphs, their labels, and the lines of their nodes."""
    if not len(lengths) or lengths[0] != 1:
        raise garbled(path, "the first line should hold the number of graphs alone")
    headers: list[int] = []
    n_graphs, row = int(whole_numbers(values[:1], path, "number of graphs")[0]), 1
    while len(headers) < n_graphs:
        if row >= len(lengths):
            message = f"{n_graphs} graphs are announced; it ends after {len(headers)}"
            raise garbled(path, message)
        if lengths[row] != 2 or not (size := values[starts[row]]).is_integer() or size < 1:
            message = (
                f"line {row + 1} should begin graph {len(headers)} with its number of nodes and its"
                f" label; it holds {values[starts[row] : starts[row + 1]].tolist()[:MOST_FIELDS]}"
            )
            raise garbled(path, message)
        headers.append(row)
        row += 1 + int(size)
    if row != len(lengths):
        message = f"{n_graphs} graphs on {row} lines are announced; there are {len(lengths)} lines"
        raise garbled(path, message)
    if not headers:
        raise garbled(path, "there are no graphs in it")
    is_node = np.ones(len(lengths), dtype=bool)
    is_node[[0, *headers]] = False
    sizes = values[starts[headers]].astype(np.int64)
    return (
        sizes,
        whole_numbers(values[starts[headers] + 1], path, "labels"),
        np.flatnonzero(is_node),
    )


def _zipped_text(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.lower().endswith(".txt") and not Path(name).name.startswith("."):
                    text = archive.read(name).decode("utf-8")
                    lines = text.split("\n", 2)  # lists of indices hold one number in each line
                    if len(lines) > 1 and len(lines[0].split()) < len(lines[1].split()):
                        return text
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except BROKEN as error:
        raise garbled(path, error) from error
    raise garbled(path, "there is no .txt with graphs in it")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except BROKEN as error:
        raise garbled(path, error) from error


# ---------------------------------------------------------------------------- folders of tables


def read_tu(folder: str | Path, name: str | None = None) -> GraphSet:
    """Read graphs from a folder in the layout of TU Dortmund's collection.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds ``NAME_A.txt``, ``NAME_graph_indicator.txt`` and ``NAME_graph_labels.txt``; also
        ``NAME_node_labels.txt``, ``NAME_node_attributes.txt`` and the same of edges, where there.
    name : str, optional
        NAME; needed where the folder holds several sets.

    Returns
    -------
    GraphSet
        Labels of nodes, then their attributes, are the columns of ``node_features``; the same of
        edges. Arcs are those of the file, in its order within each graph.

    Raises
    ------
    StorageError
        If a file is not there or cannot be read.
    CorruptFileError
        If one is cut short or garbled, or they do not fit together.
    InvalidInputError
        If there are several sets, and none is named.
    """
    folder = existing(folder)
    found = sorted(file.name.removesuffix("_A.txt") for file in folder.glob("*_A.txt"))
    if name is None:
        if len(found) > 1:
            raise InvalidInputError(f"Expected name= to be one of {', '.join(found)}; got none.")
        name = found[0] if found else folder.name
    stem = folder / name
    arcs, y = read_table(Path(f"{stem}_A.txt")) - 1, read_table(Path(f"{stem}_graph_labels.txt"))
    graph = read_table(Path(f"{stem}_graph_indicator.txt"))[:, 0] - 1
    n_graphs = len(y)
    problems: list[str] = []
    nodes = _tu_features(stem, "node", len(graph), problems)
    edges = _tu_features(stem, "edge", len(arcs), problems)
    if arcs.shape[1] != 2 or arcs.min() < 0 or arcs.max() >= len(graph):
        problems.append(f"{name}_A.txt should hold pairs of nodes from 1 to {len(graph)}")
    if y.shape[1] != 1:
        problems.append(f"{name}_graph_labels.txt should hold one label in each line")
    if graph[0] < 0 or graph[-1] >= n_graphs or (np.diff(graph) < 0).any():
        problems.append(
            f"{name}_graph_indicator.txt should ascend from 1 to {n_graphs}, the number of labels"
        )
    if problems:
        raise garbled(folder, "; ".join(problems))
    owner = graph[arcs[:, 0]]
    order = np.argsort(owner, kind="stable")
    return checked(
        folder,
        GraphSet,
        pointers(np.bincount(graph, minlength=n_graphs)),
        pointers(np.bincount(owner, minlength=n_graphs)),
        *arcs[order].T,
        np.hstack(nodes),
        np.hstack(edges)[order],
        y=y[:, 0],
        name=name,
    )


def _tu_features(stem: Path, of: str, rows: int, problems: list[str]) -> list[np.ndarray]:
    """Return labels and attributes of nodes or edges, and note where lines are missing."""
    parts = [np.empty((rows, 0), dtype=np.int64)]
    for what in ("labels", "attributes"):
        path = Path(f"{stem}_{of}_{what}.txt")
        if path.is_file():
            parts.append(read_table(path, whole=what == "labels"))
            if len(parts[-1]) != rows:
                problems.append(f"{path.name} has {len(parts[-1])} lines instead of {rows}")
    return parts


def read_ogb(folder: str | Path, *, task: int | None = None, undirected: bool = True) -> GraphSet:
    """Read graphs from a folder in the layout of the Open Graph Benchmark's raw files.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds ``raw/`` with ``num-node-list``, ``num-edge-list``, ``edge``, ``graph-label``, and
        ``node-feat`` and ``edge-feat`` where there are features, all ``.csv.gz``. The SMILES of
        molecules are taken from ``mapping/mol.csv.gz`` where it is there.
    task : int, optional
        Which column of the labels, counted from 0; needed where there are several.
    undirected : bool, default=True
        Whether each edge was written once and becomes two arcs, one after the other, as in all of
        OGB's molecules; False takes the edges as arcs.

    Raises
    ------
    StorageError
        If a file is not there or cannot be read.
    CorruptFileError
        If one is cut short or garbled, or they do not fit together.
    InvalidInputError
        If there are several tasks and none is chosen, or not that many.
    """
    folder = existing(folder)
    raw = folder / "raw"
    sizes, counts = (read_table(raw / f"num-{of}-list.csv.gz")[:, 0] for of in ("node", "edge"))
    edges = read_table(raw / "edge.csv.gz")
    y = _one_task(read_table(raw / "graph-label.csv.gz", whole=False), task, folder)
    features = {}
    for of, rows in (("node", int(sizes.sum())), ("edge", int(counts.sum()))):
        path = raw / f"{of}-feat.csv.gz"
        features[of] = (
            read_table(path, whole=False) if path.is_file() else np.empty((rows, 0), dtype=np.int64)
        )
    expected = {
        "num-edge-list": (len(counts), len(sizes)),
        "graph-label": (len(y), len(sizes)),
        "edge": (len(edges), int(counts.sum())),
        "node-feat": (len(features["node"]), int(sizes.sum())),
        "edge-feat": (len(features["edge"]), int(counts.sum())),
    }
    smiles = _smiles_of(folder / "mapping" / "mol.csv.gz")
    if smiles is not None:
        expected["mapping/mol"] = (len(smiles), len(sizes))
    problems = [
        f"{name}.csv.gz has {rows} lines instead of {right}"
        for name, (rows, right) in expected.items()
        if rows != right
    ]
    if min(sizes.min(), counts.min()) < 0:
        problems.append(
            "num-node-list.csv.gz and num-edge-list.csv.gz should hold no number below 0"
        )
    if edges.shape[1] != 2:
        problems.append(f"edge.csv.gz should hold pairs of nodes; it has {edges.shape[1]} columns")
    if problems:
        raise garbled(folder, "; ".join(problems))
    return checked(
        folder,
        from_edges,
        sizes,
        counts,
        edges,
        features["node"],
        features["edge"],
        both_ways=undirected,
        y=y,
        name=folder.name,
        smiles=smiles,
    )


def read_ogb_split(folder: str | Path, split: str | None = None) -> dict[str, np.ndarray]:
    """Read the split that comes with a data set of the Open Graph Benchmark.

    Parameters
    ----------
    folder : str or pathlib.Path
        As for `read_ogb`; holds ``split/SPLIT/`` with ``train``, ``valid`` and ``test``
        ``.csv.gz``.
    split : str, optional
        SPLIT, such as ``"scaffold"``; needed where there are several.

    Returns
    -------
    dict of str to numpy.ndarray
        Numbers of the graphs of ``"train"``, ``"valid"`` and ``"test"``, int64.

    Raises
    ------
    StorageError
        If a file is not there or cannot be read.
    CorruptFileError
        If one is cut short or garbled, or a graph is in two parts.
    InvalidInputError
        If there are several splits and none is named.
    """
    folder = existing(folder)
    if split is None:
        found = sorted(path.name for path in (folder / "split").glob("*") if path.is_dir())
        if len(found) != 1:
            raise InvalidInputError(
                f"Expected split= to be one of {', '.join(found) or 'none'}, the folders in "
                f"{folder / 'split'}; got none."
            )
        split = found[0]
    parts = {part: read_table(folder / "split" / split / f"{part}.csv.gz")[:, 0] for part in SPLITS}
    n_graphs = len(read_table(folder / "raw" / "num-node-list.csv.gz"))
    every = np.concatenate(list(parts.values()))
    if every.min() < 0 or every.max() >= n_graphs or len(np.unique(every)) < len(every):
        message = f"each graph from 0 to {n_graphs - 1} should be in one part of {split!r} at most"
        raise garbled(folder, message)
    return parts


def _one_task(labels: np.ndarray, task: int | None, folder: Path) -> np.ndarray:
    n_tasks = labels.shape[1]
    if (task is None and n_tasks != 1) or (task is not None and not 0 <= task < n_tasks):
        raise InvalidInputError(
            f"Expected task= from 0 to {n_tasks - 1}, one of the {n_tasks} columns of labels in "
            f"{folder}; got {task}."
        )
    y = labels[:, task or 0]
    known = y[~np.isnan(y)]
    return y.astype(np.int64) if len(known) == len(y) and (np.rint(y) == y).all() else y


def _smiles_of(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    table = read_csv(path, usecols=["smiles"], dtype=str, keep_default_na=False)
    return tuple(table["smiles"].tolist())


# -------------------------------------------------------------------------------------- SMILES


def read_smiles(path: str | Path, *, smiles: str = "auto", label: str | None = None) -> GraphSet:
    """Read molecules from a table of SMILES, with the features of OGB.

    Rows whose SMILES RDKit cannot read are left out, and a log line says how many.

    Parameters
    ----------
    path : str or pathlib.Path
        A ``.csv`` or ``.csv.gz`` with a line of names.
    smiles : str, default="auto"
        Name of the column of SMILES; "auto" takes the one that is called ``smiles`` in small or
        large letters.
    label : str, optional
        Name of the column of labels; by default the only other one, and none where there is none.

    Returns
    -------
    GraphSet
        ``y`` is int64 where all labels are whole numbers; a label that is not there is NaN.

    Raises
    ------
    StorageError
        If the file is not there or cannot be read.
    CorruptFileError
        If it is cut short or garbled.
    InvalidInputError
        If the columns are not there, several could be the labels, or no row can be read.
    MissingExtraError
        If RDKit is not installed.
    """
    path = existing(path)
    table = read_csv(path)
    names = list(table.columns)
    if smiles == "auto":
        smiles = next((name for name in names if str(name).lower() == "smiles"), smiles)
    if label is None and len(names) == 2:
        label = next((name for name in names if name != smiles), None)
    if smiles == "auto":
        message = (
            f"Expected a column called smiles in {path}; its columns, parted by commas, are "
            f"{', '.join(map(str, names))}. Rename the one with SMILES, or name it: smiles=."
        )
        raise InvalidInputError(message)
    if smiles not in names or (label is None and len(names) > 1) or label not in {None, *names}:
        raise InvalidInputError(
            f"Expected smiles= and label= to be two of the columns {', '.join(map(str, names))} of "
            f"{path}; got {smiles!r} and {label!r}."
        )
    y = None if label is None else table[label].to_numpy()
    texts = table[smiles].astype(object).tolist()
    return molecule_graphs(texts, y, name=path.name.split(".")[0], unreadable="drop")


# -------------------------------------------------------------------------------------- splits


def random_split(
    y: np.ndarray, seed: int, fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> dict[str, np.ndarray]:
    """Split graphs at random, each class in the same shares.

    Parameters
    ----------
    y : array-like of shape (n_graphs,)
        Labels of classes.
    seed : int
        The same seed gives the same split.
    fractions : sequence of float, default=(0.8, 0.1, 0.1)
        Of training, validation and test; they sum to 1.

    Returns
    -------
    dict of str to numpy.ndarray
        Numbers of the graphs of ``"train"``, ``"valid"`` and ``"test"``, ascending, int64. Each
        graph is in one of them.

    Raises
    ------
    InvalidInputError
        If the fractions are not three shares, or a label is missing.
    """
    labels = np.asarray(y)
    if labels.ndim != 1 or pd.isna(labels).any():
        message = f"Expected a label of each graph, shape (n_graphs,); got {labels.shape} or NaN."
        raise InvalidInputError(message)
    if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise InvalidInputError(f"Expected three fractions that sum to 1; got {fractions}.")
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for value in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == value))
        cuts = np.rint(np.cumsum(fractions)[:2] * len(members)).astype(int)
        for name, part in zip(SPLITS, np.split(members, cuts), strict=True):
            parts[name].append(part)
    none = np.empty(0, dtype=np.int64)
    return {name: np.sort(np.concatenate([none, *found])) for name, found in parts.items()}
