"""The section of the demonstration on finance: four signals on twenty stocks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from scikd._extras import require
from scikd.report import Item, Section, Text

from ._choices import warnings_of
from .analysis import Analysis, analyse
from .backtesting import backtest
from .comparison import comparison_section
from .panel import Panel
from .strategy import Strategy
from .tips import TIPSRanker

if TYPE_CHECKING:
    from scikd.demo import Options

__all__ = ["compared", "section"]

logger = logging.getLogger(__name__)

TEST = np.datetime64("2013-01-02")
STRATEGY = Strategy(k=5, hold=5)
RESAMPLES = 500
# A tenth of the paper's size, and a hundredth of its training: it shall take seconds.
TIPS: dict[str, Any] = {
    "teachers": ("past", "periodic", "vanilla"),
    "dim": 16,
    "n_layers": 1,
    "ffn": 32,
    "n_heads": 2,
    "teacher_epochs": 4,
    "student_epochs": 3,
    "swa_epochs": 2,
    "learning_rate": 3e-3,
    "every": 5,
    "device": "cpu",
}


def section(options: Options) -> Section:
    """Trade four signals, and tell what is left of them; called by `scikd.demo.run_demo`."""
    analyses = compared(options)
    shown = comparison_section(analyses, n_resamples=RESAMPLES, seed=options.seed)
    cautions = warnings_of(next(iter(analyses.values())))
    items: list[Item] = [*shown.items, Text(_method()), *map(Text, cautions)]
    return Section("Finance: signals on twenty stocks", items, summary=shown.summary)


def compared(options: Options) -> dict[str, Analysis]:
    """Return what each signal earned on the stocks of skfolio in the days of the test.

    Parameters
    ----------
    options : Options
        Seed of TIPS and of the bootstrap.
    """
    panel = _panel()
    analyses = {}
    for name, scores in _signals(panel, options).items():
        logger.info("trading %s", name)
        tested = np.where((panel.dates >= TEST)[:, None], scores, np.nan)
        result = backtest(tested, panel, STRATEGY, benchmark="equal_weight")
        analyses[name] = analyse(result, name=name, n_resamples=RESAMPLES, seed=options.seed)
    return analyses


def _panel() -> Panel:
    feature = "The demonstration of finance"
    datasets = require("skfolio.datasets", extra="finance", feature=feature)
    return Panel.from_wide(datasets.load_sp500_dataset(), name="S&P 500")


def _signals(panel: Panel, options: Options) -> dict[str, np.ndarray]:
    """Return scores of the rules that everybody knows, and of a small TIPS."""
    close = panel.close
    scores = {name: np.full(close.shape, np.nan) for name in ("reversal", "momentum", "low risk")}
    scores["reversal"][5:] = 1.0 - close[5:] / close[:-5]
    scores["momentum"][252:] = close[231:-21] / close[:-252] - 1.0
    windows = np.lib.stride_tricks.sliding_window_view(panel.returns()[1:], 60, axis=0)
    scores["low risk"][60:] = -windows.std(axis=2)
    logger.info("training a small TIPS")
    # Of a panel that ends before the test no label can reach into it.
    before = panel.select(dates=slice(0, int(np.searchsorted(panel.dates, TEST))))
    tips = TIPSRanker(**TIPS, random_state=options.seed, progress=options.progress).fit(before)
    return scores | {"TIPS, small": tips.predict(panel)}


def _method() -> str:
    teachers = ", ".join(TIPS["teachers"])
    return (
        "Daily closes of twenty large companies come with skfolio. The signals: the return of the "
        "last five days, turned around; the return of a year but for its last month; small "
        "volatility of sixty days; and TIPS, three small transformers "
        f"({teachers}) and their student, trained for seconds on days before {TEST}. From then on "
        f"the best {STRATEGY.k} are held for {STRATEGY.hold} days, bought at the close of the day "
        f"after the score, at {STRATEGY.cost_bps:g} basis points a side. No parameter was chosen "
        "by these results; all four are counted."
    )
