"""One training from files: on distilled graphs, or on graphs as they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scikd._manifest import encode_labels
from scikd.exceptions import InvalidInputError
from scikd.persistence import MANIFEST

from ._classes import labels_of
from ._datasets import Dataset, open_dataset
from ._train_options import settings_of, training_of
from .dag import MergedGraphs
from .distilled import DistilledGraphs
from .models import ClassifierSettings
from .preparation import Preparation
from .shards import fingerprint
from .training import TrainedClassifier, train_classifier

__all__ = ["TrainingRun", "train_from"]

logger = logging.getLogger(__name__)

DEPTH = 3  # layers where nothing says how many
PARTS = {"valid": "validation", "test": "test"}


@dataclass(frozen=True)
class TrainingRun:
    """What was trained, on what, and what it can be judged on.

    Attributes
    ----------
    result : TrainedClassifier
        The training.
    source : str
        What it was trained on, in words.
    parts : dict of str to MergedGraphs
        ``"validation"`` and ``"test"`` graphs, where there are any.
    """

    result: TrainedClassifier
    source: str
    parts: dict[str, MergedGraphs]


def train_from(
    source: str,
    options: Any,
    *,
    data: str | None = None,
    folder: Path | None = None,
    reading: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Train on what lies at a path.

    Parameters
    ----------
    source : str
        Folder of distilled graphs; or a data set, as for `open_dataset`.
    options : TrainOptions
        The network, and how it is trained.
    data : str or None, default=None
        Data set whose validation and test graphs judge a training on distilled graphs.
    folder : pathlib.Path or None, default=None
        Keeps checkpoints.
    reading : mapping or None, default=None
        Further arguments of `open_dataset`.

    Raises
    ------
    StorageError, CorruptFileError
        If something cannot be read.
    InvalidInputError
        If the data do not fit together.
    """
    reading = reading or {}
    if not (Path(source) / MANIFEST).is_file():
        if data is not None:
            message = "--data goes with distilled graphs; graphs are judged by their own split."
            raise InvalidInputError(message)
        return _on_graphs(open_dataset(source, **reading), options, folder)
    distilled = DistilledGraphs.load(source)
    dataset = None if data is None else open_dataset(data, **reading)
    return _on_distilled(distilled, dataset, options, folder)


def _on_graphs(dataset: Dataset, options: Any, folder: Path | None) -> TrainingRun:
    graphs = dataset.part("train")
    classes = np.unique(labels_of(graphs))
    preparation = Preparation.of(graphs)
    settings = settings_of(options, len(classes), DEPTH)
    parts = _merged(dataset, ("train", *PARTS), preparation, classes, settings)
    train, source = parts.pop("train"), dataset.describe("train")
    result = train_classifier(
        train, settings, training_of(options), validation=parts.get("validation"), folder=folder
    )
    _note(result, source, classes, preparation)
    return TrainingRun(result, source, parts)


def _on_distilled(
    distilled: DistilledGraphs, dataset: Dataset | None, options: Any, folder: Path | None
) -> TrainingRun:
    # Without degrees in the labels, GCN reads them from one hop more.
    takes_one = options.model == "gcn" and distilled.trees.degrees is None
    depth = max(distilled.n_hops - takes_one, 1)
    settings = settings_of(options, len(distilled.classes), depth)
    parts: dict[str, MergedGraphs] = {}
    if dataset is not None:
        _check_split(distilled, dataset)
        parts = _merged(dataset, PARTS, distilled.preparation, distilled.classes, settings)
    result = train_classifier(
        distilled.merged(),
        settings,
        training_of(options),
        validation=parts.get("validation"),
        soft_labels=distilled.soft_labels,
        folder=folder,
    )
    facts = distilled.provenance
    source = f"{len(distilled):,} sets of trees, {distilled.n_bytes:,} bytes"
    if "part" in facts:
        source += f", of {facts['part']}"
    _note(result, source, distilled.classes, distilled.preparation)
    return TrainingRun(result, source, parts)


def _merged(
    dataset: Dataset,
    names: Any,
    preparation: Preparation,
    classes: np.ndarray,
    settings: ClassifierSettings,
) -> dict[str, MergedGraphs]:
    return {
        PARTS.get(name, name): MergedGraphs.of(
            preparation.apply(dataset.part(name)),
            settings.n_layers,
            degrees=settings.conv == "gcn",
            classes=classes,
        )
        for name in names
        if name in dataset.parts
    }


def _check_split(distilled: DistilledGraphs, dataset: Dataset) -> None:
    """See that there is something to judge by, and warn if it may have been distilled."""
    if not dataset.split:
        message = (
            "Expected --data with a split, for validation and test; these have none. Take the one "
            "that was distilled, such as --split random."
        )
        raise InvalidInputError(message)
    graphs = dataset.part("train")
    codes = np.unique(np.asarray(graphs.y), return_inverse=True)[1]
    if distilled.provenance.get("sha256") != fingerprint(graphs, codes):
        logger.warning(
            "What was distilled is not %s: scores are too high if test graphs were among it",
            dataset.describe("train"),
        )


def _note(
    result: TrainedClassifier, source: str, classes: np.ndarray, preparation: Preparation
) -> None:
    """Keep with the models what is needed to use them."""
    for model in (result.model, result.best):
        model.metadata |= {
            "classes": encode_labels(classes),
            "preparation": preparation.describe(),
            "trained_on": source,
        }
