"""Made-up markets with a signal in them, whose strength is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

from .panel import FIELDS, Panel

__all__ = ["PlantedMarket", "make_panel"]

START = np.datetime64("2000-01-03")
DELAY = 2  # rows from a score to the first return that it says something about
MOST_VOLATILE = 0.1  # 1 + return stays above 0 up to ten standard deviations
LOUDNESS = 0.5  # of the score in the logarithm of the volume


@dataclass(frozen=True, eq=False, repr=False)
class PlantedMarket:
    """A made-up market, and the scores that were planted in it.

    Parameters
    ----------
    panel : Panel
        What a user would see.
    scores : numpy.ndarray of float64 and shape (n_dates, n_assets)
        Standard normal, independent; the score of row t correlates by ``signal`` with the return
        from the close of t + 1 to that of t + 2, and with no other.
    signal : float
        This correlation.
    """

    panel: Panel
    scores: np.ndarray
    signal: float

    def information_coefficient(self, horizon: int = 1) -> float:
        """Return the correlation of the scores with the tradable return of some days.

        Of these days the score knows the first: signal / sqrt(horizon), for simple returns that are
        added rather than compounded (for a day they are the same).
        """
        return float(self.signal / np.sqrt(horizon))

    def sharpe_ratio(self, periods: float = 252) -> float:
        """Return the annual Sharpe ratio of holding each asset in proportion to its score.

        Scores are bought at the next close and held for a day, without costs. The product of score
        and standardised return has the mean c and the variance 1 + c², c being the correlation;
        that of n assets together has c sqrt(n / (1 + c²)) as its ratio of mean to deviation.
        """
        n_assets = self.scores.shape[1]
        daily = self.signal * np.sqrt(n_assets / (1 + self.signal**2))
        return float(daily * np.sqrt(periods))

    def __repr__(self) -> str:
        return f"PlantedMarket(signal {self.signal}, {self.panel!r})"


def make_panel(
    n_dates: int = 500,
    n_assets: int = 50,
    *,
    seed: int = 0,
    signal: float = 0.0,
    volatility: float = 0.02,
    gaps: float = 0.0,
    delistings: int = 0,
    fields: Sequence[str] = FIELDS,
) -> PlantedMarket:
    """Make a market of independent random walks with a planted signal.

    Parameters
    ----------
    n_dates, n_assets : int, default=500, 50
        Size. The dates are the weekdays from 2000-01-03 on.
    seed : int, default=0
        Same numbers for the same seed. Gaps and delistings do not change the prices around them.
    signal : float, default=0.0
        Correlation of a score with the daily return that begins at the next close, from -1 to 1.
        The volume of the same day is louder where the score is higher, so that the score can be
        learnt from the features.
    volatility : float, default=0.02
        Standard deviation of the daily simple returns, whose mean is 0.
    gaps : float, default=0.0
        Share of cells in which an asset is not traded, and all fields are missing.
    delistings : int, default=0
        Number of assets that are there no more from some date in the second half on.
    fields : sequence of str, default=("open", "high", "low", "close", "volume")
        Which the panel shall have; the close is always there.

    Returns
    -------
    PlantedMarket
        The panel, the scores, and what they are worth in closed form.

    Raises
    ------
    InvalidInputError
        If a number cannot be what it is for.
    """
    _check_sizes(n_dates, n_assets, signal, volatility, gaps, delistings, fields)
    prices, days, holes, ends = np.random.default_rng(seed).spawn(4)
    shape = n_dates, n_assets
    scores = prices.standard_normal(shape)
    known = np.vstack([prices.standard_normal((DELAY, n_assets)), scores])[:n_dates]
    noise = prices.standard_normal(shape)
    returns = volatility * (signal * known + np.sqrt(1 - signal**2) * noise)
    close = prices.uniform(20, 200, n_assets) * np.cumprod(1 + returns, axis=0)
    before = close / (1 + returns)
    values = {"close": close} | _other_fields(days, before, close, volatility, scores)
    missing = holes.random(shape) < gaps
    if delistings:
        columns = ends.choice(n_assets, delistings, replace=False)
        last = ends.integers(n_dates // 2, n_dates, delistings)
        missing[:, columns] |= np.arange(n_dates)[:, None] >= last
    for array in values.values():
        array[missing] = np.nan
    width = len(str(n_assets - 1))
    panel = Panel(
        np.busday_offset(START, np.arange(n_dates)),
        tuple(f"A{n:0{width}d}" for n in range(n_assets)),
        {field: values[field] for field in {*fields, "close"}},
        name=f"synthetic {seed}",
    )
    return PlantedMarket(panel, scores, float(signal))


def _other_fields(
    rng: np.random.Generator,
    before: np.ndarray,
    close: np.ndarray,
    volatility: float,
    scores: np.ndarray,
) -> dict[str, np.ndarray]:
    """Make opens between two closes, highs and lows around both, and volumes that tell scores."""
    half = volatility / 2
    open_ = np.sqrt(before * close) * np.exp(half * rng.standard_normal(close.shape))
    above, below = np.exp(half * np.abs(rng.standard_normal((2, *close.shape))))
    volume = np.exp(rng.normal(13, 1, close.shape[1]) + LOUDNESS * scores)
    return {
        "open": open_,
        "high": np.maximum(open_, close) * above,
        "low": np.minimum(open_, close) / below,
        "volume": np.rint(volume),
    }


def _check_sizes(
    n_dates: Any,
    n_assets: Any,
    signal: Any,
    volatility: Any,
    gaps: Any,
    delistings: Any,
    fields: Sequence[str],
) -> None:
    faults = []
    if n_dates < 1 or n_assets < 1:
        faults.append(f"n_dates and n_assets of at least 1, not {n_dates!r} and {n_assets!r}")
    if not -1 <= signal <= 1:
        faults.append(f"signal from -1 to 1, not {signal!r}")
    if not 0 < volatility <= MOST_VOLATILE:
        faults.append(f"volatility above 0 and up to {MOST_VOLATILE}, not {volatility!r}")
    if not 0 <= gaps < 1:
        faults.append(f"gaps from 0 up to below 1, not {gaps!r}")
    if not 0 <= delistings <= n_assets:
        faults.append(f"delistings from 0 to {n_assets}, not {delistings!r}")
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        faults.append(f"fields among {' '.join(FIELDS)}, not {' '.join(unknown)}")
    if faults:
        raise InvalidInputError(f"Expected {'; '.join(faults)}.")
