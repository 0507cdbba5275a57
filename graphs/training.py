"""Train a classifier on merged trees: on distilled graphs, or on whole data sets without loss."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from sklearn.metrics import roc_auc_score
from torch import Tensor

from scikd._atomic import new_folder
from scikd._devices import choose_device
from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError

from ._checkpoints import DIGESTS, Standing, digest, load_checkpoint, save_checkpoint
from .dag import MergedGraphs
from .distilled import DistilledGraphs
from .models import ClassifierSettings, GraphClassifier

__all__ = [
    "ClassifierTraining",
    "TrainedClassifier",
    "evaluate_logits",
    "predict_logits",
    "train_classifier",
]


NOT_FINITE = (
    "it is infinite or NaN. Lower learning_rate, or use norm='layer': sums over large graphs are "
    "large."
)


@dataclass(frozen=True)
class ClassifierTraining:
    """How a `GraphClassifier` is trained.

    Parameters
    ----------
    steps : int, default=300
        Steps of Adam.
    batch_size : int or None, default=None
        Graphs, or sets of trees, in a step; None takes all of them.
    learning_rate : float, default=0.002
        Of Adam.
    weight_decay : float, default=0.0001
        Of Adam.
    balanced : bool, default=True
        Whether every class counts the same in the loss, however many graphs it has.
    evaluate_every : int, default=10
        Steps between two looks at the validation graphs.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
    seed : int, default=0
        Of the first weights, the batches and dropout.
    """

    steps: int = 300
    batch_size: int | None = None
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    balanced: bool = True
    evaluate_every: int = 10
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name)
            for name in ("steps", "learning_rate", "evaluate_every", "batch_size")
        }
        wrong = [f"{n}={v!r}" for n, v in positive.items() if v is not None and not v > 0]
        if not self.weight_decay >= 0:
            wrong.append(f"weight_decay={self.weight_decay!r}")
        if wrong:
            message = f"Expected positive numbers (weight_decay may be 0); got {', '.join(wrong)}."
            raise InvalidInputError(message)


@dataclass(frozen=True)
class TrainedClassifier:
    """What a training gave.

    Attributes
    ----------
    model : GraphClassifier
        After the last step.
    best : GraphClassifier
        At the best validation AUC; the last where there is nothing to validate on.
    history : list of dict
        One entry for each look: ``"step"``, ``"loss"``, and the validation's ``"auc"`` and
        ``"balanced_accuracy"``.
    seconds : float
        Of the steps, without the looks.
    """

    model: GraphClassifier
    best: GraphClassifier
    history: list[dict[str, float]] = field(repr=False)
    seconds: float


def train_classifier(
    train: MergedGraphs | DistilledGraphs,
    settings: ClassifierSettings,
    options: ClassifierTraining | None = None,
    *,
    validation: MergedGraphs | None = None,
    soft_labels: np.ndarray | None = None,
    model: GraphClassifier | None = None,
    folder: str | Path | None = None,
    progress: Progress = "auto",
) -> TrainedClassifier:
    """Train a classifier on merged trees.

    Parameters
    ----------
    train : MergedGraphs or DistilledGraphs
        Graphs or sets of trees, with classes and weights.
    settings : ClassifierSettings
        Kind and sizes of the model.
    options : ClassifierTraining or None, default=None
        How to train.
    validation : MergedGraphs or None, default=None
        Graphs that the best step is chosen on.
    soft_labels : numpy.ndarray of shape (n_graphs, n_classes) or None, default=None
        Probabilities to learn in place of the classes; those of distilled graphs by default.
    model : GraphClassifier or None, default=None
        A model to go on with; it is not changed. None makes one for the training data.
    folder : str, pathlib.Path or None, default=None
        Keeps a checkpoint at each look. A call with the same data and options goes on from it, on a
        CPU to the same numbers as without a stop; one that was at its end returns at once.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Returns
    -------
    TrainedClassifier
        The model after the last step, and at the best look, both in the CPU's memory.

    Raises
    ------
    InvalidInputError
        If there are no two classes, those of the parts differ, shapes do not fit, there is no such
        device, a loss is not finite, or the folder holds a training on other data or with other
        options.
    StorageError, CorruptFileError, SchemaError
        If a checkpoint cannot be written or read.
    """
    options = options or ClassifierTraining()
    if isinstance(train, DistilledGraphs):
        soft_labels = train.soft_labels if soft_labels is None else soft_labels
        train = train.merged()
    _check_data(train, soft_labels, validation, model, settings)
    device = choose_device(options.device)
    cut = _cut(train, settings)
    if options.batch_size is None or options.batch_size >= len(cut):
        cut = _on(cut, device)  # else batches are cut out of it here, and moved one by one
    targets = _targets(train, soft_labels, settings.n_classes)
    weights = _weights(train, targets, balanced=options.balanced).to(device)
    targets = targets.to(device)
    looks = None if validation is None else _on(_cut(validation, settings), device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), _place_for(folder):
        torch.manual_seed(options.seed)
        model = GraphClassifier.for_data(train, settings) if model is None else copy.deepcopy(model)
        model.to(device)
        optimiser = torch.optim.Adam(
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        at = Standing(model, optimiser, np.random.default_rng(options.seed))
        kept = _Kept(folder, at, (train, validation, soft_labels), options)
        rest = range(at.step + 1, options.steps + 1)
        for step in track(rest, total=len(rest), description="training", progress=progress):
            start = perf_counter()
            batch, rows = _batch(cut, options.batch_size, at.random)
            loss = _step(model, optimiser, _on(batch, device), targets[rows], weights[rows])
            at.step, at.seconds = step, at.seconds + perf_counter() - start
            if step % options.evaluate_every == 0 or step == options.steps:
                _look(at, loss, looks)
                kept.write(at)
    model.cpu().eval()
    return TrainedClassifier(
        model, model if at.best is None else at.best.cpu().eval(), at.history, at.seconds
    )


def predict_logits(model: GraphClassifier, graphs: MergedGraphs) -> np.ndarray:
    """Return the logits of graphs, without dropout; shape (n_graphs, n_classes), float64."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        device = next(model.parameters()).device
        logits: np.ndarray = model(_on(graphs, device)).cpu().double().numpy()
    model.train(was_training)
    return logits


def evaluate_logits(logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Judge logits.

    Parameters
    ----------
    logits : numpy.ndarray of shape (n_graphs, n_classes)
        Of a classifier. Probabilities would tie where they round to 0 or 1.
    y : numpy.ndarray of shape (n_graphs,)
        Classes, from 0.

    Returns
    -------
    dict
        ``"auc"``: area under the ROC curve of the difference of the logits; of more than two
        classes the mean over each against the rest. ``"balanced_accuracy"``: mean over the classes
        of the share that is right. NaN where a class has no graph.

    Raises
    ------
    InvalidInputError
        If a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise InvalidInputError(f"Expected finite logits; {NOT_FINITE}")
    n_classes = logits.shape[1]
    aucs, shares = [], []
    for label in range(1 if n_classes == 2 else 0, n_classes):
        rest = np.delete(logits, label, axis=1)
        top = rest.max(axis=1)
        margin = logits[:, label] - top - np.log(np.exp(rest - top[:, None]).sum(axis=1))
        both = 0 < (y == label).sum() < len(y)
        aucs.append(roc_auc_score(y == label, margin) if both else np.nan)
    for label in range(n_classes):
        members = y == label
        right = logits[members].argmax(axis=1) == label
        shares.append(right.mean() if members.any() else np.nan)
    return {"auc": float(np.mean(aucs)), "balanced_accuracy": float(np.mean(shares))}


def _check_data(
    train: MergedGraphs,
    soft_labels: np.ndarray | None,
    validation: MergedGraphs | None,
    model: GraphClassifier | None,
    settings: ClassifierSettings,
) -> None:
    for part in (train, validation):
        if part is not None and not isinstance(part, MergedGraphs):
            message = (
                f"Expected MergedGraphs; got {type(part).__name__}. Merge them: MergedGraphs.of("
                f"distilled.prepare(graphs), {settings.n_layers}, classes=distilled.classes)."
            )
            raise InvalidInputError(message)
    if train.y is None or not len(train):
        raise InvalidInputError("Expected graphs with classes to train on; got none.")
    found = torch.unique(train.y).tolist()
    if len(found) < 2 and soft_labels is None:
        only = found[0] if train.classes is None else train.classes[found[0]]
        message = (
            f"Expected two classes to tell apart; all {len(train)} graphs are of class {only}."
        )
        raise InvalidInputError(message)
    if validation is not None:
        if validation.y is None or not len(validation):
            raise InvalidInputError("Expected graphs with classes to validate on; got none.")
        ours, theirs = train.classes, validation.classes
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            message = (
                f"Expected graphs of the classes {ours.tolist()}, in this order, to validate on; "
                f"got {theirs.tolist()}. Merge them with classes=, those of the training graphs."
            )
            raise InvalidInputError(message)
    if model is not None and model.settings != settings:
        message = f"Expected a model with the settings {settings}; it has {model.settings}."
        raise InvalidInputError(message)


class _Kept:
    """The checkpoint of a training, where one is wanted."""

    def __init__(
        self,
        folder: str | Path | None,
        at: Standing,
        data: tuple[MergedGraphs, MergedGraphs | None, np.ndarray | None],
        options: ClassifierTraining,
    ) -> None:
        if folder is None:
            self.path = None
            return
        self.path = Path(folder) / "checkpoint"
        weights = {name: values.cpu() for name, values in at.model.state_dict().items()}
        digests = [*map(digest, data), digest(weights)]
        self.settings = {**asdict(options), **asdict(at.model.settings)}
        self.settings |= dict(zip(DIGESTS, digests, strict=True))
        if self.path.exists():
            load_checkpoint(self.path, at, self.settings)

    def write(self, at: Standing) -> None:
        if self.path is not None:
            save_checkpoint(self.path, at, self.settings)


def _place_for(folder: str | Path | None) -> AbstractContextManager[None]:
    return nullcontext() if folder is None else new_folder(Path(folder))


def _look(at: Standing, loss: float, graphs: MergedGraphs | None) -> None:
    """Add to the history, and keep the model if it is the best."""
    entry = {"step": float(at.step), "loss": loss}
    if graphs is not None and graphs.y is not None:
        entry |= evaluate_logits(predict_logits(at.model, graphs), graphs.y.cpu().numpy())
        if entry["auc"] > at.best_auc:
            at.best, at.best_auc = copy.deepcopy(at.model), entry["auc"]
    at.history.append(entry)


def _step(
    model: GraphClassifier,
    optimiser: torch.optim.Optimizer,
    batch: MergedGraphs,
    targets: Tensor,
    weights: Tensor,
) -> float:
    model.train()
    losses = F.cross_entropy(model(batch), targets, reduction="none")
    # A small batch may hold nothing but sets of weight 0; then there is nothing to learn from it.
    loss = (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    if not torch.isfinite(loss):
        raise InvalidInputError(f"Expected a finite loss; {NOT_FINITE}")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _cut(graphs: MergedGraphs, settings: ClassifierSettings) -> MergedGraphs:
    """Cut trees once that the model would cut at each call."""
    if settings.conv == "gcn" and graphs.degrees is None and graphs.n_hops > settings.n_layers:
        return graphs.truncate(settings.n_layers + 1)
    return graphs.truncate(min(graphs.n_hops, settings.n_layers))


def _on(graphs: MergedGraphs, device: torch.device) -> MergedGraphs:
    # Moved ones forget what they have sorted, so those that are there stay as they are.
    return graphs if graphs.weights.device == device else graphs.to(device)


def _batch(
    graphs: MergedGraphs, size: int | None, random: np.random.Generator
) -> tuple[MergedGraphs, Tensor]:
    if size is None or size >= len(graphs):
        return graphs, torch.arange(len(graphs))
    rows = np.sort(random.choice(len(graphs), size, replace=False))
    return graphs.batch(rows), torch.from_numpy(rows)


def _targets(graphs: MergedGraphs, soft_labels: np.ndarray | None, n_classes: int) -> Tensor:
    assert graphs.y is not None  # noqa: S101 - the caller has looked
    if soft_labels is None:
        if int(graphs.y.max()) >= n_classes:
            message = (
                f"Expected classes below n_classes={n_classes}; got {int(graphs.y.max())}. Set "
                "n_classes in the settings."
            )
            raise InvalidInputError(message)
        return graphs.y
    if np.shape(soft_labels) != (len(graphs), n_classes):
        message = (
            f"Expected soft_labels of shape {(len(graphs), n_classes)}; got "
            f"{np.shape(soft_labels)}."
        )
        raise InvalidInputError(message)
    proba = np.asarray(soft_labels, dtype=np.float64)
    if not ((proba >= 0).all() and np.allclose(proba.sum(axis=1), 1.0, rtol=0.0, atol=1e-3)):
        message = (
            "Expected soft_labels that are probabilities; some are negative, or do not add up to 1."
        )
        raise InvalidInputError(message)
    return torch.as_tensor(proba, dtype=torch.get_default_dtype())


def _weights(graphs: MergedGraphs, targets: Tensor, *, balanced: bool) -> Tensor:
    weights = graphs.weights.to(torch.get_default_dtype())
    if not balanced:
        return weights
    proba = targets if targets.is_floating_point() else F.one_hot(targets).to(weights.dtype)
    totals = (weights[:, None] * proba).sum(dim=0)
    return weights * (proba / totals.clamp(min=torch.finfo(totals.dtype).tiny)).sum(dim=1)
