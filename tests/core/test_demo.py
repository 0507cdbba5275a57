"""The demonstration: real tables, an honest contest, one page."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from scikd.demo import SECTIONS, installed_sections, run_demo, tabular
from scikd.demo.suites import make_student, make_teachers
from scikd.demo.tables import load_table, table_names
from scikd.exceptions import InvalidInputError, StorageError
from scikd.teachers import as_teacher
from scikd.testing import check_teacher

EMBEDDED = [name for name, source in table_names().items() if source == "scikit-learn"]
FILES = [name for name in table_names() if name not in EMBEDDED]


@pytest.fixture
def quick(monkeypatch):
    """Two teachers and small sets, so that a contest takes a second."""

    def teachers(task, seed):
        if task == "regression":
            return {
                "ridge": Ridge(),
                "tree": DecisionTreeRegressor(max_depth=6, random_state=seed),
            }
        return {
            "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
            "tree": DecisionTreeClassifier(max_depth=6, random_state=seed),
        }

    def student(table, task, seed):
        kind = DecisionTreeRegressor if task == "regression" else DecisionTreeClassifier
        return kind(max_depth=3, random_state=seed)

    monkeypatch.setattr(tabular, "make_teachers", teachers)
    monkeypatch.setattr(tabular, "make_student", student)
    monkeypatch.setattr(tabular, "BATCHES", (1, 100))


@pytest.mark.filterwarnings("ignore::scikd.exceptions.DistillationWarning")
@pytest.mark.parametrize(
    ("data", "loss"), [("diabetes", "RMSE"), ("wine", "log-loss"), ("breast_cancer", "log-loss")]
)
def test_a_page_with_every_contestant(quick, tmp_path, data, loss):
    """The page and the text hold the same contest."""
    page = tmp_path / "page.html"
    demo = run_demo(data=data, output=page, n_jobs=1, progress=False, sections=("tabular",))
    text, page = demo.report.to_text(), demo.path.read_text()
    for name in ("best single teacher", "consensus of", "student alone", "distilled student"):
        assert name in text
        assert name in page
    assert loss in text
    assert page.count("data:image/png;base64,") >= 3
    assert f"scikd demo --data {data} --seed 0" in page


@pytest.mark.filterwarnings("ignore::scikd.exceptions.DistillationWarning")
def test_a_contest_is_repeatable_and_its_parts_do_not_overlap(quick):
    """The same seed, the same losses; test rows train nobody."""
    from scikd.demo import Options

    table = load_table("diabetes")
    train, test = tabular.split_table(table, 3)
    assert not np.intersect1d(train, test).size
    first, second = (
        tabular.hold_contest(table, Options(seed=3, n_jobs=1, progress=False)) for _ in range(2)
    )
    for name, entry in first.contestants.items():
        np.testing.assert_array_equal(entry.losses, second.contestants[name].losses)
        assert entry.interval[1] <= entry.interval[0] <= entry.interval[2]
        assert entry.bytes > 0


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_eight_teachers_take_missing_values(task):
    """All of them fit a small table with gaps, and keep the teacher's contract."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 4))
    y = X[:, 0] if task == "regression" else (X[:, 0] > 0).astype(int)
    X[::7, 2] = np.nan
    teachers = make_teachers(task, 0)
    assert len(teachers) == 8
    for name, model in teachers.items():
        check_teacher(as_teacher(model, name).fit(X, y), X)
    make_student("any", task, 0).fit(X, y)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_tables(name):
    """They need no network and no folder."""
    table = load_table(name)
    assert table.X.shape == (len(table.y), len(table.features))
    assert np.isfinite(table.X).all()


@pytest.mark.parametrize("name", FILES)
def test_tables_of_the_data_folder(name, scikd_data, monkeypatch):
    """All numbers, a target that is not among the features, and no row lost."""
    monkeypatch.setenv("SCIKD_DATA", str(scikd_data("tabular").parent))
    table = load_table(name)
    assert table.X.shape == (len(table.y), len(table.features))
    assert table.X.dtype == float
    assert not np.isinf(table.X).any()
    assert len(table.y) > 500
    for column in np.nan_to_num(table.X).T:
        if table.task == "regression" and np.ptp(column):
            assert abs(np.corrcoef(column, table.y)[0, 1]) < 0.999, "the target leaked"


def test_unknown_names_list_the_known(tmp_path, monkeypatch):
    """A wrong table, a wrong section, a file that is not there."""
    with pytest.raises(InvalidInputError, match="'california'.*got 'nope'"):
        load_table("nope")
    known = r"\['finance', 'graphs', 'md', 'stacking', 'tabular'\]"
    with pytest.raises(InvalidInputError, match=rf"{known}; got \['nope'\]"):
        run_demo(sections=("nope",))
    monkeypatch.setenv("SCIKD_DATA", str(tmp_path))
    with pytest.raises(StorageError, match="california_housing.csv, which is not there"):
        load_table("california")


def test_a_section_without_its_packages_is_left_out(monkeypatch):
    monkeypatch.setattr("scikd.demo.find_spec", lambda name: None if name == "tblite" else name)
    assert installed_sections() == ("tabular", "stacking", "graphs", "finance")
    monkeypatch.setattr("scikd.demo.find_spec", lambda name: name)
    assert installed_sections() == tuple(SECTIONS)


def test_sections_are_there():
    """Each section's module has the function that is called."""
    import importlib

    for module in SECTIONS.values():
        assert callable(importlib.import_module(module).section)
