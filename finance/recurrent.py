"""Networks that read a window day by day, to compare transformers with: GRU and TCN.

They have what the training of a `Ranker` asks for, and nothing of it is their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor, nn

from scikd.exceptions import InvalidInputError

from .backbone import check_windows

__all__ = ["Recurrence", "RecurrentRanker", "RecurrentSettings"]

Recurrence = Literal["gru", "tcn"]
KERNEL = 3  # days that a convolution of a TCN reads


@dataclass(frozen=True)
class RecurrentSettings:
    """Sizes of a `RecurrentRanker`.

    Parameters
    ----------
    kind : {"gru", "tcn"}
        A gated recurrent unit [1]_, or convolutions over time [2]_.
    n_features : int, default=8
        Features of a day.
    look_back : int, default=20
        Days of a window.
    dim : int, default=64
        Width of the network.
    n_layers : int, default=2
        Layers of the GRU, or residual blocks of the TCN; the convolutions of block b skip
        ``2 ** b`` days.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP (2014).
    .. [2] S. Bai, J. Z. Kolter, V. Koltun, "An empirical evaluation of generic convolutional and
       recurrent networks for sequence modeling", arXiv:1803.01271 (2018).
    """

    kind: Recurrence
    n_features: int = 8
    look_back: int = 20
    dim: int = 64
    n_layers: int = 2

    def __post_init__(self) -> None:
        """Refuse what makes no network, all at once."""
        problems = [
            f"{name} is {getattr(self, name)!r}, expected a whole number of at least 1"
            for name in ("n_features", "look_back", "dim", "n_layers")
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1)
        ]
        if self.kind not in get_args(Recurrence):
            problems.append(f"kind is {self.kind!r}, expected 'gru' or 'tcn'")
        if problems:
            raise InvalidInputError(f"Cannot build a RecurrentRanker: {'; '.join(problems)}.")


class RecurrentRanker(nn.Module):
    """A GRU or a TCN over the days of a window, with one score at its end.

    Parameters
    ----------
    settings : RecurrentSettings
        Kind and sizes.
    """

    bias = None  # no attention, which it could be added to

    def __init__(self, settings: RecurrentSettings) -> None:
        super().__init__()
        self.settings = settings
        dim, n_layers = settings.dim, settings.n_layers
        self.embed = nn.Linear(settings.n_features, dim)
        if settings.kind == "gru":
            self.reader: nn.Module = _Gru(dim, n_layers)
        else:
            self.reader = nn.Sequential(*(_Block(dim, 2**number) for number in range(n_layers)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, windows: Tensor) -> Tensor:
        """Return a score for each window.

        Parameters
        ----------
        windows : torch.Tensor of shape (n, look_back, n_features)
            Features, the oldest day first.

        Returns
        -------
        torch.Tensor of shape (n,)
            The scores, without unit.
        """
        check_windows(windows, self.settings)
        read = self.reader(self.embed(windows))
        scores: Tensor = self.head(self.norm(read[:, -1]))
        return scores[:, 0]


class _Gru(nn.GRU):
    """A GRU that returns what it read, and not its state."""

    def __init__(self, dim: int, n_layers: int) -> None:
        super().__init__(dim, dim, n_layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        read: Tensor = super().forward(x)[0]
        return read


class _Block(nn.Module):
    """Two convolutions over the days so far, beside which the input goes through."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.before = (KERNEL - 1) * dilation
        self.first = nn.Conv1d(dim, dim, KERNEL, dilation=dilation)
        self.second = nn.Conv1d(dim, dim, KERNEL, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(1, 2)
        for convolution in (self.first, self.second):
            h = torch.relu(convolution(F.pad(h, (self.before, 0))))
        return x + h.transpose(1, 2)
