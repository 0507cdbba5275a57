"""Moves of whole molecules: rigid where they say so, whole across boundaries, and checked."""

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md._half_list import centres_of, unfold
from scikd.md.frames import find_molecules
from scikd.md.molecules import get_species
from scikd.md.moves import (
    CONTACT,
    cut_cluster,
    distort,
    find_bonds,
    is_sane,
    join_at_contact,
    make_whole,
    scale_molecules,
)


def molecule(name):
    atoms = get_species(name).conformers[0]
    atoms.set_array("molecules", np.zeros(len(atoms), dtype=np.int64))
    return atoms


def lattice(name="EC", n=2, spacing=6.5, seed=0):
    """Return n³ turned molecules on a cubic lattice, wrapped into the periodic box."""
    rng = np.random.default_rng(seed)
    box = Atoms(cell=np.eye(3) * n * spacing, pbc=True)
    for number, site in enumerate(np.ndindex(n, n, n)):
        atoms = molecule(name)
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        atoms.positions += np.array(site) * spacing
        atoms.arrays["molecules"][:] = number
        box += atoms
    wrapped = box.copy()
    wrapped.wrap()
    return box, wrapped


def internal(atoms):
    """Return the distances within each molecule."""
    ids = atoms.arrays["molecules"]
    return [atoms[ids == k].get_all_distances().ravel() for k in np.unique(ids)]


def test_molecules_are_made_whole():
    box, wrapped = lattice()
    assert np.abs(np.concatenate(internal(box)) - np.concatenate(internal(wrapped))).max() > 3
    joined = make_whole(wrapped)
    np.testing.assert_allclose(np.concatenate(internal(joined)), np.concatenate(internal(box)))
    shifts = (joined.positions - wrapped.positions) / 13.0
    np.testing.assert_allclose(shifts, np.round(shifts), atol=1e-12)


def test_unfolded_molecules_are_numbered_by_their_first_atoms():
    _, wrapped = lattice()
    order = np.random.default_rng(1).permutation(len(wrapped))  # no molecule in one piece
    mixed = wrapped[order]
    placed, molecules = unfold(find_bonds(mixed), mixed.positions)
    assert molecules.tolist() == find_molecules(mixed).tolist()
    first = [molecules.tolist().index(k) for k in range(8)]
    assert np.array_equal(placed[first], mixed.positions[first])
    centres = centres_of(placed, molecules)
    for k, centre in enumerate(centres):
        np.testing.assert_allclose(placed[molecules == k].mean(axis=0), centre)
        assert np.linalg.norm(placed[molecules == k] - centre, axis=1).max() < 3.5


@given(st.floats(0.8, 1.5))
def test_a_volume_scan_keeps_molecules_rigid_and_scales_their_centres(factor):
    box, wrapped = lattice()
    scaled = scale_molecules(wrapped, factor)
    np.testing.assert_allclose(
        np.concatenate(internal(scaled)), np.concatenate(internal(box)), atol=1e-10
    )
    assert scaled.cell.volume == pytest.approx(factor**3 * box.cell.volume)
    box.pbc = False
    free = scale_molecules(box, factor)
    ids = box.arrays["molecules"]
    before, after = (
        np.array([atoms.positions[ids == k].mean(axis=0) for k in range(8)])
        for atoms in (box, free)
    )
    np.testing.assert_allclose(
        after - after.mean(axis=0), factor * (before - before.mean(axis=0)), atol=1e-10
    )
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-10)


def test_a_cluster_is_cut_with_the_nearest_images_of_its_neighbours():
    _, wrapped = lattice(n=3)
    wrapped.set_tags(np.arange(len(wrapped)))
    wrapped.info["total_charge"] = 5.0
    cluster = cut_cluster(wrapped, 7, centre=0)
    assert len(cluster) == 70
    assert not cluster.pbc.any()
    assert cluster.cell.volume == 0.0
    assert "total_charge" not in cluster.info
    assert np.unique(cluster.arrays["molecules"]).tolist() == list(range(7))
    assert (wrapped.numbers[cluster.get_tags()] == cluster.numbers).all()
    # On a cubic lattice the six neighbours of a corner lie on both sides of the boundary.
    centres = np.array(
        [cluster.positions[cluster.arrays["molecules"] == k].mean(axis=0) for k in range(7)]
    )
    distances = np.linalg.norm(centres - centres[0], axis=1)
    assert distances.max() < 9.5
    assert is_sane(cluster, find_bonds(cluster))


def test_a_cut_of_the_whole_is_the_whole():
    box, _ = lattice()
    box.pbc = False
    whole = cut_cluster(box, 8, centre=3)
    np.testing.assert_allclose(whole.get_all_distances(), box.get_all_distances(), atol=1e-10)
    with pytest.raises(InvalidInputError, match="n_molecules from 1 to 8 and a centre below"):
        cut_cluster(box, 9, centre=0)


@given(
    st.sampled_from(["EC", "DMC", "Li+", "PF6-", "DME"]),
    st.sampled_from(["EC", "PC", "Li+", "PF6-"]),
    st.floats(0.5, 2.0),
    st.integers(0, 1000),
)
def test_contact_is_at_the_scale_asked_for(first, second, scale, seed):
    a, b = molecule(first), molecule(second)
    joined = join_at_contact(a, b, scale=scale, rng=np.random.default_rng(seed))
    gaps = np.linalg.norm(
        joined.positions[: len(a), None] - joined.positions[None, len(a) :], axis=2
    )
    ratios = gaps / (CONTACT[a.numbers][:, None] + CONTACT[b.numbers][None])
    assert ratios.min() == pytest.approx(scale, rel=1e-9)
    assert joined.arrays["molecules"].tolist() == [0] * len(a) + [1] * len(b)


def test_distortions_have_their_amplitude():
    atoms = molecule("DME")
    moved = [distort(atoms, 0.05, np.random.default_rng(k)).positions for k in range(50)]
    assert np.std(np.array(moved) - atoms.positions) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("pbc", [False, True])
def test_broken_bonds_and_collisions_are_seen(pbc):
    box, wrapped = lattice()
    atoms = wrapped if pbc else box
    atoms.pbc = pbc
    bonded = find_bonds(atoms)
    assert len(bonded) == 8 * 10  # ten bonds in EC
    assert is_sane(atoms, bonded)
    torn = atoms.copy()
    hydrogen = int(np.flatnonzero(atoms.numbers == 1)[0])
    torn.positions[hydrogen] += 1.0
    assert not is_sane(torn, bonded)
    lost = atoms.copy()
    lost.positions[hydrogen] = np.nan
    assert not is_sane(lost, bonded)
    assert not is_sane(scale_molecules(atoms, 0.6), bonded)
    assert is_sane(scale_molecules(atoms, 1.4), bonded)
    assert not is_sane(scale_molecules(atoms, 1.4), bonded, closest=2.0)


def test_bonds_of_each_species():
    for name, count in {
        "EC": 10,
        "DMC": 11,
        "EMC": 14,
        "PC": 13,
        "DME": 15,
        "PF6-": 6,
        "Li+": 0,
    }.items():
        atoms = molecule(name)
        bonded = find_bonds(atoms)
        assert len(bonded) == count
        lengths = np.linalg.norm(bonded.vectors(atoms.positions), axis=1)
        ratio = lengths / (
            covalent_radii[atoms.numbers[bonded.i]] + covalent_radii[atoms.numbers[bonded.j]]
        )
        assert ((ratio > 0.8) & (ratio < 1.15)).all()


def test_molecules_must_be_known():
    with pytest.raises(InvalidInputError, match="find_molecules finds them"):
        scale_molecules(Atoms("H2"), 1.1)
