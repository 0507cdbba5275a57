"""What ``scikd finance backtest`` is told beside its two files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scikd.exceptions import InvalidInputError

from ._market_options import MarketOptions
from .strategy import Price, Strategy, Weighting

__all__ = ["BacktestOptions"]

SAME = (
    *("hold", "weighting", "temperature", "gross", "max_weight", "max_turnover", "lag", "price"),
    *("cost_bps", "borrow_bps_per_year", "delisting_return"),
)


@dataclass(frozen=True, kw_only=True)
class BacktestOptions(MarketOptions):
    """A strategy, its market, and what it is compared with.

    What is None is as in `Strategy`, or as in its published preset.

    Parameters
    ----------
    top_k : int or None
        Hold the so many assets with the best scores; 50 if nothing else is said.
    quantile : float or None
        Hold this share of them instead, such as 0.1.
    long_short : bool
        Also sell as many of the worst short.
    weights : bool
        The scores are the weights themselves.
    hold : int or None
        Days for which a choice is held, in as many sleeves; 1.
    weighting : {"equal", "softmax"} or None
        Equal parts, or by the softmax of the scores; equal.
    temperature : float or None
        Of this softmax; 1.
    gross : float or None
        Sum of the absolute weights; 1.
    max_weight : float or None
        Largest weight of an asset; no limit.
    max_turnover : float or None
        Most that a renewal trades, buys and sales, as a share of its money; no limit.
    lag : int or None
        Days from the score to its execution; 1.
    price : {"auto", "open", "close"} or None
        At which price of that day; auto is the open if there is one, else the close.
    cost_bps : float or None
        Costs of each buy and each sale, in basis points; 10.
    borrow_bps_per_year : float or None
        Fee on short sales, in basis points a year; 50.
    delisting_return : float or None
        What an asset that disappears pays relative to its last price; 0.
    published : bool
        Take the protocol of the literature on TIPS, optimism included, where no flag says
        otherwise: the best 5 by softmax, held 5 days, executed at the close that made the score,
        without costs.
    benchmark : str
        equal_weight, buy_and_hold, or a file with dates and the level of an index.
    start : str or None
        First date of scores to use, as yyyy-mm-dd.
    end : str or None
        Last date of scores to use.
    unknown : {"raise", "drop"}
        What to do with scores of dates or assets without prices, and of dates on which none is of a
        member of the universe.
    trials : int
        How many configurations were tried before this one, itself included; luck grows with it.
    resamples : int
        Of the bootstrap.
    seed : int
        Of the bootstrap.
    name : str or None
        What the scores are called; by default as their file.
    """

    top_k: int | None = None
    quantile: float | None = None
    long_short: bool = False
    weights: bool = False
    hold: int | None = None
    weighting: Weighting | None = None
    temperature: float | None = None
    gross: float | None = None
    max_weight: float | None = None
    max_turnover: float | None = None
    lag: int | None = None
    price: Price | None = None
    cost_bps: float | None = None
    borrow_bps_per_year: float | None = None
    delisting_return: float | None = None
    published: bool = False
    benchmark: str = "equal_weight"
    start: str | None = None
    end: str | None = None
    unknown: Literal["raise", "drop"] = "raise"
    trials: int = 1
    resamples: int = 1000
    seed: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        several = [
            flag
            for flag, given in (
                ("top_k", self.top_k is not None),
                ("quantile", self.quantile is not None),
                ("weights", self.weights),
            )
            if given
        ]
        if len(several) > 1 or (self.weights and self.long_short):
            both = several if len(several) > 1 else [*several, "long_short"]
            raise InvalidInputError(f"Expected one of {' and '.join(both)}, not both.")
        if self.trials < 1:
            message = f"Expected trials of at least 1, this configuration; got {self.trials}."
            raise InvalidInputError(message)
        if self.resamples < 1:
            raise InvalidInputError(f"Expected resamples of at least 1; got {self.resamples}.")
        self.strategy()

    def strategy(self) -> Strategy:
        """Return the strategy, or raise InvalidInputError."""
        given: dict[str, Any] = {name: getattr(self, name) for name in SAME}
        given |= {"k": self.top_k, "quantile": self.quantile}
        given = {name: value for name, value in given.items() if value is not None}
        if self.weights:
            given["select"] = "weights"
        elif self.long_short:
            given["select"] = "long_short"
        elif self.quantile is not None:
            given["select"] = "quantile"
        return Strategy.published(**given) if self.published else Strategy(**given)
