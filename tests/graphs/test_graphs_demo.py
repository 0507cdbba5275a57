"""The section of the demonstration on graphs: what it shows is what was computed."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch_geometric")

from scikd.demo import Options
from scikd.graphs import demo, load_molecules, load_molecules_split
from scikd.graphs.baselines import stored_bytes
from scikd.graphs.training import ClassifierTraining
from scikd.report import Gallery, Report, Table

QUICK = ClassifierTraining(steps=3, batch_size=64, evaluate_every=3)


@pytest.fixture(scope="module")
def shown():
    """A section of short trainings, and the contest behind it."""
    contests, hold = [], demo.hold_contest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scikd.graphs._step_times.REPEATS", 2)
        patch.setattr(
            demo,
            "EVALUATION",
            replace(demo.EVALUATION, seeds=2, training=QUICK, full_training=QUICK),
        )
        patch.setattr(
            demo, "hold_contest", lambda options: contests.append(hold(options)) or contests[-1]
        )
        return demo.section(Options(n_jobs=1, progress=False)), contests[0]


def test_a_section_of_numbers_figures_and_trees(shown):
    """Each contestant has its mean over all seeds; the pictures are those of the kept sets."""
    section, contest = shown
    text = Report("test", [section]).to_text()
    table = next(item for item in section.items if isinstance(item, Table))
    for name, row in zip(demo._contestants(), table.rows, strict=True):
        scores = contest.scores(*name)
        assert row[0] == demo.NAMES[name[0]]
        assert row[3].startswith(f"{np.mean([score.auc_last for score in scores]):.3f}")
        assert row[3].split()[0] in text
    galleries = [item for item in section.items if isinstance(item, Gallery)]
    assert len(galleries) == len(contest.distilled.classes)
    for k, gallery in enumerate(galleries):
        own = contest.distilled.supports[contest.distilled.y == k]
        assert gallery.cards[0].share == own.max() / contest.distilled.provenance["graphs"][k]
        assert all(card.pictures[0].svg.startswith("<svg") for card in gallery.cards)
    assert Report("test", [section]).to_html().count("data:image/png;base64,") == 2


def test_contestants_have_the_same_bytes_and_all_seeds(shown):
    """Neither exceeds the budget; the networks are trained once for each seed."""
    _, contest = shown
    for budget in demo.BUDGETS:
        for method in ("mirage", "random"):
            scores = contest.scores(method, budget)
            assert [score.seed for score in scores] == [0, 1]
            assert all(0.9 * budget < score.n_bytes <= budget for score in scores)
    train = load_molecules().select(load_molecules_split()["train"])
    assert contest.scores("full")[0].n_bytes == stored_bytes(train)
    assert contest.distilled.n_bytes <= demo.BUDGETS[-1]


def test_merged_trees_and_batches_give_the_same_logits(shown):
    """What is timed is the same computation."""
    _, contest = shown
    assert [times.n_graphs for times in contest.steps] == [demo.BATCH, contest.n_graphs["train"]]
    for times in contest.steps:
        assert times.difference < 1e-4
        assert min(times.merged, times.pyg, times.merged_batch, times.pyg_batch) > 0


def test_a_verdict_needs_an_interval_without_zero():
    verdicts = [demo.Gap(1, 0.0, *ends).verdict for ends in ((0.1, 0.2), (-0.2, -0.1), (-1, 1))]
    assert verdicts == [
        "distilled trees are better",
        "random molecules are better",
        "not told apart",
    ]


def test_a_gap_is_the_difference_of_the_means(shown):
    _, contest = shown
    gap = contest.gap(demo.BUDGETS[0])
    ours, random = (
        np.mean([score.auc_last for score in contest.scores(name, demo.BUDGETS[0])])
        for name in ("mirage", "random")
    )
    assert gap.mean == pytest.approx(ours - random)
    assert gap.low < gap.mean < gap.high
