"""Force fields as models of torch-sim: its own validation, and the calculator as the oracle."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from ase.stress import voigt_6_to_full_3x3_stress

from scikd.exceptions import InvalidInputError, MissingExtraError
from scikd.md.calculators import ForceFieldCalculator
from scikd.md.dispersion import D3BJ
from scikd.md.electrostatics import Electrostatics
from scikd.md.get import GET, GETSettings
from scikd.md.model import ForceField
from scikd.md.torchsim import TorchSimModel
from tests.reference.md_models import force_field, structure

CPU = torch.device("cpu")


@pytest.fixture
def ts():
    return pytest.importorskip("torch_sim")


def model_of(**settings):
    return TorchSimModel(force_field(), device="cpu", **settings)


def state_of(ts, systems, dtype=torch.float64):
    return ts.io.atoms_to_state(systems, CPU, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("forces", ["conservative", "published"])
def test_torch_sim_finds_the_model_valid(ts, dtype, forces):
    interface = pytest.importorskip("torch_sim.models.interface")
    torch.manual_seed(0)
    # What it is tried on: silicon and iron.
    field = ForceField(
        GET(GETSettings(dim=8, n_heads=2, n_layers=2, n_radial=6)),
        elements=(14, 26),
        references={14: -7880.0, 26: -34500.0},
        electrostatics=Electrostatics(),
        dispersion=D3BJ("b3lyp"),
        forces=forces,
    )
    model = TorchSimModel(field.to(dtype), device="cpu", dtype=dtype, compute_stress=False)
    assert isinstance(model, interface.ModelInterface)
    interface.validate_model_outputs(model, CPU, dtype)
    assert model.compute_stress, "the validation asks for it"


@pytest.mark.parametrize("periodic", [True, False])
def test_a_batch_agrees_with_the_calculator(ts, periodic):
    systems = [
        structure(n, seed, width, periodic)
        for seed, n, width in [(0, 12, 6.0), (1, 7, 5.0), (2, 20, 8.0)]
    ]
    for k, atoms in enumerate(systems):  # no two boxes alike, and atoms outside of them
        atoms.positions += [9.0 * k, 0.0, -4.0]
        if periodic:
            atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.05 * k * np.eye(3, k=1)))
    found = model_of(total_charge=-1.0)(state_of(ts, systems))
    forces = torch.split(found["forces"], [len(atoms) for atoms in systems])
    for k, atoms in enumerate(systems):
        atoms.calc = ForceFieldCalculator(
            force_field(), engine="torch", device="cpu", guard=None, total_charge=-1.0
        )
        assert found["energy"][k].item() == pytest.approx(atoms.get_potential_energy(), rel=1e-13)
        np.testing.assert_allclose(forces[k].numpy(), atoms.get_forces(), rtol=0, atol=1e-10)
        stress = found["stress"][k].numpy()
        if periodic:
            right = voigt_6_to_full_3x3_stress(atoms.get_stress())
            np.testing.assert_allclose(stress, right, rtol=0, atol=1e-12)
        else:
            assert np.isnan(stress).all()


def test_results_are_what_is_asked_for_in_the_precision_of_the_state(ts):
    state = state_of(ts, [structure(), structure(8, 1)], torch.float32)
    for flags in ((True, True), (True, False), (False, True), (False, False)):
        model = model_of(compute_forces=flags[0], compute_stress=flags[1])
        found = model(state)
        assert [name in found for name in ("forces", "stress")] == list(flags)
        assert {values.dtype for values in found.values()} == {torch.float32}
        assert not any(values.requires_grad for values in found.values())
    values = {name: getattr(state, name) for name in ("positions", "masses", "cell", "pbc")}
    values |= {"atomic_numbers": state.atomic_numbers, "system_idx": state.system_idx}
    torch.testing.assert_close(model(values)["energy"], found["energy"], rtol=0, atol=0)


def test_torch_sim_runs_it_and_energy_is_conserved(ts):
    systems = [structure(8, seed, periodic=False, apart=1.5) for seed in range(2)]
    model = model_of()
    state = ts.initialize_state(systems, model.device, model.dtype)
    begin, step = ts.nve(model, dt=torch.tensor(0.02, dtype=model.dtype), kT=torch.tensor(0.02))
    state = begin(state, seed=0)

    def total(state):
        kinetic = 0.5 * (state.momenta**2 / state.masses[:, None]).sum(1)
        return state.energy.index_add(0, state.system_idx, kinetic)

    before, potential = total(state), state.energy.clone()
    for _ in range(50):
        state = step(state)
    exchanged = (state.energy - potential).abs()
    assert (exchanged > 1e-4).all()
    assert ((total(state) - before).abs() < 0.02 * exchanged).all()


def test_an_element_that_is_unknown_is_refused(ts):
    atoms = structure()
    atoms.numbers[0] = 9
    with pytest.raises(InvalidInputError, match="the structure holds .*'F'"):
        model_of()(state_of(ts, [atoms]))


def test_a_total_charge_that_is_no_number_is_refused(ts):
    with pytest.raises(InvalidInputError, match="a finite total charge in e, got nan"):
        model_of(total_charge=float("nan"))


def test_without_torch_sim_the_extra_is_named(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "torch_sim"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(
        MissingExtraError, match=r'A model of torch-sim .*pip install "scikd\[torch'
    ):
        TorchSimModel(force_field())
