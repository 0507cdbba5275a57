"""The commands ``scikd stack``: tables in, a small file, a table and a page out."""

import json
import re
import subprocess
import sys
from unittest.mock import Mock, patch

import numpy as np
import pandas as pd
import pytest

from scikd.demo import Options
from scikd.exceptions import InvalidInputError
from scikd.persistence import MANIFEST
from scikd.report import Figure, Report, Table
from scikd.stack_commands import demo
from scikd.stack_commands._hints import times_repeated
from scikd.stack_commands.figures import calibration_figure
from scikd.stack_commands.options import StackOptions
from scikd.stack_commands.page import HELD_OUT, stack_report
from scikd.stack_commands.tables import read_oof
from scikd.stacking import MetaClassifier, MetaRegressor, load_frozen
from scikd.stacking._predictions import Predictions

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
    words = ("blend", "best_single", "of 5 models are needed", str(stack))
    said = ("1 were dropped as redundant (the mean is that of the other 4)", HELD_OUT)
    for word in (*words, *said):
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
    code, out, err = run("stack", "fit", source, *options, "--limits", "5", "-o", stack)
    assert code != 0
    assert "limits to be auto, none or two numbers" in err
    code, out, _ = run(
        *("stack", "fit", source, *options, "--limits", "-20", "--limits", "20"),
        *("-o", tmp_path / "cut.scikd"),
    )
    assert code == 0
    assert "cut to -20 ... 20, which changed" in out
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
    assert HELD_OUT in text
    assert "the plain mean of the 4 that are not redundant" in text
    for words in ("Correlation of residuals", "lgb_copy", "duplicate of lgb_a"):
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


def repeated(row, y, classes=None):
    """Return predictions of rows that recur by models of several trainings, and their truth."""
    random = np.random.default_rng(1)
    own = y[:, None] + random.normal(size=(len(y), 1))
    P = own[row] + 0.3 * random.normal(size=(len(row), 4))
    if classes is not None:
        second = 1 / (1 + np.exp(-P))
        P = np.stack([1 - second, second], axis=2)
    return Predictions.of(P, classes=classes), y[row]


@pytest.mark.parametrize("kind", ["numbers", "few numbers", "ties", "classes"])
def test_repeats_are_seen(kind):
    """In blocks; and of numbers in any order, even where different rows have the same truth."""
    random = np.random.default_rng(0)
    y = {
        "numbers": random.normal(size=N),
        "few numbers": random.integers(5, size=N).astype(float),
        "ties": random.normal(size=N // 3)[random.integers(N // 3, size=N)],
        "classes": random.integers(2, size=N),
    }[kind]
    classes = np.array([0, 1]) if kind == "classes" else None
    P, truth = repeated(np.tile(np.arange(N), 3), y, classes)
    shuffled = random.permutation(len(truth))
    once, alone = repeated(np.arange(N), y, classes)
    assert times_repeated(P, truth) == 3
    assert times_repeated(once, alone) == 1
    found = times_repeated(P.take(shuffled), truth[shuffled])
    assert found == (3 if kind in {"numbers", "ties"} else 1)


def test_repeats_of_classes_in_any_order():
    """Classes come as --classes lists them."""
    row = np.tile(np.arange(N), 3)
    P, truth = repeated(row, np.random.default_rng(0).integers(2, size=N), np.array([0, 1]))
    turned = Predictions.of(P.filled()[:, :, ::-1], classes=[1, 0], names=P.names)
    assert times_repeated(turned, truth) == times_repeated(P, truth) == 3


@pytest.mark.filterwarnings("error")
def test_a_target_that_does_not_vary_gives_no_warning():
    """Its slope is not looked for."""
    P = Predictions.of(np.random.default_rng(0).normal(size=(N, 3)))
    assert times_repeated(P, np.full(N, 5.0)) == 1


@pytest.mark.parametrize("times", [5, 24])
def test_levels_and_seasons_are_no_repeats(times):
    """Truths recur, and rows do not: errors tell."""
    y = np.tile(np.sin(np.arange(24.0)), times)
    for order in (np.arange(len(y)), np.argsort(y)):
        P, truth = repeated(np.arange(len(y)), y[order])
        assert times_repeated(P, truth) == 1


def test_the_commands_hint_at_flags_that_are_missing(run, tmp_path):
    """Of repeats and of two classes, and not where they were given."""
    P, y = repeated(np.tile(np.arange(N), 3), np.random.default_rng(0).normal(size=N))
    table = pd.DataFrame(P.values, columns=list("abcd")).assign(y=y, id=np.tile(range(N), 3))
    source, stack = saved(table, tmp_path / "oof.csv"), tmp_path / "stack.scikd"
    flags = ("--target", "y", *QUICK, "-o", stack, "--overwrite")
    _, _, err = run("stack", "fit", source, *flags, "--exclude", "id")
    assert "The 600 rows look like 200 rows, 3 times each" in err
    assert "--row-id" in err
    _, _, err = run("stack", "fit", source, *flags, "--row-id", "id")
    assert "look like" not in err
    table = (table[:N] > 0).astype(float).drop(columns="id")
    table[list("abcd")] = 0.8 * table[list("abcd")] + 0.1
    source = saved(table, tmp_path / "two.csv")
    _, out, err = run("stack", "fit", source, *flags)
    assert "'y' holds two values only, 0 and 1: it is taken for a number" in err
    assert "RMSE" in out
    _, out, err = run("stack", "fit", source, *flags, "--classes", "auto")
    assert "two values" not in err
    assert "log-loss" in out


@pytest.mark.parametrize("recipe", ["none", "published"])
def test_the_commands_say_that_they_compile(run, regression, tmp_path, recipe):
    """Before the work that is timed, with the flags of that; but for the recipe, which is slow."""
    source = saved(regression[["y", "knn", "mlp"]], tmp_path / "oof.csv")
    fit = MetaRegressor.fit
    with patch.object(MetaRegressor, "fit", autospec=True, side_effect=fit) as timed:
        flags = ("--target", "y", "--combiner", "ridge", "--recipe", recipe, *QUICK)
        code, _, err = run("stack", "fit", source, *flags, "-o", tmp_path / "stack.scikd")
    assert code == 0, err
    prepared = err.index("Preparing compiled kernels: some seconds the first time")
    assert prepared < err.index("Ready after") < err.index("Stacking 2 models")
    small, real = (call.args[0] for call in timed.call_args_list)
    assert (small.combiner, small.recipe) == ("ridge", None)
    assert real.recipe == (None if recipe == "none" else recipe)


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
