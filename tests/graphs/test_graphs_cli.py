"""The commands ``scikd graphs``: they parse, call, and say where the result lies."""

from __future__ import annotations

import gzip
import inspect
import re
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import typer

from scikd.graphs._datasets import SHIPPED, open_dataset
from scikd.graphs._distill_options import DistillOptions, mirage_of
from scikd.graphs.baselines import stored_bytes
from scikd.graphs.distilled import DistilledGraphs
from scikd.graphs.mirage import Mirage
from scikd.graphs.molecules import load_molecules, load_molecules_split
from scikd.graphs.readers import random_split
from scikd.persistence import save_bundle

COMMANDS = {"distill", "show", "train", "evaluate"}


@pytest.fixture
def stars(tmp_path):
    """Give a text file of 40 graphs: stars of three leaves, of class 1, and paths, of class 0."""
    star = "4 1\n7 3 1 2 3\n5 1 0\n5 1 0\n5 1 0\n"
    path = "4 0\n5 1 1\n7 2 0 2\n7 2 1 3\n5 1 2\n"
    (tmp_path / "stars.txt").write_text("40\n" + 20 * (star + path))
    return tmp_path / "stars.txt"


@pytest.fixture
def scaffolds(tmp_path):
    """Give a folder of OGB with two tasks, one split, and a graph without a label of task 1."""
    files = {
        "raw/num-node-list": "1\n" * 6,
        "raw/num-edge-list": "0\n" * 6,
        "raw/edge": "",
        "raw/node-feat": "1\n2\n1\n2\n1\n2\n",
        "raw/graph-label": "0,1\n0,0\n0,\n1,0\n1,1\n1,0\n",
        "split/scaffold/train": "0\n1\n2\n3\n",
        "split/scaffold/valid": "4\n",
        "split/scaffold/test": "5\n",
    }
    # At least one edge is needed for its file to be a table.
    files["raw/num-node-list"] = "2\n" + "1\n" * 5
    files["raw/num-edge-list"] = "1\n" + "0\n" * 5
    files["raw/edge"] = "0,1\n"
    files["raw/node-feat"] = "1\n" + files["raw/node-feat"]
    for name, content in files.items():
        file = tmp_path / "six" / f"{name}.csv.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(content.encode(), mtime=0))
    return tmp_path / "six"


# ---------------------------------------------------------------------------------------- help


def test_help_is_quick_and_lists_all_commands():
    program = (
        "import sys; from scikd.cli import main\n"
        "try: main(['graphs', '--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *{'torch', 'sklearn', 'numba', 'numpy'}.intersection(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.rpartition("LOADED")[2].split() == []
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


def test_every_command_is_a_command_and_has_help(run):
    from scikd.graphs.cli import app

    assert set(typer.main.get_command(app).list_commands(None)) >= COMMANDS
    for command in COMMANDS:
        code, out, _ = run("graphs", command, "--help")
        assert code == 0
        assert f"Usage: scikd graphs {command}" in out


def test_distill_has_a_flag_for_every_parameter_of_mirage(run):
    _, out, _ = run("graphs", "distill", "--help")
    text = " ".join(out.split())
    for name in inspect.signature(Mirage).parameters:
        assert re.search(rf"--{name.replace('_', '-')} .*? [A-Z\"]", text), name
    assert "--bins INTEGER Bins for features that are not whole numbers. [default: 8]" in text


def test_options_are_those_of_mirage():
    given = {name: p.default for name, p in inspect.signature(Mirage).parameters.items()}
    assert {field.name: field.default for field in fields(DistillOptions)} == given
    assert mirage_of(DistillOptions()).get_params() == Mirage().get_params()


@pytest.mark.parametrize(
    ("text", "expected"), [("20", 20), ("1.0", 1.0), ("0.1,0.2", [0.1, 0.2]), ("20,0.5", [20, 0.5])]
)
def test_supports_are_numbers_or_shares(text, expected):
    found = mirage_of(DistillOptions(min_support=text)).min_support
    assert found == expected
    assert type(found) is type(expected)


# ------------------------------------------------------------------------------------- distill


def test_distill_then_show(run, stars, tmp_path):
    output, page = tmp_path / "small.scikd", tmp_path / "pages" / "small.html"
    code, out, err = run(
        "graphs", "distill", stars, "--budget", "1kB", "--n-hops", "2", "-o", output
    )
    assert code == 0, err
    assert f"Reading {stars}" in err
    assert re.search(
        r"Preparing compiled kernels.*\n.*Ready after.*\n.*Distilling all 40 graphs", err
    )
    assert f"The distilled graphs lie in {output}" in out
    distilled = DistilledGraphs.load(output)
    assert distilled.n_hops == 2
    assert distilled.supports.max() == 20
    graphs = open_dataset(str(stars)).graphs
    n_bytes, whole = distilled.n_bytes, stored_bytes(graphs)
    text = " ".join(out.split())
    assert f"{len(distilled)} sets of {distilled.trees.n_trees(2)} distinct trees" in text
    assert f"take {n_bytes} bytes, {n_bytes / whole:.2%} of the {whole} bytes of 40 graphs" in text
    assert "Distilled were all 40 graphs." in text
    assert re.search(r"class 0 +20 +\d+ .* 100\.0\n", out)
    assert re.search(r"It took [\d.]+ seconds", out)

    code, out, err = run("graphs", "show", output, "-o", page)
    assert code == 0, err
    assert f"The pictures lie in {page}" in out
    assert "Class 1: the most frequent sets" in out
    assert "7(5)×3" in out  # noqa: RUF001
    source = page.read_text()
    assert source.startswith("<!doctype html>")
    assert "What is left of stars" in source
    assert source.count("<article") == distilled.trees.n_trees(2) + len(distilled)

    code, out, err = run("graphs", "show", output, "-o", page, "--trees", "1", "--sets", "1")
    assert code == 0, err
    assert page.read_text().count("<article") == 3


def test_several_files_are_distilled_as_one(run, stars, tmp_path):
    lines = stars.read_text().splitlines()
    halves = [tmp_path / "first.txt", tmp_path / "second.txt"]
    for path, part in zip(halves, (lines[1:101], lines[101:]), strict=True):
        path.write_text("\n".join(["20", *part]))
    given = ["--n-hops", "2", "--min-support", "3"]
    output = tmp_path / "halves"
    code, out, err = run("graphs", "distill", *halves, *given, "--n-jobs", "2", "-o", output)
    assert code == 0, err
    assert "Distilled were the 40 graphs for training of 2 data sets." in " ".join(out.split())
    assert run("graphs", "distill", stars, *given, "-o", tmp_path / "whole")[0] == 0
    found, whole = (DistilledGraphs.load(tmp_path / name) for name in ("halves", "whole"))
    assert found.arrays.keys() == whole.arrays.keys()
    for name, values in whole.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)
    assert run("graphs", "show", output, "-o", tmp_path / "page.html")[0] == 0

    given += ["--split", "random", "-o", tmp_path / "split"]
    assert run("graphs", "distill", *halves, *given)[0] == 0
    found = DistilledGraphs.load(tmp_path / "split")
    assert found.provenance["graphs"] == [16, 16]  # of each file 8 of 10


def test_what_several_files_cannot_do_is_said(run, stars, tmp_path):
    output = tmp_path / "d"
    for given, message in (
        ([stars, "--n-jobs", "2"], "Expected several data sets with --n-jobs"),
        ([stars, stars, "--n-jobs", "0"], "Expected at least 1 job"),
        ([stars, stars, "--mode", "lossless"], "need all graphs at once"),
        ([stars, tmp_path / "nothing.txt"], "nothing.txt: No such file or folder"),
    ):
        code, _, err = run("graphs", "distill", *given, "-o", output)
        assert code == 2
        assert message in " ".join(err.split())
        assert not output.exists()


def test_distilled_graphs_are_replaced_only_if_asked(run, stars, tmp_path):
    output = tmp_path / "small.scikd"
    assert run("graphs", "distill", stars, "-o", output, "--n-hops", "1")[0] == 0
    before = DistilledGraphs.load(output)
    code, _, err = run("graphs", "distill", stars, "-o", output, "--n-hops", "2")
    assert code == 2
    assert f"There are distilled graphs in {output} already" in err
    assert "--overwrite" in err
    assert DistilledGraphs.load(output).provenance == before.provenance
    code, _, err = run("graphs", "distill", stars, "-o", output, "--n-hops", "2", "--overwrite")
    assert code == 0, err
    assert DistilledGraphs.load(output).n_hops == 2


@pytest.mark.parametrize("kind", ["folder", "bundle", "file"])
def test_something_else_is_never_replaced(run, stars, tmp_path, kind):
    output = tmp_path / "there"
    if kind == "folder":
        output.mkdir()
        (output / "thesis.tex").write_text("dear")
    elif kind == "bundle":
        save_bundle(output, kind="another", parameters={}, arrays={"a": np.zeros(1)})
    else:
        output.write_text("dear")
    code, _, err = run("graphs", "distill", stars, "-o", output, "--overwrite")
    assert code == 2
    assert {"folder": "a folder with other content", "bundle": "another", "file": "is a file"}[
        kind
    ] in err
    assert "Reading" not in err
    assert output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "10"], "Expected a budget of at least"),
        (["--budget", "much"], "Expected a size such as 20000 or '20kB'"),
        (["--min-support", "few"], "Expected --min-support such as 20, 0.1 or 20,35; got 'few'"),
        (["--min-support", "21"], "from 1 to 20 graphs"),
        (["--n-hops", "some"], "n_hops is 'some', expected a whole number or 'auto'"),
        (["--mode", "lossless", "--budget", "1kB"], "neither budget nor min_support"),
        (["--split", "scaffold"], "Expected --split to be one of auto, all, random; got 'scaff"),
        (["--label", "x"], "Expected --label with a table of SMILES"),
        (["--smiles", "x"], "Expected --smiles with a table of SMILES; got 'x' with"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run, stars, tmp_path, options, message):
    code, _, err = run("graphs", "distill", stars, "-o", tmp_path / "new" / "d", *options)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("scikd: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "new").exists()


def test_what_is_not_there_is_said(run, stars, tmp_path):
    code, _, err = run("graphs", "distill", tmp_path / "absent.txt", "-o", tmp_path / "d")
    assert code == 2
    assert "absent.txt" in err
    code, _, err = run("graphs", "show", tmp_path / "absent", "-o", tmp_path / "page.html")
    assert code == 2
    assert "absent" in err
    save_bundle(tmp_path / "other", kind="another", parameters={}, arrays={"a": np.zeros(1)})
    code, _, err = run("graphs", "show", tmp_path / "other", "-o", tmp_path / "page.html")
    assert code == 2
    assert "another" in err
    code, _, err = run("graphs", "show", stars, "-o", tmp_path / "page.html")
    assert code == 2
    assert not (tmp_path / "page.html").exists()


# -------------------------------------------------------------------------------------- splits


def test_the_molecules_that_ship_are_split_as_they_come():
    data = open_dataset(SHIPPED)
    for name, members in load_molecules_split().items():
        np.testing.assert_array_equal(data.parts[name], members)
    assert data.describe("train").startswith(f"the {len(data.parts['train']):,} graphs of the part")
    whole = open_dataset(SHIPPED, split="all")
    assert len(whole.part("train")) == len(load_molecules())


def test_a_random_split_has_a_seed(stars):
    data = open_dataset(str(stars), split="random", seed=3)
    for name, members in random_split(data.graphs.y, 3).items():
        np.testing.assert_array_equal(data.parts[name], members)
    assert (
        data.describe("train") == "the 32 graphs of the part 'train' of a random split with seed 3"
    )


def test_a_split_of_ogb_is_taken_and_graphs_without_a_label_are_not(scaffolds, caplog):
    data = open_dataset(str(scaffolds), label="0")
    assert data.parts["train"].tolist() == [0, 1, 2, 3]
    assert data.describe("test") == "the 1 graph of the part 'test' of the split 'scaffold'"
    data = open_dataset(str(scaffolds), split="scaffold", label="1")
    assert "1 of 6 graphs have no label and are left out" in caplog.text
    assert data.parts["train"].tolist() == [0, 1, 3]
    assert data.part("train").y.tolist() == [1, 0, 0]
    assert data.part("train").y.dtype == np.int64
    whole = open_dataset(str(scaffolds), split="all", label="1")
    assert whole.parts["train"].tolist() == [0, 1, 3, 4, 5]


def test_one_of_several_labels_has_to_be_said(run, scaffolds, tmp_path):
    code, _, err = run("graphs", "distill", scaffolds, "-o", tmp_path / "d")
    assert code == 2
    assert "Say which by --label." in err


def test_a_table_of_smiles_can_be_distilled(run, tmp_path):
    pytest.importorskip("rdkit")
    table = tmp_path / "alcohols.csv"
    rows = ["smiles,other,is_alcohol"]
    rows += [f"{'C' * n}O,0,1\n{'C' * n},0,0" for n in range(1, 8)]
    table.write_text("\n".join(rows))
    output, page = tmp_path / "d", tmp_path / "page.html"
    code, out, err = run(
        "graphs", "distill", table, "--label", "is_alcohol", "--n-hops", "1", "-o", output
    )
    assert code == 0, err
    assert "14 graphs of alcohols" in out
    code, out, err = run("graphs", "show", output, "-o", page)
    assert code == 0, err
    assert "OH(C)" in out
    assert ">OH</text>" in page.read_text() or ">HO</text>" in page.read_text()


def test_the_column_of_smiles_can_be_said(run, tmp_path):
    pytest.importorskip("rdkit")
    table = tmp_path / "alcohols.csv"
    rows = [f"a,{'C' * n}O,1\na,{'C' * n},0" for n in range(1, 21)]
    table.write_text("\n".join(["Smiles of what,mol,is_alcohol", *rows]))
    code, _, err = run("graphs", "distill", table, "-o", tmp_path / "d")
    assert code == 2
    assert "Say which by --smiles and --label." in err
    which = ["--smiles", "mol", "--label", "is_alcohol", "--split", "random"]
    small = ["--hidden-channels", "4", "--steps", "2"]
    few = ["--budgets", "1kB", "--methods", "random", "--seeds", "1", "--full-steps", "2"]
    code, out, err = run("graphs", "distill", table, *which, "--n-hops", "1", "-o", tmp_path / "d")
    assert code == 0, err
    assert "32 graphs of alcohols" in out
    code, out, err = run("graphs", "train", table, *which, *small, "-o", tmp_path / "m")
    assert code == 0, err
    code, out, err = run("graphs", "evaluate", table, *which, *small, *few, "-o", tmp_path / "e")
    assert code == 0, err
