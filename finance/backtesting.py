"""From scores to returns that could have been earned.

What is done, exactly:

**Choice.** The scores of row t are known after its close. Of the members with a score in that row
those are chosen that the strategy names. Their order is total: by falling score, and for equal
scores by the order of the assets; "best" takes from its head, "worst" from its tail. A missing
score (NaN) is never chosen, nor is who is no member. If fewer than ``k`` have a score, each keeps
the share it would have had, and the rest stays in cash; the legs of "long_short" then shrink alike,
to half of what there is. A row without any score decides nothing: what is held stays.

**Weights.** A leg has ``gross`` (each leg of "long_short" half of it), divided equally or by
softmax. What is above ``max_weight`` is cut to it, and what is cut goes to the others of the leg in
proportion; what fits nowhere stays in cash. Weights that the user gave are cut only.

**Sleeves.** The money starts in ``hold`` equal sleeves. Counting rows from the first one with
scores, sleeve ``t % hold`` is renewed by the scores of row t: its own value, and no more, is
brought to the weights of that day. Sleeves pay for themselves, so all of them earn the mean of what
each would have earned alone. Between renewals units stay as they are and weights drift.

**Execution.** In row ``t + lag``, at its open or its close, all orders of a renewal at the same
prices. Costs are taken from the value that is divided: if ``K`` is the cost of all trades, the
weights are of ``value - K``. So a book without short sales and with ``gross`` of 1 never borrows.
Cash earns nothing. ``max_turnover`` shortens all trades of a renewal by one factor.

**Missing prices.** An asset without the price at which an order is executed is not traded in that
renewal. If it is held, it stays, and the others share what it does not tie up; if it is not held,
its share stays in cash, and nothing is bought later. At each close holdings are worth their close;
where it is missing, the open of that row if orders are executed at opens, and else the last price
there was. An asset that has no price in any later row is paid out at the close of the first row
without one, at its last price times ``1 + delisting_return``, with costs as for any trade.

**Short sales** pay ``borrow_bps_per_year / 252`` of their value at the close for each row that they
are held into, sleeve by sleeve. A sleeve whose value falls to 0 or below is closed, and its value
is 0 from then on: the loss beyond it is not counted.

**Rows.** The result begins with the row of the first execution and ends with the one in which the
last choice has been held for ``hold`` rows, or with the panel. The return of a row is its equity
over that of the row before (of the first row: over the money at the start); the gross return is
what it would have been had the costs and fees of that row not been paid.

.. warning::
   ``lag=0`` executes at the close that made the score. It is there to reproduce published numbers,
   and warns (`scikd.exceptions.LookAheadWarning`).

.. warning::
   Which assets disappear for good is known only in hindsight. Here it decides nothing but when the
   money of a dead position is free again: at once, instead of at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from scikd._progress import Progress
from scikd.exceptions import InvalidInputError, LookAheadWarning
from scikd.parallel import fan_out

from ._benchmarks import given_returns
from ._orders import Signals, plan
from .panel import Panel
from .result import BacktestResult
from .strategy import Strategy

__all__ = ["BENCHMARKS", "backtest", "backtest_many", "benchmark_returns"]

BENCHMARKS = ("equal_weight", "buy_and_hold")
"""What a backtest can be compared with by name; see `backtest`."""


def backtest(
    scores: Any,
    panel: Panel,
    strategy: Strategy | None = None,
    *,
    benchmark: Any = None,
    initial: float = 1.0,
) -> BacktestResult:
    """Trade scores by a strategy.

    Parameters
    ----------
    scores : numpy.ndarray of shape (n_dates, n_assets), pandas.DataFrame or pandas.Series
        Higher is better; NaN where there is none. Scores of row t may use what is known after the
        close of row t. Frames and series are laid over the panel by `scikd.finance.align_scores`.
    panel : Panel
        Prices and members.
    strategy : Strategy or None, default=None
        None is ``Strategy()``.
    benchmark : str, pandas.Series, numpy.ndarray or None, default=None
        What to compare with. "equal_weight": all members that have a close, in equal parts, renewed
        in each row; or "buy_and_hold": bought once, at the first execution; both without costs, at
        the prices and the lag of the strategy. Or daily returns, as fractions: a series is laid
        over the dates of the result, all of which it needs; an array of shape (n_dates,) has one
        for each row of the panel.
    initial : float, default=1.0
        Money at the start, in the currency of the prices.

    Returns
    -------
    BacktestResult
        Equity, returns, weights, trades and metrics.

    Raises
    ------
    InvalidInputError
        If shapes do not fit, a score is infinite, there is no score or no member with a score on a
        day with scores, the panel lacks opens that are asked for, fewer than two rows are left, or
        the benchmark has no return on some of them.

    Warns
    -----
    LookAheadWarning
        If the lag is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from scikd.finance import Panel, Strategy, backtest
    >>> rng = np.random.default_rng(0)
    >>> close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((250, 20)), axis=0))
    >>> dates = np.datetime64("2020-01-01") + np.arange(250)
    >>> panel = Panel(dates, [f"A{n:02}" for n in range(20)], {"close": close})
    >>> momentum = np.full(close.shape, np.nan)
    >>> momentum[20:] = close[20:] / close[:-20] - 1
    >>> result = backtest(momentum, panel, Strategy(k=5, hold=5, cost_bps=10))
    >>> len(result.equity), int(result.n_held.max())
    (229, 12)
    """
    strategy = Strategy() if strategy is None else strategy
    _check_kinds(panel, [strategy])
    _warn_of_look_ahead([strategy])
    signals = Signals(scores, panel)
    result = BacktestResult.of(signals, strategy, plan(signals, strategy), initial=initial)
    return result if benchmark is None else result.against(_benchmark(signals, result, benchmark))


def backtest_many(
    scores: Any,
    panel: Panel,
    strategies: Iterable[Strategy],
    *,
    benchmark: Any = None,
    initial: float = 1.0,
    n_jobs: int | None = None,
    progress: Progress = False,
) -> list[BacktestResult]:
    """Trade the same scores by many strategies at once.

    What strategies have in common (the choice, and the weights) is computed once, and narrow
    choices are taken out of wide ones. The runs share memory and are distributed over threads; each
    gives what `backtest` gives, to the last bit, but for the trades, which are not kept.

    Parameters
    ----------
    scores, panel, benchmark, initial
        As in `backtest`.
    strategies : iterable of Strategy
        At least one.
    n_jobs : int or None, default=None
        Threads; as in joblib.
    progress : {"auto", True, False}, default=False
        Whether to show how far it is.

    Returns
    -------
    list of BacktestResult
        In the order of the strategies; without trades, and so without weights.

    Raises
    ------
    InvalidInputError
        As in `backtest`, or if there is no strategy.
    """
    strategies = list(strategies)
    if not strategies:
        raise InvalidInputError("Expected at least one strategy; got none.")
    _check_kinds(panel, strategies)
    _warn_of_look_ahead(strategies)
    signals = Signals(scores, panel)
    # The widest choice first: narrower ones are made out of it.
    widths = [(one.quantile or 0.0, one.k) for one in strategies]
    falling = sorted(range(len(strategies)), key=widths.__getitem__, reverse=True)
    orders = {i: plan(signals, strategies[i]) for i in falling}
    tasks = [(signals, one, orders[i], initial, False) for i, one in enumerate(strategies)]
    # Kernels release the GIL, so that threads suffice and nothing is copied to a worker.
    from joblib import parallel_config  # noqa: PLC0415 - only this function needs it

    with parallel_config(backend="threading"):
        runs = fan_out(
            BacktestResult.of,
            tasks,
            n_jobs=n_jobs,
            description="Backtests",
            progress=progress,
        )
        results = list(runs)
    if benchmark is None:
        return results
    return [one.against(_benchmark(signals, one, benchmark)) for one in results]


def benchmark_returns(result: BacktestResult, benchmark: Any) -> np.ndarray:
    """Return the returns of a benchmark in the rows of a result.

    Parameters
    ----------
    result : BacktestResult
        Says rows, lag and prices; one that was loaded from a file does not know its market.
    benchmark : str, pandas.Series or numpy.ndarray
        As in `backtest`.

    Returns
    -------
    numpy.ndarray of shape (n_rows,)
        Without costs.

    Raises
    ------
    InvalidInputError
        If there is no such benchmark, or it lacks dates of the result.
    """
    return _benchmark(result.signals, result, benchmark)


def _check_kinds(panel: Any, strategies: Sequence[Any]) -> None:
    if not isinstance(panel, Panel):
        message = (
            f"Expected the prices as a Panel, after the scores; got a {type(panel).__name__}. "
            "Panel.from_long and Panel.from_wide make one of a frame, read_panel of a file."
        )
        raise InvalidInputError(message)
    for one in strategies:
        if not isinstance(one, Strategy):
            message = f"Expected a Strategy, such as Strategy(k=50); got {one!r}."
            raise InvalidInputError(message)


def _warn_of_look_ahead(strategies: Sequence[Strategy]) -> None:
    if any(one.lag == 0 for one in strategies):
        message = (
            "lag=0 buys at the close that made the score, which nobody can. "
            "Use it to reproduce published numbers only."
        )
        warnings.warn(message, LookAheadWarning, stacklevel=3)


def _benchmark(signals: Signals, result: BacktestResult, benchmark: Any) -> np.ndarray:
    """Return the returns of a benchmark in the rows of a result."""
    if isinstance(benchmark, str) and benchmark in BENCHMARKS:
        return _passive(signals, result, benchmark)
    return given_returns(benchmark, signals.panel.dates, result.rows, of="the panel")


def _passive(signals: Signals, result: BacktestResult, benchmark: str) -> np.ndarray:
    strategy, n_dates = result.strategy, signals.panel.n_dates
    first, last = result.rows.start - strategy.lag, result.rows.stop - strategy.lag
    daily = benchmark == "equal_weight"

    def make() -> np.ndarray:
        # A member without a price would only tie up cash: it is not listed yet, or no longer.
        there = signals.panel.member & np.isfinite(signals.panel.close)
        begin = first + int(np.argmax(there[first:last].any(axis=1)))
        decided = slice(begin, last if daily else begin + 1)
        level = np.full(signals.scores.shape, np.nan)
        level[decided] = np.where(there[decided], 0.0, np.nan)
        passive = Strategy(
            select="quantile",
            quantile=1.0,
            hold=1 if daily else n_dates,
            phases=0,
            lag=strategy.lag,
            price=strategy.price,
            cost_bps=0.0,
            delisting_return=strategy.delisting_return,
        )
        own = Signals(level, signals.panel)
        returns = BacktestResult.of(own, passive, plan(own, passive)).returns
        return np.concatenate([np.zeros(begin - first), returns])[: last - first]

    terms = (strategy.lag, strategy.price, strategy.delisting_return)
    return signals.once(("passive", daily, first, last, *terms), make)
