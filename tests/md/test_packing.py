"""Packed boxes and clusters: the density asked for, and no overlaps, images included."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.neighborlist import neighbor_list

from scikd.exceptions import InvalidInputError, MissingExtraError
from scikd.md import packing
from scikd.md.molecules import get_species, parse_mixture
from scikd.md.packing import pack_box, pack_cluster, pack_molecules

pytest.importorskip("packmol")


def closest(atoms):
    """Return the least distance between atoms of different molecules, images included."""
    i, j, distances, shifts = neighbor_list("ijdS", atoms, 4.0)
    molecules = atoms.arrays["molecules"]
    other = (molecules[i] != molecules[j]) | (shifts != 0).any(axis=1)
    return distances[other].min()


def density(atoms):
    return atoms.get_masses().sum() / units.mol / (atoms.get_volume() * 1e-24)


def test_a_box_has_the_density_asked_for_and_no_overlaps():
    box = pack_box("EC:DMC:LiPF6 5:7:1", n_atoms=400, density=1.15, seed=3)
    assert density(box) == pytest.approx(1.15, rel=1e-6)
    assert box.pbc.all()
    assert closest(box) > 1.98
    assert abs(len(box) - 400) < 30
    counts = parse_mixture("EC:DMC:LiPF6 5:7:1").counts(n_atoms=400)
    assert box.arrays["molecules"].max() + 1 == sum(counts.values())
    assert box.info["total_charge"] == 0


def test_a_box_has_by_default_the_density_of_the_liquid():
    box = pack_box("DMC", n_molecules=12)
    assert density(box) == pytest.approx(1.063, rel=1e-6)


def test_molecules_keep_their_shape_and_order():
    names = ["EC", "PF6-"]
    cluster = pack_cluster({"EC": 2, "PF6-": 1, "Li+": 1}, seed=5)
    assert cluster.info["total_charge"] == 0
    assert cluster.arrays["molecules"].tolist() == [0] * 10 + [1] * 10 + [2] * 7 + [3]
    for number, name in enumerate(["EC", "EC", "PF6-"]):
        assert name in names
        part = cluster[cluster.arrays["molecules"] == number]
        reference = get_species(name).conformers[0]
        np.testing.assert_allclose(
            part.get_all_distances(), reference.get_all_distances(), atol=2e-5
        )


def test_the_seed_decides():
    first, again, other = (pack_box("EC:DME", n_molecules=8, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.positions, again.positions)
    assert np.abs(first.positions - other.positions).max() > 0.5


def test_mirror_images_come_about_equally_often():
    molecules = packing.draw_molecules({"PC": 200}, np.random.default_rng(0))
    frame = molecules[0].positions[:4]

    def handedness(atoms):
        a, b, c = (atoms.positions[k] - atoms.positions[0] for k in (1, 2, 3))
        return np.sign(np.dot(a, np.cross(b, c)))

    assert frame.shape == (4, 3)
    assert 70 < sum(handedness(atoms) > 0 for atoms in molecules) < 130


def test_a_denser_cluster_is_smaller():
    sizes = [
        pack_cluster({"EC": 4, "DMC": 4}, seed=1, density_scale=scale).positions.std()
        for scale in (0.3, 1.0)
    ]
    assert sizes[1] < 0.8 * sizes[0]
    assert closest(pack_cluster({"EC": 4, "DMC": 4}, seed=1, density_scale=1.5)) > 1.98


@pytest.mark.parametrize("composition", [{"Li+": 1}, {"Li+": 3}, {"DEC": 1}])
def test_tiny_clusters(composition):
    cluster = pack_cluster(composition, density_scale=2.0)
    assert len(cluster) == sum(get_species(k).n_atoms * n for k, n in composition.items())


def test_own_molecules():
    water = Atoms("OHH", [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    box = pack_molecules([water] * 9, box=(7.0, 8.0, 9.0), seed=2)
    assert box.cell.lengths().tolist() == [7.0, 8.0, 9.0]
    assert closest(box) > 1.98


def test_what_does_not_fit_is_said():
    with pytest.raises(InvalidInputError, match="Lower the density or the tolerance"):
        pack_box("EC", n_molecules=8, density=6.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_box("EC", n_molecules=8, density=-1.0), "Expected density > 0; got -1.0"),
        (lambda: pack_box("EC", n_molecules=8, density=np.nan), "Expected density > 0; got nan"),
        (lambda: pack_box("EC"), "Give n_molecules or n_atoms"),
        (lambda: pack_cluster({}), "not all zero; got {}"),
        (lambda: pack_cluster({"EC": -1, "DMC": 2}), "Expected numbers of molecules"),
        (lambda: pack_cluster({"EC": 1}, density_scale=0.0), "Expected density_scale > 0"),
        (lambda: pack_molecules([], box=5.0), "either box or radius; got 0 molecules"),
        (lambda: pack_molecules([Atoms("H")]), "box=None, radius=None"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_without_packmol_the_extra_is_named(monkeypatch):
    def missing(module, *, extra, feature):
        raise MissingExtraError(f'{feature} needs packmol: pip install "scikd[{extra}]"')

    monkeypatch.setattr(packing, "require", missing)
    with pytest.raises(MissingExtraError, match=r'Packing molecules .* "scikd\[md\]"'):
        pack_box("EC", n_molecules=2)
