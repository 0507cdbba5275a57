"""The classes of graphs, and what cannot be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scikd.exceptions import InvalidInputError

from .graphset import GraphSet

__all__ = ["labels_of"]


def labels_of(graphs: GraphSet, y: Any = None) -> np.ndarray:
    """Return the class of each graph.

    Parameters
    ----------
    graphs : GraphSet
        The graphs.
    y : array-like of shape (n_graphs,) or None, default=None
        Classes, where they are not those of the data set.

    Raises
    ------
    InvalidInputError
        If a graph has none, or they are no classes: numbers with fractions, or of several types.
    """
    labels = graphs.y if y is None else np.asarray(y)
    if labels is None:
        raise InvalidInputError("Expected a class for each graph, as y or in the data; got none.")
    if labels.shape != (len(graphs),):
        message = f"Expected y of shape ({len(graphs)},), one class a graph; got {labels.shape}."
        raise InvalidInputError(message)
    missing = np.flatnonzero(pd.isna(labels))
    if len(missing):
        message = (
            f"Expected a class for each graph; {len(missing)} have NaN or None, the first is graph "
            f"{missing[0]}. Leave them out with select()."
        )
        raise InvalidInputError(message)
    if labels.dtype.kind == "f" and (broken := labels[labels != np.round(labels)]).size:
        message = (
            f"Expected classes; {broken.size} of {len(labels)} labels are measured numbers such as "
            f"{broken[0]}. Divide them into classes first: y = np.digitize(y, thresholds)."
        )
        raise InvalidInputError(message)
    if labels.dtype == object:
        try:
            np.sort(labels)
        except TypeError as error:
            message = f"Expected classes of one type, which sort: {error}."
            raise InvalidInputError(message) from error
    return labels
