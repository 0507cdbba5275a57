"""Trajectories: read from runs and files, followed across the box, with molecules and charges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import write

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError
from scikd.md import dynamics
from scikd.md.dynamics import DynamicsOptions, run_dynamics
from scikd.md.molecules import get_species
from scikd.md.trajectories import read_trajectory
from tests.reference.md_lennard_jones import LennardJones
from tests.reference.md_synthetic import liquid, walks


def salt_water(n_frames=6, shift=0.0, name="PF6-"):
    """Return frames of an ion pair and a molecule in a box, moving to the right."""
    parts = [get_species(kind).conformers[0].copy() for kind in ("Li+", name, "EC")]
    frames = []
    for k in range(n_frames):
        whole = Atoms(cell=[20, 20, 20], pbc=True)
        for place, part in enumerate(parts):
            moved = part.copy()
            moved.translate([6.0 * place + 3.0 + shift * k, 10, 10])
            whole += moved
        whole.info["time_ps"] = 0.1 * k
        frames.append(whole)
    return frames


def test_a_file_gives_molecules_charges_and_times(tmp_path):
    write(tmp_path / "a.extxyz", salt_water())
    found = read_trajectory(tmp_path / "a.extxyz", temperature=300.0)
    assert found.names == ("Li+", "PF6-", "EC")
    assert found.charges.tolist() == [1, -1, 0]
    assert found.species == ("EC", "Li+", "PF6-")
    assert found.interval_ps == pytest.approx(0.1)
    assert found.constant_volume
    assert found.densities[0] == pytest.approx(
        salt_water()[0].get_masses().sum() / 8e3 * 1.66054, rel=1e-4
    )
    assert len(read_trajectory(tmp_path / "a.extxyz", stride=2).times_ps) == 3


def test_wrapped_atoms_are_followed_across_the_faces(tmp_path):
    frames = salt_water(12, shift=4.0)
    wrapped = [frame.copy() for frame in frames]
    for frame in wrapped:
        frame.wrap()
    write(tmp_path / "free.extxyz", frames)
    write(tmp_path / "wrapped.extxyz", wrapped)
    free = read_trajectory(tmp_path / "free.extxyz")
    followed = read_trajectory(tmp_path / "wrapped.extxyz")
    for found in (free, followed):
        moved = found.positions - found.positions[0]
        np.testing.assert_allclose(
            moved[:, :, 0], 4.0 * np.arange(12)[:, None] * np.ones(len(frames[0])), atol=1e-6
        )
    far = salt_water(6, shift=9.0)
    for frame in far:
        frame.wrap()
    write(tmp_path / "far.extxyz", far)
    with pytest.raises(InvalidInputError, match="Frames lie too far apart"):
        read_trajectory(tmp_path / "far.extxyz")


def test_centres_are_seen_from_the_centre_of_mass_of_all(tmp_path):
    write(tmp_path / "a.extxyz", salt_water(6, shift=0.5))
    found = read_trajectory(tmp_path / "a.extxyz")
    np.testing.assert_allclose(found.centres, found.centres[:1] * np.ones((6, 1, 1)), atol=1e-6)
    masses = [found.masses[found.molecules == k].sum() for k in range(3)]
    np.testing.assert_allclose(np.einsum("tmc,m->tc", found.centres, masses), 0.0, atol=1e-6)
    part = found.molecules == 2
    expected = (found.positions[0, part] * found.masses[part, None]).sum(0) / found.masses[
        part
    ].sum()
    whole = (found.positions[0] * found.masses[:, None]).sum(0) / found.masses.sum()
    np.testing.assert_allclose(found.centres[0, 2], expected - whole, atol=1e-9)


def test_what_cannot_be_a_trajectory_is_refused(tmp_path):
    path = tmp_path / "a.extxyz"
    with pytest.raises(StorageError, match="There is no file"):
        read_trajectory(path)
    with pytest.raises(StorageError, match="holds no checkpoint of a run"):
        read_trajectory(tmp_path)
    path.write_text("nonsense")
    with pytest.raises(StorageError, match="Could not read a trajectory"):
        read_trajectory(path)
    write(path, [salt_water()[0], salt_water()[0][:-1]])
    with pytest.raises(CorruptFileError, match="Frame 1 of .* holds other atoms"):
        read_trajectory(path)
    frames = salt_water()
    for frame in frames:
        frame.pbc = [True, True, False]
    write(path, frames)
    with pytest.raises(InvalidInputError, match="periodic in three directions"):
        read_trajectory(path)
    frames = salt_water()
    for frame in frames:
        del frame.info["time_ps"]
    write(path, frames)
    with pytest.raises(InvalidInputError, match="does not say the times .* Give interval_ps"):
        read_trajectory(path)
    assert read_trajectory(path, interval_ps=0.2).duration_ps == pytest.approx(1.0)
    with pytest.raises(InvalidInputError, match="stride of at least 1"):
        read_trajectory(path, stride=0)


def test_unknown_ions_need_their_charge(tmp_path):
    frames = [frame[:1] + Atoms("Cl", [[10, 0, 0]]) for frame in salt_water()]
    for k, frame in enumerate(frames):
        frame.set_cell([20, 20, 20])
        frame.pbc = True
        frame.info["time_ps"] = 0.1 * k
    write(tmp_path / "a.extxyz", frames)
    with pytest.raises(InvalidInputError, match=r"sum to \+1 e. Give the charges of ions"):
        read_trajectory(tmp_path / "a.extxyz")
    found = read_trajectory(tmp_path / "a.extxyz", charges={"Cl": -1})
    assert found.names == ("Li+", "Cl")


def test_fields_that_do_not_fit_are_all_told():
    paths = walks(np.random.default_rng(0), 5, np.full(4, 0.1))
    good = liquid(paths)
    with pytest.raises(
        InvalidInputError, match=r"numbers of shape \(4,\), got \(3,\); times that grow"
    ):
        replace(good, numbers=good.numbers[:3], times_ps=good.times_ps[::-1])
    with pytest.raises(InvalidInputError, match="frames at equal steps"):
        replace(good, times_ps=good.times_ps**2)
    with pytest.raises(InvalidInputError, match="fewer than two are left"):
        good.after(10.0)


def test_a_run_is_read_without_its_equilibration(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "plot_dynamics", lambda *_: b"figure")
    atoms = bulk("Ar", "fcc", a=5.8, cubic=True) * (2, 2, 2)
    options = DynamicsOptions(
        output=str(tmp_path),
        ensemble="npt",
        temperature=90.0,
        timestep=5.0,
        time="0.5ps",
        equilibration="0.2ps",
        minimise_steps=0,
        log_interval=5,
        trajectory_interval=10,
    )
    run_dynamics(options, atoms=atoms, calculator=LennardJones(119.8 * units.kB, 3.405, 5.5, True))
    found = read_trajectory(tmp_path)
    assert found.times_ps[0] == pytest.approx(0.0)
    assert found.duration_ps == pytest.approx(0.5)
    assert (found.temperature, found.acceleration) == (90.0, 0.0)
    assert not found.constant_volume
    times, densities = found.density
    assert len(times) == 21
    np.testing.assert_allclose(densities[::2], found.densities, rtol=1e-6)
    assert found.pressures.duration_ps == pytest.approx(0.5, abs=0.03)
    later = found.after(0.25)
    assert later.times_ps[0] == pytest.approx(0.25)
    assert later.density[0][0] >= 0.25
    assert later.pressures.start_ps >= 0.25
