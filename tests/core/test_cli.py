"""The command line, and what ``import scikd`` costs."""

from __future__ import annotations

import logging
import pkgutil
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

import scikd
from scikd import _environment, cli
from scikd.exceptions import InvalidInputError, MissingExtraError, StorageError
from scikd.report import Report, Section, Text

HEAVY = (
    "numpy",
    "scipy",
    "sklearn",
    "numba",
    "pandas",
    "joblib",
    "torch",
    "matplotlib",
    "jinja2",
    "ase",
    "e3nn",
    "torch_geometric",
)


def loaded_by(code):
    """Return which heavy modules a fresh interpreter has after running the code."""
    script = f"""
import sys
try:
{code}
except SystemExit:
    pass
print("LOADED", *(name for name in {(*HEAVY, "typer")!r} if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.rpartition("LOADED")[2].split()


# Imports.


def test_import_scikd_loads_nothing():
    assert loaded_by("    import scikd; scikd.__version__; dir(scikd)") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["demo", "--help"], ["env"]])
def test_light_commands_load_nothing_heavy(arguments):
    loaded = loaded_by(f"    from scikd.cli import main; main({arguments!r})")
    assert loaded == ["typer"]


def test_public_names_are_those_of_their_modules():
    assert scikd.__all__ == sorted(scikd.__all__)
    assert set(scikd.__all__) == {*scikd._NAMES, "__version__"}
    assert set(scikd.__all__) <= set(dir(scikd))
    for name, module in scikd._NAMES.items():
        assert getattr(scikd, name) is getattr(sys.modules[module], name)


def test_submodules_are_imported_when_asked_for():
    assert loaded_by("    import scikd; scikd.exceptions.ScikdError") == []
    assert loaded_by("    import scikd; scikd.quantities.VALUE")[0] == "numpy"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'scikd' has no attribute 'nope'"):
        scikd.nope  # noqa: B018
    public = {entry.name for entry in pkgutil.iter_modules(scikd.__path__) if entry.name[0] != "_"}
    assert set(scikd._SUBMODULES) == public, "the table names just the modules that are there"


def test_a_submodule_with_a_broken_import_says_which(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there", encoding="utf-8")
    monkeypatch.setattr(scikd, "__path__", [*scikd.__path__, str(tmp_path)])
    monkeypatch.setattr(scikd, "_SUBMODULES", frozenset({"broken"}))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        scikd.broken  # noqa: B018


# Commands.


def test_version(run):
    assert run("--version") == (0, f"scikd {scikd.__version__}\n", "")


def test_env_says_what_is_there_and_what_is_not(run, monkeypatch):
    monkeypatch.setattr(_environment, "PACKAGES", ("numpy", "a-package-that-is-not-there"))
    code, out, _ = run("env")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert facts["scikd"] == scikd.__version__
    assert facts["numpy"] == sys.modules["numpy"].__version__
    assert facts["a-package-that-is-not-there"] == "not installed"
    assert facts["python"].startswith(sys.version.split()[0])
    assert int(facts["cores"].split()[0]) >= 1


def test_env_covers_what_a_bug_report_needs():
    wanted = {"numpy", "scipy", "scikit-learn", "numba", "joblib", "pandas", "torch", "ase"}
    assert wanted | {"e3nn", "torch-geometric", "matplotlib"} <= set(_environment.PACKAGES)


@dataclass
class Result:
    report: Report
    path: Path


@pytest.fixture
def demo(monkeypatch):
    """Stand in for scikd.demo: remember the call, and return or raise what the test wants."""
    module = types.ModuleType("scikd.demo")
    module.calls, module.error = [], None

    def run_demo(**given):
        module.calls.append(given)
        if module.error is not None:
            raise module.error
        sections = [Section("Scores", [Text("good")]), Section("Limits", [Text("many")])]
        return Result(Report("Demo", sections), Path("/somewhere/page.html"))

    module.run_demo = run_demo
    monkeypatch.setitem(sys.modules, "scikd.demo", module)
    return module


def test_demo_calls_the_library_and_says_where_the_page_lies(run, demo):
    code, out, err = run("demo")
    (given,) = demo.calls
    assert given == {
        "data": "digits",
        "output": Path("scikd-report.html"),
        "seed": 0,
        "n_jobs": -1,
        "sections": None,
    }
    assert (code, err) == (0, "")
    assert out.startswith("Demo\n====")
    assert "Scores\n------\n\ngood" in out
    assert out.endswith("\nThe report lies in /somewhere/page.html\n")


def test_demo_passes_its_options_on(run, demo):
    options = ["--data", "iris", "--output", "x.html", "--seed", 3, "--jobs", 2]
    code, _, _ = run("demo", *options, "--section", "limits")
    (given,) = demo.calls
    assert given == {
        "data": "iris",
        "output": Path("x.html"),
        "seed": 3,
        "n_jobs": 2,
        "sections": ("limits",),
    }
    assert code == 0


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError("bad input"),
        StorageError("disk full"),
        MissingExtraError('needs x. Run: pip install "scikd[md]"'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_scikd_are_one_line(run, demo, error):
    demo.error = error
    assert run("demo") == (2, "", f"scikd: {error}\n")


def test_verbose_shows_the_traceback(run, demo):
    demo.error = InvalidInputError("bad input")
    code, _, err = run("--verbose", "demo")
    assert code == 2
    assert err.startswith("Traceback")
    assert "InvalidInputError: bad input" in err


def test_other_errors_are_not_hidden(demo):
    demo.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["demo"])


def test_ctrl_c_is_a_short_line(run, demo):
    demo.error = KeyboardInterrupt()
    assert run("demo") == (130, "", "scikd: stopped by Ctrl-C\n")


@pytest.mark.parametrize("arguments", [["nope"], ["demo", "--seed", "x"], ["labels"]])
def test_wrong_usage_exits_with_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: scikd" in err


@pytest.mark.parametrize(("flags", "expected"), [([], ["told"]), (["-v"], ["told", "detail"])])
def test_logs_go_to_standard_error_only_in_the_command(run, demo, monkeypatch, flags, expected):
    logger = logging.getLogger("scikd.somewhere")

    def run_demo(**_):
        logger.info("told")
        logger.debug("detail")
        raise InvalidInputError("end")

    monkeypatch.setattr(demo, "run_demo", run_demo)
    _, out, err = run(*flags, "demo")
    logged = [line for line in err.splitlines() if "scikd.somewhere: " in line]
    assert [line.rpartition(": ")[2] for line in logged] == expected
    assert out == ""
    assert logging.getLogger("scikd").handlers == []


# Labels.


@dataclass(frozen=True)
class Entry:
    name: str
    fingerprint: str
    inputs: str
    n_samples: int
    complete: bool
    path: Path


@pytest.fixture
def entries(monkeypatch):
    """Stand in for scikd.labels; the test says what a store holds."""
    module, held = types.ModuleType("scikd.labels"), []

    class LabelStore:
        def __init__(self, path):
            assert isinstance(path, Path)

        def entries(self):
            return held

    module.LabelStore = LabelStore
    monkeypatch.setitem(sys.modules, "scikd.labels", module)
    return held


def test_labels_lists_the_entries(run, entries, tmp_path):
    entries.append(Entry("forest", "a" * 64, "b" * 64, 12000, True, tmp_path / "one"))
    entries.append(Entry("mace", "c" * 64, "d" * 64, 7, False, tmp_path / "two"))
    code, out, err = run("labels", tmp_path)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["2", "sets", "of", "labels", "in", str(tmp_path)]
    assert lines[3] == ["forest", "a" * 12, "b" * 12, "12,000", "yes", str(tmp_path / "one")]
    assert lines[4] == ["mace", "c" * 12, "d" * 12, "7", "no", str(tmp_path / "two")]


def test_labels_of_an_empty_store(run, entries, tmp_path):
    assert entries == []
    assert run("labels", tmp_path) == (0, f"{tmp_path} holds no labels\n", "")


def test_labels_makes_no_folder(run, tmp_path):
    code, _, err = run("labels", tmp_path / "nope")
    assert code == 2
    assert err.endswith("nope is not there\n")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert run("labels", tmp_path / "file")[2].endswith("file is a file\n")


# Sub-commands of the domains.


@pytest.fixture
def domain(monkeypatch, tmp_path):
    """A domain "toy" with a heavy package and a light cli, and one "absent" without."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text("import sys; sys.toy_loaded = True", encoding="utf-8")
    (folder / "cli.py").write_text(
        "import typer\n"
        "from scikd.exceptions import InvalidInputError\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def train(steps: int = 3) -> None:\n"
        "    'Train it.'\n"
        "    typer.echo(f'trained {steps}')\n"
        "@app.command()\n"
        "def fail() -> None:\n"
        "    raise InvalidInputError('toy is broken')\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(scikd, "__path__", [*scikd.__path__, str(tmp_path)])
    table = {"toy": ("scikd.toy.cli", "Toys."), "absent": ("scikd.absent.cli", "Not there.")}
    monkeypatch.setattr(cli, "LAZY", table)
    yield
    for name in ("scikd.toy", "scikd.toy.cli"):
        sys.modules.pop(name, None)
    sys.__dict__.pop("toy_loaded", None)


@pytest.mark.usefixtures("domain")
def test_help_lists_a_domain_without_importing_it(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "toy     Toys." in out
    assert "absent" not in out
    assert not hasattr(sys, "toy_loaded")


@pytest.mark.usefixtures("domain")
def test_a_domain_runs_as_a_sub_command(run):
    assert run("toy", "train", "--steps", 5) == (0, "trained 5\n", "")
    assert hasattr(sys, "toy_loaded")
    assert run("toy", "fail") == (2, "", "scikd: toy is broken\n")
    assert "Train it." in run("toy", "--help")[1]


@pytest.mark.usefixtures("domain")
def test_an_absent_domain_is_no_command(run):
    code, _, err = run("absent")
    assert code == 2
    assert "No such command 'absent'" in err


def test_the_domains_are_planned_for():
    assert set(cli.LAZY) == {"md", "graphs", "finance", "stack"}
    for name, (module, line) in cli.LAZY.items():
        assert module.startswith("scikd.")
        assert line.endswith("."), name


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "scikd.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"scikd {scikd.__version__}\n"
