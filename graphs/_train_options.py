"""The flags of ``scikd graphs train`` and ``evaluate``, made from the dataclasses of the library.

Names, types, defaults and help are those of `ClassifierSettings`, `ClassifierTraining` and
`EvaluationOptions`; what a command line spells in another way stands here.
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, field, fields, make_dataclass, replace
from typing import Any, get_type_hints

from scikd._options import plain_options

from .evaluation import EvaluationOptions
from .models import ClassifierSettings
from .training import ClassifierTraining

__all__ = ["EvaluateOptions", "TrainOptions", "evaluation_of", "settings_of", "training_of"]


def _own(cls: type[Any], *left_out: str) -> list[tuple[str, Any, Any]]:
    """Return the fields of a dataclass, "conv" as "model"."""
    hints = get_type_hints(cls)
    chosen = [part for part in fields(cls) if part.name not in left_out]
    return [
        ("model", hints["conv"], field(default=part.default, metadata={"help": "The network."}))
        if part.name == "conv"
        else (part.name, hints[part.name], field(default=part.default))
        for part in chosen
        if part.default is not MISSING
    ]


def _listed(name: str, text: str) -> tuple[str, Any, Any]:
    """Return a field of several values, with commas between them."""
    values = getattr(EvaluationOptions(), name)
    default = ",".join(map(str, values))
    return name, str, field(default=default, metadata={"help": f"{text} With commas."})


_LAYERS = {"help": "Number of convolutions; by default the depth of the trees, or 3."}

TrainOptions: Any = make_dataclass(
    "TrainOptions",
    [
        *_own(ClassifierSettings, "n_classes", "n_layers"),
        ("n_layers", int | None, field(default=None, metadata=_LAYERS)),
        *_own(ClassifierTraining),
    ],
    namespace={
        "__doc__": "\n".join(
            inspect.cleandoc(cls.__doc__ or "") for cls in (ClassifierSettings, ClassifierTraining)
        )
    },
    frozen=True,
)

_STEPS = {"help": "Steps of Adam, each on the whole of a small training set."}
_DEVICE = {"help": '"cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.'}
_FULL_STEPS = {"help": "Steps of Adam, each on a batch of the whole training set."}

EvaluateOptions: Any = make_dataclass(
    "EvaluateOptions",
    [
        _listed("budgets", "Bytes that the training data may take."),
        _listed("methods", "What is compared at each of them."),
        _listed("readouts", "Over the nodes of a graph: sum or mean."),
        *_own(EvaluationOptions, "budgets", "methods", "readouts", "training", "full_training"),
        ("steps", int, field(default=EvaluationOptions().training.steps, metadata=_STEPS)),
        (
            "full_steps",
            int,
            field(default=EvaluationOptions().full_training.steps, metadata=_FULL_STEPS),
        ),
        ("device", str, field(default=EvaluationOptions().training.device, metadata=_DEVICE)),
    ],
    namespace={"__doc__": EvaluationOptions.__doc__},
    frozen=True,
)


def settings_of(options: Any, n_classes: int, n_layers: int) -> ClassifierSettings:
    """Return the network of these options; the depth where they name none."""
    given = plain_options(options)
    given |= {"conv": options.model, "n_classes": n_classes}
    given["n_layers"] = n_layers if options.n_layers is None else options.n_layers
    names = [part.name for part in fields(ClassifierSettings)]
    return ClassifierSettings(**{name: given[name] for name in names})


def training_of(options: Any) -> ClassifierTraining:
    """Return how these options train."""
    names = [part.name for part in fields(ClassifierTraining)]
    return ClassifierTraining(**{name: getattr(options, name) for name in names})


def evaluation_of(options: Any) -> EvaluationOptions:
    """Return the protocol of these options."""
    given = plain_options(options)
    for name in ("budgets", "methods", "readouts"):
        given[name] = tuple(part.strip() for part in given[name].split(","))
    defaults = EvaluationOptions()
    given["conv"] = given.pop("model")
    steps, full_steps, device = (given.pop(name) for name in ("steps", "full_steps", "device"))
    given["training"] = replace(defaults.training, steps=steps, device=device)
    given["full_training"] = replace(defaults.full_training, steps=full_steps, device=device)
    return EvaluationOptions(**given)
