"""Tables of `benchmarks.tips` for people, as the documentation shows them.

``python -m benchmarks tips --json build/tips.json``, and then
``python -m benchmarks._tips_page build/tips.json docs/tips-tables.md``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._tips_models import STUDENT
from benchmarks._tips_panels import PANELS
from benchmarks._tips_scores import OTHERS

__all__ = ["page"]

MEMBERS, TWICE = "us_sp500_members", "us_sp500"  # the same prices

AnyRow = Mapping[str, Any]
COLUMNS: dict[str, Callable[[AnyRow], str]] = {
    "rank IC (t)": lambda row: _with_t(row, ".4f"),
    "return, gross": lambda row: _both(row, "AR", ".1%"),
    "Sharpe ratio": lambda row: _interval(row, "net_sharpe"),
    "gross": lambda row: _interval(row, "gross_sharpe"),
    "minus equal weight": lambda row: _interval(row, "net_minus_equal"),
    "Calmar, gross": lambda row: _both(row, "calmar", ".2f"),
    "drawdown, gross": lambda row: _both(row, "MDD", ".0%"),
    "turnover": lambda row: _number(row["turnover"], ".2f"),
    "published Sharpe": lambda row: _number(row["published_sharpe"], ".2f"),
}
HEAD = """# TIPS on daily prices: the tables

Made by `python -m benchmarks tips --json build/tips.json` and `python -m benchmarks._tips_page
build/tips.json docs/tips-tables.md`; [Benchmarks](benchmarks.md) says what was trained, on which
days, and what each number means. Returns are arithmetic and of a year, after 10 basis points a
trade unless gross is said; turnover is buys plus sales of a day. Brackets hold 95 % intervals. The
mean over panels leaves out the S&P 500 of survivors, and its interval takes panels for
independent, which the two American ones are not quite.
"""


def page(rows: Sequence[AnyRow]) -> str:
    """Return the page: for each panel its models, its seeds, and the student's comparisons."""
    parts = [HEAD, "## The student against others\n", _contrasts(rows)]
    parts += ["## Means over panels\n", _means(rows), "## Survivorship\n", _survivorship(rows)]
    for name in PANELS:
        of_panel = {row["name"].partition(": ")[2]: row for row in rows if _is_of(row, name)}
        if not of_panel:
            continue
        models = {model: row for model, row in of_panel.items() if _is_model(model, row)}
        verdicts = [row for model, row in of_panel.items() if "Hansen" in model]
        parts += [f"## {name}\n", _table(["model", *COLUMNS], map(_cells, models, models.values()))]
        parts += [_seeds(of_panel, models), *map(_verdict, verdicts)]
    return "\n".join(parts)


def _is_of(row: AnyRow, panel: str) -> bool:
    return bool(row["name"].startswith(f"{panel}: "))


def _is_model(model: str, row: AnyRow) -> bool:
    return "net_sharpe" in row and ", seed " not in model


def _cells(model: str, row: AnyRow) -> list[str]:
    return [model, *(cell(row) for cell in COLUMNS.values())]


def _contrasts(rows: Sequence[AnyRow]) -> str:
    """Return rank IC and net Sharpe ratio by which the student is ahead, and their mean."""
    by_name = {row["name"]: row for row in rows}
    lines = []
    for other in OTHERS:
        found = {
            panel: by_name[name]
            for panel in PANELS
            if (name := f"{panel}: {STUDENT} minus {other}") in by_name
        }
        for panel, row in found.items():
            lines.append(
                [other, panel, _with_t(row, "+.4f"), _interval(row, "net_difference", "+.2f")]
            )
        if len(found) > 1:
            lines.append(
                [other, "**mean**", *_pooled([found[one] for one in found if one != TWICE])]
            )
    return _table(["TIPS student minus", "panel", "rank IC (t)", "net Sharpe"], lines)


def _means(rows: Sequence[AnyRow]) -> str:
    of_models: dict[str, list[AnyRow]] = {}
    for row in rows:
        panel, _, model = row["name"].partition(": ")
        if panel in PANELS and panel != TWICE and _is_model(model, row):
            of_models.setdefault(model, []).append(row)
    columns = {
        "rank IC": ("value", ".4f"),
        "Sharpe ratio": ("net_sharpe", ".2f"),
        "gross": ("gross_sharpe", ".2f"),
        "minus equal weight": ("net_minus_equal", ".2f"),
        "published Sharpe": ("published_sharpe", ".2f"),
    }
    lines = [
        [
            model,
            *(_number(np.mean([one[key] for one in of]), form) for key, form in columns.values()),
        ]
        for model, of in of_models.items()
    ]
    return _table(["model", *columns], lines)


def _survivorship(rows: Sequence[AnyRow]) -> str:
    """Return the net Sharpe ratios of one test with two universes, and how far they are apart."""
    by_name = {row["name"]: row for row in rows}
    lines, gains = [], []
    for name, row in by_name.items():
        panel, _, model = name.partition(": ")
        other = by_name.get(f"{MEMBERS}: {model}")
        if panel == TWICE and other is not None and _is_model(model, row):
            gains.append(row["net_sharpe"] - other["net_sharpe"])
            both = (f"{one['net_sharpe']:.2f}" for one in (row, other))
            lines.append([model, *both, f"{gains[-1]:+.2f}"])
    if len(gains) > 1:
        lines.append(
            ["**mean ± deviation**", "", "", f"{np.mean(gains):+.2f} ± {np.std(gains):.2f}"]
        )
    return _table(["Sharpe ratio, net", "assets of today", "members of the day", "more"], lines)


def _pooled(rows: Sequence[AnyRow]) -> tuple[str, str]:
    """Return the mean of comparisons, whose errors are taken for independent."""
    ics, t, nets, low, high = (
        np.array([row[key] for row in rows])
        for key in ("value", "t", "net_difference", "net_difference_low", "net_difference_high")
    )
    of_ic = np.sqrt(np.sum((ics / t) ** 2))  # a t value is the estimate over its error
    half = np.sqrt(np.sum((high - low) ** 2)) / 2 / len(rows)
    ic = {"value": ics.mean(), "t": ics.sum() / of_ic}
    net = {"": nets.mean(), "_low": nets.mean() - half, "_high": nets.mean() + half}
    mean = {f"net{end}": value for end, value in net.items()}
    return _with_t(ic, "+.4f"), _interval(mean, "net", "+.2f")


def _seeds(of_panel: Mapping[str, AnyRow], models: Mapping[str, AnyRow]) -> str:
    lines = []
    for model in models:
        singles = [row for name, row in of_panel.items() if name.startswith(f"{model}, seed ")]
        if singles:
            ics = ", ".join(_number(row["value"], ".4f") for row in singles)
            nets = ", ".join(_number(row["net_sharpe"], ".2f") for row in singles)
            lines.append([model, ics, nets])
    return _table(["each seed", "rank IC", "Sharpe net"], lines) if lines else ""


def _verdict(row: AnyRow) -> str:
    text = f"Does any earn more than equal weight? Hansen's p is {row['value']:.3f}; {row['note']}."
    return text + "\n"


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "-"


def _with_t(row: AnyRow, form: str) -> str:
    return f"{row['value']:{form}} ({row['t']:.1f})" if np.isfinite(row["value"]) else "-"


def _both(row: AnyRow, key: str, form: str) -> str:
    return ", ".join(_number(row[f"{cost}_{key}"], form) for cost in ("net", "gross"))


def _interval(row: AnyRow, key: str, form: str = ".2f") -> str:
    value, low, high = (format(row[key + end], form) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _table(columns: Sequence[str], lines: Any) -> str:
    marks = ["---", *["--:"] * (len(columns) - 1)]
    rows = ["| " + " | ".join(cells) + " |" for cells in (columns, marks, *lines)]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(page(json.loads(source.read_text("utf-8"))), encoding="utf-8")
    sys.stdout.write(f"The tables lie in {target}\n")
