"""The molecules that ship with the code: what their card says is so."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from scikd.graphs import load_molecules, load_molecules_split
from scikd.graphs.molecules import ATOM_FEATURES, BOND_FEATURES, SMALL_MOLECULES, molecule_graphs
from tests.contracts.source import ROOT

GEOMETRIES = ROOT / "data" / "graphs" / "geometries.npz"
N = 4000

needs_geometries = pytest.mark.skipif(
    not GEOMETRIES.is_file(), reason="data/graphs is not part of this installation"
)


@pytest.fixture(scope="module")
def graphs():
    return load_molecules()


@pytest.fixture(scope="module")
def gap():
    with np.load(SMALL_MOLECULES) as file:
        return file["gap"]


@pytest.fixture(scope="module")
def geometries():
    """Return atomic numbers and positions in Å of each molecule."""
    with np.load(GEOMETRIES) as file:
        ends = np.cumsum(file["n_atoms"], dtype=np.int64)[:-1]
        numbers = np.split(file["numbers"].astype(np.int64), ends)
        positions = np.split(file["positions"] / 1000, ends)
    return list(zip(numbers, positions, strict=True))


def test_there_are_as_many_as_said_all_different(graphs):
    assert len(graphs) == len(set(graphs.smiles)) == N
    sizes = np.diff(graphs.node_ptr)
    assert (sizes.min(), sizes.max()) == (4, 9)
    assert set(np.unique(graphs.node_features[:, 0] + 1)) == {6, 7, 8, 9, 16}
    assert graphs.node_features.shape[1] == len(ATOM_FEATURES)
    assert graphs.edge_features.shape[1] == len(BOND_FEATURES)


def test_classes_are_the_thirds_of_the_gap(graphs, gap):
    assert np.bincount(graphs.y).tolist() == [1333, 1333, 1334]
    assert (np.diff(graphs.y[np.argsort(gap)]) >= 0).all()


def test_the_split_is_stratified_and_nothing_is_in_two_parts(graphs):
    split = load_molecules_split()
    sizes = {name: np.bincount(graphs.y[part]).tolist() for name, part in split.items()}
    assert sizes == {"train": [1066, 1066, 1067], "valid": [134, 134, 134], "test": [133] * 3}
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(N))


def test_every_bond_is_there_both_ways(graphs):
    np.testing.assert_array_equal(graphs.sources[::2], graphs.targets[1::2])
    np.testing.assert_array_equal(graphs.sources[1::2], graphs.targets[::2])
    np.testing.assert_array_equal(graphs.edge_features[::2], graphs.edge_features[1::2])


def test_they_load_without_rdkit_torch_and_the_data_folder(tmp_path):
    program = (
        "import sys; sys.modules['rdkit'] = sys.modules['torch'] = None; "
        "from scikd.graphs import load_molecules; assert len(load_molecules()) > 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_the_files_are_small():
    size = SMALL_MOLECULES.stat().st_size
    assert size + (GEOMETRIES.stat().st_size if GEOMETRIES.is_file() else 0) < 2_000_000


def test_graphs_are_those_of_their_smiles(graphs):
    chem = pytest.importorskip("rdkit.Chem")
    made = molecule_graphs(graphs.smiles)
    for name in ("node_ptr", "arc_ptr", "sources", "targets", "node_features", "edge_features"):
        np.testing.assert_array_equal(getattr(made, name), getattr(graphs, name), name)
    assert all(chem.CanonSmiles(text) == text for text in graphs.smiles[::20])


@needs_geometries
def test_geometries_are_those_of_the_graphs(graphs, geometries):
    assert len(geometries) == N
    hydrogens = graphs.node_features[:, list(ATOM_FEATURES).index("n_hydrogens")]
    for g, (numbers, positions) in enumerate(geometries):
        nodes = slice(graphs.node_ptr[g], graphs.node_ptr[g + 1])
        heavy = numbers > 1
        n_heavy = nodes.stop - nodes.start
        assert heavy[:n_heavy].all()
        assert (~heavy).sum() == hydrogens[nodes].sum()
        np.testing.assert_array_equal(numbers[heavy], graphs.node_features[nodes, 0] + 1)
        arcs = slice(graphs.arc_ptr[g], graphs.arc_ptr[g + 1])
        ends = np.stack([graphs.sources[arcs], graphs.targets[arcs]]) - nodes.start
        lengths = np.linalg.norm(positions[ends[0]] - positions[ends[1]], axis=1)
        assert ((lengths > 1.1) & (lengths < 2.1)).all(), graphs.smiles[g]


@needs_geometries
def test_gaps_are_those_of_the_stored_positions(gap, geometries):
    interface = pytest.importorskip("tblite.interface")
    units = pytest.importorskip("ase.units")
    for g in range(0, N, 400):
        numbers, positions = geometries[g]
        calculator = interface.Calculator("GFN2-xTB", numbers, positions / units.Bohr)
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 0.1)
        result = calculator.singlepoint()
        filled = result["orbital-occupations"] > 1
        energies = result["orbital-energies"] * units.Hartree
        assert energies[~filled].min() - energies[filled].max() == pytest.approx(gap[g], abs=1e-3)
