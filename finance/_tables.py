"""Tables of prices, long or wide, as arrays of dates x assets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scikd.exceptions import InvalidInputError

__all__ = [
    "ALIASES",
    "Table",
    "asset_names",
    "counted",
    "day_numbers",
    "find_column",
    "long_table",
    "plain_name",
    "price_columns",
    "some",
    "wide_table",
]

ALIASES = {
    "date": ("date", "datetime", "timestamp", "time", "day", "trade_date", "trading_date"),
    "asset": ("asset", "ticker", "symbol", "code", "instrument", "sid", "permno", "stock"),
    "open": ("open", "open_price"),
    "high": ("high", "high_price"),
    "low": ("low", "low_price"),
    "close": ("close", "price", "close_price", "last", "px_last", "prc"),
    "adj_close": ("adj_close", "adjclose", "adjusted_close", "close_adj", "adjusted", "adj"),
    "volume": ("volume", "vol"),
}
DATE = r"^(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})(?:[T ].*)?$"
READ = ("open", "high", "low", "close", "adj_close", "volume")


@dataclass(frozen=True)
class Table:
    """Values of dates x assets as they stand in a table, not checked yet.

    Parameters
    ----------
    dates : ndarray of datetime64[D] and shape (n_dates,)
        Strictly increasing.
    assets : tuple of str
        Sorted.
    arrays : dict of str to ndarray of shape (n_dates, n_assets)
        By what they are: fields, ``"adj_close"``, ``"returns"``, ... NaN where the table has none.
    present : ndarray of bool and shape (n_dates, n_assets)
        Where the table has a row.
    place : callable
        Says where the value at (date, asset) stands, for messages.
    """

    dates: np.ndarray
    assets: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    present: np.ndarray
    place: Callable[[int, int], str]


def long_table(
    frame: Any,
    date: str,
    asset: str,
    wanted: Callable[[pd.DataFrame], dict[str, Any]],
    *,
    in_order: bool = False,
) -> Table:
    """Spread a frame with one row for each date and asset.

    ``wanted`` says for each key of the values which column holds them, and ``in_order`` whether the
    dates of each asset must increase.
    """
    if not isinstance(frame, pd.DataFrame):
        kind = type(frame).__name__
        raise InvalidInputError(f"Expected a pandas DataFrame with rows of dates; got a {kind}.")
    frame = _index_as_columns(frame, date, asset)
    if frame.empty:
        raise InvalidInputError("Expected a table with a row for each date; got one without rows.")
    names = {"date": find_column(frame, "date", date), "asset": find_column(frame, "asset", asset)}
    missing = [role for role, name in names.items() if name is None]
    if missing:
        message = (
            f"Found no column for {' and '.join(missing)} among {list(map(str, frame.columns))}. "
            "Call it so, or name it: date=..., asset=...."
        )
        raise InvalidInputError(message)
    days = day_numbers(frame[names["date"]], "rows")
    labels = asset_names(frame[names["asset"]])
    dates, row = np.unique(days, return_inverse=True)
    column, assets = pd.factorize(labels, sort=True)
    key = row * len(assets) + column
    _refuse_duplicates(key, days, labels)
    if in_order:
        _refuse_backwards(days, column, labels)
    shape = len(dates), len(assets)

    def spread(values: np.ndarray) -> np.ndarray:
        wide = np.full(shape[0] * shape[1], np.nan)
        wide[key] = values
        return wide.reshape(shape)

    def place(t: int, n: int) -> str:
        (found,) = np.nonzero(key == t * len(assets) + n)
        return f"row {found[0]}, {assets[n]!r} on {dates[t]}" if len(found) else ""

    columns = wanted(frame)
    values = {key: spread(_numbers(frame[name], key)) for key, name in columns.items()}
    present = np.zeros(shape[0] * shape[1], dtype=bool)
    present[key] = True
    return Table(dates, tuple(map(str, assets)), values, present.reshape(shape), place)


def price_columns(frame: pd.DataFrame, returns: str | None) -> dict[str, Any]:
    """Return the columns of prices, volumes and returns."""
    found = {field: find_column(frame, field, field) for field in READ}
    if returns is not None:
        found["returns"] = find_column(frame, "returns", returns)
    return {field: name for field, name in found.items() if name is not None}


def wide_table(frames: Mapping[str, Any]) -> Table:
    """Lay frames of dates x assets over one another; the first says what dates and assets are."""
    frames = _by_field(frames)
    main, first = next(iter(frames.items()))
    if first.empty:
        raise InvalidInputError(f"Expected dates x assets; {main} has the shape {first.shape}.")
    dates = day_numbers(first.index.to_series(), f"rows of {main}")
    assets = asset_names(first.columns.to_series())
    order = np.argsort(assets)
    values = {}
    for field, frame in frames.items():
        own_dates = day_numbers(frame.index.to_series(), f"rows of {field}")
        _refuse_unsorted(own_dates, field)
        own_assets = asset_names(frame.columns.to_series())
        repeated = sorted({str(name) for name in own_assets[pd.Series(own_assets).duplicated()]})
        if repeated:
            message = f"Expected one column for each asset; {field} repeats {some(repeated)}."
            raise InvalidInputError(message)
        further = sorted(set(own_assets) - set(assets))
        late = own_dates[~np.isin(own_dates, dates)]
        if further or len(late):
            found = counted({"dates": late, "assets": further}, "further ")
            message = (
                f"Expected {field} on the dates and assets of {main}; it has {found}. Leave them "
                f"out, or add them to {main}."
            )
            raise InvalidInputError(message)
        wide = np.full(first.shape, np.nan)
        columns = pd.Index(assets).get_indexer(own_assets)
        numbers = [_numbers(frame.iloc[:, i], field) for i in range(frame.shape[1])]
        wide[np.ix_(np.searchsorted(dates, own_dates), columns)] = np.column_stack(numbers)
        values[field] = wide[:, order]
    names = tuple(map(str, assets[order]))
    return Table(
        dates, names, values, ~np.isnan(values[main]), lambda t, n: f"{names[n]!r} on {dates[t]}"
    )


def day_numbers(dates: Any, where: str) -> np.ndarray:
    """Return dates of any usual kind as datetime64[D]; the clock and the time zone are dropped.

    Text and whole numbers begin with year, month and day: of 01/02/2020 nobody knows what is meant.
    """
    series = pd.Series(dates)
    if pd.api.types.is_datetime64_any_dtype(series):
        local = series.dt.tz_localize(None)
        days = local.to_numpy().astype("datetime64[D]")
    else:
        code, distinct = pd.factorize(series)
        parts = pd.Series(distinct).astype(str).str.extract(DATE)
        wrong = parts[0].isna().to_numpy()
        if wrong.any():
            given = distinct[np.flatnonzero(wrong)[0]]
            message = f"Expected dates such as 2015-01-12 or 20150112 in the {where}; got {given!r}"
            raise InvalidInputError(f"{message}.")
        try:
            text = parts[0] + "-" + parts[1] + "-" + parts[2]
            days = np.append(text.to_numpy(dtype="datetime64[D]"), np.datetime64("NaT"))[code]
        except ValueError as error:
            message = f"Expected dates such as 2015-01-12 in the {where}: {error}"
            raise InvalidInputError(message) from error
    empty = np.flatnonzero(np.isnat(days))
    if len(empty):
        message = f"Expected a date in each of the {where}; {len(empty)} have none ({some(empty)})."
        raise InvalidInputError(message)
    return np.asarray(days)


def asset_names(labels: Any) -> np.ndarray:
    """Return names of assets as an array of text."""
    series = pd.Series(labels)
    empty = np.flatnonzero((series.isna() | (series == "")).to_numpy())
    if len(empty):
        raise InvalidInputError(
            f"Expected the name of an asset in each row; {len(empty)} have none, "
            f"such as row {empty[0]}."
        )
    return np.asarray(series.astype(str).to_numpy(), dtype=object)


def _index_as_columns(frame: pd.DataFrame, date: str, asset: str) -> pd.DataFrame:
    """Turn an index that holds dates or assets into columns."""
    if isinstance(frame.index, pd.MultiIndex):
        if frame.index.nlevels != 2:
            message = f"Expected an index of (date, asset); got {frame.index.nlevels} levels."
            raise InvalidInputError(message)
        named = [plain_name(name) for name in frame.index.names]
        swapped = named[0] in ALIASES["asset"] or named[1] in ALIASES["date"]
        names = [asset, date] if swapped else [date, asset]
        return frame.set_axis(frame.index.set_names(names), axis=0).reset_index()
    if find_column(frame, "date", date) is None and isinstance(frame.index, pd.DatetimeIndex):
        return frame.set_axis(frame.index.rename(date), axis=0).reset_index()
    return frame


def plain_name(name: Any) -> str:
    """Return the name of a column as the aliases spell it."""
    plain = str(name).strip().lower()
    return "".join("_" if letter in " -." else letter for letter in plain)


def find_column(frame: pd.DataFrame, role: str, given: str) -> Any:
    """Return the name of the column for a role, or None."""
    if given in frame.columns:
        return given
    if given != role or role not in ALIASES:  # asked for by name
        message = f"Found no column {given!r} among {list(map(str, frame.columns))}."
        raise InvalidInputError(message)
    for alias in ALIASES[role]:
        found = [name for name in frame.columns if plain_name(name) == alias]
        if len(found) > 1:
            message = f"Columns {found} can all be the {role}. Rename or drop all but one."
            raise InvalidInputError(message)
        if found:
            return found[0]
    return None


def _numbers(column: pd.Series, field: str) -> np.ndarray:
    try:
        return np.asarray(pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"Expected numbers in {field}: {error}") from error


def _by_field(frames: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Check frames, and take one with columns (field, asset) apart."""
    given = {field: frame for field, frame in frames.items() if frame is not None}
    for field, frame in given.items():
        if not isinstance(frame, pd.DataFrame):
            message = (
                f"Expected {field} as a pandas DataFrame of dates x assets; "
                f"got a {type(frame).__name__}."
            )
            raise InvalidInputError(message)
    main, close = next(iter(given.items()))
    if not isinstance(close.columns, pd.MultiIndex):
        return given
    roles = {alias: role for role in READ for alias in ALIASES[role]}
    for level in range(close.columns.nlevels):
        names = close.columns.unique(level)
        known = {roles.get(plain_name(name)): name for name in names}
        if close.columns.nlevels == 2 and known.keys() & {"close", "adj_close"}:
            order = [role for role in ("close", *READ) if role in known]
            taken = {role: close.xs(known[role], axis=1, level=level) for role in order}
            return taken | {field: frame for field, frame in given.items() if field != main}
    message = (
        "Expected columns of (field, asset) with a field 'close'; got "
        f"{[tuple(map(str, name)) for name in close.columns[:3]]}."
    )
    raise InvalidInputError(message)


def _refuse_duplicates(key: np.ndarray, days: np.ndarray, labels: np.ndarray) -> None:
    again = pd.Series(key).duplicated().to_numpy()
    if again.any():
        rows = np.flatnonzero(again)
        examples = [f"{labels[row]!r} on {days[row]} (row {row})" for row in rows[:3]]
        message = (
            f"Expected one row for each date and asset; {len(rows)} rows repeat one, such as "
            f"{', '.join(examples)}. Keep one of each, or pass daily data."
        )
        raise InvalidInputError(message)


def _refuse_backwards(days: np.ndarray, column: np.ndarray, labels: np.ndarray) -> None:
    """Raise unless dates increase from row to row of each asset."""
    rows = np.argsort(column, kind="stable")  # one asset after the other, each as it stands
    early = (np.diff(days[rows]) < np.timedelta64(0, "D")) & (np.diff(column[rows]) == 0)
    if early.any():
        at = np.flatnonzero(early)
        first = at[np.argmin(rows[at + 1])]
        before, row = rows[first], rows[first + 1]
        message = (
            f"Expected dates that increase from row to row of an asset; of {labels[row]!r} row "
            f"{row} ({days[row]}) follows row {before} ({days[before]}), and {len(at)} rows in all "
            "are out of order. Sort the rows by date."
        )
        raise InvalidInputError(message)


def _refuse_unsorted(dates: np.ndarray, field: str) -> None:
    steps = np.flatnonzero(np.diff(dates) <= np.timedelta64(0, "D"))
    if len(steps):
        at = steps[0]
        message = (
            f"Expected dates that increase from row to row; in {field} row {at + 1} "
            f"({dates[at + 1]}) follows {dates[at]}, and {len(steps)} rows in all are out of "
            "order or repeated. Sort the rows (frame.sort_index()) and keep one of each date."
        )
        raise InvalidInputError(message)


def some(items: Sequence[Any] | np.ndarray) -> str:
    """Name the first few of many."""
    shown = ", ".join(str(item) for item in items[:3])
    return f"{shown}, ..." if len(items) > 3 else shown


def counted(found: Mapping[str, Sequence[Any] | np.ndarray], of: str) -> str:
    """Count and name what there is of each kind; what there is not is not spoken of."""
    said = [
        f"{len(items)} {of}{what} ({some(items)})" for what, items in found.items() if len(items)
    ]
    return ", and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]
