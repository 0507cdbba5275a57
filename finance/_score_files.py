"""Files of scores: date, asset and score in a row."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from scikd._atomic import atomic_write_bytes
from scikd._extras import require
from scikd.exceptions import InvalidInputError

from .panel import Panel
from .readers import PARQUET

__all__ = ["check_suffix", "write_scores"]


def check_suffix(path: Path) -> None:
    """See that a file of this name can be written."""
    if path.suffix not in (".csv", *PARQUET):
        message = f"Expected a file that ends in .csv or {' or '.join(PARQUET)}; got {path.name!r}."
        raise InvalidInputError(message)
    if path.suffix in PARQUET:
        require("pyarrow", extra="parquet", feature="Writing parquet")


def write_scores(path: Path, scores: np.ndarray, panel: Panel, first: np.datetime64) -> int:
    """Write the scores from a date on, and return their number."""
    row, column = np.nonzero(np.isfinite(scores) & (panel.dates >= first)[:, None])
    if len(row) == 0:
        message = f"There is nothing to score from {first} on; prices end on {panel.dates[-1]}."
        raise InvalidInputError(message)
    frame = pd.DataFrame(
        {
            "date": panel.dates[row].astype("M8[s]"),
            "asset": np.array(panel.assets, dtype=object)[column],
            "score": scores[row, column],
        }
    )
    file = io.BytesIO()
    if path.suffix in PARQUET:
        frame.to_parquet(file, index=False)
    else:
        frame.to_csv(file, index=False, date_format="%Y-%m-%d")
    atomic_write_bytes(path, file.getvalue())
    return len(frame)
