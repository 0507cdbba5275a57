"""Guard against extrapolation: what a model never saw, it does not know.

An unknown element is always an error. Two atoms that are closer than any of their kind in training,
a total charge beyond those in training, or an ensemble whose members disagree, are a warning or an
error, by choice.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from scikd.exceptions import InvalidInputError, ScikdWarning

from ._geometry import LARGEST_NUMBER
from ._half_list import HalfList
from .frames import AtomicBatch
from .kernels.contacts import worst_contact
from .neighbors import find_neighbors

__all__ = [
    "ExtrapolationWarning",
    "Guard",
    "Response",
    "charge_limits",
    "distance_limits",
    "training_range",
]

Response = Literal["warn", "raise", "ignore"]

ADVICE = {
    "distance": "Train on such structures, relax the start, or add a repulsive floor (ZBL)",
    "charge": "Check the total charge, or train on such structures",
    "spread": "Train on such structures, or relax the start",
}
ROUNDING = 1e-3  # e, of a sum of charges
REACH = 3.0  # Å; what two elements do beyond it, an absent pair of them does not tell


class ExtrapolationWarning(ScikdWarning):
    """A model was asked about structures unlike those it was trained on."""


def training_range(batch: AtomicBatch) -> dict[str, float]:
    """Return the smallest distance of every pair of elements, as a model's metadata hold it.

    Parameters
    ----------
    batch : AtomicBatch
        What a model is trained on.

    Returns
    -------
    dict of str to float
        Smallest distance in Å for each pair of the elements that occur, such as ``"H-O"`` (by
        atomic number); 3 Å where none is closer, even if the two were never in one structure.
    """
    near = find_neighbors(batch, REACH, REACH).near
    vectors = near.vectors(batch.positions.detach(), batch.cell)
    distances = torch.linalg.vector_norm(vectors.double(), dim=1).cpu().numpy()
    numbers = batch.numbers.cpu().numpy()
    i, j = near.index.cpu().numpy()
    closest = np.full((LARGEST_NUMBER + 1, LARGEST_NUMBER + 1), REACH)
    np.minimum.at(closest, (numbers[i], numbers[j]), distances)
    closest = np.minimum(closest, closest.T)
    seen = np.unique(numbers)
    return {
        f"{chemical_symbols[a]}-{chemical_symbols[b]}": float(closest[a, b])
        for k, a in enumerate(seen)
        for b in seen[k:]
    }


class Guard:
    """What to do when a model extrapolates.

    Parameters
    ----------
    distance : {"warn", "raise", "ignore"}, default="warn"
        When two atoms are closer than any of their elements in training. Nothing is checked for a
        model whose metadata hold no ``"training_range"``.
    spread : {"warn", "raise", "ignore"}, default="warn"
        When the members of an ensemble disagree.
    max_spread : float or None, default=None
        In eV/Å: the largest spread of the force on an atom that counts as agreement. None is any.
    charge : {"warn", "raise", "ignore"}, default="warn"
        When the total charge is beyond those in training. Nothing is checked for a model whose
        metadata hold no ``"total_charges"``.

    Attributes
    ----------
    counts : dict of str to int
        How many times a structure was beyond training, by ``"distance"``, ``"charge"`` and
        ``"spread"``. All pairs of elements share one count, and a structure with several such pairs
        counts once.

    Notes
    -----
    Distances are learnt up to 3 Å (`training_range`): of a pair of elements that never came so
    close in training, everything below 3 Å is told. Of a pair of elements that the training range
    does not name, nothing is. Angles, charges and densities are not looked at.

    A warning comes once, not in every step, and names the pair of atoms that is farthest below its
    limit; another pair of elements later on brings no second one, until `reset`. What is ignored
    is not counted.

    One guard may serve several calculators, as that of an `EnsembleCalculator` serves those of its
    members: they share counts and the one warning, and a structure counts for each of them.
    """

    def __init__(
        self,
        distance: Response = "warn",
        spread: Response = "warn",
        max_spread: float | None = None,
        charge: Response = "warn",
    ) -> None:
        given = {"distance": distance, "spread": spread, "charge": charge}
        for name, response in given.items():
            if response not in get_args(Response):
                message = f"Expected {name} to be 'warn', 'raise' or 'ignore'; got {response!r}."
                raise InvalidInputError(message)
        if max_spread is not None and not max_spread > 0:
            message = f"Expected max_spread > 0 eV/Å or None; got {max_spread!r}."
            raise InvalidInputError(message)
        self.distance, self.spread, self.max_spread = distance, spread, max_spread
        self.charge = charge
        self.reset()

    def __repr__(self) -> str:
        return (
            f"Guard({self.distance!r}, {self.spread!r}, max_spread={self.max_spread!r}, "
            f"charge={self.charge!r})"
        )

    def reset(self) -> None:
        """Forget what was met, and warn anew."""
        self.counts = dict.fromkeys(ADVICE, 0)

    def check_distances(
        self, limits: np.ndarray | None, positions: np.ndarray, numbers: np.ndarray, near: HalfList
    ) -> None:
        """Compare the distances of a structure with those in training.

        Parameters
        ----------
        limits : ndarray of shape (87, 87) or None
            What `distance_limits` made of the training range.
        positions : ndarray of shape (n_atoms, 3)
            In Å.
        numbers : ndarray of shape (n_atoms,)
            Atomic numbers.
        near : HalfList
            All pairs up to 3 Å, and perhaps others.

        Raises
        ------
        InvalidInputError
            If a pair is too close, and ``distance="raise"``.
        """
        if limits is None or self.distance == "ignore":
            return
        worst, count = worst_contact(positions, numbers, near.i, near.j, near.offsets, limits)
        if worst < 0:
            return
        i, j = int(near.i[worst]), int(near.j[worst])
        apart = np.linalg.norm(positions[j] - positions[i] + near.offsets[worst])
        self._respond(
            "distance",
            f"Atoms {i} ({chemical_symbols[numbers[i]]}) and {j} ({chemical_symbols[numbers[j]]}) "
            f"are {apart:.3f} Å apart, and the model has seen none closer than "
            f"{limits[numbers[i], numbers[j]]:.3f} Å ({count} such pairs)",
        )

    def check_charge(self, limits: tuple[float, float] | None, total_charge: float) -> None:
        """Compare the total charge of a structure, in e, with those in training.

        Raises
        ------
        InvalidInputError
            If it is beyond the limits (what `charge_limits` returned), and ``charge="raise"``.
        """
        if limits is None or self.charge == "ignore":
            return
        least, most = limits
        if not least - ROUNDING <= total_charge <= most + ROUNDING:
            self._respond(
                "charge",
                f"The total charge is {total_charge:+g} e, and the model has seen {least:+g} to "
                f"{most:+g} e",
            )

    def check_spread(self, spread: np.ndarray) -> None:
        """Compare the spread of the forces on atoms, shape (n_atoms,) in eV/Å, with the threshold.

        Raises
        ------
        InvalidInputError
            If it is larger for an atom, and ``spread="raise"``.
        """
        if self.max_spread is None or self.spread == "ignore" or not len(spread):
            return
        atom = int(np.argmax(spread))
        if spread[atom] > self.max_spread:
            self._respond(
                "spread",
                f"The models disagree about the force on atom {atom}: their spread is "
                f"{spread[atom]:.3g} eV/Å, and {self.max_spread:g} eV/Å was allowed",
            )

    def _respond(self, kind: Literal["distance", "charge", "spread"], problem: str) -> None:
        self.counts[kind] += 1
        advice = ADVICE[kind]
        if getattr(self, kind) == "raise":
            raise InvalidInputError(f"{problem}. {advice}.")
        if self.counts[kind] == 1:
            message = f"{problem}. {advice}; this is said once."
            warnings.warn(message, ExtrapolationWarning, stacklevel=2)


def distance_limits(ranges: Mapping[str, Any] | None) -> np.ndarray | None:
    """Return a table of smallest distances, shape (87, 87) in Å, from what `training_range` gave.

    Raises
    ------
    InvalidInputError
        If the ranges do not name pairs of elements and positive distances.
    """
    if not ranges:
        return None
    limits = np.zeros((LARGEST_NUMBER + 1, LARGEST_NUMBER + 1))
    for pair, distance in ranges.items():
        first, _, second = pair.partition("-")
        known = first in atomic_numbers and second in atomic_numbers
        if not known or not isinstance(distance, (int, float)) or not distance > 0:
            message = (
                "Expected a training range of pairs and distances in Å, such as 'H-O': 0.93; got "
                f"{pair!r}: {distance!r}."
            )
            raise InvalidInputError(message)
        a, b = atomic_numbers[first], atomic_numbers[second]
        limits[a, b] = limits[b, a] = distance
    return limits


def charge_limits(seen: Any) -> tuple[float, float] | None:
    """Return the least and the greatest total charge in training, in e; None if nobody noted them.

    Raises
    ------
    InvalidInputError
        If they are not two numbers in this order.
    """
    if seen is None:
        return None
    try:
        least, most = (float(charge) for charge in seen)
    except (TypeError, ValueError):
        least, most = math.nan, math.nan
    if not least <= most:
        message = f"Expected the least and the greatest total charge in training; got {seen!r}."
        raise InvalidInputError(message)
    return least, most
