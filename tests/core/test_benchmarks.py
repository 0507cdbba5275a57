"""Benchmarks have one form: a command, a table, a JSON list."""

import json

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from benchmarks import core, harness, students
from benchmarks.__main__ import available, main
from scikd.demo.tables import load_table

KEYS = {"name", "value", "unit", "peer", "peer_value", "ratio"}


def test_every_benchmark_is_listed_and_an_unknown_one_says_which_there_are(capsys):
    """`python -m benchmarks NAME`."""
    assert {"core", "students"} <= set(available())
    try:
        code = main(["nope"])
    except SystemExit as stop:
        code = stop.code
    out = capsys.readouterr()
    assert code
    assert "students" in out.out + out.err + str(code)


def test_rows_are_written_as_json_and_shown_as_a_table(tmp_path, monkeypatch, capsys):
    """The ratio is the peer's value over ours."""
    rows = [harness.row("sum", 2.0, "s", "numpy", 6.0), harness.row("alone", 1.0, "s", None, None)]
    monkeypatch.setattr(core, "run", lambda quick: rows)
    assert not main(["core", "--quick", "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    assert [set(one) >= KEYS for one in written] == [True, True]
    assert written[0]["ratio"] == 3.0
    assert written[1]["ratio"] is None
    assert "numpy" in capsys.readouterr().out


def test_overhead_is_counted_against_the_teachers_own_time(monkeypatch):
    """The clocked teachers' seconds are part of the whole, and no more."""
    (one,) = core.out_of_fold(quick=True)
    assert 0 < one["peer_value"] < one["value"]
    assert "overhead" in one["note"]


def test_a_split_of_the_student_benchmark_is_honest(monkeypatch):
    """All contestants on the same rows, none of which was trained on."""
    monkeypatch.setattr(
        "scikd.demo.tabular.make_teachers",
        lambda task, seed: {"bayes": GaussianNB()},
    )
    monkeypatch.setattr(students, "LARGEST", 200)
    table = load_table("wine")
    for name, outcome in students.one_split(table, 0).items():
        assert name in {"boosted trees", "one tree"}
        assert set(outcome.losses) == {"distilled", "alone", "naive", "teachers"}
        assert all(np.isfinite(loss) for loss in outcome.losses.values())
        assert outcome.distilled.teacher_.names == ("bayes",)
        # Rows of this table are distinct, so a training row cannot hide among the test rows.
        assert len(outcome.distilled.labels_) + len(outcome.X_test) == len(table.y)


@pytest.mark.slow
def test_quick_benchmarks_run():
    """The quick form of the core's benchmark, as a user would call it."""
    assert not main(["core", "--quick"])
