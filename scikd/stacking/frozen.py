"""Frozen stacks: a meta-model as a few numbers in a JSON file, for serving anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from scipy.special import softmax

from scikd.exceptions import CorruptFileError, InvalidInputError
from scikd.out_of_fold import OutOfFold
from scikd.persistence import decode_labels, encode_labels, load_bundle, save_bundle
from scikd.stacking._cubes import Inputs, as_cube, blocks, check_classes, linear_pool
from scikd.stacking._predictions import Predictions
from scikd.stacking.features import MetaFeatures
from scikd.stacking.kernels import combine_rows
from scikd.stacking.log_pool import CENTRE_FLOOR, floored, floored_logs

__all__ = ["KIND", "FrozenPool", "FrozenStack", "FrozenWeights", "load_frozen"]

KIND = "FrozenStack"


class FrozenWeights(ABC):
    """What a frozen stack of numbers and a frozen pool of classes share.

    Attributes
    ----------
    names : tuple of str
        The models that it needs, in the order of columns without names.
    """

    names: tuple[str, ...]

    @abstractmethod
    def predict(self, P: Any) -> np.ndarray:
        """Combine predictions of the models."""

    @abstractmethod
    def _parameters(self) -> dict[str, Any]:
        """Return all of it as JSON values."""

    @classmethod
    @abstractmethod
    def _of_parameters(cls, parameters: dict[str, Any]) -> Self:
        """Return what `_parameters` described."""

    def save(self, path: str | Path) -> Path:
        """Write a folder with one file, ``manifest.json``, which any language can read.

        Parameters
        ----------
        path : str or pathlib.Path
            The folder; see `scikd.persistence.save_bundle`.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        return save_bundle(path, kind=KIND, parameters=self._parameters())

    def _taken(self, P: Any, classes: np.ndarray | None = None) -> Predictions:
        """Return predictions of the needed models in their order; others are left out."""
        P = Predictions.of(P) if isinstance(P, OutOfFold) else P
        if isinstance(P, Predictions | Mapping) or hasattr(P, "columns"):
            columns = P.names if isinstance(P, Predictions) else getattr(P, "columns", P)
            given = {str(name): name for name in columns}
            missing = [name for name in self.names if name not in given]
            if missing:
                message = (
                    f"Expected predictions of the {len(self.names)} models {list(self.names)}; "
                    f"missing are {missing}."
                )
                raise InvalidInputError(message)
            if isinstance(P, Predictions):
                return P.select([P.names.index(name) for name in self.names])
            wanted = [given[name] for name in self.names]
            if not isinstance(P, Mapping):
                return Predictions.of(P[wanted], names=self.names)
            P = {name: P[name] for name in wanted}
            labels = classes if np.ndim(P[wanted[0]]) == 2 else None
            return Predictions.of(P, classes=labels, names=self.names)
        found = Predictions.of(P)
        if found.n_models != len(self.names):
            message = (
                f"Expected predictions of the {len(self.names)} models {list(self.names)}; got "
                f"{found.n_models} columns."
            )
            raise InvalidInputError(message)
        return found


@dataclass(frozen=True, eq=False)
class FrozenStack(FrozenWeights):
    """A stack of regressors as numbers: ``intercept + P @ weights``.

    Attributes
    ----------
    names : tuple of str
        The models.
    weights : ndarray of shape (n_models,)
        Their weights.
    intercept : float
        In the unit of the target.
    features : tuple of str
        Statistics of each row that are added, see `MetaFeatures`; most stacks have none.
    feature_weights : ndarray of shape (n_meta_features,)
        Their weights.
    feature_models : tuple of str
        The models that the statistics are over.
    limits : tuple of float or None
        What predictions are cut to beforehand; in the file, an infinite end is null.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    intercept: float
    features: tuple[str, ...] = ()
    feature_weights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    feature_models: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None

    def predict(self, P: Any) -> np.ndarray:
        """Combine predictions of the models.

        Parameters
        ----------
        P : array-like, frame or mapping of shape (n_samples, n_models)
            Columns in the order of `names`; or named, in any order and among others. Where one is
            missing (NaN) it counts as the mean of the others, unless there are features.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the unit of the target.

        Raises
        ------
        InvalidInputError
            If a model is not there, or a row has no prediction; with features, if any is missing.
        """
        predictions = self._taken(P)
        if predictions.values.ndim != 2:
            message = f"Expected a number per model and row; got shape {predictions.values.shape}."
            raise InvalidInputError(message)
        predictions = predictions.clipped(self.limits)
        result = np.empty(predictions.n_samples)
        for rows, block in predictions.raw_blocks():
            combine_rows(block, self.weights, self.intercept, result[rows])
        bad = np.isnan(result)
        if self.features:
            bad |= ~predictions.present.all(axis=1)
        if bad.any():
            what = "of all models" if self.features else "of some model"
            message = (
                f"Expected predictions {what} in every row; {int(bad.sum())} rows lack them, the "
                f"first is row {int(np.flatnonzero(bad)[0])}."
            )
            raise InvalidInputError(message)
        if self.features:
            columns = [self.names.index(name) for name in self.feature_models]
            added = MetaFeatures(list(self.features)).fit_transform(predictions.values[:, columns])
            result += added @ self.feature_weights
        return result

    def __str__(self) -> str:
        named = [*zip(self.names, self.weights, strict=True)]
        named += [
            (f"{f}(row)", w) for f, w in zip(self.features, self.feature_weights, strict=True)
        ]
        terms = [f"{'-' if w < 0 else '+'} {abs(w):.6g} * {name}" for name, w in named]
        found = " ".join([f"{self.intercept:.6g}", *terms] if self.intercept else terms)
        if self.limits is None:
            return found
        low, high = self.limits
        return f"{found}, with predictions cut to [{low:.6g}, {high:.6g}]"

    def _parameters(self) -> dict[str, Any]:
        return {
            "task": "regression",
            "intercept": self.intercept,
            "weights": dict(zip(self.names, self.weights.tolist(), strict=True)),
            "feature_weights": dict(
                zip(self.features, np.asarray(self.feature_weights).tolist(), strict=True)
            ),
            "feature_models": list(self.feature_models),
            "limits": None if self.limits is None else [_finite(end) for end in self.limits],
        }

    @classmethod
    def _of_parameters(cls, parameters: dict[str, Any]) -> Self:
        weights, features = parameters["weights"], parameters["feature_weights"]
        limits = parameters["limits"]
        return cls(
            names=tuple(weights),
            weights=np.array(list(weights.values()), dtype=np.float64),
            intercept=float(parameters["intercept"]),
            features=tuple(features),
            feature_weights=np.array(list(features.values()), dtype=np.float64),
            feature_models=tuple(parameters["feature_models"]),
            limits=None if limits is None else _ends(*limits),
        )


@dataclass(frozen=True, eq=False)
class FrozenPool(FrozenWeights):
    r"""A pool of class probabilities as numbers.

    ``kind="linear"`` is the weighted mean of the models' probabilities, ``kind="log"`` is
    proportional to

    .. math:: \bar p^{\,b} \prod_m p_m^{w_m},

    with `centre_exponent` b and the weights w as exponents. There every :math:`p_m` was mixed with
    a share `floor` of the uniform distribution, and the centre :math:`\bar p`, the mean with
    `centre_weights`, with a share of 1e-6. A geometric centre is
    :math:`\exp \sum_m c_m \log p_m`.

    Attributes
    ----------
    names : tuple of str
        The models.
    classes : ndarray of shape (n_classes,)
        Labels.
    weights : ndarray of shape (n_models,)
        Weights, or exponents.
    inputs : {"proba", "logit"}
        What predictions are.
    kind : {"linear", "log"}
        Of the pool.
    floor, centre_exponent : float
        Of a log pool.
    centre : {"linear", "mean", "geometric"}
        Kind of the centre of a log pool.
    centre_weights : ndarray of shape (n_models,)
        Weights c of the models in it.
    """

    names: tuple[str, ...]
    classes: np.ndarray
    weights: np.ndarray
    inputs: Inputs = "proba"
    kind: Literal["linear", "log"] = "linear"
    floor: float = 0.0
    centre: str = "linear"
    centre_exponent: float = 0.0
    centre_weights: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def predict_proba(self, P: Any) -> np.ndarray:
        """Pool probabilities of the models.

        Parameters
        ----------
        P : array-like of shape (n_samples, n_models, n_classes), or mapping of such tables
            Probabilities in the order of `classes`, of the models in the order of `names`; or
            named, among others. For two classes also those of the second alone, of shape
            (n_samples, n_models). A missing model (NaN) counts as the mean of the others.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities.

        Raises
        ------
        InvalidInputError
            If a model is not there, or a row has no prediction.
        """
        cube = as_cube(self._taken(P, self.classes), self.inputs)
        check_classes(cube, self.classes)
        pooled = np.empty((cube.n_samples, len(self.classes)))
        for rows, block in blocks(cube):
            pooled[rows] = self._pooled(block.copy())
        bare = np.flatnonzero(np.isnan(pooled).any(axis=1))
        if len(bare):
            message = (
                f"Expected predictions of some model in every row; {len(bare)} rows lack them, the "
                f"first is row {bare[0]}."
            )
            raise InvalidInputError(message)
        return pooled

    def predict(self, P: Any) -> np.ndarray:
        """Return the most probable label of every row, shape (n_samples,)."""
        labels: np.ndarray = self.classes[self.predict_proba(P).argmax(axis=1)]
        return labels

    def _pooled(self, block: np.ndarray) -> np.ndarray:
        """Pool probabilities of shape (n_rows, n_models, n_classes), which are overwritten."""
        if self.kind == "linear":
            return linear_pool(block, self.weights)
        logs = floored_logs(block, self.floor)
        if self.centre == "geometric":
            centre = self.centre_weights @ logs
        else:
            centre = np.log(floored(linear_pool(block, self.centre_weights), CENTRE_FLOOR))
        pooled: np.ndarray = softmax(self.centre_exponent * centre + self.weights @ logs, axis=1)
        return pooled

    def _parameters(self) -> dict[str, Any]:
        found = {
            "task": "classification",
            "classes": encode_labels(self.classes),
            "inputs": self.inputs,
            "kind": self.kind,
            "weights": dict(zip(self.names, self.weights.tolist(), strict=True)),
        }
        if self.kind == "linear":
            return found
        return found | {
            "floor": self.floor,
            "centre": self.centre,
            "centre_exponent": self.centre_exponent,
            "centre_floor": CENTRE_FLOOR,
            "centre_weights": dict(zip(self.names, self.centre_weights.tolist(), strict=True)),
        }

    @classmethod
    def _of_parameters(cls, parameters: dict[str, Any]) -> Self:
        names = tuple(parameters["weights"])

        def of_models(key: str) -> np.ndarray:
            return np.array([parameters[key][name] for name in names], dtype=np.float64)

        given = (names, decode_labels(parameters["classes"]), of_models("weights"))
        if parameters["kind"] == "linear":
            return cls(*given, parameters["inputs"])
        options = {key: parameters[key] for key in ("floor", "centre", "centre_exponent")}
        weights = of_models("centre_weights")
        return cls(*given, parameters["inputs"], "log", **options, centre_weights=weights)


def _finite(end: float) -> float | None:
    """Return an end of limits, or None of no end: JSON has no infinity."""
    return end if np.isfinite(end) else None


def _ends(low: float | None, high: float | None) -> tuple[float, float]:
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


def load_frozen(path: str | Path) -> FrozenStack | FrozenPool:
    """Read what `FrozenWeights.save` wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder.

    Raises
    ------
    StorageError
        If it is missing, cut short, edited, foreign or from a newer scikd.
    """
    parameters = load_bundle(path, kind=KIND).parameters
    kinds: dict[str, Any] = {"regression": FrozenStack, "classification": FrozenPool}
    try:
        found: FrozenStack | FrozenPool = kinds[parameters["task"]]._of_parameters(parameters)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{path} describes no frozen stack that this scikd knows: {error!r}."
        raise CorruptFileError(message) from error
    return found
