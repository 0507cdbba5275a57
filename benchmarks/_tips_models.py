"""The models that `benchmarks.tips` compares; trains them and keeps their scores.

Every model is trained on the days up to the end of training, with labels that know nothing after
it. Scores of the days of validation and test are kept in the folder that SCIKD_RUNS names (default:
build/tips), and networks that are under way leave a checkpoint after each epoch, so that training
can be stopped at any time: ``python -m benchmarks._tips_models`` does only this. First come the
teachers, the student and the trees of all panels, then the other models, then the next seed. Delete
the folder after changing models or panels.

The budget is four hours of one core. Networks train on 5,000 stock-days a second, and three seeds
of ten networks see the 250,000 stock-days of all panels six times each: 2.5 hours. Scoring, trees
and stacks take the rest.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from benchmarks._tips_panels import LOOK_BACK, PANELS, Market, load_market
from benchmarks.harness import ROOT
from scikd._atomic import atomic_write
from scikd.exceptions import StorageError
from scikd.finance import (
    Panel,
    Samples,
    SignalStack,
    TIPSRanker,
    forward_returns,
    reference_models,
    tips_features,
)
from scikd.finance.backbone import Ranker, RankerSettings
from scikd.finance.recurrent import RecurrentRanker, RecurrentSettings
from scikd.finance.training import RankerTraining, predict_scores, train_ranker
from scikd.harmonise import Harmoniser
from scikd.stacking import MetaRegressor

__all__ = ["FULL", "SEEDS", "Plan", "kept_scores", "make_scores", "wanted"]

logger = logging.getLogger("scikd.benchmarks.tips")

RUNS = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / "tips")
SEEDS = (0, 1, 2)
HORIZON = 5
ENSEMBLE, STUDENT = "teacher ensemble", "TIPS student"
SMALL = "TIPS student that reads the last day"
SIMPLE = ("momentum 12-1", "reversal 5", "equal weight")


@dataclass(frozen=True)
class Plan:
    """How networks are trained.

    The paper trains teachers for 100 epochs at a learning rate of 1e-4 and students for 20, of
    which the last 10 are averaged. That takes days of a CPU, so epochs are fewer and steps larger.
    """

    epochs: int = 6
    swa_epochs: int = 3
    learning_rate: float = 1e-3


FULL = Plan()


def wanted(market: Market, seed: int, plan: Plan, folder: Path) -> dict[str, Callable[[], None]]:
    """Return what makes the scores of one seed, in the order in which it matters.

    The keys are names of files, each of which holds the scores of one model or several.
    """
    makers: dict[str, Callable[[], Mapping[str, np.ndarray]]] = {
        "tips": lambda: _tips(market, seed, plan, folder / "networks"),
        "ridge": lambda: _reference(market, "ridge", seed),
        "lightgbm": lambda: _reference(market, "lightgbm", seed),
        "simple": lambda: _simple(market),
        "vanilla with SWA": lambda: _network(market, "vanilla with SWA", seed, plan),
        "GRU": lambda: _network(market, "GRU", seed, plan),
        "stack": lambda: _stack(market, seed),
        "stack of all": lambda: _stack_of_all(market, folder),
    }
    return {name: lambda name=name: _keep(folder, name, makers[name]) for name in makers}


def make_scores(
    names: Sequence[str], seeds: Sequence[int] = SEEDS, plan: Plan = FULL, folder: Path = RUNS
) -> None:
    """Train what is not in the folder yet; panels without a file are left out."""
    markets = {}
    for name in names:
        try:
            markets[name] = load_market(name)
        except StorageError as error:
            logger.warning("left out %s: %s", name, error)
    with threadpool_limits(1):
        for seed in seeds:
            tasks = {
                name: wanted(market, seed, plan, folder / name / str(seed))
                for name, market in markets.items()
            }
            first = ("tips", "ridge", "lightgbm", "simple")
            for chosen in (first, [one for one in _files() if one not in first]):
                for name in tasks:
                    for what in chosen:
                        tasks[name][what]()


def kept_scores(folder: Path) -> dict[str, np.ndarray]:
    """Return the scores of all models in a folder, of the days of `Market.later`."""
    found: dict[str, np.ndarray] = {}
    for name in _files():
        path = folder / f"{name}.npz"
        if path.is_file():
            with np.load(path) as file:
                found |= {key: file[key] for key in file.files if key != "seconds"}
    return found


def _files() -> tuple[str, ...]:
    return (
        "tips",
        "ridge",
        "lightgbm",
        "simple",
        "vanilla with SWA",
        "GRU",
        "stack",
        "stack of all",
    )


def _keep(folder: Path, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
    path = folder / f"{name}.npz"
    if path.is_file():
        return
    start = time.process_time()
    scores = make()
    seconds = time.process_time() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: np.savez_compressed(file, seconds=seconds, **scores))
    logger.info("%s, seed %s, %s: %.1f s", folder.parent.name, folder.name, name, seconds)


def _samples(market: Market) -> Samples:
    """Return the labelled samples of training: those that `TIPSRanker` makes of the panel."""
    panel = market.training
    label = forward_returns(panel, HORIZON)
    return Samples.of(panel, tips_features(panel), label).select_days(market.every)


def _later(panel: Panel) -> Samples:
    return Samples.of(panel, tips_features(panel))


def _tips(market: Market, seed: int, plan: Plan, folder: Path) -> dict[str, np.ndarray]:
    """Return the scores of the seven teachers, their mean, and the student."""
    ranker = TIPSRanker(
        look_back=LOOK_BACK,
        teacher_epochs=plan.epochs,
        student_epochs=plan.epochs,
        swa_epochs=plan.swa_epochs,
        learning_rate=plan.learning_rate,
        horizon=HORIZON,
        every=market.every,
        device="cpu",
        random_state=seed,
        folder=folder,
    ).fit(market.training)
    teachers = ranker.predict_teachers(market.later)
    scores = {f"teacher: {name}": one for name, one in teachers.items()}
    scores[ENSEMBLE] = np.mean(list(teachers.values()), axis=0)
    scores[STUDENT] = ranker.predict(market.later)
    samples = _samples(market)
    each = [predict_scores(one, samples, device="cpu") for one in ranker.teachers_.values()]
    return scores | _network(market, SMALL, seed, plan, np.mean(each, axis=0), folder / "small")


def _network(
    market: Market,
    name: str,
    seed: int,
    plan: Plan,
    targets: np.ndarray | None = None,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of a network that was trained like a teacher, or taught by all of them."""
    samples = _samples(market)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readout = "mean" if targets is None else "last"
        model = (
            RecurrentRanker(RecurrentSettings("gru", samples.n_features))
            if name == "GRU"
            else Ranker(RankerSettings(samples.n_features, readout=readout))
        )
    options = RankerTraining(
        plan.epochs,
        learning_rate=plan.learning_rate,
        swa_epochs=0 if name == "GRU" else plan.swa_epochs,
        device="cpu",
        seed=seed,
    )
    trained = train_ranker(
        model, samples, options, targets=targets, folder=folder, name=name, progress=False
    ).model
    later = _later(market.later)
    return {name: later.spread(predict_scores(trained, later, device="cpu"))}


def _reference(market: Market, name: str, seed: int) -> dict[str, np.ndarray]:
    """Return the scores of ridge regression or of trees, of ranks within days on flat windows."""
    samples, later = _samples(market), _later(market.later)
    ((_, model),) = reference_models([name], seed=seed)
    model = clone(model).fit(_flat(samples), _ranks(samples.label, samples.rows))
    return {name: later.spread(model.predict(_flat(later)))}


def _stack(market: Market, seed: int) -> dict[str, np.ndarray]:
    """Return the scores of a stack of the two that was taught on the days of training only."""
    models = reference_models(("ridge", "lightgbm"), seed=seed)
    stack = SignalStack(models, horizon=HORIZON, every=market.every, progress=False)
    return {"stack of both": stack.fit(market.training).predict(market.later)}


def _stack_of_all(market: Market, folder: Path) -> dict[str, np.ndarray]:
    """Return the scores of a stack of networks, ridge and trees, with weights of validation.

    No model saw validation; its labels end before the test.
    """
    panel, first = market.later, market.first_test
    scores = kept_scores(folder)
    names = [name for name in scores if name not in {ENSEMBLE, "stack of both", *SIMPLE}]
    later = _later(panel)
    ranks = np.stack([_ranks(scores[one][later.rows, later.columns], later.rows) for one in names])
    label = forward_returns(panel.select(slice(0, first)), HORIZON)
    learnt = later.rows < first
    y = np.full(len(later), np.nan)
    y[learnt] = label[later.rows[learnt], later.columns[learnt]]
    rows = np.flatnonzero(np.isfinite(y))
    y, mean = _ranks(y[rows], later.rows[rows]), ranks[:, rows].mean(axis=0)
    # Ranks that hardly correlate differ in scale from what is expected of the label's.
    scale = max(float(mean @ y / (mean @ mean)), 0.01)
    weeks = later.rows[rows] // HORIZON  # days whose labels overlap
    model = MetaRegressor("ridge", redundancy=None, evaluate=None)
    model.fit(scale * ranks[:, rows].T, y, groups=weeks)
    return {"stack of all": later.spread(model.predict(scale * ranks.T))}


def _simple(market: Market) -> dict[str, np.ndarray]:
    """Return two rules that need no training, and scores that are all alike."""
    close, later = market.panel.close, market.later
    momentum, reversal = (np.full(close.shape, np.nan) for _ in range(2))
    momentum[252:] = close[231:-21] / close[:-252] - 1.0
    reversal[5:] = 1.0 - close[5:] / close[:-5]
    samples, begin = _later(later), market.panel.n_dates - later.n_dates
    there = samples.spread(np.zeros(len(samples)))
    tables = (momentum[begin:], reversal[begin:], np.zeros_like(there))
    return {name: table + there for name, table in zip(SIMPLE, tables, strict=True)}


def _flat(samples: Samples) -> np.ndarray:
    return samples.windows().reshape(len(samples), -1)


def _ranks(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Return ranks within days, from -0.5 to 0.5."""
    assert values is not None
    ranks = Harmoniser("rank", per="group").transform(values[None], groups=rows)
    return ranks[0] - 0.5


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    make_scores(list(PANELS))
