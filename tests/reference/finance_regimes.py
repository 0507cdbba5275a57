"""Regimes and similarities, date by date, as they are described."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr


def market_regimes(panel, volatility_days, trend_days, quantile, history):
    """Return the code of each date."""
    market = []
    for t in range(panel.n_dates):
        returns = [
            panel.close[t, n] / panel.close[t - 1, n] - 1
            for n in range(panel.n_assets)
            if t > 0 and panel.member[t, n] and np.isfinite(panel.close[t - 1 : t + 1, n]).all()
        ]
        market.append(np.mean(returns) if returns else np.nan)
    market = np.array(market)
    volatilities, trends, codes = [], [], []
    for t in range(panel.n_dates):
        codes.append(-1)
        longest = max(volatility_days, trend_days)
        if t + 1 < longest or not np.isfinite(market[t + 1 - longest : t + 1]).all():
            continue
        volatilities.append(np.std(market[t + 1 - volatility_days : t + 1], ddof=1))
        trends.append(np.sum(market[t + 1 - trend_days : t + 1]))
        if len(trends) > history:
            volatile = volatilities[-1] > np.quantile(volatilities, quantile)
            rising = trends[-1] > np.quantile(trends, quantile)
            codes[-1] = 2 * int(volatile) + int(rising)
    return np.array(codes)


def similarity(student, other, codes, regime):
    """Return the mean daily rank correlation in a regime, and less that of the other regimes."""
    inside, outside = [], []
    for t in range(len(student)):
        both = np.isfinite(student[t]) & np.isfinite(other[t])
        if codes[t] < 0 or both.sum() < 3:
            continue
        correlation = spearmanr(student[t][both], other[t][both]).statistic
        (inside if codes[t] == regime else outside).append(correlation)
    return np.mean(inside), np.mean(inside) - np.mean(outside)
