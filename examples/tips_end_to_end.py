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

from scikd.finance import (
    Strategy, TIPSRanker, analyse, audit, backtest, make_panel, market_regimes, regime_alignment,
    write_backtest,
)  # fmt: skip

N_TRAIN = 400
SMALL = {"dim": 16, "n_layers": 1, "ffn": 32, "n_heads": 2, "batch_size": 1024}  # for seconds


def main() -> None:
    """Train on the first days, and trade the others."""
    market = make_panel(900, 40, signal=0.15, seed=0)
    panel = market.panel
    # Labels of this panel end with it: none reaches into the test. The signal lives for a day.
    first = panel.select(dates=slice(0, N_TRAIN))
    tips = TIPSRanker(
        teachers=("past", "future", "vanilla"), horizon=1, look_back=5, learning_rate=3e-3,
        teacher_epochs=6, student_epochs=6, swa_epochs=3, device="cpu", **SMALL,
    ).fit(first)  # fmt: skip

    tested = (np.arange(panel.n_dates) >= N_TRAIN)[:, None]
    scores = np.where(tested, tips.predict(panel), np.nan)
    found = audit(tips.predict, panel, cuts=1, n_seeds=1, progress=False)
    result = backtest(scores, panel, Strategy(k=8, cost_bps=5), benchmark="equal_weight")

    teachers = {
        name: np.where(tested, s, np.nan) for name, s in tips.predict_teachers(panel).items()
    }
    alignment = regime_alignment(scores, teachers, market_regimes(panel), n_resamples=200)
    analysis = analyse(result, name="TIPS", n_resamples=200)
    folder = write_backtest(
        result, Path("tips"), analysis=analysis, alignment=alignment, overwrite=True
    )
    lines = [
        f"rank IC of the student {np.nanmean(result.rank_ic):.3f}, of what is there "
        f"{market.information_coefficient():.3f}",
        str(found),
        f"net {result!r}",
        f"the tear sheet lies in {folder / 'report.html'}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
