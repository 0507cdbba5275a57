"""Class probabilities of several models, in whichever form they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from scipy.special import expit, softmax
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_y

from scikd.exceptions import InvalidInputError
from scikd.stacking._predictions import Predictions
from scikd.stacking._problem import Problem, check_problem
from scikd.stacking.kernels import fill_rows
from scikd.stacking.pool_kernels import first_unusable, normalise

__all__ = [
    "Inputs",
    "as_cube",
    "blocks",
    "check_classes",
    "class_problem",
    "linear_pool",
    "tag_cubes",
]

Inputs = Literal["proba", "logit"]
_TOLERANCE = 1e-3  # how far from one the probabilities of a row may sum: float16, rounded files


def as_cube(predictions: Predictions, inputs: Inputs) -> Predictions:
    """Return probabilities of shape (n_samples, n_models, n_classes).

    A matrix of shape (n_samples, n_models) holds the probabilities, or log-odds, of the second of
    two classes.

    Raises
    ------
    InvalidInputError
        If they are no probabilities, or `inputs` is neither of these.
    """
    if inputs not in {"proba", "logit"}:
        message = f"Expected inputs to be 'proba' or 'logit'; got {inputs!r}."
        raise InvalidInputError(message)
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


def class_problem(
    estimator: Any,
    predictions: Predictions,
    y: Any,
    sample_weight: Any = None,
    *,
    inputs: Inputs,
    **options: Any,
) -> Problem:
    """Check all that a classifier on predictions learns from.

    Parameters
    ----------
    estimator : object
        Named in errors.
    predictions : Predictions
        As for `as_cube`.
    y, sample_weight, **options
        As for `check_problem`.
    inputs : {"proba", "logit"}
        What the predictions are.

    Raises
    ------
    InvalidInputError, ValueError
        If these do not fit together, or there is one class only.
    """
    y = _check_y(y, estimator=estimator)
    check_classification_targets(y)
    kind = type_of_target(y)
    if predictions.values.ndim == 2 and kind == "multiclass":
        message = (
            "Only binary classification is supported. The type of the target is "
            f"{kind}. Pass probabilities of shape (n_samples, n_models, n_classes)."
        )
        raise InvalidInputError(message)
    cube = as_cube(predictions, inputs)
    problem = check_problem(cube, y, sample_weight, **options, classifier=True)
    classes = np.asarray(problem.P.classes)
    if len(classes) < 2:
        message = f"Expected at least two classes; got {classes.tolist()}."
        raise InvalidInputError(message)
    return problem


def check_classes(cube: Predictions, classes: np.ndarray) -> None:
    """Raise InvalidInputError unless the last axis holds these classes, as far as it says."""
    given = cube.classes
    alike = given is None or np.array_equal(given, classes)
    if cube.values.shape[2] != len(classes) or not alike:
        found = cube.values.shape[2] if given is None else given.tolist()
        message = f"Expected probabilities of the classes {classes.tolist()}; got those of {found}."
        raise InvalidInputError(message)


def tag_cubes(tags: Any) -> None:
    """Say in the tags of a classifier which predictions it takes."""
    tags.input_tags.three_d_array = True
    # A matrix can hold the probabilities of one of two classes only; more need a third axis.
    tags.classifier_tags.multi_class = False


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
