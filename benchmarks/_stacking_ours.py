"""Our own contestants of `benchmarks.stacking`, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks._stacking_pools import Pool
from scikd import stacking

__all__ = ["DEFAULT", "GREEDY", "OURS", "PENALTIES", "PUBLISHED", "STAGES", "fit"]

PENALTIES = np.logspace(-3, 5, 50)
"""The grid that the published recipe gives to its ridge; for scikit-learn's last step too."""

PUBLISHED = "PublishedStack"
"""The published recipe; it is timed against itself as it was published."""

OURS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "regression": {
        "MetaRegressor": stacking.MetaRegressor,
        "ShrunkRidge": stacking.ShrunkRidge,
        "ElasticNetCombiner": stacking.ElasticNetCombiner,
        "NonNegativeCombiner": stacking.NonNegativeCombiner,
        "SimplexCombiner": stacking.SimplexCombiner,
        "GreedySelection 25": lambda: stacking.GreedySelection(25),
        "GreedySelection 100": lambda: stacking.GreedySelection(100),
        PUBLISHED: stacking.PublishedStack,
    },
    "classification": {
        "MetaClassifier": stacking.MetaClassifier,
        "LogPool": stacking.LogPool,
        "LinearPool": stacking.LinearPool,
        "GreedyPool": stacking.GreedyPool,
    },
}
"""For each task, makers of our unfitted combiners."""

DEFAULT = "MetaRegressor"
"""Which of `OURS` is timed beside the published recipe as it was published."""

GREEDY = {"AutoGluon 25": "GreedySelection 25", "AutoGluon 100": "GreedySelection 100"}
"""Which of `OURS` has to give the answer of which of AutoGluon's selections."""

STAGES: Mapping[str, Callable[[np.ndarray, np.ndarray], object]] = {"moments": stacking.Gram.of}
"""Parts of a fit whose time and memory `benchmarks.stacking` shows as rows grow."""


def fit(model: Any, pool: Pool) -> Any:
    """Fit a combiner to a pool; the published recipe knows neither folds nor rows that recur."""
    if isinstance(model, stacking.PublishedStack):
        return model.fit(pool.P, pool.y)
    return model.fit(pool.P, pool.y, fold=pool.fold, row_id=pool.row_id)
