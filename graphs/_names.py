"""What to write for the features of nodes and arcs: symbols of elements, or numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._folded import Branch
from .trees import Trees

__all__ = ["TIMES", "Atom", "Names"]

TIMES = "\N{MULTIPLICATION SIGN}"

# Of an index from 0 of the atomic number, as in OGB; what comes after is "*".
ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb "
    "Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk "
    "Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og *"
)
SYMBOLS = ELEMENTS.split()
# How many values the columns of OGB's features of atoms and bonds have.
ATOM_SIZES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
BOND_SIZES = (5, 6, 2)
BONDS = ("", "=", "#", ":", "~")  # as in SMILES: single, double, triple, aromatic, others
LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
RAISED = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻")
LONGEST = 6  # letters that fit beside a node


@dataclass(frozen=True)
class Atom:
    """What a label says of an atom."""

    number: int
    symbol: str
    charge: int
    n_hydrogens: int
    degree: int

    @property
    def hydrogens(self) -> str:
        """Its hydrogens, as in a formula."""
        many = str(self.n_hydrogens).translate(LOWERED) if self.n_hydrogens > 1 else ""
        return f"H{many}" if self.n_hydrogens else ""

    @property
    def sign(self) -> str:
        """Its charge, as in a formula."""
        if not self.charge:
            return ""
        many = str(abs(self.charge)) if abs(self.charge) > 1 else ""
        return (many + ("+" if self.charge > 0 else "-")).translate(RAISED)


class Names:
    """Names for the labels of trees.

    Parameters
    ----------
    trees : Trees
        The trees.
    molecules : bool or None, default=None
        Whether the features are those of OGB's atoms and bonds; None looks at them.
    """

    def __init__(self, trees: Trees, molecules: bool | None = None) -> None:
        self.trees = trees
        self.molecules = _are_molecules(trees) if molecules is None else molecules
        rows = trees.labels
        if trees.degrees is not None and not self.molecules:
            rows = np.column_stack([rows, trees.degrees])
        self.nodes = _texts(rows)
        self.edges = _texts(trees.edge_labels)

    def atom(self, label: int) -> Atom:
        """Return what a label says of an atom."""
        number, _, degree, charge, hydrogens = (
            int(value) for value in self.trees.labels[label, :5]
        )
        return Atom(number + 1, SYMBOLS[number], charge - 5, hydrogens, degree)

    def bond(self, edge: int) -> int:
        """Return 0 for a single bond, 1 for double, 2 for triple, 3 for aromatic."""
        return int(self.trees.edge_labels[edge, 0])

    def node(self, label: int) -> str:
        """Return what to write at a node."""
        if not self.molecules:
            text = self.nodes[label]
            return text if len(text) <= LONGEST else f"#{label}"
        atom = self.atom(label)
        return atom.symbol + ("" if atom.symbol == "C" else atom.hydrogens) + atom.sign

    def hint(self, label: int) -> str:
        """Return all that is known of a node."""
        return f"features {self.nodes[label]}" if self.nodes[label] else ""

    def line(self, branch: Branch) -> str:
        """Return a tree on one line, as in SMILES: branches in brackets behind their node."""
        parts = [self.node(branch.label)]
        for child in branch.children:
            times = f"{TIMES}{child.count}" if child.count > 1 else ""
            parts.append(f"({self._edge(child.edge)}{self.line(child)}){times}")
        return "".join(parts)

    def _edge(self, edge: int) -> str:
        if self.molecules:
            return BONDS[self.bond(edge)]
        # Where all arcs are alike there is nothing to say.
        return f"{self.edges[edge]}:" if len(self.edges) > 1 else ""


def _are_molecules(trees: Trees) -> bool:
    for rows, sizes in ((trees.labels, ATOM_SIZES), (trees.edge_labels, BOND_SIZES)):
        if rows.shape[1] != len(sizes) or (rows < 0).any() or (rows >= np.array(sizes)).any():
            return False
    return trees.labels.dtype.kind == "i" and trees.edge_labels.dtype.kind == "i"


def _texts(rows: np.ndarray) -> list[str]:
    """Return a text for each row: of a row with a single one its place, else its numbers."""
    one_hot = rows.shape[1] > 1 and bool((np.sort(rows, axis=1) == np.eye(rows.shape[1])[-1]).all())
    if one_hot:
        return [str(place) for place in rows.argmax(axis=1).tolist()]
    return [",".join(f"{value:.4g}" for value in row) for row in rows.tolist()]
