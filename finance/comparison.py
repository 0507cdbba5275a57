"""Several backtests on one page: which one is best, and whether that is luck."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.report import PALETTE, Figure, Item, Report, Section, Table, Text

from ._axes import date_ticks, plain_log_ticks
from ._words import interval, percent, points, ratio, span, told_apart
from .analysis import Analysis
from .experiments import FEWEST_ROWS
from .luck import (
    backtest_overfitting,
    confidence_set,
    deflated_sharpe_ratio,
    sharpe_difference,
    sharpe_interval,
    superior_ability,
)
from .metrics import break_even_cost, cagr, max_drawdown, sharpe_ratio

__all__ = ["comparison_report", "comparison_section"]

N_BLOCKS = 16


def comparison_report(
    analyses: Mapping[str, Analysis],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    command: str = "",
) -> Report:
    """Return a page that compares backtests on the days that all of them have.

    All of them count as tried; the deflated Sharpe ratio, the probability of overfitting, Hansen's
    test and the model confidence set are of the whole lot.

    Parameters
    ----------
    analyses : mapping of str to Analysis
        By name, two at least; paths are cut to what tells them apart.
    n_resamples, seed : int
        As in `scikd.finance.luck.sharpe_interval`.
    command : str, default=""
        For the foot.

    Returns
    -------
    scikd.report.Report
        One section.

    Raises
    ------
    InvalidInputError
        If there are fewer than two, or they have fewer than 60 days in common.
    """
    return Report(
        f"{len(analyses)} backtests",
        [comparison_section(analyses, n_resamples=n_resamples, seed=seed)],
        subtitle="On the days that all of them have.",
        seed=seed,
        command=command,
    )


def comparison_section(
    analyses: Mapping[str, Analysis], *, n_resamples: int = 1000, seed: int = 0
) -> Section:
    """Return what `comparison_report` shows.

    Parameters
    ----------
    analyses : mapping of str to Analysis
        By name, two at least.
    n_resamples, seed : int
        As in `scikd.finance.luck.sharpe_interval`.
    """
    lot = _Lot(analyses, {"n_resamples": n_resamples, "seed": seed})
    items: list[Item] = [_figure(lot), *_tables(lot), _bill_table(lot), Text(_luck(lot))]
    return Section("Which one, and is it luck?", items, summary=_summary(lot))


class _Lot:
    """Backtests, cut to the days that all of them have."""

    def __init__(self, analyses: Mapping[str, Analysis], again: dict[str, Any]) -> None:
        if len(analyses) < 2:
            message = f"Expected at least two backtests to compare; got {len(analyses)}."
            raise InvalidInputError(message)
        self.again = again
        self.analyses = list(analyses.values())
        self.names = _short(list(analyses))
        self.days = reduce(np.intersect1d, [one.dates for one in self.analyses])
        if len(self.days) < FEWEST_ROWS:
            message = (
                f"Expected backtests with at least {FEWEST_ROWS} days in common; got "
                f"{len(self.days)}. They are of " + ", ".join(map(_span_of, self.analyses)) + "."
            )
            raise InvalidInputError(message)
        rows = [np.isin(one.dates, self.days) for one in self.analyses]
        self.returns = self._cut([one.series["returns"] for one in self.analyses], rows)
        self.gross = self._cut([one.series["gross_returns"] for one in self.analyses], rows)
        self.turnover = self._cut([one.series["turnover"] for one in self.analyses], rows)
        self.bars = self._cut([one.benchmarks["equal_weight"] for one in self.analyses], rows)
        self.ratios = {name: _number(sharpe_ratio(own)) for name, own in self.returns.items()}
        self.best = max(self.ratios, key=lambda name: self.ratios[name])
        # Sharpe ratios less those of equal weights.
        self.gaps = {
            name: sharpe_difference(own, self.bars[name], **again)
            for name, own in self.returns.items()
        }

    def _cut(self, series: list[np.ndarray], rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        cut = (values[kept] for values, kept in zip(series, rows, strict=True))
        return dict(zip(self.names, cut, strict=True))


def _short(paths: list[str]) -> list[str]:
    """Cut paths to their last parts, as long as these differ."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(one[-length:]) for one in parts]
        if len(set(short)) == len(short):
            return short
    return paths


def _span_of(analysis: Analysis) -> str:
    return f"{analysis.dates[0]} to {analysis.dates[-1]}"


def _number(value: float) -> float:
    return float(np.nan_to_num(value))


def _figure(lot: _Lot) -> Figure:
    def draw(axes: Any) -> None:
        for place, (name, returns) in enumerate(lot.returns.items()):
            first = name == lot.best
            axes.plot(
                lot.days,
                np.cumprod(1.0 + returns),
                color=PALETTE[place % len(PALETTE)],
                lw=2.0 if first else 1.1,
                label=name,
            )
        bar = np.cumprod(1.0 + lot.bars[lot.best])
        axes.plot(lot.days, bar, color="black", lw=1.1, ls=(0, (4, 3)), label="equal weight")
        axes.set_yscale("log")
        plain_log_ticks(axes)
        axes.set_ylabel("value of 1 (log scale)")
        axes.set_xlim(lot.days[0], lot.days[-1])
        axes.grid()
        axes.legend(fontsize=8.0, frameon=False, ncol=2)
        date_ticks(axes)

    return Figure("Equity", draw, note="Net of costs; equal weight pays none.", size=(7.6, 3.8))


def _tables(lot: _Lot) -> list[Table]:
    best, mark = confidence_set(lot.returns, **lot.again).included, lot.names.index(lot.best)
    numbers: list[list[object]] = [
        [
            name,
            ratio(lot.ratios[name]),
            percent(cagr(own)),
            percent(max_drawdown(own)),
            percent(float(lot.turnover[name].mean())),
            points(break_even_cost(lot.gross[name], lot.turnover[name])),
        ]
        for name, own in lot.returns.items()
    ]
    bar = lot.bars[lot.best]
    passive: list[object] = [
        ratio(sharpe_ratio(bar)),
        percent(cagr(bar)),
        percent(max_drawdown(bar)),
    ]
    numbers.append(["equal weight", *passive, None, None])
    columns = ("Sharpe ratio", "growth a year", "largest drawdown", "turnover a day")
    intervals = [
        [
            name,
            span(sharpe_interval(own, **lot.again)),
            f"{lot.gaps[name].estimate:+.2f} ({span(lot.gaps[name])})",
            "yes" if name in best else "no",
        ]
        for name, own in lot.returns.items()
    ]
    return [
        Table(
            "Net of costs",
            ["", *columns, "break-even (bp a side)"],
            numbers,
            note="Marked: the highest Sharpe ratio of a strategy. Equal weight pays no costs.",
            highlight_row=mark,
        ),
        Table(
            "95 % intervals",
            ["", "Sharpe ratio", "less that of equal weight", "may be the best"],
            intervals,
            note=(
                "Stationary bootstrap. May be the best: its mean return cannot be told from the "
                "highest (model confidence set)."
            ),
            highlight_row=mark,
        ),
    ]


def _bill_table(lot: _Lot) -> Table:
    rows = []
    for name, analysis in zip(lot.names, lot.analyses, strict=True):
        published, _, tradable, honest = analysis.bill
        steps = (published, tradable, honest)
        rows.append([name, *(ratio(step.sharpe_ratio) for step in steps)])
    return Table(
        "Sharpe ratio by the terms of trade",
        ["", "as often published", "executed a day later", "and with costs"],
        rows,
        note=(
            "As often published: at the close that made the score, without costs, standard "
            "deviation of the population, phases averaged. Each on all of its own days."
        ),
    )


def _luck(lot: _Lot) -> str:
    deflated = deflated_sharpe_ratio(lot.returns[lot.best], list(lot.ratios.values()))
    overfitting = backtest_overfitting(lot.returns, n_blocks=N_BLOCKS).probability
    excess = {name: own - lot.bars[name] for name, own in lot.returns.items()}
    p_value = superior_ability(excess, np.zeros(len(lot.days)), **lot.again)["consistent"]
    return (
        f"The probability that the true Sharpe ratio of {lot.best} is above what luck gives the "
        f"best of {len(lot.names)} is {deflated:.3f} (deflated Sharpe ratio; 0.95 is commonly "
        "asked for). What the market gave is in it; more than that is another question.\n\n"
        "Choosing the best of one half of the days, the choice is below the median of all in the "
        f"other half with a probability of {overfitting:.2f} (probability of backtest "
        f"overfitting, {N_BLOCKS} blocks; 0.5 is what choosing by luck gives).\n\n"
        f"That none of them earns more than equal weights has a p-value of {p_value:.3f} (Hansen's "
        "test of superior predictive ability, consistent).\n\n"
        "All of this knows of these backtests only. What else was tried, here or by others on the "
        "same data, is not counted."
    )


def _summary(lot: _Lot) -> str:
    gap = lot.gaps[lot.best]
    return (
        f"From {lot.days[0]} to {lot.days[-1]} the highest net Sharpe ratio, "
        f"{ratio(lot.ratios[lot.best])}, is that of {lot.best}. It is "
        f"{told_apart(gap)} equal weight (difference {interval(gap)})."
    )
