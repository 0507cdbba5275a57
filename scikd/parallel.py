"""The one place where work fans out: joblib, so that the user chooses the backend.

``joblib.parallel_config(backend="dask" | "ray" | "loky" | "threading", n_jobs=...)`` around any
call moves it to another backend, or to a cluster, without a change of code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError

__all__ = ["fan_out", "one_by_one"]

Result = TypeVar("Result")


def fan_out(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    *,
    n_jobs: int | None = None,
    description: str = "",
    progress: Progress = "auto",
) -> Iterator[Result]:
    """Call ``function(*task)`` for every task, and yield the results in the order of the tasks.

    Results are yielded as they come, so a caller that folds them into an accumulator never holds
    them all.

    Parameters
    ----------
    function : callable
        A module-level function (a process backend must be able to send it).
    tasks : sequence of tuple
        Positional arguments, one tuple a call.
    n_jobs : int or None, default=None
        As in joblib: None is 1 unless a ``joblib.parallel_config`` context says otherwise.
    description : str, default=""
        What is being done, for the progress bar.
    progress : {"auto", True, False}, default="auto"
        See `scikd._progress.track`.

    Yields
    ------
    object
        ``function(*task)``, task by task.

    Raises
    ------
    InvalidInputError
        If ``n_jobs`` is 0.
    """
    if n_jobs == 0:
        raise InvalidInputError("Expected at least 1 job, or -1 for one per core; got 0.")
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(function)(*task) for task in tasks
    )
    yield from track(results, total=len(tasks), description=description, progress=progress)


def one_by_one(n_jobs: int | None = None) -> bool:
    """Say whether `fan_out` would call one after the other, in this process.

    Parameters
    ----------
    n_jobs : int or None, default=None
        As in `fan_out`.
    """
    return n_jobs != 0 and effective_n_jobs(n_jobs) == 1
