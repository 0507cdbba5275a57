"""The clusters that ship with the code: what their card says is so."""

import h5py
import numpy as np
import pytest

from scikd.md.frames import find_molecules, from_ase, to_ase
from scikd.md.labelling import XTBTeacher
from scikd.md.readers import read_frames
from tests.contracts.source import ROOT

FILES = sorted((ROOT / "data" / "md").glob("clusters-*.h5"))

pytestmark = pytest.mark.skipif(not FILES, reason="data/md is not part of this installation")


@pytest.fixture(scope="module")
def batches():
    return [read_frames(path) for path in FILES]


@pytest.fixture(scope="module")
def columns():
    held = []
    for path in FILES:
        with h5py.File(path) as file:
            held.append({name: file[name][()] for name in ("split", "group", "n_atoms")})
    return {name: np.concatenate([part[name] for part in held]) for name in held[0]}


def test_there_are_enough_of_every_kind(batches, columns):
    assert sum(batch.n_structures for batch in batches) == 3927
    assert columns["n_atoms"].max() == 120
    assert np.bincount(columns["split"]).tolist() == [3150, 385, 392]
    numbers = np.unique(np.concatenate([batch.numbers.numpy() for batch in batches]))
    assert numbers.tolist() == [1, 3, 6, 8, 9, 15]


def test_groups_do_not_leak(batches, columns):
    assert np.array_equal(np.concatenate([batch.group for batch in batches]), columns["group"])
    for group in np.unique(columns["group"]):
        assert len(set(columns["split"][columns["group"] == group])) == 1


def test_charges_forces_and_energies_hang_together(batches):
    for batch in batches:
        charge = np.bincount(batch.batch, weights=batch.charges)
        np.testing.assert_allclose(charge, batch.total_charge, atol=1e-5)
        for k in range(3):
            net = np.bincount(batch.batch, weights=batch.forces[:, k])
            assert np.abs(net).max() < 1e-4
        assert np.linalg.norm(batch.forces, axis=1).max() < 30.0


def test_molecules_are_those_of_the_geometry(batches):
    for batch in batches:
        for atoms in to_ase(batch)[::40]:
            found, stored = find_molecules(atoms), atoms.arrays["molecules"]
            # Close contacts may look like bonds, but no molecule is torn.
            for molecule in np.unique(stored):
                assert len(set(found[stored == molecule])) == 1


def test_labels_are_those_of_the_stored_positions(batches):
    pytest.importorskip("tblite")
    frames = [atoms for batch in batches for atoms in to_ase(batch)[:400:57] if len(atoms) < 40]
    labels = XTBTeacher().predict(frames)
    stored = from_ase(frames)
    np.testing.assert_allclose(stored.energy, labels["energy"], atol=1e-5)
    np.testing.assert_allclose(stored.forces, labels["forces"], atol=2e-4)
    np.testing.assert_allclose(stored.charges, labels["charges"], atol=1e-4)
    np.testing.assert_allclose(stored.dipole, labels["dipole"], atol=1e-3)
