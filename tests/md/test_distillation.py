"""Distillation: labels by consensus, no absolute energies, turns, and a restart at any stage."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones

from scikd._options import load_options
from scikd.aggregation import Mean
from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError, TeacherError
from scikd.labels import LabelStore
from scikd.md._bulk import (
    as_ensemble,
    consensus_of,
    hold_out_tails,
    label_by_consensus,
    mixtures_of,
    noise_of,
)
from scikd.md._trainer import Trainer
from scikd.md._training_data import plan_batches
from scikd.md.calculators import CalculatorTeacher, ForceFieldCalculator
from scikd.md.distillation import DistillationOptions, distill_ensemble
from scikd.md.frames import from_ase, select, to_ase
from scikd.md.losses import Loss, LossOptions
from scikd.md.readers import read_frames, write_frames
from scikd.md.storage import load_force_field, save_force_field
from scikd.md.teachers import Structures
from scikd.md.training import build_force_field
from tests.md.test_training import same, weights
from tests.reference.md_models import force_field, structure

SIGMA, EPSILON = 3.0, 0.01


def fluid(n_frames=8, seed=0, numbers=(18,) * 12, density=0.6):
    """Return boxes of a simple fluid, atoms not closer than 0.85 of their size."""
    rng = np.random.default_rng(seed)
    edge = (len(numbers) / density) ** (1 / 3) * SIGMA
    frames = []
    while len(frames) < n_frames:
        grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
        places = rng.permutation(grid)[: len(numbers)] * edge / 3
        atoms = Atoms(numbers, places + rng.normal(0, 0.12, (len(numbers), 3)) * SIGMA,
                      cell=[edge] * 3, pbc=True)  # fmt: skip
        distances = atoms.get_all_distances(mic=True)
        if distances[np.triu_indices(len(atoms), 1)].min() > 0.85 * SIGMA:
            frames.append(atoms)
    return frames


def argon(epsilon=EPSILON, name="argon", offset=0.0):
    """Return a Lennard-Jones teacher, perhaps with an energy of its own for each atom."""
    calculator = LennardJones(sigma=SIGMA, epsilon=epsilon, rc=2.0 * SIGMA, smooth=True)
    if offset:
        plain = calculator.get_property

        def shifted(what, atoms=None, allow_calculation=True):
            value = plain(what, atoms, allow_calculation)
            return value + offset * len(atoms) if what == "energy" else value

        calculator.get_property = shifted
    return CalculatorTeacher(
        calculator, name, properties=("energy", "forces", "stress"), fingerprint=name
    )


def options(**changes):
    given = {
        "model": {"dim": 8, "n_heads": 2, "n_layers": 2, "n_radial": 6, "n_hidden": 1,
                  "cutoff": 5.0},
        "student": "new", "electrostatics": False, "epochs": 3, "batch_size": 3, "threads": 1,
        "warmup_epochs": 0.0, "validation_fraction": 0.25, "device": "cpu",
    }  # fmt: skip
    return load_options(DistillationOptions, None, {**given, **changes})


def siblings():
    """Return two force fields that are almost alike, as those of one ensemble are."""
    first = build_force_field(options(), {18}, None)
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.02)
    return first, second


def test_a_weight_that_is_given_leaves_the_others_relative():
    given = options(**{"loss.energy": 2.0, "reference_loss.dipole": 0.0})
    assert given.loss == LossOptions("relative", energy=2.0)
    assert given.reference_loss == LossOptions("relative", dipole=0.0)


def distil(members, frames, **changes):
    kept = {k: changes.pop(k) for k in ("student_model", "reference") if k in changes}
    return distill_ensemble(
        members,
        frames,
        options=options(**changes),
        student=kept.get("student_model"),
        reference=kept.get("reference"),
        progress=False,
    )


# ------------------------------------------------------------------------------------ the consensus


def test_one_group_and_composition_is_a_mixture():
    frames = [*fluid(2), *fluid(1, numbers=(10,) * 12), *fluid(1)]
    frames[3].info["group"] = "other"
    batch = from_ase(frames)
    assert mixtures_of(batch).tolist() == [0, 0, 1, 2]
    assert mixtures_of(replace(batch, group=None)).tolist() == [0, 0, 1, 0]


def test_the_consensus_is_the_mean_of_the_members_without_their_offsets():
    frames = [*fluid(5, seed=1), *fluid(3, seed=2, numbers=(18,) * 10)]
    one, other = argon(0.01, "one"), argon(0.014, "other", offset=-7.0)
    batch = from_ase(frames)
    mixtures = mixtures_of(batch)
    found = consensus_of(TeacherEnsemble([one, other]), frames, mixtures, Mean(), None)
    labelled = label_by_consensus(batch, found)
    a, b = one.predict(frames), argon(0.014).predict(frames)  # without the offset
    for name in ("forces", "stress"):
        expected = (a[name] + b[name]) / 2
        np.testing.assert_allclose(getattr(labelled, name).numpy(), expected, atol=1e-12)
        spread = getattr(labelled, f"{name}_std").numpy()
        np.testing.assert_allclose(spread, np.abs(a[name] - b[name]) / 2, atol=1e-12)
    mean = (a["energy"] + b["energy"]) / 2
    for mixture in (0, 1):
        rows = mixtures == mixture
        np.testing.assert_allclose(
            labelled.energy.numpy()[rows], mean[rows] - mean[rows].mean(), atol=1e-9
        )
    assert labelled.charges is None
    assert labelled.energy_std.max() < 1.0  # though the offsets differ by 84 eV


def test_the_spread_goes_through_files(tmp_path):
    frames = fluid(3)
    found = consensus_of(
        TeacherEnsemble([argon(), argon(0.014, "b")]), frames, np.zeros(3, int), Mean(), None
    )
    batch = label_by_consensus(from_ase(frames), found)
    for name, digits in (("frames.h5", 15), ("frames.xyz", 7)):
        write_frames(tmp_path / name, batch)
        again = read_frames(tmp_path / name)
        for label in ("energy_std", "forces_std", "stress_std", "stress"):
            ours, theirs = getattr(batch, label), getattr(again, label)
            torch.testing.assert_close(theirs, ours, rtol=0, atol=10.0**-digits)


def test_labels_stay_where_they_were_made(tmp_path):
    frames, calls = fluid(4), []

    def count(atoms):
        calls.append(len(atoms))

    teacher = argon()
    plain = teacher.calculator.calculate
    teacher.calculator.calculate = lambda *a, **k: (count(a[0]), plain(*a, **k))[1]
    ensemble = TeacherEnsemble([teacher])
    store = LabelStore(tmp_path)
    first, second = (
        consensus_of(ensemble, frames, np.zeros(4, int), Mean(), store) for _ in range(2)
    )
    assert len(calls) == 4
    np.testing.assert_array_equal(first.mean["forces"], second.mean["forces"])


def test_stored_labels_are_a_teacher(tmp_path):
    frames, store = fluid(8), LabelStore(tmp_path / "store")
    for teacher in (argon(), argon(0.012, "b")):
        store.label(teacher, Structures(frames))
    from_store = distil(None, frames, labels=[str(tmp_path / "store")], seed=1)
    asked = distil([argon(), argon(0.012, "b")], frames, seed=1)
    assert same(weights(from_store.force_field), weights(asked.force_field))
    with pytest.raises(InvalidInputError, match="labels of these frames in .*; there are none"):
        distil(None, fluid(8, seed=3), labels=[str(tmp_path / "store")])


def test_a_member_that_is_often_wrong_counts_less_by_inverse_variance():
    frames = fluid(8, seed=4)
    clusters = []
    for frame in fluid(8, seed=5):
        cluster = frame.copy()
        cluster.pbc, cluster.cell = False, None
        cluster.calc = argon().calculator.__class__(**argon().calculator.parameters)
        cluster.get_forces()
        clusters.append(cluster)
    reference = from_ase(clusters)
    models = {
        "right": LennardJones(sigma=SIGMA, epsilon=1.05 * EPSILON, rc=6.0, smooth=True),
        "wrong": LennardJones(sigma=SIGMA, epsilon=1.4 * EPSILON, rc=6.0, smooth=True),
    }
    found = distil(models, frames, aggregator="inverse_variance", reference=reference, epochs=1)
    forces = [m.get_forces(a) for m in models.values() for a in frames]
    right, wrong = np.concatenate(forces[:8]), np.concatenate(forces[8:])
    # Errors of 5 % and 40 %: weights as 64 to 1.
    expected = (64 * right + wrong) / 65
    np.testing.assert_allclose(found.consensus.forces.numpy(), expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(InvalidInputError, match="reference structures, which say how good"):
        distil(models, frames, aggregator="inverse_variance")


# ------------------------------------------------------------------------------------- the training


def test_a_new_student_learns_a_fluid():
    teachers = [argon(0.009, "a", offset=3.0), argon(0.011, "b", offset=-90.0)]
    result = distil(
        teachers, fluid(32), epochs=40, learning_rate=0.01, batch_size=4, precision="float64"
    )
    forces = "validation_forces_meV_per_A"
    assert result.after[forces] < 0.35 * result.before[forces]
    virial = "validation_virial_meV_per_atom"
    assert result.after[virial] < 0.5 * result.before[virial]
    assert result.spread["forces"] > 0.0
    assert "teachers disagree on forces by" in result.summary()


def test_energies_of_teachers_may_have_any_offset_and_the_student_any_reference():
    frames = [*fluid(6, seed=1), *fluid(6, seed=2, numbers=(18,) * 10)]
    runs = []
    for offset, zero in ((0.0, 0.0), (5.0, -300.0)):
        student = build_force_field(options(), {18}, {18: zero})
        runs.append(
            distil([argon(offset=offset)], frames, student_model=student, precision="float64")
        )
    ours, theirs = (weights(run.force_field) for run in runs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-7)
    assert runs[0].history[-1]["train_energy_meV_per_atom"] > 0.0  # they are learnt from


def test_a_new_student_of_the_other_family_is_normalised_by_the_frames():
    sizes = {"family": "equivariant", "channels": 4, "l_max": 1, "n_hidden": 8, "cutoff": 4.0}
    student = distil([argon()], fluid(4), model=sizes, epochs=1).force_field
    liquid = build_force_field(options(model=sizes), {18})
    ours, theirs = (f.architecture.layers[0].neighbors for f in (student, liquid))
    assert not torch.equal(ours, theirs)


def test_the_readout_alone_is_trained():
    member, other = siblings()
    before = weights(member)
    teachers = {"a": member, "b": other}
    result = distil(teachers, fluid(8), student="member", parameters="readout", seed=3)
    after = weights(result.force_field)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("energy_head" in name for name in changed)


def test_without_a_readout_all_or_nothing():
    member = build_force_field(options(), {18}, None)
    member.architecture.readout = None
    with pytest.raises(InvalidInputError, match="GET names none. Train all"):
        distil([member], fluid(4), student="member", parameters="readout")


def test_steps_take_turns_with_the_reference(monkeypatch):
    steps, plain = [], Trainer._step

    def note(self, course, indices, *rest):
        steps.append((course.name, len(indices)))
        return plain(self, course, indices, *rest)

    monkeypatch.setattr(Trainer, "_step", note)
    clusters = [Atoms("Ar3", f.positions[:3]) for f in fluid(10, seed=9)]
    for cluster in clusters:
        cluster.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=6.0, smooth=True)
        cluster.get_forces()
    result = distil([argon()], fluid(16), reference=clusters, epochs=2)
    # 12 frames are four batches; the eight clusters are three, so the first comes again.
    assert [name for name, _ in steps] == ["", "reference"] * 8
    assert [n for name, n in steps if name] == [3, 3, 2, 3] * 2
    row = result.history[-1]
    parts = [row["reference_validation_loss"]]
    assert row["validation_loss"] > parts[0] > 0.0
    assert row["reference_validation_forces_meV_per_A"] > 0.0


@pytest.mark.parametrize("when", [1, 4, 7])
def test_a_distillation_that_is_killed_goes_on_to_the_same_numbers(when, tmp_path, monkeypatch):
    clusters = [Atoms("Ar3", f.positions[:3]) for f in fluid(6, seed=9)]
    for cluster in clusters:
        cluster.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=6.0, smooth=True)
        cluster.get_forces()
    frames = fluid(8)
    given = {"checkpoint_seconds": 0.0, "reference": clusters}
    whole = distil([argon()], frames, **given)
    plain, steps = Trainer._step, []

    def break_off(self, *arguments):
        steps.append(0)
        if len(steps) == when + 1:
            raise OSError("killed")
        return plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", break_off)
        with pytest.raises(OSError, match="killed"):
            distil([argon()], frames, output=str(tmp_path), **given)
    again = distil([argon()], frames, output=str(tmp_path), **given)
    assert same(weights(again.force_field), weights(whole.force_field))
    timed = ("seconds", "structures_per_second")
    for ours, theirs in zip(again.history, whole.history, strict=True):
        for name in set(ours) - set(timed):
            assert ours[name] == theirs[name], name
    assert same(weights(load_force_field(tmp_path)), weights(whole.force_field))
    with pytest.raises(InvalidInputError, match="other"):
        distil([argon(0.014, "other")], frames, output=str(tmp_path), **given)


def test_a_distillation_that_is_refused_leaves_the_finished_one_as_it_is(tmp_path):
    frames = fluid(4)
    distil([argon()], frames, output=str(tmp_path), epochs=1)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert "consensus.h5" in kept
    with pytest.raises(InvalidInputError, match="learning_rate was"):
        distil([argon()], frames, output=str(tmp_path), epochs=1, learning_rate=1e-5)
    with pytest.raises(InvalidInputError, match="the structures were others"):
        distil([argon(0.011, "other")], frames, output=str(tmp_path), epochs=1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == kept


def test_a_student_with_dispersion_is_compared_in_use():
    """Labels of a force field contain its dispersion, though those it was trained on do not."""
    model = force_field(dispersion_in_labels=False, electrostatics=None)
    frames = [structure(n_atoms=10, width=7.0) for _ in range(4)]
    for number, frame in enumerate(frames):
        frame.rattle(0.05, seed=number)
    calculator = ForceFieldCalculator(model, engine="torch", guard=None)
    result = distil(
        [calculator], frames, student_model=force_field(dispersion_in_labels=False,
        electrostatics=None), epochs=1, learning_rate=1e-12, precision="float64",
    )  # fmt: skip
    assert result.before["validation_forces_meV_per_A"] < 1e-6


def test_what_does_not_fit_is_refused():
    frames = fluid(4)
    cluster = Atoms("Ar2", [[0, 0, 0], [0, 0, 3]])
    with pytest.raises(InvalidInputError, match="boxes that are periodic .* got both"):
        distil([argon()], [*frames, cluster, cluster])
    with pytest.raises(InvalidInputError, match="a force field among the teachers.*argon"):
        distil([argon()], frames, student="member")
    with pytest.raises(InvalidInputError, match="at least two frames of a mixture"):
        distil([argon()], frames[:1])
    with pytest.raises(InvalidInputError, match="Expected teachers: folders"):
        distil(None, frames)
    with pytest.raises(InvalidInputError, match="Expected frames of liquids"):
        distil([argon()], None)
    with pytest.raises(InvalidInputError, match="the readout alone of a new network"):
        options(parameters="readout")


# --------------------------------------------------------------------------------- the loss of it


@pytest.mark.parametrize("factor", [23.06, 1 / 23.06])
@pytest.mark.parametrize("n_right", [1, 3])
def test_a_teacher_in_another_unit_is_found(factor, n_right):
    """The message names all sizes, so that the odd one is seen."""
    teachers = [argon(EPSILON * (1 + 0.1 * i), f"right {i}") for i in range(n_right)]
    with pytest.raises(InvalidInputError, match=r"wrong .*kcal/mol"):
        distil([*teachers, argon(EPSILON * factor, "wrong")], fluid(4))


UNITS = {"forces": 1.889726, "energy": 23.06, "stress": 160.2}


class InOtherUnits:
    """A calculator whose answers are multiplied, by name of the quantity."""

    def __init__(self, calculator, factors):
        self.calculator, self.factors = calculator, factors
        self.implemented_properties = calculator.implemented_properties

    def get_property(self, name, atoms=None, allow_calculation=True):
        value = self.calculator.get_property(name, atoms, allow_calculation)
        return np.multiply(value, self.factors.get(name, 1.0))


def argon_in(factors, name="odd"):
    plain = argon(1.1 * EPSILON).calculator
    return CalculatorTeacher(
        InOtherUnits(plain, factors),
        name,
        properties=("energy", "forces", "stress"),
        fingerprint=name,
    )


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("quantity", UNITS)
def test_a_quantity_in_another_unit_is_named_with_its_sizes(quantity, inverse):
    frames = fluid(4)
    factor = 1 / UNITS[quantity] if inverse else UNITS[quantity]
    ensemble = TeacherEnsemble([argon(), argon_in({quantity: factor})])
    with pytest.raises(
        InvalidInputError, match=r"argon \S+, odd \S+ eV.* in another unit"
    ) as caught:
        consensus_of(ensemble, frames, np.zeros(4, int), Mean(), None)
    named = [
        what for what in ("forces in", "energies in", "stresses in") if what in str(caught.value)
    ]
    assert named == [{"forces": "forces in", "energy": "energies in"}.get(quantity, "stresses in")]
    same_unit = TeacherEnsemble([argon(), argon_in({})])
    consensus_of(same_unit, frames, np.zeros(4, int), Mean(), None)


def test_few_frames_of_a_mixture_do_not_tell_how_energies_spread():
    frames = fluid(3)
    ensemble = TeacherEnsemble([argon(), argon_in({"energy": 23.06, "stress": 160.2})])
    consensus_of(ensemble, frames, np.zeros(3, int), Mean(), None)
    with pytest.raises(InvalidInputError, match=r"energies in .* And stresses in"):
        consensus_of(ensemble, fluid(4), np.zeros(4, int), Mean(), None)


def test_a_teacher_of_zero_forces_is_named():
    for others in ([], [argon()]):
        ensemble = TeacherEnsemble([*others, argon_in({"forces": 0.0}, "silent")])
        with pytest.raises(InvalidInputError, match="all forces of silent are zero"):
            consensus_of(ensemble, fluid(2), np.zeros(2, int), Mean(), None)


def test_a_teacher_that_comes_twice_is_refused(tmp_path):
    frames = fluid(4)
    twice = [argon(), argon_in({}, "b"), CalculatorTeacher(
        argon().calculator, "copy", properties=("energy", "forces", "stress"), fingerprint="argon"
    )]  # fmt: skip
    with pytest.raises(
        InvalidInputError, match="different teachers; 'copy' is the same as 'argon'"
    ):
        distil(twice, frames)
    save_force_field(build_force_field(options(), {18}), tmp_path / "m")
    path = str(tmp_path / "m")
    with pytest.raises(InvalidInputError, match="m, again' is the same as '.*m'. It would count"):
        distil(None, frames, teachers=[path, path])
    store = LabelStore(tmp_path / "store")
    store.label(argon(), Structures(frames))
    with pytest.raises(InvalidInputError, match="again' is the same as 'argon"):
        distil(None, frames, labels=[str(tmp_path / "store")] * 2)


def test_one_teacher_has_no_one_to_disagree_with():
    result = distil([argon()], fluid(4), epochs=1)
    assert result.teachers == ("argon",)
    assert "one teacher, argon: no disagreement to tell of" in result.summary()
    assert "disagree on" not in result.summary()


def test_an_element_that_a_teacher_does_not_know_is_named():
    """Before any training, and with the teacher's own list."""
    knows = force_field()
    frames = fluid(4)
    with pytest.raises((InvalidInputError, TeacherError), match=r"Ar"):
        distil([argon(), ForceFieldCalculator(knows, engine="torch")], frames)


def test_an_uncertain_label_counts_less():
    frames = fluid(4)
    batch = label_by_consensus(
        from_ase(frames),
        consensus_of(
            TeacherEnsemble([argon(), argon(0.014, "b")]), frames, np.zeros(4, int), Mean(), None
        ),
    )
    noise = noise_of(batch)
    assert noise["forces"] == pytest.approx(float(batch.forces_std.square().mean().sqrt()))
    terms = LossOptions(energy=1.0, forces=1.0, virial=1.0, charges=0.0, dipole=0.0,
                        offset="group")  # fmt: skip
    prediction = {
        "energy": torch.zeros(4, dtype=torch.float64),
        "forces": torch.zeros_like(batch.forces),
        "virial": torch.zeros(4, 3, 3, dtype=torch.float64),
    }
    _, parts = Loss(terms, noise)(prediction, batch)
    n, volume = batch.counts[0], batch.volume[0]
    worth = 1 / (1 + batch.forces_std.square().mean(1) / noise["forces"] ** 2)
    expected = (worth[:, None] * batch.forces**2).sum() / (3 * worth.sum())
    assert float(parts["forces"]) == pytest.approx(float(expected))
    spread = batch.stress_std.square().mean(1).sqrt() * volume / n
    worth = 1 / (1 + (spread / noise["virial"]) ** 2)
    squares = (batch.virial / n).square().sum((1, 2))
    assert float(parts["virial"]) == pytest.approx(float((worth * squares).sum() / worth.sum() / 9))
    worth = 1 / (1 + (batch.energy_std / n / noise["energy"]) ** 2)
    centred = (batch.energy - batch.energy.mean()) / n
    assert float(parts["energy"]) == pytest.approx(float((worth * centred**2).sum() / worth.sum()))


def test_relative_weights_measure_errors_by_the_variance_of_the_labels():
    frames = [*fluid(5, seed=1), *fluid(5, seed=2, numbers=(18,) * 10)]
    found = consensus_of(
        TeacherEnsemble([argon()]),
        frames,
        mixtures_of(from_ase(frames)),
        Mean(),
        None,
    )
    batch = label_by_consensus(from_ase(frames), found)
    batch = replace(batch, group=torch.from_numpy(mixtures_of(batch)))
    terms = LossOptions("relative", offset="group").scaled(batch)
    means = torch.zeros(10, 3, 3, dtype=torch.float64)
    for rows in (slice(0, 5), slice(5, 10)):
        means[rows] = batch.virial[rows].mean(0)
    constant = {
        "energy": torch.zeros(10, dtype=torch.float64),
        "forces": torch.zeros_like(batch.forces),
        "virial": means,
    }
    total, parts = Loss(terms)(constant, batch)
    given = LossOptions("relative").weights
    for name in ("energy", "forces", "virial"):  # a constant explains nothing
        assert terms.weights[name] * float(parts[name]) == pytest.approx(given[name])
    assert float(total) == pytest.approx(sum(given[n] for n in ("energy", "forces", "virial")))
    assert terms.weights["charges"] == 0.0
    assert LossOptions().scaled(batch) == LossOptions()


def test_batches_of_one_mixture():
    groups = np.array([0, 1, 0, 1, 0, 1, 1, 0, 0])
    plan = plan_batches(np.full(9, 5), 2, shuffle=(0, 1), groups=groups)
    assert sorted(np.concatenate(plan).tolist()) == list(range(9))
    assert all(len(set(groups[batch])) == 1 for batch in plan)
    assert [len(batch) for batch in plan].count(1) == 1
    other = plan_batches(np.full(9, 5), 2, shuffle=(0, 2), groups=groups)
    assert [b.tolist() for b in plan] != [b.tolist() for b in other]


def test_the_last_frames_of_each_mixture_are_held_out():
    mixtures = np.array([0, 1, 0, 1, 0, 2, 1, 0, 1])
    rest, held_out = hold_out_tails(mixtures, 0.3)
    assert held_out.tolist() == [4, 6, 7, 8]
    assert sorted([*rest, *held_out]) == list(range(9))
    # An energy is judged by another one of its mixture.
    for n, count in ((2, 1), (3, 1), (4, 2), (14, 2), (40, 4)):
        assert len(hold_out_tails(np.zeros(n, int), 0.1)[1]) == count


@pytest.mark.parametrize(("n_frames", "judged"), [(3, False), (4, True)])
def test_energies_that_cannot_be_judged_are_not_told_as_zero(n_frames, judged):
    result = distil([argon()], fluid(n_frames), epochs=1, validation_fraction=0.1)
    name = "validation_energy_meV_per_atom"
    assert (name in result.before) is judged
    assert ("validation energy" in result.summary()) is judged
    assert (result.history[0].get(name, 0.0) > 0.0) is judged


def test_a_frame_alone_of_its_mixture_does_not_make_energies_look_better():
    batch = replace(from_ase(fluid(3)), energy=torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    rest = dict.fromkeys(("forces", "virial", "charges", "dipole"), 0.0)
    loss = Loss(LossOptions(energy=1.0, **rest, offset="group", per_atom=False))
    nothing = {"energy": torch.zeros(3, dtype=torch.float64)}
    for groups, count in (([0, 0, 1], 2), ([0, 1, 2], 0)):
        grouped = replace(batch, group=torch.tensor(groups))
        assert float(loss.counts(grouped)["energy"]) == count
        _, parts = loss(nothing, grouped)
        assert float(parts["energy"]) == pytest.approx(1.5**2 if count else 0.0)


def test_an_ensemble_keeps_its_weights():
    frames = fluid(3)
    ensemble = TeacherEnsemble([argon(), argon(0.014, "b")], weights=[3.0, 1.0])
    assert as_ensemble(ensemble, frames[0]) is ensemble
    found = consensus_of(ensemble, frames, np.zeros(3, int), Mean(), None)
    expected = 1.1 * argon().predict(frames)["forces"]
    np.testing.assert_allclose(found.mean["forces"], expected, atol=1e-12)


def test_teachers_are_named_on_the_command_line(run, tmp_path):
    frames = fluid(6)
    write_frames(tmp_path / "liquid.h5", from_ase(frames))
    for number, member in enumerate(siblings()):
        save_force_field(member, tmp_path / f"m{number}")
    code, out, err = run(
        "md", "distill", "--train", tmp_path / "liquid.h5", "--teachers", tmp_path / "m0",
        "--teachers", tmp_path / "m1", "--parameters", "readout", "--epochs", "2",
        "--output", tmp_path / "out", "--threads", "1", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert f"The model lies in {tmp_path / 'out' / 'model'}" in out
    assert "teachers disagree on forces" in out
    assert (tmp_path / "out" / "report.html").exists()
    assert read_frames(tmp_path / "out" / "consensus.h5").forces_std is not None


def test_it_says_what_it_does(caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="scikd"):
        distil([argon()], fluid(4), output=str(tmp_path), epochs=2)
    text = caplog.text
    for part in ("labelling with 'argon'", "before: validation", "epoch 2/2"):
        assert part in text
    assert to_ase(select(read_frames(tmp_path / "consensus.h5"), [0]))
