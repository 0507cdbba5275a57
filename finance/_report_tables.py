"""Tables of a tear sheet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scikd.report import Table

from ._words import benchmark_name, percent, points, ratio
from .analysis import Analysis
from .metrics import (
    Metric,
    annual_return,
    cagr,
    calmar_ratio,
    hit_rate,
    max_drawdown,
    sharpe_ratio,
    sortino_ratio,
    volatility,
)

__all__ = ["drawdown_table", "drawdowns", "metric_table", "short_table", "year_table"]

# Metrics in the order of the table: name, heading, how it is written, and its formula for others.
ROWS: tuple[tuple[str, str, Any, Any], ...] = (
    ("annual_return", "annual return", percent, annual_return),
    ("cagr", "compound annual growth", percent, cagr),
    ("volatility", "volatility a year", percent, volatility),
    ("sharpe_ratio", "Sharpe ratio", ratio, sharpe_ratio),
    ("sortino_ratio", "Sortino ratio", ratio, sortino_ratio),
    ("max_drawdown", "largest drawdown", percent, max_drawdown),
    (
        "max_drawdown_additive",
        "largest drawdown, additive",
        percent,
        lambda returns: max_drawdown(returns, kind="additive"),
    ),
    ("calmar_ratio", "Calmar ratio", ratio, calmar_ratio),
    ("hit_rate", "days that gained", percent, hit_rate),
    ("gross_annual_return", "annual return before costs", percent, None),
    ("gross_sharpe_ratio", "Sharpe ratio before costs", ratio, None),
    ("information_ratio", "information ratio", ratio, None),
    ("turnover", "turnover a day", percent, None),
    ("cost_per_year", "costs a year", percent, None),
    ("break_even_cost", "break-even cost (bp a side)", points, None),
    ("n_held", "assets held", points, None),
    ("ic", "information coefficient", "{:+.4f}".format, None),
    ("rank_ic", "rank information coefficient", "{:+.4f}".format, None),
    ("icir", "mean over spread of the IC", "{:+.3f}".format, None),
    ("rank_ic_t", "t of the rank IC", "{:+.2f}".format, None),
)
MOST_DRAWDOWNS = 5
FEWEST_OF_YEAR = 60  # days, for a Sharpe ratio


def short_table(analysis: Analysis) -> Table:
    """Return the few numbers that one looks at first, beside those of the benchmarks.

    Parameters
    ----------
    analysis : Analysis
        Of a backtest.
    """
    gross, bars = analysis.series["gross_returns"], list(analysis.benchmarks.values())
    columns = (analysis.series["returns"], gross, *bars)
    kinds = (
        ("Sharpe ratio", sharpe_ratio, ratio),
        ("compound annual growth", cagr, percent),
        ("volatility a year", volatility, percent),
        ("largest drawdown", max_drawdown, percent),
        ("value of 1 at the end", lambda returns: float(np.prod(1.0 + returns)), ratio),
    )
    rows = [[name, *(write(f(returns)) for returns in columns)] for name, f, write in kinds]
    names = [benchmark_name(name) for name in analysis.benchmarks]
    return Table(
        f"{analysis.dates[0]} to {analysis.dates[-1]}",
        ["", "net of costs", "before costs", *names],
        rows,
        note="Equal weight and buy and hold are of the same universe, at the same prices, and "
        "without costs.",
    )


def year_table(analysis: Analysis) -> Table:
    """Return what was earned in each calendar year."""
    years = analysis.dates.astype("M8[Y]").astype(np.int64) + 1970
    own = analysis.series["returns"]
    series = {"net of costs": own, **analysis.benchmarks}
    rows = []
    for year in np.unique(years):
        of_year = years == year
        growth = [float(np.prod(1.0 + returns[of_year])) - 1.0 for returns in series.values()]
        rows.append(
            [
                str(year),
                *(percent(value) for value in growth),
                percent(growth[0] - growth[1], signed=True),
                ratio(sharpe_ratio(own[of_year])) if of_year.sum() >= FEWEST_OF_YEAR else None,
                percent(max_drawdown(own[of_year])),
            ]
        )
    names = [benchmark_name(name) for name in series]
    columns = ["year", *names, f"less {names[1]}", "Sharpe ratio", "largest drawdown"]
    return Table(
        "Years", columns, rows, note="Compounded; the first and last may be parts of years."
    )


def drawdown_table(analysis: Analysis) -> Table:
    """Return the deepest drawdowns."""
    dates = analysis.dates
    rows = [
        [
            percent(depth),
            str(dates[start]) if start >= 0 else "the start",
            str(dates[trough]),
            "not yet" if end == len(dates) else str(dates[end]),
            end - max(start, 0),
        ]
        for depth, start, trough, end in drawdowns(analysis.series["returns"])
    ]
    columns = ["depth", "peak", "trough", "recovered", "trading days from peak to recovery"]
    return Table(f"The {len(rows)} deepest drawdowns", columns, rows)


def drawdowns(returns: np.ndarray, most: int = MOST_DRAWDOWNS) -> list[tuple[float, int, int, int]]:
    """Return depth, row of the peak (-1 is the start), of the trough and of the recovery.

    Parameters
    ----------
    returns : numpy.ndarray of shape (n,)
        Daily returns.
    most : int, default=5
        How many, the deepest first. One that has not recovered ends at row n.
    """
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    peak = np.maximum.accumulate(equity)
    depth = 1.0 - equity / peak
    at_peak = np.flatnonzero(depth == 0.0)
    ends = np.append(at_peak[1:], len(equity))
    found = []
    for start, end in zip(at_peak, ends, strict=True):
        if end - start > 1:
            trough = int(start + np.argmax(depth[start:end]))
            found.append((float(depth[trough]), int(start) - 1, trough - 1, int(end) - 1))
    return sorted(found, key=lambda entry: -entry[0])[:most]


def metric_table(analysis: Analysis) -> Table:
    """Return all metrics with their conventions, beside those of the benchmarks.

    Parameters
    ----------
    analysis : Analysis
        Of a backtest.
    """
    rows = []
    usual = analysis.strategy.conventions == "standard"
    for key, heading, write, formula in ROWS:
        metric: Metric | None = analysis.metrics.get(key)
        if metric is None:
            continue
        others = [
            write(formula(bar)) if formula is not None and usual else ""
            for bar in analysis.benchmarks.values()
        ]
        rows.append(
            [
                heading,
                write(metric.value) if math.isfinite(metric.value) else None,
                *others,
                metric.convention,
            ]
        )
    names = [benchmark_name(name) for name in analysis.benchmarks]
    return Table(
        "Metrics",
        ["", "strategy", *names, "convention"],
        rows,
        note=("Net of costs, unless it says otherwise; of daily simple returns, 252 days a year."),
    )
