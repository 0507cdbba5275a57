"""Pictures of trees, as SVG that takes the colour of the page: light or dark.

Where the features are those of atoms and bonds, a tree is drawn as the piece of a molecule around
an atom, placed by RDKit; otherwise, and without RDKit, the root is on top and its children below.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from scikd._extras import require
from scikd.exceptions import InvalidInputError, MissingExtraError
from scikd.report import PALETTE

from ._folded import Branch, Flat, flatten, fold
from ._names import TIMES, Atom, Names
from .trees import Trees

__all__ = ["Drawing", "TreeDrawer"]

MOST_NODES = 90  # of one picture
ACROSS, DOWN = 36.0, 52.0  # between nodes of a tree with its root on top
ROOM = 13.0  # for a number at the right of a node
BOND = 30.0  # length in a molecule
NEAR = 8.0  # a bond that leads less far to a side leaves room for hydrogens there
RADIUS = 11.0
MARGIN = 16.0
FONT = "font-family='system-ui, sans-serif'"
LINE = "stroke='currentColor' stroke-width='1.6' stroke-linecap='round' fill='none'"
DASHES = ("", "6 3", "1.5 4", "8 3 1.5 3")  # labels of arcs that are no bonds
ELEMENTS = dict(
    zip(
        ("N", "O", "F", "Cl", "S", "P", "Br", "I", "B", "Si"),
        (PALETTE[k] for k in (0, 1, 2, 2, 4, 4, 3, 3, 5, 5)),
        strict=True,
    )
)

Point = tuple[float, float]


class Drawing(NamedTuple):
    """A picture."""

    shapes: str
    """Elements of SVG."""
    box: tuple[float, float, float, float]
    """Left, top, width and height, in pixels."""
    title: str
    """What a screen reader says."""

    def svg(self, name: str = "") -> str:
        """Return an ``svg`` element that needs nothing else.

        Parameters
        ----------
        name : str, default=""
            Its ``id``, for `again`.
        """
        left, top, width, height = self.box
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg'{f' id={quoteattr(name)}' if name else ''} "
            f"viewBox='{left:.1f} {top:.1f} {width:.1f} {height:.1f}' width='{width:.0f}' "
            f"height='{height:.0f}' role='img'><title>{escape(self.title)}</title>"
            f"{self.shapes}</svg>"
        )

    def again(self, name: str) -> str:
        """Return a short ``svg`` element that repeats the one of this name on the same page."""
        _, _, width, height = self.box
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' "
            f"width='{width:.0f}' height='{height:.0f}' role='img'>"
            f"<title>{escape(self.title)}</title><use href={quoteattr('#' + name)}/></svg>"
        )


class TreeDrawer:
    """Draws the deepest trees of a collection.

    Parameters
    ----------
    trees : Trees
        The trees.
    molecules : bool or None, default=None
        Whether to draw molecules; None does so where the features are those of OGB's atoms and
        bonds.

    Attributes
    ----------
    molecules : bool
        Whether trees are drawn as pieces of molecules.
    """

    def __init__(self, trees: Trees, *, molecules: bool | None = None) -> None:
        self.trees = trees
        self.names = Names(trees, molecules)
        self.molecules = self.names.molecules and _rdkit() is not None

    def __call__(self, tree: int) -> Drawing:
        """Draw a tree.

        Parameters
        ----------
        tree : int
            Number of a tree of depth ``n_hops``.

        Returns
        -------
        Drawing
            Its title is the tree on one line.

        Raises
        ------
        InvalidInputError
            If there is no such tree.
        """
        root, depth = self._folded(tree, merged=not self.molecules)
        flat = flatten(root, merged=not self.molecules)
        draw = _molecule if self.molecules else _layers
        shapes, places = draw(flat, self.names)
        left, top = (min(place[axis] for place in places) - MARGIN for axis in (0, 1))
        right, bottom = (max(place[axis] for place in places) + MARGIN for axis in (0, 1))
        title = self.line(tree)
        if depth < self.trees.n_hops:
            title += f" (the first {depth} of {self.trees.n_hops} hops)"
        return Drawing("".join(shapes), (left, top, right - left, bottom - top), title)

    def line(self, tree: int) -> str:
        """Return a tree on one line, as in SMILES: ``C(C)(=O)`` is C with two neighbours."""
        root, depth = self._folded(tree, merged=True)
        return self.names.line(root) + (" ..." if depth < self.trees.n_hops else "")

    def _folded(self, tree: int, *, merged: bool) -> tuple[Branch, int]:
        n_trees = self.trees.n_trees(self.trees.n_hops)
        if not 0 <= tree < n_trees:
            raise InvalidInputError(f"Expected a tree from 0 to {n_trees - 1}; got {tree}.")
        return fold(self.trees, tree, MOST_NODES, merged=merged)


def _rdkit() -> object | None:
    try:
        return require("rdkit.Chem", extra="molecules", feature="Drawing molecules")
    except MissingExtraError:
        return None


def _bond(start: Point, end: Point, kind: int, trim: tuple[float, float] = (0.0, 0.0)) -> str:
    """Draw a single, double, triple or aromatic bond, shortened at its ends."""
    length = hypot(end[0] - start[0], end[1] - start[1]) or 1.0
    x, y = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    a = (start[0] + trim[0] * x, start[1] + trim[0] * y)
    b = (end[0] - trim[1] * x, end[1] - trim[1] * y)
    offsets = {1: (-2.1, 2.1), 2: (-3.4, 0.0, 3.4), 3: (0.0, 4.2)}.get(kind, (0.0,))
    lines = []
    for number, off in enumerate(offsets):
        dx, dy = -y * off, x * off
        dashes = " stroke-dasharray='3.5 3'" if (kind == 3 and number) or kind > 3 else ""
        lines.append(
            f"<line x1='{a[0] + dx:.1f}' y1='{a[1] + dy:.1f}' x2='{b[0] + dx:.1f}' "
            f"y2='{b[1] + dy:.1f}' {LINE}{dashes}/>"
        )
    return "".join(lines)


# ----------------------------------------------------------------------------- root on top


def _layers(flat: Flat, names: Names) -> tuple[list[str], list[Point]]:
    """Draw the root on top, and equal branches once with their number."""
    children: list[list[int]] = [[] for _ in flat.branches]
    for node, parent in enumerate(flat.parents):
        if parent >= 0:
            children[parent].append(node)
    across = [0.0] * len(flat.branches)
    free = 0.0
    for node in reversed(range(len(flat.branches))):  # children come after their parents
        if children[node]:
            across[node] = (across[children[node][0]] + across[children[node][-1]]) / 2.0
        else:
            across[node] = free - ROOM * (flat.branches[node].count > 1)
            free = across[node] - ACROSS
    places = [(x, DOWN * depth) for x, depth in zip(across, flat.depths, strict=True)]
    lines, nodes, ends = [], [], []
    for node, (branch, parent) in enumerate(zip(flat.branches, flat.parents, strict=True)):
        if parent >= 0:
            lines.append(_arc(places[parent], places[node], branch.edge, names))
        nodes.append(_node(places[node], branch, names, root=parent < 0))
        half, (x, y) = _half(names.node(branch.label)), places[node]
        ends += [(x - half, y), (x + half + ROOM * (branch.count > 1), y)]
    return lines + nodes, ends


def _arc(start: Point, end: Point, edge: int, names: Names) -> str:
    if names.molecules:
        return _bond(start, end, names.bond(edge))
    dashes = DASHES[edge % len(DASHES)]
    style = f" stroke-dasharray='{dashes}'" if dashes else ""
    says = f"<title>{escape(names.edges[edge])}</title>" if names.edges[edge] else ""
    return (
        f"<line x1='{start[0]:.1f}' y1='{start[1]:.1f}' x2='{end[0]:.1f}' y2='{end[1]:.1f}' "
        f"{LINE} stroke-opacity='0.6'{style}>{says}</line>"
    )


def _node(place: Point, branch: Branch, names: Names, *, root: bool) -> str:
    x, y = place
    text = names.node(branch.label)
    colour = PALETTE[branch.label % len(PALETTE)]
    if names.molecules:
        colour = ELEMENTS.get(names.atom(branch.label).symbol, "#6b7480")
    half = _half(text)
    parts = [f"<g><title>{escape(names.hint(branch.label))}</title>"]
    if root:
        parts.append(_pill(x, y, half + 3.5, RADIUS + 3.5, f"fill='none' stroke='{colour}'"))
    parts.append(_pill(x, y, half, RADIUS, f"fill='{colour}'"))
    parts.append(
        f"<text x='{x:.1f}' y='{y + 4.0:.1f}' {FONT} font-size='11.5' font-weight='600' "
        f"text-anchor='middle' fill='#ffffff'>{escape(text)}</text>"
    )
    if branch.count > 1:
        parts.append(
            f"<text x='{x + half - 1.0:.1f}' y='{y - 8.0:.1f}' {FONT} font-size='11' "
            f"fill='currentColor'>{TIMES}{branch.count}</text>"
        )
    return "".join([*parts, "</g>"])


def _half(text: str) -> float:
    """Return half the width of a node, so that its text fits in."""
    return max(RADIUS, 3.6 * len(text) + 3.0)


def _pill(x: float, y: float, half: float, radius: float, style: str) -> str:
    return (
        f"<rect x='{x - half:.1f}' y='{y - radius:.1f}' width='{2 * half:.1f}' "
        f"height='{2 * radius:.1f}' rx='{radius:.1f}' {style} stroke-width='1.6'/>"
    )


# -------------------------------------------------------------------------------- molecules


def _molecule(flat: Flat, names: Names) -> tuple[list[str], list[Point]]:
    """Draw a piece of a molecule; dotted are the bonds that lead out of it."""
    atoms = [names.atom(branch.label) for branch in flat.branches]
    bonds = [
        (parent, node, names.bond(flat.branches[node].edge))
        for node, parent in enumerate(flat.parents)
        if parent >= 0
    ]
    shown = [0] * len(atoms)
    for a, b, _ in bonds:
        shown[a] += 1
        shown[b] += 1
    stubs = [
        node
        for node, atom in enumerate(atoms)
        if flat.depths[node] == max(flat.depths)
        for _ in range(atom.degree - atom.n_hydrogens - shown[node])
    ]
    places = _places([atom.number for atom in atoms], bonds, stubs)
    trims = [
        7.5 if atom.symbol != "C" or atom.charge or not shown[n] else 0.0
        for n, atom in enumerate(atoms)
    ]
    x, y = places[0]
    shapes = [
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='11.5' fill='currentColor' fill-opacity='0.15'/>"
    ]
    shapes += [_bond(places[a], places[b], kind, (trims[a], trims[b])) for a, b, kind in bonds]
    for node, end in zip(stubs, places[len(atoms) :], strict=True):
        shapes.append(_stub(places[node], end, trims[node]))
    ends = list(places)
    for node in range(len(atoms)):
        if trims[node]:
            near = [b if a == node else a for a, b, _ in bonds if node in (a, b)]
            near += [end for end, start in enumerate(stubs, len(atoms)) if start == node]
            sides = [(places[n][0] - places[node][0], places[n][1] - places[node][1]) for n in near]
            shapes.append(_symbol(places[node], atoms[node], sides))
            x, y = places[node]
            ends += [(x - 10.0, y - 4.0), (x + 10.0, y + 4.0)]
    return shapes, ends


def _places(
    numbers: Sequence[int], bonds: Sequence[tuple[int, int, int]], stubs: Sequence[int]
) -> list[Point]:
    """Return where RDKit puts the atoms, and then the ends of the bonds that lead out."""
    feature = "Drawing molecules"
    chem = require("rdkit.Chem", extra="molecules", feature=feature)
    depictor = require("rdkit.Chem.rdDepictor", extra="molecules", feature=feature)
    kinds = [chem.BondType.SINGLE, chem.BondType.DOUBLE, chem.BondType.TRIPLE]
    molecule = chem.RWMol()
    for number in [*numbers, *[0] * len(stubs)]:
        molecule.AddAtom(chem.Atom(number if number <= 118 else 0))
    for a, b, kind in bonds:
        molecule.AddBond(a, b, kinds[kind] if kind < len(kinds) else kinds[0])
    for end, node in enumerate(stubs, len(numbers)):
        molecule.AddBond(node, end, kinds[0])
    molecule.UpdatePropertyCache(strict=False)
    depictor.Compute2DCoords(molecule)
    scale = BOND / 1.5  # RDKit's length
    positions = molecule.GetConformer().GetPositions()
    return [(scale * x, -scale * y) for x, y, _ in positions.tolist()]


def _stub(start: Point, end: Point, trim: float) -> str:
    length = hypot(end[0] - start[0], end[1] - start[1]) or 1.0
    x, y = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    return (
        f"<line x1='{start[0] + (trim + 2) * x:.1f}' y1='{start[1] + (trim + 2) * y:.1f}' "
        f"x2='{start[0] + 20 * x:.1f}' y2='{start[1] + 20 * y:.1f}' {LINE} "
        "stroke-opacity='0.7' stroke-dasharray='0.5 4'/>"
    )


def _symbol(place: Point, atom: Atom, sides: Sequence[Point]) -> str:
    """Write an atom, its hydrogens where there are no bonds."""
    x, y = place
    half = 4.6 * len(atom.symbol)
    colour = ELEMENTS.get(atom.symbol, "currentColor")
    anchor, text, below = "start", atom.symbol + atom.hydrogens + atom.sign, ""
    if atom.hydrogens and any(dx > NEAR for dx, _ in sides):
        if any(dx < -NEAR for dx, _ in sides):
            text = atom.symbol + atom.sign
            down = y + (17.0 if sum(dy for _, dy in sides) < 0 else -7.0)
            below = f"<tspan x='{x - half:.1f}' y='{down:.1f}'>{atom.hydrogens}</tspan>"
        else:
            anchor, text = "end", atom.sign + atom.hydrogens + atom.symbol
    start = x + (half if anchor == "end" else -half)
    return (
        f"<text x='{start:.1f}' y='{y + 4.8:.1f}' {FONT} font-size='13.5' font-weight='600' "
        f"text-anchor='{anchor}' fill='{colour}'>{escape(text)}{below}</text>"
    )
