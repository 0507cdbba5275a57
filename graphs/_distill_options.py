"""The parameters of `Mirage` as a dataclass, from which the flags of ``scikd graphs distill`` come.

Names, types, defaults and help are those of `Mirage`; nothing is written twice.
"""

from __future__ import annotations

import inspect
from dataclasses import field, make_dataclass
from typing import Any, get_type_hints

from scikd._options import plain_options
from scikd.exceptions import InvalidInputError

from .mirage import Mirage

__all__ = ["DistillOptions", "mirage_of"]

# What a command line spells in another way.
_SPELLED = {
    "min_support": (
        "In how many graphs of a class a set is frequent: a number of graphs (20), a share of the "
        "class (0.1), or one of these for each class, with commas (20,35). With a budget, the "
        "lowest support that is looked at. By default 0.1 where there is no budget."
    )
}
_HINTS = get_type_hints(Mirage.__init__)

DistillOptions: Any = make_dataclass(
    "DistillOptions",
    [
        (
            name,
            str | None if name in _SPELLED else _HINTS[name],
            field(
                default=parameter.default,
                metadata={"help": _SPELLED[name]} if name in _SPELLED else {},
            ),
        )
        for name, parameter in inspect.signature(Mirage).parameters.items()
    ],
    namespace={"__doc__": Mirage.__doc__},
    frozen=True,
)


def mirage_of(options: Any) -> Mirage:
    """Return the `Mirage` of these options.

    Raises
    ------
    InvalidInputError
        If ``min_support`` is no number, and no numbers with commas.
    """
    parameters = plain_options(options)
    text = parameters["min_support"]
    if text is not None:
        values = [_number(part) for part in text.split(",")]
        parameters["min_support"] = values if len(values) > 1 else values[0]
    return Mirage(**parameters)


def _number(text: str) -> int | float:
    """Return "20" as a number of graphs and "0.2" as a share."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    message = f"Expected --min-support such as 20, 0.1 or 20,35; got {text!r} in it."
    raise InvalidInputError(message)
