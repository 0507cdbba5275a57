"""Sampling: at the temperature asked for, with the charges that belong to it, and resumable."""

import json

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones

from scikd.exceptions import InvalidInputError
from scikd.md.frames import find_molecules
from scikd.md.molecules import get_species
from scikd.md.moves import find_bonds, is_sane
from scikd.md.sampling import SamplingOptions, explore, sample_structures

pytest.importorskip("packmol")


class Springs(Calculator):
    """Every atom is held where it was by a harmonic spring."""

    implemented_properties = ("energy", "forces")

    def __init__(self, atoms, constant=5.0):
        super().__init__()
        self.home, self.constant = atoms.positions.copy(), constant

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = atoms.positions - self.home
        self.results = {
            "energy": 0.5 * self.constant * (away**2).sum(),
            "forces": -self.constant * away,
        }


QUICK = SamplingOptions(
    n_clusters=4,
    n_boxes=1,
    box_molecules=8,
    n_frames=2,
    interval=4.0,
    warmup=0.0,
    temperatures=(200.0, 400.0),
    cluster_molecules=(2, 6),
    cut_molecules=(2, 3),
    seed=3,
)


def test_springs_have_the_spread_of_their_temperature():
    atoms = get_species("DMC").conformers[0]
    atoms.set_array("molecules", np.zeros(len(atoms), dtype=np.int64))
    frames = explore(
        atoms, Springs(atoms, 60.0), temperature=500.0, n_frames=300, interval=30.0, seed=1,
        timestep=1.0, friction=0.05,
    )  # fmt: skip
    assert len(frames) == 300
    away = np.array([frame.positions for frame in frames]) - atoms.positions
    assert away.var() == pytest.approx(500 * units.kB / 60.0, rel=0.05)
    assert all(frame.calc is None for frame in frames)
    np.testing.assert_array_equal(frames[0].arrays["molecules"], atoms.arrays["molecules"])


def test_exploring_ends_where_a_bond_breaks_or_the_calculator_fails(caplog):
    atoms = get_species("EC").conformers[0]
    atoms.set_array("molecules", np.zeros(len(atoms), dtype=np.int64))
    explosive = LennardJones(epsilon=1.0, sigma=1.5, rc=6.0)
    assert explore(atoms, explosive, temperature=300.0, n_frames=50, interval=20.0) == []

    class Failing(Springs):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("SCF not converged")

    calculator = Failing(atoms)
    calculator.left = 12
    frames = explore(
        atoms, calculator, temperature=300.0, n_frames=9, interval=8.0, warmup=0.0, seed=2
    )
    assert len(frames) == 2
    assert "MD of C3H4O3 ended: SCF not converged" in caplog.text


def check(structures):
    groups = [atoms.info["group"] for atoms in structures]
    assert groups == sorted(groups)
    for atoms in structures:
        charges = {"Li": 1, "F6P": -1}
        ids = atoms.arrays["molecules"]
        parts = [atoms[ids == k] for k in np.unique(ids)]
        total = sum(charges.get(part.get_chemical_formula(), 0) for part in parts)
        assert atoms.info["total_charge"] == total
        assert is_sane(atoms, find_bonds(atoms))
        found = find_molecules(atoms)  # neighbours at close quarters may look bonded; none is torn
        assert all(len(set(found[ids == k])) == 1 for k in np.unique(ids))


def test_samples_carry_molecules_charges_and_groups():
    structures = sample_structures(QUICK, calculator=Springs, progress=False)
    check(structures)
    assert {atoms.info["group"] for atoms in structures} == set(range(5))
    boxes = [atoms for atoms in structures if atoms.pbc.all()]
    assert len(boxes) >= 3
    assert len({round(float(atoms.cell.volume), 3) for atoms in boxes}) >= 2
    assert {len(np.unique(atoms.arrays["molecules"])) for atoms in structures} > {2, 3}
    assert any(atoms.info["total_charge"] != 0 for atoms in structures)
    sizes = [len(np.unique(a.arrays["molecules"])) for a in structures if not a.pbc.any()]
    assert max(sizes) <= 6


def test_only_what_is_cut_out_of_boxes_when_boxes_are_not_kept():
    options = SamplingOptions(
        n_clusters=0, n_boxes=1, box_molecules=8, n_frames=2, interval=4.0, warmup=0.0, n_cut=3,
        cut_molecules=(2, 4), keep_boxes=False,
    )  # fmt: skip
    structures = sample_structures(options, calculator=Springs, progress=False)
    assert len(structures) == 6
    assert not any(atoms.pbc.any() for atoms in structures)
    check(structures)


def same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.arrays["molecules"], b.arrays["molecules"])
        assert a.info == b.info


def test_a_sample_is_the_same_in_one_go_in_parallel_and_in_pieces(tmp_path):
    whole = sample_structures(QUICK, calculator=Springs, progress=False)
    same(whole, sample_structures(QUICK, calculator=Springs, n_jobs=2, progress=False))
    folder = tmp_path / "kept"
    same(whole, sample_structures(QUICK, calculator=Springs, folder=folder, progress=False))
    (folder / "cluster-00002.h5").unlink()

    def must_not_be_called(atoms):
        calls.append(len(atoms))
        return Springs(atoms)

    calls = []
    again = sample_structures(QUICK, calculator=must_not_be_called, folder=folder, progress=False)
    same(whole, again)
    assert len(calls) == 1


def test_a_folder_belongs_to_its_options(tmp_path):
    sample_structures(QUICK, calculator=Springs, folder=tmp_path / "a", progress=False)
    noted = json.loads((tmp_path / "a" / "options.json").read_text())
    assert noted["seed"] == 3
    other = SamplingOptions(**{**noted, "seed": 4})
    with pytest.raises(InvalidInputError, match="holds trajectories of other options"):
        sample_structures(other, calculator=Springs, folder=tmp_path / "a", progress=False)


def test_seeds_differ():
    one = SamplingOptions(n_clusters=1, n_frames=1, interval=2.0, warmup=0.0)
    first = sample_structures(one, calculator=Springs, progress=False)
    second = sample_structures(
        SamplingOptions(n_clusters=1, n_frames=1, interval=2.0, warmup=0.0, seed=1),
        calculator=Springs, progress=False,
    )  # fmt: skip
    assert len(first[0]) != len(second[0]) or not np.allclose(
        first[0].positions, second[0].positions
    )


def test_xtb_is_what_moves_atoms_by_default():
    pytest.importorskip("tblite")
    options = SamplingOptions(
        mixture="LiPF6", n_clusters=1, cluster_molecules=(2, 2), n_frames=1, interval=4.0,
        warmup=0.0, method="GFN1-xTB", density_scales=(0.3,),
    )  # fmt: skip
    check(sample_structures(options, progress=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixture": "EC:XX"}, "Unknown species 'XX'"),
        ({"n_clusters": 0}, "Expected n_clusters . n_boxes >= 1"),
        ({"temperatures": ()}, "Expected temperatures > 0"),
        ({"temperatures": (300.0, -1.0)}, r"Expected temperatures > 0, got \(300.0, -1.0\)\.$"),
        ({"volume_scales": (1.2, 0.8)}, r"volume_scales as a least and a greatest.* \(1.2, 0.8\)"),
        (
            {"cluster_molecules": (0, 3), "interval": 0.0},
            r"^Expected interval > 0, got 0.0; cluster_molecules as .*, got \(0, 3\)\.$",
        ),
        ({"seed": -1}, r"^Expected seed >= 0, got -1\.$"),
        ({"cut_molecules": (3,)}, r"cut_molecules as a least and a greatest"),
        ({"method": "AM1"}, "method of GFN2-xTB, GFN1-xTB, IPEA1-xTB, got 'AM1'"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        SamplingOptions(**changes)
