"""Options: a dataclass, a YAML file and flags say the same, and errors come all at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scikd._options import (
    check_choices,
    command_for,
    dump_options,
    given_flags,
    load_options,
    plain_options,
)
from scikd.exceptions import InvalidInputError, StorageError


@dataclass(frozen=True)
class Inner:
    """Inner options.

    Parameters
    ----------
    dim : int, default=64
        How wide it is.
    """

    dim: int = 64


@dataclass(frozen=True)
class Options:
    """Some options.

    Parameters
    ----------
    files : tuple of str
        What to read, in `this`
        order.
    epochs : int, default=10
        How many.
    rate, decay : float
        Two numbers.
    most : int or None, default=None
        Bound.
    kind : {"adam", "sgd"}, default="adam"
        Kind.
    quiet : bool, default=False
        Whether to say nothing.
    output : Path or None, default=None
        Where to.
    """

    files: tuple[str, ...] = ()
    epochs: int = 10
    rate: float = 0.1
    decay: float = 0.9
    most: int | None = None
    kind: Literal["adam", "sgd"] = "adam"
    quiet: bool = False
    output: Path | None = None
    inner: Inner = field(default_factory=Inner)
    noted: int = field(default=3, metadata={"help": "From the metadata."})

    def __post_init__(self) -> None:
        if self.epochs < 0:
            message = f"epochs is {self.epochs}, expected at least 0."
            raise InvalidInputError(message)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "options.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_and_overrides_fill_the_dataclass(yaml_file):
    path = yaml_file("files: [a, b]\nrate: 1e-3\nmost: null\noutput: out\ninner: {dim: 8}\n")
    options = load_options(Options, path, {"epochs": "20", "inner.dim": "16", "quiet": "true"})
    assert options == Options(
        files=("a", "b"), rate=1e-3, output=Path("out"), inner=Inner(16), epochs=20, quiet=True
    )


def test_an_empty_file_is_all_defaults(yaml_file):
    assert load_options(Options, yaml_file("")) == Options() == load_options(Options)


@settings(max_examples=40)
@given(
    st.builds(
        Options,
        files=st.lists(
            st.text(st.characters(codec="utf-8", exclude_categories=["C"])), max_size=3
        ).map(tuple),
        epochs=st.integers(0, 2**70),
        rate=st.floats(allow_nan=False),
        most=st.none() | st.integers(),
        kind=st.sampled_from(["adam", "sgd"]),
        quiet=st.booleans(),
        inner=st.builds(Inner, st.integers()),
    )
)
def test_what_is_dumped_is_loaded(tmp_path_factory, options):
    path = tmp_path_factory.mktemp("options") / "o.yaml"
    text = dump_options(options, path)
    assert path.read_text(encoding="utf-8") == text
    assert load_options(Options, path) == options
    assert load_options(Options, None, plain_options(options)) == options


def test_all_problems_are_listed_with_close_matches(yaml_file):
    path = yaml_file("epoch: 3\nrate: fast\nkind: lbfgs\nmost: 1.5\nquiet: 7\ninner: {dmi: 3}\n")
    with pytest.raises(InvalidInputError) as caught:
        load_options(Options, path)
    text = str(caught.value)
    for part in (
        "epoch is no option, did you mean epochs",
        "rate is 'fast', expected a number",
        "kind is 'lbfgs', expected 'adam' or 'sgd'",
        "most is 1.5, expected a whole number or none",
        "quiet is 7, expected true or false",
        "inner.dmi is no option, did you mean inner.dim",
        f"Cannot use the options in {path}: ",
    ):
        assert part in text


def test_what_the_dataclass_itself_refuses_is_among_them():
    with pytest.raises(
        InvalidInputError, match="^Cannot use these options: epochs is -1, expected at least 0.$"
    ):
        load_options(Options, None, {"epochs": -1})


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", True), ("rate", "nan"), ("inner", 3), ("files", 3)]
)
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(InvalidInputError, match=f"{name} is"):
        load_options(Options, None, {name: value})


def test_how_many_values_are_wanted_is_said():
    @dataclass(frozen=True)
    class Range:
        ends: tuple[int, int] = (1, 2)

    with pytest.raises(
        InvalidInputError, match="ends is 3, expected 2 values, each a whole number"
    ):
        load_options(Range, None, {"ends": 3})
    assert load_options(Range, None, {"ends": [3, "4"]}).ends == (3, 4)


def test_files_that_are_none_are_refused(yaml_file, tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        load_options(Options, tmp_path / "absent.yaml")
    with pytest.raises(InvalidInputError, match="maps names to values"):
        load_options(Options, yaml_file("- 1\n- 2\n"))
    with pytest.raises(InvalidInputError, match="is no YAML"):
        load_options(Options, yaml_file("a: [1, 2"))
    with pytest.raises(InvalidInputError, match="is no YAML"):
        load_options(Options, yaml_file("a: !!python/object/apply:os.getcwd []"))


def test_a_required_field_is_asked_for():
    @dataclass(frozen=True)
    class Needy:
        path: str

    with pytest.raises(InvalidInputError, match="path is missing, expected text"):
        load_options(Needy)


@dataclass(frozen=True)
class Weights:
    """Weights whose first says where the others come from."""

    preset: Literal["plain", "relative"] = "plain"
    energy: float | None = None
    forces: float | None = None


@dataclass(frozen=True)
class Outer:
    """Options that hold others, which are not the default of their class."""

    weights: Weights = field(default_factory=lambda: Weights("relative", forces=2.0))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Weights("relative", forces=2.0)),
        ({"energy": 3}, Weights("relative", energy=3.0, forces=2.0)),
        ({"forces": None}, Weights("relative")),
        ({"preset": "plain"}, Weights("plain", forces=2.0)),
    ],
)
def test_what_is_not_given_inside_is_as_outside_says(given, expected):
    flags = {f"weights.{name}": value for name, value in given.items()}
    assert load_options(Outer, None, flags) == load_options(Outer, None, {"weights": given})
    assert load_options(Outer, None, flags) == Outer(expected)


def test_help_tells_the_default_that_outside_says():
    app = typer.Typer(rich_markup_mode=None)
    app.command()(command_for(Outer, lambda _: None, file=False))
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "[default: relative]" in shown
    assert "[default: 2.0]" in shown


class TestCommand:
    def run(self, *arguments):
        seen = []

        def run(options: Options) -> None:
            """Do something."""
            seen.append(options)

        app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command()(command_for(Options, run))
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
        return result, seen

    def test_flags_win_over_the_file(self, yaml_file):
        path = yaml_file("epochs: 5\nrate: 0.5\nquiet: true\n")
        flags = ["--epochs", "7", "--files", "a", "--files", "b", "--inner.dim", "4", "--no-quiet"]
        result, seen = self.run(str(path), *flags)
        assert result.exit_code == 0, result.output
        assert seen == [
            replace(Options(), epochs=7, rate=0.5, files=("a", "b"), inner=Inner(4), quiet=False)
        ]

    def test_the_file_may_be_a_flag(self, yaml_file):
        """Then arguments of its own have the places."""
        app, seen = typer.Typer(), []
        path = yaml_file("rate: 0.5\nepochs: 5\n")

        def run(options, *, name: Annotated[str, typer.Argument()]):
            seen.append((options, name))

        app.command()(command_for(Options, run, file="flag"))
        result = CliRunner().invoke(app, ["Ada", "--options", str(path), "--epochs", "7"])
        assert result.exit_code == 0, result.output
        assert seen == [(Options(rate=0.5, epochs=7), "Ada")]

    def test_flags_of_options_make_them_again(self):
        assert given_flags(Inner()) == []

        @dataclass(frozen=True)
        class Flat:
            files: tuple[str, ...] = ()
            most: int | None = None
            quiet: bool = False
            loud: bool = True

        options = Flat(files=("a b", "c"), most=3, quiet=True, loud=False)
        app, seen = typer.Typer(), []
        app.command()(command_for(Flat, seen.append, file=False))
        CliRunner().invoke(app, given_flags(options))
        assert seen == [options]

    def test_no_flag_is_the_default(self):
        assert self.run()[1] == [Options()]

    def test_help_comes_from_the_docstring(self):
        text = " ".join(self.run("--help")[0].output.split())
        for part in (
            "Do something.",
            "--files TEXT What to read, in this order. Give the flag once for each.",
            "--epochs INTEGER How many. [default: 10]",
            "--decay NUMBER Two numbers. [default: 0.9]",
            "--most INTEGER|none Bound.",
            "--kind adam|sgd Kind. [default: adam]",
            "--quiet / --no-quiet Whether to say nothing. [default: False]",
            "--inner.dim INTEGER How wide it is. [default: 64]",
            "--noted INTEGER From the metadata. [default: 3]",
            "YAML file of options",
        ):
            assert part in text, text

    def test_further_parameters_are_further_flags(self):
        seen = []

        def run(options: Options, *, jobs: Annotated[int, typer.Option(help="How many.")] = 1):
            """Do something."""
            seen.append((options, jobs))

        app = typer.Typer(rich_markup_mode=None)
        app.command()(command_for(Options, run, file=False))
        assert CliRunner().invoke(app, ["--jobs", "3", "--epochs", "2"]).exit_code == 0
        assert seen == [(Options(epochs=2), 3)]
        assert "FILE" not in CliRunner().invoke(app, ["--help"]).output

    def test_a_wrong_flag_is_refused_as_in_the_file(self):
        result, seen = self.run("--epochs", "many", "--kind", "x")
        assert isinstance(result.exception, InvalidInputError)
        assert "epochs is 'many', expected a whole number; kind is 'x'" in str(result.exception)
        assert not seen


@dataclass(frozen=True)
class Round:
    """A round one.

    Parameters
    ----------
    radius : float, default=1.0
        How far from the middle.
    colour : str, default="red"
        Of the paint.
    shape : {"round"}, default="round"
        Kind.
    """

    radius: float = 1.0
    colour: str = "red"
    shape: Literal["round"] = "round"


@dataclass(frozen=True)
class Square:
    """A square one.

    Parameters
    ----------
    width : float, default=2.0
        How far across.
    colour : str, default="blue"
        Of the chalk.
    """

    width: float = 2.0
    colour: str = "blue"
    shape: Literal["square"] = "square"


@dataclass(frozen=True)
class Drawing:
    """Holds one of two."""

    figure: Round | Square = field(default_factory=Round)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Round()),
        ({"figure": {"radius": 3}}, Round(radius=3.0)),
        ({"figure": {"shape": "square", "width": "4"}}, Square(width=4.0)),
        ({"figure.shape": "square"}, Square()),
        ({"figure": {"shape": "square"}, "figure.colour": "green"}, Square(colour="green")),
    ],
)
def test_a_tag_tells_which_of_several_dataclasses_is_meant(given, expected):
    options = load_options(Drawing, None, given)
    assert options.figure == expected
    assert load_options(Drawing, None, plain_options(options)) == options


def test_what_is_an_option_of_the_other_kind_is_said_so():
    with pytest.raises(InvalidInputError, match="figure.width is no option; with figure.shape: sq"):
        load_options(Drawing, None, {"figure": {"width": 3}})
    with pytest.raises(InvalidInputError, match="figure.shape is 'flat', expected 'round' or 'squ"):
        load_options(Drawing, None, {"figure": {"shape": "flat"}})
    with pytest.raises(InvalidInputError, match="figure is 3, expected names and values"):
        load_options(Drawing, None, {"figure": 3})


def test_flags_are_those_of_all_kinds():
    got = []
    app = typer.Typer()
    app.command()(command_for(Drawing, got.append))
    text = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    assert "--figure.radius" in text
    assert "--figure.width" in text
    assert "round|square" in text
    assert "Of the paint." in text
    assert "Of the chalk." not in text, "what they have in common is described by the first"
    flags = ["--figure.shape", "square", "--figure.width", "7"]
    assert CliRunner().invoke(app, flags).exit_code == 0
    assert got == [Drawing(Square(width=7.0))]


@dataclass(frozen=True)
class Chosen(Options):
    shape: Literal["round", "square"] = "round"

    def __post_init__(self):
        check_choices(self)


def test_choices_are_checked_in_python_too():
    assert Chosen(shape="square", kind="sgd").shape == "square"
    said = "Expected kind 'adam' or 'sgd', got 'adm'; shape 'round' or 'square', got None"
    with pytest.raises(InvalidInputError, match=said):
        Chosen(kind="adm", shape=None)
    with pytest.raises(InvalidInputError, match="got \\['adam'\\]"):
        replace(Chosen(), kind=["adam"])
