"""Stacking: combine the predictions of many models into one, and say honestly what it is worth."""

from __future__ import annotations

from scikd.stacking.combiners import (
    BestSingle,
    InverseErrorCombiner,
    LeastSquares,
    LinearCombiner,
    MeanCombiner,
    NonNegativeCombiner,
    SimplexCombiner,
)
from scikd.stacking.elastic_net import ElasticNetCombiner
from scikd.stacking.gram import Gram
from scikd.stacking.greedy import GreedySelection
from scikd.stacking.shrunk_ridge import ShrunkRidge

__all__ = [
    "BestSingle",
    "ElasticNetCombiner",
    "Gram",
    "GreedySelection",
    "InverseErrorCombiner",
    "LeastSquares",
    "LinearCombiner",
    "MeanCombiner",
    "NonNegativeCombiner",
    "ShrunkRidge",
    "SimplexCombiner",
]
