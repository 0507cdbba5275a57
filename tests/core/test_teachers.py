"""Teachers: adapters, and errors that name the culprit."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from scikd.exceptions import InvalidInputError, MismatchedLabelsError, TeacherError
from scikd.labels import LabelStore
from scikd.quantities import PROBA, VALUE, Quantity
from scikd.teachers import (
    CallableTeacher,
    EstimatorTeacher,
    StoredTeacher,
    as_teacher,
    count_samples,
    fit_weighted,
)

X, y = load_diabetes(return_X_y=True)


class Failing(RegressorMixin, BaseEstimator):
    """Fails in the way it is told to."""

    def __init__(self, how="raise"):
        self.how = how

    def fit(self, X, y):
        if self.how == "fit":
            message = "no convergence"
            raise RuntimeError(message)
        self.fitted_ = True
        return self

    def predict(self, X):
        n = len(X)
        wrong = {
            "length": np.zeros(n - 1),
            "nan": np.full(n, np.nan),
            "inf": np.r_[np.inf, np.zeros(n - 1)],
            "text": np.array(["a"] * n),
            "scalar": np.float64(3.0),
        }
        if self.how == "raise":
            message = "out of memory"
            raise MemoryError(message)
        return wrong[self.how]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("raise", "'bad' raised MemoryError: out of memory"),
        ("length", "'bad' returned something unusable: 'value' has 441 rows for 442 samples"),
        ("nan", "'value' is NaN or infinite in 442 of 442 rows"),
        ("inf", "'value' is NaN or infinite in 1 of 442 rows"),
        ("text", "expected floating-point numbers"),
        ("scalar", "is a single number"),
    ],
)
def test_a_teacher_that_misbehaves_is_named(how, text):
    """The message names the teacher and what it did."""
    teacher = as_teacher(Failing(how).fit(X, y), "bad")
    with pytest.raises(TeacherError, match=text):
        teacher.predict(X)


def test_a_failure_to_train_is_named_and_keeps_its_cause():
    """A teacher that fails in fit is named; the cause is chained."""
    with pytest.raises(
        TeacherError, match="'bad' failed to train: RuntimeError: no conv"
    ) as caught:
        as_teacher(Failing("fit"), "bad").fit(X, y)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_every_problem_is_listed_at_once():
    """Several broken quantities come in one message."""
    quantities = (Quantity("energy", "eV", ()), Quantity("forces", "eV/Å", (3,)))
    teacher = CallableTeacher(
        lambda X: {"forces": np.zeros((len(X), 2))}, "f", quantities=quantities
    )
    with pytest.raises(TeacherError, match=r"'energy' is missing.*'forces' has entries of shape"):
        teacher.predict(X)


def test_training_leaves_the_teacher_as_it_is():
    """Fit returns a new teacher; the estimator that was given stays unfitted."""
    model = LinearRegression()
    teacher = as_teacher(model)
    trained = teacher.fit(X, y)
    assert not hasattr(model, "coef_")
    np.testing.assert_allclose(trained.predict(X)["value"], model.fit(X, y).predict(X))


def test_a_frozen_estimator_is_never_trained_again():
    """FrozenEstimator is taken as it is."""
    frozen = as_teacher(FrozenEstimator(LinearRegression().fit(X, y)))
    assert not frozen.trainable
    assert frozen.fit(X[:10], y[:10]) is frozen


def test_quantities_follow_the_kind_of_estimator():
    """Regressors give values, classifiers probabilities, or scores if they have none."""
    assert as_teacher(LinearRegression()).quantities == (VALUE,)
    assert as_teacher(LogisticRegression()).quantities == (PROBA,)
    assert as_teacher(LinearSVC()).quantities[0].name == "score"


@pytest.mark.parametrize("bad", [3, "ridge", LinearRegression, None])
def test_what_cannot_teach_is_refused(bad):
    """Numbers, names and classes are no teachers."""
    with pytest.raises(InvalidInputError, match="Expected"):
        as_teacher(bad)


def test_stored_labels_teach_the_inputs_they_belong_to(tmp_path):
    """Stored labels come back bit for bit, and are refused for other inputs."""
    teacher = EstimatorTeacher(LinearRegression().fit(X, y), "ols")
    stored = StoredTeacher(LabelStore(tmp_path).label(teacher, X, progress=False))
    np.testing.assert_array_equal(stored.predict(X)["value"], teacher.predict(X)["value"])
    with pytest.raises(MismatchedLabelsError, match="'ols' has stored labels for the inputs"):
        stored.predict(X[:5])


def test_a_function_without_a_version_cannot_be_stored(tmp_path):
    """A plain function says what is missing."""
    with pytest.raises(InvalidInputError, match="Pass fingerprint="):
        LabelStore(tmp_path).label(CallableTeacher(lambda X: X[:, 0], "f"), X, progress=False)


def test_weights_reach_the_last_step_of_a_pipeline():
    """A pipeline's last step is weighted; a learner that cannot be weighted says so."""
    weight = np.arange(len(X), dtype=float)
    pipeline = fit_weighted(make_pipeline(StandardScaler(), LinearRegression()), X, y, weight)
    direct = LinearRegression().fit(X, y, weight)
    np.testing.assert_allclose(pipeline.predict(X), direct.predict(X))
    with pytest.raises(InvalidInputError, match="KNeighborsRegressor cannot take sample_weight"):
        fit_weighted(KNeighborsRegressor(), X, y, weight)


def test_counting_needs_something_to_count():
    """A number has no samples."""
    assert count_samples([1, 2, 3]) == 3
    with pytest.raises(InvalidInputError, match="got int"):
        count_samples(3)
