"""Naive twin of `scikd.md.equivariant`: sums over edges, paths, components, channels, written out.

Coupling coefficients are e3nn's 3j symbols; harmonics are the polynomials of degrees 0 to 2.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from e3nn.o3 import wigner_3j

SILU = 1.6765  # makes the second moment of silu one


def silu(x):
    return x / (1.0 + np.exp(-x))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def envelope(r, cutoff):
    x = r / cutoff
    return 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5 if x < 1.0 else 0.0


def harmonics(direction):
    """Return the component-normalised harmonics of a unit vector by degree, in e3nn's order."""
    x, y, z = direction
    root3, root5 = math.sqrt(3.0), math.sqrt(5.0)
    second = [x * z, x * y, (y * y - 0.5 * (x * x + z * z)) / root3, y * z, (z * z - x * x) / 2.0]
    return [
        np.array([1.0]),
        root3 * np.array([x, y, z]),
        root5 * root3 * np.array(second),
    ]


def paths(l_first, l_second, l_third):
    """List the paths by degree of the result, as the weights do."""
    for c, a, b in product(range(l_third + 1), range(l_first + 1), range(l_second + 1)):
        if abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0:
            yield a, b, c


def couple(x, y, a, b, c):
    """Return the product of tensors (2 a + 1,) and (2 b + 1,) of degree c."""
    symbols = wigner_3j(a, b, c, dtype=torch.float64).numpy()
    out = np.zeros(2 * c + 1)
    for i, j, k in np.ndindex(symbols.shape):
        out[k] += math.sqrt(2 * c + 1) * symbols[i, j, k] * x[i] * y[j]
    return out


def perceptron(weights, name, x):
    k = 0
    while f"{name}.{k}.weight" in weights:
        if k:
            x = SILU * silu(x)
        x = weights[f"{name}.{k}.weight"] @ x + weights.get(f"{name}.{k}.bias", 0.0)
        k += 2
    return x


def radial(weights, name, r, cutoff, n_radial):
    """Return the weights of the messages at a distance, paths and channels in a row."""
    n = np.arange(1, n_radial + 1)
    basis = math.sqrt(2.0) / 3.0 * cutoff * np.sin(n * math.pi * r / cutoff) / r
    return envelope(r, cutoff) * perceptron(weights, name, basis)


def interaction(weights, name, h, numbers, edges, *, l_in, l_out, l_max, correlation, **basis):
    """Return the next tensors; h and the result are lists by degree of (N, 2 l + 1, channels)."""
    w = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
    n_atoms, channels = len(numbers), h[0].shape[2]
    sent = [x @ w[f"up.weights.{k}"] for k, x in enumerate(h)]
    ways = list(paths(l_in, l_max, l_max))
    received = np.zeros((len(ways), n_atoms, channels), dtype=object)
    for p, a, c in np.ndindex(received.shape):
        received[p, a, c] = np.zeros(2 * ways[p][2] + 1)
    for a, b, vector in edges:  # from receiver to sender
        r = math.sqrt(vector @ vector)
        at = radial(w, "radial", r, **basis).reshape(len(ways), channels)
        Y = harmonics(vector / r)
        for (p, (l1, l2, l3)), c in product(enumerate(ways), range(channels)):
            received[p, a, c] += at[p, c] * couple(sent[l1][b, :, c], Y[l2], l1, l2, l3)
    sums = []
    for degree in range(l_max + 1):
        mine = [p for p, way in enumerate(ways) if way[2] == degree]
        mixed = np.zeros((n_atoms, 2 * degree + 1, channels))
        for a, (place, p), c in product(range(n_atoms), enumerate(mine), range(channels)):
            row = w[f"mix.weights.{degree}"][place * channels + c]
            mixed[a] += received[p, a, c][:, None] * row
        sums.append(mixed / math.sqrt(w["neighbors"][degree]))
    many = powers(w, sums, numbers, l_out, l_max, correlation)
    made = [x @ w[f"down.weights.{k}"] for k, x in enumerate(many)]
    out = []
    for degree, x in enumerate(made):
        if degree == 0:
            gated = SILU * silu(x)
        else:
            gates = made[0][:, 0] @ w["gate.weight"].T + w["gate.bias"]
            mine = gates[:, (degree - 1) * channels : degree * channels]
            gated = 2.0 * sigmoid(mine)[:, None] * x
        if degree <= l_in:
            scales = w["skip_scales"][numbers, degree][:, None]
            gated = (gated + scales * (h[degree] @ w[f"skip.weights.{degree}"])) / math.sqrt(2.0)
        out.append(gated)
    return out


def powers(w, sums, numbers, l_out, l_max, correlation):
    """Return by degree all powers of the sums, one after the other in the channels."""
    n_atoms, _, channels = sums[0].shape
    scaled = [x * w["element_scales"][numbers, k][:, None] for k, x in enumerate(sums)]
    found, power = [scaled[: l_out + 1]], sums
    for order in range(2, correlation + 1):
        end = l_out if order == correlation else l_max
        following = [np.zeros((n_atoms, 2 * k + 1, channels)) for k in range(end + 1)]
        for p, (l1, l2, l3) in enumerate(paths(l_max, l_max, end)):
            for a, c in product(range(n_atoms), range(channels)):
                weight = w[f"product_weights.{order - 2}"][numbers[a], p, c]
                term = couple(power[l1][a, :, c], sums[l2][a, :, c], l1, l2, l3)
                following[l3][a, :, c] += weight * term
        power = following
        norm = math.sqrt(math.prod(range(1, 2 * order, 2)))
        found.append([x / norm for x in power[: l_out + 1]])
    return [np.concatenate(degree, axis=2) for degree in zip(*found, strict=True)]


def network(weights, numbers, positions, settings):
    """Return energies, charges, electronegativity and hardness of atoms in free space."""
    n, cutoff = len(numbers), settings.cutoff
    edges = [
        (a, b, positions[b] - positions[a])
        for a, b in product(range(n), range(n))
        if a != b and np.linalg.norm(positions[b] - positions[a]) < cutoff
    ]
    h = [weights["embedding.weight"][numbers][:, None]]
    read = []
    for k in range(settings.n_layers):
        h = interaction(
            weights,
            f"layers.{k}.",
            h,
            numbers,
            edges,
            l_in=len(h) - 1,
            l_out=settings.l_max if k < settings.n_layers - 1 else 0,
            l_max=settings.l_max,
            correlation=settings.correlation,
            cutoff=cutoff,
            n_radial=settings.n_radial,
        )
        read.append(h[0][:, 0])
    scalars = np.concatenate(read, axis=1)
    energies = np.array([perceptron(weights, "energy_head", x)[0] for x in scalars])
    raw = np.array([perceptron(weights, "charge_head", x)[0] for x in scalars])
    bound = settings.max_charge
    chi, eta = (
        softplus(weights[f"{name}_head.weight"][numbers, 0])
        for name in ("electronegativity", "hardness")
    )
    return energies, bound * np.tanh(raw / bound), chi, eta
