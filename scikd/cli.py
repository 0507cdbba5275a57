"""The command ``scikd``.

A command parses, calls the public function that a user of the library would call, and says where
the result lies. Everything heavy is imported in the body of a command, so that ``scikd --help`` is
quick; a domain's sub-commands are imported when one of them is run.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import scikd
from scikd.exceptions import InvalidInputError, ScikdError

__all__ = ["app", "main"]

LAZY = {
    "md": ("scikd.md.cli", "Interatomic potentials: distil and run molecular dynamics."),
    "graphs": ("scikd.graphs.cli", "Graph neural networks: distil into a light student."),
    "finance": ("scikd.finance.cli", "Trading signals: distil and backtest."),
    "stack": ("scikd.stack_commands.cli", "Out-of-fold predictions of many models: combine them."),
}
"""Sub-command to the module whose ``app`` it is, and its line in the help."""

USAGE_ERROR = 2
INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """A group that lists the sub-commands of `LAZY` unseen, and imports one when it is run.

    It also turns an error that scikd raised on purpose into one line, and Ctrl-C into another.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands that exist."""
        own = super().list_commands(ctx)
        return own + [name for name in LAZY if name not in own and _exists(LAZY[name][0])]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; of a lazy one its name and help line, until it is resolved."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in LAZY and _exists(LAZY[cmd_name][0]):
            return TyperCommand(cmd_name, help=LAZY[cmd_name][1])
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the lazy command that is about to run."""
        name = args[0] if args else ""
        if name not in self.commands and name in LAZY and _exists(LAZY[name][0]):
            self.commands[name] = typer.main.get_command(import_module(LAZY[name][0]).app)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ScikdError as error:
            if ctx.params.get("verbose"):
                traceback.print_exc()
            else:
                typer.echo(f"scikd: {error}", err=True)
            raise typer.Exit(USAGE_ERROR) from error
        except KeyboardInterrupt as error:
            typer.echo("scikd: stopped by Ctrl-C", err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="scikd",
    cls=LazyGroup,
    help="Distil ensembles of teachers into one fast student.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scikd {scikd.__version__}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log more, and show tracebacks.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Distil ensembles of teachers into one fast student."""
    logging.getLogger("scikd").setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command("env")
def show_environment() -> None:
    """Show the versions of everything involved, for a bug report."""
    from scikd._environment import environment  # noqa: PLC0415

    facts = environment()
    width = max(map(len, facts))
    for name, text in facts.items():
        typer.echo(f"{name:<{width}}  {text}")


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="Name of a real table; a wrong one lists all.")] = (
        "digits"
    ),
    output: Annotated[Path, typer.Option(help="Where to write the page.")] = Path(
        "scikd-report.html"
    ),
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes; -1 for one per core.")] = -1,
    section: Annotated[
        list[str] | None, typer.Option(help="Run this section only; may be given several times.")
    ] = None,
) -> None:
    """Distil an ensemble of teachers on real data, and write a report."""
    from scikd.demo import run_demo  # noqa: PLC0415

    sections = tuple(section) if section else None
    result = run_demo(data=data, output=output, seed=seed, n_jobs=jobs, sections=sections)
    typer.echo(result.report.to_text())
    typer.echo(f"\nThe report lies in {result.path}")


@app.command()
def labels(
    store: Annotated[Path, typer.Argument(help="Folder of a label store.", show_default=False)],
) -> None:
    """List the teacher labels in a store."""
    if not store.is_dir():
        message = f"expected the folder of a label store, but {store} is " + (
            "a file" if store.exists() else "not there"
        )
        raise InvalidInputError(message)
    from scikd.labels import LabelStore  # noqa: PLC0415
    from scikd.report import Table  # noqa: PLC0415

    entries = LabelStore(store).entries()
    if not entries:
        typer.echo(f"{store} holds no labels")
        return
    rows = [
        (
            entry.name,
            entry.fingerprint[:12],
            entry.inputs[:12],
            entry.n_samples,
            "yes" if entry.complete else "no",
            str(entry.path),
        )
        for entry in entries
    ]
    columns = ("teacher", "fingerprint", "inputs", "samples", "complete", "path")
    typer.echo(Table(f"{len(rows)} sets of labels in {store}", columns, rows).to_text())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never returns.

    Parameters
    ----------
    arguments : sequence of str or None, default=None
        What follows ``scikd``; None takes it from the process.

    Raises
    ------
    SystemExit
        Always: 0 if all went well, 2 if something was wrong with the input, 130 after Ctrl-C.
    """
    # Only here, where the process is ours: as a library scikd attaches no handler.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("scikd")
    logger.addHandler(handler)
    try:
        app(args=arguments, prog_name="scikd")
    finally:
        logger.removeHandler(handler)


def _exists(module: str) -> bool:
    """Say whether a module is there, without importing its parents as ``find_spec`` would."""
    search: Any = scikd.__path__
    name = "scikd"
    for part in module.split(".")[1:]:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, search)
        if spec is None:
            return False
        search = spec.submodule_search_locations or []
    return True


if __name__ == "__main__":
    main()
