"""Figures of a tear sheet: what the scores know, and what is left of it on other terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scikd.report import PALETTE, Figure

from ._axes import date_ticks, legend
from .analysis import Analysis
from .experiments import Estimate
from .metrics import YEAR, sharpe_ratio

__all__ = ["cost_figure", "decay_figure", "group_figure", "ic_figure"]

OURS, OTHER = PALETTE[:2]


def ic_figure(analysis: Analysis) -> Figure | None:
    """Draw rank information coefficients: means of months, and their mean of a year."""
    known = np.isfinite(analysis.rank_ic)
    dates, values = analysis.ic_dates[: len(analysis.rank_ic)][known], analysis.rank_ic[known]
    if len(values) < 20:
        return None
    months, start = np.unique(dates.astype("M8[M]"), return_index=True)
    counts = np.diff(np.append(start, len(values)))
    means = np.add.reduceat(values, start) / counts

    def draw(grid: Any) -> None:
        left, right = grid
        left.get_gridspec().set_width_ratios([3.0, 1.0])
        colours = [OURS if mean >= 0.0 else OTHER for mean in means]
        left.bar(
            months.astype("M8[D]"), means, width=24.0, color=colours, alpha=0.55, lw=0, align="edge"
        )
        if len(values) > 2 * YEAR:
            year = np.convolve(values, np.ones(YEAR) / YEAR, mode="valid")
            left.plot(dates[YEAR - 1 :], year, color="black", lw=1.5, label="mean of the last year")
            legend(left)
        left.axhline(0.0, color="black", lw=0.8)
        left.set_ylabel("rank IC")
        left.grid(axis="y")
        date_ticks(left)
        right.hist(values, bins=31, color=OURS, alpha=0.7, orientation="horizontal")
        right.axhline(values.mean(), color="black", lw=1.2, ls=(0, (4, 3)))
        right.axhline(0.0, color="black", lw=0.8)
        right.set_xlabel("days")

    return Figure(
        "Rank information coefficient",
        draw,
        note=(
            "Spearman's correlation of scores with returns over the holding period from the "
            "execution on. Left: means of months. Right: all days; dashed is their mean."
        ),
        size=(7.6, 3.0),
        panels=(1, 2),
    )


def decay_figure(analysis: Analysis) -> Figure | None:
    """Draw the rank information coefficient over horizons."""
    if len(analysis.decay) < 2:
        return None

    def draw(axes: Any) -> None:
        _draw_estimates(axes, analysis.decay)
        axes.set_xlabel("days from the execution on")
        axes.set_ylabel("mean rank IC")

    return Figure(
        "How long do scores know something?",
        draw,
        note="Mean rank IC with the return over so many days; 95 % intervals (Newey and West).",
        size=(5.6, 3.0),
    )


def group_figure(analysis: Analysis) -> Figure | None:
    """Draw what groups by score earned."""
    groups = analysis.groups
    if len(groups) < 2:
        return None

    def draw(axes: Any) -> None:
        values = 100.0 * np.array([group[1:] for group in groups])
        places = [group.at for group in groups]
        colours = [OURS if value >= 0.0 else OTHER for value in values[:, 0]]
        axes.bar(places, values[:, 0], color=colours, alpha=0.8, width=0.75)
        axes.vlines(places, values[:, 1], values[:, 2], color="black", lw=1.2)
        axes.plot(places, values[:, 0], "k.", ms=4)
        axes.axhline(0.0, color="black", lw=0.8)
        axes.set_xticks(places)
        axes.set_xlabel("group by score, lowest to highest")
        axes.set_ylabel("% a year beyond all")
        axes.grid(axis="y")

    return Figure(
        "Returns by score",
        draw,
        note=(
            "Groups of equal size on each day; mean return over the holding period beyond the mean "
            "of all, a year, before costs; 95 % intervals (Newey and West). A signal that ranks "
            "rises from left to right."
        ),
        size=(5.6, 3.0),
    )


def cost_figure(analysis: Analysis) -> Figure:
    """Draw the Sharpe ratio over costs and over the delay."""
    break_even = analysis.metrics["break_even_cost"].value

    def draw(grid: Any) -> None:
        left, right = grid
        for axes, variants, label in (
            (left, analysis.costs, "cost of a side (bp)"),
            (right, analysis.lags, "days from score to execution"),
        ):
            places = [variant.at for variant in variants]
            ratios = [variant.sharpe_ratio for variant in variants]
            axes.plot(places, ratios, "o-", color=OURS, lw=1.5, ms=5)
            for variant in variants:
                if variant.as_run:
                    axes.plot(
                        variant.at, variant.sharpe_ratio, "o", color=OURS, ms=10, label="as run"
                    )
            axes.axhline(0.0, color="black", lw=0.8)
            axes.set_xlabel(label)
            axes.grid()
        bar = sharpe_ratio(analysis.benchmarks["equal_weight"])
        if math.isfinite(bar):
            for axes in grid:
                axes.axhline(bar, color=OTHER, lw=1.2, ls=(0, (4, 3)), label="equal weight")
        if 0.0 < break_even < max(variant.at for variant in analysis.costs):
            left.axvline(break_even, color="black", lw=1.0, ls=(0, (1, 2)), label="break-even")
        left.set_ylabel("net Sharpe ratio")
        legend(left, place="lower left")

    return Figure(
        "Costs and delay",
        draw,
        note=(
            "The same scores at other costs (left), and executed so many days after the score, at "
            "the costs of the run (right); a delay of 0 is the close that made the score."
        ),
        size=(7.6, 3.0),
        panels=(1, 2),
    )


def _draw_estimates(axes: Any, estimates: Sequence[Estimate]) -> None:
    table = np.array(estimates)
    places = np.arange(len(table))
    axes.axhline(0.0, color="black", lw=0.8)
    axes.vlines(places, table[:, 2], table[:, 3], color=OURS, lw=2.2, alpha=0.8)
    axes.plot(places, table[:, 1], "o-", color=OURS, ms=6, lw=1.0)
    axes.set_xticks(places, [f"{int(at)}" for at in table[:, 0]])
    axes.grid(axis="y")
