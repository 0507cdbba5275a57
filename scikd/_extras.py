"""Import of optional dependencies: one helper, one kind of error."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from scikd.exceptions import MissingExtraError

__all__ = ["require"]


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted name of the module to import.
    extra : str
        The extra of scikd that installs it.
    feature : str
        What the caller wanted to do, as the subject of a sentence ("Plots").

    Returns
    -------
    types.ModuleType
        The imported module.

    Raises
    ------
    MissingExtraError
        If the module's top-level package is not installed. An ImportError from within an installed
        package is not hidden.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        message = (
            f"{feature} needs the package {package!r}, which is not installed. "
            f'Run: pip install "scikd[{extra}]"'
        )
        raise MissingExtraError(message, name=package) from error
