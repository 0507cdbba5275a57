"""Naive twin of `scikd.md.kernels.network`: the equations of GET, one edge and head at a time."""

from __future__ import annotations

import math

import numpy as np


def silu(x):
    return x / (1.0 + np.exp(-x))


def envelope(r, cutoff, kind):
    x = r / cutoff
    if x >= 1.0:
        return 0.0
    if kind == "cosine":
        return 0.5 * (math.cos(math.pi * x) + 1.0)
    return 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5


def filter_of(weights, r, cutoff, kind):
    """Return W(r), shape (dim,)."""
    y = math.exp(-5.0 * r / cutoff)
    bells = np.exp(-weights["radial.betas"] * (y - weights["radial.means"]) ** 2)
    return silu(weights["filter.weight"] @ (envelope(r, cutoff, kind) * bells))


def head(weights, name, x):
    """Return what a head says of one atom."""
    k = 0
    while f"{name}.{k + 2}.weight" in weights:
        x = silu(weights[f"{name}.{k}.weight"] @ x + weights[f"{name}.{k}.bias"])
        k += 2
    return (weights[f"{name}.{k}.weight"] @ x + weights[f"{name}.{k}.bias"])[0]


def layer_norm(x, scale, bias):
    return scale * (x - x.mean()) / np.sqrt(x.var() + 1e-5) + bias


def layer(weights, name, n_heads, h, V, edges):
    """Return scalars (N, dim) and vectors (N, 3, dim) after a layer; edges are (i, j, u, f, W)."""
    w = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
    n, dim = h.shape
    width = dim // n_heads
    q, k, v = (np.zeros((n, n_heads, width)) for _ in range(3))
    for i in range(n):
        x = layer_norm(h[i], w["norm.weight"], w["norm.bias"])
        qkv = (w["qkv.weight"] @ x + w["qkv.bias"]).reshape(n_heads, 3, width)
        q[i], k[i], v[i] = qkv[:, 0], qkv[:, 1], qkv[:, 2]
    s, m = np.zeros((n, dim)), np.zeros((n, 3, dim))
    for i, j, u, fade, W in edges:
        for a in range(n_heads):
            here = slice(a * width, (a + 1) * width)
            sent = v[j, a] * W[here]
            s[i, here] += silu(q[i, a] @ k[j, a]) * fade * sent
            m[i, :, here] += np.outer(u, sent)
    h_new, V_new = np.zeros_like(h), m.copy()
    for i in range(n):
        o = w["out.weight"] @ s[i] + w["out.bias"]
        if "vec.weight" not in w:  # the first
            h_new[i] = h[i] + o
            continue
        p = V[i] @ w["vec.weight"].T
        dot = (p[:, :dim] * p[:, dim : 2 * dim]).sum(0)
        o2, o3 = o[-2 * dim : -dim], o[-dim:]
        h_new[i] = h[i] + dot * o2 + o3
        if len(o) == 3 * dim:  # not the last
            V_new[i] = V[i] + p[:, 2 * dim :] * o[:dim] + m[i]
    return h_new, V_new


def network(weights, numbers, positions, pairs, *, n_heads, cutoff, envelope_kind, max_charge):
    """Return site energies and raw charges; pairs are (i, j, offset), each once."""
    edges = []
    for i, j, offset in pairs:
        d = positions[i] - (positions[j] + offset)
        r = math.sqrt(d @ d)
        if r < cutoff:
            fade = envelope(r, cutoff, envelope_kind)
            W = filter_of(weights, r, cutoff, envelope_kind)
            edges += [(i, j, d / r, fade, W), (j, i, -d / r, fade, W)]
    h = weights["embedding.weight"][numbers]
    V = np.zeros((len(h), 3, h.shape[1]))
    n_layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for k in range(n_layers):
        h, V = layer(weights, f"layers.{k}.", n_heads, h, V, edges)
    energies = np.array([head(weights, "energy_head", x) for x in h])
    raw = np.array([head(weights, "charge_head", x) for x in h]) + weights["charge_prior"][numbers]
    return energies, max_charge * np.tanh(raw / max_charge)


def forces_and_virial(energy, positions, pairs, step=1e-4):
    """Differentiate ``energy(positions, pairs)`` by central differences: forces, virial (3, 3)."""
    forces, virial = np.zeros_like(positions), np.zeros((3, 3))
    for i in range(len(positions)):
        for a in range(3):
            ends = []
            for sign in (1, -1):
                moved = positions.copy()
                moved[i, a] += sign * step
                ends.append(energy(moved, pairs))
            forces[i, a] = -(ends[0] - ends[1]) / (2 * step)
    for a in range(3):
        for b in range(3):
            ends = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[a, b] += sign * step
                strained = [(i, j, offset @ strain) for i, j, offset in pairs]
                ends.append(energy(positions @ strain, strained))
            virial[a, b] = -(ends[0] - ends[1]) / (2 * step)
    return forces, virial
