"""Train a ranker on days of stocks: on forward returns, or on what its teachers agree on."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from scikd._atomic import new_folder
from scikd._checkpoints import load_checkpoint, save_checkpoint
from scikd._devices import choose_device
from scikd._distributed import Processes, joined_processes
from scikd._progress import Progress, track
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs

from .backbone import Ranker
from .losses import RankMethod, distillation_loss, rank_correlation_loss

__all__ = [
    "DailyWindows",
    "RankerTraining",
    "TrainedRanker",
    "WindowArrays",
    "predict_scores",
    "train_ranker",
]

logger = logging.getLogger(__name__)

KIND = "scikd.finance.Training"
DIGESTS = ("samples", "targets", "first weights")  # of the settings, which say nothing to a reader
ADVICE = "Choose another folder, or delete that one to start anew."
BLOCK = 8192  # windows that are gathered at a time to be scored


class DailyWindows(Protocol):
    """What is trained on: `Samples` of a panel, or `WindowArrays`."""

    @property
    def label(self) -> np.ndarray | None:
        """What to learn, shape (n_samples,)."""

    @property
    def day_ptr(self) -> np.ndarray:
        """Where days begin, shape (n_days + 1,)."""

    def __len__(self) -> int: ...

    def windows(self, which: Any = ...) -> np.ndarray:
        """Return windows of float32 and shape (n, look_back, n_features)."""

    def take(self, which: slice) -> DailyWindows:
        """Return the samples of some days that follow one another."""


@dataclass(frozen=True, eq=False, repr=False)
class WindowArrays:
    """Windows that are held as one array, day after day.

    Parameters
    ----------
    X : numpy.ndarray of float32 and shape (n_samples, look_back, n_features)
        Windows in any order.
    order : numpy.ndarray of int64 and shape (n_samples,)
        Places in X, one day after the other.
    day_ptr : numpy.ndarray of int64 and shape (n_days + 1,)
        Where days begin in that order.
    label : numpy.ndarray of shape (n_samples,) or None
        What to learn, in that order.
    """

    X: np.ndarray
    order: np.ndarray
    day_ptr: np.ndarray
    label: np.ndarray | None = None

    @classmethod
    def of(
        cls, X: np.ndarray, y: np.ndarray | None = None, groups: np.ndarray | None = None
    ) -> WindowArrays:
        """Sort samples by day; without groups all are of one day."""
        codes = np.zeros(len(X), np.int64)
        if groups is not None:
            codes = np.unique(groups, return_inverse=True)[1].reshape(len(X))
        order = np.argsort(codes, kind="stable")
        ptr = np.append(np.flatnonzero(np.diff(codes[order], prepend=-1)), len(X))
        return cls(X, order, ptr.astype(np.int64), None if y is None else y[order])

    def __len__(self) -> int:
        return len(self.order)

    def windows(self, which: Any = slice(None)) -> np.ndarray:
        """Return the windows of some samples, by their places in the order of days."""
        return self.X[self.order[which]]

    def take(self, which: slice) -> WindowArrays:
        """Return the samples of whole days, given as a slice of the order of days."""
        start, stop, _ = which.indices(len(self))
        ptr = self.day_ptr[(self.day_ptr >= start) & (self.day_ptr <= stop)] - start
        label = None if self.label is None else self.label[which]
        return WindowArrays(self.X, self.order[which], ptr, label)


@dataclass(frozen=True)
class RankerTraining:
    """How a `Ranker` is trained.

    Parameters
    ----------
    epochs : int, default=100
        Passes over the days.
    batch_size : int, default=256
        Rows of a step: whole days are taken until there are at least so many.
    learning_rate : float, default=0.0001
        Of Adam.
    weight_decay : float, default=0.0
        Of Adam.
    swa_epochs : int, default=0
        Epochs at the end whose weights are averaged; 0 takes the last weights.
    method : {"pairwise", "linear"}, default="pairwise"
        Soft ranks of the loss on forward returns, see `scikd.finance.losses.soft_ranks`.
    sharpness : float, default=1.0
        Of "pairwise".
    temperature, smoothing : float, default=0.01 and 0.9
        Of distillation, see `scikd.finance.losses.teacher_distribution`.
    truth_weight : float, default=0.0
        Share of the loss on forward returns in distillation, from 0 to 1.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
    seed : int, default=0
        Of the order of the days, and of dropout.
    """

    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    swa_epochs: int = 0
    method: RankMethod = "pairwise"
    sharpness: float = 1.0
    temperature: float = 0.01
    smoothing: float = 0.9
    truth_weight: float = 0.0
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be, all at once."""
        problems = _training_problems(asdict(self))
        if problems:
            raise InvalidInputError(f"Cannot train with these options: {'; '.join(problems)}.")


def _training_problems(options: Mapping[str, Any], epochs: str = "epochs") -> list[str]:
    """Return what cannot be among some options of `RankerTraining`.

    ``epochs`` is what the caller calls the number of epochs.
    """
    positive = (epochs, "batch_size", "learning_rate", "sharpness", "temperature")
    limits = dict.fromkeys(positive, "more than 0") | dict.fromkeys(
        ("weight_decay", "swa_epochs"), "at least 0"
    )
    within = {
        "more than 0": lambda value: value > 0,
        "at least 0": lambda value: value >= 0,
        "0 to 1": lambda value: 0 <= value <= 1,
    }
    limits |= dict.fromkeys(("smoothing", "truth_weight"), "0 to 1")
    problems = [
        f"{name} is {options[name]!r}, expected {limit}"
        for name, limit in limits.items()
        if name in options and not within[limit](options[name])
    ]
    if options.get("swa_epochs", 0) > options[epochs]:
        averaged = options["swa_epochs"]
        problems.append(f"swa_epochs {averaged} are more than {epochs} {options[epochs]}")
    if options["method"] not in get_args(RankMethod):
        problems.append(f"method is {options['method']!r}, expected 'pairwise' or 'linear'")
    return problems


@dataclass(frozen=True)
class TrainedRanker:
    """What a training gave.

    Attributes
    ----------
    model : Ranker
        The trained network, in the CPU's memory; averaged over the last epochs if that was asked.
    history : list of dict
        ``"epoch"`` and ``"loss"`` of each epoch.
    seconds : float
        Of the epochs.
    """

    model: Ranker
    history: list[dict[str, float]] = field(repr=False)
    seconds: float


def train_ranker(
    model: Ranker,
    samples: DailyWindows,
    options: RankerTraining | None = None,
    *,
    targets: np.ndarray | None = None,
    folder: str | Path | None = None,
    name: str = "ranker",
    progress: Progress = "auto",
) -> TrainedRanker:
    """Train a ranker on the order of forward returns, or on what its teachers agree on.

    Under ``torchrun`` the days of each step are shared between the processes.

    Parameters
    ----------
    model : Ranker
        Where to begin; it is not changed.
    samples : DailyWindows
        Windows by day, with labels.
    options : RankerTraining or None, default=None
        How to train.
    targets : numpy.ndarray of shape (n_samples,) or None, default=None
        Scores that teachers agree on; the loss is then distillation.
    folder : str, pathlib.Path or None, default=None
        Keeps a checkpoint at the end of each epoch. A call with the same data and options goes on
        from it, on a CPU to the same numbers as without a stop; one that was at its end returns at
        once.
    name : str, default="ranker"
        What the log calls it.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress; "auto" does on a terminal. One line for each epoch goes to the log
        in any case.

    Returns
    -------
    TrainedRanker
        Network and history.

    Raises
    ------
    InvalidInputError
        If labels are missing or not finite, the loss becomes NaN or infinite, or the folder holds a
        training on other data or with other options.
    StorageError, CorruptFileError, SchemaError
        If a checkpoint cannot be written or read.
    """
    options = options or RankerTraining()
    labels = _checked(samples, targets, options)
    device = choose_device(options.device)
    gpus = [device] if device.type == "cuda" else []
    place = nullcontext() if folder is None else new_folder(Path(folder))
    processes = joined_processes()
    with torch.random.fork_rng(devices=gpus), place:
        torch.manual_seed(options.seed)
        run = _Run(copy.deepcopy(model).to(device).train(), samples, labels, options, processes)
        path = None if folder is None else Path(folder) / "checkpoint"
        settings = {} if path is None else _settings(model, samples, targets, options)
        if path is not None and path.exists():
            run.resume(path, settings)
        for epoch in range(run.epoch, options.epochs):
            shown = progress is True or (progress == "auto" and sys.stderr.isatty())
            run.advance(name, progress=shown and processes.rank == 0)
            if epoch >= options.epochs - options.swa_epochs:
                run.average()
            if path is not None and processes.rank == 0:
                run.write(path, settings)
    trained = run.averaged if options.swa_epochs else run.model
    return TrainedRanker(trained.cpu().eval(), run.history, run.seconds)


def predict_scores(
    model: Ranker, samples: DailyWindows, *, device: str = "auto", block: int = BLOCK
) -> np.ndarray:
    """Return the scores of samples.

    Parameters
    ----------
    model : Ranker
        Stays where it is unless the device is another.
    samples : DailyWindows
        Windows by day.
    device : str, default="auto"
        Where to compute; "auto" takes a GPU where there is one.
    block : int, default=8192
        Windows that are gathered at a time.

    Returns
    -------
    numpy.ndarray of float64 and shape (n_samples,)
        The scores.
    """
    place = choose_device(device)
    home, was_training = model.embed.weight.device, model.training
    model.to(place).eval()
    scores = np.empty(len(samples))
    with torch.inference_mode():
        for start in range(0, len(samples), block):
            part = slice(start, start + block)
            windows = torch.from_numpy(samples.windows(part)).to(place)
            scores[part] = model(windows).cpu().numpy()
    model.to(home).train(was_training)
    return scores


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: Ranker,
        samples: DailyWindows,
        labels: list[Tensor | None],
        options: RankerTraining,
        processes: Processes,
    ) -> None:
        self.model, self.samples, self.labels = model, samples, labels
        self.options, self.processes = options, processes
        self.day_ptr = np.asarray(samples.day_ptr)
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.epoch, self.n_averaged, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, float]] = []

    def advance(self, name: str, *, progress: bool) -> None:
        """Train for an epoch, and say so in the log."""
        start, total = perf_counter(), 0.0
        batches = list(self._batches())
        what = f"{name}, epoch {self.epoch + 1}"
        for days in track(batches, total=len(batches), description=what, progress=progress):
            total += self._step(days) * len(days)
        self.epoch += 1
        spent = perf_counter() - start
        self.seconds += spent
        loss = total / (len(self.day_ptr) - 1)
        self.history.append({"epoch": float(self.epoch), "loss": loss})
        if self.processes.rank == 0:
            speed = len(self.samples) / spent
            message = "%s: epoch %d/%d: loss %.5f; %.3g samples/s"
            logger.info(message, name, self.epoch, self.options.epochs, loss, speed)

    def _batches(self) -> Iterator[np.ndarray]:
        """Yield days, in an order that depends on seed and epoch alone."""
        random = np.random.default_rng([self.options.seed, self.epoch])
        days = random.permutation(len(self.day_ptr) - 1)
        full = np.cumsum(np.diff(self.day_ptr)[days])
        begin, done = 0, 0
        while begin < len(days):
            end = int(np.searchsorted(full, done + self.options.batch_size)) + 1
            yield np.sort(days[begin:end])
            begin, done = end, full[min(end, len(days)) - 1]

    def _step(self, days: np.ndarray) -> float:
        """Take a step on some days, and return the loss on all of them."""
        share = days[self.processes.rank :: self.processes.count]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.parameters[0].new_zeros(())
        if len(share):  # of a small batch, some processes may have no part
            loss = self._loss(share) * (len(share) / len(days))
            loss.backward()  # type: ignore[no-untyped-call]
        value = float(self.processes.sum_gradients(self.parameters, loss.detach()[None]))
        if not np.isfinite(value):
            message = (
                f"Expected a finite loss; it became {value} in epoch {self.epoch + 1}. Look for "
                "features that are not finite or very large, or lower learning_rate (now "
                f"{self.options.learning_rate:g})."
            )
            raise InvalidInputError(message)
        self.optimizer.step()
        return value

    def _loss(self, days: np.ndarray) -> Tensor:
        begins, ends = self.day_ptr[days], self.day_ptr[days + 1]
        ptr = np.append(0, np.cumsum(ends - begins))
        rows = np.arange(ptr[-1]) + np.repeat(begins - ptr[:-1], ends - begins)
        device = self.parameters[0].device
        scores = self.model(torch.from_numpy(self.samples.windows(rows)).to(device))
        y, targets = (None if one is None else one[rows].to(device) for one in self.labels)
        options, day_ptr = self.options, torch.from_numpy(ptr).to(device)
        loss = scores.new_zeros(())
        weight = 1.0 if targets is None else options.truth_weight
        if y is not None and weight > 0:
            loss = weight * rank_correlation_loss(
                scores, y, day_ptr, options.method, sharpness=options.sharpness
            )
        if targets is not None and weight < 1:
            loss = loss + (1 - weight) * distillation_loss(
                scores, targets, day_ptr, options.temperature, options.smoothing
            )
        return loss

    @torch.no_grad()
    def average(self) -> None:
        """Take the present weights into the mean."""
        self.n_averaged += 1
        for mean, weight in zip(self.averaged.parameters(), self.parameters, strict=True):
            mean.lerp_(weight, 1.0 / self.n_averaged)

    def write(self, path: Path, settings: dict[str, Any]) -> None:
        """Write a checkpoint."""
        standing = {name: getattr(self, name) for name in ("epoch", "n_averaged", "seconds")}
        save_checkpoint(
            path,
            kind=KIND,
            standing={**standing, "history": self.history},
            modules={"model": self.model, "averaged": self.averaged},
            optimizer=self.optimizer,
            settings=settings,
        )

    def resume(self, path: Path, settings: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        standing = load_checkpoint(
            path,
            kind=KIND,
            modules={"model": self.model, "averaged": self.averaged},
            optimizer=self.optimizer,
            settings=settings,
            digests=DIGESTS,
            advice=ADVICE,
        )
        for name, value in standing.items():
            setattr(self, name, value)


def _checked(
    samples: DailyWindows, targets: np.ndarray | None, options: RankerTraining
) -> list[Tensor | None]:
    """Return labels and targets as tensors, where they are needed."""
    needs_label = targets is None or options.truth_weight > 0
    given = {"labels": samples.label if needs_label else None, "targets": targets}
    if needs_label and given["labels"] is None:
        raise InvalidInputError("Expected samples with labels to train on; got none.")
    for what, values in given.items():
        if values is None:
            continue
        if values.shape != (len(samples),) or not np.isfinite(values).all():
            message = (
                f"Expected {len(samples)} finite {what}, one for each sample; got shape "
                f"{values.shape} with {int((~np.isfinite(values)).sum())} that are not finite."
            )
            raise InvalidInputError(message)
    if not len(samples):
        raise InvalidInputError("Expected at least one sample to train on; got none.")
    return [
        None if values is None else torch.from_numpy(np.asarray(values, dtype=np.float64))
        for values in given.values()
    ]


def _settings(
    model: Ranker, samples: DailyWindows, targets: np.ndarray | None, options: RankerTraining
) -> dict[str, Any]:
    """Return what a training must have in common with the checkpoint that it goes on from."""
    parts = [getattr(samples, part.name) for part in fields(samples)]  # type: ignore[arg-type]
    weights = {key: value.cpu() for key, value in model.state_dict().items()}
    table = None if model.bias is None else model.bias(model.settings.n_tokens).detach().cpu()
    digests = [fingerprint_inputs(one) for one in (parts, targets, [weights, table])]
    plain = asdict(options) | asdict(model.settings) | dict(zip(DIGESTS, digests, strict=True))
    del plain["device"]  # a training may move
    return plain
