"""What README and docs show runs, and what they name exists."""

from __future__ import annotations

import builtins
import contextlib
import doctest
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scikd import exceptions
from tests.contracts.source import ROOT, needs_checkout

pytestmark = [
    needs_checkout,
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="is about the checkout's docs"),
]

# Beside an installed wheel there are no pages, and the tests are skipped.
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("README.md")]
)
EXAMPLES = sorted(path.name for path in ROOT.glob("examples/*.py"))
SLOW_EXAMPLES = {
    "classification_with_unlabelled_rows.py",
    "distil_regression.py",
    "stacking_signals.py",
    "tips_end_to_end.py",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LARGEST_EXAMPLE = 60  # lines
MOST_FILES = 5


def blocks(page):
    """Return the python blocks of a page: code, line of the page, and the output that it shows."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    result = []
    for match, after in itertools.zip_longest(found, found[1:]):
        if match[1] != "python":
            continue
        adjacent = after is not None and not text[match.end() : after.start()].strip()
        shown = after[2] if adjacent and after[1] == "text" else None
        result.append((match[2], text[: match.start(2)].count("\n"), shown))
    return result


def run_block(code, line, page, namespace):
    """Run a block and return what it printed; tracebacks give the line of the page."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * line + code, str(ROOT / page), "exec"), namespace)  # noqa: S102 - ours
    return printed.getvalue()


def table_rows(page):
    """Yield the cells of every row of four cells whose second is code."""
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[1].startswith("`"):
            yield cells[0], *(cell.strip("`").strip() for cell in cells[1:])


@pytest.fixture
def _quiet(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_python_of_a_page_runs_and_prints_what_it_shows(page):
    namespace = {"__name__": "__main__"}
    compare = doctest.OutputChecker().check_output
    for code, line, shown in blocks(page):
        printed = run_block(code, line, page, namespace)
        if shown is not None:
            same = compare(shown, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert same, f"{page}, line {line + 1}: shows\n{shown}but printed\n{printed}"


@pytest.mark.usefixtures("_quiet")
@pytest.mark.filterwarnings("ignore::scikd.exceptions.DistillationWarning")
def test_the_table_of_bad_input_is_true():
    namespace = {}
    (code, line, _), *_ = blocks("docs/bad-input.md")
    run_block(code, line, "docs/bad-input.md", namespace)
    rows = list(table_rows("docs/bad-input.md"))
    wrong = []
    for what, call, error, text in rows:
        try:
            eval(call, namespace)  # noqa: S307 - ours
        except Exception as caught:  # noqa: BLE001 - compared below
            names = {kind.__name__ for kind in type(caught).__mro__}
            if error not in names or text not in str(caught):
                wrong.append(f"{what}: {type(caught).__name__}: {caught}")
        else:
            wrong.append(f"{what}: nothing was raised")
    assert not wrong, "\n".join(wrong)
    assert len(rows) > 40
    known = {*vars(builtins), *exceptions.__all__, "NotFittedError"}
    assert {error for _, _, error, _ in rows} <= known


@pytest.mark.slow
@pytest.mark.usefixtures("_quiet")
def test_the_commands_on_graphs_in_the_readme_run(run):
    pytest.importorskip("torch_geometric")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (match[2] for match in FENCE.finditer(text) if "scikd graphs" in match[2])
    commands = [shlex.split(line, comments=True) for line in block.replace("\\\n", "").splitlines()]
    assert [command[:3] for command in commands] == [
        ["scikd", "graphs", name] for name in ("distill", "show", "train", "evaluate")
    ]
    quicker = {"train": ["--steps", "2"], "evaluate": ["--steps", "2", "--full-steps", "2"]}
    for _, *arguments in commands:
        code, _, err = run(*arguments, *quicker.get(arguments[1], []))
        assert code == 0, err


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW_EXAMPLES else []) for n in EXAMPLES],
)
def test_an_example_runs_and_says_what_it_found(name, tmp_path):
    path = ROOT / "examples" / name
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::UserWarning"}
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_what_it_needs(name):
    text = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert text.startswith("# /// script\n")
    assert '# dependencies = ["scikd' in text
    assert text.count("\n") < LARGEST_EXAMPLE


def test_the_readme_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = FENCE.search(text)
    commands = [line.split("#")[0].strip() for line in first[2].splitlines()]
    assert commands == ["make demo", "make test"]
    before = [line for line in text[: first.start()].splitlines() if line]
    assert len(before) == 2, "only the title and one sentence come first"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


def test_files_named_in_how_it_flows_exist_and_are_few():
    text = (ROOT / "docs" / "how-it-flows.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).is_file()]
    for section in text.split("\n## ")[1:]:
        steps = re.findall(r"^\d+\. `([\w/]+\.py)`(?: \(([^)]*)\))?", section, re.MULTILINE)
        assert 0 < len(steps) <= MOST_FILES, section
        for file, functions in steps:
            source = (ROOT / file).read_text(encoding="utf-8")
            for function in re.findall(r"`([\w.]+)`", functions or ""):
                last = function.rpartition(".")[2]
                assert re.search(rf"^\s*(def|class) {last}\b", source, re.MULTILINE), function


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / Path(target)).is_file(), target


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
