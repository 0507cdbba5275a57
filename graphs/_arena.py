"""The training sets that are compared, all from the same graphs, and one training on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scikd.exceptions import InvalidInputError

from ._classes import labels_of
from ._cost import Cost, measured
from ._limits import BudgetTooSmallError, NothingFrequentError, TooManySetsError
from .baselines import (
    TreeHistogram,
    fill_budget,
    herding,
    k_center,
    random_order,
    size_model,
    stored_bytes,
    tree_model,
)
from .calibration import class_offsets
from .committee import ClassifierTeacher, label_by_committee
from .dag import MergedGraphs
from .distilled import DistilledGraphs
from .graphset import GraphSet
from .mirage import Mirage, parse_bytes
from .models import ClassifierSettings
from .preparation import Preparation
from .training import (
    ClassifierTraining,
    TrainedClassifier,
    evaluate_logits,
    predict_logits,
    train_classifier,
)

if TYPE_CHECKING:
    from .evaluation import EvaluationOptions

__all__ = ["Arena", "published_within"]

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverse penalties of the linear model, chosen on validation
TEACHER_SEEDS = 1000  # from here on, so that no teacher is a student's twin
PARTS = ("train", "valid", "test")


class Arena:
    """Graphs of one split, made ready once, and what is trained on them.

    Parameters
    ----------
    graphs : GraphSet
        All graphs.
    split : mapping of str to numpy.ndarray
        Numbers of graphs of each part.
    options : EvaluationOptions
        What is compared.
    """

    def __init__(
        self, graphs: GraphSet, split: Mapping[str, np.ndarray], options: EvaluationOptions
    ) -> None:
        parts = _parts(graphs, split)
        self.options = options
        self.classes = np.unique(labels_of(parts[0]))  # each part has all of them
        parts = [replace(p, y=np.searchsorted(self.classes, labels_of(p))) for p in parts]
        self.preparation = Preparation.of(parts[0])
        # Distillation sees the graphs as they are, networks what it makes of them.
        self.raw = parts[0]
        self.train, self.valid, self.test = (self.preparation.apply(part) for part in parts)

    def cells(self) -> list[tuple[str, int | None, str, int]]:
        """Return what is to be done: method, budget, readout, seed."""
        wanted: list[tuple[str, int | None, str, int]]
        wanted = [("size", None, "none", 0), ("trees", None, "none", 0)]
        rounds: list[tuple[int | None, Sequence[str]]]
        rounds = [(parse_bytes(size), self.options.methods) for size in self.options.budgets]
        for budget, methods in [*rounds, (None, ("full",))]:
            wanted += [
                (method, budget, readout, seed)
                for method in methods
                for readout in self.options.readouts
                for seed in range(self.options.seeds)
            ]
        return wanted

    def score(
        self, method: str, budget: int | None, readout: str, seed: int
    ) -> dict[str, Any] | None:
        """Train once, and return what `evaluation.Score` holds; None where nothing fits."""
        self._warm_up()
        if method in ("size", "trees"):
            return self._linear(method)
        try:
            # Only the random subset depends on the seed; the others are the same for all.
            source = self.training_set(method, budget, seed if method == "random" else 0)
        except BudgetTooSmallError:
            return None  # not one graph, or not one set of each class, fits into the budget
        if source is None:
            return None
        data, n_bytes, distilling = source
        trained, training = measured(
            lambda: self._trained(data, readout, seed, whole=method == "full")
        )
        scores: dict[str, float] = {}
        for name, model in (("last", trained.model), ("best", trained.best)):
            logits = [predict_logits(model, part) for part in (self._valid, self._test)]
            scores |= self._judged(name, *logits)
        return {
            **scores,
            "n_bytes": n_bytes,
            "n_items": len(data),
            "seconds_to_distil": distilling.seconds,
            "seconds_to_train": trained.seconds,
            "mib_to_distil": distilling.mib,
            "mib_to_train": training.mib,
        }

    @cache  # noqa: B019 - an arena lives as long as an evaluation
    def training_set(
        self, method: str, budget: int | None, seed: int
    ) -> tuple[MergedGraphs | DistilledGraphs, int, Cost] | None:
        """Return what is trained on, its bytes, and what it costs to make it."""
        # What several need is made once, and costs each of them as much as if it were alone.
        before = Cost()
        if method == "committee":
            before = self._teachers[1]
        elif method in ("herding", "k-center"):
            before = self._histogram[1]
        made, cost = measured(lambda: self._made(method, budget, seed))
        return None if made is None else (*made, before.then(cost))

    def _made(
        self, method: str, budget: int | None, seed: int
    ) -> tuple[MergedGraphs | DistilledGraphs, int] | None:
        if budget is None:
            return self._merged(self.train), stored_bytes(self.train)
        if method in ("mirage", "published", "committee"):
            distilled = self._distilled(method, budget)
            return None if distilled is None else (distilled, distilled.n_bytes)
        chosen = self.train.select(self._subset(method, seed, budget))
        return self._merged(chosen), stored_bytes(chosen)

    def _distilled(self, method: str, budget: int) -> DistilledGraphs | None:
        n_hops = self.options.n_hops
        if method == "published":
            return published_within(self.raw, n_hops, budget)
        if method == "mirage":
            return Mirage(n_hops, budget=budget).fit(self.raw).distilled_
        low, high, best = 1, budget, None
        while low <= high:  # soft labels take bytes too
            middle = (low + high) // 2
            try:
                hard = Mirage(n_hops, budget=middle).fit(self.raw).distilled_
            except BudgetTooSmallError:
                low = middle + 1
                continue
            found = label_by_committee(hard, self._teachers[0])
            if found.n_bytes <= budget:
                best, low = found, middle + 1
            else:
                high = middle - 1
        return best

    @cached_property
    def _teachers(self) -> tuple[list[ClassifierTeacher], Cost]:
        def train() -> list[ClassifierTeacher]:
            data = self._merged(self.train)
            seeds = range(TEACHER_SEEDS, TEACHER_SEEDS + self.options.n_teachers)
            # To a network that sums over nodes every set of a few trees is a small graph.
            models = [self._trained(data, "mean", seed, whole=True).best for seed in seeds]
            return [
                ClassifierTeacher(model, f"seed {seed}")
                for seed, model in zip(seeds, models, strict=True)
            ]

        return measured(train)

    def _subset(self, method: str, seed: int, budget: int) -> np.ndarray:
        codes = self._codes(self.train)
        if method == "random":
            return fill_budget(self.train, random_order(codes, seed), budget)
        rule = herding if method == "herding" else k_center
        number = 8  # of each class; ordering takes its time, so no more than can fit
        while True:
            order = rule(self._histogram[0], codes, number)
            chosen = fill_budget(self.train, order, budget)
            if len(chosen) < len(order) or len(order) == len(self.train):
                return chosen
            number *= 2

    def _trained(
        self, data: MergedGraphs | DistilledGraphs, readout: str, seed: int, *, whole: bool
    ) -> TrainedClassifier:
        training = self.options.full_training if whole else self.options.training
        return train_classifier(
            data,
            self._settings(readout),
            replace(training, seed=seed),
            validation=self._valid,
            progress=False,
        )

    def _settings(self, readout: str) -> ClassifierSettings:
        options = self.options
        return ClassifierSettings(
            n_classes=len(self.classes),
            conv=options.conv,
            n_layers=options.n_hops,
            hidden_channels=options.hidden_channels,
            dropout=options.dropout,
            readout=readout,  # type: ignore[arg-type]
        )

    @cache  # noqa: B019 - as above
    def _warm_up(self) -> None:
        """Compile kernels and load libraries, so that what comes first does not pay for them."""
        one_of_each = [int(np.argmax(self._codes(self.raw) == k)) for k in range(len(self.classes))]
        TreeHistogram(self.options.n_hops).fit_transform(self.train.select(one_of_each))
        mirage = Mirage(self.options.n_hops, min_support=1).fit(self.raw.select(one_of_each))
        train_classifier(
            mirage.distilled_,
            self._settings("sum"),
            ClassifierTraining(steps=1),
            validation=self._valid,
            progress=False,
        )

    def _judged(self, name: str, valid: np.ndarray, test: np.ndarray) -> dict[str, float]:
        """Return the scores of test logits, those of validation graphs setting thresholds."""
        y = self._codes(self.test)
        offsets = class_offsets(valid, self._codes(self.valid))
        found = evaluate_logits(test, y)
        return {
            f"auc_{name}": found["auc"],
            f"accuracy_{name}": found["balanced_accuracy"],
            f"calibrated_{name}": evaluate_logits(test + offsets, y)["balanced_accuracy"],
        }

    def _linear(self, method: str) -> dict[str, Any]:
        logits, cost = measured(self._size_logits if method == "size" else self._tree_logits)
        return {
            **self._judged("last", *logits),
            **self._judged("best", *logits),
            "n_bytes": stored_bytes(self.train),
            "n_items": len(self.train),
            "seconds_to_distil": 0.0,
            "seconds_to_train": cost.seconds,
            "mib_to_distil": 0.0,
            "mib_to_train": cost.mib,
        }

    def _size_logits(self) -> list[np.ndarray]:
        train, *others = (
            np.column_stack([np.diff(part.node_ptr), np.diff(part.arc_ptr)])
            for part in (self.train, self.valid, self.test)
        )
        model = size_model().fit(train, self._codes(self.train))
        return [_logits(model, features) for features in others]

    def _tree_logits(self) -> list[np.ndarray]:
        histogram, y = TreeHistogram(self.options.n_hops), self._codes(self.valid)
        train = histogram.fit_transform(self.train)
        valid, test = (histogram.transform(part) for part in (self.valid, self.test))
        models = [
            tree_model(strength).fit(train, self._codes(self.train)) for strength in STRENGTHS
        ]
        best = max(models, key=lambda model: evaluate_logits(_logits(model, valid), y)["auc"])
        return [_logits(best, features) for features in (valid, test)]

    @cached_property
    def _histogram(self) -> tuple[sparse.csr_array, Cost]:
        return measured(lambda: TreeHistogram(self.options.n_hops).fit_transform(self.train))

    @cached_property
    def _valid(self) -> MergedGraphs:
        return self._merged(self.valid)

    @cached_property
    def _test(self) -> MergedGraphs:
        return self._merged(self.test)

    def _merged(self, graphs: GraphSet) -> MergedGraphs:
        return MergedGraphs.of(graphs, self.options.n_hops, classes=np.arange(len(self.classes)))

    @staticmethod
    def _codes(graphs: GraphSet) -> np.ndarray:
        return np.asarray(graphs.y)


def published_within(graphs: GraphSet, n_hops: int, budget: int) -> DistilledGraphs | None:
    """Distil by the published algorithm, with the lowest support that fits into a budget.

    The paper sets thresholds by hand. Here they are one share of each class, found by bisection.

    Parameters
    ----------
    graphs : GraphSet
        The training graphs.
    n_hops : int
        Depth of the trees.
    budget : int
        Bytes.

    Returns
    -------
    DistilledGraphs or None
        None where no share gives every class a set within the budget.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(14):
        share = (low + high) / 2
        mirage = Mirage(n_hops, min_support=share, mode="published", max_sets=budget)
        try:
            found = mirage.fit(graphs).distilled_
        except TooManySetsError:
            low = share
            continue
        except NothingFrequentError:
            high = share
            continue
        if found.n_bytes <= budget:
            best, high = found, share
        else:
            low = share
    return best


def _logits(model: Any, features: Any) -> np.ndarray:
    decision = model.decision_function(features)
    return np.column_stack([-decision / 2, decision / 2]) if decision.ndim == 1 else decision


def _parts(graphs: GraphSet, split: Mapping[str, np.ndarray]) -> list[GraphSet]:
    """Return the parts of a split, after looking that they are fit for a comparison."""
    missing = [name for name in PARTS if name not in split or not len(split[name])]
    if missing:
        message = f"Expected a split with {', '.join(PARTS)}; it has no {', '.join(missing)}."
        raise InvalidInputError(message)
    every = np.concatenate([np.asarray(split[name]) for name in PARTS])
    repeated = len(every) - len(np.unique(every))
    if repeated:
        message = f"Expected parts of the split that do not overlap; {repeated} graphs are in two."
        raise InvalidInputError(message)
    parts = [graphs.select(split[name]) for name in PARTS]
    held = [set(labels_of(part).tolist()) for part in parts]
    classes = set().union(*held)
    lacking = [
        f"{name} has none of {sorted(classes - own)}"
        for name, own in zip(PARTS, held, strict=True)
        if classes != own
    ]
    if len(classes) < 2 or lacking:
        message = (
            "Expected two classes or more, and graphs of each in every part of the split; "
            f"{', '.join(lacking) or f'all are of {sorted(classes)}'}."
        )
        raise InvalidInputError(message)
    return parts
