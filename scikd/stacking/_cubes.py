"""Class probabilities of several models, in whichever form they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
from scipy.special import expit, softmax

from scikd.exceptions import InvalidInputError
from scikd.stacking._predictions import Predictions
from scikd.stacking.kernels import fill_rows
from scikd.stacking.pool_kernels import first_unusable, normalise

__all__ = ["Inputs", "as_cube", "blocks", "check_inputs", "linear_pool"]

Inputs = Literal["proba", "logit"]
_TOLERANCE = 1e-3  # how far from one the probabilities of a row may sum: float16, rounded files


def check_inputs(inputs: Any) -> Inputs:
    """Return what the predictions are, or raise InvalidInputError."""
    if inputs not in {"proba", "logit"}:
        message = f"Expected inputs to be 'proba' or 'logit'; got {inputs!r}."
        raise InvalidInputError(message)
    return cast("Inputs", inputs)


def as_cube(predictions: Predictions, inputs: Inputs) -> Predictions:
    """Return probabilities of shape (n_samples, n_models, n_classes).

    A matrix of shape (n_samples, n_models) holds the probabilities, or log-odds, of the second of
    two classes.
    """
    values = predictions.values
    if values.ndim == 2:
        second = expit(values) if inputs == "logit" else values
        values = np.stack([1.0 - second, second], axis=2)
    elif inputs == "logit":
        values = softmax(values, axis=2)
    cube = replace(predictions, values=values)
    for rows, block in cube.raw_blocks():
        _check_block(block, cube.names, rows.start)
    return cube


def _check_block(block: np.ndarray, names: tuple[str, ...], start: int) -> None:
    """Raise InvalidInputError unless the rows are probabilities, or NaN."""
    row, model = first_unusable(np.ascontiguousarray(block), _TOLERANCE)
    if row >= 0:
        message = (
            f"Expected probabilities, non-negative and summing to one; {names[model]!r} gives "
            f"{block[row, model].tolist()} in row {start + row}. Scores and log-odds go in with "
            "inputs='logit'."
        )
        raise InvalidInputError(message)


def blocks(cube: Predictions) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of rows with probabilities that sum to one, float64; NaN where missing."""
    for rows, block in cube.raw_blocks():
        copy = np.array(block, dtype=np.float64, order="C")
        normalise(copy)
        yield rows, copy


def linear_pool(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean over models; missing ones count as the mean of those present.

    Parameters
    ----------
    block : ndarray of shape (n_rows, n_models, n_classes)
        Probabilities, NaN where missing. It is filled in place.
    weights : ndarray of shape (n_models,)
        Weights that sum to one.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
        Probabilities.
    """
    fill_rows(block)
    pooled: np.ndarray = weights @ block
    return pooled
