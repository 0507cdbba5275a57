"""The families of networks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scikd.exceptions import InvalidInputError

from .equivariant import Equivariant, EquivariantSettings
from .get import GET, GETSettings
from .model import Architecture

__all__ = ["NetworkSettings", "build_architecture", "rebuild_architecture"]

NetworkSettings = GETSettings | EquivariantSettings

FAMILIES: dict[str, tuple[type[Any], type[Any]]] = {
    "GET": (GET, GETSettings),
    "Equivariant": (Equivariant, EquivariantSettings),
}


def build_architecture(settings: NetworkSettings) -> Architecture:
    """Return a network of these sizes, with first weights."""
    for network, kind in FAMILIES.values():
        if isinstance(settings, kind):
            made: Architecture = network(settings)
            return made
    kinds = " or ".join(kind.__name__ for _, kind in FAMILIES.values())
    message = f"Expected {kinds} for the model; got {type(settings).__name__}."
    raise InvalidInputError(message)


def rebuild_architecture(name: str, settings: Mapping[str, Any]) -> Architecture:
    """Return the network that has this name in a file, with first weights."""
    if name not in FAMILIES:
        names = " or ".join(repr(known) for known in FAMILIES)
        message = f"Expected the architecture {names}; got {name!r}."
        raise InvalidInputError(message)
    return build_architecture(FAMILIES[name][1](**settings))
