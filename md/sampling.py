"""Structures to learn from: packed, explored by MD, cut, and scaled.

Forces within molecules are a hundred times those between them, so a potential that is trained on
MD frames alone gets densities wrong. Volume scans (rigid molecules, moved apart and together) and
clusters cut out of boxes show it what lies between molecules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

from scikd._extras import require
from scikd._progress import Progress
from scikd.exceptions import InvalidInputError
from scikd.parallel import fan_out

from ._stages import claim_folder
from .frames import from_ase, to_ase
from .labelling import METHODS
from .molecules import get_species, parse_mixture
from .moves import cut_cluster, find_bonds, is_sane, scale_molecules
from .packing import pack_box, pack_cluster
from .readers import read_frames, write_frames

__all__ = ["CalculatorFor", "SamplingOptions", "explore", "sample_structures"]

logger = logging.getLogger(__name__)

CalculatorFor = Callable[[Atoms], Any]
"""Makes an ASE calculator for a structure, whose ``info["total_charge"]`` it heeds."""


@dataclass(frozen=True)
class SamplingOptions:
    """What to sample. Every trajectory is a group: its frames are alike, so split by group.

    Parameters
    ----------
    mixture : str, default="EC:DMC:LiPF6 5:7:1"
        What clusters and boxes are made of; see `scikd.md.molecules.parse_mixture`.
    n_clusters : int, default=20
        How many trajectories of free clusters.
    n_boxes : int, default=0
        How many trajectories of periodic boxes.
    cluster_molecules : tuple of 2 ints, default=(1, 8)
        Least and greatest number of molecules of a cluster. They are drawn one by one by their mole
        fractions, so clusters of a salt may be charged.
    box_molecules : int, default=20
        Molecules of a box.
    temperatures : tuple of float, default=(300.0, 600.0, 1000.0)
        In K; trajectories take them in turn.
    density_scales : tuple of float, default=(0.7, 1.0, 1.3)
        Densities at the start over that of the liquid; drawn at random.
    n_frames : int, default=5
        Frames of a trajectory.
    interval : float, default=40.0
        Time in fs between frames.
    warmup : float, default=100.0
        Time in fs before the first interval.
    volume_scales : tuple of float, default=(0.85, 1.3)
        Least and greatest factor on distances between molecules.
    n_scaled : int, default=1
        How many scaled copies of each frame.
    n_cut : int, default=1
        How many clusters are cut out of each frame of more than ``cut_molecules[1]`` molecules.
    cut_molecules : tuple of 2 ints, default=(2, 5)
        Least and greatest number of molecules of a cluster that is cut out.
    keep_boxes : bool, default=True
        Whether boxes are returned too, or only what is cut out of them (for labels by methods
        without periodicity).
    method : str, default="GFN2-xTB"
        What MD runs on, by tblite, unless a calculator is given.
    seed : int, default=0
        Seed of everything.
    """

    mixture: str = "EC:DMC:LiPF6 5:7:1"
    n_clusters: int = 20
    n_boxes: int = 0
    cluster_molecules: tuple[int, int] = (1, 8)
    box_molecules: int = 20
    temperatures: tuple[float, ...] = (300.0, 600.0, 1000.0)
    density_scales: tuple[float, ...] = (0.7, 1.0, 1.3)
    n_frames: int = 5
    interval: float = 40.0
    warmup: float = 100.0
    volume_scales: tuple[float, float] = (0.85, 1.3)
    n_scaled: int = 1
    n_cut: int = 1
    cut_molecules: tuple[int, int] = (2, 5)
    keep_boxes: bool = True
    method: str = "GFN2-xTB"
    seed: int = 0

    def __post_init__(self) -> None:
        parse_mixture(self.mixture)
        expected = {
            "n_clusters + n_boxes >= 1": (
                (self.n_clusters, self.n_boxes),
                min(self.n_clusters, self.n_boxes) >= 0 and self.n_clusters + self.n_boxes >= 1,
            ),
            "temperatures > 0": (self.temperatures, _positive(self.temperatures)),
            "density_scales > 0": (self.density_scales, _positive(self.density_scales)),
            "n_frames >= 1": (self.n_frames, self.n_frames >= 1),
            "n_scaled >= 0": (self.n_scaled, self.n_scaled >= 0),
            "n_cut >= 0": (self.n_cut, self.n_cut >= 0),
            "interval > 0": (self.interval, self.interval > 0),
            "warmup >= 0": (self.warmup, self.warmup >= 0),
            "seed >= 0": (self.seed, self.seed >= 0),
            f"method of {', '.join(METHODS)}": (self.method, self.method in METHODS),
        }
        for name in ("cluster_molecules", "cut_molecules", "volume_scales"):
            pair = getattr(self, name)
            ordered = len(pair) == 2 and 0 < pair[0] <= pair[1]
            expected[f"{name} as a least and a greatest, both positive"] = pair, ordered
        wrong = [f"{what}, got {value!r}" for what, (value, holds) in expected.items() if not holds]
        if wrong:
            raise InvalidInputError(f"Expected {'; '.join(wrong)}.")


def _positive(values: tuple[float, ...]) -> bool:
    return bool(values) and min(values) > 0


def explore(
    atoms: Atoms,
    calculator: Any,
    *,
    temperature: float,
    n_frames: int = 5,
    interval: float = 40.0,
    warmup: float = 100.0,
    timestep: float = 2.0,
    hydrogen_mass: float = 4.0,
    friction: float = 0.02,
    seed: int | np.random.Generator = 0,
) -> list[Atoms]:
    """Run Langevin MD from a structure and return frames of it, as long as they are sane.

    Parameters
    ----------
    atoms : ase.Atoms
        The start, with ``arrays["molecules"]``; it stays as it is.
    calculator : ase.calculators.calculator.Calculator
        Gives the forces.
    temperature : float
        In K.
    n_frames : int, default=5
        How many frames to return.
    interval, warmup : float, default=40.0, 100.0
        Time in fs between frames, and before the first interval.
    timestep : float, default=2.0
        In fs; it is this long because hydrogen is made heavy.
    hydrogen_mass : float, default=4.0
        Mass in u of hydrogen during the run. Which geometries are visited does not depend on it.
    friction : float, default=0.02
        In 1/fs.
    seed : int or numpy.random.Generator, default=0
        Seed of velocities and noise.

    Returns
    -------
    list of ase.Atoms
        The frames, without calculator and velocities; fewer when a bond broke or the calculator
        failed.
    """
    rng = np.random.default_rng(seed)
    bonded = find_bonds(atoms)
    run = atoms.copy()
    masses = np.where(run.numbers == 1, hydrogen_mass, run.get_masses())
    run.set_masses(masses)
    run.calc = calculator
    spread = np.sqrt(masses * units.kB * temperature)  # Maxwell and Boltzmann's
    run.set_momenta(rng.standard_normal(size=(len(run), 3)) * spread[:, None])
    dynamics = Langevin(
        run,
        timestep * units.fs,
        temperature_K=temperature,
        friction=friction / units.fs,
        fixcm=False,
        rng=rng,
    )
    frames: list[Atoms] = []
    for number in range(n_frames):
        time = interval + (warmup if number == 0 else 0.0)
        try:
            dynamics.run(max(1, round(time / timestep)))
        except Exception as error:  # noqa: BLE001 - calculators fail with errors of their own
            logger.warning("MD of %s ended: %s", atoms.get_chemical_formula(), error)
            break
        if not is_sane(run, bonded):
            logger.info("MD of %s ended: a bond broke", atoms.get_chemical_formula())
            break
        frame = atoms.copy()
        frame.positions = run.positions
        frames.append(frame)
    return frames


def sample_structures(
    options: SamplingOptions,
    *,
    calculator: CalculatorFor | None = None,
    folder: str | Path | None = None,
    n_jobs: int | None = None,
    progress: Progress = "auto",
) -> list[Atoms]:
    """Pack clusters and boxes, explore them by MD, and scale and cut their frames.

    Parameters
    ----------
    options : SamplingOptions
        What to sample.
    calculator : callable or None, default=None
        Makes an ASE calculator for a structure; None takes ``options.method`` of tblite.
    folder : str, pathlib.Path or None, default=None
        Where every finished trajectory is kept: a run that was killed goes on from there. The
        options of the first run are noted in it.
    n_jobs : int or None, default=None
        Trajectories side by side; see `scikd.parallel.fan_out`.
    progress : {"auto", True, False}, default="auto"
        Whether to show progress.

    Returns
    -------
    list of ase.Atoms
        Structures with ``arrays["molecules"]``, ``info["total_charge"]`` (e) and
        ``info["group"]`` (the trajectory), by trajectory. The same, digit by digit, for the same
        options, calculator and versions, in whatever way the work was divided.

    Raises
    ------
    InvalidInputError
        If the folder holds trajectories of other options.
    MissingExtraError
        If packmol, or tblite where it is used, is not installed.
    StorageError
        If writing fails. Finished trajectories stay.
    """
    place = None if folder is None else Path(folder)
    if place is not None:
        claim_folder(place, asdict(options), "trajectories")
    tasks = [
        (options, kind, index, calculator, place)
        for kind, count in (("cluster", options.n_clusters), ("box", options.n_boxes))
        for index in range(count)
    ]
    groups = fan_out(_trajectory, tasks, n_jobs=n_jobs, description="sampling", progress=progress)
    structures = []
    for group, frames in enumerate(groups):
        for frame in frames:
            frame.info["group"] = group
        structures += frames
    return structures


def _trajectory(
    options: SamplingOptions,
    kind: str,
    index: int,
    calculator: CalculatorFor | None,
    folder: Path | None,
) -> list[Atoms]:
    """Read the structures of one trajectory from the folder, or make them."""
    path = None if folder is None else folder / f"{kind}-{index:05d}.h5"
    if path is not None and path.exists():
        frames = to_ase(read_frames(path))
    else:
        frames = _make(options, kind, index, calculator)
        if path is not None and frames:
            write_frames(path, from_ase(frames))
    return frames


def _make(
    options: SamplingOptions, kind: str, index: int, calculator: CalculatorFor | None
) -> list[Atoms]:
    rng = np.random.default_rng([options.seed, kind == "box", index])
    start, names = _start(options, kind, rng)
    charges = np.array([get_species(name).charge for name in names])
    start.info["total_charge"] = float(charges.sum())
    made = calculator(start) if calculator else _tblite(options.method, int(charges.sum()))
    frames = explore(
        start,
        made,
        temperature=options.temperatures[index % len(options.temperatures)],
        n_frames=options.n_frames,
        interval=options.interval,
        warmup=options.warmup,
        seed=rng,
    )
    bonded, structures = find_bonds(start), []
    for frame in frames:
        structures += [frame] if kind == "cluster" or options.keep_boxes else []
        for _ in range(options.n_scaled if len(names) > 1 else 0):
            scaled = scale_molecules(frame, rng.uniform(*options.volume_scales))
            keep = (kind == "cluster" or options.keep_boxes) and is_sane(scaled, bonded)
            structures += [scaled] if keep else []
        for _ in range(options.n_cut if len(names) > options.cut_molecules[1] else 0):
            structures.append(_cut(frame, charges, options.cut_molecules, rng))
    return structures


def _start(
    options: SamplingOptions, kind: str, rng: np.random.Generator
) -> tuple[Atoms, list[str]]:
    """Pack the start of a trajectory; return it and the species of its molecules."""
    mixture = parse_mixture(options.mixture)
    scale = float(rng.choice(options.density_scales))
    seed = int(rng.integers(10**6))
    if kind == "box":
        density = scale * mixture.density
        start = pack_box(mixture, n_molecules=options.box_molecules, density=density, seed=seed)
        counts = mixture.counts(n_molecules=options.box_molecules)
    else:
        few, many = options.cluster_molecules
        drawn = rng.multinomial(int(rng.integers(few, many + 1)), list(mixture.values()))
        counts = {name: int(n) for name, n in zip(mixture, drawn, strict=True) if n}
        start = pack_cluster(counts, seed=seed, density_scale=scale)
    return start, [name for name, count in counts.items() for _ in range(count)]


def _cut(
    frame: Atoms, charges: np.ndarray, sizes: tuple[int, int], rng: np.random.Generator
) -> Atoms:
    """Cut a cluster around a random molecule; its charge is that of its molecules."""
    counts = np.bincount(frame.arrays["molecules"])
    carried = frame.copy()  # charges of molecules ride along on their first atoms
    carried.set_array("charge_of_molecule", np.zeros(len(frame)))
    carried.arrays["charge_of_molecule"][np.cumsum(counts) - counts] = charges
    size = int(rng.integers(sizes[0], sizes[1] + 1))
    smaller = cut_cluster(carried, size, centre=int(rng.integers(len(charges))))
    smaller.info["total_charge"] = float(smaller.arrays.pop("charge_of_molecule").sum())
    return smaller


def _tblite(method: str, charge: int) -> Any:
    tblite = require("tblite.ase", extra="md", feature="Sampling by xTB")
    return tblite.TBLite(method=method, charge=charge, verbosity=0)
