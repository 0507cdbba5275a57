"""Density and structure of a liquid: radial distributions, coordination, pairing of ions.

Neighbours are found by freud, in boxes of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase.cell import Cell
from ase.data import atomic_numbers

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from .estimates import Estimate, TooShortError, mean_of_series
from .trajectories import Trajectory

__all__ = [
    "RadialDistribution",
    "SolvationShells",
    "density_of_liquid",
    "radial_distribution",
    "solvation_shells",
]

BIN = 0.05  # Å
SMOOTH = 3  # bins, over which minima are looked for
REACH = 10.0  # Å
BLOCKS = 10
CLEAR = 5.0  # standard errors, of a peak that is one
LEAST = 0.1  # of its height; also where frames are so few or alike that errors are small
SHELLS = ("SSIP", "CIP", "AGG")


@dataclass(frozen=True)
class RadialDistribution:
    """How often two kinds of atoms of different molecules are at a distance, over chance.

    Attributes
    ----------
    pair : tuple of str
        The two kinds.
    distances : ndarray of shape (n_bins,)
        Middle of each bin in Å.
    values : ndarray of shape (n_bins,)
        1 where the pair does not feel each other.
    errors : ndarray of shape (n_bins,)
        Standard errors, from ten blocks in time.
    numbers : ndarray of shape (n_bins,)
        Mean number of the second kind around one of the first, up to the end of each bin.
    first_minimum : float or None
        Radius of the first shell in Å; None if the curve shows none.
    coordination : Estimate or None
        Mean number of the second kind within it.
    refusal : str
        Why there is none, though there is a shell.
    """

    pair: tuple[str, str]
    distances: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    numbers: np.ndarray
    first_minimum: float | None
    coordination: Estimate | None
    refusal: str = ""


@dataclass(frozen=True)
class SolvationShells:
    """How the cations of an electrolyte are paired with its anions.

    Attributes
    ----------
    cation, anion : str
        Species.
    cutoff : float
        Distance in Å up to which an atom of an anion touches a cation.
    fractions : dict of str to Estimate
        Of the cations: "SSIP", separated from all anions by solvent; "CIP", in contact with one
        anion, which touches no other cation; "AGG", all others.
    anions : Estimate
        Mean number of anions in contact with a cation.
    """

    cation: str
    anion: str
    cutoff: float
    fractions: dict[str, Estimate]
    anions: Estimate


def density_of_liquid(trajectory: Trajectory) -> Estimate:
    """Return the density in g/cm³ with its error; at constant volume it has none.

    Raises
    ------
    TooShortError
        If the trajectory has fewer than five independent stretches of the density.
    InvalidInputError
        If the density drifts.
    """
    times, values = trajectory.times_ps, trajectory.densities
    if trajectory.density is not None:
        times, values = trajectory.density
    interval = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else math.nan
    return mean_of_series(values, interval, what="The density", unit="g/cm³")


def radial_distribution(
    trajectory: Trajectory, first: str, second: str, *, reach: float = REACH
) -> RadialDistribution:
    """Return the radial distribution of two kinds of atoms, between molecules.

    Parameters
    ----------
    trajectory : Trajectory
        The liquid.
    first, second : str
        Elements, such as "Li"; or elements of one species, such as "EC:O".
    reach : float, default=10
        Largest distance in Å; never more than half of the box.

    Raises
    ------
    TooShortError
        If there are fewer than ten frames.
    InvalidInputError
        If there are no such atoms.
    """
    _check_frames(trajectory, first, second)
    a, b = _select(trajectory, first), _select(trajectory, second)
    others = np.bincount(trajectory.molecules[b], minlength=trajectory.molecules.max() + 1)
    n_pairs = float((len(b) - others[trajectory.molecules[a]]).sum())
    if not n_pairs:
        message = f"There are no {first} and {second} in different molecules."
        raise InvalidInputError(message)
    edges, counts = _histograms(trajectory, a, b, reach)
    values, errors = _curve(trajectory, edges, counts, n_pairs)
    numbers = np.cumsum(counts, axis=1) / len(a)
    end = _first_minimum(values, errors)
    coordination, refusal = None, ""
    if end is not None:
        try:
            coordination = mean_of_series(
                numbers[:, end], trajectory.interval_ps, what="The coordination number"
            )
        except InvalidInputError as error:
            refusal = str(error)
    return RadialDistribution(
        (first, second),
        0.5 * (edges[1:] + edges[:-1]),
        values,
        errors,
        numbers.mean(axis=0),
        None if end is None else float(edges[end + 1]),
        coordination,
        refusal,
    )


def solvation_shells(
    trajectory: Trajectory, cation: str = "Li+", anion: str = "PF6-", *, cutoff: float | None = None
) -> SolvationShells:
    """Count cations that are free of anions, paired with one, or in larger aggregates.

    Parameters
    ----------
    trajectory : Trajectory
        The electrolyte.
    cation, anion : str
        Species; the distance is from the atom of the cation to the nearest of the anion.
    cutoff : float or None, default=None
        In Å; None is the first minimum of the radial distribution of that distance.

    Raises
    ------
    TooShortError
        If pairs form and break so slowly that their number is not known.
    InvalidInputError
        If a species is missing, the cation has several atoms, or their radial distribution shows no
        first shell.
    """
    cations, anions = trajectory.members(cation), trajectory.members(anion)
    a = np.flatnonzero(np.isin(trajectory.molecules, cations))
    b = np.flatnonzero(np.isin(trajectory.molecules, anions))
    if len(a) != len(cations):
        message = f"Expected a cation of one atom; {cation} has {len(a) // len(cations)}."
        raise InvalidInputError(message)
    if cutoff is None:
        _check_frames(trajectory, cation, anion)
        # Of the nearest atoms: all atoms of an anion that is met have several peaks.
        edges, counts = _histograms(trajectory, a, b, REACH, nearest=True)
        end = _first_minimum(*_curve(trajectory, edges, counts, len(cations) * len(anions)))
        if end is None:
            message = (
                f"The radial distribution of {cation} and {anion} shows no first shell. Give a "
                "cutoff."
            )
            raise InvalidInputError(message)
        cutoff = float(edges[end + 1])
    states = np.zeros((len(trajectory.positions), len(SHELLS)))
    touching = np.zeros(len(trajectory.positions))
    for k, (i, j, _) in enumerate(_contacts(trajectory, a, b, cutoff)):
        pairs = np.unique(np.stack([a[i], trajectory.molecules[b[j]]]), axis=1)
        partners = np.bincount(pairs[0], minlength=len(trajectory.numbers))[a]
        shared = np.bincount(pairs[1], minlength=len(trajectory.names))
        lone = pairs[0][shared[pairs[1]] == 1]
        paired = (partners == 1) & np.isin(a, lone)
        states[k] = (partners == 0).sum(), paired.sum(), ((partners > 0) & ~paired).sum()
        touching[k] = partners.mean()
    fractions = {
        name: _fraction(states[:, place] / len(a), len(a), trajectory.interval_ps, name)
        for place, name in enumerate(SHELLS)
    }
    what = f"The number of {anion} around {cation}"
    mean = mean_of_series(touching, trajectory.interval_ps, what=what)
    if not mean.error:
        mean = Estimate(mean.value, fractions["SSIP"].error)
    return SolvationShells(cation, anion, cutoff, fractions, mean)


def _fraction(series: np.ndarray, n_ions: int, interval_ps: float, name: str) -> Estimate:
    found = mean_of_series(series, interval_ps, what=f"The fraction of {name}")
    if found.error:
        return found
    # No pair formed or broke: all frames say as much as one, and one of n ions may be the next.
    likely = (found.value * n_ions + 1.0) / (n_ions + 2.0)
    return Estimate(found.value, math.sqrt(likely * (1.0 - likely) / (n_ions + 3.0)))


def _select(trajectory: Trajectory, text: str) -> np.ndarray:
    """Return the atoms of "O", "EC:O" or "EC:" (all of EC)."""
    species, colon, symbol = text.rpartition(":")
    chosen = np.ones(len(trajectory.numbers), dtype=bool)
    if colon:
        chosen = np.isin(trajectory.molecules, trajectory.members(species))
    if symbol:
        if symbol not in atomic_numbers:
            message = f"Expected an element, or a species and an element as 'EC:O'; got {text!r}."
            raise InvalidInputError(message)
        chosen &= trajectory.numbers == atomic_numbers[symbol]
    if not chosen.any():
        message = f"There is no {text!r} in this liquid of {', '.join(trajectory.species)}."
        raise InvalidInputError(message)
    return np.flatnonzero(chosen)


def _check_frames(trajectory: Trajectory, first: str, second: str) -> None:
    """Refuse fewer frames than blocks, whose scatter tells the error."""
    n_frames = len(trajectory.positions)
    if n_frames < BLOCKS:
        message = (
            f"The radial distribution {first}-{second} needs at least {BLOCKS} frames; got "
            f"{n_frames}. About {BLOCKS * trajectory.interval_ps:.4g} ps would do."
        )
        raise TooShortError(message, BLOCKS * trajectory.interval_ps)


def _narrowest(trajectory: Trajectory) -> float:
    """Return the smallest distance between opposite faces of the box in Å, of all frames."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(trajectory.cells), axis=1)
    return float(heights.min())


def _contacts(
    trajectory: Trajectory, a: np.ndarray, b: np.ndarray, reach: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield places in a and in b and distances, of pairs in different molecules, by frame."""
    freud = require("freud", extra="liquids", feature="The structure of a liquid")
    of_a, of_b = trajectory.molecules[a], trajectory.molecules[b]
    for positions, cell in zip(trajectory.positions, trajectory.cells, strict=True):
        standard, rotation = Cell(cell).standard_form()
        box = freud.box.Box.from_matrix(standard[:].T)
        points = box.wrap(positions[np.concatenate([a, b])] @ rotation.T)
        query = freud.locality.AABBQuery(box, points[len(a) :])
        found = query.query(points[: len(a)], {"r_max": reach}).toNeighborList()
        i, j = found.query_point_indices, found.point_indices
        apart = of_a[i] != of_b[j]
        yield i[apart], j[apart], np.asarray(found.distances)[apart]


def _histograms(
    trajectory: Trajectory, a: np.ndarray, b: np.ndarray, reach: float, *, nearest: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return edges of bins, and the pairs of each frame in them, of different molecules.

    ``nearest`` takes only the nearest atom of each molecule that b is of.
    """
    reach = min(reach, 0.499 * _narrowest(trajectory))
    edges = np.linspace(0.0, reach, max(round(reach / BIN), 2) + 1)
    counts = np.empty((len(trajectory.positions), len(edges) - 1))
    for k, (i, j, distances) in enumerate(_contacts(trajectory, a, b, reach)):
        order = np.argsort(distances)
        if nearest:
            met = np.stack([a[i], trajectory.molecules[b[j]]])[:, order]
            order = order[np.unique(met, axis=1, return_index=True)[1]]
        counts[k] = np.histogram(distances[order], edges)[0]
    return edges, counts


def _curve(
    trajectory: Trajectory, edges: np.ndarray, counts: np.ndarray, n_pairs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return how often pairs are in each bin, over chance, and standard errors from blocks."""
    shells = 4.0 / 3.0 * math.pi * np.diff(edges**3)
    curves = counts * (trajectory.volumes / n_pairs)[:, None] / shells
    parts = np.array([part.mean(axis=0) for part in np.array_split(curves, BLOCKS)])
    return curves.mean(axis=0), parts.std(axis=0, ddof=1) / math.sqrt(BLOCKS)


def _first_minimum(values: np.ndarray, errors: np.ndarray) -> int | None:
    """Return the bin of the lowest value between the first peak and the next rise, if any.

    The peak is clearly above 1, and the fall from it and the rise are clear too: noise is neither.
    """
    kernel = np.full(SMOOTH, 1.0 / SMOOTH)
    smooth, noise = (np.convolve(series, kernel, mode="valid") for series in (values, errors))
    top = bottom = 0
    met = False
    for k, value in enumerate(smooth):
        clear = np.maximum(CLEAR * np.hypot(noise[k], noise), LEAST)
        if not met:
            top = k if value > smooth[top] else top
            met = smooth[top] > 1.0 + clear[top] and smooth[top] - value > clear[top]
            bottom = k
        elif value < smooth[bottom]:
            bottom = k
        elif value - smooth[bottom] > clear[bottom]:
            lowest = np.flatnonzero(smooth[top:k] <= smooth[bottom] + 1e-12)
            return top + int(lowest[len(lowest) // 2]) + SMOOTH // 2
    return None
