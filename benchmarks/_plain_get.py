"""The published training step, restated plainly: one tensor per symbol of the equations.

Every directed edge has its own radial functions and filter, and messages are tensors of edges times
channels times directions. It takes the weights of a `scikd.md.get.GET`, so that both give the same
numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from scikd.md.get import GET

__all__ = ["predict"]


def predict(
    net: GET,
    numbers: Tensor,
    positions: Tensor,
    edges: Tensor,
    pairs: Tensor,
    batch: Tensor,
    charge: Tensor,
    settings: tuple[float, float, float],
) -> dict[str, Tensor]:
    """Return energy by structure (eV), forces (eV/Å), charges (e), dipoles and neglected forces.

    Parameters
    ----------
    net : GET
        The weights.
    numbers, positions, batch : Tensor of shape (N,), (N, 3), (N,)
        The atoms, and the structure of each.
    edges, pairs : Tensor of shape (2, E)
        Directed edges within the cutoff, and all directed pairs: receivers, senders.
    charge : Tensor of shape (B,)
        Total charge of each structure.
    settings : tuple of float
        Constant, length and sharpness of the damped Coulomb energy.
    """
    positions = positions.detach().requires_grad_()
    d = positions[edges[0]] - positions[edges[1]]
    h = _features(net, numbers, edges, d)
    bound = net.settings.max_charge
    raw = bound * torch.tanh((net.charge_head(h)[:, 0] + net.charge_prior[numbers]) / bound)
    count = torch.bincount(batch)
    total = torch.zeros_like(charge).index_add(0, batch, raw)
    q = raw + ((charge - total) / count)[batch]
    e_network = net.energy_head(h)[:, 0]
    atoms = net.embedding(numbers)
    chi = (net.electronegativity_head(atoms)[:, 0] + net.electronegativity_prior[numbers]) ** 2
    eta = net.hardness_head(atoms)[:, 0] ** 2
    constant, r0, beta = settings
    there = positions.detach()
    between = there[pairs[0]] - there[pairs[1]]
    r = between.norm(dim=1)
    x = (r - r0) / r0
    damped = r0 * (1 + torch.nn.functional.softplus(beta * x) / beta)
    e_pair = 0.5 * constant * q[pairs[0]] * q[pairs[1]] / damped
    slope = constant * q[pairs[0]] * q[pairs[1]] * torch.sigmoid(beta * x) / damped**2
    forces = torch.zeros_like(there).index_add(0, pairs[0], slope[:, None] * between / r[:, None])
    (by_edge,) = torch.autograd.grad(e_network.sum(), d, create_graph=True)
    forces = forces.index_add(0, edges[0], -by_edge).index_add(0, edges[1], by_edge)
    e_charged = torch.zeros_like(q).index_add(0, pairs[0], e_pair) + q * (chi + eta * q)
    (neglected,) = torch.autograd.grad(e_charged.sum(), positions, create_graph=True)
    energy = torch.zeros_like(charge).index_add(0, batch, e_network + e_charged)
    moments = torch.zeros(len(charge), 3).index_add(0, batch, q[:, None] * there)
    return {"energy": energy, "forces": forces, "charges": q, "dipole": moments, "qeq": neglected}


def _features(net: GET, numbers: Tensor, edges: Tensor, d: Tensor) -> Tensor:
    i, j = edges
    n, dim, heads = len(numbers), net.settings.dim, net.settings.n_heads
    r = d.norm(dim=1)
    u = d / r[:, None]
    basis, fade = net.radial(r)
    filters = silu(net.filter(basis)).view(len(r), heads, -1)
    h, V = net.embedding(numbers), None
    for layer in net.layers:
        q, k, v = layer.qkv(layer.norm(h)).view(n, heads, 3, dim // heads).unbind(2)
        a = silu((q[i] * k[j]).sum(-1)) * fade[:, None]
        sent = v[j] * filters
        s = torch.zeros(n, dim).index_add(0, i, (a[..., None] * sent).flatten(1))
        m = torch.zeros(n, 3, dim).index_add(0, i, u[:, :, None] * sent.flatten(1)[:, None, :])
        o = layer.out(s).split(dim, dim=1)
        if V is None:
            h, V = h + o[0], m
            continue
        p = layer.vec(V).split(dim, dim=2)
        h = h + (p[0] * p[1]).sum(1) * o[-2] + o[-1]
        V = V if len(p) == 2 else V + p[2] * o[0][:, None, :] + m
    return h
