"""The demonstration: one page, a section for each domain that is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from scikd.exceptions import InvalidInputError

if TYPE_CHECKING:
    from scikd._progress import Progress
    from scikd.report import Report, Section

__all__ = ["NEEDS", "SECTIONS", "Demo", "Options", "installed_sections", "run_demo"]

SECTIONS = {
    "tabular": "scikd.demo.tabular",
    "stacking": "scikd.stack_commands.demo",
    "md": "scikd.md.demo",
    "graphs": "scikd.graphs.demo",
    "finance": "scikd.finance.demo",
}
"""Name of every section to the module whose function ``section(options)`` makes it."""

NEEDS = {
    "md": ("ase", "packmol", "tblite", "torch", "vesin"),
    "graphs": ("torch", "torch_geometric"),
    "finance": ("arch", "skfolio", "torch"),
}
"""Packages that a section needs beyond the base installation."""


@dataclass(frozen=True)
class Options:
    """What every section is told.

    Attributes
    ----------
    data : str
        Name of the table of the tabular section.
    seed : int
        Seed of splits, teachers and students.
    n_jobs : int
        How many processes, as in joblib.
    progress : {"auto", True, False}
        Whether to show progress.
    """

    data: str = "digits"
    seed: int = 0
    n_jobs: int = -1
    progress: Progress = "auto"


@dataclass(frozen=True, eq=False)
class Demo:
    """The outcome.

    Attributes
    ----------
    report : Report
        What was found.
    path : pathlib.Path
        The page that was written.
    """

    report: Report
    path: Path


def installed_sections() -> tuple[str, ...]:
    """Return the names of the sections whose packages are installed."""
    return tuple(n for n in SECTIONS if all(find_spec(package) for package in NEEDS.get(n, ())))


def run_demo(
    *,
    data: str = "digits",
    output: str | Path = "scikd-report.html",
    seed: int = 0,
    n_jobs: int = -1,
    progress: Progress = "auto",
    sections: tuple[str, ...] | None = None,
) -> Demo:
    """Run the demonstration and write its page.

    Parameters
    ----------
    data : str, default="digits"
        Name of a table: see `scikd.demo.tables.table_names`.
    output : str or pathlib.Path, default="scikd-report.html"
        The page to write.
    seed : int, default=0
        Seed of everything.
    n_jobs : int, default=-1
        As in joblib; -1 is all cores.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.
    sections : tuple of str or None, default=None
        Which sections to run; None is all whose packages are installed.

    Returns
    -------
    Demo
        The report, and where the page lies.

    Raises
    ------
    InvalidInputError
        If a section or a table is unknown.
    StorageError
        If the file of a table is missing, or the page cannot be written.
    """
    from scikd.report import Report  # noqa: PLC0415 - names are listed without it

    sections = installed_sections() if sections is None else sections
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        message = f"Expected sections among {sorted(SECTIONS)}; got {unknown}."
        raise InvalidInputError(message)
    if n_jobs == 0:
        message = "Expected n_jobs to be a number of processes, or -1 for all cores; got 0."
        raise InvalidInputError(message)
    options = Options(data, seed, n_jobs, progress)
    made: list[Section] = []
    for name in sections:
        make: Callable[[Options], Section] = import_module(SECTIONS[name]).section
        made.append(make(options))
    report = Report(
        "scikd: teachers, consensus, student",
        made,
        subtitle="Several teachers, what they agree on, and one fast student that learnt it.",
        seed=seed,
        command=f"scikd demo --data {data} --seed {seed}",
    )
    return Demo(report, report.write_html(output))
