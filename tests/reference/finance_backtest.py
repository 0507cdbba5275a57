"""A backtest in plain Python, sleeve by sleeve and asset by asset: the oracle of the engine."""

from __future__ import annotations

import math
from fractions import Fraction

__all__ = ["naive_backtest"]


def there(x):
    return not math.isnan(x)


def chosen_of(scores, member, strategy):
    """Return {asset: weight} of one row of scores, or None where nothing is decided."""
    names = [n for n, score in enumerate(scores) if there(score) and member[n]]
    if not names:
        return None
    gross, cap = strategy.gross, strategy.max_weight or math.inf
    if strategy.select == "weights":
        cut = {n: max(-cap, min(cap, scores[n] * gross)) for n in names}
        return {n: weight for n, weight in cut.items() if weight != 0}
    order = sorted(names, key=lambda n: (-scores[n], n))
    if strategy.select == "top_k" or strategy.quantile is None:
        wanted = strategy.k
    else:
        wanted = max(1, int(Fraction(str(strategy.quantile)) * len(names)))
    if strategy.select == "long_short":
        size = min(wanted, len(names) // 2)
        best, worst = order[:size], order[len(order) - size :]
        long = leg_of(best, [scores[n] for n in best], wanted, gross / 2, cap, strategy)
        short = leg_of(worst, [-scores[n] for n in worst], wanted, gross / 2, cap, strategy)
        return long | {n: -weight for n, weight in short.items()}
    best = order[:wanted]
    return leg_of(best, [scores[n] for n in best], wanted, gross, cap, strategy)


def leg_of(names, scores, wanted, share, cap, strategy):
    if not names:
        return {}
    if strategy.weighting == "equal":
        parts = [1.0] * len(names)
    else:
        parts = [math.exp((score - max(scores)) / strategy.temperature) for score in scores]
    total = share * len(names) / wanted
    weights = {n: total * part / sum(parts) for n, part in zip(names, parts, strict=True)}
    # Pour the total out at a level: weight = min(cap, level * part). The level by bisection.
    if max(weights.values()) > cap:
        if cap * len(names) <= total:
            return dict.fromkeys(names, cap)
        low, high = 0.0, 1.0
        while sum(min(cap, high * part) for part in parts) < total:
            high *= 2
        for _ in range(200):
            level = (low + high) / 2
            if sum(min(cap, level * part) for part in parts) < total:
                low = level
            else:
                high = level
        weights = {n: min(cap, high * part) for n, part in zip(names, parts, strict=True)}
    return weights


def cost_of_coming_to(weights, old, free, rate):
    """Find K with K = rate * sum |w (free - K) - old| by bisection."""

    def needed(paid):
        money = max(free - paid, 0.0)
        names = {**weights, **old}
        return rate * sum(abs(weights.get(n, 0.0) * money - old.get(n, 0.0)) for n in names)

    low, high = 0.0, needed(0.0) + rate * sum(map(abs, old.values())) + abs(free) + 1.0
    for _ in range(300):
        middle = (low + high) / 2
        if needed(middle) > middle:
            low = middle
        else:
            high = middle
    return high


class Sleeve:
    def __init__(self, cash, n_assets, strategy, last):
        self.cash, self.strategy, self.last = cash, strategy, last
        self.units = {}
        self.rate = strategy.cost_bps / 1e4
        self.cost = self.fee = self.traded = 0.0

    def value(self, prices=None):
        """Value at these prices, where there are any, and else at the last ones."""
        worth = 0.0
        for n, units in self.units.items():
            price = self.last[n] if prices is None or not there(prices[n]) else prices[n]
            worth += units * price
        return self.cash + worth

    def sell_off(self, n, price, rate):
        worth = self.units.pop(n) * price
        self.cash += worth - rate * abs(worth)
        self.cost += rate * abs(worth)
        self.traded += abs(worth)

    def close_if_ruined(self):
        if self.value() <= 0:
            for n in list(self.units):
                self.sell_off(n, self.last[n], 0.0)
            self.cash = 0.0

    def pay_fee(self):
        short = sum(-units * self.last[n] for n, units in self.units.items() if units < 0)
        fee = self.strategy.borrow_bps_per_year / 1e4 / 252 * short
        self.cash -= fee
        self.fee += fee

    def pay_out(self, n):
        self.sell_off(n, self.last[n] * (1 + self.strategy.delisting_return), self.rate)

    def renew(self, target, prices):
        value = self.value(prices)
        if value <= 0:
            for n in list(self.units):
                self.sell_off(n, self.last[n], 0.0)
            self.cash = 0.0
            return
        frozen = sum(abs(u * self.last[n]) for n, u in self.units.items() if not there(prices[n]))
        weights = {n: w for n, w in target.items() if there(prices[n])}
        old = {n: u * prices[n] for n, u in self.units.items() if there(prices[n])}
        free = value - frozen / self.strategy.gross
        free = free if free > 1e-12 * value else 0.0  # what rounding leaves is not invested
        money = max(free - cost_of_coming_to(weights, old, free, self.rate), 0.0)
        steps = {
            n: weights.get(n, 0.0) * money - old.get(n, 0.0) for n in sorted({**weights, **old})
        }
        total = sum(map(abs, steps.values()))
        limit = self.strategy.max_turnover
        pace = 1.0 if limit is None or total == 0 else min(1.0, limit * value / total)
        for n, step in steps.items():
            self.cash -= pace * step + self.rate * abs(pace * step)
            self.cost += self.rate * abs(pace * step)
            self.traded += abs(pace * step)
            if pace == 1.0:
                self.units[n] = weights.get(n, 0.0) * money / prices[n]
            else:
                self.units[n] = self.units.get(n, 0.0) + pace * step / prices[n]
            if self.units[n] == 0:
                del self.units[n]
            self.last[n] = prices[n]


def naive_backtest(scores, panel, strategy, initial=1.0):
    """Return lists of what happens in each row, by name."""
    close = panel.close.tolist()
    use_open = strategy.price == "open" or (
        strategy.price == "auto" and strategy.lag > 0 and panel.open is not None
    )
    prices = panel.open.tolist() if use_open else close
    n_dates, n_assets = panel.n_dates, panel.n_assets
    decided = {}
    for t in range(n_dates):
        target = chosen_of(scores[t].tolist(), panel.member[t], strategy)
        if target is not None:
            decided[t] = target
    first, hold = min(decided), strategy.hold
    if strategy.phases == "average":
        n_sleeves = hold
    else:
        n_sleeves = 1
        decided = {t: w for t, w in decided.items() if (t - first) % hold == strategy.phases}
    decided = {t: w for t, w in decided.items() if t + strategy.lag < n_dates}
    start = min(decided) + strategy.lag
    stop = min(n_dates, max(decided) + strategy.lag + hold + 1)
    last = [math.nan] * n_assets
    sleeves = [Sleeve(initial / n_sleeves, n_assets, strategy, last) for _ in range(n_sleeves)]
    out = {
        "equity": [],
        "cost": [],
        "fee": [],
        "traded": [],
        "weights": [],
        "sleeves": [],
        "n_held": [],
    }

    def mark(t):
        for sleeve in sleeves:
            for n in list(sleeve.units):
                if there(close[t][n]):
                    last[n] = close[t][n]
                elif there(prices[t][n]):
                    last[n] = prices[t][n]
                elif not any(there(close[u][n]) or there(prices[u][n]) for u in range(t, n_dates)):
                    sleeve.pay_out(n)
            sleeve.close_if_ruined()

    for t in range(start, stop):
        for sleeve in sleeves:
            sleeve.cost = sleeve.fee = sleeve.traded = 0.0
            sleeve.pay_fee()
        if not use_open:
            mark(t)
        if t - strategy.lag in decided:
            signal = t - strategy.lag
            which = (signal - first) % hold if n_sleeves == hold else 0
            sleeves[which].renew(decided[signal], prices[t])
        if use_open:
            mark(t)
        equity = sum(sleeve.value() for sleeve in sleeves)
        held = [sum(sleeve.units.get(n, 0.0) for sleeve in sleeves) for n in range(n_assets)]
        out["equity"].append(equity)
        out["weights"].append(
            [u * last[n] / equity if u and equity > 0 else 0.0 for n, u in enumerate(held)]
        )
        out["n_held"].append(len(set().union(*(sleeve.units for sleeve in sleeves))))
        out["sleeves"].append([sleeve.value() for sleeve in sleeves])
        for name in ("cost", "fee", "traded"):
            out[name].append(sum(getattr(sleeve, name) for sleeve in sleeves))
    return out
