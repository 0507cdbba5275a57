"""A named, weighted ensemble of teachers, and what they agree on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from scikd._aggregator import (
    Aggregate,
    Aggregator,
    Combination,
    check_sample_weight,
    check_weights,
    simplex_weights,
)
from scikd._progress import Progress
from scikd.aggregation import Mean, SoftmaxMean, as_aggregator
from scikd.consensus import Consensus
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.kernels.gram import weighted_gram
from scikd.labels import LabelStore
from scikd.out_of_fold import OutOfFold, align_classes, cross_predict, make_folds, take
from scikd.parallel import fan_out
from scikd.quantities import PROBA, Quantity
from scikd.teachers import Teacher, count_samples, name_teachers

__all__ = ["TeacherEnsemble"]


class TeacherEnsemble(Teacher):
    """Several teachers, their weights, and the rule that combines them.

    An ensemble is a teacher itself: `predict` gives the consensus.

    Parameters
    ----------
    teachers : mapping of str to teacher, or sequence of teachers or (name, teacher) pairs
        Anything that `as_teacher` takes. Names must be unique; unnamed estimators of one class are
        numbered.
    weights : array-like of shape (n_teachers,), "fit" or None, default=None
        Non-negative weights; None is equal weights. A teacher of weight zero is never asked.
        "fit" starts with equal weights, which `calibrate` replaces by those that minimise the
        squared out-of-fold error.
    aggregator : "auto", str, Aggregator or mapping of quantity to these, default="auto"
        The rule; "auto" is the mean, of probabilities (`SoftmaxMean`) for classifiers.
    batch_size : int or None, default=None
        Rows predicted at a time; None is all. Rules that need every member at once hold
        n_teachers * batch_size rows.
    n_jobs : int or None, default=None
        As in joblib, over teachers.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.
    name : str, default="ensemble"
        Name of the ensemble.

    Examples
    --------
    >>> import numpy as np
    >>> from scikd import TeacherEnsemble
    >>> ensemble = TeacherEnsemble({"low": lambda X: X[:, 0] - 1, "high": lambda X: X[:, 0] + 1})
    >>> consensus = ensemble.consensus(np.array([[1.0], [2.0]]))
    >>> consensus.mean["value"]
    array([1., 2.])
    >>> consensus.std["value"]
    array([1., 1.])
    """

    def __init__(
        self,
        teachers: Mapping[str, Any] | Sequence[Any],
        *,
        weights: Any = None,
        aggregator: str | Aggregator | Mapping[str, str | Aggregator] = "auto",
        batch_size: int | None = None,
        n_jobs: int | None = None,
        progress: Progress = "auto",
        name: str = "ensemble",
    ) -> None:
        super().__init__(name)
        self.teachers = name_teachers(teachers)
        self.fit_weights = isinstance(weights, str) and weights == "fit"
        self.weights = check_weights(None if self.fit_weights else weights, len(self.teachers))
        self.aggregator = aggregator
        if batch_size is not None and batch_size < 1:
            message = f"Expected batch_size to be at least 1, or None; got {batch_size}."
            raise InvalidInputError(message)
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.progress = progress
        self.trainable = any(teacher.trainable for teacher in self.teachers)
        self._aggregators = {
            quantity.name: self._rule(quantity.name) for quantity in self.quantities
        }

    @property
    def rules(self) -> dict[str, Aggregator]:
        """The rule of every quantity."""
        return dict(self._aggregators)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the teachers."""
        return tuple(teacher.name for teacher in self.teachers)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Quantities that all teachers predict, in the order of the first."""
        shared = set.intersection(*({q.name for q in t.quantities} for t in self.teachers))
        quantities = tuple(q for q in self.teachers[0].quantities if q.name in shared)
        if not quantities:
            listing = "; ".join(
                f"{t.name}: {[q.name for q in t.quantities]}" for t in self.teachers
            )
            message = f"Expected teachers with a quantity in common; got {listing}."
            raise InvalidInputError(message)
        for quantity in quantities:
            for teacher in self.teachers:
                unit = next(q.unit for q in teacher.quantities if q.name == quantity.name)
                if unit != quantity.unit:
                    message = (
                        f"Teacher {teacher.name!r} gives {quantity.name!r} in {unit!r}, "
                        f"{self.teachers[0].name!r} in {quantity.unit!r}. Convert one of them."
                    )
                    raise InvalidInputError(message)
        return quantities

    @property
    def classes(self) -> np.ndarray | None:  # type: ignore[override]
        """Sorted union of the classes that the teachers know; None if none knows any.

        A teacher that has never seen a class gives it probability zero.
        """
        known = [teacher.classes for teacher in self.teachers if teacher.classes is not None]
        return np.unique(np.concatenate(known)) if known else None

    @property
    def fingerprint(self) -> str:
        """Digest of the members, their weights and the rules."""
        rules = {name: repr(rule) for name, rule in self._aggregators.items()}
        members = [teacher.fingerprint for teacher in self.teachers]
        return fingerprint_inputs({"members": members, "weights": self.weights, "rules": rules})

    def consensus(self, X: Any, *, members: bool = False, groups: Any = None) -> Consensus:
        """Ask every teacher, and combine the answers.

        Teachers are folded in one after the other; unless the members are asked for, or the rule
        needs all of them, memory does not grow with the number of teachers.

        Parameters
        ----------
        X : array-like, frame or sequence of n_samples
            The inputs.
        members : bool, default=False
            Whether to keep the members' predictions.
        groups : array-like of shape (n_samples,) or None, default=None
            Groups, for rules that harmonise within groups; then nothing is batched.

        Returns
        -------
        Consensus
            Mean, standard deviation and disagreement, by quantity.

        Raises
        ------
        TeacherError
            If a teacher fails or returns something unusable; the message names it.
        InvalidInputError
            If X is empty, or the teachers' arrays differ in shape or classes.
        """
        n_samples = count_samples(X)
        if n_samples == 0:
            message = "Expected at least one sample; got none."
            raise InvalidInputError(message)
        size = n_samples if self.batch_size is None or groups is not None else self.batch_size
        batches = [
            self._batch(X if size >= n_samples else take(X, rows), members, groups)
            for rows in _slices(n_samples, size)
        ]
        units = {quantity.name: quantity.unit for quantity in self.quantities}
        return _joined(batches, self.names, self.weights, units)

    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        return self.consensus(X).mean

    def _fit(self, X: Any, y: Any, sample_weight: np.ndarray | None) -> Self:
        tasks = [(teacher, X, y, sample_weight) for teacher in self.teachers]
        fitted = fan_out(
            _fit_one, tasks, n_jobs=self.n_jobs, description="teachers", progress=self.progress
        )
        return self.replace(teachers=list(fitted))

    def cross_predict(
        self,
        X: Any,
        y: Any,
        cv: Any = 5,
        *,
        groups: Any = None,
        sample_weight: np.ndarray | None = None,
        store: LabelStore | str | Path | None = None,
    ) -> OutOfFold:
        """Predict every row by teachers that were not trained on it.

        Parameters
        ----------
        X : array-like, frame or sequence of n_samples
            The inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets.
        cv : int, splitter or iterable of (train, test), default=5
            As in scikit-learn; partial and repeated splitters included.
        groups : array-like of shape (n_samples,) or None, default=None
            Groups for the splitter.
        sample_weight : ndarray of shape (n_samples,) or None, default=None
            Weights for training.
        store : LabelStore, path or None, default=None
            Where to keep finished (teacher, fold) labels, so that an interrupted run resumes.

        Returns
        -------
        OutOfFold
            The predictions; rows that no test fold holds are marked and NaN.
        """
        classifier = self.quantities[0].name == PROBA.name
        folds = make_folds(X, y, cv, groups=groups, classifier=classifier)
        return cross_predict(
            self.teachers,
            X,
            y,
            folds,
            sample_weight=check_sample_weight(sample_weight, count_samples(X)),
            classes=np.unique(np.asarray(y)) if classifier else None,
            store=store if store is None or isinstance(store, LabelStore) else LabelStore(store),
            n_jobs=self.n_jobs,
            progress=self.progress,
        )

    def calibrate(
        self, oof: OutOfFold, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> TeacherEnsemble:
        """Return an ensemble whose weights and rule have learnt from out-of-fold predictions.

        Weights are learnt only with ``weights="fit"``: the non-negative ones, summing to one, that
        minimise the squared error of the weighted mean (of the probabilities, for classes).

        Parameters
        ----------
        oof : OutOfFold
            Predictions of these teachers.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Truth: class labels where the quantity is ``"proba"``.
        sample_weight : ndarray of shape (n_samples,) or None, default=None
            Weights of the samples.

        Returns
        -------
        TeacherEnsemble
            The same teachers, calibrated.
        """
        members, truth = _covered(oof, y)
        weight = check_sample_weight(sample_weight, len(oof.covered))
        weight = None if weight is None else weight[oof.covered]
        rule = self._aggregators[oof.quantity].fit(members, truth, weight)
        weights = simplex_weights(members, truth, weight) if self.fit_weights else self.weights
        rules = {**self._aggregators, oof.quantity: rule}
        return self.replace(aggregator=rules, weights=weights)

    def combine(self, oof: OutOfFold, *, X: Any = None, groups: Any = None) -> Consensus:
        """Return the consensus of out-of-fold predictions; uncovered rows are marked and NaN."""
        rows = oof.covered
        if not rows.any():
            message = "Expected at least one covered row; the splitter covered none."
            raise InvalidInputError(message)
        aggregate = self._aggregators[oof.quantity].combine(
            oof.members[:, rows],
            self.weights,
            X=None if X is None else take(X, np.flatnonzero(rows)),
            groups=None if groups is None else np.asarray(groups)[rows],
        )
        name = oof.quantity
        return Consensus(
            names=self.names,
            weights=self.weights,
            mean={name: _spread_out(aggregate.mean, rows)},
            std={name: _spread_out(aggregate.std, rows)},
            disagreement={
                name: {k: _spread_out(v, rows) for k, v in aggregate.disagreement.items()}
            },
            members={name: oof.members},
            covered=rows,
        )

    def prune(
        self, oof: OutOfFold, y: np.ndarray, *, tolerance: float = 1e-4
    ) -> tuple[TeacherEnsemble, tuple[str, ...]]:
        """Drop teachers that say the same as a better one.

        Two teachers are near-duplicates when the mean square of their difference is at most
        ``2 · tolerance`` of the variance of their predictions (scale-free). Teachers are visited
        by ascending mean squared error, ties by name, so that the order of the list does not
        matter.

        Parameters
        ----------
        oof : OutOfFold
            Predictions of these teachers.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Truth: class labels where the quantity is ``"proba"``.
        tolerance : float, default=1e-4
            Largest standardised disagreement of a duplicate, without unit.

        Returns
        -------
        TeacherEnsemble
            The teachers that stay, with their weights.
        tuple of str
            Names of the teachers that were dropped.
        """
        members, truth = _covered(oof, y)
        flat = members.reshape(len(members), -1)
        risk = np.square(flat - truth.reshape(1, -1)).mean(axis=1)
        gram, _ = weighted_gram((flat - flat.mean()).T)
        power = np.diag(gram)
        distance = power[:, None] + power[None, :] - 2.0 * gram
        variance = flat.var(axis=1) * flat.shape[1]
        scale = np.maximum(variance[:, None] + variance[None, :], np.finfo(np.float64).tiny)
        kept: list[int] = []
        for index in sorted(range(len(flat)), key=lambda i: (risk[i], oof.names[i])):
            if all(distance[index, other] / scale[index, other] > tolerance for other in kept):
                kept.append(index)
        kept.sort()
        dropped = tuple(name for i, name in enumerate(oof.names) if i not in kept)
        rules = {name: rule.keep(kept) for name, rule in self._aggregators.items()}
        changes = {"teachers": [self.teachers[index] for index in kept], "aggregator": rules}
        if not self.fit_weights:
            changes["weights"] = self.weights[kept]
        return self.replace(**changes), dropped

    def _rule(self, quantity: str) -> Aggregator:
        rule = self.aggregator
        if isinstance(rule, Mapping):
            rule = rule.get(quantity, "auto")
        if isinstance(rule, str) and rule == "auto":
            return SoftmaxMean() if quantity == PROBA.name else Mean()
        if isinstance(rule, str) and rule == "mean" and quantity == PROBA.name:
            return SoftmaxMean()
        return as_aggregator(rule)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other settings.

        Parameters
        ----------
        **changes
            Parameters of the constructor; the others stay as they are.

        Returns
        -------
        TeacherEnsemble
            The copy.
        """
        names = ("teachers", "weights", "aggregator", "batch_size", "n_jobs", "progress", "name")
        arguments = {name: getattr(self, name) for name in names}
        arguments |= {"weights": "fit" if self.fit_weights else self.weights} | changes
        return type(self)(arguments.pop("teachers"), **arguments)

    def _batch(self, X: Any, members: bool, groups: Any) -> _Batch:
        asked = [i for i, weight in enumerate(self.weights) if weight > 0 or members]
        tasks = [(self.teachers[index], X) for index in asked]
        predictions = fan_out(
            _predict_one,
            tasks,
            n_jobs=self.n_jobs,
            description="consensus",
            progress=self.progress if len(tasks) > 1 and self.batch_size is None else False,
        )
        running: dict[str, Combination] = {
            name: rule.begin(self.weights, X=X, groups=groups)
            for name, rule in self._aggregators.items()
        }
        kept: dict[str, list[np.ndarray]] = {name: [] for name in running}
        classes = self.classes
        for index, teacher in enumerate(self.teachers):
            prediction = next(predictions) if index in asked else None
            for name, combination in running.items():
                if prediction is None:
                    combination.skip()
                    continue
                values = prediction[name]
                if name == PROBA.name and classes is not None:
                    values = align_classes(values, teacher.classes, classes, teacher.name)
                combination.add(values)
                if members:
                    kept[name].append(values)
        aggregates = {name: combination.finish() for name, combination in running.items()}
        return aggregates, {n: np.stack(v) for n, v in kept.items()} if members else {}

    def __repr__(self) -> str:
        listing = ", ".join(self.names)
        return f"TeacherEnsemble([{listing}], aggregator={self.aggregator!r})"


_Batch = tuple[dict[str, Aggregate], dict[str, np.ndarray]]


def _slices(n_samples: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, n_samples, size):
        yield np.arange(start, min(start + size, n_samples))


def _covered(oof: OutOfFold, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and truth of the covered rows; classes one-hot."""
    truth = np.asarray(y)
    if len(truth) != len(oof.covered):
        message = f"Expected targets of {len(oof.covered)} rows; got {len(truth)}."
        raise InvalidInputError(message)
    truth = truth[oof.covered]
    if oof.classes is not None:
        truth = (truth[:, None] == oof.classes[None, :]).astype(np.float64)
    if not np.isfinite(truth).all():
        message = "Expected finite targets; got NaN or infinite ones."
        raise InvalidInputError(message)
    members = oof.members[:, oof.covered]
    if truth.size != members[0].size:
        message = (
            f"Expected targets in the shape of the predictions, {members.shape[1:]}; got "
            f"{truth.shape}."
        )
        raise InvalidInputError(message)
    return members, truth.reshape(members.shape[1:])


def _spread_out(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Put the values of some rows among all rows; the others are NaN."""
    if rows.all():
        return values
    full = np.full((len(rows), *values.shape[1:]), np.nan)
    full[rows] = values
    return full


def _joined(
    batches: list[_Batch], names: tuple[str, ...], weights: np.ndarray, units: dict[str, str]
) -> Consensus:
    quantities = list(batches[0][0])

    def join(arrays: list[np.ndarray], axis: int = 0) -> np.ndarray:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)

    return Consensus(
        names=names,
        weights=weights,
        mean={q: join([batch[q].mean for batch, _ in batches]) for q in quantities},
        std={q: join([batch[q].std for batch, _ in batches]) for q in quantities},
        disagreement={
            q: {
                measure: join([batch[q].disagreement[measure] for batch, _ in batches])
                for measure in batches[0][0][q].disagreement
            }
            for q in quantities
        },
        members={q: join([kept[q] for _, kept in batches], axis=1) for q in batches[0][1]},
        units=units,
    )


def _fit_one(teacher: Teacher, X: Any, y: Any, sample_weight: np.ndarray | None) -> Teacher:
    return teacher.fit(X, y, sample_weight)


def _predict_one(teacher: Teacher, X: Any) -> dict[str, np.ndarray]:
    return teacher.predict(X)
