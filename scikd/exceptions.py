"""Every error that scikd raises on purpose.

Each is also the builtin that a caller would think of catching::

    ScikdError
    ├── InvalidInputError     (ValueError)    what the caller passed cannot be used
    ├── TeacherError          (ValueError)    a teacher failed; the message names it
    ├── StorageError          (OSError)       reading or writing failed (full disk, missing file)
    │   ├── CorruptFileError                  cut short, edited, or not a file of scikd
    │   ├── SchemaError                       written by a newer scikd
    │   └── MismatchedLabelsError             labels of another teacher, or of other inputs
    └── MissingExtraError     (ImportError)   an optional dependency is not installed

    ScikdWarning              (UserWarning)
    ├── DistillationWarning                   distilling is expected to hurt, or was declined
    ├── DoubtfulInputWarning                  what was passed can be used, but looks wrong
    ├── LookAheadWarning                      a backtest trades on what nobody could know in time
    ├── MissingPredictionsWarning             a teacher failed, and is left out there
    └── StackingWarning                       a combiner was found to overfit, and was declined
"""

from __future__ import annotations

__all__ = [
    "CorruptFileError",
    "DistillationWarning",
    "DoubtfulInputWarning",
    "InvalidInputError",
    "LookAheadWarning",
    "MismatchedLabelsError",
    "MissingExtraError",
    "MissingPredictionsWarning",
    "SchemaError",
    "ScikdError",
    "ScikdWarning",
    "StackingWarning",
    "StorageError",
    "TeacherError",
]


class ScikdError(Exception):
    """Base of every error that scikd raises on purpose."""


class InvalidInputError(ScikdError, ValueError):
    """What the caller passed cannot be used."""


class TeacherError(ScikdError, ValueError):
    """A teacher raised, or returned something unusable; the message names it."""


class StorageError(ScikdError, OSError):
    """Reading or writing failed: a full disk, a missing file, no permission."""


class CorruptFileError(StorageError):
    """A file was cut short, edited, or was never written by scikd."""


class SchemaError(StorageError):
    """A file was written by a newer scikd than the one that reads it."""


class MismatchedLabelsError(StorageError):
    """Stored labels belong to another teacher, or to other inputs."""


class MissingExtraError(ScikdError, ImportError):
    """An optional dependency is not installed."""


class ScikdWarning(UserWarning):
    """Base of every warning that scikd issues."""


class DistillationWarning(ScikdWarning):
    """Distilling is expected to hurt, or was declined."""


class DoubtfulInputWarning(ScikdWarning):
    """What the caller passed can be used, but looks wrong."""


class LookAheadWarning(ScikdWarning):
    """A backtest trades on what nobody could know in time."""


class MissingPredictionsWarning(ScikdWarning):
    """A teacher failed, and its predictions are left out where it did."""


class StackingWarning(ScikdWarning):
    """A combiner did worse than the plain mean on held-out rows, and was declined."""
