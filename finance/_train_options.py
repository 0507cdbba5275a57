"""The flags of ``scikd finance train``, made from the parameters of `TIPSRanker`."""

from __future__ import annotations

import inspect
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ._market_options import MarketOptions, kept_assets, read_market
from .panel import Panel
from .tips import TIPSRanker

__all__ = ["TrainOptions", "ranker_of", "read_training"]

_ASKED = {name: p.default for name, p in inspect.signature(TIPSRanker).parameters.items()}
_HINTS = get_type_hints(TIPSRanker.__init__)
# What a command line spells in another way, or not at all.
_OTHER = {
    "teachers": (
        tuple[str, ...],
        (),
        "past, future, patch, alibi, periodic, relative or vanilla; by default all seven.",
    ),
    "consensus": (str, "mean", '"mean", "median", "rank", "zscore" or "inverse_variance".'),
    "random_state": (int, 0, "Of first weights and the order of days."),
    "folder": (Path | None, None, "Keeps checkpoints: a killed training goes on from it."),
}


def _fields() -> list[tuple[str, Any, Any]]:
    made = []
    for name, default in _ASKED.items():
        if name == "progress":
            continue
        kind, value, text = _OTHER.get(name, (_HINTS[name], default, None))
        metadata = {} if text is None else {"help": text}
        made.append((name, kind, field(default=value, kw_only=True, metadata=metadata)))
    dates = {"start": "First day of prices to use.", "end": "Last day of prices to use."}
    for name, text in dates.items():
        wanted = f"{text[:-1]}, as yyyy-mm-dd."
        made.append(
            (name, str | None, field(default=None, kw_only=True, metadata={"help": wanted}))
        )
    return made


TrainOptions: Any = make_dataclass(
    "TrainOptions",
    _fields(),
    bases=(MarketOptions,),
    namespace={"__doc__": inspect.cleandoc(TIPSRanker.__doc__ or "")},
    frozen=True,
)


def ranker_of(options: Any) -> TIPSRanker:
    """Return the untrained ranker of the options."""
    given = {name: getattr(options, name) for name in _ASKED if name != "progress"}
    return TIPSRanker(**given | {"teachers": options.teachers or None, "progress": "auto"})


def read_training(prices: Path, options: Any) -> Panel:
    """Read the prices of the days to train on."""
    panel = read_market(prices, options)
    panel = panel.select(assets=[panel.assets[n] for n in kept_assets(panel, options)])
    if options.start is None and options.end is None:
        return panel
    return panel.select(dates=(options.start, options.end))
