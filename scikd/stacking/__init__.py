"""Stacking: combine the predictions of many models into one, and say honestly what it is worth."""

from __future__ import annotations

from scikd.stacking._outer import held_out_predictions
from scikd.stacking.combiners import (
    BestSingle,
    InverseErrorCombiner,
    LeastSquares,
    LinearCombiner,
    MeanCombiner,
    NonNegativeCombiner,
    SimplexCombiner,
)
from scikd.stacking.comparison import Comparison, Interval
from scikd.stacking.detector import HeldOutCheck
from scikd.stacking.diagnostics import Conditioning
from scikd.stacking.elastic_net import ElasticNetCombiner
from scikd.stacking.features import MetaFeatures
from scikd.stacking.freezing import freeze
from scikd.stacking.frozen import FrozenPool, FrozenStack, load_frozen
from scikd.stacking.gram import Gram
from scikd.stacking.greedy import GreedySelection
from scikd.stacking.log_pool import LogPool
from scikd.stacking.meta import MetaRegressor
from scikd.stacking.meta_classifier import MetaClassifier
from scikd.stacking.pools import BestPool, GreedyPool, LinearPool, MeanPool
from scikd.stacking.published import PublishedMember, PublishedStack
from scikd.stacking.redundancy import RedundancyFilter, RedundantModel
from scikd.stacking.shrunk_ridge import ShrunkRidge
from scikd.stacking.stack import RegularizedStackingClassifier, RegularizedStackingRegressor

__all__ = [
    "BestPool",
    "BestSingle",
    "Comparison",
    "Conditioning",
    "ElasticNetCombiner",
    "FrozenPool",
    "FrozenStack",
    "Gram",
    "GreedyPool",
    "GreedySelection",
    "HeldOutCheck",
    "Interval",
    "InverseErrorCombiner",
    "LeastSquares",
    "LinearCombiner",
    "LinearPool",
    "LogPool",
    "MeanCombiner",
    "MeanPool",
    "MetaClassifier",
    "MetaFeatures",
    "MetaRegressor",
    "NonNegativeCombiner",
    "PublishedMember",
    "PublishedStack",
    "RedundancyFilter",
    "RedundantModel",
    "RegularizedStackingClassifier",
    "RegularizedStackingRegressor",
    "ShrunkRidge",
    "SimplexCombiner",
    "freeze",
    "held_out_predictions",
    "load_frozen",
]
