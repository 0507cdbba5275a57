"""From a file, a folder or a function to an audit of its scores."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from scikd.exceptions import InvalidInputError

from ._market_options import MarketOptions, day_of, kept_assets, read_market
from .auditing import AuditResult, audit
from .features import Convention
from .panel import Panel
from .readers import read_scores

__all__ = ["AuditOptions", "audit_from"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuditOptions(MarketOptions):
    """What is audited, and how thoroughly; each field says what it is for."""

    train_end: str | None = field(
        default=None, metadata={"help": "Last day of training, to audit the split of days."}
    )
    test_start: str | None = field(
        default=None, metadata={"help": "First day of the test that follows it."}
    )
    horizon: int = field(default=5, metadata={"help": "Days of the return that is learnt."})
    convention: Convention = field(
        default="next_close", metadata={"help": "From which price on it counts."}
    )
    cuts: int = field(
        default=3, metadata={"help": "Runs of dates after which the future is changed."}
    )
    n_seeds: int = field(default=2, metadata={"help": "Times each of them is changed."})

    def __post_init__(self) -> None:
        if (self.train_end is None) != (self.test_start is None):
            raise InvalidInputError("Expected both train_end and test_start, or neither.")


def audit_from(source: str, prices: Path, options: AuditOptions) -> AuditResult:
    """Read prices and what makes scores, and audit it."""
    make = _maker(source)
    logger.info("Reading %s", prices)
    panel = read_market(prices, options)
    kept = kept_assets(panel, options)
    chosen = panel.select(assets=[panel.assets[n] for n in kept])
    scores = read_scores(Path(source), panel)[:, kept] if make is None else make
    return audit(
        scores,
        chosen,
        splitter=_split(chosen, options),
        horizon=options.horizon,
        convention=options.convention,
        cuts=options.cuts,
        n_seeds=options.n_seeds,
    )


def _maker(source: str) -> Callable[[Panel], Any] | None:
    """Return what makes scores of a panel, or None for a file of scores."""
    file, colon, name = source.rpartition(":")
    if colon and file.endswith(".py"):
        return _function(Path(file), name)
    if source.endswith(".py"):
        raise InvalidInputError(f"Name the function that makes scores: {source}:make_scores.")
    if Path(source).is_dir():
        from .tips import TIPSRanker  # noqa: PLC0415 - only this needs torch

        predict: Callable[[Panel], Any] = TIPSRanker.load(source).predict
        return predict
    return None


def _function(file: Path, name: str) -> Callable[[Panel], Any]:
    """Run a file of the user, and return a function of it."""
    spec = spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise InvalidInputError(f"Expected a file of Python; {file} is not there.")
    module = module_from_spec(spec)
    sys.modules[file.stem] = module  # so that workers and dataclasses find it
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise InvalidInputError(f"Expected a function {name!r} in {file}; it has none.")
    made: Callable[[Panel], Any] = found
    return made


def _split(panel: Panel, options: AuditOptions) -> Any:
    if options.train_end is None or options.test_start is None:
        return None
    train = np.flatnonzero(panel.dates <= day_of(options.train_end, "train_end"))
    test = np.flatnonzero(panel.dates >= day_of(options.test_start, "test_start"))
    if len(train) == 0 or len(test) == 0:
        span = f"{panel.dates[0]} to {panel.dates[-1]}"
        raise InvalidInputError(f"Expected days of training and of a test within {span}.")
    return [(train, test)]
