"""Trading signals: ensembles of teachers, distilled into one student, and backtests to believe.

Names are imported when they are first used: ``import scikd.finance`` alone needs neither pandas nor
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scikd._lazy import lazy_names

if __name__ != "scikd.finance":
    # From the root of a checkout a bare `import finance` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.finance', got {__name__!r}: write `import scikd.finance`"
    raise ImportError(message, name=__name__)

if TYPE_CHECKING:
    from .analysis import Analysis, analyse
    from .auditing import audit
    from .backtesting import backtest, backtest_many
    from .comparison import comparison_report
    from .features import Features, forward_returns, last_known, tips_features
    from .judging import judge
    from .luck import (
        backtest_overfitting,
        confidence_set,
        deflated_sharpe_ratio,
        probabilistic_sharpe_ratio,
        sharpe_difference,
        sharpe_interval,
        superior_ability,
    )
    from .network import NetworkRanker
    from .panel import Panel
    from .readers import align_scores, read_members, read_panel, read_scores
    from .regimes import RegimeAlignment, Regimes, market_regimes, regime_alignment
    from .report import tear_sheet
    from .result import BacktestResult
    from .samples import Samples
    from .signals import SignalStack, reference_models
    from .splits import Chronological, CombinatorialPurged, WalkForward
    from .strategy import Strategy
    from .synthetic import PlantedMarket, make_panel
    from .tips import TIPSRanker
    from .writing import write_backtest

__all__ = [
    "Analysis",
    "BacktestResult",
    "Chronological",
    "CombinatorialPurged",
    "Features",
    "NetworkRanker",
    "Panel",
    "PlantedMarket",
    "RegimeAlignment",
    "Regimes",
    "Samples",
    "SignalStack",
    "Strategy",
    "TIPSRanker",
    "WalkForward",
    "align_scores",
    "analyse",
    "audit",
    "backtest",
    "backtest_many",
    "backtest_overfitting",
    "comparison_report",
    "confidence_set",
    "deflated_sharpe_ratio",
    "forward_returns",
    "judge",
    "last_known",
    "make_panel",
    "market_regimes",
    "probabilistic_sharpe_ratio",
    "read_members",
    "read_panel",
    "read_scores",
    "reference_models",
    "regime_alignment",
    "sharpe_difference",
    "sharpe_interval",
    "superior_ability",
    "tear_sheet",
    "tips_features",
    "write_backtest",
]

_HOMES = {
    "analysis": ("Analysis", "analyse"),
    "auditing": ("audit",),
    "backtesting": ("backtest", "backtest_many"),
    "comparison": ("comparison_report",),
    "features": ("Features", "forward_returns", "last_known", "tips_features"),
    "judging": ("judge",),
    "luck": (
        "backtest_overfitting",
        "confidence_set",
        "deflated_sharpe_ratio",
        "probabilistic_sharpe_ratio",
        "sharpe_difference",
        "sharpe_interval",
        "superior_ability",
    ),
    "network": ("NetworkRanker",),
    "panel": ("Panel",),
    "readers": ("align_scores", "read_members", "read_panel", "read_scores"),
    "regimes": ("RegimeAlignment", "Regimes", "market_regimes", "regime_alignment"),
    "report": ("tear_sheet",),
    "result": ("BacktestResult",),
    "samples": ("Samples",),
    "signals": ("SignalStack", "reference_models"),
    "splits": ("Chronological", "CombinatorialPurged", "WalkForward"),
    "strategy": ("Strategy",),
    "synthetic": ("PlantedMarket", "make_panel"),
    "tips": ("TIPSRanker",),
    "writing": ("write_backtest",),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
