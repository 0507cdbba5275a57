"""What a backtest gives: equity, returns, weights, trades and metrics."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np

from scikd._bundles import kind_of
from scikd.exceptions import InvalidInputError
from scikd.persistence import load_bundle, save_bundle

from ._benchmarks import given_returns
from ._orders import Orders, Signals
from .metrics import (
    YEAR,
    Metric,
    annual_return,
    break_even_cost,
    icir,
    information_coefficient,
    information_ratio,
    newey_west_t,
    sharpe_ratio,
    summary,
)
from .strategy import Strategy

__all__ = ["BacktestResult", "Trades"]

KIND = "scikd.finance.backtest"
ANALYSIS = "scikd.finance.analysis"  # what write_backtest makes
SERIES = ("equity", "gross_returns", "turnover", "costs", "fees", "n_held", "equity_of_sleeves")
TRADES = ("rows", "assets", "units", "prices", "held")


@dataclass(frozen=True, eq=False)
class Trades:
    """Every buy and every sale, in order of time.

    Parameters
    ----------
    rows : numpy.ndarray of shape (n_trades,)
        Row of the result.
    assets : numpy.ndarray of shape (n_trades,)
        Number of the asset.
    units : numpy.ndarray of shape (n_trades,)
        Bought, or sold where negative.
    prices : numpy.ndarray of shape (n_trades,)
        Price of one.
    held : numpy.ndarray of shape (n_trades,)
        Units of the asset in all sleeves after the trade.
    """

    rows: np.ndarray
    assets: np.ndarray
    units: np.ndarray
    prices: np.ndarray
    held: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False, repr=False)
class BacktestResult:
    """What a strategy earned.

    Made by `scikd.finance.backtest`; `scikd.finance.backtesting` says what the numbers mean. Row t
    of every array is ``dates[t]``.

    Parameters
    ----------
    strategy : Strategy
        What was done.
    dates : numpy.ndarray of shape (n_rows,)
        From the first execution on.
    assets : tuple of str
        Those of the panel.
    rows : slice
        Rows of the panel that these dates are.
    initial : float
        Money at the start.
    equity : numpy.ndarray of shape (n_rows,)
        Value at the close, after costs.
    gross_returns : numpy.ndarray of shape (n_rows,)
        Returns had the costs and fees of the row not been paid.
    turnover : numpy.ndarray of shape (n_rows,)
        Buys plus sales, as a share of the equity of the row before.
    costs, fees : numpy.ndarray of shape (n_rows,)
        What trading and borrowing took, as a share of the equity of the row before.
    n_held : numpy.ndarray of shape (n_rows,)
        Number of assets held at the close.
    equity_of_sleeves : numpy.ndarray of shape (n_rows, n_sleeves)
        Value of each sleeve.
    trades : Trades or None
        None where they were not kept.
    benchmark : numpy.ndarray of shape (n_rows,) or None
        Returns to compare with.
    """

    strategy: Strategy
    dates: np.ndarray
    assets: tuple[str, ...]
    rows: slice
    initial: float
    equity: np.ndarray
    gross_returns: np.ndarray
    turnover: np.ndarray
    costs: np.ndarray
    fees: np.ndarray
    n_held: np.ndarray
    equity_of_sleeves: np.ndarray
    trades: Trades | None = None
    benchmark: np.ndarray | None = None
    _source: tuple[Signals, Orders] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        signals: Signals,
        strategy: Strategy,
        orders: Orders,
        initial: float = 1.0,
        keep_trades: bool = True,
    ) -> Self:
        """Run the orders; see `scikd.finance.backtest`."""
        from ._run import run  # noqa: PLC0415 - compiles on first use

        if not (isinstance(initial, Real) and math.isfinite(initial) and initial > 0):
            message = f"Expected money above 0 at the start; got initial={initial!r}."
            raise InvalidInputError(message)
        log = run(signals.panel, strategy, orders, float(initial), keep_trades=keep_trades)
        equity = log.equity.sum(axis=1)
        before = np.concatenate([[initial], equity[:-1]])
        alive = np.where(before > 0, before, np.inf)  # after a ruin all returns are 0
        rows = slice(*orders.span)
        return cls(
            strategy,
            signals.panel.dates[rows],
            signals.panel.assets,
            rows,
            initial,
            equity,
            np.where(before > 0, (equity + log.cost + log.fee - before) / alive, 0.0),
            log.traded / alive,
            log.cost / alive,
            log.fee / alive,
            log.n_names,
            log.equity,
            Trades(*(getattr(log, name) for name in TRADES)) if keep_trades else None,
            None,
            (signals, orders),
        )

    def against(self, benchmark: Any) -> Self:
        """Return the same result with the returns of a benchmark.

        Parameters
        ----------
        benchmark : pandas.Series or numpy.ndarray of shape (n_rows,)
            Daily returns, as fractions. A series is laid over the dates of the result, all of which
            it needs.

        Raises
        ------
        InvalidInputError
            If there is no return on some of the dates.
        """
        return replace(self, benchmark=given_returns(benchmark, self.dates))

    def __repr__(self) -> str:
        sharpe = sharpe_ratio(self.returns)
        return (
            f"BacktestResult({self.dates[0]} to {self.dates[-1]}, {len(self.dates)} rows, "
            f"net Sharpe ratio {sharpe:.2f}, turnover {self.turnover.mean():.1%} a row)"
        )

    @cached_property
    def returns(self) -> np.ndarray:
        """Net returns, of shape (n_rows,)."""
        return _returns(self.equity, self.initial)

    @cached_property
    def weights(self) -> np.ndarray:
        """Share of the equity in each asset at each close, of shape (n_rows, n_assets)."""
        from ._run import weights  # noqa: PLC0415 - compiles on first use

        if self.trades is None:
            raise InvalidInputError("Weights follow from trades, which this result did not keep.")
        signals, orders = self._known()
        return weights(signals.panel, orders, self.trades, self.equity)

    @cached_property
    def ic(self) -> np.ndarray:
        """Information coefficients of the rows of scores that were traded, of shape (n_scores,).

        Pearson's, of the members' scores and their returns over ``hold`` rows from the price of
        execution on.
        """
        return self._coefficients(rank=False)

    @cached_property
    def rank_ic(self) -> np.ndarray:
        """As `ic`, of ranks (Spearman)."""
        return self._coefficients(rank=True)

    @property
    def signals(self) -> Signals:
        """The checked scores and their panel; not there in a result that was loaded."""
        return self._known()[0]

    def _known(self) -> tuple[Signals, Orders]:
        if self._source is None:
            message = "This result was loaded without its scores and prices. Run the backtest."
            raise InvalidInputError(message)
        return self._source

    def _coefficients(self, *, rank: bool) -> np.ndarray:
        signals, orders = self._known()
        strategy = self.strategy

        def make() -> np.ndarray:
            rows = orders.rows[orders.rows + strategy.hold < len(orders.price)]
            scored = rows - strategy.lag
            later = orders.price[rows + strategy.hold] / orders.price[rows] - 1.0
            members = np.where(signals.panel.member[scored], signals.scores[scored], np.nan)
            return information_coefficient(members, later, rank=rank)

        key = ("ic", rank, strategy.hold, strategy.phases, strategy.lag, orders.at_open)
        return signals.once(key, make)

    def metrics(self) -> dict[str, Metric]:
        """Return all metrics by name, each with its convention."""
        of_phases = self._returns_of_phases() if self.strategy.conventions == "published" else []
        found = summary(self.returns, phases=of_phases, conventions=self.strategy.conventions)
        gross, turnover = self.gross_returns, self.turnover
        found |= {
            "gross_annual_return": Metric(annual_return(gross), "arithmetic: mean x 252"),
            "gross_sharpe_ratio": Metric(
                sharpe_ratio(gross), "mean / std (ddof 1) x sqrt(252), no risk-free"
            ),
            "turnover": Metric(float(turnover.mean()), "buys plus sales of a row / equity, mean"),
            "cost_per_year": Metric(
                float((self.costs + self.fees).mean() * YEAR), "costs and fees / equity x 252"
            ),
            "break_even_cost": Metric(
                break_even_cost(gross, turnover), "basis points of each buy and sale"
            ),
            "n_held": Metric(float(self.n_held.mean()), "assets at the close, mean"),
            "n_rows": Metric(float(len(self.dates)), "rows from the first execution on"),
        }
        if self.benchmark is not None:
            found |= {
                "benchmark_sharpe_ratio": Metric(
                    sharpe_ratio(self.benchmark), "mean / std (ddof 1) x sqrt(252), no risk-free"
                ),
                "information_ratio": Metric(
                    information_ratio(self.returns, self.benchmark),
                    "of returns less the benchmark's: mean / std (ddof 1) x sqrt(252)",
                ),
            }
        return found | self._metrics_of_scores()

    def _metrics_of_scores(self) -> dict[str, Metric]:
        weights_given = self.strategy.select == "weights"
        known = self._source is not None or "rank_ic" in self.__dict__
        if weights_given or not known:
            return {}
        hold = self.strategy.hold
        lags = max(hold - 1, int(4 * (len(self.rank_ic) / 100) ** (2 / 9)))
        over = f"over {hold} rows from the execution on"
        # One asset, or equal scores, rank nothing: the keys stay, so that tables of runs line up.
        ranks = bool(np.isfinite(self.rank_ic).any())
        means = [float(np.nanmean(one)) if ranks else np.nan for one in (self.ic, self.rank_ic)]
        spread = icir(self.ic) if ranks else np.nan
        t = newey_west_t(self.rank_ic, lags=lags) if ranks else np.nan
        return {
            "ic": Metric(means[0], f"Pearson, {over}, mean of rows"),
            "rank_ic": Metric(means[1], f"Spearman, {over}, mean of rows"),
            "icir": Metric(spread, "mean / std (ddof 1) of the IC, not annualised"),
            "rank_ic_t": Metric(t, f"Newey and West, {lags} lags"),
        }

    def _returns_of_phases(self) -> list[np.ndarray]:
        """Return the returns of each sleeve alone, from its first execution on."""
        n_sleeves = self.equity_of_sleeves.shape[1]
        first = np.arange(n_sleeves)
        return [
            _returns(self.equity_of_sleeves[:, s], self.initial / n_sleeves)[first[s] :]
            for s in range(n_sleeves)
            if first[s] < len(self.dates)
        ]

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame of the daily series, by date."""
        import pandas as pd  # noqa: PLC0415 - the result itself needs no pandas

        columns = {
            "equity": self.equity,
            "return": self.returns,
            "gross_return": self.gross_returns,
            "turnover": self.turnover,
            "cost": self.costs,
            "fee": self.fees,
            "n_held": self.n_held,
        }
        if self.benchmark is not None:
            columns["benchmark"] = self.benchmark
        return pd.DataFrame(columns, index=pd.Index(self.dates.astype("M8[s]"), name="date"))

    def trades_frame(self) -> Any:
        """Return a pandas.DataFrame with a row for each trade.

        Its columns are date, asset, units, price, value, and the units held after it.
        """
        import pandas as pd  # noqa: PLC0415 - the result itself needs no pandas

        if self.trades is None:
            raise InvalidInputError("This result did not keep its trades; `backtest` does.")
        trades = self.trades
        return pd.DataFrame(
            {
                "date": self.dates[trades.rows].astype("M8[s]"),
                "asset": np.array(self.assets, dtype=object)[trades.assets],
                "units": trades.units,
                "price": trades.prices,
                "value": trades.units * trades.prices,
                "held": trades.held,
            }
        )

    def save(self, path: str | Path) -> Path:
        """Save as a bundle (`scikd.persistence`), which `load` reads; scores and prices are not in.

        Raises
        ------
        InvalidInputError
            If the trades were not kept.
        StorageError
            If it cannot be written.
        """
        row, column = np.nonzero(self.weights)
        arrays = {name: getattr(self, name) for name in SERIES}
        arrays |= {f"trades.{name}": values for name, values in vars(self.trades).items()}
        arrays |= {
            "dates": self.dates.astype(np.int64),
            "ic": self.ic,
            "rank_ic": self.rank_ic,
            "weights.row": row.astype(np.int32),
            "weights.column": column.astype(np.int32),
            "weights.value": self.weights[row, column],
        }
        if self.benchmark is not None:
            arrays["benchmark"] = self.benchmark
        parameters = {
            "strategy": asdict(self.strategy),
            "assets": self.assets,
            "rows": (self.rows.start, self.rows.stop),
            "initial": self.initial,
        }
        units = {"dates": "days since 1970-01-01", "trades.prices": "as in the panel"}
        return save_bundle(path, kind=KIND, parameters=parameters, arrays=arrays, units=units)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load what `save` wrote.

        Raises
        ------
        InvalidInputError
            If `scikd.finance.write_backtest` made the folder: that keeps other numbers.
        StorageError
            If it is not there, or damaged.
        """
        if kind_of(path) == ANALYSIS:
            message = (
                f"{path} is a folder of write_backtest, which Analysis.load loads. "
                "BacktestResult.load loads what BacktestResult.save has written."
            )
            raise InvalidInputError(message)
        bundle = load_bundle(path, kind=KIND)
        arrays, parameters = bundle.arrays, bundle.parameters
        dates = arrays["dates"].astype("datetime64[D]")
        result = cls(
            strategy=Strategy(**parameters["strategy"]),
            dates=dates,
            assets=tuple(parameters["assets"]),
            rows=slice(*parameters["rows"]),
            initial=parameters["initial"],
            equity=arrays["equity"],
            gross_returns=arrays["gross_returns"],
            turnover=arrays["turnover"],
            costs=arrays["costs"],
            fees=arrays["fees"],
            n_held=arrays["n_held"],
            equity_of_sleeves=arrays["equity_of_sleeves"],
            trades=Trades(*(arrays[f"trades.{name}"] for name in TRADES)),
            benchmark=arrays.get("benchmark"),
        )
        weights = np.zeros((len(dates), len(result.assets)))
        weights[arrays["weights.row"], arrays["weights.column"]] = arrays["weights.value"]
        # A cached property that is already there is not computed.
        vars(result).update(weights=weights, ic=arrays["ic"], rank_ic=arrays["rank_ic"])
        return result


def _returns(equity: np.ndarray, initial: float) -> np.ndarray:
    before = np.concatenate([[initial], equity[:-1]])
    return np.divide(equity, before, out=np.ones_like(equity), where=before > 0) - 1.0
