"""Backtests: our engine against vectorbt, and our metrics against QuantStats and ffn.

The task: the 50 best of 500 assets by a score, equal weights, renewed on each of 2,520 days, with
drift and 10 basis points a trade. Ours chooses from the scores, vectorbt is given the weights.
Times are CPU time of one thread, medians. The peers live in an environment of their own,
``$SCIKD_PEERS/finance`` (a venv with vectorbt, quantstats and ffn); without it their columns are
empty.

Conventions that differ: vectorbt sizes each order by the value before costs and executes order by
order, so that the last purchases are cut when the cash is used up; ours divides the value after
costs and executes at once. Without costs both are the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, Row, peer_python, row, run_worker
from scikd.finance import BacktestResult, Panel, Strategy, backtest, backtest_many
from scikd.finance.metrics import max_drawdown, sharpe_ratio, sortino_ratio, volatility

__all__ = ["run"]

COST_BPS = 10.0
OURS: dict[str, Callable[[np.ndarray], float]] = {
    "sharpe_ratio": sharpe_ratio,
    "sortino_ratio": sortino_ratio,
    "max_drawdown": max_drawdown,
    "volatility": volatility,
}


def run(quick: bool) -> list[Row]:
    """Run all; about two minutes with peers, or less than 20 s with `quick`."""
    scores, panel = _market(500, 100) if quick else _market(2520, 500)
    strategy = Strategy(k=min(50, panel.n_assets // 2), cost_bps=COST_BPS, price="close")
    result = backtest(scores, panel, strategy)
    repeats = 3 if quick else 15
    answer = _ask(scores, panel, strategy, result.returns)
    return [
        *_speed(scores, panel, strategy, repeats, answer),
        *_first_call(answer),
        *_many(scores, panel, 2 if quick else 5),
        *_agreement(result, scores, panel, strategy, answer),
        *_metrics(result.returns, answer),
    ]


def _market(n_dates: int, n_assets: int) -> tuple[np.ndarray, Panel]:
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((n_dates, n_assets)), axis=0))
    names = tuple(f"A{number:04}" for number in range(n_assets))
    panel = Panel(np.datetime64("2010-01-01") + np.arange(n_dates), names, {"close": close})
    return rng.standard_normal(close.shape), panel


# -- the peers -----------------------------------------------------------------------------------


def _targets(scores: np.ndarray, strategy: Strategy) -> np.ndarray:
    """Return what vectorbt is told to hold: the share of each asset in the row of execution."""
    targets = np.full(scores.shape, np.nan)
    best = np.argsort(-scores, axis=1, kind="stable")[:, : strategy.k]
    targets[strategy.lag :] = 0.0
    rows = np.arange(strategy.lag, len(scores))[:, None]
    targets[rows, best[: len(rows)]] = 1.0 / strategy.k
    return targets


def _ask(
    scores: np.ndarray, panel: Panel, strategy: Strategy, returns: np.ndarray, repeats: int = 3
) -> dict[str, Any] | None:
    """Ask the packages of the peers' environment, in a process of their own."""
    python = peer_python("finance")
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work) / "task.npz", Path(work) / "answer.npz"
        np.savez(
            source,
            close=panel.close,
            targets=_targets(scores, strategy),
            cost=COST_BPS / 1e4,
            returns=returns,
        )
        script = Path(__file__).with_name("_finance_worker.py")
        run_worker(python, script, str(source), str(target), str(repeats))
        with np.load(target) as found:
            return {name: found[name][()] for name in found.files}


def _agreement(
    result: BacktestResult,
    scores: np.ndarray,
    panel: Panel,
    strategy: Strategy,
    answer: dict[str, Any] | None,
) -> list[Row]:
    """Compare equity and trades, where the conventions are the same and where they are not."""
    if answer is None or result.trades is None:
        return []
    free = backtest(scores, panel, Strategy(k=strategy.k, cost_bps=0, price="close"))
    same, other = (
        float(np.abs(theirs[one.rows] / one.equity - 1.0).max())
        for one, theirs in (
            (free, answer["equity_without_costs"]),
            (result, answer["equity"]),
        )
    )
    assert same < 1e-6, same  # vectorbt rounds cash that is nearly used up
    assert other < 0.02, other
    return [
        row("largest difference of equity, no costs", same, "relative", note="same convention"),
        row("largest difference of equity, costs", other, "relative", note="see the module"),
        row("trades", len(result.trades), "", "vectorbt orders", float(answer["orders"])),
    ]


def _metrics(returns: np.ndarray, answer: dict[str, Any] | None) -> list[Row]:
    """Compare metrics of the same returns."""
    rows = []
    for name in sorted(answer or {}):
        package, _, metric = name.partition("|")
        if metric and answer is not None:
            own, theirs = OURS[metric](returns), float(answer[name])
            rows.append(row(metric, own, "", package, theirs))
    return rows


# -- speed ---------------------------------------------------------------------------------------


def _cpu(function: Callable[[], object], repeats: int) -> float:
    """Return the median CPU seconds of a call, after one that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return median(seconds)


def _speed(
    scores: np.ndarray,
    panel: Panel,
    strategy: Strategy,
    repeats: int,
    answer: dict[str, Any] | None,
) -> list[Row]:
    seconds = _cpu(lambda: backtest(scores, panel, strategy), repeats)
    peer = f"vectorbt {answer['version']} from_orders" if answer else None
    theirs = float(answer["seconds"]) if answer else None
    name = f"top-{strategy.k} of {panel.n_dates:,} x {panel.n_assets}, daily"
    return [
        row(name, seconds, "s", peer, theirs, repeats=repeats),
        row(
            name,
            seconds * 1e9 / scores.size,
            "ns per cell",
            peer,
            theirs * 1e9 / scores.size if theirs else None,
            repeats=repeats,
        ),
    ]


FIRST = """
import time
start = time.perf_counter()
import numpy as np
from scikd.finance import Panel, Strategy, backtest
close = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(0).standard_normal((2520, 500)), 0))
names = [f"A{number:03}" for number in range(500)]
panel = Panel(np.datetime64("2010-01-01") + np.arange(2520), names, {"close": close})
backtest(close, panel, Strategy(k=50))
print(time.perf_counter() - start)
"""


def _first_call(answer: dict[str, Any] | None) -> list[Row]:
    """Time imports and the first call in a fresh process, with what is compiled in the cache."""
    seconds = []
    for _ in range(3):
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", FIRST], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout))
    theirs = float(answer["first"]) if answer else None
    peer = "vectorbt, import and first call" if answer else None
    return [row("imports and first call", median(seconds), "s", peer, theirs, repeats=3)]


def _many(scores: np.ndarray, panel: Panel, repeats: int) -> list[Row]:
    """Time 100 configurations in one call: wall time, by number of threads."""
    configurations = [
        Strategy(k=k, hold=hold, cost_bps=cost, price="close")
        for k in (5, 10, 20, 30, 50)
        for hold in (1, 2, 5, 10)
        for cost in (0.0, 2.0, 5.0, 10.0, 20.0)
    ]

    calls: dict[int, Callable[[], object]] = {
        n_jobs: lambda n=n_jobs: backtest_many(scores, panel, configurations, n_jobs=n)  # type: ignore[misc]
        for n_jobs in sorted({1, 2, os.cpu_count() or 1})
    }
    calls[0] = lambda: [backtest(scores, panel, one) for one in configurations]
    # In turns, so that whatever else the machine does is the same for all.
    seconds: dict[int, list[float]] = {n_jobs: [] for n_jobs in calls}
    for _ in range(repeats + 1):
        for n_jobs, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[n_jobs].append(time.perf_counter() - start)
    wall = {n_jobs: median(times[1:]) for n_jobs, times in seconds.items()}
    alone = wall.pop(0)
    return [
        row(
            f"{len(configurations)} configurations, {n_jobs} threads",
            taken,
            "s",
            "ours, one by one",
            alone,
            repeats=repeats,
        )
        for n_jobs, taken in wall.items()
    ]
