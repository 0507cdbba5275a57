"""TIPS as an estimator: teachers of different bias, what they agree on, and one student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from scikd._progress import Progress
from scikd.aggregation import Aggregator
from scikd.exceptions import InvalidInputError
from scikd.parallel import fan_out

from ._consensus import NEEDS_CALIBRATION, calibrated_rule, combine, rule_of
from ._ranking import BaseRanker, days_of, labels_of
from ._tips_files import load_tips, save_tips
from ._tips_inputs import training_samples
from ._tips_options import check_parameters
from .backbone import TEACHERS, Ranker, RankerSettings
from .features import Convention, last_known
from .panel import Panel
from .training import (
    DailyWindows,
    RankerTraining,
    TrainedRanker,
    predict_scores,
    train_ranker,
)

__all__ = ["TIPSRanker"]

logger = logging.getLogger(__name__)

Teachers = Sequence[str] | Mapping[str, Callable[[RankerSettings], Ranker]]


class TIPSRanker(BaseRanker):
    """Rank the stocks of a day by one small transformer that was taught by several.

    Teachers that differ only in what their attention may look at learn to rank forward returns;
    their scores are combined day by day; a plain transformer learns the result, softened, and its
    weights are averaged over the last epochs. Only this student scores afterwards.

    It takes a `Panel`, and makes features, labels and samples itself. Or windows of features of
    shape (n_samples, look_back, n_features), the oldest day first, with dates as ``groups``; rows
    of look_back x n_features numbers are taken, too.

    Parameters
    ----------
    teachers : sequence of str, mapping of str to callable, or None, default=None
        Names out of `scikd.finance.backbone.TEACHERS`, or makers of an untrained `Ranker` from
        `RankerSettings` by name; None takes the seven of the paper.
    n_seeds : int, default=1
        Trainings of each teacher, from different first weights.
    look_back, dim, n_layers, ffn, n_heads, dropout, readout
        Sizes of all networks, see `RankerSettings`.
    teacher_epochs, student_epochs, swa_epochs, batch_size, learning_rate, method, sharpness
        How networks are trained, see `RankerTraining`; averaging is the student's.
    temperature, smoothing, truth_weight
        What the student learns, see `RankerTraining`.
    consensus : str or Aggregator, default="mean"
        How the scores of teachers become one: ``"mean"``, ``"median"``, ``"rank"`` or ``"zscore"``
        (brought to one scale within each day), ``"inverse_variance"`` (weighed by how z-scores did
        on held-out days), or a rule of `scikd.aggregation`. `Routed` gives its router what was
        passed to `fit`, as samples by day.
    calibration : float, default=0.2
        Share of the days, the last ones, that teachers do not see with ``"inverse_variance"``.
    horizon, convention
        Of the label of a panel, see `scikd.finance.forward_returns`; also, for days that are held
        out, how many days before them are left out because their labels reach into them.
    every : int, default=1
        Takes each so-manieth day of a panel to train on.
    n_jobs : int or None, default=None
        Teachers that are trained at a time; as in joblib. Workers have fewer threads each, which
        round otherwise: after some epochs scores differ a little.
    device : str, default="auto"
        "cpu", "cuda", ...; "auto" takes a GPU where there is one.
    random_state : int, RandomState or None, default=0
        Of first weights and the order of days.
    folder : str, pathlib.Path or None, default=None
        Keeps checkpoints: a fit that was stopped goes on from there when it is called again with
        the same data, options and ``random_state``, on a CPU to the same numbers.
    progress : {"auto", True, False}, default=False
        Whether to show progress.

    Attributes
    ----------
    student_ : Ranker
        What `predict` uses.
    teachers_ : dict of str to Ranker
        The trained teachers.
    consensus_ : Aggregator
        The rule, calibrated where that was needed.
    variances_ : tuple of float
        Error variance of each teacher's z-scores on held-out days; empty without calibration.
    histories_ : dict of str to list of dict
        Loss of each epoch of each teacher and of ``"student"``.
    features_ : tuple of str or None
        Names of the features of the panel; None for arrays.
    known_until_ : numpy.datetime64 or None
        Last date of the panel: scores up to it are of days of training. None for arrays.
    n_features_in_ : int
        Numbers of a row, look_back x n_features; only after windows.

    Warnings
    --------
    Without ``groups`` all samples count as one day. ``GridSearchCV`` passes dates on to `fit` and
    `score` with ``sklearn.set_config(enable_metadata_routing=True)``, and only then.

    Labels look ahead: samples whose labels reach into the days of a test must be purged from
    training, as the splitters of `scikd.finance` do.
    """

    # Dates go where samples go, without being asked for, once metadata routing is enabled.
    __metadata_request__fit: ClassVar = {"groups": True}
    __metadata_request__score: ClassVar = {"groups": True}

    def __init__(
        self,
        *,
        teachers: Teachers | None = None,
        n_seeds: int = 1,
        look_back: int = 20,
        dim: int = 64,
        n_layers: int = 2,
        ffn: int = 256,
        n_heads: int = 4,
        dropout: float = 0.0,
        readout: Literal["mean", "last"] = "mean",
        teacher_epochs: int = 100,
        student_epochs: int = 20,
        swa_epochs: int = 10,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
        method: Literal["pairwise", "linear"] = "pairwise",
        sharpness: float = 1.0,
        temperature: float = 0.01,
        smoothing: float = 0.9,
        truth_weight: float = 0.0,
        consensus: str | Aggregator = "mean",
        calibration: float = 0.2,
        horizon: int = 5,
        convention: Convention = "next_close",
        every: int = 1,
        n_jobs: int | None = None,
        device: str = "auto",
        random_state: Any = 0,
        folder: str | Path | None = None,
        progress: Progress = False,
    ) -> None:
        self.teachers = teachers
        self.n_seeds = n_seeds
        self.look_back = look_back
        self.dim = dim
        self.n_layers = n_layers
        self.ffn = ffn
        self.n_heads = n_heads
        self.dropout = dropout
        self.readout = readout
        self.teacher_epochs = teacher_epochs
        self.student_epochs = student_epochs
        self.swa_epochs = swa_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.method, self.sharpness = method, sharpness
        self.temperature, self.smoothing = temperature, smoothing
        self.truth_weight = truth_weight
        self.consensus = consensus
        self.calibration = calibration
        self.horizon = horizon
        self.convention = convention
        self.every = every
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.folder = folder
        self.progress = progress

    # ---------------------------------------------------------------------------------- training

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Train the teachers, then the student.

        Parameters
        ----------
        X : Panel, or array of shape (n_samples, look_back, n_features) or flat rows of it
            Prices, or windows of features.
        y : array-like of shape (n_samples,) or None, default=None
            Forward returns, as fractions; only their order within each day counts. Not for a panel.
        groups : array-like of shape (n_samples,) or None, default=None
            Date of each sample, whose clock and time zone are dropped; None takes all to be of
            one day. Not for a panel.

        Returns
        -------
        TIPSRanker
            Itself.

        Raises
        ------
        InvalidInputError
            If data or parameters cannot be used, or ``folder`` holds another training.
        StorageError, CorruptFileError, SchemaError
            If a checkpoint cannot be written or read.
        """
        check_parameters(self, partial(self._settings, 1), self._makers)
        samples, names = training_samples(self, X, y, groups)
        if groups is None and names is None:
            logger.warning(
                "No groups came with these %d samples, which count as one day. Pass their dates as "
                "groups; scikit-learn hands them on with enable_metadata_routing=True only.",
                len(samples),
            )
        settings = self._settings(samples.windows(slice(0, 1)).shape[2])
        makers = self._makers()
        with torch.random.fork_rng(devices=[]):
            for make in makers.values():  # one that cannot be made says so before others train
                make(settings)
        rule = rule_of(self.consensus)
        calibrates = self.consensus == NEEDS_CALIBRATION
        lessons, held_out = self._held_out(samples) if calibrates else (samples, None)
        seeds = self._seeds(len(makers) + 1)
        results = self._train_teachers(makers, settings, lessons, seeds[1:])
        self.teachers_ = {name: result.model for name, result in results.items()}
        self.histories_ = {name: result.history for name, result in results.items()}
        taught = self._scores_of_teachers(samples)
        for name, scores in zip(makers, taught, strict=True):
            self._refuse_diverged(f"teacher {name!r}", scores)
        variances: tuple[float, ...] = ()
        if held_out is not None:
            held = self._scores_of_teachers(held_out)
            rule, variances = calibrated_rule(held, labels_of(held_out), days_of(held_out))
        self.consensus_, self.variances_ = rule, variances
        targets = combine(rule, taught, samples, samples.day_ptr)
        student = _train(
            Ranker,
            settings,
            samples,
            self._options(seeds[0], self.student_epochs, student=True),
            targets,
            self._place("student"),
            "student",
            self.progress,
        )
        self._refuse_diverged("student", self._score_by(student.model, samples))
        self.student_, self.histories_["student"] = student.model, student.history
        self.features_ = names
        self.known_until_ = X.dates[-1] if isinstance(X, Panel) else None
        return self

    def _settings(self, n_features: int) -> RankerSettings:
        names = ("look_back", "dim", "n_layers", "ffn", "n_heads", "dropout", "readout")
        return RankerSettings(n_features, **{name: getattr(self, name) for name in names})

    def _makers(self) -> dict[str, Callable[[RankerSettings], Ranker]]:
        """Return what makes each teacher, by its name."""
        chosen = list(TEACHERS) if self.teachers is None else self.teachers
        if not isinstance(chosen, Mapping):
            unknown = [name for name in chosen if name not in TEACHERS]
            if unknown:
                got = chosen if isinstance(chosen, str) else unknown
                message = f"Expected teachers out of {list(TEACHERS)}; got {got!r}."
                raise InvalidInputError(message)
            chosen = {name: TEACHERS[name] for name in chosen}
        if not chosen or not self.n_seeds >= 1:
            message = (
                f"Expected at least one teacher and seed; got {len(chosen)} and {self.n_seeds!r}."
            )
            raise InvalidInputError(message)
        if self.n_seeds == 1:
            return dict(chosen)
        seeds = range(1, self.n_seeds + 1)
        return {f"{name}-{seed}": make for seed in seeds for name, make in chosen.items()}

    def _options(self, seed: int, epochs: int, *, student: bool) -> RankerTraining:
        names = ["batch_size", "learning_rate", "method", "sharpness", "device"]
        if student:
            names += ["temperature", "smoothing", "truth_weight", "swa_epochs"]
        given = {name: getattr(self, name) for name in names}
        return RankerTraining(epochs, seed=seed, **given)

    def _seeds(self, n: int) -> list[int]:
        base = int(check_random_state(self.random_state).randint(2**31 - 1))
        return [int(seed) for seed in np.random.SeedSequence(base).generate_state(n)]

    def _place(self, name: str) -> Path | None:
        return None if self.folder is None else Path(self.folder) / name

    def _train_teachers(
        self,
        makers: Mapping[str, Callable[[RankerSettings], Ranker]],
        settings: RankerSettings,
        samples: DailyWindows,
        seeds: Sequence[int],
    ) -> dict[str, TrainedRanker]:
        tasks = [
            (
                make,
                settings,
                samples,
                self._options(seed, self.teacher_epochs, student=False),
                None,
                self._place(f"teacher-{name}"),
                name,
                self.progress,
            )
            for (name, make), seed in zip(makers.items(), seeds, strict=True)
        ]
        shown = self.progress if self.n_jobs not in {None, 1} else False
        trained = fan_out(_train, tasks, n_jobs=self.n_jobs, description="teachers", progress=shown)
        return dict(zip(makers, trained, strict=True))

    def _held_out(self, samples: DailyWindows) -> tuple[DailyWindows, DailyWindows]:
        """Return the first days, and the last ones, with a gap that no label reaches across."""
        ptr = samples.day_ptr
        n_days = len(ptr) - 1
        n_held = round(self.calibration * n_days)
        n_first = n_days - n_held - last_known(self.horizon, self.convention)
        if min(n_held, n_first) < 1:
            message = (
                f"Expected days to train on and to calibrate on; {n_days} days with calibration="
                f"{self.calibration!r} and horizon={self.horizon!r} leave {max(n_first, 0)} and "
                f"{n_held}."
            )
            raise InvalidInputError(message)
        end = slice(int(ptr[n_days - n_held]), len(samples))
        return samples.take(slice(0, int(ptr[n_first]))), samples.take(end)

    def _scores_of_teachers(self, samples: DailyWindows) -> np.ndarray:
        """Return scores of shape (n_teachers, n_samples)."""
        models = self.teachers_.values()
        return np.stack([predict_scores(one, samples, device=self.device) for one in models])

    # ----------------------------------------------------------------------------------- scoring

    @property
    def _served(self) -> Ranker:
        return self.student_

    def predict(self, X: Any) -> np.ndarray:
        """Return the student's scores.

        Parameters
        ----------
        X : Panel, or array of shape (n_samples, look_back, n_features) or flat rows of it
            Prices, or windows of features.

        Returns
        -------
        numpy.ndarray of float64 and shape (n_samples,), or (n_dates, n_assets) for a panel
            Scores; only their order within a day means something. For a panel NaN where a stock is
            not in the universe or has no complete window. Row t uses nothing from after date t.

        Raises
        ------
        InvalidInputError
            If the shape or the features are not those of training.
        """
        check_is_fitted(self)
        return self._scored(X, partial(self._score_by, self.student_))

    def predict_consensus(self, X: Any, groups: Any = None) -> np.ndarray:
        """Return what the teachers agree on, in the shape that `predict` gives.

        Parameters
        ----------
        X : Panel or array
            As for `predict`.
        groups : array-like of shape (n_samples,) or None, default=None
            Date of each sample, for rules that compare within days; None takes one day.
        """
        check_is_fitted(self)
        if self.consensus_ is None:
            message = (
                "This ranker was saved with a rule of its own for the consensus, which no file "
                "holds. Set consensus_ to it."
            )
            raise InvalidInputError(message)

        def agreed(samples: Any) -> np.ndarray:
            scores = self._scores_of_teachers(samples)
            return combine(self.consensus_, scores, samples, samples.day_ptr)

        return self._scored(X, agreed, groups)

    def predict_teachers(self, X: Any) -> dict[str, np.ndarray]:
        """Return the scores of each teacher by its name, in the shape that `predict` gives."""
        check_is_fitted(self)
        return {
            name: self._scored(X, partial(self._score_by, model))
            for name, model in self.teachers_.items()
        }

    # ------------------------------------------------------------------------------------- files

    def save(self, path: str | Path) -> Path:
        """Save the fitted ranker with its teachers as a bundle, without pickle.

        Makers of teachers, and a rule of your own for the consensus, are not kept: weights are, and
        the tables of biases.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        check_is_fitted(self)
        return save_tips(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load what `save` wrote.

        Raises
        ------
        StorageError, CorruptFileError, SchemaError
            If it cannot be read, was cut short or edited, or was written by a newer scikd.
        """
        return load_tips(cls, path)


def _train(
    make: Callable[[RankerSettings], Ranker],
    settings: RankerSettings,
    samples: DailyWindows,
    options: RankerTraining,
    targets: np.ndarray | None,
    folder: Path | None,
    name: str,
    progress: Progress,
) -> TrainedRanker:
    """Make a network with first weights of its seed, and train it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = make(settings)
    return train_ranker(
        model, samples, options, targets=targets, folder=folder, name=name, progress=progress
    )
