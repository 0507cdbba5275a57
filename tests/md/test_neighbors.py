"""Lists of pairs: complete, each pair once, and never out of date."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scikd.exceptions import InvalidInputError
from scikd.md._half_list import pairs_within
from scikd.md.frames import collate, from_ase, select
from scikd.md.neighbors import VerletList, collate_neighbors, find_neighbors
from tests.reference.md_neighbors import both_ways, ordered_pairs

SEEDS = st.integers(0, 2**32 - 1)
PBC = st.tuples(st.booleans(), st.booleans(), st.booleans())


def random_structure(seed, pbc, n_atoms=None, shortest=1.5):
    """Return atoms in a skewed box, a few of them outside it."""
    rng = np.random.default_rng(seed)
    n_atoms = n_atoms or int(rng.integers(1, 8))
    while True:
        cell = np.diag(rng.uniform(shortest, 8, 3)) + rng.normal(0, 0.8, (3, 3))
        if abs(np.linalg.det(cell)) > 0.3 * np.prod(np.linalg.norm(cell, axis=1)):
            break
    positions = rng.uniform(-0.5, 1.5, (n_atoms, 3)) @ cell
    return Atoms(numbers=np.full(n_atoms, 6), positions=positions, cell=cell, pbc=pbc)


def as_sets(pairs, batch):
    """Return the pairs of each structure of a batch as ordered pairs of its own atoms."""
    first = np.cumsum([0, *batch.counts.tolist()])
    found = []
    for k in range(batch.n_structures):
        mine = pairs.structure == k
        i, j = pairs.index[:, mine] - int(first[k])
        found.append(both_ways(i, j, pairs.shifts[mine]))
    return found


@given(seed=SEEDS, pbc=PBC, near=st.floats(0.5, 5), far=st.floats(0.5, 5))
@settings(max_examples=60)
def test_lists_equal_a_search_through_all_images(seed, pbc, near, far):
    atoms = random_structure(seed, pbc)
    batch = from_ase(atoms, check=False)
    found = find_neighbors(batch, near, far)
    whole = np.inf if not any(pbc) else far
    expected = ordered_pairs(atoms.positions, atoms.cell[:], pbc, near)
    assert as_sets(found.near, batch) == [expected]
    if whole == np.inf:
        n = len(atoms)
        assert len(found.far) == n * (n - 1) // 2
        assert len(as_sets(found.far, batch)[0]) == n * (n - 1)
    else:
        expected = ordered_pairs(atoms.positions, atoms.cell[:], pbc, far)
        assert as_sets(found.far, batch) == [expected]


def test_an_atom_alone_in_a_box_meets_its_images_once():
    # A face-centred crystal of one atom: 12 neighbours at a/√2, 6 at a, in a box with 2.9 Å sides.
    atoms = bulk("Cu", a=4.1)
    found = find_neighbors(from_ase(atoms), 2.95, 4.2)
    assert len(found.near) == 12 / 2
    assert len(found.far) == (12 + 6) / 2
    assert (found.near.index == 0).all()
    lengths = found.near.vectors(*placed(atoms)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 4.1 / np.sqrt(2)))


def placed(atoms):
    batch = from_ase(atoms)
    return batch.positions, batch.cell


def test_large_free_structures_are_searched_as_small_ones_are():
    rng = np.random.default_rng(0)
    atoms = Atoms("C400", rng.uniform(0, 15, (400, 3)))
    found = find_neighbors(from_ase(atoms, check=False), 3.0, 10.0)
    distances = np.linalg.norm(atoms.positions[:, None] - atoms.positions, axis=-1)
    i, j = np.nonzero(np.triu(distances < 3.0, k=1))
    pairs = {tuple(sorted(pair)) for pair in found.near.index.T.tolist()}
    assert pairs == set(zip(i.tolist(), j.tolist(), strict=True))
    assert len(found.far) == 400 * 399 / 2


def test_joined_lists_equal_those_of_the_joined_batch():
    frames = [random_structure(k, (k % 2 == 0,) * 3, shortest=3) for k in range(6)]
    batch = from_ase(frames, check=False)
    ones = [select(batch, [k]) for k in range(6)]
    joined = collate_neighbors([find_neighbors(b, 3, 5) for b in ones], batch.counts)
    direct = find_neighbors(collate(ones), 3, 5)
    for part in ("near", "far"):
        one, other = getattr(joined, part), getattr(direct, part)
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.shifts, other.shifts)
        assert torch.equal(one.structure, other.structure)


def test_gradients_flow_to_positions_and_cell():
    batch = from_ase(random_structure(3, True, 4, shortest=3))
    pairs = find_neighbors(batch, 4.0, 4.0).near
    alone = pairs.vectors(batch.positions, batch.cell)
    twice = collate([batch, batch])
    both = find_neighbors(twice, 4.0, 4.0).near.vectors(twice.positions, twice.cell)
    torch.testing.assert_close(both, torch.cat([alone, alone]))
    for some in (batch, twice):
        found = find_neighbors(some, 4.0, 4.0).near
        leaves = some.positions.requires_grad_(), some.cell.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, c, found=found: found.vectors(x, c).square().sum(), leaves
        )


def test_lists_are_empty_where_nobody_is_near():
    batch = from_ase([Atoms("C"), Atoms("C2", [[0, 0, 0], [0, 0, 9]])])
    found = find_neighbors(batch, 5, 5)
    assert found.near.index.shape == (2, 0)
    assert found.near.vectors(batch.positions, batch.cell).shape == (0, 3)
    assert found.far.index.tolist() == [[1], [2]]
    assert found.far.structure.tolist() == [1]


def test_float32_and_other_devices_keep_the_pairs():
    batch = from_ase(random_structure(1, True)).to(dtype=torch.float32)
    found = find_neighbors(batch, 4, 5)
    assert found.far.shifts.dtype == torch.float32
    assert found.to(dtype=torch.float64).far.shifts.dtype == torch.float64
    assert found.to(device="meta").near.index.is_meta


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_cutoffs_are_positive_numbers(cutoff):
    batch = from_ase(Atoms("C"))
    with pytest.raises(InvalidInputError, match="far_cutoff to be a positive number of Å"):
        find_neighbors(batch, 5.0, cutoff)
    with pytest.raises(InvalidInputError, match="skin to be a positive number of Å"):
        VerletList(5.0, 10.0, skin=cutoff)


# ------------------------------------------------------------------------------- Verlet's list


def fresh(positions, cell, pbc, cutoff):
    return ordered_pairs(positions, cell, pbc, cutoff)


@given(
    seed=SEEDS,
    pbc=PBC,
    moves=st.lists(
        st.tuples(
            SEEDS,
            st.floats(0, 0.4),  # Å, of each atom
            hnp.arrays(np.float64, (3, 3), elements=st.floats(-0.06, 0.06)),  # strain
            st.sampled_from(["moves", "drifts", "wraps", "keeps"]),
        ),
        min_size=1,
        max_size=6,
    ),
)
@settings(max_examples=60)
def test_no_pair_is_missed_while_atoms_and_cell_move(seed, pbc, moves):
    atoms = random_structure(seed, pbc, shortest=2.5)
    near, far = 2.0, 3.0
    verlet = VerletList(near, far, skin=0.8)
    for seed_of_move, size, strain, kind in moves:
        rng = np.random.default_rng(seed_of_move)
        if kind != "keeps":
            atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
            atoms.positions += rng.normal(0, size, atoms.positions.shape)
        if kind == "drifts":
            atoms.positions += rng.normal(0, 5, 3)
        if kind == "wraps" and any(pbc):
            atoms.wrap()
        lists = verlet.update(atoms.positions, atoms.numbers, atoms.cell[:], atoms.pbc)
        for pairs, cutoff in zip(lists, (near, far), strict=True):
            # What dynamics uses has to be there; what is beyond the cutoff, it leaves out.
            trimmed = pairs.within(atoms.positions, cutoff)
            expected = fresh(atoms.positions, atoms.cell[:], pbc, cutoff)
            assert both_ways(trimmed.i, trimmed.j, trimmed.shifts) == expected
            np.testing.assert_allclose(pairs.offsets, pairs.shifts @ boxed(atoms), atol=1e-12)
        if not any(pbc):
            assert len(lists[1]) == len(atoms) * (len(atoms) - 1) // 2


@pytest.mark.parametrize("seed", range(12))
def test_no_pair_is_missed_in_a_dense_box_on_the_verge_of_a_search(seed):
    # Moves and strains about as large as a list can stand: whatever it wrongly keeps shows here.
    rng = np.random.default_rng(seed)
    positions, numbers, cell, pbc = water_box()
    verlet, kept = VerletList(2.5, 6.0, skin=1.0), 0
    for _ in range(8):
        verlet.update(positions, numbers, cell, pbc)
        searches = verlet.rebuilds
        strain = rng.uniform(-0.13, 0.05) * np.eye(3) if seed % 2 else rng.normal(0, 0.04, (3, 3))
        new_cell = cell @ (np.eye(3) + strain * (seed % 4 > 0))
        moved = positions @ np.linalg.solve(cell, new_cell)
        moved += rng.uniform(-1, 1, moved.shape) * rng.uniform(0, 0.6 if seed % 4 == 0 else 0.3)
        near, far = verlet.update(moved, numbers, new_cell, pbc)
        kept += verlet.rebuilds == searches
        batch = from_ase(Atoms(numbers, moved, cell=new_cell, pbc=pbc), check=False)
        expected = find_neighbors(batch, 2.5, 6.0)
        for pairs, cutoff, truth in ((near, 2.5, expected.near), (far, 6.0, expected.far)):
            trimmed = pairs.within(moved, cutoff)
            found = both_ways(trimmed.i, trimmed.j, trimmed.shifts)
            assert found == both_ways(*truth.index, truth.shifts)
    assert 0 < kept < 8  # or the sizes above would show nothing


def boxed(atoms):
    return np.where(atoms.pbc[:, None], atoms.cell[:], 0.0)


def water_box():
    """Return 216 atoms on a cubic lattice of 3 Å."""
    atoms = Atoms("Ar", cell=[3.0] * 3, pbc=True).repeat(6)
    return atoms.positions.copy(), atoms.numbers, atoms.cell[:].copy(), atoms.pbc


def test_the_list_is_kept_until_two_atoms_can_have_met():
    positions, numbers, cell, pbc = water_box()
    verlet = VerletList(4.0, 7.0, skin=1.0)
    verlet.update(positions, numbers, cell, pbc)
    moved = positions.copy()
    moved[0, 0] += 0.49
    moved[1, 1] += 0.49
    verlet.update(moved, numbers, cell, pbc)
    assert verlet.rebuilds == 1
    moved[1, 1] += 0.04
    verlet.update(moved, numbers, cell, pbc)
    assert verlet.rebuilds == 2


def test_the_list_survives_a_small_change_of_the_cell_with_new_offsets():
    positions, numbers, cell, pbc = water_box()
    verlet = VerletList(4.0, 7.0, skin=1.0)
    verlet.update(positions, numbers, cell, pbc)
    for scale in (1.02, 0.98, 0.93):
        near, far = verlet.update(positions * scale, numbers, cell * scale, pbc)
        assert verlet.rebuilds == 1
        np.testing.assert_allclose(far.offsets, far.shifts @ (cell * scale), atol=1e-12)
        assert len(near.within(positions * scale, 4.0)) == 216 * (6 if scale > 0.943 else 18) / 2
    # A pair that was 8.05 Å apart, and not on the list, is 7 Å apart now.
    verlet.update(positions * 0.87, numbers, cell * 0.87, pbc)
    assert verlet.rebuilds == 2


def test_other_atoms_and_other_boundaries_need_another_list():
    positions, numbers, cell, pbc = water_box()
    verlet = VerletList(4.0, 7.0)
    verlet.update(positions, numbers, cell, pbc)
    verlet.update(positions[:-1], numbers[:-1], cell, pbc)
    verlet.update(positions[:-1], numbers[:-1], cell, [True, True, False])
    assert verlet.rebuilds == 3


def test_pairs_come_sorted_and_the_same_in_each_run():
    positions, numbers, cell, pbc = water_box()
    one = VerletList(4.0, 7.0).update(positions, numbers, cell, pbc)[1]
    other = VerletList(4.0, 7.0).update(positions.copy(), numbers, cell, pbc)[1]
    assert (np.diff(one.i) >= 0).all()
    assert np.array_equal(one.j, other.j)
    assert np.array_equal(one.shifts, other.shifts)


@pytest.mark.parametrize("periodic", [True, False])
def test_positions_that_are_not_numbers_are_refused(periodic):
    positions, numbers, cell, _ = water_box()
    verlet = VerletList(4.0, 7.0)
    verlet.update(positions, numbers, cell, [periodic] * 3)
    positions[5, 1] = np.nan
    with pytest.raises(InvalidInputError, match="atom 5 is at .* run has blown up"):
        verlet.update(positions, numbers, cell, [periodic] * 3)


@pytest.mark.parametrize("far", [1.1e6, 1e12, 1e30, 1e200, -np.inf])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n_atoms", [20, 400])
def test_positions_far_beyond_any_sample_are_refused(far, periodic, n_atoms):
    positions = np.random.default_rng(0).uniform(0, 20, (n_atoms, 3))
    numbers, cell, pbc = np.ones(n_atoms, int), 20.0 * np.eye(3), np.full(3, periodic)
    verlet = VerletList(4.0, 7.0)
    verlet.update(positions, numbers, cell, pbc)
    everyone = positions + far  # who have moved together, so that no pair has changed
    positions[5, 1] = far
    for moved, words in ((positions, "atom 5 is at"), (everyone, "atom 0 is at")):
        with pytest.raises(InvalidInputError, match=f"Expected .*positions.*{words}"):
            verlet.update(moved, numbers, cell, pbc)
        atoms = Atoms(numbers, moved, cell=cell, pbc=pbc)
        with pytest.raises(InvalidInputError, match=words):
            find_neighbors(from_ase(atoms, check=False), 4.0, 7.0)
        with pytest.raises(InvalidInputError, match=f"structure 0: expected .*{words}"):
            from_ase(atoms)


@pytest.mark.parametrize("periodic", [True, False])
def test_an_atom_that_flew_off_changes_no_other_pair(periodic):
    positions = np.random.default_rng(0).uniform(0, 20, (400, 3))
    numbers, cell, pbc = np.ones(400, int), np.diag([20.0, 20.0, 1e6]), np.full(3, periodic)
    before = VerletList(4.0, 4.0, 0.1).update(positions, numbers, cell, pbc)[0]
    positions[-1, 2] = 5e5
    after = VerletList(4.0, 4.0, 0.1).update(positions, numbers, cell, pbc)[0]
    there = {tuple(pair) for pair in np.stack([after.i, after.j], 1).tolist()}
    assert len(there) == len(after) > 1000
    assert there == {
        (i, j) for i, j in np.stack([before.i, before.j], 1).tolist() if 399 not in (i, j)
    }


@pytest.mark.parametrize("across", [(4.0, 4.0), (2.0, 2.0), (3.1, 12.0)])
@pytest.mark.parametrize("periodic", [True, False])
def test_a_long_thread_of_atoms_is_searched(across, periodic):
    # So many cells along one direction that the search would be left with none across.
    cell, pbc = np.diag([3.1e5, *across]), np.full(3, periodic)
    positions = np.random.default_rng(0).random((400, 3)) @ cell
    positions[200:] = positions[:200] + np.diag(cell) * [0, 0.3, 0.2] + [1.0, 0, 0]
    found = pairs_within(positions, cell, pbc, 3.0)[0]
    steps = np.arange(-2, 3) if periodic else np.zeros(1)
    expected = 0
    for y in steps:
        for z in steps:
            image = positions + np.array([0.0, y, z]) @ cell
            distances = np.linalg.norm(image[None] - positions[:, None], axis=-1)
            expected += int(((distances < 3.0) & (distances > 0)).sum())
    assert expected > 100
    assert 2 * len(found) == expected


def test_a_box_without_room_is_refused_before_it_fills_the_memory():
    positions, numbers = np.array([[0.0, 0.0, 0.0]]), np.array([18])
    for edges, pbc in (([1e-2] * 3, [True] * 3), ([1e-3, 1e-3, 9.0], [True, True, False])):
        cell = np.diag(edges)
        with pytest.raises(InvalidInputError, match="a cell with room for its atoms; got 1 and"):
            VerletList(4.0, 7.0).update(positions, numbers, cell, np.array(pbc))
        with pytest.raises(InvalidInputError, match="structure 0"):
            from_ase(Atoms(numbers, positions, cell=cell, pbc=pbc))
