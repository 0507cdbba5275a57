"""From target weights to a book that drifts, pays and trades.

What the numbers mean stands in `scikd.finance.backtesting`; here is only how they are computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

__all__ = ["Book", "Desk", "Log", "Market", "Terms", "dense_weights", "last_rows", "simulate"]

_MOST_STEPS = 50
_NOTHING = 1e-12  # of the equity: what is left of a position by rounding


class Market(NamedTuple):
    """Prices. `last_row` is the last row in which an asset has any."""

    close: np.ndarray
    price: np.ndarray  # at which orders are executed
    last_row: np.ndarray
    at_open: bool


class Terms(NamedTuple):
    """What trading and holding cost, as fractions; `borrow` of each row."""

    cost: float
    borrow: float
    delisting: float
    max_turnover: float
    gross: float


class Book(NamedTuple):
    """What sleeves hold: the first `n_held[s]` of `held[s]` are the assets of sleeve s."""

    cash: np.ndarray  # (n_sleeves,)
    units: np.ndarray  # (n_sleeves, n_assets)
    held: np.ndarray  # (n_sleeves, n_assets)
    n_held: np.ndarray  # (n_sleeves,)
    last: np.ndarray  # (n_assets,) last prices
    holders: np.ndarray  # (n_assets,) how many sleeves hold an asset
    total: np.ndarray  # (n_assets,) units in all sleeves
    n_names: np.ndarray  # (1,) how many assets are held


class Log(NamedTuple):
    """What happened in each row, and every trade where there is room for them."""

    equity: np.ndarray  # (n_rows, n_sleeves)
    cost: np.ndarray  # (n_rows,)
    fee: np.ndarray
    traded: np.ndarray
    n_names: np.ndarray
    rows: np.ndarray  # (n_trades,)
    assets: np.ndarray
    units: np.ndarray
    prices: np.ndarray
    held: np.ndarray  # units in all sleeves after the trade
    n_trades: np.ndarray  # (1,)


class Desk(NamedTuple):
    """Where a renewal is worked out; all of shape (n_assets,)."""

    target: np.ndarray  # weights by asset, all 0 in between
    asset: np.ndarray
    want: np.ndarray  # weight of `asset`
    old: np.ndarray  # its value
    after: np.ndarray  # units that it is to come to
    price: np.ndarray  # at which


@njit(cache=True, nogil=True)
def last_rows(close: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Return the last row in which each asset has a price; -1 where it never has."""
    last = np.full(close.shape[1], -1, np.int64)
    for n in range(close.shape[1]):
        for t in range(close.shape[0] - 1, -1, -1):
            if close[t, n] == close[t, n] or price[t, n] == price[t, n]:
                last[n] = t
                break
    return last


# -- the book ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _trade(book: Book, log: Log, desk: Desk, s: Any, row: Any, n: Any, cost: Any) -> Any:
    """Come to the units that lie on the desk; return what that costs, for the caller to pay.

    All at once: a call takes longer than a trade, as it counts references to every array.
    """
    paid = 0.0
    for i in range(n):
        name, after, price = desk.asset[i], desk.after[i], desk.price[i]
        before = book.units[s, name]
        if after == before:
            continue
        others = book.holders[name] - (before != 0.0)
        holders = others + (after != 0.0)
        book.n_names[0] += (holders > 0) - (book.holders[name] > 0)
        book.holders[name] = holders
        book.units[s, name] = after
        # Without other holders the sum is known, and rounding has nothing to grow from.
        book.total[name] = after if others == 0 else book.total[name] + (after - before)
        value = abs(after - before) * price
        log.traded[row] += value
        paid += cost * value
        if log.rows.shape[0] > 0:
            place = log.n_trades[0]
            log.rows[place], log.assets[place], log.prices[place] = row, name, price
            log.units[place], log.held[place] = after - before, book.total[name]
            log.n_trades[0] = place + 1
    log.cost[row] += paid
    return paid


@njit(cache=True, nogil=True)
def _ruin(book: Book, log: Log, desk: Desk, s: Any, row: Any) -> Any:
    """Close a sleeve that has lost everything; its value is 0 from now on."""
    n = 0
    for name in range(book.units.shape[1]):
        if book.units[s, name] != 0.0:
            desk.asset[n], desk.after[n], desk.price[n] = name, 0.0, book.last[name]
            n += 1
    _trade(book, log, desk, s, row, n, 0.0)
    book.n_held[s] = 0
    book.cash[s] = 0.0
    return 0.0


@njit(cache=True, nogil=True)
def _mark(market: Market, terms: Terms, book: Book, log: Log, desk: Desk, t: Any, row: Any) -> None:
    """Value all sleeves at the close, after they were paid out what has disappeared for good."""
    for s in range(book.cash.shape[0]):
        value, kept, gone = 0.0, 0, 0
        for place in range(book.n_held[s]):
            name = book.held[s, place]
            price = market.close[t, name]
            if np.isnan(price):
                price = market.price[t, name]
            if not np.isnan(price):
                book.last[name] = price
            elif t > market.last_row[name]:
                price = book.last[name] * (1.0 + terms.delisting)
                book.cash[s] += book.units[s, name] * price
                desk.asset[gone], desk.after[gone], desk.price[gone] = name, 0.0, price
                gone += 1
                continue
            book.held[s, kept] = name
            kept += 1
            value += book.units[s, name] * book.last[name]
        book.n_held[s] = kept
        if gone > 0:
            book.cash[s] -= _trade(book, log, desk, s, row, gone, terms.cost)
        value += book.cash[s]
        log.equity[row, s] = value if value > 0.0 else _ruin(book, log, desk, s, row)


@njit(cache=True, nogil=True)
def _pay_fees(terms: Terms, book: Book, log: Log, row: Any) -> None:
    """Pay for what was borrowed overnight, at the prices of the close before."""
    for s in range(book.cash.shape[0]):
        short = 0.0
        for place in range(book.n_held[s]):
            name = book.held[s, place]
            short -= min(book.units[s, name] * book.last[name], 0.0)
        book.cash[s] -= terms.borrow * short
        log.fee[row] += terms.borrow * short


@njit(cache=True, nogil=True)
def _money(desk: Desk, n: Any, free: Any, cost: Any) -> Any:
    """Return the money that the weights share once the costs of coming there are paid.

    It is ``free - K`` where ``K = cost * sum(abs(want * (free - K) - old))``. The right side is
    linear in K as long as no trade changes its side, so Newton's steps end at the exact solution.
    """
    want, old, paid = desk.want, desk.old, 0.0
    for _ in range(_MOST_STEPS):
        money = max(free - paid, 0.0)
        constant, slope = 0.0, 0.0
        for i in range(n):
            side = 1.0 if want[i] * money >= old[i] else -1.0
            constant += side * (want[i] * free - old[i]) if money > 0.0 else -side * old[i]
            slope += side * want[i] if money > 0.0 else 0.0
        update = cost * constant / (1.0 + cost * slope)
        if abs(update - paid) <= 1e-15 * abs(free):
            break
        paid = update
    return max(free - paid, 0.0)


@njit(cache=True, nogil=True)
def _collect(
    market: Market,
    book: Book,
    s: Any,
    t: Any,
    names: np.ndarray,
    weights: np.ndarray,
    desk: Desk,
) -> tuple[Any, Any, Any, Any]:
    """Put on the desk what can be traded: first what is held, then what is new.

    Returns how much there is; how many positions stay, which move to the head of the sleeve's list;
    the value of the sleeve, and what stays in absolute values.
    """
    for place in range(names.shape[0]):
        if names[place] >= 0:
            desk.target[names[place]] = weights[place]
    value, frozen, n, kept = book.cash[s], 0.0, 0, 0
    for place in range(book.n_held[s]):
        name = book.held[s, place]
        price = market.price[t, name]
        if np.isnan(price):
            stays = book.units[s, name] * book.last[name]
            value += stays
            frozen += abs(stays)
            book.held[s, kept] = name
            kept += 1
        else:
            desk.asset[n], desk.want[n] = name, desk.target[name]
            desk.old[n] = book.units[s, name] * price
            value += desk.old[n]
            n += 1
        desk.target[name] = 0.0
    for place in range(names.shape[0]):
        name = names[place]
        if name >= 0 and desk.target[name] != 0.0 and not np.isnan(market.price[t, name]):
            desk.asset[n], desk.want[n], desk.old[n] = name, desk.target[name], 0.0
            n += 1
        if name >= 0:
            desk.target[name] = 0.0
    return n, kept, value, frozen


@njit(cache=True, nogil=True)
def _renew(
    market: Market,
    terms: Terms,
    book: Book,
    log: Log,
    s: Any,
    t: Any,
    row: Any,
    names: np.ndarray,
    weights: np.ndarray,
    desk: Desk,
) -> Any:
    """Bring a sleeve to its new weights, at the prices of row t; return its value after costs."""
    n, kept, value, frozen = _collect(market, book, s, t, names, weights, desk)
    if value <= 0.0:
        return _ruin(book, log, desk, s, row)
    book.n_held[s] = kept
    free = value - frozen / terms.gross
    money = _money(desk, n, free if free > _NOTHING * value else 0.0, terms.cost)
    change = 0.0
    for i in range(n):
        change += abs(desk.want[i] * money - desk.old[i])
    pace = min(1.0, terms.max_turnover * value / change) if change > 0.0 else 0.0
    for i in range(n):
        name, goal = desk.asset[i], desk.want[i] * money
        price, step = market.price[t, name], pace * (goal - desk.old[i])
        after = goal / price if pace == 1.0 else book.units[s, name] + step / price
        desk.after[i], desk.price[i] = after, price
        book.last[name] = price
        book.cash[s] -= step
        if after != 0.0:
            book.held[s, book.n_held[s]] = name
            book.n_held[s] += 1
    paid = _trade(book, log, desk, s, row, n, terms.cost)
    book.cash[s] -= paid
    return value - paid


@njit(cache=True, nogil=True)
def simulate(
    market: Market,
    terms: Terms,
    book: Book,
    log: Log,
    span: tuple[int, int],
    rows: np.ndarray,
    sleeves: np.ndarray,
    names: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Run a book through the rows of `span`, and note in the log what happens.

    Parameters
    ----------
    market, terms, book, log
        Described at their classes; book and log are written to.
    span : tuple of two int
        First row, and the one after the last.
    rows, sleeves : numpy.ndarray of shape (n_renewals,), int64
        Row in which each renewal is executed, rising, and the sleeve that is renewed.
    names : numpy.ndarray of shape (n_renewals, width), int32
        Assets of its target; -1 is passed over.
    weights : numpy.ndarray of shape (n_renewals, width), float64
        Their weights.
    """
    n_assets = book.last.shape[0]
    desk = Desk(
        np.zeros(n_assets),
        np.empty(n_assets, np.int32),
        np.empty(n_assets),
        np.empty(n_assets),
        np.empty(n_assets),
        np.empty(n_assets),
    )
    i = 0
    for t in range(span[0], span[1]):
        row = t - span[0]
        if terms.borrow > 0.0:
            _pay_fees(terms, book, log, row)
        if not market.at_open:
            _mark(market, terms, book, log, desk, t, row)
        while i < rows.shape[0] and rows[i] == t:
            s = sleeves[i]
            log.equity[row, s] = _renew(
                market, terms, book, log, s, t, row, names[i], weights[i], desk
            )
            i += 1
        if market.at_open:
            _mark(market, terms, book, log, desk, t, row)
        log.n_names[row] = book.n_names[0]


@njit(cache=True, nogil=True)
def dense_weights(market: Market, log: Log, start: Any, equity: np.ndarray) -> np.ndarray:
    """Return what share of the equity is in each asset at each close, by going over the trades.

    Parameters
    ----------
    market, log
        As `simulate` took and filled them; of the log only the trades are read.
    start : int
        Row of the panel that is row 0 of the log.
    equity : numpy.ndarray of shape (n_rows,), float64
        Value at each close.

    Returns
    -------
    numpy.ndarray of shape (n_rows, n_assets), float64
        Negative where the asset is sold short.
    """
    n_rows, n_assets = equity.shape[0], market.close.shape[1]
    weights = np.zeros((n_rows, n_assets))
    units, last = np.zeros(n_assets), np.zeros(n_assets)
    i = 0
    for row in range(n_rows):
        while i < log.rows.shape[0] and log.rows[i] == row:
            units[log.assets[i]] = log.held[i]
            last[log.assets[i]] = log.prices[i]
            i += 1
        for n in range(n_assets):
            if units[n] == 0.0:
                continue
            price = market.close[start + row, n]
            if np.isnan(price):
                price = market.price[start + row, n]
            last[n] = last[n] if np.isnan(price) else price
            if equity[row] > 0.0:
                weights[row, n] = units[n] * last[n] / equity[row]
    return weights
