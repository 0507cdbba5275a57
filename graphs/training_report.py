"""Pages about classifiers: the learning curve of a training, and the scores of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scikd.report import PALETTE, Figure, Report, Section, Table, Text

from .dag import MergedGraphs
from .evaluation import METHODS, Evaluation
from .training import TrainedClassifier, evaluate_logits, predict_logits

__all__ = [
    "best_step",
    "evaluation_report",
    "plot_learning_curve",
    "plot_scores",
    "score_table",
    "training_report",
]

LINES = {"full": "all graphs", "trees": "tree histogram", "size": "size only"}
DASHES = {"full": (0, ()), "trees": (0, (5, 2)), "size": (0, (1, 1.5))}
MARKERS = dict(zip(METHODS, "osD^vP", strict=True))
APART = 1.07  # factor between the dots of one budget


def score_table(result: TrainedClassifier, parts: Mapping[str, MergedGraphs]) -> Table:
    """Return the scores after the last step, and at the best validation AUC.

    Parameters
    ----------
    result : TrainedClassifier
        The training.
    parts : mapping of str to MergedGraphs
        Graphs with classes to judge by, such as ``"validation"`` and ``"test"``.
    """
    rows = []
    models = {"last": result.model} | ({} if result.best is result.model else {"best": result.best})
    for name, model in models.items():
        step = int(result.history[-1]["step"]) if name == "last" else best_step(result)
        row: list[object] = [f"{'last step' if name == 'last' else 'best validation AUC'}", step]
        for graphs in parts.values():
            y = np.empty(0) if graphs.y is None else graphs.y.numpy()
            row += list(evaluate_logits(predict_logits(model, graphs), y).values())
        rows.append(row)
    columns = ["classifier", "step"]
    columns += [f"{part} {score}" for part in parts for score in ("AUC", "bal. acc.")]
    return Table("Scores", columns, rows)


def best_step(result: TrainedClassifier) -> int:
    """Return the step of the best validation AUC; the last where there is none."""
    looks = [row for row in result.history if np.isfinite(row.get("auc", np.nan))]
    best = max(looks, key=lambda row: row["auc"]) if looks else result.history[-1]
    return int(best["step"])


def training_report(
    result: TrainedClassifier,
    parts: Mapping[str, MergedGraphs],
    *,
    source: str = "",
    title: str = "Training of a classifier of graphs",
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Return a report of a training: scores and the learning curve.

    Parameters
    ----------
    result : TrainedClassifier
        The training.
    parts : mapping of str to MergedGraphs
        As for `score_table`.
    source : str, default=""
        What it was trained on, in words.
    title : str, default="Training of a classifier of graphs"
        Title of the page.
    options : mapping of str to object, or None, default=None
        What was asked for, to be written on the page.
    """
    judged = "auc" in result.history[0]

    def draw(grid: Any) -> None:
        axes = grid if judged else [grid]
        plot_learning_curve(axes[0], result.history, {"loss": "training"})
        axes[0].set_ylabel("loss")
        axes[0].set_ylim(bottom=0.0)
        if judged:
            names = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
            plot_learning_curve(axes[1], result.history, names)
            axes[1].axvline(best_step(result), color="black", linewidth=1.0, alpha=0.6)
            axes[1].set_ylabel("validation score")
            axes[1].legend(fontsize=8.0)

    note = "The line marks the best validation AUC." if judged else ""
    size, panels = ((6.6, 2.7), (1, 2)) if judged else ((4.2, 2.7), None)
    items: list[Table | Figure | Text] = [score_table(result, parts)] if parts else []
    items.append(Figure("Learning curve", draw, note=note, size=size, panels=panels))
    items += _asked(options)
    last = result.history[-1]
    summary = (
        f"{int(last['step'])} steps in {result.seconds:.3g} seconds; the loss of the last one was "
        f"{last['loss']:.3g}."
    )
    settings = result.model.settings
    n_weights = sum(p.numel() for p in result.model.parameters())
    subtitle = (
        f"{settings.conv.upper()}, {settings.n_layers} layer{'s' * (settings.n_layers > 1)}, "
        f"{settings.readout} over nodes, "
        f"{n_weights:,} parameters"
    )
    if source:
        subtitle += f"; trained on {source}"
    return Report(title, [Section("Training", items, summary)], subtitle=subtitle)


def plot_learning_curve(
    axes: Any, history: Sequence[Mapping[str, float]], names: Mapping[str, str]
) -> None:
    """Draw columns of a history over the steps.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    history : sequence of mapping of str to float
        As in `TrainedClassifier.history`.
    names : mapping of str to str
        Columns, and what to call them.
    """
    marker = "o" if len(history) < 3 else None  # of one or two points there is no line
    steps = [row["step"] for row in history]
    for (name, label), colour in zip(names.items(), PALETTE, strict=False):
        axes.plot(steps, [row[name] for row in history], color=colour, label=label, marker=marker)
    axes.grid()
    axes.set_xlabel("step")


def evaluation_report(
    evaluation: Evaluation, *, title: str = "", options: Mapping[str, Any] | None = None
) -> Report:
    """Return a report of a comparison: score against bytes, and the table.

    Parameters
    ----------
    evaluation : Evaluation
        The scores.
    title : str, default=""
        Title of the page; empty takes the name of the data.
    options : mapping of str to object, or None, default=None
        What was asked for, to be written on the page.
    """
    readouts = list(dict.fromkeys(s.readout for s in evaluation.scores if s.readout != "none"))
    figures = [
        _figure(evaluation, score, what, readouts)
        for score, what in (
            ("auc", "AUC"),
            ("accuracy", "balanced accuracy"),
            ("calibrated", "balanced accuracy, thresholds set on validation graphs"),
        )
    ]
    seeds = len({score.seed for score in evaluation.scores})
    summary = (
        f"Every method has the same graphs to choose from, the same bytes, network, steps and "
        f"{seeds} seed{'s' * (seeds > 1)}. Lines drawn across have no budget: all training graphs; "
        "a linear model of the histogram of trees; one of the numbers of nodes and arcs alone. A "
        "method that is no better than the last says nothing about structure."
    )
    section = Section("Test scores at each number of bytes", figures, summary)
    table = Section("All numbers", [evaluation.table(), *_asked(options)])
    return Report(
        title or f"Distilled graphs against others of the same size: {evaluation.name}",
        [section, table],
    )


def plot_scores(axes: Any, evaluation: Evaluation, name: str, readout: str) -> None:
    """Draw mean test scores over bytes, with whiskers of one standard deviation.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw; its horizontal axis becomes logarithmic.
    evaluation : Evaluation
        The scores.
    name : str
        Which score: "auc_last", "calibrated_best", ...
    readout : str
        Over the nodes: "sum" or "mean". Models that are no networks are drawn with any.
    """
    rows = [row for row in evaluation.summary() if row["readout"] in (readout, "none")]
    for method, label in LINES.items():
        for mean, _ in (row[name] for row in rows if row["method"] == method):
            axes.axhline(
                mean, color="black", alpha=0.65, linewidth=1.2, linestyle=DASHES[method],
                label=label, zorder=1,
            )  # fmt: skip
    budgets = sorted({row["budget"] for row in rows if row["budget"] is not None})
    for place, method in enumerate(METHODS):
        own = sorted(
            (row["budget"], *row[name])
            for row in rows
            if row["method"] == method and row["budget"] is not None
        )
        if own:
            x, mean, spread = np.array(own).T
            axes.errorbar(
                x * APART ** (place - (len(METHODS) - 1) / 2), mean, spread,
                color=PALETTE[place], marker=MARKERS[method], markersize=5.0, linewidth=1.4,
                elinewidth=1.2, capsize=2.5, label=method,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(budgets, [_spelled(size) for size in budgets])
    axes.set_xticks([], minor=True)
    axes.grid(axis="y")


def _figure(evaluation: Evaluation, score: str, what: str, readouts: Sequence[str]) -> Figure:
    moments = {"last": "after the last step", "best": "at the best validation AUC"}

    def draw(grid: Any) -> None:
        panels = iter(grid)
        for readout in readouts:
            for moment, words in moments.items():
                axes = next(panels)
                plot_scores(axes, evaluation, f"{score}_{moment}", readout)
                axes.set_title(f"{readout} over nodes, {words}", fontsize=9.0)
        for axes in grid[::2]:
            axes.set_ylabel(f"test {what.partition(',')[0]}")
        limits = [axes.get_ylim() for axes in grid]
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        for axes in grid:
            axes.set_ylim(low, high)
        for axes in grid[-2:]:
            axes.set_xlabel("bytes of training data")
        handles, labels = grid[0].get_legend_handles_labels()
        page = grid[0].get_figure()
        page.legend(
            handles, labels, loc="outside lower center", ncols=5, fontsize=8.0, frameon=False
        )

    note = (
        "Mean over the seeds; whiskers are one standard deviation. Dots of one budget are drawn "
        "side by side."
    )
    size = (7.2, 0.9 + 2.6 * len(readouts))
    return Figure(f"Test {what}", draw, note=note, size=size, panels=(len(readouts), 2))


def _asked(options: Mapping[str, Any] | None) -> list[Text]:
    given = ", ".join(f"{name}={value}" for name, value in (options or {}).items())
    return [Text(f"Options: {given}.")] if given else []


def _spelled(size: int) -> str:
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size} B"
