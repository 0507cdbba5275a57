"""scikit-learn's own checks, on every estimator of `scikd.stacking`."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from scikd.stacking.features import MetaFeatures
from scikd.stacking.redundancy import RedundancyFilter


@parametrize_with_checks(
    [
        MetaFeatures(),
        RedundancyFilter(),
        RedundancyFilter(rule="published", variance=0.0),
    ]
)
def test_scikit_learn_conformance(estimator, check):
    """All of scikit-learn's own checks."""
    check(estimator)
