"""Losses over the stocks of a day: rank correlation to teach teachers, distillation for a student.

Stocks lie one day after the other, and ``day_ptr`` says where each day begins, as in a sparse
matrix. A loss is the mean over days. Days of one stock, or in which nothing differs, order nothing
and add nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scikd.exceptions import InvalidInputError

__all__ = [
    "RankMethod",
    "distillation_loss",
    "mean_ranks",
    "rank_correlation_loss",
    "soft_ranks",
    "teacher_distribution",
]

RankMethod = Literal["pairwise", "linear"]

LARGEST_TABLE = 2**22  # pairs at a time, 16 MiB in single precision
SLOPE = 1.83 / 2  # of the logistic curve that stands for the normal distribution


def soft_ranks(
    scores: Tensor,
    day_ptr: Tensor,
    method: RankMethod = "pairwise",
    *,
    sharpness: float = 1.0,
) -> Tensor:
    """Return ranks within each day, from 1 for the lowest score, that can be differentiated.

    Parameters
    ----------
    scores : torch.Tensor of shape (n,)
        Scores of stocks, one day after the other.
    day_ptr : torch.Tensor of shape (n_days + 1,), int64
        Where each day begins; the last entry is n.
    method : {"pairwise", "linear"}, default="pairwise"
        The sum over the stocks of the day of ``sigmoid(sharpness * (s_i - s_j))``, plus one half:
        time O(n²) in a day, memory bounded. Or ``n sigmoid(1.83 (s - mean) / (2 std))`` plus one
        half, the rank of a normal distribution: O(n), and the scale of the scores does not matter.
    sharpness : float, default=1.0
        Of "pairwise"; the larger, the closer to ranks, and the fewer pairs that teach.

    Returns
    -------
    torch.Tensor of shape (n,)
        The ranks. With "pairwise" they are differentiable once.

    Raises
    ------
    InvalidInputError
        If day_ptr does not fit, or there is no such method.
    """
    days = _Days(scores, day_ptr)
    if method == "pairwise":
        ranks: Tensor = _PairwiseRanks.apply(scores, days.sizes, sharpness)  # type: ignore[no-untyped-call]
        return ranks
    if method != "linear":
        raise InvalidInputError(f"Expected method 'pairwise' or 'linear'; got {method!r}.")
    centred = days.centred(scores)
    std = days.of_each(_safe_sqrt(days.sum(centred.square()) / days.counts))
    scaled = centred / torch.where(std > 0, std, torch.ones_like(std))
    return days.of_each(days.counts) * torch.sigmoid(SLOPE * scaled) + 0.5


def mean_ranks(values: Tensor, day_ptr: Tensor) -> Tensor:
    """Return exact ranks within each day, from 1; equal values share the mean of theirs.

    Parameters
    ----------
    values : torch.Tensor of shape (n,)
        Values, one day after the other.
    day_ptr : torch.Tensor of shape (n_days + 1,), int64
        Where each day begins.

    Returns
    -------
    torch.Tensor of shape (n,)
        The ranks, in the type of the values.
    """
    days = _Days(values, day_ptr)
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(days.codes[order], stable=True)]
    pairs = torch.stack([days.codes[order].to(values.dtype), values[order]], dim=1)
    changes = (pairs[1:] != pairs[:-1]).any(dim=1)
    runs = torch.cat([changes.new_zeros(min(1, len(values))), changes]).cumsum(0)
    lengths = torch.bincount(runs)
    last = lengths.cumsum(0).to(values.dtype)
    middle = (last - 0.5 * (lengths.to(values.dtype) - 1))[runs]
    ranks = torch.empty_like(values)
    ranks[order] = middle - day_ptr[:-1].to(values)[days.codes[order]]
    return ranks


def rank_correlation_loss(
    scores: Tensor,
    labels: Tensor,
    day_ptr: Tensor,
    method: RankMethod = "pairwise",
    *,
    sharpness: float = 1.0,
) -> Tensor:
    """Return minus the mean over days of the correlation of soft ranks with the labels' ranks.

    Parameters
    ----------
    scores : torch.Tensor of shape (n,)
        Scores of stocks, one day after the other.
    labels : torch.Tensor of shape (n,)
        Forward returns, as fractions, or anything in the order that is to be learnt. Their ranks
        are exact.
    day_ptr : torch.Tensor of shape (n_days + 1,), int64
        Where each day begins.
    method : {"pairwise", "linear"}, default="pairwise"
        See `soft_ranks`.
    sharpness : float, default=1.0
        See `soft_ranks`.

    Returns
    -------
    torch.Tensor of shape ()
        Between -1 and 1; 0 where no day orders anything.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit.
    """
    days = _Days(scores, day_ptr)
    if labels.shape != scores.shape:
        raise InvalidInputError(
            f"Expected labels of shape {tuple(scores.shape)}, as the scores; got "
            f"{tuple(labels.shape)}."
        )
    found = days.centred(soft_ranks(scores, day_ptr, method, sharpness=sharpness))
    truth = days.centred(mean_ranks(labels.to(scores), day_ptr))
    norms = _safe_sqrt(days.sum(found.square()) * days.sum(truth.square()))
    products = days.sum(found * truth)
    return -(products / torch.where(norms > 0, norms, torch.ones_like(norms))).mean()


def teacher_distribution(
    target: Tensor, day_ptr: Tensor, temperature: float = 0.01, smoothing: float = 0.9
) -> Tensor:
    """Return what a student is taught: shares of each day's stocks that sum to one.

    Parameters
    ----------
    target : torch.Tensor of shape (n,)
        Scores that the teachers agree on.
    day_ptr : torch.Tensor of shape (n_days + 1,), int64
        Where each day begins.
    temperature : float, default=0.01
        Divides the scores before softmax; the lower, the more the best stock takes.
    smoothing : float, default=0.9
        What is spread over all stocks of the day alike, from 0 to 1.

    Returns
    -------
    torch.Tensor of shape (n,)
        The shares.

    Raises
    ------
    InvalidInputError
        If the temperature is not positive, or smoothing is not from 0 to 1.
    """
    if not (temperature > 0 and 0 <= smoothing <= 1):
        message = (
            "Expected a temperature above 0 and smoothing from 0 to 1; got "
            f"temperature={temperature!r} and smoothing={smoothing!r}."
        )
        raise InvalidInputError(message)
    days = _Days(target, day_ptr)
    shares = days.log_softmax(target / temperature).exp()
    return (1 - smoothing) * shares + smoothing / days.of_each(days.counts)


def distillation_loss(
    scores: Tensor,
    target: Tensor,
    day_ptr: Tensor,
    temperature: float = 0.01,
    smoothing: float = 0.9,
) -> Tensor:
    """Return the mean over days of the cross-entropy of a student with its teachers.

    Parameters
    ----------
    scores : torch.Tensor of shape (n,)
        Scores of the student, one day after the other. Its softmax has temperature 1.
    target : torch.Tensor of shape (n,)
        Scores that the teachers agree on.
    day_ptr : torch.Tensor of shape (n_days + 1,), int64
        Where each day begins.
    temperature, smoothing : float
        See `teacher_distribution`.

    Returns
    -------
    torch.Tensor of shape ()
        In nats.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit, or as `teacher_distribution` does.
    """
    shares = teacher_distribution(target, day_ptr, temperature, smoothing)
    days = _Days(scores, day_ptr)
    return -(shares.to(scores) * days.log_softmax(scores)).sum() / len(days.counts)


class _Days:
    """Sums over days of unequal length."""

    def __init__(self, values: Tensor, day_ptr: Tensor) -> None:
        whole = values.ndim == 1 and day_ptr.ndim == 1 and not day_ptr.is_floating_point()
        sizes = day_ptr.diff() if whole and len(day_ptr) > 1 else day_ptr.new_zeros(1)
        if not (bool((sizes > 0).all()) and day_ptr[0] == 0 and day_ptr[-1] == len(values)):
            message = (
                "Expected day_ptr to rise from 0 to the number of scores, with a stock in each day;"
                f" got {len(values)} scores and day_ptr {np.asarray(day_ptr.cpu())!s:.80}."
            )
            raise InvalidInputError(message)
        self.sizes = sizes
        self.counts = sizes.to(values)
        self.codes = torch.repeat_interleave(sizes)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of each day, shape (n_days,)."""
        return torch.zeros_like(self.counts, dtype=values.dtype).index_add(0, self.codes, values)

    def of_each(self, values: Tensor) -> Tensor:
        """Return for each stock what its day has."""
        return values[self.codes]

    def centred(self, values: Tensor) -> Tensor:
        """Return values less the mean of their day."""
        return values - self.of_each(self.sum(values) / self.counts)

    def log_softmax(self, values: Tensor) -> Tensor:
        """Return logarithms of shares of the day."""
        top = torch.full_like(self.counts, -torch.inf)
        top = top.scatter_reduce(0, self.codes, values.detach(), "amax")
        shifted = values - self.of_each(top)
        return shifted - self.of_each(self.sum(shifted.exp()).log())


def _safe_sqrt(values: Tensor) -> Tensor:
    """Return square roots, with a gradient of zero where the value is zero or rounding."""
    tiny = torch.finfo(values.dtype).tiny
    return torch.where(values > tiny, values, torch.ones_like(values)).sqrt() * (values > tiny)


class _PairwiseRanks(torch.autograd.Function):
    """Soft ranks by pairs, in tables of bounded size that are made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, sizes: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.sizes, ctx.sharpness = sizes, sharpness
        ranks = torch.empty_like(scores)
        for rows, columns, there in _tables(sizes):
            differences = scores[rows][:, :, None] - scores[columns][:, None, :]
            pairs = torch.sigmoid_(differences.mul_(sharpness))
            ranks[rows] = pairs.mul_(there[:, None, :]).sum(dim=2).add_(0.5)
        return ranks

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (scores,) = ctx.saved_tensors
        result = torch.empty_like(scores)
        for rows, columns, there in _tables(ctx.sizes):
            differences = scores[rows][:, :, None] - scores[columns][:, None, :]
            pairs = torch.sigmoid_(differences.mul_(ctx.sharpness))
            slopes = pairs.mul_(1 - pairs).mul_(there[:, None, :])
            pulls = gradient[rows][:, :, None] - gradient[columns][:, None, :]
            result[rows] = ctx.sharpness * slopes.mul_(pulls).sum(dim=2)
        return result, None, None


def _tables(sizes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield indices of rows and of columns of tables of pairs, and which columns there are.

    A row beyond the end of its day repeats the last one.
    """
    starts = sizes.cumsum(0) - sizes
    for first, end, most in _groups(sizes.tolist()):
        within = torch.arange(most, device=sizes.device)
        length = sizes[first:end, None]
        columns = starts[first:end, None] + torch.minimum(within, length - 1)
        step = max(LARGEST_TABLE // (most * (end - first)), 1)
        for at in range(0, most, step):
            yield columns[:, at : at + step], columns, within < length


def _groups(sizes: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield neighbouring days whose pairs fit in one table: first, end, and the largest size."""
    first, most = 0, sizes[0]
    for day, size in enumerate(sizes):
        if day > first and (day + 1 - first) * max(most, size) ** 2 > LARGEST_TABLE:
            yield first, day, most
            first, most = day, size
        most = max(most, size)
    yield first, len(sizes), most
