"""What cannot be among the parameters of TIPS, found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scikd._devices import choose_device
from scikd.exceptions import InvalidInputError

from ._consensus import rule_of
from .features import last_known
from .training import _training_problems

if TYPE_CHECKING:
    from .tips import TIPSRanker

__all__ = ["check_parameters"]

ALL = ("batch_size", "learning_rate", "method", "sharpness")
OF_STUDENT = ("student_epochs", "swa_epochs", "temperature", "smoothing", "truth_weight")


def check_parameters(ranker: TIPSRanker, *others: Callable[[], object]) -> None:
    """Raise unless teachers and student can be trained with these parameters; name all faults.

    Each of ``others`` raises where what it makes out of the parameters cannot be.
    """
    given = {name: getattr(ranker, name) for name in (*ALL, *OF_STUDENT, "teacher_epochs")}
    problems = _training_problems(given, "student_epochs")
    if not ranker.teacher_epochs > 0:
        problems.append(f"teacher_epochs is {ranker.teacher_epochs!r}, expected more than 0")
    if not 0 < ranker.calibration < 1:
        problems.append(f"calibration is {ranker.calibration!r}, expected a share between 0 and 1")
    if not ranker.every >= 1:
        problems.append(f"every is {ranker.every!r}, expected at least 1")
    faults = [f"Cannot train with these options: {'; '.join(problems)}."] if problems else []
    checks: list[Callable[[], object]] = [
        *others,
        lambda: rule_of(ranker.consensus),
        lambda: last_known(ranker.horizon, ranker.convention),
        lambda: choose_device(ranker.device),
    ]
    for check in checks:
        try:
            check()
        except InvalidInputError as error:
            faults.append(str(error))
    if faults:
        raise InvalidInputError(" ".join(faults))
