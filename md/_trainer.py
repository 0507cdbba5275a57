"""The loop of a training: steps, epochs, checkpoints, and how it is stopped."""

from __future__ import annotations

import copy
import logging
import math
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scikd._distributed import Processes
from scikd._progress import Progress, track

from ._checkpoints import Standing, load_checkpoint, save_checkpoint
from ._optimise import average, learning_rate, make_optimizer
from ._process import StopRequest
from ._training_data import FrameSet, plan_batches
from ._training_log import ERRORS, TrainingLog, root_mean_squares
from .losses import DivergedError, Loss, LossOptions, Mean
from .model import ForceField
from .storage import save_force_field

if TYPE_CHECKING:
    from .training import TrainingOptions

__all__ = ["Trainer"]

logger = logging.getLogger("scikd.md.training")

CHECKPOINT, MODEL = "checkpoint", "model"


class Trainer:
    """A training under way.

    Parameters
    ----------
    options : TrainingOptions
        Of the training.
    force_field : ForceField
        What is trained, in place.
    train, validation : FrameSet
        The structures.
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
        train: FrameSet,
        validation: FrameSet,
        settings: Mapping[str, Any],
        progress: Progress,
        processes: Processes,
    ) -> None:
        self.options, self.train, self.validation = options, train, validation
        self.settings, self.progress = settings, progress
        self.force_field = force_field
        self.averaged = copy.deepcopy(force_field).requires_grad_(False)
        self.averaged.eval()
        self.best = copy.deepcopy(self.averaged)
        self.optimizer = make_optimizer(force_field, options)
        twins = list(zip(force_field.parameters(), self.averaged.parameters(), strict=True))
        self.parameters = [p for p, _ in twins if p.requires_grad]
        self.averaged_parameters = [twin for p, twin in twins if p.requires_grad]
        self.loss = Loss(options.loss)
        offset = options.loss.energies_relative_to
        ones: dict[str, Any] = dict.fromkeys(self.loss.weights, 1.0)
        rest: dict[str, Any] = dict.fromkeys(set(ERRORS) - set(ones), 0.0)
        self.squares = Loss(LossOptions(**ones, **rest, per_atom=True, offset=offset))
        self.standing = Standing()
        self.output = options.output
        self.processes, self.rank = processes, processes.rank

    # ------------------------------------------------------------------------------ the whole run

    def run(self) -> None:
        """Train to the end, from where the checkpoint is if there is one."""
        self._resume()
        folder = self.output if self.rank == 0 else None
        options = self.options
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
        batches = self._plan(self.train, shuffle=(options.seed, standing.epoch))
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
        for indices in steps:
            wanted = self._step(indices, standing.epoch + standing.batch / len(batches), stop)
            standing.batch += 1
            late = time.monotonic() - saved > options.checkpoint_seconds
            # In one process the clock decides; of several, the first, and the others save nothing.
            if wanted or late:
                standing.sums["seconds"] = seconds + time.perf_counter() - begin
                self._save()
                saved = time.monotonic()
            if wanted:
                self._leave(stop)
        self._close_epoch(seconds + time.perf_counter() - begin)

    def _leave(self, stop: StopRequest) -> None:
        where = f"; the checkpoint lies in {self.output}" if self.output else ""
        done = f"epoch {self.standing.epoch + 1}, step {self.standing.step}"
        logger.info("stopped in %s%s", done, where)
        if stop.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    # ------------------------------------------------------------------------------------- a step

    def _step(self, indices: np.ndarray, epoch: float, stop: StopRequest) -> bool:
        """Take one step, and return whether a process was told to stop."""
        share = indices[self.rank :: self.processes.count]
        batch, neighbors = self.train.take(share)
        names = list(self.loss.weights)
        counts = list(self.loss.counts(batch).values())
        asked = torch.stack([*counts, counts[0].new_tensor(float(bool(stop.received)))])
        *entries, asked_to_stop = self.processes.sum(asked).unbind()
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.zeros_like(asked)
        if len(share):  # of a small batch, some processes may have no part
            shared = dict(zip(names, entries, strict=True))
            prediction = self.force_field(batch, neighbors, training=True, **self.loss.needs)
            total, parts = self.loss.combine(self.loss.means(prediction, batch), shared)
            total.backward()  # type: ignore[no-untyped-call]
            values = torch.stack([total.detach(), *parts.values()])
        values = self.processes.sum_gradients(self.parameters, values)
        clip = math.inf if self.options.clip_norm is None else self.options.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        found = dict(
            zip(["loss", *names, "gradient"], [*values.tolist(), float(norm)], strict=True)
        )
        if not np.isfinite(list(found.values())).all():
            self._diverged(found, indices)
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
            sums[name] = sums.get(name, 0.0) + value
        return float(asked_to_stop) > 0.0 if self.processes.count > 1 else bool(stop.received)

    def _diverged(self, found: Mapping[str, float], indices: np.ndarray) -> None:
        standing = self.standing
        bad = [name for name, value in found.items() if not math.isfinite(value)]
        kept = (
            f" The last checkpoint, in {self.output}, is from before that." if self.output else ""
        )
        message = (
            f"The training diverged: {', '.join(bad)} became NaN or infinite in epoch "
            f"{standing.epoch + 1}, step {standing.step + 1}, on the structures "
            f"{np.sort(indices).tolist()} of the training set. Check their labels, or lower "
            f"the learning rate (now {self.options.learning_rate:g}) or clip_norm.{kept}"
        )
        raise DivergedError(message)

    # ----------------------------------------------------------------------------- end of an epoch

    def _close_epoch(self, seconds: float) -> None:
        standing = self.standing
        steps = standing.batch
        means = {name: total / steps for name, total in standing.sums.items()}
        standing.epoch += 1
        row: dict[str, float] = {
            "epoch": standing.epoch,
            "step": standing.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "structures_per_second": len(self.train) / seconds,
            "gradient": means.pop("gradient"),
            "train_loss": means.pop("loss"),
        }
        row |= root_mean_squares("train", means)
        row |= self._validate()
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

    def _validate(self) -> dict[str, float]:
        """Return the loss and the errors of the averaged weights on structures held out."""
        kinds = (self.loss, self.squares)
        sums = np.zeros((2, len(self.loss.weights), 2))
        for indices in self._plan(self.validation):
            share = indices[self.rank :: self.processes.count]
            if len(share):
                batch, neighbors = self.validation.take(share)
                needs = {**self.loss.needs, "as_labelled": True}
                prediction = self.averaged(batch, neighbors, **needs)
                for kind, of in enumerate(kinds):
                    means = of.means(prediction, batch).values()
                    sums[kind] += [[float(mean.total), float(mean.entries)] for mean in means]
        device = self.validation.batch.positions.device
        # Not every accelerator knows double precision.
        exact = torch.float32 if device.type == "mps" else torch.float64
        total = self.processes.sum(torch.from_numpy(sums).to(device, exact)).cpu()
        names = list(self.loss.weights)
        loss, squares = (
            {n: Mean(*row) for n, row in zip(names, kind, strict=True)} for kind in total
        )
        value = float(self.loss.combine(loss)[0])
        if not math.isfinite(value):
            self._diverged({"validation loss": value}, np.arange(0))
        known = {n: float(m.total / m.entries) for n, m in squares.items() if m.entries > 0.0}
        return {"validation_loss": value, **root_mean_squares("validation", known)}

    def _plan(self, frames: FrameSet, shuffle: tuple[int, int] | None = None) -> list[np.ndarray]:
        options = self.options
        return plan_batches(
            frames.counts,
            options.batch_size,
            max_atoms=options.max_atoms,
            shuffle=shuffle,
            processes=self.processes.count,
        )

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
