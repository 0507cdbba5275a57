"""Values of options: converted to the type of their field, from YAML or from text."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

__all__ = ["coerced", "spelled"]

NOTHING = ("none", "null", "~", "")  # spellings of None, where None is allowed


def coerced(value: Any, kind: Any) -> Any:
    """Return the value as this type, from YAML or from text, or raise ValueError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, arguments)
    if origin is Literal:
        return _one_of(value, arguments)
    if origin in (tuple, list):
        items = value if isinstance(value, (list, tuple)) else [value]
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(items) != len(arguments):
                raise ValueError
            return tuple(coerced(item, k) for item, k in zip(items, arguments, strict=True))
        return origin(coerced(item, arguments[0]) for item in items)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError
        return {coerced(k, arguments[0]): coerced(v, arguments[1]) for k, v in value.items()}
    return _coerce_scalar(value, kind)


def _coerce_union(value: Any, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and (value is None or str(value).lower() in NOTHING):
        return None
    for kind in kinds:
        if type(value) is kind:
            return value
    for kind in kinds:
        if kind is not type(None):
            try:
                return coerced(value, kind)
            except ValueError:
                continue
    raise ValueError


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    raise ValueError


def _coerce_scalar(value: Any, kind: Any) -> Any:
    if kind is Any:
        return value
    if kind is bool:
        known = {"true": True, "false": False}
        if not isinstance(value, bool) and str(value).lower() not in known:
            raise ValueError
        return value if isinstance(value, bool) else known[str(value).lower()]
    if kind in (str, Path):
        if not isinstance(value, (str, Path)):
            raise ValueError
        return kind(value)
    if kind is int and type(value) is int:
        return value  # however large
    if type(value) not in (int, float, str):
        raise ValueError
    number = float(value)  # also of text: to YAML 1e-3 is text
    if math.isnan(number) or (kind is int and not number.is_integer()):
        raise ValueError
    return number if kind is float else int(number)


def spelled(kind: Any) -> str:
    """Say in words what values a type has."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "none"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spelled(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"{len(arguments)} values, each {spelled(arguments[0])}"
    if origin in (tuple, list):
        return f"a list, each {spelled(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(kind, "a path" if kind is Path else str(kind))
