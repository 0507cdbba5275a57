"""What a strategy wants to hold, and in which rows it trades."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from scikd.exceptions import InvalidInputError

from .panel import Panel
from .strategy import Strategy

__all__ = ["Orders", "Signals", "plan"]

Value = TypeVar("Value")
NAMED = 3


def frozen(array: np.ndarray) -> np.ndarray:
    """Return a read-only view in order of rows: one type of array, for which kernels compile."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Signals:
    """Scores that were checked against their panel, and what was computed from them."""

    scores: np.ndarray
    panel: Panel
    eligible: np.ndarray = field(init=False)
    _shared: dict[Any, Any] = field(init=False, default_factory=dict)
    _widest: dict[Any, tuple[np.ndarray, np.ndarray]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", _checked_scores(self.scores, self.panel))
        object.__setattr__(self, "eligible", _checked_counts(self.scores, self.panel))

    def once(self, key: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        """Return what was made for this key, or make it: several strategies may need it."""
        if key not in self._shared:
            self._shared[key] = make()
        found: Value = self._shared[key]
        return found

    def choose(
        self, key: tuple[Any, ...], rows: np.ndarray, sizes: np.ndarray, lowest: bool
    ) -> np.ndarray:
        """Return the best assets of rows, or the worst, out of a wider choice if one was made."""
        from .kernels.selection import narrow_rows, select_rows  # noqa: PLC0415 - compiles

        if (lowest, key) in self._widest:
            larger, wider = self._widest[lowest, key]
            if (sizes <= larger).all():
                return narrow_rows(self.scores, rows, wider, sizes, lowest)
        chosen = select_rows(self.scores, frozen(self.panel.member), rows, sizes, lowest)
        self._widest[lowest, key] = sizes, chosen
        return chosen


@dataclass(frozen=True, eq=False)
class Orders:
    """The targets of a strategy, row by row.

    Parameters
    ----------
    rows, sleeves : numpy.ndarray of shape (n_renewals,)
        Row of the execution, and the sleeve that is renewed.
    names, weights : numpy.ndarray of shape (n_renewals, width)
        The target; name -1 stands for none.
    n_sleeves : int
        How many sleeves there are.
    span : tuple of two int
        First row of the result, and the one after its last.
    price : numpy.ndarray of shape (n_dates, n_assets)
        At which orders are executed.
    at_open : bool
        Whether these are opens.
    """

    rows: np.ndarray
    sleeves: np.ndarray
    names: np.ndarray
    weights: np.ndarray
    n_sleeves: int
    span: tuple[int, int]
    price: np.ndarray
    at_open: bool


def plan(signals: Signals, strategy: Strategy) -> Orders:
    """Work out the targets of a strategy."""
    panel = signals.panel
    price, at_open = _prices(panel, strategy)
    rows = np.flatnonzero(signals.eligible)
    first = int(rows[0])
    alone = strategy.phases != "average"
    if alone:
        rows = rows[(rows - first) % strategy.hold == strategy.phases]
    rows = rows[rows + strategy.lag < panel.n_dates]
    start = int(rows[0]) + strategy.lag if len(rows) else panel.n_dates
    stop = min(panel.n_dates, int(rows[-1]) + strategy.lag + strategy.hold + 1) if len(rows) else 0
    if stop - start < 2:
        message = (
            f"Expected scores on a date with at least {strategy.lag + 1} later ones to trade and "
            f"earn a return on; the first scores are of {panel.dates[first]}, and the panel ends "
            f"on {panel.dates[-1]}."
        )
        raise InvalidInputError(message)
    key = (len(rows), strategy.hold if alone else 0, strategy.phases, strategy.lag)
    names, weights = _targets(signals, strategy, rows, key)
    sleeves = np.zeros(len(rows), np.int64) if alone else (rows - first) % strategy.hold
    n_sleeves = 1 if alone else strategy.hold
    rows = rows + strategy.lag
    return Orders(rows, sleeves, names, weights, n_sleeves, (start, stop), price, at_open)


def _prices(panel: Panel, strategy: Strategy) -> tuple[np.ndarray, bool]:
    """Return the prices of execution, and whether they are opens."""
    wanted = strategy.price
    if wanted == "auto":
        wanted = "close" if panel.open is None or strategy.lag == 0 else "open"
    if wanted == "close":
        return panel.close, False
    if panel.open is None:
        raise InvalidInputError("price='open' needs opens, and the panel has none. Use 'close'.")
    return panel.open, True


# -- checks --------------------------------------------------------------------------------------


def _checked_scores(scores: Any, panel: Panel) -> np.ndarray:
    if not isinstance(scores, np.ndarray):
        from .readers import align_scores  # noqa: PLC0415 - an array needs no pandas

        return frozen(align_scores(scores, panel))
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"Expected scores as numbers; got {scores.dtype} ({error})."
        raise InvalidInputError(message) from error
    if array.shape != panel.close.shape:
        message = (
            f"Expected scores of shape {panel.close.shape}, one for each date and asset of the "
            f"panel; got {array.shape}."
        )
        raise InvalidInputError(message)
    # A copy, because what a result says of its scores later has to be of those that were traded.
    return frozen(array.copy() if array.flags.writeable and array is scores else array)


def _checked_counts(scores: np.ndarray, panel: Panel) -> np.ndarray:
    """Return the number of members with a score, of each row."""
    from .kernels.selection import count_scores  # noqa: PLC0415 - compiles on first use

    eligible, given, n_infinite = count_scores(scores, frozen(panel.member))
    if n_infinite:
        rows = np.flatnonzero(np.isinf(scores).any(axis=1))
        message = (
            f"{n_infinite} scores are infinite, first on {_some(panel, rows)}. "
            "Use NaN where there is no score."
        )
        raise InvalidInputError(message)
    if not given.any():
        raise InvalidInputError("All scores are NaN: there is nothing to trade.")
    empty = np.flatnonzero((given > 0) & (eligible == 0))
    if len(empty):
        n_dates = "1 date" if len(empty) == 1 else f"{len(empty)} dates"
        message = (
            f"There are scores, but none of a member of the universe, on {n_dates}: "
            f"{_some(panel, empty)}. Check the members, or set these scores to NaN (in a command "
            "--unknown drop)."
        )
        raise InvalidInputError(message)
    return eligible


def _some(panel: Panel, rows: np.ndarray) -> str:
    more = ", ..." if len(rows) > NAMED else ""
    return ", ".join(str(date) for date in panel.dates[rows[:NAMED]]) + more


# -- targets -------------------------------------------------------------------------------------


def _targets(
    signals: Signals,
    strategy: Strategy,
    rows: np.ndarray,
    key: tuple[Any, ...],
) -> tuple[np.ndarray, np.ndarray]:
    cap = float(strategy.max_weight or np.inf)
    if strategy.select == "weights":
        given = ("given", key, strategy.gross, cap)
        return signals.once(given, lambda: _given(signals, rows, strategy.gross, cap))
    softmax = float(strategy.temperature) if strategy.weighting == "softmax" else np.inf
    sizes, wanted = _sizes(strategy, signals.eligible[rows])
    legs = 2 if strategy.select == "long_short" else 1
    by_share = _by_share(strategy)
    choice = (key, legs, by_share, strategy.quantile if by_share else strategy.k)

    def leg(lowest: bool) -> tuple[np.ndarray, np.ndarray]:
        from .kernels.weighting import weigh  # noqa: PLC0415 - compiles on first use

        chosen = signals.once(
            ("chosen", lowest, *choice),
            lambda: signals.choose(key, rows, np.maximum(sizes, 1), lowest),
        )
        scores = frozen(-signals.scores) if lowest and softmax < np.inf else signals.scores
        share = strategy.gross / legs
        return chosen, weigh(scores, rows, chosen, sizes, wanted, share, softmax, cap)

    def both() -> tuple[np.ndarray, np.ndarray]:
        names, weights = leg(lowest=False)
        if legs == 1:
            return names, weights
        shorts, their = leg(lowest=True)
        return np.hstack([names, shorts]), np.hstack([weights, -their])

    return signals.once(("targets", choice, softmax, strategy.gross, cap), both)


def _sizes(strategy: Strategy, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many assets a leg has in each row, and how many it would have with enough."""
    wanted = np.full(len(eligible), strategy.k)
    if _by_share(strategy):
        # 0.29 of 100 are 29, though 0.29 * 100 is below.
        share = np.floor(float(strategy.quantile or 0.0) * eligible + 1e-9)
        wanted = np.maximum(share.astype(np.int64), 1)
    most = eligible // 2 if strategy.select == "long_short" else eligible
    return np.minimum(wanted, most), wanted


def _by_share(strategy: Strategy) -> bool:
    return strategy.quantile is not None and strategy.select != "top_k"


def _given(
    signals: Signals, rows: np.ndarray, gross: float, cap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights that the user gave, without those that are 0 or of no member."""
    given = np.where(signals.panel.member[rows], np.nan_to_num(signals.scores[rows]), 0.0) * gross
    row, column = np.nonzero(given)
    counts = np.bincount(row, minlength=len(rows))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    names = np.full((len(rows), max(int(counts.max()), 1)), -1, np.int32)
    weights = np.zeros(names.shape)
    names[row, place] = column
    weights[row, place] = np.clip(given[row, column], -cap, cap)
    return names, weights
