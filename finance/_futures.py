"""Other futures for a panel: what came after a date, made up anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .panel import Panel

__all__ = ["FUTURES", "other_future"]

SPREAD = 1.0  # standard deviation of the logarithm of the factors: prices change about threefold


def other_future(panel: Panel, row: int, kind: str, seed: int) -> Panel:
    """Return the panel with other values after a row; up to it nothing changes.

    Parameters
    ----------
    panel : Panel
        As it was.
    row : int
        The last date that stays.
    kind : str
        One of `FUTURES`.
    seed : int
        Of what is made up.
    """
    fields = {name: values.copy() for name, values in panel.fields.items()}
    after = {name: values[row + 1 :] for name, values in fields.items()}
    before = _there(after)
    FUTURES[kind](after, np.random.default_rng([seed, row]))
    member = panel.member.copy()
    member[row + 1 :] &= ~(before & ~_there(after))
    return Panel(panel.dates, panel.assets, fields, member, panel.name)


def _scrambled(fields: dict[str, np.ndarray], random: np.random.Generator) -> None:
    """Shuffle the days of each asset, and turn each day's prices and volume up or down."""
    there = _there(fields)
    for n in range(there.shape[1]):
        days = np.flatnonzero(there[:, n])
        shuffled = random.permutation(days)
        for values in fields.values():
            values[days, n] = values[shuffled, n]
    _multiply(fields, random.lognormal(0.0, SPREAD, there.shape))
    if "volume" in fields:  # of a single day there is nothing to shuffle
        fields["volume"] *= random.lognormal(0.0, SPREAD, there.shape)


def _scaled(fields: dict[str, np.ndarray], random: np.random.Generator) -> None:
    """Multiply the prices of each asset, and its volumes, by a number."""
    n_assets = fields["close"].shape[1]
    _multiply(fields, random.lognormal(0.0, SPREAD, (1, n_assets)))
    if "volume" in fields:
        fields["volume"] *= random.lognormal(0.0, SPREAD, (1, n_assets))


def _delisted(fields: dict[str, np.ndarray], random: np.random.Generator) -> None:
    """Let half of the assets vanish."""
    n_assets = fields["close"].shape[1]
    gone = random.permutation(n_assets)[: n_assets // 2]
    for values in fields.values():
        values[:, gone] = np.nan


def _there(fields: dict[str, np.ndarray]) -> np.ndarray:
    """Tell where there is any value."""
    found: np.ndarray = ~np.isnan(np.stack(list(fields.values()))).all(axis=0)
    return found


def _multiply(fields: dict[str, np.ndarray], factors: np.ndarray) -> None:
    """Multiply all prices of a day by one number, so that high stays above low."""
    for name in fields.keys() - {"volume"}:
        fields[name] *= factors


FUTURES: dict[str, Callable[[dict[str, np.ndarray], np.random.Generator], None]] = {
    "scrambled": _scrambled,
    "scaled": _scaled,
    "delisted": _delisted,
}
