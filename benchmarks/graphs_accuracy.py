"""What distilled graphs are worth: `scikd.graphs.evaluation` on six public data sets.

At each number of bytes a network is trained on what Mirage distils, on what the published algorithm
distils, on distilled trees that a committee of networks has labelled, and on graphs: random ones,
those that herding picks, and those that k-center picks. Beside them stand the whole training set,
the number of nodes and arcs alone, and a linear model of histograms of trees. Test scores over all
seeds; nothing is chosen afterwards.

The data lie outside (SCIKD_DATA). Scores are kept in the folder that SCIKD_RUNS names (default:
build/graphs-accuracy), so a run that was stopped goes on. ``--quick`` takes one small set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.harness import DATA, ROOT, Row, row
from scikd.graphs.evaluation import Evaluation, EvaluationOptions, evaluate
from scikd.graphs.graphset import GraphSet
from scikd.graphs.readers import random_split, read_ogb, read_ogb_split, read_tu_text
from scikd.graphs.training import ClassifierTraining

__all__ = ["SETS", "read_set", "run", "verdicts"]

RUNS = Path(os.environ.get("SCIKD_RUNS") or ROOT / "build" / "graphs-accuracy")
BUDGETS = ("1kB", "5kB", "20kB")
SEEDS = 5
SETS = {
    "molbace": ("ogb/ogbg_molbace", 3),
    "molbbbp": ("ogb/ogbg_molbbbp", 3),
    "NCI1": ("tu_text/NCI1.txt", 2),
    "PROTEINS": ("tu_text/PROTEINS.txt", 2),
    "IMDB-BINARY": ("tu_text/IMDBBINARY.txt", 2),
    "DD": ("tu_text_zip/DD.zip", 1),
}
"""Place of each data set, and the hops that the paper takes for it."""


def read_set(name: str) -> tuple[GraphSet, Mapping[str, np.ndarray], int]:
    """Return graphs, split and hops: the scaffold split of OGB, else 80/10/10 at random, seed 0."""
    place, n_hops = SETS[name]
    path = DATA / "graphs" / place
    if place.startswith("ogb"):
        return read_ogb(path), read_ogb_split(path), n_hops
    graphs = read_tu_text(path)
    assert graphs.y is not None
    return graphs, random_split(graphs.y, seed=0), n_hops


def run(quick: bool = False) -> list[Row]:
    """Evaluate all sets, or a little of one."""
    rows, found = [], {}
    for name in ("IMDB-BINARY",) if quick else SETS:
        graphs, split, n_hops = read_set(name)
        options = EvaluationOptions(n_hops=n_hops, budgets=BUDGETS, seeds=SEEDS)
        if quick:
            short = ClassifierTraining(steps=10)
            options = EvaluationOptions(
                n_hops=n_hops, budgets=("2kB",), seeds=1, n_teachers=1, training=short,
                full_training=short,
            )  # fmt: skip
        found[name] = evaluate(graphs, split, options, folder=None if quick else RUNS / name)
        rows += _rows(name, found[name])
    return rows + verdicts(found)


def _rows(name: str, evaluation: Evaluation) -> list[Row]:
    rows = []
    for line in evaluation.summary():
        where = "no budget" if line["budget"] is None else f"{line['budget']:,} B"
        for score, what in (
            ("auc_last", "AUC, last step"),
            ("auc_best", "AUC, best validation"),
            ("accuracy_last", "balanced accuracy, last step"),
            ("accuracy_best", "balanced accuracy, best validation"),
            ("calibrated_last", "balanced accuracy at thresholds of the validation, last step"),
            ("calibrated_best", "balanced accuracy at thresholds of the validation, best"),
        ):
            mean, spread = line[score]
            rows.append(
                row(
                    f"{name}, {where}, {line['method']}, {line['readout']}: {what}",
                    mean,
                    "",
                    sd=spread,
                    seeds=line["seeds"],
                    n_bytes=line["n_bytes"],
                    seconds=line["seconds_to_distil"] + line["seconds_to_train"],
                )
            )
        for stage in ("distil", "train"):
            what = f"{name}, {where}, {line['method']}, {line['readout']}: to {stage}"
            rows.append(row(f"{what}, time", line[f"seconds_to_{stage}"], "s"))
            rows.append(row(f"{what}, peak memory", line[f"mib_to_{stage}"], "MiB"))
    return rows + _both_readouts(name, evaluation)


def _both_readouts(name: str, evaluation: Evaluation) -> list[Row]:
    rows = []
    for (method, budget), scores in _by_seed(evaluation).items():
        where = "no budget" if budget is None else f"{budget:,} B"
        values = list(scores.values())
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        what = f"{name}, {where}, {method}: AUC, last step, mean of readouts"
        rows.append(row(what, float(np.mean(values)), "", sd=spread, seeds=len(values)))
    return rows


def _by_seed(evaluation: Evaluation) -> dict[tuple[str, int | None], dict[int, float]]:
    """Return the AUC at the last step for each method and budget, by seed, mean of readouts."""
    found: dict[tuple[str, int | None], dict[int, list[float]]] = {}
    for score in evaluation.scores:
        seeds = found.setdefault((score.method, score.budget), {})
        seeds.setdefault(score.seed, []).append(score.auc_last)
    return {
        key: {seed: float(np.mean(aucs)) for seed, aucs in seeds.items()}
        for key, seeds in found.items()
    }


def verdicts(found: Mapping[str, Evaluation]) -> list[Row]:
    """Count the sets on which Mirage beats each other method.

    By AUC at the last step, the mean over readouts and over the budgets for which both have scores.
    The value of a row is the number of sets; `gains` has for each set the mean over seeds and its
    standard error, which knows of seeds alone: another split of the graphs would change more.
    """
    rows = []
    for other in ("published", "random", "herding", "k-center", "committee"):
        gains: dict[str, tuple[float, float]] = {}
        for name, evaluation in found.items():
            scores = _by_seed(evaluation)
            pairs = [
                (scores["mirage", budget], theirs)
                for (method, budget), theirs in scores.items()
                if method == other and ("mirage", budget) in scores
            ]
            if pairs:
                of_seeds = [
                    np.mean([ours[seed] - theirs[seed] for ours, theirs in pairs if seed in theirs])
                    for seed in sorted(set().union(*(theirs for _, theirs in pairs)))
                ]
                error = np.std(of_seeds, ddof=1) / len(of_seeds) ** 0.5 if len(of_seeds) > 1 else 0
                gains[name] = float(np.mean(of_seeds)), float(error)
        wins = [name for name, (gain, _) in gains.items() if gain > 0]
        what = f"sets of {len(found)} on which mirage beats {other} (AUC, last step)"
        rows.append(row(what, float(len(wins)), "sets", sets=wins, gains=gains))
    return rows
