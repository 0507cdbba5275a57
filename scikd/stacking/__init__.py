"""Stacking: combine the predictions of many models into one, and say honestly what it is worth."""

from __future__ import annotations

from scikd.stacking.gram import Gram
from scikd.stacking.log_pool import LogPool
from scikd.stacking.pools import BestPool, GreedyPool, LinearPool, MeanPool

__all__ = ["BestPool", "Gram", "GreedyPool", "LinearPool", "LogPool", "MeanPool"]
