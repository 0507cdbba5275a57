"""Make ``data/md/clusters-*.h5``: clusters of electrolyte molecules, labelled by GFN2-xTB.

From the root of a checkout, on one core (half an hour)::

    OMP_NUM_THREADS=1 python data/md/make_clusters.py work-folder

Every trajectory is a file in the work folder, and the labels are a `LabelStore` there: run it again
after a kill and it goes on. The same seed and versions give the same structures.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import combinations_with_replacement
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from tblite.ase import TBLite

from scikd.md.frames import from_ase
from scikd.md.labelling import XTBTeacher, label_structures
from scikd.md.molecules import get_species
from scikd.md.moves import (
    cut_cluster,
    distort,
    find_bonds,
    is_sane,
    join_at_contact,
    scale_molecules,
)
from scikd.md.packing import draw_molecules, pack_cluster
from scikd.md.readers import write_frames
from scikd.md.sampling import explore

logger = logging.getLogger("make_clusters")

SEED = 3
SOLVENTS = ("EC", "DMC", "EMC", "PC", "DME")
IONS = ("Li+", "PF6-")
TEMPERATURES = (300.0, 400.0, 500.0, 600.0, 800.0, 1000.0)
LARGEST = 120  # atoms
LARGEST_FORCE = 30.0  # eV/Å
SMALLEST_LITHIUM = 0.3  # e, in GFN2-xTB
N_CLUSTERS, N_LARGE, N_REPEATS = 150, 120, 10
N_FILES = 2
HERE = Path(__file__).resolve().parent
CHARGES = {name: get_species(name).charge for name in (*SOLVENTS, *IONS)}


@dataclass(frozen=True)
class Job:
    """One group of related structures: they never lie in different splits."""

    kind: str
    index: int
    species: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file in the work folder."""
        return f"{self.kind}-{self.index:04d}"

    @property
    def split(self) -> int:
        """0 train (80 %), 1 validation, 2 test."""
        return {8: 1, 9: 2}.get(self.index % 10, 0)

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of this job alone."""
        return np.random.default_rng([SEED, *self.kind.encode(), self.index])


def jobs() -> Iterator[Job]:
    """Yield all jobs in the order in which they can be run."""
    everything = (*SOLVENTS, *IONS)
    for number, name in enumerate((*SOLVENTS, "PF6-")):
        for repeat in range(N_REPEATS):
            yield Job("monomer", number * N_REPEATS + repeat, (name,))
    yield Job("ion", 0, ("Li+",))
    pairs = [pair for pair in combinations_with_replacement(everything, 2) if pair[0] not in IONS]
    pairs.append(IONS)
    for number, pair in enumerate(pairs):
        for repeat in range(N_REPEATS):
            yield Job("dimer", number * N_REPEATS + repeat, pair)
    for index in range(N_CLUSTERS):
        yield Job("cluster", index)
    for index in range(N_LARGE):
        yield Job("large", index)


def calculator(charge: int) -> TBLite:
    """Return what MD runs on."""
    return TBLite(method="GFN2-xTB", charge=charge, verbosity=0)


class Pool:
    """Frames of earlier jobs of one split, from which later jobs are built."""

    def __init__(self) -> None:
        self.frames: dict[tuple[str, int], list[Atoms]] = {}

    def add(self, job: Job, frames: list[Atoms]) -> None:
        """Remember frames by species, or as clusters; those made from MD frames are left out."""
        key = job.species[0] if job.kind in {"monomer", "ion"} else job.kind
        splits = range(3) if job.kind == "ion" else [job.split]
        for split in splits:
            chosen = [frame for frame in frames if frame.info["origin"] == "md"]
            self.frames.setdefault((key, split), []).extend(chosen)

    def draw(self, key: str, split: int, rng: np.random.Generator) -> Atoms:
        """Return one frame at random."""
        frames = self.frames[key, split]
        return frames[rng.integers(len(frames))]


def finish(atoms: Atoms, charge: int, origin: str) -> Atoms:
    """Centre a structure and round it to the float32 numbers that are stored and labelled."""
    done = Atoms(atoms.numbers, atoms.positions - atoms.positions.mean(axis=0))
    done.positions = done.positions.astype(np.float32).astype(np.float64)
    done.set_array("molecules", atoms.arrays["molecules"])
    done.info.update(total_charge=charge, origin=origin)
    return done


def make_ion(job: Job, pool: Pool) -> list[Atoms]:  # noqa: ARG001 - makers are called alike
    """Return the lithium ion."""
    atoms = Atoms("Li", positions=[[0.0, 0.0, 0.0]])
    atoms.set_array("molecules", np.zeros(1, dtype=np.int64))
    return [finish(atoms, 1, "md")]


def make_monomer(job: Job, pool: Pool) -> list[Atoms]:  # noqa: ARG001 - as above
    """Run MD of one molecule, and distort some of its frames."""
    rng, (name,) = job.rng, job.species
    (atoms,) = draw_molecules({name: 1}, rng)
    atoms.set_array("molecules", np.zeros(len(atoms), dtype=np.int64))
    bonds, charge = find_bonds(atoms), CHARGES[name]
    temperature = TEMPERATURES[job.index % len(TEMPERATURES)]
    frames = explore(
        atoms, calculator(charge), temperature=temperature, n_frames=6, warmup=100.0, seed=rng
    )
    made = [finish(frame, charge, "md") for frame in frames]
    for frame in frames[:4]:
        moved = distort(frame, rng.uniform(0.02, 0.07), rng)
        made += [finish(moved, charge, "distorted")] if is_sane(moved, bonds) else []
    return made


def make_dimer(job: Job, pool: Pool) -> list[Atoms]:
    """Bring two molecules from MD to contact, at several distances."""
    rng, charge = job.rng, sum(CHARGES[name] for name in job.species)
    made = []
    for _ in range(5):
        first, second = (pool.draw(name, job.split, rng) for name in job.species)
        scale = 0.70 + 1.1 * rng.uniform() ** 2
        made.append(finish(join_at_contact(first, second, scale=scale, rng=rng), charge, "contact"))
    return made


def draw_composition(rng: np.random.Generator) -> dict[str, int]:
    """Draw solvents of one to three kinds, often with ions, up to a random number of atoms."""
    solvents = rng.choice(SOLVENTS, size=rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]), replace=False)
    ions = [
        (),
        ("Li+",),
        ("PF6-",),
        ("Li+", "PF6-"),
        ("Li+", "Li+", "PF6-"),
        ("Li+", "PF6-", "PF6-"),
    ]
    drawn = ions[rng.choice(len(ions), p=[0.45, 0.17, 0.12, 0.18, 0.04, 0.04])]
    counts = {str(name): 1 for name in solvents}
    for ion in drawn:
        counts[ion] = counts.get(ion, 0) + 1
    target = rng.uniform(22, 45) if rng.uniform() < 0.7 else rng.uniform(45, 72)
    sizes = {name: get_species(name).n_atoms for name in (*SOLVENTS, *IONS)}
    while sum(counts[name] * sizes[name] for name in counts) + 8 < target:
        counts[str(rng.choice(solvents))] += 1
    return counts


def make_cluster(job: Job, pool: Pool) -> list[Atoms]:  # noqa: ARG001 - as above
    """Run MD of a packed cluster; scale its frames, and cut smaller clusters out of them."""
    rng = job.rng
    counts = draw_composition(rng)
    names = np.repeat(list(counts), list(counts.values()))
    charge = sum(CHARGES[name] for name in names)
    scale = rng.choice([0.7, 1.0, 1.3], p=[0.2, 0.4, 0.4])
    atoms = pack_cluster(counts, seed=int(rng.integers(10**6)), density_scale=scale)
    temperature = rng.choice(TEMPERATURES, p=[0.35, 0.2, 0.1, 0.15, 0.1, 0.1])
    frames = explore(
        atoms, calculator(charge), temperature=temperature, n_frames=5, interval=30.0, warmup=70.0,
        friction=0.05, seed=rng,
    )  # fmt: skip
    bonds, made = find_bonds(atoms), []
    for frame in frames:
        made.append(finish(frame, charge, "md"))
        factor = rng.uniform(0.85, 0.97) if rng.uniform() < 0.6 else rng.uniform(1.03, 1.3)
        scaled = scale_molecules(frame, factor)
        made += [finish(scaled, charge, "scaled")] if is_sane(scaled, bonds) else []
        if len(names) > 3:
            made.append(cut(frame, names, rng))
    return made


def cut(frame: Atoms, names: np.ndarray, rng: np.random.Generator) -> Atoms:
    """Cut two to five neighbouring molecules out of a frame."""
    size = int(rng.integers(2, min(len(names) - 1, 5) + 1))
    named = frame.copy()
    charges = np.array([CHARGES[name] for name in names])
    counts = np.bincount(frame.arrays["molecules"])
    # Charges ride along on the first atom of each molecule, as tags.
    tags = np.zeros(len(frame), dtype=int)
    tags[np.cumsum(counts) - counts] = charges
    named.set_tags(tags)
    smaller = cut_cluster(named, size, centre=int(rng.integers(len(names))))
    return finish(smaller, int(smaller.get_tags().sum()), "cut")


def make_large(job: Job, pool: Pool) -> list[Atoms]:
    """Bring two clusters from MD to contact."""
    rng = job.rng
    for _ in range(1000):
        first, second = (pool.draw("cluster", job.split, rng) for _ in range(2))
        if 75 <= len(first) + len(second) <= LARGEST:
            break
    joined = join_at_contact(first, second, scale=rng.uniform(0.75, 1.1), rng=rng)
    return [finish(joined, first.info["total_charge"] + second.info["total_charge"], "contact")]


MAKERS: dict[str, Callable[[Job, Pool], list[Atoms]]] = {
    "ion": make_ion,
    "monomer": make_monomer,
    "dimer": make_dimer,
    "cluster": make_cluster,
    "large": make_large,
}


def save(path: Path, frames: list[Atoms]) -> None:
    """Write the frames of a job in one step."""
    arrays = {
        "n_atoms": np.array([len(frame) for frame in frames]),
        "numbers": np.concatenate([frame.numbers for frame in frames]),
        "positions": np.concatenate([frame.positions for frame in frames]).astype(np.float32),
        "molecules": np.concatenate([frame.arrays["molecules"] for frame in frames]),
        "total_charge": np.array([frame.info["total_charge"] for frame in frames]),
        "origin": np.array([frame.info["origin"] for frame in frames]),
    }
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(path)


def load(path: Path) -> list[Atoms]:
    """Read the frames of a job."""
    with np.load(path, allow_pickle=False) as held:
        arrays = dict(held)
    frames = []
    stops = np.cumsum(arrays["n_atoms"])
    for number, (start, stop) in enumerate(zip(stops - arrays["n_atoms"], stops, strict=True)):
        frame = Atoms(arrays["numbers"][start:stop], arrays["positions"][start:stop].astype(float))
        frame.set_array("molecules", arrays["molecules"][start:stop])
        charge, origin = int(arrays["total_charge"][number]), str(arrays["origin"][number])
        frame.info.update(total_charge=charge, origin=origin)
        frames.append(frame)
    return frames


def sample(folder: Path) -> list[tuple[Job, list[Atoms]]]:
    """Make, or read, the structures of all jobs."""
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    pool, done = Pool(), []
    for job in jobs():
        path = folder / "jobs" / f"{job.name}.npz"
        if not path.exists():
            began = time.perf_counter()
            frames = MAKERS[job.kind](job, pool)
            if not frames:
                logger.warning("%s gave nothing", job.name)
                continue
            save(path, frames)
            logger.info(
                "%s: %d frames of up to %d atoms in %.1f s", job.name, len(frames),
                max(map(len, frames)), time.perf_counter() - began,
            )  # fmt: skip
        frames = load(path)
        pool.add(job, frames)
        done.append((job, frames))
    return done


def is_sound(frame: Atoms) -> bool:
    """Say whether a labelled frame is one to learn from: no torn atoms, no ion without charge."""
    forces = np.linalg.norm(frame.get_forces(), axis=1)
    lithium = frame.get_charges()[frame.numbers == 3]
    return bool(forces.max() < LARGEST_FORCE and np.all(lithium > SMALLEST_LITHIUM))


def write(number: int, frames: list[Atoms], level: str) -> Path:
    """Write one file: positions, forces and charges as float32, energies as float64."""
    batch = from_ase(frames)
    names = ("positions", "forces", "charges", "dipole")
    batch = replace(batch, **{name: getattr(batch, name).float() for name in names})
    path = HERE / f"clusters-{number}.h5"
    write_frames(path, batch, level=level)
    with h5py.File(path, "a") as file:
        values = np.array([frame.info["split"] for frame in frames], dtype=np.int8)
        file.create_dataset("split", data=values, compression="gzip", shuffle=True)
    return path


def main() -> None:
    """Sample, label, write."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = Path(sys.argv[1])
    frames = []
    for group, (job, made) in enumerate(sample(folder)):
        for frame in made:
            frame.info.update(split=job.split, group=group)
        frames += made
    logger.info("%d structures to label", len(frames))
    teacher = XTBTeacher()
    labelled = label_structures(frames, teacher, folder / "labels", failures="drop")
    sound = [frame for frame in labelled.frames if is_sound(frame)]
    logger.info(
        "%d did not converge, %d are not sound", len(labelled.failures),
        len(labelled.frames) - len(sound),
    )  # fmt: skip
    level = f"{teacher.method} (tblite {metadata.version('tblite')}), gas phase"
    for number in range(N_FILES):  # every file is a sample of all kinds
        part = [frame for frame in sound if frame.info["group"] // N_REPEATS % N_FILES == number]
        path = write(number, part, level)
        logger.info("%s: %d structures, %d bytes", path.name, len(part), path.stat().st_size)


if __name__ == "__main__":
    main()
