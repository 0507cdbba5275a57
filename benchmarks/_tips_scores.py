"""What scores are worth on the test days of a panel: rows of `benchmarks.tips`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks._tips_models import ENSEMBLE, HORIZON, STUDENT
from benchmarks._tips_panels import Market
from benchmarks.harness import Row, row
from scikd.exceptions import LookAheadWarning
from scikd.finance import BacktestResult, Strategy, backtest
from scikd.finance.judging import judge
from scikd.finance.luck import sharpe_difference, sharpe_interval
from scikd.finance.metrics import (
    annual_return,
    calmar_ratio,
    max_drawdown,
    newey_west_t,
    sharpe_ratio,
)

__all__ = ["market_rows"]

TRADED = Strategy(k=5, hold=HORIZON, lag=1, price="close", cost_bps=10)
EVERYONE = Strategy(select="quantile", quantile=1.0, lag=1, price="close", cost_bps=10)
METRICS = {
    "AR": annual_return,
    "sharpe": sharpe_ratio,
    "calmar": calmar_ratio,
    "MDD": max_drawdown,
}
OTHERS = (
    "vanilla with SWA",
    "teacher: vanilla",
    ENSEMBLE,
    "GRU",
    "lightgbm",
    "ridge",
)
"""What the student is compared with; the first differs from it in what it was taught only."""
Scores = Mapping[int, Mapping[str, np.ndarray]]


def market_rows(market: Market, scores: Scores, n_resamples: int = 2000) -> list[Row]:
    """Return a row for each model, mean of its seeds; one for each seed; comparisons; a verdict.

    Parameters
    ----------
    market : Market
        Prices, and where the test begins.
    scores : mapping of int to mapping of str to ndarray
        By seed and model, of the days of `Market.later`.
    n_resamples : int
        Of the bootstrap.
    """
    of_models: dict[str, dict[int, BacktestResult]] = {}
    for seed, of_seed in scores.items():
        for name, table in of_seed.items():
            seeds = of_models.setdefault(name, {})
            # What does not depend on the seed was tried once.
            if not any(np.array_equal(scores[s][name], table, equal_nan=True) for s in seeds):
                seeds[seed] = _traded(market, name, table)
    results = {(name, seed): one for name, all_ in of_models.items() for seed, one in all_.items()}
    published = {(name, s): _published(market, name, scores[s][name]) for name, s in results}
    numbers = {key: _numbers(one, n_resamples) | published[key] for key, one in results.items()}
    means = [
        _model_row(market, name, of_seeds, [numbers[name, seed] for seed in of_seeds])
        for name, of_seeds in of_models.items()
    ]
    singles = [
        _model_row(
            market, name, {seed: results[name, seed]}, [numbers[name, seed]], f", seed {seed}"
        )
        for name, of_seeds in of_models.items()
        for seed in of_seeds
        if len(of_seeds) > 1
    ]
    contrasts = [
        _contrast(market, of_models[STUDENT], of_models[name], name, n_resamples)
        for name in OTHERS
        if STUDENT in of_models and name in of_models
    ]
    return [*means, *singles, *contrasts, _verdict(market, results, n_resamples)]


def _test_scores(market: Market, table: np.ndarray) -> np.ndarray:
    test = table.copy()
    test[: market.first_test] = np.nan
    return test


def _traded(market: Market, name: str, table: np.ndarray) -> BacktestResult:
    strategy = EVERYONE if name == "equal weight" else TRADED
    return backtest(_test_scores(market, table), market.later, strategy, benchmark="equal_weight")


def _published(market: Market, name: str, table: np.ndarray) -> dict[str, float]:
    """Return what the conventions of the literature make of it: same close, no costs."""
    everyone = {"select": "quantile", "quantile": 1.0, "weighting": "equal", "hold": 1}
    strategy = Strategy.published(**(everyone if name == "equal weight" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LookAheadWarning)  # that is what it is there for
        result = backtest(_test_scores(market, table), market.later, strategy)
    found = result.metrics()
    names = {"AR": "annual_return", "sharpe": "sharpe_ratio", "calmar": "calmar_ratio"}
    return {f"published_{short}": found[name].value for short, name in names.items()}


def _numbers(result: BacktestResult, n_resamples: int) -> dict[str, float]:
    assert result.benchmark is not None
    found = {
        f"{kind}_{name}": metric(returns)
        for kind, returns in (("net", result.returns), ("gross", result.gross_returns))
        for name, metric in METRICS.items()
    }
    found["turnover"] = float(result.turnover.mean())
    of = partial(sharpe_interval, n_resamples=n_resamples)
    against = partial(sharpe_difference, n_resamples=n_resamples)
    for name, interval in (
        ("net_sharpe", of(result.returns)),
        ("gross_sharpe", of(result.gross_returns)),
        ("net_minus_equal", against(result.returns, result.benchmark)),
    ):
        found |= {name: interval.estimate, f"{name}_low": interval.low}
        found[f"{name}_high"] = interval.high
    return found


def _model_row(
    market: Market,
    name: str,
    of_seeds: Mapping[int, BacktestResult],
    numbers: list[dict[str, float]],
    suffix: str = "",
) -> Row:
    """Make a row of means over seeds; the ends of intervals are means, too."""
    ic, t = (np.nan, np.nan) if name == "equal weight" else _mean_and_t(_rank_ic(of_seeds))
    means: dict[str, Any] = {
        key: float(np.mean([one[key] for one in numbers])) for key in numbers[0]
    }
    extra: dict[str, Any] = {"t": t, **means, "seeds": len(of_seeds)}
    return row(f"{market.name}: {name}{suffix}", ic, "rank IC", **extra)


def _rank_ic(of_seeds: Mapping[int, BacktestResult]) -> np.ndarray:
    """Return the rank IC of each day: all seeds score the same days, so their mean has one t."""
    mean: np.ndarray = np.mean([one.rank_ic for one in of_seeds.values()], axis=0)
    return mean


def _mean_and_t(series: np.ndarray) -> tuple[float, float]:
    lags = max(HORIZON - 1, int(4 * (len(series) / 100) ** (2 / 9)))
    return float(np.nanmean(series)), newey_west_t(series, lags=lags)


def _contrast(
    market: Market,
    student: Mapping[int, BacktestResult],
    other: Mapping[int, BacktestResult],
    name: str,
    n_resamples: int,
) -> Row:
    """Compare the student with another model on the same days: money is split between seeds."""
    ic, t = _mean_and_t(_rank_ic(student) - _rank_ic(other))
    net = [np.mean([one.returns for one in of.values()], axis=0) for of in (student, other)]
    difference = sharpe_difference(*net, n_resamples=n_resamples)
    extra = dict(zip(("", "_low", "_high"), difference[:3], strict=True))
    return row(
        f"{market.name}: {STUDENT} minus {name}",
        ic,
        "rank IC",
        t=t,
        **{f"net_difference{end}": value for end, value in extra.items()},
    )


def _verdict(
    market: Market, results: Mapping[tuple[str, int], BacktestResult], n_resamples: int
) -> Row:
    """Ask of all that was tried whether the best of it is luck."""
    tried = {f"{name}, seed {seed}": one for (name, seed), one in results.items()}
    found = judge(tried, n_resamples=n_resamples // 2, n_blocks=10)
    return row(
        f"{market.name}: does any earn more than equal weight? Hansen's p",
        found.superior["equal_weight"],
        "p",
        note=(
            f"{found.first} to {found.last}, {found.n_tried} tried; best net Sharpe ratio: "
            f"{found.best}, deflated {found.deflated_sharpe:.2f}; probability of overfitting "
            f"{found.overfitting:.2f}; {market.note}"
        ),
    )
