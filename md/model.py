"""The contract of a force field: an architecture gives site energies and charges, the rest follows.

`ForceField` adds electrostatics, dispersion and repulsion, and derives forces, stress, virial and
dipole in one place, for every architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from scikd.exceptions import InvalidInputError

from ._geometry import LARGEST_NUMBER
from ._placed import Placed
from .dispersion import D3BJ, D3CSO
from .electrostatics import Electrostatics
from .frames import AtomicBatch
from .neighbors import Neighbors, Pairs, find_neighbors
from .repulsion import ZBL
from .units import TO_VOIGT

__all__ = ["Architecture", "ForceField", "ForceRule", "Sites", "Trained"]

ForceRule = Literal["conservative", "published"]
Trained = Literal["readout", "all"]


class Sites(NamedTuple):
    """What an architecture says of N atoms."""

    energies: Tensor
    """Site energies, shape (N,), in eV, without references of the elements."""
    charges: Tensor
    """Raw charges, shape (N,), in e; their sum is put right by the force field."""
    electronegativity: Tensor
    """Shape (N,), in eV/e."""
    hardness: Tensor
    """Shape (N,), in eV/e²."""


class Architecture(nn.Module, ABC):
    """A network that maps a structure to `Sites`.

    Attributes
    ----------
    cutoff : float
        Distance in Å beyond which two atoms do not see each other directly.
    readout : str or None
        Name of the submodule that makes site energies of the features of an atom, which can be
        trained alone; None if there is no such part.
    """

    cutoff: float
    readout: str | None = None

    @abstractmethod
    def forward(self, numbers: Tensor, index: Tensor, vectors: Tensor) -> Sites:
        """Return the sites; see `scikd.md.get.GET.forward` for the shapes."""

    def measure(self, numbers: Tensor, index: Tensor, vectors: Tensor) -> None:
        """Take from structures what the network is normalised by, before it is trained.

        The arguments are those of `forward`.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the settings that rebuild the architecture, as JSON values."""


@dataclass(frozen=True)
class _Geometry:
    """Positions and cells under a strain, as leaves that derivatives are taken with respect to."""

    positions: Tensor
    strain: Tensor | None
    strained: Tensor  # positions
    cell: Tensor

    def vectors(self, pairs: Pairs) -> Tensor:
        return pairs.vectors(self.strained, self.cell)


def _geometry(batch: AtomicBatch, stress: bool, dtype: torch.dtype) -> _Geometry:
    positions = batch.positions.detach().to(dtype, copy=True).requires_grad_()
    cell = batch.cell.to(dtype)
    if not stress:
        return _Geometry(positions, None, positions, cell)
    strain = torch.zeros_like(cell).requires_grad_()
    symmetric = 0.5 * (strain + strain.transpose(1, 2))  # a rotation is no strain
    strained = positions + torch.einsum("ni,nij->nj", positions, symmetric[batch.batch])
    return _Geometry(positions, strain, strained, cell + cell @ symmetric)


class ForceField(nn.Module):
    """A force field: a network, its electrostatics, and what else two atoms do to each other.

    The energy of a structure is the sum over its atoms of the reference of the element, the
    network's site energy, ``chi_i q_i + eta_i q_i²``, and half of every pair energy (damped
    Coulomb, dispersion, repulsion). Charges are the network's, shifted by one constant per
    structure so that they sum to the total charge.

    Parameters
    ----------
    architecture : Architecture
        The network.
    elements : sequence of int
        Atomic numbers that the model knows; any other is refused.
    references : mapping of int to float or None, default=None
        Energy in eV of an isolated atom, or whatever was subtracted, by atomic number.
    electrostatics : Electrostatics or None, default=None
        None leaves charges without Coulomb energy.
    dispersion : D3CSO, D3BJ or None, default=None
        Added dispersion.
    repulsion : ZBL or None, default=None
        A repulsive floor at short distance.
    forces : {"conservative", "published"}, default="conservative"
        The negative gradient of the energy, or the published rule, which holds the charges fixed
        and leaves out the gradient of ``chi q + eta q²``.
    dispersion_in_labels : bool, default=False
        Whether the labels that the model learns from contain dispersion. If so, the model's own is
        part of what is compared with them, and nothing is counted twice; if not, it is left out in
        training and added in use.
    metadata : mapping, default=None
        What a user should know (level of theory, data, ranges seen in training), as JSON values.

    Attributes
    ----------
    references : Tensor of shape (87,)
        In double precision whatever the precision of the model: total energies are large.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        elements: Sequence[int],
        references: Mapping[int, float] | None = None,
        electrostatics: Electrostatics | None = None,
        dispersion: D3CSO | D3BJ | None = None,
        repulsion: ZBL | None = None,
        forces: ForceRule = "conservative",
        dispersion_in_labels: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if forces not in ("conservative", "published"):
            message = f"Expected forces 'conservative' or 'published'; got {forces!r}."
            raise InvalidInputError(message)
        self.architecture = architecture
        self.elements = tuple(sorted({int(number) for number in elements}))
        numbers = [*self.elements, *(references or {})]
        if not self.elements or not all(1 <= z <= LARGEST_NUMBER for z in numbers):
            message = f"Expected atomic numbers 1 to {LARGEST_NUMBER}; got {numbers}."
            raise InvalidInputError(message)
        self.references = torch.zeros(LARGEST_NUMBER + 1, dtype=torch.float64)
        for number, energy in (references or {}).items():
            self.references[number] = energy
        self.electrostatics = electrostatics
        self.dispersion = dispersion
        self.repulsion = repulsion
        self.force_rule = forces
        self.dispersion_in_labels = dispersion_in_labels
        self.metadata = dict(metadata or {})
        known = torch.zeros(LARGEST_NUMBER + 1, dtype=torch.bool)
        known[list(self.elements)] = True
        self.known: Tensor
        self.register_buffer("known", known, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.parameters()).device

    @property
    def near_cutoff(self) -> float:
        """Cutoff of the network, in Å."""
        return self.architecture.cutoff

    @property
    def far_cutoff(self) -> float:
        """Largest cutoff of the pair terms in periodic structures, or the network's, in Å."""
        terms = (self.electrostatics, self.dispersion, self.repulsion)
        # D3BJ wants no pairs: its cutoff is 0.
        longest = max((term.cutoff for term in terms if term is not None), default=0.0)
        return longest or self.near_cutoff

    def neighbors(self, batch: AtomicBatch) -> Neighbors:
        """Return the pairs of a batch that `forward` needs."""
        return find_neighbors(batch, self.near_cutoff, self.far_cutoff)

    def train_only(self, parameters: Trained) -> None:
        """Freeze what is not to be trained.

        Parameters
        ----------
        parameters : {"readout", "all"}
            What shall change: the map from the features of an atom to its energy, or everything.

        Raises
        ------
        InvalidInputError
            If the architecture names no readout.
        """
        name = self.architecture.readout
        if parameters == "readout" and name is None:
            message = (
                f"Expected an architecture with a readout; {type(self.architecture).__name__} "
                "names none. Train all parameters: parameters='all'."
            )
            raise InvalidInputError(message)
        self.requires_grad_(parameters == "all")
        if parameters == "readout" and name is not None:
            self.architecture.get_submodule(name).requires_grad_()

    def check_elements(self, numbers: Tensor) -> None:
        """Raise InvalidInputError if the model does not know an element."""
        known = self.known[numbers]
        if bool(known.all()):
            return
        unknown = torch.unique(numbers[~known]).tolist()
        message = (
            f"The model knows {[chemical_symbols[z] for z in self.elements]}, and the structure "
            f"holds {[chemical_symbols[z] for z in unknown]}. Train a model with these elements."
        )
        raise InvalidInputError(message)

    def forward(
        self,
        batch: AtomicBatch,
        neighbors: Neighbors,
        *,
        forces: bool = True,
        stress: bool = False,
        qeq: bool = False,
        as_labelled: bool | None = None,
        training: bool = False,
    ) -> dict[str, Tensor]:
        """Predict a batch of structures.

        Parameters
        ----------
        batch : AtomicBatch
            The structures, on the device of the model. Forces come in the precision of the
            positions, which may be higher than the model's.
        neighbors : Neighbors
            What `neighbors` returned for it.
        forces, stress : bool, default=True, False
            Whether to derive forces; stress and virial.
        qeq : bool, default=False
            Whether to derive what the published rule neglects (``"qeq_force"``).
        as_labelled : bool or None, default=None
            Whether to predict what the labels contain (see ``dispersion_in_labels``); None is
            the same as ``training``.
        training : bool, default=False
            Whether the results will be differentiated once more, by the parameters.

        Returns
        -------
        dict of str to Tensor
            ``"energy"`` (B,) eV, in double precision; ``"energies"`` (N,) eV, without references;
            ``"charges"`` (N,) e; ``"dipole"`` (B, 3) e·Å about the origin, which means something
            for free structures only; on demand ``"forces"`` (N, 3) eV/Å; ``"virial"`` (B, 3, 3)
            eV and ``"stress"`` (B, 6) eV/Å³, NaN where a structure is not periodic in three
            directions; ``"qeq_force"`` (N, 3) eV/Å.

        Raises
        ------
        InvalidInputError
            If the model does not know an element.

        Notes
        -----
        The network and the pair terms see the same atoms through two copies of the positions, so
        that one backward pass tells the force at fixed charges from the force through the charges.
        """
        self.check_elements(batch.numbers)
        as_labelled = training if as_labelled is None else as_labelled
        with torch.set_grad_enabled(training or forces or stress or qeq):
            # Bonds are taken in the precision of the positions: rounded in a large box, these cost
            # a single-precision network three digits of the forces. What is far apart is soft.
            exact = torch.promote_types(batch.positions.dtype, self.dtype)
            near, far = (_geometry(batch, stress, dtype) for dtype in (exact, self.dtype))
            vectors = near.vectors(neighbors.near).to(self.dtype)
            sites = self.architecture(batch.numbers, neighbors.near.index, vectors)
            charges = self._neutralised(sites.charges, batch)
            coulomb, pairs = self._pair_energies(batch, neighbors.far, far, charges, as_labelled)
            equilibrium = charges * (sites.electronegativity + sites.hardness * charges)
            energies = sites.energies + equilibrium + coulomb + pairs
            out = {"energies": energies, "charges": charges}
            if forces or stress or qeq:
                parts = (sites.energies, coulomb + equilibrium, pairs)
                self._derive(out, batch, near, far, parts, stress, qeq, training)
        references = self.references.to(energies.device)[batch.numbers]
        zero = torch.zeros(batch.n_structures, dtype=torch.float64, device=energies.device)
        out["energy"] = zero.index_add(0, batch.batch, energies.double() + references)
        moments = charges[:, None] * batch.positions
        out["dipole"] = moments.new_zeros(batch.n_structures, 3).index_add(0, batch.batch, moments)
        return out if training else {name: values.detach() for name, values in out.items()}

    def _neutralised(self, raw: Tensor, batch: AtomicBatch) -> Tensor:
        total = raw.new_zeros(batch.n_structures).index_add(0, batch.batch, raw)
        shift = (batch.total_charge.to(raw.dtype) - total) / batch.counts
        return raw + shift[batch.batch]

    def _pair_energies(
        self, batch: AtomicBatch, pairs: Pairs, far: _Geometry, charges: Tensor, as_labelled: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the Coulomb energy and that of the other pair terms, by atom."""
        coulomb, rest = torch.zeros_like(charges), torch.zeros_like(charges)
        terms: list[ZBL | D3CSO | D3BJ | None] = [self.repulsion]
        if self.dispersion_in_labels or not as_labelled:
            terms.append(self.dispersion)
        if self.electrostatics is None and not any(terms):
            return coulomb, rest
        placed = Placed(
            numbers=batch.numbers,
            positions=far.strained,
            cell=far.cell,
            pbc=batch.pbc,
            batch=batch.batch,
            index=pairs.index,
            vectors=far.vectors(pairs),
        )
        if self.electrostatics is not None:
            coulomb = self.electrostatics.site_energies(placed, charges)
        for term in terms:
            if term is not None:
                rest = rest + term.site_energies(placed)
        return coulomb, rest

    def _derive(
        self,
        out: dict[str, Tensor],
        batch: AtomicBatch,
        near: _Geometry,
        far: _Geometry,
        parts: tuple[Tensor, Tensor, Tensor],
        stress: bool,
        qeq: bool,
        training: bool,
    ) -> None:
        """Add the derivatives of the energy: by the positions, and by a strain."""
        network, charged, pairs = (part.sum() for part in parts)
        published = self.force_rule == "published"
        leaves = [near.positions, far.positions]
        if near.strain is not None and far.strain is not None:
            leaves += [near.strain, far.strain]

        def gradient(energy: Tensor, by: list[Tensor], keep: bool) -> list[Tensor]:
            found = torch.autograd.grad(
                energy, by, create_graph=training, retain_graph=keep, allow_unused=True
            )
            pairs_of = zip(found, by, strict=True)
            return [torch.zeros_like(leaf) if g is None else g for g, leaf in pairs_of]

        if published:
            by_near = gradient(network, leaves[::2], keep=True)
            by_far = gradient(charged + pairs, leaves[1::2], keep=qeq or training)
        else:
            both = gradient(network + charged + pairs, leaves, keep=qeq or training)
            by_near, by_far = both[::2], both[1::2]
        out["forces"] = -(by_near[0] + by_far[0])
        if qeq:
            out["qeq_force"] = gradient(charged, [near.positions], keep=training)[0]
        if stress:
            out["virial"] = -(by_near[1] + by_far[1])
            volume = torch.linalg.det(batch.cell).abs()
            volume = torch.where(batch.pbc.all(-1), volume, volume.new_tensor(np.nan))
            out["stress"] = -out["virial"][..., *TO_VOIGT] / volume[:, None]
