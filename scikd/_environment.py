"""What a result was computed with: for bug reports and for the foot of a report."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from scikd import __version__

__all__ = ["NOT_INSTALLED", "environment", "versions"]

NOT_INSTALLED = "not installed"

# Names of distributions, as pip knows them.
PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "joblib",
    "pandas",
    "safetensors",
    "jinja2",
    "typer",
    "matplotlib",
    "lightgbm",
    "xgboost",
    "torch",
    "ase",
    "e3nn",
    "torch-geometric",
    "skfolio",
)


def versions() -> dict[str, str]:
    """Return the version of scikd and of what it can use, without importing any of it.

    Returns
    -------
    dict of str to str
        Version by distribution name; `NOT_INSTALLED` where there is none.
    """
    found = {"scikd": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = NOT_INSTALLED
    return found


def environment() -> dict[str, str]:
    """Return Python, platform and processor cores, then every version.

    Returns
    -------
    dict of str to str
        Ready to be printed, one line each.
    """
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "cores": _cores(),
        **versions(),
    }


def _cores() -> str:
    total = os.cpu_count() or 1
    # A container or a batch system often allows fewer than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return str(total) if usable == total else f"{usable} usable of {total}"
