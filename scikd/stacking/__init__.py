"""Stacking: combine the predictions of many models into one, and say honestly what it is worth."""

from __future__ import annotations

from scikd.stacking.gram import Gram

__all__ = ["Gram"]
