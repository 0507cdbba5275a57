"""Files of graphs: each layout says what was written, and a damaged file is said to be one."""

from __future__ import annotations

import gzip
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError
from scikd.graphs import GraphSet
from scikd.graphs.readers import (
    random_split,
    read_graphs,
    read_ogb,
    read_ogb_split,
    read_smiles,
    read_tu,
    read_tu_text,
)

# A triangle with tags 5, 6, 7 (label 1) and two bound nodes with tag 5 (label -1).
TEXT = """2
3 1
5 2 1 2
6 2 0 2
7 2 0 1
2 -1
5 1 1
5 1 0
"""
TU = {
    "A": "1, 2\n2, 1\n4, 5\n2, 3\n3, 2\n1, 3\n3, 1\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n",
    "graph_labels": "1\n-1\n",
    "node_labels": "5\n6\n7\n5\n5\n",
}
OGB = {
    "raw/num-node-list": "3\n2\n",
    "raw/num-edge-list": "3\n1\n",
    "raw/edge": "0,1\n0,2\n1,2\n0,1\n",
    "raw/node-feat": "5\n6\n7\n5\n5\n",
    "raw/edge-feat": "1,0\n2,0\n3,1\n4,1\n",
    "raw/graph-label": "1\n-1\n",
    "split/scaffold/train": "1\n",
    "split/scaffold/valid": "0\n",
    "split/scaffold/test": "2\n",
}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def tu_folder(tmp_path):
    for what, content in TU.items():
        (tmp_path / f"two_{what}.txt").write_text(content)
    return tmp_path


def write_gz(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode(), mtime=0))


@pytest.fixture
def ogb_folder(tmp_path):
    for what, content in OGB.items():
        write_gz(tmp_path / "ogbg_two" / f"{what}.csv.gz", content)
    return tmp_path / "ogbg_two"


def arcs(graphs, g):
    """Return the arcs of one graph, numbered within it, as a sorted list."""
    chosen = slice(graphs.arc_ptr[g], graphs.arc_ptr[g + 1])
    first = graphs.node_ptr[g]
    pairs = zip(graphs.sources[chosen] - first, graphs.targets[chosen] - first, strict=True)
    return sorted((int(a), int(b)) for a, b in pairs)


def assert_the_two_graphs(graphs, name):
    assert len(graphs) == 2
    assert arcs(graphs, 0) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert arcs(graphs, 1) == [(0, 1), (1, 0)]
    assert graphs.node_features.tolist() == [[5], [6], [7], [5], [5]]
    assert graphs.node_features.dtype == np.int64
    assert graphs.y.tolist() == [1, -1]
    assert graphs.y.dtype == np.int64
    assert graphs.name == name


@st.composite
def simple_graphs(draw):
    """Draw undirected graphs: of each the tags, the edges (lower end first) and the label."""
    graphs = []
    for _ in range(draw(st.integers(1, 5))):
        tags = draw(st.lists(st.integers(-3, 40), min_size=1, max_size=6))
        pairs = [(a, b) for b in range(len(tags)) for a in range(b)]
        edges = [pair for pair in pairs if draw(st.booleans())]
        graphs.append((tags, edges, draw(st.integers(-1, 3))))
    return graphs


@given(simple_graphs())
def test_every_layout_gives_back_what_was_written(tmp_path_factory, graphs):
    folder = tmp_path_factory.mktemp("written")
    text = [str(len(graphs))]
    table = {what: [] for what in TU}
    ogb = {
        what: [] for what in ("num-node-list", "num-edge-list", "edge", "node-feat", "graph-label")
    }
    n = 0
    for g, (tags, edges, label) in enumerate(graphs):
        both = sorted([*edges, *((b, a) for a, b in edges)])
        near = [[b for a, b in both if a == v] for v in range(len(tags))]
        text.append(f"{len(tags)} {label}")
        text += [" ".join(map(str, [t, len(u), *u])) for t, u in zip(tags, near, strict=True)]
        table["A"] += [f"{a + n + 1}, {b + n + 1}" for a, b in both]
        table["graph_indicator"] += [g + 1] * len(tags)
        table["graph_labels"].append(label)
        table["node_labels"] += tags
        ogb["num-node-list"].append(len(tags))
        ogb["num-edge-list"].append(len(edges))
        ogb["edge"] += [f"{a},{b}" for a, b in edges]
        ogb["node-feat"] += tags
        ogb["graph-label"].append(label)
        n += len(tags)
    (folder / "all.txt").write_text("\n".join(text))
    found = [read_graphs(folder / "all.txt")]
    if table["A"]:  # a table without lines cannot be told from one that was lost
        for what, lines in table.items():
            (folder / f"all_{what}.txt").write_text("".join(f"{line}\n" for line in lines))
        for what, lines in ogb.items():
            write_gz(folder / "ogb" / "raw" / f"{what}.csv.gz", "".join(f"{x}\n" for x in lines))
        found += [read_graphs(folder), read_graphs(folder / "ogb")]
    for read in found:
        assert np.diff(read.node_ptr).tolist() == [len(tags) for tags, _, _ in graphs]
        assert read.node_features[:, 0].tolist() == [tag for tags, _, _ in graphs for tag in tags]
        assert read.y.tolist() == [label for _, _, label in graphs]
        for g, (_, edges, _) in enumerate(graphs):
            assert arcs(read, g) == sorted([*edges, *((b, a) for a, b in edges)])


# ------------------------------------------------------------------------------- graphs as text


def test_text_is_read(text_file):
    graphs = read_tu_text(text_file)
    assert_the_two_graphs(graphs, "two")
    assert graphs.edge_features.shape == (8, 0)


def test_lines_may_end_as_they_like(text_file):
    text_file.write_bytes(TEXT.replace("\n", " \r\n").rstrip().encode() + b"\n\n")
    assert_the_two_graphs(read_tu_text(text_file), "two")


def test_attributes_follow_the_tag(text_file):
    lines = TEXT.splitlines()
    for row in (2, 3, 4, 6, 7):
        lines[row] += f" {row / 8} 1e3"
    text_file.write_text("\n".join(lines))
    graphs = read_tu_text(text_file)
    expected = [[5, 0.25, 1e3], [6, 0.375, 1e3], [7, 0.5, 1e3], [5, 0.75, 1e3], [5, 0.875, 1e3]]
    assert graphs.node_features.tolist() == expected
    assert arcs(graphs, 1) == [(0, 1), (1, 0)]


def test_the_first_text_with_graphs_is_taken_from_a_zip(tmp_path):
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("two/10fold_idx/test_idx-1.txt", "3\n4\n")
        archive.writestr("__MACOSX/._two.txt", "2 2\n")
        archive.writestr("two/two.txt", TEXT)
    assert_the_two_graphs(read_tu_text(path), "two")


def test_a_zip_that_holds_no_graphs_or_is_cut_is_refused(tmp_path):
    path = tmp_path / "none.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("index.txt", "3\n4\n")
        archive.writestr("two.csv", TEXT)
    with pytest.raises(CorruptFileError, match=r"no .txt with graphs"):
        read_tu_text(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptFileError, match=r"none.zip: .* copy it again"):
        read_tu_text(path)


@pytest.mark.parametrize("lines", [1, 2, 3, 4, 6, 7])
def test_a_text_that_ends_early_is_refused(text_file, lines):
    text_file.write_text("\n".join(TEXT.splitlines()[:lines]))
    with pytest.raises(CorruptFileError, match=r"two.txt: .*(ends after|are announced)"):
        read_tu_text(text_file)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("2\n3 1\n", "3 1\n", "first line should hold the number of graphs alone"),
        ("2\n3", "1\n3", "1 graphs on 5 lines are announced; there are 8"),
        ("2\n3", "1.5\n3", "number of graphs should be whole"),
        ("2\n3", "nan\n3", "number of graphs should be whole"),
        ("3 1\n", "3.5 1\n", "line 2 should begin graph 0"),
        ("3 1\n", "inf 1\n", "line 2 should begin graph 0"),
        ("3 1\n", "0 1\n", "line 2 should begin graph 0"),
        ("3 1\n", "2 1\n", "line 5 should begin graph 1 .*; it holds .7.0, 2.0, 0.0, 1.0"),
        ("3 1\n", "3 0.5\n", "labels should be whole numbers; there is 0.5"),
        ("3 1\n", "3 inf\n", "labels should be whole numbers; there is inf"),
        ("6 2 0 2", "6 2 0", "line 4 should hold a tag, a degree, .* holds 6 2 0"),
        ("6 2 0 2", "6 -2 0 2", "line 4 should hold"),
        ("6 2 0 2", "6 2 0 3", "graph 0: expected arcs between its nodes 0 to 2"),
        ("6 2 0 2", "6 2 0 1.5", "neighbours should be whole numbers"),
        ("6 2 0 2", "C 2 0 2", "could not convert string to float: 'C'"),
        ("6 2 0 2", "6.5 2 0 2", "tags should be whole numbers; there is 6.5"),
    ],
)
def test_a_garbled_text_is_refused(text_file, old, new, says):
    text_file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(CorruptFileError, match=says):
        read_tu_text(text_file)


@pytest.mark.parametrize("content", [b"", b"\n", b"0\n", b"\xff\xfe\x00"])
def test_what_holds_no_text_or_graphs_is_refused(text_file, content):
    text_file.write_bytes(content)
    with pytest.raises(CorruptFileError, match="two.txt"):
        read_tu_text(text_file)


# ---------------------------------------------------------------------------- folders of tables


def test_a_tu_folder_is_read(tu_folder):
    graphs = read_tu(tu_folder)
    assert_the_two_graphs(graphs, "two")
    assert graphs.edge_features.shape == (8, 0)
    assert_the_two_graphs(read_tu(tu_folder, "two"), "two")


def test_labels_and_attributes_of_nodes_and_edges_keep_their_order(tu_folder):
    (tu_folder / "two_node_attributes.txt").write_text("0.5, 1\n1.5, 2\n2.5, 3\n3.5, 4\n4.5, 5\n")
    (tu_folder / "two_edge_labels.txt").write_text("12\n21\n45\n23\n32\n13\n31\n54\n")
    graphs = read_tu(tu_folder)
    expected = [[5, 0.5, 1], [6, 1.5, 2], [7, 2.5, 3], [5, 3.5, 4], [5, 4.5, 5]]
    assert graphs.node_features.tolist() == expected
    assert graphs.edge_features.dtype == np.int64
    # Each edge was labelled by the numbers of its nodes in the file.
    ends = 10 * (graphs.sources + 1) + graphs.targets + 1
    np.testing.assert_array_equal(graphs.edge_features[:, 0], ends)


def test_nodes_need_no_labels(tu_folder):
    (tu_folder / "two_node_labels.txt").unlink()
    assert read_tu(tu_folder).node_features.shape == (5, 0)


@pytest.mark.parametrize(
    ("what", "content", "says"),
    [
        ("A", "1, 2\n2, 6\n", "two_A.txt should hold pairs of nodes from 1 to 5"),
        ("A", "0, 2\n2, 1\n", "two_A.txt should hold pairs"),
        ("A", "1, 2\n2,", "entries should be whole numbers; there is nan"),
        ("A", "1\n2\n", "two_A.txt should hold pairs"),
        ("A", "1, 2\n2, 1, 3\n", "Expected 2 fields in line 2"),
        ("A", "1, 4\n", "graph 0: expected arcs between its nodes 0 to 2"),
        ("A", "", "No columns to parse"),
        ("A", "a, b\n", "should hold numbers only"),
        ("graph_indicator", "1\n1\n1\n2\n", "node_labels.txt has 5 lines instead of 4"),
        ("graph_indicator", "1\n1\n2\n1\n2\n", "should ascend from 1 to 2"),
        ("graph_indicator", "1\n1\n1\n2\n3\n", "should ascend from 1 to 2"),
        ("graph_indicator", "0\n0\n0\n1\n1\n", "should ascend from 1 to 2"),
        ("graph_labels", "1\n-1\n1\n", "graph 2: expected at least one node"),
        ("graph_labels", "1\n0.5\n", "entries should be whole numbers; there is 0.5"),
        ("graph_labels", "1, 1\n1, 0\n", "should hold one label in each line"),
        ("node_labels", "5\n6\n7\n", "two_node_labels.txt has 3 lines instead of 5"),
        ("edge_labels", "5\n6\n7\n", "two_edge_labels.txt has 3 lines instead of 8"),
        ("node_attributes", "1\n1\n1\n1\ninf\n", "graph 1: expected finite node_features"),
    ],
)
def test_a_garbled_tu_folder_is_refused(tu_folder, what, content, says):
    (tu_folder / f"two_{what}.txt").write_text(content)
    with pytest.raises(CorruptFileError, match=says):
        read_tu(tu_folder)


@pytest.mark.parametrize("what", ["A", "graph_indicator", "graph_labels"])
def test_a_tu_folder_without_a_file_is_refused(tu_folder, what):
    (tu_folder / f"two_{what}.txt").unlink()
    with pytest.raises(StorageError, match=f"_{what}.txt: No such file"):
        read_tu(tu_folder)


def test_of_several_sets_one_must_be_named(tu_folder):
    for what in TU:
        shutil.copy(tu_folder / f"two_{what}.txt", tu_folder / f"other_{what}.txt")
    assert_the_two_graphs(read_tu(tu_folder, "other"), "other")
    with pytest.raises(InvalidInputError, match="name= to be one of other, two"):
        read_tu(tu_folder)


def test_an_ogb_folder_is_read(ogb_folder):
    graphs = read_ogb(ogb_folder)
    assert_the_two_graphs(graphs, "ogbg_two")
    assert graphs.smiles is None
    expected = [[1, 0], [1, 0], [2, 0], [2, 0], [3, 1], [3, 1], [4, 1], [4, 1]]
    assert graphs.edge_features.tolist() == expected
    assert graphs.sources.tolist()[:4] == [0, 1, 0, 2]
    assert graphs.targets.tolist()[:4] == [1, 0, 2, 0]


def test_ogb_edges_may_be_arcs(ogb_folder):
    graphs = read_ogb(ogb_folder, undirected=False)
    assert arcs(graphs, 0) == [(0, 1), (0, 2), (1, 2)]
    assert graphs.edge_features.tolist() == [[1, 0], [2, 0], [3, 1], [4, 1]]


def test_ogb_needs_no_features_and_knows_smiles(ogb_folder):
    (ogb_folder / "raw" / "edge-feat.csv.gz").unlink()
    (ogb_folder / "raw" / "node-feat.csv.gz").unlink()
    write_gz(ogb_folder / "mapping" / "mol.csv.gz", "Class,smiles,mol_id\n1,C1CC1,a\n0,CC,b\n")
    graphs = read_ogb(ogb_folder)
    assert graphs.smiles == ("C1CC1", "CC")
    assert graphs.node_features.shape == (5, 0)
    assert graphs.edge_features.shape == (8, 0)


def test_ogb_of_several_tasks(ogb_folder):
    write_gz(ogb_folder / "raw" / "graph-label.csv.gz", "1,\n0,1\n")
    assert read_ogb(ogb_folder, task=0).y.tolist() == [1, 0]
    assert read_ogb(ogb_folder, task=0).y.dtype == np.int64
    np.testing.assert_array_equal(read_ogb(ogb_folder, task=1).y, [np.nan, 1.0])
    for task in (None, 2, -1):
        with pytest.raises(InvalidInputError, match=f"task= from 0 to 1.*; got {task}"):
            read_ogb(ogb_folder, task=task)


@pytest.mark.parametrize(
    ("what", "content", "says"),
    [
        ("raw/edge", "0,1\n0,2\n1,2\n", "edge.csv.gz has 3 lines instead of 4"),
        ("raw/edge", "0,1\n0,2\n1,3\n0,1\n", "graph 0: expected arcs between its nodes 0 to 2"),
        ("raw/edge", "0\n0\n1\n0\n", "pairs of nodes; it has 1 columns"),
        ("raw/node-feat", "5\n6\n7\n5\n", "node-feat.csv.gz has 4 lines instead of 5"),
        ("raw/node-feat", "5\n6\n7\n5\n\nx\n", "should hold numbers only"),
        ("raw/edge-feat", "1,0\n2,0\n3,1\n4,\n", "graph 1: expected finite edge_features"),
        ("raw/graph-label", "1\n", "graph-label.csv.gz has 1 lines instead of 2"),
        ("raw/num-edge-list", "3\n1\n0\n", "num-edge-list.csv.gz has 3 lines instead of 2"),
        ("raw/num-edge-list", "5\n-1\n", "should hold no number below 0"),
        ("raw/num-node-list", "5\n0\n", "graph 1: expected at least one node"),
        ("mapping/mol", "smiles,mol_id\nCC,a\n", "mapping/mol.csv.gz has 1 lines instead of 2"),
        ("mapping/mol", "mol_id\na\nb\n", "Usecols do not match columns"),
    ],
)
def test_a_garbled_ogb_folder_is_refused(ogb_folder, what, content, says):
    write_gz(ogb_folder / f"{what}.csv.gz", content)
    with pytest.raises(CorruptFileError, match=says):
        read_ogb(ogb_folder)


@pytest.mark.parametrize("name", sorted(name for name in OGB if name.startswith("raw/")))
def test_a_cut_or_missing_ogb_file_is_refused(ogb_folder, name):
    path = ogb_folder / f"{name}.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptFileError, match=f"{path.name}: .* copy it again"):
        read_ogb(ogb_folder)
    path.write_bytes(b"plain text")
    with pytest.raises(CorruptFileError, match=f"{path.name}: .* copy it again"):
        read_ogb(ogb_folder)
    path.unlink()
    if "feat" not in name:
        with pytest.raises(StorageError, match=f"{path.name}: No such file"):
            read_ogb(ogb_folder)


def test_an_ogb_split_is_read(ogb_folder):
    write_gz(ogb_folder / "raw" / "num-node-list.csv.gz", "3\n2\n4\n")
    split = read_ogb_split(ogb_folder)
    assert {name: part.tolist() for name, part in split.items()} == {
        "train": [1],
        "valid": [0],
        "test": [2],
    }
    assert all(part.dtype == np.int64 for part in split.values())
    (ogb_folder / "split" / "random").mkdir()
    with pytest.raises(InvalidInputError, match="split= to be one of random, scaffold"):
        read_ogb_split(ogb_folder)
    with pytest.raises(StorageError, match="train.csv.gz: No such file"):
        read_ogb_split(ogb_folder, "random")
    assert read_ogb_split(ogb_folder, "scaffold")["test"].tolist() == [2]


@pytest.mark.parametrize("test", ["0\n", "3\n", "-1\n"])
def test_a_split_with_a_graph_twice_or_one_that_is_not_there_is_refused(ogb_folder, test):
    write_gz(ogb_folder / "raw" / "num-node-list.csv.gz", "3\n2\n4\n")
    write_gz(ogb_folder / "split" / "scaffold" / "test.csv.gz", test)
    with pytest.raises(CorruptFileError, match="each graph from 0 to 2 should be in one part"):
        read_ogb_split(ogb_folder)


def test_no_split_is_none(ogb_folder):
    shutil.rmtree(ogb_folder / "split")
    with pytest.raises(InvalidInputError, match="one of none"):
        read_ogb_split(ogb_folder)


# -------------------------------------------------------------------------------------- SMILES


@pytest.fixture
def table(tmp_path):
    pytest.importorskip("rdkit")

    def write(content, name="drugs.csv"):
        path = tmp_path / name
        path.write_text(content)
        return path

    return write


def test_smiles_are_read(table):
    graphs = read_smiles(table("SMILES,active\nCCO,1\nC#N,0\n"))
    assert graphs.smiles == ("CCO", "C#N")
    assert graphs.y.tolist() == [1, 0]
    assert graphs.y.dtype == np.int64
    assert np.diff(graphs.node_ptr).tolist() == [3, 2]
    assert graphs.name == "drugs"


def test_smiles_may_have_no_labels_and_labels_may_be_missing(table):
    assert read_smiles(table("smiles\nCCO\n")).y is None
    y = read_smiles(table("smiles,a,b\nCCO,1,\nC,0,1\n"), label="b").y
    np.testing.assert_array_equal(y, [np.nan, 1.0])


def test_columns_may_be_named(table):
    path = table("mol,smiles,a\nCCO,x,yes\nC,y,no\n")
    graphs = read_smiles(path, smiles="mol", label="a")
    assert graphs.smiles == ("CCO", "C")
    assert graphs.y.tolist() == ["yes", "no"]


def test_rows_that_are_no_molecules_are_left_out_and_counted(table, caplog):
    path = table("smiles,active\nCCO,1\nC(C)(C)(C)(C)C,2\n,3\nQ,4\nC,5\n")
    graphs = read_smiles(path)
    assert graphs.y.tolist() == [1, 5]
    assert "3 of 5 SMILES cannot be read" in caplog.text
    assert "number 1, 'C(C)(C)(C)(C)C'" in caplog.text


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("mol,a\nC,1\n", {}, "a column called smiles in .*; its columns, .*, are mol, a. Rename"),
        ("smiles;a\nC;1\n", {}, "parted by commas, are smiles;a. Rename"),
        ("smiles,a\n", {}, "at least one SMILES; got none"),
        ("smiles,a,b\nC,1,2\n", {}, "columns smiles, a, b of .*; got 'smiles' and None"),
        ("smiles,a\nC,1\n", {"label": "b"}, "got 'smiles' and 'b'"),
        ("smiles,a\nC,1\n", {"smiles": "mol"}, "got 'mol' and 'smiles'"),
        ("smiles,a\nQ,1\n", {}, "1 of 1 SMILES cannot be read"),
    ],
)
def test_a_table_of_other_columns_is_refused(table, content, options, says):
    with pytest.raises(InvalidInputError, match=says):
        read_smiles(table(content), **options)


@pytest.mark.parametrize("content", ["", 'smiles,a\n"C,1\n', "smiles,a\nC,1,2,3\nC,1\nC,1,2,3,4\n"])
def test_a_garbled_table_is_refused(table, content):
    with pytest.raises(CorruptFileError, match="drugs.csv"):
        read_smiles(table(content))


# ------------------------------------------------------------------------------------ dispatch


def test_the_layout_is_told_from_what_is_there(text_file, tu_folder, ogb_folder, tmp_path, table):
    assert_the_two_graphs(read_graphs(str(text_file)), "two")
    assert_the_two_graphs(read_graphs(ogb_folder), "ogbg_two")
    assert read_graphs(table("smiles\nCCO\n")).smiles == ("CCO",)
    raw = tmp_path / "downloaded" / "raw"
    raw.mkdir(parents=True)
    for what in TU:
        shutil.copy(tu_folder / f"two_{what}.txt", raw)
    assert_the_two_graphs(read_graphs(raw), "two")
    assert_the_two_graphs(read_graphs(raw.parent), "two")


def test_what_is_no_layout_is_refused(tmp_path):
    (tmp_path / "graphs.json").write_text("{}")
    for path in (tmp_path, tmp_path / "graphs.json"):
        with pytest.raises(InvalidInputError, match=r"Expected .txt or .zip .*; got "):
            read_graphs(path)


@pytest.mark.parametrize(
    "read", [read_graphs, read_tu_text, read_tu, read_ogb, read_ogb_split, read_smiles]
)
def test_what_is_not_there_is_said(read, tmp_path):
    with pytest.raises(StorageError, match="nothing.txt: No such file or folder. Check the path"):
        read(tmp_path / "nothing.txt")


# -------------------------------------------------------------------------------------- splits


@given(st.lists(st.integers(-2, 2), max_size=80), st.integers(0, 1000))
def test_each_graph_is_in_one_part_and_classes_keep_their_shares(labels, seed):
    y = np.array(labels, dtype=np.int64)
    split = random_split(y, seed)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(len(y)))
    for value in set(labels):
        of_class = (y == value).sum()
        for name, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
            assert abs((y[split[name]] == value).sum() - share * of_class) <= 1
    again = random_split(y, seed)
    assert all((np.diff(part) > 0).all() for part in split.values())
    assert all(np.array_equal(split[name], again[name]) for name in split)


def test_another_seed_gives_another_split_and_fractions_are_kept():
    y = np.arange(100) % 2
    assert not np.array_equal(random_split(y, 0)["test"], random_split(y, 1)["test"])
    assert [len(part) for part in random_split(y, 0, (0.5, 0.0, 0.5)).values()] == [50, 0, 50]
    assert [len(p) for p in random_split(np.array(list("ab") * 10), 0).values()] == [16, 2, 2]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.2, 0.2)])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(InvalidInputError, match="three fractions that sum to 1"):
        random_split([0, 1], 0, fractions)


@pytest.mark.parametrize("y", [[0.0, np.nan], [[0, 1]]])
def test_a_graph_without_a_label_is_in_no_split(y):
    with pytest.raises(InvalidInputError, match="a label of each graph"):
        random_split(y, 0)


# ------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize(
    ("name", "n_graphs", "n_nodes", "n_edges", "n_features"),
    [
        ("tu_text/MUTAG.txt", 188, 17.93, 19.79, 1),
        ("tu_text/NCI1.txt", 4110, 29.87, 32.30, 1),
        ("tu_text/IMDBBINARY.txt", 1000, 19.77, 96.53, 1),
        ("tu_text_zip/DHFR.zip", 756, 42.43, 44.54, 4),
        ("ogb/ogbg_molbace", 1513, 34.1, 36.9, 9),
        ("ogb/ogbg_molbbbp", 2039, 24.1, 26.0, 9),
    ],
)
def test_public_data_has_its_published_size(
    scikd_data, name, n_graphs, n_nodes, n_edges, n_features
):
    graphs = read_graphs(scikd_data(f"graphs/{name}"))
    assert len(graphs) == n_graphs
    assert graphs.n_nodes / n_graphs == pytest.approx(n_nodes, abs=0.06)
    assert graphs.n_arcs / n_graphs / 2 == pytest.approx(n_edges, abs=0.06)
    assert graphs.node_features.shape[1] == n_features
    assert len(np.unique(graphs.y)) == 2
    # Every arc has its reverse.
    key = graphs.sources * graphs.n_nodes + graphs.targets
    back = graphs.targets * graphs.n_nodes + graphs.sources
    np.testing.assert_array_equal(np.sort(key), np.sort(back))


def test_both_layouts_of_mutag_hold_the_same_graphs(scikd_data):
    text = read_graphs(scikd_data("graphs/tu_text/MUTAG.txt"))
    tables = read_graphs(scikd_data("graphs/tu_raw_MUTAG"))

    def described(graphs):
        """Return the sorted sizes and labels; the two number graphs and tags differently."""
        sizes, counts = np.diff(graphs.node_ptr), np.diff(graphs.arc_ptr)
        return sorted(zip(sizes.tolist(), counts.tolist(), (graphs.y > 0).tolist(), strict=True))

    assert described(text) == described(tables)
    assert sorted(np.unique(tables.edge_features)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "sizes"), [("molbace", [1210, 151, 152]), ("molbbbp", [1631, 204, 204])]
)
def test_scaffold_splits_of_ogb(scikd_data, name, sizes):
    split = read_ogb_split(scikd_data(f"graphs/ogb/ogbg_{name}"))
    assert [len(part) for part in split.values()] == sizes
    assert isinstance(
        read_ogb(scikd_data(f"graphs/ogb/ogbg_{name}")).select(split["test"]), GraphSet
    )
