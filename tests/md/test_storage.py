"""A saved force field is the same force field."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase.build import molecule

from scikd.exceptions import CorruptFileError
from scikd.md.dispersion import D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.frames import from_ase
from scikd.md.get import GET, GETSettings
from scikd.md.model import ForceField
from scikd.md.repulsion import ZBL
from scikd.md.storage import load_force_field, save_force_field


def force_field(dtype=torch.float64):
    torch.manual_seed(1)
    network = GET(
        GETSettings(dim=8, n_heads=2, n_radial=5, envelope="cosine"), charge_prior=torch.rand(87)
    )
    return ForceField(
        network,
        elements=[1, 6, 8],
        references={1: -13.6, 6: -1027.123456789012},
        electrostatics=Electrostatics(beta=10.0),
        dispersion=D3CSO(),
        repulsion=ZBL(),
        forces="published",
        dispersion_in_labels=True,
        metadata={"level": "GFN2-xTB", "ranges": [1.0, 2.5]},
    ).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_save_and_load_give_the_same_model_to_the_last_bit(tmp_path, dtype):
    before = force_field(dtype)
    after = load_force_field(save_force_field(before, tmp_path / "model"))
    batch = from_ase(molecule("CH3CH2OH"), dtype=dtype)
    one, other = (model(batch, model.neighbors(batch), stress=True) for model in (before, after))
    for name, values in one.items():
        np.testing.assert_array_equal(values.numpy(), other[name].numpy())
    assert after.metadata == before.metadata
    assert after.force_rule == "published"
    assert after.dispersion_in_labels
    assert after.dtype == dtype
    assert (after.electrostatics, after.dispersion, after.repulsion) == (
        before.electrostatics,
        before.dispersion,
        before.repulsion,
    )


def test_a_file_that_was_cut_short_or_edited_is_refused(tmp_path):
    folder = save_force_field(force_field(), tmp_path / "model")
    arrays = folder / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-10])
    with pytest.raises(CorruptFileError, match="cut short or edited"):
        load_force_field(folder)


def test_a_bundle_of_another_kind_is_refused(tmp_path):
    from scikd.persistence import save_bundle

    save_bundle(tmp_path / "other", kind="other", parameters={})
    with pytest.raises(CorruptFileError, match="holds a 'other', expected a 'scikd.md.ForceField'"):
        load_force_field(tmp_path / "other")


def test_settings_that_this_version_does_not_know_are_refused(tmp_path):
    from scikd.persistence import load_bundle, save_bundle

    folder = save_force_field(force_field(), tmp_path / "model")
    bundle = load_bundle(folder, kind="scikd.md.ForceField")
    parameters = json.loads(json.dumps(bundle.parameters)) | {"architecture": "NEXT"}
    save_bundle(folder, kind=bundle.kind, parameters=parameters, arrays=bundle.arrays)
    with pytest.raises(CorruptFileError, match="architecture 'GET' or 'Equivariant'; got 'NEXT'"):
        load_force_field(folder)
