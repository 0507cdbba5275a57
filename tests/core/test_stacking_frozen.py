"""Frozen stacks: a few numbers that predict the same, and a file that any language reads."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.persistence import MANIFEST, save_bundle, size_on_disk
from scikd.stacking import (
    ElasticNetCombiner,
    FrozenPool,
    FrozenStack,
    GreedySelection,
    LeastSquares,
    LinearPool,
    LogPool,
    MeanPool,
    MetaClassifier,
    MetaRegressor,
    PublishedStack,
    ShrunkRidge,
    freeze,
    load_frozen,
)
from scikd.stacking._predictions import Predictions

RANDOM = np.random.default_rng(0)
N, M, C = 240, 6, 3
y = RANDOM.normal(size=N)
P = y[:, None] + RANDOM.normal(size=(N, M)) * np.linspace(0.3, 1.2, M)
P[:, 5] = P[:, 4]
NAMES = [f"model {j}" for j in range(M)]
labels = np.array(["a", "b", "c"])[RANDOM.integers(C, size=N)]
logits = RANDOM.normal(size=(N, M, C)) + 1.5 * (labels[:, None, None] == np.array(["a", "b", "c"]))
cube = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
QUICK = {"n_resamples": 10}

REGRESSORS = {
    "least squares": LeastSquares(),
    "greedy": GreedySelection(n_steps=20),
    "ridge": ShrunkRidge(random_state=0),
    "elastic net": ElasticNetCombiner(random_state=0),
    "meta": MetaRegressor(**QUICK),
    "meta with features": MetaRegressor(features=["std", "median", "skew"], **QUICK),
    "published": PublishedStack(n_folds=3),
    "published recipe": MetaRegressor(recipe="published", evaluate=None, detector=False),
}
POOLS = {
    "mean": MeanPool(),
    "linear": LinearPool(),
    "log": LogPool(),
    "log about the geometric mean": LogPool(centre="geometric"),
    "meta": MetaClassifier(**QUICK),
    "meta greedy": MetaClassifier("greedy", detector=False, **QUICK),
}


@pytest.fixture(scope="module")
def fitted():
    """Fit each once, with named columns."""
    frame = pd.DataFrame(P, columns=NAMES)
    tables = {name: cube[:, j] for j, name in enumerate(NAMES)}
    found = {name: model.fit(frame, y) for name, model in REGRESSORS.items()}
    return found | {f"pool {name}": model.fit(tables, labels) for name, model in POOLS.items()}


@pytest.mark.parametrize("name", REGRESSORS)
def test_numbers_predict_the_same(fitted, name, tmp_path):
    """Frozen, written and read again, from names in any order and from columns in order."""
    model = fitted[name]
    frame = pd.DataFrame(P, columns=NAMES)
    frozen = load_frozen(freeze(model, frame).save(tmp_path / "stack.scikd"))
    expected = model.predict(frame)
    mixed = frame[NAMES[::-1]].assign(other="text")
    assert isinstance(frozen, FrozenStack)
    for table in (mixed, pl.from_pandas(frame), frame[list(frozen.names)].to_numpy()):
        np.testing.assert_allclose(frozen.predict(table), expected, rtol=1e-10)
    named = {name: P[:, NAMES.index(name)] for name in frozen.names}
    np.testing.assert_allclose(frozen.predict(named), expected, rtol=1e-10)


@pytest.mark.parametrize("name", POOLS)
def test_pools_predict_the_same(fitted, name, tmp_path):
    """And the labels are those of the pool."""
    model = fitted[f"pool {name}"]
    tables = {name: cube[:, j] for j, name in enumerate(NAMES)}
    frozen = load_frozen(freeze(model, tables).save(tmp_path / "stack.scikd"))
    assert isinstance(frozen, FrozenPool)
    np.testing.assert_allclose(frozen.predict_proba(tables), model.predict_proba(tables), rtol=1e-9)
    np.testing.assert_array_equal(frozen.predict(tables), model.predict(tables))
    columns = cube[:, [NAMES.index(name) for name in frozen.names]]
    np.testing.assert_allclose(
        frozen.predict_proba(columns), model.predict_proba(tables), rtol=1e-9
    )


def test_two_classes_may_be_one_column():
    """Of the second class."""
    truth = labels == "a"
    second = cube[:, :, 0]
    pool = LogPool().fit(second, truth)
    np.testing.assert_allclose(freeze(pool).predict_proba(second), pool.predict_proba(second))


@pytest.mark.parametrize("name", ["meta", "ridge", "pool meta", "pool log"])
def test_missing_predictions_count_as_the_mean_of_the_others(fitted, name):
    """As in the model itself."""
    model, ask = fitted[name], "predict_proba" if "pool" in name else "predict"
    gaps = RANDOM.random((N, M)) < 0.2
    gaps[gaps.all(axis=1), 0] = False
    source = cube.copy() if "pool" in name else P.copy()
    source[gaps] = np.nan
    tables = {name: source[:, j] for j, name in enumerate(NAMES)}
    frozen = freeze(model, tables)
    np.testing.assert_allclose(getattr(frozen, ask)(tables), getattr(model, ask)(tables), rtol=1e-9)


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_any_linear_model_freezes_exactly(n_models, seed):
    """Whatever its weights: only those that are not zero are kept."""
    random = np.random.default_rng(seed)
    model = LeastSquares().fit(random.normal(size=(20, n_models)), random.normal(size=20))
    model.weights_[random.random(n_models) < 0.3] = 0.0
    frozen = freeze(model)
    rows = random.normal(size=(5, n_models))
    used = [int(name.removeprefix("model")) for name in frozen.names]
    np.testing.assert_allclose(
        frozen.predict(rows[:, used]), rows @ model.weights_ + model.intercept_, atol=1e-12
    )


def test_a_model_that_predicts_something_else_is_not_frozen():
    """The two are compared when it is frozen."""

    class Rounded(MetaRegressor):
        """Rounds."""

        def predict(self, P):
            """Round."""
            return super().predict(P).round(3)

    model = Rounded(evaluate=None, detector=False).fit(P, y)
    with pytest.raises(InvalidInputError, match=r"frozen form of this Rounded differs from it by"):
        freeze(model, P)
    with pytest.raises(InvalidInputError, match="a meta-model of scikd.stacking to freeze; got"):
        freeze(LinearRegression().fit(P, y))


def test_the_file_is_small_and_plain(fitted, tmp_path):
    """72 models in less than 10 kB, of JSON alone, from which a sum of products predicts."""
    random = np.random.default_rng(0)
    wide = y[:, None] + random.normal(size=(N, 72))
    names = [f"lightgbm_depth_{j}" for j in range(72)]
    model = ShrunkRidge(alphas=[0.1]).fit(pd.DataFrame(wide, columns=names), y)
    folder = freeze(model).save(tmp_path / "stack.scikd")
    assert [file.name for file in folder.iterdir()] == [MANIFEST]
    text = (folder / MANIFEST).read_text()
    assert len(text) < 10_000
    read = json.loads(text)["parameters"]
    row = dict(zip(names, wide[0].tolist(), strict=True))
    by_hand = read["intercept"] + sum(w * row[name] for name, w in read["weights"].items())
    assert by_hand == pytest.approx(model.predict(pd.DataFrame(wide[:1], columns=names))[0])
    assert len(text) < size_on_disk(model)


@pytest.mark.parametrize("limits", [(-1.0, np.inf), (-np.inf, 1.0)])
def test_a_file_with_one_limit_is_json(tmp_path, limits):
    """JSON has no infinity: what has no end is null."""
    model = MetaRegressor(limits=limits, **QUICK).fit(P, y)
    folder = model.freeze(P).save(tmp_path / "stack.scikd")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads((folder / MANIFEST).read_text(), parse_constant=refuse)["parameters"]
    assert read["limits"] == [end if np.isfinite(end) else None for end in limits]
    again = load_frozen(folder)
    assert again.limits == limits
    wide = dict(zip(model.names_, 9 * P.T, strict=True))
    np.testing.assert_array_equal(again.predict(wide), model.predict(wide))


def test_classes_in_another_order_are_refused():
    """Predictions that know their classes are no bare numbers."""
    frozen = freeze(MeanPool().fit(cube, labels))
    names = [f"model{j}" for j in range(M)]
    same = Predictions.of(cube, classes=["a", "b", "c"], names=names)
    np.testing.assert_array_equal(frozen.predict_proba(same), frozen.predict_proba(cube))
    turned = Predictions.of(cube[:, :, [2, 0, 1]], classes=["c", "a", "b"], names=names)
    with pytest.raises(InvalidInputError, match=r"\['a', 'b', 'c'\]; got those of \['c', 'a'"):
        frozen.predict_proba(turned)


def test_the_formula_can_be_read(fitted):
    """Weights, names, and features."""
    text = str(FrozenStack(("a", "b"), np.array([0.5, -0.25]), 1.0))
    assert text == "1 + 0.5 * a - 0.25 * b"
    assert " * skew(row)" in str(fitted["meta with features"].freeze())


def test_what_does_not_fit_is_refused(fitted, tmp_path):
    """Missing models, rows without predictions, other files."""
    frozen = FrozenStack(("a", "b"), np.array([0.5, 0.5]), 0.0)
    with pytest.raises(InvalidInputError, match=r"2 models \['a', 'b'\]; missing are \['b'\]"):
        frozen.predict({"a": [1.0]})
    with pytest.raises(InvalidInputError, match=r"\['a', 'b'\]; got 3 columns"):
        frozen.predict(np.ones((2, 3)))
    with pytest.raises(InvalidInputError, match="in every row; 1 rows lack them, .* row 1"):
        frozen.predict([[1.0, 2.0], [np.nan, np.nan]])
    with pytest.raises(InvalidInputError, match="of all models in every row"):
        FrozenStack(("a", "b"), np.ones(2), 0.0, ("std",), np.ones(1), ("a", "b")).predict(
            [[1.0, np.nan]]
        )
    with pytest.raises(InvalidInputError, match=r"classes \['a', 'b', 'c'\]; got those of 2"):
        freeze(fitted["pool mean"]).predict_proba(
            cube[:, :, :2] / cube[:, :, :2].sum(2)[:, :, None]
        )
    save_bundle(tmp_path / "odd.scikd", kind="FrozenStack", parameters={"task": "ranking"})
    with pytest.raises(CorruptFileError, match="describes no frozen stack that this scikd knows"):
        load_frozen(tmp_path / "odd.scikd")
