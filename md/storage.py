"""Force fields on disk: a bundle of settings and arrays, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import MANIFEST, load_bundle, save_bundle

from ._architectures import rebuild_architecture
from .dispersion import D3BJ, D3CSO
from .electrostatics import Electrostatics
from .model import ForceField
from .repulsion import ZBL

__all__ = ["describe", "load_force_field", "rebuild", "save_force_field"]

KIND = "scikd.md.ForceField"
_TERMS: dict[str, type[Any]] = {term.__name__: term for term in (Electrostatics, D3CSO, D3BJ, ZBL)}
_UNITS = {"references": "eV"}


def save_force_field(force_field: ForceField, path: str | Path) -> Path:
    """Save a force field as a bundle.

    Parameters
    ----------
    force_field : ForceField
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
    arrays = {
        f"architecture.{name}": values.detach().cpu().numpy()
        for name, values in force_field.architecture.state_dict().items()
    }
    arrays["references"] = force_field.references.numpy()
    return save_bundle(
        path, kind=KIND, parameters=describe(force_field), arrays=arrays, units=_UNITS
    )


def describe(force_field: ForceField) -> dict[str, Any]:
    """Return all settings of a force field as JSON values."""
    architecture = force_field.architecture
    return {
        "architecture": type(architecture).__name__,
        "settings": architecture.describe(),
        "elements": list(force_field.elements),
        "electrostatics": _plain(force_field.electrostatics),
        "dispersion": _plain(force_field.dispersion),
        "repulsion": _plain(force_field.repulsion),
        "forces": force_field.force_rule,
        "dispersion_in_labels": force_field.dispersion_in_labels,
        "metadata": force_field.metadata,
    }


def rebuild(parameters: Mapping[str, Any]) -> ForceField:
    """Return the force field that `describe` described, with untrained weights."""
    return ForceField(
        rebuild_architecture(parameters["architecture"], parameters["settings"]),
        elements=parameters["elements"],
        electrostatics=_term(parameters["electrostatics"]),
        dispersion=_term(parameters["dispersion"]),
        repulsion=_term(parameters["repulsion"]),
        forces=parameters["forces"],
        dispersion_in_labels=parameters["dispersion_in_labels"],
        metadata=parameters["metadata"],
    )


def load_force_field(path: str | Path = "default") -> ForceField:
    """Load what `save_force_field` wrote.

    Parameters
    ----------
    path : str or pathlib.Path, default="default"
        The folder, or that of a training, which holds it as "model"; "default" is the model that
        comes with scikd.

    Returns
    -------
    ForceField
        On the CPU, in evaluation mode.

    Raises
    ------
    StorageError, CorruptFileError, SchemaError
        If it is not there, was cut short or edited, or was written by a newer scikd.
    """
    if path == "default":
        path = Path(str(resources.files(__package__ or "scikd.md"))) / "models" / "default"
    inner = Path(path) / "model"
    if (inner / MANIFEST).is_file() and not (Path(path) / MANIFEST).exists():
        path = inner
    bundle = load_bundle(path, kind=KIND)
    arrays = {name: torch.from_numpy(values) for name, values in bundle.arrays.items()}
    try:
        references = arrays.pop("references")
        force_field = rebuild(bundle.parameters)
        weights = {name.removeprefix("architecture."): v for name, v in arrays.items()}
        architecture = force_field.architecture
        architecture.to(weights["embedding.weight"].dtype)
        architecture.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError, InvalidInputError) as error:
        message = f"{path} is no force field that this version can build: {error}. Save it again."
        raise CorruptFileError(message) from error
    force_field.references = references
    return force_field.eval()


def _plain(term: Any) -> dict[str, Any] | None:
    return None if term is None else {"kind": type(term).__name__, **asdict(term)}


def _term(plain: Mapping[str, Any] | None) -> Any:
    if plain is None:
        return None
    settings = dict(plain)
    return _TERMS[settings.pop("kind")](**settings)
