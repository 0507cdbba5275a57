"""Weights of the public BAMBOO release, read from plain arrays into a `ForceField`.

The release keeps its arrays under state-dict names, with ``/`` or ``.`` between the parts, in units
of kcal/mol. Here they become eV: the last layers of the energy, electronegativity and hardness
heads are scaled, which leaves the network as it is.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scikd._atomic import storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import MANIFEST

from ._geometry import LARGEST_NUMBER
from .dispersion import D3CSO
from .electrostatics import Electrostatics
from .get import GET, GETSettings
from .model import ForceField
from .storage import save_force_field
from .units import KCAL_PER_MOL

__all__ = ["from_bamboo", "import_bamboo"]

COULOMB_OF_THE_RELEASE = 332.0635  # kcal Å/(mol e²)
ELEMENTS = (1, 3, 6, 8, 9, 15)  # H Li C O F P: those of the released model
_PREFIXES = {
    "atom_embtab.": "embedding.",
    "dis_rbf.": "radial.",
    "dv_proj.0.": "filter.",
    "charge_mlp.": "charge_head.",
    "energy_mlp.": "energy_head.",
    "pred_electronegativity_mlp.": "electronegativity_head.",
    "pred_electronegativity_hardness_mlp.": "hardness_head.",
    "layer_norm.": "norm.",
    "qkv_proj.": "qkv.",
    "o_proj.": "out.",
    "vec_proj.": "vec.",
}
_PRIORS = ("oplsaa_charge.weight", "electronegativity_table.weight")
_TABLES = ("c6_emb.weight", "r0_emb.weight")  # constants of the dispersion, which `D3CSO` has


def import_bamboo(path: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Read released BAMBOO weights from an ``.npz`` file, and save them as a force field.

    Parameters
    ----------
    path : str or pathlib.Path
        NumPy archive of the arrays of a model's state dict.
    output : str or pathlib.Path
        Folder of the force field to make.
    overwrite : bool, default=False
        Whether to replace a force field that is there.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    CorruptFileError
        If the file is no NumPy archive, or was cut short.
    InvalidInputError
        If its arrays are not those of a BAMBOO model (every misfit is listed), or there is a force
        field in the output.
    StorageError
        If the file cannot be read, or the result cannot be written.
    """
    if (Path(output) / MANIFEST).exists() and not overwrite:
        message = (
            f"There is a model in {output} already. Choose another folder, or replace it: "
            "overwrite=True, on the command line --overwrite."
        )
        raise InvalidInputError(message)
    return save_force_field(from_bamboo(_read_archive(Path(path))), output)


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, EOFError, AttributeError, TypeError) as error:
        # NumPy takes what it does not know for a pickle, and advises to load it; nobody should.
        unknown = "pickle" in str(error) or isinstance(error, TypeError)
        raise _no_archive(path, "it is something else" if unknown else str(error)) from error
    except OSError as error:
        raise storage_error(error, "read", path) from error
    others = [name for name, values in arrays.items() if not isinstance(values, np.ndarray)]
    if others:
        raise _no_archive(path, f"it holds {', '.join(others[:3])}")
    return arrays


def _no_archive(path: Path, problem: str) -> CorruptFileError:
    return CorruptFileError(
        f"Expected {path} to be an archive of plain NumPy arrays (.npz), but {problem}. Export the "
        "weights again, as numpy.savez(path, **arrays) does."
    )


def from_bamboo(
    arrays: Mapping[str, np.ndarray],
    *,
    electrostatics: Electrostatics | None = None,
    dispersion: D3CSO | None = None,
) -> ForceField:
    """Return a force field with released BAMBOO weights.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The model's state dict.
    electrostatics : Electrostatics or None, default=None
        None is the damped Coulomb energy of the release with a full Ewald sum.
    dispersion : D3CSO or None, default=None
        None is the default `D3CSO`, smooth at its cutoff.

    Returns
    -------
    ForceField
        With the published rule of forces, and labels said to be without dispersion.

    Raises
    ------
    InvalidInputError
        If the arrays are not those of a BAMBOO model; every misfit is listed.
    """
    given = {name.replace("/", "."): torch.from_numpy(np.array(a)) for name, a in arrays.items()}
    priors = [_by_number(given.pop(name, None)) for name in _PRIORS]
    for name in _TABLES:
        given.pop(name, None)
    weights = _renamed(given)
    settings = _settings(weights)
    # chi = (sqrt(chi_table) + MLP)^2 in kcal/mol: in eV the square root takes the root of the unit.
    root = KCAL_PER_MOL**0.5
    network = GET(
        settings,
        charge_prior=priors[0],
        electronegativity_prior=priors[1].clamp(min=0.0).sqrt() * root,
    )
    last = f".{2 * settings.n_hidden}."
    units = {"energy_head": KCAL_PER_MOL, "electronegativity_head": root, "hardness_head": root}
    for name in weights:
        head = name.split(".", 1)[0]
        if head in units and last in name:
            weights[name] = weights[name] * units[head]
    _load(network, weights)
    return ForceField(
        network,
        elements=ELEMENTS,
        electrostatics=electrostatics
        or Electrostatics(constant=COULOMB_OF_THE_RELEASE * KCAL_PER_MOL),
        dispersion=dispersion or D3CSO(),
        forces="published",
        metadata={"source": "released BAMBOO weights", "level": "B3LYP/def2-SVPD, gas phase"},
    ).eval()


def _by_number(table: Tensor | None) -> Tensor:
    """Return a table of the release by atomic number, as the released model reads it.

    Its rows start at hydrogen, but the model looks up row Z for the element Z, so that every
    element gets its neighbour's number. The weights were trained with that slip and need it.
    """
    full = torch.zeros(LARGEST_NUMBER + 1)
    if table is not None:
        full[: len(table)] = table[:, 0]
    return full


def _renamed(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    middle = {int(name.split(".")[1]) for name in given if name.startswith("attns.")}
    places = {"first_attn.": "layers.0.", "last_attn.": f"layers.{len(middle) + 1}."}
    places |= {f"attns.{i}.": f"layers.{i + 1}." for i in middle}
    weights = {}
    for name, values in given.items():
        new = name
        for old, ours in (places | _PREFIXES).items():
            if new.startswith(old) or f".{old}" in new:
                new = new.replace(old, ours, 1)
        weights[new] = values
    return weights


def _settings(weights: Mapping[str, Tensor]) -> GETSettings:
    try:
        dim = weights["embedding.weight"].shape[1]
        n_radial = weights["radial.means"].shape[0]
    except KeyError as error:
        message = (
            f"Expected the arrays of a BAMBOO model, but {error} is missing; got "
            f"{', '.join(sorted(weights)[:8])}{', ...' if len(weights) > 8 else ''}. Export the "
            "whole state dict."
        )
        raise InvalidInputError(message) from error
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    hidden = sum(1 for name in weights if name.startswith("energy_head.") and ".weight" in name) - 1
    return GETSettings(
        dim=dim,
        n_heads=dim // 4,  # heads of width 4, always
        n_layers=len(layers),
        n_radial=n_radial,
        n_hidden=hidden,
        envelope="cosine",
    )


def _load(network: GET, weights: dict[str, Tensor]) -> None:
    expected = {n: tuple(v.shape) for n, v in network.state_dict().items() if "prior" not in n}
    found = {name: tuple(values.shape) for name, values in weights.items()}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not known" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {found[name]}, expected {expected[name]}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if problems:
        message = f"These are not the arrays of a BAMBOO model: {'; '.join(sorted(problems))}."
        raise InvalidInputError(message)
    network.load_state_dict(weights, strict=False)
