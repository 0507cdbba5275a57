"""Classifiers of graphs as teachers: a committee that labels distilled trees.

Distillation itself trains nothing. Where teachers trained on the whole data are at hand, their
consensus says of each set of trees how likely each class is, which is more than the class alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.quantities import PROBA, Quantity
from scikd.teachers import Teacher

from .dag import MergedGraphs
from .distilled import DistilledGraphs, rounded_labels
from .models import GraphClassifier
from .training import predict_logits

__all__ = ["ClassifierTeacher", "label_by_committee"]


class ClassifierTeacher(Teacher):
    """A trained classifier of graphs as a teacher of class probabilities.

    Parameters
    ----------
    model : GraphClassifier
        The classifier.
    name : str
        Name of the teacher.
    classes : array-like of shape (n_classes,) or None, default=None
        Labels of the columns; 0, 1, ... by default.
    """

    def __init__(self, model: GraphClassifier, name: str, *, classes: Any = None) -> None:
        super().__init__(name)
        self.model = model
        n_classes = model.settings.n_classes
        self.classes = np.arange(n_classes) if classes is None else np.asarray(classes)
        if self.classes.shape != (n_classes,):
            message = f"Expected {n_classes} classes, one a logit; got {self.classes.tolist()}."
            raise InvalidInputError(message)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Class probabilities."""
        return (PROBA,)

    @property
    def fingerprint(self) -> str:
        """Digest of the settings and the weights."""
        weights = {name: v.cpu().numpy() for name, v in self.model.state_dict().items()}
        return fingerprint_inputs([self.model.describe(), weights, self.classes])

    def _predict(self, X: MergedGraphs | DistilledGraphs) -> Mapping[str, np.ndarray]:
        merged = X.merged() if isinstance(X, DistilledGraphs) else X
        logits = torch.from_numpy(predict_logits(self.model, merged))
        return {"proba": logits.softmax(dim=1).numpy()}


def label_by_committee(
    distilled: DistilledGraphs, teachers: Sequence[Teacher] | TeacherEnsemble
) -> DistilledGraphs:
    """Let teachers say how likely each class is for each set of trees.

    Parameters
    ----------
    distilled : DistilledGraphs
        The sets.
    teachers : sequence of Teacher, or TeacherEnsemble
        `ClassifierTeacher` of networks of no more layers than the trees have hops.

    Returns
    -------
    DistilledGraphs
        The same with ``soft_labels``: the consensus of the teachers.

    Raises
    ------
    InvalidInputError
        If the teachers know other classes.
    """
    ensemble = (
        teachers
        if isinstance(teachers, TeacherEnsemble)
        else TeacherEnsemble(list(teachers), progress=False)
    )
    if ensemble.classes is not None and not np.array_equal(ensemble.classes, distilled.classes):
        message = (
            f"Expected teachers of the classes {distilled.classes.tolist()}, in this order; got "
            f"{ensemble.classes.tolist()}."
        )
        raise InvalidInputError(message)
    proba = ensemble.consensus(distilled).mean["proba"]
    return replace(distilled, soft_labels=rounded_labels(proba))
