"""The commands ``scikd md`` that pages show are those that there are."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module

import pytest
import typer

from scikd._options import command_for
from scikd.md import cli
from scikd.md.densities import read_targets
from scikd.md.measurements import read_measurements
from scikd.md.molecules import parse_mixture
from tests.contracts.source import ROOT, needs_checkout

pytestmark = [
    needs_checkout,
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="is about the checkout's docs"),
]

DAY = "docs/liquid-in-a-day.md"
PAGES = sorted(
    p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("docs/*.md"), ROOT / "README.md"]
)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^```text\n(liquid, .*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^cat > (\S+) << (\w+)\n(.*?)^\2$", re.MULTILINE | re.DOTALL)


def shell(page):
    """Return the files that the shell of a page writes, by name, and its other lines."""
    text = "\n".join(SHELL.findall((ROOT / page).read_text(encoding="utf-8")))
    files = {match[1]: match[3] for match in FILE.finditer(text)}
    return files, FILE.sub("", text).replace("\\\n", " ").splitlines()


def commands(page):
    """Return the commands ``scikd md ...`` of a page, as words."""
    parsed = [shlex.split(line, comments=True) for line in shell(page)[1]]
    return [words[2:] for words in parsed if words[:2] == ["scikd", "md"]]


def parse(name, words):
    """Parse a command as the program does, options and all, but do not run it.

    Raises
    ------
    click.ClickException, InvalidInputError
        If the program would refuse it.
    """
    built = cli.BUILT.get(name)
    if built is None:
        command = typer.main.get_command(cli.app).commands[name]
        command.make_context(name, list(words))
        return

    def stand_in(options, **further):
        assert type(options).__name__ in built.options

    stand_in.__signature__ = inspect.signature(built.run, eval_str=True)
    module, _, cls = built.options.rpartition(".")
    lone = typer.Typer()
    lone.command(name)(command_for(getattr(import_module(module), cls), stand_in, file=built.file))
    typer.main.get_command(lone).main(list(words), standalone_mode=False)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_of_a_page_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in shell(page)[0].items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    wrong = []
    for name, *words in commands(page):
        try:
            parse(name, words)
        except Exception as error:  # noqa: BLE001 - told below, all at once
            wrong.append(f"scikd md {name} {shlex.join(words)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("words", [["run", "--no-such-flag", "1"], ["run", "--time", "20 years"]])
def test_what_the_program_refuses_is_noticed(words):
    name, *rest = words
    with pytest.raises(Exception, match=r"no-such-flag|20 years"):
        parse(name, rest)


def read_table(path):
    """Read a table of liquids as the command would that its columns are for."""
    columns = path.read_text(encoding="utf-8").partition("\n")[0]
    return read_targets(path) if "held_out" in columns else read_measurements(path)


@pytest.mark.parametrize("page", [DAY, "docs/distillation.md", "docs/liquids.md"])
def test_tables_of_liquids_are_read(page, tmp_path):
    shown = TABLE.findall((ROOT / page).read_text(encoding="utf-8"))
    shown += [content for name, content in shell(page)[0].items() if name.endswith(".csv")]
    assert shown
    for number, content in enumerate(shown):
        path = tmp_path / f"{number}.csv"
        path.write_text(content, encoding="utf-8")
        rows = read_table(path)
        assert rows
        assert all(parse_mixture(row.liquid) for row in rows)
