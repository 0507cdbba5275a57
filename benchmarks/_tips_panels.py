"""The panels of `benchmarks.tips`: prices, universe, and where training and validation end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.harness import DATA
from scikd.exceptions import StorageError
from scikd.finance import Panel, make_panel, read_members, read_panel

__all__ = ["LOOK_BACK", "PANELS", "QUICK", "Market", "load_market"]

LOOK_BACK = 20
QUICK = "made up"
FINANCE = DATA / "finance"
ERRORS = {
    "us": (
        "BHF",
        "CA",
        "COL",
    ),  # prices before the listing; of another asset for days; after the end
    "jp": ("9749.T",),  # the close of 2025-05-15 is six million times that of the day before
}
"""Assets whose prices in the files are plainly wrong; they are left out altogether."""
SMALLEST = 100_000  # stock-days of training from which on every fifth day is enough


@dataclass(frozen=True, eq=False)
class Market:
    """A panel, and its parts in time.

    Parameters
    ----------
    name : str
        Of the rows.
    panel : Panel
        All of it.
    train_end, valid_end : numpy.datetime64
        Last dates of training and of validation; the test is what follows.
    note : str
        What a reader of the numbers has to know.
    """

    name: str
    panel: Panel
    train_end: np.datetime64
    valid_end: np.datetime64
    note: str = ""

    @property
    def training(self) -> Panel:
        """The panel up to the end of training: no label knows a price after it."""
        return self.panel.select((None, self.train_end))

    @property
    def later(self) -> Panel:
        """Validation and test, with the days before that the first window needs."""
        begin = int(np.searchsorted(self.panel.dates, self.train_end, side="right"))
        # Features look back as far as a window does.
        return self.panel.select(slice(begin - 2 * LOOK_BACK, None))

    @property
    def first_test(self) -> int:
        """First row of the test in `later`."""
        return int(np.searchsorted(self.later.dates, self.valid_end, side="right"))

    @property
    def every(self) -> int:
        """Which days are trained on: each fifth one, or all where there are few stock-days."""
        return 5 if int(self.training.member.sum()) >= SMALLEST else 1


def load_market(name: str) -> Market:
    """Return one of `PANELS`, or a small one with a planted signal.

    Raises
    ------
    StorageError
        If its file is not there.
    """
    if name == QUICK:
        planted = make_panel(300, 8, signal=0.2, seed=0)
        ends = (np.datetime64(day) for day in ("2000-09-08", "2000-11-24"))
        return Market(name, planted.panel, *ends)
    make, train_end, valid_end, note = PANELS[name]
    return Market(name, make(), np.datetime64(train_end), np.datetime64(valid_end), note)


def _read(file: str, market: str = "") -> Panel:
    panel = read_panel(FINANCE / file)
    wrong = ERRORS.get(market, ())
    return panel.select(assets=[one for one in panel.assets if one not in wrong])


def _us() -> Panel:
    return _read("us_sp500_yahoo_482_2015_2020.csv.gz", "us")


def _us_members() -> Panel:
    return _us().with_members(read_members(FINANCE / "sp500_ticker_start_end.csv"))


def _cn() -> Panel:
    """Return prices rebuilt from the column of changes, which is usable from 2016 on."""
    path = FINANCE / "cn_sse50_qfq_50_1990_2022.csv.gz"
    if not path.is_file():
        raise StorageError(f"There is no file {path}; SCIKD_DATA names its folder.")
    frame = pd.read_csv(path, dtype={"ticker": str})
    frame = frame[frame["date"] >= "2016-01-01"]
    return Panel.from_long(
        frame, returns="pct_change", returns_unit="percent", name="cn_sse50_2016_2022"
    )


def _skfolio() -> Panel:
    from skfolio.datasets import load_sp500_dataset  # noqa: PLC0415 - slow to import

    return Panel.from_wide(load_sp500_dataset(), name="skfolio_sp500")


SURVIVORS = "assets that were in the index at the end: survivors"
PANELS: dict[str, tuple[Callable[[], Panel], str, str, str]] = {
    "jp_tse_100": (
        lambda: _read("jp_tse_100_2023_2025.csv.gz", "jp"),
        "2024-06-28",
        "2024-08-30",
        "nine months of test",
    ),
    "cn_sse50": (
        _cn,
        "2017-12-29",
        "2018-12-28",
        f"returns overstated by up to a half in 2016, a tenth in 2020; {SURVIVORS}",
    ),
    "skfolio_sp500": (_skfolio, "2010-12-31", "2012-12-31", f"20 assets; {SURVIVORS}"),
    "uk_ftse100": (
        lambda: _read("uk_ftse100_adjclose_64_2000_2023.csv.gz"),
        "2014-12-31",
        "2016-12-30",
        SURVIVORS,
    ),
    "us_sp500_members": (
        _us_members,
        "2018-01-31",
        "2018-07-31",
        "in the index on that day; who left before the download is mostly missing",
    ),
    "us_sp500": (_us, "2018-01-31", "2018-07-31", SURVIVORS),
}
"""How to get each, the ends of training and validation, and a caution; the small ones first."""
