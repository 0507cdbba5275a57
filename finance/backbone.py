"""The network of TIPS: a small transformer that gives a stock on a day one score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor, nn

from scikd.exceptions import InvalidInputError

from ._scoring import score
from .attention import ALiBi, AttentionBias, FutureOnly, PastOnly, PeriodicBias, RelativePosition

__all__ = ["TEACHERS", "EncoderLayer", "Ranker", "RankerSettings", "check_windows"]


@dataclass(frozen=True)
class RankerSettings:
    """Sizes of a `Ranker`. The defaults, those of TIPS, give 104,897 parameters.

    What the paper leaves open is ours: norms before each sub-layer, ReLU, sinusoidal positions, and
    the mean over all days as read-out.

    Parameters
    ----------
    n_features : int, default=8
        Features of a day.
    look_back : int, default=20
        Days of a window.
    dim : int, default=64
        Width of the network.
    n_layers : int, default=2
        Layers of attention.
    ffn : int, default=256
        Width inside the feed-forward part of a layer.
    n_heads : int, default=4
        Attention heads; must divide ``dim``.
    dropout : float, default=0.0
        Of what attention brings, and inside the feed-forward parts.
    patch : int, default=1
        Days of a token. Tokens overlap: they begin one day apart.
    readout : {"mean", "last"}, default="mean"
        Which tokens are read: all of them, or the newest. That of `FutureOnly` sees only itself.
    """

    n_features: int = 8
    look_back: int = 20
    dim: int = 64
    n_layers: int = 2
    ffn: int = 256
    n_heads: int = 4
    dropout: float = 0.0
    patch: int = 1
    readout: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, all at once."""
        problems = [
            f"{f.name} is {getattr(self, f.name)!r}, expected a whole number of at least 1"
            for f in fields(self)
            if f.type == "int" and not (_is_whole(getattr(self, f.name)))
        ]
        if not problems and self.dim % self.n_heads:
            problems.append(f"dim {self.dim} is no multiple of n_heads {self.n_heads}")
        if not problems and self.patch > self.look_back:
            problems.append(f"patch {self.patch} is longer than look_back {self.look_back}")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout!r}, expected 0 up to below 1")
        if self.readout not in {"mean", "last"}:
            problems.append(f"readout is {self.readout!r}, expected 'mean' or 'last'")
        if problems:
            raise InvalidInputError(f"Cannot build a Ranker: {'; '.join(problems)}.")

    @property
    def n_tokens(self) -> int:
        """Tokens of a window."""
        return self.look_back - self.patch + 1


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each added to what comes in after a norm.

    It is `torch.nn.TransformerEncoderLayer` with ``norm_first=True``, without what that does for
    masks of padding and for other layouts, and with read-outs that leave out what nobody reads.

    Parameters
    ----------
    settings : RankerSettings
        Sizes.
    """

    def __init__(self, settings: RankerSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.n_heads, self.dropout = settings.n_heads, settings.dropout
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_ffn = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, settings.ffn)
        self.down = nn.Linear(settings.ffn, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return new tokens of tokens.

        Parameters
        ----------
        x : torch.Tensor of shape (n, n_tokens, dim)
            The tokens.
        bias : torch.Tensor of shape (n_heads or 1, n_tokens, n_tokens) or None, default=None
            Added to the logits of attention.

        Returns
        -------
        torch.Tensor of shape (n, n_tokens, dim)
            What they become.
        """
        rows = self._attended(x, bias)
        return (rows + self.down(self._hidden(rows))).view(x.shape)

    def mean(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the mean of the new tokens, shape (n, dim).

        The last map is linear, so it is applied to the mean, once instead of for each token.
        """
        rows, sizes = self._attended(x, bias), x.shape[:2]
        hidden = self._hidden(rows).view(*sizes, -1).sum(dim=1) * (1 / sizes[1])
        mean: Tensor = rows.view(x.shape).mean(dim=1) + self.down(hidden)
        return mean

    def last(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the last of the new tokens, shape (n, dim), without computing the others."""
        rows = self._attended(x, None if bias is None else bias[:, -1:], only_last=True)
        last: Tensor = rows + self.down(self._hidden(rows))
        return last

    def _attended(self, x: Tensor, bias: Tensor | None, *, only_last: bool = False) -> Tensor:
        """Return tokens with what attention brings, one after the other: shape (rows, dim)."""
        n, length, dim = x.shape
        rows = x.reshape(n * length, dim)
        h = self.norm_attention(rows)
        if only_last:
            rows, newest = x[:, -1], h.view(x.shape)[:, -1]
            weight, offset = (torch.split(p, [dim, 2 * dim]) for p in self.qkv.parameters())
            q = F.linear(newest, weight[0], offset[0]).view(n, 1, self.n_heads, -1)
            k, v = F.linear(h, weight[1], offset[1]).view(n, length, 2, self.n_heads, -1).unbind(2)
        else:
            q, k, v = self.qkv(h).view(n, length, 3, self.n_heads, -1).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        logits = (q * (dim // self.n_heads) ** -0.5) @ k.transpose(2, 3)
        mixed = torch.softmax(logits if bias is None else logits + bias, dim=-1) @ v
        return rows + self._dropped(self.out(mixed.transpose(1, 2).reshape(rows.shape)))

    def _hidden(self, rows: Tensor) -> Tensor:
        return self._dropped(F.relu(self.up(self.norm_ffn(rows)), inplace=True))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Ranker(nn.Module):
    """A transformer over the days of a window, with one score at its end.

    Only the order of the scores of one day means something.

    Parameters
    ----------
    settings : RankerSettings or None, default=None
        Sizes; None takes the defaults.
    bias : AttentionBias or None, default=None
        What is added to the logits of attention, in each layer.

    Raises
    ------
    InvalidInputError
        If the bias is for another number of heads or tokens.
    """

    positions: Tensor

    def __init__(
        self, settings: RankerSettings | None = None, bias: AttentionBias | None = None
    ) -> None:
        super().__init__()
        settings = settings or RankerSettings()
        self.settings, self.bias = settings, bias
        self.embed = nn.Linear(settings.patch * settings.n_features, settings.dim)
        self.layers = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.n_layers))
        self.norm = nn.LayerNorm(settings.dim)
        self.head = nn.Sequential(
            nn.Linear(settings.dim, settings.dim), nn.ReLU(), nn.Linear(settings.dim, 1)
        )
        positions = _sinusoids(settings.n_tokens, settings.dim)
        self.register_buffer("positions", positions, persistent=False)
        self._check_bias()

    def _check_bias(self) -> None:
        if self.bias is None:
            return
        length, n_heads = self.settings.n_tokens, self.settings.n_heads
        shape = tuple(self.bias(length).shape)
        if shape not in {(1, length, length), (n_heads, length, length)}:
            message = (
                f"Expected a bias of shape {(n_heads, length, length)}, or with 1 head for all; "
                f"got {shape} from {type(self.bias).__name__}."
            )
            raise InvalidInputError(message)

    def forward(self, windows: Tensor) -> Tensor:
        """Return a score for each window.

        Outside of training and without gradients the same numbers, but for rounding, come from a
        faster way to compute them.

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
        if not self.training and not torch.is_grad_enabled():
            return score(self, windows)
        x = self.embed(self.tokens(windows)) + self.positions
        bias = self.table(x)
        for layer in list(self.layers)[:-1]:
            x = layer(x, bias)
        final: EncoderLayer = self.layers[-1]  # type: ignore[assignment]
        read = final.mean if self.settings.readout == "mean" else final.last
        scores: Tensor = self.head(self.norm(read(x, bias)))
        return scores[:, 0]

    def tokens(self, windows: Tensor) -> Tensor:
        """Return what is embedded, shape (n, n_tokens, patch * n_features): days, or patches."""
        patch = self.settings.patch
        if patch == 1:
            return windows
        return windows.unfold(1, patch, 1).transpose(2, 3).flatten(2)

    def table(self, like: Tensor) -> Tensor | None:
        """Return the bias in the type of a tensor and at its place; None where there is none."""
        return None if self.bias is None else self.bias(self.settings.n_tokens).to(like)


def check_windows(windows: Tensor, settings: Any) -> None:
    """Raise InvalidInputError unless windows are those of a network's settings."""
    expected = (settings.look_back, settings.n_features)
    if windows.ndim != 3 or tuple(windows.shape[1:]) != expected:
        message = (
            f"Expected windows of shape (n, {expected[0]}, {expected[1]}), for days and "
            f"features; got {tuple(windows.shape)}."
        )
        raise InvalidInputError(message)


def _sinusoids(n_tokens: int, dim: int) -> Tensor:
    """Return positions as sines and cosines of falling frequency; shape (n_tokens, dim)."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(n_tokens)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :dim]


def _patches(settings: RankerSettings) -> Ranker:
    return Ranker(replace(settings, patch=2))


TEACHERS: dict[str, Callable[[RankerSettings], Ranker]] = {
    "past": lambda settings: Ranker(settings, PastOnly()),
    "future": lambda settings: Ranker(settings, FutureOnly()),
    "patch": _patches,
    "alibi": lambda settings: Ranker(settings, ALiBi(settings.n_heads)),
    "periodic": lambda settings: Ranker(settings, PeriodicBias(_periods(settings.n_heads))),
    "relative": lambda settings: Ranker(
        settings, RelativePosition(settings.n_heads, settings.n_tokens)
    ),
    "vanilla": Ranker,
}
"""The seven teachers of TIPS: makers of an untrained `Ranker` of given sizes."""


def _periods(n_heads: int) -> tuple[int, ...]:
    """Return weeks of trading days: 5, 10, 15, 20 for four heads."""
    return tuple(5 * (head + 1) for head in range(n_heads))
