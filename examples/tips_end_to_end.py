# /// script
# requires-python = ">=3.11"
# dependencies = ["scikd[finance,plots]"]
# ///
"""TIPS from prices to a tear sheet: train, audit, score days that it has not seen, backtest.

The market is made up, with a signal of known strength, so that what is found can be compared with
what is there. With prices of your own take `panel = read_panel("prices.csv")`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from scikd import finance

N_TRAIN = 400
SMALL = {"dim": 16, "n_layers": 1, "ffn": 32, "n_heads": 2, "batch_size": 1024}  # for seconds
SHORT = {"teacher_epochs": 6, "student_epochs": 6, "swa_epochs": 3, "learning_rate": 3e-3}
# The signal of this market lives from the next close to the one after it.
STRATEGY = finance.Strategy(k=8, cost_bps=5, price="close")


def main() -> None:
    """Train on the first days, and trade the others."""
    market = finance.make_panel(900, 40, signal=0.15, seed=0)
    panel = market.panel
    # Labels of this panel end with it: none reaches into the test.
    first = panel.select(dates=slice(0, N_TRAIN))
    teachers = ("past", "future", "vanilla")
    tips = finance.TIPSRanker(teachers=teachers, horizon=1, look_back=5, **SMALL, **SHORT)
    tips.fit(first)

    tested = (np.arange(panel.n_dates) >= N_TRAIN)[:, None]
    scores = np.where(tested, tips.predict(panel), np.nan)
    found = finance.audit(tips.predict, panel, cuts=1, n_seeds=1, progress=False)
    result = finance.backtest(scores, panel, STRATEGY, benchmark="equal_weight")

    theirs = {k: np.where(tested, s, np.nan) for k, s in tips.predict_teachers(panel).items()}
    regimes = finance.market_regimes(panel)
    alignment = finance.regime_alignment(scores, theirs, regimes, n_resamples=200)
    analysis = finance.analyse(result, name="TIPS", n_resamples=200)
    written = {"analysis": analysis, "alignment": alignment, "overwrite": True}
    folder = finance.write_backtest(result, Path("tips"), **written)
    ranks, there = np.nanmean(result.rank_ic), market.information_coefficient()
    lines = [
        f"rank IC of the student {ranks:.3f}; IC of what is there {there:.3f}",
        str(found),
        repr(result),
        f"the tear sheet lies in {folder / 'report.html'}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
