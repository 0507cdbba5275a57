"""Whether labels are in the units that they should be in, judged by quantities known beforehand.

Each judgement rests on something that hardly depends on molecule, temperature or level of theory,
and is given only where wrong units are far away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.formula import Formula

from ._half_list import HalfList, bonds, centres_of, pairs_within, unfold
from .frames import AtomicBatch, select
from .units import FROM_VOIGT, HARTREE, convert

__all__ = ["problems"]

MOST_STRUCTURES = 100  # a sample, evenly spaced, is judged
FEWEST_HYDROGENS = 30
HEAVY_NEIGHBORS = (6, 7, 8)  # what hydrogen is bound to, in the molecules that this is about
REACH = 2.5  # Å; to find hydrogen's neighbour by, also where lengths are in bohr

HYDROGEN_DISTANCE = (0.6, 1.6)  # Å
LENGTH_UNITS = {"nm": (0.06, 0.16), "bohr": (1.6, 2.4)}

# -d(force along the bond)/d(length), eV/Å²: 28 to 39 in GFN2-xTB and DFT data on carbonates, water.
HYDROGEN_STIFFNESS = (5.0, 150.0)
FORCE_UNITS = {  # how many of each are 1 eV/Å
    unit: convert(1.0, "eV/Å", unit.rpartition(" or ")[2])
    for unit in (
        "Ha/bohr", "Ry/bohr or Ha/Å", "kJ/mol/nm", "kcal/mol/Å", "kcal/mol/bohr", "kJ/mol/Å",
    )
}  # fmt: skip
SMALLEST_SPREAD = 0.01  # Å, of bond lengths, without which no slope can be told
CLEAR = 0.6  # a correlation

# Energies of bound atoms, Hartree: all-electron DFT within 0.4 % for the molecules tried; GFN2-xTB
# of free atoms, which molecules exceed by 11 to 17 %.
ALL_ELECTRON = {
    1: -0.55, 3: -7.45, 5: -24.7, 6: -38.0, 7: -54.7, 8: -75.15, 9: -99.8, 11: -162.2, 14: -289.4,
    15: -341.3, 16: -398.1, 17: -460.2,
}  # fmt: skip
GFN2 = {
    1: -0.3935, 3: -0.1801, 5: -0.9524, 6: -1.7951, 7: -2.6095, 8: -3.7694, 9: -4.6193, 11: -0.1671,
    14: -1.5714, 15: -2.3778, 16: -3.1483, 17: -4.4825,
}  # fmt: skip
ENERGY_UNITS = {unit: convert(1.0, "Hartree", unit) for unit in ("Hartree", "kcal/mol", "kJ/mol")}
LEVELS = (("all-electron DFT", ALL_ELECTRON, 0.985, 1.015), ("GFN2-xTB", GFN2, 1.06, 1.20))
ENOUGH_HYDROGEN = 0.2  # of the atoms: in fluorides, atomisation energies in eV look like GFN2-xTB

FEWEST_STRESSES = 5
STRESS_SLOPE = (0.3, 3.0)
STRESS_UNITS = {
    unit: convert(1.0, "eV/Å³", unit)
    for unit in ("eV/Å³", "Ha/Å³", "Ha/bohr³", "kcal/mol/Å³", "kJ/mol/Å³", "GPa", "kbar", "bar")
}


@dataclass
class _Structure:
    """One structure of the sample, as arrays, with its labels (NaN or None where missing)."""

    positions: np.ndarray
    numbers: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None

    @cached_property
    def pairs(self) -> HalfList:
        return pairs_within(self.positions, self.cell, self.pbc, REACH)[0]

    def hydrogens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return hydrogens' distance to a heavy nearest neighbour, and the force away from it."""
        vectors = self.pairs.vectors(self.positions)
        i, j = np.r_[self.pairs.i, self.pairs.j], np.r_[self.pairs.j, self.pairs.i]
        vectors = np.concatenate([vectors, -vectors])
        distances = np.linalg.norm(vectors, axis=1)
        nearest = np.full(len(self.numbers), -1)
        order = np.argsort(-distances, kind="stable")
        nearest[i[order]] = order  # the last one written is the shortest
        pair = nearest[(self.numbers == 1) & (nearest >= 0)]
        pair = pair[np.isin(self.numbers[j[pair]], HEAVY_NEIGHBORS) & (distances[pair] > 0)]
        along = np.full(len(pair), np.nan)
        if self.forces is not None:
            away = -vectors[pair] / distances[pair, None]
            along = np.einsum("pc,pc->p", self.forces[i[pair]], away)
        return distances[pair], along

    def molecular_virial(self, forces: np.ndarray) -> np.ndarray:
        """Return Σ r ⊗ F, r being taken along bonds from the centre of each molecule."""
        bonded = bonds(self.numbers, self.positions, self.cell, self.pbc)
        places, molecules = unfold(bonded, self.positions)
        # Forces on a molecule do not sum to zero, so the origin matters: its centre.
        places -= centres_of(places, molecules)[molecules]
        return places.T @ forces


def _sample(batch: AtomicBatch) -> list[_Structure]:
    several = np.flatnonzero(batch.counts.cpu().numpy() > 1)
    if not len(several):
        return []
    places = np.linspace(0, len(several) - 1, min(len(several), MOST_STRUCTURES))
    batch = select(batch, several[places.astype(int)])
    structures = []
    for one in batch.to(dtype=torch.float64).structures():
        whole = {n: one[n] for n in ("forces", "stress") if n in one and not np.isnan(one[n]).any()}
        structures.append(
            _Structure(
                one["positions"],
                one["numbers"],
                one["cell"],
                one["pbc"],
                float(one.get("energy", np.nan)),
                whole.get("forces"),
                whole.get("stress"),
            )
        )
    return structures


def problems(batch: AtomicBatch) -> list[str]:
    """Say which labels of a batch look wrong, and what would explain it."""
    sample = _sample(batch)
    if not sample:
        return []
    found = [part.hydrogens() for part in sample]
    lengths = np.concatenate([length for length, _ in found])
    along = np.concatenate([force for _, force in found])
    wrong_length = _judge_lengths(lengths)
    if wrong_length:
        return [wrong_length]  # nothing else can be judged by wrong positions
    wrong_forces = _judge_forces(lengths, along)
    # A stress is judged by the forces.
    wrong_stress = None if wrong_forces else _judge_stress(sample)
    verdicts = (_judge_energies(sample), wrong_forces, wrong_stress)
    return [verdict for verdict in verdicts if verdict]


def _judge_lengths(lengths: np.ndarray) -> str | None:
    if len(lengths) < FEWEST_HYDROGENS:
        return None
    median = float(np.median(lengths))
    if HYDROGEN_DISTANCE[0] <= median <= HYDROGEN_DISTANCE[1]:
        return None
    unit = next((u for u, (low, high) in LENGTH_UNITS.items() if low <= median <= high), None)
    guess = f"as if positions were in {unit}" if unit else "which fits no unit that is tried here"
    return f"positions: hydrogen is {median:.3g} from C, N or O; expected about 1 Å: {guess}."


def _closest(value: float, units: dict[str, float], factor: float) -> str | None:
    """Return the unit whose size is closest to a value, if within a factor."""
    unit = min(units, key=lambda name: abs(np.log(value / units[name])))
    return unit if abs(np.log(value / units[unit])) < np.log(factor) else None


def _judge_forces(lengths: np.ndarray, along: np.ndarray) -> str | None:
    known = ~np.isnan(along)
    lengths, along = lengths[known], along[known]
    if len(lengths) < FEWEST_HYDROGENS or lengths.std() < SMALLEST_SPREAD or not along.std():
        return None
    correlation = np.corrcoef(lengths, along)[0, 1]
    if abs(correlation) < CLEAR:
        return None
    stiffness = -float(np.polyfit(lengths, along, 1)[0])
    said = f"forces: bonds to hydrogen have a stiffness of {stiffness:.3g}; expected 20 to 60 eV/Å²"
    if stiffness < 0:
        return f"{said}: as if gradients were given, which have the opposite sign."
    if HYDROGEN_STIFFNESS[0] <= stiffness <= HYDROGEN_STIFFNESS[1]:
        return None
    unit = _closest(stiffness / 33.0, FORCE_UNITS, 1.5)
    return f"{said}: as if they were in {unit}." if unit else f"{said}; no unit tried explains it."


def _judge_energies(sample: list[_Structure]) -> str | None:
    known = [part for part in sample if not np.isnan(part.energy)]
    if not known:
        return None
    hydrogen = np.mean(np.concatenate([part.numbers for part in known]) == 1)
    for level, table, low, high in LEVELS:
        if level == "GFN2-xTB" and hydrogen < ENOUGH_HYDROGEN:
            continue
        sums = [sum(table.get(int(z), np.nan) for z in part.numbers) for part in known]
        ratios = np.array([part.energy for part in known]) / np.array(sums)
        if np.isnan(ratios).any():
            continue
        lowest, highest = np.percentile(ratios, [5, 95])
        if HARTREE * low <= lowest and highest <= HARTREE * high:
            return None
        for unit, size in ENERGY_UNITS.items():
            if size * low <= lowest and highest <= size * high:
                formula = Formula.from_list([chemical_symbols[z] for z in known[0].numbers])
                return (
                    f"energy: {known[0].energy:.6g} for {formula:hill} is what {level} gives in "
                    f"{unit}; expected eV."
                )
    return None


def _judge_stress(sample: list[_Structure]) -> str | None:
    virials, labels, volumes = [], [], []
    for part in sample:
        if part.stress is not None and part.forces is not None and part.pbc.all():
            virials.append(part.molecular_virial(part.forces))
            labels.append(part.stress[..., FROM_VOIGT])
            volumes.append(abs(np.linalg.det(part.cell)))
    if len(virials) < FEWEST_STRESSES:
        return None
    given = _deviator(-np.array(volumes)[:, None, None] * np.array(labels))
    expected = _deviator(np.array(virials))
    if not expected.std() or not given.std():
        return None
    if abs(np.corrcoef(expected, given)[0, 1]) < CLEAR:
        return None
    slope = float(expected @ given / (expected @ expected))
    if STRESS_SLOPE[0] <= slope <= STRESS_SLOPE[1]:
        return None
    said = (
        f"stress: -V·stress is {slope:.3g} times Σ r ⊗ F within molecules (traces left out); "
        "expected about 1"
    )
    units = {"eV, not divided by the volume": float(np.median(volumes))}
    unit = _closest(abs(slope), units | STRESS_UNITS, 1.5)
    sign = " and of the wrong sign (stress = -virial/V)" if slope < 0 else ""
    return f"{said}: as if it were in {unit or 'a unit that is not tried here'}{sign}."


def _deviator(tensors: np.ndarray) -> np.ndarray:
    """Return symmetric traceless parts, flattened: what no pressure adds to."""
    symmetric = (tensors + tensors.swapaxes(1, 2)) / 2
    traces = np.trace(symmetric, axis1=1, axis2=2)[:, None, None]
    return (symmetric - traces / 3 * np.eye(3)).ravel()
