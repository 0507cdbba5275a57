"""Stacking that starts from a cube of out-of-fold class probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError
from scikd.stacking._cubes import Inputs, as_cube, check_classes, class_problem, tag_cubes
from scikd.stacking._inputs import refuse_bare
from scikd.stacking._meta import BaseMeta, redundancy_of
from scikd.stacking._pool import ClassPool
from scikd.stacking._pooled import ClassCandidates, PooledClasses, standard_pools
from scikd.stacking.diagnostics import Conditioning

__all__ = ["MetaClassifier"]


class MetaClassifier(ClassifierMixin, BaseMeta):
    """Combine the class probabilities of many models into one, and say what that is worth.

    As `MetaRegressor`, by log-loss. The default, ``combiner="log"``, is `LogPool`, which is sharp
    and calibrated; where it has too few rows to learn from, the mean takes over.

    Parameters
    ----------
    combiner : str or pool, default="log"
        ``"mean"``, ``"best_single"``, ``"linear"``, ``"greedy"``, ``"log"``, the simplest first;
        ``"auto"``, the simplest within one standard error of the best on held-out folds; or a pool
        of your own, as `LogPool`.
    redundancy : {"residual"}, RedundancyFilter or None, default="residual"
        Which models are dropped beforehand.
    inputs : {"proba", "logit"}, default="proba"
        What the predictions are: probabilities, or log-odds whose softmax they are.
    evaluate : {"outer", "apparent"} or None, default="outer"
        What `score_` is: the loss on rows that were held out from all stages, or that on the rows
        that were fitted, which flatters. ``"outer"`` also fills `comparison_`.
    cv : int, splitter, iterable of (train, test) or None, default=None
        The folds that are held out; None takes those given to `fit`, or deals out five. More than
        five given ones are merged into five.
    detector : bool, default=True
        Whether to fall back to the plain mean of the models that are not redundant, and to warn, if
        the pool does worse than that by more than one standard error: on held-out folds; or on a
        ninth of the groups that is held out of everything, unless the folds show as clear a gain.
        `score_` is that of what is used, and does not know that it was chosen.
    n_resamples : int, default=1000
        Bootstrap resamples of intervals.
    random_state : int, default=0
        Seed of folds, ties and resamples.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the last axis of the predictions.
    names_ : tuple of str
        The models.
    weights_ : ndarray of shape (n_models,)
        Their weights, or exponents in a log pool; 0 for those that were dropped.
    required_models_ : tuple of str
        The models that `predict_proba` needs.
    combiner_ : ClassPool
        The fitted pool, of the models that stay; sorted by error where a filter chose them.
    redundancy_ : RedundancyFilter or None
        The fitted filter.
    comparison_ : Comparison or None
        The loss of every combiner on held-out rows; None unless ``evaluate="outer"``, and where
        nothing can be held out.
    score_ : Score or None
        Value, ends of the 95 % interval, and kind, of the log-loss in nats.
    overfit_ : HeldOutCheck or None
        What the detector saw; None if it had nothing to check.
    diagnostics_ : dict of str to Conditioning
        ``"before"`` and ``"after"`` redundant models are dropped.
    n_features_in_ : int
        Number of models.
    feature_names_in_ : ndarray of shape (n_models,)
        Their names, if they have any.

    Warns
    -----
    StackingWarning
        If the detector finds the combiner to overfit.

    See Also
    --------
    MetaRegressor : The same for numbers, with the same warning about what is out of fold.

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> y = random.integers(2, size=500)
    >>> logits = {name: 2 * y - 1 + random.normal(scale=2, size=500) for name in "abc"}
    >>> P = {name: np.stack([-one, one], axis=1) for name, one in logits.items()}
    >>> model = MetaClassifier(inputs="logit").fit(P, y)
    >>> model.comparison_.difference("log", "best_single").value < 0
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = BaseMeta._parameter_constraints | {
        "combiner": [str, ClassPool],
        "inputs": [StrOptions({"proba", "logit"})],
    }
    _loss_name = "log-loss"

    classes_: np.ndarray
    weights_: np.ndarray

    def __init__(
        self,
        combiner: Any = "log",
        *,
        redundancy: Any = "residual",
        inputs: Inputs = "proba",
        evaluate: str | None = "outer",
        cv: Any = None,
        detector: bool = True,
        n_resamples: int = 1000,
        random_state: int = 0,
    ) -> None:
        self.combiner = combiner
        self.redundancy = redundancy
        self.inputs = inputs
        self.evaluate = evaluate
        self.cv = cv
        self.detector = detector
        self.n_resamples = n_resamples
        self.random_state = random_state

    def fit(
        self,
        P: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        fold: Any = None,
        row_id: Any = None,
    ) -> Self:
        """Learn to pool, and what that is worth.

        Parameters
        ----------
        P : array-like, frame, mapping or OutOfFold
            Out-of-fold probabilities of shape (n_samples, n_models, n_classes), NaN where a model
            has none; a mapping from the name of each model to an array or frame of shape
            (n_samples, n_classes); or, for two classes, a matrix or frame of shape (n_samples,
            n_models) with those of the second.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0; a weight of two is the same as the row twice.
        groups : array-like of shape (n_samples,) or None, default=None
            Rows of one group are held out together, and drawn together.
        fold : array-like of shape (n_samples,) or None, default=None
            The fold in which the models did not see the row.
        row_id : array-like of shape (n_samples,) or None, default=None
            Rows that recur (repeated cross-validation) share it, and are one group.

        Returns
        -------
        MetaClassifier
            Itself.

        Raises
        ------
        InvalidInputError
            Naming all that does not fit.
        """
        self._validate_params()
        require_target(self, y)
        predictions = self._taken(P, reset=True)
        options = {"inputs": self.inputs, "groups": groups, "fold": fold, "row_id": row_id}
        problem = class_problem(self, predictions, y, sample_weight, **options)
        self.classes_ = np.asarray(problem.P.classes)
        self.names_ = problem.P.names
        model = self._learn(problem, self._candidates())[0]
        self._pooled: PooledClasses = model
        self.combiner_, self.redundancy_, self.weights_ = (
            model.pool,
            model.redundancy,
            model.weights,
        )
        self.required_models_ = tuple(np.asarray(self.names_, dtype=object)[model.needed])
        self.diagnostics_ = {"before": Conditioning.of(problem.P, problem.weight)}
        self.diagnostics_["after"] = self.diagnostics_["before"]
        if self.redundancy_ is not None and not self.redundancy_.kept_.all():
            kept = problem.P.select(np.flatnonzero(self.redundancy_.kept_))
            self.diagnostics_["after"] = Conditioning.of(kept, problem.weight)
        return self

    def predict_proba(self, P: Any) -> np.ndarray:
        """Pool predictions.

        Parameters
        ----------
        P : as in `fit`
            Predictions of the models. Where they have names, their order does not matter and the
            `required_models_` are enough. A missing prediction of one of these counts as the mean
            of the others.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.

        Raises
        ------
        InvalidInputError
            If a required model is not there, or a row has no prediction of any.
        """
        check_is_fitted(self, "required_models_")
        cube = as_cube(self._taken(P, reset=False), self.inputs)
        check_classes(cube, self.classes_)
        spare = ~self._required
        if spare.any():
            values = cube.values.copy()
            values[:, spare] = np.nan
            cube = replace(cube, values=values)
        proba = self._pooled.predict_proba(cube)
        refuse_bare(proba, "required model")
        return proba

    def predict(self, P: Any) -> np.ndarray:
        """Return the most probable label of every row, shape (n_samples,)."""
        proba = self.predict_proba(P)
        labels: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return labels

    def _candidates(self) -> ClassCandidates:
        pools = standard_pools(self.random_state)
        if isinstance(self.combiner, ClassPool):
            pools[self._default()] = self.combiner
        candidates = ClassCandidates(pools, redundancy_of(self.redundancy), self.random_state)
        if self._default() not in (*candidates.names, "auto"):
            known = ", ".join(map(repr, (*candidates.names, "auto")))
            message = f"Expected combiner to be {known} or a pool; got {self.combiner!r}."
            raise InvalidInputError(message)
        return candidates

    def _default(self) -> str:
        return self.combiner if isinstance(self.combiner, str) else type(self.combiner).__name__

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tag_cubes(tags)
        return tags
