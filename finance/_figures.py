"""Figures of a tear sheet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scikd.report import PALETTE, Figure

from ._axes import date_ticks, legend, plain_log_ticks
from ._words import benchmark_name
from .analysis import Analysis
from .metrics import YEAR

__all__ = ["equity_figure", "month_figure", "monthly", "rolling_figure", "turnover_figure"]

OURS, GROSS = PALETTE[0], PALETTE[5]
OTHERS = (PALETTE[1], PALETTE[2], PALETTE[3], PALETTE[4])
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def equity_figure(analysis: Analysis) -> Figure:
    """Draw the value of one unit of money, and the loss from its peak."""
    dates, own = analysis.dates, analysis.series["returns"]

    def draw(grid: Any) -> None:
        above, below = grid
        above.get_gridspec().set_height_ratios([2.3, 1.0])
        gross = np.cumprod(1.0 + analysis.series["gross_returns"])
        lines = [("net of costs", own, OURS, 1.8)]
        for colour, (name, returns) in zip(OTHERS, analysis.benchmarks.items(), strict=False):
            lines.append((benchmark_name(name), returns, colour, 1.2))
        for name, returns, colour, width in lines:
            above.plot(dates, np.cumprod(1.0 + returns), color=colour, lw=width, label=name)
        above.plot(dates, gross, color=GROSS, lw=1.0, ls=(0, (2, 1.5)), label="before costs")
        bar = analysis.benchmarks["equal_weight"]
        _draw_drawdown(below, analysis.dates, bar, OTHERS[0], filled=False)
        _draw_drawdown(below, analysis.dates, own, OURS, filled=True)
        above.set_yscale("log")
        plain_log_ticks(above)
        above.set_ylabel("value of 1 (log scale)")
        above.tick_params(labelbottom=False)
        below.set_ylabel("drawdown (%)")
        for axes in grid:
            axes.grid()
            axes.set_xlim(analysis.dates[0], analysis.dates[-1])
        legend(above, columns=2)
        date_ticks(below)

    return Figure(
        "Equity and drawdown",
        draw,
        note=(
            "One unit of money at the start, and the loss from the highest value so far. "
            "Benchmarks pay no costs: equal weight holds all members in equal parts and renews "
            "them every day; buy and hold does so once."
        ),
        size=(7.6, 5.2),
        panels=(2, 1),
    )


def _draw_drawdown(
    axes: Any, dates: Any, returns: np.ndarray, colour: str, *, filled: bool
) -> None:
    growth = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    drawdown = 100.0 * (growth / np.maximum.accumulate(growth) - 1.0)[1:]
    axes.plot(dates, drawdown, color=colour, lw=0.9)
    if filled:
        axes.fill_between(dates, drawdown, 0.0, color=colour, alpha=0.25, lw=0)


def rolling_figure(analysis: Analysis) -> Figure | None:
    """Draw the Sharpe ratio of the last year, day by day."""
    n = len(analysis.dates)
    window = YEAR if n >= 2 * YEAR else n // 3
    if window < 20:
        return None
    bar = analysis.benchmarks["equal_weight"]

    def draw(axes: Any) -> None:
        axes.axhline(0.0, color="black", lw=0.8)
        if analysis.luck is not None:
            sharpe = analysis.luck.sharpe
            axes.axhspan(sharpe.low, sharpe.high, color=OURS, alpha=0.12, lw=0)
            axes.axhline(sharpe.estimate, color=OURS, lw=1.0, ls=(0, (4, 3)))
        for name, returns, colour in (
            ("strategy", analysis.series["returns"], OURS),
            ("equal weight", bar, OTHERS[0]),
        ):
            axes.plot(
                analysis.dates[window - 1 :],
                _rolling_sharpe(returns, window),
                color=colour,
                lw=1.4,
                label=name,
            )
        axes.set_ylabel(f"Sharpe ratio of {window} days")
        axes.set_xlim(analysis.dates[0], analysis.dates[-1])
        axes.grid()
        legend(axes)
        date_ticks(axes)

    note = f"Annual, net of costs, over the last {window} days."
    if analysis.luck is not None:
        note += " Dashed: that of all days; shaded: its 95 % interval."
    return Figure("Rolling Sharpe ratio", draw, note=note, size=(7.6, 3.0))


def _rolling_sharpe(returns: np.ndarray, window: int) -> np.ndarray:
    views = np.lib.stride_tricks.sliding_window_view(returns, window)
    mean, spread = views.mean(axis=1), views.std(axis=1, ddof=1)
    ratio = np.full(len(mean), math.nan)
    return np.divide(mean, spread, out=ratio, where=spread > 1e-12) * math.sqrt(YEAR)


def monthly(dates: np.ndarray, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the years, and the returns of their months, of shape (n_years, 12), NaN if none."""
    months = dates.astype("M8[M]").astype(np.int64)
    first, start = np.unique(months, return_index=True)
    growth = np.multiply.reduceat(1.0 + returns, start) - 1.0
    years = np.arange(first[0] // 12, first[-1] // 12 + 1)
    table = np.full((len(years), 12), math.nan)
    table[first // 12 - years[0], first % 12] = growth
    return years + 1970, table


def month_figure(analysis: Analysis) -> Figure | None:
    """Draw the return of each month as a map."""
    years, table = monthly(analysis.dates, analysis.series["returns"])
    if np.isfinite(table).sum() < 2:
        return None
    total = np.array([math.prod(1.0 + row[np.isfinite(row)]) - 1.0 for row in table])

    def draw(axes: Any) -> None:
        cells = np.column_stack([table, np.full(len(years), math.nan), total])
        _draw_cells(axes, 100.0 * cells)
        axes.set_xticks([*range(12), 13], [*MONTHS, "year"])
        axes.set_yticks(range(len(years)), [str(year) for year in years])
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)

    return Figure(
        "Returns of months (%)",
        draw,
        note=(
            "Net of costs, compounded. Blue is a gain, orange a loss; years have a scale of their "
            "own."
        ),
        size=(7.6, 0.7 + 0.235 * len(years)),
    )


def _draw_cells(axes: Any, cells: np.ndarray) -> None:
    """Colour cells by their value, the last column by itself, and write it into them."""
    months = np.abs(cells[:, :12][np.isfinite(cells[:, :12])])
    scale = np.full(cells.shape[1], np.quantile(months, 0.95) or 1.0)
    scale[-1] = np.abs(cells[:, -1]).max() or 1.0
    share = np.clip(np.nan_to_num(np.abs(cells) / scale), 0.0, 1.0)
    gain, loss = (np.array(_rgb(colour)) for colour in (PALETTE[0], PALETTE[1]))
    colours = np.where((cells >= 0.0)[..., None], gain, loss)
    axes.imshow(
        np.dstack([colours, np.where(np.isfinite(cells), 0.06 + 0.64 * share, 0.0)]), aspect="auto"
    )
    for (row, column), value in np.ndenumerate(cells):
        if math.isfinite(value):
            axes.text(
                column, row, _cell(value), ha="center", va="center", fontsize=7.2, color="black"
            )


def _cell(value: float) -> str:
    """Write a number shortly; z takes the sign off a zero."""
    return f"{value:z.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def _rgb(colour: str) -> list[float]:
    return [int(colour[place : place + 2], 16) / 255.0 for place in (1, 3, 5)]


def turnover_figure(analysis: Analysis) -> Figure:
    """Draw turnover and number of assets."""
    window = min(21, len(analysis.dates))

    def smooth(axes: Any, values: np.ndarray, colour: str, label: str) -> None:
        means = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(analysis.dates[window - 1 :], means, color=colour, lw=1.4, label=label)

    def draw(grid: Any) -> None:
        above, below = grid
        # The first day buys everything, which is no turnover to speak of.
        turnover = np.append(analysis.series["turnover"][1:2], analysis.series["turnover"][1:])
        smooth(above, 100.0 * turnover, OURS, "bought and sold")
        smooth(below, analysis.series["n_held"], OURS, "assets held")
        names = analysis.series["effective_names"]
        if np.isfinite(names).all():
            smooth(below, names, OTHERS[0], "effective number")
        above.set_ylabel("% of equity a day")
        below.set_ylabel("assets")
        for axes in grid:
            axes.set_ylim(0.0, 1.25 * axes.get_ylim()[1])
            axes.grid()
            axes.set_xlim(analysis.dates[0], analysis.dates[-1])
            legend(axes, columns=2)
        above.tick_params(labelbottom=False)
        date_ticks(below)

    return Figure(
        "Turnover and holdings",
        draw,
        note=(
            f"Means of {window} days, without the first, which buys everything. The effective "
            "number is one over the sum of the squared shares: equal shares in n assets have n."
        ),
        size=(7.6, 3.8),
        panels=(2, 1),
    )
