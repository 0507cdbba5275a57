"""Files: what was written is read, in our units; what was cut short is refused."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from scikd.exceptions import (
    CorruptFileError,
    InvalidInputError,
    MissingExtraError,
    SchemaError,
    StorageError,
)
from scikd.md.frames import from_ase
from scikd.md.readers import LabelKeys, LabelUnits, read_frames, write_frames
from scikd.md.units import BOHR, HARTREE, KCAL_PER_MOL

DEEPMD = "md/water_dft_pbe0_ts/"


def make_frames(n=4, seed=0):
    """Return small structures, each with other labels missing."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        count = k % 3 + 2
        atoms = Atoms(
            rng.choice([1, 6, 8, 3], count),
            rng.uniform(-0.3, 0.3, (count, 3)) + 2.0 * np.arange(count)[:, None],
            cell=np.diag([15.0, 16, 17]) + rng.uniform(0, 1, (3, 3)) if k % 2 else None,
            pbc=[True, True, k % 4 == 1] if k % 2 else False,
        )
        labels = {
            "energy": float(rng.normal()),
            "forces": rng.normal(size=(count, 3)),
            "charges": rng.normal(size=count),
            "dipole": rng.normal(size=3),
        }
        if k % 2:
            labels["stress"] = rng.normal(size=6)
        if k == 2:
            del labels["forces"], labels["dipole"]
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info["total_charge"] = float(k - 1)
        atoms.set_array("molecules", np.arange(count) // 2)
        if k:
            atoms.info["group"] = 2**55 + k // 2  # as large as those made of text
        frames.append(atoms)
    return frames


@pytest.fixture
def batch():
    return from_ase(make_frames())


def assert_close(one, other, atol):
    assert one.tensors().keys() == other.tensors().keys()
    for name, value in one.tensors().items():
        torch.testing.assert_close(
            other.tensors()[name], value, rtol=0, atol=atol, equal_nan=True, msg=name
        )


@pytest.mark.parametrize(
    ("name", "accuracy"), [("frames.h5", 0.0), ("frames.HDF5", 0.0), ("frames.xyz", 6e-9)]
)
def test_what_is_written_is_read(tmp_path, batch, name, accuracy):
    write_frames(tmp_path / name, batch, level="a level")
    assert_close(batch, read_frames(tmp_path / name), accuracy)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_hdf5_keeps_single_precision_and_says_what_it_holds(tmp_path, batch):
    path = tmp_path / "frames.h5"
    write_frames(path, batch.to(dtype=torch.float32), level="GFN2-xTB")
    with h5py.File(path) as file:
        assert file["positions"].dtype == np.float32
        assert file.attrs["level"] == "GFN2-xTB"
        assert '"forces": "eV/\\u00c5"' in file.attrs["units"]
        assert file["n_atoms"][()].tolist() == [2, 3, 4, 2]
    read = read_frames(path, dtype=torch.float32)
    assert_close(batch.to(dtype=torch.float32), read, 0.0)


def test_groups_that_were_saved_in_less_space_are_read(tmp_path, batch):
    path = tmp_path / "frames.h5"
    write_frames(path, replace(batch, group=None))
    assert read_frames(path).group is None
    with h5py.File(path, "a") as file:
        file["group"] = np.arange(4, dtype=np.int8)
    group = read_frames(path).group
    assert group.dtype == torch.int64
    assert group.tolist() == [0, 1, 2, 3]


def test_labels_that_nobody_has_stay_away(tmp_path):
    plain = from_ase([Atoms("He"), Atoms("Ne")])
    for name in ("a.h5", "a.xyz"):
        write_frames(tmp_path / name, plain)
        assert_close(plain, read_frames(tmp_path / name), 0.0)


def test_ase_databases_are_read_with_values_and_data(tmp_path):
    frames = make_frames()
    with ase.db.connect(tmp_path / "frames.db") as database:
        for atoms in frames:
            # ASE keeps labels that it knows; others go where its users put them.
            database.write(
                atoms,
                total_charge=atoms.info["total_charge"],
                scan=f"scan {atoms.info.get('group')}",
                data={"molecules_there": atoms.arrays["molecules"], "E_new": -2.0},
            )
    batch = read_frames(tmp_path / "frames.db")
    expected = from_ase(frames)
    for name in ("positions", "energy", "forces", "stress", "charges", "total_charge", "cell"):
        torch.testing.assert_close(
            getattr(batch, name), getattr(expected, name), rtol=0, atol=1e-12, equal_nan=True
        )
    assert batch.group is None
    batch = read_frames(tmp_path / "frames.db", keys=LabelKeys(energy="E_new", group="scan"))
    assert batch.energy.tolist() == [-2.0] * 4
    assert batch.group[2] == batch.group[3]
    assert len(batch.group.unique()) == 3


def test_trajectories_of_ase_are_read(tmp_path):
    frames = make_frames()
    ase.io.write(tmp_path / "frames.traj", frames)
    batch = read_frames(tmp_path / "frames.traj")
    torch.testing.assert_close(batch.forces, from_ase(frames).forces, equal_nan=True)


def test_an_overflow_of_information_in_a_comment_line_does_no_harm(tmp_path):
    path = tmp_path / "frames.xyz"
    atoms = Atoms("He")
    atoms.info |= {"note": "x" * 5000, "list": np.arange(30), "virial": np.eye(3)}
    ase.io.write(path, atoms, format="extxyz")
    assert read_frames(path).stress is None


# ------------------------------------------------------------------------------------- units


def test_units_of_the_file_are_converted(tmp_path):
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 2.2]], cell=[20.0, 21.0, 22.0], pbc=True)
    atoms.info |= {"energy": -113.0, "virial": np.diag([1.0, 2.0, 3.0])}
    atoms.arrays["forces"] = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, -0.1]])
    ase.io.write(tmp_path / "au.xyz", atoms)
    units = LabelUnits(
        length="bohr", energy="Ha", forces="Ha/bohr", virial="kcal/mol", virial_sign=-1
    )
    batch = read_frames(tmp_path / "au.xyz", units=units)
    assert batch.positions[1, 2].item() == pytest.approx(2.2 * BOHR)
    assert batch.cell[0].diagonal().tolist() == pytest.approx([20 * BOHR, 21 * BOHR, 22 * BOHR])
    assert batch.energy.item() == pytest.approx(-113 * HARTREE)
    assert batch.forces[0, 2].item() == pytest.approx(0.1 * HARTREE / BOHR)
    expected = -np.array([1.0, 2.0, 3.0]) * KCAL_PER_MOL
    np.testing.assert_allclose(batch.virial[0].diagonal(), expected)


def test_a_stress_with_the_sign_of_a_pressure_is_turned_round(tmp_path):
    atoms = Atoms("He", cell=[5] * 3, pbc=True)
    atoms.info["stress_GPa"] = np.arange(6.0)
    ase.io.write(tmp_path / "a.xyz", atoms)
    units = LabelUnits(stress="GPa", stress_sign=-1)
    batch = read_frames(tmp_path / "a.xyz", keys=LabelKeys(stress="stress_GPa"), units=units)
    np.testing.assert_allclose(batch.stress[0] * 160.21766, -np.arange(6.0), rtol=1e-6)


def test_units_and_signs_that_are_none_are_refused():
    with pytest.raises(InvalidInputError, match="virial_sign to be 1 or -1; got 0"):
        LabelUnits(virial_sign=0)
    with pytest.raises(InvalidInputError, match="one quantity; got 'eV' and 'eV/Å'"):
        LabelUnits(forces="eV")
    with pytest.raises(InvalidInputError, match="got 'furlong'"):
        LabelUnits(length="furlong")


def test_labels_in_a_wrong_unit_are_found_while_reading(scikd_data):
    path = scikd_data("md/carbonate_xtb_clusters/solvent_xtb_train_200.xyz")
    keys = LabelKeys(energy="energy_xtb", forces="forces_xtb")
    wrong = LabelUnits(forces="kcal/mol/Å")  # they are in eV/Å
    with pytest.raises(InvalidInputError, match="have a stiffness of 1.35; expected 20 to 60"):
        read_frames(path, keys=keys, units=wrong)
    assert read_frames(path, keys=keys, units=wrong, check=False).n_structures == 203


def test_a_key_that_no_structure_has_is_an_error(scikd_data):
    path = scikd_data("md/carbonate_xtb_clusters/volumeScan.xyz")
    with pytest.raises(
        InvalidInputError, match=r"named \['energy_xtb'\].*has .*'energy', 'forces'"
    ):
        read_frames(path, keys=LabelKeys(energy="energy_xtb"))


# ------------------------------------------------------------------------------------ DeePMD


def test_deepmd_folders_are_read(scikd_data):
    folder = scikd_data(DEEPMD + "data/data_1")
    batch = read_frames(folder)
    assert batch.n_structures == 160
    assert batch.counts.tolist() == [192] * 160
    assert batch.pbc.all()
    assert batch.numbers[:192].bincount().tolist() == [0] * 1 + [128] + [0] * 6 + [64]
    first = np.load(folder / "set.000/force.npy")
    second = np.load(folder / "set.001/coord.npy")
    np.testing.assert_array_equal(batch.forces[:192].ravel(), first[0])
    np.testing.assert_array_equal(batch.positions[-192:].ravel(), second[-1])


def test_deepmds_virial_is_ours(scikd_data):
    folder = scikd_data(DEEPMD + "dplr/train/data")
    batch = read_frames(folder)
    virial = np.load(folder / "set.000/virial.npy").reshape(-1, 3, 3)
    symmetric = (virial + virial.swapaxes(1, 2)) / 2
    np.testing.assert_allclose(batch.virial, symmetric, atol=1e-6)


def write_deepmd(folder, frames=3, atoms=2, *, periodic=True):
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0\n1\n" * (atoms // 2))
    (folder / "type_map.raw").write_text("C\nO\n")
    coord = np.zeros((frames, atoms, 3))
    coord[:, 1, 2] = 1.2
    np.save(folder / "set.000/coord.npy", coord.reshape(frames, -1))
    np.save(folder / "set.000/energy.npy", np.arange(frames) + 1.0)
    if periodic:
        np.save(folder / "set.000/box.npy", np.tile(np.eye(3).ravel() * 8, (frames, 1)))
    else:
        (folder / "nopbc").touch()
    return folder


def test_deepmd_folders_without_boundaries_are_read(tmp_path):
    batch = read_frames(write_deepmd(tmp_path / "d", periodic=False))
    assert not batch.pbc.any()
    assert batch.energy.tolist() == [1, 2, 3]


def test_labels_that_only_some_deepmd_sets_have_are_kept(tmp_path):
    folder = write_deepmd(tmp_path / "d")
    shutil.copytree(folder / "set.000", folder / "set.001")
    np.save(folder / "set.000/force.npy", np.ones((3, 6)))
    batch = read_frames(folder)
    assert batch.energy.tolist() == [1, 2, 3, 1, 2, 3]
    assert (batch.forces[:6] == 1).all()
    assert batch.forces[6:].isnan().all()
    assert batch.forces.shape == (12, 3)


def test_the_total_charge_of_deepmd_folders_can_be_given(tmp_path):
    folder = write_deepmd(tmp_path / "d")
    assert read_frames(folder).total_charge.tolist() == [0, 0, 0]
    assert read_frames(folder, total_charge=-1).total_charge.tolist() == [-1, -1, -1]
    with pytest.raises(InvalidInputError, match="a total charge in e, .*; got nan"):
        read_frames(folder, total_charge=float("nan"))
    write_frames(tmp_path / "d.xyz", from_ase(Atoms("He")))
    with pytest.raises(InvalidInputError, match=r"DeePMD folders alone; got 1.0 for .*d\.xyz"):
        read_frames(tmp_path / "d.xyz", total_charge=1.0)


def test_deepmd_units_are_converted(tmp_path):
    folder = write_deepmd(tmp_path / "d")
    batch = read_frames(folder, units=LabelUnits(length="nm", energy="Ha"), check=False)
    assert batch.cell[0, 0, 0] == 80
    assert batch.energy[0].item() == pytest.approx(HARTREE)


def test_deepmd_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="DeePMD folder with type.raw"):
        read_frames(tmp_path)
    folder = write_deepmd(tmp_path / "map")
    (folder / "type_map.raw").write_text("Carbon O")
    with pytest.raises(InvalidInputError, match=r"symbols of elements .*\['Carbon', 'O'\]"):
        read_frames(folder)
    folder = write_deepmd(tmp_path / "types")
    for words in ("0 x", "0 -1", "0 1.0"):
        (folder / "type.raw").write_text(words)
        with pytest.raises(CorruptFileError, match=r"whole numbers from 0 .*type.raw; got \['0'"):
            read_frames(folder)
    folder = write_deepmd(tmp_path / "mixed")
    np.save(folder / "set.000/real_atom_types.npy", np.zeros((3, 2)))
    with pytest.raises(InvalidInputError, match="of the mixed type. Convert it by dpdata"):
        read_frames(folder)
    folder = write_deepmd(tmp_path / "box")
    (folder / "set.000/box.npy").unlink()
    with pytest.raises(CorruptFileError, match=r"Expected coord.npy, box.npy .* nopbc"):
        read_frames(folder)
    folder = write_deepmd(tmp_path / "energies")
    np.save(folder / "set.000/energy.npy", np.ones(2))
    with pytest.raises(CorruptFileError, match="equally many structures .*'energy': 2"):
        read_frames(folder)
    folder = write_deepmd(tmp_path / "cut")
    whole = (folder / "set.000/coord.npy").read_bytes()
    (folder / "set.000/coord.npy").write_bytes(whole[:-20])
    with pytest.raises(CorruptFileError, match="coord.npy for 2 atoms .* cut short"):
        read_frames(folder)


# ------------------------------------------------------------------------------- what is broken


def test_extended_xyz_cut_anywhere_is_whole_structures_or_an_error(tmp_path):
    path, part = tmp_path / "whole.xyz", tmp_path / "part.xyz"
    write_frames(path, from_ase(make_frames(3)))
    content = path.read_bytes()
    whole = read_frames(path)
    ends = frame_ends(content.decode())
    for size in range(len(content)):
        part.write_bytes(content[:size])
        number = sum(end <= size for end in ends)
        # Only at the end of a structure, with its last newline or without, is nothing amiss.
        if size and size in {end - k for end in ends for k in (0, 1)}:
            batch = read_frames(part, check=False)
            n = batch.n_atoms
            torch.testing.assert_close(batch.positions, whole.positions[:n])
            torch.testing.assert_close(batch.charges, whole.charges[:n], equal_nan=True)
        else:
            named = f"structure {number} .counted from 0. of .*cut short" if number else "part.xyz"
            with pytest.raises(CorruptFileError, match=named):
                read_frames(part, check=False)


def frame_ends(text):
    """Return where each structure of an extended XYZ file ends."""
    lines, ends, place, k = text.splitlines(keepends=True), [], 0, 0
    while k < len(lines):
        count = int(lines[k]) + 2
        place += sum(len(line) for line in lines[k : k + count])
        ends.append(place)
        k += count
    return ends


def test_hdf5_cut_or_changed_is_an_error(tmp_path, batch):
    path = tmp_path / "frames.h5"
    write_frames(path, batch)
    content = path.read_bytes()
    for size in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:size])
        with pytest.raises(CorruptFileError, match=r"frames.h5: .* cut short or damaged"):
            read_frames(path)
    path.write_bytes(content)
    with h5py.File(path, "r") as file:
        place = file["positions"].id.get_chunk_info(0).byte_offset
    changed = bytearray(content)
    changed[place + 8] ^= 0xFF
    path.write_bytes(changed)
    with pytest.raises(CorruptFileError, match="cut short or damaged"):
        read_frames(path)


def test_hdf5_of_others_of_the_future_and_with_gaps_is_refused(tmp_path, batch):
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        file["coordinates"] = np.zeros(3)
    with pytest.raises(CorruptFileError, match=r"format None and holds \['coordinates'\]"):
        read_frames(path)
    write_frames(path, batch)
    with h5py.File(path, "a") as file:
        del file["molecules"]
    with pytest.raises(CorruptFileError, match=r"missing: \['molecules'\]"):
        read_frames(path)
    write_frames(path, batch)
    with h5py.File(path, "a") as file:
        file["n_atoms"][0] = 3
    with pytest.raises(CorruptFileError, match=r"rows for 4 structures of 12 atoms"):
        read_frames(path)
    write_frames(path, batch)
    with h5py.File(path, "a") as file:
        file.attrs["units"] = '{"energy": "kcal/mol"}'
    with pytest.raises(CorruptFileError, match="in other units: {'energy': 'kcal/mol'}"):
        read_frames(path)
    write_frames(path, batch)
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = 2
    with pytest.raises(SchemaError, match="newer scikd .schema 2; this one reads up to 1"):
        read_frames(path)


@pytest.mark.parametrize("name", ["frames.db", "frames.traj"])
def test_databases_and_trajectories_cut_short_are_errors(tmp_path, name):
    path = tmp_path / name
    ase.io.write(path, make_frames(12))
    content = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CorruptFileError, match=f"{name}"):
            read_frames(path)


@pytest.mark.parametrize(
    "content", ["", "\n", "not a file of structures\n", "2\n\nC 0 0 0\nO 0 0\n"]
)
def test_text_without_structures_is_an_error(tmp_path, content):
    (tmp_path / "a.xyz").write_text(content)
    with pytest.raises(CorruptFileError, match="a.xyz"):
        read_frames(tmp_path / "a.xyz")


def test_impossible_structures_are_found_while_reading(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [Atoms("He"), Atoms("He2")])
    with pytest.raises(InvalidInputError, match="structure 1: atoms 0 .He. and 1 .He. overlap"):
        read_frames(tmp_path / "a.xyz")
    assert read_frames(tmp_path / "a.xyz", check=False).n_atoms == 3


def test_a_file_that_is_not_there_or_of_another_kind_is_an_error(tmp_path, batch):
    with pytest.raises(StorageError, match="Could not read .*a.xyz: No such file"):
        read_frames(tmp_path / "a.xyz")
    (tmp_path / "a.pdb").touch()
    with pytest.raises(InvalidInputError, match=r"db, deepmd, .*got 'a.pdb'.*from_ase\(ase.io"):
        read_frames(tmp_path / "a.pdb")
    with pytest.raises(InvalidInputError, match="format extxyz or hdf5; got 'a.db'"):
        write_frames(tmp_path / "a.db", batch)
    with pytest.raises(StorageError, match="Create the folder"):
        write_frames(tmp_path / "nowhere" / "a.h5", batch)
    # The name does not matter where the format is given.
    write_frames(tmp_path / "frames", batch, format="hdf5")
    assert_close(batch, read_frames(tmp_path / "frames", format="hdf5"), 0.0)


def test_hdf5_without_h5py_says_what_to_install(tmp_path, batch, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"Reading and writing HDF5 needs .*scikd\[md\]"):
        write_frames(tmp_path / "a.h5", batch)
    assert not list(tmp_path.iterdir())


def test_several_structures_with_a_missing_label_survive_extended_xyz(tmp_path, batch):
    energy = batch.energy.clone()
    energy[1] = torch.nan
    write_frames(tmp_path / "a.xyz", replace(batch, energy=energy))
    assert read_frames(tmp_path / "a.xyz").energy.isnan().tolist() == [False, True, False, False]
