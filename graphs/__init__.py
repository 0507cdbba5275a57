"""Graph neural networks: ensembles of teachers, distilled into a light student.

Names are imported when they are first used: ``import scikd.graphs`` alone needs neither torch nor
torch_geometric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scikd._lazy import lazy_names

if __name__ != "scikd.graphs":
    # From the root of a checkout a bare `import graphs` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.graphs', got {__name__!r}: write `import scikd.graphs`"
    raise ImportError(message, name=__name__)

if TYPE_CHECKING:
    from .distilled import DistilledGraphs
    from .drawing import TreeDrawer
    from .graphset import GraphSet
    from .mirage import Mirage
    from .molecules import load_molecules, load_molecules_split, molecule_graphs
    from .readers import (
        random_split,
        read_graphs,
        read_ogb,
        read_ogb_split,
        read_smiles,
        read_tu,
        read_tu_text,
    )
    from .refinement import ColorRefinement
    from .report import distilled_report

__all__ = [
    "ColorRefinement",
    "DistilledGraphs",
    "GraphSet",
    "Mirage",
    "TreeDrawer",
    "distilled_report",
    "load_molecules",
    "load_molecules_split",
    "molecule_graphs",
    "random_split",
    "read_graphs",
    "read_ogb",
    "read_ogb_split",
    "read_smiles",
    "read_tu",
    "read_tu_text",
]

_HOMES = {
    "distilled": ("DistilledGraphs",),
    "report": ("distilled_report",),
    "drawing": ("TreeDrawer",),
    "graphset": ("GraphSet",),
    "mirage": ("Mirage",),
    "molecules": ("load_molecules", "load_molecules_split", "molecule_graphs"),
    "readers": (
        "random_split",
        "read_graphs",
        "read_ogb",
        "read_ogb_split",
        "read_smiles",
        "read_tu",
        "read_tu_text",
    ),
    "refinement": ("ColorRefinement",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
