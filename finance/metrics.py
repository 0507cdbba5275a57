"""Measures of daily returns and of scores, each with its convention said.

Returns are simple returns of rows (days) as fractions: 0.01 is a gain of 1 %. A year has 252 rows.
What is not defined (a ratio to a spread or a drawdown of 0) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = [
    "Metric",
    "annual_return",
    "break_even_cost",
    "cagr",
    "calmar_ratio",
    "hit_rate",
    "icir",
    "information_coefficient",
    "information_ratio",
    "max_drawdown",
    "newey_west_t",
    "sharpe_ratio",
    "sortino_ratio",
    "summary",
    "volatility",
]

YEAR = 252
Drawdown = Literal["compounded", "additive"]


class Metric(NamedTuple):
    """A number, and how it was computed."""

    value: float
    convention: str


def annual_return(returns: Any) -> float:
    """Return the arithmetic annual return: the mean of the returns times 252."""
    return float(_checked(returns).mean() * YEAR)


def cagr(returns: Any) -> float:
    """Return the compound annual growth rate: ``prod(1 + r) ** (252 / n) - 1``."""
    returns = _checked(returns)
    growth = float(np.prod(1.0 + returns))
    return growth ** (YEAR / len(returns)) - 1.0 if growth > 0 else -1.0


def volatility(returns: Any, *, ddof: int = 1) -> float:
    """Return the annual volatility: the standard deviation times the root of 252.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    ddof : int, default=1
        1 divides by n - 1 (of a sample), 0 by n (of a population).
    """
    returns = _checked(returns)
    return float(returns.std(ddof=ddof) * math.sqrt(YEAR)) if len(returns) > ddof else math.nan


def sharpe_ratio(returns: Any, *, risk_free: float = 0.0, ddof: int = 1) -> float:
    """Return the annual Sharpe ratio: mean over standard deviation, times the root of 252.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    risk_free : float, default=0.0
        Arithmetic annual return of the safe asset; a part in 252 is taken off each return.
    ddof : int, default=1
        As in `volatility`.
    """
    returns = _checked(returns)
    if len(returns) <= ddof or np.ptp(returns) == 0.0:
        return math.nan
    excess = returns.mean() - risk_free / YEAR
    return float(excess / returns.std(ddof=ddof) * math.sqrt(YEAR))


def sortino_ratio(returns: Any, *, target: float = 0.0) -> float:
    """Return the annual Sortino ratio: mean over downside deviation, times the root of 252.

    The downside deviation is the root of the mean, over all rows, of squared shortfalls.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    target : float, default=0.0
        Arithmetic annual return below which a row falls short.
    """
    excess = _checked(returns) - target / YEAR
    downside = math.sqrt(np.mean(np.minimum(excess, 0.0) ** 2))
    return float(excess.mean() / downside * math.sqrt(YEAR)) if downside > 0 else math.nan


def max_drawdown(returns: Any, *, kind: Drawdown = "compounded") -> float:
    """Return the largest loss from a peak, as a positive fraction.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    kind : {"compounded", "additive"}, default="compounded"
        Of ``prod(1 + r)`` relative to its peak; or of ``sum(r)``, in points. The peak is at least
        the value before the first row.
    """
    returns = _checked(returns)
    if kind == "compounded":
        equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
        return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))
    if kind == "additive":
        total = np.concatenate([[0.0], np.cumsum(returns)])
        return float(np.max(np.maximum.accumulate(total) - total))
    message = f"Expected kind as 'compounded' or 'additive'; got {kind!r}."
    raise InvalidInputError(message)


def calmar_ratio(returns: Any, *, kind: Drawdown = "compounded") -> float:
    """Return annual return over maximum drawdown.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    kind : {"compounded", "additive"}, default="compounded"
        Compound annual growth over the compounded drawdown; or arithmetic annual return over the
        additive one.
    """
    drawdown = max_drawdown(returns, kind=kind)
    annual = cagr(returns) if kind == "compounded" else annual_return(returns)
    return annual / drawdown if drawdown > 0 else math.nan


def hit_rate(returns: Any) -> float:
    """Return the share of rows with a return above 0, of all rows."""
    return float(np.mean(_checked(returns) > 0.0))


def information_ratio(returns: Any, benchmark: Any) -> float:
    """Return the annual Sharpe ratio (ddof 1) of returns less those of a benchmark."""
    returns, benchmark = _checked(returns), _checked(benchmark)
    if returns.shape != benchmark.shape:
        message = f"Expected {len(returns)} returns of the benchmark; got {len(benchmark)}."
        raise InvalidInputError(message)
    return sharpe_ratio(returns - benchmark)


def break_even_cost(gross_returns: Any, turnover: Any) -> float:
    """Return the cost of each buy and sale, in basis points, that would eat up the mean return.

    It is the mean gross return over the mean turnover; NaN if nothing is traded.

    Parameters
    ----------
    gross_returns : array-like of shape (n,)
        Daily returns before costs.
    turnover : array-like of shape (n,)
        Buys plus sales of each row, as a share of the equity.
    """
    traded = float(_checked(turnover).mean())
    return float(_checked(gross_returns).mean()) / traded * 1e4 if traded > 0 else math.nan


# -- scores --------------------------------------------------------------------------------------


def information_coefficient(scores: Any, returns: Any, *, rank: bool = False) -> np.ndarray:
    """Return the correlation of scores and returns in each row.

    Parameters
    ----------
    scores : array-like of shape (n_dates, n_assets)
        Scores; NaN where there is none.
    returns : array-like of shape (n_dates, n_assets)
        The returns that followed; NaN where unknown.
    rank : bool, default=False
        Whether the correlation is Spearman's (of ranks, equal values sharing their mean rank)
        instead of Pearson's.

    Returns
    -------
    numpy.ndarray of shape (n_dates,)
        NaN in rows with fewer than three pairs, or where one side is constant. An asset without
        both values is left out of its row.

    Raises
    ------
    InvalidInputError
        If the shapes differ.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2:
        message = (
            f"Expected scores and returns of one shape (dates, assets); got {x.shape}, {y.shape}."
        )
        raise InvalidInputError(message)
    both = ~(np.isnan(x) | np.isnan(y))
    counts = both.sum(axis=1)
    if rank:
        x, y = (_ranks(values, both) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (_centred(values, both, counts) for values in (x, y))
        spread = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        correlation = (x * y).sum(axis=1) / spread
    return np.where((counts >= 3) & (spread > 0.0), np.clip(correlation, -1.0, 1.0), np.nan)


def _ranks(values: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Rank the pairs of each row from 1 on."""
    from scikd.kernels.ranks import group_ranks  # noqa: PLC0415 - compiles on first use

    ranks = np.zeros(values.shape)
    ranks[both] = group_ranks(values[both], np.nonzero(both)[0])
    return ranks


def _centred(values: np.ndarray, both: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Take off the mean of each row; a row of equal values becomes exactly 0."""
    filled = np.where(both, values, 0.0)
    low = np.where(both, values, np.inf).min(axis=1)
    constant = low == np.where(both, values, -np.inf).max(axis=1)
    mean = np.where(constant, low, filled.sum(axis=1) / np.maximum(counts, 1))
    return np.where(both, filled - mean[:, None], 0.0)


def icir(ic: Any) -> float:
    """Return the mean of information coefficients over their standard deviation (ddof 1), per row.

    Rows without a coefficient are left out; it is not annualised.
    """
    ic = _present(ic)
    return float(ic.mean() / ic.std(ddof=1)) if len(ic) > 1 and np.ptp(ic) > 0.0 else math.nan


def newey_west_t(series: Any, *, lags: int | None = None) -> float:
    """Return the t statistic of a mean, with the standard error of Newey and West (1987).

    Bartlett weights ``1 - l / (lags + 1)``, no correction for small samples. NaN values are left
    out as if their rows were not there.

    Parameters
    ----------
    series : array-like of shape (n,)
        Values in order of time.
    lags : int or None, default=None
        None is ``floor(4 * (n / 100) ** (2 / 9))``. For a coefficient over q days at least q - 1.
    """
    values = _present(series)
    n = len(values)
    if n < 2 or np.ptp(values) == 0.0:
        return math.nan
    lags = int(4 * (n / 100) ** (2 / 9)) if lags is None else lags
    rest = values - values.mean()
    variance = rest @ rest / n
    for lag in range(1, min(lags, n - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1)) * (rest[lag:] @ rest[:-lag]) / n
    return float(values.mean() / math.sqrt(variance / n)) if variance > 0 else math.nan


# -- all together --------------------------------------------------------------------------------

_STANDARD: dict[str, tuple[Callable[[np.ndarray], float], str]] = {
    "annual_return": (annual_return, "arithmetic: mean x 252"),
    "cagr": (cagr, "compound growth a year of 252 rows"),
    "volatility": (volatility, "std (ddof 1) x sqrt(252)"),
    "sharpe_ratio": (sharpe_ratio, "mean / std (ddof 1) x sqrt(252), no risk-free"),
    "sortino_ratio": (sortino_ratio, "mean / downside deviation (all rows) x sqrt(252), target 0"),
    "max_drawdown": (max_drawdown, "compounded, positive fraction of the peak"),
    "max_drawdown_additive": (
        lambda returns: max_drawdown(returns, kind="additive"),
        "of the sum of returns, in points",
    ),
    "calmar_ratio": (calmar_ratio, "CAGR / compounded drawdown"),
    "hit_rate": (hit_rate, "share of rows with a return above 0"),
}

_PUBLISHED: dict[str, tuple[Callable[[np.ndarray], float], str]] = {
    "annual_return": (annual_return, "arithmetic: mean x 252; mean over phases"),
    "volatility": (
        lambda returns: volatility(returns, ddof=0),
        "std (ddof 0) x sqrt(252); mean over phases",
    ),
    "sharpe_ratio": (
        lambda returns: sharpe_ratio(returns, ddof=0),
        "mean / std (ddof 0) x sqrt(252), no risk-free; mean over phases",
    ),
    "max_drawdown": (
        lambda returns: max_drawdown(returns, kind="additive"),
        "of the sum of returns, in points; mean over phases",
    ),
    "calmar_ratio": (
        lambda returns: calmar_ratio(returns, kind="additive"),
        "arithmetic annual return / additive drawdown; mean over phases",
    ),
}


def summary(
    returns: Any,
    *,
    phases: Sequence[np.ndarray] = (),
    conventions: Literal["standard", "published"] = "standard",
) -> dict[str, Metric]:
    """Return the metrics of returns, with their conventions.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    phases : sequence of ndarray, default=()
        Daily returns of each phase alone; only "published" reads them, and takes `returns` as the
        one phase if there are none.
    conventions : {"standard", "published"}, default="standard"
        "standard": arithmetic and compound annual return, standard deviations of a sample,
        compounded drawdown. "published", as in the literature on TIPS: arithmetic annual return,
        standard deviation of a population, drawdown of the sum of returns; of each phase, then
        averaged.

    Returns
    -------
    dict of str to Metric
        By name.
    """
    if conventions == "standard":
        returns = _checked(returns)
        return {name: Metric(f(returns), text) for name, (f, text) in _STANDARD.items()}
    series = [_checked(one) for one in phases] or [_checked(returns)]
    return {
        name: Metric(float(np.mean([f(one) for one in series])), text)
        for name, (f, text) in _PUBLISHED.items()
    }


def _checked(returns: Any) -> np.ndarray:
    array = np.asarray(returns, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        message = (
            "Expected finite values of shape (n,), at least one; got shape "
            f"{array.shape} with {int(np.sum(~np.isfinite(array)))} values that are not finite."
        )
        raise InvalidInputError(message)
    return array


def _present(series: Any) -> np.ndarray:
    array = np.asarray(series, dtype=np.float64)
    array = array[~np.isnan(array)]
    if array.ndim != 1 or not np.isfinite(array).all():
        message = f"Expected finite values or NaN, of shape (n,); got shape {array.shape}."
        raise InvalidInputError(message)
    return array
