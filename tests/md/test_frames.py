"""Structures and labels: what goes in comes out, and what cannot be a structure is refused."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md.frames import (
    AtomicBatch,
    check_geometry,
    collate,
    find_molecules,
    from_ase,
    select,
    to_ase,
)

LABELS = ("energy", "forces", "stress", "charges", "dipole")


def random_frame(rng):
    """Return atoms with some of the labels, periodic or not."""
    n = int(rng.integers(1, 6))
    periodic = rng.random() < 0.5
    atoms = Atoms(
        numbers=rng.integers(1, 87, n),
        positions=rng.uniform(0, 4, (n, 3)) + 5.0 * np.arange(n)[:, None],
        cell=np.diag(rng.uniform(30, 40, 3)) + rng.normal(0, 1, (3, 3)) if periodic else None,
        pbc=rng.random(3) < 0.7 if periodic else False,
    )
    values = {
        "energy": float(rng.normal()),
        "forces": rng.normal(size=(n, 3)),
        "stress": rng.normal(size=6),
        "charges": rng.normal(size=n),
        "dipole": rng.normal(size=3),
    }
    labels = {name: value for name, value in values.items() if rng.random() < 0.6}
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info["total_charge"] = float(rng.integers(-2, 3))
    if rng.random() < 0.5:
        atoms.info["group"] = int(rng.integers(0, 3))
    if rng.random() < 0.5:
        atoms.set_array("molecules", rng.integers(0, 3, n))
    return atoms


def frames_of(seed):
    rng = np.random.default_rng(seed)
    return [random_frame(rng) for _ in range(int(rng.integers(1, 6)))]


def assert_same(one, other):
    assert one.tensors().keys() == other.tensors().keys()
    for name, value in one.tensors().items():
        assert value.dtype == other.tensors()[name].dtype, name
        torch.testing.assert_close(
            value, other.tensors()[name], rtol=0, atol=0, equal_nan=True, msg=name
        )


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
@settings(max_examples=40)
def test_ase_and_back_changes_nothing(seed):
    frames = frames_of(seed)
    batch = from_ase(frames)
    back = to_ase(batch)
    assert_same(from_ase(back), batch)
    for before, after in zip(frames, back, strict=True):
        assert np.array_equal(before.numbers, after.numbers)
        assert np.array_equal(before.positions, after.positions)
        assert np.array_equal(before.cell[:], after.cell[:])
        assert np.array_equal(before.pbc, after.pbc)
        assert before.info == after.info
        results = before.calc.results if before.calc else {}
        assert set(results) == set(after.calc.results if after.calc else {})
        for name, value in results.items():
            assert np.array_equal(value, after.calc.results[name]), name


@given(SEEDS)
@settings(max_examples=40)
def test_joining_single_structures_is_reading_them_together(seed):
    frames = frames_of(seed)
    assert_same(collate([from_ase(frame) for frame in frames]), from_ase(frames))


@given(SEEDS, st.data())
@settings(max_examples=40)
def test_selecting_is_reading_those_alone(seed, data):
    frames = frames_of(seed)
    n = len(frames)
    chosen = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=6))
    selected, alone = select(from_ase(frames), chosen), from_ase([frames[k] for k in chosen])
    for name in LABELS:  # one that only the others had is NaN in all that is left
        if getattr(alone, name) is None and getattr(selected, name) is not None:
            assert getattr(selected, name).isnan().all()
            selected = replace(selected, **{name: None})
    if alone.group is None and selected.group is not None:
        assert (selected.group == -1).all()
        selected = replace(selected, group=None)
    assert_same(selected, alone)


def test_joining_batches_of_several_structures_keeps_them_apart():
    water, ethanol = molecule("H2O"), molecule("CH3CH2OH")
    joined = collate([from_ase([water, ethanol]), from_ase([ethanol, water, water])])
    assert joined.counts.tolist() == [3, 9, 9, 3, 3]
    assert joined.n_structures == 5
    assert joined.n_atoms == 27


def test_a_group_is_a_number_or_text_that_becomes_the_same_number_everywhere():
    frames = [molecule("H2O") for _ in range(5)]
    for frame, group in zip(frames[:4], (7, np.int32(7), "run 3", "run 4"), strict=True):
        frame.info["group"] = group
    group = from_ase(frames).group.tolist()
    assert group[:2] == [7, 7]
    assert group[4] == -1
    assert group[2] != group[3]
    assert min(group[2:4]) > 7
    alone = molecule("CO")
    alone.info["trajectory"] = "run 3"
    assert from_ase(alone, group_key="trajectory").group.tolist() == [group[2]]
    assert from_ase(alone).group is None
    for wrong in (1.5, -2, True, [1, 2], 2**63):
        frames[0].info["group"] = wrong
        with pytest.raises(InvalidInputError, match=r"info\['group'\], .* got"):
            from_ase(frames)


def test_labels_that_only_some_have_are_nan_elsewhere():
    one, other = molecule("H2O"), molecule("CO")
    one.info["energy"] = -1.0
    other.arrays["forces"] = np.ones((2, 3))
    batch = from_ase([one, other])
    assert batch.energy.tolist()[0] == -1.0
    assert batch.energy.isnan().tolist() == [False, True]
    assert batch.forces.isnan().any(dim=1).tolist() == [True] * 3 + [False] * 2
    assert batch.stress is None
    assert batch.charges is None


def test_results_of_a_calculator_are_labels_in_its_own_convention():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    energy, stress = atoms.get_potential_energy(), atoms.get_stress()
    batch = from_ase(atoms)
    assert batch.energy.tolist() == [energy]
    assert np.array_equal(batch.stress[0], stress)
    assert np.array_equal(batch.forces, atoms.get_forces())
    # -dE/dε by the energy itself: E falls along the virial.
    strain, step = np.zeros((3, 3)), 1e-5
    strain[0, 1] = strain[1, 0] = step / 2
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell[:] @ (np.eye(3) + sign * strain), scale_atoms=True)
        strained.calc = EMT()
        energies.append(strained.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step)
    assert batch.virial[0, 0, 1].item() == pytest.approx(-slope, rel=1e-5)
    assert batch.virial[0, 1, 0].item() == batch.virial[0, 0, 1].item()


def test_results_for_other_positions_are_no_labels():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    assert from_ase(atoms).energy is None


def test_a_virial_becomes_a_stress_where_there_is_no_stress():
    atoms = molecule("H2O", cell=[2, 5, 10], pbc=True)
    atoms.info["virial"] = np.arange(9.0).reshape(3, 3)
    batch = from_ase(atoms)
    expected = [0, -0.04, -0.08, -0.06, -0.04, -0.02]  # - symmetric part / 100 Å³
    torch.testing.assert_close(batch.stress[0], torch.tensor(expected, dtype=torch.float64))
    symmetric = (atoms.info["virial"] + atoms.info["virial"].T) / 2
    np.testing.assert_allclose(batch.virial[0], symmetric, atol=1e-12)
    atoms.info["stress"] = -np.ones(6)
    assert from_ase(atoms).stress.tolist() == [[-1.0] * 6]
    free = molecule("H2O")
    free.info["virial"] = np.ones(9)
    assert from_ase(free).stress is None


def test_labels_are_found_under_other_names():
    atoms = molecule("H2O", cell=[9] * 3, pbc=True)
    atoms.info |= {"energy": 7.0, "E_dft": -1.0, "W": np.eye(3), "Q": -1, "mu": [0, 0, 1]}
    atoms.arrays |= {"F": np.ones((3, 3)), "q": np.zeros(3), "which": np.array([4, 4, 4])}
    batch = from_ase(
        atoms,
        energy_key="E_dft",
        forces_key="F",
        virial_key="W",
        charges_key="q",
        dipole_key="mu",
        total_charge_key="Q",
        molecules_key="which",
        dtype=torch.float32,
    )
    assert batch.energy.tolist() == [-1.0]
    assert batch.forces.dtype == torch.float32
    assert batch.stress[0, :3].tolist() == pytest.approx([-1 / 729] * 3)
    assert batch.total_charge.tolist() == [-1.0]
    assert batch.molecules.tolist() == [4, 4, 4]
    assert batch.dipole.tolist() == [[0, 0, 1]]
    with pytest.raises(InvalidInputError, match=r"named \['E_scf'\].*first one has \['E_dft'"):
        from_ase(atoms, energy_key="E_scf")


def test_the_total_charge_is_found_where_ase_users_put_it():
    water = molecule("H2O")
    assert from_ase(water).total_charge.tolist() == [0.0]
    water.set_initial_charges([0.3, 0.3, 0.4])
    assert from_ase(water).total_charge.tolist() == [1.0]
    water.info["charge"] = 2
    assert from_ase(water).total_charge.tolist() == [2.0]
    for wrong in ("much", None, np.nan, [1, 2]):
        water.info["charge"] = wrong
        with pytest.raises(InvalidInputError, match="'charge'.*total charge in e, as a number"):
            from_ase(water)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("energy", [1.0, 2.0], r"energy of shape \(\) in structure 1; got \(2,\)"),
        ("forces", np.ones((2, 3)), r"forces of shape \(3, 3\) in structure 1; got \(2, 3\)"),
        ("stress", np.ones(5), r"stress of shape \(6,\) in structure 1; got \(5,\)"),
        ("virial", np.ones(6), r"virial of shape \(3, 3\) in structure 1; got \(6,\)"),
    ],
)
def test_labels_of_a_wrong_shape_are_refused(name, value, expected):
    atoms = molecule("H2O", cell=[9] * 3)
    atoms.info[name] = value
    with pytest.raises(InvalidInputError, match=expected):
        from_ase([molecule("CO"), atoms])


def at(*positions, symbols="C2", **kwargs):
    return Atoms(symbols, positions, **kwargs)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (Atoms(), "structure 1: expected at least one atom; it is empty"),
        (at((0, 0, 0), (0, np.nan, 2)), r"finite positions; atom 1 is at \[0.0, nan, 2.0\]"),
        (at((0, 0, np.inf), (0, 0, 2)), "finite positions; atom 0"),
        (at((0, 0, 0), (0, 0, 2), symbols=[0, 87]), r"from 1 to 86; got \[0, 87\]"),
        (at((0, 0, 0), (0, 0, 0.2)), r"atoms 0 \(C\) and 1 \(C\) overlap: they are 0.200 Å apart"),
        (
            at((0, 0, 0.1), (0, 0, 4.95), cell=[5] * 3, pbc=True),
            "overlap: they are 0.150 Å apart, expected at least 0.3 Å",
        ),
        (at((0, 0, 0), (0, 0, 2), pbc=True), "vectors that span the periodic directions"),
        (at((0, 0, 0), (0, 0, 2), cell=[5, 0, 5], pbc=True), r"got \[\[5.0, .* pbc=False"),
        (
            at((0, 0, 0), (0, 0, 2), cell=[[5, 0, 0], [5, 0, 0], [0, 0, 5]], pbc=True),
            "vectors that span the periodic directions",
        ),
    ],
)
def test_what_cannot_be_a_structure_is_refused(atoms, expected):
    good = molecule("H2O")
    with pytest.raises(InvalidInputError, match=expected) as caught:
        from_ase([good, atoms, good])
    assert "1 of 3 structures cannot be used" in str(caught.value)
    batch = from_ase([good, atoms, good], check=False)
    with pytest.raises(InvalidInputError, match=expected):
        check_geometry(batch)


def test_unusual_cells_that_can_be_are_accepted():
    slab = Atoms("C", cell=[5, 5, 0], pbc=[True, True, False])
    tiny = Atoms("He", cell=[[2.0, 0, 0], [1.9, 0.8, 0], [0, 0, 1.5]], pbc=True)
    wire = Atoms("C", cell=[0, 0, 3], pbc=[False, False, True])
    assert from_ase([slab, tiny, wire]).n_structures == 3


def test_no_structures_are_refused():
    with pytest.raises(InvalidInputError, match="at least one structure; got none"):
        from_ase([])
    with pytest.raises(InvalidInputError, match="at least one batch to join; got none"):
        collate([])


def test_structures_that_are_not_there_cannot_be_selected():
    with pytest.raises(InvalidInputError, match="from 0 to 0; got \\[1\\]"):
        select(from_ase(molecule("H2O")), [1])


def test_a_batch_refuses_tensors_that_do_not_fit_and_changes():
    batch = from_ase(molecule("H2O"))
    with pytest.raises(InvalidInputError, match=r"3 atoms .* forces \(2, 3\) instead of \(3, 3\)"):
        replace(batch, forces=torch.zeros(2, 3))
    with pytest.raises(InvalidInputError, match="must not descend"):
        replace(batch, batch=torch.tensor([1, 0, 0]))
    with pytest.raises(FrozenInstanceError):
        batch.energy = torch.zeros(1)


def test_another_type_leaves_whole_numbers_alone():
    batch = from_ase(molecule("H2O")).to(dtype=torch.float32)
    kinds = {name: value.dtype for name, value in batch.tensors().items()}
    assert {n for n, k in kinds.items() if k == torch.int64} == {"numbers", "batch", "molecules"}
    assert {n for n, k in kinds.items() if k == torch.float32} == {
        "positions",
        "cell",
        "total_charge",
    }
    assert isinstance(batch, AtomicBatch)
    assert batch.to(device="meta").positions.is_meta


# ---------------------------------------------------------------------------------- molecules


def test_molecules_are_found_in_order_and_through_the_boundary():
    water, ethanol = molecule("H2O"), molecule("CH3CH2OH")
    ethanol.translate([5, 5, 5])
    atoms = water + Atoms("Li", [[2.0, 0, 0.1]]) + ethanol
    expected = [0] * 3 + [1] + [2] * 9
    assert find_molecules(atoms).tolist() == expected
    atoms.set_cell([9.0, 10.0, 11.0])
    atoms.pbc = True
    for shift in ([0, 0, 0], [4, 4.5, 5], [8.9, 0.1, 5.5]):
        moved = atoms.copy()
        moved.translate(shift)
        moved.wrap()
        assert find_molecules(moved).tolist() == expected
    assert find_molecules(Atoms()).tolist() == []
    assert find_molecules(Atoms("Li2", [[0, 0, 0], [0, 0, 2]])).tolist() == [0, 1]


def test_hexafluorophosphate_is_one_molecule():
    axes = np.concatenate([np.eye(3), -np.eye(3)]) * 1.6
    atoms = Atoms("PF6Li", [[0, 0, 0], *axes, [2.2, 2.2, 0]])
    assert find_molecules(atoms).tolist() == [0] * 7 + [1]


def test_molecules_of_real_frames_are_those_that_the_data_says(scikd_data):
    import ase.io

    path = scikd_data("md/carbonate_xtb_clusters/solvent_xtb_test.xyz")
    for atoms in ase.io.read(path, ":50"):
        if len(atoms) > 1:
            assert find_molecules(atoms).max() + 1 == atoms.info["Nmols"]
            _, first = np.unique(atoms.arrays["molID"], return_inverse=True)
            assert np.array_equal(find_molecules(atoms), first)


def test_thousands_of_clusters_are_read_in_a_moment():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(3000):
        atoms = Atoms("C40", 3.0 * np.indices((4, 5, 2)).reshape(3, -1).T)
        atoms.positions += rng.normal(0, 0.1, (40, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=atoms.positions)
        frames.append(atoms)
    start = time.process_time()
    batch = from_ase(frames)
    assert time.process_time() - start < 3.0  # 0.2 s on the machine this was written on
    assert batch.n_atoms == 120_000


def test_structures_may_be_selected_by_a_mask():
    batch = from_ase([molecule(name) for name in ("H2O", "CO", "CH4")])
    for mask in (np.array([True, False, True]), torch.tensor([True, False, True])):
        found, expected = select(batch, mask), select(batch, [0, 2])
        assert torch.equal(found.numbers, expected.numbers)
        assert torch.equal(found.positions, expected.positions)
    assert select(batch, np.zeros(3, dtype=bool)).n_structures == 0
    for wrong in ([True, False], [0.0, 2.0]):
        with pytest.raises(InvalidInputError, match="a bool for each of the 3; got 2"):
            select(batch, wrong)
