"""The folder of a backtest: tear sheet, metrics, and tables of equity, weights and trades."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from scikd._bundles import room_for_bundle
from scikd.exceptions import InvalidInputError
from scikd.persistence import MANIFEST, save_bundle

from .analysis import Analysis, analyse
from .regimes import RegimeAlignment
from .report import tear_sheet
from .result import ANALYSIS, BacktestResult

__all__ = ["REPORT", "room_for_backtest", "write_backtest"]

REPORT = "report.html"


def write_backtest(
    result: BacktestResult,
    folder: str | Path,
    *,
    analysis: Analysis | None = None,
    alignment: RegimeAlignment | None = None,
    title: str | None = None,
    command: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a backtest as one folder, all or nothing.

    It holds ``report.html`` (see `scikd.finance.tear_sheet`), ``metrics.json``, and the tables
    ``equity``, ``weights`` (date, asset and share of what is held) and ``trades``, as parquet, or
    as CSV where pyarrow is not installed. `scikd.finance.Analysis.load` reads the numbers of the
    tear sheet back.

    Parameters
    ----------
    result : BacktestResult
        With its trades.
    folder : str or Path
        To make.
    analysis : Analysis or None, default=None
        Of this result; None makes it.
    alignment, title, command
        As for `scikd.finance.tear_sheet`.
    overwrite : bool, default=False
        Whether a backtest that is there may be replaced. Anything else never is.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidInputError
        If something is there that may not be replaced, or the trades were not kept.
    StorageError
        If it cannot be written, e.g. on a full disk; what was there before stays.
    """
    folder = Path(folder)
    with room_for_backtest(folder, overwrite=overwrite):
        analysis = analyse(result) if analysis is None else analysis
        if alignment is not None:  # for the page when it is drawn again
            analysis = replace(analysis, alignment=alignment)
        page = tear_sheet(analysis, title=title, command=command)
        blobs = {
            REPORT: page.to_html().encode(),
            "metrics.json": _metrics_json(analysis),
            **dict(
                _table_file(name, frame)
                for name, frame in (
                    ("equity", _equity_frame(result, analysis)),
                    ("weights", _weights_frame(result)),
                    ("trades", result.trades_frame()),
                )
            ),
        }
        return save_bundle(folder, kind=ANALYSIS, blobs=blobs, **analysis.bundle())


@contextmanager
def room_for_backtest(folder: Path, *, overwrite: bool) -> Iterator[None]:
    """See that a backtest can be written there, before the work that makes it.

    Parameters
    ----------
    folder : Path
        To make.
    overwrite : bool
        Whether a backtest that is there may be replaced.

    Raises
    ------
    InvalidInputError
        If something is there that may not be replaced, such as a file that a user put beside ours.
    StorageError
        If the folder around it cannot be made.
    """
    with room_for_bundle(folder, ANALYSIS, "is a backtest", overwrite=overwrite):
        if (folder / MANIFEST).is_file():
            ours = json.loads((folder / MANIFEST).read_bytes()).get("files", {})
            theirs = sorted({item.name for item in folder.iterdir()} - {MANIFEST, *ours})
            if theirs:
                message = (
                    f"In {folder} there are files that scikd did not write: "
                    f"{', '.join(theirs[:3])}. Replacing the backtest would delete them: move "
                    "them, or choose another folder."
                )
                raise InvalidInputError(message)
        yield


def _metrics_json(analysis: Analysis) -> bytes:
    """Return all numbers for other programs; what is not defined is null."""
    luck = analysis.luck
    content = {
        "name": analysis.name,
        "first_day": str(analysis.dates[0]),
        "last_day": str(analysis.dates[-1]),
        "days": len(analysis.dates),
        "metrics": {name: metric._asdict() for name, metric in analysis.metrics.items()},
        "luck": None
        if luck is None
        else {
            **luck._asdict(),
            "sharpe": luck.sharpe._asdict(),
            "differences": {name: gap._asdict() for name, gap in luck.differences.items()},
        },
        "rank_ic_by_horizon": [entry._asdict() for entry in analysis.decay],
        "groups_by_score": [entry._asdict() for entry in analysis.groups],
        "by_cost": [entry._asdict() for entry in analysis.costs],
        "by_lag": [entry._asdict() for entry in analysis.lags],
        "bill": [entry._asdict() for entry in analysis.bill],
        "by_regime": [entry._asdict() for entry in analysis.regimes],
        "strategy": analysis.bundle()["parameters"]["strategy"],
        "facts": dict(analysis.facts),
    }
    return json.dumps(_defined(content), indent=1, allow_nan=False).encode() + b"\n"


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_defined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _equity_frame(result: BacktestResult, analysis: Analysis) -> Any:
    frame = result.to_frame().drop(columns="benchmark", errors="ignore").reset_index()
    return frame.assign(**analysis.benchmarks)


def _weights_frame(result: BacktestResult) -> Any:
    import pandas as pd  # noqa: PLC0415 - the numbers themselves need no pandas

    row, column = np.nonzero(result.weights)
    return pd.DataFrame(
        {
            "date": result.dates[row].astype("M8[s]"),
            "asset": np.array(result.assets, dtype=object)[column],
            "weight": result.weights[row, column],
        }
    )


def _table_file(name: str, frame: Any) -> tuple[str, bytes]:
    """Return the name and the content of a file: parquet where that can be written, else CSV."""
    file = io.BytesIO()
    if find_spec("pyarrow") is not None:
        frame.to_parquet(file, index=False)
        return f"{name}.parquet", file.getvalue()
    frame.to_csv(file, index=False, date_format="%Y-%m-%d")
    return f"{name}.csv", file.getvalue()
