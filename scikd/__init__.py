"""scikd: teacher ensembles, their consensus, and a student distilled from it.

Nothing is imported until it is used, so that ``import scikd`` costs nothing and every optional
dependency stays optional.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scikd.consensus import Consensus
    from scikd.ensemble import TeacherEnsemble
    from scikd.harmonise import Harmoniser
    from scikd.labels import LabelStore
    from scikd.students import DistilledClassifier, DistilledRegressor
    from scikd.teachers import as_teacher

# Read by the build as well, so this line is the only place that knows the version.
__version__ = "0.1.0.dev0"

__all__ = [
    "Consensus",
    "DistilledClassifier",
    "DistilledRegressor",
    "Harmoniser",
    "LabelStore",
    "TeacherEnsemble",
    "__version__",
    "as_teacher",
]

# Where each public name lives.
_NAMES = {
    "Consensus": "scikd.consensus",
    "DistilledClassifier": "scikd.students",
    "DistilledRegressor": "scikd.students",
    "Harmoniser": "scikd.harmonise",
    "LabelStore": "scikd.labels",
    "TeacherEnsemble": "scikd.ensemble",
    "as_teacher": "scikd.teachers",
}

_SUBMODULES = frozenset(
    {
        "aggregation",
        "cli",
        "consensus",
        "demo",
        "ensemble",
        "exceptions",
        "finance",
        "fingerprints",
        "folds",
        "graphs",
        "harmonise",
        "kernels",
        "labels",
        "md",
        "nested",
        "objectives",
        "out_of_fold",
        "parallel",
        "persistence",
        "quantities",
        "report",
        "stack_commands",
        "stacking",
        "students",
        "teachers",
        "testing",
    }
)


def __getattr__(name: str) -> Any:
    """Import a public name or a submodule when it is first asked for (PEP 562)."""
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
        globals()[name] = value  # the next access does not come here
        return value
    if name in _SUBMODULES:
        return import_module(f"scikd.{name}")
    message = f"module 'scikd' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """List what can be asked for, imported or not."""
    return sorted({*globals(), *__all__, *_SUBMODULES})
