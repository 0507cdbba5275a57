"""Daily prices of many assets: an immutable type of arrays, made from and to pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import load_bundle, save_bundle

from ._days import as_day

__all__ = ["FIELDS", "Panel"]

FIELDS = ("open", "high", "low", "close", "volume")
KIND = "scikd.finance.panel"


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """Daily prices of assets, and who is in the universe when.

    Row t is a date, column n an asset. What stands in row t is known after the close of date t and
    not before; a score made from rows up to t can be traded at the open of t + 1 at the earliest.

    Parameters
    ----------
    dates : numpy.ndarray of shape (n_dates,)
        Trading days, strictly increasing; kept as datetime64[D].
    assets : sequence of str
        Distinct and sorted; kept as a tuple.
    fields : mapping of str to numpy.ndarray of shape (n_dates, n_assets)
        Any of `FIELDS`, and ``"close"`` always. Prices are above 0, in one currency for each asset,
        and adjusted by factors for splits (and dividends, where the returns shall hold them);
        volumes are at least 0. NaN stands for a missing value. Kept as read-only float64.
    member : numpy.ndarray of bool and shape (n_dates, n_assets) or None, default=None
        Whether the asset is in the universe on that date, as was known on that date. None takes
        the assets that have a close then. A member may lack a price.
    name : str, default=""
        What to call the data.

    Raises
    ------
    InvalidInputError
        If shapes do not fit, dates do not increase, assets repeat, or a value is infinite, a price
        not above 0, or a volume negative. The message names assets and dates.

    Notes
    -----
    .. warning::
       A list of assets made today holds the survivors. Without a mask of members at each date
       (`with_members`) a backtest buys what later turned out to be worth listing.
    """

    dates: np.ndarray
    assets: tuple[str, ...]
    fields: Mapping[str, np.ndarray]
    member: np.ndarray = None  # type: ignore[assignment] # an array after __post_init__
    name: str = ""

    def __post_init__(self) -> None:
        # A frozen dataclass has no other way to keep what it has converted.
        object.__setattr__(self, "dates", _frozen(self.dates, "datetime64[D]", "dates"))
        object.__setattr__(self, "assets", tuple(self.assets))
        fields = {
            field: _frozen(self.fields[field], np.float64, field)
            for field in sorted(self.fields, key=_place)
        }
        object.__setattr__(self, "fields", MappingProxyType(fields))
        _check_axes(self)
        _check_fields(self)
        member = ~np.isnan(self.close) if self.member is None else self.member
        object.__setattr__(self, "member", _checked_member(member, self.close.shape))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be sent to another process.
        return Panel, (self.dates, self.assets, dict(self.fields), self.member, self.name)

    @property
    def n_dates(self) -> int:
        """Number of dates."""
        return len(self.dates)

    @property
    def n_assets(self) -> int:
        """Number of assets."""
        return len(self.assets)

    @property
    def close(self) -> np.ndarray:
        """Closing prices, of shape (n_dates, n_assets)."""
        return self.fields["close"]

    @property
    def open(self) -> np.ndarray | None:
        """Opening prices, of shape (n_dates, n_assets), or None if there are none."""
        return self.fields.get("open")

    @classmethod
    def from_long(
        cls,
        frame: Any,
        *,
        date: str = "date",
        asset: str = "asset",
        adjusted: bool | Literal["auto"] = "auto",
        returns: str | None = None,
        returns_unit: Literal["percent", "fraction"] | None = None,
        missing_zero: bool = False,
        members: Any = None,
        name: str = "",
    ) -> Panel:
        """Take a frame with one row for each date and asset, sorted by date.

        Within an asset dates must increase; whether the frame goes through it asset by asset or
        date by date is all the same. Rows that were mixed up may have been so with their values.

        Parameters
        ----------
        frame : pandas.DataFrame
            Columns of date, asset and `FIELDS` under their usual names, in any case (``ticker`` or
            ``symbol`` for the asset, ``price`` for the close, ...); others are left out. Date and
            asset may also be the two levels of the index.
        date, asset : str, default="date", "asset"
            Names of these columns, where they are not the usual ones.
        adjusted : bool or "auto", default="auto"
            Whether to scale open, high, low and close by ``adj_close / close``. "auto" does so
            where the frame has a column of adjusted closes; True requires it; False keeps the
            prices as traded. A frame of adjusted closes only is taken as it is. Where there is a
            close, there must be an adjusted one to scale by.
        returns : str or None, default=None
            Column of daily returns to make the close from, for series whose prices cannot be used
            (adjusted by subtraction). It becomes an index that starts at 100 where an asset has its
            first row; open, high and low are left out, since they are of another scale.
        returns_unit : {"percent", "fraction"} or None, default=None
            Unit of this column: a gain of 2.5 % is 2.5 or 0.025. Required with ``returns``.
        missing_zero : bool, default=False
            Whether a price of 0 stands for a missing one.
        members : object, default=None
            As `with_members` takes it. None: an asset is a member where it has a close.
        name : str, default=""
            What to call the data.

        Returns
        -------
        Panel
            With every date and asset of the frame.

        Raises
        ------
        InvalidInputError
            If a column is missing or ambiguous, (date, asset) repeats, dates of an asset do not
            increase, or a value cannot be used. The message names rows of the frame, assets and
            dates.

        Warns
        -----
        DoubtfulInputWarning
            If prices of a day contradict each other: a high below the low, an open or a close
            outside of both.
        """
        from ._tables import long_table, price_columns  # noqa: PLC0415 - only this needs pandas

        table = long_table(
            frame, date, asset, lambda columns: price_columns(columns, returns), in_order=True
        )
        return _of_table(table, adjusted, returns_unit, missing_zero, members, name)

    @classmethod
    def from_wide(
        cls,
        close: Any,
        *,
        open: Any = None,  # noqa: A002 - the name of the field
        high: Any = None,
        low: Any = None,
        volume: Any = None,
        adj_close: Any = None,
        adjusted: bool | Literal["auto"] = "auto",
        missing_zero: bool = False,
        members: Any = None,
        name: str = "",
    ) -> Panel:
        """Take frames with one row for each date and one column for each asset.

        Parameters
        ----------
        close : pandas.DataFrame
            Closing prices; dates in the index, increasing. Or all fields, with columns of
            (field, asset) or (asset, field).
        open, high, low, volume, adj_close : pandas.DataFrame or None, default=None
            The same of other fields, on dates and assets of ``close``; where they lack some, these
            are missing.
        adjusted, missing_zero, members, name
            As in `from_long`.

        Returns
        -------
        Panel
            With the dates and assets of ``close``.

        Raises
        ------
        InvalidInputError
            If dates do not increase, or as in `from_long`.
        """
        from ._tables import wide_table  # noqa: PLC0415 - only this needs pandas

        others = {"open": open, "high": high, "low": low, "volume": volume, "adj_close": adj_close}
        table = wide_table({"close": close, **others})
        return _of_table(table, adjusted, None, missing_zero, members, name)

    def with_members(self, members: Any) -> Panel:
        """Return the panel with another universe.

        Parameters
        ----------
        members : numpy.ndarray, pandas.DataFrame
            A mask of shape (n_dates, n_assets); or a wide frame of such flags, in which dates or
            assets that are not there count as not in the universe; or a frame of intervals with
            the columns asset (or ticker, ...), ``start`` and ``end`` (or ``start_date``, ...): an
            asset is in from its start up to but without its end, and for ever where there is no
            end. It may have several intervals; assets that the panel does not have are left out.

        Raises
        ------
        InvalidInputError
            If the shape is wrong, or the universe shares no asset with the panel.
        """
        from ._members import member_mask  # noqa: PLC0415 - only this needs pandas

        return replace(self, member=member_mask(members, self.dates, self.assets))

    def select(self, dates: Any = None, assets: Sequence[str] | None = None) -> Panel:
        """Return some dates and assets.

        Parameters
        ----------
        dates : slice or tuple or None, default=None
            A slice of row numbers; or the first and the last date, both included, either of which
            may be None.
        assets : sequence of str or None, default=None
            Which to keep; None keeps all.

        Raises
        ------
        InvalidInputError
            If nothing is left, or an asset is not there.
        """
        rows = self._rows(dates)
        columns = np.arange(self.n_assets)
        if assets is not None:
            unknown = sorted(set(assets) - set(self.assets))
            if unknown:
                message = f"This panel has no assets {unknown[:3]} ({len(unknown)} are unknown)."
                raise InvalidInputError(message)
            columns = np.flatnonzero(np.isin(self.assets, list(assets)))
        return Panel(
            self.dates[rows],
            tuple(self.assets[n] for n in columns),
            {field: values[rows][:, columns] for field, values in self.fields.items()},
            self.member[rows][:, columns],
            self.name,
        )

    def _rows(self, dates: Any) -> slice:
        if dates is None:
            return slice(None)
        if isinstance(dates, slice):
            return dates
        try:
            first, last = (None if day is None else as_day(day) for day in dates)
        except (TypeError, ValueError) as error:
            message = f"Expected dates as a slice of rows or (first, last); got {dates!r}."
            raise InvalidInputError(message) from error
        start = 0 if first is None else np.searchsorted(self.dates, first)
        stop = None if last is None else np.searchsorted(self.dates, last, side="right")
        return slice(start, stop)

    def returns(self) -> np.ndarray:
        """Return simple returns from one row to the next.

        Returns
        -------
        numpy.ndarray of shape (n_dates, n_assets)
            ``close[t] / close[t - 1] - 1``; NaN in row 0 and where either close is missing. No
            return spans a gap.
        """
        returns = np.full(self.close.shape, np.nan)
        np.divide(self.close[1:], self.close[:-1], out=returns[1:])
        returns -= 1
        return returns

    def to_long(self) -> Any:
        """Return a frame with a row for each date and asset that has any value.

        Returns
        -------
        pandas.DataFrame
            Columns ``date``, ``asset``, the fields and ``member``, sorted by date and asset;
            `from_long` takes the prices back.
        """
        import pandas as pd  # noqa: PLC0415 - only this needs pandas

        rows, columns = np.nonzero(np.any([~np.isnan(v) for v in self.fields.values()], axis=0))
        values = {field: array[rows, columns] for field, array in self.fields.items()}
        return pd.DataFrame(
            {
                "date": self.dates[rows].astype("datetime64[s]"),
                "asset": np.array(self.assets, dtype=object)[columns],
                **values,
                "member": self.member[rows, columns],
            }
        )

    def save(self, path: str | Path) -> Path:
        """Save as a bundle (`scikd.persistence`), which `load` reads."""
        return save_bundle(
            path,
            kind=KIND,
            parameters={"assets": self.assets, "name": self.name},
            arrays={
                "dates": self.dates.astype(np.int64),
                "member": self.member,
                **{f"field.{field}": values for field, values in self.fields.items()},
            },
            units={"dates": "days since 1970-01-01"},
        )

    @classmethod
    def load(cls, path: str | Path) -> Panel:
        """Load what `save` wrote.

        Raises
        ------
        StorageError
            If it is not there, or damaged.
        """
        bundle = load_bundle(path, kind=KIND)
        arrays = bundle.arrays
        try:
            fields = {
                key.removeprefix("field."): values
                for key, values in arrays.items()
                if key.startswith("field.")
            }
            dates = arrays["dates"].astype("datetime64[D]")
            assets = tuple(bundle.parameters["assets"])
            return cls(dates, assets, fields, arrays["member"], bundle.parameters["name"])
        except (KeyError, TypeError, InvalidInputError) as error:
            raise CorruptFileError(f"{path} holds no valid panel: {error}") from error

    def __repr__(self) -> str:
        known = ~np.isnan(self.close)
        begun = np.logical_or.accumulate(known, axis=0)
        alive = begun & np.logical_or.accumulate(known[::-1], axis=0)[::-1]
        label = f"{self.name!r}, " if self.name else ""
        return (
            f"Panel({label}{self.n_dates} dates from {self.dates[0]} to {self.dates[-1]}, "
            f"{self.n_assets} assets, fields {' '.join(self.fields)}, "
            f"{np.mean(~known):.1%} of closes missing ({np.sum(alive & ~known)} of them between "
            f"the first and last of an asset), {np.mean(self.member):.1%} in the universe)"
        )


def _place(field: Any) -> int:
    return FIELDS.index(field) if field in FIELDS else len(FIELDS)


def _frozen(values: Any, dtype: Any, name: str) -> np.ndarray:
    """Return a read-only array that nobody else can write to."""
    try:
        array = np.asarray(values, dtype=dtype, order="C")
    except (ValueError, TypeError) as error:
        message = f"Expected {name} as an array of {np.dtype(dtype)}: {error}"
        raise InvalidInputError(message) from error
    if not _locked(array):
        array = array.copy() if np.may_share_memory(array, values) else array
        array.flags.writeable = False
    return array


def _locked(array: np.ndarray) -> bool:
    """Tell whether neither the array nor what it is a view of can be written to."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    try:
        return owner is None or memoryview(owner).readonly
    except TypeError:  # nothing is known of it
        return False


def _checked_member(member: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(member)
    if array.dtype != bool or array.shape != shape:
        message = (
            f"Expected member as a mask of bool and shape {shape}; got {array.dtype} of shape "
            f"{array.shape}."
        )
        raise InvalidInputError(message)
    return _frozen(array, bool, "member")


def _check_axes(panel: Panel) -> None:
    dates, assets = panel.dates, panel.assets
    if dates.ndim != 1 or not len(dates) or not assets:
        message = f"Expected dates and assets; got dates {dates.shape} and {len(assets)} assets."
        raise InvalidInputError(message)
    if np.isnat(dates).any():
        raise InvalidInputError(f"Date {np.flatnonzero(np.isnat(dates))[0]} is missing (NaT).")
    late = np.flatnonzero(np.diff(dates) <= np.timedelta64(0, "D"))
    if len(late):
        message = (
            f"Expected dates that increase; row {late[0] + 1} ({dates[late[0] + 1]}) follows "
            f"{dates[late[0]]}."
        )
        raise InvalidInputError(message)
    wrong = [asset for asset in assets if not isinstance(asset, str)]
    if wrong:
        raise InvalidInputError(f"Expected names of assets as text; got {wrong[0]!r}.")
    if list(assets) != sorted(set(assets)):
        message = "Expected assets that are distinct and sorted; Panel.from_wide sorts them."
        raise InvalidInputError(message)


def _check_fields(panel: Panel) -> None:
    from ._prices import check_values  # noqa: PLC0415 - only arrays, but next to its tables

    shape = panel.n_dates, panel.n_assets
    unknown = [field for field in panel.fields if field not in FIELDS]
    if unknown or "close" not in panel.fields:
        message = (
            f"Expected fields among {' '.join(FIELDS)}, and close among them; got "
            f"{' '.join(map(str, panel.fields))}."
        )
        raise InvalidInputError(message)
    for field, values in panel.fields.items():
        if values.shape != shape:
            message = f"Expected {field} of shape {shape} (dates, assets); got {values.shape}."
            raise InvalidInputError(message)
    check_values(panel.fields, lambda t, n: f"{panel.assets[n]!r} on {panel.dates[t]}")


def _of_table(
    table: Any, adjusted: Any, returns_unit: Any, missing_zero: bool, members: Any, name: str
) -> Panel:
    """Check and adjust the values of a table."""
    from ._prices import (  # noqa: PLC0415 - as above
        adjust,
        check_returns,
        check_values,
        total_return_index,
        warn_of_contradictions,
    )

    values = dict(table.arrays)
    returns = values.pop("returns", None)
    if returns is not None:
        if "close" in values:
            check_returns(returns, values["close"], returns_unit)
        index = total_return_index(returns, table.present, returns_unit, table.place)
        values = {"volume": values["volume"]} if "volume" in values else {}
        values["close"] = index
    if not values.keys() & {"close", "adj_close"}:
        message = "Found no close among the columns (also sought: price, adj_close, ...)."
        raise InvalidInputError(message)
    if missing_zero:
        for field in values.keys() - {"volume"}:
            values[field] = np.where(values[field] == 0, np.nan, values[field])
    check_values(values, table.place)
    warn_of_contradictions(values, table.place)
    panel = Panel(
        table.dates, table.assets, adjust(values, adjusted, table.place, table.assets), name=name
    )
    return panel if members is None else panel.with_members(members)
