"""Is the best of these backtests luck? All tests of luck at once, with all that was tried."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scikd.exceptions import DoubtfulInputWarning, InvalidInputError

from .backtesting import BENCHMARKS, benchmark_returns
from .luck import (
    ALIKE,
    Interval,
    backtest_overfitting,
    confidence_set,
    deflated_sharpe_ratio,
    sharpe_difference,
    sharpe_interval,
    superior_ability,
)
from .metrics import sharpe_ratio
from .result import BacktestResult

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True)
class Judgement:
    """What is left of the best of several backtests.

    Parameters
    ----------
    best : str
        The one with the highest net Sharpe ratio in the rows that all have in common.
    n_tried : int
        How many there are that differ.
    first, last : str
        Dates of these rows.
    sharpe : Interval
        Its Sharpe ratio.
    differences : dict of str to Interval
        Its Sharpe ratio less that of each benchmark.
    deflated_sharpe : float
        Probability that its true ratio is above what luck gives the best of as many.
    overfitting : float
        Probability that the best of one half of the time is below the median in the other.
    superior : dict of str to float
        For each benchmark, the consistent p-value of Hansen's test that none earns more than it.
    confidence_set : tuple of str
        Those whose mean return cannot be told from the highest; the best by Sharpe ratio need not
        be among them.
    """

    best: str
    n_tried: int
    first: str
    last: str
    sharpe: Interval
    differences: dict[str, Interval]
    deflated_sharpe: float
    overfitting: float
    superior: dict[str, float]
    confidence_set: tuple[str, ...]


def judge(
    results: Mapping[str, BacktestResult] | Sequence[BacktestResult],
    *,
    n_trials: float | None = None,
    n_blocks: int = 16,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Test the best of several backtests for luck, against equal weights and buying once.

    Parameters
    ----------
    results : mapping of str to BacktestResult, or sequence of BacktestResult
        All that was tried on one panel, two at least; those of a sequence are named "0", "1", ....
    n_trials : float or None, default=None
        Number of independent ones; None takes all that differ. More, if more was tried than is
        given here.
    n_blocks : int, default=16
        As in `scikd.finance.luck.backtest_overfitting`.
    n_resamples, seed : int
        As in `scikd.finance.luck.sharpe_interval`.

    Returns
    -------
    Judgement
        Of net returns.

    Raises
    ------
    InvalidInputError
        If there are fewer than two results that differ, or they have too few rows in common.

    Warns
    -----
    DoubtfulInputWarning
        If results have the same returns: the first of them stands for all, and is one trial.
    """
    if not isinstance(results, Mapping):
        results = {str(number): one for number, one in enumerate(results)}
    if len(results) < 2:
        message = f"Expected all backtests that were tried, two at least; got {len(results)}."
        raise InvalidInputError(message)
    calendars = [one.signals.panel.dates for one in results.values()]
    if not all(np.array_equal(one, calendars[0]) for one in calendars):
        message = (
            "Expected results of panels with the same dates, because rows are compared by their "
            "number; these differ. Run all of them on one panel."
        )
        raise InvalidInputError(message)
    start = max(one.rows.start for one in results.values())
    stop = min(one.rows.stop for one in results.values())
    if stop - start < 2 * n_blocks:
        message = (
            f"Expected results with at least {2 * n_blocks} rows in common; got "
            f"{max(stop - start, 0)}. Choose fewer blocks, or longer backtests."
        )
        raise InvalidInputError(message)

    def common(values: np.ndarray, one: BacktestResult) -> np.ndarray:
        return values[start - one.rows.start : stop - one.rows.start]

    returns = {name: common(one.returns, one) for name, one in results.items()}
    returns = _distinct(returns)
    ratios = {name: np.nan_to_num(sharpe_ratio(series)) for name, series in returns.items()}
    best = max(ratios, key=lambda name: ratios[name])
    own = returns[best]
    bars = {
        name: common(benchmark_returns(results[best], name), results[best]) for name in BENCHMARKS
    }
    again = {"n_resamples": n_resamples, "seed": seed}
    days = common(results[best].dates, results[best])
    return Judgement(
        best,
        len(returns),
        str(days[0]),
        str(days[-1]),
        sharpe_interval(own, **again),
        {name: sharpe_difference(own, bar, **again) for name, bar in bars.items()},
        deflated_sharpe_ratio(own, list(ratios.values()), n_trials=n_trials),
        backtest_overfitting(returns, n_blocks=n_blocks).probability,
        {name: superior_ability(returns, bar, **again)["consistent"] for name, bar in bars.items()},
        confidence_set(returns, **again).included,
    )


def _distinct(returns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return those that differ, the first of each, and warn of the others."""
    alike: dict[bytes, list[str]] = {}
    for name, series in returns.items():
        alike.setdefault((np.round(series, ALIKE) + 0.0).tobytes(), []).append(name)
    again = "; ".join(" = ".join(map(repr, names)) for names in alike.values() if len(names) > 1)
    if len(alike) < 2:
        message = (
            f"Expected backtests that differ, two at least; all have the same returns: {again}."
        )
        raise InvalidInputError(message)
    if again:
        message = (
            f"Of backtests with the same returns the first is judged, as one trial: {again}. "
            "Leave the others out, or look whether their strategies should not differ."
        )
        warnings.warn(message, DoubtfulInputWarning, stacklevel=3)
    return {names[0]: returns[names[0]] for names in alike.values()}
