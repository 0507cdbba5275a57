"""Classifiers of graphs on disk: a bundle of settings and arrays, never pickle."""

from __future__ import annotations

from pathlib import Path

import torch

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import load_bundle, save_bundle

from .features import FeatureColumns
from .models import ClassifierSettings, GraphClassifier

__all__ = ["load_classifier", "save_classifier"]

KIND = "scikd.graphs.GraphClassifier"


def save_classifier(model: GraphClassifier, path: str | Path) -> Path:
    """Save a classifier as a bundle.

    Parameters
    ----------
    model : GraphClassifier
        What to save, in the precision that it has.
    path : str or pathlib.Path
        Folder to make; see `scikd.persistence.save_bundle`.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    StorageError
        If it cannot be written; an older bundle stays as it was.
    """
    arrays = {name: values.detach().cpu().numpy() for name, values in model.state_dict().items()}
    return save_bundle(path, kind=KIND, parameters=model.describe(), arrays=arrays)


def load_classifier(path: str | Path) -> GraphClassifier:
    """Load what `save_classifier` wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder.

    Returns
    -------
    GraphClassifier
        On the CPU, in evaluation mode.

    Raises
    ------
    StorageError, CorruptFileError, SchemaError
        If it is not there, was cut short or edited, or was written by a newer scikd.
    """
    bundle = load_bundle(path, kind=KIND)
    arrays = {name: torch.from_numpy(values) for name, values in bundle.arrays.items()}
    parameters = bundle.parameters
    try:
        edges = parameters["edge_features"]
        model = GraphClassifier(
            ClassifierSettings(**parameters["settings"]),
            FeatureColumns(**parameters["node_features"]),
            None if edges is None else FeatureColumns(**edges),
            metadata=parameters["metadata"],
        ).to(arrays["head.weight"].dtype)
        model.load_state_dict(arrays)
    except (KeyError, TypeError, RuntimeError, InvalidInputError) as error:
        message = f"{path} is no classifier that this version can build: {error}. Save it again."
        raise CorruptFileError(message) from error
    return model.eval()
