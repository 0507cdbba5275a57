"""From files of scores and prices to a backtest."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError, LookAheadWarning

from ._backtest_options import BacktestOptions
from ._market_options import day_of, kept_assets, read_market
from .analysis import Analysis, analyse
from .backtesting import BENCHMARKS, backtest
from .panel import Panel
from .readers import read_panel, read_scores
from .result import BacktestResult

__all__ = ["backtest_from"]

logger = logging.getLogger(__name__)


def backtest_from(
    scores: Path, prices: Path, options: BacktestOptions
) -> tuple[BacktestResult, Analysis]:
    """Read scores and prices, trade them, and work out the numbers of the tear sheet."""
    logger.info("Reading %s", prices)
    panel = read_market(prices, options)
    logger.info("Reading %s", scores)
    values = read_scores(scores, panel, unknown=options.unknown)
    kept = kept_assets(panel, options)
    values = _within(values, panel, options)[:, kept]
    panel = panel.select(assets=[panel.assets[n] for n in kept])
    if options.unknown == "drop":
        values = _of_members(values, panel)
    known = options.benchmark in BENCHMARKS
    benchmark: Any = options.benchmark if known else _returns_of(Path(options.benchmark), panel)
    with warnings.catch_warnings():  # the summary says it
        warnings.simplefilter("ignore", LookAheadWarning)
        result = backtest(values, panel, options.strategy(), benchmark=benchmark)
    logger.info("Trading the scores on other terms, and resampling what they earned")
    return result, analyse(
        result,
        name=options.name or scores.name.partition(".")[0],
        trials=options.trials,
        benchmark=options.benchmark if known else Path(options.benchmark).name.partition(".")[0],
        n_resamples=options.resamples,
        seed=options.seed,
    )


def _within(scores: np.ndarray, panel: Panel, options: BacktestOptions) -> np.ndarray:
    """Take away the scores before the start and after the end."""
    keep = np.ones(panel.n_dates, dtype=bool)
    if options.start is not None:
        keep &= panel.dates >= day_of(options.start, "start")
    if options.end is not None:
        keep &= panel.dates <= day_of(options.end, "end")
    kept = np.where(keep[:, None], scores, np.nan)
    if np.isnan(kept).all():
        there = panel.dates[np.isfinite(scores).any(axis=1)]
        message = (
            f"There is no score from {options.start or 'the first date'} to "
            f"{options.end or 'the last'}; scores are of {there[0]} to {there[-1]}."
        )
        raise InvalidInputError(message)
    return kept


def _of_members(scores: np.ndarray, panel: Panel) -> np.ndarray:
    """Take away the scores of dates on which none is of a member of the universe."""
    there = np.isfinite(scores)
    empty = there.any(axis=1) & ~(there & panel.member).any(axis=1)
    if empty.any():
        days = panel.dates[empty]
        logger.warning(
            "Left out the scores of dates on which none is of a member of the universe: %d, from "
            "%s to %s",
            *(len(days), days[0], days[-1]),
        )
    return np.where(empty[:, None], np.nan, scores)


def _returns_of(path: Path, panel: Panel) -> np.ndarray:
    """Return the daily returns of an index in a file, NaN where it has no level."""
    index = read_panel(path)
    if index.n_assets != 1:
        message = (
            f"Expected the benchmark as {' or '.join(BENCHMARKS)}, or as a file with one index; "
            f"{path} has {index.n_assets} columns."
        )
        raise InvalidInputError(message)
    level = np.full(panel.n_dates, np.nan)
    _, ours, theirs = np.intersect1d(panel.dates, index.dates, return_indices=True)
    level[ours] = index.close[theirs, 0]
    return np.append(np.nan, level[1:] / level[:-1] - 1.0)
