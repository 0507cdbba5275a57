"""Starting structures: molecules packed into a periodic box, or into a cluster, by packmol.

Molecules do not overlap, their orientations are random, and every choice comes from the seed.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from scikd._extras import require
from scikd.exceptions import InvalidInputError, MissingExtraError

from .molecules import Mixture, get_species, parse_mixture
from .units import GRAM_PER_CM3

__all__ = ["draw_molecules", "pack_box", "pack_cluster", "pack_molecules"]

_ION_VOLUME = 20.0  # Å³, so that a cluster of lithium ions has a size
_TOLERANCE = 2.0  # Å between atoms of different molecules
_SECONDS = 600.0
_LOOPS = 100  # after which packmol gives up; what fits is done in a few
_FEW_MOLECULES = 64


def pack_box(
    mixture: Mixture | str,
    *,
    n_molecules: int | None = None,
    n_atoms: int | None = None,
    density: float | None = None,
    seed: int = 0,
    tolerance: float = _TOLERANCE,
) -> Atoms:
    """Pack a mixture into a cubic periodic box.

    Parameters
    ----------
    mixture : Mixture or str
        The mixture, or text that `parse_mixture` reads.
    n_molecules, n_atoms : int or None
        How many there should be, about; give one of them.
    density : float or None, default=None
        In g/cm³; None takes the mixture's own guess, from additive volumes.
    seed : int, default=0
        Seed of conformers, mirror images, places and orientations.
    tolerance : float, default=2.0
        Least distance in Å between atoms of different molecules, periodic images included.

    Returns
    -------
    ase.Atoms
        With ``arrays["molecules"]`` (0, 1, ... by molecule) and ``info["total_charge"]`` (0).

    Raises
    ------
    InvalidInputError
        If the density is not positive, or so high that packmol finds no place for all molecules.
    MissingExtraError
        If packmol is not installed.
    """
    mixture = parse_mixture(mixture) if isinstance(mixture, str) else mixture
    density = mixture.density if density is None else density
    _check_positive("density", density)
    counts = mixture.counts(n_molecules=n_molecules, n_atoms=n_atoms)
    molecules = draw_molecules(counts, np.random.default_rng(seed))
    mass = sum(float(molecule.get_masses().sum()) for molecule in molecules)
    edge = (mass / (density * GRAM_PER_CM3)) ** (1 / 3)
    packed = pack_molecules(molecules, box=edge, seed=seed, tolerance=tolerance)
    packed.info["total_charge"] = 0
    return packed


def pack_cluster(
    composition: Mapping[str, int],
    *,
    seed: int = 0,
    density_scale: float = 1.0,
    tolerance: float = _TOLERANCE,
) -> Atoms:
    """Pack molecules into a ball in free space.

    Parameters
    ----------
    composition : mapping of str to int
        How many of each species; the charges need not cancel.
    seed : int, default=0
        Seed of conformers, mirror images, places and orientations.
    density_scale : float, default=1.0
        Density of the ball over that of the liquid. A ball is made larger, in steps of 5 %, until
        all its molecules find a place.
    tolerance : float, default=2.0
        Least distance in Å between atoms of different molecules.

    Returns
    -------
    ase.Atoms
        With ``arrays["molecules"]`` and ``info["total_charge"]``.

    Raises
    ------
    InvalidInputError
        If the composition is empty or a number in it is negative, or the scale is not positive.
    MissingExtraError
        If packmol is not installed.
    """
    _check_positive("density_scale", density_scale)
    if sum(composition.values()) < 1 or min(composition.values()) < 0:
        message = f"Expected numbers of molecules, not all zero; got {dict(composition)}."
        raise InvalidInputError(message)
    molecules = draw_molecules(composition, np.random.default_rng(seed))
    packed = _pack_ball(molecules, _liquid_volume(composition) / density_scale, seed, tolerance)
    packed.info["total_charge"] = _total_charge(composition)
    return packed


def _total_charge(composition: Mapping[str, int]) -> int:
    """Return the total charge of a composition in e."""
    return sum(count * get_species(name).charge for name, count in composition.items())


def _liquid_volume(composition: Mapping[str, int]) -> float:
    """Return the volume in Å³ that the molecules would have in their liquids."""
    return sum(
        count * max(get_species(name).molar_volume / GRAM_PER_CM3, _ION_VOLUME)
        for name, count in composition.items()
    )


def draw_molecules(composition: Mapping[str, int], rng: np.random.Generator) -> list[Atoms]:
    """Draw conformers of a composition, and their mirror images, at random.

    Parameters
    ----------
    composition : mapping of str to int
        How many of each species.
    rng : numpy.random.Generator
        What draws them.

    Returns
    -------
    list of ase.Atoms
        The molecules, species by species, around their centres of mass.
    """
    molecules = []
    for name, count in composition.items():
        conformers = get_species(name).conformers
        for _ in range(count):
            molecule = conformers[rng.integers(len(conformers))].copy()
            molecule.positions *= rng.choice([-1.0, 1.0])
            molecules.append(molecule)
    return molecules


def _pack_ball(molecules: Sequence[Atoms], volume: float, seed: int, tolerance: float) -> Atoms:
    """Pack molecules into a ball of about this volume (Å³)."""
    radius = (volume * 3 / (4 * math.pi)) ** (1 / 3)
    # A ball must hold its longest molecule, whatever the density asked for.
    radius = max(radius, *(_extent(molecule) + 0.1 for molecule in molecules))
    while True:
        try:
            return pack_molecules(molecules, radius=radius, seed=seed, tolerance=tolerance)
        except InvalidInputError:
            if radius > 100 * len(molecules):  # something else is wrong
                raise
            radius *= 1.05


def _extent(molecule: Atoms) -> float:
    centre = molecule.positions.mean(axis=0)
    return float(np.linalg.norm(molecule.positions - centre, axis=1).max())


def pack_molecules(
    molecules: Sequence[Atoms],
    *,
    box: float | Sequence[float] | None = None,
    radius: float | None = None,
    seed: int = 0,
    tolerance: float = _TOLERANCE,
) -> Atoms:
    """Pack given molecules, of any kind, into a periodic box or into a ball.

    Parameters
    ----------
    molecules : sequence of ase.Atoms
        The molecules, kept rigid.
    box : float or sequence of 3 floats or None
        Edges in Å of an orthorhombic periodic box.
    radius : float or None
        Radius in Å of a ball around the origin, which holds all atoms. Give a box or a radius.
    seed : int, default=0
        Seed of places and orientations.
    tolerance : float, default=2.0
        Least distance in Å between atoms of different molecules.

    Returns
    -------
    ase.Atoms
        The atoms of the molecules in the order given, with ``arrays["molecules"]``.

    Raises
    ------
    InvalidInputError
        If not one container is given, there are no molecules, or they do not fit in.
    MissingExtraError
        If packmol is not installed.
    """
    if (box is None) == (radius is None) or not molecules:
        message = (
            f"Expected molecules and either box or radius; got {len(molecules)} molecules, "
            f"box={box}, radius={radius}."
        )
        raise InvalidInputError(message)
    executable = _find_packmol()
    lines = [
        f"tolerance {tolerance}",
        "filetype xyz",
        f"nloop {_LOOPS}",
        "output packed.xyz",
        f"seed {seed % 10**6 + 1}",
    ]
    if radius is None:
        edges = np.broadcast_to(np.asarray(box, dtype=float), (3,))
        lines.append("pbc " + " ".join(f"{edge:.8f}" for edge in edges))
        place = []
    else:
        edges = np.zeros(3)
        place = [f"  inside sphere 0. 0. 0. {radius:.8f}"]
    blocks = _alike(molecules)
    with tempfile.TemporaryDirectory(prefix="scikd-packmol-") as folder:
        for members in blocks:
            molecule, name = molecules[members[0]], f"{members[0]}.xyz"
            write(Path(folder) / name, Atoms(molecule.numbers, molecule.positions))
            lines += [f"structure {name}", f"  number {len(members)}", *place, "end structure"]
        numbers, positions = _run(executable, lines, Path(folder))
    # packmol writes block by block; put the atoms into the order of the molecules.
    written = [molecule for members in blocks for molecule in members]
    written_by = np.repeat(written, [len(molecules[molecule]) for molecule in written])
    order = np.argsort(written_by, kind="stable")
    numbers, positions = numbers[order], positions[order]
    packed = Atoms(numbers, positions, cell=edges, pbc=radius is None)
    owners = np.repeat(np.arange(len(molecules)), [len(molecule) for molecule in molecules])
    packed.set_array("molecules", owners.astype(np.int64))
    return packed


def _alike(molecules: Sequence[Atoms]) -> list[list[int]]:
    """Group equal molecules of a large system, which packmol places several times faster."""
    if len(molecules) <= _FEW_MOLECULES:
        return [[number] for number in range(len(molecules))]
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for number, molecule in enumerate(molecules):
        key = (molecule.numbers.tobytes(), molecule.positions.tobytes())
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _find_packmol() -> str:
    """Return the path of the executable: that of the package, or another on the PATH."""
    try:
        cli = require("packmol.cli", extra="md", feature="Packing molecules")
    except MissingExtraError:
        found = shutil.which("packmol")
        if found is None:
            raise
        return found
    return str(cli.get_binary_path())


def _run(executable: str, lines: Sequence[str], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    (folder / "packmol.inp").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "packmol.inp").open() as file:  # packmol rewinds its input: no pipe will do
        ran = subprocess.run(  # noqa: S603 - the executable of a package, with our own input
            [executable],
            stdin=file,
            cwd=folder,
            text=True,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    output = folder / "packed.xyz"
    if ran.returncode != 0 or "Success!" not in ran.stdout or not output.exists():
        tail = " ".join((ran.stdout + ran.stderr).split())[-300:]
        message = (
            "packmol found no place for all molecules. Lower the density or the tolerance. It said "
            f"(exit status {ran.returncode}): {tail}"
        )
        raise InvalidInputError(message)
    atoms: Any = read(output, format="xyz")
    return atoms.numbers, atoms.positions


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        message = f"Expected {name} > 0; got {value}."
        raise InvalidInputError(message)
