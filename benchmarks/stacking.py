"""Combining out-of-fold predictions: ours against what others use, on real pools.

Twenty-three pools of 18 to 23 models, ten fixed splits each, scored on rows that nothing has
touched: see `_stacking_pools`, which trains them once and keeps them in the folder that SCIKD_RUNS
names.
The peers are means, scikit-learn, LightGBM as a last step (which overfits), and, where SCIKD_PEERS
names a folder with the environment ``tabular``, mlxtend, AutoGluon and hillclimbers. This one and
the published recipe take up to minutes a split: they take part in the first three splits, once more
against all. Then speed, and how cost grows with rows. The tables need SCIKD_DATA.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import _stacking_pools as pools
from benchmarks._stacking_ours import DEFAULT, OURS, PUBLISHED, fit
from benchmarks._stacking_peers import Answer, answers_of_others, keep, peers
from benchmarks._stacking_pools import Pool, load_pool
from benchmarks._stacking_scores import Scores, calibration_error, mean_ranks, row_losses, score
from benchmarks._stacking_speed import SCALED, published_rows, scale_rows, speed_rows
from benchmarks.harness import Row, row
from scikd.exceptions import StorageError
from scikd.stacking import PublishedStack

__all__ = ["Contest", "contest", "run"]

logger = logging.getLogger("scikd.benchmarks.stacking")

SLOW_SPLITS = 3
ROWS = (10_000, 100_000, 1_000_000)
QUICK_ROWS = (2_000,)


def run(quick: bool = False) -> list[Row]:
    """Score, rank and time; two hours where the pools are there, a few seconds if quick."""
    contests: dict[str, Contest] = {}
    with_slow: dict[str, Contest] = {}
    for name in pools.QUICK_POOLS if quick else pools.POOLS:
        only = pools.QUICK_POOLS.get(name)
        try:
            contests[name] = contest(name, 2 if quick else pools.N_SPLITS, only)
            with_slow[name] = contest(name, 1 if quick else SLOW_SPLITS, only, slow=True)
        except StorageError as error:
            logger.warning("left out %s: %s", name, error)
    rows = [one for name, held in contests.items() for one in _pool_rows(name, held)]
    for name, held in with_slow.items():
        known = contests[name].scores.names
        rows += [
            one
            for who, one in zip(held.scores.names, _pool_rows(name, held), strict=True)
            if who not in known
        ]
    for task in ("regression", "classification"):
        for what, found in ((task, contests), (f"{task}, first splits, all", with_slow)):
            held = {name: one for name, one in found.items() if one.task == task}
            rows += _rank_rows(what, held) if held else []
    later = {name: one for name, one in contests.items() if name in pools.LATER}
    rows += _rank_rows("regression, tables looked at last", later) if later else []
    timed = [name for name, one in contests.items() if one.task == "regression"]
    for name in timed[:2]:  # the pools with the most rows
        pool = load_pool(name, 0, pools.QUICK_POOLS.get(name))
        rows += speed_rows(name, pool)
        if name == "exam":
            rows += published_rows(name, pool)
    return [*rows, *(scale_rows((DEFAULT,), QUICK_ROWS) if quick else scale_rows(SCALED, ROWS))]


@dataclass(frozen=True, eq=False)
class Contest:
    """What every combiner made of the splits of one pool.

    Attributes
    ----------
    task : {"regression", "classification"}
        Whether losses are RMSE or log-loss.
    scores : Scores
        Losses of the test rows.
    calibration, used, seconds : ndarray of shape (n_splits, n_contestants)
        Calibration error (NaN in regression), models used, seconds of the fit.
    """

    task: str
    scores: Scores
    calibration: np.ndarray
    used: np.ndarray
    seconds: np.ndarray


def contest(
    name: str, n_splits: int, only: Sequence[str] | None = None, *, slow: bool = False
) -> Contest:
    """Let all combiners, or all but the slow ones, answer on every split of a pool.

    Raises
    ------
    StorageError
        If its table is not there.
    """
    losses, row_ids, calibration, used, seconds = [], [], [], [], []
    start = time.perf_counter()
    for split in range(n_splits):
        pool = load_pool(name, split, only)
        task = "classification" if pool.classes else "regression"
        folder = pools.RUNS / name / f"answers-{split}"
        answers = answers_of_others(pool, folder, slow=slow)
        with threadpool_limits(1):
            answers |= {key: combine(pool) for key, combine in peers(pool.classes).items()}
            for key, make in OURS[task].items():
                if key == PUBLISHED and not slow:
                    continue
                if split == 0 and key != PUBLISHED:
                    fit(make(), pool)  # compiles
                combine = partial(_ours, pool, make())
                # The published recipe is slow, and will not change.
                answers[key] = (
                    keep(folder / f"{key}.npz", combine) if key == PUBLISHED else combine()
                )
        losses.append(
            {key: row_losses(pool.y_test, one.prediction) for key, one in answers.items()}
        )
        row_ids.append(pool.row_id_test)
        used.append([one.used for one in answers.values()])
        seconds.append([one.seconds for one in answers.values()])
        calibration.append(
            [
                calibration_error(pool.y_test, one.prediction) if pool.classes else np.nan
                for one in answers.values()
            ]
        )
    logger.info("%s: %.0f s", name, time.perf_counter() - start)
    scores = score(losses, row_ids, root=task == "regression")
    return Contest(task, scores, np.array(calibration), np.array(used), np.array(seconds))


def _ours(pool: Pool, model: Any) -> Answer:
    start = time.perf_counter()
    fit(model, pool)
    seconds = time.perf_counter() - start
    predict = model.predict_proba if pool.classes else model.predict
    used = model.filter_.kept_ if isinstance(model, PublishedStack) else model.weights_
    return Answer(predict(pool.P_test), int(np.count_nonzero(used)), seconds)


def _pool_rows(name: str, held: Contest) -> list[Row]:
    rows, scores = [], held.scores
    unit = "log-loss" if held.task == "classification" else "RMSE"
    plain = float(scores.mean[scores.names.index("mean")])
    for number, who in enumerate(scores.names):
        difference, error, low, high = scores.difference(who, "mean")
        one = row(
            f"{name}: {who}",
            float(scores.mean[number]),
            unit,
            "mean",
            plain,
            repeats=len(scores.losses),
            minus_mean=difference,
            error=error,
            low=low,
            high=high,
            models=float(np.median(held.used[:, number])),
            seconds=float(np.median(held.seconds[:, number])),
        )
        if held.task == "classification":
            one |= {"calibration": float(held.calibration[:, number].mean())}  # type: ignore[typeddict-unknown-key]
        rows.append(one)
    return rows


def _rank_rows(task: str, held: Mapping[str, Contest]) -> list[Row]:
    """Rank those who took part in every pool; and say where they are worse than the mean."""
    rows = []
    for who, rank in mean_ranks([one.scores for one in held.values()]).items():
        worse, best = [], []
        for name, one in held.items():
            difference, error, _, _ = one.scores.difference(who, "mean")
            if difference > error:
                worse.append(name)
            winner = one.scores.names[int(np.argmin(one.scores.mean))]
            if one.scores.difference(who, winner)[2] <= 0.0:
                best.append(name)
        note = (
            f"not told apart from the best on {len(best)}; worse than the mean by more than a "
            f"standard error on {len(worse)}: {', '.join(worse) or 'none'}"
        )
        rows.append(row(f"mean rank on {len(held)} pools, {task}: {who}", rank, "rank", note=note))
    return rows
