"""The properties of a liquid from one trajectory: all that it is long enough for."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ase.data import chemical_symbols

from scikd._atomic import atomic_write_bytes
from scikd.exceptions import InvalidInputError

from .estimates import Estimate
from .structure import (
    RadialDistribution,
    SolvationShells,
    density_of_liquid,
    radial_distribution,
    solvation_shells,
)
from .trajectories import Trajectory, read_trajectory
from .transport import (
    Diffusion,
    conductivity_of_liquid,
    nernst_einstein_conductivity,
    self_diffusion,
    transference_number,
)
from .viscosity import Viscosity, viscosity_of_flow, viscosity_of_fluctuations

__all__ = ["LiquidProperties", "PropertiesOptions", "compute_properties"]

Found = TypeVar("Found")


@dataclass(frozen=True)
class PropertiesOptions:
    """Settings of `compute_properties`.

    Parameters
    ----------
    trajectory : str
        Folder of a run, or a file that ASE reads.
    output : str
        Folder for the page and the numbers.
    start : float
        Time in ps before which frames are left out.
    stride : int
        Take every so many frames.
    interval : float or None
        Time between two frames of a file in ps, where it does not say so.
    temperature : float or None
        In K; None is that of the run.
    charges : dict of str to int, or None
        Formal charges of ions that are not known, by formula.
    pairs : tuple of str
        Radial distributions to take, such as "Li-O" or "Li-EC:O"; none is a choice by the species.
    viscosity : float or None
        In cP, for the correction of diffusion; None is that of the trajectory, if it has one.
    largest_error : float
        Most that the error of a transport coefficient may be, over its value; that of the
        transference number, which is a part of one, may be a third of this.
    """

    trajectory: str = "md-run"
    output: str = "md-properties"
    start: float = 0.0
    stride: int = 1
    interval: float | None = None
    temperature: float | None = None
    charges: dict[str, int] | None = None
    pairs: tuple[str, ...] = ()
    viscosity: float | None = None
    largest_error: float = 0.3

    def __post_init__(self) -> None:
        problems = []
        if not math.isfinite(self.start):
            problems.append(f"a finite start in ps, got {self.start}")
        if not 0 < self.largest_error <= 1:
            problems.append(f"largest_error above 0 and up to 1, got {self.largest_error}")
        for name in ("viscosity", "interval", "temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                problems.append(f"{name} > 0 or None, got {value}")
        problems += [f"pairs such as 'Li-O', got {p!r}" for p in self.pairs if not _pair_of(p)]
        if problems:
            raise InvalidInputError(f"Expected {'; '.join(problems)}.")


@dataclass
class LiquidProperties:
    """What a trajectory says of a liquid.

    Attributes
    ----------
    trajectory : Trajectory
        What it was taken from.
    estimates : dict of str to Estimate
        By name: "density", "viscosity", "diffusion of EC", "conductivity", ...
    refusals : dict of str to str
        What could not be had, and why; a trajectory that is too short says which length would do.
    density_series : tuple of ndarray
        Times in ps and densities in g/cm³.
    distributions : list of RadialDistribution
        One for each pair of atoms.
    diffusions : list of Diffusion
        One for each species.
    viscosity : Viscosity or None
        With its running integral.
    shells : SolvationShells or None
        Of an electrolyte.
    """

    trajectory: Trajectory
    estimates: dict[str, Estimate] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    density_series: tuple[Any, Any] | None = None
    distributions: list[RadialDistribution] = field(default_factory=list)
    diffusions: list[Diffusion] = field(default_factory=list)
    viscosity: Viscosity | None = None
    shells: SolvationShells | None = None

    @property
    def composition(self) -> str:
        """How many molecules of which species."""
        counts = Counter(self.trajectory.names)
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON knows them."""
        return {
            "composition": dict(sorted(Counter(self.trajectory.names).items())),
            "n_atoms": len(self.trajectory.numbers),
            "temperature_K": self.trajectory.temperature,
            "duration_ps": self.trajectory.duration_ps,
            "constant_volume": self.trajectory.constant_volume,
            "estimates": {name: asdict(found) for name, found in self.estimates.items()},
            "refusals": self.refusals,
        }

    def summary(self) -> str:
        """Return what was found, and what was not, in a line each."""
        trajectory = self.trajectory
        at = "" if trajectory.temperature is None else f" at {trajectory.temperature:.4g} K"
        lines = [f"{self.composition}: {trajectory.duration_ps:.4g} ps{at}"]
        lines += [f"{name}: {found}" for name, found in self.estimates.items()]
        lines += [f"no {name}: {reason}" for name, reason in self.refusals.items()]
        return "\n".join(lines)

    def write_json(self, path: str | Path) -> Path:
        """Write the numbers.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        path = Path(path)
        atomic_write_bytes(path, json.dumps(self.as_dict(), indent=1).encode())
        return path


def compute_properties(
    options: PropertiesOptions | None = None,
    *,
    trajectory: Trajectory | None = None,
) -> LiquidProperties:
    """Compute all properties that a trajectory is long enough for.

    Parameters
    ----------
    options : PropertiesOptions or None, default=None
        Settings; the defaults if None.
    trajectory : Trajectory or None, default=None
        In place of the one that the options name.

    Returns
    -------
    LiquidProperties
        Each number with its error, and the reason for each that is missing.

    Raises
    ------
    StorageError
        If the trajectory cannot be read.
    InvalidInputError
        If it is no periodic liquid.
    MissingExtraError
        If a library of the extra ``liquids`` is not installed.
    """
    options = options or PropertiesOptions()
    if trajectory is None:
        trajectory = read_trajectory(
            options.trajectory,
            interval_ps=options.interval,
            temperature=options.temperature,
            charges=options.charges,
            stride=options.stride,
        )
    if options.start > trajectory.times_ps[0]:
        trajectory = trajectory.after(options.start)
    found = LiquidProperties(trajectory)
    _add_density(found)
    _add_structure(found, options)
    _add_transport(found, options)
    return found


def _attempt(found: LiquidProperties, name: str, compute: Callable[[], Found]) -> Found | None:
    """Return a result, or keep the reason why there is none."""
    try:
        return compute()
    except InvalidInputError as error:
        found.refusals[name] = str(error)
        return None


def _add_density(found: LiquidProperties) -> None:
    trajectory = found.trajectory
    density = _attempt(found, "density", lambda: density_of_liquid(trajectory))
    if density is not None:
        found.estimates["density"] = density
    found.density_series = trajectory.density or (trajectory.times_ps, trajectory.densities)


def _add_structure(found: LiquidProperties, options: PropertiesOptions) -> None:
    trajectory = found.trajectory
    for pair in options.pairs or _usual_pairs(trajectory):
        first, second = _pair_of(pair) or ("", "")
        curve = _attempt(
            found,
            f"radial distribution of {pair}",
            lambda a=first, b=second: radial_distribution(trajectory, a, b),  # type: ignore[misc]
        )
        if curve is not None:
            found.distributions.append(curve)
            if curve.coordination is not None:
                found.estimates[f"{second} around {first}"] = curve.coordination
            elif curve.refusal:
                found.refusals[f"{second} around {first}"] = curve.refusal
    cations, anions = _ions(trajectory)
    if cations and anions:
        shells = _attempt(
            found, "solvation shells", lambda: solvation_shells(trajectory, cations[0], anions[0])
        )
        if shells is not None:
            found.shells = shells
            found.estimates |= shells.fractions
            found.estimates[f"{shells.anion} around {shells.cation}"] = shells.anions


def _add_transport(found: LiquidProperties, options: PropertiesOptions) -> None:
    trajectory, limit = found.trajectory, options.largest_error
    by_flow = trajectory.acceleration > 0
    method = viscosity_of_flow if by_flow else viscosity_of_fluctuations
    found.viscosity = _attempt(found, "viscosity", lambda: method(trajectory, largest_error=limit))
    viscosity = None
    if found.viscosity is not None:
        viscosity = found.estimates["viscosity"] = found.viscosity.coefficient
    if options.viscosity is not None:
        viscosity = Estimate(options.viscosity, 0.0, "cP")
    if by_flow:
        found.refusals["diffusion"] = "A force drives a flow; run without an acceleration."
        return
    for name in trajectory.species:
        diffusion = _attempt(
            found,
            f"diffusion of {name}",
            lambda s=name: self_diffusion(  # type: ignore[misc]
                trajectory, s, viscosity=viscosity, largest_error=limit
            ),
        )
        if diffusion is not None:
            found.diffusions.append(diffusion)
            found.estimates[f"diffusion of {name}"] = diffusion.coefficient
            if diffusion.corrected is not None:
                found.estimates[f"diffusion of {name}, large box"] = diffusion.corrected
            elif diffusion.refusal:
                found.refusals[f"diffusion of {name}, large box"] = diffusion.refusal
    if all(_ions(trajectory)):
        _add_conduction(found, limit)


def _add_conduction(found: LiquidProperties, limit: float) -> None:
    trajectory = found.trajectory
    ways: dict[str, Callable[[], Estimate]] = {
        "conductivity": lambda: conductivity_of_liquid(trajectory, largest_error=limit),
        "conductivity, Nernst-Einstein": lambda: nernst_einstein_conductivity(
            trajectory, largest_error=limit
        ),
        "transference number": lambda: transference_number(trajectory, largest_error=limit / 3.0),
    }
    known = {name: _attempt(found, name, way) for name, way in ways.items()}
    found.estimates |= {name: value for name, value in known.items() if value is not None}
    together, alone, _ = known.values()
    if together is not None and alone is not None:
        found.estimates["ionicity"] = together.over(alone)


def _pair_of(text: str) -> tuple[str, str] | None:
    """Return the two kinds of "Li-EC:O"; species such as "PF6-:F" have a hyphen of their own."""
    for place, letter in enumerate(text):
        first, second = text[:place], text[place + 1 :]
        if letter == "-" and first and second and second[0] != ":":
            return first, second
    return None


def _ions(trajectory: Trajectory) -> tuple[list[str], list[str]]:
    charges: Mapping[str, float] = dict(zip(trajectory.names, trajectory.charges, strict=True))
    cations = sorted(name for name, charge in charges.items() if charge > 0)
    return cations, sorted(name for name, charge in charges.items() if charge < 0)


def _usual_pairs(trajectory: Trajectory) -> tuple[str, ...]:
    """Return cations with what they bind, or the heaviest common element with itself."""
    present = {int(z) for z in trajectory.numbers}
    if 3 in present:
        return tuple(f"Li-{chemical_symbols[z]}" for z in (8, 9, 15) if z in present)
    symbols = [chemical_symbols[z] for z in sorted(present) if z > 1][:3] or ["H"]
    return tuple(f"{symbol}-{symbol}" for symbol in symbols)
