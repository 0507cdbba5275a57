# /// script
# requires-python = ">=3.11"
# dependencies = ["scikd[finance,plots]", "lightgbm"]
# ///
"""Stack signals: models of the past alone, weighed by what they said of days to come.

Compared on one page: each model, the stack, and a TIPS student among the models.
"""

from __future__ import annotations

import sys

from scikd import finance

SMALL = {"dim": 16, "n_layers": 1, "ffn": 32, "n_heads": 2, "batch_size": 1024}  # for seconds
SHORT = {"teacher_epochs": 4, "student_epochs": 4, "swa_epochs": 2, "learning_rate": 3e-3}
# The signal of this market lives from the next close to the one after it.
STRATEGY = finance.Strategy(k=6, cost_bps=5, price="close")


def main() -> None:
    """Stack, backtest what was said out of fold, and compare."""
    panel = finance.make_panel(500, 30, signal=0.1, seed=1).panel
    tips = finance.TIPSRanker(teachers=("past", "vanilla"), look_back=5, **SMALL, **SHORT)
    models = [*finance.reference_models(("ridge", "lightgbm")), ("TIPS", tips)]
    stack = finance.SignalStack(models, horizon=1, look_back=5, progress=False).fit(panel)

    # Never `predict` of days of training: what is said out of fold is what a backtest may use.
    signals = stack.models_out_of_fold() | {"stack": stack.predict_out_of_fold()}
    analyses = {}
    for name, scores in signals.items():
        result = finance.backtest(scores, panel, STRATEGY, benchmark="equal_weight")
        analyses[name] = finance.analyse(result, name=name, n_resamples=200)
    report = finance.comparison_report(analyses, n_resamples=200)
    page = report.write_html("stacking-signals.html")

    lines = [f"weight of {name}: {weight:.2f}" for name, weight in stack.weights_.items()]
    for name, analysis in analyses.items():
        found = {key: metric.value for key, metric in analysis.metrics.items()}
        lines.append(
            f"{name}: rank IC {found['rank_ic']:+.4f} (t {found['rank_ic_t']:.1f}), "
            f"net Sharpe {found['sharpe_ratio']:.2f}"
        )
    sys.stdout.write("\n".join([*lines, f"the page lies in {page}"]) + "\n")


if __name__ == "__main__":
    main()
