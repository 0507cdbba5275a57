"""Stored labels: equal to a direct prediction, or refused; resumed after a kill at any moment."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scikd._atomic
import scikd._chunks
import scikd.labels
from scikd._manifest import seal_manifest
from scikd.exceptions import (
    CorruptFileError,
    InvalidInputError,
    MismatchedLabelsError,
    SchemaError,
    StorageError,
    TeacherError,
)
from scikd.fingerprints import fingerprint_inputs
from scikd.labels import LabelStore
from scikd.quantities import Quantity

ROOT = Path(scikd.labels.__file__).parents[1]
X = np.random.default_rng(0).normal(size=(53, 3))
ENERGY = Quantity("energy", "eV", ())
FORCES = Quantity("forces", "eV/Å", (3,), per="atom")


class Molecules:
    """A teacher whose samples have different numbers of atoms: 0, 1 or 2 rows of forces each."""

    name = "molecules"
    fingerprint = "f" * 64
    quantities = (ENERGY, FORCES)

    def __init__(self, stop_at=None, error=None):
        self.asked = []
        self.stop_at, self.error = stop_at, error

    def predict(self, batch):
        batch = np.asarray(batch)
        if self.stop_at is not None and len(self.asked) == self.stop_at:
            raise self.error
        self.asked.append(len(batch))
        atoms = np.repeat(batch, (np.abs(batch[:, 0]) * 10).astype(int) % 3, axis=0)
        return {"energy": batch.sum(axis=1), "forces": (2 * atoms).astype(np.float32)}


def direct(inputs=X):
    return Molecules().predict(inputs)


def same(labels, expected):
    return labels.keys() == expected.keys() and all(
        labels[name].dtype == array.dtype and np.array_equal(labels[name], array)
        for name, array in expected.items()
    )


def run_script(script, *arguments, check=True):
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def files_of(path):
    return sorted(file for file in Path(path).rglob("*") if file.is_file())


@pytest.fixture
def store(tmp_path):
    return LabelStore(tmp_path / "store")


@pytest.fixture
def folder(store):
    """Give the folder of complete labels."""
    store.label(Molecules(), X, batch_size=10, progress=False)
    return store.entries()[0].path


# ---------------------------------------------------------------------------------------------
# Labelling
# ---------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 6), st.booleans())
def test_labels_equal_a_direct_prediction_whatever_the_batches(first, second, stop_at, as_list):
    inputs = X.tolist() if as_list else X
    with tempfile.TemporaryDirectory() as path:
        store = LabelStore(path)
        broken = Molecules(stop_at, ZeroDivisionError("no"))
        total = -(-len(X) // first)
        if stop_at < total:
            with pytest.raises(TeacherError, match=r"'molecules', samples .* ZeroDivisionError"):
                store.label(broken, inputs, batch_size=first, progress=False)
        teacher = Molecules()
        labels = store.label(teacher, inputs, batch_size=second, progress=False)
        assert same(labels, direct())
        assert same(store.read("molecules", inputs), direct())
        if stop_at < total:
            assert labels.batches_reused == stop_at
            assert sum(teacher.asked) == len(X) - sum(broken.asked)
        assert [f.suffix for f in files_of(path)] == [".npy", ".npy", ".json"]


def test_labels_are_read_only_maps_with_units(store):
    labels = store.label(Molecules(), X, progress=False)
    assert (labels.name, labels.fingerprint, labels.n_samples) == ("molecules", "f" * 64, 53)
    assert labels.inputs == fingerprint_inputs(X)
    assert labels.quantities == (ENERGY, FORCES)
    assert list(labels) == ["energy", "forces"]
    for array in labels.values():
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_complete_labels_are_only_read(store, folder):
    teacher = Molecules()
    assert same(store.label(teacher, X, progress=False), direct())
    assert teacher.asked == []


def test_frames_sparse_matrices_and_mappings_are_sliced(store):
    from scipy import sparse

    inputs = {"sparse": sparse.csr_array(X), "columns": {"a": X, "b": list(X)}}

    class Reader(Molecules):
        def __init__(self, read, fingerprint):
            super().__init__()
            self.read, self.fingerprint = read, fingerprint

        def predict(self, batch):
            return super().predict(self.read(batch))

    readers = {
        "sparse": (Reader(lambda m: m.toarray(), "s"), inputs["sparse"]),
        "columns": (Reader(lambda m: m["a"] + 0 * np.array(m["b"]), "c"), inputs["columns"]),
    }
    for module in ("pandas", "polars"):
        frames = pytest.importorskip(module)
        frame = frames.DataFrame(dict(zip("abc", X.T, strict=True)))
        readers[module] = (Reader(lambda f: f.to_numpy(), module), frame)
    for teacher, values in readers.values():
        assert same(store.label(teacher, values, batch_size=20, progress=False), direct())
        assert teacher.asked == [20, 20, 13]


def test_take_slices_what_only_the_caller_can(store):
    class Database:
        fingerprint = "database 7"

        def __len__(self):
            return len(X)

    labels = store.label(
        Molecules(), Database(), batch_size=20, take=lambda _, rows: X[rows], progress=False
    )
    assert same(labels, direct())
    with pytest.raises(InvalidInputError, match="Cannot slice inputs of type Database.*Pass take="):
        LabelStore(store.path / "other").label(Molecules(), Database(), progress=False)


def test_samples_without_rows_make_empty_arrays(store):
    inputs = np.zeros((4, 3))  # no atoms at all
    labels = store.label(Molecules(), inputs, progress=False)
    assert labels["forces"].shape == (0, 3)
    assert store.read("molecules", inputs)["energy"].tolist() == [0, 0, 0, 0]


def test_what_a_teacher_returns_is_checked(store):
    class Wrong(Molecules):
        def __init__(self, **changed):
            super().__init__()
            self.changed = changed

        def predict(self, batch):
            return {**super().predict(batch), **self.changed}

    wrong = {
        r"'energy' has 2 rows for 53 samples": {"energy": np.zeros(2)},
        r"'energy' has dtype int64": {"energy": np.zeros(53, int)},
        r"'forces' has entries of shape \(2,\)": {"forces": np.zeros((3, 2))},
        r"'energy' is NaN or infinite in 53 of 53": {"energy": np.full(53, np.nan)},
        r"'energy' has dtype (float128|longdouble)": {"energy": np.zeros(53, np.longdouble)},
    }
    for message, changed in wrong.items():
        with pytest.raises(TeacherError, match=message):
            store.label(Wrong(**changed), X, progress=False)

    class Silent(Molecules):
        def predict(self, batch):
            return {"energy": super().predict(batch)["energy"]}

    with pytest.raises(TeacherError, match=r"'forces' is missing \(got \['energy'\]\)"):
        store.label(Silent(), X, progress=False)


def test_columns_must_be_the_same_in_every_batch(store):
    class Growing(Molecules):
        quantities = (Quantity("proba"),)

        def predict(self, batch):
            return {"proba": np.zeros((len(batch), len(batch)))}

    with pytest.raises(TeacherError, match=r"different shapes in different batches: \[\(13,\)"):
        store.label(Growing(), X, batch_size=20, progress=False)


@pytest.mark.parametrize(("inputs", "batch_size"), [(X[:0], 3), (X, 0), ([], 1)])
def test_there_must_be_samples_and_batches(store, inputs, batch_size):
    with pytest.raises(InvalidInputError, match="Expected samples and batch_size >= 1"):
        store.label(Molecules(), inputs, batch_size=batch_size)


def test_a_keyboard_interrupt_passes_and_finished_batches_stay(store, caplog):
    with pytest.raises(KeyboardInterrupt):
        store.label(Molecules(3, KeyboardInterrupt()), X, batch_size=10, progress=False)
    (entry,) = store.entries()
    assert (entry.complete, entry.n_samples, entry.quantities) == (False, 53, (ENERGY, FORCES))
    with pytest.raises(MismatchedLabelsError, match=r"no complete labels.*\n.*53 samples, incompl"):
        store.read("molecules", X)
    teacher = Molecules()
    with caplog.at_level(logging.INFO, logger="scikd.labels"):
        labels = store.label(teacher, X, batch_size=10, progress=False)
    assert "3 finished batches (30 of 53 samples) were already there, 3 to go" in caplog.text
    assert labels.batches_reused == 3
    assert teacher.asked == [10, 10, 3]
    assert store.entries()[0].complete


def test_damaged_chunks_are_labelled_again(store, caplog):
    def start():
        shutil.rmtree(store.path, ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            store.label(Molecules(5, KeyboardInterrupt()), X, batch_size=10, progress=False)
        return files_of(store.path)

    for number, whole in enumerate([path.read_bytes() for path in start()]):
        for position in range(0, len(whole), 211):
            flipped = bytearray(whole)
            flipped[position] ^= 16
            for content in (bytes(flipped), whole[:position]):
                victim = start()[number]
                victim.write_bytes(content)
                teacher = Molecules()
                labels = store.label(teacher, X, batch_size=10, progress=False)
                assert same(labels, direct())
                again = 1 if victim.suffix == ".npz" else 0
                assert labels.batches_reused == 5 - again
                assert sum(teacher.asked) == 3 + 10 * again
    assert "is damaged; its batch is labelled again" in caplog.text


def test_a_pickle_in_place_of_a_chunk_is_not_run(store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        store.label(Molecules(2, KeyboardInterrupt()), X, batch_size=10, progress=False)
    bomb = make_bomb(tmp_path / "exploded")
    chunks = store.entries()[0].path / "chunks"
    sealed = f"{20:012d}-{30:012d}-{hashlib.sha256(bomb).hexdigest()}.npz"  # a right checksum
    (chunks / sealed).write_bytes(bomb)
    assert same(store.label(Molecules(), X, batch_size=10, progress=False), direct())
    assert not (tmp_path / "exploded").exists()


def test_temporary_files_of_killed_processes_are_swept_when_old(store):
    with pytest.raises(KeyboardInterrupt):
        store.label(Molecules(2, KeyboardInterrupt()), X, batch_size=10, progress=False)
    path = store.entries()[0].path
    for place in (path, path / "chunks"):
        for name, age in ((".new.tmp", 0), (".old.tmp", 7200)):
            (place / name).write_bytes(b"half")
            stat = (place / name).stat()
            os.utime(place / name, (stat.st_atime - age, stat.st_mtime - age))
    store.label(Molecules(), X, batch_size=10, progress=False)
    assert [f.name for f in files_of(store.path) if f.suffix == ".tmp"] == [".new.tmp"]


# ---------------------------------------------------------------------------------------------
# Killed at any moment
# ---------------------------------------------------------------------------------------------

KILLED = """
import glob, json, os, shutil, signal, sys
import numpy as np
from scikd.labels import LabelStore
from scikd.quantities import Quantity
root, sizes = sys.argv[1], json.loads(sys.argv[2])
X = np.arange(60.0).reshape(20, 3)

class Teacher:
    name, fingerprint = "t", "f"
    quantities = (Quantity("energy", "eV"), Quantity("forces", "eV/A", (3,), "atom"))
    def predict(self, batch):
        with open(root + "/asked", "a") as file:
            file.write(f"{int(batch[0, 0]) // 3} {len(batch)}\\n")
        return {"energy": batch.sum(1), "forces": np.repeat(batch, 2, axis=0)}

def child(point, size):
    count = 0
    def hook(event, arguments):
        nonlocal count
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree") or (
            event == "open" and arguments[1] in ("wb", "xb"))
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
    LabelStore(root + "/store").label(Teacher(), X, batch_size=size, progress=False)

def finished():
    held = set()
    for path in glob.glob(root + "/store/*/chunks/*.npz"):
        start, stop = os.path.basename(path).split("-")[:2]
        held |= set(range(int(start), int(stop)))
    return set(range(20)) if glob.glob(root + "/store/*/manifest.json") else held

def run(point, size):
    before = finished()
    open(root + "/asked", "w").close()
    pid = os.fork()
    if pid == 0:
        try:
            child(point, size)
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(3)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    again = [list(map(int, line.split())) for line in open(root + "/asked")]
    repeated = {i for start, n in again for i in range(start, start + n)} & before
    assert not repeated, (point, size, repeated)
    assert finished() >= before, (point, before, finished())
    return status

def check():
    labels = LabelStore(root + "/store").read("t", X)
    assert (labels["energy"] == X.sum(1)).all() and (labels["forces"] == X.repeat(2, 0)).all()

points = runs = 0
if sys.argv[3] == "one kill":  # a kill at every point of a fresh run, then a run to the end
    done = False
    while not done:
        points += 1
        shutil.rmtree(root + "/store", ignore_errors=True)
        done = os.WIFEXITED(run(points, sizes[0]))
        assert run(10**9, sizes[1]) == 0
        check()
else:  # kill after kill: every run goes a little further than the one before it
    for step in (3, 9):
        shutil.rmtree(root + "/store", ignore_errors=True)
        while True:
            runs += 1
            status = run(step + runs % 5, sizes[runs % len(sizes)])
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            step += 1 if runs % 10 == 0 else 0
        check()
print(json.dumps({"points": points, "runs": runs}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("sizes", [[5, 5], [7, 3]])
def test_a_kill_at_every_point_loses_at_most_the_batch_in_flight(tmp_path, sizes):
    result = json.loads(run_script(KILLED, tmp_path, json.dumps(sizes), "one kill"))
    assert result["points"] > 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_kill_after_kill_comes_to_an_end(tmp_path):
    result = json.loads(run_script(KILLED, tmp_path, "[4, 6, 3]", "many kills"))
    assert result["runs"] > 10


AT_ONCE = """
import sys, time, numpy as np
from scikd.labels import LabelStore
from scikd.quantities import Quantity
root, size, noise = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
X = np.arange(600.0).reshape(200, 3)

class Teacher:
    name, fingerprint, quantities = "t", "f", (Quantity("value"),)
    def predict(self, batch):
        time.sleep(0.002)
        return {"value": batch.sum(1) + noise}

for round in range(6):
    inputs = X + round
    labels = LabelStore(root).label(Teacher(), inputs, batch_size=size, progress=False)
    offset = labels["value"] - inputs.sum(1)
    assert np.isin(np.round(offset, 9), [0.0, 0.25, 0.5]).all(), offset
    LabelStore(root).write(name="w", fingerprint="w", inputs=f"{round}",
        quantities=Teacher.quantities, arrays={"value": np.full(5, noise)})
    assert len(set(LabelStore(root).read("w", f"{round}")["value"])) == 1
"""


def test_processes_that_label_the_same_at_once_do_not_mix(store):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(store.path), str(size), str(noise)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for size, noise in ((10, 0.0), (10, 0.25), (7, 0.5))
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors[-3000:]
    entries = store.entries()
    assert [entry.complete for entry in entries] == [True] * 12
    for entry in entries:
        store.read(entry.fingerprint, entry.inputs)  # verified


def test_labels_that_another_process_completes_meanwhile_are_taken(store):
    class Overtaken(Molecules):
        def predict(self, batch):
            if not self.asked:
                LabelStore(store.path).label(Molecules(), X, batch_size=20, progress=False)
            return super().predict(batch)

    teacher = Overtaken()
    assert same(store.label(teacher, X, batch_size=10, progress=False), direct())
    assert teacher.asked == [10]  # then its folder for batches was gone, and the labels there
    assert [f.suffix for f in files_of(store.path)] == [".npy", ".npy", ".json"]


def test_batches_that_vanish_during_assembly_are_no_error(store, monkeypatch):
    assemble = scikd.labels.assemble

    def overtaken(*arguments):
        monkeypatch.setattr(scikd.labels, "assemble", assemble)
        LabelStore(store.path).label(Molecules(), X, batch_size=20, progress=False)
        return assemble(*arguments)

    monkeypatch.setattr(scikd.labels, "assemble", overtaken)
    assert same(store.label(Molecules(), X, batch_size=10, progress=False), direct())


def test_batches_that_are_lost_again_and_again_are_an_error(store, monkeypatch):
    assemble = scikd.labels.assemble

    def losing(folder, *arguments):
        shutil.rmtree(folder / "chunks")
        return assemble(folder, *arguments)

    monkeypatch.setattr(scikd.labels, "assemble", losing)
    with pytest.raises(StorageError, match="Could not read the batches in .*No such file"):
        store.label(Molecules(), X, progress=False)


# ---------------------------------------------------------------------------------------------
# Full disks
# ---------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys, numpy as np
from scikd.exceptions import StorageError
from scikd.labels import LabelStore
from scikd.quantities import Quantity

class Teacher:
    name, fingerprint, quantities = "t", "f", (Quantity("value"),)
    asked = 0
    def predict(self, batch):
        self.asked += 1
        return {"value": batch.sum(1)}

X, store, limit = np.ones((4000, 1)), LabelStore(sys.argv[1]), int(sys.argv[2])
teacher = Teacher()
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    store.label(teacher, X, batch_size=1000, progress=False)
except StorageError as error:
    print(error)
asked, teacher.asked = teacher.asked, 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
labels = store.label(teacher, X, batch_size=1000, progress=False)
assert (labels["value"] == 1).all()
print(asked, teacher.asked)
"""


@pytest.mark.parametrize(("limit", "batches"), [(4096, "1 4"), (16384, "4 0")])
def test_a_write_that_the_system_refuses_loses_no_finished_batch(store, limit, batches):
    # With 4 KiB no batch can be written; with 16 KiB all can, and the assembled array cannot.
    message, counts = run_script(LIMITED, store.path, limit).splitlines()
    assert "File too large. The file is larger than the system allows (ulimit -f" in message
    assert counts == batches


def test_a_full_disk_loses_no_finished_batch(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
    if not shutil.which(mount[0]) or subprocess.run(mount, check=False, stderr=-3).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        store, inputs = LabelStore(disk), np.repeat(X, 300, axis=0)
        teacher = Molecules()
        with pytest.raises(
            StorageError, match="No space left on device. Free some space"
        ) as caught:
            store.label(teacher, inputs, batch_size=500, progress=False)
        assert caught.value.errno == errno.ENOSPC
        finished = len(teacher.asked) - 1
        assert finished == len([f for f in files_of(disk) if f.suffix == ".npz"]) > 1
        subprocess.run([shutil.which("mount"), "-o", "remount,size=4m", str(disk)], check=True)
        labels = store.label(Molecules(), inputs, batch_size=500, progress=False)
        assert labels.batches_reused == finished
        assert same(labels, direct(inputs))
        del labels
    finally:
        subprocess.run([shutil.which("umount"), "-l", str(disk)], check=True)


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def test_labels_of_another_teacher_or_of_other_inputs_are_refused(store, folder):
    for teacher, inputs in (("molecules", X + 1), ("other", X), ("0" * 64, X), ("f" * 64, X[:5])):
        with pytest.raises(MismatchedLabelsError, match="holds no complete labels") as caught:
            store.read(teacher, inputs)
        listed = f"teacher 'molecules' (fingerprint {'f' * 16}) for the inputs "
        assert listed + f"{fingerprint_inputs(X)[:16]} (53 samples)" in str(caught.value)
    with pytest.raises(MismatchedLabelsError, match="It holds: nothing"):
        LabelStore(store.path / "none").read("molecules", X)


def test_labels_are_found_by_name_fingerprint_or_teacher(store, folder):
    for teacher in ("molecules", "f" * 64, Molecules()):
        for inputs in (X, fingerprint_inputs(X)):
            assert same(store.read(teacher=teacher, inputs=inputs), direct())


def test_a_name_with_two_fingerprints_is_refused(store, folder):
    class Retrained(Molecules):
        fingerprint = "e" * 64

    store.label(Retrained(), X, progress=False)
    with pytest.raises(
        MismatchedLabelsError, match="holds several labels of 'molecules'"
    ) as caught:
        store.read("molecules", X)
    assert "eeee" in str(caught.value)
    assert "ffff" in str(caught.value)
    assert same(store.read("e" * 64, X), direct())


def test_every_truncation_and_flipped_bit_of_every_file_is_noticed(store, folder):
    for path in files_of(folder):
        whole = path.read_bytes()
        positions = range(len(whole)) if path.suffix == ".json" else range(0, len(whole), 3)
        for position in positions:
            flipped = bytearray(whole)
            flipped[position] ^= 1 << (position % 8)
            for content in [bytes(flipped)] + ([whole[:position]] if position % 9 == 0 else []):
                path.write_bytes(content)
                try:
                    labels = store.read("f" * 64, X)
                except (CorruptFileError, SchemaError):
                    continue
                assert path.suffix == ".json"  # white space, or another case in a \u escape
                assert same(labels, direct())
        path.write_bytes(whole)


def test_damage_is_noticed_by_name_as_well_and_does_not_hide_the_others(store, folder):
    class Second(Molecules):
        name, fingerprint = "second", "2"

    store.label(Second(), X, progress=False)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="expected a manifest of format 'scikd.labels'"):
        store.read("molecules", X)
    with pytest.raises(CorruptFileError, match="expected a manifest"):
        store.label(Molecules(), X, progress=False)
    assert same(store.read("second", X), direct())
    assert [entry.name for entry in store.entries()] == ["second"]


def test_missing_files_newer_schemas_and_foreign_content_are_told_apart(store, folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(seal_manifest({**manifest, "schema": 2}))
    for teacher in ("molecules", "f" * 64):
        with pytest.raises(SchemaError, match="has schema 2; this scikd reads schemas up to 1"):
            store.read(teacher, X)
    quantities = manifest["quantities"]
    for changed, message in (
        ({"file": "../../secret.npy"}, "which is not there"),
        ({"file": "/etc/passwd"}, "which is not there"),
        ({"array_shape": [10**12]}, r"of shape \(53,\), expected <f8 of shape \(1000000000000,\)"),
        ({"dtype": "<i8"}, "holds <f8"),
        ({"bytes": 10**15}, "was cut short or edited"),
        ({"shape": 5}, "not a set of labels"),
    ):
        edited = {**manifest, "quantities": [{**quantities[0], **changed}, quantities[1]]}
        (folder / "manifest.json").write_bytes(seal_manifest(edited))
        with pytest.raises(CorruptFileError, match=message):
            store.read("molecules" if "shape" not in changed else "f" * 64, X)
    (folder / "manifest.json").write_bytes(seal_manifest(manifest))
    (folder / quantities[0]["file"]).unlink()
    with pytest.raises(CorruptFileError, match="which is not there. Delete the folder"):
        store.read("molecules", X)


def test_without_verification_sizes_and_types_are_still_checked(store, folder):
    path = next(iter(sorted(folder.glob("energy*.npy"))))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert store.read("molecules", X, verify=False)["energy"][0] == direct()["energy"][0]
    with pytest.raises(CorruptFileError, match="cut short or edited"):
        store.read("molecules", X)
    path.write_bytes(whole[:-8])
    with pytest.raises(CorruptFileError, match="cut short or edited"):
        store.read("molecules", X, verify=False)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def make_bomb(path):
    """Return a pickle that makes a file when it is read."""
    return pickle.dumps(Bomb(path))


def test_a_pickle_in_place_of_an_array_is_refused_and_not_run(store, folder, tmp_path):
    target = tmp_path / "exploded"
    object_array = tmp_path / "bomb.npy"
    np.save(object_array, np.array([Bomb(target)], dtype=object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for content in (make_bomb(target), object_array.read_bytes()):
        entry = {
            **manifest["quantities"][0],
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        (folder / entry["file"]).write_bytes(content)
        edited = {**manifest, "quantities": [entry, manifest["quantities"][1]]}
        (folder / "manifest.json").write_bytes(seal_manifest(edited))  # every checksum is right
        for verify in (True, False):
            with pytest.raises(CorruptFileError, match="damaged, or no set of labels"):
                store.read("molecules", X, verify=verify)
    assert not target.exists()
    np.load(object_array, allow_pickle=True)  # the bomb was a real one
    assert target.exists()


# ---------------------------------------------------------------------------------------------
# Writing in one go, and other environments
# ---------------------------------------------------------------------------------------------


def test_write_and_read(store):
    arrays = direct()
    for factor in (1, 2, 2):  # written over
        changed = {name: factor * array for name, array in arrays.items()}
        options = {"name": "m", "fingerprint": "f", "inputs": X, "quantities": (ENERGY, FORCES)}
        written = store.write(**options, arrays=changed)
        assert same(written, changed)
        assert same(store.read("m", X), changed)
        assert written.n_samples == 53
        assert written.quantities == (ENERGY, FORCES)
    assert len(store.entries()) == 1


@pytest.mark.parametrize("array", [X.T, X[::2, ::-1], X.astype(">f4"), X.astype(np.float16)])
def test_write_keeps_values_of_any_layout(store, array):
    options = {"name": "m", "fingerprint": "f", "inputs": "hash", "arrays": {"value": array}}
    written = store.write(**options, quantities=[Quantity("value")])
    assert np.array_equal(written["value"], array)
    assert written["value"].dtype == array.dtype.newbyteorder("<")


def test_write_lists_all_that_does_not_fit(store):
    with pytest.raises(InvalidInputError) as caught:
        store.write(
            name="m",
            fingerprint="f",
            inputs=X,
            quantities=(ENERGY, FORCES, Quantity("stress")),
            arrays={"energy": np.zeros(3, int), "forces": np.zeros((2, 2))},
        )
    for part in ("'energy' has dtype int64", "'forces' has entries", "'stress' is missing"):
        assert part in str(caught.value)
    with pytest.raises(InvalidInputError, match="n_samples is unknown: pass it"):
        store.write(
            name="m",
            fingerprint="f",
            inputs="h",
            quantities=[FORCES],
            arrays={"forces": np.zeros((2, 3))},
        )
    with pytest.raises(InvalidInputError, match="quantities of different names"):
        store.write(name="", fingerprint="f", inputs="h", quantities=[], arrays={}, n_samples=3)
    assert not store.path.exists() or store.entries() == []


def test_names_that_are_no_file_names_are_stored(store):
    names = ["../../up", "a/b", "a_b", "a b", "Å", "x" * 300, "file", "allow_pickle"]
    quantities = tuple(Quantity(name) for name in names)
    arrays = {name: np.full(4, float(i)) for i, name in enumerate(names)}

    class Odd:
        name, fingerprint = "../../odd", "../../f"

        def predict(self, batch):
            return {name: array[: len(batch)] for name, array in arrays.items()}

    Odd.quantities = quantities
    labels = store.label(Odd(), X[:4], batch_size=3, progress=False)
    assert same(labels, arrays)
    written = store.write(
        name="w", fingerprint="/f", inputs="../i", quantities=quantities, arrays=arrays
    )
    assert same(written, arrays)
    assert {path.parent.parent for path in files_of(store.path.parent)} == {store.path}


def test_a_store_is_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = LabelStore(tmp_path / "file")
    with pytest.raises(StorageError, match="is a file; a label store is a folder"):
        store.entries()
    with pytest.raises(StorageError, match="Could not make the folder"):
        store.label(Molecules(), X, progress=False)


def test_a_store_goes_to_other_processes(store):
    assert pickle.loads(pickle.dumps(store)).path == store.path
    assert repr(store) == f"LabelStore({str(store.path)!r})"


FOREIGN = """
import glob, hashlib, json, sys
import numpy as np  # and nothing else
for path in glob.glob(sys.argv[1] + "/*/manifest.json"):
    manifest = json.load(open(path))
    for quantity in manifest["quantities"]:
        file = path.replace("manifest.json", quantity["file"])
        assert hashlib.sha256(open(file, "rb").read()).hexdigest() == quantity["sha256"]
        array = np.load(file, allow_pickle=False)
        print(manifest["name"], quantity["name"], quantity["unit"], array.shape, float(array.sum()))
assert not [name for name in sys.modules if name.startswith("scikd")]
"""


def test_numpy_alone_reads_the_labels(store, folder):
    expected = direct()
    lines = [
        f"molecules {q.name} {q.unit} {expected[q.name].shape} {float(expected[q.name].sum())}"
        for q in (ENERGY, FORCES)
    ]
    assert run_script(FOREIGN, store.path).splitlines() == lines
