"""The loop of a training: steps, epochs, checkpoints, and how it is stopped."""

from __future__ import annotations

import copy
import logging
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scikd._atomic import new_folder
from scikd._distributed import Processes
from scikd._progress import Progress, track

from ._checkpoints import Standing, load_checkpoint, save_checkpoint
from ._optimise import average, learning_rate, make_optimizer
from ._process import StopRequest
from ._training_data import FrameSet, groups_of, plan_batches
from ._training_log import ERRORS, TrainingLog, root_mean_squares
from .losses import DivergedError, Loss, LossOptions, Mean
from .model import ForceField
from .storage import save_force_field

if TYPE_CHECKING:
    from .training import TrainingOptions

__all__ = ["Course", "Trainer"]

logger = logging.getLogger("scikd.md.training")

CHECKPOINT, MODEL = "checkpoint", "model"


@dataclass(frozen=True)
class Course:
    """What a training learns from.

    Parameters
    ----------
    train, validation : FrameSet
        The structures.
    loss : Loss
        What is minimised on them.
    name : str, default=""
        What the columns of the log begin with.
    as_labelled : bool, default=True
        Whether the labels are those of the level of theory (see `ForceField.forward`), or those of
        a force field in use, which may contain dispersion that the level does not.
    by_group : bool, default=False
        Whether a batch holds structures of one group only.
    """

    train: FrameSet
    validation: FrameSet
    loss: Loss
    name: str = ""
    as_labelled: bool = True
    by_group: bool = False

    @property
    def squares(self) -> Loss:
        """What measures the errors of the log: unweighted mean squares, of energies per atom."""
        offset = self.loss.options.energies_relative_to
        ones: dict[str, Any] = dict.fromkeys(self.loss.weights, 1.0)
        rest: dict[str, Any] = dict.fromkeys(set(ERRORS) - set(ones), 0.0)
        return Loss(LossOptions(**ones, **rest, per_atom=True, offset=offset))

    def column(self, name: str) -> str:
        """Return the name of a column of the log."""
        return f"{self.name}_{name}" if self.name else name


class Trainer:
    """A training under way.

    Several courses take turns, a step each. The first sets how long an epoch is; of the others as
    many batches are taken, in an order of each epoch's own, and again from the front if they are
    few. What is validated is the sum of their losses.

    Parameters
    ----------
    options : TrainingOptions
        Of the training.
    force_field : ForceField
        What is trained, in place: the parameters that require a gradient.
    courses : sequence of Course
        What it learns from.
    settings : mapping
        What a checkpoint must have been made with to go on from it.
    progress : {"auto", True, False}
        See `scikd._progress.track`.
    processes : Processes
        That share each step.
    """

    def __init__(
        self,
        options: TrainingOptions,
        force_field: ForceField,
        courses: Sequence[Course],
        settings: Mapping[str, Any],
        progress: Progress,
        processes: Processes,
    ) -> None:
        self.options, self.courses = options, tuple(courses)
        self.settings, self.progress = settings, progress
        self.force_field = force_field
        self.averaged = copy.deepcopy(force_field).requires_grad_(False)
        self.averaged.eval()
        self.best = copy.deepcopy(self.averaged)
        self.optimizer = make_optimizer(force_field, options)
        twins = list(zip(force_field.parameters(), self.averaged.parameters(), strict=True))
        self.parameters = [p for p, _ in twins if p.requires_grad]
        self.averaged_parameters = [twin for p, twin in twins if p.requires_grad]
        self.standing = Standing()
        self.output = options.output
        self.processes, self.rank = processes, processes.rank

    # ------------------------------------------------------------------------------ the whole run

    def run(self, begin: Callable[[], object] | None = None) -> None:
        """Train to the end, from where the checkpoint is if there is one.

        Parameters
        ----------
        begin : callable or None, default=None
            Called once the output is known to hold nothing of another training.
        """
        options, folder = self.options, self.output if self.rank == 0 else None
        with nullcontext() if folder is None else new_folder(folder):
            self._resume()
            if begin is not None:
                begin()
            with (
                TrainingLog(folder, options.epochs, tensorboard=options.tensorboard) as self.log,
                StopRequest() as stop,
            ):
                while not self.finished:
                    self._epoch(stop)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last ones made nothing better."""
        standing, patience = self.standing, self.options.patience
        waited = standing.epoch - standing.best_epoch
        return standing.epoch >= self.options.epochs or (
            patience is not None and waited >= patience
        )

    def _epoch(self, stop: StopRequest) -> None:
        standing, options = self.standing, self.options
        batches = list(self._turns(shuffle=(options.seed, standing.epoch)))
        begin, saved = time.perf_counter(), time.monotonic()
        seconds = standing.sums.pop("seconds", 0.0)
        remaining = batches[standing.batch :]
        shown = self.progress is True or (self.progress == "auto" and sys.stderr.isatty())
        steps = track(
            remaining,
            total=len(remaining),
            description=f"epoch {standing.epoch + 1}",
            progress=shown and self.rank == 0,
        )
        for course, indices in steps:
            epoch = standing.epoch + standing.batch / len(batches)
            wanted = self._step(course, indices, epoch, stop)
            standing.batch += 1
            late = time.monotonic() - saved > options.checkpoint_seconds
            # In one process the clock decides; of several, the first, and the others save nothing.
            if wanted or late:
                standing.sums["seconds"] = seconds + time.perf_counter() - begin
                self._save()
                saved = time.monotonic()
            if wanted:
                self._leave(stop)
        self._close_epoch(batches, seconds + time.perf_counter() - begin)

    def _leave(self, stop: StopRequest) -> None:
        where = f"; the checkpoint lies in {self.output}" if self.output else ""
        done = f"epoch {self.standing.epoch + 1}, step {self.standing.step}"
        logger.info("stopped in %s%s", done, where)
        if stop.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    # ------------------------------------------------------------------------------------- a step

    def _step(self, course: Course, indices: np.ndarray, epoch: float, stop: StopRequest) -> bool:
        """Take one step, and return whether a process was told to stop."""
        share = indices[self.rank :: self.processes.count]
        batch, neighbors = course.train.take(share)
        loss = course.loss
        names = list(loss.weights)
        counts = list(loss.counts(batch).values())
        asked = torch.stack([*counts, counts[0].new_tensor(float(bool(stop.received)))])
        *entries, asked_to_stop = self.processes.sum(asked).unbind()
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.zeros_like(asked)
        if len(share):  # of a small batch, some processes may have no part
            shared = dict(zip(names, entries, strict=True))
            needs = {**loss.needs, "as_labelled": course.as_labelled}
            prediction = self.force_field(batch, neighbors, training=True, **needs)
            total, parts = loss.combine(loss.means(prediction, batch), shared)
            total.backward()  # type: ignore[no-untyped-call]
            values = torch.stack([total.detach(), *parts.values()])
        values = self.processes.sum_gradients(self.parameters, values)
        clip = math.inf if self.options.clip_norm is None else self.options.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        found = dict(
            zip(["loss", *names, "gradient"], [*values.tolist(), float(norm)], strict=True)
        )
        if not np.isfinite(list(found.values())).all():
            self._diverged(found, indices, course)
        rate = learning_rate(self.options, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.standing.step += 1
        average(
            self.averaged_parameters, self.parameters, self.options.ema_decay, self.standing.step
        )
        sums = self.standing.sums
        for name, value in found.items():
            column = course.column(name)
            sums[column] = sums.get(column, 0.0) + value
        return float(asked_to_stop) > 0.0 if self.processes.count > 1 else bool(stop.received)

    def _diverged(self, found: Mapping[str, float], indices: np.ndarray, course: Course) -> None:
        standing = self.standing
        bad = [name for name, value in found.items() if not math.isfinite(value)]
        kept = (
            f" The last checkpoint, in {self.output}, is from before that." if self.output else ""
        )
        message = (
            f"The training diverged: {', '.join(bad)} became NaN or infinite in epoch "
            f"{standing.epoch + 1}, step {standing.step + 1}, on the structures "
            f"{np.sort(indices).tolist()} of the {course.name or 'training'} set. Check their "
            f"labels, or lower the learning rate (now {self.options.learning_rate:g}) or "
            f"clip_norm.{kept}"
        )
        raise DivergedError(message)

    # ----------------------------------------------------------------------------- end of an epoch

    def _close_epoch(self, batches: Sequence[tuple[Course, np.ndarray]], seconds: float) -> None:
        standing = self.standing
        steps = Counter(course.name for course, _ in batches)
        n_structures = sum(len(indices) for _, indices in batches)
        standing.epoch += 1
        row: dict[str, float] = {
            "epoch": standing.epoch,
            "step": standing.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "structures_per_second": n_structures / seconds,
        }
        for course in self.courses:
            names = ("gradient", "loss", *course.loss.weights)
            of = {name: standing.sums[course.column(name)] / steps[course.name] for name in names}
            row[course.column("gradient")] = of.pop("gradient")
            row[course.column("train_loss")] = of.pop("loss")
            row |= root_mean_squares(course.column("train"), of)
        found = [self.validate(course) for course in self.courses]
        for errors in found:
            row |= errors
        row["validation_loss"] = self.total_loss(found)
        standing.history.append(row)
        standing.batch, standing.sums = 0, {}
        better = row["validation_loss"] < standing.best_loss
        if better:
            standing.best_epoch, standing.best_loss = standing.epoch, row["validation_loss"]
            self.best.load_state_dict(self.averaged.state_dict())
        if self.rank == 0:
            self.log.write(standing.history)
        if better:
            self.save_best()
        self._save()

    def validate(self, course: Course) -> dict[str, float]:
        """Return the loss and the errors of the averaged weights on structures held out."""
        kinds = (course.loss, course.squares)
        names = list(course.loss.weights)
        sums = np.zeros((2, len(names), 2))
        for indices in self._plan(course, course.validation):
            share = indices[self.rank :: self.processes.count]
            if len(share):
                batch, neighbors = course.validation.take(share)
                needs = {**course.loss.needs, "as_labelled": course.as_labelled}
                prediction = self.averaged(batch, neighbors, **needs)
                for kind, of in enumerate(kinds):
                    means = of.means(prediction, batch).values()
                    sums[kind] += [[float(mean.total), float(mean.entries)] for mean in means]
        device = course.validation.batch.positions.device
        # Not every accelerator knows double precision.
        exact = torch.float32 if device.type == "mps" else torch.float64
        total = self.processes.sum(torch.from_numpy(sums).to(device, exact)).cpu()
        loss, squares = (
            {n: Mean(*row) for n, row in zip(names, kind, strict=True)} for kind in total
        )
        value = float(course.loss.combine(loss)[0])
        if not math.isfinite(value):
            self._diverged({"validation loss": value}, np.arange(0), course)
        known = {n: float(m.total / m.entries) for n, m in squares.items() if m.entries > 0.0}
        errors = root_mean_squares(course.column("validation"), known)
        return {course.column("validation_loss"): value, **errors}

    def total_loss(self, errors: Sequence[Mapping[str, float]]) -> float:
        """Return the sum of the losses of all courses, from what `validate` said of each."""
        pairs = zip(self.courses, errors, strict=True)
        return sum((found[course.column("validation_loss")] for course, found in pairs), 0.0)

    def _plan(
        self, course: Course, frames: FrameSet, shuffle: tuple[int, int] | None = None
    ) -> list[np.ndarray]:
        options = self.options
        return plan_batches(
            frames.counts,
            options.batch_size,
            max_atoms=options.max_atoms,
            shuffle=shuffle,
            processes=self.processes.count,
            groups=groups_of(frames.batch) if course.by_group else None,
        )

    def _turns(self, shuffle: tuple[int, int]) -> Iterator[tuple[Course, np.ndarray]]:
        """Yield what each step of an epoch is made on."""
        plans = [self._plan(course, course.train, shuffle) for course in self.courses]
        for number in range(len(plans[0])):
            for course, plan in zip(self.courses, plans, strict=True):
                yield course, plan[number % len(plan)]

    # -------------------------------------------------------------------------------------- files

    def _resume(self) -> None:
        path = self.output / CHECKPOINT if self.output else None
        if path is None or not self.options.resume or not path.exists():
            return
        self.standing = load_checkpoint(path, self._modules(), self.optimizer, self.settings)
        logger.info("goes on from epoch %d, step %d", self.standing.epoch, self.standing.step)

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"trained": self.force_field, "averaged": self.averaged, "best": self.best}

    def _save(self) -> None:
        if self.output is None or self.rank:
            return
        path = self.output / CHECKPOINT
        save_checkpoint(path, self.standing, self._modules(), self.optimizer, self.settings)

    def save_best(self) -> Path | None:
        """Write the best model so far, and say where."""
        if self.output is None:
            return None
        number = self.standing.best_epoch
        errors = {k: v for k, v in self.standing.history[number - 1].items() if "validation" in k}
        training = {"epoch": number, **errors}
        self.best.metadata = {**self.force_field.metadata, "training": training}
        if self.rank == 0:
            save_force_field(self.best, self.output / MODEL)
        return self.output / MODEL
