"""Our own contestants of `benchmarks.stacking`, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scikd import stacking

__all__ = ["GREEDY", "OURS", "PENALTIES", "STAGES"]

PENALTIES = np.logspace(-3, 5, 50)
"""The grid that the published recipe gives to its ridge; for scikit-learn's last step too."""

OURS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "regression": {
        "ShrunkRidge": stacking.ShrunkRidge,
        "ElasticNetCombiner": stacking.ElasticNetCombiner,
        "NonNegativeCombiner": stacking.NonNegativeCombiner,
        "SimplexCombiner": stacking.SimplexCombiner,
        "GreedySelection 25": lambda: stacking.GreedySelection(25),
        "GreedySelection 100": lambda: stacking.GreedySelection(100),
    },
    "classification": {},
}
"""For each task, makers of our unfitted combiners."""

GREEDY = {"AutoGluon 25": "GreedySelection 25", "AutoGluon 100": "GreedySelection 100"}
"""Which of `OURS` has to give the answer of which of AutoGluon's selections."""

STAGES: Mapping[str, Callable[[np.ndarray, np.ndarray], object]] = {"moments": stacking.Gram.of}
"""Parts of a fit whose time and memory `benchmarks.stacking` shows as rows grow."""
