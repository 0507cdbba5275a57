"""Is a TIPS student worth it? Teachers, student and plain models on daily prices of four countries.

Every model learns to rank forward returns of five days, from the next close on, on the days up to
the end of training; nothing is chosen on the test. The five best of a day are bought at the next
close, in equal parts, and held for five days in five sleeves; 10 basis points a trade. Each row is
the mean over three seeds, and rows of single seeds follow. Intervals of Sharpe ratios, and of their
difference to equal weight without costs, are of 95 % by the stationary bootstrap; those of a mean
are means of the ends. ``published_`` is by the conventions of the literature: bought at the close
that made the score, weighted by softmax, without costs.

The panels lie outside (SCIKD_DATA), but for the one that comes with skfolio. Scores are kept in the
folder that SCIKD_RUNS names (default: build/tips), so a run that was stopped goes on; see
`benchmarks._tips_models`. ``--quick`` takes a small made-up panel.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import tips_speed
from benchmarks._tips_models import FULL, RUNS, SEEDS, Plan, kept_scores, make_scores
from benchmarks._tips_panels import PANELS, QUICK, load_market
from benchmarks._tips_scores import market_rows
from benchmarks.harness import Row
from scikd.exceptions import StorageError

__all__ = ["kept_rows", "run"]


def run(quick: bool = False) -> list[Row]:
    """Train and judge all, or a little."""
    if quick:
        with tempfile.TemporaryDirectory() as folder:
            short = Plan(epochs=1, swa_epochs=1)
            make_scores([QUICK], SEEDS[:1], short, Path(folder))
            rows = kept_rows([QUICK], Path(folder), n_resamples=100)
    else:
        make_scores(list(PANELS), SEEDS, FULL, RUNS)
        rows = kept_rows(list(PANELS), RUNS)
    return rows + tips_speed.run(quick)


def kept_rows(
    names: list[str] | None = None, folder: Path = RUNS, n_resamples: int = 2000
) -> list[Row]:
    """Judge what is in the folder so far: each model by the seeds that are there."""
    rows = []
    for name in names or list(PANELS):
        places = {seed: folder / name / str(seed) for seed in SEEDS}
        scores = {seed: found for seed, place in places.items() if (found := kept_scores(place))}
        if not scores:
            continue
        try:
            market = load_market(name)
        except StorageError:
            continue
        rows += market_rows(market, scores, n_resamples)
    return rows
