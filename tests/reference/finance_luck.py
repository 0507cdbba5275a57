"""Deflated Sharpe ratio, overfitting and Newey-West written out in loops."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

__all__ = ["naive_deflated", "naive_newey_west", "naive_overfitting", "naive_sharpe"]


def naive_sharpe(returns):
    n = len(returns)
    mean = math.fsum(returns) / n
    variance = math.fsum((r - mean) ** 2 for r in returns) / (n - 1)
    return mean / math.sqrt(variance) * math.sqrt(252) if variance > 0 else 0.0


def naive_deflated(returns, trials):
    """Probability that the true ratio is above the expected best of the trials."""
    normal, n, count = NormalDist(), len(returns), len(trials)
    mean = math.fsum(trials) / count
    spread = math.sqrt(math.fsum((t - mean) ** 2 for t in trials) / (count - 1) / 252)
    euler = 0.57721566490153286
    bar = spread * (
        (1 - euler) * normal.inv_cdf(1 - 1 / count)
        + euler * normal.inv_cdf(1 - 1 / (count * math.e))
    )
    sharpe = naive_sharpe(returns) / math.sqrt(252)
    centre = math.fsum(returns) / n
    second, third, fourth = (
        math.fsum((r - centre) ** power for r in returns) / n for power in (2, 3, 4)
    )
    skewness, kurtosis = third / second**1.5, fourth / second**2
    scale = math.sqrt(1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2)
    return normal.cdf((sharpe - bar) * math.sqrt(n - 1) / scale)


def naive_overfitting(columns, n_blocks):
    """Share of the splits in which the best in sample is not above the median out of sample."""
    n = len(columns[0])
    sizes = [n // n_blocks + (block < n % n_blocks) for block in range(n_blocks)]
    ends = list(itertools.accumulate(sizes))
    failures, logits = 0, []
    for half in itertools.combinations(range(n_blocks), n_blocks // 2):
        inside, outside = [], []
        for column in columns:
            parts = ([], [])
            for block, (end, size) in enumerate(zip(ends, sizes, strict=True)):
                parts[block not in half].extend(column[end - size : end])
            inside.append(naive_sharpe(parts[0]))
            outside.append(naive_sharpe(parts[1]))
        best = inside.index(max(inside))
        below = sum(value < outside[best] for value in outside)
        same = sum(value == outside[best] for value in outside)
        share = (below + (same + 1) / 2) / (len(columns) + 1)
        logits.append(math.log(share / (1 - share)))
        failures += 1 if logits[-1] < 0 else 0.5 if logits[-1] == 0 else 0
    return failures / len(logits), logits


def naive_newey_west(values, lags):
    n = len(values)
    mean = math.fsum(values) / n
    rest = [value - mean for value in values]
    variance = 0.0
    for i in range(n):
        for j in range(n):
            if abs(i - j) <= lags:
                variance += (1 - abs(i - j) / (lags + 1)) * rest[i] * rest[j]
    return mean / math.sqrt(variance / n**2)
