"""Features, labels and windows of panels, written out by loops."""

from __future__ import annotations

import math

import numpy as np


def trailing_score(values, window):
    """Return (x - mean) / std of the last days of one column at a time."""
    out = np.full(values.shape, math.nan)
    for n in range(values.shape[1]):
        for t in range(window - 1, len(values)):
            last = [float(v) for v in values[t - window + 1 : t + 1, n]]
            if any(math.isnan(v) for v in last):
                continue
            mean = math.fsum(last) / window
            variance = math.fsum((v - mean) ** 2 for v in last) / window
            constant = all(v == last[0] for v in last)
            out[t, n] = 0.0 if constant else (last[-1] - mean) / math.sqrt(variance)
    return out


def mean_gap(values, window):
    """Return mean / x - 1 of the last days of one column at a time."""
    out = np.full(values.shape, math.nan)
    for n in range(values.shape[1]):
        for t in range(window - 1, len(values)):
            last = [float(v) for v in values[t - window + 1 : t + 1, n]]
            if not any(math.isnan(v) for v in last):
                out[t, n] = math.fsum(last) / window / last[-1] - 1
    return out


def forward_returns(close, horizon, first, last):
    """Return close[t + last + horizon] / close[t + first] - 1."""
    out = np.full(close.shape, math.nan)
    n_dates, n_assets = close.shape
    for t in range(n_dates):
        for n in range(n_assets):
            if t + last + horizon < n_dates:
                out[t, n] = close[t + last + horizon, n] / close[t + first, n] - 1
    return out


def sample_places(features, member, label, look_back):
    """Return (row, column) of every sample, by date and then by asset."""
    found = []
    n_dates, n_assets = member.shape
    for t in range(look_back - 1, n_dates):
        for n in range(n_assets):
            window = features[t - look_back + 1 : t + 1, n]
            labelled = label is None or math.isfinite(label[t, n])
            if np.isfinite(window).all() and member[t, n] and labelled:
                found.append((t, n))
    return found
