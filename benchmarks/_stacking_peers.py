"""How others combine a pool: plain means, scikit-learn, LightGBM, and packages in `SCIKD_PEERS`.

Every combiner gets a `Pool` and returns an `Answer`: predictions of the test rows, the number of
base models that it needs for them, and the seconds of its fit.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV

from benchmarks._stacking_ours import PENALTIES
from benchmarks._stacking_pools import Pool
from benchmarks._stacking_scores import row_losses
from benchmarks._stacking_worker import Column, Columns
from benchmarks.harness import peer_python, run_worker
from scikd._atomic import atomic_write

__all__ = [
    "Answer",
    "Combiner",
    "answers_of_others",
    "ask",
    "environment",
    "keep",
    "peers",
    "stacking",
]

OTHERS = ("AutoGluon 25", "AutoGluon 100", "mlxtend")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a combiner made of a pool."""

    prediction: np.ndarray
    used: int
    seconds: float
    weights: np.ndarray | None = None


Combiner = Callable[[Pool], Answer]


def peers(classes: bool) -> dict[str, Combiner]:
    """Return the combiners that need no environment of their own."""
    common: dict[str, Combiner] = {
        "mean": lambda pool: _averaged(pool, _equal),
        "best single": lambda pool: _averaged(pool, _best),
    }
    if classes:
        return common | {
            "inverse log-loss": lambda pool: _averaged(pool, _inverse),
            "StackingClassifier": lambda pool: _fitted(pool, stacking(pool)),
            "LightGBM": lambda pool: _fitted(pool, LGBMClassifier(n_jobs=1, verbose=-1)),
        }
    return common | {
        "inverse RMSE": lambda pool: _averaged(pool, _inverse),
        "OLS": lambda pool: _fitted(pool, LinearRegression()),
        "StackingRegressor": lambda pool: _fitted(pool, stacking(pool)),
        "StackingRegressor, 50": lambda pool: _fitted(pool, stacking(pool, RidgeCV(PENALTIES))),
        "LightGBM": lambda pool: _fitted(pool, LGBMRegressor(n_jobs=1, verbose=-1)),
    }


def _averaged(pool: Pool, weigh: Callable[[Pool], np.ndarray]) -> Answer:
    start = time.perf_counter()
    weights = weigh(pool)
    seconds = time.perf_counter() - start
    prediction = np.tensordot(pool.P_test, weights, ([1], [0]))
    return Answer(prediction, int(np.count_nonzero(weights)), seconds, weights)


def _equal(pool: Pool) -> np.ndarray:
    return np.full(len(pool.names), 1.0 / len(pool.names))


def _losses(pool: Pool) -> np.ndarray:
    columns = [pool.P[:, number] for number in range(len(pool.names))]
    means = np.array([row_losses(pool.y, column).mean() for column in columns])
    return means if pool.classes else np.sqrt(means)


def _best(pool: Pool) -> np.ndarray:
    return np.eye(len(pool.names))[np.argmin(_losses(pool))]


def _inverse(pool: Pool) -> np.ndarray:
    weights = 1.0 / _losses(pool)
    return weights / weights.sum()


def stacking(pool: Pool, final_estimator: Any = None) -> Any:
    """Return scikit-learn's stacker whose models hand over their columns of the pool.

    Fitted on the out-of-fold matrix it is what it would be had it made this matrix itself, except
    that it does not cross-validate; so its seconds are those of the last step.
    """
    X = pool.P.reshape(len(pool.P), -1)
    column = Columns if pool.classes else Column
    members = [(key, column(number).fit(X, pool.y)) for number, key in enumerate(pool.names)]
    if pool.classes:
        return StackingClassifier(
            members, final_estimator, cv="prefit", stack_method="predict_proba"
        )
    return StackingRegressor(members, final_estimator, cv="prefit")


def _fitted(pool: Pool, model: Any) -> Answer:
    X, X_test = (P.reshape(len(P), -1) for P in (pool.P, pool.P_test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a logistic regression that does not converge
        start = time.perf_counter()
        model.fit(X, pool.y)
        seconds = time.perf_counter() - start
        prediction = model.predict_proba(X_test) if pool.classes else model.predict(X_test)
    return Answer(prediction, len(pool.names), seconds)


def environment() -> Path | None:
    """Return the interpreter of the peers' environment, or None where there is none."""
    return peer_python("tabular")


def ask(pool: Pool, names: Sequence[str]) -> dict[str, Answer]:
    """Ask combiners of the peers' environment, in a process of their own."""
    python = environment()
    if python is None:
        msg = "the environment of the peers is not there: SCIKD_PEERS names the folder it is in"
        raise FileNotFoundError(msg)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "pool.npz", Path(folder) / "answers.npz"
        np.savez(source, P=pool.P, y=pool.y, P_test=pool.P_test)
        script = Path(__file__).with_name("_stacking_worker.py")
        run_worker(python, script, str(source), str(target), *names)
        with np.load(target) as found:
            return {name: _answer(found, f"{name}|") for name in names}


def answers_of_others(pool: Pool, folder: Path, *, slow: bool) -> dict[str, Answer]:
    """Return what packages of the peers' environment make of a pool, from this folder if kept.

    hillclimbers is slow; it knows one column a model, and is left out where there are more than
    two classes.
    Without the environment there are only the answers that were kept.
    """
    many = pool.classes and pool.P.shape[2] > 2
    names = [*OTHERS, "hillclimbers"] if slow and not many else [*OTHERS]
    files = {name: folder / f"{name}.npz" for name in names}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing and environment() is not None:
        for name, answer in ask(pool, missing).items():
            _keep(files[name], answer)
    return {name: _kept(file) for name, file in files.items() if file.is_file()}


def keep(file: Path, combine: Callable[[], Answer]) -> Answer:
    """Return the answer that this file keeps; combine only if there is none."""
    if not file.is_file():
        _keep(file, combine())
    return _kept(file)


def _keep(file: Path, answer: Answer) -> None:
    values = {key: value for key, value in vars(answer).items() if value is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, lambda stream: np.savez(stream, **values))


def _kept(file: Path) -> Answer:
    with np.load(file) as found:
        return _answer(found)


def _answer(found: Mapping[str, np.ndarray], prefix: str = "") -> Answer:
    given = {key: found[prefix + key] for key in ("prediction", "used", "seconds")}
    return Answer(
        given["prediction"],
        int(given["used"]),
        float(given["seconds"]),
        found.get(f"{prefix}weights"),
    )
