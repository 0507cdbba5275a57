"""Pictures of trees: what is drawn is what is there, as valid SVG, on a page that holds it all."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.graphs import drawing
from scikd.graphs._folded import flatten, fold
from scikd.graphs._names import Names
from scikd.graphs.drawing import Drawing, TreeDrawer
from scikd.graphs.graphset import GraphSet
from scikd.graphs.mirage import Mirage
from scikd.graphs.molecules import load_molecules
from scikd.graphs.refinement import ColorRefinement
from scikd.graphs.report import class_table, distilled_report, set_table
from tests.reference.graph_trees import random_graphs

SVG = "{http://www.w3.org/2000/svg}"
ENOUGH = 10_000


def symmetric(seed):
    """Return random graphs without loops, in which every arc has one back with its features."""
    random = np.random.default_rng(seed)
    graphs = random_graphs(seed, n_graphs=3, density=1.5)
    ends = {
        (min(a, b), max(a, b))
        for a, b in zip(graphs.sources.tolist(), graphs.targets.tolist(), strict=True)
        if a != b
    }
    edges = np.array(sorted(ends), dtype=np.int64).reshape(-1, 2)
    features = random.integers(0, 2, (len(edges), 1))
    both = np.concatenate([edges, edges[:, ::-1]])
    order = np.argsort(both[:, 0], kind="stable")
    return replace(
        graphs,
        arc_ptr=np.searchsorted(both[order, 0], graphs.node_ptr),
        sources=both[order, 0],
        targets=both[order, 1],
        edge_features=np.concatenate([features, features])[order],
    )


def around(graphs, node, depth, parent=-1):
    """Return the tree around a node that never goes straight back, by walking the graph."""
    arcs = np.flatnonzero(graphs.targets == node) if depth else []
    children = [
        (
            tuple(graphs.edge_features[arc].tolist()),
            around(graphs, graphs.sources[arc], depth - 1, node),
        )
        for arc in arcs
        if graphs.sources[arc] != parent
    ]
    return (tuple(graphs.node_features[node].tolist()), tuple(sorted(children)))


def written_out(trees, branch):
    """Return a folded tree in the same form."""
    children = [
        (tuple(trees.edge_labels[child.edge].tolist()), written_out(trees, child))
        for child in branch.children
        for _ in range(child.count)
    ]
    return (tuple(trees.labels[branch.label].tolist()), tuple(sorted(children)))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_a_folded_tree_is_what_is_around_a_node(seed, n_hops):
    graphs = symmetric(seed)
    refinement = ColorRefinement(n_hops)
    colors = refinement.fit(graphs)[-1]
    for node in range(graphs.n_nodes):
        root, depth = fold(refinement.trees_, int(colors[node]), ENOUGH)
        assert depth == n_hops
        assert written_out(refinement.trees_, root) == around(graphs, node, n_hops)


def chain(n, *, both_ways):
    """Return a chain of nodes 0, 1, 2, ...; arcs lead to smaller numbers, or both ways."""
    low, high = np.arange(n - 1), np.arange(1, n)
    arcs = np.stack([high, low])
    if both_ways:
        arcs = np.concatenate([arcs, arcs[::-1]], axis=1)
    return GraphSet(
        node_ptr=np.array([0, n]),
        arc_ptr=np.array([0, arcs.shape[1]]),
        sources=arcs[0],
        targets=arcs[1],
        node_features=np.arange(n)[:, None],
        edge_features=np.empty((arcs.shape[1], 0), dtype=np.int64),
    )


@pytest.mark.parametrize("both_ways", [True, False])
def test_a_chain_is_a_chain(both_ways):
    refinement = ColorRefinement(2)
    colors = refinement.fit(chain(4, both_ways=both_ways))[-1]
    assert TreeDrawer(refinement.trees_).line(int(colors[0])) == "0(1(2))"


def test_the_way_back_is_drawn_where_it_is_not_always_there():
    # 0 -> 1 -> 2 -> 0, and 0 <- 1: only one arc has one in the opposite direction.
    graphs = GraphSet(
        node_ptr=np.array([0, 3]),
        arc_ptr=np.array([0, 4]),
        sources=np.array([0, 1, 2, 1]),
        targets=np.array([1, 2, 0, 0]),
        node_features=np.arange(3)[:, None],
        edge_features=np.empty((4, 0), dtype=np.int64),
    )
    refinement = ColorRefinement(2)
    colors = refinement.fit(graphs)[-1]
    assert TreeDrawer(refinement.trees_).line(int(colors[0])) == "0(1(0))(2(1))"


# ------------------------------------------------------------------------------------ pictures


def texts(svg):
    """Return what is written in a picture."""
    found = ET.fromstring(svg).iter(f"{SVG}text")  # noqa: S314
    return Counter("".join(element.itertext()) for element in found)


def shapes(svg, kind):
    return len(list(ET.fromstring(svg).iter(SVG + kind)))  # noqa: S314


@pytest.fixture(scope="module")
def plain():
    graphs = random_graphs(1, n_graphs=60, n_labels=3, density=1.5)
    return Mirage(2, min_support=0.1).fit(replace(graphs, y=np.arange(60) % 2, name="random"))


@pytest.fixture(scope="module")
def molecules():
    return Mirage(3, budget="2kB").fit(load_molecules().select(np.arange(0, 4000, 4)))


def test_a_tree_is_drawn_with_its_root_on_top(plain):
    trees = plain.distilled_.trees
    names, draw = Names(trees), TreeDrawer(trees)
    assert not draw.molecules
    for tree in range(trees.n_trees(2)):
        flat = flatten(fold(trees, tree, ENOUGH)[0])
        svg = draw(tree).svg()
        expected = Counter(names.node(branch.label) for branch in flat.branches)
        expected += Counter(f"×{b.count}" for b in flat.branches if b.count > 1)  # noqa: RUF001
        assert texts(svg) == expected
        assert shapes(svg, "line") == len(flat.branches) - 1
        assert shapes(svg, "rect") == len(flat.branches) + 1  # a ring around the root
        assert ET.fromstring(svg)[0].text == draw.line(tree)  # noqa: S314


def test_a_piece_of_a_molecule_has_its_atoms_and_bonds(molecules):
    pytest.importorskip("rdkit")
    trees = molecules.distilled_.trees
    draw = TreeDrawer(trees)
    assert draw.molecules
    for tree in range(trees.n_trees(3)):
        flat = flatten(fold(trees, tree, ENOUGH, merged=False)[0], merged=False)
        svg = draw(tree).svg()
        atoms = [draw.names.atom(branch.label) for branch in flat.branches]
        drawn = Counter("".join(sorted(text)) for text in texts(svg).elements())
        expected = Counter(
            "".join(sorted(a.symbol + a.hydrogens + a.sign))
            for a in atoms
            if a.symbol != "C" or a.charge
        )
        assert drawn == expected
        lines = sum(
            {0: 1, 1: 2, 2: 3, 3: 2}[draw.names.bond(b.edge)] for b in flat.branches if b.edge >= 0
        )
        # Every atom inside shows all its bonds; of the outermost ones the others are dotted.
        bonds = Counter(flat.parents) + Counter(range(1, len(atoms)))
        for node, atom in enumerate(atoms):
            missing = atom.degree - atom.n_hydrogens - bonds[node]
            assert missing == 0 or flat.depths[node] == 3
            lines += missing
        assert shapes(svg, "line") == lines
        assert shapes(svg, "circle") == 1


def test_atoms_do_not_lie_on_each_other(molecules):
    pytest.importorskip("rdkit")
    trees = molecules.distilled_.trees
    names = Names(trees)
    for tree in range(0, trees.n_trees(3), 5):
        flat = flatten(fold(trees, tree, ENOUGH, merged=False)[0], merged=False)
        numbers = [names.atom(b.label).number for b in flat.branches]
        bonds = [(p, n, 0) for n, p in enumerate(flat.parents) if p >= 0]
        places = np.array(drawing._places(numbers, bonds, []))
        distances = np.linalg.norm(places[:, None] - places, axis=2) + ENOUGH * np.eye(len(places))
        assert distances.min() > drawing.BOND / 3


def test_without_rdkit_molecules_are_drawn_as_trees(molecules, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    draw = TreeDrawer(molecules.distilled_.trees)
    assert not draw.molecules
    for tree in range(5):
        svg = draw(tree).svg()
        assert shapes(svg, "circle") == 0
        assert {text[0] for text in texts(svg)} <= set("CNOFS×")  # noqa: RUF001


def test_a_tree_that_is_too_large_is_cut():
    random = np.random.default_rng(0)
    n, arcs = 40, np.argwhere(~np.eye(40, dtype=bool))
    graphs = GraphSet(
        node_ptr=np.array([0, n]),
        arc_ptr=np.array([0, len(arcs)]),
        sources=arcs[:, 1],
        targets=arcs[:, 0],
        node_features=random.permutation(n)[:, None],
        edge_features=np.empty((len(arcs), 0), dtype=np.int64),
    )
    refinement = ColorRefinement(5)
    refinement.fit(graphs)
    draw = TreeDrawer(refinement.trees_)
    picture = draw(3)
    assert picture.title.endswith("(the first 1 of 5 hops)")
    assert shapes(picture.svg(), "line") == n - 1
    assert draw.line(3).endswith(" ...")


def test_text_is_escaped():
    picture = Drawing("<g/>", (0.0, 0.0, 10.0, 10.0), "<b>&")
    for svg in (picture.svg('a"<'), picture.again('a"<')):
        assert ET.fromstring(svg)[0].text == "<b>&"  # noqa: S314
    assert ET.fromstring(picture.svg('a"<')).get("id") == 'a"<'  # noqa: S314


def test_a_tree_that_is_not_there_is_refused(plain):
    n = plain.distilled_.trees.n_trees(2)
    with pytest.raises(InvalidInputError, match=f"Expected a tree from 0 to {n - 1}; got {n}"):
        TreeDrawer(plain.distilled_.trees)(n)


def test_features_in_one_column_each_are_named_by_their_place():
    graphs = replace(chain(3, both_ways=True), node_features=np.eye(3, dtype=np.int64))
    refinement = ColorRefinement(1)
    colors = refinement.fit(graphs)[-1]
    assert TreeDrawer(refinement.trees_).line(int(colors[0])) == "0(1)"
    long = replace(graphs, node_features=np.arange(9000, 9009).reshape(3, 3))
    refinement.fit(long)
    names = Names(refinement.trees_)
    assert names.node(1) == "#1"
    assert names.hint(1) == "features 9003,9004,9005"


# ------------------------------------------------------------------------------------- reports


def test_every_tree_is_on_the_page_once(plain):
    distilled = plain.distilled_
    n_trees = distilled.trees.n_trees(2)
    page = distilled_report(distilled, most_trees=n_trees, most_sets=len(distilled)).to_html()
    names = re.findall(r" id=\"(tree-\d+)\"", page)
    assert sorted(names) == sorted(f"tree-{k + 1}" for k in range(n_trees))
    used = re.findall(r"<use href=\"#(tree-\d+)\"", page)
    assert len(used) == len(distilled.roots)
    assert set(used) <= set(names)
    assert page.count("<article") == n_trees + len(distilled)
    assert "What is left of random" in page


def test_a_page_of_some_shows_those_and_says_so(molecules):
    distilled = molecules.distilled_
    page = distilled_report(distilled, most_trees=4, most_sets=3).to_html()
    assert page.count("<article") == 4 + 3 * len(distilled.classes)
    assert "The 4 of largest weight" in page
    sizes = np.bincount(distilled.y)
    assert f"3 of {sizes[0]} sets, the most frequent first" in page
    names = re.findall(r" id=\"(tree-\d+)\"", page)
    assert len(names) == len(set(names))
    assert set(re.findall(r"<use href=\"#(tree-\d+)\"", page)) <= set(names)


def test_names_from_the_data_are_escaped_on_the_page():
    graphs = random_graphs(1, n_graphs=40, n_labels=2)
    evil = np.where(np.arange(40) % 2, "<script>", "&")
    mirage = Mirage(1, min_support=0.2).fit(replace(graphs, y=evil, name="<b>"))
    page = distilled_report(mirage.distilled_).to_html()
    assert "<script>" not in page
    assert "What is left of &lt;b&gt;" in page
    assert "Class &lt;script&gt;" in page


def test_tables_say_what_was_distilled(plain):
    distilled = plain.distilled_
    table = class_table(distilled)
    rows = {name: column for name, *column in zip(table.columns, *table.rows, strict=True)}
    assert rows["graphs"] == [30, 30]
    assert rows["sets"] == np.bincount(distilled.y).tolist()
    assert sum(rows["weight"]) == pytest.approx(distilled.weights.sum())
    assert max(rows["bytes alone"]) < distilled.n_bytes <= sum(rows["bytes alone"])
    assert rows["least support"] == distilled.provenance["min_support"]
    first = set_table(distilled, 1, most=3)
    assert [row[1] for row in first.rows] == np.sort(distilled.supports[distilled.y == 1])[::-1][
        :3
    ].tolist()
    assert all(row[3] >= 0.5 for row in first.rows)  # of the class, of two
    assert all(row[4] for row in first.rows)


def test_what_is_not_known_is_left_out(plain):
    bare = replace(plain.distilled_, supports=None, provenance={})
    report = distilled_report(bare)
    assert "What is left of graphs" in report.to_html()
    assert "weight of a set" not in report.to_text()
    assert [row[1] for row in class_table(bare).rows] == [None, None]
    assert {row[1] for row in set_table(bare, 0).rows} == {None}
