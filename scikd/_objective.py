"""What every distillation loss shares: the checks, the averaging, and the adapter for boosting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scikd._extras import require
from scikd.exceptions import InvalidInputError

if TYPE_CHECKING:
    import torch

__all__ = ["Array", "BoostingObjective", "Objective", "not_finite", "size"]

Array = NDArray[np.float64]


class Objective(ABC):
    """A loss between a student's predictions and its teachers' targets.

    The public methods check what they are given and are not meant to be overridden; a new objective
    writes ``_value`` and ``_gradient``, and ``_hessian`` where there is one.
    """

    @final
    def __call__(
        self,
        prediction: ArrayLike,
        target: ArrayLike | Mapping[str, ArrayLike],
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the weighted mean of the loss.

        Parameters
        ----------
        prediction : array-like of shape (n,) or (n, C)
            What the student says: values, or logits for the classification objectives.
        target : array-like of the same shape
            What the teachers said. `Total` also takes one target for each of its named parts.
        sample_weight : array-like of shape (n,) or None, default=None
            Non-negative weights, not all zero; None weighs every sample alike.

        Returns
        -------
        float
            Sum of weight times loss, over the sum of the weights.

        Raises
        ------
        InvalidInputError
            If shapes differ, something is not finite, a target is no probability where one is
            expected, or a weight is negative; the message lists everything that is wrong.
        """
        p, t, w = self._arrays(prediction, target, sample_weight)
        return float(np.average(self._value(np, p, t), weights=w))

    @final
    def per_sample(
        self, prediction: ArrayLike, target: ArrayLike | Mapping[str, ArrayLike]
    ) -> Array:
        """Return the loss of every sample, of shape (n,)."""
        p, t, _ = self._arrays(prediction, target, None)
        return np.asarray(self._value(np, p, t), dtype=np.float64)

    @final
    def torch(
        self,
        prediction: torch.Tensor,
        target: Any,
        sample_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weighted mean of the loss as a scalar tensor with a gradient.

        Parameters
        ----------
        prediction : torch.Tensor of shape (n,) or (n, C)
            What the student says.
        target : torch.Tensor or array-like of the same shape
            What the teachers said; a constant, no gradient flows back into the teachers.
        sample_weight : torch.Tensor of shape (n,) or None, default=None
            Non-negative weights, not all zero.

        Returns
        -------
        torch.Tensor of shape ()
            The loss, in the prediction's dtype and on its device.

        Raises
        ------
        InvalidInputError
            As in the call with arrays. On an accelerator only shapes are checked: reading a value
            back would stall its queue at every step.
        MissingExtraError
            If torch is not installed.
        """
        xp = require("torch", extra="md", feature="A loss on torch tensors")
        if not isinstance(prediction, xp.Tensor):
            message = (
                f"prediction must be a torch.Tensor, got {type(prediction).__name__}; "
                "for arrays call the objective itself, objective(prediction, target)"
            )
            raise InvalidInputError(message)

        def convert(values: Any) -> Any:
            given = xp.as_tensor(values, dtype=prediction.dtype, device=prediction.device)
            return given.detach()

        t = self._convert(target, convert)
        w = None if sample_weight is None else convert(sample_weight)
        self._check(xp, prediction, t, w, values=prediction.device.type == "cpu")
        loss = self._value(xp, prediction, t)
        mean: torch.Tensor = loss.mean() if w is None else (w * loss).sum() / w.sum()
        return mean

    @final
    def gradient(
        self,
        prediction: ArrayLike,
        target: ArrayLike | Mapping[str, ArrayLike],
        sample_weight: ArrayLike | None = None,
    ) -> Array:
        """Return the gradient of the weighted *sum* of the loss with respect to the prediction.

        A sum, not a mean: row i of the result is what boosting calls the gradient of sample i.

        Parameters
        ----------
        prediction, target, sample_weight
            As in the call.

        Returns
        -------
        ndarray of the prediction's shape
            The gradient.
        """
        p, t, w = self._arrays(prediction, target, sample_weight)
        return self._gradient(p, t, np.ones(len(p)) if w is None else w)

    @final
    def hessian(
        self,
        prediction: ArrayLike,
        target: ArrayLike | Mapping[str, ArrayLike],
        sample_weight: ArrayLike | None = None,
    ) -> Array:
        """Return the diagonal of the Hessian of the weighted sum of the loss.

        Parameters
        ----------
        prediction, target, sample_weight
            As in the call.

        Returns
        -------
        ndarray of the prediction's shape
            The second derivative with respect to each entry of the prediction.

        Raises
        ------
        InvalidInputError
            If the objective has no useful second derivative.
        """
        self._require_hessian()
        p, t, w = self._arrays(prediction, target, sample_weight)
        return self._hessian(p, t, np.ones(len(p)) if w is None else w)

    @final
    def as_boosting(
        self, target: ArrayLike | Mapping[str, ArrayLike] | None = None
    ) -> BoostingObjective:
        """Return this objective as LightGBM and XGBoost want it.

        Parameters
        ----------
        target : array-like or None, default=None
            The targets, one row for each row of the training data. None takes the ``y`` given to
            ``fit``. Soft labels of several classes must be given here for LightGBM, whose ``y`` is
            one-dimensional.

        Returns
        -------
        BoostingObjective
            Pass it as ``objective=`` to ``LGBMRegressor``, ``LGBMClassifier`` or ``XGBRegressor``.

        Raises
        ------
        InvalidInputError
            If the objective has no Hessian.

        Notes
        -----
        With an objective of one's own both libraries predict raw scores, so probabilities are
        ``scipy.special.expit(model.predict(X))`` or a softmax, and LightGBM starts at zero instead
        of at the mean. In place of the Hessian the booster is given an upper bound of it where the
        true one would stop training or overshoot: for `Huber`, whose Hessian is zero beyond delta,
        the weight of iteratively reweighted least squares; with several classes, whose scores are
        all stepped at once, a diagonal that bounds the whole matrix.
        """
        self._require_hessian()
        return BoostingObjective(self, target)

    # What an objective writes.

    @abstractmethod
    def _value(self, xp: Any, p: Any, t: Any) -> Any:
        """Return the loss of every sample, of shape (n,), with the functions of numpy or torch."""

    @abstractmethod
    def _gradient(self, p: Array, t: Any, w: Array) -> Array:
        """Return the gradient of ``(w * value).sum()``."""

    def _hessian(self, p: Array, t: Any, w: Array) -> Array:
        raise NotImplementedError  # pragma: no cover - _no_hessian speaks first

    def _curvature(self, p: Array, t: Any, w: Array) -> Array:
        """Return what a booster divides by: the Hessian, or a bound above it."""
        return self._hessian(p, t, w)

    def _no_hessian(self) -> str | None:
        """Say why there is no Hessian; None if there is one."""
        return None

    def _problems(self, xp: Any, p: Any, t: Any, *, values: bool) -> list[str]:
        """List what is wrong with a prediction and its target."""
        if tuple(t.shape) != tuple(p.shape):
            return [f"target has shape {tuple(t.shape)}, prediction has {tuple(p.shape)}"]
        return not_finite(xp, t, "target") if values else []

    def _convert(self, target: Any, convert: Callable[[Any], Any]) -> Any:
        if isinstance(target, Mapping):
            message = f"{type(self).__name__} takes one target, got a mapping with {list(target)}"
            raise InvalidInputError(message)
        return convert(target)

    # What all share.

    def _require_hessian(self) -> None:
        reason = self._no_hessian()
        if reason is not None:
            raise InvalidInputError(f"{self!r} has no Hessian: {reason}")

    def _arrays(self, prediction: Any, target: Any, weight: Any) -> tuple[Array, Any, Array | None]:
        try:
            p = np.asarray(prediction, dtype=np.float64)
            t = self._convert(target, lambda values: np.asarray(values, dtype=np.float64))
            w = None if weight is None else np.asarray(weight, dtype=np.float64)
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            message = f"prediction, target and sample_weight must be numbers: {error}"
            raise InvalidInputError(message) from error
        self._check(np, p, t, w, values=True)
        return p, t, w

    def _check(self, xp: Any, p: Any, t: Any, w: Any, *, values: bool) -> None:
        if p.ndim == 0 or 0 in p.shape:
            problems = [f"prediction has shape {tuple(p.shape)}, expected one row per sample"]
        else:
            problems = not_finite(xp, p, "prediction") if values else []
            problems += self._problems(xp, p, t, values=values)
            problems += _weight_problems(xp, w, len(p), values=values)
        if problems:
            raise InvalidInputError(f"{type(self).__name__}: " + "; ".join(problems))


@dataclass(frozen=True, eq=False)
class BoostingObjective:
    """An objective as a function ``(y_true, y_pred[, sample_weight]) -> (gradient, hessian)``.

    Made by `Objective.as_boosting`. It can be cloned and pickled with the model that holds it.

    Parameters
    ----------
    objective : Objective
        The loss.
    target : array-like or None, default=None
        Targets that take the place of ``y_true``.
    """

    objective: Objective
    target: Any = None

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return gradient and curvature, each of the shape of ``y_pred``."""
        objective, scores = self.objective, np.asarray(y_pred)
        target = y_true if self.target is None else self.target
        if not isinstance(target, Mapping) and np.size(target) == scores.size:
            target = np.reshape(target, scores.shape)  # some XGBoost hand labels over flat
        p, t, w = objective._arrays(scores, target, sample_weight)  # noqa: SLF001 - one module
        w = np.ones(len(p)) if w is None else w
        return objective._gradient(p, t, w), objective._curvature(p, t, w)  # noqa: SLF001


def not_finite(xp: Any, values: Any, name: str) -> list[str]:
    bad = int((~xp.isfinite(values)).sum())
    return [f"{name} is NaN or infinite in {bad} of {size(values)} entries"] if bad else []


def _weight_problems(xp: Any, w: Any, n: int, *, values: bool) -> list[str]:
    if w is None:
        return []
    if tuple(w.shape) != (n,):
        return [f"sample_weight has shape {tuple(w.shape)}, expected ({n},)"]
    if not values:
        return []
    problems = not_finite(xp, w, "sample_weight")
    negative = int((w < 0.0).sum())
    if negative:
        problems.append(f"sample_weight is negative in {negative} of {n} entries")
    elif not problems and not bool((w > 0.0).any()):
        problems.append("sample_weight is zero everywhere, so there is nothing to average")
    return problems


def size(values: Any) -> int:
    return int(np.prod(values.shape))
