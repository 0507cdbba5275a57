"""Where a training stands, on disk: a bundle from which it goes on to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import load_bundle, save_bundle

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    path: Path,
    *,
    kind: str,
    standing: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> None:
    """Write everything that the next step depends on, as a whole or not at all.

    The random numbers of torch are those of the process.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the bundle.
    kind : str
        Of the bundle.
    standing : mapping
        How far the training has come; JSON values.
    modules : mapping of str to Module
        The weights, by what they are: trained, averaged, best.
    optimizer : Optimizer
        Its running means.
    settings : mapping
        What a training that goes on from here must have been given; JSON values.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    import torch  # noqa: PLC0415 - the core does without it

    arrays = {
        f"{name}/{key}": _array(value)
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for number, values in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{number}/{key}": _array(v) for key, v in values.items()}
    arrays["random/cpu"] = torch.get_rng_state().numpy()
    if torch.cuda.is_available():
        arrays["random/cuda"] = torch.cuda.get_rng_state().numpy()
    parameters = {"standing": standing, "settings": settings}
    save_bundle(path, kind=kind, parameters=parameters, arrays=arrays)


def load_checkpoint(
    path: Path,
    *,
    kind: str,
    modules: Mapping[str, nn.Module],
    optional: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    digests: Sequence[str] = (),
    advice: str,
) -> dict[str, Any]:
    """Put everything back as `save_checkpoint` found it.

    Parameters
    ----------
    path, kind, modules, optimizer, settings
        As of `save_checkpoint`; modules and optimizer are changed in place.
    optional : mapping of str to Module or None, default=None
        Further modules; one that was not saved stays as it is.
    digests : sequence of str, default=()
        Names of settings whose values say nothing to a reader, such as of digests of data.
    advice : str
        What to do where the settings were others: the end of the message.

    Returns
    -------
    dict
        The standing.

    Raises
    ------
    InvalidInputError
        If the training that was stopped had other settings; the message lists them.
    StorageError, CorruptFileError, SchemaError
        If it cannot be read, was cut short or edited, or was written by a newer scikd.
    """
    import torch  # noqa: PLC0415 - as above

    bundle = load_bundle(path, kind=kind)
    changed = _changes(bundle.parameters.get("settings", {}), settings, digests)
    if changed:
        message = (
            f"The training that was begun in {path.parent} is not this one: {'; '.join(changed)}. "
            f"{advice}"
        )
        raise InvalidInputError(message)
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for name, values in bundle.arrays.items():
        owner, _, key = name.partition("/")
        tensors.setdefault(owner, {})[key] = torch.from_numpy(values)
    try:
        for name, module in modules.items():
            module.load_state_dict(tensors[name])
        for name, module in (optional or {}).items():
            if name in tensors:
                module.load_state_dict(tensors[name])
        running: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.get("optimizer", {}).items():
            number, _, key = name.partition("/")
            running.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": running})
        torch.set_rng_state(tensors["random"]["cpu"])
        standing: dict[str, Any] = bundle.parameters["standing"]
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        message = (
            f"{path} is no checkpoint of this training: {error}. Delete it, or choose another "
            "folder."
        )
        raise CorruptFileError(message) from error
    if "cuda" in tensors["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random"]["cuda"])
    return standing


def _changes(old: Any, new: Mapping[str, Any], digests: Sequence[str]) -> list[str]:
    before, now = dict(_flat(old)), dict(_flat(new))
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return [
        f"the {name} were others"
        if name in digests
        else f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in names
    ]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested mappings as pairs of a dotted name and a value; a tuple is a list."""
    if isinstance(value, Mapping):
        parts = [_flat(item, f"{prefix}{key}.") for key, item in value.items()]
        return [pair for part in parts for pair in part]
    return [(prefix.rstrip("."), list(value) if isinstance(value, tuple) else value)]


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
