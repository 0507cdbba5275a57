"""Other packages' backtest and metrics in their own environment: they read a file, and write one.

Run by the interpreter of that environment, which has neither scikd nor this package:
``python _finance_worker.py TASK.npz ANSWER.npz REPEATS``. TASK holds close and targets of shape
(n_dates, n_assets), targets being shares of the equity (NaN where nothing is ordered), the cost of
a trade as a fraction, and returns of shape (n,) to measure. ANSWER holds of vectorbt the equity
with and without costs, the number of orders, the seconds of the first call and the CPU seconds
(median) of the others; and of every other package its metrics, as ``package|metric``.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd


def traded(task: Any, repeats: int) -> dict[str, Any]:
    """Trade the targets by vectorbt: one portfolio with shared cash, sales before buys."""
    start = time.perf_counter()
    import vectorbt as vbt

    index = pd.date_range("2000-01-03", periods=len(task["close"]), freq="B")
    close = pd.DataFrame(task["close"], index=index)

    def run(cost: float) -> Any:
        return vbt.Portfolio.from_orders(
            close,
            size=task["targets"],
            size_type="targetpercent",
            fees=cost,
            init_cash=1.0,
            cash_sharing=True,
            group_by=True,
            call_seq="auto",
            freq="1D",
        )

    portfolio = run(float(task["cost"]))
    first = time.perf_counter() - start
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run(float(task["cost"]))
        seconds.append(time.process_time() - start)
    return {
        "equity": portfolio.value().to_numpy(),
        "equity_without_costs": run(0.0).value().to_numpy(),
        "orders": len(portfolio.orders.values),
        "first": first,
        "seconds": median(seconds),
        "version": vbt.__version__,
    }


def measured(returns: np.ndarray) -> dict[str, float]:
    """Measure returns by the packages for that."""
    index = pd.date_range("2000-01-03", periods=len(returns), freq="B")
    series = pd.Series(returns, index=index)
    import ffn
    import quantstats as qs

    table: dict[str, Callable[[], float]] = {
        "quantstats|sharpe_ratio": lambda: qs.stats.sharpe(series),
        "quantstats|sortino_ratio": lambda: qs.stats.sortino(series),
        "quantstats|max_drawdown": lambda: -qs.stats.max_drawdown(series),
        "quantstats|volatility": lambda: qs.stats.volatility(series),
        "ffn|sharpe_ratio": lambda: ffn.core.calc_sharpe(series, nperiods=252),
        "ffn|max_drawdown": lambda: -ffn.core.calc_max_drawdown((1 + series).cumprod()),
        "ffn|sortino_ratio": lambda: ffn.core.calc_sortino_ratio(series, nperiods=252),
    }
    return {name: float(measure()) for name, measure in table.items()}


def main(source: str, target: str, repeats: str) -> None:
    warnings.simplefilter("ignore")
    with np.load(source) as task:
        answer = traded(task, int(repeats)) | measured(task["returns"])
    np.savez(target, **answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
