"""Numbers as words: how reports and commands write them."""

from __future__ import annotations

import math

from .luck import Interval

__all__ = ["benchmark_name", "interval", "percent", "points", "ratio", "span", "told_apart"]

NAMES = {"equal_weight": "equal weight", "buy_and_hold": "buy and hold"}
NONE = "\N{EM DASH}"


def percent(value: float, *, signed: bool = False) -> str:
    """Write a fraction in per cent."""
    if not math.isfinite(value):
        return NONE
    return f"{100.0 * value:+.1f} %" if signed else f"{100.0 * value:.1f} %"


def ratio(value: float, *, signed: bool = False) -> str:
    """Write a ratio with two decimals."""
    if not math.isfinite(value):
        return NONE
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def points(value: float) -> str:
    """Write a number with one decimal."""
    return f"{value:,.1f}" if math.isfinite(value) else NONE


def span(found: Interval) -> str:
    """Write the ends of an interval."""
    return f"{found.low:.2f} to {found.high:.2f}"


def interval(found: Interval) -> str:
    """Write a difference with its interval."""
    return f"{found.estimate:+.2f}, 95 % interval {found.low:+.2f} to {found.high:+.2f}"


def told_apart(gap: Interval) -> str:
    """Say whether a difference is told from zero."""
    if gap.low > 0:
        return "better than"
    return "worse than" if gap.high < 0 else "not told apart from"


def benchmark_name(name: str) -> str:
    """Write the name of a benchmark."""
    return NAMES.get(name, name)
