"""What to hold and when, as one immutable object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from scikd.exceptions import InvalidInputError

__all__ = ["Strategy"]

Select = Literal["top_k", "quantile", "long_short", "weights"]
Weighting = Literal["equal", "softmax"]
Price = Literal["auto", "open", "close"]
Conventions = Literal["standard", "published"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How scores become positions, and what trading costs.

    `scikd.finance.backtesting` says exactly what is done with it, and when.

    Parameters
    ----------
    select : {"top_k", "quantile", "long_short", "weights"}, default="top_k"
        Which assets are held: the ``k`` best; the best ``quantile`` of those with a score; the best
        and, sold short, the worst (``k`` of each, or ``quantile`` of each if given); or all, the
        scores being the weights themselves (negative ones are sold short).
    k : int, default=50
        Number of assets; of each leg with "long_short".
    quantile : float or None, default=None
        Share of the assets with a score that is held, in (0, 1]; at least one asset is. Required by
        "quantile".
    weighting : {"equal", "softmax"}, default="equal"
        How the weight of a leg is divided: equally, or by the softmax of its scores.
    temperature : float, default=1.0
        Of this softmax.
    gross : float, default=1.0
        Sum of the absolute weights when there are enough assets; half of it is in each leg of
        "long_short". Above 1, money is borrowed (at no interest).
    hold : int, default=1
        Number of rows for which a choice is held. The money is divided into as many sleeves, of
        which one is renewed in each row.
    phases : "average" or int, default="average"
        All sleeves; or the one of this number, from 0 to ``hold - 1``, with all the money.
    max_weight : float or None, default=None
        No target weight within a sleeve is above it in absolute value.
    max_turnover : float or None, default=None
        Most that a renewal trades, buys and sells together, as a share of its sleeve's value. If
        the way to the target is longer, it goes as far as that.
    lag : int, default=1
        Rows from the score to its execution. 0 executes at the very close that made the score,
        which nobody can; it warns.
    price : {"auto", "open", "close"}, default="auto"
        At which price of that row. "auto" is the open if the panel has opens and the lag is not 0,
        and else the close.
    cost_bps : float, default=10.0
        Cost of each buy and each sale, in basis points of its value.
    borrow_bps_per_year : float, default=50.0
        Fee on what is sold short, in basis points of its value and year of 252 rows.
    delisting_return : float, default=0.0
        What an asset that disappears for good pays, relative to its last price; -0.3 pays 70 % of
        it.
    conventions : {"standard", "published"}, default="standard"
        Of the metrics; see `scikd.finance.metrics.summary`.

    Raises
    ------
    InvalidInputError
        If a value is out of its range, or values do not fit together. All are named at once.
    """

    select: Select = "top_k"
    k: int = 50
    quantile: float | None = None
    weighting: Weighting = "equal"
    temperature: float = 1.0
    gross: float = 1.0
    hold: int = 1
    phases: int | Literal["average"] = "average"
    max_weight: float | None = None
    max_turnover: float | None = None
    lag: int = 1
    price: Price = "auto"
    cost_bps: float = 10.0
    borrow_bps_per_year: float = 50.0
    delisting_return: float = 0.0
    conventions: Conventions = "standard"

    def __post_init__(self) -> None:
        wrong = [
            f"{name} has to be {expected}, and is {getattr(self, name)!r}"
            for name, expected, right in self._checks()
            if not right
        ]
        if wrong:
            message = f"This strategy cannot be run: {'; '.join(wrong)}."
            raise InvalidInputError(message)

    def _checks(self) -> list[tuple[str, str, bool]]:
        """Return name, expectation and whether it is met, of every parameter."""
        quantile, phase = self.quantile, self.phases
        most = 10_000 / self.gross if _number(self.gross) and self.gross > 0 else 10_000.0
        return [
            *(
                (name, f"one of {get_args(kind)}", getattr(self, name) in get_args(kind))
                for name, kind in (
                    ("select", Select),
                    ("weighting", Weighting),
                    ("price", Price),
                    ("conventions", Conventions),
                )
            ),
            ("k", "an integer of at least 1", _integer(self.k, 1)),
            (
                "quantile",
                "in (0, 1]" + (", and is required by select='quantile'" * (quantile is None)),
                _within(quantile, 0.0, 1.0) if quantile is not None else self.select != "quantile",
            ),
            ("temperature", "above 0", _within(self.temperature, 0.0, math.inf)),
            ("gross", "above 0", _within(self.gross, 0.0, math.inf)),
            ("hold", "an integer of at least 1", _integer(self.hold, 1)),
            (
                "phases",
                "'average', or an integer from 0 to hold - 1",
                phase == "average" or (_integer(phase, 0) and _integer(self.hold, phase + 1)),
            ),
            *(
                (name, "above 0, or None", value is None or _within(value, 0.0, math.inf))
                for name, value in (
                    ("max_weight", self.max_weight),
                    ("max_turnover", self.max_turnover),
                )
            ),
            ("lag", "an integer of at least 0", _integer(self.lag, 0)),
            (
                "price",
                "'close' or 'auto' with lag=0: the open is over when there is a score",
                self.lag != 0 or self.price != "open",
            ),
            (
                "cost_bps",
                f"from 0 to below {most:g}",
                _number(self.cost_bps) and 0 <= self.cost_bps < most,
            ),
            (
                "borrow_bps_per_year",
                "at least 0",
                _number(self.borrow_bps_per_year) and self.borrow_bps_per_year >= 0,
            ),
            (
                "delisting_return",
                "a number from -1 on",
                _number(self.delisting_return) and self.delisting_return >= -1,
            ),
        ]

    @classmethod
    def published(cls, **changes: Any) -> Strategy:
        """Return the protocol of the literature on TIPS, with its optimism.

        The five best, weighted by the softmax of their scores, held for five days in five phases;
        executed at the close that made the score, without costs. Metrics are computed for each
        phase and averaged: arithmetic annual return, Sharpe ratio with the population's standard
        deviation, drawdown of the sum of returns.

        .. warning::
           This is for comparison with published numbers. No one could have traded it.

        Parameters
        ----------
        **changes
            Parameters of `Strategy` that shall differ.
        """
        preset: dict[str, Any] = {
            "k": 5,
            "weighting": "softmax",
            "hold": 5,
            "lag": 0,
            "price": "close",
            "cost_bps": 0.0,
            "borrow_bps_per_year": 0.0,
            "conventions": "published",
        }
        return cls(**(preset | changes))


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _within(value: Any, low: float, high: float) -> bool:
    return _number(value) and low < value <= high


def _integer(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
