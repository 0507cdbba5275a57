"""What training minimises: weighted terms on energy, forces, virial, charges and dipole.

Each term is a mean over the labels that are there; rows of NaN, and labels that are None, do not
count. Means are kept as a sum and a number of entries, so that several processes, each with a part
of a batch, divide by the number of them all.

======== =================================================== ==========
term     what is compared                                    unit
======== =================================================== ==========
energy   energy of a structure, or per atom                  eV
forces   components of the forces                            eV/Å
virial   components of the virial, or per atom               eV
charges  atomic charges                                      e
dipole   components of the dipole                            e·Å
qeq      components of dE/dq · dq/dx, which should be zero   eV/Å
pressure pressure between molecules times the volume         eV
shear    components of the virial less a third of its trace  eV
======== =================================================== ==========

References
----------
S. Gong et al., "BAMBOO: a predictive and transferable machine learning force field framework for
liquid electrolyte development", arXiv:2404.07181: the terms, their weights, and energies relative
to the mean of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scikd.exceptions import InvalidInputError, ScikdError

from .frames import AtomicBatch
from .pressure import molecular_virial
from .units import DEBYE, KCAL_PER_MOL

__all__ = [
    "DivergedError",
    "Loss",
    "LossOptions",
    "Mean",
    "fit_references",
    "labels",
    "spreads",
]

Preset = Literal["default", "published", "relative"]
Offset = Literal["references", "batch", "group"]

TERMS = ("energy", "forces", "virial", "charges", "dipole", "qeq", "pressure", "shear")
PER_ATOM = frozenset({"energy", "virial", "pressure", "shear"})
RANKS = {"energy": 0, "forces": 1, "virial": 2}  # of those whose labels may know their spread

# Energy and virial in total in the published preset, per atom in the others. The published weights
# are for kcal/mol and Debye; those here are for eV and e·Å. Other terms have none. Relative errors
# of forces are small, since most of them is the stiffness of bonds, and they make the dynamics.
PRESETS: dict[Preset, dict[str, float]] = {
    "default": {
        "energy": 10.0,
        "forces": 1.0,
        "virial": 0.0,
        "charges": 0.5,
        "dipole": 0.5,
        "qeq": 0.0,
    },
    "published": {
        "energy": 0.01 / KCAL_PER_MOL**2,
        "forces": 0.3 / KCAL_PER_MOL**2,
        "virial": 0.01 / KCAL_PER_MOL**2,
        "charges": 10.0,
        "dipole": 10.0 / DEBYE**2,
        "qeq": 300.0 / KCAL_PER_MOL**2,
    },
    "relative": {
        "energy": 1.0,
        "forces": 20.0,
        "virial": 1.0,
        "charges": 0.1,
        "dipole": 0.1,
        "qeq": 0.0,
    },
}


@dataclass(frozen=True)
class LossOptions:
    """Weights of the terms, and how they are measured.

    Parameters
    ----------
    preset : {"default", "published", "relative"}, default="default"
        Where everything below that is not given comes from: weights for energies per atom against
        fitted references; the published ones, for total energies relative to the batch; or weights
        without a unit, of the share of the variance of the labels that is not explained.
    energy, forces, virial, charges, dipole, qeq, pressure, shear : float or None, default=None
        Weight of the term's mean squared error, in its unit to the power of -2, or without a unit
        where it is relative.
    per_atom : bool or None, default=None
        Whether energy, virial, pressure and shear are divided by the number of atoms.
    offset : {"references", "batch", "group"} or None, default=None
        What energies are relative to: references of the elements, or, in prediction and in label,
        their mean over the batch, or over the structures of one group in it (which leaves the
        absolute energy free, or one of each group).
    huber : float or None, default=None
        Error, in the unit of each term, from which the loss grows linearly; None is never.
    """

    preset: Preset = "default"
    energy: float | None = None
    forces: float | None = None
    virial: float | None = None
    charges: float | None = None
    dipole: float | None = None
    qeq: float | None = None
    pressure: float | None = None
    shear: float | None = None
    per_atom: bool | None = None
    offset: Offset | None = None
    huber: float | None = None

    def __post_init__(self) -> None:
        """Refuse weights that are no weights, all at once."""
        given = {name: getattr(self, name) for name in TERMS}
        problems = [
            f"weight of {name} is {weight!r}, expected at least 0"
            for name, weight in given.items()
            if weight is not None and not 0.0 <= weight < float("inf")
        ]
        if self.huber is not None and not self.huber > 0.0:
            problems.append(f"huber is {self.huber!r}, expected more than 0")
        if not problems and not any(self.weights.values()):
            problems.append("all weights are 0, so there is nothing to learn")
        if problems:
            message = f"Cannot make a loss of these options: {'; '.join(problems)}."
            raise InvalidInputError(message)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term."""
        preset = PRESETS[self.preset]
        given = {name: getattr(self, name) for name in TERMS}
        return {n: preset.get(n, 0.0) if weight is None else weight for n, weight in given.items()}

    @property
    def energies_per_atom(self) -> bool:
        """Whether energy and virial are divided by the number of atoms."""
        return self.preset != "published" if self.per_atom is None else self.per_atom

    @property
    def energies_relative_to(self) -> Offset:
        """What energies are relative to."""
        return self.offset or ("batch" if self.preset == "published" else "references")

    def scaled(self, batch: AtomicBatch) -> LossOptions:
        """Return options with weights in units, where these are relative.

        Parameters
        ----------
        batch : AtomicBatch
            Structures whose labels say what an error is measured by. A term without labels, or
            whose labels are all alike, gets no weight.

        Raises
        ------
        InvalidInputError
            If that is so of all terms.
        """
        if self.preset != "relative":
            return self
        weights = self.weights
        for name in set(TERMS) - {"qeq"}:
            variance = self._variance(name, batch) if weights[name] else 0.0
            weights[name] = weights[name] / variance if variance > 0.0 else 0.0
        per_atom, offset = self.energies_per_atom, self.energies_relative_to
        return LossOptions("default", **weights, per_atom=per_atom, offset=offset, huber=self.huber)

    def _variance(self, name: str, batch: AtomicBatch) -> float:
        """Return the variance of the labels of a term that is there to be explained."""
        label = labels(name, batch)
        if label is None:
            return 0.0
        there = ~torch.isnan(label)
        if name == "energy" and self.energies_relative_to == "references":
            energies = fit_references(batch)
            table = label.new_tensor([energies.get(z, 0.0) for z in range(max(energies) + 1)])
            label = label - torch.zeros_like(label).index_add(0, batch.batch, table[batch.numbers])
        elif name in {*PER_ATOM, "charges"}:
            # Of charges the means of the elements: neutral on average, whatever they are.
            group = batch.group if self.energies_relative_to == "group" else None
            which = batch.numbers if name == "charges" else _groups(group, len(label), label.device)
            label = label - _means(label, there, which)
        if name in PER_ATOM and self.energies_per_atom:
            label = label / batch.counts.reshape(-1, *[1] * (label.ndim - 1))
        squares = torch.where(there, label, 0.0).double() ** 2
        return float(squares.sum() / there.sum().clamp(min=1))


class DivergedError(ScikdError, ArithmeticError):
    """The loss of a training became NaN or infinite."""


class Mean(NamedTuple):
    """A mean that is not divided yet."""

    total: Tensor
    """Sum over the entries that count, a scalar."""
    entries: Tensor
    """How many count, a scalar of the same dtype."""


class Loss:
    """The weighted sum of the terms.

    Parameters
    ----------
    options : LossOptions, default=LossOptions()
        Weights and measures.
    noise : mapping of str to float, default={}
        By name of the term, the spread of a label at which it counts half, in the unit of the term:
        one of spread s counts as ``1 / (1 + (s / noise)²)``. A term that is not named does not heed
        the spread of its labels.
    """

    def __init__(
        self, options: LossOptions | None = None, noise: Mapping[str, float] | None = None
    ) -> None:
        self.options = options or LossOptions()
        self.noise = dict(noise or {})
        self.weights = {name: w for name, w in self.options.weights.items() if w > 0.0}

    @property
    def needs(self) -> dict[str, bool]:
        """What a force field must derive for it: arguments of its ``forward``."""
        return {
            "forces": bool({"forces", "pressure"} & set(self.weights)),
            "stress": bool({"virial", "pressure", "shear"} & set(self.weights)),
            "qeq": "qeq" in self.weights,
        }

    def means(self, prediction: Mapping[str, Tensor], batch: AtomicBatch) -> dict[str, Mean]:
        """Return the mean of each term of positive weight, undivided.

        Parameters
        ----------
        prediction : mapping of str to Tensor
            What the force field returned.
        batch : AtomicBatch
            The structures with their labels.
        """
        return {name: self._mean(name, prediction, batch) for name in self.weights}

    def counts(self, batch: AtomicBatch) -> dict[str, Tensor]:
        """Return how many entries each term will have, before anything is predicted."""
        found = {name: labels(name, batch) for name in self.weights}
        zero = batch.positions.new_zeros(())
        return {
            name: zero if label is None else self._entries(name, label, batch)
            for name, label in found.items()
        }

    def combine(
        self, means: Mapping[str, Mean], counts: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its unweighted terms by name, which carry no gradient.

        Parameters
        ----------
        means : mapping of str to Mean
            From `means`.
        counts : mapping of str to Tensor or None, default=None
            Numbers of entries to divide by; None takes those of the means.
        """
        parts = {
            name: mean.total / (mean.entries if counts is None else counts[name]).clamp(min=1.0)
            for name, mean in means.items()
        }
        total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def __call__(
        self, prediction: Mapping[str, Tensor], batch: AtomicBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch, and its unweighted terms by name."""
        return self.combine(self.means(prediction, batch))

    def _mean(self, name: str, prediction: Mapping[str, Tensor], batch: AtomicBatch) -> Mean:
        predicted = _predicted(name, prediction, batch)
        label = labels(name, batch)
        if label is None:
            nothing = predicted.sum() * 0.0  # connected, so that every parameter has a gradient
            return Mean(nothing, nothing.detach())
        # Only a missing label is left out: a prediction of NaN has to be seen.
        there = ~torch.isnan(label)
        error = torch.where(there, predicted - label, 0.0)
        if name == "energy" and self.options.energies_relative_to == "batch":
            error = torch.where(there, error - error.sum() / there.sum().clamp(min=1), 0.0)
        if name == "energy" and self.options.energies_relative_to == "group":
            groups = _groups(batch.group, len(error), error.device)
            error = torch.where(there, error - _means(error, there, groups), 0.0)
        if name in PER_ATOM and self.options.energies_per_atom:
            error = error / batch.counts.reshape(-1, *[1] * (error.ndim - 1))
        values = self._of(error.to(batch.positions.dtype))
        worth = self._worth(name, batch)
        values = values if worth is None else worth * values
        return Mean(values.sum(), self._entries(name, label, batch))

    def _entries(self, name: str, label: Tensor, batch: AtomicBatch) -> Tensor:
        """Return how many entries of a label count, as a number of the precision of the batch."""
        there, worth = ~torch.isnan(label), self._worth(name, batch)
        if name == "energy" and self.options.energies_relative_to == "group":
            # An energy alone, measured from itself, is always right.
            groups = _groups(batch.group, len(label), label.device)
            _, kind = torch.unique(groups, return_inverse=True)
            known = torch.zeros_like(kind).index_add(0, kind, there.long())
            there = there & (known[kind] > 1)
        return (there if worth is None else there * worth).sum().to(batch.positions.dtype)

    def _worth(self, name: str, batch: AtomicBatch) -> Tensor | None:
        """Return what the labels of a structure or of an atom count, given how they spread."""
        noise, spread = self.noise.get(name), spreads(name, batch)
        if noise is None or spread is None:
            return None
        if name in PER_ATOM and self.options.energies_per_atom:
            spread = spread / batch.counts
        worth: Tensor = 1.0 / (1.0 + (spread.to(batch.positions.dtype) / noise) ** 2)
        # An unknown spread says nothing against the label.
        return worth.nan_to_num(nan=1.0).reshape(-1, *[1] * RANKS[name])

    def _of(self, error: Tensor) -> Tensor:
        """Return the square of small errors; twice Huber's function, which is that near zero."""
        delta = self.options.huber
        if delta is None:
            return error**2
        return 2.0 * torch.nn.functional.huber_loss(
            error, torch.zeros_like(error), reduction="none", delta=delta
        )


def labels(name: str, batch: AtomicBatch) -> Tensor | None:
    """Return what a term is compared with, NaN where it is not known; None where it never is.

    Parameters
    ----------
    name : str
        Name of the term.
    batch : AtomicBatch
        The structures. The virial of a periodic one is that of its stress; of a free one it is the
        sum of position times force, which for a free cluster is the same thing. The dipole of a
        periodic one is not defined, and left out.
    """
    if name == "qeq":
        return torch.zeros_like(batch.positions)
    if name in {"pressure", "shear"}:
        known = {"forces": batch.forces, "virial": batch.virial}
        there = {key: value for key, value in known.items() if value is not None}
        return _predicted(name, there, batch) if len(there) == len(known) else None
    label: Tensor | None = getattr(batch, name)
    if name == "dipole" and label is not None:
        return torch.where(batch.pbc.any(-1)[:, None], torch.nan, label)
    if name != "virial" or batch.forces is None:
        return label
    if label is None:
        label = batch.cell.new_full(batch.cell.shape, torch.nan)
    sums = torch.zeros_like(batch.cell).index_add(0, batch.batch, _moments(batch))
    free = ~batch.pbc.any(-1)[:, None, None]
    return torch.where(free, 0.5 * (sums + sums.transpose(1, 2)), label)


def _predicted(name: str, prediction: Mapping[str, Tensor], batch: AtomicBatch) -> Tensor:
    """Return what is compared with the labels of a term."""
    if name == "pressure":
        virial = molecular_virial(batch, prediction["forces"], prediction["virial"])
        return virial.diagonal(dim1=1, dim2=2).sum(1) / 3.0
    if name == "shear":
        virial = prediction["virial"]
        third = virial.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] / 3.0
        return virial - third * torch.eye(3, dtype=virial.dtype, device=virial.device)
    return prediction["qeq_force" if name == "qeq" else name]


def spreads(name: str, batch: AtomicBatch) -> Tensor | None:
    """Return the root-mean-square spread of a term's labels, of each structure or atom, or None.

    Parameters
    ----------
    name : str
        "energy" (eV), "forces" (eV/Å) or "virial" (eV); others know none.
    batch : AtomicBatch
        The structures.
    """
    if name == "energy":
        return batch.energy_std
    known = {"forces": batch.forces_std, "virial": batch.stress_std}.get(name)
    if known is None:
        return None
    along = (known**2).mean(dim=1).sqrt()
    return along * batch.volume if name == "virial" else along


def _groups(group: Tensor | None, n: int, device: torch.device) -> Tensor:
    """Return the group of each structure; all are of one where none is known."""
    if group is None:
        return torch.zeros(n, dtype=torch.int64, device=device)
    return torch.where(group < 0, torch.arange(n, device=device) - n, group)


def _means(values: Tensor, there: Tensor, which: Tensor) -> Tensor:
    """Return for each row the mean over the rows of its kind that are there."""
    _, kind = torch.unique(which, return_inverse=True)
    zero = torch.zeros_like(values)
    total = zero.index_add(0, kind, torch.where(there, values, 0.0))
    count = zero.index_add(0, kind, there.to(values.dtype))
    return (total / count.clamp(min=1.0))[kind]


def _moments(batch: AtomicBatch) -> Tensor:
    """Return position times force of each atom, from the middle of its structure."""
    middle = batch.positions.new_zeros(batch.n_structures, 3)
    middle = middle.index_add(0, batch.batch, batch.positions) / batch.counts[:, None]
    # Forces that do not quite sum to zero make the virial depend on the origin: the middle is fair.
    forces: Tensor = batch.forces  # type: ignore[assignment]
    return torch.einsum("na,nb->nab", batch.positions - middle[batch.batch], forces)


def fit_references(batch: AtomicBatch) -> dict[int, float]:
    """Fit one energy for each element to the energies of structures, by least squares.

    Parameters
    ----------
    batch : AtomicBatch
        Structures with energies; those without are left out.

    Returns
    -------
    dict of int to float
        Energy in eV by atomic number. Where compositions do not tell elements apart, the shortest
        solution.

    Raises
    ------
    InvalidInputError
        If no structure has an energy.
    """
    known = torch.zeros(0) if batch.energy is None else ~torch.isnan(batch.energy)
    if batch.energy is None or not bool(known.any()):
        message = "Expected energies to fit references of the elements to; no structure has one."
        raise InvalidInputError(message)
    elements, which = torch.unique(batch.numbers, return_inverse=True)
    composition = torch.zeros(batch.n_structures, len(elements), dtype=torch.float64)
    ones = torch.ones(batch.n_atoms, dtype=torch.float64)
    composition.index_put_((batch.batch.cpu(), which.cpu()), ones, accumulate=True)
    chosen = known.cpu().numpy()
    energies = batch.energy.detach().cpu().double().numpy()[chosen]
    found, *_ = np.linalg.lstsq(composition.numpy()[chosen], energies, rcond=None)
    return {int(z): float(e) for z, e in zip(elements.tolist(), found, strict=True)}
