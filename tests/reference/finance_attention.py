"""The network of TIPS written out: dense attention, one stock, one head and one token at a time."""

from __future__ import annotations

import math

import numpy as np


def bias_table(kind, n_tokens, n_heads):
    """Return the bias of a teacher, entry by entry; shape (n_heads, n_tokens, n_tokens)."""
    table = np.zeros((n_heads, n_tokens, n_tokens))
    for h in range(n_heads):
        for i in range(n_tokens):
            for j in range(n_tokens):
                if kind == "past":
                    table[h, i, j] = 0.0 if j <= i else -math.inf
                elif kind == "future":
                    table[h, i, j] = 0.0 if j >= i else -math.inf
                elif kind == "alibi":
                    table[h, i, j] = -(2.0 ** (-8 / (h + 1))) * abs(i - j)
                elif kind == "alibi-standard":
                    table[h, i, j] = -(2.0 ** (-8 * (h + 1) / n_heads)) * abs(i - j)
                elif kind == "periodic":
                    table[h, i, j] = math.cos(2 * math.pi * (i - j) / (5 * (h + 1)))
    return table


def ranker_scores(weights, windows, *, n_layers, n_heads, patch, readout, table):
    """Return the scores of windows, shape (n, look_back, n_features), by loops."""
    return np.array(
        [_one(weights, window, n_layers, n_heads, patch, readout, table) for window in windows]
    )


def _one(weights, window, n_layers, n_heads, patch, readout, table):
    days = [np.concatenate(window[t : t + patch]) for t in range(len(window) - patch + 1)]
    tokens = [_linear(weights, "embed", day) for day in days]
    dim = len(tokens[0])
    for t, token in enumerate(tokens):
        for c in range(dim):
            angle = t * 10_000.0 ** (-(c - c % 2) / dim)
            token[c] += math.cos(angle) if c % 2 else math.sin(angle)
    for layer in range(n_layers):
        tokens = _layer(weights, f"layers.{layer}.", tokens, n_heads, table)
    read = np.mean(tokens, axis=0) if readout == "mean" else tokens[-1]
    hidden = np.maximum(_linear(weights, "head.0", _norm(weights, "norm", read)), 0.0)
    return _linear(weights, "head.2", hidden)[0]


def _layer(weights, name, tokens, n_heads, table):
    dim = len(tokens[0])
    width = dim // n_heads
    qkv = [
        _linear(weights, f"{name}qkv", _norm(weights, f"{name}norm_attention", t)) for t in tokens
    ]
    after = []
    for i, token in enumerate(tokens):
        mixed = np.zeros(dim)
        for h in range(n_heads):
            part = slice(h * width, (h + 1) * width)
            query = qkv[i][:dim][part]
            logits = [
                query @ other[dim : 2 * dim][part] / math.sqrt(width) + table[h, i, j]
                for j, other in enumerate(qkv)
            ]
            shares = np.exp(np.array(logits) - max(logits))
            shares /= shares.sum()
            for share, other in zip(shares, qkv, strict=True):
                mixed[part] += share * other[2 * dim :][part]
        x = token + _linear(weights, f"{name}out", mixed)
        up = _linear(weights, f"{name}up", _norm(weights, f"{name}norm_ffn", x))
        after.append(x + _linear(weights, f"{name}down", np.maximum(up, 0.0)))
    return after


def _linear(weights, name, x):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def _norm(weights, name, x):
    centred = x - x.mean()
    scaled = centred / math.sqrt((centred**2).mean() + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
