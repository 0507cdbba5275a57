"""The section of the demonstration on graphs: molecules distilled, beside what competes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from scikd.report import PALETTE, Card, Figure, Gallery, Item, Picture, Section, Table, Text

from ._step_times import REPEATS, StepTimes, time_steps
from .distilled import DistilledGraphs
from .drawing import TreeDrawer
from .evaluation import Evaluation, EvaluationOptions, Score, evaluate
from .mirage import Mirage
from .models import ClassifierSettings
from .molecules import load_molecules, load_molecules_split
from .training import ClassifierTraining

if TYPE_CHECKING:
    from scikd.demo import Options

__all__ = ["Contest", "Gap", "hold_contest", "section"]

logger = logging.getLogger(__name__)

BUDGETS = (1_000, 5_000)  # bytes; the sets of the last are drawn
BATCH = 256
EVALUATION = EvaluationOptions(
    budgets=BUDGETS,
    methods=("mirage", "random"),
    n_hops=2,
    seeds=3,
    readouts=("sum",),
    conv="gin",
    hidden_channels=32,
    training=ClassifierTraining(),
    full_training=ClassifierTraining(steps=500, batch_size=BATCH, evaluate_every=50),
)
CLASS_NAMES = ("small gap", "middle gap", "large gap")
SETS_SHOWN, TREES_SHOWN = 6, 4
NAMES = {
    "mirage": "GIN on distilled trees",
    "random": "GIN on random molecules",
    "full": "GIN on all molecules, merged",
    "trees": "linear model of the histogram of trees",
    "size": "linear model of the numbers of atoms and bonds",
}


@dataclass(frozen=True)
class Gap:
    """AUC on distilled trees, less that on random molecules of as many bytes.

    Attributes
    ----------
    budget : int
        Bytes.
    mean, low, high : float
        The difference after the last step, and its 95 % interval over the seeds (Welch's t).
    """

    budget: int
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Which of the two is better, if one is."""
        if self.low > 0:
            return "distilled trees are better"
        return "random molecules are better" if self.high < 0 else "not told apart"


@dataclass(frozen=True, eq=False)
class Contest:
    """All that the section shows.

    Attributes
    ----------
    distilled : DistilledGraphs
        Of the largest budget.
    evaluation : Evaluation
        Scores on the test molecules.
    steps : list of StepTimes
        Of a batch, and of all training molecules.
    n_graphs : dict of str to int
        Number of molecules of ``"train"``, ``"valid"`` and ``"test"``.
    """

    distilled: DistilledGraphs
    evaluation: Evaluation
    steps: list[StepTimes]
    n_graphs: dict[str, int]

    def scores(self, method: str, budget: int | None = None) -> list[Score]:
        """Return the scores of a method, one for each seed."""
        of_all = self.evaluation.scores
        return [score for score in of_all if (score.method, score.budget) == (method, budget)]

    def gap(self, budget: int) -> Gap:
        """Compare distilled trees with random molecules of as many bytes."""
        ours, random = (
            [score.auc_last for score in self.scores(name, budget)] for name in ("mirage", "random")
        )
        test = stats.ttest_ind(ours, random, equal_var=False)
        low, high = test.confidence_interval(0.95)
        return Gap(budget, float(np.mean(ours) - np.mean(random)), float(low), float(high))


def section(options: Options) -> Section:
    """Distil molecules, train on what is left, compare; called by `scikd.demo.run_demo`."""
    contest = hold_contest(options)
    items: list[Item] = [
        _result_table(contest),
        Figure(
            "AUC and bytes",
            lambda ax: _draw_scores(ax, contest),
            note=(
                "Each dot is one seed, after the last step; lines join the means, dashed ones "
                "are trained on all molecules."
            ),
            size=(6.2, 3.6),
        ),
        _gap_table(contest),
        Text(_reading(contest)),
        *_galleries(contest.distilled),
        _stage_table(contest),
        _step_table(contest),
        Text(_method(contest)),
    ]
    return Section("Graphs: small molecules", items, summary=_summary(contest))


def hold_contest(options: Options) -> Contest:
    """Distil the molecules that come with scikd, and train on them and on what they compete with.

    Parameters
    ----------
    options : Options
        Progress, and the seed of the molecules that are timed. The seeds of the trainings are 0, 1,
        ... as in every evaluation.

    Returns
    -------
    Contest
        The distilled trees, all scores, and times.
    """
    molecules, split = load_molecules(), load_molecules_split()
    train = molecules.select(split["train"])
    # The networks are so small that a second thread would wait more than it works.
    with threadpool_limits(limits=1):
        # Also compiles the kernels, which the times below leave out.
        distilled = Mirage(EVALUATION.n_hops, budget=BUDGETS[-1]).fit(train).distilled_
        logger.info("training networks on molecules, and on what is left of them")
        evaluation = evaluate(molecules, split, EVALUATION, progress=options.progress)
        settings = ClassifierSettings(
            n_classes=len(distilled.classes),
            conv=EVALUATION.conv,
            n_layers=EVALUATION.n_hops,
            hidden_channels=EVALUATION.hidden_channels,
        )
        steps = [time_steps(train, size, settings, options.seed) for size in (BATCH, len(train))]
    sizes = {name: len(rows) for name, rows in split.items()}
    return Contest(distilled, evaluation, steps, sizes)


# ----------------------------------------------------------------------------------- tables


def _contestants() -> list[tuple[str, int | None]]:
    small: list[tuple[str, int | None]] = [
        (name, budget) for budget in BUDGETS for name in ("mirage", "random")
    ]
    return [*small, ("full", None), ("trees", None), ("size", None)]


def _result_table(contest: Contest) -> Table:
    rows = []
    for method, budget in _contestants():
        scores = contest.scores(method, budget)
        rows.append(
            [
                NAMES[method],
                round(np.mean([score.n_bytes for score in scores])),
                _items(scores),
                *(
                    _spread([getattr(score, name) for score in scores])
                    for name in ("auc_last", "auc_best", "accuracy_last")
                ),
            ]
        )
    return Table(
        "Trained on so many bytes, judged on the same test molecules",
        ("model", "bytes", "trained on", "AUC", "AUC, best on valid.", "bal. accuracy"),
        rows,
        note=(
            f"{contest.n_graphs['test']} test molecules; mean ± standard deviation over all "
            f"{EVALUATION.seeds} seeds; AUC is one class against the rest, 0.5 is guessing, and "
            "balanced accuracy of guessing is 0.33. AUC and accuracy are after the last step; the "
            "other AUC is at the step that was best on "
            f"{contest.n_graphs['valid']} validation molecules. Linear models have no seed."
        ),
        highlight_row=2 * (len(BUDGETS) - 1),
    )


def _items(scores: Sequence[Score]) -> str:
    kind = "sets of trees" if scores[0].method == "mirage" else "molecules"
    return f"{round(np.mean([score.n_items for score in scores])):,} {kind}"


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def _gap_table(contest: Contest) -> Table:
    gaps = [contest.gap(budget) for budget in BUDGETS]
    return Table(
        "Distilled trees less random molecules, in the same bytes",
        ("bytes", "difference of AUC", "95 % interval", "verdict"),
        [
            [gap.budget, f"{gap.mean:+.3f}", f"[{gap.low:+.3f}, {gap.high:+.3f}]", gap.verdict]
            for gap in gaps
        ],
        note=(
            f"Welch's interval over {EVALUATION.seeds} seeds of each, which is wide for so few. "
            "Random molecules are drawn anew for each seed, distilled trees are always the same."
        ),
    )


def _stage_table(contest: Contest) -> Table:
    rows = []
    for method, budget in _contestants():
        scores = contest.scores(method, budget)
        name = NAMES[method] if budget is None else f"{NAMES[method]}, {budget:,} bytes"
        linear = method in ("trees", "size")
        made = None if linear else float(np.mean([score.seconds_to_distil for score in scores]))
        rows.append([name, made, float(np.mean([score.seconds_to_train for score in scores]))])
    return Table(
        "Seconds of each stage",
        ("model", "make the training set", "train"),
        rows,
        note=(
            "To make: distil, draw at random, or merge. To train: means over the seeds, without "
            "the looks at the validation molecules; of the histogram with its trees and four "
            "penalties. Kernels are compiled before, which takes some seconds at the very first "
            "use. One thread."
        ),
    )


def _step_table(contest: Contest) -> Table:
    rows: list[list[object]] = []
    for times in contest.steps:
        for what, ours, theirs in (
            ("a step, the batch being there", times.merged, times.pyg),
            ("making the batch", times.merged_batch, times.pyg_batch),
        ):
            rows.append([f"{times.n_graphs:,}", what, ours, theirs, f"{theirs / ours:.1f}"])
    difference = max(times.difference for times in contest.steps)
    return Table(
        "One step of training: merged trees and PyG batches",
        ("molecules", "what", "merged (ms)", "PyG (ms)", "times faster"),
        rows,
        note=(
            f"The same GIN on the same molecules, forward, backward and Adam, one thread; medians "
            f"of {REPEATS}. Their logits differ by {difference:.0e} at most: merging loses "
            "nothing. A merged batch is cut out of all molecules, which are merged once (above). "
            "Where a step takes all, its batch is made once."
        ),
    )


# --------------------------------------------------------------------------------- pictures


def _galleries(distilled: DistilledGraphs) -> list[Item]:
    """Draw the sets of each class that are in most molecules."""
    assert distilled.supports is not None  # noqa: S101 - Mirage counts them
    draw = TreeDrawer(distilled.trees)
    sizes = distilled.provenance["graphs"]
    galleries: list[Item] = []
    for k, name in enumerate(CLASS_NAMES):
        own = np.flatnonzero(distilled.y == k)
        order = own[np.argsort(-distilled.supports[own], kind="stable")][:SETS_SHOWN]
        cards = []
        for rank, place in enumerate(order.tolist(), 1):
            share = float(distilled.supports[place]) / sizes[k]
            entries = range(distilled.ptr[place], distilled.ptr[place + 1])
            pictures = [
                Picture(draw(int(distilled.roots[e])).svg(), _times(int(distilled.counts[e])))
                for e in entries[:TREES_SHOWN]
            ]
            more = len(entries) - len(pictures)
            text = f"in {share:.0%} of the class, weight {distilled.weights[place]:,.0f}"
            cards.append(
                Card(f"Set {rank}", pictures, text + f", {more} more trees" * (more > 0), share)
            )
        note = f"The {len(cards)} most frequent of {len(own)} sets."
        galleries.append(Gallery(f"Class {k}, {name}", cards, note))
    return galleries


def _times(count: int) -> str:
    return f"at least {count} times" if count > 1 else ""


def _draw_scores(axes: Any, contest: Contest) -> None:
    for colour, method in zip(PALETTE, ("mirage", "random"), strict=False):
        groups = [contest.scores(method, budget) for budget in BUDGETS]
        dots = [(score.n_bytes, score.auc_last) for group in groups for score in group]
        axes.scatter(*zip(*dots, strict=True), color=colour, s=18, zorder=3)
        means = [
            np.mean([[score.n_bytes, score.auc_last] for score in group], axis=0)
            for group in groups
        ]
        axes.plot(*zip(*means, strict=True), color=colour, label=NAMES[method])
    for colour, method in zip(PALETTE[2:], ("full", "trees", "size"), strict=False):
        scores = contest.scores(method)
        mean = float(np.mean([score.auc_last for score in scores]))
        axes.axhline(mean, color=colour, linestyle="--", linewidth=1.2, label=NAMES[method])
        if method == "full":
            values = [score.auc_last for score in scores]
            axes.scatter([s.n_bytes for s in scores], values, color=colour, s=18, zorder=3)
    axes.set_xscale("log")
    axes.set_xlabel("bytes of the training data")
    axes.set_ylabel("AUC on test molecules")
    axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2)


# ------------------------------------------------------------------------------------- text


def _summary(contest: Contest) -> str:
    budget = BUDGETS[-1]
    gap = contest.gap(budget)
    auc: Mapping[str, str] = {
        method: _spread([score.auc_last for score in contest.scores(method, of)])
        for method, of in (
            *(("mirage", budget), ("random", budget)),
            *(("full", None), ("trees", None), ("size", None)),
        )
    }
    whole = contest.scores("full")[0].n_bytes
    step = contest.steps[0]
    return (
        f"Trained on trees of {contest.distilled.n_bytes:,} bytes, "
        f"{contest.distilled.n_bytes / whole:.1%} of the training molecules, a GIN reaches an AUC "
        f"of {auc['mirage']} on test molecules; on random molecules of as many bytes "
        f"{auc['random']} ({gap.verdict}); on all {contest.n_graphs['train']:,} molecules "
        f"{auc['full']}.\n\n"
        f"No network: a linear model of the histogram of trees of all molecules reaches "
        f"{auc['trees']}, and one of the numbers of atoms and bonds {auc['size']}. "
        f"On {step.n_graphs} molecules a training step on merged trees is "
        f"{step.pyg / step.merged:.1f} times as fast as on a PyG batch, and gives the same logits."
    )


def _reading(contest: Contest) -> str:
    linear, full = contest.scores("trees")[0], contest.scores("full")
    mean = float(np.mean([score.auc_last for score in full]))
    ahead = "ahead of" if linear.auc_last > mean else "behind"
    slow = float(np.mean([score.seconds_to_train for score in full]))
    distilling = max(score.seconds_to_distil for score in contest.scores("mirage", BUDGETS[-1]))
    return (
        f"What to take from this. Distillation takes {distilling:.1f} seconds and trains nothing; "
        "whether it beats molecules drawn at random is in the table above, and other data may say "
        "otherwise. Where all molecules are at hand, a budget only saves time and bytes. Then "
        f"count trees first: the linear model of their histogram took "
        f"{linear.seconds_to_train:.1f} seconds and is {ahead} the GIN on all molecules, which "
        f"took {slow:.1f}.\n\n"
        "Below are the sets of trees that are in most molecules of each class. A tree is what the "
        "network sees from one atom, marked by a disc: the atoms within "
        f"{contest.distilled.n_hops} bonds, rings cut open; dotted lines lead out of it. The most "
        "frequent sets need not tell classes apart: the same trees may be frequent in all."
    )


def _method(contest: Contest) -> str:
    shown, steps = EVALUATION, EVALUATION.training.steps
    return (
        "4,000 molecules of up to nine heavy atoms come with scikd; their classes are the thirds "
        f"of the gap of their orbitals in GFN2-xTB. {contest.n_graphs['train']:,} are trained on, "
        "and all sizes count graphs and trees by the same rule, integers as small as can be. "
        f"Every network is a GIN of {shown.n_hops} layers of {shown.hidden_channels} channels, sum "
        f"over atoms (or roots) as readout, dropout {shown.dropout}, Adam with {steps} steps on "
        f"the whole of a small training set, and {shown.full_training.steps} steps of {BATCH} "
        f"molecules on all of them; seeds 0 to {shown.seeds - 1}, whatever --seed is. Sizes and "
        "steps are those of a short demonstration. The penalty of the linear model of trees is "
        "chosen on the validation molecules."
    )
