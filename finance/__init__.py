"""Trading signals: ensembles of teachers, distilled into one student, and backtests to believe.

Names are imported when they are first used: ``import scikd.finance`` alone needs neither pandas nor
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "scikd.finance":
    # From the root of a checkout a bare `import finance` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.finance', got {__name__!r}: write `import scikd.finance`"
    raise ImportError(message, name=__name__)

if TYPE_CHECKING:
    from .backtesting import backtest, backtest_many
    from .panel import Panel
    from .result import BacktestResult
    from .strategy import Strategy

__all__ = [
    "BacktestResult",
    "Panel",
    "Strategy",
    "backtest",
    "backtest_many",
]

_HOMES = {
    "backtesting": ("backtest", "backtest_many"),
    "panel": ("Panel",),
    "result": ("BacktestResult",),
    "strategy": ("Strategy",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
