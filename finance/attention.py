"""Biases of attention: small objects that say which days a token looks at, and that add up.

The teachers of TIPS are one network with different biases. A bias is a table added to the logits of
attention, for each head or for all heads alike; ``-inf`` hides a token.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from scikd.exceptions import InvalidInputError

__all__ = [
    "ALiBi",
    "AttentionBias",
    "FutureOnly",
    "PastOnly",
    "PeriodicBias",
    "RelativePosition",
    "SumBias",
    "TableBias",
]


class AttentionBias(nn.Module, ABC):
    """A table that is added to the logits of attention. Biases compose by ``+``.

    Warnings
    --------
    A bias about days must know where they are: token 0 is the oldest day of a window, the last
    token the newest. All of them are known when a window is scored, so that looking "forward"
    inside a window uses nothing of the future.

    Examples
    --------
    One of your own: the same weekday counts more.

    >>> import torch
    >>> from scikd.finance.attention import AttentionBias, PastOnly
    >>> class SameWeekday(AttentionBias):
    ...     def __init__(self, strength):
    ...         super().__init__()
    ...         self.strength = torch.nn.Parameter(torch.tensor(strength))
    ...
    ...     def forward(self, n_tokens):
    ...         same = self.offsets(n_tokens) % 5 == 0
    ...         return self.strength * same[None]
    >>> (SameWeekday(2.0) + PastOnly())(7)[0, 5]
    tensor([2., 0., 0., 0., 0., 2., -inf], grad_fn=<SelectBackward0>)
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @abstractmethod
    def forward(self, n_tokens: int) -> Tensor:
        """Return the table.

        Parameters
        ----------
        n_tokens : int
            Tokens of a window.

        Returns
        -------
        torch.Tensor of shape (n_heads or 1, n_tokens, n_tokens)
            What is added to the logit of token i looking at token j, at ``[head, i, j]``. In each
            row something is finite.
        """

    def offsets(self, n_tokens: int) -> Tensor:
        """Return ``i - j``, how many tokens j lies before i; shape (n_tokens, n_tokens)."""
        place: Tensor = self._place  # type: ignore[assignment]
        steps = torch.arange(n_tokens, device=place.device)
        return steps[:, None] - steps[None, :]

    def __add__(self, other: AttentionBias) -> SumBias:
        return SumBias(self, other)


class SumBias(AttentionBias):
    """The sum of several biases.

    Parameters
    ----------
    *parts : AttentionBias
        What is added up.
    """

    def __init__(self, *parts: AttentionBias) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, n_tokens: int) -> Tensor:
        """Return the sum of the tables."""
        total = self.parts[0](n_tokens)
        for part in list(self.parts)[1:]:
            total = total + part(n_tokens)
        return total


class PastOnly(AttentionBias):
    """A token looks at itself and at earlier ones."""

    def forward(self, n_tokens: int) -> Tensor:
        """Return 0 where j <= i, else -inf; shape (1, n_tokens, n_tokens)."""
        return _hide(self.offsets(n_tokens) < 0)


class FutureOnly(AttentionBias):
    """A token looks at itself and at later ones of its window.

    The last token then sees only itself: read out the mean, not the last token.
    """

    def forward(self, n_tokens: int) -> Tensor:
        """Return 0 where j >= i, else -inf; shape (1, n_tokens, n_tokens)."""
        return _hide(self.offsets(n_tokens) > 0)


class ALiBi(AttentionBias):
    """Attention that fades linearly with distance, faster in some heads.

    Parameters
    ----------
    n_heads : int, default=4
        Heads of the network.
    slopes : {"paper", "standard"}, default="paper"
        Slope of head h = 1, 2, ...: ``2**(-8 / h)`` as TIPS has it, or ``2**(-8 h / n_heads)``.
    """

    def __init__(self, n_heads: int = 4, slopes: Literal["paper", "standard"] = "paper") -> None:
        super().__init__()
        if slopes not in {"paper", "standard"}:
            raise InvalidInputError(f"Expected slopes 'paper' or 'standard'; got {slopes!r}.")
        heads = range(1, n_heads + 1)
        powers = [-8 / h if slopes == "paper" else -8 * h / n_heads for h in heads]
        self.register_buffer("slopes", torch.tensor([2.0**p for p in powers]), persistent=False)

    def forward(self, n_tokens: int) -> Tensor:
        """Return minus slope times distance; shape (n_heads, n_tokens, n_tokens)."""
        slopes: Tensor = self.slopes  # type: ignore[assignment]
        return -slopes[:, None, None] * self.offsets(n_tokens).abs()


class PeriodicBias(AttentionBias):
    """Attention to days that are whole periods away: ``cos(2 pi (i - j) / period)``.

    The paper does not print its formula; this one is ours.

    Parameters
    ----------
    periods : sequence of float, default=(5, 10, 15, 20)
        One for each head, in trading days.
    """

    def __init__(self, periods: Sequence[float] = (5, 10, 15, 20)) -> None:
        super().__init__()
        if not periods or not all(period > 0 for period in periods):
            raise InvalidInputError(f"Expected positive periods; got {list(periods)}.")
        rates = torch.tensor([2 * math.pi / period for period in periods])
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, n_tokens: int) -> Tensor:
        """Return the cosines; shape (n_periods, n_tokens, n_tokens)."""
        rates: Tensor = self.rates  # type: ignore[assignment]
        return torch.cos(rates[:, None, None] * self.offsets(n_tokens))


class RelativePosition(AttentionBias):
    """A bias that is learnt for each head and each offset.

    Parameters
    ----------
    n_heads : int, default=4
        Heads of the network.
    n_tokens : int, default=20
        Most tokens of a window.
    """

    def __init__(self, n_heads: int = 4, n_tokens: int = 20) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_heads, 2 * n_tokens - 1))

    def forward(self, n_tokens: int) -> Tensor:
        """Return the table looked up by ``i - j``; shape (n_heads, n_tokens, n_tokens)."""
        most = (self.table.shape[1] + 1) // 2
        if n_tokens > most:
            message = f"Expected at most {most} tokens, as RelativePosition has; got {n_tokens}."
            raise InvalidInputError(message)
        return self.table[:, self.offsets(n_tokens) + most - 1]


class TableBias(AttentionBias):
    """A bias that is given as a table, such as that of a model that was saved.

    Parameters
    ----------
    table : torch.Tensor of shape (n_heads or 1, n_tokens, n_tokens)
        What is added to the logits; it is not trained.
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, n_tokens: int) -> Tensor:
        """Return the table."""
        table: Tensor = self.table  # type: ignore[assignment]
        if table.shape[1] != n_tokens:
            message = f"Expected {table.shape[1]} tokens, as the table has; got {n_tokens}."
            raise InvalidInputError(message)
        return table


def _hide(hidden: Tensor) -> Tensor:
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, -math.inf)[None]
