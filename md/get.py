"""GET: the graph equivariant transformer of BAMBOO, from its equations.

Scalars ``h`` and vectors ``V`` on atoms exchange messages along pairs closer than the cutoff. Each
message is gated by an attention without softmax and filtered by a function of distance; four small
heads read the site energy, the charge, and per-element electronegativity and hardness.

References
----------
S. Gong et al., "BAMBOO: a predictive and transferable machine learning force field framework for
liquid electrolyte development", arXiv:2404.07181, section "Graph equivariant transformer".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scikd.exceptions import InvalidInputError

from ._geometry import LARGEST_NUMBER
from ._switch import switch
from .messages import attention, scalar_messages, vector_messages
from .model import Architecture, Sites

__all__ = ["GET", "Envelope", "GETLayer", "GETSettings", "RadialBasis"]

Envelope = Literal["polynomial", "cosine"]

SMALLEST_EXPONENT = -60.0


@dataclass(frozen=True)
class GETSettings:
    """Sizes of a GET network; the defaults are those of the paper, but for the envelope.

    Parameters
    ----------
    dim : int, default=64
        Channels of the scalars, and of each component of the vectors.
    n_heads : int, default=16
        Attention heads; must divide ``dim``.
    n_layers : int, default=3
        Layers, at least 2: the first makes the vectors, the last reads them.
    n_radial : int, default=32
        Radial basis functions.
    cutoff : float, default=5.0
        Cutoff of the network in Å.
    envelope : {"polynomial", "cosine"}, default="polynomial"
        How messages fade out at the cutoff: with two continuous derivatives, or as published with
        one.
    max_charge : float, default=2.0
        Bound of the raw charge in e.
    n_hidden : int, default=2
        Hidden layers of each head, of ``dim // 2`` units.
    family : {"get"}, default="get"
        Kind of network.
    """

    dim: int = 64
    n_heads: int = 16
    n_layers: int = 3
    n_radial: int = 32
    cutoff: float = 5.0
    envelope: Envelope = "polynomial"
    max_charge: float = 2.0
    n_hidden: int = 2
    family: Literal["get"] = "get"

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, all at once."""
        problems = [
            f"{f.name} is {getattr(self, f.name)!r}, expected a positive number"
            for f in fields(self)
            if f.name not in {"envelope", "family"} and not getattr(self, f.name) > 0
        ]
        if self.n_heads > 0 and self.dim % self.n_heads:
            problems.append(f"dim {self.dim} is no multiple of n_heads {self.n_heads}")
        if self.n_layers == 1:
            problems.append("n_layers is 1, expected at least 2")
        if self.envelope not in ("polynomial", "cosine"):
            problems.append(f"envelope is {self.envelope!r}, expected 'polynomial' or 'cosine'")
        if self.family != "get":
            problems.append(f"family is {self.family!r}, expected 'get'")
        if problems:
            message = f"Cannot build a GET network: {'; '.join(problems)}."
            raise InvalidInputError(message)


class RadialBasis(nn.Module):
    """Exponential-normal functions of distance, with trainable means and widths.

    ``e_k(r) = f(r) exp(-beta_k (exp(-5 r / cutoff) - mu_k)^2)``, where ``f`` is the envelope.

    Parameters
    ----------
    n_radial : int
        Number of functions.
    cutoff : float
        Distance in Å from which all are zero.
    envelope : {"polynomial", "cosine"}
        ``1 - 10 x^3 + 15 x^4 - 6 x^5`` or ``(1 + cos(pi x)) / 2``, with ``x = r / cutoff``.
    """

    def __init__(self, n_radial: int, cutoff: float, envelope: Envelope) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.kind = envelope
        first = math.exp(-5.0)  # the value of exp(-5 r / cutoff) at the cutoff
        self.means = nn.Parameter(torch.linspace(first, 1.0, n_radial))
        width = (2.0 / n_radial * (1.0 - first)) ** -2
        self.betas = nn.Parameter(torch.full((n_radial,), width))

    def envelope(self, r: Tensor) -> Tensor:
        """Return the envelope at distances r, shape (n,) in Å: 1 at zero, 0 from the cutoff on."""
        if self.kind == "cosine":
            x = (r / self.cutoff).clamp(max=1.0)
            return 0.5 * (torch.cos(math.pi * x) + 1.0)
        return switch(r, 0.0, self.cutoff)

    def forward(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return the basis, shape (n, n_radial), and the envelope, shape (n,), at distances r."""
        fade = self.envelope(r)
        shrunk = torch.exp(-5.0 / self.cutoff * r)
        exponents = -self.betas * (shrunk[:, None] - self.means) ** 2
        # Numbers below 1e-38 are a hundred times slower to multiply, and make no difference.
        basis = torch.exp(exponents.clamp(min=SMALLEST_EXPONENT))
        return fade[:, None] * basis, fade


@dataclass(frozen=True)
class _Edges:
    """Both directions of every pair: the half list, then the same pairs turned round."""

    receivers: Tensor  # (2P,)
    senders: Tensor  # (2P,)
    units: Tensor  # (2P, 3), from sender to receiver
    filters: Tensor  # (2P, dim), with the head running fastest
    fade: Tensor  # (2P, 1)


class GETLayer(nn.Module):
    """One layer: attention along the edges, then an update of scalars and vectors.

    Parameters
    ----------
    settings : GETSettings
        Sizes.
    n_out : int
        How many blocks of ``dim`` the output projection has: 1 in the first layer (it updates the
        scalars and creates the vectors), 3 in a middle one, 2 in the last (no vector update).
    """

    def __init__(self, settings: GETSettings, n_out: int) -> None:
        super().__init__()
        dim = settings.dim
        self.n_heads = settings.n_heads
        self.n_out = n_out
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, n_out * dim)
        # A linear map of the channels; no bias, since a constant vector would have a direction.
        self.vec = nn.Linear(dim, n_out * dim, bias=False) if n_out > 1 else None
        for linear in (self.qkv, self.out, self.vec):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, V: Tensor | None, edges: _Edges) -> tuple[Tensor, Tensor | None]:
        """Return the scalars, shape (N, dim), and vectors, shape (N, 3, dim), after this layer."""
        n, dim = h.shape
        heads = self.qkv(self.norm(h)).view(n, self.n_heads, 3, dim // self.n_heads)
        # Within messages the head runs fastest; weights and features have it slowest.
        q, k, v = (part.transpose(1, 2).reshape(n, dim) for part in heads.unbind(2))
        ends = edges.receivers, edges.senders
        gate = nn.functional.silu(attention(*ends, q, k, self.n_heads)) * edges.fade
        o = self.out(self._head_slowest(scalar_messages(*ends, gate, v, edges.filters)))
        messages = None
        if self.n_out != 2:
            messages = self._head_slowest(vector_messages(*ends, edges.units, v, edges.filters))
        if self.vec is None or V is None:
            return h + o, messages
        p = self.vec(V)
        if messages is None:
            p1, p2 = p.split(dim, dim=-1)
            o2, o3 = o.split(dim, dim=-1)
            return h + (p1 * p2).sum(1) * o2 + o3, None
        p1, p2, p3 = p.split(dim, dim=-1)
        o1, o2, o3 = o.split(dim, dim=-1)
        return h + (p1 * p2).sum(1) * o2 + o3, V + p3 * o1[:, None, :] + messages

    def _head_slowest(self, features: Tensor) -> Tensor:
        grouped = features.view(*features.shape[:-1], -1, self.n_heads)
        return grouped.transpose(-1, -2).flatten(-2)


class GET(Architecture):
    """Graph equivariant transformer with charges.

    At the default sizes it has 103,620 trainable parameters.

    Parameters
    ----------
    settings : GETSettings, default=GETSettings()
        Sizes.
    charge_prior, electronegativity_prior : Tensor of shape (87,) or None, default=None
        Fixed numbers by atomic number, added within the charge head (dimensionless) and within the
        square that makes the electronegativity ((eV/e)^(1/2)); None is zero. Models of the older
        published form carry them.
    """

    readout = "energy_head"

    def __init__(
        self,
        settings: GETSettings | None = None,
        *,
        charge_prior: Tensor | None = None,
        electronegativity_prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        settings = settings or GETSettings()
        self.settings = settings
        self.cutoff = settings.cutoff
        dim = settings.dim
        self.embedding = nn.Embedding(LARGEST_NUMBER + 1, dim)
        self.radial = RadialBasis(settings.n_radial, settings.cutoff, settings.envelope)
        self.filter = nn.Linear(settings.n_radial, dim, bias=False)
        nn.init.xavier_uniform_(self.filter.weight)
        outs = [1, *[3] * (settings.n_layers - 2), 2]
        self.layers = nn.ModuleList(GETLayer(settings, n_out) for n_out in outs)
        self.energy_head = _head(dim, settings.n_hidden)
        self.charge_head = _head(dim, settings.n_hidden)
        self.electronegativity_head = _head(dim, settings.n_hidden)
        self.hardness_head = _head(dim, settings.n_hidden)
        zero = torch.zeros(LARGEST_NUMBER + 1)
        self.charge_prior: Tensor
        self.electronegativity_prior: Tensor
        self.register_buffer("charge_prior", zero if charge_prior is None else charge_prior)
        self.register_buffer(
            "electronegativity_prior",
            zero.clone() if electronegativity_prior is None else electronegativity_prior,
        )

    def forward(self, numbers: Tensor, index: Tensor, vectors: Tensor) -> Sites:
        """Return what the network says of every atom.

        Parameters
        ----------
        numbers : Tensor of shape (N,)
            Atomic numbers.
        index : Tensor of shape (2, P)
            Atoms of each pair, every pair once.
        vectors : Tensor of shape (P, 3)
            From the first atom of each pair to the second, in Å.
        """
        atoms = self.embedding(numbers)
        h, V = atoms, None
        edges = self._edges(index, vectors)
        for layer in self.layers:
            h, V = layer(h, V, edges)
        bound = self.settings.max_charge
        raw = self.charge_head(h).squeeze(-1) + self.charge_prior[numbers]
        # Constants of an element: read once each, whatever the number of atoms.
        elements, where = torch.unique(numbers, return_inverse=True)
        rows = self.embedding(elements)
        chi = self.electronegativity_head(rows).squeeze(-1) + self.electronegativity_prior[elements]
        eta = self.hardness_head(rows).squeeze(-1)
        return Sites(
            energies=self.energy_head(h).squeeze(-1),
            charges=bound * torch.tanh(raw / bound),
            electronegativity=(chi**2)[where],
            hardness=(eta**2)[where],
        )

    def _edges(self, index: Tensor, vectors: Tensor) -> _Edges:
        r = vectors.norm(dim=-1)
        basis, fade = self.radial(r)
        # Filter and envelope depend on the distance alone, so they are computed once for a pair.
        dim, n_heads = self.settings.dim, self.settings.n_heads
        weight = self.filter.weight.view(n_heads, dim // n_heads, -1).transpose(0, 1)
        filters = nn.functional.silu(basis @ weight.reshape(dim, -1).T)
        units = vectors / r[:, None]
        return _Edges(
            receivers=torch.cat([index[0], index[1]]),
            senders=torch.cat([index[1], index[0]]),
            units=torch.cat([-units, units]),
            filters=torch.cat([filters, filters]),
            fade=torch.cat([fade, fade])[:, None],
        )

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {f.name: getattr(self.settings, f.name) for f in fields(self.settings)}


def _head(dim: int, n_hidden: int) -> nn.Sequential:
    sizes = [dim, *[dim // 2] * n_hidden]
    steps: list[nn.Module] = []
    for before, after in pairwise(sizes):
        steps += [nn.Linear(before, after), nn.SiLU()]
    steps.append(nn.Linear(sizes[-1], 1))
    for step in steps:
        if isinstance(step, nn.Linear):
            nn.init.xavier_uniform_(step.weight)
            nn.init.zeros_(step.bias)
    return nn.Sequential(*steps)
