"""What all tests share: data from outside the checkout, the command, threads, and Hypothesis."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from scikd import cli

ROOT = Path(__file__).resolve().parents[1]
MOST_THREADS = 4

settings.register_profile(
    "scikd",
    deadline=None,  # a kernel compiles when it is first called
    suppress_health_check=[HealthCheck.too_slow],  # as above
)
settings.register_profile(
    "scikd-ci",
    settings.get_profile("scikd"),
    derandomize=True,  # a change must not fail by the luck of the draw
    print_blob=True,
)
settings.load_profile("scikd-ci" if os.environ.get("CI") else "scikd")


def _data_folder() -> Path:
    return Path(os.environ.get("SCIKD_DATA") or ROOT.parent / "shared" / "data").resolve()


@pytest.fixture(scope="session")
def scikd_data() -> Callable[[str], Path]:
    """Give the path of a file or folder of outside data, or skip the test where it is not there.

    The data lies in the folder that the environment variable SCIKD_DATA names, by default
    ``../shared/data`` from the root of the checkout.
    """

    def find(name: str) -> Path:
        path = _data_folder() / name
        if not path.exists():
            pytest.skip(f"needs the data {name!r}, and {path} is not there: set SCIKD_DATA")
        return path

    return find


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; return exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    """Let BLAS use no more threads than there are usable cores, and never many.

    A container often shows all cores of its machine and grants two; matrices in tests are small.
    Worker processes are not limited, so that a test can see what scikd does to them.
    """
    with threadpool_limits(limits=min(joblib.cpu_count(), MOST_THREADS), user_api="blas"):
        yield
