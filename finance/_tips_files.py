"""A fitted `TIPSRanker` on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from scikd.aggregation import Harmonised, InverseVariance
from scikd.exceptions import CorruptFileError
from scikd.harmonise import Harmoniser
from scikd.persistence import load_bundle, save_bundle

from ._consensus import rule_of
from .storage import ranker_arrays, ranker_of

if TYPE_CHECKING:
    from .tips import TIPSRanker

__all__ = ["load_tips", "save_tips"]

KIND = "scikd.finance.TIPSRanker"
Kind = TypeVar("Kind", bound="TIPSRanker")


def save_tips(ranker: TIPSRanker, path: str | Path) -> Path:
    """Save a fitted ranker; see `TIPSRanker.save`."""
    models = {"student": ranker.student_}
    models |= {f"teacher/{name}": model for name, model in ranker.teachers_.items()}
    arrays = {
        f"{name}/{key}": values
        for name, model in models.items()
        for key, values in ranker_arrays(model).items()
    }
    options = ranker.get_params(deep=False) | {"folder": None, "progress": False}
    for name in ("consensus", "random_state"):
        options[name] = options[name] if isinstance(options[name], str | int) else None
    given = ranker.teachers
    options["teachers"] = None if given is None or isinstance(given, Mapping) else list(given)
    parameters = {
        "options": options,
        "settings": {name: asdict(model.settings) for name, model in models.items()},
        "names": list(ranker.teachers_),
        "histories": ranker.histories_,
        "features": None if ranker.features_ is None else list(ranker.features_),
        "known_until": None if ranker.known_until_ is None else str(ranker.known_until_),
        "n_features_in": getattr(ranker, "n_features_in_", None),
        "variances": list(ranker.variances_),
    }
    return save_bundle(path, kind=KIND, parameters=parameters, arrays=arrays)


def load_tips(kind: type[Kind], path: str | Path) -> Kind:
    """Load a fitted ranker; see `TIPSRanker.load`."""
    bundle = load_bundle(path, kind=KIND)
    known = bundle.parameters
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, values in bundle.arrays.items():
        owner, _, key = name.rpartition("/")
        arrays.setdefault(owner, {})[key] = values
    try:
        ranker = kind(**known["options"])
        models = {
            name: ranker_of(settings, arrays[name], path)
            for name, settings in known["settings"].items()
        }
        ranker.student_ = models["student"]
        ranker.teachers_ = {name: models[f"teacher/{name}"] for name in known["names"]}
        ranker.histories_, features = known["histories"], known["features"]
        ranker.features_ = None if features is None else tuple(features)
        ranker.variances_ = tuple(known["variances"])
        until = known["known_until"]
        ranker.known_until_ = None if until is None else np.datetime64(until, "D")
        if known["n_features_in"] is not None:
            ranker.n_features_in_ = known["n_features_in"]
    except (KeyError, TypeError) as error:
        message = f"{path} does not hold a whole TIPSRanker: {error!r}. Make it again."
        raise CorruptFileError(message) from error
    ranker.consensus_ = _rule(ranker.consensus, ranker.variances_)
    return ranker


def _rule(consensus: Any, variances: tuple[float, ...]) -> Any:
    if variances:
        return Harmonised(Harmoniser("zscore", per="group"), InverseVariance(variances))
    return None if consensus is None else rule_of(consensus)
