"""How commands read prices."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scikd.exceptions import InvalidInputError

from .panel import Panel
from .readers import read_members, read_panel

__all__ = ["MarketOptions", "day_of", "kept_assets", "read_market"]


@dataclass(frozen=True, kw_only=True)
class MarketOptions:
    """What is said of prices beside their file; each field says what it is for."""

    members: Path | None = field(
        default=None,
        metadata={"help": "File with columns asset, start and end: when it was in the universe."},
    )
    exclude: tuple[str, ...] = field(
        default=(), metadata={"help": "An asset to leave out, such as one with wrong prices."}
    )
    missing_zero: bool = field(
        default=False, metadata={"help": "Prices of 0 stand for missing ones."}
    )
    returns: str | None = field(
        default=None,
        metadata={"help": "Column of returns to rebuild prices from, where these are no good."},
    )
    returns_unit: Literal["percent", "fraction"] | None = field(
        default=None, metadata={"help": "Unit of that column."}
    )


def read_market(path: Path, options: MarketOptions) -> Panel:
    """Read prices and members; what is excluded is still in."""
    given: dict[str, Any] = {"missing_zero": True} if options.missing_zero else {}
    if options.returns is not None:
        given |= {"returns": options.returns, "returns_unit": options.returns_unit}
    panel = read_panel(path, **given)
    return panel if options.members is None else panel.with_members(read_members(options.members))


def kept_assets(panel: Panel, options: MarketOptions) -> np.ndarray:
    """Return the numbers of the assets that are not excluded."""
    strange = sorted(set(options.exclude) - set(panel.assets))
    if strange:
        raise InvalidInputError(f"Expected assets of the prices to leave out; got {strange}.")
    kept = np.flatnonzero(~np.isin(panel.assets, options.exclude))
    if len(kept) == 0:
        raise InvalidInputError(f"All {panel.n_assets} assets are left out.")
    return kept


def day_of(text: str, name: str) -> np.datetime64:
    """Return a date, or say how it is written."""
    try:
        return np.datetime64(date.fromisoformat(text), "D")
    except ValueError as error:
        message = f"Expected {name} as yyyy-mm-dd; got {text!r}."
        raise InvalidInputError(message) from error
