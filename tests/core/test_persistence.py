"""Bundles and saved estimators: exact when whole, refused when not, and never a mixture."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skops import io as skops_io

import scikd._estimators
import scikd.persistence
from scikd._atomic import new_folder, room_for
from scikd.exceptions import CorruptFileError, InvalidInputError, SchemaError, StorageError
from scikd.persistence import (
    atomic_write,
    decode_labels,
    encode_labels,
    load_bundle,
    load_estimator,
    save_bundle,
    save_estimator,
    size_on_disk,
    trusted_types,
)

TREE = "sklearn.tree._tree.Tree"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
ROOT = Path(scikd.persistence.__file__).parents[1]


def run_script(script, *arguments, **environment):
    """Run a script in a process of its own; fail with its errors if it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def reseal(folder, edit):
    """Edit a manifest as somebody would who knows how its checksum is made."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_bytes(scikd._manifest.seal_manifest(manifest))


def replace_blob(folder, name, content):
    """Replace a blob and its checksum."""
    (folder / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    reseal(folder, lambda manifest: manifest["files"].update({name: entry}))


# ---------------------------------------------------------------------------------------------
# atomic_write
# ---------------------------------------------------------------------------------------------


def test_atomic_write_returns_the_sha256_of_the_file(tmp_path):
    digest = atomic_write(tmp_path / "x", lambda file: [file.write(b"ab"), file.write(b"c" * 9999)])
    content = (tmp_path / "x").read_bytes()
    assert content == b"ab" + b"c" * 9999
    assert digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError(28, "No space")])
def test_atomic_write_leaves_the_old_file_and_nothing_else_when_it_fails(tmp_path, error):
    (tmp_path / "x").write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise error

    expected = StorageError if isinstance(error, OSError) else error
    with pytest.raises(expected) as caught:
        atomic_write(tmp_path / "x", write)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x", b"old")]
    if expected is StorageError:
        assert caught.value.errno == 28
        assert "x: No space. Free some space" in str(caught.value)


def test_atomic_write_says_what_to_do_about_a_missing_folder(tmp_path):
    with pytest.raises(StorageError, match="No such file or directory.*Create the folder"):
        atomic_write(tmp_path / "none" / "x", lambda file: file.write(b""))


def test_a_new_folder_is_taken_away_only_if_it_is_new_and_empty(tmp_path):
    folder = tmp_path / "outer" / "inner"

    def fail(leave=None):
        with new_folder(folder):
            assert folder.is_dir()
            if leave:
                (folder / leave).touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not folder.parent.exists()
    with pytest.raises(ZeroDivisionError):
        fail(leave="half")
    (folder / "half").unlink()  # it is there
    with pytest.raises(ZeroDivisionError):
        fail()
    assert folder.exists(), "somebody else made it"


def test_room_for_a_file_is_looked_for_and_leaves_nothing(tmp_path, monkeypatch):
    with room_for(tmp_path / "new" / "x"):
        assert list((tmp_path / "new").iterdir()) == []
    message = "Could not write .*new: .*There is a folder"
    with pytest.raises(StorageError, match=message), room_for(tmp_path / "new"):
        pass

    def refuse(**where):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match="mounted read-only"), room_for(tmp_path / "other" / "x"):
        pass
    assert not (tmp_path / "other").exists()


FULL_DISK = """
import resource, sys, numpy as np
from scikd.exceptions import StorageError
from scikd.persistence import load_bundle, save_bundle
path = sys.argv[1]
save_bundle(path, kind="k", parameters={}, arrays={"a": np.zeros(3)})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_bundle(path, kind="k", parameters={}, arrays={"a": np.ones(10_000)})
except StorageError as error:
    print(error)
assert (load_bundle(path, kind="k").arrays["a"] == np.zeros(3)).all()
"""


def test_a_write_that_the_system_refuses_leaves_the_old_bundle(tmp_path):
    message = run_script(FULL_DISK, tmp_path / "b")
    assert "File too large" in message
    assert "ulimit" in message
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.fixture
def small_disk(tmp_path):
    """Give a disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if not shutil.which(mount[0]) or subprocess.run(mount, check=False, stderr=-3).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield disk
    subprocess.run([shutil.which("umount"), str(disk)], check=True)


def test_a_full_disk_leaves_the_old_bundle(small_disk):
    save_bundle(small_disk / "b", kind="k", parameters={}, arrays={"a": np.zeros(3)})
    with pytest.raises(StorageError, match="No space left on device. Free some space"):
        save_bundle(small_disk / "b", kind="k", parameters={}, arrays={"a": np.ones(100_000)})
    assert np.array_equal(load_bundle(small_disk / "b", kind="k").arrays["a"], np.zeros(3))
    assert [p.name for p in small_disk.iterdir()] == ["b"]


# ---------------------------------------------------------------------------------------------
# Bundles: what goes in comes out
# ---------------------------------------------------------------------------------------------

DTYPES = st.sampled_from(
    [
        "?",
        "i1",
        "u1",
        "<i2",
        ">i2",
        "<i4",
        ">u4",
        "<i8",
        ">i8",
        "<f2",
        "<f4",
        ">f4",
        "<f8",
        ">f8",
        "<c8",
    ]
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.dictionaries(st.text(max_size=9).map("n".__add__), ARRAYS, max_size=3),
    parameters=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    blobs=st.dictionaries(st.sampled_from(["a", "b.bin", "C-1_2"]), st.binary(), max_size=2),
)
def test_load_is_the_inverse_of_save(arrays, parameters, blobs):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        save_bundle(path, kind="k", parameters=parameters, arrays=arrays, blobs=blobs)
        loaded = load_bundle(path, kind="k")
    assert json.dumps(loaded.parameters, sort_keys=True) == json.dumps(parameters, sort_keys=True)
    assert loaded.blobs == blobs
    assert loaded.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded.arrays[name].dtype == array.dtype.newbyteorder("=")
        assert loaded.arrays[name].shape == array.shape
        assert loaded.arrays[name].tobytes() == array.astype(loaded.arrays[name].dtype).tobytes()


def test_arrays_that_are_not_contiguous_keep_their_values(tmp_path):
    # safetensors alone writes the memory as it lies: [[0, 1], [2, 3], [4, 5]] for the second.
    whole = np.arange(12.0).reshape(3, 4)
    arrays = {"t": whole.T, "step": whole[:, ::2], "back": whole[::-1], "one": np.float32(3)}
    loaded = load_bundle(
        save_bundle(tmp_path / "b", kind="k", parameters={}, arrays=arrays), kind="k"
    )
    for name, array in arrays.items():
        assert np.array_equal(loaded.arrays[name], array)
        assert loaded.arrays[name].flags.writeable


def test_the_manifest_names_units_versions_and_every_file(tmp_path):
    save_bundle(
        tmp_path / "b", kind="k", parameters={}, arrays={"e": np.ones(2)}, units={"e": "eV"}
    )
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_bytes())
    content = (tmp_path / "b" / "arrays.safetensors").read_bytes()
    assert manifest["schema"] == 1
    assert manifest["units"] == {"e": "eV"}
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["files"] == {
        "arrays.safetensors": {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    }


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, -1, 2**62]),
        np.array([1, 2], dtype=np.uint8),
        np.array([True, False]),
        np.array(["b", "", "déjà vu"]),
        np.array(["a", 1, 2.5, True, None], dtype=object),
        np.array([0.1, -0.0, np.inf], dtype=np.float32),
        np.array([["x"], ["yy"]]),
        np.array([], dtype="<U7"),
        np.array([1, 2], dtype=">i4"),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_come_back_with_type_and_value(labels):
    back = decode_labels(json.loads(json.dumps(encode_labels(labels))))
    assert back.dtype == labels.dtype.newbyteorder("=")
    assert back.shape == labels.shape
    assert back.tolist() == labels.tolist()
    assert [type(v) for v in back.ravel().tolist()] == [type(v) for v in labels.ravel().tolist()]


def test_labels_of_other_types_are_refused():
    with pytest.raises(InvalidInputError, match="int, float, bool or str; got dtype datetime64"):
        encode_labels(np.array(["2020-01-01"], dtype="M8[D]"))
    with pytest.raises(InvalidInputError, match=r"labels\[0\] is a object"):
        encode_labels(np.array([object()]))
    with pytest.raises(CorruptFileError, match="Stored class labels are damaged"):
        decode_labels({"dtype": "<i8", "shape": [3], "values": [1]})


def test_what_is_not_json_or_not_numeric_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"parameters\['a'\]\[1\] is a set; expected text"):
        save_bundle(tmp_path / "b", kind="k", parameters={"a": [1, {2}]})
    with pytest.raises(InvalidInputError, match="Array 'names' has dtype <U1; expected bool"):
        save_bundle(tmp_path / "b", kind="k", parameters={}, arrays={"names": np.array(["a"])})
    for name in ("../x", "a/b", "", ".x", "manifest.json", "arrays.safetensors"):
        with pytest.raises(InvalidInputError, match="Cannot name blobs"):
            save_bundle(tmp_path / "b", kind="k", parameters={}, blobs={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_content_is_never_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="other content; it is never overwritten"):
        save_bundle(tmp_path, kind="k", parameters={})
    (tmp_path / "manifest.json").write_text('{"format": "of another program"}')
    with pytest.raises(StorageError, match="other content"):
        save_bundle(tmp_path, kind="k", parameters={})
    with pytest.raises(StorageError, match="is a file, and a bundle is a folder"):
        save_bundle(tmp_path / "notes.txt", kind="k", parameters={})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_empty_folders_and_links_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for value in (1, 2):
        for name in ("empty", "link"):
            save_bundle(tmp_path / name, kind="k", parameters={"v": value})
            assert load_bundle(tmp_path / name, kind="k").parameters == {"v": value}
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "link", "target"]


# ---------------------------------------------------------------------------------------------
# Damage of bundles is noticed
# ---------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(
        tmp_path / "bundle",
        kind="k",
        parameters={"alpha": 0.25, "names": ["é", "b"]},
        arrays={"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False])},
        blobs={"note.txt": b"some text"},
    )


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors", "note.txt"])
def test_every_truncation_and_every_flipped_bit_is_noticed(bundle, name):
    path = bundle / name
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 7)] + [whole[:-1], whole + b" "]
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        damaged.append(bytes(flipped))
    before = load_bundle(bundle, kind="k")
    for content in damaged:
        path.write_bytes(content)
        try:
            after = load_bundle(bundle, kind="k")
        except (CorruptFileError, SchemaError):
            continue
        # White space after the JSON, or another case in a \u escape: nothing that was read changed.
        assert name == "manifest.json"
        assert after.manifest == before.manifest


def test_files_that_are_missing_or_not_listed_are_noticed(bundle):
    (bundle / "extra.npy").write_bytes(b"")
    (bundle / "note.txt").unlink()
    with pytest.raises(CorruptFileError, match="'extra.npy' is not listed; 'note.txt' is missing"):
        load_bundle(bundle, kind="k")


def test_other_kinds_schemas_and_places_are_refused(bundle, tmp_path):
    with pytest.raises(CorruptFileError, match="holds a 'k', expected a 'Consensus'"):
        load_bundle(bundle, kind="Consensus")
    with pytest.raises(StorageError, match="There is no .*none.*nothing was saved there"):
        load_bundle(tmp_path / "none", kind="k")
    reseal(bundle, lambda manifest: manifest.update(schema=2))
    with pytest.raises(SchemaError, match="schema 2; this scikd reads schemas up to 1. Update"):
        load_bundle(bundle, kind="k")
    (bundle / "manifest.json").write_text("[1, 2]")
    with pytest.raises(CorruptFileError, match=r"expected a manifest of format 'scikd.bundle'"):
        load_bundle(bundle, kind="k")
    (bundle / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(CorruptFileError, match="not valid JSON"):
        load_bundle(bundle, kind="k")
    with (bundle / "manifest.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(CorruptFileError, match="1,073,741,824 bytes, too large for a manifest"):
        load_bundle(bundle, kind="k")


def test_a_manifest_cannot_point_outside_its_folder_or_claim_any_size(bundle, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    entry = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    reseal(bundle, lambda manifest: manifest["files"].update({"../secret": entry}))
    with pytest.raises(CorruptFileError, match="'../secret' is no file name of a bundle"):
        load_bundle(bundle, kind="k")
    reseal(bundle, lambda manifest: manifest["files"].pop("../secret"))
    reseal(bundle, lambda manifest: manifest["files"]["note.txt"].update(bytes=10**18))
    with pytest.raises(CorruptFileError, match=f"'note.txt' has 9 bytes, expected {10**18}"):
        load_bundle(bundle, kind="k")


def test_arrays_whose_checksum_is_right_and_content_is_not_are_refused(bundle):
    header = b'{"a":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}'
    for content in (b"", b"\xff" * 64, len(header).to_bytes(8, "little") + header):
        replace_blob(bundle, "arrays.safetensors", content)
        with pytest.raises(CorruptFileError, match="not a valid safetensors file"):
            load_bundle(bundle, kind="k")


# ---------------------------------------------------------------------------------------------
# Bundles: killed at any moment
# ---------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
import numpy as np
import scikd.persistence as p
folder, exchange = sys.argv[1], sys.argv[2] == "exchange"
if not exchange:
    p._exchange = lambda first, second: False
path = os.path.join(folder, "b")

def save(value):
    p.save_bundle(path, kind="k", parameters={"v": value}, arrays={"a": np.full(50, value)},
                  blobs={f"blob{value}": b"x" * value})

def child(value, point):
    count = 0
    def hook(event, arguments):
        nonlocal count
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree",
                            "ctypes.dlsym") or (event == "open" and arguments[1] in ("wb", "xb"))
        count += changes
        if changes and count == point:
            os.kill(os.getpid(), signal.SIGKILL)
    sync = os.fsync
    def fsync(descriptor):
        hook("os.rename", None)
        sync(descriptor)
        hook("os.rename", None)
    os.fsync = fsync
    sys.addaudithook(hook)
    save(value)

save(1)
old, seen, point = 1, [], 0
while True:
    point += 1
    new = old + 1
    pid = os.fork()
    if pid == 0:
        child(new, point)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    bundle = p.load_bundle(path, kind="k")
    value = bundle.parameters["v"]
    assert value in (old, new), (value, old, new)
    assert (bundle.arrays["a"] == value).all() and list(bundle.blobs) == [f"blob{value}"]
    seen.append(value == new)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0 and value == new
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    save(value)  # and it can be saved over, whatever was left behind
    old = value
for name in os.listdir(folder):  # left behind by the killed ones; swept when an hour old
    os.utime(os.path.join(folder, name), (0, 0))
save(0)
print(json.dumps({"points": point, "new": sum(seen), "left": sorted(os.listdir(folder))}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_killed_save_leaves_the_old_bundle_or_the_new_one(tmp_path, way):
    result = json.loads(run_script(KILLED, tmp_path, way))
    assert result["points"] > 20
    assert 1 < result["new"] < result["points"]  # both happened
    assert result["left"] == ["b"]


def test_a_reader_never_sees_a_mixture(tmp_path):
    def save(value):
        arrays = {"a": np.full(2000, value)}
        save_bundle(tmp_path / "b", kind="k", parameters={"v": value}, arrays=arrays)

    def write():
        for value in range(1, 60):
            save(value)

    save(0)
    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while writer.is_alive():
        bundle = load_bundle(tmp_path / "b", kind="k")
        assert (bundle.arrays["a"] == bundle.parameters["v"]).all()
        seen.add(bundle.parameters["v"])
    writer.join()
    assert len(seen) > 1


# ---------------------------------------------------------------------------------------------
# Estimators
# ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return X, np.where(X[:, 0] > 0, "up", "down")


def test_estimators_that_skops_trusts_need_nothing_else(data, tmp_path):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    loaded = load_estimator(save_estimator(model, tmp_path / "m"))
    assert np.array_equal(loaded.predict_proba(data[0]), model.predict_proba(data[0]))
    assert loaded.predict(data[0]).tolist() == model.predict(data[0]).tolist()
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_bytes())
    assert manifest["parameters"]["class"] == "sklearn.pipeline.Pipeline"
    assert manifest["versions"].keys() >= {"python", "numpy", "scikit-learn", "skops"}


def test_trees_are_refused_until_they_are_trusted(data, tmp_path):
    X, y = data
    for model, name in (
        (RandomForestRegressor(5, random_state=0).fit(X, X[:, 0]), TREE),
        (HistGradientBoostingClassifier(max_iter=3).fit(X, y), PREDICTOR),
    ):
        path = save_estimator(model, tmp_path / "m")
        with pytest.raises(InvalidInputError, match="not trusted") as caught:
            load_estimator(path)
        assert f"pass trusted={[name]!r}" in str(caught.value)
        loaded = load_estimator(path, trusted=[name])
        assert np.array_equal(loaded.predict(X), model.predict(X))


def test_lightgbm_comes_back_when_its_types_are_trusted(data, tmp_path):
    lightgbm = pytest.importorskip("lightgbm")
    X, y = data
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(X, y)
    path = save_estimator(model, tmp_path / "m")
    with pytest.raises(InvalidInputError, match=r"lightgbm\.basic\.Booster"):
        load_estimator(path)
    types = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
    loaded = load_estimator(path, trusted=types)
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_trusted_must_be_a_list(data, tmp_path):
    path = save_estimator(Ridge(), tmp_path / "m")
    for wrong in (True, TREE):
        with pytest.raises(InvalidInputError, match="Expected `trusted` to be a list"):
            load_estimator(path, trusted=wrong)


def test_only_classes_that_scikd_defines_are_trusted_by_themselves():
    own = ["scikd.quantities.Quantity", "scikd.labels.LabelStore"]
    foreign = [
        "scikd.quantities.dataclass",  # a function
        "scikd.quantities.InvalidInputError",  # defined elsewhere
        "scikd.quantities._Hidden",
        "scikd.quantities.Missing",
        "scikd.quantities_of_mallory.Quantity",
        "scikd.persistence.Bundle",  # not on the list
        "scikd.persistence.save_estimator",
        "os.system",
        "Quantity",
    ]
    assert trusted_types(own + foreign) == own


def test_scikd_objects_within_an_estimator_come_back(tmp_path):
    from scikd.quantities import Quantity

    model = Ridge()
    model.quantity_ = Quantity("energy", "eV", (3,))
    assert load_estimator(save_estimator(model, tmp_path / "m")).quantity_ == model.quantity_


def shadowed(x):
    """Share its name with an inner function below."""
    return x


def inner_function():
    def shadowed(x):
        return x + 1

    return shadowed


class Owner(BaseEstimator):
    def __init__(self, part=None):
        self.part = part


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: FunctionTransformer(lambda x: x), "FunctionTransformer.func"),
        (lambda: FunctionTransformer(inner_function()), "FunctionTransformer.func"),
        (
            lambda: make_pipeline(Ridge(), FunctionTransformer(lambda x: x), Ridge()),
            "Pipeline.steps[1][1].func",
        ),
        (lambda: Owner({"a": [1, threading.Lock()]}), "Owner.part['a'][1]"),
        (lambda: Owner([Owner(i for i in range(3))]), "Owner.part[0].part"),
        (lambda: Owner({(1, 2): 3}), "Owner.part"),
        (lambda: Owner(pytest.importorskip("pandas").DataFrame({"a": [1]})), "Owner.part"),
    ],
    ids=["lambda", "shadow", "pipeline", "lock", "generator", "key", "frame"],
)
def test_what_cannot_be_saved_is_named(make, path, tmp_path):
    with pytest.raises(InvalidInputError) as caught:
        save_estimator(make(), tmp_path / "m")
    assert f"without pickle: {path} " in str(caught.value).replace("._mgr", "")
    assert list(tmp_path.iterdir()) == []


def test_size_on_disk_is_the_size_of_the_saved_form(data, tmp_path, monkeypatch):
    model = RandomForestRegressor(5, random_state=0).fit(data[0], data[0][:, 0])
    path = save_estimator(model, tmp_path / "m")
    written = sum(file.stat().st_size for file in path.iterdir())
    monkeypatch.setattr(scikd.persistence, "atomic_write_bytes", None)  # nothing may write
    assert size_on_disk(model) == pytest.approx(written, rel=0.02)  # skops writes addresses


def test_a_damaged_file_never_reaches_skops(data, tmp_path, monkeypatch):
    path = save_estimator(make_pipeline(StandardScaler(), Ridge()), tmp_path / "m")
    whole = (path / "estimator.skops").read_bytes()
    monkeypatch.setattr(scikd._estimators, "zipfile", None)  # reading would raise AttributeError
    for position in range(0, len(whole), 17):
        flipped = bytearray(whole)
        flipped[position] ^= 4
        for content in (bytes(flipped), whole[:position]):
            (path / "estimator.skops").write_bytes(content)
            with pytest.raises(CorruptFileError, match="cut short or edited"):
                load_estimator(path)


# ---------------------------------------------------------------------------------------------
# Estimators: malice. The attacker knows how to make the checksums right.
# ---------------------------------------------------------------------------------------------


class PickleBomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class SkopsBomb:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return SkopsBomb, (self.command,)


def skops_bomb(target):
    """Return a skops file that starts a process if its types are trusted."""
    model = Ridge()
    model.bomb_ = SkopsBomb(["touch", str(target)])
    source = zipfile.ZipFile(io.BytesIO(skops_io.dumps(model)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in source.namelist():
            text = source.read(name).decode().replace('"SkopsBomb"', '"Popen"')
            archive.writestr(name, text.replace(f'"{SkopsBomb.__module__}"', '"subprocess"'))
    return buffer.getvalue()


def test_a_pickle_in_place_of_a_file_is_refused_and_not_run(tmp_path):
    target = tmp_path / "exploded"
    bomb = pickle.dumps(PickleBomb(target))
    path = save_estimator(Ridge(), tmp_path / "m")
    replace_blob(path, "estimator.skops", bomb)
    with pytest.raises(CorruptFileError, match="no skops file"):
        load_estimator(path, trusted=["posix.system", "os.system"])
    bundle = save_bundle(tmp_path / "b", kind="k", parameters={}, arrays={"a": np.ones(2)})
    replace_blob(bundle, "arrays.safetensors", bomb)
    with pytest.raises(CorruptFileError, match="not a valid safetensors"):
        load_bundle(bundle, kind="k")
    assert not target.exists()
    pickle.loads(bomb)  # the bomb was a real one
    assert target.exists()


def test_a_skops_file_with_foreign_types_is_refused_and_not_run(tmp_path):
    target = tmp_path / "exploded"
    path = save_estimator(Ridge(), tmp_path / "m")
    replace_blob(path, "estimator.skops", skops_bomb(target))
    with pytest.raises(InvalidInputError, match=r"not trusted: \['subprocess.Popen'\]"):
        load_estimator(path)
    assert not target.exists()
    load_estimator(path, trusted=["subprocess.Popen"]).bomb_.wait()  # it was a real one
    assert target.exists()


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * 10**8)
    path = save_estimator(Ridge(), tmp_path / "m")
    replace_blob(path, "estimator.skops", buffer.getvalue())
    with pytest.raises(CorruptFileError, match="would unpack to 100,000,000 bytes"):
        load_estimator(path)


def test_importing_is_light():
    heavy = run_script(
        "import scikd.persistence, scikd.fingerprints, scikd.labels, sys\n"
        "print({'torch', 'pandas', 'polars', 'sklearn', 'scipy', 'skops', 'safetensors'}"
        " & set(sys.modules))"
    )
    assert heavy.strip() == "set()"
