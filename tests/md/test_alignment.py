"""Alignment: pressures between molecules go where densities want them, and the rest stays."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.io import write

from scikd._options import load_options
from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.md import _aligning, _rounds
from scikd.md._aligning import AlignmentError, Measured, measure
from scikd.md._correcting import correct
from scikd.md._trainer import Trainer
from scikd.md.alignment import AlignmentOptions, align
from scikd.md.alignment_report import alignment_report
from scikd.md.calculators import CalculatorTeacher
from scikd.md.campaign import CampaignOptions
from scikd.md.densities import DensityTarget, read_targets
from scikd.md.distillation import DistillationOptions, distill_ensemble
from scikd.md.estimates import Estimate
from scikd.md.frames import from_ase, to_ase
from scikd.md.liquids import LiquidsOptions
from scikd.md.pressure import molecular_pressure
from scikd.md.storage import load_force_field, save_force_field
from scikd.md.training import TrainingOptions
from tests.md.test_training import same, weights

SIGMA, EPSILON, MASS = 3.4, 0.0103, 39.948
TEMPERATURE = 120.0
DENSITY = 1.15  # g/cm³, a liquid near 0.7 of its reduced density


def box(n=3, density=DENSITY):
    """Return a perfect lattice of argon atoms, each a molecule of its own."""
    edge = (n**3 * MASS / (density * 0.602214)) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    atoms = Atoms(f"Ar{n**3}", grid * edge / n, cell=[edge] * 3, pbc=True)
    atoms.set_array("molecules", np.arange(n**3))
    return atoms


def lennard_jones():
    return LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=5.0, ro=4.0, smooth=True)


@pytest.fixture(scope="module")
def argon():
    """Give a small network that has learnt a Lennard-Jones fluid at several densities."""
    rng, frames = np.random.default_rng(0), []
    while len(frames) < 20:
        frame = box(density=float(rng.uniform(0.95, 1.4)))
        frame.positions += rng.normal(0, rng.uniform(0.15, 0.5), (len(frame), 3))
        distances = frame.get_all_distances(mic=True)
        if distances[np.triu_indices(len(frame), 1)].min() > 0.8 * SIGMA:
            frames.append(frame)
    model = {"dim": 8, "n_heads": 2, "n_layers": 2, "n_radial": 8, "n_hidden": 1, "cutoff": 5.0}
    options = load_options(
        DistillationOptions, None,
        {"student": "new", "electrostatics": False, "repulsion": True, "model": model,
         "epochs": 40, "batch_size": 2, "learning_rate": 0.01, "threads": 1, "device": "cpu",
         "loss": {"preset": "relative", "forces": 1.0}},
    )  # fmt: skip
    teacher = CalculatorTeacher(
        lennard_jones(), properties=("energy", "forces", "stress"), fingerprint="argon"
    )
    force_field = distill_ensemble([teacher], frames, options=options, progress=False).force_field
    # Runs may come closer than these few frames, which is no matter here.
    del force_field.metadata["training_range"]
    return force_field


def options(folder, **changes):
    given = {
        "output": folder, "time": "6ps", "equilibration": "1ps", "settling": "0ps",
        "density_time": "0ps",
        "timestep": 5.0, "interval": 20, "n_frames": 12, "epochs": 12, "threads": 1,
        "device": "cpu", "engine": "numba", "learning_rate": 1e-2, "hold": 0.1,
        "tolerance_bar": 30.0, "parameters": "all",
    }  # fmt: skip
    return load_options(AlignmentOptions, None, {**given, **changes})


def target(**changes):
    given = {"liquid": "argon", "density_g_cm3": DENSITY, "temperature_k": TEMPERATURE}
    return DensityTarget(**(given | changes))


STARTS = {"argon": box()}


def measured(model, shift, n=10, seed=0):
    """Return frames of a shaken lattice, as if a run had found that so much pressure lacks."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        frame = box()
        frame.positions += rng.normal(0, 0.25, (len(frame), 3))
        frames.append(frame)
    batch = from_ase(frames)
    return Measured(Estimate(shift, 1.0, "bar"), Estimate(DENSITY, 0.0, "g/cm³"), batch, batch)


def predict(model, batch):
    return model(batch, model.neighbors(batch), stress=True)


# ------------------------------------------------------------------------------------- correction


@pytest.mark.parametrize("shift", [300.0, -200.0])
def test_a_correction_moves_the_pressure_and_little_else(argon, tmp_path, shift):
    found = measured(argon, shift, n=16)
    aligned, moved = correct(
        argon, {"argon": found}, options(tmp_path, epochs=20), None, tmp_path / "t", False
    )
    assert moved["argon"] == pytest.approx(shift, rel=0.2)
    new = measured(argon, shift, n=6, seed=9).frames  # frames of neither set
    before, after = predict(argon, new), predict(aligned, new)
    change = [molecular_pressure(new, p["forces"], p["stress"], 0.0) for p in (before, after)]
    assert float((change[1] - change[0]).mean()) == pytest.approx(shift, rel=0.2)
    forces = (after["forces"] - before["forces"]).square().mean().sqrt()
    assert float(forces) < 0.1 * float(before["forces"].square().mean().sqrt())
    # What was measured is as it was.
    assert weights(argon).keys() == weights(aligned).keys()
    assert not same(weights(argon), weights(aligned))


def test_the_readout_alone_is_moved(argon, tmp_path):
    found = measured(argon, 100.0, n=8)
    aligned, _ = correct(
        argon, {"argon": found}, options(tmp_path, epochs=2, parameters="readout"), None,
        tmp_path / "t", False,
    )  # fmt: skip
    old, new = weights(argon), weights(aligned)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert all("energy_head" in name for name in changed)


def test_errors_on_the_reference_are_held(argon, tmp_path):
    clusters = []
    for frame in to_ase(measured(argon, 0.0, n=12).frames):
        cluster = Atoms("Ar4", frame.positions[[0, 1, 3, 9]])
        cluster.calc = lennard_jones()
        cluster.get_forces()
        clusters.append(cluster)
    given = options(tmp_path, epochs=3)
    correct(argon, {"argon": measured(argon, 150.0)}, given, from_ase(clusters), tmp_path, False)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    # Errors are measured by what they were.
    assert 0.2 < float(first["reference_validation_loss"]) < 5.0


def test_a_correction_that_is_killed_goes_on_to_the_same_numbers(argon, tmp_path, monkeypatch):
    found = {"argon": measured(argon, 200.0)}
    whole, moved = correct(argon, found, options(tmp_path, epochs=2), None, tmp_path / "a", False)
    plain, steps = Trainer._close_epoch, []

    def break_off(self, *arguments):
        if steps:
            raise OSError("killed")
        steps.append(0)
        return plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_close_epoch", break_off)
        with pytest.raises(OSError, match="killed"):
            correct(argon, found, options(tmp_path, epochs=2), None, tmp_path / "b", False)
    again, same_moved = correct(
        argon, found, options(tmp_path, epochs=2), None, tmp_path / "b", False
    )
    assert same(weights(again), weights(whole))
    assert moved == same_moved


# -------------------------------------------------------------------------------------- the whole


@pytest.mark.slow
def test_the_density_goes_where_it_is_wanted(argon, tmp_path):
    """A density 6 % above the model's own at 1,500 bar: after alignment the model has it."""
    own = target(pressure_bar=1500.0)  # at 1 bar this fluid boils
    given = options(
        tmp_path, time="40ps", density_time="80ps", iterations=6, epochs=30, n_frames=24, hold=0.3
    )
    start = measure(own, argon, replace(given, route="npt"), tmp_path / "own", box(), False)
    density = start.density.value
    wanted = replace(own, density_g_cm3=1.06 * density)
    result = align(argon, [wanted], options=given, starts=STARTS, progress=False)
    assert result.converged
    (liquid,) = result.liquids
    assert liquid.shifts[0].value < -80.0  # it was too light: pressure has to go
    last = liquid.shifts[-1]
    assert abs(last.value) <= max(given.tolerance_bar, 2 * last.error)
    before, after = liquid.before, liquid.after
    assert abs(before.value / density - 1) < 0.02
    assert abs(after.value - wanted.density_g_cm3) < 0.4 * (wanted.density_g_cm3 - before.value)
    assert "pressures agree after" in result.summary()
    page = alignment_report(result).write_html(tmp_path / "page.html").read_text()
    assert "Densities" in page
    again = align(argon, [wanted], options=given, starts=STARTS, progress=False)
    assert same(weights(again.force_field), weights(result.force_field))


def test_rounds_of_runs_and_corrections(argon, tmp_path, caplog):
    """The pressure that is wanted is the model's own plus 250 bar: corrections get there."""
    given = options(tmp_path / "out", iterations=4, epochs=20, n_frames=16, tolerance_bar=120.0)
    own = measure(target(), argon, given, tmp_path / "own", box(), False)
    wanted = target(pressure_bar=1.0 - own.shift.value + 250.0)
    with caplog.at_level(logging.INFO, logger="scikd.md.alignment"):
        result = align(argon, [wanted], options=given, starts=STARTS, progress=False)
    (liquid,) = result.liquids
    assert result.converged
    assert liquid.shifts[0].value == pytest.approx(250.0, abs=1.0)  # the same seed
    assert len(liquid.shifts) == len(liquid.moved_bar) + 1 > 1
    last = liquid.shifts[-1]
    assert abs(last.value) <= max(120.0, 2 * last.error)
    assert liquid.before is None
    assert 0.0 < liquid.changes.forces < liquid.changes.of_forces
    assert "bar to add" in caplog.text
    content = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert content["converged"]
    assert content["liquids"][0]["changes"]["forces_meV_A"] == liquid.changes.forces
    assert same(weights(load_force_field(result.path)), weights(result.force_field))
    assert result.force_field.metadata["alignment"]["converged"]
    again = align(argon, [wanted], options=given, starts=STARTS, progress=False)
    assert same(weights(again.force_field), weights(result.force_field))
    assert again.liquids == result.liquids


def number_of(model):
    """Return how often `rounds_of` has corrected a model: it counts in the energy of no element."""
    return int(model.references[0])


@pytest.fixture
def rounds_of(monkeypatch):
    """Give runs of models that lack, after each correction, what a list says; and what was run."""

    def make(*shifts):
        runs = []

        def run_measure(one, model, options, folder, *_):
            assert folder.parent.name == f"iteration-{number_of(model)}"
            lacks = shifts[number_of(model)]
            lacks = lacks[one.liquid] if isinstance(lacks, dict) else lacks
            return replace(measured(model, lacks, n=1), density=Estimate(DENSITY, 0.0, "g/cm³"))

        def run_correct(model, found, *_):
            corrected = copy.deepcopy(model)
            corrected.references[0] += 1.0
            return corrected, {name: one.shift.value for name, one in found.items()}

        def run_density(one, model, options, folder, *_):
            runs.append((folder.parent.name, number_of(model)))
            return Estimate(1.0 + 0.01 * number_of(model), 0.001, "g/cm³")

        monkeypatch.setattr(_rounds, "measure", run_measure)
        monkeypatch.setattr(_rounds, "correct", run_correct)
        monkeypatch.setattr(_rounds, "density_of_target", run_density)
        return runs

    return make


def test_densities_lie_by_the_corrections_of_their_model(argon, tmp_path, rounds_of):
    runs = rounds_of(400.0, 200.0, 100.0, 5.0)
    given = options(tmp_path, iterations=1, density_time="1ps")
    first = align(argon, [target()], options=given, starts=STARTS, progress=False)
    assert runs == [("density-0", 0), ("density-1", 1)]
    assert (first.converged, first.corrections) == (False, 1)
    runs.clear()
    given = replace(given, iterations=4)
    more = align(argon, [target()], options=given, starts=STARTS, progress=False)
    assert runs == [("density-0", 0), ("density-3", 3)]
    assert (more.converged, more.corrections) == (True, 3)
    assert more.liquids[0].after.value == pytest.approx(1.03)
    assert "pressures agree after 3 corrections" in more.summary()


def test_what_a_folder_was_made_with_is_compared(argon, tmp_path, rounds_of):
    rounds_of(400.0, 5.0)
    given, told = options(tmp_path), "holds an alignment of other options than these: "

    def again(liquid="argon", starts=STARTS, **changes):
        align(argon, [target(liquid=liquid)], options=replace(given, **changes), starts=starts)

    with pytest.raises(AlignmentError, match="out of reach.*raise max_shift_bar"):
        again(max_shift_bar=100.0)
    again()  # as that message proposes, in the same folder
    noted = json.loads((tmp_path / "options.json").read_text())
    assert "max_shift_bar" not in noted
    (tmp_path / "options.json").write_text(json.dumps({**noted, "max_shift_bar": 5000.0}))
    again()  # noted before it was free
    changes = {"hold": 0.2, "engine": "torch"}
    with pytest.raises(InvalidInputError, match=told + "hold is 0.1 there, 0.2 here; engine is"):
        again(**changes)
    loss = replace(given.reference_loss, forces=3.0)
    with pytest.raises(InvalidInputError, match=told + "reference_loss.forces is .* there, 3.0 h"):
        again(reference_loss=loss)
    with pytest.raises(InvalidInputError, match=told + r"boxes.argon is another\."):
        again(starts={"argon": box(density=1.1)})
    with pytest.raises(InvalidInputError, match="targets is another"):
        again(liquid="b", starts={"b": box()})


def test_the_content_of_a_file_belongs_to_what_a_folder_was_made_with(argon, tmp_path, rounds_of):
    rounds_of(5.0)
    path, given = tmp_path / "box.xyz", options(tmp_path / "out", settling="0ps")
    write(path, box(), format="extxyz")
    align(argon, [target(liquid=str(path))], options=given)
    align(argon, [target(liquid=str(path))], options=given)
    write(path, box(density=1.1), format="extxyz")
    with pytest.raises(InvalidInputError, match="box.xyz is another"):
        align(argon, [target(liquid=str(path))], options=given)
    given = replace(given, output=tmp_path / "packed", n_atoms=60)
    align(argon, [target(liquid="DMC")], options=given)
    assert "boxes" not in json.loads((tmp_path / "packed" / "options.json").read_text())


def test_a_model_that_agrees_is_run_once_for_its_density(argon, tmp_path, rounds_of):
    runs, before = rounds_of(5.0), dict(argon.metadata)
    given = options(tmp_path, density_time="1ps")
    result = align(argon, [target()], options=given, starts=STARTS, progress=False)
    assert runs == [("density-0", 0)]
    assert result.liquids[0].before == result.liquids[0].after
    assert argon.metadata == before


@pytest.mark.parametrize(
    ("shifts", "iterations", "kept"),
    [
        ([400.0, -90.0, 300.0, 250.0], 3, 1),  # out of iterations
        ([400.0, -90.0, 600.0], 9, 1),  # stuck
        # Each liquid lacks at times more, at times less than the other.
        ([{"a": 90.0, "b": 500.0}, {"a": -300.0, "b": 50.0}, {"a": 40.0, "b": 310.0}], 2, 1),
        ([60.0, 70.0, 80.0], 9, 0),  # corrections only did harm
    ],
)
def test_without_agreement_the_best_model_is_kept(
    argon, tmp_path, rounds_of, shifts, iterations, kept
):
    runs = rounds_of(*shifts)
    given = options(tmp_path, iterations=iterations, density_time="1ps")
    targets = [target(liquid=name) for name in ("a", "b")]
    starts = {"a": box(), "b": box()}
    result = align(argon, targets, options=given, starts=starts, progress=False)
    assert not result.converged
    assert result.corrections == result.force_field.metadata["alignment"]["corrections"] == kept
    assert number_of(result.force_field) == number_of(load_force_field(result.path)) == kept
    assert set(runs) == {("density-0", 0), (f"density-{kept}", kept)}
    assert result.liquids[0].after.value == pytest.approx(1.0 + 0.01 * kept)
    assert json.loads((tmp_path / "alignment.json").read_text())["corrections"] == kept
    said = f"after {len(shifts) - 1} corrections; the model of {kept}, which lacked least, is kept"
    assert said in result.summary()
    assert said in alignment_report(result).write_html(tmp_path / "page.html").read_text()
    assert result.table().rows[0][-1] == str(result.liquids[0].shifts[kept])


def test_a_run_that_is_cut_short_goes_on(argon, tmp_path, monkeypatch):
    given = options(tmp_path, time="2ps")
    whole = measure(target(), argon, given, tmp_path / "a", box(), False)
    import scikd.md._aligning as module

    def stop(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_pressures", stop)
        with pytest.raises(OSError, match="killed"):
            measure(target(), argon, given, tmp_path / "b", box(), False)
    again = measure(target(), argon, given, tmp_path / "b", box(), False)
    assert again.shift == whole.shift
    (tmp_path / "b" / "measured.json").write_text("{")
    with pytest.raises(CorruptFileError, match="cut short or garbled"):
        measure(target(), argon, given, tmp_path / "b", box(), False)


def test_a_density_makes_a_pressure_by_the_compressibility(argon, tmp_path):
    given = options(tmp_path, route="npt", time="2ps", compressibility=2e-4)
    found = measure(target(pressure_bar=80.0), argon, given, tmp_path / "a", box(), False)
    density = found.density
    assert found.shift.value == pytest.approx((density.value / DENSITY - 1) / 2e-4)
    assert found.shift.error == pytest.approx(density.error / DENSITY / 2e-4)


# ------------------------------------------------------------------------------- what cannot be


def test_a_density_out_of_reach_is_refused_with_the_reason(argon, tmp_path):
    given = options(tmp_path / "far", max_shift_bar=100.0, time="2ps")
    with pytest.raises(AlignmentError, match=r"change by more than 100 bar \(argon.*: [+-]\d+ bar"):
        align(argon, [target(pressure_bar=9000.0)], options=given, starts=STARTS, progress=False)
    given = options(tmp_path / "stiff", time="2ps", hold=1e-6, epochs=1, max_shift_bar=1e5)
    with pytest.raises(AlignmentError, match="less than a quarter of what it should.*raise hold"):
        align(argon, [target(pressure_bar=3000.0)], options=given, starts=STARTS, progress=False)


def test_a_run_that_blows_up_is_a_density_out_of_reach(argon, tmp_path):
    given = options(tmp_path, time="2ps", timestep=100.0, interval=2)
    with pytest.raises(AlignmentError, match="at 1.15 g/cm³ and 120 K; it cannot.*blew up"):
        align(argon, [target()], options=given, starts=STARTS, progress=False)


def test_targets_that_contradict_each_other_are_refused(argon, tmp_path):
    given = options(tmp_path)
    for targets, said in (
        ([], "Expected liquids to align with"),
        ([target(held_out=True)], "Expected liquids to align with"),
        ([target(), target(density_g_cm3=1.2)], "1.15 and 1.2 g/cm³, which no model"),
        ([target(), target()], "one came twice"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            align(argon, targets, options=given)
    with pytest.raises(InvalidInputError, match="a density in g/cm³ from 0.05 to 25, got 1150"):
        target(density_g_cm3=1150.0)
    with pytest.raises(InvalidInputError, match="a temperature in K above 60, got 25"):
        target(temperature_k=25.0)
    wrong = [
        target(liquid="EC:XY"),
        target(liquid="no.xyz"),
        target(liquid="EC:DMC", held_out=True),
    ]
    with pytest.raises(InvalidInputError) as caught:
        align(argon, wrong, options=options(tmp_path / "c", n_atoms=9), starts=STARTS)
    for said in (
        "Unknown species 'XY'",
        "There is no file no.xyz",
        "at least one molecule of each",
    ):
        assert said in str(caught.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hold": 0.0}, "hold > 0, got 0"),
        ({"density_time": "100"}, "a time with its unit"),
        ({"settling": "10"}, "a time with its unit"),
        ({"route": "nvp"}, "Expected route 'nvt' or 'npt', got 'nvp'"),
        ({"precision": "float16"}, "precision 'float32' or 'float64', got 'float16'"),
        ({"parameters": "al", "engine": "c"}, "parameters .*, got 'al'; engine .*, got 'c'"),
        ({"validation_fraction": 2}, "validation_fraction between 0 and 1, got 2"),
        ({"validation_fraction": 0.0}, "validation_fraction between 0 and 1, got 0"),
        ({"threads": 0}, "threads"),
        ({"epochs": 0}, "epochs is 0, expected more than 0"),
        ({"batch_size": 0}, "batch_size is 0, expected more than 0"),
        ({"learning_rate": -1}, "learning_rate is -1, expected more than 0"),
        ({"seed": -1}, "seed"),
        ({"hydrogen_mass": 0.0}, "hydrogen_mass > 0"),
        ({"interval": 0}, "interval > 0, got 0"),
        ({"time": "0.3ps"}, "at least eight frames, .* got 3 in a time of 0.3ps with .* of 20"),
        ({"density_time": "0.3ps"}, "at least eight .* a density_time of 0.3ps"),
    ],
)
def test_options_that_cannot_be_are_refused_in_python_too(tmp_path, changes, said):
    given = options(tmp_path)
    with pytest.raises(InvalidInputError, match=said):
        replace(given, **changes)
    assert replace(given, settling="0ps", density_time="0ps") is not None


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (DistillationOptions, {"student": "nwe"}),
        (DistillationOptions, {"schedule": "cosin"}),
        (TrainingOptions, {"precision": "float16"}),
        (LiquidsOptions, {"engine": "nmba"}),
        (CampaignOptions, {"at_density": "fond"}),
    ],
)
def test_choices_of_other_options_are_checked_in_python_too(kind, changes):
    ((name, value),) = changes.items()
    with pytest.raises(InvalidInputError, match=f"Expected {name} '.*' or '.*', got '{value}'"):
        kind(**changes)


def test_a_pressure_of_which_nothing_is_known_does_not_agree(argon, tmp_path, monkeypatch):
    """5 % of the density are 100 bar here: four times the error takes sixteen times as long."""

    def run_measure(one, *_):
        error = 400.0 if one.liquid == "argon" else 99.0
        return replace(measured(argon, 30.0, n=1), shift=Estimate(30.0, error, "bar"))

    monkeypatch.setattr(_rounds, "measure", run_measure)
    given = options(tmp_path / "a", time="1ps", compressibility=5e-4)
    targets, starts = [target(), target(liquid="b")], {"argon": box(), "b": box()}
    with pytest.raises(AlignmentError) as caught:
        align(argon, targets, options=given, starts=starts)
    for said in (
        "known to 100 bar",
        "nothing (argon, 120 K, 1 bar: ± 400 bar, 20% of the density)",
        "a time of 16.0ps or more, in another folder",
    ):
        assert said in str(caught.value)
    for changes in ({"tolerance_bar": 401.0}, {"compressibility": 1.2e-4}):
        given = replace(given, output=tmp_path / str(changes), **changes)
        assert align(argon, targets, options=given, starts=starts).converged


def test_a_density_is_that_of_a_content_however_it_is_named(argon, tmp_path):
    """The same parts in another order are the same liquid; two files of one name are not."""
    given = options(tmp_path / "out", n_atoms=60)
    for other, said in ((1.3, "EC:DMC 1:1, .* and DMC:EC 1:1, .* 1 and 1.3"), (1.0, "came twice")):
        twice = [DensityTarget("EC:DMC 1:1", 1.0), DensityTarget("DMC:EC 1:1", other)]
        with pytest.raises(InvalidInputError, match=said):
            align(argon, twice, options=given)
    boxes = [tmp_path / name / "box.extxyz" for name in ("a", "b")]
    for path in boxes:
        path.parent.mkdir()
        write(path, box(), format="extxyz")
    targets = [target(liquid=str(path)) for path in boxes]
    with pytest.raises(InvalidInputError, match="would share a folder: rename a file"):
        align(argon, targets, options=given)
    assert not (tmp_path / "out").exists()


def test_targets_are_read_from_a_table(tmp_path):
    path = tmp_path / "targets.csv"
    path.write_text(
        "liquid, density_g_cm3, temperature_k, held_out\n"
        '"EC:EMC 3:7", 1.0948, 298.15,\n'
        "DMC, 1.0633, , yes\n"
    )
    assert read_targets(path) == [
        DensityTarget("EC:EMC 3:7", 1.0948),
        DensityTarget("DMC", 1.0633, held_out=True),
    ]
    path.write_bytes(b"\xef\xbb\xbfliquid,density_g_cm3\r\nDMC,1.0633\r\n")  # as Excel does
    assert read_targets(path) == [DensityTarget("DMC", 1.0633)]
    path.write_text(
        "liquid,density_g_cm3,held_out\nDMC,heavy,\nEC,,\nEC,1320,\nEMC,1.0,perhaps\nPC,1.2\n"
    )
    with pytest.raises(InvalidInputError) as caught:
        read_targets(path)
    for said in (
        "Line 2: Expected a number as density_g_cm3; got 'heavy'",
        "Line 3: Expected a density_g_cm3; got none",
        "Line 4: Expected of 'EC' a density in g/cm³ from 0.05 to 25, got 1320",
        "Line 5: Expected yes or no as held_out; got 'perhaps'",
        "Line 6: Expected 3 cells, as there are names; got 2",
    ):
        assert said in str(caught.value)
    path.write_text("liquid,density\nDMC,1\n")
    with pytest.raises(InvalidInputError, match="columns liquid and density_g_cm3"):
        read_targets(path)


def test_held_out_liquids_are_only_looked_at_in_the_end(argon, tmp_path):
    given = options(tmp_path, time="1ps", density_time="1ps", equilibration="200fs",
                    tolerance_bar=1e5, interval=5)  # fmt: skip
    other = target(temperature_k=130.0, held_out=True)
    result = align(argon, [target(), other], options=given, starts=STARTS, progress=False)
    first, second = result.liquids
    assert len(first.shifts) == 1
    assert second.shifts == ()
    assert first.before == first.after  # nothing had to be corrected
    assert first.changes is None
    assert second.before.value > 0.0
    folders = {path.name for path in (tmp_path / "iteration-0").iterdir()}
    assert folders == {"argon-120K-1bar"}
    assert "(held out)" in result.summary()


def test_boxes_settle_before_anything_is_measured(argon, tmp_path, monkeypatch):
    begun = {}
    running = _aligning.run_dynamics

    def noted(run, *, atoms, **given):
        name = Path(run.output).relative_to(tmp_path).parts[0]
        done = running(run, atoms=atoms, **given)
        begun[name] = run, atoms, done.atoms
        return done

    monkeypatch.setattr(_aligning, "run_dynamics", noted)
    write(tmp_path / "box.xyz", box(), format="extxyz")
    known = target(liquid=str(tmp_path / "box.xyz"))
    given = options(tmp_path, time="1ps", settling="0.5ps", equilibration="200fs",
                    density_time="1.5ps", tolerance_bar=1e5, interval=5)  # fmt: skip
    align(argon, [known], options=given, progress=False)
    assert set(begun) == {"settled", "iteration-0", "density-0"}
    settled, start, box_then = begun.pop("settled")
    assert (settled.ensemble, settled.time, start) == ("nvt", "0.5ps", None)
    assert settled.minimise_steps > 0
    for run, atoms, _ in begun.values():
        np.testing.assert_allclose(atoms.positions, box_then.positions)
        assert run.minimise_steps == 0
        assert run.n_equilibration * run.timestep == (500 if run.ensemble == "npt" else 200)
    begun.clear()
    align(argon, [known], options=given, progress=False)
    assert not begun
    given = replace(given, output=tmp_path / "other")
    align(argon, [known], options=given, starts={known.liquid: box()}, progress=False)
    assert not (tmp_path / "other" / "settled").exists()


def test_boxes_settle_again_after_a_correction(argon, tmp_path, rounds_of, monkeypatch):
    """The liquid is that of the model before: its pressure falls while it changes."""
    rounds_of(400.0, 5.0)
    left_out = []

    def noted(run):
        def noting(one, model, options, folder, *more):
            left_out.append((folder.parent.name, options.equilibration))
            return run(one, model, options, folder, *more)

        return noting

    for name in ("measure", "density_of_target"):
        monkeypatch.setattr(_rounds, name, noted(getattr(_rounds, name)))
    given = options(tmp_path, settling="3000fs", equilibration="2ps", density_time="6ps")
    align(argon, [target()], options=given, starts=STARTS, progress=False)
    longer = replace(given, equilibration="4ps", output=tmp_path / "longer")
    align(argon, [target()], options=longer, starts=STARTS, progress=False)
    names = ("iteration-0", "iteration-1", "density-0", "density-1")
    assert left_out == [
        *zip(names, ("2ps", "3000fs") * 2, strict=True),
        *((name, "4ps") for name in names),
    ]


def test_side_by_side_the_numbers_are_the_same(argon, tmp_path):
    changes = {"time": "1ps", "density_time": "1ps", "tolerance_bar": 1e5, "interval": 5}
    targets = [target(), target(temperature_k=110.0)]
    one, two = (
        align(argon, targets, options=options(tmp_path / name, **changes), starts=STARTS,
              n_jobs=n_jobs, progress=False)
        for name, n_jobs in (("one", None), ("two", 2))
    )  # fmt: skip
    assert one.liquids == two.liquids
    assert one.liquids[0].shifts != one.liquids[1].shifts
    assert one.liquids[0].before.value > 0.0


def test_side_by_side_one_that_blows_up_leaves_what_is_finished(argon, tmp_path):
    given = options(tmp_path, time="1ps")
    targets = [target(), target(temperature_k=1e9)]
    noted = set()
    for n_jobs in (None, 2):
        with pytest.raises(AlignmentError, match=r"at 1.15 g/cm³ and 1e\+09 K; it cannot"):
            align(argon, targets, options=given, starts=STARTS, n_jobs=n_jobs, progress=False)
        finished = tmp_path / "iteration-0" / "argon-120K-1bar" / "measured.json"
        noted.add(finished.stat().st_mtime_ns)
    assert len(noted) == 1


def test_align_from_the_command_line(argon, run, tmp_path):
    save_force_field(argon, tmp_path / "argon")
    write(tmp_path / "box.xyz", box(), format="extxyz")
    table = tmp_path / "targets.csv"
    table.write_text(f"liquid,density_g_cm3,temperature_k\n{tmp_path / 'box.xyz'},{DENSITY},120\n")
    arguments = [
        "--initial", tmp_path / "argon", "--targets", table, "--output", tmp_path / "out",
        "--time", "1ps", "--density-time", "0.5ps", "--equilibration", "100fs", "--timestep", "5",
        "--interval", "5", "--settling", "50fs", "--tolerance-bar", "1e5", "--threads", "1",
        "--device", "cpu", "--jobs", "1",
    ]  # fmt: skip
    code, out, err = run("md", "align", *arguments)
    assert code == 0, err
    assert "pressures agree after 0 corrections" in out
    assert f"The model lies in {tmp_path / 'out' / 'model'}" in out
    assert "box.xyz, 120 K, 1 bar" in (tmp_path / "out" / "report.html").read_text()
    code, _, err = run("md", "align", "--output", tmp_path / "none")
    assert code != 0
    assert "Expected liquids to align with" in err
    assert "--targets" in err
