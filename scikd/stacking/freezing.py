"""Collapsing a fitted meta-model to the few numbers that it predicts by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from scikd.exceptions import InvalidInputError
from scikd.stacking._cubes import Inputs
from scikd.stacking._pool import ClassPool
from scikd.stacking._predictions import Predictions
from scikd.stacking.combiners import LinearCombiner
from scikd.stacking.frozen import FrozenPool, FrozenStack
from scikd.stacking.log_pool import LogPool
from scikd.stacking.meta import MetaRegressor
from scikd.stacking.meta_classifier import MetaClassifier
from scikd.stacking.published import PublishedStack

__all__ = ["freeze"]

_PROBES = 256
_TOLERANCE = 1e-10


def freeze(model: Any, P: Any = None) -> FrozenStack | FrozenPool:
    """Collapse a fitted meta-model to a few numbers, and verify that they predict the same.

    Parameters
    ----------
    model : MetaRegressor, MetaClassifier, LinearCombiner, PublishedStack or pool
        Fitted.
    P : array-like, frame, mapping, OutOfFold or None, default=None
        Predictions to compare on, as in `fit`; None makes some up at random. Rows with missing
        ones are compared too, unless there are meta-features.

    Returns
    -------
    FrozenStack or FrozenPool
        For numbers, or for classes.

    Raises
    ------
    InvalidInputError
        If there is no such form of this model, or the two differ by more than 1e-10 of the largest
        prediction.
    """
    check_is_fitted(model)
    if P is not None:
        P = Predictions.of(P)
    n_models = model.n_features_in_
    names = _names(model, P, n_models)
    frozen = _collapsed(model, names)
    if P is None:
        P = Predictions.of(_probes(n_models, getattr(frozen, "classes", None)))
    P = P if set(P.names) == set(names) else replace(P, names=names)
    if getattr(frozen, "features", ()):
        P = P.take(np.flatnonzero(P.present.all(axis=1)))
    ask = "predict" if isinstance(frozen, FrozenStack) else "predict_proba"
    named = {name: P.values[:, j] for j, name in enumerate(P.names)}
    expected, found = getattr(model, ask)(P), getattr(frozen, ask)(named)
    largest = np.abs(expected).max(initial=0.0)
    gap = np.abs(expected - found).max(initial=0.0)
    if not gap <= _TOLERANCE * largest:
        message = (
            f"The frozen form of this {type(model).__name__} differs from it by {gap:.3g}, where "
            f"predictions are up to {largest:.3g}: it cannot be frozen."
        )
        raise InvalidInputError(message)
    return frozen


def _names(model: Any, P: Predictions | None, n_models: int) -> tuple[str, ...]:
    """Return the names of all models, in the order of the weights."""
    for attribute in ("names_", "feature_names_in_", "_names"):
        if hasattr(model, attribute):
            return tuple(map(str, getattr(model, attribute)))
    return tuple(f"model{j}" for j in range(n_models)) if P is None else P.names


def _collapsed(model: Any, names: tuple[str, ...]) -> FrozenStack | FrozenPool:
    if isinstance(model, MetaRegressor):
        if isinstance(model.combiner_, PublishedStack):
            return _of_published(model.combiner_, names)
        features = () if model.features_ is None else model.features_.features_
        shared = (names, model.weights_, model.intercept_)
        return _linear(*shared, features, model.feature_weights_, model.limits_)
    if isinstance(model, LinearCombiner):
        return _linear(names, model.weights_, model.intercept_)
    if isinstance(model, PublishedStack):
        return _of_published(model, names)
    if isinstance(model, MetaClassifier):
        return _of_meta_classifier(model, names)
    if isinstance(model, ClassPool):
        return _of_pool(model, names, model.inputs)
    message = f"Expected a meta-model of scikd.stacking to freeze; got {type(model).__name__}."
    raise InvalidInputError(message)


def _linear(
    names: tuple[str, ...],
    weights: np.ndarray,
    intercept: float,
    features: tuple[str, ...] = (),
    feature_weights: Any = (),
    limits: tuple[float, float] | None = None,
) -> FrozenStack:
    """Leave out models without weight, unless features are over all of them."""
    feature_weights = np.asarray(feature_weights, dtype=np.float64)
    features = features if feature_weights.any() else ()
    kept = np.flatnonzero(weights) if not features else np.arange(len(names))
    if not len(kept):  # a constant; it still needs something to count rows by
        kept = np.arange(len(names))
    return FrozenStack(
        names=tuple(names[j] for j in kept),
        weights=weights[kept].copy(),
        intercept=float(intercept),
        features=tuple(features),
        feature_weights=feature_weights[: len(features)].copy(),
        feature_models=names if features else (),
        limits=limits,
    )


def _of_published(model: PublishedStack, names: tuple[str, ...]) -> FrozenStack:
    kept = np.flatnonzero(model.filter_.kept_)
    used = tuple(names[j] for j in kept)
    return FrozenStack(
        names=used,
        weights=model.coef_[: len(kept)].copy(),
        intercept=model.intercept_,
        features=tuple(model.features_.features_),
        feature_weights=model.coef_[len(kept) :].copy(),
        feature_models=used,
    )


def _of_meta_classifier(model: MetaClassifier, names: tuple[str, ...]) -> FrozenPool:
    """Put the weights of the pool, which has its own order of models, in that of the needed."""
    place = {names[j]: number for number, j in enumerate(model._pooled.columns)}
    order = np.array([place[name] for name in model.required_models_])
    return _of_pool(model.combiner_, model.required_models_, model.inputs, order)


def _of_pool(
    pool: Any, names: tuple[str, ...], inputs: Inputs, order: Any = slice(None)
) -> FrozenPool:
    given = (names, pool.classes_, pool.weights_[order].copy(), inputs)
    if not isinstance(pool, LogPool):
        return FrozenPool(*given)
    return FrozenPool(
        *given,
        kind="log",
        floor=pool.floor,
        centre=pool.centre,
        centre_exponent=pool.centre_exponent_,
        centre_weights=pool.centre_weights_[order].copy(),
    )


def _probes(n_models: int, classes: np.ndarray | None) -> np.ndarray:
    """Return predictions at random."""
    random = np.random.default_rng(0)
    if classes is None:
        return random.normal(size=(_PROBES, n_models))
    return random.dirichlet(np.ones(len(classes)), size=(_PROBES, n_models))
