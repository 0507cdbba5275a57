"""Reports: what the page, the text and the pictures contain, and what they must not."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from scikd import __version__
from scikd.exceptions import InvalidInputError, MissingExtraError, StorageError
from scikd.report import (
    PALETTE,
    Card,
    Figure,
    Gallery,
    Link,
    Picture,
    Report,
    Section,
    Table,
    Text,
    plot_intervals,
    plot_tradeoff,
)

EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Collect tags with attributes, and the text of every element."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def report():
    table = Table(
        "Scores",
        ["model", "loss", "n"],
        [["ridge", 0.5, 10], ["student", None, 12000]],
        note="Lower is better.",
        highlight_row=1,
    )
    return Report(
        "Title",
        [
            Section("First", [Text("One.\n\nTwo."), table], summary="It works."),
            Section("Second", [Text("Three.")]),
            Section("Third", []),
        ],
        subtitle="Sub",
        seed=7,
        command="scikd demo --seed 7",
        created=datetime(2025, 1, 2, 3, 4, tzinfo=UTC),
    )


def line(axes):
    axes.plot([0, 1], [1, 3])


def test_page_holds_everything_and_loads_nothing(report):
    page = Page(report.to_html())
    text = " ".join(page.texts)
    for expected in ("Title", "Sub", "It works.", "One.", "Two.", "ridge", "0.5000", "12,000"):
        assert expected in text
    for expected in ("2025-01-02 03:04 UTC", "scikd demo --seed 7", f"scikd {__version__}"):
        assert expected in text
    assert not page.all("script")
    assert not page.all("link")
    links = [value for _, a in page.tags for key, value in a.items() if key in ("src", "href")]
    assert links == ["#section-1", "#section-2", "#section-3"]
    assert "url(" not in report.to_html()
    policy = next(a for a in page.all("meta") if "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")


def test_page_adapts_to_dark_phone_and_print(report):
    source = report.to_html()
    for query in ("prefers-color-scheme: dark", "max-width: 34rem", "@media print"):
        assert query in source
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in Page(
        source
    ).all("meta")


def test_cells_are_aligned_marked_and_dashed(report):
    page = Page(report.to_html())
    assert [cell.get("class") for cell in page.all("td")] == [None, "number", "number"] * 2
    assert [row.get("class") for row in page.all("tr")] == [None, None, "mark"]
    assert "\N{EM DASH}" in page.texts


def test_a_cell_may_lead_to_another_page():
    table = Table("t", ["a"], [[Link("<there>", "a folder/page.html")], ["plain"]])
    page = Page(Report("Title", [Section("s", [table])]).to_html())
    assert [a["href"] for a in page.all("a")] == ["a folder/page.html"]
    assert "<there>" in page.texts
    assert "<there>" in table.to_text()
    for target in ("https://example.org", "/etc/hosts", "javascript:alert()", ""):
        with pytest.raises(InvalidInputError, match="path from the folder of the page"):
            Link("x", target)


def test_everything_is_escaped(tmp_path):
    pytest.importorskip("matplotlib")
    items = [
        Text(EVIL),
        Table(EVIL, [EVIL, "b"], [[EVIL, EVIL]], note=EVIL),
        Figure(EVIL, line, note=EVIL),
    ]
    report = Report(EVIL, [Section(EVIL, items, summary=EVIL)] * 3, subtitle=EVIL, command=EVIL)
    source = report.to_html()
    page = Page(source)
    assert not page.all("script")
    assert "<script" not in source
    # As text and in the alt text it reads as it was written.
    assert EVIL in "".join(page.texts)
    assert page.all("img")[0]["alt"] == f"{EVIL}. {EVIL}"
    known = {"class", "id", "style", "alt", "src", "srcset", "media", "href", "role", "tabindex"}
    known |= {"scope", "lang", "charset", "name", "content", "http-equiv"}
    known |= {"aria-label", "aria-labelledby"}
    assert {key for _, attributes in page.tags for key in attributes} <= known
    (file,) = report.write_pngs(tmp_path / "sub")[:1]
    assert file.name == "01-script-alert-x-script.png"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0.5, 0.25], ["0.5000", "0.2500"]),
        ([12.5, 0.25], ["12.50", "0.25"]),
        ([12.5, 0.0125], ["12.500", "0.013"]),
        ([1234.5678, 2.0], ["1,234.6", "2.0"]),
        ([1, 23456], ["1", "23,456"]),
        ([np.int64(3), np.float64(0.5)], ["3.000", "0.500"]),
        ([1e-9, 0.5], ["1.00e-09", "0.500000"]),
        ([3e12, 0.0], ["3.00e+12", "0"]),
        ([None, 1.0], ["\N{EM DASH}", "1.000"]),
        ([float("nan"), float("-inf"), 2.0], ["nan", "-inf", "2.000"]),
        ([0.0, 0.0], ["0.000", "0.000"]),
        ([-0.125, 1.0], ["-0.125", "1.000"]),
        ([True, False], ["True", "False"]),
        ([1, "x"], ["1", "x"]),
        ([None, None], ["\N{EM DASH}", "\N{EM DASH}"]),
    ],
)
def test_numbers_are_written_with_shared_decimals(column, expected):
    assert [row[0] for row in Table("t", ["c"], [[cell] for cell in column]).cells()] == expected


def test_text_is_aligned_for_the_terminal(report):
    assert report.to_text() == "\n".join(  # noqa: FLY002 - a line a line is readable
        [
            "Title",
            "=====",
            "",
            "Sub",
            "",
            "First",
            "-----",
            "",
            "It works.",
            "",
            "One.",
            "",
            "Two.",
            "",
            "Scores",
            "  model      loss       n",
            "  -------  ------  ------",
            "  ridge    0.5000      10",
            "* student       \N{EM DASH}  12,000",
            "  Lower is better.",
            "",
            "Second",
            "------",
            "",
            "Three.",
            "",
            "Third",
            "-----",
        ]
    )


def test_text_that_reads_as_numbers_is_aligned_with_them():
    """A column of it, but not the first, and not one in which anything else stands."""
    rows = [
        ["1990", "+1.5 %", "< 0.001", "0.1 to 0.3", ""],
        ["2", None, "3,000", "-", "\N{EM DASH}"],
    ]
    table = Table("Mixed", ["year", "gain", "p", "interval", "none"], rows)
    assert table.numeric == [False, True, True, False, False]


def test_text_cannot_move_the_cursor():
    table = Table("a\x1b[2Jb", ["c\n"], [["d\r\x07"]])
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", table.to_text())
    assert len(table.to_text().splitlines()) == 4


def test_an_empty_table_has_a_head():
    table = Table("none", ["a", "bc"], [])
    assert table.to_text() == "none\n  a  bc\n  -  --"
    page = Page(Report("r", [Section("s", [table])]).to_html())
    assert len(page.all("th")) == 2
    assert not page.all("td")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Table("t", ["a", "b"], [[1, 2], [1]]), "has 2 columns, but row 1 has 1 cells"),
        (lambda: Table("t", ["a"], [[1]], highlight_row=1), "index of the 1 rows.*got 1"),
        (
            lambda: Report("r", [Section("s", ["text"])]).to_html(),
            "Text, Table, Figure or Gallery, got str",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(make, match):
    with pytest.raises(InvalidInputError, match=match):
        make()


# Figures.


def pixels(png):
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_figures_are_embedded_for_light_and_dark():
    pytest.importorskip("matplotlib")
    calls = []
    figure = Figure("Loss", lambda axes: (calls.append(axes), line(axes)), note="By epoch.")
    page = Page(Report("r", [Section("s", [figure])]).to_html())
    (image,), (dark,) = page.all("img"), page.all("source")
    assert image["alt"] == "Loss. By epoch."
    assert "prefers-color-scheme: dark" in dark["media"]
    pictures = [
        pixels(base64.b64decode(uri.removeprefix("data:image/png;base64,")))
        for uri in (image["src"], dark["srcset"])
    ]
    assert len(calls) == 1  # both show the same drawing
    assert tuple(pictures[0][0, 0]) == (255, 255, 255)
    assert pictures[1][0, 0].max() < 64
    assert pictures[1].max() > 200  # and its text is light
    assert pictures[0].shape == pictures[1].shape
    blue = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    for picture in pictures:
        assert (np.abs(picture - blue).max(axis=2) < 12).any()


def test_a_gallery_shows_cards_of_pictures():
    pictures = [Picture("<svg><circle r='1'/></svg>", "a & b"), Picture("<svg></svg>")]
    cards = [Card("One", pictures, "of two", 0.25), Card(EVIL, [])]
    report = Report("Title", [Section("Pictures", [Gallery("Gallery", cards, "Look.")])])
    source = report.to_html()
    page = Page(source)
    assert [len(page.all(tag)) for tag in ("svg", "circle", "article", "figcaption")] == [
        2,
        1,
        2,
        1,
    ]
    assert {"Gallery", "Look.", "One", "of two", "a & b", EVIL} <= set(page.texts)
    assert [div["style"] for div in page.all("div") if "style" in div] == ["width: 25.0%"]
    assert "[gallery: Gallery] Look." in report.to_text()


def test_panels_are_handed_over_as_a_list():
    pytest.importorskip("matplotlib")
    seen = []
    Figure("f", seen.extend, panels=(2, 3)).pngs()
    assert len(seen) == 6
    assert {type(axes).__name__ for axes in seen} == {"Axes"}


def test_drawing_touches_no_global_state():
    pytest.importorskip("matplotlib")
    code = """
import sys, matplotlib
before = dict(dict.items(matplotlib.rcParams))  # without [], which would resolve the backend
from scikd.report import Figure
Figure("f", lambda axes: axes.plot([1, 2])).pngs((False, True))
assert "matplotlib.pyplot" not in sys.modules
assert dict(dict.items(matplotlib.rcParams)) == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_pngs_are_numbered_and_the_same_every_time(tmp_path):
    pytest.importorskip("matplotlib")
    report = Report(
        "r", [Section("s", [Figure("A b", line), Text("t")]), Section("t", [Figure("!", line)])]
    )
    files = report.write_pngs(tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["01-a-b.png", "02-figure.png"]
    first = [file.read_bytes() for file in files]
    assert first[0].startswith(b"\x89PNG")
    assert [file.read_bytes() for file in report.write_pngs(tmp_path)] == first


def test_without_matplotlib_the_page_still_comes(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = Report("r", [Section("s", [Figure("Loss", line, note="By epoch.")])])
    page = Page(report.write_html(tmp_path / "r.html").read_text(encoding="utf-8"))
    text = " ".join(page.texts)
    assert "This figure was not drawn." in text
    assert 'pip install "scikd[plots]"' in text
    assert "Loss" in text
    assert not page.all("img")
    with pytest.raises(MissingExtraError, match=r'pip install "scikd\[plots\]"'):
        report.write_pngs(tmp_path)
    assert "[figure: Loss] By epoch." in report.to_text()


def test_an_error_in_a_drawing_is_not_hidden():
    pytest.importorskip("matplotlib")

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Report("r", [Section("s", [Figure("f", fail)])]).to_html()


def drawn(plot):
    """Return the axes that a plot was drawn on."""
    kept = []
    Figure("f", lambda axes: (plot(axes), kept.append(axes))).pngs()
    return kept[0]


def test_intervals_show_every_number():
    pytest.importorskip("matplotlib")
    axes = drawn(lambda ax: plot_intervals(ax, ["a", "b"], [1, 2], [0.5, 1], [2, 4], reference=1.5))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top
    reference, dots = axes.get_lines()
    assert list(dots.get_xdata()) == [1, 2]
    assert list(reference.get_xdata()) == [1.5, 1.5]
    segments = axes.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[0.5, 2.0], [1.0, 4.0]]


def test_tradeoff_joins_the_models_that_none_beats():
    pytest.importorskip("matplotlib")
    latency, loss = [10.0, 1.0, 5.0, 100.0], [2.0, 3.0, 4.0, 2.0]
    axes = drawn(lambda ax: plot_tradeoff(ax, latency, loss, list("abcd"), [1, 10, 100, 1000]))
    assert axes.get_xscale() == "log"
    front = np.column_stack(axes.get_lines()[0].get_data())
    np.testing.assert_array_equal(front, [[1, 3], [10, 3], [10, 2]])
    on_front, beaten = axes.collections
    np.testing.assert_array_equal(on_front.get_offsets(), [[10, 2], [1, 3]])
    np.testing.assert_array_equal(beaten.get_offsets(), [[5, 4], [100, 2]])
    sizes = np.concatenate([on_front.get_sizes(), beaten.get_sizes()])[[0, 1, 2, 3]]
    assert (np.diff(sizes) > 0).all()
    assert sorted(text.get_text() for text in axes.texts) == list("abcd")


def test_labels_do_not_cover_each_other():
    pytest.importorskip("matplotlib")
    kept = []

    def plot(axes):
        plot_tradeoff(
            axes, [1.0, 1.1, 1.2, 50.0], [1.0, 1.0, 1.01, 0.2], ["one", "two", "six", "far"]
        )
        kept.append(axes)

    Figure("f", plot).pngs()
    boxes = [text.get_window_extent() for text in kept[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("plot", "match"),
    [
        (
            lambda ax: plot_intervals(ax, ["a"], [1], [2], [0]),
            "lows must not exceed.*'a'; are they",
        ),
        (lambda ax: plot_intervals(ax, ["a"], [1, 2], [0], [2]), r"values has shape \(2,\)"),
        (lambda ax: plot_intervals(ax, [], [], [], []), "at least one.*got no labels"),
        (lambda ax: plot_tradeoff(ax, [0.0], [1.0], ["a"]), "must be positive"),
        (lambda ax: plot_tradeoff(ax, [1.0], [1.0], ["a"], [1, 2]), r"sizes has shape \(2,\)"),
    ],
)
def test_plots_check_what_they_get(plot, match):
    pytest.importorskip("matplotlib")
    with pytest.raises(InvalidInputError, match=match):
        drawn(plot)


# Files.


def test_page_is_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    path = report.write_html(tmp_path / "a" / "b" / "page.html")
    assert path == tmp_path / "a" / "b" / "page.html"
    assert path.read_text(encoding="utf-8") == report.to_html()
    path.write_text("old", encoding="utf-8")

    def full(_, __):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(StorageError, match=r"cannot write .*page\.html: No space left"):
        report.write_html(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_a_folder_in_the_way_is_an_error(report, tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*page\.html"):
        report.write_html(tmp_path / "page.html")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write"):
        report.write_html(tmp_path / "file" / "page.html")


def test_a_relative_path_lies_in_the_current_folder(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.write_html("page.html") == tmp_path / "page.html"
