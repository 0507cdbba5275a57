"""Distilling a stack: labels of training rows come from stacks that have not seen them."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from scikd import DistilledRegressor, LabelStore
from scikd.fingerprints import fingerprint_trained
from scikd.quantities import VALUE
from scikd.stacking import MeanCombiner, RegularizedStackingRegressor, ShrunkRidge

X, y = load_diabetes(return_X_y=True)
QUIET = {"progress": False, "random_state": 0}
TREE = DecisionTreeRegressor(max_depth=4, random_state=0)
MEMORY = [("nearest", KNeighborsRegressor(1)), ("tree", DecisionTreeRegressor(random_state=0))]

pytestmark = pytest.mark.filterwarnings("ignore::scikd.exceptions.DistillationWarning")


def test_labels_are_those_of_stacks_without_the_fold():
    """The whole stack, folds inside and all, is fitted again for every fold."""
    models = [("ridge", Ridge(0.1)), ("tree", DecisionTreeRegressor(max_depth=3, random_state=0))]
    stack = RegularizedStackingRegressor(models, ShrunkRidge(), cv=3, **QUIET)
    distilled = DistilledRegressor(stack, TREE, cv=3, teacher_weight=1.0, **QUIET).fit(X, y)
    for train, test in distilled.oof_.folds:
        expected = clone(stack).fit(X[train], y[train]).predict(X[test])
        np.testing.assert_allclose(distilled.labels_[test, 0], expected)


def test_models_that_learn_noise_by_heart_leak_nothing():
    """The stack refitted to all rows knows every target; its labels know none."""
    random = np.random.default_rng(0)
    inputs, noise = random.normal(size=(300, 4)), random.normal(size=300)
    stack = RegularizedStackingRegressor(MEMORY, MeanCombiner(), cv=3, **QUIET)
    fitted = clone(stack).fit(inputs, noise)
    np.testing.assert_allclose(fitted.predict(inputs), noise)
    distilled = DistilledRegressor(stack, TREE, cv=3, teacher_weight=1.0, **QUIET)
    for labels in (distilled.fit(inputs, noise).labels_[:, 0], fitted.predict_out_of_fold()):
        assert abs(np.corrcoef(labels, noise)[0, 1]) < 3 / np.sqrt(300)


def test_out_of_fold_predictions_of_a_fitted_stack_can_be_stored_labels(tmp_path):
    """The cheap way: nothing is trained but the student."""
    stack = RegularizedStackingRegressor([("ridge", Ridge(0.1))], ShrunkRidge(), **QUIET).fit(X, y)
    stored = LabelStore(tmp_path).write(
        name="stack",
        fingerprint=fingerprint_trained(stack, X, y),
        inputs=X,
        quantities=(VALUE,),
        arrays={"value": stack.predict_out_of_fold()},
    )
    distilled = DistilledRegressor(stored, TREE, teacher_weight=1.0, **QUIET).fit(X, y)
    np.testing.assert_array_equal(distilled.labels_[:, 0], stack.predict_out_of_fold())
    expected = clone(TREE).fit(X, stack.predict_out_of_fold())
    np.testing.assert_allclose(distilled.predict(X), expected.predict(X))
