"""How good distilled graphs are, by a protocol that leaves nothing to choose afterwards.

Every method gets the same split, the same number of bytes, the same network and the same number
of steps. All seeds count. Scores are given after the last step and at the best validation AUC, for
sums and means over nodes, as AUC, as balanced accuracy, and as balanced accuracy with thresholds
set on the validation graphs; and beside them stand the scores of two models that are no networks:
of the size of a graph alone, and of its histogram of trees.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scikd._atomic import atomic_write_bytes, make_folder
from scikd._progress import Progress, track
from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.report import Table

from ._arena import Arena
from .graphset import GraphSet
from .training import ClassifierTraining

__all__ = ["COSTS", "METHODS", "SCORES", "Evaluation", "EvaluationOptions", "Score", "evaluate"]

METHODS = ("mirage", "published", "committee", "random", "herding", "k-center")
"""What is compared at each number of bytes; ``full``, ``size`` and ``trees`` have no budget."""

READOUTS: tuple[Literal["sum", "mean"], ...] = ("sum", "mean")

SCORES = (
    "auc_last", "auc_best", "accuracy_last", "accuracy_best", "calibrated_last", "calibrated_best",
)  # fmt: skip
"""Names of the scores of a `Score`, in the order of the table."""

COSTS = ("seconds_to_distil", "seconds_to_train", "mib_to_distil", "mib_to_train")
"""Names of what a `Score` says of the cost."""

NOTE = (
    "At thresholds: balanced accuracy with those that suit the validation graphs best. MiB: growth "
    "of memory at its peak."
)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is compared, and how.

    Parameters
    ----------
    budgets : sequence of int or str, default=("1kB", "5kB", "20kB")
        Bytes that the training data may take.
    methods : sequence of str, default=METHODS
        Which of `METHODS`.
    n_hops : int, default=3
        Depth of trees, and layers of the networks.
    seeds : int, default=5
        How often each network is trained, with seeds 0, 1, ...
    readouts : sequence of {"sum", "mean"}, default=("sum", "mean")
        Over the nodes of a graph.
    conv : str, default="gin"
        Convolution of the networks.
    hidden_channels : int, default=64
        Width of the networks.
    dropout : float, default=0.3
        Of the networks.
    training : ClassifierTraining, default=ClassifierTraining()
        For the small training sets: whole in every step.
    full_training : ClassifierTraining, default=ClassifierTraining(steps=1000, batch_size=256)
        For the whole training set.
    n_teachers : int, default=3
        Networks of the committee, trained on the whole training set.
    """

    budgets: Sequence[int | str] = ("1kB", "5kB", "20kB")
    methods: Sequence[str] = METHODS
    n_hops: int = 3
    seeds: int = 5
    readouts: Sequence[Literal["sum", "mean"]] = READOUTS
    conv: Literal["gin", "gine", "sage", "gat", "gatv2", "gcn"] = "gin"
    hidden_channels: int = 64
    dropout: float = 0.3
    training: ClassifierTraining = field(default_factory=ClassifierTraining)
    full_training: ClassifierTraining = field(
        default_factory=lambda: ClassifierTraining(steps=1000, batch_size=256, evaluate_every=50)
    )
    n_teachers: int = 3

    def __post_init__(self) -> None:
        for what, known in (("methods", METHODS), ("readouts", READOUTS)):
            unknown = [name for name in getattr(self, what) if name not in known]
            if unknown:
                raise InvalidInputError(f"Expected {what} among {known}; got {unknown}.")
        for name in ("seeds", "n_teachers"):
            if getattr(self, name) < 1:
                message = f"Expected {name} to be at least 1; got {getattr(self, name)}."
                raise InvalidInputError(message)


@dataclass(frozen=True)
class Score:
    """What one training gave on the test graphs.

    Attributes
    ----------
    method, budget, readout, seed
        What was trained.
    n_bytes, n_items : int
        Size of the training data, and number of graphs or sets of trees in them.
    auc_last, auc_best : float
        Area under the ROC curve, after the last step and at the best validation AUC.
    accuracy_last, accuracy_best : float
        Balanced accuracy: the class of the largest logit is taken.
    calibrated_last, calibrated_best : float
        Balanced accuracy with the thresholds that suit the validation graphs best
        (`scikd.graphs.calibration.class_offsets`). What learnt on small forests ranks whole graphs,
        but its logits may lie on one side of zero.
    seconds_to_distil, seconds_to_train : float
        To make the training data, with what several methods share, and without compiling kernels;
        and of the steps, without the looks at the validation graphs.
    mib_to_distil, mib_to_train : float
        By how many MiB memory grows at the peak of these stages, the looks included, over what the
        process holds before: what is resident, whoever allocates it. NaN where the system does not
        tell it; Linux does.
    """

    method: str
    budget: int | None
    readout: str
    seed: int
    n_bytes: int
    n_items: int
    auc_last: float
    auc_best: float
    accuracy_last: float
    accuracy_best: float
    calibrated_last: float
    calibrated_best: float
    seconds_to_distil: float
    seconds_to_train: float
    mib_to_distil: float
    mib_to_train: float


@dataclass(frozen=True)
class Evaluation:
    """All scores, and their table."""

    name: str
    scores: list[Score]

    def summary(self) -> list[dict[str, Any]]:
        """Return mean and standard deviation over the seeds of each method, budget and readout."""
        groups: dict[tuple[Any, ...], list[Score]] = {}
        for score in self.scores:
            groups.setdefault((score.budget, score.method, score.readout), []).append(score)
        rows = []
        for (budget, method, readout), members in groups.items():
            row: dict[str, Any] = {
                "budget": budget,
                "method": method,
                "readout": readout,
                "seeds": len(members),
                "n_bytes": round(np.mean([score.n_bytes for score in members])),
                "n_items": round(np.mean([score.n_items for score in members])),
            }
            for name in SCORES:
                values = [getattr(score, name) for score in members]
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                row[name] = float(np.mean(values)), spread
            for name in COSTS:
                row[name] = float(np.mean([getattr(score, name) for score in members]))
            rows.append(row)
        return rows

    def write(self, folder: str | Path) -> list[Path]:
        """Write every score as ``scores.csv``, and the summary as ``summary.json``.

        Parameters
        ----------
        folder : str or pathlib.Path
            Where to; made if need be.

        Returns
        -------
        list of pathlib.Path
            The files.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, [part.name for part in fields(Score)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(score) for score in self.scores)
        summary = json.dumps({"name": self.name, "summary": self.summary()}, indent=1)
        make_folder(Path(folder))
        contents = {"scores.csv": text.getvalue(), "summary.json": summary}
        for name, content in contents.items():
            atomic_write_bytes(Path(folder) / name, content.encode("utf-8"))
        return [Path(folder) / name for name in contents]

    def table(self) -> Table:
        """Return the summary as a table: test scores as mean ± standard deviation over seeds."""
        columns = (
            "budget", "trained on", "readout", "bytes", "items", "AUC, last step", "AUC, best val.",
            "bal. acc., last", "bal. acc., best val.", "at thresholds, last",
            "at thresholds, best val.", "s to distil", "s to train", "MiB to distil",
            "MiB to train",
        )  # fmt: skip
        rows = []
        for row in self.summary():
            scores = [
                f"{mean:.3f} ± {spread:.3f}" if row["seeds"] > 1 else f"{mean:.3f}"
                for mean, spread in (row[name] for name in SCORES)
            ]
            rows.append(
                (
                    "none" if row["budget"] is None else f"{row['budget']:,}",
                    row["method"],
                    row["readout"],
                    f"{row['n_bytes']:,}",
                    row["n_items"],
                    *scores,
                    f"{row['seconds_to_distil']:.2f}",
                    f"{row['seconds_to_train']:.1f}",
                    *(f"{row[name]:.1f}" for name in ("mib_to_distil", "mib_to_train")),
                )
            )
        seeds = max(score.seed for score in self.scores) + 1
        title = f"{self.name}: test scores, mean ± sd over {seeds} seeds"
        return Table(title, columns, rows, note=NOTE)


def evaluate(
    graphs: GraphSet,
    split: Mapping[str, np.ndarray],
    options: EvaluationOptions | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress = "auto",
) -> Evaluation:
    """Compare distilled graphs with graphs of the same number of bytes, and with all graphs.

    Parameters
    ----------
    graphs : GraphSet
        All graphs, with classes.
    split : mapping of str to numpy.ndarray
        Numbers of the graphs for ``"train"``, ``"valid"`` and ``"test"``. Distillation sees the
        first alone.
    options : EvaluationOptions or None, default=None
        What is compared.
    folder : str, pathlib.Path or None, default=None
        Keeps each score as soon as it is there; a later call with the same graphs and options goes
        on from them.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Returns
    -------
    Evaluation
        The scores.

    Raises
    ------
    InvalidInputError
        If the split lacks a part, parts overlap, or one has no graph of some class.
    StorageError
        If scores cannot be kept.
    CorruptFileError
        If a score that was kept is damaged.
    """
    options = options or EvaluationOptions()
    arena, kept = Arena(graphs, split, options), _Kept(folder, graphs, split, options)
    cells, scores = arena.cells(), []
    for cell in track(cells, total=len(cells), description="evaluating", progress=progress):
        if cell in kept:
            score = kept.read(cell)
        else:
            found = arena.score(*cell)
            score = None if found is None else Score(*cell, **found)
            kept.write(cell, score)
        if score is not None:
            scores.append(score)
    return Evaluation(graphs.name or "graphs", scores)


class _Kept:
    """Scores that are there already, one file each."""

    def __init__(
        self,
        folder: str | Path | None,
        graphs: GraphSet,
        split: Mapping[str, np.ndarray],
        options: EvaluationOptions,
    ) -> None:
        self.folder = None
        if folder is not None:
            described = asdict(options)
            for name in ("budgets", "methods", "seeds", "readouts"):  # more of these may be asked
                del described[name]
            described["scores"] = [part.name for part in fields(Score)]  # older ones hold others
            arrays = [graphs.node_ptr, graphs.sources, graphs.targets, graphs.y]
            arrays += [graphs.node_features, graphs.edge_features]
            digest = fingerprint_inputs([arrays, dict(split), described])
            self.folder = Path(folder) / digest[:16]
            make_folder(self.folder)

    def __contains__(self, cell: tuple[Any, ...]) -> bool:
        path = self._path(cell)
        return path is not None and path.exists()

    def read(self, cell: tuple[Any, ...]) -> Score | None:
        path = self._path(cell)
        assert path is not None  # noqa: S101 - the caller has looked
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return None if found is None else Score(**found)
        except (ValueError, TypeError) as error:
            message = f"{path} does not hold a score: {error}. Delete it, and evaluate again."
            raise CorruptFileError(message) from error

    def write(self, cell: tuple[Any, ...], score: Score | None) -> None:
        """Keep a score; None says that nothing fits."""
        path = self._path(cell)
        if path is not None:
            found = None if score is None else asdict(score)
            atomic_write_bytes(path, json.dumps(found).encode("utf-8"))

    def _path(self, cell: tuple[Any, ...]) -> Path | None:
        return None if self.folder is None else self.folder / f"{'-'.join(map(str, cell))}.json"
