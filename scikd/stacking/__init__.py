"""Stacking: combine the predictions of many models into one, and say honestly what it is worth."""

from __future__ import annotations

from scikd.stacking.diagnostics import Conditioning
from scikd.stacking.features import MetaFeatures
from scikd.stacking.gram import Gram
from scikd.stacking.redundancy import RedundancyFilter, RedundantModel

__all__ = ["Conditioning", "Gram", "MetaFeatures", "RedundancyFilter", "RedundantModel"]
