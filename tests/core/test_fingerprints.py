"""Fingerprints: equal for equal content, everywhere, and different for anything else."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import scikd.fingerprints
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import (
    fingerprint_estimator,
    fingerprint_fitted,
    fingerprint_inputs,
    fingerprint_trained,
)

ROOT = Path(scikd.fingerprints.__file__).parents[1]


def all_differ(values, function=fingerprint_inputs):
    digests = [function(value) for value in values]
    return len(set(digests)) == len(digests)


def all_equal(values, function=fingerprint_inputs):
    return len({function(value) for value in values}) == 1


# ---------------------------------------------------------------------------------------------
# Inputs
# ---------------------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    st.sampled_from(["?", "i1", "i4", "u8", "f2", "f4", "f8", "c16", "M8[s]", "U3"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=100, deadline=None)
@given(ARRAYS)
def test_layout_and_byte_order_do_not_count(array):
    wide = np.zeros((2, *array.shape), array.dtype)
    wide[1] = array
    twins = [
        array,
        np.asfortranarray(array).reshape(array.shape),
        array.astype(array.dtype.newbyteorder(">")),
        np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))).reshape(array.shape),
        array[::-1][::-1] if array.ndim else array,
        wide[1, ...],
        np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array,
    ]
    assert all_equal(twins)


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.data())
def test_any_changed_number_shape_or_type_counts(array, data):
    digest = fingerprint_inputs(array)
    assert fingerprint_inputs(array[None]) != digest
    assert fingerprint_inputs(array.astype(object)) != digest
    if array.size:
        changed = array.copy().reshape(-1)
        position = data.draw(st.integers(0, array.size - 1))
        value = data.draw(hnp.from_dtype(array.dtype))
        same = changed[position] == value or (changed[position] != changed[position])
        changed[position] = value
        if not same:
            assert fingerprint_inputs(changed.reshape(array.shape)) != digest


def test_blocks_make_no_difference(monkeypatch, tmp_path):
    array = np.random.default_rng(0).normal(size=(37, 11))
    array[3, 3] = np.nan
    whole = fingerprint_inputs(array)
    monkeypatch.setattr("scikd._frames.BLOCK", 16)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert {fingerprint_inputs(a) for a in (array, np.asfortranarray(array), mapped)} == {whole}


def test_the_bits_of_nan_do_not_count_and_its_place_does():
    positive, negative = np.array([1.0, np.nan]), np.array([1.0, -np.nan])
    assert positive.tobytes() != negative.tobytes()
    assert all_equal([positive, negative])
    assert all_equal([positive + 0j, negative + 0j])
    assert all_equal([[math.nan], [-math.nan]])
    assert all_differ([positive, positive[::-1], np.array([1.0, np.inf])])


def test_padding_in_records_does_not_count():
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8]})
    memory = [bytearray(b"\x00" * 48), bytearray(b"\xff" * 48)]
    first, second = (np.frombuffer(buffer, dtype) for buffer in memory)
    second["a"], second["b"] = 0, 0
    assert memory[0] != memory[1]
    assert all_equal([first, second])
    second["b"][1] = 1
    assert all_differ([first, second])


def test_what_lies_under_a_mask_does_not_count():
    arrays = [np.ma.MaskedArray([1.0, x], [False, True]) for x in (2.0, 3.0)]
    assert all_equal(arrays)
    assert all_differ([arrays[0], np.ma.MaskedArray([1.0, 2.0], [False, False])])


def test_plain_values_never_run_together():
    values = [
        None, True, 1, 1.0, 1 + 0j, "1", b"1", "", 0, -1, 10**5000, 0.0, -0.0, math.inf,
        [], (), {}, set(), [1], (1,), [[1]], [1, 2], [12], ["1", "2"], ["12"], [["1"], "2"],
        ["1", ["2"]], {1}, {"a": 1}, {"a": 2}, {"b": 1}, {1: "a"}, [("a", 1)], range(3),
        range(1, 3), [0, 1, 2], dt.date(2020, 1, 1), dt.timedelta(1),
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC), Decimal(1),
        np.array([1]), np.array([1.0]), np.array(["1"]), np.array([1], object),
        np.array(["1"], object),
    ]  # fmt: skip
    assert all_differ(values)


def test_order_counts_in_lists_only():
    assert all_equal([{"a": 1, "b": 2}, OrderedDict([("b", 2), ("a", 1)])])
    assert all_equal([{"x", "y", "z"}, {"z", "y", "x"}, {"y", "z", "x"}])
    assert all_differ([["a", "b"], ["b", "a"]])
    assert all_equal([np.float64(2.5), 2.5])
    assert all_equal([np.str_("a"), "a"])


def test_text_in_arrays():
    texts = ["déjà", "", "vu"]
    assert all_equal([np.array(texts, object), np.array(texts, np.dtypes.StringDType())])
    assert all_differ([np.array(texts), np.array(["deja", "", "vu"])])


class Structure:
    def __init__(self, fingerprint):
        self.fingerprint = fingerprint


def test_objects_with_a_fingerprint_are_taken_at_their_word():
    assert all_equal([Structure("abc"), Structure(lambda: "abc")])
    assert all_differ([Structure("abc"), Structure("abd"), "abc"])
    assert all_differ([[Structure("a"), Structure("b")], [Structure("b"), Structure("a")]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "X is a builtins.object; expected NumPy arrays, pandas and polars frames"),
        ([1, {"a": object()}], r"X\[1\]\['a'\] is a builtins.object"),
        (Structure(3), r"X is a .*Structure; expected"),
        (lambda x: x, "X is a builtins.function"),
        (Ridge(), "X is a sklearn.linear_model._ridge.Ridge"),
        (np.array([1, object()], dtype=object), r"X\[1\] is a builtins.object"),
        (np.zeros(2, np.longdouble), r"X has dtype float128.*Convert it with .astype\('float64'\)"),
        (np.longdouble(1), "X has dtype float128"),
    ],
)
def test_other_things_are_refused(value, message):
    with pytest.raises(InvalidInputError, match=message):
        fingerprint_inputs(value)


def test_what_contains_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(InvalidInputError, match=r"X\[0\] contains itself"):
        fingerprint_inputs(endless)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        fingerprint_inputs(deep)


def test_the_format_of_sparse_matrices_does_not_count():
    dense = np.array([[0, 1.5, 0], [2, 0, 0]])
    with_zero = sparse.coo_array(([1.5, 2.0, 0.0], ([0, 1, 1], [1, 0, 2])), shape=(2, 3))
    doubled = sparse.coo_array(([1.0, 0.5, 2.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 3))
    formats = [sparse.csr_matrix(dense), sparse.csc_array(dense), with_zero, doubled]
    assert all_equal(formats)
    assert doubled.nnz == 3  # the caller's matrix is as it was
    assert all_differ([formats[0], dense, sparse.csr_array(dense.T), sparse.csr_array(2 * dense)])


def test_pandas_frames():
    pd = pytest.importorskip("pandas")
    base = {"a": [1, 2], "b": ["x", "y"]}
    frame = pd.DataFrame(base)
    assert all_equal([frame, pd.DataFrame(base), frame[::-1][::-1]])
    assert all_differ(
        [
            frame,
            frame[["b", "a"]],
            frame.rename(columns={"a": "c"}),
            frame.astype({"a": float}),
            frame.astype({"a": "Int64"}),
            frame.astype({"b": "category"}),
            frame.set_index(pd.Index([5, 6])),
            pd.DataFrame({"a": [1, 3], "b": ["x", "y"]}),
            pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
            frame["a"],
            frame["b"],
            frame.to_numpy(),
        ]
    )


def test_text_columns_are_the_same_whatever_holds_them():
    pd = pytest.importorskip("pandas")
    column = pd.Series(["a", None, "c"], dtype=object)
    texts = [column, column.astype("str"), column.fillna(np.nan), column.astype("string[python]")]
    assert all_equal([pd.DataFrame({"t": text}) for text in texts])


def test_every_type_of_pandas_column_counts_by_content():
    pd = pytest.importorskip("pandas")
    days = ["2020-01-01", "2020-01-02", None]
    columns = [
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1, 0, None], dtype="Int64"),
        pd.Series([1, None, 0], dtype="Int64"),
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series(pd.to_datetime(days)),
        pd.Series(pd.to_datetime(days)).dt.tz_localize("UTC"),
        pd.Series(pd.to_datetime(days)).dt.tz_localize("Europe/Paris"),
        pd.Series(pd.to_timedelta([1, 2, 3], unit="s")),
        pd.Series(pd.Categorical(["u", "v", None])),
        pd.Series(pd.Categorical(["u", "v", None], categories=["v", "u"])),
        pd.Series(pd.Categorical(["u", "v", None], ordered=True)),
    ]
    assert all_differ(columns)
    assert all_equal([columns[0], columns[0].copy()])
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])
    assert all_differ([pd.DataFrame({"x": [1, 2]}, index=i) for i in (index, index[::-1], None)])
    with pytest.raises(InvalidInputError, match=r"X\['p'\]\[0\] is a pandas.*Period"):
        fingerprint_inputs(pd.DataFrame({"p": pd.period_range("2020", periods=2, freq="Y")}))


def test_polars_frames():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, None, 3], "b": ["x", "y", None]})
    assert all_equal([frame, pl.concat([frame[:1], frame[1:]], rechunk=False)])
    day = pl.Series("a", [dt.date(2020, 1, 1), None, dt.date(2020, 1, 2)])
    columns = [
        frame["a"],
        frame["a"].fill_null(0),
        frame["a"].cast(pl.Float32),
        frame["a"].cast(pl.Boolean),
        frame["b"],
        frame["b"].cast(pl.Categorical),
        day,
        day.cast(pl.Datetime("ms")),
        pl.Series("a", [[1], None, [2, 3]]),
        pl.Series("a", ["1.5", "2", None]).cast(pl.Decimal(5, 2)),
    ]
    assert all_differ([frame, frame.select("b", "a"), frame[:2], *columns])


def test_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6.0).reshape(2, 3)
    assert all_equal([tensor, tensor.T.contiguous().T, tensor.clone().requires_grad_()])
    half = tensor.to(torch.bfloat16)
    assert all_differ([tensor, tensor.T, tensor + 1, half, half + 1, half.reshape(3, 2)])


# ---------------------------------------------------------------------------------------------
# Specifications
# ---------------------------------------------------------------------------------------------

DATA = np.random.default_rng(0).normal(size=(40, 3))
TARGET = (DATA[:, 0] > 0).astype(int)

ESTIMATORS = [
    RandomForestClassifier(4, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    make_pipeline(StandardScaler(), SVC()),
    KNeighborsClassifier(),
    MLPClassifier((4,), max_iter=3, random_state=0),
    GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2]}, cv=KFold(2)),
]
BY_NAME = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
QUIET = pytest.mark.filterwarnings("ignore")  # networks of three iterations do not converge


@QUIET
@BY_NAME
def test_fitting_does_not_change_the_specification(estimator):
    before = fingerprint_estimator(estimator)
    fitted = copy.deepcopy(estimator).fit(DATA, TARGET)
    assert fingerprint_estimator(fitted) == before


def test_every_parameter_counts_also_nested_ones():
    def scorer(y, z):
        return 0

    specifications = [
        Ridge(),
        Ridge(alpha=2),
        Ridge(random_state=0),
        Ridge(random_state=np.random.RandomState(0)),
        Ridge(random_state=np.random.RandomState(1)),
        LogisticRegression(),
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(StandardScaler(), Ridge(alpha=2)),
        make_pipeline(StandardScaler(with_mean=False), Ridge()),
        GridSearchCV(Ridge(), {"alpha": [1]}, cv=KFold(2)),
        GridSearchCV(Ridge(), {"alpha": [1]}, cv=KFold(3)),
        GridSearchCV(Ridge(), {"alpha": [1]}, cv=KFold(3), scoring=scorer),
        FunctionTransformer(np.log1p),
        FunctionTransformer(np.sqrt),
        FunctionTransformer(partial(np.clip, a_min=0)),
        FunctionTransformer(partial(np.clip, a_min=1)),
        FunctionTransformer(lambda x: x),
        FunctionTransformer(lambda x: x + 1),
        FunctionTransformer(lambda x: x + 2),
    ]
    assert all_differ(specifications, fingerprint_estimator)
    twins = [Ridge(alpha=1.0), Ridge(alpha=np.float64(1.0)), Ridge().set_params(alpha=1.0)]
    assert all_equal(twins, fingerprint_estimator)


def test_functions_count_by_text_and_by_what_they_close_over():
    def make(value):
        def function(x):
            return x + value

        return function

    specifications = [FunctionTransformer(make(1)), FunctionTransformer(make(2))]
    assert all_differ(specifications, fingerprint_estimator)
    assert all_equal([FunctionTransformer(make(1)) for _ in range(2)], fingerprint_estimator)


def test_frozen_and_prefit_estimators_count_by_what_they_learnt():
    first, second = Ridge().fit(DATA, DATA[:, 0]), Ridge().fit(DATA, DATA[:, 1])
    assert all_equal([first, second], fingerprint_estimator)
    assert all_differ([FrozenEstimator(first), FrozenEstimator(second)], fingerprint_estimator)
    pipelines = [make_pipeline(StandardScaler(), FrozenEstimator(e)) for e in (first, second)]
    assert all_differ(pipelines, fingerprint_estimator)


def test_what_is_no_estimator_is_refused():
    with pytest.raises(InvalidInputError, match=r"with get_params; got the class sklearn.*Ridge"):
        fingerprint_estimator(Ridge)
    with pytest.raises(InvalidInputError, match="with get_params; got a builtins.int"):
        fingerprint_estimator(3)


# ---------------------------------------------------------------------------------------------
# Training and trained state
# ---------------------------------------------------------------------------------------------


def test_training_counts_specification_data_and_versions(monkeypatch):
    weights = np.ones(40)
    digests = [
        fingerprint_trained(Ridge(), DATA, TARGET, None),
        fingerprint_trained(Ridge(), DATA, TARGET, weights),
        fingerprint_trained(Ridge(), DATA, 1 - TARGET, None),
        fingerprint_trained(Ridge(), DATA[::-1], TARGET, None),
        fingerprint_trained(Ridge(alpha=2), DATA, TARGET, None),
        fingerprint_trained(Ridge(), DATA, TARGET),
    ]
    assert len(set(digests)) == 6
    assert fingerprint_trained(Ridge(), DATA.copy(), TARGET, None) == digests[0]
    versions = {}

    def version(package):
        versions[package] = "1"
        return "1"

    monkeypatch.setattr(scikd.fingerprints, "_version", version)
    assert fingerprint_trained(Ridge(), DATA, TARGET, None) != digests[0]
    assert versions.keys() == {"numpy", "sklearn"}
    lightgbm = pytest.importorskip("lightgbm")
    fingerprint_trained(make_pipeline(StandardScaler(), lightgbm.LGBMRegressor()), DATA)
    assert "lightgbm" in versions


@QUIET
@BY_NAME
def test_fitted_state_counts_and_survives_copies(estimator):
    fitted = copy.deepcopy(estimator).fit(DATA, TARGET)
    digest = fingerprint_fitted(fitted)
    assert fingerprint_fitted(fitted) == digest
    assert fingerprint_fitted(copy.deepcopy(fitted)) == digest
    assert fingerprint_fitted(estimator) != digest
    assert fingerprint_fitted(copy.deepcopy(estimator).fit(DATA[:, ::-1], TARGET)) != digest


@QUIET
def test_fitted_state_survives_skops():
    from skops import io as skops_io

    for estimator in ESTIMATORS[:6]:
        fitted = copy.deepcopy(estimator).fit(DATA, TARGET)
        data = skops_io.dumps(fitted)
        loaded = skops_io.loads(data, trusted=skops_io.get_untrusted_types(data=data))
        assert fingerprint_fitted(loaded) == fingerprint_fitted(fitted)


@pytest.mark.parametrize("package", ["lightgbm", "xgboost"])
def test_boosters_of_other_packages(package):
    module = pytest.importorskip(package)
    learner = module.LGBMClassifier if package == "lightgbm" else module.XGBClassifier
    options = {"n_estimators": 3, "n_jobs": 1}
    options |= {"verbose": -1, "min_child_samples": 2} if package == "lightgbm" else {}
    fitted = [learner(**options).fit(DATA, y) for y in (TARGET, TARGET, 1 - TARGET)]
    digests = [fingerprint_fitted(one) for one in fitted]
    assert digests[0] == digests[1] != digests[2]


def test_torch_modules():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    twin = copy.deepcopy(module)
    assert all_equal([module, twin], fingerprint_fitted)
    with torch.no_grad():
        twin[0].weight[0, 0] += 1e-6
    assert all_differ([module, twin], fingerprint_fitted)


def test_equal_parts_count_the_same_whether_they_are_one_object_or_two():
    part = [1.5, "a"]
    assert all_equal([Structure(None), Structure(None)], fingerprint_fitted)
    one, two = Structure([part, part]), Structure([[1.5, "a"], [1.5, "a"]])
    assert all_equal([one, two], fingerprint_fitted)


def test_cycles_have_a_state():
    def loop(value):
        one = Structure(None)
        one.self, one.value = one, value
        return one

    assert all_equal([loop(1), loop(1)], fingerprint_fitted)
    assert all_differ([loop(1), loop(2)], fingerprint_fitted)


def test_parts_without_a_state_are_named():
    broken = Ridge().fit(DATA, TARGET)
    broken.lock_ = {"a": threading.Lock()}
    with pytest.raises(InvalidInputError, match=r"Ridge\['lock_'\]\['a'\] \(a _thread.lock\)"):
        fingerprint_fitted(broken)


# ---------------------------------------------------------------------------------------------
# Everywhere the same
# ---------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
import numpy as np
from scikd.fingerprints import *
x = np.linspace(0, 1, 12).reshape(4, 3)
digests = {
    "array": fingerprint_inputs(x),
    "text": fingerprint_inputs(np.array(["a", "bc", None], dtype=object)),
    "nested": fingerprint_inputs({"b": [1, 2.5, "x"], "a": {"p", "q", "r"}, 3: (None, True)}),
}
if "light" not in sys.argv:
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    def shorten(texts, words):
        return [t for t in texts if t not in {"one", "two", "three"}]
    frame = pd.DataFrame({"a": [1, 2], "t": ["x", None], "c": pd.Categorical(["u", "v"])})
    model = make_pipeline(
        FunctionTransformer(kw_args={"words": frozenset({"the", "a", "of"})}, func=shorten),
        TfidfVectorizer(),
        RandomForestClassifier(5, random_state=0),
    )
    digests["frame"] = fingerprint_inputs(frame)
    digests["estimator"] = fingerprint_estimator(model)
    digests["trained"] = fingerprint_trained(model, ["a b", "c d"], [0, 1])
    model.fit(["big cat", "small dog", "big dog", "cat"], [0, 1, 1, 0])
    digests["fitted"] = fingerprint_fitted(model)
print(json.dumps(digests))
"""

# Computed by the script above. If these change, labels stored by earlier versions are not found.
GOLDEN = {
    "array": "2faaf0c71f416047fd98439952d71ccc5119bb0c29a89b43b6ca62c3ba94b900",
    "text": "0be1729d7b9eb810b3ae6aa096bcc478c1b99928961d96cfda8a9bc3bb2ccc4a",
    "nested": "486caf730e19e09a3e712c58de7b6e71a8a73644740b4567104ac88d1d84547d",
}


def run(*arguments, seed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_another_process_with_another_hash_seed_finds_the_same():
    first, second = run(seed="1"), run(seed="2")
    assert first == second
    assert len(set(first.values())) == 7
    assert {name: first[name] for name in GOLDEN} == GOLDEN
    assert run("light", seed="3") == GOLDEN  # with NumPy alone
