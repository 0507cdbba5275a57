"""One dataclass = a YAML file = the flags of a command = a call from Python.

A field is written once: its type says what is accepted, and its entry in the ``Parameters`` section
of the class docstring is the help text of its flag. A field that is itself a dataclass is a nested
mapping in YAML, and flags with a dot (``--model.dim``). Of a union of dataclasses the mapping names
one by its tag, a field that is a Literal with one value (``family: get``); without it the first is
meant.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from scikd._atomic import atomic_write_bytes
from scikd._extras import require
from scikd._option_values import coerced, spelled
from scikd.exceptions import InvalidInputError, StorageError

__all__ = [
    "check_choices",
    "command_for",
    "dump_options",
    "given_flags",
    "load_options",
    "plain_options",
]

Options = TypeVar("Options")

FILE = "options_file"
# "name : type" at the margin, and the indented lines below it.
ENTRY = re.compile(r"^(\w+(?:, \w+)*) : .*\n((?:[ ]+\S.*\n?|\n(?=[ ]))+)", re.MULTILINE)


def load_options(
    cls: type[Options],
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Options:
    """Make a dataclass from a YAML file, from values, or from both.

    Parameters
    ----------
    cls : type
        The dataclass.
    path : str or pathlib.Path or None, default=None
        A YAML file that maps names of fields to values; None takes the defaults.
    overrides : mapping of str to object, default=None
        Values that win over those of the file. A name with a dot reaches into a nested dataclass.
        Text is converted to the type of the field, as on a command line.

    Returns
    -------
    object
        An instance of ``cls``.

    Raises
    ------
    InvalidInputError
        If names are unknown or values of the wrong type; the message lists all of them.
    StorageError
        If the file cannot be read.
    """
    given = _read_yaml(Path(path)) if path is not None else {}
    for name, value in (overrides or {}).items():
        *outer, last = name.split(".")
        place = given
        for part in outer:
            inner = place.get(part)
            place[part] = place = dict(inner) if isinstance(inner, Mapping) else {}
        place[last] = value
    problems: list[str] = []
    options = _build(cls, given, "", problems)
    if problems:
        where = "these options" if path is None else f"the options in {path}"
        raise InvalidInputError(f"Cannot use {where}: {'; '.join(problems)}.")
    return options


def check_choices(options: Any) -> None:
    """Refuse values that are not among those of their field, as Python itself does not.

    Parameters
    ----------
    options : object
        Instance of a dataclass, whose ``__post_init__`` may call this.

    Raises
    ------
    InvalidInputError
        If the value of a field that is a Literal is none of its values; the message lists all.
    """
    hints = typing.get_type_hints(type(options))
    wrong = [
        f"{field.name} {spelled(kind)}, got {value!r}"
        for field in fields(options)
        if get_origin(kind := hints[field.name]) is Literal
        and (value := getattr(options, field.name)) not in get_args(kind)
    ]
    if wrong:
        raise InvalidInputError(f"Expected {'; '.join(wrong)}.")


def plain_options(options: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as values that YAML and JSON know, nested ones as mappings.

    Parameters
    ----------
    options : object
        Instance of a dataclass.

    Returns
    -------
    dict of str to object
        From which `load_options` makes an equal instance.
    """
    return {field.name: _plain(getattr(options, field.name)) for field in fields(options)}


def dump_options(options: Any, path: str | Path | None = None) -> str:
    """Write a dataclass as YAML that `load_options` reads back.

    Parameters
    ----------
    options : object
        Instance of a dataclass.
    path : str or pathlib.Path or None, default=None
        File to write, as a whole or not at all.

    Returns
    -------
    str
        The YAML.
    """
    yaml = require("yaml", extra="md", feature="A file of options")
    text: str = yaml.safe_dump(plain_options(options), sort_keys=False, default_flow_style=None)
    if path is not None:
        atomic_write_bytes(path, text.encode("utf-8"))
    return text


def given_flags(options: Any) -> list[str]:
    """Return the flags that make these options on a command line.

    Parameters
    ----------
    options : object
        Instance of a dataclass without nested ones.

    Returns
    -------
    list of str
        One or two for each value that is not the default.
    """
    flags: list[str] = []
    for field in fields(options):
        value, flag = getattr(options, field.name), field.name.replace("_", "-")
        if value == _default(field):
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            several = value if isinstance(value, (list, tuple)) else [value]
            flags += [part for one in several for part in (f"--{flag}", str(one))]
    return flags


def command_for(
    cls: type[Any], run: Callable[..., None], *, file: bool | Literal["flag"] = True
) -> Any:
    """Return a function that Typer turns into a command with one flag for each field.

    Parameters
    ----------
    cls : type
        The dataclass.
    run : callable
        Gets the instance. Its docstring is the help of the command; its further parameters, by
        keyword and annotated as for Typer, are further flags.
    file : bool or "flag", default=True
        Whether the command takes a YAML file, as its argument or as ``--options``.

    Returns
    -------
    callable
        For ``typer.Typer.command``.
    """
    import typer  # noqa: PLC0415 - makers of options that have no command do not need it

    flags = dict(_flags(cls, "", typer))
    keyword = inspect.Parameter.KEYWORD_ONLY
    _, *own = inspect.signature(run, eval_str=True).parameters.values()
    parameters = [
        inspect.Parameter(name, keyword, default=None, annotation=kind)
        for name, (_, kind) in flags.items()
    ]
    if file:
        help_text = "YAML file of options; flags win over it."
        if file == "flag":
            place = typer.Option("--options", help=help_text, metavar="FILE", show_default=False)
        else:
            place = typer.Argument(help=help_text, metavar="FILE", show_default=False)
        kind = Annotated[Path | None, place]
        parameters.insert(0, inspect.Parameter(FILE, keyword, default=None, annotation=kind))
    parameters += own

    def command(**values: Any) -> None:
        path = values.pop(FILE, None)
        further = {parameter.name: values.pop(parameter.name) for parameter in own}
        # An empty list is a flag that was not given.
        given = {flags[key][0]: v for key, v in values.items() if v is not None and v != []}
        run(load_options(cls, path, given), **further)

    command.__doc__ = run.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _flags(
    cls: type[Any],
    prefix: str,
    typer: Any,
    tag: Mapping[str, Any] = types.MappingProxyType({}),
    base: Any = None,
) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield the parameter of a command for each field: its name, the field's, and its type."""
    hints, helps = {**typing.get_type_hints(cls), **tag}, _helps(cls)
    for field in fields(cls):
        kind, name = hints[field.name], prefix + field.name
        if kinds := _dataclasses(kind):
            yield from _flags_of_all(kinds, f"{name}.", typer, _default(field))
            continue
        flag = name.replace("_", "-")
        default = getattr(base, field.name) if type(base) is cls else _default(field)
        spelled = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
        several = get_origin(kind) in (tuple, list)
        again = "Give the flag once for each." if several else None
        option = typer.Option(
            spelled,
            help=" ".join(filter(None, (helps.get(field.name), again, _default_text(default)))),
            show_default=False,
            metavar=None if kind is bool else _metavar(kind),
        )
        # Text, so that a flag and a line of YAML are converted, and refused, in the same way.
        annotation: Any = list[str] if several else bool if kind is bool else str
        yield name.replace(".", "__"), (name, Annotated[annotation | None, option])


def _flags_of_all(
    kinds: tuple[type[Any], ...], prefix: str, typer: Any, base: Any
) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield those of several dataclasses; what they have in common is described by the first."""
    tag: dict[str, Any] = {}
    if len(kinds) > 1:
        name, by_value = _tagged(kinds)
        tag = {name: Literal[*by_value]}
    found: dict[str, tuple[str, Any]] = {}
    for kind in kinds:
        found = dict(_flags(kind, prefix, typer, tag, base)) | found
    yield from found.items()


def _helps(cls: type[Any]) -> dict[str, str]:
    """Return what the docstrings of the class say of each parameter, or the field's metadata."""
    texts = [inspect.cleandoc(base.__doc__ or "") for base in reversed(cls.__mro__)]
    helps = {}
    for names, text in [entry for one in texts for entry in ENTRY.findall(one)]:
        # Backquotes are for the documentation.
        plain = " ".join(text.replace("`", "").split())
        for name in names.split(","):
            helps[name.strip()] = plain
    given = {f.name: f.metadata["help"] for f in fields(cls) if "help" in f.metadata}
    return helps | given


def _default_text(default: Any) -> str:
    if default is MISSING:
        return "[required]"
    if default is None or default == ():
        return ""
    return f"[default: {' '.join(map(str, default)) if isinstance(default, tuple) else default}]"


def _metavar(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return "|".join(_metavar(argument) for argument in arguments)
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (tuple, list):
        return _metavar(arguments[0])
    names = {int: "INTEGER", float: "NUMBER", Path: "PATH", type(None): "none"}
    return names.get(kind, "TEXT")


def _read_yaml(path: Path) -> dict[str, Any]:
    yaml = require("yaml", extra="md", feature="A file of options")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"Could not read the options in {path}: {error.strerror}. Check the path."
        raise StorageError(message) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"{path} is no YAML: {error}"
        raise InvalidInputError(message) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        message = f"Expected that {path} maps names to values, as in 'epochs: 100'."
        raise InvalidInputError(message)
    return content


def _build(
    cls: type[Any],
    given: Any,
    prefix: str,
    problems: list[str],
    elsewhere: Mapping[str, str] = types.MappingProxyType({}),
    base: Any = None,
) -> Any:
    """Return an instance, or None and add to the problems; some names are options elsewhere.

    What is not given is as in the base, if that is of the same class.
    """
    if not isinstance(given, Mapping):
        problems.append(f"{prefix.rstrip('.')} is {given!r}, expected names and values")
        return None
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in fields(cls) if field.init}
    before = len(problems)
    values = {}
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f", did you mean {prefix}{close[0]}" if close else ""
            hint = f"; with {elsewhere[name]} it is" if name in elsewhere else hint
            problems.append(f"{prefix}{name} is no option{hint}")
        elif kinds := _dataclasses(hints[name]):
            default = _default(known[name])
            values[name] = _build_one_of(kinds, value, f"{prefix}{name}.", problems, default)
        else:
            try:
                values[name] = coerced(value, hints[name])
            except ValueError:
                wanted = spelled(hints[name])
                problems.append(f"{prefix}{name} is {value!r}, expected {wanted}")
    problems += [
        f"{prefix}{field.name} is missing, expected {spelled(hints[field.name])}"
        for field in known.values()
        if type(base) is not cls and field.name not in given and _default(field) is MISSING
    ]
    if len(problems) > before:
        return None
    try:
        return replace(base, **values) if type(base) is cls else cls(**values)
    except InvalidInputError as error:
        said = str(error).rstrip(".")
        problems.append(said[0].lower() + said[1:])
        return None


def _build_one_of(
    kinds: tuple[type[Any], ...], given: Any, prefix: str, problems: list[str], base: Any
) -> Any:
    """Build the dataclass that the tag names, or the first."""
    if len(kinds) == 1 or not isinstance(given, Mapping):
        return _build(kinds[0], given, prefix, problems, base=base)
    tag, by_value = _tagged(kinds)
    value = given.get(tag, next(iter(by_value)))
    if value not in by_value:
        expected = " or ".join(repr(known) for known in by_value)
        problems.append(f"{prefix}{tag} is {value!r}, expected {expected}")
        return None
    others = {
        field.name: f"{prefix}{tag}: {other}"
        for other, kind in by_value.items()
        for field in fields(kind)
        if other != value
    }
    return _build(by_value[value], given, prefix, problems, others, base)


def _dataclasses(kind: Any) -> tuple[type[Any], ...]:
    """Return a dataclass, or those that a union consists of, or nothing."""
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return kinds if all(is_dataclass(each) for each in kinds) else ()


def _tagged(kinds: tuple[type[Any], ...]) -> tuple[str, dict[str, type[Any]]]:
    """Return the name of the tag of these dataclasses, and which is meant by each value of it."""
    hints = [typing.get_type_hints(kind) for kind in kinds]
    (tag,) = (
        name
        for name in hints[0]
        if all(get_origin(h.get(name)) is Literal and len(get_args(h[name])) == 1 for h in hints)
    )
    return tag, {get_args(h[tag])[0]: kind for h, kind in zip(hints, kinds, strict=True)}


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return plain_options(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
