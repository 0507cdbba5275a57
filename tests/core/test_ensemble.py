"""Teacher ensembles: consensus, streaming, calibration, pruning."""

import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import TimeSeriesSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier

from scikd import Consensus, TeacherEnsemble
from scikd.aggregation import Harmonised, InverseVariance, LogOpinionPool, Median
from scikd.exceptions import CorruptFileError, InvalidInputError, TeacherError
from scikd.harmonise import Harmoniser
from scikd.quantities import Quantity
from scikd.teachers import CallableTeacher

X, y = load_diabetes(return_X_y=True)
iris, species = load_iris(return_X_y=True)
QUIET = {"progress": False}


def classifiers(**options):
    """Three different classifiers."""
    return TeacherEnsemble(
        {
            "logistic": LogisticRegression(max_iter=1000),
            "bayes": GaussianNB(),
            "tree": DecisionTreeClassifier(max_depth=3, random_state=0),
        },
        **QUIET,
        **options,
    )


def test_an_ensemble_is_a_teacher():
    """So ensembles nest."""
    ensemble = TeacherEnsemble([LinearRegression(), KNeighborsRegressor()], **QUIET).fit(X, y)
    nested = TeacherEnsemble([ensemble, Ridge().fit(X, y)], **QUIET)
    assert nested.predict(X)["value"].shape == (len(X),)


def test_consensus_is_the_weighted_mean_of_the_members():
    """Mean, spread and members against NumPy."""
    models = [LinearRegression(), KNeighborsRegressor(), Ridge()]
    weights = np.array([1.0, 2.0, 3.0])
    ensemble = TeacherEnsemble(models, weights=weights, **QUIET).fit(X, y)
    consensus = ensemble.consensus(X, members=True)
    members = np.stack([model.fit(X, y).predict(X) for model in models])
    mean = np.average(members, axis=0, weights=weights)
    np.testing.assert_allclose(consensus.members["value"], members)
    np.testing.assert_allclose(consensus.mean["value"], mean)
    spread = np.sqrt(np.average((members - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(consensus.std["value"], spread)


@pytest.mark.parametrize("rule", ["auto", "log_opinion_pool", "vote"])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_change_nothing(rule, batch_size):
    """One row at a time gives what all at once gives."""
    whole = classifiers(aggregator=rule).fit(iris, species).consensus(iris, members=True)
    ensemble = classifiers(aggregator=rule, batch_size=batch_size).fit(iris, species)
    parts = ensemble.consensus(iris, members=True)
    np.testing.assert_allclose(parts.mean["proba"], whole.mean["proba"], atol=1e-9)
    np.testing.assert_allclose(parts.members["proba"], whole.members["proba"], atol=1e-9)
    for measure, values in whole.disagreement["proba"].items():
        np.testing.assert_allclose(parts.disagreement["proba"][measure], values, atol=1e-9)


def test_memory_does_not_grow_with_the_number_of_teachers():
    """Forty teachers need no more than four."""
    rows = np.zeros((200_000, 1))

    def peak(n_teachers):
        teachers = {f"t{i}": lambda X, i=i: np.full(len(X), float(i)) for i in range(n_teachers)}
        ensemble = TeacherEnsemble(teachers, **QUIET)
        ensemble.consensus(rows[:10])
        tracemalloc.start()
        ensemble.consensus(rows)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(40) < 1.2 * peak(4)


def test_several_quantities_keep_their_units():
    """Energy per sample and forces per atom go side by side."""
    quantities = (Quantity("energy", "eV", ()), Quantity("forces", "eV/Å", (3,), per="atom"))

    def calculator(scale):
        return CallableTeacher(
            lambda X: {"energy": scale * X[:, 0], "forces": np.full((2 * len(X), 3), scale)},
            f"calculator-{scale}",
            quantities=quantities,
        )

    ensemble = TeacherEnsemble([calculator(1.0), calculator(3.0)], **QUIET)
    consensus = ensemble.consensus(np.ones((4, 1)))
    assert consensus.units == {"energy": "eV", "forces": "eV/Å"}
    np.testing.assert_allclose(consensus.mean["energy"], 2.0)
    assert consensus.mean["forces"].shape == (8, 3)
    other = CallableTeacher(lambda X: X[:, 0], "h", quantities=(Quantity("energy", "Ha", ()),))
    with pytest.raises(InvalidInputError, match="'Ha'.*Convert one of them"):
        TeacherEnsemble([calculator(1.0), other]).consensus(np.ones((4, 1)))


def test_a_teacher_of_weight_zero_is_never_asked():
    """Nobody pays for a teacher without a say, whatever the rule."""

    def fail(X):
        message = "asked"
        raise AssertionError(message)

    teachers = {"a": lambda X: X[:, 0], "b": fail, "c": lambda X: X[:, 0] + 2}
    for rule in ("mean", "median", InverseVariance((1.0, 1.0, 1.0))):
        ensemble = TeacherEnsemble(teachers, weights=[1, 0, 1], aggregator=rule, **QUIET)
        np.testing.assert_allclose(ensemble.predict(np.zeros((3, 1)))["value"], 1.0)
    with pytest.raises(TeacherError, match="'b' raised AssertionError: asked"):
        ensemble.consensus(np.zeros((3, 1)), members=True)


def test_calibration_beats_the_plain_mean_when_one_teacher_is_poor():
    """Inverse variance, learnt out of fold."""
    rng = np.random.default_rng(0)
    teachers = {"good": Ridge(), "noise": lambda X: rng.normal(scale=500, size=len(X))}
    plain = TeacherEnsemble(teachers, **QUIET)
    oof = plain.cross_predict(X, y)
    rule = TeacherEnsemble(teachers, aggregator="inverse_variance", **QUIET).calibrate(oof, y)

    def error(ensemble):
        return np.mean((ensemble.combine(oof).mean["value"] - y) ** 2)

    assert error(rule) < error(plain) / 2


def test_combining_out_of_fold_rows_marks_what_is_not_covered():
    """A partial splitter gives a partial consensus."""
    ensemble = TeacherEnsemble([Ridge(), LinearRegression()], **QUIET)
    oof = ensemble.cross_predict(X, y, TimeSeriesSplit(3))
    consensus = ensemble.combine(oof)
    np.testing.assert_array_equal(consensus.covered, oof.covered)
    np.testing.assert_array_equal(np.isnan(consensus.mean["value"]), ~oof.covered)
    expected = oof.members[:, oof.covered].mean(axis=0)
    np.testing.assert_allclose(consensus.mean["value"][oof.covered], expected)


def test_harmonised_scores_of_different_scale():
    """A score in thousands does not drown one in units."""
    teachers = {"small": lambda X: X[:, 0], "large": lambda X: 1e4 * X[:, 1]}
    table = np.random.default_rng(0).normal(size=(300, 2))
    rule = Harmonised(Harmoniser("zscore"))
    ensemble = TeacherEnsemble(teachers, aggregator=rule, **QUIET)
    oof = ensemble.cross_predict(table, table[:, 0])
    fair = ensemble.calibrate(oof, table[:, 0]).predict(table)["value"]
    corr = np.corrcoef(np.column_stack([fair, table]).T)[0, 1:]
    assert abs(corr[0] - corr[1]) < 0.1


def test_pruning_drops_one_of_two_copies():
    """A near-duplicate goes, whatever the order and the scale of y."""
    for scale in (1.0, 1e6):
        for reverse in (False, True):
            teachers = {
                "ridge": Ridge(1e-3),
                "copy": Ridge(1.1e-3),
                "knn": KNeighborsRegressor(),
            }
            listed = dict(reversed(teachers.items())) if reverse else teachers
            ensemble = TeacherEnsemble(listed, weights=[1, 2, 3], **QUIET)
            oof = ensemble.cross_predict(X, scale * y)
            kept, dropped = ensemble.prune(oof, scale * y)
            assert set(kept.names) | set(dropped) == set(teachers)
            assert len(dropped) == 1
            assert dropped[0] in {"ridge", "copy"}
            assert sum(kept.weights) == pytest.approx(1.0)
    target, outcome = load_breast_cancer(return_X_y=True)
    twins = TeacherEnsemble({"a": GaussianNB(), "b": GaussianNB(var_smoothing=1.0001e-9)}, **QUIET)
    assert len(twins.prune(twins.cross_predict(target, outcome), outcome)[1]) == 1


def test_a_teacher_that_knows_fewer_classes_is_aligned():
    """Its missing class has probability zero."""
    fewer = GaussianNB().fit(iris[species < 2], species[species < 2])
    ensemble = TeacherEnsemble({"two": fewer, "three": GaussianNB().fit(iris, species)}, **QUIET)
    np.testing.assert_array_equal(ensemble.classes, [0, 1, 2])
    consensus = ensemble.consensus(iris, members=True)
    assert (consensus.members["proba"][0][:, 2] == 0).all()


def test_saving_and_loading_a_consensus(tmp_path):
    """All arrays come back; a cut-off file does not."""
    ensemble = classifiers(aggregator=LogOpinionPool()).fit(iris, species)
    consensus = ensemble.consensus(iris, members=True)
    path = consensus.save(tmp_path / "consensus")
    back = Consensus.load(path)
    np.testing.assert_array_equal(back.mean["proba"], consensus.mean["proba"])
    np.testing.assert_array_equal(back.members["proba"], consensus.members["proba"])
    assert set(back.disagreement["proba"]) == set(consensus.disagreement["proba"])
    assert back.names == consensus.names
    blob = next(path.glob("*.safetensors"))
    blob.write_bytes(blob.read_bytes()[:-10])
    with pytest.raises(CorruptFileError):
        Consensus.load(path)


@pytest.mark.parametrize(
    ("teachers", "options", "text"),
    [
        ([], {}, "at least one teacher"),
        ("abc", {}, "mapping of names"),
        ([Ridge()], {"weights": [-1.0]}, "non-negative"),
        ([Ridge()], {"weights": [0.0]}, "non-negative"),
        ([Ridge()], {"weights": [1.0, 1.0]}, "one weight per teacher"),
        ([Ridge()], {"batch_size": 0}, "batch_size"),
        ([Ridge()], {"aggregator": "mode"}, "'median'"),
        ([Ridge(), LogisticRegression()], {}, "a quantity in common"),
        ([("a", Ridge()), ("a", Ridge())], {}, r"\['a'\] came more than once"),
    ],
)
def test_unusable_ensembles_are_refused(teachers, options, text):
    """Each with a message that says what was expected."""
    with pytest.raises(InvalidInputError, match=text):
        TeacherEnsemble(teachers, **options)


def test_unnamed_estimators_of_one_class_are_numbered():
    """Names stay unique without the user's help."""
    assert TeacherEnsemble([Ridge(), Ridge(2.0), LinearRegression()]).names == (
        "Ridge-1",
        "Ridge-2",
        "LinearRegression",
    )


def test_asking_for_nothing_is_refused():
    """No rows, no consensus."""
    with pytest.raises(InvalidInputError, match="at least one sample"):
        TeacherEnsemble([Ridge().fit(X, y)]).consensus(X[:0])


def test_fingerprint_follows_members_weights_and_rule():
    """Whatever changes a prediction changes the fingerprint."""
    models = [Ridge().fit(X, y), LinearRegression().fit(X, y)]
    variants = [
        TeacherEnsemble(models),
        TeacherEnsemble(models, weights=[1, 2]),
        TeacherEnsemble(models, aggregator=Median()),
        TeacherEnsemble([models[0], LinearRegression().fit(X, -y)]),
    ]
    assert len({ensemble.fingerprint for ensemble in variants}) == 4
    assert TeacherEnsemble(models).fingerprint == variants[0].fingerprint
