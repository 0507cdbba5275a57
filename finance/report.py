"""The tear sheet of a backtest: what was earned, on which terms, and whether by luck."""

from __future__ import annotations

import math

from scikd.report import Item, Report, Section, Table, Text

from ._choices import choices, warnings_of
from ._figures import (
    equity_figure,
    month_figure,
    rolling_figure,
    turnover_figure,
)
from ._report_tables import drawdown_table, metric_table, short_table, year_table
from ._score_figures import cost_figure, decay_figure, group_figure, ic_figure
from ._words import benchmark_name, interval, percent, points, ratio, span, told_apart
from .analysis import Analysis, analyse
from .experiments import FEWEST_ROWS, Luck
from .luck import Interval
from .metrics import break_even_cost
from .regimes import NAMES, RegimeAlignment
from .result import BacktestResult

__all__ = ["tear_sheet", "verdict"]


def tear_sheet(
    analysis: Analysis | BacktestResult,
    *,
    alignment: RegimeAlignment | None = None,
    title: str | None = None,
    command: str = "",
) -> Report:
    """Return the page of a backtest.

    Parameters
    ----------
    analysis : Analysis or BacktestResult
        What to show; a result is first given to `analyse`.
    alignment : RegimeAlignment or None, default=None
        Whom the scores resemble in which regime of the market, of `regime_alignment`; None takes
        that of the analysis, if it has one.
    title : str or None, default=None
        Title of the page; None takes the name of the scores.
    command : str, default=""
        For the foot.

    Returns
    -------
    scikd.report.Report
        Figures need matplotlib; without it the page says so.
    """
    if isinstance(analysis, BacktestResult):
        analysis = analyse(analysis)
    dates = analysis.dates
    sections = [
        _headline(analysis),
        _luck_section(analysis),
        _bill_section(analysis),
        _score_section(analysis),
        _trade_section(analysis),
        _time_section(analysis),
        _regime_section(analysis, alignment or analysis.alignment),
        Section("All metrics, with their conventions", [metric_table(analysis)]),
        Section("What was done", [Text("\n\n".join(choices(analysis)))]),
    ]
    market = f" of {analysis.facts['market']}" if analysis.facts["market"] else ""
    return Report(
        title or f"Backtest: {analysis.name}",
        [section for section in sections if section is not None],
        subtitle=f"{analysis.facts['n_assets']:,} assets{market}, {dates[0]} to {dates[-1]}, "
        f"{len(dates):,} trading days.",
        seed=analysis.facts["seed"],
        command=command,
    )


def verdict(analysis: Analysis) -> str:
    """Return the finding in a few sentences.

    Parameters
    ----------
    analysis : Analysis
        Of a backtest.
    """
    found, luck = analysis.metrics, analysis.luck
    sharpe = found["sharpe_ratio"].value
    if not math.isfinite(sharpe):
        return "Returns do not vary, so there is no Sharpe ratio and nothing to tell from luck."
    if luck is None:
        return (
            f"The net Sharpe ratio is {ratio(sharpe)} over {len(analysis.dates)} days. That is too "
            "little to say how far luck may reach; there are no intervals on this page."
        )
    edge = analysis.series["gross_returns"] - analysis.benchmarks["equal_weight"]
    ahead = break_even_cost(edge, analysis.series["turnover"])
    return (
        f"After costs the Sharpe ratio is {ratio(luck.sharpe.estimate)}, 95 % interval "
        f"{span(luck.sharpe)}. It is {_beats(luck)}.\n\n"
        f"{_break_even(found['break_even_cost'].value, ahead)} {analysis.strategy.cost_bps:g} bp a "
        "side were paid."
    )


def _beats(luck: Luck) -> str:
    """Say what a Sharpe ratio is told apart from; what is found alike is said once."""
    low, high = luck.sharpe.low, luck.sharpe.high
    zero = "above" if low > 0 else "below" if high < 0 else "not told apart from"
    groups = {zero: ["zero"]}
    for name, gap in luck.differences.items():
        bar = f"{benchmark_name(name)} (difference {interval(gap)})"
        groups.setdefault(told_apart(gap), []).append(bar)
    return "; ".join(
        f"{found} {(' or ' if found.startswith('not') else ' and ').join(bars)}"
        for found, bars in groups.items()
    )


def _break_even(nothing: float, ahead: float) -> str:
    """Say at which costs nothing is left, and nothing beyond equal weight."""
    if not nothing > 0:
        return "It would have lost money without any costs."
    text = f"It would have earned nothing at costs of {points(nothing)} bp a side"
    if not ahead > 0:
        return f"{text}, and less than equal weight without any."
    return f"{text}, and no more than equal weight at {points(ahead)} bp."


def _headline(analysis: Analysis) -> Section:
    items: list[Item] = [Text(warning) for warning in warnings_of(analysis)]
    items += [equity_figure(analysis), short_table(analysis)]
    return Section("What it earned", items, summary=verdict(analysis))


# -- luck ----------------------------------------------------------------------------------------


def _luck_section(analysis: Analysis) -> Section | None:
    luck = analysis.luck
    if luck is None:
        return None
    rows: list[list[object]] = [
        ["Sharpe ratio", *_cells(luck.sharpe)],
        *(
            [f"Sharpe ratio less that of {benchmark_name(name)}", *_cells(gap)]
            for name, gap in luck.differences.items()
        ),
    ]
    note = (
        "Stationary bootstrap of daily net returns (blocks, so that what hangs together in time "
        "stays together); the rows of a benchmark are drawn together with those of the strategy. "
        "The p-value is the share of resampled numbers as far from the estimate as zero is."
    )
    found = f"is {luck.deflated_sharpe:.3f} (deflated Sharpe ratio; 0.95 is commonly asked for)."
    if luck.n_trials == 1:
        counted = (
            "One configuration is counted. The probability that its true Sharpe ratio is above "
            f"zero {found}"
        )
    else:
        counted = (
            f"{luck.n_trials} configurations are counted. The best of as many that are worth "
            f"nothing has a Sharpe ratio of about {ratio(luck.expected_best)} by luck alone; the "
            f"probability that the true ratio is above that {found}"
        )
    warning = (
        "Whatever was looked at before counts: other parameters, other signals, other periods. If "
        "more was tried than is counted here, the probability is too high."
    )
    sure = luck.deflated_sharpe > 0.95
    gap = luck.differences["equal_weight"]
    if sure and gap.low > 0:
        summary = "Luck alone is an unlikely explanation, as far as these tests can see."
    elif sure:
        summary = (
            "That it earns something is hardly luck, but a market that rises does as much: it is "
            f"{told_apart(gap)} equal weights."
        )
    else:
        summary = "Luck cannot be excluded."
    items: list[Item] = [
        Table("Intervals", ["", "estimate", "95 % interval", "p-value"], rows, note=note),
        Text(f"{counted} {warning}"),
    ]
    rolling = rolling_figure(analysis)
    return Section("Is it luck?", [*items, *([rolling] if rolling else [])], summary=summary)


def _cells(found: Interval) -> list[object]:
    return [
        ratio(found.estimate, signed=True),
        span(found),
        f"{found.p_value:.3f}" if found.p_value >= 0.001 else "< 0.001",
    ]


def _bill_section(analysis: Analysis) -> Section:
    steps = analysis.bill
    rows = [
        [
            step.name,
            percent(step.annual_return),
            ratio(step.sharpe_ratio),
            percent(step.max_drawdown),
            ratio(step.calmar_ratio),
        ]
        for step in steps
    ]
    mark = next((i for i, step in enumerate(steps) if step.as_run), None)
    table = Table(
        "From published conventions to what could be earned",
        ["", "annual return", "Sharpe ratio", "largest drawdown", "Calmar ratio"],
        rows,
        note=(
            "Published: standard deviation of the population, drawdown of the sum of returns, "
            "annual return over that drawdown, of each phase and then averaged. Usual: standard "
            "deviation of a sample, compounded drawdown, compound growth over it. Annual returns "
            "are arithmetic throughout." + (" Marked: as it was run." if mark is not None else "")
        ),
        highlight_row=mark,
    )
    first, last = steps[0], steps[-1]
    summary = (
        f"By the conventions of much of the literature the Sharpe ratio would be "
        f"{ratio(first.sharpe_ratio)}; executed when it can be, and with costs, it is "
        f"{ratio(last.sharpe_ratio)}."
    )
    return Section("The bill", [table, cost_figure(analysis)], summary=summary)


# -- scores, trades, time ------------------------------------------------------------------------


def _score_section(analysis: Analysis) -> Section | None:
    figures = [draw(analysis) for draw in (ic_figure, decay_figure, group_figure)]
    shown: list[Item] = [figure for figure in figures if figure is not None]
    if not shown:
        return None
    found = analysis.metrics
    summary = ""
    if "rank_ic" in found and math.isfinite(found["rank_ic"].value):
        t = found["rank_ic_t"].value
        sure = "told from zero" if abs(t) > 1.96 else "not told from zero"
        summary = f"The mean rank IC is {found['rank_ic'].value:+.4f} (t = {t:.2f}), {sure}."
        if abs(found["rank_ic"].value) > 0.05:
            summary += (
                " On daily prices alone more than 0.05 is rare: look for a leak before you "
                "believe it."
            )
    return Section("Do the scores rank?", shown, summary=summary)


def _trade_section(analysis: Analysis) -> Section:
    turnover, found = analysis.series["turnover"], analysis.metrics
    summary = (
        f"{percent(found['turnover'].value)} of the equity is traded a day, buys and sales "
        f"together, {float(turnover.mean()) * 252.0:.0f} times the equity a year; costs take "
        f"{percent(found['cost_per_year'].value)} a year."
    )
    return Section("What it trades", [turnover_figure(analysis)], summary=summary)


def _time_section(analysis: Analysis) -> Section:
    months = month_figure(analysis)
    items: list[Item] = [] if months is None else [months]
    items += [year_table(analysis), drawdown_table(analysis)]
    return Section("Over time", items)


def _regime_section(analysis: Analysis, alignment: RegimeAlignment | None) -> Section | None:
    items: list[Item] = []
    if analysis.regimes:
        rows = [
            [
                regime.name,
                regime.n_days,
                percent(regime.annual_return),
                percent(regime.benchmark),
                percent(regime.excess, signed=True),
                f"{percent(regime.low, signed=True)} to {percent(regime.high, signed=True)}",
            ]
            for regime in analysis.regimes
        ]
        columns = ("days", "net of costs", "equal weight", "difference", "95 % interval")
        items.append(
            Table(
                "Annual return by the regime of the day before",
                ["", *columns],
                rows,
                note=(
                    "Arithmetic. Volatile or rising: the market's volatility of 20 days, or its "
                    "trend of 60, is above its median so far; so the regime was known before the "
                    "return. Several rows are looked at here; that one differs says little."
                    + _left_out(analysis)
                ),
            )
        )
    if alignment is not None:
        items.append(alignment.figure())
    return Section("In which market?", items) if items else None


def _left_out(analysis: Analysis) -> str:
    """Name the regimes that have too few days for a row."""
    few = set(NAMES) - {regime.name for regime in analysis.regimes}
    names = "; ".join(name for name in NAMES if name in few)
    return f" Without a row, for less than {FEWEST_ROWS} days: {names}." if few else ""
