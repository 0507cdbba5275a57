"""The same scores under other terms: other horizons, groups, costs, delays and conventions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from scikd.exceptions import InvalidInputError

from ._orders import Orders, plan
from .luck import (
    Interval,
    expected_best_sharpe,
    probabilistic_sharpe_ratio,
    sharpe_difference,
    sharpe_interval,
)
from .metrics import YEAR, information_coefficient, newey_west_t, sharpe_ratio, summary
from .regimes import market_regimes
from .result import BacktestResult
from .strategy import Conventions, Price, Strategy

__all__ = [
    "Estimate",
    "Luck",
    "RegimeReturns",
    "Variant",
    "bill",
    "by_regime",
    "decay",
    "group_returns",
    "probe_luck",
    "sells_short",
    "under_costs",
    "under_lags",
]

HORIZONS = (1, 2, 3, 5, 10, 15, 21)
COSTS = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0)
LAGS = range(6)
NORMAL = 1.96  # standard errors to both sides hold 95 %
FEWEST_ROWS = 60  # below, an interval would be about nothing
USUAL_COST = 10.0  # basis points, where the strategy has none
# Number of members with a score from which on so many groups are made.
GROUPS = ((100, 10), (25, 5), (9, 3))


class Estimate(NamedTuple):
    """A number with its 95 % interval.

    Parameters
    ----------
    at : int
        Horizon, or number of the group.
    value, low, high : float
        The number, and its interval.
    """

    at: int
    value: float
    low: float
    high: float


class Variant(NamedTuple):
    """A backtest of the same scores under other terms.

    Parameters
    ----------
    name : str
        What is different.
    at : float
        The setting that varies, if it is a number.
    annual_return, sharpe_ratio, max_drawdown, calmar_ratio : float
        Net of the costs of the variant.
    as_run : bool
        Whether these are the terms of the strategy itself.
    """

    name: str
    at: float
    annual_return: float
    sharpe_ratio: float
    max_drawdown: float
    calmar_ratio: float
    as_run: bool


class RegimeReturns(NamedTuple):
    """What was earned on days that followed a regime of the market.

    Parameters
    ----------
    name : str
        Of the regime of the day before.
    n_days : int
        How many days.
    annual_return, benchmark : float
        Arithmetic annual return net of costs, and of equal weights.
    excess : float
        The first less the second.
    low, high : float
        Ends of the 95 % interval of the excess (Newey and West).
    """

    name: str
    n_days: int
    annual_return: float
    benchmark: float
    excess: float
    low: float
    high: float


class Luck(NamedTuple):
    """Whether a result is told apart from luck.

    Parameters
    ----------
    sharpe : Interval
        The net annual Sharpe ratio.
    differences : dict of str to Interval
        This ratio less that of each benchmark.
    n_trials : int
        Number of configurations that were counted.
    expected_best : float
        Annual Sharpe ratio that the best of as many has by luck alone.
    deflated_sharpe : float
        Probability that the true ratio is above that.
    """

    sharpe: Interval
    differences: dict[str, Interval]
    n_trials: int
    expected_best: float
    deflated_sharpe: float


# -- of the scores -------------------------------------------------------------------------------


def decay(result: BacktestResult) -> list[Estimate]:
    """Return the mean rank information coefficient over several horizons from the execution on."""
    found = []
    for horizon in sorted({*HORIZONS, result.strategy.hold}):
        scores, later = _scores_and_returns(result, horizon)
        series = information_coefficient(scores, later, rank=True) if len(scores) else scores
        found += _estimates([horizon], [series], horizon)
    return found


def group_returns(result: BacktestResult) -> list[Estimate]:
    """Return what groups of assets by score earned a year more than all of them together.

    The groups have equal size, from the lowest scores to the highest; what they earn is the mean
    over ``hold`` rows from the execution on, before costs.
    """
    from scikd.kernels.ranks import group_ranks  # noqa: PLC0415 - compiles on first use

    hold = result.strategy.hold
    scores, later = _scores_and_returns(result, hold)
    known = np.isfinite(scores) & np.isfinite(later)
    counts = known.sum(axis=1)
    scores, later, known = (x[counts > 0] for x in (scores, later, known))
    counts = counts[counts > 0]
    typical = np.median(counts) if len(counts) else 0
    n_groups = next((number for least, number in GROUPS if typical >= least), 0)
    if n_groups == 0:
        return []
    row, column = np.nonzero(known)
    share = (group_ranks(scores[known], row) - 0.5) / counts[row]
    cell = row * n_groups + np.minimum((share * n_groups).astype(np.int64), n_groups - 1)
    earned = later[row, column]
    size = len(counts) * n_groups
    with np.errstate(invalid="ignore"):  # equal scores may leave a group empty
        means = np.bincount(cell, earned, size) / np.bincount(cell, minlength=size)
    excess = means.reshape(-1, n_groups) - (np.bincount(row, earned) / counts)[:, None]
    yearly = excess * YEAR / hold
    return _estimates(range(1, n_groups + 1), yearly.T, hold)


def _scores_and_returns(result: BacktestResult, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the members' scores of the rows that were traded, and what followed."""
    signals, strategy = result.signals, result.strategy
    orders = plan(signals, strategy)
    rows = orders.rows[orders.rows + horizon < len(orders.price)]
    scored = rows - strategy.lag
    later = orders.price[rows + horizon] / orders.price[rows] - 1.0
    return np.where(signals.panel.member[scored], signals.scores[scored], np.nan), later


def _estimates(places: Iterable[int], series: Any, horizon: int) -> list[Estimate]:
    """Return the means of series that overlap over a horizon, with intervals (Newey-West)."""
    found = []
    for at, values in zip(places, series, strict=True):
        known = values[np.isfinite(values)]
        if len(known) < 2:
            continue
        lags = max(horizon - 1, int(4 * (len(known) / 100) ** (2 / 9)))
        mean, t = float(known.mean()), newey_west_t(known, lags=lags)
        width = NORMAL * abs(mean / t) if t and math.isfinite(t) else math.nan
        found.append(Estimate(at, mean, mean - width, mean + width))
    return found


# -- of the strategy -----------------------------------------------------------------------------


def under_costs(result: BacktestResult) -> list[Variant]:
    """Return the strategy at several costs."""
    own = result.strategy
    costs = sorted({*COSTS, own.cost_bps})
    tried = ((f"{cost:g} bp", cost, replace(own, cost_bps=cost)) for cost in costs)
    return list(_variants(result, tried))


def under_lags(result: BacktestResult) -> list[Variant]:
    """Return the strategy with several delays."""
    own = result.strategy
    lags = sorted({*LAGS, own.lag})
    return list(_variants(result, ((f"{lag}", float(lag), _delayed(own, lag)) for lag in lags)))


def bill(result: BacktestResult) -> list[Variant]:
    """Return the way from the conventions of publications to what could have been earned."""
    own = result.strategy
    lag, cost, fee = own.lag or 1, own.cost_bps or USUAL_COST, own.borrow_bps_per_year
    if sells_short(result):
        fee = fee or Strategy().borrow_bps_per_year
    same_close = replace(own, lag=0, price="close", cost_bps=0.0, borrow_bps_per_year=0.0)
    tradable = replace(_delayed(own, lag), cost_bps=0.0, borrow_bps_per_year=0.0)
    honest = replace(tradable, cost_bps=cost, borrow_bps_per_year=fee)
    at = "open" if plan(result.signals, tradable).at_open else "close"
    fees = f" and a fee of {fee:g} bp a year on short sales" if sells_short(result) else ""
    steps: list[tuple[str, Strategy, Conventions]] = [
        ("as often published: at the signal's own close, without costs", same_close, "published"),
        ("the same, with the usual metrics", same_close, "standard"),
        (f"executed {lag} day{'s' * (lag > 1)} later, at the {at}", tradable, "standard"),
        (f"with costs of {cost:g} bp a side{fees}", honest, "standard"),
    ]
    return list(
        _variants(result, ((name, 0.0, replace(s, conventions=by)) for name, s, by in steps))
    )


def sells_short(result: BacktestResult) -> bool:
    """Say whether anything is sold short."""
    strategy = result.strategy
    given = strategy.select == "weights" and bool((result.signals.scores < 0).any())
    return given or strategy.select == "long_short"


def _delayed(strategy: Strategy, lag: int) -> Strategy:
    # With no delay only the close can be asked for, so that "close" was no choice.
    free = lag == 0 or strategy.lag == 0
    return replace(strategy, lag=lag, price="auto" if free else strategy.price)


def _variants(
    result: BacktestResult, tried: Iterable[tuple[str, float, Strategy]]
) -> Iterator[Variant]:
    signals = result.signals
    short = sells_short(result)
    own = _terms(result.strategy, plan(signals, result.strategy), short=short)
    for name, at, strategy in tried:
        try:
            orders = plan(signals, strategy)
        except InvalidInputError:  # so late that nothing is left to trade
            continue
        run = BacktestResult.of(signals, strategy, orders, keep_trades=False)
        by = strategy.conventions
        phases = run._returns_of_phases() if by == "published" else []  # noqa: SLF001 - no IC here
        found = summary(run.returns, phases=phases, conventions=by)
        yield Variant(
            name,
            at,
            found["annual_return"].value,
            found["sharpe_ratio"].value,
            found["max_drawdown"].value,
            found["calmar_ratio"].value,
            _terms(strategy, orders, short=short) == own,
        )


def _terms(strategy: Strategy, orders: Orders, *, short: bool) -> Strategy:
    """Return a strategy with its price spelled out, and no fee if none is due, to compare it."""
    fee = strategy.borrow_bps_per_year if short else 0.0
    price: Price = "open" if orders.at_open else "close"
    return replace(strategy, price=price, borrow_bps_per_year=fee)


def by_regime(result: BacktestResult, benchmark: np.ndarray) -> list[RegimeReturns]:
    """Return what was earned by the regime of the market on the day before, if days have one."""
    regimes = market_regimes(result.signals.panel)
    before = np.append(-1, regimes.codes[:-1])[result.rows]
    found = []
    for code, name in enumerate(regimes.names):
        own, bar = result.returns[before == code], benchmark[before == code]
        if len(own) >= FEWEST_ROWS:
            (gap,) = _estimates([code], [own - bar], 1)
            days = (own.mean(), bar.mean(), *gap[1:])
            found.append(RegimeReturns(name, len(own), *(float(x * YEAR) for x in days)))
    return found


# -- luck ----------------------------------------------------------------------------------------


def probe_luck(
    returns: np.ndarray,
    benchmarks: Mapping[str, np.ndarray],
    *,
    trials: int | Sequence[float],
    n_resamples: int,
    seed: int,
) -> Luck | None:
    """Return intervals and the deflated Sharpe ratio, or None where rows are too few for them.

    Parameters
    ----------
    returns : numpy.ndarray of shape (n,)
        Net daily returns.
    benchmarks : mapping of str to numpy.ndarray of shape (n,)
        What to compare with.
    trials : int or sequence of float
        Number of configurations that were tried, this one among them; or their annual Sharpe
        ratios. Where only the number is known, their ratios are taken to spread as luck alone
        makes them, by the root of ``252 / n``.
    n_resamples, seed : int
        Of the bootstrap.
    """
    ratio = sharpe_ratio(returns)
    if len(returns) < FEWEST_ROWS or math.isnan(ratio):
        return None
    if isinstance(trials, Integral):
        n_trials, spread = int(trials), YEAR / len(returns)
    else:
        given = np.asarray(trials, dtype=np.float64)
        n_trials, spread = len(given), float(given.var(ddof=1)) if len(given) > 1 else 0.0
    if n_trials < 1:
        message = f"Expected at least one configuration that was tried, this one; got {trials!r}."
        raise InvalidInputError(message)
    best = expected_best_sharpe(n_trials, spread)
    again = {"n_resamples": n_resamples, "seed": seed}
    return Luck(
        sharpe_interval(returns, **again),
        {name: sharpe_difference(returns, bar, **again) for name, bar in benchmarks.items()},
        n_trials,
        best,
        probabilistic_sharpe_ratio(returns, benchmark=best),
    )
