"""scikit-learn's own checks of every estimator of stacking."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd.stacking import (
    BestSingle,
    ElasticNetCombiner,
    GreedySelection,
    InverseErrorCombiner,
    LeastSquares,
    MeanCombiner,
    MetaClassifier,
    MetaFeatures,
    MetaRegressor,
    NonNegativeCombiner,
    PublishedStack,
    RedundancyFilter,
    ShrunkRidge,
    SimplexCombiner,
)

COMBINERS = [
    MeanCombiner(),
    BestSingle(),
    InverseErrorCombiner(),
    LeastSquares(),
    NonNegativeCombiner(),
    SimplexCombiner(),
    ShrunkRidge(),
    ShrunkRidge(cv="fold", random_state=0),
    GreedySelection(n_steps=20),
    GreedySelection(n_steps=20, n_bags=3, random_state=0),
    ElasticNetCombiner(random_state=0),
]


TRANSFORMERS = [
    MetaFeatures(),
    RedundancyFilter(),
    RedundancyFilter(rule="published", variance=0.0),
]

RECIPES = [PublishedStack(n_folds=2, inner_folds=2)]


QUICK = {"n_resamples": 20}
META = [
    MetaRegressor(**QUICK),
    MetaRegressor(
        "ridge", features=["std", "median"], evaluate="apparent", detector=False, **QUICK
    ),
    MetaClassifier(inputs="logit", evaluate=None, detector=False),
]


# The checks' data were made for other purposes: a combiner may well overfit there.
CHECKED = [*COMBINERS, *TRANSFORMERS, *RECIPES, *META]


@pytest.mark.filterwarnings("ignore::scikd.exceptions.StackingWarning")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_conformance(estimator, check):
    """All of scikit-learn's own checks."""
    check(estimator)
