"""Groups of commands that are built when they are run.

The flags of such a command are the fields of a dataclass, whose module imports torch or as much
else, and ``--help`` of its group shall not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from scikd._options import command_for

__all__ = ["Built", "command_group"]


class Built(NamedTuple):
    """A command that is built when it is run.

    Attributes
    ----------
    options : str
        The dataclass whose fields are its flags, as ``module.name``.
    run : callable
        What it does, as for `scikd._options.command_for`.
    file : bool or "flag"
        Whether it takes a YAML file of options, as its argument or as ``--options``.
    """

    options: str
    run: Callable[..., None]
    file: bool | Literal["flag"] = True


def command_group(name: str, commands: Mapping[str, Built]) -> typer.Typer:
    """Return a group of commands, some of which are built when one of them is run.

    What it is for is the docstring of its callback, which also makes it a group where there is one
    command.

    Parameters
    ----------
    name : str
        Of the group.
    commands : mapping of str to Built
        By name.
    """
    return typer.Typer(
        name=name,
        cls=_built_group(commands),
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _built_group(commands: Mapping[str, Built]) -> type[TyperGroup]:
    class BuiltGroup(TyperGroup):
        """Makes the flags of some commands only when one of them is run."""

        def list_commands(self, ctx: Any) -> list[str]:
            """Return the names of all commands."""
            return sorted({*super().list_commands(ctx), *commands})

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Return a command; of one that is not built yet its name and its help."""
            command = super().get_command(ctx, cmd_name)
            if command is None and cmd_name in commands:
                return TyperCommand(cmd_name, help=commands[cmd_name].run.__doc__)
            return command

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Build the command that is about to run."""
            name = args[0] if args else ""
            if name in commands and name not in self.commands:
                self.commands[name] = _build(name, commands[name])
            return super().resolve_command(ctx, args)

    return BuiltGroup


def _build(name: str, built: Built) -> Any:
    module, _, options = built.options.rpartition(".")
    lone = typer.Typer(rich_markup_mode=None, add_completion=False)
    cls = getattr(import_module(module), options)
    lone.command(name)(command_for(cls, built.run, file=built.file))
    return typer.main.get_command(lone)
