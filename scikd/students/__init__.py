"""Students: scikit-learn estimators that learn from teachers."""

from __future__ import annotations

from scikd.students.augmentation import Augmenter, ColumnResample, NeighbourSwap
from scikd.students.classifier import DistilledClassifier
from scikd.students.measurement import DistillationReport, Measured
from scikd.students.mixing import Candidate, MixtureChoice
from scikd.students.regressor import DistilledRegressor

__all__ = [
    "Augmenter",
    "Candidate",
    "ColumnResample",
    "DistillationReport",
    "DistilledClassifier",
    "DistilledRegressor",
    "Measured",
    "MixtureChoice",
    "NeighbourSwap",
]
