# /// script
# requires-python = ">=3.11"
# dependencies = ["scikd[finance,plots]"]
# ///
"""Backtest scores of your own: a table of scores and one of prices are all that is needed.

Here the prices are those of twenty stocks that come with skfolio, and the score is last year's
return. From files, the same is
`scikd finance backtest scores.csv prices.csv --top-k 5 --hold 5 -o own-scores`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from skfolio.datasets import load_sp500_dataset

from scikd.finance import Panel, Strategy, analyse, backtest, judge, write_backtest


def main() -> None:
    """Trade the scores, ask whether that was luck, and write a folder with a tear sheet."""
    prices = load_sp500_dataset().loc["2010":]  # dates x assets
    # Of the year that ended a month ago, so that row t needs nothing from after the close of t.
    scores = prices.shift(21) / prices.shift(252) - 1
    panel = Panel.from_wide(prices, name="S&P 500, twenty names")

    # All that is looked at, so that it can be counted.
    tried = {
        f"best {k}, {hold} days": Strategy(k=k, hold=hold, lag=1, cost_bps=10)
        for k in (3, 5, 8)
        for hold in (5, 21)
    }
    results = {
        name: backtest(scores, panel, strategy, benchmark="equal_weight")
        for name, strategy in tried.items()
    }
    found = judge(results)
    ratios = [one.metrics()["sharpe_ratio"].value for one in results.values()]

    best = results[found.best]
    analysis = analyse(best, name=f"momentum, {found.best}", trials=ratios, n_resamples=500)
    folder = write_backtest(best, Path("own-scores"), analysis=analysis, overwrite=True)
    gap = found.differences["equal_weight"]
    lines = [f"{name}: net Sharpe {ratio:.2f}" for name, ratio in zip(tried, ratios, strict=True)]
    lines += [
        f"the best of {found.n_tried} is {found.best}",
        f"less equal weight: {gap.estimate:+.2f}, 95 % interval {gap.low:+.2f} to {gap.high:+.2f}",
        f"deflated Sharpe ratio: {found.deflated_sharpe:.3f}, the probability that its true",
        f"Sharpe ratio is above the expected best of {found.n_tried} trials without any skill",
        f"the tear sheet lies in {folder / 'report.html'}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
