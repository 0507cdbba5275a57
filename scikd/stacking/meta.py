"""Stacking that starts from a matrix of out-of-fold predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from scikd._table_inputs import require_target
from scikd.exceptions import InvalidInputError, StackingWarning
from scikd.stacking._feature_columns import FeatureColumns
from scikd.stacking._inputs import refuse_bare
from scikd.stacking._linear import Combination, LinearCandidates, standard_combiners
from scikd.stacking._meta import BaseMeta, redundancy_of
from scikd.stacking._problem import Problem, check_problem
from scikd.stacking.combiners import LinearCombiner
from scikd.stacking.features import MetaFeatures
from scikd.stacking.intervals import bootstrap_weights
from scikd.stacking.kernels import combine_rows

__all__ = ["MetaRegressor"]

_MUCH = 0.5  # of a model's predictions: even a poor one predicts most rows within limits


class MetaRegressor(RegressorMixin, BaseMeta):
    r"""Combine the predictions of many regressors into one, and say honestly what it is worth.

    Redundant models are dropped, the rest is combined linearly, and everything is done again
    without each fold for the score. All rows are read once to sum their moments; combiners, folds
    and candidates work on these.

    The default, ``combiner="ridge"``, is `ShrunkRidge`: it shrinks to the plain mean by as much as
    makes the targets likeliest, which needs no folds. A model that predicts nonsense for single
    rows, as unbounded ones do beyond what they were trained on, is cut to what y can be, or these
    rows would decide about its weight.

    Parameters
    ----------
    combiner : str or LinearCombiner, default="ridge"
        ``"mean"``, ``"inverse_error"``, ``"best_single"``, ``"simplex"``, ``"greedy"``,
        ``"non_negative"``, ``"ridge"`` (shrunk to the mean), ``"elastic_net"``,
        ``"least_squares"``, the simplest first; ``"blend"``, their average with the weights that
        are best for what they predict for folds they were not fitted to; ``"auto"``, the simplest
        within one standard error of the best on held-out folds; or a combiner of your own.
    redundancy : {"residual", "published"}, RedundancyFilter or None, default="residual"
        Which models are dropped beforehand.
    features : None, "auto", "published", list of str or MetaFeatures, default=None
        Statistics of each row to use beside the predictions; they need all models.
    limits : "auto", array-like of two numbers or None, default="auto"
        What predictions are cut to, in the unit of y. "auto" is the range of y, widened on both
        sides by half of it: that of all rows that are fitted, so the one thing that an outer score
        does not hold out. Of two numbers one may be infinite. None leaves predictions as they are.
    recipe : None or "published", default=None
        ``"published"`` is `PublishedStack`, and ignores `combiner`, `redundancy`, `features` and
        `limits`.
    evaluate : {"outer", "apparent"} or None, default="outer"
        What `score_` is: the loss on rows that were held out from all stages, or that on the rows
        that were fitted, which flatters. ``"outer"`` also fills `comparison_`.
    cv : int, splitter, iterable of (train, test) or None, default=None
        The folds that are held out; None takes those given to `fit`, or deals out five. More than
        five of those are merged into five. An int is taken as it is, and the time grows with its
        square, since combiners that use folds are fitted without every two of them.
    detector : bool, default=True
        Whether to fall back to the plain mean of the models that are not redundant, and to warn, if
        the combiner does worse than that by more than one standard error: on held-out folds; or on
        a ninth of the groups that is held out of everything, unless the folds show as clear a gain.
        A blend also gives way, without warning, if it gains no more than one standard error on the
        folds. `score_` is that of what is used, and does not know that it was chosen.
    n_resamples : int, default=1000
        Bootstrap resamples of intervals.
    random_state : int, default=0
        Seed of folds, bags and resamples.

    Attributes
    ----------
    names_ : tuple of str
        The models.
    weights_ : ndarray of shape (n_models,)
        Their weights; 0 for those that were dropped.
    intercept_ : float
        In the unit of y.
    feature_weights_ : ndarray of shape (n_meta_features,)
        Weights of the meta-features.
    cut_ : ndarray of shape (n_models,)
        Share of every model's predictions that was beyond the limits in `fit`.
    limits_ : tuple of float or None
        What predictions are cut to, in the unit of y.
    required_models_ : tuple of str
        The models that `predict` needs.
    combiner_ : LinearCombiner, PublishedStack or None
        The fitted combiner; None for a blend.
    shares_ : dict of str to float
        What the blend is made of.
    redundancy_ : RedundancyFilter or None
        The fitted filter.
    features_ : MetaFeatures or None
        The fitted meta-features.
    comparison_ : Comparison or None
        The loss of every combiner on held-out rows; None unless ``evaluate="outer"``, and where
        nothing can be held out.
    score_ : Score or None
        Value, ends of the 95 % interval, and kind, of the RMSE in the unit of y.
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
        If the detector finds the combiner to overfit; or if limits cut more than half of what a
        model predicts, which is then rather in another unit than y.

    See Also
    --------
    MetaClassifier : The same for class probabilities.

    Notes
    -----
    .. warning:: Predictions must be out of fold. Those of rows that a model was trained on look
       better than they are, and nothing can be made of them that holds elsewhere. Even so, models
       that predict one fold have seen the targets of all others, which a meta-model learns from:
       only refitting the models without each outer fold leaves no trace of that.

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> y = random.normal(size=500)
    >>> P = {name: y + random.normal(scale=s, size=500) for name, s in zip("abc", (1, 1, 3))}
    >>> model = MetaRegressor().fit(P, y)
    >>> model.weights_.round(1)
    array([0.4, 0.3, 0. ])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = BaseMeta._parameter_constraints | {
        "combiner": [str, LinearCombiner],
        "features": [str, list, tuple, MetaFeatures, None],
        "limits": [StrOptions({"auto"}), "array-like", None],
        "recipe": [StrOptions({"published"}), None],
    }
    _loss_name = "RMSE"

    weights_: np.ndarray
    intercept_: float
    limits_: tuple[float, float] | None
    cut_: np.ndarray

    def __init__(
        self,
        combiner: Any = "ridge",
        *,
        redundancy: Any = "residual",
        features: Any = None,
        limits: Any = "auto",
        recipe: str | None = None,
        evaluate: str | None = "outer",
        cv: Any = None,
        detector: bool = True,
        n_resamples: int = 1000,
        random_state: int = 0,
    ) -> None:
        self.combiner = combiner
        self.redundancy = redundancy
        self.features = features
        self.limits = limits
        self.recipe = recipe
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
        """Find the weights of the models, and what the combination is worth.

        Parameters
        ----------
        P : array-like, frame, mapping or OutOfFold, of shape (n_samples, n_models)
            Out-of-fold predictions in the unit of y, NaN where a model has none: these count as
            the mean of the models that have one in that row. float32 is not copied to float64.
        y : array-like of shape (n_samples,)
            Targets.
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
        MetaRegressor
            Itself.

        Raises
        ------
        InvalidInputError
            Naming all that does not fit.
        """
        problem, candidates, featured = self._prepared(P, y, sample_weight, groups, fold, row_id)
        model, level = self._learn(problem, candidates)
        n_models = self.n_features_in_
        self.names_ = problem.P.names[:n_models]
        self.combiner_, self.features_, self.feature_weights_ = model, None, np.zeros(0)
        if isinstance(model, Combination):
            self.combiner_, self.redundancy_ = model.combiner, model.redundancy
            self.shares_, self.weights_ = model.shares, model.weights
            self.intercept_ = model.intercept
            if featured is not None:
                self.features_ = featured.features
                self.weights_, self.feature_weights_, shift = featured.collapsed(
                    model.weights, n_models
                )
                self.intercept_ += shift
        else:  # the published recipe
            self.redundancy_, self.features_ = model.filter_, model.features_
            self.shares_ = dict(zip(model.members_, model.weights_.tolist(), strict=True))
            self.weights_ = np.zeros(n_models)
            n_kept = np.count_nonzero(model.filter_.kept_)
            self.weights_[model.filter_.kept_] = model.coef_[:n_kept]
            self.feature_weights_, self.intercept_ = model.coef_[n_kept:], model.intercept_
        needed = self.weights_ != 0
        if self.feature_weights_.any():
            needed[:] = True
        self.required_models_ = tuple(np.asarray(self.names_, dtype=object)[needed])
        self._condition(level.gram.take(np.arange(n_models)))
        return self

    def predict(self, P: Any) -> np.ndarray:
        """Combine predictions.

        Parameters
        ----------
        P : array-like, frame, mapping or OutOfFold, of shape (n_samples, n_models)
            Predictions of the models. Where they have names, their order does not matter and the
            `required_models_` are enough. A missing prediction of one of these counts as the mean
            of the others.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the unit of y.

        Raises
        ------
        InvalidInputError
            If a required model is not there, or a row has no prediction of any.
        """
        check_is_fitted(self, "required_models_")
        predictions = self._taken(P, reset=False)
        if not isinstance(self.combiner_, LinearCombiner | None):
            published: np.ndarray = self.combiner_.predict(predictions)
            return published
        predictions = predictions.clipped(self.limits_)
        needed = self._required
        weights = self.weights_ if needed.all() else self.weights_[needed]
        result = np.empty(predictions.n_samples)
        for rows, block in predictions.raw_blocks():
            part = block if needed.all() else np.ascontiguousarray(block[:, needed])
            combine_rows(part, weights, self.intercept_, result[rows])
        refuse_bare(result, "required model")
        if self.features_ is not None and self.feature_weights_.any():
            result += self.features_.transform(predictions.values) @ self.feature_weights_
        return result

    def weight_intervals(
        self,
        P: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        fold: Any = None,
        row_id: Any = None,
        n_resamples: int = 200,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how the weights vary with the rows: ends of 95 % bootstrap intervals.

        Groups of rows are drawn anew, and the filter and the combiner fitted to them; more than a
        thousand groups are dealt out to a thousand bins first. Nothing of this estimator changes.

        Parameters
        ----------
        P, y, sample_weight, groups, fold, row_id
            As in `fit`.
        n_resamples : int, default=200
            How often.

        Returns
        -------
        low, high : ndarray of shape (n_models,)
            Quantiles of 2.5 % and 97.5 % of every weight; NaN with fewer than two groups.
        """
        problem, candidates, featured = type(self)(**self.get_params(deep=False))._prepared(
            P, y, sample_weight, groups, fold, row_id
        )
        if self.recipe is not None:
            message = "Expected recipe=None for intervals of weights; got 'published'."
            raise InvalidInputError(message)
        options = {"cv": self.cv, "n_resamples": n_resamples, "random_state": self.random_state}
        drawn = bootstrap_weights(problem, candidates, self._default(), **options)
        if featured is not None:
            n_models = candidates.n_models
            drawn = np.array([featured.collapsed(one, n_models)[0] for one in drawn])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return low, high

    def _prepared(
        self, P: Any, y: Any, sample_weight: Any, groups: Any, fold: Any, row_id: Any
    ) -> tuple[Problem, LinearCandidates, FeatureColumns | None]:
        """Check everything; return the problem, what to try, and the features."""
        self._validate_params()
        require_target(self, y)
        predictions = self._taken(P, reset=True)
        options = {"groups": groups, "fold": fold, "row_id": row_id}
        problem = check_problem(predictions, y, sample_weight, **options)
        self.limits_ = _limits_of(None if self.recipe else self.limits, problem)
        self.cut_ = problem.P.beyond(self.limits_)
        problem = replace(problem, P=problem.P.clipped(self.limits_))
        named = [
            f"{problem.P.names[j]} ({self.cut_[j]:.0%})" for j in np.flatnonzero(self.cut_ > _MUCH)
        ]
        if named:
            message = (
                f"Most predictions of {', '.join(named)} are beyond {self.limits_}, and were cut. "
                "Are they in the unit of y? limits=None leaves predictions as they are."
            )
            warnings.warn(message, StackingWarning, stacklevel=3)
        combiners, featured = standard_combiners(self.random_state), None
        if isinstance(self.combiner, LinearCombiner):
            combiners[self._default()] = self.combiner
        others = {}
        if self.recipe is not None:
            others["published"] = self._published(problem)
        elif self.features is not None:
            featured = FeatureColumns.of(problem, _features_of(self.features))
            problem = replace(problem, P=featured.appended(problem.P))
        candidates = LinearCandidates(
            combiners, predictions.n_models, redundancy_of(self.redundancy), others,
            self.random_state,
        )  # fmt: skip
        if self._default() not in (*candidates.names, "auto"):
            known = ", ".join(map(repr, (*candidates.names, "auto")))
            message = f"Expected combiner to be {known} or a LinearCombiner; got {self.combiner!r}."
            raise InvalidInputError(message)
        return problem, candidates, featured

    def _published(self, problem: Problem) -> Any:
        from scikd.stacking.published import PublishedStack  # noqa: PLC0415 - few want it

        weight = problem.weight[problem.weight > 0]
        if not (weight == weight[0]).all() or len(weight) != len(problem.weight):
            message = (
                "Expected rows of equal weight with a prediction each for recipe='published', "
                "which knows no weights."
            )
            raise InvalidInputError(message)
        return PublishedStack()

    def _default(self) -> str:
        if self.recipe is not None:
            return self.recipe
        return self.combiner if isinstance(self.combiner, str) else type(self.combiner).__name__


def _features_of(given: str | Sequence[str] | MetaFeatures) -> MetaFeatures:
    if isinstance(given, MetaFeatures):
        return MetaFeatures(**given.get_params())
    return MetaFeatures(given if isinstance(given, str) else list(given))


def _limits_of(given: Any, problem: Problem) -> tuple[float, float] | None:
    """Return what predictions are cut to; a target that does not vary tells no limits."""
    if given is None:
        return None
    if isinstance(given, str):
        y = problem.y[problem.weight > 0]
        low, high = float(y.min()), float(y.max())
        margin = (high - low) / 2
        return (low - margin, high + margin) if margin > 0 else None
    try:
        low, high = map(float, given)
        fit = low < high  # not so for NaN
    except (TypeError, ValueError):
        fit = False
    if not fit:
        message = f"Expected limits to be 'auto', a lower and a higher number or None; got {given}."
        raise InvalidInputError(message)
    return low, high
