"""The commands ``scikd stack``: tables in, a small file, a table and a page out."""

import json
import re
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from scikd.demo import Options
from scikd.exceptions import InvalidInputError
from scikd.persistence import MANIFEST
from scikd.report import Figure, Report, Table
from scikd.stack_commands import demo
from scikd.stack_commands.figures import calibration_figure
from scikd.stack_commands.options import StackOptions
from scikd.stack_commands.page import stack_report
from scikd.stack_commands.tables import read_oof
from scikd.stacking import MetaClassifier, MetaRegressor, load_frozen

N = 200
QUICK = ("--n-resamples", 20)


@pytest.fixture(scope="module")
def regression():
    """A table of four models of a number."""
    random = np.random.default_rng(0)
    y = random.normal(size=N)
    table = pd.DataFrame({"id": np.arange(N), "fold": np.arange(N) % 5, "y": y})
    for name, noise in {"lgb_a": 0.5, "lgb_b": 0.6, "knn": 0.9, "mlp": 0.7}.items():
        table[name] = y + noise * random.normal(size=N)
    return table.assign(lgb_copy=table["lgb_a"], site=np.repeat(list("abcde"), N // 5))


@pytest.fixture(scope="module")
def classes():
    """A table of three models of three classes."""
    random = np.random.default_rng(0)
    labels = np.array(["ant", "bee", "cat"])
    truth = labels[random.integers(3, size=N)]
    table = pd.DataFrame({"truth": truth})
    for name in ("tree", "bayes", "line"):
        scores = np.exp(random.normal(size=(N, 3)) + 1.5 * (truth[:, None] == labels))
        proba = scores / scores.sum(axis=1, keepdims=True)
        table[[f"{name}__{label}" for label in labels]] = proba
    return table


def saved(table, path):
    """Write a CSV."""
    table.to_csv(path, index=False)
    return path


def test_help_is_quick_and_lists_all_commands():
    """Nothing heavy is loaded for it."""
    program = (
        "import sys; from scikd.cli import main\n"
        "try: main(['stack', '--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *{'sklearn', 'numba', 'numpy', 'pandas'}.intersection(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.rpartition("LOADED")[2].split() == []
    for command in ("fit", "predict", "report"):
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize("command", ["fit", "report", "predict"])
def test_every_command_has_help(run, command):
    """With a line for every flag."""
    code, out, _ = run("stack", command, "--help")
    assert code == 0
    assert "--output" in out


def test_fit_and_predict_numbers(run, regression, tmp_path):
    """The file holds what Python finds; predict reads it back."""
    source = saved(regression, tmp_path / "oof.csv")
    stack, out_file = tmp_path / "a" / "stack.scikd", tmp_path / "p.csv"
    flags = ("--target", "y", "--fold", "fold", "--row-id", "id", "--exclude", "site", *QUICK)
    code, out, err = run("stack", "fit", source, *flags, "-o", stack)
    assert code == 0, err
    for word in ("blend", "best_single", "of 5 models are needed", "1 were dropped", str(stack)):
        assert word in out
    names = ["lgb_a", "lgb_b", "knn", "mlp", "lgb_copy"]
    fold, ids = regression["fold"], regression["id"]
    meta = MetaRegressor(n_resamples=20).fit(
        regression[names], regression["y"], fold=fold, row_id=ids
    )
    assert json.loads((stack / MANIFEST).read_text())["parameters"]["task"] == "regression"
    code, out, err = run("stack", "predict", stack, source, "--row-id", "id", "-o", out_file)
    assert code == 0, err
    assert f"200 predictions lie in {out_file}" in out
    found = pd.read_csv(out_file)
    assert list(found.columns) == ["id", "prediction"]
    np.testing.assert_allclose(found["prediction"], meta.predict(regression[names]))


def test_a_blend_that_gains_nothing_gives_way_and_the_commands_say_so(run, tmp_path):
    """Not silently: the weights are then those of the mean."""
    random = np.random.default_rng(0)
    y = random.normal(size=N)
    table = pd.DataFrame({"y": 10 * y})
    for name in "abcd":
        table[name] = 10 * y + random.normal(size=N)
    source, stack = saved(table, tmp_path / "oof.csv"), tmp_path / "stack.scikd"
    options = ("--target", "y", "--combiner", "blend", *QUICK)
    code, out, err = run("stack", "fit", source, *options, "-o", stack)
    assert code == 0, err
    weights = json.loads((stack / MANIFEST).read_text())["parameters"]["weights"]
    assert list(weights.values()) == [0.25] * 4
    assert "the mean is used instead" in out
    assert "Warning" not in err
    assert "4 models on 200 rows: a, b, c, d" in err


def test_fit_and_predict_classes(run, classes, tmp_path):
    """Columns MODEL__CLASS; labels and probabilities come out."""
    source = saved(classes, tmp_path / "oof.csv")
    stack, out_file = tmp_path / "stack.scikd", tmp_path / "p.csv"
    flags = ("--target", "truth", "--classes", "auto", *QUICK)
    code, out, err = run("stack", "fit", source, *flags, "-o", stack)
    assert code == 0, err
    assert "log-loss" in out
    code, _, err = run("stack", "predict", stack, source, "-o", out_file)
    assert code == 0, err
    found = pd.read_csv(out_file)
    assert list(found.columns) == ["prediction", "ant", "bee", "cat"]
    np.testing.assert_allclose(found[["ant", "bee", "cat"]].sum(axis=1), 1.0)
    assert (found["prediction"] == classes["truth"]).mean() > 0.7


def test_two_classes_as_one_column(classes, tmp_path):
    """The probability of the second label."""
    table = pd.DataFrame({"truth": (classes["truth"] == "ant").astype(int)})
    for name in ("tree", "line"):
        table[name] = classes[f"{name}__ant"]
    source = saved(table, tmp_path / "oof.csv")
    found = read_oof([source], StackOptions(target="truth", classes=("0", "1")))
    cube = found.P.filled()
    assert cube.shape == (N, 2, 2)
    np.testing.assert_allclose(cube[:, 0, 1], table["tree"])
    assert found.P.classes.tolist() == [0, 1]


def test_separate_files_are_joined_by_id(run, classes, regression, tmp_path):
    """Whatever the order of their rows; a model is named by its file."""
    truth = saved(regression[["id", "y"]], tmp_path / "truth.csv")
    shuffled = regression.sample(frac=1.0, random_state=0)
    files = [saved(shuffled[["id", name]], tmp_path / f"{name}.oof.csv") for name in ("knn", "mlp")]
    table = read_oof([truth, *files], StackOptions(target="y", row_id="id"))
    assert table.P.names == ("knn", "mlp")
    np.testing.assert_allclose(table.P.filled(), regression[["knn", "mlp"]])
    parts = [saved(classes[["truth"]], tmp_path / "labels.csv")]
    for name in ("tree", "line"):
        part = classes[[f"{name}__{c}" for c in ("bee", "ant", "cat")]]
        parts.append(saved(part.set_axis(["bee", "ant", "cat"], axis=1), tmp_path / f"{name}.csv"))
    stack = tmp_path / "stack.scikd"
    flags = ("--target", "truth", "--classes", "auto", *QUICK)
    assert run("stack", "fit", *parts, *flags, "-o", stack)[0] == 0
    out_file = tmp_path / "p.csv"
    code, _, err = run("stack", "predict", stack, *parts, "-o", out_file)
    assert code == 0, err
    labels = ("ant", "bee", "cat")
    named = {m: classes[[f"{m}__{c}" for c in labels]].to_numpy() for m in ("tree", "line")}
    expected = load_frozen(stack).predict_proba(named)
    np.testing.assert_allclose(pd.read_csv(out_file)[list(labels)], expected)


def test_parquet_and_patterns(regression, tmp_path):
    """Columns are chosen by name or pattern."""
    regression.to_parquet(tmp_path / "oof.parquet")
    options = StackOptions(target="y", models=("lgb*", "mlp"), exclude=("*copy",))
    table = read_oof([tmp_path / "oof.parquet"], options)
    assert table.P.names == ("lgb_a", "lgb_b", "mlp")


def test_report_of_numbers(run, regression, tmp_path):
    """One page, with all figures and tables."""
    source = saved(regression.drop(columns="site"), tmp_path / "oof.csv")
    page = tmp_path / "page.html"
    flags = ("--target", "y", "--fold", "fold", "--row-id", "id", *QUICK)
    code, out, err = run("stack", "report", source, *flags, "-o", page)
    assert code == 0, err
    assert f"The page lies in {page}" in out
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 8  # four figures, light and dark
    for words in ("plain mean", "Correlation of residuals", "lgb_copy", "duplicate of lgb_a"):
        assert words in text


def test_a_page_says_what_was_computed(classes, tmp_path):
    """The risk table is the comparison, the weights are those of the model."""
    source = saved(classes, tmp_path / "oof.csv")
    table = read_oof([source], StackOptions(target="truth", classes=("auto",)))
    meta = MetaClassifier(n_resamples=20).fit(table.P, table.y)
    report = stack_report(meta, table.P, table.y, source="a test")
    items = [item for section in report.sections for item in section.items]
    tables = {item.title: item for item in items if isinstance(item, Table)}
    risk = tables["Combiners on rows that they were not fitted on"]
    losses = [row[1] for row in risk.rows]
    np.testing.assert_allclose(losses, list(meta.comparison_.losses.values()))
    assert risk.rows[risk.highlight_row][0] == "log"
    weights = {row[0]: row[1] for row in tables["Weights"].rows}
    mean = MetaClassifier("mean", evaluate=None).fit(table.P, table.y)
    page = stack_report(mean, table.P, table.y)
    said = next(i for s in page.sections for i in s.items if getattr(i, "title", "") == "Weights")
    assert [row[1] for row in said.rows] == pytest.approx([1 / 3] * 3)
    log = meta.combiner_
    expected = log.weights_.sum() + log.centre_exponent_
    assert sum(weights.values()) == pytest.approx(expected)
    assert len([item for item in items if isinstance(item, Figure)]) == 4
    for figure in (item for item in items if isinstance(item, Figure)):
        assert figure.pngs((False, True))


def test_shares_have_whiskers_that_are_shares():
    """Few rows of a bin, nearly all of them right."""
    random = np.random.default_rng(0)
    first = random.uniform(size=40)
    proba, y = np.stack([first, 1 - first], axis=1), (random.uniform(size=40) > first).astype(int)
    figure, _ = calibration_figure(proba, y, np.ones(40), np.array([0, 1]))
    axes = Mock()
    figure.draw(axes)
    (_, mean), given = axes.errorbar.call_args
    low, high = given["yerr"]
    assert low.max() > 0
    assert (mean - low).min() >= -1e-12
    assert (mean + high).max() <= 1 + 1e-12


def test_the_section_of_the_demo_shows_what_was_computed():
    """The table is the comparison of the stack, and the formula its frozen form."""
    options = Options(progress=False)
    stack, _ = demo.fitted_stack(options)
    text = Report("test", [demo.section(options)]).to_text()
    assert str(stack.freeze()).split(" * ")[0] in text
    assert f"{stack.meta_.score_.value:.4g} on held-out rows" in text
    for name in stack.comparison_.names:
        assert name.replace("_", " ") in text


BAD = {
    "missing target": ({"target": "yy"}, "has no column 'yy': did you mean 'y'"),
    "text column": ({"target": "y"}, "'site' hold text, not predictions"),
    "text target": ({"target": "site"}, "'site' holds text: for classes pass --classes"),
    "unknown model": ({"target": "y", "models": ("lgbm_a",)}, "no model 'lgbm_a': did you mean"),
    "unknown fold": ({"target": "y", "fold": "folds"}, "no column 'folds': did you mean 'fold'"),
    "nothing left": ({"target": "y", "exclude": ("*",)}, "nothing to stack"),
    "no class column": (
        {"target": "site", "classes": ("auto",), "exclude": ("site",)},
        "has no column MODEL__CLASS for the classes 'a', 'b'",
    ),
    "foreign class": ({"target": "site", "classes": ("a", "b")}, "The target holds 'c', 'd', 'e'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_columns(regression, tmp_path, what):
    """Say what was expected, what came, and what to do."""
    options, text = BAD[what]
    source = saved(regression, tmp_path / "oof.csv")
    with pytest.raises(InvalidInputError, match=re.escape(text)):
        read_oof([source], StackOptions(**options))


def test_ids_and_folds_are_no_models(regression, tmp_path):
    """Forgotten flags do not make models of them; who names them as models gets them."""
    table = regression.drop(columns="site").reset_index(names="Unnamed: 0")
    source = saved(table, tmp_path / "oof.csv")
    with pytest.raises(InvalidInputError, match="'Unnamed: 0', 'fold' do not look like pred"):
        read_oof([source], StackOptions(target="y", row_id="id"))
    options = {"target": "y", "row_id": "id", "exclude": ("Unnamed*",)}
    found = read_oof([source], StackOptions(**options, fold="fold"))
    assert found.P.names == ("lgb_a", "lgb_b", "knn", "mlp", "lgb_copy")
    found = read_oof([source], StackOptions(**options, models=("lgb_*", "fold")))
    assert found.P.names == ("fold", "lgb_a", "lgb_b", "lgb_copy")


def spoilt(regression, what):
    """Return the table with one thing wrong."""
    table = regression.drop(columns="site")
    if what == "missing truth":
        table.loc[3, "y"] = np.nan
    elif what == "too few rows":
        return table.iloc[:10]
    elif what == "twice in a fold":
        table.loc[5, "id"] = 0
    elif what == "empty model":
        table["knn"] = np.nan
    return table


@pytest.mark.parametrize(
    ("what", "options", "text"),
    [
        ("missing truth", {}, "'y' is missing in 1 rows"),
        ("too few rows", {}, "it has 10 rows, expected at least 20"),
        ("twice in a fold", {"row_id": "id", "fold": "fold"}, "1 rows have the id and the fold of"),
        ("empty model", {"exclude": ("id", "fold")}, "'knn' hold no prediction at all"),
    ],
)
def test_bad_rows(regression, tmp_path, what, options, text):
    """All problems of the rows at once."""
    source = saved(spoilt(regression, what), tmp_path / "oof.csv")
    with pytest.raises(InvalidInputError, match=re.escape(text)):
        read_oof([source], StackOptions(target="y", **options))


def test_errors_on_the_command_line_are_one_line(run, regression, tmp_path):
    """And nothing is written."""
    source = saved(regression, tmp_path / "oof.csv")
    stack = tmp_path / "stack.scikd"
    code, _, err = run("stack", "fit", source, "--target", "z", "-o", stack)
    assert code == 2
    assert "scikd: " in err.splitlines()[-1]
    assert not stack.exists()
    code, _, err = run("stack", "fit", tmp_path / "no.csv", "--target", "y", "-o", stack)
    assert code == 2
    assert "No such file" in err
    (tmp_path / "text.parquet").write_text("no parquet")
    code, _, err = run("stack", "fit", tmp_path / "text.parquet", "--target", "y", "-o", stack)
    assert "neither a CSV nor a parquet file" in err
    code, _, err = run(
        "stack", "fit", source, "--target", "y", "--classes", "a", "--features", "std"
    )
    assert "neither features nor a recipe for classes" in err


def test_a_stack_is_not_replaced_unasked(run, regression, tmp_path):
    """But with --overwrite."""
    source = saved(regression.drop(columns=["id", "fold", "site"]), tmp_path / "oof.csv")
    stack = tmp_path / "stack.scikd"
    flags = ("--target", "y", *QUICK, "-o", stack)
    assert run("stack", "fit", source, *flags)[0] == 0
    code, _, err = run("stack", "fit", source, *flags)
    assert code == 2
    assert "There is a stack in" in err
    assert run("stack", "fit", source, *flags, "--overwrite")[0] == 0


def test_prediction_files_that_do_not_fit(run, regression, tmp_path):
    """A model is missing, or an id comes twice."""
    source = saved(regression.drop(columns="site"), tmp_path / "oof.csv")
    stack = tmp_path / "stack.scikd"
    flags = ("--target", "y", "--models", "knn", "--models", "mlp", *QUICK, "-o", stack)
    assert run("stack", "fit", source, *flags)[0] == 0
    short = saved(regression[["id", "knn"]], tmp_path / "short.csv")
    code, _, err = run("stack", "predict", stack, short, "-o", tmp_path / "p.csv")
    assert code == 2
    assert "no predictions of 'mlp'" in err
    twice = saved(regression[["id", "mlp"]].assign(id=0), tmp_path / "mlp.csv")
    code, _, err = run("stack", "predict", stack, short, twice, "--row-id", "id")
    assert "Cannot join by 'id': 0 comes twice in mlp" in err
    other = saved(regression[["mlp"]].iloc[:50], tmp_path / "mlp.csv")
    code, _, err = run("stack", "predict", stack, short, other)
    assert "mlp has 50 rows, the first file 200" in err
