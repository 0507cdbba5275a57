"""Runs orders through the kernels."""

from __future__ import annotations

import numpy as np

from ._orders import Orders, frozen
from .kernels.backtest import Book, Log, Market, Terms, dense_weights, last_rows, simulate
from .metrics import YEAR
from .panel import Panel
from .result import Trades
from .strategy import Strategy

__all__ = ["run", "weights"]


def run(
    panel: Panel, strategy: Strategy, orders: Orders, initial: float, *, keep_trades: bool
) -> Log:
    """Return what happens to the money."""
    n_sleeves, n_assets = orders.n_sleeves, panel.n_assets
    held = np.empty((n_sleeves, n_assets), np.int32)
    book = Book(
        np.full(n_sleeves, initial / n_sleeves),
        np.zeros((n_sleeves, n_assets)),
        held,
        np.zeros(n_sleeves, np.int64),
        np.zeros(n_assets),
        np.zeros(n_assets, np.int64),
        np.zeros(n_assets),
        np.zeros(1, np.int64),
    )
    borrow = strategy.borrow_bps_per_year / 1e4 / YEAR if (orders.weights < 0).any() else 0.0
    terms = Terms(
        strategy.cost_bps / 1e4,
        borrow,
        float(strategy.delisting_return),
        float(strategy.max_turnover or np.inf),
        float(strategy.gross),
    )
    log = _log(orders, n_assets, strategy.max_turnover is not None, keep_trades)
    simulate(
        _market(panel, orders),
        terms,
        book,
        log,
        orders.span,
        orders.rows,
        orders.sleeves,
        orders.names,
        orders.weights,
    )
    n = int(log.n_trades[0])
    return log._replace(
        rows=log.rows[:n],
        assets=log.assets[:n],
        units=log.units[:n],
        prices=log.prices[:n],
        held=log.held[:n],
    )


def weights(panel: Panel, orders: Orders, trades: Trades, equity: np.ndarray) -> np.ndarray:
    """Return the share of each asset in the equity, from the trades."""
    empty = np.empty(0)
    log = Log(
        np.empty((0, 0)),
        empty,
        empty,
        empty,
        np.empty(0, np.int64),
        trades.rows,
        trades.assets,
        trades.units,
        trades.prices,
        trades.held,
        np.zeros(1, np.int64),
    )
    return dense_weights(_market(panel, orders), log, orders.span[0], equity)


def _market(panel: Panel, orders: Orders) -> Market:
    close, price = frozen(panel.close), frozen(orders.price)
    return Market(close, price, last_rows(close, price), orders.at_open)


def _log(orders: Orders, n_assets: int, limited: bool, keep_trades: bool) -> Log:
    """Make room for what happens: at most two trades for each name of each target.

    One of them opens or adjusts a position, the other closes it. With a limit on turnover positions
    are left over, and each renewal may trade every asset. Room that is not used costs no memory.
    """
    n_rows = orders.span[1] - orders.span[0]
    most = 2 * (len(orders.rows) * n_assets if limited else orders.names.size)
    room = most if keep_trades else 0
    return Log(
        np.zeros((n_rows, orders.n_sleeves)),
        np.zeros(n_rows),
        np.zeros(n_rows),
        np.zeros(n_rows),
        np.zeros(n_rows, np.int64),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room),
        np.empty(room),
        np.empty(room),
        np.zeros(1, np.int64),
    )
