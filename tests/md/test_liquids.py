"""Liquids that are run with an ensemble, and which of their frames are kept."""

from __future__ import annotations

from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.io import read, write
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md import dynamics
from scikd.md.calculators import EnsembleCalculator
from scikd.md.frames import to_ase
from scikd.md.liquids import LiquidsOptions, choose_frames, frames_of, run_name, sample_liquids


def members():
    return [LennardJones(sigma=3.4, epsilon=e, rc=6.0, smooth=True) for e in (0.008, 0.012)]


def start(edge=11.0):
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return Atoms("Ar27", grid * edge / 3, cell=[edge] * 3, pbc=True)


def options(tmp_path, **changes):
    given_ = {
        "liquids": ("argon",), "n_frames": 3, "ensemble": "nvt", "temperature": 90.0,
        "timestep": 5.0, "time": "1ps", "equilibration": "100fs", "minimise_steps": 0,
        "trajectory_interval": 10, "output": str(tmp_path / "out"),
    }  # fmt: skip
    return LiquidsOptions(**(given_ | changes))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 40), st.integers(1, 8))
def test_frames_of_largest_spread_that_are_apart(spread, n, apart):
    spread, n = np.array(spread), min(n, len(spread))
    chosen = choose_frames(spread, n, apart)
    assert len(set(chosen)) == n
    assert (np.diff(chosen) > 0).all()
    assert spread.argmax() in chosen or spread[chosen].max() == spread.max()
    if n * (2 * apart - 1) <= len(spread):  # then none had to be closer
        assert (np.diff(chosen) >= apart).all()


def test_frames_at_equal_distances():
    assert choose_frames(np.zeros(11), 3, 0).tolist() == [0, 5, 10]


def test_a_liquid_is_run_and_its_most_uncertain_frames_are_kept(tmp_path, caplog):
    given_ = options(tmp_path, apart=1)
    frames = sample_liquids(given_, members(), starts={"argon": start()}, progress=False)
    assert frames.n_structures == 3
    assert len(set(frames.group.tolist())) == 1
    calculator = EnsembleCalculator(members())
    spread = {}
    for frame in read(tmp_path / "out" / "argon" / "trajectory.extxyz", ":"):
        if frame.info["time_ps"] > 0:
            calculator.calculate(frame)
            rms = np.sqrt(np.square(calculator.results["forces_spread"]).mean())
            spread[float(frame.positions[0, 0])] = rms
    assert len(spread) == 20
    largest = sorted(spread.values())[-3:]
    kept = [min(spread, key=lambda x: abs(x - a.positions[0, 0])) for a in to_ase(frames)]
    assert sorted(spread[x] for x in kept) == pytest.approx(largest)


@pytest.mark.parametrize("equilibration", ["0fs", "30fs", "35fs"])
def test_as_many_frames_are_written_as_options_are_checked_for(tmp_path, equilibration):
    given_ = options(tmp_path, equilibration=equilibration, time="145fs", trajectory_interval=7)
    run = given_.run_of("argon")
    atoms = start()
    dynamics.run_dynamics(run, atoms=atoms, calculator=members()[0], progress=False)
    frames = read(tmp_path / "out" / "argon" / "trajectory.extxyz", ":")
    assert sum(frame.info["time_ps"] > 0 for frame in frames) == frames_of(given_) >= 3


def test_what_is_finished_is_read_and_other_options_are_refused(tmp_path, monkeypatch):
    given_ = options(tmp_path)
    sample_liquids(given_, members(), starts={"argon": start()}, progress=False)
    frames = tmp_path / "out" / "argon" / "frames.h5"
    before = frames.stat().st_mtime_ns
    again = sample_liquids(given_, members(), starts={"argon": start()}, progress=False)
    assert frames.stat().st_mtime_ns == before
    assert again.n_structures == 3
    with pytest.raises(InvalidInputError, match="other options than these: n_frames is 3 there, 2"):
        sample_liquids(
            replace(given_, n_frames=2), members(), starts={"argon": start()}, progress=False
        )
    with pytest.raises(InvalidInputError, match="than these: boxes.argon is another"):
        sample_liquids(given_, members(), starts={"argon": start(10.5)}, progress=False)


def test_side_by_side_the_frames_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
    starts = {"argon": start(), "dense": start(10.5)}
    found = []
    for name, n_jobs in (("one", 1), ("two", None)):
        given_ = options(tmp_path, liquids=tuple(starts), output=str(tmp_path / name))
        with joblib.parallel_config(backend="threading", n_jobs=2):
            batch = sample_liquids(given_, members(), starts=starts, n_jobs=n_jobs, progress=False)
        found.append(batch)
    assert found[0].n_structures == 6
    assert torch.equal(found[0].positions, found[1].positions)
    assert torch.equal(found[0].group, found[1].group)


def test_a_folder_of_a_refused_command_is_free(tmp_path):
    with pytest.raises(InvalidInputError, match="Unknown species 'XX'"):
        sample_liquids(options(tmp_path, liquids=("EC:XX 1:1",)), members(), progress=False)
    made = sample_liquids(options(tmp_path), members(), starts={"argon": start()}, progress=False)
    assert made.n_structures == 3


def test_liquids_are_refused_before_any_is_run(tmp_path):
    boxes = [tmp_path / name / "box.extxyz" for name in ("a", "b")]
    for path in boxes:
        path.parent.mkdir()
        write(path, start(), format="extxyz")
    for liquids, said in (
        (("argon", "Foo"), "Foo: Unknown species 'Foo'"),
        (("argon", *map(str, boxes)), "would share a folder: rename a file"),
        (("argon", str(tmp_path / "none.xyz")), "There is no file"),
    ):
        given_ = options(tmp_path, liquids=liquids)
        with pytest.raises(InvalidInputError, match=said):
            sample_liquids(given_, members(), starts={"argon": start()}, progress=False)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="different liquids.*n_frames|n_frames.*liquids"):
        options(tmp_path, liquids=("argon", "argon"), n_frames=0)
    with pytest.raises(InvalidInputError, match="Expected models to run"):
        sample_liquids(options(tmp_path))
    with pytest.raises(InvalidInputError, match="selection 'spread' or 'even', got 'evn'"):
        options(tmp_path, selection="evn")
    with pytest.raises(InvalidInputError, match="a run with 30 frames .*, got 20: run longer"):
        options(tmp_path, n_frames=30)
    assert run_name("EC:DMC 1:1") == "EC-DMC-1-1"
    assert run_name("/some/where/box.xyz") == "box.xyz"
