"""The commands ``scikd finance``: they parse, call, and say where the result lies."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("arch")

from scikd.finance import Analysis, Strategy, align_scores, backtest, make_panel, read_panel
from scikd.finance._backtest_options import BacktestOptions

COMMANDS = {"audit", "backtest", "report"}
FILES = {"report.html", "metrics.json", "equity", "weights", "trades"}
QUICK = ("--resamples", "20")


def long_scores(scores, panel):
    row, column = np.nonzero(np.isfinite(scores))
    return pd.DataFrame(
        {
            "date": panel.dates[row].astype("M8[s]"),
            "asset": np.array(panel.assets, dtype=object)[column],
            "score": scores[row, column],
        }
    )


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Draw small pictures, which takes less time."""
    monkeypatch.setattr("scikd._plots.DPI", 20)


@pytest.fixture(scope="module")
def market():
    """A made-up market whose scores know something, with gaps and names that disappear."""
    return make_panel(200, 30, seed=1, signal=0.1, gaps=0.01, delistings=3)


@pytest.fixture
def files(market, tmp_path):
    """Give the files of scores and prices, both long."""
    scores, prices = tmp_path / "planted.csv", tmp_path / "prices.csv"
    long_scores(market.scores, market.panel).to_csv(scores, index=False)
    market.panel.to_long().reset_index().to_csv(prices, index=False)
    return scores, prices


# ---------------------------------------------------------------------------------------- help


def test_help_is_quick_and_lists_all_commands():
    program = (
        "import sys; from scikd.cli import main\n"
        "try: main(['finance', '--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *{'torch', 'sklearn', 'numba', 'pandas'}.intersection(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.rpartition("LOADED")[2].split() == []
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


def test_every_flag_of_a_strategy_says_its_default(run):
    """What a user does not give is what `Strategy` has, and the help is true."""
    assert BacktestOptions().strategy() == Strategy()
    assert BacktestOptions(published=True).strategy() == Strategy.published()
    assert BacktestOptions(published=True, lag=1, top_k=7).strategy() == Strategy.published(
        lag=1, k=7
    )
    _, out, _ = run("finance", "backtest", "--help")
    text = " ".join(out.split())
    own = Strategy()
    for flag in ("hold", "temperature", "gross", "lag", "cost_bps", "borrow_bps_per_year"):
        shown = re.search(rf"--{flag.replace('_', '-')} .*?; ([\d.]+)\. --", text)
        assert float(shown[1]) == getattr(own, flag), flag


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"top_k": 3}, {"k": 3}),
        ({"quantile": 0.1}, {"select": "quantile", "quantile": 0.1}),
        ({"long_short": True, "top_k": 4}, {"select": "long_short", "k": 4}),
        ({"long_short": True, "quantile": 0.2}, {"select": "long_short", "quantile": 0.2}),
        ({"weights": True, "gross": 2.0}, {"select": "weights", "gross": 2.0}),
    ],
)
def test_flags_choose_the_selection(given, expected):
    assert BacktestOptions(**given).strategy() == Strategy(**expected)


# ------------------------------------------------------------------------------------ backtest


def test_a_backtest_of_own_scores(run, files, market, tmp_path):
    """One command; what it writes is what the library computes."""
    scores, prices = files
    output = tmp_path / "new" / "out"
    code, out, err = run(
        *("finance", "backtest", scores, prices, "--top-k", "5", "--lag", "1"),
        *("--cost-bps", "10", "-o", output, *QUICK),
    )
    assert code == 0, err
    assert f"The tear sheet lies in {output / 'report.html'}" in out
    assert {path.stem if path.stem != "report" else path.name for path in output.iterdir()} > {
        name.removesuffix(".json") for name in FILES
    }
    panel = read_panel(prices)
    result = backtest(align_scores(market.scores, market.panel), market.panel, Strategy(k=5))
    written = json.loads((output / "metrics.json").read_text())
    found = {name: entry["value"] for name, entry in written["metrics"].items()}
    for name, metric in result.metrics().items():
        assert found[name] == pytest.approx(metric.value, rel=1e-9), name
        assert written["metrics"][name]["convention"] == metric.convention
    equity = pd.read_parquet(output / "equity.parquet")
    np.testing.assert_allclose(equity["equity"], result.equity, rtol=1e-9)
    assert {"equal_weight", "buy_and_hold"} <= set(equity.columns)
    weights = pd.read_parquet(output / "weights.parquet")
    spread = weights.pivot_table(index="date", columns="asset", values="weight")
    columns = [panel.assets.index(name) for name in spread.columns]
    dense = result.weights[:, columns]
    np.testing.assert_allclose(
        spread.fillna(0.0), dense[dense.any(axis=1) | (dense.sum(axis=1) > 0)], atol=1e-12
    )
    trades = pd.read_parquet(output / "trades.parquet")
    assert len(trades) == len(result.trades)
    page = html.unescape((output / "report.html").read_text())
    assert f"{prices} -o {output} --top-k 5 --lag 1 --cost-bps 10.0 --resamples 20" in page
    assert "<script" not in page
    assert "http://" not in page


def test_tables_are_csv_without_pyarrow(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr("scikd.finance.writing.find_spec", lambda name: None)
    output = tmp_path / "out"
    code, _, err = run("finance", "backtest", *files, "--top-k", "5", "-o", output, *QUICK)
    assert code == 0, err
    equity = pd.read_csv(output / "equity.csv")
    assert equity["date"][0] == str(Analysis.load(output).dates[0])
    assert not list(output.glob("*.parquet"))


def test_options_may_stand_in_a_file(run, files, tmp_path):
    """Flags win over it, and the outcome is the same as of flags alone."""
    options = tmp_path / "strategy.yaml"
    options.write_text("top_k: 4\nhold: 5\ncost_bps: 3\nexclude: [A00]\nresamples: 20\n")
    first = ("finance", "backtest", *files, "--options", options, "--hold", "2")
    code, _, err = run(*first, "-o", tmp_path / "a")
    assert code == 0, err
    analysis = Analysis.load(tmp_path / "a")
    assert analysis.strategy == Strategy(k=4, hold=2, cost_bps=3)
    assert analysis.facts["n_assets"] == 29


def test_a_period_uses_its_scores_only(run, files, market, tmp_path):
    days = market.panel.dates
    output = tmp_path / "out"
    code, _, err = run(
        *("finance", "backtest", *files, "--top-k", "5", *QUICK, "-o", output),
        *("--start", days[50], "--end", days[150]),
    )
    assert code == 0, err
    analysis = Analysis.load(output)
    assert analysis.facts["first_score"] == str(days[50])
    assert analysis.facts["last_score"] == str(days[150])
    assert (analysis.dates[0], analysis.dates[-1]) == (days[51], days[152])


def test_the_published_protocol_comes_with_a_caution(run, files, tmp_path):
    output = tmp_path / "out"
    code, out, err = run("finance", "backtest", *files, "--published", "-o", output, *QUICK)
    assert code == 0, err
    assert "Nobody can do that" in " ".join(out.split())
    analysis = Analysis.load(output)
    assert analysis.strategy == Strategy.published()
    assert [step.as_run for step in analysis.bill] == [True, False, False, False]


def test_an_index_may_be_the_benchmark(run, files, market, tmp_path):
    level = 100 * np.cumprod(1 + 0.001 * np.sin(np.arange(market.panel.n_dates)))
    index = pd.DataFrame({"date": market.panel.dates.astype("M8[s]"), "level": level})
    index.to_csv(tmp_path / "sine.csv", index=False)
    common = ("finance", "backtest", *files, "--top-k", "5", *QUICK)
    code, _, err = run(*common, "--benchmark", tmp_path / "sine.csv", "-o", tmp_path / "out")
    assert code == 0, err
    analysis = Analysis.load(tmp_path / "out")
    rows = np.searchsorted(market.panel.dates, analysis.dates)
    np.testing.assert_allclose(analysis.benchmarks["sine"], level[rows] / level[rows - 1] - 1)
    index[50:].to_csv(tmp_path / "short.csv", index=False)
    code, _, err = run(*common, "--benchmark", tmp_path / "short.csv", "-o", tmp_path / "no")
    assert code == 2
    assert "The benchmark has no return on" in err
    assert not (tmp_path / "no").exists()


# ------------------------------------------------------------------------------------ refusals


def change(frame, what):
    """Spoil a table of prices."""
    frame = frame.copy()
    if what == "duplicated":
        return pd.concat([frame, frame.iloc[[7]]])
    frame.loc[frame.index[7], "close"] = {"zero": 0.0, "negative": -1.0, "infinite": np.inf}[what]
    return frame


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("duplicated", "Keep one of each"),
        ("zero", "--missing-zero"),
        ("negative", "in a command --returns"),
        ("infinite", "infinite"),
    ],
)
def test_bad_prices_are_refused(run, files, tmp_path, what, text):
    scores, prices = files
    change(pd.read_csv(prices), what).to_csv(prices, index=False)
    code, _, err = run("finance", "backtest", scores, prices, "-o", tmp_path / "out", *QUICK)
    assert code == 2
    assert text in err
    assert err.startswith("scikd: ") or "\nscikd: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_unsorted_wide_prices_are_refused(run, market, tmp_path):
    close = pd.DataFrame(
        market.panel.close, index=market.panel.dates.astype("M8[s]"), columns=market.panel.assets
    )
    close.iloc[::-1].to_csv(tmp_path / "prices.csv", index_label="date")
    long_scores(market.scores, market.panel).to_csv(tmp_path / "scores.csv", index=False)
    code, _, err = run(
        "finance", "backtest", tmp_path / "scores.csv", tmp_path / "prices.csv", "-o", "out"
    )
    assert code == 2
    assert "order" in err


def spoiled(frame, what, last):
    """Spoil a table of scores."""
    frame = frame.copy()
    if what == "duplicated":
        return pd.concat([frame, frame.iloc[[7]]])
    if what == "late":
        return pd.concat([frame, frame.tail(3).assign(date="2099-01-04")])
    if what == "one day":
        return frame[frame["date"] == last]
    if what == "none":
        return frame.assign(score=np.nan)
    return frame.assign(score=np.where(frame.index == 7, np.inf, frame["score"]))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("duplicated", "Keep one of each"),
        ("late", "in a command --unknown drop"),
        ("one day", "the panel ends"),
        ("none", "no score"),
        ("infinite", "infinite"),
    ],
)
def test_bad_scores_are_refused(run, files, market, tmp_path, what, text):
    scores, prices = files
    last = str(market.panel.dates[-1])
    spoiled(pd.read_csv(scores), what, last).to_csv(scores, index=False)
    code, _, err = run("finance", "backtest", scores, prices, "-o", tmp_path / "out", *QUICK)
    assert code == 2
    assert text in err
    assert not (tmp_path / "out").exists()


def test_scores_that_do_not_fit_can_be_left_out(run, files, tmp_path):
    scores, prices = files
    frame = pd.read_csv(scores)
    pd.concat([frame, frame.tail(3).assign(date="2099-01-04")]).to_csv(scores, index=False)
    code, _, err = run(
        *("finance", "backtest", scores, prices, "--unknown", "drop", "--top-k", "5"),
        *("-o", tmp_path / "out", *QUICK),
    )
    assert code == 0, err


def test_a_day_without_members_is_refused(run, files, market, tmp_path):
    """There are scores on that day, and nobody was in the universe."""
    members = pd.DataFrame(
        {"asset": market.panel.assets, "start": str(market.panel.dates[50]), "end": ""}
    )
    members.to_csv(tmp_path / "members.csv", index=False)
    code, _, err = run(
        *("finance", "backtest", *files, "--members", tmp_path / "members.csv"),
        *("-o", tmp_path / "out", *QUICK),
    )
    assert code == 2
    dated = np.flatnonzero(np.isfinite(market.scores[:50]).any(axis=1))
    assert f"none of a member of the universe, on {len(dated)} dates: " in err
    assert "--unknown drop" in err
    code, _, err = run(
        *("finance", "backtest", *files, "--members", tmp_path / "members.csv"),
        *("--unknown", "drop", "-o", tmp_path / "out", *QUICK),
    )
    assert code == 0, err
    days = market.panel.dates[dated]
    assert f"{len(days)}, from {days[0]} to {days[-1]}" in err
    assert Analysis.load(tmp_path / "out").facts["first_score"] == str(market.panel.dates[50])


def test_equal_scores_are_traded_by_name_with_a_caution(run, files, market, tmp_path):
    scores, prices = files
    pd.read_csv(scores).assign(score=1.0).to_csv(scores, index=False)
    output = tmp_path / "out"
    code, out, err = run(
        "finance", "backtest", scores, prices, "--top-k", "2", "-o", output, *QUICK
    )
    assert code == 0, err
    assert "all scores are equal, and the order of the names decides" in " ".join(out.split())
    trades = pd.read_parquet(output / "trades.parquet")
    first = trades[trades["date"] == trades["date"].iloc[0]]
    row = np.searchsorted(market.panel.dates, first["date"].iloc[0].to_datetime64().astype("M8[D]"))
    there = np.isfinite(market.scores[row - 1]) & market.panel.member[row - 1]
    assert list(first["asset"]) == [market.panel.assets[n] for n in np.flatnonzero(there)[:2]]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--top-k", "0"), "k has to be an integer of at least 1"),
        (("--top-k", "3", "--quantile", "0.1"), "one of top_k and quantile"),
        (("--weights", "--long-short"), "one of weights and long_short"),
        (("--quantile", "1.5"), "quantile has to be in (0, 1]"),
        (("--cost-bps", "much"), "cost_bps is 'much', expected a number"),
        (("--trials", "0"), "trials of at least 1"),
        (("--start", "01.02.2020"), "start as yyyy-mm-dd"),
        (("--start", "2090-01-01"), "There is no score from 2090-01-01"),
        (("--exclude", "NOBODY"), "['NOBODY']"),
        (("--lag", "0", "--price", "open"), "the open is over"),
        (("--benchmark", "nowhere.csv"), "No such file"),
        (("--members", "nowhere.csv"), "No such file"),
    ],
)
def test_bad_flags_are_refused(run, files, tmp_path, flags, text):
    code, _, err = run("finance", "backtest", *files, *flags, "-o", tmp_path / "out", *QUICK)
    assert code == 2
    assert text in err
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------- folders that are there


def test_a_foreign_folder_is_left_alone(run, files, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("ten years of work")
    for flags in ((), ("--overwrite",)):
        code, _, err = run("finance", "backtest", *files, "-o", output, *QUICK, *flags)
        assert code == 2
        assert "Expected" in err
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


def test_a_backtest_is_replaced_when_asked_and_with_nothing_else_in_it(run, files, tmp_path):
    output = tmp_path / "out"
    command = ("finance", "backtest", *files, "--top-k", "5", "-o", output, *QUICK)
    assert run(*command)[0] == 0
    code, _, err = run(*command)
    assert code == 2
    assert "--overwrite" in err
    (output / "notes.txt").write_text("mine")
    code, _, err = run(*command, "--overwrite")
    assert code == 2
    assert "notes.txt" in err
    assert (output / "notes.txt").read_text() == "mine"
    (output / "notes.txt").unlink()
    assert run(*command, "--cost-bps", "0", "--overwrite")[0] == 0
    assert Analysis.load(output).strategy.cost_bps == 0


def test_a_full_disk_leaves_the_old_backtest(run, files, tmp_path, monkeypatch):
    output = tmp_path / "out"
    command = ("finance", "backtest", *files, "--top-k", "5", "-o", output, *QUICK)
    assert run(*command)[0] == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = run(*command, "--overwrite")
    assert code == 2
    assert "No space left on device" in err
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("command", ["backtest", "train"])
def test_a_place_that_cannot_be_written_to_is_seen_before_the_work(
    run, files, tmp_path, monkeypatch, command
):
    """Prices are not even read."""
    pytest.importorskip("torch")
    (tmp_path / "closed").mkdir()
    anywhere = tempfile.TemporaryFile

    def refuse(*args, **where):
        if where.get("dir") != tmp_path / "closed":  # numba asks for other places
            return anywhere(*args, **where)
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    inputs = files if command == "backtest" else files[1:]
    code, out, err = run("finance", command, *inputs, "-o", tmp_path / "closed" / "out")
    assert code == 2
    assert "Permission denied" in err
    assert "Check the permissions of the folder" in err
    assert "Reading" not in out + err
    assert list((tmp_path / "closed").iterdir()) == []


# -------------------------------------------------------------------------------------- report


@pytest.fixture
def folders(run, files, tmp_path):
    for k in (3, 8):
        code, _, err = run(
            "finance", "backtest", *files, "--top-k", k, "-o", tmp_path / f"top{k}", *QUICK
        )
        assert code == 0, err
    return tmp_path / "top3", tmp_path / "top8"


def test_a_report_is_drawn_again(run, folders, tmp_path):
    page = tmp_path / "again.html"
    code, out, err = run("finance", "report", folders[0], "-o", page)
    assert code == 0, err
    assert str(page) in out

    def body(path):
        return path.read_text().partition("<footer>")[0]

    assert body(page) == body(folders[0] / "report.html")


def test_a_page_replaces_a_file_only_when_asked_and_never_one_of_a_backtest(run, folders, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    code, _, err = run("finance", "report", folders[0], "-o", page)
    assert code == 2
    assert "--overwrite" in err
    assert page.read_text() == "mine"
    code, _, err = run("finance", "report", folders[0], "-o", page, "--overwrite")
    assert code == 0, err
    assert "Backtest" in page.read_text()
    for inside in ("report.html", "new.html"):
        code, _, err = run("finance", "report", *folders, "-o", folders[1] / inside, "--overwrite")
        assert code == 2
        assert f"would change {folders[1]}" in err
        assert Analysis.load(folders[1]), "a folder that somebody writes into is refused"


def test_several_are_judged_together(run, folders, tmp_path):
    code, out, err = run(
        "finance", "report", *folders, "-o", tmp_path / "both.html", "--resamples", "20"
    )
    assert code == 0, err
    assert "top3" in out
    assert "top8" in out
    assert "deflated Sharpe ratio" in out
    assert (tmp_path / "both.html").is_file()


def test_a_damaged_folder_is_refused(run, folders, tmp_path):
    (folders[0] / "arrays.safetensors").write_bytes(b"")
    code, _, err = run("finance", "report", folders[0], "-o", tmp_path / "page.html")
    assert code == 2
    assert "arrays.safetensors" in err
    assert not (tmp_path / "page.html").exists()
    code, _, err = run("finance", "report", tmp_path / "nowhere", "-o", tmp_path / "page.html")
    assert code == 2


# --------------------------------------------------------------------------------------- audit

SIGNALS = """
import numpy as np

def reversal(panel):
    scores = np.full(panel.close.shape, np.nan)
    scores[5:] = 1 - panel.close[5:] / panel.close[:-5]
    return scores

def scaled(panel):
    return panel.close / np.nanmax(panel.close, axis=0)
"""


def test_an_audit_finds_a_planted_leak_and_exits_with_one(run, files, tmp_path):
    source = tmp_path / "signals.py"
    source.write_text(SIGNALS)
    code, out, err = run("finance", "audit", f"{source}:reversal", files[1])
    assert code == 0, err
    assert "No leak was found in future and execution; splits not checked." in out
    code, out, _ = run("finance", "audit", f"{source}:scaled", files[1])
    assert code == 1
    assert "Leaks: future." in out
    code, _, err = run("finance", "audit", f"{source}:nothing", files[1])
    assert code == 2
    assert "function 'nothing'" in err
    code, _, err = run("finance", "audit", source, files[1])
    assert code == 2
    assert f"Name the function that makes scores: {source}:make_scores" in err


def test_an_audit_of_a_split(run, files, market, tmp_path):
    days = market.panel.dates
    split = ("--train-end", days[100], "--test-start", days[101], "--horizon", "5")
    code, out, _ = run("finance", "audit", *files, *split)
    assert code == 1
    assert "labels that reach into a test" in out
    code, out, err = run("finance", "audit", *files, *split[:3], days[107])
    assert code == 0, out + err
    assert "No leak was found in execution and splits; future not checked." in out
    code, out, _ = run("finance", "audit", *files)
    assert code == 0
    assert out.endswith("No leak was found in execution; future and splits not checked.\n")


# ------------------------------------------------------------------------------- train and score


def test_train_then_score_then_backtest(run, files, market, tmp_path):
    pytest.importorskip("torch")
    model, scored, days = tmp_path / "tips.scikd", tmp_path / "tips.csv", market.panel.dates
    small = ("--dim", "8", "--n-layers", "1", "--ffn", "8", "--n-heads", "2", "--every", "5")
    small += ("--teacher-epochs", "1", "--student-epochs", "2", "--swa-epochs", "1")
    small += ("--teachers", "past", "--teachers", "vanilla", "--device", "cpu")
    code, out, err = run("finance", "train", files[1], *small, "--end", days[119], "-o", model)
    assert code == 0, err
    assert str(days[119]) in out
    code, out, err = run("finance", "score", model, files[1], "--start", days[120], "-o", scored)
    assert code == 0, err
    frame = pd.read_csv(scored)
    assert list(frame.columns) == ["date", "asset", "score"]
    assert frame["date"].min() == str(days[120])
    assert f"{len(frame):,} scores lie in" in out
    assert "knows prices" not in err
    before = {path: path.read_bytes() for path in (scored, files[1], *model.iterdir())}
    again = ("finance", "score", model, files[1], "--start", days[120], "-o")
    code, _, err = run(*again, scored)
    assert code == 2
    assert f"There is a file {scored} already" in err
    for source in (files[1], model / "scores.csv"):
        code, _, err = run(*again, source, "--overwrite")
        assert code == 2
        assert "Expected an output apart from what is read" in err
    assert {path: path.read_bytes() for path in before} == before
    assert set(model.iterdir()) <= set(before)
    code, _, err = run(*again, scored, "--overwrite", "--exclude", market.panel.assets[0])
    assert code == 0, err
    assert market.panel.assets[0] not in set(pd.read_csv(scored)["asset"])
    seen = tmp_path / "seen.csv"
    code, _, err = run("finance", "score", model, files[1], "--start", days[100], "-o", seen)
    assert code == 0
    assert f"knows prices up to {days[119]}: its scores from {days[100]} until then" in err
    code, _, err = run(
        "finance", "backtest", scored, files[1], "--top-k", "5", "-o", tmp_path / "out", *QUICK
    )
    assert code == 0, err
    late = ("--start", "2090-01-01", "-o", scored, "--overwrite")
    code, _, err = run("finance", "score", model, files[1], *late)
    assert code == 2
    assert "nothing to score" in err
    code, _, err = run("finance", "score", model, files[1], "--start", days[120], "-o", "s.xls")
    assert code == 2
