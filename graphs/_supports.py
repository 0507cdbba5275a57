"""In how many graphs of each class a set is frequent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["Support", "min_supports"]

AUTO_SUPPORT = 0.1  # of the graphs of a class, where neither budget nor support is given

Support = int | float | Sequence[int | float] | Mapping[Any, int | float]


def min_supports(wanted: Support | None, classes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return for each class in how many graphs a set is frequent."""
    values: list[Any]
    if isinstance(wanted, Mapping):
        missing = [label for label in classes.tolist() if label not in wanted]
        if missing:
            raise InvalidInputError(f"Expected min_support for every class; {missing} have none.")
        values = [wanted[label] for label in classes.tolist()]
    elif isinstance(wanted, Sequence | np.ndarray):
        values = list(wanted)
        if len(values) != len(classes):
            message = f"Expected {len(classes)} values of min_support; got {len(values)}."
            raise InvalidInputError(message)
    else:
        values = [AUTO_SUPPORT if wanted is None else wanted] * len(classes)
    found = []
    for value, size, label in zip(values, sizes.tolist(), classes.tolist(), strict=True):
        share = isinstance(value, float | np.floating)
        number = math.ceil(value * size - 1e-9) if share else value
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not (whole and 1 <= number <= size):
            message = (
                f"Expected min_support of class {label!r} from 1 to {size} graphs, or a share from "
                f"above 0.0 to 1.0; got {value!r}."
            )
            raise InvalidInputError(message)
        found.append(int(number))
    return np.array(found, dtype=np.int64)
