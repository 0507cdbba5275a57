"""Scores without gradients: the same sums as in training, in fewer passes over memory.

On a CPU a network this small is limited by memory as much as by arithmetic. So windows are taken in
blocks that stay in the cache; biases are folded into what is added anyway, or left out where they
change nothing (that of the keys adds the same to all logits of a row); ``relu(u + b)`` is
``max(u, -b) + b``, of which the last part goes into the next bias; and softmax divides by its sum
after the values are mixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .backbone import EncoderLayer, Ranker

__all__ = ["score"]

BLOCK = 128  # windows whose activations fit in the cache of a core
BLOCK_GPU = 8192
SMALLEST_SUM = 1e-30  # of exponentials; below, too many of their digits are lost


class _Folded(NamedTuple):
    """Weights of a layer, ready for use."""

    layer: EncoderLayer
    qkv: Tensor
    q_bias: Tensor
    out: Tensor
    out_bias: Tensor
    up: Tensor
    negative_up_bias: Tensor
    down: Tensor
    down_bias: Tensor

    @classmethod
    def of(cls, layer: EncoderLayer) -> _Folded:
        dim = layer.out.in_features
        scale = (dim // layer.n_heads) ** -0.5
        qkv, bias = layer.qkv.weight.clone(), layer.qkv.bias
        qkv[:dim] *= scale
        return cls(
            layer,
            qkv.t().contiguous(),
            bias[:dim] * scale,
            layer.out.weight.t().contiguous(),
            layer.out.bias + layer.out.weight @ bias[2 * dim :],
            layer.up.weight.t().contiguous(),
            -layer.up.bias,
            layer.down.weight.t().contiguous(),
            layer.down.bias + layer.down.weight @ layer.up.bias,
        )


class _Room:
    """Memory that all blocks use in turn: fresh pages would take longer than the products."""

    def __init__(self, model: Ranker, n: int, bias: Tensor | None) -> None:
        sizes, new = model.settings, model.embed.weight.new_empty
        length, n_heads, width = sizes.n_tokens, sizes.n_heads, sizes.dim // sizes.n_heads
        self.qkv = new(n * length, 3 * sizes.dim)
        self.heads = new(3, n, n_heads, length, width)
        self.logits = new(n, n_heads, length, length)
        self.mixed = new(n, n_heads, length, width)
        everywhere = None if bias is None else bias.expand(self.logits.shape)
        self.table = None if everywhere is None else everywhere.reshape(-1, length, length)
        self.hidden = new(n * length, sizes.ffn)
        self.mean = new(1, 1, length).fill_(1 / length)


def score(model: Ranker, windows: Tensor) -> Tensor:
    """Return the scores of windows; see `Ranker.forward`."""
    if not len(windows):
        return windows.new_empty(0)
    block = BLOCK if windows.device.type == "cpu" else BLOCK_GPU
    layers = [_Folded.of(layer) for layer in model.layers]  # type: ignore[arg-type]
    bias = model.table(model.embed.weight)
    room = _Room(model, min(block, len(windows)), bias)
    parts = [_read(model, layers, bias, room, part) for part in torch.split(windows, block)]
    scores: Tensor = model.head(model.norm(torch.cat(parts)))
    return scores[:, 0]


def _read(
    model: Ranker, layers: list[_Folded], bias: Tensor | None, room: _Room, windows: Tensor
) -> Tensor:
    """Return what is read out of windows; shape (n, dim)."""
    x = model.embed(model.tokens(windows)).add_(model.positions)
    for layer in layers[:-1]:
        rows = _attend(layer, x, room).flatten(0, 1)
        rows.addmm_(_hidden(layer, rows, room), layer.down).add_(layer.down_bias)
    final = layers[-1]
    if model.settings.readout == "last":
        rows = _attend_last(final, x, bias)
        hidden = _hidden(final, rows, room)
    else:
        x = _attend(final, x, room)
        hidden = _hidden(final, x.flatten(0, 1), room).view(*x.shape[:2], -1)
        weights = room.mean.expand(len(x), 1, -1)
        rows, hidden = (weights.bmm(part)[:, 0] for part in (x, hidden))
    return rows.addmm_(hidden, final.down).add_(final.down_bias)


def _attend(folded: _Folded, x: Tensor, room: _Room) -> Tensor:
    """Add to tokens, in place, what attention brings."""
    n, length, dim = x.shape
    rows, n_heads = x.view(n * length, dim), folded.layer.n_heads
    qkv = torch.mm(folded.layer.norm_attention(rows), folded.qkv, out=room.qkv[: n * length])
    qkv[:, :dim] += folded.q_bias
    heads = room.heads[:, :n]
    heads.copy_(qkv.view(n, length, 3, n_heads, -1).permute(2, 0, 3, 1, 4))
    q, k, v = heads.flatten(1, 2).unbind()
    logits, mixed = room.logits[:n].view(-1, length, length), room.mixed[:n].view(q.shape)
    table = None if room.table is None else room.table[: n * n_heads]
    sums = _logits(q, k, table, logits).exp_().sum(dim=-1)
    low, high = torch.aminmax(sums)
    if not (low > SMALLEST_SUM and high < torch.inf):  # too far from zero for the plain formula
        logits.copy_(torch.softmax(_logits(q, k, table, logits), dim=-1))
        sums.fill_(1.0)
    torch.bmm(logits, v, out=mixed)
    out = room.qkv.view(-1)[: rows.numel()].view(n, length, n_heads, -1)
    shape = (n, n_heads, length, -1)
    torch.div(mixed.view(shape), sums.view(shape), out=out.transpose(1, 2))
    rows.addmm_(out.view(rows.shape), folded.out).add_(folded.out_bias)
    return x


def _attend_last(folded: _Folded, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return the last tokens with what attention brings them; shape (n, dim)."""
    n, length, dim = x.shape
    h, n_heads = folded.layer.norm_attention(x), folded.layer.n_heads
    q = (h[:, -1] @ folded.qkv[:, :dim]).add_(folded.q_bias)
    k, v = (h.view(-1, dim) @ folded.qkv[:, dim:]).view(n, length, 2, n_heads, -1).unbind(2)
    logits = q.view(n, n_heads, 1, -1) @ k.permute(0, 2, 3, 1)
    if bias is not None:
        logits.add_(bias[:, -1:])
    mixed = torch.softmax(logits, dim=-1) @ v.transpose(1, 2)
    return x[:, -1].addmm(mixed.view(n, dim), folded.out).add_(folded.out_bias)


def _logits(q: Tensor, k: Tensor, table: Tensor | None, out: Tensor) -> Tensor:
    if table is None:
        return torch.bmm(q, k.transpose(1, 2), out=out)
    return torch.baddbmm(table, q, k.transpose(1, 2), out=out)


def _hidden(folded: _Folded, rows: Tensor, room: _Room) -> Tensor:
    hidden = torch.mm(folded.layer.norm_ffn(rows), folded.up, out=room.hidden[: len(rows)])
    return torch.maximum(hidden, folded.negative_up_bias, out=hidden)
