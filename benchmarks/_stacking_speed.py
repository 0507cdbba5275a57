"""What combining costs: our fits beside the peers' on one pool, and as rows grow to a million."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from benchmarks._stacking_ours import DEFAULT, GREEDY, OURS, PENALTIES, PUBLISHED, STAGES, fit
from benchmarks._stacking_peers import ask, environment
from benchmarks._stacking_pools import Pool
from benchmarks.harness import Row, alternate, peak_rss, row
from tests.reference import stacking_published

__all__ = ["SCALED", "published_rows", "scale_rows", "speed_rows"]

REPEATS = 3
N_MODELS = 72
LAST_STEP = "RidgeCV, 50 penalties"
SCALED = (*STAGES, *(key for key in OURS["regression"] if key != PUBLISHED), LAST_STEP)
LARGEST_FOR_PEER = 100_000


def speed_rows(name: str, pool: Pool) -> Iterator[Row]:
    """Time our combiners of a regression pool, one thread, beside those that do the same.

    Folds and row ids, which no peer takes, are given to none.
    """
    makers = OURS["regression"]
    for key, make in makers.items():
        if key == PUBLISHED:
            continue
        with threadpool_limits(1):
            ours, theirs = alternate(
                [
                    lambda make=make: make().fit(pool.P, pool.y),
                    lambda: RidgeCV(PENALTIES).fit(pool.P, pool.y),
                ],
                REPEATS,
            )
        yield row(f"{name}, fit: {key}", ours, "s", LAST_STEP, theirs, repeats=REPEATS)
    if environment() is not None:
        for peer, key in GREEDY.items():
            if key in makers:
                yield _greedy_row(name, pool, peer, key)


def _greedy_row(name: str, pool: Pool, peer: str, key: str) -> Row:
    """Fit in turns, the peer in its own process, whose start and imports do not count."""
    make = OURS["regression"][key]
    model = make().fit(pool.P, pool.y)  # compiles
    ours, theirs = [], []
    for _ in range(REPEATS):
        with threadpool_limits(1):
            start = time.perf_counter()
            make().fit(pool.P, pool.y)
            ours.append(time.perf_counter() - start)
        answer = ask(pool, [peer])[peer]
        theirs.append(answer.seconds)
    losses = [
        float(np.sqrt(np.mean((pool.y - pool.P @ weights) ** 2)))
        for weights in (model.weights_, answer.weights)
    ]
    note = f"loss of the training rows minus the peer's: {losses[0] - losses[1]:+.1e}"
    return row(
        f"{name}, fit: {key}", median(ours), "s", peer, median(theirs), repeats=REPEATS, note=note
    )


def published_rows(name: str, pool: Pool) -> Iterator[Row]:
    """Run the published recipe once as it was published; that takes minutes."""
    start = time.perf_counter()
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the original does not converge either
        stacking_published.fit(pool.P, pool.y)
        theirs = time.perf_counter() - start
        for key in (DEFAULT, PUBLISHED):
            make = OURS["regression"][key]
            (ours,) = alternate([lambda make=make: fit(make(), pool)], REPEATS)  # type: ignore[misc]
            yield row(f"{name}, fit: {key}", ours, "s", "recipe as published", theirs)


def scale_rows(keys: Iterable[str], sizes: Iterable[int]) -> Iterator[Row]:
    """Fit 72 models on more and more rows, each in a fresh process, once it has compiled."""
    for key in keys:
        for n_rows in sizes:
            if key == LAST_STEP and n_rows > LARGEST_FOR_PEER:
                continue
            with tempfile.TemporaryDirectory() as folder:
                clock = Path(folder) / "seconds.json"
                memory = peak_rss("benchmarks._stacking_speed:prepare", key, n_rows, str(clock))
                seconds = json.loads(clock.read_text())
            yield row(
                f"{N_MODELS} models x {n_rows:,} rows: {key}",
                seconds,
                "s",
                MiB=memory / 2**20,
                us_per_row=1e6 * seconds / n_rows,
            )


def prepare(key: str, n_rows: int, clock: str) -> Callable[[], object]:
    """Return the fit that `scale_rows` measures; it writes its seconds to a file."""
    random = np.random.default_rng(0)
    y = random.normal(size=n_rows)
    P = random.normal(size=(n_rows, N_MODELS))
    P *= random.uniform(0.2, 0.6, N_MODELS)
    P += (y + 0.5 * random.normal(size=n_rows))[:, None]  # models share most of their error

    def fit_rows(P: np.ndarray, y: np.ndarray) -> object:
        if key in STAGES:
            return STAGES[key](P, y)
        return (RidgeCV(PENALTIES) if key == LAST_STEP else OURS["regression"][key]()).fit(P, y)

    fit_rows(P[: 10 * N_MODELS], y[: 10 * N_MODELS])

    def work() -> object:
        start = time.perf_counter()
        result = fit_rows(P, y)
        Path(clock).write_text(json.dumps(time.perf_counter() - start))
        return result

    return work
