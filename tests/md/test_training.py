"""Training: it learns, it can be killed at any time, and several processes are one."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from scikd._options import load_options
from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError
from scikd.md._optimise import average, learning_rate
from scikd.md._trainer import Trainer
from scikd.md._training_data import FrameSet, as_batch, plan_batches, split
from scikd.md.frames import from_ase, select
from scikd.md.losses import DivergedError, LossOptions
from scikd.md.neighbors import find_neighbors
from scikd.md.storage import load_force_field
from scikd.md.training import (
    TrainingOptions,
    _structures,
    build_force_field,
    fit,
    note_range,
)

TINY = {"dim": 8, "n_heads": 2, "n_layers": 2, "n_radial": 6, "n_hidden": 1, "cutoff": 4.0}


def labelled(n=24, seed=0):
    """Return small clusters with the energies and forces of a pair potential, and charges."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        size = int(rng.integers(2, 6))
        atoms = Atoms(rng.choice([2, 10], size), rng.uniform(0.0, 1.3 * size, (size, 3)))
        while size > 1 and np.min(atoms.get_all_distances()[np.triu_indices(size, 1)]) < 0.9:
            atoms.positions = rng.uniform(0.0, 1.3 * size, (size, 3))
        frames.append(atoms)
    batch = from_ase(frames)
    x = batch.positions.clone().requires_grad_()
    pairs = find_neighbors(batch, 4.0, 4.0).far
    r = (x[pairs.index[1]] - x[pairs.index[0]]).norm(dim=1)
    pair = 2.0 * (1.0 - torch.exp(-1.5 * (r - 1.6))) ** 2 - 2.0
    energy = torch.zeros(n, dtype=torch.float64).index_add(0, pairs.structure, pair)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    base = torch.where(batch.numbers == 2, -79.0, -400.0).double()
    sums = torch.zeros(n, dtype=torch.float64)
    charges = torch.where(batch.numbers == 2, 0.2, -0.2).double()
    charges -= (sums.index_add(0, batch.batch, charges) / batch.counts)[batch.batch]
    return replace(
        batch,
        energy=energy.detach() + sums.index_add(0, batch.batch, base),
        forces=-gradient,
        charges=charges,
    )


def tiny(**changes):
    given = {"model": TINY, "epochs": 4, "batch_size": 6, "threads": 1, "patience": None}
    return load_options(TrainingOptions, None, {**given, **changes})


def weights(force_field):
    return {name: v.clone() for name, v in force_field.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(v, second[k]) for k, v in first.items()
    )


# --------------------------------------------------------------------------------- what it is for


def test_it_learns_a_pair_potential():
    options = tiny(epochs=60, learning_rate=0.01, ema_decay=0.9, precision="float64")
    result = fit(options, train=labelled(40), progress=False)
    first, last = result.history[0], result.history[result.best_epoch - 1]
    assert last["validation_forces_meV_per_A"] < 0.4 * first["validation_forces_meV_per_A"]
    assert last["validation_loss"] == min(row["validation_loss"] for row in result.history)
    assert last["train_loss"] < 0.1 * first["train_loss"]
    # Energies of the elements are fitted: what is left is small beside hundreds of eV.
    assert last["validation_energy_meV_per_atom"] < 1000.0


TENSORS = {"family": "equivariant", "channels": 4, "l_max": 1, "n_hidden": 8, "cutoff": 4.0}


def test_the_other_family_learns_it_too_and_resumes_to_the_same_numbers(tmp_path):
    data = labelled(40)
    given = {"model": TENSORS, "epochs": 30, "learning_rate": 0.01, "ema_decay": 0.9}
    whole = fit(tiny(**given, precision="float64"), train=data, progress=False)
    first, last = whole.history[0], whole.history[whole.best_epoch - 1]
    assert last["validation_forces_meV_per_A"] < 0.4 * first["validation_forces_meV_per_A"]
    assert last["train_loss"] < 0.1 * first["train_loss"]
    # In training, not in use, the average numbers of neighbours come from the structures.
    liquid = build_force_field(tiny(**given), {2, 10}).architecture
    trained = whole.force_field.architecture
    assert not torch.equal(trained.layers[0].neighbors.float(), liquid.layers[0].neighbors)
    constant = given | {"schedule": "constant", "precision": "float64", "output": tmp_path / "out"}
    for epochs in (1, 2):
        parts = fit(tiny(**constant | {"epochs": epochs}), train=data, progress=False)
    constant |= {"output": None, "epochs": 2}
    assert same(
        weights(parts.force_field),
        weights(fit(tiny(**constant), train=data, progress=False).force_field),
    )


def test_a_training_from_a_model_of_the_other_family_keeps_its_numbers_of_neighbours(tmp_path):
    first = fit(tiny(model=TENSORS, epochs=1, output=tmp_path / "out"), train=labelled())
    again = fit(tiny(epochs=1, initial=tmp_path / "out"), train=labelled(30, seed=5))
    for one, other in zip(
        first.force_field.architecture.layers, again.force_field.architecture.layers, strict=True
    ):
        assert torch.equal(one.neighbors, other.neighbors)


def test_a_model_that_is_given_untrained_is_normalised_by_the_structures_once():
    options, data = tiny(model=TENSORS, epochs=1), labelled()
    expected = fit(options, train=data, progress=False).force_field.architecture.layers
    model = build_force_field(options, {2, 10})
    for structures in (data, labelled(30, seed=5)):
        found = fit(options, train=structures, model=model, progress=False).force_field
        for one, other in zip(found.architecture.layers, expected, strict=True):
            assert torch.equal(one.neighbors, other.neighbors)


def test_the_best_model_is_saved_with_a_log(tmp_path):
    options = tiny(output=tmp_path / "out")
    result = fit(options, train=labelled(), progress=False)
    assert result.path == tmp_path / "out" / "model"
    loaded = load_force_field(result.path)
    assert same(weights(loaded), weights(result.force_field))
    assert same(weights(load_force_field(tmp_path / "out")), weights(loaded))
    assert loaded.metadata["training"]["epoch"] == result.best_epoch
    with (tmp_path / "out" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["validation_loss"]) == result.history[-1]["validation_loss"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others():
    data = labelled()
    runs = [fit(tiny(seed=seed), train=data, progress=False) for seed in (1, 1, 2)]
    assert same(weights(runs[0].force_field), weights(runs[1].force_field))
    assert not same(weights(runs[0].force_field), weights(runs[2].force_field))


def test_files_are_read_and_a_model_is_trained_on(tmp_path):
    from scikd.md.readers import write_frames

    data = labelled()
    write_frames(tmp_path / "train.h5", select(data, range(18)))
    write_frames(tmp_path / "rest.h5", select(data, range(18, 24)))
    options = tiny(
        train=[str(tmp_path / "train.h5")],
        validation=[str(tmp_path / "rest.h5")],
        output=tmp_path / "first",
    )
    first = fit(options, progress=False)
    again = replace(options, initial=first.path, output=None, epochs=2, fit_references=False)
    second = fit(again, progress=False)
    assert second.history[0]["validation_loss"] < first.history[0]["validation_loss"]
    assert torch.equal(second.force_field.references, first.force_field.references)
    assert first.force_field.metadata["total_charges"] == [0.0, 0.0]


def test_a_model_knows_the_total_charges_that_it_has_seen():
    data = labelled()
    charged = replace(data, total_charge=torch.linspace(-1.0, 2.0, data.n_structures))
    model = build_force_field(tiny(), {1, 8})
    for structures, seen in ((data, [0.0, 0.0]), (charged, [-1.0, 2.0]), (data, [-1.0, 2.0])):
        note_range(model, structures)
        assert model.metadata["total_charges"] == seen
    del model.metadata["total_charges"]  # as in a model from before they were noted
    note_range(model, data)
    assert "total_charges" not in model.metadata


def test_another_level_of_theory_is_taken_up_by_the_references(tmp_path):
    data = labelled()
    options = tiny(precision="float64", epochs=1)
    first = fit(replace(options, output=tmp_path), train=data, progress=False).force_field
    shift = torch.zeros(87, dtype=torch.float64)
    shift[[2, 10]] = torch.tensor([0.7, -300.0], dtype=torch.float64)
    sums = torch.zeros(data.n_structures, dtype=torch.float64)
    other = replace(data, energy=data.energy + sums.index_add(0, data.batch, shift[data.numbers]))
    again = replace(options, initial=tmp_path, epochs=2)
    plain, shifted = (fit(again, train=labels, progress=False) for labels in (data, other))
    torch.testing.assert_close(
        shifted.force_field.references - plain.force_field.references, shift, rtol=0, atol=1e-9
    )
    for row, expected in zip(shifted.history, plain.history, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-6)
    for name, values in weights(plain.force_field).items():
        torch.testing.assert_close(weights(shifted.force_field)[name], values, rtol=0, atol=1e-6)
    # What is fitted is the rest that the first model leaves, not the labels.
    moved = plain.force_field.references - first.references
    assert 0.0 < moved.abs().max() < 1.0


def test_published_forces_loss_and_optimiser_run():
    options = tiny(
        forces="published",
        optimizer="adamax",
        schedule="exponential",
        learning_rate=0.01,
        **{"loss.preset": "published", "model.envelope": "cosine", "loss.dipole": 0.0},
    )
    history = fit(options, train=labelled(), progress=False).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert "validation_qeq_meV_per_A" in history[-1]
    assert "validation_virial_meV_per_atom" in history[-1]


def test_a_network_alone_can_be_trained():
    result = fit(tiny(electrostatics=False), train=labelled(), progress=False)
    assert result.force_field.electrostatics is None
    assert np.isfinite(result.history[-1]["train_loss"])


def test_early_stopping(caplog):
    options = tiny(epochs=50, patience=2, learning_rate=1e-9, warmup_epochs=0.0, ema_decay=0.0)
    data = labelled()
    forces = data.forces.clone()
    with caplog.at_level(logging.INFO, logger="scikd.md.training"):
        result = fit(options, train=replace(data, forces=forces), progress=False)
    waited = len(result.history) - result.best_epoch
    assert waited == 2 or len(result.history) == 50
    assert len([r for r in caplog.records if r.message.startswith("epoch ")]) == len(result.history)


def test_some_labels_may_be_missing():
    data = labelled()
    forces = data.forces.clone()
    forces[data.batch < 8] = torch.nan
    energy = data.energy.clone()
    energy[10:12] = torch.nan
    result = fit(tiny(), train=replace(data, forces=forces, energy=energy), progress=False)
    assert np.isfinite(result.history[-1]["train_loss"])


# ----------------------------------------------------------------------------------- what is wrong


def test_labels_that_the_loss_was_told_to_use_must_be_there():
    data = replace(labelled(), charges=None)
    with pytest.raises(InvalidInputError, match="labels for charges, and no structure has any"):
        fit(tiny(loss={"charges": 1.0}), train=data)
    bare = replace(data, energy=None, forces=None)
    with pytest.raises(InvalidInputError, match="labels for energy, forces"):
        fit(tiny(fit_references=False), train=bare)


def test_nothing_to_train_on_is_said():
    with pytest.raises(InvalidInputError, match="files in the option train"):
        fit(tiny())
    with pytest.raises(InvalidInputError, match="at least 2 structures"):
        fit(tiny(), train=select(labelled(), [0]))


def test_an_element_that_a_model_does_not_know_is_refused():
    model = build_force_field(tiny(), {2, 6})
    with pytest.raises(InvalidInputError, match="The model knows .*'He', 'C'"):
        fit(tiny(), train=labelled(), model=model)


def test_an_output_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match="Could not make the folder .*There is a file of that name"
    ):
        fit(tiny(output=tmp_path / "file"), train=labelled(), progress=False)


def test_impossible_options_are_listed():
    with pytest.raises(InvalidInputError, match="epochs is 0.*ema_decay is 2.0.*loss.qeq"):
        tiny(epochs=0, ema_decay=2.0, electrostatics=False, loss={"qeq": 1.0})


def test_a_loss_that_blows_up_stops_the_training_and_keeps_the_last_checkpoint(tmp_path):
    data = labelled()
    options = tiny(output=tmp_path, epochs=2, schedule="constant")
    fit(options, train=data, progress=False)
    before = (tmp_path / "checkpoint" / "manifest.json").read_bytes()
    wild = replace(options, epochs=6, learning_rate=1e30, clip_norm=None, resume=True)
    with pytest.raises(InvalidInputError, match="learning_rate was 0.003 and is 1e\\+30"):
        fit(wild, train=data, progress=False)
    forces = data.forces.clone()
    forces[5] = 1e30
    other = replace(options, output=tmp_path / "other")
    with pytest.raises(DivergedError, match=r"loss.* NaN or infinite in epoch 1, step 1, on the"):
        fit(other, train=replace(data, forces=forces), progress=False)
    assert (tmp_path / "checkpoint" / "manifest.json").read_bytes() == before


def test_a_training_with_other_settings_or_data_is_not_gone_on_with(tmp_path):
    data = labelled()
    fit(tiny(output=tmp_path), train=data, progress=False)
    with pytest.raises(InvalidInputError, match="batch_size was 6 and is 4"):
        fit(tiny(output=tmp_path, batch_size=4), train=data, progress=False)
    with pytest.raises(InvalidInputError, match="the structures were others"):
        fit(tiny(output=tmp_path), train=labelled(seed=9), progress=False)
    result = fit(tiny(output=tmp_path, batch_size=4, resume=False), train=data, progress=False)
    assert len(result.history) == 4


def test_a_damaged_checkpoint_is_said(tmp_path):
    data = labelled()
    fit(tiny(output=tmp_path), train=data, progress=False)
    path = tmp_path / "checkpoint" / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match="cut short"):
        fit(tiny(output=tmp_path), train=data, progress=False)


# ------------------------------------------------------------------------- stopping and going on

PROGRAM = """
import sys, logging
import torch
sys.path[:0] = {path!r}
from scikd._options import load_options
from scikd.md.training import TrainingOptions, fit
from scikd.md.readers import read_frames
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
options = load_options(TrainingOptions, sys.argv[1])
result = fit(options, progress=False)
torch.set_printoptions(precision=17)
"""


@pytest.fixture
def job(tmp_path):
    """Give a program that trains, and the folder that it writes to."""
    from scikd._options import dump_options
    from scikd.md.readers import write_frames

    write_frames(tmp_path / "train.h5", labelled(60))
    program = tmp_path / "train.py"
    program.write_text(PROGRAM.format(path=[p for p in sys.path if p]))

    def prepare(name, **changes):
        options = tiny(
            train=[str(tmp_path / "train.h5")],
            output=tmp_path / name,
            epochs=12,
            batch_size=2,
            checkpoint_seconds=0.02,
            **changes,
        )
        dump_options(options, tmp_path / f"{name}.yaml")
        return [str(program), str(tmp_path / f"{name}.yaml")], tmp_path / name

    return prepare


def start(command, *launcher):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, *command],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def finish(process):
    """Wait for the end of a process that must end well, and return what it logged."""
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return errors


def wait_for_progress(process, folder, beyond):
    """Wait until a checkpoint is there that is further than a number of steps."""
    from scikd.persistence import load_bundle

    deadline = time.monotonic() + 100.0
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "checkpoint").exists():
            standing = load_bundle(folder / "checkpoint", kind="scikd.md.Training").parameters
            if standing["standing"]["step"] > beyond:
                return standing["standing"]["step"]
        time.sleep(0.01)
    return None


def lines(folder):
    """Return the log but for what depends on the clock."""
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    clock = {"seconds", "structures_per_second"}
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_to_the_same_numbers(job):
    command, whole = job("whole")
    finish(start(command))
    command, killed = job("killed")
    beyond, kills = 0, 0
    for target in (3, 40, 150):
        process = start(command)
        seen = wait_for_progress(process, killed, max(target, beyond))
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        assert seen is not None, errors
        beyond, kills = seen, kills + 1
    errors = finish(start(command))
    assert "goes on from epoch" in errors
    assert lines(killed) == lines(whole)
    first, second = (load_force_field(folder / "model") for folder in (whole, killed))
    assert same(weights(first), weights(second))
    assert first.metadata == second.metadata


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_asked_to_stop_leaves_a_checkpoint(job, number):
    command, folder = job("stopped")
    process = start(command)
    assert wait_for_progress(process, folder, 2) is not None
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert "the checkpoint lies in" in errors
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
    else:
        assert "KeyboardInterrupt" in errors
    finish(start(command))
    assert len(lines(folder)) == 12


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_training_that_breaks_off_goes_on_to_the_same_numbers(tmp_path, monkeypatch, steps):
    """As above, without the signal: in one process, and with an optimiser of another kind."""
    data = labelled()
    options = tiny(output=tmp_path / "broken", optimizer="adamax", checkpoint_seconds=0.0)
    whole = fit(replace(options, output=tmp_path / "whole"), train=data, progress=False)
    step = Trainer._step

    def break_off(self, *arguments):
        if self.standing.step == steps:
            raise RuntimeError
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", break_off)
    with pytest.raises(RuntimeError):
        fit(options, train=data, progress=False)
    monkeypatch.undo()
    again = fit(options, train=data, progress=False)
    assert same(weights(again.force_field), weights(whole.force_field))
    assert lines(tmp_path / "broken") == lines(tmp_path / "whole")


def test_a_finished_training_is_not_repeated(tmp_path):
    data = labelled()
    first = fit(tiny(output=tmp_path), train=data, progress=False)
    begin = time.perf_counter()
    second = fit(tiny(output=tmp_path), train=data, progress=False)
    assert time.perf_counter() - begin < 2.0
    assert second.history == first.history
    assert same(weights(second.force_field), weights(first.force_field))


def test_a_training_without_a_schedule_that_ends_can_be_prolonged(tmp_path):
    data = labelled()
    fit(tiny(output=tmp_path / "a", schedule="constant"), train=data, progress=False)
    longer = tiny(output=tmp_path / "a", schedule="constant", epochs=6)
    prolonged = fit(longer, train=data, progress=False)
    whole = fit(replace(longer, output=None), train=data, progress=False)
    assert same(weights(prolonged.force_field), weights(whole.force_field))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 2])
def test_two_processes_do_what_one_does(job, batch_size):
    changes = {"precision": "float64", "loss": {"virial": 0.1}}
    command, one = job("one", **changes)
    finish(start(command))
    command, two = job("two", **changes)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finish(start(command, *launcher))
    first, second = lines(one), lines(two)
    assert len(first) == len(second) == 12
    for row, other in zip(first, second, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in other.items()}, rel=1e-6, abs=1e-9
        )


# ---------------------------------------------------------------------------------------- its parts


@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    batch_size=st.integers(1, 8),
    max_atoms=st.none() | st.integers(1, 120),
    shuffle=st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_every_structure_is_in_one_batch(counts, batch_size, max_atoms, shuffle):
    counts = np.array(counts)
    plan = plan_batches(counts, batch_size, max_atoms=max_atoms, shuffle=shuffle)
    assert sorted(np.concatenate(plan)) == list(range(len(counts)))
    for batch in plan:
        assert 1 <= len(batch) <= batch_size
        assert max_atoms is None or counts[batch].sum() <= max_atoms or len(batch) == 1
        assert (np.diff(counts[batch]) <= 0).all()


def test_the_order_depends_on_seed_and_epoch():
    counts = np.full(30, 4)
    orders = [
        np.concatenate(plan_batches(counts, 3, shuffle=shuffle)).tolist()
        for shuffle in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_a_batch_is_not_smaller_than_the_processes_that_share_it():
    plan = plan_batches(np.full(13, 4), 4, processes=2)
    assert [len(batch) for batch in plan] == [4, 4, 5]


@pytest.mark.parametrize("periodic", [False, True])
def test_a_batch_has_the_pairs_that_a_search_finds(periodic):
    data = labelled()
    if periodic:
        cell = torch.eye(3, dtype=torch.float64).expand(24, 3, 3) * 7.0
        data = replace(data, cell=cell.contiguous(), pbc=torch.ones(24, 3, dtype=torch.bool))
    frames = FrameSet(
        data,
        lambda batch: find_neighbors(batch, 4.0, 5.0),
        device=torch.device("cpu"),
        dtype=torch.float64,
        progress=False,
    )
    chosen = np.array([7, 3, 20, 3])
    batch, neighbors = frames.take(chosen)
    expected = select(data, chosen)
    fresh = find_neighbors(expected, 4.0, 5.0)
    for name, tensor in expected.tensors().items():
        assert torch.equal(getattr(batch, name), tensor), name
    for mine, other in ((neighbors.near, fresh.near), (neighbors.far, fresh.far)):
        assert torch.equal(mine.index, other.index)
        assert torch.equal(mine.structure, other.structure)
        assert torch.equal(mine.shifts, other.shifts)
    assert frames.nbytes > 0


def test_structures_come_in_many_forms(tmp_path):
    from scikd.md.frames import to_ase
    from scikd.md.readers import write_frames

    data = labelled(4)
    frames = to_ase(data)
    write_frames(tmp_path / "a.xyz", data)
    for source in (data, frames, tmp_path / "a.xyz", [str(tmp_path / "a.xyz")], [data]):
        assert as_batch(source).n_structures == 4
    assert as_batch(frames[0]).n_structures == 1
    assert as_batch([data, frames[1], tmp_path / "a.xyz"]).n_structures == 9
    with pytest.raises(InvalidInputError, match="got none"):
        as_batch([])


@given(n=st.integers(2, 200), fraction=st.floats(0.0, 1.0), seed=st.integers(0, 9))
def test_a_split_holds_out_something_and_keeps_something(n, fraction, seed):
    rest, held_out = split(np.arange(n), fraction, seed)
    assert len(held_out) == min(max(round(fraction * n), 1), n - 1)
    assert len(rest) >= 1
    assert sorted([*rest, *held_out]) == list(range(n))


@given(
    groups=st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
    fraction=st.floats(0.0, 1.0),
    seed=st.integers(0, 9),
)
def test_no_group_is_on_both_sides(groups, fraction, seed):
    groups = np.array(groups)
    rest, held_out = split(groups, fraction, seed)
    assert not set(groups[rest]) & set(groups[held_out])
    assert sorted([*rest, *held_out]) == list(range(len(groups)))
    assert len(rest)
    smallest = np.unique(groups, return_counts=True)[1].min()
    assert 1 <= len(held_out) <= max(round(fraction * len(groups)), smallest)


def test_fit_holds_out_whole_groups_and_says_so(caplog):
    data = labelled()
    grouped = replace(data, group=torch.arange(24) // 6)
    with caplog.at_level(logging.INFO, logger="scikd.md.training"):
        chosen, held_out = _structures(tiny(validation_fraction=0.3), grouped, ())
    assert held_out.n_structures == 6
    assert not set(chosen.group.tolist()) & set(held_out.group.tolist())
    assert "holds out 6 of 24 structures by group (1 of 4)" in caplog.text
    with caplog.at_level(logging.INFO, logger="scikd.md.training"):
        _structures(tiny(validation_fraction=0.3), data, ())
    assert "holds out 7 of 24 structures at random" in caplog.text
    # One whose group is not known stands alone.
    some = replace(data, group=torch.tensor([0] * 12 + [-1] * 12))
    _, held_out = _structures(tiny(validation_fraction=0.3), some, ())
    assert held_out.group.tolist() == [-1] * 7
    with pytest.raises(InvalidInputError, match="2 groups of structures, to hold some out; got 1"):
        fit(tiny(), train=replace(data, group=torch.zeros(24, dtype=torch.int64)))


def test_learning_rates_follow_their_formula():
    cosine = tiny(epochs=11, learning_rate=2.0, warmup_epochs=1.0, final_learning_rate=0.1)
    assert learning_rate(cosine, 0.0) == 0.0
    assert learning_rate(cosine, 0.25) == pytest.approx(0.5)
    assert learning_rate(cosine, 1.0) == pytest.approx(2.0)
    assert learning_rate(cosine, 6.0) == pytest.approx(2.0 * 0.55)
    assert learning_rate(cosine, 11.0) == pytest.approx(0.2)
    published = tiny(schedule="exponential", warmup_epochs=0.0, decay=0.99, learning_rate=0.01)
    assert learning_rate(published, 0.9) == 0.01
    assert learning_rate(published, 3.5) == pytest.approx(0.01 * 0.99**3)
    constant = tiny(schedule="constant", warmup_epochs=0.0, learning_rate=0.5)
    assert learning_rate(constant, 7.7) == 0.5


def test_averaged_weights_forget_exponentially():
    averaged, value = [torch.tensor([1.0, 2.0], dtype=torch.float64)], torch.tensor([3.0, 0.0])
    average(averaged, [value.double()], 0.9, 10_000)
    assert averaged[0].tolist() == pytest.approx([1.2, 1.8])
    average(averaged, [value.double()], 0.0, 10_000)
    assert averaged[0].tolist() == [3.0, 0.0]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit(tiny(output=tmp_path, tensorboard=True), train=labelled(), progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = [event.value for event in events.Scalars("validation_loss")]
    assert values == pytest.approx([row["validation_loss"] for row in result.history])


@pytest.mark.gpu
def test_it_trains_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    data = labelled()
    options = tiny(precision="float64")
    gpu, cpu = (
        fit(replace(options, device=d), train=data, progress=False).history for d in ("cuda", "cpu")
    )
    assert gpu[-1]["train_loss"] == pytest.approx(cpu[-1]["train_loss"], rel=1e-6)


def test_the_loss_options_of_a_file_reach_the_training():
    options = tiny(loss={"forces": 3.0, "huber": 0.5})
    assert options.loss == LossOptions(forces=3.0, huber=0.5)
    assert json.loads(json.dumps(options.loss.weights))["forces"] == 3.0
    assert isinstance(options.output, Path | None)


def test_dispersion_is_not_counted_twice_by_silence():
    with pytest.raises(InvalidInputError, match="dispersion_in_labels is not given"):
        TrainingOptions(dispersion="d3-cso")
    assert TrainingOptions(dispersion="d3-cso", dispersion_in_labels=False).dispersion == "d3-cso"


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InvalidInputError, match="Expected a device that torch can use"):
        fit(TrainingOptions(device="nowhere"), train=labelled(4), progress=False)
