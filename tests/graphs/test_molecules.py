"""Molecules as graphs: OGB's features, by hand and in every entry of OGB's own files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from scikd.exceptions import InvalidInputError, MissingExtraError
from scikd.graphs.molecules import ATOM_FEATURES, BOND_FEATURES, molecule_graph, molecule_graphs
from scikd.graphs.readers import read_ogb, read_smiles

ARRAYS = ("node_ptr", "arc_ptr", "sources", "targets", "node_features", "edge_features")


def named(rows, lists):
    """Turn indices back into the values that they stand for."""
    return [
        {name: lists[name][k] for name, k in zip(lists, row, strict=True)} for row in rows.tolist()
    ]


@pytest.fixture
def rdkit():
    return pytest.importorskip("rdkit")


def test_lists_have_the_lengths_of_ogb():
    assert [len(values) for values in ATOM_FEATURES.values()] == [119, 5, 12, 12, 10, 6, 6, 2, 2]
    assert [len(values) for values in BOND_FEATURES.values()] == [5, 6, 2]


def test_atoms_and_bonds_of_acetamide(rdkit):
    graph = molecule_graph("CC(=O)N")
    assert len(graph) == 1
    assert graph.sources.tolist() == [0, 1, 1, 2, 1, 3]
    assert graph.targets.tolist() == [1, 0, 2, 1, 3, 1]
    methyl, carbonyl, oxygen, nitrogen = named(graph.node_features, ATOM_FEATURES)
    assert methyl == {
        "atomic_number": 6,
        "chirality": "CHI_UNSPECIFIED",
        "degree": 4,
        "formal_charge": 0,
        "n_hydrogens": 3,
        "n_radical_electrons": 0,
        "hybridization": "SP3",
        "is_aromatic": False,
        "is_in_ring": False,
    }
    assert (carbonyl["degree"], carbonyl["hybridization"]) == (3, "SP2")
    assert (oxygen["atomic_number"], nitrogen["n_hydrogens"]) == (8, 2)
    single, _, double, _, amide, _ = named(graph.edge_features, BOND_FEATURES)
    assert single == {"bond_type": "SINGLE", "stereo": "STEREONONE", "is_conjugated": False}
    assert double["bond_type"] == "DOUBLE"
    assert amide == {"bond_type": "SINGLE", "stereo": "STEREONONE", "is_conjugated": True}


@pytest.mark.parametrize(
    ("smiles", "name", "values"),
    [
        ("[Na+]", "formal_charge", [1]),
        ("[CH3]", "n_radical_electrons", [1]),
        (
            "F[C@H](Cl)Br",
            "chirality",
            ["CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CCW"] + ["CHI_UNSPECIFIED"] * 2,
        ),
        ("c1cc[nH]c1", "is_aromatic", [True] * 5),
        ("C1CC1C", "is_in_ring", [True, True, True, False]),
        ("[U]", "atomic_number", [92]),
        ("*C", "atomic_number", ["misc", 6]),
        ("[Fe+6]", "formal_charge", ["misc"]),
        ("FS(F)(F)(F)(F)F", "hybridization", ["SP3", "SP3D2", *["SP3"] * 5]),
        ("[H][H]", "hybridization", ["misc", "misc"]),
    ],
)
def test_features_of_atoms(rdkit, smiles, name, values):
    rows = named(molecule_graph(smiles).node_features, ATOM_FEATURES)
    assert [row[name] for row in rows] == values


@pytest.mark.parametrize(
    ("smiles", "name", "value"),
    [
        ("F/C=C/F", "stereo", "STEREOE"),
        (r"F/C=C\F", "stereo", "STEREOZ"),
        ("c1ccccc1", "bond_type", "AROMATIC"),
        ("C#N", "bond_type", "TRIPLE"),
        ("N->[Fe]", "bond_type", "misc"),
    ],
)
def test_features_of_bonds(rdkit, smiles, name, value):
    rows = named(molecule_graph(smiles).edge_features, BOND_FEATURES)
    assert value in {row[name] for row in rows}


def test_one_atom_has_no_arcs(rdkit):
    graph = molecule_graph("C")
    assert (graph.n_nodes, graph.n_arcs) == (1, 0)
    assert graph.edge_features.shape == (0, 3)


def test_several_are_the_same_as_one_by_one(rdkit):
    smiles = ["CCO", "C", "c1ccccc1O"]
    graphs = molecule_graphs(smiles, [0, 1, 1], name="some")
    assert graphs.y.tolist() == [0, 1, 1]
    assert (graphs.name, graphs.smiles) == ("some", tuple(smiles))
    for g, text in enumerate(smiles):
        alone, taken = molecule_graph(text), graphs.select([g])
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(taken, name), getattr(alone, name))


@pytest.mark.parametrize("smiles", ["C(", "", "F(C)C", None, float("nan")])
def test_what_is_no_molecule_is_refused_or_left_out(rdkit, smiles, capfd, caplog):
    with pytest.raises(InvalidInputError, match="1 of 2 SMILES .* the first is number 1"):
        molecule_graphs(["C", smiles])
    assert molecule_graphs(["C", smiles], [3, 4], unreadable="drop").y.tolist() == [3]
    assert "They are left out" in caplog.text
    with pytest.raises(InvalidInputError, match="1 of 1 SMILES"):
        molecule_graphs([smiles], unreadable="drop")
    assert capfd.readouterr().err == "", "RDKit writes to standard error"


def test_no_molecules_are_refused(rdkit):
    with pytest.raises(InvalidInputError, match="at least one SMILES; got none"):
        molecule_graphs([])


def test_without_rdkit_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.delitem(sys.modules, "rdkit.Chem", raising=False)
    with pytest.raises(MissingExtraError, match=r'pip install "scikd\[molecules\]"'):
        molecule_graph("C")


def test_importing_the_readers_loads_no_rdkit():
    program = (
        "import sys, scikd.graphs.readers, scikd.graphs.molecules; "
        "sys.exit('rdkit' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", ["molbace", "molbbbp"])
def test_features_are_those_of_ogb_in_every_entry(rdkit, scikd_data, name):
    published = read_ogb(scikd_data(f"graphs/ogb/ogbg_{name}"))
    made = molecule_graphs(published.smiles)
    for array in ARRAYS:
        np.testing.assert_array_equal(getattr(made, array), getattr(published, array), array)


@pytest.mark.slow
def test_tables_of_moleculenet(rdkit, scikd_data, caplog):
    graphs = read_smiles(scikd_data("graphs/moleculenet/tox21.csv"), label="NR-AR")
    assert len(graphs) == 7823
    assert "8 of 7831 SMILES" in caplog.text
    known = graphs.y[~np.isnan(graphs.y)]
    assert sorted(np.unique(known)) == [0, 1]
