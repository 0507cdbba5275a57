"""Errors of a force field: what is counted, and how forces are split between molecules."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.md.evaluation import _unwrapped, evaluate, split_forces
from scikd.md.frames import AtomicBatch, from_ase, select
from scikd.md.get import GET, GETSettings
from scikd.md.model import ForceField
from scikd.md.training import TrainingResult
from scikd.md.training_report import training_report
from tests.reference.md_rigid import split_by_hand

SETTINGS = GETSettings(dim=8, n_heads=2, n_layers=2, n_radial=6, n_hidden=1, cutoff=4.0)
NAMES = ("H2O", "CO2", "CH3OH", "Li", "N2")


def mixture(rng, *, cell=None):
    """Return molecules at random places, with the number of each; the last atom's is unknown."""
    parts, ids = [], []
    for k, name in enumerate(rng.choice(NAMES, 4)):
        part = Atoms("Li") if name == "Li" else molecule(str(name))
        part.rotate(rng.uniform(0, 360), rng.normal(size=3))
        part.translate(rng.uniform(0, 2.0, 3) + np.array([6.0 * k, 0, 0]))
        parts.append(part)
        ids += [k] * len(part)
    atoms = sum(parts[1:], parts[0]) + Atoms("O", [[-6.0, 0, 0]])
    atoms.set_array("molecules", np.array([*ids, -1]))
    if cell is not None:
        atoms.set_cell(cell)
        atoms.pbc = True
    return atoms


def force_field(seed=0):
    torch.manual_seed(seed)
    references = {1: -13.0, 6: -1000.0, 8: -2000.0}
    return ForceField(GET(SETTINGS), elements=[1, 3, 6, 7, 8], references=references).double()


def labelled(n=6, seed=0, *, periodic=False):
    """Return structures labelled by a force field, and that force field."""
    rng = np.random.default_rng(seed)
    cell = np.diag([30.0, 12.0, 13.0]) if periodic else None
    batch = from_ase([mixture(rng, cell=cell) for _ in range(n)])
    model = force_field()
    out = model(batch, model.neighbors(batch), stress=periodic)
    names = ["energy", "forces", "charges", "dipole", *(["stress"] if periodic else [])]
    return replace(batch, **{name: out[name] for name in names}), model


# ------------------------------------------------------------------------------- molecular forces


@given(seed=st.integers(0, 1000))
def test_the_split_is_that_of_rigid_bodies(seed):
    rng = np.random.default_rng(seed)
    atoms = mixture(rng)
    batch = from_ase(atoms)
    forces = rng.normal(size=(len(atoms), 3))
    found = split_forces(batch, torch.from_numpy(forces))
    between, net, torques = split_by_hand(atoms, forces)
    np.testing.assert_allclose(found["between"].numpy(), between, atol=1e-9)
    np.testing.assert_allclose(found["net_forces"].numpy(), net, atol=1e-12)
    np.testing.assert_allclose(found["torques"].numpy(), torques, atol=1e-9)
    sums = found["between"] + found["within"]
    np.testing.assert_allclose(sums.numpy()[:-1], forces[:-1], atol=1e-12)
    assert found["within"][-1].isnan().all()


def test_what_is_within_a_molecule_neither_moves_nor_turns_it():
    rng = np.random.default_rng(3)
    batch = from_ase([mixture(rng) for _ in range(5)])
    forces = torch.from_numpy(rng.normal(size=(batch.n_atoms, 3)))
    within = split_forces(batch, forces)["within"]
    again = split_forces(batch, torch.nan_to_num(within))
    assert again["net_forces"].abs().max() < 1e-10
    assert again["torques"].abs().max() < 1e-8


def test_the_pull_of_a_bond_is_within():
    batch = from_ase(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))
    batch = replace(batch, molecules=torch.zeros(2, dtype=torch.int64))
    pull = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    found = split_forces(batch, pull)
    assert found["between"].abs().max() < 1e-12
    turn = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    found = split_forces(batch, turn)
    assert found["within"].abs().max() < 1e-12
    assert found["torques"][0].tolist() == pytest.approx([-1.1, 0.0, 0.0])


@pytest.mark.parametrize("skew", [0, 1, 4])
def test_a_molecule_across_the_boundary_is_whole(skew):
    rng = np.random.default_rng(1)
    cell = np.array([[30.0, 0, 0], [2.0, 12.0, 0], [1.0, -2.0, 13.0]])
    cell[1] += skew * cell[0]  # other vectors of the same lattice
    cell[2] -= 2 * skew * cell[1]
    atoms = mixture(rng, cell=cell)
    wrapped = atoms.copy()
    wrapped.wrap()
    wrapped.positions += rng.integers(-2, 3, (len(atoms), 3)) @ cell
    assert not np.allclose(wrapped.positions, atoms.positions)
    forces = torch.from_numpy(rng.normal(size=(len(atoms), 3)))
    whole, cut = (split_forces(from_ase(a), forces) for a in (atoms, wrapped))
    for name in whole:
        np.testing.assert_allclose(cut[name].numpy(), whole[name].numpy(), atol=1e-9)


@given(seed=st.integers(0, 1000), periodic=st.sampled_from([(1, 1, 1), (1, 1, 0), (0, 1, 0)]))
def test_the_nearest_image_is_that_of_all_images(seed, periodic):
    # Two long vectors whose difference is short: rounding their multiples misses images.
    cell, pbc = np.array([[10.1, 1.0, 0.0], [10.0, 0.0, 0.0], [0.3, 0.2, 5.0]]), np.array(periodic)
    rng = np.random.default_rng(seed)
    atoms = Atoms("H2", rng.uniform(-3, 3, (2, 3)), cell=cell, pbc=pbc == 1)
    atoms.set_array("molecules", np.array([0, 0]))
    batch = from_ase(atoms, check=False)
    found = _unwrapped(batch, batch.molecules >= 0, batch.molecules, 1).numpy()
    assert not found[0].any()
    steps = np.arange(-12, 13)
    images = np.stack(np.meshgrid(steps, steps, np.arange(-2, 3)), axis=-1).reshape(-1, 3) * pbc
    every = atoms.positions[1] - atoms.positions[0] + images @ cell
    lengths = np.linalg.norm(every, axis=1)
    assert np.linalg.norm(found[1]) == pytest.approx(lengths.min(), abs=1e-9)
    assert np.abs(every - found[1]).max(axis=1).min() < 1e-9, "it is an image"


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("periodic", [False, True])
def test_a_force_field_makes_no_error_on_its_own_labels(periodic):
    batch, model = labelled(periodic=periodic)
    metrics = evaluate(model, batch, batch_size=4, progress=False)
    names = ["energy", "forces", "within", "between", "net_forces", "torques", "charges"]
    assert list(metrics.errors) == [*names, "stress" if periodic else "dipole"]
    assert all(error.rmse < 1e-6 for error in metrics.errors.values())
    assert metrics.errors["forces"].n == 3 * batch.n_atoms
    assert metrics.errors["energy"].n == 6


def test_errors_are_what_was_added():
    batch, model = labelled(20)
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(scale=0.1, size=(batch.n_atoms, 3)))
    spoilt = replace(
        batch,
        forces=batch.forces + noise,
        energy=batch.energy + 0.5,
        charges=batch.charges + torch.where(batch.numbers == 8, 0.02, 0.0),
    )
    metrics = evaluate(model, spoilt, progress=False)
    forces = metrics.errors["forces"]
    assert forces.rmse == pytest.approx(1e3 * float((noise**2).mean().sqrt()))
    assert forces.mae == pytest.approx(1e3 * float(noise.abs().mean()))
    assert forces.unit == "meV/Å"
    assert forces.spread == pytest.approx(1e3 * float(spoilt.forces.std(correction=0)))
    expected = 1e3 * float((0.5 / batch.counts).square().mean().sqrt())
    assert metrics.errors["energy"].rmse == pytest.approx(expected)
    oxygen, carbon = (metrics.by_element["charges"][s] for s in ("O", "C"))
    assert oxygen.rmse == pytest.approx(20.0)
    assert carbon.rmse == pytest.approx(0.0, abs=1e-9)
    centred = evaluate(model, spoilt, centred=True, progress=False)
    assert centred.errors["energy"].rmse < 1e-6


def test_energies_with_another_zero_are_told_with_what_to_do():
    batch, model = labelled(8)
    model.metadata["level"] = "GFN2-xTB"
    shifted = replace(batch, energy=batch.energy - 40.0 * batch.counts)
    hint = evaluate(model, shifted, progress=False).hint
    assert re.match(r"The energies are off by \+40 eV per atom.*\(GFN2-xTB\).*--centred", hint)
    assert evaluate(model, shifted, centred=True, progress=False).hint == ""
    few_meV = replace(batch, energy=batch.energy + 0.002 * batch.counts)
    scatter = torch.linspace(-9.0, 9.0, 8) + 1.0
    for others in (batch, few_meV, replace(batch, energy=batch.energy + scatter * batch.counts)):
        assert evaluate(model, others, progress=False).hint == ""
    table = evaluate(model, shifted, progress=False).table()
    assert table.note.endswith(hint)
    assert table.note.startswith("Between molecules")


def test_single_molecules_have_no_rows_for_what_is_between_them():
    model = force_field()
    frames = [molecule("H2O"), molecule("CH3OH")]
    for frame in frames:
        frame.set_array("molecules", np.zeros(len(frame), dtype=int))
    batch = from_ase(frames)
    batch = replace(batch, forces=torch.zeros_like(batch.positions))
    metrics = evaluate(model, batch, progress=False)
    assert list(metrics.errors) == ["forces"]
    assert metrics.table().note == ""


def test_energies_do_not_hide_behind_their_references():
    batch, model = labelled()
    metrics = evaluate(model, batch, progress=False)
    # The labels that are shown are what was learnt, not 2000 eV for each oxygen.
    assert metrics.errors["energy"].spread < 1e5
    assert np.abs(metrics.labels["energy"]).max() < 100.0


def test_labels_that_are_missing_are_left_out():
    batch, model = labelled()
    forces = batch.forces.clone()
    forces[batch.batch == 2] = torch.nan
    holed = replace(batch, forces=forces, charges=None, dipole=None)
    metrics = evaluate(model, holed, progress=False)
    assert metrics.errors["forces"].n == 3 * int((batch.batch != 2).sum())
    assert "charges" not in metrics.errors
    assert np.isfinite(metrics.errors["within"].rmse)
    bare = replace(batch, energy=None, forces=None, charges=None, dipole=None)
    with pytest.raises(InvalidInputError, match="structures with labels"):
        evaluate(model, bare, progress=False)


def test_the_order_and_size_of_batches_do_not_matter():
    batch, model = labelled(9)
    noisy = replace(batch, forces=batch.forces * 1.1, energy=batch.energy * 1.0001)
    whole = evaluate(model, noisy, progress=False).as_dict()
    pieces = evaluate(model, noisy, batch_size=2, progress=False).as_dict()
    turned = evaluate(model, select(noisy, range(8, -1, -1)), progress=False).as_dict()
    for other in (pieces, turned):
        for name, error in whole["errors"].items():
            assert other["errors"][name] == pytest.approx(error), name


def test_an_unknown_element_is_refused():
    model = force_field()
    with pytest.raises(InvalidInputError, match="'Ar'"):
        evaluate(model, Atoms("Ar"), progress=False)


# ----------------------------------------------------------------------------------------- report


def test_a_report_shows_errors_and_curves(tmp_path):
    pytest.importorskip("matplotlib")
    batch, model = labelled(12)
    noisy = AtomicBatch(**{**batch.tensors(), "forces": batch.forces * 1.2})
    metrics = evaluate(model, noisy, progress=False)
    history = [
        {
            "epoch": k,
            "seconds": 1.0,
            "structures_per_second": 12.0,
            "train_loss": 1.0 / k,
            "validation_loss": 1.2 / k,
            "train_forces_meV_per_A": 30.0 / k,
            "validation_forces_meV_per_A": 20.0 / k,
        }
        for k in (1, 2, 3)
    ]
    report = training_report(TrainingResult(model, history, 3, None), metrics)
    text = report.to_text()
    assert "forces within molecules" in text
    assert "3 epochs" in text
    assert "Elements H, Li, C, N, O" in text
    pictures = report.write_pngs(tmp_path)
    assert [path.name for path in pictures] == ["01-parity.png", "02-learning-curves.png"]
    assert all(path.stat().st_size > 10_000 for path in pictures)


def test_a_report_of_nothing_is_refused():
    with pytest.raises(InvalidInputError, match="got neither"):
        training_report()
