"""Stacks of signals: one score out of many models, learnt from scores of days they had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from scikd._extras import require
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError
from scikd.labels import LabelStore
from scikd.out_of_fold import Fold, OutOfFold, cross_predict, make_folds
from scikd.parallel import fan_out
from scikd.stacking import MetaRegressor
from scikd.stacking._outer import Lesson, meta_folds, outer_predictions
from scikd.stacking._predictions import Predictions
from scikd.stacking.combiners import LinearCombiner
from scikd.teachers import EstimatorTeacher

from ._dated import DatedModel, DatedWindows, daily_ranks
from ._overlaps import overlapping, trains_later
from .features import Convention, forward_returns, tips_features
from .metrics import information_coefficient
from .panel import Panel
from .samples import Samples
from .splits import WalkForward

__all__ = ["SignalStack", "reference_models"]

REFERENCES = ("ridge", "lightgbm", "vanilla")
NETWORKS = ("vanilla", "gru", "tcn", "past", "future", "patch", "alibi", "periodic", "relative")
RIDGE_PENALTY = 1e5
SMALLEST_SLOPE = 0.01  # rank correlation of the plain mean, below which it is not believed to lie
DAY_MARK = 1e-9  # tells equal rows of two days apart, which are no copies of one another


class SignalStack(RegressorMixin, BaseEstimator):
    """Train models on the past, again and again, and combine what they say of days to come.

    Every model is trained on the days before each test of a walk-forward split, and scores that
    test. On these scores, and on nothing else, the weights of the models are learnt. The models
    that got a weight are then trained on all days, and score new ones.

    Scores and labels enter as ranks within their day, so that the scale of a model means nothing.
    Ranks of scores are then shrunk alike until their plain mean predicts the ranks of the labels,
    because that mean is what weights are shrunk to.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Models by name, which are cloned: regressors of scikit-learn, LightGBM and so on, which get
        windows as flat rows; or such as take windows of shape (n_samples, look_back, n_features)
        with dates as ``groups``, as `TIPSRanker`.
    splitter : splitter, iterable of (train, test) or None, default=None
        Of samples by date; each test comes after its training, without overlap of labels. None is
        `WalkForward` with five tests, purged as the label demands.
    combiner : str or LinearCombiner, default="ridge"
        As in `scikd.stacking.MetaRegressor`.
    horizon, convention
        Of the label, see `scikd.finance.forward_returns`. Days whose labels overlap count as one
        observation.
    look_back : int, default=20
        Days in a window. Only for panels.
    every : int, default=1
        Models are trained on each so-manieth day only: labels of nearby days overlap, and little is
        lost. They score all days.
    store : LabelStore, path or None, default=None
        Where to keep finished scores of every model and test: a fit that was stopped goes on.
    n_jobs : int or None, default=None
        As in joblib, over models and tests.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Attributes
    ----------
    oof_ : OutOfFold
        Scores of every model for every sample; NaN before the first test.
    samples_ : Samples
        All samples; the label is NaN where there is none.
    meta_ : MetaRegressor
        The fitted combination, with its weights, score and comparison of combiners; of ranks.
    weights_ : dict of str to float
        Weight of the ranks of each model, the largest in size being 1; 0 where it is not needed.
    models_ : dict of str to estimator
        Those with a weight, fitted to all samples that have a label.
    features_ : tuple of str or None
        Names of the features; None after a fit to samples.

    See Also
    --------
    scikd.stacking.RegularizedStackingRegressor : For rows without dates.

    Warnings
    --------
    Scores that `predict` gives for days of training are in-sample. Those of `predict_out_of_fold`
    are not, and are what a backtest of these days may use.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from scikd.finance import make_panel
    >>> panel = make_panel(300, 20, signal=0.2, seed=0).panel
    >>> models = [("strong", Ridge(1e5)), ("weak", Ridge(1.0))]
    >>> stack = SignalStack(models, horizon=1, look_back=2, progress=False).fit(panel)
    >>> stack.predict(panel).shape
    (300, 20)
    """

    def __init__(
        self,
        estimators: Sequence[tuple[str, Any]],
        splitter: Any = None,
        *,
        combiner: str | LinearCombiner = "ridge",
        horizon: int = 5,
        convention: Convention = "next_close",
        look_back: int = 20,
        every: int = 1,
        store: Any = None,
        n_jobs: int | None = None,
        progress: Progress = "auto",
    ) -> None:
        self.estimators = estimators
        self.splitter = splitter
        self.combiner = combiner
        self.horizon = horizon
        self.convention = convention
        self.look_back = look_back
        self.every = every
        self.store = store
        self.n_jobs = n_jobs
        self.progress = progress

    def fit(self, X: Panel | Samples, y: Any = None) -> Self:
        """Score the past out of fold, learn the weights, and fit what is needed to all samples.

        Parameters
        ----------
        X : Panel or Samples
            Prices, of which features and labels are made; or labelled samples.
        y : None
            Labels come with X.

        Returns
        -------
        SignalStack
            Itself.

        Raises
        ------
        InvalidInputError
            If samples have no labels, or a split trains on days after its test, or on labels that
            reach into it.
        TeacherError
            If a model fails or gives scores that are not finite; the message names it.
        """
        if not self.every >= 1:
            raise InvalidInputError(f"Expected every >= 1; got {self.every!r}.")
        samples, self.features_ = self._training_samples(X)
        label = _labels(samples)
        labelled = np.isfinite(label)
        inputs, y = DatedWindows(samples), daily_ranks(label, samples.rows)
        teachers = [EstimatorTeacher(DatedModel(one), name) for name, one in self._named()]
        store = self.store
        if store is not None and not isinstance(store, LabelStore):
            store = LabelStore(store)
        options: dict[str, Any] = {"n_jobs": self.n_jobs, "progress": self.progress}
        folds = self._folds(inputs, labelled)
        taught = np.isin(samples.rows, samples.days[:: self.every])
        lessons = [(train[taught[train]], test) for train, test in folds]
        oof = cross_predict(teachers, inputs, y, lessons, store=store, **options)
        self.oof_, self.samples_ = replace(oof, folds=folds), samples
        self._lesson = Lesson(
            np.where(labelled, y, 0.0) + DAY_MARK * samples.rows,
            labelled.astype(np.float64),
            samples.rows // self.horizon,
        )
        ranked = self._ranked()
        rows = np.flatnonzero(ranked.covered & labelled)
        meta = _RankRegressor(self.combiner, redundancy=None)
        self.meta_ = self._lesson.teach(
            meta, Predictions.of(ranked), rows, meta_folds(ranked, rows)
        )
        largest = np.abs(self.meta_.weights_).max() or 1.0
        shares = (self.meta_.weights_ / largest).tolist()
        self.weights_ = dict(zip(self.oof_.names, shares, strict=True))
        needed = [one for one in teachers if one.name in self.meta_.required_models_]
        rows = np.flatnonzero(labelled & taught)
        tasks = [(one, inputs[rows], y[rows]) for one in needed]
        fitted = list(fan_out(_fitted, tasks, description="all days", **options))
        self.models_ = dict(zip([one.name for one in needed], fitted, strict=True))
        return self

    def predict(self, X: Panel | Samples) -> np.ndarray:
        """Return the scores of the stack.

        Parameters
        ----------
        X : Panel or Samples
            Prices, or samples; labels are not needed.

        Returns
        -------
        numpy.ndarray of float64 and shape (n_dates, n_assets)
            Expected ranks within the day, from -0.5 to 0.5. NaN where an asset is not in the
            universe or has no complete window. Row t uses nothing from after date t.

        Raises
        ------
        InvalidInputError
            If the features are not those of training.
        """
        samples = self._scoring_samples(X)
        scores = {name: daily_ranks(one, samples.rows) for name, one in self._scores(samples)}
        return samples.spread(self.meta_.predict(scores))

    def score(self, X: Panel | Samples, y: None = None) -> float:
        """Return the mean rank correlation of scores and labels within days (rank IC).

        Parameters
        ----------
        X : Panel or Samples
            Prices, or labelled samples.
        y : None
            Labels come with X.

        Returns
        -------
        float
            From -1 to 1; days in which fewer than three assets are scored, or all alike, are left
            out.
        """
        if isinstance(X, Samples):
            labels = X.spread(_labels(X))
        else:
            labels = forward_returns(X, self.horizon, self.convention)
        return float(np.nanmean(information_coefficient(self.predict(X), labels, rank=True)))

    def predict_models(self, X: Panel | Samples) -> dict[str, np.ndarray]:
        """Return the scores of each model that is needed, in the shape that `predict` gives."""
        samples = self._scoring_samples(X)
        return {name: samples.spread(one) for name, one in self._scores(samples)}

    def predict_out_of_fold(self) -> np.ndarray:
        """Return what a stack would have said of the days of training, had it been there.

        Models and weights of a test are learnt from the days before it. There is nothing for the
        first test, since no weights can be learnt before it.

        Returns
        -------
        numpy.ndarray of float64 and shape (n_dates, n_assets)
            NaN where there is none.
        """
        check_is_fitted(self)
        return self.samples_.spread(outer_predictions(self._lesson, self._ranked(), self.meta_))

    def models_out_of_fold(self) -> dict[str, np.ndarray]:
        """Return the out-of-fold scores of each model, by date and asset."""
        check_is_fitted(self)
        return {
            name: self.samples_.spread(scores)
            for name, scores in zip(self.oof_.names, self.oof_.members, strict=True)
        }

    def _named(self) -> list[tuple[str, Any]]:
        pairs = list(self.estimators)
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            message = f"Expected estimators as pairs of a name and a model; got {pairs}."
            raise InvalidInputError(message)
        names = [name for name, _ in pairs]
        if not pairs or len(set(names)) < len(names):
            message = f"Expected estimators as pairs of distinct names and models; got {names}."
            raise InvalidInputError(message)
        return pairs

    def _training_samples(self, X: Any) -> tuple[Samples, tuple[str, ...] | None]:
        """Return all samples that can be scored, with NaN as label where there is none."""
        if isinstance(X, Samples):
            return X, None
        samples, names = self._samples_of(X)
        labels = forward_returns(X, self.horizon, self.convention)
        return replace(samples, label=labels[samples.rows, samples.columns]), names

    def _samples_of(self, panel: Any) -> tuple[Samples, tuple[str, ...]]:
        if not isinstance(panel, Panel):
            message = f"Expected a Panel or Samples; got {type(panel).__name__}."
            raise InvalidInputError(message)
        features = tips_features(panel)
        return Samples.of(panel, features, look_back=self.look_back), features.names

    def _scoring_samples(self, X: Any) -> Samples:
        check_is_fitted(self)
        if isinstance(X, Samples):
            samples, names = X, self.features_
        else:
            samples, names = self._samples_of(X)
        before = self.samples_.look_back, self.samples_.n_features
        if (samples.look_back, samples.n_features) != before or names != self.features_:
            message = (
                f"Expected the {before[1]} features of training over {before[0]} days, "
                f"{self.features_ or 'of samples'}; got {samples.n_features} over "
                f"{samples.look_back}, {names or 'of samples'}."
            )
            raise InvalidInputError(message)
        return samples

    def _folds(self, inputs: DatedWindows, labelled: np.ndarray) -> tuple[Fold, ...]:
        """Return training on samples with a label, and tests of all samples, the last ones too.

        An asset that is about to be delisted has no label. If it had no score either, a backtest
        would know beforehand.
        """
        samples = inputs.samples
        splitter = self.splitter
        if splitter is None:
            splitter = WalkForward.for_label(self.horizon, self.convention, calendar=samples.dates)
        given = make_folds(inputs, labelled, splitter, groups=samples.groups)
        folds = tuple((train[labelled[train]], test) for train, test in given)
        bare = [number for number, (train, _) in enumerate(folds) if not len(train)]
        if bare:
            message = f"Fold {bare[0]} has no sample with a label to train on. Use fewer splits."
            raise InvalidInputError(message)
        later = trains_later(folds, samples.rows)
        if later is not None:
            message = (
                f"Fold {later} trains on days after the beginning of its test. Expected a splitter "
                "that learns from the past only, such as WalkForward."
            )
            raise InvalidInputError(message)
        for number, (train, test) in enumerate(folds):
            days = overlapping(
                samples.rows[train], samples.rows[test], self.horizon, self.convention
            )
            if len(days):
                message = (
                    f"Fold {number} trains on {len(days)} days whose labels reach into its test, "
                    f"such as {samples.dates[days[-1]]}. Make the splitter by for_label("
                    f"{self.horizon}, {self.convention!r}), which purges them."
                )
                raise InvalidInputError(message)
        return folds

    def _ranked(self) -> OutOfFold:
        """Return the out-of-fold scores as ranks within their day."""
        return replace(self.oof_, members=daily_ranks(self.oof_.members, self.samples_.rows))

    def _scores(self, samples: Samples) -> list[tuple[str, np.ndarray]]:
        inputs = DatedWindows(samples)
        return [(name, model.predict(inputs)) for name, model in self.models_.items()]


class _RankRegressor(MetaRegressor):
    """Combine ranks, after all have been scaled alike until their mean predicts y.

    Two ranks that hardly correlate are far apart in scale though each is uniform: what is expected
    of y is the rank of the score times their correlation. Weights that are shrunk to those of the
    plain mean have to start from one that is scaled so.
    """

    scale_: float

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
        given = Predictions.of(P)
        mean = given.filled().mean(axis=1)
        square = mean @ mean
        slope = mean @ np.asarray(y) / square if square > 0 else 0.0
        self.scale_ = max(float(slope), SMALLEST_SLOPE)
        return super().fit(
            self._scaled(given), y, sample_weight, groups=groups, fold=fold, row_id=row_id
        )

    def predict(self, P: Any) -> np.ndarray:
        check_is_fitted(self, "scale_")
        return super().predict(self._scaled(Predictions.of(P)))

    def _scaled(self, given: Predictions) -> Predictions:
        return replace(given, values=given.values * self.scale_)


def reference_models(
    names: Sequence[str] = REFERENCES, *, seed: int = 0, **training: Any
) -> list[tuple[str, Any]]:
    """Return plain models that every other has to beat.

    Parameters
    ----------
    names : sequence of str, default=("ridge", "lightgbm", "vanilla")
        Which: ``"ridge"``, whose penalty expects a rank correlation of 0.04 of 160 features;
        ``"lightgbm"``, 200 small trees; ``"vanilla"``, ``"gru"``, ``"tcn"`` or
        another network of `scikd.finance.NetworkRanker`.
    seed : int, default=0
        Of random choices.
    **training
        Parameters of networks, see `scikd.finance.NetworkRanker`: ``epochs``, ``look_back``, ...

    Returns
    -------
    list of (str, estimator)
        As `SignalStack` takes them; each can also be fitted by itself, to windows (flat ones for
        ridge and LightGBM) and ranks.

    Raises
    ------
    InvalidInputError
        If there is no such model.
    MissingExtraError
        If LightGBM or torch is needed and not installed.
    """
    known = ("ridge", "lightgbm", *NETWORKS)
    unknown = [names] if isinstance(names, str) else [one for one in names if one not in known]
    if unknown:
        message = f"Expected a list of names out of {list(known)}; got {unknown}."
        raise InvalidInputError(message)
    made: list[tuple[str, Any]] = []
    for name in names:
        if name == "ridge":
            made.append((name, _ridge()))
        elif name == "lightgbm":
            made.append((name, _lightgbm(seed)))
        else:
            require("torch", extra="finance", feature=f"The reference {name!r}")
            from .network import NetworkRanker  # noqa: PLC0415 - torch is for use

            made.append((name, NetworkRanker(name, random_state=seed, **training)))
    return made


def _ridge() -> Any:
    # Weights of p features that explain the share r squared of y are drawn from a normal
    # distribution whose variance is that of y times r ** 2 / p: the penalty is p / r ** 2.
    return make_pipeline(StandardScaler(), Ridge(alpha=RIDGE_PENALTY, solver="cholesky"))


def _lightgbm(seed: int) -> Any:
    feature = "The reference 'lightgbm'"
    return require("lightgbm", extra="dev", feature=feature).LGBMRegressor(
        n_estimators=200,
        learning_rate=0.05,
        num_leaves=31,
        min_child_samples=200,
        subsample=0.5,
        subsample_freq=1,
        colsample_bytree=0.5,
        deterministic=True,
        force_row_wise=True,
        n_jobs=1,  # threads of a pool that others use, too, spend their time waiting for each other
        random_state=seed,
        verbose=-1,
    )


def _labels(samples: Samples) -> np.ndarray:
    if samples.label is None:
        raise InvalidInputError("Expected samples with labels to learn from; got none.")
    return samples.label


def _fitted(teacher: EstimatorTeacher, X: DatedWindows, y: np.ndarray) -> Any:
    return teacher.fit(X, y).estimator
