"""A network of tensor products: the second family of force fields, on e3nn.

Atoms carry spherical tensors of degrees 0 to ``l_max``, as in NequIP and MACE. In each interaction
an atom sums over its neighbours the tensor products of their tensors with the spherical harmonics
of the direction to them, weighted by a learnt function of the distance; products of that sum with
itself bring in many bodies; a linear map and a gate make the next tensors. Small heads read site
energy and charge from the scalars of all interactions; electronegativity and hardness are numbers
of an element.

References
----------
S. Batzner et al., "E(3)-equivariant graph neural networks for data-efficient and accurate
interatomic potentials", Nature Communications 13, 2453 (2022).
I. Batatia et al., "MACE: higher order equivariant message passing neural networks for fast and
accurate force fields", NeurIPS 2022, arXiv:2206.07697.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._couplings import Couplings, atom_products, components, pair_messages
from ._geometry import LARGEST_NUMBER
from ._switch import switch
from .model import Architecture, Sites

__all__ = ["BesselBasis", "Equivariant", "EquivariantSettings", "Interaction"]

LARGEST_DEGREE = 3
ATOMS_PER_VOLUME = 0.1  # 1/Å³, of a molecular liquid
# What makes the second moment of silu(x) one, for x from a unit normal distribution.
SILU_SCALE = 1.6765
FIRST_OUTPUT = 0.1  # eV, and e
NOT_SIZES = ("average_neighbors", "family", "l_max")


@dataclass(frozen=True)
class EquivariantSettings:
    """Sizes of an `Equivariant` network.

    Parameters
    ----------
    channels : int, default=64
        Channels of each component of the tensors.
    l_max : int, default=2
        Highest degree of tensors and harmonics, 0 to 3.
    n_layers : int, default=2
        Interactions.
    correlation : int, default=3
        Most factors in a product of messages: with n, n + 1 bodies meet in one interaction.
    n_radial : int, default=8
        Bessel functions.
    n_hidden : int, default=64
        Units in each of the two hidden layers that make radial weights.
    cutoff : float, default=5.0
        Cutoff of an interaction in Å.
    average_neighbors : float or None, default=None
        Effective number of neighbours of an atom, by the root of which sums of messages are
        divided. None takes it from the structures of the training, for each interaction and degree,
        so that all sums have unit variance at first.
    max_charge : float, default=2.0
        Bound of the raw charge in e.
    family : {"equivariant"}, default="equivariant"
        Kind of network.
    """

    channels: int = 64
    l_max: int = 2
    n_layers: int = 2
    correlation: int = 3
    n_radial: int = 8
    n_hidden: int = 64
    cutoff: float = 5.0
    average_neighbors: float | None = None
    max_charge: float = 2.0
    family: Literal["equivariant"] = "equivariant"

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, all at once."""
        problems = [
            f"{f.name} is {getattr(self, f.name)!r}, expected a positive number"
            for f in fields(self)
            if f.name not in NOT_SIZES and not getattr(self, f.name) > 0
        ]
        if not 0 <= self.l_max <= LARGEST_DEGREE:
            problems.append(f"l_max is {self.l_max!r}, expected 0 to {LARGEST_DEGREE}")
        if self.average_neighbors is not None and not self.average_neighbors > 0:
            value = self.average_neighbors
            problems.append(f"average_neighbors is {value!r}, expected a positive number or None")
        if self.family != "equivariant":
            problems.append(f"family is {self.family!r}, expected 'equivariant'")
        if problems:
            message = f"Cannot build an equivariant network: {'; '.join(problems)}."
            raise InvalidInputError(message)


class BesselBasis(nn.Module):
    """Functions of distance ``sin(n pi r / cutoff) / r``, scaled to about one, and an envelope.

    Parameters
    ----------
    n_radial : int
        Number of functions.
    cutoff : float
        Distance in Å from which the envelope, ``1 - 10 x^3 + 15 x^4 - 6 x^5`` with
        ``x = r / cutoff``, is zero.
    """

    def __init__(self, n_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.n_radial = n_radial

    def forward(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return the functions, shape (n, n_radial), and the envelope, (n,), at distances r."""
        n = torch.arange(1, self.n_radial + 1, dtype=r.dtype, device=r.device)
        waves = torch.sin((math.pi / self.cutoff) * r[:, None] * n)
        # At a third of the cutoff, where there are first neighbours, they have unit variance.
        return (math.sqrt(2.0) / 3.0 * self.cutoff) * waves / r[:, None], switch(
            r, 0.0, self.cutoff
        )


class _DegreeLinear(nn.Module):
    """For each degree a linear map of its channels; rows of the input are components."""

    def __init__(self, inputs: list[int], outputs: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n, outputs) / math.sqrt(n)) for n in inputs
        )

    def forward(self, x: list[Tensor]) -> Tensor:
        """Map one array (N, 2 l + 1, inputs[l]) for each degree to (N, components, outputs)."""
        return torch.cat([part @ w for part, w in zip(x, self.weights, strict=True)], dim=1)


class _ScaledSiLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return SILU_SCALE * nn.functional.silu(x)


class Interaction(nn.Module):
    """Messages from the neighbours, their products, and the tensors that they make.

    Parameters
    ----------
    settings : EquivariantSettings
        Sizes.
    l_in, l_out : int
        Highest degree of the tensors before and after.
    """

    def __init__(self, settings: EquivariantSettings, l_in: int, l_out: int) -> None:
        super().__init__()
        channels, l_max = settings.channels, settings.l_max
        self.l_out = l_out
        self.up = _DegreeLinear([channels] * (l_in + 1), channels)
        self.messages = Couplings(l_in, l_max, l_max, apart=True)
        n_paths = len(self.messages.paths)
        self.radial = _perceptron(
            [settings.n_radial, settings.n_hidden, settings.n_hidden, n_paths * channels]
        )
        self.mix = _DegreeLinear([n * channels for n in self.messages.counts], channels)
        neighbors = settings.average_neighbors or _neighbors_in_a_liquid(settings.cutoff)
        self.neighbors: Tensor
        self.register_buffer("neighbors", torch.full((l_max + 1,), neighbors))
        # The last product makes only what is read.
        orders = range(2, settings.correlation + 1)
        ends = [l_max if order < settings.correlation else l_out for order in orders]
        self.products = [Couplings(l_max, l_max, end) for end in ends]
        self.product_weights = nn.ParameterList(_path_weights(p, channels) for p in self.products)
        self.element_scales = nn.Parameter(torch.ones(LARGEST_NUMBER + 1, l_max + 1, channels))
        self.down = _DegreeLinear([settings.correlation * channels] * (l_out + 1), channels)
        self.gate = nn.Linear(channels, l_out * channels) if l_out else None
        self.l_kept = min(l_in, l_out)
        self.skip = _DegreeLinear([channels] * (self.l_kept + 1), channels)
        self.skip_scales = nn.Parameter(torch.ones(LARGEST_NUMBER + 1, self.l_kept + 1, channels))

    def forward(
        self, h: Tensor, numbers: Tensor, index: Tensor, edges: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the next tensors.

        Parameters
        ----------
        h : Tensor of shape (N, (l_in + 1)², channels)
            Tensors of the atoms.
        numbers : Tensor of shape (N,)
            Atomic numbers.
        index : Tensor of shape (2, P)
            Atoms of each pair.
        edges : tuple of Tensor
            Of each pair radial functions (P, n_radial), and harmonics that fade out at the cutoff
            (P, (l_max + 1)²).

        Returns
        -------
        Tensor of shape (N, (l_out + 1)², channels)
        """
        sums = self._sums(h, index, edges)
        power = sums = sums * self.neighbors.rsqrt()[_degrees(len(self.neighbors) - 1), None]
        powers = [sums * _per_component(self.element_scales, numbers)]
        for product, table in zip(self.products, self.product_weights, strict=True):
            power = atom_products(product, table[numbers], power, sums)
            # Of a normal distribution the square has the second moment 3, the cube 15.
            powers.append(power / math.sqrt(math.prod(range(1, 2 * len(powers) + 2, 2))))
        n_out = (self.l_out + 1) ** 2
        many = torch.cat([one[:, :n_out] for one in powers], dim=2)
        made = self._gated(self.down(_by_degree(many)))
        kept = self.skip(_by_degree(h[:, : (self.l_kept + 1) ** 2]))
        kept = kept * _per_component(self.skip_scales, numbers)
        n_kept = kept.shape[1]
        sums = (made[:, :n_kept] + kept) / math.sqrt(2.0)
        return torch.cat([sums, made[:, n_kept:]], dim=1)

    def measure(self, h: Tensor, index: Tensor, edges: tuple[Tensor, Tensor]) -> None:
        """Set the effective numbers of neighbours to what these structures have."""
        for degree, part in enumerate(_by_degree(self._sums(h, index, edges))):
            mean = part.square().mean()
            if mean > 0.0:
                self.neighbors[degree] = mean

    def _sums(self, h: Tensor, index: Tensor, edges: tuple[Tensor, Tensor]) -> Tensor:
        basis, harmonics = edges
        shape = (len(basis), len(self.messages.paths), h.shape[2])
        weights = self.radial(basis).view(shape)
        sent = self.up(_by_degree(h))
        received = pair_messages(self.messages, index, weights, sent, harmonics)
        return self.mix(self._paths_as_channels(received))

    def _paths_as_channels(self, received: Tensor) -> list[Tensor]:
        counts = self.messages.counts
        sizes = [(2 * degree + 1) * n for degree, n in enumerate(counts)]
        parts = torch.split(received, sizes, dim=1)
        return [part.reshape(len(part), 2 * k + 1, -1) for k, part in enumerate(parts)]

    def _gated(self, x: Tensor) -> Tensor:
        scalars = SILU_SCALE * nn.functional.silu(x[:, :1])
        if self.gate is None:
            return scalars
        gates = 2.0 * torch.sigmoid(self.gate(x[:, 0])).view(len(x), self.l_out, -1)
        of_component = _degrees(self.l_out)[1:] - 1
        return torch.cat([scalars, x[:, 1:] * gates[:, of_component]], dim=1)


class Equivariant(Architecture):
    """Interaction network of spherical tensors with charges.

    Parameters
    ----------
    settings : EquivariantSettings, default=EquivariantSettings()
        Sizes.
    """

    readout = "energy_head"

    def __init__(self, settings: EquivariantSettings | None = None) -> None:
        super().__init__()
        settings = settings or EquivariantSettings()
        self.settings = settings
        self.cutoff = settings.cutoff
        channels, n_layers = settings.channels, settings.n_layers
        self.embedding = nn.Embedding(LARGEST_NUMBER + 1, channels)
        self.basis = BesselBasis(settings.n_radial, settings.cutoff)
        ends = [0, *[settings.l_max] * (n_layers - 1), 0]
        self.layers = nn.ModuleList(Interaction(settings, *l_ends) for l_ends in pairwise(ends))
        self.energy_head = _perceptron([n_layers * channels, channels, 1], bias=True)
        self.charge_head = _perceptron([n_layers * channels, channels, 1], bias=True)
        # Products make large forces of random weights, which labels would first have to undo.
        with torch.no_grad():
            for head in (self.energy_head, self.charge_head):
                cast("nn.Linear", head[-1]).weight.mul_(FIRST_OUTPUT)
        self.electronegativity_head = nn.Embedding(LARGEST_NUMBER + 1, 1)
        self.hardness_head = nn.Embedding(LARGEST_NUMBER + 1, 1)
        # Equal for all elements, electronegativities cancel in a neutral structure.
        nn.init.zeros_(self.electronegativity_head.weight)
        nn.init.zeros_(self.hardness_head.weight)

    def measure(self, numbers: Tensor, index: Tensor, vectors: Tensor) -> None:
        """Take effective numbers of neighbours from structures, unless the settings say them."""
        if self.settings.average_neighbors is None:
            with torch.no_grad():
                edges, h = self._edges(vectors), self.embedding(numbers)[:, None]
                for layer in self.layers:
                    cast("Interaction", layer).measure(h, index, edges)
                    h = layer(h, numbers, index, edges)

    def forward(self, numbers: Tensor, index: Tensor, vectors: Tensor) -> Sites:
        """Return what the network says of every atom; see `scikd.md.get.GET.forward`."""
        edges, h = self._edges(vectors), self.embedding(numbers)[:, None]
        scalars = []
        for layer in self.layers:
            h = layer(h, numbers, index, edges)
            scalars.append(h[:, 0])
        read = torch.cat(scalars, dim=1)
        bound = self.settings.max_charge
        softplus = nn.functional.softplus
        return Sites(
            energies=self.energy_head(read).squeeze(-1),
            charges=bound * torch.tanh(self.charge_head(read).squeeze(-1) / bound),
            electronegativity=softplus(self.electronegativity_head(numbers)).squeeze(-1),
            hardness=softplus(self.hardness_head(numbers)).squeeze(-1),
        )

    def _edges(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        o3 = require("e3nn.o3", extra="md", feature="An equivariant network")
        basis, fade = self.basis(vectors.norm(dim=-1))
        degrees = list(range(self.settings.l_max + 1))
        harmonics = o3.spherical_harmonics(
            degrees, vectors, normalize=True, normalization="component"
        )
        return basis, fade[:, None] * harmonics

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {f.name: getattr(self.settings, f.name) for f in fields(self.settings)}


def _by_degree(x: Tensor) -> list[Tensor]:
    return [x[:, components(degree)] for degree in range(math.isqrt(x.shape[1]))]


def _degrees(l_max: int) -> Tensor:
    """Return the degree of each component."""
    return torch.arange((l_max + 1) ** 2).double().sqrt().floor().long()


def _per_component(table: Tensor, numbers: Tensor) -> Tensor:
    """Return the rows of a table (elements, degrees, channels) as (N, components, channels)."""
    return table[numbers][:, _degrees(table.shape[1] - 1)]


def _path_weights(couplings: Couplings, channels: int) -> nn.Parameter:
    shares = torch.tensor([couplings.counts[l3] for _, _, l3 in couplings.paths])
    normal = torch.randn(LARGEST_NUMBER + 1, len(shares), channels)
    return nn.Parameter(normal * shares.rsqrt()[:, None])


def _perceptron(sizes: list[int], *, bias: bool = False) -> nn.Sequential:
    """Return linear maps with units between them, made so that variances stay one."""
    steps: list[nn.Module] = []
    for before, after in pairwise(sizes):
        linear = nn.Linear(before, after, bias=bias)
        nn.init.normal_(linear.weight, std=before**-0.5)
        if bias:
            nn.init.zeros_(linear.bias)
        steps += [linear, _ScaledSiLU()]
    return nn.Sequential(*steps[:-1])


def _neighbors_in_a_liquid(cutoff: float) -> float:
    """Return the integral of the density times the squared envelope."""
    x = (torch.arange(100.0) + 0.5) / 100.0
    mean = float((x**2 * switch(x, 0.0, 1.0) ** 2).mean())
    return 4.0 * math.pi * ATOMS_PER_VOLUME * cutoff**3 * mean
