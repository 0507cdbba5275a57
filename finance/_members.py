"""Who is in the universe when, from intervals or flags."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scikd.exceptions import InvalidInputError

from ._tables import ALIASES, asset_names, day_numbers, plain_name

__all__ = ["intervals", "member_mask"]

BOUNDS = {
    "asset": ALIASES["asset"],
    "start": ("start", "start_date", "from", "date_in", "added"),
    "end": ("end", "end_date", "to", "date_out", "removed"),
}


def member_mask(members: Any, dates: np.ndarray, assets: tuple[str, ...]) -> np.ndarray:
    """Return a mask of dates x assets, as `Panel.with_members` describes."""
    if not isinstance(members, pd.DataFrame):
        return _mask(members, (len(dates), len(assets)))
    if any(plain_name(column) in BOUNDS["start"] for column in members.columns):
        return _of_intervals(intervals(members), dates, assets)
    return _of_flags(members, dates, assets)


def _mask(members: Any, shape: tuple[int, int]) -> np.ndarray:
    try:
        mask = np.asarray(members)
    except ValueError:  # lists of unequal length
        mask = np.empty(0, dtype=object)
    if mask.dtype != bool or mask.shape != shape:
        message = (
            f"Expected members as a mask of bool and shape {shape}, a pandas DataFrame of such "
            "flags, or one of intervals, which read_members reads from a file; got a "
            f"{type(members).__name__} of {mask.dtype} and shape {mask.shape}."
        )
        raise InvalidInputError(message)
    return mask


def intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return intervals with the columns asset, start and end; no end is NaT."""
    found = {}
    for role, aliases in BOUNDS.items():
        names = [column for column in frame.columns if plain_name(column) in aliases]
        if len(names) != 1:
            message = (
                f"Expected one column for the {role} of an interval ({', '.join(aliases)}); "
                f"got {list(map(str, frame.columns))}."
            )
            raise InvalidInputError(message)
        found[role] = frame[names[0]]
    ends = found["end"].isna().to_numpy()
    end = np.full(len(frame), np.datetime64("NaT"), dtype="datetime64[D]")
    end[~ends] = day_numbers(found["end"][~ends], "ends of intervals")
    start = day_numbers(found["start"], "starts of intervals")
    backwards = np.flatnonzero(end < start)
    if len(backwards):
        row = backwards[0]
        message = (
            f"Expected intervals that end after their start; row {row} runs from {start[row]} to "
            f"{end[row]}, and {len(backwards)} in all do so."
        )
        raise InvalidInputError(message)
    return pd.DataFrame(
        {
            "asset": asset_names(found["asset"]),
            "start": start.astype("datetime64[s]"),
            "end": end.astype("datetime64[s]"),
        }
    )


def _of_intervals(table: pd.DataFrame, dates: np.ndarray, assets: tuple[str, ...]) -> np.ndarray:
    columns = pd.Index(assets).get_indexer(table["asset"])
    known = columns >= 0
    if not known.any():
        _refuse_strangers(table["asset"].tolist(), assets)
    start = np.searchsorted(dates, table["start"].to_numpy().astype("datetime64[D]"))
    end = table["end"].to_numpy().astype("datetime64[D]")
    stop = np.where(np.isnat(end), len(dates), np.searchsorted(dates, end))
    # One step up where an interval starts and one down where it ends: the sum is above 0 within.
    steps = np.zeros((len(dates) + 1, len(assets)), dtype=np.int64)
    np.add.at(steps, (start[known], columns[known]), 1)
    np.add.at(steps, (stop[known], columns[known]), -1)
    return np.asarray(np.cumsum(steps[:-1], axis=0) > 0)


def _of_flags(frame: pd.DataFrame, dates: np.ndarray, assets: tuple[str, ...]) -> np.ndarray:
    columns = pd.Index(asset_names(frame.columns.to_series()))
    if not set(columns) & set(assets):
        _refuse_strangers(list(columns), assets)
    flags = frame.set_axis(columns, axis=1).set_axis(
        pd.DatetimeIndex(day_numbers(frame.index.to_series(), "rows of members")), axis=0
    )
    if not flags.index.is_unique or not flags.columns.is_unique:
        raise InvalidInputError("Expected each date and asset once among the members.")
    if not flags.isin([0, 1]).all(axis=None):
        raise InvalidInputError("Expected flags of members that are True or False, or 0 or 1.")
    days = pd.DatetimeIndex(dates)
    aligned = flags.astype(bool).reindex(index=days, columns=list(assets), fill_value=False)
    return np.asarray(aligned.to_numpy(dtype=bool))


def _refuse_strangers(names: list[str], assets: tuple[str, ...]) -> None:
    message = (
        f"The universe shares no asset with the panel: it has {names[:3]} and others, the panel "
        f"{list(assets[:3])}. Are they named in the same way?"
    )
    raise InvalidInputError(message)
