"""Released weights give the released predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units

from scikd.exceptions import CorruptFileError, InvalidInputError, StorageError
from scikd.md.bamboo import COULOMB_OF_THE_RELEASE, from_bamboo, import_bamboo
from scikd.md.dispersion import D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.frames import from_ase
from scikd.md.neighbors import find_neighbors
from scikd.md.storage import load_force_field, save_force_field
from tests.reference.md_models import force_field

KCAL = units.kcal / units.mol
PUBLISHED_CUTOFF = 5.0


@pytest.fixture(scope="module")
def weights(scikd_data):
    with np.load(scikd_data("md/bamboo_released/weights.npz")) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def reference(scikd_data):
    with np.load(scikd_data("md/bamboo_released/reference_outputs.npz")) as archive:
        return dict(archive)


def published(weights, splitting):
    """Return the model with the release's own truncation: no reciprocal sum, nothing smoothed."""
    electrostatics = Electrostatics(
        constant=COULOMB_OF_THE_RELEASE * KCAL,
        cutoff=PUBLISHED_CUTOFF,
        splitting=splitting,
        reciprocal=None,
        smooth=False,
        free_cutoff=PUBLISHED_CUTOFF,
    )
    dispersion = D3CSO(smooth=False, tail=False, ionic=False)
    return from_bamboo(weights, electrostatics=electrostatics, dispersion=dispersion)


@pytest.mark.parametrize(("system", "splitting"), [("crop", 0.0), ("box", 0.0), ("box", 0.3)])
def test_released_weights_reproduce_the_released_predictions(weights, reference, system, splitting):
    atoms = Atoms(reference[f"{system}/numbers"], reference[f"{system}/positions"])
    if system == "box":
        atoms.set_cell(reference["box/cell"])
        atoms.pbc = True
    model = published(weights, splitting)
    batch = from_ase(atoms)  # the network runs in single precision, as the reference's
    neighbors = find_neighbors(batch, 5.0, 10.0)
    found = model(batch, neighbors, stress=True)
    expected = {
        name: reference[f"{system}/g{splitting}/pred_{name}"]
        for name in ("energy", "forces", "virial", "charge")
    }
    forces = found["forces"].numpy() / KCAL
    assert np.abs(forces - expected["forces"]).max() < 1e-3
    assert np.abs(found["charges"].numpy() - expected["charge"]).max() < 1e-5
    energy = found["energy"].item() / KCAL
    # float32 rounding of the sum: a few units in the last place of the largest partial sum
    assert energy == pytest.approx(expected["energy"].item(), rel=2e-6)
    virial = found["virial"][0].numpy() / KCAL
    assert np.abs(virial - expected["virial"]).max() < 1e-4 * np.abs(expected["virial"]).max()


def test_import_makes_a_model_that_can_be_loaded(weights, scikd_data, tmp_path):
    path = import_bamboo(scikd_data("md/bamboo_released/weights.npz"), tmp_path / "bamboo")
    model = load_force_field(path)
    assert sum(p.numel() for p in model.parameters()) == 103_620
    assert model.force_rule == "published"
    assert not model.dispersion_in_labels
    direct = from_bamboo(weights)
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, direct.state_dict()[name], rtol=0, atol=0)


def test_arrays_of_something_else_are_refused(weights, tmp_path):
    with pytest.raises(InvalidInputError, match="'embedding.weight' is missing"):
        from_bamboo({"a": np.zeros(3, np.float32)})
    short = weights | {"energy_mlp/0/weight": weights["energy_mlp/0/weight"][:, :10]}
    del short["energy_mlp/0/bias"]
    with pytest.raises(
        InvalidInputError,
        match=r"energy_head.0.bias is missing; energy_head.0.weight has shape \(32, 10\), expected",
    ):
        from_bamboo(short)


def _as_arrays(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _as_text(path):
    path.write_text("weights")


def _as_objects(path):
    with path.open("wb") as file:
        np.savez(file, weights=np.array([{}], dtype=object))


def _as_checkpoint(path):
    torch.save({"weight": torch.zeros(2)}, path)


def _cut_short(path):
    path.write_bytes(b"PK\x03\x04 and no more")


@pytest.mark.parametrize(
    "write",
    [_as_arrays, _as_text, _as_objects, _as_checkpoint, _cut_short],
    ids=lambda f: f.__name__,
)
def test_a_file_that_is_no_archive_of_arrays_is_refused_without_advice_to_load_it(write, tmp_path):
    path = tmp_path / "weights.npz"
    write(path)
    with pytest.raises(CorruptFileError, match="archive of plain NumPy arrays .*savez") as caught:
        import_bamboo(path, tmp_path / "out")
    assert "pickle" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(StorageError, match="Could not read .*absent.npz"):
        import_bamboo(tmp_path / "absent.npz", tmp_path / "out")


def test_a_model_that_is_there_is_kept_unless_it_shall_be_replaced(weights, tmp_path):
    archive, output = tmp_path / "weights.npz", tmp_path / "model"
    np.savez(archive, **weights)
    save_force_field(force_field(), output)
    with pytest.raises(InvalidInputError, match="There is a model in .*model already.*overwrite"):
        import_bamboo(archive, output)
    assert load_force_field(output).force_rule == "conservative"
    import_bamboo(archive, output, overwrite=True)
    assert load_force_field(output).force_rule == "published"
