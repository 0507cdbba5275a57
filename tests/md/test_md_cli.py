"""The commands ``scikd md``: they parse, call, and say where the result lies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from ase import Atoms
from ase.build import molecule

from scikd.exceptions import MissingExtraError
from scikd.md.frames import from_ase
from scikd.md.packing import _find_packmol
from scikd.md.readers import read_frames, write_frames
from scikd.md.storage import save_force_field
from tests.reference.md_models import force_field


@pytest.fixture
def water(tmp_path):
    """Give a file of water molecules, bent and stretched, with labels from springs."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(12):
        r, angle = 0.96 + rng.normal(scale=0.03, size=2), 1.82 + rng.normal(scale=0.05)
        ends = [[r[0], 0, 0], [r[1] * np.cos(angle), r[1] * np.sin(angle), 0]]
        frames.append(Atoms("OH2", [[0, 0, 0], *ends]))
    batch = from_ase(frames)
    x = batch.positions.reshape(12, 3, 3)
    bonds = x[:, 1:] - x[:, :1]
    lengths = bonds.norm(dim=2, keepdim=True)
    pulls = -30.0 * (lengths - 0.96) * bonds / lengths
    forces = torch.cat([-pulls.sum(1, keepdim=True), pulls], dim=1).reshape(-1, 3)
    energy = -2000.0 + 15.0 * ((lengths - 0.96) ** 2).sum((1, 2))
    charges = torch.tensor([-0.6, 0.3, 0.3], dtype=torch.float64).repeat(12)
    labelled = replace(batch, energy=energy, forces=forces, charges=charges)
    write_frames(tmp_path / "water.h5", labelled)
    return tmp_path / "water.h5"


SMALL = [
    "--model.dim",
    "8",
    "--model.n-heads",
    "2",
    "--model.n-layers",
    "2",
    "--model.n-radial",
    "6",
]


COMMANDS = (
    "align",
    "campaign",
    "distill",
    "evaluate",
    "export",
    "import-bamboo",
    "label",
    "properties",
    "run",
    "sample",
    "sample-liquids",
    "train",
)
# How they are told what to read, and the flag of what they write.
COMMANDS_THAT_WRITE = {
    "label": lambda data: [data, "--output"],
    "sample": lambda data: ["--output"],
    "evaluate": lambda data: [data, "--report"],
}


def test_help_is_quick_and_lists_all_commands():
    program = (
        "import sys; from scikd.cli import main\n"
        "try: main(['md', '--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *{'torch', 'ase', 'numba', 'numpy'}.intersection(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.rpartition("LOADED")[2].split() == []
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(run, command):
    code, out, _ = run("md", command, "--help")
    assert code == 0
    assert "Usage: scikd md" in out


def test_help_of_training_explains_every_flag(run):
    _, out, _ = run("md", "train", "--help")
    flags = re.findall(r"^  (--[\w.-]+)(?:[^\n]*)\n?", out, re.MULTILINE)
    assert len(flags) > 40
    text = " ".join(out.split())
    assert "--learning-rate NUMBER After the warm-up. [default: 0.003]" in text
    assert "--loss.huber NUMBER|none Error, in the unit of each term" in text


def test_train_then_evaluate(run, water, tmp_path):
    options = tmp_path / "train.yaml"
    options.write_text(f"train: {water}\nepochs: 9\nbatch_size: 4\nmodel: {{cutoff: 3.0}}\n")
    output = tmp_path / "out"
    code, out, err = run("md", "train", options, "--epochs", "2", "--output", output, *SMALL)
    assert code == 0, err
    assert f"The model lies in {output / 'model'}" in out
    assert "epoch 2/2" in err
    page = (output / "report.html").read_text()
    assert "Learning curves" in page
    numbers, report = tmp_path / "errors.json", tmp_path / "test.html"
    code, out, err = run(
        "md", "evaluate", water, "--model", output / "model",
        "--numbers", numbers, "--report", report, "--centred",
    )  # fmt: skip
    assert code == 0, err
    assert "forces within molecules" not in out  # the file does not say which molecules there are
    assert re.search(r"forces +[\d.,]+ +[\d.,]+ +[\d.,]+ +meV/Å +108", out)
    found = json.loads(numbers.read_text())
    assert set(found["errors"]) == {"energy", "forces", "charges"}
    assert set(found["by_element"]["forces"]) == {"H", "O"}
    assert "Parity" in report.read_text()


def test_train_says_what_is_wrong_in_one_line(run, water, tmp_path):
    code, _, err = run("md", "train", "--train", water)
    assert (code, err.count("\n")) == (2, 1)
    assert "--output" in err
    code, _, err = run("md", "train", "--train", water, "--epochs", "many", "--output", tmp_path)
    assert code == 2
    assert "epochs is 'many', expected a whole number" in err
    options = tmp_path / "train.yaml"
    options.write_text("epoch: 3\n")
    code, _, err = run("md", "train", options)
    assert code == 2
    assert "epoch is no option, did you mean epochs" in err


def test_label(run, water, tmp_path):
    pytest.importorskip("tblite")
    bare = replace(read_frames(water), energy=None, forces=None, charges=None)
    write_frames(tmp_path / "bare.h5", bare)
    output = tmp_path / "labelled.h5"
    code, out, err = run(
        "md", "label", tmp_path / "bare.h5", "--output", output, "--store", tmp_path / "store"
    )
    assert code == 0, err
    assert "12 labelled structures lie in" in out
    labelled = read_frames(output)
    assert labelled.energy.mean().item() == pytest.approx(-137.9, abs=1.0)
    charges = labelled.charges.reshape(12, 3)
    assert (charges[:, 0] < -0.4).all()
    code, _, err = run("md", "label", tmp_path / "bare.h5", "--output", output, "--method", "AM1")
    assert code == 2
    assert "got 'AM1'" in err


def test_sample_and_label(run, tmp_path):
    pytest.importorskip("tblite")
    try:
        _find_packmol()
    except MissingExtraError:
        pytest.skip("needs packmol")
    raw, output = tmp_path / "raw.h5", tmp_path / "labelled.xyz"
    few = ["--n-clusters", "2", "--cluster-molecules", "1", "--cluster-molecules", "2"]
    short = ["--n-frames", "1", "--n-scaled", "0", "--warmup", "10", "--interval", "10"]
    code, out, err = run("md", "sample", "--mixture", "EC", *few, *short, "--output", raw)
    assert code == 0, err
    assert "2 structures lie in" in out
    code, out, err = run("md", "label", raw, "--output", output, "--store", tmp_path / "store")
    assert code == 0, err
    labelled = read_frames(output)
    assert labelled.n_structures == 2
    assert labelled.group.tolist() == [0, 1]  # two trajectories
    assert torch.equal(labelled.numbers.unique(), torch.tensor([1, 6, 8]))
    assert labelled.forces.isfinite().all()
    code, _, err = run("md", "sample", "--mixture", "EC")
    assert code == 2
    assert "--output" in err


@pytest.fixture
def hydroxide(tmp_path):
    """Give a DeePMD folder of hydroxide ions, with energies of nothing in particular."""
    folder = tmp_path / "hydroxide"
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0 1")
    (folder / "type_map.raw").write_text("O H")
    (folder / "nopbc").touch()
    bonds = [[0, 0, 0, 0, 0, length] for length in (0.95, 0.97, 1.0)]
    np.save(folder / "set.000" / "coord.npy", np.array(bonds, dtype=float))
    np.save(folder / "set.000" / "energy.npy", np.array([1.0, 2.0, 3.0]))
    return folder


def test_deepmd_folders_of_ions_are_labelled(run, hydroxide, tmp_path):
    pytest.importorskip("tblite")
    output, store = tmp_path / "labelled.h5", ["--store", tmp_path / "store"]
    code, _, err = run("md", "label", hydroxide, "--output", output, *store)
    assert code == 2
    assert "no even whole number of electrons" in err
    charge = ["--total-charge", "-1"]
    code, _, err = run("md", "label", hydroxide, "--output", output, *store, *charge)
    assert code == 0, err
    assert read_frames(output).total_charge.tolist() == [-1.0] * 3


def test_deepmd_folders_of_ions_are_trained_on_and_evaluated(run, hydroxide, tmp_path):
    out = tmp_path / "out"
    train = ["--train", hydroxide, "--epochs", "1", "--output", out, *SMALL]
    errors = []
    for charge in ("-1", "-2"):
        flags = ["--total-charge", charge]
        code, _, err = run("md", "train", *train, *flags)
        if errors:  # the structures are part of what a checkpoint belongs to
            assert code == 2
            assert "structures were others" in err
        else:
            assert code == 0, err
        numbers = ["--numbers", tmp_path / "errors.json"]
        code, _, err = run("md", "evaluate", hydroxide, "--model", out, *numbers, *flags)
        assert code == 0, err
        errors.append(json.loads((tmp_path / "errors.json").read_text()))
    assert errors[0] != errors[1]


def test_a_box_is_labelled_with_its_stress(run, tmp_path):
    pytest.importorskip("tblite")
    water = molecule("H2O", cell=[6.0] * 3, pbc=True)
    write_frames(tmp_path / "box.xyz", from_ase(water))
    output = tmp_path / "labelled.h5"
    code, _, err = run(
        "md", "label", tmp_path / "box.xyz", "--output", output, "--store", tmp_path / "store"
    )
    assert code == 0, err
    labelled = read_frames(output)
    assert labelled.stress.isfinite().all()
    assert labelled.dipole is None


@pytest.mark.parametrize("method", ["PBE0", "PBE0/", "/def2-SVPD"])
def test_a_method_of_labels_that_is_none_is_told_those_there_are(run, water, tmp_path, method):
    output = tmp_path / "new" / "out.h5"
    code, _, err = run("md", "label", water, "--output", output, "--method", method)
    assert code == 2
    assert "GFN2-xTB, GFN1-xTB, IPEA1-xTB, or a functional and a basis" in err
    assert f"such as 'PBE0/def2-SVPD'; got '{method}'." in err
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("command", "name", "reason"),
    [
        *((c, "water.h5/out.h5", "make the folder .*water.h5") for c in COMMANDS_THAT_WRITE),
        *((c, "folder.h5", "There is a folder of that name") for c in COMMANDS_THAT_WRITE),
        ("label", "out.txt", "output named .h5, .hdf5, .xyz or .extxyz; got 'out.txt'"),
        ("sample", "out", "output named .h5, .hdf5, .xyz or .extxyz; got 'out'"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    run, water, tmp_path, monkeypatch, command, name, reason
):
    from scikd.md import evaluation, labelling, sampling

    def work(*arguments, **settings):
        pytest.fail("it has begun to work")

    monkeypatch.setattr(labelling, "label_structures", work)
    monkeypatch.setattr(sampling, "sample_structures", work)
    monkeypatch.setattr(evaluation, "evaluate", work)
    (tmp_path / "folder.h5").mkdir()
    code, _, err = run("md", command, *COMMANDS_THAT_WRITE[command](water), tmp_path / name)
    assert code == 2
    assert re.search(reason, err)


def test_missing_folders_of_results_are_made_unless_the_work_fails(run, water, tmp_path):
    model = force_field()
    save_force_field(model, tmp_path / "model")
    numbers, report = tmp_path / "a" / "b" / "errors.json", tmp_path / "c" / "page.html"
    wanted = ["--model", tmp_path / "model", "--numbers", numbers, "--report", report]
    code, _, _ = run("md", "evaluate", tmp_path / "absent.h5", *wanted)
    assert code == 2
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "c").exists()
    code, _, err = run("md", "evaluate", water, *wanted)
    assert code == 0, err
    assert numbers.is_file()
    assert report.is_file()


def test_evaluate_hints_at_another_zero(run, water, tmp_path):
    save_force_field(force_field(references={}), tmp_path / "model")
    _, out, _ = run("md", "evaluate", water, "--model", tmp_path / "model")
    text = " ".join(out.split())
    assert "The energies are off by +667 eV per atom" in text
    assert "--centred" in text
    _, out, _ = run("md", "evaluate", water, "--model", tmp_path / "model", "--centred")
    assert "--centred" not in out


def test_run_says_each_stage_and_leaves_nothing_when_refused(run, water, tmp_path):
    write_frames(tmp_path / "start.xyz", from_ase(molecule("CH3OCH3")))
    save_force_field(force_field(), tmp_path / "model")
    folder = tmp_path / "run"
    short = ["--liquid", tmp_path / "start.xyz", "--model", tmp_path / "model", "--output", folder]
    short += ["--time", "2fs", "--equilibration", "0fs", "--minimise-steps", "2"]
    code, _, err = run("md", "run", *short)
    assert code == 2
    assert "Constant pressure needs a structure that is periodic" in err
    assert not folder.exists()
    code, _, err = run("md", "run", *short, "--ensemble", "nvt", "--max-temperature", "1e6")
    assert code == 0, err
    stages = ["computing the first forces", "minimising 9 atoms", "minimised in", "then 2fs of nvt"]
    places = [err.index(stage) for stage in stages]
    assert places == sorted(places)
    code, _, err = run("md", "run", "--temperature", "-5")
    assert code == 2
    assert err == "scikd: Cannot use these options: expected temperature > 0, got -5.0.\n"


def test_no_two_flags_of_sampling_have_the_same_help(run):
    _, out, _ = run("md", "sample", "--help")
    flags = re.split(r"^  (?=-)", out, flags=re.MULTILINE)[1:]
    helps = [" ".join(flag.split()).split(" ", 2)[-1].partition("[default")[0] for flag in flags]
    assert len(set(helps)) == len(helps)
    assert len(helps) > 15


def test_import_bamboo(run, scikd_data, tmp_path):
    weights = scikd_data("md/bamboo_released/weights.npz")
    code, out, err = run("md", "import-bamboo", weights, tmp_path / "bamboo")
    assert code == 0, err
    assert "The force field lies in" in out
    code, _, err = run("md", "import-bamboo", weights, tmp_path / "bamboo")
    assert code == 2
    assert "replace it: overwrite=True, on the command line --overwrite" in err
    assert run("md", "import-bamboo", weights, tmp_path / "bamboo", "--overwrite")[0] == 0
    code, _, err = run("md", "import-bamboo", tmp_path / "absent.npz", tmp_path / "other")
    assert code == 2
    assert "absent.npz" in err


def test_every_command_is_a_command():
    from scikd.md.cli import app

    group = typer.main.get_command(app)
    assert group.list_commands(None) == list(COMMANDS)


def test_export_for_lammps(run, tmp_path):
    save_force_field(force_field(), tmp_path / "model")
    box = Atoms("CO2", [[1, 1, 1], [1, 1, 2.2], [1, 1, -0.2]], cell=[9, 9, 9], pbc=True)
    box.write(tmp_path / "box.xyz")
    flags = ["--model", tmp_path / "model", "--liquid", tmp_path / "box.xyz"]
    flags += ["--output", tmp_path / "out", "--pressure-bar", "7", "--minimise-steps", "0"]
    code, _, err = run("md", "export", *flags)
    assert code == 2
    assert "the program to export for: --lammps" in err
    code, out, err = run("md", "export", "--lammps", *flags)
    assert code == 0, err
    assert f"python {tmp_path / 'out' / 'run.py'}" in out
    assert "iso 7.0 7.0" in (tmp_path / "out" / "in.run").read_text()
