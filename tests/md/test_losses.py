"""Losses: terms, units, missing labels, references of the elements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from scikd.exceptions import InvalidInputError
from scikd.md.frames import AtomicBatch, from_ase
from scikd.md.losses import Loss, LossOptions, fit_references, labels
from tests.reference.md_loss import published_loss

COUNTS = (3, 5, 4)


def random_batch(seed=0, counts=COUNTS, *, periodic=False):
    """Return structures with labels drawn at random, whose forces sum to zero."""
    rng = np.random.default_rng(seed)
    frames = []
    for n in counts:
        atoms = Atoms(rng.choice([1, 6, 8], n), rng.normal(scale=3.0, size=(n, 3)))
        if periodic:
            atoms.set_cell(np.diag([9.0, 10.0, 11.0]) + rng.normal(scale=0.3, size=(3, 3)))
            atoms.pbc = True
        frames.append(atoms)
    batch = from_ase(frames, check=False)
    forces = torch.from_numpy(rng.normal(size=(sum(counts), 3)))
    means = torch.zeros(len(counts), 3, dtype=torch.float64).index_add(0, batch.batch, forces)
    forces -= (means / batch.counts[:, None])[batch.batch]
    draw = lambda *shape: torch.from_numpy(rng.normal(size=shape))  # noqa: E731
    b, n = len(counts), sum(counts)
    return replace(
        batch,
        energy=draw(b) - 1000.0,
        forces=forces,
        charges=draw(n),
        dipole=draw(b, 3),
        stress=draw(b, 6) if periodic else None,
    )


def random_prediction(batch, seed=1):
    rng = np.random.default_rng(seed)
    b, n = batch.n_structures, batch.n_atoms
    shapes = {
        "energy": (b,),
        "forces": (n, 3),
        "virial": (b, 3, 3),
        "charges": (n,),
        "dipole": (b, 3),
        "qeq_force": (n, 3),
    }
    made = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}
    made["energy"] = made["energy"] - 1000.0
    return made


def by_structure(batch, prediction):
    """Cut a batch and what is predicted for it into the oracle's pieces."""
    ends = np.cumsum(batch.counts.numpy())
    middles = [batch.positions[e - n : e].mean(0) for n, e in zip(batch.counts, ends, strict=True)]
    return [
        {
            "positions": (batch.positions[e - n : e] - middles[k]).numpy(),
            "predicted": {
                name: (v[k] if len(v) == batch.n_structures else v[e - n : e]).numpy()
                for name, v in prediction.items()
            },
            "label": {
                "energy": batch.energy[k].numpy(),
                "forces": batch.forces[e - n : e].numpy(),
                "charges": batch.charges[e - n : e].numpy(),
                "dipole": batch.dipole[k].numpy(),
            },
        }
        for k, (n, e) in enumerate(zip(batch.counts.tolist(), ends, strict=True))
    ]


def test_the_published_loss_is_the_one_of_the_paper_in_its_units():
    batch = random_batch()
    prediction = random_prediction(batch)
    total, parts = Loss(LossOptions(preset="published"))(prediction, batch)
    expected = published_loss(by_structure(batch, prediction))
    # In ours the loss is the same number: weights absorb the units.
    assert float(total) == pytest.approx(expected, rel=1e-6)
    assert set(parts) == {"energy", "forces", "virial", "charges", "dipole", "qeq"}


def test_energies_relative_to_the_batch_do_not_see_an_offset():
    batch = random_batch()
    prediction = random_prediction(batch)
    loss = Loss(LossOptions(preset="published"))
    shifted = {**prediction, "energy": prediction["energy"] + 123.0}
    assert float(loss(shifted, batch)[0]) == pytest.approx(float(loss(prediction, batch)[0]))
    default = Loss()
    assert float(default(shifted, batch)[0]) > float(default(prediction, batch)[0]) + 1.0


def test_the_default_counts_energies_per_atom():
    batch = random_batch()
    prediction = random_prediction(batch)
    _, parts = Loss(LossOptions(energy=2.0))(prediction, batch)
    error = (prediction["energy"] - batch.energy) / torch.tensor(COUNTS)
    assert float(parts["energy"]) == pytest.approx(float((error**2).mean()))
    assert float(parts["forces"]) == pytest.approx(
        float(((prediction["forces"] - batch.forces) ** 2).mean())
    )


def test_the_total_is_the_weighted_sum_of_its_parts():
    batch = random_batch()
    options = LossOptions(energy=1.5, forces=2.5, charges=3.5, dipole=0.0)
    total, parts = Loss(options)(random_prediction(batch), batch)
    assert set(parts) == {"energy", "forces", "charges"}
    expected = 1.5 * parts["energy"] + 2.5 * parts["forces"] + 3.5 * parts["charges"]
    assert float(total) == pytest.approx(float(expected))


def test_missing_labels_do_not_count():
    batch = random_batch()
    prediction = random_prediction(batch)
    whole = Loss()(prediction, batch)[1]
    energy, forces, charges = batch.energy.clone(), batch.forces.clone(), batch.charges.clone()
    energy[1], forces[3:8], charges[3:8] = torch.nan, torch.nan, torch.nan
    holed = replace(batch, energy=energy, forces=forces, charges=charges, dipole=None)
    prediction["forces"].requires_grad_()
    total, parts = Loss()(prediction, holed)
    total.backward()
    kept = [0, 2]
    error = ((prediction["energy"] - batch.energy) / torch.tensor(COUNTS))[kept]
    assert float(parts["energy"]) == pytest.approx(float((error**2).mean()))
    rows = [0, 1, 2, 8, 9, 10, 11]
    squares = ((prediction["forces"].detach() - batch.forces) ** 2)[rows].mean()
    assert float(parts["forces"]) == pytest.approx(float(squares))
    assert float(parts["dipole"]) == 0.0
    assert float(parts["charges"]) != pytest.approx(float(whole["charges"]))
    gradient = prediction["forces"].grad
    assert torch.isfinite(gradient).all()
    assert (gradient[3:8] == 0.0).all()


def test_a_prediction_of_nan_is_seen():
    batch = random_batch()
    prediction = random_prediction(batch)
    prediction["forces"][2, 1] = torch.nan
    assert torch.isnan(Loss()(prediction, batch)[0])


def test_two_halves_of_a_batch_add_up_to_the_whole():
    batch = random_batch(counts=(3, 5, 4, 6))
    prediction = random_prediction(batch)
    loss = Loss(LossOptions(virial=0.3))
    halves = []
    from scikd.md.frames import select

    for chosen, atoms in (([0, 1], slice(0, 8)), ([2, 3], slice(8, 18))):
        part = {
            name: v[chosen] if len(v) == batch.n_structures else v[atoms]
            for name, v in prediction.items()
        }
        halves.append((select(batch, chosen), part))
    counts = {name: sum(loss.counts(half)[name] for half, _ in halves) for name in loss.weights}
    assert {name: float(c) for name, c in counts.items()} == {
        name: float(c) for name, c in loss.counts(batch).items()
    }
    totals = [loss.combine(loss.means(part, half), counts)[0] for half, part in halves]
    assert float(sum(totals)) == pytest.approx(float(loss(prediction, batch)[0]))


@pytest.mark.parametrize("delta", [0.1, 1.0, 100.0])
def test_huber_is_the_square_near_zero_and_a_line_beyond(delta):
    batch = random_batch()
    prediction = random_prediction(batch)
    options = LossOptions(energy=0.0, charges=0.0, dipole=0.0, huber=delta)
    _, parts = Loss(options)(prediction, batch)
    size = (prediction["forces"] - batch.forces).abs().numpy()
    expected = np.where(size <= delta, size**2, 2.0 * delta * (size - 0.5 * delta)).mean()
    assert float(parts["forces"]) == pytest.approx(expected)


def test_the_virial_of_a_free_cluster_does_not_depend_on_the_origin():
    batch = random_batch()
    moved = replace(batch, positions=batch.positions + 7.0)
    assert torch.allclose(labels("virial", batch), labels("virial", moved))
    k = batch.batch == 1
    expected = torch.einsum("na,nb->ab", batch.positions[k], batch.forces[k])
    expected = 0.5 * (expected + expected.T)
    assert torch.allclose(labels("virial", batch)[1], expected)


def test_the_virial_of_a_periodic_structure_is_that_of_its_stress():
    batch = random_batch(periodic=True)
    volume = abs(np.linalg.det(batch.cell[2].numpy()))
    xx, yy, zz, yz, xz, xy = batch.stress[2].tolist()
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    np.testing.assert_allclose(labels("virial", batch)[2].numpy(), -volume * stress)


def test_a_periodic_structure_has_no_dipole_to_learn():
    assert labels("dipole", random_batch(periodic=True)).isnan().all()


def test_single_precision_sees_small_differences_of_large_energies():
    batch = random_batch()
    energy = batch.energy - 1e6
    single = replace(batch.to(dtype=torch.float32), energy=energy)
    prediction = {**random_prediction(batch), "energy": energy + 1e-3}
    single_prediction = {n: v if n == "energy" else v.float() for n, v in prediction.items()}
    _, parts = Loss()(single_prediction, single)
    expected = float(((1e-3 / torch.tensor(COUNTS)) ** 2).mean())
    assert float(parts["energy"]) == pytest.approx(expected, rel=1e-5)


def test_references_are_found_exactly_where_energies_are_sums_of_them():
    batch = random_batch(counts=(6, 7, 8, 9))
    truth = {1: -13.6, 6: -1030.0, 8: -2040.0}
    table = torch.zeros(87, dtype=torch.float64)
    for z, energy in truth.items():
        table[z] = energy
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, batch.batch, table[batch.numbers])
    sums[2] = torch.nan
    found = fit_references(replace(batch, energy=sums))
    assert found == pytest.approx(truth, rel=1e-9)


def test_references_of_one_composition_still_give_its_energy():
    frames = [Atoms("H2O", np.eye(3) * k) for k in (1.0, 1.1)]
    batch = replace(from_ase(frames), energy=torch.tensor([-100.0, -102.0], dtype=torch.float64))
    found = fit_references(batch)
    assert 2 * found[1] + found[8] == pytest.approx(-101.0)


def test_references_need_energies():
    with pytest.raises(InvalidInputError, match="no structure has one"):
        fit_references(replace(random_batch(), energy=None))


def test_options_that_are_none_are_refused_all_at_once():
    with pytest.raises(
        InvalidInputError, match="weight of energy is -1.0.*weight of dipole is nan"
    ):
        LossOptions(energy=-1.0, dipole=float("nan"))
    with pytest.raises(InvalidInputError, match="huber is 0.0"):
        LossOptions(huber=0.0)
    with pytest.raises(InvalidInputError, match="nothing to learn"):
        LossOptions(energy=0.0, forces=0.0, charges=0.0, dipole=0.0)


def test_a_force_field_is_asked_for_what_the_loss_needs():
    assert Loss(LossOptions(preset="published")).needs == {
        "forces": True,
        "stress": True,
        "qeq": True,
    }
    assert Loss().needs == {"forces": True, "stress": False, "qeq": False}


def test_the_label_none_is_absent():
    batch = AtomicBatch(**{**random_batch().tensors(), "charges": None})
    assert labels("charges", batch) is None
    assert float(Loss().counts(batch)["charges"]) == 0.0
