"""Every concrete class of a contract goes through its public suite; a meta-test counts them."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import scikd
from scikd import objectives
from scikd.aggregation import (
    Aggregator,
    Harmonised,
    InverseVariance,
    LogOpinionPool,
    Mean,
    Median,
    Routed,
    SoftmaxMean,
    TrimmedMean,
    Vote,
)
from scikd.ensemble import TeacherEnsemble
from scikd.harmonise import Harmoniser
from scikd.labels import LabelStore
from scikd.objectives import Objective
from scikd.students import DistilledClassifier, DistilledRegressor
from scikd.teachers import CallableTeacher, EstimatorTeacher, StoredTeacher, Teacher
from scikd.testing import check_aggregator, check_objective, check_student, check_teacher
from tests.core.test_stacking_checks import CHECKED
from tests.core.test_stacking_pools import POOLS
from tests.core.test_stacking_stack import CHECKED as STACKS

X, y = load_diabetes(return_X_y=True)
iris, species = load_iris(return_X_y=True)
ROUTER = lambda X: np.column_stack([X[:, 0] % 2, X[:, 0] * 0 + 1, X[:, 0] + 1, X[:, 0]])  # noqa: E731
MEMBERS = np.random.default_rng(0).normal(size=(4, 50))

# Rules that know each teacher by its number, or change its scale, obey the other laws only.
AGGREGATORS = {
    Mean(): False,
    Median(): False,
    TrimmedMean(0.2): False,
    TrimmedMean(0.0): False,
    SoftmaxMean(): False,
    SoftmaxMean(temperature=3.0): False,
    LogOpinionPool(): False,
    LogOpinionPool(temperature=0.5): False,
    Vote(): False,
    InverseVariance((1.0, 2.0, 0.5, 4.0)): True,
    Routed(ROUTER): True,
}
HARMONISED = Harmonised(Harmoniser("zscore")).fit(MEMBERS, np.zeros(50))

RNG = np.random.default_rng(1)
VALUES, TARGETS = RNG.normal(size=(2, 12))
LOGITS, PROBA = RNG.normal(size=(12, 3)), RNG.dirichlet(np.ones(3), 12)
OBJECTIVES = [
    (objectives.SquaredError(), VALUES, TARGETS),
    (objectives.AbsoluteError(), VALUES, TARGETS),
    (objectives.Huber(0.7), VALUES, TARGETS),
    (objectives.BinaryCrossEntropy(), VALUES, PROBA[:, 0]),
    (objectives.SoftCrossEntropy(), LOGITS, PROBA),
    (objectives.SoftCrossEntropy(temperature=2.0), LOGITS, PROBA),
    (objectives.KullbackLeibler(), LOGITS, PROBA),
    (objectives.LogOddsError(), LOGITS, PROBA),
    (
        objectives.Total([(0.3, objectives.SquaredError()), (2.0, objectives.Huber())]),
        VALUES,
        TARGETS,
    ),
]
# A pair has no sample of its own, so the suite's law of sample weights does not apply to it; its
# gradient and closed form are tested beside it.
NOT_BY_SAMPLE = {objectives.PairwiseMargin}


@pytest.mark.parametrize(("rule", "special"), AGGREGATORS.items(), ids=map(repr, AGGREGATORS))
def test_aggregators(rule, special):
    """The laws of combination."""
    check_aggregator(rule, harmonised=special)


def test_harmonised_aggregator():
    """A rule fitted on four teachers."""
    check_aggregator(HARMONISED, harmonised=True)


@pytest.mark.parametrize(
    ("objective", "prediction", "target"), OBJECTIVES, ids=[repr(o[0])[:40] for o in OBJECTIVES]
)
def test_objectives(objective, prediction, target):
    """Value, gradient and weights belong together."""
    check_objective(objective, prediction, target)


@pytest.fixture
def teachers(tmp_path):
    """One of each kind, ready to predict, and whether it answers for any subset of the rows."""
    ridge = EstimatorTeacher(LinearRegression().fit(X, y), "ols")
    classes = EstimatorTeacher(LogisticRegression(max_iter=500).fit(iris, species))
    labels = LabelStore(tmp_path).label(ridge, X, progress=False)
    return [
        (ridge, X, True),
        (classes, iris, True),
        (CallableTeacher(lambda X: X[:, 0], "column", fingerprint="1"), X, True),
        (StoredTeacher(labels), X, False),
        (TeacherEnsemble([ridge, Ridge().fit(X, y)], progress=False), X, True),
    ]


def test_teachers(teachers):
    """The teacher's contract."""
    for teacher, inputs, rowwise in teachers:
        check_teacher(teacher, inputs, rowwise=rowwise)


STUDENTS = [
    (
        DistilledRegressor(
            DecisionTreeRegressor(max_depth=3, random_state=0),
            Ridge(0.1),
            progress=False,
            random_state=0,
        ),
        X,
        y,
    ),
    (
        DistilledClassifier(
            DecisionTreeClassifier(max_depth=3, random_state=0),
            LogisticRegression(C=0.01, max_iter=5000, tol=1e-9),
            progress=False,
            random_state=0,
        ),
        iris,
        species,
    ),
]


@pytest.mark.filterwarnings("ignore::scikd.exceptions.DistillationWarning")
@pytest.mark.parametrize(("student", "inputs", "target"), STUDENTS, ids=["numbers", "classes"])
def test_students(student, inputs, target):
    """The student's contract."""
    check_student(student, inputs, target)


def concrete(base):
    """Return every concrete public subclass that the core defines."""
    domains = ("scikd.md", "scikd.graphs", "scikd.finance")  # other tests may have imported them
    for module in pkgutil.walk_packages(scikd.__path__, "scikd."):
        if not module.name.startswith(domains):
            importlib.import_module(module.name)
    found, queue = set(), [base]
    while queue:
        for kind in queue.pop().__subclasses__():
            queue.append(kind)
            ours = kind.__module__.startswith("scikd.") and not kind.__module__.startswith(domains)
            if ours and not kind.__name__.startswith("_") and not inspect.isabstract(kind):
                found.add(kind)
    return found


def test_every_concrete_class_is_in_a_suite(teachers):
    """Whoever adds a class adds it above, or this fails."""
    assert concrete(Aggregator) == {type(rule) for rule in AGGREGATORS} | {Harmonised}
    assert concrete(Objective) == {type(entry[0]) for entry in OBJECTIVES} | NOT_BY_SAMPLE
    assert concrete(Teacher) == {type(entry[0]) for entry in teachers}
    estimators = {type(entry[0]) for entry in STUDENTS}
    stacking = {type(one) for one in [*CHECKED, *POOLS, *STACKS]}  # by scikit-learn's own suite
    assert concrete(BaseEstimator) == estimators | stacking


class TestSuitesCanFail:
    """A suite that passes everything proves nothing."""

    def test_a_rule_that_depends_on_the_order(self):
        """The first teacher always wins."""

        class First(Mean):
            def _begin(self, weights, X, groups, missing):
                return super()._begin(np.eye(len(weights))[0], X, groups, missing)

        with pytest.raises(AssertionError):
            check_aggregator(First())

    def test_a_gradient_of_the_wrong_sign(self):
        """Caught by differences."""

        class Wrong(objectives.SquaredError):
            def _slope(self, p, t):
                return -super()._slope(p, t)

        with pytest.raises(AssertionError):
            check_objective(Wrong(), VALUES, TARGETS)

    def test_a_teacher_that_answers_by_chance(self):
        """Not repeatable."""
        rng = np.random.default_rng(0)
        chance = CallableTeacher(lambda X: rng.normal(size=len(X)), "chance", fingerprint="1")
        with pytest.raises(AssertionError, match="repeatable"):
            check_teacher(chance, X)

    def test_a_student_that_is_not_repeatable(self):
        """A new seed at every fit."""

        class Restless(DecisionTreeRegressor):
            def fit(self, X, y, sample_weight=None):
                self.random_state = np.random.SeedSequence().generate_state(1)[0] >> 1
                self.max_features = 1
                return super().fit(X, y, sample_weight=sample_weight)

        student = DistilledRegressor(Ridge(), Restless(max_depth=3), progress=False, random_state=0)
        with pytest.raises(AssertionError, match="repeatable"):
            check_student(student, X, y)
