"""A page that shows what was distilled: numbers by class, every tree, and the sets they form."""

from __future__ import annotations

from typing import Any

import numpy as np

from scikd.report import PALETTE, Card, Figure, Gallery, Item, Picture, Report, Section, Table, Text

from ._names import TIMES
from .distilled import DistilledGraphs
from .drawing import TreeDrawer

__all__ = ["class_table", "distilled_report", "set_table", "summary"]

MOST_IN_CARD = 8  # trees of one set that are drawn
MOST_LINES = 3  # trees of one set that a table names
WIDEST = 34  # letters of a tree on one line


def distilled_report(
    distilled: DistilledGraphs,
    *,
    title: str | None = None,
    most_trees: int = 60,
    most_sets: int = 30,
) -> Report:
    """Return a report with a picture of each tree, and the sets of each class.

    Parameters
    ----------
    distilled : DistilledGraphs
        What to show.
    title : str or None, default=None
        Title of the page; None takes the name of the data.
    most_trees : int, default=60
        How many trees to show, those of the largest weight first.
    most_sets : int, default=30
        How many sets of each class to show, the most frequent first.

    Returns
    -------
    scikd.report.Report
        Drawing histograms needs matplotlib; placing atoms needs RDKit. Without them the page says
        what is missing, and trees are drawn with their root on top.
    """
    name = distilled.provenance.get("data") or "graphs"
    pictures = _Pictures(distilled)
    sections = [
        Section(
            "At a glance",
            [class_table(distilled), _histograms(distilled)],
            summary=summary(distilled),
        ),
        _tree_section(distilled, pictures, most_trees),
    ]
    sections += [
        _class_section(distilled, pictures, k, most_sets) for k in range(len(distilled.classes))
    ]
    subtitle = f"{len(distilled):,} sets of trees stand for {_n_graphs(distilled)}"
    return Report(title or f"What is left of {name}", sections, subtitle=subtitle)


def summary(distilled: DistilledGraphs) -> str:
    """Return how many sets, trees and bytes there are, and the options, as paragraphs.

    Parameters
    ----------
    distilled : DistilledGraphs
        What to show.
    """
    facts = distilled.provenance
    text = (
        f"{len(distilled):,} sets of {distilled.trees.n_trees(distilled.n_hops):,} distinct trees "
        f"take {distilled.n_bytes:,} bytes"
    )
    if "graphs_bytes" in facts:
        share = distilled.n_bytes / facts["graphs_bytes"]
        text += f", {share:.2%} of the {facts['graphs_bytes']:,} bytes of {_n_graphs(distilled)}"
    text += "."
    if "part" in facts:
        text += f" Distilled were {facts['part']}."
    options = facts.get("options", {})
    if options:
        given = ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
        text += f"\n\nOptions: {given}."
    return text


def class_table(distilled: DistilledGraphs) -> Table:
    """Return the numbers of each class: sets, trees, weight, bytes, support and coverage.

    Parameters
    ----------
    distilled : DistilledGraphs
        What to show.
    """
    facts = distilled.provenance
    n_classes = len(distilled.classes)
    rows = []
    for k, label in enumerate(distilled.classes.tolist()):
        sets = np.flatnonzero(distilled.y == k)
        own = distilled.select(sets)
        covered = _of_class(facts, "coverage", k, n_classes)
        rows.append(
            [
                f"class {label}",
                _of_class(facts, "graphs", k, n_classes),
                len(sets),
                own.trees.n_trees(own.n_hops),
                float(own.weights.sum()),
                own.n_bytes,
                _of_class(facts, "min_support", k, n_classes),
                None if covered is None else 100.0 * covered,
            ]
        )
    columns = (
        *("", "graphs", "sets", "trees", "weight", "bytes alone"),
        *("least support", "coverage (%)"),
    )
    note = (
        "Weight: how many graphs the sets stand for. Support: how many graphs hold a set. "
        "Coverage: the share of the graphs that hold at least one. Bytes alone need not add up to "
        f"the {distilled.n_bytes:,} bytes of all, because classes share trees."
    )
    return Table("By class", columns, rows, note=note)


def set_table(distilled: DistilledGraphs, k: int, most: int = 5) -> Table:
    """Return the most frequent sets of a class as text, for a terminal.

    Parameters
    ----------
    distilled : DistilledGraphs
        What to show.
    k : int
        Place of the class in ``classes``.
    most : int, default=5
        How many sets to show.
    """
    draw, soft = TreeDrawer(distilled.trees), distilled.soft_labels
    rows = []
    for number, place in enumerate(_most_frequent(distilled, k)[:most].tolist(), 1):
        entries = range(distilled.ptr[place], distilled.ptr[place + 1])
        lines = [
            _times(distilled.counts[e]) + _short(draw.line(int(distilled.roots[e])))
            for e in entries[:MOST_LINES]
        ]
        more = len(entries) - len(lines)
        rows.append(
            [
                number,
                None if distilled.supports is None else int(distilled.supports[place]),
                float(distilled.weights[place]),
                None if soft is None else float(soft[place, k]),
                "; ".join([*lines, *([f"{more} more"] if more else [])]),
            ]
        )
    title = f"Class {distilled.classes.tolist()[k]}: the most frequent sets"
    return Table(title, ("set", "support", "weight", "probability", "trees"), rows)


class _Pictures:
    """Pictures of trees; one that is on the page already is referred to."""

    def __init__(self, distilled: DistilledGraphs) -> None:
        self.trees, self.roots = distilled.trees, distilled.roots
        self.draw = TreeDrawer(distilled.trees)
        owner = np.repeat(np.arange(len(distilled)), np.diff(distilled.ptr))
        n_trees = self.trees.n_trees(self.trees.n_hops)
        self.weights = np.bincount(self.roots, distilled.weights[owner], minlength=n_trees)
        self.n_sets = np.bincount(self.roots, minlength=n_trees)
        self.order = np.argsort(-self.weights, kind="stable")
        self.numbers = np.argsort(self.order, kind="stable") + 1
        self.drawn: dict[int, Any] = {}

    def __call__(self, tree: int, caption: str) -> Picture:
        name = f"tree-{self.numbers[tree]}"
        if tree in self.drawn:
            return Picture(self.drawn[tree].again(name), caption)
        self.drawn[tree] = self.draw(tree)
        return Picture(self.drawn[tree].svg(name), caption)


def _tree_section(distilled: DistilledGraphs, pictures: _Pictures, most: int) -> Section:
    n_trees = len(pictures.order)
    cards = []
    for tree in pictures.order[:most].tolist():
        n_sets = int(pictures.n_sets[tree])
        text = f"in {n_sets} set{'s' * (n_sets > 1)}, weight {_spelled(pictures.weights[tree])}"
        cards.append(Card(f"T{pictures.numbers[tree]}", [pictures(tree, "")], text))
    shown = f"The {len(cards)} of largest weight" if len(cards) < n_trees else "All of them"
    note = f"{shown}, by the weight of the sets that hold them."
    items: list[Item] = [
        Text(_reading(distilled, pictures.draw)),
        Gallery("Distinct trees", cards, note),
    ]
    merged = distilled.trees.n_nodes
    finding = (
        f"{n_trees:,} distinct trees of {_hops(distilled)}. They share their subtrees, and are "
        f"stored as {merged:,} nodes."
    )
    return Section("The trees", items, finding)


def _reading(distilled: DistilledGraphs, draw: TreeDrawer) -> str:
    hops = _hops(distilled)
    if draw.molecules:
        return (
            "A tree is what a network sees from one atom, marked by a disc: the piece of a "
            f"molecule within {hops}. Rings are cut open, so a ring of six is a chain to both "
            "sides. Dotted lines lead to atoms that are too far away to be seen; a dashed second "
            "line is an aromatic bond. Two pictures that look alike differ in features that are "
            "not drawn, such as being in a ring."
        )
    what = "its features" if not draw.names.molecules else "its element"
    if distilled.preparation.degree_label:
        what = "the number of its arcs"
    return (
        f"A tree is what a network sees from one node, the root on top, within {hops}. What is "
        f"written in a node is {what}; lines of another dash are arcs with other features; "
        f"{TIMES}2 stands for two equal branches. Message passing also goes back to where it came "
        "from; where that way is always there, it is left out."
    )


def _class_section(distilled: DistilledGraphs, pictures: _Pictures, k: int, most: int) -> Section:
    label = distilled.classes.tolist()[k]
    order = _most_frequent(distilled, k)
    size = _of_class(distilled.provenance, "graphs", k, len(distilled.classes))
    cards = [
        _card(distilled, pictures, place, number, size)
        for number, place in enumerate(order[:most].tolist(), 1)
    ]
    shown = f"{len(cards)} of {len(order):,} sets" if len(cards) < len(order) else "All sets"
    whole = distilled.provenance.get("options", {}).get("mode") == "lossless"
    note = (
        f"{shown}, the most frequent first. The bar is the share of the graphs of the class that "
        f"hold all trees of the set; {TIMES}2 stands for {'' if whole else 'at least '}two nodes "
        "with this tree."
    )
    return Section(f"Class {label}", [Gallery("Sets of trees", cards, note)])


def _card(
    distilled: DistilledGraphs, pictures: _Pictures, place: int, number: int, size: int | None
) -> Card:
    entries = range(distilled.ptr[place], distilled.ptr[place + 1])
    shown = []
    for entry in entries[:MOST_IN_CARD]:
        tree = int(distilled.roots[entry])
        times = f" {TIMES}{distilled.counts[entry]}" if distilled.counts[entry] > 1 else ""
        shown.append(pictures(tree, f"T{pictures.numbers[tree]}{times}"))
    facts, share = [], None
    if distilled.supports is not None:
        support = int(distilled.supports[place])
        share = support / size if size else None
        facts.append(f"in {support:,} graphs" + (f" ({share:.0%})" if share is not None else ""))
    facts.append(f"weight {_spelled(distilled.weights[place])}")
    facts.append(f"{distilled.select(np.array([place])).n_bytes} bytes alone")
    if len(entries) > MOST_IN_CARD:
        facts.append(f"and {len(entries) - MOST_IN_CARD} more trees")
    return Card(f"Set {number}", shown, ", ".join(facts), share)


def _histograms(distilled: DistilledGraphs) -> Figure:
    values = distilled.weights if distilled.supports is None else distilled.supports
    sizes = np.add.reduceat(distilled.counts, distilled.ptr[:-1])
    panels = (
        (values, "weight of a set" if distilled.supports is None else "graphs that hold a set"),
        (sizes, "trees in a set"),
    )

    def draw(grid: Any) -> None:
        for axes, (numbers, title) in zip(grid, panels, strict=True):
            low, high = int(np.floor(numbers.min())), int(np.ceil(numbers.max()))
            step = max(1, -(-(high - low + 1) // 24))
            edges = np.arange(low, high + step + 1, step) - 0.5
            parts = [numbers[distilled.y == k] for k in range(len(distilled.classes))]
            axes.hist(
                parts,
                bins=edges,
                stacked=True,
                color=[PALETTE[k % len(PALETTE)] for k in range(len(parts))],
                label=[f"class {label}" for label in distilled.classes.tolist()],
            )
            axes.set_xlabel(title)
            axes.set_ylabel("sets")
            axes.grid(axis="y")
            for axis in (axes.xaxis, axes.yaxis):
                axis.get_major_locator().set_params(integer=True)
        grid[0].legend(fontsize=8.0, frameon=False)

    note = "How frequent the sets are, and how many trees they hold, repeated ones included."
    return Figure("Sets", draw, note=note, size=(7.2, 2.7), panels=(1, 2))


def _most_frequent(distilled: DistilledGraphs, k: int) -> np.ndarray:
    sets = np.flatnonzero(distilled.y == k)
    most = distilled.weights if distilled.supports is None else distilled.supports
    return sets[np.argsort(-most[sets], kind="stable")]


def _n_graphs(distilled: DistilledGraphs) -> str:
    facts = distilled.provenance
    name = facts.get("data")
    number = f"{sum(facts['graphs']):,} graphs" if "graphs" in facts else "graphs"
    return f"{number} of {name}" if name else number


def _of_class(facts: dict[str, Any], name: str, k: int, n_classes: int) -> Any:
    values = facts.get(name, [])
    return values[k] if len(values) == n_classes else None


def _hops(distilled: DistilledGraphs) -> str:
    return f"{distilled.n_hops} hop{'s' * (distilled.n_hops != 1)}"


def _spelled(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def _times(count: int) -> str:
    return f"{count}{TIMES} " if count > 1 else ""


def _short(line: str) -> str:
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 3]}..."
