"""One network as an estimator, trained like the teachers of TIPS: what TIPS has to beat."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from scikd._progress import Progress
from scikd.exceptions import InvalidInputError

from ._ranking import BaseRanker
from ._tips_inputs import training_samples
from .backbone import TEACHERS, RankerSettings
from .features import Convention
from .recurrent import RecurrentRanker, RecurrentSettings
from .training import RankerTraining, train_ranker

__all__ = ["NETWORKS", "NetworkRanker"]

NETWORKS = (*TEACHERS, "gru", "tcn")


class NetworkRanker(BaseRanker):
    """Rank the stocks of a day by one network that learnt from forward returns alone.

    Parameters
    ----------
    network : str, default="vanilla"
        A teacher of TIPS out of `scikd.finance.backbone.TEACHERS`; ``"gru"`` or ``"tcn"``, see
        `scikd.finance.recurrent`.
    look_back, dim, n_layers
        Sizes, see `RankerSettings` and `RecurrentSettings`.
    ffn, n_heads, dropout, readout
        Further sizes of transformers, see `RankerSettings`.
    epochs, swa_epochs, batch_size, learning_rate, method, sharpness
        How it is trained, see `RankerTraining`.
    horizon, convention
        Of the label of a panel, see `scikd.finance.forward_returns`.
    every : int, default=1
        Takes each so-manieth day of a panel to train on.
    device : str, default="auto"
        "cpu", "cuda", ...; "auto" takes a GPU where there is one.
    random_state : int, RandomState or None, default=0
        Of first weights and the order of days.
    folder : str, pathlib.Path or None, default=None
        Keeps checkpoints, from which a fit that was stopped goes on.
    progress : {"auto", True, False}, default=False
        Whether to show progress.

    Attributes
    ----------
    model_ : Ranker or RecurrentRanker
        The trained network.
    history_ : list of dict
        Loss of each epoch.
    features_ : tuple of str or None
        Names of the features of the panel; None for arrays.

    See Also
    --------
    scikd.finance.TIPSRanker : Takes the same data, and says more about them.
    """

    # Dates go where samples go, without being asked for, once metadata routing is enabled.
    __metadata_request__fit: ClassVar = {"groups": True}
    __metadata_request__score: ClassVar = {"groups": True}

    def __init__(
        self,
        network: str = "vanilla",
        *,
        look_back: int = 20,
        dim: int = 64,
        n_layers: int = 2,
        ffn: int = 256,
        n_heads: int = 4,
        dropout: float = 0.0,
        readout: Literal["mean", "last"] = "mean",
        epochs: int = 100,
        swa_epochs: int = 0,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
        method: Literal["pairwise", "linear"] = "pairwise",
        sharpness: float = 1.0,
        horizon: int = 5,
        convention: Convention = "next_close",
        every: int = 1,
        device: str = "auto",
        random_state: Any = 0,
        folder: str | Path | None = None,
        progress: Progress = False,
    ) -> None:
        self.network = network
        self.look_back = look_back
        self.dim = dim
        self.n_layers = n_layers
        self.ffn = ffn
        self.n_heads = n_heads
        self.dropout = dropout
        self.readout = readout
        self.epochs = epochs
        self.swa_epochs = swa_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.method = method
        self.sharpness = sharpness
        self.horizon = horizon
        self.convention = convention
        self.every = every
        self.device = device
        self.random_state = random_state
        self.folder = folder
        self.progress = progress

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : Panel, or array of shape (n_samples, look_back, n_features) or flat rows of it
            Prices, or windows of features.
        y : array-like of shape (n_samples,) or None, default=None
            Forward returns, as fractions; only their order within each day counts. Not for a panel.
        groups : array-like of shape (n_samples,) or None, default=None
            Date of each sample, whose clock and time zone are dropped; None takes all to be of
            one day. Not for a panel.

        Raises
        ------
        InvalidInputError
            If data or parameters cannot be used, or ``folder`` holds another training.
        """
        samples, self.features_ = training_samples(self, X, y, groups)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        names = ("epochs", "swa_epochs", "batch_size", "learning_rate", "method", "sharpness")
        options = RankerTraining(
            **{name: getattr(self, name) for name in names}, device=self.device, seed=seed
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._untrained(samples.windows(slice(0, 1)).shape[2])
        trained = train_ranker(
            model,
            samples,
            options,
            folder=self.folder,
            name=self.network,
            progress=self.progress,
        )
        self._refuse_diverged(f"network {self.network!r}", self._score_by(trained.model, samples))
        self.model_, self.history_ = trained.model, trained.history
        return self

    def _untrained(self, n_features: int) -> Any:
        if self.network in {"gru", "tcn"}:
            sizes = (n_features, self.look_back, self.dim, self.n_layers)
            return RecurrentRanker(RecurrentSettings(self.network, *sizes))  # type: ignore[arg-type]
        if self.network not in TEACHERS:
            message = f"Expected a network out of {list(NETWORKS)}; got {self.network!r}."
            raise InvalidInputError(message)
        names = ("look_back", "dim", "n_layers", "ffn", "n_heads", "dropout", "readout")
        sizes_of: dict[str, Any] = {name: getattr(self, name) for name in names}
        return TEACHERS[self.network](RankerSettings(n_features, **sizes_of))

    @property
    def _served(self) -> Any:
        return self.model_

    def predict(self, X: Any) -> np.ndarray:
        """Return the scores.

        Parameters
        ----------
        X : Panel, or array of shape (n_samples, look_back, n_features) or flat rows of it
            Prices, or windows of features.

        Returns
        -------
        numpy.ndarray of float64 and shape (n_samples,), or (n_dates, n_assets) for a panel
            Only their order within a day means something. For a panel NaN where a stock is not in
            the universe or has no complete window. Row t uses nothing from after date t.

        Raises
        ------
        InvalidInputError
            If the shape or the features are not those of training.
        """
        check_is_fitted(self)
        return self._scored(X, partial(self._score_by, self.model_))
