"""Files of prices, of members of a universe, and of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from scikd._atomic import storage_error
from scikd._extras import require
from scikd.exceptions import CorruptFileError, InvalidInputError

from ._members import intervals
from ._tables import ALIASES, Table, counted, find_column, long_table, plain_name, some, wide_table
from .panel import Panel

__all__ = ["align_scores", "read_members", "read_panel", "read_scores"]

PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".csv.gz", ".csv.zip", ".csv.bz2", ".csv.xz", ".csv.zst", ".tsv", ".txt")
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "<NA>", "-")
SEPARATORS = (";", "\t", "|", ",")
SCORES = ("score", "scores", "signal", "prediction", "pred", "y_pred", "alpha", "value")


def read_panel(path: str | Path, **options: Any) -> Panel:
    """Read daily prices.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV (also compressed) or parquet. With a column of assets (``asset``, ``ticker``,
        ``symbol``, ...) it is taken as long, as `Panel.from_long` describes; otherwise as wide:
        dates in the first column, and closes of one asset in each other. A ticker may be called
        ``CODE`` or ``STOCK``, too: numbers that come once a date, without a column of closes
        beside them, are prices.
    **options
        Of `Panel.from_long` or `Panel.from_wide`.

    Returns
    -------
    Panel
        Its ``name`` is that of the file, unless given.

    Raises
    ------
    StorageError
        If there is no such file, or it cannot be read.
    CorruptFileError
        If it is cut short or garbled.
    InvalidInputError
        If it does not hold daily prices that can be used; see `Panel.from_long`.
    """
    beside = (*ALIASES["close"], *ALIASES["adj_close"], options.get("returns"))
    frame, long = _read_table(Path(path), beside, options.get("asset"))
    options = {"name": _stem(path), **options}
    return Panel.from_long(frame, **options) if long else Panel.from_wide(frame, **options)


def read_members(path: str | Path) -> Any:
    """Read the intervals in which assets were in a universe.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV or parquet with columns of asset (``ticker``, ...), start (``start_date``, ...) and end,
        which is empty where the asset is still in.

    Returns
    -------
    pandas.DataFrame
        Columns ``asset``, ``start`` and ``end`` for `Panel.with_members`. The end is the first date
        on which it is not in.

    Raises
    ------
    StorageError, CorruptFileError
        As `read_panel`.
    InvalidInputError
        If a column is missing, or an interval ends before its start.
    """
    return intervals(_read(Path(path), _names_assets))


def read_scores(
    path: str | Path, panel: Panel, *, unknown: Literal["raise", "drop"] = "raise"
) -> np.ndarray:
    """Read scores, one for each asset and date, and lay them over a panel.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV or parquet, long (``date``, ``asset``, ``score``) or wide (dates x assets).
    panel : Panel
        Says dates and assets.
    unknown : {"raise", "drop"}, default="raise"
        As in `align_scores`.

    Returns
    -------
    numpy.ndarray of float64 and shape (n_dates, n_assets)
        NaN where there is no score.

    Raises
    ------
    StorageError, CorruptFileError
        As `read_panel`.
    InvalidInputError
        As `align_scores`.
    """
    return align_scores(_read_table(Path(path), SCORES)[0], panel, unknown=unknown)


def align_scores(
    scores: Any, panel: Panel, *, unknown: Literal["raise", "drop"] = "raise"
) -> np.ndarray:
    """Lay scores over the dates and assets of a panel.

    A score stands at the date after whose close it is known. Rows of a long table may stand in any
    order: each score says its date, and none is computed from the one before it, as returns are.

    Parameters
    ----------
    scores : numpy.ndarray, pandas.DataFrame or pandas.Series
        An array of shape (n_dates, n_assets); a wide frame; a series or frame whose index is
        (date, asset); or a long frame with columns of date, asset and score (or ``signal``,
        ``prediction``, ...).
    panel : Panel
        Says dates and assets.
    unknown : {"raise", "drop"}, default="raise"
        What to do with scores of assets or dates that the panel does not have.

    Returns
    -------
    numpy.ndarray of float64 and shape (n_dates, n_assets)
        NaN where there is no score.

    Raises
    ------
    InvalidInputError
        If assets or dates are not in the panel (the message counts them, and says how many are
        after the last price), a score is infinite or repeated, or there is none at all.
    """
    if unknown not in ("raise", "drop"):
        raise InvalidInputError(f"Expected unknown as 'raise' or 'drop'; got {unknown!r}.")
    shape = panel.n_dates, panel.n_assets
    if isinstance(scores, pd.Series):
        scores = scores.to_frame("score")
    if isinstance(scores, pd.DataFrame):
        aligned = _aligned(_score_table(scores), panel, unknown)
    else:
        try:
            aligned = np.array(scores, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"Expected scores as numbers: {error}") from error
        if aligned.shape != shape:
            message = f"Expected scores of shape {shape} (dates, assets); got {aligned.shape}."
            raise InvalidInputError(message)
    infinite = np.argwhere(np.isinf(aligned))
    if len(infinite):
        t, n = infinite[0]
        message = (
            f"Expected finite scores, or NaN for none; {len(infinite)} are infinite, such as that "
            f"of {panel.assets[n]!r} on {panel.dates[t]}."
        )
        raise InvalidInputError(message)
    if np.isnan(aligned).all():
        raise InvalidInputError("There is no score at all on the dates and assets of the panel.")
    return aligned


def _score_table(frame: pd.DataFrame) -> Table:
    if _is_long(frame, SCORES):
        return long_table(frame, "date", "asset", lambda columns: {"score": _score_column(columns)})
    return wide_table({"score": frame})


def _score_column(frame: pd.DataFrame) -> Any:
    taken = {find_column(frame, role, role) for role in ("date", "asset")}
    others = [name for name in frame.columns if name not in taken]
    named = [name for name in others if plain_name(name) in SCORES]
    found = named or others
    if len(found) != 1:
        message = (
            f"Expected one column of scores ({', '.join(SCORES)}); got {list(map(str, others))}."
        )
        raise InvalidInputError(message)
    return found[0]


def _aligned(table: Table, panel: Panel, unknown: str) -> np.ndarray:
    """Lay a table over the panel, or say what does not fit."""
    (values,) = table.arrays.values()
    known = ~np.isnan(values)
    known_dates, known_assets = known.any(axis=1), known.any(axis=0)
    rows = np.flatnonzero(np.isin(table.dates, panel.dates) & known_dates)
    column = pd.Index(panel.assets).get_indexer(list(table.assets))
    columns = np.flatnonzero((column >= 0) & known_assets)
    strange = [n for n in np.flatnonzero(known_assets) if column[n] < 0]
    off = table.dates[known_dates & ~np.isin(table.dates, panel.dates)]
    if unknown == "raise" and (strange or len(off)):
        late = off[off > panel.dates[-1]]
        found = {
            "assets are not in the panel": [table.assets[n] for n in strange],
            f"dates are after the last price of {panel.dates[-1]}": late,
            "dates are no dates of the panel": off[off <= panel.dates[-1]],
        }
        message = (
            f"These scores do not fit the prices: {counted(found, 'of their ')}. Correct them, or "
            "leave them out with unknown='drop' (in a command --unknown drop)."
        )
        raise InvalidInputError(message)
    aligned = np.full((panel.n_dates, panel.n_assets), np.nan)
    places = np.searchsorted(panel.dates, table.dates[rows])
    aligned[np.ix_(places, column[columns])] = values[np.ix_(rows, columns)]
    return aligned


def _read_table(
    path: Path, beside: Sequence[Any], asset: str | None = None
) -> tuple[pd.DataFrame, bool]:
    """Read a table, and tell whether it is long; a wide one has its dates in the index."""
    frame = _read(path, lambda column: _names_assets(column, asset))
    if _is_long(frame, beside, asset):
        return frame, True
    if any(_names_assets(column) for column in frame.columns):  # of a ticker: no text after all
        frame = _read(path)
    return _dates_as_index(frame), False


def _read(path: Path, is_text: Callable[[Any], bool] | None = None) -> pd.DataFrame:
    """Read a table; names of assets are text, and keep their zeros."""
    name = path.name.lower()
    if not name.endswith(PARQUET + TEXT):
        message = f"Expected a file that ends in {', '.join(TEXT + PARQUET)}; got {path}."
        raise InvalidInputError(message)
    try:
        return _parsed(path, is_text)
    except (CorruptFileError, InvalidInputError):  # said already
        raise
    except OSError as error:
        if error.errno:
            raise storage_error(error, "read", path) from error
        raise _garbled(path, error) from error
    except pd.errors.EmptyDataError as error:
        raise _empty(path) from error
    except (ValueError, EOFError) as error:  # pandas' errors are ValueErrors, and so are pyarrow's
        raise _garbled(path, error) from error


def _parsed(path: Path, is_text: Callable[[Any], bool] | None) -> pd.DataFrame:
    if path.stat().st_size == 0:
        raise _empty(path)
    name = path.name.lower()
    if name.endswith(PARQUET):
        require("pyarrow", extra="parquet", feature="Reading parquet")
        return pd.read_parquet(path)
    separator = "\t" if name.endswith(".tsv") else ","
    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]
    _refuse_separator(path, header, separator)
    text = [column for column in header if is_text and is_text(column)]
    frame = pd.read_csv(
        path,
        sep=separator,
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values={column: MISSING for column in header if column not in text},
        low_memory=False,
    )
    repeated = sorted(set(header[header.duplicated()]))
    if repeated:  # pandas would number them
        message = f"Expected each column of {path} once; {some(repeated)} are repeated."
        raise InvalidInputError(message)
    return frame


def _refuse_separator(path: Path, header: pd.Series, separator: str) -> None:
    """Raise where what should be the names of columns is one name that holds another separator."""
    line = str(header.iloc[0])
    found = [one for one in SEPARATORS if one != separator and one in line]
    if len(header) > 1 or not found:
        return
    (own, *_) = found
    other = "Give it a name that ends in .tsv" if own == "\t" else "Write it with commas"
    message = (
        f"Expected columns of {path} separated by {separator!r}; it seems to be by {own!r} (it "
        f"begins with {line!r:.80}). {other}, or read it with pandas.read_csv(path, sep={own!r}), "
        "with decimal=',' where that is the decimal sign, and pass the frame."
    )
    raise InvalidInputError(message)


def _empty(path: Path) -> CorruptFileError:
    return CorruptFileError(f"{path} is empty: there is no table in it. Write it again.")


def _garbled(path: Path, error: Exception) -> CorruptFileError:
    return CorruptFileError(
        f"Could not read a table from {path}: {error}. It seems to be cut short or garbled: copy "
        "it again."
    )


def _names_assets(column: Any, asset: str | None = None) -> bool:
    return column == asset or plain_name(column) in ALIASES["asset"]


def _is_long(frame: pd.DataFrame, beside: Sequence[Any], asset: str | None = None) -> bool:
    """Tell whether a table has a row for each date and asset, not a column for each asset.

    Its column of assets may be the prices of a ticker of that name, unless a column ``beside`` it
    is one of a long table, it holds text, or dates come twice.
    """
    if isinstance(frame.index, pd.MultiIndex):
        return True
    assets = [values for name, values in frame.items() if _names_assets(name, asset)]
    if not assets:
        return False
    if any(name in (asset, *beside) or plain_name(name) in beside for name in frame.columns):
        return True
    days = [values for name, values in frame.items() if plain_name(name) in ALIASES["date"]]
    repeated = (days[0] if days else frame.index).duplicated().any()
    return bool(repeated or pd.to_numeric(assets[0].astype(str), errors="coerce").isna().all())


def _dates_as_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a wide table with its dates in the index, also where they came as first column."""
    numbered = pd.api.types.is_integer_dtype(frame.index)
    if not numbered or isinstance(frame.columns, pd.MultiIndex):
        return frame
    if frame.shape[1] < 2:
        message = (
            "Expected prices or scores with a column of assets, or dates in the first column and "
            f"one asset in each other; got the columns {list(map(str, frame.columns))}."
        )
        raise InvalidInputError(message)
    return frame.set_index(frame.columns[0])


def _stem(path: str | Path) -> str:
    return Path(path).name.partition(".")[0]
