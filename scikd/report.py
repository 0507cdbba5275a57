"""Reports: one self-contained HTML page, its figures as PNG, and the same as plain text.

The page loads nothing, from the network or from disk, and runs no script, so it can be mailed,
archived, or shown by a build server as it is.
"""

from __future__ import annotations

import base64
import math
import numbers
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from scikd._environment import NOT_INSTALLED, environment
from scikd._plots import PALETTE, plot_intervals, plot_tradeoff, render
from scikd.exceptions import InvalidInputError, MissingExtraError, StorageError

__all__ = [
    "PALETTE",
    "Card",
    "Figure",
    "Gallery",
    "Link",
    "Picture",
    "Report",
    "Section",
    "Table",
    "Text",
    "plot_intervals",
    "plot_tradeoff",
]

TEXT_WIDTH = 88
# A little more than CSS's 96: figures are drawn small, so that they can be read on a phone.
PIXELS_PER_INCH = 112
MISSING = "\N{EM DASH}"
NUMBER = re.compile(r"[<>]? ?[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ?%| x)?")


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, shown as they are.

    Parameters
    ----------
    body : str
        The text; an empty line ends a paragraph.
    """

    body: str

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs, each on one line."""
        parts = re.split(r"\n\s*\n", self.body.strip())
        return [" ".join(part.split()) for part in parts if part.strip()]


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to another page.

    Parameters
    ----------
    text : str
        What is read.
    target : str
        Path of the other page, from the folder of this one, with forward slashes.

    Raises
    ------
    InvalidInputError
        If the target is no such path: a page loads nothing, and leads to no other machine.
    """

    text: str
    target: str

    def __post_init__(self) -> None:
        if ":" in self.target or self.target.startswith("/") or not self.target:
            message = f"expected a path from the folder of the page, got {self.target!r}"
            raise InvalidInputError(message)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """A table.

    Parameters
    ----------
    title : str
        Heading of the table.
    columns : sequence of str
        Heading of each column, with the unit.
    rows : sequence of sequence of object
        Cells, as many in a row as there are columns. A column of numbers is aligned to the right,
        with as many decimals as tell its numbers apart; strings stay as they are; None is an
        em-dash. Text such as "+1.5 %" is aligned to the right where the column has nothing else. A
        `Link` is its text, and on the page leads to another one.
    note : str, default=""
        A line below the table.
    highlight_row : int or None, default=None
        Index of a row to set off.

    Raises
    ------
    InvalidInputError
        If a row has more or fewer cells than there are columns, or there is no row to set off.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    highlight_row: int | None = None

    def __post_init__(self) -> None:
        wrong = [i for i, row in enumerate(self.rows) if len(row) != len(self.columns)]
        if wrong:
            message = (
                f"table {self.title!r} has {len(self.columns)} columns, "
                f"but row {wrong[0]} has {len(self.rows[wrong[0]])} cells"
            )
            raise InvalidInputError(message)
        if self.highlight_row is not None and not 0 <= self.highlight_row < len(self.rows):
            message = (
                f"highlight_row must be an index of the {len(self.rows)} rows of "
                f"table {self.title!r}, got {self.highlight_row}"
            )
            raise InvalidInputError(message)

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers only, or, but for the first, text that reads so."""
        return [
            _all_numbers(column) or (place > 0 and _all_read_so(column))
            for place, column in enumerate(self._columns())
        ]

    def cells(self) -> list[list[str]]:
        """Return the cells as text, row by row."""
        texts = [_column_texts(column) for column in self._columns()]
        return [list(row) for row in zip(*texts, strict=True)] if self.rows else []

    def to_text(self) -> str:
        """Return the table for a terminal, with aligned columns."""
        body = [[_printable(cell) for cell in row] for row in self.cells()]
        head = [_printable(str(name)) for name in self.columns]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

        def line(row: Sequence[str], mark: str) -> str:
            fields = zip(row, widths, self.numeric, strict=True)
            cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in fields]
            return f"{mark} {'  '.join(cells)}".rstrip()

        rule = "  " + "  ".join("-" * width for width in widths)
        rows = [line(row, "*" if i == self.highlight_row else " ") for i, row in enumerate(body)]
        note = textwrap.wrap(_printable(self.note), TEXT_WIDTH - 2)
        notes = [f"  {part}" for part in note]
        return "\n".join([_printable(self.title), line(head, " "), rule, *rows, *notes])

    def _columns(self) -> list[list[object]]:
        return [[row[i] for row in self.rows] for i in range(len(self.columns))]


@dataclass(frozen=True)
class Figure:
    """A plot, drawn when the report is written.

    Parameters
    ----------
    title : str
        Heading of the figure.
    draw : callable
        Draws on the ``matplotlib.axes.Axes`` it is given, or on the list of them with ``panels``.
        Leave text and neutral lines black: they take the colour of the page, light or dark.
    note : str, default=""
        A line below the figure. With the title it is also what a screen reader says.
    size : tuple of float, default=(5.6, 3.3)
        Width and height in inches.
    panels : tuple of int or None, default=None
        Rows and columns of axes, if there are several.
    """

    title: str
    draw: Callable[[Any], None]
    note: str = ""
    size: tuple[float, float] = (5.6, 3.3)
    panels: tuple[int, int] | None = None

    def pngs(self, dark: Sequence[bool] = (False,)) -> list[bytes]:
        """Return PNG files for light or dark pages, or raise MissingExtraError."""
        return render(self.draw, self.size, self.panels, dark=dark)


@dataclass(frozen=True)
class Picture:
    """A small drawing that becomes part of the page.

    Parameters
    ----------
    svg : str
        An ``svg`` element, put into the page as it is: escape what comes from data. Lines and text
        in ``currentColor`` take the colour of the page, light or dark.
    caption : str, default=""
        A few words below it.
    """

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """Some pictures that belong together.

    Parameters
    ----------
    title : str
        Heading of the card.
    pictures : sequence of Picture
        What it shows, side by side.
    text : str, default=""
        A line below the heading.
    share : float or None, default=None
        A number from 0 to 1, shown as the length of a bar.
    """

    title: str
    pictures: Sequence[Picture]
    text: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Gallery:
    """Cards in rows, as many in each as the page is wide.

    Parameters
    ----------
    title : str
        Heading of the gallery.
    cards : sequence of Card
        What it shows, in order.
    note : str, default=""
        A line below the heading.
    """

    title: str
    cards: Sequence[Card]
    note: str = ""


Item = Text | Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading.

    Parameters
    ----------
    title : str
        The heading.
    items : sequence of Text, Table, Figure or Gallery
        What it shows, in order.
    summary : str, default=""
        The finding, in a sentence or two, above everything else.
    """

    title: str
    items: Sequence[Item]
    summary: str = ""


@dataclass(frozen=True)
class Report:
    """A page of sections, with a foot that says how it came about.

    Parameters
    ----------
    title : str
        Title of the page.
    sections : sequence of Section
        What it says.
    subtitle : str, default=""
        A line below the title.
    seed : int or None, default=None
        The random seed, for the foot.
    command : str, default=""
        The command that makes the report again, for the foot.
    created : datetime
        When; now, by default.
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    seed: int | None = None
    command: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def provenance(self) -> dict[str, str]:
        """Return date, command, seed and versions, in the order of the foot."""
        facts = {"created": self.created.strftime("%Y-%m-%d %H:%M %Z").strip()}
        if self.command:
            facts["command"] = self.command
        if self.seed is not None:
            facts["seed"] = str(self.seed)
        found = {name: text for name, text in environment().items() if text != NOT_INSTALLED}
        facts |= {name: found.pop(name) for name in ("python", "platform", "cores")}
        return facts | {"packages": ", ".join(f"{name} {text}" for name, text in found.items())}

    def to_html(self) -> str:
        """Return the page."""
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only a page needs it

        source = resources.files("scikd").joinpath("_report.html.j2").read_text(encoding="utf-8")
        compiler = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        sections = [
            {
                "title": section.title,
                "summary": Text(section.summary).paragraphs,
                "items": [_item_context(item) for item in section.items],
            }
            for section in self.sections
        ]
        return compiler.from_string(source).render(
            title=self.title,
            subtitle=self.subtitle,
            sections=sections,
            provenance=self.provenance(),
        )

    def write_html(self, path: str | Path) -> Path:
        """Write the page, all of it or nothing.

        Parameters
        ----------
        path : str or Path
            The file; its folder is made if need be, and a file of that name is replaced.

        Returns
        -------
        Path
            The file, as an absolute path.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        return _write(Path(path), self.to_html().encode("utf-8"))

    def write_pngs(self, folder: str | Path) -> list[Path]:
        """Write every figure as "01-its-title.png", in the order of the report.

        Parameters
        ----------
        folder : str or Path
            Where to; made if need be.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        StorageError
            If a file cannot be written.
        """
        figures = [item for _, item in self._items() if isinstance(item, Figure)]
        return [
            _write(Path(folder) / f"{number:02d}-{_slug(figure.title)}.png", figure.pngs()[0])
            for number, figure in enumerate(figures, start=1)
        ]

    def to_text(self) -> str:
        """Return the report for a terminal: text and tables, and the titles of the figures."""
        blocks = [_underlined(self.title, "="), self.subtitle]
        for section in self.sections:
            blocks += [_underlined(section.title, "-"), _wrapped(section.summary)]
            blocks += [_item_text(item) for item in section.items]
        return "\n\n".join(block for block in blocks if block)

    def _items(self) -> Iterator[tuple[Section, Item]]:
        for section in self.sections:
            for item in section.items:
                yield section, item


def _item_context(item: Item) -> dict[str, Any]:
    """Return what the template needs of an item."""
    if isinstance(item, Text):
        return {"kind": "text", "paragraphs": item.paragraphs}
    if not isinstance(item, (Table, Figure, Gallery)):
        message = f"a section holds Text, Table, Figure or Gallery, got {type(item).__name__}"
        raise InvalidInputError(message)
    shared = {"title": item.title, "note": item.note}
    if isinstance(item, Gallery):
        return {"kind": "gallery", "cards": item.cards, **shared}
    if isinstance(item, Table):
        head = list(zip(map(str, item.columns), item.numeric, strict=True))
        targets = [
            [cell.target if isinstance(cell, Link) else "" for cell in row] for row in item.rows
        ]
        rows = [
            list(zip(row, item.numeric, places, strict=True))
            for row, places in zip(item.cells(), targets, strict=True)
        ]
        return {"kind": "table", "head": head, "rows": rows, "mark": item.highlight_row, **shared}
    context = {"kind": "figure", "width": round(item.size[0] * PIXELS_PER_INCH), **shared}
    try:
        light, dark = (base64.b64encode(png).decode() for png in item.pngs((False, True)))
    except MissingExtraError as error:
        return {**context, "missing": str(error)}
    return {**context, "missing": "", "light": light, "dark": dark}


def _item_text(item: Item) -> str:
    if isinstance(item, Text):
        return _wrapped(item.body)
    if isinstance(item, Table):
        return item.to_text()
    kind = "gallery" if isinstance(item, Gallery) else "figure"
    return _wrapped(f"[{kind}: {item.title}] {item.note}")


def _all_numbers(column: Sequence[object]) -> bool:
    given = [cell for cell in column if cell is not None]
    return bool(given) and all(
        isinstance(cell, numbers.Real) and not isinstance(cell, bool) for cell in given
    )


def _all_read_so(column: Sequence[object]) -> bool:
    given = [cell for cell in column if cell not in (None, "", MISSING)]
    return bool(given) and all(isinstance(c, str) and NUMBER.fullmatch(c) for c in given)


def _column_texts(column: Sequence[object]) -> list[str]:
    """Write a column's cells; its numbers share their number of decimals, so that they line up."""
    if not _all_numbers(column):
        return [MISSING if cell is None else str(cell) for cell in column]
    finite = [abs(float(c)) for c in column if c is not None and math.isfinite(c)]  # type: ignore[arg-type]
    whole = all(isinstance(c, numbers.Integral) for c in column if c is not None)
    sizes = [size for size in finite if size > 0.0]
    # Four digits of the largest number, but at least two of the smallest, and at most six decimals.
    largest, smallest = (math.floor(math.log10(f(sizes, default=1.0))) for f in (max, min))
    decimals = 0 if whole else max(0, min(6, max(3 - largest, 1 - smallest)))

    def text(cell: Any) -> str:
        if cell is None:
            return MISSING
        value = float(cell)
        if not math.isfinite(value):
            return str(value)
        tiny = value != 0.0 and abs(value) < 10.0 ** (-decimals)
        if not whole and (tiny or abs(value) >= 1e9):
            return f"{value:.2e}"
        return f"{cell:,}" if whole else f"{value:,.{decimals}f}"

    return [text(cell) for cell in column]


def _underlined(title: str, mark: str) -> str:
    clean = _printable(title)
    return f"{clean}\n{mark * len(clean)}"


def _wrapped(text: str) -> str:
    paragraphs = (_printable(paragraph) for paragraph in Text(text).paragraphs)
    return "\n\n".join(textwrap.fill(paragraph, TEXT_WIDTH) for paragraph in paragraphs)


def _printable(text: str) -> str:
    """Keep what comes from data from moving a terminal's cursor or breaking a line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "figure"


def _write(path: Path, data: bytes) -> Path:
    """Write a file beside its place, then move it there, so that no reader sees half of it."""
    path = path.expanduser().absolute()
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True) if draft.parent.is_dir() else None
    return path
