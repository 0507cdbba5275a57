"""All numbers of a tear sheet, which can be kept without scores and prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from scikd._bundles import kind_of
from scikd.exceptions import InvalidInputError
from scikd.persistence import load_bundle

from ._orders import plan
from .backtesting import BENCHMARKS, benchmark_returns
from .experiments import (
    Estimate,
    Luck,
    RegimeReturns,
    Variant,
    bill,
    by_regime,
    decay,
    group_returns,
    probe_luck,
    sells_short,
    under_costs,
    under_lags,
)
from .luck import Interval
from .metrics import Metric
from .regimes import RegimeAlignment
from .result import ANALYSIS, KIND, BacktestResult
from .strategy import Strategy

__all__ = ["Analysis", "analyse"]

JUMP = 0.5  # returns of a day that are larger in size are looked at
RECENT = 5  # without a price in as many rows at the end, an asset is gone
NAMES_HELD = "effective_names"
ALIGNED = ("n_dates", "similarity", "contrast", "daily")  # arrays of a RegimeAlignment
SERIES = ("equity", "returns", "gross_returns", "turnover", "costs", "fees", "n_held")
LISTS: dict[str, Any] = {
    **dict.fromkeys(("decay", "groups"), Estimate),
    **dict.fromkeys(("costs", "lags", "bill"), Variant),
    "regimes": RegimeReturns,
}


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """What a backtest earned, what that rests on, and how far it can be told from luck.

    Made by `analyse`.

    Parameters
    ----------
    name : str
        Of the scores.
    strategy : Strategy
        What was done.
    initial : float
        Money at the start.
    dates : numpy.ndarray of shape (n_rows,)
        Of the series.
    series : mapping of str to numpy.ndarray of shape (n_rows,)
        equity, returns, gross_returns, turnover, costs, fees, n_held as in `BacktestResult`, and
        effective_names: one over the sum of the squared shares of what is held.
    benchmarks : mapping of str to numpy.ndarray of shape (n_rows,)
        Daily returns of equal weights, of buying once, and of what the user gave.
    rank_ic : numpy.ndarray of shape (n_scores,)
        Rank information coefficient of each row of scores that was traded; empty for weights.
    ic_dates : numpy.ndarray of shape (n_scores,)
        Dates of these scores.
    metrics : mapping of str to Metric
        As `BacktestResult.metrics`.
    decay, groups : list of Estimate
        Rank information coefficient by horizon; yearly return of groups by score beyond all.
    costs, lags, bill : list of Variant
        The strategy at other costs, with other delays, and from published conventions to
        honest ones.
    regimes : list of RegimeReturns
        Of days after each regime of the market that occurs often enough.
    luck : Luck or None
        None where there are too few rows.
    facts : mapping of str to object
        About the market: its name, how many assets, whether members were given, and so on.
    alignment : RegimeAlignment or None, default=None
        Whom the scores resemble in which regime of the market, of `regime_alignment`.
    """

    name: str
    strategy: Strategy
    initial: float
    dates: np.ndarray
    series: Mapping[str, np.ndarray]
    benchmarks: Mapping[str, np.ndarray]
    rank_ic: np.ndarray
    ic_dates: np.ndarray
    metrics: Mapping[str, Metric]
    decay: list[Estimate]
    groups: list[Estimate]
    costs: list[Variant]
    lags: list[Variant]
    bill: list[Variant]
    regimes: list[RegimeReturns]
    luck: Luck | None
    facts: Mapping[str, Any]
    alignment: RegimeAlignment | None = None

    def __repr__(self) -> str:
        sharpe = self.metrics["sharpe_ratio"].value
        return f"Analysis({self.name}, {len(self.dates)} rows, net Sharpe ratio {sharpe:.2f})"

    def bundle(self) -> dict[str, Any]:
        """Return parameters and arrays as `scikd.persistence.save_bundle` takes them."""
        parameters = {
            "name": self.name,
            "strategy": asdict(self.strategy),
            "initial": self.initial,
            "metrics": {name: list(metric) for name, metric in self.metrics.items()},
            **{name: [list(entry) for entry in getattr(self, name)] for name in LISTS},
            "luck": None if self.luck is None else self.luck._asdict(),
            "facts": dict(self.facts),
            "order": list(self.benchmarks),  # JSON keeps none
        }
        days = {"dates": self.dates, "ic_dates": self.ic_dates}
        arrays = {name: values.astype("M8[D]").astype(np.int64) for name, values in days.items()}
        arrays |= {"rank_ic": self.rank_ic}
        arrays |= {f"series.{name}": values for name, values in self.series.items()}
        arrays |= {f"benchmarks.{name}": values for name, values in self.benchmarks.items()}
        if self.alignment is not None:
            aligned = vars(self.alignment)
            arrays |= {f"alignment.{name}": aligned[name] for name in ALIGNED}
            parameters["alignment"] = {name: aligned[name] for name in aligned.keys() - {*ALIGNED}}
        return {"parameters": parameters, "arrays": arrays}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load the analysis in a folder that `scikd.finance.write_backtest` has made.

        Raises
        ------
        InvalidInputError
            If `BacktestResult.save` made the folder: that keeps other numbers.
        StorageError
            If it is not there, or damaged.
        """
        if kind_of(path) == KIND:
            message = (
                f"{path} was written by BacktestResult.save, and BacktestResult.load loads it. "
                "Analysis.load and the command report take folders of write_backtest, or of the "
                "command backtest."
            )
            raise InvalidInputError(message)
        bundle = load_bundle(path, kind=ANALYSIS)
        given = dict(bundle.parameters)
        arrays = bundle.arrays
        luck, order = given["luck"], given.pop("order")
        aligned = given.pop("alignment", None)
        if aligned is not None:
            names = {name: tuple(aligned[name]) for name in ("others", "regimes")}
            known = {name: arrays[f"alignment.{name}"] for name in ALIGNED}
            aligned = RegimeAlignment(**{**aligned, **names, **known})
        if luck is not None:
            gaps = {name: Interval(*luck["differences"][name]) for name in order}
            luck = Luck(**{**luck, "sharpe": Interval(*luck["sharpe"]), "differences": gaps})
        return cls(
            **{
                **given,
                **{name: [kind(*x) for x in given[name]] for name, kind in LISTS.items()},
                "strategy": Strategy(**given["strategy"]),
                "metrics": {name: Metric(*values) for name, values in given["metrics"].items()},
                "luck": luck,
                "alignment": aligned,
                "dates": arrays["dates"].astype("M8[D]"),
                "ic_dates": arrays["ic_dates"].astype("M8[D]"),
                "rank_ic": arrays["rank_ic"],
                "series": {name: arrays[f"series.{name}"] for name in (*SERIES, NAMES_HELD)},
                "benchmarks": {name: arrays[f"benchmarks.{name}"] for name in order},
            }
        )


def analyse(
    result: BacktestResult,
    *,
    name: str = "scores",
    trials: int | Sequence[float] = 1,
    benchmark: str = "benchmark",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Analysis:
    """Work out all numbers of a tear sheet.

    The scores are traded again at other costs, with other delays, and by the conventions of
    publications; returns are resampled.

    Parameters
    ----------
    result : BacktestResult
        From `scikd.finance.backtest`, with its scores and prices (not loaded from a file).
    name : str, default="scores"
        What the scores are called.
    trials : int or sequence of float, default=1
        Number of configurations that were tried before this one was chosen, itself among them; or
        the annual Sharpe ratios of all of them. Whatever was looked at counts.
    benchmark : str, default="benchmark"
        What the returns are called that were given to `backtest` as an array.
    n_resamples, seed : int
        As in `scikd.finance.luck.sharpe_interval`.

    Returns
    -------
    Analysis
        For `scikd.finance.tear_sheet`.

    Raises
    ------
    InvalidInputError
        If the result was loaded from a file, or no trial is counted.
    """
    ranked = result.strategy.select != "weights"
    benchmarks = {known: benchmark_returns(result, known) for known in BENCHMARKS}
    if result.benchmark is not None and not any(
        np.array_equal(result.benchmark, known) for known in benchmarks.values()
    ):
        benchmarks[benchmark] = result.benchmark
    series = {name: np.asarray(getattr(result, name), dtype=np.float64) for name in SERIES}
    orders = plan(result.signals, result.strategy)
    scored = orders.rows - result.strategy.lag
    return Analysis(
        name,
        result.strategy,
        result.initial,
        result.dates,
        series | {NAMES_HELD: _effective_names(result)},
        benchmarks,
        result.rank_ic if ranked else np.empty(0),
        result.signals.panel.dates[scored[: len(result.rank_ic)] if ranked else slice(0)],
        result.metrics(),
        decay(result) if ranked else [],
        group_returns(result) if ranked else [],
        under_costs(result),
        under_lags(result),
        bill(result),
        by_regime(result, benchmarks["equal_weight"]),
        probe_luck(result.returns, benchmarks, trials=trials, n_resamples=n_resamples, seed=seed),
        _facts(result, scored) | {"at_open": orders.at_open, "seed": seed},
    )


def _effective_names(result: BacktestResult) -> np.ndarray:
    if result.trades is None:
        return np.full(len(result.dates), np.nan)
    squares = (result.weights**2).sum(axis=1)
    total = np.abs(result.weights).sum(axis=1) ** 2
    return np.divide(total, squares, out=np.zeros_like(squares), where=squares > 0)


def _facts(result: BacktestResult, scored: np.ndarray) -> dict[str, Any]:
    signals, panel = result.signals, result.signals.panel
    eligible = signals.eligible[scored]
    held, priced = slice(int(scored[0]), int(scored[-1]) + 1), np.isfinite(panel.close)
    return {
        "market": panel.name,
        "n_assets": panel.n_assets,
        "first_price": str(panel.dates[0]),
        "last_price": str(panel.dates[-1]),
        "first_score": str(panel.dates[scored[0]]),
        "last_score": str(panel.dates[scored[-1]]),
        "n_scored": len(scored),
        "fewest_scores": int(eligible.min()),
        "mean_scores": float(eligible.mean()),
        "without_choice": int(np.sum(_constant(signals.scores[scored], panel.member[scored]))),
        "jumps": _jumps(result),
        "members_given": bool((panel.member != priced).any()),
        "ended": int(np.sum(priced[held].any(axis=0) & ~priced[-RECENT:].any(axis=0))),
        "short": sells_short(result),
        "n_trades": -1 if result.trades is None else len(result.trades),
    }


def _jumps(result: BacktestResult) -> list[list[Any]]:
    """Return day, asset and return of what moved so much that the price may be wrong."""
    panel, first = result.signals.panel, result.rows.start
    moves = np.where(panel.member, panel.returns(), np.nan)[result.rows]
    row, column = np.nonzero(np.abs(moves) > JUMP)
    order = np.argsort(-np.abs(moves[row, column]), kind="stable")
    return [
        [str(panel.dates[first + row[i]]), panel.assets[column[i]], float(moves[row[i], column[i]])]
        for i in order.tolist()
    ]


def _constant(scores: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Say of each row whether all scores of members are equal, so that names decide."""
    known = member & np.isfinite(scores)
    low = np.where(known, scores, np.inf).min(axis=1)
    high = np.where(known, scores, -np.inf).max(axis=1)
    return (low == high) & (known.sum(axis=1) > 1)
