"""Returns of a benchmark, as a user gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

__all__ = ["given_returns"]

IMPLAUSIBLE = 0.5  # as the typical size of a daily return


def given_returns(
    benchmark: Any, dates: np.ndarray, rows: slice = slice(None), *, of: str = "the result"
) -> np.ndarray:
    """Return the returns of a benchmark in some rows, or say what is missing.

    Parameters
    ----------
    benchmark : pandas.Series or array-like of shape (n_dates,)
        Daily returns as fractions. A series is laid over the dates by its index; an array has a
        return for each of them.
    dates : numpy.ndarray of datetime64[D] and shape (n_dates,)
        All dates.
    rows : slice, default=slice(None)
        Which of them are wanted; only there a return is needed.
    of : str, default="the result"
        Whose dates they are, for the message.
    """
    try:
        returns = np.asarray(benchmark, dtype=np.float64)
    except (TypeError, ValueError):
        returns = np.empty(0)
    dated = hasattr(benchmark, "reindex")
    if returns.ndim != 1 or not len(returns) or not (dated or len(returns) == len(dates)):
        message = (
            "Expected the benchmark as 'equal_weight', 'buy_and_hold', a pandas Series of returns "
            f"by date, or an array of shape ({len(dates)},), one return for each date of {of}; got "
            f"{benchmark!r:.80}."
        )
        raise InvalidInputError(message)
    own = _by_date(benchmark, returns, dates[rows]) if dated else returns[rows]
    missing = dates[rows][~np.isfinite(own)]
    if len(missing):
        message = (
            f"The benchmark has no return on {len(missing)} of {len(own)} dates of the result, "
            f"such as {', '.join(map(str, missing[:3]))}."
        )
        raise InvalidInputError(message)
    _refuse_levels(own, dates[rows])
    return own


def _refuse_levels(returns: np.ndarray, dates: np.ndarray) -> None:
    """Raise where numbers cannot be daily returns, as levels of an index or per cent cannot."""
    lost, typical = np.flatnonzero(returns < -1.0), float(np.median(np.abs(returns)))
    if not len(lost) and typical <= IMPLAUSIBLE:
        return
    seen = f"half of them are beyond {typical:.4g}, up or down"
    if len(lost):
        seen = f"{len(lost)} are below -1, such as {returns[lost[0]]:.4g} on {dates[lost[0]]}"
    message = (
        f"Expected daily returns of the benchmark as fractions (0.01 is a gain of 1 %); {seen}. Of "
        "levels of an index make returns by levels.pct_change(), of per cents by dividing by 100."
    )
    raise InvalidInputError(message)


def _by_date(series: Any, returns: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values of a series on some dates, NaN where it does not have them."""
    import pandas as pd  # noqa: PLC0415 - an array needs no pandas

    from ._tables import day_numbers, some  # noqa: PLC0415 - as above

    days = day_numbers(series.index.to_series(), "index of the benchmark")
    found = pd.Series(returns, index=pd.DatetimeIndex(days))
    again = found.index.duplicated()
    if again.any():
        message = (
            f"Expected each date of the benchmark once; {again.sum()} come again: "
            f"{some(days[again])}."
        )
        raise InvalidInputError(message)
    return found.reindex(pd.DatetimeIndex(wanted)).to_numpy()
